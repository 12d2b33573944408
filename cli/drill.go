package cli

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"tandem/cli/audit"
	"tandem/cli/drill"
	"tandem/cli/scenario"
	"tandem/internal/rpc"
)

func drillCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:      "drill",
		Usage:     "break a running floor whose switch is simulated, and measure what it cost",
		ArgsUsage: "SCENARIO...",
		Description: `Scenarios: ` + strings.Join(drillable(), ", ") + `.

The switch must be tandem-turretsim: --switch or recctl.toml says where its control
port is, and --truth where it writes its truth log. Recorders that are killed or
frozen must run on this machine, on a host where you may signal them. One that
its supervisor does not start again within three seconds the drill starts as it was.
The traders' calls around the fault are then compared with what was said.

With --json the same object as the lab's. Exit status 4 when this floor must not be
drilled, 5 when audio is missing that no gap explains, or is there twice.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "switch", Usage: "`HOST:PORT` of the simulated switch's control port"},
			&cli.StringFlag{Name: "truth", Usage: "`FILE` the simulated switch writes its truth log to"},
			&cli.Uint64Flag{Name: "seed", Value: 1, Usage: "the instant of the fault follows from `N`"},
		},
		Action: func(c *cli.Context) error {
			names := c.Args().Slice()
			if len(names) == 0 {
				return usage("recctl drill wants SCENARIO, of %s; see recctl drill --help", strings.Join(drillable(), ", "))
			}
			scenarios, err := drills(names)
			if err != nil {
				return err
			}
			cfg, err := i.configuration(c)
			if err != nil {
				return err
			}
			cfg.Switch, cfg.TruthLog = cmp.Or(c.String("switch"), cfg.Switch), cmp.Or(c.String("truth"), cfg.TruthLog)
			f, err := drilled(c.Context, cfg, newSite(cfg, i.warn))
			if err != nil {
				return err
			}
			return i.drill(c.Context, f, scenarios, c.Uint64("seed"), c.Bool("json"))
		},
	}
}

// drills are the scenarios with these names.
func drills(names []string) ([]scenario.Scenario, error) {
	all := make([]scenario.Scenario, len(names))
	for n, name := range names {
		found, err := scenario.Find(name)
		switch {
		case err != nil:
			return nil, usage("no scenario %q: want one of %s", name, strings.Join(drillable(), ", "))
		case !found[0].Anywhere():
			return nil, usage("%s needs hosts of its own, as the lab has; a drill can be one of %s", name, strings.Join(drillable(), ", "))
		}
		all[n] = found[0]
	}
	return all, nil
}

// drillable are the scenarios for a floor that was not built for them.
func drillable() []string {
	return slices.DeleteFunc(scenario.Names(), func(name string) bool {
		s, err := scenario.Find(name)
		return err != nil || !s[0].Anywhere()
	})
}

// drilled is the floor of the site's director in charge.
func drilled(ctx context.Context, cfg Config, s *site) (*drill.Floor, error) {
	switch {
	case len(s.directors) == 0:
		return nil, usage("no director is configured; name one in %s or with --director ADDR", DefaultFile)
	case cfg.Switch == "" || cfg.TruthLog == "":
		return nil, exit(ExitRefused, "a drill is for a floor whose switch is tandem-turretsim: name it with --switch HOST:PORT and --truth FILE, or in %s", DefaultFile)
	}
	if err := checkAddress(cfg.Switch); err != nil {
		return nil, usage("--switch %w", err)
	}
	active, err := s.inCharge(ctx)
	if err != nil {
		return nil, err
	}
	return &drill.Floor{
		Director: s.director(active[0].peer),
		Media:    func(address string) audit.Media { return s.media(peer{address, address}) },
		Switch:   scenario.Simulator{Client: rpc.NewClient(), URL: "http://" + cfg.Switch},
		TruthLog: cfg.TruthLog,
	}, nil
}

func (i *invocation) drill(ctx context.Context, f *drill.Floor, scenarios []scenario.Scenario, seed uint64, asJSON bool) error {
	began := time.Now()
	say := i.teller(began, asJSON)
	err := f.Open(ctx)
	var results []scenario.Result
	for _, s := range scenarios {
		if err != nil {
			break
		}
		pace := scenario.DefaultPace()
		pace.Legs = 1
		var r scenario.Result
		if r, err = f.Play(ctx, s, seed, pace, say); err == nil {
			results = append(results, r)
			for _, found := range r.Findings(false) {
				say("! %s: %s", s.Name, found)
			}
		}
	}
	report := scenario.NewReport(results, 0, time.Since(began), false)
	if len(results) > 0 {
		err = errors.Join(err, i.sayFaults(report, asJSON))
	}
	switch {
	case errors.Is(err, drill.ErrRefused):
		return exit(ExitRefused, "%w", err)
	case errors.Is(err, context.Canceled):
		return failed("interrupted; what was broken is mended")
	case err != nil:
		return failed("drill: %w", err)
	case !report.Passed:
		return errFound
	}
	return nil
}
