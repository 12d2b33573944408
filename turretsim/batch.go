package turretsim

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	batchSize = 256 // datagrams in one sendmmsg
	roomEach  = 256 // bytes; the longest we send is an SR with its SDES
)

// peer is a destination as the kernel wants it.
type peer struct {
	addr netip.AddrPort
	raw  [unix.SizeofSockaddrInet6]byte
	len  uint32
}

// newPeer fits the address to a socket of that family.
func newPeer(addr netip.AddrPort) peer {
	p := peer{addr: addr}
	port := addr.Port()
	if addr.Addr().Unmap().Is4() {
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&p.raw))
		sa.Family, sa.Addr = unix.AF_INET, addr.Addr().Unmap().As4()
		sa.Port = networkOrder(port)
		p.len = unix.SizeofSockaddrInet4
		return p
	}
	sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(&p.raw))
	sa.Family, sa.Addr = unix.AF_INET6, addr.Addr().As16()
	sa.Port = networkOrder(port)
	p.len = unix.SizeofSockaddrInet6
	return p
}

// networkOrder stores a port as the kernel reads it, big end first.
func networkOrder(port uint16) uint16 {
	b := [2]byte{byte(port >> 8), byte(port)}
	return *(*uint16)(unsafe.Pointer(&b))
}

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// batch gathers datagrams for one socket and sends them with one system call.
// It never allocates after newBatch. One goroutine at a time.
type batch struct {
	raw     syscall.RawConn
	send    func(fd uintptr) bool // made once: a closure each time would be garbage
	headers [batchSize]mmsghdr
	iovecs  [batchSize]unix.Iovec
	room    [batchSize][roomEach]byte
	n       int // filled
	sent    int // of these, during a flush
	failure error

	datagrams uint64 // sent since newBatch
	failed    uint64 // refused by the kernel
}

func newBatch(conn *net.UDPConn) (*batch, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reach socket %s: %w", conn.LocalAddr(), err)
	}
	b := &batch{raw: raw}
	for i := range b.headers {
		b.iovecs[i].Base = &b.room[i][0]
		b.headers[i].hdr.Iov = &b.iovecs[i]
		b.headers[i].hdr.SetIovlen(1)
	}
	b.send = b.sendmmsg
	return b, nil
}

// next is the room for one datagram to that peer; commit it with its length.
func (b *batch) next(to *peer) []byte {
	if b.n == batchSize {
		b.flush()
	}
	header := &b.headers[b.n].hdr
	header.Name, header.Namelen = &to.raw[0], to.len
	return b.room[b.n][:]
}

func (b *batch) commit(length int) {
	b.iovecs[b.n].SetLen(length)
	b.n++
}

// flush sends everything gathered. A datagram that the kernel refuses is
// counted and passed over: one bad destination must not hold up the rest.
func (b *batch) flush() {
	for b.sent = 0; b.sent < b.n; {
		if err := b.raw.Write(b.send); err != nil {
			b.failed += uint64(b.n - b.sent) // the socket is closed
			break
		}
		if b.failure != nil {
			b.failed++
			b.sent++
		}
	}
	b.n = 0
}

// sendmmsg sends what it can; false asks to be called again when the socket
// has room.
func (b *batch) sendmmsg(fd uintptr) bool {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&b.headers[b.sent])), uintptr(b.n-b.sent), 0, 0, 0)
		switch {
		case errno == 0:
			b.sent += int(n)
			b.datagrams += uint64(n)
			b.failure = nil
			return true
		case errno == unix.EAGAIN:
			return false
		case errno != unix.EINTR:
			b.failure = errno
			return true
		}
	}
}

// listenPair binds an RTP socket on an even port and an RTCP socket on the
// next (RFC 3550 11). Port 0 looks for a free pair.
func listenPair(ip netip.Addr, port uint16) (rtp, rtcp *net.UDPConn, err error) {
	const tries = 100
	for range tries {
		if rtp, err = listenUDP(ip, port); err != nil {
			return nil, nil, err
		}
		got := addrOf(rtp).Port()
		if got%2 == 0 && got < 65535 {
			if rtcp, err = listenUDP(ip, got+1); err == nil {
				return rtp, rtcp, nil
			}
		}
		rtp.Close()
		if port != 0 {
			return nil, nil, errors.Join(fmt.Errorf("bind RTP ports %d and %d", port, port+1), err)
		}
	}
	return nil, nil, fmt.Errorf("bind RTP: no free pair of ports in %d tries", tries)
}

func listenUDP(ip netip.Addr, port uint16) (*net.UDPConn, error) {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, port)))
	if err != nil {
		return nil, fmt.Errorf("bind RTP: %w", err)
	}
	// Best effort: the kernel caps it at net.core.wmem_max.
	_ = conn.SetWriteBuffer(4 << 20)
	return conn, nil
}

func addrOf(conn *net.UDPConn) netip.AddrPort { return conn.LocalAddr().(*net.UDPAddr).AddrPort() }
