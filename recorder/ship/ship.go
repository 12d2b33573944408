// Package ship brings a recorder's catalog into the database that it shares with
// others: every row, in the order of writing, as often as it takes.
//
// The recorder's own catalog is the queue. What the database has is a revision
// of it, kept on both sides; so nothing piles up in memory while the database is
// away, and whichever side is restored from a backup, the rows in between are
// shipped again.
package ship

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"tandem/recorder/catalog"
	"tandem/recorder/shared"
)

const (
	// look is how often new rows are looked for.
	look = time.Second
	// recount is how often the lag is counted while there is one.
	recount = time.Second
	// batch is how many rows go in one transaction.
	batch = 500
	// tell is how often a recorder without new rows says that it is alive.
	tell = 5 * time.Second
	// patience is how long one transaction may take, or a connection.
	patience = 30 * time.Second
)

// State is how far shipping has come.
type State struct {
	Connected bool
	Database  string // its name for itself; empty before the first connection
	Shipped   int64  // the database has every row up to this revision
	Lag       int    // rows it does not have, when they were last counted
	Rows      uint64 // sent since the start, those sent again included
	Refused   uint64 // of those, what the database could not take
}

// Shipper ships one catalog.
type Shipper struct {
	cfg     shared.Config
	source  shared.Source
	catalog *catalog.Catalog
	look    time.Duration
	state   atomic.Pointer[State] // replaced by Run alone
	counted time.Time             // of Run
}

// New is a shipper of a catalog, for Run.
func New(cfg shared.Config, source shared.Source, c *catalog.Catalog) *Shipper {
	s := &Shipper{cfg: cfg, source: source, catalog: c, look: look}
	s.state.Store(&State{})
	return s
}

// State may be asked for at any time.
func (s *Shipper) State() State { return *s.state.Load() }

// Run ships until ctx ends. What goes wrong is logged and tried again.
func (s *Shipper) Run(ctx context.Context) error {
	if shipped, err := s.catalog.Shipped(ctx); err == nil {
		s.change(func(n *State) { n.Shipped = shipped })
	}
	said := ""
	for failures := 0; ctx.Err() == nil; {
		began := time.Now()
		err := s.session(ctx)
		wasConnected := s.State().Connected
		s.change(func(n *State) { n.Connected = false })
		if ctx.Err() != nil {
			break
		}
		if text := err.Error(); wasConnected || text != said {
			slog.Warn("shared catalog out of reach: rows wait in this recorder's own", "err", err)
			said = text
		}
		if failures++; wasConnected && time.Since(began) > longest {
			failures = 1
		}
		s.count(ctx)
		pause(ctx, backoff(failures, rand.Float64()))
	}
	return nil
}

// longest is the longest time between two attempts.
const longest = 15 * time.Second

// backoff is the time until the next attempt after so many failures: twice the
// last one, and up to a quarter less by chance, lest all recorders come at once
// when the database is back.
func backoff(failures int, chance float64) time.Duration {
	wait := longest
	if failures < 6 {
		wait = min(longest, 500*time.Millisecond<<(failures-1))
	}
	return wait - time.Duration(chance*float64(wait)/4)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// session ships over one connection until something goes wrong.
func (s *Shipper) session(ctx context.Context) error {
	w, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer w.Close()
	noted, err := s.catalog.Shipped(ctx)
	if err != nil {
		return err
	}
	// The lower one is right: the other side was restored, or has not heard.
	s.change(func(n *State) { n.Connected, n.Database, n.Shipped = true, w.Identity(), min(noted, w.Place()) })
	s.count(ctx)
	slog.Info("shared catalog reached", "database", w.Identity(), "lag", s.State().Lag)
	told := time.Time{}
	for {
		changes, err := s.catalog.Changes(ctx, s.State().Shipped, batch)
		if err != nil {
			return err
		}
		now := time.Now()
		if changes.Len() > 0 || now.Sub(told) >= tell {
			if err := s.put(ctx, w, now, changes); err != nil {
				return err
			}
			told = now
		}
		if done := changes.Len() == 0 && s.State().Lag > 0; done || now.Sub(s.counted) >= recount {
			s.count(ctx)
			if noted, err = s.note(ctx, noted); err != nil {
				return err
			}
		}
		if changes.Len() > 0 {
			continue // there may be more
		}
		if pause(ctx, s.look); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// dial connects, which takes its time where another recorder is just making the
// tables. What waits meanwhile is counted as ever.
func (s *Shipper) dial(ctx context.Context) (w *shared.Writer, err error) {
	attempt, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	dialed := make(chan struct{})
	go func() {
		defer close(dialed)
		w, err = shared.Dial(attempt, s.cfg, s.source)
	}()
	again := time.NewTicker(recount)
	defer again.Stop()
	for {
		s.count(ctx)
		select {
		case <-dialed:
			return w, err
		case <-again.C:
		}
	}
}

func (s *Shipper) put(ctx context.Context, w *shared.Writer, now time.Time, changes catalog.Changes) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	refused, err := w.Put(ctx, now, changes)
	if err != nil {
		return err
	}
	s.change(func(n *State) {
		n.Shipped, n.Rows, n.Refused = changes.Upto, n.Rows+uint64(changes.Len()), n.Refused+uint64(refused)
	})
	return nil
}

// note remembers on this side what is shipped, once a second at most: the disk
// has better things to do, and what is not noted is shipped twice and no more.
func (s *Shipper) note(ctx context.Context, noted int64) (int64, error) {
	shipped := s.State().Shipped
	if shipped == noted {
		return noted, nil
	}
	return shipped, s.catalog.NoteShipped(ctx, shipped)
}

func (s *Shipper) count(ctx context.Context) {
	n, err := s.catalog.CountChanges(ctx, s.State().Shipped)
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			slog.Warn("lag of the shared catalog not counted", "err", err)
		}
		return
	}
	s.counted = time.Now()
	s.change(func(state *State) { state.Lag = n })
}

func (s *Shipper) change(f func(*State)) {
	next := *s.state.Load()
	f(&next)
	s.state.Store(&next)
}
