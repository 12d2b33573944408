package director

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/authority"
	"tandem/internal/config"
	"tandem/internal/reconcile"
)

// ReconcileConfig is [reconcile].
type ReconcileConfig struct {
	Twin      []string        `toml:"twin"`
	Every     config.Duration `toml:"every"`
	Settle    config.Duration `toml:"settle"`
	Tolerance config.Duration `toml:"tolerance"`
	Least     config.Duration `toml:"least"`
}

func defaultReconcile() ReconcileConfig {
	return ReconcileConfig{
		Twin: []string{}, Every: config.Duration(5 * time.Minute), Settle: config.Duration(3 * time.Minute),
		Tolerance: config.Duration(2 * time.Second), Least: config.Duration(100 * time.Millisecond),
	}
}

func (c ReconcileConfig) check(check *config.Check, own []RecorderConfig) {
	const at = "reconcile."
	for n, address := range c.Twin {
		key := at + "twin[" + strconv.Itoa(n) + "]"
		check.Addr(key, address)
		check.That(!slices.ContainsFunc(own, func(r RecorderConfig) bool { return r.Address == address }), key, "%q: that is a [[recorder]] of this group", address)
		check.That(!slices.Contains(c.Twin[:n], address), key, "%q: named twice", address)
	}
	check.Between(at+"every", c.Every, config.Duration(10*time.Second), config.Duration(24*time.Hour))
	check.Between(at+"settle", c.Settle, config.Duration(time.Second), config.Duration(time.Hour))
	check.Between(at+"tolerance", c.Tolerance, 0, config.Duration(time.Minute))
	check.Between(at+"least", c.Least, config.Duration(time.Millisecond), config.Duration(time.Hour))
}

// arrears is how far back is compared, at most, what could not be compared when
// its time was.
const arrears = time.Hour

// askTwin bounds one question to a recorder.
const askTwin = 10 * time.Second

// comparer compares, while this director is in charge, what its group's
// recorders and the other group's hold. It reads, in a goroutine of its own, and
// decides nothing: what it finds is an alarm and a count.
type comparer struct {
	cfg     ReconcileConfig
	sources func() []reconcile.Source
	leads   func() bool
	last    atomic.Pointer[outcome] // nil: nothing compared, or not in charge
	metrics comparerMetrics
	log     *slog.Logger
}

// outcome is what one comparison came to.
type outcome struct {
	during reconcile.Span
	count  reconcile.Count
	since  time.Time // of the first one in a row that was like it
	err    error
}

type comparerMetrics struct {
	found    *prometheus.GaugeVec
	all      *prometheus.CounterVec
	pairs    prometheus.Gauge
	compared prometheus.Gauge
	failures prometheus.Counter
}

func newComparerMetrics(r prometheus.Registerer) comparerMetrics {
	m := comparerMetrics{
		found: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tandem_reconcile_findings", Help: "What was found in the last window that was compared."}, []string{"kind"}),
		all:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tandem_reconcile_findings_total", Help: "What was found since the start."}, []string{"kind"}),
		pairs: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tandem_reconcile_pairs", Help: "Legs that both groups have, in the last window that was compared."}),
		compared: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tandem_reconcile_compared_timestamp_seconds", Help: "Up to when both groups were compared; 0: not yet.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "tandem_reconcile_failures_total", Help: "Comparisons that did not come to an end."}),
	}
	r.MustRegister(m.found, m.all, m.pairs, m.compared, m.failures)
	for _, k := range reconcile.Kinds {
		m.found.WithLabelValues(string(k))
		m.all.WithLabelValues(string(k))
	}
	return m
}

// newComparer is nil when no twin is configured.
func newComparer(d *director) *comparer {
	cfg := d.cfg.Reconcile
	if len(cfg.Twin) == 0 {
		return nil
	}
	client := d.world.client() // nobody else's: it delays no order
	media := func(name, address string) reconcile.Source {
		return reconcile.Source{Name: name, Media: tandemv1connect.NewMediaServiceClient(client, "http://"+address, connect.WithGRPC())}
	}
	var all []reconcile.Source
	for _, r := range d.cfg.Recorders {
		all = append(all, media(r.Name, r.Address))
	}
	for _, address := range cfg.Twin {
		all = append(all, media(address, address))
	}
	return &comparer{
		cfg: cfg, sources: func() []reconcile.Source { return all }, leads: d.leads, metrics: newComparerMetrics(d.registry), log: d.log,
	}
}

// leads reports whether this director is in charge.
func (d *director) leads() bool {
	return d.pair == nil || d.pair.elector.view.Load().director.Phase == authority.Active
}

// run compares every so often until ctx ends.
func (c *comparer) run(ctx context.Context) error {
	tick := time.NewTicker(c.cfg.Every.Std())
	defer tick.Stop()
	from := time.Now().Add(-c.cfg.Settle.Std()) // an earlier director may have compared what was before
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		until := time.Now().Add(-c.cfg.Settle.Std())
		if !c.leads() {
			c.last.Store(nil)
			from = until
			continue
		}
		if earliest := until.Add(-arrears); from.Before(earliest) {
			from = earliest
		}
		o := c.compare(ctx, reconcile.Span{From: from, To: until})
		if ctx.Err() != nil {
			return nil
		}
		c.note(o)
		if o.err == nil {
			from = until
		}
	}
}

// compare looks at one window. It takes no longer than there is until the next.
func (c *comparer) compare(ctx context.Context, during reconcile.Span) outcome {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Every.Std())
	defer cancel()
	var left []error
	reader := reconcile.Reader{
		Sources: c.sources(), During: during, Timeout: askTwin,
		Options: reconcile.Options{Tolerance: c.cfg.Tolerance.Std(), Least: c.cfg.Least.Std(), Both: true},
		Left:    func(s reconcile.Source, err error) { left = append(left, fmt.Errorf("ask %s: %w", s.Name, err)) },
		Each:    func(reconcile.Verdict) error { return nil },
	}
	count, err := reader.Read(ctx)
	return outcome{during: during, count: count, since: time.Now(), err: errors.Join(append(left, err)...)}
}

// note makes alarm, metrics and log of an outcome. One that lacks a recorder's
// answer is worth nothing: what that one holds would count as missing.
func (c *comparer) note(o outcome) {
	if old := c.last.Load(); old != nil && (old.err == nil) == (o.err == nil) && (old.count.Total() == 0) == (o.count.Total() == 0) {
		o.since = old.since
	}
	defer c.last.Store(&o)
	if o.err != nil {
		c.metrics.failures.Inc()
		c.log.Warn("groups not compared", "from", o.during.From, "to", o.during.To, "err", o.err)
		return
	}
	c.metrics.compared.Set(float64(o.during.To.Unix()))
	c.metrics.pairs.Set(float64(o.count.Pairs))
	for _, k := range reconcile.Kinds {
		c.metrics.found.WithLabelValues(string(k)).Set(float64(o.count.Findings[k]))
		c.metrics.all.WithLabelValues(string(k)).Add(float64(o.count.Findings[k]))
	}
	c.log.Info("groups compared", "from", o.during.From, "to", o.during.To, "records", o.count.Records, "pairs", o.count.Pairs, "findings", o.count.Total())
}

// worries are the alarms of the last comparison; a nil comparer has none. Safe
// for concurrent use.
func (c *comparer) worries() map[alarmKey]*alarm {
	if c == nil {
		return nil
	}
	o := c.last.Load()
	switch {
	case o == nil:
		return nil
	case o.err != nil:
		return map[alarmKey]*alarm{{"reconcile_failed", "twin"}: {o.since, "the two groups could not be compared: " + strings.ReplaceAll(o.err.Error(), "\n", "; ")}}
	case o.count.Total() == 0:
		return nil
	}
	text := fmt.Sprintf("%s; recctl reconcile --from %s --to %s lists them", o.count.Summary(), o.during.From.UTC().Format(time.RFC3339), o.during.To.UTC().Format(time.RFC3339))
	return map[alarmKey]*alarm{{"copies_differ", "twin"}: {o.since, text}}
}
