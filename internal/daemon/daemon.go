// Package daemon is what every long-running process of Tandem does the same
// way: flags, logs, signals, exit status, metrics, and its life under systemd.
package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"tandem/internal/config"
	"tandem/internal/rpc"
)

// Exit statuses, the same for daemons and recctl.
const (
	ExitOK     = 0
	ExitFailed = 1
	ExitUsage  = 2 // wrong use or bad configuration
)

// Version is the module's version, or the commit it was built from.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if version != "" {
		return version
	}
	return info.Main.Version
}

var version string // set by the linker

// Main is a daemon's whole main: it reads --config FILE over the defaults,
// runs until SIGINT or SIGTERM, and returns the exit status. --check stops
// after the configuration; --version prints it.
func Main[C config.Validator](name string, defaults C, run func(context.Context, C) error) int {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	file := flags.String("config", "/etc/tandem/"+name+".toml", "configuration `FILE`")
	check := flags.Bool("check", false, "read the configuration, report every fault, and stop")
	show := flags.Bool("version", false, "print the version and stop")
	if err := flags.Parse(os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return ExitOK
		}
		return ExitUsage
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "tandem-%s: unexpected argument %q\n", name, flags.Arg(0))
		return ExitUsage
	}
	if *show {
		fmt.Printf("tandem-%s %s\n", name, Version())
		return ExitOK
	}
	cfg, err := config.Load(*file, defaults)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return ExitUsage
	}
	if *check {
		if err := config.Inspect(*file, cfg); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return ExitUsage
		}
		fmt.Printf("%s: ok\n", *file)
		return ExitOK
	}
	defer logAs("tandem-" + name)()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends at once
	if err := run(ctx, cfg); err != nil {
		slog.Error("stopped", "err", err)
		return ExitFailed
	}
	slog.Info("stopped")
	return ExitOK
}

// NewLogger writes key=value lines with times to the millisecond.
func NewLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			a.Value = slog.StringValue(a.Value.Time().Format("2006-01-02T15:04:05.000Z07:00"))
		}
		return a
	}}))
}

// ServeMetrics answers /metrics from the registry and /healthz from healthy
// until ctx ends. An empty addr means neither is wanted.
func ServeMetrics(ctx context.Context, addr string, registry *prometheus.Registry, healthy func() error) error {
	if addr == "" {
		<-ctx.Done()
		return nil
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := healthy(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return rpc.Serve(ctx, ln, mux)
}
