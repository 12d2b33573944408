package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Hurry raises the process's priority, as Raise does; where it may not, it
// says so and goes on. 0 leaves it as it is.
func Hurry(nice int) {
	if nice == 0 {
		return
	}
	if err := Raise(nice); err != nil {
		slog.Warn("no priority: late when others take every core", "err", err)
		return
	}
	slog.Info("priority raised", "nice", nice)
}

// Raise gives every thread of this process the nice value, -20 to 19; the
// threads that they make inherit it. Where the kernel shares the CPU between
// sessions first (sched(7), autogroup) a nice value counts inside the session
// alone: the session gets it, too, if it is this process's own, as a service's
// is. It fails where that is not permitted: less than 0 takes CAP_SYS_NICE.
func Raise(nice int) error {
	if leader, err := unix.Getsid(0); err == nil && leader == os.Getpid() {
		if err := raiseSession(nice); err != nil {
			return err
		}
	}
	done := map[int]bool{}
	for {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("raise priority: %w", err)
		}
		fresh := false
		for _, t := range threads {
			id, err := strconv.Atoi(t.Name())
			if err != nil || done[id] {
				continue
			}
			// Linux keeps a nice value for each thread (setpriority(2)).
			if err := unix.Setpriority(unix.PRIO_PROCESS, id, nice); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("raise priority to %d: %w", nice, err)
			}
			done[id], fresh = true, true
		}
		if !fresh { // none was made meanwhile
			return nil
		}
	}
}

// The kernel takes one session's value each tenth of a second, whosever it is,
// and refuses others until then: daemons that start together wait for each other.
const (
	sessionTries = 40
	sessionPause = 25 * time.Millisecond
)

func raiseSession(nice int) error {
	err := writeSession(nice)
	for tries := 1; errors.Is(err, unix.EAGAIN) && tries < sessionTries; tries++ {
		time.Sleep(sessionPause)
		err = writeSession(nice)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("raise priority of session to %d: %w", nice, err)
	}
	return nil
}

func writeSession(nice int) error {
	return os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(nice)), 0)
}
