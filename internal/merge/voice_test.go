package merge

import (
	"bytes"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tandem/internal/media"
	"tandem/internal/tone"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

var pcmu, pcma = media.WAVFormat{Codec: media.PCMU, SampleRate: Rate}, media.WAVFormat{Codec: media.PCMA, SampleRate: Rate}

// speech is n samples that are like speech in what matters here: syllables of
// voice whose pitch wanders, of which one period is much like the next, hisses,
// and pauses.
func speech(seed uint64, n int) []float64 {
	rng := rand.New(rand.NewPCG(seed, 1))
	line := make([]float64, 0, n)
	pitch := 80 + 120*rng.Float64()
	phase := 0.0
	for len(line) < n {
		formants := [3]resonator{{f: 250 + 500*rng.Float64()}, {f: 900 + 1300*rng.Float64()}, {f: 2300 + 700*rng.Float64()}}
		length := 400 + rng.IntN(1600)
		voiced, strength := rng.Float64() < 0.75, 300+2500*rng.Float64()
		if rng.Float64() < 0.15 {
			strength, length = 0, 4*length
		}
		bend := 1 + 0.00006*(rng.Float64()-0.5)
		for k := range length {
			pitch = min(max(pitch*bend, 70), 260)
			in := 0.1 * rng.NormFloat64()
			if phase += pitch / Rate; phase >= 1 {
				phase--
				if voiced {
					in = 6
				}
			}
			if !voiced {
				in = rng.NormFloat64()
			}
			out := 0.0
			for f := range formants {
				out += formants[f].pass(in)
			}
			line = append(line, strength*math.Sin(math.Pi*float64(k)/float64(length))*out)
		}
	}
	return line[:n]
}

// resonator is a formant, a filter of two poles.
type resonator struct{ f, y1, y2 float64 }

func (r *resonator) pass(x float64) float64 {
	const width = 0.97
	y := 0.05*x + 2*width*math.Cos(2*math.Pi*r.f/Rate)*r.y1 - width*width*r.y2
	r.y1, r.y2 = y, r.y1
	return y
}

// spoken is a real voice where this machine has one, else ok is false.
func spoken(n int) (line []float64, ok bool) {
	files, _ := filepath.Glob("/usr/share/sounds/alsa/*_*.wav")
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		format, data, err := media.ReadWAV(f)
		f.Close()
		if err != nil || format.SampleRate%Rate != 0 {
			continue
		}
		wide := format.Linear(data)
		by := format.SampleRate / Rate
		for at := 0; at+by <= len(wide); at += by { // a mean is low-pass enough
			sum := 0.0
			for _, v := range wide[at : at+by] {
				sum += float64(v)
			}
			line = append(line, sum/float64(by))
		}
	}
	for len(line) > 0 && len(line) < n {
		line = append(line, line...)
	}
	return line[:min(n, len(line))], len(line) > 0
}

// tones is what a simulated turret says at a source.
func tones(source string, n int) []float64 {
	s, _ := tone.NewSource("t-1", source)
	sum := make([]int32, n)
	s.Add(sum, 4321)
	line := make([]float64, n)
	for i, v := range sum {
		line[i] = float64(v)
	}
	return line
}

// clock is that of a sender or of the copy made of what it sent.
type clock struct {
	offset float64 // samples after the line's begin
	ppm    float64 // too fast
}

// to is the copy's position of a place of the line.
func (c clock) to(at float64) float64 { return (at - c.offset) * (1 + c.ppm/1e6) }

// at is the inverse.
func (c clock) at(n float64) float64 { return n/(1+c.ppm/1e6) + c.offset }

// recorded is a copy of a line by a clock, whose recorder's own clock is off,
// without what is lost (in positions of the copy). The SSRC is its own.
func recorded(line []float64, format media.WAVFormat, c clock, off time.Duration, lost ...Span) Copy {
	n := int64(c.to(float64(len(line)-200))) - 1
	of := Copy{Format: format, Samples: make([]byte, n), Start: noon.Add(off + time.Duration(c.offset*float64(time.Second)/Rate)), Known: Span{0, n}, Missing: lost}
	for k := range of.Samples {
		of.Samples[k] = format.Codec.FromLinear(int16(min(max(math.Round(sinc(line, c.at(float64(k)))), -32000), 32000)))
	}
	at := Span{0, n}
	for _, h := range of.had(at) {
		of.Media = append(of.Media, Media{h, 77 + uint32(c.offset), 1e6 + uint32(h.From), of.Start.Add(length(h.From) + time.Duration(float64(length(h.From))*-c.ppm/1e6))})
	}
	for _, l := range lost {
		copy(of.Samples[l.From:l.To], bytes.Repeat([]byte{format.Codec.Silence()}, int(l.Samples())))
	}
	return of
}

// fine is how many steps a sample is divided in, for sinc.
const fine = 1000

// sincs are the weights of 64 samples around a place between two, for each step
// of it: ideal interpolation, long enough to be the truth here.
var sincs = func() (weights [fine][64]float64) {
	for step := range weights {
		for k := range weights[step] {
			x := math.Pi * (float64(k-31) - float64(step)/fine)
			weights[step][k] = (1 + math.Cos(x/33)) / 2
			if x != 0 {
				weights[step][k] *= math.Sin(x) / x
			}
		}
	}
	return weights
}()

// sinc is a line's value between samples.
func sinc(line []float64, at float64) float64 {
	whole := int(math.Floor(at))
	step := int((at-float64(whole))*fine + 0.5)
	if step == fine {
		whole, step = whole+1, 0
	}
	if step == 0 && whole >= 0 && whole < len(line) {
		return line[whole]
	}
	sum, weights := 0.0, &sincs
	for k := max(0, 31-whole); k < min(64, len(line)-whole+31); k++ {
		sum += line[whole+k-31] * weights[step][k]
	}
	return sum
}

// loss is packets of 20 ms lost at random.
func loss(seed uint64, n int64, share float64) (lost []Span) {
	rng := rand.New(rand.NewPCG(seed, 2))
	for at := int64(0); at+160 <= n; at += 160 {
		if rng.Float64() >= share {
			continue
		}
		if k := len(lost) - 1; k >= 0 && lost[k].To == at {
			lost[k].To += 160
		} else {
			lost = append(lost, Span{at, at + 160})
		}
	}
	return lost
}

func TestSinc(t *testing.T) {
	wave := func(at float64) float64 { return 1000 * math.Sin(2*math.Pi*1234*at/Rate) }
	line := make([]float64, 200)
	for n := range line {
		line[n] = wave(float64(n))
	}
	for at := 90.0; at < 110; at += 0.13 {
		if d := math.Abs(sinc(line, at) - wave(at)); d > 2 {
			t.Errorf("off by %.1f at %.2f", d, at)
		}
		if d := math.Abs(between(line, at) - wave(at)); d > 5 {
			t.Errorf("between: off by %.1f at %.2f", d, at)
		}
	}
}
