package director

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/authority"
	"tandem/internal/pair"
)

// plan is what a seed stands for: a site, a network, and what is done to them.
type plan struct {
	profile   string
	isolated  string
	voters    int
	recorders int
	agents    int
	noise     noise
	strikes   []strike
	toggles   []time.Duration // an agent logs on or off
}

// noise is what the network does to everything.
type noise struct {
	spread            time.Duration // of delays
	loss, tail, twice float64
}

// strike is one fault. It comes at a time of its own, or right after a moment
// at which a director does what is dangerous to interrupt.
type strike struct {
	at     time.Duration // not before
	moment string        // "": at once
	nth    int           // such moment
	after  time.Duration
	deed   string
	lasts  time.Duration
	edge   int // > 0: it ends at the edge of a lease, give or take slip
	slip   time.Duration
	pick   int
}

func (k strike) String() string {
	when := fmt.Sprintf("at %v", k.at)
	if k.moment != "" {
		when += fmt.Sprintf(", at %s %d", k.moment, k.nth)
	}
	if k.after > 0 {
		when += fmt.Sprintf(" + %v", k.after)
	}
	lasts := fmt.Sprint(k.lasts)
	if k.edge > 0 {
		lasts = fmt.Sprintf("until %s%+v", edges[k.edge], k.slip)
	}
	return fmt.Sprintf("%s: %s for %s (%d)", when, k.deed, lasts, k.pick)
}

// edges of leases: of the holder's, of its voters', and when its successor may act.
var edges = []string{"", "LD", "LV", "LV+G"}

// The moments that are dangerous to be struck in.
var moments = []string{"", "", "lease", "lease", "meet", "order", "order", "fence", "INVITE", "release", "handover", "campaign"}

// momentOf names the moment at which a director or a watchdog sends something.
func momentOf(path string) string {
	name := path[strings.LastIndexByte(path, '/')+1:]
	switch name {
	case "Lease", "Meet", "Fence", "Campaign":
		return strings.ToLower(name)
	case "OpenChannels", "UpdateChannels", "CloseChannels", "PutRecords":
		return "order"
	case "Release", "Yield":
		return "release"
	case "Ready", "Failover":
		return "handover"
	}
	return name
}

var deeds = []string{
	"kill active", "kill active", "kill standby", "kill both", "kill host of active",
	"freeze active", "freeze active", "freeze standby", "freeze host of active",
	"cut peers", "cut peers one way", "cut active from recorders", "cut active from a recorder", "cut active from voters one way",
	"isolate active", "isolate active", "isolate standby", "mute active", "deafen active",
	"cut active from switch", "cut standby from switch", "cut standby from a recorder", "slow active",
	"kill a recorder", "kill recorders", "freeze a recorder", "isolate a recorder",
	"kill a watchdog", "stop active", "switch hangs up", "hand over", "hand over",
}

// begin is when the first fault may come: the preferred director leads, and the
// channels are attached.
func (p plan) begin() time.Duration {
	t := pair.Profiles[p.profile]
	return t.LV + 2*t.G + 3*t.H
}

// last is when the last fault may come, and healed when all are over.
func (p plan) last() time.Duration {
	return p.begin() + 2*pair.Profiles[p.profile].LV + 200*time.Millisecond
}
func (p plan) healed() time.Duration {
	end := p.last() + 600*time.Millisecond
	for _, k := range p.strikes {
		end = max(end, k.at+k.lasts)
	}
	return end
}

// plots are faults that are dangerous together: what somebody forgets by a
// restart while the other one relies on it, and what arrives long after it was
// sent where nobody else has been since. About how long each lasts is left to
// chance.
var plots = []plot{forgottenPromise, forgottenLeases, stranded, lateFence, partingWords, freshStart, minority}

type plot func(*rand.Rand, plan) []strike

// forgottenPromise: a promise is forgotten, the voters are free, and its holder has nothing else.
func forgottenPromise(r *rand.Rand, p plan) []strike {
	lv, at, pick := pair.Profiles[p.profile].LV, p.begin(), r.IntN(12)
	alone := at + around(r, lv+lv/4)
	return []strike{
		{at: at, deed: "cut active from recorders", lasts: around(r, 3*lv), pick: pick},
		{at: alone, deed: "kill standby"},
		{at: alone + around(r, lv/50), deed: "cut peers", lasts: around(r, 2*lv)},
	}
}

// forgottenLeases: leases are forgotten while their holder cannot be heard, and nobody has promised it anything.
func forgottenLeases(r *rand.Rand, p plan) []strike {
	lv, at := pair.Profiles[p.profile].LV, p.begin()
	alone := at + lv + around(r, lv/2)
	return []strike{
		{at: at, deed: "cut peers", lasts: 4 * lv},
		{at: alone, deed: "isolate active", lasts: around(r, 2*lv)},
		{at: alone + around(r, lv/50), deed: "kill recorders", lasts: respawn},
	}
}

// stranded: one that only the switch still reaches has something to do.
func stranded(r *rand.Rand, p plan) []strike {
	lv, at := pair.Profiles[p.profile].LV, p.begin()
	return []strike{
		{at: at, deed: "cut peers", lasts: 4 * lv},
		{at: at, deed: "cut active from recorders", lasts: 4 * lv},
		{at: at + lv + around(r, lv), deed: "switch hangs up"},
	}
}

// lateFence: a fence arrives late at a recorder that its successor cannot reach.
func lateFence(r *rand.Rand, p plan) []strike {
	lv, at, pick := pair.Profiles[p.profile].LV, p.begin(), r.IntN(12)
	return []strike{
		{at: at, deed: "cut standby from a recorder", lasts: 5 * lv, pick: pick},
		{at: at, deed: "kill a recorder", lasts: respawn, pick: pick},
		{at: at + 10*time.Millisecond, moment: "fence", nth: 1, deed: "freeze host of active", lasts: lv + around(r, lv)},
	}
}

// partingWords: one gives way while what it said is still under way.
func partingWords(r *rand.Rand, p plan) []strike {
	at, pick := p.begin(), r.IntN(12)
	return []strike{
		{at: at, deed: "cut standby from a recorder", lasts: around(r, time.Second), pick: pick},
		{at: at, moment: "order", nth: 1 + r.IntN(2), deed: "slow active", lasts: around(r, 100*time.Millisecond)},
		{at: at, moment: "order", nth: 1 + r.IntN(2), after: around(r, time.Millisecond), deed: "hand over"},
	}
}

// freshStart: everybody begins again, and one of them does not reach the voters.
func freshStart(r *rand.Rand, p plan) []strike {
	lv, at := pair.Profiles[p.profile].LV, p.begin()
	return []strike{
		{at: at, deed: "kill both"},
		{at: at, deed: "kill a watchdog", lasts: around(r, 2*lv), pick: r.IntN(2)},
		{at: at + around(r, lv), deed: "cut active from recorders", lasts: around(r, 2*lv)},
	}
}

// minority: one of three voters stays with the one in charge.
func minority(r *rand.Rand, p plan) []strike {
	lv, at := pair.Profiles[p.profile].LV, p.begin()
	return []strike{
		{at: at, deed: "cut peers", lasts: around(r, 3*lv)},
		{at: at + around(r, lv/50), deed: "cut active from a recorder", lasts: around(r, 3*lv), pick: 1},
		{at: at + around(r, lv/50), deed: "cut active from a recorder", lasts: around(r, 3*lv), pick: 2},
	}
}

// around is something between half and one and a half of d.
func around(r *rand.Rand, d time.Duration) time.Duration {
	return d/2 + time.Duration(r.Int64N(int64(d)))
}

func newPlan(seed uint64) plan { return newPlanWith(seed, nil) }

// newPlanWith is a seed's plan with a certain plot in it; nil: as it comes.
func newPlanWith(seed uint64, plot plot) plan {
	r := rand.New(rand.NewPCG(seed, 0x7a11de3))
	p := plan{profile: "steady", isolated: "wait", voters: 1, recorders: 1 + r.IntN(2), agents: 2 + r.IntN(2)}
	if r.IntN(2) == 0 {
		p.profile = "fast"
	}
	if r.IntN(4) > 0 {
		p.voters, p.recorders = 3, 2+r.IntN(2)
	} else if r.IntN(3) == 0 {
		p.isolated = "take_over"
	}
	p.noise.spread = time.Millisecond
	switch r.IntN(4) {
	case 0:
		p.noise = noise{spread: 5 * time.Millisecond, loss: 0.01, tail: 0.02, twice: 0.05}
	case 1:
		p.noise = noise{spread: 20 * time.Millisecond, loss: 0.03, tail: 0.05, twice: 0.1}
	}
	if plot == nil && r.IntN(2) == 0 {
		plot = plots[r.IntN(len(plots))]
	}
	if plot != nil {
		p.strikes = plot(r, p)
	}
	for range 1 + r.IntN(4) - min(len(p.strikes), 1) {
		p.strikes = append(p.strikes, newStrike(r, p))
	}
	for range r.IntN(3) {
		p.toggles = append(p.toggles, p.begin()+time.Duration(r.Int64N(int64(p.last()-p.begin()))))
	}
	return p
}

func newStrike(r *rand.Rand, p plan) strike {
	k := strike{
		at: p.begin() + time.Duration(r.Int64N(int64(p.last()-p.begin()))), moment: moments[r.IntN(len(moments))], nth: 1 + r.IntN(3),
		deed: deeds[r.IntN(len(deeds))], pick: r.IntN(12),
	}
	if r.IntN(2) == 0 {
		k.after = time.Duration(r.Int64N(int64(30 * time.Millisecond)))
	}
	switch r.IntN(4) {
	case 0:
		k.lasts = time.Duration(r.Int64N(int64(200 * time.Millisecond)))
	case 1:
		k.lasts = 200*time.Millisecond + time.Duration(r.Int64N(int64(1200*time.Millisecond)))
	case 2:
		k.lasts = 1200*time.Millisecond + time.Duration(r.Int64N(int64(2*time.Second)))
	default:
		k.edge, k.slip = 1+r.IntN(len(edges)-1), time.Duration(r.Int64N(int64(3*time.Millisecond)))-1500*time.Microsecond
	}
	return k
}

// strikeAll arms every strike.
func (s *sim) strikeAll() {
	for i, k := range s.plan.strikes {
		go func() {
			time.Sleep(k.at - time.Since(s.began))
			if k.moment == "" {
				s.strike(k)
				return
			}
			s.mu.Lock()
			s.armed[i] = k.nth
			s.mu.Unlock()
		}()
	}
	for n, at := range s.plan.toggles {
		go func() {
			time.Sleep(at - time.Since(s.began))
			s.exchange.toggle(n)
		}()
	}
}

// sends meets the strikes that wait for what a process is about to send.
func (s *sim) sends(p *process, path string, body []byte) {
	if p.director == nil && path == tandemv1connect.VoterServiceReleaseProcedure {
		var r tandemv1.ReleaseRequest
		if err := proto.Unmarshal(body, &r); err != nil {
			s.violated("release", "%s sends what nobody can read: %v", p.place.name, err)
		}
		s.released(authority.Epoch(r.GetEpoch()), r.GetBy())
	}
	s.mu.Lock()
	s.messages++
	s.lookLocked()
	if len(s.armed) == 0 || s.over {
		s.mu.Unlock()
		return
	}
	moment := momentOf(path)
	var due []strike
	for i := range s.plan.strikes {
		if k := s.plan.strikes[i]; s.armed[i] > 0 && k.moment == moment {
			if s.armed[i]--; s.armed[i] == 0 {
				delete(s.armed, i)
				due = append(due, k)
			}
		}
	}
	s.mu.Unlock()
	for _, k := range due {
		if k.after == 0 {
			s.strike(k)
			continue
		}
		go func() {
			time.Sleep(k.after)
			s.strike(k)
		}()
	}
}

// strike does a deed, and has it undone.
func (s *sim) strike(k strike) {
	if time.Since(s.began) >= s.plan.healed() || s.stopping() {
		return
	}
	active, standby := s.holder()
	s.mu.Lock()
	if !s.struck {
		s.struck, s.epochs = true, 0
	}
	s.mu.Unlock()
	lasts := k.lasts
	if k.edge > 0 {
		end := s.until(active)
		switch edges[k.edge] {
		case "LV":
			end = end.Add(s.timing.LV - s.timing.LD)
		case "LV+G":
			end = end.Add(s.timing.LV - s.timing.LD + s.timing.G)
		}
		lasts = max(0, time.Until(end)+k.slip)
	}
	s.note("FAULT", "%s, active %s, for %v", k.deed, active.director.name, lasts)
	undo := s.do(k, active, standby, lasts)
	if undo == nil {
		return
	}
	go func() {
		time.Sleep(lasts)
		undo()
	}()
}

func (s *sim) stopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

// do does a deed; what it returns undoes it.
func (s *sim) do(k strike, active, standby *seat, lasts time.Duration) func() {
	recorder := s.booths[k.pick%len(s.booths)].place
	switch k.deed {
	case "kill active":
		return s.killed(respawn, active.director)
	case "kill standby":
		return s.killed(respawn, standby.director)
	case "kill both":
		return s.killed(respawn, active.director, standby.director)
	case "kill host of active":
		return s.killed(max(lasts, respawn), active.director, active.watchdog)
	case "freeze active":
		return s.freezing(active.director)
	case "freeze standby":
		return s.freezing(standby.director)
	case "freeze host of active":
		return s.freezing(active.director, active.watchdog)
	case "cut peers":
		return s.cutting(ways(active.host, standby.host))
	case "cut peers one way":
		if k.pick%2 == 0 {
			return s.cutting(outward(active.host, standby.host))
		}
		return s.cutting(inward(active.host, standby.host))
	case "cut active from recorders":
		return s.cutting(ways(active.host, s.recorderHosts()...))
	case "cut active from a recorder":
		return s.cutting(ways(active.host, recorder.host))
	case "cut standby from a recorder":
		return s.cutting(ways(standby.host, recorder.host))
	case "slow active":
		return s.slowing(active.host)
	case "cut active from voters one way":
		if k.pick%2 == 0 {
			return s.cutting(outward(active.host, s.recorderHosts()...))
		}
		return s.cutting(inward(active.host, s.recorderHosts()...))
	case "isolate active":
		return s.cutting(ways(active.host, s.hosts(active.host)...))
	case "isolate standby":
		return s.cutting(ways(standby.host, s.hosts(standby.host)...))
	case "mute active":
		return s.cutting(outward(active.host, s.hosts(active.host)...))
	case "deafen active":
		return s.cutting(inward(active.host, s.hosts(active.host)...))
	case "cut active from switch":
		return s.cutting(ways(active.host, s.exchange.place.host))
	case "cut standby from switch":
		return s.cutting(ways(standby.host, s.exchange.place.host))
	case "kill a recorder":
		return s.killed(max(lasts, respawn), recorder)
	case "kill recorders":
		var all []*place
		for _, b := range s.booths {
			all = append(all, b.place)
		}
		return s.killed(max(lasts, respawn), all...)
	case "freeze a recorder":
		return s.freezing(recorder)
	case "isolate a recorder":
		return s.cutting(ways(recorder.host, s.hosts(recorder.host)...))
	case "kill a watchdog":
		return s.killed(max(lasts, respawn), s.seats[k.pick%2].watchdog)
	case "switch hangs up":
		s.exchange.hangUp()
		return nil
	case "stop active":
		s.stop(active.director)
		return nil
	case "hand over":
		go s.handOver(standby.director.name, []*seat{active, standby}[k.pick%2])
		return nil
	}
	panic("no deed " + k.deed)
}

// killed ends what runs at places, and has it started again after a while.
func (s *sim) killed(after time.Duration, places ...*place) func() {
	for _, at := range places {
		if p := s.running(at); p != nil {
			s.end(p, after)
		}
	}
	return nil
}

func (s *sim) freezing(places ...*place) func() {
	var all []*process
	for _, at := range places {
		if p := s.running(at); p != nil {
			s.freeze(p)
			all = append(all, p)
		}
	}
	return func() {
		for _, p := range all {
			s.thaw(p)
		}
	}
}

// slowing lets whatever leaves a host take about as long as an order may.
func (s *sim) slowing(host string) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slow[host]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.slow[host]--
	}
}

func (s *sim) cutting(ways []way) func() {
	s.cut(ways...)
	return func() { s.heal(ways...) }
}

// stop ends a director as SIGTERM does, and starts the next one.
func (s *sim) stop(at *place) {
	p := s.running(at)
	if p == nil {
		return
	}
	s.note(at.name, "is told to stop")
	go func() {
		p.director.pair.leave()
		s.end(p, respawn)
	}()
}

// mend ends all faults: nothing is cut or frozen, and everything runs.
func (s *sim) mend() {
	s.note("FAULT", "all faults are over")
	s.mu.Lock()
	clear(s.armed)
	clear(s.slow)
	var cut []way
	for w := range s.cuts {
		cut = append(cut, w)
	}
	s.mu.Unlock()
	s.heal(cut...)
	for _, at := range s.order {
		if p := s.running(at); p != nil {
			s.thaw(p)
		}
		s.restart(at)
	}
}
