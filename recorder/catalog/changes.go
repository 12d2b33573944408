package catalog

import (
	"context"
	"database/sql"
	"fmt"

	"tandem/internal/call"
)

// BlindWindow is a time in which call events could not be heard.
type BlindWindow struct {
	Window
	Unwatched bool // because no director watched this recorder; else the director says so
}

// Changes are rows written since some revision, each as it is by now, with a
// segment's gaps and a leg's channels. Rows are never deleted.
type Changes struct {
	Upto        int64 // nothing up to this revision is missing
	Attachments []Attachment
	Calls       []Call
	Legs        []Leg
	Segments    []Segment
	Blind       []BlindWindow
}

// Len is how many rows they are.
func (c Changes) Len() int {
	return len(c.Attachments) + len(c.Calls) + len(c.Legs) + len(c.Segments) + len(c.Blind)
}

// revised are the tables whose rows have revisions.
var revised = [...]string{"attachments", "calls", "legs", "segments", "blind"}

// eachRevised repeats a SELECT, with the table's name in it, for every one of
// them.
func eachRevised(format string) string {
	query := ""
	for n, table := range revised {
		if n > 0 {
			query += " UNION ALL "
		}
		query += fmt.Sprintf(format, table)
	}
	return query
}

// next is a revision for a row. To be called within update alone.
func (c *Catalog) next() int64 { return c.revision.Add(1) }

// readPlace goes on where the revisions ended.
func (c *Catalog) readPlace(ctx context.Context) error {
	var last int64
	if err := c.read.QueryRowContext(ctx, `SELECT id FROM shipping`).Scan(&c.id); err != nil {
		return fmt.Errorf("read catalog's id: %w", err)
	}
	err := c.read.QueryRowContext(ctx, `SELECT coalesce(max(r), 0) FROM (`+eachRevised(`SELECT max(revision) AS r FROM %s`)+`)`).Scan(&last)
	if err != nil {
		return fmt.Errorf("read last revision: %w", err)
	}
	c.revision.Store(last)
	return nil
}

// ID names this catalog and no other: a recorder that begins anew in an empty
// directory has a new one.
func (c *Catalog) ID() string { return c.id }

// Shipped is what NoteShipped was told last; 0 before.
func (c *Catalog) Shipped(ctx context.Context) (revision int64, err error) {
	if err = c.read.QueryRowContext(ctx, `SELECT shipped FROM shipping`).Scan(&revision); err != nil {
		return 0, fmt.Errorf("read what is shipped: %w", err)
	}
	return revision, nil
}

// NoteShipped remembers that the shared catalog has every row up to a revision.
func (c *Catalog) NoteShipped(ctx context.Context, revision int64) error {
	return c.update(ctx, "note what is shipped", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE shipping SET shipped = ?`, revision)
		return err
	})
}

// CountChanges is how many rows were written since a revision.
func (c *Catalog) CountChanges(ctx context.Context, since int64) (int, error) {
	var n int
	err := c.read.QueryRowContext(ctx, `SELECT sum(n) FROM (`+eachRevised(`SELECT count(*) AS n FROM %s WHERE revision > ?1`)+`)`, since).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count changes: %w", err)
	}
	return n, nil
}

// Changes are the oldest rows written since a revision: those of so many
// revisions at most, and so hardly more rows. Without any, Upto is since.
func (c *Catalog) Changes(ctx context.Context, since int64, revisions int) (Changes, error) {
	var first, last sql.NullInt64
	err := c.read.QueryRowContext(ctx, `SELECT min(low), max(high) FROM (`+
		eachRevised(`SELECT min(revision) AS low, NULL AS high FROM %[1]s WHERE revision > ?1 UNION ALL SELECT NULL, max(revision) FROM %[1]s WHERE revision > ?1`)+`)`, since).Scan(&first, &last)
	if err != nil {
		return Changes{}, fmt.Errorf("read changes: %w", err)
	}
	if !first.Valid {
		return Changes{Upto: since}, nil
	}
	// What is committed from here on has a revision beyond last.
	found := Changes{Upto: min(first.Int64+int64(revisions)-1, last.Int64)}
	return found, c.readChanges(ctx, &found, since)
}

func (c *Catalog) readChanges(ctx context.Context, found *Changes, since int64) (err error) {
	const within = `revision > ? AND revision <= ?`
	if found.Attachments, err = rows(ctx, c.read, "read changed attachments", scanAttachment,
		`SELECT `+attachmentColumns+` FROM attachments WHERE `+within+` ORDER BY revision`, since, found.Upto); err != nil {
		return err
	}
	if found.Calls, err = rows(ctx, c.read, "read changed calls", func(r *sql.Rows) (k Call, err error) {
		err = r.Scan(&k.ID, &k.Line, &k.Direction, &k.Kind, &k.Party, &k.PartyName, &k.State, at(&k.Start), at(&k.End), &k.EndCause)
		return k, err
	}, `SELECT `+callColumns+` FROM calls WHERE `+within+` ORDER BY revision`, since, found.Upto); err != nil {
		return err
	}
	if found.Legs, err = rows(ctx, c.read, "read changed legs", func(r *sql.Rows) (l Leg, err error) {
		err = r.Scan(l.fields()...)
		return l, err
	}, `SELECT `+legColumns+` FROM legs WHERE `+within+` ORDER BY revision`, since, found.Upto); err != nil {
		return err
	}
	if found.Segments, err = c.segments(ctx, within, since, found.Upto); err != nil {
		return err
	}
	found.Blind, err = rows(ctx, c.read, "read changed blind windows", func(r *sql.Rows) (w BlindWindow, err error) {
		err = r.Scan(at(&w.From), at(&w.To), &w.Unwatched)
		return w, err
	}, `SELECT from_us, to_us, unwatched FROM blind WHERE `+within+` ORDER BY revision`, since, found.Upto)
	return err
}

// legsChanged are the legs whose record is another one since a revision: the
// leg itself was written, or its call, or media of its channels in its time.
const legsChanged = `SELECT id FROM legs WHERE revision > ?
 UNION SELECT l.id FROM calls JOIN legs l ON l.call = calls.id WHERE calls.revision > ?
 UNION SELECT l.id FROM segments s JOIN leg_channels k ON k.channel = s.channel JOIN legs l ON l.id = k.leg
  WHERE s.revision > ? AND l.start_us < s.end_us AND (l.end_us IS NULL OR l.end_us > s.start_us)`

// SearchChanged is Search among the records that are others since a revision.
// It also returns the legs of all of those, found or not: what was known of
// them by then is out of date. Both tell of one instant.
func (c *Catalog) SearchChanged(ctx context.Context, q Query, since int64) (records []Record, more bool, changed []call.LegID, err error) {
	tx, err := c.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, false, nil, fmt.Errorf("search changed calls: %w", err)
	}
	defer tx.Rollback()
	changed, err = rows(ctx, tx, "read changed legs", func(r *sql.Rows) (id call.LegID, err error) {
		err = r.Scan(&id)
		return id, err
	}, legsChanged, since, since, since)
	if err != nil {
		return nil, false, nil, err
	}
	q.since = since
	records, more, err = search(ctx, tx, q)
	return records, more, changed, err
}
