package intake

import (
	"math"
	"net/netip"
	"sync/atomic"
	"time"

	"tandem/internal/call"
	"tandem/recorder/journal"
)

// Limits of RFC 3550 A.1, and the shortest packet that bears out a jump.
const (
	maxDropout  = 3000
	maxMisorder = 100
	minFrame    = 80 // samples: 10 ms at 8 kHz
)

const (
	// silentBefore is how long the latched sender must be silent before
	// another one takes its place.
	silentBefore = int64(200 * time.Millisecond)
	// persists is how long another sender must outnumber the latched one.
	persists = int64(400 * time.Millisecond)
	// A restart may overlap the old sender by foreignBurst packets; after
	// that a second sender is heard once a second.
	foreignBurst = 20
	foreignRate  = 1
	// RTCP comes every five seconds (RFC 3550 6.2).
	controlBurst = 10
	controlRate  = 5
	// A sender that was held up may send so many seconds' worth of a
	// channel's rate limit at once.
	rateBurst = 2
)

// stream is one channel's socket and what is known of its RTP. It belongs to
// its shard; others read only shown and what never changes.
type stream struct {
	fd      int
	num     uint32
	port    int
	limit   limit // of the bucket below
	payload int   // negotiated payload type; -1: not settled
	mux     bool  // RTCP comes here, too

	ssrc    uint32
	latched bool
	last    int64 // arrival of the newest packet of ssrc
	seen    int64 // arrival of the newest datagram of any kind
	rate    bucket
	count   counter

	foreign  bucket
	control  bucket
	rival    rival
	kernel   uint32 // SO_RXQ_OVFL as last read
	counted  int64  // until when kernel is all that was dropped
	source   rawAddr
	sourced  bool   // source is known
	total    uint64 // packets kept
	lostPast uint64 // lost by earlier senders

	dropped [drops]tally
	noted   bool // in the shard's list of streams with something dropped
	closing *journal.Closed
	failed  bool // said so

	shown shown
}

// shown is what others may read of a stream at any time; the shard writes it
// once a sweep.
type shown struct {
	packets  atomic.Uint64
	lost     atomic.Uint64
	last     atomic.Int64
	ssrc     atomic.Uint32
	latched  atomic.Bool
	drops    atomic.Uint64
	rejected [reasons]atomic.Uint64
	source   atomic.Pointer[netip.AddrPort] // of the sender that counts
	report   atomic.Int64                   // arrival of its newest sender report; the reporter writes it
	control  atomic.Int64                   // arrival of its newest RTCP; the reporter writes it

	// What a receiver report says of ssrc (RFC 3550 6.4.1).
	highest  atomic.Uint32
	expected atomic.Uint64
	received atomic.Uint64
	jitter   atomic.Uint32
}

// counter follows one sender's sequence numbers (RFC 3550 A.1, A.3, A.8).
type counter struct {
	begun     bool
	sequence  uint16 // highest
	cycles    uint32
	timestamp uint32 // of the packet with the highest sequence number
	transit   uint32
	jitter    uint32 // scaled by 16
	expected  uint64
	received  uint64
	past      uint64 // lost before the sender jumped
}

func (c *counter) lost() uint64 {
	if c.received >= c.expected { // duplicates
		return c.past
	}
	return c.past + c.expected - c.received
}

// push counts a packet; arrival is in Unix nanoseconds.
func (c *counter) push(h header, arrival int64) {
	transit := uint32(arrival/(1e9/8000)) - h.timestamp
	if !c.begun {
		*c = counter{begun: true, sequence: h.sequence, timestamp: h.timestamp, transit: transit, expected: 1, received: 1, past: c.past}
		return
	}
	ahead := h.sequence - c.sequence
	switch {
	case ahead == 0:
	case ahead <= maxDropout, ahead < 0x8000 && h.timestamp-c.timestamp >= uint32(ahead)*minFrame:
		if h.sequence < c.sequence {
			c.cycles += 1 << 16
		}
		c.sequence, c.timestamp = h.sequence, h.timestamp
		c.expected += uint64(ahead)
	case -ahead > maxMisorder:
		c.past, c.begun = c.lost(), false
		c.push(h, arrival)
		return
	}
	c.received++
	delta := int32(transit - c.transit)
	c.transit = transit
	if delta < 0 {
		delta = -delta
	}
	c.jitter += uint32(delta) - (c.jitter+8)>>4
}

// limit is a rate that a bucket keeps.
type limit struct {
	interval int64 // nanoseconds a packet
	depth    int64 // nanoseconds a burst
}

func newLimit(perSecond, burst int) limit {
	interval := int64(time.Second) / int64(perSecond)
	return limit{interval: interval, depth: interval * int64(burst)}
}

var (
	foreignLimit = newLimit(foreignRate, foreignBurst)
	controlLimit = newLimit(controlRate, controlBurst)
)

// bucket is the time at which it will be empty again (the generic cell rate
// algorithm). It runs on arrival times, so that what waited in the kernel is
// judged by when it came.
type bucket int64

func (b *bucket) take(arrival int64, l limit) bool {
	ahead := int64(*b) - arrival
	if ahead > l.depth {
		if ahead <= l.depth+l.interval+int64(100*time.Millisecond) {
			return false
		}
		ahead = 0 // further ahead than it can be: the clock was set back
	}
	*b = bucket(arrival + max(0, ahead) + l.interval)
	return true
}

// rival is another sender that may have taken the latched one's place.
type rival struct {
	ssrc    uint32
	since   int64
	packets uint64
	own     uint64 // packets kept of the channel when it appeared
}

// admit decides whether a packet is kept, and counts it if so.
func (s *stream) admit(h header, arrival int64) Reason {
	if int(h.payloadType) != s.payload && s.payload >= 0 && h.payloadType != comfortNoise {
		return PayloadType
	}
	if h.ssrc == s.ssrc && s.latched {
		if !s.rate.take(arrival, s.limit) {
			return Flood
		}
		s.keep(h, arrival)
		return accepted
	}
	return s.admitForeign(h, arrival)
}

func (s *stream) keep(h header, arrival int64) {
	s.count.push(h, arrival)
	s.last = arrival
	s.total++
}

// admitForeign decides on a packet of a sender that is not the latched one: a
// switch that restarts a stream must be recorded from its first packet, and
// somebody else's packets must not drown the stream.
func (s *stream) admitForeign(h header, arrival int64) Reason {
	if !s.latched || s.replaces(h, arrival) {
		s.latch(h, arrival)
		s.foreign = 0 // what it was heard by until now is there for the next one
		return accepted
	}
	if !s.foreign.take(arrival, foreignLimit) {
		return ForeignSSRC
	}
	s.total++
	return accepted
}

func (s *stream) latch(h header, arrival int64) {
	s.lostPast += s.count.lost()
	s.count = counter{}
	s.ssrc, s.latched = h.ssrc, true
	s.rate.take(arrival, s.limit)
	s.keep(h, arrival)
}

// replaces says whether the sender of h has taken the latched one's place: for
// a while it has sent no more than a stream may, and the latched one nothing,
// or less than half of that. A flood never does, however long it drowns the
// stream.
func (s *stream) replaces(h header, arrival int64) bool {
	r := &s.rival
	if r.ssrc != h.ssrc || r.packets == 0 {
		*r = rival{ssrc: h.ssrc, since: arrival, packets: 1, own: s.count.received}
		return false
	}
	r.packets++
	window := arrival - r.since
	own := s.count.received - r.own
	if window < persists && (own > 0 || window < silentBefore) {
		return false
	}
	sane := int64(r.packets)*s.limit.interval <= window
	wins := sane && r.packets >= 2*own
	*r = rival{}
	return wins
}

// reject counts a datagram that is not kept, and notes those that a listener
// might miss.
func (s *stream) reject(why Reason, arrival int64) {
	s.shown.rejected[why].Add(1)
	switch why {
	case Flood:
		s.dropped[dropFlood].add(s.seen, arrival, 1)
	case ForeignSSRC:
		s.dropped[dropForeign].add(s.seen, arrival, 1)
	}
}

// lost is by sequence number, of all senders so far.
func (s *stream) lost() uint64 { return s.lostPast + s.count.lost() }

// show publishes the counters; call it once a sweep.
func (s *stream) show() {
	s.shown.packets.Store(s.total)
	s.shown.last.Store(s.last)
	s.shown.highest.Store(s.count.cycles | uint32(s.count.sequence))
	s.shown.expected.Store(s.count.expected)
	s.shown.received.Store(s.count.received)
	s.shown.jitter.Store(s.count.jitter >> 4)
	s.shown.lost.Store(s.lost())
	if s.ssrc != s.shown.ssrc.Load() || s.latched != s.shown.latched.Load() {
		s.shown.ssrc.Store(s.ssrc)
		s.shown.latched.Store(s.latched)
	}
}

// drop is a kind of loss on this machine.
type drop uint8

const (
	dropOverflow drop = iota // kernel buffer full, and nobody held the shard up
	dropDisk                 // kernel buffer full while the journal took nothing
	dropFlood
	dropForeign
	drops
)

var dropCauses = [drops]struct {
	cause  call.Cause
	why    string
	unseen bool
}{
	dropOverflow: {call.CauseLoss, "socket buffer overflow", true},
	dropDisk:     {call.CauseDisk, "socket buffer overflow while the journal was behind", true},
	dropFlood:    {call.CauseLoss, "more packets than the stream can have", false},
	dropForeign:  {call.CauseLoss, "packets of a second sender", false},
}

// tally is how many datagrams were dropped, and between which arrivals.
type tally struct {
	from, to int64
	packets  uint64
}

func (t *tally) add(from, to int64, packets uint64) {
	if t.packets == 0 {
		t.from, t.to = math.MaxInt64, 0
	}
	if from == 0 {
		from = to
	}
	t.from, t.to = min(t.from, from), max(t.to, to)
	t.packets += packets
}

// takeDropped moves what was dropped into notes.
func (s *stream) takeDropped(notes []journal.Note) []journal.Note {
	for kind := range s.dropped {
		t := &s.dropped[kind]
		if t.packets == 0 {
			continue
		}
		c := dropCauses[kind]
		notes = append(notes, journal.Note{Dropped: &journal.Dropped{
			Num: s.num, From: time.Unix(0, t.from), To: time.Unix(0, t.to), Packets: t.packets, Cause: c.cause, Why: c.why, Unseen: c.unseen,
		}})
		*t = tally{}
	}
	return notes
}
