// Package authority decides which of two directors may steer a switch and its
// recorders, so that never two may at once: who asks whom for what, when to
// stop, when to wait. Director, voter and what they say to each other are
// values, and Step is a function of them and of the time; clocks, sockets and
// disks are the callers'.
//
// A voter leases authority to one director at a time, for an epoch that it
// keeps on disk and never goes back behind. A director has authority while a
// majority of the voters leased it, or while its only rival has promised to
// stay out. Whoever gives counts from when it gave, whoever takes from when it
// asked, so clocks need not agree, only run at about the same rate.
//
// Every function here is safe for concurrent use; the values are plain and
// comparable, and belong to whoever holds them.
package authority

import (
	"fmt"
	"time"
)

// MaxVoters is how many voters a pair may have: 1, 3 or 5.
const MaxVoters = 5

// Instant is a reading of a clock that neither jumps nor stops while the host
// sleeps, as CLOCK_BOOTTIME: nanoseconds, above zero. Those of two hosts have
// nothing to do with each other.
type Instant int64

// Add is the instant d later.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub is the time from o to i.
func (i Instant) Sub(o Instant) time.Duration { return time.Duration(i - o) }

// Side tells the two directors of a pair apart.
type Side uint8

// The preferred director and the other one.
const (
	A Side = iota
	B
)

// Other is the rival.
func (s Side) Other() Side { return 1 - s }

// Epoch numbers the times that somebody got authority: a counter, and in the
// lowest bit the side. No number is ever used by both. 0 is none.
type Epoch uint64

// Side is who the epoch belongs to.
func (e Epoch) Side() Side { return Side(e & 1) }

// Next is the first epoch of a side above all of those seen.
func Next(seen Epoch, side Side) Epoch { return (seen>>1+1)<<1 | Epoch(side) }

// Timing is a profile of the constants that the proofs rest on.
type Timing struct {
	H    time.Duration // between two rounds of questions
	LD   time.Duration // a holder's lease, from when it asked
	LV   time.Duration // a voter's lease, a rival's promise, and a restarted process's silence
	Gate time.Duration // from the check of authority to the write, at most
	F    time.Duration // how old an order may be on its arrival; what is left of a lease that is given back
	G    time.Duration // a new holder waits for so long before it acts
}

// Steady is for any host, Fast for quiet hosts that do nothing else.
var (
	Steady = Timing{100 * time.Millisecond, 800 * time.Millisecond, 1000 * time.Millisecond, 50 * time.Millisecond, 150 * time.Millisecond, 150 * time.Millisecond}
	Fast   = Timing{50 * time.Millisecond, 300 * time.Millisecond, 400 * time.Millisecond, 40 * time.Millisecond, 80 * time.Millisecond, 50 * time.Millisecond}
)

// rho is by how much the rates of two clocks may differ, in parts of a million.
const rho = 500

// Margin are both sides of the inequality that keeps two holders apart in
// time: the earliest moment at which a new one acts, and the latest at which
// an order of the old one is obeyed, both from the last lease on.
func (t Timing) Margin() (earliest, latest time.Duration) {
	return t.LV - t.LV*rho/1_000_000 + t.G, t.LD + t.LD*rho/1_000_000 + t.Gate + t.F
}

// Check says which constants do not keep two holders apart.
func (t Timing) Check() error {
	if earliest, latest := t.Margin(); earliest < latest {
		return fmt.Errorf("a new holder may act after %v, an order of the old one is obeyed until %v", earliest, latest)
	}
	if t.G < t.Gate {
		return fmt.Errorf("a new holder waits %v, an order of one that gave way may be written %v after its check", t.G, t.Gate)
	}
	if t.LD < 4*t.H {
		return fmt.Errorf("a lease of %v does not outlast four rounds of %v", t.LD, t.H)
	}
	return nil
}
