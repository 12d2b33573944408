package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The tests' binary stands in for daemons: what it does is said by the file
// given with --config, and who starts it for a process to orphan by argument.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "--config" {
		runtime.LockOSThread()
		os.Exit(standIn(os.Args[2]))
	}
	os.Exit(m.Run())
}

func standIn(config string) int {
	what, err := os.ReadFile(config)
	if err != nil {
		return 9
	}
	fmt.Println("started")
	switch string(what) {
	case "die":
		fmt.Fprintln(os.Stderr, "level=ERROR msg=\"no disk\"")
		return 7
	case "parent": // has a child of its own kind
		child := newProcess(filepath.Dir(config), "sleep")
		if child.start() != nil || os.WriteFile(config+".pid", fmt.Append(nil, child.cmd.Process.Pid), 0o600) != nil {
			return 8
		}
	}
	<-time.After(time.Minute)
	return 0
}

func newProcess(dir, what string) *process {
	p := &process{name: what, path: os.Args[0], config: filepath.Join(dir, what+".toml"), log: filepath.Join(dir, what+".log")}
	if err := os.WriteFile(p.config, []byte(what), 0o600); err != nil {
		panic(err)
	}
	return p
}

// begun starts a process and waits for its first word.
func begun(t *testing.T, p *process) {
	t.Helper()
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the process to start", func() bool {
		text, _ := os.ReadFile(p.log)
		return strings.Contains(string(text), "started")
	})
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	f := &floor{dir: t.TempDir(), sim: &process{}, recorder: &process{}, director: &process{}}
	if err := f.wait(t.Context(), 10*time.Second, what, done); err != nil {
		t.Fatal(err)
	}
}

func TestProcessLives(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := newProcess(t.TempDir(), "sleep")
	for range 2 { // a process may live again
		begun(t, p)
		if p.died() {
			t.Fatal("died")
		}
		p.kill()
		if p.died() || alive(p.cmd.Process.Pid) {
			t.Error("a wanted death is news, or none")
		}
		var exit *exec.ExitError
		if !errors.As(p.err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Errorf("ended with %v", p.err)
		}
		os.Remove(p.log)
	}
	begun(t, p)
	p.stop(time.Minute)
	if alive(p.cmd.Process.Pid) {
		t.Error("still there after stop")
	}
	(&process{}).stop(0) // never started: nothing to stop
}

// A death that nobody wanted ends every wait, with the log's last words.
func TestUnwantedDeath(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := newProcess(t.TempDir(), "die")
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	f := &floor{sim: &process{}, recorder: p, director: &process{}}
	err := f.wait(t.Context(), forever, "", func() bool { return false })
	if err == nil || !strings.Contains(err.Error(), "ended by itself: exit status 7\n") || !strings.Contains(err.Error(), "no disk") || !strings.Contains(err.Error(), p.log) {
		t.Error(err)
	}
}

// A child dies with its parent even when the parent is killed.
func TestChildDiesWithUs(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dir := t.TempDir()
	parent := newProcess(dir, "parent")
	begun(t, parent)
	var child int
	eventually(t, "the child", func() bool {
		text, err := os.ReadFile(parent.config + ".pid")
		if err != nil {
			return false
		}
		_, err = fmt.Sscan(string(text), &child)
		return err == nil
	})
	if !alive(child) {
		t.Fatal("the child did not live")
	}
	syscall.Kill(parent.cmd.Process.Pid, syscall.SIGKILL) // it alone, not its group
	eventually(t, "the child to die", func() bool { return !alive(child) })
	parent.kill()
}

// alive tells whether a process runs; one that only waits to be reaped does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func TestWaitEnds(t *testing.T) {
	f := &floor{dir: "logs", sim: &process{}, recorder: &process{}, director: &process{}}
	if err := f.wait(t.Context(), 10*time.Millisecond, "rain", func() bool { return false }); err == nil || err.Error() != "waited 10ms for rain; the logs are in logs" {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.wait(ctx, forever, "", func() bool { return false }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := f.during(t.Context(), func() error { return errors.New("tried") }); err == nil || err.Error() != "tried" {
		t.Error(err)
	}
}

func TestFreePorts(t *testing.T) {
	ports, err := freePorts(8)
	seen := map[string]bool{}
	for _, p := range ports {
		seen[p] = true
	}
	if err != nil || len(seen) != 8 {
		t.Error(ports, err)
	}
}

func TestFreeRange(t *testing.T) {
	first, err := freeRange(50)
	if err != nil || first%2 != 0 || first < 10_000 || first+100 > 20_000 {
		t.Fatal(first, err)
	}
	taken, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: first + 98})
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if allFree(first, 50) || !allFree(first, 49) {
		t.Error("a taken port counts as free, or a free one as taken")
	}
	if _, err := freeRange(5001); err == nil {
		t.Error("more ports than there are")
	}
}

func TestFindProgram(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if _, err := findProgram("turretsim"); err == nil || !strings.Contains(err.Error(), "find tandem-turretsim: it is neither beside") {
		t.Error(err)
	}
	want := filepath.Join(dir, "tandem-turretsim")
	if err := os.WriteFile(want, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := findProgram("turretsim"); got != want {
		t.Error(got, err)
	}
}

func TestMakeDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	if got, err := makeDir(dir); got != dir || err != nil {
		t.Error(got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := makeDir(dir); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Error(err)
	}
}
