package director

import (
	"net/http"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/authority"
	"tandem/internal/voter"
)

// sabotage is one rule of the protocol that is not kept; "": all are.
type sabotage string

const (
	noFencing sabotage = "recorders obey everybody"
	noGate    sabotage = "no look at authority before a word to the switch"
)

func (b sabotage) is(other sabotage) bool { return b == other }

func (b sabotage) voterClock(p *process) func() authority.Instant { return p.clock }

func (b sabotage) voter(k *voter.Keeper, _ func() authority.Instant) tandemv1connect.VoterServiceHandler {
	return k
}

func (b sabotage) refresh(*tandemv1.Order, *voter.Keeper) {}
func (b sabotage) director(*process)                      {}
func (b sabotage) handler(_ *process, h http.Handler) http.Handler {
	return h
}
