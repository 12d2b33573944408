package director

import (
	"context"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/authority"
	"tandem/internal/local"
	"tandem/internal/voter"
)

// sabotage is one rule of the protocol that is not kept; "": all are.
type sabotage string

const (
	promotes     sabotage = "watchdog promotes whom it likes"
	overLive     sabotage = "voter grants over a live lease"
	oneVote      sabotage = "one vote of three is enough"
	promisesAll  sabotage = "promise given by whoever is asked"
	forgetsLease sabotage = "restarted voter forgets its lease"
	forgetsEpoch sabotage = "restarted voter forgets its epoch"
	noSilence    sabotage = "director restarts without silence"
	fromArrival  sabotage = "lease counted from the answer's arrival, and longer than the voter's"
	noMargin     sabotage = "holder's lease as long as the voter's"
	noGuard      sabotage = "no guard before the first order"
	atOnce       sabotage = "released at once"
	slowIsDead   sabotage = "watchdog releases for one that is frozen"
	noFencing    sabotage = "recorders obey everybody"
	noFreshness  sabotage = "orders need not be fresh"
	noGate       sabotage = "no look at authority before a word to the switch"
	hangsUp      sabotage = "a director that loses authority hangs up"
)

func (b sabotage) is(other sabotage) bool { return b == other }

// director breaks what a director that has just been made goes by.
func (b sabotage) director(p *process) {
	e := p.director.pair.elector
	switch b {
	case oneVote:
		e.cfg.Voters = 1
		if e.cfg.Side == authority.B {
			n := len(e.voters) - 1
			e.voters[0], e.voters[n] = e.voters[n], e.voters[0]
		}
	case noSilence:
		e.director = authority.Director{Phase: authority.Passive, Since: e.clock().Add(-e.cfg.LV)}
	case fromArrival:
		e.cfg.LD = e.cfg.LV + 2*e.cfg.G
		for i, v := range e.voters {
			e.voters[i] = late{v, e.clock}
		}
		e.rival = late{e.rival, e.clock}
	case noMargin:
		e.cfg.LD = e.cfg.LV
	case noGuard:
		e.cfg.G = 0
	case hangsUp:
		e.office = hangingUp{e.office, p}
	}
}

// late counts what somebody gave from when it came.
type late struct {
	respondent
	clock func() authority.Instant
}

func (l late) ask(m authority.Message, heard func(authority.Message)) {
	l.respondent.ask(m, func(answer authority.Message) {
		answer.Round = l.clock()
		heard(answer)
	})
}

// hangingUp ends every dialog with its authority.
type hangingUp struct {
	office
	process *process
}

func (h hangingUp) abdicate() {
	l := h.process.director.loop()
	for _, a := range h.process.sim.exchange.agents {
		for _, ch := range a.channels {
			l.provider.Detach(ch.ID)
		}
	}
	h.office.abdicate()
}

// handler breaks how a director answers.
func (b sabotage) handler(p *process, honest http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", honest)
	e := p.director.pair.elector
	switch b {
	case promotes:
		mux.HandleFunc(tandemv1connect.DirectorServiceCampaignProcedure, func(w http.ResponseWriter, r *http.Request) {
			e.post(func(now authority.Instant) { b.promote(e, now) })
			honest.ServeHTTP(w, r)
		})
	case promisesAll:
		_, h := tandemv1connect.NewPeerServiceHandler(promising{&peerService{pair: p.director.pair}})
		mux.Handle(tandemv1connect.PeerServiceMeetProcedure, h)
	}
	return mux
}

// promote makes a director one in charge.
func (b sabotage) promote(e *elector, now authority.Instant) {
	if e.director.Phase.Holds() {
		return
	}
	before := e.director
	epoch := authority.Next(before.Seen, e.cfg.Side)
	e.director = authority.Director{Phase: authority.Activating, Epoch: epoch, Seen: epoch, Since: now, Able: true, Promise: now, Guard: now}
	e.publish(now)
	e.changed(before, e.director)
}

type promising struct{ *peerService }

func (s promising) Meet(ctx context.Context, req *connect.Request[tandemv1.MeetRequest]) (*connect.Response[tandemv1.MeetResponse], error) {
	res, err := s.peerService.Meet(ctx, req)
	if err == nil {
		res.Msg.Promised = req.Msg.GetAsked() != 0
	}
	return res, err
}

// voterClock breaks a voter's memory at its start.
func (b sabotage) voterClock(p *process, file string) func() authority.Instant {
	switch b {
	case forgetsLease: // it starts in the past
		first := true
		return func() authority.Instant {
			if first {
				first = false
				return p.clock().Add(-time.Minute)
			}
			return p.clock()
		}
	case forgetsEpoch:
		os.Remove(file)
	}
	return p.clock
}

// voter breaks how a voter answers.
func (b sabotage) voter(k *voter.Keeper) tandemv1connect.VoterServiceHandler {
	if b == overLive || b == atOnce {
		return &generous{Keeper: k, always: b == overLive}
	}
	return k
}

// generous grants what another has: always, or once that was released.
type generous struct {
	*voter.Keeper
	always bool
	free   authority.Epoch
}

func (g *generous) gives() bool {
	epoch, _ := g.Seen()
	return g.always || g.free == epoch && epoch != 0
}

func (g *generous) Query(ctx context.Context, r *connect.Request[tandemv1.QueryRequest]) (*connect.Response[tandemv1.QueryResponse], error) {
	res, err := g.Keeper.Query(ctx, r)
	if err == nil && g.gives() {
		res.Msg.Ballot.RemainingUs = 0
	}
	return res, err
}

func (g *generous) Lease(ctx context.Context, r *connect.Request[tandemv1.LeaseRequest]) (*connect.Response[tandemv1.LeaseResponse], error) {
	gives := g.gives()
	res, err := g.Keeper.Lease(ctx, r)
	if epoch, _ := g.Seen(); err == nil && gives && r.Msg.GetEpoch() >= uint64(epoch) {
		res.Msg.Granted, res.Msg.Ballot.RemainingUs = true, 0
	}
	return res, err
}

func (g *generous) Release(ctx context.Context, r *connect.Request[tandemv1.ReleaseRequest]) (*connect.Response[tandemv1.ReleaseResponse], error) {
	if epoch, _ := g.Seen(); uint64(epoch) == r.Msg.GetEpoch() {
		g.free = epoch
	}
	return g.Keeper.Release(ctx, r)
}

// refresh makes an order look fresh.
func (b sabotage) refresh(order *tandemv1.Order, k *voter.Keeper) {
	if b == noFreshness {
		order.Nonce = k.Nonce()
	}
}

// froze has a watchdog take one that is frozen for dead.
func (b sabotage) froze(s *sim, p *process) {
	if b != slowIsDead {
		return
	}
	for _, seat := range s.seats {
		if seat.director == p.place {
			time.AfterFunc(100*time.Millisecond, func() { seat.send(local.Gone{PID: p.pid}) })
		}
	}
}

// sabotages are those that the simulation must catch, with the invariants that
// may be broken first, and those of which it is known that it does not.
var sabotages = []struct {
	sabotage
	breaks string // "": nothing here sees it
	plot   plot   // that it shows in; nil: any
}{
	{promotes, "I1 I4 I5", nil},
	{overLive, "I1 I4 I5", nil},
	{oneVote, "I1 I4 I5", minority},
	{promisesAll, "", nil},
	{forgetsLease, "I1 I4 I5", forgottenLeases},
	{forgetsEpoch, "I2", nil},
	{noSilence, "I1 I4 I5", forgottenPromise},
	{fromArrival, "I1 I4 I5", nil},
	{noMargin, "", nil},
	{noGuard, "", nil},
	{atOnce, "", partingWords},
	{slowIsDead, "I8", nil},
	{noFencing, "I3 I4", nil},
	{noFreshness, "I4", lateFence},
	{noGate, "I5", stranded},
	{hangsUp, "I6", nil},
}

// sabotageSeeds is how many seeds a sabotage is given to be caught in.
const sabotageSeeds = 400

func TestSimulatedSabotage(t *testing.T) {
	t.Parallel()
	if !simulating() || os.Getenv("TANDEM_SIM_SEED") != "" {
		t.Skip("make sim does it")
	}
	for _, c := range sabotages {
		t.Run(string(c.sabotage), func(t *testing.T) {
			t.Parallel()
			if c.breaks == "" {
				t.Skip("other rules keep it from showing here; the search of internal/authority sees it")
			}
			for seed := uint64(1); seed <= sabotageSeeds; seed++ {
				v := play(t, seed, newPlanWith(seed, c.plot), c.sabotage)
				if v.broken == "" {
					continue
				}
				if rule, _, _ := strings.Cut(v.broken, ":"); !strings.Contains(c.breaks, rule) {
					continue // not what it is known by
				}
				t.Logf("seed %d, %v: %s", seed, v.lasted.Round(time.Millisecond), v.broken)
				return
			}
			t.Errorf("not caught in %d seeds", sabotageSeeds)
		})
	}
}
