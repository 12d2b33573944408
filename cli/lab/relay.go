package lab

import (
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"tandem/cli/scenario"
)

// relay is a bad cable: it takes frames at one end and puts them out at the
// other, but some it loses, doubles, holds back or lets be overtaken. Which is
// decided by the seed alone. Both directions are treated alike.
type relay struct {
	ends  [2]int // sockets
	stop  atomic.Bool
	ended sync.WaitGroup
}

// newRelay joins two devices of the wires, which belong to no bridge.
func newRelay(w *wires, one, other string, q scenario.Quality, seed uint64) (*relay, error) {
	r := &relay{}
	if err := w.do(func() error {
		for n, device := range []string{one, other} {
			var err error
			if r.ends[n], err = tap(device); err != nil {
				return fmt.Errorf("tap %s: %w", device, err)
			}
		}
		return nil
	}); err != nil {
		return nil, err
	}
	for n := range r.ends {
		d := direction{from: r.ends[n], to: r.ends[1-n], fate: newFate(q, rand.New(rand.NewPCG(seed, uint64(n))))}
		r.ended.Go(func() {
			// No cable waits for a processor. The thread keeps the priority until it ends with this.
			runtime.LockOSThread()
			if err := favour(); err != nil {
				slog.Warn("the relay is late when others take every core", "err", err)
			}
			d.run(&r.stop)
		})
	}
	return r, nil
}

// close stops it; the devices' last frames are lost.
func (r *relay) close() {
	r.stop.Store(true)
	r.ended.Wait()
	for _, fd := range r.ends {
		unix.Close(fd)
	}
}

// tapBuffer holds a tenth of a second of a thousand channels.
const tapBuffer = 8 << 20

// tap is a raw socket that hears and says frames at a device (packet(7)).
func tap(device string) (fd int, err error) {
	every := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, err
	}
	link, err := net.InterfaceByName(device)
	if err == nil {
		err = errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, tapBuffer),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, tapBuffer),
			unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(link.Index), Type: unix.PACKET_MR_PROMISC}),
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: every, Ifindex: link.Index}),
		)
	}
	if err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

// direction carries frames one way.
type direction struct {
	from, to int
	fate     *fate
	held     frames
}

// patience is how late a held frame may go out.
const patience = time.Millisecond

func (d *direction) run(stop *atomic.Bool) {
	buffer := make([]byte, 64<<10)
	for !stop.Load() {
		timeout := unix.NsecToTimeval(int64(d.untilNext(time.Now())))
		unix.SetsockoptTimeval(d.from, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)
		n, err := unix.Read(d.from, buffer)
		now := time.Now()
		if err == nil {
			frame := buffer[:n]
			for _, delay := range d.fate.of(frame) {
				heap.Push(&d.held, held{now.Add(delay), d.fate.number, append([]byte(nil), frame...)})
			}
		}
		for len(d.held) > 0 && !d.held[0].at.After(now) {
			// One that the other end does not take is lost, as on any cable.
			unix.Write(d.to, heap.Pop(&d.held).(held).frame)
		}
	}
}

// untilNext is how long to listen before a held frame is due.
func (d *direction) untilNext(now time.Time) time.Duration {
	if len(d.held) == 0 {
		return 10 * patience
	}
	return min(max(d.held[0].at.Sub(now), patience/10), 10*patience)
}

// fate decides what becomes of frames. Only what carries UDP is treated
// badly: without the others there would be no network at all.
type fate struct {
	quality scenario.Quality
	random  *rand.Rand
	number  int // frames so far
}

func newFate(q scenario.Quality, random *rand.Rand) *fate { return &fate{quality: q, random: random} }

// overtaken is how much later a frame comes that others shall overtake: two
// packets of a channel.
const overtaken = 45 * time.Millisecond

// of is when copies of a frame go on: none when it is lost. It makes the
// frame fit to be sent again.
func (f *fate) of(frame []byte) []time.Duration {
	f.number++
	if !carriesUDP(frame) {
		return []time.Duration{0}
	}
	dropChecksum(frame)
	q := f.quality
	chance := func(p float64) bool { return f.random.Float64() < p }
	lost, double, late := chance(q.Loss), chance(q.Duplicate), chance(q.Reorder)
	delay := q.Delay + time.Duration(f.random.Float64()*float64(q.Jitter))
	if late {
		delay += overtaken
	}
	switch {
	case lost:
		return nil
	case double:
		return []time.Duration{delay, delay + q.Jitter}
	}
	return []time.Duration{delay}
}

// Of a frame: Ethernet II, then IPv4 (RFC 791) without fragments, then UDP.
const (
	etherType  = 12
	ipStart    = 14
	ipProtocol = ipStart + 9
	udpInIP    = 17
)

func carriesUDP(frame []byte) bool {
	return len(frame) >= ipStart+28 && binary.BigEndian.Uint16(frame[etherType:]) == unix.ETH_P_IP && frame[ipProtocol] == udpInIP
}

// dropChecksum says that there is none (RFC 768). The kernel leaves it to the
// network card, and between namespaces there is no card to compute it.
func dropChecksum(frame []byte) {
	udp := ipStart + 4*int(frame[ipStart]&0x0F)
	if len(frame) >= udp+8 {
		frame[udp+6], frame[udp+7] = 0, 0
	}
}

// held is a frame that waits, the earliest first.
type held struct {
	at     time.Time
	number int
	frame  []byte
}

type frames []held

func (f frames) Len() int { return len(f) }
func (f frames) Less(i, j int) bool {
	if !f[i].at.Equal(f[j].at) {
		return f[i].at.Before(f[j].at)
	}
	return f[i].number < f[j].number
}
func (f frames) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f *frames) Push(x any)   { *f = append(*f, x.(held)) }
func (f *frames) Pop() any {
	last := (*f)[len(*f)-1]
	*f = (*f)[:len(*f)-1]
	return last
}
