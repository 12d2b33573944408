package merge

import (
	"cmp"
	"math"
	"math/cmplx"
	"slices"

	"gonum.org/v1/gonum/dsp/fourier"
)

// ear compares a window of one copy with a stretch of the other. It belongs to
// one goroutine.
type ear struct {
	a, b  Copy
	x, y  sound
	at    int64     // in a, where the window begins
	from  int64     // in b, where what it is compared with begins
	reach int64     // lags up to twice this are compared
	known []float64 // likeness at each lag, once asked for
	sizes map[int]*transform
}

func newEar(a, b Copy) *ear { return &ear{a: a, b: b, sizes: map[int]*transform{}} }

// sound is samples to compare, and a 1 for each that is known. Those that are
// not are zero, and so add nothing to any sum.
type sound struct{ level, known []float64 }

// margin is how many lags beyond the reach are needed to tell what is between
// two of them.
const margin = taps + 1

const (
	loud = 30.0 * 30.0 // mean square of what is worth comparing
	most = 0.75        // of a window must be known
)

// open takes up the window at a, to be compared with b reach samples around
// there. It is false when the window says nothing: too much of it is missing,
// or silent.
func (e *ear) open(at, there, reach int64) bool {
	e.at, e.from, e.reach = at, there-reach-margin, reach+margin
	e.x.load(e.a, Span{at, at + window})
	known, energy := 0.0, 0.0
	for n, v := range e.x.level {
		known, energy = known+e.x.known[n], energy+v*v
	}
	if known < most*window || energy < loud*known {
		return false
	}
	e.y.load(e.b, Span{e.from, e.from + window + 2*e.reach})
	e.known = slices.Grow(e.known[:0], int(2*e.reach+1))[:2*e.reach+1]
	for n := range e.known {
		e.known[n] = math.NaN()
	}
	return true
}

// load takes a span of a copy, as differences from sample to sample: voice has
// most of its strength where it says least about the instant.
func (s *sound) load(c Copy, at Span) {
	n := int(at.Samples())
	s.level, s.known = slices.Grow(s.level[:0], n)[:n], slices.Grow(s.known[:0], n)[:n]
	clear(s.level)
	clear(s.known)
	size := int64(c.Format.SampleSize())
	there := at.and(Span{0, int64(len(c.Samples)) / size})
	for _, h := range c.had(there) {
		linear := c.Format.Linear(c.Samples[h.From*size : h.To*size])
		for i := 1; i < len(linear); i++ {
			k := h.From + int64(i) - at.From
			s.level[k], s.known[k] = float64(linear[i])-float64(linear[i-1]), 1
		}
	}
}

// likeness is how alike the window and the other copy are at a lag from there:
// the correlation of what both know, 1 when they are the same; 0 when that is
// too little.
func (e *ear) likeness(lag int64) float64 {
	k := lag + e.reach
	if k < 0 || k >= int64(len(e.known)) {
		return 0
	}
	if math.IsNaN(e.known[k]) {
		e.known[k] = e.correlate(int(k))
	}
	return e.known[k]
}

func (e *ear) correlate(k int) float64 {
	y, of := e.y.level[k:k+window], e.y.known[k:k+window]
	var product, xx, yy, both float64
	for i, x := range e.x.level {
		known := e.x.known[i]
		product += x * y[i]
		xx += x * x * of[i]
		yy += y[i] * y[i] * known
		both += known * of[i]
	}
	if both < window/2 || xx == 0 || yy == 0 {
		return 0
	}
	return product / math.Sqrt(xx*yy)
}

const (
	enough  = 0.8  // likeness of what may be the same
	decides = 4    // by what factor the rest of the next best must be greater
	grain   = 1e-6 // of a rest: less is rounding
	choices = 12   // compared closely
	beside  = 8    // lags on both sides of the best are compared closely as well
	steps   = 32   // of a sample
)

// find is where the other copy says the same as the window. It is false when
// that is nowhere, or when there are two such places: a steady tone is the same
// after every period.
func (e *ear) find() (heard, bool) {
	var r ranking
	for _, lag := range e.peaks() {
		r.add(e.climb(lag))
	}
	// High notes have many tops beside each other, and the highest may be one
	// that lies between two lags.
	around := int64(math.Round(r.best.lag))
	for lag := around - beside; lag <= around+beside; lag++ {
		r.add(e.climb(lag))
	}
	if r.best.likeness < enough || r.next.rest() < decides*r.best.rest() {
		return heard{}, false
	}
	there := float64(e.from+e.reach) + r.best.lag
	return heard{e.at + window/2, there - float64(e.at), r.best.likeness}, true
}

// peak is a lag, between samples, at which the two are alike.
type peak struct{ lag, likeness float64 }

// rest is what of the sound the other copy does not explain.
func (p peak) rest() float64 { return 1 - p.likeness*p.likeness + grain }

// ranking is the best of some peaks, and the best of those elsewhere.
type ranking struct{ best, next peak }

func (r *ranking) add(p peak) {
	elsewhere := math.Abs(p.lag-r.best.lag) > 1
	switch {
	case p.likeness > r.best.likeness:
		if elsewhere {
			r.next = r.best
		}
		r.best = p
	case p.likeness > r.next.likeness && elsewhere:
		r.next = p
	}
}

// peaks are the lags, about, at which the two seem most alike.
func (e *ear) peaks() []int64 {
	size := 1
	for size < len(e.y.level) {
		size *= 2
	}
	if e.sizes[size] == nil {
		e.sizes[size] = newTransform(size)
	}
	product := e.sizes[size].correlate(e.x.level, e.y.level)[:2*e.reach+1]
	e.level(product)
	var tops []int64
	for k := 1; k+1 < len(product); k++ {
		if v := product[k]; v > 0 && v > product[k-1] && v >= product[k+1] {
			tops = append(tops, int64(k))
		}
	}
	slices.SortFunc(tops, func(i, j int64) int { return cmp.Compare(product[j], product[i]) })
	tops = tops[:min(len(tops), choices)]
	for n := range tops {
		tops[n] -= e.reach
	}
	return tops
}

// transform correlates sequences up to its size.
type transform struct {
	fft    *fourier.FFT
	padded []float64
	x, y   []complex128
}

func newTransform(size int) *transform {
	return &transform{fourier.NewFFT(size), make([]float64, size), make([]complex128, size/2+1), make([]complex128, size/2+1)}
}

// correlate is the products' sums of x and y, which is later by the index. It
// holds until the next call.
func (t *transform) correlate(x, y []float64) []float64 {
	for _, s := range []struct {
		level []float64
		into  []complex128
	}{{x, t.x}, {y, t.y}} {
		clear(t.padded[copy(t.padded, s.level):])
		t.fft.Coefficients(s.into, t.padded)
	}
	for n, v := range t.x {
		t.y[n] *= cmplx.Conj(v)
	}
	return t.fft.Sequence(t.padded, t.y)
}

// level makes products comparable: each over the strength of what it was made of.
func (e *ear) level(product []float64) {
	energy := 0.0
	for _, v := range e.y.level[:window] {
		energy += v * v
	}
	for k := range product {
		product[k] /= math.Sqrt(energy + 1)
		if k+window < len(e.y.level) {
			gone, come := e.y.level[k], e.y.level[k+window]
			energy = max(0, energy-gone*gone+come*come)
		}
	}
}

// climb finds the top of a peak between samples: what is sampled often enough
// is known everywhere. Nothing is alike where the slope only goes on.
func (e *ear) climb(lag int64) peak {
	around := make([]float64, 0, 4*margin)
	for k := lag - margin; k <= lag+margin; k++ {
		around = append(around, e.likeness(k))
	}
	var top peak
	for n := -steps; n <= steps; n++ {
		off := float64(n) / steps
		if v := between(around, margin+off); v > top.likeness {
			top = peak{float64(lag) + off, v}
		}
	}
	if math.Abs(top.lag-float64(lag)) == 1 {
		return peak{}
	}
	return top
}
