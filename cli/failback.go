package cli

import (
	"context"

	"github.com/urfave/cli/v2"
)

func failbackCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:  "failback",
		Usage: "put the preferred director in charge again",
		Description: `As recctl failover --promote --to the preferred director, in each group that has one.
It happens by itself when the director is configured with failback = "auto", once the
preferred one has been well for a while. Exit status 4 when somebody refuses.

With --json an object a line for each group: dry_run, plan[], from, to, epoch, took_ms;
from and to are the same when nothing had to be done.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{DisableDefaultText: true, Name: "dry-run", Usage: "say what would be done, and do nothing"},
			reasonFlag(),
			waitFlag(),
		},
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			s, err := i.site(c)
			if err != nil {
				return err
			}
			return i.failback(c.Context, s, i.wish(c))
		},
	}
}

func (i *invocation) failback(ctx context.Context, s *site, w wish) error {
	groups, err := s.groups(ctx)
	if err != nil {
		return err
	}
	for _, g := range groups {
		to := g.preferred()
		if _, ok := g.first(known.holds); !ok && to == "" {
			return exit(ExitUnreached, "the preferred director of group %s does not answer, and nobody is in charge who could hand over to it (%s)", g.name, g.states())
		}
		if err := i.handOver(ctx, s, g.errand(to), w); err != nil {
			return err
		}
	}
	return nil
}

// preferred is the name of the preferred director; empty when it is not known,
// which then is the one that is not in charge.
func (g group) preferred() string {
	for _, d := range g.directors {
		if d.Preferred {
			return d.Name
		}
	}
	return ""
}
