package director

import (
	"fmt"
	"math"
	"time"
)

const (
	// crowd is how many channels must have been talking for their common
	// silence to mean something: turrets may suppress silence, and ten lines
	// all pause at once every few minutes, but so many never do. Fewer are
	// found out by their channels, which get no RTCP either, within media_dead.
	crowd = 30
	// several is how many dead channels are more than a turret's own trouble.
	several = 5
	// hush is how long that silence lasts before the recorder counts as deaf.
	hush = 400 * time.Millisecond
	// memory is the time over which it is averaged how many talk.
	memory = 2 * time.Second
	// deafFor is how long a recorder that was deaf gets nothing; it doubles
	// with each time, up to deafMost.
	deafFor  = 30 * time.Second
	deafMost = 10 * time.Minute
)

// talkedWithin is the time over which a heartbeat counts who talks, and one
// more heartbeat: a recorder may have heard nothing for so long before it says so.
const talkedWithin = 300 * time.Millisecond

// pulse judges by a recorder's heartbeats whether media reaches it. Its
// control network may be well while its media network, or a port of a switch
// on the way, swallows everything: then it reports itself ready and records
// nothing.
type pulse struct {
	level  float64   // channels talking, averaged over memory
	at     time.Time // of the last heartbeat
	talked time.Time // somebody did
	until  time.Time // while deaf: when it may be tried again
	times  int       // it has been deaf
	reason string    // of being deaf; empty: it hears
}

// beat takes a heartbeat in and reports whether a crowd has fallen silent with it.
func (p *pulse) beat(now time.Time, talking int) bool {
	passed := now.Sub(p.at)
	p.at = now
	if p.reason != "" && now.After(p.until) {
		p.reason = ""
	}
	if talking > 0 {
		p.talked = now
		share := 1 - math.Exp(-passed.Seconds()/memory.Seconds())
		p.level += (float64(talking) - p.level) * share
		return false
	}
	return p.reason == "" && p.level >= crowd && now.Sub(p.talked) >= hush
}

// forget takes the silence for granted.
func (p *pulse) forget() { p.level = 0 }

// deaf keeps placements off the recorder for a while.
func (p *pulse) deaf(now time.Time) {
	p.reason = fmt.Sprintf("hears nothing: %.0f channels fell silent at once", p.level)
	p.avoid(now)
}

func (p *pulse) avoid(now time.Time) {
	p.until = now.Add(min(deafFor<<min(p.times, 8), deafMost))
	p.times++
	p.forget()
}
