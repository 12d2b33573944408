package unigy

import (
	"cmp"
	"container/heap"
	"context"
	"sync"

	"tandem/director/provider"
	"tandem/internal/call"
)

// queue holds what is to be dialled, dearest first, then in order of asking.
// It has no bound of its own: it holds a channel once, and channels are bounded.
type queue struct {
	mu    sync.Mutex
	items items
	next  uint64
	ready chan struct{} // holds a token while there may be items
}

type item struct {
	provider.Attach
	order uint64
}

func newQueue() *queue { return &queue{ready: make(chan struct{}, 1)} }

// push adds a request; a later one for the same channel takes its place.
func (q *queue) push(req provider.Attach) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.drop(req.Channel)
	q.next++
	heap.Push(&q.items, item{req, q.next})
	q.signal()
}

func (q *queue) remove(channel call.ChannelID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.drop(channel)
}

// pop takes the first request.
func (q *queue) pop() (provider.Attach, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return provider.Attach{}, false
	}
	first := heap.Pop(&q.items).(item)
	if len(q.items) > 0 {
		q.signal()
	}
	return first.Attach, true
}

// wait returns true when there may be something to pop, false when ctx ended.
func (q *queue) wait(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-q.ready:
		return true
	}
}

func (q *queue) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

func (q *queue) drop(channel call.ChannelID) {
	for i, it := range q.items {
		if it.Channel == channel {
			heap.Remove(&q.items, i)
			return
		}
	}
}

type items []item

func (s items) Len() int { return len(s) }
func (s items) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(s[i].Rank, s[j].Rank), cmp.Compare(s[i].order, s[j].order)) < 0
}
func (s items) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s *items) Push(x any)   { *s = append(*s, x.(item)) }
func (s *items) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}
