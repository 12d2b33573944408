package cli

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/call"
	"tandem/internal/media"
)

// twins is a site with two groups, a director and a recorder each.
type twins struct {
	directors [2]*fakeDirector
	recorders [2]*fakeRecorder
	config    string
	names     *strings.Replacer
}

var groupNames = [2]string{"primary", "secondary"}

func newTwins(t *testing.T) *twins {
	s := &twins{}
	var addresses, places []string
	for n, group := range groupNames {
		rec := &fakeRecorder{pages: true, exports: map[string]fakeExport{}}
		s.recorders[n] = rec
		at, name := rec.serve(t), []string{"rec-1", "rec-9"}[n]
		s.directors[n] = &fakeDirector{status: &tandemv1.StatusResponse{
			Site: "ldn", Generated: after(0),
			Directors: []*tandemv1.DirectorStatus{{Name: []string{"dir-a", "dir-s"}[n], Group: group, Role: "active", Epoch: 3, Since: after(-time.Hour), Preferred: true, Basis: "alone", Cti: "up", Sessions: 2, Channels: 4, Attached: 4}},
			Recorders: []*tandemv1.RecorderStatus{{Name: name, Group: group, Address: at, State: "ready", Score: 0.1, Load: &tandemv1.Load{Ready: true, Channels: 4}}},
			Headroom:  []*tandemv1.Headroom{{Group: group, Busiest: name, Text: name + " is the only one ready"}},
			Alarms:    []*tandemv1.Alarm{{Severity: "warning", What: "no_headroom", Object: "group", Since: after(-time.Minute), Text: name + " is the only one ready"}},
		}}
		addresses = append(addresses, fmt.Sprintf("%q", s.directors[n].serve(t)))
		places = append(places, at, "RECORDER"+fmt.Sprint(n+1), strings.Trim(addresses[n], `"`), "DIRECTOR"+fmt.Sprint(n+1))
	}
	s.config = "directors = [" + strings.Join(addresses, ", ") + "]\nwatchdogs = []\n"
	s.names = strings.NewReplacer(places...)
	return s
}

// hold gives a group a leg, and audio of all of it but the gaps.
func (s *twins) hold(group int, id, turret string, from, to time.Duration, state string, gaps ...*tandemv1.Gap) {
	channel, missing := "s-"+turret+".m1."+"AB"[group:group+1], int64(0)
	for _, g := range gaps {
		missing += at(g.To).Sub(at(g.From)).Milliseconds()
	}
	cause := "normal"
	if state == string(call.StateCTIOutage) {
		cause = state
	}
	recorder := []string{"rec-1", "rec-9"}[group]
	s.recorders[group].legs = append(s.recorders[group].legs, &tandemv1.LegDetail{
		Record: &tandemv1.LegRecord{
			Call:  &tandemv1.Call{Id: id, Line: "L1", Direction: "in", Kind: "dial", Party: "100", Start: after(from), End: after(to), EndCause: cause},
			Leg:   &tandemv1.Leg{Id: id + ".1", Call: id, Session: "s-" + turret, User: "u-" + turret, Device: turret, Source: "HS.L", Channels: []string{channel}, Start: after(from), End: after(to), Accuracy: "exact"},
			Group: groupNames[group], Secondary: group == 1, Recorder: recorder, State: state, GapMs: missing,
		},
		Parts: []*tandemv1.Part{{Recorder: recorder, Channel: channel, From: after(from), To: after(to), Gaps: gaps, Segments: []*tandemv1.Segment{
			{Id: id, Channel: channel, Copy: "AB"[group : group+1], Start: after(from - 2*time.Second), End: after(to + 2*time.Second), Codec: tandemv1.Codec_CODEC_PCMU, File: id + ".wav", Samples: 8 * (to - from + 4*time.Second).Milliseconds(), Gaps: gaps},
		}}},
	})
}

func gapBetween(from, to time.Duration, cause string) *tandemv1.Gap {
	return &tandemv1.Gap{From: after(from), To: after(to), Cause: cause}
}

// outage is what a site holds after its primary group was dead from 20 to 19
// minutes ago.
func (s *twins) outage() {
	const m = time.Minute
	for group := range s.recorders {
		s.hold(group, "whole", "t1", -40*m, -38*m, "complete")
	}
	s.hold(0, "over", "t1", -22*m, -18*m, "complete", gapBetween(-20*m, -19*m, "interrupted"))
	s.hold(1, "over", "t1", -22*m, -18*m, "complete")
	s.hold(1, "inside", "t2", -20*m+10*time.Second, -20*m+30*time.Second, "complete")
	s.hold(0, "into", "t3", -21*m, -20*m, "cti_outage")
	s.hold(1, "into", "t3", -21*m, -20*m+30*time.Second, "complete")
	s.hold(0, "holed", "t4", -10*m, -9*m, "complete", gapBetween(-10*m+time.Second, -10*m+2*time.Second, "loss"))
	s.hold(1, "holed", "t4", -10*m, -9*m, "complete", gapBetween(-10*m+time.Second, -10*m+2*time.Second, "loss"))
}

// Both groups' records: hidden, where they fill something, and all.
func TestTwinsGolden(t *testing.T) {
	site := newTwins(t)
	site.outage()
	for _, c := range []struct {
		name   string
		args   string
		status int
	}{
		{"twins_status", "status", ExitDone},
		{"twins_calls_hide", "calls", ExitDone},
		{"twins_calls_fill", "calls --secondary fill", ExitDone},
		{"twins_calls_show", "calls --secondary show", ExitDone},
		{"twins_calls_limit", "calls --secondary fill --limit 3", ExitDone},
		{"twins_show", "show over", ExitDone},
		{"twins_show_shorter", "show into", ExitDone},
		{"twins_show_alike", "show holed", ExitDone},
		{"twins_reconcile", "reconcile", ExitFound},
		{"twins_reconcile_json", "reconcile --json", ExitFound},
		{"twins_reconcile_clean", "reconcile --from -15m", ExitDone},
		{"help_reconcile", "reconcile --help", ExitDone},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := recctl(t, site.config, strings.Fields(c.args)...)
			if r.status != c.status || r.errs != "" {
				t.Errorf("status %d, want %d; %s", r.status, c.status, r.errs)
			}
			golden(t, c.name, site.names.Replace(r.out))
		})
	}
}

// A group that cannot be reached is named, and the other one shown; it is not
// taken to lack everything.
func TestOneGroupAway(t *testing.T) {
	site := newTwins(t)
	site.outage()
	site.directors[0].status.Recorders[0].Address = closedPort(t)
	r := recctl(t, site.config, "calls", "--secondary", "fill")
	if r.status != ExitDone || !strings.Contains(r.errs, "group primary left out: none of its recorders can be reached") || strings.Count(r.out, " secondary") != 5 {
		t.Errorf("%+v", r)
	}
	if r = recctl(t, site.config, "calls"); !strings.Contains(r.out, "5 of 5 hidden secondary records would fill something") {
		t.Errorf("%+v", r)
	}
	r = recctl(t, site.config, "reconcile")
	if r.status != ExitFailed || !strings.Contains(r.out, "5 records, 0 in both groups, 0 of these whole: nothing found") || !strings.Contains(r.errs, "not all was compared: rec-1 could not be reached") {
		t.Errorf("%+v", r)
	}
	gone := strings.Replace(site.config, `["`, `["`+closedPort(t)+`", "`, 1)
	if r = recctl(t, gone, "calls"); !strings.Contains(r.errs, "nobody that answers knows the group of 127.0.0.1:") {
		t.Errorf("%+v", r)
	}
	nowhere := fmt.Sprintf("directors = []\nrecorders = [%q]\nwatchdogs = []\n", closedPort(t))
	if r = recctl(t, nowhere, "reconcile"); r.status != ExitUnreached {
		t.Errorf("%+v", r)
	}
}

// Hidden records do not use up the limit, and a cut list of one group does not
// make the other one's older records fill anything.
func TestLimitOfTwins(t *testing.T) {
	site := newTwins(t)
	for n := range 6 {
		from := -time.Hour + time.Duration(n)*time.Minute
		for group := range site.recorders {
			site.hold(group, fmt.Sprint("c", n), "t1", from, from+30*time.Second, "complete")
		}
	}
	for args, want := range map[string]string{"calls --limit 3 --json": "c5 c4 c3", "calls --limit 3 --secondary fill --json": "c5 c4 c3", "calls --limit 4 --secondary show --json": "c5 c5 c4 c4"} {
		r := recctl(t, site.config, strings.Fields(args)...)
		var got []string
		for line := range strings.Lines(r.out) {
			var leg struct{ Call string }
			if err := json.Unmarshal([]byte(line), &leg); err != nil {
				t.Fatal(err)
			}
			got = append(got, leg.Call)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", args, got, want)
		}
	}
	site.recorders[1].legs = site.recorders[1].legs[:0]
	for n := range 4 { // newer than all that the primary has
		from := -30*time.Minute + time.Duration(n)*time.Minute
		site.hold(1, fmt.Sprint("d", n), "t1", from, from+30*time.Second, "complete")
	}
	if r := recctl(t, site.config, "calls", "--limit", "3"); !strings.Contains(r.out, "c5 ") || !strings.Contains(r.out, "c3 ") || !strings.Contains(r.out, "3 of 3 hidden") {
		t.Errorf("%+v", r)
	}
}

// What the platform accounts for is compared with both groups together.
func TestReconcileAgainst(t *testing.T) {
	site := newTwins(t)
	site.outage()
	file := filepath.Join(t.TempDir(), "cdr.csv")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("call_id,agent,start,end\nwhole,,2026-03-02 12:20:00,2026-03-02 12:22:00\nnever,,2026-03-02 12:20:00,2026-03-02 12:22:00\nxyz,u-t2,2026-03-02T11:40:10Z,2026-03-02T11:40:30Z\nwhole,,2025-03-02 12:20:00,2025-03-02 12:22:00\n")
	r := recctl(t, site.config, "reconcile", "--against", file, "--to", "-25m")
	if r.status != ExitFound || !strings.Contains(r.out, "1 missing") || !strings.Contains(r.out, "line 3: no recorder has a record of it") || !strings.Contains(r.out, "2 calls compared, 2 not wholly in that time") {
		t.Errorf("%+v", r)
	}
	r = recctl(t, site.config, "reconcile", "--against", file, "--json")
	if !strings.Contains(r.out, `"call":"never"`) || strings.Contains(r.out, `"call":"xyz"`) || !strings.Contains(r.out, `"compared":3,"outside":1}`) {
		t.Errorf("%+v", r)
	}
	write("call_id,start,end\nx,soon,later\n")
	if r = recctl(t, site.config, "reconcile", "--against", file); r.status != ExitUsage || !strings.Contains(r.errs, file+`:2: column 2 "start": "soon": want`) {
		t.Errorf("%+v", r)
	}
	if r = recctl(t, site.config, "reconcile", "--against", "no-such.csv"); r.status != ExitUsage || !strings.Contains(r.errs, "no such file") {
		t.Errorf("%+v", r)
	}
}

// Two copies that do not sound alike are found only by listening.
func TestReconcileDeep(t *testing.T) {
	tone := func(step int) []byte {
		samples := make([]byte, 60*8000)
		for n := range samples {
			hz := 200 + float64((n/800*step)%29)*90
			samples[n] = media.LinearToMuLaw(int16(6000 * math.Sin(2*math.Pi*hz*float64(n)/8000)))
		}
		return samples
	}
	for _, c := range []struct {
		second []byte
		status int
	}{{tone(1), ExitDone}, {tone(5), ExitFound}} {
		site := newTwins(t)
		for group := range site.recorders {
			site.hold(group, "c1", "t1", -time.Hour, -time.Hour+time.Minute, "complete")
		}
		site.recorders[0].exports["s-t1.m1.A"] = fakeExport{start: noon.Add(-time.Hour), samples: tone(1)}
		site.recorders[1].exports["s-t1.m1.B"] = fakeExport{start: noon.Add(-time.Hour), samples: c.second}
		r := recctl(t, site.config, "reconcile", "--deep")
		if r.status != c.status || strings.Contains(r.out, "primary and secondary do not sound the same for 1:00") != (c.status == ExitFound) {
			t.Errorf("%+v", r)
		}
		if r = recctl(t, site.config, "reconcile"); r.status != ExitDone {
			t.Errorf("without listening: %+v", r)
		}
	}
}

// A recorder that died was told of no calls, and the others were: what they
// recorded meanwhile is not of calls that nobody could hear of.
func TestReconcileAfterADeath(t *testing.T) {
	const m = time.Minute
	lived, died := newTwins(t), newTwins(t)
	lived.hold(0, "whole", "t1", -40*m, -38*m, "complete")
	part := lived.recorders[0].legs[0].Parts[0]
	part.Segments = append(part.Segments, &tandemv1.Segment{Id: "idle", Channel: "s-t9.m1.A", Copy: "A", Start: after(-35 * m), End: after(-15 * m), Codec: tandemv1.Codec_CODEC_PCMU, File: "idle.wav", Samples: 20 * 60 * 8000})
	died.hold(0, "early", "t2", -50*m, -49*m, "complete")
	died.recorders[0].blind = []*tandemv1.Window{{From: after(-30 * m), To: after(-20 * m)}}
	other := died.directors[0].status.Recorders[0]
	other.Name = "rec-2"
	lived.directors[0].status.Recorders = append(lived.directors[0].status.Recorders, other)
	config := fmt.Sprintf("directors = [%q]\nwatchdogs = []\n", lived.directors[0].serve(t))
	if r := recctl(t, config, "reconcile"); r.status != ExitDone || strings.Contains(r.out, "unattributed") {
		t.Errorf("one recorder died: %+v", r)
	}
	lived.recorders[0].blind = []*tandemv1.Window{{From: after(-25 * m), To: after(-20 * m)}}
	if r := recctl(t, config, "reconcile"); r.status != ExitFound || !strings.Contains(r.out, "unattributed  -      12:35:00    5:00") {
		t.Errorf("nobody could hear: %+v", r)
	}
}
