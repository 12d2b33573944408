package demo

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/cli/audit"
	"tandem/turretsim/truth"
)

// fallSilent ends the calls and, unless the floor is to be kept, the switch;
// then it waits until nothing of what was sent is only in the recorders'
// journals.
func (f *floor) fallSilent(ctx context.Context) error {
	if _, err := f.simulator().Ask(ctx, http.MethodPost, "/fault/stop_calls"); err != nil {
		return err
	}
	if err := f.wait(ctx, quietPatience, "all calls to end", func() bool {
		state, err := f.simulator().State(ctx)
		return err == nil && state.Legs == 0
	}); err != nil {
		return err
	}
	state, err := f.simulator().State(ctx)
	if err != nil {
		return err
	}
	f.calls = state.CallsMade
	if f.twin != nil {
		f.twin.quiet = time.Now()
	}
	if f.options.Keep {
		return nil
	}
	f.say("calls ended; the switch stops, the recorders make files of their journals")
	f.stopSamples() // what is no longer there is not worth showing
	if err := f.during(ctx, func() error { f.sim.Stop(stopPatience); return nil }); err != nil {
		return err
	}
	account, err := truth.Load(f.path(truthLog))
	if err != nil {
		return err
	}
	return f.wait(ctx, quietPatience, "the media files to reach the last packet", func() bool {
		return f.allReached(ctx, account.Late())
	})
}

// allReached tells whether every recorder's files go to the last packet it got,
// of a switch that was late by so much at most.
func (f *floor) allReached(ctx context.Context, late time.Duration) bool {
	for _, r := range f.allRecorders() {
		held, err := f.held(ctx, r)
		if err != nil {
			return false
		}
		bounds, err := f.bounds(ctx, r)
		if err != nil || !reached(held, bounds, slack+late) {
			return false
		}
	}
	return true
}

// slack is how far a file's end may seem to lie before its last packet came
// that left on time: its arrival is later than its place on the timeline by the
// jitter.
const slack = 100 * time.Millisecond

// reached tells whether every channel has a file that goes to its last packet,
// but for the slack.
func reached(held []*tandemv1.HeldChannel, bounds map[string]audit.Interval, slack time.Duration) bool {
	for _, h := range held {
		if h.LastPacket != nil && bounds[h.Channel.GetId()].To.Before(h.LastPacket.AsTime().Add(-slack)) {
			return false
		}
	}
	return true
}

func (f *floor) held(ctx context.Context, r *recorder) ([]*tandemv1.HeldChannel, error) {
	ctx, cancel := context.WithTimeout(ctx, brief)
	defer cancel()
	answer, err := f.media(r).ListChannels(ctx, connect.NewRequest(&tandemv1.ListChannelsRequest{}))
	if err != nil {
		return nil, fmt.Errorf("list channels: %w", err)
	}
	return answer.Msg.Channels, nil
}

// bounds are when a recorder recorded each channel, by its files.
func (f *floor) bounds(ctx context.Context, r *recorder) (map[string]audit.Interval, error) {
	ctx, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	return audit.Channels(ctx, []audit.Media{f.media(r)})
}
