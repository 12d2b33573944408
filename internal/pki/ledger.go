package pki

import (
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Side is who a process was in a handshake.
type Side string

// The sides there are.
const (
	AsServer Side = "server"
	AsClient Side = "client"
)

const (
	// quiet is how long the same trouble with the same host is only counted.
	quiet = time.Minute
	// remembered bounds the troubles that are told apart: strangers must not fill memory.
	remembered = 1024
)

// Ledger counts troubles, and logs each once in a while. Safe for concurrent use.
type Ledger struct {
	log      *slog.Logger
	failures *prometheus.CounterVec

	mu   sync.Mutex
	seen map[incident]*tally
}

// incident is what is logged as one thing.
type incident struct {
	side   Side
	host   string
	reason Reason
}

// tally is when an incident was last logged, and how often it was not since.
type tally struct {
	logged time.Time
	silent int
}

// NewLedger has counted nothing yet.
func NewLedger(log *slog.Logger) *Ledger {
	l := &Ledger{log: log, seen: make(map[incident]*tally), failures: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tandem_tls_failures_total", Help: "Connections and calls that came to nothing for a certificate or the lack of one, by side and reason.",
	}, []string{"side", "reason"})}
	for _, side := range []Side{AsServer, AsClient} {
		for _, r := range reasons {
			l.failures.WithLabelValues(string(side), string(r))
		}
	}
	return l
}

// Note takes down a trouble with a peer. A caller has another port each time.
func (l *Ledger) Note(side Side, peer string, t *Trouble) {
	l.failures.WithLabelValues(string(side), string(t.Reason)).Inc()
	host := peer
	if h, _, err := net.SplitHostPort(peer); err == nil && side == AsServer {
		host = h
	}
	if silent, speak := l.due(incident{side, host, t.Reason}, time.Now()); speak {
		l.log.Warn("certificate trouble", "peer", peer, "side", string(side), "reason", string(t.Reason), "not_logged", silent, "err", t.Text)
	}
}

// due says whether an incident is to be logged now, and how often it was not.
func (l *Ledger) due(i incident, now time.Time) (silent int, speak bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.seen[i]
	if before != nil && now.Sub(before.logged) < quiet {
		before.silent++
		return 0, false
	}
	if before == nil && len(l.seen) >= remembered {
		l.forget(now)
	}
	if before == nil && len(l.seen) >= remembered {
		return 0, false
	}
	if before != nil {
		silent = before.silent
	}
	l.seen[i] = &tally{logged: now}
	return silent, true
}

// forget drops what has not come up for a while.
func (l *Ledger) forget(now time.Time) {
	for i, t := range l.seen {
		if now.Sub(t.logged) >= quiet {
			delete(l.seen, i)
		}
	}
}

// Describe implements prometheus.Collector.
func (l *Ledger) Describe(ch chan<- *prometheus.Desc) { l.failures.Describe(ch) }

// Collect implements prometheus.Collector.
func (l *Ledger) Collect(ch chan<- prometheus.Metric) { l.failures.Collect(ch) }
