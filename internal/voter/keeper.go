// Package voter keeps one voter's word, through any crash.
//
// A voter's word is the epoch it granted or obeyed last, and to whom: that is
// on disk before anyone is told, and never goes back. The lease itself is kept
// in memory alone; a voter that starts counts it as just renewed.
package voter

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"tandem/internal/authority"
	"tandem/internal/durable"
	"tandem/internal/pair"
)

// Config is what a voter knows from its start on.
type Config struct {
	Name    string                   // what ballots call it
	Group   string                   // whose directors it answers
	Path    string                   // of the file that it keeps; the directory is there
	Profile string                   // of timing, a key of pair.Profiles
	Boot    string                   // names this run of the process
	Clock   func() authority.Instant // safe for concurrent use, never goes back
	Log     *slog.Logger
}

// Keeper is a voter, and the fence of the recorder that it belongs to. Safe
// for concurrent use.
type Keeper struct {
	cfg    Config
	timing authority.Timing
	write  func(path string, content []byte, mode os.FileMode) error
	ear    ear

	strangers strangers

	// turn is an order's while it is carried out; change is whoever's that
	// changes the state, while its epoch is written. Neither is a mutex, so
	// that a caller that has given up stops waiting for a disk. A lease needs
	// only change: no order, however slow, keeps it from being renewed.
	turn, change *semaphore.Weighted
	now          atomic.Pointer[state] // never nil; read without waiting for anything
	impostor     claim                 // the last one logged; belongs to who has change
	obeys        obedience             // belongs to who has turn
}

// state is a voter and the name that belongs to its epoch. It is replaced,
// never changed.
type state struct {
	authority.Voter
	holder string
}

// claim is an epoch and who says it is theirs.
type claim struct {
	epoch    authority.Epoch
	director string
}

// kept is the file.
type kept struct {
	Epoch  authority.Epoch `json:"epoch"`
	Holder string          `json:"holder"`
}

// Open reads what the voter promised before it stopped, and holds it to that.
func Open(cfg Config) (*Keeper, error) {
	timing, known := pair.Profiles[cfg.Profile]
	if !known {
		return nil, fmt.Errorf("open voter %s: no profile %q", cfg.Name, cfg.Profile)
	}
	word, err := read(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("open voter %s: %w", cfg.Name, err)
	}
	k := &Keeper{cfg: cfg, timing: timing, write: durable.WriteFile, turn: semaphore.NewWeighted(1), change: semaphore.NewWeighted(1)}
	k.now.Store(&state{authority.StartVoter(timing, word.Epoch, nonceBase(), cfg.Clock()), word.Holder})
	return k, nil
}

func read(path string) (kept, error) {
	var word kept
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return word, nil
	case err != nil:
		return word, fmt.Errorf("read authority: %w", err)
	}
	if err := json.Unmarshal(text, &word); err != nil {
		return word, fmt.Errorf("read authority %s: %w", path, err)
	}
	return word, nil
}

// nonceBase is where this run's nonces begin: nowhere near those of another
// run, above zero, and so far from the end that they never get there.
func nonceBase() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return binary.BigEndian.Uint64(b[:])>>1 | 1<<62
}

// alter replaces the state by what decide makes of it. A new epoch is on disk
// before it is in force; if it cannot be written nothing has changed, and the
// error says so. decide is called once at most, and alone.
func (k *Keeper) alter(ctx context.Context, decide func(state, authority.Instant) state) error {
	if err := k.change.Acquire(ctx, 1); err != nil {
		return err
	}
	defer k.change.Release(1)
	was := *k.now.Load()
	next := decide(was, k.cfg.Clock())
	if next.Epoch != was.Epoch {
		if err := k.keep(next); err != nil {
			return unavailable(err)
		}
		k.cfg.Log.Info("follows another epoch", "voter", k.cfg.Name, "epoch", next.Epoch, "director", next.holder, "was", was.Epoch, "of", was.holder)
	}
	k.now.Store(&next)
	return nil
}

func (k *Keeper) keep(s state) error {
	text, err := json.Marshal(kept{s.Epoch, s.holder})
	if err == nil {
		err = k.write(k.cfg.Path, append(text, '\n'), 0o640)
	}
	if err != nil {
		return fmt.Errorf("keep epoch %d: %w", s.Epoch, err)
	}
	return nil
}

// Seen is the newest epoch and the director it belongs to. It never waits.
func (k *Keeper) Seen() (authority.Epoch, string) {
	s := k.now.Load()
	return s.Epoch, s.holder
}

// Nonce is what an order or a lease that is sent now has to repeat. It never
// waits: heartbeats carry it, and must not stop for a slow disk.
func (k *Keeper) Nonce() uint64 { return k.now.Load().Nonce(k.timing, k.cfg.Clock()) }

// usurped reports whether a director claims what is another's by name, though
// the protocol cannot tell them apart: the same epoch, or the same side of the
// pair while the other's lease is live. Both are configured as the preferred
// one, or both as the other one.
func (s state) usurped(epoch authority.Epoch, director string, now authority.Instant) bool {
	if director == s.holder || s.Epoch == 0 {
		return false
	}
	return epoch == s.Epoch || epoch > s.Epoch && epoch.Side() == s.Epoch.Side() && s.Live(now)
}

// accuse logs a director that claims what is another's, once for each epoch.
func (k *Keeper) accuse(s state, epoch authority.Epoch, director string) {
	if c := (claim{epoch, director}); c != k.impostor {
		k.impostor = c
		k.cfg.Log.Error("two directors claim to be the same one of the pair: is preferred set in exactly one configuration?",
			"voter", k.cfg.Name, "epoch", epoch, "director", director, "holder", s.holder)
	}
}
