package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Link is the network interface that carries an address. A Link is used by one
// goroutine at a time.
type Link struct {
	name  string
	index int
	fd    int // a netlink socket of the namespace it was made in
}

// FindLink finds the interface of an address. It is nil when there is nothing
// to lose: for loopback, and where no interface carries the address.
func FindLink(addr netip.Addr) (*Link, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("find interface of %v: %w", addr, err)
	}
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			return nil, fmt.Errorf("find interface of %v: %w", addr, err)
		}
		for _, a := range addrs {
			prefix, err := netip.ParsePrefix(a.String())
			if err != nil || prefix.Addr() != addr.WithZone("") || i.Flags&net.FlagLoopback != 0 {
				continue
			}
			fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
			if err != nil {
				return nil, fmt.Errorf("watch interface %s: %w", i.Name, err)
			}
			return &Link{name: i.Name, index: i.Index, fd: fd}, nil
		}
	}
	return nil, nil
}

// Close lets go of the socket.
func (l *Link) Close() error { return unix.Close(l.fd) }

// Down says why nothing can be received, "" when it can. The kernel may make
// it wait while others change its network.
func (l *Link) Down() (why string, err error) {
	flags, err := l.flags()
	switch {
	case errors.Is(err, unix.ENODEV):
		return l.name + " is gone", nil
	case err != nil:
		return "", fmt.Errorf("watch interface %s: %w", l.name, err)
	case flags&unix.IFF_UP == 0:
		return l.name + " is switched off", nil
	case flags&unix.IFF_LOWER_UP == 0:
		return l.name + " has no carrier", nil
	}
	return "", nil
}

var errNetlink = errors.New("the kernel's answer is none")

// flags asks for the interface as it is now (rtnetlink(7)): what is announced
// of a carrier may come a second late.
func (l *Link) flags() (uint32, error) {
	const size = unix.SizeofNlMsghdr + unix.SizeofIfInfomsg
	ask := make([]byte, size)
	binary.NativeEndian.PutUint32(ask[0:], size)
	binary.NativeEndian.PutUint16(ask[4:], unix.RTM_GETLINK)
	binary.NativeEndian.PutUint16(ask[6:], unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(ask[unix.SizeofNlMsghdr+4:], uint32(l.index))
	if err := unix.Sendto(l.fd, ask, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, err
	}
	answer := make([]byte, 64) // the rest of it is cut off
	n, _, err := unix.Recvfrom(l.fd, answer, 0)
	if err != nil {
		return 0, err
	}
	return parseLink(answer[:n])
}

// parseLink reads the flags of an RTM_NEWLINK, or the error there is instead.
func parseLink(b []byte) (uint32, error) {
	if len(b) < unix.SizeofNlMsghdr+4 {
		return 0, errNetlink
	}
	body := b[unix.SizeofNlMsghdr:]
	switch binary.NativeEndian.Uint16(b[4:]) {
	case unix.NLMSG_ERROR:
		if code := int32(binary.NativeEndian.Uint32(body)); code < 0 {
			return 0, unix.Errno(-code)
		}
	case unix.RTM_NEWLINK:
		if len(body) >= unix.SizeofIfInfomsg {
			return binary.NativeEndian.Uint32(body[8:]), nil
		}
	}
	return 0, errNetlink
}
