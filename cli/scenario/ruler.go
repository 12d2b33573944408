package scenario

import (
	"context"
	"fmt"
	"slices"
	"time"

	tandemv1 "tandem/api/tandem/v1"
)

// PairFloor is a floor with two directors.
type PairFloor interface {
	Floor
	// Mute has what from sends to another one vanish on the way, or no more.
	Mute(ctx context.Context, from, to string, undo bool) error
	// Members are the names of its directors, the preferred one first, of the
	// watchdogs beside them, of the recorders, and of the switch.
	Members() Members
	// Directors is how each director sees itself, in their order; nil for one
	// that does not answer.
	Directors(ctx context.Context) []*tandemv1.StatusResponse
	// Obedience is whom the recorders have obeyed so far.
	Obedience() ([]Obeys, error)
	// Reigns are the times at which a director began to lead.
	Reigns() ([]time.Time, error)
	// Dialled is how many dialogs the switch was asked for, and asked to end, so far.
	Dialled(ctx context.Context) (invites, byes int, err error)
}

// Members are a floor's daemons by name.
type Members struct {
	Directors, Watchdogs [2]string
	Recorders            []string
	Switch               string
}

// ruler plays a scenario about directors.
type ruler struct {
	*player
	floor PairFloor
	pair  *Pair
	first int      // index of the director in charge when it begins
	voter []string // the recorder that is the victim, if one is
	lead  int      // index of the one in charge when the fault begins
	epoch uint64   // its epoch
}

// playPair plays such a scenario from begin to end.
func (p *player) playPair() error {
	floor, ok := p.floor.(PairFloor)
	if !ok {
		return fmt.Errorf("this floor has one director")
	}
	r := &ruler{player: p, floor: floor, pair: p.fault.Scenario.Pair}
	for _, step := range []func() error{r.await, p.begin, r.prepare, r.strike, r.mend} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// await waits for one director in charge that everybody is behind, and notes
// which one and its epoch.
func (r *ruler) await() error {
	ok := r.until(r.pace.Attach, func() (ok bool) {
		r.lead, r.epoch, ok = r.settled()
		return ok
	})
	if !ok && r.ctx.Err() == nil {
		return fmt.Errorf("within %v: no director leads with the other one behind it", r.pace.Attach)
	}
	return r.ctx.Err()
}

// settled is who leads, if one does, with all the proof there can be.
func (r *ruler) settled() (leader int, epoch uint64, ok bool) {
	leader = -1
	for n, s := range r.floor.Directors(r.ctx) {
		switch d := director(s); {
		case d.GetRole() == "active" && d.GetBasis() == "quorum+consent" && leader < 0:
			leader, epoch = n, d.GetEpoch()
		case d.GetRole() != "passive":
			return 0, 0, false
		}
	}
	return leader, epoch, leader >= 0
}

// prepare does what comes before the fault.
func (r *ruler) prepare() error {
	r.voter = r.fault.Victims
	if err := r.await(); err != nil {
		return err
	}
	r.first = r.lead
	if err := r.do(r.pair.Before); err != nil {
		return err
	}
	if err := r.await(); err != nil {
		return err
	}
	ids, err := r.floor.Channels(r.ctx, "")
	for _, id := range ids {
		r.fault.Channels[id] = true
	}
	return err
}

// strike does the fault and waits for what comes of it.
func (r *ruler) strike() error {
	wanted := r.name(r.pair.Leads)
	rule := &Rule{Takeover: -1, Wanted: wanted, Stays: wanted == r.floor.Members().Directors[r.lead]}
	r.fault.Rule = rule
	legs, _ := r.floor.Legs(r.ctx)
	invites, byes, err := r.floor.Dialled(r.ctx)
	if err != nil {
		return err
	}
	r.say("%s, %d legs live", r.fault.Scenario.Text, legs)
	r.fault.At = time.Now()
	if err := r.do(r.pair.Fault); err != nil {
		return err
	}
	r.fault.Victims = r.struck()
	if err := r.succession(); err != nil {
		return err
	}
	r.rest(time.Until(r.fault.At.Add(r.pair.Watch)))
	r.rest(r.pace.Linger)
	rule.Leads = r.leads()
	s := r.status()
	rule.Alarmed = slices.ContainsFunc(s.GetAlarms(), func(a *tandemv1.Alarm) bool { return a.GetWhat() == r.pair.Alarm })
	nowInvites, nowByes, err := r.floor.Dialled(r.ctx)
	if err != nil {
		return err
	}
	rule.Invites, rule.Byes = nowInvites-invites, nowByes-byes
	reigns, err := r.floor.Reigns()
	for _, began := range reigns {
		if began.After(r.fault.At) {
			rule.Changes++
		}
	}
	return err
}

// succession waits until somebody of a later epoch is obeyed, unless nobody
// shall be, and until the floor is steady.
func (r *ruler) succession() error {
	var failed error
	r.until(r.pace.Steady, func() bool {
		var ok bool
		ok, failed = r.succeeded()
		return failed != nil || ok || r.fault.Rule.Stays
	})
	if failed != nil {
		return failed
	}
	if r.until(r.pace.Steady, func() bool { return steady(r.status(), false) }) {
		r.fault.Steady = time.Since(r.fault.At)
	}
	r.say("%s; %s", r.fault.Rule, summary(r.status()))
	return r.ctx.Err()
}

// succeeded notes how long it took until somebody of a later epoch was obeyed.
func (r *ruler) succeeded() (bool, error) {
	all, err := r.floor.Obedience()
	if err != nil {
		return false, err
	}
	first, ok := Succession(all, r.epoch)
	if ok {
		r.fault.Rule.Takeover = first.At.Sub(r.fault.At)
	}
	return ok, nil
}

// leads is who says that it is in charge, if only one does.
func (r *ruler) leads() string {
	var names []string
	for _, s := range r.floor.Directors(r.ctx) {
		if d := director(s); d.GetRole() == "active" {
			names = append(names, d.GetName())
		}
	}
	if len(names) != 1 {
		return ""
	}
	return names[0]
}

// mend ends the fault and waits until all is as it was, but for who leads.
func (r *ruler) mend() error {
	r.fault.HealedAt = time.Now()
	if err := r.do(r.pair.Heal); err != nil {
		return err
	}
	r.fault.Recovered = r.until(r.pace.Steady, func() bool {
		_, _, ok := r.settled()
		return ok && whole(r.status())
	})
	if r.ctx.Err() != nil {
		return r.ctx.Err()
	}
	if r.fault.Recovered {
		r.say("whole again %s after it was mended", milliseconds(time.Since(r.fault.HealedAt)))
	} else {
		r.say("not whole again: %s", summary(r.status()))
	}
	r.rest(r.pace.Linger)
	r.fault.Ended = time.Now()
	if _, err := r.succeeded(); err != nil { // whoever shall not be may be so yet
		return err
	}
	all, err := r.floor.Obedience()
	r.fault.Rule.Stale = Stale(all)
	return err
}

// do does steps in turn.
func (r *ruler) do(steps []Step) error {
	for _, s := range steps {
		for _, to := range r.names(s.To) {
			if err := r.step(s, to); err != nil {
				return fmt.Errorf("%s %s: %w", s.Do, to, err)
			}
		}
		r.rest(min(s.Then, r.pace.Pause))
	}
	return r.ctx.Err()
}

func (r *ruler) step(s Step, to string) error {
	if s.Do != Mute && s.Do != Unmute {
		return r.floor.Act(r.ctx, s.Do, to)
	}
	for _, from := range r.names(s.From) {
		if err := r.floor.Mute(r.ctx, to, from, s.Do == Unmute); err != nil {
			return err
		}
	}
	return nil
}

// name is the one that a part is; empty for none.
func (r *ruler) name(p Part) string {
	if names := r.names(p); len(names) == 1 {
		return names[0]
	}
	return ""
}

// names are those that a part is.
func (r *ruler) names(p Part) []string {
	m := r.floor.Members()
	switch p {
	case Leader:
		return []string{m.Directors[r.first]}
	case Standby:
		return []string{m.Directors[1-r.first]}
	case LeaderWatchdog:
		return []string{m.Watchdogs[r.first]}
	case StandbyWatchdog:
		return []string{m.Watchdogs[1-r.first]}
	case Voter:
		return r.voter
	case Switch:
		return []string{m.Switch}
	case Recorders:
		return m.Recorders
	case Everybody:
		return append(slices.Clone(m.Recorders), m.Switch, m.Directors[1-r.first])
	}
	return nil
}

// struck are the names of those that the fault was done to.
func (r *ruler) struck() []string {
	var names []string
	for _, s := range r.pair.Fault {
		if s.To != Everybody && s.To != Recorders && s.To != Switch {
			names = append(names, r.names(s.To)...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
