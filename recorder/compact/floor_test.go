package compact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/pion/rtp"

	"tandem/internal/call"
	"tandem/internal/media"
	"tandem/recorder/catalog"
	"tandem/recorder/journal"
	"tandem/recorder/journaltest"
	"tandem/recorder/segment"
)

func TestMain(m *testing.M) { journaltest.Main(m) }

// floor is a recorder whose packets and clock a test makes, around a real
// journal, catalog and compactor; and the model of what must come out.
type floor struct {
	t       journaltest.T
	dir     string
	cfg     Config
	cat     *catalog.Catalog
	c       *Compactor
	w       *journaltest.Journal
	now     time.Time // of the floor
	lines   []*line
	crashAt string
}

// line is a channel's sender, and what of it was journalled.
type line struct {
	journal.Channel
	ssrc  uint32
	seq   uint16
	ts    uint32    // of a sample taken at clock
	clock time.Time // after the last packet
	rnd   *rand.Rand
	fresh bool // the next packet is a dialog's first
	sent  []sent
}

type sent struct {
	ssrc    uint32
	ts      uint32
	seq     uint16
	at      time.Time
	payload []byte
	kept    bool       // in the journal
	cause   call.Cause // else why not
	marker  bool       // first after silence
}

var errCrash = errors.New("abandoned by the test")

func newFloor(t journaltest.T, dir string, change func(*Config)) *floor {
	t.Helper()
	f := &floor{t: t, dir: dir, cfg: DefaultConfig(), now: time.Now().UTC().Add(-24 * time.Hour).Truncate(time.Minute).Add(7 * time.Second)}
	f.cfg.Journal, f.cfg.Media, f.cfg.Slot = filepath.Join(dir, "journal"), filepath.Join(dir, "media"), 10*time.Second
	f.cfg.KeepAll = true
	if change != nil {
		change(&f.cfg)
	}
	var err error
	if f.cat, err = catalog.Open(context.Background(), filepath.Join(dir, "catalog.db")); err != nil {
		t.Fatal(err)
	}
	f.restartCompactor()
	f.w = journaltest.Start(t, f.cfg.Journal, 1<<20)
	return f
}

func (f *floor) close() {
	f.w.Stop()
	f.cat.Close()
}

func (f *floor) restartCompactor() {
	f.c = New(f.cfg, f.cat)
	f.c.now = func() time.Time { return f.now }
	f.c.crash = func(step string) error {
		if step == f.crashAt {
			f.crashAt = ""
			return errCrash
		}
		return nil
	}
}

func (f *floor) line(codec media.Codec) *line {
	num := uint32(len(f.lines) + 1)
	l := &line{Channel: journal.Channel{Num: num, ID: call.ChannelID(fmt.Sprintf("s%d.m1.A", num)), Copy: call.CopyA, Codec: codec, PayloadType: codec.PayloadType(), Opened: f.now},
		ssrc: num * 1000, seq: uint16(65000 + num), ts: 1<<32 - 9000, clock: f.now, rnd: rand.New(rand.NewPCG(1, uint64(num)))}
	f.lines = append(f.lines, l)
	f.w.Put(journaltest.Opened(l.Channel))
	return l
}

// next makes the line's next packet, sent now. The floor's clock goes on when
// the caller says so.
func (l *line) next(now time.Time, cause call.Cause) sent {
	silent := now.Sub(l.clock)
	l.ts += uint32(silent / (125 * time.Microsecond))
	s := sent{ssrc: l.ssrc, ts: l.ts, seq: l.seq, at: now, payload: make([]byte, 160), kept: cause == "", cause: cause, marker: silent > 0 || l.fresh}
	l.fresh = false
	for i := range s.payload { // anything but silence
		if s.payload[i] = byte(l.rnd.Uint32()); s.payload[i] == l.Codec.Silence() {
			s.payload[i]++
		}
	}
	l.seq, l.ts, l.clock = l.seq+1, l.ts+160, now.Add(20*time.Millisecond)
	l.sent = append(l.sent, s)
	return s
}

func (l *line) datagram(s sent) []byte {
	p := rtp.Packet{Header: rtp.Header{Version: 2, Marker: s.marker, PayloadType: l.Codec.PayloadType(), SequenceNumber: s.seq, Timestamp: s.ts, SSRC: s.ssrc}, Payload: s.payload}
	b, err := p.Marshal()
	if err != nil {
		panic(err)
	}
	return b
}

// arrive journals packets of a line.
func (f *floor) arrive(l *line, packets ...sent) {
	d := f.w.Block()
	for _, s := range packets {
		if !d.Add(l.Num, s.at.UnixNano(), l.datagram(s)) {
			f.w.Append(d)
			d = f.w.Block()
			d.Add(l.Num, s.at.UnixNano(), l.datagram(s))
		}
	}
	f.w.Append(d)
}

// talk sends n packets on a line, 20 ms apart.
func (f *floor) talk(l *line, n int) {
	var packets []sent
	for range n {
		packets = append(packets, l.next(f.now, ""))
		f.now = f.now.Add(20 * time.Millisecond)
	}
	f.arrive(l, packets...)
}

func (f *floor) lose(l *line, n int, cause call.Cause) {
	for range n {
		l.next(f.now, cause)
		f.now = f.now.Add(20 * time.Millisecond)
	}
}

// drown loses n packets in a socket's buffer that overflows. The note of it is
// what is returned; it may come later than what is sent next.
func (f *floor) drown(l *line, n int) journal.Note {
	from := f.now
	f.lose(l, n, call.CauseLoss)
	return journal.Note{Dropped: &journal.Dropped{Num: l.Num, From: from, To: f.now, Packets: uint64(n), Cause: call.CauseLoss, Unseen: true}}
}

func (f *floor) silence(d time.Duration) { f.now = f.now.Add(d) }

// rotate closes the journal file, as old as the floor's clock says.
func (f *floor) rotate() {
	f.t.Helper()
	f.w.Close()
	f.age()
}

func (f *floor) age() {
	files, err := journal.Files(f.cfg.Journal)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, file := range files {
		if file.Closed {
			if err := os.Chtimes(file.Path, f.now, f.now); err != nil {
				f.t.Fatal(err)
			}
		}
	}
}

// reboot kills and restarts the recorder; meanwhile the line sends n packets.
func (f *floor) reboot(l *line, n int) {
	f.w.Stop()
	f.age()
	f.lose(l, n, call.CauseInterrupted)
	f.w.Restart()
	for _, l := range f.lines {
		f.w.Put(journaltest.Opened(l.Channel))
	}
}

// step compacts; a crash is followed by another compactor.
func (f *floor) step() Summary {
	f.t.Helper()
	sum, err := f.c.Step(context.Background())
	if errors.Is(err, errCrash) {
		f.restartCompactor()
		return f.step()
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return sum
}

// end closes all channels and compacts everything.
func (f *floor) end() []catalog.Segment {
	f.t.Helper()
	for _, l := range f.lines {
		f.w.Put(journal.Note{Closed: &journal.Closed{Num: l.Num, At: f.now, Cause: "logged_off"}})
	}
	f.rotate()
	f.now = f.now.Add(time.Minute)
	f.step()
	segments, err := f.cat.Segments(context.Background(), "", catalog.Window{})
	if err != nil {
		f.t.Fatal(err)
	}
	for _, s := range segments {
		if !s.Sealed {
			f.t.Errorf("%s is not sealed", s.ID)
		}
	}
	return segments
}

// samples reads a segment's file and checks the file against its row.
func (f *floor) samples(s catalog.Segment) []byte {
	f.t.Helper()
	path := filepath.Join(f.cfg.Media, s.File)
	file, err := segment.Open(path)
	if err != nil {
		f.t.Fatal(err)
	}
	defer file.Close()
	if sum, err := file.Hash(); err != nil || sum.SHA256 != s.SHA256 || sum.Size != s.Size {
		f.t.Errorf("%s: file is %v, row says %d %s, %v", s.ID, sum, s.Size, s.SHA256, err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		f.t.Fatal(err)
	}
	format, data, err := media.ReadWAV(bytes.NewReader(whole))
	if err != nil || format.Codec != s.Codec || int64(len(data)) != s.Samples {
		f.t.Errorf("%s: %v with %d samples, row says %s %d, %v", s.ID, format, len(data), s.Codec, s.Samples, err)
	}
	return data
}

// keptAt says how an instant of a line must be treated: kept, not kept, or too
// near to a boundary to say.
type keptAt func(l *line, at time.Time) (kept, sure bool)

func always(*line, time.Time) (bool, bool) { return true, true }

// check holds segments against the model.
func (f *floor) check(segments []catalog.Segment, kept keptAt) {
	f.t.Helper()
	files := map[string]bool{}
	for _, l := range f.lines {
		own := slices.DeleteFunc(slices.Clone(segments), func(s catalog.Segment) bool { return s.Num != l.Num })
		f.checkPackets(l, own, kept, files)
		f.checkGaps(l, own, kept)
	}
	err := filepath.WalkDir(f.cfg.Media, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !files[p] {
			f.t.Errorf("%s has no row", p)
		}
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

// checkPackets wants every packet's samples once at their place, and silence
// everywhere else.
func (f *floor) checkPackets(l *line, own []catalog.Segment, kept keptAt, files map[string]bool) {
	f.t.Helper()
	seen := make([][]byte, len(l.sent)) // how often each sample was found
	for i, s := range l.sent {
		seen[i] = make([]byte, len(s.payload))
	}
	for _, s := range own {
		if s.File == "" {
			if s.Samples != 0 || len(s.Gaps) != 1 || !s.Gaps[0].From.Equal(s.Start) || !s.Gaps[0].To.Equal(s.End) {
				f.t.Errorf("a segment without a file must be a gap: %+v", s)
			}
			continue
		}
		files[filepath.Join(f.cfg.Media, s.File)] = true
		// Where a slot ends is decided by the packets that had come by then, up to 30 ms late.
		const late = 30 * time.Millisecond
		if slot := f.cfg.Slot; s.Start.Add(late).Truncate(slot) != s.End.Add(-late).Truncate(slot) && s.End.Sub(s.Start) > 2*late {
			f.t.Errorf("%s is in two slots: %v to %v", s.ID, s.Start, s.End)
		}
		left := f.samples(s)
		quiet := s.Codec.Silence()
		var held []uint16                   // of the packets in it, as they were sent
		received := make([]bool, len(left)) // by sample
		for i, p := range l.sent {
			at := int(int32(p.ts - uint32(s.FirstTS)))
			if p.ssrc != s.SSRC || !p.kept || at >= len(left) || at+len(p.payload) <= 0 {
				continue
			}
			held = append(held, p.seq)
			for j := max(0, -at); j < min(len(p.payload), len(left)-at); j++ {
				switch left[at+j] {
				case p.payload[j]:
					seen[i][j]++
					left[at+j], received[at+j] = quiet, true
				case quiet:
				default:
					f.t.Fatalf("%s sample %d: %#x, want %#x", s.ID, at+j, left[at+j], p.payload[j])
				}
			}
		}
		if n := len(held); n == 0 || uint16(s.FirstSeq) != held[0] || uint16(s.LastSeq) != held[n-1] || s.LastSeq-s.FirstSeq < int64(n-1) {
			f.t.Errorf("%s: packets %d to %d, want %v", s.ID, s.FirstSeq, s.LastSeq, held)
		}
		for _, h := range s.Holes {
			for i := h.At; i < h.At+h.N; i++ {
				if received[i] {
					f.t.Fatalf("%s sample %d was received and is in a hole", s.ID, i)
				}
				received[i] = true
			}
		}
		if i := slices.Index(received, false); i >= 0 {
			f.t.Fatalf("%s sample %d was not received and is in no hole", s.ID, i)
		}
		if i := slices.IndexFunc(left, func(b byte) bool { return b != quiet }); i >= 0 {
			f.t.Fatalf("%s sample %d: %#x where nothing was received", s.ID, i, left[i])
		}
	}
	for i, s := range l.sent {
		if !s.kept {
			continue
		}
		for j, n := range seen[i] {
			if want, sure := kept(l, s.at.Add(time.Duration(j)*125*time.Microsecond)); sure && (n == 1) != want || n > 1 {
				f.t.Fatalf("%s: sample %d of packet %d sent at %v is in %d segments", l.ID, j, s.seq, s.at, n)
			}
		}
	}
}

// checkGaps wants a gap for everything that was sent and not journalled, with
// its cause, and none anywhere else.
func (f *floor) checkGaps(l *line, own []catalog.Segment, kept keptAt) {
	f.t.Helper()
	const slack = 25 * time.Millisecond
	var gaps []catalog.Gap
	for _, s := range own {
		for _, g := range s.Gaps {
			if g.From.Before(s.Start) || g.To.After(s.End) || !g.From.Before(g.To) {
				f.t.Errorf("%s from %v to %v has a gap from %v to %v", s.ID, s.Start, s.End, g.From, g.To)
			}
			gaps = append(gaps, g)
		}
	}
	sort.Slice(gaps, func(i, j int) bool { return gaps[i].From.Before(gaps[j].From) })
	gapAt := func(at time.Time) call.Cause {
		for _, g := range gaps {
			if !at.Before(g.From) && at.Before(g.To) {
				return g.Cause
			}
		}
		return ""
	}
	first := slices.IndexFunc(l.sent, func(s sent) bool { return s.kept })
	last := len(l.sent) - 1
	for last >= 0 && !l.sent[last].kept {
		last--
	}
	before, behind := moved(l.sent, own)
	for i, s := range l.sent {
		middle := s.at.Add(10 * time.Millisecond)
		if want, sure := kept(l, middle); i < first || i > last || !want || !sure {
			continue
		}
		// Media and gaps lie together on the wall clock; a late network may have moved both.
		var near []call.Cause
		for off := min(before[i], behind[i]) - slack; off <= max(before[i], behind[i])+slack; off += slack / 5 {
			near = append(near, gapAt(middle.Add(off)))
		}
		if s.kept && !slices.Contains(near, "") {
			f.t.Errorf("%s: packet %d at %v was received and is in a gap (%s)", l.ID, s.seq, s.at, near)
		}
		if !s.kept && !slices.Contains(near, s.cause) {
			f.t.Errorf("%s: packet %d at %v is missing by %s; the gaps there say %q", l.ID, s.seq, s.at, s.cause, near)
		}
	}
	for _, g := range gaps { // no gap where nothing was sent or everything came
		missing := false
		for i := max(first, 0); i < last; i++ {
			s := l.sent[i]
			missing = missing || !s.kept && s.at.Add(slack).After(g.From) && s.at.Before(g.To.Add(slack))
		}
		if !missing {
			f.t.Errorf("%s: nothing is missing from %v to %v (%s)", l.ID, g.From, g.To, g.Cause)
		}
	}
}

// moved is how much later than they were sent packets lie on the wall clock: as their
// segments do; what is in none, somewhere between those before and behind.
func moved(all []sent, own []catalog.Segment) (before, behind []time.Duration) {
	before, behind = make([]time.Duration, len(all)), make([]time.Duration, len(all))
	last := -1 // with a segment
	for n, s := range all {
		if last >= 0 {
			before[n], behind[n] = behind[last], behind[last]
		}
		for _, o := range own {
			if at := int64(int32(s.ts - uint32(o.FirstTS))); s.ssrc == o.SSRC && 0 <= at && at < o.Samples {
				d := o.Start.Add(time.Duration(float64(o.End.Sub(o.Start)) * float64(at) / float64(o.Samples))).Sub(s.at)
				for k := last + 1; k <= n; k++ {
					behind[k] = d
				}
				before[n], last = d, n
				break
			}
		}
	}
	return before, behind
}

// report journals a sender report: at the floor's now plus skew the line's
// clock shows its next timestamp.
func (f *floor) report(l *line, skew time.Duration) {
	at := f.now.Add(skew)
	f.w.Put(journal.Note{Reported: &journal.Reported{Num: l.Num, SSRC: l.ssrc, RTP: l.ts, NTP: toNTP(at), Arrival: f.now.UnixNano()}})
}

func toNTP(t time.Time) uint64 {
	fraction := uint64(t.Nanosecond()) << 32 / uint64(time.Second)
	return uint64(t.Unix()+2_208_988_800)<<32 | fraction
}
