package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
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
			found, err := s.search(c.Context, question, secondary)
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

func (s *site) search(ctx context.Context, question *tandemv1.SearchCallsRequest, secondary string) (found, error) {
	answers, err := askRecorders(ctx, s, func(ctx context.Context, m tandemv1connect.MediaServiceClient) (*connect.Response[tandemv1.SearchCallsResponse], error) {
		return m.SearchCalls(ctx, connect.NewRequest(question))
	})
	if err != nil {
		return found{}, err
	}
	var details []*tandemv1.LegDetail
	var f found
	for _, a := range answers {
		f.more = f.more || a.value.More
		for _, r := range a.value.Legs {
			details = append(details, &tandemv1.LegDetail{Record: r})
		}
	}
	rows := mergeLegs(details)
	if limit := int(question.Limit); len(rows) > limit {
		slices.SortStableFunc(rows, func(a, b legRow) int { return b.start().Compare(a.start()) })
		rows, f.more = rows[:limit], true
		sortLegs(rows)
	}
	s.measure(ctx, rows)
	rows, f.hidden, f.fills = selectCopies(rows, secondary)
	f.calls = calls(rows)
	return f, nil
}

// measure finds what is missing of legs on several recorders: one has what
// another misses, so their records' gaps do not add up. Where that cannot be
// found the sum stands.
func (s *site) measure(ctx context.Context, rows []legRow) {
	whole := map[string][]legRow{} // by call
	for n, r := range rows {
		if len(r.recorders) < 2 || r.gapMs == 0 {
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
				rows[n].gapMs, rows[n].parts = l.gapMs, l.parts
			}
		}
	}
}

// selectCopies hides the legs of secondary groups, all of them or those that
// would fill nothing.
func selectCopies(rows []legRow, secondary string) (shown []legRow, hidden, fills int) {
	whole := map[string]bool{}
	for _, r := range rows {
		if !r.secondary && r.gapMs == 0 {
			whole[r.leg.Id] = true
		}
	}
	for _, r := range rows {
		switch {
		case !r.secondary || secondary == "show" || secondary == "fill" && !whole[r.leg.Id]:
			shown = append(shown, r)
		default:
			hidden++
			if !whole[r.leg.Id] {
				fills++
			}
		}
	}
	return shown, hidden, fills
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
	for _, legs := range f.calls {
		c := legs[0].call
		state, gap := legs[0].state, int64(0)
		for _, r := range legs {
			state = mergeState(state, r.state)
			gap += r.gapMs
		}
		t.add(text(c.Id), text(i.clock(legs[0].callStart())), number("%s", length(callLength(legs, i.now()))), text(c.Line), text(c.Kind), text(c.Direction),
			text(party(c)), text(agents(legs)), number("%d", len(legs)), stateCell(state), gapCell(gap))
	}
	i.print(&t)
	if f.more {
		fmt.Fprintln(i.out, "more were found; --limit shows more, --from and --to narrow the search")
	}
	if f.fills > 0 {
		fmt.Fprintf(i.out, "%d of %d hidden secondary records would fill something; --secondary fill shows them\n", f.fills, f.hidden)
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
