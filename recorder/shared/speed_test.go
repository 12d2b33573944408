package shared

import (
	"context"
	"crypto/md5"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tandem/internal/call"
	"tandem/recorder/catalog"
	"tandem/recorder/pgtest"
)

// site is a year of calls, each of which has one of its agents, lines and
// parties, by chance.
type site struct {
	calls, agents, lines, parties int
	end                           time.Time
}

const year = 365 * 24 * time.Hour

func newSite(calls int) site {
	return site{calls, min(500, calls/60), min(300, calls/100), min(40_000, calls/50), time.Now().UTC().Truncate(time.Second)}
}

// speedLimit is how long a first page may take, half of the time: the other half
// is the business of whatever else the machine does.
const speedLimit = 100 * time.Millisecond

// crowd is the SQL that makes so many calls of one leg each, the newest one ends
// with the year. Every thousandth leg lasts a day, as hoots do, the last two
// hundred last yet, every fiftieth misses a second.
const crowd = `
INSERT INTO catalogs (catalog, recorder, grp, revision, told_us)
 SELECT 'speed-' || n, 'rec-' || n, CASE WHEN n < 3 THEN 'primary' ELSE 'secondary' END, 0, 0 FROM generate_series(1, 4) n;
CREATE TEMPORARY VIEW chance AS
 SELECT n, 1 + n % 4 AS catalog, $begin + n * ($year / $calls) AS start_us, $begin + n * ($year / $calls) + CASE WHEN n % 1000 = 0 THEN 86400000000 ELSE 1000000 * (5 + hashint8(n + 1) & 511) END AS end_us,
  (hashint8(n) & 1073741823) % $agents AS agent, (hashint8(n + 7000000000) & 1073741823) % $lines AS line, (hashint8(n + 8000000000) & 1073741823) % $parties AS contact, n > $calls - 200 AS lasts
 FROM generate_series(1::bigint, $calls) n;
INSERT INTO calls SELECT catalog, 'c' || n, 'L' || line, CASE WHEN n % 2 = 0 THEN 'in' ELSE 'out' END, 'dial', '+4420' || (70000000 + contact * 13), initcap(left(md5(contact::text), 6)) || ' Capital',
  'released', start_us, CASE WHEN NOT lasts THEN end_us END, 'normal' FROM chance;
INSERT INTO legs (catalog, id, call, session, user_id, user_name, device, source, channels, start_us, end_us, end_cause, accuracy, grp, secondary, line, party, party_name)
 SELECT catalog, 'l' || n, 'c' || n, 's' || agent || '-' || n / 10000, 'u' || lpad(agent::text, 4, '0'), initcap(left(md5('agent' || agent), 5)) || ' ' || initcap(left(md5('name' || agent), 7)), 'd' || agent, 'HS.L',
  ARRAY['s' || agent || '-' || n / 10000 || '.m1.A'], start_us, CASE WHEN NOT lasts THEN end_us END, 'left', 'exact', 'primary', false,
  'L' || line, '+4420' || (70000000 + contact * 13), initcap(left(md5(contact::text), 6)) || ' Capital' FROM chance;
INSERT INTO agents SELECT DISTINCT catalog, user_id, user_name FROM legs;
INSERT INTO gaps SELECT catalog, 'g' || n, 's' || agent || '-' || n / 10000 || '.m1.A', start_us, start_us + 1000000, 'loss' FROM chance WHERE n % 50 = 0;
DROP VIEW chance;`

// searchSpeed times every kind of search among a year's calls. It makes few, only
// to see that they are found; make bench-search asks for five million, and then
// for the time.
func searchSpeed(t *testing.T, server *pgtest.Server) {
	calls, times, batches := 3000, 2, 1
	asked := os.Getenv("TANDEM_SEARCH_CALLS")
	if asked != "" {
		var err error
		if calls, err = strconv.Atoi(asked); err != nil {
			t.Fatal(err)
		}
		times, batches = 40, 20
	}
	cfg := Config{URL: server.Database()}
	w := dial(t, cfg, Source{"another", "rec-9", "primary"})
	defer w.Close()
	all, began := newSite(calls), time.Now()
	populate(t, cfg, all)
	t.Logf("%d calls in %v, %s", calls, time.Since(began).Round(time.Second), pgtest.Dump(t, cfg.URL, `SELECT pg_size_pretty(pg_database_size(current_database()))`))

	r := reader(t, cfg)
	t.Logf("%-44s %8s %8s %8s %8s %12s", "first page of 100", "found", "p50 ms", "p95 ms", "max ms", "server CPU ms")
	for _, kind := range all.kinds(rand.New(rand.NewPCG(1, 2))) {
		found, took, busy := 0, make([]time.Duration, times), server.CPU()
		for n := range took {
			q := kind.question()
			q.Limit = 100
			began := time.Now()
			page, err := r.Search(t.Context(), Query{q, kind.after})
			if err != nil {
				t.Fatal(err)
			}
			took[n] = time.Since(began)
			found += len(page.Records)
		}
		busy = max(0, server.CPU()-busy) // less when a connection ended
		slices.Sort(took)
		t.Logf("%-44s %8.1f %8s %8s %8s %12s", kind.name, float64(found)/float64(times), ms(took[times/2]), ms(took[times*95/100]), ms(took[times-1]), ms(busy/time.Duration(times)))
		if found > 0 && kind.empty || found == 0 && !kind.empty && asked != "" {
			t.Errorf("%s: %d found", kind.name, found)
		}
		if p50 := took[times/2]; asked != "" && p50 > speedLimit {
			t.Errorf("%s: p50 %v, want %v", kind.name, p50, speedLimit)
		}
	}
	began, busy := time.Now(), server.CPU()
	rows := shipMore(t, w, all.end, batches)
	t.Logf("shipping: %d rows, calls and legs, 500 in a transaction, %.0f a second of the clock and %.0f a second of the server's CPU",
		rows, float64(rows)/time.Since(began).Seconds(), float64(rows)/max(0.001, (server.CPU()-busy).Seconds()))
}

func ms(d time.Duration) string {
	return strconv.FormatFloat(float64(d.Microseconds())/1000, 'f', 1, 64)
}

// populate makes the calls without the indexes that can be made afterwards.
func populate(t *testing.T, cfg Config, all site) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, cfg.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	do := func(query string) {
		t.Helper()
		if _, err := conn.Exec(ctx, query); err != nil {
			t.Fatalf("%v: %s", err, query)
		}
	}
	rows, err := conn.Query(ctx, `SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND indexdef NOT LIKE '%UNIQUE%'`)
	if err != nil {
		t.Fatal(err)
	}
	indexes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Name, Definition string }])
	if err != nil {
		t.Fatal(err)
	}
	do("SET synchronous_commit = off")
	do("SET maintenance_work_mem = '512MB'")
	for _, index := range indexes {
		do("DROP INDEX " + index.Name)
	}
	values := map[string]int64{"begin": all.end.Add(-year).UnixMicro(), "year": year.Microseconds(),
		"calls": int64(all.calls), "agents": int64(all.agents), "lines": int64(all.lines), "parties": int64(all.parties)}
	do(os.Expand(crowd, func(name string) string { return strconv.FormatInt(values[name], 10) }))
	for _, index := range indexes {
		do(index.Definition)
	}
	do("VACUUM ANALYZE")
}

// kind is a way to search.
type kind struct {
	name     string
	question func() catalog.Query
	after    string // a page that is not the first
	empty    bool   // nothing is found
}

func (all site) kinds(random *rand.Rand) []kind {
	end := all.end
	ask := func(set func(*catalog.Query)) func() catalog.Query {
		return func() catalog.Query {
			var q catalog.Query
			set(&q)
			return q
		}
	}
	within := func(length time.Duration) func(*catalog.Query) {
		return func(q *catalog.Query) {
			q.From = end.Add(-time.Duration(random.Int64N(int64(year-length))) - length)
			q.To = q.From.Add(length)
		}
	}
	const day = 24 * time.Hour
	minute, hour, week := within(time.Minute), within(time.Hour), within(7*day)
	agent := func(q *catalog.Query) { q.Agent = fmt.Sprintf("u%04d", random.IntN(all.agents)) }
	party := func(q *catalog.Query) { q.Party = fmt.Sprint(70000000 + 13*random.IntN(all.parties)) }
	line := func(q *catalog.Query) { q.Line = fmt.Sprint("L", random.IntN(all.lines)) }
	both := func(a, b func(*catalog.Query)) func(*catalog.Query) {
		return func(q *catalog.Query) { a(q); b(q) }
	}
	letters := func(n int, of string) string { return fmt.Sprintf("%x", md5.Sum([]byte(of)))[:n] }
	agentName := func(n int) func(*catalog.Query) {
		return func(q *catalog.Query) { q.Agent = letters(n, fmt.Sprint("agent", random.IntN(all.agents))) }
	}
	deep := place{end.Add(-year / 2).UnixMicro(), 1, "l"}
	return []kind{
		{name: "the newest", question: ask(func(*catalog.Query) {})},
		{name: "the newest, a page half a year down", question: ask(func(*catalog.Query) {}), after: deep.String()},
		{name: "a minute of the year", question: ask(minute)},
		{name: "an hour of the year", question: ask(hour)},
		{name: "a day of the year", question: ask(within(day))},
		{name: "an agent by id", question: ask(agent)},
		{name: "an agent by id, in a week", question: ask(both(agent, week))},
		{name: "agents by three letters of a name", question: ask(agentName(3))},
		{name: "agents by one letter of a name", question: ask(agentName(1))},
		{name: "agents by two letters of a name", question: ask(agentName(2))},
		{name: "an agent nobody knows", question: ask(func(q *catalog.Query) { q.Agent = "nobody" }), empty: true},
		{name: "a party by number", question: ask(party)},
		{name: "a party by number, in a week", question: ask(both(party, week))},
		{name: "parties by four letters of a name", question: ask(func(q *catalog.Query) { q.Party = letters(4, fmt.Sprint(random.IntN(all.parties))) })},
		{name: "parties by seven letters of a name", question: ask(func(q *catalog.Query) { q.Party = letters(6, fmt.Sprint(random.IntN(all.parties))) + " " })},
		{name: "a party by number, with an agent", question: ask(both(agent, func(q *catalog.Query) { q.Party = fmt.Sprintf("2070%03d", random.IntN(500)) }))},
		{name: "parties by two digits", question: ask(func(q *catalog.Query) { q.Party = fmt.Sprintf("%02d", random.IntN(100)) })},
		{name: "a party nobody knows", question: ask(func(q *catalog.Query) { q.Party = "Nobody & Sons" }), empty: true},
		{name: "every party's country code, in an hour", question: ask(both(func(q *catalog.Query) { q.Party = "+44" }, hour))},
		{name: "a line", question: ask(line)},
		{name: "a line, in a week", question: ask(both(line, week))},
		{name: "a turret", question: ask(func(q *catalog.Query) { q.Device = call.DeviceID(fmt.Sprint("d", random.IntN(all.agents))) })},
		{name: "an agent on a line", question: ask(both(agent, line))},
		{name: "an agent with a party", question: ask(func(q *catalog.Query) { agent(q); q.Party = "Capital" })},
		{name: "what lasts", question: ask(func(q *catalog.Query) { q.Ongoing = true })},
		{name: "what lasts of an agent", question: ask(func(q *catalog.Query) { q.Ongoing = true; q.Agent = "u0" })},
	}
}

// shipMore adds the rows of new calls to what is there already.
func shipMore(t *testing.T, w *Writer, end time.Time, batches int) (rows int) {
	t.Helper()
	for b := range batches {
		var changes catalog.Changes
		for n := range 250 {
			id := fmt.Sprint("n", b, "-", n)
			at := end.Add(time.Duration(rows) * time.Millisecond)
			changes.Calls = append(changes.Calls, catalog.Call{ID: call.CallID(id), Line: "L1", Party: fmt.Sprint("+4420", 70000000+13*rows), PartyName: "Ship Capital", State: "released", Start: at, End: at})
			changes.Legs = append(changes.Legs, catalog.Leg{ID: call.LegID(id), Call: call.CallID(id), User: "u0001", UserName: "Ann Lee", Channels: []string{"s1.m1.A"}, Start: at, End: at})
			rows += 2
		}
		put(t, w, changes)
	}
	return rows
}
