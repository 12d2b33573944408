package playback_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/mewkiz/flac"
	"github.com/pion/rtp"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"tandem/internal/call"
	"tandem/internal/media"
	"tandem/recorder/catalog"
	"tandem/recorder/compact"
	"tandem/recorder/journal"
	"tandem/recorder/journaltest"
	"tandem/recorder/playback"
)

func TestMain(m *testing.M) { journaltest.Main(m) }

// floor is a recorder without sockets: a real journal, compactor and catalog,
// fed by the test, beside a model of what each line said.
type floor struct {
	t      journaltest.T
	dir    string
	cat    *catalog.Catalog
	w      *journaltest.Journal
	cfg    compact.Config
	c      *compact.Compactor
	player *playback.Player
	base   time.Time
	lines  []*line
}

// line is a channel; said is all of its samples since the floor's base.
type line struct {
	journal.Channel
	seq  uint16
	rnd  *rand.Rand
	said []byte
	sent []byte // 1 for each of them that came in a packet
	gaps []gap
}

// gap is in samples.
type gap struct {
	from, to int
	cause    call.Cause
}

func newFloor(t journaltest.T, dir string, slot time.Duration) *floor {
	t.Helper()
	f := &floor{t: t, dir: dir, base: time.Now().UTC().Truncate(time.Second)}
	var err error
	if f.cat, err = catalog.Open(context.Background(), filepath.Join(dir, "catalog.db")); err != nil {
		t.Fatal(err)
	}
	f.cfg = compact.DefaultConfig()
	f.cfg.Journal, f.cfg.Media, f.cfg.Slot, f.cfg.KeepAll = filepath.Join(dir, "journal"), filepath.Join(dir, "media"), slot, true
	f.c = compact.New(f.cfg, f.cat)
	f.player = playback.New(playback.Config{Journal: f.cfg.Journal, Media: f.cfg.Media}, f.cat)
	f.w = journaltest.Start(t, f.cfg.Journal, 1<<20)
	return f
}

func (f *floor) close() {
	f.w.Stop()
	f.cat.Close()
}

func (f *floor) line(id call.ChannelID, codec media.Codec) *line {
	num := uint32(len(f.lines) + 1)
	l := &line{Channel: journal.Channel{Num: num, ID: id, Copy: call.CopyA, Codec: codec, PayloadType: codec.PayloadType(), Opened: f.base},
		seq: 65500, rnd: rand.New(rand.NewPCG(2, uint64(num)))}
	f.lines = append(f.lines, l)
	f.w.Put(journaltest.Opened(l.Channel))
	return l
}

// firstTS is the RTP timestamp of a line's first sample; it wraps soon.
const firstTS uint32 = 1<<32 - 5000

// packet is what a line sends next, and when.
func (f *floor) packet(l *line) (arrival time.Time, datagram []byte) {
	payload := make([]byte, 160)
	for i := range payload {
		payload[i] = byte(l.rnd.Uint32())
	}
	p := rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: l.PayloadType, SequenceNumber: l.seq, SSRC: l.Num, Timestamp: firstTS + uint32(len(l.said))}, Payload: payload}
	datagram, err := p.Marshal()
	if err != nil {
		f.t.Fatal(err)
	}
	arrival = f.at(len(l.said))
	l.seq++
	l.said, l.sent = append(l.said, payload...), append(l.sent, bytes.Repeat([]byte{1}, len(payload))...)
	return arrival, datagram
}

func (f *floor) at(sample int) time.Time {
	return f.base.Add(time.Duration(sample) * 125 * time.Microsecond)
}

func (f *floor) talk(l *line, n int) {
	for n > 0 {
		d := f.w.Block()
		for ; n > 0; n-- {
			arrival, datagram := f.packet(l)
			if !d.Add(l.Num, arrival.UnixNano(), datagram) {
				f.t.Fatal("a block is too small")
			}
			if n%500 == 1 {
				n--
				break
			}
		}
		f.w.Append(d)
	}
}

func (f *floor) silence(l *line, n int) {
	l.said, l.sent = append(l.said, bytes.Repeat([]byte{l.Codec.Silence()}, n)...), append(l.sent, make([]byte, n)...)
}

func (f *floor) lose(l *line, n int) {
	from := len(l.said)
	f.silence(l, 160*n)
	l.seq += uint16(n)
	l.gaps = append(l.gaps, gap{from, len(l.said), call.CauseLoss})
}

// reboot kills and restarts the recorder while a line sends n packets.
func (f *floor) reboot(l *line, n int) {
	f.w.Stop()
	f.lose(l, n)
	l.gaps[len(l.gaps)-1].cause = call.CauseInterrupted
	f.w.Restart()
	for _, l := range f.lines {
		f.w.Put(journaltest.Opened(l.Channel))
	}
}

func (f *floor) compact() {
	f.t.Helper()
	f.w.Close()
	if _, err := f.c.Step(context.Background()); err != nil {
		f.t.Fatal(err)
	}
}

func (f *floor) export(r playback.Request) (playback.Header, playback.Trailer, []byte) {
	f.t.Helper()
	f.w.Settle()
	e, err := f.player.Export(context.Background(), r)
	if err != nil {
		f.t.Fatalf("%+v: %v", r, err)
	}
	defer e.Close()
	var out bytes.Buffer
	trailer, err := e.Write(context.Background(), &out)
	if err != nil {
		f.t.Fatal(err)
	}
	if e.Header.Size > 0 && e.Header.Size != int64(out.Len()) {
		f.t.Fatalf("%d bytes announced, %d written", e.Header.Size, out.Len())
	}
	if sum := sha256.Sum256(out.Bytes()); trailer.SHA256 != hex.EncodeToString(sum[:]) {
		f.t.Fatal("the trailer's hash is not that of the file")
	}
	return e.Header, trailer, out.Bytes()
}

func (f *floor) wav(r playback.Request) (playback.Header, playback.Trailer, media.WAVFormat, []byte) {
	f.t.Helper()
	h, tr, file := f.export(r)
	format, data, err := media.ReadWAV(bytes.NewReader(file))
	if err != nil {
		f.t.Fatal(err)
	}
	return h, tr, format, data
}

func (f *floor) window(from, to int) catalog.Window {
	return catalog.Window{From: f.at(from), To: f.at(to)}
}

// Wherever the samples are, in sealed segments, open ones or the journal, an
// export holds exactly them, and its gaps are exactly what was lost.
func TestExportAgainstModel(t *testing.T) {
	dir, n := journaltest.Memory(t), 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		own := filepath.Join(dir, fmt.Sprint(n))
		if err := os.Mkdir(own, 0o750); err != nil {
			t.Fatal(err)
		}
		f := newFloor(t, own, rapid.SampledFrom([]time.Duration{10 * time.Second, 24 * time.Hour}).Draw(t, "slot"))
		defer os.RemoveAll(own)
		defer f.close()
		l, other := f.line("a", media.PCMU), f.line("b", media.PCMA)
		f.talk(l, 3)
		t.Repeat(map[string]func(*rapid.T){
			"talk": func(t *rapid.T) {
				f.talk(l, rapid.IntRange(1, 400).Draw(t, "packets"))
				f.talk(other, 5)
			},
			"silence": func(t *rapid.T) {
				f.silence(l, rapid.IntRange(1, 200_000).Draw(t, "samples"))
				f.talk(l, 1)
			},
			"lose": func(t *rapid.T) {
				f.lose(l, rapid.IntRange(1, 300).Draw(t, "packets"))
				f.talk(l, 1)
			},
			"reboot": func(t *rapid.T) {
				f.reboot(l, rapid.IntRange(1, 300).Draw(t, "packets"))
				f.talk(l, 1)
			},
			"rotate":  func(*rapid.T) { f.w.Close() },
			"compact": func(*rapid.T) { f.compact() },
			"export": func(t *rapid.T) {
				from := rapid.IntRange(0, len(l.said)-1).Draw(t, "from")
				to := rapid.IntRange(from+1, len(l.said)).Draw(t, "to")
				h, trailer, format, data := f.wav(playback.Request{Channel: l.ID, Window: f.window(from, to)})
				if format.Codec != media.PCMU || h.Codec != media.PCMU || !h.Start.Equal(f.at(from)) {
					t.Fatalf("%v, %+v", format, h)
				}
				if !bytes.Equal(data, l.said[from:to]) {
					t.Fatalf("[%d,%d): %s", from, to, difference(data, l.said[from:to]))
				}
				f.wantGaps(l, trailer.Gaps, from, to)
				f.wantStretches(l, trailer.Stretches, from, to)
			},
		})
	})
}

func (f *floor) wantGaps(l *line, got []catalog.Gap, from, to int) {
	f.t.Helper()
	var want []gap
	for _, g := range l.gaps {
		if a, b := max(g.from, from), min(g.to, to); a < b {
			want = append(want, gap{a, b, g.cause})
		}
	}
	same := slices.EqualFunc(got, want, func(g catalog.Gap, w gap) bool {
		return g.Cause == w.cause && g.From.Sub(f.at(w.from)).Abs() < time.Millisecond && g.To.Sub(f.at(w.to)).Abs() < time.Millisecond
	})
	if !same {
		f.t.Fatalf("gaps %v, want samples %v of %v", got, want, f.base)
	}
}

// wantStretches wants exactly the samples that came in packets, in order and
// unbroken, each with the RTP timestamp it had on the wire.
func (f *floor) wantStretches(l *line, got []playback.Stretch, from, to int) {
	f.t.Helper()
	media := make([]byte, to-from)
	end := int64(-1)
	for _, s := range got {
		if s.At <= end || s.SSRC != l.Num || uint32(s.FirstTS) != firstTS+uint32(from)+uint32(s.At) {
			f.t.Fatalf("stretch %+v behind sample %d of [%d,%d)", s, end, from, to)
		}
		end = s.At + s.Samples
		copy(media[s.At:end], bytes.Repeat([]byte{1}, int(s.Samples)))
	}
	if !bytes.Equal(media, l.sent[from:to]) {
		f.t.Fatalf("stretches of [%d,%d): %s", from, to, difference(media, l.sent[from:to]))
	}
}

func difference(got, want []byte) string {
	if len(got) != len(want) {
		return fmt.Sprintf("%d samples, want %d", len(got), len(want))
	}
	i := 0
	for i < len(got) && got[i] == want[i] {
		i++
	}
	return fmt.Sprintf("differs from sample %d of %d", i, len(got))
}

// A sender that for the most part speaks while another one is silent is heard
// between what that one said, and what of it is missing there is missing. Where
// both speak the first one is heard, and a packet that the other one lost then
// is no silence in the file.
func TestOneInsideAnother(t *testing.T) {
	f := newFloor(t, t.TempDir(), 24*time.Hour)
	defer f.close()
	l := f.line("a", media.PCMU)
	inner := &line{Channel: l.Channel, seq: 7, rnd: rand.New(rand.NewPCG(9, 9))}
	say := func(speaker *line, ssrc uint32, packets int) {
		speaker.Num = ssrc // the SSRC of what it sends
		for range packets {
			arrival, datagram := f.packet(speaker)
			d := f.w.Block()
			d.Add(l.Num, arrival.UnixNano(), datagram)
			f.w.Append(d)
		}
	}
	say(l, l.Num, 100) // 0 to 2 s
	f.silence(inner, 12000)
	say(inner, 77, 25) // 1.5 to 2 s: not heard
	f.silence(l, 240_000)
	f.silence(inner, 40_000)
	say(inner, 77, 50) // 7 to 8 s: heard
	f.lose(inner, 10)
	say(inner, 77, 50)             // 8.2 to 9.2 s
	say(l, l.Num, 50)              // 32 to 33 s
	f.silence(inner, 182_400+1600) // to 32.2 s
	say(inner, 77, 5)
	f.lose(inner, 5)
	say(inner, 77, 5)

	want := slices.Clone(l.said)
	copy(want[56_000:], inner.said[56_000:73_600])
	for _, stage := range []string{"in the journal", "in segments"} {
		_, trailer, _, data := f.wav(playback.Request{Channel: l.ID, Window: f.window(0, len(l.said))})
		if !bytes.Equal(data, want) {
			t.Errorf("%s: %s", stage, difference(data, want))
		}
		if g := trailer.Gaps; len(g) != 1 || g[0].From.Sub(f.at(64_000)).Abs() > time.Millisecond || g[0].To.Sub(f.at(65_600)).Abs() > time.Millisecond {
			t.Errorf("%s: gaps %v", stage, g)
		}
		wantStretches := []playback.Stretch{{At: 0, Samples: 16000, SSRC: 1}, {At: 56_000, Samples: 8000, SSRC: 77}, {At: 65_600, Samples: 8000, SSRC: 77}, {At: 256_000, Samples: 8000, SSRC: 1}}
		same := slices.EqualFunc(trailer.Stretches, wantStretches, func(g, w playback.Stretch) bool {
			return g.At == w.At && g.Samples == w.Samples && g.SSRC == w.SSRC && uint32(g.FirstTS) == firstTS+uint32(g.At)
		})
		if !same {
			t.Errorf("%s: stretches %+v, want %+v", stage, trailer.Stretches, wantStretches)
		}
		f.compact()
	}
}

// A flood's first packets come over the stream and a lone one of it in a gap
// of the stream: neither is heard, and the gap is whole.
func TestRivalHidesNoGap(t *testing.T) {
	f := newFloor(t, t.TempDir(), 24*time.Hour)
	defer f.close()
	l := f.line("a", media.PCMU)
	say := func(at int, p rtp.Packet) {
		p.Version, p.PayloadType, p.Payload = 2, l.PayloadType, bytes.Repeat([]byte{7}, 160)
		datagram, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		d := f.w.Block()
		d.Add(l.Num, f.at(at).UnixNano(), datagram)
		f.w.Append(d)
	}
	f.talk(l, 100)
	for i := range 20 { // as fast as they go, at 1.7 s
		say(13_600, rtp.Packet{Header: rtp.Header{SSRC: 66, SequenceNumber: uint16(i), Timestamp: uint32(160 * i)}})
	}
	f.lose(l, 20)
	say(17_600, rtp.Packet{Header: rtp.Header{SSRC: 66, SequenceNumber: 34_000, Timestamp: 34_000 * 160}})
	f.talk(l, 50)
	for _, stage := range []string{"in the journal", "in segments"} {
		_, trailer, _, data := f.wav(playback.Request{Channel: l.ID, Window: f.window(0, len(l.said))})
		if !bytes.Equal(data, l.said) {
			t.Errorf("%s: %s", stage, difference(data, l.said))
		}
		f.wantGaps(l, trailer.Gaps, 0, len(l.said))
		f.wantStretches(l, trailer.Stretches, 0, len(l.said))
		f.compact()
	}
}

// Before it is compacted, too, an export names what a socket's buffer had no
// room for at the end of a dialog, and of the channel, and what the compactor
// has taken in of it already.
func TestDrownedEnd(t *testing.T) {
	f := newFloor(t, t.TempDir(), 24*time.Hour)
	defer f.close()
	l := f.line("a", media.PCMU)
	drown := func(n int) {
		from := len(l.said)
		f.lose(l, n)
		f.w.Put(journal.Note{Dropped: &journal.Dropped{Num: l.Num, From: f.at(from), To: f.at(len(l.said) - 160), Packets: uint64(n), Cause: call.CauseLoss, Unseen: true}})
	}
	check := func(stage string) {
		t.Helper()
		_, trailer, _, data := f.wav(playback.Request{Channel: l.ID, Window: f.window(0, len(l.said))})
		if !bytes.Equal(data, l.said) {
			t.Errorf("%s: %s", stage, difference(data, l.said))
		}
		f.wantGaps(l, trailer.Gaps, 0, len(l.said))
	}
	f.talk(l, 50)
	drown(50)
	check("drowned")
	f.compact()
	check("drowned and compacted")
	ours := l.Num
	for range 50 {
		arrival, datagram := f.packet(l)
		datagram[1] |= 0x80 // a marker at least at the first
		binary.BigEndian.PutUint32(datagram[8:], 99)
		d := f.w.Block()
		d.Add(ours, arrival.UnixNano(), datagram)
		f.w.Append(d)
	}
	check("with the next dialog")
	drown(25)
	check("drowned again")
	f.w.Put(journal.Note{Closed: &journal.Closed{Num: ours, At: f.at(len(l.said)), Cause: "logged_off"}})
	check("at the end")
	f.compact()
	check("and in segments")
}

// A sender that takes another one's place is heard whole, even when somebody
// who was there before it speaks over it now and then and outlasts it.
func TestRivalSilencesNobody(t *testing.T) {
	f := newFloor(t, t.TempDir(), 24*time.Hour)
	defer f.close()
	l := f.line("a", media.PCMU)
	forger := &line{Channel: l.Channel, seq: 7, rnd: rand.New(rand.NewPCG(9, 9))}
	forger.Num = 77
	type sent struct {
		at       time.Time
		datagram []byte
	}
	var all []sent
	for ssrc, packets := range []int{600, 400} {
		l.Num = uint32(1 + ssrc)
		for range packets {
			at, datagram := f.packet(l)
			all = append(all, sent{at, datagram})
		}
	}
	l.Num = 1
	f.silence(forger, 8000)
	for range 20 { // one packet a second, from the first second on
		at, datagram := f.packet(forger)
		all = append(all, sent{at, datagram})
		f.silence(forger, 8000-160)
	}
	slices.SortStableFunc(all, func(a, b sent) int { return a.at.Compare(b.at) })
	for _, s := range all {
		d := f.w.Block()
		d.Add(l.Num, s.at.UnixNano(), s.datagram)
		f.w.Append(d)
	}
	for _, stage := range []string{"in the journal", "in segments"} {
		_, trailer, _, data := f.wav(playback.Request{Channel: l.ID, Window: f.window(0, len(l.said))})
		if !bytes.Equal(data, l.said) || trailer.Gaps != nil {
			t.Errorf("%s: %s, gaps %v", stage, difference(data, l.said), trailer.Gaps)
		}
		f.compact()
	}
}

// While it is recorded, too, an export names what is missing since another
// recorder was lost, and only what this one has not itself.
func TestContinuation(t *testing.T) {
	for name, c := range map[string]struct{ moved, until int }{
		"told by the first packet":            {0, 40_000},
		"told by the move, long before":       {24_000, 24_160},
		"told by the move, a moment before":   {39_000, 40_000},
		"told by the move, after some packet": {40_800, 40_000},
	} {
		t.Run(name, func(t *testing.T) { testContinuation(t, c.moved, c.until) })
	}
}

func testContinuation(t *testing.T, moved, until int) {
	f := newFloor(t, t.TempDir(), 24*time.Hour)
	defer f.close()
	before := f.line("a", media.PCMU)
	f.talk(before, 100)
	f.w.Put(journal.Note{Closed: &journal.Closed{Num: before.Num, At: f.at(16_000), Cause: "moved"}})
	l := &line{Channel: before.Channel, rnd: before.rnd}
	l.Num = 2
	l.Continues = call.Continuation{Recorder: "rec-2", Cause: call.CauseFailover, Since: f.at(8_000)}
	f.w.Put(journaltest.Opened(l.Channel))
	tell := func() {
		told := l.Channel
		told.Continues.Until = f.at(moved)
		f.w.Put(journal.Note{Updated: &told})
	}
	if moved > 0 && moved < 40_000 {
		tell()
	}
	f.silence(l, 40_000)
	f.talk(l, 100)
	if moved > 40_000 {
		tell()
	}
	for _, stage := range []string{"in the journal", "in segments"} {
		_, trailer, _, _ := f.wav(playback.Request{Channel: l.ID, Window: f.window(0, len(l.said))})
		g := trailer.Gaps
		if len(g) != 1 || g[0].Cause != call.CauseFailover || g[0].From.Sub(f.at(16_000)).Abs() > time.Millisecond || g[0].To.Sub(f.at(until)).Abs() > time.Millisecond {
			t.Errorf("%s: gaps %v", stage, g)
		}
		f.compact()
	}
}

// While the compactor moves audio from the journal to segments, and seals
// them, every export holds everything that was said before it was asked for.
func TestExportWhileCompacting(t *testing.T) {
	f := newFloor(t, journaltest.Memory(t), 10*time.Second)
	defer f.close()
	l := f.line("a", media.PCMU)
	f.talk(l, 500)
	f.w.Settle()
	var g errgroup.Group
	done := make(chan struct{})
	g.Go(func() error {
		defer close(done)
		for range 40 {
			if err := f.w.Rotate(context.Background()); err != nil {
				return err
			}
			if _, err := f.c.Step(context.Background()); err != nil {
				return err
			}
		}
		return nil
	})
	exports := 0
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		f.talk(l, 50)
		_, _, _, data := f.wav(playback.Request{Channel: l.ID, Window: f.window(0, len(l.said))})
		if !bytes.Equal(data, l.said) {
			t.Fatal(difference(data, l.said))
		}
		exports++
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d exports", exports)
}

func (f *floor) put(legs ...catalog.Leg) {
	f.t.Helper()
	if err := f.cat.PutRecords(context.Background(), []catalog.Call{{ID: "c", Start: f.base}}, legs, nil); err != nil {
		f.t.Fatal(err)
	}
}

func (f *floor) attach(l *line, sources ...string) {
	f.t.Helper()
	err := f.cat.PutAttachments(context.Background(), []catalog.Attachment{{Num: l.Num, Channel: l.ID, Copy: l.Copy, Sources: sources, Codec: l.Codec, Opened: f.base}})
	if err != nil {
		f.t.Fatal(err)
	}
}

// A leg comes from the channel that holds most of it, among equals from the
// one that mixes fewest sources; still recording, it ends where the audio does.
func TestLeg(t *testing.T) {
	f := newFloor(t, t.TempDir(), 24*time.Hour)
	defer f.close()
	mixed, alone, holed := f.line("mixed", media.PCMU), f.line("alone", media.PCMA), f.line("holed", media.PCMU)
	f.attach(mixed, "HS.L", "HS.R", "SPK.1")
	f.attach(alone, "HS.L", "HS.R")
	f.attach(holed, "HS.L")
	f.talk(mixed, 300)
	f.talk(alone, 300)
	f.talk(holed, 100)
	f.lose(holed, 100)
	f.talk(holed, 100)
	leg := catalog.Leg{ID: "l", Call: "c", Start: f.at(1234), Channels: []string{"mixed", "alone", "holed", "absent"}}
	f.put(leg)
	for _, stage := range []string{"in the journal", "in segments"} {
		h, trailer, _, data := f.wav(playback.Request{Leg: "l"})
		if !slices.Equal(h.Channels, []call.ChannelID{"alone"}) || !bytes.Equal(data, alone.said[1234:]) || trailer.Gaps != nil {
			t.Errorf("%s: %v, %s, gaps %v", stage, h.Channels, difference(data, alone.said[1234:]), trailer.Gaps)
		}
		f.compact()
	}
	leg.End = f.at(30000)
	f.put(leg)
	if _, _, _, data := f.wav(playback.Request{Call: "c"}); !bytes.Equal(data, alone.said[1234:30000]) {
		t.Error(difference(data, alone.said[1234:30000]))
	}
	parts, err := f.player.Parts(t.Context(), leg)
	if err != nil || len(parts) != 1 || parts[0].Channel != "alone" || !parts[0].To.Equal(leg.End) || len(parts[0].Segments) == 0 {
		t.Errorf("%+v, %v", parts, err)
	}
}

// A leg on a channel that was never heard is what is missing of it: nothing to
// export, and a gap that has its cause.
func TestLegNobodyHeard(t *testing.T) {
	f := newFloor(t, t.TempDir(), 24*time.Hour)
	defer f.close()
	never := f.line("never", media.PCMU)
	never.Continues = call.Continuation{Cause: call.CauseUnattached, Since: f.at(0)}
	f.w.Put(journal.Note{Updated: &never.Channel})
	f.w.Put(journal.Note{Closed: &journal.Closed{Num: never.Num, At: f.at(16000), Cause: "logged_off"}})
	f.compact()
	closed := f.at(16000 + 160) // the last packet would have lasted so long
	for _, c := range []struct{ start, end, until time.Time }{
		{f.at(800), f.at(8000), f.at(8000)},
		{f.at(800), f.at(80000), closed},
		{f.at(800), time.Time{}, closed},
		{f.at(80000), f.at(88000), time.Time{}},
	} {
		leg := catalog.Leg{ID: "l", Call: "c", Start: c.start, End: c.end, Channels: []string{"absent", "never"}}
		f.put(leg)
		if _, err := f.player.Export(t.Context(), playback.Request{Leg: "l"}); !errors.Is(err, playback.ErrNoMedia) {
			t.Errorf("export: %v", err)
		}
		parts, err := f.player.Parts(t.Context(), leg)
		if err != nil {
			t.Fatal(err)
		}
		want := []catalog.Gap{{From: c.start, To: c.until, Cause: call.CauseUnattached}}
		if c.until.IsZero() {
			if len(parts) > 0 {
				t.Errorf("after it was closed: %+v", parts)
			}
		} else if len(parts) != 1 || !slices.Equal(parts[0].Gaps, want) || parts[0].Channel != "never" || !parts[0].From.Equal(c.start) || !parts[0].To.Equal(c.until) {
			t.Errorf("%+v, want the gaps %v", parts, want)
		}
	}
}

// A call's legs are mixed to linear samples, each where it was in time; two
// legs on one channel are heard once; FLAC holds the same.
func TestCallIsMixed(t *testing.T) {
	f := newFloor(t, t.TempDir(), 24*time.Hour)
	defer f.close()
	a, b := f.line("a", media.PCMU), f.line("b", media.PCMA)
	f.talk(a, 200)
	f.talk(b, 200)
	f.put(
		catalog.Leg{ID: "l1", Call: "c", Start: f.at(1600), End: f.at(16000), Channels: []string{"a"}},
		catalog.Leg{ID: "l2", Call: "c", Start: f.at(3200), End: f.at(20000), Channels: []string{"a"}},
		catalog.Leg{ID: "l3", Call: "c", Start: f.at(8000), End: f.at(32000), Channels: []string{"b"}},
	)
	var want []int16
	for i := 1600; i < 32000; i++ {
		v := int32(0)
		if i < 20000 {
			v += int32(a.Codec.ToLinear(a.said[i]))
		}
		if i >= 8000 {
			v += int32(b.Codec.ToLinear(b.said[i]))
		}
		want = append(want, int16(min(max(v, -32768), 32767)))
	}
	h, _, format, data := f.wav(playback.Request{Call: "c"})
	got := make([]int16, len(data)/2)
	if err := binary.Read(bytes.NewReader(data), binary.LittleEndian, got); err != nil {
		t.Fatal(err)
	}
	if format != (media.WAVFormat{SampleRate: 8000}) || h.Codec != "" || !slices.Equal(got, want) {
		t.Errorf("%v %+v, %d samples, want %d", format, h, len(got), len(want))
	}
	h, _, file := f.export(playback.Request{Call: "c", Format: playback.FLAC})
	if decoded := decodeFLAC(t, file); !slices.Equal(decoded, want) || h.Size != 0 {
		t.Errorf("FLAC holds %d samples, want %d", len(decoded), len(want))
	}
}

func decodeFLAC(t *testing.T, file []byte) (samples []int16) {
	t.Helper()
	stream, err := flac.New(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := stream.ParseNext()
		if err == io.EOF {
			return samples
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range frame.Subframes[0].Samples {
			samples = append(samples, int16(v))
		}
	}
}

func TestRefusals(t *testing.T) {
	f := newFloor(t, t.TempDir(), 24*time.Hour)
	defer f.close()
	f.put(catalog.Leg{ID: "silent", Call: "c", Start: f.base, End: f.base.Add(time.Second), Channels: []string{"none"}})
	for _, c := range []struct {
		r    playback.Request
		want error
	}{
		{playback.Request{}, playback.ErrRequest},
		{playback.Request{Call: "c", Leg: "l"}, playback.ErrRequest},
		{playback.Request{Call: "c", Format: "mp3"}, playback.ErrRequest},
		{playback.Request{Call: "nobody"}, catalog.ErrNotFound},
		{playback.Request{Leg: "silent"}, playback.ErrNoMedia},
		{playback.Request{Channel: "none", Window: f.window(0, 8000)}, playback.ErrNoMedia},
	} {
		if _, err := f.player.Export(t.Context(), c.r); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v, want %v", c.r, err, c.want)
		}
	}
}

func TestVerify(t *testing.T) {
	whole := func(t *testing.T, f *floor, path string, s catalog.Segment) {}
	edit := func(change func([]byte) []byte) func(*testing.T, *floor, string, catalog.Segment) {
		return func(t *testing.T, _ *floor, path string, _ catalog.Segment) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, change(b), 0o640); err != nil {
				t.Fatal(err)
			}
		}
	}
	row := func(change func(*catalog.Segment)) func(*testing.T, *floor, string, catalog.Segment) {
		return func(t *testing.T, f *floor, _ string, s catalog.Segment) {
			number, state, err := f.cat.Compacted(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			change(&s)
			if err := f.cat.Commit(t.Context(), catalog.Compaction{Segments: []catalog.Segment{s}, Number: number, State: state}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, f *floor, path string, s catalog.Segment)
		want   []string
		deep   []string // beside want
	}{
		{"nothing", whole, nil, nil},
		{"a flipped bit", edit(func(b []byte) []byte { b[1000] ^= 1; return b }), nil, []string{playback.WrongHash}},
		{"audio in a gap", edit(func(b []byte) []byte { b[58+160*55] = 0; return b }), nil, []string{playback.WrongHash, playback.Unexplained}},
		{"cut short", edit(func(b []byte) []byte { return b[:len(b)-1] }), []string{playback.WrongSize}, []string{playback.WrongHash}},
		{"header", edit(func(b []byte) []byte { b[54]++; return b }), []string{playback.WrongLength}, []string{playback.WrongHash}},
		{"gone", func(t *testing.T, _ *floor, path string, _ catalog.Segment) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}, []string{playback.MissingFile}, nil},
		{"loss without a gap", row(func(s *catalog.Segment) { s.Gaps = nil }), []string{playback.Unexplained}, nil},
		{"a gap elsewhere", row(func(s *catalog.Segment) { s.Gaps[0].From = s.Start.Add(-time.Hour) }), []string{playback.Unexplained}, []string{playback.Unexplained}},
		{"no hash", row(func(s *catalog.Segment) { s.SHA256 = "" }), []string{playback.WrongHash}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFloor(t, t.TempDir(), 24*time.Hour)
			defer f.close()
			l := f.line("a", media.PCMU)
			f.talk(l, 50)
			f.lose(l, 10)
			f.talk(l, 50)
			f.w.Put(journal.Note{Closed: &journal.Closed{Num: l.Num, At: f.at(len(l.said)), Cause: "logged_off"}})
			still := f.line("b", media.PCMA)
			f.talk(still, 50)
			f.compact()
			segments, err := f.cat.Segments(t.Context(), l.ID, catalog.Window{})
			if err != nil || len(segments) != 1 || !segments[0].Sealed {
				t.Fatalf("%+v, %v", segments, err)
			}
			c.damage(t, f, filepath.Join(f.cfg.Media, segments[0].File), segments[0])
			for _, deep := range []bool{false, true} {
				var got []string
				steps := 0
				v, err := f.player.Verify(t.Context(), catalog.Window{}, deep, func(x playback.Finding) error {
					got = append(got, x.What)
					if x.Segment != segments[0].ID || x.Text == "" {
						t.Errorf("%+v", x)
					}
					return nil
				}, func(done, total int) error { steps++; return nil })
				want := c.want
				if deep {
					want = append(slices.Clone(c.want), c.deep...)
				}
				if err != nil || !slices.Equal(got, want) || v.Findings != len(want) || v.Segments != 2 || steps != 2 {
					t.Errorf("deep %v: found %v, want %v; %+v, %v", deep, got, want, v, err)
				}
				if c.name == "nothing" && (v.Gap != 200*time.Millisecond || v.Recorded != 3*time.Second) {
					t.Errorf("%+v", v)
				}
			}
		})
	}
}

// Others can read what is exported.
func TestOtherProgramsReadExports(t *testing.T) {
	f := newFloor(t, t.TempDir(), 24*time.Hour)
	defer f.close()
	l := f.line("a", media.PCMU)
	f.talk(l, 500)
	for _, format := range []playback.Format{playback.WAV, playback.FLAC} {
		_, _, file := f.export(playback.Request{Channel: l.ID, Window: f.window(0, len(l.said)), Format: format})
		path := filepath.Join(t.TempDir(), "x."+string(format))
		if err := os.WriteFile(path, file, 0o640); err != nil {
			t.Fatal(err)
		}
		for _, program := range [][]string{
			{"ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", path},
			{"soxi", "-D", path},
		} {
			if _, err := exec.LookPath(program[0]); err != nil {
				t.Logf("%s is not installed: not tried", program[0])
				continue
			}
			out, err := exec.Command(program[0], program[1:]...).CombinedOutput()
			if err != nil || string(bytes.TrimSpace(out)) != "10.000000" {
				t.Errorf("%s says %q of the %s, %v", program[0], out, format, err)
			}
		}
	}
}
