package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/cli/recording"
	"tandem/internal/config"
	"tandem/internal/reconcile"
)

// settling is how long ago what is compared must have happened: what is newer
// may not be known everywhere yet.
const settling = 5 * time.Second

func reconcileCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:  "reconcile",
		Usage: "compare the two groups' records, and what the platform says there was",
		Description: `Records of the two groups are paired by channel, source and time, whatever their
ids. What is found, and in which group it is wanting:
   missing       a group has no record of a call
   shorter       a group lacks time that the other one has, its gaps included
   different     both have it, and it does not sound the same (--deep)
   unattributed  audio from when call events could not be heard, of no call
   cti_missing   a call that was told of, and no audio of it anywhere

--against FILE has the platform's own call records compared, too: CSV, comma or
semicolon, the first row naming the columns. Wanted are start, with end or with
duration, and call_id or agent. Known are (other names in brackets), and all else
is passed over:
` + wrapped(reconcile.ColumnNames(), 80) + `

With --json an object a line for each finding: kind, group, holder, call, leg,
line, party, user, device, source, channel, from, to, missing_ms,
lacks[{from,to}], text, do; and in the end a summary: from, to, records, pairs,
whole, unwritten (records of which not all is in media files yet), findings{kind:
count}, against{file, compared, outside}, left_out[].
Exit status 5 when something was found.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "what was recorded after `TIME`", Value: "24h ago"},
			&cli.StringFlag{Name: "to", Usage: "what was recorded before `TIME`", Value: "5s ago"},
			&cli.StringFlag{Name: "against", Usage: "the platform's call records, `FILE.csv`; - is standard input"},
			durationFlag(cli.DurationFlag{Name: "tolerance", Value: tolerance, Usage: "begins and ends may differ by `TIME`: so may clocks"}),
			durationFlag(cli.DurationFlag{Name: "least", Value: 100 * time.Millisecond, Usage: "tell of nothing less than `TIME` that is wanting"}),
			&cli.BoolFlag{DisableDefaultText: true, Name: "deep", Usage: "listen to what both groups have, and compare"},
		},
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			r, err := i.comparison(c)
			if err != nil {
				return err
			}
			if r.site, err = i.site(c); err != nil {
				return err
			}
			return r.run(c.Context)
		},
	}
}

// wrapped breaks a text at blanks.
func wrapped(text string, columns int) string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > columns {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return strings.Join(append(lines, line), "\n")
}

// comparison is one run of recctl reconcile.
type comparison struct {
	*invocation
	site    *site
	during  reconcile.Span
	options reconcile.Options
	deep    bool
	asJSON  bool
	sources []reconcile.Source
	peers   map[string]peer // by the source's name
	away    []string        // recorders, or groups, that gave no answer
	table   table
	unlike  int
}

// comparison reads the options.
func (i *invocation) comparison(c *cli.Context) (*comparison, error) {
	now := i.now().In(i.zone)
	r := &comparison{invocation: i, deep: c.Bool("deep"), asJSON: c.Bool("json"), during: reconcile.Span{From: now.Add(-24 * time.Hour), To: now.Add(-settling)}}
	from, to, err := i.interval(c)
	if err != nil {
		return nil, err
	}
	if from != nil {
		r.during.From = at(from)
	}
	if to != nil {
		r.during.To = at(to)
	}
	if r.during.Length() == 0 {
		return nil, usage("--from %s is not before --to %s", r.during.From.In(i.zone).Format(time.DateTime), r.during.To.In(i.zone).Format(time.DateTime))
	}
	r.options = reconcile.Options{Tolerance: c.Duration("tolerance"), Least: c.Duration("least"), Fresh: now.Add(-lately)}
	if t := r.options.Tolerance; t < 0 || t > time.Minute {
		return nil, usage("--tolerance %v: want 0s to 1m", config.Duration(t))
	}
	if l := r.options.Least; l < time.Millisecond || l > time.Hour {
		return nil, usage("--least %v: want 1ms to 1h", config.Duration(l))
	}
	if file := c.String("against"); file != "" {
		entries, err := i.accounts(file)
		if err != nil {
			return nil, &exitError{ExitUsage, err}
		}
		r.options.Against = reconcile.NewLedger(file, entries, r.during, r.options.Tolerance)
	}
	return r, nil
}

func (i *invocation) accounts(file string) ([]reconcile.Entry, error) {
	if file == "-" {
		return reconcile.ParseCDR(os.Stdin, file, i.zone)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("--against: %w", err)
	}
	defer f.Close()
	return reconcile.ParseCDR(io.Reader(f), file, i.zone)
}

func (r *comparison) run(ctx context.Context) error {
	if err := r.reach(ctx); err != nil {
		return err
	}
	bar := r.bar(0)
	reader := reconcile.Reader{
		Sources: r.sources, During: r.during, Options: r.options, Timeout: 10 * r.site.timeout,
		Left: func(s reconcile.Source, err error) {
			r.away = append(r.away, s.Name)
			r.warn("recorder %s left out: %s", r.peers[s.Name], r.site.reason(err))
		},
		Each: func(v reconcile.Verdict) error {
			bar.clear()
			return r.tell(ctx, v)
		},
		Now: func(until time.Time) { bar.set(int64(until.Sub(r.during.From)), int64(r.during.Length())) },
	}
	r.table.heading = []string{"FOUND", "GROUP", "WHEN", "LENGTH", "WANTING", "CALL", "AGENT", "CHANNEL", "WHAT", "DO"}
	count, err := reader.Read(ctx)
	bar.clear()
	if err != nil {
		r.print(&r.table)
		return failed("compare: %w", err)
	}
	if r.unlike > 0 {
		count.Findings[reconcile.Different] += r.unlike
		count.Whole -= r.unlike
	}
	if err := r.sum(count); err != nil {
		return err
	}
	switch {
	case count.Total() > 0:
		return errFound
	case len(r.away) > 0:
		return failed("not all was compared: %s could not be reached", strings.Join(r.away, ", "))
	}
	return nil
}

// reach finds the recorders that answer, and whether they are of two groups. A
// group of which nobody answers is not taken to lack everything.
func (r *comparison) reach(ctx context.Context) error {
	peers, err := r.site.findRecorders(ctx)
	if err != nil {
		return err
	}
	answers, err := heardRecorders(r.site, ask(ctx, r.site, peers, func(ctx context.Context, p peer) (*tandemv1.SearchCallsResponse, error) {
		res, err := r.site.media(p).SearchCalls(ctx, connect.NewRequest(&tandemv1.SearchCallsRequest{From: timestamppb.New(r.during.From), To: timestamppb.New(r.during.To), Limit: 1}))
		if err != nil {
			return nil, err
		}
		return res.Msg, nil
	}))
	if err != nil {
		return err
	}
	r.site.warnOfGroups()
	r.away = append(r.site.away(), r.site.strangers...)
	r.peers = map[string]peer{}
	groups := map[string]bool{}
	for _, a := range answers {
		name := a.peer.name
		if r.peers[name].address != "" { // both groups may have a rec-1
			name = a.peer.String()
		}
		r.peers[name] = a.peer
		r.sources = append(r.sources, reconcile.Source{Name: name, Media: r.site.media(a.peer)})
		for _, l := range a.value.Legs {
			groups[l.Group] = true
		}
		for group, members := range r.site.members {
			if slices.Contains(members, a.peer.address) {
				groups[group] = true
			}
		}
	}
	r.options.Both = len(groups) > 1
	return nil
}

// tell shows what was found, and listens to the rest if that is wanted.
func (r *comparison) tell(ctx context.Context, v reconcile.Verdict) error {
	for _, p := range v.Pairs {
		if !r.deep {
			break
		}
		f, err := r.listen(ctx, p)
		if err != nil {
			r.warn("call %s not listened to: %s", p.A.Call, plain(err))
			r.away = append(r.away, "audio of call "+p.A.Call)
		}
		if f != nil {
			r.unlike++
			v.Findings = append(v.Findings, *f)
		}
	}
	for _, f := range v.Findings {
		if r.asJSON {
			if err := r.json(r.found(f)); err != nil {
				return err
			}
			continue
		}
		r.table.add(cell{text: string(f.Kind), colour: red}, text(orDash(f.Group)), text(r.clock(f.From)), number("%s", length(f.Length())), wantingCell(f), text(orDash(f.Call)),
			text(orDash(agentOf(f.Record))), text(orDash(strings.Join(f.Channels, " "))), text(f.Text), text(r.advice(f)))
	}
	return nil
}

func wantingCell(f reconcile.Finding) cell {
	if f.By == 0 {
		return number("-")
	}
	return number("%s", length(f.By))
}

// agentOf is who spoke, and where.
func agentOf(r reconcile.Record) string {
	name := cmp.Or(r.UserName, r.User)
	if r.Device == "" {
		return name
	}
	return strings.TrimSpace(name + " (" + r.Device + ")")
}

// advice is what to do about a finding.
func (r *comparison) advice(f reconcile.Finding) string {
	around := func(s reconcile.Span) string {
		return fmt.Sprintf("--from %s --to %s", s.From.UTC().Format(time.RFC3339), s.To.Add(time.Second).UTC().Format(time.RFC3339))
	}
	switch {
	case f.Kind == reconcile.Different:
		return "recctl show " + f.Call + ": hear both, and look at who else sent to these ports"
	case f.Kind == reconcile.CTIMissing:
		return "recctl show " + f.Call + ": was the channel attached?"
	case f.Kind == reconcile.Unattributed:
		return "recctl calls " + around(f.Span) + ": who spoke before and after?"
	case f.Holder != "":
		return "recctl export " + f.Call + " --merge has it all"
	case f.User != "":
		return "recctl calls --secondary show --agent '" + f.User + "' " + around(f.Span)
	}
	return "recctl calls --secondary show " + around(f.Span)
}

// listen compares what is heard in the two copies of a leg; nil when they agree
// or one of them has too little to say.
func (r *comparison) listen(ctx context.Context, p reconcile.Pair) (*reconcile.Finding, error) {
	if len(p.A.Channels) == 0 {
		return nil, nil
	}
	a, err := r.sound(ctx, p.A)
	if err != nil {
		return nil, err
	}
	b, err := r.sound(ctx, p.B)
	if err != nil {
		return nil, err
	}
	unlike := reconcile.Unlike(a, b, r.options.Tolerance)
	if len(unlike) == 0 {
		return nil, nil
	}
	f := &reconcile.Finding{Kind: reconcile.Different, Record: p.A, Lacks: unlike}
	for _, s := range unlike {
		f.By += s.Length()
	}
	f.Text = fmt.Sprintf("%s and %s do not sound the same for %s", p.A.Group, p.B.Group, length(f.By))
	return f, nil
}

// sound is what all recorders together have of a leg.
func (r *comparison) sound(ctx context.Context, of reconcile.Record) (reconcile.Sound, error) {
	channel := of.Channels[0] + "." + string(of.Copy)
	takes := make([]*recording.Take, len(r.sources))
	errs := make([]error, len(r.sources))
	var wg sync.WaitGroup
	for n, s := range r.sources {
		wg.Go(func() {
			takes[n], errs[n] = recording.Read(ctx, r.site.recorder(r.peers[s.Name]), channel, recording.Interval{From: of.From, To: of.To})
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return reconcile.Sound{}, err
		}
	}
	joined := recording.Join(takes)
	s := reconcile.Sound{Start: joined.Start, Samples: joined.Format.Linear(joined.Samples)}
	for _, g := range joined.Gaps {
		s.Gaps = append(s.Gaps, reconcile.Span{From: joined.Start.Add(g.At), To: joined.Start.Add(g.At + g.Length)})
	}
	return s, nil
}

// sum ends the report.
func (r *comparison) sum(c reconcile.Count) error {
	if r.asJSON {
		return r.json(r.summary(c))
	}
	r.print(&r.table)
	colour := green
	if c.Total() > 0 {
		colour = red
	}
	fmt.Fprintf(r.out, "%s to %s: %s\n", r.clock(r.during.From), r.clock(r.during.To), r.paint(colour, c.Summary()))
	if c.Unwritten > 0 {
		fmt.Fprintf(r.out, "not yet all in media files: %s of the last minutes, of which more may be wanting; compare again a little later\n", count(c.Unwritten, "record"))
	}
	if !r.options.Both {
		fmt.Fprintln(r.out, "one group answers: there is nothing to compare it with but what call events told")
	}
	if l := r.options.Against; l != nil {
		compared, outside := l.Entries()
		fmt.Fprintf(r.out, "%s: %s compared, %d not wholly in that time\n", clean(l.File), count(compared, "call"), outside)
	}
	if len(r.away) > 0 {
		fmt.Fprintf(r.out, "%s could not be reached: what nobody else holds counts as wanting\n", clean(strings.Join(r.away, ", ")))
	}
	return nil
}

type reconciledJSON struct {
	Kind      string     `json:"kind"`
	Group     string     `json:"group"`
	Holder    string     `json:"holder"`
	Call      string     `json:"call"`
	Leg       string     `json:"leg"`
	Line      string     `json:"line"`
	Party     string     `json:"party"`
	User      string     `json:"user"`
	Device    string     `json:"device"`
	Source    string     `json:"source"`
	Channel   string     `json:"channel"`
	From      stamp      `json:"from"`
	To        stamp      `json:"to"`
	MissingMs int64      `json:"missing_ms"`
	Lacks     []spanJSON `json:"lacks"`
	Text      string     `json:"text"`
	Do        string     `json:"do"`
}

type spanJSON struct {
	From stamp `json:"from"`
	To   stamp `json:"to"`
}

func (r *comparison) found(f reconcile.Finding) reconciledJSON {
	j := reconciledJSON{string(f.Kind), f.Group, f.Holder, f.Call, f.Leg, f.Line, f.Party, f.User, f.Device, f.Source, "",
		stamp(f.From), stamp(f.To), f.By.Milliseconds(), []spanJSON{}, f.Text, r.advice(f)}
	if len(f.Channels) > 0 {
		j.Channel = f.Channels[0]
	}
	for _, s := range f.Lacks {
		j.Lacks = append(j.Lacks, spanJSON{stamp(s.From), stamp(s.To)})
	}
	return j
}

type reconcileSummaryJSON struct {
	From      stamp          `json:"from"`
	To        stamp          `json:"to"`
	Records   int            `json:"records"`
	Pairs     int            `json:"pairs"`
	Whole     int            `json:"whole"`
	Unwritten int            `json:"unwritten"`
	Findings  map[string]int `json:"findings"`
	Against   *againstJSON   `json:"against"`
	LeftOut   []string       `json:"left_out"`
}

type againstJSON struct {
	File     string `json:"file"`
	Compared int    `json:"compared"`
	Outside  int    `json:"outside"`
}

func (r *comparison) summary(c reconcile.Count) reconcileSummaryJSON {
	j := reconcileSummaryJSON{stamp(r.during.From), stamp(r.during.To), c.Records, c.Pairs, c.Whole, c.Unwritten, map[string]int{}, nil, list(r.away)}
	for _, k := range reconcile.Kinds {
		j.Findings[string(k)] = c.Findings[k]
	}
	if l := r.options.Against; l != nil {
		compared, outside := l.Entries()
		j.Against = &againstJSON{l.File, compared, outside}
	}
	return j
}
