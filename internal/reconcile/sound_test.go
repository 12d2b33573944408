package reconcile

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"tandem/internal/media"
)

// speech is noise that sounds like somebody's syllables: three resonances that
// wander, and pauses.
func speech(seed uint64, seconds int) []int16 {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([]int16, seconds*rate)
	for at := 0; at < len(out); {
		n := min(rate/10+r.IntN(rate/5), len(out)-at)
		loud, pitch := 1500+r.Float64()*5000, 200+r.Float64()*1800
		if r.IntN(4) == 0 {
			loud = 0
		}
		for i := range n {
			t := float64(i) / rate
			v := math.Sin(2*math.Pi*pitch*t) + 0.6*math.Sin(2*math.Pi*pitch*1.7*t) + 0.2*r.NormFloat64()
			out[at+i] = int16(loud * v * math.Sin(math.Pi*float64(i)/float64(n)))
		}
		at += n
	}
	return out
}

func companded(samples []int16, law media.Codec) []int16 {
	out := make([]int16, len(samples))
	for n, v := range samples {
		if law == media.PCMA {
			out[n] = media.ALawToLinear(media.LinearToALaw(v))
		} else {
			out[n] = media.MuLawToLinear(media.LinearToMuLaw(v))
		}
	}
	return out
}

// drifted plays samples faster, by so many parts in a million.
func drifted(samples []int16, ppm float64) []int16 {
	out := make([]int16, int(float64(len(samples))/(1+ppm/1e6))-1)
	for n := range out {
		at := float64(n) * (1 + ppm/1e6)
		i := int(at)
		out[n] = int16(float64(samples[i])*(1-at+float64(i)) + float64(samples[i+1])*(at-float64(i)))
	}
	return out
}

func TestUnlike(t *testing.T) {
	said := speech(1, 30)
	sine := func(hz float64) []int16 {
		out := make([]int16, 20*rate)
		for n := range out {
			out[n] = int16(4000 * math.Sin(2*math.Pi*hz*float64(n)/rate))
		}
		return out
	}
	swapped := append(append([]int16{}, said[:15*rate]...), speech(2, 15)...)
	silence := make([]int16, 30*rate)
	for _, c := range []struct {
		name   string
		a, b   []int16
		offset time.Duration // of the second one's clock
		gaps   []Span
		want   []Span
	}{
		{name: "the same", a: said, b: said},
		{name: "A-law and mu-law", a: companded(said, media.PCMA), b: companded(said, media.PCMU)},
		{name: "clocks apart", a: said, b: said, offset: 1700 * time.Millisecond},
		{name: "clocks drift", a: said, b: drifted(said, 200)},
		{name: "something else", a: said, b: speech(2, 30), want: []Span{between(0, 30)}},
		{name: "something else from the middle on", a: said, b: swapped, want: []Span{between(15, 30)}},
		{name: "one silent", a: said, b: silence, want: []Span{between(0, 30)}},
		{name: "both silent", a: silence, b: silence},
		{name: "one silent where it is missing", a: said, b: silence, gaps: []Span{between(0, 30)}},
		{name: "a steady tone", a: sine(1000), b: sine(1000)},
		{name: "two steady tones", a: sine(420), b: sine(1980), want: []Span{between(0, 20)}},
		{name: "too short to say", a: said[:rate/2], b: silence},
	} {
		got := Unlike(Sound{Start: noon, Samples: c.a}, Sound{Start: noon.Add(c.offset), Samples: c.b, Gaps: c.gaps}, 2*time.Second)
		if len(got) != len(c.want) || len(got) > 0 && got[0] != c.want[0] {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
