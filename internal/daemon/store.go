package daemon

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// namesMost is how long the names of all descriptors in a store may be, with a
// separator each: they come back in LISTEN_FDNAMES, and a process whose
// environment has a longer string than 32 pages cannot be started at all
// (execve(2), MAX_ARG_STRLEN).
const namesMost = 32*4096 - len("LISTEN_FDNAMES=") - 1

// Descriptor is one that was handed to this process, with the name that it was kept under.
type Descriptor struct {
	Name string
	FD   int
}

// firstHanded is the number of the first descriptor that systemd hands over
// (sd_listen_fds(3)).
const firstHanded = 3

// Handed takes the descriptors that systemd gave this process when it started
// it; they are the caller's, and a second call finds none. Call it before any
// other process is started from this one.
func Handed() []Descriptor {
	defer func() {
		for _, key := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
			os.Unsetenv(key)
		}
	}()
	if pid, err := strconv.Atoi(os.Getenv("LISTEN_PID")); err != nil || pid != os.Getpid() {
		return nil
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n <= 0 {
		return nil
	}
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	var handed []Descriptor
	for i := range n {
		d := Descriptor{FD: firstHanded + i}
		if i < len(names) {
			d.Name = names[i]
		}
		unix.CloseOnExec(d.FD)
		handed = append(handed, d)
	}
	return handed
}

// Store has systemd keep descriptors open, and hand them to the next process
// of this unit, however this one ends (sd_pid_notify_with_fds(3), FDSTORE=1).
// How many it takes is FileDescriptorStoreMax= of the unit. Its methods are
// safe for concurrent use; a nil Store keeps nothing.
type Store struct {
	manager *manager
	wake    chan struct{}

	mu    sync.Mutex
	queue []errand
	names map[string]bool // kept, or to be
	size  int             // of LISTEN_FDNAMES
	most  int             // descriptors, 0: unknown
	full  bool            // said so
}

// errand is one message to systemd. It owns the descriptor; -1: the name is to
// be forgotten.
type errand struct {
	name string
	fd   int
}

// OpenStore opens the store that holds what was handed over; without systemd
// it is nil.
func OpenStore(handed []Descriptor) (*Store, error) {
	m, err := dialManager()
	if m == nil || err != nil {
		return nil, err
	}
	s := &Store{manager: m, wake: make(chan struct{}, 1), names: map[string]bool{}}
	s.most, _ = strconv.Atoi(os.Getenv("FDSTORE")) // systemd 254 and later say it
	for _, d := range handed {
		s.names[d.Name] = true
		s.size += len(d.Name) + 1
	}
	return s, nil
}

// Keep has a duplicate of fd kept under a name that nothing else has. It
// returns at once. A store that is full keeps it not, and says so in the log
// once: it must not become so full that the unit cannot be started.
func (s *Store) Keep(name string, fd int) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names[name] {
		return
	}
	if s.size+len(name)+1 > namesMost || s.most > 0 && len(s.names) >= s.most {
		if !s.full {
			slog.Warn("file descriptor store is full: a restart loses what comes meanwhile", "kept", len(s.names), "name", name)
		}
		s.full = true
		return
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, firstHanded)
	if err != nil {
		slog.Warn("descriptor not kept", "name", name, "err", err)
		return
	}
	s.names[name] = true
	s.size += len(name) + 1
	s.add(errand{name, own})
}

// Forget has systemd close what is kept under the name.
func (s *Store) Forget(name string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.names[name] {
		return
	}
	delete(s.names, name)
	s.size -= len(name) + 1
	s.full = false
	waiting := len(s.queue)
	s.queue = slices.DeleteFunc(s.queue, func(e errand) bool {
		if e.name == name && e.fd >= 0 {
			unix.Close(e.fd)
			return true
		}
		return false
	})
	if len(s.queue) == waiting {
		s.add(errand{name, -1})
	}
}

func (s *Store) add(e errand) {
	s.queue = append(s.queue, e)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run brings systemd what is to be kept and forgotten until ctx ends, and then
// what is left. Every descriptor takes a message of its own: one message names
// all its descriptors alike, and forgets them alike.
func (s *Store) Run(ctx context.Context) error {
	if s == nil {
		<-ctx.Done()
		return nil
	}
	defer s.manager.Close()
	defer context.AfterFunc(ctx, func() { s.manager.SetWriteDeadline(time.Now().Add(notifyWithin)) })()
	failed := false
	for {
		for e, ok := s.next(); ok; e, ok = s.next() {
			err := s.send(e)
			if err != nil && !failed {
				slog.Warn("file descriptor store not reached", "name", e.name, "err", err)
			}
			failed = err != nil
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			if !s.idle() {
				continue
			}
			return nil
		}
	}
}

func (s *Store) next() (errand, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		s.queue = nil
		return errand{}, false
	}
	e := s.queue[0]
	s.queue = s.queue[1:]
	return e, true
}

func (s *Store) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue) == 0
}

// send waits while systemd's queue is full.
func (s *Store) send(e errand) error {
	if e.fd < 0 {
		return s.manager.sayWith(nil, "FDSTOREREMOVE=1", "FDNAME="+e.name)
	}
	defer unix.Close(e.fd)
	// FDPOLL=0: systemd would drop a socket at its first error, and be woken by every packet.
	return s.manager.sayWith(unix.UnixRights(e.fd), "FDSTORE=1", "FDPOLL=0", "FDNAME="+e.name)
}
