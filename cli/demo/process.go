package demo

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// process is one daemon of the demo's floor, which may live several times.
type process struct {
	name   string // "recorder": of its configuration, its log and its program
	path   string // of the program
	config string
	log    string

	cmd    *exec.Cmd
	ended  chan struct{} // closed when this life is over
	err    error         // how it ended; read after ended
	wanted bool          // alive: its end is news
}

// findProgram looks for tandem-NAME beside this program, then in PATH.
func findProgram(name string) (string, error) {
	program := "tandem-" + name
	self, err := os.Executable()
	if err == nil {
		beside := filepath.Join(filepath.Dir(self), program)
		if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return beside, nil
		}
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("find %s: it is neither beside %s nor in PATH; build it or install the package", program, filepath.Base(os.Args[0]))
	}
	return path, nil
}

// start begins a life. The child gets a process group of its own, so that an
// interrupt typed at the terminal reaches only us, and dies with us, however
// we die. The calling goroutine must stay locked to its thread while the child
// lives: the kernel ties the second promise to the thread that forked.
func (p *process) start() error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close() // the child has its own
	cmd := exec.Command(p.path, "--config", p.config)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	ended := make(chan struct{})
	p.cmd, p.ended, p.wanted = cmd, ended, true
	go func() {
		p.err = cmd.Wait()
		close(ended)
	}()
	return nil
}

// kill ends a life as a crash would, and waits for the end.
func (p *process) kill() {
	p.wanted = false
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.ended
}

// stop asks for an end, and after the patience enforces it.
func (p *process) stop(patience time.Duration) {
	if p.cmd == nil {
		return
	}
	p.wanted = false
	syscall.Kill(p.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(patience):
	}
	p.kill()
}

// died tells whether a process that was wanted is gone.
func (p *process) died() bool {
	if !p.wanted {
		return false
	}
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// obituary tells of a death that nobody wanted, with the log's last words.
func (p *process) obituary() error {
	how := errors.New("exit status 0")
	if p.err != nil {
		how = p.err
	}
	text := fmt.Sprintf("%s ended by itself: %v", filepath.Base(p.path), how)
	for _, l := range lastLines(p.log, 5) {
		text += "\n  " + l
	}
	return errors.New(text + "\n  the whole log is " + p.log)
}

// lastLines are the last n lines of a file, as far as it can be read.
func lastLines(file string, n int) []string {
	text, _ := os.ReadFile(file)
	lines := strings.Split(string(bytes.TrimSpace(text)), "\n")
	return lines[max(0, len(lines)-n):]
}
