package truth

import (
	"slices"
	"time"

	"tandem/internal/call"
)

// Copy is the account of one copy of every mix alone, as the group that
// records it should have it.
func (a *Account) Copy(copy call.Copy) *Account {
	one := a.like()
	for id, c := range a.channels {
		if c.copy == copy {
			one.channels[id] = c
		}
	}
	one.retellLegs(a, func(id string) string {
		if one.channels[id] == nil {
			return ""
		}
		return id
	})
	return one
}

// Mixes is the account of the mixes, whichever copy was sent: a mix is SESSION.MIX,
// was sent when any of its copies was, and is withheld where all were.
func (a *Account) Mixes() *Account {
	both := a.like()
	for _, id := range a.Channels() {
		c := a.channels[id]
		mix := both.channels[c.mixID]
		if mix == nil {
			mix = &spoken{id: c.mixID, mixID: c.mixID, mix: c.mix, sources: c.sources}
			both.channels[c.mixID] = mix
		}
		mix.add(c)
	}
	both.retellLegs(a, func(id string) string {
		if c := a.channels[id]; c != nil {
			return c.mixID
		}
		return ""
	})
	return both
}

// Turns is how often in [from, to), of all channels, one was sent elsewhere than
// before, or by another dialog: every re-INVITE that moved one, and every new INVITE.
func (a *Account) Turns(from, to time.Time) (n int) {
	for _, c := range a.channels {
		for _, at := range c.turns {
			if !at.Before(from) && at.Before(to) {
				n++
			}
		}
	}
	return n
}

// like is an account of the same time with neither channels nor legs.
func (a *Account) like() *Account {
	return &Account{Origin: a.Origin, Voice: a.Voice, late: a.late, channels: map[string]*spoken{}, legs: map[string]*Leg{}, speakers: a.speakers}
}

// retellLegs takes over another account's legs with other names for its
// channels; an empty name is none.
func (a *Account) retellLegs(from *Account, rename func(id string) string) {
	for id, l := range from.legs {
		told := *l
		told.Parts = slices.Clone(l.Parts)
		for n, part := range told.Parts {
			var names []string
			for _, id := range part.Channels {
				if name := rename(id); name != "" && !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
			told.Parts[n].Channels = names
		}
		a.legs[id] = &told
	}
}

// add takes in one more copy of the mix: what it sent that no other did, and
// what it brought to the wire.
func (c *spoken) add(copy *spoken) {
	mine, fresh := c.whole(), copy.whole()
	arrived := union(slices.Concat(mine.minus(union(c.withheld)), fresh.minus(union(copy.withheld))))
	for _, r := range copy.ranges {
		for _, s := range (spans{{r.from, r.to}}).minus(mine) {
			c.ranges = append(c.ranges, sent{from: s.from, to: s.to, at: r.wall(s.from), codec: r.codec})
		}
	}
	slices.SortFunc(c.ranges, func(x, y sent) int { return int(x.from - y.from) })
	c.withheld = c.whole().minus(arrived)
}

// whole is all that was sent.
func (c *spoken) whole() spans {
	var all []span
	for _, r := range c.ranges {
		all = append(all, span{r.from, r.to})
	}
	return union(all)
}
