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
// host, every mount, the bridge and the cables. Nothing has a name outside but
// a cgroup, which the process outside removes; its next run removes what a
// killed one has left.
const (
	inside   = "TANDEM_INSTALL_INSIDE" // set in that process: the directory for the hosts' disks
	group    = "TANDEM_INSTALL_CGROUP" // the same: the name of the hosts' cgroup
	wants    = "TANDEM_INSTALL_WANTS"  // the same: a file for the sentence that says why this machine cannot
	packages = "TANDEM_PACKAGES"       // set by make test-install: where the built packages are
	debian   = "TANDEM_DEBIAN"         // the same: the tarball that tools/debian-root makes
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(inside); dir != "" {
		if err := enter(dir); err != nil {
			os.WriteFile(os.Getenv(wants), []byte(err.Error()), 0o600)
			return
		}
	}
	os.Exit(m.Run())
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
// the same test there. Where the machine does not let it, as in a container
// without privileges, the test is skipped with what was refused.
func own(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inside) != "" {
		return true
	}
	if _, err := os.Stat(os.Getenv(debian)); err != nil {
		t.Skipf("wants the Debian that tools/debian-root makes: %v", err)
	}
	dir := t.TempDir()
	why, disks := filepath.Join(dir, "wants"), filepath.Join(dir, "disks")
	if err := os.Mkdir(disks, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=9m")
	cmd.Env = append(os.Environ(), inside+"="+disks, wants+"="+why, group+"="+makeCgroup(t))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("wants namespaces of its own: %v", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("in its namespaces: %v", err)
	}
	if sentence, err := os.ReadFile(why); err == nil {
		t.Skipf("wants a machine on which hosts can boot: %s", sentence)
	}
	return false
}

// cannot skips a test inside, and the one that runs it.
func cannot(t *testing.T, sentence string) {
	t.Helper()
	if err := os.WriteFile(os.Getenv(wants), []byte(sentence), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Skip(sentence)
}

// enter makes the namespaces ready: a disk in memory, /proc, nspawn's notes in
// /run, one hierarchy of cgroups, and a bridge that is the site's network.
func enter(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, m := range []struct{ kind, at string }{{"proc", "/proc"}, {"tmpfs", dir}, {"tmpfs", "/run"}, {"sysfs", "/sys"}, {"cgroup2", "/sys/fs/cgroup"}} {
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s at %s: %w", m.kind, m.at, err)
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
	return nil
}
