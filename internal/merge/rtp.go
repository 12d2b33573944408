package merge

import (
	"slices"
	"time"
)

// run is media on one RTP timeline: base is what the timestamp would be at
// position 0 (RFC 3550 5.1: modulo 2^32).
type run struct {
	Span
	ssrc, base uint32
	wall       time.Time // of From
}

func (c Copy) runs() []run {
	var runs []run
	for _, m := range c.Media {
		base := m.TS - uint32(m.From)
		n := slices.IndexFunc(runs, func(r run) bool { return r.ssrc == m.SSRC && r.base == base })
		if n < 0 {
			runs = append(runs, run{m.Span, m.SSRC, base, m.Wall})
			continue
		}
		runs[n].To = m.To
	}
	return runs
}

// link is two runs of one sender, whose timestamps tell of the same clock.
type link struct {
	a, b Span
	by   int64 // b is so many samples ahead
}

// apart is how far the clocks of recorders may be apart for equal timestamps to
// be of the same time; a sender that begins anew may take its SSRC along.
const apart = 5 * Rate

// linked says whether two runs are of one sender. Of timestamps that wrap the
// nearest to the wall clock counts.
func linked(a, b run) (l link, ok bool) {
	wall := b.From + samples(a.wall.Sub(b.wall)) - a.From
	off := int64(int32(a.base - b.base - uint32(wall)))
	return link{a.Span, b.Span, wall + off}, a.ssrc == b.ssrc && max(off, -off) <= apart
}

// tie makes ties of what timestamps say. Some runs may remain that have none:
// the other copy knows nothing of their sender.
func (m *merger) tie() {
	of, others := m.a.runs(), m.b.runs()
	tiedA, tiedB := make([]bool, len(of)), make([]bool, len(others))
	for i, a := range of {
		for j, b := range others {
			if l, ok := linked(a, b); ok && !m.contradicted(l) {
				m.link(l)
				tiedA[i], tiedB[j] = true, true
			}
		}
	}
	m.strange = slices.Contains(tiedA, false) || slices.Contains(tiedB, false)
	m.order()
}

func (m *merger) link(l link) {
	both := l.both()
	if both.From > both.To { // one goes on after the other
		both.From = min(max(both.From, l.a.From), l.a.To)
		both.To = both.From
	}
	for _, at := range []int64{both.From, both.To} {
		m.ties = append(m.ties, tie{at, float64(l.by), len(m.tracks)})
	}
	m.tracks, m.links = append(m.tracks, track{alignment: RTP, other: l.b}), append(m.links, l)
}

// both is what of a both runs may have.
func (l link) both() Span { return l.a.and(l.b.shifted(-l.by)) }
