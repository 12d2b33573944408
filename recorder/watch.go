package recorder

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"tandem/recorder/catalog"
)

// watch counts the directors that listen to this recorder. While there is
// none, calls go unannounced, and the catalog is told to keep everything.
type watch struct {
	catalog *catalog.Catalog

	mu        sync.Mutex
	directors int
	ended     bool
}

// begin is said once, before the first director can come.
func (w *watch) begin(ctx context.Context, now time.Time) error { return w.catalog.Unwatched(ctx, now) }

// end is said before the catalog closes. The next begin knows since when
// nobody watches.
func (w *watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
}

// join is said when a director begins to listen. The returned function is to
// be called when it ends.
func (w *watch) join(director string) (leave func()) {
	w.change(+1, func(ctx context.Context) error { return w.catalog.Watched(ctx, time.Now()) })
	slog.Info("director watches", "director", director)
	return func() {
		slog.Info("director gone", "director", director)
		w.change(-1, func(ctx context.Context) error { return w.catalog.Unwatched(ctx, time.Now()) })
	}
}

// change counts and, when there was or now is nobody, says so. It does not
// hang on the caller's context, which may have ended: that is why it leaves.
func (w *watch) change(by int, say func(context.Context) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.directors
	w.directors += by
	if w.ended || before != 0 && w.directors != 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := say(ctx); err != nil {
		slog.Error("unwatched time not noted", "err", err)
	}
}
