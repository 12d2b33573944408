package intake

import (
	"bufio"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"tandem/recorder/journal"
)

var (
	benchRounds = flag.Int("intake.rounds", 5, "rounds of BenchmarkIntake; each way of receiving has a turn in each")
	benchTurn   = flag.Duration("intake.turn", time.Second, "length of one turn")
)

const (
	senderEnv    = "TANDEM_INTAKE_SENDER"
	frame        = 20 * time.Millisecond
	packetSize   = 172 // G.711, 20 ms
	slices20     = 20  // the sender spreads the streams over a frame
	warmUp       = 250 * time.Millisecond
	sendAtOnce   = 64
	benchStreams = "500 2000 4000"
)

func TestMain(m *testing.M) {
	if os.Getenv(senderEnv) != "" {
		if err := sendStreams(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "sender:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// BenchmarkIntake compares, on the same sockets and under the same load from
// another process: this package (socket to journal), a bare recvmmsg drain
// with the same tick, and a goroutine for each socket. The three take turns,
// so that whatever else the machine does falls on all; medians are reported.
// CPU is that of this process, user and system.
func BenchmarkIntake(b *testing.B) {
	var rows []row
	for _, field := range strings.Fields(benchStreams) {
		n, _ := strconv.Atoi(field)
		b.Run("streams="+field, func(b *testing.B) {
			for b.Loop() {
				rows = append(rows, compare(b, n))
			}
			last := rows[len(rows)-1]
			b.ReportMetric(last.ways[0].cpu, "ours-µs/packet")
			b.ReportMetric(last.ways[1].cpu, "bare-µs/packet")
			b.ReportMetric(last.ways[2].cpu, "goroutine-µs/packet")
			b.ReportMetric(last.ratio, "ours/bare")
			b.ReportMetric(float64(last.ways[0].lost), "ours-lost")
			b.ReportMetric(last.ways[0].allocs, "ours-allocs/packet")
		})
	}
	printTable(os.Stdout, rows)
}

type row struct {
	streams int
	ways    []result
	ratio   float64 // median over the rounds of ours to bare
}

// result is one way of receiving: medians over the rounds, losses summed.
type result struct {
	name              string
	cpu               float64 // µs a packet
	packets           uint64
	lost              int64
	allocs            float64
	rssFirst, rssLast float64 // MB, of the whole process
}

func printTable(w io.Writer, rows []row) {
	if len(rows) == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\nstreams\tway\tCPU µs/packet\tx bare\tpackets\tlost\tallocs/packet\tRSS MB first\tlast\t\n")
	for _, r := range rows {
		for _, way := range r.ways {
			fmt.Fprintf(t, "%d\t%s\t%.2f\t%.2f\t%d\t%d\t%.4f\t%.1f\t%.1f\t\n",
				r.streams, way.name, way.cpu, way.cpu/r.ways[1].cpu, way.packets, way.lost, way.allocs, way.rssFirst, way.rssLast)
		}
		fmt.Fprintf(t, "\tours/bare\t\t%.2f\t\t\t\t\t\t\n", r.ratio)
	}
	t.Flush()
}

// way receives on the bench's sockets until stop is called.
type way struct {
	name  string
	start func(*bench) (stop func())
	count func(*bench) uint64
}

type turn struct {
	cpu, allocs, rss float64
	packets          uint64
	lost             int64
}

// compare runs all rounds for one number of streams.
func compare(b *testing.B, streams int) row {
	ways := []way{
		{"ours", (*bench).ours, func(be *bench) uint64 { return be.rig.Totals().Packets }},
		{"bare recvmmsg", (*bench).bare, func(be *bench) uint64 { return be.received.Load() }},
		{"goroutine/socket", (*bench).goroutines, func(be *bench) uint64 { return be.received.Load() }},
	}
	be := newBench(b, streams)
	defer be.close()
	turns := make([][]turn, len(ways))
	for range *benchRounds {
		for i, w := range ways {
			turns[i] = append(turns[i], be.turn(w))
		}
	}
	r := row{streams: streams}
	var ratios []float64
	for i := range turns[0] {
		ratios = append(ratios, turns[0][i].cpu/turns[1][i].cpu)
	}
	r.ratio = median(ratios)
	for i, w := range ways {
		r.ways = append(r.ways, summarize(w.name, turns[i]))
	}
	return r
}

func summarize(name string, turns []turn) result {
	r := result{name: name, rssFirst: turns[0].rss, rssLast: turns[len(turns)-1].rss}
	var cpu, allocs []float64
	for _, t := range turns {
		cpu, allocs = append(cpu, t.cpu), append(allocs, t.allocs)
		r.packets += t.packets
		r.lost += t.lost
	}
	r.cpu, r.allocs = median(cpu), median(allocs)
	return r
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}

// bench is the sockets, the sender and what receives.
type bench struct {
	b        *testing.B
	rig      *rig
	fds      []int
	received atomic.Uint64

	sender *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
}

func newBench(b *testing.B, streams int) *bench {
	be := &bench{b: b, rig: newRig(b, func(c *Config, _ *journal.Config) {
		*c = DefaultConfig()
	})}
	be.rig.runJournal()
	ports := make([]string, streams)
	for i := range streams {
		ch := settled(uint32(i))
		port, err := be.rig.Open(ch, 0)
		if err != nil {
			b.Fatal(err)
		}
		if err := be.rig.Update(ch, true, ""); err != nil {
			b.Fatal(err)
		}
		ports[i] = strconv.Itoa(port)
		be.fds = append(be.fds, be.rig.streams[ch.Num].fd)
	}
	be.sender = exec.Command(os.Args[0])
	be.sender.Env = append(os.Environ(), senderEnv+"=1", "GOMAXPROCS=1")
	be.sender.Stderr = os.Stderr
	var err error
	if be.in, err = be.sender.StdinPipe(); err != nil {
		b.Fatal(err)
	}
	out, err := be.sender.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	be.out = bufio.NewReader(out)
	if err := be.sender.Start(); err != nil {
		b.Fatal(err)
	}
	fmt.Fprintln(be.in, strings.Join(ports, " "))
	return be
}

func (be *bench) close() {
	be.in.Close()
	if err := be.sender.Wait(); err != nil {
		be.b.Error(err)
	}
	for _, fd := range be.fds {
		unix.Close(fd)
	}
}

// turn lets one way receive for a while.
func (be *bench) turn(w way) turn {
	runtime.GC()
	be.empty()
	stop := w.start(be)
	first := w.count(be)
	fmt.Fprintln(be.in, "start")
	time.Sleep(warmUp)
	before := be.measure(w)
	time.Sleep(*benchTurn)
	after := be.measure(w)
	fmt.Fprintln(be.in, "stop")
	line, err := be.out.ReadString('\n')
	if err != nil {
		be.b.Fatal(err)
	}
	sent, err := strconv.ParseUint(strings.TrimSpace(line), 10, 64)
	if err != nil {
		be.b.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); w.count(be)-first < sent && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	packets := after.packets - before.packets
	return turn{
		cpu:     float64((after.cpu - before.cpu).Microseconds()) / float64(packets),
		allocs:  float64(after.mallocs-before.mallocs) / float64(packets),
		rss:     residentMB(be.b),
		packets: packets,
		lost:    int64(sent) - int64(w.count(be)-first),
	}
}

type measurement struct {
	cpu     time.Duration
	packets uint64
	mallocs uint64
}

func (be *bench) measure(w way) measurement {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	var use unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &use); err != nil {
		be.b.Fatal(err)
	}
	return measurement{
		cpu:     time.Duration(use.Utime.Nano() + use.Stime.Nano()),
		packets: w.count(be),
		mallocs: stats.Mallocs,
	}
}

func residentMB(b *testing.B) float64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err)
	}
	pages, err := strconv.ParseFloat(strings.Fields(string(text))[1], 64)
	if err != nil {
		b.Fatal(err)
	}
	return pages * float64(os.Getpagesize()) / (1 << 20)
}

// ours is all that Intake.Run does, but for closing the sockets in the end.
func (be *bench) ours() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, sh := range be.rig.shards {
		wg.Go(func() { sh.run(ctx, 0) })
	}
	done := make(chan struct{})
	wg.Go(func() { be.rig.reports.serve(done) })
	return func() { cancel(); close(done); wg.Wait() }
}

// drainer reads datagrams and does nothing with them: the least that a
// receiver can do.
type drainer struct {
	messages [batch]unix.Mmsghdr
	vectors  [batch]unix.Iovec
	buffer   [batch][slotSize]byte
}

func newDrainer() *drainer {
	d := new(drainer)
	for i := range d.messages {
		d.vectors[i].Base = &d.buffer[i][0]
		d.vectors[i].SetLen(maxDatagram)
		d.messages[i].Hdr.Iov = &d.vectors[i]
		d.messages[i].Hdr.SetIovlen(1)
	}
	return d
}

func (d *drainer) drain(fds []int) (packets uint64) {
	for _, fd := range fds {
		for {
			n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&d.messages[0])), batch, unix.MSG_DONTWAIT, 0, 0)
			if errno != 0 {
				break
			}
			packets += uint64(n)
			if n < batch {
				break
			}
		}
	}
	return packets
}

// empty throws away what the last turn left, so that no turn gets the work of
// another.
func (be *bench) empty() { newDrainer().drain(be.fds) }

// bare drains every socket each tick.
func (be *bench) bare() (stop func()) {
	d := newDrainer()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(be.rig.cfg.Tick)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				be.received.Add(d.drain(be.fds))
			case <-done:
				return
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// goroutines is what comes to mind first: one goroutine, one socket, one
// packet at a time.
func (be *bench) goroutines() (stop func()) {
	var wg sync.WaitGroup
	var conns []net.PacketConn
	for _, fd := range be.fds {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			be.b.Fatal(err)
		}
		f := os.NewFile(uintptr(dup), "rtp")
		c, err := net.FilePacketConn(f)
		f.Close()
		if err != nil {
			be.b.Fatal(err)
		}
		conns = append(conns, c)
		wg.Go(func() {
			buffer := make([]byte, maxDatagram)
			for {
				if _, _, err := c.(*net.UDPConn).ReadFromUDPAddrPort(buffer); err != nil {
					return
				}
				be.received.Add(1)
			}
		})
	}
	return func() {
		for _, c := range conns {
			c.Close()
		}
		wg.Wait()
	}
}

// sendStreams is the other process: it reads a line of ports, and then, from
// "start" to "stop", sends each of them a packet every 20 ms, and answers
// with how many it has sent.
func sendStreams(in io.Reader, out io.Writer) error {
	lines := bufio.NewReaderSize(in, 1<<20)
	ports, err := lines.ReadString('\n')
	if err != nil {
		return err
	}
	s, err := newLoad(strings.Fields(ports))
	if err != nil {
		return err
	}
	var running atomic.Bool
	done := make(chan error, 1)
	var sent uint64
	for {
		line, err := lines.ReadString('\n')
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case line == "start\n":
			running.Store(true)
			go func() {
				var err error
				sent, err = s.run(&running)
				done <- err
			}()
		case line == "stop\n":
			running.Store(false)
			if err := <-done; err != nil {
				return err
			}
			fmt.Fprintln(out, sent)
		}
	}
}

// load is the streams a sender sends.
type load struct {
	fd       int
	run0     uint32 // runs so far: each has its own SSRCs
	packets  []byte
	names    []unix.RawSockaddrInet4
	messages []unix.Mmsghdr
	vectors  []unix.Iovec
}

func newLoad(ports []string) (*load, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20); err != nil {
		return nil, err
	}
	n := len(ports)
	l := &load{
		fd: fd, packets: make([]byte, n*packetSize), names: make([]unix.RawSockaddrInet4, n),
		messages: make([]unix.Mmsghdr, n), vectors: make([]unix.Iovec, n),
	}
	loopback := netip.MustParseAddr("127.0.0.1").As4()
	for i, p := range ports {
		port, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return nil, err
		}
		l.names[i] = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: uint16(port)<<8 | uint16(port)>>8, Addr: loopback}
		l.vectors[i].Base = &l.packets[i*packetSize]
		l.vectors[i].SetLen(packetSize)
		h := &l.messages[i].Hdr
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&l.names[i])), unix.SizeofSockaddrInet4
		h.Iov = &l.vectors[i]
		h.SetIovlen(1)
	}
	return l, nil
}

// run sends until running is false, late rather than never.
func (l *load) run(running *atomic.Bool) (sent uint64, err error) {
	l.run0++
	n := len(l.messages)
	next := time.Now()
	for tick := 0; ; tick++ {
		part := tick % slices20
		if part == 0 && !running.Load() {
			return sent, nil
		}
		from, to := n*part/slices20, n*(part+1)/slices20
		for i := from; i < to; i++ {
			p := l.packets[i*packetSize:]
			p[0] = 0x80
			binary.BigEndian.PutUint16(p[2:], uint16(tick/slices20))
			binary.BigEndian.PutUint32(p[4:], uint32(tick/slices20*160))
			binary.BigEndian.PutUint32(p[8:], uint32(i)<<8|l.run0)
		}
		for from < to {
			k, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(l.fd), uintptr(unsafe.Pointer(&l.messages[from])), uintptr(min(to-from, sendAtOnce)), 0, 0, 0)
			if errno != 0 {
				return sent, fmt.Errorf("sendmmsg: %w", errno)
			}
			from += int(k)
			sent += uint64(k)
		}
		next = next.Add(frame / slices20)
		if wait := time.Until(next); wait > 0 {
			time.Sleep(wait)
		}
	}
}
