package director

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tandem/internal/authority"
	"tandem/internal/bubble"
)

// ward is a recorder that leases, as voters and those without a vote do.
type ward struct {
	mu    sync.Mutex
	voter authority.Voter
	clock func() authority.Instant
}

func (w *ward) ask(m authority.Message, heard func(authority.Message)) {
	go func() {
		time.Sleep(time.Millisecond)
		w.mu.Lock()
		defer w.mu.Unlock()
		var answer authority.Message
		w.voter, answer = w.voter.Step(authority.Steady, m, w.clock())
		heard(answer)
	}()
}

// remaining is what is left of its lease.
func (w *ward) remaining() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.voter.Until.Sub(w.clock())
}

// nobody answers nothing.
type nobody struct{}

func (nobody) ask(authority.Message, func(authority.Message)) {}

// quarters is an office in which nothing is done.
type quarters struct{}

func (quarters) enthrone(uint64) {}
func (quarters) lead(uint64)     {}
func (quarters) abdicate()       {}

// Recorders without a vote have a lease of whoever is in charge as well, renewed
// in every round: one that lapsed would have to be fenced before each order.
func TestEveryRecorderIsLeased(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		began := time.Now()
		clock := func() authority.Instant { return authority.Instant(time.Hour + time.Since(began)) }
		w := world{clock: clock, spread: func(time.Duration) time.Duration { return 0 }}
		e := newElector(authority.Config{Timing: authority.Steady, Side: authority.A, Voters: 1}, &right{director: "dir-a", clock: clock}, w,
			func() (bool, string) { return true, "" }, slog.New(slog.DiscardHandler))
		e.office, e.rival = quarters{}, nobody{}
		var wards []*ward
		for n := range 3 {
			wards = append(wards, &ward{voter: authority.StartVoter(authority.Steady, 0, uint64(n+1)<<40, clock()), clock: clock})
			e.voters = append(e.voters, wards[n])
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- e.run(ctx) }()
		time.Sleep(2 * time.Second)
		e.campaign(cause{"test", "cold start"}, false)
		time.Sleep(time.Second)
		for range 50 {
			time.Sleep(100 * time.Millisecond)
			if phase := e.view.Load().director.Phase; phase != authority.Active {
				t.Fatalf("dir-a is %v", phase)
			}
			for n, w := range wards {
				if left := w.remaining(); left < authority.Steady.LV-2*authority.Steady.H {
					t.Fatalf("recorder %d of 3, of which the first votes: %v left of its lease", n+1, left)
				}
			}
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		synctest.Wait()
	})
}
