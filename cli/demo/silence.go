package demo

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/cli/audit"
)

// fallSilent ends the calls and, unless the floor is to be kept, the switch;
// then it waits until nothing of what was sent is only in the recorder's
// journal.
func (f *floor) fallSilent(ctx context.Context) error {
	if _, err := f.simAsk(ctx, http.MethodPost, "/fault/stop_calls"); err != nil {
		return err
	}
	if err := f.wait(ctx, quietPatience, "all calls to end", func() bool {
		legs, err := f.ongoing(ctx)
		return err == nil && len(legs) == 0
	}); err != nil {
		return err
	}
	state, err := f.simState(ctx)
	if err != nil {
		return err
	}
	f.calls = state.CallsMade
	if f.options.Keep {
		return nil
	}
	f.say("calls ended; the switch stops, the recorder makes files of its journal")
	f.stopSamples() // what is no longer there is not worth showing
	if err := f.during(ctx, func() error { f.sim.Stop(stopPatience); return nil }); err != nil {
		return err
	}
	return f.wait(ctx, quietPatience, "the media files to reach the last packet", func() bool {
		held, err := f.held(ctx)
		if err != nil {
			return false
		}
		bounds, err := f.bounds(ctx)
		return err == nil && reached(held, bounds)
	})
}

// slack is how far a file's end may seem to lie before its last packet came:
// a packet's arrival is later than its place on the timeline by the jitter.
const slack = 100 * time.Millisecond

// reached tells whether every channel has a file that goes to its last packet.
func reached(held []*tandemv1.HeldChannel, bounds map[string]audit.Interval) bool {
	for _, h := range held {
		if h.LastPacket != nil && bounds[h.Channel.GetId()].To.Before(h.LastPacket.AsTime().Add(-slack)) {
			return false
		}
	}
	return true
}

func (f *floor) held(ctx context.Context) ([]*tandemv1.HeldChannel, error) {
	ctx, cancel := context.WithTimeout(ctx, brief)
	defer cancel()
	r, err := f.media().ListChannels(ctx, connect.NewRequest(&tandemv1.ListChannelsRequest{}))
	if err != nil {
		return nil, fmt.Errorf("list channels: %w", err)
	}
	return r.Msg.Channels, nil
}
