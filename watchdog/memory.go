package watchdog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"tandem/internal/durable"
)

// memory is what a watchdog must not forget when it starts again, or a host that
// falters would get control back as if for the first time, every time: it takes
// its watchdog along. Nothing but failback depends on it.
type memory struct {
	Penalty    float64   `json:"penalty"`
	At         time.Time `json:"at"` // of Penalty
	Suppressed bool      `json:"suppressed"`
	Flaps      int       `json:"flaps"`
	InCharge   bool      `json:"in_charge"` // the local director is, or lost that without giving it back
	Long       bool      `json:"long"`      // for longer than what counts as a flap
}

// memory is what the view is to be remembered by. It changes a few times in each
// time that the local director is in charge.
func (v View) memory(now time.Time) memory {
	d := v.Damper
	m := memory{Penalty: d.penalty, At: d.at.UTC().Round(0), Suppressed: d.suppressed, Flaps: d.flaps}
	lasted := v.led.lasted
	if !v.led.since.IsZero() {
		lasted = now.Sub(v.led.since)
	}
	if m.InCharge = v.led.lost || !v.led.since.IsZero(); m.InCharge {
		m.Long = lasted >= d.hold(v.Rules.FailbackHold)
	}
	return m
}

// recalling is the view of a watchdog that starts with what it remembers. A
// director that was in charge, and is not when it is heard again, has lost that
// meanwhile. A clock that was set back makes nothing of what was last longer.
func (v View) recalling(m memory, now time.Time) View {
	v.Damper = damper{penalty: min(max(0, m.Penalty), hoursPenalty), at: m.At, suppressed: m.Suppressed, flaps: min(max(0, m.Flaps), maxFlaps)}
	if v.Damper.at.After(now) {
		v.Damper.at = now
	}
	if v.led.lost = m.InCharge; m.Long {
		v.led.lasted = v.Damper.hold(v.Rules.FailbackHold)
	}
	return v
}

// readMemory reads what was kept; nothing is kept where no file is.
func readMemory(path string) (m memory, err error) {
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return m, nil
	case err != nil:
		return m, fmt.Errorf("read memory: %w", err)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return memory{}, fmt.Errorf("read memory %s: %w", path, err)
	}
	return m, nil
}

// remember makes a watchdog one that starts with what is in a file, and keeps it
// there. What cannot be read is not worth a watchdog that does not start.
func (w *watch) remember(path string, now time.Time) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		w.log.Warn("takeovers are remembered only until this watchdog ends", "err", err)
	}
	m, err := readMemory(path)
	if err != nil {
		w.log.Warn("earlier takeovers are forgotten", "err", err)
	}
	w.path, w.kept = path, m
	w.view = w.view.recalling(m, now)
}

// note hands what has changed to keep, which has room for the newest.
func (w *watch) note(now time.Time) {
	m := w.view.memory(now)
	if w.path == "" || m == w.kept {
		return
	}
	w.kept = m
	select {
	case <-w.notes: // an older one, not written yet
	default:
	}
	w.notes <- m
}

// keep writes what is to be remembered until ctx ends, and then what is left. The
// loop never waits for a disk.
func (w *watch) keep(ctx context.Context) error {
	for {
		select {
		case m := <-w.notes:
			w.write(m)
		case <-ctx.Done():
			select {
			case m := <-w.notes:
				w.write(m)
			default:
			}
			return nil
		}
	}
}

func (w *watch) write(m memory) {
	text, err := json.Marshal(m)
	if err == nil {
		err = durable.WriteFile(w.path, text, 0o600)
	}
	if err != nil {
		w.log.Warn("takeovers are remembered only until this watchdog ends", "err", err)
	}
}
