package recorder

import (
	"slices"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/recorder/pgtest"
)

// share has a recorder of the name ship to a database from its next start on.
func (b *bench) share(name, url string) {
	b.t.Helper()
	b.stop()
	b.cfg.Name, b.cfg.Catalog.URL = name, url
	b.start()
}

func (b *bench) putLeg(id string, lasts bool) {
	b.t.Helper()
	now := timestamppb.Now()
	leg := &tandemv1.Leg{Id: id, Call: "c" + id, UserName: "Ada", Channels: []string{"a"}, Start: now}
	if !lasts {
		leg.End = now
	}
	_, err := b.control.PutRecords(b.t.Context(), connect.NewRequest(&tandemv1.PutRecordsRequest{Order: order(2, "a"),
		Calls: []*tandemv1.Call{{Id: "c" + id, Line: "L1", Start: now}}, Legs: []*tandemv1.Leg{leg}}))
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) search(where tandemv1.Where, after string, limit uint32) *tandemv1.SearchCallsResponse {
	b.t.Helper()
	r, err := b.media.SearchCalls(b.t.Context(), connect.NewRequest(&tandemv1.SearchCallsRequest{Agent: "ada", Where: where, After: after, Limit: limit}))
	if err != nil {
		b.t.Fatal(err)
	}
	return r.Msg
}

func ids(r *tandemv1.SearchCallsResponse) (all []string) {
	for _, l := range r.Legs {
		all = append(all, l.Recorder+"/"+l.Leg.Id+"/"+l.State)
	}
	slices.Sort(all)
	return all
}

// lags waits for a load report with such a lag.
func (b *bench) lags(what string, such func(rows uint64) bool) {
	b.t.Helper()
	b.watch(what, func(m *tandemv1.WatchResponse) bool { return m.Load != nil && such(m.Load.CatalogLag) })
}

// Two recorders share a catalog: any of them finds what both had, the other one
// being away, and each says what only it knows.
func TestSharedCatalog(t *testing.T) {
	server := pgtest.Start(t)
	url := server.Database()
	one, two := newBench(t), newBench(t)
	if _, err := one.media.SearchCalls(t.Context(), connect.NewRequest(&tandemv1.SearchCallsRequest{Where: tandemv1.Where_WHERE_SHARED})); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("without a shared catalog: %v", err)
	}
	one.putLeg("l1", false) // before it is shared
	one.share("rec-1", url)
	two.share("rec-2", url)
	two.putLeg("l2", true)
	unshipped := func(b *bench) *tandemv1.SearchCallsResponse {
		return b.search(tandemv1.Where_WHERE_UNSHIPPED, "", 0)
	}
	for _, b := range []*bench{one, two} {
		b.until("everything is shipped", func() bool {
			r := unshipped(b)
			return r.Shared != "" && len(r.Legs) == 0 && len(r.Changed) == 0
		})
		b.lags("no lag", func(rows uint64) bool { return rows == 0 })
	}
	if a, b := unshipped(one), unshipped(two); a.Shared != b.Shared || a.Catalog == b.Catalog || a.Catalog == "" {
		t.Errorf("one shares %s, two %s; their own are %s and %s", a.Shared, b.Shared, a.Catalog, b.Catalog)
	}
	two.stop()
	r := one.search(tandemv1.Where_WHERE_SHARED, "", 0)
	if want := []string{"rec-1/l1/complete", "rec-2/l2/recording"}; !slices.Equal(ids(r), want) || r.More || r.Next != "" {
		t.Errorf("found %v, want %v", ids(r), want)
	}
	for _, l := range r.Legs {
		if l.Told == nil || l.Catalog == "" {
			t.Errorf("%s of %s: told %v by catalog %q", l.Leg.Id, l.Recorder, l.Told, l.Catalog)
		}
	}
	first := one.search(tandemv1.Where_WHERE_SHARED, "", 1)
	second := one.search(tandemv1.Where_WHERE_SHARED, first.Next, 1)
	if all := append(ids(first), ids(second)...); !first.More || second.More || len(all) != 2 || all[0] == all[1] {
		t.Errorf("page by page: %v, more %v, then %v", all, first.More, second.More)
	}
	if _, err := one.media.SearchCalls(t.Context(), connect.NewRequest(&tandemv1.SearchCallsRequest{Where: tandemv1.Where_WHERE_SHARED, After: "x"})); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a page of nowhere: %v", err)
	}

	server.Stop()
	one.putLeg("l3", false)
	one.lags("a lag", func(rows uint64) bool { return rows > 0 })
	one.until("it is known that the database is away", func() bool { return unshipped(one).Shared == "" })
	if got, want := ids(unshipped(one)), []string{"rec-1/l1/complete", "rec-1/l3/complete"}; !slices.Equal(got, want) {
		t.Errorf("without the database: %v, want %v", got, want)
	}
	if _, err := one.media.SearchCalls(t.Context(), connect.NewRequest(&tandemv1.SearchCallsRequest{Where: tandemv1.Where_WHERE_SHARED})); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("a search of a database that is away: %v", err)
	}
	server.Run()
	one.until("the rest is shipped", func() bool { r := unshipped(one); return r.Shared != "" && len(r.Changed) == 0 })
	if got, want := ids(one.search(tandemv1.Where_WHERE_SHARED, "", 0)), []string{"rec-1/l1/complete", "rec-1/l3/complete", "rec-2/l2/recording"}; !slices.Equal(got, want) {
		t.Errorf("after the outage: %v, want %v", got, want)
	}
}
