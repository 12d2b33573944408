package journal

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A memory holds the blocks that are being filled or wait for the disk, in a
// file without a disk (memfd_create(2)) that outlives the process as long as
// somebody else has it open. The next writer finds in it what the last one was
// killed over: what was taken from the kernel is then neither there any more
// nor in a journal file yet.
//
// It begins with a page that says how it is divided:
//
//	0  magic       8  "TJmem\x00\x00\x01", the last byte a version
//	8  block size  4
//
// and goes on with slots of that size, a block in each. The header of a block
// on its way holds what a reader needs:
//
//	 8  length  4  of all that was added for good; 0: the block is written, or empty
//	12  kind    1
//	32  base    8
//
// and is the header of format.go once the block has been given to the disk. A
// store to the length is the last of everything that is added, and the first
// that is taken back, so that a process may end between any two instructions.
const (
	memoryMagic = "TJmem\x00\x00\x01"
	memoryHead  = 4096

	lengthAt = 8
	kindAt   = 12
	baseAt   = 32
)

type memory struct {
	bytes []byte
	block int
}

// openMemory maps the file, and makes it a memory of so many slots unless it
// is one of as many or more. What belongs to another version is given up.
func openMemory(f *os.File, block, slots int) (*memory, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open memory: %w", err)
	}
	head := binary.LittleEndian.AppendUint32([]byte(memoryMagic), uint32(block))
	found := make([]byte, len(head))
	if n, _ := f.ReadAt(found, 0); info.Size() > 0 && (n < len(head) || !slices.Equal(found, head)) {
		slog.Warn("blocks of another version in memory are given up", "bytes", info.Size())
		if err := f.Truncate(0); err != nil {
			return nil, fmt.Errorf("open memory: %w", err)
		}
		info = nil
	}
	size := int64(memoryHead + slots*block)
	if info != nil {
		size = max(size, info.Size())
	}
	if err := f.Truncate(size); err != nil {
		return nil, fmt.Errorf("open memory: %w", err)
	}
	if _, err := f.WriteAt(head, 0); err != nil {
		return nil, fmt.Errorf("open memory: %w", err)
	}
	// It is never unmapped: a block may be in somebody's hands to the end.
	bytes, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map memory: %w", err)
	}
	return &memory{bytes: bytes, block: block}, nil
}

func (m *memory) slots() int { return (len(m.bytes) - memoryHead) / m.block }

func (m *memory) slot(i int) []byte {
	at := memoryHead + i*m.block
	return m.bytes[at : at+m.block : at+m.block]
}

// lengthOf is the word that says how much of a block counts.
func lengthOf(block []byte) *uint32 { return (*uint32)(unsafe.Pointer(&block[lengthAt])) }

// commit makes all that was added to the block count.
func (d *Draft) commit() { atomic.StoreUint32(lengthOf(d.buf), uint32(len(d.buf))) }

// forget is for a block that is written, or never will be.
func (d *Draft) forget() { atomic.StoreUint32(lengthOf(d.buf), 0) }

// draftIn is the block that a slot holds, nil for none.
func draftIn(slot []byte) (*Draft, error) {
	length := int(atomic.LoadUint32(lengthOf(slot)))
	if length <= headerSize {
		return nil, nil
	}
	if length > len(slot) {
		return nil, fmt.Errorf("a block of %d bytes in a slot of %d", length, len(slot))
	}
	d := &Draft{
		buf: slot[:length:len(slot)], kind: Kind(slot[kindAt]), shard: binary.LittleEndian.Uint16(slot[14:]),
		base: int64(binary.LittleEndian.Uint64(slot[baseAt:])), begun: time.Now(),
	}
	content := d.buf[headerSize:]
	switch d.kind {
	case KindPackets:
		d.begun = time.Unix(0, d.base)
		d.packets = endRun(content)
		return d, checkRuns(content, d.packets)
	case KindNotes:
		content[len(content)-1] = ']' // a comma, where the next note was being added
		if !json.Valid(content) {
			return d, errors.New("notes that cannot be read")
		}
		return d, nil
	}
	return nil, fmt.Errorf("unknown kind of block %d", d.kind)
}

// endRun has the last run's count agree with the content, which may end before
// a packet that was counted already, and counts the packets.
func endRun(content []byte) (packets uint32) {
	for at := 0; at+runHeader <= len(content); {
		run := content[at:]
		at += runHeader
		for i := range binary.LittleEndian.Uint32(run[4:]) {
			if at+packetHeader > len(content) {
				binary.LittleEndian.PutUint32(run[4:], i)
				break
			}
			at += packetHeader + int(binary.LittleEndian.Uint16(content[at+4:]))
			packets++
		}
	}
	return packets
}

// finished says whether the block has been given to the disk, and which block
// of which file it was to become.
func (d *Draft) finished() (h header, ok bool) {
	h, reason := parseHeader(d.buf)
	return h, reason == "" && int(h.length) == len(d.buf) && crc32.Checksum(d.buf[8:], castagnoli) == h.crc
}

// left returns, oldest first, the blocks that are in no journal file, and the
// slots that hold nothing.
func (m *memory) left(files []File) (blocks []*Draft, empty [][]byte, err error) {
	written := written{files: files, seen: map[uint64]map[uint32]bool{}}
	for i := range m.slots() {
		slot := m.slot(i)
		d, err := draftIn(slot)
		if err != nil {
			slog.Error("block in memory is lost", "slot", i, "err", err)
		}
		known := false
		if d != nil && err == nil {
			if h, ok := d.finished(); ok {
				if known, err = written.has(h); err != nil {
					return nil, nil, err
				}
			}
		}
		if d == nil || err != nil || known {
			atomic.StoreUint32(lengthOf(slot), 0)
			empty = append(empty, slot)
			continue
		}
		blocks = append(blocks, d)
	}
	slices.SortStableFunc(blocks, func(a, b *Draft) int { return cmp.Compare(a.begun.UnixNano(), b.begun.UnixNano()) })
	return blocks, empty, nil
}

// written knows which blocks are in journal files.
type written struct {
	files []File
	seen  map[uint64]map[uint32]bool // sequences by nonce
}

func (w *written) has(h header) (bool, error) {
	if w.seen[h.nonce] == nil {
		w.seen[h.nonce] = map[uint32]bool{}
		for _, f := range w.files {
			if _, nonce, _ := parseName(f.Path); nonce != h.nonce {
				continue
			}
			if err := w.read(f.Path, w.seen[h.nonce]); err != nil {
				return false, err
			}
		}
	}
	return w.seen[h.nonce][h.sequence], nil
}

func (w *written) read(path string, seen map[uint32]bool) error {
	r, err := OpenFile(path)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		block, err := r.Next()
		var corrupt *CorruptError
		if errors.As(err, &corrupt) {
			_, err = r.Resync()
			block = nil
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case block != nil:
			seen[block.Sequence] = true
		}
	}
}
