package demo

import (
	"context"
	"fmt"
	"slices"
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/cli/audit"
	"tandem/cli/process"
	"tandem/cli/scenario"
	"tandem/internal/call"
	"tandem/turretsim/truth"
)

// The groups of a floor with two.
const (
	primary   = "primary"
	secondary = "secondary"
)

const (
	groupKillAfter   = 2 * time.Second // after the last fault is over
	groupReturnAfter = 5 * time.Second // after the fault
	twinRecorders    = 2
	twinPorts        = 3 // a director's that stands alone: control, metrics, sip
)

// twin is the second group of a floor: a director that stands alone and its
// recorders, for copy B of every mix.
type twin struct {
	director  *director
	recorders []*recorder
	before    *tandemv1.StatusResponse // how it was when the primary group was killed
	after     *tandemv1.StatusResponse // and when that was back
	whole     time.Time                // since when both were
	live      []*tandemv1.LegRecord    // when the primary group was killed
	quiet     time.Time                // when the last call was over
}

// newTwin is a second group whose recorders follow so many of the first.
func newTwin(dir string, first int) (*twin, error) {
	p, err := process.New("director", "dir-c", dir)
	if err != nil {
		return nil, err
	}
	t := &twin{director: &director{Process: p}}
	for n := first; n < first+twinRecorders; n++ {
		r, err := newRecorder(n, dir)
		if err != nil {
			return nil, err
		}
		t.recorders = append(t.recorders, r)
	}
	return t, nil
}

// processes are the twin's, what commands before what is commanded.
func (t *twin) processes() []*process.Process {
	if t == nil {
		return nil
	}
	all := []*process.Process{t.director.Process}
	for _, r := range t.recorders {
		all = append(all, r.Process)
	}
	return all
}

// copies are those that the switch offers of each mix.
func (f *floor) copies() []call.Copy {
	if f.twin == nil {
		return []call.Copy{call.CopyA}
	}
	return []call.Copy{call.CopyA, call.CopyB}
}

func (f *floor) configureTwin(free []string, ctiAt string) error {
	if f.twin == nil {
		return nil
	}
	d := f.twin.director
	d.at = free[0]
	keys := f.directorKeys(d, f.twin.recorders, ctiAt, free[2])
	keys["group"], keys["secondary"], keys["metrics"] = secondary, true, free[1]
	return d.Configure(keys)
}

// openTwin brings the second group up and waits until it has every channel.
func (f *floor) openTwin(ctx context.Context, channels int) error {
	if f.twin == nil {
		return nil
	}
	for _, r := range f.twin.recorders {
		if err := f.begin(ctx, r.Process, func() bool { return f.inventory(ctx, r) != nil }); err != nil {
			return err
		}
	}
	if err := f.begin(ctx, f.twin.director.Process, func() bool { return allReady(f.statusOf(ctx, f.twin.director)) }); err != nil {
		return err
	}
	if err := f.wait(ctx, floorPatience, fmt.Sprintf("%d channels to be attached to the second group", channels), func() bool {
		return int(itself(f.statusOf(ctx, f.twin.director)).GetAttached()) >= channels
	}); err != nil {
		return err
	}
	f.twin.whole = time.Now()
	f.say("secondary group up: dir-c and %d recorders have copy B of all %d channels", len(f.twin.recorders), channels)
	return nil
}

// killGroup kills every process of the primary group at once, starts them
// again some seconds later, and waits until the group keeps every channel.
func (f *floor) killGroup(ctx context.Context) (*GroupFault, error) {
	if f.twin == nil {
		return nil, nil
	}
	if err := f.until(ctx, f.elapsed()+groupKillAfter); err != nil {
		return nil, err
	}
	if err := f.wait(ctx, legsPatience, "somebody to talk", func() bool {
		f.twin.live = f.liveOn(ctx, f.twin.recorders)
		return len(f.twin.live) > 0
	}); err != nil {
		return nil, err
	}
	f.twin.before = f.statusOf(ctx, f.twin.director)
	fault := &GroupFault{When: time.Now(), LiveLegs: len(f.twin.live)}
	fault.At = fault.When.Sub(f.began)
	group := f.group()
	for _, p := range group {
		p.Kill()
	}
	f.say("SIGKILL to the whole primary group, %d processes, %d legs live; only the secondary is left", len(group), fault.LiveLegs)
	if err := f.until(ctx, fault.At+groupReturnAfter); err != nil {
		return nil, err
	}
	slices.Reverse(group) // recorders first, watchdogs last
	for _, p := range group {
		if err := p.Start(); err != nil {
			return nil, err
		}
	}
	f.say("the primary group is started again")
	if err := f.awaitGroup(ctx); err != nil {
		return nil, err
	}
	fault.Back, f.twin.after = time.Since(fault.When), f.statusOf(ctx, f.twin.director)
	f.say("the primary group keeps all channels again after %d ms; what it missed the secondary has", fault.Back.Milliseconds())
	return fault, nil
}

// group is everything of the primary: watchdogs, who might help, first.
func (f *floor) group() (all []*process.Process) {
	for _, d := range f.directors {
		all = append(all, d.watchdog)
	}
	for _, d := range f.directors {
		all = append(all, d.Process)
	}
	for _, r := range f.recorders {
		all = append(all, r.Process)
	}
	return all
}

// awaitGroup waits until the primary group has every channel, and packets on
// each.
func (f *floor) awaitGroup(ctx context.Context) error {
	began, channels := time.Now(), f.options.Turrets*mixes
	return f.wait(ctx, failbackPatience, "the primary group to keep every channel", func() bool {
		s := f.status(ctx)
		if itself(s).GetRole() != active || !allReady(s) || !scenario.Steady(s) {
			return false
		}
		heard := 0
		for _, r := range f.recorders {
			heard += heardSince(f.inventory(ctx, r), began)
		}
		return heard >= channels
	})
}

// liveOn are the legs that last on some recorders.
func (f *floor) liveOn(ctx context.Context, recorders []*recorder) (all []*tandemv1.LegRecord) {
	for _, r := range recorders {
		if legs, err := f.ongoing(ctx, r); err == nil {
			all = append(all, legs...)
		}
	}
	return all
}

// judgeTwin judges what the second group has and what both have together, and
// that the second one did not notice anything.
func (f *floor) judgeTwin(ctx context.Context, account *truth.Account, fault *GroupFault) error {
	if f.twin == nil {
		return nil
	}
	// Both are judged from when both had every channel to when calls ended.
	around := scenario.Fault{At: f.twin.whole.Add(2 * time.Second), Ended: f.twin.quiet}
	t := &scenario.Twin{Noticed: scenario.Noticed(f.twin.before, f.twin.after, true), Turns: account.Copy(call.CopyB).Turns(fault.When, fault.When.Add(fault.Back))}
	var err error
	t.Secondary, t.Merged, err = scenario.JudgeTwins(ctx, account, f.mediaOf(f.recorders), f.mediaOf(f.twin.recorders), around)
	fault.Twin = t
	return err
}

func (f *floor) mediaOf(recorders []*recorder) (all []audit.Media) {
	for _, r := range recorders {
		all = append(all, f.media(r))
	}
	return all
}
