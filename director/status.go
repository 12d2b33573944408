package director

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/director/placement"
	"tandem/internal/call"
)

// service answers DirectorService from the owner loop, and so changes nothing and sees no half-done state.
type service struct {
	tandemv1connect.UnimplementedDirectorServiceHandler
	cfg  Config
	loop *loop
}

func (s *service) Status(ctx context.Context, _ *connect.Request[tandemv1.StatusRequest]) (*connect.Response[tandemv1.StatusResponse], error) {
	return answer(ctx, s.loop, func(now time.Time, f *floor) *tandemv1.StatusResponse { return f.status(now, s.cfg) })
}

func (s *service) ListTurrets(ctx context.Context, _ *connect.Request[tandemv1.ListTurretsRequest]) (*connect.Response[tandemv1.ListTurretsResponse], error) {
	return answer(ctx, s.loop, func(_ time.Time, f *floor) *tandemv1.ListTurretsResponse {
		return &tandemv1.ListTurretsResponse{Turrets: f.turrets()}
	})
}

func (s *service) ListFloorChannels(ctx context.Context, req *connect.Request[tandemv1.ListFloorChannelsRequest]) (*connect.Response[tandemv1.ListFloorChannelsResponse], error) {
	name := call.RecorderName(req.Msg.GetRecorder())
	return answer(ctx, s.loop, func(_ time.Time, f *floor) *tandemv1.ListFloorChannelsResponse {
		return &tandemv1.ListFloorChannelsResponse{Channels: f.floorChannels(name)}
	})
}

// answer asks the owner loop.
func answer[T any](ctx context.Context, l *loop, ask func(time.Time, *floor) *T) (*connect.Response[T], error) {
	var got *T
	if err := l.ask(ctx, func(now time.Time, f *floor) { got = ask(now, f) }); err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, fmt.Errorf("ask director: %w", err))
	}
	return connect.NewResponse(got), nil
}

func (f *floor) status(now time.Time, cfg Config) *tandemv1.StatusResponse {
	f.raise(now)
	d := &tandemv1.DirectorStatus{
		Name: cfg.Name, Group: cfg.Group, Role: "active", Epoch: f.epoch, Since: stamp(f.started), Preferred: true,
		Basis: basisAlone, Cti: f.link.word(), Sessions: uint32(len(f.sessions)), Channels: uint32(len(f.channels)),
	}
	if f.epoch == 0 {
		d.Role, d.Basis = "activating", ""
	}
	for _, ch := range f.channels {
		if !ch.attached.IsZero() {
			d.Attached++
		}
	}
	status := &tandemv1.StatusResponse{Site: cfg.Site, Generated: stamp(now), Directors: []*tandemv1.DirectorStatus{d}, Alarms: f.alarmList()}
	for _, name := range f.sortedNames() {
		r := f.recorders[name]
		score, _ := placement.Score(now, f.limits, r.candidate(f.group), 0)
		status.Recorders = append(status.Recorders, &tandemv1.RecorderStatus{
			Name: r.Name, Group: cfg.Group, Address: r.Address, State: r.stateWord(), Priority: int32(r.Priority),
			Score: score, Reason: r.reason(), Load: r.load,
		})
	}
	return status
}

func (l linkState) word() string {
	switch {
	case l.synced:
		return "up"
	case l.up:
		return "connecting"
	}
	return "down"
}

func (f *floor) turrets() []*tandemv1.Turret {
	legs := make(map[call.SessionID]uint32)
	for _, l := range f.legs {
		if l.end.IsZero() {
			legs[l.Session]++
		}
	}
	list := make([]*tandemv1.Turret, 0, len(f.sessions))
	for _, s := range f.sessions {
		t := &tandemv1.Turret{
			Session: s.proto(), Since: stamp(s.since), Recorder: string(s.recorder), Reason: cmp.Or(s.refused, s.reason),
			Channels: uint32(len(s.channels)), Legs: legs[s.ID],
		}
		for _, ch := range s.channels {
			if !ch.attached.IsZero() {
				t.Attached++
			}
		}
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b *tandemv1.Turret) int {
		return cmp.Or(cmp.Compare(a.GetSession().GetDevice(), b.GetSession().GetDevice()), cmp.Compare(a.GetSession().GetId(), b.GetSession().GetId()))
	})
	return list
}

// floorChannels lists the channels on one recorder, or all with no name.
func (f *floor) floorChannels(name call.RecorderName) []*tandemv1.FloorChannel {
	list := make([]*tandemv1.FloorChannel, 0, len(f.channels))
	for _, ch := range f.channels {
		if name != "" && ch.recorder != name {
			continue
		}
		p := &tandemv1.FloorChannel{
			Channel: ch.proto(f.sessions[ch.Channel.Session]), Recorder: string(ch.recorder), Reason: ch.reason,
			State: ch.state(), Text: ch.text, Endpoint: endpointProto(ch.endpoint), Codec: codecs[ch.terms.Codec],
		}
		for _, l := range ch.legs {
			if l.end.IsZero() {
				p.Legs++
			}
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b *tandemv1.FloorChannel) int {
		return cmp.Compare(a.GetChannel().GetId(), b.GetChannel().GetId())
	})
	return list
}
