package intake

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Keeper keeps sockets open when this process ends, however it ends, and gives
// them to the next one: what arrives meanwhile waits in their buffers. Its
// methods return at once; intake calls them in the order of events.
type Keeper interface {
	// Keep keeps a duplicate of fd under a name that nothing else has.
	Keep(name string, fd int)
	// Forget closes what is kept under the name. Only then is its port free.
	Forget(name string)
}

// nobody keeps nothing.
type nobody struct{}

func (nobody) Keep(string, int) {}
func (nobody) Forget(string)    {}

// Names that sockets are kept under. A port is open once at most, so that it
// tells them apart.
const (
	namedRTP  = "rtp-"
	namedRTCP = "rtcp-"
)

func nameRTP(port int) string  { return namedRTP + strconv.Itoa(port) }
func nameRTCP(port int) string { return namedRTCP + strconv.Itoa(port) }

// maxNamed is for how many channels the names of both sockets fit where
// systemd puts them, 128 KiB. With more, RTCP ports are bound anew after a
// restart: what is lost with them is said again within five seconds.
const maxNamed = 6000

// Inherit takes a socket that was kept for this process, and says false when
// fd is none of intake's. It is Open and Update that use it again; one that is
// bound to another address than they would bind is closed at once.
func (in *Intake) Inherit(name string, fd int) bool {
	digits, rtp := strings.CutPrefix(name, namedRTP)
	if !rtp {
		var rtcp bool
		if digits, rtcp = strings.CutPrefix(name, namedRTCP); !rtcp {
			return false
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	port, err := strconv.ParseUint(digits, 10, 16)
	if err == nil {
		err = boundTo(fd, netip.AddrPortFrom(in.cfg.Host, uint16(port)))
	}
	if _, twice := in.inherited[name]; err == nil && !twice {
		in.inherited[name] = fd
		return true
	}
	slog.Info("socket of before is of no use", "name", name, "err", err)
	unix.Close(fd)
	in.cfg.Keeper.Forget(name)
	return true
}

// boundTo wants fd to be a datagram socket bound to the address.
func boundTo(fd int, want netip.AddrPort) error {
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_DGRAM {
		return fmt.Errorf("no datagram socket (%d): %w", kind, err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return fmt.Errorf("read its address: %w", err)
	}
	var bound netip.AddrPort
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		bound = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		bound = netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	if bound != want {
		return fmt.Errorf("bound to %v, not to %v", bound, want)
	}
	return nil
}

// Disown closes the sockets that were inherited and not used again, and
// returns how many: their channels are not open any more.
func (in *Intake) Disown() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := len(in.inherited)
	for name, fd := range in.inherited {
		unix.Close(fd)
		in.cfg.Keeper.Forget(name)
	}
	clear(in.inherited)
	return n
}

// Kept is how many sockets were inherited and are in use again.
func (in *Intake) Kept() int {
	in.mu.RLock()
	defer in.mu.RUnlock()
	return in.reused
}

// socket binds a port, or goes on with the socket of it that was inherited.
func (in *Intake) socket(name string, port, buffer int) (fd int, inherited bool, err error) {
	if fd, inherited = in.inherited[name]; inherited {
		delete(in.inherited, name)
		in.reused++
		if err := setOptions(fd, buffer); err != nil {
			slog.Warn("socket of before has other options", "name", name, "err", err)
		}
		return fd, true, nil
	}
	fd, err = listenUDP(netip.AddrPortFrom(in.cfg.Host, uint16(port)), buffer)
	return fd, false, err
}
