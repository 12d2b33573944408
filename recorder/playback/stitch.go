package playback

import (
	"cmp"
	"slices"
	"time"

	"tandem/recorder/catalog"
)

// piece is a chain as far as it is in the window.
type piece struct {
	*chain
	from, to time.Time
}

// within are the chains' pieces in the window, in the order they began, and
// where the window ends: with its last sample when it has no end.
func within(all []*chain, w catalog.Window) (pieces []piece, end time.Time) {
	for _, c := range all {
		if len(c.parts) == 0 {
			continue
		}
		first, last := c.extent()
		p := piece{c, c.wall(first), c.wall(last)}
		if p.to.After(w.From) && (w.To.IsZero() || p.from.Before(w.To)) {
			pieces, end = append(pieces, p), later(end, p.to)
		}
	}
	if !w.To.IsZero() {
		end = w.To
	}
	slices.SortStableFunc(pieces, func(a, b piece) int { return a.from.Compare(b.from) })
	return pieces, end
}

// sender is one SSRC in one attachment.
type sender struct{ num, ssrc uint32 }

// withoutRivals leaves out what rivals said: floods and forgers, whose longest
// chain is for the most part said over chains that were there before it. None
// of what they sent is heard, lest a packet of theirs passes for one that is
// missing. A sender's longest chain decides, so that no packet of anybody's
// silences one who took another's place and stayed.
func withoutRivals(all []*chain) []*chain {
	longest, length := map[sender]*chain{}, map[sender]int64{}
	for _, c := range all {
		of := sender{c.num, c.ssrc}
		if n := c.said(); n > length[of] {
			longest[of], length[of] = c, n
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(c *chain) bool {
		of := sender{c.num, c.ssrc}
		return length[of] > 0 && 2*longest[of].over(all) > length[of]
	})
}

// said is how many samples were received of a chain.
func (c *chain) said() (n int64) {
	if len(c.parts) == 0 {
		return 0
	}
	for _, v := range c.media(c.extent()) {
		n += v.to - v.from
	}
	return n
}

// over is how many samples of the chain were said while another sender spoke
// that was there before it.
func (c *chain) over(all []*chain) (n int64) {
	first, last := c.extent()
	began, ended := c.wall(first), c.wall(last)
	var own []interval
	for _, o := range all {
		if o.num != c.num || o.ssrc == c.ssrc || len(o.parts) == 0 {
			continue
		}
		first, _ := o.extent()
		if !o.wall(first).Before(began) {
			continue
		}
		for _, v := range o.media(o.timestamp(began), o.timestamp(ended)) {
			own = append(own, c.media(c.timestamp(o.wall(v.from)), c.timestamp(o.wall(v.to)))...)
		}
	}
	for _, v := range join(own) {
		n += v.to - v.from
	}
	return n
}

// stitch lays chains one behind the other. Inside a chain RTP timestamps
// count; from one chain to the next, the wall clock. Where two have media at
// the same time the one that began first is heard: a file has room for one,
// and what came later may be anybody's.
func (t *Timeline) stitch(all []*chain, w catalog.Window) bool {
	pieces, end := within(withoutRivals(all), w)
	if len(pieces) == 0 {
		return false
	}
	t.Start, t.End, t.Codec = w.From, end, pieces[0].codec
	now := w.From // everything before it is laid
	var beside []piece
	for _, p := range pieces {
		from, to := later(p.from, now), earlier(p.to, end)
		if passed := earlier(from, to); later(p.from, w.From).Before(passed) {
			beside = append(beside, piece{p.chain, later(p.from, w.From), passed})
		}
		if !from.Before(to) {
			continue
		}
		if p.codec != t.Codec {
			t.Codec = ""
		}
		t.Samples += p.units(from.Sub(now)) // silence
		ts := p.timestamp(from)
		n := p.timestamp(to) - ts
		t.spans = append(t.spans, span{t.Samples, n, p.chain, ts, from, to})
		t.Samples += n
		now = to
	}
	t.Samples += pieces[0].units(end.Sub(now))
	for _, s := range t.spans {
		for _, v := range s.chain.media(s.ts, s.ts+s.n) {
			t.Stretches = append(t.Stretches, s.stretch(v))
		}
	}
	for _, p := range beside {
		t.lay(p)
	}
	return len(t.spans) > 0
}

// stretch is a chain's interval where the span puts it.
func (s span) stretch(v interval) Stretch {
	return Stretch{s.at + v.from - s.ts, v.to - v.from, s.chain.ssrc, v.from, s.chain.wall(v.from), s.chain.wall(v.to)}
}

// lay puts a piece over the silence of what is laid already: a sender that
// spoke while another one was silent was recorded, and is heard.
func (t *Timeline) lay(p piece) {
	for _, v := range p.media(p.timestamp(p.from), p.timestamp(p.to)) {
		at := t.position(p.wall(v.from)) - v.from
		for _, quiet := range t.quiet(interval{at + v.from, at + v.to}) {
			s := span{at: quiet.from, n: quiet.to - quiet.from, chain: p.chain, ts: quiet.from - at}
			t.beside = append(t.beside, s)
			stretch := s.stretch(interval{s.ts, s.ts + s.n})
			i, _ := slices.BinarySearchFunc(t.Stretches, stretch.At, func(o Stretch, at int64) int { return cmp.Compare(o.At, at) })
			t.Stretches = slices.Insert(t.Stretches, i, stretch)
			if p.codec != t.Codec {
				t.Codec = ""
			}
		}
	}
}

// position is the sample at an instant of what is laid.
func (t *Timeline) position(at time.Time) int64 {
	i, _ := slices.BinarySearchFunc(t.spans, at, func(s span, at time.Time) int { return s.to.Compare(at) })
	if i == len(t.spans) {
		i--
	}
	return t.spans[i].at + t.spans[i].chain.timestamp(at) - t.spans[i].ts
}

// quiet is what of an interval of samples holds no media yet.
func (t *Timeline) quiet(v interval) (free []interval) {
	v.from, v.to = max(v.from, 0), min(v.to, t.Samples)
	i, _ := slices.BinarySearchFunc(t.Stretches, v.from, func(s Stretch, from int64) int { return cmp.Compare(s.At+s.Samples, from) })
	for ; i < len(t.Stretches) && v.from < v.to; i++ {
		s := t.Stretches[i]
		if to := min(s.At, v.to); v.from < to {
			free = append(free, interval{v.from, to})
		}
		v.from = max(v.from, s.At+s.Samples)
	}
	if v.from < v.to {
		free = append(free, v)
	}
	return free
}

// unheard takes out of gaps what one sender said while another's packets were
// missing: a gap is where the file is silent and the line was not. Both are in
// order.
func unheard(gaps []catalog.Gap, heard []Stretch) (out []catalog.Gap) {
	const rounding = 250 * time.Microsecond // of two mappings between samples and clock
	for _, g := range gaps {
		for len(heard) > 0 && !g.From.Before(heard[0].to) {
			heard = heard[1:]
		}
		cut := false
		keep := func(to time.Time) {
			if d := to.Sub(g.From); d >= rounding || !cut && d > 0 {
				out = append(out, catalog.Gap{From: g.From, To: to, Cause: g.Cause})
			}
		}
		for _, s := range heard {
			if !s.from.Before(g.To) {
				break
			}
			if earlier(s.to, g.To).Sub(later(s.from, g.From)) >= rounding {
				cut = true
				keep(s.from)
				g.From = s.to
			}
		}
		keep(g.To)
	}
	return out
}
