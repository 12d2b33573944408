package cli

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
)

// sharingRecorder ships to a shared catalog as a recorder would.
type sharingRecorder struct {
	tandemv1connect.UnimplementedMediaServiceHandler
	own    *tandemv1.SearchCallsResponse // to what is asked of it alone
	shared []*tandemv1.LegRecord         // a page of one record each
	away   error                         // of the shared catalog
	asked  []tandemv1.Where
	pages  int
}

func (f *sharingRecorder) SearchCalls(_ context.Context, r *connect.Request[tandemv1.SearchCallsRequest]) (*connect.Response[tandemv1.SearchCallsResponse], error) {
	f.asked = append(f.asked, r.Msg.Where)
	if r.Msg.Where != tandemv1.Where_WHERE_SHARED {
		return connect.NewResponse(f.own), nil
	}
	if f.away != nil {
		return nil, f.away
	}
	f.pages++
	n, _ := strconv.Atoi(r.Msg.After) // the first page is after nothing
	page := &tandemv1.SearchCallsResponse{}
	if n < len(f.shared) {
		page.Legs = f.shared[n : n+1]
	}
	if n+1 < len(f.shared) {
		page.Next, page.More = strconv.Itoa(n+1), true
	}
	return connect.NewResponse(page), nil
}

func (f *sharingRecorder) GetCall(context.Context, *connect.Request[tandemv1.GetCallRequest]) (*connect.Response[tandemv1.GetCallResponse], error) {
	return nil, connect.NewError(connect.CodeNotFound, errors.New("no such call"))
}

func (f *sharingRecorder) serve(t *testing.T) string {
	path, handler := tandemv1connect.NewMediaServiceHandler(f)
	return serve(t, path, handler)
}

// legOf is a record of a leg; the older the further down the list.
func legOf(recorder, leg string, age time.Duration, state string) *tandemv1.LegRecord {
	r := &tandemv1.LegRecord{Recorder: recorder, Catalog: "of " + recorder, State: state, Group: "primary", Told: after(-time.Minute),
		Call: &tandemv1.Call{Id: "c" + leg, Start: after(-age)}, Leg: &tandemv1.Leg{Id: leg, Call: "c" + leg, Start: after(-age)}}
	if state == "complete" {
		r.Leg.End = after(-age + time.Second)
	}
	return r
}

func TestSearchEverywhere(t *testing.T) {
	hour := time.Hour
	shared := []*tandemv1.LegRecord{
		legOf("rec-3", "l5", time.Second, "recording"), // begins after it was last heard of
		legOf("rec-1", "l1", 1*hour, "recording"),      // it has ended by now
		legOf("rec-1", "l2", 2*hour, "complete"),       //
		legOf("rec-2", "l3", 3*hour, "complete"),       // rec-2 tells itself
		legOf("rec-3", "l4", 4*hour, "recording"),      // rec-3 does not answer
		legOf("rec-4", "l4", 4*hour, "complete"),       // rec-4 took over from it
	}
	unshipped := &tandemv1.SearchCallsResponse{Shared: "db", Catalog: "of rec-1", Changed: []string{"l1", "l9"}, Legs: []*tandemv1.LegRecord{legOf("rec-1", "l1", hour, "complete")}}
	all := &tandemv1.SearchCallsResponse{Catalog: "of rec-2", Legs: []*tandemv1.LegRecord{legOf("rec-2", "l3", 3*hour, "complete"), legOf("rec-2", "l6", 6*hour, "complete")}}
	for _, c := range []struct {
		name, options string
		away          error
		want          []string
		says          string
		pages         int
	}{
		{"all", "--limit 100", nil, []string{"l1 rec-1 complete", "l2 rec-1 complete", "l3 rec-2 complete", "l4 rec-3,rec-4 interrupted", "l5 rec-3 interrupted", "l6 rec-2 complete"},
			"rec-3 does not answer: what it had told the shared catalog by 2026-03-02T11:59:00Z is shown", 6},
		{"the newest", "--limit 1", nil, []string{"l5 rec-3 interrupted"}, "rec-3 does not answer", 3},
		{"what lasts", "--ongoing", nil, []string{"l1 rec-1 complete", "l2 rec-1 complete", "l3 rec-2 complete", "l6 rec-2 complete"}, "rec-3 does not answer", 6},
		{"the database is away", "--limit 100", connect.NewError(connect.CodeUnavailable, errors.New("no route to host")), []string{"l1 rec-1 complete", "l3 rec-2 complete", "l6 rec-2 complete"},
			"shared catalog left out: no route to host", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			one, two := &sharingRecorder{own: unshipped, shared: shared, away: c.away}, &sharingRecorder{own: all}
			config := `directors = []` + "\n" + `recorders = ["` + one.serve(t) + `", "` + two.serve(t) + `"]`
			r := recctl(t, config, append([]string{"calls", "--json"}, strings.Fields(c.options)...)...)
			if r.status != ExitDone || !strings.Contains(r.errs, c.says) {
				t.Errorf("status %d, says %q", r.status, r.errs)
			}
			var got []string
			for line := range strings.SplitSeq(strings.TrimSpace(r.out), "\n") {
				var leg struct {
					Leg, State string
					Recorders  []string
				}
				if err := json.Unmarshal([]byte(line), &leg); err != nil {
					t.Fatal(err)
				}
				got = append(got, leg.Leg+" "+strings.Join(leg.Recorders, ",")+" "+leg.State)
			}
			if slices.Sort(got); !slices.Equal(got, c.want) {
				t.Errorf("got %v\nwant %v", got, c.want)
			}
			if one.pages != c.pages || two.pages != 0 || two.asked[0] != tandemv1.Where_WHERE_UNSHIPPED {
				t.Errorf("%d pages read, want %d; asked %v and %v", one.pages, c.pages, one.asked, two.asked)
			}
		})
	}
	if !proto.Equal(shared[4], legOf("rec-3", "l4", 4*hour, "recording")) {
		t.Error("what was told is written over")
	}
}

// Of a leg that lasted when its recorder was last heard of nothing is known but
// that.
func TestCutShort(t *testing.T) {
	for _, c := range []struct {
		name string
		r    *tandemv1.LegRecord
		want time.Time
	}{
		{"lasted", legOf("rec-1", "l1", time.Hour, "recording"), noon.Add(-time.Minute)},
		{"began since", legOf("rec-1", "l1", time.Second, "recording"), noon.Add(-time.Second)},
		{"had ended", legOf("rec-1", "l1", time.Hour, "complete"), noon.Add(-time.Hour + time.Second)},
	} {
		if got := cutShort(c.r); !at(got.Leg.End).Equal(c.want) || got.State == "recording" {
			t.Errorf("%s: %s until %v, want %v", c.name, got.State, at(got.Leg.End), c.want)
		}
	}
}
