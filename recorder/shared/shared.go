// Package shared is the catalog that several recorders have in common: a
// PostgreSQL database that each of them ships its own catalog to, and that any
// of them searches for all.
//
// A row belongs to the catalog it is from, and only that one's recorder writes
// it. What a recorder knows is in its own catalog first; nothing here is needed
// to record.
package shared

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var migrations embed.FS

// dialTimeout is for one address of the database.
const dialTimeout = 5 * time.Second

// Config says where the database is, and who asks for it.
type Config struct {
	URL          string // "postgres://USER@HOST/DATABASE?..." without a password
	PasswordFile string // "": what libpq would take, from PGPASSFILE or ~/.pgpass
	Name         string // what the database's administrator sees
}

// Check says what is wrong with the URL; it reaches for nothing but the files
// that it names.
func (c Config) Check() error {
	u, err := url.Parse(c.URL)
	if err != nil {
		return errors.New("want postgres://USER@HOST/DATABASE") // err would show a password
	}
	if u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return fmt.Errorf("scheme %q: want postgres://USER@HOST/DATABASE", u.Scheme)
	}
	if _, has := u.User.Password(); has || u.Query().Has("password") {
		return errors.New("a password stands in it: want it in password_file, or in the file that PGPASSFILE names")
	}
	_, err = pgx.ParseConfig(c.URL)
	return err
}

// Exposed says that the connection leaves this machine and that nothing proves
// who is at its other end: whoever is between can read and change it.
func (c Config) Exposed() bool {
	parsed, err := pgx.ParseConfig(c.URL)
	if err != nil {
		return false
	}
	verified := parsed.TLSConfig != nil && (!parsed.TLSConfig.InsecureSkipVerify || parsed.TLSConfig.VerifyPeerCertificate != nil)
	address, err := netip.ParseAddr(parsed.Host)
	local := strings.HasPrefix(parsed.Host, "/") || parsed.Host == "localhost" || err == nil && address.IsLoopback()
	return !verified && !local
}

// connection is read anew for each connection: a password may change while a
// recorder runs.
func (c Config) connection() (*pgx.ConnConfig, error) {
	parsed, err := pgx.ParseConfig(c.URL)
	if err != nil {
		return nil, fmt.Errorf("read address of the shared catalog: %w", err)
	}
	return parsed, c.complete(parsed)
}

func (c Config) complete(parsed *pgx.ConnConfig) error {
	parsed.ConnectTimeout = dialTimeout
	parsed.RuntimeParams["application_name"] = c.Name
	if c.PasswordFile == "" {
		return nil
	}
	var err error
	parsed.Password, err = c.password()
	return err
}

// Readable says why a connection would not get its password.
func (c Config) Readable() error {
	if c.PasswordFile == "" {
		return nil
	}
	_, err := c.password()
	return err
}

func (c Config) password() (string, error) {
	text, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("read password of the shared catalog: %w", err)
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}

// migrate brings the schema up to date. Recorders that start together take
// turns; one that is older than the schema leaves it as it is.
func (c Config) migrate(ctx context.Context) error {
	parsed, err := c.connection()
	if err != nil {
		return err
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	const period, times = 1, 300 // seconds between two attempts, which are 5 unless one says so
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(period, times))
	if err != nil {
		return err
	}
	db := stdlib.OpenDB(*parsed)
	defer db.Close()
	if err := db.PingContext(ctx); err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(locker))
	if err != nil {
		return err
	}
	if _, err = provider.Up(ctx); err != nil {
		return fmt.Errorf("bring the schema of the shared catalog up to date: %w", err)
	}
	return nil
}

// micros is a time as the database keeps it: microseconds, or NULL when zero.
func micros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

// instant is the inverse of micros.
func instant(us *int64) time.Time {
	if us == nil {
		return time.Time{}
	}
	return time.UnixMicro(*us).UTC()
}

// text is a string as PostgreSQL takes it: UTF-8 without U+0000. SQLite takes
// any bytes, and a switch may send them.
func text[S ~string](s S) string {
	return strings.ReplaceAll(strings.ToValidUTF8(string(s), "\uFFFD"), "\x00", "\uFFFD")
}
