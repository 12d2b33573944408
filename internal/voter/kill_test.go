package voter

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
)

const childFile = "TANDEM_VOTER_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childFile); path != "" {
		fmt.Fprintln(os.Stderr, grantForever(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// grantForever goes on from what the file says, grants and obeys one epoch
// after another, and prints each once it has been told so.
func grantForever(path string) error {
	c := newClock()
	k, err := Open(c.config(path))
	if err != nil {
		return err
	}
	c.pass(time.Second) // whatever was leased before has lapsed
	seen, _ := k.Seen()
	for epoch := uint64(seen) + 2; ; epoch += 4 {
		r, err := k.Lease(context.Background(), connect.NewRequest(&tandemv1.LeaseRequest{Group: "primary", Profile: "steady", Director: "dir-a", Epoch: epoch, Nonce: k.Nonce()}))
		if err != nil || !r.Msg.GetGranted() {
			return fmt.Errorf("lease %d: %v %v", epoch, r, err)
		}
		fmt.Println(epoch)
		if err := k.Obey(context.Background(), pairOrder("dir-a", epoch+2, 1, k.Nonce()), true, func() error { return nil }); err != nil {
			return err
		}
		fmt.Println(epoch + 2)
	}
}

// Kill the voter at random instants: it never goes back behind an epoch that
// somebody was told.
func TestKill(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	path := filepath.Join(t.TempDir(), "authority.json")
	told := 0
	for range 30 {
		told = killChild(t, path, told, time.Duration(random.Int64N(int64(25*time.Millisecond))))
		k := mustOpen(t, newClock().config(path))
		if epoch, holder := k.Seen(); int(epoch) < told || holder != "dir-a" {
			t.Fatalf("epoch %d of %q is kept, %d was told", epoch, holder, told)
		}
	}
	t.Logf("%d epochs", told/2)
}

// killChild returns the newest epoch that the child had told when it was
// killed, some time after its first.
func killChild(t *testing.T, path string, before int, after time.Duration) (told int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childFile+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	kill := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			break
		}
		if told == 0 {
			kill.Reset(after)
		}
		if told, err = strconv.Atoi(line[:len(line)-1]); err != nil {
			t.Fatal(err)
		}
		if told <= before {
			t.Fatalf("epoch %d was granted again, after %d", told, before)
		}
	}
	cmd.Wait()
	if told == 0 {
		t.Fatal("the child granted nothing")
	}
	return told
}
