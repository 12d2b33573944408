package cli

import (
	"cmp"
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
has moved: nothing is lost. Of two groups of recorders each is rebalanced within itself.

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
	groups, refused, err := s.rebalanceAll(ctx, dryRun)
	if err != nil {
		return err
	}
	var moves []*tandemv1.TurretMove
	for _, r := range groups {
		moves = append(moves, r.answer.Moves...)
	}
	if err := i.sayMoves(moves, asJSON); err != nil {
		return err
	}
	for _, r := range groups {
		if dryRun {
			break
		}
		if err := r.wait(ctx, i, timeout, movedAsPlanned(r.answer.Moves)); err != nil {
			return failed("rebalance: %w", err)
		}
	}
	if refused != nil || asJSON {
		return refused
	}
	switch n := len(moves); {
	case n == 0:
		fmt.Fprintln(i.out, "nothing to move: the recorders are evenly filled")
	case dryRun:
		fmt.Fprintf(i.out, "%s would move; recctl rebalance moves them\n", count(n, "turret"))
	default:
		fmt.Fprintf(i.out, "%s moved in %s\n", count(n, "turret"), length(i.now().Sub(began)))
	}
	return nil
}

// rebalanceAll has every director in charge rebalance its group's recorders.
// That one of them refuses keeps no other from it.
func (s *site) rebalanceAll(ctx context.Context, dryRun bool) (groups []commanded[tandemv1.RebalanceResponse], refused, err error) {
	active, err := s.inCharge(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, d := range active {
		a := ask(ctx, s, []peer{d.peer}, func(ctx context.Context, p peer) (*connect.Response[tandemv1.RebalanceResponse], error) {
			return s.director(p).Rebalance(ctx, connect.NewRequest(&tandemv1.RebalanceRequest{DryRun: dryRun}))
		})[0]
		if a.err != nil {
			refused = cmp.Or(refused, exit(exitStatus(a.err), "group %s: %s", d.Group, s.reason(a.err)))
			continue
		}
		groups = append(groups, commanded[tandemv1.RebalanceResponse]{s, d.Group, a.value.Msg})
	}
	return groups, refused, nil
}

// movedAsPlanned counts the channels of turrets that are not yet where they
// are to be.
func movedAsPlanned(moves []*tandemv1.TurretMove) func([]*tandemv1.FloorChannel) (int, error) {
	to := map[string]string{} // recorder by session
	for _, m := range moves {
		to[m.Session] = m.To
	}
	return moved(func(c *tandemv1.FloorChannel) (string, bool) {
		recorder, mine := to[c.Channel.GetSession().GetId()]
		return recorder, mine
	})
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
