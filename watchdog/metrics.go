package watchdog

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"tandem/internal/monitor"
)

// metrics are written by the loop and by the probers.
type metrics struct {
	probes   *prometheus.CounterVec
	actions  *prometheus.CounterVec
	peerUp   prometheus.Gauge
	linkDown prometheus.Gauge
	misses   prometheus.Gauge
	patience prometheus.Gauge
	paused   prometheus.Gauge
	rtt      prometheus.Histogram
}

func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

func newMetrics(r *prometheus.Registry) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "tandem_watchdog_" + name, Help: help})
		r.MustRegister(g)
		return g
	}
	counter := func(name, help, label string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tandem_watchdog_" + name, Help: help}, []string{label})
		r.MustRegister(c)
		return c
	}
	m := &metrics{
		probes:   counter("probes_total", "Rounds of probes of the peer: heard, missed, or late, which counts as neither.", "result"),
		actions:  counter("actions_total", "What the watchdog did.", "action"),
		peerUp:   gauge("peer_up", "1 while the other director answers."),
		linkDown: gauge("peer_link_down", "1 while the other director is silent here and voters hear it."),
		misses:   gauge("misses", "Rounds in a row that the other director did not answer."),
		patience: gauge("patience", "After how many of them it counts as silent."),
		paused:   gauge("paused", "1 while paused."),
		rtt: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tandem_watchdog_probe_seconds", Help: "How long answers took, on the quickest path.", Buckets: prometheus.ExponentialBuckets(0.0001, 2, 12),
		}),
	}
	r.MustRegister(m.rtt)
	for a := Campaign; a < actionCount; a++ {
		m.actions.WithLabelValues(a.String())
	}
	for _, result := range []string{"heard", "missed", "late"} {
		m.probes.WithLabelValues(result)
	}
	return m
}

func (m *metrics) acted(a Action) { m.actions.WithLabelValues(a.String()).Inc() }

func (m *metrics) probed(r monitor.Round, late bool) {
	best, heard := r.Reply()
	switch {
	case heard:
		m.probes.WithLabelValues("heard").Inc()
		m.rtt.Observe(best.RTT.Seconds())
	case late:
		m.probes.WithLabelValues("late").Inc()
	default:
		m.probes.WithLabelValues("missed").Inc()
	}
}

func (m *metrics) show(v View, now time.Time) {
	m.peerUp.Set(bit(!v.silent() && !v.Peer.At.IsZero()))
	m.linkDown.Set(bit(v.linkDown(now)))
	m.misses.Set(float64(v.Peer.Misses))
	m.patience.Set(float64(v.patience()))
	m.paused.Set(bit(now.Before(v.Pause.Until)))
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
