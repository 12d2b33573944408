package authority

import "testing"

// play is a site on which nothing is lost or late any more: who is asked
// answers at once, and every clock shows the same. Unlike in a world, time
// goes on, and directors know only what they are told.
type play struct {
	*site
	world
	now               Instant
	noRival, noVoters bool // questions to them are lost after all
}

// say has a director take something in, and carries the talk on until nobody
// has anything to say.
func (p *play) say(d int, in Input) {
	var sends []Send
	p.director[d], sends = p.director[d].Step(p.config(d), in, p.now)
	for _, s := range sends {
		p.tell(d, s)
	}
}

// tell has a question of a director answered.
func (p *play) tell(d int, s Send) {
	if s.To == Rival && p.noRival || s.To != Rival && p.noVoters {
		return
	}
	if s.To == Rival {
		p.say(1-d, Said{Rival, s.Message})
		return
	}
	var answer Message
	p.voter[s.To], answer = p.voter[s.To].Step(p.Timing, s.Message, p.now)
	p.say(d, Said{s.To, answer})
}

// arrive has a letter of the broken network arrive.
func (p *play) arrive(l letter) {
	if l.to >= 2 {
		p.tell(int(l.from), Send{To(l.to - 2), l.Message})
		return
	}
	from := Rival
	if l.from >= 2 {
		from = To(l.from - 2)
	}
	p.say(int(l.to), Said{from, l.Message})
}

// settled is the only director that acts, if it is one.
func (p *play) settled() (side int, settled bool) {
	a, b := p.director[A].May(p.config(0), p.now), p.director[B].May(p.config(1), p.now)
	if b {
		side = 1
	}
	return side, a != b
}

// round is one H: both tick, and a watchdog that sees nobody lead wants one side to.
func (p *play) round(side int) {
	p.now = p.now.Add(p.H)
	for d := range p.director {
		p.say(d, Tick{Eligible: true})
	}
	if p.director[side].Phase == Passive && !p.director[1-side].Phase.Holds() {
		p.say(side, Campaign{})
	}
}

// warm is a cold site some time after one side was asked to lead.
func (s *site) warm(side Side, p play) world {
	p.site, p.world, p.now = s, s.cold(), noon
	for range 20 {
		p.round(int(side))
	}
	w := p.world
	for range p.now.Sub(noon) {
		for n := range node(s.voters + 2) {
			w.age(n)
		}
	}
	w.acts = uint8(side + 1)
	for d := range w.director {
		s.arm(&w, d)
	}
	s.tidy(&w)
	return w
}

// TestAnyWorldHeals begins where a search has come to, ends all faults, has
// one side told to campaign, and wants exactly one to act soon, and for good.
func TestAnyWorldHeals(t *testing.T) {
	if raced {
		t.Skip("one goroutine, and too slow")
	}
	worlds := 4_000
	if *long {
		worlds = 200_000
	}
	for voters := 1; voters <= 3; voters++ {
		s := newSite(voters, 2, budget{restarts: 1, transfers: 1})
		longest := 0
		f := search(&s, bound{worlds: worlds}, func(w *world) {
			for side := range w.director {
				longest = max(longest, s.heal(t, w, side))
			}
		})
		f.report(t, "healed")
		t.Logf("with %d voters one acts within %d rounds", voters, longest)
		if most := int(s.LV+s.G+s.LV+s.LD+s.G) / int(s.H); longest > most {
			t.Errorf("with %d voters it takes %d rounds, want at most %d", voters, longest, most)
		}
	}
}

// heal ends all faults, and counts the rounds until exactly one director acts;
// from then on it stays so.
func (s *site) heal(t *testing.T, w *world, side int) int {
	p := play{site: s, world: *w, now: noon}
	for _, l := range p.world.mail[:s.letters] {
		if l.sent {
			p.arrive(l)
		}
	}
	const enough = 40
	rounds, acting := 0, -1
	for n := range enough {
		p.round(side)
		now, settled := p.settled()
		if !settled {
			now = -1
		}
		if now != acting {
			acting, rounds = now, n+1
		}
	}
	if acting < 0 {
		t.Fatalf("nobody acts %d rounds after side %d was asked to in\n%s", enough, side, s.describe(w))
	}
	return rounds
}
