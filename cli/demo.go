package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"tandem/cli/demo"
)

func demoCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "a whole floor on this machine: kill a recorder and a director in mid-call and see what is lost",
		Description: `Runs a simulated switch, two directors with their watchdogs and three recorders as
processes of their own on loopback. Kills a recorder with SIGKILL while people talk on
it, so that the others go on with its calls, and starts it again; then kills the
director in charge, so that the other one goes on, starts it again, and waits until it
has control back. In the end compares the audio that all of them recorded with what
the switch sent. Takes about 45 seconds.

With --2n a second group, a director and two recorders, takes the other copy of every
mix. After the rest the whole first group, directors and recorders, is killed for five
seconds. In the end each hole that one copy has is filled from the other: nothing may be
missing. Takes about 60 seconds.

Everything goes into one directory, recctl.toml with it: --config DIR/recctl.toml has
recctl look at this floor, which --keep leaves running.

Exit status 0 only when nothing is missing without a gap that says why, nothing was
recorded twice, the director's death cost nothing, and no recorder obeyed a director
that was succeeded.

With --json stdout is one object in the end: seed, duration_ms, turrets, channels,
calls, sent_ms, recorded_ms, gap_ms, unexplained_ms, duplicated_ms, foreign_ms,
late_ms (of the switch's own sender), gaps_ms{cause}, faults[{at_ms,what,object,...}],
directory, and findings[] if there are any. With recorder_killed come live_legs,
detect_ms, gap_ms{p50,p99,max}, steady_ms and outage_ms, with director_killed
takeover_ms, audio_lost_ms, stale_commands_accepted and back_ms, with
primary_group_killed live_legs, back_ms, primary_missing_ms, missing_after_merge_ms and
findings[]; missing_after_merge_ms is then in the object, too.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{DisableDefaultText: true, Name: "keep", Usage: "stay up after the report until interrupted"},
			&cli.BoolFlag{DisableDefaultText: true, Name: "2n", Usage: "two groups, each call recorded by both; the whole first group is killed, too"},
			&cli.IntFlag{Name: "turrets", Value: 40, Usage: "`N` turrets of 4 channels (with --2n 20)"},
			&cli.StringFlag{Name: "dir", Usage: "put everything into `DIR` (default: a new one in the temporary directory); it is kept"},
			&cli.Uint64Flag{Name: "seed", Value: 1, Usage: "what the floor does follows from `N`"},
		},
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			turrets := c.Int("turrets")
			if c.Bool("2n") && !c.IsSet("turrets") {
				turrets = 20 // each of their packets is sent, and recorded, twice
			}
			if turrets < 1 || turrets > 1000 {
				return usage("--turrets %d: want 1 to 1000", turrets)
			}
			return i.demo(c.Context, demo.Options{Turrets: turrets, Seed: c.Uint64("seed"), Dir: c.String("dir"), Keep: c.Bool("keep"), Twin: c.Bool("2n")}, c.Bool("json"))
		},
	}
}

func (i *invocation) demo(ctx context.Context, o demo.Options, asJSON bool) error {
	view := &demoView{invocation: i, out: i.out, screen: screen{out: i.out, terminal: i.terminal}}
	if asJSON {
		view.out, view.screen = i.errs, screen{out: i.errs, terminal: i.progress}
	}
	passed := false
	err := demo.Run(ctx, o, view, func(r demo.Result) error {
		view.clear()
		passed = r.Report.Passed()
		if asJSON {
			return i.json(r.Report)
		}
		i.demoReport(r, o.Keep)
		return nil
	})
	switch {
	case errors.Is(err, context.Canceled):
		return failed("interrupted; every process of the demo is gone")
	case err != nil:
		return failed("demo: %w", err)
	case !passed:
		return failed("demo: audio is missing without a gap, or recorded twice, or a death cost what it must not")
	}
	return nil
}

func (i *invocation) demoReport(r demo.Result, kept bool) {
	fmt.Fprintln(i.out)
	for _, l := range r.Report.Lines() {
		fmt.Fprintln(i.out, l)
	}
	if r.Report.Passed() {
		fmt.Fprintln(i.out, i.paint(green, praise(r)))
	} else {
		fmt.Fprintln(i.out, i.paint(red, "the recording is not what was sent, or a death cost what it must not"))
	}
	fmt.Fprintf(i.out, "\nthe recordings are in %s, by recorder\n", r.Media)
	if !kept {
		fmt.Fprintln(i.out, "recctl demo --keep leaves the floor running, to look around in it")
		return
	}
	fmt.Fprintln(i.out, "\nthe floor is up until Ctrl-C; in another terminal:")
	commands := []string{"status --watch", "failover --promote", "history", "channels", "calls"}
	if r.Example != "" {
		commands = append(commands, "show "+r.Example, "export "+r.Example, "play "+r.Example)
	}
	if r.Twin {
		commands = append(commands, "calls --secondary fill", "reconcile")
		if r.Example != "" {
			commands = append(commands, "export --merge "+r.Example)
		}
	}
	all := program() + " --config " + quoted(r.Config)
	for _, c := range append(commands, "verify --deep") {
		fmt.Fprintf(i.out, "  %s %s\n", all, c)
	}
	fmt.Fprintf(i.out, "  %s failover --pause  # or the preferred director gets control back by itself, soon\n", all)
	fmt.Fprintf(i.out, "  %s drill sigkill\n", all)
}

// quoted is a word as a shell takes it for one.
func quoted(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-:,@%+=", r)
	}
	if word != "" && !strings.ContainsFunc(word, func(r rune) bool { return !plain(r) }) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// praise is what a demo has shown that passed.
func praise(r demo.Result) string {
	if r.Twin {
		return "everything sent is recorded once by each group, or in a gap that says why, and nothing is missing of both together"
	}
	return "everything sent is recorded once, or in a gap that says why"
}

// program is how the user called us, so that a line can be copied.
func program() string {
	if strings.ContainsRune(os.Args[0], os.PathSeparator) {
		return os.Args[0]
	}
	return "recctl"
}

// demoView shows the steps as lines that stay and, on a terminal, the floor as
// a line redrawn below them; elsewhere the floor is a line every two seconds.
type demoView struct {
	*invocation
	out    io.Writer
	screen screen
	last   demo.Sample
	shown  time.Duration
}

func (v *demoView) Event(at time.Duration, text string) {
	v.clear()
	fmt.Fprintf(v.out, "%6.1f s  %s\n", at.Seconds(), clean(text))
	if v.screen.terminal && v.last.Elapsed > 0 {
		v.screen.draw(v.sampleLines())
	}
}

func (v *demoView) Sample(s demo.Sample) {
	v.last = s
	if v.screen.terminal {
		v.screen.draw(v.sampleLines())
		return
	}
	if s.Elapsed < v.shown+2*time.Second {
		return
	}
	v.shown = s.Elapsed
	second := ""
	if s.Twin != "" {
		second = ", secondary: " + s.Twin
	}
	fmt.Fprintf(v.out, "%6.1f s  %d turrets, %d of %d channels attached, %d calls, %d legs, %.0f packets/s, journal %s, %s leads, recorders: %s%s, %s\n", s.Elapsed.Seconds(),
		s.Turrets, s.Attached, s.Channels, s.Calls, s.Legs, s.PacketsPS, size(s.JournalLag), s.Leads, s.Recorders, second, alarmText(s.Alarms))
}

func (v *demoView) sampleLines() []string {
	s := v.last
	t := table{heading: []string{"ELAPSED", "TURRETS", "CHANNELS", "CALLS", "LEGS", "PACKETS/S", "JOURNAL LAG", "LEADS", "RECORDERS", "ALARMS"}}
	alarms := text(alarmText(s.Alarms))
	if len(s.Alarms) > 0 {
		alarms.colour = red
	}
	recorders := text(s.Recorders)
	if s.Twin != "" {
		recorders.text += "; secondary " + s.Twin
	}
	if strings.Contains(s.Recorders, "lost") {
		recorders.colour = red
	}
	t.add(number("%.1f s", s.Elapsed.Seconds()), number("%d", s.Turrets), number("%d/%d", s.Attached, s.Channels), number("%d", s.Calls), number("%d", s.Legs),
		number("%.0f", s.PacketsPS), number("%s", size(s.JournalLag)), text(s.Leads), recorders, alarms)
	return append([]string{""}, t.lines(v.screen.terminal && os.Getenv("NO_COLOR") == "")...)
}

func alarmText(alarms []string) string {
	if len(alarms) == 0 {
		return "no alarms"
	}
	return strings.Join(alarms, ", ")
}

// clear takes the table away, so that what is printed next stays.
func (v *demoView) clear() {
	if v.screen.terminal && v.screen.drawn > 0 {
		fmt.Fprintf(v.out, "\x1b[%dA\r\x1b[J", v.screen.drawn)
		v.screen.drawn = 0
	}
}
