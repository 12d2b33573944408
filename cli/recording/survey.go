package recording

import (
	"time"

	"tandem/internal/merge"
	"tandem/internal/stitch"
)

// survey says which of a recording's samples are what.
type survey struct {
	media []held
	holes []hole
	known merge.Span // where the recorders would say what is missing
	open  bool       // it was asked for as far as there is audio
}

// held is media and who has it.
type held struct {
	merge.Media
	recorder string
}

// hole is where a gap is among the samples.
type hole struct {
	merge.Span
	gap Gap
}

// look makes the survey of a recording that the takes were laid in.
func (r Recording) look(takes []*Take, line stitch.Timeline) survey {
	var s survey
	total := int64(len(r.Samples) / r.Format.SampleSize())
	for _, p := range line.Pieces {
		of := takes[p.Part].part
		before := max(0, -p.At)
		from := of.Stretches[p.Stretch]
		m := merge.Media{Span: merge.Span{From: p.At + before, To: min(p.End(), total)}, SSRC: from.SSRC, TS: from.TS + uint32(p.Skip+before), Wall: from.From.Add(length(p.Skip + before))}
		if m.Samples() > 0 {
			s.media = append(s.media, held{m, of.Recorder})
		}
	}
	for _, h := range line.Holes {
		in := merge.Span{From: max(0, h.At), To: h.End()}
		if in.Samples() > 0 {
			s.holes = append(s.holes, hole{in, Gap{h.Gap, length(h.At), length(h.Samples), h.Before, h.After}})
		}
	}
	s.know(takes, r.Start)
	s.known = merge.Span{From: max(0, s.known.From), To: min(s.known.To, total)}
	return s
}

// know finds out from where to where the recorders know of the channel.
func (s *survey) know(takes []*Take, start time.Time) {
	add := func(from, to int64) {
		if s.known.Samples() == 0 {
			s.known = merge.Span{From: from, To: to}
		}
		s.known = merge.Span{From: min(s.known.From, from), To: max(s.known.To, to)}
	}
	for _, m := range s.media {
		add(m.From, m.To)
	}
	for _, h := range s.holes {
		add(h.From, h.To)
	}
	for _, t := range takes {
		s.open = s.open || t.asked.To.IsZero()
		if t.told.From.Before(t.told.To) {
			add(s.position(t.told.From, start), s.position(t.told.To, start))
		}
	}
}

// position is the sample at an instant outside of all media, or inside, by the
// clock of the first of them or of the last.
func (s *survey) position(at time.Time, start time.Time) int64 {
	if len(s.media) == 0 {
		return samples(at.Sub(start))
	}
	first, last := s.media[0], s.media[len(s.media)-1]
	if !at.After(first.Wall) {
		return first.From - samples(first.Wall.Sub(at))
	}
	return last.From + samples(at.Sub(last.Wall))
}

// placed is the timeline of a take alone with all where it is in the take's
// file.
func (t *Take) placed(line stitch.Timeline) stitch.Timeline {
	moved := stitch.Timeline{}
	off := func(p stitch.Piece) int64 { return t.offsets[p.Stretch] + p.Skip - p.At }
	for _, p := range line.Pieces {
		p.At += off(p)
		moved.Pieces = append(moved.Pieces, p)
	}
	n := 0 // pieces before the hole
	for _, h := range line.Holes {
		for n < len(line.Pieces) && line.Pieces[n].At < h.At {
			n++
		}
		from, to := h.At, h.End()
		switch {
		case n > 0 && n < len(line.Pieces):
			from, to = from+off(line.Pieces[n-1]), to+off(line.Pieces[n])
		case n > 0:
			from, to = from+off(line.Pieces[n-1]), to+off(line.Pieces[n-1])
		case len(line.Pieces) > 0:
			from, to = from+off(line.Pieces[0]), to+off(line.Pieces[0])
		}
		h.At, h.Samples = from, to-from
		moved.Holes = append(moved.Holes, h)
	}
	return moved
}

// samples is a duration in samples, to the nearest.
func samples(d time.Duration) int64 {
	return int64(d.Round(time.Second/stitch.Rate) / (time.Second / stitch.Rate))
}
