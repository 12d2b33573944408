package merge

import (
	"bytes"
	"encoding/binary"
	"math"
	"sync"

	"tandem/internal/media"
)

// lay makes the merged copy.
func (m *merger) lay() {
	r := &m.result
	r.Format = m.a.Format
	if len(r.Filled) > 0 && m.a.Format != m.b.Format {
		r.Format = media.WAVFormat{SampleRate: Rate}
	}
	size := int64(r.Format.SampleSize())
	r.Samples = convert(m.a.Samples, m.a.Format, r.Format)
	if n := len(r.Filled); n > 0 {
		if more := r.Filled[n-1].To*size - int64(len(r.Samples)); more > 0 {
			r.Samples = append(r.Samples, silence(r.Format, more/size)...)
		}
	}
	for _, p := range r.Filled {
		copy(r.Samples[p.From*size:p.To*size], m.b.heardFrom(p, r.Format))
	}
}

// heardFrom is what the copy has for a patch of another.
func (c Copy) heardFrom(p Patch, format media.WAVFormat) []byte {
	if by, ok := p.whole(p.Span); ok {
		return convert(c.slice(p.Span.shifted(by)), c.Format, format)
	}
	around := Span{p.Other.From - taps, p.Other.To + taps + 1}
	levels := make([]float64, 0, around.Samples())
	for _, v := range c.Format.Linear(c.slice(around)) {
		levels = append(levels, float64(v))
	}
	samples := make([]byte, 0, p.Samples()*2)
	for at := p.From; at < p.To; at++ {
		v := between(levels, p.to(at)-float64(around.From))
		samples = appendSample(samples, format, int16(min(max(math.Round(v), math.MinInt16), math.MaxInt16)))
	}
	return samples
}

// slice is the copy's samples of a span, silence where it has none.
func (c Copy) slice(s Span) []byte {
	size := int64(c.Format.SampleSize())
	there := s.and(Span{0, int64(len(c.Samples)) / size})
	if there == s {
		return c.Samples[s.From*size : s.To*size]
	}
	samples := silence(c.Format, s.Samples())
	if there.Samples() > 0 {
		copy(samples[(there.From-s.From)*size:], c.Samples[there.From*size:there.To*size])
	}
	return samples
}

// convert is the samples in a format, always a copy.
func convert(samples []byte, from, to media.WAVFormat) []byte {
	if from == to {
		return bytes.Clone(samples)
	}
	converted := make([]byte, 0, len(samples)/from.SampleSize()*to.SampleSize())
	for _, v := range from.Linear(samples) {
		converted = appendSample(converted, to, v)
	}
	return converted
}

func appendSample(b []byte, f media.WAVFormat, v int16) []byte {
	if f.Codec == "" {
		return binary.LittleEndian.AppendUint16(b, uint16(v))
	}
	return append(b, f.Codec.FromLinear(v))
}

func silence(f media.WAVFormat, samples int64) []byte {
	if f.Codec == "" {
		return make([]byte, 2*samples)
	}
	return bytes.Repeat([]byte{f.Codec.Silence()}, int(samples))
}

const (
	taps   = 16  // on each side, of what is between two samples
	phases = 512 // of a sample: the error is below that of G.711
)

// kernel is what each sample around adds to one between two, for each phase:
// the sinc of ideal interpolation under a Hann window.
var kernel = sync.OnceValue(func() *[phases + 1][2 * taps]float64 {
	var k [phases + 1][2 * taps]float64
	for phase := range k {
		sum := 0.0
		for n := range k[phase] {
			x := float64(n-taps+1) - float64(phase)/phases
			v := (1 + math.Cos(math.Pi*x/taps)) / 2
			if x != 0 {
				v *= math.Sin(math.Pi*x) / (math.Pi * x)
			}
			k[phase][n], sum = v, sum+v
		}
		for n := range k[phase] {
			k[phase][n] /= sum
		}
	}
	return &k
})

// between is the value at a place between samples, at least taps from both ends.
func between(levels []float64, at float64) float64 {
	whole := math.Floor(at)
	weights := &kernel()[int((at-whole)*phases+0.5)]
	sum := 0.0
	for n, v := range levels[int(whole)-taps+1:][:2*taps] {
		sum += v * weights[n]
	}
	return sum
}
