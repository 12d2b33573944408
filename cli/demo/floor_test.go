package demo

import (
	"slices"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/cli/audit"
	"tandem/cli/process"
	"tandem/cli/scenario"
	directordaemon "tandem/director"
	"tandem/internal/config"
	recorderdaemon "tandem/recorder"
	"tandem/turretsim"
	"tandem/watchdog"
)

// What the demo writes, the daemons read without fault, even where the
// directory has a name that TOML must quote.
func TestConfigure(t *testing.T) {
	f := &floor{options: Options{Turrets: 7, Seed: 3}, dir: t.TempDir()}
	daemon := func(name string) *process.Process {
		return &process.Process{Name: name, Config: f.path(name + `".toml`)}
	}
	f.sim = daemon("turretsim")
	for _, side := range []string{"a", "b"} {
		f.directors = append(f.directors, &director{Process: daemon("dir-" + side), watchdog: daemon("wd-" + side)})
	}
	f.recorders = []*recorder{{Process: daemon("rec-1"), host: "127.0.0.1"}, {Process: daemon("rec-2"), host: "127.0.0.2"}, {Process: daemon("rec-3"), host: "127.0.0.3"}}
	if err := f.configure(); err != nil {
		t.Fatal(err)
	}
	sim, err := config.Load(f.sim.Config, turretsim.DefaultConfig())
	if err != nil || sim.Floor.Turrets != 7 || sim.Seed != 3 || sim.Floor.Mixes != mixes {
		t.Errorf("%+v, %v", sim, err)
	}
	var pair []directordaemon.Config
	for _, d := range f.directors {
		dir, err := config.Load(d.Config, directordaemon.DefaultConfig())
		if err != nil || dir.Control != d.at || len(dir.Recorders) != 3 || dir.Provider.Unigy.Servers[0] != sim.CTI.Listen || dir.Provider.Unigy.User != sim.CTI.User {
			t.Errorf("%+v, %v", dir, err)
		}
		dog, err := config.Load(d.watchdog.Config, watchdog.DefaultConfig())
		if err != nil || dog.DirectorConfig != d.Config {
			t.Errorf("%+v, %v", dog, err)
		}
		pair = append(pair, dir)
	}
	for n, dir := range pair {
		peer := pair[1-n]
		if dir.Failover.Peer != peer.Control || dir.Failover.PeerMonitor[0] != peer.Monitor || dir.Failover.Preferred != (n == 0) {
			t.Errorf("%+v", dir.Failover)
		}
	}
	var people struct {
		Directors, Watchdogs []string
		Switch               string
		TruthLog             string `toml:"truth_log"`
	}
	if _, err := toml.DecodeFile(f.path(recctlFile), &people); err != nil || !slices.Equal(people.Directors, []string{pair[0].Control, pair[1].Control}) || people.Switch != sim.Control || people.TruthLog != sim.TruthLog || people.Watchdogs == nil {
		t.Errorf("%+v, %v", people, err)
	}
	for n, r := range f.recorders {
		rec, err := config.Load(r.Config, recorderdaemon.DefaultConfig())
		if known := pair[0].Recorders[n]; err != nil || rec.Media.Keep != "all" || rec.Control != r.at || rec.RTP.Host != r.host || known.Address != r.at || known.Name != rec.Name || pair[1].Failover.Voters[n] != r.at {
			t.Errorf("%+v, %v", rec, err)
		}
	}
}

// The second group takes the other copy through recorders of its own, which its
// directors and those of the first know nothing of each other's.
func TestConfigureTwin(t *testing.T) {
	f := &floor{options: Options{Turrets: 3, Twin: true}, dir: t.TempDir()}
	daemon := func(name string) *process.Process {
		return &process.Process{Name: name, Config: f.path(name + ".toml")}
	}
	f.sim = daemon("turretsim")
	for _, side := range []string{"a", "b"} {
		f.directors = append(f.directors, &director{Process: daemon("dir-" + side), watchdog: daemon("wd-" + side)})
	}
	f.recorders = []*recorder{{Process: daemon("rec-1"), host: "127.0.0.1"}}
	f.twin = &twin{director: &director{Process: daemon("dir-c")}, recorders: []*recorder{{Process: daemon("rec-2"), host: "127.0.0.2"}, {Process: daemon("rec-3"), host: "127.0.0.3"}}}
	if err := f.configure(); err != nil {
		t.Fatal(err)
	}
	sim, err := config.Load(f.sim.Config, turretsim.DefaultConfig())
	if err != nil || !slices.Equal(sim.Floor.Copies, []string{"A", "B"}) {
		t.Errorf("%+v, %v", sim.Floor, err)
	}
	second, err := config.Load(f.twin.director.Config, directordaemon.DefaultConfig())
	if err != nil || second.Group != secondary || !second.Secondary || len(second.Recorders) != 2 || !second.Failover.Alone() {
		t.Errorf("%+v, %v", second, err)
	}
	first, err := config.Load(f.directors[0].Config, directordaemon.DefaultConfig())
	if err != nil || first.Group != primary || first.Secondary || len(first.Recorders) != 1 || len(first.Failover.Voters) != 1 {
		t.Errorf("%+v, %v", first, err)
	}
	for n, r := range f.allRecorders() {
		rec, err := config.Load(r.Config, recorderdaemon.DefaultConfig())
		if want := map[bool]string{true: primary, false: secondary}[n == 0]; err != nil || rec.Group != want {
			t.Errorf("%s: %q, %v", r.Name, rec.Group, err)
		}
	}
	listening := map[string]string{}
	for name, at := range map[string]string{"dir-a": first.Control, "dir-a metrics": first.Metrics, "dir-a sip": first.Provider.Unigy.SIPListen,
		"dir-c": second.Control, "dir-c metrics": second.Metrics, "dir-c sip": second.Provider.Unigy.SIPListen} {
		if other := listening[at]; other != "" {
			t.Errorf("%s and %s both listen at %s", name, other, at)
		}
		listening[at] = name
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
		if got := reached(c.held, audit.Bounds(c.segments), slack); got != c.want {
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
		Directors: []*tandemv1.DirectorStatus{{Name: "dir-b", Role: "active", Sessions: 2, Channels: 8, Attached: 7}, {Name: "dir-a", Role: "passive"}},
		Recorders: []*tandemv1.RecorderStatus{
			{Name: "rec-1", State: "lost"},
			{Name: "rec-2", State: "ready", Load: &tandemv1.Load{PacketsPerS: 350, JournalLagBytes: 9}},
			{Name: "rec-3", State: "ready", Load: &tandemv1.Load{PacketsPerS: 50, JournalLagBytes: 1}},
		},
		Alarms: []*tandemv1.Alarm{{What: "recorder_lost", Object: "rec-1"}, {What: "cti_down"}},
	}, scenario.SwitchState{Calls: 4, Legs: 3})
	if got.Turrets != 2 || got.Channels != 8 || got.Attached != 7 || got.Calls != 4 || got.Legs != 3 || got.PacketsPS != 400 || got.JournalLag != 10 ||
		got.Leads != "dir-b" || got.Recorders != "2 ready, rec-1 lost" || len(got.Alarms) != 2 || got.Alarms[1] != "cti_down" {
		t.Errorf("%+v", got)
	}
	if got := sampleOf(0, nil, scenario.SwitchState{}); got.Recorders != "unknown" || got.Leads != "nobody" {
		t.Errorf("%+v", got)
	}
}

func TestAllReady(t *testing.T) {
	status := func(states ...string) *tandemv1.StatusResponse {
		s := &tandemv1.StatusResponse{}
		for n, state := range states {
			s.Recorders = append(s.Recorders, &tandemv1.RecorderStatus{Name: string(rune('a' + n)), State: state})
		}
		return s
	}
	for _, c := range []struct {
		status *tandemv1.StatusResponse
		want   bool
	}{{nil, false}, {status(), false}, {status("ready", "lost"), false}, {status("ready", "ready"), true}} {
		if got := allReady(c.status); got != c.want {
			t.Errorf("%v: %v", c.status, got)
		}
	}
	if got := stateOf(status("ready", "lost"), "b") + stateOf(status("ready"), "b") + stateOf(nil, "b"); got != "lost" {
		t.Error(got)
	}
}
