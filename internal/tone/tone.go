// Package tone is voice that describes itself. Every audio source of a turret
// has a sub-band of its own between 300 and 3400 Hz, and in each tenth of a
// second it sends one pair of tones out of that band. Which pair follows from
// the source and the number of the tenth, so that a recording says by itself
// whose voice it holds, from which instant, and what of it is missing.
//
// Tones lie on a grid of 10 Hz and every tenth begins at phase zero. Over
// exactly one tenth all tones of all bands are therefore orthogonal, and a mix
// of every source of a turret can be taken apart again.
package tone

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"strconv"
	"strings"
	"sync"

	"tandem/internal/media"
)

const (
	// Rate is the number of samples a second.
	Rate = 8000
	// Tenth is the number of samples for which a pair sounds.
	Tenth = Rate / 10
	// Bands is the number of sources a turret may have: HS.L, HS.R, SPK.1 to SPK.16.
	Bands = 18

	grid      = 10  // Hz between neighbouring tones
	lowest    = 300 // Hz
	bandTones = 17  // tones in a band; 18 bands end at 3350 Hz
	speakers  = 16

	// amplitude of one tone: 18 sources of two tones each stay below the
	// largest value of both G.711 laws (32124 and 32256).
	amplitude = 888

	// lift makes any sample of one source positive; 18 of them lifted and at
	// their loudest are 63,936, within 16 bits.
	lift = 2 * amplitude
)

// Pair is the two tones of one tenth, in Hz, the lower first.
type Pair struct{ Low, High int }

func (p Pair) String() string { return fmt.Sprintf("%d+%d Hz", p.Low, p.High) }

// Source is one audio source of one turret. The zero value is HS.L of no turret.
type Source struct {
	band int
	key  uint64
}

// ErrSource is a source name that has no band.
var ErrSource = errors.New("want HS.L, HS.R or SPK.1 to SPK.16")

// NewSource gives the source of that name on that turret.
func NewSource(device, name string) (Source, error) {
	band, err := bandOf(name)
	if err != nil {
		return Source{}, err
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%s", device, name)
	return Source{band: band, key: scramble(h.Sum64())}, nil
}

func bandOf(name string) (int, error) {
	switch name {
	case "HS.L":
		return 0, nil
	case "HS.R":
		return 1, nil
	}
	number, ok := strings.CutPrefix(name, "SPK.")
	n, err := strconv.Atoi(number)
	if !ok || err != nil || n < 1 || n > speakers {
		return 0, fmt.Errorf("source %q: %w", name, ErrSource)
	}
	return n + 1, nil
}

// Band says in which sub-band the source speaks, 0 to Bands-1.
func (s Source) Band() int { return s.band }

// Pair is what the source sends in the tenth of that number, counted from the
// media clock's sample 0; tenths before it have negative numbers.
func (s Source) Pair(tenth int64) Pair { return tables().pairs[s.voice(tenth)].pair }

// voice is the index of the tenth's pair. Even and odd tenths choose from
// different halves of the band's pairs: neighbours always differ.
func (s Source) voice(tenth int64) int {
	half := tables().halves[s.band][tenth&1]
	return half.first + int(scramble(s.key^scramble(uint64(tenth)))%uint64(half.count))*2
}

// Code writes the source alone in G.711, beginning with sample at of the
// media clock. It only copies out of tables and never allocates.
func (s Source) Code(dst []byte, codec media.Codec, at int64) {
	t := tables()
	for len(dst) > 0 {
		tenth, offset := split(at)
		coded := &t.pairs[s.voice(tenth)].mu
		if codec == media.PCMA {
			coded = &t.pairs[s.voice(tenth)].a
		}
		n := copy(dst, coded[offset:])
		dst, at = dst[n:], at+int64(n)
	}
}

// Add adds the source's linear samples to sum, beginning with sample at of
// the media clock. It never allocates.
func (s Source) Add(sum []int32, at int64) {
	t := tables()
	for len(sum) > 0 {
		tenth, offset := split(at)
		linear := t.pairs[s.voice(tenth)].linear[offset:]
		linear = linear[:min(len(sum), len(linear))]
		now := sum[:len(linear)]
		for i, v := range linear {
			now[i] += int32(v)
		}
		sum, at = sum[len(linear):], at+int64(len(linear))
	}
}

// Mix writes the sum of some sources in G.711, beginning with sample at of the
// media clock: what Add for each and Compress would, several times as fast when at is
// a multiple of four, as it is for packets. At most Bands sources; it never allocates.
func Mix(dst []byte, codec media.Codec, sources []Source, at int64) {
	t := tables()
	for len(dst) > 0 {
		tenth, offset := split(at)
		n := min(len(dst), Tenth-int(offset), mixAtOnce)
		if len(sources) == 1 {
			sources[0].Code(dst[:n], codec, at)
		} else {
			t.mix(dst[:n], codec, sources, tenth, int(offset))
		}
		dst, at = dst[n:], at+int64(n)
	}
}

// mixAtOnce is one packet of 20 ms.
const mixAtOnce = 160

// mix is Mix within one tenth, for at most mixAtOnce samples. It adds four samples at once, as lanes of 16
// bits: every lane is lifted by amplitude so far that it never falls below
// zero, and all of them together stay below 2^16.
func (t *soundTables) mix(dst []byte, codec media.Codec, sources []Source, tenth int64, offset int) {
	var lanes [mixAtOnce/4 + 1]uint64
	first, last := offset/4, (offset+len(dst)+3)/4
	sum := lanes[:last-first]
	for _, s := range sources {
		packed := t.pairs[s.voice(tenth)].packed[first:last]
		for i, v := range packed {
			sum[i] += v
		}
	}
	law := media.LinearToMuLaw
	if codec == media.PCMA {
		law = media.LinearToALaw
	}
	lifted := uint16(len(sources) * lift)
	if offset%4 == 0 && len(dst)%4 == 0 {
		compressLanes(dst, codec, sum, lifted)
		return
	}
	for i := range dst {
		k := offset%4 + i
		dst[i] = law(int16(uint16(sum[k/4]>>(k%4*16)) - lifted))
	}
}

// compressLanes writes four bytes for each word of four lanes.
func compressLanes(dst []byte, codec media.Codec, sum []uint64, lifted uint16) {
	dst = dst[:4*len(sum)]
	if codec == media.PCMA {
		for i, v := range sum {
			d := dst[4*i : 4*i+4 : 4*i+4]
			d[0] = media.LinearToALaw(int16(uint16(v) - lifted))
			d[1] = media.LinearToALaw(int16(uint16(v>>16) - lifted))
			d[2] = media.LinearToALaw(int16(uint16(v>>32) - lifted))
			d[3] = media.LinearToALaw(int16(uint16(v>>48) - lifted))
		}
		return
	}
	for i, v := range sum {
		d := dst[4*i : 4*i+4 : 4*i+4]
		d[0] = media.LinearToMuLaw(int16(uint16(v) - lifted))
		d[1] = media.LinearToMuLaw(int16(uint16(v>>16) - lifted))
		d[2] = media.LinearToMuLaw(int16(uint16(v>>32) - lifted))
		d[3] = media.LinearToMuLaw(int16(uint16(v>>48) - lifted))
	}
}

// Compress writes a sum of linear samples in G.711; what is too loud clips.
// dst and sum have the same length.
func Compress(dst []byte, codec media.Codec, sum []int32) {
	dst = dst[:len(sum)]
	if codec == media.PCMA {
		for i, v := range sum {
			dst[i] = media.LinearToALaw(clip(v))
		}
		return
	}
	for i, v := range sum {
		dst[i] = media.LinearToMuLaw(clip(v))
	}
}

func clip(v int32) int16 { return int16(max(-32768, min(32767, v))) }

// split gives the tenth of a sample and the sample's place in it.
func split(at int64) (tenth, offset int64) {
	tenth = at / Tenth
	if offset = at % Tenth; offset < 0 {
		return tenth - 1, offset + Tenth
	}
	return tenth, offset
}

// scramble is the finaliser of SplitMix64: one-to-one, and every input bit
// reaches every output bit.
func scramble(x uint64) uint64 {
	x += 0x9E3779B97F4A7C15
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}

// sounds are the ready samples of one pair's tenth.
type sounds struct {
	pair   Pair
	linear [Tenth]int16
	packed [Tenth / 4]uint64 // linear, lifted, four to a word, the first lowest
	mu, a  [Tenth]byte
}

// half is every second pair of a band, from first on.
type half struct{ first, count int }

type soundTables struct {
	pairs  []sounds
	halves [Bands][2]half
}

// tables are made on first use: about 7 MB that most processes never need.
var tables = sync.OnceValue(func() *soundTables {
	var t soundTables
	for band := range Bands {
		first := len(t.pairs)
		for low := band * bandTones; low < (band+1)*bandTones; low++ {
			for high := low + 1; high < (band+1)*bandTones; high++ {
				if p := (Pair{lowest + low*grid, lowest + high*grid}); distinct(p) {
					t.pairs = append(t.pairs, soundsOf(p))
				}
			}
		}
		count := len(t.pairs) - first
		t.halves[band] = [2]half{{first, (count + 1) / 2}, {first + 1, count / 2}}
	}
	return &t
})

// distinct says whether the pair repeats only after a whole tenth. Otherwise
// two packets of one tenth would be the same bytes and could be mistaken for
// each other.
func distinct(p Pair) bool {
	a, b := p.Low/grid, p.High/grid
	for b != 0 {
		a, b = b, a%b
	}
	return a == 1
}

func soundsOf(p Pair) sounds {
	s := sounds{pair: p}
	for i := range s.linear {
		v := int16(math.Round(amplitude * (sine(p.Low, i) + sine(p.High, i))))
		s.linear[i], s.mu[i], s.a[i] = v, media.LinearToMuLaw(v), media.LinearToALaw(v)
		s.packed[i/4] |= uint64(v+lift) << (i % 4 * 16)
	}
	return s
}

func sine(hz, sample int) float64 {
	return math.Sin(2 * math.Pi * float64(hz*sample%Rate) / Rate)
}
