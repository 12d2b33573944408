package shared

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"pgregory.net/rapid"

	"tandem/internal/call"
	"tandem/internal/media"
	"tandem/recorder/catalog"
	"tandem/recorder/journaltest"
	"tandem/recorder/pgtest"
)

func TestMain(m *testing.M) { journaltest.Main(m) }

var t0 = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

func sec(n int) time.Time { return t0.Add(time.Duration(n) * time.Second) }

// fatal is a *testing.T or a *rapid.T.
type fatal interface {
	Helper()
	Fatal(...any)
	Context() context.Context
}

func dial(t fatal, cfg Config, source Source) *Writer {
	t.Helper()
	w, err := Dial(t.Context(), cfg, source)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func put(t fatal, w *Writer, changes catalog.Changes) {
	t.Helper()
	changes.Upto = w.Place() + 1
	if refused, err := w.Put(t.Context(), t0, changes); refused != 0 || err != nil {
		t.Fatal(refused, err)
	}
}

func reader(t testing.TB, cfg Config) *Reader {
	t.Helper()
	r, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// all is every page of a search, each of the given length. A table as small as a
// test's is searched by time; byText has it searched as a large one.
func all(t fatal, r *Reader, q catalog.Query, length int, byText bool) []Record {
	t.Helper()
	q.Limit = length
	var found []Record
	search := r.Search
	if byText {
		search = func(ctx context.Context, q Query) (Page, error) {
			users, err := r.users(ctx, q.Agent)
			if err != nil || len(users) == 0 {
				return Page{}, err
			}
			return r.page(ctx, q, users, true)
		}
	}
	for after := ""; ; {
		page, err := search(t.Context(), Query{q, after})
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, page.Records...)
		if after = page.Next; after == "" {
			return found
		}
		if len(page.Records) != length {
			t.Fatal("a page that is not the last has", len(page.Records), "records")
		}
	}
}

// Against a real server, each with a database of its own.
func TestDatabase(t *testing.T) {
	server := pgtest.Start(t)
	for name, test := range map[string]func(*testing.T, Config){
		"search":     searchFindsWhatCatalogsFind,
		"share":      shareIsOfAllLegs,
		"refused":    putLeavesOutWhatIsRefused,
		"another":    putNoticesAnother,
		"migrations": migrationsUpAndDown,
	} {
		t.Run(name, func(t *testing.T) { test(t, Config{URL: server.Database()}) })
	}
	t.Run("speed", func(t *testing.T) { searchSpeed(t, server) })
	t.Run("password", func(t *testing.T) { passwordIsReadForEachConnection(t, server) })
}

// What the database finds is what the catalogs find that were shipped to it,
// page by page and in order.
func searchFindsWhatCatalogsFind(t *testing.T, cfg Config) {
	r := reader(t, cfg)
	dir, n := journaltest.Memory(t), 0
	catalogs, writers := map[string]*catalog.Catalog{}, map[string]*Writer{}
	for _, name := range []string{"rec-1", "rec-2"} {
		c, err := catalog.Open(t.Context(), filepath.Join(dir, name+".db"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		catalogs[name], writers[name] = c, dial(t, cfg, Source{c.ID(), name, "primary"})
		defer writers[name].Close()
	}
	rapid.Check(t, func(t *rapid.T) {
		n++
		for name, c := range catalogs {
			fill(t, c, n)
			changes, err := c.Changes(t.Context(), writers[name].Place(), 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			if refused, err := writers[name].Put(t.Context(), t0, changes); refused != 0 || err != nil {
				t.Fatal(refused, err)
			}
		}
		for range 8 {
			q := question(t)
			want := map[string][]catalog.Record{}
			total := 0
			for name, c := range catalogs {
				records, _, err := c.Search(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				want[name], total = byStart(records), total+len(records)
			}
			found := all(t, r, q, rapid.IntRange(1, 7).Draw(t, "page"), rapid.Bool().Draw(t, "by text"))
			got := map[string][]catalog.Record{}
			for _, rec := range found {
				got[rec.Recorder] = append(got[rec.Recorder], rec.Record)
				if rec.Catalog != catalogs[rec.Recorder].ID() || !rec.Told.Equal(t0) {
					t.Fatalf("%s has catalog %s, told %v", rec.Recorder, rec.Catalog, rec.Told)
				}
			}
			for name := range catalogs {
				if !reflect.DeepEqual(got[name], want[name]) {
					t.Fatalf("%+v of %s: found\n%+v\nwant\n%+v", q, name, got[name], want[name])
				}
			}
			if !slices.IsSortedFunc(found, func(a, b Record) int { return b.Leg.Start.Compare(a.Leg.Start) }) || len(found) != total {
				t.Fatalf("%+v: %d found of %d, newest first? %+v", q, len(found), total, found)
			}
		}
	})
}

// A sample of everything is everything.
func shareIsOfAllLegs(t *testing.T, cfg Config) {
	w := dial(t, cfg, Source{"one", "rec-1", "primary"})
	defer w.Close()
	var changes catalog.Changes
	for n := range 40 {
		id := fmt.Sprint(n)
		changes.Calls = append(changes.Calls, catalog.Call{ID: call.CallID("c" + id), PartyName: []string{"Ada", "Grace", "Edsger", "Ada L."}[n%4], Start: t0})
		changes.Legs = append(changes.Legs, catalog.Leg{ID: call.LegID("l" + id), Call: call.CallID("c" + id), Start: t0})
	}
	put(t, w, changes)
	for party, want := range map[string]float64{"ada": 0.5, "Grace": 0.25, "Alan": 0} {
		if got, err := reader(t, cfg).share(t.Context(), party, 40); got != want || err != nil {
			t.Errorf("%s: %v, %v, want %v", party, got, err, want)
		}
	}
}

func TestByText(t *testing.T) {
	for _, c := range []struct {
		share float64
		want  bool
	}{{0, true}, {0.0002, true}, {0.004, true}, {0.005, false}, {0.5, false}, {1, false}} {
		if got := byText(5e6, c.share, 100); got != c.want {
			t.Errorf("a share of %v: by text %v", c.share, got)
		}
	}
}

// byStart is the order of a search, where one catalog is asked.
func byStart(records []catalog.Record) []catalog.Record {
	slices.SortFunc(records, func(a, b catalog.Record) int {
		if c := b.Leg.Start.Compare(a.Leg.Start); c != 0 {
			return c
		}
		return strings.Compare(string(b.Leg.ID), string(a.Leg.ID))
	})
	if len(records) == 0 {
		return nil
	}
	return records
}

var (
	users   = []string{"u1", "u2", `o'hara`}
	names   = []string{"Ada Lovelace", "Grace", ""}
	parties = []string{"+44 20 7946", "100%_sure Ltd", `a\b`, ""}
	lines   = []string{"L1", "L2"}
	devices = []call.DeviceID{"d1", "d2"}
)

// fill writes a handful of records; some change what was written before.
func fill(t *rapid.T, c *catalog.Catalog, round int) {
	pick := func(list []string) string { return rapid.SampledFrom(list).Draw(t, "text") }
	end := func(start time.Time) time.Time {
		if rapid.Bool().Draw(t, "lasts") {
			return time.Time{}
		}
		return start.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "length")) * time.Second)
	}
	var calls []catalog.Call
	var legs []catalog.Leg
	var step catalog.Compaction
	for n := range rapid.IntRange(0, 3).Draw(t, "calls") {
		start := sec(rapid.IntRange(0, 60).Draw(t, "call's start"))
		k := catalog.Call{ID: call.CallID(fmt.Sprint("c", n)), Line: pick(lines), Direction: "in", Kind: "dial", Party: pick(parties), PartyName: pick(names), State: "held", Start: start, End: end(start)}
		calls = append(calls, k)
	}
	for n := range rapid.IntRange(1, 4).Draw(t, "legs") {
		start := sec(rapid.IntRange(0, 60).Draw(t, "leg's start"))
		id := fmt.Sprint("l", n, "-", rapid.IntRange(0, round).Draw(t, "round"))
		l := catalog.Leg{ID: call.LegID(id), Call: call.CallID(fmt.Sprint("c", rapid.IntRange(0, 4).Draw(t, "call"))), Session: "s", User: someone(t),
			UserName: pick(names), Device: rapid.SampledFrom(devices).Draw(t, "device"), Source: "HS.L", Channels: []string{"a", "b"}[:rapid.IntRange(1, 2).Draw(t, "channels")],
			Start: start, End: end(start), Accuracy: "exact", Group: "primary", Secondary: rapid.Bool().Draw(t, "secondary")}
		legs = append(legs, l)
	}
	for n := range rapid.IntRange(0, 2).Draw(t, "segments") {
		start := sec(rapid.IntRange(0, 60).Draw(t, "segment's start"))
		s := catalog.Segment{ID: fmt.Sprint("s", n), Channel: call.ChannelID(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "channel")), Start: start, End: start.Add(20 * time.Second), Codec: media.PCMU}
		for g := range rapid.IntRange(0, 2).Draw(t, "gaps") {
			s.Gaps = append(s.Gaps, catalog.Gap{From: start.Add(time.Duration(5*g) * time.Second), To: start.Add(time.Duration(5*g+3) * time.Second), Cause: call.CauseLoss})
		}
		step.Segments = append(step.Segments, s)
	}
	err := c.PutRecords(t.Context(), calls, legs, nil)
	if err == nil {
		err = c.Commit(t.Context(), step)
	}
	if err == nil && rapid.IntRange(0, 3).Draw(t, "interrupt") == 0 {
		_, err = c.InterruptLegs(t.Context(), sec(30))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// someone is one of a few or, so that a text can be in more of them than are looked
// up one after another, of many.
func someone(t *rapid.T) call.UserID {
	if rapid.Bool().Draw(t, "of many") {
		return call.UserID(fmt.Sprint("x", rapid.IntRange(0, 2*someUsers).Draw(t, "user")))
	}
	return call.UserID(rapid.SampledFrom(users).Draw(t, "user"))
}

func question(t *rapid.T) catalog.Query {
	maybe := func(list ...string) string {
		if rapid.IntRange(0, 3).Draw(t, "asked") > 0 {
			return ""
		}
		return rapid.SampledFrom(list).Draw(t, "asked for")
	}
	q := catalog.Query{
		Agent: maybe("u1", "love", "ADA", "'", "u", "x", "x1", "x77"), Party: maybe("7946", "%", "_", `\`, "0%_s", "ltd", "a"), Line: maybe(lines...),
		Device: call.DeviceID(maybe("d1", "d2")), Call: call.CallID(maybe("c0", "c9")), Leg: call.LegID(maybe("l0-0", "l1-1")), Ongoing: maybe("yes") != "",
	}
	if rapid.Bool().Draw(t, "from") {
		q.From = sec(rapid.IntRange(0, 100).Draw(t, "from"))
	}
	if rapid.Bool().Draw(t, "to") {
		q.To = sec(rapid.IntRange(0, 100).Draw(t, "to"))
	}
	return q
}

// A row that PostgreSQL cannot take keeps no other one from getting there.
func putLeavesOutWhatIsRefused(t *testing.T, cfg Config) {
	w := dial(t, cfg, Source{"one", "rec-1", "primary"})
	defer w.Close()
	long := make([]byte, 0, 20_000)
	for n := range 20_000 {
		long = append(long, byte('!'+(n*n*n+n/93)%90)) // does not compress into what an index takes
	}
	changes := catalog.Changes{Upto: 7,
		Calls: []catalog.Call{{ID: "c1", Line: "L\x00\xff", Start: t0}, {ID: "c2", Line: string(long), Start: t0}},
		Legs:  []catalog.Leg{{ID: "l1", Call: "c1", Start: t0}, {ID: "l2", Call: "c2", Start: t0}}}
	refused, err := w.Put(t.Context(), t0, changes)
	if err != nil || refused != 1 || w.Place() != 7 { // the leg's copy of the line is what no index takes
		t.Errorf("refused %d, place %d, %v", refused, w.Place(), err)
	}
	if got, want := pgtest.Dump(t, cfg.URL, `SELECT id, line FROM legs ORDER BY id`), "l1 L\uFFFD\uFFFD\nl2 \n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := pgtest.Dump(t, cfg.URL, `SELECT revision FROM catalogs`); got != "7\n" {
		t.Errorf("revision %q", got)
	}
}

// Two connections that ship one catalog do not both go on.
func putNoticesAnother(t *testing.T, cfg Config) {
	source := Source{"one", "rec-1", "primary"}
	first := dial(t, cfg, source)
	defer first.Close()
	put(t, first, catalog.Changes{Calls: []catalog.Call{{ID: "c1", Start: t0}}})
	second := dial(t, cfg, source)
	defer second.Close()
	if second.Place() != first.Place() || second.Identity() != first.Identity() || second.Identity() == "" {
		t.Errorf("the second one goes on at %d of %s, the first is at %d of %s", second.Place(), second.Identity(), first.Place(), first.Identity())
	}
	put(t, second, catalog.Changes{})
	if _, err := first.Put(t.Context(), t0, catalog.Changes{Upto: 9}); !errors.Is(err, ErrElsewhere) {
		t.Errorf("the first one goes on: %v", err)
	}
	put(t, second, catalog.Changes{})
}

// Recorders that start together on an empty database take turns; the schema can
// be taken back.
func migrationsUpAndDown(t *testing.T, cfg Config) {
	errs := make(chan error)
	for n := range 3 {
		go func() {
			w, err := Dial(t.Context(), cfg, Source{fmt.Sprint(n), fmt.Sprint("rec-", n), "primary"})
			if err == nil {
				w.Close()
			}
			errs <- err
		}()
	}
	for range 3 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got := pgtest.Dump(t, cfg.URL, `SELECT recorder FROM catalogs ORDER BY recorder`); got != "rec-0\nrec-1\nrec-2\n" {
		t.Errorf("got %q", got)
	}
	parsed, err := cfg.connection()
	if err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDB(*parsed)
	defer db.Close()
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.DownTo(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if got := pgtest.Dump(t, cfg.URL, `SELECT tablename FROM pg_tables WHERE schemaname = 'public'`); got != "goose_db_version\n" {
		t.Errorf("left: %q", got)
	}
}

func TestConfigCheck(t *testing.T) {
	for _, c := range []struct{ url, fault string }{
		{"postgres://tandem@db.example/site?sslmode=verify-full", ""},
		{"postgresql://tandem@/site?host=/run/postgresql", ""},
		{"postgres://tandem@a,b/site?target_session_attrs=read-write", ""},
		{"postgres://tandem:s3cret@db/site", "password"},
		{"postgres://tandem@db/site?password=s3cret", "password"},
		{"mysql://tandem@db/site", "scheme"},
		{"db.example", "scheme"},
		{"postgres://tandem:s3cret@db:port/site", "want postgres://"},
		{"postgres://tandem@db/site?sslmode=sometimes", "sslmode"},
	} {
		err := Config{URL: c.url}.Check()
		if c.fault == "" && err != nil || c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
			t.Errorf("%s: %v, want %q", c.url, err, c.fault)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: the password is told: %v", c.url, err)
		}
	}
}

func TestExposed(t *testing.T) {
	for url, want := range map[string]bool{
		"postgres://tandem@10.0.0.9/site":                                  true,
		"postgres://tandem@10.0.0.9/site?sslmode=require":                  true,
		"postgres://tandem@db/site?sslmode=verify-full":                    false,
		"postgres://tandem@127.0.0.1/site":                                 false,
		"postgres://tandem@localhost/site":                                 false,
		"postgres://tandem@/site?host=/run/postgresql&sslmode=verify-full": false,
	} {
		if got := (Config{URL: url}).Exposed(); got != want {
			t.Errorf("%s: %v", url, got)
		}
	}
}

// The database's owner needs no other rights, and who has the wrong password is
// told so without being told the password. Another one is taken from its file
// with the next connection, and the file's last line end is not part of it.
func passwordIsReadForEachConnection(t *testing.T, server *pgtest.Server) {
	file := filepath.Join(t.TempDir(), "password")
	url := server.Guarded("s3cret")
	cfg := Config{URL: url, PasswordFile: file, Name: "tandem-recorder rec-1"}
	r := reader(t, cfg)
	try := func(password string) error {
		if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		w, err := Dial(t.Context(), cfg, Source{"one", "rec-1", "primary"})
		if err == nil {
			w.Close()
			_, err = r.Search(t.Context(), Query{})
		}
		return err
	}
	if _, err := Dial(t.Context(), cfg, Source{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the file: %v", err)
	}
	if err := try("s3cret"); err != nil {
		t.Error(err)
	}
	r.pool.Reset() // as when the server was restarted
	server.SetPassword(url, "an0ther")
	if err := try("s3cret"); err == nil || !strings.Contains(err.Error(), "password authentication failed") || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("the old password: %v", err)
	}
	if err := try("an0ther"); err != nil {
		t.Error(err)
	}
}

// A place is either one that a page could have ended at, and then its own text,
// or an error.
func FuzzPlace(f *testing.F) {
	f.Add(place{1772442000000000, 3, "leg.1"}.String())
	f.Add("1.2")
	f.Add("99999999999999999999.1.x")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePlace(s)
		if err != nil {
			if !errors.Is(err, ErrPlace) {
				t.Fatal(err)
			}
			return
		}
		again, err := parsePlace(p.String())
		if err != nil || again != p {
			t.Fatalf("%q is %+v, and that is %+v (%v)", s, p, again, err)
		}
	})
}
