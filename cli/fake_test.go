package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/daemon"
	"tandem/internal/media"
	"tandem/internal/rpc"
)

var update = flag.Bool("update", false, "write the golden files anew")

// noon is when the tests take place.
var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func after(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(noon.Add(d)) }

// fakeDirector answers as a director would, with what a test gives it.
type fakeDirector struct {
	tandemv1connect.UnimplementedDirectorServiceHandler
	status   *tandemv1.StatusResponse
	turrets  []*tandemv1.Turret
	channels []*tandemv1.FloorChannel
	steps    [][]*tandemv1.FloorChannel // what a command makes of the channels, a look each; the last one stays
	drained  *uint32                    // channels on a recorder that is to be drained; nil: 2
	moves    []*tandemv1.TurretMove
	ordered  proto.Message // the last command
	refusal  error
	failover *tandemv1.FailoverResponse
	asked    []*tandemv1.FailoverRequest
	learns   func() // not nil: what being asked to fail over does to it
	history  []*tandemv1.RoleChange
	mu       sync.Mutex // steps, channels, ordered, asked, status while a test changes it
}

func (f *fakeDirector) order(m proto.Message) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ordered = m
	return f.refusal
}

func (f *fakeDirector) Drain(_ context.Context, r *connect.Request[tandemv1.DirectorServiceDrainRequest]) (*connect.Response[tandemv1.DirectorServiceDrainResponse], error) {
	on := uint32(2)
	if f.drained != nil {
		on = *f.drained
	}
	return connect.NewResponse(&tandemv1.DirectorServiceDrainResponse{Channels: on}), f.order(r.Msg)
}

func (f *fakeDirector) Move(_ context.Context, r *connect.Request[tandemv1.MoveRequest]) (*connect.Response[tandemv1.MoveResponse], error) {
	return connect.NewResponse(&tandemv1.MoveResponse{Channels: 2}), f.order(r.Msg)
}

func (f *fakeDirector) Rebalance(_ context.Context, r *connect.Request[tandemv1.RebalanceRequest]) (*connect.Response[tandemv1.RebalanceResponse], error) {
	return connect.NewResponse(&tandemv1.RebalanceResponse{Moves: f.moves}), f.order(r.Msg)
}

func (f *fakeDirector) Status(context.Context, *connect.Request[tandemv1.StatusRequest]) (*connect.Response[tandemv1.StatusResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return connect.NewResponse(f.status), nil
}

func (f *fakeDirector) Failover(_ context.Context, r *connect.Request[tandemv1.FailoverRequest]) (*connect.Response[tandemv1.FailoverResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, r.Msg)
	if f.learns != nil {
		f.learns()
	}
	if f.refusal != nil {
		return nil, f.refusal
	}
	answer := proto.CloneOf(f.failover)
	if r.Msg.DryRun {
		answer.Epoch, answer.TookMs = 0, 0
	}
	return connect.NewResponse(answer), nil
}

func (f *fakeDirector) History(context.Context, *connect.Request[tandemv1.HistoryRequest]) (*connect.Response[tandemv1.HistoryResponse], error) {
	return connect.NewResponse(&tandemv1.HistoryResponse{Changes: f.history}), nil
}

func (f *fakeDirector) ListTurrets(context.Context, *connect.Request[tandemv1.ListTurretsRequest]) (*connect.Response[tandemv1.ListTurretsResponse], error) {
	return connect.NewResponse(&tandemv1.ListTurretsResponse{Turrets: f.turrets}), nil
}

func (f *fakeDirector) ListFloorChannels(_ context.Context, r *connect.Request[tandemv1.ListFloorChannelsRequest]) (*connect.Response[tandemv1.ListFloorChannelsResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.steps) > 0 && f.ordered != nil {
		f.channels, f.steps = f.steps[0], f.steps[1:]
	}
	var some []*tandemv1.FloorChannel
	for _, c := range f.channels {
		if r.Msg.Recorder == "" || r.Msg.Recorder == c.Recorder {
			some = append(some, c)
		}
	}
	return connect.NewResponse(&tandemv1.ListFloorChannelsResponse{Channels: some}), nil
}

// fakeWatchdog answers as a watchdog would, and remembers what it was told.
type fakeWatchdog struct {
	tandemv1connect.UnimplementedWatchdogServiceHandler
	status *tandemv1.WatchdogStatus
	told   *tandemv1.PauseRequest
	broken error
}

func (f *fakeWatchdog) Report(context.Context, *connect.Request[tandemv1.ReportRequest]) (*connect.Response[tandemv1.ReportResponse], error) {
	return connect.NewResponse(&tandemv1.ReportResponse{Status: f.status}), nil
}

func (f *fakeWatchdog) Pause(_ context.Context, r *connect.Request[tandemv1.PauseRequest]) (*connect.Response[tandemv1.PauseResponse], error) {
	f.told = r.Msg
	if r.Msg.Undo || f.broken != nil {
		return connect.NewResponse(&tandemv1.PauseResponse{}), f.broken
	}
	return connect.NewResponse(&tandemv1.PauseResponse{Until: after(time.Duration(r.Msg.ForMs) * time.Millisecond)}), nil
}

// fakeRecorder answers as a recorder would, with what a test gives it.
type fakeRecorder struct {
	tandemv1connect.UnimplementedMediaServiceHandler
	legs     []*tandemv1.LegDetail
	channels []*tandemv1.HeldChannel
	exports  map[string]fakeExport // by call, leg or channel
	findings []*tandemv1.Finding
	blind    []*tandemv1.Window
	pages    bool // searches heed interval and limit
	heard    []*tandemv1.ListenResponse
	searched chan *tandemv1.SearchCallsRequest // nil: not wanted
	broken   error
	cut      bool          // streams end before their last message
	leaves   bool          // the channels close when they have been heard
	died     chan struct{} // not nil: closed when the channels have been heard, which then stay silent
	mu       sync.Mutex
}

// fakeExport is a G.711 file in the making.
type fakeExport struct {
	start   time.Time
	samples []byte
	gaps    []*tandemv1.Gap
	damaged bool

	stretches []*tandemv1.Stretch
}

func (f *fakeRecorder) SearchCalls(_ context.Context, r *connect.Request[tandemv1.SearchCallsRequest]) (*connect.Response[tandemv1.SearchCallsResponse], error) {
	if f.searched != nil {
		f.searched <- r.Msg
	}
	response := &tandemv1.SearchCallsResponse{Blind: f.blind}
	legs := slices.Clone(f.legs)
	if f.pages { // as a recorder does: the newest that overlap, up to the limit
		legs = slices.DeleteFunc(legs, func(l *tandemv1.LegDetail) bool {
			leg := l.Record.Leg
			return r.Msg.To != nil && !at(leg.Start).Before(at(r.Msg.To)) || r.Msg.From != nil && leg.End != nil && !at(leg.End).After(at(r.Msg.From))
		})
		slices.SortStableFunc(legs, func(a, b *tandemv1.LegDetail) int { return at(b.Record.Leg.Start).Compare(at(a.Record.Leg.Start)) })
		if n := int(r.Msg.Limit); n > 0 && len(legs) > n {
			legs, response.More = legs[:n], true
		}
	}
	for _, l := range legs {
		response.Legs = append(response.Legs, l.Record)
	}
	return connect.NewResponse(response), f.broken
}

func (f *fakeRecorder) GetCall(_ context.Context, r *connect.Request[tandemv1.GetCallRequest]) (*connect.Response[tandemv1.GetCallResponse], error) {
	response := &tandemv1.GetCallResponse{}
	for _, l := range f.legs {
		if l.Record.Call.Id == r.Msg.Call {
			response.Legs = append(response.Legs, l)
		}
	}
	if len(response.Legs) == 0 {
		return nil, connect.NewError(connect.CodeNotFound, errors.New("no such call"))
	}
	return connect.NewResponse(response), nil
}

func (f *fakeRecorder) ListChannels(context.Context, *connect.Request[tandemv1.ListChannelsRequest]) (*connect.Response[tandemv1.ListChannelsResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return connect.NewResponse(&tandemv1.ListChannelsResponse{Channels: f.channels}), nil
}

func (f *fakeRecorder) Export(_ context.Context, r *connect.Request[tandemv1.ExportRequest], stream *connect.ServerStream[tandemv1.ExportResponse]) error {
	e, ok := f.exports[r.Msg.Call+r.Msg.Leg+r.Msg.Channel]
	if !ok {
		return connect.NewError(connect.CodeNotFound, errors.New("no such call or leg"))
	}
	header := media.WAVHeader(media.WAVFormat{Codec: media.PCMU, SampleRate: 8000}, int64(len(e.samples)))
	file := append(header[:], e.samples...)
	sum := sha256.Sum256(file)
	messages := []*tandemv1.ExportResponse{{Part: &tandemv1.ExportResponse_Header{Header: &tandemv1.ExportHeader{
		Start: timestamppb.New(e.start), Size: uint64(len(file)), DurationMs: int64(len(e.samples)) / 8, Codec: tandemv1.Codec_CODEC_PCMU, SampleRate: 8000, Channels: []string{"s2.m1.A"},
	}}}}
	if e.damaged {
		file[len(file)-1] ^= 1
	}
	for chunk := range slices.Chunk(file, 1000) {
		messages = append(messages, &tandemv1.ExportResponse{Part: &tandemv1.ExportResponse_Data{Data: chunk}})
	}
	if !f.cut {
		messages = append(messages, &tandemv1.ExportResponse{Part: &tandemv1.ExportResponse_Trailer{Trailer: &tandemv1.ExportTrailer{
			Gaps: e.gaps, Sha256: hex.EncodeToString(sum[:]), Stretches: e.stretches}}})
	}
	for _, m := range messages {
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeRecorder) ListSegments(_ context.Context, r *connect.Request[tandemv1.ListSegmentsRequest], stream *connect.ServerStream[tandemv1.ListSegmentsResponse]) error {
	for _, l := range f.legs {
		for _, p := range l.Parts {
			for _, s := range p.Segments {
				if r.Msg.Channel != "" && s.Channel != r.Msg.Channel {
					continue
				}
				if err := stream.Send(&tandemv1.ListSegmentsResponse{Segment: s}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (f *fakeRecorder) Listen(ctx context.Context, _ *connect.Request[tandemv1.ListenRequest], stream *connect.ServerStream[tandemv1.ListenResponse]) error {
	for _, m := range f.heard {
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.leaves {
		f.channels = nil
	}
	if f.died != nil {
		close(f.died)
		<-ctx.Done()
	}
	return f.broken
}

func (f *fakeRecorder) Verify(_ context.Context, r *connect.Request[tandemv1.VerifyRequest], stream *connect.ServerStream[tandemv1.VerifyResponse]) error {
	if err := stream.Send(&tandemv1.VerifyResponse{Result: &tandemv1.VerifyResponse_Progress{Progress: &tandemv1.VerifyProgress{Done: 1, Total: 2}}}); err != nil {
		return err
	}
	for _, m := range f.findings {
		if err := stream.Send(&tandemv1.VerifyResponse{Result: &tandemv1.VerifyResponse_Finding{Finding: m}}); err != nil {
			return err
		}
	}
	if f.cut {
		return nil
	}
	return stream.Send(&tandemv1.VerifyResponse{Result: &tandemv1.VerifyResponse_Summary{Summary: &tandemv1.VerifySummary{
		Segments: 12, Bytes: 3 << 20, RecordedMs: 393_216, GapMs: 340, Findings: uint64(len(f.findings)),
	}}})
}

// serve answers on a loopback port until the test ends.
func serve(t *testing.T, path string, handler http.Handler) (address string) {
	t.Helper()
	return serveUntil(t, nil, path, handler)
}

// serveUntil is serve until died is closed, if that comes before: then every
// connection breaks, as when a process is killed.
func serveUntil(t *testing.T, died <-chan struct{}, path string, handler http.Handler) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(path, handler)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- rpc.Serve(ctx, ln, mux) }()
	go func() {
		select {
		case <-died:
			cancel()
		case <-ctx.Done():
		}
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

func (f *fakeDirector) serve(t *testing.T) string {
	path, handler := tandemv1connect.NewDirectorServiceHandler(f)
	return serve(t, path, handler)
}

func (f *fakeWatchdog) serve(t *testing.T) string {
	path, handler := tandemv1connect.NewWatchdogServiceHandler(f)
	return serve(t, path, handler)
}

func (f *fakeRecorder) serve(t *testing.T) string {
	path, handler := tandemv1connect.NewMediaServiceHandler(f)
	return serveUntil(t, f.died, path, handler)
}

// closedPort is a loopback address where nothing listens.
func closedPort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// result is what one run of recctl left behind.
type result struct {
	status    int
	out, errs string
}

// recctl runs a command with the given configuration; its clock stands at
// noon, its zone is one hour east.
func recctl(t *testing.T, config string, args ...string) result {
	t.Helper()
	file := filepath.Join(t.TempDir(), "recctl.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	i := &invocation{out: &out, errs: &errs, actor: "ops@desk", zone: time.FixedZone("CET", 3600), now: func() time.Time { return noon }}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	status := i.run(ctx, append([]string{"recctl", "--config", file}, args...))
	return result{status, out.String(), errs.String()}
}

// golden compares got with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant:\n%s", name, got, want)
	}
}

// a site with a director and two recorders, in the middle of trading
type fakeSite struct {
	director   *fakeDirector
	recorders  [2]*fakeRecorder
	config     string // reaches the director only
	recorderAt [2]string
	directorAt string
}

func newFakeSite(t *testing.T) *fakeSite {
	s := &fakeSite{}
	s.recorders[0] = firstRecorder()
	s.recorders[1] = secondRecorder()
	for n, r := range s.recorders {
		s.recorderAt[n] = r.serve(t)
	}
	s.director = tradingDirector(s.recorderAt[0], s.recorderAt[1])
	s.directorAt = s.director.serve(t)
	s.config = `directors = ["` + s.directorAt + `"]` + "\nwatchdogs = []\n"
	return s
}

// anonymous hides the ports that the test got.
func (s *fakeSite) anonymous(out string) string {
	return strings.NewReplacer(s.directorAt, "DIRECTOR", s.recorderAt[0], "RECORDER1", s.recorderAt[1], "RECORDER2", daemon.Version(), "VERSION").Replace(out)
}

func session(n string, user, name string) *tandemv1.Session {
	return &tandemv1.Session{Id: "s" + n, User: user, UserName: name, Device: "t" + n, Profile: "desk"}
}

var (
	ann = session("2", "ann", "Ann Lee")
	bob = session("10", "bob", "Bob Stone")
)

func channel(s *tandemv1.Session, mix string, sources ...string) *tandemv1.Channel {
	return &tandemv1.Channel{Id: s.Id + "." + mix + ".A", Session: s, Mix: mix, Copy: "A", Sources: sources}
}

func tradingDirector(rec1, rec2 string) *fakeDirector {
	placed := func(c *tandemv1.Channel, recorder, state, text string, port uint32, legs uint32) *tandemv1.FloorChannel {
		f := &tandemv1.FloorChannel{Channel: c, Recorder: recorder, Reason: "lowest score 0.12", State: state, Text: text, Legs: legs}
		if port > 0 {
			f.Endpoint, f.Codec = &tandemv1.Endpoint{Host: "127.0.0.1", RtpPort: port}, tandemv1.Codec_CODEC_PCMU
		}
		return f
	}
	return &fakeDirector{
		status: &tandemv1.StatusResponse{
			Site: "ldn", Generated: after(0),
			Directors: []*tandemv1.DirectorStatus{{Name: "dir-a", Group: "primary", Role: "active", Epoch: 14, Since: after(-26 * time.Hour), Preferred: true, Basis: "alone", Cti: "up", Sessions: 2, Channels: 3, Attached: 2}},
			Recorders: []*tandemv1.RecorderStatus{
				{Name: "rec-2", Group: "primary", Address: rec2, State: "lost", Priority: 1, Reason: "no heartbeat"},
				{Name: "rec-1", Group: "primary", Address: rec1, State: "ready", Score: 0.31, Load: &tandemv1.Load{
					Ready: true, CpuPercent: 4.13, DiskFreeBytes: 123 << 30, DiskWriteMs: 0.42, Channels: 3, MaxChannels: 4000, Legs: 1, PacketsPerS: 149.6, LostPackets: 7, JournalLagBytes: 1 << 20, CatalogLag: 2}},
			},
			Headroom: []*tandemv1.Headroom{{Group: "primary", Busiest: "rec-1", Text: "could not lose rec-1: no other recorder is ready to take its 3 channels"}},
			Alarms: []*tandemv1.Alarm{
				{Severity: "warning", What: "recorder_lost", Object: "rec-2", Since: after(-90 * time.Second), Text: "no heartbeat for 500ms"},
			},
		},
		turrets: []*tandemv1.Turret{
			{Session: bob, Since: after(-time.Hour), Recorder: "rec-1", Reason: "lowest score 0.12", Channels: 1, Attached: 0},
			{Session: ann, Since: after(-2 * time.Hour), Recorder: "rec-1", Reason: "lowest score 0.12", Channels: 2, Attached: 2, Legs: 1},
		},
		channels: []*tandemv1.FloorChannel{
			placed(channel(bob, "m1", "HS.L", "HS.R"), "rec-1", "dialing", "488 Not Acceptable Here", 0, 0),
			placed(channel(ann, "m2", "SPK.1", "SPK.2"), "rec-1", "attached", "", 20002, 0),
			placed(channel(ann, "m1", "HS.L", "HS.R"), "rec-1", "attached", "", 20000, 1),
		},
	}
}

// call7 is one call with a leg on each recorder.
var call7 = &tandemv1.Call{Id: "c7", Line: "L12", Direction: "out", Kind: "dial", Party: "+442071234567", PartyName: "Barclays FX", State: "released", Start: after(-10 * time.Minute), End: after(-8 * time.Minute), EndCause: "normal"}

func firstRecorder() *fakeRecorder {
	gap := &tandemv1.Gap{From: after(-9 * time.Minute), To: after(-9*time.Minute + 340*time.Millisecond), Cause: "interrupted"}
	return &fakeRecorder{
		channels: []*tandemv1.HeldChannel{
			{Channel: channel(ann, "m1", "HS.L", "HS.R"), Endpoint: &tandemv1.Endpoint{Host: "127.0.0.1", RtpPort: 20000}, Codec: tandemv1.Codec_CODEC_PCMU, Opened: after(-2 * time.Hour), LastPacket: after(-15 * time.Millisecond), Packets: 360000, Lost: 7},
			{Channel: channel(ann, "m2", "SPK.1", "SPK.2"), Endpoint: &tandemv1.Endpoint{Host: "127.0.0.1", RtpPort: 20002}, Codec: tandemv1.Codec_CODEC_PCMU, Opened: after(-2 * time.Hour), LastPacket: after(-3 * time.Minute), Packets: 360000, Rejected: 12},
		},
		legs: []*tandemv1.LegDetail{
			{
				Record: &tandemv1.LegRecord{
					Call: call7, Leg: &tandemv1.Leg{Id: "c7.1", Call: "c7", Session: "s2", User: "ann", UserName: "Ann Lee", Device: "t2", Source: "HS.L", Channels: []string{"s2.m1.A"}, Start: after(-10*time.Minute + 2*time.Second), End: after(-8 * time.Minute), EndCause: "released", Accuracy: "exact"},
					Group: "primary", Recorder: "rec-1", State: "complete", GapMs: 340,
				},
				Parts: []*tandemv1.Part{{Recorder: "rec-1", Channel: "s2.m1.A", From: after(-10*time.Minute + 2*time.Second), To: after(-8 * time.Minute), Gaps: []*tandemv1.Gap{gap}, Segments: []*tandemv1.Segment{
					{Id: "17", Channel: "s2.m1.A", Copy: "A", Start: after(-15 * time.Minute), End: after(0), Codec: tandemv1.Codec_CODEC_PCMU, File: "2026-03-02/11/s2.m1.A-114500.wav", Size: 7_200_058, Packets: 44_983, Lost: 17, Open: true, Gaps: []*tandemv1.Gap{gap}},
				}}},
			},
			{
				Record: &tandemv1.LegRecord{
					Call:  &tandemv1.Call{Id: "c9", Line: "HOOT1", Direction: "in", Kind: "hoot", Party: "\x1b[31mEvil", State: "established", Start: after(-time.Minute)},
					Leg:   &tandemv1.Leg{Id: "c9.1", Call: "c9", Session: "s2", User: "ann", UserName: "Ann Lee", Device: "t2", Source: "SPK.1", Start: after(-50 * time.Second), Accuracy: "snapshot"},
					Group: "primary", Recorder: "rec-1", State: "recording",
				},
			},
		},
		exports: map[string]fakeExport{
			"c9":      {start: noon.Add(-50 * time.Second), samples: bytes.Repeat([]byte{0x80}, 4000)},
			"c7.1":    {start: noon.Add(-10*time.Minute + 2*time.Second), samples: bytes.Repeat([]byte{0x90}, 8000), gaps: []*tandemv1.Gap{gap}},
			"s2.m1.A": {start: noon.Add(-10*time.Minute + 2*time.Second), samples: bytes.Repeat([]byte{0x90}, 8000), gaps: []*tandemv1.Gap{gap}},
		},
	}
}

func secondRecorder() *fakeRecorder {
	return &fakeRecorder{
		legs: []*tandemv1.LegDetail{{
			Record: &tandemv1.LegRecord{
				Call: call7, Leg: &tandemv1.Leg{Id: "c7.2", Call: "c7", Session: "s10", User: "bob", UserName: "Bob Stone", Device: "t10", Source: "HS.R", Start: after(-9 * time.Minute), End: after(-8 * time.Minute), EndCause: "released", Accuracy: "exact"},
				Group: "primary", Recorder: "rec-2", State: "interrupted",
			},
			Parts: []*tandemv1.Part{{Recorder: "rec-2", Channel: "s10.m1.A", From: after(-9 * time.Minute), To: after(-8 * time.Minute)}},
		}},
		exports: map[string]fakeExport{
			"c7.2":     {start: noon.Add(-10*time.Minute + 2500*time.Millisecond), samples: bytes.Repeat([]byte{0x90}, 8000)},
			"s10.m1.A": {start: noon.Add(-10*time.Minute + 2500*time.Millisecond), samples: bytes.Repeat([]byte{0x90}, 8000)},
		},
	}
}
