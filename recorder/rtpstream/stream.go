// Package rtpstream makes one timeline of the packets of one channel
// (RFC 3550): it extends sequence numbers and timestamps, tells late packets
// from duplicates and a new start from a loss, says which holes are silence
// and why the others are there, and ties it all to the wall clock.
//
// Everything here is a value and a function of packets and their arrival;
// nothing reads a clock, and nothing is safe for concurrent use.
package rtpstream

import (
	"math"
	"slices"
	"time"

	"tandem/internal/call"
	"tandem/internal/media"
)

const (
	maxRuns       = 4                      // gone on with at a time
	maxCandidates = 8                      // first packets of runs that have no second one yet
	runIdle       = 10 * time.Second       // after which a run ends if another one has packets
	headRoom      = 40 * time.Millisecond  // between two runs that follow each other: jitter, and clocks that differ
	lastPacket    = 20 * time.Millisecond  // of audio in one packet, as is usual (RFC 3551 4.2)
	breath        = 100 * time.Millisecond // a run that got nothing for so long may be over
	firstPacket   = 500 * time.Millisecond // from when a sender agrees to send until its first packet is here, at most
	overdue       = 500 * time.Millisecond // and is, when nothing came in so long after another's packet: every socket has been swept
)

// Packet is one RTP packet of G.711, or of comfort noise.
type Packet struct {
	SSRC    uint32
	Seq     uint16
	TS      uint32
	Marker  bool        // first packet of a talkspurt (RFC 3551 4.1)
	Codec   media.Codec // empty: no audio, and no reason to begin a new run
	Payload []byte      // a byte a sample; empty for comfort noise
}

func (p Packet) samples() int64 { return int64(len(p.Payload)) }

// Placed says where a packet belongs.
type Placed struct {
	Run     *Run
	Verdict Verdict
	Seq     int64 // extended sequence number
	At      int64 // extended timestamp of its first sample
	Arrival Wall
	Payload []byte
}

// Candidate is the first packet of what may become a run. It is heard when a
// second one fits it (RFC 3550 A.1, probation), or when it is clear that it is
// all there is: a forged datagram in the middle of a run makes no file.
type Candidate struct {
	Run    *Run
	Packet Packet // with its own copy of the payload
}

// Stream is a channel's timeline: the runs that still may get packets. Its
// fields are its whole state.
type Stream struct {
	Runs       []*Run // the one that began last is last
	Candidates []Candidate
	Edge       Wall // after the last sample of any run that leads; 0: none yet
	Away       bool // the recorder stopped since the last packet
	Since      Wall // and when it was last known to run
	Origin     Origin
	Deaf       []Hole // when nobody listened, since the last packet; only Start and End
	Drops      []Drop // those for want of disk
	Strays     int64  // packets that fitted nothing: too many did, or a run went on around them

	placed []Placed
	ended  []*Run
}

// Origin is where a stream comes from that began before it was recorded here:
// at another recorder, which was lost, or at none. It is zero for one that
// begins here.
type Origin struct {
	Since Wall // the other one was last known to record, or the stream began
	Cause call.Cause
	Until Wall // its sender was to send here; 0: as far as is known it is not yet
}

// Push takes one packet in order of the journal. It returns where packets
// belong, usually this one, and the runs that got their last. Both slices and
// the payloads in them are valid until the next call.
func (s *Stream) Push(p Packet, arrival Wall) (placed []Placed, ended []*Run) {
	s.placed, s.ended = s.placed[:0], s.ended[:0]
	for i := len(s.Runs) - 1; i >= 0; i-- {
		r := s.Runs[i]
		if seq, ts, ok := r.fit(p, arrival); ok {
			s.place(r, p, seq, ts, arrival, r.take(p, seq, ts, arrival))
			return s.placed, s.ended
		}
	}
	for i, c := range s.Candidates {
		seq, ts, ok := c.Run.fit(p, arrival)
		if !ok {
			continue
		}
		if verdict := c.Run.take(p, seq, ts, arrival); verdict != Duplicate {
			s.Candidates = slices.Delete(s.Candidates, i, i+1)
			s.begin(c)
			s.place(c.Run, p, seq, ts, arrival, verdict)
		}
		return s.placed, s.ended
	}
	s.consider(p, arrival)
	return s.placed, s.ended
}

func (s *Stream) place(r *Run, p Packet, seq, ts int64, arrival Wall, verdict Verdict) {
	s.placed = append(s.placed, Placed{r, verdict, seq, ts, arrival, p.Payload})
	if verdict == Duplicate {
		return
	}
	s.Away = false
	if verdict == Next {
		s.Deaf = nil
	}
	if s.leads(r) {
		s.Edge = max(s.Edge, r.Anchor.Wall(ts+p.samples()))
	}
}

// leads reports whether a run is more than something said over an older one:
// its unbroken media goes on behind the other's for longer than beside it. The
// first packets of a flood, which end when they came and so a little behind
// the last that the true stream got through, do not: they take nothing from
// what is missing there.
func (s *Stream) leads(r *Run) bool {
	if len(s.Runs) == 1 && s.Runs[0] == r {
		return true
	}
	begin, end := r.Anchor.Wall(r.Pending[0].From), r.Anchor.Wall(r.End())
	return !slices.ContainsFunc(s.Runs, func(o *Run) bool {
		if o == r || o.Began >= r.Began {
			return false
		}
		edge := o.Anchor.Wall(o.End())
		return begin < edge && end.Sub(edge) < edge.Sub(begin)
	})
}

// begin makes a run of a candidate.
func (s *Stream) begin(c Candidate) {
	r := c.Run
	first := extend(r.TS, c.Packet.TS)
	r.Head, r.Quiet = s.head(r.Anchor.Wall(r.Pending[0].From), c.Packet.Marker)
	s.Runs = append(s.Runs, r)
	s.place(r, c.Packet, int64(c.Packet.Seq), first, r.Began, Next)
	for len(s.Runs) > maxRuns {
		s.end(slices.IndexFunc(s.Runs, func(o *Run) bool {
			return !slices.ContainsFunc(s.Runs, func(older *Run) bool { return older.Arrival < o.Arrival })
		}))
	}
}

func (s *Stream) end(i int) {
	s.ended = append(s.ended, s.Runs[i])
	s.Runs = slices.Delete(s.Runs, i, i+1)
}

// head is what is missing before a run that begins at the given time, or the
// silence there; both are nil when there is no time between. Between two runs
// no sequence number tells, so only a talkspurt's first packet proves silence
// before it; and after the recorder was away nothing does, nor while datagrams
// were dropped unseen, nor at the head of a stream that came from another
// recorder: its silence was proven there or not at all.
func (s *Stream) head(begin Wall, marker bool) (missing, quiet *Hole) {
	inherited := s.Edge == 0 && s.Origin.Cause != ""
	from := s.Edge
	switch {
	case inherited:
		from = s.Origin.Since
	case from == 0 && s.Away:
		from = s.Since
	}
	if from == 0 || begin <= from {
		return nil, nil
	}
	h := &Hole{Start: from, End: begin}
	switch {
	case inherited && s.Origin.Until != 0 && begin.Sub(s.Origin.Until) > firstPacket:
		return s.unheard(), nil
	case inherited:
		h.Cause = s.Origin.Cause
	case s.Away:
		h.Cause = call.CauseInterrupted
	default:
		h.Cause = causeOf(from, begin, begin.Sub(from), s.Drops)
		marker = marker && h.Cause != call.CauseDisk
	}
	proven := marker && !inherited && !s.Away
	if !proven && begin.Sub(from) > headRoom {
		return h, nil
	}
	if missing = s.dropped().within(*h); missing != nil {
		return missing, nil
	}
	h.Cause = ""
	return nil, h
}

// Ever is after everything.
const Ever = Wall(math.MaxInt64)

// Continue notes where a stream comes from that seemed to begin here. Its first
// packet may have been faster than the word of it: then it returns what is missing
// before that.
func (s *Stream) Continue(o Origin) (*Run, *Hole) {
	switch {
	case s.Edge == 0:
		s.Origin = o
	case len(s.Runs) > 0 && s.Runs[0].Began > o.Since:
		return s.Runs[0], &Hole{Start: o.Since, End: s.Runs[0].Began, Cause: o.Cause}
	}
	return nil, nil
}

// Moved notes since when the media of a stream that began elsewhere is sent here.
func (s *Stream) Moved(at Wall) {
	if s.Edge == 0 && s.Origin.Cause != "" && s.Origin.Until == 0 {
		s.Origin.Until = at
	}
}

// Unheard returns what is missing of a stream that began elsewhere when it is
// sent here, and by now its first packet would have come: it begins with a
// silence. From then on the stream is like any other. nil: nothing is missing,
// a run that has begun says it, or it is too early to tell.
func (s *Stream) Unheard(now Wall) *Hole {
	if s.Edge != 0 || s.Origin.Until == 0 || now.Sub(s.Origin.Until) <= firstPacket {
		return nil
	}
	h := s.unheard()
	s.Origin = Origin{}
	if h != nil {
		s.Deaf = slices.DeleteFunc(s.Deaf, func(d Hole) bool { return d.End <= h.End })
	}
	return h
}

// Unlistened notes that nobody listened between two instants, as while a
// recorder is down that leaves its sockets to nobody. A packet that follows
// tells by its number what was missed.
func (s *Stream) Unlistened(from, to Wall) {
	if n := len(s.Deaf); n > 0 && from <= s.Deaf[n-1].End {
		s.Deaf[n-1].End = max(s.Deaf[n-1].End, to)
		return
	}
	s.Deaf = append(s.Deaf, Hole{Start: from, End: to, Cause: call.CauseInterrupted})
}

// Missed returns what is missing of a finished stream because nobody listened,
// when no packet followed that could tell that nothing was sent.
func (s *Stream) Missed() (missed []Hole) {
	if s.Origin.Cause != "" && s.Origin.Until == 0 {
		return nil // nothing was sent here
	}
	for _, d := range s.Deaf {
		if d.Start = max(d.Start, s.Edge); d.Start < d.End {
			missed = append(missed, d)
		}
	}
	return missed
}

func (s *Stream) unheard() *Hole {
	// The last packet that went elsewhere holds what was said until the first one here.
	h := &Hole{Start: s.Origin.Since, End: s.Origin.Until.Add(lastPacket), Cause: s.Origin.Cause}
	for _, c := range s.Candidates {
		if begin := c.Run.Anchor.Wall(c.Run.Pending[0].From); begin.Sub(s.Origin.Until) <= firstPacket {
			h.End = begin
			break
		}
	}
	if h.End <= h.Start {
		return nil
	}
	return h
}

// dropped is all that was dropped since the edge.
func (s *Stream) dropped() (d Drop) {
	for _, r := range s.Runs {
		switch {
		case r.Dropped.To <= s.Edge:
		case d.Cause == "":
			d = r.Dropped
		default:
			d = d.join(r.Dropped)
		}
	}
	return d
}

// consider keeps a packet that fits nothing as the possible first of a run.
func (s *Stream) consider(p Packet, arrival Wall) {
	if p.Codec == "" {
		return // comfort noise alone carries nothing to keep
	}
	if len(s.Candidates) == maxCandidates {
		s.Candidates = slices.Delete(s.Candidates, 0, 1)
		s.Strays++
	}
	p.Payload = slices.Clone(p.Payload)
	s.Candidates = append(s.Candidates, Candidate{newRun(p, arrival), p})
}

// Expire is Push for the passing of time: everything that arrived before now
// has been pushed. Candidates left alone become runs, idle runs end when
// there is another.
func (s *Stream) Expire(now Wall) (placed []Placed, ended []*Run) {
	s.placed, s.ended = s.placed[:0], s.ended[:0]
	for len(s.Candidates) > 0 && now.Sub(s.Candidates[0].Run.Arrival) > runIdle {
		c := s.Candidates[0]
		s.Candidates = slices.Delete(s.Candidates, 0, 1)
		s.resolve(c)
	}
	for i := 0; i < len(s.Runs) && len(s.Runs) > 1; {
		if now.Sub(s.Runs[i].Arrival) > runIdle {
			s.end(i)
		} else {
			i++
		}
	}
	s.Drops = slices.DeleteFunc(s.Drops, func(d Drop) bool { return d.To < s.Edge })
	return s.placed, s.ended
}

// Hear is Push for the moment in which what was pushed is let go of, when the
// newest packet of any stream arrived at now: candidates that nobody spoke
// over, or just before, become runs at once, since all that is to be heard must
// be somewhere. What fits them later goes on with them.
func (s *Stream) Hear(now Wall) (placed []Placed, ended []*Run) {
	s.placed, s.ended = s.placed[:0], s.ended[:0]
	s.Candidates = slices.DeleteFunc(s.Candidates, func(c Candidate) bool {
		within := breath
		if now.Sub(c.Run.Arrival) > overdue {
			within = 0
		}
		alone := !s.spokenOver(c, within) && !s.strange(c)
		if alone {
			s.begin(c)
		}
		return alone
	})
	return s.placed, s.ended
}

// Finish ends the stream: whatever was waited for does not come any more. What
// was dropped after its last packet is missing.
func (s *Stream) Finish() (placed []Placed, ended []*Run) {
	s.placed, s.ended = s.placed[:0], s.ended[:0]
	for _, c := range s.Candidates {
		s.resolve(c)
	}
	s.Candidates = nil
	if d := s.dropped(); d.Cause != "" { // the last dropped may have been a packet's time long
		r := s.Runs[len(s.Runs)-1]
		r.Tail = d.within(Hole{Start: s.Edge, End: d.To.Add(r.Anchor.Span(r.Frame))})
	}
	for len(s.Runs) > 0 {
		s.end(0)
	}
	return s.placed, s.ended
}

// resolve decides on a candidate that stayed alone: one packet in the middle
// of a run that went on is what a flood, a forger or a confused switch sent,
// and would hide what belongs there; any other is all there is of its time.
func (s *Stream) resolve(c Candidate) {
	if s.spokenOver(c, 0) {
		s.Strays++
		return
	}
	s.begin(c)
}

// spokenOver reports whether a candidate came while a run was going on, one
// that got its last packet no longer than within before.
func (s *Stream) spokenOver(c Candidate, within time.Duration) bool {
	at := c.Run.Arrival
	return slices.ContainsFunc(s.Runs, func(r *Run) bool { return r.Began <= at && r.Arrival > at.Add(-within) })
}

// strange reports whether a candidate is of a sender that spoke over another
// one before: a flood or a forger. It is heard, if at all, when nobody comes
// any more whose head it would hide.
func (s *Stream) strange(c Candidate) bool {
	over := func(r *Run) bool { return r != c.Run && r.SSRC == c.Run.SSRC && !s.leads(r) }
	return slices.ContainsFunc(s.Runs, over) ||
		slices.ContainsFunc(s.Candidates, func(o Candidate) bool { return over(o.Run) })
}

// Interrupt notes that the recorder stopped here, last known to run at since.
func (s *Stream) Interrupt(since Wall) {
	for _, r := range s.Runs {
		if n := len(r.Marks); n == 0 || r.Marks[n-1] != r.High {
			r.Marks = append(r.Marks, r.High)
		}
	}
	if !s.Away {
		s.Away, s.Since = true, since
	}
}

// Drop notes that datagrams were dropped. It may come later than packets that
// came after them, while their run lasts, and returns the runs before which
// there is a Head now where silence had been taken for proven.
func (s *Stream) Drop(d Drop) (heads []*Run) {
	all := s.dropped()
	if all.Cause == "" {
		all = d
	}
	all = all.join(d)
	if d.Cause == call.CauseDisk {
		s.Drops = append(s.Drops, d)
	}
	for _, c := range s.Candidates {
		c.Run.drop(d, all)
	}
	for _, r := range s.Runs {
		r.drop(d, all)
		if r.Quiet == nil {
			continue
		}
		if h := d.within(*r.Quiet); h != nil {
			r.Head, r.Quiet = h, nil
			heads = append(heads, r)
		}
	}
	return heads
}

func (r *Run) drop(d, all Drop) {
	r.Dropped = all
	if d.Cause == call.CauseDisk {
		r.Drops = append(r.Drops, d)
	}
}

// Report takes a sender report: the sender's clock read ntp at timestamp ts.
func (s *Stream) Report(ssrc uint32, ts uint32, ntp Wall) {
	for i := len(s.Runs) - 1; i >= 0; i-- {
		if r := s.Runs[i]; r.SSRC == ssrc {
			r.Anchor.report(extend(r.TS, ts), ntp)
			return
		}
	}
}
