package demo

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

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
	broken  bool // the last message is missing
}

func (s *shelf) Export(_ context.Context, r *connect.Request[tandemv1.ExportRequest], stream *connect.ServerStream[tandemv1.ExportResponse]) error {
	samples := s.samples[r.Msg.Channel]
	header := media.WAVHeader(media.WAVFormat{Codec: media.PCMU, SampleRate: 8000}, int64(len(samples)))
	return errors.Join(
		stream.Send(&tandemv1.ExportResponse{Part: &tandemv1.ExportResponse_Header{Header: &tandemv1.ExportHeader{Start: r.Msg.From}}}),
		stream.Send(&tandemv1.ExportResponse{Part: &tandemv1.ExportResponse_Data{Data: header[:]}}),
		stream.Send(&tandemv1.ExportResponse{Part: &tandemv1.ExportResponse_Data{Data: samples}}),
		func() error {
			if s.broken {
				return nil
			}
			return stream.Send(&tandemv1.ExportResponse{Part: &tandemv1.ExportResponse_Trailer{Trailer: &tandemv1.ExportTrailer{Gaps: s.gaps[r.Msg.Channel]}}})
		}(),
	)
}

// serveShelf is a floor whose recorder is the shelf.
func serveShelf(t *testing.T, s *shelf) *floor {
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
	return &floor{http: rpc.NewClient(), recorderAt: ln.Addr().String()}
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

// What the exports lack is found, and charged to the fault it lies in.
func TestVerdict(t *testing.T) {
	path := filepath.Join(t.TempDir(), truthLog)
	log, err := truth.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	log.Add(truth.Line{Type: truth.TypeStart, Origin: noon, Rate: 8000, Voice: truth.VoiceTones})
	stated := []*tandemv1.Gap{{From: at(4 * time.Second), To: at(4400 * time.Millisecond), Cause: "interrupted"}}
	held := &shelf{samples: map[string][]byte{}, gaps: map[string][]*tandemv1.Gap{"T1": stated, "T2": stated}}
	channels := map[string]audit.Interval{}
	for _, id := range []string{"T1", "T2"} {
		log.Add(truth.Line{Type: truth.TypeChannel, Channel: id, Device: id, Sources: []string{"HS.L"}})
		log.AddPackets(&truth.Range{Channel: id, Codec: "PCMU", SSRC: 1, Packets: 500, At: noon})
		held.samples[id] = hush(spoken(t, id), 4000, 4400)
		channels[id] = audit.Interval{From: noon, To: noon.Add(10 * time.Second)}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	f := serveShelf(t, held)
	judge := func() (truth.Verdict, Fault, error) {
		account, err := truth.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		faults := []Fault{{From: noon.Add(3 * time.Second), To: noon.Add(6 * time.Second)}}
		v, err := f.verdict(t.Context(), account, channels, faults)
		return v, faults[0], err
	}

	v, fault, err := judge()
	if err != nil || v.SentMS != 20_000 || v.RecordedMS != 19_200 || v.GapMS != 800 || v.UnexplainedMS != 0 || len(v.Findings) > 0 {
		t.Errorf("%+v, %v", v, err)
	}
	if s := spread(fault.MissingMs); s != (Spread{400, 400, 400}) || len(fault.MissingMs) != 2 {
		t.Errorf("%v", fault.MissingMs)
	}

	hush(held.samples["T2"], 5000, 5100) // inside the fault, and nobody says so
	hush(held.samples["T2"], 8000, 8020) // outside
	v, fault, err = judge()
	if err != nil || v.UnexplainedMS != 120 || spread(fault.MissingMs) != (Spread{400, 500, 500}) {
		t.Errorf("%+v, %v, %v", v, fault.MissingMs, err)
	}

	held.broken = true
	if _, _, err = judge(); err == nil || !strings.Contains(err.Error(), "it is not whole") {
		t.Error(err)
	}
}
