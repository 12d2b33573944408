package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/call"
	"tandem/internal/reconcile"
)

func callsCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:  "calls",
		Usage: "search the recorded calls, newest first",
		Description: `TIME is "2006-01-02 15:04", "15:04" (today), "-10m", "10m ago" or RFC 3339.
A call is found when it overlaps --from to --to.

With --json an object a line for each leg of each call: call, leg, line, kind,
direction, party, party_name, user, device, source, start, end, duration_ms,
state (recording, complete, interrupted, cti_outage), group, secondary,
recorders[], parts, gap_ms, accuracy.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "calls that last after `TIME`"},
			&cli.StringFlag{Name: "to", Usage: "calls that began before `TIME`"},
			&cli.StringFlag{Name: "agent", Usage: "`TEXT` in the user's id or name"},
			&cli.StringFlag{Name: "party", Usage: "`TEXT` in the other party's number or name"},
			&cli.StringFlag{Name: "line", Usage: "on the line `NAME`"},
			&cli.StringFlag{Name: "device", Usage: "at the turret `NAME`"},
			&cli.BoolFlag{DisableDefaultText: true, Name: "ongoing", Usage: "only calls that last"},
			&cli.StringFlag{Name: "secondary", Value: "hide", Usage: "2N records: `hide|fill|show` (fill: where the primary is missing or has a gap)"},
			&cli.UintFlag{Name: "limit", Value: 100, Usage: "at most `N` legs, the newest"},
		},
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			question, err := i.search(c)
			if err != nil {
				return err
			}
			secondary := c.String("secondary")
			if !slices.Contains([]string{"hide", "fill", "show"}, secondary) {
				return usage("--secondary %q: want hide, fill or show", secondary)
			}
			s, err := i.site(c)
			if err != nil {
				return err
			}
			found, err := s.search(c.Context, question, secondary, i.now())
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return i.legsJSON(found)
			}
			i.callsTable(found)
			return nil
		},
	}
}

// search is the question that the options ask.
func (i *invocation) search(c *cli.Context) (*tandemv1.SearchCallsRequest, error) {
	from, to, err := i.interval(c)
	if err != nil {
		return nil, err
	}
	limit := c.Uint("limit")
	if limit < 1 || limit > 100_000 {
		return nil, usage("--limit %d: want 1 to 100000", limit)
	}
	return &tandemv1.SearchCallsRequest{
		From: from, To: to, Agent: c.String("agent"), Party: c.String("party"), Line: c.String("line"), Device: c.String("device"),
		Ongoing: c.Bool("ongoing"), Limit: uint32(limit),
	}, nil
}

// interval reads --from and --to; either may be missing.
func (i *invocation) interval(c *cli.Context) (from, to *timestamppb.Timestamp, err error) {
	read := func(name string) (*timestamppb.Timestamp, error) {
		if !c.IsSet(name) {
			return nil, nil
		}
		t, err := when(c.String(name), i.now().In(i.zone))
		if err != nil {
			return nil, &exitError{ExitUsage, fmt.Errorf("--%s: %w", name, err)}
		}
		return timestamppb.New(t), nil
	}
	if from, err = read("from"); err != nil {
		return nil, nil, err
	}
	if to, err = read("to"); err != nil {
		return nil, nil, err
	}
	if from != nil && to != nil && !at(from).Before(at(to)) {
		return nil, nil, usage("--from %s is not before --to %s", at(from).In(i.zone).Format(time.DateTime), at(to).In(i.zone).Format(time.DateTime))
	}
	return from, to, nil
}

// found is what a search brought.
type found struct {
	calls  [][]legRow
	more   bool // the limit cut the list
	hidden int  // legs of secondary groups not shown
	fills  int  // of those, how many would fill something
}

func (s *site) search(ctx context.Context, question *tandemv1.SearchCallsRequest, secondary string, now time.Time) (found, error) {
	answers, err := s.searchEverywhere(ctx, question)
	if err != nil {
		return found{}, err
	}
	s.warnOfGroups()
	rows, more := newest(answers, secondary)
	s.measure(ctx, rows, now)
	f := found{more: more}
	rows, f.hidden, f.fills = selectCopies(rows, secondary)
	if limit := int(question.Limit); len(rows) > limit {
		slices.SortStableFunc(rows, func(a, b legRow) int { return b.start().Compare(a.start()) })
		rows, f.more = rows[:limit], true
		sortLegs(rows)
	}
	f.calls = calls(rows)
	return f, nil
}

// newest are the legs that the recorders told of. A list that its recorder's
// limit cut says nothing of what is older: there the copies cannot be compared,
// and are left out. While secondary records are hidden, only they are.
func newest(answers []answer[*tandemv1.SearchCallsResponse], secondary string) (rows []legRow, more bool) {
	var details []*tandemv1.LegDetail
	var horizon, horizonOfPrimary time.Time
	for _, a := range answers {
		var oldest time.Time
		primary := false
		for _, r := range a.value.Legs {
			details = append(details, &tandemv1.LegDetail{Record: r})
			primary = primary || !r.Secondary
			if start := at(r.GetLeg().GetStart()); oldest.IsZero() || start.Before(oldest) {
				oldest = start
			}
		}
		if !a.value.More {
			continue
		}
		if horizon = maxTime(horizon, oldest); primary {
			horizonOfPrimary = maxTime(horizonOfPrimary, oldest)
		}
	}
	all := mergeLegs(details)
	rows = slices.DeleteFunc(slices.Clone(all), func(r legRow) bool {
		if secondary == "hide" && !r.secondary {
			return r.start().Before(horizonOfPrimary)
		}
		return r.start().Before(horizon)
	})
	return rows, !horizon.IsZero() && (secondary != "hide" || !horizonOfPrimary.IsZero())
}

// warnOfGroups names the groups of which nothing is shown.
func (s *site) warnOfGroups() {
	for _, name := range slices.Sorted(maps.Keys(s.members)) {
		if !slices.ContainsFunc(s.members[name], func(address string) bool {
			return !slices.ContainsFunc(s.unreached, func(p peer) bool { return p.address == address })
		}) {
			s.warn("group %s left out: none of its recorders can be reached", name)
		}
	}
	if len(s.strangers) > 0 {
		s.warn("nobody that answers knows the group of %s: what its recorders hold is left out, unless recctl.toml names them", strings.Join(s.strangers, " and "))
	}
}

func maxTime(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// lately is how long ago a leg may have ended whose gaps are in no search yet:
// recorders know them once the journal is compacted.
const lately = 3 * time.Minute

// measure finds what is missing of legs where a search alone does not tell: on
// several recorders, of which one has what another misses, and where two copies
// are to be compared. Where that cannot be found the sum stands.
func (s *site) measure(ctx context.Context, rows []legRow, now time.Time) {
	copies := slices.ContainsFunc(rows, func(r legRow) bool { return r.secondary })
	whole := map[string][]legRow{} // by call
	for n, r := range rows {
		if !(r.gapMs > 0 && len(r.recorders) > 1) && !(copies && r.doubtful(now)) {
			continue
		}
		legs, ok := whole[r.call.Id]
		if !ok {
			var err error
			if legs, err = s.call(ctx, r.call.Id); err != nil {
				s.warn("gaps of call %s not measured: %v", r.call.Id, err)
			}
			whole[r.call.Id] = legs
		}
		for _, l := range legs {
			if l.leg.Id == r.leg.Id && l.group == r.group {
				rows[n].gapMs, rows[n].parts, rows[n].missing, rows[n].known = l.gapMs, l.parts, l.missing, l.known
			}
		}
	}
}

// doubtful reports whether audio of a leg may be missing.
func (r legRow) doubtful(now time.Time) bool {
	return r.gapMs > 0 || r.state != string(call.StateComplete) || now.Sub(at(r.leg.End)) < lately
}

// selectCopies hides the legs of secondary groups: all of them, or those that
// would fill nothing.
func selectCopies(rows []legRow, secondary string) (shown []legRow, hidden, fills int) {
	filling := filling(rows)
	for n, r := range rows {
		switch {
		case !r.secondary || secondary == "show" || secondary == "fill" && filling[n]:
			shown = append(shown, r)
		default:
			hidden++
			if filling[n] {
				fills++
			}
		}
	}
	return shown, hidden, fills
}

// packet is the least that one copy can fill of another.
const packet = 20 * time.Millisecond

// filling says of each row whether it is a secondary one that has something its
// primary lacks: all, because there is none, or what is in a gap or beyond an
// end of the primary and not missing here, too.
func filling(rows []legRow) []bool {
	fills := make([]bool, len(rows))
	if !slices.ContainsFunc(rows, func(r legRow) bool { return r.secondary }) {
		return fills
	}
	latest := latestOf(rows)
	during := reconcile.Span{From: latest, To: latest.Add(time.Hour)}
	for _, r := range rows {
		if from := r.start().Add(-time.Hour); from.Before(during.From) {
			during.From = from
		}
	}
	survey := reconcile.NewSurvey(during, reconcile.Options{Tolerance: tolerance, Least: packet, Both: true})
	for _, r := range rows {
		r.tell(survey, latest)
	}
	type key struct{ group, leg string }
	found := map[key]bool{}
	for _, f := range survey.Settle(during.To.Add(time.Hour)).Findings {
		if f.Copy == call.CopyB {
			found[key{f.Record.Group, f.Leg}] = true
		}
	}
	for n, r := range rows {
		fills[n] = r.secondary && found[key{r.group, r.leg.Id}]
	}
	return fills
}

// tolerance is how far the ends of one leg's two records may be apart.
const tolerance = 2 * time.Second

// latestOf is where a leg that lasts ends for a comparison: not before anything
// that is known.
func latestOf(rows []legRow) (latest time.Time) {
	for _, r := range rows {
		latest = maxTime(maxTime(latest, at(r.leg.End)), r.start())
		for _, p := range r.parts {
			latest = maxTime(latest, at(p.To))
		}
	}
	return latest
}

// tell tells a survey of a row, and of its media as far as they are known.
func (r legRow) tell(s *reconcile.Survey, now time.Time) {
	record := reconcile.Record{
		Copy: call.CopyA, Group: r.group, Call: r.call.Id, Leg: r.leg.Id, Session: r.leg.Session, Source: r.leg.Source, State: call.State(r.state),
		Span: reconcile.Span{From: r.start(), To: at(r.leg.End)},
	}
	if r.secondary {
		record.Copy = call.CopyB
	}
	if r.leg.End == nil {
		record.To = now
	}
	for _, c := range r.leg.Channels {
		record.Channels = append(record.Channels, reconcile.Channel(c))
	}
	if len(record.Channels) == 0 {
		record.Channels = []string{r.leg.Session + "." + r.leg.Source} // the same for both copies
	}
	s.Add(record)
	if !r.known { // where a gap is that is only measured, it is taken to be in both
		gap := reconcile.Span{From: record.From, To: record.From.Add(time.Duration(r.gapMs) * time.Millisecond)}
		s.AddMedia(reconcile.Media{Channel: record.Channels[0], Copy: record.Copy, Span: record.Span, Gaps: []reconcile.Span{gap}})
	}
	for _, p := range r.parts {
		s.AddPart(p)
	}
}

func (i *invocation) legsJSON(f found) error {
	for _, legs := range f.calls {
		for _, r := range legs {
			if err := i.json(r.json(i.now())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (i *invocation) callsTable(f found) {
	if len(f.calls) == 0 {
		fmt.Fprintln(i.out, "no calls found")
	}
	t := table{heading: []string{"CALL", "START", "LENGTH", "LINE", "KIND", "DIR", "PARTY", "AGENTS", "LEGS", "STATE", "GAP"}}
	copies := slices.ContainsFunc(f.calls, func(legs []legRow) bool { return slices.ContainsFunc(legs, func(r legRow) bool { return r.secondary }) })
	if copies {
		t.heading = append(t.heading, "GROUP")
	}
	for _, all := range f.calls {
		for _, legs := range byGroup(all) { // each copy has a state and gaps of its own
			row := i.callCells(legs)
			if copies {
				row = append(row, text(legs[0].group))
			}
			t.add(row...)
		}
	}
	i.print(&t)
	if f.more {
		fmt.Fprintln(i.out, "more were found; --limit shows more, --from and --to narrow the search")
	}
	if f.fills > 0 {
		fmt.Fprintf(i.out, "%d of %d hidden secondary records would fill something; --secondary fill shows them\n", f.fills, f.hidden)
	}
}

// callCells are the legs of a call that one group has.
func (i *invocation) callCells(legs []legRow) []cell {
	c := legs[0].call
	state, gap := legs[0].state, int64(0)
	for _, r := range legs {
		state = mergeState(state, r.state)
		gap += r.gapMs
	}
	return []cell{
		text(c.Id), text(i.clock(legs[0].callStart())), number("%s", length(callLength(legs, i.now()))), text(c.Line), text(c.Kind), text(c.Direction),
		text(party(c)), text(agents(legs)), number("%d", len(legs)), stateCell(state), gapCell(gap),
	}
}

// callLength is until the call's end or, when nobody told of that, until its
// last leg's.
func callLength(legs []legRow, now time.Time) time.Duration {
	end := at(legs[0].call.End)
	if end.IsZero() {
		for _, r := range legs {
			if until := r.start().Add(r.duration(now)); until.After(end) {
				end = until
			}
		}
	}
	return max(0, end.Sub(legs[0].callStart()))
}

func gapCell(ms int64) cell {
	if ms == 0 {
		return number("-")
	}
	c := number("%s", length(time.Duration(ms)*time.Millisecond))
	c.colour = yellow
	return c
}

// agents names who took part, each once, the first two.
func agents(legs []legRow) string {
	var names []string
	for _, r := range legs {
		if n := r.agent() + " (" + r.leg.Device + ")"; !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	if len(names) > 2 {
		names = append(names[:2], fmt.Sprintf("and %d more", len(names)-2))
	}
	return strings.Join(names, ", ")
}
