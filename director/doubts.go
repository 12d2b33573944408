package director

import (
	"fmt"
	"strings"
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/authority"
)

// title is what to call the peer.
func (p *peerLink) title() string {
	if h := p.last.Load(); h != nil {
		return h.name
	}
	return "at " + p.address
}

// worries is what is wrong with this director's authority, its voters and its peer.
func (p *partnership) worries(now time.Time) map[alarmKey]*alarm {
	return doubts{
		name: p.cfg.Name, view: p.elector.view.Load(), voters: p.voters(now), votes: p.elector.cfg.Voters, lease: p.elector.cfg.LD,
		peer: p.peer.title(), heard: p.peer.heard(unheard) != nil, early: now.Sub(p.director.started) < unheard,
	}.alarms(now)
}

// voters are all who are leased, those that vote first.
func (p *partnership) voters(now time.Time) []*tandemv1.VoterStatus {
	all := make([]*tandemv1.VoterStatus, len(p.boxes))
	for i, b := range p.boxes {
		all[i] = b.status(now)
	}
	return all
}

// doubts is what there is to judge a director's authority by.
type doubts struct {
	name   string
	view   *view
	voters []*tandemv1.VoterStatus
	votes  int           // the first so many of them vote
	lease  time.Duration // after which an answer is worth nothing
	peer   string
	heard  bool // the peer, lately
	early  bool // it has just started, and nobody can have been heard
}

// alarms says what is wrong. Only the director that is in charge speaks for the
// pair; the other one speaks for itself.
func (d doubts) alarms(now time.Time) map[alarmKey]*alarm {
	all := make(map[alarmKey]*alarm)
	add := func(what, object, format string, args ...any) {
		all[alarmKey{what, object}] = &alarm{now, fmt.Sprintf(format, args...)}
	}
	if d.early {
		return all
	}
	holds := d.view.director.Phase.Holds()
	switch basis := d.view.basis; {
	case d.view.director.Phase == authority.Linger:
		add("no_authority", d.name, "%s has lost its authority and begins nothing new; recording goes on: %s", d.name, d.silence())
	case basis == authority.Assumed:
		add("authority_assumed", d.name, "%s leads without proof that %s does not: it hears neither it nor a voter; should both run, each recorder still obeys one", d.name, d.peer)
	case basis == authority.Forced:
		add("authority_forced", d.name, "%s leads because an operator said that %s is off", d.name, d.peer)
	case basis == authority.ByConsent && now.Sub(d.view.elected) >= unheard:
		add("quorum_lost", d.name, "%s leads by the promise of %s alone: %s", d.name, d.peer, d.silence())
	}
	if holds && !d.heard {
		d.peerSilent(add)
	}
	if holds {
		for _, v := range d.voters[:d.votes] {
			if v.AgeMs < 0 || v.AgeMs > unheard.Milliseconds() {
				add("voter_lost", v.Address, "voter %s: %s", title(v), age(v))
			}
		}
	}
	if d.view.director.Phase == authority.Passive && !d.view.able {
		add("standby_not_ready", d.name, "%s could not take over: %s", d.name, d.view.why)
	}
	return all
}

// peerSilent tells a cut cable from a dead director by what the voters hear.
func (d doubts) peerSilent(add func(what, object, format string, args ...any)) {
	for _, v := range d.voters {
		for _, h := range v.Heard {
			if h.GetDirector() == d.peer && h.GetAgeMs()+max(0, v.AgeMs) < unheard.Milliseconds() {
				add("peer_link_down", d.peer, "%s and %s do not hear each other, but voter %s hears both: the link between them is cut", d.name, d.peer, title(v))
				return
			}
		}
	}
	add("peer_lost", d.peer, "%s does not hear %s: nobody would take over from it", d.name, d.peer)
}

// silence names the voters that were not heard lately.
func (d doubts) silence() string {
	var silent []string
	for _, v := range d.voters[:d.votes] {
		if v.AgeMs < 0 || v.AgeMs > d.lease.Milliseconds() {
			silent = append(silent, title(v)+" "+age(v))
		}
	}
	if len(silent) == 0 {
		return "its voters answer again"
	}
	return strings.Join(silent, ", ")
}

// obstacles says what keeps this director from authority.
func (p *partnership) obstacles(now time.Time) string {
	var all []string
	for _, v := range p.voters(now)[:p.elector.cfg.Voters] {
		switch {
		case v.AgeMs < 0 || v.AgeMs > unheard.Milliseconds():
			all = append(all, fmt.Sprintf("voter %s %s", title(v), age(v)))
		case v.RemainingMs > 0 && v.Holder != p.cfg.Name:
			all = append(all, fmt.Sprintf("voter %s has leased to %s, %d ms left", title(v), v.Holder, v.RemainingMs))
		}
	}
	if h := p.peer.heard(unheard); h != nil {
		all = append(all, fmt.Sprintf("%s is %s", h.name, h.role))
	} else {
		all = append(all, fmt.Sprintf("%s is not heard", p.peer.title()))
	}
	if v := p.elector.view.Load(); !v.able {
		all = append(all, v.why)
	}
	return strings.Join(all, "; ")
}

func title(v *tandemv1.VoterStatus) string {
	if v.GetName() != "" {
		return v.GetName()
	}
	return v.GetAddress()
}

func age(v *tandemv1.VoterStatus) string {
	if v.GetAgeMs() < 0 {
		return "has not been heard yet"
	}
	return fmt.Sprintf("has not been heard for %v", (time.Duration(v.GetAgeMs()) * time.Millisecond).Round(100*time.Millisecond))
}
