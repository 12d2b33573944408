package director

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tandem/internal/authority"
	"tandem/internal/bubble"
	"tandem/internal/pair"
)

// sim is one run of a whole site: two directors and the watchdogs beside them,
// recorders and witnesses that vote, and a switch, in the bubble of one test.
// Directors, watchdogs and voters are the real ones; the network, the hosts,
// the recorders' disks and the switch are made up, and fail as the seed says.
type sim struct {
	seed     uint64
	plan     plan
	sabotage sabotage
	timing   authority.Timing
	dir      string
	began    time.Time

	places    map[string]*place // by address
	order     []*place
	booths    []*booth // recorders, then witnesses
	recorders []*booth
	voters    []string
	seats     []*seat // the preferred one first
	directors []*place
	exchange  *exchange

	mu       sync.Mutex // never held while anybody waits
	pids     int
	cuts     map[way]chan struct{}
	slow     map[string]int // hosts whose packets take their time
	armed    map[int]int    // strikes that wait for a moment: how many such moments are still to pass
	owners   map[authority.Epoch]string
	acted    authority.Epoch          // the highest whose holder was past its guard
	unproven map[authority.Epoch]bool // begun or kept without proof, which is said in status
	struck   bool
	over     bool
	orders   int
	epochs   int
	messages int
	broken   string
	timeline []line
}

// verdict is what came of a run.
type verdict struct {
	broken   string // "": nothing
	lasted   time.Duration
	epochs   int // that somebody acted under, after the first fault
	orders   int // that were obeyed
	messages int
	timeline []line
	plan     plan
}

// calm is for how long all must have been well.
const calm = 300 * time.Millisecond

// play plays a plan in a bubble.
func play(t *testing.T, seed uint64, plan plan, sabotage sabotage) (v verdict) {
	dir := simDir(t)
	defer os.RemoveAll(dir)
	bubble.Test(t, func(t *testing.T) {
		s := newSim(seed, plan, sabotage, dir)
		v = s.run()
	})
	return v
}

// simDir is in memory where there is such a place: voters sync what they write.
func simDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "tandem-sim-")
	if err != nil {
		return t.TempDir()
	}
	return dir
}

func newSim(seed uint64, plan plan, sabotage sabotage, dir string) *sim {
	s := &sim{
		seed: seed, plan: plan, sabotage: sabotage, dir: dir, began: time.Now(),
		places: make(map[string]*place), cuts: make(map[way]chan struct{}), armed: make(map[int]int), slow: make(map[string]int),
		owners: make(map[authority.Epoch]string), unproven: make(map[authority.Epoch]bool),
	}
	s.timing = pair.Profiles[s.plan.profile]
	for n := range max(s.plan.voters, s.plan.recorders) {
		records := n < s.plan.recorders
		name := fmt.Sprint("rec-", n+1)
		if !records {
			name = fmt.Sprint("wit-", n+1)
		}
		b := s.addBooth(name, records)
		s.booths = append(s.booths, b)
		if records {
			s.recorders = append(s.recorders, b)
		}
		if n < s.plan.voters {
			s.voters = append(s.voters, b.address)
		}
	}
	s.exchange = newExchange(s, s.plan.agents)
	s.seats = []*seat{s.addSeat("a", true), s.addSeat("b", false)}
	for _, seat := range s.seats {
		s.directors = append(s.directors, seat.director)
	}
	return s
}

// run lets the site begin, fail, and come to rest.
func (s *sim) run() verdict {
	s.startAll()
	s.strikeAll()
	for time.Since(s.began) < s.plan.healed() && s.whole() {
		time.Sleep(s.step())
		s.look()
	}
	if s.whole() {
		s.mend()
		s.rest()
	}
	v := s.verdict()
	s.finish()
	return v
}

// startAll starts every program, no two at the same instant.
func (s *sim) startAll() {
	for _, at := range s.order {
		go func() {
			time.Sleep(time.Duration(s.chance("start", at.name).Int64N(int64(20 * time.Millisecond))))
			s.restart(at)
		}()
	}
}

// step is how often the oracles look: at everything that is sent, and so often besides.
func (s *sim) step() time.Duration { return 2 * time.Millisecond }

func (s *sim) whole() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken == ""
}

// bound is how long a site may take to come to rest after its last fault: a
// restart, its silence, a candidacy, a failback, and what a held connection or
// an unanswered INVITE takes to be given up.
func (s *sim) bound() time.Duration {
	return respawn + s.timing.LV + s.timing.G + 2*s.timing.LV + failbackHold + 14*time.Second
}

// rest waits until all has been well for a while.
func (s *sim) rest() {
	began, since, why := time.Now(), time.Time{}, ""
	for s.whole() {
		time.Sleep(10 * time.Millisecond)
		now := time.Now()
		if why = s.unrest(); why != "" {
			since = time.Time{}
		} else if since.IsZero() {
			since = now
		}
		switch {
		case !since.IsZero() && now.Sub(since) >= calm:
			return
		case now.Sub(began) > s.bound():
			s.violated("rest", "%v after the last fault: %s", now.Sub(began), why)
		}
	}
}

// finish ends everything, so that the bubble can.
func (s *sim) finish() {
	s.mu.Lock()
	s.over = true
	var cut []way
	for w := range s.cuts {
		cut = append(cut, w)
	}
	s.mu.Unlock()
	s.heal(cut...)
	for _, at := range s.order {
		if p := s.running(at); p != nil {
			s.thaw(p)
			s.kill(p)
		}
	}
	time.Sleep(farEnd) // whatever still waits for a timer gets it; nothing costs any time
}

// farEnd is longer than anything waits.
const farEnd = time.Minute

func (s *sim) verdict() verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	return verdict{broken: s.broken, lasted: time.Since(s.began), epochs: s.epochs, orders: s.orders, messages: s.messages, timeline: s.timeline, plan: s.plan}
}

// story is the timeline as people read it.
func (v verdict) story() string {
	var b strings.Builder
	for _, l := range v.timeline {
		fmt.Fprintf(&b, "%10.3f ms  %-8s %s\n", float64(l.at)/float64(time.Millisecond), l.who, l.text())
	}
	return b.String()
}

// simSeeds is how many seeds a run of the tests plays: make sim says more.
func simSeeds() int {
	if n, err := strconv.Atoi(os.Getenv("TANDEM_SIM_SEEDS")); err == nil {
		return n
	}
	if raceEnabled {
		return 20
	}
	return 100
}

// simulating reports whether this is make sim.
func simulating() bool { return os.Getenv("TANDEM_SIM_SEEDS") != "" }

// A site that is broken in every way never has two directors in charge, and
// comes to rest when it is whole again.
func TestSimulation(t *testing.T) {
	t.Parallel()
	first, seeds := uint64(1), simSeeds()
	if n, err := strconv.ParseUint(os.Getenv("TANDEM_SIM_SEED"), 10, 64); err == nil {
		first, seeds = n, 1
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // most of it is garbage
	var next atomic.Uint64
	next.Store(first)
	began := time.Now()
	var simulated atomic.Int64
	t.Run("seeds", func(t *testing.T) {
		for n := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint("worker", n), func(t *testing.T) {
				t.Parallel()
				for !t.Failed() {
					seed := next.Add(1) - 1
					if seed >= first+uint64(seeds) {
						return
					}
					v := play(t, seed, newPlan(seed), sabotage(os.Getenv("TANDEM_SIM_SABOTAGE")))
					simulated.Add(int64(v.lasted))
					if v.broken != "" || os.Getenv("TANDEM_SIM_SEED") != "" {
						report(t, seed, v)
					}
				}
			})
		}
	})
	t.Logf("%d seeds, %v simulated, in %v", seeds, time.Duration(simulated.Load()).Round(time.Second), time.Since(began).Round(time.Millisecond))
}

func report(t *testing.T, seed uint64, v verdict) {
	var strikes strings.Builder
	for _, k := range v.plan.strikes {
		fmt.Fprintf(&strikes, "  %s\n", k)
	}
	show := t.Logf
	if v.broken != "" {
		show = t.Errorf
	}
	show("seed %d: %s\n%s\n%s%s\nreplay: make sim SEED=%d", seed, v.broken, v.plan, strikes.String(), v.story(), seed)
}
