package watchdog

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/authority"
	"tandem/internal/local"
)

// unit is the local director's, as systemd has it.
type unit interface {
	Active(ctx context.Context) (bool, error)
	Restart(ctx context.Context) error
}

// others are all those that a watchdog speaks to.
type others struct {
	peer, local Prober
	follow      func(ctx context.Context, tell func(local.Event)) error
	kill        func(*local.Process) error
	clock       func() authority.Instant
	voters      []tandemv1connect.VoterServiceClient
	commands    tandemv1connect.DirectorServiceClient // of the local director
	peerCommand tandemv1connect.DirectorServiceClient
	rival       tandemv1connect.PeerServiceClient     // the peer
	neighbour   tandemv1connect.WatchdogServiceClient // beside the peer; nil for none
	unit        unit                                  // nil where there is no systemd
}

// watch is a watchdog at work. Its view belongs to its loop; all others send
// that a func.
type watch struct {
	name, group, profile string
	rules                Rules
	others
	log     *slog.Logger
	metrics *metrics
	events  chan func(now time.Time, v View) View
	hands   errgroup.Group // what is being done
	done    chan struct{}  // closed when the watchdog stops

	// The loop's own.
	view    View
	process *local.Process        // that view.Local.PID names
	busy    map[Action]bool       // being done
	tried   map[Action]time.Time  // done last
	said    map[Action]string     // what came of it, "" if it went well
	was     decision              // the last one logged
	status  atomic.Pointer[state] // for whoever asks
	path    string                // of what it remembers; empty: nothing is kept
	kept    memory                // what was last to be written there

	notes chan memory // to be written: the newest
}

type decision struct {
	action   Action
	sentence string
}

// state is what others are told.
type state struct {
	view View
	decision
	at time.Time
}

const (
	callTimeout  = 300 * time.Millisecond // of anything that is asked or told; in time for a second try
	switchLimit  = 10 * time.Second       // for a planned switch-over
	switchAgain  = 5 * time.Second        // after one that was refused
	calm         = time.Second            // between two questions to voters when all is well
	restartAgain = time.Minute
)

// post has the loop do something; it gives up when the watchdog stops.
func (w *watch) post(f func(time.Time, View) View) {
	select {
	case w.events <- f:
	case <-w.done:
	}
}

// run watches until ctx ends.
func (w *watch) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { close(w.done) })
	defer stop()
	g.Go(func() error { return w.loop(ctx) })
	g.Go(func() error { return w.keep(ctx) })
	g.Go(func() error { return w.probePeer(ctx) })
	g.Go(func() error { return w.probeLocal(ctx) })
	g.Go(func() error {
		return w.follow(ctx, func(e local.Event) {
			w.post(func(now time.Time, v View) View {
				if c, ok := e.(local.Connected); ok {
					w.process = c.Process
				}
				return v.followed(now, e)
			})
		})
	})
	for n := range w.voters {
		g.Go(func() error { return w.poll(ctx, n) })
	}
	if w.unit != nil {
		g.Go(func() error { return w.inspect(ctx) })
	}
	err := g.Wait()
	w.hands.Wait()
	return err
}

// loop owns the view: it decides anew after everything that happens, and at
// least once in an interval.
func (w *watch) loop(ctx context.Context) error {
	tick := time.NewTicker(w.rules.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case f := <-w.events:
			w.view = f(time.Now(), w.view)
		case <-tick.C:
		}
		w.decide(ctx, time.Now())
	}
}

func (w *watch) decide(ctx context.Context, now time.Time) {
	w.view = w.view.settle(now)
	w.note(now)
	action, sentence := Decide(now, w.view)
	if last := w.said[action]; last != "" && now.Sub(w.tried[action]) < restartAgain {
		sentence += "; last time: " + last
	}
	w.tell(decision{action, sentence})
	w.status.Store(&state{w.view, decision{action, sentence}, now})
	w.metrics.show(w.view, now)
	w.act(ctx, action, sentence, now)
}

// tell logs a decision when it is another one, not when only its figures are.
func (w *watch) tell(d decision) {
	if d.action == w.was.action && withoutFigures(d.sentence) == withoutFigures(w.was.sentence) {
		return
	}
	w.was = d
	w.log.Info("decision", "action", d.action.String(), "why", d.sentence)
}

func withoutFigures(sentence string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, sentence)
}

// probePeer probes once in an interval, and tells how late it was itself.
func (w *watch) probePeer(ctx context.Context) error {
	return w.every(ctx, func(roundCtx context.Context, late time.Duration) {
		r := w.peer.Probe(roundCtx)
		late = max(late, time.Since(r.At)-w.rules.Interval)
		w.metrics.probed(r, late > w.rules.Interval/2)
		w.post(func(now time.Time, v View) View { return v.probed(now, r, late) })
	})
}

func (w *watch) probeLocal(ctx context.Context) error {
	return w.every(ctx, func(roundCtx context.Context, _ time.Duration) {
		r := w.local.Probe(roundCtx)
		w.post(func(now time.Time, v View) View { return v.answered(now, r) })
	})
}

// every calls round at each interval, with a context that ends with it, and by
// how much it comes late.
func (w *watch) every(ctx context.Context, round func(ctx context.Context, late time.Duration)) error {
	due := time.Now()
	for {
		now := time.Now()
		roundCtx, cancel := context.WithDeadline(ctx, now.Add(w.rules.Interval))
		round(roundCtx, now.Sub(due))
		cancel()
		if due = due.Add(w.rules.Interval); time.Since(due) > w.rules.Interval { // what was missed is not made up for
			due = time.Now()
		}
		if !pause(ctx, time.Until(due)) {
			return nil
		}
	}
}

// pause waits, and reports whether to go on.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(max(0, d)):
		return true
	}
}

// poll asks a voter who has its lease: now and then, and at every interval
// while the peer is suspect.
func (w *watch) poll(ctx context.Context, voter int) error {
	for {
		asked := time.Now()
		ballot, err := w.query(ctx, voter)
		rtt := time.Since(asked)
		if err == nil {
			w.post(func(now time.Time, v View) View { return v.voted(now, voter, ballot, rtt) })
		}
		for waited := time.Duration(0); waited < calm; waited += w.rules.Interval {
			if !pause(ctx, w.rules.Interval) {
				return nil
			}
			if s := w.status.Load(); s != nil && s.view.Peer.Misses > 0 {
				break
			}
		}
	}
}

func (w *watch) query(ctx context.Context, voter int) (*tandemv1.Ballot, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := w.voters[voter].Query(ctx, connect.NewRequest(&tandemv1.QueryRequest{Group: w.group, Profile: w.profile}))
	if err != nil {
		return nil, err
	}
	return res.Msg.GetBallot(), nil
}

// inspect asks systemd about the local director now and then.
func (w *watch) inspect(ctx context.Context) error {
	for pause(ctx, calm) {
		callCtx, cancel := context.WithTimeout(ctx, calm)
		active, err := w.unit.Active(callCtx)
		cancel()
		w.post(func(_ time.Time, v View) View {
			v.Local.Unit = err == nil && active
			return v
		})
	}
	return nil
}
