package scenario

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/cli/audit"
	"tandem/turretsim/truth"
)

// copiesOf is a log of ten seconds of one handset, sent as two copies. Of both the
// switch withheld the packet at lost, of copy A alone the one at alone.
func copiesOf(t *testing.T, device string, lost, alone int64) *truth.Account {
	t.Helper()
	path := filepath.Join(t.TempDir(), "truth.jsonl")
	log, err := truth.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	log.Add(truth.Line{Type: truth.TypeStart, Origin: noon, Rate: 8000, Voice: truth.VoiceTones})
	for n, copy := range []string{"A", "B"} {
		id := "s.m." + copy
		log.Add(truth.Line{Type: truth.TypeChannel, Channel: id, Session: "s", Mix: "m", Copy: copy, Device: device, Sources: []string{"HS.L"}})
		for at := int64(0); at < 500; at += 50 {
			log.AddPackets(&truth.Range{Channel: id, Dialog: id, To: fmt.Sprint("10.0.0.", n), Codec: "PCMU", SSRC: uint32(n + 1), Sample: at * truth.PacketSamples, Packets: 50, At: noon.Add(time.Duration(at) * 20 * time.Millisecond)})
		}
		log.Add(truth.Line{Type: truth.TypeWithheld, Channel: id, Sample: lost * truth.PacketSamples, Packets: 1})
	}
	log.Add(truth.Line{Type: truth.TypeWithheld, Channel: "s.m.A", Sample: alone * truth.PacketSamples, Packets: 1})
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	account, err := truth.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return account
}

// What one group misses the other has: only the packet that was lost of both
// copies is missing of the two together, and it is known to have been.
func TestJudgeTwins(t *testing.T) {
	const device, lost, alone = "T1", 250, 100
	account := copiesOf(t, device, lost, alone)
	with := func(copy string, ssrc uint32, gaps ...[2]int) *shelf {
		id := "s.m." + copy
		s := &shelf{ssrc: ssrc, samples: map[string][]byte{id: spoken(t, device)}, gaps: map[string][]*tandemv1.Gap{}}
		for _, g := range gaps {
			hush(s.samples[id], g[0], g[1])
			s.gaps[id] = append(s.gaps[id], &tandemv1.Gap{From: at(time.Duration(g[0]) * time.Millisecond), To: at(time.Duration(g[1]) * time.Millisecond), Cause: "loss"})
		}
		return s
	}
	of := func(shelves ...*shelf) (all []audit.Media) {
		for _, s := range shelves {
			all = append(all, serve(t, s))
		}
		return all
	}
	fault := Fault{At: noon.Add(4 * time.Second), Ended: noon.Add(10 * time.Second), Channels: map[string]bool{"s.m.A": true}}
	primary := of(with("A", 1, [2]int{2000, 2020}, [2]int{5000, 5020}, [2]int{6000, 8000}))
	secondary := of(with("B", 2, [2]int{5000, 5020}))
	fault.Twin = &Twin{}
	var err error
	if fault.Twin.Secondary, fault.Twin.Merged, err = JudgeTwins(t.Context(), account, primary, secondary, fault); err != nil {
		t.Fatal(err)
	}
	got := fault.Twin.report(truth.Verdict{SentMS: 10_000, RecordedMS: 7960})
	if want := (TwinReport{PrimaryMissingMs: 2040, SecondaryMissingMs: 20, BothLostMs: 20, MissingAfterMerge: 20}); *got != want {
		t.Errorf("%+v\nwant %+v: %+v", *got, want, fault.Twin.Merged)
	}
	if findings := findingsOf(fault.Twin); findings != "" {
		t.Errorf("found: %s", findings)
	}

	// A secondary that missed more leaves a hole that no switch made.
	secondary = of(with("B", 2, [2]int{5000, 5020}, [2]int{7000, 7100}))
	if fault.Twin.Secondary, fault.Twin.Merged, err = JudgeTwins(t.Context(), account, primary, secondary, fault); err != nil {
		t.Fatal(err)
	}
	if findings := findingsOf(fault.Twin); !strings.Contains(findings, "120 ms are missing after merging, and 20 were lost of both copies") {
		t.Errorf("found: %s", findings)
	}
}

func findingsOf(w *Twin) string { return strings.Join(w.Findings(), "; ") }

// The twin of a group that was broken shows nothing of it; whatever it does
// show is told.
func TestNoticed(t *testing.T) {
	status := func(change func(*tandemv1.StatusResponse)) *tandemv1.StatusResponse {
		s := &tandemv1.StatusResponse{
			Directors: []*tandemv1.DirectorStatus{{Name: "dir-c", Role: "active", Epoch: 2, Channels: 8, Attached: 8}},
			Recorders: []*tandemv1.RecorderStatus{{Name: "rec-4", State: "ready", Load: &tandemv1.Load{Channels: 8, LostPackets: 3}}},
			Alarms:    []*tandemv1.Alarm{{What: "no_headroom", Object: "secondary"}},
		}
		change(s)
		return s
	}
	before := status(func(*tandemv1.StatusResponse) {})
	for name, c := range map[string]struct {
		change func(*tandemv1.StatusResponse)
		lost   bool
		want   string
	}{
		"nothing":              {func(*tandemv1.StatusResponse) {}, true, ""},
		"another epoch":        {func(s *tandemv1.StatusResponse) { s.Directors[0].Epoch = 4 }, true, "dir-c was active in epoch 2 and is active in epoch 4"},
		"a recorder":           {func(s *tandemv1.StatusResponse) { s.Recorders[0].State = "lost" }, true, "it is not whole"},
		"an alarm":             {func(s *tandemv1.StatusResponse) { s.Alarms[0].Object = "rec-4" }, true, "alarm no_headroom"},
		"moved channels":       {func(s *tandemv1.StatusResponse) { s.Recorders[0].Load.Channels = 7 }, true, "rec-4 had 8 channels and has 7"},
		"lost packets":         {func(s *tandemv1.StatusResponse) { s.Recorders[0].Load.LostPackets = 5 }, true, "rec-4 lost 2 packets"},
		"lost packets, wanted": {func(s *tandemv1.StatusResponse) { s.Recorders[0].Load.LostPackets = 5 }, false, ""},
		"nobody":               {func(s *tandemv1.StatusResponse) { s.Directors = nil }, true, "its director does not answer"},
	} {
		found := strings.Join(Noticed(before, status(c.change), c.lost), "; ")
		if !strings.Contains(found, c.want) || (found == "") != (c.want == "") {
			t.Errorf("%s: %q, want %q", name, found, c.want)
		}
	}
}
