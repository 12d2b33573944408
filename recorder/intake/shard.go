package intake

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tandem/recorder/journal"
)

const (
	// perSweep bounds what one socket may cost a sweep: a flood on one port
	// takes a share of the machine that does not grow with it.
	perSweep = 64
	// perClose bounds the last sweep of a socket: more than a full buffer.
	perClose = 8192
	// crowd is how many datagrams of one socket a sweep finds before the kernel
	// is asked what it dropped: a buffer that was full held more.
	crowd = 8
	// noteEvery is how often losses are put in the journal.
	noteEvery = time.Second
	// worstBatch is the room that one receive may need in a block.
	worstBatch = batch * (maxDatagram + journal.PacketOverhead)
	// sourceEvery is how often, in sweeps, the sender's address is looked at.
	sourceEvery = 16
	// stallJoin is the pause between two stalls that are taken for one.
	stallJoin = int64(2 * time.Second)
	// talkTime is how old the newest packet of a channel that talks may be.
	talkTime = int64(200 * time.Millisecond)
	// markEvery is how many sockets are swept between two marks: a sweep that
	// finds seconds of packets is long, and no standstill.
	markEvery = 64
)

// shard sweeps its sockets, one after the other, in one goroutine.
type shard struct {
	number   uint16
	journal  *journal.Writer
	reports  *reporter
	receiver *receiver
	tick     time.Duration

	mu    sync.Mutex
	inbox []func(*shard) // what others want done between two sweeps
	asked atomic.Bool    // there is something in inbox

	// Owned by the goroutine.
	streams  []*stream
	resume   int // where a sweep that ran out of room goes on
	draft    *journal.Draft
	pending  []journal.Note
	noted    []*stream // with something dropped
	notedAt  int64
	closing  int   // streams whose last sweep is due
	stall    tally // the latest time the journal took nothing
	stalled  bool  // the last sweep did not get through
	ending   bool  // the sweep is the last one: all sockets will close
	sweeps   int
	totals   Totals
	rejected Rejected

	began  time.Time // what shown.swept counts from
	shown  shownTotals
	timing timing
	count  atomic.Int64 // streams, those on their way in included
}

// shownTotals is Totals as others may read it.
type shownTotals struct {
	packets, bytes, lost, drops atomic.Uint64
	rejected                    [reasons]atomic.Uint64
	talking                     atomic.Int64
	swept                       atomic.Int64 // when the shard last got on, since began; 0: it does not run yet
}

// ask has f done by the shard before its next sweep.
func (sh *shard) ask(f func(*shard)) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.inbox = append(sh.inbox, f)
	sh.asked.Store(true)
}

func (sh *shard) obey() {
	if !sh.asked.Load() {
		return
	}
	sh.mu.Lock()
	inbox := sh.inbox
	sh.inbox = nil
	sh.asked.Store(false)
	sh.mu.Unlock()
	for _, f := range inbox {
		f(sh)
	}
}

// run sweeps every tick until ctx ends, and once more then.
func (sh *shard) run(ctx context.Context, phase time.Duration) {
	sh.mark()
	next := time.Now().Add(phase)
	timer := time.NewTimer(phase)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			sh.ending = true
			sh.sweep(time.Now())
			sh.note()
			sh.flush()
			return
		}
		began := time.Now()
		sh.sweep(began)
		ended := time.Now()
		sh.timing.add(ended, began.Sub(next), ended.Sub(began))
		next = next.Add(sh.tick)
		if next.Before(ended) {
			next = ended // what is late is not made up for: the sweep took all there was
		}
		timer.Reset(next.Sub(ended))
	}
}

// sweep takes what has arrived on every socket and gives it to the journal.
// While the journal takes nothing the sockets are left alone: what arrives
// waits in the kernel's buffers.
func (sh *shard) sweep(now time.Time) {
	sh.obey()
	at := now.UnixNano()
	if at-sh.notedAt >= int64(noteEvery) {
		sh.note()
		sh.notedAt = at
	}
	if sh.stalled {
		sh.stall.to = at // the sockets were left alone until now
	}
	if !sh.flush() || !sh.sweepAll(at) {
		sh.hold(at)
	} else {
		sh.release()
		sh.settle()
	}
	sh.show()
	sh.sweeps++
}

// sweepAll drains every socket, beginning where the last sweep ran out of
// room; it returns false when it does, too.
func (sh *shard) sweepAll(at int64) bool {
	defer sh.deliver()
	if !sh.room() {
		return false
	}
	first, talking := min(sh.resume, len(sh.streams)), int64(0)
	for n := range sh.streams {
		i := (first + n) % len(sh.streams)
		if !sh.drain(sh.streams[i], at) {
			sh.resume = i
			return false
		}
		if at-sh.streams[i].last < talkTime {
			talking++
		}
		if n%markEvery == 0 {
			sh.mark()
		}
	}
	sh.resume = 0
	sh.shown.talking.Store(talking)
	return true
}

// mark leaves word that the shard gets on with its work.
func (sh *shard) mark() { sh.shown.swept.Store(int64(time.Since(sh.began))) }

// hold remembers that the journal took nothing at this time.
func (sh *shard) hold(at int64) {
	if at-sh.stall.to > stallJoin {
		sh.stall.from = at
	}
	sh.stall.to = at
	if !sh.stalled {
		slog.Warn("journal is behind; packets wait in the kernel", "shard", sh.number, "err", sh.journal.Err())
	}
	sh.stalled = true
}

// release says that the journal takes packets.
func (sh *shard) release() {
	if sh.stalled {
		slog.Info("journal takes packets again", "shard", sh.number)
	}
	sh.stalled = false
}

// room makes sure that the block in hand takes whatever one receive brings.
func (sh *shard) room() bool {
	if sh.draft != nil && sh.draft.Room() >= worstBatch {
		return true
	}
	sh.deliver()
	sh.draft = sh.journal.Draft(sh.number)
	return sh.draft != nil
}

// deliver gives the block in hand to the journal.
func (sh *shard) deliver() {
	if sh.draft != nil {
		sh.journal.Append(sh.draft)
		sh.draft = nil
	}
}

// drain takes what waits on one socket, within bounds. It returns false when
// the journal has no room.
func (sh *shard) drain(s *stream, at int64) bool {
	bound := perSweep
	if s.closing != nil || sh.ending {
		bound = perClose
	}
	var taken int
	var full bool
	lost := s.lost()
	for taken < bound {
		if full = !sh.room(); full {
			break
		}
		named := taken == 0 && (sh.sweeps%sourceEvery == 0 || !s.sourced)
		sh.receiver.wantName(named)
		n, err := sh.receiver.receive(s.num, s.fd)
		if err != nil {
			sh.fail(s, err)
			break
		}
		for i := range n {
			sh.take(s, i, named && i == 0, at)
			sh.receiver.done(i)
		}
		taken += n
		if n < batch {
			break
		}
	}
	if taken > 0 {
		sh.totals.Lost += s.lost() - lost
		s.show()
	}
	if taken >= crowd {
		sh.askDrops(s)
	} else if !full {
		s.counted = max(s.counted, at)
	}
	return !full
}

// fail says once that a socket cannot be read.
func (sh *shard) fail(s *stream, err error) {
	if !s.failed {
		slog.Error("socket not read", "channel", s.num, "err", err)
	}
	s.failed = true
}

// take decides on one datagram.
func (sh *shard) take(s *stream, i int, named bool, now int64) {
	d := sh.receiver.get(i)
	if d.arrival == 0 {
		d.arrival = now
	}
	if d.dropsSet {
		sh.overflowed(s, d.drops, d.arrival)
	}
	s.counted = max(s.counted, d.arrival)
	if why := sh.judge(s, d, named); why != accepted {
		sh.reject(s, why, d.arrival)
	}
	s.seen = d.arrival
}

// judge keeps a datagram or says why not; named: its sender's address is known.
func (sh *shard) judge(s *stream, d datagram, named bool) Reason {
	if d.truncated {
		return Truncated
	}
	if isControl(d.data) && (s.mux || s.payload < 0) {
		if !s.control.take(d.arrival, controlLimit) {
			return Control
		}
		sh.reports.hear(s, d.data, d.arrival)
		return accepted
	}
	h, why := parseHeader(d.data)
	if why != accepted {
		return why
	}
	if why := s.admit(h, d.arrival); why != accepted {
		return why
	}
	if named && h.ssrc == s.ssrc {
		sh.follow(s)
	}
	sh.totals.Packets++
	sh.totals.Bytes += uint64(len(d.data))
	sh.put(s, d)
	return accepted
}

// put adds the datagram to the block in hand, which has room for it unless
// the clock was set since the block began.
func (sh *shard) put(s *stream, d datagram) {
	if sh.draft.Add(s.num, d.arrival, d.data) {
		return
	}
	sh.deliver()
	if !sh.room() || !sh.draft.Add(s.num, d.arrival, d.data) {
		s.dropped[dropDisk].add(s.seen, d.arrival, 1)
		sh.noteDrops(s)
	}
}

func (sh *shard) reject(s *stream, why Reason, arrival int64) {
	s.reject(why, arrival)
	sh.rejected[why]++
	if why == Flood || why == ForeignSSRC {
		sh.noteDrops(s)
	}
}

// follow keeps the address that the latched sender sends from.
func (sh *shard) follow(s *stream) {
	s.sourced = true
	if sh.receiver.name == s.source {
		return
	}
	s.source = sh.receiver.name
	if addr, ok := s.source.addrPort(); ok {
		s.shown.source.Store(&addr)
	}
}

// askDrops asks what the kernel has dropped until now: a datagram tells only
// of those before it.
func (sh *shard) askDrops(s *stream) {
	now := time.Now().UnixNano()
	if drops, ok := kernelDrops(s.fd); ok {
		sh.overflowed(s, drops, now)
		s.counted = now
	}
}

// overflowed counts what the kernel dropped since it was counted last; drops
// is its counter as it was at an instant.
func (sh *shard) overflowed(s *stream, drops uint32, at int64) {
	news := int32(drops - s.kernel)
	if news <= 0 { // nothing, or a datagram that waited while the kernel was asked
		return
	}
	s.kernel = drops
	from := min(s.counted, at)
	kind := dropOverflow
	if from <= sh.stall.to && at >= sh.stall.from && sh.stall.to > 0 {
		kind = dropDisk
	}
	n := uint64(news)
	s.dropped[kind].add(from, at, n)
	s.shown.drops.Add(n)
	sh.totals.KernelDrops += n
	sh.noteDrops(s)
}

func (sh *shard) noteDrops(s *stream) {
	if !s.noted {
		s.noted = true
		sh.noted = append(sh.noted, s)
	}
}

// note turns what was dropped into notes.
func (sh *shard) note() {
	for _, s := range sh.noted {
		sh.pending = s.takeDropped(sh.pending)
		s.noted = false
	}
	sh.noted = sh.noted[:0]
}

// flush gives the notes in hand to the journal, or keeps them.
func (sh *shard) flush() bool {
	if len(sh.pending) == 0 {
		return true
	}
	if err := sh.journal.Note(sh.pending...); errors.Is(err, journal.ErrFull) {
		return false
	} else if err != nil {
		slog.Error("notes lost", "notes", len(sh.pending), "err", err)
	}
	clear(sh.pending)
	sh.pending = sh.pending[:0]
	return true
}

// settle ends the streams whose last sweep this was: their packets are with
// the journal, now their end follows.
func (sh *shard) settle() {
	if sh.closing == 0 {
		return
	}
	sh.closing = 0
	sh.streams = slices.DeleteFunc(sh.streams, func(s *stream) bool {
		if s.closing == nil {
			return false
		}
		sh.askDrops(s)
		sh.noted = slices.DeleteFunc(sh.noted, func(o *stream) bool { return o == s })
		sh.pending = s.takeDropped(sh.pending)
		sh.pending = append(sh.pending, journal.Note{Closed: s.closing})
		sh.count.Add(-1)
		sh.reports.drop(s)
		return true
	})
	sh.flush()
}

// show publishes the shard's totals.
func (sh *shard) show() {
	sh.mark()
	sh.shown.packets.Store(sh.totals.Packets)
	sh.shown.bytes.Store(sh.totals.Bytes)
	sh.shown.lost.Store(sh.totals.Lost)
	sh.shown.drops.Store(sh.totals.KernelDrops)
	for why, n := range sh.rejected {
		if sh.shown.rejected[why].Load() != n {
			sh.shown.rejected[why].Store(n)
		}
	}
}

// timing remembers how late sweeps began and how long they took.
type timing struct {
	mu       sync.Mutex
	at       [512]time.Time
	late     [512]time.Duration
	took     [512]time.Duration
	next     int
	lateMost time.Duration
	tookMost time.Duration
}

// timingWindow is how far back the percentiles look.
const timingWindow = 10 * time.Second

func (t *timing) add(now time.Time, late, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at[t.next], t.late[t.next], t.took[t.next] = now, late, took
	t.next = (t.next + 1) % len(t.at)
	t.lateMost, t.tookMost = max(t.lateMost, late), max(t.tookMost, took)
}

// read adds the shard's recent sweeps to both lists.
func (t *timing) read(now time.Time, late, took []time.Duration) ([]time.Duration, []time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, at := range t.at {
		if !at.IsZero() && now.Sub(at) <= timingWindow {
			late, took = append(late, t.late[i]), append(took, t.took[i])
		}
	}
	return late, took
}
