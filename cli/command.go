package cli

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/config"
)

// commanded is what the director in charge answered to a command.
type commanded[T any] struct {
	*site
	group  string // of the director
	answer *T
}

// command has a director in charge do something. Of several groups' directors
// the one that knows what is meant obeys. What a director refuses ends with
// status 4 and the director's sentence.
func command[T any](ctx context.Context, s *site, do func(context.Context, peer) (*connect.Response[T], error)) (commanded[T], error) {
	active, err := s.inCharge(ctx)
	if err != nil {
		return commanded[T]{}, err
	}
	var told error
	var unknown []string // what those say who do not know what is meant
	for _, d := range active {
		a := ask(ctx, s, []peer{d.peer}, do)[0]
		switch {
		case a.err == nil:
			return commanded[T]{s, d.Group, a.value.Msg}, nil
		case connect.CodeOf(a.err) != connect.CodeNotFound:
			told = cmp.Or(told, a.err)
		case !slices.Contains(unknown, s.reason(a.err)): // two directors of one group may both be in charge
			unknown = append(unknown, s.reason(a.err))
		}
	}
	if told != nil {
		return commanded[T]{}, exit(exitStatus(told), "%s", s.reason(told))
	}
	return commanded[T]{}, failed("%s", strings.Join(unknown, "; "))
}

// glance is how often a command looks how far it has come.
const glance = 200 * time.Millisecond

func timeoutFlag(value time.Duration) cli.Flag {
	return durationFlag(cli.DurationFlag{Name: "timeout", Value: value, Usage: "wait at most `TIME`; what was asked for goes on", Action: positive("timeout")})
}

// durationFlag shows its default as people write one.
func durationFlag(f cli.DurationFlag) cli.Flag {
	f.DefaultText = config.Duration(f.Value).String()
	return &f
}

// positive wants a length of time in which something can be done.
func positive(option string) func(*cli.Context, time.Duration) error {
	return func(_ *cli.Context, d time.Duration) error {
		if d <= 0 {
			return usage("--%s %v: want more than 0s", option, d)
		}
		return nil
	}
}

// channels are all that whoever is in charge of the group by now knows.
func (c commanded[T]) channels(ctx context.Context) ([]*tandemv1.FloorChannel, error) {
	director, err := c.leader(ctx, c.group)
	if err != nil {
		return nil, err
	}
	a := ask(ctx, c.site, []peer{director}, func(ctx context.Context, p peer) (*connect.Response[tandemv1.ListFloorChannelsResponse], error) {
		return c.site.director(p).ListFloorChannels(ctx, connect.NewRequest(&tandemv1.ListFloorChannelsRequest{}))
	})[0]
	if a.err != nil {
		return nil, a.err
	}
	return a.value.Msg.Channels, nil
}

// wait looks at the channels until none is left to move, and shows how far it
// has come. A director that gives no answer is asked again.
func (c commanded[T]) wait(ctx context.Context, i *invocation, timeout time.Duration, left func([]*tandemv1.FloorChannel) (int, error)) error {
	end := time.After(timeout)
	every := time.NewTicker(glance)
	defer every.Stop()
	bar := i.bar(0)
	defer bar.clear()
	most, last := 0, "no answer yet"
	for {
		channels, err := c.channels(ctx)
		if err != nil {
			last = c.reason(err)
		} else {
			n, err := left(channels)
			if n == 0 || err != nil {
				return err
			}
			most, last = max(most, n), count(n, "channel")+" left"
			bar.set(int64(most-n), int64(most))
		}
		select {
		case <-ctx.Done():
			return failed("interrupted, %s; what was asked for goes on", last)
		case <-end:
			return failed("not done after %v: %s", config.Duration(timeout), last)
		case <-every.C:
		}
	}
}

// moved says how many of the channels that mine names are not yet, or not only,
// on the recorder where they should be. One that is back where it came from is
// an error: its move was taken back.
func moved(to func(*tandemv1.FloorChannel) (recorder string, mine bool)) func([]*tandemv1.FloorChannel) (int, error) {
	return func(channels []*tandemv1.FloorChannel) (left int, err error) {
		for _, c := range channels {
			recorder, mine := to(c)
			switch {
			case !mine:
			case c.Recorder != recorder:
				return 0, failed("channel %s is on %s and not on %s: %s", c.Channel.GetId(), orDash(c.Recorder), recorder, orDash(c.Text))
			case len(c.Leaving) > 0:
				left++
			}
		}
		return left, nil
	}
}
