package director

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/director/placement"
	"tandem/internal/authority"
	"tandem/internal/call"
)

// service answers DirectorService from the owner loop, and so sees no half-done state.
type service struct {
	tandemv1connect.UnimplementedDirectorServiceHandler
	director *director
}

func (s *service) Status(ctx context.Context, _ *connect.Request[tandemv1.StatusRequest]) (*connect.Response[tandemv1.StatusResponse], error) {
	return answer(ctx, s.director.loop(), func(now time.Time, f *floor) *tandemv1.StatusResponse { return s.director.status(now, f) })
}

func (s *service) ListTurrets(ctx context.Context, _ *connect.Request[tandemv1.ListTurretsRequest]) (*connect.Response[tandemv1.ListTurretsResponse], error) {
	return answer(ctx, s.director.loop(), func(_ time.Time, f *floor) *tandemv1.ListTurretsResponse {
		return &tandemv1.ListTurretsResponse{Turrets: f.turrets()}
	})
}

func (s *service) ListFloorChannels(ctx context.Context, req *connect.Request[tandemv1.ListFloorChannelsRequest]) (*connect.Response[tandemv1.ListFloorChannelsResponse], error) {
	name := call.RecorderName(req.Msg.GetRecorder())
	return answer(ctx, s.director.loop(), func(_ time.Time, f *floor) *tandemv1.ListFloorChannelsResponse {
		return &tandemv1.ListFloorChannelsResponse{Channels: f.floorChannels(name)}
	})
}

func (s *service) Drain(ctx context.Context, req *connect.Request[tandemv1.DirectorServiceDrainRequest]) (*connect.Response[tandemv1.DirectorServiceDrainResponse], error) {
	return command(ctx, s.director.loop(), func(_ time.Time, f *floor) (*tandemv1.DirectorServiceDrainResponse, error) {
		r, err := f.commanded(req.Msg.GetRecorder())
		if err != nil {
			return nil, err
		}
		r.drain = &tandemv1.DrainRequest{Undo: req.Msg.GetUndo()}
		f.log.Info("drain asked for", "recorder", r.name, "undo", r.drain.Undo)
		return &tandemv1.DirectorServiceDrainResponse{Channels: uint32(f.channelsOn(r.name))}, nil
	})
}

func (s *service) Move(ctx context.Context, req *connect.Request[tandemv1.MoveRequest]) (*connect.Response[tandemv1.MoveResponse], error) {
	return command(ctx, s.director.loop(), func(now time.Time, f *floor) (*tandemv1.MoveResponse, error) {
		to, err := f.commanded(req.Msg.GetTo())
		if err != nil {
			return nil, err
		}
		device, channels, err := f.named(req.Msg.GetTurret(), req.Msg.GetChannel())
		if err != nil {
			return nil, err
		}
		n, err := f.moveTo(now, channels, device, to)
		if err != nil {
			return nil, connect.NewError(connect.CodeFailedPrecondition, err)
		}
		f.log.Info("move asked for", "turret", req.Msg.GetTurret(), "channel", req.Msg.GetChannel(), "recorder", to.name, "channels", n)
		return &tandemv1.MoveResponse{Channels: uint32(n)}, nil
	})
}

func (s *service) Rebalance(ctx context.Context, req *connect.Request[tandemv1.RebalanceRequest]) (*connect.Response[tandemv1.RebalanceResponse], error) {
	return command(ctx, s.director.loop(), func(now time.Time, f *floor) (*tandemv1.RebalanceResponse, error) {
		moves := f.rebalance()
		res := &tandemv1.RebalanceResponse{}
		for _, m := range moves {
			res.Moves = append(res.Moves, &tandemv1.TurretMove{
				Turret: string(m.Device), Session: string(m.Session), From: string(m.Recorder), To: string(m.To), Channels: uint32(m.Channels),
			})
		}
		if !req.Msg.GetDryRun() {
			f.log.Info("rebalance asked for", "turrets", len(moves))
			f.level(now, moves)
		}
		return res, nil
	})
}

// commanded finds a recorder that somebody has plans for; it must be there to have them.
func (f *floor) commanded(name string) (*recorder, error) {
	r := f.recorders[call.RecorderName(name)]
	if r == nil {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("no recorder %q in group %s; there are %s", name, f.group, joined(f.sortedNames())))
	}
	if !r.up() {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("recorder %s is %s: %s", name, r.stateWord(), r.reason()))
	}
	return r, nil
}

// named finds the channels of a turret, or the one channel, that a command names.
func (f *floor) named(turret, id string) (call.DeviceID, []*channel, error) {
	if (turret == "") == (id == "") {
		return "", nil, connect.NewError(connect.CodeInvalidArgument, errors.New("want a turret or a channel"))
	}
	if turret != "" {
		if s, channels := f.turret(turret); s != nil {
			return s.Device, channels, nil
		}
		return "", nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("nobody is logged on as or at %q", turret))
	}
	ch := f.channels[call.ChannelID(id)]
	if ch == nil {
		return "", nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("no channel %q", id))
	}
	var device call.DeviceID
	if s := f.sessions[ch.Channel.Session]; s != nil {
		device = s.Device
	}
	return device, []*channel{ch}, nil
}

// channelsOn counts the channels that a recorder holds or is about to.
func (f *floor) channelsOn(name call.RecorderName) int {
	n := 0
	for _, ch := range f.channels {
		if ch.recorder == name || slices.ContainsFunc(ch.leaving, func(p port) bool { return p.recorder == name }) {
			n++
		}
	}
	return n
}

// command asks the owner loop to do something, which it may refuse.
func command[T any](ctx context.Context, l *loop, do func(time.Time, *floor) (*T, error)) (*connect.Response[T], error) {
	var got *T
	var refused error
	err := l.ask(ctx, func(now time.Time, f *floor) {
		if f.stance != leading {
			refused = connect.NewError(connect.CodeFailedPrecondition, errNotInCharge)
			return
		}
		got, refused = do(now, f)
	})
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, fmt.Errorf("ask director: %w", err))
	}
	if refused != nil {
		return nil, refused
	}
	return connect.NewResponse(got), nil
}

// answer asks the owner loop.
func answer[T any](ctx context.Context, l *loop, ask func(time.Time, *floor) *T) (*connect.Response[T], error) {
	var got *T
	if err := l.ask(ctx, func(now time.Time, f *floor) { got = ask(now, f) }); err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, fmt.Errorf("ask director: %w", err))
	}
	return connect.NewResponse(got), nil
}

// status is what this director knows; of the floor the one that leads knows most.
func (d *director) status(now time.Time, f *floor) *tandemv1.StatusResponse {
	res := f.status(now, d.cfg)
	d.describe(res.Directors[0], now, f)
	if watchdog := d.cfg.Failover.PeerWatchdog; d.pair != nil && watchdog != "" {
		// It says the rest itself.
		res.Watchdogs = append(res.Watchdogs, &tandemv1.WatchdogStatus{Address: watchdog, Watching: d.cfg.Name, Group: d.cfg.Group})
	}
	return res
}

// describe says what its role is, and why.
func (d *director) describe(s *tandemv1.DirectorStatus, now time.Time, f *floor) {
	s.Address, s.Preferred = d.cfg.Control, true
	if d.pair == nil {
		s.Role, s.Basis, s.Epoch, s.Since = authority.Active.String(), basisAlone, f.epoch, stamp(f.started)
		if f.epoch == 0 {
			s.Role, s.Basis = authority.Activating.String(), ""
		}
		return
	}
	v := d.pair.elector.view.Load()
	s.Role, s.Basis, s.Epoch, s.Since = v.director.Phase.String(), v.basis.String(), uint64(v.epoch()), stamp(v.since)
	s.AuthorityMs, s.Text, s.Voters = v.remaining.Milliseconds(), v.why, d.pair.voters(now)
	s.Preferred, s.Monitor, s.Profile = d.cfg.Failover.Preferred, d.cfg.Monitor, d.cfg.Failover.Profile
}

func (f *floor) status(now time.Time, cfg Config) *tandemv1.StatusResponse {
	f.raise(now)
	d := &tandemv1.DirectorStatus{
		Name: cfg.Name, Group: cfg.Group, Cti: f.link.word(), Sessions: uint32(len(f.sessions)), Channels: uint32(len(f.channels)),
	}
	for _, ch := range f.channels {
		if !ch.attached.IsZero() {
			d.Attached++
		}
	}
	moving, unrecorded := f.unsettled()
	d.Moving, d.Unrecorded = uint32(moving), uint32(unrecorded)
	spare := f.spare()
	status := &tandemv1.StatusResponse{
		Site: cfg.Site, Generated: stamp(now), Directors: []*tandemv1.DirectorStatus{d}, Alarms: f.alarmList(),
		Headroom: []*tandemv1.Headroom{{Group: cfg.Group, Enough: spare.Enough, Busiest: string(spare.Busiest), Text: spare.Text}},
	}
	for _, name := range f.sortedNames() {
		r := f.recorders[name]
		score, _ := placement.Score(now, f.limits, f.candidate(r), 0)
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
		if name != "" && ch.recorder != name && !slices.ContainsFunc(ch.leaving, func(p port) bool { return p.recorder == name }) {
			continue
		}
		p := &tandemv1.FloorChannel{
			Channel: ch.proto(f.sessions[ch.Channel.Session]), Recorder: string(ch.recorder), Reason: ch.reason,
			State: ch.state(), Text: ch.text, Endpoint: endpointProto(ch.endpoint), Codec: codecs[ch.terms.Codec],
		}
		for _, old := range ch.leaving {
			p.Leaving = append(p.Leaving, string(old.recorder))
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
