package recorder

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/pion/rtp"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/call"
	"tandem/recorder/catalog"
	"tandem/recorder/journal"
	"tandem/recorder/playback"
)

// mediaAPI answers people and programs; it changes nothing.
type mediaAPI struct {
	name        string
	catalog     *catalog.Catalog
	player      *playback.Player
	attachments *attachments
	journal     *journal.Writer
	sharing     *sharing
}

const defaultLimit = 100

func (m *mediaAPI) SearchCalls(ctx context.Context, r *connect.Request[tandemv1.SearchCallsRequest]) (*connect.Response[tandemv1.SearchCallsResponse], error) {
	q := catalog.Query{
		From: timeFrom(r.Msg.GetFrom()), To: timeFrom(r.Msg.GetTo()), Agent: r.Msg.GetAgent(), Party: r.Msg.GetParty(), Line: r.Msg.GetLine(),
		Device: call.DeviceID(r.Msg.GetDevice()), Ongoing: r.Msg.GetOngoing(), Limit: int(r.Msg.GetLimit()),
	}
	if q.Limit == 0 {
		q.Limit = defaultLimit
	}
	if r.Msg.GetWhere() == tandemv1.Where_WHERE_SHARED {
		return m.searchShared(ctx, q, r.Msg.GetAfter())
	}
	response := &tandemv1.SearchCallsResponse{Catalog: m.catalog.ID()}
	records, err := m.searchOwn(ctx, q, r.Msg.GetWhere(), response)
	if err != nil {
		return nil, unavailable(err)
	}
	blind, err := m.catalog.Blind(ctx, catalog.Window{From: q.From, To: q.To})
	if err != nil {
		return nil, unavailable(err)
	}
	for _, w := range blind {
		response.Blind = append(response.Blind, &tandemv1.Window{From: timeProto(w.From), To: timeProto(w.To)})
	}
	for _, rec := range records {
		response.Legs = append(response.Legs, m.recordProto(rec))
	}
	return connect.NewResponse(response), nil
}

// recordProto is a leg for readers: one that was cut short ends for them at
// its last good instant.
func (m *mediaAPI) recordProto(rec catalog.Record) *tandemv1.LegRecord {
	return recordProto(rec, m.name, m.catalog.ID())
}

func recordProto(rec catalog.Record, recorder, catalog string) *tandemv1.LegRecord {
	leg := legProto(rec.Leg)
	if rec.Leg.State() == call.StateInterrupted {
		leg.End = timeProto(rec.Leg.Interrupted)
	}
	return &tandemv1.LegRecord{
		Call: callProto(rec.Call), Leg: leg, Group: rec.Leg.Group, Secondary: rec.Leg.Secondary,
		Recorder: recorder, State: string(rec.Leg.State()), GapMs: rec.GapMS, Catalog: catalog,
	}
}

func (m *mediaAPI) ListChannels(context.Context, *connect.Request[tandemv1.ListChannelsRequest]) (*connect.Response[tandemv1.ListChannelsResponse], error) {
	return connect.NewResponse(&tandemv1.ListChannelsResponse{Channels: m.attachments.held()}), nil
}

func (m *mediaAPI) ListSegments(ctx context.Context, r *connect.Request[tandemv1.ListSegmentsRequest], stream *connect.ServerStream[tandemv1.ListSegmentsResponse]) error {
	window := catalog.Window{From: timeFrom(r.Msg.GetFrom()), To: timeFrom(r.Msg.GetTo())}
	segments, err := m.catalog.Segments(ctx, call.ChannelID(r.Msg.GetChannel()), window)
	if err != nil {
		return unavailable(err)
	}
	for _, s := range segments {
		if err := stream.Send(&tandemv1.ListSegmentsResponse{Segment: segmentProto(s)}); err != nil {
			return err
		}
	}
	return nil
}

// liveBatch is how long live audio is gathered before it is sent on.
const liveBatch = 100 * time.Millisecond

func (m *mediaAPI) Listen(ctx context.Context, r *connect.Request[tandemv1.ListenRequest], stream *connect.ServerStream[tandemv1.ListenResponse]) error {
	row, ok := m.attachments.find(call.ChannelID(r.Msg.GetChannel()))
	if !ok {
		return connect.NewError(connect.CodeNotFound, fmt.Errorf("channel %s is not being recorded here", r.Msg.GetChannel()))
	}
	if row.Codec == "" {
		return connect.NewError(connect.CodeUnavailable, fmt.Errorf("channel %s is not attached yet", row.Channel))
	}
	listener := m.journal.Listen(row.Num)
	defer listener.Close()
	ticker := time.NewTicker(liveBatch)
	defer ticker.Stop()
	order := liveOrder{payloadType: row.Codec.PayloadType()}
	next := &tandemv1.ListenResponse{Codec: codecProto(row.Codec)}
	flush := func() error {
		if len(next.Payload) == 0 {
			return nil
		}
		full := next
		next = &tandemv1.ListenResponse{Codec: full.Codec}
		return stream.Send(full)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case p, ok := <-listener.Packets():
			if !ok {
				return flush()
			}
			payload, lost := order.accept(p.Data)
			if lost > 0 {
				if err := flush(); err != nil {
					return err
				}
				next.Lost = lost
			}
			if len(next.Payload) == 0 {
				next.At = timeProto(p.At())
			}
			next.Payload = append(next.Payload, payload...)
		case <-ticker.C:
			if err := flush(); err != nil {
				return err
			}
		}
	}
}

// liveOrder puts packets in a row as they come. What comes late is left out:
// a listener hears now, the recording has it all.
type liveOrder struct {
	payloadType uint8
	started     bool
	last        uint16
	packet      rtp.Packet
}

// accept returns what of the datagram is to be heard, nil for nothing, and
// how many packets are missing before it.
func (l *liveOrder) accept(datagram []byte) (payload []byte, lost uint32) {
	if err := l.packet.Unmarshal(datagram); err != nil || l.packet.PayloadType != l.payloadType {
		return nil, 0
	}
	ahead := int16(l.packet.SequenceNumber - l.last) // RFC 3550 A.1: modulo 2^16
	if l.started && ahead <= 0 {
		return nil, 0
	}
	if l.started {
		lost = uint32(ahead - 1)
	}
	l.started, l.last = true, l.packet.SequenceNumber
	return l.packet.Payload, lost
}
