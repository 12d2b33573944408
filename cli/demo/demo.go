// Package demo runs a whole floor on loopback, as real processes: a simulated
// switch, two directors with their watchdogs, three recorders. In the middle
// of trading it kills a recorder, while the others go on with its channels,
// and starts it again; then it kills the director in charge, while the other
// one goes on, and starts that again. With a second group beside, for the other
// copy of every mix, it kills the whole first group, too. In the end it judges by the recorded
// audio itself what was kept, what is in a gap, and why.
package demo

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"tandem/cli/process"
)

// Options say what floor to run.
type Options struct {
	Turrets int
	Seed    uint64
	Dir     string // holds everything; empty: a new one in the temporary directory
	Keep    bool   // stay up after the report until the context ends
	Twin    bool   // a second group records every call, too, and the whole first one is killed
}

// View shows a demo as it goes. Its methods are called one at a time.
type View interface {
	// Event tells of a step, at a time since the demo began.
	Event(at time.Duration, text string)
	// Sample shows how the floor is, several times a second.
	Sample(Sample)
}

// Result is what a demo found out and where to look further.
type Result struct {
	Report  Report
	Config  string // recctl's configuration for this floor, a file
	Media   string // directory of all recorders' directories
	Example string // a call that was live when the recorder, or the group, was killed; may be empty
	Twin    bool   // there are two groups
}

// The story: when what happens, since the demo began.
const (
	killAfter    = 12 * time.Second
	returnAfter  = 5 * time.Second        // after the fault: long enough to see that nobody misses it
	restartAfter = 300 * time.Millisecond // as systemd's RestartSec in our units

	directorKillAfter   = 20 * time.Second
	directorReturnAfter = 2 * time.Second // after the fault
	failbackHold        = 3 * time.Second // which is short: nobody watches a demo for half a minute
	tradeAfter          = 2 * time.Second // after the last fault is over
	mixes               = 4               // channels a turret
	recorders           = 3

	upPatience    = 10 * time.Second // for a daemon to answer
	floorPatience = 15 * time.Second // for all agents to be attached
	legsPatience  = 10 * time.Second // for somebody to talk
	quietPatience = 8 * time.Second  // for calls to end, for the journal to be compacted
	stopPatience  = 3 * time.Second

	failbackPatience = 20 * time.Second // for the watchdog to hand control back
)

// Run plays the demo and hands its result to report. Every process is gone
// when it returns, however it ends. With Keep the end of ctx after the report
// is the wanted end and no error.
func Run(ctx context.Context, o Options, view View, report func(Result) error) error {
	runtime.LockOSThread() // the processes' lives hang on this thread: see process.Process.Start
	defer runtime.UnlockOSThread()
	f, err := newFloor(o, view)
	if err != nil {
		return err
	}
	defer f.close()
	result, err := f.play(ctx)
	if err != nil {
		return err
	}
	if err := report(result); err != nil || !o.Keep {
		return err
	}
	f.stopSamples() // recctl status --watch shows more
	if _, err := f.simulator().Ask(ctx, http.MethodPost, "/fault/start_calls"); err != nil {
		return err
	}
	return f.supervise(ctx)
}

// supervise keeps every daemon alive until ctx ends, as systemd would: whoever
// looks around may kill one.
func (f *floor) supervise(ctx context.Context) error {
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	due := map[*process.Process]time.Time{}
	for {
		for _, p := range f.processes() {
			switch at, dead := due[p]; {
			case dead && !time.Now().Before(at):
				delete(due, p)
				if err := p.Start(); err != nil {
					return err
				}
			case !dead && p.Died():
				f.say("%s died; it is started again", p.Name)
				due[p] = time.Now().Add(restartAfter)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
	}
}

// play is the story from the first process to the judgement.
func (f *floor) play(ctx context.Context) (Result, error) {
	if err := f.open(ctx); err != nil {
		return Result{}, err
	}
	recorder, err := f.killRecorder(ctx)
	if err != nil {
		return Result{}, err
	}
	director, err := f.killDirector(ctx)
	if err != nil {
		return Result{}, err
	}
	group, err := f.killGroup(ctx)
	if err != nil {
		return Result{}, err
	}
	if err := f.until(ctx, f.elapsed()+tradeAfter); err != nil {
		return Result{}, err
	}
	if err := f.fallSilent(ctx); err != nil {
		return Result{}, err
	}
	f.say("judging the recorded audio against what the switch sent")
	return f.judge(ctx, recorder, director, group)
}

// makeDir makes the directory of a demo.
func makeDir(dir string) (string, error) {
	if dir == "" {
		return os.MkdirTemp("", "tandem-demo-*")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("%s is not empty; give --dir a new directory", dir)
	}
	return dir, err
}
