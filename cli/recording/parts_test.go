package recording

import (
	"fmt"
	"testing"
	"time"

	tandemv1 "tandem/api/tandem/v1"
)

// segment is one of 20 ms packets whose timestamps and sequence numbers are
// those of one sender that began at noon; lost are gaps in it.
func segment(from, to int, lost ...*tandemv1.Gap) *tandemv1.Segment {
	return &tandemv1.Segment{Ssrc: 7, Start: stamp(from), End: stamp(to), FirstTs: int64(from) * 8, Samples: int64(to-from) * 8,
		FirstSeq: int64(from / 20), LastSeq: int64(to/20 - 1), Packets: uint64((to - from) / 20), Gaps: lost}
}

func missing(from, to int, cause string) *tandemv1.Gap {
	return &tandemv1.Gap{From: stamp(from), To: stamp(to), Cause: cause}
}

// A leg from 0 to 3 s whose recorder was lost at 1 s.
func TestStitch(t *testing.T) {
	loss, bound := missing(400, 440, "loss"), missing(700, 1240, "failover")
	open := segment(0, 1000, loss)
	open.Open = true
	away := &tandemv1.Part{Recorder: "rec-1", From: stamp(0), To: stamp(3000), Segments: []*tandemv1.Segment{segment(0, 1000, loss)}, Gaps: []*tandemv1.Gap{loss, missing(1000, 2500, "interrupted")}}
	next := &tandemv1.Part{Recorder: "rec-2", From: stamp(0), To: stamp(3000), Segments: []*tandemv1.Segment{segment(1240, 3000)}, Gaps: []*tandemv1.Gap{bound}}
	unfiled := &tandemv1.Part{Recorder: "rec-2", From: stamp(0), To: stamp(3000), Gaps: []*tandemv1.Gap{bound, missing(2000, 2020, "loss")}}
	onlyRow := &tandemv1.Segment{Start: stamp(700), End: stamp(700), Gaps: []*tandemv1.Gap{bound}}
	unfiled.Segments = []*tandemv1.Segment{onlyRow}
	whole := &tandemv1.Part{Recorder: "rec-1", From: stamp(0), To: stamp(3000), Segments: []*tandemv1.Segment{open}, Gaps: []*tandemv1.Gap{loss}}
	for name, c := range map[string]struct {
		parts []*tandemv1.Part
		want  string
	}{
		"both have files":                    {[]*tandemv1.Part{next, away}, "loss 400-440 rec-1 rec-1, failover 1000-1240 rec-1 rec-2, "},
		"the second's is in the journal yet": {[]*tandemv1.Part{away, unfiled}, "loss 400-440 rec-1 rec-1, failover 1000-1240 rec-1 rec-2, loss 2000-2020 rec-2 rec-2, "},
		"the first's file is open":           {[]*tandemv1.Part{whole, unfiled}, "loss 400-440 rec-1 rec-1, failover 1000-1240 rec-1 rec-2, loss 2000-2020 rec-2 rec-2, "},
		"the first cannot be reached":        {[]*tandemv1.Part{next}, "failover 700-1240  rec-2, "},
	} {
		got := ""
		_, missing := Stitch(c.parts, Interval{From: noon})
		for _, g := range missing {
			got += fmt.Sprintf("%s %d-%d %s %s, ", g.Cause, g.At.Milliseconds(), (g.At + g.Length).Milliseconds(), g.Before, g.After)
		}
		if got != c.want {
			t.Errorf("%s: %s\nwant %s", name, got, c.want)
		}
	}
	if _, got := Stitch([]*tandemv1.Part{next}, Interval{ms(800), ms(1000)}); len(got) != 1 || !got[0].From.Equal(ms(800)) || got[0].Length != 200*time.Millisecond {
		t.Errorf("%+v", got)
	}
	inside := &tandemv1.Part{From: stamp(5), To: stamp(9), Segments: []*tandemv1.Segment{segment(0, 1000)}}
	for name, c := range map[string]struct {
		parts []*tandemv1.Part
		want  []Interval
	}{
		"both have files": {[]*tandemv1.Part{away, next}, []Interval{{ms(0), ms(1000)}, {ms(1240), ms(3000)}}},
		"in the journal":  {[]*tandemv1.Part{unfiled, whole}, []Interval{{ms(1240), ms(3000)}, {ms(0), ms(1000)}}},
		"an open file":    {[]*tandemv1.Part{whole}, []Interval{{ms(0), ms(3000)}}},
		"bounds":          {[]*tandemv1.Part{inside}, []Interval{{ms(5), ms(9)}}},
		"no media":        {[]*tandemv1.Part{next, {From: stamp(0), To: stamp(700)}}, []Interval{{ms(1240), ms(3000)}, {ms(0), ms(700)}}},
	} {
		held, _ := Stitch(c.parts, Interval{From: noon})
		for n, i := range held {
			if !i.From.Equal(c.want[n].From) || !i.To.Equal(c.want[n].To) {
				t.Errorf("%s: %v, want %v", name, held, c.want)
			}
		}
	}
}
