package director

import (
	"slices"
	"time"

	tandemv1 "tandem/api/tandem/v1"
)

const (
	// fenceGrace is how long a new holder waits for a recorder that it reached
	// and that has not said yet what it holds.
	fenceGrace = time.Second
	// recall is how long a director that only listens remembers what is over: the
	// one in charge tells it, and may have died before it did.
	recall = time.Minute
)

// enthrone begins an epoch: every recorder is to obey it, and to say what it
// holds. Nothing else is ordered before lead.
func (f *floor) enthrone(now time.Time, epoch uint64) {
	f.epoch, f.stance, f.enthroned, f.safe = epoch, fencing, now, false
	for _, r := range f.recorders {
		r.retryAt = time.Time{}
	}
	f.fenceAll()
}

// guarded notes that the orders of whoever led before are dead.
func (f *floor) guarded(now time.Time, epoch uint64) {
	if f.epoch == epoch && f.stance == fencing {
		f.safe = true
		f.lead(now)
	}
}

// lead begins to act once that is safe, and what the recorders hold is known.
func (f *floor) lead(now time.Time) {
	if f.stance != fencing || !f.safe || !f.inventoried() && now.Sub(f.enthroned) < fenceGrace {
		return
	}
	f.stance = leading
	for _, r := range f.recorders {
		if !r.up() && r.lost == nil && !r.beaten.IsZero() {
			r.lose(r.beaten)
		}
	}
	f.log.Info("director leads", "epoch", f.epoch, "sessions", len(f.sessions), "channels", len(f.channels), "after", now.Sub(f.enthroned))
	for _, ch := range f.channels {
		f.pursue(now, ch)
	}
}

// bereft is what a channel continues that nobody holds at a takeover: it was
// with one of the recorders that were lost with the director before, or
// shortly before. nil: its session is younger than that.
func (f *floor) bereft(s *session) (since *tandemv1.Continuation) {
	if f.pair == nil {
		return nil
	}
	for _, r := range f.recorders {
		if r.up() || r.lost == nil || s.since.After(r.lost.GetSince().AsTime()) || r.lost.GetSince().AsTime().After(f.enthroned) {
			continue
		}
		if since == nil || r.lost.GetSince().AsTime().Before(since.GetSince().AsTime()) {
			since = r.lost
		}
	}
	return since
}

// finish begins nothing more; what the recorders are to be told still goes out.
func (f *floor) finish() {
	if f.stance == leading {
		f.stance = finishing
	}
}

// idle reports whether nothing is under way that another director would not
// know of.
func (f *floor) idle() bool {
	for _, ch := range f.channels {
		if ch.dialing || ch.adopting {
			return false
		}
	}
	return f.quiet()
}

// overlook forgets what is over, while only listening.
func (f *floor) overlook(now time.Time) {
	if f.stance != listening || f.pair == nil {
		return
	}
	for _, l := range f.legs {
		if !l.end.IsZero() && now.Sub(l.end) > recall {
			f.erase(l)
		}
	}
	for _, r := range f.recorders {
		r.blind = slices.DeleteFunc(r.blind, func(w *tandemv1.Window) bool {
			return w.GetTo() != nil && now.Sub(w.GetTo().AsTime()) > recall
		})
	}
}
