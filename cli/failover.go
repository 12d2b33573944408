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
	"tandem/internal/config"
)

func failoverCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:  "failover",
		Usage: "put the other director in charge, or keep watchdogs from doing so for a while",
		Description: `--promote has the director in charge hand over to the other one: it finishes what
it began and lets go first; nothing is dialled again, nothing recorded is lost. When
the one in charge does not answer, the other one is asked to take over, which it
does only with the leave of the voters. Exit status 4 when somebody refuses.

--force takes over without that leave. It is for a director that is switched off and
voters that are gone with it: should that director be alive after all, both steer the
same turrets. So somebody must have looked: --i-have-checked "dir-a is off".

--pause is for work on hosts and networks: watchdogs go on watching and promote nobody
until --resume or until the time is over. Leases go on.

With --json --promote prints one object: dry_run, plan[], from, to, epoch, took_ms;
from and to are the same when nothing had to be done. --pause and --resume print an
object a line for each watchdog: watchdog, address, paused, until.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{DisableDefaultText: true, Name: "promote", Usage: "put the other director in charge"},
			&cli.StringFlag{Name: "to", Usage: "the director `NAME`; needed when several groups have two directors"},
			&cli.BoolFlag{DisableDefaultText: true, Name: "dry-run", Usage: "say what would be done, and do nothing"},
			&cli.BoolFlag{DisableDefaultText: true, Name: "force", Usage: "take over without the leave of voters"},
			&cli.StringFlag{Name: "i-have-checked", Usage: "with --force: `WHAT`, which is \"DIRECTOR is off\""},
			&cli.BoolFlag{DisableDefaultText: true, Name: "pause", Usage: "have watchdogs promote nobody for a while"},
			durationFlag(cli.DurationFlag{Name: "for", Value: time.Hour, Usage: "with --pause: end it after `TIME`"}),
			&cli.BoolFlag{DisableDefaultText: true, Name: "resume", Usage: "end a pause"},
			reasonFlag(),
			waitFlag(),
		},
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			verb, err := failoverVerb(c)
			if err != nil {
				return err
			}
			s, err := i.site(c)
			if err != nil {
				return err
			}
			if verb == "promote" {
				return i.promote(c.Context, s, c.String("to"), c.String("i-have-checked"), i.wish(c))
			}
			return i.pause(c.Context, s, i.pauseRequest(c), c.Bool("json"))
		},
	}
}

func reasonFlag() cli.Flag {
	return &cli.StringFlag{Name: "reason", Usage: "why, for recctl history: `TEXT`"}
}

func waitFlag() cli.Flag {
	return durationFlag(cli.DurationFlag{Name: "timeout", Value: 15 * time.Second, Usage: "wait at most `TIME` for the other director to be in charge", Action: positive("timeout")})
}

// belongs says which options go with which of failover's verbs.
var belongs = map[string][]string{
	"promote": {"to", "dry-run", "force", "i-have-checked", "reason", "timeout"},
	"pause":   {"for", "reason"},
	"resume":  {"reason"},
}

// maxPause is how long nobody may guard a floor.
const maxPause = 24 * time.Hour

// failoverVerb is what failover is to do. Options that make no sense with it,
// or not without another, are errors.
func failoverVerb(c *cli.Context) (string, error) {
	var verbs []string
	for _, v := range []string{"promote", "pause", "resume"} {
		if c.Bool(v) {
			verbs = append(verbs, v)
		}
	}
	if len(verbs) != 1 {
		return "", usage("recctl failover wants one of --promote, --pause and --resume; see recctl failover --help")
	}
	for _, option := range []string{"to", "dry-run", "force", "i-have-checked", "for", "reason", "timeout"} {
		if c.IsSet(option) && !slices.Contains(belongs[verbs[0]], option) {
			return "", usage("--%s does not go with --%s; see recctl failover --help", option, verbs[0])
		}
	}
	switch d := c.Duration("for"); {
	case c.Bool("force") && (c.String("reason") == "" || c.String("i-have-checked") == ""):
		return "", usage("--force wants --i-have-checked \"DIRECTOR is off\" and --reason TEXT")
	case c.IsSet("i-have-checked") && !c.Bool("force"):
		return "", usage("--i-have-checked goes with --force only")
	case d < time.Second || d > maxPause:
		return "", usage("--for %v: want 1s to %v", config.Duration(d), config.Duration(maxPause))
	}
	return verbs[0], nil
}

// wish is what somebody wants of a change of directors.
type wish struct {
	reason        string
	force, dryRun bool
	timeout       time.Duration
	json          bool
}

func (i *invocation) wish(c *cli.Context) wish {
	return wish{c.String("reason"), c.Bool("force"), c.Bool("dry-run"), c.Duration("timeout"), c.Bool("json")}
}

func (i *invocation) promote(ctx context.Context, s *site, to, checked string, w wish) error {
	groups, err := s.groups(ctx)
	if err != nil {
		return err
	}
	g, err := groupFor(groups, to)
	if err != nil {
		return err
	}
	e := g.errand(to)
	if w.force && !e.done {
		if err := e.mayForce(checked); err != nil {
			return err
		}
		w.reason += " (checked: " + checked + ")"
	}
	return i.handOver(ctx, s, e, w)
}

// groupFor is the group that is meant: the only one, or that of the director to
// be promoted.
func groupFor(groups []group, to string) (group, error) {
	var names []string
	for _, g := range groups {
		if _, ok := g.named(to); ok || len(groups) == 1 {
			return g, nil
		}
		for _, d := range g.directors {
			names = append(names, d.Name)
		}
	}
	if to == "" {
		return group{}, usage("there are %d groups: --to NAME says which director is to be in charge, one of %s", len(groups), strings.Join(names, ", "))
	}
	return group{}, failed("no director %q; there are %s", to, strings.Join(names, ", "))
}

// errand is which director is asked to put which one in charge.
type errand struct {
	group group
	asked known
	to    string // empty: the one that is not active, whose name is not known
	done  bool   // it is in charge already
}

// errand decides whom to ask: whoever is in charge hands over; when that one
// does not answer, the other one takes over, or tells the one it can reach.
func (g group) errand(to string) errand {
	if holder, ok := g.first(known.holds); ok {
		rest := g.others(holder.Name)
		if to == "" && len(rest) > 0 {
			to = rest[0]
		}
		return errand{g, holder, to, holder.Name == to && holder.Role != "draining"}
	}
	asked, ok := g.first(func(d known) bool { return d.Name == to || to == "" && d.Preferred })
	if !ok {
		asked, _ = g.first(func(known) bool { return true }) // a group is known by one that answers
	}
	return errand{g, asked, cmp.Or(to, asked.Name), false}
}

// first is the first director that answers and is as wanted.
func (g group) first(wanted func(known) bool) (known, bool) {
	for _, d := range g.directors {
		if d.answers && wanted(d) {
			return d, true
		}
	}
	return known{}, false
}

// others are the names of all directors but one; of a director that nobody told
// of, the name under which voters know it.
func (g group) others(than string) []string {
	var names []string
	for _, d := range g.directors {
		names = append(names, d.Name)
		for _, v := range d.Voters {
			names = append(names, v.Holder)
		}
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == than || n == "" })
	slices.Sort(names)
	return slices.Compact(names)
}

// mayForce is the guard of --force: only when nobody in charge answers, for the
// director that was checked, and against no voter that knows better.
func (e errand) mayForce(checked string) error {
	switch {
	case e.asked.holds():
		return exit(ExitRefused, "%s is %s and answers; --force is for when it is off: without it, it hands over", e.asked.Name, e.asked.Role)
	case e.asked.Name != e.to:
		return exit(ExitUnreached, "%s does not answer, and only itself can take over by force", e.to)
	}
	rivals := e.group.others(e.to)
	off, ok := strings.CutSuffix(checked, " is off")
	if !ok || off == e.to || len(rivals) > 0 && !slices.Contains(rivals, off) {
		return usage("--i-have-checked %q: want \"%s is off\", and that somebody has looked", checked, e.rival())
	}
	if s := e.group.signOfRival(e.to); s != "" {
		return exit(ExitRefused, "%s may be alive: voter %s; if it is off, this is over in a moment: try again then", off, s)
	}
	return nil
}

// rival is the director that must be out of the way.
func (e errand) rival() string {
	if rivals := e.group.others(e.to); len(rivals) > 0 {
		return rivals[0]
	}
	return "DIRECTOR"
}

// overrides names what --force goes on without.
func (e errand) overrides() string {
	text := "the promise of " + e.rival() + " to stay out"
	if voters := e.group.voters(); len(voters) > 0 {
		text = "the leave of the voters " + votersText(voters) + ", and without " + text
	}
	return text
}

// handOver shows the plan, follows it and says what came of it.
func (i *invocation) handOver(ctx context.Context, s *site, e errand, w wish) error {
	if e.done {
		return i.alreadyThere(e, w)
	}
	request := &tandemv1.FailoverRequest{To: e.to, Actor: i.actor, Reason: w.reason, DryRun: true, Force: w.force}
	plan, err := s.failover(ctx, e, request, w.timeout)
	if err != nil {
		return err
	}
	if w.force {
		plan.Plan = append(plan.Plan, "forced: goes on without "+e.overrides())
	}
	if !w.json {
		i.sayPlan(plan.Plan)
	}
	if w.dryRun {
		return i.planned(plan, w)
	}
	request.DryRun = false
	done, err := s.failover(ctx, e, request, w.timeout)
	if err != nil {
		return err
	}
	done.Plan = plan.Plan
	return i.changed(done, w)
}

// failover asks a director; a refusal says what could be done about it.
func (s *site) failover(ctx context.Context, e errand, request *tandemv1.FailoverRequest, timeout time.Duration) (*tandemv1.FailoverResponse, error) {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r, err := s.director(e.asked.peer).Failover(limited, connect.NewRequest(request))
	if err == nil {
		return r.Msg, nil
	}
	switch status := exitStatus(err); {
	case status == ExitRefused:
		e.group = s.look(ctx, e.group.name) // it has asked the voters since
		return nil, exit(status, "%s refuses: %s%s", e.asked.Name, plain(err), e.wayOut(request))
	case status == ExitUnreached && !request.DryRun:
		return nil, failed("%s: %s; recctl status says who is in charge by now", e.asked.peer, plain(err))
	default:
		return nil, exit(status, "%s: %s", e.asked.peer, plain(err))
	}
}

// wayOut is what somebody may do who was refused. Nothing is said of --force
// while the other director is, or may be, alive.
func (e errand) wayOut(request *tandemv1.FailoverRequest) string {
	if request.Force || e.asked.holds() || e.asked.Name != e.to || !e.group.paired() || e.group.signOfRival(e.to) != "" {
		return ""
	}
	return fmt.Sprintf("; if %[1]s is off, recctl failover --promote --to %[2]s --force --i-have-checked \"%[1]s is off\" --reason TEXT goes on without %[3]s", e.rival(), e.to, e.overrides())
}

type failoverJSON struct {
	DryRun bool     `json:"dry_run"`
	Plan   []string `json:"plan"`
	From   string   `json:"from"` // empty: nobody was in charge
	To     string   `json:"to"`
	Epoch  uint64   `json:"epoch"` // 0: nothing was done yet
	TookMs int64    `json:"took_ms"`
}

func (i *invocation) alreadyThere(e errand, w wish) error {
	if w.json {
		return i.json(failoverJSON{w.dryRun, []string{}, e.to, e.to, e.asked.Epoch, 0})
	}
	fmt.Fprintf(i.out, "%s is %s already, since %s with epoch %d\n", clean(e.to), e.asked.Role, i.clock(at(e.asked.Since)), e.asked.Epoch)
	return nil
}

func (i *invocation) sayPlan(steps []string) {
	for n, step := range steps {
		fmt.Fprintf(i.out, "%d. %s\n", n+1, clean(step))
	}
}

func (i *invocation) planned(plan *tandemv1.FailoverResponse, w wish) error {
	if w.json {
		return i.json(failoverJSON{true, list(plan.Plan), plan.From, plan.To, 0, 0})
	}
	fmt.Fprintln(i.out, "nothing was done: that is the plan")
	return nil
}

func (i *invocation) changed(done *tandemv1.FailoverResponse, w wish) error {
	if w.json {
		return i.json(failoverJSON{false, list(done.Plan), done.From, done.To, done.Epoch, done.TookMs})
	}
	before, took := "nobody was", time.Duration(done.TookMs)*time.Millisecond
	if done.From != "" {
		before = fmt.Sprintf("%s was, %s from its last order to the first of %s", clean(done.From), length(took), clean(done.To))
	}
	fmt.Fprintf(i.out, "%s is in charge with epoch %d; before, %s\n", clean(done.To), done.Epoch, before)
	if w.force {
		fmt.Fprintln(i.out, i.paint(red, "nothing but your word keeps the other director out, until voters or its promise do: see BASIS in recctl status"))
	}
	return nil
}
