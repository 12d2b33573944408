package director

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"tandem/director/provider"
	"tandem/internal/call"
	"tandem/internal/config"
)

// dawning is a floor that starts: the director leads, the switch has told of its
// agents, and of the recorders only the first is there.
func dawning(t *testing.T, turrets int, names ...string) *rig {
	r := newRig(t, names...)
	for _, name := range names[1:] {
		r.f.recorderDown(r.now, call.RecorderName(name), "connection refused", r.now)
	}
	r.connect(call.RecorderName(names[0]))
	r.tell(provider.LinkUp{Peer: "switch"}, provider.SnapshotBegin{})
	for n := range turrets {
		r.tell(logOn(fmt.Sprint("s", n), noon)...)
	}
	r.tell(provider.SnapshotEnd{})
	return r
}

// spread is how many channels each recorder holds.
func (r *rig) spread() (all []int) {
	for _, name := range r.names() {
		all = append(all, len(r.recorders[name].channels))
	}
	return all
}

// A floor that starts at once is not filled into the recorder that is ready first.
func TestFloorStartsAtOnce(t *testing.T) {
	r := dawning(t, 60, "rec-1", "rec-2", "rec-3")
	r.pass(r.f.company / 2)
	wantEqual(t, "placed before the others are there", r.spread(), []int{0, 0, 0})
	if why := r.f.sessions["s0"].reason; !strings.Contains(why, "waits up to 1s for recorders that start: rec-2 (connection refused), rec-3 (connection refused)") {
		t.Errorf("says %q", why)
	}
	r.connect("rec-2")
	r.pass(2 * beat)
	wantEqual(t, "placed before the last one is there", r.spread(), []int{0, 0, 0})
	r.recorders["rec-3"].unready = reasonStarting
	r.connect("rec-3")
	r.pass(2 * beat)
	wantEqual(t, "placed before the last one knows", r.spread(), []int{0, 0, 0})
	r.recorders["rec-3"].unready = ""
	r.f.recorderReports(r.now, "rec-3", r.recorders["rec-3"].load())
	r.pass(2 * beat)
	r.answerAll()
	r.pass(beat)
	for n, channels := range r.spread() {
		if channels < 30 || channels > 50 {
			t.Errorf("rec-%d has %d of 120 channels", n+1, channels)
		}
	}
	wantEqual(t, "alarms", r.alarmed(), []string{})
}

// A live leg is not kept waiting, nor anybody for long; nor at all when whoever is
// not there was not expected, or is only a spare.
func TestWaitsForCompany(t *testing.T) {
	placed := func(r *rig) bool { r.pass(2 * beat); return r.state("s0.m1.A") != "waiting" }
	for name, c := range map[string]struct {
		change func(*rig)
		want   bool // placed at once
	}{
		"the others start": {func(*rig) {}, false},
		"somebody speaks":  {func(r *rig) { r.tell(callState("c1", "established", r.now), join("l1", "c1", "s0", r.now)) }, true},
		"the others are spares": {func(r *rig) {
			r.f.recorders["rec-2"].Priority, r.f.recorders["rec-3"].Priority = 1, 2
		}, true},
		"only a spare is there": {func(r *rig) { r.f.recorders["rec-1"].Priority = 1 }, false},
		"the others have been off for long": {func(r *rig) {
			r.f.recorders["rec-2"].since, r.f.recorders["rec-3"].since = r.now.Add(-dawn), r.now.Add(-dawn)
		}, true},
		"the others are lost": {func(r *rig) {
			for _, name := range []call.RecorderName{"rec-2", "rec-3"} {
				r.connect(name)
				r.lose(name, true)
			}
		}, true},
		"the others cannot": {func(r *rig) {
			for _, name := range []call.RecorderName{"rec-2", "rec-3"} {
				r.recorders[name].unready = "disk reserve"
				r.connect(name)
			}
		}, true},
		"the others obey another": {func(r *rig) {
			r.f.recorderRefuses(r.now, "rec-2", "it obeys another")
			r.f.recorderRefuses(r.now, "rec-3", "it obeys another")
		}, true},
	} {
		r := dawning(t, 1, "rec-1", "rec-2", "rec-3")
		c.change(r)
		if got := placed(r); got != c.want {
			t.Errorf("%s: placed at once: %t", name, got)
		}
		r.pass(r.f.company)
		if r.state("s0.m1.A") == "waiting" {
			t.Errorf("%s: still waits after %v", name, r.f.company)
		}
	}
}

// It is from when something could be placed that company is waited for, however
// long nobody was there; and not again because a director has led for long.
func TestCompanyBeginsWithTheFirst(t *testing.T) {
	r := newRig(t, "rec-1", "rec-2")
	for _, name := range r.names() {
		r.f.recorderDown(r.now, name, "connection refused", r.now)
	}
	r.tell(provider.LinkUp{Peer: "switch"}, provider.SnapshotBegin{})
	r.tell(logOn("s0", r.now)...)
	r.tell(provider.SnapshotEnd{})
	r.pass(dawn / 2)
	wantEqual(t, "alarms", r.alarmed(), []string{"no_headroom", "no_recorder", "recorder_lost"})
	r.connect("rec-1")
	r.pass(r.f.company - 2*beat)
	wantEqual(t, "state", r.state("s0.m1.A"), "waiting")
	r.pass(4 * beat)
	r.settle()
	r.wantAttached("s0.m1.A", "s0.m2.A")
	r.tell(logOn("s1", r.now)...)
	r.pass(2 * beat)
	if r.state("s1.m1.A") == "waiting" {
		t.Error("a later logon waits, too")
	}
}

func TestCompanyFollowsTheTimeout(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{
		200 * time.Millisecond: 400 * time.Millisecond, 500 * time.Millisecond: time.Second, time.Minute: companyMost,
	} {
		cfg := testConfig()
		cfg.RecorderTimeout = config.Duration(timeout)
		wantEqual(t, fmt.Sprint(timeout), companyOf(cfg), want)
	}
}

// Recorders that start with a director are looked for often, those that do not
// come less and less.
func TestLooksOftenAtFirst(t *testing.T) {
	var tries []time.Duration
	for pause, age := time.Duration(0), time.Duration(0); age < 8*time.Second; age += pause {
		tries = append(tries, age)
		pause = nextPause(pause, age)
	}
	for n := 1; n < len(tries); n++ {
		gap := tries[n] - tries[n-1]
		if tries[n-1] < eager && gap != reconnectMin || gap > reconnectMax {
			t.Errorf("looks after %v and then after %v", tries[n-1], tries[n])
		}
	}
	if last := tries[len(tries)-1] - tries[len(tries)-2]; last != reconnectMax {
		t.Errorf("ends by looking every %v", last)
	}
}

// Recorders on one host share its processors, and so the figure for them, even if
// one of them has not measured any yet.
func TestOneHostHasOneFigure(t *testing.T) {
	r := started(t, "rec-1", "rec-2", "rec-3", "rec-4")
	r.f.recorders["rec-4"].Address = "10.0.0.4:7402"
	for name, cpu := range map[call.RecorderName]float64{"rec-1": 61, "rec-2": 74, "rec-3": 0, "rec-4": 3} {
		l := r.recorders[name].load()
		l.HostCpuPercent = cpu
		r.f.recorderReports(r.now, name, l)
	}
	got := make(map[call.RecorderName]float64)
	for _, c := range r.f.candidates() {
		got[c.Name] = c.Load.CPU
	}
	want := map[call.RecorderName]float64{"rec-1": 74, "rec-2": 74, "rec-3": 74, "rec-4": 3}
	if !maps.Equal(got, want) {
		t.Errorf("processors are %v, want %v", got, want)
	}
}
