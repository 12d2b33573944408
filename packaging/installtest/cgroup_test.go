package installtest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// groups is how the hosts' cgroups are called: by the process that removes them.
const groups = "tandem-install-"

// makeCgroup makes a cgroup for the hosts' processes, and returns its name.
// When the test ends it goes, and so does what a killed run has left.
func makeCgroup(t *testing.T) string {
	t.Helper()
	hierarchy, err := openCgroups()
	if err != nil {
		t.Skipf("wants cgroups (version 2): %v", err)
	}
	t.Cleanup(func() { hierarchy.Close() })
	top := fmt.Sprintf("/proc/self/fd/%d", hierarchy.Fd())
	left, _ := filepath.Glob(filepath.Join(top, groups+"*"))
	for _, dir := range left {
		if _, err := os.Stat("/proc/" + strings.TrimPrefix(filepath.Base(dir), groups)); err != nil {
			removeCgroups(dir)
		}
	}
	name := groups + strconv.Itoa(os.Getpid())
	if err := os.Mkdir(filepath.Join(top, name), 0o755); err != nil {
		t.Skipf("wants a cgroup of its own: %v", err)
	}
	t.Cleanup(func() {
		err := removeCgroups(filepath.Join(top, name))
		for tries := 0; err != nil && tries < 100; tries++ { // until the last process is gone for the kernel, too
			time.Sleep(100 * time.Millisecond)
			err = removeCgroups(filepath.Join(top, name))
		}
		if err != nil {
			t.Error(err)
		}
	})
	return name
}

// openCgroups opens the hierarchy of cgroups wherever it is mounted, or if it
// is not.
func openCgroups() (*os.File, error) {
	context, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(context)
	if err := unix.FsconfigCreate(context); err != nil {
		return nil, err
	}
	mount, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(mount), "cgroups"), nil
}

// removeCgroups removes a cgroup and those below, in which nothing may be left.
func removeCgroups(top string) error {
	var all []string
	err := filepath.WalkDir(top, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			all = append(all, path)
		}
		return err
	})
	for _, dir := range slices.Backward(all) {
		if failed := unix.Rmdir(dir); failed != nil && err == nil {
			err = fmt.Errorf("remove %s: %w", filepath.Base(dir), failed)
		}
	}
	return err
}
