package reconcile

import (
	"math"
	"time"
)

// Sound is what was heard of a channel: linear samples, 8,000 a second.
type Sound struct {
	Start   time.Time
	Samples []int16
	Gaps    []Span // where silence is no silence
}

const (
	rate   = 8000
	frame  = rate / 50         // samples of which one spectrum is made
	block  = 15 * rate / frame // frames that are compared at one offset: clocks drift
	least  = 50                // frames with sound that make a block comparable
	quiet  = 50.0              // amplitude of a band that counts as silence; companding noise lies below
	alike  = 0.5               // of the correlation; other speech has less than 0.3, other copies of one have 0.9
	steady = 1.0               // dB of variation that a correlation has nothing to go by
	apart  = 9.0               // dB between the means of two steady sounds that are not one
	tick   = time.Second / (rate / frame)
)

// tones are the frequencies a spectrum is made of, in Hz.
var tones = [...]float64{150, 230, 320, 420, 540, 680, 840, 1020, 1220, 1450, 1700, 1980, 2280, 2620, 3000, 3400}

// spectrum is how loud each of the tones is, in dB above silence.
type spectrum [len(tones)]float64

func (s spectrum) silent() bool { return s == spectrum{} }

// Unlike are the times in which two copies of a channel do not sound the same,
// by the first one's clock. What only one of them has, and what is silent in
// both, is no difference. Clocks may be apart by up to slack: any offset at which
// they agree will do, for each quarter of a minute anew.
func Unlike(a, b Sound, slack time.Duration) []Span {
	fa, fb := spectra(a), spectra(b)
	shift := int(a.Start.Sub(b.Start) / tick)
	lag, most := 0, int(slack/tick)
	var found []Span
	for from := 0; from < len(fa); from += block {
		to := min(from+block, len(fa))
		if v, ok := likeness(fa, fb, from, to, shift+lag); ok && v >= alike {
			continue // as the block before
		}
		best, comparable := -1.0, false
		for l := -most; l <= most && best < alike; l++ {
			if v, ok := likeness(fa, fb, from, to, shift+l); ok && v > best {
				best, lag, comparable = v, l, true
			}
		}
		if comparable && best < alike {
			found = append(found, Span{a.Start.Add(time.Duration(from) * tick), a.Start.Add(time.Duration(to) * tick)})
		}
	}
	return union(found...)
}

// likeness is the correlation of the frames [from, to) of a with those of b at
// an offset; not ok when too little was said in either.
func likeness(a, b []*spectrum, from, to, offset int) (float64, bool) {
	var meanA, meanB spectrum
	var pairs [][2]*spectrum
	for n := from; n < to; n++ {
		m := n + offset
		if m < 0 || m >= len(b) || a[n] == nil || b[m] == nil || a[n].silent() && b[m].silent() {
			continue
		}
		pairs = append(pairs, [2]*spectrum{a[n], b[m]})
		for t := range tones {
			meanA[t], meanB[t] = meanA[t]+a[n][t], meanB[t]+b[m][t]
		}
	}
	if len(pairs) < least {
		return 0, false
	}
	var ab, aa, bb, distance float64
	for t := range tones {
		meanA[t], meanB[t] = meanA[t]/float64(len(pairs)), meanB[t]/float64(len(pairs))
		distance = max(distance, math.Abs(meanA[t]-meanB[t]))
	}
	for _, p := range pairs {
		for t := range tones {
			x, y := p[0][t]-meanA[t], p[1][t]-meanB[t]
			ab, aa, bb = ab+x*y, aa+x*x, bb+y*y
		}
	}
	values := float64(len(pairs) * len(tones))
	if aa < steady*values && bb < steady*values {
		if distance < apart {
			return 1, true
		}
		return 0, true
	}
	return ab / math.Sqrt(max(aa, 1)*max(bb, 1)), true
}

// spectra are those of a sound's frames; nil where something is missing.
func spectra(s Sound) []*spectrum {
	all := make([]*spectrum, len(s.Samples)/frame)
	missing := union(s.Gaps...)
	for n := range all {
		at := s.Start.Add(time.Duration(n) * tick)
		for len(missing) > 0 && !missing[0].To.After(at) {
			missing = missing[1:]
		}
		if len(missing) > 0 && missing[0].overlaps(Span{at, at.Add(tick)}) {
			continue
		}
		all[n] = spectrumOf(s.Samples[n*frame : (n+1)*frame])
	}
	return all
}

// spectrumOf measures each tone with the Goertzel algorithm.
func spectrumOf(samples []int16) *spectrum {
	var s spectrum
	for t, hz := range tones {
		k := 2 * math.Cos(2*math.Pi*hz/rate)
		var s1, s2 float64
		for _, v := range samples {
			s1, s2 = float64(v)+k*s1-s2, s1
		}
		amplitude := 2 * math.Sqrt(max(0, s1*s1+s2*s2-k*s1*s2)) / frame
		if amplitude > quiet {
			s[t] = 20 * math.Log10(amplitude/quiet)
		}
	}
	return &s
}
