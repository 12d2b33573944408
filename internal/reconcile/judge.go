package reconcile

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"tandem/internal/call"
)

// other is the copy that a copy is compared with.
func other(c call.Copy) call.Copy {
	if c == call.CopyA {
		return call.CopyB
	}
	return call.CopyA
}

// links are, for each record of a cluster, those of the other copy that are of
// the same call.
type links [][]int

// pair links records: those first whose both ends agree, the nearest first,
// each with one; then what is left with whatever it overlaps. A leg that one
// group knows as two, because it did not hear what was between, is linked with
// both.
func pair(c []Record, tolerance time.Duration) links {
	l := make(links, len(c))
	for _, p := range nearest(c, tolerance) {
		if len(l[p.a]) == 0 && len(l[p.b]) == 0 {
			l[p.a], l[p.b] = append(l[p.a], p.b), append(l[p.b], p.a)
		}
	}
	var alone []int
	for n := range c {
		if len(l[n]) == 0 {
			alone = append(alone, n)
		}
	}
	for _, n := range alone {
		for m := range c {
			if c[n].Copy != c[m].Copy && sharesChannel(c[n], c[m]) && ofOneCall(c[n].Span, c[m].Span, tolerance) && !slices.Contains(l[n], m) {
				l[n], l[m] = append(l[n], m), append(l[m], n)
			}
		}
	}
	return l
}

// candidate is a pair of records, by index, and how far their ends are apart.
type candidate struct {
	a, b  int
	apart time.Duration
}

// nearest are the pairs of a cluster that may be the same leg, the nearest
// first. Two that do not even overlap may as well be two calls.
func nearest(c []Record, tolerance time.Duration) []candidate {
	var all []candidate
	for a := range c {
		for b := range c {
			if c[a].Copy != call.CopyA || c[b].Copy != call.CopyB || !sharesChannel(c[a], c[b]) {
				continue
			}
			from, to := c[a].From.Sub(c[b].From).Abs(), c[a].To.Sub(c[b].To).Abs()
			if from <= tolerance && to <= tolerance && c[a].overlaps(c[b].Span) {
				all = append(all, candidate{a, b, from + to})
			}
		}
	}
	slices.SortStableFunc(all, func(x, y candidate) int { return cmp.Compare(x.apart, y.apart) })
	return all
}

// ofOneCall reports whether two overlap by more than clocks that differ explain.
func ofOneCall(a, b Span, tolerance time.Duration) bool {
	return a.within(b).Length() > min(tolerance, a.Length()/2, b.Length()/2)
}

// sharesChannel reports whether both are on one channel; one that names none
// may be on any of its session's.
func sharesChannel(a, b Record) bool {
	return len(a.Channels) == 0 || len(b.Channels) == 0 || slices.ContainsFunc(a.Channels, func(c string) bool { return slices.Contains(b.Channels, c) })
}

// judgement is what is to be said of a cluster.
type judgement struct {
	findings []Finding
	pairs    []Pair // one record of each group, and no fault in either
	linked   int    // records of the first group that the second one has, too
	whole    int    // and of these, those without a fault
}

// judge compares the records of a cluster.
func (s *Survey) judge(c []Record) judgement {
	var j judgement
	l := pair(c, s.opts.Tolerance)
	faulty := make([]bool, len(c))
	for n, peers := range l {
		linked := make([]Record, len(peers))
		for i, p := range peers {
			linked[i] = c[p]
		}
		f, found := s.fault(c[n], linked)
		if faulty[n] = found; found {
			j.findings = append(j.findings, f)
		}
	}
	for n, peers := range l {
		if c[n].Copy != call.CopyA || len(peers) == 0 {
			continue
		}
		j.linked++
		if faulty[n] || slices.ContainsFunc(peers, func(p int) bool { return faulty[p] }) {
			continue
		}
		j.whole++
		if len(peers) == 1 && len(l[peers[0]]) == 1 {
			j.pairs = append(j.pairs, Pair{c[n], c[peers[0]]})
		}
	}
	return j
}

// fault is what of a record the other copy lacks.
func (s *Survey) fault(r Record, peers []Record) (Finding, bool) {
	has := s.heard(r.Copy, r)
	if cut := r.From.Equal(s.during.From) || r.To.Equal(s.during.To); cut && r.Length() <= s.opts.Tolerance {
		return Finding{}, false // its twin may lie outside
	}
	f := Finding{Kind: CTIMissing, Record: r}
	if has.length() == 0 {
		if len(peers) > 0 && (r.Copy == call.CopyB || s.heardAny(peers)) {
			return f, false // told of once, or as the other one's shorter twin
		}
		f.Text = "call events told of it, and no audio of it was recorded"
		return f, r.Length() >= s.opts.Least && r.Length() > 0
	}
	if !s.opts.Both {
		return f, false
	}
	f.Group, f.Holder = s.groups[other(r.Copy)], s.groups[r.Copy]
	if len(peers) == 0 {
		f.Kind, f.By, f.Text = Missing, r.Length(), fmt.Sprintf("%s has no record of it", f.Group)
		if audio := s.heard(other(r.Copy), r); audio.length() >= s.opts.Least {
			f.Text += ", but audio"
		}
		return f, true
	}
	lacks := has.minus(s.covered(r, peers))
	f.Kind, f.Lacks, f.By = Shorter, lacks, lacks.length()
	f.Text = fmt.Sprintf("%s lacks %v of %v", f.Group, f.By.Round(time.Millisecond), r.Length().Round(time.Millisecond))
	if r.Length()-f.By < time.Millisecond {
		f.Text = f.Group + " knows of it, and has no audio of it"
	}
	return f, f.By >= s.opts.Least
}

func (s *Survey) heardAny(records []Record) bool {
	return slices.ContainsFunc(records, func(r Record) bool { return s.heard(r.Copy, r).length() > 0 })
}

// covered is what the other copy has of a record: where it has records of it
// and audio. Ends that differ by no more than the tolerance are the same: the
// two groups may have been told of different instants. An end that was not told
// but is where the recorder stopped, or the call events, is no such end.
func (s *Survey) covered(r Record, peers []Record) spans {
	var all []Span
	var last Record
	for _, p := range peers {
		all = append(all, p.Span)
		if last.To.Before(p.To) {
			last = p
		}
	}
	told := union(all...)
	covered := s.heard(other(r.Copy), r).and(told)
	ends := told.hull()
	excused := []Span{{r.From, ends.From}}
	if last.State != call.StateInterrupted && last.State != call.StateCTIOutage {
		excused = append(excused, Span{ends.To, r.To})
	}
	for _, end := range excused {
		if end.Length() <= s.opts.Tolerance {
			covered = union(append(covered, end)...)
		}
	}
	return covered
}

// heard is what a copy has of a record's time on any of its channels. What is
// neither in a gap nor before or behind all there is counts as silence: it was
// heard.
func (s *Survey) heard(c call.Copy, r Record) spans {
	var all []Span
	for _, channel := range r.Channels {
		h := s.tracks[track{channel, c}]
		if h == nil {
			continue
		}
		stretches := union(h.stretches...)
		extent := overlapping(stretches, r.Span).hull().within(r.Span)
		if extent.empty() {
			continue
		}
		all = append(all, spans{extent}.minus(union(h.gaps...).minus(stretches))...)
	}
	return union(all...)
}

// overlapping are the spans that have something in s, whole.
func overlapping(all spans, s Span) spans {
	var out spans
	for _, o := range all {
		if o.overlaps(s) {
			out = append(out, o)
		}
	}
	return out
}

// unattributed is audio of a time in which call events could not be heard, and
// which no call explains, of either group. While the other group heard, there
// was no call.
func (s *Survey) unattributed(during Span) []Finding {
	var found []Finding
	for t, h := range s.tracks {
		deaf := s.untold(t.copy).within(during)
		if len(deaf) == 0 {
			continue
		}
		if s.opts.Both {
			deaf = deaf.and(s.deaf(track{t.channel, other(t.copy)}))
		}
		for _, a := range union(h.stretches...).and(deaf).minus(union(s.known[t.channel]...)) {
			if a.Length() < max(s.opts.Least, time.Second) {
				continue // the edge of a window
			}
			found = append(found, Finding{
				Kind: Unattributed, Holder: s.groups[t.copy], Record: Record{Copy: t.copy, Channels: []string{t.channel}, Span: a}, By: a.Length(),
				Text: "recorded while call events could not be heard, and no call explains it",
			})
		}
	}
	return found
}

// deaf is when a copy cannot tell that there was no call on a channel.
func (s *Survey) deaf(t track) spans {
	all := s.untold(t.copy)
	if h := s.tracks[t]; h != nil {
		all = union(append(slices.Clone(all), h.gaps...)...)
	}
	return all
}

// untold is when call events reached no recorder of a copy. One that died was
// told of none, and the others were all the same.
func (s *Survey) untold(c call.Copy) spans { return union(s.blind[c]...).minus(union(s.told[c]...)) }
