package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tandem/internal/rpc"
)

// host is one machine of the lab: a thread with a network and a mount
// namespace of its own. Neither has a name, so that nothing of it is left when
// this process is gone, however it went: the kernel ends the namespaces with
// the last thread in them, and the cables and disks with the namespaces.
//
// Its methods may be called from any goroutine; what they do is done in turn.
type host struct {
	name  string
	work  chan func()
	ended chan struct{}
	net   *os.File // the network namespace
	http  *http.Client
}

// newHost starts a machine without cables.
func newHost(name string) (*host, error) {
	h := &host{name: name, work: make(chan func()), ended: make(chan struct{})}
	h.http = rpc.NewClientOver(h.dial)
	opened := make(chan error)
	go h.live(opened)
	if err := <-opened; err != nil {
		<-h.ended
		return nil, fmt.Errorf("make host %s: %w", name, err)
	}
	return h, nil
}

// live is the host's thread: it opens the host, says so, and does its work
// until there is no more.
func (h *host) live(opened chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The process's first thread is what /proc/self shows, and it does not
		// end with its goroutine. Held here, it cannot be the next one's.
		defer runtime.UnlockOSThread()
		go h.live(opened)
		<-h.ended
		return
	}
	// Never unlocked: the thread ends with the goroutine, and with it the
	// namespaces and every process that was told to die with its parent.
	defer close(h.ended)
	err := h.open()
	opened <- err
	if err != nil {
		return
	}
	for do := range h.work {
		do()
	}
}

// open gives the calling thread its namespaces.
func (h *host) open() error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// Over the one that shows the network devices of another namespace.
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount sysfs: %w", err)
	}
	var err error
	if h.net, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	return command("ip", "link", "set", "lo", "up")
}

// close ends the machine. Its processes must have been stopped.
func (h *host) close() {
	h.http.CloseIdleConnections()
	close(h.work)
	<-h.ended
	h.net.Close()
}

// do runs what must run on the host's thread, and waits for it.
func (h *host) do(what func() error) error {
	done := make(chan error, 1)
	h.work <- func() { done <- what() }
	return <-done
}

// run runs a command on the host.
func (h *host) run(name string, args ...string) error {
	return h.do(func() error { return command(name, args...) })
}

// command runs in the namespaces of the calling thread.
func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// dial connects from the host. An address of the host itself is reached
// whatever its cables do.
func (h *host) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	if network != "tcp" {
		return nil, errors.New("dial: TCP only")
	}
	err = h.do(func() error {
		conn, err = (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp4", address)
		return err
	})
	return conn, err
}
