package merge

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
)

const (
	window   = 4096            // samples compared at a time: clocks that drift apart by 200 ppm move by less than one in it
	windows  = 1024            // in a recording, at most
	farOff   = 2*Rate + Rate/4 // how far the recorders' clocks may be apart, and some
	nearby   = 16              // how far off a line is that was found a moment ago
	maxDrift = 0.0004          // of two clocks: each 200 ppm
	patience = 3               // windows in a row that do not agree, after which they may be anywhere
	proof    = 0.95            // likeness for which one window is enough
	unlike   = 0.5             // even of two codecs the same audio is more alike
)

// contradicted says whether audio proves that timestamps which look alike are
// of different times.
func (m *merger) contradicted(l link) bool {
	const looks = 8
	e := newEar(m.a, m.b)
	both := l.both()
	alike, not := 0, 0
	for n := range int64(looks) {
		at := both.From + (both.Samples()-window)*n/(looks-1)
		if at < both.From || !e.open(at, at+l.by, 0) {
			continue
		}
		switch l := e.likeness(0); {
		case l == 0: // they have too little in common
		case l < unlike:
			not++
		default:
			alike++
		}
	}
	return not > alike
}

// listen makes ties of what is heard in both copies, where timestamps say
// nothing.
func (m *merger) listen() {
	l := listener{merger: m, ear: newEar(m.a, m.b)}
	e := m.a.extent()
	for at := e.From; at+window <= e.To; at += max(window, e.Samples()/windows) {
		if !m.linkedAt(Span{at, at + window}) {
			l.hear(at)
		}
	}
	m.keep(l.tracks)
	m.order()
}

func (m *merger) linkedAt(s Span) bool {
	return slices.ContainsFunc(m.links, func(l link) bool { return l.both().and(s).Samples() > 0 })
}

// heard is a tie in the making.
type heard struct {
	at       int64
	offset   float64
	likeness float64
}

// listener goes along a copy and finds out where the other one is.
type listener struct {
	*merger
	ear    *ear
	tracks [][]heard
	misses int // windows since the last that agreed
}

// hear compares the window at a position: next to where the last one was found
// or, when that fails, anywhere the clocks allow. That is tried ever more seldom:
// it takes long, and an hour of a steady tone is heard nowhere.
func (l *listener) hear(at int64) {
	centre := at + window/2
	if n := len(l.tracks) - 1; n >= 0 && l.misses < patience {
		last := l.tracks[n][len(l.tracks[n])-1]
		passed := float64(centre - last.at)
		expected := last.offset + slope(l.tracks[n])*passed
		if !l.ear.open(at, at+int64(math.Round(expected)), nearby+int64(maxDrift*passed)) {
			return
		}
		if h, ok := l.ear.find(); ok {
			l.tracks[n], l.misses = append(l.tracks[n], h), 0
			return
		}
	}
	if l.misses++; len(l.tracks) > 0 && l.misses < patience || l.misses > 2*patience && bits.OnesCount(uint(l.misses)) > 1 {
		return
	}
	if !l.ear.open(at, at+int64(l.clock(at).offset), farOff) {
		l.misses--
		return
	}
	if h, ok := l.ear.find(); ok {
		l.tracks, l.misses = append(l.tracks, []heard{h}), 0
	}
}

// keep makes ties of what was heard. A track that rests on a single window is
// believed only if there is none with more, and it leaves no doubt.
func (m *merger) keep(tracks [][]heard) {
	most := 0
	for _, t := range tracks {
		most = max(most, len(t))
	}
	for _, t := range tracks {
		if len(t) == 1 && (most > 1 || t[0].likeness < proof) {
			continue
		}
		steady(t)
		for _, h := range t {
			m.ties = append(m.ties, tie{h.at, h.offset, len(m.tracks)})
		}
		m.tracks = append(m.tracks, track{alignment: Audio, drift: slope(t)})
	}
}

func (m *merger) order() {
	slices.SortStableFunc(m.ties, func(a, b tie) int { return cmp.Compare(a.at, b.at) })
}

// steady takes out what measuring adds, where the two clocks keep step.
func steady(t []heard) {
	by := math.Round(t[len(t)/2].offset)
	off := 0
	for _, h := range t {
		if math.Abs(h.offset-by) > near {
			off++
		}
	}
	if off > len(t)/10 {
		return
	}
	for n := range t {
		t[n].offset = by
	}
}

func slope(t []heard) float64 {
	first, last := t[0], t[len(t)-1]
	return (last.offset - first.offset) / float64(max(1, last.at-first.at))
}
