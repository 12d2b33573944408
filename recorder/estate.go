package recorder

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"tandem/internal/daemon"
)

// Names of what a recorder keeps beside its sockets.
const (
	keptBlocks    = "blocks"    // on their way to the journal
	keptReceivers = "receivers" // on their way to blocks
)

// estate is what a recorder leaves to the next one of its unit, and what it
// was left itself. Where nobody keeps anything it is empty.
type estate struct {
	store  *daemon.Store
	handed []daemon.Descriptor
}

// openEstate takes what was handed over; whatever befalls this process before
// it is used, the store still has it.
func openEstate() (*estate, error) {
	handed := daemon.Handed()
	store, err := daemon.OpenStore(handed)
	if err != nil {
		return nil, err
	}
	return &estate{store: store, handed: handed}, nil
}

// memory is the file without a disk of that name, as it was left or new; nil
// where it would end with the process.
func (e *estate) memory(name string) (*os.File, error) {
	if e.store == nil {
		return nil, nil
	}
	for i, d := range e.handed {
		if d.Name == name {
			e.handed = append(e.handed[:i], e.handed[i+1:]...)
			return os.NewFile(uintptr(d.FD), name), nil
		}
	}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make memory for %s: %w", name, err)
	}
	e.store.Keep(name, fd)
	return os.NewFile(uintptr(fd), name), nil
}

// share gives what is left to its heir, which says whether it takes it; what
// nobody takes is closed.
func (e *estate) share(heir func(name string, fd int) bool) {
	for _, d := range e.handed {
		if heir(d.Name, d.FD) {
			continue
		}
		slog.Warn("handed over and of no use", "name", d.Name)
		unix.Close(d.FD)
		e.store.Forget(d.Name)
	}
	e.handed = nil
}

const (
	// startStep is how long one step of a start may take before systemd gives
	// it up: a migration of a large catalog takes minutes.
	startStep = 5 * time.Minute
	// standstill is how long a loop of the recorder may not get on before it
	// counts as stuck. All of them get on many times a second.
	standstill = 2 * time.Second
)

// loops are those whose end would be the end of recording.
func (r *recorder) loops() []daemon.Loop {
	began := time.Now()
	return []daemon.Loop{
		{Name: "sweep", Alive: func(context.Context) error {
			p := r.intake.Pulse()
			if !p.Running {
				return fmt.Errorf("has not begun for %v", time.Since(began).Round(time.Millisecond))
			}
			return stands(p.Unswept)
		}},
		{Name: "journal", Alive: func(context.Context) error { return stands(r.journal.Stands()) }},
		{Name: "control", Alive: func(context.Context) error {
			latest, _ := r.reporter.last()
			return stands(time.Since(latest.at))
		}},
	}
}

func stands(still time.Duration) error {
	if still > standstill {
		return fmt.Errorf("stands still for %v", still.Round(time.Millisecond))
	}
	return nil
}

// status is the recorder in a sentence.
func (r *recorder) status(context.Context) string {
	sentence := fmt.Sprintf("%d channels, %.0f packets/s", r.attachments.count(), r.reporter.measured().rate)
	if ready, reason := r.reporter.ready(); !ready {
		sentence += ", takes no more: " + reason
	}
	return sentence
}
