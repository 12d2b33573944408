package director

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/pair"
	"tandem/internal/pki"
	"tandem/internal/rpc"
)

// partner is one director of a pair on a site.
type partner struct {
	cfg    Config
	wire   rpc.Wire
	d      *director
	client tandemv1connect.DirectorServiceClient
	stop   func() error
	cut    atomic.Bool // it reaches no station
}

// pairSite is a site with two directors, each of which votes for itself only
// with the stations' leave.
type pairSite struct {
	*site
	a, b     *partner
	operator *http.Client
}

func newPairSite(t *testing.T) *pairSite {
	t.Helper()
	s := newIdlePairSite(t)
	s.run(s.a)
	s.run(s.b)
	return s
}

// newSecurePairSite is one whose daemons and operator have certificates.
func newSecurePairSite(t *testing.T) *pairSite {
	t.Helper()
	s := newIdlePairSite(t)
	paper := newPaper(t)
	for _, st := range s.stations {
		st.stop()
		st.wire = paper.wire(pki.Recorder, st.name, st.address)
		st.start(st.address)
	}
	s.operator = paper.wire(pki.Operator, "ann", "").NewClient()
	for _, p := range []*partner{s.a, s.b} {
		p.wire = paper.wire(pki.Director, p.cfg.Name, p.cfg.Control)
		s.run(p)
	}
	return s
}

// everyWire runs a test in the clear, and between certificates. Tests of pairs
// keep real time, so they run before the parallel ones and not beside them.
func everyWire(t *testing.T, test func(t *testing.T, s *pairSite)) {
	for name, site := range map[string]func(*testing.T) *pairSite{"clear": newPairSite, "tls": newSecurePairSite} {
		t.Run(name, func(t *testing.T) { test(t, site(t)) })
	}
}

// paper issues certificates of a site.
type paper struct {
	t         *testing.T
	authority *pki.Authority
	ca        string
	life      time.Duration // of what is issued
}

func newPaper(t *testing.T) *paper {
	t.Helper()
	authority, pair, err := pki.NewAuthority("test", time.Now())
	p := &paper{t, authority, filepath.Join(t.TempDir(), "ca.crt"), 2 * pki.Warning}
	if err == nil {
		err = os.WriteFile(p.ca, pair.Certificate, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// wire is that of somebody who is called at an address, or not called at all.
func (p *paper) wire(role pki.Role, name, address string) rpc.Wire {
	p.t.Helper()
	order := pki.Order{Role: role, Name: name, Life: p.life}
	if host, _, err := net.SplitHostPort(address); err == nil {
		order.Hosts = []string{host}
	}
	pair, err := p.authority.Issue(order, time.Now())
	files := pki.Config{Cert: p.ca + "." + name, Key: p.ca + "." + name + ".key", CA: p.ca}
	if err == nil {
		err = pair.Save(files.Cert, files.Key)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return rpc.Open(files, pki.Identity{Role: role, Name: name}, slog.New(slog.DiscardHandler))
}

// newIdlePairSite is one whose directors have not been started.
func newIdlePairSite(t *testing.T) *pairSite {
	t.Helper()
	s := &pairSite{site: newEmptySite(t, 3), operator: http.DefaultClient}
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("the secret of this test's site"), 0o600); err != nil {
		t.Fatal(err)
	}
	addresses := make([]string, 2)
	for i := range addresses {
		addresses[i] = freePort(t)
	}
	s.a, s.b = &partner{cfg: s.cfg}, &partner{cfg: s.cfg}
	for i, p := range []*partner{s.a, s.b} {
		p.cfg.Name, p.cfg.Control, p.cfg.Monitor = fmt.Sprint("dir-", string('a'+rune(i))), addresses[i], "127.0.0.1:0"
		p.cfg.Failover = pair.DefaultConfig()
		p.cfg.Failover.Preferred, p.cfg.Failover.Peer = i == 0, addresses[1-i]
		p.cfg.Failover.KeyFile, p.cfg.Failover.Socket = key, filepath.Join(t.TempDir(), "director.sock")
		for _, st := range s.stations {
			p.cfg.Failover.Voters = append(p.cfg.Failover.Voters, st.address)
		}
	}
	return s
}

// freePort is an address that nobody listened at a moment ago, and that nobody
// who dials out is given meanwhile: those get 127.0.0.1.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// run starts a partner.
func (s *pairSite) run(p *partner) {
	s.t.Helper()
	w := network(p.wire)
	w.client = func() client { return cuttable{p.wire.NewClient(), &p.cut, p.cfg.Failover.Voters} }
	d, err := open(p.cfg, w, s.log().With("director", p.cfg.Name))
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()
	p.d, p.client = d, tandemv1connect.NewDirectorServiceClient(s.operator, "http://"+p.cfg.Control)
	p.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	s.t.Cleanup(func() { p.stop() })
}

func (s *pairSite) role(p *partner) string {
	s.t.Helper()
	res, err := p.client.Status(s.t.Context(), connect.NewRequest(&tandemv1.StatusRequest{}))
	if err != nil {
		return err.Error()
	}
	return res.Msg.GetDirectors()[0].GetRole()
}

// became is how often a partner has come to a role since it started.
func (s *pairSite) became(p *partner, role string) (times int) {
	s.t.Helper()
	res, err := p.client.History(s.t.Context(), connect.NewRequest(&tandemv1.HistoryRequest{}))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, c := range res.Msg.GetChanges() {
		if c.GetTo() == role {
			times++
		}
	}
	return times
}

// leads waits until a partner is active, and asks it from then on.
func (s *pairSite) leads(p *partner) {
	s.t.Helper()
	s.client = p.client
	s.until(p.cfg.Name+" leads", func() bool { return s.role(p) == "active" })
}

// promote has a partner seek authority until it leads.
func (s *pairSite) promote(p *partner, reason string) {
	s.t.Helper()
	s.client = p.client
	s.until(p.cfg.Name+" leads", func() bool {
		_, err := p.client.Campaign(s.t.Context(), connect.NewRequest(&tandemv1.CampaignRequest{Actor: "test", Reason: reason}))
		return err == nil && s.role(p) == "active"
	})
}

// Control moves to the other director and back while everybody talks: nothing
// is dialled again, nothing hung up, no packet is lost, and no leg is told twice.
func TestHandOver(t *testing.T) { everyWire(t, handOver) }

func handOver(t *testing.T, s *pairSite) {
	const channels = 24
	s.promote(s.a, "cold start")
	s.recorded(channels)
	before := s.sw.State().SIP
	for _, to := range []*partner{s.b, s.a} {
		began := time.Now()
		res, err := s.client.Failover(t.Context(), connect.NewRequest(&tandemv1.FailoverRequest{Actor: "test", Reason: "planned"}))
		if err != nil {
			t.Fatal(err)
		}
		if res.Msg.GetTo() != to.cfg.Name || len(res.Msg.GetPlan()) == 0 || res.Msg.GetEpoch()&1 != uint64(to.cfg.Failover.Side()) {
			t.Errorf("handed over: %v", res.Msg)
		}
		t.Logf("control is with %s after %v, without any for %d ms", to.cfg.Name, time.Since(began).Round(time.Millisecond), res.Msg.GetTookMs())
		s.leads(to)
		s.recorded(channels)
	}
	if after := s.sw.State().SIP; after != before {
		t.Errorf("the switch saw %+v, and %+v before", after, before)
	}
	s.until("legs go on under the new director", func() bool {
		over, ongoing := s.stations[0].ended()
		return over > 0 && ongoing > 0
	})
	s.legsAreWhole()
}

// legsAreWhole holds what the stations were told of legs against each other:
// one interval of a source has one record.
func (s *pairSite) legsAreWhole() {
	s.t.Helper()
	type interval struct {
		leg, source string
		start       time.Time
	}
	seen := make(map[interval]string)
	for _, st := range s.stations {
		st.mu.Lock()
		for id, l := range st.legs {
			base, _, _ := strings.Cut(id, "+")
			key := interval{base, l.GetSource(), l.GetStart().AsTime()}
			if other, told := seen[key]; told && other != id {
				s.t.Errorf("leg %s from %v on is recorded as %s and as %s", base, key.start, other, id)
			}
			seen[key] = id
		}
		st.mu.Unlock()
	}
}

// A director that stops gives its authority back, and the other one takes it
// without being told by anybody else.
func TestStoppedDirectorHandsOver(t *testing.T) { everyWire(t, stoppedHandsOver) }

func stoppedHandsOver(t *testing.T, s *pairSite) {
	s.promote(s.a, "cold start")
	s.recorded(24)
	if err := s.a.stop(); err != nil {
		t.Fatal(err)
	}
	s.leads(s.b)
	s.recorded(24)
	history, err := s.b.client.History(t.Context(), connect.NewRequest(&tandemv1.HistoryRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	told := false
	for _, c := range history.Msg.GetChanges() {
		told = told || c.GetTo() == "active" && c.GetActor() == "dir-a" && c.GetReason() == "stopped"
	}
	if !told {
		t.Errorf("history %v", history.Msg.GetChanges())
	}
}

// A watchdog that is wrong about the active director changes nothing: the
// voters refuse, and say whose lease they keep.
func TestVotersRefuseAWrongCampaign(t *testing.T) {
	s := newPairSite(t)
	s.promote(s.a, "cold start")
	s.recorded(24)
	for range 5 {
		if _, err := s.b.client.Campaign(t.Context(), connect.NewRequest(&tandemv1.CampaignRequest{Actor: "wd-b", Reason: "it thinks so"})); err != nil {
			t.Fatal(err)
		}
		s.until("dir-b gives up, or did not begin", func() bool { return s.role(s.b) == "passive" })
	}
	if a, b := s.became(s.a, "active"), s.became(s.b, "activating"); a != 1 || s.role(s.a) != "active" || b != 0 {
		t.Fatalf("dir-a became active %d times and is %s, dir-b was let in %d times", a, s.role(s.a), b)
	}
	_, err := s.b.client.Drain(t.Context(), connect.NewRequest(&tandemv1.DirectorServiceDrainRequest{Recorder: "rec-1"}))
	if connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("a passive director drains: %v", err)
	}
}

// Voters and peer are all lost: the director begins nothing more, says so, and
// leads again when they are back. No media was touched.
func TestLostAuthorityLingers(t *testing.T) {
	s := newPairSite(t)
	s.promote(s.a, "cold start")
	s.recorded(24)
	before := s.sw.State().SIP
	s.b.stop()
	for _, st := range s.stations {
		st.stop()
	}
	s.until("dir-a has no authority", func() bool { return s.role(s.a) == "linger" })
	s.until("and says so", func() bool {
		for _, a := range s.status().GetAlarms() {
			if a.GetWhat() == "no_authority" && strings.Contains(a.GetText(), "rec-1") {
				return true
			}
		}
		return false
	})
	if _, err := s.client.Rebalance(t.Context(), connect.NewRequest(&tandemv1.RebalanceRequest{})); err != nil && connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("rebalance: %v", err)
	}
	for _, st := range s.stations {
		st.start(st.address)
	}
	s.leads(s.a)
	s.recorded(24)
	if after := s.sw.State().SIP; after.ByesIn != before.ByesIn || after.Invites != before.Invites {
		t.Errorf("the switch saw %+v, and %+v before", after, before)
	}
}

// A director in charge that no recorder answers any more, while its peer hears
// them all, hands over: the peer's promise alone would keep it there.
func TestHelplessDirectorStepsAside(t *testing.T) {
	s := newPairSite(t)
	s.promote(s.a, "cold start")
	s.recorded(24)
	before := s.sw.State().SIP
	s.a.cut.Store(true)
	s.leads(s.b)
	s.recorded(24)
	if after := s.sw.State().SIP; after.Invites != before.Invites || after.ByesIn != before.ByesIn {
		t.Errorf("the switch saw %+v, and %+v before", after, before)
	}
}

// Two weeks before its certificate ends a director begins to say so.
func TestCertificateAlarm(t *testing.T) {
	s := newEmptySite(t, 1)
	paper := newPaper(t)
	paper.life = pki.Warning / 2
	d, err := open(s.cfg, network(paper.wire(pki.Director, s.cfg.Name, s.cfg.Control)), s.log())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	operator := paper.wire(pki.Operator, "ann", "").NewClient()
	s.client = tandemv1connect.NewDirectorServiceClient(operator, "http://"+d.control.Addr().String())
	s.until("an alarm says how to renew it", func() bool {
		return slices.ContainsFunc(s.status().GetAlarms(), func(a *tandemv1.Alarm) bool {
			return a.GetWhat() == "certificate" && a.GetObject() == s.cfg.Name && strings.Contains(a.GetText(), "recctl pki issue "+s.cfg.Name+" --renew")
		})
	})
}

// cuttable is a client whose calls to some addresses fail while they are cut.
type cuttable struct {
	client
	cut       *atomic.Bool
	addresses []string
}

func (c cuttable) Do(r *http.Request) (*http.Response, error) {
	if c.cut.Load() && slices.Contains(c.addresses, r.URL.Host) {
		return nil, errors.New("no route to host")
	}
	return c.client.Do(r)
}
