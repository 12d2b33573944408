package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"tandem/cli/lab"
	"tandem/cli/scenario"
)

func labCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:   "lab",
		Usage:  "break a floor on hosts of its own within this machine, and measure what it cost",
		Hidden: true, // equipment of those who build Tandem
		Description: `Needs root: every daemon runs in a network namespace of its own. Without FAULT
plays all of them:
` + wrapped(strings.Join(scenario.Names(), ", "), 80) + `.

With --json one object in the end: duration_ms, turrets, channels, calls, sent_ms,
recorded_ms, gap_ms, unexplained_ms, duplicated_ms, foreign_ms, passed, faults[{seed,
at_ms,what,object,live_legs,detect_ms,gap_ms{p50,p99,max},steady_ms,stranded,
unexplained_ms,duplicated_ms,missing_ms,late_ms,directors{takeover_ms,leads,role_changes,
stale_orders,invites,byes},twin{primary_missing_ms,secondary_missing_ms,both_lost_ms,
missing_after_merge_ms,noticed},findings[],directory}] and rows[], one for each kind of fault.
Exit status 5 when something was found.`,
		ArgsUsage: "[FAULT...]",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "seeds", Value: 1, Usage: "play each fault `N` times"},
			&cli.Uint64Flag{Name: "seed", Value: 1, Usage: "`N` of the first time"},
			&cli.IntFlag{Name: "turrets", Value: 50, Usage: "`N` turrets of 4 channels"},
			&cli.IntFlag{Name: "legs", Value: 40, Usage: "`N` live legs before anything is broken"},
			&cli.BoolFlag{DisableDefaultText: true, Name: "targets", Usage: "a gap longer than promised is a finding, too"},
			&cli.BoolFlag{DisableDefaultText: true, Name: "keep", Usage: "keep all logs and recordings"},
			&cli.StringFlag{Name: "dir", Usage: "put them into `DIR` (default: a new one in the temporary directory)"},
		},
		Action: func(c *cli.Context) error {
			scenarios, err := scenario.Find(c.Args().Slice()...)
			if err != nil {
				return usage("%w", err)
			}
			return i.lab(c.Context, lab.Options{
				Scenarios: scenarios, Seeds: c.Int("seeds"), Seed: c.Uint64("seed"), Turrets: c.Int("turrets"), Mixes: 4, Legs: c.Int("legs"), Recorders: 3,
				Targets: c.Bool("targets"), Keep: c.Bool("keep"), Dir: c.String("dir"), Pace: scenario.DefaultPace(),
			}, c.Bool("json"))
		},
	}
}

func (i *invocation) lab(ctx context.Context, o lab.Options, asJSON bool) error {
	if o.Seeds < 1 || o.Turrets < 1 || o.Turrets > 1000 || o.Legs < 0 {
		return usage("want --seeds from 1, --turrets from 1 to 1000, --legs from 0")
	}
	if err := lab.Missing(); err != nil {
		return exit(ExitRefused, "%w", err)
	}
	if o.Dir == "" {
		dir, err := os.MkdirTemp("", "tandem-lab-*")
		if err != nil {
			return failed("make directory: %w", err)
		}
		o.Dir = dir
		defer os.Remove(dir) // when nothing is left in it
	}
	began := time.Now()
	say := i.teller(began, asJSON)
	var results []scenario.Result
	err := lab.Run(ctx, o, say, func(r scenario.Result) {
		results = append(results, r)
		for _, f := range r.Findings(o.Targets) {
			say("! %s seed %d: %s", r.Fault.Scenario.Name, r.Fault.Seed, f)
		}
	})
	report := scenario.NewReport(results, o.Turrets, time.Since(began), o.Targets)
	switch err := errors.Join(i.sayFaults(report, asJSON), err); {
	case errors.Is(err, context.Canceled):
		return failed("interrupted; every host of the lab is gone")
	case err != nil:
		return failed("lab: %w", err)
	case !report.Passed:
		return errFound
	}
	return nil
}

// teller tells of steps as they happen, where JSON does not go.
func (i *invocation) teller(began time.Time, asJSON bool) func(format string, args ...any) {
	out := i.out
	if asJSON {
		out = i.errs
	}
	return func(format string, args ...any) {
		fmt.Fprintf(out, "%7.1f s  %s\n", time.Since(began).Seconds(), clean(fmt.Sprintf(format, args...)))
	}
}

// sayFaults prints a report; one of nothing only as JSON.
func (i *invocation) sayFaults(report scenario.Report, asJSON bool) error {
	if asJSON {
		return i.json(report)
	}
	for _, t := range []*table{faultTable(report), directorTable(report), twinTable(report)} {
		if len(t.rows) > 0 {
			fmt.Fprintln(i.out)
			i.print(t)
		}
	}
	return nil
}

// faultTable is the rows of a report about recorders, for people.
func faultTable(r scenario.Report) *table {
	t := &table{heading: []string{"FAULT", "SEEDS", "LIVE LEGS", "GAP P50", "P99", "MAX MS", "UNEXPLAINED MS", "TWICE MS", "DETECTED MS", "STEADY MS", "FINDINGS"}}
	for _, row := range r.Rows {
		if row.Directors != nil || row.Twin != nil {
			continue
		}
		t.add(text(row.Fault), number("%d", row.Seeds), number("%d", row.LiveLegs), number("%d", row.GapMs.P50), number("%d", row.GapMs.P99), number("%d", row.GapMs.Max),
			number("%d", row.UnexplainedMs), number("%d", row.DuplicatedMs), never(row.DetectMs.P50), never(row.SteadyMs.P50), findings(row))
	}
	return t
}

// directorTable is the rows about directors.
func directorTable(r scenario.Report) *table {
	t := &table{heading: []string{"FAULT", "SEEDS", "LIVE LEGS", "TAKEN OVER", "AFTER P50", "MAX MS", "LEADS", "ROLE CHANGES", "STALE ORDERS", "MISSING MS", "UNEXPLAINED MS", "TWICE MS", "FINDINGS"}}
	for _, row := range r.Rows {
		d := row.Directors
		if d == nil || row.Twin != nil {
			continue
		}
		after, most := cell{text: "-", right: true}, cell{text: "-", right: true}
		if d.Takeovers > 0 {
			after, most = number("%d", d.TakeoverMs.P50), number("%d", d.TakeoverMs.Max)
		}
		t.add(text(row.Fault), number("%d", row.Seeds), number("%d", row.LiveLegs), number("%d", d.Takeovers), after, most, text(strings.Join(d.Leads, ", ")),
			number("%d", d.RoleChanges), number("%d", d.StaleOrders), number("%d", d.MissingMs), number("%d", row.UnexplainedMs), number("%d", row.DuplicatedMs), findings(row))
	}
	return t
}

// twinTable is the rows about two groups.
func twinTable(r scenario.Report) *table {
	t := &table{heading: []string{"FAULT", "SEEDS", "LIVE LEGS", "PRIMARY MISSES MS", "SECONDARY MISSES MS", "BOTH LOST MS", "AFTER MERGE MS", "UNEXPLAINED MS", "SECONDARY NOTICED", "FINDINGS"}}
	for _, row := range r.Rows {
		if w := row.Twin; w != nil {
			t.add(text(row.Fault), number("%d", row.Seeds), number("%d", row.LiveLegs), number("%d", w.PrimaryMissingMs), number("%d", w.SecondaryMissingMs), number("%d", w.BothLostMs),
				number("%d", w.MissingAfterMerge), number("%d", row.UnexplainedMs), number("%d", w.Noticed), findings(row))
		}
	}
	return t
}

func findings(row scenario.Row) cell {
	c := number("%d", row.Findings)
	if row.Findings > 0 {
		c.colour = red
	}
	return c
}

// never shows -1 as what it stands for.
func never(ms int64) cell {
	if ms < 0 {
		return cell{text: "never", right: true}
	}
	return number("%d", ms)
}
