package stitch

import (
	"cmp"
	"slices"
	"time"

	"tandem/internal/call"
)

// row is a gap of one part, at its place on the timeline.
type row struct {
	span
	part  int
	cause call.Cause
}

// space is where no piece is: between two pieces, or at an end of them all.
type space struct {
	span
	before, after *Piece // nil at an end
}

// ever is beyond every position.
const ever = int64(1) << 60

// spaces are what the pieces leave free.
func (j *joiner) spaces() []space {
	var spaces []space
	last := space{span: span{from: -ever}}
	for n := range j.pieces {
		last.to, last.after = j.pieces[n].At, &j.pieces[n]
		if last.from < last.to {
			spaces = append(spaces, last)
		}
		last = space{span: span{from: j.pieces[n].End()}, before: &j.pieces[n]}
	}
	last.to = ever
	return append(spaces, last)
}

// holes are what is missing in the spaces.
func (j *joiner) holes() []Hole {
	var holes []Hole
	var told []row // that may reach into the space
	rows := j.rows()
	for _, s := range j.spaces() {
		for len(rows) > 0 && rows[0].from < s.to {
			told, rows = append(told, rows[0]), rows[1:]
		}
		told = slices.DeleteFunc(told, func(r row) bool { return r.to <= s.from })
		for _, r := range j.missing(s, told) {
			holes = append(holes, j.hole(s, r))
		}
	}
	return holes
}

// rows are the gaps of all parts in order, each moved as its recorder's media
// were, whose clock may not be the timeline's.
func (j *joiner) rows() []row {
	var rows []row
	for p, part := range j.parts {
		for _, g := range part.Gaps {
			r := row{span{j.begin(p, g.From), j.finish(p, g.To)}, p, g.Cause}
			switch r.cause {
			case call.CauseUnattached:
				r.from = j.toldUntil(r)
			case call.CauseInterrupted:
				r.to = j.takenOver(r)
			}
			if r.from < r.to {
				rows = append(rows, r)
			}
		}
	}
	slices.SortStableFunc(rows, func(a, b row) int { return cmp.Compare(a.from, b.from) })
	return rows
}

// toldUntil is where a row begins that says of a channel that nobody was known
// to have it: behind all that others tell of before its end. They had it, so
// that their silence is one, and what they miss they say.
func (j *joiner) toldUntil(r row) int64 {
	until := r.from
	for p, other := range j.parts {
		if p == r.part {
			continue
		}
		for s := range other.Stretches {
			if of := (ref{p, s}); j.start(of) < r.to {
				until = max(until, j.end(of))
			}
		}
		for _, g := range other.Gaps {
			if g.Cause != call.CauseUnattached && j.begin(p, g.From) < r.to {
				until = max(until, j.finish(p, g.To))
			}
		}
	}
	return until
}

// takenOver is where a row ends that says of a channel that its recorder was
// down, and knows nothing of it since: who took the channel over says what was
// missing until then, and had it from there on.
func (j *joiner) takenOver(r row) int64 {
	for s := range j.parts[r.part].Stretches {
		if j.start(ref{r.part, s}) >= r.to {
			return r.to
		}
	}
	until := r.to
	for p, other := range j.parts {
		for _, g := range other.Gaps {
			if p == r.part || g.Cause != call.CauseFailover {
				continue
			}
			if from, to := j.begin(p, g.From), j.finish(p, g.To); from < r.to && to > r.from {
				until = min(until, to)
			}
		}
	}
	return until
}

// begin is the position at which a gap of a part begins: after the media
// before it.
func (j *joiner) begin(part int, at time.Time) int64 {
	stretches := j.parts[part].Stretches
	n, _ := slices.BinarySearchFunc(stretches, at, func(s Stretch, at time.Time) int { return cmp.Or(s.From.Compare(at), -1) })
	switch {
	case n > 0:
		return j.end(ref{part, n - 1}) + samples(at.Sub(stretches[n-1].To))
	case len(stretches) > 0:
		return j.start(ref{part, 0}) - samples(stretches[0].From.Sub(at))
	}
	return samples(at.Sub(j.from))
}

// finish is the position at which a gap of a part ends: before the media after
// it.
func (j *joiner) finish(part int, at time.Time) int64 {
	stretches := j.parts[part].Stretches
	n, _ := slices.BinarySearchFunc(stretches, at, func(s Stretch, at time.Time) int { return s.From.Compare(at) })
	if n < len(stretches) {
		return j.start(ref{part, n}) - samples(stretches[n].From.Sub(at))
	}
	return j.begin(part, at)
}

// missing is what of a space is missing. Who has the media on both sides knows
// best; sequence numbers decide where one recorder goes on for another.
func (j *joiner) missing(s space, told []row) []row {
	if s.before == nil || s.after == nil {
		return within(s, told)
	}
	a, b := s.before.Part, s.after.Part
	own, others := split(told, b)
	if a == b && len(own) > 0 {
		return within(s, own)
	}
	told = slices.Concat(own, others) // the cause that the later recorder gives goes first
	lost, known := j.lost(s)
	switch {
	case known && lost > 0:
		return []row{{s.span, b, cause(told)}}
	case known || a == b:
		return nil
	}
	return within(s, told)
}

// split tells the rows of a part from the others.
func split(rows []row, part int) (own, others []row) {
	for _, r := range rows {
		if r.part == part {
			own = append(own, r)
		} else {
			others = append(others, r)
		}
	}
	return own, others
}

// numbersAgain is how long a space may be for sequence numbers to tell what is
// missing: half of them, in packets of 5 ms, last longer.
const numbersAgain = 120 * Rate

// lost is how many packets were sent in the space, if that can be known.
func (j *joiner) lost(s space) (packets int, known bool) {
	a, b := *s.before, *s.after
	last, first := j.parts[a.Part].Stretches[a.Stretch], j.parts[b.Part].Stretches[b.Stretch]
	switch {
	case j.run[a.Part][a.Stretch] != j.run[b.Part][b.Stretch] || s.to-s.from > numbersAgain:
		return 0, false
	case a.Skip+a.Samples < last.Samples || b.Skip > 0 || !last.Last.Known || !first.First.Known:
		return 0, false
	}
	packets = int(int16(first.First.Number - last.Last.Number - 1)) // RFC 3550 A.1: modulo 2^16
	return packets, packets >= 0
}

// cause is that of the first row; failover when nobody gives one.
func cause(told []row) call.Cause {
	if len(told) == 0 {
		return call.CauseFailover
	}
	return told[0].cause
}

// sliver is what recorders' clocks may make of nothing: less than a packet.
const sliver = Rate / 100

// within is what of the rows lies in a space, the first of several that
// overlap. What begins or ends next to media does so at the media.
func within(s space, rows []row) []row {
	var kept []row
	for _, r := range rows {
		r.from, r.to = max(r.from, s.from), min(r.to, s.to)
		if n := r.to - r.from; n < sliver && 2*n < s.to-s.from {
			continue
		}
		if r.from-s.from < sliver {
			r.from = s.from
		}
		if s.to-r.to < sliver {
			r.to = s.to
		}
		for _, free := range r.minus(kept) {
			kept = append(kept, row{free, r.part, r.cause})
		}
	}
	slices.SortFunc(kept, func(a, b row) int { return cmp.Compare(a.from, b.from) })
	return kept
}

// minus is what of the span is in none of the rows.
func (s span) minus(rows []row) []span {
	free := []span{s}
	for _, r := range rows {
		var rest []span
		for _, f := range free {
			if before := (span{f.from, min(f.to, r.from)}); before.from < before.to {
				rest = append(rest, before)
			}
			if after := (span{max(f.from, r.to), f.to}); after.from < after.to {
				rest = append(rest, after)
			}
		}
		free = rest
	}
	return free
}

// hole tells of a row in the space by the clocks of the media around it.
func (j *joiner) hole(s space, r row) Hole {
	h := Hole{At: r.from, Samples: r.to - r.from, Gap: Gap{Cause: r.cause}}
	from := j.from.Add(length(r.from))
	if s.after != nil {
		h.After = j.parts[s.after.Part].Recorder
		from = j.wall(*s.after, s.after.At).Add(-length(s.to - r.from))
	}
	if s.before != nil {
		h.Before = j.parts[s.before.Part].Recorder
		from = j.wall(*s.before, s.before.End()).Add(length(r.from - s.from))
	}
	h.From, h.To = from, from.Add(length(h.Samples))
	return h
}

// wall is when the sample at a position sounded, by the clock of the recorder
// that the piece is from.
func (j *joiner) wall(p Piece, at int64) time.Time {
	s := j.parts[p.Part].Stretches[p.Stretch]
	n := p.Skip + at - p.At
	if n == s.Samples {
		return s.To
	}
	return s.From.Add(length(n))
}
