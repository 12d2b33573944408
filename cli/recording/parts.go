package recording

import (
	"slices"
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/call"
	"tandem/internal/stitch"
)

// Stitch tells of a leg in an interval as far as its parts' segments do, without
// reading any audio: when each part has media, and what nobody has.
func Stitch(parts []*tandemv1.Part, i Interval) (held []Interval, missing []Gap) {
	told := make([]stitch.Part, len(parts))
	last := latest(parts)
	end := i.To
	for n, p := range parts {
		told[n] = stitch.Part{Recorder: p.Recorder, Stretches: filed(p), Gaps: gaps(p.Gaps)}
		if n == last {
			told[n].Stretches = append(told[n].Stretches, unfiled(p, i.From)...)
		}
		held = append(held, extent(p, told[n].Stretches))
		if until := p.To.AsTime(); i.To.IsZero() && until.After(end) {
			end = until
		}
	}
	for _, h := range stitch.Join(i.From, told).Holes {
		for _, g := range within([]stitch.Gap{h.Gap}, Interval{i.From, end}) {
			missing = append(missing, Gap{g, g.From.Sub(i.From), g.To.Sub(g.From), h.Before, h.After})
		}
	}
	return held, missing
}

// latest is the part that took over last: who holds the channel now.
func latest(parts []*tandemv1.Part) int {
	last := -1
	var since time.Time
	for n, p := range parts {
		if began := began(p); last < 0 || began.After(since) {
			last, since = n, began
		}
	}
	return last
}

// files are the segments of a part that hold media; others only say what is
// missing.
func files(p *tandemv1.Part) []*tandemv1.Segment {
	return slices.DeleteFunc(slices.Clone(p.Segments), func(s *tandemv1.Segment) bool { return s.Samples == 0 })
}

// began is when a part took over: with its first file or, while it has none,
// after what was missing before it.
func began(p *tandemv1.Part) time.Time {
	if f := files(p); len(f) > 0 {
		return f[0].Start.AsTime()
	}
	from := p.From.AsTime()
	for _, g := range p.Gaps {
		if cause := call.Cause(g.Cause); (cause == call.CauseFailover || cause == call.CauseUnattached) && g.To.AsTime().After(from) {
			from = g.To.AsTime()
		}
	}
	return from
}

// extent is when a part has media, inside its bounds; it is the bounds when it
// has none.
func extent(p *tandemv1.Part, media []stitch.Stretch) Interval {
	bounds := Interval{p.From.AsTime(), p.To.AsTime()}
	if len(media) == 0 {
		return bounds
	}
	i := Interval{media[0].From, media[len(media)-1].To}
	if i.From.Before(bounds.From) {
		i.From = bounds.From
	}
	if i.To.After(bounds.To) {
		i.To = bounds.To
	}
	return i
}

// filed are the media of a part's segments, in order.
func filed(p *tandemv1.Part) []stitch.Stretch {
	var all []stitch.Stretch
	for _, s := range files(p) {
		all = append(all, heldBy(s)...)
	}
	slices.SortStableFunc(all, func(a, b stitch.Stretch) int { return a.From.Compare(b.From) })
	return all
}

// heldBy is a segment without its gaps. Its silences are told from them by no
// row, so they count as held: nothing is missing there.
func heldBy(s *tandemv1.Segment) []stitch.Stretch {
	var all []stitch.Stretch
	at := int64(0)
	hold := func(to int64) {
		if at < to {
			all = append(all, cutAt(stitch.Stretch{SSRC: s.Ssrc, TS: uint32(s.FirstTs + at), Samples: to - at}, s))
		}
	}
	lost := gaps(s.Gaps)
	slices.SortFunc(lost, func(a, b stitch.Gap) int { return a.From.Compare(b.From) })
	for _, g := range lost {
		hold(sample(s, g.From))
		at = max(at, sample(s, g.To))
	}
	hold(s.Samples)
	return all
}

// sample is the one of a segment that sounded at an instant, the inverse of
// wall, inside the segment.
func sample(s *tandemv1.Segment, at time.Time) int64 {
	start, end := s.Start.AsTime(), s.End.AsTime()
	if !start.Before(end) {
		return 0
	}
	n := float64(at.Sub(start)) / float64(end.Sub(start)) * float64(s.Samples)
	return min(max(0, int64(n+0.5)), s.Samples)
}

// unfiled is what a part holds after its last file while that is open, or in
// place of any: only the recorder's journal has it, and nothing but the wall
// clock says where it belongs.
func unfiled(p *tandemv1.Part, origin time.Time) []stitch.Stretch {
	from := began(p)
	if f := files(p); len(f) > 0 {
		last := f[len(f)-1]
		if !last.Open {
			return nil
		}
		from = last.End.AsTime()
	}
	var all []stitch.Stretch
	hold := func(to time.Time) {
		if n := int64(to.Sub(from) / (time.Second / stitch.Rate)); n > 0 {
			all = append(all, stitch.Stretch{TS: uint32(int64(from.Sub(origin) / (time.Second / stitch.Rate))), From: from, To: to, Samples: n})
		}
	}
	for _, g := range within(gaps(p.Gaps), Interval{from, p.To.AsTime()}) {
		hold(g.From)
		if g.To.After(from) {
			from = g.To
		}
	}
	hold(p.To.AsTime())
	return all
}
