package authority

import (
	"strings"
	"testing"
)

// sabotages each break one rule, around the production code. In the same
// bounds, as deep, the rules as they are must be found to hold.
var sabotages = []struct {
	name   string
	breaks string        // any of these
	bounds func() site   // from a cold start
	begin  func(s *site) // another start; nil: cold
	lead   []event       // what happens first, so that the search need not find it
	how    func(s *site)
}{
	{"watchdog promotes whom it likes", "I1", bounds(tiny, 1, 2, 1, budget{}), nil, nil, promoteAtOnce},
	{"voter grants over a live lease", "I1", bounds(tiny, 1, 2, 1, budget{}), nil, nil, func(s *site) {
		s.answer = func(t Timing, v Voter, m Message) (Voter, Message) {
			if m.Kind == Lease {
				v.Until = 0
			}
			return v.Step(t, m, noon)
		}
	}},
	{"half is as good as a majority", "I1", bounds(tiny, 2, 2, 1, budget{}), nil, nil, hearing(func(c Config, d Director, said Said) (Director, Said) {
		if said.Kind == Ballot && said.Yes { // it counts for the other voter, too
			d, _ = d.Step(c, Said{1 - said.From, said.Message}, noon)
		}
		return d, said
	})},
	{"candidate promises to stay out", "I1", bounds(tiny, 1, 2, 1, budget{}), nil, nil, promiseAsCandidate},
	{"restarted voter forgets its lease", "I1", bounds(tiny, 1, 2, 1, budget{restarts: 1}), nil, nil, func(s *site) {
		s.startVoter = func(_ Timing, kept Epoch) Voter { return Voter{Epoch: kept} }
	}},
	{"no margin for drift", "I1", bounds(slipping(), 1, 2, 2, budget{slips: 1}), linked, nil, func(s *site) { s.LD = s.LV }},
	{"lease counted from the answer's arrival", "I1", bounds(tiny, 1, 1, 1, budget{}), nil, nil, func(s *site) {
		s.late = true
		hearing(func(_ Config, d Director, said Said) (Director, Said) {
			if said.Yes {
				said.Round = noon
			}
			return d, said
		})(s)
	}},
	{"released at once", "I4 I5", bounds(tiny, 1, 2, 2, budget{transfers: 1}), unlinked, nil, func(s *site) {
		s.answer = func(t Timing, v Voter, m Message) (Voter, Message) {
			v, answer := v.Step(t, m, noon)
			if m.Kind == Release && m.Epoch == v.Epoch {
				v.Until = 0
			}
			return v, answer
		}
	}},
	{"director restarts without silence", "I1", bounds(tiny, 1, 2, 1, budget{restarts: 1}), nil, nil, func(s *site) {
		s.start = func() Director { return Director{Phase: Passive, Since: noon.Add(-s.F)} }
	}},
	{"director restarts with a silence of LV only", "I1", bounds(Timing{H: 1, LD: 2, LV: 3, F: 3, G: 2}, 1, 1, 2, budget{restarts: 1}), consentOnly, []event{{verb: restart, who: 0}, {verb: passes}, {verb: passes}, {verb: passes}}, shortSilence},
	{"sidecar releases for one that is slow", "I1", bounds(tiny, 1, 2, 2, budget{restarts: 1}), linked, nil, func(s *site) { s.slowIsDead = true }},
	{"answers do not name their round", "I1", bounds(tiny, 1, 1, 1, budget{}), nil, nil, func(s *site) { s.blind, s.late = true, true }},
	{"release voids a promise of any epoch", "I1", bounds(tiny, 1, 2, 3, budget{transfers: 1}), unlinked, []event{{verb: resigns, mask: toRival}, {verb: passes}, {verb: passes}, {verb: passes}, {verb: wants}, {verb: ticks, mask: toRival}}, hearing(func(_ Config, d Director, said Said) (Director, Said) {
		if said.Kind == Release {
			said.Epoch, said.Round = d.Promised, d.Vowed
		}
		return d, said
	})},
	{"release counts whenever it was sent", "I1", bounds(tiny, 1, 2, 2, budget{restarts: 1}), consentOnly, []event{{verb: restart, who: 1, mask: toRival}, {verb: passes}, {verb: passes}, {verb: passes}, {verb: passes}, {verb: ticks, who: 1}}, hearing(func(_ Config, d Director, said Said) (Director, Said) {
		if said.Kind == Release {
			said.Round = d.Vowed
		}
		return d, said
	})},
	{"recorder obeys whoever orders", "I2 I3", bounds(tiny, 1, 2, 1, budget{}), nil, nil, func(s *site) {
		s.obey = func(t Timing, v Voter, o Order) (Voter, Refusal) {
			if o.Fence {
				return v.Obey(t, o, noon)
			}
			return v, Obeyed
		}
	}},
	{"new holder acts at once", "I4 I5", bounds(slipping(), 1, 2, 2, budget{slips: 1}), linked, nil, func(s *site) { s.G = 0 }},
	{"checked order written whenever", "I5", bounds(tiny, 1, 2, 2, budget{}), linked, nil, func(s *site) { s.noGate = true }},
	{"old order obeyed", "I3 I4", bounds(tiny, 1, 2, 1, budget{}), nil, nil, func(s *site) {
		s.noNonce = true
		s.obey = func(t Timing, v Voter, o Order) (Voter, Refusal) {
			o.Nonce = v.Nonce(t, noon)
			return v.Obey(t, o, noon)
		}
	}},
	{"promise right after giving way", "I4 I5", bounds(tiny, 1, 2, 2, budget{transfers: 1}), unlinked, nil, hearing(func(c Config, d Director, said Said) (Director, Said) {
		if d.Phase == Passive {
			d.Since = noon.Add(-c.F)
		}
		return d, said
	})},
}

// toRival keeps, of what a director sends to one voter and its rival, or its
// sidecar, only what is for the rival.
const toRival = 2

// hearing changes what a director hears, or what it is when it hears it.
func hearing(change func(c Config, d Director, said Said) (Director, Said)) func(s *site) {
	return func(s *site) {
		s.step = func(c Config, d Director, in Input) (Director, []Send) {
			if said, is := in.(Said); is {
				d, in = change(c, d, said)
			}
			return d.Step(c, in, noon)
		}
	}
}

func promoteAtOnce(s *site) {
	s.step = func(c Config, d Director, in Input) (Director, []Send) {
		if _, promote := in.(Campaign); !promote || d.Phase != Passive {
			return d.Step(c, in, noon)
		}
		d = d.forget().enter(Active, noon)
		d.Epoch = Next(d.Seen, c.Side)
		d.Seen, d.Promise = d.Epoch, noon
		return d, nil
	}
}

func promiseAsCandidate(s *site) {
	s.step = func(c Config, d Director, in Input) (Director, []Send) {
		said, is := in.(Said)
		if !is || said.Kind != Consent || said.Asked == 0 || d.Phase != Candidate {
			return d.Step(c, in, noon)
		}
		_, sends := d.enter(Passive, noon.Add(-c.F)).Step(c, in, noon)
		return d, sends
	}
}

func shortSilence(s *site) {
	s.step = func(c Config, d Director, in Input) (Director, []Send) {
		if d.Phase == Boot && noon.Sub(d.Since) >= c.LV {
			d.Since = d.Since.Add(-c.G)
		}
		return d.Step(c, in, noon)
	}
}

// linked begins with a healthy pair that A leads.
func linked(s *site) { s.root = s.warm(A, play{}) }

// unlinked begins with A leading, and B not hearing it.
func unlinked(s *site) { s.root = s.warm(A, play{noRival: true}) }

// consentOnly begins with B leading, and no voter having heard of it.
func consentOnly(s *site) { s.root = s.warm(B, play{noVoters: true}) }

// TestSabotage breaks one rule at a time, and wants the search to find what
// comes of it, and to find nothing as deep when the rule stands.
func TestSabotage(t *testing.T) {
	if raced {
		t.Skip("one goroutine, and too slow")
	}
	for i := range sabotages {
		c := &sabotages[i]
		t.Run(c.name, func(t *testing.T) {
			s := c.bounds()
			if c.begin != nil {
				c.begin(&s)
			}
			told := s.lead(t, c.lead)
			honest := s
			c.how(&s)
			f := search(&s, bound{worlds: 600_000}, nil)
			f.trace = append(told, f.trace...)
			f.report(t, c.name)
			if f.broken == "" || !strings.Contains(c.breaks, f.broken[:2]) {
				t.Fatalf("%q, want one of %s", f.broken, c.breaks)
			}
			if f = search(&honest, bound{depth: f.depth}, nil); f.broken != "" {
				f.report(t, "without sabotage")
				t.Errorf("broken without sabotage")
			}
		})
	}
}

// lead has some events happen before the search begins, and tells of them.
func (s *site) lead(t *testing.T, events []event) (told []string) {
	t.Helper()
	for _, e := range events {
		var next *world
		s.next(&s.root, func(other event, n world, _ string) {
			if other == e {
				next = &n
			}
		})
		if next == nil {
			t.Fatalf("%s cannot happen in\n%s", s.tell(&s.root, e), s.describe(&s.root))
		}
		told = append(told, s.tell(&s.root, e))
		s.root = *next
	}
	return told
}
