package recorder

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"tandem/internal/durable"
)

// drain remembers, through a restart, whether anything new is to be taken.
// Changes come one at a time, from within the fence; reading is safe at any
// time, and waits for no disk.
type drain struct {
	path string
	on   atomic.Bool
}

// drainFile is the file.
type drainFile struct {
	Draining bool `json:"draining"`
}

// openDrain reads what a director said last. Recorders before this one kept it
// beside their epoch, in authority.json, where it is lost with the next epoch:
// it is taken from there once.
func openDrain(dir string) (*drain, error) {
	d := &drain{path: filepath.Join(dir, "drain.json")}
	kept, err := readDrain(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		if kept, err = readDrain(filepath.Join(dir, authorityFile)); err == nil && kept.Draining {
			return d, d.set(true)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	d.on.Store(kept.Draining)
	return d, nil
}

func readDrain(path string) (kept drainFile, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return kept, fmt.Errorf("read drain: %w", err)
	}
	if err := json.Unmarshal(text, &kept); err != nil {
		return kept, fmt.Errorf("read drain %s: %w", path, err)
	}
	return kept, nil
}

// set puts it on disk, and then in force.
func (d *drain) set(on bool) error {
	if d.on.Load() == on {
		return nil
	}
	text, err := json.Marshal(drainFile{Draining: on})
	if err == nil {
		err = durable.WriteFile(d.path, append(text, '\n'), 0o640)
	}
	if err != nil {
		return fmt.Errorf("keep drain: %w", err)
	}
	d.on.Store(on)
	return nil
}
