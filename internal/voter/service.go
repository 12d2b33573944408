package voter

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/authority"
)

var _ tandemv1connect.VoterServiceHandler = (*Keeper)(nil)

// Query implements VoterService. It waits for nothing.
func (k *Keeper) Query(_ context.Context, r *connect.Request[tandemv1.QueryRequest]) (*connect.Response[tandemv1.QueryResponse], error) {
	if err := k.admit(r.Msg.GetDirector(), r.Msg.GetGroup(), r.Msg.GetProfile(), r.Peer().Addr); err != nil {
		return nil, err
	}
	return connect.NewResponse(&tandemv1.QueryResponse{Ballot: k.ballot()}), nil
}

// Lease implements VoterService.
func (k *Keeper) Lease(ctx context.Context, r *connect.Request[tandemv1.LeaseRequest]) (*connect.Response[tandemv1.LeaseResponse], error) {
	director, epoch := r.Msg.GetDirector(), authority.Epoch(r.Msg.GetEpoch())
	if director == "" {
		return nil, connect.NewError(connect.CodeInvalidArgument, errNoDirector)
	}
	if err := k.admit(director, r.Msg.GetGroup(), r.Msg.GetProfile(), r.Peer().Addr); err != nil {
		return nil, err
	}
	granted := false
	err := k.alter(ctx, func(s state, now authority.Instant) state {
		if s.usurped(epoch, director, now) {
			k.accuse(s, epoch, director)
			return s
		}
		v, answer := s.Step(k.timing, authority.Message{Kind: authority.Lease, Epoch: epoch, Nonce: r.Msg.GetNonce(), Round: authority.Instant(r.Msg.GetRound())}, now)
		if granted = answer.Yes; !granted {
			return s
		}
		return state{v, director}
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&tandemv1.LeaseResponse{Granted: granted, Ballot: k.ballot()}), nil
}

// Release implements VoterService.
func (k *Keeper) Release(ctx context.Context, r *connect.Request[tandemv1.ReleaseRequest]) (*connect.Response[tandemv1.ReleaseResponse], error) {
	if r.Msg.GetGroup() != k.cfg.Group {
		return nil, k.refuseGroup(r.Msg.GetBy(), r.Msg.GetGroup(), r.Peer().Addr)
	}
	err := k.alter(ctx, func(s state, now authority.Instant) state {
		v, _ := s.Step(k.timing, authority.Message{Kind: authority.Release, Epoch: authority.Epoch(r.Msg.GetEpoch()), Round: authority.Instant(r.Msg.GetRound())}, now)
		if v.Until != s.Until {
			k.cfg.Log.Info("lease given back", "voter", k.cfg.Name, "epoch", v.Epoch, "director", s.holder, "reason", r.Msg.GetReason(), "by", r.Msg.GetBy())
		}
		return state{v, s.holder}
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&tandemv1.ReleaseResponse{Ballot: k.ballot()}), nil
}

var errNoDirector = errors.New("director: want the name of the director that asks")

// admit refuses whoever is of another group or keeps other time, and notes
// that the others were heard.
func (k *Keeper) admit(director, group, profile, from string) error {
	switch {
	case group != k.cfg.Group:
		return k.refuseGroup(director, group, from)
	case profile != k.cfg.Profile:
		return k.refuseProfile(director, profile)
	}
	k.ear.hear(director, k.cfg.Clock())
	return nil
}

// ballot is what the voter says of itself now. A lease that has any time left
// is not said to have none.
func (k *Keeper) ballot() *tandemv1.Ballot {
	s, now := k.now.Load(), k.cfg.Clock()
	_, said := s.Step(k.timing, authority.Message{Kind: authority.Query}, now)
	return &tandemv1.Ballot{
		Voter: k.cfg.Name, Epoch: uint64(said.Epoch), Holder: s.holder, RemainingUs: (said.Remaining + time.Microsecond - 1).Microseconds(),
		Nonce: said.Nonce, BootId: k.cfg.Boot, Heard: k.ear.heard(now),
	}
}
