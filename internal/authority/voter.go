package authority

import "time"

// Voter is all that a voter knows. Epoch must be on disk before anything
// that follows from it is said or done; the rest may be forgotten.
type Voter struct {
	Epoch Epoch   // the highest granted, or obeyed
	Until Instant // its lease is live before; 0: not leased
	Round Instant // of the newest lease or release under Epoch, by its director's clock
	Mute  Instant // nothing is granted before
	Base  uint64  // of its nonces; a random one for each start of the process
	Order uint64  // sequence of the newest order obeyed under Epoch
}

// StartVoter is a voter that starts with what it kept. It does not know how
// long ago it last renewed the lease, so it counts that as done just now; one
// that kept nothing, and may have lost it, grants nothing for as long.
func StartVoter(t Timing, kept Epoch, base uint64, now Instant) Voter {
	end := now.Add(t.LV)
	if kept == 0 {
		return Voter{Base: base, Mute: end}
	}
	return Voter{Epoch: kept, Until: end, Base: base}
}

// Live reports whether a director has the voter's lease.
func (v Voter) Live(now Instant) bool { return now < v.Until }

// nonceSlots is how often in F the nonce changes.
const nonceSlots = 4

func slot(t Timing) time.Duration { return max(1, t.F/nonceSlots) }

// Nonce is the one to be repeated in what is sent to the voter next.
func (v Voter) Nonce(t Timing, now Instant) uint64 {
	return v.Base + uint64(now.Sub(0)/slot(t))
}

// Fresh reports whether a nonce was issued less than F ago, by this very
// process.
func (v Voter) Fresh(t Timing, nonce uint64, now Instant) bool {
	return v.issued(t, nonce, t.F, now)
}

// issued reports whether a nonce was issued less than a while ago. One that
// never was is, modulo 2^64, too old.
func (v Voter) issued(t Timing, nonce uint64, within time.Duration, now Instant) bool {
	return v.Nonce(t, now)-nonce < uint64(within/slot(t))
}

// Step takes a director's question and gives the answer. If Epoch has changed
// it must be on disk before the answer leaves.
func (v Voter) Step(t Timing, m Message, now Instant) (Voter, Message) {
	granted := false
	switch m.Kind {
	case Lease:
		if granted = v.grants(t, m, now); granted {
			v = v.follow(m.Epoch)
			v.Until, v.Round = now.Add(t.LV), m.Round
		}
	case Release:
		v = v.release(t, m, now)
	}
	return v, v.ballot(t, m, granted, now)
}

// grants decides on a lease: never behind the epoch kept, never over
// another's live lease, never for a question that is too old: it repeats the
// nonce of the round before, so it may be older than an order by one round.
// One that was sent before the release of its epoch asks for nothing any more.
func (v Voter) grants(t Timing, m Message, now Instant) bool {
	switch {
	case m.Epoch < v.Epoch || m.Epoch == 0, m.Epoch == v.Epoch && m.Round < v.Round:
		return false
	case v.Live(now) && m.Epoch.Side() != v.Epoch.Side(), now < v.Mute:
		return false
	}
	return v.issued(t, m.Nonce, t.H+t.F, now)
}

func (v Voter) follow(e Epoch) Voter {
	if e > v.Epoch {
		v.Epoch, v.Round, v.Order = e, 0, 0
	}
	return v
}

// release shortens the lease to F, in which the last order of its holder
// arrives or dies. A process that starts again may come to the same epoch as
// one before it: a release from before the lease is not meant for it.
func (v Voter) release(t Timing, m Message, now Instant) Voter {
	if m.Epoch == v.Epoch && m.Round >= v.Round && v.Live(now) {
		v.Until, v.Round = min(v.Until, now.Add(t.F)), m.Round
	}
	return v
}

func (v Voter) ballot(t Timing, m Message, granted bool, now Instant) Message {
	return Message{
		Kind: Ballot, Epoch: v.Epoch, Asked: m.Epoch, Round: m.Round, Nonce: v.Nonce(t, now),
		Yes: granted, Remaining: max(0, v.Until.Sub(now)),
	}
}

// Order is what a command of a director claims.
type Order struct {
	Epoch    Epoch
	Sequence uint64 // counts up under an epoch
	Nonce    uint64
	Fence    bool // makes the recorder follow a newer epoch
}

// Refusal is why an order is not obeyed.
type Refusal uint8

// The reasons, in the order in which they are looked for.
const (
	Obeyed   Refusal = iota
	Stale            // its epoch is not the newest
	NotFresh         // its nonce is too old, or of a process before this one; the same order with a newer one may do
	Repeated         // an order of the same or a later sequence was obeyed before
	NoLease          // the epoch is right, the lease has lapsed: fence first
)

// Obey decides on an order. A recorder obeys only the holder of its own live
// lease, and a fence begins one: whoever fences has authority, by other
// voters or by consent, and with a higher epoch than whoever had it before.
func (v Voter) Obey(t Timing, o Order, now Instant) (Voter, Refusal) {
	switch {
	case o.Epoch < v.Epoch || o.Epoch == 0, o.Epoch > v.Epoch && !o.Fence:
		return v, Stale
	case !v.Fresh(t, o.Nonce, now):
		return v, NotFresh
	case o.Epoch == v.Epoch && o.Sequence <= v.Order:
		return v, Repeated
	case !o.Fence && !v.Live(now):
		return v, NoLease
	}
	if o.Fence {
		v = v.follow(o.Epoch)
		v.Until = max(v.Until, now.Add(t.LV))
	}
	v.Order = o.Sequence
	return v, Obeyed
}
