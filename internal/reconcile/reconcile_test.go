package reconcile

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tandem/internal/call"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func sec(n float64) time.Time { return noon.Add(time.Duration(n * float64(time.Second))) }

func between(from, to float64) Span { return Span{sec(from), sec(to)} }

var day = Span{noon.Add(-12 * time.Hour), noon.Add(12 * time.Hour)}

var usual = Options{Tolerance: 2 * time.Second, Least: 100 * time.Millisecond, Both: true}

func leg(c call.Copy, id string, s Span) Record {
	return Record{Copy: c, Group: map[call.Copy]string{call.CopyA: "primary", call.CopyB: "secondary"}[c], Call: "c-" + id, Leg: id, Session: "s1", Source: "HS.L", Channels: []string{"s1.m1"}, State: call.StateComplete, Span: s}
}

func audio(c call.Copy, s Span, gaps ...Span) Media {
	return Media{Channel: "s1.m1", Copy: c, Span: s, Gaps: gaps}
}

// text is findings in short.
func text(findings []Finding) string {
	var all []string
	for _, f := range findings {
		all = append(all, fmt.Sprintf("%s %s %s %v", f.Kind, f.Leg, f.Group, f.By))
	}
	return strings.Join(all, "; ")
}

func TestJudge(t *testing.T) {
	const a, b = call.CopyA, call.CopyB
	one := between(0, 60)
	cut := func(r Record, s call.State) Record { r.State = s; return r }
	for _, c := range []struct {
		name    string
		records []Record
		media   []Media
		blind   map[call.Copy]Span
		told    map[call.Copy]Span // another recorder
		alone   bool
		want    string
	}{
		{name: "whole", records: []Record{leg(a, "x", one), leg(b, "y", one)}, media: []Media{audio(a, one), audio(b, one)}},
		{name: "no record", records: []Record{leg(a, "x", one)}, media: []Media{audio(a, one)}, want: "missing x secondary 1m0s"},
		{name: "no record, but audio", records: []Record{leg(b, "x", one)}, media: []Media{audio(a, one), audio(b, one)}, want: "missing x primary 1m0s"},
		{name: "one group only", records: []Record{leg(a, "x", one)}, media: []Media{audio(a, one)}, alone: true},
		{name: "a gap in one", records: []Record{leg(a, "x", one), leg(b, "x", one)}, media: []Media{audio(a, one, between(10, 13)), audio(b, one)}, want: "shorter x primary 3s"},
		{name: "the same gap in both", records: []Record{leg(a, "x", one), leg(b, "x", one)}, media: []Media{audio(a, one, between(10, 13)), audio(b, one, between(10, 13))}},
		{name: "gaps in part apart", records: []Record{leg(a, "x", one), leg(b, "x", one)}, media: []Media{audio(a, one, between(10, 13)), audio(b, one, between(12, 17))}, want: "shorter x primary 2s; shorter x secondary 4s"},
		{name: "a lost packet", records: []Record{leg(a, "x", one), leg(b, "x", one)}, media: []Media{audio(a, one, between(10, 10.02)), audio(b, one)}},
		{name: "clocks differ", records: []Record{leg(a, "x", one), leg(b, "x", between(1.5, 61.5))}, media: []Media{audio(a, between(-2, 62)), audio(b, between(-2, 62))}},
		{name: "ends early", records: []Record{leg(a, "x", between(0, 20)), leg(b, "x", one)}, media: []Media{audio(a, one), audio(b, one)}, want: "shorter x primary 40s"},
		{name: "stopped a second before the end", records: []Record{cut(leg(a, "x", between(0, 59)), call.StateInterrupted), leg(b, "x", one)}, media: []Media{audio(a, between(0, 59)), audio(b, one)}, want: "shorter x primary 1s"},
		{name: "call events stopped a second before the end", records: []Record{leg(a, "x", one), cut(leg(b, "x", between(0, 59)), call.StateCTIOutage)}, media: []Media{audio(a, one), audio(b, one)}, want: "shorter x secondary 1s"},
		{name: "known as two", records: []Record{leg(a, "x", one), leg(b, "x", between(0, 30)), leg(b, "x+2", between(31, 60))}, media: []Media{audio(a, one), audio(b, one)}, want: "shorter x secondary 1s"},
		{name: "goes on on another recorder", records: []Record{leg(a, "x", one), leg(b, "x", one)}, media: []Media{audio(a, between(0, 30)), audio(a, between(30.5, 60)), audio(b, one)}},
		{name: "gap filled within the group", records: []Record{leg(a, "x", one), leg(b, "x", one)}, media: []Media{audio(a, one, between(10, 20)), audio(a, between(8, 22)), audio(b, one)}},
		{name: "a segment that only says what is missing", records: []Record{leg(a, "x", one), leg(b, "x", one)},
			media: []Media{audio(a, between(0, 30)), {Channel: "s1.m1", Copy: a, Span: between(30, 35), Gaps: []Span{between(30, 35)}, None: true}, audio(a, between(35, 60)), audio(b, one)}, want: "shorter x primary 5s"},
		{name: "begins late", records: []Record{leg(a, "x", one), leg(b, "x", one)}, media: []Media{audio(a, between(7, 60)), audio(b, one)}, want: "shorter x primary 7s"},
		{name: "a record and no audio", records: []Record{leg(a, "x", one), leg(b, "x", one)}, media: []Media{audio(b, one)}, want: "shorter x primary 1m0s"},
		{name: "no audio anywhere", records: []Record{leg(a, "x", one), leg(b, "y", one)}, want: "cti_missing x  0s"},
		{name: "no audio and one record", records: []Record{leg(b, "y", one)}, want: "cti_missing y  0s"},
		{name: "one group only, no audio", records: []Record{leg(a, "x", one)}, alone: true, want: "cti_missing x  0s"},
		{name: "interrupted on one recorder, complete on another", records: []Record{cut(leg(a, "x", between(0, 10)), call.StateInterrupted), leg(a, "x", one), cut(leg(a, "x", between(0, 10)), call.StateInterrupted), leg(b, "x", one)}, media: []Media{audio(a, one), audio(b, one)}},
		{name: "one after the other", records: []Record{leg(a, "x", between(0, 5)), leg(a, "y", between(5, 10)), leg(b, "y", between(5, 10))}, media: []Media{audio(a, one), audio(b, one)}, want: "missing x secondary 5s"},
		{name: "short ones, the middle one missing", records: []Record{leg(a, "x", between(0, 1)), leg(a, "y", between(1.2, 2)), leg(a, "z", between(2.4, 3)), leg(b, "x", between(0, 1)), leg(b, "z", between(2.4, 3))}, media: []Media{audio(a, one), audio(b, one)}, want: "missing y secondary 800ms"},
		{name: "blind, and no call", media: []Media{audio(a, one)}, blind: map[call.Copy]Span{a: between(10, 20)}},
		{name: "both blind", media: []Media{audio(a, one)}, blind: map[call.Copy]Span{a: between(10, 20), b: between(5, 15)}, want: "unattributed   5s"},
		{name: "blind, one group only", media: []Media{audio(a, one)}, blind: map[call.Copy]Span{a: between(10, 20)}, alone: true, want: "unattributed   10s"},
		{name: "blind, and a call after all", records: []Record{leg(a, "x", between(8, 22))}, media: []Media{audio(a, one)}, blind: map[call.Copy]Span{a: between(10, 20)}, alone: true},
		{name: "one recorder was away, another one was told", media: []Media{audio(a, one)}, blind: map[call.Copy]Span{a: between(10, 20)}, told: map[call.Copy]Span{a: one}, alone: true},
		{name: "one recorder was away, another one soon told", media: []Media{audio(a, one)}, blind: map[call.Copy]Span{a: between(10, 20)}, told: map[call.Copy]Span{a: between(13, 60)}, alone: true, want: "unattributed   3s"},
		{name: "blind, and the other group was told", media: []Media{audio(a, one)}, blind: map[call.Copy]Span{a: between(10, 20), b: between(5, 30)}, told: map[call.Copy]Span{b: one}},
		{name: "blind while the other one was down", media: []Media{audio(a, one), audio(b, one, between(0, 60))}, blind: map[call.Copy]Span{a: between(10, 20)}, want: "unattributed   10s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			opts := usual
			opts.Both = !c.alone
			s := NewSurvey(day, opts)
			for _, r := range c.records {
				s.Add(r)
			}
			for _, m := range c.media {
				s.AddMedia(m)
			}
			for of, w := range c.blind {
				s.AddBlind(of, w)
			}
			for of, w := range c.told {
				s.AddTold(of, w)
			}
			got := s.Settle(day.To).Findings
			if text(got) != c.want {
				t.Errorf("got  %s\nwant %s", text(got), c.want)
			}
			if s.Count().Total() != len(got) {
				t.Errorf("counted %d of %d findings", s.Count().Total(), len(got))
			}
			if len(s.lanes)+len(s.tracks)+len(s.known) != 0 {
				t.Errorf("%d lanes, %d tracks, %d known kept", len(s.lanes), len(s.tracks), len(s.known))
			}
		})
	}
}

// At the edge of what is compared a twin may be out of sight.
func TestEdges(t *testing.T) {
	s := NewSurvey(between(0, 60), usual)
	s.Add(leg(call.CopyA, "x", between(0, 1)))
	s.Add(leg(call.CopyB, "y", between(59, 60)))
	s.AddMedia(audio(call.CopyA, between(0, 60)))
	s.AddMedia(audio(call.CopyB, between(0, 60)))
	if got := s.Settle(sec(90)).Findings; len(got) != 0 {
		t.Error(text(got))
	}
}

// A copy of which media files hold no more yet than its twin had is looked at
// again, and found to have more. What ended long ago is known as it is.
func TestHalfWritten(t *testing.T) {
	const a, b = call.CopyA, call.CopyB
	short := leg(a, "x", between(0, 20))
	short.State = call.StateInterrupted
	for _, c := range []struct {
		name    string
		fresh   time.Time
		written float64 // of the second copy
		doubts  int
	}{
		{"half of it is written", sec(30), 20, 2},
		{"all of it is written", sec(30), 60, 2}, // there is a fault
		{"it was silent in the end", sec(90), 20, 0},
		{"everything is written", time.Time{}, 20, 0},
	} {
		opts := usual
		opts.Fresh = c.fresh
		s := NewSurvey(day, opts)
		s.Add(short)
		s.Add(leg(b, "x", between(0, 60)))
		s.AddMedia(audio(a, between(-2, 20)))
		s.AddMedia(audio(b, between(-2, c.written)))
		if got := s.Doubts(sec(600)); len(got) != c.doubts {
			t.Errorf("%s: %d records in doubt, want %d", c.name, len(got), c.doubts)
		}
	}
}

// Of random records, some of which one group never had, exactly these are
// missing, however the ids differ and in however many steps all is told.
func TestExactlyTheRemoved(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		opts := usual
		s := NewSurvey(day, opts)
		var calls []Record
		skew := time.Duration(rapid.IntRange(-200, 200).Draw(t, "skew")) * time.Millisecond
		var want []string
		for turret := range rapid.IntRange(1, 4).Draw(t, "turrets") {
			at := sec(rapid.Float64Range(0, 20).Draw(t, "begin"))
			for n := range rapid.IntRange(0, 12).Draw(t, "calls") {
				at = at.Add(time.Duration(rapid.IntRange(500, 60_000).Draw(t, "pause")) * time.Millisecond)
				span := Span{at, at.Add(time.Duration(rapid.IntRange(1000, 90_000).Draw(t, "length")) * time.Millisecond)}
				at = span.To
				for _, c := range []call.Copy{call.CopyA, call.CopyB} {
					r := leg(c, fmt.Sprintf("t%d.%d", turret, n), span)
					r.Session, r.Channels = fmt.Sprintf("s%d", turret), []string{fmt.Sprintf("s%d.m1", turret)}
					if c == call.CopyB {
						r.Span = Span{r.From.Add(skew), r.To.Add(skew)}
						r.Leg, r.Call = "other-"+r.Leg, "other-"+r.Call
					}
					calls = append(calls, r)
				}
				switch rapid.IntRange(0, 5).Draw(t, "removed") {
				case 0:
					want = append(want, "missing "+calls[len(calls)-1].Leg)
					calls = slices.Delete(calls, len(calls)-2, len(calls)-1)
				case 1:
					want = append(want, "missing "+calls[len(calls)-2].Leg)
					calls = calls[:len(calls)-1]
				}
			}
		}
		slices.SortFunc(calls, func(a, b Record) int { return a.From.Compare(b.From) })
		step := time.Duration(rapid.IntRange(10, 2000).Draw(t, "step")) * time.Second
		var got []string
		for now := day.From; now.Before(day.To.Add(step)); now = now.Add(max(step, time.Hour)) {
			until := now.Add(max(step, time.Hour))
			for len(calls) > 0 && calls[0].From.Before(until) {
				r := calls[0]
				s.Add(r)
				s.AddMedia(Media{Channel: r.Channels[0], Copy: r.Copy, Span: r.Span.widen(2 * time.Second)})
				calls = calls[1:]
			}
			for _, f := range s.Settle(until).Findings {
				got = append(got, fmt.Sprint(f.Kind, " ", f.Leg))
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("got  %v\nwant %v", got, want)
		}
	})
}

// What random gaps leave in one copy and not in the other is reported, to the
// length.
func TestExactlyTheGaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const tenths = 600
		lost := map[call.Copy]*[tenths]bool{call.CopyA: {}, call.CopyB: {}}
		s := NewSurvey(day, Options{Tolerance: time.Second, Least: time.Millisecond, Both: true})
		for _, c := range []call.Copy{call.CopyA, call.CopyB} {
			var gaps []Span
			for range rapid.IntRange(0, 6).Draw(t, "gaps") {
				from := rapid.IntRange(1, tenths-50).Draw(t, "from")
				to := from + rapid.IntRange(1, 40).Draw(t, "length")
				gaps = append(gaps, between(float64(from)/10, float64(to)/10))
				for n := from; n < to; n++ {
					lost[c][n] = true
				}
			}
			s.Add(leg(c, string(c), between(0, tenths/10)))
			s.AddMedia(audio(c, between(-2, tenths/10+2), gaps...))
		}
		want := map[string]time.Duration{}
		for n := range tenths {
			switch a, b := lost[call.CopyA][n], lost[call.CopyB][n]; {
			case a && !b:
				want["primary"] += 100 * time.Millisecond
			case b && !a:
				want["secondary"] += 100 * time.Millisecond
			}
		}
		got := map[string]time.Duration{}
		for _, f := range s.Settle(day.To).Findings {
			got[f.Group] += f.By
		}
		for _, g := range []string{"primary", "secondary"} {
			if (got[g] - want[g]).Abs() > time.Microsecond {
				t.Fatalf("%s lacks %v, want %v", g, got[g], want[g])
			}
		}
	})
}
