package journal

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// Listener hears one channel live: each of its packets as soon as it is
// written. A listener that is slow loses packets and delays nobody.
type Listener struct {
	packets chan Packet
	dropped atomic.Uint64
	num     uint32
	taps    *taps
}

// listenRing is how many packets may wait for a listener: five seconds of
// 20 ms packets.
const listenRing = 250

// Listen hears the channel from now on. Close the listener in the end.
func (w *Writer) Listen(num uint32) *Listener {
	l := &Listener{packets: make(chan Packet, listenRing), num: num, taps: &w.taps}
	w.taps.add(l)
	return l
}

// Packets yields the channel's packets, each with bytes of its own. It is
// closed when the channel closes or the writer ends.
func (l *Listener) Packets() <-chan Packet { return l.packets }

// Dropped counts the packets lost because the listener was slow.
func (l *Listener) Dropped() uint64 { return l.dropped.Load() }

// Close ends the listening.
func (l *Listener) Close() { l.taps.remove(l) }

// taps are the listeners there are. Nobody listening costs the writer one
// atomic load for each block.
type taps struct {
	mu    sync.Mutex
	ended bool
	byNum atomic.Pointer[map[uint32][]*Listener] // never changed in place
}

// change replaces the listeners of num; the caller holds mu.
func (t *taps) change(num uint32, edit func([]*Listener) []*Listener) {
	next := map[uint32][]*Listener{}
	if old := t.byNum.Load(); old != nil {
		next = maps.Clone(*old)
	}
	next[num] = edit(slices.Clone(next[num]))
	if len(next[num]) == 0 {
		delete(next, num)
	}
	if len(next) == 0 {
		t.byNum.Store(nil)
		return
	}
	t.byNum.Store(&next)
}

func (t *taps) add(l *Listener) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		close(l.packets)
		return
	}
	t.change(l.num, func(ls []*Listener) []*Listener { return append(ls, l) })
}

// remove does not close l.packets: only the writing goroutine, which sends
// there, may.
func (t *taps) remove(l *Listener) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.change(l.num, func(ls []*Listener) []*Listener {
		return slices.DeleteFunc(ls, func(o *Listener) bool { return o == l })
	})
}

// offer gives the block's packets to those who listen. The writing goroutine
// calls it, like endOf and end.
func (t *taps) offer(d *Draft) {
	listeners := t.byNum.Load()
	if listeners == nil {
		return
	}
	for p := range d.eachPacket {
		for _, l := range (*listeners)[p.Num] {
			l.offer(p)
		}
	}
}

func (l *Listener) offer(p Packet) {
	if len(l.packets) == cap(l.packets) {
		l.dropped.Add(1)
		return
	}
	p.Data = slices.Clone(p.Data)
	l.packets <- p // nobody else sends: there is room
}

// endOf tells the listeners of num that no packet follows.
func (t *taps) endOf(num uint32) {
	if t.byNum.Load() == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.change(num, func(ls []*Listener) []*Listener {
		for _, l := range ls {
			close(l.packets)
		}
		return nil
	})
}

// end tells all listeners so.
func (t *taps) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	if listeners := t.byNum.Swap(nil); listeners != nil {
		for _, ls := range *listeners {
			for _, l := range ls {
				close(l.packets)
			}
		}
	}
}
