package cli

import (
	"cmp"
	"slices"
	"strings"
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/call"
)

// legRow is one leg as the recorders together hold it.
type legRow struct {
	call      *tandemv1.Call
	leg       *tandemv1.Leg
	group     string
	secondary bool
	recorders []string
	state     string
	gapMs     int64 // the parts' gaps together
	parts     []*tandemv1.Part
}

// mergeLegs makes one row of all that several recorders hold of a leg. Each
// group keeps its own: a secondary record is not part of a primary one. The
// newest calls come first, the legs of a call stand together, oldest first.
func mergeLegs(details []*tandemv1.LegDetail) []legRow {
	type key struct{ group, leg string }
	merged := map[key]*legRow{}
	for _, d := range details {
		r := d.Record
		if r.GetCall() == nil || r.GetLeg() == nil {
			continue
		}
		k := key{r.Group, r.Leg.Id}
		row := merged[k]
		if row == nil {
			merged[k] = &legRow{call: r.Call, leg: r.Leg, group: r.Group, secondary: r.Secondary, recorders: []string{r.Recorder}, state: r.State, gapMs: r.GapMs, parts: d.Parts}
			continue
		}
		row.call, row.leg = newerCall(row.call, r.Call), newerLeg(row.leg, r.Leg)
		row.state = mergeState(row.state, r.State)
		row.gapMs += r.GapMs
		row.parts = append(row.parts, d.Parts...)
		if !slices.Contains(row.recorders, r.Recorder) {
			row.recorders = append(row.recorders, r.Recorder)
		}
	}
	var rows []legRow
	for _, r := range merged {
		slices.Sort(r.recorders)
		slices.SortStableFunc(r.parts, func(a, b *tandemv1.Part) int { return at(a.From).Compare(at(b.From)) })
		rows = append(rows, *r)
	}
	sortLegs(rows)
	return rows
}

func sortLegs(rows []legRow) {
	slices.SortFunc(rows, func(a, b legRow) int {
		return cmp.Or(
			b.callStart().Compare(a.callStart()),
			cmp.Compare(a.call.Id, b.call.Id),
			at(a.leg.Start).Compare(at(b.leg.Start)),
			natural(a.leg.Device, b.leg.Device),
			cmp.Compare(call.SourceRank(a.leg.Source), call.SourceRank(b.leg.Source)),
			cmp.Compare(a.leg.Id, b.leg.Id),
			cmp.Compare(a.group, b.group))
	})
}

// newerCall prefers a call known to have ended: a recorder that was away when
// it ended still believes it lasts.
func newerCall(a, b *tandemv1.Call) *tandemv1.Call {
	if a.End == nil && b.End != nil {
		return b
	}
	return a
}

func newerLeg(a, b *tandemv1.Leg) *tandemv1.Leg {
	if a.End == nil && b.End != nil {
		return b
	}
	return a
}

// mergeState is what the parts of a leg together are: still recording if one
// is, else as bad as the worst.
func mergeState(a, b string) string {
	for _, s := range []call.State{call.StateRecording, call.StateCTIOutage, call.StateInterrupted} {
		if a == string(s) || b == string(s) {
			return string(s)
		}
	}
	return a
}

// calls cuts rows, as mergeLegs orders them, into one slice a call.
func calls(rows []legRow) [][]legRow {
	var all [][]legRow
	for n, r := range rows {
		if n == 0 || rows[n-1].call.Id != r.call.Id {
			all = append(all, nil)
		}
		all[len(all)-1] = append(all[len(all)-1], r)
	}
	return all
}

func (r legRow) start() time.Time { return at(r.leg.Start) }

// callStart is the leg's own when nobody told of the call.
func (r legRow) callStart() time.Time {
	if r.call.Start == nil {
		return r.start()
	}
	return at(r.call.Start)
}

// duration of a leg that lasts is counted until now.
func (r legRow) duration(now time.Time) time.Duration {
	end := at(r.leg.End)
	if end.IsZero() {
		end = now
	}
	return max(0, end.Sub(r.start()))
}

func (r legRow) partCount() int { return max(len(r.parts), len(r.recorders)) }

// gaps are those of all parts, in order.
func (r legRow) gaps() []*tandemv1.Gap {
	var gaps []*tandemv1.Gap
	for _, p := range r.parts {
		gaps = append(gaps, p.Gaps...)
	}
	slices.SortStableFunc(gaps, func(a, b *tandemv1.Gap) int { return at(a.From).Compare(at(b.From)) })
	return slices.CompactFunc(gaps, func(a, b *tandemv1.Gap) bool {
		return a.Cause == b.Cause && at(a.From).Equal(at(b.From)) && at(a.To).Equal(at(b.To))
	})
}

func (r legRow) agent() string {
	name := r.leg.UserName
	if name == "" {
		name = r.leg.User
	}
	return name
}

// party is who the call is with, as far as anybody said.
func party(c *tandemv1.Call) string {
	return strings.TrimSpace(strings.Join([]string{c.PartyName, c.Party}, " "))
}

type legJSON struct {
	Call       string   `json:"call"`
	Leg        string   `json:"leg"`
	Line       string   `json:"line"`
	Kind       string   `json:"kind"`
	Direction  string   `json:"direction"`
	Party      string   `json:"party"`
	PartyName  string   `json:"party_name"`
	User       string   `json:"user"`
	Device     string   `json:"device"`
	Source     string   `json:"source"`
	Start      stamp    `json:"start"`
	End        stamp    `json:"end"`
	DurationMs int64    `json:"duration_ms"`
	State      string   `json:"state"`
	Group      string   `json:"group"`
	Secondary  bool     `json:"secondary"`
	Recorders  []string `json:"recorders"`
	Parts      int      `json:"parts"`
	GapMs      int64    `json:"gap_ms"`
	Accuracy   string   `json:"accuracy"`
}

func (r legRow) json(now time.Time) legJSON {
	c, l := r.call, r.leg
	return legJSON{c.Id, l.Id, c.Line, c.Kind, c.Direction, c.Party, c.PartyName, l.User, l.Device, l.Source, stampOf(l.Start), stampOf(l.End),
		r.duration(now).Milliseconds(), r.state, r.group, r.secondary, r.recorders, r.partCount(), r.gapMs, l.Accuracy}
}
