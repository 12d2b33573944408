package authority

import (
	"math"
	"testing"
	"time"
)

// t0 is when the tests begin by everybody's clock.
const t0 = Instant(time.Hour)

// ms is t0 and so many milliseconds.
func ms(n int) Instant { return t0.Add(time.Duration(n) * time.Millisecond) }

const base = 7_000_000

// leased is a voter that has leased an epoch at t0.
func leased(e Epoch) Voter { return Voter{Epoch: e, Until: t0.Add(Steady.LV), Base: base} }

func TestLease(t *testing.T) {
	for _, c := range []struct {
		name  string
		voter Voter
		epoch Epoch
		late  time.Duration // age of the nonce
		at    Instant
		want  bool
	}{
		{"first", Voter{Base: base}, 2, 0, t0, true},
		{"no epoch", Voter{Base: base}, 0, 0, t0, false},
		{"renewed", leased(2), 2, 0, ms(100), true},
		{"own, newer", leased(2), 4, 0, ms(100), true},
		{"the rival's, live", leased(2), 5, 0, ms(999), false},
		{"the rival's, lapsed", leased(2), 5, 0, ms(1000), true},
		{"behind", leased(4), 3, 0, ms(2000), false},
		{"own, behind", leased(4), 2, 0, ms(100), false},
		{"nonce of the round before", leased(2), 2, Steady.H, ms(100), true},
		{"nonce of the round before, both late", leased(2), 2, Steady.H + Steady.F/2, ms(100), true},
		{"nonce too old", leased(2), 2, Steady.H + Steady.F + 1, ms(100), false},
		{"nonce of the future", leased(2), 2, -Steady.F, ms(100), false},
		{"mute", Voter{Base: base, Mute: ms(100)}, 2, 0, ms(99), false},
		{"mute no more", Voter{Base: base, Mute: ms(100)}, 2, 0, ms(100), true},
	} {
		m := Message{Kind: Lease, Epoch: c.epoch, Round: 77, Nonce: c.voter.Nonce(Steady, c.at.Add(-c.late))}
		v, answer := c.voter.Step(Steady, m, c.at)
		if answer.Yes != c.want {
			t.Errorf("%s: granted %t", c.name, answer.Yes)
			continue
		}
		want := c.voter
		if c.want {
			want.Epoch, want.Until, want.Round = c.epoch, c.at.Add(Steady.LV), 77
		}
		if v != want {
			t.Errorf("%s: became %+v, want %+v", c.name, v, want)
		}
		said := Message{Kind: Ballot, Epoch: want.Epoch, Asked: c.epoch, Round: 77, Nonce: c.voter.Nonce(Steady, c.at), Yes: c.want, Remaining: max(0, want.Until.Sub(c.at))}
		if answer != said {
			t.Errorf("%s: said %+v, want %+v", c.name, answer, said)
		}
	}
}

func TestAVoterThatStarts(t *testing.T) {
	if v := StartVoter(Steady, 2, base, t0); v != leased(2) {
		t.Errorf("having kept 2: %+v, want a lease as if renewed just now", v)
	}
	v := StartVoter(Steady, 0, base, t0)
	ask := func(at Instant) bool {
		_, answer := v.Step(Steady, Message{Kind: Lease, Epoch: 2, Nonce: v.Nonce(Steady, at)}, at)
		return answer.Yes
	}
	if v.Live(t0) || ask(ms(999)) || !ask(ms(1000)) {
		t.Errorf("having kept nothing: %+v, want nothing granted for LV", v)
	}
}

func TestRelease(t *testing.T) {
	for _, c := range []struct {
		name  string
		epoch Epoch
		at    Instant
		until Instant
	}{
		{"shortens to F", 2, ms(100), ms(250)},
		{"never lengthens", 2, ms(950), ms(1000)},
		{"revives nothing", 2, ms(1001), ms(1000)},
		{"another epoch", 4, ms(100), ms(1000)},
		{"the rival's epoch", 3, ms(100), ms(1000)},
	} {
		v, answer := leased(2).Step(Steady, Message{Kind: Release, Epoch: c.epoch}, c.at)
		if want := (Voter{Epoch: 2, Until: c.until, Base: base}); v != want || answer.Yes {
			t.Errorf("%s: became %+v, want %+v", c.name, v, want)
		}
	}
}

// TestOvertaken has leases and releases of an epoch arrive in another order
// than they were sent in.
func TestOvertaken(t *testing.T) {
	lease := func(round int) Message {
		return Message{Kind: Lease, Epoch: 2, Round: ms(round), Nonce: (Voter{Base: base}).Nonce(Steady, ms(0))}
	}
	release := func(round int) Message { return Message{Kind: Release, Epoch: 2, Round: ms(round)} }
	for _, c := range []struct {
		name string
		said []Message
		want Instant // the lease's end
	}{
		{"in order", []Message{lease(1), release(2)}, ms(150)},
		{"the release first", []Message{release(2), lease(1)}, ms(1000)}, // of nothing
		{"a lease behind its release", []Message{lease(1), release(3), lease(2)}, ms(150)},
		{"the lease after it", []Message{lease(1), release(2), lease(3)}, ms(1000)},
		{"a release of the process before", []Message{lease(2), release(1)}, ms(1000)},
		{"twice", []Message{lease(1), lease(1), release(2), release(2)}, ms(150)},
	} {
		v := Voter{Base: base}
		for _, m := range c.said {
			v, _ = v.Step(Steady, m, ms(0))
		}
		if v.Until != c.want {
			t.Errorf("%s: until %v, want %v", c.name, v.Until.Sub(t0), c.want.Sub(t0))
		}
	}
}

func TestQueryChangesNothing(t *testing.T) {
	was := leased(2)
	if v, answer := was.Step(Steady, Message{Kind: Query, Epoch: 9}, ms(400)); v != was || answer.Yes || answer.Remaining != 600*time.Millisecond {
		t.Errorf("became %+v, said %+v", v, answer)
	}
}

func TestFresh(t *testing.T) {
	for _, base := range []uint64{0, base, math.MaxUint64 - uint64(ms(0))/uint64(slot(Steady)) - 2} { // the last one runs over in this test
		v := Voter{Base: base}
		issued := v.Nonce(Steady, t0)
		for age := -Steady.F; age < 3*Steady.F; age += time.Millisecond {
			fresh := v.Fresh(Steady, issued, t0.Add(age))
			if must, may := age >= 0 && age < Steady.F-slot(Steady), age > -slot(Steady) && age < Steady.F; fresh && !may || !fresh && must {
				t.Errorf("base %d: %t at the age of %v", base, fresh, age)
			}
		}
		restarted := Voter{Base: base + 1<<40}
		if restarted.Fresh(Steady, issued, t0) {
			t.Errorf("base %d: the nonce of another process is fresh", base)
		}
	}
}

func TestObey(t *testing.T) {
	obeying := leased(2)
	obeying.Order = 5
	lapsed := ms(1000)
	for _, c := range []struct {
		name  string
		order Order // the nonce is added
		late  time.Duration
		at    Instant
		want  Refusal
		after Voter // when obeyed
	}{
		{"of the holder", Order{Epoch: 2, Sequence: 6}, 0, ms(10), Obeyed, Voter{Epoch: 2, Until: ms(1000), Base: base, Order: 6}},
		{"older epoch", Order{Epoch: 1, Sequence: 6}, 0, ms(10), Stale, Voter{}},
		{"no epoch", Order{Sequence: 6}, 0, ms(10), Stale, Voter{}},
		{"newer epoch, no fence", Order{Epoch: 3, Sequence: 6}, 0, ms(10), Stale, Voter{}},
		{"older fence", Order{Epoch: 1, Sequence: 6, Fence: true}, 0, ms(10), Stale, Voter{}},
		{"too old", Order{Epoch: 2, Sequence: 6}, Steady.F, ms(10), NotFresh, Voter{}},
		{"a fence too old", Order{Epoch: 3, Sequence: 6, Fence: true}, Steady.F, ms(10), NotFresh, Voter{}},
		{"again", Order{Epoch: 2, Sequence: 5}, 0, ms(10), Repeated, Voter{}},
		{"a fence again", Order{Epoch: 2, Sequence: 5, Fence: true}, 0, ms(10), Repeated, Voter{}},
		{"overtaken", Order{Epoch: 2, Sequence: 4}, 0, ms(10), Repeated, Voter{}},
		{"after the lease", Order{Epoch: 2, Sequence: 6}, 0, lapsed, NoLease, Voter{}},
		{"fence after the lease", Order{Epoch: 2, Sequence: 6, Fence: true}, 0, lapsed, Obeyed, Voter{Epoch: 2, Until: ms(2000), Base: base, Order: 6}},
		{"newer fence", Order{Epoch: 3, Sequence: 1, Fence: true}, 0, ms(10), Obeyed, Voter{Epoch: 3, Until: ms(1010), Base: base, Order: 1}},
	} {
		c.order.Nonce = obeying.Nonce(Steady, c.at.Add(-c.late))
		v, refusal := obeying.Obey(Steady, c.order, c.at)
		want := c.after
		if c.want != Obeyed {
			want = obeying
		}
		if refusal != c.want || v != want {
			t.Errorf("%s: %v, became %+v, want %v, %+v", c.name, refusal, v, c.want, want)
		}
	}
}
