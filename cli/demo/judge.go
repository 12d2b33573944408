package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/media"
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
		segments, err := f.segments(ctx)
		if err != nil {
			return err
		}
		facts.Channels = len(bounds(segments))
		if facts.Verdict, err = f.verdict(ctx, account, bounds(segments), facts.Faults); err != nil {
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

// interval is when a channel was recorded.
type interval struct{ from, to time.Time }

func bounds(segments []*tandemv1.Segment) map[string]interval {
	all := map[string]interval{}
	for _, s := range segments {
		i, ok := all[s.Channel]
		if from := s.Start.AsTime(); !ok || from.Before(i.from) {
			i.from = from
		}
		if to := s.End.AsTime(); to.After(i.to) {
			i.to = to
		}
		all[s.Channel] = i
	}
	return all
}

// readers is how many channels are fetched at once: one is read by the
// recorder while another is judged here.
const readers = 4

// verdict judges all channels, as a whole and within what each fault can have
// cost; the latter it adds to the faults.
func (f *floor) verdict(ctx context.Context, account *truth.Account, channels map[string]interval, faults []Fault) (truth.Verdict, error) {
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
			if _, err := whole.Channel(id, recorded.stretches, recorded.gaps); err != nil {
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
func addMissing(account *truth.Account, id string, recorded recording, faults []Fault) error {
	for n := range faults {
		part := account.NewJudge()
		part.From, part.To = faults[n].From, faults[n].To
		v, err := part.Channel(id, crop(recorded.stretches, part.From, part.To), recorded.gaps)
		if err != nil {
			return err
		}
		faults[n].MissingMs = append(faults[n].MissingMs, v.GapMS+v.UnexplainedMS)
	}
	return nil
}

// recording is what a recorder has of one channel.
type recording struct {
	stretches []truth.Stretch
	gaps      []truth.Gap
}

// tail is read beyond the last file: what is only in the journal yet.
const tail = time.Minute

// recorded is a channel's audio as anybody would get it: exported.
func (f *floor) recorded(ctx context.Context, id string, i interval) (recording, error) {
	ctx, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	to := i.to
	if f.options.Keep {
		to = to.Add(tail)
	}
	stream, err := f.media().Export(ctx, connect.NewRequest(&tandemv1.ExportRequest{
		Channel: id, From: timestamppb.New(i.from), To: timestamppb.New(to), Format: tandemv1.Format_FORMAT_WAV,
	}))
	if err != nil {
		return recording{}, fmt.Errorf("export channel %s: %w", id, err)
	}
	defer stream.Close()
	export := &export{stream: stream}
	format, samples, err := media.ReadWAV(export)
	if err == nil {
		_, err = io.Copy(io.Discard, export)
	}
	if err == nil && (export.header == nil || export.trailer == nil) {
		err = errors.New("it is not whole")
	}
	if err != nil {
		return recording{}, fmt.Errorf("export channel %s: %w", id, err)
	}
	r := recording{stretches: []truth.Stretch{{From: export.header.Start.AsTime(), Codec: format.Codec, Samples: samples}}}
	for _, g := range export.trailer.Gaps {
		r.gaps = append(r.gaps, truth.Gap{From: g.From.AsTime(), To: g.To.AsTime(), Cause: g.Cause})
	}
	return r, nil
}

// export reads the bytes of an export, and keeps what comes before and after.
type export struct {
	stream  *connect.ServerStreamForClient[tandemv1.ExportResponse]
	rest    []byte
	header  *tandemv1.ExportHeader
	trailer *tandemv1.ExportTrailer
}

func (e *export) Read(b []byte) (int, error) {
	for len(e.rest) == 0 {
		if !e.stream.Receive() {
			return 0, cmp.Or(e.stream.Err(), io.EOF)
		}
		switch part := e.stream.Msg().Part.(type) {
		case *tandemv1.ExportResponse_Header:
			e.header = part.Header
		case *tandemv1.ExportResponse_Data:
			e.rest = part.Data
		case *tandemv1.ExportResponse_Trailer:
			e.trailer = part.Trailer
		}
	}
	n := copy(b, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

// crop cuts stretches to an interval, so that little is listened to. A bound
// may fall inside a packet: a second more on both sides keeps whole packets.
func crop(stretches []truth.Stretch, from, to time.Time) []truth.Stretch {
	const room = time.Second
	const rate = 8000
	var cut []truth.Stretch
	for _, s := range stretches {
		index := func(t time.Time) int {
			return min(max(0, int(t.Sub(s.From)*rate/time.Second)), len(s.Samples))
		}
		a, b := index(from.Add(-room)), index(to.Add(room))
		if a < b {
			cut = append(cut, truth.Stretch{From: s.From.Add(time.Duration(a) * time.Second / rate), Codec: s.Codec, Samples: s.Samples[a:b]})
		}
	}
	return cut
}

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
