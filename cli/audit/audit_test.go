package audit

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/turretsim/truth"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func at(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(noon.Add(d)) }

func TestBounds(t *testing.T) {
	file := func(id string, from, to time.Duration) *tandemv1.Segment {
		return &tandemv1.Segment{Channel: id, Start: at(from), End: at(to)}
	}
	got := Bounds([]*tandemv1.Segment{file("a", 5, 9), file("b", 1, 2), file("a", 2, 5), file("a", 3, 4)})
	if len(got) != 2 || got["a"] != (Interval{From: noon.Add(2), To: noon.Add(9)}) || got["b"] != (Interval{From: noon.Add(1), To: noon.Add(2)}) {
		t.Errorf("%v", got)
	}
}

func TestCrop(t *testing.T) {
	samples := make([]byte, 5*8000)
	for n := range samples {
		samples[n] = byte(n / 8000)
	}
	all := Recording{Stretches: []truth.Stretch{{From: noon, Samples: samples}}}
	cut := all.Crop(Interval{From: noon.Add(2 * time.Second), To: noon.Add(3 * time.Second)}).Stretches
	if len(cut) != 1 || !cut[0].From.Equal(noon.Add(time.Second)) || !bytes.Equal(cut[0].Samples, samples[8000:32000]) {
		t.Errorf("%d stretches", len(cut))
	}
	if got := all.Crop(Interval{From: noon.Add(-time.Hour), To: noon.Add(time.Hour)}).Stretches; !bytes.Equal(got[0].Samples, samples) || !got[0].From.Equal(noon) {
		t.Error("too much was cut")
	}
	if got := all.Crop(Interval{From: noon.Add(time.Hour), To: noon.Add(2 * time.Hour)}).Stretches; got != nil {
		t.Errorf("%d stretches of another time", len(got))
	}
}
