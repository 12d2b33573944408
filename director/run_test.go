package director

import (
	"context"
	"errors"
	"testing"
	"time"

	"tandem/internal/authority"
	"tandem/internal/bubble"
)

// A loop that takes nothing in is found stuck, whether its inbox has room or
// not; one that has ended, because another reign begins, is not.
func TestLoopsThatStandStill(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l := newLoop(nil, &right{})
		e := &elector{inbox: make(chan func(authority.Instant), 1), done: make(chan struct{})}
		d := &director{pair: &partnership{elector: e}}
		d.reign.Store(&reign{loop: l})
		alive := func(n int) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return d.loops()[n].Alive(ctx)
		}
		for n, name := range []string{"owner", "elector"} {
			if got := d.loops()[n].Name; got != name {
				t.Errorf("loop %d is %s", n, got)
			}
			for range 3 { // the second finds the elector's inbox full
				if err := alive(n); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s stands still: %v", name, err)
				}
			}
		}
		go func() {
			for do := range e.inbox {
				do(0)
			}
		}()
		if err := alive(1); err != nil {
			t.Errorf("elector gets on: %v", err)
		}
		close(e.inbox)
		close(l.done)
		if err := alive(0); err != nil {
			t.Errorf("between two reigns: %v", err)
		}
	})
}
