package drill

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	psnet "github.com/shirou/gopsutil/v3/net"
	"github.com/shirou/gopsutil/v3/process"
)

// daemon is a recorder's process on this machine, and how it was started.
type daemon struct {
	address string
	pid     int
	args    []string
	dir     string
	env     []string
	log     *os.File // where it writes; nil: unknown
}

// program is the only one that a drill may signal.
const program = "tandem-recorder"

// find looks for the process that listens on a recorder's control address.
func find(address string) (*daemon, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("find recorder at %q: %w", address, err)
	}
	sockets, err := psnet.Connections("tcp")
	if err != nil {
		return nil, fmt.Errorf("list sockets: %w", err)
	}
	for _, s := range sockets {
		if s.Status == "LISTEN" && s.Laddr.Port == uint32(at.Port()) && s.Pid != 0 && (s.Laddr.IP == at.Addr().String() || isAny(s.Laddr.IP)) {
			return open(address, s.Pid)
		}
	}
	return nil, fmt.Errorf("%w: no process of this machine that may be seen listens on %s", ErrRefused, address)
}

func isAny(ip string) bool {
	a, err := netip.ParseAddr(ip)
	return err == nil && a.IsUnspecified()
}

// open notes how a process was started, so that it can be again.
func open(address string, pid int32) (*daemon, error) {
	p, err := process.NewProcess(pid)
	if err != nil {
		return nil, fmt.Errorf("look at process %d: %w", pid, err)
	}
	exe, err := p.Exe()
	if err != nil {
		return nil, fmt.Errorf("look at process %d: %w", pid, err)
	}
	if filepath.Base(exe) != program {
		return nil, fmt.Errorf("%w: %s listens on %s, not %s", ErrRefused, exe, address, program)
	}
	d := &daemon{address: address, pid: int(pid)}
	if d.args, err = p.CmdlineSlice(); err == nil {
		d.dir, err = p.Cwd()
	}
	if err == nil {
		d.env, err = p.Environ()
	}
	if err != nil {
		return nil, fmt.Errorf("look at process %d: %w", pid, err)
	}
	d.args[0] = exe
	// Best effort: a pipe to a supervisor cannot be opened again, nor need be.
	d.log, _ = os.OpenFile(fmt.Sprintf("/proc/%d/fd/2", pid), os.O_WRONLY|os.O_APPEND, 0)
	return d, nil
}

func (d *daemon) kill() error   { return syscall.Kill(d.pid, syscall.SIGKILL) }
func (d *daemon) freeze() error { return syscall.Kill(d.pid, syscall.SIGSTOP) }
func (d *daemon) thaw() error   { return syscall.Kill(d.pid, syscall.SIGCONT) }

// returning is how long its supervisor has to start a killed daemon again;
// without one the drill does.
const returning = 3 * time.Second

func (d *daemon) bringBack(ctx context.Context) error {
	if d.answers(ctx, returning) {
		return nil
	}
	cmd := exec.Command(d.args[0], d.args[1:]...)
	cmd.Dir, cmd.Env = d.dir, d.env
	if d.log != nil {
		cmd.Stdout, cmd.Stderr = d.log, d.log
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it outlives the drill
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s again: %w", program, err)
	}
	go cmd.Wait() // reaps it should it die while we live
	if !d.answers(ctx, returning) {
		return fmt.Errorf("%s was started again and does not answer at %s", program, d.address)
	}
	return nil
}

// answers tells whether somebody listens within so long.
func (d *daemon) answers(ctx context.Context, patience time.Duration) bool {
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		conn, err := net.DialTimeout("tcp", d.address, time.Second)
		if err == nil {
			conn.Close()
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-poll.C:
		}
	}
	return false
}
