// Package intake receives RTP: one UDP socket a channel, swept many at a
// time, every good datagram put in the journal as it came.
//
// Nothing is done for each packet but to read its twelve bytes of header,
// count it and copy it: no goroutine, timer, lock, map or allocation.
package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"tandem/recorder/journal"
)

// Config says where channels listen and how they are swept.
type Config struct {
	Host          netip.Addr    // to bind
	PortMin       int           // even; RTCP that is not muxed takes the odd port above
	PortMax       int           // even, the last one
	Tick          time.Duration // between two sweeps
	Shards        int           // sweeping goroutines; 0: one for each 5,000 of MaxChannels, at most one a core
	MaxChannels   int           // only to choose Shards by
	ReceiveBuffer int           // bytes the kernel may hold for one channel
	PacketRate    int           // packets a second that one channel may have; more is a flood

	Keeper Keeper    // of sockets; nil: they end with the process
	Unread time.Time // since when nobody has read the sockets that are inherited, or listened where they are not; zero: this is the first recorder
	Memory *os.File  // of what is being received, see flight.go; nil: it ends with the process
}

// DefaultConfig listens on loopback only. The packet rate is four times that
// of 20 ms packets.
func DefaultConfig() Config {
	return Config{
		Host:          netip.AddrFrom4([4]byte{127, 0, 0, 1}),
		PortMin:       20000,
		PortMax:       39998,
		Tick:          50 * time.Millisecond,
		MaxChannels:   5000,
		ReceiveBuffer: 512 << 10,
		PacketRate:    200,
	}
}

const channelsPerShard = 5000

func (c Config) validate() error {
	switch {
	case !c.Host.IsValid():
		return errors.New("host: want an address")
	case c.PortMin < 1 || c.PortMin%2 != 0 || c.PortMax%2 != 0 || c.PortMax < c.PortMin || c.PortMax > 65534:
		return fmt.Errorf("ports %d to %d: want even ones in order", c.PortMin, c.PortMax)
	case c.Tick <= 0 || c.ReceiveBuffer <= 0 || c.PacketRate <= 0 || c.Shards < 0:
		return errors.New("tick, receive buffer, packet rate: want more than nothing")
	}
	return nil
}

func (c Config) shards() int {
	if c.Shards > 0 {
		return c.Shards
	}
	return max(1, min((c.MaxChannels+channelsPerShard-1)/channelsPerShard, runtime.GOMAXPROCS(0)))
}

// Intake is all the channels that listen here. Its methods are safe for
// concurrent use, beside Run and before it: what arrives earlier waits in the
// kernel.
type Intake struct {
	cfg     Config
	shards  []*shard
	reports *reporter
	began   time.Time
	stamps  int // descriptor that keeps the kernel stamping datagrams

	mu        sync.RWMutex
	streams   map[uint32]*held
	ports     map[int]bool   // taken by us, until their sockets are closed
	next      int            // port to try first: one just closed may still be sent to
	inherited map[string]int // sockets, by name, that no channel has claimed yet
	reused    int            // those that one has
}

// held is an open stream and where it is.
type held struct {
	*stream
	shard   *shard
	control bool // a port for RTCP is open
}

// New makes an intake that puts its packets in w. What the one before it was
// receiving when it ended is put there at once.
func New(cfg Config, w *journal.Writer) (*Intake, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("configure intake: %w", err)
	}
	if cfg.Keeper == nil {
		cfg.Keeper = nobody{}
	}
	in := &Intake{cfg: cfg, began: time.Now(), streams: map[uint32]*held{}, ports: map[int]bool{}, next: cfg.PortMin, inherited: map[string]int{}}
	receivers, err := newReceivers(cfg, w)
	if err != nil {
		return nil, err
	}
	if in.stamps, err = startTimestamps(loopback(cfg.Host)); err != nil {
		return nil, err
	}
	if in.reports, err = newReporter(w, in.release, cfg.Keeper); err != nil {
		return nil, err
	}
	for n, r := range receivers {
		in.shards = append(in.shards, &shard{
			number: uint16(n), journal: w, reports: in.reports, receiver: r, tick: cfg.Tick, began: time.Now(),
		})
	}
	in.sayBuffers()
	return in, nil
}

// newReceivers makes one for each shard.
func newReceivers(cfg Config, w *journal.Writer) ([]*receiver, error) {
	n := cfg.shards()
	if cfg.Memory != nil {
		return receiversIn(cfg.Memory, n, w)
	}
	receivers := make([]*receiver, n)
	for i := range receivers {
		receivers[i] = newReceiver()
	}
	return receivers, nil
}

// sayBuffers warns of buffers that hold less than is wanted: packets that
// arrive while nobody reads, through a restart, wait nowhere else.
func (in *Intake) sayBuffers() {
	got, err := grantedBuffer(loopback(in.cfg.Host), in.cfg.ReceiveBuffer)
	switch {
	case err != nil:
		slog.Warn("receive buffers not measured", "err", err)
	case got < in.cfg.ReceiveBuffer:
		slog.Warn("receive buffers are smaller than rtp.receive_buffer: the kernel allows no more", "bytes", got, "want", in.cfg.ReceiveBuffer,
			"set", fmt.Sprintf("sysctl net.core.rmem_max=%d", in.cfg.ReceiveBuffer))
	}
}

// loopback is the local address of the same family.
func loopback(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// Run sweeps until ctx ends, then takes what waits in the kernel a last time
// and closes the sockets. The channels stay open in the journal: the next
// recorder goes on with them.
func (in *Intake) Run(ctx context.Context) error {
	var g errgroup.Group
	swept := make(chan struct{})
	g.Go(func() error { return in.reports.run(swept) })
	var shards errgroup.Group
	for i, sh := range in.shards {
		phase := time.Duration(i) * in.cfg.Tick / time.Duration(len(in.shards))
		shards.Go(func() error { sh.run(ctx, phase); return nil })
	}
	shards.Wait()
	close(swept)
	err := g.Wait()
	in.mu.Lock()
	defer in.mu.Unlock()
	clear(in.streams)
	unix.Close(in.stamps)
	return err
}

// Open listens for a channel on the given even port, or, with port 0, on any
// that is free, and returns the port. Media may arrive as soon as it answers.
func (in *Intake) Open(ch journal.Channel, port int) (int, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if _, ok := in.streams[ch.Num]; ok {
		return 0, fmt.Errorf("open channel %d: open already", ch.Num)
	}
	fd, port, inherited, err := in.listen(port)
	if err != nil {
		return 0, fmt.Errorf("open channel %d: %w", ch.Num, err)
	}
	s := &stream{fd: fd, num: ch.Num, port: port, limit: newLimit(in.cfg.PacketRate, rateBurst*in.cfg.PacketRate), payload: payloadOf(ch), counted: time.Now().UnixNano()}
	if inherited && !in.cfg.Unread.IsZero() {
		// The kernel's counter goes on, so that drops of before are noted
		// once more: of this time nobody else can say that there were none.
		s.counted = in.cfg.Unread.UnixNano()
	}
	sh := slices.MinFunc(in.shards, func(a, b *shard) int { return int(a.count.Load() - b.count.Load()) })
	sh.count.Add(1)
	in.streams[ch.Num] = &held{stream: s, shard: sh}
	unheard := in.unheard(ch, inherited, time.Now())
	sh.ask(func(sh *shard) {
		sh.pending = append(sh.pending, journal.Note{Opened: &ch})
		sh.pending = append(sh.pending, unheard...)
		sh.streams = append(sh.streams, s)
	})
	in.reports.add(s)
	return port, nil
}

// unheard notes what nobody can have heard of a channel that was open already
// when this process began, and whose socket ended with the one before.
func (in *Intake) unheard(ch journal.Channel, inherited bool, now time.Time) []journal.Note {
	if inherited || in.cfg.Unread.IsZero() || !ch.Opened.Before(in.began) {
		return nil
	}
	from := in.cfg.Unread
	if ch.Opened.After(from) {
		from = ch.Opened
	}
	return []journal.Note{{Unheard: &journal.Unheard{Num: ch.Num, From: from, To: now}}}
}

func payloadOf(ch journal.Channel) int {
	if ch.Codec == "" {
		return -1
	}
	return int(ch.PayloadType)
}

// listen binds the port, or the next free one when it is 0.
func (in *Intake) listen(port int) (fd, bound int, inherited bool, err error) {
	if port != 0 {
		return in.bind(port)
	}
	for range (in.cfg.PortMax-in.cfg.PortMin)/2 + 1 {
		port := in.next
		if in.next += 2; in.next > in.cfg.PortMax {
			in.next = in.cfg.PortMin
		}
		if in.ports[port] {
			continue
		}
		if fd, bound, inherited, err = in.bind(port); !inUse(err) {
			return fd, bound, inherited, err
		}
	}
	return -1, 0, false, fmt.Errorf("no free port from %d to %d", in.cfg.PortMin, in.cfg.PortMax)
}

func (in *Intake) bind(port int) (fd, bound int, inherited bool, err error) {
	fd, inherited, err = in.socket(nameRTP(port), port, in.cfg.ReceiveBuffer)
	if err != nil {
		return -1, 0, false, err
	}
	in.ports[port] = true
	if !inherited {
		in.cfg.Keeper.Keep(nameRTP(port), fd)
	}
	return fd, port, inherited, nil
}

// bindControl opens the RTCP port of a channel.
func (in *Intake) bindControl(port int) (fd int, err error) {
	fd, inherited, err := in.socket(nameRTCP(port), port, controlBuffer)
	if err == nil && !inherited && in.cfg.MaxChannels <= maxNamed {
		in.cfg.Keeper.Keep(nameRTCP(port), fd)
	}
	return fd, err
}

// release gives a port back; its sockets are closed.
func (in *Intake) release(port int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.ports, port)
}

// Update settles what the SIP answer said: the codec and payload type of ch,
// whether RTCP comes on the RTP port, and the address that the far end sends
// from (it may be empty). A port for RTCP is opened only if it is needed.
func (in *Intake) Update(ch journal.Channel, mux bool, remote string) error {
	var far netip.AddrPort
	if remote != "" {
		var err error
		if far, err = netip.ParseAddrPort(remote); err != nil {
			return fmt.Errorf("update channel %d: %w", ch.Num, err)
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	h, ok := in.streams[ch.Num]
	if !ok {
		return fmt.Errorf("update channel %d: not open", ch.Num)
	}
	s := h.stream
	h.shard.ask(func(sh *shard) {
		s.payload, s.mux = payloadOf(ch), mux
		sh.pending = append(sh.pending, journal.Note{Updated: &ch})
	})
	control := -1
	if !mux && !h.control {
		var err error
		if control, err = in.bindControl(s.port + 1); err != nil {
			// The audio matters more than what is said about it.
			slog.Warn("channel goes without RTCP", "channel", ch.ID, "err", err)
		}
	}
	h.control = !mux && (h.control || control >= 0)
	in.reports.settle(s, mux, control, far)
	return nil
}

// Close stops listening: what waits in the kernel is taken a last time, and
// the end is put in the journal. It returns at once; a number that is not
// open is ignored.
func (in *Intake) Close(num uint32, cause string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	h, ok := in.streams[num]
	if !ok {
		return
	}
	delete(in.streams, num)
	closing := &journal.Closed{Num: num, At: time.Now(), Cause: cause}
	h.shard.ask(func(sh *shard) {
		h.closing = closing
		sh.closing++
	})
}

// Stats is what a channel has had so far.
type Stats struct {
	Packets     uint64 // in the journal
	Lost        uint64 // by sequence number
	KernelDrops uint64 // datagrams that found the socket's buffer full
	Rejected    Rejected
	LastPacket  time.Time // arrival; zero: none yet
	SSRC        uint32    // of the sender that counts
	Source      netip.AddrPort
	LastReport  time.Time // arrival of its newest RTCP sender report; zero: none yet
	LastControl time.Time // arrival of its newest RTCP of any kind; zero: none yet
}

// Stats reads a channel's counters; they are at most a tick old.
func (in *Intake) Stats(num uint32) (Stats, bool) {
	in.mu.RLock()
	h, ok := in.streams[num]
	in.mu.RUnlock()
	if !ok {
		return Stats{}, false
	}
	s := &h.shown
	st := Stats{
		Packets: s.packets.Load(), Lost: s.lost.Load(), KernelDrops: s.drops.Load(), SSRC: s.ssrc.Load(),
		LastPacket: timeOf(s.last.Load()), LastReport: timeOf(s.report.Load()), LastControl: timeOf(s.control.Load()),
	}
	for why := range st.Rejected {
		st.Rejected[why] = s.rejected[why].Load()
	}
	if source := s.source.Load(); source != nil {
		st.Source = *source
	}
	return st, true
}

func timeOf(nanoseconds int64) time.Time {
	if nanoseconds == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds)
}

// Totals are of all channels since New, those closed included.
type Totals struct {
	Packets     uint64 // in the journal
	Bytes       uint64 // of those packets
	Lost        uint64 // by sequence number
	KernelDrops uint64 // datagrams that found a socket's buffer full
	Rejected    Rejected
	LateP99     time.Duration // how late sweeps began, over the last ten seconds
	LateMax     time.Duration // and ever
	SweepP99    time.Duration // how long sweeps took
	SweepMax    time.Duration
}

// Totals reads the counters; they are at most a tick old.
func (in *Intake) Totals() Totals {
	var t Totals
	var late, took []time.Duration
	now := time.Now()
	for _, sh := range in.shards {
		t.Packets += sh.shown.packets.Load()
		t.Bytes += sh.shown.bytes.Load()
		t.Lost += sh.shown.lost.Load()
		t.KernelDrops += sh.shown.drops.Load()
		for why := range t.Rejected {
			t.Rejected[why] += sh.shown.rejected[why].Load()
		}
		late, took = sh.timing.read(now, late, took)
		sh.timing.mu.Lock()
		t.LateMax, t.SweepMax = max(t.LateMax, sh.timing.lateMost), max(t.SweepMax, sh.timing.tookMost)
		sh.timing.mu.Unlock()
	}
	t.Rejected[Control] += in.reports.bad.Load()
	t.LateP99, t.SweepP99 = p99(late), p99(took)
	return t
}

// Pulse is what tells that an intake is alive, read from what its shards leave
// at their work.
type Pulse struct {
	Packets uint64        // as in Totals
	Talking int           // channels with a packet of RTP in the last 200 ms, as of the last whole sweep
	Unswept time.Duration // for which some shard has not got on; 0 before Run
	Running bool          // all shards have begun
}

// Pulse costs a few loads a shard, however many channels there are.
func (in *Intake) Pulse() (p Pulse) {
	p.Running = true
	for _, sh := range in.shards {
		p.Packets += sh.shown.packets.Load()
		p.Talking += int(sh.shown.talking.Load())
		if swept := sh.shown.swept.Load(); swept != 0 {
			p.Unswept = max(p.Unswept, time.Since(sh.began)-time.Duration(swept))
		} else {
			p.Running = false
		}
	}
	return p
}

func p99(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[(len(d)*99-1)/100]
}
