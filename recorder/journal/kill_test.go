package journal

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

const childFolder = "TANDEM_JOURNAL_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childFolder); dir != "" {
		fmt.Fprintln(os.Stderr, appendForever(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// appendForever journals numbered packets and prints each number once it is written.
func appendForever(dir string) error {
	cfg := DefaultConfig()
	cfg.FileSize = 1 << 20
	w, err := Open(dir, cfg)
	if err != nil {
		return err
	}
	go w.Run(context.Background())
	heard := w.Listen(1)
	for first := 0; ; first += 50 {
		d := w.Draft(0)
		for n := first; n < first+50; n++ {
			d.Add(1, arrival(n), packet(1, n))
		}
		w.Append(d)
		for range 50 {
			<-heard.Packets()
		}
		fmt.Println(first + 50)
	}
}

// Kill the writer at random instants: what it had acknowledged is there,
// whole and in order, and at most the block being written is torn.
func TestKill(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 12 {
		dir := t.TempDir()
		acknowledged := killChild(t, dir, time.Duration(random.Int64N(int64(60*time.Millisecond))))
		c := readAll(t, dir)
		got := len(c.packets[1])
		if got < acknowledged {
			t.Fatalf("%d packets acknowledged, %d read", acknowledged, got)
		}
		wantPackets(t, c, 1, 0, got)
		if len(c.damage) > 1 {
			t.Errorf("damage %v", c.damage)
		}
		w, err := Open(dir, DefaultConfig())
		if err != nil {
			t.Fatalf("the dead writer still holds the folder: %v", err)
		}
		w.lock.Close()
	}
}

// killChild returns how many packets the child had acknowledged when it was
// killed, some time after its first.
func killChild(t *testing.T, dir string, after time.Duration) (acknowledged int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childFolder+"="+dir)
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
		if acknowledged == 0 {
			kill.Reset(after)
		}
		if acknowledged, err = strconv.Atoi(line[:len(line)-1]); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Wait()
	if acknowledged == 0 {
		t.Fatal("the child wrote nothing")
	}
	return acknowledged
}
