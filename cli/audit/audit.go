// Package audit hears a recorder from outside: it reads back what the recorder
// gives anybody, so that it can be held against what was really said.
package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/media"
	"tandem/turretsim/truth"
)

// Interval is [From, To).
type Interval struct{ From, To time.Time }

// Segments are all media files of a recorder.
func Segments(ctx context.Context, recorder tandemv1connect.MediaServiceClient) ([]*tandemv1.Segment, error) {
	stream, err := recorder.ListSegments(ctx, connect.NewRequest(&tandemv1.ListSegmentsRequest{}))
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	defer stream.Close()
	var all []*tandemv1.Segment
	for stream.Receive() {
		all = append(all, stream.Msg().Segment)
	}
	if err := stream.Err(); err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	return all, nil
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

// Recording is what a recorder has of one channel.
type Recording struct {
	Stretches []truth.Stretch
	Gaps      []truth.Gap
}

// Export is a channel's audio as anybody would get it.
func Export(ctx context.Context, recorder tandemv1connect.MediaServiceClient, channel string, i Interval) (Recording, error) {
	stream, err := recorder.Export(ctx, connect.NewRequest(&tandemv1.ExportRequest{
		Channel: channel, From: timestamppb.New(i.From), To: timestamppb.New(i.To), Format: tandemv1.Format_FORMAT_WAV,
	}))
	if err != nil {
		return Recording{}, fmt.Errorf("export channel %s: %w", channel, err)
	}
	defer stream.Close()
	file := &export{stream: stream}
	format, samples, err := media.ReadWAV(file)
	if err == nil {
		_, err = io.Copy(io.Discard, file)
	}
	if err == nil && (file.header == nil || file.trailer == nil) {
		err = errors.New("it is not whole")
	}
	if err != nil {
		return Recording{}, fmt.Errorf("export channel %s: %w", channel, err)
	}
	r := Recording{Stretches: []truth.Stretch{{From: file.header.Start.AsTime(), Codec: format.Codec, Samples: samples}}}
	for _, g := range file.trailer.Gaps {
		r.Gaps = append(r.Gaps, truth.Gap{From: g.From.AsTime(), To: g.To.AsTime(), Cause: g.Cause})
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
