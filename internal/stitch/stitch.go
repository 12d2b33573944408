// Package stitch joins what several recorders tell of one channel into one
// timeline: after a failover a call lies on two of them, after a crash and a
// return two of them hold the same packets. It does no input or output.
//
// Within one SSRC the RTP timestamp says what is the same instant, to the
// sample, however far the recorders' clocks are apart (RFC 3550 5.1). Between
// two SSRCs only the wall clock can.
package stitch

import (
	"cmp"
	"slices"
	"time"

	"tandem/internal/call"
)

// Rate is that of every position: RTP timestamps and G.711 samples a second.
const Rate = 8000

// Sequence is an RTP sequence number, where it is known.
type Sequence struct {
	Number uint16
	Known  bool
}

// Stretch is media without a break, as one recorder has it.
type Stretch struct {
	SSRC     uint32
	TS       uint32    // RTP timestamp of the first sample
	From, To time.Time // of the first sample and after the last, by the recorder's clock
	Samples  int64
	First    Sequence // of the first packet
	Last     Sequence // and of the last
}

// Gap is time of which a recorder says that it is missing.
type Gap struct {
	From, To time.Time
	Cause    call.Cause
}

// Part is what one recorder tells of the channel.
type Part struct {
	Recorder  string
	Stretches []Stretch // in order
	Gaps      []Gap
}

// Piece is a place of the timeline and whose samples belong there: those of
// one stretch of one part, from Skip on.
type Piece struct {
	At, Samples int64
	Part        int // index of what Join was given
	Stretch     int
	Skip        int64
}

// End is the position after the piece.
func (p Piece) End() int64 { return p.At + p.Samples }

// Hole is a place of the timeline that is missing: nobody has it.
type Hole struct {
	At, Samples int64
	Gap
	Before, After string // the recorders on both sides; empty at an end
}

// End is the position after the hole.
func (h Hole) End() int64 { return h.At + h.Samples }

// Timeline is one channel. What is neither in a piece nor in a hole is
// silence, or not known to be anything.
type Timeline struct {
	Pieces []Piece // in order; they do not overlap
	Holes  []Hole  // in order; they overlap neither each other nor a piece
}

// Join lays the parts on one timeline whose position 0 is at from. A stretch
// goes on where its SSRC's timestamps say; one of another SSRC begins by the
// wall clock and gives way to what began before it. Samples that several have
// are taken once.
//
// A hole is what somebody calls missing and nobody has. Where one recorder
// ends and another goes on with the same SSRC, and both sequence numbers are
// known, these decide: no number missing is no hole, else it is all between.
func Join(from time.Time, parts []Part) Timeline {
	j := joiner{from: from, parts: parts, at: make([][]int64, len(parts)), run: make([][]int, len(parts))}
	j.place()
	j.claim()
	return Timeline{Pieces: j.pieces, Holes: j.holes()}
}

// joiner is a timeline in the making.
type joiner struct {
	from   time.Time
	parts  []Part
	at     [][]int64 // position of every stretch of every part
	run    [][]int   // and in which of the runs it is
	runs   [][]ref   // stretches on one RTP timeline, in order of time
	pieces []Piece
}

// ref is a stretch: its part and its index there.
type ref struct{ part, stretch int }

func (j *joiner) stretch(r ref) Stretch { return j.parts[r.part].Stretches[r.stretch] }
func (j *joiner) start(r ref) int64     { return j.at[r.part][r.stretch] }
func (j *joiner) end(r ref) int64       { return j.start(r) + j.stretch(r).Samples }

// place gives every stretch its position.
func (j *joiner) place() {
	var all []ref
	for p, part := range j.parts {
		j.at[p], j.run[p] = make([]int64, len(part.Stretches)), make([]int, len(part.Stretches))
		for s := range part.Stretches {
			all = append(all, ref{p, s})
		}
	}
	slices.SortStableFunc(all, func(a, b ref) int { return j.stretch(a).From.Compare(j.stretch(b).From) })
	var latest *ref // of those placed, the one that ends last
	for _, r := range all {
		at, run := j.position(r, latest)
		j.at[r.part][r.stretch], j.run[r.part][r.stretch] = at, run
		if run == len(j.runs) {
			j.runs = append(j.runs, nil)
		}
		j.runs[run] = append(j.runs[run], r)
		if latest == nil || !j.stretch(r).To.Before(j.stretch(*latest).To) {
			latest = &r
		}
	}
}

// position is where a stretch belongs: on a run that it continues, else at the
// begin of a new one, by the wall clock. That is read off the same recorder's
// stretch before it or, at a recorder's first, off the latest of all.
func (j *joiner) position(r ref, latest *ref) (at int64, run int) {
	s := j.stretch(r)
	for n, run := range j.runs {
		last := run[len(run)-1]
		if ahead, ok := s.follows(j.stretch(last)); ok {
			return j.start(last) + ahead, n
		}
	}
	if r.stretch > 0 {
		latest = &ref{r.part, r.stretch - 1}
	}
	if latest == nil {
		return samples(s.From.Sub(j.from)), len(j.runs)
	}
	return j.end(*latest) + samples(s.From.Sub(j.stretch(*latest).To)), len(j.runs)
}

const (
	sameRun   = Rate // timestamps and wall clocks that agree within a second tell of one RTP timeline
	sameDrift = 1000 // plus 0.1 % of how far they are apart
)

// follows says how many samples after the begin of o the stretch begins, if
// both lie on one RTP timeline. Of timestamps that wrap the nearest to the wall
// clock counts.
func (s Stretch) follows(o Stretch) (ahead int64, ok bool) {
	if s.SSRC != o.SSRC {
		return 0, false
	}
	wall := samples(s.From.Sub(o.From))
	off := int64(int32(s.TS - o.TS - uint32(wall)))
	return wall + off, max(off, -off) <= sameRun+max(wall, -wall)/sameDrift
}

// claim cuts the stretches into pieces, run after run in order of time, so
// that each place belongs to the first that has it.
func (j *joiner) claim() {
	for _, run := range j.runs {
		for _, r := range run {
			for _, free := range j.free(j.start(r), j.end(r)) {
				j.insert(Piece{At: free.from, Samples: free.to - free.from, Part: r.part, Stretch: r.stretch, Skip: free.from - j.start(r)})
			}
		}
	}
}

// span is [from, to).
type span struct{ from, to int64 }

// free is what of [from, to) belongs to no piece.
func (j *joiner) free(from, to int64) []span {
	var free []span
	n, _ := slices.BinarySearchFunc(j.pieces, from, func(p Piece, at int64) int { return cmp.Compare(p.End(), at+1) })
	for ; n < len(j.pieces) && j.pieces[n].At < to; n++ {
		if p := j.pieces[n]; from < p.At {
			free = append(free, span{from, p.At})
		}
		from = max(from, j.pieces[n].End())
	}
	if from < to {
		free = append(free, span{from, to})
	}
	return free
}

func (j *joiner) insert(p Piece) {
	n, _ := slices.BinarySearchFunc(j.pieces, p.At, func(o Piece, at int64) int { return cmp.Compare(o.At, at) })
	j.pieces = slices.Insert(j.pieces, n, p)
}

// samples is a duration in samples, to the nearest.
func samples(d time.Duration) int64 {
	if d < 0 {
		return -samples(-d)
	}
	seconds, rest := int64(d/time.Second), int64(d%time.Second)
	return seconds*Rate + (rest*Rate+int64(time.Second)/2)/int64(time.Second)
}

// length is a number of samples as a duration.
func length(n int64) time.Duration {
	return time.Duration(n/Rate)*time.Second + time.Duration(n%Rate)*time.Second/Rate
}
