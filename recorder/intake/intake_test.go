package intake

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"golang.org/x/sys/unix"

	"tandem/internal/call"
	"tandem/internal/media"
	"tandem/recorder/journal"
)

// rig is an intake on real loopback sockets and the journal behind it.
type rig struct {
	t       testing.TB
	dir     string
	journal *journal.Writer
	*Intake

	stopJournal func()
	stopIntake  func()
}

func testConfig() Config {
	cfg := DefaultConfig()
	cfg.Tick = 5 * time.Millisecond
	cfg.PortMin = 20000 + 2*int(time.Now().UnixNano()/1000%5000)
	return cfg
}

// newRig opens both and runs neither.
func newRig(t testing.TB, change func(*Config, *journal.Config)) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), stopJournal: func() {}, stopIntake: func() {}}
	cfg, jcfg := testConfig(), journal.DefaultConfig()
	if change != nil {
		change(&cfg, &jcfg)
	}
	var err error
	if r.journal, err = journal.Open(r.dir, jcfg); err != nil {
		t.Fatal(err)
	}
	if r.Intake, err = New(cfg, r.journal); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.stop() })
	return r
}

func startRig(t testing.TB, change func(*Config, *journal.Config)) *rig {
	r := newRig(t, change)
	r.runJournal()
	r.runIntake()
	return r
}

func (r *rig) runJournal() { r.stopJournal = r.background(r.journal.Run) }
func (r *rig) runIntake()  { r.stopIntake = r.background(r.Intake.Run) }

// fillJournal takes all the room there is while nobody writes.
func (r *rig) fillJournal() {
	for r.journal.Queue() < 1 {
		if err := r.journal.Note(journal.Note{}); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *rig) background(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	var once atomic.Bool
	return func() {
		cancel()
		if once.CompareAndSwap(false, true) {
			if err := <-done; err != nil {
				r.t.Error(err)
			}
		}
	}
}

func (r *rig) stop() {
	r.stopIntake()
	r.stopJournal()
}

func chanOf(num uint32) journal.Channel {
	return journal.Channel{Num: num, ID: call.ChannelID("s.m.A"), Copy: call.CopyA, Opened: time.Now()}
}

func settled(num uint32) journal.Channel {
	ch := chanOf(num)
	ch.Codec, ch.PayloadType = media.PCMU, 0
	return ch
}

// open listens on a channel and returns a socket that sends there.
func (r *rig) open(num uint32) (net.Conn, int) {
	r.t.Helper()
	port, err := r.Open(chanOf(num), 0)
	if err != nil {
		r.t.Fatal(err)
	}
	return dial(r.t, port), port
}

func dial(t testing.TB, port int) net.Conn {
	t.Helper()
	c, err := net.Dial("udp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port)).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// rtpPacket is the n-th 20 ms packet of a sender.
func rtpPacket(ssrc uint32, n int) []byte {
	b := make([]byte, 172)
	b[0] = 0x80
	binary.BigEndian.PutUint16(b[2:], uint16(n))
	binary.BigEndian.PutUint32(b[4:], uint32(n*160))
	binary.BigEndian.PutUint32(b[8:], ssrc)
	binary.BigEndian.PutUint32(b[12:], uint32(n))
	return b
}

func send(t testing.TB, c net.Conn, datagrams ...[]byte) {
	t.Helper()
	for _, b := range datagrams {
		if _, err := c.Write(b); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			t.Fatal(err)
		}
	}
}

func sendRange(t testing.TB, c net.Conn, ssrc uint32, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		send(t, c, rtpPacket(ssrc, n))
	}
}

func (r *rig) wait(what string, ok func() bool) {
	r.t.Helper()
	eventually(r.t, what, ok)
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("not within half a minute: " + what)
		}
	}
}

func (r *rig) waitPackets(num uint32, n uint64) {
	r.t.Helper()
	var s Stats
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); s.Packets < n; <-tick.C {
		if s, _ = r.Stats(num); time.Now().After(deadline) {
			r.t.Fatalf("channel %d: %+v, want %d packets", num, s, n)
		}
	}
}

type kept struct {
	journal.Packet
	place int // among all packets and notes of the journal
}

type noted struct {
	journal.Note
	place int
}

// read stops everything and reads the journal.
func (r *rig) read() (packets map[uint32][]kept, notes []noted) {
	r.t.Helper()
	r.stop()
	files, err := journal.Files(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	packets = map[uint32][]kept{}
	place := 0
	for _, f := range files {
		j, err := journal.OpenFile(f.Path)
		if err != nil {
			r.t.Fatal(err)
		}
		defer j.Close()
		for {
			b, err := j.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				r.t.Fatal(err)
			}
			for _, n := range b.Notes {
				notes = append(notes, noted{n, place})
				place++
			}
			for p := range b.Packets {
				p.Data = slices.Clone(p.Data)
				packets[p.Num] = append(packets[p.Num], kept{p, place})
				place++
			}
		}
	}
	return packets, notes
}

func wantNumbers(t testing.TB, packets []kept, ssrc uint32, from, to int) {
	t.Helper()
	n := from
	for _, p := range packets {
		if binary.BigEndian.Uint32(p.Data[8:]) != ssrc {
			continue
		}
		if n >= to || string(p.Data) != string(rtpPacket(ssrc, n)) {
			t.Fatalf("packet %d of %#x is number %d, want %d (of %d)", n-from, ssrc, binary.BigEndian.Uint32(p.Data[12:]), n, to)
		}
		n++
	}
	if n != to {
		t.Fatalf("sender %#x: %d packets kept, want %d", ssrc, n-from, to-from)
	}
}

func TestEveryPacketInOrderWithItsArrival(t *testing.T) {
	r := startRig(t, func(c *Config, _ *journal.Config) { c.Shards = 2 })
	before := time.Now()
	const channels, each = 6, 200
	for num := range uint32(channels) {
		c, _ := r.open(num)
		sendRange(t, c, 100+num, 65500, 65500+each)
	}
	for num := range uint32(channels) {
		r.waitPackets(num, each)
	}
	after := time.Now()
	r.wait("totals", func() bool { return r.Totals().Packets == channels*each })
	if got := r.Totals(); got.Bytes != channels*each*172 || got.Lost != 0 || got.Rejected.Total() != 0 || got.SweepMax == 0 {
		t.Errorf("totals %+v", got)
	}
	s, _ := r.Stats(3)
	if s.SSRC != 103 || s.LastPacket.Before(before) || s.LastPacket.After(after) || !s.Source.IsValid() {
		t.Errorf("stats %+v", s)
	}
	packets, notes := r.read()
	for num := range uint32(channels) {
		wantNumbers(t, packets[num], 100+num, 65500, 65500+each)
		last := before.Add(-time.Microsecond)
		for _, p := range packets[num] {
			if p.At().Before(last) || p.At().After(after) {
				t.Fatalf("arrival %v not in [%v, %v]", p.At(), last, after)
			}
			last = p.At()
		}
		opened := slices.IndexFunc(notes, func(n noted) bool { return n.Opened != nil && n.Opened.Num == num })
		if opened < 0 || notes[opened].place > packets[num][0].place {
			t.Errorf("channel %d: opened at %d, first packet at %d", num, opened, packets[num][0].place)
		}
	}
}

func TestBadInputIsCountedAndHarmsNobody(t *testing.T) {
	r := startRig(t, nil)
	bad, _ := r.open(1)
	good, _ := r.open(2)
	if err := r.Update(settled(1), true, ""); err != nil {
		t.Fatal(err)
	}
	sendRange(t, bad, 7, 0, 10)
	r.waitPackets(1, 10)
	variant := func(change func(b []byte) []byte) []byte { return change(rtpPacket(7, 10)) }
	given := map[Reason][][]byte{
		Version: {variant(func(b []byte) []byte { b[0] = 0x40; return b }), variant(func(b []byte) []byte { b[0] = 0; return b })},
		Short:   {{}, {0x80}, variant(func(b []byte) []byte { return b[:11] }), variant(func(b []byte) []byte { b[0] |= 15; return b[:40] })},
		Truncated: {variant(func(b []byte) []byte { return append(b, make([]byte, 2000)...) }),
			variant(func(b []byte) []byte { return append(b, make([]byte, 60000)...) })},
		PayloadType: {variant(func(b []byte) []byte { b[1] = 8; return b }), variant(func(b []byte) []byte { b[1] = 101; return b })},
		Control:     {{0x80, 200, 0, 6, 1, 2}, {0xff, 201, 255, 255}},
	}
	total := uint64(0)
	for _, datagrams := range given {
		send(t, bad, datagrams...)
		total += uint64(len(datagrams))
		sendRange(t, good, 9, int(total)*10, int(total)*10+1)
	}
	sendRange(t, bad, 7, 10, 20)
	r.waitPackets(1, 20)
	r.wait("the last verdict", func() bool { s, _ := r.Stats(1); return s.Rejected.Total() == total })
	s, _ := r.Stats(1)
	for why, datagrams := range given {
		if s.Rejected[why] != uint64(len(datagrams)) {
			t.Errorf("%v: %d rejected, want %d", why, s.Rejected[why], len(datagrams))
		}
	}
	if by := s.Rejected.ByReason(); by["short"] != 4 || by["payload_type"] != 2 {
		t.Errorf("by name: %v", by)
	}
	r.wait("totals", func() bool { return r.Totals().Rejected == s.Rejected })
	r.waitPackets(2, uint64(len(given)))
	packets, _ := r.read()
	wantNumbers(t, packets[1], 7, 0, 20)
	if len(packets[2]) != len(given) {
		t.Errorf("the other channel has %d packets, want %d", len(packets[2]), len(given))
	}
}

func TestSequenceJumpIsKept(t *testing.T) {
	r := startRig(t, nil)
	c, _ := r.open(1)
	sendRange(t, c, 7, 0, 10)
	sendRange(t, c, 7, 20, 30)
	sendRange(t, c, 7, 0x8000+29, 0x8000+40)
	r.waitPackets(1, 31)
	if s, _ := r.Stats(1); s.Lost != 10 {
		t.Errorf("lost %d, want 10", s.Lost)
	}
}

// A flood on one port costs what a few channels do, and nothing to the others.
// Others learn from what a shard leaves at its work that it works, and who talks.
func TestPulse(t *testing.T) {
	r := newRig(t, nil)
	if p := r.Pulse(); p != (Pulse{}) {
		t.Errorf("before Run: %+v", p)
	}
	r.runJournal()
	r.runIntake()
	talker, _ := r.open(1)
	r.open(2)
	sendRange(t, talker, 7, 0, 5)
	r.wait("one channel talks", func() bool { p := r.Pulse(); return p.Talking == 1 && p.Packets == 5 })
	r.wait("nobody talks", func() bool { return r.Pulse().Talking == 0 })
	r.wait("the shard gets on", func() bool { return r.Pulse().Unswept < 100*time.Millisecond })
	stuck := make(chan struct{})
	r.shards[0].ask(func(*shard) { <-stuck })
	r.wait("the stuck shard shows", func() bool { return r.Pulse().Unswept > 300*time.Millisecond })
	close(stuck)
	r.wait("it works again", func() bool { return r.Pulse().Unswept < 100*time.Millisecond })
}

func TestFloodIsBounded(t *testing.T) {
	r := startRig(t, nil)
	victim, _ := r.open(1)
	other, _ := r.open(2)
	sendRange(t, victim, 7, 0, 1)
	sendRange(t, other, 9, 0, 1)
	r.waitPackets(1, 1)
	flood := rtpPacket(66, 0)
	const length = 500 * time.Millisecond
	began := time.Now()
	sent, beats := 1, 1
	for time.Since(began) < length {
		for range 50 {
			send(t, victim, flood)
			sent++
		}
		if due := int(time.Since(began) / (20 * time.Millisecond)); beats < due {
			sendRange(t, other, 9, beats, beats+1)
			beats++
		}
	}
	r.waitPackets(2, uint64(beats))
	r.Close(1, "flooded") // takes what is left, and the kernel's last count
	var s Totals
	r.wait("an account of everything sent", func() bool {
		s = r.Totals()
		return s.Packets+s.Rejected.Total()+s.KernelDrops == uint64(sent+beats)
	})
	t.Logf("sent %d in %v: %+v", sent, length, s)
	if most := uint64(rate*(length.Seconds()+rateBurst))*3/2 + foreignBurst; s.Packets-uint64(beats) > most {
		t.Errorf("%d packets of the flood kept, want %d at most", s.Packets, most)
	}
	if s.Rejected[Flood]+s.Rejected[ForeignSSRC] == 0 {
		t.Error("nothing rejected")
	}
	packets, notes := r.read()
	wantNumbers(t, packets[2], 9, 0, beats)
	var noted, unseen uint64
	count := 0
	for _, n := range notes {
		if n.Dropped != nil && n.Dropped.Num == 1 {
			noted += n.Dropped.Packets
			if n.Dropped.Unseen {
				unseen += n.Dropped.Packets
				if n.Dropped.From.Before(began) || n.Dropped.To.After(time.Now()) {
					t.Errorf("note %+v of a flood that began at %v", n.Dropped, began)
				}
			}
			count++
			if n.Dropped.Cause != call.CauseLoss || n.Dropped.Why == "" || n.Dropped.To.Before(n.Dropped.From) {
				t.Errorf("note %+v", n.Dropped)
			}
		}
	}
	if unseen != s.KernelDrops {
		t.Errorf("%d noted as dropped unseen, the kernel counted %d", unseen, s.KernelDrops)
	}
	if most := int(drops) * (int(time.Since(began)/noteEvery) + 2); count > most {
		t.Errorf("%d notes, want %d at most", count, most)
	}
	if want := s.Rejected[Flood] + s.Rejected[ForeignSSRC] + s.KernelDrops; noted != want {
		t.Errorf("%d packets noted as dropped, want %d", noted, want)
	}
}

func TestJournalBehindLeavesPacketsInTheKernel(t *testing.T) {
	r := newRig(t, func(c *Config, j *journal.Config) { j.QueueSize = 2 * j.BlockSize })
	c, _ := r.open(1)
	r.fillJournal()
	r.runIntake()
	sendRange(t, c, 7, 0, 200)
	r.wait("a few sweeps", func() bool { return r.Totals().LateMax > 0 })
	if got := r.Totals().Packets; got != 0 {
		t.Errorf("%d packets kept with nowhere to put them", got)
	}
	r.runJournal()
	r.waitPackets(1, 200)
	packets, notes := r.read()
	wantNumbers(t, packets[1], 7, 0, 200)
	for _, n := range notes {
		if n.Dropped != nil {
			t.Errorf("note %+v: nothing was lost", n.Dropped)
		}
	}
}

func TestOverflowIsNotedWithItsCause(t *testing.T) {
	for _, c := range []struct {
		name  string
		cause call.Cause
		stall bool
	}{{"journal behind", call.CauseDisk, true}, {"recorder away", call.CauseLoss, false}} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, func(cfg *Config, j *journal.Config) {
				if c.stall { // else a slow disk must not make one
					j.QueueSize = 2 * j.BlockSize
				}
				cfg.ReceiveBuffer = 8 << 10
			})
			opened := time.Now()
			conn, _ := r.open(1)
			if c.stall {
				r.fillJournal()
				r.runIntake()
				r.wait("a stall", func() bool { return r.Totals().SweepMax > 0 })
			}
			const sent = 500
			sendRange(t, conn, 7, 0, sent)
			full := time.Now()
			if !c.stall {
				r.runIntake()
			}
			r.runJournal()
			r.wait("the backlog", func() bool { s, _ := r.Stats(1); return s.Packets > 0 })
			// No datagram follows that could bring the news.
			r.wait("the news", func() bool { s, _ := r.Stats(1); return s.Packets+s.KernelDrops == sent })
			sendRange(t, conn, 7, sent, sent+1)
			r.wait("the next packet", func() bool { s, _ := r.Stats(1); return s.Packets+s.KernelDrops == sent+1 })
			s, _ := r.Stats(1)
			if s.KernelDrops == 0 || s.Lost != s.KernelDrops || r.Totals().KernelDrops != s.KernelDrops {
				t.Errorf("stats %+v", s)
			}
			_, notes := r.read()
			var noted uint64
			for _, n := range notes {
				if n.Dropped != nil {
					noted += n.Dropped.Packets
					if n.Dropped.Cause != c.cause || !n.Dropped.Unseen {
						t.Errorf("note %+v, want cause %s and unseen", n.Dropped, c.cause)
					}
					if n.Dropped.From.Before(opened) || n.Dropped.From.After(full) || n.Dropped.To.Before(full) {
						t.Errorf("note %+v, opened at %v and full by %v", n.Dropped, opened, full)
					}
				}
			}
			if noted != s.KernelDrops {
				t.Errorf("%d noted, %d dropped", noted, s.KernelDrops)
			}
		})
	}
}

// A channel that closes drowned ends with all that waited, a note of what did
// not fit, and then its end.
func TestCloseAfterAnOverflow(t *testing.T) {
	r := newRig(t, func(cfg *Config, _ *journal.Config) { cfg.ReceiveBuffer = 64 << 10 })
	conn, _ := r.open(1)
	const sent = 1000
	sendRange(t, conn, 7, 0, sent)
	r.Close(1, "logged_off")
	r.runIntake()
	r.runJournal()
	r.wait("an account of everything sent", func() bool { s := r.Totals(); return s.Packets+s.KernelDrops == sent })
	packets, notes := r.read()
	if kept := len(packets[1]); kept <= perSweep || kept == sent {
		t.Fatalf("%d packets waited", kept)
	}
	wantNumbers(t, packets[1], 7, 0, len(packets[1]))
	var noted uint64
	closed := false
	for _, n := range notes {
		if n.Dropped != nil {
			noted += n.Dropped.Packets
			if closed || !n.Dropped.Unseen {
				t.Errorf("note %+v, closed %v", n.Dropped, closed)
			}
		}
		closed = closed || n.Closed != nil
	}
	if want := uint64(sent - len(packets[1])); noted != want || !closed {
		t.Errorf("%d noted, want %d; closed %v", noted, want, closed)
	}
}

func TestCloseTakesTheLastPackets(t *testing.T) {
	r := startRig(t, func(c *Config, _ *journal.Config) { c.Tick = 20 * time.Millisecond })
	const channels = 20
	for num := range uint32(channels) {
		c, _ := r.open(num)
		sendRange(t, c, 7, 0, 300)
		r.Close(num, "logged_off")
		if _, ok := r.Stats(num); ok {
			t.Error("a closed channel still has stats")
		}
	}
	r.Close(99, "never opened")
	r.wait("every packet", func() bool { return r.Totals().Packets == channels*300 })
	packets, notes := r.read()
	for num := range uint32(channels) {
		wantNumbers(t, packets[num], 7, 0, 300)
		closed := slices.IndexFunc(notes, func(n noted) bool { return n.Closed != nil && n.Closed.Num == num })
		if closed < 0 || notes[closed].Closed.Cause != "logged_off" || notes[closed].place < packets[num][299].place {
			t.Errorf("channel %d: closing note %d of %v", num, closed, notes)
		}
	}
}

func TestIPv6(t *testing.T) {
	r := newRig(t, func(c *Config, _ *journal.Config) { c.Host = netip.IPv6Loopback() })
	port, err := r.Open(chanOf(1), 0)
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	r.runJournal()
	r.runIntake()
	c, err := net.Dial("udp", netip.AddrPortFrom(r.cfg.Host, uint16(port)).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sendRange(t, c, 7, 0, 10)
	r.waitPackets(1, 10)
	if s, _ := r.Stats(1); s.Source.String() != c.LocalAddr().String() {
		t.Errorf("source %v, want %v", s.Source, c.LocalAddr())
	}
	packets, _ := r.read()
	wantNumbers(t, packets[1], 7, 0, 10)
}

// A floor logs on and off at once.
func TestManyAtOnce(t *testing.T) {
	r := startRig(t, func(c *Config, _ *journal.Config) { c.PortMin, c.PortMax, c.Shards = 20000, 39998, 2 })
	const channels = 2000
	for num := range uint32(channels) {
		if _, err := r.Open(chanOf(num), 0); err != nil {
			t.Fatal(err)
		}
		if err := r.Update(settled(num), true, "127.0.0.1:9"); err != nil {
			t.Fatal(err)
		}
	}
	for num := range uint32(channels) {
		r.Close(num, "logged_off")
	}
	r.wait("every port given back", func() bool {
		r.mu.RLock()
		defer r.mu.RUnlock()
		return len(r.ports) == 0
	})
	_, notes := r.read()
	state := map[uint32]int{} // 1 opened, 2 updated, 3 closed
	for _, n := range notes {
		switch {
		case n.Opened != nil && state[n.Opened.Num] == 0:
			state[n.Opened.Num] = 1
		case n.Updated != nil && state[n.Updated.Num] == 1:
			state[n.Updated.Num] = 2
		case n.Closed != nil && state[n.Closed.Num] == 2:
			state[n.Closed.Num] = 3
		case n.Started == nil:
			t.Fatalf("out of order: %+v", n.Note)
		}
	}
	for num := range uint32(channels) {
		if state[num] != 3 {
			t.Fatalf("channel %d came to state %d", num, state[num])
		}
	}
}

func TestEndTakesTheLastPackets(t *testing.T) {
	r := startRig(t, func(c *Config, _ *journal.Config) { c.Tick = time.Hour })
	c, port := r.open(1)
	sendRange(t, c, 7, 0, 50)
	packets, notes := r.read()
	wantNumbers(t, packets[1], 7, 0, 50)
	for _, n := range notes {
		if n.Closed != nil {
			t.Errorf("the end of the recorder closed a channel: %+v", n.Closed)
		}
	}
	fd, err := listenUDP(netip.AddrPortFrom(r.cfg.Host, uint16(port)), 1<<16)
	if err != nil {
		t.Fatalf("the port is still taken: %v", err)
	}
	unix.Close(fd)
}

func TestPorts(t *testing.T) {
	r := startRig(t, func(c *Config, _ *journal.Config) { c.PortMax = c.PortMin + 4 })
	taken, err := net.ListenPacket("udp", netip.AddrPortFrom(r.cfg.Host, uint16(r.cfg.PortMin)).String())
	if err != nil {
		t.Skipf("port %d: %v", r.cfg.PortMin, err)
	}
	defer taken.Close()
	_, first := r.open(1)
	_, second := r.open(2)
	if first%2 != 0 || second%2 != 0 || first == second || first == r.cfg.PortMin {
		t.Errorf("ports %d and %d", first, second)
	}
	if _, err := r.Open(chanOf(3), 0); err == nil {
		t.Error("a third channel found a port")
	}
	if _, err := r.Open(chanOf(3), first); err == nil {
		t.Error("two channels on one port")
	}
	if _, err := r.Open(chanOf(1), 0); err == nil {
		t.Error("one channel opened twice")
	}
	r.Close(1, "moved")
	r.wait("the port again", func() bool { port, err := r.Open(chanOf(3), first); return err == nil && port == first })
	if err := r.Update(chanOf(9), true, ""); err == nil {
		t.Error("an unknown channel was updated")
	}
	if err := r.Update(chanOf(2), true, "nowhere"); err == nil {
		t.Error("an address that is none was taken")
	}
}

func TestReopenGoesOnWhereTheSenderIs(t *testing.T) {
	r := startRig(t, nil)
	c, port := r.open(1)
	sendRange(t, c, 7, 0, 10)
	r.waitPackets(1, 10)
	r.stop()

	again := newRig(t, nil)
	if got, err := again.Open(settled(1), port); err != nil || got != port {
		t.Fatalf("port %d, %v; want %d", got, err, port)
	}
	sendRange(t, c, 7, 30, 40) // waits in the kernel until somebody sweeps
	again.runJournal()
	again.runIntake()
	again.waitPackets(1, 10)
	packets, _ := again.read()
	wantNumbers(t, packets[1], 7, 30, 40)
}

// report is a sender report in a compound packet.
func report(t testing.TB, ssrc uint32) []byte {
	b, err := rtcp.Marshal([]rtcp.Packet{
		&rtcp.SenderReport{SSRC: ssrc, NTPTime: 0x0123456789abcdef, RTPTime: 4711, PacketCount: 10, OctetCount: 1600},
		rtcp.NewCNAMESourceDescription(ssrc, "switch"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readReport(t testing.TB, c net.Conn) (*rtcp.ReceiverReport, string) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(30 * time.Second))
	b := make([]byte, 1500)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	packets, err := rtcp.Unmarshal(b[:n])
	if err != nil || len(packets) != 2 {
		t.Fatalf("report %v, %v", packets, err)
	}
	rr, ok := packets[0].(*rtcp.ReceiverReport)
	sdes, okToo := packets[1].(*rtcp.SourceDescription)
	if !ok || !okToo {
		t.Fatalf("report %v", packets)
	}
	return rr, sdes.Chunks[0].Items[0].Text
}

func TestRTCP(t *testing.T) {
	for _, mux := range []bool{true, false} {
		name := map[bool]string{true: "muxed", false: "on a port of its own"}[mux]
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.reports.every = 100 * time.Millisecond
			r.runJournal()
			r.runIntake()
			media, port := r.open(1)
			if err := r.Update(settled(1), mux, "127.0.0.1:9"); err != nil {
				t.Fatal(err)
			}
			control := media
			if !mux {
				control = dial(t, port+1)
			}
			const ssrc = 7
			sendRange(t, media, ssrc, 65530, 65530+10)
			sendRange(t, media, ssrc, 65530+20, 65530+30)
			r.waitPackets(1, 20)
			r.wait("a port for RTCP", func() bool {
				send(t, control, report(t, ssrc))
				s, _ := r.Stats(1)
				return !s.LastReport.IsZero()
			})
			send(t, control, report(t, 99)) // somebody else's
			var rr *rtcp.ReceiverReport
			var cname string
			for rr == nil || len(rr.Reports) == 0 || rr.Reports[0].LastSenderReport == 0 {
				sendRange(t, media, ssrc, 65530+30, 65530+31) // duplicates keep the stream heard
				rr, cname = readReport(t, control)
			}
			b := rr.Reports[0]
			if b.SSRC != ssrc || b.LastSequenceNumber < 65530+29 || b.LastSequenceNumber > 65530+30 || b.TotalLost > 10 ||
				b.LastSenderReport != 0x456789ab || b.Delay > 65536*10 || cname == "" || rr.SSRC == 0 {
				t.Errorf("report %+v of %q", rr, cname)
			}
			s, _ := r.Stats(1)
			if want := uint64(1); s.Rejected[Control] < want {
				r.wait("the stranger's report", func() bool { s, _ = r.Stats(1); return s.Rejected[Control] >= want })
			}
			if !mux {
				send(t, media, report(t, ssrc))
				r.wait("RTCP refused on the RTP port", func() bool { s, _ := r.Stats(1); return s.Rejected[PayloadType] == 1 })
			}
			_, notes := r.read()
			i := slices.IndexFunc(notes, func(n noted) bool { return n.Reported != nil })
			if i < 0 {
				t.Fatal("no report in the journal")
			}
			got := *notes[i].Reported
			if got.Num != 1 || got.SSRC != ssrc || got.NTP != 0x0123456789abcdef || got.RTP != 4711 || got.Arrival == 0 {
				t.Errorf("journal says %+v", got)
			}
			for _, n := range notes {
				if n.Reported != nil && n.Reported.SSRC != ssrc {
					t.Errorf("somebody else's report in the journal: %+v", n.Reported)
				}
			}
		})
	}
}

func TestReceiverReport(t *testing.T) {
	s := newStream()
	p := &peer{stream: s, ssrc: 42}
	now := time.Unix(0, at(1000))
	report := func() *rtcp.ReceiverReport {
		t.Helper()
		var rr rtcp.ReceiverReport
		packets, err := rtcp.Unmarshal(appendReport(nil, p.ssrc, p.receptionReport(now), "some name"))
		if err != nil {
			t.Fatal(err)
		}
		rr = *packets[0].(*rtcp.ReceiverReport)
		if name := packets[1].(*rtcp.SourceDescription).Chunks[0].Items[0].Text; name != "some name" || rr.SSRC != 42 {
			t.Errorf("%d reports as %q", rr.SSRC, name)
		}
		return &rr
	}
	if rr := report(); len(rr.Reports) != 0 {
		t.Errorf("nothing heard: %+v", rr)
	}
	for n := range 100 {
		if n%4 != 3 {
			s.admit(head(7, n), at(n))
		}
	}
	s.show()
	p.last = senderReport{ssrc: 7, middle: 0xabcd, arrival: now.UnixNano() - 1500*int64(time.Millisecond)}
	b := report().Reports[0]
	// The last packet is number 98: 24 of 99 are missing.
	want := rtcp.ReceptionReport{SSRC: 7, TotalLost: 24, FractionLost: 24 << 8 / 99, LastSequenceNumber: 98, LastSenderReport: 0xabcd, Delay: 98304}
	if b != want {
		t.Errorf("report %+v, want %+v", b, want)
	}
	for n := 99; n < 150; n++ {
		s.admit(head(7, n), at(n))
	}
	s.show()
	if b := report().Reports[0]; b.FractionLost != 0 || b.TotalLost != 24 {
		t.Errorf("second report %+v: nothing was lost since the first", b)
	}
	if rr := report(); len(rr.Reports) != 0 {
		t.Errorf("silent since: %+v", rr)
	}
}

func TestReportWithNamesOfAnyLength(t *testing.T) {
	for n := 1; n < 20; n++ {
		name := "abcdefghijklmnopqrst"[:n]
		packets, err := rtcp.Unmarshal(appendReport(nil, 1, reception{}, name))
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if got := packets[1].(*rtcp.SourceDescription).Chunks[0].Items[0].Text; got != name {
			t.Errorf("%q came out as %q", name, got)
		}
	}
}

func TestNothingIsAllocatedForAPacket(t *testing.T) {
	r := newRig(t, func(c *Config, _ *journal.Config) { c.PacketRate = 100_000 }) // what follows is no flood
	r.runJournal()
	var conns []net.Conn
	for num := range uint32(10) {
		c, _ := r.open(num)
		conns = append(conns, c)
	}
	sh := r.shards[0]
	n := 0
	packet := rtpPacket(7, 0)
	sweep := func() {
		for range 30 {
			binary.BigEndian.PutUint16(packet[2:], uint16(n))
			binary.BigEndian.PutUint32(packet[4:], uint32(n*160))
			n++
			for _, c := range conns {
				send(t, c, packet)
			}
		}
		sh.sweep(time.Now())
	}
	sweep()
	allocs := testing.AllocsPerRun(10, sweep)
	for range 5 { // the least is the sweep's own: the journal's writer and its timers run beside
		allocs = min(allocs, testing.AllocsPerRun(10, sweep))
	}
	if s := sh.totals; s.Packets != uint64(n*len(conns)) {
		t.Fatalf("%d packets of %d kept", s.Packets, n*len(conns))
	}
	if perPacket := allocs / 300; perPacket > 0.01 {
		t.Errorf("%v allocations in a sweep of 300 packets", allocs)
	}
}
