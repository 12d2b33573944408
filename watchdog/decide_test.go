package watchdog

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/authority"
	"tandem/internal/local"
	"tandem/internal/monitor"
	"tandem/internal/pair"
)

var noon = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

func rules() Rules {
	return Rules{
		Timing: authority.Steady, Auto: true, FailbackHold: 30 * time.Second, Interval: 100 * time.Millisecond, Misses: 3,
		CTIGrace: 2 * time.Second, RestartAfter: 10 * time.Second,
	}
}

// steady is dir-b's watchdog while dir-a leads and both are well.
func steady() View {
	v := View{Rules: rules(), Votes: make([]Vote, 3), Local: Local{Name: "dir-b", PID: 7, Beat: noon, Answered: noon}, Peer: Peer{Name: "dir-a"}}
	v.Local.Report = local.Report{Role: "passive", Eligible: true}
	v.Local.Reply = monitor.Reply{Director: "dir-b", Role: "passive", Eligible: true, CTI: "up"}
	v.Peer = v.Peer.heard(noon, answer(noon, "active"), pathTo("active"))
	return v
}

func pathTo(role string) monitor.PathResult {
	return monitor.PathResult{Heard: true, RTT: time.Millisecond, Reply: monitor.Reply{
		Director: "dir-a", Role: role, Eligible: true, CTI: "up", Epoch: 6, Loops: map[string]uint64{"floor": 1},
	}}
}

func answer(at time.Time, role string) monitor.Round {
	return monitor.Round{At: at, Paths: []monitor.PathResult{pathTo(role), {}}}
}

func silence(at time.Time) monitor.Round {
	return monitor.Round{At: at, Paths: make([]monitor.PathResult, 2)}
}

// missed lets the peer be silent for n rounds, the last one at noon.
func (v View) missed(n int) View {
	for i := range n {
		at := noon.Add(time.Duration(i-n) * v.Rules.Interval)
		v = v.probed(at.Add(v.Rules.Interval), silence(at), 0)
	}
	return v
}

// ballots lets voters say who holds their leases, renewed so long ago.
func (v View) ballots(holder string, ages ...time.Duration) View {
	for n, age := range ages {
		v = v.voted(noon, n, &tandemv1.Ballot{Holder: holder, Epoch: 6, RemainingUs: max(0, v.Rules.LV-age).Microseconds()}, 0)
	}
	return v
}

func (v View) with(change func(*View)) View {
	change(&v)
	return v
}

func hours(t *testing.T, text string) pair.Hours {
	t.Helper()
	h, err := pair.ParseHours(text)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestDecide(t *testing.T) {
	const ms = time.Millisecond
	preferred := func(v *View) {
		v.Rules.Preferred = true
		v.Local.Name, v.Peer.Name = "dir-b", "dir-a"
	}
	for name, c := range map[string]struct {
		view     View
		action   Action
		sentence string
	}{
		"all is well":                      {steady(), Nothing, "dir-a is active and answers on 1 of 2 paths"},
		"one probe missed":                 {steady().missed(1), Nothing, "dir-a missed 1 of 3 probes"},
		"silent":                           {steady().missed(3), Campaign, "dir-a does not answer (3 probes): dir-b is to seek authority"},
		"silent, its lease not yet lapsed": {steady().missed(3).ballots("dir-a", 300*ms, 290*ms, 250*ms), Campaign, "dir-a does not answer (3 probes): dir-b is to seek authority"},
		"silent, voters silent, too":       {steady().missed(30), Campaign, "dir-a does not answer (30 probes): dir-b is to seek authority"},
		"link down":                        {steady().missed(5).ballots("dir-a", 50*ms, 40*ms, 600*ms), Nothing, "peer link down: dir-a does not answer (5 probes), but 2 of 3 voters hear it: it is left in charge"},
		"a minority renews":                {steady().missed(5).ballots("dir-a", 50*ms, 600*ms), Campaign, "dir-a does not answer (5 probes): dir-b is to seek authority"},
		"voters renew for us":              {steady().missed(5).ballots("dir-b", 50*ms, 50*ms), Campaign, "dir-a does not answer (5 probes): dir-b is to seek authority"},
		"host in doubt":                    {steady().missed(3).with(func(v *View) { v.Doubt = 2 }), Nothing, "dir-a missed 3 of 9 probes"},
		"host in doubt for long":           {steady().missed(24).with(func(v *View) { v.Doubt = maxDoubt }), Campaign, "dir-a does not answer (24 probes): dir-b is to seek authority"},
		"noticed":                          {steady().noticed(noon), Campaign, "the process of dir-a has ended, as its watchdog says: dir-b is to seek authority"},
		"noticed, whatever voters say":     {steady().noticed(noon).ballots("dir-a", 10*ms, 10*ms, 10*ms), Campaign, "the process of dir-a has ended, as its watchdog says: dir-b is to seek authority"},
		"silent, seeking":                  {steady().missed(3).with(func(v *View) { v.Local.Report.Role = "candidate" }), Nothing, "dir-a does not answer (3 probes); dir-b seeks authority"},
		"silent, just started":             {steady().missed(3).with(func(v *View) { v.Local.Report.Role = "boot" }), Nothing, "dir-a does not answer (3 probes); dir-b has just started, and may not lead yet"},
		"silent, local unable": {steady().missed(3).with(func(v *View) { v.Local.Report.Eligible, v.Local.Report.Why = false, "no switch" }), Nothing,
			"dir-a does not answer (3 probes); dir-b cannot lead: no switch"},
		"silent, no local director": {steady().missed(3).with(func(v *View) { v.Local.PID, v.Local.Answered = 0, time.Time{} }), Nothing,
			"dir-a does not answer (3 probes); dir-b does not answer either: nobody to promote"},
		"silent, local leads":   {steady().missed(3).with(func(v *View) { v.Local.Report.Role = "active" }), Nothing, "dir-b is active; dir-a does not answer"},
		"silent, local lingers": {steady().missed(3).with(func(v *View) { v.Local.Report.Role = "linger" }), Campaign, "dir-a does not answer (3 probes): dir-b is to seek authority"},
		"never heard":           {steady().with(func(v *View) { v.Peer = Peer{Name: "10.0.0.1:7401"} }), Nothing, "10.0.0.1:7401 has not answered yet"},
		"local leads": {steady().with(func(v *View) { v.Local.Report.Role = "active"; v.Peer.Reply.Role = "passive" }), Nothing,
			"dir-b is active; dir-a is passive and answers on 1 of 2 paths"},
		"both lead": {steady().with(func(v *View) { v.Local.Report.Role = "active" }), Nothing,
			"dir-b is active, and dir-a says that it is active (epoch 6): each recorder obeys one of them"},

		"local process ended": {steady().with(func(v *View) { v.Local.Report.Epoch = 9; v.Local.Report.Holds = true }).followed(noon, local.Gone{PID: 7}), Release,
			"the process of dir-b has ended: epoch 9 is released on its behalf"},
		"local process ended, it had nothing": {steady().followed(noon, local.Gone{PID: 7}), Nothing, "dir-a is active and answers on 1 of 2 paths"},
		"another process ended":               {steady().with(func(v *View) { v.Local.Report.Epoch = 9 }).followed(noon, local.Gone{PID: 6}), Nothing, "dir-a is active and answers on 1 of 2 paths"},
		"link to the local director lost": {steady().with(func(v *View) { v.Local.Report.Epoch = 9; v.Local.Report.Holds = true }).followed(noon, local.Lost{}), Nothing,
			"dir-a is active and answers on 1 of 2 paths"},
		"frozen holder": {steady().with(func(v *View) { v.Local.Report.Holds = true; v.Local.Beat = noon.Add(-810 * ms) }), Kill,
			"dir-b holds authority and has said nothing for 810ms: it is killed, lest it wake up and go on"},
		"slow holder": {steady().with(func(v *View) {
			v.Local.Report.Holds, v.Local.Report.Role = true, "active"
			v.Local.Beat = noon.Add(-800 * ms)
		}), Nothing, "dir-b is active, and dir-a says that it is active (epoch 6): each recorder obeys one of them"},
		"silent holder, whose watchdog was late": {steady().with(func(v *View) { v.Local.Report.Holds = true; v.Local.Beat = noon.Add(-810 * ms) }).probed(noon, answer(noon, "active"), 500*ms), Nothing,
			"dir-a is active and answers on 1 of 2 paths"},
		"frozen, not a holder": {steady().with(func(v *View) { v.Local.Beat = noon.Add(-time.Second) }), Nothing, "dir-a is active and answers on 1 of 2 paths"},
		"wedged": {steady().with(func(v *View) {
			v.Local.Unit = true
			v.Local.Beat, v.Local.Answered = noon.Add(-11*time.Second), noon.Add(-10*time.Second)
		}), Restart,
			"dir-b answers nothing for 10s, and systemd says that it runs: it is restarted"},
		"wedged, its port answers": {steady().with(func(v *View) { v.Local.Unit = true; v.Local.Beat = noon.Add(-11 * time.Second) }), Nothing, "dir-a is active and answers on 1 of 2 paths"},
		"stopped":                  {steady().with(func(v *View) { v.Local.Beat, v.Local.Answered = noon.Add(-11*time.Second), noon.Add(-10*time.Second) }), Nothing, "dir-a is active and answers on 1 of 2 paths"},

		"switch lost":              {steady().with(func(v *View) { v.Peer.CTIDown = noon.Add(-2 * time.Second) }), SwitchOver, "dir-a has not seen the switch for 2s: it is asked to hand over to dir-b"},
		"switch lost for a moment": {steady().with(func(v *View) { v.Peer.CTIDown = noon.Add(-1990 * ms) }), Nothing, "dir-a is active and answers on 1 of 2 paths"},
		"switch lost by both":      {steady().with(func(v *View) { v.Peer.CTIDown = noon.Add(-time.Minute); v.Local.Reply.CTI = "down" }), Nothing, "dir-a has not seen the switch for 1m0s; nor does dir-b"},
		"switch lost, local unable": {steady().with(func(v *View) {
			v.Peer.CTIDown = noon.Add(-time.Minute)
			v.Local.Report.Eligible, v.Local.Report.Why = false, "no recorder"
		}), Nothing, "dir-a has not seen the switch for 1m0s; dir-b cannot lead: no recorder"},
		"loop stuck": {steady().with(func(v *View) { v.Peer.loops = map[string]turned{"floor": {1, noon.Add(-time.Second)}} }), SwitchOver,
			`dir-a answers, but its loop "floor" stands still: it is asked to hand over to dir-b`},

		"nobody leads, at first":                    {steady().with(func(v *View) { v.Peer.Reply.Role = "passive"; v.Leaderless = noon }), Nothing, "nobody leads; dir-b waits for dir-a"},
		"nobody leads, preferred":                   {steady().with(func(v *View) { v.Peer.Reply.Role = "passive"; v.Leaderless = noon; preferred(v) }), Campaign, "nobody leads: dir-b is to seek authority"},
		"nobody leads, preferred one just started":  {steady().with(func(v *View) { v.Peer.Reply.Role = "boot"; v.Leaderless = noon.Add(-2 * yield) }), Nothing, "nobody leads; dir-b waits for dir-a"},
		"nobody leads, preferred one always starts": {steady().with(func(v *View) { v.Peer.Reply.Role = "boot"; v.Leaderless = noon.Add(-courtesy) }), Campaign, "nobody leads: dir-b is to seek authority"},
		"nobody leads, not preferred":               {steady().with(func(v *View) { v.Peer.Reply.Role = "passive"; v.Leaderless = noon.Add(-yield) }), Campaign, "nobody leads: dir-b is to seek authority"},
		"nobody leads, peer seeks":                  {steady().with(func(v *View) { v.Peer.Reply.Role = "candidate" }), Nothing, "nobody leads; dir-a seeks authority"},
		"nobody leads, just started":                {steady().with(func(v *View) { v.Peer.Reply.Role, v.Local.Report.Role = "passive", "boot" }), Nothing, "nobody leads; dir-b has just started, and may not lead yet"},
		"nobody leads, unable": {steady().with(func(v *View) {
			v.Peer.Reply.Role, v.Leaderless = "passive", noon.Add(-time.Hour)
			v.Local.Report.Eligible, v.Local.Report.Why = false, "no switch"
		}), Nothing, "nobody leads; dir-b cannot lead: no switch"},

		"failback soon": {steady().with(func(v *View) { preferred(v); v.Well = noon.Add(-19 * time.Second) }), Nothing,
			"dir-a is active and answers on 1 of 2 paths; failback to dir-b in 11s (well for 19s)"},
		"failback": {steady().with(func(v *View) { preferred(v); v.Well = noon.Add(-30 * time.Second) }), SwitchOver, "dir-b has been well for 30s: dir-a is asked to hand back"},
		"failback after a flap": {steady().with(func(v *View) { preferred(v); v.Well = noon.Add(-30 * time.Second); v.Damper.flaps = 1 }), Nothing,
			"dir-a is active and answers on 1 of 2 paths; failback to dir-b in 30s (well for 30s)"},
		"failback at another time of day": {steady().with(func(v *View) { preferred(v); v.Well = noon.Add(-time.Hour); v.Rules.Hours = hours(t, "20:00-06:00") }), Nothing,
			"dir-a is active and answers on 1 of 2 paths; failback to dir-b at 20:00 (well for 1h0m0s)"},
		"failback at this time of day": {steady().with(func(v *View) { preferred(v); v.Well = noon.Add(-time.Hour); v.Rules.Hours = hours(t, "12:00-12:01") }), SwitchOver,
			"dir-b has been well for 1h0m0s: dir-a is asked to hand back"},
		"failback, the hours end before": {steady().with(func(v *View) {
			preferred(v)
			v.Well = noon
			v.Rules.FailbackHold = time.Minute
			v.Rules.Hours = hours(t, "11:00-12:01")
		}), Nothing,
			"dir-a is active and answers on 1 of 2 paths; failback to dir-b at 11:00 (well for 0s)"},
		"failback manual":     {steady().with(func(v *View) { preferred(v); v.Well = noon.Add(-time.Hour); v.Rules.Auto = false }), Nothing, "dir-a is active and answers on 1 of 2 paths; failback is manual"},
		"failback, no switch": {steady().with(func(v *View) { preferred(v); v.Local.Reply.CTI = "down" }), Nothing, "dir-a is active and answers on 1 of 2 paths; no failback: dir-b does not see the switch"},
		"failback, local silent": {steady().with(func(v *View) { preferred(v); v.Local.PID, v.Local.Answered = 0, time.Time{} }), Nothing,
			"dir-a is active and answers on 1 of 2 paths; no failback: dir-b does not answer"},

		"paused": {steady().with(func(v *View) { v.Pause = Pause{noon.Add(time.Minute), "ann", "upgrade"} }), Nothing, "paused until 12:01:00 by ann: dir-a is active and answers on 1 of 2 paths"},
		"paused, silent": {steady().missed(3).with(func(v *View) { v.Pause = Pause{noon.Add(time.Minute), "ann", "upgrade"} }), Nothing,
			"paused until 12:01:00 by ann, or would campaign: dir-a does not answer (3 probes): dir-b is to seek authority"},
		"pause over": {steady().missed(3).with(func(v *View) { v.Pause = Pause{noon, "ann", "upgrade"} }), Campaign, "dir-a does not answer (3 probes): dir-b is to seek authority"},
	} {
		if action, sentence := Decide(noon, c.view); action != c.action || sentence != c.sentence {
			t.Errorf("%s:\n got %v: %s\nwant %v: %s", name, action, sentence, c.action, c.sentence)
		}
	}
}

func TestLateRoundIsNotMeasured(t *testing.T) {
	v := steady()
	for range 50 {
		v = v.probed(noon, silence(noon), 60*time.Millisecond)
	}
	if v.Peer.Misses != 0 || v.Doubt != maxDoubt {
		t.Errorf("%d misses, doubt %d", v.Peer.Misses, v.Doubt)
	}
	if v = v.probed(noon, silence(noon), 50*time.Millisecond); v.Peer.Misses != 1 || v.Doubt != maxDoubt-1 {
		t.Errorf("%d misses, doubt %d", v.Peer.Misses, v.Doubt)
	}
}

func TestSlowVotersAreDoubted(t *testing.T) {
	v := steady().voted(noon, 1, &tandemv1.Ballot{}, 150*time.Millisecond)
	if v = v.probed(noon, silence(noon), 0); v.Peer.Misses != 1 || v.patience() != 6 {
		t.Errorf("%d misses of %d", v.Peer.Misses, v.patience())
	}
	if v = v.probed(noon.Add(time.Minute), silence(noon), 0); v.patience() != 3 {
		t.Errorf("patience %d long after", v.patience())
	}
}

// A notice stands until the peer answers a probe that was sent after it.
func TestNoticeEnds(t *testing.T) {
	v := steady().noticed(noon)
	if v = v.probed(noon, answer(noon.Add(-time.Millisecond), "active"), 0); !v.silent() {
		t.Error("an answer to an older probe ended it")
	}
	if v = v.probed(noon, answer(noon.Add(time.Millisecond), "boot"), 0); v.silent() {
		t.Error("it has not ended")
	}
}

func TestLoopsAreSeenToMove(t *testing.T) {
	v := steady()
	at := noon
	turn := func(count uint64) {
		at = at.Add(100 * time.Millisecond)
		r := answer(at, "active")
		r.Paths[0].Reply.Loops = map[string]uint64{"floor": count, "elector": 4}
		v = v.probed(at, r, 0)
	}
	for count := range 30 {
		turn(uint64(count))
	}
	if got := v.Peer.stuck(at, loopsStill); got != "elector" {
		t.Errorf("%q is stuck", got)
	}
	v = v.probed(at, silence(at), 0)
	if turn(99); v.Peer.stuck(at, loopsStill) != "" {
		t.Error("stuck across a silence, in which nothing was known of it")
	}
}

// Takeovers soon after a failback make the next one wait for longer; enough of
// them in a short time keep it from happening at all, for a while, and never
// for more than an hour.
func TestDamper(t *testing.T) {
	const hold = 30 * time.Second
	var d damper
	now := noon
	for i, want := range []time.Duration{60, 120, 240, 480, 600, 600} {
		d = d.takeover(now, 10*time.Second, hold)
		if got := d.hold(hold); got != want*time.Second {
			t.Errorf("after %d flaps %v", i+1, got)
		}
		now = now.Add(time.Minute)
	}
	if !d.suppressed || d.wait(now, time.Hour, hold) < 10*time.Minute {
		t.Errorf("%+v waits %v", d, d.wait(now, time.Hour, hold))
	}
	if now = now.Add(time.Hour); d.wait(now, time.Hour, hold) != 0 {
		t.Errorf("an hour later it waits %v", d.wait(now, time.Hour, hold))
	}
	if d = d.takeover(now, time.Hour, hold); d.hold(hold) != hold {
		t.Errorf("after an hour in charge %v", d.hold(hold))
	}
}

func TestDamperIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var d damper
		now := noon
		for _, gap := range rapid.SliceOf(rapid.Int64Range(0, int64(2*time.Hour))).Draw(t, "gaps") {
			now = now.Add(time.Duration(gap))
			d = d.takeover(now, time.Duration(gap), 30*time.Second)
		}
		if wait := d.wait(now, 0, 30*time.Second); wait < 30*time.Second || wait > longest+time.Second {
			t.Fatalf("waits %v: %+v", wait, d)
		}
	})
}

// Losing charge counts as a takeover when the process ended or fell silent,
// not when it was given back.
func TestTakeoversAreCounted(t *testing.T) {
	for _, c := range []struct {
		then string // the local director's role after it was active
		want float64
	}{{"", penaltyEach}, {"boot", penaltyEach}, {"linger", penaltyEach}, {"passive", 0}} {
		v := steady()
		v.Peer.Reply.Role = "passive"
		for _, role := range []string{"active", "active", c.then, "passive"} {
			v.Local.Report.Role = role
			v = v.settle(noon)
		}
		v.Peer.Reply.Role = "active"
		if v = v.settle(noon); v.Damper.penalty != c.want {
			t.Errorf("active, then %q: penalty %v", c.then, v.Damper.penalty)
		}
	}
}

// Whatever is seen, nobody is promoted over one that answers and leads, nobody
// is killed or released on less than proof, and there is always a sentence.
func TestDecideIsCautious(t *testing.T) {
	roles := rapid.SampledFrom([]string{"", "boot", "passive", "candidate", "activating", "active", "draining", "linger"})
	span := rapid.Int64Range(-int64(20*time.Second), 0)
	rapid.Check(t, func(t *rapid.T) {
		v := steady()
		v.Rules.Preferred = rapid.Bool().Draw(t, "preferred")
		v.Local.PID = rapid.IntRange(0, 1).Draw(t, "pid")
		v.Local.Report = local.Report{Role: roles.Draw(t, "role"), Holds: rapid.Bool().Draw(t, "holds"), Eligible: rapid.Bool().Draw(t, "eligible")}
		v.Local.Beat = noon.Add(time.Duration(span.Draw(t, "beat")))
		v.Local.Unit = rapid.Bool().Draw(t, "unit")
		v.Local.Reply.Role = roles.Draw(t, "answer")
		v.Local.Answered = noon.Add(time.Duration(span.Draw(t, "answered")))
		v.Peer.Reply.Role = roles.Draw(t, "peer")
		v.Peer.Misses = rapid.IntRange(0, 40).Draw(t, "misses")
		v.Doubt = doubt(rapid.IntRange(0, 7).Draw(t, "doubt"))
		v.Pause.Until = noon.Add(time.Duration(rapid.Int64Range(-1, 1).Draw(t, "pause")))
		v = v.settle(noon)
		action, sentence := Decide(noon, v)
		if strings.TrimSpace(sentence) == "" {
			t.Fatal("no sentence")
		}
		able, _ := v.able(noon)
		switch {
		case action != Nothing && noon.Before(v.Pause.Until):
			t.Fatalf("%v while paused", action)
		case action == Campaign && (!able || !v.silent() && holds(v.Peer.Reply.Role)):
			t.Fatalf("promoted: %s", sentence)
		case action == SwitchOver && !able:
			t.Fatalf("handed over to one that cannot lead: %s", sentence)
		case action == Kill && (v.Local.PID == 0 || !v.Local.Report.Holds || noon.Sub(v.Local.Beat) <= v.Rules.LD):
			t.Fatalf("killed: %s", sentence)
		case action == Release:
			t.Fatalf("released without proof: %s", sentence)
		}
	})
}
