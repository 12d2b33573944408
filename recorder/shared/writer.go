package shared

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tandem/recorder/catalog"
)

// ErrElsewhere means that the database is not where this writer left it: it was
// restored from a backup, or another process ships the same catalog. Whoever
// gets it dials again and goes on from Place.
var ErrElsewhere = errors.New("the shared catalog is at another revision than this recorder left it at")

// Source is a catalog and whose it is.
type Source struct {
	Catalog  string // catalog.Catalog.ID
	Recorder string
	Group    string
}

// Writer is the connection by which one catalog is shipped. It has one user.
type Writer struct {
	conn     *pgx.Conn
	catalog  int32 // the database's number for it
	place    int64
	identity string
}

// Dial connects, brings the schema up to date and says who ships.
func Dial(ctx context.Context, cfg Config, source Source) (*Writer, error) {
	if err := cfg.migrate(ctx); err != nil {
		return nil, err
	}
	parsed, err := cfg.connection()
	if err != nil {
		return nil, err
	}
	w := &Writer{}
	if w.conn, err = pgx.ConnectConfig(ctx, parsed); err != nil {
		return nil, err
	}
	if err := w.introduce(ctx, source); err != nil {
		w.Close()
		return nil, fmt.Errorf("name the catalog that is shipped: %w", err)
	}
	return w, nil
}

// introduce finds the catalog's row or makes it. When a process that was killed
// has left a transaction behind, it waits for its end.
func (w *Writer) introduce(ctx context.Context, source Source) error {
	if err := w.conn.QueryRow(ctx, `SELECT id::text FROM identity`).Scan(&w.identity); err != nil {
		return err
	}
	_, err := w.conn.Exec(ctx, `INSERT INTO catalogs (catalog, recorder, grp, revision, told_us) VALUES ($1, $2, $3, 0, 0) ON CONFLICT (catalog) DO NOTHING`,
		source.Catalog, source.Recorder, source.Group)
	if err != nil {
		return err
	}
	return w.conn.QueryRow(ctx, `UPDATE catalogs SET recorder = $2, grp = $3 WHERE catalog = $1 RETURNING id, revision`,
		source.Catalog, source.Recorder, source.Group).Scan(&w.catalog, &w.place)
}

// Close ends the connection.
func (w *Writer) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	w.conn.Close(ctx)
}

// Place is the revision up to which the database has every row.
func (w *Writer) Place() int64 { return w.place }

// Identity is the database's name for itself.
func (w *Writer) Identity() string { return w.identity }

// Put stores changes and their place in one transaction; putting them again
// changes nothing. Without any it says that the recorder is alive and has
// nothing to tell. A row that the database cannot take is logged and left out,
// and the others go on; Put returns how many.
func (w *Writer) Put(ctx context.Context, now time.Time, changes catalog.Changes) (refused int, err error) {
	rows := rowsOf(w.catalog, changes)
	err = w.transaction(ctx, now, changes.Upto, func(tx pgx.Tx) error { return together(ctx, tx, rows) })
	if unacceptable(err) {
		err = w.transaction(ctx, now, changes.Upto, func(tx pgx.Tx) (err error) {
			refused, err = oneByOne(ctx, tx, rows)
			return err
		})
	}
	if err != nil {
		return 0, fmt.Errorf("put changes in the shared catalog: %w", err)
	}
	w.place = changes.Upto
	return refused, nil
}

// transaction does what is given and moves the place from where it was.
func (w *Writer) transaction(ctx context.Context, now time.Time, upto int64, do func(pgx.Tx) error) error {
	tx, err := w.conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx) // after a commit it does nothing
	moved, err := tx.Exec(ctx, `UPDATE catalogs SET revision = $3, told_us = $4 WHERE id = $1 AND revision = $2`, w.catalog, w.place, upto, now.UnixMicro())
	if err != nil {
		return err
	}
	if moved.RowsAffected() != 1 {
		return ErrElsewhere
	}
	if err := do(tx); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// row is a statement that stores one row, and the row's name in the log.
type row struct {
	name      string
	statement string
	values    []any
}

func together(ctx context.Context, tx pgx.Tx, rows []row) error {
	batch := &pgx.Batch{}
	for _, r := range rows {
		batch.Queue(r.statement, r.values...)
	}
	return tx.SendBatch(ctx, batch).Close()
}

// oneByOne is together, without the rows that the database cannot take.
func oneByOne(ctx context.Context, tx pgx.Tx, rows []row) (refused int, err error) {
	for _, r := range rows {
		err := pgx.BeginFunc(ctx, tx, func(point pgx.Tx) error {
			_, err := point.Exec(ctx, r.statement, r.values...)
			return err
		})
		if err != nil && !unacceptable(err) {
			return refused, err
		}
		if err != nil {
			refused++
			slog.Error("row refused by the shared catalog", "row", r.name, "err", err)
		}
	}
	return refused, nil
}

// unacceptable is an error that the values of a row cause, and would cause
// again: SQLSTATE classes 22 (data), 23 (constraint) and 54 (limit).
func unacceptable(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && len(e.Code) == 5 && slices.Contains([]string{"22", "23", "54"}, e.Code[:2])
}

// upsert is the statement that stores a row whatever was there. The first
// columns are the key.
func upsert(table string, keys int, columns ...string) string {
	places, sets := make([]string, len(columns)), []string{}
	for n, c := range columns {
		places[n] = fmt.Sprintf("$%d", n+1)
		if n >= keys {
			sets = append(sets, c+" = excluded."+c)
		}
	}
	return fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s) ON CONFLICT (%s) DO UPDATE SET %s",
		table, strings.Join(columns, ", "), strings.Join(places, ", "), strings.Join(columns[:keys], ", "), strings.Join(sets, ", "))
}

var (
	putAttachment = upsert("attachments", 2, "catalog", "num", "channel", "session", "user_id", "user_name", "device", "profile", "mix", "copy", "sources",
		"codec", "reason", "opened_us", "closed_us", "cause", "continues", "continues_cause", "continues_us")
	putCall = upsert("calls", 2, "catalog", "id", "line", "direction", "kind", "party", "party_name", "state", "start_us", "end_us", "end_cause")
	putLeg  = upsert("legs", 2, "catalog", "id", "call", "session", "user_id", "user_name", "device", "source", "channels", "start_us", "end_us", "end_cause",
		"accuracy", "grp", "secondary", "interrupted_us")
	putSegment = upsert("segments", 2, "catalog", "id", "num", "channel", "copy", "start_us", "end_us", "codec", "ssrc", "first_ts", "samples", "first_seq", "last_seq",
		"file", "size", "sha256", "packets", "lost", "reordered", "duplicates", "max_jitter_us", "sealed")
	putGap   = upsert("gaps", 3, "catalog", "segment", "from_us", "channel", "to_us", "cause")
	putBlind = upsert("blind", 3, "catalog", "from_us", "unwatched", "to_us")
)

const (
	putAgent = `INSERT INTO agents (catalog, user_id, user_name) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`
	dropGaps = `DELETE FROM gaps WHERE catalog = $1 AND segment = $2`
	// What legs say of their calls follows the calls, whichever comes first.
	nameLegs = `UPDATE legs SET line = $3, party = $4, party_name = $5
 WHERE catalog = $1 AND call = $2 AND (line, party, party_name) IS DISTINCT FROM ($3, $4, $5)`
	nameLeg = `UPDATE legs SET line = n.line, party = n.party, party_name = n.party_name
 FROM (SELECT coalesce(c.line, '') AS line, coalesce(c.party, '') AS party, coalesce(c.party_name, '') AS party_name
  FROM legs l LEFT JOIN calls c ON c.catalog = l.catalog AND c.id = l.call WHERE l.catalog = $1 AND l.id = $2) n
 WHERE catalog = $1 AND id = $2 AND (legs.line, legs.party, legs.party_name) IS DISTINCT FROM (n.line, n.party, n.party_name)`
)

// rowsOf are the statements that store changes, in the order in which they may
// be told: calls before their legs, segments before their gaps.
func rowsOf(id int32, changes catalog.Changes) []row {
	var rows []row
	for _, a := range changes.Attachments {
		rows = append(rows, row{fmt.Sprintf("attachment %d", a.Num), putAttachment, []any{id, int64(a.Num), text(a.Channel), text(a.Session), text(a.User), text(a.UserName),
			text(a.Device), text(a.Profile), text(a.Mix), text(a.Copy), texts(a.Sources), text(a.Codec), text(a.Reason), micros(a.Opened), micros(a.Closed), text(a.Cause),
			text(a.Continues.Recorder), text(a.Continues.Cause), micros(a.Continues.Since)}})
	}
	for _, c := range changes.Calls {
		name := "call " + text(c.ID)
		rows = append(rows,
			row{name, putCall, []any{id, text(c.ID), text(c.Line), text(c.Direction), text(c.Kind), text(c.Party), text(c.PartyName), text(c.State),
				micros(c.Start), micros(c.End), text(c.EndCause)}},
			row{name, nameLegs, []any{id, text(c.ID), text(c.Line), text(c.Party), text(c.PartyName)}})
	}
	for _, l := range changes.Legs {
		name := "leg " + text(l.ID)
		rows = append(rows,
			row{name, putLeg, []any{id, text(l.ID), text(l.Call), text(l.Session), text(l.User), text(l.UserName), text(l.Device), text(l.Source),
				texts(l.Channels), micros(l.Start), micros(l.End), text(l.EndCause), text(l.Accuracy), text(l.Group), l.Secondary, micros(l.Interrupted)}},
			row{name, nameLeg, []any{id, text(l.ID)}},
			row{name, putAgent, []any{id, text(l.User), text(l.UserName)}})
	}
	for _, s := range changes.Segments {
		rows = append(rows, rowsOfSegment(id, s)...)
	}
	for _, b := range changes.Blind {
		rows = append(rows, row{"blind window", putBlind, []any{id, micros(b.From), b.Unwatched, micros(b.To)}})
	}
	return rows
}

func rowsOfSegment(id int32, s catalog.Segment) []row {
	name := "segment " + text(s.ID)
	rows := []row{
		{name, putSegment, []any{id, text(s.ID), int64(s.Num), text(s.Channel), text(s.Copy), micros(s.Start), micros(s.End), text(s.Codec), int64(s.SSRC), s.FirstTS,
			s.Samples, s.FirstSeq, s.LastSeq, text(s.File), s.Size, text(s.SHA256), s.Packets, s.Lost, s.Reordered, s.Duplicates, s.MaxJitter.Microseconds(), s.Sealed}},
		{name, dropGaps, []any{id, text(s.ID)}},
	}
	for _, g := range s.Gaps {
		rows = append(rows, row{name, putGap, []any{id, text(s.ID), micros(g.From), text(s.Channel), micros(g.To), text(g.Cause)}})
	}
	return rows
}

func texts[S ~string](list []S) []string {
	all := make([]string, len(list))
	for n, s := range list {
		all[n] = text(s)
	}
	return all
}
