package director

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"tandem/director/placement"
	"tandem/internal/authority"
)

// channelStates are the words of channel.state, so that a state nobody is in shows as 0.
var channelStates = []string{"waiting", "placed", "dialing", "attached", "lost", "orphaned"}

// gauges reads the floor when it is scraped.
type gauges struct {
	director  *director
	sessions  *prometheus.Desc
	channels  *prometheus.Desc
	legs      *prometheus.Desc
	recorders *prometheus.Desc
	scores    *prometheus.Desc
	moving    *prometheus.Desc
	lost      *prometheus.Desc
	headroom  *prometheus.Desc
	alarms    *prometheus.Desc
	epoch     *prometheus.Desc
}

func newGauges(d *director) *gauges {
	return &gauges{
		director:  d,
		sessions:  prometheus.NewDesc("tandem_director_sessions", "Users logged on.", nil, nil),
		channels:  prometheus.NewDesc("tandem_director_channels", "Channels by state.", []string{"state"}, nil),
		legs:      prometheus.NewDesc("tandem_director_legs", "Legs in progress.", nil, nil),
		recorders: prometheus.NewDesc("tandem_director_recorder_up", "1 while the recorder obeys and is heard.", []string{"recorder"}, nil),
		scores:    prometheus.NewDesc("tandem_director_recorder_score", "How full placement takes the recorder to be, 1 and more meaning full.", []string{"recorder"}, nil),
		moving:    prometheus.NewDesc("tandem_director_channels_moving", "Channels whose media is not yet, or not only, where it should be.", nil, nil),
		lost:      prometheus.NewDesc("tandem_director_channels_unrecorded", "Channels that the switch offers and nobody records now.", nil, nil),
		headroom:  prometheus.NewDesc("tandem_director_headroom", "1 while the others could take all that the busiest recorder has.", nil, nil),
		alarms:    prometheus.NewDesc("tandem_director_alarms", "Alarms raised, by what they are about.", []string{"what", "severity"}, nil),
		epoch:     prometheus.NewDesc("tandem_director_epoch", "The epoch of this director's orders.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (g *gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{g.sessions, g.channels, g.legs, g.recorders, g.scores, g.moving, g.lost, g.headroom, g.alarms, g.epoch} {
		ch <- d
	}
}

// Collect implements prometheus.Collector; a loop that does not answer shows nothing.
func (g *gauges) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var values []prometheus.Metric
	err := g.director.loop().ask(ctx, func(now time.Time, f *floor) { values = g.read(now, f) })
	if err != nil {
		return
	}
	for _, v := range values {
		out <- v
	}
}

func (g *gauges) read(now time.Time, f *floor) []prometheus.Metric {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
		return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	states := make(map[string]int)
	for _, ch := range f.channels {
		states[ch.state()]++
	}
	legs := 0
	for _, l := range f.legs {
		if l.end.IsZero() {
			legs++
		}
	}
	moving, unrecorded := f.unsettled()
	values := []prometheus.Metric{
		gauge(g.moving, float64(moving)), gauge(g.lost, float64(unrecorded)), gauge(g.headroom, bit(f.spare().Enough)),
		gauge(g.sessions, float64(len(f.sessions))), gauge(g.legs, float64(legs)),
		gauge(g.epoch, float64(f.epoch)),
	}
	for _, s := range channelStates {
		values = append(values, gauge(g.channels, float64(states[s]), s))
	}
	raised := make(map[string]int)
	for key := range f.alarms {
		raised[key.what]++
	}
	for what, severity := range severities {
		values = append(values, gauge(g.alarms, float64(raised[what]), what, severity))
	}
	for name, r := range f.recorders {
		score, _ := placement.Score(now, f.limits, f.candidate(r), 0)
		values = append(values, gauge(g.recorders, bit(r.up()), string(name)), gauge(g.scores, score, string(name)))
	}
	return values
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// newRegistry holds the director's metrics beside those of the process.
func newRegistry() (*prometheus.Registry, *prometheus.CounterVec) {
	r := prometheus.NewRegistry()
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tandem_director_rpc_errors_total", Help: "Calls to recorders that failed, refusals included.",
	}, []string{"recorder", "call"})
	r.MustRegister(failures, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r, failures
}

// authorityGauges reads the elector when it is scraped.
type authorityGauges struct {
	pair      *partnership
	role      *prometheus.Desc
	remaining *prometheus.Desc
	basis     *prometheus.Desc
	takeovers *prometheus.Desc
	voters    *prometheus.Desc
	able      *prometheus.Desc
}

func newAuthorityGauges(p *partnership) *authorityGauges {
	return &authorityGauges{
		pair:      p,
		role:      prometheus.NewDesc("tandem_director_role", "1 for the role that the director has.", []string{"role"}, nil),
		remaining: prometheus.NewDesc("tandem_director_authority_seconds", "How long authority lasts unless it is renewed.", nil, nil),
		basis:     prometheus.NewDesc("tandem_director_basis", "1 for what the authority rests on.", []string{"basis"}, nil),
		takeovers: prometheus.NewDesc("tandem_director_takeovers_total", "Times that this director became active since its start.", nil, nil),
		voters:    prometheus.NewDesc("tandem_director_voter_age_seconds", "How long ago the voter last answered.", []string{"voter"}, nil),
		able:      prometheus.NewDesc("tandem_director_eligible", "1 while this director could lead.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (g *authorityGauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{g.role, g.remaining, g.basis, g.takeovers, g.voters, g.able} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g *authorityGauges) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	v := g.pair.elector.view.Load()
	for p := authority.Boot; p <= authority.Linger; p++ {
		gauge(g.role, bit(p == v.director.Phase), p.String())
	}
	for b := authority.QuorumAndConsent; b <= authority.Forced; b++ {
		gauge(g.basis, bit(b == v.basis), b.String())
	}
	gauge(g.remaining, v.remaining.Seconds())
	gauge(g.able, bit(v.able))
	out <- prometheus.MustNewConstMetric(g.takeovers, prometheus.CounterValue, float64(v.takeovers))
	for _, s := range g.pair.voters(time.Now())[:g.pair.elector.cfg.Voters] {
		if s.AgeMs >= 0 {
			gauge(g.voters, float64(s.AgeMs)/1000, s.Address)
		}
	}
}
