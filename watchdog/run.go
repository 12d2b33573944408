// Package watchdog is the daemon beside a director that watches the other
// one. It has opinions and no authority: it tells the director on its host to
// seek authority, proves that one has ended, ends one that is frozen; who may
// lead the voters alone decide. Without it nothing stops, takeovers only wait.
package watchdog

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/daemon"
	"tandem/internal/pair"
	"tandem/internal/rpc"
	"tandem/internal/voter"
)

// Run watches, and votes where it is a witness, until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	daemon.Hurry(cfg.Nice)
	log := slog.Default().With("watchdog", cfg.Name)
	registry := newRegistry()
	wire := rpc.Open(cfg.TLS, cfg.identity(), log)
	wire.Register(registry)
	mux := http.NewServeMux()
	api := &service{cfg: cfg}
	mux.Handle(tandemv1connect.NewWatchdogServiceHandler(api))
	if cfg.Witness.Enabled {
		keeper, err := openWitness(cfg, log)
		if err != nil {
			return err
		}
		mux.Handle(tandemv1connect.NewVoterServiceHandler(keeper, rpc.OwnName()))
	}
	w, err := openWatch(ctx, cfg, wire, registry, log)
	if err != nil {
		return err
	}
	api.watch = w
	ln, err := net.Listen("tcp", cfg.Control)
	if err != nil {
		return fmt.Errorf("listen for control: %w", err)
	}
	wire.Announce(log, ln.Addr(), cfg.InsecureControl)
	g, ctx := errgroup.WithContext(ctx)
	healthy := func() error { return nil }
	var loops []daemon.Loop
	if w != nil {
		healthy = w.healthy
		loops = []daemon.Loop{{Name: "decision", Alive: func(context.Context) error { return w.healthy() }}}
		g.Go(func() error { return w.run(ctx) })
	}
	g.Go(func() error { return wire.Run(ctx) })
	g.Go(func() error { return wire.Serve(ctx, ln, mux) })
	g.Go(func() error { return daemon.ServeMetrics(ctx, cfg.Metrics, registry, healthy) })
	g.Go(func() error { return daemon.Supervise(ctx, api.sentence, loops...) })
	log.Info("watchdog started", "control", ln.Addr().String(), "watches", w != nil, "witness", cfg.Witness.Enabled)
	return g.Wait()
}

// sentence is the watchdog as its service manager shows it.
func (s *service) sentence(context.Context) string {
	if s.watch == nil {
		return witnessSays
	}
	if now := s.watch.status.Load(); now != nil {
		return now.sentence
	}
	return "looks for the first time"
}

// openWitness is a voter with nothing to record.
func openWitness(cfg Config, log *slog.Logger) (*voter.Keeper, error) {
	if err := os.MkdirAll(cfg.Witness.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("make directory of witness: %w", err)
	}
	return voter.Open(voter.Config{
		Name: cfg.Name, Group: cfg.Witness.Group, Path: filepath.Join(cfg.Witness.Dir, "authority.json"), Profile: cfg.Witness.Profile,
		Boot: rpc.NewBootID(), Clock: daemon.Boottime, Log: log,
	})
}

// openWatch wires what watches: nil for a mere witness.
func openWatch(ctx context.Context, cfg Config, wire rpc.Wire, registry *prometheus.Registry, log *slog.Logger) (*watch, error) {
	if cfg.DirectorConfig == "" {
		return nil, nil
	}
	b, err := readBeside(cfg.DirectorConfig)
	if nothingBeside(err) && cfg.Witness.Enabled {
		log.Info("no director to watch here", "why", err)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	key, err := b.Failover.Key()
	if err != nil {
		return nil, fmt.Errorf("read monitor key: %w", err)
	}
	w := newWatch(cfg, b, dial(b, network(cfg, b, wire, key)), newMetrics(registry), log)
	if cfg.FailbackFile != "" && b.Failover.Preferred { // only the preferred one's watchdog decides on failback
		w.remember(cfg.FailbackFile, time.Now())
	}
	if unit, err := openSystemd(ctx, cfg.Unit); err != nil {
		log.Warn("no systemd: a director that hangs is not restarted", "unit", cfg.Unit, "err", err)
	} else {
		w.unit = unit
	}
	return w, nil
}

// dial makes what speaks to everyone. Nothing is connected yet.
func dial(b beside, w World) others {
	o := others{
		peer: w.Probe(b.Failover.PeerMonitor), local: w.Probe([]string{reachable(b.Monitor)}), follow: w.Follow, kill: w.Kill, clock: w.Clock,
		commands:    tandemv1connect.NewDirectorServiceClient(w.Client, "http://"+reachable(b.Control)),
		peerCommand: tandemv1connect.NewDirectorServiceClient(w.Client, "http://"+b.Failover.Peer),
		rival:       tandemv1connect.NewPeerServiceClient(w.Client, "http://"+b.Failover.Peer),
	}
	for _, address := range b.Failover.Voters {
		o.voters = append(o.voters, tandemv1connect.NewVoterServiceClient(w.Client, "http://"+address))
	}
	if b.Failover.PeerWatchdog != "" {
		o.neighbour = tandemv1connect.NewWatchdogServiceClient(w.Client, "http://"+b.Failover.PeerWatchdog)
	}
	return o
}

func newWatch(cfg Config, b beside, o others, m *metrics, log *slog.Logger) *watch {
	auto, hours := b.Failover.Return()
	rules := Rules{
		Timing: pair.Profiles[b.Failover.Profile], Preferred: b.Failover.Preferred, Auto: auto, Hours: hours,
		FailbackHold: b.Failover.FailbackHold.Std(), Interval: cfg.ProbeInterval.Std(), Misses: cfg.ProbeMisses,
		CTIGrace: cfg.CTIGrace.Std(), RestartAfter: cfg.RestartAfter.Std(),
	}
	now := time.Now()
	return &watch{
		name: cfg.Name, group: b.Group, profile: b.Failover.Profile, rules: rules, others: o, log: log, metrics: m,
		events: make(chan func(time.Time, View) View), done: make(chan struct{}), notes: make(chan memory, 1), busy: map[Action]bool{}, tried: map[Action]time.Time{}, said: map[Action]string{},
		view: View{
			Rules: rules, Votes: make([]Vote, len(o.voters)),
			// Whoever is not heard from now on is silent, not whoever was not heard before.
			Local: Local{Name: b.Name, Beat: now, Answered: now}, Peer: Peer{Name: b.Failover.Peer, Paths: len(b.Failover.PeerMonitor)},
		},
	}
}
