package tone

import (
	"math"
	"slices"
)

// Heard is what one band holds in one tenth of audio.
type Heard struct {
	Pair Pair
	// Clarity is the pair's share of the band's energy, 0 to 1: near 1 when
	// the samples are exactly one tenth of one source, 0 in silence.
	Clarity float64
}

// goertzel has, per tone of the grid, twice the cosine of its angle a sample.
var goertzel = func() (coefficients [Bands * bandTones]float64) {
	for i := range coefficients {
		coefficients[i] = 2 * math.Cos(2*math.Pi*float64(lowest+i*grid)/Rate)
	}
	return coefficients
}()

// Hear says which pair of a band sounds loudest in samples, which should be
// Tenth long. It never allocates.
func Hear(samples []int16, band int) Heard {
	var first, second, total float64
	var firstTone, secondTone int
	for tone := band * bandTones; tone < (band+1)*bandTones; tone++ {
		energy := energyOf(samples, goertzel[tone])
		total += energy
		switch {
		case energy > first:
			second, secondTone = first, firstTone
			first, firstTone = energy, tone
		case energy > second:
			second, secondTone = energy, tone
		}
	}
	// The energy of a full tone is (amplitude·n/2)²; a hundredth of its
	// amplitude is below what G.711 leaves of silence.
	floor := amplitude / 100.0 * float64(len(samples)) / 2
	if second < floor*floor {
		return Heard{}
	}
	low, high := min(firstTone, secondTone), max(firstTone, secondTone)
	return Heard{Pair{lowest + low*grid, lowest + high*grid}, (first + second) / total}
}

// energyOf is Goertzel's algorithm: the energy of one frequency.
func energyOf(samples []int16, coefficient float64) float64 {
	var s1, s2 float64
	for _, v := range samples {
		s1, s2 = float64(v)+coefficient*s1-s2, s1
	}
	return s1*s1 + s2*s2 - coefficient*s1*s2
}

const (
	hop     = Tenth / 8 // between the starts tried for a first whole tenth
	phrase  = 6         // tenths compared: some 30 bits, and noise forgiven
	clearly = 0.8       // clarity of a tenth that is heard whole enough
)

// Locate finds on the media clock the instant of samples[0], looking no
// further than within samples from near. It wants at least two tenths of the
// source in the first six or so; ok is false when the source is not there.
// The answer is exact to the sample.
func (s Source) Locate(samples []int16, near, within int64) (at int64, ok bool) {
	offset, heard := s.align(samples)
	if len(heard) == 0 {
		return 0, false
	}
	first, _ := split(near + int64(offset) - within)
	last, _ := split(near + int64(offset) + within)
	tenth, matches := int64(0), 0
	for k := first; k <= last; k++ {
		n := 0
		for i, h := range heard {
			if h.Clarity > 0 && s.Pair(k+int64(i)) == h.Pair {
				n++
			}
		}
		if n > matches {
			tenth, matches = k, n
		}
	}
	if matches < max(2, (len(heard)+1)/2) {
		return 0, false
	}
	return s.refine(samples, offset, tenth), true
}

// align finds the offset at which whole tenths begin, to within half a hop,
// and what is heard in them.
func (s Source) align(samples []int16) (offset int, heard []Heard) {
	best := 0.0
	for start := 0; start < Tenth; start += hop {
		var these []Heard
		sum := 0.0
		for at := start; at+Tenth <= len(samples) && len(these) < phrase; at += Tenth {
			h := Hear(samples[at:at+Tenth], s.band)
			if h.Clarity < clearly {
				h = Heard{}
			}
			these, sum = append(these, h), sum+h.Clarity
		}
		if sum > best {
			best, offset, heard = sum, start, these
		}
	}
	return offset, slices.Clip(heard)
}

// refine compares a phrase from that tenth on with its own samples at every
// place around offset, and returns the media sample of samples[0].
func (s Source) refine(samples []int16, offset int, tenth int64) int64 {
	whole := (len(samples) - offset) / Tenth
	want := make([]int32, min(whole, phrase)*Tenth)
	s.Add(want, tenth*Tenth)
	best, bestScore := offset, math.Inf(-1)
	for start := offset - hop; start <= offset+hop; start++ {
		if score := correlate(want, samples, start); score > bestScore {
			best, bestScore = start, score
		}
	}
	return tenth*Tenth - int64(best)
}

// correlate lays want over samples from start on; what hangs over counts nothing.
func correlate(want []int32, samples []int16, start int) (score float64) {
	if start < 0 {
		want, start = want[min(-start, len(want)):], 0
	}
	n := max(0, min(len(want), len(samples)-start))
	var sum int64
	for i, v := range samples[start:][:n] {
		sum += int64(want[i]) * int64(v)
	}
	return float64(sum)
}
