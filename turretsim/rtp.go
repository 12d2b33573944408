package turretsim

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tandem/internal/media"
	"tandem/internal/tone"
	"tandem/turretsim/truth"
	"tandem/turretsim/voice"
)

const (
	headerSize   = 12                // RFC 3550 5.1, no CSRC
	rangePackets = 50                // a truth range is at most a second
	srInterval   = int64(5 * rate)   // samples between two SRs of a channel
	linkDelay    = packetSamples     // a voice change is heard one packet after the event
	forgetAfter  = int64(2 * rate)   // how long an ended utterance is kept
	idleCheck    = 500 * packetTicks // ticks between two such clean-ups
	reorderDelay = 30                // ticks: past the next packet of 20 ms
)

// stream is the media of one dialog. It belongs to its shard; every field is
// read and written under the shard's lock.
type stream struct {
	channel, dialog string
	codec           media.Codec
	mix             voice.Mix
	rtp, rtcp       peer
	muxed           bool

	ssrc    uint32
	seq     uint32 // of the next packet, extended; the wire carries the low half
	base    uint32 // timestamp of sample 0
	from    int64  // first sample that may be sent
	until   int64  // first sample that may not
	silent  bool   // the last packet was held back by VAD, or none was sent yet
	stray   bool   // the dialog is over
	held    bool   // the far end wants nothing for now
	packets uint32
	octets  uint32
	nextSR  int64
	sdes    []byte

	slot  int   // tick of 20 in which it sends; -1: it drifts
	drift drift // when slot is -1
	run   truth.Range
}

func (st *stream) timestamp(sample int64) uint32 { return st.base + uint32(sample) }

// speakerKey names a source; all streams that mix it share its speaker.
type speakerKey struct{ device, source string }

// shard sends the packets of some turrets from one RTP and one RTCP socket.
// All channels of a turret are in one shard, so that they agree on when a
// voice begins.
type shard struct {
	clock  clock
	log    *truth.Log
	faults *atomic.Pointer[Faults]
	vad    bool
	rtp    *net.UDPConn
	rtcp   *net.UDPConn

	mu       sync.Mutex
	rng      *rand.Rand
	media    *batch
	control  *batch
	slots    [packetTicks][]*stream
	drifting []*stream
	speakers map[speakerKey]*voice.Speaker
	delayed  []delayed
	floods   []*flood
	sent     []*stream     // what this tick has a packet of
	tick     int64         // the next to be sent; its first sample is tick*tickSamples
	late     time.Duration // the most by which a tick was over after its time

	reports   atomic.Uint64 // RTCP receiver reports heard
	malformed atomic.Uint64 // datagrams that were no RTCP
}

// sender is every shard.
type sender struct{ shards []*shard }

func newSender(cfg Config, c clock, log *truth.Log, faults *atomic.Pointer[Faults]) (*sender, error) {
	ip, err := netip.ParseAddr(cfg.RTP.Address)
	if err != nil {
		return nil, fmt.Errorf("parse rtp.address: %w", err)
	}
	var s sender
	for i := range cfg.RTP.Shards {
		port := cfg.RTP.Port
		if port != 0 {
			port += 2 * i
		}
		sh, err := newShard(ip, uint16(port))
		if err != nil {
			s.close()
			return nil, err
		}
		sh.clock, sh.log, sh.faults, sh.vad = c, log, faults, cfg.RTP.VAD
		sh.rng = rand.New(rand.NewPCG(cfg.Seed, uint64(i)))
		s.shards = append(s.shards, sh)
	}
	return &s, nil
}

func newShard(ip netip.Addr, port uint16) (*shard, error) {
	sh := &shard{speakers: map[speakerKey]*voice.Speaker{}}
	var err error
	if sh.rtp, sh.rtcp, err = listenPair(ip, port); err != nil {
		return nil, err
	}
	if sh.media, err = newBatch(sh.rtp); err == nil {
		sh.control, err = newBatch(sh.rtcp)
	}
	if err != nil {
		sh.close()
		return nil, err
	}
	return sh, nil
}

func (s *sender) close() {
	for _, sh := range s.shards {
		sh.close()
	}
}

func (sh *shard) close() {
	sh.rtp.Close()
	sh.rtcp.Close()
}

// local is where the shard's RTP comes from.
func (sh *shard) local() netip.AddrPort { return addrOf(sh.rtp) }

// of is the shard of a turret.
func (s *sender) of(device string) *shard {
	h := fnv.New32a()
	h.Write([]byte(device))
	return s.shards[h.Sum32()%uint32(len(s.shards))]
}

// run sends until ctx ends, and writes the ranges in progress to the truth log.
func (s *sender) run(ctx context.Context) error {
	var sending sync.WaitGroup
	var g errgroup.Group
	for _, sh := range s.shards {
		sending.Go(func() { sh.run(ctx) })
		g.Go(func() error { sh.hear(sh.rtp); return nil })
		g.Go(func() error { sh.hear(sh.rtcp); return nil })
	}
	sending.Wait() // what the truth log says was sent has been
	s.close()
	return g.Wait()
}

// run ticks every millisecond. After a stall it ticks as often as it has to:
// no packet is ever skipped.
func (sh *shard) run(ctx context.Context) {
	sh.mu.Lock()
	sh.tick = int64(sh.clock.since(time.Now())/time.Millisecond) + 1
	due := sh.tick
	sh.mu.Unlock()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ; ; due++ {
		wait := time.Duration(due)*time.Millisecond - sh.clock.since(time.Now())
		if wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			sh.finish()
			return
		}
		sh.send(due)
	}
}

// send sends all that is due at one tick.
func (sh *shard) send(tick int64) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	f := &sh.faults.Load().RTP
	slot := sh.slots[tick%packetTicks]
	if f.DriftPPM != 0 && len(slot) > 0 {
		sh.setAdrift(tick, slot, f)
		slot = sh.slots[tick%packetTicks]
	}
	for _, st := range slot {
		sh.packet(st, tick*tickSamples, sh.clock.wall(tick*tickSamples), f)
	}
	sh.sendDrifting(tick, f)
	sh.sendDelayed(tick)
	sh.sendFloods(tick)
	if tick%idleCheck == 0 {
		for _, speaker := range sh.speakers {
			speaker.Forget(tick*tickSamples - forgetAfter)
		}
	}
	sh.media.flush()
	sh.control.flush()
	sh.left(sh.clock.since(time.Now()) - time.Duration(tick)*time.Millisecond)
	sh.tick = tick + 1
}

// left notes how late a tick's packets were, now that they are on their way.
func (sh *shard) left(late time.Duration) {
	sh.late = max(sh.late, late)
	for _, st := range sh.sent {
		st.run.Late = max(st.run.Late, late)
	}
	sh.sent = sh.sent[:0]
}

// packet sends the 160 samples of a stream from sample on, due at that instant.
func (sh *shard) packet(st *stream, sample int64, due time.Time, f *RTPFaults) {
	if sample < st.from || sample >= st.until || st.held {
		sh.cut(st)
		return
	}
	if sh.vad && !st.mix.Speaks(sample, sample+packetSamples) {
		sh.cut(st)
		st.silent = true
		return
	}
	seq := st.seq
	st.seq++
	sh.note(st, seq, sample, due)
	datagram := sh.media.next(&st.rtp)[:headerSize+packetSamples]
	writeHeader(datagram, st, seq, sample)
	st.mix.Fill(datagram[headerSize:], st.codec, sample)
	st.silent = false
	st.packets++
	st.octets += packetSamples
	if !f.healthy() && f.concerns(st.channel) {
		sh.faulty(st, f, datagram, sample)
	} else {
		sh.media.commit(len(datagram))
	}
	if sample >= st.nextSR {
		sh.report(st, sample, due)
		st.nextSR = sample + srInterval
	}
}

// writeHeader is RFC 3550 5.1. The marker says that speech begins (RFC 3551 4.1).
func writeHeader(b []byte, st *stream, seq uint32, sample int64) {
	b[0], b[1] = 2<<6, st.codec.PayloadType()
	if st.silent {
		b[1] |= 0x80
	}
	binary.BigEndian.PutUint16(b[2:], uint16(seq))
	binary.BigEndian.PutUint32(b[4:], st.timestamp(sample))
	binary.BigEndian.PutUint32(b[8:], st.ssrc)
}

// note adds a packet to the stream's range, or begins a new one.
func (sh *shard) note(st *stream, seq uint32, sample int64, due time.Time) {
	sh.sent = append(sh.sent, st)
	r := &st.run
	if r.Packets > 0 && r.Packets < rangePackets && sample == r.Sample+int64(r.Packets)*packetSamples {
		r.Packets++
		return
	}
	sh.cut(st)
	r.SSRC, r.Seq, r.TS, r.Sample, r.Packets, r.At, r.Late, r.Stray = st.ssrc, seq, st.timestamp(sample), sample, 1, due, 0, st.stray
}

// cut ends the stream's range.
func (sh *shard) cut(st *stream) {
	if st.run.Packets > 0 {
		sh.log.AddPackets(&st.run)
		st.run.Packets = 0
	}
}

// start lets a stream send, delay after now. Its slot is the emptiest.
func (sh *shard) start(st *stream, delay time.Duration) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for i := range sh.slots {
		if len(sh.slots[i]) < len(sh.slots[st.slot]) {
			st.slot = i
		}
	}
	st.from = sh.tick*tickSamples + samples(delay)
	st.until, st.silent = voice.Forever, true
	st.run = truth.Range{Channel: st.channel, Dialog: st.dialog, To: st.rtp.addr.String(), Codec: string(st.codec)}
	sh.slots[st.slot] = append(sh.slots[st.slot], st)
}

// move turns a stream to another address. The packets go on in number and time.
func (sh *shard) move(st *stream, rtp, rtcp netip.AddrPort, muxed, held bool) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.cut(st)
	st.rtp, st.rtcp, st.muxed, st.held = newPeer(rtp), newPeer(rtcp), muxed, held
	st.run.To = rtp.String()
}

// stop ends a stream, linger after now; what it sends until then is stray.
func (sh *shard) stop(st *stream, linger time.Duration) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.cut(st)
	st.stray = true
	st.until = sh.tick*tickSamples + samples(linger)
	if linger == 0 {
		sh.remove(st)
		return
	}
	time.AfterFunc(linger, func() {
		sh.mu.Lock()
		defer sh.mu.Unlock()
		sh.cut(st)
		sh.remove(st)
	})
}

func (sh *shard) remove(st *stream) {
	list := &sh.drifting
	if st.slot >= 0 {
		list = &sh.slots[st.slot]
	}
	for i, other := range *list {
		if other == st {
			last := len(*list) - 1
			(*list)[i], (*list)[last] = (*list)[last], nil
			*list = (*list)[:last]
			return
		}
	}
}

// finish writes every range in progress.
func (sh *shard) finish() {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, slot := range sh.slots {
		for _, st := range slot {
			sh.cut(st)
		}
	}
	for _, st := range sh.drifting {
		sh.cut(st)
	}
}

// speaker is the voice of a source; it is made when first asked for.
func (sh *shard) speaker(key speakerKey, source tone.Source) *voice.Speaker {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := sh.speakers[key]
	if s == nil {
		s = &voice.Speaker{Source: source}
		sh.speakers[key] = s
	}
	return s
}

// say lets a source speak from the sample on, or from the first that no
// packet has carried yet, for length samples. It returns when it really begins.
func (sh *shard) say(key speakerKey, sample, length int64, clip *voice.Clip) (from int64) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	from = max(sample, sh.tick*tickSamples) + linkDelay
	u := voice.Utterance{From: from, To: voice.Forever, Clip: clip}
	if length > 0 {
		u.To = from + length
	}
	if s := sh.speakers[key]; s != nil {
		s.Say(u)
	}
	return from
}

// hush ends what a source says, like say.
func (sh *shard) hush(key speakerKey, sample int64) (at int64) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	at = max(sample, sh.tick*tickSamples) + linkDelay
	if s := sh.speakers[key]; s != nil {
		s.Hush(at)
	}
	return at
}

// position is where a stream stands at a sample of the media clock.
func (sh *shard) position(st *stream, sample int64) truth.Media {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return truth.Media{Channel: st.channel, SSRC: st.ssrc, TS: st.timestamp(sample)}
}
