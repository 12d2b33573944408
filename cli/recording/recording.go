package recording

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"tandem/internal/media"
	"tandem/internal/stitch"
)

// Recording is one channel as all takes together have it, sample after sample
// from Start on; silence where nothing was sent, or where it is missing.
type Recording struct {
	Start     time.Time
	Format    media.WAVFormat // linear PCM when the takes' codecs differ
	Samples   []byte
	Gaps      []Gap
	Recorders []string // whose takes it is made of
	Group     string   // whose copy it is, for Merge to tell; Join does not know

	survey
}

// Gap is what nobody has.
type Gap struct {
	stitch.Gap
	At, Length    time.Duration // in the recording
	Before, After string        // the recorders on both sides, as far as there are any
}

// Join stitches takes of one channel and interval; nil ones are nothing.
func Join(takes []*Take) Recording {
	takes = slices.DeleteFunc(slices.Clone(takes), func(t *Take) bool { return t == nil })
	var r Recording
	var parts []stitch.Part
	for _, t := range takes {
		if len(t.samples) > 0 && (r.Start.IsZero() || t.start.Before(r.Start)) {
			r.Start = t.start
		}
		r.Recorders = append(r.Recorders, t.part.Recorder)
		parts = append(parts, t.part)
	}
	r.Format = common(takes)
	if r.Start.IsZero() { // only gaps are known
		r.Start = firstGap(parts)
	}
	line := stitch.Join(r.Start, parts)
	if len(takes) == 1 { // as the recorder itself stitched it
		r.Samples, r.Gaps = takes[0].samples, takes[0].gaps(r.Start)
		r.survey = r.look(takes, takes[0].placed(line))
		return r
	}
	r.Samples = r.lay(takes, line)
	r.survey = r.look(takes, line)
	for _, h := range line.Holes {
		r.Gaps = append(r.Gaps, Gap{h.Gap, length(h.At), length(h.Samples), h.Before, h.After})
	}
	return r
}

func firstGap(parts []stitch.Part) (first time.Time) {
	for _, p := range parts {
		for _, g := range p.Gaps {
			if first.IsZero() || g.From.Before(first) {
				first = g.From
			}
		}
	}
	return first
}

// gaps are the take's own, in a recording that begins at start.
func (t *Take) gaps(start time.Time) []Gap {
	var all []Gap
	for _, g := range t.part.Gaps {
		all = append(all, Gap{g, g.From.Sub(start), g.To.Sub(g.From), t.part.Recorder, t.part.Recorder})
	}
	return all
}

// common is the format that all takes with media have, else linear PCM.
func common(takes []*Take) media.WAVFormat {
	linear := media.WAVFormat{SampleRate: stitch.Rate}
	var formats []media.WAVFormat
	for _, t := range takes {
		if len(t.samples) > 0 && !slices.Contains(formats, t.format) {
			formats = append(formats, t.format)
		}
	}
	if len(formats) == 1 {
		return formats[0]
	}
	return linear
}

// lay copies the pieces of a timeline each to its place. The recording ends
// where the last take does, or the timeline: clocks may differ.
func (r Recording) lay(takes []*Take, line stitch.Timeline) []byte {
	total := int64(0)
	for _, t := range takes {
		if len(t.samples) > 0 {
			total = max(total, int64(t.start.Sub(r.Start)/(time.Second/stitch.Rate))+int64(len(t.samples)/t.format.SampleSize()))
		}
	}
	if n := len(line.Pieces); n > 0 {
		total = max(total, line.Pieces[n-1].End())
	}
	size := int64(r.Format.SampleSize())
	samples := bytes.Repeat(silence(r.Format), int(total))
	for _, p := range line.Pieces {
		t := takes[p.Part]
		from := t.offsets[p.Stretch] + p.Skip
		if p.At < 0 {
			from, p.Samples, p.At = from-p.At, p.Samples+p.At, 0
		}
		if n := min(p.Samples, total-p.At); n > 0 {
			copy(samples[p.At*size:], t.slice(from, n, r.Format))
		}
	}
	return samples
}

// slice is samples of a take, in a format.
func (t *Take) slice(from, n int64, format media.WAVFormat) []byte {
	size := int64(t.format.SampleSize())
	part := t.samples[from*size : (from+n)*size]
	if format == t.format {
		return part
	}
	linear := make([]byte, 0, 2*n)
	for _, v := range t.format.Linear(part) {
		linear = binary.LittleEndian.AppendUint16(linear, uint16(v))
	}
	return linear
}

// silence is a silent sample.
func silence(f media.WAVFormat) []byte {
	if f.Codec == "" {
		return make([]byte, f.SampleSize())
	}
	return []byte{f.Codec.Silence()}
}
