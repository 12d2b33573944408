package journal

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tandem/internal/durable"
)

// syncer makes what is written survive a power cut: one fdatasync for all the
// blocks of an interval. It closes the files that the writer has retired.
type syncer struct {
	interval time.Duration
	dir      string
	lock     *os.File // holds the newest file's number
	wake     chan struct{}

	mu    sync.Mutex
	files []*file // not closed yet, oldest first
	fresh bool    // a file was created since the folder was synced
	began time.Time
	took  latencies
}

func (s *syncer) init(interval time.Duration, dir string, lock *os.File) {
	s.interval, s.dir, s.lock = interval, dir, lock
	s.wake = make(chan struct{}, 1)
}

// follow takes a new file in.
func (s *syncer) follow(f *file) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = append(s.files, f)
	s.fresh = true
}

// retire closes the file after one more sync.
func (s *syncer) retire(f *file) {
	f.retired.Store(true)
	s.nudge()
}

func (s *syncer) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// whenClosed closes done when every file followed so far is closed; all of
// them have been retired.
func (s *syncer) whenClosed(done chan<- struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.files) == 0 {
		close(done)
		return
	}
	last := s.files[len(s.files)-1]
	last.whenGone = append(last.whenGone, done)
}

// run syncs until written is closed, and then once more.
func (s *syncer) run(written <-chan struct{}) error {
	tick := time.NewTicker(s.interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.wake:
		case <-written:
			return s.pass()
		}
		if err := s.pass(); err != nil {
			slog.Error("journal not synced; a new file begins", "dir", s.dir, "err", err)
		}
	}
}

// pass syncs what was written, and closes what is retired, oldest first.
func (s *syncer) pass() error {
	s.mu.Lock()
	files, fresh := slices.Clone(s.files), s.fresh
	s.fresh = false
	s.mu.Unlock()
	var first error
	if fresh {
		if err := cmp.Or(unix.Fdatasync(int(s.lock.Fd())), durable.SyncDir(s.dir)); err != nil {
			first = fmt.Errorf("sync journal: %w", err)
		}
	}
	for _, f := range files {
		retired := f.retired.Load() // before the sync: what retiring wrote is synced, too
		if f.dirty.Swap(false) {
			if err := s.sync(f); err != nil {
				// The kernel may have dropped what it could not write and
				// call the next sync a success: trust the file no more.
				f.suspect.Store(true)
				first = cmp.Or(first, fmt.Errorf("sync journal: %w", err))
			}
		}
		if retired {
			s.close(f)
		}
	}
	return first
}

func (s *syncer) sync(f *file) error {
	began := time.Now()
	s.mu.Lock()
	s.began = began
	s.mu.Unlock()
	err := unix.Fdatasync(int(f.Fd()))
	ended := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.began = time.Time{}
	s.took.add(ended, ended.Sub(began))
	return err
}

func (s *syncer) close(f *file) {
	if err := f.Close(); err != nil {
		slog.Warn("journal file not closed", "file", f.path, "err", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = slices.DeleteFunc(s.files, func(o *file) bool { return o == f })
	for _, done := range f.whenGone {
		close(done)
	}
}

func (s *syncer) hangs(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.began.IsZero() {
		return 0
	}
	return now.Sub(s.began)
}

// percentile is of the syncs that ended in the latency window; when none did,
// how long the one that goes on has taken.
func (s *syncer) percentile(now time.Time, percent int) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	recent := s.took.since(now.Add(-latencyWindow))
	switch {
	case len(recent) > 0:
	case s.began.IsZero():
		return 0
	default:
		return now.Sub(s.began)
	}
	slices.Sort(recent)
	return recent[(len(recent)*percent-1)/100]
}

// latencies remembers how long the last things took.
type latencies struct {
	at   [256]time.Time
	took [256]time.Duration
	next int
}

// latencyWindow is how far back percentiles look.
const latencyWindow = 10 * time.Second

func (l *latencies) add(now time.Time, took time.Duration) {
	l.at[l.next], l.took[l.next] = now, took
	l.next = (l.next + 1) % len(l.at)
}

func (l *latencies) since(from time.Time) []time.Duration {
	recent := make([]time.Duration, 0, len(l.at))
	for i, at := range l.at {
		if !at.Before(from) {
			recent = append(recent, l.took[i])
		}
	}
	return recent
}
