package local

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Process is a handle on the director's process: the process itself, not its
// number, which another one may get. Safe for concurrent use.
type Process struct {
	PID     int
	file    *os.File      // pidfd
	reading chan struct{} // holds one while a connection to it is read
}

// peer is a handle on the process that listens at the other end of conn.
func peer(conn *net.UnixConn) (*Process, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var p *Process
	var failed error
	if err := raw.Control(func(fd uintptr) { p, failed = hold(int(fd)) }); err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, fmt.Errorf("hold process of director: %w", failed)
	}
	return p, nil
}

func hold(socket int) (*Process, error) {
	credentials, err := unix.GetsockoptUcred(socket, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return nil, err
	}
	fd, err := pidfd(socket, int(credentials.Pid))
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so that waiting takes no thread
		unix.Close(fd)
		return nil, err
	}
	return &Process{PID: int(credentials.Pid), file: os.NewFile(uintptr(fd), "pidfd"), reading: make(chan struct{}, 1)}, nil
}

// pidfd opens the peer's process. Kernels before 6.5 know it by number only:
// there the number is still its own if the connection stands afterwards.
func pidfd(socket, pid int) (int, error) {
	if fd, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_PEERPIDFD); err == nil {
		unix.CloseOnExec(fd)
		return fd, nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, err
	}
	polled := []unix.PollFd{{Fd: int32(socket), Events: unix.POLLRDHUP}}
	if _, err := unix.Poll(polled, 0); err != nil || polled[0].Revents != 0 {
		unix.Close(fd)
		return -1, unix.ESRCH
	}
	return fd, nil
}

// Wait returns nil when the process has ended, all of its threads, whether or
// not anybody has waited for it: nothing more is written by it. It returns an
// error after Close.
func (p *Process) Wait() error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Read(func(fd uintptr) (done bool) {
		done, failed = readable(fd)
		return done || failed != nil
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return fmt.Errorf("wait for process %d: %w", p.PID, err)
	}
	return nil
}

// ended reports whether the process has ended, without waiting; after Close it
// says so, too.
func (p *Process) ended() bool {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return true
	}
	done := false
	err = raw.Control(func(fd uintptr) { done, _ = readable(fd) })
	return err != nil || done
}

// readable reports whether there is something to be read from a descriptor.
func readable(fd uintptr) (bool, error) {
	polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(polled, 0)
	if err == unix.EINTR {
		return false, nil
	}
	return n > 0, err
}

// Kill ends the process, frozen or not. That it has ended Wait says.
func (p *Process) Kill() error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) }); err != nil {
		return fmt.Errorf("kill process %d: %w", p.PID, err)
	}
	if failed != nil {
		return fmt.Errorf("kill process %d: %w", p.PID, failed)
	}
	return nil
}

// Close lets go of the process and ends Wait.
func (p *Process) Close() error { return p.file.Close() }
