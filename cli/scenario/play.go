package scenario

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/cli/audit"
)

// Floor is what a scenario is played on. Its methods are called by one
// goroutine.
type Floor interface {
	// Act does something to a recorder and returns when it is done.
	Act(ctx context.Context, a Action, recorder string) error
	// Status is how the director sees its floor.
	Status(ctx context.Context) (*tandemv1.StatusResponse, error)
	// Legs is how many legs the switch has.
	Legs(ctx context.Context) (int, error)
	// Channels are the ids of those a recorder has, as the director sees it.
	Channels(ctx context.Context, recorder string) ([]string, error)
}

// Pace says how long the steps of a scenario may take or shall last.
type Pace struct {
	Legs    int           // live before anything is broken
	Attach  time.Duration // for every channel to be attached, at the start
	Steady  time.Duration // for the floor to be steady again
	Linger  time.Duration // between steady and healed, and after that
	Instant time.Duration // the fault comes within so long, by the seed
	Pause   time.Duration // between two steps of a fault, at most
}

// DefaultPace suits a floor of a thousand channels on one machine. A recorder
// that heard nothing is trusted again after half a minute, and not before, so a
// floor is whole again no sooner.
func DefaultPace() Pace {
	return Pace{Attach: 30 * time.Second, Steady: 45 * time.Second, Linger: 2 * time.Second, Instant: 2 * time.Second, Pause: time.Minute}
}

// Fault is what was done and how the director saw it.
type Fault struct {
	Scenario  Scenario
	Seed      uint64
	Victims   []string
	Channels  map[string]bool // the victims', before the fault
	At        time.Time
	Windows   []audit.Interval // in which everything missing is counted, whosever it was
	Detect    time.Duration    // until the director said so; negative: never
	Steady    time.Duration    // until nothing moved and everything was recorded that could be; negative: never
	Stranded  int              // channels that found no room
	Alarmed   int              // of those with an alarm
	HealedAt  time.Time
	Until     time.Time     // up to then the live legs are judged; zero: to their ends
	Ended     time.Time     // the last look at the floor
	Late      time.Duration // how late the switch's own sender has been, at worst
	Recovered bool          // the floor was whole again in the end
	Rule      *Rule         // what became of the directors, of a scenario about them
	Twin      *Twin         // what became of the second group, of a scenario with two
}

const look = 20 * time.Millisecond

// Play plays one scenario to its end. It returns an error only where the
// scenario could not be played; a floor that does not recover is a finding.
func Play(ctx context.Context, floor Floor, s Scenario, seed uint64, pace Pace, say func(format string, args ...any)) (Fault, error) {
	p := player{ctx: ctx, floor: floor, pace: pace, say: say, fault: Fault{Scenario: s, Seed: seed, Detect: -1, Steady: -1}}
	act := []func() error{p.begin, p.harm, p.heal}
	if s.Pair != nil {
		act = []func() error{p.playPair}
	}
	for _, do := range act {
		if err := do(); err != nil {
			return Fault{}, fmt.Errorf("play %s: %w", s.Name, err)
		}
	}
	p.partTwin()
	return p.fault, nil
}

type player struct {
	ctx   context.Context
	floor Floor
	pace  Pace
	say   func(format string, args ...any)
	fault Fault
	twin  *tandemv1.StatusResponse // how the second group was before; nil: there is none
}

// begin waits for a whole floor with people talking, and for the instant.
func (p *player) begin() error {
	var status *tandemv1.StatusResponse
	if !p.until(p.pace.Attach, func() bool {
		status = p.status()
		return whole(status)
	}) {
		return fmt.Errorf("within %v: %s", p.pace.Attach, summary(status))
	}
	if p.fault.Scenario.Twin {
		if err := p.meetTwin(); err != nil {
			return err
		}
	}
	legs := 0
	if !p.until(p.pace.Attach, func() bool {
		legs, _ = p.floor.Legs(p.ctx)
		return legs >= p.pace.Legs
	}) {
		return fmt.Errorf("within %v: %d legs, want %d", p.pace.Attach, legs, p.pace.Legs)
	}
	random := rand.New(rand.NewPCG(p.fault.Seed, 0x1AB))
	p.rest(time.Duration(random.Int64N(int64(p.pace.Instant) + 1)))
	p.fault.Victims = victims(p.status(), p.fault.Scenario.Victims)
	if len(p.fault.Victims) < p.fault.Scenario.Victims {
		return fmt.Errorf("%d recorders, and one must be left", len(status.GetRecorders()))
	}
	p.fault.Channels = map[string]bool{}
	for _, v := range p.fault.Victims {
		ids, err := p.floor.Channels(p.ctx, v)
		if err != nil {
			return err
		}
		for _, id := range ids {
			p.fault.Channels[id] = true
		}
	}
	return p.ctx.Err()
}

// victims are the recorders that hold most; at least one is left over, unless
// it is everybody.
func victims(s *tandemv1.StatusResponse, n int) []string {
	recorders := slices.SortedStableFunc(slices.Values(s.GetRecorders()), func(a, b *tandemv1.RecorderStatus) int {
		return int(b.GetLoad().GetChannels()) - int(a.GetLoad().GetChannels())
	})
	if n != everybody {
		recorders = recorders[:max(0, min(n, len(recorders)-1))]
	}
	var names []string
	for _, r := range recorders {
		names = append(names, r.GetName())
	}
	return names
}

func (p *player) harm() error {
	legs, _ := p.floor.Legs(p.ctx)
	p.fault.At = time.Now()
	if err := p.act(p.fault.Scenario.Harm); err != nil {
		return err
	}
	p.say("%s: %s, %d legs live", strings.Join(p.fault.Victims, " and "), p.fault.Scenario.Text, legs)
	if after := p.fault.Scenario.HealAfter; after > 0 {
		p.until(after, func() bool { p.notice(); return time.Since(p.fault.At) >= after })
		return p.ctx.Err()
	}
	p.awaitSteady(p.fault.Scenario.Tight)
	return p.ctx.Err()
}

// heal ends the fault and waits for a whole floor.
func (p *player) heal() error {
	if p.fault.Scenario.HealAfter == 0 {
		p.rest(p.pace.Linger)
	}
	p.fault.HealedAt = time.Now()
	if err := p.act(p.fault.Scenario.Heal); err != nil {
		return err
	}
	if p.fault.Scenario.HealAfter > 0 {
		p.awaitSteady(false)
	}
	var status *tandemv1.StatusResponse
	p.fault.Recovered = p.until(p.pace.Steady, func() bool {
		status = p.status()
		return whole(status)
	})
	if p.ctx.Err() != nil {
		return p.ctx.Err()
	}
	if p.fault.Recovered {
		p.say("whole again %s after it was mended", milliseconds(time.Since(p.fault.HealedAt)))
	} else {
		p.say("not whole again: %s", summary(status))
	}
	p.rest(p.pace.Linger)
	p.fault.Ended = time.Now()
	return p.ctx.Err()
}

func (p *player) act(actions []Action) error {
	for _, victim := range p.fault.Victims {
		for _, a := range actions {
			if err := p.floor.Act(p.ctx, a, victim); err != nil {
				return fmt.Errorf("%s %s: %w", a, victim, err)
			}
		}
	}
	return nil
}

// calm is how long the floor must stay steady to count.
const calm = 500 * time.Millisecond

// awaitSteady watches the floor until it has been steady for a while, and
// notes since when. A fault that was not noticed cannot be over at once: the
// director gets a second to notice it.
func (p *player) awaitSteady(tight bool) {
	var since time.Time
	var last *tandemv1.StatusResponse
	p.until(p.pace.Steady, func() bool {
		s := p.notice()
		last = s
		noticed := p.fault.Detect >= 0 || time.Since(p.fault.At) > time.Second
		if !noticed || !steady(s, tight) {
			since = time.Time{}
			return false
		}
		if since.IsZero() {
			since = time.Now()
		}
		return time.Since(since) >= calm
	})
	if since.IsZero() && p.ctx.Err() == nil {
		p.say("not steady: %s", summary(last))
	}
	if since.IsZero() {
		return
	}
	p.fault.Steady = since.Sub(p.fault.At)
	p.fault.Stranded, p.fault.Alarmed = stranded(last)
	p.say("noticed after %s, steady after %s: %s", milliseconds(p.fault.Detect), milliseconds(p.fault.Steady), summary(last))
}

// notice looks whether the director has seen the fault.
func (p *player) notice() *tandemv1.StatusResponse {
	s := p.status()
	if p.fault.Detect < 0 && noticed(s, p.fault.Victims) {
		p.fault.Detect = time.Since(p.fault.At)
	}
	return s
}

func (p *player) status() *tandemv1.StatusResponse {
	s, _ := p.floor.Status(p.ctx) // none is not steady
	return s
}

// until looks at the floor until done says so; false when that took too long.
func (p *player) until(patience time.Duration, done func() bool) bool {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); p.ctx.Err() == nil; {
		if done() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		select {
		case <-p.ctx.Done():
		case <-tick.C:
		}
	}
	return false
}

func (p *player) rest(d time.Duration) {
	end := time.Now().Add(d)
	p.until(d+time.Second, func() bool { return !time.Now().Before(end) })
}

func director(s *tandemv1.StatusResponse) *tandemv1.DirectorStatus {
	if len(s.GetDirectors()) == 0 {
		return nil
	}
	return s.Directors[0]
}

// Steady tells whether nothing of a floor is on its way, and all of it recorded.
func Steady(s *tandemv1.StatusResponse) bool { return steady(s, false) }

// steady tells whether nothing is on its way any more. On a tight floor what
// found no room may wait, if somebody was told.
func steady(s *tandemv1.StatusResponse, tight bool) bool {
	d := director(s)
	if d.GetChannels() == 0 || d.GetMoving() > 0 {
		return false
	}
	if tight {
		missing, alarmed := stranded(s)
		return missing > 0 && alarmed > 0
	}
	return d.GetAttached() == d.GetChannels() && d.GetUnrecorded() == 0
}

// whole is steady with every recorder there.
func whole(s *tandemv1.StatusResponse) bool {
	for _, r := range s.GetRecorders() {
		if r.GetState() != "ready" {
			return false
		}
	}
	return len(s.GetRecorders()) > 0 && steady(s, false)
}

// noticed tells whether the director thinks worse of a victim than ready.
func noticed(s *tandemv1.StatusResponse, victims []string) bool {
	for _, r := range s.GetRecorders() {
		if r.GetState() != "ready" && slices.Contains(victims, r.GetName()) {
			return true
		}
	}
	return slices.ContainsFunc(s.GetAlarms(), func(a *tandemv1.Alarm) bool { return slices.Contains(victims, a.GetObject()) })
}

// stranded is how many channels are not recorded, and how many alarms say so.
func stranded(s *tandemv1.StatusResponse) (channels, alarms int) {
	for _, a := range s.GetAlarms() {
		if a.GetWhat() == "no_recorder" {
			alarms++
		}
	}
	return int(director(s).GetUnrecorded()), alarms
}

// summary is a floor in one line.
func summary(s *tandemv1.StatusResponse) string {
	if s == nil {
		return "the director does not answer"
	}
	d := director(s)
	text := fmt.Sprintf("%d of %d channels attached, %d moving, %d unrecorded", d.GetAttached(), d.GetChannels(), d.GetMoving(), d.GetUnrecorded())
	for _, r := range s.GetRecorders() {
		text += fmt.Sprintf(", %s %s %d", r.GetName(), r.GetState(), r.GetLoad().GetChannels())
	}
	return text
}

func milliseconds(d time.Duration) string {
	if d < 0 {
		return "never"
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}
