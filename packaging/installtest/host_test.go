package installtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The site of docs/install.md.
var addresses = map[string]string{"ldn-1": "10.0.0.1", "ldn-2": "10.0.0.2", "ldn-3": "10.0.0.3"}

const switchAddress = "10.0.9.1"

// host is a Debian that boots, with a network card and a disk of its own.
type host struct {
	t    *testing.T
	name string
	disk string // its root directory
	log  string // its console

	power  *exec.Cmd // nil while it is off
	leader int       // its first process, as seen here
}

// unpack lays the fresh Debian that all disks begin as.
func unpack(t *testing.T) {
	t.Helper()
	base := filepath.Join(os.Getenv(inside), "debian")
	if err := os.Mkdir(base, 0o755); err != nil {
		t.Fatal(err)
	}
	command(t, "tar", "-C", base, "-xf", os.Getenv(debian), "--xattrs", "--numeric-owner")
	// Hosts have no ssh server, since how a file gets to another host is nobody's
	// concern here: this scp copies to the other one's disk.
	write(t, filepath.Join(base, "usr/local/bin/scp"), 0o755, `#!/bin/bash
set -eu
to=${!#} to=${to#root@}
cp -p "${@:1:$#-1}" "/wire/${to%%:*}${to#*:}"
`)
}

// newDisk is a fresh root directory.
func newDisk(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(os.Getenv(inside), name)
	for _, d := range []string{"upper", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := fmt.Sprintf("lowerdir=%s/debian,upperdir=%s/upper,workdir=%s/work", os.Getenv(inside), dir, dir)
	if err := unix.Mount("overlay", filepath.Join(dir, "root"), "overlay", 0, options); err != nil {
		t.Fatalf("mount disk of %s: %v", name, err)
	}
	return filepath.Join(dir, "root")
}

// newHost is a host that is off.
func newHost(t *testing.T, name string) *host {
	t.Helper()
	h := &host{t: t, name: name, disk: newDisk(t, name), log: filepath.Join(os.Getenv(inside), name+".console")}
	write(t, filepath.Join(h.disk, "etc/hostname"), 0o644, name+"\n")
	write(t, filepath.Join(h.disk, "etc/systemd/network/10-host0.network"), 0o644,
		fmt.Sprintf("[Match]\nName=host0\n[Network]\nAddress=%s/16\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n", addresses[name]))
	command(t, "systemctl", "--quiet", "--root="+h.disk, "enable", "systemd-networkd.service", "systemd-networkd-wait-online.service")
	t.Cleanup(func() {
		h.t = t
		if t.Failed() && h.power != nil {
			console, _ := os.ReadFile(h.log)
			t.Logf("%s shows: %s", h.name, console[max(0, len(console)-2000):])
			out, _ := h.try("journalctl -b -p 6 -n 60 --no-pager -o short-precise -u 'tandem-*'; systemctl --no-pager --failed")
			t.Logf("%s:\n%s", h.name, out)
		}
		h.pullPlug()
	})
	return h
}

// turnOn boots the host and waits until it is up.
func (h *host) turnOn() {
	h.t.Helper()
	console, err := os.OpenFile(h.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		h.t.Fatal(err)
	}
	defer console.Close()
	args := []string{"--machine=" + h.name, "--directory=" + h.disk, "--boot"}
	for name, address := range addresses {
		if name != h.name {
			args = append(args, "--bind="+filepath.Join(os.Getenv(inside), name, "root")+":/wire/"+address)
		}
	}
	h.power = nspawn(context.Background(), h.t, args...)
	h.power.Stdout, h.power.Stderr = console, console
	if err := h.power.Start(); err != nil {
		h.t.Fatalf("boot %s: %v", h.name, err)
	}
	h.await(2*time.Minute, "to boot", func() error {
		if err := h.findLeader(); err != nil {
			return err
		}
		out, err := h.try("systemctl is-system-running --wait")
		if state := strings.TrimSpace(out); state == "running" || state == "degraded" {
			return nil // what is degraded the steps will say
		}
		return fmt.Errorf("%w: %s", err, out)
	})
}

// nspawn is systemd-nspawn on the site's network, in a cgroup of its own.
func nspawn(ctx context.Context, t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	own, err := os.MkdirTemp(filepath.Join("/sys/fs/cgroup", os.Getenv(group)), "host-")
	if err != nil {
		t.Fatal(err)
	}
	fd, err := os.Open(own)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fd.Close() })
	cmd := exec.CommandContext(ctx, "systemd-nspawn", append([]string{"--quiet", "--register=no", "--keep-unit", "--settings=no", "--link-journal=no",
		"--resolv-conf=off", "--timezone=off", "--console=pipe", "--network-bridge=site"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(fd.Fd()), Pdeathsig: syscall.SIGKILL}
	return cmd
}

// needsHosts skips the test where systemd-nspawn may not do what a host takes.
func needsHosts(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	try := nspawn(ctx, t, "--machine=try", "--directory="+filepath.Join(os.Getenv(inside), "debian"), "--volatile=overlay", "true")
	try.WaitDelay = time.Second
	if out, err := try.CombinedOutput(); err != nil {
		cannot(t, fmt.Sprintf("systemd-nspawn: %v: %s", err, out))
	}
}

// findLeader finds the host's first process: the child of nspawn.
func (h *host) findLeader() error {
	pid := h.power.Process.Pid
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return fmt.Errorf("find first process: %w", err)
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	if h.leader, err = strconv.Atoi(first); err != nil {
		return fmt.Errorf("find first process: %w", err)
	}
	return nil
}

// pullPlug ends the host as a power cut does: all its processes are gone at
// once, and what they had not written is lost.
func (h *host) pullPlug() {
	if h.power == nil {
		return
	}
	if h.leader != 0 {
		syscall.Kill(h.leader, syscall.SIGKILL)
	}
	h.power.Process.Kill()
	h.power.Wait()
	h.power, h.leader = nil, 0
}

// try runs a script on the host, as root in its home. It returns all that the
// script says.
func (h *host) try(script string) (string, error) {
	ctx, cancel := h.patience()
	defer cancel()
	out, err := h.shell(ctx, script).CombinedOutput()
	return string(out), err
}

// ask is try for what programs read: what the script writes on its standard
// output, whatever it says beside that.
func (h *host) ask(script string) ([]byte, error) {
	ctx, cancel := h.patience()
	defer cancel()
	return h.shell(ctx, script).Output()
}

// patience bounds a script's time. It reaches beyond the test, whose failure
// scripts explain.
func (h *host) patience() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(h.t.Context()), 3*time.Minute)
}

func (h *host) shell(ctx context.Context, script string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", "--target", strconv.Itoa(h.leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd",
		"env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
		"bash", "-euo", "pipefail", "-c", "cd; "+script)
	cmd.WaitDelay = time.Second // whatever of it goes on may hold its output open
	return cmd
}

// run is try for what must succeed.
func (h *host) run(script string) string {
	h.t.Helper()
	out, err := h.try(script)
	if err != nil {
		h.t.Fatalf("%s: %v\n%s\n%s", h.name, err, script, out)
	}
	return out
}

// await polls until done returns nil, or fails the test with its last word.
func (h *host) await(patience time.Duration, what string, done func() error) {
	h.t.Helper()
	await(h.t, patience, h.name+" "+what, done)
}

func await(t *testing.T, patience time.Duration, what string, done func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; pause(t, 100*time.Millisecond) {
		err := done()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s: %v", patience, what, err)
		}
	}
}

// pause lets real time pass: the hosts are real.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func write(t *testing.T, file string, mode os.FileMode, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}
