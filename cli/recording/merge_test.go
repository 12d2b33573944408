package recording

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tandem/internal/media"
	"tandem/internal/merge"
)

// noise is samples that are alike nowhere.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(seed, 0))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// Two groups of recorders get the packets of one sender, each recorder some of
// them and by a clock of its own. Merged they have all that anybody has, where
// it was, and say of each packet that one group misses who had it.
func TestMergeBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		packets := rapid.IntRange(2, 40).Draw(t, "packets")
		sent := noise(rapid.Uint64().Draw(t, "seed"), packets*160)
		var groups [2]Recording
		var had [2][]bool
		for g := range groups {
			had[g] = make([]bool, packets)
			apart := time.Duration(g*rapid.IntRange(0, 2000).Draw(t, "groups' clocks")) * time.Millisecond
			var takes []*Take
			for r := range rapid.IntRange(1, 2).Draw(t, "recorders") {
				held := rapid.SliceOfN(rapid.Bool(), packets, packets).Draw(t, "held")
				if r == 0 { // its clock is the group's, and it has both ends: what is missing is told
					held[0], held[packets-1] = true, true
				}
				off := apart
				if r > 0 {
					off += time.Duration(rapid.IntRange(0, 300).Draw(t, "clock")) * time.Millisecond
				}
				if slices.Contains(held, true) {
					takes = append(takes, take(fmt.Sprintf("rec-%d", 10*g+r+1), sent, held, off))
				}
				for n, got := range held {
					had[g][n] = had[g][n] || got
				}
			}
			groups[g] = Join(takes)
			groups[g].Group = []string{"primary", "secondary"}[g]
		}
		before := bytes.Clone(groups[0].Samples)
		merged, report := Merge(groups[0], groups[1])
		if !bytes.Equal(before, groups[0].Samples) {
			t.Fatal("the original was changed")
		}
		if merged.Format.Codec != media.PCMU || len(merged.Samples) < len(sent) {
			t.Fatalf("%v, %d samples of %d", merged.Format, len(merged.Samples), len(sent))
		}
		var filled, open int64
		for n := range packets {
			want, got := sent[n*160:(n+1)*160], merged.Samples[n*160:(n+1)*160]
			switch {
			case had[0][n]:
			case had[1][n]:
				filled += 160
			default:
				open += 160
				want = bytes.Repeat([]byte{media.MuLawSilence}, 160)
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("packet %d differs", n)
			}
		}
		for _, f := range report.Filled {
			filled -= samples(f.Length)
			if f.Group != "secondary" || f.Alignment != merge.RTP || f.Recorder != "rec-11" && f.Recorder != "rec-12" || f.To.Sub(f.From) != f.Length {
				t.Fatalf("%+v", f)
			}
		}
		for _, g := range report.Open {
			open -= samples(g.Length)
			if g.Cause == "" {
				t.Fatalf("%+v", g)
			}
		}
		if filled != 0 || open != 0 || !slices.Equal(merged.Gaps, report.Open) {
			t.Fatalf("%d samples more filled than told, %d more open: %+v", filled, open, report)
		}
	})
}
