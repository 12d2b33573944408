package recording

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/call"
	"tandem/internal/media"
	"tandem/internal/rpc"
	"tandem/internal/stitch"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func ms(n int) time.Time { return noon.Add(time.Duration(n) * time.Millisecond) }

func stamp(n int) *timestamppb.Timestamp { return timestamppb.New(ms(n)) }

// A stretch is cut where segments begin and end, and takes from them the
// numbers of its packets and what the recorder's clock showed.
func TestStretches(t *testing.T) {
	segment := func(ts, samples, first, last int64, start, end int) *tandemv1.Segment {
		return &tandemv1.Segment{Ssrc: 7, FirstTs: ts, Samples: samples, FirstSeq: first, LastSeq: last, Packets: uint64(last - first + 1), Start: stamp(start), End: stamp(end)}
	}
	known := func(n uint16) stitch.Sequence { return stitch.Sequence{Number: n, Known: true} }
	const wrap = 1 << 32
	segments := []*tandemv1.Segment{
		{Ssrc: 7, FirstTs: 3 * wrap, Samples: 160, Start: stamp(-3_600_000), End: stamp(-3_599_980)}, // an hour ago
		segment(wrap-800, 1600, 100, 109, 0, 200),
		segment(wrap+1600, 800, 115, 119, 304, 404), // the clock runs away by 4 ms
	}
	got, offsets := stretches(noon, []*tandemv1.Stretch{
		{Offset: 160, Samples: 1440, Ssrc: 7, FirstTs: wrap - 640}, // the file begins 20 ms into the segment
		{Offset: 2400, Samples: 1600, Ssrc: 7, FirstTs: wrap + 1600},
		{Offset: 4800, Samples: 80, Ssrc: 9, FirstTs: 5},
	}, segments)
	want := []stitch.Stretch{
		{SSRC: 7, TS: 1<<32 - 640, From: ms(20), To: ms(200), Samples: 1440, Last: known(109)},
		{SSRC: 7, TS: 1600, From: ms(304), To: ms(404), Samples: 800, First: known(115), Last: known(119)},
		{SSRC: 7, TS: 2400, From: ms(404), To: ms(504), Samples: 800}, // in no segment yet
		{SSRC: 9, TS: 5, From: ms(604), To: ms(614), Samples: 80},
	}
	if !reflect.DeepEqual(got, want) || !slices.Equal(offsets, []int64{160, 2400, 3200, 4800}) {
		t.Errorf("%+v\nwant %+v, at %v", got, want, offsets)
	}
}

// A stretch that begins before the next segment does ends there.
func TestStretchBeforeSegment(t *testing.T) {
	got, _ := stretches(noon, []*tandemv1.Stretch{{Samples: 320, Ssrc: 7, FirstTs: 0}},
		[]*tandemv1.Segment{{Ssrc: 7, FirstTs: 80, Samples: 240, Packets: 1, FirstSeq: 4, LastSeq: 4, Start: stamp(10), End: stamp(40)}})
	if len(got) != 2 || got[0].Samples != 80 || got[1].Samples != 240 || got[0].First.Known || !got[1].First.Known || !got[1].Last.Known {
		t.Errorf("%+v", got)
	}
}

// take is what a recorder got of the packets that held names, of 160 samples
// each, by a clock that is off; its file begins at the true noon.
func take(name string, sent []byte, held []bool, off time.Duration) *Take {
	t := &Take{part: stitch.Part{Recorder: name}, start: noon, format: media.WAVFormat{Codec: media.PCMU, SampleRate: 8000}}
	ahead := int(off / (time.Second / stitch.Rate))
	t.samples = bytes.Repeat([]byte{media.MuLawSilence}, len(sent)+ahead)
	last := -1
	for n, got := range held {
		if !got {
			continue
		}
		at := int64(n * 160)
		from := noon.Add(off + length(at))
		if last < n-1 || last < 0 {
			if last >= 0 {
				t.part.Gaps = append(t.part.Gaps, stitch.Gap{From: noon.Add(off + length(int64(last+1)*160)), To: from, Cause: call.CauseLoss})
			}
			t.part.Stretches = append(t.part.Stretches, stitch.Stretch{SSRC: 1, TS: uint32(at), From: from, First: stitch.Sequence{Number: uint16(n), Known: true}})
			t.offsets = append(t.offsets, at+int64(ahead))
		}
		s := &t.part.Stretches[len(t.part.Stretches)-1]
		s.Samples += 160
		s.To, s.Last = from.Add(20*time.Millisecond), stitch.Sequence{Number: uint16(n), Known: true}
		copy(t.samples[int(at)+ahead:], sent[at:at+160])
		last = n
	}
	return t
}

// The bytes of all takes together are the original's, with silence where
// nobody has any.
func TestJoinBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		packets := rapid.IntRange(1, 40).Draw(t, "packets")
		sent := rapid.SliceOfN(rapid.Byte(), packets*160, packets*160).Draw(t, "sent")
		want := bytes.Repeat([]byte{media.MuLawSilence}, len(sent))
		var takes []*Take
		somebody := make([]bool, packets)
		for r := range rapid.IntRange(1, 3).Draw(t, "recorders") {
			held := rapid.SliceOfN(rapid.Bool(), packets, packets).Draw(t, "held")
			if r == 0 {
				held[0] = true // its clock is the recording's
			}
			off := time.Duration(0)
			if r > 0 {
				off = time.Duration(rapid.IntRange(0, 300).Draw(t, "clock")) * time.Millisecond
			}
			if slices.Contains(held, true) {
				takes = append(takes, take(fmt.Sprint("rec-", r+1), sent, held, off))
			}
			for n, got := range held {
				if somebody[n] = somebody[n] || got; got {
					copy(want[n*160:], sent[n*160:(n+1)*160])
				}
			}
		}
		r := Join(takes)
		if !r.Start.Equal(noon) || r.Format.Codec != media.PCMU || len(r.Samples) < len(want) || !bytes.Equal(r.Samples[:len(want)], want) {
			t.Fatalf("%d samples from %v, want %d", len(r.Samples), r.Start, len(want))
		}
		if rest := bytes.Trim(r.Samples[len(want):], "\xff"); len(rest) > 0 {
			t.Fatalf("%d bytes after the end", len(rest))
		}
		missing := time.Duration(0)
		for _, g := range r.Gaps {
			missing += g.Length
		}
		wanted := time.Duration(0)
		for _, got := range somebody[:1+lastTrue(somebody)] {
			if !got {
				wanted += 20 * time.Millisecond
			}
		}
		if missing != wanted {
			t.Fatalf("%v missing, want %v: %+v", missing, wanted, r.Gaps)
		}
	})
}

// A channel of which nothing is known but what is missing.
func TestJoinOfGapsAlone(t *testing.T) {
	gap := stitch.Gap{From: noon, To: noon.Add(time.Second), Cause: "failover"}
	only := &Take{part: stitch.Part{Recorder: "rec-1", Gaps: []stitch.Gap{gap}}}
	for _, takes := range [][]*Take{{only}, {only, nil}, {only, {part: stitch.Part{Recorder: "rec-2", Gaps: []stitch.Gap{gap}}}}} {
		r := Join(takes)
		if !r.Start.Equal(noon) || len(r.Samples) != 0 || len(r.Gaps) != 1 || r.Gaps[0].At != 0 || r.Gaps[0].Length != time.Second {
			t.Errorf("of %d takes: %+v", len(takes), r)
		}
	}
}

func lastTrue(list []bool) int {
	last := -1
	for n, v := range list {
		if v {
			last = n
		}
	}
	return last
}

// Takes whose codecs differ become linear.
func TestJoinCodecs(t *testing.T) {
	a := take("rec-1", bytes.Repeat([]byte{0x90}, 160), []bool{true}, 0)
	b := take("rec-2", bytes.Repeat([]byte{0x90}, 320), []bool{false, true}, 0)
	b.format.Codec = media.PCMA
	r := Join([]*Take{nil, a, b})
	v, w := r.Format.Linear(r.Samples), media.PCMA.ToLinear(0x90)
	if r.Format.Codec != "" || len(v) != 320 || v[0] != media.PCMU.ToLinear(0x90) || v[160] != w || v[319] != w {
		t.Errorf("%v, %d samples", r.Format, len(v))
	}
}

// recorder answers with what a test gives it.
type recorder struct {
	tandemv1connect.UnimplementedMediaServiceHandler
	file     []byte
	trailer  *tandemv1.ExportTrailer
	segments []*tandemv1.Segment
}

func (r *recorder) Export(_ context.Context, _ *connect.Request[tandemv1.ExportRequest], stream *connect.ServerStream[tandemv1.ExportResponse]) error {
	if r.file == nil {
		return connect.NewError(connect.CodeNotFound, errors.New("no media recorded"))
	}
	messages := []*tandemv1.ExportResponse{
		{Part: &tandemv1.ExportResponse_Header{Header: &tandemv1.ExportHeader{Start: stamp(0)}}},
		{Part: &tandemv1.ExportResponse_Data{Data: r.file[:70]}},
		{Part: &tandemv1.ExportResponse_Data{Data: r.file[70:]}},
	}
	if r.trailer != nil {
		messages = append(messages, &tandemv1.ExportResponse{Part: &tandemv1.ExportResponse_Trailer{Trailer: r.trailer}})
	}
	for _, m := range messages {
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	return nil
}

func (r *recorder) ListSegments(_ context.Context, _ *connect.Request[tandemv1.ListSegmentsRequest], stream *connect.ServerStream[tandemv1.ListSegmentsResponse]) error {
	for _, s := range r.segments {
		if err := stream.Send(&tandemv1.ListSegmentsResponse{Segment: s}); err != nil {
			return err
		}
	}
	return nil
}

func (r *recorder) serve(t *testing.T) Recorder {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(tandemv1connect.NewMediaServiceHandler(r))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- rpc.Serve(ctx, ln, mux) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return Recorder{"rec-1", tandemv1connect.NewMediaServiceClient(rpc.NewClient(), "http://"+ln.Addr().String())}
}

func TestRead(t *testing.T) {
	header := media.WAVHeader(media.WAVFormat{Codec: media.PCMU, SampleRate: 8000}, 320)
	file := append(header[:], bytes.Repeat([]byte{0x90}, 320)...)
	gap := &tandemv1.Gap{From: stamp(20), To: stamp(40), Cause: "loss"}
	fake := &recorder{file: file, trailer: &tandemv1.ExportTrailer{Gaps: []*tandemv1.Gap{gap}, Stretches: []*tandemv1.Stretch{{Samples: 160, Ssrc: 7, FirstTs: 5}}}}
	at := fake.serve(t)
	got, err := Read(t.Context(), at, "a", Interval{ms(0), ms(40)})
	if err != nil {
		t.Fatal(err)
	}
	want := &Take{
		part: stitch.Part{Recorder: "rec-1", Stretches: []stitch.Stretch{{SSRC: 7, TS: 5, From: ms(0), To: ms(20), Samples: 160}},
			Gaps: []stitch.Gap{{From: ms(20), To: ms(40), Cause: call.CauseLoss}}},
		offsets: []int64{0}, start: noon, format: media.WAVFormat{Codec: media.PCMU, SampleRate: 8000}, samples: file[media.WAVHeaderSize:],
		asked: Interval{ms(0), ms(40)},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}

	fake.trailer = nil
	if _, err := Read(t.Context(), at, "a", Interval{}); err == nil || !strings.Contains(err.Error(), "not whole") {
		t.Error(err)
	}
	fake.file = nil
	if none, err := Read(t.Context(), at, "a", Interval{}); none != nil || err != nil {
		t.Errorf("%+v %v", none, err)
	}
	fake.segments = []*tandemv1.Segment{{Gaps: []*tandemv1.Gap{gap}}}
	only, err := Read(t.Context(), at, "a", Interval{ms(30), ms(60)})
	if err != nil || len(only.part.Gaps) != 1 || !only.part.Gaps[0].From.Equal(ms(30)) || !only.part.Gaps[0].To.Equal(ms(40)) {
		t.Fatalf("%+v %v", only, err)
	}
	late := &Take{part: stitch.Part{Gaps: []stitch.Gap{{From: ms(90), To: ms(130)}}}}
	if r := Join([]*Take{want, late}); len(r.Gaps) != 2 || r.Gaps[1].At != 90*time.Millisecond || len(r.Samples) != 320 {
		t.Errorf("%+v", r.Gaps)
	}
	if r := Join([]*Take{only, late}); len(r.Gaps) != 2 || r.Gaps[0].At != 0 || !r.Start.Equal(ms(30)) || len(r.Samples) != 0 {
		t.Errorf("%+v", r.Gaps)
	}
}
