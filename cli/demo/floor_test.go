package demo

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/cli/audit"
	"tandem/cli/process"
	"tandem/director"
	"tandem/internal/config"
	"tandem/recorder"
	"tandem/turretsim"
)

// What the demo writes, the daemons read without fault, even where the
// directory has a name that TOML must quote.
func TestConfigure(t *testing.T) {
	f := &floor{options: Options{Turrets: 7, Seed: 3}, dir: t.TempDir()}
	for name, p := range map[string]**process.Process{"turretsim": &f.sim, "recorder": &f.recorder, "director": &f.director} {
		*p = &process.Process{Name: name, Config: f.path(name + `".toml`)}
	}
	if err := f.configure(); err != nil {
		t.Fatal(err)
	}
	sim, err := config.Load(f.sim.Config, turretsim.DefaultConfig())
	if err != nil || sim.Floor.Turrets != 7 || sim.Seed != 3 || sim.Floor.Mixes != mixes {
		t.Errorf("%+v, %v", sim, err)
	}
	rec, err := config.Load(f.recorder.Config, recorder.DefaultConfig())
	if err != nil || rec.Media.Keep != "all" || rec.Control != f.recorderAt {
		t.Errorf("%+v, %v", rec, err)
	}
	dir, err := config.Load(f.director.Config, director.DefaultConfig())
	if err != nil || dir.Control != f.directorAt || dir.Recorders[0].Address != rec.Control || dir.Provider.Unigy.Servers[0] != sim.CTI.Listen || dir.Provider.Unigy.User != sim.CTI.User {
		t.Errorf("%+v, %v", dir, err)
	}
}

func at(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(noon.Add(d)) }

func TestReached(t *testing.T) {
	held := func(id string, last *timestamppb.Timestamp) *tandemv1.HeldChannel {
		return &tandemv1.HeldChannel{Channel: &tandemv1.Channel{Id: id}, LastPacket: last}
	}
	file := func(id string, end time.Duration) *tandemv1.Segment {
		return &tandemv1.Segment{Channel: id, End: at(end)}
	}
	for _, c := range []struct {
		name     string
		held     []*tandemv1.HeldChannel
		segments []*tandemv1.Segment
		want     bool
	}{
		{"nothing held", nil, nil, true},
		{"nothing came", []*tandemv1.HeldChannel{held("a", nil)}, nil, true},
		{"no file yet", []*tandemv1.HeldChannel{held("a", at(0))}, nil, false},
		{"another's file", []*tandemv1.HeldChannel{held("a", at(0))}, []*tandemv1.Segment{file("b", time.Hour)}, false},
		{"the last of two files", []*tandemv1.HeldChannel{held("a", at(0))}, []*tandemv1.Segment{file("a", ms(10)), file("a", -time.Hour)}, true},
		{"within the slack", []*tandemv1.HeldChannel{held("a", at(0))}, []*tandemv1.Segment{file("a", -slack)}, true},
		{"short of it", []*tandemv1.HeldChannel{held("a", at(0))}, []*tandemv1.Segment{file("a", -slack-ms(1))}, false},
	} {
		if got := reached(c.held, audit.Bounds(c.segments)); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestHeardSince(t *testing.T) {
	i := &tandemv1.Inventory{Channels: []*tandemv1.HeldChannel{{}, {LastPacket: at(0)}, {LastPacket: at(1)}}}
	if got := heardSince(i, noon); got != 1 {
		t.Error(got)
	}
	if heardSince(nil, noon) != 0 {
		t.Error("heard from nobody")
	}
}

func TestSampleOf(t *testing.T) {
	got := sampleOf(ms(5), &tandemv1.StatusResponse{
		Directors: []*tandemv1.DirectorStatus{{Sessions: 2, Channels: 8, Attached: 7}},
		Recorders: []*tandemv1.RecorderStatus{{State: "lost", Load: &tandemv1.Load{Legs: 3, PacketsPerS: 350, JournalLagBytes: 9}}},
		Alarms:    []*tandemv1.Alarm{{What: "recorder_lost", Object: "rec-1"}, {What: "cti_down"}},
	}, simState{Calls: 4})
	if got.Turrets != 2 || got.Channels != 8 || got.Attached != 7 || got.Calls != 4 || got.Legs != 3 || got.PacketsPS != 350 || got.JournalLag != 9 || got.Recorder != "lost" || len(got.Alarms) != 2 || got.Alarms[1] != "cti_down" {
		t.Errorf("%+v", got)
	}
	if got := sampleOf(0, nil, simState{}); got.Recorder != "unknown" {
		t.Errorf("%+v", got)
	}
}
