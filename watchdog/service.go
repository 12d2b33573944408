package watchdog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
)

// longestPause is how long one may be: whoever wants more asks again.
const longestPause = 24 * time.Hour

// witnessSays is the sentence of a watchdog that is only a witness.
const witnessSays = "a witness: it votes, and watches nobody"

// service answers for a watchdog, and for one that is only a witness.
type service struct {
	cfg   Config
	watch *watch // nil: there is no director here
}

var _ tandemv1connect.WatchdogServiceHandler = (*service)(nil)

// Report implements WatchdogService.
func (s *service) Report(context.Context, *connect.Request[tandemv1.ReportRequest]) (*connect.Response[tandemv1.ReportResponse], error) {
	status := &tandemv1.WatchdogStatus{Name: s.cfg.Name, Address: s.cfg.Control, Witness: s.cfg.Witness.Enabled}
	if s.watch == nil {
		status.Group, status.State, status.Sentence = s.cfg.Witness.Group, "watching", witnessSays
		return connect.NewResponse(&tandemv1.ReportResponse{Status: status}), nil
	}
	status.Group = s.watch.group
	if now := s.watch.status.Load(); now != nil {
		now.fill(status)
	}
	return connect.NewResponse(&tandemv1.ReportResponse{Status: status}), nil
}

// fill says what is seen. Only what is kept in the state is read.
func (s *state) fill(status *tandemv1.WatchdogStatus) {
	v := s.view
	status.Watching, status.Sentence, status.LastProbeMs = v.Peer.Name, s.sentence, -1
	if !v.Peer.At.IsZero() {
		status.LastProbeMs = s.at.Sub(v.Peer.At).Milliseconds()
	}
	switch {
	case s.at.Before(v.Pause.Until):
		status.State, status.Paused, status.PausedUntil = "paused", true, timestamppb.New(v.Pause.Until)
	case v.silent():
		status.State = "down"
	case v.Peer.Misses > 0:
		status.State = "suspect"
	default:
		status.State = "watching"
	}
	switch able, why := v.able(s.at); {
	case v.role(s.at) == "":
		status.Promotable = []string{v.Local.Name + " does not answer"}
	case !able:
		status.Promotable = []string{why}
	}
}

// Pause implements WatchdogService.
func (s *service) Pause(ctx context.Context, r *connect.Request[tandemv1.PauseRequest]) (*connect.Response[tandemv1.PauseResponse], error) {
	if s.watch == nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("%s is only a witness: there is nothing to pause", s.cfg.Name))
	}
	length := time.Duration(r.Msg.GetForMs()) * time.Millisecond
	if !r.Msg.GetUndo() && (r.Msg.GetForMs() <= 0 || r.Msg.GetForMs() > longestPause.Milliseconds()) {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("for_ms: a pause of %d ms: want more than 0, at most %v", r.Msg.GetForMs(), longestPause))
	}
	var pause Pause
	err := s.watch.ask(ctx, func(now time.Time, v View) View {
		if !r.Msg.GetUndo() {
			pause = Pause{now.Add(length), r.Msg.GetActor(), r.Msg.GetReason()}
		}
		v.Pause = pause
		return v
	})
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	s.watch.log.Info("pause", "until", pause.Until, "actor", r.Msg.GetActor(), "reason", r.Msg.GetReason(), "undo", r.Msg.GetUndo())
	res := &tandemv1.PauseResponse{}
	if !r.Msg.GetUndo() {
		res.Until = timestamppb.New(pause.Until)
	}
	return connect.NewResponse(res), nil
}

// Notice implements WatchdogService. It answers when it has been taken in.
func (s *service) Notice(ctx context.Context, r *connect.Request[tandemv1.NoticeRequest]) (*connect.Response[tandemv1.NoticeResponse], error) {
	switch {
	case s.watch == nil:
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("%s is only a witness: it watches nobody", s.cfg.Name))
	case r.Msg.GetReason() != processDead:
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("reason: %q: want %s", r.Msg.GetReason(), processDead))
	}
	known := ""
	err := s.watch.ask(ctx, func(now time.Time, v View) View {
		if known = v.Peer.Name; !v.Peer.At.IsZero() && known != r.Msg.GetDirector() {
			return v
		}
		known = ""
		return v.noticed(now)
	})
	switch {
	case err != nil:
		return nil, connect.NewError(connect.CodeUnavailable, err)
	case known != "":
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("%s watches %s, not %q", s.cfg.Name, known, r.Msg.GetDirector()))
	}
	s.watch.log.Info("the peer's process has ended", "peer", r.Msg.GetDirector(), "epoch", r.Msg.GetEpoch())
	return connect.NewResponse(&tandemv1.NoticeResponse{}), nil
}

var errStopped = errors.New("watchdog has stopped")

// ask has the loop do something and waits until it has.
func (w *watch) ask(ctx context.Context, f func(time.Time, View) View) error {
	taken := make(chan struct{})
	event := func(now time.Time, v View) View {
		defer close(taken)
		return f(now, v)
	}
	select {
	case w.events <- event:
	case <-ctx.Done():
		return ctx.Err()
	case <-w.done:
		return errStopped
	}
	<-taken
	return nil
}

// healthy is what /healthz answers.
func (w *watch) healthy() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := w.ask(ctx, func(_ time.Time, v View) View { return v }); err != nil {
		return fmt.Errorf("loop does not answer: %w", err)
	}
	return nil
}
