package catalog

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/pressly/goose/v3"
	"pgregory.net/rapid"

	"tandem/internal/call"
	"tandem/internal/media"
	"tandem/recorder/journaltest"
)

// mirror is a catalog as one knows it who has only ever been told of changes.
type mirror map[string]any

func (m mirror) apply(c Changes) {
	for _, a := range c.Attachments {
		m[fmt.Sprint("attachment ", a.Num)] = a
	}
	for _, k := range c.Calls {
		m["call "+string(k.ID)] = k
	}
	for _, l := range c.Legs {
		m["leg "+string(l.ID)] = l
	}
	for _, s := range c.Segments {
		m["segment "+s.ID] = s
	}
	for _, w := range c.Blind {
		m[fmt.Sprint("blind ", w.From, w.Unwatched)] = w
	}
}

// writer does at random what recorders do.
func writer(t *rapid.T, c *Catalog) map[string]func(*rapid.T) {
	ctx := t.Context()
	id := func(t *rapid.T, letter string) string {
		return letter + fmt.Sprint(rapid.IntRange(1, 4).Draw(t, letter))
	}
	when := func(t *rapid.T, label string) time.Time { return sec(float64(rapid.IntRange(0, 60).Draw(t, label))) }
	end := func(t *rapid.T) time.Time {
		if rapid.Bool().Draw(t, "lasts") {
			return time.Time{}
		}
		return when(t, "end")
	}
	try := func(t *rapid.T, err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	return map[string]func(*rapid.T){
		"records": func(t *rapid.T) {
			calls := []Call{{ID: call.CallID(id(t, "c")), State: "held", Start: when(t, "start"), End: end(t)}}
			legs := []Leg{{ID: call.LegID(id(t, "l")), Call: call.CallID(id(t, "c")), Channels: []string{id(t, "ch")}, Start: when(t, "start"), End: end(t)}}
			try(t, c.PutRecords(ctx, calls, legs, []Window{{From: when(t, "blind"), To: end(t)}}))
		},
		"attachment": func(t *rapid.T) {
			try(t, c.PutAttachments(ctx, []Attachment{{Num: uint32(rapid.IntRange(1, 5).Draw(t, "num")), Channel: call.ChannelID(id(t, "ch")), Opened: when(t, "opened"), Closed: end(t)}}))
		},
		"segments": func(t *rapid.T) {
			var step Compaction
			for range rapid.IntRange(1, 3).Draw(t, "segments") {
				s := Segment{ID: id(t, "s"), Channel: call.ChannelID(id(t, "ch")), Start: when(t, "start"), Codec: media.PCMU, Samples: int64(rapid.IntRange(0, 9).Draw(t, "samples"))}
				s.End = s.Start.Add(time.Second)
				if rapid.Bool().Draw(t, "gap") {
					s.Gaps = []Gap{{s.Start, s.End, call.CauseLoss}}
				}
				step.Segments = append(step.Segments, s)
			}
			try(t, c.Commit(ctx, step))
		},
		"interrupt": func(t *rapid.T) {
			_, err := c.InterruptLegs(ctx, when(t, "last good"))
			try(t, err)
		},
		"unwatched": func(t *rapid.T) { try(t, c.Unwatched(ctx, time.Now())) },
		"watched":   func(t *rapid.T) { try(t, c.Watched(ctx, time.Now())) },
	}
}

func TestMain(m *testing.M) { journaltest.Main(m) }

// Whoever asks for changes, however often and in whatever pieces, ends with
// what the catalog holds.
func TestChangesTellEverything(t *testing.T) {
	dir, n := journaltest.Memory(t), 0
	empty := filepath.Join(dir, "empty.db")
	must(Open(t.Context(), empty))(t).Close()
	rapid.Check(t, func(t *rapid.T) {
		n++
		path := filepath.Join(dir, fmt.Sprint(n, ".db"))
		copyFile(t, empty, path)
		c, err := Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { c.Close() }()
		known, shipped := mirror{}, int64(0)
		ask := func(t *rapid.T) {
			most := rapid.IntRange(1, 4).Draw(t, "most")
			changes, err := c.Changes(t.Context(), shipped, most)
			if err != nil {
				t.Fatal(err)
			}
			if changes.Upto < shipped || changes.Len() > most {
				t.Fatalf("asked for %d revisions after %d: %d rows up to %d", most, shipped, changes.Len(), changes.Upto)
			}
			known.apply(changes)
			shipped = changes.Upto
		}
		actions := writer(t, c)
		actions["ask"] = ask
		actions["open again"] = func(t *rapid.T) {
			if err := c.NoteShipped(t.Context(), shipped); err != nil {
				t.Fatal(err)
			}
			id := c.ID()
			c.Close()
			if c, err = Open(t.Context(), path); err != nil {
				t.Fatal(err)
			}
			if again, err := c.Shipped(t.Context()); again != shipped || c.ID() != id || err != nil {
				t.Fatalf("opened again as %s with %d shipped (%v), it was %s with %d", c.ID(), again, err, id, shipped)
			}
			maps.Copy(actions, writer(t, c))
		}
		t.Repeat(actions)

		for {
			left, err := c.CountChanges(t.Context(), shipped)
			if err != nil {
				t.Fatal(err)
			}
			before := shipped
			ask(t)
			if before == shipped {
				if left != 0 {
					t.Fatalf("%d changes counted, none told", left)
				}
				break
			}
		}
		everything, err := c.Changes(t.Context(), 0, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		want := mirror{}
		want.apply(everything)
		if !reflect.DeepEqual(known, want) {
			t.Fatalf("known %v\nheld %v", known, want)
		}
	})
}

// A catalog of the version before has every row to tell of.
func TestChangesOfAnOlderCatalog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	c := must(Open(t.Context(), path))(t)
	files := must(fs.Sub(migrations, "migrations"))(t)
	provider := must(goose.NewProvider(goose.DialectSQLite3, c.write, files))(t)
	if _, err := provider.DownTo(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{
		`INSERT INTO calls VALUES ('c1','L1','in','dial','','','held',1,NULL,''), ('c2','L1','in','dial','','','held',1,NULL,'')`,
		`INSERT INTO legs VALUES ('l1','c1','s','u','','d','HS.L',1,NULL,'','exact','primary',0,NULL)`,
		`INSERT INTO blind VALUES (1,0,2), (3,1,4)`,
	} {
		if _, err := c.write.ExecContext(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	c = must(Open(t.Context(), path))(t)
	defer c.Close()
	got := must(c.Changes(t.Context(), 0, 100))(t)
	if len(got.Calls) != 2 || len(got.Legs) != 1 || len(got.Blind) != 2 || got.Upto != 2 {
		t.Errorf("got %+v", got)
	}
	if err := c.PutRecords(t.Context(), got.Calls[:1], nil, nil); err != nil {
		t.Fatal(err)
	}
	if again := must(c.Changes(t.Context(), got.Upto, 100))(t); len(again.Calls) != 1 || again.Len() != 1 || again.Upto <= got.Upto {
		t.Errorf("after a write: %+v", again)
	}
}

// Two catalogs never have the same name, and a copy of a file keeps it.
func TestCatalogID(t *testing.T) {
	dir := t.TempDir()
	a, b := must(Open(t.Context(), filepath.Join(dir, "a.db")))(t), must(Open(t.Context(), filepath.Join(dir, "b.db")))(t)
	defer b.Close()
	if a.ID() == b.ID() || len(a.ID()) != 32 {
		t.Errorf("ids %q and %q", a.ID(), b.ID())
	}
	a.Close()
	copyFile(t, filepath.Join(dir, "a.db"), filepath.Join(dir, "copy.db"))
	if c := must(Open(t.Context(), filepath.Join(dir, "copy.db")))(t); c.ID() != a.ID() {
		t.Errorf("a copy of %s calls itself %s", a.ID(), c.ID())
	} else {
		c.Close()
	}
}

// copyFile copies a catalog that is closed.
func copyFile(t interface{ Fatal(...any) }, from, to string) {
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestSearchChanged(t *testing.T) {
	c := open(t)
	leg := func(n int) Leg {
		return Leg{ID: call.LegID(fmt.Sprint("l", n)), Call: call.CallID(fmt.Sprint("c", n)), User: "u1", Channels: []string{fmt.Sprint("ch", n)}, Start: sec(0), End: sec(10)}
	}
	for n := range 4 {
		if err := c.PutRecords(t.Context(), []Call{{ID: call.CallID(fmt.Sprint("c", n)), Start: sec(0)}}, []Leg{leg(n)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	shipped := must(c.Changes(t.Context(), 0, 100))(t).Upto
	changed := func(q Query) (found, changed []call.LegID) {
		t.Helper()
		records, _, changed, err := c.SearchChanged(t.Context(), q, shipped)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			found = append(found, r.Leg.ID)
		}
		slices.Sort(changed)
		return found, changed
	}
	if found, all := changed(Query{}); found != nil || all != nil {
		t.Errorf("nothing written: %v %v", found, all)
	}
	again := leg(1)
	again.End = sec(12)
	err := c.PutRecords(t.Context(), []Call{{ID: "c2", PartyName: "Ada", Start: sec(0)}}, []Leg{again}, nil)
	if err == nil {
		err = c.Commit(t.Context(), Compaction{Segments: []Segment{{ID: "1-0", Channel: "ch3", Start: sec(5), End: sec(6)}, {ID: "1-1", Channel: "ch0", Start: sec(11), End: sec(12)}}})
	}
	if err != nil {
		t.Fatal(err)
	}
	if found, all := changed(Query{Party: "ada"}); !slices.Equal(found, []call.LegID{"l2"}) || !slices.Equal(all, []call.LegID{"l1", "l2", "l3"}) {
		t.Errorf("a leg, a call and a file in another's time were written: found %v, changed %v", found, all)
	}
}
