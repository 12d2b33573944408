package voter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/authority"
	"tandem/internal/rpc"
)

const ms = time.Millisecond

// clock is one that tests set.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.pass(time.Hour)
	return c
}

func (c *clock) now() authority.Instant { return authority.Instant(c.at.Load()) }
func (c *clock) pass(d time.Duration)   { c.at.Add(int64(d)) }

func (c *clock) config(path string) Config {
	return Config{Name: "rec-1", Group: "primary", Path: path, Profile: "steady", Boot: "boot", Clock: c.now, Log: slog.New(slog.DiscardHandler)}
}

func mustOpen(t interface {
	Helper()
	Fatal(...any)
}, cfg Config) *Keeper {
	t.Helper()
	k, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func pairOrder(director string, epoch, sequence, nonce uint64) *tandemv1.Order {
	return &tandemv1.Order{Group: "primary", Profile: "steady", Director: director, Epoch: epoch, Sequence: sequence, Nonce: nonce}
}

func aloneOrder(director string, epoch uint64) *tandemv1.Order {
	return &tandemv1.Order{Group: "primary", Director: director, Epoch: epoch}
}

// outcome is what became of a call, in a word.
func outcome(err error) string {
	if err == nil {
		return "obeyed"
	}
	if r := RefusalIn(err); r != nil && connect.CodeOf(err) == connect.CodeFailedPrecondition {
		return strings.ToLower(strings.TrimPrefix(r.GetReason().String(), "REASON_"))
	}
	return err.Error()
}

// site is a voter behind a real listener, and a director's client.
type site struct {
	t      *testing.T
	clock  *clock
	cfg    Config
	keeper *Keeper
	client tandemv1connect.VoterServiceClient
	nonce  uint64 // of what is sent next; 0: the newest
	stop   func()
}

func newSite(t *testing.T) *site {
	c := newClock()
	s := &site{t: t, clock: c, cfg: c.config(filepath.Join(t.TempDir(), "authority.json"))}
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *site) start() {
	s.t.Helper()
	s.keeper = mustOpen(s.t, s.cfg)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	_, handler := tandemv1connect.NewVoterServiceHandler(s.keeper)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- rpc.Serve(ctx, ln, handler) }()
	client := rpc.NewClient()
	s.client = tandemv1connect.NewVoterServiceClient(client, "http://"+ln.Addr().String())
	s.stop = func() {
		client.CloseIdleConnections()
		cancel()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
	}
}

func (s *site) newest() uint64 {
	s.t.Helper()
	if nonce := s.nonce; nonce != 0 {
		s.nonce = 0
		return nonce
	}
	r, err := s.client.Query(s.t.Context(), connect.NewRequest(&tandemv1.QueryRequest{Group: "primary", Profile: "steady"}))
	if err != nil {
		s.t.Fatal(err)
	}
	return r.Msg.GetBallot().GetNonce()
}

// What can be done to a site. Each says what came of it.

func lease(director string, epoch uint64) func(*site) string {
	return func(s *site) string {
		r, err := s.client.Lease(s.t.Context(), connect.NewRequest(&tandemv1.LeaseRequest{Group: "primary", Profile: "steady", Director: director, Epoch: epoch, Nonce: s.newest()}))
		if err != nil {
			return outcome(err)
		}
		return fmt.Sprintf("granted=%v %s", r.Msg.GetGranted(), ballotText(r.Msg.GetBallot()))
	}
}

func query(s *site) string {
	r, err := s.client.Query(s.t.Context(), connect.NewRequest(&tandemv1.QueryRequest{Group: "primary", Profile: "steady"}))
	if err != nil {
		return outcome(err)
	}
	return ballotText(r.Msg.GetBallot())
}

func release(epoch uint64) func(*site) string {
	return func(s *site) string {
		r, err := s.client.Release(s.t.Context(), connect.NewRequest(&tandemv1.ReleaseRequest{Group: "primary", Epoch: epoch, Reason: "planned", By: "dir-a"}))
		if err != nil {
			return outcome(err)
		}
		return ballotText(r.Msg.GetBallot())
	}
}

func ballotText(b *tandemv1.Ballot) string {
	return fmt.Sprintf("%d %s %v", b.GetEpoch(), b.GetHolder(), time.Duration(b.GetRemainingUs())*time.Microsecond)
}

func order(director string, epoch, sequence uint64) func(*site) string {
	return obey(func(s *site) *tandemv1.Order { return pairOrder(director, epoch, sequence, s.newest()) }, false)
}

func fence(director string, epoch, sequence uint64) func(*site) string {
	return obey(func(s *site) *tandemv1.Order { return pairOrder(director, epoch, sequence, s.newest()) }, true)
}

func alone(director string, epoch uint64) func(*site) string {
	return obey(func(*site) *tandemv1.Order { return aloneOrder(director, epoch) }, false)
}

// other is an order with something of it changed.
func other(change func(*tandemv1.Order)) func(*site) string {
	return obey(func(s *site) *tandemv1.Order {
		o := pairOrder("dir-a", 4, 100, s.newest())
		change(o)
		return o
	}, true)
}

func obey(order func(*site) *tandemv1.Order, fence bool) func(*site) string {
	return func(s *site) string {
		ran := false
		err := s.keeper.Obey(s.t.Context(), order(s), fence, func() error { ran = true; return nil })
		if ran != (err == nil) {
			s.t.Errorf("carried out: %v, answered: %v", ran, err)
		}
		return outcome(err)
	}
}

// hold has what is sent next repeat the nonce of now.
func hold(s *site) string { s.nonce = s.newest(); return "" }

func restart(s *site) string {
	s.stop()
	s.start()
	return ""
}

func TestRules(t *testing.T) {
	type step struct {
		after time.Duration
		do    func(*site) string
		want  string
	}
	leased := []step{{time.Second, lease("dir-a", 4), "granted=true 4 dir-a 1s"}}
	with := func(steps ...step) []step { return append(leased[:1:1], steps...) }
	for name, story := range map[string][]step{
		"a voter that kept nothing grants nothing until a lease it forgot has lapsed": {
			{999 * ms, lease("dir-a", 2), "granted=false 0  0s"},
			{1 * ms, lease("dir-a", 2), "granted=true 2 dir-a 1s"},
		},
		"a lease runs out, and is renewed": with(
			step{900 * ms, query, "4 dir-a 100ms"},
			step{0, lease("dir-a", 4), "granted=true 4 dir-a 1s"},
			step{1000 * ms, query, "4 dir-a 0s"},
			step{0, lease("dir-a", 4), "granted=true 4 dir-a 1s"},
		),
		"the rival gets none while a lease is live, whatever the epoch": with(
			step{999 * ms, lease("dir-b", 7), "granted=false 4 dir-a 1ms"},
			step{1 * ms, lease("dir-b", 7), "granted=true 7 dir-b 1s"},
		),
		"nobody gets back behind an epoch": with(
			step{5 * time.Second, lease("dir-b", 3), "granted=false 4 dir-a 0s"},
			step{0, lease("dir-a", 2), "granted=false 4 dir-a 0s"},
			step{0, lease("dir-a", 0), "granted=false 4 dir-a 0s"},
		),
		"a lease that was on its way for too long is not granted": with(
			step{0, hold, ""},
			step{110 * ms, lease("dir-a", 4), "granted=true 4 dir-a 1s"},
			step{0, hold, ""},
			step{250 * ms, lease("dir-a", 4), "granted=false 4 dir-a 750ms"},
		),
		"nor one that was sent to the process before": with(
			step{0, hold, ""},
			step{0, restart, ""},
			step{0, lease("dir-a", 4), "granted=false 4 dir-a 1s"},
		),
		"a release leaves what the last order needs": with(
			step{0, release(4), "4 dir-a 150ms"},
			step{149 * ms, lease("dir-b", 5), "granted=false 4 dir-a 1ms"},
			step{1 * ms, lease("dir-b", 5), "granted=true 5 dir-b 1s"},
		),
		"a release of another epoch changes nothing": with(
			step{0, release(2), "4 dir-a 1s"},
			step{0, release(5), "4 dir-a 1s"},
		),
		"a restart counts a lease as just renewed": with(
			step{999 * ms, restart, ""},
			step{999 * ms, lease("dir-b", 7), "granted=false 4 dir-a 1ms"},
			step{0, lease("dir-a", 4), "granted=true 4 dir-a 1s"},
		),
		"two that are both preferred never hold both": with(
			step{0, lease("dir-c", 4), "granted=false 4 dir-a 1s"},
			step{0, lease("dir-c", 6), "granted=false 4 dir-a 1s"},
			step{0, fence("dir-c", 4, 1), "wrong_holder"},
			step{0, fence("dir-c", 6, 1), "wrong_holder"},
			step{1000 * ms, lease("dir-c", 4), "granted=false 4 dir-a 0s"},
			step{0, lease("dir-c", 6), "granted=true 6 dir-c 1s"},
		),
		"orders of the holder are obeyed, each once": with(
			step{0, order("dir-a", 4, 1), "obeyed"},
			step{0, order("dir-a", 4, 1), "repeated"},
			step{0, order("dir-a", 4, 3), "obeyed"},
			step{0, order("dir-a", 4, 2), "repeated"},
		),
		"an order that was on its way for too long is not obeyed": with(
			step{0, hold, ""},
			step{110 * ms, order("dir-a", 4, 1), "obeyed"},
			step{0, hold, ""},
			step{150 * ms, order("dir-a", 4, 2), "not_fresh"},
			step{0, order("dir-a", 4, 2), "obeyed"},
		),
		"a lapsed lease must be fenced first": with(
			step{1000 * ms, order("dir-a", 4, 1), "no_lease"},
			step{0, fence("dir-a", 4, 1), "obeyed"},
			step{999 * ms, order("dir-a", 4, 2), "obeyed"},
		),
		"a fence has the recorder follow a newer epoch, an order does not": with(
			step{0, order("dir-b", 5, 1), "stale_epoch"},
			step{0, fence("dir-b", 5, 1), "obeyed"},
			step{0, query, "5 dir-b 1s"},
			step{0, order("dir-b", 5, 2), "obeyed"},
			step{0, order("dir-a", 4, 9), "stale_epoch"},
			step{0, fence("dir-a", 4, 10), "stale_epoch"},
			step{0, lease("dir-a", 4), "granted=false 5 dir-b 1s"},
		),
		"a fence of a newer epoch counts orders from its own on": with(
			step{0, order("dir-a", 4, 90), "obeyed"},
			step{0, fence("dir-a", 6, 1), "obeyed"},
			step{0, order("dir-a", 6, 2), "obeyed"},
		),
		"another's order is not obeyed": with(
			step{0, order("dir-b", 4, 1), "wrong_holder"},
			step{0, other(func(o *tandemv1.Order) { o.Group = "secondary" }), "wrong_group"},
			step{0, other(func(o *tandemv1.Order) { o.Profile = "fast" }), "wrong_profile"},
			step{0, other(func(o *tandemv1.Order) { o.Epoch = 0 }), "stale_epoch"},
			step{0, other(func(o *tandemv1.Order) { o.Nonce++ }), "not_fresh"},
			step{0, other(func(o *tandemv1.Order) { o.Nonce = 0 }), "not_fresh"},
		),
		"a director that stands alone needs neither lease nor haste": {
			{0, alone("solo", 0), "stale_epoch"},
			{0, alone("solo", 2), "obeyed"},
			{time.Hour, alone("solo", 2), "obeyed"},
			{0, query, "2 solo 0s"},
			{0, alone("dir-x", 2), "wrong_holder"},
			{0, alone("solo", 1), "stale_epoch"},
			{0, alone("dir-x", 4), "obeyed"},
			{0, alone("solo", 2), "stale_epoch"},
		},
		"nor does it get between a pair": with(
			step{0, alone("solo", 6), "wrong_holder"},
			step{0, alone("solo", 5), "wrong_holder"},
			step{0, alone("dir-a", 4), "obeyed"},
			step{1000 * ms, alone("solo", 6), "obeyed"},
		),
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			for n, step := range story {
				s.clock.pass(step.after)
				if got := step.do(s); got != step.want {
					t.Fatalf("step %d: got %q, want %q", n, got, step.want)
				}
			}
		})
	}
}

// Whoever is of another group or keeps other time is told so, and leaves no trace.
func TestStrangers(t *testing.T) {
	s := newSite(t)
	s.clock.pass(time.Second)
	ask := func(director, group, profile string) (asked, leased error) {
		_, asked = s.client.Query(t.Context(), connect.NewRequest(&tandemv1.QueryRequest{Group: group, Director: director, Profile: profile}))
		_, leased = s.client.Lease(t.Context(), connect.NewRequest(&tandemv1.LeaseRequest{Group: group, Director: director, Profile: profile, Epoch: 2, Nonce: s.newest()}))
		return asked, leased
	}
	for _, c := range []struct{ group, profile, want, names string }{
		{"secondary", "steady", "wrong_group", `"secondary"`},
		{"primary", "fast", "wrong_profile", `"fast"`},
		{"primary", "", "wrong_profile", `"steady"`},
	} {
		asked, leased := ask("dir-x", c.group, c.profile)
		for _, err := range []error{asked, leased} {
			if outcome(err) != c.want || !strings.Contains(err.Error(), c.names) || !strings.Contains(err.Error(), "rec-1") {
				t.Errorf("%q %q: got %v, want %s", c.group, c.profile, err, c.want)
			}
		}
	}
	if _, err := s.client.Release(t.Context(), connect.NewRequest(&tandemv1.ReleaseRequest{Group: "secondary", Epoch: 2})); outcome(err) != "wrong_group" {
		t.Errorf("release: %v", err)
	}
	if _, err := s.client.Lease(t.Context(), connect.NewRequest(&tandemv1.LeaseRequest{Group: "primary", Profile: "steady", Epoch: 2, Nonce: s.newest()})); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("lease for nobody: %v", err)
	}
	r, err := s.client.Query(t.Context(), connect.NewRequest(&tandemv1.QueryRequest{Group: "primary", Profile: "steady"}))
	if err != nil || len(r.Msg.GetBallot().GetHeard()) != 0 || r.Msg.GetBallot().GetEpoch() != 0 {
		t.Errorf("they left a trace: %v %v", r, err)
	}
}

func TestHeard(t *testing.T) {
	s := newSite(t)
	for _, director := range []string{"dir-a", "x1", "x2", "x3", "x4", "dir-b"} { // two more than are remembered
		s.clock.pass(10 * ms)
		if _, err := s.client.Query(t.Context(), connect.NewRequest(&tandemv1.QueryRequest{Group: "primary", Profile: "steady", Director: director})); err != nil {
			t.Fatal(err)
		}
	}
	s.clock.pass(300 * ms)
	r, err := s.client.Query(t.Context(), connect.NewRequest(&tandemv1.QueryRequest{Group: "primary", Profile: "steady", Director: "dir-a"}))
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, h := range r.Msg.GetBallot().GetHeard() {
		got += fmt.Sprintf("%s %d; ", h.GetDirector(), h.GetAgeMs())
	}
	if want := "dir-a 0; dir-b 300; x3 320; x4 310; "; got != want {
		t.Errorf("got %s want %s", got, want)
	}
	if b := r.Msg.GetBallot(); b.GetVoter() != "rec-1" || b.GetBootId() != "boot" {
		t.Errorf("got %v", b)
	}
}

// What recorders kept before there were leases is a voter's word, too.
func TestReadsWhatWasKeptBefore(t *testing.T) {
	c := newClock()
	cfg := c.config(filepath.Join(t.TempDir(), "authority.json"))
	if err := os.WriteFile(cfg.Path, []byte(`{"epoch":6,"holder":"dir-a","draining":true}`), 0o640); err != nil {
		t.Fatal(err)
	}
	k := mustOpen(t, cfg)
	if epoch, holder := k.Seen(); epoch != 6 || holder != "dir-a" {
		t.Errorf("got %d of %q", epoch, holder)
	}
	if err := os.WriteFile(cfg.Path, []byte(`{"epo`), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); err == nil {
		t.Error("a voter that cannot read its word must not start")
	}
	cfg.Profile = "slow"
	if _, err := Open(cfg); err == nil {
		t.Error("nor one without timing")
	}
}

// A nonce is of one run of the process: none of another's is near.
func TestNonceBase(t *testing.T) {
	seen := map[uint64]bool{}
	for range 1000 {
		base := nonceBase()
		if base < 1<<62 || base >= 1<<63 {
			t.Fatalf("%x", base)
		}
		seen[base>>20] = true
	}
	if len(seen) < 990 {
		t.Errorf("%d of 1000 bases differ", len(seen))
	}
}

var errAct = errors.New("the catalog is full")

// What the order's act says is what the caller hears, and the order counts as
// obeyed.
func TestActFails(t *testing.T) {
	c := newClock()
	k := mustOpen(t, c.config(filepath.Join(t.TempDir(), "authority.json")))
	if err := k.Obey(t.Context(), pairOrder("dir-a", 2, 1, k.Nonce()), true, func() error { return errAct }); err != errAct {
		t.Errorf("got %v", err)
	}
	if err := k.Obey(t.Context(), pairOrder("dir-a", 2, 1, k.Nonce()), true, func() error { return nil }); outcome(err) != "repeated" {
		t.Errorf("got %v", err)
	}
}

// The log tells when each succession happened, once, and whatever would be
// one backwards.
func TestTellsWhomItObeys(t *testing.T) {
	c, lines := newClock(), &bytes.Buffer{}
	cfg := c.config(filepath.Join(t.TempDir(), "authority.json"))
	cfg.Log = slog.New(slog.NewTextHandler(lines, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "last" {
			return slog.Attr{}
		}
		return a
	}}))
	k := mustOpen(t, cfg)
	for _, o := range []struct {
		director        string
		epoch, sequence uint64
		fence           bool
	}{
		{"dir-a", 2, 1, true}, {"dir-a", 2, 2, true}, {"dir-a", 2, 3, false}, {"dir-a", 2, 4, true}, {"dir-a", 2, 5, false},
		{"dir-b", 3, 1, true}, {"dir-a", 2, 6, false}, {"dir-b", 3, 2, false}, {"dir-b", 3, 3, false},
	} {
		err := k.Obey(t.Context(), pairOrder(o.director, o.epoch, o.sequence, k.Nonce()), o.fence, func() error { return nil })
		if stale := o.director == "dir-a" && o.sequence == 6; (outcome(err) == "obeyed") == stale {
			t.Fatalf("%+v: %v", o, err)
		}
	}
	var told []string
	for line := range strings.Lines(lines.String()) {
		if _, rest, ok := strings.Cut(line, "msg=obeys voter=rec-1 "); ok {
			told = append(told, strings.TrimSpace(rest))
		}
	}
	want := []string{"epoch=2 director=dir-a fence=true", "epoch=2 director=dir-a fence=false", "epoch=3 director=dir-b fence=true", "epoch=3 director=dir-b fence=false"}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

// A director of another group asks ten times a second. The log names it once
// an hour, and whoever invents names does not fill it.
func TestStrangersAreToldOnce(t *testing.T) {
	var s strangers
	now := authority.Instant(0)
	for n, c := range []struct {
		who   stranger
		after time.Duration
		want  bool
	}{
		{stranger{"dir-c", "secondary"}, 0, true},
		{stranger{"dir-c", "secondary"}, time.Minute, false},
		{stranger{"dir-d", "secondary"}, 0, true},
		{stranger{"dir-c", "tertiary"}, 0, true},
		{stranger{"dir-c", "secondary"}, tellAgain - time.Minute, true},
		{stranger{"dir-c", "secondary"}, 0, false},
	} {
		now = now.Add(c.after)
		if got := s.isNews(c.who, now); got != c.want {
			t.Errorf("step %d: %v", n, got)
		}
	}
	told := 0
	for n := range 1000 {
		if s.isNews(stranger{strconv.Itoa(n), "x"}, now) {
			told++
		}
	}
	if told >= mostStrangers || len(s.told) > mostStrangers {
		t.Errorf("%d were told of", told)
	}
	if !s.isNews(stranger{"late", "x"}, now.Add(tellAgain)) || len(s.told) != 1 {
		t.Errorf("an hour later %d are remembered", len(s.told))
	}
}
