package recording

import (
	"cmp"
	"slices"
	"time"

	"tandem/internal/merge"
)

// Report is what a merge did to a recording.
type Report struct {
	Filled []Fill // in order
	Open   []Gap  // in order: what both miss
	Whole  bool   // the copy had nothing: all of it is from the other
	Alone  bool   // the other had nothing
}

// Fill is time that one copy misses and the other had.
type Fill struct {
	From, To   time.Time // by the clocks of the copy that was filled
	At, Length time.Duration
	Group      string // whose copy it is from
	Recorder   string // who has it; empty when that is silence between two recorders' media
	Alignment  merge.Alignment
}

// Merge fills what is missing of one copy of a channel from the other; neither
// is changed. What is left open are the result's gaps. A recording without any
// samples is filled as a whole: the result is the other one.
//
// The other copy may reach further than the first on both sides, and should, for
// its recorders' clocks may be off by some seconds. Nothing is added before the
// first one's begin and, if that was asked for with an end, after that.
func Merge(of, from Recording) (Recording, Report) {
	switch {
	case len(from.Samples) == 0:
		return of, Report{Open: of.Gaps, Alone: true}
	case len(of.Samples) == 0:
		return from, Report{Filled: []Fill{from.whole()}, Open: from.Gaps, Whole: true}
	}
	base := of.copy()
	merged := merge.Merge(base, from.copy())
	var report Report
	for _, p := range merged.Filled {
		at := base.Wall(p.From)
		report.Filled = append(report.Filled, Fill{at, at.Add(length(p.Samples())), length(p.From), length(p.Samples()), from.Group, from.recorder(p.Other), p.Alignment})
	}
	for _, p := range merged.Open {
		gap := cause(p, of, from)
		gap.From, gap.At, gap.Length = base.Wall(p.From), length(p.From), length(p.Samples())
		gap.To = gap.From.Add(gap.Length)
		report.Open = append(report.Open, gap)
	}
	of.Format, of.Samples, of.Gaps = merged.Format, merged.Samples, report.Open
	if len(report.Filled) > 0 {
		of.Recorders = slices.Compact(slices.Sorted(slices.Values(slices.Concat(of.Recorders, from.Recorders))))
	}
	of.holes = nil
	for n, p := range merged.Open {
		of.holes = append(of.holes, hole{p.Span, of.Gaps[n]})
	}
	return of, report
}

// whole is the fill that a recording is of one that has nothing.
func (r Recording) whole() Fill {
	n := int64(len(r.Samples) / r.Format.SampleSize())
	return Fill{r.Start, r.Start.Add(length(n)), 0, length(n), r.Group, r.recorder(merge.Span{To: n}), merge.Clock}
}

func (r Recording) copy() merge.Copy {
	c := merge.Copy{Format: r.Format, Samples: r.Samples, Start: r.Start, Known: r.known, Open: r.open}
	for _, m := range r.media {
		c.Media = append(c.Media, m.Media)
	}
	for _, h := range r.holes {
		c.Missing = append(c.Missing, h.Span)
	}
	return c
}

// recorder is whose media is in a span, the first of several.
func (r Recording) recorder(in merge.Span) string {
	n, _ := slices.BinarySearchFunc(r.media, in.From, func(m held, at int64) int { return cmp.Compare(m.To, at+1) })
	if n < len(r.media) && r.media[n].From < in.To {
		return r.media[n].recorder
	}
	return ""
}

// cause is why a place is open, in the words of whoever calls it so.
func cause(p merge.Patch, of, other Recording) (g Gap) {
	h, ok := of.holeAt(p.Span)
	if !ok {
		h, _ = other.holeAt(p.Other)
	}
	g.Cause, g.Before, g.After = h.gap.Cause, h.gap.Before, h.gap.After
	return g
}

func (r Recording) holeAt(in merge.Span) (hole, bool) {
	n, _ := slices.BinarySearchFunc(r.holes, in.From, func(h hole, at int64) int { return cmp.Compare(h.To, at+1) })
	if n < len(r.holes) && r.holes[n].From < in.To {
		return r.holes[n], true
	}
	return hole{}, false
}
