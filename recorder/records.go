package recorder

import (
	"errors"
	"fmt"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/call"
	"tandem/recorder/catalog"
)

var errNoChannel = errors.New("a channel without an id")

// recordsFrom reads a director's records and refuses those that could not be found again.
func recordsFrom(m *tandemv1.PutRecordsRequest) (calls []catalog.Call, legs []catalog.Leg, blind []catalog.Window, err error) {
	for _, c := range m.GetCalls() {
		if c.GetId() == "" || c.GetStart() == nil {
			return nil, nil, nil, fmt.Errorf("call %q: want an id and a start", c.GetId())
		}
		calls = append(calls, catalog.Call{
			ID: call.CallID(c.GetId()), Line: c.GetLine(), Direction: c.GetDirection(), Kind: c.GetKind(), Party: c.GetParty(), PartyName: c.GetPartyName(),
			State: c.GetState(), Start: timeFrom(c.GetStart()), End: timeFrom(c.GetEnd()), EndCause: c.GetEndCause(),
		})
	}
	for _, l := range m.GetLegs() {
		if l.GetId() == "" || l.GetCall() == "" || l.GetStart() == nil {
			return nil, nil, nil, fmt.Errorf("leg %q of call %q: want both ids and a start", l.GetId(), l.GetCall())
		}
		legs = append(legs, catalog.Leg{
			ID: call.LegID(l.GetId()), Call: call.CallID(l.GetCall()), Session: call.SessionID(l.GetSession()), User: call.UserID(l.GetUser()),
			UserName: l.GetUserName(), Device: call.DeviceID(l.GetDevice()), Source: l.GetSource(), Channels: l.GetChannels(),
			Start: timeFrom(l.GetStart()), End: timeFrom(l.GetEnd()), EndCause: l.GetEndCause(), Accuracy: l.GetAccuracy(),
			Group: m.GetOrder().GetGroup(), Secondary: m.GetOrder().GetSecondary(),
		})
	}
	for _, w := range m.GetBlind() {
		if w.GetFrom() == nil {
			return nil, nil, nil, errors.New("a blind window without a beginning")
		}
		blind = append(blind, catalog.Window{From: timeFrom(w.GetFrom()), To: timeFrom(w.GetTo())})
	}
	return calls, legs, blind, nil
}

func callProto(c catalog.Call) *tandemv1.Call {
	return &tandemv1.Call{
		Id: string(c.ID), Line: c.Line, Direction: c.Direction, Kind: c.Kind, Party: c.Party, PartyName: c.PartyName,
		State: c.State, Start: timeProto(c.Start), End: timeProto(c.End), EndCause: c.EndCause,
	}
}

func legProto(l catalog.Leg) *tandemv1.Leg {
	return &tandemv1.Leg{
		Id: string(l.ID), Call: string(l.Call), Session: string(l.Session), User: string(l.User), UserName: l.UserName,
		Device: string(l.Device), Source: l.Source, Channels: l.Channels, Start: timeProto(l.Start), End: timeProto(l.End),
		EndCause: l.EndCause, Accuracy: l.Accuracy,
	}
}

func gapsProto(gaps []catalog.Gap) []*tandemv1.Gap {
	out := make([]*tandemv1.Gap, len(gaps))
	for i, g := range gaps {
		out[i] = &tandemv1.Gap{From: timeProto(g.From), To: timeProto(g.To), Cause: string(g.Cause)}
	}
	return out
}

func segmentProto(s catalog.Segment) *tandemv1.Segment {
	return &tandemv1.Segment{
		Id: s.ID, Channel: string(s.Channel), Copy: string(s.Copy), Start: timeProto(s.Start), End: timeProto(s.End), Codec: codecProto(s.Codec),
		File: s.File, Size: uint64(s.Size), Sha256: s.SHA256, Packets: uint64(s.Packets), Lost: uint64(s.Lost), Reordered: uint64(s.Reordered),
		Duplicates: uint64(s.Duplicates), MaxJitterMs: float64(s.MaxJitter.Microseconds()) / 1000, Ssrc: s.SSRC, Gaps: gapsProto(s.Gaps), Open: !s.Sealed,
		Samples: s.Samples, FirstTs: s.FirstTS, FirstSeq: s.FirstSeq, LastSeq: s.LastSeq,
	}
}
