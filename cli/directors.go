package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	tandemv1 "tandem/api/tandem/v1"
)

// known is a director as it is known: by its own answer or, when it gave none,
// by another's.
type known struct {
	*tandemv1.DirectorStatus
	peer    peer // where it answered
	answers bool
}

// holds reports whether d has authority, or is about to give or to take it.
func (d known) holds() bool {
	return slices.Contains([]string{"active", "draining", "activating"}, d.Role)
}

// state is the director in a list of who is what.
func (d known) state() string {
	if !d.answers {
		return d.Name + " does not answer"
	}
	return d.Name + " is " + orDash(d.Role)
}

// group is the directors of one group: one, or two that take over from each
// other. Whoever is to be believed about the rest of the floor comes first.
type group struct {
	name      string
	directors []known
}

// roles by how much whoever has one knows of the floor.
var roles = []string{"active", "draining", "activating", "linger", "candidate", "passive"}

// byWord orders directors by how much they are to be believed.
func byWord(a, b *tandemv1.DirectorStatus) int {
	rank := func(role string) int {
		if n := slices.Index(roles, role); n >= 0 {
			return n
		}
		return len(roles)
	}
	return cmp.Or(cmp.Compare(rank(a.GetRole()), rank(b.GetRole())), cmp.Compare(b.GetEpoch(), a.GetEpoch()), cmp.Compare(a.GetName(), b.GetName()))
}

// itself is what a director says of itself: it comes first in what it says.
func itself(s *tandemv1.StatusResponse) *tandemv1.DirectorStatus {
	if len(s.Directors) == 0 {
		return nil
	}
	return s.Directors[0]
}

// groupsOf sorts out who is who among the directors that answered, and those
// that they told of.
func groupsOf(answers []answer[*tandemv1.StatusResponse]) []group {
	var all []known
	for _, a := range answers {
		if d := itself(a.value); d != nil {
			d.Address = cmp.Or(d.Address, a.peer.address)
			all = append(all, known{d, peer{d.Name, a.peer.address}, true})
		}
	}
	for _, a := range answers {
		for _, d := range a.value.Directors[min(1, len(a.value.Directors)):] {
			all = append(all, known{d, peer{d.Name, d.Address}, false})
		}
	}
	all = distinct(all, func(d known) string { return d.Group + "/" + d.Name })
	var groups []group
	for _, d := range all {
		if n := len(groups); n == 0 || groups[n-1].name != d.Group {
			groups = append(groups, group{name: d.Group})
		}
		g := &groups[len(groups)-1]
		g.directors = append(g.directors, d)
	}
	for _, g := range groups {
		slices.SortStableFunc(g.directors, func(a, b known) int {
			switch {
			case a.answers && !b.answers:
				return -1
			case b.answers && !a.answers:
				return 1
			}
			return byWord(a.DirectorStatus, b.DirectorStatus)
		})
	}
	return groups
}

// active are the directors that answer and are in charge: one, unless two
// went on without a proof while they could not hear each other.
func (g group) active() []known {
	var active []known
	for _, d := range g.directors {
		if d.answers && d.Role == "active" {
			active = append(active, d)
		}
	}
	return active
}

// paired reports whether there are two directors: both are known, or one that
// asks voters.
func (g group) paired() bool {
	return len(g.directors) > 1 || slices.ContainsFunc(g.directors, func(d known) bool { return len(d.Voters) > 0 })
}

// states says who is what.
func (g group) states() string {
	texts := make([]string, len(g.directors))
	for n, d := range g.directors {
		texts[n] = d.state()
	}
	return strings.Join(texts, ", ")
}

// named finds a director.
func (g group) named(name string) (known, bool) {
	n := slices.IndexFunc(g.directors, func(d known) bool { return d.Name == name })
	if n < 0 {
		return known{}, false
	}
	return g.directors[n], true
}

// groups are those of the directors that answer. It warns of those that do not.
func (s *site) groups(ctx context.Context) ([]group, error) {
	answers, err := heard(s, "director", s.statusAnswers(ctx))
	if err != nil {
		return nil, err
	}
	return groupsOf(answers), nil
}

// inCharge are the directors that may command recorders, and so know what is
// where. A group that has none is gone without, unless all have none.
func (s *site) inCharge(ctx context.Context) ([]known, error) {
	groups, err := s.groups(ctx)
	if err != nil {
		return nil, err
	}
	var active []known
	var idle []group
	for _, g := range groups {
		if some := g.active(); len(some) > 0 {
			active = append(active, some...)
		} else {
			idle = append(idle, g)
		}
	}
	if len(active) == 0 {
		texts := make([]string, len(idle))
		for n, g := range idle {
			texts[n] = g.states()
		}
		return nil, exit(ExitRefused, "no director that answers is in charge (%s); recctl status shows when one is", strings.Join(texts, ", "))
	}
	for _, g := range idle {
		s.warn("group %s left out: no director that answers is in charge (%s)", g.name, g.states())
	}
	return active, nil
}

// askInCharge puts one question to all directors in charge.
func askInCharge[T any](ctx context.Context, s *site, question func(context.Context, peer) (T, error)) ([]answer[T], error) {
	active, err := s.inCharge(ctx)
	if err != nil {
		return nil, err
	}
	return heard(s, "director", ask(ctx, s, peersOf(active), question))
}

func peersOf(directors []known) []peer {
	peers := make([]peer, len(directors))
	for n, d := range directors {
		peers[n] = d.peer
	}
	return peers
}

// look is what is known of a group by now, without a word about who does not
// answer.
func (s *site) look(ctx context.Context, name string) group {
	var good []answer[*tandemv1.StatusResponse]
	for _, a := range s.statusAnswers(ctx) {
		if a.err == nil {
			good = append(good, a)
		}
	}
	for _, g := range groupsOf(good) {
		if g.name == name {
			return g
		}
	}
	return group{name: name}
}

// leader finds who is in charge of a group by now.
func (s *site) leader(ctx context.Context, name string) (peer, error) {
	if active := s.look(ctx, name).active(); len(active) > 0 {
		return active[0].peer, nil
	}
	return peer{}, fmt.Errorf("no director is in charge of group %s", name)
}
