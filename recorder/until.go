package recorder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// untilFile is an empty file whose time says up to when everything that arrived
// is in the journal. The journal's own time is that of its last block, and on a
// silent floor that may be long ago.
const untilFile = "recorded_until"

// noteUntil says so to the next process. It outlives this one; a power cut may
// take it back by some seconds.
func noteUntil(dir string, until time.Time) error {
	path := filepath.Join(dir, untilFile)
	err := os.Chtimes(path, until, until)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.WriteFile(path, nil, 0o640); err == nil {
			err = os.Chtimes(path, until, until)
		}
	}
	if err != nil {
		return fmt.Errorf("note up to when is recorded: %w", err)
	}
	return nil
}

// recordedUntil is what the process before has noted, less what a power cut may
// have taken from the journal and not from the note; zero: nothing, or nothing
// that can be, because the clock was set back meanwhile.
func recordedUntil(dir string, now time.Time, unsynced time.Duration) (time.Time, error) {
	info, err := os.Stat(filepath.Join(dir, untilFile))
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read up to when is recorded: %w", err)
	}
	if info.ModTime().After(now) {
		return time.Time{}, nil
	}
	return info.ModTime().Add(-unsynced), nil
}
