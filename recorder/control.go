package recorder

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/call"
	"tandem/recorder/catalog"
)

// control answers directors. Everything that changes something goes through the fence.
type control struct {
	tandemv1connect.UnimplementedRecorderServiceHandler
	name, group string
	boot        string
	fence       *fence
	drain       *drain
	attachments *attachments
	catalog     *catalog.Catalog
	reporter    *reporter
	watch       *watch
}

// Inventory refuses directors of other groups before they learn anything of
// this one: what they would do by it would be wrong.
func (c *control) Inventory(ctx context.Context, r *connect.Request[tandemv1.InventoryRequest]) (*connect.Response[tandemv1.InventoryResponse], error) {
	if err := c.fence.admit(r.Msg.GetDirector(), r.Msg.GetGroup(), r.Peer().Addr); err != nil {
		return nil, err
	}
	inventory, err := c.inventory(ctx)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&tandemv1.InventoryResponse{Inventory: inventory}), nil
}

func (c *control) Fence(ctx context.Context, r *connect.Request[tandemv1.FenceRequest]) (*connect.Response[tandemv1.FenceResponse], error) {
	var inventory *tandemv1.Inventory
	err := c.fence.begin(ctx, r.Msg.GetOrder(), func() (err error) {
		inventory, err = c.inventory(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&tandemv1.FenceResponse{Inventory: inventory}), nil
}

func (c *control) OpenChannels(ctx context.Context, r *connect.Request[tandemv1.OpenChannelsRequest]) (*connect.Response[tandemv1.OpenChannelsResponse], error) {
	for _, want := range r.Msg.GetChannels() {
		if err := checkOpening(want); err != nil {
			return nil, connect.NewError(connect.CodeInvalidArgument, err)
		}
	}
	var answers []*tandemv1.OpenedChannel
	err := c.fence.obey(ctx, r.Msg.GetOrder(), func() (err error) {
		ready, _ := c.reporter.ready()
		answers, err = c.attachments.add(ctx, time.Now(), ready, r.Msg.GetChannels())
		return unavailable(err)
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&tandemv1.OpenChannelsResponse{Channels: answers}), nil
}

// checkOpening refuses what could not be found again, or explain nothing.
func checkOpening(want *tandemv1.OpenChannel) error {
	if want.GetChannel().GetId() == "" {
		return errNoChannel
	}
	return checkContinuation(want.GetChannel().GetId(), want.GetContinues())
}

func checkContinuation(channel string, c *tandemv1.Continuation) error {
	if c != nil && (!continuing(call.Cause(c.GetCause())) || c.GetSince() == nil) {
		return fmt.Errorf("channel %s does not begin here: want since and the cause %s or %s, got %q", channel, call.CauseFailover, call.CauseUnattached, c.GetCause())
	}
	return nil
}

// continuing reports whether a channel may begin with a gap of that cause.
func continuing(c call.Cause) bool { return c == call.CauseFailover || c == call.CauseUnattached }

func (c *control) UpdateChannels(ctx context.Context, r *connect.Request[tandemv1.UpdateChannelsRequest]) (*connect.Response[tandemv1.UpdateChannelsResponse], error) {
	for _, u := range r.Msg.GetChannels() {
		if err := checkContinuation(u.GetChannel(), u.GetContinues()); err != nil {
			return nil, connect.NewError(connect.CodeInvalidArgument, err)
		}
	}
	err := c.fence.obey(ctx, r.Msg.GetOrder(), func() error {
		return unavailable(c.attachments.update(ctx, time.Now(), r.Msg.GetChannels()))
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&tandemv1.UpdateChannelsResponse{}), nil
}

func (c *control) CloseChannels(ctx context.Context, r *connect.Request[tandemv1.CloseChannelsRequest]) (*connect.Response[tandemv1.CloseChannelsResponse], error) {
	err := c.fence.obey(ctx, r.Msg.GetOrder(), func() error {
		return unavailable(c.attachments.remove(ctx, time.Now(), r.Msg.GetChannels()))
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&tandemv1.CloseChannelsResponse{}), nil
}

func (c *control) PutRecords(ctx context.Context, r *connect.Request[tandemv1.PutRecordsRequest]) (*connect.Response[tandemv1.PutRecordsResponse], error) {
	calls, legs, blind, err := recordsFrom(r.Msg)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	err = c.fence.obey(ctx, r.Msg.GetOrder(), func() error {
		return unavailable(c.catalog.PutRecords(ctx, calls, legs, blind))
	})
	if err != nil {
		return nil, err
	}
	c.reporter.legsChanged()
	return connect.NewResponse(&tandemv1.PutRecordsResponse{}), nil
}

func (c *control) Drain(ctx context.Context, r *connect.Request[tandemv1.DrainRequest]) (*connect.Response[tandemv1.DrainResponse], error) {
	err := c.fence.obey(ctx, r.Msg.GetOrder(), func() error {
		return unavailable(c.drain.set(!r.Msg.GetUndo()))
	})
	if err != nil {
		return nil, err
	}
	c.reporter.look()
	return connect.NewResponse(&tandemv1.DrainResponse{}), nil
}

// Watch sends a heartbeat for every beat of the control loop, ten a second;
// each tenth carries the load, and so does one sent at once when readiness
// changes.
func (c *control) Watch(ctx context.Context, r *connect.Request[tandemv1.WatchRequest], stream *connect.ServerStream[tandemv1.WatchResponse]) error {
	if err := c.fence.admit(r.Msg.GetDirector(), r.Msg.GetGroup(), r.Peer().Addr); err != nil {
		return err
	}
	defer c.watch.join(r.Msg.GetDirector())()
	var sent *tandemv1.Load
	for sequence := uint64(1); ; sequence++ {
		latest, changed := c.reporter.last()
		epoch, _ := c.fence.voter.Seen()
		m := &tandemv1.WatchResponse{Sequence: sequence, Epoch: uint64(epoch), BootId: c.boot, Packets: latest.packets, Talking: uint32(latest.talking),
			RecordedUntil: timeProto(latest.until), Nonce: c.fence.voter.Nonce()}
		if latest.load != sent {
			m.Load, sent = latest.load, latest.load
		}
		if err := stream.Send(m); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func (c *control) inventory(ctx context.Context) (*tandemv1.Inventory, error) {
	records, err := c.catalog.OpenLegs(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	epoch, holder := c.fence.voter.Seen()
	inventory := &tandemv1.Inventory{
		Recorder: c.name, Group: c.group, Epoch: uint64(epoch), Holder: holder, BootId: c.boot,
		Channels: c.attachments.held(), Nonce: c.fence.voter.Nonce(),
	}
	calls := map[call.CallID]bool{}
	for _, r := range records {
		inventory.Legs = append(inventory.Legs, legProto(r.Leg))
		if !calls[r.Call.ID] {
			calls[r.Call.ID] = true
			inventory.Calls = append(inventory.Calls, callProto(r.Call))
		}
	}
	return inventory, nil
}

// unavailable is for faults that may pass: the caller should try again.
func unavailable(err error) error {
	if err == nil {
		return nil
	}
	return connect.NewError(connect.CodeUnavailable, err)
}

func timeProto(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func timeFrom(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}
