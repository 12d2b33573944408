package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mewkiz/flac"
	"google.golang.org/protobuf/proto"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/media"
)

// Call c5 lasted ten seconds from half past eleven on. rec-1 was killed after
// four of them and came back; rec-2 took over 240 ms later. Both speak of its
// only leg; a packet of it, a second before the end, was lost on the way.
const c5Begin = -30 * time.Minute

var c5 = &tandemv1.Call{Id: "c5", Line: "L3", Direction: "in", Kind: "dial", Party: "+4930123456", State: "released", Start: after(c5Begin), End: after(c5Begin + 10*time.Second), EndCause: "normal"}

// voice is what was said: every millisecond something else.
func voice(fromMs, toMs int) []byte {
	b := make([]byte, (toMs-fromMs)*8)
	for n := range b {
		b[n] = byte((fromMs*8 + n) / 8 * 7)
	}
	return b
}

// quiet is as many milliseconds of silence.
func quiet(ms int) []byte { return bytes.Repeat([]byte{media.MuLawSilence}, ms*8) }

func c5After(ms int) time.Duration { return c5Begin + time.Duration(ms)*time.Millisecond }

// c5Segment is a file of the leg's channel, of 20 ms packets.
func c5Segment(id string, fromMs, toMs int, gaps ...*tandemv1.Gap) *tandemv1.Segment {
	return &tandemv1.Segment{Id: id, Channel: "s2.m1.A", Copy: "A", Start: after(c5After(fromMs)), End: after(c5After(toMs)), Codec: tandemv1.Codec_CODEC_PCMU, File: "2026-03-02/11/s2.m1.A-" + id + ".wav",
		Size: uint64(58 + (toMs-fromMs)*8), Packets: uint64((toMs-fromMs)/20 - len(gaps)), Lost: uint64(len(gaps)), Ssrc: 7, FirstTs: int64(fromMs * 8), Samples: int64((toMs - fromMs) * 8), FirstSeq: int64(fromMs / 20), LastSeq: int64(toMs/20 - 1), Gaps: gaps}
}

func c5Leg(recorder, state string, ends time.Duration, gapMs int64, part *tandemv1.Part) *tandemv1.LegDetail {
	part.Recorder, part.Channel, part.From, part.To = recorder, "s2.m1.A", after(c5Begin), after(c5After(10_000))
	leg := &tandemv1.Leg{Id: "c5.1", Call: "c5", Session: "s2", User: "ann", UserName: "Ann Lee", Device: "t2", Source: "HS.L", Channels: []string{"s2.m1.A"}, Start: after(c5Begin), End: after(ends), EndCause: "released", Accuracy: "exact"}
	return &tandemv1.LegDetail{Record: &tandemv1.LegRecord{Call: c5, Leg: leg, Group: "primary", Recorder: recorder, State: state, GapMs: gapMs}, Parts: []*tandemv1.Part{part}}
}

func newFailoverSite(t *testing.T) *fakeSite {
	interrupted := &tandemv1.Gap{From: after(c5After(4000)), To: after(c5After(10_000)), Cause: "interrupted"}
	bound := &tandemv1.Gap{From: after(c5After(3500)), To: after(c5After(4240)), Cause: "failover"}
	loss := &tandemv1.Gap{From: after(c5After(9000)), To: after(c5After(9020)), Cause: "loss"}
	s := newFakeSite(t)
	s.recorders[0].legs = []*tandemv1.LegDetail{c5Leg("rec-1", "interrupted", c5After(10_000), 6000, &tandemv1.Part{
		Segments: []*tandemv1.Segment{c5Segment("100", 0, 4000)}, Gaps: []*tandemv1.Gap{interrupted}})}
	s.recorders[0].exports = map[string]fakeExport{"s2.m1.A": {start: noon.Add(c5Begin), samples: append(voice(0, 4000), quiet(6000)...), gaps: []*tandemv1.Gap{interrupted},
		stretches: []*tandemv1.Stretch{{Samples: 32_000, Ssrc: 7}}}}
	s.recorders[0].exports["c5.1"] = s.recorders[0].exports["s2.m1.A"]
	none := &tandemv1.Segment{Id: "200-gap", Channel: "s2.m1.A", Copy: "A", Start: after(c5After(3500)), End: after(c5After(4240)), Codec: tandemv1.Codec_CODEC_PCMU, Gaps: []*tandemv1.Gap{bound}} // without a file
	s.recorders[1].legs = []*tandemv1.LegDetail{c5Leg("rec-2", "complete", c5After(10_000), 760, &tandemv1.Part{
		Segments: []*tandemv1.Segment{none, c5Segment("200", 4240, 10_000, loss)}, Gaps: []*tandemv1.Gap{bound, loss}})}
	s.recorders[1].exports = map[string]fakeExport{"s2.m1.A": {start: noon.Add(c5Begin), samples: slices.Concat(quiet(4240), voice(4240, 9000), quiet(20), voice(9020, 10_000)), gaps: []*tandemv1.Gap{bound, loss},
		stretches: []*tandemv1.Stretch{{Offset: 4240 * 8, Samples: 4760 * 8, Ssrc: 7, FirstTs: 1<<32 + 4240*8}, {Offset: 9020 * 8, Samples: 980 * 8, Ssrc: 7, FirstTs: 1<<32 + 9020*8}}}}
	return s
}

// stitchedC5 is all that anybody has of the leg.
func stitchedC5() []byte {
	return slices.Concat(voice(0, 4000), quiet(240), voice(4240, 9000), quiet(20), voice(9020, 10_000))
}

// A call that two recorders hold is one call, and what is missing of it is
// what neither has.
func TestFailoverCall(t *testing.T) {
	site := newFailoverSite(t)
	golden(t, "show_failover", recctl(t, site.config, "show", "c5").out)
	golden(t, "show_failover_json", recctl(t, site.config, "show", "c5", "--json").out)
	golden(t, "calls_failover", recctl(t, site.config, "calls").out)
	var leg struct {
		GapMs int64 `json:"gap_ms"`
		Parts int   `json:"parts"`
	}
	if err := json.Unmarshal([]byte(recctl(t, site.config, "calls", "--json").out), &leg); err != nil || leg.GapMs != 260 || leg.Parts != 2 {
		t.Errorf("%+v %v", leg, err)
	}
}

// It is exported as one file, byte for byte, whether the call or its leg is
// asked for.
func TestFailoverExport(t *testing.T) {
	site := newFailoverSite(t)
	for _, id := range []string{"c5", "c5.1"} {
		file := filepath.Join(t.TempDir(), "c5.wav")
		r := recctl(t, site.config, "export", id, "-o", file)
		if r.status != ExitDone || r.errs != "" || !strings.Contains(r.out, "10.0 s from 12:30:00") ||
			!strings.Contains(r.out, "missing 240 ms from 12:30:04.000 to 12:30:04.240: failover between rec-1 and rec-2\n  missing 20 ms from 12:30:09.000 to 12:30:09.020: loss\n") {
			t.Errorf("%s: %+v", id, r)
		}
		if format, samples := readWAV(t, file); format.Codec != media.PCMU || !bytes.Equal(samples, stitchedC5()) {
			t.Errorf("%s: %v, %d samples", id, format, len(samples))
		}
	}
	t.Chdir(t.TempDir())
	r := recctl(t, site.config, "export", "c5", "--format", "flac", "--json")
	var got struct {
		File, Call, Codec   string
		Channels, Recorders []string
		Gaps                []any
	}
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || got.Call != "c5" || got.Codec != "" || strings.Join(got.Recorders, " ") != "rec-1 rec-2" || strings.Join(got.Channels, " ") != "s2.m1.A" || len(got.Gaps) != 2 {
		t.Fatalf("%+v %v %+v", got, err, r)
	}
	f, err := flac.ParseFile(got.File)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var samples []int32
	for frame, err := f.ParseNext(); err == nil; frame, err = f.ParseNext() {
		samples = append(samples, frame.Subframes[0].Samples...)
	}
	for n, b := range stitchedC5() {
		if n >= len(samples) || samples[n] != int32(media.MuLawToLinear(b)) {
			t.Fatalf("sample %d of %d differs", n, len(samples))
		}
	}
}

// Of a recorder that is away the others' parts are written, and that it may
// hold more is told.
func TestFailoverExportPartial(t *testing.T) {
	site := newFailoverSite(t)
	site.director.status.Recorders[1].Address = closedPort(t)
	file := filepath.Join(t.TempDir(), "c5.wav")
	site.recorders[1].exports["c5"] = site.recorders[1].exports["s2.m1.A"]
	r := recctl(t, site.config, "export", "c5", "-o", file)
	if show := recctl(t, site.config, "show", "c5"); show.status != ExitDone || !strings.Contains(show.out, "this is not all, perhaps: rec-1 cannot be reached") {
		t.Errorf("%+v", show)
	}
	if r.status != ExitFailed || !strings.Contains(r.errs, "rec-1 cannot be reached: what it alone holds is missing from this audio") || !strings.Contains(r.out, "missing 740 ms") {
		t.Errorf("%+v", r)
	}
	if _, samples := readWAV(t, file); !bytes.Equal(samples, site.recorders[1].exports["c5"].samples) {
		t.Errorf("%d samples", len(samples))
	}
}

// Audio of a recorder that was killed before it heard of the leg is found.
func TestFailoverUntold(t *testing.T) {
	site := newFailoverSite(t)
	other := proto.Clone(site.recorders[0].legs[0]).(*tandemv1.LegDetail)
	other.Record.Call.Id, other.Record.Leg.Id = "c4", "c4.1"
	site.recorders[0].legs[0] = other
	file := filepath.Join(t.TempDir(), "c5.wav")
	if r := recctl(t, site.config, "export", "c5", "-o", file); r.status != ExitDone {
		t.Errorf("%+v", r)
	}
	if _, samples := readWAV(t, file); !bytes.Equal(samples, stitchedC5()) {
		t.Errorf("%d samples", len(samples))
	}
}

// Legs on one channel are heard once, as long as any of them lasts.
func TestChannelSources(t *testing.T) {
	leg := func(channel string, from, to time.Duration) legRow {
		r := legRow{call: c5, leg: &tandemv1.Leg{Start: after(from), Channels: []string{channel}}}
		if to > 0 {
			r.leg.End = after(to)
		}
		return r
	}
	got := ""
	for _, s := range channelSources([]legRow{leg("a", 8, 9), leg("a", 1, 4), leg("b", 2, 3), leg("a", 3, 6), leg("c", 1, 0), leg("c", 5, 6), leg("a", 4, 5)}, nil) {
		end := "on"
		if s.request.To != nil {
			end = at(s.request.To).Sub(noon).String()
		}
		got += s.request.Channel + " " + at(s.request.From).Sub(noon).String() + " " + end + ", "
	}
	if got != "a 1ns 6ns, c 1ns on, b 2ns 3ns, a 8ns 9ns, " {
		t.Error(got)
	}
}

// A leg is taken from the channel that most of it is on.
func TestLegChannel(t *testing.T) {
	part := func(channel string, to time.Duration, gaps ...*tandemv1.Gap) *tandemv1.Part {
		return &tandemv1.Part{Channel: channel, From: after(0), To: after(to), Gaps: gaps}
	}
	missing := &tandemv1.Gap{From: after(0), To: after(5 * time.Second)}
	for want, parts := range map[string][]*tandemv1.Part{
		"x": nil,
		"a": {part("a", 6*time.Second), part("b", 9*time.Second, missing)},
		"b": {part("a", 6*time.Second), part("b", 5*time.Second), part("b", 2*time.Second)},
	} {
		r := legRow{leg: &tandemv1.Leg{Channels: []string{"x", "y"}}, parts: parts}
		if got := r.channel(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// What is played of a call on several recorders is what is exported.
func TestFailoverPlay(t *testing.T) {
	site := newFailoverSite(t)
	bin := t.TempDir()
	heard := filepath.Join(bin, "heard.wav")
	if err := os.WriteFile(filepath.Join(bin, "aplay"), []byte("#!/bin/sh\nexec cat > "+heard+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	if r := recctl(t, site.config, "play", "c5"); r.status != ExitDone || !strings.Contains(r.errs, "failover between rec-1 and rec-2") {
		t.Errorf("%+v", r)
	}
	if _, samples := readWAV(t, heard); !bytes.Equal(samples, stitchedC5()) {
		t.Errorf("%d samples", len(samples))
	}
}
