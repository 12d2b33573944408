// Package drill plays failure scenarios on a running floor, whose recorders
// are processes of this machine and whose switch is simulated: with real
// traders behind it nobody kills a recorder to see what happens.
package drill

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/cli/audit"
	"tandem/cli/scenario"
	"tandem/turretsim/truth"
)

// ErrRefused is a floor that must not be drilled.
var ErrRefused = errors.New("no drill here")

// Floor is a running floor. It is the scenario's Floor; its methods belong to
// one goroutine.
type Floor struct {
	Director tandemv1connect.DirectorServiceClient
	Media    func(address string) audit.Media // of a recorder
	Switch   scenario.Simulator
	TruthLog string

	addresses map[string]string  // of recorders
	broken    map[string]*daemon // that were killed or frozen
	drained   map[string]bool    // by us
}

// brief is how long one question may take.
const brief = time.Second

// Open makes sure that the floor's switch is the simulated one whose truth log
// is at hand. Everything else is ErrRefused.
func (f *Floor) Open(ctx context.Context) error {
	f.addresses, f.broken, f.drained = map[string]string{}, map[string]*daemon{}, map[string]bool{}
	state, err := f.Switch.State(ctx)
	if err != nil {
		return fmt.Errorf("%w: the switch is no turretsim: %w", ErrRefused, err)
	}
	if !strings.HasPrefix(state.Server, "turretsim-") {
		return fmt.Errorf("%w: the switch calls itself %q and is no turretsim", ErrRefused, state.Server)
	}
	status, err := f.Status(ctx)
	if err != nil {
		return fmt.Errorf("ask director: %w", err)
	}
	for _, r := range status.Recorders {
		f.addresses[r.Name] = r.Address
	}
	channels, err := f.Channels(ctx, "")
	if err != nil {
		return err
	}
	account, err := truth.Load(f.TruthLog)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	offered := account.Channels()
	for _, id := range channels {
		if _, ok := slices.BinarySearch(offered, id); !ok {
			return fmt.Errorf("%w: the director records channel %s, which the simulated switch never offered: it has another switch", ErrRefused, id)
		}
	}
	return nil
}

// Play plays a scenario and judges it by the legs that were live.
func (f *Floor) Play(ctx context.Context, s scenario.Scenario, seed uint64, pace scenario.Pace, say func(string, ...any)) (r scenario.Result, err error) {
	r.Began = time.Now()
	if r.Fault, err = scenario.Play(ctx, f, s, seed, pace, say); err != nil {
		return r, errors.Join(err, f.mend())
	}
	state, err := f.Switch.State(ctx)
	if err != nil {
		return r, err
	}
	account, err := truth.Load(f.TruthLog)
	if err != nil {
		return r, err
	}
	r.Calls, r.Fault.Late = state.CallsMade, account.Late()
	select {
	case <-ctx.Done():
		return r, ctx.Err()
	case <-time.After(brief): // what the account has is kept by then
	}
	var recorders []audit.Media
	for _, address := range f.addresses {
		recorders = append(recorders, f.Media(address))
	}
	r.Judgement, err = scenario.Judge(ctx, account, audit.From(recorders), r.Fault, scenario.LegsOnly)
	return r, err
}

// mend brings back what an interrupted scenario left broken.
func (f *Floor) mend() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*returning)
	defer cancel()
	var errs []error
	for name, d := range f.broken {
		d.thaw() // fails when it was killed
		errs = append(errs, f.Act(ctx, scenario.Start, name))
	}
	for name := range f.drained {
		errs = append(errs, f.Act(ctx, scenario.Undrain, name))
	}
	return errors.Join(errs...)
}

// Act implements scenario.Floor.
func (f *Floor) Act(ctx context.Context, a scenario.Action, recorder string) error {
	switch a {
	case scenario.Kill, scenario.Freeze:
		d, err := find(f.addresses[recorder])
		if err != nil {
			return err
		}
		f.broken[recorder] = d
		if a == scenario.Freeze {
			return d.freeze()
		}
		return d.kill()
	case scenario.Thaw:
		return f.broken[recorder].thaw()
	case scenario.Start:
		return f.broken[recorder].bringBack(ctx)
	case scenario.Drain, scenario.Undrain:
		f.drained[recorder] = true
		_, err := f.Director.Drain(ctx, connect.NewRequest(&tandemv1.DirectorServiceDrainRequest{Recorder: recorder, Undo: a == scenario.Undrain}))
		return err
	}
	return fmt.Errorf("%w: only the lab can %s", ErrRefused, a)
}

// Status implements scenario.Floor.
func (f *Floor) Status(ctx context.Context) (*tandemv1.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, brief)
	defer cancel()
	r, err := f.Director.Status(ctx, connect.NewRequest(&tandemv1.StatusRequest{}))
	if err != nil {
		return nil, err
	}
	return r.Msg, nil
}

// Legs implements scenario.Floor.
func (f *Floor) Legs(ctx context.Context) (int, error) {
	state, err := f.Switch.State(ctx)
	return state.Legs, err
}

// Channels implements scenario.Floor; of no recorder are all.
func (f *Floor) Channels(ctx context.Context, recorder string) ([]string, error) {
	r, err := f.Director.ListFloorChannels(ctx, connect.NewRequest(&tandemv1.ListFloorChannelsRequest{Recorder: recorder}))
	if err != nil {
		return nil, fmt.Errorf("list channels: %w", err)
	}
	var ids []string
	for _, c := range r.Msg.Channels {
		ids = append(ids, c.GetChannel().GetId())
	}
	return ids, nil
}
