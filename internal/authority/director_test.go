package authority

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// pairOf is a director's configuration.
func pairOf(side Side, voters int) Config { return Config{Timing: Steady, Side: side, Voters: voters} }

// idle is a director that has been passive for long.
func idle() Director { return Director{Phase: Passive, Since: t0.Add(-time.Hour), Able: true} }

// holder is a director in charge under epoch 2, renewed at t0 by some of its
// voters, and by its rival.
func holder(consent bool, voters ...int) Director {
	d := Director{Phase: Active, Since: t0, Able: true, Epoch: 2, Seen: 2}
	for _, v := range voters {
		d.Acks[v] = t0
	}
	if consent {
		d.Promise = t0
	}
	return d
}

func TestAuthority(t *testing.T) {
	lingering := holder(true, 0, 1, 2)
	lingering.Phase = Linger
	assumed := holder(false)
	assumed.Without = Assumed
	late := holder(true, 0)
	late.Acks[1] = ms(100)
	for _, c := range []struct {
		name     string
		director Director
		at       Instant
		basis    Basis
		until    Instant
	}{
		{"both", holder(true, 0, 1), ms(0), QuorumAndConsent, ms(800)},
		{"all voters", holder(false, 0, 1, 2), ms(0), Quorum, ms(800)},
		{"a majority", holder(false, 0, 2), ms(799), Quorum, ms(800)},
		{"lapsed", holder(true, 0, 1, 2), ms(800), None, 0},
		{"a minority", holder(false, 0), ms(0), None, 0},
		{"consent", holder(true, 0), ms(0), ByConsent, ms(800)},
		{"the older half of the majority counts", late, ms(0), QuorumAndConsent, ms(800)},
		{"no proof", assumed, ms(5000), Assumed, ms(5800)},
		{"lingers", lingering, ms(0), None, 0},
	} {
		if basis, until := c.director.Authority(pairOf(A, 3), c.at); basis != c.basis || until != c.until {
			t.Errorf("%s: %v until %v, want %v until %v", c.name, basis, until.Sub(t0), c.basis, c.until.Sub(t0))
		}
	}
}

func TestMay(t *testing.T) {
	for phase := range Phase(phaseCount) {
		d := holder(true, 0, 1, 2)
		d.Phase = phase
		if got, want := d.May(pairOf(A, 3), ms(0)), phase == Active || phase == Draining; got != want {
			t.Errorf("%v: %t", phase, got)
		}
		if d.May(pairOf(A, 3), ms(800)) {
			t.Errorf("%v: may after its leases", phase)
		}
	}
}

// TestPromise is the table of when a director promises to stay out.
func TestPromise(t *testing.T) {
	since := func(p Phase, at Instant) Director { return Director{Phase: p, Since: at} }
	knowing := idle()
	knowing.Seen = 5
	given := idle()
	given.Promised, given.Vowed = 2, ms(-10)
	for _, c := range []struct {
		name     string
		director Director
		asked    Epoch
		round    Instant
		want     bool
	}{
		{"passive", idle(), 2, ms(0), true},
		{"nothing asked", idle(), 0, ms(0), false},
		{"passive for less than F", since(Passive, ms(-149)), 2, ms(0), false},
		{"passive for F", since(Passive, ms(-150)), 2, ms(0), true},
		{"its own epoch", idle(), 3, ms(0), false},
		{"knows a higher one", knowing, 4, ms(0), false},
		{"knows only lower ones", knowing, 6, ms(0), true},
		{"again", given, 2, ms(-10), true},
		{"overtaken by the release", given, 2, ms(-11), false},
		{"boots", since(Boot, ms(-500)), 2, ms(0), false},
		{"boots no more", since(Boot, ms(-1150)), 2, ms(0), false}, // not yet passive for F
		{"candidate", since(Candidate, ms(-500)), 2, ms(0), false},
		{"lingers", since(Linger, ms(-500)), 2, ms(0), false},
		{"active", holder(true, 0), 4, ms(0), false},
	} {
		d, sends := c.director.Step(pairOf(B, 1), Said{Rival, Message{Kind: Consent, Epoch: 1, Asked: c.asked, Round: c.round}}, ms(0))
		if len(sends) != 1 || sends[0].To != Rival || sends[0].Kind != Reply || sends[0].Yes != c.want || sends[0].Asked != c.asked || sends[0].Round != c.round {
			t.Errorf("%s: %+v, want one reply, %t", c.name, sends, c.want)
		}
		if c.want && (d.Promises(ms(0)) != Steady.LV || d.Promised != c.asked || d.Seen < c.asked) {
			t.Errorf("%s: said yes, and became %+v", c.name, d)
		}
	}
}

// TestRivalReleases is what becomes of a promise for epoch 2 that has 800 ms left.
func TestRivalReleases(t *testing.T) {
	for _, c := range []struct {
		name  string
		epoch Epoch
		round Instant
		want  time.Duration
	}{
		{"it", 2, ms(10), Steady.F},
		{"another epoch", 4, ms(10), 800 * time.Millisecond},
		{"for the process before", 2, ms(-10), 800 * time.Millisecond},
	} {
		d := idle()
		d.Promised, d.Vowed, d.Until = 2, ms(0), ms(1000)
		d, _ = d.Step(pairOf(B, 1), Said{Rival, Message{Kind: Release, Epoch: c.epoch, Round: c.round}}, ms(200))
		if got := d.Promises(ms(200)); got != c.want {
			t.Errorf("%s: stays out for %v, want %v", c.name, got, c.want)
		}
	}
}

func TestHigherEpoch(t *testing.T) {
	for _, c := range []struct {
		phase Phase
		epoch Epoch // its own
		seen  Epoch // which it hears of
		want  Phase
		keeps bool // its epoch
	}{
		{Active, 2, 3, Passive, false},
		{Activating, 2, 3, Passive, false},
		{Draining, 2, 3, Passive, false},
		{Linger, 0, 3, Passive, false},
		{Active, 2, 2, Active, true},
		{Active, 4, 3, Active, true},
		{Candidate, 4, 3, Candidate, true},
		{Candidate, 4, 5, Candidate, false},
		{Passive, 0, 5, Passive, false},
	} {
		for _, said := range []Said{
			{Rival, Message{Kind: Consent, Epoch: c.seen}},
			{Rival, Message{Kind: Reply, Epoch: c.seen}},
			{0, Message{Kind: Ballot, Epoch: c.seen, Remaining: 1}},
			{7, Message{Kind: Query, Epoch: c.seen}}, // a recorder that does not vote
		} {
			d := holder(true, 0)
			d.Phase, d.Epoch, d.Seen, d.Asked = c.phase, c.epoch, min(c.epoch, 2), t0
			d, _ = d.Step(pairOf(A, 1), said, ms(1))
			if d.Phase != c.want || (d.Epoch == c.epoch && d.Epoch != 0) != c.keeps || d.Seen < c.seen {
				t.Errorf("%v %d hears of %d: %v %d", c.phase, c.epoch, c.seen, d.Phase, d.Epoch)
			}
		}
	}
}

// TestAnswers is what a candidate for epoch 4 makes of answers at 900 ms.
func TestAnswers(t *testing.T) {
	ack := func(asked Epoch, round int, yes bool) Message {
		return Message{Kind: Ballot, Epoch: asked, Asked: asked, Round: ms(round), Yes: yes}
	}
	for _, c := range []struct {
		name string
		said Said
		want Phase
	}{
		{"granted", Said{0, ack(4, 500, true)}, Activating},
		{"refused", Said{0, ack(4, 500, false)}, Candidate},
		{"granted in a round that has lapsed", Said{0, ack(4, 100, true)}, Candidate},
		{"granted for another epoch", Said{0, ack(2, 500, true)}, Candidate},
		{"of the future", Said{0, ack(4, 901, true)}, Candidate},
		{"by somebody without a vote", Said{1, ack(4, 500, true)}, Candidate},
		{"promised", Said{Rival, Message{Kind: Reply, Asked: 4, Round: ms(500), Yes: true}}, Activating},
		{"a ballot of the rival", Said{Rival, ack(4, 500, true)}, Candidate},
		{"a promise of a voter", Said{0, Message{Kind: Reply, Asked: 4, Round: ms(500), Yes: true}}, Candidate},
	} {
		d := Director{Phase: Candidate, Since: ms(0), Asked: ms(0), Able: true, Epoch: 4, Seen: 2}
		d, _ = d.Step(pairOf(A, 1), c.said, ms(900))
		if d.Phase != c.want {
			t.Errorf("%s: %v, want %v", c.name, d.Phase, c.want)
		}
		if c.want == Activating && (d.Guard != ms(900).Add(Steady.G) || d.Seen != 4) {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
}

// TestEligible: whoever could not lead seeks nothing, and gives up seeking.
func TestEligible(t *testing.T) {
	c := pairOf(A, 1)
	d, _ := idle().Step(c, Campaign{}, ms(0))
	if d.Phase != Candidate {
		t.Fatalf("%v after a campaign", d.Phase)
	}
	if d, _ := d.Step(c, Tick{Eligible: false}, ms(1)); d.Phase != Passive {
		t.Errorf("unable, and %v", d.Phase)
	}
	d, _ = d.Step(c, Said{0, Message{Kind: Ballot, Epoch: 1, Round: ms(0), Remaining: time.Second}}, ms(1))
	if d.Phase != Passive {
		t.Errorf("refused by all, and %v", d.Phase)
	}
}

// TestResign: what is given back is gone at once, and whoever it is for has time to take it.
func TestResign(t *testing.T) {
	c := pairOf(A, 3)
	d, sends := holder(true, 0, 1, 2).Step(c, Drain{}, ms(10))
	if d.Phase != Draining || len(sends) != 0 || !d.May(c, ms(10)) {
		t.Fatalf("draining: %+v, says %v", d, sends)
	}
	d, sends = d.Step(c, Resign{}, ms(20))
	if basis, _ := d.Authority(c, ms(20)); basis != None || d.Phase != Passive || d.Promises(ms(20)) != Steady.LV {
		t.Errorf("resigned: %+v", d)
	}
	if len(sends) != 4 {
		t.Errorf("says %v, want a release to three voters and the rival", sends)
	}
	for _, s := range sends {
		if s.Kind != Release || s.Epoch != 2 || s.Round != ms(20) {
			t.Errorf("says %+v", s)
		}
	}
	d, _ = d.Step(c, Campaign{}, ms(30))
	if d.Phase != Passive {
		t.Errorf("seeks at once what it has just given back: %v", d.Phase)
	}
}

// TestWithoutProof: force and isolation give authority; proof, once it comes,
// takes their place, and its end is the end.
func TestWithoutProof(t *testing.T) {
	c := pairOf(A, 1)
	c.Alone = true
	forced, _ := idle().Step(c, Campaign{Force: true}, ms(0))
	forced, _ = forced.Step(c, Tick{Eligible: true}, ms(1))
	alone, _ := idle().Step(c, Campaign{}, ms(0))
	for n := range 20 {
		alone, _ = alone.Step(c, Tick{Eligible: true}, ms(50*(n+1)))
	}
	for name, d := range map[string]Director{"forced": forced, "alone": alone} {
		basis, _ := d.Authority(c, ms(1000))
		if d.Phase != Activating || basis != Forced && basis != Assumed {
			t.Fatalf("%s: %v by %v", name, d.Phase, basis)
		}
		d, _ = d.Step(c, Said{0, Message{Kind: Ballot, Epoch: d.Epoch, Asked: d.Epoch, Round: ms(1100), Yes: true}}, ms(1100))
		if basis, _ := d.Authority(c, ms(1100)); basis != Quorum {
			t.Errorf("%s: by %v, with a grant", name, basis)
		}
		if d, _ = d.Step(c, Tick{Eligible: true}, ms(1900)); d.Phase != Linger {
			t.Errorf("%s: %v when the grant has lapsed", name, d.Phase)
		}
	}
	stale, _ := idle().Step(c, Campaign{Force: true}, ms(0))
	stale, _ = stale.Step(c, Tick{Eligible: true}, ms(5000))
	if stale.Phase != Passive {
		t.Errorf("an operator's word of 5 s ago makes it %v", stale.Phase)
	}
}

// lives has a director of a site with one voter go on for a while, with a round
// every H. The voter and the rival answer everything that is asked before silent,
// the rival asks, too; from then on nobody does, and the watchdog calls.
func lives(c Config, d Director, from, to, silent Instant) Director {
	for now := from; now < to; now = now.Add(c.H) {
		var sends []Send
		if d, sends = d.Step(c, Tick{Eligible: true}, now); now >= silent {
			d, _ = d.Step(c, Campaign{}, now.Add(1))
			d, _ = d.Step(c, Said{1, Message{Kind: Ballot, Epoch: 3, Round: now}}, now.Add(2)) // of a recorder without a vote
			continue
		}
		for _, s := range sends {
			answer := Message{Kind: Ballot, Epoch: max(3, s.Epoch), Asked: s.Epoch, Round: now, Remaining: c.LV, Yes: s.Kind == Lease}
			if s.To == Rival {
				answer = Message{Kind: Reply, Epoch: max(3, s.Epoch), Asked: s.Asked, Round: now, Yes: s.Asked != 0}
			}
			d, _ = d.Step(c, Said{s.To, answer}, now.Add(1))
		}
		question := Message{Kind: Consent, Epoch: 3, Asked: 3, Round: now} // of one in charge
		if d.Phase.Holds() {
			question.Asked = 0
		}
		d, _ = d.Step(c, Said{Rival, question}, now.Add(2))
	}
	return d
}

// TestDeserted: a director that may go on alone does so LV after the last it heard
// of anybody, whether it led or not, because it has asked all of them all the time;
// and not a moment earlier. One that was not there to ask, or was answered, waits.
func TestDeserted(t *testing.T) {
	c := pairOf(A, 1)
	c.Alone = true
	passive, leads := idle(), holder(true, 0)
	leads.Epoch, leads.Seen = 4, 4
	for name, d := range map[string]Director{"passive": passive, "in charge": leads} {
		heard := ms(1900) // rounds are at whole hundreds
		early := lives(c, d, ms(0), heard.Add(c.LV), ms(1950))
		if early.Phase.Holds() {
			t.Errorf("%s: %v already %v after the last answer", name, early.Phase, c.LV-c.H)
		}
		if got := lives(c, d, ms(0), heard.Add(c.LV+2*c.H), ms(1950)); got.Phase != Activating || got.Without != Assumed {
			t.Errorf("%s: %v, %v after the last answer", name, got.Phase, c.LV+c.H)
		}
		if slept := lives(c, early, ms(5000), ms(5000).Add(c.LV), ms(0)); slept.Phase.Holds() {
			t.Errorf("%s: %v right after a long sleep, in which it asked nobody", name, slept.Phase)
		}
		if d = lives(c, d, ms(0), heard.Add(1), ms(1950)); d.Phase.Holds() != (name == "in charge") {
			t.Fatalf("%s: %v while all is well", name, d.Phase)
		}
		answered, _ := early.Step(c, Said{0, Message{Kind: Ballot, Epoch: 3, Round: ms(2800), Remaining: c.LV}}, ms(2810))
		if answered = lives(c, answered, ms(2900), ms(3800), ms(0)); answered.Phase.Holds() {
			t.Errorf("%s: %v less than %v after the voter answered", name, answered.Phase, c.LV)
		}
	}
}

// TestLapse: a holder that hears nothing lingers, in whatever order time and
// answers come, and comes back with a higher epoch.
func TestLapse(t *testing.T) {
	c := pairOf(A, 1)
	d, _ := holder(true, 0).Step(c, Tick{Eligible: true}, ms(800))
	if d.Phase != Linger || d.Epoch != 0 {
		t.Fatalf("%v %d", d.Phase, d.Epoch)
	}
	d, _ = d.Step(c, Said{0, Message{Kind: Ballot, Epoch: 2, Asked: 2, Round: ms(799), Yes: true}}, ms(801))
	if d.Phase != Linger || d.Epoch != 4 {
		t.Errorf("a grant of the epoch that lapsed makes it %v %d, want it to seek 4", d.Phase, d.Epoch)
	}
	d, _ = d.Step(c, Said{0, Message{Kind: Ballot, Epoch: 4, Asked: 4, Round: ms(801), Yes: true}}, ms(802))
	if d.Phase != Activating || d.Epoch != 4 {
		t.Errorf("%v %d", d.Phase, d.Epoch)
	}
}

// cells are inputs of every kind, each with something to say.
func cells() []Input {
	in := []Input{Tick{}, Tick{Eligible: true}, Campaign{}, Campaign{Force: true}, Drain{}, Resign{}}
	for kind := range Kind(kindCount) {
		for _, from := range []To{Rival, 0, MaxVoters - 1, MaxVoters, -2} {
			for _, yes := range []bool{false, true} {
				in = append(in, Said{from, Message{Kind: kind, Epoch: 4, Asked: 6, Round: ms(-1), Yes: yes}})
			}
		}
	}
	return in
}

// TestEveryCell tries every input in every phase: each is met, nothing but a
// proof gives authority, and what has none is not acted on.
func TestEveryCell(t *testing.T) {
	for _, voters := range []int{1, 3, 5} {
		for phase := range Phase(phaseCount) {
			for _, in := range cells() {
				c := pairOf(A, voters)
				d := Director{Phase: phase, Since: ms(-2000), Asked: ms(-10), Able: true, Epoch: 6, Seen: 4}
				if phase.Holds() {
					d.Acks = [MaxVoters]Instant{ms(-1), ms(-1), ms(-1), ms(-1), ms(-1)}
				}
				checkStep(t, c, d, in, ms(0))
			}
		}
	}
}

// checkStep takes one step and asserts what must be true of any.
func checkStep(t *testing.T, c Config, d Director, in Input, now Instant) Director {
	t.Helper()
	after, sends := d.Step(c, in, now)
	at := func() string { return fmt.Sprintf("%+v in %v at %v: %+v, says %+v", in, d, now.Sub(t0), after, sends) }
	if after.Phase >= phaseCount || after.Seen < d.Seen || after.Epoch != 0 && after.Epoch.Side() != c.Side && after.Epoch != d.Epoch {
		t.Fatal(at())
	}
	basis, _ := after.Authority(c, now)
	said, isSaid := in.(Said)
	before, _ := d.Authority(c, now)
	switch {
	case basis == None, before != None, d.Without != None, after.Without != None:
	case !isSaid || !said.Yes || said.Asked != after.Epoch:
		t.Fatalf("authority by %v without an answer: %s", basis, at())
	}
	if _, resigned := in.(Resign); resigned && basis != None && d.Epoch != 0 {
		t.Fatalf("resigned, and has authority: %s", at())
	}
	for _, s := range sends {
		if s.To < Rival || int(s.To) >= c.Voters || s.Kind == Lease && s.Epoch.Side() != c.Side || s.Kind == Reply && s.Yes && after.Promises(now) < c.LV {
			t.Fatal(at())
		}
	}
	return after
}

// FuzzStep has a director hear anything from anybody, and a voter be asked
// anything: neither ever panics, no director has authority that nobody gave,
// no voter goes back to an older epoch or gives its lease to two.
func FuzzStep(f *testing.F) {
	f.Add(uint64(1), uint8(40))
	f.Add(uint64(99), uint8(255))
	f.Fuzz(func(t *testing.T, seed uint64, steps uint8) {
		r := rand.New(rand.NewPCG(seed, 0))
		c := Config{Timing: Steady, Side: Side(r.IntN(2)), Voters: 1 + 2*r.IntN(3)}
		now := t0
		d, v := StartDirector(now), StartVoter(Steady, Epoch(r.IntN(5)), base, now)
		for range steps {
			now = now.Add(time.Duration(r.IntN(300)) * time.Millisecond)
			m := Message{
				Kind: Kind(r.IntN(kindCount)), Epoch: Epoch(r.IntN(12)), Asked: Epoch(r.IntN(12)), Round: now.Add(time.Duration(r.IntN(1200)-1000) * time.Millisecond),
				Nonce: v.Nonce(Steady, now) - uint64(r.IntN(8)), Yes: r.IntN(2) == 0, Remaining: time.Duration(r.IntN(2)) * time.Second, Role: Phase(r.IntN(phaseCount)),
			}
			in := []Input{Tick{Eligible: r.IntN(8) > 0}, Campaign{}, Drain{}, Resign{}, Said{To(r.IntN(8) - 1), m}, Said{To(r.IntN(8) - 1), m}}[r.IntN(6)]
			d = checkStep(t, c, d, in, now)
			v = checkVoter(t, v, m, now)
		}
	})
}

// checkVoter asks a voter something and asserts what must be true of any answer.
func checkVoter(t *testing.T, v Voter, m Message, now Instant) Voter {
	t.Helper()
	after, answer := v.Step(Steady, m, now)
	switch {
	case after.Epoch < v.Epoch,
		answer.Yes && v.Live(now) && after.Epoch.Side() != v.Epoch.Side(),
		answer.Yes && (m.Kind != Lease || after.Epoch != m.Epoch || after.Until != now.Add(Steady.LV)),
		!answer.Yes && after.Until > v.Until,
		answer.Round != m.Round, answer.Epoch != after.Epoch, answer.Kind != Ballot:
		t.Fatalf("%+v asked %+v at %v: %+v, says %+v", v, m, now.Sub(t0), after, answer)
	}
	return after
}
