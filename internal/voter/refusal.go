package voter

import (
	"errors"
	"fmt"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/authority"
)

// reasons are the protocol's refusals as they are said.
var reasons = map[authority.Refusal]tandemv1.Refusal_Reason{
	authority.Obeyed:   tandemv1.Refusal_REASON_UNSPECIFIED,
	authority.Stale:    tandemv1.Refusal_REASON_STALE_EPOCH,
	authority.NotFresh: tandemv1.Refusal_REASON_NOT_FRESH,
	authority.Repeated: tandemv1.Refusal_REASON_REPEATED,
	authority.NoLease:  tandemv1.Refusal_REASON_NO_LEASE,
}

// RefusalIn is the refusal that an error of this package or of a call
// carries, nil if it carries none.
func RefusalIn(err error) *tandemv1.Refusal {
	var said *connect.Error
	if !errors.As(err, &said) {
		return nil
	}
	for _, detail := range said.Details() {
		if value, err := detail.Value(); err == nil {
			if r, ok := value.(*tandemv1.Refusal); ok {
				return r
			}
		}
	}
	return nil
}

// refuse is the error for a reason; text says it to people.
func (k *Keeper) refuse(reason tandemv1.Refusal_Reason, text string) error {
	epoch, holder := k.Seen()
	err := connect.NewError(connect.CodeFailedPrecondition, errors.New(text))
	detail, derr := connect.NewErrorDetail(&tandemv1.Refusal{Reason: reason, Epoch: uint64(epoch), Holder: holder, Nonce: k.Nonce(), Group: k.cfg.Group})
	if derr != nil {
		return connect.NewError(connect.CodeInternal, fmt.Errorf("describe refusal: %w", derr))
	}
	err.AddDetail(detail)
	return err
}

// CheckGroup refuses a director of another group, at the network address from.
// Whoever names no group is none and only looks: it is let in.
func (k *Keeper) CheckGroup(director, group, from string) error {
	if group == "" || group == k.cfg.Group {
		return nil
	}
	return k.refuseGroup(director, group, from)
}

func (k *Keeper) refuseGroup(director, group, from string) error {
	if k.strangers.isNews(stranger{director, group}, k.cfg.Clock()) {
		k.cfg.Log.Error("a director of another group was refused: correct the address in its configuration, or the group in one of both",
			"voter", k.cfg.Name, "group", k.cfg.Group, "director", director, "director_group", group, "from", from)
	}
	return k.refuse(tandemv1.Refusal_REASON_WRONG_GROUP, fmt.Sprintf("wrong group: %s serves %q, director %q leads %q", k.cfg.Name, k.cfg.Group, director, group))
}

func (k *Keeper) refuseProfile(director, profile string) error {
	return k.refuse(tandemv1.Refusal_REASON_WRONG_PROFILE, fmt.Sprintf("wrong profile: %s keeps time by %q, director %q by %q", k.cfg.Name, k.cfg.Profile, director, profile))
}

// refuseOrder says why an order is not obeyed.
func (k *Keeper) refuseOrder(reason tandemv1.Refusal_Reason, o *tandemv1.Order) error {
	epoch, holder := k.Seen()
	var text string
	switch reason {
	case tandemv1.Refusal_REASON_WRONG_GROUP:
		return k.refuseGroup(o.GetDirector(), o.GetGroup(), "")
	case tandemv1.Refusal_REASON_WRONG_PROFILE:
		return k.refuseProfile(o.GetDirector(), o.GetProfile())
	case tandemv1.Refusal_REASON_WRONG_HOLDER:
		text = fmt.Sprintf("epoch %d belongs to director %q, not to %q", epoch, holder, o.GetDirector())
		if authority.Epoch(o.GetEpoch()) > epoch {
			text = fmt.Sprintf("director %q has the lease for epoch %d: director %q may not follow before it lapses", holder, epoch, o.GetDirector())
		}
	case tandemv1.Refusal_REASON_NOT_FRESH:
		text = fmt.Sprintf("order %d was on its way for more than %v: repeat it with the newest nonce", o.GetSequence(), k.timing.F)
	case tandemv1.Refusal_REASON_REPEATED:
		text = fmt.Sprintf("order %d, or a later one, has been obeyed under epoch %d", o.GetSequence(), epoch)
	case tandemv1.Refusal_REASON_NO_LEASE:
		text = fmt.Sprintf("the lease of director %q for epoch %d has lapsed: fence first", o.GetDirector(), epoch)
	case tandemv1.Refusal_REASON_STALE_EPOCH:
		text = fmt.Sprintf("stale epoch %d: director %q holds epoch %d", o.GetEpoch(), holder, epoch)
		if authority.Epoch(o.GetEpoch()) > epoch {
			text = fmt.Sprintf("epoch %d has not been fenced here: the newest is %d of director %q", o.GetEpoch(), epoch, holder)
		}
	}
	return k.refuse(reason, text)
}

// unavailable is for faults that may pass: the caller should try again.
func unavailable(err error) error { return connect.NewError(connect.CodeUnavailable, err) }
