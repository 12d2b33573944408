package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/cli/recording"
	"tandem/internal/call"
)

var mergeFlag = &cli.BoolFlag{DisableDefaultText: true, Name: "merge", Usage: "fill what one group's copy (2N) misses from the other's"}

// pair is what the two groups have of one leg; one of them may have none.
type pair struct{ primary, secondary *legRow }

// pairCopies finds the records that are of the same leg. Their ids need not be
// the same: each group numbers the intervals of a leg that moved by itself.
func pairCopies(rows []legRow) []pair {
	var pairs []pair
	for n := range rows {
		if !rows[n].secondary {
			pairs = append(pairs, pair{primary: &rows[n]})
		}
	}
	for n := range rows {
		if !rows[n].secondary {
			continue
		}
		of := slices.IndexFunc(pairs, func(p pair) bool { return p.secondary == nil && sameLeg(p.primary, &rows[n]) })
		if of < 0 {
			pairs = append(pairs, pair{secondary: &rows[n]})
		} else {
			pairs[of].secondary = &rows[n]
		}
	}
	return pairs
}

// sameLeg says whether two records are of one source at one time.
func sameLeg(a, b *legRow) bool {
	if a.leg.Id == b.leg.Id {
		return true
	}
	before := func(a, b *legRow) bool { return a.leg.End != nil && !at(a.leg.End).After(b.start()) }
	return a.leg.Session == b.leg.Session && a.leg.Source == b.leg.Source && !before(a, b) && !before(b, a)
}

// withTwins are the records of a leg by this id, and the other group's of it.
func withTwins(rows []legRow, leg string) []legRow {
	var some []legRow
	for _, p := range pairCopies(rows) {
		both := p.rows()
		if slices.ContainsFunc(both, func(r legRow) bool { return r.leg.Id == leg }) {
			some = append(some, both...)
		}
	}
	return some
}

// rows are the pair's records, the primary one first.
func (p pair) rows() []legRow {
	var rows []legRow
	for _, r := range []*legRow{p.primary, p.secondary} {
		if r != nil {
			rows = append(rows, *r)
		}
	}
	return rows
}

// oneCopy is a record of each leg: the primary one, unless it has no audio.
func oneCopy(pairs []pair) []legRow {
	var rows []legRow
	for _, p := range pairs {
		both := p.rows()
		if len(both) == 2 && both[0].silent() && !both[1].silent() {
			both = both[1:]
		}
		rows = append(rows, both[0])
	}
	return rows
}

// silent says whether a leg has no audio at all.
func (r legRow) silent() bool {
	return !slices.ContainsFunc(r.parts, func(p *tandemv1.Part) bool {
		lost := time.Duration(0)
		for _, g := range p.Gaps {
			lost += at(g.To).Sub(at(g.From))
		}
		return at(p.To).Sub(at(p.From)) > lost
	})
}

// twin is the other copy of a channel, and whose the two are.
type twin struct {
	channel   string
	of, group string // of the copy that is filled and of the one it is filled from
}

// twinOf is the channel of the other copy of a mix; ok is false where there can
// be none.
func twinOf(channel string) (other string, ok bool) {
	dot := strings.LastIndexByte(channel, '.') + 1
	switch c, _ := call.ParseCopy(channel[dot:]); c {
	case call.CopyA:
		return channel[:dot] + string(call.CopyB), true
	case call.CopyB:
		return channel[:dot] + string(call.CopyA), true
	}
	return "", false
}

// planMerged is planTakes for both copies.
func planMerged(leg string, pairs []pair, peers []peer, w choice) []take {
	if w.eachLeg {
		w.eachLeg = false
		var each []take
		for _, p := range pairs {
			each = append(each, planMerged(p.rows()[0].leg.Id, []pair{p}, peers, w)...)
		}
		return each
	}
	var rows, spans []legRow
	twins := map[string]*twin{}
	for _, p := range pairs {
		rows = append(rows, p.rows()[0])
		r := p.span()
		channel := r.channel()
		other, ok := twinOf(channel)
		if ok && p.primary == nil { // what the primary group has of it without a record goes first
			channel, other = other, channel
			r.parts, r.leg.Channels = nil, []string{channel}
		}
		if twins[channel] == nil && ok {
			twins[channel] = &twin{other, p.group(p.primary, "primary"), p.group(p.secondary, "secondary")}
		}
		spans = append(spans, r)
	}
	sources := channelSources(spans, peers)
	for n := range sources {
		sources[n].twin = twins[sources[n].request.Channel]
	}
	if len(sources) == 0 {
		return nil
	}
	return []take{{call: rows[0].call.Id, leg: leg, legs: rows, sources: sources, format: w.format}}
}

// group is a record's group; a group that has none is called what it is to the
// other.
func (p pair) group(r *legRow, otherwise string) string {
	if r == nil {
		return otherwise
	}
	return r.group
}

// span is the leg from the first begin that a group knows to the last end. One
// that still believes that the leg lasts was not told.
func (p pair) span() legRow {
	both := p.rows()
	r := both[0]
	r.leg = &tandemv1.Leg{Start: r.leg.Start, End: r.leg.End, Channels: r.leg.Channels}
	for _, o := range both[1:] {
		if o.start().Before(r.start()) {
			r.leg.Start = o.leg.Start
		}
		if o.leg.End != nil && (r.leg.End == nil || at(o.leg.End).After(at(r.leg.End))) {
			r.leg.End = o.leg.End
		}
		if r.channel() == "" {
			r.parts, r.leg.Channels = o.parts, o.leg.Channels
		}
	}
	return r
}

// channelTake is a channel in an interval, by its id.
func (s *site) channelTake(ctx context.Context, w choice, from, to *timestamppb.Timestamp) ([]take, error) {
	if from == nil || to == nil {
		return nil, usage("--from and --to belong together, and to a CHANNEL")
	}
	peers, err := s.findRecorders(ctx)
	if err != nil {
		return nil, err
	}
	src := source{peers: peers, request: &tandemv1.ExportRequest{Channel: w.id, From: from, To: to}}
	if other, ok := twinOf(w.id); w.merge && ok {
		groups := [2]string{"primary", "secondary"}
		if strings.HasSuffix(other, string(call.CopyA)) {
			groups = [2]string{"secondary", "primary"}
		}
		src.twin = &twin{other, groups[0], groups[1]}
	} else if w.merge {
		return nil, failed("%q names no copy of a channel, so it has no twin; export it without --merge", w.id)
	}
	return []take{{sources: []source{src}, format: w.format}}, nil
}

// beside is how much more of the other copy is read on both sides: the clocks of
// its recorders may be off.
const beside = 3 * time.Second

// heal fills a channel from its twin.
func (s *site) heal(ctx context.Context, src source, r recording.Recording, i recording.Interval) (recording.Recording, recording.Report, error) {
	if len(r.Samples) > 0 {
		i.From = i.From.Add(-beside)
		if !i.To.IsZero() {
			i.To = i.To.Add(beside)
		}
	}
	other, err := s.stitched(ctx, src.peers, src.twin.channel, i)
	if err != nil {
		return r, recording.Report{}, err
	}
	r.Group, other.Group = src.twin.of, src.twin.group
	r, report := recording.Merge(r, other)
	return r, report, nil
}

// merged is what two copies had to give each other.
type merged struct {
	filled []filled
	open   time.Duration
	twins  int // of the channels, how many have something in the other copy
}

// filled is a gap of one copy that the other fills.
type filled struct {
	recording.Fill
	channel string // that is filled
	of      string // whose it is
	whole   bool   // of which there was nothing
}

// with adds what was filled of one more channel; m may be nil.
func (m *merged) with(report recording.Report, src source) *merged {
	if m == nil {
		m = &merged{}
	}
	for _, f := range report.Filled {
		m.filled = append(m.filled, filled{f, src.request.Channel, src.twin.of, report.Whole})
	}
	for _, g := range report.Open {
		m.open += g.Length
	}
	if !report.Alone {
		m.twins++
	}
	slices.SortStableFunc(m.filled, func(a, b filled) int { return a.From.Compare(b.From) })
	return m
}

func (m *merged) length() (total time.Duration) {
	for _, f := range m.filled {
		total += f.Length
	}
	return total
}

// listed is how many fills are told one by one: packets lost one at a time are
// thousands in an hour.
const listed = 20

// sayFilled tells what one copy had of the other's gaps.
func (i *invocation) sayFilled(w io.Writer, m *merged) {
	if len(m.filled) <= listed {
		for _, f := range m.filled {
			fmt.Fprintf(w, "  filled %s from %s to %s: %s\n", length(f.Length), i.instant(f.From), i.instant(f.To), f.told())
		}
	} else {
		i.sum(w, m)
	}
	switch {
	case len(m.filled) == 0 && m.open == 0:
		fmt.Fprintln(w, "  nothing was missing, so nothing was filled")
	case m.twins == 0:
		fmt.Fprintln(w, "  nothing was filled: there is no other copy of it")
	case m.open == 0:
		fmt.Fprintf(w, "  filled %s in all; nothing is missing in both copies\n", length(m.length()))
	default:
		fmt.Fprintf(w, "  filled %s in all; missing in both copies: %s\n", length(m.length()), length(m.open))
	}
}

// sum tells of fills from one recorder together.
func (i *invocation) sum(w io.Writer, m *merged) {
	type sum struct {
		told  string
		count int
		total time.Duration
	}
	var sums []sum
	for _, f := range m.filled {
		n := slices.IndexFunc(sums, func(s sum) bool { return s.told == f.told() })
		if n < 0 {
			n, sums = len(sums), append(sums, sum{told: f.told()})
		}
		sums[n].count, sums[n].total = sums[n].count+1, sums[n].total+f.Length
	}
	for _, s := range sums {
		fmt.Fprintf(w, "  filled %s of %s: %s; --json lists them\n", count(s.count, "gap"), length(s.total), s.told)
	}
}

// told says where a fill is from.
func (f filled) told() string {
	from := strings.TrimSpace(f.Group + " " + f.Recorder)
	if f.whole {
		return clean(fmt.Sprintf("all of %s from %s: %s has none of it", f.channel, from, cmp.Or(f.of, "the other group")))
	}
	return clean(fmt.Sprintf("from %s, aligned by %s", from, f.Alignment))
}

type fillJSON struct {
	Channel   string `json:"channel"`
	From      stamp  `json:"from"`
	To        stamp  `json:"to"`
	FromGroup string `json:"from_group"`
	Recorder  string `json:"recorder"`
	Alignment string `json:"alignment"`
}

type mergedJSON struct {
	FilledMs int64      `json:"filled_ms"`
	OpenMs   int64      `json:"open_ms"`
	Filled   []fillJSON `json:"filled"`
}

func (m *merged) json() *mergedJSON {
	if m == nil {
		return nil
	}
	j := &mergedJSON{m.length().Milliseconds(), m.open.Milliseconds(), []fillJSON{}}
	for _, f := range m.filled {
		j.Filled = append(j.Filled, fillJSON{f.channel, stamp(f.From), stamp(f.To), f.Group, f.Recorder, string(f.Alignment)})
	}
	return j
}
