package authority

import (
	"cmp"
	"flag"
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// raced reports whether the race detector is on.
var raced bool

var long = flag.Bool("authority.long", false, "search as far as make search does")

// found is how a search ended.
type found struct {
	worlds, depth int
	took          time.Duration
	exhausted     bool
	broken        string
	trace         []string // the shortest, when broken
}

// step is how a world was first come upon.
type step struct {
	from  uint32
	event event
}

// hashes are those of the worlds that were seen, 127 bits each: two of a
// hundred million worlds share theirs once in 10^22 searches.
type hashes struct {
	slots [][2]uint64 // a power of two of them; the first half of a hash is never 0
	count int
}

// add reports whether a hash is new.
func (h *hashes) add(hash [2]uint64) bool {
	if h.count*2 >= len(h.slots) {
		old := h.slots
		h.slots, h.count = make([][2]uint64, max(1024, 4*len(old))), 0
		for _, hash := range old {
			if hash[0] != 0 {
				h.add(hash)
			}
		}
	}
	mask := uint64(len(h.slots) - 1)
	at := hash[1] & mask
	for h.slots[at][0] != 0 {
		if h.slots[at] == hash {
			return false
		}
		at = (at + 1) & mask
	}
	h.slots[at] = hash
	h.count++
	return true
}

// bound is where a search ends that finds nothing; 0 is no bound.
type bound struct{ worlds, depth int }

// search looks at every world that can be come to, those near first, until one
// is broken, none is left, or the bound is reached. visit, if any, is called
// for each world once.
func search(s *site, b bound, visit func(w *world)) found {
	begin := time.Now()
	seeds := [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}
	var seen hashes
	steps := []step{{}}
	c := codec{}
	fresh := func(w *world) bool {
		c.bytes, c.at = c.bytes[:0], 0
		s.code(&c, w)
		return seen.add([2]uint64{maphash.Bytes(seeds[0], c.bytes) | 1, maphash.Bytes(seeds[1], c.bytes)})
	}
	root := s.root
	fresh(&root)
	result := found{}
	layer, first := codec{bytes: slices.Clone(c.bytes)}, 0
	within := func() bool {
		return len(steps) < cmp.Or(b.worlds, math.MaxInt) && result.depth < cmp.Or(b.depth, math.MaxInt)
	}
	for ; len(layer.bytes) > 0 && result.broken == "" && within(); result.depth++ {
		layer.at, layer.reading = 0, true
		var next codec
		for ; layer.at < len(layer.bytes) && result.broken == ""; first++ {
			var w world
			s.code(&layer, &w)
			if visit != nil {
				visit(&w)
			}
			s.next(&w, func(e event, n world, broken string) {
				if result.broken != "" || broken == "" && !fresh(&n) {
					return
				}
				steps = append(steps, step{uint32(first), e})
				next.bytes = append(next.bytes, c.bytes...)
				if result.broken = broken; broken != "" {
					result.trace = s.replay(root, steps)
				}
			})
		}
		layer = next
	}
	result.worlds, result.took, result.exhausted = len(steps), time.Since(begin), len(layer.bytes) == 0
	return result
}

// replay tells how the last of the steps was come to.
func (s *site) replay(w world, steps []step) []string {
	var path []event
	for i := uint32(len(steps) - 1); i != 0; i = steps[i].from {
		path = append(path, steps[i].event)
	}
	slices.Reverse(path)
	trace := []string{s.describe(&w)}
	for _, e := range path {
		told := s.tell(&w, e)
		s.next(&w, func(other event, n world, _ string) {
			if other == e {
				w = n
			}
		})
		trace = append(trace, told+"\n        "+s.describe(&w))
	}
	return trace
}

func (f found) report(t *testing.T, name string) {
	t.Helper()
	end := "bounded"
	if f.exhausted {
		end = "exhausted"
	}
	t.Logf("%s: %d worlds, %d deep, %v, %s", name, f.worlds, f.depth, f.took.Round(time.Millisecond), end)
	if f.broken != "" {
		t.Logf("%s after %d steps\n    %s", f.broken, len(f.trace)-1, strings.Join(f.trace, "\n    "))
	}
}

// slipping leaves room for one slip of a clock by a whole nanosecond, which is
// as long as an order may be on its way.
func slipping() Timing {
	t := tiny
	t.G = 2
	return t
}

// short are the smallest constants that the rules allow.
func short() Timing { return Timing{H: 1, LD: 1, LV: 2, F: 1, G: 1} }

// TestSearch looks at every world within its bounds, and finds none in which
// an invariant is broken.
func TestSearch(t *testing.T) {
	if raced {
		t.Skip("one goroutine, and too slow")
	}
	for _, c := range []struct {
		name string
		long bool
		site func() site
	}{
		{"1 voter, 2 letters, one of them twice", false, bounds(short(), 1, 2, 1, budget{copies: 1})},
		{"1 voter, a clock slips", false, bounds(slipping(), 1, 1, 1, budget{slips: 1})},
		{"1 voter, authority given back", false, bounds(tiny, 1, 1, 1, budget{transfers: 1})},
		{"1 voter, a restart", false, bounds(short(), 1, 1, 1, budget{restarts: 1})},
		{"2 voters", false, bounds(short(), 2, 1, 1, budget{})},
		{"3 voters", false, bounds(short(), 3, 1, 1, budget{})},

		{"1 voter, 4 epochs", true, bounds(tiny, 1, 1, 2, budget{})},
		{"1 voter, 2 letters, longer leases", true, bounds(tiny, 1, 2, 1, budget{})},
		{"1 voter, a restart, authority given back", true, bounds(tiny, 1, 1, 1, budget{restarts: 1, transfers: 1})},
		{"1 voter, a clock slips, a restart", true, bounds(slipping(), 1, 1, 1, budget{slips: 1, restarts: 1})},
		{"1 voter, 2 letters, a restart", true, bounds(tiny, 1, 2, 1, budget{restarts: 1})},
		{"1 voter, 2 restarts, 4 epochs", true, bounds(short(), 1, 1, 2, budget{restarts: 2})},
		{"1 voter, 3 letters", true, bounds(short(), 1, 3, 1, budget{})},
		{"2 voters, 2 letters", true, bounds(short(), 2, 2, 1, budget{})},
		{"3 voters, a restart", true, bounds(short(), 3, 1, 1, budget{restarts: 1})},
		{"3 voters, longer leases", true, bounds(tiny, 3, 1, 1, budget{})},
		{"3 voters, 2 letters", true, bounds(short(), 3, 2, 1, budget{})},
	} {
		if c.long && !*long {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			s := c.site()
			f := search(&s, bound{worlds: 20_000_000}, nil)
			f.report(t, c.name)
			if f.broken != "" {
				t.Errorf("broken: %s", f.broken)
			}
			if !f.exhausted {
				t.Errorf("not exhausted")
			}
		})
	}
}

// bounds are those of one search.
func bounds(timing Timing, voters, letters int, epochs Epoch, b budget) func() site {
	return func() site {
		s := newSite(voters, letters, b)
		s.Timing, s.epochs = timing, epochs
		s.root = s.cold()
		return s
	}
}
