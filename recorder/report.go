package recorder

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/recorder/catalog"
	"tandem/recorder/compact"
	"tandem/recorder/intake"
	"tandem/recorder/journal"
	"tandem/recorder/load"
)

const (
	// heartbeat is the period of Watch's heartbeats.
	heartbeat = 100 * time.Millisecond
	// linkEvery is how often the media network is looked at: a pulled cable is
	// known within a heartbeat.
	linkEvery = heartbeat / 2
	// measureEvery is how often the process and its machine are measured.
	measureEvery = time.Second
)

// reporter is the recorder's control loop. Ten times a second it looks at the
// marks that sweeping and writing leave at their work, decides on readiness,
// and beats; Watch sends a heartbeat for a beat and for nothing else. So a
// recorder whose loop hangs is silent, and one that answers and records
// nothing says so.
//
// The loop waits for no disk: a slow one must not look like a dead recorder.
// What may wait is measured beside it.
//
// On a machine whose cores are all taken a goroutine that sleeps most of the
// time is owed the CPU when it wakes, and nice has it come before others. With
// four programs that never wait on two cores, a thousand talking channels and
// a minute's wear, heartbeats were at most 100 ms late
// (TestHeartbeatsOnABusyMachine).
type reporter struct {
	cfg         Config
	journal     *journal.Writer
	intake      *intake.Intake
	compactor   *compact.Compactor
	attachments *attachments
	catalog     *catalog.Catalog
	sharing     *sharing
	drain       *drain
	meter       *load.Meter
	link        *load.Link // nil: the media network cannot go down
	linkDown    atomic.Pointer[string]
	wake        chan struct{} // look before the next beat is due

	mu      sync.Mutex
	latest  beat
	changed chan struct{} // closed when latest is replaced
	measure measurement
	stale   bool // legs must be counted again
}

// sweeping is how long a packet may wait for its sweep, and that may take.
const sweeping = 100 * time.Millisecond

// beat is what the control loop found. It does not change once it is out.
type beat struct {
	at       time.Time
	load     *tandemv1.Load // the newest report
	packets  uint64
	talking  int
	standing time.Duration // for which the intake has not got on
	until    time.Time     // all that arrived before is in the journal
}

// measurement is what only a system call or a query can tell.
type measurement struct {
	usage load.Usage // At is zero before the first
	legs  int
	rate  float64 // packets a second since the one before
	total uint64  // packets by then
}

// start gives the reporter, whose parts are set, its first report.
func (r *reporter) start() (err error) {
	r.changed, r.wake, r.stale = make(chan struct{}), make(chan struct{}, 1), true
	r.latest = beat{load: &tandemv1.Load{Reason: "starting"}}
	if r.link, err = load.FindLink(netip.MustParseAddr(r.cfg.RTP.Host)); err != nil {
		return err
	}
	r.linkDown.Store(new(""))
	r.meter, err = load.NewMeter(r.cfg.Dir)
	return err
}

// last is the newest beat, and a channel that closes when there is a newer one.
func (r *reporter) last() (beat, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.latest, r.changed
}

// ready says whether new channels are taken as of now, not of the last beat.
func (r *reporter) ready() (bool, string) {
	was, _ := r.last()
	return r.decide(was.load, r.measured(), was.standing, time.Now())
}

// look has the loop beat at once.
func (r *reporter) look() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// legsChanged has the legs counted again before the next report.
func (r *reporter) legsChanged() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stale = true
}

func (r *reporter) measured() measurement {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.measure
}

// Run beats until ctx ends.
func (r *reporter) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { r.measureAll(ctx); return nil })
	g.Go(func() error { r.beatAll(ctx); return nil })
	g.Go(func() error { r.watchLink(ctx); return nil })
	return g.Wait()
}

func (r *reporter) beatAll(ctx context.Context) {
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	for {
		r.publish(r.beat(time.Now()))
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-ticker.C:
		}
	}
}

// beat looks once. The report is a new one when there is anything new in it.
func (r *reporter) beat(now time.Time) beat {
	was, _ := r.last()
	m, p := r.measured(), r.intake.Pulse()
	b := beat{at: now, load: was.load, packets: p.Packets, talking: p.Talking, standing: standing(was, now, p.Unswept)}
	b.until = r.journal.WrittenUntil(now)
	if swept := now.Add(-p.Unswept - sweeping); swept.Before(b.until) {
		b.until = swept
	}
	ready, reason := r.decide(was.load, m, b.standing, now)
	if fresh := !m.usage.At.IsZero() && !was.load.GetAt().AsTime().Equal(m.usage.At); fresh || ready != was.load.GetReady() {
		b.load = r.compose(m)
		b.load.Ready, b.load.Reason = ready, reason
	}
	return b
}

// standing is how long the intake has not got on, in time that the loop itself
// was given: when the machine lets neither run, nothing is known of either.
func standing(was beat, now time.Time, unswept time.Duration) time.Duration {
	passed := now.Sub(was.at)
	if unswept < passed {
		return 0
	}
	return was.standing + min(passed, heartbeat+heartbeat/2)
}

func (r *reporter) decide(was *tandemv1.Load, m measurement, unswept time.Duration, now time.Time) (ready bool, reason string) {
	if m.usage.At.IsZero() {
		return false, was.GetReason()
	}
	return load.Ready(was.GetReady() || was.GetAt() == nil, load.Facts{
		Draining: r.drain.on.Load(), MediaDown: *r.linkDown.Load(), Unswept: unswept, JournalHangs: r.journal.Hangs(),
		JournalQueue: r.journal.Queue(), JournalErr: r.journal.Err(),
		Unmeasured: now.Sub(m.usage.At), DiskFree: m.usage.DiskFree, Reserve: uint64(r.cfg.Limits.Reserve),
	})
}

func (r *reporter) compose(m measurement) *tandemv1.Load {
	totals := r.intake.Totals()
	u := m.usage
	return &tandemv1.Load{
		At:         timeProto(u.At),
		CpuPercent: u.CPU, HostCpuPercent: u.HostCPU, MemoryBytes: u.Memory, Load1: u.Load1,
		DiskFreeBytes: u.DiskFree, DiskTotalBytes: u.DiskTotal, DiskWriteMs: float64(r.journal.Sync(50).Microseconds()) / 1000,
		JournalQueue: r.journal.Queue(), JournalLagBytes: uint64(r.compactor.Lag() + r.journal.Unclosed()), SocketDrops: totals.KernelDrops,
		Channels: uint32(r.attachments.count()), MaxChannels: uint32(r.cfg.Limits.MaxChannels), Legs: uint32(m.legs),
		PacketsPerS: m.rate, MaxPacketsPerS: r.cfg.Limits.MaxPacketsPer, LostPackets: totals.Lost,
		CatalogLag:   uint64(r.sharing.state().Lag),
		DeadChannels: r.attachments.dead(time.Now(), r.cfg.RTP.MediaDead.Std()),
	}
}

func (r *reporter) publish(b beat) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if was := r.latest.load; was.GetReady() != b.load.GetReady() || was.GetReason() != b.load.GetReason() {
		slog.Info("readiness", "ready", b.load.GetReady(), "reason", b.load.GetReason())
	}
	r.latest = b
	close(r.changed)
	r.changed = make(chan struct{})
}

// watchLink keeps linkDown until ctx ends.
func (r *reporter) watchLink(ctx context.Context) {
	if r.link == nil {
		return
	}
	defer r.link.Close()
	ticker := time.NewTicker(linkEvery)
	defer ticker.Stop()
	failed := false
	for {
		why, err := r.link.Down()
		if err != nil && !failed {
			slog.Warn("media network not watched", "err", err)
		}
		if failed = err != nil; !failed && why != *r.linkDown.Load() {
			r.linkDown.Store(&why)
			r.look()
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// measureAll measures until ctx ends; the loop takes what is there.
func (r *reporter) measureAll(ctx context.Context) {
	ticker := time.NewTicker(measureEvery)
	defer ticker.Stop()
	failed := false
	for {
		r.measureOnce(ctx, time.Now())
		r.look() // before what a slow disk may hold up
		if latest, _ := r.last(); !latest.until.IsZero() {
			err := noteUntil(r.cfg.Dir, latest.until)
			if err != nil && !failed {
				slog.Warn("a restart will not know up to when was recorded", "err", err)
			}
			failed = err != nil
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (r *reporter) measureOnce(ctx context.Context, now time.Time) {
	next := measurement{legs: r.countLegs(ctx), total: r.intake.Pulse().Packets}
	var err error
	if next.usage, err = r.meter.Measure(ctx, now); err != nil && ctx.Err() == nil {
		slog.Warn("load not measured", "err", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if passed := now.Sub(r.measure.usage.At).Seconds(); !r.measure.usage.At.IsZero() && passed > 0 {
		next.rate = float64(next.total-r.measure.total) / passed
	}
	r.measure = next
}

// countLegs counts the legs when they changed.
func (r *reporter) countLegs(ctx context.Context) int {
	r.mu.Lock()
	stale, legs := r.stale, r.measure.legs
	r.stale = false
	r.mu.Unlock()
	if !stale {
		return legs
	}
	counted, err := r.catalog.CountOpenLegs(ctx)
	if err == nil {
		return counted
	}
	if ctx.Err() == nil {
		slog.Warn("legs not counted", "err", err)
	}
	r.legsChanged()
	return legs
}
