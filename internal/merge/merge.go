// Package merge heals one copy of a channel with the other. Two groups record
// the same mix, each from packets and through clocks of its own; what one of
// them misses the other may have. It does no input or output.
//
// Where both copies know an SSRC its timestamps say what is the same instant,
// to the sample (RFC 3550 5.1). Where they do not, what is heard in both says
// it. Where that says nothing, as in silence or a steady tone, the recorders'
// clocks must do.
package merge

import (
	"slices"
	"time"

	"tandem/internal/media"
)

// Rate is the number of samples a second, of RTP timestamps as of audio.
const Rate = 8000

// Span is the samples [From, To) of a copy.
type Span struct{ From, To int64 }

// Samples is how many there are.
func (s Span) Samples() int64 { return s.To - s.From }

// and is what both spans have; without anything its length is not positive.
func (s Span) and(o Span) Span { return Span{max(s.From, o.From), min(s.To, o.To)} }

func (s Span) shifted(by int64) Span { return Span{s.From + by, s.To + by} }

// Media is audio without a break, as it was received.
type Media struct {
	Span
	SSRC, TS uint32    // RTP timestamp of the first sample
	Wall     time.Time // when that sounded, by the recorder's clock
}

// Copy is one recording of a channel.
type Copy struct {
	Format  media.WAVFormat
	Samples []byte
	Start   time.Time // of the first sample
	Media   []Media   // in order; they do not overlap
	Missing []Span    // in order; they overlap neither each other nor media
	// Known is where the recorders would have said that something is missing:
	// what is neither media nor missing there was silent. Nothing is known
	// outside of it.
	Known Span
	// Open is a copy without an end: it was read as far as there was audio.
	Open bool
}

// Alignment is how two copies were found to be of the same instant.
type Alignment string

const (
	RTP   Alignment = "rtp"   // by timestamps of one SSRC: exact
	Audio Alignment = "audio" // by what is heard in both
	Clock Alignment = "clock" // by the recorders' wall clocks, as good as these are
)

// Patch is a place of the merged copy that one of the two misses.
type Patch struct {
	Span
	Other     Span // the same time in the other copy
	Alignment Alignment
	line
}

// Result is a copy with what the other could add to it.
type Result struct {
	Format  media.WAVFormat // linear PCM where something of another codec was added
	Samples []byte
	Filled  []Patch // in order
	Open    []Patch // in order: neither copy has it
}

// Merge fills what is missing of a from b; it only reads them. What a has
// stays as it is, to the byte where the codecs are the same, and what was
// silent there stays silent.
//
// Where the clocks of the two keep step samples are copied as they are; where
// they drift apart, interpolated.
func Merge(a, b Copy) Result {
	m := merger{a: a, b: b}
	m.tie()
	wanted := m.wanted()
	if len(wanted) > 0 && m.strange {
		m.listen()
		wanted = m.wanted() // what b has at the ends is elsewhere now
	}
	for _, w := range wanted {
		for _, p := range m.places(w) {
			m.sort(p)
		}
	}
	m.lay()
	return m.result
}

// merger is a merge under way.
type merger struct {
	a, b    Copy
	links   []link
	tracks  []track
	ties    []tie // in order
	strange bool  // media of senders that the other copy knows nothing of
	result  Result
}

const (
	sliver = Rate / 100 // what clocks make of nothing: less than a packet
	lately = 2 * Rate   // what the copy that is read later has more, while a call lasts
)

// wanted is what a misses: what its recorders call missing, and what b has
// where they say nothing, before and after all they know.
func (m *merger) wanted() []Span {
	wanted := slices.Clone(m.a.Missing)
	there := m.b.extent()
	if there.Samples() <= 0 {
		return wanted
	}
	first, last := m.ends()
	there = Span{first.back(there.From), last.back(there.To)}
	if before := there.and(Span{0, m.a.Known.From}); before.Samples() >= sliver {
		wanted = slices.Insert(wanted, 0, before)
	}
	until := int64(len(m.a.Samples) / m.a.Format.SampleSize())
	if m.a.Open && there.To-m.a.Known.To >= lately {
		until = there.To
	}
	if after := there.and(Span{m.a.Known.To, until}); after.Samples() >= sliver {
		wanted = append(wanted, after)
	}
	return wanted
}

// extent is from the first that the copy tells of to the last; empty when it
// tells of nothing.
func (c Copy) extent() (e Span) {
	reach := func(s Span) {
		if e.Samples() == 0 {
			e = s
		}
		e = Span{min(e.From, s.From), max(e.To, s.To)}
	}
	if n := len(c.Media); n > 0 {
		reach(Span{c.Media[0].From, c.Media[n-1].To})
	}
	if n := len(c.Missing); n > 0 {
		reach(Span{c.Missing[0].From, c.Missing[n-1].To})
	}
	return e
}

// sort divides a place by what b has of it and what b misses as well.
func (m *merger) sort(p place) {
	at := p.From
	for _, h := range m.b.had(p.there(p.Span)) {
		h = p.here(h).and(p.Span)
		if h.Samples() <= 0 {
			continue
		}
		m.open(p, Span{at, h.From})
		m.result.Filled = append(m.result.Filled, p.patch(h))
		at = h.To
	}
	m.open(p, Span{at, p.To})
}

func (m *merger) open(p place, s Span) {
	if s.Samples() > 0 {
		m.result.Open = append(m.result.Open, p.patch(s))
	}
}

func (p place) patch(s Span) Patch { return Patch{s, p.there(s), p.alignment, p.line} }

// had is what of a span the copy's recorders say was recorded, or silent.
func (c Copy) had(s Span) []Span {
	s = s.and(c.Known)
	n, _ := slices.BinarySearchFunc(c.Missing, s.From, func(l Span, at int64) int {
		if l.To <= at {
			return -1
		}
		return 1
	})
	var had []Span
	for ; n < len(c.Missing) && c.Missing[n].From < s.To; n++ {
		if s.From < c.Missing[n].From {
			had = append(had, Span{s.From, c.Missing[n].From})
		}
		s.From = c.Missing[n].To
	}
	if s.From < s.To {
		had = append(had, s)
	}
	return had
}
