package recorder

import (
	"bytes"
	"context"
	"net"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/config"
	"tandem/internal/media"
	"tandem/internal/rpc"
)

// bench is a recorder under test with its clients.
type bench struct {
	t       *testing.T
	cfg     Config
	control tandemv1connect.RecorderServiceClient
	media   tandemv1connect.MediaServiceClient
	epoch   uint64 // of orders
	stop    func()
}

func newBench(t *testing.T) *bench {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := ln.Addr().String()
	ln.Close()
	cfg := DefaultConfig()
	cfg.Control, cfg.Metrics, cfg.Dir, cfg.Nice = at, "", t.TempDir(), 0
	cfg.RTP.PortMin, cfg.RTP.PortMax, cfg.RTP.Tick = 44000, 45998, config.Duration(10*time.Millisecond)
	cfg.Media.Keep, cfg.Limits.Reserve, cfg.Limits.MaxChannels = keepAll, 0, 3
	client := rpc.NewClient()
	t.Cleanup(client.CloseIdleConnections)
	b := &bench{t: t, cfg: cfg, epoch: 2, control: tandemv1connect.NewRecorderServiceClient(client, "http://"+at), media: tandemv1connect.NewMediaServiceClient(client, "http://"+at)}
	b.start()
	t.Cleanup(func() { b.stop() })
	return b
}

func (b *bench) start() {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, b.cfg) }()
	b.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Errorf("recorder: %v", err)
		}
		b.stop = func() {}
	}
	b.until("the recorder is ready", func() bool { return b.ready() })
}

func (b *bench) until(what string, done func() bool) {
	b.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !done(); <-tick.C {
		if time.Now().After(deadline) {
			b.t.Fatalf("not within half a minute: %s", what)
		}
	}
}

// ready says whether the recorder is up and takes channels, but for a drain.
func (b *bench) ready() bool {
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Second)
	defer cancel()
	stream, err := b.control.Watch(ctx, connect.NewRequest(&tandemv1.WatchRequest{Director: "a", Group: "primary"}))
	return err == nil && stream.Receive() && (stream.Msg().GetLoad().GetReady() || stream.Msg().GetLoad().GetReason() == "draining")
}

// watch gives every heartbeat to each until that says enough.
func (b *bench) watch(what string, each func(*tandemv1.WatchResponse) (enough bool)) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	stream, err := b.control.Watch(ctx, connect.NewRequest(&tandemv1.WatchRequest{Director: "a", Group: "primary"}))
	if err != nil {
		b.t.Fatal(err)
	}
	for stream.Receive() {
		if each(stream.Msg()) {
			return
		}
	}
	b.t.Fatalf("not within half a minute: %s: %v", what, stream.Err())
}

func (b *bench) drain(epoch uint64, undo bool) error {
	_, err := b.control.Drain(b.t.Context(), connect.NewRequest(&tandemv1.DrainRequest{Order: order(epoch, "a"), Undo: undo}))
	return err
}

func (b *bench) open(ids ...string) []*tandemv1.OpenedChannel {
	b.t.Helper()
	r := &tandemv1.OpenChannelsRequest{Order: order(b.epoch, "a")}
	for _, id := range ids {
		r.Channels = append(r.Channels, &tandemv1.OpenChannel{Channel: &tandemv1.Channel{Id: id, Copy: "A", Mix: "m1", Session: &tandemv1.Session{Id: "s"}}})
	}
	answer, err := b.control.OpenChannels(b.t.Context(), connect.NewRequest(r))
	if err != nil {
		b.t.Fatal(err)
	}
	return answer.Msg.Channels
}

func (b *bench) settle(id string, dialog string) {
	b.t.Helper()
	_, err := b.control.UpdateChannels(b.t.Context(), connect.NewRequest(&tandemv1.UpdateChannelsRequest{Order: order(2, "a"),
		Channels: []*tandemv1.ChannelUpdate{{Channel: id, Codec: tandemv1.Codec_CODEC_PCMU, RtcpMux: true, Dialog: []byte(dialog)}}}))
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) held() map[string]*tandemv1.HeldChannel {
	b.t.Helper()
	r, err := b.control.Inventory(b.t.Context(), connect.NewRequest(&tandemv1.InventoryRequest{}))
	if err != nil {
		b.t.Fatal(err)
	}
	held := map[string]*tandemv1.HeldChannel{}
	for _, h := range r.Msg.Inventory.Channels {
		held[h.Channel.Id] = h
	}
	return held
}

// say sends packets from to to (not included); each is filled with its number.
func (b *bench) say(to *tandemv1.Endpoint, from, until int) {
	b.t.Helper()
	conn, err := net.Dial("udp4", hostPort(to))
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	for i := from; i < until; i++ {
		p := rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: uint16(i), Timestamp: uint32(i) * 160, SSRC: 7}, Payload: bytes.Repeat([]byte{byte(i + 1)}, 160)}
		data, err := p.Marshal()
		if err != nil {
			b.t.Fatal(err)
		}
		if _, err := conn.Write(data); err != nil {
			b.t.Fatal(err)
		}
	}
}

func TestOpenChannels(t *testing.T) {
	b := newBench(t)
	first := b.open("a", "b")
	if p := first[0].Endpoint.GetRtpPort(); p == 0 || p%2 != 0 || p == first[1].Endpoint.GetRtpPort() {
		t.Errorf("endpoints %v", first)
	}
	again := b.open("b", "c", "d")
	if again[0].Endpoint.GetRtpPort() != first[1].Endpoint.GetRtpPort() {
		t.Errorf("opened twice: %v, then %v", first[1], again[0])
	}
	if again[1].Refused != "" || again[2].Refused != refusedLimit || again[2].Endpoint != nil {
		t.Errorf("a limit of 3: %v", again)
	}
	_, err := b.control.OpenChannels(t.Context(), connect.NewRequest(&tandemv1.OpenChannelsRequest{Order: order(2, "a"), Channels: []*tandemv1.OpenChannel{{}}}))
	if connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a channel without an id: %v", err)
	}
	_, err = b.control.CloseChannels(t.Context(), connect.NewRequest(&tandemv1.CloseChannelsRequest{Order: order(1, "z"), Channels: []*tandemv1.CloseChannel{{Channel: "a"}}}))
	if refusalOf(t, err); len(b.held()) != 3 {
		t.Errorf("a stale order closed a channel: %v", b.held())
	}
	for range 2 { // idempotent
		if _, err = b.control.CloseChannels(t.Context(), connect.NewRequest(&tandemv1.CloseChannelsRequest{Order: order(2, "a"),
			Channels: []*tandemv1.CloseChannel{{Channel: "a", Cause: "logged_off"}}})); err != nil {
			t.Fatal(err)
		}
	}
	if held := b.held(); len(held) != 2 || held["a"] != nil {
		t.Errorf("held %v", held)
	}
}

func TestRecordsSurviveTheRecorder(t *testing.T) {
	b := newBench(t)
	now := timestamppb.Now()
	put := func(m *tandemv1.PutRecordsRequest) error {
		m.Order = order(2, "a")
		_, err := b.control.PutRecords(t.Context(), connect.NewRequest(m))
		return err
	}
	if err := put(&tandemv1.PutRecordsRequest{Legs: []*tandemv1.Leg{{Id: "l"}}}); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a leg without a call: %v", err)
	}
	if err := put(&tandemv1.PutRecordsRequest{Calls: []*tandemv1.Call{{Id: "c", Line: "L1", Start: now}}, Legs: []*tandemv1.Leg{{Id: "l", Call: "c", UserName: "Ada", Channels: []string{"a"}, Start: now}}}); err != nil {
		t.Fatal(err)
	}
	ended := false
	state := func() string {
		r, err := b.media.SearchCalls(t.Context(), connect.NewRequest(&tandemv1.SearchCallsRequest{Agent: "ada"}))
		if err != nil || len(r.Msg.Legs) != 1 || r.Msg.Legs[0].Call.Line != "L1" {
			t.Fatalf("%v, %v", r, err)
		}
		ended = r.Msg.Legs[0].Leg.End != nil
		return r.Msg.Legs[0].State
	}
	if got := state(); got != "recording" || ended {
		t.Errorf("state %s, ended %v", got, ended)
	}
	b.stop()
	b.start()
	if got := state(); got != "interrupted" || !ended {
		t.Errorf("after a restart: state %s, ended %v", got, ended)
	}
}

// A port that another program took while the recorder was down costs the
// channel its port and nothing else: the audio goes on in the same attachment.
func TestPortTaken(t *testing.T) {
	b := newBench(t)
	endpoint := b.open("a")[0].Endpoint
	b.settle("a", "the dialog")
	b.say(endpoint, 0, 10)
	b.until("ten packets are kept", func() bool { return b.held()["a"].Packets == 10 })
	b.stop()
	taken, err := net.ListenPacket("udp4", hostPort(endpoint))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	b.start()
	h := b.held()["a"]
	if h == nil || h.Endpoint.RtpPort == endpoint.RtpPort || string(h.Dialog) != "the dialog" || h.Codec != tandemv1.Codec_CODEC_PCMU {
		t.Fatalf("held %v", h)
	}
	b.say(h.Endpoint, 15, 20) // five were lost on the way
	b.until("five more are kept", func() bool { return b.held()["a"].Packets == 5 })

	audio, gaps := b.export("a")
	for i := range 20 {
		want := byte(i + 1)
		if i >= 10 && i < 15 {
			want = media.MuLawSilence
		}
		if got := audio[i*160]; got != want {
			t.Errorf("packet %d holds %#x, want %#x", i, got, want)
		}
	}
	if len(gaps) != 1 || gaps[0].Cause != "interrupted" || gaps[0].To.AsTime().Sub(gaps[0].From.AsTime()) != 100*time.Millisecond {
		t.Errorf("gaps %v", gaps)
	}
}

// What was sent to a channel while its recorder was down is missing until a
// packet tells otherwise, and when none comes before it is closed.
func TestNothingFollowsARestart(t *testing.T) {
	b := newBench(t)
	b.say(b.open("a")[0].Endpoint, 0, 10)
	b.settle("a", "")
	b.until("ten packets are kept", func() bool { return b.held()["a"].Packets == 10 })
	spoke := time.Now()
	b.until("what was said at once is over", func() bool { return time.Since(spoke) > 10*20*time.Millisecond })
	b.stop()
	down := time.Now()
	b.start()
	up := time.Now()
	if _, err := b.control.CloseChannels(t.Context(), connect.NewRequest(&tandemv1.CloseChannelsRequest{Order: order(2, "a"), Channels: []*tandemv1.CloseChannel{{Channel: "a", Cause: "logged_off"}}})); err != nil {
		t.Fatal(err)
	}
	b.stop() // closes the journal's file
	b.start()
	var gaps []*tandemv1.Gap
	b.until("what is missing is known", func() bool {
		gaps = nil
		segments, err := b.media.ListSegments(t.Context(), connect.NewRequest(&tandemv1.ListSegmentsRequest{Channel: "a"}))
		if err != nil {
			t.Fatal(err)
		}
		for segments.Receive() {
			gaps = append(gaps, segments.Msg().Segment.Gaps...)
		}
		return len(gaps) > 0
	})
	if len(gaps) != 1 || gaps[0].Cause != "interrupted" {
		t.Fatalf("gaps %v", gaps)
	}
	if from, to := gaps[0].From.AsTime(), gaps[0].To.AsTime(); from.After(down) || from.Before(spoke.Add(-time.Second)) || to.Before(down) || to.After(up) {
		t.Errorf("missing from %v to %v; down from %v, up by %v", from, to, down, up)
	}
}

// What is missing since another recorder was lost with a channel, or since a
// call began that nobody had, is named, even when this one was stopped before
// the first packet came.
func TestContinuesAnother(t *testing.T) {
	for _, c := range []*tandemv1.Continuation{{Recorder: "rec-2", Cause: "failover"}, {Cause: "unattached"}} {
		t.Run(c.GetCause(), func(t *testing.T) { testContinues(t, c) })
	}
}

func testContinues(t *testing.T, c *tandemv1.Continuation) {
	b := newBench(t)
	since := time.Now().Add(-2 * time.Second)
	ask := func(c *tandemv1.Continuation) (*connect.Response[tandemv1.OpenChannelsResponse], error) {
		return b.control.OpenChannels(t.Context(), connect.NewRequest(&tandemv1.OpenChannelsRequest{Order: order(2, "a"),
			Channels: []*tandemv1.OpenChannel{{Channel: &tandemv1.Channel{Id: "a"}, Continues: c}}}))
	}
	for _, wrong := range []*tandemv1.Continuation{c, {Recorder: "rec-2", Cause: "whim", Since: timestamppb.New(since)}} {
		if _, err := ask(wrong); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%v: %v", wrong, err)
		}
	}
	c.Since = timestamppb.New(since)
	if _, err := ask(c); err != nil {
		t.Fatal(err)
	}
	b.stop()
	b.start()
	begin := time.Now()
	b.say(b.held()["a"].Endpoint, 0, 10)
	b.until("ten packets are kept", func() bool { return b.held()["a"].Packets == 10 })
	_, gaps := b.export("a")
	if len(gaps) != 1 || gaps[0].Cause != c.Cause || gaps[0].From.AsTime().Sub(since).Abs() > time.Millisecond || gaps[0].To.AsTime().Sub(begin).Abs() > time.Second {
		t.Errorf("gaps %v", gaps)
	}
}

// What is missing of a channel that the switch answered for only when a call had
// begun is named, whether its first packet or the word of it comes first.
func TestAnsweredInACall(t *testing.T) {
	for name, spoken := range map[string]int{"told first": 0, "heard first": 5} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			since := time.Now().Add(-2 * time.Second)
			endpoint := b.open("a")[0].Endpoint
			begin := time.Now()
			b.say(endpoint, 0, spoken)
			b.until("what was said is kept", func() bool { return b.held()["a"].Packets == uint64(spoken) })
			tell := func(c *tandemv1.Continuation) error {
				_, err := b.control.UpdateChannels(t.Context(), connect.NewRequest(&tandemv1.UpdateChannelsRequest{Order: order(2, "a"),
					Channels: []*tandemv1.ChannelUpdate{{Channel: "a", Codec: tandemv1.Codec_CODEC_PCMU, RtcpMux: true, Receiving: true, Continues: c}}}))
				return err
			}
			if err := tell(&tandemv1.Continuation{Cause: "unattached"}); connect.CodeOf(err) != connect.CodeInvalidArgument {
				t.Errorf("since nobody knows when: %v", err)
			}
			for range 2 { // it may be told again
				if err := tell(&tandemv1.Continuation{Cause: "unattached", Since: timestamppb.New(since)}); err != nil {
					t.Fatal(err)
				}
			}
			b.say(endpoint, spoken, 10)
			b.until("ten packets are kept", func() bool { return b.held()["a"].Packets == 10 })
			_, gaps := b.export("a")
			if len(gaps) != 1 || gaps[0].Cause != "unattached" || gaps[0].From.AsTime().Sub(since).Abs() > time.Millisecond || gaps[0].To.AsTime().Sub(begin).Abs() > time.Second {
				t.Errorf("gaps %v, want one from %v to %v", gaps, since, begin)
			}
		})
	}
}

// An update from before the switch has answered says since when calls are missed,
// and takes nothing from what was agreed since.
func TestNotAnsweredYet(t *testing.T) {
	b := newBench(t)
	b.open("a")
	tell := func() {
		t.Helper()
		_, err := b.control.UpdateChannels(t.Context(), connect.NewRequest(&tandemv1.UpdateChannelsRequest{Order: order(2, "a"),
			Channels: []*tandemv1.ChannelUpdate{{Channel: "a", Continues: &tandemv1.Continuation{Cause: "unattached", Since: timestamppb.Now()}}}}))
		if err != nil {
			t.Fatal(err)
		}
	}
	tell()
	if h := b.held()["a"]; h.GetCodec() != tandemv1.Codec_CODEC_UNSPECIFIED || len(h.GetDialog()) > 0 {
		t.Errorf("agreed to %v with dialog %q", h.GetCodec(), h.GetDialog())
	}
	b.settle("a", "dialog")
	tell()
	if h := b.held()["a"]; h.GetCodec() == tandemv1.Codec_CODEC_UNSPECIFIED || string(h.GetDialog()) != "dialog" || !h.GetRtcpMux() {
		t.Errorf("what was agreed became %v with dialog %q", h.GetCodec(), h.GetDialog())
	}
}

// A draining recorder says so at once, takes nothing new, goes on with what it
// has, and remembers it through a restart and a newer director.
func TestDrain(t *testing.T) {
	b := newBench(t)
	b.open("a")
	reason := func() (reason string) {
		b.watch("a load", func(m *tandemv1.WatchResponse) bool {
			reason = m.GetLoad().GetReason()
			return m.Load != nil && reason != "starting"
		})
		return reason
	}
	if err := b.drain(1, false); refusalOf(t, err) != tandemv1.Refusal_REASON_STALE_EPOCH || reason() != "" {
		t.Errorf("a stale order was obeyed: %v", err)
	}
	beats := 0
	b.watch("word of the drain", func(m *tandemv1.WatchResponse) bool {
		if beats++; beats == 1 {
			if err := b.drain(2, false); err != nil {
				t.Fatal(err)
			}
		}
		return m.GetLoad().GetReason() == "draining" && !m.Load.Ready
	})
	if beats > 4 { // one may have been on its way, and one was due
		t.Errorf("told with the heartbeat number %d", beats)
	}
	if got := b.open("a", "b"); got[0].Refused != "" || got[1].Refused != refusedNotReady {
		t.Errorf("opened while draining: %v", got)
	}
	b.stop()
	b.start()
	if got := reason(); got != "draining" || b.held()["a"] == nil {
		t.Errorf("after a restart: %q, held %v", got, b.held())
	}
	if _, err := b.control.Fence(t.Context(), connect.NewRequest(&tandemv1.FenceRequest{Order: order(4, "a")})); err != nil {
		t.Fatal(err)
	}
	b.epoch = 4
	if got := b.open("b"); got[0].Refused != refusedNotReady {
		t.Errorf("a newer epoch ended the drain: %v", got)
	}
	if err := b.drain(4, true); err != nil {
		t.Fatal(err)
	}
	if got := b.open("b"); got[0].Refused != "" {
		t.Errorf("not opened at once after the drain: %v", got)
	}
}

// A channel with a dialog and without any sign of its far end is named dead; one
// that sends reports while its people are silent is not.
func TestDeadChannels(t *testing.T) {
	b := newBench(t)
	b.stop()
	b.cfg.RTP.MediaDead = config.Duration(1500 * time.Millisecond)
	b.start()
	opened := b.open("dead", "alive", "waiting")
	b.settle("dead", "dialog")
	b.settle("alive", "dialog")
	alive, err := net.Dial("udp4", hostPort(opened[1].Endpoint))
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	report, err := (&rtcp.ReceiverReport{SSRC: 7}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	b.watch("the dead one", func(m *tandemv1.WatchResponse) bool {
		if _, err := alive.Write(report); err != nil {
			t.Fatal(err)
		}
		got := m.GetLoad().GetDeadChannels()
		if len(got) > 0 && !slices.Equal(got, []string{"dead"}) {
			t.Fatalf("dead: %v", got)
		}
		return len(got) > 0
	})
	b.say(opened[0].Endpoint, 0, 1)
	b.watch("its audio", func(m *tandemv1.WatchResponse) bool {
		alive.Write(report)
		return m.Load != nil && m.Packets == 1 && len(m.Load.DeadChannels) == 0
	})
}

// Heartbeats count packets and say how many channels talk.
func TestHeartbeats(t *testing.T) {
	b := newBench(t)
	opened := b.open("a", "b")
	b.say(opened[0].Endpoint, 0, 10)
	sequence, beats := uint64(0), 0
	b.watch("the packets", func(m *tandemv1.WatchResponse) bool {
		if sequence++; m.Sequence != sequence {
			t.Errorf("heartbeat %d follows %d", m.Sequence, sequence-1)
		}
		return m.Packets == 10 && m.Talking == 1
	})
	began := time.Now()
	b.watch("ten heartbeats", func(m *tandemv1.WatchResponse) bool {
		beats++
		return beats > 10 && m.Talking == 0
	})
	if took := time.Since(began); took < 700*time.Millisecond {
		t.Errorf("%d heartbeats in %v", beats, took)
	}
}

// export is all there is of a channel.
func (b *bench) export(channel string) (audio []byte, gaps []*tandemv1.Gap) {
	b.t.Helper()
	now := time.Now()
	stream, err := b.media.Export(b.t.Context(), connect.NewRequest(&tandemv1.ExportRequest{Channel: channel, From: timestamppb.New(now.Add(-time.Minute)), To: timestamppb.New(now.Add(time.Minute))}))
	if err != nil {
		b.t.Fatal(err)
	}
	var file bytes.Buffer
	for stream.Receive() {
		file.Write(stream.Msg().GetData())
		if trailer := stream.Msg().GetTrailer(); trailer != nil {
			gaps = trailer.Gaps
		}
	}
	if err := stream.Err(); err != nil {
		b.t.Fatal(err)
	}
	_, samples, err := media.ReadWAV(&file)
	if err != nil {
		b.t.Fatal(err)
	}
	return bytes.TrimLeft(samples, string([]byte{media.MuLawSilence})), gaps
}
