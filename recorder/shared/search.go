package shared

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"tandem/internal/call"
	"tandem/recorder/catalog"
)

// ErrPlace is a place in a search that Search did not give.
var ErrPlace = errors.New("not a place in a search")

// connections is how many searches are under way at a time.
const connections = 4

// Reader searches the database. It is safe for concurrent use.
type Reader struct{ pool *pgxpool.Pool }

// Open is ready to search; it reaches for the database when it is first asked.
func Open(cfg Config) (*Reader, error) {
	parsed, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("read address of the shared catalog: %w", err)
	}
	parsed.MaxConns = connections
	// One plan for all parameters would be wrong for most of them, and compiling
	// one takes longer than the search.
	parsed.ConnConfig.RuntimeParams["plan_cache_mode"] = "force_custom_plan"
	parsed.ConnConfig.RuntimeParams["jit"] = "off"
	parsed.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error { return cfg.complete(c) }
	pool, err := pgxpool.NewWithConfig(context.Background(), parsed)
	if err != nil {
		return nil, fmt.Errorf("open the shared catalog: %w", err)
	}
	return &Reader{pool}, nil
}

// Close ends all searches.
func (r *Reader) Close() { r.pool.Close() }

// Record is a leg with its call, as one catalog has it.
type Record struct {
	catalog.Record
	Catalog  string
	Recorder string
	Told     time.Time // when that catalog's recorder last shipped, or said that it had nothing to
}

// Query selects records.
type Query struct {
	catalog.Query
	After string // Page.Next of the page before; empty for the first
}

// Page is a part of what a search finds, newest first.
type Page struct {
	Records []Record
	Next    string // empty: nothing follows
}

// order is that of a search: the start, and where several are the same whatever
// tells them apart. An index on the start serves it.
const order = `start_us DESC, id DESC, catalog DESC`

const columns = `l.id, l.call, l.session, l.user_id, l.user_name, l.device, l.source, l.channels, l.start_us, l.end_us, l.end_cause, l.accuracy, l.grp, l.secondary,
 l.interrupted_us, l.catalog, k.catalog, k.recorder, k.told_us,
 l.line, coalesce(c.direction, ''), coalesce(c.kind, ''), l.party, l.party_name, coalesce(c.state, ''), c.start_us, c.end_us, coalesce(c.end_cause, ''), ` + missing

// missing is the time missing inside the leg on its best channel.
const missing = `coalesce((SELECT min(m.us) FROM (
   SELECT coalesce((SELECT sum(least(g.to_us, l.end_us) - greatest(g.from_us, l.start_us)) FROM gaps g
     WHERE g.channel = ch AND g.catalog = l.catalog AND g.to_us > l.start_us AND (l.end_us IS NULL OR g.from_us < l.end_us)), 0) AS us
   FROM unnest(l.channels) AS ch) m), 0)::bigint / 1000`

// Search returns the records that q selects, q.Limit at most.
func (r *Reader) Search(ctx context.Context, q Query) (Page, error) {
	page, err := r.search(ctx, q)
	if err != nil && !errors.Is(err, ErrPlace) {
		err = fmt.Errorf("search the shared catalog: %w", err)
	}
	return page, err
}

func (r *Reader) search(ctx context.Context, q Query) (Page, error) {
	var users []user
	var err error
	if q.Agent != "" {
		if users, err = r.users(ctx, q.Agent); err != nil || len(users) == 0 {
			return Page{}, err
		}
	}
	rare := false
	if q.Party != "" {
		if rare, err = r.rare(ctx, q.Party, q.Limit); err != nil {
			return Page{}, err
		}
	}
	return r.page(ctx, q, users, rare)
}

// page is what is found of the users, or of all when there are none or too many,
// by the party's text or by time.
func (r *Reader) page(ctx context.Context, q Query, users []user, rare bool) (page Page, err error) {
	query, args, err := q.statement(users, rare)
	if err != nil {
		return Page{}, err
	}
	result, err := r.pool.Query(ctx, query, args...)
	if err != nil {
		return Page{}, err
	}
	defer result.Close()
	var last place
	for result.Next() {
		if q.Limit > 0 && len(page.Records) == q.Limit {
			page.Next = last.String()
			continue
		}
		rec, at, err := scanRecord(result)
		if err != nil {
			return Page{}, err
		}
		page.Records, last = append(page.Records, rec), at
	}
	return page, result.Err()
}

// someUsers is for how many users their legs are looked up one user after
// another. Of more than these every few legs are somebody's: then the newest legs
// are looked through.
const someUsers = 50

// user is somebody whose id or name has the text in it that is searched for.
type user struct {
	ID     string
	Always bool // and never had another name: all their legs are found
}

// users are those whom the text is for, or one more than someUsers of them.
func (r *Reader) users(ctx context.Context, agent string) ([]user, error) {
	rows, err := r.pool.Query(ctx, `SELECT user_id, bool_and(`+agentText+` ILIKE $1) FROM agents
 WHERE user_id IN (SELECT user_id FROM agents WHERE `+agentText+` ILIKE $1) GROUP BY user_id LIMIT $2`, like(agent), someUsers+1)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[user])
}

// sampled is of how many legs a sample is taken; a table of not many more is looked
// through at once.
const sampled = 5000

// rare reports whether legs with the text in their party are better looked up by
// that than by time.
func (r *Reader) rare(ctx context.Context, party string, wanted int) (bool, error) {
	var all float64 // when they were counted last; -1: never
	if err := r.pool.QueryRow(ctx, `SELECT reltuples::float8 FROM pg_class WHERE oid = 'legs'::regclass`).Scan(&all); err != nil {
		return false, err
	}
	if all < 10*sampled {
		return false, nil
	}
	share, err := r.share(ctx, party, all)
	return byText(all, share, wanted), err
}

// byText compares how many legs are looked at: by time, all others between so many
// that are wanted; by the text, all that have it, whenever they were. PostgreSQL
// guesses the share from the text's length, and where it is wrong looks through
// every leg there is.
func byText(all, share float64, wanted int) bool { return share*all*share < float64(wanted+1) }

// share is how many in a sample of all legs have the text in their party.
func (r *Reader) share(ctx context.Context, party string, all float64) (share float64, err error) {
	var looked, have float64
	err = r.pool.QueryRow(ctx, `SELECT count(*), count(*) FILTER (WHERE `+partyText+` ILIKE $1) FROM legs TABLESAMPLE SYSTEM ($2)`,
		like(party), min(100, 100*sampled/all)).Scan(&looked, &have)
	return have / max(1, looked), err
}

// agentText and partyText are what is searched for a text; indexes are on them.
const (
	agentText = `(user_id || E'\n' || user_name)`
	partyText = `(party || E'\n' || party_name)`
)

func scanRecord(r pgx.Rows) (rec Record, at place, err error) {
	l, c := &rec.Leg, &rec.Call
	var start, told int64
	var end, interrupted, callStart, callEnd *int64
	err = r.Scan(&l.ID, &l.Call, &l.Session, &l.User, &l.UserName, &l.Device, &l.Source, &l.Channels, &start, &end, &l.EndCause, &l.Accuracy, &l.Group, &l.Secondary,
		&interrupted, &at.catalog, &rec.Catalog, &rec.Recorder, &told,
		&c.Line, &c.Direction, &c.Kind, &c.Party, &c.PartyName, &c.State, &callStart, &callEnd, &c.EndCause, &rec.GapMS)
	l.Start, l.End, l.Interrupted, rec.Told = instant(&start), instant(end), instant(interrupted), instant(&told)
	c.ID, c.Start, c.End = l.Call, instant(callStart), instant(callEnd)
	at.start, at.leg = start, l.ID
	return rec, at, err
}

// statement finds the legs of the page first; calls and gaps are looked up for
// those alone.
func (q Query) statement(users []user, rare bool) (string, []any, error) {
	var args []any
	place := func(v any) string {
		args = append(args, v)
		return "$" + strconv.Itoa(len(args))
	}
	terms, err := q.terms(place)
	if err != nil {
		return "", nil, err
	}
	cut := ""
	if q.Limit > 0 {
		cut = fmt.Sprintf(" LIMIT %d", q.Limit+1)
	}
	var found []string
	for _, w := range q.ways(users, rare, place) {
		where := `legs WHERE ` + strings.Join(append(w.terms, terms...), " AND ")
		if w.whole {
			where = `(SELECT * FROM ` + where + ` OFFSET 0) AS legs`
		}
		found = append(found, `(SELECT * FROM `+where+` ORDER BY `+order+cut+`)`)
	}
	return `SELECT ` + columns + ` FROM (SELECT * FROM (` + strings.Join(found, " UNION ALL ") + `) AS f ORDER BY ` + order + cut + `) AS l
 JOIN catalogs k ON k.id = l.catalog LEFT JOIN calls c ON c.catalog = l.catalog AND c.id = l.call
 ORDER BY l.start_us DESC, l.id DESC, l.catalog DESC`, args, nil
}

// way is conditions for legs. There are few that meet those of a whole one: all of
// them are looked up. Otherwise PostgreSQL may take legs by time, in the order that
// is wanted, until enough have been found that meet them.
type way struct {
	whole bool
	terms []string
}

// ways are how indexes find the legs of the users, the party and the time; each
// leg in one of them.
//
// What overlaps a time is what began in it and what lasted when it began. For
// the first there are indexes by start; the second is little, whatever the time,
// and has an index of its own. Asked for in one, all that began before would be
// looked at.
//
// Of a few users each one's legs are looked up by time. Their names are compared
// only where they must be: PostgreSQL takes that for a condition which hardly any
// leg meets, and looks at all of a user's legs before it sorts them.
func (q Query) ways(users []user, rare bool, place func(any) string) (ways []way) {
	named, with := "true", "true"
	if q.Agent != "" && (rare || !q.From.IsZero() || !always(users)) {
		named = agentText + " ILIKE " + place(like(q.Agent))
	}
	if q.Party != "" {
		with = partyText + " ILIKE " + place(like(q.Party))
	}
	began := "true"
	if !q.From.IsZero() {
		from := place(q.From.UnixMicro())
		began = "start_us >= " + from + " AND coalesce(end_us, interrupted_us, start_us + 1) > " + from
		ways = append(ways, way{true, []string{named, with, "start_us < " + from, "span @> " + from + "::bigint"}})
	}
	switch {
	case rare:
		return append(ways, way{true, []string{named, with, began, among(users, place)}})
	case !few(users):
		return append(ways, way{false, []string{named, with, began}})
	}
	for _, u := range users {
		terms := []string{"user_id = " + place(u.ID), with, began}
		if !u.Always {
			terms = append(terms, named)
		}
		ways = append(ways, way{false, terms})
	}
	return ways
}

// among is that a leg is one of the users', if they are few.
func among(users []user, place func(any) string) string {
	if !few(users) {
		return "true"
	}
	ids := make([]string, len(users))
	for n, u := range users {
		ids[n] = u.ID
	}
	return "user_id = ANY(" + place(ids) + ")"
}

// few reports whether the users' legs are to be looked up one user after another.
func few(users []user) bool { return len(users) > 0 && len(users) <= someUsers }

// always reports whether no leg of the users needs to be looked at for a name.
func always(users []user) bool {
	return few(users) && !slices.ContainsFunc(users, func(u user) bool { return !u.Always })
}

// terms are the conditions that ways leave to all of them.
func (q Query) terms(place func(any) string) ([]string, error) {
	var terms []string
	add := func(format string, values ...any) {
		places := make([]any, len(values))
		for n, v := range values {
			places[n] = place(v)
		}
		terms = append(terms, fmt.Sprintf(format, places...))
	}
	if q.After != "" {
		at, err := parsePlace(q.After)
		if err != nil {
			return nil, err
		}
		add("start_us <= %s", at.start)
		add("(start_us, id, catalog) < (%s, %s, %s)", at.start, text(at.leg), at.catalog)
	}
	if !q.To.IsZero() {
		add("start_us < %s", q.To.UnixMicro())
	}
	if q.Line != "" {
		add("line = %s", text(q.Line))
	}
	if q.Device != "" {
		add("device = %s", text(q.Device))
	}
	if q.Ongoing {
		add("end_us IS NULL AND interrupted_us IS NULL")
	}
	if q.Call != "" {
		add("call = %s", text(q.Call))
	}
	if q.Leg != "" {
		add("id = %s", text(q.Leg))
	}
	return terms, nil
}

// like matches s anywhere; its wildcards mean themselves.
func like(s string) string {
	return "%" + strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`).Replace(text(s)) + "%"
}

// place is where a page ends.
type place struct {
	start   int64
	catalog int32
	leg     call.LegID
}

func (p place) String() string { return fmt.Sprintf("%d.%d.%s", p.start, p.catalog, p.leg) }

// parsePlace is the inverse of place.String.
func parsePlace(s string) (place, error) {
	parts := strings.SplitN(s, ".", 3)
	if len(parts) != 3 {
		return place{}, fmt.Errorf("%q: %w", s, ErrPlace)
	}
	start, err := strconv.ParseInt(parts[0], 10, 64)
	if err != nil {
		return place{}, fmt.Errorf("%q: %w", s, ErrPlace)
	}
	number, err := strconv.ParseInt(parts[1], 10, 32)
	if err != nil {
		return place{}, fmt.Errorf("%q: %w", s, ErrPlace)
	}
	return place{start, int32(number), call.LegID(parts[2])}, nil
}
