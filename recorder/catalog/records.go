package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"tandem/internal/call"
)

// Call is one conversation as the platform told it.
type Call struct {
	ID        call.CallID
	Line      string
	Direction string
	Kind      string
	Party     string
	PartyName string
	State     string // offered established held released
	Start     time.Time
	End       time.Time // zero while it lasts
	EndCause  string
}

// Leg is one interval of one source of one turret in a call.
type Leg struct {
	ID          call.LegID
	Call        call.CallID
	Session     call.SessionID
	User        call.UserID
	UserName    string
	Device      call.DeviceID
	Source      string
	Channels    []string // the channels whose mix holds the source
	Start       time.Time
	End         time.Time // zero while it lasts
	EndCause    string
	Accuracy    string
	Group       string
	Secondary   bool
	Interrupted time.Time // zero, or the last good instant before a stop that nobody has mended since
}

// State is what the record says of the leg's media.
func (l Leg) State() call.State {
	switch {
	case l.EndCause == "cti_outage":
		return call.StateCTIOutage
	case !l.End.IsZero():
		return call.StateComplete
	case !l.Interrupted.IsZero():
		return call.StateInterrupted
	}
	return call.StateRecording
}

// Until is where the leg's media ends: its end, the last good instant before
// an interruption, or now.
func (l Leg) Until(now time.Time) time.Time {
	switch {
	case !l.End.IsZero():
		return l.End
	case !l.Interrupted.IsZero():
		return l.Interrupted
	}
	return now
}

const (
	callColumns = `calls.id, line, direction, kind, party, party_name, state, calls.start_us, calls.end_us, calls.end_cause`
	legColumns  = `legs.id, legs.call, legs.session, legs.user, legs.user_name, legs.device, legs.source,
 legs.start_us, legs.end_us, legs.end_cause, legs.accuracy, legs.grp, legs.secondary, legs.interrupted_us,
 (SELECT json_group_array(channel) FROM leg_channels WHERE leg = legs.id)`
)

// PutRecords stores calls, legs and blind windows; the newest state of an id
// wins. A leg spoken of again is no longer interrupted.
func (c *Catalog) PutRecords(ctx context.Context, calls []Call, legs []Leg, blind []Window) error {
	return c.update(ctx, "put records", func(tx *sql.Tx) error {
		err := each(ctx, tx, `INSERT OR REPLACE INTO calls VALUES (?,?,?,?,?,?,?,?,?,?,?)`, calls, func(k Call) []any {
			return []any{k.ID, k.Line, k.Direction, k.Kind, k.Party, k.PartyName, k.State, micros(k.Start), micros(k.End), k.EndCause, c.next()}
		})
		if err != nil {
			return err
		}
		err = each(ctx, tx, `INSERT OR REPLACE INTO legs VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,NULL,?)`, legs, func(l Leg) []any {
			return []any{l.ID, l.Call, l.Session, l.User, l.UserName, l.Device, l.Source, micros(l.Start), micros(l.End), l.EndCause, l.Accuracy, l.Group, l.Secondary, c.next()}
		})
		if err != nil {
			return err
		}
		if err := putLegChannels(ctx, tx, legs); err != nil {
			return err
		}
		return each(ctx, tx, `INSERT OR REPLACE INTO blind (from_us, unwatched, to_us, revision) VALUES (?,0,?,?)`, blind, func(w Window) []any {
			return []any{micros(w.From), micros(w.To), c.next()}
		})
	})
}

func putLegChannels(ctx context.Context, tx *sql.Tx, legs []Leg) error {
	err := each(ctx, tx, `DELETE FROM leg_channels WHERE leg = ?`, legs, func(l Leg) []any { return []any{l.ID} })
	if err != nil {
		return err
	}
	type pair struct {
		leg     call.LegID
		channel string
	}
	var pairs []pair
	for _, l := range legs {
		for _, channel := range l.Channels {
			pairs = append(pairs, pair{l.ID, channel})
		}
	}
	return each(ctx, tx, `INSERT OR IGNORE INTO leg_channels VALUES (?,?)`, pairs, func(p pair) []any { return []any{p.leg, p.channel} })
}

// Unwatched says that from now on no director watches, so that calls may go
// unannounced: everything is kept until Watched. It is remembered over a
// restart, and saying it again changes nothing.
func (c *Catalog) Unwatched(ctx context.Context, now time.Time) error {
	return c.update(ctx, "begin unwatched window", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO blind (from_us, unwatched, revision) SELECT ?, 1, ?
			WHERE NOT EXISTS (SELECT 1 FROM blind WHERE unwatched = 1 AND to_us IS NULL)`, now.UnixMicro(), c.next())
		return err
	})
}

// Watched ends what Unwatched began.
func (c *Catalog) Watched(ctx context.Context, now time.Time) error {
	return c.update(ctx, "end unwatched window", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE blind SET to_us = ?, revision = ? WHERE unwatched = 1 AND to_us IS NULL`, now.UnixMicro(), c.next())
		return err
	})
}

// InterruptLegs marks every open leg as interrupted at the given instant;
// called once at start. It returns how many legs.
func (c *Catalog) InterruptLegs(ctx context.Context, lastGood time.Time) (int, error) {
	var open []call.LegID
	err := c.update(ctx, "interrupt legs", func(tx *sql.Tx) (err error) {
		open, err = rows(ctx, tx, "read open legs", func(r *sql.Rows) (id call.LegID, err error) {
			err = r.Scan(&id)
			return id, err
		}, `SELECT id FROM legs WHERE end_us IS NULL AND interrupted_us IS NULL`)
		if err != nil {
			return err
		}
		return each(ctx, tx, `UPDATE legs SET interrupted_us = max(?, start_us), revision = ? WHERE id = ?`, open, func(id call.LegID) []any {
			return []any{lastGood.UnixMicro(), c.next(), id}
		})
	})
	return len(open), err
}

// Record is a leg with its call.
type Record struct {
	Leg   Leg
	Call  Call
	GapMS int64 // of the leg's best channel
}

// Query selects records. Empty fields select everything.
type Query struct {
	From, To time.Time // records that overlap [From, To)
	Agent    string    // part of a user id or name
	Party    string    // part of a number or name
	Line     string
	Device   call.DeviceID
	Ongoing  bool
	Call     call.CallID
	Leg      call.LegID
	Limit    int // 0: no limit

	since int64 // not 0: records of which something was written after this revision
}

// Search returns records, newest first, and whether the limit cut the list.
func (c *Catalog) Search(ctx context.Context, q Query) ([]Record, bool, error) {
	return search(ctx, c.read, q)
}

func search(ctx context.Context, db reader, q Query) ([]Record, bool, error) {
	where, args := q.where()
	query := `SELECT ` + legColumns + `, ` + callColumns + `, ` + gapColumn + `
		FROM legs LEFT JOIN calls ON calls.id = legs.call WHERE ` + where + ` ORDER BY legs.start_us DESC, legs.id`
	if q.Limit > 0 {
		query += fmt.Sprintf(" LIMIT %d", q.Limit+1)
	}
	records, err := rows(ctx, db, "search calls", scanRecord, query, args...)
	if err != nil {
		return nil, false, err
	}
	if q.Limit > 0 && len(records) > q.Limit {
		return records[:q.Limit], true, nil
	}
	return records, false, nil
}

// gapColumn is the time missing inside the leg on its best channel.
const gapColumn = `coalesce((SELECT min(missing) FROM (
   SELECT coalesce((SELECT sum(min(g.to_us, coalesce(legs.end_us, g.to_us)) - max(g.from_us, legs.start_us)) FROM gaps g
     WHERE g.channel = lc.channel AND g.to_us > legs.start_us AND g.from_us < coalesce(legs.end_us, 9223372036854775807)), 0) AS missing
   FROM leg_channels lc WHERE lc.leg = legs.id)), 0) / 1000`

func (q Query) where() (string, []any) {
	var terms []string
	var args []any
	add := func(term string, values ...any) {
		terms, args = append(terms, term), append(args, values...)
	}
	add("1")
	if !q.From.IsZero() {
		add("coalesce(legs.end_us, legs.interrupted_us, 9223372036854775807) > ?", q.From.UnixMicro())
	}
	if !q.To.IsZero() {
		add("legs.start_us < ?", q.To.UnixMicro())
	}
	if q.Agent != "" {
		add(`(legs.user LIKE ? ESCAPE '\' OR legs.user_name LIKE ? ESCAPE '\')`, like(q.Agent), like(q.Agent))
	}
	if q.Party != "" {
		add(`(party LIKE ? ESCAPE '\' OR party_name LIKE ? ESCAPE '\')`, like(q.Party), like(q.Party))
	}
	if q.Line != "" {
		add("line = ?", q.Line)
	}
	if q.Device != "" {
		add("legs.device = ?", q.Device)
	}
	if q.Ongoing {
		add("legs.end_us IS NULL AND legs.interrupted_us IS NULL")
	}
	if q.Call != "" {
		add("legs.call = ?", q.Call)
	}
	if q.Leg != "" {
		add("legs.id = ?", q.Leg)
	}
	if q.since > 0 {
		add("legs.id IN ("+legsChanged+")", q.since, q.since, q.since)
	}
	return strings.Join(terms, " AND "), args
}

// like matches s anywhere; its wildcards mean themselves.
func like(s string) string {
	return "%" + strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`).Replace(s) + "%"
}

// fields are where the legColumns go.
func (l *Leg) fields() []any {
	return []any{&l.ID, &l.Call, &l.Session, &l.User, &l.UserName, &l.Device, &l.Source,
		at(&l.Start), at(&l.End), &l.EndCause, &l.Accuracy, &l.Group, &l.Secondary, at(&l.Interrupted), (*list)(&l.Channels)}
}

func scanRecord(r *sql.Rows) (Record, error) {
	var rec Record
	l, c := &rec.Leg, &rec.Call
	var id, line, direction, kind, party, partyName, state, cause sql.NullString
	err := r.Scan(append(l.fields(),
		&id, &line, &direction, &kind, &party, &partyName, &state, at(&c.Start), at(&c.End), &cause, &rec.GapMS)...)
	c.ID, c.Line, c.Direction, c.Kind = l.Call, line.String, direction.String, kind.String
	c.Party, c.PartyName, c.State, c.EndCause = party.String, partyName.String, state.String, cause.String
	return rec, err
}

// OpenLegs are the records of legs that last.
func (c *Catalog) OpenLegs(ctx context.Context) ([]Record, error) {
	records, _, err := c.Search(ctx, Query{Ongoing: true})
	return records, err
}

// KeepWindows says, for every channel with a leg that overlaps [from, to),
// when those legs were; and when CTI was blind, for all channels. Windows that
// have not ended have a zero To. An interrupted leg keeps until spoken of again.
func (c *Catalog) KeepWindows(ctx context.Context, from, to time.Time) (map[call.ChannelID][]Window, []Window, error) {
	type keep struct {
		channel call.ChannelID
		window  Window
	}
	legs, err := rows(ctx, c.read, "read keep windows", func(r *sql.Rows) (keep, error) {
		var k keep
		err := r.Scan(&k.channel, at(&k.window.From), at(&k.window.To))
		return k, err
	}, `SELECT channel, start_us, end_us FROM legs JOIN leg_channels ON leg = id
		WHERE start_us < ? AND (end_us IS NULL OR end_us > ?) ORDER BY channel, start_us`, to.UnixMicro(), from.UnixMicro())
	if err != nil {
		return nil, nil, err
	}
	blind, err := c.Blind(ctx, Window{From: from, To: to})
	if err != nil {
		return nil, nil, err
	}
	byChannel := map[call.ChannelID][]Window{}
	for _, k := range legs {
		byChannel[k.channel] = append(byChannel[k.channel], k.window)
	}
	return byChannel, blind, nil
}

// Blind is when call events could not be heard, as far as that overlaps the
// window; in order, and one that has not ended has a zero To.
func (c *Catalog) Blind(ctx context.Context, w Window) ([]Window, error) {
	from := int64(-1 << 62)
	if !w.From.IsZero() {
		from = w.From.UnixMicro()
	}
	return rows(ctx, c.read, "read blind windows", func(r *sql.Rows) (Window, error) {
		var w Window
		err := r.Scan(at(&w.From), at(&w.To))
		return w, err
	}, `SELECT from_us, to_us FROM blind WHERE from_us < ? AND (to_us IS NULL OR to_us > ?) ORDER BY from_us`, endOf(w), from)
}

// CountOpenLegs is how many legs last.
func (c *Catalog) CountOpenLegs(ctx context.Context) (int, error) {
	var n int
	if err := c.read.QueryRowContext(ctx, `SELECT count(*) FROM legs WHERE end_us IS NULL AND interrupted_us IS NULL`).Scan(&n); err != nil {
		return 0, fmt.Errorf("count open legs: %w", err)
	}
	return n, nil
}
