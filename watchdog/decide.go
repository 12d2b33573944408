package watchdog

import (
	"fmt"
	"time"
)

// Action is what a watchdog does.
type Action int

// The actions. None of them makes a director active: only a lease does.
const (
	Nothing    Action = iota
	Campaign          // tell the local director to seek authority
	SwitchOver        // ask the active director to hand over to the local one
	Release           // shorten what was given to a local process that has ended
	Kill              // end a local process that holds authority and is frozen
	Restart           // have systemd restart the local director
	actionCount
)

var actionNames = [actionCount]string{"nothing", "campaign", "switch over", "release", "kill", "restart"}

func (a Action) String() string { return actionNames[a] }

const (
	loopsStill = time.Second            // a loop of a director that does not move for so long is stuck
	yield      = 300 * time.Millisecond // by which the one that is not preferred stands back when nobody leads
	courtesy   = 3 * time.Second        // and while the preferred one has just started
)

// Decide says what is to be done, and why, in one sentence for the log, the
// status and whoever is on call. It is an opinion, and may be wrong: the
// voters decide.
func Decide(now time.Time, v View) (Action, string) {
	action, sentence := v.judge(now)
	if !now.Before(v.Pause.Until) {
		return action, sentence
	}
	paused := fmt.Sprintf("paused until %s by %s", v.Pause.Until.Format(time.TimeOnly), v.Pause.Actor)
	if action == Nothing {
		return Nothing, paused + ": " + sentence
	}
	return Nothing, fmt.Sprintf("%s, or would %s: %s", paused, action, sentence)
}

// judge looks at the local process first: what can be proved comes before what
// can be guessed.
func (v View) judge(now time.Time) (Action, string) {
	l := v.Local
	quiet := now.Sub(l.Beat)
	switch {
	case l.Dead != 0:
		return Release, fmt.Sprintf("the process of %s has ended: epoch %d is released on its behalf", l.Name, l.Dead)
	case l.PID != 0 && l.Report.Holds && quiet > v.Rules.LD:
		return Kill, fmt.Sprintf("%s holds authority and has said nothing for %v: it is killed, lest it wake up and go on", l.Name, round(quiet))
	case l.Unit && min(quiet, now.Sub(l.Answered)) >= v.Rules.RestartAfter:
		return Restart, fmt.Sprintf("%s answers nothing for %v, and systemd says that it runs: it is restarted", l.Name, round(min(quiet, now.Sub(l.Answered))))
	}
	role := v.role(now)
	switch {
	case holds(role):
		return v.leading(role)
	case v.silent():
		return v.bereaved(now, role)
	case v.Peer.At.IsZero():
		return Nothing, fmt.Sprintf("%s has not answered yet", v.Peer.Name)
	case holds(v.Peer.Reply.Role):
		return v.following(now, role)
	}
	return v.leaderless(now, role)
}

// leading is when the local director is in charge.
func (v View) leading(role string) (Action, string) {
	switch {
	case v.silent():
		return Nothing, fmt.Sprintf("%s is %s; %s does not answer", v.Local.Name, role, v.Peer.Name)
	case holds(v.Peer.Reply.Role):
		return Nothing, fmt.Sprintf("%s is %s, and %s says that it is %s (epoch %d): each recorder obeys one of them", v.Local.Name, role, v.Peer.Name, v.Peer.Reply.Role, v.Peer.Reply.Epoch)
	}
	return Nothing, fmt.Sprintf("%s is %s; %s", v.Local.Name, role, v.Peer.answers())
}

// answers says how the peer is heard.
func (p Peer) answers() string {
	text := fmt.Sprintf("%s is %s and answers", p.Name, p.Reply.Role)
	if p.Paths > 1 {
		text += fmt.Sprintf(" on %d of %d paths", p.Heard, p.Paths)
	}
	return text
}

// bereaved is when the peer is silent and the local director is not in charge.
func (v View) bereaved(now time.Time, role string) (Action, string) {
	lost := fmt.Sprintf("%s does not answer (%d probes)", v.Peer.Name, v.Peer.Misses)
	if !v.Peer.Noticed.IsZero() {
		lost = fmt.Sprintf("the process of %s has ended, as its watchdog says", v.Peer.Name)
	}
	able, why := v.able(now)
	switch {
	case v.linkDown(now):
		return Nothing, fmt.Sprintf("peer link down: %s, but %d of %d voters hear it: it is left in charge", lost, v.renewed(now), len(v.Votes))
	case role == "":
		return Nothing, fmt.Sprintf("%s; %s does not answer either: nobody to promote", lost, v.Local.Name)
	case role == "boot":
		return Nothing, fmt.Sprintf("%s; %s has just started, and may not lead yet", lost, v.Local.Name)
	case !able:
		return Nothing, fmt.Sprintf("%s; %s cannot lead: %s", lost, v.Local.Name, why)
	case seeks(role):
		return Nothing, fmt.Sprintf("%s; %s seeks authority", lost, v.Local.Name)
	}
	return Campaign, fmt.Sprintf("%s: %s is to seek authority", lost, v.Local.Name)
}

// linkDown reports whether the peer is silent here, and heard by a majority of
// the voters.
func (v View) linkDown(now time.Time) bool {
	return v.silent() && v.Peer.Noticed.IsZero() && v.renewed(now)*2 > len(v.Votes)
}

// renewed is how many voters have renewed the peer's lease after this watchdog
// ceased to hear it, and not just before: a lease outlasts its holder.
func (v View) renewed(now time.Time) int {
	n := 0
	for _, vote := range v.Votes {
		live := now.Before(vote.Renewed.Add(v.Rules.LV))
		if live && vote.Holder != v.Local.Name && !v.Peer.Lost.IsZero() && vote.Renewed.After(v.Peer.Lost) {
			n++
		}
	}
	return n
}

// following is when the peer is in charge and answers.
func (v View) following(now time.Time, role string) (Action, string) {
	p := v.Peer
	able, why := v.able(now)
	ready := able && role == "passive"
	blind := !p.CTIDown.IsZero() && now.Sub(p.CTIDown) >= v.Rules.CTIGrace
	trouble := ""
	if loop := p.stuck(now, loopsStill); loop != "" && p.Misses == 0 {
		trouble = fmt.Sprintf("%s answers, but its loop %q stands still", p.Name, loop)
	} else if blind {
		trouble = fmt.Sprintf("%s has not seen the switch for %v", p.Name, round(now.Sub(p.CTIDown)))
	}
	switch {
	case trouble != "" && ready && (!blind || v.Local.Reply.CTI == "up"):
		return SwitchOver, fmt.Sprintf("%s: it is asked to hand over to %s", trouble, v.Local.Name)
	case trouble != "" && blind && v.Local.Reply.CTI != "up":
		return Nothing, fmt.Sprintf("%s; nor does %s", trouble, v.Local.Name)
	case trouble != "":
		return Nothing, fmt.Sprintf("%s; %s", trouble, v.unready(role, why))
	case p.Misses > 0:
		return Nothing, fmt.Sprintf("%s missed %d of %d probes", p.Name, p.Misses, v.patience())
	case v.Rules.Preferred:
		return v.failback(now, role, why)
	}
	return Nothing, p.answers()
}

// unready says why the local director is not asked to take over.
func (v View) unready(role, why string) string {
	switch {
	case role == "":
		return v.Local.Name + " does not answer"
	case why != "":
		return v.Local.Name + " cannot lead: " + why
	}
	return v.Local.Name + " is " + role
}

// failback is when the local director is the preferred one, and the other one
// is in charge and well.
func (v View) failback(now time.Time, role, why string) (Action, string) {
	answers := v.Peer.answers()
	switch {
	case !v.Rules.Auto:
		return Nothing, answers + "; failback is manual"
	case v.Well.IsZero() && v.Local.Reply.CTI != "up" && role == "passive":
		return Nothing, fmt.Sprintf("%s; no failback: %s does not see the switch", answers, v.Local.Name)
	case v.Well.IsZero():
		return Nothing, fmt.Sprintf("%s; no failback: %s", answers, v.unready(role, why))
	}
	well := now.Sub(v.Well)
	wait := v.Damper.wait(now, well, v.Rules.FailbackHold)
	switch at := v.Rules.Hours.Next(now.Add(wait)); {
	case at.Sub(now) > wait:
		return Nothing, fmt.Sprintf("%s; failback to %s at %s (well for %v)", answers, v.Local.Name, at.Format("15:04"), well.Truncate(time.Second))
	case wait > 0:
		return Nothing, fmt.Sprintf("%s; failback to %s in %v (well for %v)", answers, v.Local.Name, (wait + time.Second - 1).Truncate(time.Second), well.Truncate(time.Second))
	}
	return SwitchOver, fmt.Sprintf("%s has been well for %v: %s is asked to hand back", v.Local.Name, well.Truncate(time.Second), v.Peer.Name)
}

// leaderless is when the peer answers and neither is in charge.
func (v View) leaderless(now time.Time, role string) (Action, string) {
	p := v.Peer
	able, why := v.able(now)
	nobody := "nobody leads"
	switch {
	case seeks(p.Reply.Role):
		return Nothing, fmt.Sprintf("%s; %s seeks authority", nobody, p.Name)
	case seeks(role):
		return Nothing, fmt.Sprintf("%s; %s seeks authority", nobody, v.Local.Name)
	case role == "boot":
		return Nothing, fmt.Sprintf("%s; %s has just started, and may not lead yet", nobody, v.Local.Name)
	case role == "" || !able:
		return Nothing, fmt.Sprintf("%s; %s", nobody, v.unready(role, why))
	case v.Leaderless.IsZero() || !v.Rules.Preferred && (now.Sub(v.Leaderless) < yield || p.Reply.Role == "boot" && now.Sub(v.Leaderless) < courtesy):
		return Nothing, fmt.Sprintf("%s; %s waits for %s", nobody, v.Local.Name, p.Name)
	}
	return Campaign, fmt.Sprintf("%s: %s is to seek authority", nobody, v.Local.Name)
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
