package merge

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"tandem/internal/media"
)

// off is how far a merge put anything from where it belongs, in samples, when
// the copies were made by these clocks.
func off(r Result, a, b clock) (worst float64) {
	for _, p := range r.Filled {
		for _, at := range []int64{p.From, p.To - 1} {
			there := p.to(at)
			if by, ok := p.whole(p.Span); ok {
				there = float64(at + by)
			}
			worst = max(worst, math.Abs(there-b.to(a.at(float64(at)))))
		}
	}
	return worst
}

// alignments are those of what was filled, each once.
func alignments(r Result) []Alignment {
	var all []Alignment
	for _, p := range r.Filled {
		all = append(all, p.Alignment)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Two copies by clocks of their own, in other codecs, of recorders whose clocks
// are almost two seconds apart: what is filled is where it was said.
func TestByEar(t *testing.T) {
	const n = 11 * Rate
	lines := map[string][]float64{"speech": speech(1, n), "other speech": speech(2, n), "tones": tones("HS.L", n)}
	if line, ok := spoken(n); ok {
		lines["a real voice"] = line
	}
	for name, line := range lines {
		for _, c := range []struct {
			b     clock
			ahead time.Duration
			lost  float64
		}{
			{clock{333, 0}, 1900 * time.Millisecond, 0.05},
			{clock{5000.37, 0}, -1900 * time.Millisecond, 0},
			{clock{333.3, 200}, 1900 * time.Millisecond, 0.02},
			{clock{-800.6, -200}, 0, 0.02},
		} {
			t.Run(fmt.Sprint(name, c.b, c.ahead), func(t *testing.T) {
				a := recorded(line, pcmu, clock{}, 0, append(loss(3, 5*Rate, c.lost), Span{6 * Rate, 8*Rate + 77})...)
				b := recorded(line, pcma, c.b, c.ahead, loss(4, 10*Rate, c.lost)...)
				r := Merge(a, b)
				if worst := off(r, clock{}, c.b); worst > 0.6 || len(r.Filled) == 0 || !slices.Equal(alignments(r), []Alignment{Audio}) {
					t.Errorf("%.2f samples off in %d places by %v", worst, len(r.Filled), alignments(r))
				}
				if noise := noise(line, r, Span{6 * Rate, 8 * Rate}); noise > 0.15 {
					t.Errorf("%.0f %% of what was filled is noise", 100*noise)
				}
			})
		}
	}
}

// noise is how much of a span of a linear result is not the line, as a share of
// its amplitude, where it was filled.
func noise(line []float64, r Result, in Span) float64 {
	samples := r.Format.Linear(r.Samples)
	var wrong, all float64
	for _, p := range r.Filled {
		for at := max(p.From, in.From); at < min(p.To, in.To); at++ {
			d := float64(samples[at]) - line[at]
			wrong, all = wrong+d*d, all+line[at]*line[at]
		}
	}
	return math.Sqrt(wrong / all)
}

// Both copies are the same bytes under other SSRCs, and lose 5 % of their
// packets each: what is filled is those bytes, and what remains missing is what
// both lost.
func TestSameBytesByEar(t *testing.T) {
	const n = 12 * Rate
	for name, line := range map[string][]float64{"speech": speech(5, n), "tones": tones("HS.L", n), "high tones": tones("SPK.16", n)} {
		t.Run(name, func(t *testing.T) {
			whole := recorded(line, pcmu, clock{}, 0)
			size := int64(len(whole.Samples))
			const by = 160*7 + 31 // b's packets begin elsewhere
			a := recorded(line, pcmu, clock{}, 0, loss(6, size, 0.05)...)
			b := recorded(line, pcmu, clock{offset: by}, 700*time.Millisecond, loss(7, size-by, 0.05)...)
			r := Merge(a, b)
			if r.Format != pcmu || !slices.Equal(alignments(r), []Alignment{Audio}) {
				t.Fatalf("%v by %v", r.Format, alignments(r))
			}
			lost := func(c Copy, at int64) bool {
				return slices.ContainsFunc(c.Missing, func(s Span) bool { return s.From <= at && at < s.To })
			}
			for at := range size {
				gone := lost(a, at) && (at < by || at-by >= int64(len(b.Samples)) || lost(b, at-by))
				open := slices.ContainsFunc(r.Open, func(p Patch) bool { return p.From <= at && at < p.To })
				want := whole.Samples[at]
				if gone {
					want = media.MuLawSilence
				}
				if gone != open || r.Samples[at] != want {
					t.Fatalf("sample %d: both lost it: %v, open: %v, %d, want %d", at, gone, open, r.Samples[at], want)
				}
			}
		})
	}
}

// What says nothing about the instant is not believed to: the clocks decide.
func TestAmbiguous(t *testing.T) {
	const n = 10 * Rate
	wave := func(f float64) []float64 {
		line := make([]float64, n)
		for k := range line {
			line[k] = 3000 * math.Sin(2*math.Pi*f*float64(k)/Rate)
		}
		return line
	}
	ring := wave(425)
	for k := range ring {
		if k%4000 < 2000 { // busy: half a second on, half a second off
			ring[k] = 0
		}
	}
	for name, line := range map[string][]float64{
		"a tone": wave(440), "a tone of whole samples": wave(1000), "a busy tone": ring, "silence": make([]float64, n),
	} {
		for _, c := range []clock{{offset: 1203}, {offset: 1203.4, ppm: 120}} {
			ahead := length(40)
			r := Merge(recorded(line, pcmu, clock{}, 0, Span{4 * Rate, 5 * Rate}), recorded(line, pcma, c, ahead))
			if !slices.Equal(alignments(r), []Alignment{Clock}) || len(r.Open) > 0 {
				t.Errorf("%s %v: %v %v", name, c, alignments(r), r.Open)
			}
			if worst := off(r, clock{}, c); math.Abs(worst-40) > 6 {
				t.Errorf("%s %v: %.1f samples off, and the clocks by 40", name, c, worst)
			}
		}
	}
	// Two that have nothing in common.
	r := Merge(recorded(speech(8, n), pcmu, clock{}, 0, Span{4 * Rate, 5 * Rate}), recorded(speech(9, n), pcma, clock{offset: 77}, 0))
	if !slices.Equal(alignments(r), []Alignment{Clock}) {
		t.Errorf("of two that have nothing in common: %v", alignments(r))
	}
}

// A narrow band by clocks that run apart may be taken for another place of
// itself: then the ear says nothing rather than that.
func TestNarrow(t *testing.T) {
	const n = 12 * Rate
	for _, source := range []string{"SPK.3", "SPK.8", "SPK.16"} {
		for _, ppm := range []float64{10, 50, 100, 200} {
			c := clock{333.3, ppm}
			line := tones(source, n)
			r := Merge(recorded(line, pcmu, clock{}, 0, Span{6 * Rate, 8 * Rate}), recorded(line, pcma, c, 1200*time.Millisecond))
			if worst := off(r, clock{}, c); worst > 1 && slices.Contains(alignments(r), Audio) {
				t.Errorf("%s at %.0f ppm: %.1f samples off by %v", source, ppm, worst, alignments(r))
			}
		}
	}
}

// Timestamps that look like one sender's and are not are found out.
func TestFalseTimestamps(t *testing.T) {
	const n = 10 * Rate
	line := speech(10, n)
	a := recorded(line, pcmu, clock{}, 0, Span{4 * Rate, 5 * Rate})
	b := recorded(line, pcmu, clock{offset: 500}, 0)
	for k := range a.Media {
		a.Media[k].SSRC = b.Media[0].SSRC // and timestamps count from each copy's own begin
	}
	r := Merge(a, b)
	if worst := off(r, clock{}, clock{offset: 500}); worst > 0 || !slices.Equal(alignments(r), []Alignment{Audio}) {
		t.Errorf("%.1f samples off by %v", worst, alignments(r))
	}
}

// The sender began anew in the gap: what it said before is placed by what was
// heard before, and the rest by what was heard after.
func TestNewSenderInGap(t *testing.T) {
	const n = 8 * Rate
	whole := recorded(speech(11, n), pcmu, clock{}, 0)
	size := int64(len(whole.Samples))
	anew := Span{3*Rate + 100, size} // of b, where the second sender begins
	copyOf := func(cut int64, missing ...Span) Copy {
		c := Copy{Format: pcmu, Samples: bytes.Clone(whole.Samples), Start: noon, Known: Span{0, size}, Missing: missing}
		for _, h := range c.had(c.Known) {
			for _, m := range []Media{{Span: h.and(Span{0, cut}), SSRC: 1, TS: uint32(h.From)}, {Span: h.and(Span{cut, size}), SSRC: 2, TS: 99 + uint32(max(h.From, cut))}} {
				if m.Wall = noon.Add(length(m.From)); m.Samples() > 0 {
					c.Media = append(c.Media, m)
				}
			}
		}
		return c
	}
	a, b := copyOf(anew.From, Span{2 * Rate, 4 * Rate}), copyOf(anew.From)
	// Of a, the second sender's media lies 40 samples late: only a clock placed it.
	const late = 40
	m := &a.Media[len(a.Media)-1]
	a.Samples = append(a.Samples[:4*Rate+late], whole.Samples[4*Rate:size-late]...)
	a.Missing[0].To += late
	m.From += late
	r := Merge(a, b)
	if !bytes.Equal(r.Samples[:anew.From], whole.Samples[:anew.From]) {
		t.Error("before the new sender")
	}
	if !bytes.Equal(r.Samples[anew.From+late:size], whole.Samples[anew.From:size-late]) {
		t.Error("after it")
	}
	if !slices.Equal(alignments(r), []Alignment{RTP}) {
		t.Error(alignments(r))
	}
}
