package intake

import (
	"context"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tandem/recorder/journal"
)

func testMemory(t *testing.T, name string) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { f.Close() })
	return f
}

// openJournal opens a journal that nobody runs yet.
func openJournal(t *testing.T, dir string, memory *os.File) *journal.Writer {
	t.Helper()
	cfg := journal.DefaultConfig()
	cfg.Memory = memory
	w, err := journal.Open(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// run writes all that the journal was given.
func run(t *testing.T, w *journal.Writer) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// A process ends with datagrams in its receivers: those not yet in a block are
// journaled by the next one, once, with the kernel's times.
func TestReceiversThatDied(t *testing.T) {
	fd, err := listenUDP(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	conn := dial(t, name.(*unix.SockaddrInet4).Port)
	blocks, memory, dir := testMemory(t, "blocks"), testMemory(t, "receivers"), t.TempDir()
	w := openJournal(t, dir, nil) // dies with its blocks
	receivers, err := receiversIn(memory, 3, w)
	if err != nil {
		t.Fatal(err)
	}
	take := func(r *receiver, num uint32, want int) {
		t.Helper()
		for got := 0; got < want; {
			n, err := r.receive(num, fd)
			if err != nil {
				t.Fatal(err)
			}
			got += n
		}
	}
	before := time.Now()
	sendRange(t, conn, 7, 0, 20)
	take(receivers[1], 1, 20) // a receive that left traces
	for i := range 20 {
		receivers[1].done(i)
	}
	sendRange(t, conn, 7, 20, 25)
	send(t, conn, report(t, 7), []byte("noise"), make([]byte, maxDatagram+1))
	take(receivers[1], 1, 8)
	receivers[1].done(0)
	receivers[1].done(1)
	sendRange(t, conn, 9, 0, 2)
	take(receivers[2], 2, 2)
	run(t, w)
	after := time.Now()

	// The next process dies, too, after it has put them in blocks that outlive
	// it and before its receivers are new.
	dir = t.TempDir()
	w = openJournal(t, dir, blocks)
	bytes, err := mapFlight(memory, 1) // fewer than there were
	if err != nil {
		t.Fatal(err)
	}
	if len(bytes) < pageSize+3*receiverRoom {
		t.Fatal("receivers were given up")
	}
	rescue(receivers, w, time.Now())
	dir = t.TempDir() // its lock is held to the end of this process
	w = openJournal(t, dir, blocks)
	receivers, err = receiversIn(memory, 1, w)
	if err != nil || len(receivers) != 1 {
		t.Fatalf("%d receivers, %v", len(receivers), err)
	}
	run(t, w)

	r := &rig{t: t, dir: dir, stopJournal: func() {}, stopIntake: func() {}}
	packets, _ := r.read()
	wantNumbers(t, packets[1], 7, 22, 25)
	wantNumbers(t, packets[2], 9, 0, 2)
	for _, p := range append(packets[1], packets[2]...) {
		if at := p.At(); at.Before(before.Add(-time.Microsecond)) || at.After(after) {
			t.Errorf("arrival %v, sent between %v and %v", at, before, after)
		}
	}
	w = openJournal(t, t.TempDir(), nil)
	if _, err := receiversIn(memory, 3, w); err != nil || w.Queue() > 0 {
		t.Errorf("there is something left: %v, %v", w.Queue(), err)
	}
}

func TestReceiversOfAnotherVersion(t *testing.T) {
	memory := testMemory(t, "receivers")
	if _, err := memory.WriteString("TJrecv\x00\x00and so on"); err != nil {
		t.Fatal(err)
	}
	if err := memory.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	w := openJournal(t, t.TempDir(), nil)
	if receivers, err := receiversIn(memory, 2, w); err != nil || len(receivers) != 2 || w.Queue() > 0 {
		t.Errorf("%d receivers, queue %v, %v", len(receivers), w.Queue(), err)
	}
}
