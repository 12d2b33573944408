package reconcile

import (
	"slices"
	"time"
)

// Span is [From, To).
type Span struct{ From, To time.Time }

// Length of an empty span is 0.
func (s Span) Length() time.Duration { return max(0, s.To.Sub(s.From)) }

func (s Span) empty() bool { return !s.From.Before(s.To) }

func (s Span) within(o Span) Span { return Span{later(s.From, o.From), earlier(s.To, o.To)} }

func (s Span) overlaps(o Span) bool { return !s.within(o).empty() }

// widen is the span with so much more at both ends.
func (s Span) widen(by time.Duration) Span { return Span{s.From.Add(-by), s.To.Add(by)} }

// spans are in order, and neither overlap nor touch.
type spans []Span

// union makes spans of any that there are.
func union(all ...Span) spans {
	all = slices.DeleteFunc(slices.Clone(all), Span.empty)
	slices.SortFunc(all, func(a, b Span) int { return a.From.Compare(b.From) })
	var out spans
	for _, s := range all {
		if n := len(out); n > 0 && !s.From.After(out[n-1].To) {
			out[n-1].To = later(out[n-1].To, s.To)
		} else {
			out = append(out, s)
		}
	}
	return out
}

// within is what of the spans lies in s.
func (all spans) within(s Span) spans {
	var out spans
	for _, o := range all {
		if o = o.within(s); !o.empty() {
			out = append(out, o)
		}
	}
	return out
}

// minus is what of the spans is in none of the others.
func (all spans) minus(others spans) spans {
	var out spans
	for _, s := range all {
		for _, o := range others {
			if !s.overlaps(o) {
				continue
			}
			if before := (Span{s.From, o.From}); !before.empty() {
				out = append(out, before)
			}
			s.From = o.To
		}
		if !s.empty() {
			out = append(out, s)
		}
	}
	return out
}

// and is what is in both.
func (all spans) and(others spans) spans { return all.minus(all.minus(others)) }

// hull is from the first begin to the last end.
func (all spans) hull() Span {
	if len(all) == 0 {
		return Span{}
	}
	return Span{all[0].From, all[len(all)-1].To}
}

func (all spans) length() (total time.Duration) {
	for _, s := range all {
		total += s.Length()
	}
	return total
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
