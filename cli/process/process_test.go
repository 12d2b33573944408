package process

import (
	"errors"
	"fmt"
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
		if child.Start() != nil || os.WriteFile(config+".pid", fmt.Append(nil, child.cmd.Process.Pid), 0o600) != nil {
			return 8
		}
	}
	<-time.After(time.Minute)
	return 0
}

func newProcess(dir, what string) *Process {
	p := &Process{Name: what, Path: os.Args[0], Config: filepath.Join(dir, what+".toml"), Log: filepath.Join(dir, what+".log")}
	if err := os.WriteFile(p.Config, []byte(what), 0o600); err != nil {
		panic(err)
	}
	return p
}

// begun starts a process and waits for its first word.
func begun(t *testing.T, p *Process) {
	t.Helper()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the process to start", func() bool {
		text, _ := os.ReadFile(p.Log)
		return strings.Contains(string(text), "started")
	})
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(30 * time.Second); !done(); <-poll.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited 30s for %s", what)
		}
	}
}

func TestProcessLives(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := newProcess(t.TempDir(), "sleep")
	for range 2 { // a process may live again
		begun(t, p)
		if p.Died() {
			t.Fatal("died")
		}
		p.Kill()
		if p.Died() || alive(p.cmd.Process.Pid) {
			t.Error("a wanted death is news, or none")
		}
		var exit *exec.ExitError
		if !errors.As(p.err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Errorf("ended with %v", p.err)
		}
		os.Remove(p.Log)
	}
	begun(t, p)
	p.Stop(time.Minute)
	if alive(p.cmd.Process.Pid) {
		t.Error("still there after stop")
	}
	(&Process{}).Stop(0) // never started: nothing to stop
}

// A death that nobody wanted is told with the log's last words.
func TestUnwantedDeath(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := newProcess(t.TempDir(), "die")
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a death", p.Died)
	err := p.Obituary()
	if !strings.Contains(err.Error(), "ended by itself: exit status 7\n") || !strings.Contains(err.Error(), "no disk") || !strings.Contains(err.Error(), p.Log) {
		t.Error(err)
	}
}

// A frozen process takes no time, and can still be ended.
func TestFreeze(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := newProcess(t.TempDir(), "sleep")
	begun(t, p)
	p.Freeze()
	eventually(t, "the process to stand still", func() bool { return state(p.cmd.Process.Pid) == "T" })
	p.Thaw()
	eventually(t, "the process to go on", func() bool { return state(p.cmd.Process.Pid) == "S" })
	p.Freeze()
	p.Stop(10 * time.Millisecond)
	if alive(p.cmd.Process.Pid) {
		t.Error("still there after stop")
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
		text, err := os.ReadFile(parent.Config + ".pid")
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
	parent.Kill()
}

// alive tells whether a process runs; one that only waits to be reaped does not.
func alive(pid int) bool { s := state(pid); return s != "" && s != "Z" }

// state is the kernel's letter for what a process does; empty when it is gone.
func state(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return rest[:1]
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if _, err := Find("turretsim"); err == nil || !strings.Contains(err.Error(), "find tandem-turretsim: it is neither beside") {
		t.Error(err)
	}
	want := filepath.Join(dir, "tandem-turretsim")
	if err := os.WriteFile(want, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := Find("turretsim"); got != want {
		t.Error(got, err)
	}
}
