package voter

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/authority"
	"tandem/internal/bubble"
	"tandem/internal/durable"
)

func askLease(ctx context.Context, k *Keeper, director string, epoch uint64) (bool, error) {
	r, err := k.Lease(ctx, connect.NewRequest(&tandemv1.LeaseRequest{Group: "primary", Profile: "steady", Director: director, Epoch: epoch, Nonce: k.Nonce()}))
	if err != nil {
		return false, err
	}
	return r.Msg.GetGranted(), nil
}

// wantKept checks what is in force, and what a restart would find.
func wantKept(t *testing.T, k *Keeper, epoch authority.Epoch, holder string) {
	t.Helper()
	if got, of := k.Seen(); got != epoch || of != holder {
		t.Errorf("in force: %d of %q, want %d of %q", got, of, epoch, holder)
	}
	again := mustOpen(t, k.cfg)
	if got, of := again.Seen(); got != epoch || of != holder {
		t.Errorf("on disk: %d of %q, want %d of %q", got, of, epoch, holder)
	}
}

// A disk without room for a new epoch refuses that one; the one in force goes
// on, and the new one is granted once there is room.
func TestDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tandem-test", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	c := newClock()
	k := mustOpen(t, c.config(filepath.Join(dir, "authority.json")))
	c.pass(time.Second)
	if ok, err := askLease(t.Context(), k, "dir-a", 4); !ok || err != nil {
		t.Fatal(ok, err)
	}
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, []byte(strings.Repeat("x", 128<<10)), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}

	if ok, err := askLease(t.Context(), k, "dir-a", 6); ok || connect.CodeOf(err) != connect.CodeUnavailable || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("lease: granted %v, %v", ok, err)
	}
	err := k.Obey(t.Context(), pairOrder("dir-b", 7, 1, k.Nonce()), true, func() error { t.Error("carried out"); return nil })
	if connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("fence: %v", err)
	}
	wantKept(t, k, 4, "dir-a")
	if ok, err := askLease(t.Context(), k, "dir-a", 4); !ok || err != nil {
		t.Errorf("a renewal needs no disk: granted %v, %v", ok, err)
	}

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if ok, err := askLease(t.Context(), k, "dir-a", 6); !ok || err != nil {
		t.Errorf("with room: granted %v, %v", ok, err)
	}
	wantKept(t, k, 6, "dir-a")
}

// slowKeeper is a voter whose disk takes a minute for an epoch, once dir-a has
// leased epoch 4. For a bubble.
func slowKeeper(t *testing.T) *Keeper {
	cfg := newClock().config(filepath.Join(t.TempDir(), "authority.json"))
	began := time.Now()
	cfg.Clock = func() authority.Instant { return authority.Instant(time.Hour + time.Since(began)) }
	k := mustOpen(t, cfg)
	time.Sleep(time.Second)
	if ok, err := askLease(t.Context(), k, "dir-a", 4); !ok || err != nil {
		t.Fatal(ok, err)
	}
	k.write = func(path string, content []byte, mode os.FileMode) error {
		time.Sleep(time.Minute)
		return durable.WriteFile(path, content, mode)
	}
	return k
}

// While a slow disk takes an epoch, whoever only looks waits for nothing, and
// whoever must wait gives up when its caller does.
func TestSlowDisk(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		k := slowKeeper(t)
		time.Sleep(2 * time.Second)
		began := time.Now()
		answer := make(chan bool, 1)
		go func() {
			ok, err := askLease(context.Background(), k, "dir-b", 7)
			answer <- ok && err == nil
		}()
		synctest.Wait()

		nonce := k.Nonce()
		r, err := k.Query(t.Context(), connect.NewRequest(&tandemv1.QueryRequest{Group: "primary", Profile: "steady", Director: "dir-a"}))
		if err != nil || r.Msg.GetBallot().GetEpoch() != 4 || r.Msg.GetBallot().GetNonce() != nonce {
			t.Errorf("query: %v %v", r, err)
		}
		if epoch, holder := k.Seen(); epoch != 4 || holder != "dir-a" {
			t.Errorf("in force before it is on disk: %d of %q", epoch, holder)
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("waited %v", waited)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if ok, err := askLease(ctx, k, "dir-a", 4); ok || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("lease behind it: granted %v, %v", ok, err)
		}
		if waited := time.Since(began); waited != 200*time.Millisecond {
			t.Errorf("waited %v", waited)
		}
		if !<-answer {
			t.Error("not granted in the end")
		}
		if epoch, _ := k.Seen(); epoch != 7 || k.now.Load().Until.Sub(k.cfg.Clock()) > 0 {
			t.Errorf("epoch %d; a lease runs from when it was asked for", epoch)
		}
	})
}

// An order that takes long keeps other orders out, and no lease: an order that
// waited too long for its turn is refused, one that nobody waits for is dropped.
func TestSlowOrder(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		k := slowKeeper(t)
		ended := make(chan error, 1)
		go func() {
			ended <- k.Obey(context.Background(), pairOrder("dir-a", 4, 1, k.Nonce()), false, func() error { time.Sleep(3 * time.Second); return nil })
		}()
		synctest.Wait()
		late := make(chan error, 1)
		go func() {
			late <- k.Obey(context.Background(), pairOrder("dir-a", 4, 2, k.Nonce()), false, func() error { t.Error("carried out late"); return nil })
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if err := k.Obey(ctx, pairOrder("dir-a", 4, 3, k.Nonce()), false, func() error { t.Error("carried out"); return nil }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dropped: %v", err)
		}
		for range 24 {
			if ok, err := askLease(t.Context(), k, "dir-a", 4); !ok || err != nil {
				t.Fatalf("a renewal waited for an order: granted %v, %v", ok, err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := <-late; outcome(err) != "not_fresh" {
			t.Errorf("late: %v", err)
		}
	})
}
