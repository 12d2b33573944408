package director

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/config"
	"tandem/internal/daemon"
	"tandem/internal/rpc"
	"tandem/internal/voter"
	"tandem/turretsim"
)

const patience = 45 * time.Second

// station is a recorder in memory on real sockets: it answers orders, opens
// a real UDP port for each channel, and counts what arrives there.
type station struct {
	tandemv1connect.UnimplementedRecorderServiceHandler
	t       *testing.T
	name    string
	group   string
	address string
	wire    rpc.Wire

	fence *voter.Keeper

	mu       sync.Mutex
	boot     string
	channels map[string]*heldPort
	closed   map[string]string
	legs     map[string]*tandemv1.Leg
	calls    map[string]*tandemv1.Call
	ready    bool
	stop     func()
}

type heldPort struct {
	held    *tandemv1.HeldChannel
	conn    *net.UDPConn
	packets atomic.Int64
}

func newStation(t *testing.T, name string) *station {
	s := &station{
		t: t, name: name, group: "primary", ready: true, channels: make(map[string]*heldPort), closed: make(map[string]string),
		legs: make(map[string]*tandemv1.Leg), calls: make(map[string]*tandemv1.Call),
	}
	s.join("primary")
	s.start(freePort(t))
	t.Cleanup(func() {
		s.stop()
		for _, p := range s.channels {
			p.conn.Close()
		}
	})
	return s
}

// join makes it one of a group, with a vote and nothing promised.
func (s *station) join(group string) {
	keeper, err := voter.Open(voter.Config{
		Name: s.name, Group: group, Path: filepath.Join(s.t.TempDir(), "voter.json"), Profile: "steady", Boot: s.name, Clock: daemon.Boottime, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.group, s.fence = group, keeper
}

// start serves the API as a new process would; the ports stay as they are.
func (s *station) start(address string) {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	s.mu.Lock()
	s.boot, s.address = rpc.NewBootID(), ln.Addr().String()
	s.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	s.mu.Unlock()
	mux := http.NewServeMux()
	mux.Handle(tandemv1connect.NewRecorderServiceHandler(s, rpc.OwnName()))
	mux.Handle(tandemv1connect.NewVoterServiceHandler(s.fence, rpc.OwnName()))
	var life sync.RWMutex // held for reading while a request is answered, for ever by the end
	go func() {
		defer close(done)
		s.wire.Serve(ctx, ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !life.TryRLock() {
				panic(http.ErrAbortHandler) // nothing of a process outlives it
			}
			defer life.RUnlock()
			mux.ServeHTTP(w, r)
		}))
		life.Lock()
	}()
}

// obey carries out what the fence lets pass.
func (s *station) obey(ctx context.Context, o *tandemv1.Order, fence bool, do func() error) error {
	return s.fence.Obey(ctx, o, fence, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		return do()
	})
}

func (s *station) inventory() *tandemv1.Inventory {
	epoch, holder := s.fence.Seen()
	inv := &tandemv1.Inventory{Recorder: s.name, Group: s.group, Epoch: uint64(epoch), Holder: holder, BootId: s.boot, Nonce: s.fence.Nonce()}
	for _, id := range slices.Sorted(maps.Keys(s.channels)) {
		inv.Channels = append(inv.Channels, proto.CloneOf(s.channels[id].held))
	}
	for _, l := range s.legs {
		if l.GetEnd() == nil {
			inv.Legs = append(inv.Legs, l)
		}
	}
	return inv
}

func (s *station) Inventory(_ context.Context, req *connect.Request[tandemv1.InventoryRequest]) (*connect.Response[tandemv1.InventoryResponse], error) {
	if err := s.fence.CheckGroup(req.Msg.GetDirector(), req.Msg.GetGroup(), req.Peer().Addr); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return connect.NewResponse(&tandemv1.InventoryResponse{Inventory: s.inventory()}), nil
}

func (s *station) Fence(ctx context.Context, req *connect.Request[tandemv1.FenceRequest]) (*connect.Response[tandemv1.FenceResponse], error) {
	res := &tandemv1.FenceResponse{}
	err := s.obey(ctx, req.Msg.GetOrder(), true, func() error {
		res.Inventory = s.inventory()
		return nil
	})
	return connect.NewResponse(res), err
}

func (s *station) OpenChannels(ctx context.Context, req *connect.Request[tandemv1.OpenChannelsRequest]) (*connect.Response[tandemv1.OpenChannelsResponse], error) {
	res := &tandemv1.OpenChannelsResponse{}
	err := s.obey(ctx, req.Msg.GetOrder(), false, func() error {
		for _, o := range req.Msg.GetChannels() {
			p := s.channels[o.GetChannel().GetId()]
			if p == nil {
				var err error
				if p, err = openPort(o); err != nil {
					return err
				}
				s.channels[o.GetChannel().GetId()] = p
			}
			res.Channels = append(res.Channels, &tandemv1.OpenedChannel{Channel: o.GetChannel().GetId(), Endpoint: p.held.GetEndpoint()})
		}
		return nil
	})
	return connect.NewResponse(res), err
}

func openPort(o *tandemv1.OpenChannel) (*heldPort, error) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	p := &heldPort{conn: conn, held: &tandemv1.HeldChannel{
		Channel: o.GetChannel(), Reason: o.GetReason(),
		Endpoint: &tandemv1.Endpoint{Host: "127.0.0.1", RtpPort: uint32(conn.LocalAddr().(*net.UDPAddr).Port)},
	}}
	go func() {
		buf := make([]byte, 2048)
		for {
			if _, err := conn.Read(buf); err != nil {
				return
			}
			p.packets.Add(1)
		}
	}()
	return p, nil
}

func (s *station) UpdateChannels(ctx context.Context, req *connect.Request[tandemv1.UpdateChannelsRequest]) (*connect.Response[tandemv1.UpdateChannelsResponse], error) {
	res := &tandemv1.UpdateChannelsResponse{}
	err := s.obey(ctx, req.Msg.GetOrder(), false, func() error {
		for _, u := range req.Msg.GetChannels() {
			if p := s.channels[u.GetChannel()]; p != nil {
				p.held.Dialog, p.held.Codec, p.held.RtcpMux = u.GetDialog(), u.GetCodec(), u.GetRtcpMux()
			}
		}
		return nil
	})
	return connect.NewResponse(res), err
}

func (s *station) CloseChannels(ctx context.Context, req *connect.Request[tandemv1.CloseChannelsRequest]) (*connect.Response[tandemv1.CloseChannelsResponse], error) {
	res := &tandemv1.CloseChannelsResponse{}
	err := s.obey(ctx, req.Msg.GetOrder(), false, func() error {
		for _, c := range req.Msg.GetChannels() {
			if p := s.channels[c.GetChannel()]; p != nil {
				p.conn.Close()
				delete(s.channels, c.GetChannel())
				s.closed[c.GetChannel()] = c.GetCause()
			}
		}
		return nil
	})
	return connect.NewResponse(res), err
}

func (s *station) PutRecords(ctx context.Context, req *connect.Request[tandemv1.PutRecordsRequest]) (*connect.Response[tandemv1.PutRecordsResponse], error) {
	res := &tandemv1.PutRecordsResponse{}
	err := s.obey(ctx, req.Msg.GetOrder(), false, func() error {
		for _, c := range req.Msg.GetCalls() {
			s.calls[c.GetId()] = c
		}
		for _, l := range req.Msg.GetLegs() {
			s.legs[l.GetId()] = l
		}
		return nil
	})
	return connect.NewResponse(res), err
}

func (s *station) Watch(ctx context.Context, _ *connect.Request[tandemv1.WatchRequest], stream *connect.ServerStream[tandemv1.WatchResponse]) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := uint64(1); ; n++ {
		s.mu.Lock()
		epoch, _ := s.fence.Seen()
		m := &tandemv1.WatchResponse{Sequence: n, Epoch: uint64(epoch), BootId: s.boot, Nonce: s.fence.Nonce()}
		if n%5 == 1 {
			m.Load = &tandemv1.Load{Ready: s.ready, Channels: uint32(len(s.channels)), MaxChannels: 5000}
		}
		s.mu.Unlock()
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

// hearing counts the channels whose port has received more than it had.
func (s *station) hearing(before map[string]int64) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for id, p := range s.channels {
		if p.packets.Load() > before[id] && len(p.held.GetDialog()) > 0 {
			n++
		}
	}
	return n
}

func (s *station) heard() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := make(map[string]int64)
	for id, p := range s.channels {
		counts[id] = p.packets.Load()
	}
	return counts
}

// ended counts legs by whether they are over.
func (s *station) ended() (over, ongoing int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.legs {
		if l.GetEnd() != nil {
			over++
		} else {
			ongoing++
		}
	}
	return over, ongoing
}

// site is a switch, stations and a director, all on loopback.
type site struct {
	t        *testing.T
	sw       *turretsim.Switch
	stations []*station
	cfg      Config
	stop     func() error
	client   tandemv1connect.DirectorServiceClient // of the director that is in charge
}

func newSite(t *testing.T, stations int) *site {
	t.Helper()
	s := newEmptySite(t, stations)
	s.direct()
	t.Cleanup(func() { s.stop() })
	return s
}

// newEmptySite is one without a director.
func newEmptySite(t *testing.T, stations int) *site {
	t.Helper()
	simulated := turretsim.DefaultConfig()
	simulated.Control, simulated.CTI.Listen, simulated.SIP.Listen = "", "127.0.0.1:0", "127.0.0.1:0"
	simulated.CTI.Heartbeat = config.Duration(200 * time.Millisecond)
	simulated.Floor.Turrets, simulated.Floor.LogonInterval = 6, 0
	simulated.Floor.CallsPerMinute, simulated.Floor.CallLength = 120, config.Duration(time.Second)
	sw, err := turretsim.New(simulated)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		sw.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	s := &site{t: t, sw: sw, cfg: DefaultConfig()}
	s.cfg.Control, s.cfg.Metrics, s.cfg.Recorders = "127.0.0.1:0", "", nil
	s.cfg.RecorderTimeout = config.Duration(5 * time.Second) // two cores may be busy with other tests
	for i := range stations {
		station := newStation(t, fmt.Sprint("rec-", i+1))
		s.stations = append(s.stations, station)
		s.cfg.Recorders = append(s.cfg.Recorders, RecorderConfig{Name: station.name, Address: station.address})
	}
	s.cfg.Provider.Unigy.Servers = []string{sw.Addrs().CTI.String()}
	s.cfg.Provider.Unigy.SIPListen = "127.0.0.1:0"
	return s
}

// direct starts a director.
func (s *site) direct() {
	s.t.Helper()
	d, err := open(s.cfg, network(rpc.Wire{}), s.log())
	if err != nil {
		s.t.Fatal(err)
	}
	s.cfg.Provider.Unigy.SIPListen = d.loop().provider.SIPAddr().String() // the next one answers there, too
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()
	s.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	s.client = tandemv1connect.NewDirectorServiceClient(http.DefaultClient, "http://"+d.control.Addr().String())
}

func (s *site) log() *slog.Logger {
	level := slog.LevelError
	if testing.Verbose() {
		level = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

// status is how the director sees its floor. A connection may be given up on a
// machine that let nobody run for a second: whoever asks then asks again.
func (s *site) status() *tandemv1.StatusResponse {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		res, err := s.client.Status(s.t.Context(), connect.NewRequest(&tandemv1.StatusRequest{}))
		if err == nil {
			return res.Msg
		}
		gaveUp := connect.CodeOf(err) == connect.CodeUnavailable || connect.CodeOf(err) == connect.CodeDeadlineExceeded
		if !gaveUp || time.Now().After(deadline) {
			s.t.Fatal(err)
		}
	}
}

// until waits for something to become so.
func (s *site) until(what string, so func() bool) {
	s.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !so(); {
		if time.Now().After(deadline) {
			s.t.Fatalf("not within %v: %s\nstatus %v\nswitch %+v", patience, what, s.status(), s.sw.State())
		}
		<-tick.C
	}
}

// recorded holds that every channel is attached and heard where it is expected.
func (s *site) recorded(channels int) {
	s.t.Helper()
	before := make([]map[string]int64, len(s.stations))
	for i, st := range s.stations {
		before[i] = st.heard()
	}
	s.until(fmt.Sprint(channels, " channels attached and heard"), func() bool {
		heard := 0
		for i, st := range s.stations {
			heard += st.hearing(before[i])
		}
		return heard == channels && int(s.status().GetDirectors()[0].GetAttached()) == channels
	})
}

func TestFloorEndToEnd(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	const channels = 24
	s.recorded(channels)
	for _, st := range s.stations {
		if n := len(st.heard()); n == 0 || n == channels {
			t.Errorf("%s holds %d of %d channels", st.name, n, channels)
		}
	}
	s.until("legs begin and end", func() bool {
		over, ongoing := s.stations[0].ended()
		return over > 3 && ongoing > 0
	})
	turrets, err := s.client.ListTurrets(t.Context(), connect.NewRequest(&tandemv1.ListTurretsRequest{}))
	if err != nil || len(turrets.Msg.GetTurrets()) != 6 {
		t.Fatalf("turrets %v, %v", turrets, err)
	}
	for _, turret := range turrets.Msg.GetTurrets() {
		if turret.GetRecorder() == "" || turret.GetReason() == "" || turret.GetAttached() != 4 {
			t.Errorf("turret %v", turret)
		}
	}
	listed, err := s.client.ListFloorChannels(t.Context(), connect.NewRequest(&tandemv1.ListFloorChannelsRequest{Recorder: "rec-1"}))
	if err != nil || len(listed.Msg.GetChannels()) != len(s.stations[0].heard()) {
		t.Fatalf("channels %v, %v", listed, err)
	}
	if alarms := s.status().GetAlarms(); len(alarms) > 0 {
		t.Errorf("alarms %v", alarms)
	}
}

// Recorder, director and CTI link go and come back. Channels of the lost
// recorder move in their dialogs; nothing is dialled again or hung up.
func TestNothingIsDialledTwice(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	const channels = 24
	s.recorded(channels)
	dialled := s.sw.State().SIP.Invites

	victim := s.stations[0]
	moved := len(victim.heard())
	victim.stop()
	s.until("loss noticed", func() bool { return s.status().GetRecorders()[0].GetState() == "lost" })
	victim.start(victim.address)
	s.until("return noticed", func() bool { return s.status().GetRecorders()[0].GetState() == "ready" })
	s.recorded(channels)
	s.until("the old recorder has let go", func() bool {
		return len(s.stations[1].heard()) == channels && s.status().GetDirectors()[0].GetMoving() == 0
	})

	if err := s.sw.Inject("cti_drop", turretsim.Shot{}); err != nil {
		t.Fatal(err)
	}
	s.until("link back", func() bool { return s.sw.State().Links == 1 && s.status().GetDirectors()[0].GetCti() == "up" })
	s.recorded(channels)

	epoch := s.status().GetDirectors()[0].GetEpoch()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if n := s.sw.State().Dialogs; n != channels {
		t.Fatalf("%d dialogs left after the director stopped", n)
	}
	s.direct()
	s.recorded(channels)
	if next := s.status().GetDirectors()[0].GetEpoch(); next <= epoch {
		t.Errorf("epoch %d after %d", next, epoch)
	}
	if sip := s.sw.State().SIP; sip.Invites != dialled || sip.Reinvites != moved || sip.ByesIn != 0 {
		t.Errorf("the switch saw %+v, %d INVITEs before, %d to be moved", sip, dialled, moved)
	}
	s.until("no alarm is left", func() bool { return len(s.status().GetAlarms()) == 0 })
}

// A channel that its recorder lost for good is moved in its dialog.
func TestMovedToItsNewPort(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	const channels = 24
	s.recorded(channels)
	st := s.stations[0]
	st.stop()
	lost := slices.Sorted(maps.Keys(st.heard()))[0]
	st.mu.Lock()
	st.channels[lost].conn.Close()
	delete(st.channels, lost)
	st.mu.Unlock()
	st.start(st.address)
	s.until("moved", func() bool { return s.sw.State().SIP.Reinvites == 1 })
	s.recorded(channels)
	if err := s.sw.Inject("bye", turretsim.Shot{Count: 3}); err != nil {
		t.Fatal(err)
	}
	s.until("dialled again", func() bool { return s.sw.State().SIP.Invites == channels+3 })
	s.recorded(channels)
}

// Answers without SDP, refusals and slow answers delay channels and lose none.
func TestBadAnswers(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	const channels = 24
	s.recorded(channels)
	faults := s.sw.Faults()
	faults.SIP.StatusRate, faults.SIP.Status, faults.SIP.NoSDP, faults.SIP.NoCodec = 0.3, 503, 0.2, 0.2
	if err := s.sw.SetFaults(faults); err != nil {
		t.Fatal(err)
	}
	if err := s.sw.Inject("bye", turretsim.Shot{Count: channels}); err != nil {
		t.Fatal(err)
	}
	s.until("some were refused", func() bool { return s.sw.State().SIP.Refused > 0 })
	faults.SIP.StatusRate, faults.SIP.Status, faults.SIP.NoSDP, faults.SIP.NoCodec = 0, 0, 0, 0
	if err := s.sw.SetFaults(faults); err != nil {
		t.Fatal(err)
	}
	s.recorded(channels)
	s.until("one dialog for each channel", func() bool { return s.sw.State().Dialogs == channels })
}

// Events that get lost, doubled, turned round or made up cost a snapshot
// each, and neither audio nor, in the end, a leg.
func TestBadEvents(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	const channels = 24
	s.recorded(channels)
	faults := s.sw.Faults()
	faults.CTI.Lose, faults.CTI.Duplicate, faults.CTI.Reorder = 0.03, 0.05, 0.03
	if err := s.sw.SetFaults(faults); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cti_garbage", "cti_long_line", "cti_unknown_type", "cti_unknown_channel", "restart_cti"} {
		s.until("link up", func() bool { return s.status().GetDirectors()[0].GetCti() == "up" })
		if err := s.sw.Inject(name, turretsim.Shot{}); err != nil {
			t.Fatal(err)
		}
	}
	over, _ := s.stations[0].ended()
	s.until("calls come and go", func() bool { now, _ := s.stations[0].ended(); return now > over+5 })
	faults.CTI = turretsim.CTIFaults{}
	if err := s.sw.SetFaults(faults); err != nil {
		t.Fatal(err)
	}
	if err := s.sw.Inject("stop_calls", turretsim.Shot{}); err != nil {
		t.Fatal(err)
	}
	s.recorded(channels)
	s.until("every leg has ended", func() bool {
		_, ongoing := s.stations[0].ended()
		return ongoing == 0 && s.sw.State().Legs == 0
	})
	if sip := s.sw.State().SIP; sip.Invites != channels || sip.Reinvites != 0 || sip.ByesIn != 0 {
		t.Errorf("the switch saw %+v", sip)
	}
}

func TestRefusedByTheRecorder(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	s.recorded(24)
	newer := &tandemv1.Order{Epoch: 1001, Director: "dir-b", Group: "primary"}
	if err := s.stations[0].obey(t.Context(), newer, true, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	s.stations[1].stop() // it returns in another group
	s.stations[1].join("secondary")
	s.stations[1].start(s.stations[1].address)
	s.until("refusals shown", func() bool {
		r := s.status().GetRecorders()
		return r[0].GetState() == "refused" && r[1].GetState() == "refused"
	})
	alarms := make(map[string]string)
	for _, a := range s.status().GetAlarms() {
		alarms[a.GetObject()] = a.GetWhat() + ": " + a.GetText()
	}
	for object, want := range map[string]string{"rec-1": "refused: recorder rec-1 at ", "rec-2": "wrong_group: recorder rec-2 at "} {
		if len(alarms[object]) < len(want) || alarms[object][:len(want)] != want {
			t.Errorf("%s: alarm %q", object, alarms[object])
		}
	}
}
