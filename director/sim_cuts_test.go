package director

import (
	"cmp"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/internal/bubble"
)

// seen is what has come of a cut when it has lasted.
type seen struct {
	leads   string // "": nobody
	basis   string
	phases  string // of dir-a and dir-b
	changes int    // of who acts
	alarms  string // of authority, voters and peers, of both directors
	invites int    // that the switch had
	moves   int    // and re-INVITEs: a channel goes to another recorder
}

// cutSite is the site that is cut: two directors, three recorders that vote,
// two agents on whose turrets somebody is logged on. dir-a is preferred, and leads.
var cutSite = plan{profile: "steady", isolated: "wait", voters: 3, recorders: 3, agents: 3, noise: noise{spread: time.Millisecond}}

// Every cut there is between two directors, their recorders and the switch, for
// ten seconds: who is in charge then, and what the switch has seen of it. When
// it is healed the preferred director leads, and every channel is attached once.
func TestEveryCut(t *testing.T) {
	t.Parallel()
	const (
		a, b, sw   = "host-a", "host-b", "switch"
		r1, r2, r3 = "rec-1", "rec-2", "rec-3" // the first one stands for the one that holds the most channels
	)
	const some = -1 // not none
	for _, c := range []struct {
		name   string
		before []way // cut for as long already
		cut    []way
		want   seen
	}{
		{name: "the directors", cut: ways(a, b), want: seen{leads: "dir-a", basis: "quorum", phases: "active passive", alarms: "peer_link_down"}},
		{name: "the active one and all recorders", cut: ways(a, r1, r2, r3), want: seen{leads: "dir-b", basis: "quorum+consent", phases: "passive active", changes: 1, alarms: "standby_not_ready"}},
		{name: "the active one and all recorders, the passive one and the switch", before: ways(b, sw), cut: ways(a, r1, r2, r3), want: seen{leads: "dir-b", basis: "quorum+consent", phases: "passive active", changes: 1, alarms: "standby_not_ready"}},
		{name: "the active one and a recorder", cut: ways(a, r1), want: seen{leads: "dir-a", basis: "quorum+consent", phases: "active passive", alarms: "voter_lost", moves: some}},
		{name: "both directors and all recorders", cut: append(ways(a, r1, r2, r3), ways(b, r1, r2, r3)...), want: seen{leads: "dir-a", basis: "consent", phases: "active passive", alarms: "quorum_lost voter_lost"}},
		{name: "the active one and everything", cut: ways(a, b, r1, r2, r3, sw), want: seen{leads: "dir-b", basis: "quorum", phases: "linger active", changes: 1, alarms: "no_authority peer_lost"}},
		{name: "the active one with a recorder, and the rest", cut: append(ways(a, b, r2, r3), ways(r1, b, r2, r3)...), want: seen{leads: "dir-b", basis: "quorum", phases: "linger active", changes: 1, alarms: "no_authority peer_lost voter_lost", invites: some}},
		{name: "the active one and the switch", cut: ways(a, sw), want: seen{leads: "dir-b", basis: "quorum+consent", phases: "passive active", changes: 1, alarms: "standby_not_ready"}},
		{name: "both directors and the switch", cut: append(ways(a, sw), ways(b, sw)...), want: seen{leads: "dir-a", basis: "quorum+consent", phases: "active passive"}},
		{name: "the directors, and both from two recorders", cut: append(ways(a, b, r2, r3), ways(b, r2, r3)...), want: seen{phases: "linger passive", alarms: "no_authority"}},
		{name: "all that the active one would hear", cut: inward(a, b, r1, r2, r3, sw), want: seen{leads: "dir-b", basis: "quorum", phases: "linger active", changes: 1, alarms: "no_authority"}},
		{name: "all that the active one says", cut: outward(a, b, r1, r2, r3, sw), want: seen{leads: "dir-b", basis: "quorum", phases: "passive active", changes: 1, alarms: "peer_lost standby_not_ready"}},
		{name: "what the passive one says to the active one", cut: outward(b, a), want: seen{leads: "dir-a", basis: "quorum", phases: "active passive", alarms: "peer_link_down"}},
		{name: "a passive one that hears no switch, with the voters, and the rest", before: ways(b, sw), cut: append(ways(a, b, r2, r3), ways(r1, b, r2, r3)...), want: seen{leads: "dir-b", basis: "quorum", phases: "linger active", changes: 1, alarms: "no_authority peer_lost voter_lost"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, v := playCut(t, c.before, c.cut, 10*time.Second)
			if v.broken != "" {
				t.Errorf("broken: %s", v.broken)
			}
			if c.want.moves == some && got.moves > 0 {
				c.want.moves = got.moves
			}
			if c.want.invites == some && got.invites > 0 {
				c.want.invites = got.invites
			}
			if got != c.want {
				t.Errorf("\n got %+v\nwant %+v", got, c.want)
			}
			if t.Failed() {
				t.Log(v.story())
			}
		})
	}
}

// playCut lets a site begin, cuts it, looks, and lets it come to rest.
func playCut(t *testing.T, before, cut []way, lasts time.Duration) (got seen, v verdict) {
	dir := simDir(t)
	defer os.RemoveAll(dir)
	bubble.Test(t, func(t *testing.T) {
		s := newSim(1, cutSite, "", dir)
		s.startAll()
		time.Sleep(4 * time.Second) // the preferred one leads by then, whoever came first
		s.look()
		s.mu.Lock()
		s.epochs = 0
		invites, moves := s.exchange.invites, s.exchange.moves
		s.mu.Unlock()
		holder := s.busiest()
		for _, ways := range [][]way{before, cut} {
			s.cut(holder.first(ways)...)
			for began := time.Now(); ways != nil && time.Since(began) < lasts && s.whole(); time.Sleep(s.step()) {
				s.look()
			}
		}
		got = s.seen()
		got.invites -= invites
		got.moves -= moves
		if s.whole() {
			s.mend()
			s.rest()
		}
		v = s.verdict()
		s.finish()
	})
	return got, v
}

// busiest is the recorder that holds the most channels.
func (s *sim) busiest() *booth {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.MaxFunc(s.recorders, func(x, y *booth) int { return cmp.Compare(len(x.held), len(y.held)) })
}

// first has a recorder change places with the first one.
func (b *booth) first(ways []way) []way {
	swap := map[string]string{b.host: b.sim.recorders[0].host, b.sim.recorders[0].host: b.host}
	var all []way
	for _, w := range ways {
		all = append(all, way{cmp.Or(swap[w.from], w.from), cmp.Or(swap[w.to], w.to)})
	}
	return all
}

// seen is how things stand. A candidate is passive: it asks again and again.
func (s *sim) seen() seen {
	now := time.Now()
	alarms := make(map[string]bool)
	var got seen
	var phases []string
	for _, at := range s.directors {
		p := s.running(at)
		v := p.director.pair.elector.view.Load()
		phases = append(phases, strings.Replace(v.director.Phase.String(), "candidate", "passive", 1))
		if t := p.director.right.held.Load(); t != nil && t.holds(at.instant()) {
			got.leads, got.basis = at.name, v.basis.String()
		}
		for key := range p.director.pair.worries(now) {
			alarms[key.what] = true
		}
	}
	got.phases, got.alarms = strings.Join(phases, " "), strings.Join(slices.Sorted(maps.Keys(alarms)), " ")
	s.mu.Lock()
	defer s.mu.Unlock()
	got.changes, got.invites, got.moves = s.epochs, s.exchange.invites, s.exchange.moves
	return got
}
