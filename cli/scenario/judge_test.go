package scenario

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/cli/audit"
	"tandem/internal/media"
	"tandem/internal/rpc"
	"tandem/internal/tone"
	"tandem/turretsim/truth"
	"tandem/turretsim/voice"
)

// shelf exports what a test put on it.
type shelf struct {
	tandemv1connect.UnimplementedMediaServiceHandler
	samples map[string][]byte
	gaps    map[string][]*tandemv1.Gap
	ssrc    uint32 // of all that is on it
	broken  bool   // the last message is missing
}

func (s *shelf) Export(_ context.Context, r *connect.Request[tandemv1.ExportRequest], stream *connect.ServerStream[tandemv1.ExportResponse]) error {
	from := max(0, r.Msg.From.AsTime().Sub(noon))
	samples := s.samples[r.Msg.Channel][from*tone.Rate/time.Second:]
	held := s.stretches(r.Msg.Channel, int64(from*tone.Rate/time.Second), int64(len(samples)))
	header := media.WAVHeader(media.WAVFormat{Codec: media.PCMU, SampleRate: 8000}, int64(len(samples)))
	return errors.Join(
		stream.Send(&tandemv1.ExportResponse{Part: &tandemv1.ExportResponse_Header{Header: &tandemv1.ExportHeader{Start: at(from)}}}),
		stream.Send(&tandemv1.ExportResponse{Part: &tandemv1.ExportResponse_Data{Data: header[:]}}),
		stream.Send(&tandemv1.ExportResponse{Part: &tandemv1.ExportResponse_Data{Data: samples}}),
		func() error {
			if s.broken {
				return nil
			}
			return stream.Send(&tandemv1.ExportResponse{Part: &tandemv1.ExportResponse_Trailer{Trailer: &tandemv1.ExportTrailer{Gaps: s.gaps[r.Msg.Channel], Stretches: held}}})
		}(),
	)
}

// stretches are n samples of a channel from one on, but for its gaps.
func (s *shelf) stretches(channel string, from, n int64) (all []*tandemv1.Stretch) {
	sample := func(t *timestamppb.Timestamp) int64 {
		return min(max(0, int64(t.AsTime().Sub(noon)*tone.Rate/time.Second)-from), n)
	}
	at := int64(0)
	hold := func(to int64) {
		if at < to {
			all = append(all, &tandemv1.Stretch{Offset: at, Samples: to - at, Ssrc: s.ssrc, FirstTs: from + at})
		}
	}
	for _, g := range s.gaps[channel] {
		hold(sample(g.From))
		at = max(at, sample(g.To))
	}
	hold(n)
	return all
}

// ListSegments has none: all is in the journal.
func (s *shelf) ListSegments(context.Context, *connect.Request[tandemv1.ListSegmentsRequest], *connect.ServerStream[tandemv1.ListSegmentsResponse]) error {
	return nil
}

// serve is a recorder that is the shelf.
func serve(t *testing.T, s *shelf) audit.Media {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(tandemv1connect.NewMediaServiceHandler(s))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- rpc.Serve(ctx, ln, mux) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return tandemv1connect.NewMediaServiceClient(rpc.NewClient(), "http://"+ln.Addr().String())
}

// spoken is ten seconds of a handset as its switch sent it.
func spoken(t *testing.T, device string) []byte {
	t.Helper()
	source, err := tone.NewSource(device, "HS.L")
	if err != nil {
		t.Fatal(err)
	}
	samples := make([]byte, 10*8000)
	(&voice.Mix{Steady: []tone.Source{source}}).Fill(samples, media.PCMU, 0)
	return samples
}

// hush makes samples silent in an interval of milliseconds.
func hush(samples []byte, from, to int) []byte {
	copy(samples[8*from:8*to], bytes.Repeat([]byte{media.MuLawSilence}, 8*(to-from)))
	return samples
}

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func at(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(noon.Add(d)) }

// accountOf is a switch that sent ten seconds on each channel, all of which a
// leg lasted; one leg was over long before the others.
func accountOf(t *testing.T, channels ...string) *truth.Account {
	t.Helper()
	return accountLate(t, 0, channels...)
}

// accountLate is the same of a switch that was late by so much.
func accountLate(t *testing.T, late time.Duration, channels ...string) *truth.Account {
	t.Helper()
	path := filepath.Join(t.TempDir(), "truth.jsonl")
	log, err := truth.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	leg := func(id, channel, state string, second int64) {
		log.Add(truth.Line{Type: truth.TypeLeg, Leg: id, Call: "c", Device: channel, Source: "HS.L", State: state, Sample: second * tone.Rate, Media: []truth.Media{{Channel: channel}}})
	}
	log.Add(truth.Line{Type: truth.TypeStart, Origin: noon, Rate: tone.Rate, Voice: truth.VoiceTones})
	for _, id := range channels {
		log.Add(truth.Line{Type: truth.TypeChannel, Channel: id, Device: id, Sources: []string{"HS.L"}})
		log.AddPackets(&truth.Range{Channel: id, Codec: "PCMU", SSRC: 1, Packets: 500, At: noon, Late: late})
		leg("c-"+id, id, "joined", 0)
		leg("c-"+id, id, "left", 10)
	}
	leg("short", channels[0], "joined", 0)
	leg("short", channels[0], "left", 1)
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	account, err := truth.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return account
}

// What the exports lack is found, and charged to the legs that were live on
// the victim.
func TestJudge(t *testing.T) {
	account := accountOf(t, "T1", "T2", "T3")
	stated := []*tandemv1.Gap{{From: at(4 * time.Second), To: at(4400 * time.Millisecond), Cause: "interrupted"}}
	held := &shelf{samples: map[string][]byte{}, gaps: map[string][]*tandemv1.Gap{"T1": stated, "T2": stated}}
	for _, id := range account.Channels() {
		held.samples[id] = spoken(t, id)
	}
	hush(held.samples["T1"], 4000, 4400)
	hush(held.samples["T2"], 4000, 4400)
	recorders := audit.From([]audit.Media{serve(t, held)})
	fault := Fault{At: noon.Add(4 * time.Second), Ended: noon.Add(10 * time.Second), Channels: map[string]bool{"T1": true, "T2": true}}
	for _, from := range []time.Duration{0, 3, 6} {
		fault.Windows = append(fault.Windows, audit.Interval{From: noon.Add(from * time.Second), To: noon.Add((from + 3) * time.Second)})
	}
	judge := func(scope Scope) (Judgement, error) {
		j, err := Judge(t.Context(), account, recorders, fault, scope)
		slices.Sort(j.GapMs)
		return j, err
	}
	for _, c := range []struct {
		name                             string
		scope                            Scope
		sent, recorded, gap, unexplained int64
		legs                             []int64
		damage                           func()
	}{
		{"everything", Everything, 30_000, 29_200, 800, 0, []int64{400, 400}, nil},
		{"legs only", LegsOnly, 14_000, 13_200, 800, 0, []int64{400, 400}, nil},
		{"a hole nobody tells of", Everything, 30_000, 29_100, 800, 100, []int64{400, 500}, func() { hush(held.samples["T2"], 5000, 5100) }},
		{"one long before the fault", Everything, 30_000, 29_080, 800, 120, []int64{400, 500}, func() { hush(held.samples["T2"], 1000, 1020) }},
		{"is none of the legs'", LegsOnly, 14_000, 13_100, 800, 100, []int64{400, 500}, nil},
		{"one on a survivor", Everything, 30_000, 29_060, 800, 140, []int64{400, 500}, func() { hush(held.samples["T3"], 5000, 5020) }},
	} {
		if c.damage != nil {
			c.damage()
		}
		j, err := judge(c.scope)
		v := j.Verdict
		if err != nil || v.SentMS != c.sent || v.RecordedMS != c.recorded || v.GapMS != c.gap || v.UnexplainedMS != c.unexplained {
			t.Errorf("%s: %+v, %v", c.name, v, err)
		}
		if !slices.Equal(j.GapMs, c.legs) || j.LiveLegs != 2 || j.Channels != 3 || (len(v.Findings) > 0) != (c.unexplained > 0) {
			t.Errorf("%s: %+v", c.name, j)
		}
	}
	if j, err := judge(Everything); err != nil || !slices.Equal(j.LostMs, []int64{20, 920, 0}) {
		t.Errorf("%v, %v", j.LostMs, err)
	}
	fault.Until = noon.Add(4900 * time.Millisecond) // before the hole at 5 s, which is another fault's
	if j, err := judge(Everything); err != nil || !slices.Equal(j.GapMs, []int64{400, 400}) {
		t.Errorf("%v, %v", j.GapMs, err)
	}
	held.broken = true
	if _, err := judge(Everything); err == nil || !strings.Contains(err.Error(), "it is not whole") {
		t.Error(err)
	}
}

// A switch that sends late has its audio arrive late, and lost later than it
// was due: both are put down to the switch, by what its account says and no more.
func TestJudgeOfALateSwitch(t *testing.T) {
	const fault = 8 * time.Second
	for _, c := range []struct {
		name        string
		late        time.Duration
		arrives     int // so many milliseconds after it was due
		lost        int // from when on it was lost, in milliseconds, half a second long
		unexplained int64
		gap         int64 // of the live leg
	}{
		{"on time", 0, 0, 7800, 0, 500},
		{"lost two seconds late", 2 * time.Second, 0, 5500, 0, 500},
		{"lost long before", 0, 0, 5500, 0, 0},
		{"arrives late", 2 * time.Second, 1500, 7800, 0, 500},
		{"arrives later than it left", time.Second, 1500, 7800, 9496, 4000},
	} {
		from, to := c.arrives+c.lost, c.arrives+c.lost+500
		stated := []*tandemv1.Gap{{From: at(time.Duration(from) * time.Millisecond), To: at(time.Duration(to) * time.Millisecond), Cause: "interrupted"}}
		heard := slices.Concat(bytes.Repeat([]byte{media.MuLawSilence}, 8*c.arrives), spoken(t, "T1"))
		held := &shelf{samples: map[string][]byte{"T1": hush(heard, from, to)}, gaps: map[string][]*tandemv1.Gap{"T1": stated}}
		account := accountLate(t, c.late, "T1")
		f := Fault{At: noon.Add(fault), Ended: noon.Add(10 * time.Second), Channels: map[string]bool{"T1": true}}
		j, err := Judge(t.Context(), account, audit.From([]audit.Media{serve(t, held)}), f, Everything)
		if err != nil || j.Verdict.UnexplainedMS != c.unexplained || len(j.GapMs) != 1 || j.GapMs[0] != c.gap {
			t.Errorf("%s: %+v, %v", c.name, j, err)
		}
	}
}
