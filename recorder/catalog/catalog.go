// Package catalog is the recorder's own record of what it holds: attachments,
// calls, legs, segments and gaps, in one SQLite file.
//
// Writes go through one connection and are on disk when the method returns
// (WAL, synchronous=FULL); reads use others and never wait for a writer. All
// methods are safe for concurrent use.
package catalog

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver named "sqlite"
)

//go:embed migrations/*.sql
var migrations embed.FS

// ErrNotFound is an id that the catalog does not hold.
var ErrNotFound = errors.New("not found")

// Catalog is an open catalog.
type Catalog struct {
	id       string
	write    *sql.DB // one connection
	read     *sql.DB
	revision atomic.Int64 // the last one given to a row; only writers count on
}

// Open opens or creates the catalog at path and brings its schema up to date.
func Open(ctx context.Context, path string) (*Catalog, error) {
	dsn := func(extra string) string {
		return "file:" + (&url.URL{Path: path}).EscapedPath() +
			"?_pragma=busy_timeout(5000)&_pragma=foreign_keys(0)" + extra
	}
	write, err := sql.Open("sqlite", dsn("&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate"))
	if err != nil {
		return nil, fmt.Errorf("open catalog: %w", err)
	}
	write.SetMaxOpenConns(1)
	c := &Catalog{write: write}
	if err := c.migrate(ctx); err != nil {
		write.Close()
		return nil, fmt.Errorf("open catalog %s: %w", path, err)
	}
	if c.read, err = sql.Open("sqlite", dsn("&_pragma=query_only(1)")); err != nil {
		write.Close()
		return nil, fmt.Errorf("open catalog: %w", err)
	}
	c.read.SetMaxOpenConns(4)
	if err := c.readPlace(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("open catalog %s: %w", path, err)
	}
	return c, nil
}

func (c *Catalog) migrate(ctx context.Context) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, c.write, files)
	if err != nil {
		return err
	}
	_, err = provider.Up(ctx)
	return err
}

// Close ends all use of the catalog.
func (c *Catalog) Close() error { return errors.Join(c.read.Close(), c.write.Close()) }

// update runs f in one write transaction. There is one at a time, so that rows
// are seen in the order of their revisions.
func (c *Catalog) update(ctx context.Context, what string, f func(*sql.Tx) error) error {
	tx, err := c.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer tx.Rollback() // after a commit it does nothing
	if err := f(tx); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// each runs f for every item with one prepared statement.
func each[T any](ctx context.Context, tx *sql.Tx, query string, items []T, args func(T) []any) error {
	if len(items) == 0 {
		return nil
	}
	stmt, err := tx.PrepareContext(ctx, query)
	if err != nil {
		return err
	}
	defer stmt.Close()
	for _, item := range items {
		if _, err := stmt.ExecContext(ctx, args(item)...); err != nil {
			return err
		}
	}
	return nil
}

// reader is the database, or a transaction that sees one state of it.
type reader interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// rows runs a query and collects what scan makes of each row.
func rows[T any](ctx context.Context, db reader, what string, scan func(*sql.Rows) (T, error), query string, args ...any) ([]T, error) {
	result, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer result.Close()
	var all []T
	for result.Next() {
		item, err := scan(result)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		all = append(all, item)
	}
	if err := result.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return all, nil
}

// Window is the interval [From, To); a zero To means it has not ended.
type Window struct{ From, To time.Time }

// instant is a time as the catalog keeps it: microseconds, or NULL when zero.
type instant time.Time

func micros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

// Scan implements sql.Scanner.
func (i *instant) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*i = instant{}
	case int64:
		*i = instant(time.UnixMicro(v).UTC())
	default:
		return fmt.Errorf("instant from %T", v)
	}
	return nil
}

// at scans into t.
func at(t *time.Time) *instant { return (*instant)(t) }

// list scans a JSON list of strings.
type list []string

// Scan implements sql.Scanner.
func (l *list) Scan(v any) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("list from %T", v)
	}
	return json.Unmarshal([]byte(s), (*[]string)(l))
}

func listText(items []string) string {
	if len(items) == 0 {
		return "[]"
	}
	text, _ := json.Marshal(items) // strings always marshal
	return string(text)
}
