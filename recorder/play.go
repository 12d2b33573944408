package recorder

import (
	"bufio"
	"context"
	"errors"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/call"
	"tandem/recorder/catalog"
	"tandem/recorder/playback"
)

// chunk is how much of a file goes into one message.
const chunk = 64 << 10

func (m *mediaAPI) GetCall(ctx context.Context, r *connect.Request[tandemv1.GetCallRequest]) (*connect.Response[tandemv1.GetCallResponse], error) {
	records, _, err := m.catalog.Search(ctx, catalog.Query{Call: call.CallID(r.Msg.GetCall())})
	if err != nil {
		return nil, unavailable(err)
	}
	response := &tandemv1.GetCallResponse{}
	for _, rec := range records {
		parts, err := m.player.Parts(ctx, rec.Leg)
		if err != nil {
			return nil, mediaError(err)
		}
		detail := &tandemv1.LegDetail{Record: m.recordProto(rec)}
		for _, p := range parts {
			detail.Parts = append(detail.Parts, m.partProto(p))
		}
		response.Legs = append(response.Legs, detail)
	}
	return connect.NewResponse(response), nil
}

func (m *mediaAPI) partProto(p playback.Part) *tandemv1.Part {
	part := &tandemv1.Part{Recorder: m.name, Channel: string(p.Channel), From: timeProto(p.From), To: timeProto(p.To), Gaps: gapsProto(p.Gaps)}
	for _, s := range p.Segments {
		part.Segments = append(part.Segments, segmentProto(s))
	}
	return part
}

func (m *mediaAPI) Export(ctx context.Context, r *connect.Request[tandemv1.ExportRequest], stream *connect.ServerStream[tandemv1.ExportResponse]) error {
	request := playback.Request{
		Call: call.CallID(r.Msg.GetCall()), Leg: call.LegID(r.Msg.GetLeg()), Channel: call.ChannelID(r.Msg.GetChannel()),
		Window: catalog.Window{From: timeFrom(r.Msg.GetFrom()), To: timeFrom(r.Msg.GetTo())}, Format: playback.WAV,
	}
	if r.Msg.GetFormat() == tandemv1.Format_FORMAT_FLAC {
		request.Format = playback.FLAC
	}
	export, err := m.player.Export(ctx, request)
	if err != nil {
		return mediaError(err)
	}
	defer export.Close()
	if err := stream.Send(&tandemv1.ExportResponse{Part: &tandemv1.ExportResponse_Header{Header: headerProto(export.Header)}}); err != nil {
		return err
	}
	w := bufio.NewWriterSize(exportStream{stream}, chunk)
	trailer, err := export.Write(ctx, w)
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return mediaError(err)
	}
	return stream.Send(&tandemv1.ExportResponse{Part: &tandemv1.ExportResponse_Trailer{
		Trailer: &tandemv1.ExportTrailer{Gaps: gapsProto(trailer.Gaps), Sha256: trailer.SHA256, Stretches: stretchesProto(trailer.Stretches)},
	}})
}

func stretchesProto(stretches []playback.Stretch) []*tandemv1.Stretch {
	out := make([]*tandemv1.Stretch, len(stretches))
	for i, s := range stretches {
		out[i] = &tandemv1.Stretch{Offset: s.At, Samples: s.Samples, Ssrc: s.SSRC, FirstTs: s.FirstTS}
	}
	return out
}

func headerProto(h playback.Header) *tandemv1.ExportHeader {
	p := &tandemv1.ExportHeader{
		Start: timeProto(h.Start), Size: uint64(h.Size), DurationMs: h.Duration.Milliseconds(), Codec: codecProto(h.Codec), SampleRate: uint32(h.SampleRate),
	}
	for _, channel := range h.Channels {
		p.Channels = append(p.Channels, string(channel))
	}
	return p
}

// exportStream sends what is written to it.
type exportStream struct {
	stream *connect.ServerStream[tandemv1.ExportResponse]
}

func (s exportStream) Write(p []byte) (int, error) {
	if err := s.stream.Send(&tandemv1.ExportResponse{Part: &tandemv1.ExportResponse_Data{Data: p}}); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (m *mediaAPI) Verify(ctx context.Context, r *connect.Request[tandemv1.VerifyRequest], stream *connect.ServerStream[tandemv1.VerifyResponse]) error {
	found := func(f playback.Finding) error {
		return stream.Send(&tandemv1.VerifyResponse{Result: &tandemv1.VerifyResponse_Finding{
			Finding: &tandemv1.Finding{Segment: f.Segment, Channel: string(f.Channel), File: f.File, What: f.What, Text: f.Text},
		}})
	}
	progress := func(done, total int) error {
		return stream.Send(&tandemv1.VerifyResponse{Result: &tandemv1.VerifyResponse_Progress{
			Progress: &tandemv1.VerifyProgress{Done: uint64(done), Total: uint64(total)},
		}})
	}
	window := catalog.Window{From: timeFrom(r.Msg.GetFrom()), To: timeFrom(r.Msg.GetTo())}
	v, err := m.player.Verify(ctx, window, r.Msg.GetDeep(), found, progress)
	if err != nil {
		return mediaError(err)
	}
	return stream.Send(&tandemv1.VerifyResponse{Result: &tandemv1.VerifyResponse_Summary{Summary: &tandemv1.VerifySummary{
		Segments: uint64(v.Segments), Bytes: uint64(v.Bytes), RecordedMs: v.Recorded.Milliseconds(), GapMs: v.Gap.Milliseconds(), Findings: uint64(v.Findings),
	}}})
}

// mediaError tells a reader what kind of fault it was.
func mediaError(err error) error {
	var onTheWire *connect.Error
	switch {
	case errors.As(err, &onTheWire):
		return err
	case errors.Is(err, catalog.ErrNotFound), errors.Is(err, playback.ErrNoMedia):
		return connect.NewError(connect.CodeNotFound, err)
	case errors.Is(err, playback.ErrRequest):
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	return connect.NewError(connect.CodeInternal, err)
}
