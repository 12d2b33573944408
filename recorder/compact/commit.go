package compact

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"tandem/internal/durable"
	"tandem/recorder/catalog"
	"tandem/recorder/journal"
	"tandem/recorder/rtpstream"
	"tandem/recorder/segment"
)

// sealBudget is how long one commit may spend on sealing, which reads whole
// files back: at the end of a slot thousands are over at the same time.
const sealBudget = 2 * time.Second

// commit makes everything compacted so far durable and removes the journal
// files it came from.
func (c *Compactor) commit(ctx context.Context) error {
	if err := c.hear(ctx); err != nil {
		return err
	}
	if err := c.flush(); err != nil {
		return err
	}
	if err := c.crash("flushed"); err != nil {
		return err
	}
	sealed, err := c.seal()
	if err != nil {
		return err
	}
	if err := segment.Sync(c.cfg.Media); err != nil {
		return err
	}
	if err := c.crash("synced"); err != nil {
		return err
	}
	c.state.Sealing = c.state.Sealing[sealed:]
	saved, err := c.save()
	if err != nil {
		return err
	}
	if err := c.cat.Commit(ctx, catalog.Compaction{Segments: c.rows, Heard: c.heard, Number: c.done, State: saved}); err != nil {
		return err
	}
	c.number, c.rows, c.heard = c.done, nil, nil
	c.sum.Sealed += sealed
	if err := c.crash("committed"); err != nil {
		return err
	}
	return c.remove()
}

// hear gives a file to packets that wait for a second one: the journal that
// holds them is about to go.
func (c *Compactor) hear(ctx context.Context) error {
	for _, ch := range c.state.Channels {
		if err := c.put(ch, func() ([]rtpstream.Placed, []*rtpstream.Run) { return ch.Stream.Hear(c.state.Last) }); err != nil {
			return err
		}
	}
	return c.explain(ctx)
}

// flush writes what segments have gathered and adds the rows of those that
// changed.
func (c *Compactor) flush() error {
	for _, ch := range c.state.Channels {
		for _, t := range ch.Tracks {
			t.locate()
			moved := t.run.Arrival != t.saved // then the state in its open segments is old
			t.saved = t.run.Arrival
			var run []byte
			for _, r := range t.Regions {
				s := r.Seg
				if s == nil {
					continue
				}
				if !s.dirty && !moved {
					s.w.Release()
					continue
				}
				if err := s.w.Flush(); err != nil {
					return err
				}
				if run == nil {
					var err error
					if run, err = json.Marshal(t.run); err != nil {
						return err
					}
				}
				s.Row.Gaps, s.Row.Size, s.Row.State, s.dirty = s.gaps(), segment.Size(s.Row.Samples), nil, false
				row := s.Row
				row.State, row.Holes = run, s.holes()
				c.rows = append(c.rows, row)
			}
		}
	}
	return nil
}

// seal makes segments final, as many as the budget allows, one at least, and
// adds their rows. The others are flushed. It returns how many were sealed.
func (c *Compactor) seal() (int, error) {
	sealed, began := 0, time.Now()
	for _, s := range c.state.Sealing {
		if time.Since(began) < sealBudget {
			sum, err := s.w.Seal()
			if err != nil {
				return 0, err
			}
			s.Row.Size, s.Row.SHA256, s.Row.Sealed = sum.Size, sum.SHA256, true
			sealed++
		} else if !s.dirty {
			break // it and those behind it waited before
		} else if err := s.w.Flush(); err != nil {
			return 0, err
		}
		s.w.Release()
		s.Row.Gaps, s.Row.Size, s.dirty = s.gaps(), segment.Size(s.Row.Samples), false
		c.rows = append(c.rows, s.Row)
	}
	return sealed, nil
}

// remove removes compacted journal files.
func (c *Compactor) remove() error {
	files, err := journal.Files(c.cfg.Journal)
	if err != nil {
		return err
	}
	removed := false
	for _, f := range files {
		if f.Number > c.number {
			break
		}
		if err := os.Remove(f.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove journal file: %w", err)
		}
		removed = true
	}
	if !removed {
		return nil
	}
	return durable.SyncDir(c.cfg.Journal)
}

func (c *Compactor) save() ([]byte, error) {
	for _, ch := range c.state.Channels { // stored tracks are found again by their place
		slices.SortFunc(ch.Tracks, func(a, b *track) int {
			return slices.Index(ch.Stream.Runs, a.run) - slices.Index(ch.Stream.Runs, b.run)
		})
	}
	text, err := json.Marshal(&c.state)
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	return text, nil
}

// load takes up the work where the last commit left it.
func (c *Compactor) load(ctx context.Context, files []journal.File) error {
	if err := os.MkdirAll(c.cfg.Media, 0o750); err != nil {
		return fmt.Errorf("make media folder: %w", err)
	}
	number, saved, err := c.cat.Compacted(ctx)
	if err != nil {
		return err
	}
	c.number, c.done, c.state, c.rows, c.absent, c.heard = number, number, state{}, nil, nil, nil
	if len(saved) > 0 {
		if err := json.Unmarshal(saved, &c.state); err != nil {
			return fmt.Errorf("decode state: %w", err)
		}
	}
	c.channels = make(map[uint32]*channel, len(c.state.Channels))
	for _, ch := range c.state.Channels {
		c.channels[ch.Channel.Num] = ch
		for i, t := range ch.Tracks {
			t.run = ch.Stream.Runs[i]
			for _, r := range t.Regions {
				if r.Seg != nil && !c.resume(r.Seg, t.run) {
					r.Seg = nil
				}
			}
		}
	}
	c.state.Sealing = slices.DeleteFunc(c.state.Sealing, func(s *piece) bool { return !c.resume(s, nil) })
	if err := c.removeOrphans(ctx, files); err != nil {
		return err
	}
	if err := c.remove(); err != nil {
		return err
	}
	c.loaded = true
	return nil
}

// resume opens a stored segment again. One whose file is gone or cut short is
// given up: its row stays, sealed without a hash, for verification to find.
func (c *Compactor) resume(s *piece, run *rtpstream.Run) bool {
	w, err := segment.Resume(c.mediaPath(s.Row.File), s.Row.Codec, s.Row.Samples)
	if err != nil {
		slog.Error("segment is damaged, going on in another", "segment", s.Row.ID, "channel", s.Row.Channel, "err", err)
		row := s.Row
		row.Sealed = true
		c.rows = append(c.rows, row)
		return false
	}
	s.w, s.run = w, run
	return true
}

// removeOrphans removes files that were begun and never committed. What they
// held is still in the journal.
func (c *Compactor) removeOrphans(ctx context.Context, files []journal.File) error {
	files = slices.DeleteFunc(slices.Clone(files), func(f journal.File) bool { return f.Number <= c.number })
	if len(files) == 0 {
		return nil
	}
	s, err := started(files[0])
	if err != nil {
		return nil // what it made cannot be told from evidence
	}
	since := s.At.Add(-time.Minute)
	if last := c.state.Last; last > 0 && last.Time().Before(since) {
		since = last.Time().Add(-time.Minute)
	}
	known, err := c.cat.Segments(ctx, "", catalog.Window{From: since.Add(-2 * time.Hour)})
	if err != nil {
		return err
	}
	named := make(map[string]bool, len(known))
	for _, k := range known {
		named[k.File] = true
	}
	oldest := segment.Folder(since)
	return filepath.WalkDir(c.cfg.Media, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(c.cfg.Media, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if n := min(len(rel), len(oldest)); rel != "." && rel < oldest[:n] {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(rel) != ".wav" || named[rel] {
			return nil
		}
		if info, err := d.Info(); err != nil || info.ModTime().Before(since) {
			return err
		}
		slog.Info("removing a segment that was not committed", "file", rel)
		return os.Remove(p)
	})
}
