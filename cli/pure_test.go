package cli

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	tandemv1 "tandem/api/tandem/v1"
)

func TestArrange(t *testing.T) {
	app := (&invocation{}).app()
	for _, c := range []struct{ given, want string }{
		{"", ""},
		{"status", "status"},
		{"status --json", "--json status"},
		{"show c7 --json", "--json show -- c7"},
		{"export c7 -o dir --director a:1", "--director a:1 export -o dir -- c7"},
		{"calls --from -10m --to=now", "calls --from -10m --to=now"},
		{"export -o - c7", "export -o - -- c7"},
		{"config check x.toml --kind recctl", "config check --kind recctl -- x.toml"},
		{"show status", "show -- status"},
		{"show -- -x --json", "show -- -x --json"},
		{"help", "--help"},
		{"help config check", "config check --help"},
		{"show --bogus x", "show --bogus -- x"},
		{"--version", "--version"},
	} {
		got, err := arrange(app, append([]string{"recctl"}, strings.Fields(c.given)...))
		if err != nil || strings.Join(got[1:], " ") != c.want {
			t.Errorf("%s: %s, %v, want %s", c.given, strings.Join(got[1:], " "), err, c.want)
		}
	}
}

func TestWhen(t *testing.T) {
	zone := time.FixedZone("CET", 3600)
	now := noon.In(zone)
	for s, want := range map[string]string{
		"now":                  "2026-03-02 13:00:00",
		"-10m":                 "2026-03-02 12:50:00",
		"10m ago":              "2026-03-02 12:50:00",
		"1h 30m ago":           "2026-03-02 11:30:00",
		"09:30":                "2026-03-02 09:30:00",
		"09:30:05":             "2026-03-02 09:30:05",
		"2026-02-28 09:30":     "2026-02-28 09:30:00",
		"2026-02-28":           "2026-02-28 00:00:00",
		"2026-03-02T10:00:00Z": "2026-03-02 11:00:00",
	} {
		got, err := when(s, now)
		if err != nil || got.In(zone).Format(time.DateTime) != want {
			t.Errorf("%s: %v %v, want %s", s, got, err, want)
		}
	}
	for _, s := range []string{"", "ago", "-", "--10m", "-10", "25:00", "10m", "noon", "-10m ago"} {
		if got, err := when(s, now); err == nil {
			t.Errorf("%q: %v", s, got)
		}
	}
}

func TestTable(t *testing.T) {
	tab := table{heading: []string{"A", "NUMBER", "B"}}
	tab.add(text("ä"), number("%d", 7), cell{text: "up", colour: green})
	tab.add(text("tab\tesc\x1b[2J"), number("%d", 12345678), text(""))
	want := []string{
		"A             NUMBER  B",
		"ä                  7  up",
		"tab?esc?[2J  12345678",
	}
	want[0] = "A              NUMBER  B"
	want[1] = "ä                   7  up"
	if got := tab.lines(false); !slices.Equal(got, want) {
		t.Errorf("%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	coloured := strings.Join(tab.lines(true), "\n")
	if !strings.Contains(coloured, "  \x1b[32mup\x1b[0m") || !strings.Contains(coloured, "\x1b[1mA\x1b[0m   ") {
		t.Errorf("%q", coloured)
	}
	if (&table{heading: []string{"A"}}).lines(false) != nil {
		t.Error("a table without rows has lines")
	}
}

// What is drawn takes the place of what was, and never wraps.
func TestScreen(t *testing.T) {
	var b bytes.Buffer
	s := &screen{out: &b, terminal: true}
	s.draw([]string{"one", strings.Repeat("x", 200)})
	s.draw([]string{"two"})
	if want := "\r\x1b[Jone\n" + strings.Repeat("x", 120) + "\n\x1b[2A\r\x1b[Jtwo\n"; b.String() != want {
		t.Errorf("%q", b.String())
	}
	b.Reset()
	s = &screen{out: &b}
	s.draw([]string{"one"})
	s.draw([]string{"two"})
	if b.String() != "one\ntwo\n" {
		t.Errorf("%q", b.String())
	}
}

func TestClip(t *testing.T) {
	if got := clip("a\x1b[1mbcd\x1b[0me", 3); got != "a\x1b[1mbc\x1b[0m\x1b[0m" {
		t.Errorf("%q", got)
	}
}

func TestLengthAndSize(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 ms", 48 * time.Millisecond: "48 ms", 3249 * time.Millisecond: "3.2 s", 59999 * time.Millisecond: "59.9 s",
		127 * time.Second: "2:07", time.Hour + 2*time.Minute + 7*time.Second: "1:02:07",
	} {
		if got := length(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 300 << 20: "300 MiB", 5 << 40: "5.0 TiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestNatural(t *testing.T) {
	names := []string{"t10", "t2", "", "t1b", "s3", "t1", "t1a", "t02"}
	slices.SortFunc(names, natural)
	if got := strings.Join(names, " "); got != " s3 t1 t1a t1b t2 t02 t10" {
		t.Error(got)
	}
}

func detail(leg, recorder, group, state string, gap int64, ended bool) *tandemv1.LegDetail {
	l := &tandemv1.Leg{Id: leg, Start: after(0), Session: leg, Source: "HS.L", Channels: []string{leg + ".m1." + map[string]string{"primary": "A", "secondary": "B"}[group]}}
	if ended {
		l.End = after(time.Minute)
	}
	return &tandemv1.LegDetail{Record: &tandemv1.LegRecord{Call: &tandemv1.Call{Id: "c", Start: after(0)}, Leg: l, Recorder: recorder, Group: group, Secondary: group == "secondary", State: state, GapMs: gap}}
}

// A leg in parts on two recorders is one leg; a record without its leg is none.
func TestMergeLegs(t *testing.T) {
	rows := mergeLegs([]*tandemv1.LegDetail{
		detail("l1", "rec-2", "primary", "complete", 100, true),
		detail("l1", "rec-1", "primary", "interrupted", 40, false),
		detail("l1", "rec-9", "secondary", "complete", 0, true),
		{Record: &tandemv1.LegRecord{Recorder: "rec-1"}},
		{},
	})
	if len(rows) != 2 {
		t.Fatalf("%d rows", len(rows))
	}
	r := rows[0]
	if r.group != "primary" || strings.Join(r.recorders, " ") != "rec-1 rec-2" || r.state != "interrupted" || r.gapMs != 140 || r.leg.End == nil || r.partCount() != 2 {
		t.Errorf("%+v", r)
	}
	if !rows[1].secondary || rows[1].gapMs != 0 {
		t.Errorf("%+v", rows[1])
	}
	rows = mergeLegs([]*tandemv1.LegDetail{detail("l1", "rec-1", "primary", "interrupted", 0, true), cut(detail("l1", "rec-2", "primary", "complete", 0, true), 0, 2*time.Minute)})
	if got := at(rows[0].leg.End).Sub(noon); got != 2*time.Minute {
		t.Errorf("it ends after %v, where it was interrupted", got)
	}
	first, second := detail("l1", "rec-1", "primary", "complete", 0, true), detail("l1", "rec-9", "secondary", "complete", 0, true)
	second.Record.Call.End = after(time.Minute)
	for _, r := range mergeLegs([]*tandemv1.LegDetail{first, second}) {
		if r.call.End == nil {
			t.Errorf("%s: the call lasts, though the other group heard its end", r.group)
		}
	}
	first.Record.Call.End, first.Record.Call.EndCause = after(2*time.Minute), "cti_outage"
	for _, both := range [][]*tandemv1.LegDetail{{first, second}, {second, first}} {
		for _, r := range mergeLegs(both) {
			if got := at(r.call.End).Sub(noon); got != time.Minute {
				t.Errorf("%s: the call lasts %v, which is where a director went deaf", r.group, got)
			}
		}
	}
}

func cut(d *tandemv1.LegDetail, from, to time.Duration) *tandemv1.LegDetail {
	d.Record.Leg.Start, d.Record.Leg.End = after(from), after(to)
	return d
}

// A secondary record fills where the primary one is missing, has a gap that the
// secondary does not have, too, or is shorter; whatever ids both have.
func TestSelectCopies(t *testing.T) {
	rename := func(d *tandemv1.LegDetail, leg string) *tandemv1.LegDetail {
		d.Record.Leg.Id = leg
		return d
	}
	gap := func(d *tandemv1.LegDetail, from, to time.Duration) *tandemv1.LegDetail {
		d.Record.GapMs = (to - from).Milliseconds()
		d.Parts = []*tandemv1.Part{{Recorder: d.Record.Recorder, Channel: d.Record.Leg.Channels[0], From: after(0), To: after(time.Minute), Gaps: []*tandemv1.Gap{{From: after(from), To: after(to), Cause: "loss"}}}}
		return d
	}
	for _, c := range []struct {
		name               string
		primary, secondary *tandemv1.LegDetail
		fills              bool
	}{
		{"both whole", detail("a", "rec-1", "primary", "complete", 0, true), detail("a", "rec-9", "secondary", "complete", 0, true), false},
		{"other ids", detail("a", "rec-1", "primary", "complete", 0, true), rename(detail("a", "rec-9", "secondary", "complete", 0, true), "a+2"), false},
		{"no primary", nil, detail("a", "rec-9", "secondary", "complete", 0, true), true},
		{"gap in the primary", gap(detail("a", "rec-1", "primary", "complete", 0, true), 0, time.Second), gap(detail("a", "rec-9", "secondary", "complete", 0, true), 0, 0), true},
		{"gap in the secondary", gap(detail("a", "rec-1", "primary", "complete", 0, true), 0, 0), gap(detail("a", "rec-9", "secondary", "complete", 0, true), 0, time.Second), false},
		{"the same gap in both", gap(detail("a", "rec-1", "primary", "complete", 0, true), time.Second, 2*time.Second), gap(detail("a", "rec-9", "secondary", "complete", 0, true), time.Second, 2*time.Second), false},
		{"a longer gap in the secondary", gap(detail("a", "rec-1", "primary", "complete", 0, true), time.Second, 2*time.Second), gap(detail("a", "rec-9", "secondary", "complete", 0, true), 0, 3*time.Second), false},
		{"gaps apart", gap(detail("a", "rec-1", "primary", "complete", 0, true), time.Second, 2*time.Second), gap(detail("a", "rec-9", "secondary", "complete", 0, true), 2*time.Second, 9*time.Second), true},
		{"gaps measured, not found", detail("a", "rec-1", "primary", "complete", 500, true), detail("a", "rec-9", "secondary", "complete", 0, true), true},
		{"shorter primary", cut(detail("a", "rec-1", "primary", "cti_outage", 0, true), 0, 20*time.Second), detail("a", "rec-9", "secondary", "complete", 0, true), true},
		{"shorter by what clocks may differ", cut(detail("a", "rec-1", "primary", "complete", 0, true), time.Second, time.Minute), detail("a", "rec-9", "secondary", "complete", 0, true), false},
		{"shorter secondary", detail("a", "rec-1", "primary", "complete", 0, true), cut(detail("a", "rec-9", "secondary", "complete", 0, true), 0, 20*time.Second), false},
		{"another turret", detail("a", "rec-1", "primary", "complete", 0, true), detail("b", "rec-9", "secondary", "complete", 0, true), true},
		{"another time", cut(detail("a", "rec-1", "primary", "complete", 0, true), -time.Minute, -time.Second), detail("a", "rec-9", "secondary", "complete", 0, true), true},
	} {
		var details []*tandemv1.LegDetail
		for _, d := range []*tandemv1.LegDetail{c.primary, c.secondary} {
			if d != nil {
				details = append(details, d)
			}
		}
		rows := mergeLegs(details)
		for n := range rows {
			rows[n].known = len(rows[n].parts) > 0
		}
		primaries, fills := len(details)-1, map[bool]int{true: 1}[c.fills]
		for how, want := range map[string][3]int{"hide": {primaries, 1, fills}, "fill": {primaries + fills, 1 - fills, 0}, "show": {primaries + 1, 0, 0}} {
			shown, hidden, fills := selectCopies(rows, how)
			if got := [3]int{len(shown), hidden, fills}; got != want {
				t.Errorf("%s: %s: %v, want %v", c.name, how, got, want)
			}
		}
	}
}

// Tracks are added where their times say, and clipped.
func TestAddTracks(t *testing.T) {
	sum := addTracks([]track{
		{noon.Add(500 * time.Microsecond), []int16{30000, -30000, 5}},
		{noon, []int16{1, 1, 1, 1, 10000, -10000}},
	}, 8000)
	if !sum.start.Equal(noon) || !slices.Equal(sum.samples, []int16{1, 1, 1, 1, 32767, -32768, 5}) {
		t.Errorf("%v %v", sum.start, sum.samples)
	}
}

func TestFileName(t *testing.T) {
	row := mergeLegs([]*tandemv1.LegDetail{detail("l/1", "rec-1", "primary", "complete", 0, true)})
	row[0].call.Id, row[0].leg.UserName = "../c", "Ünal ../x"
	takes := planTakes("", row, []peer{{"rec-1", "a:1"}}, choice{format: tandemv1.Format_FORMAT_FLAC})
	if got := fileName(takes[0], noon); got != "_c__nal_.._x_20260302-120000.flac" {
		t.Error(got)
	}
}

// Nobody is told that nothing is missing of a leg of which there is nothing.
func TestUnheard(t *testing.T) {
	leg := func(id string, end time.Duration, heard bool) legRow {
		r := legRow{leg: &tandemv1.Leg{Id: id, Start: after(-time.Hour), End: after(end)}, group: "primary"}
		if end > 0 {
			r.leg.End = nil
		}
		if heard {
			r.parts = []*tandemv1.Part{{From: after(-time.Hour), To: after(end)}}
		}
		return r
	}
	i := &invocation{now: func() time.Time { return noon }}
	for want, rows := range map[string][]legRow{
		"nothing is missing":                {leg("a", -time.Minute, true), leg("b", 1, true)},
		"no audio of b, c is in a file yet": {leg("a", -time.Minute, true), leg("b", 1, false), leg("c", -time.Minute, false)},
		"no audio of c is kept: the turret sent none, or its channel was not attached; recctl reconcile finds such calls": {leg("a", -time.Minute, true), leg("b", 1, false), leg("c", -lately, false)},
	} {
		if got := i.unheard(rows, legNames(rows)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
