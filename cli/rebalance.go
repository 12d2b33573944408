package cli

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	tandemv1 "tandem/api/tandem/v1"
)

func rebalanceCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:  "rebalance",
		Usage: "move turrets until recorders of equal priority are evenly filled",
		Description: `Idle turrets move first. Each channel is recorded on both recorders until its media
has moved: nothing is lost.

With --json an object a line for each turret: turret, session, from, to, channels.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{DisableDefaultText: true, Name: "dry-run", Usage: "say what would move, and move nothing"},
			timeoutFlag(5 * time.Minute),
		},
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			s, err := i.site(c)
			if err != nil {
				return err
			}
			return i.rebalance(c.Context, s, c.Bool("dry-run"), c.Duration("timeout"), c.Bool("json"))
		},
	}
}

type turretMoveJSON struct {
	Turret   string `json:"turret"`
	Session  string `json:"session"`
	From     string `json:"from"`
	To       string `json:"to"`
	Channels uint32 `json:"channels"`
}

func (i *invocation) rebalance(ctx context.Context, s *site, dryRun bool, timeout time.Duration, asJSON bool) error {
	began := i.now()
	r, err := command(ctx, s, func(ctx context.Context, p peer) (*connect.Response[tandemv1.RebalanceResponse], error) {
		return s.director(p).Rebalance(ctx, connect.NewRequest(&tandemv1.RebalanceRequest{DryRun: dryRun}))
	})
	if err != nil {
		return err
	}
	if err := i.sayMoves(r.answer.Moves, asJSON); err != nil {
		return err
	}
	if !dryRun {
		to := map[string]string{} // recorder by session
		for _, m := range r.answer.Moves {
			to[m.Session] = m.To
		}
		if err := r.wait(ctx, i, timeout, moved(func(c *tandemv1.FloorChannel) (string, bool) {
			recorder, mine := to[c.Channel.GetSession().GetId()]
			return recorder, mine
		})); err != nil {
			return failed("rebalance: %w", err)
		}
	}
	if asJSON {
		return nil
	}
	switch n := len(r.answer.Moves); {
	case n == 0:
		fmt.Fprintln(i.out, "nothing to move: the recorders are evenly filled")
	case dryRun:
		fmt.Fprintf(i.out, "%s would move; recctl rebalance moves them\n", count(n, "turret"))
	default:
		fmt.Fprintf(i.out, "%s moved in %s\n", count(n, "turret"), length(i.now().Sub(began)))
	}
	return nil
}

func (i *invocation) sayMoves(moves []*tandemv1.TurretMove, asJSON bool) error {
	t := table{heading: []string{"TURRET", "SESSION", "FROM", "TO", "CHANNELS"}}
	for _, m := range moves {
		if asJSON {
			if err := i.json(turretMoveJSON{m.Turret, m.Session, m.From, m.To, m.Channels}); err != nil {
				return err
			}
			continue
		}
		t.add(text(m.Turret), text(m.Session), text(m.From), text(m.To), number("%d", m.Channels))
	}
	i.print(&t)
	return nil
}
