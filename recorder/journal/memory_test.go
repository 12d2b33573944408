package journal

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tandem/internal/call"
)

func testMemory(t *testing.T) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("blocks", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "memory")
	t.Cleanup(func() { f.Close() })
	return f
}

// openWith opens a writer as after the death of the one before.
func openWith(t *testing.T, dir string, memory *os.File, slots int) *Writer {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Boot, cfg.BlockSize, cfg.QueueSize, cfg.Memory = "boot", minBlock, slots*minBlock, memory
	w, err := Open(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.lock.Close() })
	return w
}

// finish runs the writer until all it has is written.
func finish(t *testing.T, dir string, memory *os.File, slots int) content {
	t.Helper()
	_, stop := start(t, dir, func(c *Config) { c.BlockSize, c.QueueSize, c.Memory = minBlock, slots*minBlock, memory })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	return readAll(t, dir)
}

// What was appended, and what was only added to a block, is found by the next
// writer, by the one after that when the next one dies at once, and not again
// by the third.
func TestMemory(t *testing.T) {
	dir, memory := t.TempDir(), testMemory(t)
	w := openWith(t, dir, memory, 8)
	add(t, w, 0, 0, 10, 1, 2)
	closed := Note{Closed: &Closed{Num: 2, At: time.Unix(1700000000, 0).UTC(), Cause: "logged_off"}}
	dropped := Note{Dropped: &Dropped{Num: 1, From: time.Unix(1, 0).UTC(), To: time.Unix(2, 0).UTC(), Packets: 3, Cause: call.CauseLoss, Why: "flood"}}
	if err := w.Note(closed, dropped); err != nil {
		t.Fatal(err)
	}
	half := w.Draft(3) // in the hands of a shard
	half.Add(1, arrival(10), packet(1, 10))
	w.Draft(4) // with nothing in it
	w.lock.Close()

	w = openWith(t, dir, memory, 8)
	if q := w.Queue(); q != 3./8 {
		t.Errorf("queue %v, want three blocks of eight", q)
	}
	if until := w.WrittenUntil(time.Now()); !until.Equal(time.Unix(0, arrival(0))) {
		t.Errorf("written until %v", until)
	}
	for _, c := range []struct {
		p    Packet
		want bool
	}{
		{Packet{1, arrival(10), packet(1, 10)}, true},
		{Packet{1, arrival(10) + 900, packet(1, 10)}, true}, // times are kept to the microsecond
		{Packet{1, arrival(10) + 9000, packet(1, 10)}, false},
		{Packet{2, arrival(10), packet(1, 10)}, false},
		{Packet{1, arrival(10), packet(1, 11)}, false},
	} {
		if w.Found(c.p) != c.want {
			t.Errorf("found %v: want %v", c.p, c.want)
		}
	}
	w.lock.Close() // nothing was written

	c := finish(t, dir, memory, 4) // with fewer slots than there were
	wantPackets(t, c, 1, 0, 11)
	wantPackets(t, c, 2, 0, 10)
	notes := 0
	for _, n := range c.notes {
		if n.Closed != nil && *n.Closed == *closed.Closed || n.Dropped != nil && *n.Dropped == *dropped.Dropped {
			notes++
		}
	}
	if notes != 2 {
		t.Errorf("notes %+v", c.notes)
	}
	c = finish(t, dir, memory, 8)
	wantPackets(t, c, 1, 0, 11)
}

// A writer that dies between a write and its knowing of it has written; one
// whose write is torn has not.
func TestMemoryOfBlocksGivenToTheDisk(t *testing.T) {
	for _, c := range []struct {
		name string
		part func(size int) int // of the block that reaches the file
	}{
		{"whole", func(size int) int { return size }},
		{"torn", func(size int) int { return size - 10 }},
		{"nothing", func(int) int { return 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, memory := t.TempDir(), testMemory(t)
			w := openWith(t, dir, memory, 8)
			dead := make(chan struct{})
			t.Cleanup(func() { close(dead) })
			gone := make(chan struct{})
			w.writeAt = func(f *os.File, b []byte, offset int64) (int, error) {
				if Kind(b[kindAt]) != KindPackets {
					return f.WriteAt(b, offset)
				}
				if n := c.part(len(b)); n > 0 {
					f.WriteAt(b[:n], offset)
				}
				close(gone)
				<-dead
				return 0, os.ErrClosed
			}
			add(t, w, 0, 0, 10, 1)
			add(t, w, 0, 10, 10, 1)
			ctx := t.Context()
			go w.write(ctx) // never returns: this is where it dies
			<-gone
			w.lock.Close()
			wantPackets(t, finish(t, dir, memory, 8), 1, 0, 20)
		})
	}
}

func TestMemoryOfAnotherVersion(t *testing.T) {
	for name, text := range map[string]string{"foreign": "something else", "version": "TJmem\x00\x00\x00more", "short": "TJ"} {
		dir, memory := t.TempDir(), testMemory(t)
		if _, err := memory.WriteString(text); err != nil {
			t.Fatal(err)
		}
		w := openWith(t, dir, memory, 4)
		if len(w.found) > 0 {
			t.Errorf("%s: found %d blocks", name, len(w.found))
		}
		add(t, w, 0, 0, 3, 1)
		w.lock.Close()
		wantPackets(t, finish(t, dir, memory, 4), 1, 0, 3)
	}
}

// Every byte of a block may be the last that was written.
func TestMemoryAtEveryInstant(t *testing.T) {
	slot := make([]byte, minBlock)
	d := draftOver(slot)
	d.reset(7)
	for n := range 6 {
		before := bytes.Clone(slot)
		num := uint32(1 + n/4)
		d.Add(num, arrival(n), packet(num, n))
		// As if the process had ended after some of the bytes that Add changes,
		// the length, which is the last, not being one of them.
		for cut := headerSize; cut < len(d.buf); cut++ {
			torn := bytes.Clone(before)
			copy(torn[headerSize:cut], slot[headerSize:cut])
			if n > 0 {
				binary.LittleEndian.PutUint32(torn[d.run+4:], d.count) // the count may be ahead
			}
			got, err := draftIn(torn)
			if err != nil {
				t.Fatalf("packet %d, byte %d: %v", n, cut, err)
			}
			if n == 0 && got == nil {
				continue
			}
			packets := 0
			for p := range got.eachPacket {
				if !bytes.Equal(p.Data, packet(p.Num, packets)) || p.Arrival/1000 != arrival(packets)/1000 {
					t.Fatalf("packet %d, byte %d: packet %d is %q", n, cut, packets, p.Data)
				}
				packets++
			}
			if packets != n || got.shard != 7 {
				t.Fatalf("packet %d, byte %d: %d packets", n, cut, packets)
			}
		}
	}
}

func FuzzMemory(f *testing.F) {
	d := newDraft(minBlock)
	d.reset(1)
	d.Add(1, arrival(1), packet(1, 1))
	d.Add(2, arrival(2), packet(2, 2))
	f.Add(bytes.Clone(d.buf))
	n := newDraft(minBlock)
	n.reset(0)
	note := Note{Closed: &Closed{Num: 1}}
	encoded, _ := encode(note)
	n.addNote(note, encoded)
	f.Add(bytes.Clone(n.buf))
	f.Fuzz(func(t *testing.T, b []byte) {
		slot := make([]byte, minBlock)
		copy(slot, b)
		d, err := draftIn(slot)
		if d == nil || err != nil {
			return
		}
		packets, size := uint32(0), headerSize
		for p := range d.eachPacket {
			packets++
			size += packetHeader + len(p.Data)
		}
		if packets != d.packets || size > len(d.buf) {
			t.Errorf("%d packets of %d bytes in all, header says %d in %d", packets, size, d.packets, len(d.buf))
		}
		d.finish(1, 2)
		if h, ok := d.finished(); !ok || h.nonce != 1 || h.sequence != 2 {
			t.Errorf("finished: %+v, %v", h, ok)
		}
	})
}
