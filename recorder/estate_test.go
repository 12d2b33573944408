package recorder

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/pion/rtp"
	"golang.org/x/sys/unix"

	tandemv1 "tandem/api/tandem/v1"
)

// manager is a service manager as far as a recorder can tell: it hears what is
// notified, keeps descriptors, and starts the recorder with them.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
	cfg  string // recorder.toml

	mu      sync.Mutex
	changed *sync.Cond
	kept    map[string]int
	states  []string // what was notified beside descriptors since the last start
	child   *exec.Cmd
}

func newManager(t *testing.T, cfg string) *manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{t: t, conn: conn, cfg: cfg, kept: map[string]int{}}
	m.changed = sync.NewCond(&m.mu)
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		m.hear()
	}()
	t.Cleanup(func() {
		if m.child != nil {
			m.kill()
		}
		conn.Close()
		<-heard
		for _, fd := range m.kept {
			unix.Close(fd)
		}
	})
	return m
}

// hear takes messages until the socket is closed.
func (m *manager) hear() {
	text, control := make([]byte, 4096), make([]byte, 4096)
	for {
		n, controlled, _, _, err := m.conn.ReadMsgUnix(text, control)
		if err != nil {
			return
		}
		var fds []int
		if messages, err := unix.ParseSocketControlMessage(control[:controlled]); err == nil && len(messages) == 1 {
			fds, _ = unix.ParseUnixRights(&messages[0])
		}
		m.take(string(text[:n]), fds)
	}
}

func (m *manager) take(message string, fds []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.changed.Broadcast()
	lines := strings.Split(message, "\n")
	_, name, _ := strings.Cut(lines[len(lines)-1], "FDNAME=")
	switch lines[0] {
	case "FDSTORE=1":
		if old, twice := m.kept[name]; twice || len(fds) != 1 {
			m.t.Errorf("%q: %d descriptors, had %d", message, len(fds), old)
		}
		m.kept[name] = fds[0]
	case "FDSTOREREMOVE=1":
		unix.Close(m.kept[name])
		delete(m.kept, name)
	default:
		m.states = append(m.states, lines...)
	}
}

// start starts the recorder with all that is kept.
func (m *manager) start() {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	names := slices.Sorted(maps.Keys(m.kept))
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+roleRecorder, "TANDEM_TEST_CONFIG="+m.cfg, "NOTIFY_SOCKET="+m.conn.LocalAddr().String(),
		fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	cmd.Stderr = os.Stderr
	for _, name := range names {
		own, err := unix.FcntlInt(uintptr(m.kept[name]), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			m.t.Fatal(err)
		}
		f := os.NewFile(uintptr(own), name)
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	m.states = nil
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.child = cmd
}

func (m *manager) kill() {
	m.child.Process.Kill()
	m.child.Wait()
	m.child = nil
}

// stop ends the recorder in order.
func (m *manager) stop() {
	m.t.Helper()
	if err := m.child.Process.Signal(syscall.SIGTERM); err != nil {
		m.t.Fatal(err)
	}
	if err := m.child.Wait(); err != nil {
		m.t.Errorf("recorder: %v", err)
	}
	m.child = nil
}

// until waits for a state of what was heard.
func (m *manager) until(what string, done func() bool) {
	m.t.Helper()
	late := time.AfterFunc(30*time.Second, m.changed.Broadcast)
	defer late.Stop()
	m.mu.Lock()
	defer m.mu.Unlock()
	for began := time.Now(); !done(); m.changed.Wait() {
		if time.Since(began) >= 30*time.Second {
			m.t.Fatalf("not within half a minute: %s: kept %v, heard %q", what, slices.Sorted(maps.Keys(m.kept)), m.states)
		}
	}
}

func (m *manager) untilReady() {
	m.t.Helper()
	m.until("READY=1", func() bool { return slices.Contains(m.states, "READY=1") })
}

// talk sends numbered packets to all the ports, each every ten milliseconds,
// until quiet is called, which returns how many each got.
func talk(t *testing.T, ends []*tandemv1.Endpoint) (quiet func() int) {
	t.Helper()
	var conns []net.Conn
	for _, e := range ends {
		conn, err := net.Dial("udp4", hostPort(e))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conns = append(conns, conn)
	}
	var stop atomic.Bool
	sent := make(chan int, 1)
	go func() {
		const frame, samples = 10 * time.Millisecond, 80
		tick := time.NewTicker(frame)
		defer tick.Stop()
		n, began := 0, time.Now()
		for ; !stop.Load(); <-tick.C {
			for ; time.Duration(n)*frame <= time.Since(began); n++ { // also what this process was too late for
				for i, conn := range conns {
					p := rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: uint16(n), Timestamp: uint32(n) * samples, SSRC: uint32(i + 1)}, Payload: make([]byte, samples)}
					data, err := p.Marshal()
					if err != nil {
						panic(err)
					}
					conn.Write(data) // refused, where the port is closed: a packet lost
				}
			}
		}
		sent <- n
	}()
	return func() int {
		stop.Store(true)
		return <-sent
	}
}

// A recorder that is killed under load, again and again, and started anew with
// what its manager kept, records every packet once: those that came while
// there was none, and those it had in its hands.
func TestKilledRecorderLosesNothing(t *testing.T) {
	b := newBench(t)
	b.stop()
	m := newManager(t, fmt.Sprintf("control = %q\nmetrics = ''\ndir = %q\nnice = 0\n[rtp]\nport_min = 46000\nport_max = 47998\ntick = '10ms'\n[media]\nkeep = 'all'\n[journal]\nfile_size = 1048576\n[limits]\nreserve = 0\n",
		b.cfg.Control, b.cfg.Dir))
	m.start()
	m.untilReady()
	b.until("the recorder is ready", b.ready)
	const channels = 20
	ids := make([]string, channels)
	for i := range ids {
		ids[i] = fmt.Sprintf("c%02d", i)
	}
	var ends []*tandemv1.Endpoint
	for _, opened := range b.open(ids...) {
		ends = append(ends, opened.GetEndpoint())
	}
	for _, id := range ids {
		b.settle(id, "dialog")
	}
	m.until("all sockets are kept", func() bool { return len(m.kept) == channels+2 }) // RTCP is muxed; blocks, receivers
	quiet := talk(t, ends)
	for range 4 {
		<-time.After(time.Duration(50+rand.IntN(100)) * time.Millisecond)
		m.kill()
		m.start()
		m.untilReady()
	}
	m.stop() // and once in order, as for an upgrade
	m.start()
	m.untilReady()
	<-time.After(50 * time.Millisecond)
	sent := quiet()
	m.stop()
	m.start() // whatever was journaled is compacted first of all
	m.untilReady()
	for i, id := range ids {
		var segments []*tandemv1.Segment
		packets := 0
		for deadline := time.Now().Add(30 * time.Second); packets < sent; <-time.After(10 * time.Millisecond) {
			segments, packets = b.segments(id), 0
			for _, s := range segments {
				packets += int(s.GetPackets() + s.GetLost())
			}
			if time.Now().After(deadline) {
				t.Fatalf("channel %s: not in media files within half a minute: %d packets sent, segments %v", id, sent, segments)
			}
		}
		for _, s := range segments {
			if s.GetPackets() != uint64(sent) || s.GetLost()+s.GetDuplicates() != 0 || len(s.GetGaps()) > 0 || s.GetSsrc() != uint32(i+1) {
				t.Errorf("channel %s, %d packets sent: %d kept, %d lost, %d twice, gaps %v", id, sent, s.GetPackets(), s.GetLost(), s.GetDuplicates(), s.GetGaps())
			}
		}
		if len(segments) != 1 {
			t.Errorf("channel %s is in %d segments", id, len(segments))
		}
	}
}

func (b *bench) segments(channel string) (all []*tandemv1.Segment) {
	b.t.Helper()
	stream, err := b.media.ListSegments(b.t.Context(), connect.NewRequest(&tandemv1.ListSegmentsRequest{Channel: channel}))
	if err != nil {
		b.t.Fatal(err)
	}
	for stream.Receive() {
		all = append(all, stream.Msg().GetSegment())
	}
	if err := stream.Err(); err != nil {
		b.t.Fatal(err)
	}
	return all
}
