package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	tandemv1 "tandem/api/tandem/v1"
)

// floor is what the directors and the watchdogs of a site say together.
type floor struct {
	*tandemv1.StatusResponse
	groups []group
}

// status asks every director and every watchdog. When no director answers, what
// the watchdogs see is told as warnings.
func (s *site) status(ctx context.Context) (floor, error) {
	answers, err := heard(s, "director", s.statusAnswers(ctx))
	if err != nil {
		for _, w := range s.guards(ctx, nil).statuses() {
			if w.Sentence != "" {
				s.warn("watchdog %s: %s", w.Name, w.Sentence)
			}
		}
		return floor{}, err
	}
	f := mergeStatus(answers)
	g := s.guards(ctx, f.Watchdogs)
	for _, a := range g.missing(s) {
		s.warn("watchdog %s left out: %s", a.peer, s.reason(a.err))
	}
	f.Watchdogs = g.statuses()
	return f, nil
}

// mergeStatus believes each director about itself, and about recorders, alarms
// and headroom whoever of its group knows most: the active one.
func mergeStatus(answers []answer[*tandemv1.StatusResponse]) floor {
	answers = slices.Clone(answers)
	slices.SortStableFunc(answers, func(a, b answer[*tandemv1.StatusResponse]) int {
		return byWord(itself(a.value), itself(b.value))
	})
	f := floor{&tandemv1.StatusResponse{Site: answers[0].value.Site, Generated: answers[0].value.Generated}, groupsOf(answers)}
	for _, a := range answers {
		f.Watchdogs = append(f.Watchdogs, a.value.Watchdogs...)
		f.Recorders = append(f.Recorders, a.value.Recorders...)
		f.Headroom = append(f.Headroom, a.value.Headroom...)
		for _, alarm := range a.value.Alarms {
			f.Alarms = append(f.Alarms, seenBy(itself(a.value), alarm))
		}
	}
	for _, g := range f.groups {
		for _, d := range g.directors {
			f.Directors = append(f.Directors, d.DirectorStatus)
		}
	}
	f.Directors = distinct(f.Directors, func(d *tandemv1.DirectorStatus) string { return d.Group + "/" + d.Name })
	f.Recorders = distinct(f.Recorders, func(r *tandemv1.RecorderStatus) string { return r.Group + "/" + r.Name })
	f.Headroom = distinct(f.Headroom, func(h *tandemv1.Headroom) string { return h.Group })
	f.Alarms = distinct(f.Alarms, func(a *tandemv1.Alarm) string { return a.Group + "/" + a.What + "/" + a.Object })
	return f
}

// answers reports whether a director spoke for itself.
func (f floor) answers(d *tandemv1.DirectorStatus) bool {
	return slices.ContainsFunc(f.groups, func(g group) bool {
		k, ok := g.named(d.Name)
		return ok && g.name == d.Group && k.answers
	})
}

// seenBy is an alarm with its group. That of a director that is not in charge is
// marked: it may see less.
func seenBy(d *tandemv1.DirectorStatus, a *tandemv1.Alarm) *tandemv1.Alarm {
	seen := &tandemv1.Alarm{Severity: a.Severity, What: a.What, Object: a.Object, Since: a.Since, Text: a.Text, Group: cmp.Or(a.Group, d.GetGroup())}
	if d != nil && d.Role != "active" {
		seen.Text += " (as " + d.Name + " sees it)"
	}
	return seen
}

// of is what concerns one group of the floor. A watchdog that says none belongs
// to the group of the director that it watches.
func (f floor) of(g group) floor {
	one := floor{&tandemv1.StatusResponse{Site: f.Site, Generated: f.Generated}, []group{g}}
	for _, d := range f.Directors {
		if d.Group == g.name {
			one.Directors = append(one.Directors, d)
		}
	}
	for _, w := range f.Watchdogs {
		if _, watches := g.named(w.Watching); w.Group == g.name || w.Group == "" && watches {
			one.Watchdogs = append(one.Watchdogs, w)
		}
	}
	for _, r := range f.Recorders {
		if r.Group == g.name {
			one.Recorders = append(one.Recorders, r)
		}
	}
	for _, h := range f.Headroom {
		if h.Group == g.name {
			one.Headroom = append(one.Headroom, h)
		}
	}
	for _, a := range f.Alarms {
		if a.Group == g.name {
			one.Alarms = append(one.Alarms, a)
		}
	}
	return one
}

// strays are the watchdogs that belong to no group that is known.
func (f floor) strays() floor {
	stray := floor{StatusResponse: &tandemv1.StatusResponse{}}
	for _, w := range f.Watchdogs {
		if !slices.ContainsFunc(f.groups, func(g group) bool { return slices.Contains(f.of(g).Watchdogs, w) }) {
			stray.Watchdogs = append(stray.Watchdogs, w)
		}
	}
	return stray
}

// authorityLines say what people must know about who is in charge.
func (i *invocation) authorityLines(f floor) []string {
	var lines []string
	say := func(c colour, format string, args ...any) {
		lines = append(lines, i.paint(c, clean(fmt.Sprintf(format, args...))))
	}
	for _, g := range f.groups {
		absent := slices.IndexFunc(g.directors, func(d known) bool { return !d.answers && d.holds() })
		switch active := g.active(); {
		case len(active) > 1:
			say(red, "group %s: %s and %s are both in charge; each recorder obeys only one of them", g.name, active[0].Name, active[1].Name)
		case len(active) == 0 && absent >= 0:
			say(red, "group %s: %s does not answer, and the other director knows it as the one in charge", g.name, g.directors[absent].Name)
		case len(active) == 0 && !slices.ContainsFunc(g.directors, known.holds):
			say(red, "group %s: no director that answers is in charge (%s)%s", g.name, g.states(), g.hint())
		}
		if text := votersText(g.voters()); text != "" {
			say("", "group %s: voters: %s", g.name, text)
		}
		if names := g.unwatched(f.Watchdogs); len(names) > 0 {
			say(yellow, "group %s: no watchdog answers that watches %s: when it fails, nobody takes over by itself", g.name, strings.Join(names, " or "))
		}
	}
	for _, w := range f.Watchdogs {
		if len(w.Promotable) > 0 {
			say(yellow, "watchdog %s: the director beside it could not lead: %s", w.Name, strings.Join(w.Promotable, ", "))
		}
	}
	return lines
}

// hint says, where one director of two answers, what voters know of the other.
func (g group) hint() string {
	if len(g.directors) != 1 || !g.paired() {
		return ""
	}
	if s := g.signOfRival(g.directors[0].Name); s != "" {
		return "; the other one may be: " + s
	}
	return "; of the other one nothing is known"
}

// voters are those of a group, each as the director knows it that heard it last.
func (g group) voters() []*tandemv1.VoterStatus {
	var all []*tandemv1.VoterStatus
	for _, d := range g.directors {
		if d.answers {
			all = append(all, d.Voters...)
		}
	}
	slices.SortStableFunc(all, func(a, b *tandemv1.VoterStatus) int { return cmp.Compare(uint64(a.AgeMs), uint64(b.AgeMs)) }) // never heard, -1, comes last
	all = distinct(all, func(v *tandemv1.VoterStatus) string { return v.Address })
	slices.SortStableFunc(all, func(a, b *tandemv1.VoterStatus) int {
		return natural(cmp.Or(a.Name, a.Address), cmp.Or(b.Name, b.Address))
	})
	return all
}

func votersText(voters []*tandemv1.VoterStatus) string {
	texts := make([]string, len(voters))
	for n, v := range voters {
		texts[n] = voterText(v)
	}
	return strings.Join(texts, ", ")
}

// afterglow is how long after it was last heard of a director is taken to be
// alive: no lease or promise lasts longer.
const afterglow = 2 * time.Second

// sign is how a voter shows that a director other than the one named may be
// alive; empty when it does not.
func sign(v *tandemv1.VoterStatus, than string) string {
	name := cmp.Or(v.Name, v.Address)
	if v.Holder != than && v.RemainingMs > 0 {
		return fmt.Sprintf("%s leases to %s for %d ms yet", name, v.Holder, v.RemainingMs)
	}
	for _, h := range v.Heard {
		if age := time.Duration(v.AgeMs+h.AgeMs) * time.Millisecond; h.Director != than && v.AgeMs >= 0 && age < afterglow {
			return fmt.Sprintf("%s heard %s %s ago", name, h.Director, length(age))
		}
	}
	return ""
}

// signOfRival is the first sign that a director other than the one named may be
// alive.
func (g group) signOfRival(than string) string {
	for _, v := range g.voters() {
		if s := sign(v, than); s != "" {
			return s
		}
	}
	return ""
}

func voterText(v *tandemv1.VoterStatus) string {
	name, age := cmp.Or(v.Name, v.Address), time.Duration(v.AgeMs)*time.Millisecond
	switch {
	case v.AgeMs < 0:
		return name + " (never heard)"
	case v.RemainingMs > 0:
		return fmt.Sprintf("%s leased to %s (%d ms left, heard %s ago)", name, v.Holder, v.RemainingMs, length(age))
	}
	return fmt.Sprintf("%s leased to nobody (heard %s ago)", name, length(age))
}
