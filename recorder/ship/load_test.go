package ship

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"tandem/recorder/catalog"
)

// load writes to a catalog as a busy recorder does, and times how long that
// takes it.
type load struct {
	writes  atomic.Int64
	slowest atomic.Int64 // nanoseconds, of the three transactions of one write
	stop    func()       // may be called again
}

// every is how often there is something to write, of some five rows: a floor of a
// thousand turrets has less.
const every = 5 * time.Millisecond

func newLoad(t *testing.T, c *catalog.Catalog) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l, ended := &load{}, make(chan struct{})
	go func() {
		defer close(ended)
		random := rand.New(rand.NewPCG(1, 2))
		tick := time.NewTicker(every)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			began := time.Now()
			if err := write(context.Background(), c, random, 1<<30); err != nil {
				t.Error(err)
				return
			}
			l.slowest.Store(max(l.slowest.Load(), int64(time.Since(began))))
			l.writes.Add(1)
		}
	}()
	l.stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(l.stop)
	return l
}
