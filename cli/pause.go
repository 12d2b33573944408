package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	tandemv1 "tandem/api/tandem/v1"
)

func (i *invocation) pauseRequest(c *cli.Context) *tandemv1.PauseRequest {
	if c.Bool("resume") {
		return &tandemv1.PauseRequest{Undo: true, Actor: i.actor, Reason: c.String("reason")}
	}
	return &tandemv1.PauseRequest{ForMs: c.Duration("for").Milliseconds(), Actor: i.actor, Reason: c.String("reason")}
}

// pause has every watchdog begin or end a pause. One that did not hear of it is
// an error: it may promote somebody in the middle of the work.
func (i *invocation) pause(ctx context.Context, s *site, request *tandemv1.PauseRequest, asJSON bool) error {
	f, silence := s.floorIfAny(ctx)
	g := s.guards(ctx, f.Watchdogs)
	switch {
	case len(g.answers)+len(g.silent) == 0 && silence != nil: // nobody was left to say where watchdogs are
		return exit(statusOf(silence), "%w, or --watchdog ADDR a watchdog", silence)
	case silence != nil:
		s.warn("%v", silence)
	}
	if len(g.answers) == 0 {
		return nobody("watchdog", g.silent)
	}
	var faults []error
	for _, a := range g.missing(s) {
		faults = append(faults, deaf(a.peer, s.reason(a.err), request))
	}
	peers := make([]peer, len(g.answers))
	for n, a := range g.answers {
		peers[n] = a.peer
	}
	for _, a := range ask(ctx, s, peers, func(ctx context.Context, p peer) (*connect.Response[tandemv1.PauseResponse], error) {
		return s.watchdog(p).Pause(ctx, connect.NewRequest(request))
	}) {
		if a.err != nil {
			faults = append(faults, deaf(a.peer, s.reason(a.err), request))
			continue
		}
		faults = append(faults, i.sayPause(a.peer, a.value.Msg, asJSON))
	}
	for _, group := range f.groups {
		if names := group.unwatched(g.statuses()); len(names) > 0 {
			s.warn("no watchdog answers that watches %s; if there is one, name it in %s or with --watchdog ADDR", strings.Join(names, " or "), DefaultFile)
		}
	}
	if err := errors.Join(faults...); err != nil {
		return failed("%w", err)
	}
	return nil
}

// floorIfAny is what the directors say, and why they say nothing. Watchdogs may
// be told without them.
func (s *site) floorIfAny(ctx context.Context) (floor, error) {
	answers, err := heard(s, "director", s.statusAnswers(ctx))
	if err != nil {
		return floor{StatusResponse: &tandemv1.StatusResponse{}}, err
	}
	return mergeStatus(answers), nil
}

// deaf says what it means that a watchdog does not know.
func deaf(p peer, why string, request *tandemv1.PauseRequest) error {
	if request.Undo {
		return fmt.Errorf("watchdog %s: %s; it may be paused still, and then promotes nobody", p, why)
	}
	return fmt.Errorf("watchdog %s: %s; it is not paused and may promote a director", p, why)
}

func (i *invocation) sayPause(p peer, r *tandemv1.PauseResponse, asJSON bool) error {
	until := at(r.Until)
	switch {
	case asJSON:
		return i.json(struct {
			Watchdog string `json:"watchdog"`
			Address  string `json:"address"`
			Paused   bool   `json:"paused"`
			Until    stamp  `json:"until"`
		}{p.name, p.address, !until.IsZero(), stamp(until)})
	case until.IsZero():
		fmt.Fprintf(i.out, "%s is on guard\n", clean(p.name))
	default:
		fmt.Fprintf(i.out, "%s is paused until %s; recctl failover --resume ends that\n", clean(p.name), i.clock(until))
	}
	return nil
}
