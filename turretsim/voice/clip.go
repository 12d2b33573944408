// Package voice is what the sources of a turret say: tones that name
// themselves, or speech from files, and the mix of them in G.711.
package voice

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"

	"tandem/internal/media"
	"tandem/internal/tone"
)

// Clip is speech in memory: linear samples at 8 kHz.
type Clip struct {
	Name    string // the file it came from
	Samples []int16
}

// LoadClip reads a mono WAV file of 16-bit PCM or G.711 whose rate is 8 kHz or
// a multiple of it. Errors name the file.
func LoadClip(path string) (*Clip, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load voice: %w", err)
	}
	format, data, err := media.ReadWAV(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("load voice %s: %w", path, err)
	}
	if format.SampleRate%tone.Rate != 0 {
		return nil, fmt.Errorf("load voice %s: rate %d Hz: want 8000 or a multiple of it", path, format.SampleRate)
	}
	return &Clip{Name: path, Samples: decimate(linear(format, data), format.SampleRate/tone.Rate)}, nil
}

func linear(format media.WAVFormat, data []byte) []int16 {
	samples := make([]int16, len(data)/format.SampleSize())
	for i := range samples {
		if format.Codec != "" {
			samples[i] = format.Codec.ToLinear(data[i])
		} else {
			samples[i] = int16(binary.LittleEndian.Uint16(data[2*i:]))
		}
	}
	return samples
}

// decimate keeps every factor-th sample after a low-pass that leaves nothing
// audible to fold back: a windowed sinc (Blackman) reaching 16 output samples
// to either side, its edge at 3.6 kHz.
func decimate(in []int16, factor int) []int16 {
	if factor == 1 {
		return in
	}
	filter := lowPass(16*factor, 3600.0/float64(tone.Rate*factor))
	half := len(filter) / 2
	out := make([]int16, (len(in)+factor-1)/factor)
	for i := range out {
		var sum float64
		for k, c := range filter {
			if at := i*factor + k - half; at >= 0 && at < len(in) {
				sum += c * float64(in[at])
			}
		}
		out[i] = int16(math.Round(max(-32768, min(32767, sum))))
	}
	return out
}

// lowPass is a filter of 2·half+1 coefficients whose sum is 1; edge is a
// fraction of the sampling rate.
func lowPass(half int, edge float64) []float64 {
	filter := make([]float64, 2*half+1)
	total := 0.0
	for i := range filter {
		x := float64(i - half)
		sinc := 2 * edge
		if x != 0 {
			sinc = math.Sin(2*math.Pi*edge*x) / (math.Pi * x)
		}
		phase := math.Pi * float64(i) / float64(half)
		filter[i] = sinc * (0.42 - 0.5*math.Cos(phase) + 0.08*math.Cos(2*phase))
		total += filter[i]
	}
	for i := range filter {
		filter[i] /= total
	}
	return filter
}
