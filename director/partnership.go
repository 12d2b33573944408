package director

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/authority"
	"tandem/internal/call"
	"tandem/internal/local"
	"tandem/internal/monitor"
)

const (
	// turning is how long ago the owner loop may last have turned for this
	// director to be fit to lead: it turns twenty times a second.
	turning = time.Second
	// loopWait is how long a watchdog's question waits for the owner loop. A
	// loop that is slower looks dead to the watchdog, as it is meant to.
	loopWait = 80 * time.Millisecond
	// unheard is how long a peer or voter is silent before that is said.
	unheard = 2 * time.Second
	// parting bounds how long a stopping director waits for its voters and its
	// peer to hear that it gives its authority back.
	parting = 500 * time.Millisecond
)

// partnership is what a director has because it is one of two: the elector,
// those it asks, and those that watch it.
type partnership struct {
	director *director
	cfg      Config
	elector  *elector
	boxes    []*ballotBox
	peer     *peerLink
	monitor  net.PacketConn
	key      []byte
	watched  *local.Server
	beat     func(local.Report) // tells the watchdog on this host; never nil
	metrics  *monitor.Metrics
	log      *slog.Logger
}

func newPartnership(d *director) *partnership {
	p := &partnership{director: d, cfg: d.cfg, log: d.log, metrics: monitor.NewMetrics(d.registry), beat: func(local.Report) {}}
	f := d.cfg.Failover
	d.right.profile = f.Profile
	p.peer = newPeerLink(d.cfg, d.world.client(), func() string { return d.loop().ctiWord() }, p.reach)
	p.elector = newElector(f.Authority(), d.right, d.world, p.able, d.log)
	p.elector.office, p.elector.rival = p, p.peer
	for _, address := range p.electorate() {
		box := newBallotBox(address, d.cfg, d.world.client(), p.nonceTo(address))
		p.boxes = append(p.boxes, box)
		p.elector.voters = append(p.elector.voters, box)
	}
	d.registry.MustRegister(newAuthorityGauges(p))
	return p
}

// listen binds what watchdogs reach.
func (p *partnership) listen() (err error) {
	if p.key, err = p.cfg.Failover.Key(); err != nil {
		return fmt.Errorf("read monitor key: %w", err)
	}
	if p.monitor, err = net.ListenPacket("udp", p.cfg.Monitor); err != nil {
		return fmt.Errorf("listen for monitoring: %w", err)
	}
	if p.watched, err = local.Listen(p.cfg.Failover.Socket); err != nil {
		p.monitor.Close()
		return err
	}
	p.beat = p.watched.Beat
	return nil
}

func (p *partnership) close() {
	p.monitor.Close()
	over, cancel := context.WithCancel(context.Background())
	cancel()
	p.watched.Run(over) // closes the socket
}

// electorate are the addresses of all who are leased: those that vote first, in
// the order of the configuration, then the other recorders.
func (p *partnership) electorate() []string {
	all := slices.Clone(p.cfg.Failover.Voters)
	for _, r := range p.cfg.Recorders {
		if !slices.Contains(all, r.Address) {
			all = append(all, r.Address)
		}
	}
	return all
}

// nonceTo passes a voter's nonce on to the link of the recorder that it is;
// nil for a witness, which takes no orders.
func (p *partnership) nonceTo(address string) func(uint64) {
	i := slices.IndexFunc(p.cfg.Recorders, func(r RecorderConfig) bool { return r.Address == address })
	if i < 0 {
		return nil
	}
	name := call.RecorderName(p.cfg.Recorders[i].Name)
	return func(nonce uint64) { p.director.loop().links[name].nonce.Store(nonce) }
}

// run keeps the authority and answers watchdogs until ctx ends.
func (p *partnership) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.elector.run(ctx) })
	g.Go(func() error { return monitor.Serve(ctx, p.monitor, p.key, p.probed, p.metrics) })
	g.Go(func() error { return p.watched.Run(ctx) })
	g.Go(func() error { return p.tell(ctx) })
	g.Go(func() error { return p.stepAside(ctx) })
	return g.Wait()
}

// able reports whether this director could lead, or says why not. What neither
// of the two can see, be it the recorders or the switch, is no reason to have
// nobody in charge; and recorders come before the switch, lest each of the two
// leave it to the other.
func (p *partnership) able() (bool, string) {
	l := p.director.loop()
	if since := p.elector.clock().Sub(authority.Instant(l.turned.Load())); since > turning {
		return false, fmt.Sprintf("its owner loop has not turned for %v", since.Round(time.Millisecond))
	}
	peer, reach, cti := p.peer.heard(unheard), p.reach(), l.ctiWord()
	switch {
	case peer == nil:
	case reach == 0 && peer.reach > 0:
		return false, fmt.Sprintf("it hears no recorder, %s hears %d", peer.name, peer.reach)
	case cti != "up" && peer.cti == "up" && (reach == 0 || peer.reach > 0):
		return false, "its CTI link is " + cti + ", that of " + peer.name + " is up"
	}
	return true, ""
}

// reach counts the recorders that this director has heard lately: within a
// lease by one in charge, which asks them in every round.
func (p *partnership) reach() (n int) {
	lately := 2 * lookEvery * p.elector.cfg.H
	if p.elector.view.Load().director.Phase.Holds() {
		lately = p.elector.cfg.LD
	}
	for _, b := range p.boxes {
		if b.nonce == nil {
			continue // a witness
		}
		if h := b.last.Load(); h != nil && time.Since(h.at) < lately {
			n++
		}
	}
	return n
}

// stepAside hands over to a peer that hears recorders while this director, in
// charge, hears none: it could order nothing. With its peer's promise it would
// stay in charge for as long as the cut lasts.
func (p *partnership) stepAside(ctx context.Context) error {
	tick := time.NewTicker(p.elector.cfg.H)
	defer tick.Stop()
	for helpless := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		peer := p.peer.heard(p.elector.cfg.LD)
		if p.elector.view.Load().director.Phase != authority.Active || p.reach() > 0 || peer == nil || peer.reach == 0 {
			helpless = 0
			continue
		}
		if helpless += p.elector.cfg.H; helpless < p.elector.cfg.LD { // a new holder has asked them all several times by then
			continue
		}
		helpless = 0
		why := fmt.Sprintf("%s hears no recorder, %s hears %d", p.cfg.Name, peer.name, peer.reach)
		if _, err := p.handOver(ctx, &tandemv1.FailoverRequest{Actor: p.cfg.Name, Reason: why}, peer.name); err != nil {
			p.log.Warn("step aside", "why", why, "err", err)
		}
	}
}

// enthrone implements office.
func (p *partnership) enthrone(epoch uint64) {
	p.beat(p.report()) // should the process end now, this is what is to be released
	p.reigning(func(now time.Time, f *floor) { f.enthrone(now, epoch) })
}

// reigning has the floor of the present reign do something, unless that is
// about to end: its picture is old, and the next one is told again.
func (p *partnership) reigning(do func(now time.Time, f *floor)) {
	r := p.director.reign.Load()
	select {
	case <-r.over:
	default:
		r.loop.post(do)
	}
}

// lead implements office.
func (p *partnership) lead(epoch uint64) {
	p.reigning(func(now time.Time, f *floor) { f.guarded(now, epoch) })
}

// abdicate implements office.
func (p *partnership) abdicate() { p.director.reign.Load().end() }

// probed answers a watchdog, by way of the owner loop and of the elector.
func (p *partnership) probed() (monitor.Reply, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), loopWait)
	defer cancel()
	l := p.director.loop()
	r := monitor.Reply{Director: p.cfg.Name, Group: p.cfg.Group, Preferred: p.cfg.Failover.Preferred, Loops: map[string]uint64{"floor": l.turns.Load()}}
	if err := l.ask(ctx, func(_ time.Time, f *floor) {
		r.CTI, r.Sessions, r.Channels = f.link.word(), uint32(len(f.sessions)), uint32(len(f.channels))
		for _, rec := range f.recorders {
			if rec.reachable {
				r.Recorders++
			}
		}
	}); err != nil {
		return monitor.Reply{}, false // the loop may write r yet
	}
	if err := p.elector.call(ctx, func(authority.Instant) {}); err != nil {
		return monitor.Reply{}, false
	}
	v := p.elector.view.Load()
	r.Role, r.Epoch, r.Basis, r.AuthorityMS = v.director.Phase.String(), uint64(v.epoch()), v.basis.String(), v.remaining.Milliseconds()
	r.Eligible, r.Why = v.able, v.why
	r.Loops["elector"] = v.rounds
	if peer := p.peer.heard(unheard); peer != nil {
		r.Peer = peer.role
	}
	return r, true
}

// tell tells the watchdog on this host, as often as the elector turns.
func (p *partnership) tell(ctx context.Context) error {
	tick := time.NewTicker(p.elector.cfg.H / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		// By way of the elector: one that is stuck must fall silent.
		if p.elector.call(ctx, func(authority.Instant) {}) != nil {
			continue
		}
		p.beat(p.report())
	}
}

// report is what the watchdog on this host is told. An epoch that it only knows
// of is the peer's: it must not be released should this process end.
func (p *partnership) report() local.Report {
	v := p.elector.view.Load()
	return local.Report{
		Role: v.director.Phase.String(), Epoch: uint64(v.director.Epoch), Holds: v.basis != authority.None, AuthorityMS: v.remaining.Milliseconds(),
		Loops: map[string]uint64{"floor": p.director.loop().turns.Load(), "elector": v.rounds}, Eligible: v.able, Why: v.why,
	}
}

// leave gives the authority back at the end of the process: what was begun is
// told first, and the peer is asked to take over.
func (p *partnership) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	p.wrapUp(ctx, cause{p.cfg.Name, "stopped"})
	p.resign(ctx)
	p.await(parting)
}

// await waits until what was sent to others has been answered.
func (p *partnership) await(most time.Duration) {
	tick := time.NewTicker(gather)
	defer tick.Stop()
	for deadline := time.Now().Add(most); time.Now().Before(deadline) && p.underWay(); {
		<-tick.C
	}
}

func (p *partnership) underWay() bool {
	return p.peer.pending.Load() > 0 || slices.ContainsFunc(p.boxes, func(b *ballotBox) bool { return b.pending.Load() > 0 })
}

// wrapUp has the floor end what it has begun, and begin nothing.
func (p *partnership) wrapUp(ctx context.Context, c cause) {
	ctx, cancel := context.WithTimeout(ctx, wrapUpWait)
	defer cancel()
	p.elector.call(ctx, func(now authority.Instant) {
		p.elector.wanted = c
		p.elector.step(authority.Drain{}, now)
	})
	l := p.director.loop()
	l.post(func(_ time.Time, f *floor) { f.finish() })
	l.await(ctx, func(f *floor) bool { return f.idle() })
}

// resign gives the authority back and returns the epoch that is over, 0 if there was none.
func (p *partnership) resign(ctx context.Context) uint64 {
	var epoch uint64
	if err := p.elector.call(ctx, func(now authority.Instant) {
		c := p.elector.wanted
		p.peer.parting.Store(&c)
		epoch = uint64(p.elector.director.Epoch)
		p.elector.step(authority.Resign{}, now)
	}); err != nil {
		return 0
	}
	return epoch
}
