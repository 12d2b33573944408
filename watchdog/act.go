package watchdog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	tandemv1 "tandem/api/tandem/v1"
)

// processDead is the reason of a release on behalf of a process that has ended.
const processDead = "process_dead"

// act begins what was decided, unless that is being done already or was done
// just now. What is done is done beside the loop.
func (w *watch) act(ctx context.Context, action Action, sentence string, now time.Time) {
	if action == Nothing || w.busy[action] || !w.tried[action].IsZero() && now.Sub(w.tried[action]) < w.again(action) {
		return
	}
	hand := w.hand(action, sentence)
	w.busy[action] = true
	w.metrics.acted(action)
	w.hands.Go(func() error {
		err := hand(ctx)
		w.post(func(now time.Time, v View) View {
			w.ended(action, err, now)
			return v
		})
		return nil
	})
}

// ended notes what came of an action.
func (w *watch) ended(action Action, err error, now time.Time) {
	was := w.said[action]
	w.busy[action], w.tried[action], w.said[action] = false, now, ""
	if err != nil {
		w.said[action] = err.Error()
		if was != err.Error() {
			w.log.Warn("action failed", "action", action.String(), "err", err)
		}
	}
}

// again is how soon an action may be done again.
func (w *watch) again(action Action) time.Duration {
	switch action {
	case Release: // it is decided on once for each process that ends
		return 0
	case SwitchOver:
		return switchAgain
	case Restart:
		return restartAgain
	}
	return w.rules.Interval
}

// hand is how an action is done. It takes with it what it needs of the view.
func (w *watch) hand(action Action, sentence string) func(context.Context) error {
	self := w.view.Local.Name
	switch action {
	case Campaign:
		return func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, callTimeout)
			defer cancel()
			_, err := w.commands.Campaign(ctx, connect.NewRequest(&tandemv1.CampaignRequest{Actor: w.name, Reason: sentence}))
			return err
		}
	case SwitchOver:
		return func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, switchLimit)
			defer cancel()
			_, err := w.peerCommand.Failover(ctx, connect.NewRequest(&tandemv1.FailoverRequest{To: self, Actor: w.name, Reason: sentence}))
			return err
		}
	case Release:
		epoch := w.view.Local.Dead
		w.view.Local.Dead = 0
		return func(ctx context.Context) error { return w.release(ctx, self, epoch) }
	case Kill:
		process := w.process
		return func(context.Context) error { return w.kill(process) }
	}
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, switchLimit)
		defer cancel()
		return w.unit.Restart(ctx)
	}
}

// release tells everyone who gave something to a process that has ended, and
// the watchdog beside the peer. Who does not answer is told again until its
// lease has lapsed anyway. Only the pidfd leads here: never silence.
func (w *watch) release(ctx context.Context, director string, epoch uint64) error {
	ctx, cancel := context.WithTimeout(ctx, w.rules.LV)
	defer cancel()
	round := int64(w.clock()) // of the proof, however often it is told: the next process may come to the same epoch
	var told errgroup.Group
	for _, voter := range w.voters {
		told.Go(func() error {
			return insist(ctx, func(ctx context.Context) error {
				_, err := voter.Release(ctx, connect.NewRequest(&tandemv1.ReleaseRequest{Group: w.group, Epoch: epoch, Reason: processDead, By: w.name, Round: round}))
				return err
			})
		})
	}
	told.Go(func() error {
		return insist(ctx, func(ctx context.Context) error {
			_, err := w.rival.Yield(ctx, connect.NewRequest(&tandemv1.YieldRequest{Group: w.group, Epoch: epoch, Reason: processDead, By: w.name, Round: round}))
			return err
		})
	})
	if w.neighbour != nil {
		told.Go(func() error {
			return insist(ctx, func(ctx context.Context) error {
				_, err := w.neighbour.Notice(ctx, connect.NewRequest(&tandemv1.NoticeRequest{Director: director, Epoch: epoch, Reason: processDead}))
				return err
			})
		})
	}
	if err := told.Wait(); err != nil {
		return fmt.Errorf("release epoch %d: %w", epoch, err)
	}
	return nil
}

// insist calls until it is answered, or ctx ends.
func insist(ctx context.Context, call func(context.Context) error) error {
	var last error
	for ctx.Err() == nil {
		callCtx, cancel := context.WithTimeout(ctx, callTimeout)
		err := call(callCtx)
		cancel()
		if err == nil || refused(err) {
			return err
		}
		last = err
		pause(ctx, callTimeout/10)
	}
	return cmp.Or(last, ctx.Err())
}

// refused reports whether an error is an answer: asking again changes nothing.
func refused(err error) bool {
	var answer *connect.Error
	if !errors.As(err, &answer) {
		return false
	}
	switch answer.Code() {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled, connect.CodeUnknown:
		return false
	}
	return true
}
