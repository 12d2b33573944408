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

func drainCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:      "drain",
		Usage:     "empty a recorder, so that it can be stopped: nothing more is placed on it, its channels move",
		ArgsUsage: "RECORDER",
		Description: `Channels move one after another, each recorded on both recorders until its media
has moved: nothing is lost. Ends when the recorder is empty; it stays out of use,
through restarts too, until --undo. Exit status 4 when the director refuses, 1 when
the recorder is not empty in time: it goes on draining.

With --json one object: recorder, undo, channels (that were on it), duration_ms.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{DisableDefaultText: true, Name: "undo", Usage: "put the recorder into use again; what has moved stays where it is"},
			timeoutFlag(5 * time.Minute),
		},
		Action: func(c *cli.Context) error {
			given, err := arguments(c, "RECORDER")
			if err != nil {
				return err
			}
			s, err := i.site(c)
			if err != nil {
				return err
			}
			return i.drain(c.Context, s, given[0], c.Bool("undo"), c.Duration("timeout"), c.Bool("json"))
		},
	}
}

type drainJSON struct {
	Recorder   string `json:"recorder"`
	Undo       bool   `json:"undo"`
	Channels   uint32 `json:"channels"`
	DurationMs int64  `json:"duration_ms"`
}

func (i *invocation) drain(ctx context.Context, s *site, recorder string, undo bool, timeout time.Duration, asJSON bool) error {
	began := i.now()
	d, err := command(ctx, s, func(ctx context.Context, p peer) (*connect.Response[tandemv1.DirectorServiceDrainResponse], error) {
		return s.director(p).Drain(ctx, connect.NewRequest(&tandemv1.DirectorServiceDrainRequest{Recorder: recorder, Undo: undo}))
	})
	if err != nil {
		return err
	}
	if !undo {
		if d.answer.Channels > 0 && !s.hasOther(ctx, d.group, recorder) {
			s.warn("no other recorder of group %s is ready: channels stay on %s until one is", d.group, recorder)
		}
		if err := d.wait(ctx, i, timeout, s.stillOn(ctx, d.group, recorder)); err != nil {
			return failed("drain %s: %w; recctl channels --recorder %s says what is on it, recctl drain %s --undo takes it back", recorder, err, recorder, recorder)
		}
	}
	switch took := i.now().Sub(began); {
	case asJSON:
		return i.json(drainJSON{recorder, undo, d.answer.Channels, took.Milliseconds()})
	case undo:
		fmt.Fprintf(i.out, "%s is in use again, with %s on it; recctl rebalance fills it\n", clean(recorder), count(d.answer.Channels, "channel"))
	case d.answer.Channels == 0:
		fmt.Fprintf(i.out, "%s is empty: nothing was on it; recctl drain %s --undo puts it into use again\n", clean(recorder), clean(recorder))
	default:
		fmt.Fprintf(i.out, "%s is empty: %s moved in %s; recctl drain %s --undo puts it into use again\n", clean(recorder), count(d.answer.Channels, "channel"), length(took), clean(recorder))
	}
	return nil
}

// stillOn counts the channels that a recorder has, or still has. A drain that
// somebody took back is an error.
func (s *site) stillOn(ctx context.Context, group, recorder string) func([]*tandemv1.FloorChannel) (int, error) {
	drains := false
	return func(channels []*tandemv1.FloorChannel) (left int, err error) {
		for _, c := range channels {
			if c.Recorder == recorder || slices.Contains(c.Leaving, recorder) {
				left++
			}
		}
		if left == 0 {
			return 0, nil
		}
		state := s.stateOf(ctx, group, recorder)
		if drains && state == "ready" {
			return left, failed("somebody took it back; %s left", count(left, "channel"))
		}
		drains = drains || state == "draining"
		return left, nil
	}
}

// hasOther reports whether a group has another recorder that channels can go
// to; where nobody says anything it is taken to have one.
func (s *site) hasOther(ctx context.Context, group, than string) bool {
	all := s.recordersOf(ctx, group)
	return len(all) == 0 || slices.ContainsFunc(all, func(r *tandemv1.RecorderStatus) bool { return r.Name != than && r.State == "ready" })
}

// stateOf is how whoever is in charge of a group says that a recorder is; empty
// when nobody says anything.
func (s *site) stateOf(ctx context.Context, group, recorder string) string {
	for _, r := range s.recordersOf(ctx, group) {
		if r.Name == recorder {
			return r.State
		}
	}
	return ""
}

// recordersOf are the recorders of a group as whoever is in charge of it knows
// them; none when nobody says anything.
func (s *site) recordersOf(ctx context.Context, group string) []*tandemv1.RecorderStatus {
	director, err := s.leader(ctx, group)
	if err != nil {
		return nil
	}
	a := ask(ctx, s, []peer{director}, func(ctx context.Context, p peer) (*connect.Response[tandemv1.StatusResponse], error) {
		return s.director(p).Status(ctx, connect.NewRequest(&tandemv1.StatusRequest{}))
	})[0]
	if a.err != nil {
		return nil
	}
	return a.value.Msg.Recorders
}
