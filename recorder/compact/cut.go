package compact

import (
	"context"
	"fmt"
	"slices"
	"time"

	"tandem/internal/call"
	"tandem/recorder/catalog"
	"tandem/recorder/journal"
	"tandem/recorder/rtpstream"
	"tandem/recorder/segment"
)

// A channel's packets become runs (rtpstream), a run is cut into regions at
// slot and keep boundaries, and a region that is kept and has packets has one
// segment. Everything below is the compactor's state and is stored as JSON.

type channel struct {
	Channel journal.Channel
	Stream  rtpstream.Stream
	Tracks  []*track // one for each of Stream.Runs, in that order

	listed bool     // in the table at the head of the journal file being read
	keep   *windows // around that file; nil: not looked up yet
}

// track is a run being cut.
type track struct {
	Regions []*region // in order of time, not overlapping; the last is being filled

	run    *rtpstream.Run
	saved  rtpstream.Wall // the run's Arrival at the last commit
	offset time.Duration  // of the run's anchor when the last region was refreshed
	doubt  time.Duration  // and how much earlier its packets may have been sent
}

// region is a stretch of a run inside one slot that is kept or not as a whole.
type region struct {
	From, To int64          // extended timestamps
	Lo, Hi   rtpstream.Wall // what they were cut at
	Kept     bool
	Seg      *piece // nil: nothing kept came yet
}

// piece is a segment not sealed yet.
type piece struct {
	Row   catalog.Segment // Start, End, Samples and Gaps as of the last commit; Holes that are settled
	Gaps  []gap
	Over  bool // its region is: only late packets may come
	Began bool // Start does not change any more

	w     *segment.Writer
	dirty bool // differs from what is committed
	run   *rtpstream.Run
}

// gap is missing media inside a piece, by extended timestamp.
type gap struct {
	From, To int64
	Cause    call.Cause
}

func (p *piece) first() int64 { return p.Row.FirstTS }
func (p *piece) end() int64   { return p.Row.FirstTS + p.w.Len() }

// settleTime is how long after a region nothing can come for it any more when
// its run is idle; rtpstream takes no packet that late.
const settleTime = 10 * time.Second

// moment is one sample of a run and what is known of when it was sent.
type moment struct {
	ts       int64
	earliest rtpstream.Wall
	at       rtpstream.Wall // as estimated; slots are cut by it
	arrival  rtpstream.Wall
}

// moment is that of the sample at a timestamp, of a packet that came then.
func (t *track) moment(ts int64, arrival rtpstream.Wall) moment {
	return moment{ts, t.run.Earliest(ts, arrival), t.run.Anchor.Wall(ts), arrival}
}

// end is the moment after all that has come, of a packet that is as late as the
// newest was.
func (t *track) end() moment {
	end := t.run.End()
	return t.moment(end, t.run.Arrival.Add(t.run.Anchor.Span(end-t.run.TS)))
}

// kept says whether the sample may belong to something that is kept: by when
// it was sent, as far as anybody knows, or by when it came. What was late is
// rather kept for nothing than lost.
func (m moment) kept(keep *windows) bool {
	if keep == nil {
		return true
	}
	_, ok := keep.touching(m.earliest, max(m.at, m.arrival))
	return ok
}

// bounds are the slot and keep limits around an instant.
type bounds struct {
	lo, hi rtpstream.Wall
	kept   bool
}

// around finds the bounds of m in the slot of the instant w. Windows are sorted
// and do not touch; nil keep keeps everything.
func around(m moment, w rtpstream.Wall, slot time.Duration, keep *windows) bounds {
	start := w - w%rtpstream.Wall(slot) // slots count from 1970 UTC, so they are absolute
	b := bounds{start, start.Add(slot), true}
	if keep == nil {
		return b
	}
	doubt := m.at.Sub(m.earliest) // for so long after a window it may last
	i, inside := keep.touching(m.earliest, max(m.at, m.arrival))
	if inside {
		k := (*keep)[i]
		return bounds{max(b.lo, min(k.from, m.at)), min(b.hi, k.to.Add(min(doubt, never.Sub(k.to)))), true}
	}
	b.kept = false
	if i > 0 {
		b.lo = max(b.lo, (*keep)[i-1].to.Add(doubt))
	}
	if i < len(*keep) {
		b.hi = min(b.hi, (*keep)[i].from)
	}
	return b
}

// at returns the region of n samples of a packet, making it if need be.
func (t *track) at(m moment, n int64, slot time.Duration, keep *windows) *region {
	i := len(t.Regions)
	for i > 0 && t.Regions[i-1].From > m.ts {
		i--
	}
	if i == 0 || m.ts >= t.Regions[i-1].To {
		return t.begin(i, m, slot, keep)
	}
	if r := t.Regions[i-1]; r.Kept || !m.kept(keep) {
		return r
	}
	return t.begin(t.claim(i-1, m, n), m, slot, keep)
}

// claim takes from the region at i, which is not kept, what is to be: all from
// the sample on, or only n when more has come and is gone. It returns where
// another region belongs.
func (t *track) claim(i int, m moment, n int64) int {
	r := t.Regions[i]
	if rest := m.ts + n; rest < t.run.End() && rest < r.To {
		t.Regions = slices.Insert(t.Regions, i+1, &region{From: rest, To: r.To, Lo: min(max(m.at, r.Lo), r.Hi), Hi: r.Hi})
	}
	if r.From == m.ts {
		t.Regions = slices.Delete(t.Regions, i, i+1)
		return i
	}
	r.To, r.Hi = m.ts, min(max(m.at, r.Lo), r.Hi)
	return i + 1
}

// begin makes the region of a sample, before the one at i, or has the one before
// go on when that is kept, too.
func (t *track) begin(i int, m moment, slot time.Duration, keep *windows) *region {
	anchor, w := &t.run.Anchor, m.at
	var before, behind *region
	if i > 0 { // an anchor that moved must not reopen what has been cut
		before = t.Regions[i-1]
		w = max(w, before.Hi)
	}
	if i < len(t.Regions) {
		behind = t.Regions[i]
		w = min(w, behind.Lo-1)
	}
	b := around(m, w, slot, keep)
	r := &region{Lo: b.lo, Hi: b.hi, Kept: b.kept, From: min(m.ts, m.ts-anchor.After(m.at.Sub(b.lo))), To: max(m.ts+1, m.ts+anchor.After(b.hi.Sub(m.at)))}
	if before != nil {
		r.From, r.Lo = max(r.From, before.To), max(r.Lo, before.Hi)
	}
	if behind != nil {
		r.To, r.Hi = min(r.To, behind.From), min(r.Hi, behind.Lo)
	}
	if before != nil && before.Kept && r.Kept && before.To == m.ts && before.Hi%rtpstream.Wall(slot) != 0 {
		before.To, before.Hi = r.To, r.Hi
		return before
	}
	t.Regions = slices.Insert(t.Regions, i, r)
	return r
}

// refresh applies what is known now of keep windows and of the sender's clock
// to the region being filled, from the end of what has come on.
func (t *track) refresh(slot time.Duration, keep *windows) {
	if len(t.Regions) == 0 {
		return
	}
	r, m := t.Regions[len(t.Regions)-1], t.end()
	if m.ts >= r.To {
		return
	}
	m.ts = max(m.ts, r.From+1)
	w := min(max(m.at, r.Lo), r.Hi-1)
	if b := around(m, w, slot, keep); b.kept == r.Kept {
		r.To, r.Hi = max(m.ts, m.ts+t.run.Anchor.After(b.hi.Sub(m.at))), b.hi
	} else {
		r.To, r.Hi = m.ts, w
	}
}

// follow refreshes when the run's place on the wall clock, or what is not
// known of it, has moved since that was done last.
func (t *track) follow(p rtpstream.Placed, slot time.Duration, keep *windows) {
	const moved = 20 * time.Millisecond // a packet; less is jitter
	m := t.moment(p.At, p.Arrival)
	offset := m.at.Sub(0) - t.run.Anchor.Span(p.At)
	doubt := m.at.Sub(m.earliest)
	if (offset-t.offset).Abs() < moved && (doubt-t.doubt).Abs() < moved {
		return
	}
	t.offset, t.doubt = offset, doubt
	t.refresh(slot, keep)
}

// place puts one packet where it belongs.
func (c *Compactor) place(ch *channel, p rtpstream.Placed) error {
	t := c.track(ch, p.Run)
	if p.Verdict == rtpstream.Duplicate {
		if n := len(t.Regions); n > 0 && t.Regions[n-1].Seg != nil {
			t.Regions[n-1].Seg.Row.Duplicates++
		}
		return nil
	}
	t.follow(p, c.cfg.Slot, c.keep(ch))
	counted := false
	for ts, payload := p.At, p.Payload; len(payload) > 0; {
		m := t.moment(ts, p.Arrival.Add(t.run.Anchor.Span(ts-p.At)))
		r := t.at(m, int64(len(payload)), c.cfg.Slot, c.keep(ch))
		n := min(int64(len(payload)), r.To-ts)
		if r.Kept {
			s, err := c.pieceFor(ch, t, r, p.Seq, ts)
			if err != nil {
				return err
			}
			if s == nil {
				continue // the region was split
			}
			if err := s.w.WriteAt(payload[:n], ts-s.first()); err != nil {
				return err
			}
			s.wrote(p.Seq)
			if !counted {
				s.count(p)
			}
		} else if !counted {
			c.sum.Unkept++
		}
		counted, ts, payload = true, ts+n, payload[n:]
	}
	if len(t.run.Pending) > 1 {
		c.settle(ch, t, false)
	}
	if len(t.Regions) > 1 {
		c.retire(t)
	}
	return nil
}

// wrote notes that samples of a packet came, and fixes where the segment begins once the
// anchor has seen enough packets to know.
func (s *piece) wrote(seq int64) {
	s.dirty = true
	s.Row.FirstSeq, s.Row.LastSeq = min(s.Row.FirstSeq, seq), max(s.Row.LastSeq, seq)
	if !s.Began && s.w.Len() > s.run.Anchor.After(refineTime) {
		s.Row.Start, s.Began = s.begin(), true
	}
}

func (s *piece) begin() time.Time {
	return s.run.Anchor.Wall(s.first()).Time().Truncate(time.Microsecond)
}

func (s *piece) count(p rtpstream.Placed) {
	if p.Verdict == rtpstream.Late {
		s.Row.Reordered++
	}
	s.Row.Packets++
	s.Row.MaxJitter = max(s.Row.MaxJitter, p.Run.JitterTime())
}

// pieceFor returns the region's segment with room for a packet's sample at ts. It is
// nil when the region had to be split because its segment begins later and
// is on disk already: ask again.
func (c *Compactor) pieceFor(ch *channel, t *track, r *region, seq, ts int64) (*piece, error) {
	s := r.Seg
	switch {
	case s == nil:
		r.Seg = c.newPiece(ch, t.run, seq, ts)
		return r.Seg, nil
	case ts >= s.first():
		return s, nil
	case s.w.Roomy(int(s.first() - ts)):
		err := s.w.Prepend(int(s.first() - ts))
		s.Row.Holes.Shift(s.first() - ts)
		s.Row.FirstTS = ts
		return s, err
	}
	early := *r
	early.To, early.Seg = s.first(), nil
	early.Hi = t.run.Anchor.Wall(early.To)
	early.Hi = min(max(early.Hi, early.Lo), r.Hi)
	r.From, r.Lo = early.To, early.Hi
	t.Regions = slices.Insert(t.Regions, slices.Index(t.Regions, r), &early)
	return nil, nil
}

func (c *Compactor) newPiece(ch *channel, run *rtpstream.Run, seq, ts int64) *piece {
	start := run.Anchor.Wall(ts).Time().Truncate(time.Microsecond)
	for c.taken(ch, run.SSRC, start) {
		start = start.Add(time.Microsecond)
	}
	file := segment.Path(ch.Channel.ID, start, run.SSRC)
	return &piece{
		Row: catalog.Segment{ID: segmentID(ch.Channel.Num, run.SSRC, start), Num: ch.Channel.Num, Channel: ch.Channel.ID, Copy: ch.Channel.Copy,
			Start: start, End: start, Codec: run.Codec, SSRC: run.SSRC, FirstTS: ts, FirstSeq: seq, LastSeq: seq, File: file},
		w: segment.Create(c.mediaPath(file), run.Codec), run: run,
	}
}

func segmentID(num uint32, ssrc uint32, start time.Time) string {
	return fmt.Sprintf("%d-%08x-%d", num, ssrc, start.UnixMicro())
}

// taken says whether a segment of that name is being written already: several
// runs may begin within a microsecond.
func (c *Compactor) taken(ch *channel, ssrc uint32, start time.Time) bool {
	id := segmentID(ch.Channel.Num, ssrc, start)
	same := func(s *piece) bool { return s != nil && s.Row.ID == id }
	for _, t := range ch.Tracks {
		if slices.ContainsFunc(t.Regions, func(r *region) bool { return same(r.Seg) }) {
			return true
		}
	}
	return slices.ContainsFunc(c.state.Sealing, same)
}

// track returns the run's track; a new run may tell of what is missing before it.
func (c *Compactor) track(ch *channel, run *rtpstream.Run) *track {
	for i := len(ch.Tracks) - 1; i >= 0; i-- {
		if ch.Tracks[i].run == run {
			return ch.Tracks[i]
		}
	}
	t := &track{run: run}
	ch.Tracks = append(ch.Tracks, t)
	if ch.Channel.Continues.Cause != "" {
		c.heard = append(c.heard, catalog.Heard{Channel: ch.Channel.ID, Num: ch.Channel.Num})
	}
	if h := run.Head; h != nil {
		c.absent = append(c.absent, absence{ch, run, *h, h.Cause == ch.Stream.Origin.Cause})
	}
	return t
}

// settle books the holes that cannot be filled any more.
func (c *Compactor) settle(ch *channel, t *track, all bool) {
	c.holes = t.run.Settle(c.holes[:0], all)
	for _, h := range c.holes {
		s := t.holder(h)
		if s != nil {
			s.Row.Holes.Add(h.From-s.first(), h.To-s.first())
			s.dirty = true
		}
		switch {
		case h.Silence():
		case s == nil:
			c.absent = append(c.absent, absence{ch, t.run, t.behind(h), false})
		default:
			s.Gaps = append(s.Gaps, gap{h.From, h.To, h.Cause})
			s.Row.Lost += h.Lost
			c.sum.Gaps++
		}
	}
	c.retire(t)
}

// holder is the segment that has samples on both sides of the hole.
func (t *track) holder(h rtpstream.Hole) *piece {
	for _, r := range t.Regions {
		if s := r.Seg; s != nil && s.around(h) {
			return s
		}
	}
	return nil
}

// behind has a hole begin where the segment before it ends, as that one lies on the
// wall clock: the anchor may have moved since, and the hole with it, out of
// what is kept.
func (t *track) behind(h rtpstream.Hole) rtpstream.Hole {
	t.locate()
	for _, r := range t.Regions {
		if s := r.Seg; s != nil && s.end() == h.From {
			h.Start = rtpstream.WallOf(s.Row.End)
		}
	}
	h.End = max(h.End, h.Start)
	return h
}

// around says whether the piece has samples on both sides of the hole.
func (s *piece) around(h rtpstream.Hole) bool { return s.first() < h.From && h.To < s.end() }

// holes are where the piece holds no media as of now.
func (s *piece) holes() catalog.Holes {
	holes := slices.Clone(s.Row.Holes)
	for _, h := range s.run.Unsettled(nil) {
		if s.around(h) {
			holes.Add(h.From-s.first(), h.To-s.first())
		}
	}
	return holes
}

// absence is missing media between segments.
type absence struct {
	ch   *channel
	run  *rtpstream.Run
	hole rtpstream.Hole

	inherited bool // from another recorder
}

// explain makes rows without a file for absences, as far as they would have
// been kept: every gap is inside a segment, and a segment without a file is
// nothing but a gap.
func (c *Compactor) explain(ctx context.Context) error {
	for _, a := range c.absent {
		if a.inherited {
			until, err := c.ownUntil(ctx, a)
			if err != nil {
				return err
			}
			if a.hole.Start = until; until >= a.hole.End {
				continue
			}
		}
		kept, err := c.keptWithin(ctx, a.ch, span{a.hole.Start, a.hole.End})
		if err != nil {
			return err
		}
		lost := a.hole.Lost
		for _, k := range kept {
			from, to := k.from.Time().Truncate(time.Microsecond), k.to.Time().Truncate(time.Microsecond)
			c.rows = append(c.rows, catalog.Segment{
				ID: segmentID(a.ch.Channel.Num, a.run.SSRC, from) + "-gap", Num: a.ch.Channel.Num, Channel: a.ch.Channel.ID, Copy: a.ch.Channel.Copy,
				Start: from, End: to, Codec: a.run.Codec, SSRC: a.run.SSRC, FirstTS: a.hole.From, Lost: lost, Sealed: true,
				Gaps: []catalog.Gap{{From: from, To: to, Cause: a.hole.Cause}},
			})
			lost = 0
			c.sum.Gaps++
		}
	}
	c.absent = c.absent[:0]
	return nil
}

// ownUntil is where the media ends that this recorder has of the channel from
// an attachment before a's: what it heard itself is not missing.
func (c *Compactor) ownUntil(ctx context.Context, a absence) (rtpstream.Wall, error) {
	own, err := c.cat.Segments(ctx, a.ch.Channel.ID, catalog.Window{From: a.hole.Start.Time(), To: a.hole.End.Time()})
	if err != nil {
		return 0, err
	}
	for _, s := range c.state.Sealing { // not all committed yet
		if s.Row.Channel == a.ch.Channel.ID {
			own = append(own, s.Row)
		}
	}
	until := a.hole.Start
	for _, s := range own {
		if s.Num != a.ch.Channel.Num && s.Samples > 0 {
			until = max(until, min(rtpstream.WallOf(s.End), a.hole.End))
		}
	}
	return until, nil
}

// retire gives regions that are over and settled to be sealed.
func (c *Compactor) retire(t *track) {
	for len(t.Regions) > 1 && t.run.Settled() >= t.Regions[0].To {
		c.drop(t)
	}
}

// drop takes the track's first region off it and has its segment sealed.
func (c *Compactor) drop(t *track) {
	r := t.Regions[0]
	t.locate()
	t.Regions = t.Regions[1:]
	if r.Seg == nil {
		return
	}
	r.Seg.dirty = true
	c.state.Sealing = append(c.state.Sealing, r.Seg)
}

// finish ends a track: nothing comes for it any more.
func (c *Compactor) finish(ch *channel, t *track) {
	c.settle(ch, t, true)
	for len(t.Regions) > 0 {
		c.drop(t)
	}
}

// locate puts the track's segments on the wall clock. One that goes on where
// another ends begins there.
func (t *track) locate() {
	var before *piece
	for i, r := range t.Regions {
		s := r.Seg
		if s == nil {
			continue
		}
		s.locate(before)
		s.Over = s.Over || i+1 < len(t.Regions)
		before = s
	}
}

const (
	refineTime = 10 * time.Second // after a segment's begin the anchor still improves
	maxDrift   = 2000             // 500 ppm: how far a segment may last longer on the wall than its samples; more is jitter, or a clock that was set
)

func (s *piece) locate(before *piece) {
	samples := s.w.Len()
	if s.Over && samples == s.Row.Samples {
		return
	}
	s.Row.Samples = samples
	switch {
	case s.Began:
	case before != nil && before.end() == s.first():
		s.Row.Start, s.Began = before.Row.End, true
	default:
		s.Row.Start = s.begin()
		if before != nil && s.Row.Start.Before(before.Row.End) {
			s.Row.Start = before.Row.End
		}
	}
	nominal := s.run.Anchor.Span(samples)
	measured := s.run.Anchor.Wall(s.end()).Time().Sub(s.Row.Start)
	length := min(max(measured, nominal-nominal/maxDrift), nominal+nominal/maxDrift)
	s.Row.End = s.Row.Start.Add(length).Truncate(time.Microsecond)
}

// gaps are the piece's gaps on the wall clock.
func (s *piece) gaps() []catalog.Gap {
	slices.SortFunc(s.Gaps, func(a, b gap) int { return int(a.From - b.From) })
	var all []catalog.Gap
	for _, g := range s.Gaps {
		all = append(all, catalog.Gap{From: s.wall(g.From), To: s.wall(g.To), Cause: g.Cause})
	}
	return all
}

// wall maps a timestamp inside the piece to the wall clock: its ends are
// anchored, and between them time passes evenly.
func (s *piece) wall(ts int64) time.Time {
	length := float64(s.Row.End.Sub(s.Row.Start))
	return s.Row.Start.Add(time.Duration(length * float64(ts-s.first()) / float64(s.Row.Samples))).Truncate(time.Microsecond)
}
