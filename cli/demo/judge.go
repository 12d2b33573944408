package demo

import (
	"context"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/cli/audit"
	"tandem/turretsim/truth"
)

// settle is how long after the switch said what it sent all of that is
// certainly kept: its log and the recorder's sweep are late by less.
const settle = 500 * time.Millisecond

// judge holds every channel's recorded audio against the switch's truth log.
func (f *floor) judge(ctx context.Context, faults ...Fault) (Result, error) {
	account, err := truth.Load(f.path(truthLog))
	if err != nil {
		return Result{}, err
	}
	if err := f.wait(ctx, settle+time.Second, "", pause(settle)); err != nil {
		return Result{}, err
	}
	facts := Facts{Seed: f.options.Seed, Turrets: f.options.Turrets, Calls: f.calls, Directory: f.dir, Faults: faults}
	result := Result{Director: f.directorAt, Media: f.path("recorder/media")}
	if err := f.during(ctx, func() error {
		bounds, err := f.bounds(ctx)
		if err != nil {
			return err
		}
		facts.Channels = len(bounds)
		if facts.Verdict, err = f.verdict(ctx, account, bounds, facts.Faults); err != nil {
			return err
		}
		result.Example, err = f.example(ctx)
		return err
	}); err != nil {
		return Result{}, err
	}
	facts.Duration = f.elapsed()
	result.Report = NewReport(facts)
	return result, nil
}

// pause is done after so long.
func pause(d time.Duration) func() bool {
	end := time.Now().Add(d)
	return func() bool { return !time.Now().Before(end) }
}

// readers is how many channels are fetched at once: one is read by the
// recorder while another is judged here.
const readers = 4

// verdict judges all channels, as a whole and within what each fault can have
// cost; the latter it adds to the faults.
func (f *floor) verdict(ctx context.Context, account *truth.Account, channels map[string]audit.Interval, faults []Fault) (truth.Verdict, error) {
	var mu sync.Mutex // whole, faults
	whole := account.NewJudge()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for id, i := range channels {
		g.Go(func() error {
			recorded, err := f.recorded(ctx, id, i)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if _, err := whole.Channel(id, recorded.Stretches, recorded.Gaps); err != nil {
				return err
			}
			return addMissing(account, id, recorded, faults)
		})
	}
	if err := g.Wait(); err != nil {
		return truth.Verdict{}, err
	}
	return whole.Total(), nil
}

// addMissing adds to each fault what it cost on one channel.
func addMissing(account *truth.Account, id string, recorded audit.Recording, faults []Fault) error {
	for n := range faults {
		part := account.NewJudge()
		part.From, part.To = faults[n].From, faults[n].To
		near := recorded.Crop(audit.Interval{From: part.From, To: part.To})
		v, err := part.Channel(id, near.Stretches, near.Gaps)
		if err != nil {
			return err
		}
		faults[n].MissingMs = append(faults[n].MissingMs, v.GapMS+v.UnexplainedMS)
	}
	return nil
}

// tail is read beyond the last file: what is only in the journal yet.
const tail = time.Minute

// recorded is a channel's audio as anybody would get it: exported.
func (f *floor) recorded(ctx context.Context, id string, i audit.Interval) (audit.Recording, error) {
	ctx, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	if f.options.Keep {
		i.To = i.To.Add(tail)
	}
	return audit.Export(ctx, f.recorders(), id, i)
}

// bounds are when each channel was recorded.
func (f *floor) bounds(ctx context.Context) (map[string]audit.Interval, error) {
	ctx, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	return audit.Channels(ctx, f.recorders())
}

// recorders are all that hold recordings.
func (f *floor) recorders() []audit.Media { return []audit.Media{f.media()} }

// example is a call with a leg that was live when the recorder was killed, the
// longest; empty when there was none.
func (f *floor) example(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	var best string
	var longest time.Duration
	for _, live := range f.live {
		r, err := f.media().GetCall(ctx, connect.NewRequest(&tandemv1.GetCallRequest{Call: live.Call.GetId()}))
		if err != nil {
			return "", fmt.Errorf("look up call %s: %w", live.Call.GetId(), err)
		}
		for _, l := range r.Msg.Legs {
			leg := l.Record.GetLeg()
			if d := leg.GetEnd().AsTime().Sub(leg.GetStart().AsTime()); leg.GetEnd() != nil && d > longest {
				best, longest = leg.Call, d
			}
		}
	}
	return best, nil
}
