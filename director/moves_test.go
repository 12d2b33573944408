package director

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/director/provider"
	"tandem/internal/call"
)

// others are the recorders that are not this one.
func (r *rig) others(not *fakeRecorder) []*fakeRecorder {
	var all []*fakeRecorder
	for _, name := range r.names() {
		if rec := r.recorders[name]; rec != not {
			all = append(all, rec)
		}
	}
	return all
}

// talk has somebody speak on a turret's handset.
func (r *rig) talk(session string) {
	r.tell(callState("c-"+session, "established", r.now), join("l-"+session, "c-"+session, session, r.now))
	r.settle()
}

func TestFailover(t *testing.T) {
	r := started(t, "rec-1", "rec-2")
	r.tell(logOn("s1", r.now)...)
	r.settle()
	r.talk("s1")
	dead := r.holder("s1.m1.A")
	other := r.others(dead)[0]
	before := maps.Clone(r.dialogs)

	heard := r.now
	r.pass(100 * time.Millisecond)
	dead.up = false
	dead.boot++
	r.f.recorderDown(r.now, dead.name, "connection refused", heard)
	r.pass(2 * beat)
	if len(r.asked) != 2 {
		t.Fatalf("asked the switch for %d channels, want 2", len(r.asked))
	}
	live, idle := r.asked["s1.m1.A"], r.asked["s1.m2.A"]
	if live.Rank >= idle.Rank {
		t.Errorf("the live channel has rank %d, the idle one %d", live.Rank, idle.Rank)
	}
	if c := other.continued["s1.m1.A"]; c.GetCause() != "failover" || c.GetRecorder() != string(dead.name) || !c.GetSince().AsTime().Equal(heard.Add(-unwritten)) {
		t.Errorf("opened as the continuation of %v", c)
	}
	wantEqual(t, "alarms", r.alarmed(), []string{"no_headroom", "recorder_lost"})
	moving, unrecorded := r.f.unsettled()
	wantEqual(t, "moving and unrecorded", [2]int{moving, unrecorded}, [2]int{2, 2})

	r.answerAll()
	r.settle()
	for id, at := range before {
		if r.dialogs[id] == at {
			t.Errorf("%s is still sent to %v", id, at)
		}
	}
	if l := other.legs["l-s1"]; l == nil || l.GetEnd() != nil || other.calls["c-s1"] == nil {
		t.Errorf("%s was told %v of the leg that goes on", other.name, l)
	}
	wantEqual(t, "detached", len(r.detached), 0)
	_, unrecorded = r.f.unsettled()
	wantEqual(t, "unrecorded once moved", unrecorded, 0)

	r.connect(dead.name) // with what it held
	r.settle()
	r.wantAttached("s1.m1.A", "s1.m2.A")
	wantEqual(t, "closed at the old recorder", dead.closed["s1.m1.A"], "moved")
	moving, _ = r.f.unsettled()
	wantEqual(t, "moving", moving, 0)
	wantEqual(t, "alarms", r.alarmed(), []string{})
	r.tell(provider.LegLeft{Leg: "l-s1", At: r.now})
	r.settle()
	for _, rec := range []*fakeRecorder{dead, other} {
		if rec.legs["l-s1"].GetEnd() == nil {
			t.Errorf("%s does not know that the leg ended", rec.name)
		}
	}
}

// The recorder that took over dies before the switch has answered.
func TestSecondFailureDuringFailover(t *testing.T) {
	r := started(t, "rec-1", "rec-2", "rec-3")
	r.tell(logOn("s1", r.now)...)
	r.settle()
	first := r.holder("s1.m1.A")
	heard := r.now
	r.lose(first.name, true)
	r.pass(2 * beat)
	second := r.recorders[r.f.channels["s1.m1.A"].recorder]
	r.lose(second.name, true)
	r.pass(2 * beat)
	r.answerAll() // the switch was told of the second one, and now sends there
	r.settle()
	var third *fakeRecorder
	for _, rec := range r.others(first) {
		if rec != second {
			third = rec
		}
	}
	for _, id := range []call.ChannelID{"s1.m1.A", "s1.m2.A"} {
		if held := third.channels[string(id)]; held == nil || r.dialogs[id] != endpointOf(held.GetEndpoint()) {
			t.Errorf("%s is sent to %v, %s has %v", id, r.dialogs[id], third.name, held)
		}
		if c := third.continued[string(id)]; !c.GetSince().AsTime().Equal(heard.Add(-unwritten)) {
			t.Errorf("%s continues %v, was lost at %v", id, c, heard)
		}
	}
	r.connect(first.name)
	r.connect(second.name)
	r.settle()
	r.wantAttached("s1.m1.A", "s1.m2.A")
	wantEqual(t, "alarms", r.alarmed(), []string{})
}

// Without room for all, live channels move and the others are alarms, until there is room.
func TestFailoverWithoutRoom(t *testing.T) {
	r := started(t, "rec-1", "rec-2")
	r.recorders["rec-2"].unready = "elsewhere"
	r.f.recorderReports(r.now, "rec-2", r.recorders["rec-2"].load())
	for _, s := range []string{"s1", "s2", "s3"} {
		r.tell(logOn(s, r.now)...)
		r.settle()
	}
	r.talk("s2")
	r.talk("s3")
	r.recorders["rec-2"].unready, r.recorders["rec-2"].most = "", 2
	r.f.recorderReports(r.now, "rec-2", r.recorders["rec-2"].load())
	r.lose("rec-1", true)
	r.settle()
	wantEqual(t, "moved", slices.Sorted(maps.Keys(r.recorders["rec-2"].channels)), []string{"s2.m1.A", "s3.m1.A"})
	r.pass(2 * placeGrace)
	r.f.raise(r.now)
	for _, s := range []string{"s1", "s2", "s3"} {
		if a := r.f.alarms[alarmKey{"no_recorder", s}]; a == nil || !strings.Contains(a.text, "2 of 2 channels") {
			t.Errorf("%s: alarm %v", s, a)
		}
	}
	r.recorders["rec-2"].most = 6
	r.f.recorderReports(r.now, "rec-2", r.recorders["rec-2"].load())
	r.settle()
	r.connect("rec-1")
	r.settle()
	for _, s := range []string{"s1", "s2", "s3"} {
		r.wantAttached(mixID(s, 1), mixID(s, 2))
	}
	wantEqual(t, "on rec-2", len(r.recorders["rec-2"].channels), 6)
	r.pass(placeGrace)
	for _, what := range r.alarmed() {
		if what == "no_recorder" {
			t.Error("the alarm did not clear")
		}
	}
}

// A drained recorder keeps each channel until its media has moved, and gets
// nothing more until the drain is undone.
func TestDrain(t *testing.T) {
	r := started(t, "rec-1", "rec-2")
	r.tell(logOn("s1", r.now)...)
	r.settle()
	r.talk("s1")
	from := r.holder("s1.m1.A")
	to := r.others(from)[0]
	drained, err := r.f.commanded(string(from.name))
	if err != nil {
		t.Fatal(err)
	}
	drained.drain = &tandemv1.DrainRequest{}
	r.pass(3 * beat)
	if !from.draining || len(r.asked) != 2 || len(from.channels) != 2 || len(to.channels) != 2 {
		t.Fatalf("draining %v, asked %d, held by both %d and %d", from.draining, len(r.asked), len(from.channels), len(to.channels))
	}
	wantEqual(t, "state", drained.stateWord(), "draining")
	if c := to.continued["s1.m1.A"]; c != nil {
		t.Errorf("a planned move continues %v", c)
	}
	r.answerAll()
	r.pass(linger / 2)
	wantEqual(t, "held a moment after", len(from.channels), 2)
	r.pass(linger)
	wantEqual(t, "held in the end", len(from.channels), 0)
	r.wantAttached("s1.m1.A", "s1.m2.A")

	r.tell(logOn("s2", r.now)...)
	r.settle()
	wantEqual(t, "the next turret", r.holder("s2.m1.A").name, to.name)
	drained.drain = &tandemv1.DrainRequest{Undo: true}
	r.settle()
	wantEqual(t, "state", drained.stateWord(), "ready")
	wantEqual(t, "detached", len(r.detached), 0)
}

// A target that refuses leaves the channel where it is recorded.
func TestMoveRefused(t *testing.T) {
	r := started(t, "rec-1", "rec-2")
	r.tell(logOn("s1", r.now)...)
	r.settle()
	from := r.holder("s1.m1.A")
	to := r.others(from)[0]
	to.refuse = "no_port"
	target := r.f.recorders[to.name]
	_, channels := r.f.turret("t-s1")
	if n, err := r.f.moveTo(r.now, channels, "t-s1", target); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	r.settle()
	r.wantAttached("s1.m1.A", "s1.m2.A")
	wantEqual(t, "holder", r.holder("s1.m1.A").name, from.name)

	to.refuse, to.unready = "", "disk: 1.0% free"
	r.f.recorderReports(r.now, to.name, to.load())
	_, channels = r.f.turret("u-s1")
	if _, err := r.f.moveTo(r.now, channels, "t-s1", target); err == nil || err.Error() != "recorder "+string(to.name)+" cannot take turret t-s1: disk: 1.0% free" {
		t.Errorf("moved to a recorder that is not ready: %v", err)
	}
	if _, err := r.f.commanded("rec-9"); err == nil || !strings.Contains(err.Error(), `no recorder "rec-9" in group primary; there are rec-1, rec-2`) {
		t.Errorf("command for an unknown recorder: %v", err)
	}
}

// A switch that refuses to move keeps sending to where it did; that port stays open.
func TestSwitchRefusesToMove(t *testing.T) {
	r := started(t, "rec-1", "rec-2")
	r.tell(logOn("s1", r.now)...)
	r.settle()
	from := r.holder("s1.m1.A")
	_, channels := r.f.turret("s1")
	r.f.moveTo(r.now, channels, "t-s1", r.f.recorders[r.others(from)[0].name])
	for range 5 {
		r.pass(5 * time.Second)
		r.answer("s1.m1.A", errors.New("488 Not Acceptable Here"), false)
		r.answer("s1.m2.A", errors.New("488 Not Acceptable Here"), false)
		wantEqual(t, "held where it is sent", len(from.channels), 2)
	}
	r.pass(5 * time.Second)
	r.settle()
	r.wantAttached("s1.m1.A", "s1.m2.A")
}

// A director that died between the answer of the switch and the recorder's
// hearing of it leaves two recorders with the channel. The next one asks again.
func TestRestartInTheMiddleOfAMove(t *testing.T) {
	for _, told := range []bool{false, true} {
		t.Run(fmt.Sprint("switch told ", told), func(t *testing.T) {
			r := started(t, "rec-1", "rec-2")
			r.tell(logOn("s1", r.now)...)
			r.settle()
			from := r.holder("s1.m1.A")
			to := r.others(from)[0]
			_, channels := r.f.turret("s1")
			r.f.moveTo(r.now, channels, "t-s1", r.f.recorders[to.name])
			r.pass(3 * beat)
			if told {
				for id, req := range r.asked {
					r.dialogs[id] = req.Endpoint
				}
			}
			r.restartDirector()
			r.tell(provider.LinkUp{Peer: "switch"}, provider.SnapshotBegin{})
			r.tell(logOn("s1", noon)...)
			r.tell(provider.SnapshotEnd{})
			r.settle()
			r.wantAttached("s1.m1.A", "s1.m2.A")
			wantEqual(t, "closed while in use", len(from.closedWhile)+len(to.closedWhile), 0)
			wantEqual(t, "hung up", len(r.detached), 0)
		})
	}
}

func TestPulse(t *testing.T) {
	type phase struct {
		talking int
		lasts   time.Duration
	}
	for name, c := range map[string]struct {
		phases []phase
		deaf   bool
	}{
		"talking":             {[]phase{{50, 10 * time.Second}}, false},
		"never heard any":     {[]phase{{0, 10 * time.Second}}, false},
		"all silent at once":  {[]phase{{50, 5 * time.Second}, {0, 600 * time.Millisecond}}, true},
		"a hitch":             {[]phase{{50, 5 * time.Second}, {0, 300 * time.Millisecond}, {50, time.Second}}, false},
		"a few pause":         {[]phase{{20, 10 * time.Second}, {0, 5 * time.Second}}, false},
		"the floor goes home": {[]phase{{50, 5 * time.Second}, {20, 2 * time.Second}, {6, 3 * time.Second}, {2, 4 * time.Second}, {0, 10 * time.Second}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var p pulse
			now, deaf := noon, false
			for _, ph := range c.phases {
				for end := now.Add(ph.lasts); now.Before(end); now = now.Add(100 * time.Millisecond) {
					deaf = p.beat(now, ph.talking) || deaf // what it means the floor decides
				}
			}
			wantEqual(t, "deaf", deaf, c.deaf)
		})
	}
}

// A recorder that hears nothing loses its channels and is tried again later.
// Its silence is its own only if it is sent something, and others hear the switch.
func TestDeafRecorder(t *testing.T) {
	for name, c := range map[string]struct {
		turrets int
		other   int // talking elsewhere meanwhile
		linked  bool
		deaf    bool
	}{
		"deaf":                       {40, 40, true, true},
		"nothing is sent to it":      {1, 40, true, false},
		"all recorders hear nothing": {40, 0, true, false},
		"the switch is away":         {40, 40, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := started(t, "rec-1", "rec-2")
			for i := range c.turrets {
				r.tell(logOn(fmt.Sprint("s", i), r.now)...)
			}
			r.settle()
			victim := r.holder("s0.m1.A")
			other := r.others(victim)[0]
			beat := func(times, here, there int) {
				for range times {
					r.f.recorderBeats(r.now, victim.name, here)
					r.f.recorderBeats(r.now, other.name, there)
					r.pass(100 * time.Millisecond)
				}
			}
			beat(30, 40, 40)
			last := r.now
			if !c.linked {
				r.tell(provider.LinkDown{Peer: "switch", Heard: r.now, Err: errors.New("reset")})
			}
			beat(6, 0, c.other)
			if word := r.f.recorders[victim.name].stateWord(); (word == "busy") != c.deaf {
				t.Fatalf("the recorder is %s", word)
			}
			r.settle()
			moved := r.holder("s0.m1.A") == other
			wantEqual(t, "moved", moved, c.deaf)
			if !moved {
				return
			}
			since := other.continued["s0.m1.A"].GetSince().AsTime()
			if since.After(last.Add(-200*time.Millisecond)) || since.Before(last.Add(-500*time.Millisecond)) {
				t.Errorf("continues since %v, last heard %v", since, last)
			}
			beat(400, 0, 40)
			wantEqual(t, "state later", r.f.recorders[victim.name].stateWord(), "ready")
		})
	}
}

// One dead channel among many is the switch's to revive; most of them dead are the recorder's.
func TestDeadChannels(t *testing.T) {
	r := started(t, "rec-1", "rec-2")
	for i := range 20 {
		r.tell(logOn(fmt.Sprint("s", i), r.now)...)
	}
	r.settle()
	r.pass(2 * mediaDead)
	rec := r.holder("s1.m1.A")
	before := r.attempts
	report := rec.load()
	report.DeadChannels = []string{"s1.m1.A"}
	for range 5 {
		r.f.recorderReports(r.now, rec.name, report)
		r.act()
		r.settle()
	}
	wantEqual(t, "attempts to revive it", r.attempts-before, 1)
	wantEqual(t, "holder", r.holder("s1.m1.A").name, rec.name)
	report.DeadChannels = slices.Sorted(maps.Keys(rec.channels))
	r.f.recorderReports(r.now, rec.name, report)
	r.act()
	r.settle()
	if got := r.holder("s1.m1.A"); got == rec {
		t.Error("still on a recorder that hears nothing")
	}
}

// A turret is not placed while a recorder that has just come up has not yet
// told its load, but it does not wait for long.
func TestWaitsForTheFirstReport(t *testing.T) {
	r := started(t, "rec-1", "rec-2")
	silent := r.f.recorders["rec-2"]
	silent.load, silent.since = nil, r.now
	r.tell(logOn("s1", r.now)...)
	r.pass(loadGrace / 2)
	wantEqual(t, "state", r.state("s1.m1.A"), "waiting")
	r.pass(loadGrace)
	r.settle()
	r.wantAttached("s1.m1.A", "s1.m2.A")
	wantEqual(t, "holder", string(r.holder("s1.m1.A").name), "rec-1")
}

// A recorder that was lost and comes back without a channel is nowhere to
// return to, though the switch still sends there and nobody else takes it.
func TestComesBackWithoutChannels(t *testing.T) {
	r := newRig(t, "rec-1", "rec-2")
	r.start()
	r.tell(logOn("s1", r.now)...)
	r.settle()
	held := r.holder("s1.m1.A")
	for _, other := range r.recorders {
		if other != held {
			other.refuse = "no_port"
		}
	}
	r.lose(held.name, true)
	clear(held.channels)
	r.connect(held.name)
	r.settle()
	r.pass(10 * time.Second)
	r.settle()
	r.wantAttached("s1.m1.A", "s1.m2.A")
}

// A recorder keeps the dialog of a channel that comes back to it, even where the
// switch answered while another recorder was to take it.
func TestAnsweredOnTheWayElsewhere(t *testing.T) {
	for beats := range 12 { // it comes back while the other one is asked, has refused, or is asked again
		r := newRig(t, "rec-1", "rec-2")
		r.start()
		r.tell(logOn("s1", r.now)...)
		for len(r.asked) == 0 {
			r.pass(beat)
		}
		held := r.holder("s1.m1.A")
		for _, other := range r.recorders {
			if other != held {
				other.refuse = "no_port"
			}
		}
		r.lose(held.name, false)
		r.answerAll()
		r.pass(time.Duration(beats) * beat)
		r.connect(held.name)
		r.settle()
		r.wantAttached("s1.m1.A", "s1.m2.A")
	}
}

// A channel that is opened while calls are under way, and that nobody is known
// to have had, is missing since the first of them began; not what a logon takes.
func TestOpenedInTheMiddleOfACall(t *testing.T) {
	began := noon.Add(-time.Minute)
	for name, c := range map[string]struct {
		loggedOn time.Time
		legs     []time.Time
		want     time.Time // zero: nothing is missing
	}{
		"no call":                          {began, nil, time.Time{}},
		"the first of two calls":           {began, []time.Time{noon.Add(-3 * time.Second), noon.Add(-5 * time.Second)}, noon.Add(-5 * time.Second)},
		"a call as soon as logged on":      {noon.Add(-50 * time.Millisecond), []time.Time{noon.Add(-20 * time.Millisecond)}, time.Time{}},
		"long after such a call":           {began, []time.Time{began.Add(10 * time.Millisecond)}, began.Add(afterLogon)},
		"the switch gives another instant": {noon, []time.Time{began}, began},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "rec-1")
			r.connect("rec-1")
			r.tell(provider.LinkUp{Peer: "switch"}, provider.SnapshotBegin{})
			r.tell(logOn("s1", c.loggedOn)...)
			r.pass(snapshotGrace / 2) // the switch takes its time
			for n, at := range c.legs {
				id := fmt.Sprint(n)
				r.tell(callState("c"+id, "established", at), join("l"+id, "c"+id, "s1", at))
			}
			r.tell(provider.SnapshotEnd{})
			r.settle()
			r.wantAttached("s1.m1.A", "s1.m2.A")
			got := r.recorders["rec-1"].continued["s1.m1.A"]
			if c.want.IsZero() != (got == nil) || got != nil && (got.GetCause() != causeUnattached || got.GetRecorder() != "" || !got.GetSince().AsTime().Equal(c.want)) {
				t.Errorf("continues %v, want since %v", got, c.want)
			}
			if r.recorders["rec-1"].continued["s1.m2.A"] != nil {
				t.Error("a channel without a call misses something")
			}
			r.tell(callState("later", "established", r.now), join("later", "later", "s1", r.now))
			if r.f.channels["s1.m1.A"].continues != nil {
				t.Error("what is missing outlives the first media")
			}
		})
	}
}

// A channel that was opened before a call, and that the switch answers for only
// during it, misses the call's begin; one that it answers for in time does not.
func TestAnsweredInTheMiddleOfACall(t *testing.T) {
	for name, c := range map[string]struct {
		after time.Duration // the logon, that the call begins
		want  time.Duration // after it; 0: nothing is missing
	}{
		"answered late":                   {3 * time.Second, 3 * time.Second},
		"a call as soon as logged on":     {100 * time.Millisecond, afterLogon},
		"answered before the call begins": {10 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "rec-1")
			r.connect("rec-1")
			r.tell(provider.LinkUp{Peer: "switch"}, provider.SnapshotBegin{}, provider.SnapshotEnd{})
			on := r.now
			r.tell(logOn("s1", on)...)
			tell := func(at time.Duration) {
				if r.now.Sub(on) < at {
					r.pass(at - r.now.Sub(on))
				}
			}
			call := func() {
				tell(c.after)
				r.tell(callState("c1", "established", r.now), join("l1", "c1", "s1", r.now))
			}
			if c.want == 0 {
				r.settle()
			}
			call()
			r.pass(2 * time.Second)
			r.settle()
			r.wantAttached("s1.m1.A", "s1.m2.A")
			rec := r.recorders["rec-1"]
			if rec.continued["s1.m1.A"] != nil {
				t.Error("something was missing when the channel was opened")
			}
			got := rec.missed["s1.m1.A"]
			if (got == nil) != (c.want == 0) || got != nil && (got.GetCause() != causeUnattached || !got.GetSince().AsTime().Equal(on.Add(c.want))) {
				t.Errorf("missed %v, want since %v after %v", got, c.want, on)
			}
			if rec.missed["s1.m2.A"] != nil || r.f.channels["s1.m1.A"].missed != nil {
				t.Error("a channel without a call misses something, or one is told twice")
			}
		})
	}
}

// Of a call on a channel for which the switch has nothing but refusals the recorder
// is told while they last, once: it may never be answered.
func TestNeverAnswered(t *testing.T) {
	r := newRig(t, "rec-1")
	r.connect("rec-1")
	r.tell(provider.LinkUp{Peer: "switch"}, provider.SnapshotBegin{}, provider.SnapshotEnd{})
	r.tell(logOn("s1", r.now)...)
	refuse := func() {
		r.pass(2 * time.Second)
		for id := range r.asked {
			r.answer(id, errors.New("503"), false)
		}
		r.pass(time.Second)
	}
	refuse()
	rec, began := r.recorders["rec-1"], r.now
	if len(rec.missed) > 0 {
		t.Errorf("missed without a call: %v", rec.missed)
	}
	r.tell(callState("c1", "established", began), join("l1", "c1", "s1", began))
	r.pass(2 * beat)
	told := rec.missed["s1.m1.A"]
	if told.GetCause() != causeUnattached || !told.GetSince().AsTime().Equal(began) || len(rec.missed) != 1 {
		t.Errorf("told %v, want since %v of s1.m1.A alone", rec.missed, began)
	}
	delete(rec.missed, "s1.m1.A")
	refuse()
	r.settle()
	r.wantAttached("s1.m1.A", "s1.m2.A")
	if len(rec.missed) > 0 {
		t.Errorf("told twice: %v", rec.missed)
	}
}

// A channel whose dialog nobody can read has been answered, and heard.
func TestAnsweredBefore(t *testing.T) {
	r := newRig(t, "rec-1")
	r.connect("rec-1")
	r.tell(provider.LinkUp{Peer: "switch"}, provider.SnapshotBegin{}, provider.SnapshotEnd{})
	r.tell(logOn("s1", r.now)...)
	r.pass(5 * time.Second)
	r.tell(callState("c1", "established", r.now), join("l1", "c1", "s1", r.now))
	r.tell(provider.Adopted{Channel: "s1.m1.A", Err: errors.New("no dialog")})
	r.answer("s1.m1.A", errors.New("503"), false)
	r.pass(5 * time.Second)
	r.settle()
	r.wantAttached("s1.m1.A")
	if missed := r.recorders["rec-1"].missed; len(missed) > 0 {
		t.Errorf("missed %v", missed)
	}
}

// What nobody had stays missing when the recorder that was to take it is lost
// before the switch sends; what it then misses itself is part of that.
func TestLostBeforeTheFirstPacket(t *testing.T) {
	r := newRig(t, "rec-1", "rec-2")
	for _, name := range r.names() {
		r.connect(name)
	}
	began := noon.Add(-time.Minute)
	r.tell(provider.LinkUp{Peer: "switch"}, provider.SnapshotBegin{})
	r.tell(logOn("s1", began.Add(-time.Minute))...)
	r.tell(callState("c1", "established", began), join("l1", "c1", "s1", began), provider.SnapshotEnd{})
	r.pass(20 * beat)
	first := r.f.channels["s1.m1.A"].recorder
	if first == "" || r.recorders[first].continued["s1.m1.A"] == nil {
		t.Fatalf("not opened with %q", first)
	}
	r.lose(first, true)
	r.settle()
	second := r.recorders[r.f.channels["s1.m1.A"].recorder]
	if got := second.continued["s1.m1.A"]; second.name == first || !got.GetSince().AsTime().Equal(began) {
		t.Errorf("%s continues %v, want since %v", second.name, got, began)
	}
}
