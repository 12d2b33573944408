// Package unigy is the provider for Unigy-style turret switches: agent and
// call events over a CTI link, one SIP dialog for each channel, RTP straight
// to the recorders. What is peculiar to that wire stays in here.
package unigy

import (
	"context"
	"log/slog"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"tandem/director/provider"
	"tandem/internal/call"
)

// Config is what a Provider needs to know.
type Config struct {
	Servers    []string // CTI, "host:port", tried in turn
	User       string   // of CTI, and of SIP when challenged
	Password   string
	Client     string // the director's name, told at login
	Copy       call.Copy
	SIPListen  netip.AddrPort // also what the switch is told; port 0: any
	AttachRate int            // INVITEs a second

	// Gate is asked right before each request to the switch; an error keeps it from being sent.
	Gate    func() error
	Metrics *Metrics
	Log     *slog.Logger
}

// Metrics count what happens on the wire.
type Metrics struct {
	invites    *prometheus.CounterVec
	reconnects prometheus.Counter
	badLines   prometheus.Counter
	up         prometheus.Gauge
}

// NewMetrics registers the provider's metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		invites: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_sip_invites_total", Help: "INVITEs by what came of them: attached, moved, a SIP status, silent, bad_answer, error.",
		}, []string{"outcome"}),
		reconnects: prometheus.NewCounter(prometheus.CounterOpts{Name: "tandem_cti_reconnects_total", Help: "Connections to a CTI server begun after the first."}),
		badLines:   prometheus.NewCounter(prometheus.CounterOpts{Name: "tandem_cti_bad_lines_total", Help: "CTI lines that were not messages."}),
		up:         prometheus.NewGauge(prometheus.GaugeOpts{Name: "tandem_cti_up", Help: "1 while the CTI link is up and its snapshot complete."}),
	}
	r.MustRegister(m.invites, m.reconnects, m.badLines, m.up)
	return m
}

// Provider speaks to one switch. Its methods may be called from any
// goroutine; none of them waits.
type Provider struct {
	agent *agent
	link  *link
}

// Open binds the SIP sockets. Events go to emit from several goroutines, one
// at a time for each channel and for the CTI link; emit may wait, but must not call back.
func Open(cfg Config, emit func(provider.Event)) (*Provider, error) {
	a, err := newAgent(cfg, emit)
	if err != nil {
		return nil, err
	}
	return &Provider{agent: a, link: newLink(cfg, emit)}, nil
}

// Run keeps the CTI link and serves SIP until ctx ends. It hangs nothing up.
func (p *Provider) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.agent.run(ctx) })
	g.Go(func() error { return p.link.run(ctx) })
	return g.Wait()
}

// SIPAddr is where the switch reaches this director.
func (p *Provider) SIPAddr() netip.AddrPort { return p.agent.local }

// Attach asks for a channel's media. provider.Attached or
// provider.AttachFailed answers, unless the channel is detached before.
func (p *Provider) Attach(req provider.Attach) { p.agent.enqueue(req) }

// Detach ends a channel's dialog, or the attempt to make one. Nothing answers.
func (p *Provider) Detach(channel call.ChannelID) { p.agent.detach(channel) }

// Adopt takes over the dialog that another process made; provider.Adopted answers.
func (p *Provider) Adopt(channel call.ChannelID, dialog []byte) {
	go p.agent.adopt(channel, dialog)
}

// oncePerMinute passes warnings and errors of the SIP stack on, each message
// at most once a minute: what a peer sends must not fill the log.
type oncePerMinute struct {
	next slog.Handler
	seen recent
}

func (h *oncePerMinute) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn
}

func (h *oncePerMinute) Handle(ctx context.Context, r slog.Record) error {
	if !h.seen.first(r.Message, r.Time) {
		return nil
	}
	r.Message = "sip: " + r.Message
	return h.next.Handle(ctx, r)
}

func (h *oncePerMinute) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h *oncePerMinute) WithGroup(string) slog.Handler      { return h }
