package authority

import (
	"slices"
	"time"
)

// Config is what a director knows from its start on.
type Config struct {
	Timing
	Side   Side
	Voters int // 1 to MaxVoters, odd
	// Alone lets a candidate go on without any proof when neither its rival
	// nor any voter has been heard for LV: for two hosts without a third, where
	// nobody could tell a dead rival from a cut cable. Never two with
	// authority is not promised then; that each recorder obeys one is.
	Alone bool
}

func (c Config) majority() int { return c.Voters/2 + 1 }

// Phase is where a director stands.
type Phase uint8

// The phases.
const (
	Boot       Phase = iota // has just started, and may have promised something
	Passive                 // seeks nothing
	Candidate               // seeks authority
	Activating              // has it, and waits G
	Active                  // steers
	Draining                // has it, and is about to give it back
	Linger                  // had it; begins nothing, ends nothing, and seeks it again
	phaseCount = iota
)

var phaseNames = [phaseCount]string{"boot", "passive", "candidate", "activating", "active", "draining", "linger"}

func (p Phase) String() string { return phaseNames[p] }

// Holds reports whether authority is held in a phase, while it has not lapsed.
func (p Phase) Holds() bool { return p == Activating || p == Active || p == Draining }

// seeks reports whether authority is sought.
func (p Phase) seeks() bool { return p == Candidate || p == Linger }

// Basis is what authority rests on.
type Basis uint8

// From the best to none.
const (
	None Basis = iota
	QuorumAndConsent
	Quorum
	ByConsent
	Assumed // nobody was heard, see Config.Alone
	Forced  // an operator said that the rival is off
)

var basisNames = [...]string{"", "quorum+consent", "quorum", "consent", "assumed", "forced"}

func (b Basis) String() string { return basisNames[b] }

// Director is all that a director knows of its authority. Nothing of it
// outlives the process.
type Director struct {
	Phase Phase
	Epoch Epoch   // sought or held; 0: none
	Seen  Epoch   // the highest heard of
	Since Instant // of the phase
	Able  bool    // as the last tick said
	Asked Instant // when somebody last wanted it to be in charge

	Acks    [MaxVoters]Instant // by voter: the round of its newest grant of Epoch; 0: none
	Nonces  [MaxVoters]uint64  // by voter: what the next lease repeats
	Free    [MaxVoters]Instant // by voter: the round in which it was last known that it would grant; 0: it would not
	Polled  [MaxVoters]Instant // by voter: the round it last answered
	Bound   [MaxVoters]bool    // by voter: it has leased to the rival, for longer than a release leaves
	Promise Instant            // round of the rival's newest promise for Epoch; 0: none
	Heard   Instant            // the rival last answered or asked

	Promised Epoch   // what it has promised to stay out for
	Vowed    Instant // the rival's newest round that was about it, by the rival's clock
	Until    Instant // how long it stays out
	Guard    Instant // before which a holder does not act
	Without  Basis   // Assumed or Forced: authority without proof; None otherwise

	Deserted Instant // since when it has asked all of them in every round and nobody has answered; 0: somebody did. Only with Config.Alone
	Round    Instant // its last, as far as Deserted needs it
}

// StartDirector is a director that has just started.
func StartDirector(now Instant) Director { return Director{Phase: Boot, Since: now} }

// majorityRound is the newest round that a majority acknowledged, 0 for none.
func (d Director) majorityRound(c Config, acks [MaxVoters]Instant) Instant {
	sorted := acks
	slices.Sort(sorted[:c.Voters])
	return sorted[c.Voters-c.majority()]
}

// lease is until when a round's answer is good for, 0 for none.
func (c Config) lease(round Instant) Instant {
	if round == 0 {
		return 0
	}
	return round.Add(c.LD)
}

// Authority is what d's authority rests on at an instant, and until when it
// lasts unless it is renewed. One without proof lasts until it is ended.
func (d Director) Authority(c Config, now Instant) (Basis, Instant) {
	if !d.Phase.Holds() {
		return None, 0
	}
	quorum, consent := c.lease(d.majorityRound(c, d.Acks)), c.lease(d.Promise)
	until := max(quorum, consent)
	switch {
	case now < quorum && now < consent:
		return QuorumAndConsent, until
	case now < quorum:
		return Quorum, until
	case now < consent:
		return ByConsent, until
	case d.Without != None:
		return d.Without, now.Add(c.LD)
	}
	return None, 0
}

// May reports whether an order may be written at this instant.
func (d Director) May(c Config, now Instant) bool {
	basis, _ := d.Authority(c, now)
	return basis != None && (d.Phase == Active || d.Phase == Draining)
}

// To is somebody to be told something: a voter, or the rival.
type To int8

// Rival is the other director; voters are 0 to MaxVoters-1.
const Rival To = -1

// Send is a message to be sent.
type Send struct {
	To To
	Message
}

// Input is anything that happens to a director.
type Input interface{ input() }

type (
	// Tick is time: it comes every H, and no later than the next H.
	Tick struct{ Eligible bool } // whether this director could lead: it sees the switch, its loops turn
	// Said is a voter's or the rival's answer, or the rival's question.
	Said struct {
		From To
		Message
	}
	// Campaign says that somebody wants this director in charge now.
	Campaign struct{ Force bool } // Force: an operator has made sure that the rival is off
	// Drain says that authority is about to be given back.
	Drain struct{}
	// Resign gives it back: all that was begun has ended, or must be left.
	Resign struct{}
)

func (Tick) input()     {}
func (Said) input()     {}
func (Campaign) input() {}
func (Drain) input()    {}
func (Resign) input()   {}

// Step takes in what happens, and says what is to be sent.
func (d Director) Step(c Config, in Input, now Instant) (Director, []Send) {
	d = d.age(c, now)
	switch in := in.(type) {
	case Tick:
		d.Able = in.Eligible
		d = d.settle(c, now).asks(c, now)
		return d, d.round(c, now)
	case Said:
		return d.said(c, in, now)
	case Campaign:
		d = d.campaign(c, in.Force, now).asks(c, now)
		return d, d.round(c, now)
	case Drain:
		if d.Phase == Active {
			d = d.enter(Draining, now)
		}
	case Resign:
		return d.resign(c, now)
	}
	return d, nil
}

func (d Director) enter(p Phase, now Instant) Director {
	if d.Phase != p {
		d.Phase, d.Since = p, now
	}
	return d
}

// forget drops what was gathered for an epoch.
func (d Director) forget() Director {
	d.Epoch, d.Promise, d.Guard, d.Without = 0, 0, 0, None
	d.Acks, d.Free, d.Polled, d.Bound = [MaxVoters]Instant{}, [MaxVoters]Instant{}, [MaxVoters]Instant{}, [MaxVoters]bool{}
	return d
}

// age lets pass what time ends by itself, before anything else is looked at.
func (d Director) age(c Config, now Instant) Director {
	// Until then what it may have promised before has lapsed, and the last
	// fence of whoever it promised that to has arrived or died.
	if d.Phase == Boot && now.Sub(d.Since) >= c.LV+c.G {
		d = d.enter(Passive, now)
	}
	if d.Phase.Holds() {
		if basis, _ := d.Authority(c, now); basis == None {
			d = d.forget().enter(Linger, now)
			d.Asked = now
		}
	}
	if d.Phase == Activating && now >= d.Guard {
		d = d.enter(Active, now)
	}
	return d
}

// settle decides what a candidate has come to.
func (d Director) settle(c Config, now Instant) Director {
	switch {
	case !d.Phase.seeks() || d.Able && now < d.Until:
		return d
	case d.Able && d.Without == Forced && d.called(c, now):
		return d.assume(c, Forced, now)
	case d.Phase == Candidate && (!d.Able || !d.called(c, now) || d.hopeless(c)):
		return d.forget().enter(Passive, now)
	case !d.Able:
		return d
	case d.Epoch == 0 && (d.electable(c, now) || d.dependsOnRival(c, now)):
		d.Epoch = Next(d.Seen, c.Side)
	case c.Alone && d.isolated(c, now):
		return d.assume(c, Assumed, now)
	}
	return d
}

// called reports whether somebody has called for this director lately.
func (d Director) called(c Config, now Instant) bool { return now.Sub(d.Asked) < c.LV+c.LD }

// hopeless reports whether so many voters hold another's live lease that no
// majority is left. Whoever wants us in charge may ask again.
func (d Director) hopeless(c Config) bool {
	refused := 0
	for n := range c.Voters {
		if d.Bound[n] {
			refused++
		}
	}
	return refused > c.Voters-c.majority()
}

// electable reports whether a majority would grant, as far as is known.
func (d Director) electable(c Config, now Instant) bool {
	return now < c.lease(d.majorityRound(c, d.Free))
}

// dependsOnRival reports whether the rival is there to be asked and a majority
// of the voters is not.
func (d Director) dependsOnRival(c Config, now Instant) bool {
	return d.Heard != 0 && now < c.lease(d.Heard) && now >= c.lease(d.majorityRound(c, d.Polled)) && now.Sub(d.Since) >= c.H
}

// isolated reports whether nobody has answered for so long that whatever was
// leased to another has lapsed. It asks all the time, whatever its phase, so that
// this is known when it matters, and begins anew when it was not there to ask: what
// it would have heard meanwhile it cannot know.
func (d Director) isolated(c Config, now Instant) bool {
	return d.Deserted != 0 && d.asking(c, now) && now.Sub(d.Deserted) >= c.LV
}

// asking reports whether the last round was no longer ago than one may be late.
func (d Director) asking(c Config, now Instant) bool { return now.Sub(d.Round) <= 2*c.H }

// asks notes a round in which all are asked.
func (d Director) asks(c Config, now Instant) Director {
	if !c.Alone {
		return d
	}
	if d.Deserted == 0 || !d.asking(c, now) {
		d.Deserted = now
	}
	d.Round = now
	return d
}

// assume takes authority without proof.
func (d Director) assume(c Config, basis Basis, now Instant) Director {
	d.Epoch, d.Without = max(d.Epoch, Next(d.Seen, c.Side)), basis
	return d.activate(c, now)
}

func (d Director) activate(c Config, now Instant) Director {
	d.Guard, d.Seen = now.Add(c.G), max(d.Seen, d.Epoch)
	return d.enter(Activating, now)
}

// round is what is asked every H: whoever seeks authority asks first, so that
// no voter follows an epoch that comes to nothing, and then asks for it;
// whoever has it, renews it; and the rival always hears of us. One that may go on
// alone always asks, see isolated.
func (d Director) round(c Config, now Instant) []Send {
	ask := Message{Kind: Query, Epoch: d.Seen, Round: now}
	if d.Phase.Holds() || d.Epoch != 0 && d.electable(c, now) {
		ask = Message{Kind: Lease, Epoch: d.Epoch, Round: now}
	}
	sends := make([]Send, 0, c.Voters+1)
	if d.Phase.seeks() || d.Phase.Holds() || c.Alone {
		for n := range c.Voters {
			if ask.Kind == Lease {
				ask.Nonce = d.Nonces[n]
			}
			sends = append(sends, Send{To(n), ask})
		}
	}
	return append(sends, Send{Rival, Message{Kind: Consent, Epoch: d.Seen, Asked: d.Epoch, Round: now, Role: d.Phase}})
}

// campaign begins to seek authority, or goes on. One that has promised to stay
// out stays out, unless the promise is about to end because of a release.
func (d Director) campaign(c Config, force bool, now Instant) Director {
	d.Asked = now
	if d.Phase == Passive && d.Until.Sub(now) <= c.F {
		d = d.forget().enter(Candidate, now)
	}
	if force && d.Phase.seeks() {
		d.Without = Forced
	}
	return d
}

// resign gives authority back: at once for this director, and for all who
// gave something to it as soon as its last order has arrived or died.
func (d Director) resign(c Config, now Instant) (Director, []Send) {
	if d.Epoch == 0 {
		return d, nil
	}
	end := Message{Kind: Release, Epoch: d.Epoch, Round: now}
	sends := make([]Send, 0, c.Voters+1)
	for n := range c.Voters {
		sends = append(sends, Send{To(n), end})
	}
	d.Promised, d.Until = 0, now.Add(c.LV) // whoever it is for has its chance, and nobody gives that back
	return d.forget().enter(Passive, now), append(sends, Send{Rival, end})
}

// said takes in what another one said.
func (d Director) said(c Config, in Said, now Instant) (Director, []Send) {
	if isAnswer := in.Kind == Ballot || in.Kind == Reply; isAnswer && in.Round > now {
		return d, nil // to nothing that this process asked
	}
	votes := in.Kind == Ballot && in.From >= 0 && int(in.From) < c.Voters
	if votes || in.From == Rival && in.Kind != Release { // which may come from its watchdog
		d.Deserted = 0
	}
	d = d.learn(in.Epoch, now)
	switch {
	case in.From == Rival && in.Kind == Consent:
		d.Heard = now
		return d.answer(c, in.Message, now)
	case in.From == Rival && in.Kind == Release:
		if in.Epoch == d.Promised && in.Round >= d.Vowed { // see Voter.release
			d.Until, d.Vowed = min(d.Until, now.Add(c.F)), in.Round
		}
	case in.From == Rival && in.Kind == Reply:
		d.Heard = max(d.Heard, in.Round)
		if in.Yes && d.wants(in.Message) {
			d.Promise = max(d.Promise, in.Round)
			d = d.proven(c, now)
		}
	case votes:
		return d.ballot(c, int(in.From), in.Message, now)
	}
	return d, nil
}

// learn notes a higher epoch. Whoever has authority under a lower one, or had
// it, has been succeeded, whatever its leases say and whatever it has begun to
// seek since; whoever seeks it must seek higher.
func (d Director) learn(e Epoch, now Instant) Director {
	if e <= d.Seen {
		return d
	}
	d.Seen = e
	switch {
	case d.Phase == Linger && e.Side() != d.Epoch.Side():
		d = d.forget().enter(Passive, now)
	case e <= d.Epoch:
	case d.Phase.Holds() || d.Phase == Linger:
		d = d.forget().enter(Passive, now)
	case d.Epoch != 0:
		without := d.Without
		d = d.forget()
		d.Without = without
	}
	return d
}

// wants reports whether an answer is to what is sought or held now.
func (d Director) wants(m Message) bool {
	return d.Epoch != 0 && m.Asked == d.Epoch && (d.Phase.seeks() || d.Phase.Holds())
}

// answer meets the rival's question.
func (d Director) answer(c Config, m Message, now Instant) (Director, []Send) {
	promises := d.promises(c, m, now)
	if promises {
		d.Promised, d.Vowed, d.Until = m.Asked, m.Round, now.Add(c.LV)
		d.Seen = max(d.Seen, m.Asked)
	}
	return d, []Send{{Rival, Message{Kind: Reply, Epoch: d.Seen, Asked: m.Asked, Round: m.Round, Yes: promises, Role: d.Phase}}}
}

// promises decides on a promise. It is given only by one that is passive, for
// F at least so that no order it gave before is under way, and that knows of
// no higher epoch than it promises for, nor that this one was given back.
func (d Director) promises(c Config, m Message, now Instant) bool {
	switch {
	case m.Asked == 0 || m.Asked < d.Seen || m.Asked.Side() == c.Side:
		return false
	case d.Phase != Passive || now.Sub(d.Since) < c.F:
		return false
	}
	return m.Asked != d.Promised || m.Round >= d.Vowed
}

// ballot takes in a voter's answer. The one that makes a majority of those
// that would grant is not waited on for the next round.
func (d Director) ballot(c Config, voter int, m Message, now Instant) (Director, []Send) {
	if m.Round >= d.Polled[voter] { // one that was overtaken says nothing new of the voter
		d.Polled[voter], d.Nonces[voter], d.Free[voter] = m.Round, m.Nonce, 0
		rivals := m.Epoch.Side() != c.Side
		d.Bound[voter] = rivals && m.Remaining > c.F
		if m.Remaining == 0 || !rivals {
			d.Free[voter] = m.Round
		}
	}
	if m.Yes && d.wants(m) {
		d.Acks[voter] = max(d.Acks[voter], m.Round)
		return d.proven(c, now), nil
	}
	if d.Phase.seeks() && d.Epoch == 0 {
		if d = d.settle(c, now); d.Epoch != 0 {
			return d, d.round(c, now)
		}
	}
	return d, nil
}

// proven makes a holder of one whose proof has come. Whoever had authority
// without proof has it with proof from now on, and may lose it.
func (d Director) proven(c Config, now Instant) Director {
	if proof := max(c.lease(d.majorityRound(c, d.Acks)), c.lease(d.Promise)); now >= proof {
		return d
	}
	d.Without = None
	if !d.Phase.seeks() || now < d.Until {
		return d
	}
	return d.activate(c, now)
}

// Promises reports whether d has promised to stay out, and for how long yet.
func (d Director) Promises(now Instant) time.Duration { return max(0, d.Until.Sub(now)) }
