package director

import (
	"context"
	"sync/atomic"
	"time"

	"tandem/director/provider"
	"tandem/internal/call"
)

// beat is how often what has become due is looked for.
const beat = 50 * time.Millisecond

// inboxSize bounds what waits for the owner loop; whoever fills it waits.
const inboxSize = 1024

// loop owns the floor: one goroutine changes it, with whatever others send in.
type loop struct {
	floor     *floor
	right     *right
	provider  platform
	links     map[call.RecorderName]*link
	inbox     chan func(now time.Time, f *floor)
	known     chan struct{}                           // closed once the recorders' inventories are in
	done      chan struct{}                           // closed when the loop has ended
	outranked func(epoch uint64)                      // a recorder follows a newer director; nil: this one stands alone
	worries   func(now time.Time) map[alarmKey]*alarm // what is wrong outside the floor; nil: nothing ever
	turns     atomic.Uint64                           // of the loop
	turned    atomic.Int64                            // the instant of the last one
	cti       atomic.Pointer[string]                  // the word for the link's state
}

func newLoop(f *floor, r *right) *loop {
	return &loop{
		floor: f, right: r, links: make(map[call.RecorderName]*link),
		inbox: make(chan func(time.Time, *floor), inboxSize), known: make(chan struct{}), done: make(chan struct{}),
	}
}

// post has the loop call change; it waits only while the inbox is full, and
// not beyond the loop's end.
func (l *loop) post(change func(now time.Time, f *floor)) {
	select {
	case l.inbox <- change:
	case <-l.done:
	}
}

// emit is post for the provider's events.
func (l *loop) emit(e provider.Event) {
	l.post(func(now time.Time, f *floor) { f.apply(now, e) })
}

// ask has the loop call look and waits until it has.
func (l *loop) ask(ctx context.Context, look func(now time.Time, f *floor)) error {
	looked := make(chan struct{})
	ask := func(now time.Time, f *floor) {
		look(now, f)
		close(looked)
	}
	select {
	case l.inbox <- ask:
	case <-l.done:
		return context.Canceled
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-looked:
		return nil
	case <-l.done:
		return context.Canceled
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run owns the floor until ctx ends.
func (l *loop) run(ctx context.Context) error {
	defer close(l.done)
	tick := time.NewTicker(beat)
	defer tick.Stop()
	soon := time.NewTimer(0) // a moment after a change: what comes together goes out together
	defer soon.Stop()
	armed := true
	for {
		l.turns.Add(1)
		l.turned.Store(int64(l.right.clock()))
		l.noteLink()
		select {
		case <-ctx.Done():
			return nil
		case change := <-l.inbox:
			change(time.Now(), l.floor)
			if !armed {
				armed = true
				soon.Reset(gather)
			}
			l.act()
		case <-soon.C:
			armed = false
			now := time.Now()
			l.floor.placeDue(now)
			l.act()
			l.order(now, false)
		case <-tick.C:
			now := time.Now()
			if l.worries != nil {
				l.floor.worries = l.worries(now)
			}
			l.floor.tick(now)
			l.act()
			l.order(now, true)
		}
	}
}

// noteLink keeps the word for the link's state where others may read it.
func (l *loop) noteLink() {
	if word := l.floor.link.word(); word != l.ctiWord() {
		l.cti.Store(&word)
	}
}

// ctiWord is the state of the link to the platform, as it last was.
func (l *loop) ctiWord() string {
	if word := l.cti.Load(); word != nil {
		return *word
	}
	return "down"
}

// act carries out what the floor has decided. Nothing in here waits.
func (l *loop) act() {
	if l.floor.pair == nil && l.right.epoch() != l.floor.epoch {
		l.right.held.Store(&tenure{epoch: l.floor.epoch, until: forever})
	}
	for _, a := range l.floor.take() {
		switch a := a.(type) {
		case attach:
			l.provider.Attach(a.Attach)
		case detach:
			l.provider.Detach(a.channel)
		case adopt:
			l.provider.Adopt(a.channel, a.dialog)
		case fence:
			l.links[a.recorder].fence()
		}
	}
	if l.floor.inventoried() {
		select {
		case <-l.known:
		default:
			close(l.known)
		}
	}
}

// order hands each idle recorder link its next batch.
func (l *loop) order(now time.Time, records bool) {
	for name, link := range l.links {
		if b := l.floor.nextBatch(now, l.floor.recorders[name], records); b != nil {
			link.batches <- b // has room: one at a time
		}
	}
}
