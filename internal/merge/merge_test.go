package merge

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tandem/internal/media"
)

// holed is a copy of sent from a sample on, without what is missing; all of one
// sender.
func holed(sent []byte, from int64, ahead time.Duration, missing []Span) Copy {
	c := Copy{Format: pcmu, Samples: bytes.Clone(sent[from:]), Start: noon.Add(ahead), Known: Span{0, int64(len(sent)) - from}, Missing: missing}
	for _, h := range c.had(c.Known) {
		c.Media = append(c.Media, Media{h, 7, uint32(1<<32 - 500 + from + h.From), c.Start.Add(length(h.From))})
	}
	for _, l := range missing {
		copy(c.Samples[l.From:l.To], silence(pcmu, l.Samples()))
	}
	return c
}

// spans are places in [0, n), in order and apart.
func spans(t *rapid.T, n int64, label string) (all []Span) {
	cuts := rapid.SliceOfNDistinct(rapid.Int64Range(0, n), 0, 12, rapid.ID).Draw(t, label)
	slices.Sort(cuts)
	for k := 0; k+1 < len(cuts); k += 2 {
		all = append(all, Span{cuts[k], cuts[k+1]})
	}
	return all
}

// Of one sender's media, cut by any gaps in both copies, the merged copy is the
// media but where both miss it: to the sample, whichever is merged into which.
func TestIdentical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(50, 20_000).Draw(t, "samples")
		sent := make([]byte, n)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		for k := range sent {
			sent[k] = byte(rng.Uint32())
		}
		later := rapid.Int64Range(0, n/3).Draw(t, "b begins")
		a := holed(sent, 0, 0, spans(t, n, "a misses"))
		b := holed(sent, later, time.Duration(rapid.IntRange(-2000, 2000).Draw(t, "clock"))*time.Millisecond, spans(t, n-later, "b misses"))
		check := func(a, b Copy, by int64) { // a's position p is b's p + by
			r := Merge(a, b)
			if len(a.Media) == 0 || len(b.Media) == 0 {
				return // there is nothing to align
			}
			lost := func(c Copy, at int64) bool {
				return at < 0 || at >= int64(len(c.Samples)) || slices.ContainsFunc(c.Missing, func(s Span) bool { return s.From <= at && at < s.To })
			}
			for at, got := range r.Samples {
				at := int64(at)
				want := byte(media.MuLawSilence)
				if first := n - int64(len(a.Samples)); !lost(a, at) || !lost(b, at+by) {
					want = sent[first+at]
				}
				if got != want {
					t.Fatalf("sample %d is %d, want %d (%+v)", at, got, want, r.Filled)
				}
			}
			account(t, a, r)
		}
		check(a, b, -later)
		check(b, a, later)
	})
}

// account checks that a result tells of all that was missing, once, and changed
// nothing else.
func account(t interface{ Fatalf(string, ...any) }, a Copy, r Result) {
	told := slices.Concat(r.Filled, r.Open)
	slices.SortFunc(told, func(x, y Patch) int { return int(x.From - y.From) })
	var all []Span
	for k, p := range told {
		if p.Samples() <= 0 || k > 0 && p.From < told[k-1].To {
			t.Fatalf("%+v after %+v", p, told[max(0, k-1)])
		}
		if k := len(all) - 1; k >= 0 && all[k].To == p.From {
			all[k].To = p.To
		} else {
			all = append(all, p.Span)
		}
	}
	var missing []Span
	for _, s := range a.Missing {
		if k := len(missing) - 1; k >= 0 && missing[k].To == s.From {
			missing[k].To = s.To
		} else {
			missing = append(missing, s)
		}
	}
	inside := slices.DeleteFunc(slices.Clone(all), func(s Span) bool { return s.From >= a.Known.To || s.To <= a.Known.From })
	if a.Known == (Span{0, int64(len(a.Samples) / a.Format.SampleSize())}) && !a.Open && !slices.Equal(inside, missing) {
		t.Fatalf("told of %v, missing were %v", inside, missing)
	}
	if r.Format != a.Format {
		return
	}
	size := int64(a.Format.SampleSize())
	for at := range int64(len(a.Samples)) / size {
		if slices.ContainsFunc(r.Filled, func(p Patch) bool { return p.From <= at && at < p.To }) {
			continue
		}
		if !bytes.Equal(a.Samples[at*size:(at+1)*size], r.Samples[at*size:(at+1)*size]) {
			t.Fatalf("sample %d was changed", at)
		}
	}
}

// What b has before and after all that a's recorders know of is added, as far as
// it was asked for.
func TestEnds(t *testing.T) {
	sent := bytes.Repeat([]byte{1, 2, 3, 4, 5}, 8000)
	n := int64(len(sent))
	of := func(known Span, open bool) Copy {
		c := holed(sent, 0, 0, []Span{{0, known.From}, {known.To, n}})
		c.Known, c.Missing, c.Open = known, nil, open
		return c
	}
	for name, c := range map[string]struct {
		a      Copy
		filled []Span
		size   int64
	}{
		"both ends":               {of(Span{8000, 16000}, false), []Span{{0, 8000}, {16000, n}}, n},
		"slivers":                 {of(Span{79, n - 79}, false), nil, n},
		"a call that lasts":       {cut(of(Span{0, 16000}, true), 16000), []Span{{16000, n}}, n},
		"it was read a bit later": {cut(of(Span{0, n - 15000}, true), n-15000), nil, n - 15000},
		"it has an end":           {cut(of(Span{0, 16000}, false), 16000), nil, 16000},
	} {
		r := Merge(c.a, holed(sent, 0, 0, nil))
		var filled []Span
		for _, p := range r.Filled {
			filled = append(filled, p.Span)
		}
		if !slices.Equal(filled, c.filled) || int64(len(r.Samples)) != c.size || len(r.Open) > 0 {
			t.Errorf("%s: filled %v, %d samples, open %v", name, filled, len(r.Samples), r.Open)
		}
		for _, f := range filled {
			if !bytes.Equal(r.Samples[f.From:f.To], sent[f.From:f.To]) {
				t.Errorf("%s: %v differs", name, f)
			}
		}
	}
}

func cut(c Copy, at int64) Copy {
	c.Samples = c.Samples[:at]
	return c
}

// Silence in b, where its recorders would know of a loss, closes a gap; where
// they know nothing it stays open.
func TestSilenceFills(t *testing.T) {
	sent := bytes.Repeat([]byte{9}, 8000)
	a := holed(sent, 0, 0, []Span{{2000, 4000}, {7000, 8000}})
	b := holed(sent, 0, 0, nil)
	b.Media = []Media{{Span{0, 2500}, 7, b.Media[0].TS, noon}, {Span{3500, 7000}, 7, b.Media[0].TS + 3500, noon}}
	copy(b.Samples[2500:], silence(pcmu, 1000))
	b.Known = Span{0, 7500}
	r := Merge(a, b)
	if len(r.Filled) != 2 || r.Filled[0].Span != (Span{2000, 4000}) || r.Filled[1].Span != (Span{7000, 7500}) || len(r.Open) != 1 || r.Open[0].Span != (Span{7500, 8000}) {
		t.Errorf("%+v %+v", r.Filled, r.Open)
	}
}

// FuzzMerge gives Merge copies whose media, gaps, timestamps and clocks are
// anything: whatever it makes of them, it accounts for all of it.
func FuzzMerge(f *testing.F) {
	f.Add([]byte{1, 10, 2, 0, 3, 30, 9, 0}, []byte{40, 2, 0, 0, 0, 4}, uint8(0))
	f.Add([]byte{}, []byte{1}, uint8(7))
	f.Fuzz(func(t *testing.T, x, y []byte, bits uint8) {
		a, b := parsed(x, bits), parsed(y, bits>>3)
		account(t, a, Merge(a, b))
	})
}

// parsed makes a copy of bytes: lengths of media, gaps and silences in turn, each
// with what its sender and its clock are.
func parsed(in []byte, bits uint8) Copy {
	c := Copy{Format: []media.WAVFormat{pcmu, pcma, {SampleRate: Rate}}[bits%3], Start: noon, Open: bits&4 > 0}
	size := c.Format.SampleSize()
	rng := rand.New(rand.NewPCG(uint64(bits), 0))
	at := int64(0)
	for ; len(in) >= 2; in = in[2:] {
		n := int64(in[0]) * 40
		s := Span{at, at + n}
		at += n
		switch {
		case n == 0:
		case in[1]%3 == 0:
			c.Missing = append(c.Missing, s)
		case in[1]%3 == 1:
			wall := noon.Add(length(s.From) + time.Duration(int8(in[1]))*time.Second)
			c.Media = append(c.Media, Media{s, uint32(in[1]) / 64, uint32(s.From) + uint32(in[1]/16)<<28, wall})
		}
	}
	c.Known = Span{0, at}
	for range at * int64(size) {
		c.Samples = append(c.Samples, byte(rng.Uint32()))
	}
	return c
}

// BenchmarkMerge is an hour of a call whose two copies lost 5 % each: of one
// sender, and by ear with clocks that run apart.
func BenchmarkMerge(b *testing.B) {
	const n = 3600 * Rate
	minute := speech(12, 60*Rate)
	line := make([]float64, 0, n)
	for len(line) < n {
		line = append(line, minute[rand.IntN(30*Rate):]...)
	}
	line = line[:n]
	for _, c := range []struct {
		name string
		b    clock
	}{{"rtp", clock{}}, {"audio", clock{200.4, 80}}} {
		one := recorded(line, pcmu, clock{}, 0, loss(13, n-400, 0.05)...)
		other := recorded(line, pcmu, c.b, time.Second, loss(14, n-20_000, 0.05)...)
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			began := processor(b)
			for b.Loop() {
				if r := Merge(one, other); len(r.Filled) < 1000 {
					b.Fatal(len(r.Filled))
				}
			}
			b.ReportMetric(float64((processor(b)-began).Milliseconds())/float64(b.N), "cpu-ms/op")
		})
	}
}

// processor is the time that this process has spent, whatever else the machine
// does.
func processor(b *testing.B) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
