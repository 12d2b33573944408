package watchdog

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/bubble"
	"tandem/internal/daemon"
	"tandem/internal/local"
	"tandem/internal/monitor"
)

// site is everyone that a watchdog speaks to, in memory. The watchdog is that
// of dir-b.
type site struct {
	mu    sync.Mutex
	peer  monitor.Reply // "" as its role: it does not answer
	local monitor.Reply
	lease func() *tandemv1.Ballot // what each voter says; nil: it does not answer
	deaf  int                     // calls that fail before one is heard
	calls map[string][]time.Time
	last  map[string]any // request
	tell  func(local.Event)
}

func (s *site) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// called notes a call, and fails the first ones.
func (s *site) called(what string, request any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deaf > 0 {
		s.deaf--
		return connect.NewError(connect.CodeUnavailable, errors.New("not reached"))
	}
	s.calls[what] = append(s.calls[what], time.Now())
	s.last[what] = request
	return nil
}

func (s *site) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.calls[what])
}

// first is when something was called first; it has been.
func (s *site) first(what string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[what][0]
}

// request is what something was called with last; it has been.
func (s *site) request(what string) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last[what]
}

// port answers probes.
type port struct {
	site  *site
	reply *monitor.Reply
}

func (p port) Probe(ctx context.Context) monitor.Round {
	r := monitor.Round{At: time.Now(), Paths: make([]monitor.PathResult, 1)}
	p.site.mu.Lock()
	reply := *p.reply
	p.site.mu.Unlock()
	if reply.Role == "" {
		<-ctx.Done()
		return r
	}
	reply.Loops = map[string]uint64{"floor": uint64(r.At.UnixNano())}
	r.Paths[0] = monitor.PathResult{Heard: true, RTT: time.Millisecond, Reply: reply}
	return r
}

type fakeVoter struct {
	tandemv1connect.VoterServiceClient
	site *site
}

func (f fakeVoter) Query(ctx context.Context, _ *connect.Request[tandemv1.QueryRequest]) (*connect.Response[tandemv1.QueryResponse], error) {
	f.site.mu.Lock()
	lease := f.site.lease
	f.site.mu.Unlock()
	if lease == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return connect.NewResponse(&tandemv1.QueryResponse{Ballot: lease()}), nil
}

func (f fakeVoter) Release(_ context.Context, r *connect.Request[tandemv1.ReleaseRequest]) (*connect.Response[tandemv1.ReleaseResponse], error) {
	return connect.NewResponse(&tandemv1.ReleaseResponse{}), f.site.called("release", r.Msg)
}

type fakeDirector struct {
	tandemv1connect.DirectorServiceClient
	site *site
}

func (f fakeDirector) Campaign(_ context.Context, r *connect.Request[tandemv1.CampaignRequest]) (*connect.Response[tandemv1.CampaignResponse], error) {
	return connect.NewResponse(&tandemv1.CampaignResponse{}), f.site.called("campaign", r.Msg)
}

func (f fakeDirector) Failover(_ context.Context, r *connect.Request[tandemv1.FailoverRequest]) (*connect.Response[tandemv1.FailoverResponse], error) {
	if err := f.site.called("failover", r.Msg); err != nil {
		return nil, err
	}
	return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("dir-b is not ready"))
}

type fakeRival struct {
	tandemv1connect.PeerServiceClient
	site *site
}

func (f fakeRival) Yield(_ context.Context, r *connect.Request[tandemv1.YieldRequest]) (*connect.Response[tandemv1.YieldResponse], error) {
	return connect.NewResponse(&tandemv1.YieldResponse{}), f.site.called("yield", r.Msg)
}

type fakeNeighbour struct {
	tandemv1connect.WatchdogServiceClient
	site *site
}

func (f fakeNeighbour) Notice(_ context.Context, r *connect.Request[tandemv1.NoticeRequest]) (*connect.Response[tandemv1.NoticeResponse], error) {
	return connect.NewResponse(&tandemv1.NoticeResponse{}), f.site.called("notice", r.Msg)
}

type fakeUnit struct{ site *site }

func (f fakeUnit) Active(context.Context) (bool, error) { return true, nil }
func (f fakeUnit) Restart(context.Context) error        { return f.site.called("restart", nil) }

// watched runs a watchdog of dir-b in a synctest bubble; dir-a leads at first.
func watched(t *testing.T, preferred bool, story func(t *testing.T, s *site, w *watch, api *service)) {
	watchedWith(t, preferred, "", story)
}

// watchedWith is watched with a watchdog that remembers in a file, unless that is "".
func watchedWith(t *testing.T, preferred bool, file string, story func(t *testing.T, s *site, w *watch, api *service)) {
	bubble.Test(t, func(t *testing.T) {
		s := &site{calls: map[string][]time.Time{}, last: map[string]any{}}
		s.peer = monitor.Reply{Director: "dir-a", Role: "active", Eligible: true, CTI: "up", Epoch: 6}
		s.local = monitor.Reply{Director: "dir-b", Role: "passive", Eligible: true, CTI: "up"}
		s.lease = func() *tandemv1.Ballot {
			return &tandemv1.Ballot{Holder: "dir-a", Epoch: 6, RemainingUs: (950 * time.Millisecond).Microseconds()}
		}
		b := defaultBeside()
		b.Name, b.Failover.Peer, b.Failover.Preferred = "dir-b", "10.0.0.1:7401", preferred
		b.Failover.PeerMonitor = []string{"10.0.0.1:10031"}
		ctx, cancel := context.WithCancel(t.Context())
		o := others{
			peer: port{s, &s.peer}, local: port{s, &s.local}, commands: fakeDirector{site: s}, peerCommand: fakeDirector{site: s},
			rival: fakeRival{site: s}, neighbour: fakeNeighbour{site: s}, unit: fakeUnit{s}, clock: daemon.Boottime,
			follow: func(ctx context.Context, tell func(local.Event)) error {
				s.change(func() { s.tell = tell })
				<-ctx.Done()
				return nil
			},
		}
		for range 3 {
			o.voters = append(o.voters, fakeVoter{site: s})
		}
		cfg := DefaultConfig()
		w := newWatch(cfg, b, o, newMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
		if file != "" {
			w.remember(file, time.Now())
		}
		ended := make(chan error, 1)
		go func() { ended <- w.run(ctx) }()
		time.Sleep(2 * time.Second)
		story(t, s, w, &service{cfg: cfg, watch: w})
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func (s *site) silence() { s.change(func() { s.peer.Role = "" }) }

// link is what the watchdog hears the local director with.
func (s *site) link() func(local.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tell
}

// directs is a local director that tells how it is, until told to be quiet.
func (s *site) directs(report local.Report) (quiet func()) {
	tell := s.link()
	tell(local.Connected{Process: &local.Process{PID: 7}})
	stop := make(chan struct{})
	go func() {
		for {
			tell(local.Heard{Report: report})
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return func() { close(stop) }
}

func sentence(t *testing.T, api *service) *tandemv1.WatchdogStatus {
	t.Helper()
	res, err := api.Report(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return res.Msg.GetStatus()
}

// A peer that falls silent, and that no voter hears any more, is noticed after
// three rounds.
func TestSilentPeer(t *testing.T) {
	watched(t, false, func(t *testing.T, s *site, w *watch, api *service) {
		if got := sentence(t, api); got.State != "watching" || got.Watching != "dir-a" || s.count("campaign") != 0 {
			t.Fatalf("at first %v", got)
		}
		died := time.Now()
		s.silence()
		s.change(func() {
			s.lease = func() *tandemv1.Ballot {
				left := 950*time.Millisecond - time.Since(died)
				return &tandemv1.Ballot{Holder: "dir-a", Epoch: 6, RemainingUs: max(0, left.Microseconds())}
			}
		})
		time.Sleep(2 * time.Second)
		if s.count("campaign") < 5 {
			t.Fatalf("%d campaigns", s.count("campaign"))
		}
		if took := s.first("campaign").Sub(died); took > 400*time.Millisecond {
			t.Errorf("noticed after %v", took)
		}
		if got := s.request("campaign").(*tandemv1.CampaignRequest); got.Force || got.Actor != "wd-a" || !strings.Contains(got.Reason, "dir-a does not answer") {
			t.Errorf("asked %v", got)
		}
		if got := sentence(t, api); got.State != "down" {
			t.Errorf("in the end %v", got)
		}
	})
}

// While voters hear the peer it is left in charge, for however long.
func TestPeerLinkCut(t *testing.T) {
	watched(t, false, func(t *testing.T, s *site, w *watch, api *service) {
		s.silence()
		time.Sleep(10 * time.Minute)
		if got := sentence(t, api); s.count("campaign") != 0 || !strings.HasPrefix(got.Sentence, "peer link down: ") {
			t.Errorf("%d campaigns: %s", s.count("campaign"), got.Sentence)
		}
		s.change(func() { s.peer.Role = "active" })
		time.Sleep(time.Second)
		if got := sentence(t, api); got.State != "watching" {
			t.Errorf("healed: %v", got)
		}
	})
}

// A process that has ended is released at once, everywhere, also by those that
// do not listen at first.
func TestDeadLocalProcess(t *testing.T) {
	watched(t, false, func(t *testing.T, s *site, w *watch, api *service) {
		s.change(func() { s.peer.Role, s.local.Role, s.deaf = "passive", "active", 2 })
		quiet := s.directs(local.Report{Role: "active", Epoch: 9, Holds: true, Eligible: true})
		time.Sleep(time.Second)
		quiet()
		time.Sleep(60 * time.Millisecond)
		s.change(func() { s.local.Role = "" })
		died := time.Now()
		s.link()(local.Gone{PID: 7})
		synctest.Wait()
		if n := s.count("release") + s.count("yield") + s.count("notice"); n != 3 || !time.Now().Equal(died) {
			t.Errorf("%d told at once", n)
		}
		time.Sleep(w.rules.LV)
		if r, y, n := s.count("release"), s.count("yield"), s.count("notice"); r != 3 || y != 1 || n != 1 {
			t.Errorf("told %d voters, the peer %d times, its watchdog %d times", r, y, n)
		}
		if got := s.request("release").(*tandemv1.ReleaseRequest); got.Epoch != 9 || got.Reason != "process_dead" {
			t.Errorf("released %v", got)
		}
		if got := s.request("yield").(*tandemv1.YieldRequest); got.Epoch != 9 || got.Succeed {
			t.Errorf("yielded %v", got)
		}
		if got := s.request("notice").(*tandemv1.NoticeRequest); got.Epoch != 9 || got.Director != "dir-b" {
			t.Errorf("noticed %v", got)
		}
	})
}

// Silence is no proof: nothing is released then.
func TestLostLinkReleasesNothing(t *testing.T) {
	watched(t, false, func(t *testing.T, s *site, w *watch, api *service) {
		quiet := s.directs(local.Report{Role: "passive", Epoch: 9})
		time.Sleep(time.Second)
		quiet()
		s.link()(local.Lost{Err: errors.New("cut")})
		s.change(func() { s.local.Role = "" })
		time.Sleep(time.Minute)
		if s.count("release") != 0 {
			t.Error("released")
		}
	})
}

// A neighbour's notice is acted on without waiting for any probe.
func TestNotice(t *testing.T) {
	watched(t, false, func(t *testing.T, s *site, w *watch, api *service) {
		s.silence()
		at := time.Now()
		notice := func(director, reason string) error {
			_, err := api.Notice(t.Context(), connect.NewRequest(&tandemv1.NoticeRequest{Director: director, Epoch: 6, Reason: reason}))
			return err
		}
		if err := notice("dir-c", processDead); connect.CodeOf(err) != connect.CodeFailedPrecondition {
			t.Errorf("of a stranger: %v", err)
		}
		if err := notice("dir-a", "slow"); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("without proof: %v", err)
		}
		synctest.Wait()
		if s.count("campaign") != 0 {
			t.Fatal("acted on a notice that was refused")
		}
		if err := notice("dir-a", processDead); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s.count("campaign") != 1 || !time.Now().Equal(at) {
			t.Errorf("%d campaigns after %v", s.count("campaign"), time.Since(at))
		}
	})
}

// When nobody leads the preferred one goes first.
func TestColdStart(t *testing.T) {
	for preferred, want := range map[bool]time.Duration{true: 0, false: yield} {
		watched(t, preferred, func(t *testing.T, s *site, w *watch, api *service) {
			at := time.Now()
			s.change(func() { s.peer.Role = "passive" })
			time.Sleep(5 * time.Second)
			if s.count("campaign") == 0 {
				t.Fatalf("preferred %v: nobody", preferred)
			}
			if took := s.first("campaign").Sub(at); took < want || took > want+2*w.rules.Interval {
				t.Errorf("preferred %v: after %v", preferred, took)
			}
		})
	}
}

// A paused watchdog does nothing, says what it would do, and does it when the
// pause is over, which is by itself.
func TestPauseEnds(t *testing.T) {
	watched(t, false, func(t *testing.T, s *site, w *watch, api *service) {
		pause := func(r *tandemv1.PauseRequest) (*tandemv1.PauseResponse, error) {
			res, err := api.Pause(t.Context(), connect.NewRequest(r))
			if err != nil {
				return nil, err
			}
			return res.Msg, nil
		}
		for _, forever := range []int64{0, -1, longestPause.Milliseconds() + 1} {
			if _, err := pause(&tandemv1.PauseRequest{ForMs: forever}); connect.CodeOf(err) != connect.CodeInvalidArgument {
				t.Errorf("for %d ms: %v", forever, err)
			}
		}
		res, err := pause(&tandemv1.PauseRequest{ForMs: 60_000, Actor: "ann"})
		if err != nil || !res.Until.AsTime().Equal(time.Now().Add(time.Minute)) {
			t.Fatalf("until %v, %v", res, err)
		}
		s.silence()
		s.change(func() { s.lease = nil })
		time.Sleep(59 * time.Second)
		if got := sentence(t, api); !got.Paused || got.State != "paused" || !strings.Contains(got.Sentence, "would campaign") || s.count("campaign") != 0 {
			t.Errorf("%d campaigns: %v", s.count("campaign"), got)
		}
		time.Sleep(2 * time.Second)
		if got := sentence(t, api); got.Paused || s.count("campaign") == 0 {
			t.Errorf("%d campaigns: %v", s.count("campaign"), got)
		}
		if _, err := pause(&tandemv1.PauseRequest{ForMs: 60_000}); err != nil {
			t.Fatal(err)
		}
		if res, err := pause(&tandemv1.PauseRequest{Undo: true}); err != nil || res.Until != nil {
			t.Errorf("undone: %v, %v", res, err)
		}
		time.Sleep(w.rules.Interval)
		if got := sentence(t, api); got.Paused {
			t.Errorf("undone: %v", got)
		}
	})
}

// The preferred one gets control back when it has been well for long enough;
// where that is refused it is asked for again, not all the time.
func TestFailback(t *testing.T) {
	watched(t, true, func(t *testing.T, s *site, w *watch, api *service) {
		time.Sleep(27 * time.Second)
		if s.count("failover") != 0 {
			t.Error("too soon")
		}
		time.Sleep(13 * time.Second)
		if n := s.count("failover"); n < 2 || n > 3 {
			t.Errorf("asked %d times in 12 s", n)
		}
		if got := s.request("failover").(*tandemv1.FailoverRequest); got.To != "dir-b" || got.Force {
			t.Errorf("asked %v", got)
		}
		if got := sentence(t, api); !strings.Contains(got.Sentence, "dir-b is not ready") {
			t.Errorf("says %s", got.Sentence)
		}
	})
}

// What director.toml says of failback is what the watchdog goes by.
func TestFailbackConfigured(t *testing.T) {
	for text, want := range map[string]Rules{
		"auto": {Auto: true}, "manual": {}, "20:00-06:00": {Auto: true, Hours: hours(t, "20:00-06:00")},
	} {
		b := defaultBeside()
		b.Failover.Failback = text
		w := newWatch(DefaultConfig(), b, others{}, newMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
		if got := w.view.Rules; got.Auto != want.Auto || got.Hours != want.Hours {
			t.Errorf("%s: %v %v", text, got.Auto, got.Hours)
		}
	}
}

func TestSwitchLost(t *testing.T) {
	watched(t, false, func(t *testing.T, s *site, w *watch, api *service) {
		at := time.Now()
		s.change(func() { s.peer.CTI = "down" })
		time.Sleep(4 * time.Second)
		if s.count("failover") != 1 {
			t.Fatalf("asked %d times", s.count("failover"))
		}
		if took := s.first("failover").Sub(at); took < w.rules.CTIGrace || took > w.rules.CTIGrace+2*w.rules.Interval {
			t.Errorf("after %v", took)
		}
	})
}

func TestWedgedDirector(t *testing.T) {
	watched(t, false, func(t *testing.T, s *site, w *watch, api *service) {
		s.change(func() { s.local.Role = "" })
		time.Sleep(9 * time.Second)
		if s.count("restart") != 0 {
			t.Error("too soon")
		}
		time.Sleep(50 * time.Second)
		if s.count("restart") != 1 {
			t.Errorf("restarted %d times in a minute", s.count("restart"))
		}
	})
}
