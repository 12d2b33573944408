// Package director is the daemon that stands between the telephony platform
// and the recorders: it learns who is logged on, gives each turret to a
// recorder, has the platform send the media there, and passes call events on.
// Media never flows through it, and it keeps no durable state: what it needs
// after a restart the recorders hold. Of two directors of a group one is in
// charge; the other listens, and is ready.
package director

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/director/provider"
	"tandem/director/provider/unigy"
	"tandem/internal/authority"
	"tandem/internal/call"
	"tandem/internal/daemon"
	"tandem/internal/pki"
	"tandem/internal/rpc"
)

// farewell bounds how long a stopping director waits for its recorders to
// take the records they have not yet been told.
const farewell = 2 * time.Second

// Run directs until ctx ends. It hangs nothing up: media goes on, and the
// next director adopts the dialogs.
func Run(ctx context.Context, cfg Config) error {
	daemon.Hurry(cfg.Nice)
	log := slog.Default().With("director", cfg.Name)
	d, err := open(cfg, network(rpc.Open(cfg.TLS, pki.Identity{Role: pki.Director, Name: cfg.Name}, log)), log)
	if err != nil {
		return err
	}
	return d.run(ctx)
}

// director is all of it, wired and not yet running.
type director struct {
	cfg      Config
	world    world
	password string
	right    *right
	control  net.Listener
	reign    atomic.Pointer[reign] // the present one
	pair     *partnership          // nil: it stands alone
	comparer *comparer             // nil: there is no other group
	started  time.Time

	registry *prometheus.Registry
	failures *prometheus.CounterVec
	sip      *unigy.Metrics
	log      *slog.Logger
}

// world is what a director reaches the others through.
type world struct {
	wire     rpc.Wire                               // for those who call this director
	client   func() client                          // speaks to one other process
	clock    func() authority.Instant               // that leases are counted by
	spread   func(most time.Duration) time.Duration // somewhere from 0 on, so that rounds of several do not keep meeting
	platform func(unigy.Config, func(provider.Event)) (platform, error)
}

// client makes calls, and can give its connections up.
type client interface {
	Do(*http.Request) (*http.Response, error)
	CloseIdleConnections()
}

// platform is the switch's side; see unigy.Provider.
type platform interface {
	Run(ctx context.Context) error
	SIPAddr() netip.AddrPort
	Attach(req provider.Attach)
	Detach(channel call.ChannelID)
	Adopt(channel call.ChannelID, dialog []byte)
}

// network is the world that there is, over a wire.
func network(wire rpc.Wire) world {
	return world{
		wire:     wire,
		client:   func() client { return wire.NewClient() },
		clock:    daemon.Boottime,
		spread:   func(most time.Duration) time.Duration { return rand.N(most) },
		platform: func(cfg unigy.Config, emit func(provider.Event)) (platform, error) { return unigy.Open(cfg, emit) },
	}
}

// open binds the sockets and wires the parts.
func open(cfg Config, w world, log *slog.Logger) (*director, error) {
	d, err := assemble(cfg, w, log)
	if err != nil {
		return nil, err
	}
	if d.control, err = net.Listen("tcp", cfg.Control); err != nil {
		return nil, fmt.Errorf("listen for control: %w", err)
	}
	if d.pair != nil {
		if err := d.pair.listen(); err != nil {
			d.control.Close()
			return nil, err
		}
	}
	first, err := d.newReign()
	if err != nil {
		d.close()
		return nil, err
	}
	d.reign.Store(first)
	return d, nil
}

// assemble wires the parts that need no sockets.
func assemble(cfg Config, w world, log *slog.Logger) (*director, error) {
	password, err := cfg.Provider.Unigy.password()
	if err != nil {
		return nil, fmt.Errorf("read password: %w", err)
	}
	d := &director{
		cfg: cfg, world: w, password: password, started: time.Now(), log: log,
		right: &right{director: cfg.Name, group: cfg.Group, secondary: cfg.Secondary, clock: w.clock},
	}
	d.registry, d.failures = newRegistry()
	d.sip = unigy.NewMetrics(d.registry)
	d.registry.MustRegister(newGauges(d))
	w.wire.Register(d.registry)
	if cfg.pair() != nil {
		d.pair = newPartnership(d)
	}
	d.comparer = newComparer(d)
	return d, nil
}

func (d *director) close() {
	d.control.Close()
	if d.pair != nil {
		d.pair.close()
	}
}

// run serves until ctx ends. A pair's authority is given back only after what
// was begun has been told, and what answers others goes on until then.
func (d *director) run(ctx context.Context) error {
	d.world.wire.Announce(d.log, d.control.Addr(), d.cfg.InsecureControl)
	d.log.Info("director started", "group", d.cfg.Group, "copy", d.cfg.copy(), "recorders", len(d.cfg.Recorders), "peer", d.cfg.Failover.Peer, "sip", d.reign.Load().loop.provider.SIPAddr())
	late, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	g, inner := errgroup.WithContext(late)
	g.Go(func() error { return d.world.wire.Run(inner) })
	g.Go(func() error { return d.world.wire.Serve(inner, d.control, d.handler()) })
	g.Go(func() error { return daemon.ServeMetrics(inner, d.cfg.Metrics, d.registry, d.healthy) })
	if d.pair != nil {
		g.Go(func() error { return d.pair.run(inner) })
	}
	if d.comparer != nil {
		g.Go(func() error { return d.comparer.run(inner) })
	}
	g.Go(func() error { return d.reigns(inner) })
	serving, stop := context.WithCancel(inner)
	defer stop()
	g.Go(func() error { return daemon.Supervise(serving, d.sentence, d.loops()...) })
	select {
	case <-ctx.Done():
	case <-inner.Done(): // something failed
	}
	stop()
	if d.pair != nil {
		d.pair.leave()
	}
	end()
	return g.Wait()
}

// reigns runs one reign after the other until ctx ends: each begins by
// listening, and ends when another director is in charge.
func (d *director) reigns(ctx context.Context) error {
	for r := d.reign.Load(); ; {
		if err := r.run(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		var err error
		for r, err = d.newReign(); err != nil; r, err = d.newReign() {
			d.log.Error("cannot listen to the floor", "err", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(time.Second):
			}
		}
		d.reign.Store(r)
		d.pair.elector.repeat()
	}
}

func (d *director) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(tandemv1connect.NewDirectorServiceHandler(&service{director: d}))
	if d.pair != nil {
		mux.Handle(tandemv1connect.NewPeerServiceHandler(&peerService{pair: d.pair}, rpc.OwnName()))
	}
	return mux
}

// worries is what is wrong beside the floor.
func (d *director) worries(now time.Time) map[alarmKey]*alarm {
	all := make(map[alarmKey]*alarm)
	if d.pair != nil {
		all = d.pair.worries(now)
	}
	maps.Copy(all, d.comparer.worries())
	if text, worried := d.world.wire.Worry(now); worried {
		all[alarmKey{"certificate", d.cfg.Name}] = &alarm{now, d.cfg.Name + ": " + text}
	}
	return all
}

// healthy is what /healthz answers.
func (d *director) healthy() error { return daemon.Healthy(d.loops()...) }

// loops are those without which a director directs nothing.
func (d *director) loops() []daemon.Loop {
	loops := []daemon.Loop{{Name: "owner", Alive: func(ctx context.Context) error {
		err := d.loop().ask(ctx, func(time.Time, *floor) {})
		if errors.Is(err, context.Canceled) {
			return nil // it has ended: between two reigns there is none
		}
		return err
	}}}
	if d.pair != nil {
		loops = append(loops, daemon.Loop{Name: "elector", Alive: func(ctx context.Context) error {
			return d.pair.elector.call(ctx, func(authority.Instant) {})
		}})
	}
	return loops
}

// sentence is the director as its service manager shows it.
func (d *director) sentence(ctx context.Context) string {
	role, epoch := "active", d.right.epoch()
	if d.pair != nil {
		v := d.pair.elector.view.Load()
		role, epoch = v.director.Phase.String(), uint64(v.epoch())
	}
	sessions, channels := 0, 0
	if err := d.loop().ask(ctx, func(_ time.Time, f *floor) { sessions, channels = len(f.sessions), len(f.channels) }); err != nil {
		return fmt.Sprintf("%s, epoch %d", role, epoch)
	}
	return fmt.Sprintf("%s, epoch %d: %d sessions, %d channels", role, epoch, sessions, channels)
}

// loop is the present reign's.
func (d *director) loop() *loop { return d.reign.Load().loop }

// reign is a director's picture of the floor with all that draws and follows
// it: the floor in its loop, the provider that tells it what the switch says, a
// link to each recorder. It begins by listening; one that has led ends with
// its authority, because what another one did since is not in the picture.
type reign struct {
	loop *loop
	over chan struct{} // closed when it is to end
	end  func()
}

func (d *director) newReign() (*reign, error) {
	l := newLoop(newFloor(d.cfg, time.Now(), d.log), d.right)
	l.worries = d.worries
	if d.pair != nil {
		l.outranked = d.pair.elector.saw
	}
	for _, r := range d.cfg.Recorders {
		link := newLink(r, d.cfg, d.world.client(), l, d.failures, d.log)
		l.links[link.name] = link
	}
	u := d.cfg.Provider.Unigy
	var err error
	l.provider, err = d.world.platform(unigy.Config{
		Servers: u.Servers, User: u.User, Password: d.password, Client: d.cfg.Name,
		Copy: d.cfg.copy(), SIPListen: u.sipListen(), AttachRate: u.AttachRate,
		Gate: d.right.allow, Metrics: d.sip, Log: d.log,
	}, l.emit)
	if err != nil {
		return nil, fmt.Errorf("open provider: %w", err)
	}
	r := &reign{loop: l, over: make(chan struct{})}
	r.end = sync.OnceFunc(func() { close(r.over) })
	return r, nil
}

// run goes on until ctx or the reign ends. The loop and the links outlive the
// platform's side, so that what it said last still reaches the recorders.
func (r *reign) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-r.over:
			cancel()
		case <-ctx.Done():
		}
	}()
	late, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var inner errgroup.Group
	inner.Go(func() error { return r.loop.run(late) })
	for _, link := range r.loop.links {
		inner.Go(func() error { return link.run(late) })
	}
	err := r.loop.runProvider(ctx)
	r.loop.settle()
	end()
	return errors.Join(err, inner.Wait())
}

// runProvider speaks to the platform. One that stands alone first learns what
// the recorders hold: its first snapshot is compared with that.
func (l *loop) runProvider(ctx context.Context) error {
	if l.outranked == nil {
		select {
		case <-ctx.Done():
			// Sockets are bound already; running with an ended context closes them.
		case <-l.known:
		}
	}
	return l.provider.Run(ctx)
}

// settle waits until the recorders have taken what they are to be told, as
// long as there is the right to tell them.
func (l *loop) settle() {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	l.await(ctx, func(f *floor) bool { return f.quiet() })
}

// await asks the floor again and again until done says so, the right to act is
// gone, or ctx ends.
func (l *loop) await(ctx context.Context, done func(f *floor) bool) {
	tick := time.NewTicker(gather)
	defer tick.Stop()
	for quiet := false; !quiet; {
		if l.right.allow() != nil || l.ask(ctx, func(_ time.Time, f *floor) { quiet = done(f) }) != nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
