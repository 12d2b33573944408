package rtpstream

import (
	"slices"
	"time"

	"tandem/internal/call"
	"tandem/internal/media"
)

const (
	window     = 128  // sequence numbers within which a late packet is recognised, and after which a lost one is given up: 2.5 s of 20 ms
	maxDropout = 3000 // RFC 3550 A.1: a longer jump must be borne out by the timestamps
	minFrame   = 40   // no sender sends packets of less than 5 ms of G.711

	maxEarly = time.Second     // before the anchor says it could have been sent: the timestamps jumped
	maxLate  = 5 * time.Second // no network keeps a packet longer and delivers it after all

	outageAfter = 15 * time.Second // a longer hole is not the loss of packets but of the path
)

// Run is one unbroken numbering of packets: one SSRC, one codec, no jump of
// sequence or timestamp that time does not bear out. Its fields are its whole
// state, so that a run can be stored and gone on with.
type Run struct {
	SSRC    uint32
	Codec   media.Codec
	Began   Wall    // arrival of its first packet; with the SSRC its identity
	High    int64   // highest extended sequence number received
	TS      int64   // extended timestamp of that packet
	Arrival Wall    // of the last packet that was not a duplicate
	Seen    seen    // bit i: High-i has been received
	Frame   int64   // samples of the newest packet that had any
	Jitter  float64 // RFC 3550 6.4.1, in timestamp units
	Transit int64   // arrival - timestamp of the last packet in order
	Anchor  Anchor
	Pending Coverage // never empty; holes in it may still be filled
	Marks   []int64  // High whenever the recorder stopped
	Drops   []Drop   // those for want of disk
	Dropped Drop     // all since the stream's Edge, as one
	Head    *Hole    // what is missing before its first packet; only Start, End and Cause
	Quiet   *Hole    // or the silence there, which nothing but its marker proves
	Tail    *Hole    // what is missing after its last packet, known when the stream is finished
}

// Drop is a time in which datagrams arrived that could not be kept, and whose
// they were nobody knows.
type Drop struct {
	From, To Wall
	Cause    call.Cause // disk or loss
}

// join is a drop that lasts as long as both.
func (d Drop) join(o Drop) Drop {
	if d.Cause == "" || o.Cause == call.CauseDisk {
		d.Cause = o.Cause
	}
	return Drop{min(d.From, o.From), max(d.To, o.To), d.Cause}
}

// within is what may be missing of a silence in which the drop is, nil when
// it is not in it. No packet that was dropped had been on its way for long.
func (d Drop) within(silence Hole) *Hole {
	if d.Cause == "" || d.To <= silence.Start || silence.End < d.From {
		return nil
	}
	return &Hole{Start: max(silence.Start, d.From.Add(-maxLate)), End: silence.End, Cause: d.Cause}
}

// Hole is a stretch of a run for which no packet came. Lost 0 means that the
// sequence is continuous: the sender was silent and nothing is missing.
type Hole struct {
	From, To   int64 // extended timestamps
	Start, End Wall
	Lost       int64
	Cause      call.Cause // empty for silence

	after int64 // the last sequence number before it
}

// Silence says whether nothing is missing.
func (h Hole) Silence() bool { return h.Lost == 0 }

// Verdict says what a packet is to its run.
type Verdict uint8

const (
	Next      Verdict = iota // newer than all before
	Late                     // reordered: it fills a hole
	Duplicate                // its sequence number has been here
)

// newRun begins at a packet. Extended numbers begin at the packet's own, so
// their low bits always are what was on the wire.
func newRun(p Packet, arrival Wall) *Run {
	r := &Run{SSRC: p.SSRC, Codec: p.Codec, Began: arrival, High: int64(p.Seq), TS: int64(p.TS), Arrival: arrival,
		Seen: seen{1}, Frame: p.samples(), Anchor: Anchor{Rate: p.Codec.ClockRate()}}
	r.Anchor.start(r.TS, arrival)
	r.Transit = r.Anchor.units(time.Duration(arrival)) - r.TS
	r.Pending = Coverage{{From: r.TS, To: r.TS + p.samples(), First: r.High, Last: r.High}}
	return r
}

// fit extends the packet's numbers and says whether it belongs to the run.
func (r *Run) fit(p Packet, arrival Wall) (seq, ts int64, ok bool) {
	if p.SSRC != r.SSRC || p.Codec != "" && p.Codec != r.Codec {
		return 0, 0, false
	}
	seq = r.High + int64(int16(p.Seq-uint16(r.High)))
	away := arrival.Sub(r.Arrival)
	ts = extend(r.TS+r.Anchor.units(away), p.TS)
	late := arrival.Sub(r.Anchor.Wall(ts))
	drift := max(away, 0) / maxDrift // of a silence in which the anchor was not renewed
	ahead := seq - r.High
	early := maxEarly
	if ahead > 0 && ts-r.TS == ahead*r.Frame { // every sample of the time is accounted for: what the run knows was late
		early += maxLate
	}
	if late < -early-drift || late > maxLate+drift {
		return 0, 0, false
	}
	switch {
	case ahead > 0:
		missing := ahead - 1
		ok = ts >= r.TS && (missing <= maxDropout || ts-r.TS >= missing*minFrame)
	case ahead == 0:
		ok = ts == r.TS
	default:
		ok = -ahead < window && ts <= r.TS
	}
	return seq, ts, ok
}

// extend is the number nearest to expected that has the low bits of ts.
func extend(expected int64, ts uint32) int64 {
	return expected + int64(int32(ts-uint32(expected)))
}

// take takes a packet that fits.
func (r *Run) take(p Packet, seq, ts int64, arrival Wall) Verdict {
	verdict := r.see(seq)
	if verdict == Duplicate {
		return verdict
	}
	if verdict == Next {
		transit := r.Anchor.units(time.Duration(arrival)) - ts
		d := float64(max(transit-r.Transit, r.Transit-transit))
		r.Jitter += (d - r.Jitter) / 16
		r.Transit, r.TS = transit, ts
		if p.samples() > 0 {
			r.Frame = p.samples()
		}
		r.Anchor.observe(ts, arrival)
	}
	r.Arrival = max(r.Arrival, arrival)
	r.Pending.Add(Interval{From: ts, To: ts + p.samples(), First: seq, Last: seq})
	return verdict
}

// see marks a sequence number as received.
func (r *Run) see(seq int64) Verdict {
	if ahead := seq - r.High; ahead > 0 {
		r.Seen.shift(ahead)
		r.High = seq
		r.Seen[0] |= 1
		return Next
	}
	behind := r.High - seq
	bit := uint64(1) << (behind % 64)
	if r.Seen[behind/64]&bit != 0 {
		return Duplicate
	}
	r.Seen[behind/64] |= bit
	return Late
}

// seen has a bit for each of the newest sequence numbers.
type seen [window / 64]uint64

// shift makes room for the next by numbers; those that fall out are forgotten.
func (s *seen) shift(by int64) {
	words, bits := int(min(by, window)/64), by%64
	for i := len(s) - 1; i >= 0; i-- {
		var word uint64
		if from := i - words; from >= 0 {
			word = s[from] << bits
			if from > 0 {
				word |= s[from-1] >> (64 - bits)
			}
		}
		s[i] = word
	}
}

// End is the timestamp after the run's last sample.
func (r *Run) End() int64 { return r.Pending[len(r.Pending)-1].To }

// Settled is the timestamp up to which no hole can be filled any more.
func (r *Run) Settled() int64 { return r.Pending[0].To }

// Earliest is when the sample at timestamp ts may have been sent at the
// earliest, given that its packet came at arrival. Of a run that has only begun
// nobody knows how long its packets had been on their way.
func (r *Run) Earliest(ts int64, arrival Wall) Wall {
	least := arrival.Add(-maxLate)
	if arrival.Sub(r.Began) >= maxLate {
		least = max(least, r.Anchor.earliest(ts))
	}
	return min(least, r.Anchor.Wall(ts))
}

// JitterTime is the RFC 3550 jitter as a length of time.
func (r *Run) JitterTime() time.Duration {
	return time.Duration(r.Jitter * float64(time.Second) / float64(r.Anchor.Rate))
}

// Settle appends to dst the holes that no late packet can fill any more, in
// order, and forgets what lies before them. With all it settles every hole.
func (r *Run) Settle(dst []Hole, all bool) []Hole {
	n := 0
	for ; n+1 < len(r.Pending); n++ {
		a, b := r.Pending[n], r.Pending[n+1]
		h := hole(a, b)
		if !all && b.First > r.High-window+1 {
			break
		}
		if h.From == h.To { // numbers were skipped in no time: nothing is missing
			continue
		}
		h.Start, h.End = r.Anchor.Wall(h.From), r.Anchor.Wall(h.To)
		if h.Lost > 0 {
			h.Cause = r.cause(h)
		}
		dst = append(dst, h)
	}
	if n > 0 {
		r.Pending = slices.Delete(r.Pending, 0, n)
		r.forget()
	}
	return dst
}

// Unsettled appends to dst the holes that a late packet may still fill, as
// timestamps only.
func (r *Run) Unsettled(dst []Hole) []Hole {
	for i := 1; i < len(r.Pending); i++ {
		if h := hole(r.Pending[i-1], r.Pending[i]); h.From < h.To {
			dst = append(dst, h)
		}
	}
	return dst
}

// cause says why a hole of lost packets is there. Whether anything is missing
// the sequence numbers have told already: they go on while nobody listens,
// and do not while the sender is silent.
func (r *Run) cause(h Hole) call.Cause {
	for _, mark := range r.Marks {
		if h.after <= mark && mark <= h.after+h.Lost {
			return call.CauseInterrupted
		}
	}
	// Part of the hole may be silence: what counts is how much was lost.
	return causeOf(h.Start, h.End, r.Anchor.span(h.Lost*r.Frame), r.Drops)
}

// causeOf says why media of the given length is missing between two instants.
func causeOf(start, end Wall, length time.Duration, drops []Drop) call.Cause {
	for _, d := range drops {
		if d.From < end && start < d.To {
			return d.Cause
		}
	}
	if length >= outageAfter {
		return call.CauseOutage
	}
	return call.CauseLoss
}

// forget drops the marks and drops that no later hole can touch.
func (r *Run) forget() {
	first := r.Pending[0]
	r.Marks = slices.DeleteFunc(r.Marks, func(mark int64) bool { return mark < first.First })
	start := r.Anchor.Wall(first.From)
	r.Drops = slices.DeleteFunc(r.Drops, func(d Drop) bool { return d.To < start })
}
