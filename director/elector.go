package director

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/authority"
)

// wooing is how many times faster than H a candidate asks: every round it
// waits for is one in which nobody leads.
const wooing = 4

// lookEvery is in how many rounds a passive director asks the voters once.
const lookEvery = 8

// office is what becomes of a director when its phase changes.
type office interface {
	// enthrone has the floor fence its recorders for an epoch, and orders allowed from an instant on.
	enthrone(epoch uint64)
	// lead has it act.
	lead(epoch uint64)
	// abdicate ends all that it does for the epoch; media goes on.
	abdicate()
}

// elector keeps a director's authority: it owns the authority.Director, asks
// the voters and the rival in every round, and says to the office what became
// of it. One goroutine, run, does all of it; the other methods may be called
// from any.
type elector struct {
	cfg    authority.Config
	right  *right
	clock  func() authority.Instant
	spread func(most time.Duration) time.Duration // see world
	voters []respondent                           // the first cfg.Voters of them vote; all are leased
	rival  respondent
	office office
	able   func() (bool, string) // whether this director could lead, and why not
	log    *slog.Logger

	inbox chan func(now authority.Instant)
	done  chan struct{}
	view  atomic.Pointer[view]

	director  authority.Director
	why       string                  // it is not able
	wanted    cause                   // of the last change that somebody wanted
	nonces    map[authority.To]uint64 // of recorders without a vote: what the next lease repeats
	heir      authority.Instant       // until then it seeks, again if it has to, what was left to it
	history   history
	rounds    uint64
	takeovers uint64 // times that it became active
}

// respondent is a voter or the rival. ask does not wait; an answer, if there
// is one, comes to heard.
type respondent interface {
	ask(m authority.Message, heard func(authority.Message))
}

// cause is who wanted something, and why.
type cause struct{ actor, reason string }

// view is what others may know of the elector at any time.
type view struct {
	director  authority.Director
	basis     authority.Basis
	remaining time.Duration
	able      bool
	why       string
	since     time.Time // of the phase
	elected   time.Time // a majority of the voters was last behind it, or authority began
	rounds    uint64
	takeovers uint64
}

// epoch is the one sought or held, or the highest that was heard of.
func (v *view) epoch() authority.Epoch {
	if v.director.Epoch != 0 {
		return v.director.Epoch
	}
	return v.director.Seen
}

func newElector(cfg authority.Config, r *right, w world, able func() (bool, string), log *slog.Logger) *elector {
	e := &elector{
		cfg: cfg, right: r, clock: w.clock, spread: w.spread, able: able, log: log,
		inbox: make(chan func(authority.Instant), inboxSize), done: make(chan struct{}), nonces: make(map[authority.To]uint64), director: authority.StartDirector(w.clock()),
	}
	e.publish(w.clock())
	return e
}

// run keeps the authority until ctx ends; it does not give it back.
func (e *elector) run(ctx context.Context) error {
	defer close(e.done)
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			able, why := e.able()
			e.rounds++
			e.why = why
			e.step(authority.Tick{Eligible: able}, e.clock())
			e.persist()
			e.look()
			tick.Reset(e.pause())
		case do := <-e.inbox:
			do(e.clock())
		}
	}
}

// look asks the voters now and then what a passive director has no other
// reason to ask them: people want to see it, and voters tell whom they hear.
func (e *elector) look() {
	d := e.director
	if e.rounds%lookEvery != 0 || d.Phase != authority.Passive && d.Phase != authority.Boot {
		return
	}
	for n := range e.voters {
		e.send(authority.Send{To: authority.To(n), Message: authority.Message{Kind: authority.Query, Epoch: d.Seen, Round: e.clock()}})
	}
}

// pause is the time to the next round: up to a quarter less than H, so that
// rounds of several do not keep meeting.
func (e *elector) pause() time.Duration {
	switch e.director.Phase {
	case authority.Candidate:
		return e.cfg.H / wooing
	case authority.Activating:
		return max(time.Millisecond, min(e.cfg.H, e.director.Guard.Sub(e.clock())))
	}
	return e.cfg.H - e.spread(e.cfg.H/4)
}

// step takes one input in, and carries out what follows. What is to be answered
// to the rival's question it returns.
func (e *elector) step(in authority.Input, now authority.Instant) (reply authority.Message) {
	before := e.director
	after, sends := before.Step(e.cfg, in, now)
	e.director = after
	e.publish(now)
	for _, s := range sends {
		if s.Kind == authority.Reply {
			reply = s.Message
			continue
		}
		e.send(s)
	}
	e.changed(before, after)
	return reply
}

// publish makes the authority that there is now the right to initiate.
func (e *elector) publish(now authority.Instant) {
	d := e.director
	basis, until := d.Authority(e.cfg, now)
	if basis == authority.None {
		e.right.held.Store(nil)
	} else {
		e.right.held.Store(&tenure{epoch: uint64(d.Epoch), from: d.Guard, until: until})
	}
	v := &view{director: d, basis: basis, able: d.Able, why: e.why, since: time.Now(), rounds: e.rounds, takeovers: e.takeovers}
	if basis != authority.None {
		v.remaining = until.Sub(now)
	}
	v.elected = v.since
	if old := e.view.Load(); old != nil {
		if old.director.Phase == d.Phase {
			v.since = old.since
		}
		if basis != authority.QuorumAndConsent && basis != authority.Quorum && old.basis != authority.None {
			v.elected = old.elected
		}
	}
	e.view.Store(v)
}

// send asks one other; its answer comes back as an input.
func (e *elector) send(s authority.Send) {
	if s.To == authority.Rival {
		e.rival.ask(s.Message, func(m authority.Message) { e.hear(authority.Rival, m) })
		return
	}
	e.voters[s.To].ask(s.Message, func(m authority.Message) { e.hear(s.To, m) })
	if int(s.To) == e.cfg.Voters-1 && s.Kind != authority.Query {
		for n := e.cfg.Voters; n < len(e.voters); n++ {
			e.sendVoteless(authority.To(n), s.Message)
		}
	}
}

// sendVoteless says to a recorder without a vote what voters are told. It is leased
// by whoever is in charge, so that its orders need no fence each, and by nobody
// who only seeks to be: one without a vote would follow an epoch that comes to nothing.
func (e *elector) sendVoteless(to authority.To, m authority.Message) {
	if m.Nonce = e.nonces[to]; m.Kind == authority.Lease && !e.director.Phase.Holds() {
		m.Kind = authority.Query
	}
	e.voters[to].ask(m, func(answer authority.Message) {
		e.post(func(now authority.Instant) {
			e.nonces[to] = answer.Nonce
			e.step(authority.Said{From: to, Message: answer}, now)
		})
	})
}

func (e *elector) hear(from authority.To, m authority.Message) {
	e.post(func(now authority.Instant) { e.step(authority.Said{From: from, Message: m}, now) })
}

// post has run do something; it waits only while a thousand others do.
func (e *elector) post(do func(now authority.Instant)) {
	select {
	case e.inbox <- do:
	case <-e.done:
	}
}

// call is post, and waits until it is done, or ctx ends.
func (e *elector) call(ctx context.Context, do func(now authority.Instant)) error {
	did := make(chan struct{})
	ask := func(now authority.Instant) {
		do(now)
		close(did)
	}
	select {
	case e.inbox <- ask:
	case <-e.done:
		return context.Canceled
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-did:
		return nil
	case <-e.done:
		return context.Canceled
	case <-ctx.Done():
		return ctx.Err()
	}
}

// saw notes the epoch of another director that a recorder follows, as somebody without a vote.
func (e *elector) saw(epoch uint64) {
	e.hear(authority.To(e.cfg.Voters), authority.Message{Epoch: authority.Epoch(epoch)})
}

// repeat tells the office again what it may have missed: one of before.
func (e *elector) repeat() {
	e.post(func(authority.Instant) {
		d := e.director
		if d.Phase.Holds() {
			e.office.enthrone(uint64(d.Epoch))
		}
		if d.Phase == authority.Active {
			e.office.lead(uint64(d.Epoch))
		}
	})
}

// inherit seeks authority that the rival has given back. Voters may hear that it
// was given back after they hear who seeks it, and refuse; so it is sought again
// for as long as a lease of the rival may have lasted.
func (e *elector) inherit(c cause) {
	e.campaign(c, false)
	e.post(func(now authority.Instant) { e.heir = now.Add(e.cfg.LV) })
}

// persist seeks again what was left to this director, if it was refused.
func (e *elector) persist() {
	now, phase := e.clock(), e.director.Phase
	if phase.Holds() {
		e.heir = now
	}
	if phase == authority.Passive && now < e.heir {
		e.step(authority.Campaign{}, now)
	}
}

// campaign seeks authority because somebody wants it.
func (e *elector) campaign(c cause, force bool) {
	e.post(func(now authority.Instant) {
		if !e.director.Phase.Holds() {
			e.wanted = c
		}
		e.step(authority.Campaign{Force: force}, now)
	})
}

// changed tells the office what became of the director, and remembers it.
func (e *elector) changed(before, after authority.Director) {
	if before.Phase == after.Phase && before.Epoch == after.Epoch {
		return
	}
	held, holds := before.Phase.Holds() || before.Phase == authority.Linger, after.Phase.Holds() || after.Phase == authority.Linger
	epoch := uint64(after.Epoch)
	switch {
	case after.Phase == authority.Activating && (before.Phase != authority.Activating || before.Epoch != after.Epoch):
		e.office.enthrone(epoch)
	case after.Phase == authority.Active && before.Phase == authority.Activating:
		e.takeovers++
		e.office.lead(epoch)
	case held && !holds:
		e.office.abdicate()
	}
	if before.Phase != after.Phase {
		e.record(before, after)
	}
}

// record writes one change of role down.
func (e *elector) record(before, after authority.Director) {
	v := e.view.Load()
	change := &tandemv1.RoleChange{
		At: stamp(time.Now()), Director: e.right.director, From: before.Phase.String(), To: after.Phase.String(),
		Epoch: uint64(max(before.Epoch, after.Epoch)), Basis: v.basis.String(), Actor: e.wanted.actor, Reason: e.wanted.reason,
	}
	switch {
	case after.Phase == authority.Linger:
		change.Actor, change.Reason = "", "neither the voters nor the peer renewed its authority"
	case before.Phase.Holds() && after.Phase == authority.Passive && after.Seen > before.Epoch:
		change.Actor, change.Reason = "", "another director was seen with a newer epoch"
	case before.Phase == authority.Boot:
		change.Actor, change.Reason = "", "started"
	}
	e.history.add(change)
	e.log.Info("role", "from", change.From, "to", change.To, "epoch", change.Epoch, "basis", change.Basis, "actor", change.Actor, "reason", change.Reason)
}

// history is the last changes of role. It belongs to the elector's goroutine.
type history struct{ changes []*tandemv1.RoleChange }

// longest is how many changes are remembered.
const longest = 500

func (h *history) add(c *tandemv1.RoleChange) {
	if len(h.changes) == longest {
		h.changes = h.changes[1:]
	}
	h.changes = append(h.changes, c)
}
