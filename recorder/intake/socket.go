package intake

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxDatagram is what is kept of one datagram: an Ethernet frame's worth.
	maxDatagram = 1500
	// batch is how many datagrams one recvmmsg takes at most. A 50 ms tick
	// finds two or three.
	batch = 32

	slotSize    = 2048 // maxDatagram, and a slot begins on a cache line
	controlSize = 64   // a timestamp and a drop counter
	nameSize    = unix.SizeofSockaddrInet6
)

// listenUDP opens a socket bound to addr, with kernel receive timestamps and
// drop counter. It is a bare descriptor on purpose: the runtime's poller
// would be woken by every packet.
func listenUDP(addr netip.AddrPort, buffer int) (int, error) {
	family := unix.AF_INET6
	if addr.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	if err := setOptions(fd, buffer); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if err := unix.Bind(fd, sockaddr(addr)); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind %v: %w", addr, err)
	}
	return fd, nil
}

func setOptions(fd, buffer int) error {
	// Root may pass over net.core.rmem_max; others get as much as it allows.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer); err != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer); err != nil {
			return fmt.Errorf("set receive buffer: %w", err)
		}
	}
	for _, option := range []int{unix.SO_TIMESTAMPNS, unix.SO_RXQ_OVFL} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1); err != nil {
			return fmt.Errorf("set socket option %d: %w", option, err)
		}
	}
	return nil
}

// grantedBuffer is how much of a receive buffer's size a socket is granted.
func grantedBuffer(loopback netip.Addr, want int) (int, error) {
	fd, err := listenUDP(netip.AddrPortFrom(loopback, 0), want)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	return got / 2, err // the kernel doubles it, for its own overhead (socket(7))
}

// startTimestamps makes the kernel stamp datagrams as they arrive, and returns
// a descriptor that keeps it so until it is closed. The kernel begins a moment
// after the first socket asks, and until then stamps what it is asked to
// deliver with the time of asking: too late for what waited.
func startTimestamps(loopback netip.Addr) (int, error) {
	fd, err := listenUDP(netip.AddrPortFrom(loopback, 0), controlBuffer)
	if err != nil {
		return -1, fmt.Errorf("start timestamps: %w", err)
	}
	own, err := unix.Getsockname(fd)
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("start timestamps: %w", err)
	}
	r := newReceiver()
	for range 100 {
		if err := unix.Sendto(fd, []byte{0}, 0, own); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("start timestamps: %w", err)
		}
		sent := time.Now().UnixNano()
		time.Sleep(time.Millisecond)
		if n, _ := r.receive(0, fd); n == 1 && r.get(0).arrival <= sent {
			break
		}
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// rawAddr is a socket address as the kernel writes it, comparable.
type rawAddr [nameSize]byte

func (r *rawAddr) addrPort() (netip.AddrPort, bool) {
	port := uint16(r[2])<<8 | uint16(r[3])
	switch *(*uint16)(unsafe.Pointer(r)) {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(r[4:8])), port), true
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(r[8:24])).Unmap(), port), true
	}
	return netip.AddrPort{}, false
}

// receiver reads datagrams many at a time into buffers of its own.
type receiver struct {
	messages [batch]unix.Mmsghdr
	vectors  [batch]unix.Iovec
	control  [batch][controlSize]byte
	buffer   [batch][slotSize]byte
	name     rawAddr // of the first datagram's sender, after wantName

	num    uint32 // of the stream whose datagrams these are
	filled int    // messages of the last receive
	taken  uint32 // how many of them have been dealt with; changed with one store
}

func newReceiver() *receiver {
	r := new(receiver)
	r.prepare()
	return r
}

// prepare makes the receiver one that has received nothing.
func (r *receiver) prepare() {
	*r = receiver{}
	for i := range r.messages {
		r.vectors[i].Base = &r.buffer[i][0]
		r.vectors[i].SetLen(maxDatagram)
		m := &r.messages[i].Hdr
		m.Iov = &r.vectors[i]
		m.SetIovlen(1)
		m.Control = &r.control[i][0]
		m.SetControllen(controlSize)
	}
}

// wantName has the next receive ask for the first datagram's sender, or not:
// knowing it costs a twentieth of a datagram.
func (r *receiver) wantName(want bool) {
	h := &r.messages[0].Hdr
	h.Name, h.Namelen = nil, 0
	if want {
		h.Name, h.Namelen = &r.name[0], nameSize
	}
}

// receive takes what waits at a stream's fd, at most batch datagrams, and never
// waits itself. Say done of each once it is in other hands. The scheduler is not told of the system call: it is over in
// microseconds, and telling would cost as much as a packet.
func (r *receiver) receive(num uint32, fd int) (int, error) {
	for i := range r.filled {
		r.messages[i].Len = 0
	}
	r.num = num
	atomic.StoreUint32(&r.taken, 0) // behind the lengths: see untaken
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&r.messages[0])), batch, unix.MSG_DONTWAIT, 0, 0)
	if errno == 0 {
		r.filled = int(n)
		return int(n), nil
	}
	r.filled = 0
	if errno == unix.EAGAIN || errno == unix.EINTR {
		return 0, nil
	}
	return 0, errno
}

// done says that message i, and those before it, have been dealt with.
func (r *receiver) done(i int) { atomic.StoreUint32(&r.taken, uint32(i)+1) }

// untaken are the messages that the kernel has filled and nobody has dealt
// with, whatever instruction the receiver's process ended at.
func (r *receiver) untaken() (messages []int) {
	for i := int(atomic.LoadUint32(&r.taken)); i < batch; i++ {
		if r.messages[i].Len > 0 {
			messages = append(messages, i)
		}
	}
	return messages
}

// datagram is one received message. Its data is valid until the next receive.
type datagram struct {
	data      []byte
	arrival   int64 // Unix nanoseconds; 0: the kernel gave none
	drops     uint32
	dropsSet  bool
	truncated bool
}

// get reads message i and makes its place ready for the next receive.
func (r *receiver) get(i int) (d datagram) {
	m := &r.messages[i]
	d.data = r.buffer[i][:m.Len]
	d.truncated = m.Hdr.Flags&unix.MSG_TRUNC != 0
	control := r.control[i][:m.Hdr.Controllen]
	for len(control) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		if h.Len < unix.SizeofCmsghdr || h.Len > uint64(len(control)) {
			break
		}
		body := unsafe.Pointer(&control[unix.SizeofCmsghdr])
		switch {
		case h.Level != unix.SOL_SOCKET:
		case h.Type == unix.SCM_TIMESTAMPNS && h.Len >= unix.SizeofCmsghdr+16:
			t := (*unix.Timespec)(body)
			d.arrival = t.Sec*1e9 + t.Nsec
		case h.Type == unix.SO_RXQ_OVFL && h.Len >= unix.SizeofCmsghdr+4:
			d.drops, d.dropsSet = *(*uint32)(body), true
		}
		control = control[min((h.Len+7)&^7, uint64(len(control))):]
	}
	m.Hdr.SetControllen(controlSize)
	return d
}

// kernelDrops asks how many datagrams the kernel has dropped at fd; the
// counter that comes with datagrams lags behind when none follows.
func kernelDrops(fd int) (uint32, bool) {
	const dropsAt = 8 // SK_MEMINFO_DROPS
	var info [dropsAt + 1]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return info[dropsAt], errno == 0 && size == uint32(unsafe.Sizeof(info))
}

func inUse(err error) bool { return errors.Is(err, unix.EADDRINUSE) }
