package scenario

import (
	"context"
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
	Verdict  truth.Verdict // of all channels, from beginning to end
}

// before is how much earlier than the fault audio may be missing for it: a
// recorder that dies had not yet written its last moment.
const before = time.Second

// readers is how many channels are fetched at once: one is read by the
// recorders while another is judged here.
const readers = 4

// long is how long one channel may take to read.
const long = 30 * time.Second

// Judge holds what all recorders together have against the switch's truth
// log. Recorders that cannot be read are an error.
func Judge(ctx context.Context, truthLog string, recorders []audit.Media, fault Fault) (Judgement, error) {
	account, err := truth.Load(truthLog)
	if err != nil {
		return Judgement{}, err
	}
	channels := account.Channels()
	everything := audit.Interval{From: account.Origin, To: fault.Ended.Add(tail)}
	legs := liveLegs(account, fault)
	j := Judgement{Channels: len(channels)}
	for _, all := range legs {
		j.LiveLegs += len(all)
	}
	var mu sync.Mutex // whole, j
	whole := account.NewJudge()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for _, id := range channels {
		g.Go(func() error {
			recorded, err := recording(ctx, recorders, id, everything)
			if err != nil {
				return err
			}
			gaps, err := legGaps(account, id, recorded, legs[id])
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			j.GapMs = append(j.GapMs, gaps...)
			_, err = whole.Channel(id, recorded.Stretches, recorded.Gaps)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return Judgement{}, err
	}
	j.Verdict = whole.Total()
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
			if i.From.After(fault.At) || !i.To.After(fault.At) || len(part.Channels) == 0 {
				continue
			}
			if from := fault.At.Add(-before); i.From.Before(from) {
				i.From = from
			}
			if id := part.Channels[0]; fault.Channels[id] { // its copies hold the same
				legs[id] = append(legs[id], i)
			}
		}
	}
	return legs
}

// legGaps is what is missing of each leg on one channel.
func legGaps(account *truth.Account, id string, recorded audit.Recording, legs []audit.Interval) (gaps []int64, err error) {
	for _, i := range legs {
		part := account.NewJudge()
		part.From, part.To = i.From, i.To
		near := recorded.Crop(i)
		v, err := part.Channel(id, near.Stretches, near.Gaps)
		if err != nil {
			return nil, err
		}
		gaps = append(gaps, v.SentMS-v.RecordedMS)
	}
	return gaps, nil
}

// tail is more than a recording goes on after the last look at the floor.
const tail = time.Minute

func recording(ctx context.Context, recorders []audit.Media, id string, i audit.Interval) (audit.Recording, error) {
	ctx, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	return audit.Export(ctx, recorders, id, i)
}
