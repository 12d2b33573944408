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

	"google.golang.org/protobuf/proto"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/media"
)

// twoCopySite is a site with a recorder of a second group.
type twoCopySite struct {
	*fakeSite
	other *fakeRecorder
}

// newTwoCopySite is the site of a failover with a recorder of a second group,
// which lost some 200 ms of its own.
func newTwoCopySite(t *testing.T) *twoCopySite {
	s := newFailoverSite(t)
	outage := &tandemv1.Gap{From: after(c5After(4100)), To: after(c5After(4300)), Cause: "outage"}
	twin := func(g *tandemv1.Segment) *tandemv1.Segment {
		g.Channel, g.Copy = "s2.m1.B", "B"
		return g
	}
	leg := c5Leg("rec-9", "complete", c5After(10_000), 200, &tandemv1.Part{
		Segments: []*tandemv1.Segment{twin(c5Segment("900", 0, 10_000, outage))}, Gaps: []*tandemv1.Gap{outage}})
	leg.Parts[0].Channel, leg.Record.Group, leg.Record.Secondary = "s2.m1.B", "secondary", true
	leg.Record.Leg = proto.CloneOf(leg.Record.Leg)
	leg.Record.Leg.Id, leg.Record.Leg.Channels = "c5.1+2", []string{"s2.m1.B"} // each group numbers intervals by itself
	other := &fakeRecorder{legs: []*tandemv1.LegDetail{leg}, exports: map[string]fakeExport{"s2.m1.B": {
		start: noon.Add(c5Begin), samples: slices.Concat(voice(0, 4100), quiet(200), voice(4300, 10_000)), gaps: []*tandemv1.Gap{outage},
		stretches: []*tandemv1.Stretch{{Samples: 4100 * 8, Ssrc: 7}, {Offset: 4300 * 8, Samples: 5700 * 8, Ssrc: 7, FirstTs: 4300 * 8}}}}}
	other.exports["c5.1+2"] = other.exports["s2.m1.B"]
	s.director.status.Recorders = append(s.director.status.Recorders, &tandemv1.RecorderStatus{Name: "rec-9", Group: "secondary", Address: other.serve(t), State: "ready"})
	return &twoCopySite{s, other}
}

// mergedC5 is all that either group has of the leg.
func mergedC5() []byte { return slices.Concat(voice(0, 4100), quiet(140), voice(4240, 10_000)) }

// Records of one leg may end at different times: the leg is as long as anybody
// knows, and over as soon as somebody knows.
func TestPairSpan(t *testing.T) {
	row := func(secondary bool, id string, from, to time.Duration) legRow {
		leg := &tandemv1.Leg{Id: id, Session: "s2", Source: "HS.L", Start: after(from), Channels: []string{"s2.m1." + map[bool]string{false: "A", true: "B"}[secondary]}}
		if to > 0 {
			leg.End = after(to)
		}
		return legRow{call: c5, leg: leg, secondary: secondary}
	}
	for name, c := range map[string]struct {
		rows     []legRow
		pairs    int
		from, to time.Duration // of the first
	}{
		"alike":                {[]legRow{row(true, "x", 1, 9), row(false, "x", 1, 9)}, 1, 1, 9},
		"other ids":            {[]legRow{row(false, "x", 1, 5), row(true, "y", 2, 9)}, 1, 1, 9},
		"it was not told":      {[]legRow{row(false, "x", 2, 0), row(true, "x", 1, 9)}, 1, 1, 9},
		"it lasts":             {[]legRow{row(false, "x", 2, 0), row(true, "x", 2, 0)}, 1, 2, 0},
		"one after the other":  {[]legRow{row(false, "x", 1, 5), row(true, "y", 5, 9)}, 2, 1, 5},
		"the secondary's only": {[]legRow{row(true, "y", 5, 9)}, 1, 5, 9},
	} {
		pairs := pairCopies(c.rows)
		got := pairs[0].span()
		if len(pairs) != c.pairs || !got.start().Equal(noon.Add(c.from)) || got.leg.End == nil != (c.to == 0) || c.to > 0 && !at(got.leg.End).Equal(noon.Add(c.to)) {
			t.Errorf("%s: %d pairs, from %v to %v", name, len(pairs), got.leg.Start, got.leg.End)
		}
		if w := planMerged("", pairs[:1], nil, choice{}); len(w) != 1 || len(w[0].sources) != 1 || w[0].sources[0].request.Channel != "s2.m1.A" || w[0].sources[0].twin.channel != "s2.m1.B" {
			t.Errorf("%s: %+v", name, w)
		}
	}
}

// What one group's recorders lost together is filled from the other's, and what
// neither has is told; by whatever id the leg is asked for.
func TestExportMerge(t *testing.T) {
	site := newTwoCopySite(t)
	const told = `  filled 100 ms from 12:30:04.000 to 12:30:04.100: from secondary rec-9, aligned by rtp
  filled 20 ms from 12:30:09.000 to 12:30:09.020: from secondary rec-9, aligned by rtp
  filled 120 ms in all; missing in both copies: 140 ms
  missing 140 ms from 12:30:04.100 to 12:30:04.240: failover between rec-1 and rec-2
`
	dir := t.TempDir() + "/"
	for _, args := range [][]string{
		{"c5", "-o", filepath.Join(dir, "call.wav")}, {"c5.1", "-o", filepath.Join(dir, "leg.wav")}, {"c5.1+2", "-o", filepath.Join(dir, "twin.wav")}, {"c5", "-o", dir},
		{"s2.m1.A", "--from", "2026-03-02 12:30", "--to", "2026-03-02 12:30:10", "-o", filepath.Join(dir, "channel.wav")},
	} {
		r := recctl(t, site.config, append([]string{"export", "--merge"}, args...)...)
		file, _, _ := strings.Cut(r.out, "  ")
		if r.status != ExitDone || r.errs != "" || !strings.HasSuffix(r.out, told) {
			t.Errorf("%v: %+v", args, r)
			continue
		}
		if format, samples := readWAV(t, file); format.Codec != media.PCMU || !bytes.Equal(samples, mergedC5()) {
			t.Errorf("%v: %v, %d samples", args, format, len(samples))
		}
	}
	if files, _ := os.ReadDir(dir); len(files) != 5 {
		t.Errorf("%d files", len(files))
	}
}

func TestExportMergeJSON(t *testing.T) {
	site := newTwoCopySite(t)
	t.Chdir(t.TempDir())
	r := recctl(t, site.config, "export", "c5", "--merge", "--format", "flac", "--json")
	var got struct {
		File     string
		FilledMs int64 `json:"filled_ms"`
		OpenMs   int64 `json:"open_ms"`
		Filled   []struct {
			Channel, Recorder, Alignment string
			From, To                     time.Time
			FromGroup                    string `json:"from_group"`
		}
		Gaps      []any
		Recorders []string
	}
	if err := json.Unmarshal([]byte(r.out), &got); err != nil {
		t.Fatal(err, r)
	}
	if got.FilledMs != 120 || got.OpenMs != 140 || len(got.Filled) != 2 || len(got.Gaps) != 1 || strings.Join(got.Recorders, " ") != "rec-1 rec-2 rec-9" {
		t.Errorf("%+v", got)
	}
	if f := got.Filled[0]; f.Channel != "s2.m1.A" || f.Recorder != "rec-9" || f.FromGroup != "secondary" || f.Alignment != "rtp" || !f.From.Equal(noon.Add(c5After(4000))) || !f.To.Equal(noon.Add(c5After(4100))) {
		t.Errorf("%+v", f)
	}
	r = recctl(t, site.config, "export", "c5", "--json")
	if strings.Contains(r.out, "filled") {
		t.Error("without --merge nothing is filled:", r.out)
	}
}

// Without --merge a file holds one copy: the primary one.
func TestExportOneCopy(t *testing.T) {
	site := newTwoCopySite(t)
	dir := t.TempDir() + "/"
	for _, out := range []string{filepath.Join(dir, "c5.wav"), dir} {
		r := recctl(t, site.config, "export", "c5", "-o", out)
		file, _, _ := strings.Cut(r.out, "  ")
		if format, samples := readWAV(t, file); r.status != ExitDone || strings.Count(r.out, "\n") != 3 || format.Codec != media.PCMU || !bytes.Equal(samples, stitchedC5()) {
			t.Errorf("%+v: %v, %d samples", r, format, len(samples))
		}
	}
}

// The primary group was dead for the whole call: all of it is the secondary's,
// which says so.
func TestExportMergeWhole(t *testing.T) {
	site := newTwoCopySite(t)
	for _, r := range site.recorders {
		r.legs, r.exports = nil, nil
	}
	file := filepath.Join(t.TempDir(), "c5.wav")
	r := recctl(t, site.config, "export", "c5", "--merge", "-o", file)
	if r.status != ExitDone || !strings.Contains(r.out, "  filled 10.0 s from 12:30:00.000 to 12:30:10.000: all of s2.m1.A from secondary rec-9: primary has none of it\n") || !strings.Contains(r.out, "missing 200 ms") {
		t.Errorf("%+v", r)
	}
	if _, samples := readWAV(t, file); !bytes.Equal(samples, site.other.exports["s2.m1.B"].samples) {
		t.Errorf("%d samples", len(samples))
	}
}

// What is played is what would be exported.
func TestPlayMerge(t *testing.T) {
	site := newTwoCopySite(t)
	bin := t.TempDir()
	heard := filepath.Join(bin, "heard.wav")
	if err := os.WriteFile(filepath.Join(bin, "aplay"), []byte("#!/bin/sh\nexec cat > "+heard+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	if r := recctl(t, site.config, "play", "c5", "--merge"); r.status != ExitDone || !strings.Contains(r.errs, "filled 120 ms in all; missing in both copies: 140 ms") {
		t.Errorf("%+v", r)
	}
	if _, samples := readWAV(t, heard); !bytes.Equal(samples, mergedC5()) {
		t.Errorf("%d samples", len(samples))
	}
}

// With nothing to fill it says so; and a channel without copies has no twin.
func TestExportMergeNothing(t *testing.T) {
	site := newTwoCopySite(t)
	file := filepath.Join(t.TempDir(), "x.wav")
	site.other.exports = nil
	site.other.legs = nil
	if r := recctl(t, site.config, "export", "c5", "--merge", "-o", file); r.status != ExitDone || !strings.Contains(r.out, "nothing was filled: there is no other copy of it") {
		t.Errorf("%+v", r)
	}
	for _, args := range []string{"s2 --merge --from 12:00 --to 12:01", "s2.m1.A --from 12:00", "nothing --merge"} {
		if r := recctl(t, site.config, append([]string{"export", "-o", file}, strings.Fields(args)...)...); r.status == ExitDone || strings.Count(r.errs, "\n") != 1 {
			t.Errorf("%s: %+v", args, r)
		}
	}
}

// Thousands of single packets are told in one line.
func TestSayFilledMany(t *testing.T) {
	m := &merged{open: 20 * time.Millisecond, twins: 1}
	for range 30 {
		f := filled{of: "primary"}
		f.Length, f.Group, f.Recorder, f.Alignment = 20*time.Millisecond, "secondary", "rec-9", "rtp"
		m.filled = append(m.filled, f)
	}
	var b bytes.Buffer
	(&invocation{zone: time.UTC}).sayFilled(&b, m)
	if want := "  filled 30 gaps of 600 ms: from secondary rec-9, aligned by rtp; --json lists them\n  filled 600 ms in all; missing in both copies: 20 ms\n"; b.String() != want {
		t.Errorf("%q\nwant %q", b.String(), want)
	}
}

// Where there is no second copy, none is said to lack anything.
func TestExportMergeAlone(t *testing.T) {
	site := newFailoverSite(t)
	r := recctl(t, site.config, "export", "c5", "--merge", "-o", filepath.Join(t.TempDir(), "c5.wav"))
	if r.status != ExitDone || !strings.Contains(r.out, "  nothing was filled: there is no other copy of it\n") || strings.Contains(r.out, "both copies") {
		t.Errorf("%+v", r)
	}
}
