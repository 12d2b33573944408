package cli

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	tandemv1 "tandem/api/tandem/v1"
)

// fakePair is a floor with two directors, of which dir-a is in charge, and a
// watchdog beside each of them.
type fakePair struct {
	directors [2]*fakeDirector
	watchdogs [2]*fakeWatchdog
	at        [4]string // directors, watchdogs
}

func newFakePair(t *testing.T) *fakePair {
	p := &fakePair{}
	for n := range p.directors {
		p.directors[n] = tradingDirector("10.0.1.1:7402", "10.0.1.2:7402")
		p.directors[n].failover = &tandemv1.FailoverResponse{
			Plan: []string{"dir-a finishes 3 orders", "dir-a releases epoch 14", "dir-b takes over"}, From: "dir-a", To: "dir-b", Epoch: 17, TookMs: 212,
		}
		p.at[n] = p.directors[n].serve(t)
	}
	a, b := p.directors[0].status, p.directors[1].status
	proto.Merge(a.Directors[0], &tandemv1.DirectorStatus{Basis: "quorum+consent", AuthorityMs: 740, Profile: "steady", Monitor: "10.0.0.1:10031", Voters: []*tandemv1.VoterStatus{
		{Address: "10.0.1.1:7402", Name: "rec-1", Epoch: 14, Holder: "dir-a", RemainingMs: 980, AgeMs: 40},
		{Address: "10.0.1.2:7402", AgeMs: -1},
		{Address: "10.0.3.1:7403", Name: "wd-c", Epoch: 12, Holder: "dir-a", AgeMs: 12_000},
	}})
	b.Directors[0] = &tandemv1.DirectorStatus{Name: "dir-b", Group: "primary", Role: "passive", Epoch: 14, Since: after(-time.Hour), Cti: "up"}
	b.Recorders[0].State, b.Recorders[0].Reason, b.Recorders[1].State, b.Recorders[1].Load = "ready", "", "lost", nil
	b.Headroom[0].Text = "the passive one does not know"
	b.Alarms = []*tandemv1.Alarm{{Severity: "warning", What: "recorder_lost", Object: "rec-1", Since: after(-time.Minute), Text: "no heartbeat"}}
	p.watchdogs[0] = &fakeWatchdog{status: &tandemv1.WatchdogStatus{Name: "wd-a", Group: "primary", Watching: "dir-b", State: "watching", LastProbeMs: 31, Sentence: "dir-b is passive and answers"}}
	p.watchdogs[1] = &fakeWatchdog{status: &tandemv1.WatchdogStatus{Name: "wd-b", Group: "primary", Watching: "dir-a", State: "watching", LastProbeMs: 12, Sentence: "dir-a is active and answers"}}
	for n, w := range p.watchdogs {
		p.at[2+n] = w.serve(t)
	}
	return p
}

// config names the directors given, by their number, and both watchdogs.
func (p *fakePair) config(directors ...int) string {
	var names []string
	for _, n := range directors {
		names = append(names, fmt.Sprintf("%q", p.at[n]))
	}
	return fmt.Sprintf("directors = [%s]\nwatchdogs = [%q, %q]\n", strings.Join(names, ", "), p.at[2], p.at[3])
}

func (p *fakePair) anonymous(out string) string {
	return strings.NewReplacer(p.at[0], "DIRECTOR-A", p.at[1], "DIRECTOR-B", p.at[2], "WATCHDOG-A", p.at[3], "WATCHDOG-B").Replace(out)
}

// asked are the requests that either director got, and its name.
func (p *fakePair) asked() (name string, requests []*tandemv1.FailoverRequest) {
	for _, d := range p.directors {
		if len(d.asked) > 0 {
			name, requests = name+d.status.Directors[0].Name, append(requests, d.asked...)
		}
	}
	return name, requests
}

// away makes dir-a one that cannot be reached, and of which dir-b told.
func (p *fakePair) away() {
	b := p.directors[1].status
	b.Directors = append(b.Directors, &tandemv1.DirectorStatus{Name: "dir-a", Group: "primary", Role: "active", Epoch: 14, Preferred: true})
	b.Directors[0].Voters = []*tandemv1.VoterStatus{
		{Address: "10.0.1.1:7402", Name: "rec-1", Epoch: 14, Holder: "dir-a", RemainingMs: 0, AgeMs: 40},
		{Address: "10.0.1.2:7402", Name: "rec-2", AgeMs: -1},
	}
	p.directors[1].failover.From = ""
}

// Of two directors each is believed about itself, and the one in charge about
// the rest, whichever is asked first.
func TestStatusOfPair(t *testing.T) {
	p := newFakePair(t)
	p.directors[1].status.Directors[0].Moving, p.directors[1].status.Directors[0].Unrecorded = 1, 3 // it has asked no recorder
	want := recctl(t, p.config(0, 1), "status")
	golden(t, "status_pair", p.anonymous(want.out))
	if r := recctl(t, p.config(1, 0), "status"); r.out != want.out || r.errs != "" {
		t.Errorf("%+v", r)
	}
	golden(t, "status_pair_json", p.anonymous(recctl(t, p.config(1, 0), "status", "--json").out))
}

// What needs somebody stands out: nobody in charge, nobody on guard, no proof.
func TestStatusOfBrokenPair(t *testing.T) {
	p := newFakePair(t)
	p.away()
	w := p.watchdogs[1].status
	w.State, w.Paused, w.PausedUntil, w.Promotable = "down", true, after(time.Hour), []string{"no switch", "no recorder"}
	p.directors[1].status.Directors[0].Text = "rec-1 refused"
	config := fmt.Sprintf("directors = [%q, %q]\nwatchdogs = [%q, %q]\n", closedPort(t), p.at[1], p.at[3], closedPort(t))
	r := recctl(t, config, "status")
	golden(t, "status_broken_pair", p.anonymous(r.out))
	if strings.Count(r.errs, "connection refused") != 2 || !strings.Contains(r.errs, "recctl: watchdog 127.0.0.1:") {
		t.Error(r.errs)
	}
	a, b := p.directors[0].status.Directors[0], p.directors[1].status.Directors[0]
	told := p.directors[1].status.Directors
	p.directors[1].status.Directors = told[:1]
	for remaining, text := range map[int64]string{0: "(dir-b is passive); of the other one nothing is known", 312: "(dir-b is passive); the other one may be: rec-1 leases to dir-a for 312 ms yet"} {
		b.Voters[0].RemainingMs = remaining
		if r := recctl(t, p.config(1), "status"); !strings.Contains(r.out, "group primary: no director that answers is in charge "+text) {
			t.Errorf("%+v", r)
		}
	}
	p.directors[1].status.Directors = told
	b.Role, b.Epoch, b.Basis, b.Text = "active", 17, "assumed", ""
	if r := recctl(t, p.config(0, 1), "status"); !strings.Contains(r.out, "group primary: dir-b and dir-a are both in charge; each recorder obeys only one of them") {
		t.Errorf("%+v", r)
	}
	a.Role, b.Role = "linger", "passive"
	if r := recctl(t, p.config(0, 1), "status"); !strings.Contains(r.out, "group primary: no director that answers is in charge (dir-a is linger, dir-b is passive)") {
		t.Errorf("%+v", r)
	}
}

// A watchdog is missed where somebody said that it is, or where a pair needs it.
func TestWatchdogsMissed(t *testing.T) {
	p, alone := newFakePair(t), newFakeSite(t)
	silent := fmt.Sprintf("watchdogs = [%q]\n", closedPort(t))
	for _, c := range []struct {
		name, directors, watchdogs string
		guessed                    bool
		out, errs                  string
	}{
		{"pair, not said where", p.at[0], silent, true, "no watchdog answers that watches dir-a: when it fails, nobody takes over by itself", ""},
		{"pair, said where", p.at[0], silent, false, "no watchdog answers that watches dir-a", "connection refused"},
		{"alone, not said where", alone.directorAt, silent, true, "", ""},
		{"alone, said where", alone.directorAt, silent, false, "", "connection refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var errs strings.Builder
			s := newSite(Config{Directors: []string{c.directors}, Watchdogs: []string{closedPort(t)}, Timeout: DefaultConfig().Timeout},
				func(format string, args ...any) { fmt.Fprintf(&errs, format, args...) })
			s.guessed = c.guessed
			f, err := s.status(t.Context())
			i := &invocation{zone: time.UTC, now: func() time.Time { return noon }}
			lines := strings.Join(i.statusLines(f), "\n")
			if err != nil || strings.Contains(lines, "no watchdog") != (c.out != "") || !strings.Contains(lines, c.out) || (errs.Len() > 0) != (c.errs != "") || !strings.Contains(errs.String(), c.errs) {
				t.Errorf("%v\n%s\n%s", err, lines, errs.String())
			}
		})
	}
}

// A watchdog that a director names is asked, whatever is configured; --director
// leaves the configured ones alone, which may be another floor's.
func TestWatchdogsNamed(t *testing.T) {
	p := newFakePair(t)
	p.directors[0].status.Watchdogs = []*tandemv1.WatchdogStatus{{Name: "told", Address: p.at[3]}}
	if r := recctl(t, p.config(0), "--director", p.at[0], "status"); !strings.Contains(r.out, "wd-b") || strings.Contains(r.out, "wd-a") {
		t.Errorf("%+v", r)
	}
	if r := recctl(t, p.config(0), "--director", p.at[0], "--watchdog", p.at[2], "status"); !strings.Contains(r.out, "wd-b") || !strings.Contains(r.out, "wd-a") {
		t.Errorf("%+v", r)
	}
	if r := recctl(t, fmt.Sprintf("directors = [%q]\nwatchdogs = [%q]\n", closedPort(t), p.at[3]), "status"); r.status != ExitUnreached || !strings.Contains(r.errs, "watchdog wd-b: dir-a is active and answers") {
		t.Errorf("%+v", r)
	}
}

const forced = "failover --promote --force --reason fire --i-have-checked"

// A director is asked for a plan first, then to do it.
func TestFailover(t *testing.T) {
	plan := "1. dir-a finishes 3 orders\n2. dir-a releases epoch 14\n3. dir-b takes over\n"
	done := "dir-b is in charge with epoch 17; before, dir-a was, 212 ms from its last order to the first of dir-b\n"
	overridden := "4. forced: goes on without the leave of the voters rec-1 leased to nobody (heard 40 ms ago), rec-2 (never heard), and without the promise of dir-a to stay out\n"
	for _, c := range []struct {
		args  []string
		away  bool // dir-a
		asked string
		want  *tandemv1.FailoverRequest
		out   string
	}{
		{strings.Fields("failover --promote"), false, "dir-a", &tandemv1.FailoverRequest{To: "dir-b", Actor: "ops@desk"}, plan + done},
		{strings.Fields("failover --promote --to dir-b --reason upgrade"), false, "dir-a", &tandemv1.FailoverRequest{To: "dir-b", Actor: "ops@desk", Reason: "upgrade"}, plan + done},
		{strings.Fields("failover --promote --json"), false, "dir-a", &tandemv1.FailoverRequest{To: "dir-b", Actor: "ops@desk"},
			`{"dry_run":false,"plan":["dir-a finishes 3 orders","dir-a releases epoch 14","dir-b takes over"],"from":"dir-a","to":"dir-b","epoch":17,"took_ms":212}` + "\n"},
		{strings.Fields("failover --promote"), true, "dir-b", &tandemv1.FailoverRequest{To: "dir-b", Actor: "ops@desk"}, plan + "dir-b is in charge with epoch 17; before, nobody was\n"},
		{append(strings.Fields(forced), "dir-a is off"), true, "dir-b", &tandemv1.FailoverRequest{To: "dir-b", Actor: "ops@desk", Force: true, Reason: "fire (checked: dir-a is off)"},
			plan + overridden + "dir-b is in charge with epoch 17; before, nobody was\nnothing but your word keeps the other director out, until voters or its promise do: see BASIS in recctl status\n"},
		{strings.Fields("failover --promote --to dir-a"), false, "", nil, "dir-a is active already, since 2026-03-01 11:00:00 with epoch 14\n"},
		{strings.Fields("failback"), false, "", nil, "dir-a is active already, since 2026-03-01 11:00:00 with epoch 14\n"},
		{strings.Fields("failback --json"), false, "", nil, `{"dry_run":false,"plan":[],"from":"dir-a","to":"dir-a","epoch":14,"took_ms":0}` + "\n"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			p := newFakePair(t)
			config := p.config(0, 1)
			if c.away {
				p.away()
				config = p.config(1)
			}
			r := recctl(t, config, c.args...)
			asked, requests := p.asked()
			if r.status != ExitDone || r.out != c.out || r.errs != "" || asked != c.asked {
				t.Errorf("%+v, asked %s", r, asked)
			}
			if c.want == nil {
				return
			}
			dry := proto.CloneOf(c.want)
			dry.DryRun = true
			if len(requests) != 2 || !proto.Equal(requests[0], dry) || !proto.Equal(requests[1], c.want) {
				t.Errorf("asked %v, want %v", requests, c.want)
			}
		})
	}
}

// A dry run asks for nothing but the plan.
func TestFailoverDryRun(t *testing.T) {
	p := newFakePair(t)
	r := recctl(t, p.config(0, 1), "failover", "--promote", "--dry-run")
	if r.status != ExitDone || !strings.HasSuffix(r.out, "3. dir-b takes over\nnothing was done: that is the plan\n") {
		t.Errorf("%+v", r)
	}
	r = recctl(t, p.config(0, 1), "failover", "--promote", "--dry-run", "--json")
	if !strings.HasPrefix(r.out, `{"dry_run":true,`) || !strings.HasSuffix(r.out, `"from":"dir-a","to":"dir-b","epoch":0,"took_ms":0}`+"\n") {
		t.Errorf("%+v", r)
	}
	for _, a := range p.directors[0].asked {
		if !a.DryRun {
			t.Error(a)
		}
	}
}

// Failback asks whoever is in charge for the preferred one, in each group.
func TestFailback(t *testing.T) {
	p := newFakePair(t)
	p.directors[0].status.Directors[0].Role, p.directors[1].status.Directors[0].Role = "passive", "active"
	r := recctl(t, p.config(0, 1), "failback", "--reason", "mended")
	asked, requests := p.asked()
	if r.status != ExitDone || asked != "dir-b" || !proto.Equal(requests[1], &tandemv1.FailoverRequest{To: "dir-a", Actor: "ops@desk", Reason: "mended"}) {
		t.Errorf("%+v, asked %s %v", r, asked, requests)
	}
	// With the preferred one unknown it is still the one that is not in charge.
	r = recctl(t, p.config(1), "failback")
	if _, requests = p.asked(); r.status != ExitDone || requests[len(requests)-1].To != "" {
		t.Errorf("%+v, asked %v", r, requests)
	}
	// It is never the other one that is promoted.
	p.directors[1].status.Directors[0].Role = "passive"
	before := len(p.directors[1].asked)
	if r = recctl(t, p.config(1), "failback"); r.status != ExitUnreached || len(p.directors[1].asked) > before ||
		!strings.Contains(r.errs, "the preferred director of group primary does not answer, and nobody is in charge who could hand over to it (dir-b is passive)") {
		t.Errorf("%+v", r)
	}
	p.directors[1].status.Directors[0].Role = "active"
	// A second group whose preferred director is in charge is left as it is.
	alone := newFakeSite(t)
	alone.director.status.Directors[0].Group = "secondary"
	r = recctl(t, fmt.Sprintf("directors = [%q, %q, %q]\n", p.at[0], p.at[1], alone.directorAt), "failback")
	if r.status != ExitDone || !strings.HasSuffix(r.out, "dir-a is active already, since 2026-03-01 11:00:00 with epoch 14\n") || len(alone.director.asked) > 0 {
		t.Errorf("%+v, asked %v", r, alone.director.asked)
	}
}

// Who refuses is named; what could be done about it is said only when it
// would do no harm.
func TestFailoverRefused(t *testing.T) {
	refused := connect.NewError(connect.CodeFailedPrecondition, errors.New("rec-1 leases to dir-a for 312 ms yet"))
	lease := func(p *fakePair, remaining int64) {
		p.directors[1].status.Directors[0].Voters[0].RemainingMs = remaining
	}
	const way = `; if dir-a is off, recctl failover --promote --to dir-b --force --i-have-checked "dir-a is off" --reason TEXT goes on without the leave of the voters rec-1 leased to nobody (heard 40 ms ago), rec-2 (never heard), and without the promise of dir-a to stay out`
	for _, c := range []struct {
		name    string
		args    []string
		away    bool
		lease   int64
		refusal error
		status  int
		text    string
	}{
		{"by the active one", strings.Fields("failover --promote"), false, 0, refused, ExitRefused, "recctl: dir-a refuses: rec-1 leases to dir-a for 312 ms yet\n"},
		{"failback", strings.Fields("failback"), true, 0, refused, ExitRefused, "recctl: dir-b refuses: rec-1 leases to dir-a for 312 ms yet\n"},
		{"by voters that are gone", strings.Fields("failover --promote"), true, 0, refused, ExitRefused, "recctl: dir-b refuses: rec-1 leases to dir-a for 312 ms yet" + way + "\n"},
		{"by a voter that leases to the other one", strings.Fields("failover --promote"), true, 312, refused, ExitRefused, "recctl: dir-b refuses: rec-1 leases to dir-a for 312 ms yet\n"},
		{"forced, refused", append(strings.Fields(forced), "dir-a is off"), true, 0, refused, ExitRefused, "recctl: dir-b refuses: rec-1 leases to dir-a for 312 ms yet\n"},
		{"forced, the other one is alive", append(strings.Fields(forced), "dir-a is off"), true, 312, nil, ExitRefused, "recctl: dir-a may be alive: voter rec-1 leases to dir-a for 312 ms yet; if it is off, this is over in a moment: try again then\n"},
		{"forced, the other one answers", append(strings.Fields(forced), "dir-a is off"), false, 0, nil, ExitRefused, "recctl: dir-a is active and answers; --force is for when it is off: without it, it hands over\n"},
		{"forced, another one checked", append(strings.Fields(forced), "dir-b is off"), true, 0, nil, ExitUsage, `recctl: --i-have-checked "dir-b is off": want "dir-a is off", and that somebody has looked` + "\n"},
		{"forced, nothing checked", append(strings.Fields(forced), "yes"), true, 0, nil, ExitUsage, `want "dir-a is off"`},
		{"broken", strings.Fields("failover --promote"), false, 0, connect.NewError(connect.CodeInternal, errors.New("bug")), ExitFailed, "): bug\n"},
		{"forced, the one to be promoted is away", append(strings.Fields(forced), "dir-b is off", "--to", "dir-a"), true, 0, nil, ExitUnreached, "recctl: dir-a does not answer, and only itself can take over by force\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newFakePair(t)
			config := p.config(0, 1)
			if c.away {
				p.away()
				lease(p, c.lease)
				config = p.config(1)
			}
			for _, d := range p.directors {
				d.refusal = c.refusal
			}
			r := recctl(t, config, c.args...)
			if r.status != c.status || r.out != "" || !strings.Contains(r.errs, c.text) {
				t.Errorf("%+v", r)
			}
			if _, requests := p.asked(); c.refusal == nil && len(requests) > 0 {
				t.Errorf("asked %v", requests)
			}
		})
	}
}

// What the refusing director heard of voters while it was asked counts.
func TestFailoverRefusedByLiving(t *testing.T) {
	p := newFakePair(t)
	p.away()
	b := p.directors[1]
	b.refusal = connect.NewError(connect.CodeFailedPrecondition, errors.New("rec-1 leases to dir-a"))
	b.learns = func() { b.status.Directors[0].Voters[0].RemainingMs = 990 }
	if r := recctl(t, p.config(1), "failover", "--promote"); r.status != ExitRefused || r.errs != "recctl: dir-b refuses: rec-1 leases to dir-a\n" {
		t.Errorf("%+v", r)
	}
}

// A sign of life is a lease, or to have been heard of within two seconds.
func TestSignOfRival(t *testing.T) {
	heard := func(age int64, names ...string) *tandemv1.VoterStatus {
		v := &tandemv1.VoterStatus{Name: "rec-1", Holder: "dir-b", RemainingMs: 900, AgeMs: age}
		for _, n := range names {
			v.Heard = append(v.Heard, &tandemv1.DirectorHeard{Director: n, AgeMs: 1500})
		}
		return v
	}
	for _, c := range []struct {
		voter *tandemv1.VoterStatus
		want  string
	}{
		{heard(40), ""},
		{heard(40, "dir-b"), ""},
		{heard(40, "dir-b", "dir-a"), "rec-1 heard dir-a 1.5 s ago"},
		{heard(500, "dir-a"), ""},
		{heard(-1, "dir-a"), ""},
		{&tandemv1.VoterStatus{Address: "10.0.1.1:7402", Holder: "dir-a", RemainingMs: 1}, "10.0.1.1:7402 leases to dir-a for 1 ms yet"},
		{&tandemv1.VoterStatus{Name: "rec-1", Holder: "dir-a"}, ""},
	} {
		d := known{&tandemv1.DirectorStatus{Name: "dir-b", Voters: []*tandemv1.VoterStatus{{Name: "rec-0", Address: "x", AgeMs: -1}, c.voter}}, peer{}, true}
		if got := (group{"primary", []known{d}}).signOfRival("dir-b"); got != c.want {
			t.Errorf("%v: %q, want %q", c.voter, got, c.want)
		}
	}
}

// A director that stands alone refuses, and is asked although nobody else is known.
func TestFailoverAlone(t *testing.T) {
	site := newFakeSite(t)
	site.director.refusal = connect.NewError(connect.CodeFailedPrecondition, errors.New("dir-a stands alone"))
	if r := recctl(t, site.config, "failover", "--promote"); r.status != ExitRefused || r.errs != "recctl: dir-a refuses: dir-a stands alone\n" {
		t.Errorf("%+v", r)
	}
}

// What was asked for and got no answer may have happened.
func TestFailoverUnanswered(t *testing.T) {
	p := newFakePair(t)
	s := newSite(Config{Directors: p.at[:2], Timeout: DefaultConfig().Timeout}, nil)
	e := errand{asked: known{DirectorStatus: &tandemv1.DirectorStatus{Name: "dir-a"}, peer: peer{"dir-a", closedPort(t)}}}
	for dry, status := range map[bool]int{true: ExitUnreached, false: ExitFailed} {
		_, err := s.failover(t.Context(), e, &tandemv1.FailoverRequest{DryRun: dry}, time.Minute)
		if statusOf(err) != status || strings.Contains(fmt.Sprint(err), "recctl status says who") == dry {
			t.Error(dry, err)
		}
	}
}

// Options of failover that make no sense together are told apart.
func TestFailoverUsage(t *testing.T) {
	p := newFakePair(t)
	for args, text := range map[string]string{
		"failover":                    "wants one of --promote, --pause and --resume",
		"failover --promote --pause":  "wants one of --promote, --pause and --resume",
		"failover --promote --for 1h": "--for does not go with --promote",
		"failover --pause --to dir-b": "--to does not go with --pause",
		"failover --resume --for 1h":  "--for does not go with --resume",
		"failover --promote --force":  "--force wants --i-have-checked",
		"failover --pause --for 0s":   "--for 0s: want 1s to 24h",
		"failover --pause --for 25h":  "--for 25h: want 1s to 24h",
		"failover dir-b":              `unexpected argument "dir-b"`,
		"failback dir-b":              `unexpected argument "dir-b"`,
		"history dir-b":               `unexpected argument "dir-b"`,
		"--watchdog nonsense status":  `--watchdog "nonsense": want HOST:PORT`,
	} {
		r := recctl(t, p.config(0, 1), strings.Fields(args)...)
		if r.status != ExitUsage || r.out != "" || !strings.Contains(r.errs, text) {
			t.Errorf("%s: %+v", args, r)
		}
	}
	r := recctl(t, p.config(0, 1), "failover", "--promote", "--i-have-checked", "dir-a is off")
	if r.status != ExitUsage || !strings.Contains(r.errs, "--i-have-checked goes with --force only") {
		t.Errorf("%+v", r)
	}
	other := newFakeSite(t)
	other.director.status.Directors[0].Group, other.director.status.Directors[0].Name = "secondary", "dir-c"
	config := fmt.Sprintf("directors = [%q, %q, %q]\n", p.at[0], p.at[1], other.directorAt)
	if r := recctl(t, config, "failover", "--promote"); r.status != ExitUsage || !strings.Contains(r.errs, "there are 2 groups: --to NAME says which director is to be in charge, one of dir-a, dir-b, dir-c") {
		t.Errorf("%+v", r)
	}
	if r := recctl(t, config, "failover", "--promote", "--to", "dir-x"); r.status != ExitFailed || !strings.Contains(r.errs, `no director "dir-x"; there are dir-a, dir-b, dir-c`) {
		t.Errorf("%+v", r)
	}
}

// Who is asked follows from who is what.
func TestErrand(t *testing.T) {
	d := func(name, role string, epoch uint64, answers bool) known {
		return known{&tandemv1.DirectorStatus{Name: name, Role: role, Epoch: epoch, Preferred: name == "a"}, peer{name, name}, answers}
	}
	for _, c := range []struct {
		name          string
		directors     []known
		to            string
		asked, wanted string
		done          bool
	}{
		{"the active one hands over", []known{d("a", "active", 4, true), d("b", "passive", 4, true)}, "", "a", "b", false},
		{"to one that does not answer", []known{d("a", "active", 4, true)}, "b", "a", "b", false},
		{"to nobody known", []known{d("a", "active", 4, true)}, "", "a", "", false},
		{"to itself", []known{d("b", "active", 5, true), d("a", "passive", 5, true)}, "b", "b", "b", true},
		{"to itself on its way", []known{d("b", "activating", 5, true), d("a", "passive", 5, true)}, "b", "b", "b", true},
		{"to itself while it leaves", []known{d("b", "draining", 5, true), d("a", "passive", 5, true)}, "b", "b", "b", false},
		{"of two in charge the newer hands over", []known{d("b", "active", 5, true), d("a", "active", 4, true)}, "", "b", "a", false},
		{"the other one takes over", []known{d("b", "passive", 4, true), d("a", "active", 4, false)}, "", "b", "b", false},
		{"of two idle ones the preferred", []known{d("b", "linger", 5, true), d("a", "passive", 5, true)}, "", "a", "a", false},
		{"of two idle ones the named", []known{d("a", "linger", 5, true), d("b", "passive", 5, true)}, "b", "b", "b", false},
		{"one that does not answer is told by the other", []known{d("b", "passive", 4, true), d("a", "active", 4, false)}, "a", "b", "a", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := group{"primary", c.directors}.errand(c.to)
			if e.asked.Name != c.asked || e.to != c.wanted || e.done != c.done {
				t.Errorf("asked %s for %q, done %v", e.asked.Name, e.to, e.done)
			}
		})
	}
}

// A pause reaches every watchdog, or says which one not.
func TestPause(t *testing.T) {
	p := newFakePair(t)
	for _, c := range []struct {
		args string
		want *tandemv1.PauseRequest
		out  string
	}{
		{"failover --pause --reason cables", &tandemv1.PauseRequest{ForMs: 3_600_000, Actor: "ops@desk", Reason: "cables"},
			"wd-a is paused until 14:00:00; recctl failover --resume ends that\nwd-b is paused until 14:00:00; recctl failover --resume ends that\n"},
		{"failover --pause --for 10m --json", &tandemv1.PauseRequest{ForMs: 600_000, Actor: "ops@desk"},
			`{"watchdog":"wd-a","address":"WATCHDOG-A","paused":true,"until":"2026-03-02T12:10:00.000Z"}` + "\n" + `{"watchdog":"wd-b","address":"WATCHDOG-B","paused":true,"until":"2026-03-02T12:10:00.000Z"}` + "\n"},
		{"failover --resume", &tandemv1.PauseRequest{Undo: true, Actor: "ops@desk"}, "wd-a is on guard\nwd-b is on guard\n"},
	} {
		r := recctl(t, p.config(0, 1), strings.Fields(c.args)...)
		if r.status != ExitDone || p.anonymous(r.out) != c.out || r.errs != "" {
			t.Errorf("%s: %+v", c.args, r)
		}
		for _, w := range p.watchdogs {
			if !proto.Equal(w.told, c.want) {
				t.Errorf("%s: told %v", c.args, w.told)
			}
		}
	}
}

// A pause that a watchdog did not hear of is no pause.
func TestPauseUnheard(t *testing.T) {
	p := newFakePair(t)
	directors := fmt.Sprintf("directors = [%q, %q]\n", p.at[0], p.at[1])
	r := recctl(t, directors+fmt.Sprintf("watchdogs = [%q, %q]\n", p.at[2], closedPort(t)), "failover", "--pause")
	if r.status != ExitFailed || !strings.Contains(r.out, "wd-a is paused") || !strings.Contains(r.errs, "connection refused; it is not paused and may promote a director") {
		t.Errorf("%+v", r)
	}
	r = recctl(t, directors+fmt.Sprintf("watchdogs = [%q]\n", p.at[2]), "failover", "--pause")
	if r.status != ExitDone || !strings.Contains(r.errs, "no watchdog answers that watches dir-a; if there is one, name it in /etc/tandem/recctl.toml or with --watchdog ADDR") {
		t.Errorf("%+v", r)
	}
	p.watchdogs[1].broken = connect.NewError(connect.CodeInternal, errors.New("bug"))
	r = recctl(t, p.config(0, 1), "failover", "--resume")
	if r.status != ExitFailed || !strings.Contains(r.errs, "watchdog wd-b ("+p.at[3]+"): bug; it may be paused still, and then promotes nobody") {
		t.Errorf("%+v", r)
	}
	// Without any director the watchdogs are told all the same.
	p.watchdogs[1].broken = nil
	r = recctl(t, fmt.Sprintf("directors = [%q]\nwatchdogs = [%q, %q]\n", closedPort(t), p.at[2], p.at[3]), "failover", "--pause")
	if r.status != ExitDone || strings.Count(r.out, "is paused") != 2 || !strings.Contains(r.errs, "no director answered") {
		t.Errorf("%+v", r)
	}
	r = recctl(t, directors+fmt.Sprintf("watchdogs = [%q]\n", closedPort(t)), "failover", "--pause")
	if r.status != ExitUnreached || !strings.Contains(r.errs, "no watchdog answered") || !strings.Contains(r.errs, "is tandem-watchdog running there? --watchdog ADDR names another") {
		t.Errorf("%+v", r)
	}
	if r = recctl(t, directors+"watchdogs = []\n", "failover", "--pause"); r.status != ExitUsage || !strings.Contains(r.errs, "no watchdogs are configured") {
		t.Errorf("%+v", r)
	}
}

// The history of both directors is one story.
func TestHistory(t *testing.T) {
	p := newFakePair(t)
	change := func(at time.Duration, director, from, to string, epoch uint64, basis, actor, reason string) *tandemv1.RoleChange {
		return &tandemv1.RoleChange{At: after(at), Director: director, From: from, To: to, Epoch: epoch, Basis: basis, Actor: actor, Reason: reason}
	}
	p.directors[0].history = []*tandemv1.RoleChange{
		change(-26*time.Hour, "dir-a", "passive", "candidate", 0, "", "wd-a", "no director is in charge"),
		change(-26*time.Hour+80*time.Millisecond, "dir-a", "candidate", "active", 14, "quorum+consent", "wd-a", "no director is in charge"),
		change(-time.Minute, "dir-a", "active", "draining", 14, "quorum+consent", "ops@desk", "upgrade"),
	}
	p.directors[1].history = []*tandemv1.RoleChange{
		change(-time.Minute+212*time.Millisecond, "dir-b", "passive", "active", 17, "quorum", "ops@desk", "upgrade"),
	}
	golden(t, "history", recctl(t, p.config(1, 0), "history").out)
	golden(t, "history_json", recctl(t, p.config(1, 0), "history", "--json").out)
	if r := recctl(t, newFakeSite(t).config, "history"); r.status != ExitDone || r.out != "no role has changed\n" {
		t.Errorf("%+v", r)
	}
}

// What only the director in charge knows is asked of it alone.
func TestOnlyInCharge(t *testing.T) {
	p := newFakePair(t)
	p.directors[1].turrets, p.directors[1].channels = nil, nil
	for _, args := range []string{"turrets", "channels", "move t2 --to rec-2"} {
		p.directors[0].steps = moving
		r := recctl(t, p.config(1, 0), strings.Fields(args)...)
		if r.status != ExitDone || r.out == "" || p.directors[1].ordered != nil {
			t.Errorf("%s: %+v", args, r)
		}
	}
	p.directors[0].status.Directors[0].Role = "linger"
	for _, args := range []string{"turrets", "channels", "move t2 --to rec-2", "drain rec-1", "rebalance"} {
		r := recctl(t, p.config(1, 0), strings.Fields(args)...)
		if r.status != ExitRefused || r.out != "" || r.errs != "recctl: no director that answers is in charge (dir-a is linger, dir-b is passive); recctl status shows when one is\n" {
			t.Errorf("%s: %+v", args, r)
		}
	}
}

// A drain goes on when another director takes over in the middle of it, which
// the one that was asked would not show.
func TestDrainOverTakeover(t *testing.T) {
	p := newFakePair(t)
	a, b := p.directors[0], p.directors[1]
	a.channels, b.channels = moving[0], moving[1]
	s := newSite(Config{Directors: p.at[:2], Timeout: DefaultConfig().Timeout}, func(string, ...any) {})
	c := commanded[tandemv1.DirectorServiceDrainResponse]{site: s, group: "primary"}
	role := func(d *fakeDirector, role string) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.status.Directors[0].Role = role
	}
	looks := 0
	err := c.wait(t.Context(), &invocation{}, time.Minute, func(channels []*tandemv1.FloorChannel) (int, error) {
		looks++
		left, err := s.stillOn(t.Context(), "primary", "rec-1")(channels)
		switch looks {
		case 1:
			if left != 2 {
				t.Errorf("%d left", left)
			}
			role(a, "passive")
			role(b, "active")
		case 2:
			if left != 1 {
				t.Errorf("%d left", left)
			}
			b.mu.Lock()
			b.channels = moving[2]
			b.mu.Unlock()
		}
		return left, err
	})
	if err != nil || looks != 3 {
		t.Error(err, looks)
	}
	role(b, "passive")
	if _, err := c.channels(t.Context()); err == nil || err.Error() != "no director is in charge of group primary" {
		t.Error(err)
	}
}
