// Package director is the daemon that stands between the telephony platform
// and the recorders: it learns who is logged on, gives each turret to a
// recorder, has the platform send the media there, and passes call events on.
// Media never flows through it, and it keeps no durable state: what it needs
// after a restart the recorders hold.
package director

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/director/provider/unigy"
	"tandem/internal/daemon"
	"tandem/internal/rpc"
)

// farewell bounds how long a stopping director waits for its recorders to
// take the records they have not yet been told.
const farewell = 2 * time.Second

// Run directs until ctx ends. It hangs nothing up: media goes on, and the
// next director adopts the dialogs.
func Run(ctx context.Context, cfg Config) error {
	daemon.Hurry(cfg.Nice)
	d, err := open(cfg, slog.Default().With("director", cfg.Name))
	if err != nil {
		return err
	}
	return d.run(ctx)
}

// director is all of it, wired and not yet running.
type director struct {
	cfg      Config
	loop     *loop
	control  net.Listener
	registry *prometheus.Registry
	log      *slog.Logger
}

// open binds the sockets and wires the parts: the floor in its loop, the
// provider that tells it what the switch says, a link to each recorder.
func open(cfg Config, log *slog.Logger) (*director, error) {
	password, err := cfg.Provider.Unigy.password()
	if err != nil {
		return nil, fmt.Errorf("read password: %w", err)
	}
	d := &director{cfg: cfg, log: log}
	right := &authority{director: cfg.Name, group: cfg.Group, secondary: cfg.Secondary}
	d.loop = newLoop(newFloor(cfg, time.Now(), log), right)
	var failures *prometheus.CounterVec
	d.registry, failures = newRegistry()
	d.registry.MustRegister(newGauges(d.loop))
	for _, r := range cfg.Recorders {
		link := newLink(r, cfg, d.loop, failures, log)
		d.loop.links[link.name] = link
	}
	d.control, err = net.Listen("tcp", cfg.Control)
	if err != nil {
		return nil, fmt.Errorf("listen for control: %w", err)
	}
	d.loop.provider, err = unigy.Open(unigy.Config{
		Servers: cfg.Provider.Unigy.Servers, User: cfg.Provider.Unigy.User, Password: password, Client: cfg.Name,
		Copy: cfg.copy(), SIPListen: cfg.Provider.Unigy.sipListen(), AttachRate: cfg.Provider.Unigy.AttachRate,
		Gate: right.allow, Metrics: unigy.NewMetrics(d.registry), Log: log,
	}, d.loop.emit)
	if err != nil {
		d.control.Close()
		return nil, fmt.Errorf("open provider: %w", err)
	}
	return d, nil
}

// run serves until ctx ends. The loop and the links outlive the platform's
// side, so that what it said last still reaches the recorders.
func (d *director) run(ctx context.Context) error {
	if d.cfg.InsecureControl {
		d.log.Warn("control API is neither encrypted nor protected: whoever reaches it may steer the floor", "control", d.control.Addr())
	} else {
		d.log.Warn("control API without TLS: loopback only", "control", d.control.Addr())
	}
	d.log.Info("director started", "group", d.cfg.Group, "copy", d.cfg.copy(), "recorders", len(d.cfg.Recorders), "sip", d.loop.provider.SIPAddr())
	late, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var inner errgroup.Group
	inner.Go(func() error { return d.loop.run(late) })
	for _, link := range d.loop.links {
		inner.Go(func() error { return link.run(late) })
	}
	outer, outerCtx := errgroup.WithContext(ctx)
	outer.Go(func() error { return d.loop.runProvider(outerCtx) })
	outer.Go(func() error { return rpc.Serve(outerCtx, d.control, d.loop.handler(d.cfg)) })
	outer.Go(func() error { return daemon.ServeMetrics(outerCtx, d.cfg.Metrics, d.registry, d.loop.healthy) })
	err := outer.Wait()
	d.loop.settle()
	end()
	return errors.Join(err, inner.Wait())
}

// runProvider speaks to the platform once it is known what the recorders
// hold: its first snapshot is compared with that.
func (l *loop) runProvider(ctx context.Context) error {
	select {
	case <-ctx.Done():
		// Sockets are bound already; running with an ended context closes them.
	case <-l.known:
	}
	return l.provider.Run(ctx)
}

func (l *loop) handler(cfg Config) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(tandemv1connect.NewDirectorServiceHandler(&service{cfg: cfg, loop: l}))
	return mux
}

// healthy asks the owner loop for a sign of life.
func (l *loop) healthy() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := l.ask(ctx, func(time.Time, *floor) {}); err != nil {
		return fmt.Errorf("owner loop does not answer: %w", err)
	}
	return nil
}

// settle waits until the recorders have taken what they are to be told.
func (l *loop) settle() {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	tick := time.NewTicker(gather)
	defer tick.Stop()
	for quiet := false; !quiet; {
		if l.ask(ctx, func(_ time.Time, f *floor) { quiet = f.quiet() }) != nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
