// Package recorder is the media recorder: it opens RTP ports, keeps every
// packet, makes media files and call records of them, and serves them.
//
// It obeys one director at a time, the one with the newest epoch; everything
// it holds survives its own death.
package recorder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/call"
	"tandem/internal/daemon"
	"tandem/internal/rpc"
	"tandem/internal/voter"
	"tandem/recorder/catalog"
	"tandem/recorder/compact"
	"tandem/recorder/intake"
	"tandem/recorder/journal"
	"tandem/recorder/playback"
)

// Run records until ctx ends. Nothing it acknowledged is lost when it is
// killed instead; the next Run on the same directory goes on with it.
func Run(ctx context.Context, cfg Config) error {
	boot := rpc.NewBootID()
	slog.Info("starting", "recorder", cfg.Name, "group", cfg.Group, "version", daemon.Version(), "boot", boot)
	daemon.Hurry(cfg.Nice)
	ln, err := net.Listen("tcp", cfg.Control)
	if err != nil {
		return fmt.Errorf("listen for control: %w", err)
	}
	defer ln.Close()
	wire := rpc.Open(cfg.TLS, cfg.identity(), slog.Default())
	wire.Announce(slog.Default(), ln.Addr(), cfg.InsecureControl)
	left, err := openEstate()
	if err != nil {
		return err
	}
	r, err := open(ctx, cfg, boot, left)
	if err != nil {
		return err
	}
	defer r.catalog.Close()
	defer r.control.watch.end()

	// Packets come first: the intake ends before the journal, and the journal
	// writes what the intake gave it, whatever else is still going on. What is
	// to be kept is told to the very end.
	late, stopLate := context.WithCancel(context.WithoutCancel(ctx))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.journal.Run(late) })
	g.Go(func() error { return left.store.Run(late) })
	g.Go(func() error {
		defer stopLate()
		return r.intake.Run(ctx)
	})
	g.Go(func() error { return r.compactor.Run(ctx) })
	g.Go(func() error { return r.reporter.Run(ctx) })
	g.Go(func() error { return r.sharing.Run(ctx) })
	g.Go(func() error { return wire.Run(ctx) })
	g.Go(func() error { return wire.Serve(ctx, ln, r.handler()) })
	g.Go(func() error { return daemon.ServeMetrics(ctx, cfg.Metrics, r.metrics(wire), r.healthy) })
	g.Go(func() error { return daemon.Supervise(ctx, r.status, r.loops()...) })
	slog.Info("recording", "control", ln.Addr().String(), "dir", cfg.Dir, "keep", cfg.Media.Keep)
	return g.Wait()
}

// recorder is everything open.
type recorder struct {
	cfg         Config
	catalog     *catalog.Catalog
	journal     *journal.Writer
	intake      *intake.Intake
	compactor   *compact.Compactor
	attachments *attachments
	sharing     *sharing
	reporter    *reporter
	fence       *fence
	control     *control
	media       *mediaAPI
}

// open wires a recorder. The order is that of urgency: the ports that were
// open come first, since their audio waits in the kernel's buffers or is lost.
func open(ctx context.Context, cfg Config, boot string, left *estate) (*recorder, error) {
	journalDir, mediaDir := filepath.Join(cfg.Dir, "journal"), filepath.Join(cfg.Dir, "media")
	for _, dir := range []string{journalDir, mediaDir} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return nil, fmt.Errorf("make directory: %w", err)
		}
	}
	drain, err := openDrain(cfg.Dir)
	if err != nil {
		return nil, err
	}
	keeper, err := voter.Open(cfg.voter(boot))
	if err != nil {
		return nil, err
	}
	lastGood, err := lastWritten(journalDir)
	if err != nil {
		return nil, err
	}
	unread, err := recordedUntil(cfg.Dir, time.Now(), cfg.Journal.SyncInterval.Std()+cfg.RTP.Tick.Std())
	if err != nil {
		return nil, err
	}
	if unread.IsZero() {
		unread = lastGood
	}
	r := &recorder{cfg: cfg}
	daemon.Starting("reading the journal", startStep)
	if err := r.openIntake(boot, journalDir, unread, left); err != nil {
		return nil, err
	}
	daemon.Starting("opening the catalog", startStep)
	if r.catalog, err = catalog.Open(ctx, filepath.Join(cfg.Dir, "catalog.db")); err != nil {
		return nil, err
	}
	r.attachments = &attachments{catalog: r.catalog, intake: r.intake, host: cfg.RTP.Host, limit: cfg.Limits.MaxChannels, began: time.Now(),
		open: map[call.ChannelID]catalog.Attachment{}}
	daemon.Starting("opening channels", startStep)
	if err := r.attachments.reopen(ctx); err != nil {
		return nil, err
	}
	interrupted, err := r.catalog.InterruptLegs(ctx, lastGood)
	if err != nil {
		return nil, err
	}
	if interrupted > 0 {
		slog.Warn("legs interrupted by the last stop", "legs", interrupted, "last_good", lastGood)
	}
	r.compactor = compact.New(cfg.compactor(journalDir, mediaDir), r.catalog)
	if r.sharing, err = openSharing(cfg, r.catalog); err != nil {
		return nil, err
	}
	r.reporter = &reporter{cfg: cfg, journal: r.journal, intake: r.intake, compactor: r.compactor, attachments: r.attachments, catalog: r.catalog, sharing: r.sharing, drain: drain}
	if err := r.reporter.start(); err != nil {
		return nil, err
	}
	watch := &watch{catalog: r.catalog}
	if err := watch.begin(ctx, lastGood); err != nil {
		return nil, err
	}
	r.fence = newFence(keeper)
	r.control = &control{name: cfg.Name, group: cfg.Group, boot: boot, fence: r.fence, drain: drain, attachments: r.attachments, catalog: r.catalog, reporter: r.reporter, watch: watch}
	player := playback.New(playback.Config{Journal: journalDir, Media: mediaDir}, r.catalog)
	r.media = &mediaAPI{name: cfg.Name, catalog: r.catalog, player: player, attachments: r.attachments, journal: r.journal, sharing: r.sharing}
	return r, nil
}

// openIntake opens what packets go through, with what the recorder before left
// of them: in sockets, in receivers, in blocks.
func (r *recorder) openIntake(boot, dir string, unread time.Time, left *estate) (err error) {
	j, i := r.cfg.journal(boot), r.cfg.intake()
	if j.Memory, err = left.memory(keptBlocks); err != nil {
		return err
	}
	if i.Memory, err = left.memory(keptReceivers); err != nil {
		return err
	}
	if r.journal, err = journal.Open(dir, j); err != nil {
		return err
	}
	i.Keeper, i.Unread = left.store, unread
	if r.intake, err = intake.New(i, r.journal); err != nil {
		return err
	}
	left.share(r.intake.Inherit)
	return nil
}

func (r *recorder) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(tandemv1connect.NewRecorderServiceHandler(r.control, rpc.OwnName()))
	mux.Handle(tandemv1connect.NewVoterServiceHandler(r.fence.voter, rpc.OwnName()))
	// Compressing audio costs more than everything else about reading it.
	mux.Handle(tandemv1connect.NewMediaServiceHandler(r.media, connect.WithCompression("gzip", nil, nil)))
	return mux
}

// healthy is what /healthz answers.
func (r *recorder) healthy() error {
	if err := daemon.Healthy(r.loops()...); err != nil {
		return err
	}
	if ready, reason := r.reporter.ready(); !ready {
		return errors.New(reason)
	}
	return nil
}

// lastWritten is when the journal was last written before this start: the
// last good instant of whatever was being recorded. Now, when there is none.
func lastWritten(dir string) (time.Time, error) {
	files, err := journal.Files(dir)
	if err != nil || len(files) == 0 {
		return time.Now(), err
	}
	info, err := os.Stat(files[len(files)-1].Path)
	if err != nil {
		return time.Time{}, fmt.Errorf("read journal: %w", err)
	}
	return info.ModTime(), nil
}

func (r *recorder) metrics(wire rpc.Wire) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	wire.Register(registry)
	registry.MustRegister(&collector{r.intake, r.journal, r.reporter, r.fence.voter, r.sharing}, r.fence.refused)
	return registry
}
