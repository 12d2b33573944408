package watchdog

import (
	"math"
	"time"
)

// doubt is how little this host trusts its own ears: rounds in which it was
// late itself, or in which voters were slow to answer, raise it, others lower
// it. It multiplies patience, as Lifeguard does (Dadgar, Phillips, Currey:
// Lifeguard: Local Health Awareness for More Accurate Failure Detection).
type doubt int

const maxDoubt doubt = 7

func (d doubt) after(bad bool) doubt {
	if bad {
		return min(d+1, maxDoubt)
	}
	return max(d-1, 0)
}

// factor is 1 to 8.
func (d doubt) factor() int { return 1 + int(d) }

// damper keeps control from going back and forth: it counts takeovers and
// forgets them slowly. It says when control may be handed back by itself; it
// has no say in takeovers.
type damper struct {
	penalty    float64
	at         time.Time // of penalty
	suppressed bool
	flaps      int // takeovers in a row soon after control was handed back, 0 to maxFlaps
}

const (
	penaltyEach  = 1000
	penaltyStop  = 2500 // above: no failback by itself
	penaltyGo    = 800  // below: again
	penaltyHalf  = 10 * time.Minute
	longest      = time.Hour        // no takeovers for so long are always enough
	longestHold  = 10 * time.Minute // however often it flapped
	maxFlaps     = 10               // more are counted as so many: every hold is the longest by then
	hoursPenalty = penaltyGo * 64   // decays to penaltyGo within longest
)

// decayed is the damper at an instant.
func (d damper) decayed(now time.Time) damper {
	if d.penalty > 0 {
		d.penalty *= math.Exp2(-float64(now.Sub(d.at)) / float64(penaltyHalf))
	}
	d.at = now
	if d.penalty < penaltyGo {
		d.suppressed = false
	}
	return d
}

// takeover counts one, after the preferred director had led for a time.
func (d damper) takeover(now time.Time, after, hold time.Duration) damper {
	if after < d.hold(hold) {
		d.flaps = min(d.flaps+1, maxFlaps)
	} else {
		d.flaps = 0
	}
	d = d.decayed(now)
	d.penalty = min(d.penalty+penaltyEach, hoursPenalty)
	d.suppressed = d.suppressed || d.penalty > penaltyStop
	return d
}

// hold is how long the preferred director must be well: it doubles with every
// flap.
func (d damper) hold(first time.Duration) time.Duration {
	return max(first, min(longestHold, first<<d.flaps))
}

// wait is how long yet failback has to wait for a director that has been well
// for so long.
func (d damper) wait(now time.Time, well, first time.Duration) time.Duration {
	wait := d.hold(first) - well
	if d = d.decayed(now); d.suppressed {
		lapse := time.Duration(math.Log2(d.penalty/penaltyGo) * float64(penaltyHalf))
		wait = max(wait, min(lapse, longest))
	}
	return max(0, wait)
}
