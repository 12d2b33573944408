// Package journaltest is a recorder's journal without its sockets: what a test
// needs to feed the parts behind it.
package journaltest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"testing"
	"time"

	"tandem/recorder/journal"
)

// T is what *testing.T and *rapid.T share.
type T interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
	Errorf(string, ...any)
	Logf(string, ...any)
}

// Main is a TestMain that keeps property tests short enough to run at every
// change; -rapid.checks asks for more.
func Main(m *testing.M) {
	flag.Parse()
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "rapid.checks" })
	if !asked {
		if err := flag.Set("rapid.checks", "30"); err != nil {
			panic(err)
		}
	}
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

// Memory is a folder where syncing costs nothing.
func Memory(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "tandem")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Journal is a journal that is being written. It has one user.
type Journal struct {
	*journal.Writer

	t        T
	dir      string
	fileSize int64
	boot     int
	stop     context.CancelFunc
	ended    chan error
}

// Start writes a journal in dir, in files of the given size, until Stop.
func Start(t T, dir string, fileSize int64) *Journal {
	t.Helper()
	j := &Journal{t: t, dir: dir, fileSize: fileSize}
	j.Restart()
	return j
}

// Restart goes on after a Stop as the next boot of the recorder does.
func (j *Journal) Restart() {
	j.t.Helper()
	j.boot++
	cfg := journal.DefaultConfig()
	cfg.Boot, cfg.SyncInterval, cfg.FileSize, cfg.BlockSize, cfg.QueueSize = fmt.Sprint(j.boot), time.Hour, j.fileSize, 128<<10, 1<<20
	var err error
	if j.Writer, err = journal.Open(j.dir, cfg); err != nil {
		j.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	j.stop, j.ended = cancel, make(chan error, 1)
	go func(w *journal.Writer, ended chan<- error) { ended <- w.Run(ctx) }(j.Writer, j.ended)
}

// Stop ends the boot; everything given is written.
func (j *Journal) Stop() {
	j.t.Helper()
	j.stop()
	if err := <-j.ended; err != nil {
		j.t.Fatal(err)
	}
}

// patience is for a queue that is full to have room again.
const patience = 10 * time.Second

// Put journals notes.
func (j *Journal) Put(notes ...journal.Note) {
	j.t.Helper()
	err := journal.ErrFull
	for deadline := time.Now().Add(patience); errors.Is(err, journal.ErrFull) && time.Now().Before(deadline); {
		runtime.Gosched()
		err = j.Note(notes...)
	}
	if err != nil {
		j.t.Fatal(err)
	}
}

// Opened is a note of its own: the journal keeps what it is given.
func Opened(c journal.Channel) journal.Note { return journal.Note{Opened: &c} }

// Block is an empty block to fill and Append.
func (j *Journal) Block() *journal.Draft {
	j.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); runtime.Gosched() {
		if d := j.Draft(0); d != nil {
			return d
		}
	}
	j.t.Fatal("the journal takes no block")
	return nil
}

// Close closes the file being written.
func (j *Journal) Close() {
	j.t.Helper()
	if err := j.Rotate(context.Background()); err != nil {
		j.t.Fatal(err)
	}
}

// Settle waits until everything appended is in the file.
func (j *Journal) Settle() {
	j.t.Helper()
	for deadline := time.Now().Add(patience); j.Queue() > 0; runtime.Gosched() {
		if time.Now().After(deadline) {
			j.t.Fatal("the journal is not written")
		}
	}
}
