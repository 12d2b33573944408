package recorder

import (
	"context"
	"log/slog"
	"sync"
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/recorder/catalog"
	"tandem/recorder/compact"
	"tandem/recorder/intake"
	"tandem/recorder/journal"
	"tandem/recorder/load"
)

// reporter measures the recorder each second, decides on readiness ten times
// a second, and wakes whoever waits when a report is out.
type reporter struct {
	cfg         Config
	journal     *journal.Writer
	intake      *intake.Intake
	compactor   *compact.Compactor
	attachments *attachments
	catalog     *catalog.Catalog
	meter       *load.Meter

	mu      sync.Mutex
	report  *tandemv1.Load // never changed once published
	changed chan struct{}  // closed when report is replaced
	legs    uint32
	stale   bool // legs must be counted again
}

// start gives the reporter, whose parts are set, its first report.
func (r *reporter) start() (err error) {
	r.changed, r.stale = make(chan struct{}), true
	r.report = &tandemv1.Load{Reason: "starting"}
	r.meter, err = load.NewMeter(r.cfg.Dir)
	return err
}

// latest is the newest report, and a channel that closes when there is a newer one.
func (r *reporter) latest() (*tandemv1.Load, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.report, r.changed
}

func (r *reporter) ready() (bool, string) {
	report, _ := r.latest()
	return report.GetReady(), report.GetReason()
}

// legsChanged has the legs counted again before the next report.
func (r *reporter) legsChanged() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stale = true
}

// Run measures until ctx ends.
func (r *reporter) Run(ctx context.Context) error {
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	var usage load.Usage
	var packets uint64
	for {
		now := time.Now()
		due := now.Sub(usage.At) >= time.Second-heartbeat/2
		if due {
			next, err := r.meter.Measure(ctx, now)
			if err != nil && ctx.Err() == nil {
				slog.Warn("load not measured", "err", err)
			}
			total := r.intake.Totals().Packets
			rate := float64(total-packets) / now.Sub(usage.At).Seconds()
			if usage.At.IsZero() {
				rate = 0
			}
			usage, packets = next, total
			r.publish(ctx, r.compose(usage, rate))
		} else if was, _ := r.latest(); was.GetReady() != r.decide(was.GetReady(), usage.DiskFree).ready {
			r.publish(ctx, r.compose(usage, was.GetPacketsPerS()))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

type readiness struct {
	ready  bool
	reason string
}

func (r *reporter) decide(was bool, diskFree uint64) (d readiness) {
	d.ready, d.reason = load.Ready(was, load.Facts{
		DiskFree: diskFree, Reserve: uint64(r.cfg.Limits.Reserve), JournalQueue: r.journal.Queue(), JournalErr: r.journal.Err(),
	})
	return d
}

func (r *reporter) compose(u load.Usage, packetRate float64) *tandemv1.Load {
	was, _ := r.latest()
	d := r.decide(was.GetReady() || was.GetAt() == nil, u.DiskFree)
	totals := r.intake.Totals()
	return &tandemv1.Load{
		At: timeProto(u.At), Ready: d.ready, Reason: d.reason,
		CpuPercent: u.CPU, HostCpuPercent: u.HostCPU, MemoryBytes: u.Memory, Load1: u.Load1,
		DiskFreeBytes: u.DiskFree, DiskTotalBytes: u.DiskTotal, DiskWriteMs: float64(r.journal.SyncP99().Microseconds()) / 1000,
		JournalQueue: r.journal.Queue(), JournalLagBytes: uint64(r.compactor.Lag()), SocketDrops: totals.KernelDrops,
		Channels: uint32(r.attachments.count()), MaxChannels: uint32(r.cfg.Limits.MaxChannels),
		PacketsPerS: packetRate, MaxPacketsPerS: r.cfg.Limits.MaxPacketsPer, LostPackets: totals.Lost,
	}
}

// publish counts the legs when they changed and replaces the report.
func (r *reporter) publish(ctx context.Context, report *tandemv1.Load) {
	r.mu.Lock()
	stale := r.stale
	r.stale = false
	r.mu.Unlock()
	legs, counted := 0, false
	if stale {
		var err error
		if legs, err = r.catalog.CountOpenLegs(ctx); err == nil {
			counted = true
		} else if ctx.Err() == nil {
			slog.Warn("legs not counted", "err", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if counted {
		r.legs = uint32(legs)
	} else {
		r.stale = r.stale || stale
	}
	report.Legs = r.legs
	if was := r.report; was.GetReady() != report.GetReady() {
		slog.Info("readiness", "ready", report.GetReady(), "reason", report.GetReason())
	}
	r.report = report
	close(r.changed)
	r.changed = make(chan struct{})
}
