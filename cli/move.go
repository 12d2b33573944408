package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	tandemv1 "tandem/api/tandem/v1"
)

func moveCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:      "move",
		Usage:     "move a turret's channels, or one channel, to another recorder",
		ArgsUsage: "TURRET|CHANNEL",
		Description: `TURRET is a device, its user or its session. Each channel is recorded on both
recorders until its media has moved: nothing is lost. Exit status 4 when the
recorder cannot take it, with the reason.

With --json one object: turret, channel, to, channels (that moved), duration_ms.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "to", Usage: "move to the recorder `NAME`"},
			timeoutFlag(30 * time.Second),
		},
		Action: func(c *cli.Context) error {
			given, err := arguments(c, "TURRET|CHANNEL")
			if err != nil {
				return err
			}
			if c.String("to") == "" {
				return usage("recctl move wants --to RECORDER; recctl status lists them")
			}
			s, err := i.site(c)
			if err != nil {
				return err
			}
			return i.move(c.Context, s, given[0], c.String("to"), c.Duration("timeout"), c.Bool("json"))
		},
	}
}

type moveJSON struct {
	Turret     string `json:"turret"`  // empty: a channel
	Channel    string `json:"channel"` // empty: a turret
	To         string `json:"to"`
	Channels   uint32 `json:"channels"`
	DurationMs int64  `json:"duration_ms"`
}

func (i *invocation) move(ctx context.Context, s *site, name, to string, timeout time.Duration, asJSON bool) error {
	began := i.now()
	request, mine, err := s.toMove(ctx, name, to)
	if err != nil {
		return err
	}
	m, err := command(ctx, s, func(ctx context.Context, p peer) (*connect.Response[tandemv1.MoveResponse], error) {
		return s.director(p).Move(ctx, connect.NewRequest(request))
	})
	if err != nil {
		return err
	}
	if err := m.wait(ctx, i, timeout, moved(func(c *tandemv1.FloorChannel) (string, bool) {
		return to, slices.Contains(mine, c.Channel.GetId())
	})); err != nil {
		return failed("move %s: %w", name, err)
	}
	took := i.now().Sub(began)
	switch {
	case asJSON:
		return i.json(moveJSON{request.Turret, request.Channel, to, m.answer.Channels, took.Milliseconds()})
	case m.answer.Channels == 0:
		fmt.Fprintf(i.out, "%s is on %s already\n", clean(name), clean(to))
	default:
		fmt.Fprintf(i.out, "%s is on %s: %s moved in %s\n", clean(name), clean(to), count(m.answer.Channels, "channel"), length(took))
	}
	return nil
}

// toMove asks for the channel with this name or, when there is none, for the
// turret; and says which channels that means.
func (s *site) toMove(ctx context.Context, name, to string) (request *tandemv1.MoveRequest, channels []string, err error) {
	answers, err := askInCharge(ctx, s, func(ctx context.Context, p peer) (*connect.Response[tandemv1.ListFloorChannelsResponse], error) {
		return s.director(p).ListFloorChannels(ctx, connect.NewRequest(&tandemv1.ListFloorChannelsRequest{}))
	})
	if err != nil {
		return nil, nil, err
	}
	for _, a := range answers {
		for _, c := range a.value.Msg.Channels {
			id, session := c.Channel.GetId(), c.Channel.GetSession()
			if id == name {
				return &tandemv1.MoveRequest{Channel: name, To: to}, []string{id}, nil
			}
			if name == session.GetDevice() || name == session.GetId() || name == session.GetUser() {
				channels = append(channels, id)
			}
		}
	}
	return &tandemv1.MoveRequest{Turret: name, To: to}, channels, nil
}
