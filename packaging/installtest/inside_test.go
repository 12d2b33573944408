// Package installtest installs the packages on hosts that boot, as
// docs/install.md says, and breaks them. make test-install runs it.
package installtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The whole site lives in namespaces of its own: when the process that they
// were made for ends, however it ends, the kernel ends every process of every
// host, every mount, the bridge and the cables. Nothing has a name outside.
const (
	inside   = "TANDEM_INSTALL_INSIDE" // set in that process: the directory for the hosts' disks
	packages = "TANDEM_PACKAGES"       // set by make test-install: where the built packages are
	debian   = "TANDEM_DEBIAN"         // the same: the tarball that tools/debian-root makes
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(inside); dir != "" {
		if err := enter(dir); err != nil {
			fmt.Fprintln(os.Stderr, "install test:", err)
			os.Exit(1)
		}
	}
	status := m.Run()
	if os.Getenv(inside) != "" {
		leaveCgroup()
	}
	os.Exit(status)
}

// needs skips a test that somebody's machine cannot run, and says why.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	if os.Getenv(packages) == "" {
		t.Skip("wants built packages: make test-install runs this")
	}
	if os.Getuid() != 0 {
		t.Skip("wants root: it boots hosts")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("wants %s, which tools/setup installs", p)
		}
	}
}

// own reports whether this is the process with the namespaces; if not, it runs
// the same test there.
func own(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inside) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), inside+"="+t.TempDir())
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Run(); err != nil {
		t.Fatalf("in its namespaces: %v", err)
	}
	return false
}

// enter makes the namespaces ready: a disk in memory, /proc, one hierarchy of
// cgroups, and a bridge that is the site's network.
func enter(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, m := range []struct{ kind, at string }{{"proc", "/proc"}, {"tmpfs", dir}, {"sysfs", "/sys"}, {"cgroup2", "/sys/fs/cgroup"}} {
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	for _, line := range []string{
		"link set lo up",
		"link add site type bridge",
		"address add " + switchAddress + "/16 dev site",
		"link set site up",
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	return enterCgroup()
}

// cgroup is where the hosts' processes are: nspawn makes its own below. The
// name is by the process's number outside, which /proc/self of the old /proc
// had; a random one does as well.
var cgroup string

func enterCgroup() error {
	var err error
	if cgroup, err = os.MkdirTemp("/sys/fs/cgroup", "tandem-install-"); err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	return nil
}

// leaveCgroup removes what nothing is in any more. The hosts are gone by then.
func leaveCgroup() {
	var below []string
	filepath.WalkDir(cgroup, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			below = append(below, path)
		}
		return nil
	})
	for n := len(below) - 1; n >= 0; n-- {
		os.Remove(below[n])
	}
}
