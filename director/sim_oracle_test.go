package director

import (
	"fmt"
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/director/provider"
	"tandem/internal/authority"
	"tandem/internal/call"
)

// ledger is what the oracles know of one director's process.
type ledger struct {
	epoch  authority.Epoch // of its last tenure
	basis  authority.Basis
	acting bool // past its guard, at the last look
}

// writing is an order on its way to the switch.
type writing struct {
	who   string
	epoch authority.Epoch
	at    time.Time // authority was looked at
}

func (s *sim) violated(rule, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.violatedLocked(rule, format, args...)
}

// violatedLocked notes a broken invariant; the first one ends the run.
func (s *sim) violatedLocked(rule, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.noteLocked("ORACLE", "%s: %s", rule, text)
	if s.broken == "" {
		s.broken = rule + ": " + text
	}
}

// look holds at this instant that no two directors have the right to act, but
// where one of them has it without proof (I1), and notes who is past its guard.
func (s *sim) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookLocked()
}

func (s *sim) lookLocked() {
	var acting []*process
	unproven := false
	for _, at := range s.directors {
		p := at.now
		if p == nil || p.director == nil {
			continue
		}
		t, now := p.director.right.held.Load(), at.instant()
		p.orders.acting = t != nil && t.holds(now) && now >= t.from
		if t != nil && t.holds(now) {
			p.orders.epoch = authority.Epoch(t.epoch)
			if v := p.director.pair.elector.view.Load(); v.basis != authority.None {
				p.orders.basis = v.basis
			}
			if p.orders.basis == authority.Assumed || p.orders.basis == authority.Forced {
				unproven = true
				s.unproven[p.orders.epoch] = true
			}
		}
		if p.orders.acting {
			acting = append(acting, p)
			if p.orders.epoch > s.acted {
				s.acted, s.epochs = p.orders.epoch, s.epochs+1
			}
		}
	}
	if len(acting) > 1 && !unproven {
		s.violatedLocked("I1", "%s acts under epoch %d and %s under epoch %d", acting[0].place.name, acting[0].orders.epoch, acting[1].place.name, acting[1].orders.epoch)
	}
}

// obeyed holds that a recorder obeys nobody while one of a higher epoch acts (I3, I4).
func (s *sim) obeyed(r *recording, order *tandemv1.Order, fence bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookLocked()
	s.orders++
	epoch := authority.Epoch(order.GetEpoch())
	seen, holder := r.keeper.Seen()
	switch {
	case seen != epoch || holder != order.GetDirector():
		s.violatedLocked("I3", "%s obeys epoch %d of %s, it has leased %d to %s", r.name, epoch, order.GetDirector(), seen, holder)
	case epoch < s.acted && !s.unproven[s.acted] && !s.unproven[epoch]:
		s.violatedLocked("I4", "%s obeys epoch %d of %s (fence %v) while epoch %d acts", r.name, epoch, order.GetDirector(), fence, s.acted)
	}
}

// checked notes that a director has looked at its authority, to tell the switch something.
func (s *sim) checked(p *process) writing {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookLocked()
	return writing{p.place.name, authority.Epoch(p.director.right.epoch()), time.Now()}
}

// switched holds that no order reaches the switch while one of a higher epoch
// acts, if it was written in time and did not travel for longer than F (I5).
func (s *sim) switched(w writing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookLocked()
	s.orders++
	if w.epoch < s.acted && !s.unproven[s.acted] && !s.unproven[w.epoch] && time.Since(w.at) <= s.timing.Gate+s.timing.F {
		s.violatedLocked("I5", "the switch obeys epoch %d of %s, written %v ago, while epoch %d acts", w.epoch, w.who, time.Since(w.at), s.acted)
	}
}

// released holds that nobody has an epoch at the moment at which it is released
// because its process has ended (I8). When that arrives the next process may
// have come to the same epoch: a voter tells the two apart.
func (s *sim) released(epoch authority.Epoch, by string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range s.directors {
		if p := at.now; p != nil && p.alive() {
			if t := p.director.right.held.Load(); t != nil && authority.Epoch(t.epoch) == epoch {
				s.violatedLocked("I8", "%s releases epoch %d, and process %d of %s that has it lives", by, epoch, p.pid, at.name)
			}
		}
	}
}

// unrest says what is not yet as it should be once all faults are over, "" for nothing.
func (s *sim) unrest() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookLocked()
	var leader *place
	for _, at := range s.directors {
		p := at.now
		if p == nil || p.director == nil {
			return at.name + " does not run"
		}
		switch v := p.director.pair.elector.view.Load(); {
		case p.orders.acting && leader != nil:
			return "two directors act"
		case p.orders.acting && v.basis != authority.QuorumAndConsent:
			return fmt.Sprintf("%s acts by %s", at.name, v.basis)
		case p.orders.acting:
			leader = at
		case v.director.Phase != authority.Passive:
			return fmt.Sprintf("%s is %s", at.name, v.director.Phase)
		}
	}
	switch {
	case leader == nil:
		return "nobody acts"
	case leader != s.directors[0]:
		return leader.name + " has not handed back"
	}
	return s.unattached()
}

// unattached names a channel that is not attached exactly once where exactly
// one recorder holds it. The simulation's mutex is held.
func (s *sim) unattached() string {
	for _, a := range s.exchange.agents {
		for _, ch := range a.channels {
			if why := s.astray(ch.ID, a.on); why != "" {
				return why
			}
		}
	}
	return ""
}

// astray is what is wrong with one channel.
func (s *sim) astray(id call.ChannelID, on bool) string {
	held, dialog, at := 0, "", provider.Endpoint{}
	for _, b := range s.recorders {
		if h, e := b.holds(string(id)); h != nil {
			held++
			dialog, at = string(h.GetDialog()), e
		}
	}
	d := s.exchange.dialogs[id]
	switch {
	case !on && (held > 0 || d != nil):
		return fmt.Sprintf("%s: nobody is logged on, %d recorders hold it, attached %v", id, held, d != nil)
	case !on:
	case held != 1:
		return fmt.Sprintf("%s: %d recorders hold it", id, held)
	case d == nil:
		return fmt.Sprintf("%s is not attached", id)
	case d.to != at:
		return fmt.Sprintf("%s: the switch sends to %v, it is held at %v", id, d.to, at)
	case dialog == "":
		return fmt.Sprintf("%s: its recorder keeps no dialog", id)
	}
	return ""
}
