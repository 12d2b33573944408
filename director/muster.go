package director

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// companyMost bounds how long new attachments wait for recorders that start.
	companyMost = 2 * time.Second
	// dawn is by how much the hosts of a floor may start one after the other: a
	// recorder that was not reached for longer is not starting with us, it is off.
	dawn = time.Minute
)

// companyOf is how long new attachments wait for recorders that start: as long as
// a silent one is given to be lost, and as much again to start.
func companyOf(cfg Config) time.Duration { return min(2*cfg.RecorderTimeout.Std(), companyMost) }

// muster is why new attachments wait, "" if they do not. Where a whole floor starts at
// once, whichever recorder is ready first would get most of it, and keep it. So
// from when the first one is ready the others that are filled first, too, are given
// a moment to answer: whether they are ready, or why not.
func (f *floor) muster(now time.Time) string {
	why := f.mustering(now)
	if why == "" && !f.held.IsZero() {
		f.log.Info("new attachments wait no longer", "after", now.Sub(f.held))
		f.held = time.Time{}
	}
	return why
}

func (f *floor) mustering(now time.Time) string {
	if !f.takes() {
		f.manned = time.Time{} // nothing can be placed, and an alarm says so
		return ""
	}
	if f.manned.IsZero() {
		f.manned = now
	}
	if now.Sub(f.manned) >= f.company {
		return ""
	}
	all := f.sortedRecorders()
	first := slices.MinFunc(all, func(a, b *recorder) int { return cmp.Compare(a.Priority, b.Priority) }).Priority
	var awaited []string
	for _, r := range all {
		if r.Priority == first && r.starts(now) {
			awaited = append(awaited, fmt.Sprintf("%s (%s)", r.Name, r.reason()))
		}
	}
	if awaited == nil {
		return ""
	}
	return fmt.Sprintf("waits up to %v for recorders that start: %s", f.company, strings.Join(awaited, ", "))
}

// takes reports whether this director leads and some recorder is ready.
func (f *floor) takes() bool {
	return f.stance == leading && slices.ContainsFunc(f.sortedRecorders(), func(r *recorder) bool { return r.candidate(f.group).Ready })
}

// starts reports whether nobody knows yet whether a recorder will be ready: it is
// about to say so, or has not been reached since this director began to look, and
// that is not long ago. One that was reached and is lost has said what it had to say.
func (r *recorder) starts(now time.Time) bool {
	switch r.state {
	case recorderUp:
		return r.load == nil || !r.load.GetReady() && r.load.GetReason() == reasonStarting
	case recorderDown:
		return r.reachable || r.beaten.IsZero() && now.Sub(r.since) < dawn
	}
	return false
}

// hold has a turret wait, and says why.
func (f *floor) hold(now time.Time, s *session, why string) {
	s.reason = why
	if f.held.IsZero() {
		f.held = now
		f.log.Info("new attachments wait", "why", why)
	}
}

// live reports whether somebody speaks on one of the session's channels.
func (s *session) live() bool {
	for _, ch := range s.channels {
		if ch.live() {
			return true
		}
	}
	return false
}

// sortedRecorders lists the recorders in a stable order.
func (f *floor) sortedRecorders() []*recorder {
	all := make([]*recorder, 0, len(f.recorders))
	for _, name := range f.sortedNames() {
		all = append(all, f.recorders[name])
	}
	return all
}
