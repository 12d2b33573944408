package ship

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tandem/internal/call"
	"tandem/internal/media"
	"tandem/recorder/catalog"
	"tandem/recorder/journaltest"
	"tandem/recorder/pgtest"
	"tandem/recorder/shared"
)

// A child ships the catalog at childCatalog to childURL and writes to it, until
// it is killed.
const (
	childCatalog = "TANDEM_SHIP_CATALOG"
	childURL     = "TANDEM_SHIP_URL"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childCatalog); path != "" {
		fmt.Fprintln(os.Stderr, shipForever(path, os.Getenv(childURL)))
		os.Exit(1)
	}
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

func shipForever(path, url string) error {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	ctx := context.Background()
	c, err := catalog.Open(ctx, path)
	if err != nil {
		return err
	}
	go shipper(c, path, url).Run(ctx)
	random := rand.New(rand.NewPCG(rand.Uint64(), 0))
	var wrote sync.Once // the parent is told
	for {
		if err := write(ctx, c, random, few); err != nil {
			return err
		}
		wrote.Do(func() { fmt.Println("written") })
	}
}

func shipper(c *catalog.Catalog, path, url string) *Shipper {
	name := strings.TrimSuffix(filepath.Base(path), ".db")
	s := New(shared.Config{URL: url, Name: "tandem-recorder " + name}, shared.Source{Catalog: c.ID(), Recorder: name, Group: "primary"}, c)
	s.look /= 20 // a test has no seconds to wait
	return s
}

// few is so many legs that most of what is written was written before.
const few = 2000

// write does to a catalog what a recorder does in a while: a leg begins, another
// one ends, media are filed, a channel comes or goes. There are so many legs.
func write(ctx context.Context, c *catalog.Catalog, random *rand.Rand, legs int) error {
	now := time.Now().UTC().Truncate(time.Microsecond)
	n := func(of int) int { return random.IntN(of) }
	ended := func() time.Time {
		if n(2) == 0 {
			return time.Time{}
		}
		return now
	}
	k, l, ch := n(legs/2), n(legs), n(50)
	start := now.Add(-time.Duration(n(60)) * time.Second)
	err := c.PutRecords(ctx,
		[]catalog.Call{{ID: call.CallID(fmt.Sprint("c", k)), Line: fmt.Sprint("L", k%7), Direction: "in", Kind: "dial", Party: fmt.Sprint("+44", k), State: "held", Start: start, End: ended()}},
		[]catalog.Leg{{ID: call.LegID(fmt.Sprint("l", l)), Call: call.CallID(fmt.Sprint("c", l%(legs/2))), User: call.UserID(fmt.Sprint("u", l%9)), Channels: []string{fmt.Sprint("ch", ch)}, Start: start, End: ended(), Group: "primary"}},
		[]catalog.Window{{From: now.Add(-time.Duration(n(9)) * time.Hour).Truncate(time.Hour), To: ended()}})
	if err != nil {
		return err
	}
	s := catalog.Segment{ID: fmt.Sprint("s", n(legs/4)), Num: uint32(ch), Channel: call.ChannelID(fmt.Sprint("ch", ch)), Copy: call.CopyA, Start: start, End: now, Codec: media.PCMA,
		SSRC: random.Uint32(), Samples: int64(n(1000)), File: "a.wav", Sealed: n(2) == 0}
	for g := range n(3) {
		s.Gaps = append(s.Gaps, catalog.Gap{From: start.Add(time.Duration(g) * time.Second), To: start.Add(time.Duration(g+1) * time.Second), Cause: call.CauseLoss})
	}
	if err := c.Commit(ctx, catalog.Compaction{Segments: []catalog.Segment{s}}); err != nil {
		return err
	}
	return c.PutAttachments(ctx, []catalog.Attachment{{Num: uint32(1 + n(200)), Channel: call.ChannelID(fmt.Sprint("ch", ch)), Sources: []string{"HS.L", "HS.R"}, Opened: start, Closed: ended()}})
}

// held is what a catalog says, a line a row.
func held(t *testing.T, c *catalog.Catalog) map[string]string {
	t.Helper()
	all, err := c.Changes(t.Context(), 0, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	us := func(at time.Time) any {
		if at.IsZero() {
			return nil
		}
		return at.UnixMicro()
	}
	add := func(key string, values ...any) { rows[key] = fmt.Sprintln(values...) }
	for _, a := range all.Attachments {
		add(fmt.Sprint("attachment ", a.Num), a.Channel, a.Sources, us(a.Opened), us(a.Closed), a.Cause)
	}
	for _, k := range all.Calls {
		add(fmt.Sprint("call ", k.ID), k.Line, k.Party, k.State, us(k.Start), us(k.End))
	}
	calls := map[call.CallID]catalog.Call{}
	for _, k := range all.Calls {
		calls[k.ID] = k
	}
	for _, l := range all.Legs {
		add(fmt.Sprint("leg ", l.ID), l.Call, l.User, l.Channels, us(l.Start), us(l.End), us(l.Interrupted), calls[l.Call].Line, calls[l.Call].Party)
	}
	for _, s := range all.Segments {
		add(fmt.Sprint("segment ", s.ID), s.Channel, us(s.Start), us(s.End), s.SSRC, s.Samples, s.Sealed)
		for _, g := range s.Gaps {
			add(fmt.Sprint("gap ", s.ID, " ", us(g.From)), us(g.To), g.Cause)
		}
	}
	for _, w := range all.Blind {
		add(fmt.Sprint("blind ", us(w.From), " ", w.Unwatched), us(w.To))
	}
	return rows
}

// arrived is what the database has of a catalog, in the same words.
func arrived(t *testing.T, url string, c *catalog.Catalog) map[string]string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows := map[string]string{}
	for _, query := range []string{
		`SELECT 'attachment ' || num, channel, sources, opened_us, closed_us, cause FROM attachments`,
		`SELECT 'call ' || id, line, party, state, start_us, end_us FROM calls`,
		`SELECT 'leg ' || id, call, user_id, channels, start_us, end_us, interrupted_us, line, party FROM legs`,
		`SELECT 'segment ' || id, channel, start_us, end_us, ssrc, samples, sealed FROM segments`,
		`SELECT 'gap ' || segment || ' ' || from_us, to_us, cause FROM gaps`,
		`SELECT 'blind ' || from_us || ' ' || unwatched::text, to_us FROM blind`,
	} {
		result, err := conn.Query(t.Context(), query+` WHERE catalog = (SELECT id FROM catalogs WHERE catalog = $1)`, c.ID())
		if err != nil {
			t.Fatal(err)
		}
		for result.Next() {
			values, err := result.Values()
			if err != nil {
				t.Fatal(err)
			}
			key := values[0].(string)
			if _, twice := rows[key]; twice {
				t.Errorf("%s is there twice", key)
			}
			rows[key] = fmt.Sprintln(values[1:]...)
		}
		if err := result.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return rows
}

func compare(t *testing.T, url string, c *catalog.Catalog) {
	t.Helper()
	want, got := held(t, c), arrived(t, url, c)
	if len(want) == 0 {
		t.Error("nothing was written")
	}
	for key, row := range want {
		if got[key] != row {
			t.Errorf("%s: held %q, arrived %q", key, row, got[key])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d rows arrived, %d are held", len(got), len(want))
	}
}

// patient is how long a test waits: as long as TANDEM_OUTAGE may take to make up
// for.
const patient = 5 * time.Minute

// until waits for something that a shipper does.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patient); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patient, what)
		}
	}
}

// run ships until the returned function is called.
func run(s *Shipper) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	return func() {
		cancel()
		<-ended
	}
}

// all waits until everything written is there.
func all(t *testing.T, s *Shipper, c *catalog.Catalog) {
	t.Helper()
	until(t, "everything is shipped", func() bool {
		left, err := c.CountChanges(t.Context(), s.State().Shipped)
		return err == nil && left == 0 && s.State().Connected && s.State().Lag == 0
	})
}

// Against a real server.
func TestShipping(t *testing.T) {
	server := pgtest.Start(t)
	for name, test := range map[string]func(*testing.T, *pgtest.Server){
		"killed": killedAtRandom, "outage": outage, "restored": restored,
	} {
		t.Run(name, func(t *testing.T) { test(t, server) })
	}
}

// Two recorders ship to one database. They and the server are killed at random
// instants, and what is there in the end is what both hold.
func killedAtRandom(t *testing.T, server *pgtest.Server) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	url, dir := server.Database(), journaltest.Memory(t)
	paths := []string{filepath.Join(dir, "rec-1.db"), filepath.Join(dir, "rec-2.db")}
	lives, words := make([]*exec.Cmd, len(paths)), make([]io.Reader, len(paths))
	begin := func(n int) {
		lives[n] = exec.Command(os.Args[0])
		lives[n].Env = append(os.Environ(), childCatalog+"="+paths[n], childURL+"="+url)
		lives[n].Stderr = os.Stderr
		var err error
		if words[n], err = lives[n].StdoutPipe(); err == nil {
			err = lives[n].Start()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	kill := func(n int) {
		lives[n].Process.Kill()
		lives[n].Wait()
	}
	for n, path := range paths {
		begin(n)
		defer func() { kill(n) }()
		// Whoever is killed before it was let run has nothing to ship.
		if _, err := bufio.NewReader(words[n]).ReadString('\n'); err != nil {
			t.Fatalf("%s is not written to: %v", filepath.Base(path), err)
		}
	}
	for range 6 {
		<-time.After(time.Duration(random.Int64N(int64(700 * time.Millisecond))))
		switch victim := random.IntN(3); victim {
		case 2:
			server.Kill()
			server.Run()
		default:
			kill(victim)
			begin(victim)
		}
	}
	for n, path := range paths {
		kill(n)
		c, err := catalog.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		s := shipper(c, path, url)
		stop := run(s)
		all(t, s, c)
		stop()
		t.Logf("%s: %d rows, the last %d of them after the last kill", filepath.Base(path), len(held(t, c)), s.State().Rows)
		compare(t, url, c)
		c.Close()
	}
}

// While the database is away a recorder writes as ever, and the shipper takes no
// memory for it; then everything gets there. TANDEM_OUTAGE=2m asks for more than
// the moment that a test has.
func outage(t *testing.T, server *pgtest.Server) {
	length := time.Second
	if asked := os.Getenv("TANDEM_OUTAGE"); asked != "" {
		var err error
		if length, err = time.ParseDuration(asked); err != nil {
			t.Fatal(err)
		}
	}
	url, path := server.Database(), filepath.Join(t.TempDir(), "rec-1.db")
	c, err := catalog.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := shipper(c, path, url)
	defer run(s)()
	load := newLoad(t, c)
	until(t, "the first rows are shipped", func() bool { return s.State().Rows > 0 })
	usual := time.Duration(load.slowest.Swap(0))
	before, memory := load.writes.Load(), heap()
	server.Stop()
	stopped := time.Now()
	lag, grown := 0, 0
	for time.Since(stopped) < length {
		<-time.After(100 * time.Millisecond)
		if n := s.State().Lag; n > lag {
			lag = n
			grown++
		}
	}
	during, most := load.writes.Load()-before, heap()
	server.Run()
	back := time.Now()
	until(t, "rows are shipped again", func() bool { return s.State().Connected })
	reached := time.Since(back)
	load.stop()
	all(t, s, c)
	t.Logf("away for %v: %d times written meanwhile, the slowest in %v (in %v before that); lag up to %d rows, 0 again %v after the server was back (reached after %v); heap %d KiB before, %d KiB after the outage",
		length, during, time.Duration(load.slowest.Load()), usual, lag, time.Since(back).Round(10*time.Millisecond), reached.Round(10*time.Millisecond), memory>>10, most>>10)
	if during == 0 || grown == 0 {
		t.Errorf("%d times written, lag seen to grow %d times", during, grown)
	}
	if most > memory+16<<20 {
		t.Errorf("heap grew from %d to %d", memory, most)
	}
	compare(t, url, c)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC() // what pools held is free only by now
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Whichever side is set back to what it was earlier, what is missing is shipped
// again.
func restored(t *testing.T, server *pgtest.Server) {
	url, path := server.Database(), filepath.Join(journaltest.Memory(t), "rec-1.db")
	c, err := catalog.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	random := rand.New(rand.NewPCG(1, 2))
	writes := func() {
		for range 20 {
			if err := write(t.Context(), c, random, few); err != nil {
				t.Fatal(err)
			}
		}
	}
	writes()
	s := shipper(c, path, url)
	defer run(s)()
	all(t, s, c)
	earlier := s.State()
	writes()
	all(t, s, c)
	// The database, while a recorder is connected to it.
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), `UPDATE catalogs SET revision = $1`, earlier.Shipped); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `DELETE FROM legs`); err != nil {
		t.Fatal(err)
	}
	if err := c.NoteShipped(t.Context(), 0); err != nil { // and the recorder, before all that
		t.Fatal(err)
	}
	writes()
	everything, err := c.Changes(t.Context(), 0, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "all legs are there again", func() bool {
		return pgtest.Dump(t, url, `SELECT count(*) FROM legs`) == fmt.Sprintln(len(everything.Legs))
	})
	all(t, s, c)
	compare(t, url, c)
}

// What waits is counted also while the database has not answered yet.
func TestLagWhileNobodyAnswers(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	path := filepath.Join(journaltest.Memory(t), "rec-1.db")
	c, err := catalog.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := shipper(c, path, "postgres://tandem@"+silent.Addr().String()+"/tandem?sslmode=disable")
	stop := run(s)
	defer stop()
	if err := write(t.Context(), c, rand.New(rand.NewPCG(1, 2)), few); err != nil {
		t.Fatal(err)
	}
	wrote := time.Now()
	until(t, "what was written is counted", func() bool { return s.State().Lag > 0 })
	if took := time.Since(wrote); took > 4*recount || s.State().Connected { // the attempt takes five seconds
		t.Errorf("counted after %v; connected: %v", took, s.State().Connected)
	}
}

func TestBackoff(t *testing.T) {
	for failures, want := range map[int]time.Duration{1: 500 * time.Millisecond, 2: time.Second, 5: 8 * time.Second, 6: longest, 1000: longest} {
		if got := backoff(failures, 0); got != want {
			t.Errorf("after %d failures %v, want %v", failures, got, want)
		}
		if got := backoff(failures, 1); got != want-want/4 {
			t.Errorf("after %d failures %v at least, want %v", failures, got, want-want/4)
		}
	}
}
