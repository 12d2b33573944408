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
	"strings"
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
	o, err := parse(name, os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage(name))
		return ExitOK
	case err != nil:
		fmt.Fprintf(os.Stderr, "tandem-%[1]s: %[2]v; see tandem-%[1]s --help\n", name, err)
		return ExitUsage
	case o.version:
		fmt.Printf("tandem-%s %s\n", name, Version())
		return ExitOK
	}
	cfg, err := config.Load(o.file, defaults)
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("tandem-%s: %w; --config FILE names another", name, err)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return ExitUsage
	}
	if o.check {
		if err := config.Inspect(o.file, cfg); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return ExitUsage
		}
		fmt.Printf("%s: ok\n", o.file)
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

// options are what a daemon is told when it is started: nothing else.
type options struct {
	file           string
	check, version bool
}

func defaultFile(name string) string { return "/etc/tandem/" + name + ".toml" }

// parse reads a daemon's arguments. The error is flag.ErrHelp, or says what is
// wrong with them in words for whoever typed them.
func parse(name string, args []string) (o options, err error) {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.file, "config", defaultFile(name), "")
	flags.BoolVar(&o.check, "check", false, "")
	flags.BoolVar(&o.version, "version", false, "")
	err = flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return o, err
	case err != nil:
		return o, plainly(err)
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return o, nil
}

// plainly is what the flag package says, with options as people write them.
func plainly(err error) error {
	if name, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); ok {
		return fmt.Errorf("no option --%s", name)
	}
	if name, ok := strings.CutPrefix(err.Error(), "flag needs an argument: -"); ok {
		return fmt.Errorf("--%s wants a value", name)
	}
	return err
}

func usage(name string) string {
	return fmt.Sprintf(`tandem-%s [--config FILE] [--check] [--version]

   --config FILE  read FILE instead of %s
   --check        only read it, and report every fault with its key
   --version      print the version

Exit status: 0 done, 1 failed, 2 wrong use or bad configuration.
`, name, defaultFile(name))
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
