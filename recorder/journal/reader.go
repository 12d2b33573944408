package journal

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const suffix = ".journal"

// A file's name carries the nonce of its blocks, so that no damage inside the
// file can make another nonce pass for it.
func fileName(dir string, number, nonce uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016d-%016x%s", number, nonce, suffix))
}

func parseName(path string) (number, nonce uint64, ok bool) {
	stem, ok := strings.CutSuffix(filepath.Base(path), suffix)
	digits, hex, dash := strings.Cut(stem, "-")
	number, err := strconv.ParseUint(digits, 10, 64)
	nonce, hexErr := strconv.ParseUint(hex, 16, 64)
	return number, nonce, ok && dash && err == nil && hexErr == nil
}

// File is one file of a journal.
type File struct {
	Number uint64
	Path   string
	Closed bool // nobody writes it any more: closed in order, or left by a recorder that died
}

// Files lists the journal in dir, oldest first.
func Files(dir string) ([]File, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list journal: %w", err)
	}
	var files []File
	for _, e := range entries {
		number, _, ok := parseName(e.Name())
		if !ok {
			continue
		}
		path := filepath.Join(dir, e.Name())
		live, err := beingWritten(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // compacted and removed since
		}
		if err != nil {
			return nil, fmt.Errorf("list journal: %w", err)
		}
		files = append(files, File{Number: number, Path: path, Closed: !live})
	}
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Number, b.Number) })
	return files, nil
}

func beingWritten(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	return locked(f)
}

// locked asks whether a living writer holds the file: its lock ends with the
// process, whatever kills it.
func locked(f *os.File) (bool, error) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "flock", Path: f.Name(), Err: err}
	}
	return false, unix.Flock(int(f.Fd()), unix.LOCK_UN)
}

// Block is one block read back. Everything in it is valid until the next call
// of Next on its reader.
type Block struct {
	Offset   int64 // in the file
	Sequence uint32
	Kind     Kind
	Shard    uint16
	Count    int    // packets
	Notes    []Note // of a notes block, in the order they were made

	base    int64
	content []byte
}

// Packets yields the packets of a packets block in the order they were
// appended, without allocating: for p := range block.Packets { ... }.
func (b *Block) Packets(yield func(Packet) bool) {
	if b.Kind == KindPackets {
		eachPacket(b.content, b.base, yield)
	}
}

// Reader reads one file from its beginning. It may be the file still being
// written: whole blocks are seen, and Next goes on from where io.EOF stopped
// it. A Reader is not safe for concurrent use.
type Reader struct {
	path   string
	file   io.ReaderAt
	closer io.Closer
	size   func() (int64, error)
	live   bool

	offset   int64 // of the block to read next
	nonce    uint64
	sequence uint32 // of the block to read next
	jumped   bool   // Resync was asked for: sequence is only a lower bound
	sealed   bool
	failure  *CorruptError
	buf      []byte
	block    Block
}

// OpenFile opens a file of the journal under the name the writer gave it.
func OpenFile(path string) (*Reader, error) {
	_, nonce, ok := parseName(path)
	if !ok {
		return nil, fmt.Errorf("open journal file: %q is not a name of one", filepath.Base(path))
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open journal file: %w", err)
	}
	live, err := locked(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open journal file: %w", err)
	}
	size := func() (int64, error) {
		info, err := f.Stat()
		if err != nil {
			return 0, err
		}
		return info.Size(), nil
	}
	return &Reader{path: path, file: f, closer: f, size: size, live: live, nonce: nonce}, nil
}

// Close releases the file.
func (r *Reader) Close() error { return r.closer.Close() }

// Offset is where the block that Next reads begins.
func (r *Reader) Offset() int64 { return r.offset }

// Sealed says, once Next has returned io.EOF, that the file was closed in
// order. A file that was not may have lost its newest blocks to a power cut;
// after a mere kill of the recorder it has not.
func (r *Reader) Sealed() bool { return r.sealed }

// Next reads one block. It returns io.EOF at the clean end, a *CorruptError
// where the file is damaged (again and again until Resync), or an error of
// the operating system.
func (r *Reader) Next() (*Block, error) {
	if r.failure != nil {
		return nil, r.failure
	}
	if r.sealed {
		return nil, io.EOF
	}
	size, err := r.size()
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	h, content, err := r.read(r.offset, size)
	if err != nil {
		return nil, r.fail(err)
	}
	if err := r.expected(h); err != nil {
		return nil, r.fail(err)
	}
	if err := r.decode(h, content); err != nil {
		return nil, r.fail(err)
	}
	r.offset += int64(h.length)
	r.sequence, r.jumped = h.sequence+1, false
	if h.kind == kindSeal {
		r.sealed = true
		if err := r.wantNothing(r.offset, size, "data behind the end of a closed file"); err != nil {
			return nil, r.fail(err)
		}
		return nil, io.EOF
	}
	return &r.block, nil
}

// damage is why the bytes at the reader's offset are not the next block.
type damage string

func (d damage) Error() string { return string(d) }

// fail keeps damage as the reader's state and passes everything else on.
func (r *Reader) fail(err error) error {
	var d damage
	if errors.As(err, &d) {
		r.failure = &CorruptError{File: r.path, Offset: r.offset, Reason: string(d)}
		return r.failure
	}
	if err == io.EOF {
		return err
	}
	return fmt.Errorf("read journal: %w", err)
}

// read returns the block at offset when its checksum is right, io.EOF at the
// end of what was written, or damage.
func (r *Reader) read(offset, size int64) (header, []byte, error) {
	head, err := r.readAt(offset, headerSize)
	if err != nil {
		return header{}, nil, err
	}
	if zero(head) {
		if r.live {
			return header{}, nil, io.EOF
		}
		if err := r.wantNothing(offset, size, "nothing where a block should be, and data behind it"); err != nil {
			return header{}, nil, err
		}
		return header{}, nil, io.EOF
	}
	if len(head) < headerSize {
		return header{}, nil, r.unfinished(offset, size, "the file ends inside a block header")
	}
	h, reason := parseHeader(head)
	if reason != "" {
		return h, nil, r.unfinished(offset, size, reason)
	}
	if h.nonce != r.nonce {
		return h, nil, damage("a block of another file")
	}
	if offset+int64(h.length) > size {
		return h, nil, r.unfinished(offset, size, "the file ends inside a block")
	}
	block, err := r.readAt(offset, int(h.length))
	if err != nil {
		return h, nil, err
	}
	if len(block) < int(h.length) || crc32.Checksum(block[8:], castagnoli) != h.crc {
		return h, nil, r.unfinished(offset+int64(h.length), size, "wrong checksum")
	}
	return h, block[headerSize:], nil
}

// unfinished tells a block that is being written this moment from a damaged
// one: in a file still being written, nothing is behind the former.
func (r *Reader) unfinished(behind, size int64, reason string) error {
	if !r.live {
		return damage(reason)
	}
	next, err := r.readAt(behind, headerSize)
	if err != nil {
		return err
	}
	if behind >= size || zero(next) || behind == r.offset {
		return io.EOF
	}
	return damage(reason)
}

// readAt reads up to n bytes at offset, fewer at the end of the file, into the
// reader's buffer.
func (r *Reader) readAt(offset int64, n int) ([]byte, error) {
	if cap(r.buf) < n {
		r.buf = make([]byte, max(n, 64<<10))
	}
	got, err := r.file.ReadAt(r.buf[:n], offset)
	if err != nil && err != io.EOF {
		return nil, err
	}
	return r.buf[:got], nil
}

// wantNothing wants only zeros from offset to the end of the file.
func (r *Reader) wantNothing(offset, size int64, reason string) error {
	for offset < size {
		b, err := r.readAt(offset, 64<<10)
		if err != nil {
			return err
		}
		if len(b) == 0 {
			return nil
		}
		if !zero(b) {
			return damage(reason)
		}
		offset += int64(len(b))
	}
	return nil
}

func zero(b []byte) bool {
	for len(b) >= 8 {
		if binary.LittleEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// expected wants the block that follows the last one.
func (r *Reader) expected(h header) error {
	switch {
	case h.sequence == r.sequence, r.jumped && h.sequence > r.sequence:
		return nil
	case h.sequence > r.sequence:
		return damage(fmt.Sprintf("blocks %d to %d are missing", r.sequence, h.sequence-1))
	}
	return damage(fmt.Sprintf("block %d where block %d should be", h.sequence, r.sequence))
}

// decode fills r.block.
func (r *Reader) decode(h header, content []byte) error {
	clear(r.block.Notes)
	r.block = Block{
		Offset: r.offset, Sequence: h.sequence, Kind: h.kind, Shard: h.shard, Count: int(h.packets),
		base: h.base, content: content, Notes: r.block.Notes[:0],
	}
	switch h.kind {
	case KindPackets:
		if err := checkRuns(content, h.packets); err != nil {
			return damage(err.Error())
		}
	case KindNotes:
		if err := json.Unmarshal(content, &r.block.Notes); err != nil {
			return damage(err.Error())
		}
	case kindSeal:
	default:
		return damage(fmt.Sprintf("unknown kind of block %d", h.kind))
	}
	return nil
}

// Resync goes from the damage that Next reported to the next whole block
// behind it, so that Next reads on. It returns the number of bytes passed
// over, and io.EOF when no whole block follows.
func (r *Reader) Resync() (skipped int64, err error) {
	if r.failure == nil {
		return 0, nil
	}
	from := r.offset
	size, err := r.size()
	if err != nil {
		return 0, fmt.Errorf("resync journal: %w", err)
	}
	for at := from; ; at++ {
		at, err = r.findMagic(at, size)
		if err != nil {
			return 0, err
		}
		if !r.resume(at, size) {
			continue
		}
		r.offset, r.failure, r.jumped = at, nil, true
		return at - from, nil
	}
}

// resume says whether a whole block that may come next begins at offset.
func (r *Reader) resume(offset, size int64) bool {
	h, content, err := r.read(offset, size)
	if err != nil || h.sequence < r.sequence {
		return false
	}
	switch h.kind {
	case KindPackets:
		return checkRuns(content, h.packets) == nil
	case KindNotes:
		return json.Valid(content)
	}
	return h.kind == kindSeal
}

// findMagic returns the first offset at or behind from where a header may begin.
func (r *Reader) findMagic(from, size int64) (int64, error) {
	var want [4]byte
	binary.LittleEndian.PutUint32(want[:], magic)
	for from < size {
		b, err := r.readAt(from, 64<<10)
		if err != nil {
			return 0, fmt.Errorf("resync journal: %w", err)
		}
		if i := bytes.Index(b, want[:]); i >= 0 {
			return from + int64(i), nil
		}
		if len(b) < 64<<10 {
			break
		}
		from += int64(len(b) - len(want) + 1)
	}
	return 0, io.EOF
}
