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

const (
	childFolder  = "TANDEM_JOURNAL_CHILD"
	childChannel = "TANDEM_JOURNAL_CHANNEL"
)

func TestMain(m *testing.M) {
	dir := os.Getenv(childFolder)
	num, err := strconv.Atoi(os.Getenv(childChannel))
	switch {
	case dir == "":
		os.Exit(m.Run())
	case err == nil:
		err = rememberForever(dir, uint32(num))
	default:
		err = appendForever(dir)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
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
		acknowledged := killChild(t, exec.Command(os.Args[0]), dir, time.Duration(random.Int64N(int64(60*time.Millisecond))))
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
func killChild(t *testing.T, cmd *exec.Cmd, dir string, after time.Duration) (acknowledged int) {
	t.Helper()
	cmd.Env = append(cmd.Environ(), childFolder+"="+dir)
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

// rememberForever journals numbered packets of its own channel, with the
// memory it was given, and prints each number once it was added to a block.
func rememberForever(dir string, num uint32) error {
	cfg := DefaultConfig()
	cfg.FileSize, cfg.BlockSize, cfg.QueueSize = 4<<20, minBlock, 8*minBlock
	cfg.Memory = os.NewFile(3, "memory")
	w, err := Open(dir, cfg)
	if err != nil {
		return err
	}
	go w.Run(context.Background())
	for n := 0; ; {
		d := w.Draft(0)
		for d == nil { // the disk is behind
			d = w.Draft(0)
		}
		for last := n + 1 + rand.IntN(200); n < last && d.Add(num, arrival(n), packet(num, n)); n++ {
			if n%20 == 0 {
				fmt.Println(n + 1)
			}
		}
		w.Append(d)
	}
}

// Whatever instruction a writer with a memory is killed at, each packet that
// it was given is in the journal once it has been followed by another writer.
func TestKillWithMemory(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir, memory := t.TempDir(), testMemory(t)
	const kills = 12
	var acknowledged [kills + 1]int
	for num := 1; num <= kills; num++ {
		cmd := exec.Command(os.Args[0])
		cmd.ExtraFiles = []*os.File{memory}
		cmd.Env = append(os.Environ(), childChannel+"="+strconv.Itoa(num))
		acknowledged[num] = killChild(t, cmd, dir, time.Duration(random.Int64N(int64(40*time.Millisecond))))
	}
	_, stop := start(t, dir, func(c *Config) { c.BlockSize, c.QueueSize, c.Memory = minBlock, 8*minBlock, memory })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	c := readAll(t, dir)
	for num := 1; num <= kills; num++ {
		got := len(c.packets[uint32(num)])
		if got < acknowledged[num] {
			t.Errorf("channel %d: %d packets added, %d read", num, acknowledged[num], got)
		}
		wantPackets(t, c, uint32(num), 0, got)
	}
}
