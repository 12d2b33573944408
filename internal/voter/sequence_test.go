package voter

import (
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"
	"pgregory.net/rapid"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/authority"
)

// history is what a voter did, as whoever watched all of it knows.
type history struct {
	t      *rapid.T
	clock  *clock
	cfg    Config
	keeper *Keeper

	leases map[string]lent // by director
	newest uint64          // the highest epoch granted or obeyed
	owners map[uint64]string
	nonces []issued
	order  uint64
}

// lent is a lease as its director may count on it.
type lent struct {
	epoch uint64
	until authority.Instant
}

type issued struct {
	nonce uint64
	at    authority.Instant
}

// epochs draws one that a director may use; dir-c is configured as dir-a is.
func epochs(t *rapid.T, director string) uint64 {
	side := map[string]uint64{"dir-a": 0, "dir-b": 1, "dir-c": 0}[director]
	return rapid.Uint64Range(0, 5).Draw(t, "counter")<<1 | side
}

func directors(t *rapid.T) string {
	return rapid.SampledFrom([]string{"dir-a", "dir-a", "dir-b", "dir-b", "dir-c"}).Draw(t, "director")
}

// nonce draws one of those issued, more often a new one.
func (h *history) nonce(t *rapid.T) issued {
	h.nonces = append(h.nonces, issued{h.keeper.Nonce(), h.clock.now()})
	back := min(rapid.SampledFrom([]int{0, 0, 0, 1, 2, 5, 9}).Draw(t, "back"), len(h.nonces)-1)
	return h.nonces[len(h.nonces)-1-back]
}

func (h *history) accepted(what string, epoch uint64, director string) {
	if epoch < h.newest {
		h.t.Fatalf("%s of epoch %d after epoch %d", what, epoch, h.newest)
	}
	if owner, known := h.owners[epoch]; known && owner != director {
		h.t.Fatalf("%s of epoch %d for %s, which is %s's", what, epoch, director, owner)
	}
	h.newest, h.owners[epoch] = epoch, director
	if got, _ := h.keeper.Seen(); uint64(got) != epoch {
		h.t.Fatalf("%s of epoch %d, seen is %d", what, epoch, got)
	}
}

func (h *history) fresh(what string, n issued, within time.Duration) {
	if age := h.clock.now().Sub(n.at); age >= within {
		h.t.Fatalf("%s after %v", what, age)
	}
}

func (h *history) pass(t *rapid.T) {
	h.clock.pass(rapid.SampledFrom([]time.Duration{ms, 20 * ms, 100 * ms, 149 * ms, 400 * ms, 999 * ms, time.Second}).Draw(t, "pass"))
}

func (h *history) lease(t *rapid.T) {
	director, nonce := directors(t), h.nonce(t)
	epoch := epochs(t, director)
	r, err := h.keeper.Lease(t.Context(), connect.NewRequest(&tandemv1.LeaseRequest{Group: "primary", Profile: "steady", Director: director, Epoch: epoch, Nonce: nonce.nonce}))
	if err != nil {
		t.Fatal(err)
	}
	if !r.Msg.GetGranted() {
		return
	}
	for other, l := range h.leases {
		if other != director && h.clock.now() < l.until {
			t.Fatalf("leased to %s while %s has it for another %v", director, other, l.until.Sub(h.clock.now()))
		}
	}
	h.fresh("leased", nonce, authority.Steady.H+authority.Steady.F)
	h.accepted("lease", epoch, director)
	h.leases[director] = lent{epoch, h.clock.now().Add(authority.Steady.LV)}
}

func (h *history) release(t *rapid.T) {
	epoch := epochs(t, directors(t))
	if _, err := h.keeper.Release(t.Context(), connect.NewRequest(&tandemv1.ReleaseRequest{Group: "primary", Epoch: epoch})); err != nil {
		t.Fatal(err)
	}
	for director, l := range h.leases { // a release says that its director counts on no more
		if l.epoch == epoch {
			h.leases[director] = lent{epoch, min(l.until, h.clock.now().Add(authority.Steady.F))}
		}
	}
}

func (h *history) obey(t *rapid.T) {
	director, nonce, isFence := directors(t), h.nonce(t), rapid.Bool().Draw(t, "fence")
	epoch := epochs(t, director)
	h.order += rapid.Uint64Range(0, 1).Draw(t, "sequence")
	before := h.newest
	if err := h.keeper.Obey(t.Context(), pairOrder(director, epoch, h.order, nonce.nonce), isFence, func() error { return nil }); err != nil {
		if RefusalIn(err) == nil {
			t.Fatal(err)
		}
		return
	}
	h.fresh("obeyed", nonce, authority.Steady.F)
	h.accepted("order", epoch, director)
	if !isFence && epoch != before {
		t.Fatalf("an order of epoch %d was obeyed, %d is fenced", epoch, before)
	}
	if isFence { // who fences has authority by other proof: nobody else counts on this voter
		clear(h.leases)
		h.leases[director] = lent{epoch, h.clock.now().Add(authority.Steady.LV)}
		return
	}
	if l := h.leases[director]; l.epoch != epoch || h.clock.now() >= l.until {
		// A voter that restarted counts its lease as just renewed, so it may
		// obey for longer than its director counts on it; never another one.
		for other, l := range h.leases {
			if other != director && h.clock.now() < l.until {
				t.Fatalf("obeyed %s while %s has the lease", director, other)
			}
		}
	}
}

func (h *history) restart(t *rapid.T) {
	h.keeper = mustOpen(t, h.cfg)
	if got, owner := h.keeper.Seen(); uint64(got) != h.newest || owner != h.owners[h.newest] {
		t.Fatalf("after a restart %d of %q, before %d of %q", got, owner, h.newest, h.owners[h.newest])
	}
}

// However leases, releases, orders and restarts follow each other: never two
// directors with a lease, never back behind an epoch, never an old order.
func TestSequences(outer *testing.T) {
	granted := 0
	rapid.Check(outer, func(t *rapid.T) {
		c := newClock()
		h := &history{t: t, clock: c, leases: map[string]lent{}, owners: map[uint64]string{0: ""}}
		h.cfg = c.config(filepath.Join(outer.TempDir(), "authority.json"))
		h.keeper = mustOpen(t, h.cfg)
		t.Repeat(map[string]func(*rapid.T){
			"pass": h.pass, "lease": h.lease, "lease again": h.lease, "release": h.release, "obey": h.obey, "restart": h.restart,
		})
		granted += len(h.leases)
	})
	if granted == 0 {
		outer.Error("nothing was ever granted")
	}
}
