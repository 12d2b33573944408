package demo

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/cli/audit"
	"tandem/cli/scenario"
	"tandem/internal/call"
	"tandem/turretsim/truth"
)

// settle is how long after the switch said what it sent all of that is
// certainly kept: its log and the recorders' sweeps are late by less.
const settle = 500 * time.Millisecond

// judge holds every channel's recorded audio, from all recorders together,
// against the switch's truth log, and the recorders' account of whom they
// obeyed against what may be.
func (f *floor) judge(ctx context.Context, recorder *RecorderFault, director *DirectorFault, group *GroupFault) (Result, error) {
	account, err := truth.Load(f.path(truthLog))
	if err != nil {
		return Result{}, err
	}
	if err := f.wait(ctx, settle+time.Second, "", pause(settle)); err != nil {
		return Result{}, err
	}
	obedience, err := f.obedience()
	if err != nil {
		return Result{}, err
	}
	director.Stale = scenario.Stale(obedience)
	facts := Facts{Seed: f.options.Seed, Turrets: f.options.Turrets, Calls: f.calls, Late: account.Late(), Directory: f.dir}
	result := Result{Config: f.path(recctlFile), Media: f.dir, Twin: f.twin != nil}
	windows, until := []audit.Interval{director.window()}, time.Time{}
	if group != nil {
		windows, until = append(windows, group.window()), group.window().From // what is missing from then on is that fault's
	}
	if err := f.during(ctx, func() error {
		judged, err := scenario.Judge(ctx, account.Copy(call.CopyA), audit.From(f.mediaOf(f.recorders)), scenario.Fault{At: recorder.When, Channels: recorder.Channels, Windows: windows, Until: until, Ended: time.Now()}, scenario.Everything)
		if err != nil {
			return err
		}
		facts.Channels, facts.Verdict, recorder.MissingMs, director.LostMs = judged.Channels, judged.Verdict, judged.GapMs, judged.LostMs[0]
		if group != nil {
			group.LostMs = judged.LostMs[1]
			if err := f.judgeTwin(ctx, account, group); err != nil {
				return err
			}
		}
		result.Example, err = f.example(ctx)
		return err
	}); err != nil {
		return Result{}, err
	}
	facts.Faults, facts.Duration = []Fault{recorder, director}, f.elapsed()
	if group != nil {
		facts.Faults = append(facts.Faults, group)
	}
	result.Report = NewReport(facts)
	return result, nil
}

// pause is done after so long.
func pause(d time.Duration) func() bool {
	end := time.Now().Add(d)
	return func() bool { return !time.Now().Before(end) }
}

// example is a call with a leg that was live when the recorder was killed, the
// one that went on longest; empty when there was none.
func (f *floor) example(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	var best string
	var latest time.Time
	legs, recorders := f.live, f.recorders
	if f.twin != nil {
		legs, recorders = f.twin.live, f.twin.recorders
	}
	for _, live := range legs {
		for _, r := range recorders {
			answer, err := f.media(r).GetCall(ctx, connect.NewRequest(&tandemv1.GetCallRequest{Call: live.Call.GetId()}))
			if connect.CodeOf(err) == connect.CodeNotFound {
				continue // it has no part in it
			}
			if err != nil {
				return "", fmt.Errorf("look up call %s: %w", live.Call.GetId(), err)
			}
			for _, l := range answer.Msg.Legs {
				if leg := l.Record.GetLeg(); leg.GetEnd() != nil && leg.GetEnd().AsTime().After(latest) {
					best, latest = leg.Call, leg.GetEnd().AsTime()
				}
			}
		}
	}
	return best, nil
}
