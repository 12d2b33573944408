package recorder

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/pion/rtp"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/config"
	"tandem/internal/daemon"
)

// Roles in which the test runs itself again.
const (
	roleVariable = "TANDEM_TEST_ROLE"
	roleRecorder = "recorder" // until killed or told to end
	roleSender   = "sender"   // 50 packets a second to each port of its standard input
)

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case roleRecorder:
		if err := runChild(os.Getenv("TANDEM_TEST_CONFIG")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case roleSender:
		sendForever(os.Stdin)
	default:
		os.Exit(m.Run())
	}
}

func runChild(text string) error {
	cfg, err := config.Parse("recorder.toml", text, DefaultConfig())
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return Run(ctx, cfg)
}

// sendForever sends to all ports evenly over each 20 ms.
func sendForever(in io.Reader) {
	text, _ := io.ReadAll(in)
	var conns []net.Conn
	for port := range strings.FieldsSeq(string(text)) {
		conn, err := net.Dial("udp4", "127.0.0.1:"+port)
		if err != nil {
			panic(err)
		}
		conns = append(conns, conn)
	}
	p := rtp.Packet{Header: rtp.Header{Version: 2, SSRC: 7}, Payload: make([]byte, 160)}
	const parts = 4
	tick := time.NewTicker(20 * time.Millisecond / parts)
	for n := 0; ; n++ {
		<-tick.C
		p.SequenceNumber, p.Timestamp = uint16(n/parts), uint32(n/parts)*160
		data, err := p.Marshal()
		if err != nil {
			panic(err)
		}
		for i := n % parts; i < len(conns); i += parts {
			conns[i].Write(data)
		}
	}
}

// On a machine whose every core is wanted by two other programs, a recorder
// with a thousand talking channels keeps its heartbeats' time.
func TestHeartbeatsOnABusyMachine(t *testing.T) {
	seconds, _ := strconv.Atoi(os.Getenv("TANDEM_BUSY_SECONDS"))
	if seconds == 0 {
		t.Skip("takes the whole machine: TANDEM_BUSY_SECONDS=60 asks for it")
	}
	if err := daemon.Raise(-20); err != nil { // the watch that times must not be late itself
		t.Skip(err)
	}
	b := newBench(t)
	b.stop()
	b.child(roleRecorder, nil, "TANDEM_TEST_CONFIG="+fmt.Sprintf(
		"control = %q\nmetrics = \"\"\ndir = %q\nnice = %s\n[rtp]\nport_min = 44000\nport_max = 47998\n[media]\nkeep = \"all\"\n[limits]\nreserve = 0\n",
		b.cfg.Control, b.cfg.Dir, cmp.Or(os.Getenv("TANDEM_BUSY_NICE"), "-10")))
	b.until("the recorder is ready", b.ready)
	var ids, ports []string
	for i := range 1000 {
		ids = append(ids, fmt.Sprint("c", i))
	}
	for _, o := range b.open(ids...) {
		ports = append(ports, fmt.Sprint(o.Endpoint.GetRtpPort()))
	}
	b.child(roleSender, strings.NewReader(strings.Join(ports, " ")))
	for range 2 * runtime.NumCPU() {
		b.program(exec.Command("sh", "-c", "while :; do :; done"))
	}
	var gaps []time.Duration
	last, end := time.Time{}, time.Now().Add(time.Duration(seconds)*time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := b.control.Watch(ctx, connect.NewRequest(&tandemv1.WatchRequest{Director: "a", Group: "primary"}))
	if err != nil {
		t.Fatal(err)
	}
	var m *tandemv1.WatchResponse
	for time.Now().Before(end) && stream.Receive() {
		now := time.Now()
		if !last.IsZero() {
			gaps = append(gaps, now.Sub(last))
		}
		last, m = now, stream.Msg()
		if m.Load != nil && !m.Load.Ready {
			t.Errorf("not ready: %s", m.Load.Reason)
		}
	}
	slices.Sort(gaps)
	if len(gaps) == 0 {
		t.Fatalf("no heartbeat: %v", stream.Err())
	}
	t.Logf("%d heartbeats, %d packets: apart p50 %v, p99 %v, most %v", len(gaps), m.GetPackets(), gaps[len(gaps)/2], gaps[len(gaps)*99/100], gaps[len(gaps)-1])
	if most := gaps[len(gaps)-1] - heartbeat; most > 250*time.Millisecond {
		t.Errorf("a heartbeat was %v late", most)
	}
	if m.GetTalking() != 1000 {
		t.Errorf("%d of 1000 channels talk", m.GetTalking())
	}
}

// child runs this test's program in another role.
func (b *bench) child(role string, in io.Reader, env ...string) {
	cmd := exec.Command(os.Args[0])
	cmd.Stdin, cmd.Env = in, append(append(os.Environ(), roleVariable+"="+role), env...)
	b.program(cmd)
}

// program runs as long as the test does.
func (b *bench) program(cmd *exec.Cmd) {
	b.t.Helper()
	cmd.Path, cmd.Args = "/usr/bin/nice", append([]string{"nice", "-n", "20"}, cmd.Args...) // not ours
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}                                    // nor our session
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
}
