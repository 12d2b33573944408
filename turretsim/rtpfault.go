package turretsim

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"time"

	"tandem/turretsim/truth"
)

// healthy says that packets go out as they are.
func (f *RTPFaults) healthy() bool {
	return f.Loss == 0 && f.Reorder == 0 && f.Duplicate == 0 && f.Jitter == 0 &&
		f.WrongVersion == 0 && f.Short == 0 && f.WrongType == 0 && f.SecondSSRC == 0
}

// concerns says that a channel suffers.
func (f *RTPFaults) concerns(channel string) bool {
	return (f.Channel == "" || f.Channel == channel) && (f.Copy == "" || ofCopy(channel, f.Copy))
}

// delayed is a datagram that leaves later than it should.
type delayed struct {
	due  int64 // tick
	st   *stream
	data []byte
}

// faulty sends the datagram just made the way the faults want it. A withheld
// one is said to the truth log: it was spoken, and a recording must miss it.
func (sh *shard) faulty(st *stream, f *RTPFaults, datagram []byte, sample int64) {
	rng, tick := sh.rng, sample/tickSamples
	if chance(rng, f.Loss) {
		sh.log.Add(truth.Line{Type: truth.TypeWithheld, Channel: st.channel, Dialog: st.dialog, Sample: sample, Packets: 1})
		return
	}
	copies := 1
	if chance(rng, f.Duplicate) {
		copies = 2
	}
	wait := int64(0)
	if chance(rng, f.Reorder) {
		wait = reorderDelay
	}
	if f.Jitter > 0 {
		wait += rng.Int64N(int64(f.Jitter.Std()/time.Millisecond) + 1)
	}
	intact := slices.Clone(datagram) // the batch's room is reused below
	for range copies {
		if wait > 0 {
			sh.delayed = append(sh.delayed, delayed{tick + wait, st, intact})
		} else {
			sh.resend(st, intact)
		}
	}
	sh.extras(st, f, intact)
}

// extras adds datagrams that no recorder should take for this channel's voice.
func (sh *shard) extras(st *stream, f *RTPFaults, intact []byte) {
	if chance(sh.rng, f.WrongVersion) {
		sh.resend(st, intact)
		sh.last()[0] = 1<<6 | intact[0]&0x3F
	}
	if chance(sh.rng, f.Short) {
		sh.resend(st, intact[:sh.rng.IntN(headerSize)])
	}
	if chance(sh.rng, f.WrongType) {
		sh.resend(st, intact)
		sh.last()[1] = 96 + byte(sh.rng.IntN(32)) // dynamic, never offered
	}
	if chance(sh.rng, f.SecondSSRC) {
		sh.resend(st, intact)
		binary.BigEndian.PutUint32(sh.last()[8:], rogue(st))
	}
}

func (sh *shard) resend(st *stream, data []byte) {
	sh.media.commit(copy(sh.media.next(&st.rtp), data))
}

// last is the datagram committed last.
func (sh *shard) last() []byte { return sh.media.room[sh.media.n-1][:] }

// rogue is the SSRC of a stranger on the stream's port.
func rogue(st *stream) uint32 { return ^st.ssrc }

func chance(rng *rand.Rand, p float64) bool { return p > 0 && rng.Float64() < p }

// sendDelayed sends what has waited long enough, in the order it fell due.
func (sh *shard) sendDelayed(tick int64) {
	if len(sh.delayed) == 0 {
		return
	}
	slices.SortStableFunc(sh.delayed, func(a, b delayed) int { return int(a.due - b.due) })
	n := 0
	for n < len(sh.delayed) && sh.delayed[n].due <= tick {
		sh.resend(sh.delayed[n].st, sh.delayed[n].data)
		n++
	}
	sh.delayed = slices.Delete(sh.delayed, 0, n)
}

// drift is the clock of a stream that runs fast or slow.
type drift struct {
	sample int64   // of the next packet
	due    float64 // when, in samples of the true clock
}

// setAdrift takes the streams of a slot out of it: from now on their packets
// fall due by a clock of their own.
func (sh *shard) setAdrift(tick int64, slot []*stream, f *RTPFaults) {
	var stay []*stream
	for _, st := range slot {
		if !f.concerns(st.channel) {
			stay = append(stay, st)
			continue
		}
		st.slot, st.drift = -1, drift{sample: tick * tickSamples, due: float64(tick * tickSamples)}
		sh.drifting = append(sh.drifting, st)
	}
	sh.slots[tick%packetTicks] = stay
}

func (sh *shard) sendDrifting(tick int64, f *RTPFaults) {
	now := float64((tick + 1) * tickSamples)
	for _, st := range sh.drifting {
		for st.drift.due < now {
			sh.packet(st, st.drift.sample, sh.clock.origin.Add(time.Duration(st.drift.due*float64(sampleTime))), f)
			st.drift.sample += packetSamples
			st.drift.due += packetSamples / (1 + f.DriftPPM/1e6)
		}
	}
}

// flood is a stranger that sends at a stream's port as fast as it is told.
type flood struct {
	st        *stream
	perTick   float64
	carry     float64
	remaining int64 // ticks
	seq       uint16
}

func (sh *shard) sendFloods(tick int64) {
	for _, fl := range sh.floods {
		for fl.carry += fl.perTick; fl.carry >= 1; fl.carry-- {
			b := sh.media.next(&fl.st.rtp)[:headerSize+packetSamples]
			clear(b)
			b[0], b[1] = 2<<6, fl.st.codec.PayloadType()
			binary.BigEndian.PutUint16(b[2:], fl.seq)
			binary.BigEndian.PutUint32(b[4:], uint32(fl.seq)*packetSamples)
			binary.BigEndian.PutUint32(b[8:], rogue(fl.st))
			sh.media.commit(len(b))
			fl.seq++
		}
		fl.remaining--
	}
	sh.floods = slices.DeleteFunc(sh.floods, func(fl *flood) bool { return fl.remaining <= 0 })
}

// flood sends pps strange packets a second at the stream's port.
func (sh *shard) flood(st *stream, pps int, length time.Duration) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.floods = append(sh.floods, &flood{st: st, perTick: float64(pps) / 1000, remaining: int64(length / time.Millisecond)})
}

// newSSRC begins the stream anew, as a switch does that restarts its mixer.
func (sh *shard) newSSRC(st *stream) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.cut(st)
	st.randomise(sh.rng)
	st.nextSR = 0
}

// jump moves the stream's numbers: sequence by seq, timestamps by ts.
func (sh *shard) jump(st *stream, seq, ts uint32) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.cut(st)
	st.seq += seq
	st.base += ts
}

// randomise draws what RFC 3550 5.1 wants random.
func (st *stream) randomise(rng *rand.Rand) {
	st.ssrc, st.seq, st.base = rng.Uint32(), uint32(uint16(rng.Uint32())), rng.Uint32()
	st.packets, st.octets, st.silent = 0, 0, true
}
