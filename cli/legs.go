package cli

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/cli/recording"
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
	gapMs     int64 // of the whole leg; before stitch, the records' together
	parts     []*tandemv1.Part
	missing   []gap // by stitch, in order
	known     bool  // parts and missing are; otherwise only gapMs is
}

// mergeLegs makes one row of all that several recorders hold of a leg. Each
// group keeps its own: a secondary record is not part of a primary one. The
// newest calls come first, the legs of a call stand together, oldest first.
func mergeLegs(details []*tandemv1.LegDetail) []legRow {
	type key struct{ group, leg string }
	merged := map[key]*legRow{}
	newest := map[string]*tandemv1.Call{} // of what any group heard
	for _, d := range details {
		r := d.Record
		if r.GetCall() == nil || r.GetLeg() == nil {
			continue
		}
		newest[r.Call.Id] = newerCall(newest[r.Call.Id], r.Call)
		k := key{r.Group, r.Leg.Id}
		row := merged[k]
		if row == nil {
			merged[k] = &legRow{call: r.Call, leg: r.Leg, group: r.Group, secondary: r.Secondary, recorders: []string{r.Recorder}, state: r.State, gapMs: r.GapMs, parts: d.Parts}
			continue
		}
		row.leg = newerLeg(row.leg, r.Leg, row.state, r.State)
		row.state = mergeState(row.state, r.State)
		row.gapMs += r.GapMs
		row.parts = append(row.parts, d.Parts...)
		if !slices.Contains(row.recorders, r.Recorder) {
			row.recorders = append(row.recorders, r.Recorder)
		}
	}
	var rows []legRow
	for _, r := range merged {
		r.call = newest[r.call.Id]
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
// it ended still believes it lasts. One that was cut where its director went
// deaf ended as anybody else heard it. The first may be nil.
func newerCall(a, b *tandemv1.Call) *tandemv1.Call {
	knows := func(c *tandemv1.Call) int {
		switch {
		case c.GetEnd() == nil:
			return 0
		case c.EndCause == string(call.StateCTIOutage):
			return 1
		}
		return 2
	}
	if a == nil || knows(b) > knows(a) {
		return b
	}
	return a
}

// newerLeg is the same for a leg. One that its recorder calls interrupted ends
// where that recorder stopped, and may have gone on elsewhere.
func newerLeg(a, b *tandemv1.Leg, stateOfA, stateOfB string) *tandemv1.Leg {
	const interrupted = string(call.StateInterrupted)
	if a.End == nil && b.End != nil || b.End != nil && stateOfA == interrupted && stateOfB != interrupted {
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

// byGroup cuts the legs of a call into those of each group, primary ones first.
func byGroup(legs []legRow) [][]legRow {
	legs = slices.Clone(legs)
	slices.SortStableFunc(legs, func(a, b legRow) int {
		switch {
		case a.secondary && !b.secondary:
			return 1
		case b.secondary && !a.secondary:
			return -1
		}
		return cmp.Compare(a.group, b.group)
	})
	var all [][]legRow
	for n, r := range legs {
		if n == 0 || legs[n-1].group != r.group || legs[n-1].secondary != r.secondary {
			all = append(all, nil)
		}
		all[len(all)-1] = append(all[len(all)-1], r)
	}
	return all
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

// channel is the one that holds most of the leg; empty when none holds any.
func (r legRow) channel() string {
	held := map[string]time.Duration{}
	best := ""
	for _, p := range r.parts {
		held[p.Channel] += at(p.To).Sub(at(p.From))
		for _, g := range p.Gaps {
			held[p.Channel] -= at(g.To).Sub(at(g.From))
		}
	}
	for _, p := range r.parts {
		if best == "" || held[p.Channel] > held[best] {
			best = p.Channel
		}
	}
	if best == "" && len(r.leg.Channels) > 0 {
		return r.leg.Channels[0]
	}
	return best
}

// interval is from the leg's begin to its end; without end while it lasts.
func (r legRow) interval() recording.Interval {
	return recording.Interval{From: r.start(), To: at(r.leg.End)}
}

// gap is what is missing, and the recorders on both sides of it, where known.
type gap struct {
	from, to      time.Time
	cause         string
	before, after string
}

func (g gap) length() time.Duration { return g.to.Sub(g.from) }

// between names the two recorders that a gap lies between; empty when it does
// not.
func (g gap) between() string {
	if g.before == "" || g.after == "" || g.before == g.after {
		return ""
	}
	return "between " + g.before + " and " + g.after
}

// gapsOf are gaps as one recorder tells them.
func gapsOf(list []*tandemv1.Gap, recorder string) []gap {
	gaps := make([]gap, len(list))
	for n, g := range list {
		gaps[n] = gap{at(g.From), at(g.To), g.Cause, recorder, recorder}
	}
	return gaps
}

// stitch makes one leg of parts on several recorders: each part is where it has
// media, and missing is what nobody has.
func (r *legRow) stitch() {
	if len(r.parts) == 1 {
		r.missing = gapsOf(r.parts[0].Gaps, r.parts[0].Recorder)
	}
	if len(r.parts) < 2 {
		return
	}
	held, missing := recording.Stitch(r.parts, r.interval())
	r.gapMs = 0
	for _, g := range missing {
		r.missing = append(r.missing, gap{g.From, g.To, string(g.Cause), g.Before, g.After})
		r.gapMs += g.Length.Milliseconds()
	}
	for n, p := range r.parts {
		r.parts[n] = &tandemv1.Part{Recorder: p.Recorder, Channel: p.Channel, From: timestamppb.New(held[n].From), To: timestamppb.New(held[n].To), Segments: p.Segments, Gaps: p.Gaps}
	}
	slices.SortStableFunc(r.parts, func(a, b *tandemv1.Part) int { return at(a.From).Compare(at(b.From)) })
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
