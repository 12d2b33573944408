package director

import (
	"errors"
	"sync/atomic"

	tandemv1 "tandem/api/tandem/v1"
)

// authority is the right to initiate: every order to a recorder and every
// request to the switch asks it right before it is written.
type authority struct {
	director  string
	group     string
	secondary bool
	epoch     atomic.Uint64 // set by the owner loop; 0: none
}

var errNoAuthority = errors.New("no authority yet")

// allow refuses while there is no authority.
func (a *authority) allow() error {
	if a.epoch.Load() == 0 {
		return errNoAuthority
	}
	return nil
}

// order is what a recorder obeys.
func (a *authority) order() (*tandemv1.Order, error) {
	if err := a.allow(); err != nil {
		return nil, err
	}
	return &tandemv1.Order{Epoch: a.epoch.Load(), Director: a.director, Group: a.group, Secondary: a.secondary}, nil
}
