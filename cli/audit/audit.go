// Package audit hears recorders from outside: it reads back what they give
// anybody, as one recording, so that it can be held against what was really
// said.
package audit

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/cli/recording"
	"tandem/internal/call"
	"tandem/turretsim/truth"
)

// Media is how a recorder is asked.
type Media = tandemv1connect.MediaServiceClient

// Interval is [From, To).
type Interval = recording.Interval

// Channels are when each channel was recorded, by any of the recorders, from
// its first file to its last.
func Channels(ctx context.Context, recorders []Media) (map[string]Interval, error) {
	var all []*tandemv1.Segment
	for _, r := range numbered(recorders) {
		segments, err := recording.Segments(ctx, r, "", Interval{})
		if err != nil {
			return nil, err
		}
		all = append(all, segments...)
	}
	return Bounds(all), nil
}

// numbered gives recorders names, for errors to tell them apart.
func numbered(recorders []Media) []recording.Recorder {
	all := make([]recording.Recorder, len(recorders))
	for n, m := range recorders {
		all[n] = recording.Recorder{Name: fmt.Sprint("recorder ", n+1), Media: m}
	}
	return all
}

// Bounds are when each channel was recorded, from its first file to its last.
func Bounds(segments []*tandemv1.Segment) map[string]Interval {
	all := map[string]Interval{}
	for _, s := range segments {
		i, ok := all[s.Channel]
		if from := s.Start.AsTime(); !ok || from.Before(i.From) {
			i.From = from
		}
		if to := s.End.AsTime(); to.After(i.To) {
			i.To = to
		}
		all[s.Channel] = i
	}
	return all
}

// Recording is what there is of one channel.
type Recording struct {
	Stretches []truth.Stretch
	Gaps      []truth.Gap
}

// Source is where audio is heard from: all that there is of a channel in an
// interval. It is safe for concurrent use.
type Source func(ctx context.Context, channel string, i Interval) (Recording, error)

// From is what recorders hold together of their channels.
func From(recorders []Media) Source {
	return func(ctx context.Context, channel string, i Interval) (Recording, error) {
		return Export(ctx, recorders, channel, i)
	}
}

// Merged is what two groups hold together: the channel is that of a mix, without
// its copy, and where the primary's copy has a hole it is filled from the
// secondary's.
func Merged(primary, secondary []Media) Source {
	return func(ctx context.Context, mix string, i Interval) (Recording, error) {
		a, err := join(ctx, primary, mix+"."+string(call.CopyA), i)
		if err != nil {
			return Recording{}, fmt.Errorf("the primary group: %w", err)
		}
		b, err := join(ctx, secondary, mix+"."+string(call.CopyB), i)
		if err != nil {
			return Recording{}, fmt.Errorf("the secondary group: %w", err)
		}
		merged, _ := recording.Merge(a, b)
		return heard(merged), nil
	}
}

// Export is a channel's audio as anybody would get it, stitched from what the
// recorders hold of it. One that does not answer is an error: what it alone
// holds would seem to be lost.
func Export(ctx context.Context, recorders []Media, channel string, i Interval) (Recording, error) {
	whole, err := join(ctx, recorders, channel, i)
	if err != nil {
		return Recording{}, err
	}
	return heard(whole), nil
}

func join(ctx context.Context, recorders []Media, channel string, i Interval) (recording.Recording, error) {
	takes := make([]*recording.Take, len(recorders))
	g, ctx := errgroup.WithContext(ctx)
	for n, r := range numbered(recorders) {
		g.Go(func() (err error) {
			takes[n], err = recording.Read(ctx, r, channel, i)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return recording.Recording{}, err
	}
	return recording.Join(takes), nil
}

// heard is a recording as the judge takes it.
func heard(whole recording.Recording) Recording {
	var r Recording
	if len(whole.Samples) > 0 {
		r.Stretches = []truth.Stretch{{From: whole.Start, Codec: whole.Format.Codec, Samples: whole.Samples}}
	}
	for _, gap := range whole.Gaps {
		from := whole.Start.Add(gap.At) // by the clock of the audio beside it
		r.Gaps = append(r.Gaps, truth.Gap{From: from, To: from.Add(gap.Length), Cause: string(gap.Cause)})
	}
	return r
}

// Crop is the recording cut to an interval, so that little is listened to. A bound
// may fall inside a packet: a second more on both sides keeps whole packets.
func (r Recording) Crop(i Interval) Recording {
	const room = time.Second
	const rate = 8000
	cut := Recording{Gaps: r.Gaps}
	for _, s := range r.Stretches {
		index := func(t time.Time) int {
			return min(max(0, int(t.Sub(s.From)*rate/time.Second)), len(s.Samples))
		}
		a, b := index(i.From.Add(-room)), index(i.To.Add(room))
		if a < b {
			cut.Stretches = append(cut.Stretches, truth.Stretch{From: s.From.Add(time.Duration(a) * time.Second / rate), Codec: s.Codec, Samples: s.Samples[a:b]})
		}
	}
	return cut
}
