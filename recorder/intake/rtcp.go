package intake

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"golang.org/x/sys/unix"

	"tandem/recorder/journal"
)

const (
	// reportTick is how often RTCP is read and written. Nothing about it is
	// urgent: arrival times are the kernel's.
	reportTick = 100 * time.Millisecond
	// reportInterval is between two receiver reports of a channel (RFC 3550
	// 6.2 asks for five seconds at least). They are spread over it.
	reportInterval = 5 * time.Second
	// controlBuffer is what the kernel may hold for one RTCP port.
	controlBuffer = 64 << 10
	// controlQueue is how many RTCP packets from RTP ports may wait.
	controlQueue = 1024
	// maxControl is the longest RTCP packet worth reading.
	maxControl = 512
	// maxReports bounds the sender reports kept while the journal is behind.
	maxReports = 20_000
)

// reporter does all RTCP in one goroutine, off the packet path: it reads
// sender reports, wherever they arrive, and sends receiver reports.
// It closes the sockets of streams, so that it never sends on a descriptor
// that has become another channel's.
type reporter struct {
	journal *journal.Writer
	release func(port int)
	keeper  Keeper
	epoll   int
	name    string        // CNAME
	every   time.Duration // between two receiver reports of a channel
	heard   chan controlPacket
	bad     atomic.Uint64 // RTCP on ports of its own that was not kept

	mu    sync.Mutex
	inbox []func()

	// Owned by the goroutine.
	peers    []*peer
	byStream map[*stream]*peer
	byFD     map[int32]*peer
	receiver *receiver
	packet   []byte
	events   []unix.EpollEvent
	pending  []journal.Note
	cursor   int     // the peer to report to next
	due      float64 // reports due, of which whole ones are sent
}

// controlPacket is RTCP that arrived on an RTP port.
type controlPacket struct {
	stream  *stream
	arrival int64
	size    int
	data    [maxControl]byte
}

// peer is the far end of a stream.
type peer struct {
	stream  *stream
	control int // socket; -1: none
	settled bool
	mux     bool
	ssrc    uint32         // ours
	far     netip.AddrPort // where RTP is said to come from
	source  netip.AddrPort // where its sender reports come from, when on a port of their own
	budget  bucket
	name4   unix.SockaddrInet4 // what name returns, without allocating
	name6   unix.SockaddrInet6
	last    senderReport
	prior   prior
}

// senderReport is what the next receiver report says of the newest one.
type senderReport struct {
	ssrc    uint32
	middle  uint32 // of its NTP time
	arrival int64
}

// prior is what the last receiver report was made of.
type prior struct {
	ssrc               uint32
	expected, received uint64
}

func newReporter(w *journal.Writer, release func(int), k Keeper) (*reporter, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watch RTCP: %w", err)
	}
	var id [12]byte // RFC 7022 4.2: a name that says nothing
	rand.Read(id[:])
	return &reporter{
		journal: w, release: release, keeper: k, epoll: epoll, every: reportInterval, name: base64.StdEncoding.EncodeToString(id[:]),
		heard: make(chan controlPacket, controlQueue), receiver: newReceiver(),
		byStream: map[*stream]*peer{}, byFD: map[int32]*peer{},
	}, nil
}

func (r *reporter) ask(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inbox = append(r.inbox, f)
}

// add takes a stream in.
func (r *reporter) add(s *stream) {
	r.ask(func() {
		p := &peer{stream: s, control: -1, ssrc: randomSSRC()}
		r.peers = append(r.peers, p)
		r.byStream[s] = p
	})
}

func randomSSRC() uint32 {
	var b [4]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint32(b[:])
}

// settle says where the stream's RTCP is: muxed, or on the given socket
// (-1: the one it has, or none).
func (r *reporter) settle(s *stream, mux bool, control int, far netip.AddrPort) {
	r.ask(func() {
		p := r.byStream[s]
		if p == nil { // closed meanwhile
			closeFD(control)
			return
		}
		p.settled, p.mux, p.far = true, mux, far
		if mux && p.control >= 0 {
			r.keeper.Forget(nameRTCP(s.port + 1))
		}
		if mux || control >= 0 {
			r.unwatch(p)
		}
		if control < 0 {
			return
		}
		event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(control)}
		if err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, control, &event); err != nil {
			slog.Error("channel goes without RTCP", "channel", s.num, "err", err)
			closeFD(control)
			return
		}
		p.control = control
		r.byFD[int32(control)] = p
	})
}

// unwatch closes the peer's RTCP socket.
func (r *reporter) unwatch(p *peer) {
	if p.control < 0 {
		return
	}
	delete(r.byFD, int32(p.control))
	closeFD(p.control)
	p.control = -1
}

func closeFD(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}

// drop closes a stream's sockets. Its shard has read them for the last time.
func (r *reporter) drop(s *stream) {
	r.ask(func() {
		p := r.byStream[s]
		delete(r.byStream, s)
		r.peers = slices.DeleteFunc(r.peers, func(o *peer) bool { return o == p })
		r.keeper.Forget(nameRTCP(s.port + 1)) // first: whoever gets the port next may want both
		r.keeper.Forget(nameRTP(s.port))
		r.close(p)
	})
}

func (r *reporter) close(p *peer) {
	r.unwatch(p)
	closeFD(p.stream.fd)
	r.release(p.stream.port)
}

// hear takes RTCP that arrived on an RTP port. It never waits and does not
// keep data; what finds the queue full is counted.
func (r *reporter) hear(s *stream, data []byte, arrival int64) {
	c := controlPacket{stream: s, arrival: arrival, size: min(len(data), maxControl)}
	copy(c.data[:], data)
	select {
	case r.heard <- c:
	default:
		r.bad.Add(1)
	}
}

// run works until swept is closed, and then closes every socket; those that
// are kept stay so.
func (r *reporter) run(swept <-chan struct{}) error {
	r.serve(swept)
	for _, p := range r.peers {
		r.close(p)
	}
	return unix.Close(r.epoll)
}

// serve reads and writes RTCP until stop is closed.
func (r *reporter) serve(stop <-chan struct{}) {
	ticker := time.NewTicker(reportTick)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case now := <-ticker.C:
			r.work(now, now.Sub(last))
			last = now
		case <-stop:
			r.work(time.Now(), 0)
			return
		}
	}
}

func (r *reporter) work(now time.Time, passed time.Duration) {
	r.obey()
	for range len(r.heard) {
		c := <-r.heard
		if p := r.byStream[c.stream]; p != nil {
			r.listen(p, c.data[:c.size], c.arrival)
		}
	}
	r.readPorts(now)
	r.report(now, passed)
	r.flush()
}

func (r *reporter) obey() {
	r.mu.Lock()
	inbox := r.inbox
	r.inbox = nil
	r.mu.Unlock()
	for _, f := range inbox {
		f()
	}
}

// readPorts takes one batch from each RTCP port that has something. It does
// not wait for more: a flood there costs a batch a tick.
func (r *reporter) readPorts(now time.Time) {
	if len(r.byFD) == 0 {
		return
	}
	if len(r.events) < len(r.byFD) {
		r.events = make([]unix.EpollEvent, 2*len(r.byFD))
	}
	n, err := unix.EpollWait(r.epoll, r.events, 0)
	if err != nil && !errors.Is(err, unix.EINTR) {
		slog.Error("RTCP not read", "err", err)
		return
	}
	for _, e := range r.events[:max(n, 0)] {
		if p := r.byFD[e.Fd]; p != nil {
			r.readPort(p, now)
		}
	}
}

func (r *reporter) readPort(p *peer, now time.Time) {
	r.receiver.wantName(true)
	n, err := r.receiver.receive(p.stream.num, p.control)
	if err != nil {
		slog.Error("RTCP not read", "channel", p.stream.num, "err", err)
		return
	}
	if source, ok := r.receiver.name.addrPort(); ok && n > 0 {
		p.source = source
	}
	for i := range n {
		d := r.receiver.get(i)
		if d.arrival == 0 {
			d.arrival = now.UnixNano()
		}
		if d.truncated || !p.budget.take(d.arrival, controlLimit) {
			r.reject(p)
			continue
		}
		r.listen(p, d.data, d.arrival)
	}
}

func (r *reporter) reject(p *peer) {
	r.bad.Add(1)
	p.stream.shown.rejected[Control].Add(1)
}

// listen reads one compound packet for its sender report.
func (r *reporter) listen(p *peer, data []byte, arrival int64) {
	packets, err := rtcp.Unmarshal(data)
	if err != nil {
		r.reject(p)
		return
	}
	p.stream.shown.control.Store(arrival)
	for _, packet := range packets {
		sr, ok := packet.(*rtcp.SenderReport)
		if !ok {
			continue
		}
		if shown := &p.stream.shown; shown.latched.Load() && shown.ssrc.Load() != sr.SSRC {
			r.reject(p) // somebody else's clock
			continue
		}
		p.last = senderReport{ssrc: sr.SSRC, middle: uint32(sr.NTPTime >> 16), arrival: arrival}
		p.stream.shown.report.Store(arrival)
		r.pending = append(r.pending, journal.Note{Reported: &journal.Reported{
			Num: p.stream.num, SSRC: sr.SSRC, NTP: sr.NTPTime, RTP: sr.RTPTime, Arrival: arrival,
		}})
	}
}

// report sends the receiver reports that are due after so much time.
func (r *reporter) report(now time.Time, passed time.Duration) {
	if len(r.peers) == 0 {
		return
	}
	r.due += float64(len(r.peers)) * passed.Seconds() / r.every.Seconds()
	r.due = min(r.due, float64(len(r.peers)))
	for ; r.due >= 1; r.due-- {
		r.cursor = (r.cursor + 1) % len(r.peers)
		r.reportTo(r.peers[r.cursor], now)
	}
}

// reportTo sends one receiver report to where the stream comes from. One that
// cannot be sent now is not worth an error: the next is five seconds away.
func (r *reporter) reportTo(p *peer, now time.Time) {
	fd, to := p.address()
	if fd < 0 || !to.IsValid() {
		return
	}
	r.packet = appendReport(r.packet[:0], p.ssrc, p.receptionReport(now), r.name)
	unix.Sendto(fd, r.packet, unix.MSG_DONTWAIT, p.name(to))
}

// name is the address as a system call wants it, valid until the next call.
func (p *peer) name(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		p.name4.Port, p.name4.Addr = int(a.Port()), a.Addr().As4()
		return &p.name4
	}
	p.name6.Port, p.name6.Addr = int(a.Port()), a.Addr().As16()
	return &p.name6
}

// address is the socket to report from and the far end's RTCP address.
func (p *peer) address() (int, netip.AddrPort) {
	far := p.far
	if source := p.stream.shown.source.Load(); source != nil {
		far = *source
	}
	switch {
	case !p.settled:
		return -1, netip.AddrPort{}
	case p.mux:
		return p.stream.fd, far
	case p.source.IsValid():
		return p.control, p.source
	case far.IsValid():
		return p.control, netip.AddrPortFrom(far.Addr(), far.Port()+1)
	}
	return -1, netip.AddrPort{}
}

// reception is the report block of RFC 3550 6.4.1.
type reception struct {
	ssrc      uint32
	fraction  uint8
	lost      uint32 // 24 bits
	highest   uint32
	jitter    uint32
	lastSR    uint32
	delay     uint32 // since lastSR, in 65536ths of a second
	something bool   // false: nothing arrived since the last report
}

// receptionReport says how the stream arrives (RFC 3550 6.4.1, A.3).
func (p *peer) receptionReport(now time.Time) reception {
	shown := &p.stream.shown
	next := prior{ssrc: shown.ssrc.Load(), expected: shown.expected.Load(), received: shown.received.Load()}
	if p.prior.ssrc != next.ssrc || next.received < p.prior.received {
		p.prior = prior{ssrc: next.ssrc}
	}
	if next.received == p.prior.received {
		return reception{}
	}
	b := reception{
		ssrc:      next.ssrc,
		fraction:  fractionLost(next.expected-p.prior.expected, next.received-p.prior.received),
		lost:      uint32(min(max(0, int64(next.expected)-int64(next.received)), 0x7fffff)),
		highest:   shown.highest.Load(),
		jitter:    shown.jitter.Load(),
		something: true,
	}
	if p.last.ssrc == next.ssrc && p.last.arrival != 0 {
		b.lastSR = p.last.middle
		b.delay = uint32(max(0, now.UnixNano()-p.last.arrival) * 65536 / int64(time.Second))
	}
	p.prior = next
	return b
}

// appendReport appends the compound packet of a receiver: RR (RFC 3550 6.4.2),
// and SDES with the CNAME, which every compound packet carries (6.1).
func appendReport(b []byte, ssrc uint32, r reception, name string) []byte {
	if r.something {
		b = append(b, 0x81, 201, 0, 7) // version 2, one block, 8 words
		b = binary.BigEndian.AppendUint32(b, ssrc)
		b = binary.BigEndian.AppendUint32(b, r.ssrc)
		b = binary.BigEndian.AppendUint32(b, uint32(r.fraction)<<24|r.lost)
		b = binary.BigEndian.AppendUint32(b, r.highest)
		b = binary.BigEndian.AppendUint32(b, r.jitter)
		b = binary.BigEndian.AppendUint32(b, r.lastSR)
		b = binary.BigEndian.AppendUint32(b, r.delay)
	} else {
		b = append(b, 0x80, 201, 0, 1)
		b = binary.BigEndian.AppendUint32(b, ssrc)
	}
	begin := len(b)
	b = append(b, 0x81, 202, 0, 0)
	b = binary.BigEndian.AppendUint32(b, ssrc)
	b = append(b, 1, byte(len(name))) // item CNAME
	b = append(b, name...)
	for ok := true; ok; ok = (len(b)-begin)%4 != 0 { // one null octet ends the list, more fill the word
		b = append(b, 0)
	}
	binary.BigEndian.PutUint16(b[begin+2:], uint16((len(b)-begin)/4-1))
	return b
}

// fractionLost is in 256ths, 0 when duplicates outnumber what is missing.
func fractionLost(expected, received uint64) uint8 {
	if expected == 0 || received >= expected {
		return 0
	}
	return uint8(min(255, (expected-received)<<8/expected))
}

// flush gives the sender reports to the journal; while it is behind the
// newest are kept.
func (r *reporter) flush() {
	if len(r.pending) == 0 {
		return
	}
	err := r.journal.Note(r.pending...)
	if errors.Is(err, journal.ErrFull) {
		r.pending = r.pending[max(0, len(r.pending)-maxReports):]
		return
	}
	if err != nil {
		slog.Error("sender reports lost", "reports", len(r.pending), "err", err)
	}
	r.pending = r.pending[:0]
}
