package voter

import (
	"context"
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/authority"
)

// Obey runs act if the order may be obeyed, and keeps every other order out
// until act returns: a command of an older epoch never ends after one of a
// newer began. A newer epoch is on disk before act runs. fence is for the one
// order that may begin an epoch and a lease.
//
// An order that must wait for its turn is judged when it has it, so one that
// waited too long is refused; one whose ctx ends while it waits is dropped.
// Errors are act's own, or of Connect: a refusal (see RefusalIn), Unavailable
// for a disk that does not take the epoch, ctx's.
func (k *Keeper) Obey(ctx context.Context, order *tandemv1.Order, fence bool, act func() error) error {
	if err := k.turn.Acquire(ctx, 1); err != nil {
		return err
	}
	defer k.turn.Release(1)
	var reason tandemv1.Refusal_Reason
	err := k.alter(ctx, func(s state, now authority.Instant) state {
		var next state
		if next, reason = k.judge(s, order, fence, now); reason == obeyed {
			k.ear.hear(order.GetDirector(), now)
		}
		return next
	})
	switch {
	case err != nil:
		return err
	case reason != obeyed:
		return k.refuseOrder(reason, order)
	}
	k.tell(order, fence)
	return act()
}

const obeyed = tandemv1.Refusal_REASON_UNSPECIFIED

// obedience is whose orders are being obeyed: fences alone at first, which
// change nothing, then all.
type obedience struct {
	claim
	fenced bool
	last   time.Time // the newest of them
}

// tell logs the first fence and the first order of another director or epoch
// that are obeyed, and when the last one of before was: so it can be told
// afterwards when each succession happened, and that no order came after it
// from whoever was succeeded. The caller has the turn.
func (k *Keeper) tell(order *tandemv1.Order, fence bool) {
	was, is := k.obeys, obedience{claim: claim{authority.Epoch(order.GetEpoch()), order.GetDirector()}, last: time.Now()}
	same := is.claim == was.claim
	is.fenced = fence && (!same || was.fenced)
	k.obeys = is
	if same && is.fenced == was.fenced {
		return
	}
	k.cfg.Log.Info("obeys", "voter", k.cfg.Name, "epoch", is.epoch, "director", is.director, "fence", fence, "last", was.last)
}

// judge decides on an order, and what becomes of s by it. The caller has change.
func (k *Keeper) judge(s state, order *tandemv1.Order, fence bool, now authority.Instant) (state, tandemv1.Refusal_Reason) {
	epoch, director := authority.Epoch(order.GetEpoch()), order.GetDirector()
	switch {
	case order.GetGroup() != k.cfg.Group:
		return s, tandemv1.Refusal_REASON_WRONG_GROUP
	case order.GetProfile() == "":
		return s.obeyAlone(epoch, director, now)
	case order.GetProfile() != k.cfg.Profile:
		return s, tandemv1.Refusal_REASON_WRONG_PROFILE
	case s.usurped(epoch, director, now):
		k.accuse(s, epoch, director)
		return s, tandemv1.Refusal_REASON_WRONG_HOLDER
	}
	v, refusal := s.Voter.Obey(k.timing, authority.Order{Epoch: epoch, Sequence: order.GetSequence(), Nonce: order.GetNonce(), Fence: fence}, now)
	if refusal != authority.Obeyed {
		return s, reasons[refusal]
	}
	return state{v, director}, obeyed
}

// obeyAlone decides on an order of a director that stands alone. Nobody could
// follow it, so it needs neither lease nor haste: its epoch is not behind, and
// is not another's. While a pair's lease is live the order of one more
// director is a mistake.
func (s state) obeyAlone(epoch authority.Epoch, director string, now authority.Instant) (state, tandemv1.Refusal_Reason) {
	switch {
	case epoch == 0 || epoch < s.Epoch:
		return s, tandemv1.Refusal_REASON_STALE_EPOCH
	case director != s.holder && (epoch == s.Epoch || s.Live(now)):
		return s, tandemv1.Refusal_REASON_WRONG_HOLDER
	}
	if epoch > s.Epoch {
		s.Epoch, s.Order = epoch, 0
	}
	s.holder = director
	return s, obeyed
}
