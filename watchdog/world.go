package watchdog

import (
	"context"
	"log/slog"
	"net/http"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/authority"
	"tandem/internal/daemon"
	"tandem/internal/local"
	"tandem/internal/monitor"
	"tandem/internal/pair"
	"tandem/internal/rpc"
)

// World is what a watchdog reaches the others through, and the process beside it.
type World struct {
	Client connect.HTTPClient
	Probe  func(addresses []string) Prober
	Follow func(ctx context.Context, tell func(local.Event)) error // as local.Follow
	Kill   func(*local.Process) error
	Clock  func() authority.Instant // the one that the director beside it counts leases by
}

// Prober asks a director on all paths, one round at a time.
type Prober interface {
	Probe(ctx context.Context) monitor.Round
}

// network is the world that there is, over a wire.
func network(cfg Config, b beside, wire rpc.Wire, key []byte) World {
	sender := cfg.Name + "@" + b.Name // two watchdogs never share one, since two directors never share a name
	return World{
		Client: wire.NewClient(),
		Probe:  func(addresses []string) Prober { return monitor.NewProber(sender, key, addresses) },
		Follow: func(ctx context.Context, tell func(local.Event)) error {
			return local.Follow(ctx, b.Failover.Socket, tell)
		},
		Kill:  (*local.Process).Kill,
		Clock: daemon.Boottime,
	}
}

// Beside is the director on a watchdog's host, as its own configuration has it.
type Beside struct {
	Name, Group, Control, Monitor string
	Failover                      pair.Config
}

// Watchdog is one in a world that is not the network.
type Watchdog struct{ api service }

// New makes a watchdog in a world. Nothing runs yet.
func New(cfg Config, b Beside, w World, log *slog.Logger) *Watchdog {
	beside := beside(b)
	return &Watchdog{service{cfg: cfg, watch: newWatch(cfg, beside, dial(beside, w), newMetrics(prometheus.NewRegistry()), log)}}
}

// Handler answers as the watchdog.
func (w *Watchdog) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(tandemv1connect.NewWatchdogServiceHandler(&w.api))
	return mux
}

// Run watches until ctx ends.
func (w *Watchdog) Run(ctx context.Context) error { return w.api.watch.run(ctx) }
