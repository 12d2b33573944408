package recorder

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/durable"
)

// fence is why two directors can never both be obeyed: it remembers the
// newest epoch it has seen, across restarts, and refuses everything older.
// Safe for concurrent use.
type fence struct {
	group string
	path  string

	mu  sync.Mutex                // held while an order is carried out
	now atomic.Pointer[authority] // never nil; read without waiting for an order in progress
}

// authority is what the fence keeps on disk.
type authority struct {
	Epoch    uint64 `json:"epoch"`
	Holder   string `json:"holder"`
	Draining bool   `json:"draining,omitempty"` // nothing new is taken until a director says otherwise
}

// openFence reads what the recorder promised before it stopped.
func openFence(group, path string) (*fence, error) {
	f := &fence{group: group, path: path}
	f.now.Store(&authority{})
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f, nil
	case err != nil:
		return nil, fmt.Errorf("read authority: %w", err)
	}
	var kept authority
	if err := json.Unmarshal(text, &kept); err != nil {
		return nil, fmt.Errorf("read authority %s: %w", path, err)
	}
	f.now.Store(&kept)
	return f, nil
}

// judge decides on an order without side effects: nil means obey.
func judge(group string, seen authority, order *tandemv1.Order) *tandemv1.Refusal {
	refusal := &tandemv1.Refusal{Epoch: seen.Epoch, Holder: seen.Holder}
	switch {
	case order.GetGroup() != group:
		refusal.Reason = tandemv1.Refusal_REASON_WRONG_GROUP
	case order.GetEpoch() == 0 || order.GetEpoch() < seen.Epoch:
		refusal.Reason = tandemv1.Refusal_REASON_STALE_EPOCH
	case order.GetEpoch() == seen.Epoch && order.GetDirector() != seen.Holder:
		refusal.Reason = tandemv1.Refusal_REASON_WRONG_HOLDER
	default:
		return nil
	}
	return refusal
}

// obey runs act if the order may be obeyed, and keeps every other order out
// until act returns: a command of an older epoch never ends after one of a
// newer began. A newer epoch is on disk before act runs.
func (f *fence) obey(order *tandemv1.Order, act func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if refusal := judge(f.group, f.seen(), order); refusal != nil {
		return f.refuse(order, refusal)
	}
	next := f.seen()
	next.Epoch, next.Holder = order.GetEpoch(), order.GetDirector()
	if err := f.keep(next); err != nil {
		return unavailable(err)
	}
	return act()
}

// drain remembers that nothing new is to be taken, or that it is again. It is
// for an order being obeyed.
func (f *fence) drain(draining bool) error {
	next := f.seen()
	next.Draining = draining
	return f.keep(next)
}

// keep puts next on disk, and then in force. The caller holds mu.
func (f *fence) keep(next authority) error {
	if next == f.seen() {
		return nil
	}
	text, err := json.Marshal(next)
	if err == nil {
		err = durable.WriteFile(f.path, append(text, '\n'), 0o640)
	}
	if err != nil {
		return fmt.Errorf("keep authority: %w", err)
	}
	f.now.Store(&next)
	return nil
}

// seen is the newest epoch and who holds it. It never waits: heartbeats carry
// it, and must not stop for a slow disk.
func (f *fence) seen() authority { return *f.now.Load() }

func (f *fence) refuse(order *tandemv1.Order, refusal *tandemv1.Refusal) error {
	var text string
	switch refusal.Reason {
	case tandemv1.Refusal_REASON_WRONG_GROUP:
		text = fmt.Sprintf("wrong group: this recorder serves %q, director %q leads %q", f.group, order.GetDirector(), order.GetGroup())
	case tandemv1.Refusal_REASON_WRONG_HOLDER:
		text = fmt.Sprintf("epoch %d belongs to director %q, not to %q", refusal.Epoch, refusal.Holder, order.GetDirector())
	default:
		text = fmt.Sprintf("stale epoch %d: director %q holds epoch %d", order.GetEpoch(), refusal.Holder, refusal.Epoch)
	}
	err := connect.NewError(connect.CodeFailedPrecondition, errors.New(text))
	if detail, derr := connect.NewErrorDetail(refusal); derr == nil {
		err.AddDetail(detail)
	}
	return err
}
