// Package lab is a trading floor on hosts of its own within this machine: a
// switch, a director or a pair of them with their watchdogs, and recorders, as
// real processes, each host in a network namespace, joined by a media network
// and a management network whose cables can be pulled one by one; where a
// scenario wants it, a second group beside, for the other copy of every mix. It breaks
// them on purpose and measures what that costs. It needs root, and touches nothing outside its namespaces but its
// directory.
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"tandem/cli/audit"
	"tandem/cli/scenario"
	"tandem/internal/call"
	"tandem/turretsim/truth"
)

// Options say how large a lab is and what happens in it.
type Options struct {
	Scenarios []scenario.Scenario
	Seeds     int    // each scenario is played with so many
	Seed      uint64 // the first of them
	Turrets   int
	Mixes     int // channels a turret
	Legs      int // live before anything is broken; 0: as many as come
	Recorders int
	Targets   bool   // missing one is a finding
	Keep      bool   // all logs and recordings, not only those with findings
	Dir       string // for them
	Pace      scenario.Pace
}

// Missing says what the machine lacks for a lab; nil when it lacks nothing.
func Missing() error {
	if os.Geteuid() != 0 {
		return errors.New("the lab makes network namespaces: it needs root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return errors.New("the lab plugs its cables with ip, of iproute2: install that")
	}
	h, err := newHost("trial")
	if err != nil {
		return fmt.Errorf("this machine gives no namespaces: %w", err)
	}
	h.close()
	return nil
}

// Run plays every scenario with every seed, each on a new floor, and hands
// each result to done as it comes. It ends early with the context. A scenario
// that this machine has no disk for is left out, and said to be.
func Run(ctx context.Context, o Options, say func(format string, args ...any), done func(scenario.Result)) error {
	for n := range o.Seeds {
		for _, s := range o.Scenarios {
			result, err := play(ctx, o, s, o.Seed+uint64(n), say)
			if errors.Is(err, errNoDisk) {
				say("%s left out: %v", s.Name, err)
				continue
			}
			if err != nil {
				return err
			}
			done(result)
			if o.Keep || len(result.Findings(o.Targets)) > 0 {
				continue
			}
			if err := os.RemoveAll(result.Directory); err != nil {
				return fmt.Errorf("clean up: %w", err)
			}
		}
	}
	return nil
}

// play plays one scenario on a new floor, which is gone when it returns.
func play(ctx context.Context, o Options, s scenario.Scenario, seed uint64, say func(format string, args ...any)) (r scenario.Result, err error) {
	dir := filepath.Join(o.Dir, fmt.Sprintf("%s-%d", s.Name, seed))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return r, fmt.Errorf("make directory: %w", err)
	}
	r.Began, r.Directory = time.Now(), dir
	f, err := newFloor(o, s, seed, dir)
	if err != nil {
		return r, fmt.Errorf("build the lab: %w", err)
	}
	defer f.close()
	if err := f.start(ctx); err != nil {
		return r, err
	}
	pace := o.Pace
	pace.Legs = o.Legs
	if r.Fault, err = scenario.Play(ctx, f, s, seed, pace, say); err != nil {
		return r, fmt.Errorf("%w; the logs are in %s", err, dir)
	}
	last, err := f.fallSilent(ctx)
	if err != nil {
		return r, err
	}
	account, err := truth.Load(f.truthLog())
	if err != nil {
		return r, err
	}
	r.Calls, r.Fault.Late = last.CallsMade, account.Late()
	if err := f.judge(ctx, account, &r); err != nil {
		return r, fmt.Errorf("judge %s: %w; the logs are in %s", s.Name, err, dir)
	}
	return r, nil
}

// judge holds what each group has, and both together, against the account.
func (f *floor) judge(ctx context.Context, account *truth.Account, r *scenario.Result) (err error) {
	recorders := mediaOf(f.recorders)
	if r.Judgement, err = scenario.Judge(ctx, account.Copy(call.CopyA), audit.From(recorders), r.Fault, scenario.Everything); err != nil || f.twin == nil {
		return err
	}
	t := r.Fault.Twin
	t.Turns = account.Copy(call.CopyB).Turns(r.Fault.At, r.Fault.Ended)
	t.Secondary, t.Merged, err = scenario.JudgeTwins(ctx, account, recorders, mediaOf(f.twin.recorders), r.Fault)
	return err
}
