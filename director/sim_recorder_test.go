package director

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/director/provider"
	"tandem/internal/authority"
	"tandem/internal/call"
	"tandem/internal/voter"
)

func mustURL(host, path string) *url.URL { return &url.URL{Scheme: "http", Host: host, Path: path} }

// booth is a recorder's place: what its disk holds outlives its processes.
type booth struct {
	*place
	sim  *sim
	file string // of the voter
	port int

	// Guarded by the simulation's mutex.
	held   map[string]*tandemv1.HeldChannel
	silent map[string]time.Time // since when the switch does not send to a channel
	epoch  authority.Epoch      // the highest obeyed or leased, by any of its processes
}

func (s *sim) addBooth(name string, recorder bool) *booth {
	b := &booth{sim: s, file: filepath.Join(s.dir, name+".json"), held: make(map[string]*tandemv1.HeldChannel), silent: make(map[string]time.Time)}
	b.place = s.addPlace(name, name, name+":7402", func(p *process) http.Handler { return b.boot(p, recorder) })
	return b
}

func (b *booth) boot(p *process, recorder bool) http.Handler {
	k, err := voter.Open(voter.Config{
		Name: b.name, Group: "primary", Path: b.file, Profile: b.sim.plan.profile, Boot: fmt.Sprint(b.name, "-", p.pid),
		Clock: b.sim.sabotage.voterClock(p, b.file), Log: b.sim.logger(b.name),
	})
	if err != nil {
		b.sim.violated("recorder", "%s does not start: %v", b.name, err)
	}
	mux := http.NewServeMux()
	mux.Handle(tandemv1connect.NewVoterServiceHandler(&polled{b.sim.sabotage.voter(k), b, k}))
	if recorder {
		mux.Handle(tandemv1connect.NewRecorderServiceHandler(&recording{booth: b, process: p, keeper: k}))
	}
	return mux
}

// polled is the voter with eyes on it.
type polled struct {
	tandemv1connect.VoterServiceHandler
	booth  *booth
	keeper *voter.Keeper
}

func (v *polled) Lease(ctx context.Context, r *connect.Request[tandemv1.LeaseRequest]) (*connect.Response[tandemv1.LeaseResponse], error) {
	res, err := v.VoterServiceHandler.Lease(ctx, r)
	v.booth.follows(v.keeper)
	return res, err
}

// follows holds that the voter's epoch never goes back, not by a restart either (I2).
func (b *booth) follows(k *voter.Keeper) {
	epoch, holder := k.Seen()
	b.sim.mu.Lock()
	defer b.sim.mu.Unlock()
	if epoch < b.epoch {
		b.sim.violatedLocked("I2", "%s is back at epoch %d, it was at %d", b.name, epoch, b.epoch)
	}
	b.epoch = max(b.epoch, epoch)
	if owner, known := b.sim.owners[epoch]; epoch != 0 && known && owner != holder {
		b.sim.violatedLocked("I2", "%s knows epoch %d as that of %s, others as that of %s", b.name, epoch, holder, owner)
	}
	if epoch != 0 {
		b.sim.owners[epoch] = holder
	}
}

// recording is one run of a recorder.
type recording struct {
	tandemv1connect.UnimplementedRecorderServiceHandler
	*booth
	process *process
	keeper  *voter.Keeper
}

// obey carries an order out if the voter lets it.
func (r *recording) obey(ctx context.Context, order *tandemv1.Order, fence bool, act func()) error {
	r.sim.sabotage.refresh(order, r.keeper)
	carry := func() error {
		r.sim.obeyed(r, order, fence)
		r.sim.mu.Lock()
		defer r.sim.mu.Unlock()
		act()
		return nil
	}
	if r.sim.sabotage.is(noFencing) && !fence {
		return carry()
	}
	err := r.keeper.Obey(ctx, order, fence, carry)
	r.follows(r.keeper)
	return err
}

func (r *recording) inventory() *tandemv1.Inventory {
	epoch, holder := r.keeper.Seen()
	inv := &tandemv1.Inventory{Recorder: r.name, Group: "primary", Epoch: uint64(epoch), Holder: holder, BootId: fmt.Sprint(r.name, "-", r.process.pid), Nonce: r.keeper.Nonce()}
	r.sim.mu.Lock()
	defer r.sim.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(r.held)) {
		inv.Channels = append(inv.Channels, proto.CloneOf(r.held[id]))
	}
	return inv
}

func (r *recording) Inventory(context.Context, *connect.Request[tandemv1.InventoryRequest]) (*connect.Response[tandemv1.InventoryResponse], error) {
	return connect.NewResponse(&tandemv1.InventoryResponse{Inventory: r.inventory()}), nil
}

func (r *recording) Fence(ctx context.Context, req *connect.Request[tandemv1.FenceRequest]) (*connect.Response[tandemv1.FenceResponse], error) {
	if err := r.obey(ctx, req.Msg.GetOrder(), true, func() {}); err != nil {
		return nil, err
	}
	return connect.NewResponse(&tandemv1.FenceResponse{Inventory: r.inventory()}), nil
}

func (r *recording) OpenChannels(ctx context.Context, req *connect.Request[tandemv1.OpenChannelsRequest]) (*connect.Response[tandemv1.OpenChannelsResponse], error) {
	res := &tandemv1.OpenChannelsResponse{}
	err := r.obey(ctx, req.Msg.GetOrder(), false, func() {
		for _, o := range req.Msg.GetChannels() {
			id := o.GetChannel().GetId()
			h := r.held[id]
			if h == nil {
				r.port += 2
				h = &tandemv1.HeldChannel{Channel: o.GetChannel(), Reason: o.GetReason(), Endpoint: &tandemv1.Endpoint{Host: r.name, RtpPort: uint32(20_000 + r.port)}, Opened: timestamppb.Now()}
				r.held[id] = h
			}
			res.Channels = append(res.Channels, &tandemv1.OpenedChannel{Channel: id, Endpoint: proto.CloneOf(h.GetEndpoint())})
		}
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(res), nil
}

func (r *recording) UpdateChannels(ctx context.Context, req *connect.Request[tandemv1.UpdateChannelsRequest]) (*connect.Response[tandemv1.UpdateChannelsResponse], error) {
	err := r.obey(ctx, req.Msg.GetOrder(), false, func() {
		for _, u := range req.Msg.GetChannels() {
			if h := r.held[u.GetChannel()]; h != nil {
				h.Dialog, h.Codec, h.RtcpMux = u.GetDialog(), u.GetCodec(), u.GetRtcpMux()
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&tandemv1.UpdateChannelsResponse{}), nil
}

func (r *recording) CloseChannels(ctx context.Context, req *connect.Request[tandemv1.CloseChannelsRequest]) (*connect.Response[tandemv1.CloseChannelsResponse], error) {
	err := r.obey(ctx, req.Msg.GetOrder(), false, func() {
		for _, c := range req.Msg.GetChannels() {
			delete(r.held, c.GetChannel())
		}
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&tandemv1.CloseChannelsResponse{}), nil
}

func (r *recording) PutRecords(ctx context.Context, req *connect.Request[tandemv1.PutRecordsRequest]) (*connect.Response[tandemv1.PutRecordsResponse], error) {
	if err := r.obey(ctx, req.Msg.GetOrder(), false, func() {}); err != nil {
		return nil, err
	}
	return connect.NewResponse(&tandemv1.PutRecordsResponse{}), nil
}

// Watch beats as a recorder does: ten times a second, each tenth with the load.
func (r *recording) Watch(ctx context.Context, _ *connect.Request[tandemv1.WatchRequest], stream *connect.ServerStream[tandemv1.WatchResponse]) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := uint64(1); ; n++ {
		epoch, _ := r.keeper.Seen()
		m := &tandemv1.WatchResponse{Sequence: n, Epoch: uint64(epoch), BootId: fmt.Sprint(r.name, "-", r.process.pid), Nonce: r.keeper.Nonce()}
		if n%10 == 1 {
			r.sim.mu.Lock()
			m.Load = &tandemv1.Load{Ready: true, Channels: uint32(len(r.held)), MaxChannels: 1000, DeadChannels: r.deadLocked()}
			r.sim.mu.Unlock()
		}
		if err := stream.Send(m); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// mediaDeadHere is after how long without media a channel is dead; recorders
// wait longer.
const mediaDeadHere = 2 * time.Second

// deadLocked are the channels with a dialog to which the switch sends nothing.
func (b *booth) deadLocked() []string {
	var dead []string
	for _, id := range slices.Sorted(maps.Keys(b.held)) {
		_, at := b.holds(id)
		if d := b.sim.exchange.dialogs[call.ChannelID(id)]; d != nil && d.to == at || len(b.held[id].GetDialog()) == 0 {
			delete(b.silent, id)
			continue
		}
		if since, known := b.silent[id]; !known {
			b.silent[id] = time.Now()
		} else if time.Since(since) > mediaDeadHere {
			dead = append(dead, id)
		}
	}
	return dead
}

// holds is the channel as the recorder holds it, nil if it does not. The
// simulation's mutex is held.
func (b *booth) holds(id string) (*tandemv1.HeldChannel, provider.Endpoint) {
	h := b.held[id]
	if h == nil {
		return nil, provider.Endpoint{}
	}
	return h, endpointOf(h.GetEndpoint())
}
