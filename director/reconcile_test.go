package director

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/bubble"
	"tandem/internal/reconcile"
)

// shelf is a recorder that holds legs, all their audio included, and is asked
// without a network.
type shelf struct {
	tandemv1connect.UnimplementedMediaServiceHandler
	secondary bool

	mu     sync.Mutex
	legs   []*tandemv1.LegRecord
	asked  atomic.Int64
	broken error
	stuck  bool
}

// fare changes what becomes of questions.
func (s *shelf) fare(stuck bool, broken error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stuck, s.broken = stuck, broken
}

func (s *shelf) hold(id string, from time.Time, length time.Duration) {
	channel, group := "s1.m1.A", "primary"
	if s.secondary {
		channel, group = "s1.m1.B", "secondary"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.legs = append(s.legs, &tandemv1.LegRecord{
		Call:  &tandemv1.Call{Id: id, Start: timestamppb.New(from), End: timestamppb.New(from.Add(length))},
		Leg:   &tandemv1.Leg{Id: id, Call: id, Session: "s1", Source: "HS.L", Channels: []string{channel}, Start: timestamppb.New(from), End: timestamppb.New(from.Add(length))},
		Group: group, Secondary: s.secondary, State: "complete",
	})
}

func (s *shelf) within(from, to *timestamppb.Timestamp) []*tandemv1.LegRecord {
	var some []*tandemv1.LegRecord
	for _, l := range s.legs {
		if l.GetLeg().GetStart().AsTime().Before(to.AsTime()) && l.GetLeg().GetEnd().AsTime().After(from.AsTime()) {
			some = append(some, l)
		}
	}
	return some
}

func (s *shelf) SearchCalls(ctx context.Context, r *connect.Request[tandemv1.SearchCallsRequest]) (*connect.Response[tandemv1.SearchCallsResponse], error) {
	s.mu.Lock()
	s.asked.Add(1)
	stuck, broken, legs := s.stuck, s.broken, s.within(r.Msg.GetFrom(), r.Msg.GetTo())
	s.mu.Unlock()
	if stuck {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return connect.NewResponse(&tandemv1.SearchCallsResponse{Legs: legs}), broken
}

func (s *shelf) GetCall(_ context.Context, r *connect.Request[tandemv1.GetCallRequest]) (*connect.Response[tandemv1.GetCallResponse], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.legs {
		if l.GetCall().GetId() == r.Msg.GetCall() {
			part := &tandemv1.Part{Channel: l.GetLeg().GetChannels()[0], From: l.GetLeg().GetStart(), To: l.GetLeg().GetEnd()}
			return connect.NewResponse(&tandemv1.GetCallResponse{Legs: []*tandemv1.LegDetail{{Record: l, Parts: []*tandemv1.Part{part}}}}), nil
		}
	}
	return nil, connect.NewError(connect.CodeNotFound, errors.New("no such call"))
}

// ListSegments has none: all audio is in the journal yet.
func (s *shelf) ListSegments(context.Context, *connect.Request[tandemv1.ListSegmentsRequest], *connect.ServerStream[tandemv1.ListSegmentsResponse]) error {
	return nil
}

// Do implements connect.HTTPClient.
func (s *shelf) Do(r *http.Request) (*http.Response, error) {
	_, handler := tandemv1connect.NewMediaServiceHandler(s)
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, r)
	return answer.Result(), nil
}

func (s *shelf) source(name string) reconcile.Source {
	return reconcile.Source{Name: name, Media: tandemv1connect.NewMediaServiceClient(s, "http://"+name)}
}

// wantMetrics holds that a metric's values, whatever their labels, add up.
func wantMetrics(t *testing.T, r *prometheus.Registry, name string, want float64) {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	if sum != want {
		t.Errorf("%s: %v, want %v", name, sum, want)
	}
}

func TestComparer(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		own, twin := &shelf{}, &shelf{secondary: true}
		var leads atomic.Bool
		leads.Store(true)
		registry := prometheus.NewRegistry()
		cfg := defaultReconcile()
		c := &comparer{
			cfg: cfg, leads: leads.Load, metrics: newComparerMetrics(registry), log: slog.New(slog.DiscardHandler),
			sources: func() []reconcile.Source { return []reconcile.Source{own.source("rec-1"), twin.source("rec-9")} },
		}
		done := make(chan error, 1)
		go func() { done <- c.run(ctx) }()
		began := time.Now()
		pass := func(want string) {
			t.Helper()
			time.Sleep(cfg.Every.Std())
			synctest.Wait()
			var got []string
			for key, a := range c.worries() {
				got = append(got, fmt.Sprint(key.what, " ", severities[key.what], ": ", a.text))
			}
			if len(got) > 1 || !strings.Contains(strings.Join(got, ""), want) || want == "" && len(got) > 0 {
				t.Fatalf("after %v: %q, want %q", time.Since(began), got, want)
			}
		}
		both := func(id string, at time.Duration) {
			own.hold(id, began.Add(at), time.Minute)
			twin.hold(id+"-twin", began.Add(at), time.Minute)
		}
		time.Sleep(time.Minute) // a round that waits for an answer is over when it is looked at
		both("a", time.Minute/2)
		pass("")
		wantMetrics(t, registry, "tandem_reconcile_pairs", 1)
		twin.hold("b", began.Add(4*time.Minute), 30*time.Second)
		twin.hold("c", began.Add(5*time.Minute), 30*time.Second)
		both("d", 6*time.Minute)
		pass("copies_differ warning: 4 records, 1 in both groups, 1 of these whole: 2 missing; recctl reconcile --from 2000-01-01T00:02:00Z --to 2000-01-01T00:07:00Z lists them")
		since := c.last.Load().since
		own.fare(false, connect.NewError(connect.CodeUnavailable, errors.New("gone")))
		pass("reconcile_failed warning: the two groups could not be compared: ask rec-1: unavailable: gone")
		own.fare(false, nil)
		twin.hold("e", began.Add(8*time.Minute), time.Minute)
		pass("1 missing; recctl reconcile --from 2000-01-01T00:07:00Z --to 2000-01-01T00:17:00Z") // the window that failed is made up for
		pass("")
		wantMetrics(t, registry, "tandem_reconcile_findings_total", 3)
		wantMetrics(t, registry, "tandem_reconcile_findings", 0)
		wantMetrics(t, registry, "tandem_reconcile_failures_total", 1)
		if c.last.Load().since == since {
			t.Error("what is well again is as old as what was not")
		}
		twin.fare(true, nil)
		for range 20 {
			pass("reconcile_failed")
		}
		twin.fare(false, nil)
		pass("")
		if o := c.last.Load(); o.during.Length() != arrears {
			t.Errorf("made up for %v, want %v", o.during.Length(), arrears)
		}
		twin.hold("f", time.Now(), time.Minute)
		leads.Store(false)
		asked := own.asked.Load()
		for range 3 {
			pass("")
		}
		if leads.Store(true); own.asked.Load() != asked {
			t.Error("asked while another director is in charge")
		}
		pass("")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestNoTwin(t *testing.T) {
	if c := newComparer(&director{cfg: testConfig()}); c != nil || c.worries() != nil {
		t.Error("compares with nobody")
	}
}
