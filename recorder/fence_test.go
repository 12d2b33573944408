package recorder

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/rpc"
	"tandem/internal/voter"
)

// order is of a director that stands alone.
func order(epoch uint64, director string) *tandemv1.Order {
	return &tandemv1.Order{Epoch: epoch, Director: director, Group: "primary"}
}

func refusalOf(t interface{ Fatalf(string, ...any) }, err error) tandemv1.Refusal_Reason {
	r := voter.RefusalIn(err)
	if r == nil || connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Fatalf("got %v, want a refusal", err)
	}
	return r.GetReason()
}

// steered is one of a pair of directors, and what it knows of the recorder.
type steered struct {
	*bench
	voter    tandemv1connect.VoterServiceClient
	director string
	epoch    uint64
	sequence uint64
}

func (b *bench) steered(director string, epoch uint64) *steered {
	client := rpc.NewClient()
	b.t.Cleanup(client.CloseIdleConnections)
	return &steered{bench: b, voter: tandemv1connect.NewVoterServiceClient(client, "http://"+b.cfg.Control), director: director, epoch: epoch}
}

func (s *steered) nonce() uint64 {
	s.t.Helper()
	r, err := s.voter.Query(s.t.Context(), connect.NewRequest(&tandemv1.QueryRequest{Group: "primary", Director: s.director, Profile: "steady"}))
	if err != nil {
		s.t.Fatal(err)
	}
	return r.Msg.GetBallot().GetNonce()
}

func (s *steered) order(nonce uint64) *tandemv1.Order {
	s.sequence++
	return &tandemv1.Order{Epoch: s.epoch, Director: s.director, Group: "primary", Sequence: s.sequence, Nonce: nonce, Profile: "steady"}
}

func (s *steered) lease() bool {
	s.t.Helper()
	r, err := s.voter.Lease(s.t.Context(), connect.NewRequest(&tandemv1.LeaseRequest{Group: "primary", Director: s.director, Epoch: s.epoch, Nonce: s.nonce(), Profile: "steady"}))
	if err != nil {
		s.t.Fatal(err)
	}
	return r.Msg.GetGranted()
}

// send makes an order and sends it, again if the machine was so slow that it
// came too late, or that the lease has lapsed.
func (s *steered) send(nonce uint64, call func(*tandemv1.Order) error) error {
	for {
		err := call(s.order(nonce))
		switch r := voter.RefusalIn(err); r.GetReason() {
		case tandemv1.Refusal_REASON_NOT_FRESH:
			nonce = r.GetNonce()
		case tandemv1.Refusal_REASON_NO_LEASE:
			s.lease()
			nonce = s.nonce()
		default:
			return err
		}
	}
}

func (s *steered) fence(nonce uint64) (inventory *tandemv1.Inventory, err error) {
	err = s.send(nonce, func(o *tandemv1.Order) error {
		r, err := s.control.Fence(s.t.Context(), connect.NewRequest(&tandemv1.FenceRequest{Order: o}))
		if err == nil {
			inventory = r.Msg.GetInventory()
		}
		return err
	})
	return inventory, err
}

// tell sends each of the orders that change something.
func (s *steered) tell(each func(what string, err error)) {
	ctx := s.t.Context()
	for what, call := range map[string]func(*tandemv1.Order) error{
		"open": func(o *tandemv1.Order) error {
			_, err := s.control.OpenChannels(ctx, connect.NewRequest(&tandemv1.OpenChannelsRequest{Order: o}))
			return err
		},
		"update": func(o *tandemv1.Order) error {
			_, err := s.control.UpdateChannels(ctx, connect.NewRequest(&tandemv1.UpdateChannelsRequest{Order: o}))
			return err
		},
		"close": func(o *tandemv1.Order) error {
			_, err := s.control.CloseChannels(ctx, connect.NewRequest(&tandemv1.CloseChannelsRequest{Order: o}))
			return err
		},
		"put": func(o *tandemv1.Order) error {
			_, err := s.control.PutRecords(ctx, connect.NewRequest(&tandemv1.PutRecordsRequest{Order: o}))
			return err
		},
		"drain": func(o *tandemv1.Order) error {
			_, err := s.control.Drain(ctx, connect.NewRequest(&tandemv1.DrainRequest{Order: o, Undo: true}))
			return err
		},
	} {
		each(what, s.send(s.nonce(), call))
	}
}

// One director of a pair succeeds another, and comes back too late.
func TestSuccession(t *testing.T) {
	b := newBench(t)
	a, second := b.steered("dir-a", 4), b.steered("dir-b", 7)
	b.until("the recorder may lease", a.lease)
	a.tell(func(what string, err error) {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	})
	b.until("the lease is renewed", a.lease)
	if second.lease() {
		t.Error("leased to both")
	}
	second.tell(func(what string, err error) {
		if got := refusalOf(t, err); got != tandemv1.Refusal_REASON_STALE_EPOCH {
			t.Errorf("%s before the fence: %v", what, got)
		}
	})

	late := a.order(a.nonce())
	inventory, err := second.fence(second.nonce())
	if err != nil || inventory.GetEpoch() != 7 || inventory.GetHolder() != "dir-b" || inventory.GetNonce() == 0 {
		t.Fatalf("fence: %v %v", inventory, err)
	}
	second.tell(func(what string, err error) {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	})
	_, err = b.control.CloseChannels(t.Context(), connect.NewRequest(&tandemv1.CloseChannelsRequest{Order: late}))
	if got := refusalOf(t, err); got != tandemv1.Refusal_REASON_STALE_EPOCH {
		t.Errorf("a late order: %v", got)
	}
	if r := voter.RefusalIn(err); r.GetEpoch() != 7 || r.GetHolder() != "dir-b" || r.GetNonce() == 0 {
		t.Errorf("got %v", r)
	}
	a.tell(func(what string, err error) {
		if got := refusalOf(t, err); got != tandemv1.Refusal_REASON_STALE_EPOCH {
			t.Errorf("%s by the one before: %v", what, got)
		}
	})

	b.stop()
	b.start()
	if _, err := a.fence(a.nonce()); refusalOf(t, err) != tandemv1.Refusal_REASON_STALE_EPOCH {
		t.Errorf("after a restart: %v", err)
	}
}

// Heartbeats carry what orders repeat; what was sent to the process before is
// not obeyed.
func TestHeartbeatsCarryTheNonce(t *testing.T) {
	b := newBench(t)
	a := b.steered("dir-a", 4)
	var last uint64
	b.watch("an order with the nonce of a heartbeat is obeyed", func(m *tandemv1.WatchResponse) bool {
		last = m.GetNonce()
		_, err := b.control.Fence(t.Context(), connect.NewRequest(&tandemv1.FenceRequest{Order: a.order(last)}))
		return err == nil
	})
	b.stop()
	b.start()
	_, err := b.control.Fence(t.Context(), connect.NewRequest(&tandemv1.FenceRequest{Order: a.order(last)}))
	if got := refusalOf(t, err); got != tandemv1.Refusal_REASON_NOT_FRESH {
		t.Errorf("got %v", got)
	}
	if _, err := a.fence(voter.RefusalIn(err).GetNonce()); err != nil {
		t.Errorf("repeated with the nonce of the refusal: %v", err)
	}
}

func TestRefusalsAreCounted(t *testing.T) {
	b := newBench(t)
	b.stop()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.cfg.Metrics = ln.Addr().String()
	ln.Close()
	b.start()
	a := b.steered("dir-a", 4)
	if _, err := a.fence(a.nonce()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		o := a.order(a.nonce())
		o.Profile = "fast"
		_, err := b.control.CloseChannels(t.Context(), connect.NewRequest(&tandemv1.CloseChannelsRequest{Order: o}))
		if got := refusalOf(t, err); got != tandemv1.Refusal_REASON_WRONG_PROFILE {
			t.Fatal(got)
		}
	}
	text := b.metrics()
	for _, want := range []string{
		"tandem_recorder_epoch 4\n",
		`tandem_recorder_orders_refused_total{reason="wrong_profile"} 3` + "\n",
		`tandem_recorder_orders_refused_total{reason="not_fresh"} 0` + "\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the metrics", want)
		}
	}
}

func (b *bench) metrics() (text string) {
	b.t.Helper()
	b.until("metrics", func() bool {
		ctx, cancel := context.WithCancel(b.t.Context())
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.cfg.Metrics+"/metrics", nil)
		if err != nil {
			b.t.Fatal(err)
		}
		r, err := http.DefaultClient.Do(request)
		if err != nil {
			return false
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		text = string(body)
		return err == nil && r.StatusCode == http.StatusOK
	})
	return text
}

// A drain that was asked for before it had a file of its own is one, until it
// is taken back for good.
func TestDrainKeptBefore(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, authorityFile), []byte(`{"epoch":6,"holder":"dir-a","draining":true}`), 0o640); err != nil {
		t.Fatal(err)
	}
	reopened := func() *drain {
		t.Helper()
		d, err := openDrain(dir)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for range 2 { // from where it was, and from where it is
		if !reopened().on.Load() {
			t.Error("forgotten")
		}
	}
	if err := reopened().set(false); err != nil {
		t.Fatal(err)
	}
	if reopened().on.Load() {
		t.Error("taken up again")
	}
	if err := os.WriteFile(filepath.Join(dir, "drain.json"), []byte("{"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := openDrain(dir); err == nil {
		t.Error("half a file was read")
	}
}

// A director of another group learns nothing and changes nothing. Who looks
// without being one is let in.
func TestAnotherGroupIsKeptOut(t *testing.T) {
	b := newBench(t)
	b.open("s1.m1.A")
	stranger := &tandemv1.Order{Epoch: 1000, Director: "dir-x", Group: "secondary"}
	watch := func() error {
		stream, err := b.control.Watch(t.Context(), connect.NewRequest(&tandemv1.WatchRequest{Director: "dir-x", Group: "secondary"}))
		if err != nil {
			return err
		}
		defer stream.Close()
		stream.Receive()
		return stream.Err()
	}
	for what, ask := range map[string]func() error{
		"inventory": func() error {
			_, err := b.control.Inventory(t.Context(), connect.NewRequest(&tandemv1.InventoryRequest{Director: "dir-x", Group: "secondary"}))
			return err
		},
		"watch": watch,
		"fence": func() error {
			_, err := b.control.Fence(t.Context(), connect.NewRequest(&tandemv1.FenceRequest{Order: stranger}))
			return err
		},
		"close": func() error {
			_, err := b.control.CloseChannels(t.Context(), connect.NewRequest(&tandemv1.CloseChannelsRequest{Order: stranger, Channels: []*tandemv1.CloseChannel{{Channel: "s1.m1.A"}}}))
			return err
		},
	} {
		r := voter.RefusalIn(ask())
		if r.GetReason() != tandemv1.Refusal_REASON_WRONG_GROUP || r.GetGroup() != "primary" {
			t.Errorf("%s: %v", what, r)
		}
	}
	if b.held()["s1.m1.A"] == nil {
		t.Error("it closed a channel")
	}
	inventory, err := b.control.Inventory(t.Context(), connect.NewRequest(&tandemv1.InventoryRequest{}))
	if err != nil || inventory.Msg.Inventory.GetEpoch() >= stranger.Epoch {
		t.Errorf("%v, %v", inventory, err)
	}
	if !b.ready() {
		t.Error("it is not ready for its own director")
	}
}
