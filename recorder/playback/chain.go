package playback

import (
	"cmp"
	"slices"
	"time"

	"tandem/internal/media"
	"tandem/recorder/catalog"
	"tandem/recorder/segment"
)

// source is where a part's samples are.
type source interface {
	// readAt fills p with the samples from position at.
	readAt(p []byte, at int64) error
}

// file is a segment's file; it is opened when first read.
type file struct {
	path string
	open *segment.File
}

func (f *file) readAt(p []byte, at int64) error {
	if f.open == nil {
		opened, err := segment.Open(f.path)
		if err != nil {
			return err
		}
		f.open = opened
	}
	return f.open.ReadAt(p, at)
}

func (f *file) close() {
	if f.open != nil {
		f.open.Close()
		f.open = nil
	}
}

// memory is what the journal holds and no segment does yet.
type memory []byte

func (m memory) readAt(p []byte, at int64) error {
	copy(p, m[at:])
	return nil
}

// part is a stretch of samples by extended RTP timestamp.
type part struct {
	first, end int64
	source     source
	holes      catalog.Holes // where no media is
}

// interval is [from, to) by extended RTP timestamp, or by sample.
type interval struct{ from, to int64 }

// mark ties a timestamp to the wall clock.
type mark struct {
	ts int64
	at time.Time
}

// chain is one run of a channel as far as it is asked for: its parts lie on
// one RTP timeline and are joined by it, to the sample. Between parts there is
// silence. Where parts overlap the later one holds what came later.
type chain struct {
	num   uint32
	ssrc  uint32
	codec media.Codec
	parts []part
	marks []mark // in order of both clocks
}

const (
	sameRun   = 500 * time.Millisecond // two segments on one RTP timeline agree better on how far apart they are
	sameDrift = 1000                   // plus 0.1 % of it
)

// chainsOf makes chains of segments, which are in order of start. It also says in
// which chain each segment is.
func chainsOf(segments []catalog.Segment, open func(catalog.Segment) source) (all []*chain, of map[string]*chain) {
	of = map[string]*chain{}
	for _, s := range segments {
		if s.Samples == 0 {
			continue
		}
		i := slices.IndexFunc(all, func(c *chain) bool { return c.continuedBy(s) })
		if i < 0 {
			i = len(all)
			all = append(all, &chain{num: s.Num, ssrc: s.SSRC, codec: s.Codec})
		}
		all[i].parts = append(all[i].parts, part{s.FirstTS, s.FirstTS + s.Samples, open(s), s.Holes})
		all[i].mark(s.FirstTS, s.Start)
		all[i].mark(s.FirstTS+s.Samples, s.End)
		of[s.ID] = all[i]
	}
	return all, of
}

func (c *chain) continuedBy(s catalog.Segment) bool {
	if c.num != s.Num || c.ssrc != s.SSRC || c.codec != s.Codec {
		return false
	}
	last := c.marks[len(c.marks)-1]
	wall := s.Start.Sub(last.at)
	off := (wall - c.span(s.FirstTS-last.ts)).Abs()
	return s.FirstTS >= last.ts && off <= sameRun+wall.Abs()/sameDrift
}

// mark adds a mark unless clocks would run backwards.
func (c *chain) mark(ts int64, at time.Time) {
	if n := len(c.marks); n == 0 || ts > c.marks[n-1].ts && at.After(c.marks[n-1].at) {
		c.marks = append(c.marks, mark{ts, at})
	}
}

func (c *chain) span(n int64) time.Duration {
	rate := int64(c.codec.ClockRate())
	return time.Duration(n/rate)*time.Second + time.Duration(n%rate)*time.Second/time.Duration(rate)
}

func (c *chain) units(d time.Duration) int64 {
	rate := int64(c.codec.ClockRate())
	seconds, rest := int64(d/time.Second), int64(d%time.Second)
	return seconds*rate + (rest*rate+int64(time.Second)/2)/int64(time.Second)
}

// extent is from the first sample to after the last.
func (c *chain) extent() (first, end int64) {
	first, end = c.parts[0].first, c.parts[0].end
	for _, p := range c.parts {
		first, end = min(first, p.first), max(end, p.end)
	}
	return first, end
}

// media is what was received of [from, to), in order: the rest is silence.
func (c *chain) media(from, to int64) []interval {
	var all []interval
	add := func(a, b int64) {
		if a, b = max(a, from), min(b, to); a < b {
			all = append(all, interval{a, b})
		}
	}
	for _, p := range c.parts {
		at := p.first
		for _, h := range p.holes {
			add(at, p.first+h.At)
			at = p.first + h.At + h.N
		}
		add(at, p.end)
	}
	return join(all)
}

// join puts intervals in order and makes one of those that touch.
func join(all []interval) []interval {
	slices.SortFunc(all, func(a, b interval) int { return cmp.Compare(a.from, b.from) })
	out := all[:0]
	for _, v := range all {
		if n := len(out); n > 0 && v.from <= out[n-1].to {
			out[n-1].to = max(out[n-1].to, v.to)
		} else {
			out = append(out, v)
		}
	}
	return out
}

// hear adds a packet that is in no segment yet.
func (c *chain) hear(at int64, payload []byte) {
	if len(payload) == 0 {
		return
	}
	if n := len(c.parts); n > 0 && c.parts[n-1].end == at {
		if m, ok := c.parts[n-1].source.(memory); ok {
			c.parts[n-1].source, c.parts[n-1].end = append(m, payload...), at+int64(len(payload))
			return
		}
	}
	c.parts = append(c.parts, part{at, at + int64(len(payload)), memory(slices.Clone(payload)), nil})
}

// timestamp is the sample that sounded at an instant. Between marks time
// passes evenly; beyond them at the nominal rate.
func (c *chain) timestamp(at time.Time) int64 {
	i, exact := slices.BinarySearchFunc(c.marks, at, func(m mark, at time.Time) int { return m.at.Compare(at) })
	if exact || i == 0 {
		return c.marks[i].ts - c.units(c.marks[i].at.Sub(at))
	}
	a := c.marks[i-1]
	if i == len(c.marks) {
		return a.ts + c.units(at.Sub(a.at))
	}
	b := c.marks[i]
	share := float64(at.Sub(a.at)) / float64(b.at.Sub(a.at))
	return a.ts + int64(share*float64(b.ts-a.ts)+0.5)
}

// wall is when a sample sounded, the inverse of timestamp.
func (c *chain) wall(ts int64) time.Time {
	i, exact := slices.BinarySearchFunc(c.marks, ts, func(m mark, ts int64) int { return cmp.Compare(m.ts, ts) })
	if exact || i == 0 {
		return c.marks[i].at.Add(-c.span(c.marks[i].ts - ts))
	}
	a := c.marks[i-1]
	if i == len(c.marks) {
		return a.at.Add(c.span(ts - a.ts))
	}
	b := c.marks[i]
	share := float64(ts-a.ts) / float64(b.ts-a.ts)
	return a.at.Add(time.Duration(share * float64(b.at.Sub(a.at))))
}

// readAt fills p with the chain's samples from a timestamp, silence in holes.
func (c *chain) readAt(p []byte, ts int64) error {
	fill(p, c.codec.Silence())
	for _, part := range c.parts {
		from, to := max(part.first, ts), min(part.end, ts+int64(len(p)))
		if from >= to {
			continue
		}
		if err := part.source.readAt(p[from-ts:to-ts], from-part.first); err != nil {
			return err
		}
	}
	return nil
}

func fill(p []byte, b byte) {
	for i := range p {
		p[i] = b
	}
}
