package director

import (
	"errors"
	"math"
	"sync/atomic"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/authority"
)

// right is the right to initiate: every order to a recorder and every request
// to the switch asks it right before it is written, and it looks at the clock.
type right struct {
	director  string
	group     string
	secondary bool
	profile   string // of timing; empty: this director stands alone
	clock     func() authority.Instant
	held      atomic.Pointer[tenure] // nil: none
}

// tenure is one time of having authority. Recorders may be fenced from its
// begin on; other orders are given from a moment later.
type tenure struct {
	epoch       uint64
	from, until authority.Instant
}

// forever is until nobody else comes: there is nobody else.
const forever = authority.Instant(math.MaxInt64)

var errNoAuthority = errors.New("no authority")

// epoch is that of the orders given now, 0 for none.
func (r *right) epoch() uint64 {
	if t := r.held.Load(); t != nil {
		return t.epoch
	}
	return 0
}

// allow refuses whatever is not allowed at this instant.
func (r *right) allow() error {
	if t := r.held.Load(); t == nil || !t.holds(r.clock()) || r.clock() < t.from {
		return errNoAuthority
	}
	return nil
}

func (t *tenure) holds(now authority.Instant) bool { return t.until == forever || now < t.until }

// order is what a recorder obeys, but for what proves that it is fresh.
func (r *right) order(fence bool) (*tandemv1.Order, error) {
	t := r.held.Load()
	if t == nil || !t.holds(r.clock()) || !fence && r.clock() < t.from {
		return nil, errNoAuthority
	}
	return &tandemv1.Order{Epoch: t.epoch, Director: r.director, Group: r.group, Secondary: r.secondary, Profile: r.profile}, nil
}
