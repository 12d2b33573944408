package turretsim

import (
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"tandem/internal/media"
	"tandem/internal/tone"
	"tandem/turretsim/truth"
)

// benchShard is a shard whose streams all go to one socket that nobody reads:
// the kernel drops what does not fit, after the same work.
func benchShard(b testing.TB, streams int, sources []string) *shard {
	sh, err := newShard(netip.MustParseAddr("127.0.0.1"), 0)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(sh.close)
	sink, err := listenUDP(netip.MustParseAddr("127.0.0.1"), 0)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { sink.Close() })
	var faults atomic.Pointer[Faults]
	faults.Store(&Faults{})
	sh.clock, sh.faults = newClock(time.Now()), &faults
	for i := range streams {
		st := &stream{channel: "c", codec: media.PCMU, rtp: newPeer(addrOf(sink)), rtcp: newPeer(addrOf(sink)), muxed: true, sdes: []byte("........")}
		for _, name := range sources {
			source, err := tone.NewSource(string(rune('a'+i%26)), name)
			if err != nil {
				b.Fatal(err)
			}
			st.mix.Steady = append(st.mix.Steady, source)
		}
		sh.start(st, 0)
	}
	return sh
}

// BenchmarkSend is the whole cost of a packet: voice, header, and its share of
// the system call; "bare" is the system call alone, which no sender can go
// below. At 50 packets a second a core carries 20,000,000 / (cpu-ns/packet) channels.
func BenchmarkSend(b *testing.B) {
	const streams = 4000
	measure := func(name string, run func()) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			before := cpuTime(b)
			for b.Loop() {
				run()
			}
			packets := float64(b.N) * streams / packetTicks
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/packets, "ns/packet")
			b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/packets, "cpu-ns/packet")
		})
	}
	bare := benchShard(b, 1, []string{"SPK.1"})
	to := &bare.slots[0][0].rtp
	measure("bare", func() {
		for range streams / packetTicks {
			bare.media.next(to)
			bare.media.commit(headerSize + packetSamples)
		}
		bare.media.flush()
	})
	one, four := benchShard(b, streams, []string{"SPK.1"}), benchShard(b, streams, []string{"SPK.1", "SPK.2", "SPK.3", "SPK.4"})
	tick := int64(1)
	measure("one source", func() { one.send(tick); tick++ })
	measure("four sources", func() { four.send(tick); tick++ })
}

// cpuTime is what this process has spent, user and system: on a machine with
// other work it says more than the clock on the wall.
func cpuTime(b *testing.B) time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// The truth log says how late packets left, of each range.
func TestTruthLogSaysHowLate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "truth.jsonl")
	log, err := truth.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	sh := benchShard(t, 1, []string{"SPK.1"})
	sh.log, sh.clock = log, newClock(time.Now().Add(-3*time.Second))
	log.Add(truth.Line{Type: truth.TypeStart, Origin: sh.clock.origin})
	log.Add(truth.Line{Type: truth.TypeChannel, Channel: "c", Device: "a", Sources: []string{"SPK.1"}})
	for tick := range int64(3000) { // a sender that stood still for as long
		sh.send(tick)
	}
	sh.finish()
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	account, err := truth.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if late := account.Late(); late < 2900*time.Millisecond || late > sh.late {
		t.Errorf("%v late by the log, %v at worst", late, sh.late)
	}
}

// No packet costs an allocation, whatever else a tick does.
func TestSendDoesNotAllocate(t *testing.T) {
	sh := benchShard(t, 400, []string{"HS.L", "HS.R"})
	tick := int64(1)
	for range 2 * packetTicks { // buffers find their size
		sh.send(tick)
		tick++
	}
	if n := testing.AllocsPerRun(100, func() { sh.send(tick); tick++ }); n != 0 {
		t.Errorf("%v allocations a tick of 20 packets", n)
	}
}

// BenchmarkAttach dials 4,000 channels, director and switch in one process,
// and lets them all send for a second: how long the dialling takes, and how
// late the sender was at worst.
func BenchmarkAttach(b *testing.B) {
	cfg := testConfig(b)
	cfg.TruthLog = ""
	cfg.Floor.Turrets, cfg.Floor.Mixes = 1000, 4
	for b.Loop() {
		s, stop := startSwitch(b, cfg)
		channels := login(b, s, "A").channels(b, 4000)
		director := newSIPClient(b, "udp")
		sink, err := listenUDP(netip.MustParseAddr("127.0.0.1"), 0)
		if err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		var g errgroup.Group
		g.SetLimit(200)
		for _, c := range channels {
			g.Go(func() error { _, err := director.dial(c, offerOf(addrOf(sink), muxLine)); return err })
		}
		if err := g.Wait(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "s/4000-dialogs")
		before, sent := cpuTime(b), s.State().RTP.Datagrams
		<-time.After(time.Second)
		state := s.State()
		b.ReportMetric(float64(state.RTP.Datagrams-sent), "packets/s")
		b.ReportMetric(float64((cpuTime(b) - before).Milliseconds()), "cpu-ms/s")
		b.ReportMetric(float64(state.RTP.LateMS), "worst-late-ms")
		stop()
		sink.Close()
	}
}
