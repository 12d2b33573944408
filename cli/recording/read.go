// Package recording reads back what recorders hold of one channel, and stitches
// what several of them hold into one recording.
package recording

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
	"tandem/internal/call"
	"tandem/internal/media"
	"tandem/internal/stitch"
)

// Recorder is one that may hold something of a channel.
type Recorder struct {
	Name  string
	Media tandemv1connect.MediaServiceClient
}

// Interval is [From, To). Without To it lasts as long as there is audio.
type Interval struct{ From, To time.Time }

// proto is the interval on the wire, where what is open is absent.
func (i Interval) proto() (from, to *timestamppb.Timestamp) {
	if !i.From.IsZero() {
		from = timestamppb.New(i.From)
	}
	if !i.To.IsZero() {
		to = timestamppb.New(i.To)
	}
	return from, to
}

// Take is what one recorder holds of a channel in an interval.
type Take struct {
	part    stitch.Part
	offsets []int64 // of the part's stretches in samples
	start   time.Time
	format  media.WAVFormat
	samples []byte // empty: only gaps are known
	asked   Interval
	told    Interval // of which the recorder knows; empty when it has no segments yet
}

// Read fetches all that a recorder holds of a channel in an interval into
// memory, 8 kB a second. It is nil when that is nothing.
func Read(ctx context.Context, r Recorder, channel string, i Interval) (*Take, error) {
	from, to := i.proto()
	t := &Take{part: stitch.Part{Recorder: r.Name}, asked: i}
	trailer, err := t.export(ctx, r.Media, &tandemv1.ExportRequest{Channel: channel, From: from, To: to, Format: tandemv1.Format_FORMAT_WAV})
	if err != nil && connect.CodeOf(err) != connect.CodeNotFound {
		return nil, fmt.Errorf("export channel %s from %s: %w", channel, r.Name, err)
	}
	segments, err := Segments(ctx, r, channel, i)
	if err != nil {
		return nil, err
	}
	t.part.Stretches, t.offsets = stretches(t.start, trailer.GetStretches(), segments)
	t.part.Gaps = gaps(trailer.GetGaps())
	t.told = told(segments)
	if trailer == nil {
		for _, s := range segments {
			t.part.Gaps = append(t.part.Gaps, within(gaps(s.Gaps), i)...)
		}
	}
	if trailer == nil && len(t.part.Gaps) == 0 {
		return nil, nil
	}
	return t, nil
}

// told is from where to where a recorder knows what it has of a channel and
// what it misses: from its first segment to its last.
func told(segments []*tandemv1.Segment) (i Interval) {
	for _, s := range segments {
		if from := s.Start.AsTime(); i.From.IsZero() || from.Before(i.From) {
			i.From = from
		}
		if to := s.End.AsTime(); to.After(i.To) {
			i.To = to
		}
	}
	return i
}

// export reads one file, and keeps its samples.
func (t *Take) export(ctx context.Context, recorder tandemv1connect.MediaServiceClient, request *tandemv1.ExportRequest) (*tandemv1.ExportTrailer, error) {
	stream, err := recorder.Export(ctx, connect.NewRequest(request))
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	file := &file{stream: stream}
	t.format, t.samples, err = media.ReadWAV(file)
	if err == nil {
		_, err = io.Copy(io.Discard, file)
	}
	if wire := stream.Err(); wire != nil {
		return nil, wire
	}
	if err == nil && (file.header == nil || file.trailer == nil) {
		err = errors.New("it is not whole")
	}
	if err != nil {
		return nil, err
	}
	t.start = file.header.Start.AsTime()
	return file.trailer, nil
}

// file reads the bytes of an export, and keeps what comes before and after.
type file struct {
	stream  *connect.ServerStreamForClient[tandemv1.ExportResponse]
	rest    []byte
	header  *tandemv1.ExportHeader
	trailer *tandemv1.ExportTrailer
}

func (f *file) Read(b []byte) (int, error) {
	for len(f.rest) == 0 {
		if !f.stream.Receive() {
			return 0, cmp.Or(f.stream.Err(), io.EOF)
		}
		switch part := f.stream.Msg().Part.(type) {
		case *tandemv1.ExportResponse_Header:
			f.header = part.Header
		case *tandemv1.ExportResponse_Data:
			f.rest = part.Data
		case *tandemv1.ExportResponse_Trailer:
			f.trailer = part.Trailer
		}
	}
	n := copy(b, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// Segments are the media files that a recorder has of a channel, or of all
// when it is empty, in an interval.
func Segments(ctx context.Context, r Recorder, channel string, i Interval) ([]*tandemv1.Segment, error) {
	from, to := i.proto()
	stream, err := r.Media.ListSegments(ctx, connect.NewRequest(&tandemv1.ListSegmentsRequest{Channel: channel, From: from, To: to}))
	if err != nil {
		return nil, fmt.Errorf("list segments of %s: %w", r.Name, err)
	}
	defer stream.Close()
	var all []*tandemv1.Segment
	for stream.Receive() {
		all = append(all, stream.Msg().Segment)
	}
	if err := stream.Err(); err != nil {
		return nil, fmt.Errorf("list segments of %s: %w", r.Name, err)
	}
	return all, nil
}

func gaps(list []*tandemv1.Gap) []stitch.Gap {
	var all []stitch.Gap
	for _, g := range list {
		all = append(all, stitch.Gap{From: g.From.AsTime(), To: g.To.AsTime(), Cause: call.Cause(g.Cause)})
	}
	return all
}

// within is what of the gaps lies in an interval.
func within(list []stitch.Gap, i Interval) []stitch.Gap {
	var some []stitch.Gap
	for _, g := range list {
		if g.From.Before(i.From) {
			g.From = i.From
		}
		if !i.To.IsZero() && g.To.After(i.To) {
			g.To = i.To
		}
		if g.From.Before(g.To) {
			some = append(some, g)
		}
	}
	return some
}
