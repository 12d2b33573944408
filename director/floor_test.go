package director

import (
	"errors"
	"testing"
	"time"

	"tandem/director/provider"
	"tandem/internal/call"
)

func started(t *testing.T, names ...string) *rig {
	r := newRig(t, names...)
	r.start()
	return r
}

func TestLogonAttachesEveryMix(t *testing.T) {
	r := started(t, "rec-1", "rec-2")
	r.tell(logOn("s1", r.now)...)
	r.settle()
	r.wantAttached("s1.m1.A", "s1.m2.A")
	wantEqual(t, "one recorder for a turret", r.holder("s1.m1.A").name, r.holder("s1.m2.A").name)
	wantEqual(t, "attempts", r.attempts, 2)
	wantEqual(t, "alarms", r.alarmed(), []string{})

	r.tell(provider.LoggedOff{Session: "s1", At: r.now})
	r.settle()
	if r.holder("s1.m1.A") != nil || len(r.dialogs) != 0 || len(r.f.channels) != 0 || len(r.f.sessions) != 0 {
		t.Fatalf("left after logoff: %v %v", r.dialogs, r.f.channels)
	}
}

func TestManyTurretsSpread(t *testing.T) {
	r := started(t, "rec-1", "rec-2", "rec-3")
	for i := range 60 {
		r.tell(logOn(string(rune('a'+i%26))+string(rune('a'+i/26)), r.now)...)
	}
	r.settle()
	for _, rec := range r.recorders {
		if n := len(rec.channels); n < 30 || n > 50 {
			t.Errorf("%s holds %d of 120 channels", rec.name, n)
		}
	}
}

func TestRedialPauses(t *testing.T) {
	r := started(t, "rec-1")
	r.tell(logOn("s1", r.now)...)
	r.pass(2 * beat)
	last := r.now
	for i, want := range []time.Duration{200, 500, 1000, 2000, 5000, 5000} {
		r.answer("s1.m1.A", errors.New("503"), false)
		for r.asked["s1.m1.A"].Channel == "" {
			r.pass(beat)
			if r.now.Sub(last) > 6*time.Second {
				t.Fatalf("never dialled again after attempt %d", i+1)
			}
		}
		if got := r.now.Sub(last); got < want*time.Millisecond || got > want*time.Millisecond+beat {
			t.Fatalf("pause %d was %v, want %v", i+1, got, want*time.Millisecond)
		}
		last = r.now
	}
	wantEqual(t, "alarms", r.alarmed(), []string{"channel_down"})
	r.settle()
	r.wantAttached("s1.m1.A")
	wantEqual(t, "alarms", r.alarmed(), []string{})
}

func TestHangUpIsMetAtOnce(t *testing.T) {
	r := started(t, "rec-1")
	r.tell(logOn("s1", r.now)...)
	r.settle()
	delete(r.dialogs, "s1.m1.A")
	r.tell(provider.Dropped{Channel: "s1.m1.A", Cause: "whim"})
	if r.asked["s1.m1.A"].Channel == "" {
		t.Fatal("not dialled again at once")
	}
	r.answerAll()
	// It hangs up again right away: no race against the switch.
	delete(r.dialogs, "s1.m1.A")
	r.tell(provider.Dropped{Channel: "s1.m1.A"})
	if r.asked["s1.m1.A"].Channel != "" {
		t.Fatal("dialled at once a dialog that does not last")
	}
	r.settle()
	r.wantAttached("s1.m1.A", "s1.m2.A")
}

func TestTakenIsLeftAlone(t *testing.T) {
	r := started(t, "rec-1")
	r.tell(logOn("s1", r.now)...)
	r.settle()
	before := r.attempts
	r.tell(provider.Dropped{Channel: "s1.m1.A", Taken: true})
	r.pass(time.Minute)
	wantEqual(t, "attempts", r.attempts, before)
	wantEqual(t, "state", r.state("s1.m1.A"), "lost")
	wantEqual(t, "alarms", r.alarmed(), []string{"channel_down"})
	if r.holder("s1.m1.A") == nil {
		t.Fatal("closed at the recorder: what is still under way is lost")
	}
	// Named again by a snapshot, it stays with whom took it; announced anew, it is free.
	r.tell(provider.LinkDown{Peer: "switch", Heard: r.now}, provider.LinkUp{}, provider.SnapshotBegin{})
	r.tell(logOn("s1", noon)...)
	r.tell(provider.SnapshotEnd{})
	r.settle()
	wantEqual(t, "attempts", r.attempts, before)
	r.tell(provider.ChannelAvailable{Channel: mix("s1", 1, "HS.L")})
	r.settle()
	r.wantAttached("s1.m1.A")
}

func TestNoRecorder(t *testing.T) {
	r := newRig(t, "rec-1")
	r.recorders["rec-1"].up = false
	r.f.recorderDown(r.now, "rec-1", "connection refused", r.now)
	r.tell(provider.LinkUp{Peer: "switch"}, provider.SnapshotBegin{}, provider.SnapshotEnd{})
	r.tell(logOn("s1", r.now)...)
	r.tell(callState("c1", "established", r.now), join("l1", "c1", "s1", r.now))
	r.settle()
	wantEqual(t, "alarms", r.alarmed(), []string{"no_recorder", "recorder_lost"})
	alarm := r.f.alarms[alarmKey{"no_recorder", "s1"}]
	wantEqual(t, "text", alarm.text, "User s1 at t-s1: 2 of 2 channels are not recorded, 1 with a live call: place turret t-s1: rec-1: lost: connection refused")
	wantEqual(t, "state", r.state("s1.m1.A"), "waiting")
	r.connect("rec-1")
	r.settle()
	r.wantAttached("s1.m1.A", "s1.m2.A")
	if r.recorders["rec-1"].legs["l1"] == nil || r.recorders["rec-1"].calls["c1"] == nil {
		t.Fatal("the leg that went on was not told")
	}
	wantEqual(t, "alarms", r.alarmed(), []string{})
}

func TestRecorderRefusesChannels(t *testing.T) {
	r := started(t, "rec-1", "rec-2")
	r.recorders["rec-1"].refuse = "no_port"
	r.recorders["rec-2"].refuse = "no_port"
	r.tell(logOn("s1", r.now)...)
	r.settle()
	if len(r.asked) > 0 || len(r.dialogs) > 0 {
		t.Fatal("dialled without a port")
	}
	r.recorders["rec-2"].refuse = ""
	r.pass(30 * time.Second) // both get asked in turn
	r.recorders["rec-1"].refuse = ""
	r.settle()
	r.wantAttached("s1.m1.A", "s1.m2.A")
}

// A recorder that is killed and restarts finds its channels itself: no SIP at all.
func TestRecorderRestart(t *testing.T) {
	r := started(t, "rec-1")
	r.tell(logOn("s1", r.now)...)
	r.tell(callState("c1", "established", r.now), join("l1", "c1", "s1", r.now))
	r.settle()
	attempts := r.attempts
	rec := r.recorders["rec-1"]

	r.lose("rec-1", true)
	wantEqual(t, "alarms", r.alarmed(), []string{"recorder_lost"})
	r.tell(provider.LegLeft{Leg: "l1", At: r.now})
	r.pass(time.Second)
	rec.legs, rec.calls = make(map[string]*legRecord), make(map[string]*callRecord)
	r.connect("rec-1")
	r.settle()
	r.wantAttached("s1.m1.A", "s1.m2.A")
	wantEqual(t, "attempts", r.attempts, attempts)
	wantEqual(t, "detached", len(r.detached), 0)
	if rec.legs["l1"].GetEnd() == nil || rec.calls["c1"] == nil {
		t.Fatalf("records not told again: %v", rec.legs)
	}

	// One channel is gone, one has another port: the first is opened again, both are moved.
	r.lose("rec-1", true)
	delete(rec.channels, "s1.m1.A")
	rec.channels["s1.m2.A"].Endpoint.RtpPort = 30_000
	r.connect("rec-1")
	r.settle()
	r.wantAttached("s1.m1.A", "s1.m2.A")
	wantEqual(t, "attempts", r.attempts, attempts+2)
	wantEqual(t, "detached", len(r.detached), 0)
}

// The next director goes on where the last one stopped: no SIP for what is well.
func TestDirectorRestart(t *testing.T) {
	r := started(t, "rec-1", "rec-2")
	r.tell(logOn("s1", r.now)...)
	r.tell(logOn("s2", r.now)...)
	r.tell(callState("c1", "established", r.now), join("l1", "c1", "s1", r.now))
	r.tell(callState("c2", "established", r.now), join("l2", "c2", "s2", r.now))
	r.settle()
	attempts := r.attempts
	start := r.now
	r.pass(time.Minute)

	r.restartDirector()
	wantEqual(t, "epoch", r.f.epoch, uint64(4))
	wantEqual(t, "sessions known from recorders", len(r.f.sessions), 2)
	r.tell(provider.LinkUp{Peer: "switch"}, provider.SnapshotBegin{})
	r.tell(logOn("s1", noon)...)
	r.tell(logOn("s3", noon)...) // came while nobody looked; s2 left
	r.tell(callState("c1", "established", start), join("l1", "c1", "s1", start))
	r.tell(provider.SnapshotEnd{})
	r.settle()
	r.wantAttached("s1.m1.A", "s1.m2.A", "s3.m1.A", "s3.m2.A")
	wantEqual(t, "attempts", r.attempts, attempts+2)
	wantEqual(t, "orphan", r.state("s2.m1.A"), "orphaned")
	if r.holder("s2.m1.A") == nil || len(r.detached) > 0 {
		t.Fatal("the orphan was let go before its grace")
	}
	rec := r.holder("s1.m1.A")
	if l := rec.legs["l1"]; l.GetEnd() != nil || l.GetAccuracy() != accuracyExact {
		t.Fatalf("leg that goes on: %v", l)
	}
	if l := r.holder("s2.m1.A").legs["l2"]; l.GetEnd() == nil || l.GetEndCause() != "cti_outage" || l.GetAccuracy() != accuracyCut {
		t.Fatalf("leg that nobody names: %v", l)
	}
	holder := r.holder("s2.m1.A")
	r.pass(31 * time.Second)
	if r.holder("s2.m1.A") != nil || holder.closed["s2.m1.A"] != "orphaned" || len(r.detached) != 2 {
		t.Fatalf("orphan after its grace: closed %v, detached %v", holder.closed, r.detached)
	}
}

// A call is released after its last leg: its recorder hears of that though it
// has all that is to be known of the leg, and the leg is dropped.
func TestReleaseAfterTheLastLeg(t *testing.T) {
	r := started(t, "rec-1")
	r.tell(logOn("s1", r.now)...)
	r.tell(callState("c1", "established", r.now), join("l1", "c1", "s1", r.now))
	r.settle()
	r.tell(provider.LegLeft{Leg: "l1", At: r.now})
	r.settle()
	wantEqual(t, "legs held", len(r.f.legs), 0)
	r.pass(100 * time.Millisecond)
	released := r.now
	r.tell(callState("c1", "released", released))
	r.settle()
	if c := r.recorders["rec-1"].calls["c1"]; !c.GetEnd().AsTime().Equal(released) || c.GetState() != "released" {
		t.Errorf("the recorder has %v", c)
	}
	wantEqual(t, "calls held", len(r.f.calls), 0)
}

func TestRecorderBehindTheSnapshot(t *testing.T) {
	r := started(t, "rec-1", "rec-2")
	r.tell(logOn("s1", r.now)...)
	r.settle()
	name := r.holder("s1.m1.A").name
	attempts := r.attempts
	// The next director does not reach that recorder until later.
	r.recorders[name].up = false
	r.restartDirector()
	r.pass(time.Second)
	r.connect(name)
	r.tell(provider.LinkUp{Peer: "switch"}, provider.SnapshotBegin{})
	r.tell(logOn("s1", noon)...)
	r.tell(provider.SnapshotEnd{})
	r.settle()
	r.wantAttached("s1.m1.A", "s1.m2.A")
	wantEqual(t, "attempts", r.attempts, attempts)
}

func TestCTILost(t *testing.T) {
	r := started(t, "rec-1")
	r.tell(logOn("s1", r.now)...)
	r.tell(logOn("s2", r.now)...)
	r.tell(callState("c1", "established", r.now), join("l1", "c1", "s1", r.now))
	r.tell(callState("c2", "established", r.now), join("l2", "c2", "s2", r.now))
	r.settle()
	rec := r.recorders["rec-1"]
	rec.blind = nil
	heard := r.now
	r.pass(time.Second)
	r.tell(provider.LinkDown{Peer: "switch", Heard: heard, Err: errors.New("reset")})
	r.pass(5 * time.Second)
	wantEqual(t, "alarms", r.alarmed(), []string{"cti_down"})
	wantEqual(t, "detached", len(r.detached), 0)
	if len(rec.blind) != 1 || !rec.blind[0].GetFrom().AsTime().Equal(heard) || rec.blind[0].GetTo() != nil {
		t.Fatalf("blind windows %v", rec.blind)
	}
	if rec.legs["l1"].GetEnd() != nil {
		t.Fatal("leg ended with the link")
	}
	r.tell(provider.LinkUp{Peer: "switch"}, provider.SnapshotBegin{})
	r.tell(logOn("s1", noon)...)
	r.tell(logOn("s2", noon)...)
	r.tell(callState("c1", "held", noon), join("l1", "c1", "s1", noon))
	r.tell(provider.SnapshotEnd{})
	r.settle()
	if len(rec.blind) != 2 || !rec.blind[1].GetFrom().AsTime().Equal(heard) || rec.blind[1].GetTo() == nil {
		t.Fatalf("blind windows %v", rec.blind)
	}
	wantEqual(t, "call that went on", rec.calls["c1"].GetState(), "held")
	wantEqual(t, "call that nobody names", rec.calls["c2"].GetEndCause(), "cti_outage")
	if l := rec.legs["l2"]; l.GetEndCause() != "cti_outage" || !l.GetEnd().AsTime().Equal(heard) {
		t.Fatalf("leg that nobody names: %v", l)
	}
	if rec.legs["l1"].GetEnd() != nil {
		t.Fatal("the leg that went on was ended")
	}
}

func TestCalls(t *testing.T) {
	at := func(s int) time.Time { return noon.Add(time.Hour + time.Duration(s)*time.Second) }
	moved := provider.LegMoved{Leg: legOn("l1", "c1", "s1", "SPK.1"), Channels: []call.ChannelID{"s1.m2.A"}, At: at(5)}
	for name, c := range map[string]struct {
		events []provider.Event
		want   map[string]string // record: start-end cause accuracy, seconds after at(0)
	}{
		"as it should be": {[]provider.Event{callState("c1", "offered", at(0)), callState("c1", "established", at(1)), join("l1", "c1", "s1", at(2)),
			provider.LegLeft{Leg: "l1", At: at(9)}, callState("c1", "released", at(9))}, map[string]string{"l1": "2-9 left exact"}},
		"goes on":        {[]provider.Event{callState("c1", "established", at(1)), join("l1", "c1", "s1", at(2))}, map[string]string{"l1": "2- exact"}},
		"released first": {[]provider.Event{callState("c1", "established", at(1)), join("l1", "c1", "s1", at(2)), callState("c1", "released", at(8)), provider.LegLeft{Leg: "l1", At: at(9)}}, map[string]string{"l1": "2-8 released cut"}},
		"logged off":     {[]provider.Event{callState("c1", "established", at(1)), join("l1", "c1", "s1", at(2)), provider.LoggedOff{Session: "s1", At: at(7)}}, map[string]string{"l1": "2-7 left cut"}},
		"moved":          {[]provider.Event{callState("c1", "established", at(1)), join("l1", "c1", "s1", at(2)), moved, provider.LegLeft{Leg: "l1", At: at(9)}}, map[string]string{"l1": "2-5 moved exact", "l1+2": "5-9 left exact"}},
		"moved unknown":  {[]provider.Event{moved}, map[string]string{"l1": "5- exact"}},
		"unknown call":   {[]provider.Event{join("l1", "c9", "s1", at(2))}, map[string]string{"l1": "2- exact"}},
		"joined twice":   {[]provider.Event{join("l1", "c1", "s1", at(2)), join("l1", "c1", "s1", at(3))}, map[string]string{"l1": "2- exact"}},
		"left unknown":   {[]provider.Event{provider.LegLeft{Leg: "l1", At: at(9)}}, map[string]string{}},
		"ends before":    {[]provider.Event{join("l1", "c1", "s1", at(5)), provider.LegLeft{Leg: "l1", At: at(2)}}, map[string]string{"l1": "5-5 left exact"}},
		"back again":     {[]provider.Event{callState("c1", "established", at(1)), join("l1", "c1", "s1", at(2)), provider.LegLeft{Leg: "l1", At: at(3)}, join("l1", "c1", "s1", at(4))}, map[string]string{"l1": "2-3 left exact", "l1+2": "4- exact"}},
		"unknown channel": {[]provider.Event{provider.LegJoined{Leg: legOn("l1", "c1", "s1", "SPK.9"), Channels: []call.ChannelID{"s1.m9.A"}, At: at(2)}},
			map[string]string{"l1": "2- exact"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := started(t, "rec-1")
			r.tell(logOn("s1", r.now)...)
			r.settle()
			r.tell(c.events...)
			r.settle()
			got := make(map[string]string)
			for id, l := range r.recorders["rec-1"].legs {
				got[id] = story(l, at(0))
				if r.recorders["rec-1"].calls[l.GetCall()] == nil {
					t.Errorf("leg %s without its call", id)
				}
			}
			wantEqual(t, "legs", got, c.want)
			for record, l := range r.f.legs {
				if !l.end.IsZero() {
					t.Errorf("ended leg %s is still held", record)
				}
			}
		})
	}
}

func TestEpochs(t *testing.T) {
	for _, c := range []struct{ seen, want uint64 }{{0, 2}, {2, 4}, {3, 4}, {7, 8}, {100, 102}} {
		wantEqual(t, "next epoch", nextEpoch(c.seen), c.want)
	}
	r := newRig(t, "rec-1", "rec-2")
	r.recorders["rec-1"].epoch, r.recorders["rec-1"].holder = 7, "dir-b"
	r.connect("rec-1")
	wantEqual(t, "epoch while rec-2 was not asked", r.f.epoch, uint64(0))
	r.f.recorderDown(r.now, "rec-2", "connection refused", r.now)
	r.act()
	wantEqual(t, "epoch", r.f.epoch, uint64(8))

	// rec-2 has an epoch of an earlier run of ours that is the same by chance.
	r.recorders["rec-2"].epoch, r.recorders["rec-2"].holder = 8, "dir-a"
	r.connect("rec-2")
	wantEqual(t, "epoch", r.f.epoch, uint64(10))
	r.lose("rec-2", false)
	r.f.recorders["rec-2"].bootID = "" // as if it had never been reached

	// rec-2 still knows a higher one of an earlier run of ours: all follow.
	r.recorders["rec-2"].epoch, r.recorders["rec-2"].holder = 20, "dir-a"
	r.connect("rec-2")
	wantEqual(t, "epoch", r.f.epoch, uint64(22))
	wantEqual(t, "rec-1", r.recorders["rec-1"].epoch, uint64(22))

	// Another director takes rec-1: it is not ours any more, and we do not fight.
	r.lose("rec-1", false)
	r.recorders["rec-1"].epoch, r.recorders["rec-1"].holder = 30, "dir-b"
	r.connect("rec-1")
	wantEqual(t, "epoch", r.f.epoch, uint64(22))
	wantEqual(t, "state", r.f.recorders["rec-1"].stateWord(), "refused")
	r.pass(time.Second)
	if what := r.alarmed(); what[len(what)-1] != "refused" {
		t.Fatalf("alarms %v", what)
	}
}

// Two recorders may hold one channel after a director could not reach one of
// them; the one that the switch sends to keeps it.
func TestChannelHeldTwice(t *testing.T) {
	r := started(t, "rec-1", "rec-2")
	r.tell(logOn("s1", r.now)...)
	r.settle()
	holder := r.holder("s1.m1.A")
	other := r.recorders["rec-1"]
	if other == holder {
		other = r.recorders["rec-2"]
	}
	r.lose(other.name, false)
	stale := holder.channels["s1.m1.A"]
	other.channels["s1.m1.A"] = held(stale, 40_000)
	r.connect(other.name)
	r.settle()
	r.wantAttached("s1.m1.A", "s1.m2.A")
	wantEqual(t, "holder", r.holder("s1.m1.A").name, holder.name)
	wantEqual(t, "closed for", other.closed["s1.m1.A"], "moved")
}
