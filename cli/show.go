package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/call"
)

func showCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:      "show",
		Usage:     "one call: its legs, which recorder has which part, what is missing and why",
		ArgsUsage: "CALL",
		Description: `With --json an object a line for each leg: the fields of calls --json, with
parts[{recorder,channel,from,to,segments[]}] and gaps[{from,to,cause}]; a segment
has id, file, start, end, codec, size, sha256, packets, lost, reordered,
duplicates, max_jitter_ms, open.`,
		Action: func(c *cli.Context) error {
			given, err := arguments(c, "CALL")
			if err != nil {
				return err
			}
			s, err := i.site(c)
			if err != nil {
				return err
			}
			rows, err := s.call(c.Context, given[0])
			if err != nil {
				return err
			}
			if len(rows) == 0 {
				return failed("no call %q; recctl calls lists those there are", given[0])
			}
			if c.Bool("json") {
				for _, r := range rows {
					if err := i.json(r.detailJSON(i.now())); err != nil {
						return err
					}
				}
				return nil
			}
			i.showCall(rows, s.away())
			return nil
		},
	}
}

// call is all that the recorders hold of one call; no rows if none knows it.
func (s *site) call(ctx context.Context, id string) ([]legRow, error) {
	answers, err := askRecorders(ctx, s, func(ctx context.Context, m tandemv1connect.MediaServiceClient) (*connect.Response[tandemv1.GetCallResponse], error) {
		r, err := m.GetCall(ctx, connect.NewRequest(&tandemv1.GetCallRequest{Call: id}))
		if connect.CodeOf(err) == connect.CodeNotFound {
			return connect.NewResponse(&tandemv1.GetCallResponse{}), nil
		}
		return r, err
	})
	if err != nil {
		return nil, err
	}
	var details []*tandemv1.LegDetail
	for _, a := range answers {
		details = append(details, a.value.Legs...)
	}
	rows := mergeLegs(details)
	for n := range rows {
		rows[n].stitch()
		rows[n].known = true
	}
	return rows, nil
}

// whyMissing says what the cause of a gap means.
var whyMissing = map[call.Cause]string{
	call.CauseLoss:        "packets were sent and never arrived",
	call.CauseOutage:      "the channel was attached and nothing came",
	call.CauseFailover:    "between two recorders",
	call.CauseUnattached:  "a call was under way and the channel was not attached",
	call.CauseDisk:        "arrived, and could not be written in time",
	call.CauseInterrupted: "the recorder was not running",
}

// showCall tells of a call; away are the recorders that may know more.
func (i *invocation) showCall(rows []legRow, away []string) {
	c := rows[0].call
	fmt.Fprintf(i.out, "%s  %s\n", i.paint(bold, "call "+clean(c.Id)), clean(strings.Join([]string{"line " + orDash(c.Line), c.Kind, c.Direction, party(c)}, "  ")))
	start, end := rows[0].callStart(), at(c.End)
	if end.IsZero() {
		fmt.Fprintf(i.out, "since %s (%s), ongoing\n\n", i.clock(start), length(max(0, i.now().Sub(start))))
	} else {
		fmt.Fprintf(i.out, "from %s to %s (%s), %s\n\n", i.clock(start), i.clock(end), length(max(0, end.Sub(start))), clean(orDash(c.EndCause)))
	}
	t := table{heading: []string{"LEG", "AGENT", "TURRET", "SOURCE", "START", "LENGTH", "STATE", "GAP", "ACCURACY", "GROUP", "RECORDERS"}}
	for _, r := range rows {
		t.add(text(r.leg.Id), text(r.agent()), text(r.leg.Device), text(r.leg.Source), text(i.clock(r.start())), number("%s", length(r.duration(i.now()))),
			stateCell(r.state), gapCell(r.gapMs), text(r.leg.Accuracy), text(r.group), text(strings.Join(r.recorders, " ")))
	}
	i.print(&t)
	name := legNames(rows)
	i.sayParts(rows, name)
	segments := table{heading: []string{"LEG", "RECORDER", "CHANNEL", "FROM", "TO", "CODEC", "PACKETS", "LOST", "SIZE", "FILE"}}
	gaps := table{heading: []string{"LEG", "GAP FROM", "TO", "LENGTH", "CAUSE", "WHY"}}
	for _, r := range rows {
		for _, p := range r.parts {
			for _, s := range p.Segments {
				if s.File == "" { // it only says what is missing
					continue
				}
				file := s.File
				if s.Open {
					file += " (open)"
				}
				segments.add(text(name(r)), text(p.Recorder), text(p.Channel), text(i.clock(at(s.Start))), text(i.clock(at(s.End))), text(codecName(s.Codec)),
					number("%d", s.Packets), number("%d", s.Lost), number("%s", size(s.Size)), text(file))
			}
		}
		for _, g := range r.missing {
			gaps.add(text(name(r)), text(i.instant(g.from)), text(i.instant(g.to)), gapCell(g.length().Milliseconds()), text(g.cause), text(cmp.Or(g.between(), whyMissing[call.Cause(g.cause)])))
		}
	}
	for _, t := range []table{segments, gaps} {
		if len(t.rows) > 0 {
			fmt.Fprintln(i.out)
			i.print(&t)
		}
	}
	merge := ""
	if slices.Contains(filling(rows), true) {
		merge = " --merge"
	}
	switch {
	case len(away) > 0:
		fmt.Fprintf(i.out, "\nthis is not all, perhaps: %s cannot be reached\n", clean(strings.Join(away, ", ")))
	case merge != "":
		fmt.Fprintln(i.out, "\nthe secondary copy has what the primary one lacks, or some of it; --merge takes it from there")
	case len(gaps.rows) == 0 && !slices.ContainsFunc(rows, func(r legRow) bool { return r.gapMs > 0 }):
		fmt.Fprintf(i.out, "\n%s\n", clean(i.unheard(rows, name)))
	}
	fmt.Fprintf(i.out, "\nhear it: recctl play %s%s   keep it: recctl export %s%s\n", clean(c.Id), merge, clean(c.Id), merge)
}

// unheard tells of legs without a gap that nothing is missing, unless there is no
// audio of one at all: silence and a channel that nobody attached look alike.
func (i *invocation) unheard(rows []legRow, name func(legRow) string) string {
	var never, yet []string
	for _, r := range rows {
		switch {
		case !r.silent():
		case r.leg.End == nil || i.now().Sub(at(r.leg.End)) < lately:
			yet = append(yet, name(r))
		default:
			never = append(never, name(r))
		}
	}
	switch {
	case len(never) > 0:
		return "no audio of " + strings.Join(never, ", ") + " is kept: the turret sent none, or its channel was not attached; recctl reconcile finds such calls"
	case len(yet) > 0:
		return "no audio of " + strings.Join(yet, ", ") + " is in a file yet"
	}
	return "nothing is missing"
}

// legNames is how legs are called: where two groups have them, with the group.
func legNames(rows []legRow) func(legRow) string {
	copies := slices.ContainsFunc(rows, func(r legRow) bool { return r.group != rows[0].group })
	return func(r legRow) string {
		if copies {
			return r.leg.Id + " (" + r.group + ")"
		}
		return r.leg.Id
	}
}

// sayParts lists the parts of legs that lie on several recorders, and what is
// missing between them.
func (i *invocation) sayParts(rows []legRow, name func(legRow) string) {
	for _, r := range rows {
		if len(r.parts) < 2 {
			continue
		}
		fmt.Fprintf(i.out, "\nleg %s is on several recorders:\n", clean(name(r)))
		for n, p := range r.parts {
			if n > 0 {
				i.sayBetween(r.parts[n-1], p, r.missing)
			}
			fmt.Fprintf(i.out, "  %s from %s to %s on %s\n", clean(p.Channel), i.instant(at(p.From)), i.instant(at(p.To)), clean(p.Recorder))
		}
	}
}

func (i *invocation) sayBetween(before, after *tandemv1.Part, missing []gap) {
	lost := false
	for _, g := range missing {
		if g.before == before.Recorder && g.after == after.Recorder && before.Recorder != after.Recorder {
			lost = true
			fmt.Fprintf(i.out, "  %s %s %s\n", i.paint(yellow, clean(g.cause)), length(g.length()), clean(g.between()))
		}
	}
	if !lost {
		fmt.Fprintf(i.out, "  nothing is missing between %s and %s\n", clean(before.Recorder), clean(after.Recorder))
	}
}

// instant is a time of day to the millisecond.
func (i *invocation) instant(t time.Time) string { return t.In(i.zone).Format("15:04:05.000") }

type gapJSON struct {
	From  stamp  `json:"from"`
	To    stamp  `json:"to"`
	Cause string `json:"cause"`
}

func gapsJSON(gaps []gap) []gapJSON {
	j := make([]gapJSON, len(gaps))
	for n, g := range gaps {
		j[n] = gapJSON{stamp(g.from), stamp(g.to), g.cause}
	}
	return j
}

type segmentJSON struct {
	ID          string  `json:"id"`
	File        string  `json:"file"`
	Start       stamp   `json:"start"`
	End         stamp   `json:"end"`
	Codec       string  `json:"codec"`
	Size        uint64  `json:"size"`
	SHA256      string  `json:"sha256"`
	Packets     uint64  `json:"packets"`
	Lost        uint64  `json:"lost"`
	Reordered   uint64  `json:"reordered"`
	Duplicates  uint64  `json:"duplicates"`
	MaxJitterMs float64 `json:"max_jitter_ms"`
	Open        bool    `json:"open"`
}

type partJSON struct {
	Recorder string        `json:"recorder"`
	Channel  string        `json:"channel"`
	From     stamp         `json:"from"`
	To       stamp         `json:"to"`
	Segments []segmentJSON `json:"segments"`
}

type legDetailJSON struct {
	legJSON
	Parts []partJSON `json:"parts"` // in place of their number
	Gaps  []gapJSON  `json:"gaps"`
}

func (r legRow) detailJSON(now time.Time) legDetailJSON {
	j := legDetailJSON{legJSON: r.json(now), Parts: []partJSON{}, Gaps: gapsJSON(r.missing)}
	for _, p := range r.parts {
		part := partJSON{p.Recorder, p.Channel, stampOf(p.From), stampOf(p.To), []segmentJSON{}}
		for _, s := range p.Segments {
			if s.File == "" { // it only says what is missing, as gaps do
				continue
			}
			part.Segments = append(part.Segments, segmentJSON{s.Id, s.File, stampOf(s.Start), stampOf(s.End), codecName(s.Codec), s.Size, s.Sha256,
				s.Packets, s.Lost, s.Reordered, s.Duplicates, s.MaxJitterMs, s.Open})
		}
		j.Parts = append(j.Parts, part)
	}
	return j
}
