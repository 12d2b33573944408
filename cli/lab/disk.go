package lab

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"tandem/cli/scenario"
)

// disk is where a recorder keeps what it records: a directory, or, for
// scenarios that break disks, a file system of its own that goes with the
// host. Its methods but stall, flow and close run on the host's thread.
type disk struct {
	dir   string
	image string // a loop device's file; empty: none

	stop  chan struct{} // closed to end the stalls; nil: it flows
	ended chan error    // how they ended
}

const diskSize = 2 << 30

// errNoDisk is a machine that gives no disk to slow down.
var errNoDisk = errors.New("no loop device with a file system")

// openDisk prepares the directory for what will be done to it.
func openDisk(h *host, dir string, harm []scenario.Action) (*disk, error) {
	d := &disk{dir: dir}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return d, fmt.Errorf("make disk: %w", err)
	}
	switch {
	case slices.Contains(harm, scenario.FillDisk):
		return d, h.do(d.mountSmall)
	case slices.Contains(harm, scenario.SlowDisk):
		d.image = dir + ".img"
		if err := h.do(d.makeFileSystem); err != nil {
			return d, fmt.Errorf("%w: %w", errNoDisk, err)
		}
	}
	return d, nil
}

func (d *disk) mountSmall() error {
	if err := unix.Mount("tmpfs", d.dir, "tmpfs", 0, fmt.Sprintf("size=%d", diskSize)); err != nil {
		return fmt.Errorf("mount disk: %w", err)
	}
	return nil
}

func (d *disk) makeFileSystem() error {
	file, err := os.Create(d.image)
	if err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	err = errors.Join(file.Truncate(diskSize), file.Close())
	if err == nil {
		err = command("mkfs.ext4", "-q", "-F", d.image)
	}
	if err == nil {
		err = command("mount", "-o", "loop", d.image, d.dir)
	}
	return err
}

// fill leaves not a byte: the file system is made as small as what it holds.
func (d *disk) fill() error {
	var s unix.Statfs_t
	if err := unix.Statfs(d.dir, &s); err != nil {
		return fmt.Errorf("fill disk: %w", err)
	}
	return d.resize(int64(s.Blocks-s.Bfree) * s.Bsize)
}

// free is the inverse of fill.
func (d *disk) free() error { return d.resize(diskSize) }

func (d *disk) resize(size int64) error {
	if err := unix.Mount("", d.dir, "", unix.MS_REMOUNT, fmt.Sprintf("size=%d", size)); err != nil {
		return fmt.Errorf("make disk %d bytes large: %w", size, err)
	}
	return nil
}

// A disk that stalls: each write waits up to stalled, and there is little
// time between.
const (
	stalled = 900 * time.Millisecond
	flowing = 100 * time.Millisecond
)

// stall begins to freeze and thaw the file system. What slows real disks, a
// device mapper's delay or a group's bandwidth, not every kernel has.
func (d *disk) stall(h *host) error {
	var root *os.File
	if err := h.do(func() (err error) { root, err = os.Open(d.dir); return err }); err != nil {
		return fmt.Errorf("stall disk: %w", err)
	}
	stop, ended := make(chan struct{}), make(chan error, 1)
	d.stop, d.ended = stop, ended
	go func() {
		defer root.Close()
		ended <- stallUntil(stop, int(root.Fd()))
	}()
	return nil
}

func stallUntil(stop <-chan struct{}, fd int) error {
	for {
		if err := unix.IoctlSetInt(fd, fiFreeze, 0); err != nil {
			return fmt.Errorf("freeze disk: %w", err)
		}
		ending := pause(stop, stalled)
		if err := unix.IoctlSetInt(fd, fiThaw, 0); err != nil {
			return fmt.Errorf("thaw disk: %w", err)
		}
		if ending || pause(stop, flowing) {
			return nil
		}
	}
}

// pause waits; true when it was stopped.
func pause(stop <-chan struct{}, d time.Duration) bool {
	select {
	case <-stop:
		return true
	case <-time.After(d):
		return false
	}
}

// From linux/fs.h.
const (
	fiFreeze = 0xC0045877 // _IOWR('X', 119, int)
	fiThaw   = 0xC0045878
)

// flow ends the stalls.
func (d *disk) flow() error {
	if d.stop == nil {
		return nil
	}
	close(d.stop)
	d.stop = nil
	return <-d.ended
}
