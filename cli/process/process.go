// Package process gives daemons lives: it starts them, and ends them as a
// crash, a frozen host or an operator would.
package process

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

	"github.com/BurntSushi/toml"
)

// Process is one daemon, which may live several times. Its methods belong to
// one goroutine at a time.
type Process struct {
	Name   string // of its configuration and its log
	Path   string // of the program
	Config string
	Log    string

	cmd    *exec.Cmd
	ended  chan struct{} // closed when this life is over
	err    error         // how it ended; read after ended
	wanted bool          // alive: its end is news
}

// New is a daemon whose files are in dir, not started. The program is that
// of the kind: "recorder" for tandem-recorder.
func New(kind, name, dir string) (*Process, error) {
	path, err := Find(kind)
	if err != nil {
		return nil, err
	}
	return &Process{Name: name, Path: path, Config: filepath.Join(dir, name+".toml"), Log: filepath.Join(dir, name+".log")}, nil
}

// Configure writes the daemon's configuration; keys are as in its file in etc/.
func (p *Process) Configure(keys map[string]any) error { return WriteConfig(p.Config, keys) }

// WriteConfig writes a configuration file of any program.
func WriteConfig(file string, keys map[string]any) error {
	var text bytes.Buffer
	if err := toml.NewEncoder(&text).Encode(keys); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if err := os.WriteFile(file, text.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}

// Find looks for tandem-NAME beside this program, then in PATH.
func Find(name string) (string, error) {
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

// Start begins a life, in the namespaces of the calling thread. The child gets
// a process group of its own, so that an interrupt typed at the terminal
// reaches only us, and dies with us, however we die. The calling goroutine must
// stay locked to its thread while the child lives: the kernel ties the second
// promise to the thread that forked.
func (p *Process) Start() error {
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close() // the child has its own
	cmd := exec.Command(p.Path, "--config", p.Config)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	ended := make(chan struct{})
	p.cmd, p.ended, p.wanted = cmd, ended, true
	go func() {
		p.err = cmd.Wait()
		close(ended)
	}()
	return nil
}

// Kill ends a life as a crash would, and waits for the end.
func (p *Process) Kill() {
	p.wanted = false
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.ended
}

// Freeze stops a life as a hung host would: its sockets stay, nobody reads.
func (p *Process) Freeze() { syscall.Kill(-p.cmd.Process.Pid, syscall.SIGSTOP) }

// Thaw lets a frozen life go on.
func (p *Process) Thaw() { syscall.Kill(-p.cmd.Process.Pid, syscall.SIGCONT) }

// Stop asks for an end, and after the patience enforces it.
func (p *Process) Stop(patience time.Duration) {
	if p.cmd == nil {
		return
	}
	p.wanted = false
	syscall.Kill(p.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(patience):
	}
	p.Kill()
}

// Died tells whether a process that was wanted is gone.
func (p *Process) Died() bool {
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

// Obituary tells of a death that nobody wanted, with the log's last words.
func (p *Process) Obituary() error {
	how := errors.New("exit status 0")
	if p.err != nil {
		how = p.err
	}
	text := fmt.Sprintf("%s ended by itself: %v", filepath.Base(p.Path), how)
	for _, l := range lastLines(p.Log, 5) {
		text += "\n  " + l
	}
	return errors.New(text + "\n  the whole log is " + p.Log)
}

// lastLines are the last n lines of a file, as far as it can be read.
func lastLines(file string, n int) []string {
	text, _ := os.ReadFile(file)
	lines := strings.Split(string(bytes.TrimSpace(text)), "\n")
	return lines[max(0, len(lines)-n):]
}
