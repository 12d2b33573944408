package catalog

import (
	"context"
	"errors"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"tandem/internal/call"
	"tandem/internal/media"
)

var t0 = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

func sec(n float64) time.Time { return t0.Add(time.Duration(n * float64(time.Second))) }

func open(t *testing.T) *Catalog {
	t.Helper()
	c, err := Open(t.Context(), filepath.Join(t.TempDir(), "cata log?.db")) // a path that must be escaped
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestAttachmentsSurvive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	c := must(Open(t.Context(), path))(t)
	a := Attachment{Num: 3, Channel: "s1.m1.A", Session: "s1", User: "u1", UserName: "Ada", Device: "d1", Profile: "p", Mix: "m1", Copy: call.CopyA,
		Sources: []string{"HS.L", "HS.R"}, Host: "127.0.0.1", Port: 20000, Dialog: []byte{1, 2}, Reason: "lowest score", Opened: t0,
		Continues: call.Continuation{Recorder: "rec-2", Cause: call.CauseFailover, Since: sec(-1)}}
	closed := a
	closed.Num, closed.Closed, closed.Cause = 2, sec(1), "logged_off"
	if err := c.PutAttachments(t.Context(), []Attachment{closed, a}); err != nil {
		t.Fatal(err)
	}
	a.Codec, a.PayloadType, a.RTCPMux, a.Remote = media.PCMA, 8, true, "127.0.0.1:4000"
	if err := c.PutAttachments(t.Context(), []Attachment{a}); err != nil {
		t.Fatal(err)
	}
	c.Close()
	c = must(Open(t.Context(), path))(t)
	defer c.Close()
	if got := must(c.OpenAttachments(t.Context()))(t); !reflect.DeepEqual(got, []Attachment{a}) {
		t.Errorf("got %+v\nwant %+v", got, a)
	}
	if n := must(c.LastNum(t.Context()))(t); n != 3 {
		t.Errorf("last number %d", n)
	}
	if got := must(c.Attachments(t.Context(), a.Channel, Window{t0, sec(0.5)}))(t); len(got) != 2 {
		t.Errorf("%d attachments in the window, want both", len(got))
	}
	again := a
	again.Num = 4
	if err := c.PutAttachments(t.Context(), []Attachment{again}); err != nil {
		t.Fatal(err)
	}
	if got := must(c.OpenAttachments(t.Context()))(t); len(got) != 1 || got[0].Num != 4 {
		t.Errorf("a channel is attached twice: %+v", got)
	}
}

func TestSearch(t *testing.T) {
	c := open(t)
	calls := []Call{
		{ID: "c1", Line: "L1", Direction: "in", Kind: "dial", Party: "+44 20 7946", PartyName: "100%_sure Ltd", State: "released", Start: sec(0), End: sec(60), EndCause: "normal"},
		{ID: "c2", Line: "L2", Direction: "out", Kind: "hoot", State: "established", Start: sec(30)},
	}
	legs := []Leg{
		{ID: "l1", Call: "c1", User: "u1", UserName: "Ada Lovelace", Device: "d1", Source: "HS.L", Channels: []string{"x.m1.A", "x.m4.A"}, Start: sec(5), End: sec(60), Accuracy: "exact", Group: "primary"},
		{ID: "l2", Call: "c2", User: "u2", UserName: "Grace", Device: "d2", Source: "SPK.1", Channels: []string{"y.m2.A"}, Start: sec(30)},
	}
	if err := c.PutRecords(t.Context(), calls, legs, nil); err != nil {
		t.Fatal(err)
	}
	for _, q := range []struct {
		name string
		Query
		want []call.LegID
	}{
		{"all, newest first", Query{}, []call.LegID{"l2", "l1"}},
		{"agent by name", Query{Agent: "love"}, []call.LegID{"l1"}},
		{"agent by id", Query{Agent: "u2"}, []call.LegID{"l2"}},
		{"party with wildcards as letters", Query{Party: "0%_s"}, []call.LegID{"l1"}},
		{"a wildcard alone matches only itself", Query{Party: "_x"}, nil},
		{"line", Query{Line: "L2"}, []call.LegID{"l2"}},
		{"device", Query{Device: "d1"}, []call.LegID{"l1"}},
		{"ongoing", Query{Ongoing: true}, []call.LegID{"l2"}},
		{"before", Query{To: sec(30)}, []call.LegID{"l1"}},
		{"after", Query{From: sec(60)}, []call.LegID{"l2"}},
		{"call", Query{Call: "c1"}, []call.LegID{"l1"}},
	} {
		records, more, err := c.Search(t.Context(), q.Query)
		var got []call.LegID
		for _, r := range records {
			got = append(got, r.Leg.ID)
		}
		if err != nil || more || !reflect.DeepEqual(got, q.want) {
			t.Errorf("%s: got %v %v %v, want %v", q.name, got, more, err, q.want)
		}
	}
	records, more, err := c.Search(t.Context(), Query{Limit: 1})
	if err != nil || !more || len(records) != 1 {
		t.Errorf("limit: %d records, more %v, %v", len(records), more, err)
	}
	if r := must(c.OpenLegs(t.Context()))(t)[0]; !reflect.DeepEqual(r.Leg, legs[1]) || !reflect.DeepEqual(r.Call, calls[1]) {
		t.Errorf("got %+v", r)
	}
}

func TestInterruptedUntilSpokenOfAgain(t *testing.T) {
	c := open(t)
	leg := Leg{ID: "l1", Call: "c1", Start: t0, Channels: []string{"a"}}
	put := func(l Leg) {
		t.Helper()
		if err := c.PutRecords(t.Context(), nil, []Leg{l}, nil); err != nil {
			t.Fatal(err)
		}
	}
	state := func() call.State {
		records, _, err := c.Search(t.Context(), Query{Leg: "l1"})
		if err != nil || len(records) != 1 {
			t.Fatalf("%d records, %v", len(records), err)
		}
		return records[0].Leg.State()
	}
	put(leg)
	if got := state(); got != call.StateRecording {
		t.Errorf("ongoing: %s", got)
	}
	if n := must(c.InterruptLegs(t.Context(), sec(3)))(t); n != 1 {
		t.Errorf("%d legs interrupted", n)
	}
	if got := state(); got != call.StateInterrupted {
		t.Errorf("after a stop: %s", got)
	}
	put(leg)
	if got := state(); got != call.StateRecording {
		t.Errorf("spoken of again: %s", got)
	}
	leg.End = sec(9)
	put(leg)
	if got := state(); got != call.StateComplete {
		t.Errorf("ended: %s", got)
	}
}

func TestKeepWindows(t *testing.T) {
	c := open(t)
	err := c.PutRecords(t.Context(), nil, []Leg{
		{ID: "l1", Start: sec(0), End: sec(10), Channels: []string{"a", "b"}},
		{ID: "l2", Start: sec(20), Channels: []string{"a"}},
		{ID: "l3", Start: sec(50), Channels: []string{"a"}},
	}, []Window{{sec(2), sec(3)}, {sec(70), time.Time{}}})
	if err != nil {
		t.Fatal(err)
	}
	windows, blind, err := c.KeepWindows(t.Context(), sec(5), sec(40))
	if err != nil {
		t.Fatal(err)
	}
	want := map[call.ChannelID][]Window{"a": {{sec(0), sec(10)}, {sec(20), time.Time{}}}, "b": {{sec(0), sec(10)}}}
	if !reflect.DeepEqual(windows, want) || blind != nil {
		t.Errorf("got %v %v", windows, blind)
	}
	if _, blind, _ = c.KeepWindows(t.Context(), sec(80), sec(90)); !reflect.DeepEqual(blind, []Window{{sec(70), time.Time{}}}) {
		t.Errorf("open blind window: %v", blind)
	}
}

func TestCommitIsWhole(t *testing.T) {
	c := open(t)
	s := Segment{ID: "1-0", Num: 1, Channel: "a", Copy: call.CopyA, Start: sec(0), End: sec(60), Codec: media.PCMU, SSRC: 1 << 31, FirstTS: 1 << 40, Samples: 480000, FirstSeq: -3, LastSeq: 1 << 33, Holes: Holes{{0, 160}, {80000, 800}},
		File: "2026-03-02/09/a.wav", Packets: 2990, Lost: 10, MaxJitter: 1500 * time.Microsecond, State: []byte("x"),
		Gaps: []Gap{{sec(10), sec(10.1), call.CauseLoss}, {sec(20), sec(20.1), call.CauseDisk}}}
	if err := c.Commit(t.Context(), Compaction{Segments: []Segment{s}, Number: 7, State: []byte("y")}); err != nil {
		t.Fatal(err)
	}
	if got := must(c.OpenSegments(t.Context()))(t); !reflect.DeepEqual(got, []Segment{s}) {
		t.Fatalf("got %+v\nwant %+v", got, s)
	}
	s.Sealed, s.State, s.SHA256, s.Gaps = true, nil, "ab", s.Gaps[:1]
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Commit(cancelled, Compaction{Segments: []Segment{s}, Number: 8}); err == nil {
		t.Fatal("committed on a cancelled context")
	}
	if n, state, err := c.Compacted(t.Context()); n != 7 || string(state) != "y" || err != nil {
		t.Errorf("place %d %q %v", n, state, err)
	}
	for range 2 {
		if err := c.Commit(t.Context(), Compaction{Segments: []Segment{s}, Number: 8, Heard: []Heard{{"a", 1}}}); err != nil {
			t.Fatal(err)
		}
	}
	if heard, err := c.Heard(t.Context(), "a"); !reflect.DeepEqual(heard, []uint32{1}) || err != nil {
		t.Errorf("heard %v, %v", heard, err)
	}
	if got := must(c.Segments(t.Context(), "a", Window{sec(59), time.Time{}}))(t); !reflect.DeepEqual(got, []Segment{s}) {
		t.Errorf("got %+v", got)
	}
	if got := must(c.Segments(t.Context(), "", Window{sec(60), sec(70)}))(t); got != nil {
		t.Errorf("outside the window: %+v", got)
	}
	if _, err := c.SegmentByID(t.Context(), "none"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	leg := Leg{ID: "l", Call: "c", Start: sec(9.95), End: sec(30), Channels: []string{"a"}}
	if err := c.PutRecords(t.Context(), nil, []Leg{leg}, nil); err != nil {
		t.Fatal(err)
	}
	if r, _, _ := c.Search(t.Context(), Query{Leg: "l"}); r[0].GapMS != 100 {
		t.Errorf("gap of the leg: %d ms, want 100", r[0].GapMS)
	}
}

func TestUnwatched(t *testing.T) {
	c := open(t)
	blind := func() []Window {
		_, windows, err := c.KeepWindows(t.Context(), sec(0), sec(1000))
		if err != nil {
			t.Fatal(err)
		}
		return windows
	}
	say := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	say(c.Watched(t.Context(), sec(1))) // nothing to end
	say(c.Unwatched(t.Context(), sec(2)))
	say(c.Unwatched(t.Context(), sec(3))) // a restart while nobody watches
	say(c.PutRecords(t.Context(), nil, nil, []Window{{From: sec(2)}}))
	if want := []Window{{From: sec(2)}, {From: sec(2)}}; !reflect.DeepEqual(blind(), want) {
		t.Errorf("got %v, want %v", blind(), want)
	}
	say(c.Watched(t.Context(), sec(4)))
	if want := []Window{{From: sec(2)}, {sec(2), sec(4)}}; !reflect.DeepEqual(blind(), want) {
		t.Errorf("the director's window must stay open: got %v, want %v", blind(), want)
	}
	for _, w := range []struct {
		window Window
		want   int
	}{{Window{}, 2}, {Window{From: sec(4)}, 1}, {Window{To: sec(2)}, 0}, {Window{From: sec(3), To: sec(4)}, 2}} {
		if got, err := c.Blind(t.Context(), w.window); err != nil || len(got) != w.want {
			t.Errorf("blind in %v: got %v, %v, want %d", w.window, got, err, w.want)
		}
	}
}
