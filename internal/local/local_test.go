package local

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The test binary is a director, too: it says how it is at the socket named,
// with the epoch that it reads line by line from standard input.
func TestMain(m *testing.M) {
	if path := os.Getenv("TANDEM_TEST_DIRECTOR"); path != "" {
		if err := direct(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func direct(path string) error {
	s, err := Listen(path)
	if err != nil {
		return err
	}
	go s.Run(context.Background())
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		epoch, err := strconv.ParseUint(lines.Text(), 10, 64)
		if err != nil {
			return err
		}
		s.Beat(Report{Role: "active", Epoch: epoch, Holds: true})
	}
	return nil
}

// child is such a director.
type child struct {
	*exec.Cmd
	in interface{ Write([]byte) (int, error) }
}

func start(t *testing.T, path string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TANDEM_TEST_DIRECTOR="+path)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
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
	return &child{cmd, in}
}

func (c *child) say(t *testing.T, epoch uint64) {
	t.Helper()
	if _, err := fmt.Fprintln(c.in, epoch); err != nil {
		t.Fatal(err)
	}
}

// heard keeps the events of Follow.
type heard struct {
	mu     sync.Mutex
	events []Event
	more   chan struct{}
}

func follow(t *testing.T, path string) *heard {
	t.Helper()
	h := &heard{more: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Follow(ctx, path, h.tell) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("follow: %v", err)
		}
	})
	return h
}

func (h *heard) tell(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
	select {
	case h.more <- struct{}{}:
	default:
	}
}

// await removes events up to the first of a type that satisfies, and returns it.
func await[E Event](t *testing.T, h *heard, ok func(E) bool) E {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		h.mu.Lock()
		for i, e := range h.events {
			if got, is := e.(E); is && ok(got) {
				h.events = h.events[i+1:]
				h.mu.Unlock()
				return got
			}
		}
		h.mu.Unlock()
		select {
		case <-h.more:
		case <-deadline:
			t.Fatalf("never %T; heard %+v", *new(E), h.events)
		}
	}
}

func anyOf[E Event](E) bool { return true }

func epoch(n uint64) func(Heard) bool {
	return func(h Heard) bool { return h.Report.Epoch == n }
}

func socket(t *testing.T) string { return filepath.Join(t.TempDir(), "run", "director.sock") }

func serve(t *testing.T, path string) *Server {
	t.Helper()
	s, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return s
}

func TestReportArrivesWhole(t *testing.T) {
	path := socket(t)
	s := serve(t, path)
	want := Report{Role: "passive", Epoch: 7, Holds: true, AuthorityMS: 640, Loops: map[string]uint64{"floor": 1 << 60}, Eligible: true, Why: "it rains"}
	s.Beat(want) // before anybody is there
	h := follow(t, path)
	if p := await(t, h, anyOf[Connected]).Process; p.PID != os.Getpid() {
		t.Errorf("pid %d, want %d", p.PID, os.Getpid())
	}
	if got := await(t, h, anyOf[Heard]).Report; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	s.Beat(Report{Epoch: 8})
	await(t, h, epoch(8))
}

func TestEveryWatchdogHears(t *testing.T) {
	path := socket(t)
	s := serve(t, path)
	one, two := follow(t, path), follow(t, path)
	await(t, one, anyOf[Connected])
	await(t, two, anyOf[Connected])
	s.Beat(Report{Epoch: 3})
	await(t, one, epoch(3))
	await(t, two, epoch(3))
}

// A watchdog that does not read keeps nobody waiting, and hears the newest
// report when it reads again.
func TestBeatNeverWaits(t *testing.T) {
	path := socket(t)
	s := serve(t, path)
	conn, err := net.Dial(network, path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	began := time.Now()
	const beats = 5000
	for i := range beats {
		s.Beat(Report{Epoch: uint64(i + 1), Why: strings.Repeat("x", 1000)})
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("%d beats took %v", beats, took)
	}
	await(t, follow(t, path), epoch(beats))
}

func TestSocketIsPrivate(t *testing.T) {
	path := socket(t)
	serve(t, path)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("directory %v, %v", info.Mode(), err)
	}
}

func TestOnlyStaleSocketsAreReplaced(t *testing.T) {
	path := socket(t)
	ctx, cancel := context.WithCancel(context.Background())
	s, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	if _, err := Listen(path); err == nil {
		t.Fatal("two directors at one socket")
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	serve(t, path).Beat(Report{Epoch: 2})
	await(t, follow(t, path), epoch(2))
}

// A process that is killed is known to be gone within milliseconds, after all
// that it said, and its successor is followed. Only a machine that has nobody
// wait tells every time: one death of some must show it.
func TestDeadProcessIsKnown(t *testing.T) {
	const deaths, soon = 5, time.Second
	path := socket(t)
	director := start(t, path)
	h := follow(t, path)
	for n := 1; ; n++ {
		pid := await(t, h, anyOf[Connected]).Process.PID
		if pid != director.Process.Pid {
			t.Fatalf("pid %d, want %d", pid, director.Process.Pid)
		}
		director.say(t, uint64(5*n))
		await(t, h, epoch(uint64(5*n)))
		killed := time.Now()
		if err := director.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if gone := await(t, h, anyOf[Gone]); gone.PID != pid { // nobody has waited for the child yet
			t.Errorf("gone is %d", gone.PID)
		}
		took := time.Since(killed)
		t.Logf("known after %v", took)
		director = start(t, path)
		if took <= soon {
			break
		}
		if n == deaths {
			t.Fatalf("known after %v", took)
		}
	}
	if got := await(t, h, anyOf[Connected]).Process.PID; got != director.Process.Pid {
		t.Errorf("pid %d, want %d", got, director.Process.Pid)
	}
}

// What a process said just before its death is told before it is gone.
func TestLastReportComesFirst(t *testing.T) {
	path := socket(t)
	director := start(t, path)
	h := follow(t, path)
	await(t, h, anyOf[Connected])
	director.say(t, 9)
	if err := director.in.(interface{ Close() error }).Close(); err != nil { // it ends when its input does
		t.Fatal(err)
	}
	await(t, h, anyOf[Gone])
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.events {
		if _, late := e.(Heard); late {
			t.Errorf("told after its end: %+v", e)
		}
	}
}

// A frozen process is not gone. It can be killed, and then it is.
func TestFrozenProcessIsKilled(t *testing.T) {
	path := socket(t)
	director := start(t, path)
	h := follow(t, path)
	process := await(t, h, anyOf[Connected]).Process
	director.say(t, 1)
	await(t, h, epoch(1))
	if err := director.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if process.ended() {
		t.Fatal("a frozen process counts as ended")
	}
	if err := process.Kill(); err != nil {
		t.Fatal(err)
	}
	await(t, h, anyOf[Gone])
	err := director.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("ended with %v", err)
	}
	if err := process.Kill(); err == nil {
		t.Error("killed a process that has ended")
	}
}

// Garbage ends a connection, not the follower.
func TestGarbageIsSurvived(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen(network, path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	h := follow(t, path)
	for _, text := range []string{"no JSON", `{"epoch":4}`} {
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	await(t, h, anyOf[Lost])
	await(t, h, epoch(4))
}
