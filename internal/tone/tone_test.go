package tone

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"tandem/internal/media"
)

func source(t testing.TB, device, name string) Source {
	t.Helper()
	s, err := NewSource(device, name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func everySource(t testing.TB, device string) []Source {
	t.Helper()
	all := []Source{source(t, device, "HS.L"), source(t, device, "HS.R")}
	for i := 1; i <= speakers; i++ {
		all = append(all, source(t, device, fmt.Sprintf("SPK.%d", i)))
	}
	return all
}

// mix is what a turret's channel would send: linear sum, then G.711, then linear again.
func mix(sources []Source, codec media.Codec, at int64, n int) []int16 {
	sum, coded, samples := make([]int32, n), make([]byte, n), make([]int16, n)
	for _, s := range sources {
		s.Add(sum, at)
	}
	Compress(coded, codec, sum)
	for i, b := range coded {
		samples[i] = codec.ToLinear(b)
	}
	return samples
}

func TestSourceNames(t *testing.T) {
	for _, name := range []string{"", "HS", "HS.X", "SPK.0", "SPK.17", "SPK.", "SPK.x", "MIC"} {
		if _, err := NewSource("t1", name); !errors.Is(err, ErrSource) {
			t.Errorf("%q: got %v, want ErrSource", name, err)
		}
	}
}

func TestBandsDoNotOverlap(t *testing.T) {
	seen := map[int]int{}
	for _, s := range everySource(t, "t1") {
		for tenth := range int64(2000) {
			p := s.Pair(tenth)
			if p.Low < 300 || p.High > 3400 || p.Low >= p.High || p.Low%10 != 0 || p.High%10 != 0 {
				t.Fatalf("band %d: %v", s.Band(), p)
			}
			if p == s.Pair(tenth+1) {
				t.Fatalf("band %d: tenths %d and the next are both %v", s.Band(), tenth, p)
			}
			for _, hz := range []int{p.Low, p.High} {
				if band, ok := seen[hz]; ok && band != s.Band() {
					t.Fatalf("%d Hz is in bands %d and %d", hz, band, s.Band())
				}
				seen[hz] = s.Band()
			}
		}
	}
}

// A tenth's five packets of 20 ms differ from one another: a judge can tell them apart.
func TestPacketsOfATenthDiffer(t *testing.T) {
	s := source(t, "t1", "HS.L")
	for tenth := range int64(500) {
		seen := map[string]bool{}
		for p := range int64(5) {
			packet := make([]byte, 160)
			s.Code(packet, media.PCMU, tenth*Tenth+p*160)
			if seen[string(packet)] {
				t.Fatalf("tenth %d (%v) repeats a packet", tenth, s.Pair(tenth))
			}
			seen[string(packet)] = true
		}
	}
}

func TestNoClippingWithEverySource(t *testing.T) {
	sources := everySource(t, "t1")
	sum := make([]int32, 60*Rate)
	for _, s := range sources {
		s.Add(sum, 0)
	}
	for i, v := range sum {
		if v > 32124 || v < -32124 {
			t.Fatalf("sample %d is %d", i, v)
		}
	}
}

// Every source is heard right out of a mix of all of them, through both laws.
func TestHearOutOfAFullMix(t *testing.T) {
	for _, codec := range []media.Codec{media.PCMU, media.PCMA} {
		for _, sources := range [][]Source{everySource(t, "t7"), everySource(t, "t7")[:1], everySource(t, "t7")[2:6]} {
			for tenth := range int64(50) {
				samples := mix(sources, codec, tenth*Tenth, Tenth)
				for _, s := range sources {
					if h := Hear(samples, s.Band()); h.Pair != s.Pair(tenth) || h.Clarity < 0.98 {
						t.Fatalf("%s, band %d of %d sources, tenth %d: heard %+v, want %v", codec, s.Band(), len(sources), tenth, h, s.Pair(tenth))
					}
				}
			}
		}
	}
}

func TestHearSilence(t *testing.T) {
	for _, codec := range []media.Codec{media.PCMU, media.PCMA} {
		samples := mix(nil, codec, 0, Tenth)
		for band := range Bands {
			if h := Hear(samples, band); h != (Heard{}) {
				t.Fatalf("%s band %d: heard %+v in silence", codec, band, h)
			}
		}
	}
}

func TestCodeEqualsCompressedSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, _ := NewSource(rapid.StringN(1, 8, 16).Draw(t, "device"), "SPK.3")
		at := rapid.Int64Range(-5*Tenth, 1<<40).Draw(t, "at")
		n := rapid.IntRange(0, 3*Tenth).Draw(t, "n")
		for _, codec := range []media.Codec{media.PCMU, media.PCMA} {
			sum, want, got := make([]int32, n), make([]byte, n), make([]byte, n)
			s.Add(sum, at)
			Compress(want, codec, sum)
			s.Code(got, codec, at)
			if string(got) != string(want) {
				t.Fatalf("%s at %d: table and sum differ", codec, at)
			}
		}
	})
}

// The fast mix is the slow one, byte for byte, from every offset.
func TestMixEqualsCompressedSum(t *testing.T) {
	all := everySource(t, "t1")
	rapid.Check(t, func(t *rapid.T) {
		sources := all[:rapid.IntRange(0, len(all)).Draw(t, "sources")]
		at, n := rapid.Int64Range(-5*Tenth, 1<<40).Draw(t, "at"), rapid.IntRange(0, 3*Tenth).Draw(t, "n")
		if rapid.Bool().Draw(t, "aligned") {
			at, n = at/4*4, n/4*4
		}
		for _, codec := range []media.Codec{media.PCMU, media.PCMA} {
			sum, want, got := make([]int32, n), make([]byte, n), make([]byte, n)
			for _, s := range sources {
				s.Add(sum, at)
			}
			Compress(want, codec, sum)
			Mix(got, codec, sources, at)
			if string(got) != string(want) {
				t.Fatalf("%s, %d sources at %d: the two mixes differ", codec, len(sources), at)
			}
		}
	})
}

// Locate is exact from any offset, through a mix, with the clock wrong by seconds.
func TestLocate(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	sources := everySource(t, "t3")
	for range 40 {
		at := rng.Int64N(1 << 35)
		s := sources[rng.IntN(len(sources))]
		samples := mix(sources, media.PCMA, at, 3*Tenth+rng.IntN(Rate))
		near := at + rng.Int64N(60*Rate) - 30*Rate
		got, ok := s.Locate(samples, near, 31*Rate)
		if !ok || got != at {
			t.Fatalf("band %d: located %d %v, want %d", s.Band(), got, ok, at)
		}
	}
}

func TestLocateRefusesAnotherTurret(t *testing.T) {
	samples := mix(everySource(t, "t3"), media.PCMU, 12345, 2*Rate)
	for i := range 20 {
		if at, ok := source(t, fmt.Sprintf("t%d", 100+i), "HS.L").Locate(samples, 12345, 10*Rate); ok {
			t.Errorf("turret %d located at %d in another's audio", 100+i, at)
		}
	}
	if _, ok := source(t, "t3", "HS.L").Locate(nil, 0, Rate); ok {
		t.Error("located in nothing")
	}
}

func TestPerPacketPathDoesNotAllocate(t *testing.T) {
	sources := everySource(t, "t1")
	var sum [160]int32
	var packet [160]byte
	at := int64(0)
	if n := testing.AllocsPerRun(200, func() {
		sources[0].Code(packet[:], media.PCMU, at)
		clear(sum[:])
		for _, s := range sources {
			s.Add(sum[:], at)
		}
		Compress(packet[:], media.PCMU, sum[:])
		Mix(packet[:], media.PCMU, sources, at)
		at += 160
	}); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

func BenchmarkCode(b *testing.B) {
	s := source(b, "t1", "HS.L")
	var packet [160]byte
	at := int64(0)
	b.ReportAllocs()
	for b.Loop() {
		s.Code(packet[:], media.PCMU, at)
		at += 160
	}
}

func BenchmarkMixOfFour(b *testing.B) {
	sources := everySource(b, "t1")[:4]
	var packet [160]byte
	at := int64(0)
	b.ReportAllocs()
	for b.Loop() {
		Mix(packet[:], media.PCMU, sources, at)
		at += 160
	}
}
