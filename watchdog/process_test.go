package watchdog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/local"
	"tandem/internal/monitor"
	"tandem/internal/rpc"
)

// The test binary is a director that leads epoch 9, too: it says so at the
// socket named, until it is killed.
func TestMain(m *testing.M) {
	if path := os.Getenv("TANDEM_TEST_DIRECTOR"); path != "" {
		if err := lead(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func lead(path string) error {
	s, err := local.Listen(path)
	if err != nil {
		return err
	}
	go func() {
		for range time.Tick(20 * time.Millisecond) {
			s.Beat(local.Report{Role: "active", Epoch: 9, Holds: true, Eligible: true})
		}
	}()
	fmt.Println("ready")
	return s.Run(context.Background())
}

func startDirector(t *testing.T, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TANDEM_TEST_DIRECTOR="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the director says %q, %v", line, err)
	}
	return cmd
}

// told is everyone that a watchdog tells something, on one real port.
type told struct {
	tandemv1connect.UnimplementedVoterServiceHandler
	tandemv1connect.UnimplementedPeerServiceHandler
	tandemv1connect.UnimplementedWatchdogServiceHandler
	at chan told1
}

// told1 is one thing told, and when.
type told1 struct {
	what  string
	epoch uint64
	at    time.Time
}

func (o *told) Release(_ context.Context, r *connect.Request[tandemv1.ReleaseRequest]) (*connect.Response[tandemv1.ReleaseResponse], error) {
	o.at <- told1{"release", r.Msg.GetEpoch(), time.Now()}
	return connect.NewResponse(&tandemv1.ReleaseResponse{}), nil
}

func (o *told) Yield(_ context.Context, r *connect.Request[tandemv1.YieldRequest]) (*connect.Response[tandemv1.YieldResponse], error) {
	o.at <- told1{"yield", r.Msg.GetEpoch(), time.Now()}
	return connect.NewResponse(&tandemv1.YieldResponse{}), nil
}

func (o *told) Notice(_ context.Context, r *connect.Request[tandemv1.NoticeRequest]) (*connect.Response[tandemv1.NoticeResponse], error) {
	o.at <- told1{"notice", r.Msg.GetEpoch(), time.Now()}
	return connect.NewResponse(&tandemv1.NoticeResponse{}), nil
}

// floor is a watchdog as it is run, with real sockets all around it.
type floor struct {
	socket  string
	control string
	told    chan told1
}

// run starts the watchdog's Run with files made for it.
func run(t *testing.T) *floor {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	dir := t.TempDir()
	f := &floor{socket: filepath.Join(dir, "director.sock"), told: make(chan told1, 16)}
	o := &told{at: f.told}
	mux := http.NewServeMux()
	mux.Handle(tandemv1connect.NewVoterServiceHandler(o))
	mux.Handle(tandemv1connect.NewPeerServiceHandler(o))
	mux.Handle(tandemv1connect.NewWatchdogServiceHandler(o))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	peer, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	key := []byte("the secret of the site")
	metrics := monitor.NewMetrics(prometheus.NewRegistry())
	passive := func() (monitor.Reply, bool) {
		return monitor.Reply{Director: "dir-b", Role: "passive", Eligible: true, CTI: "up", Loops: map[string]uint64{"floor": uint64(time.Now().UnixNano())}}, true
	}
	ended := make(chan error, 3)
	go func() { ended <- rpc.Serve(ctx, ln, mux) }()
	go func() { ended <- monitor.Serve(ctx, peer, key, passive, metrics) }()
	cfg := DefaultConfig()
	cfg.Metrics, cfg.Nice, cfg.FailbackFile = "", 0, filepath.Join(t.TempDir(), "failback.json")
	cfg.Control = free(t)
	f.control = cfg.Control
	cfg.DirectorConfig = write(t, fmt.Sprintf(`
name = "dir-a"
monitor = %q
[failover]
preferred = true
peer = %q
peer_monitor = [%q]
peer_watchdog = %q
voters = [%q]
monitor_key_file = "KEY"
socket = %q
`, free(t), ln.Addr(), peer.LocalAddr(), ln.Addr(), ln.Addr(), f.socket))
	go func() { ended <- Run(ctx, cfg) }()
	t.Cleanup(func() {
		cancel()
		for range 3 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	return f
}

// free is a port that nobody has at the moment.
func free(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// until waits for the watchdog to say a state and a sentence that will do.
func (f *floor) until(t *testing.T, what string, ok func(*tandemv1.WatchdogStatus) bool) {
	t.Helper()
	client := tandemv1connect.NewWatchdogServiceClient(rpc.NewClient(), "http://"+f.control)
	var status *tandemv1.WatchdogStatus
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		if res, err := client.Report(t.Context(), connect.NewRequest(&tandemv1.ReportRequest{})); err == nil {
			if status = res.Msg.GetStatus(); ok(status) {
				return
			}
		}
		<-time.After(5 * time.Millisecond)
	}
	t.Fatalf("never %s, but %v", what, status)
}

func (f *floor) untilLeading(t *testing.T) {
	t.Helper()
	f.until(t, "leading", func(s *tandemv1.WatchdogStatus) bool {
		return s.GetWatching() == "dir-b" && s.GetSentence() == "dir-a is active; dir-b is passive and answers"
	})
}

// expect are the three that must be told, of epoch 9, and how long that took.
func (f *floor) expect(t *testing.T, since time.Time) time.Duration {
	t.Helper()
	open := map[string]bool{"release": true, "yield": true, "notice": true}
	var last time.Time
	for deadline := time.After(30 * time.Second); len(open) > 0; {
		select {
		case e := <-f.told:
			if !open[e.what] || e.epoch != 9 {
				t.Fatalf("told %+v; still to come %v", e, open)
			}
			delete(open, e.what)
			last = e.at
		case <-deadline:
			t.Fatalf("never told %v", open)
		}
	}
	return last.Sub(since)
}

// A director's process that dies is released within milliseconds, by a
// watchdog as it is run. Only a machine that has nobody wait tells every time:
// one death of some must show it.
func TestKilledDirectorIsReleased(t *testing.T) {
	const deaths, soon = 5, 500 * time.Millisecond
	f := run(t)
	var took time.Duration
	for n := range deaths {
		director := startDirector(t, f.socket)
		f.untilLeading(t)
		if n == 0 && len(f.told) != 0 {
			t.Fatalf("told %+v while all is well", <-f.told)
		}
		killed := time.Now()
		if err := director.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		took = f.expect(t, killed)
		t.Logf("everyone was told %v after the kill", took)
		if took <= soon { // some ms on a machine that does nothing else
			break
		}
	}
	if took > soon {
		t.Errorf("everyone was told %v after the kill", took)
	}
	startDirector(t, f.socket)
	f.untilLeading(t)
}

// A director that freezes while it holds authority is killed, not before its
// lease has lapsed, and then released.
func TestFrozenHolderIsKilled(t *testing.T) {
	f := run(t)
	director := startDirector(t, f.socket)
	f.untilLeading(t)
	frozen := time.Now()
	if err := director.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	took := f.expect(t, frozen)
	t.Logf("everyone was told %v after the freeze", took)
	if took < 750*time.Millisecond {
		t.Errorf("killed %v after it froze: its lease was live", took)
	}
	err := director.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("ended with %v", err)
	}
}

// A witness without a director votes and answers, and says that it is one.
func TestWitness(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cfg := DefaultConfig()
	cfg.Name, cfg.Nice, cfg.DirectorConfig, cfg.Control, cfg.Metrics = "wit-1", 0, "", free(t), free(t)
	cfg.Witness.Enabled, cfg.Witness.Dir = true, filepath.Join(t.TempDir(), "witness")
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg) }()
	f := &floor{control: cfg.Control}
	f.until(t, "a witness", func(s *tandemv1.WatchdogStatus) bool { return s.GetWitness() && s.GetName() == "wit-1" })
	voter := tandemv1connect.NewVoterServiceClient(rpc.NewClient(), "http://"+cfg.Control)
	res, err := voter.Query(t.Context(), connect.NewRequest(&tandemv1.QueryRequest{Group: "primary", Profile: "steady"}))
	if err != nil || res.Msg.GetBallot().GetVoter() != "wit-1" {
		t.Errorf("voter says %v, %v", res, err)
	}
	health, err := http.Get("http://" + cfg.Metrics + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := io.ReadAll(health.Body); health.StatusCode != http.StatusOK {
		t.Errorf("health %d: %s", health.StatusCode, text)
	}
	health.Body.Close()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Without a director to watch a watchdog that is no witness does not start.
func TestNothingToDo(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Nice, cfg.Control, cfg.DirectorConfig = 0, "127.0.0.1:0", write(t, `name = "dir-a"`)
	if err := Run(t.Context(), cfg); !errors.Is(err, errAlone) {
		t.Errorf("got %v", err)
	}
}
