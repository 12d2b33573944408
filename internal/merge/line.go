package merge

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// line says which position of b is the same instant as one of a.
type line struct {
	at     int64   // position of a
	offset float64 // b's position is so much more there
	drift  float64 // and so much more with every sample: b's clock is fast
}

// to is the position of b.
func (l line) to(at int64) float64 {
	return float64(at) + l.offset + l.drift*float64(at-l.at)
}

// back is the first position of a that is not before one of b.
func (l line) back(at int64) int64 {
	return l.at + int64(math.Ceil((float64(at-l.at)-l.offset)/(1+l.drift)))
}

// here is the positions of a that are within a span of b.
func (l line) here(s Span) Span { return Span{l.back(s.From), l.back(s.To)} }

// there is the span of b that the positions of a lie in.
func (l line) there(s Span) Span {
	return Span{int64(math.Floor(l.to(s.From))), int64(math.Ceil(l.to(s.To)))}
}

// whole is how many samples b is ahead, if that is a whole number all along
// the span, as far as can be measured.
func (l line) whole(s Span) (by int64, ok bool) {
	ahead := l.to(s.From) - float64(s.From)
	by = int64(math.Round(ahead))
	return by, math.Abs(ahead-float64(by)) < near && math.Abs(ahead+l.drift*float64(s.Samples())-float64(by)) < near
}

// near is how well an offset can be measured, in samples, and some.
const near = 0.1

// tie is a place of which it is known which place of b is the same instant.
type tie struct {
	at     int64
	offset float64
	track  int
}

// track is ties between which the clocks of both copies ran on.
type track struct {
	alignment Alignment
	drift     float64
	other     Span // what of b it holds for; empty when that is not known
}

// place is a span of a and where it is in b.
type place struct {
	Span
	line
	alignment Alignment
}

func (m *merger) line(t tie) line { return line{t.at, t.offset, m.tracks[t.track].drift} }

// ends are the lines that hold before and after all ties.
func (m *merger) ends() (first, last line) {
	if n := len(m.ties); n > 0 {
		return m.line(m.ties[0]), m.line(m.ties[n-1])
	}
	size := int64(len(m.a.Samples) / m.a.Format.SampleSize())
	return m.clock(0), m.clock(size)
}

// places says where a span that a misses is in b: by the ties on both sides of
// it, by one when there is no more, by the clock when there is none.
func (m *merger) places(s Span) []place {
	n, _ := slices.BinarySearchFunc(m.ties, s.From, func(t tie, at int64) int { return cmp.Compare(t.at, at+1) })
	o, _ := slices.BinarySearchFunc(m.ties, s.To, func(t tie, at int64) int { return cmp.Compare(t.at, at) })
	switch {
	case len(m.ties) == 0:
		return []place{{s, m.clock(s.From), Clock}}
	case n == 0:
		return []place{m.place(s, m.ties[min(o, len(m.ties)-1)])}
	case o == len(m.ties):
		return []place{m.place(s, m.ties[n-1])}
	}
	before, after := m.ties[n-1], m.ties[o]
	if before.track == after.track {
		p := m.place(s, before)
		p.drift = (after.offset - before.offset) / float64(max(1, after.at-before.at))
		return []place{p}
	}
	cut := m.cut(s, before, after)
	return []place{m.place(Span{s.From, cut}, before), m.place(Span{cut, s.To}, after)}
}

func (m *merger) place(s Span, t tie) place {
	return place{s, m.line(t), m.tracks[t.track].alignment}
}

// cut is where a span goes over from one track to another: where the other one
// begins in b, or the one ends, or else in the middle.
func (m *merger) cut(s Span, before, after tie) int64 {
	inside := func(at int64) bool { return s.From <= at && at <= s.To }
	if o := m.tracks[after.track].other; o.Samples() > 0 {
		if at := m.line(after).back(o.From); inside(at) {
			return at
		}
	}
	if o := m.tracks[before.track].other; o.Samples() > 0 {
		if at := m.line(before).back(o.To); inside(at) {
			return at
		}
	}
	return s.From + s.Samples()/2
}

// clock is the line by the wall clocks of the media next to a position.
func (m *merger) clock(at int64) line {
	wall := m.a.Wall(at)
	return line{at: at, offset: float64(m.b.position(wall) - at)}
}

// Wall is when a sample sounded, by the clock of the media before it or, when
// there is none, after it.
func (c Copy) Wall(at int64) time.Time {
	if len(c.Media) == 0 {
		return c.Start.Add(length(at))
	}
	n, _ := slices.BinarySearchFunc(c.Media, at, func(m Media, at int64) int { return cmp.Compare(m.From, at+1) })
	m := c.Media[max(0, n-1)]
	return m.Wall.Add(length(at - m.From))
}

// position is the inverse of Wall.
func (c Copy) position(wall time.Time) int64 {
	if len(c.Media) == 0 {
		return samples(wall.Sub(c.Start))
	}
	n, _ := slices.BinarySearchFunc(c.Media, wall, func(m Media, at time.Time) int { return cmp.Or(m.Wall.Compare(at), -1) })
	m := c.Media[max(0, n-1)]
	return m.From + samples(wall.Sub(m.Wall))
}

// samples is a duration in samples, to the nearest.
func samples(d time.Duration) int64 { return int64(math.Round(d.Seconds() * Rate)) }

// length is a number of samples as a duration.
func length(n int64) time.Duration {
	return time.Duration(n/Rate)*time.Second + time.Duration(n%Rate)*time.Second/Rate
}
