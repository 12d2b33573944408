package scenario

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"tandem/cli/audit"
	"tandem/turretsim/truth"
)

// Judgement is what a scenario cost, by the recorded audio itself.
type Judgement struct {
	Channels int           // the switch offered
	LiveLegs int           // on the victims when it happened
	GapMs    []int64       // of each of those legs: what nobody has of it
	LostMs   []int64       // in each of the fault's windows: what nobody has of all channels
	Verdict  truth.Verdict // of all that was judged
}

// Scope is how much is judged besides the live legs' gaps.
type Scope int

const (
	Everything Scope = iota // every channel from beginning to end, where everything is kept
	Around                  // every channel from shortly before the fault to the last look at the floor
	LegsOnly                // the live legs around the fault, where only calls are kept
)

// before is how much earlier than the fault audio may be missing for it: a
// recorder that dies had not yet written its last moment.
const before = time.Second

// readers is how many channels are fetched at once: one is read by the
// recorders while another is judged here.
const readers = 4

// long is how long one channel may take to read.
const long = 30 * time.Second

// Judge holds what recorders have together against the switch's account.
// What the account has must have reached the recorders. One that cannot be
// read is an error: what it alone has would seem to be lost.
func Judge(ctx context.Context, account *truth.Account, recorders audit.Source, fault Fault, scope Scope) (Judgement, error) {
	channels, legs := account.Channels(), liveLegs(account, fault)
	read := audit.Interval{From: account.Origin, To: fault.Ended.Add(tail)}
	if scope == LegsOnly {
		channels = slices.Sorted(maps.Keys(legs))
		read.From = fault.At.Add(-2*before - account.Late())
	}
	j := Judgement{Channels: len(account.Channels()), LostMs: make([]int64, len(fault.Windows))}
	for _, all := range legs {
		j.LiveLegs += len(all)
	}
	var mu sync.Mutex // whole, j
	whole := account.NewJudge()
	if scope == Around || !fault.Scenario.Quality.Perfect() {
		// Of a channel's first or last packet nobody can know that the network lost it, and two copies do not begin and end together.
		whole.From, whole.To = fault.At.Add(-2*before), fault.Ended.Add(-before)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for _, id := range channels {
		g.Go(func() error {
			recorded, err := recording(ctx, recorders, id, read)
			if err != nil {
				return err
			}
			verdicts, err := judgeSpans(account, id, recorded, legs[id])
			if err != nil {
				return err
			}
			windows, err := judgeSpans(account, id, recorded, fault.Windows)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			for _, v := range verdicts {
				j.GapMs = append(j.GapMs, v.SentMS-v.RecordedMS)
				if scope == LegsOnly {
					add(&j.Verdict, v)
				}
			}
			for n, v := range windows {
				j.LostMs[n] += v.SentMS - v.RecordedMS
			}
			if scope == LegsOnly {
				return nil
			}
			_, err = whole.Channel(id, recorded.Stretches, recorded.Gaps)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return Judgement{}, err
	}
	if scope != LegsOnly {
		j.Verdict = whole.Total()
	}
	return j, nil
}

// liveLegs are, for each channel that was on a victim, when legs that were
// live at the fault were heard on it, from shortly before the fault on.
func liveLegs(account *truth.Account, fault Fault) map[string][]audit.Interval {
	legs := map[string][]audit.Interval{}
	for _, l := range account.Legs() {
		for _, part := range l.Parts {
			i := audit.Interval{From: account.Wall(part.From), To: account.Wall(part.To)}
			if part.To == 0 {
				i.To = fault.Ended
			}
			if !fault.Until.IsZero() && i.To.After(fault.Until) {
				i.To = fault.Until
			}
			if i.From.After(fault.At) || !i.To.After(fault.At) || len(part.Channels) == 0 {
				continue
			}
			// What was under way then had been due as much earlier as it was late.
			if from := fault.At.Add(-before - account.Late()); i.From.Before(from) {
				i.From = from
			}
			if id := part.Channels[0]; fault.Channels[id] { // its copies hold the same
				legs[id] = append(legs[id], i)
			}
		}
	}
	return legs
}

// judgeSpans judges each of some times on one channel.
func judgeSpans(account *truth.Account, id string, recorded audit.Recording, spans []audit.Interval) (verdicts []truth.Verdict, err error) {
	for _, i := range spans {
		part := account.NewJudge()
		part.From, part.To = i.From, i.To
		near := recorded.Crop(audit.Interval{From: i.From.Add(-part.Tolerance), To: i.To.Add(part.Tolerance)})
		v, err := part.Channel(id, near.Stretches, near.Gaps)
		if err != nil {
			return nil, err
		}
		verdicts = append(verdicts, v)
	}
	return verdicts, nil
}

// add sums what a report shows.
func add(sum *truth.Verdict, v truth.Verdict) {
	sum.SentMS, sum.RecordedMS, sum.GapMS = sum.SentMS+v.SentMS, sum.RecordedMS+v.RecordedMS, sum.GapMS+v.GapMS
	sum.UnexplainedMS, sum.DuplicatedMS, sum.ForeignMS = sum.UnexplainedMS+v.UnexplainedMS, sum.DuplicatedMS+v.DuplicatedMS, sum.ForeignMS+v.ForeignMS
	sum.Findings = append(sum.Findings, v.Findings...)
}

// tail is more than a recording goes on after the last look at the floor.
const tail = 10 * time.Second

func recording(ctx context.Context, recorders audit.Source, id string, i audit.Interval) (audit.Recording, error) {
	ctx, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	return recorders(ctx, id, i)
}
