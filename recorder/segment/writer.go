// Package segment keeps media files: one WAV file for a stretch of one
// channel, written by position so that packets may come in any order, and
// readable at any time.
package segment

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"tandem/internal/media"
)

// BufferSize is how much of one segment is gathered before it is written: two
// seconds of G.711. Memory is this much for every segment being written.
const BufferSize = 16 << 10

// Writer writes one segment file of G.711, one byte a sample. It keeps no file
// open between calls, so that thousands may be written at the same time. It is
// not safe for concurrent use.
type Writer struct {
	path  string
	codec media.Codec
	made  bool  // the file is there
	disk  int64 // samples [0, disk) are in the file
	at    int64 // position of buf
	buf   []byte
	moved bool // the file's header does not say disk samples
}

// Create begins a new segment. The file appears with the first Flush and
// replaces what may be there.
func Create(path string, codec media.Codec) *Writer {
	return &Writer{path: path, codec: codec}
}

// Resume goes on with a file that holds at least the given number of samples;
// more may be there, from a time that was not committed, and are overwritten.
// It fails when the file holds less.
func Resume(path string, codec media.Codec, samples int64) (*Writer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("resume segment: %w", err)
	}
	if info.Size() < media.WAVHeaderSize+samples {
		return nil, fmt.Errorf("resume segment %s: %d bytes, want %d samples: %w", path, info.Size(), samples, io.ErrUnexpectedEOF)
	}
	return &Writer{path: path, codec: codec, made: true, disk: samples, at: samples, moved: true}, nil
}

// Path is where the file is.
func (w *Writer) Path() string { return w.path }

// Len is the number of samples, silence in holes included.
func (w *Writer) Len() int64 { return max(w.disk, w.at+int64(len(w.buf))) }

// Roomy says whether n samples can be put before the first.
func (w *Writer) Roomy(n int) bool { return !w.made && n+len(w.buf) <= BufferSize }

// Prepend makes room for n samples before the first, which must be Roomy.
// They are silence until written.
func (w *Writer) Prepend(n int) error {
	if !w.Roomy(n) {
		return fmt.Errorf("prepend to segment %s: %w", w.path, errWritten)
	}
	w.grow()
	w.buf = w.buf[:len(w.buf)+n]
	copy(w.buf[n:], w.buf)
	w.silence(w.buf[:n])
	return nil
}

var errWritten = errors.New("already written")

// WriteAt puts samples at a position, counted in samples from the first. The
// same samples may be written again; between positions never written there is
// silence.
func (w *Writer) WriteAt(p []byte, at int64) error {
	w.grow()
	for len(p) > 0 {
		end := w.at + int64(len(w.buf))
		switch {
		case at < w.at: // late, and its place is on disk already
			n := min(int64(len(p)), w.at-at)
			if err := w.writeFile(p[:n], at); err != nil {
				return err
			}
			p, at = p[n:], at+n
		case at > end && at-w.at < BufferSize:
			gap := len(w.buf)
			w.buf = w.buf[:at-w.at]
			w.silence(w.buf[gap:])
		case at > end:
			if err := w.Flush(); err != nil {
				return err
			}
			if err := w.fillTo(at); err != nil {
				return err
			}
		case at < w.at+BufferSize:
			off := int(at - w.at)
			n := min(len(p), BufferSize-off)
			w.buf = w.buf[:max(len(w.buf), off+n)]
			copy(w.buf[off:], p[:n])
			p, at = p[n:], at+int64(n)
		default:
			if err := w.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *Writer) grow() {
	if w.buf == nil {
		w.buf = make([]byte, 0, BufferSize)
	}
}

// silence fills b: an unwritten zero would be a loud click in µ-law.
func (w *Writer) silence(b []byte) {
	quiet := w.codec.Silence()
	for i := range b {
		b[i] = quiet
	}
}

// Flush writes what is gathered and lets go of the memory for it. What it
// wrote survives this process; a power cut only after a sync.
func (w *Writer) Flush() error {
	if len(w.buf) == 0 && w.made && !w.moved {
		return nil
	}
	f, err := w.open()
	if err != nil {
		return err
	}
	if err := w.flushTo(f); err != nil {
		f.Close()
		return fmt.Errorf("write segment: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write segment: %w", err)
	}
	return nil
}

// Release gives the buffer back after a Flush; the next WriteAt takes a new one.
func (w *Writer) Release() {
	if len(w.buf) == 0 {
		w.buf = nil
	}
}

func (w *Writer) open() (*os.File, error) {
	flags := os.O_RDWR
	if !w.made {
		flags |= os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(w.path, flags, 0o640)
	if errors.Is(err, os.ErrNotExist) && !w.made {
		if err := os.MkdirAll(filepath.Dir(w.path), 0o750); err != nil {
			return nil, fmt.Errorf("make segment folder: %w", err)
		}
		f, err = os.OpenFile(w.path, flags, 0o640)
	}
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	return f, nil
}

// flushTo writes data first, then the header that claims it.
func (w *Writer) flushTo(f *os.File) error {
	if len(w.buf) > 0 {
		if _, err := f.WriteAt(w.buf, media.WAVHeaderSize+w.at); err != nil {
			return err
		}
	}
	samples := w.Len()
	if err := w.writeHeader(f, samples); err != nil {
		return err
	}
	w.made, w.moved, w.disk, w.at, w.buf = true, false, samples, samples, w.buf[:0]
	return nil
}

func (w *Writer) writeHeader(f *os.File, samples int64) error {
	header := media.WAVHeader(media.WAVFormat{Codec: w.codec, SampleRate: w.codec.ClockRate()}, samples)
	_, err := f.WriteAt(header[:], 0)
	return err
}

func (w *Writer) writeFile(p []byte, at int64) error {
	if !w.made {
		return fmt.Errorf("write segment %s: position %d is before its file", w.path, at)
	}
	f, err := w.open()
	if err != nil {
		return err
	}
	_, err = f.WriteAt(p, media.WAVHeaderSize+at)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write segment: %w", err)
	}
	return nil
}

// fillTo writes silence up to a position far ahead; nothing is buffered.
func (w *Writer) fillTo(at int64) error {
	f, err := w.open()
	if err != nil {
		return err
	}
	defer f.Close()
	quiet := w.buf[:min(at-w.at, BufferSize)]
	w.silence(quiet)
	for w.at < at {
		n := min(at-w.at, BufferSize)
		if _, err := f.WriteAt(quiet[:n], media.WAVHeaderSize+w.at); err != nil {
			return fmt.Errorf("write segment: %w", err)
		}
		w.at += n
		w.disk, w.moved = w.at, true
	}
	return nil
}

// Sum is what identifies a sealed file.
type Sum struct {
	Size   int64
	SHA256 string // hex
}

// Seal writes what is left, makes header and length final and hashes the file.
// It may be called again, with the same result.
func (w *Writer) Seal() (Sum, error) {
	f, err := w.open()
	if err != nil {
		return Sum{}, err
	}
	sum, err := w.sealTo(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return Sum{}, fmt.Errorf("seal segment: %w", err)
	}
	return sum, nil
}

func (w *Writer) sealTo(f *os.File) (Sum, error) {
	if err := w.flushTo(f); err != nil {
		return Sum{}, err
	}
	w.Release()
	if w.disk%2 == 1 { // RIFF pads chunks to even length
		if _, err := f.WriteAt([]byte{0}, media.WAVHeaderSize+w.disk); err != nil {
			return Sum{}, err
		}
	}
	size := Size(w.disk)
	if err := f.Truncate(size); err != nil {
		return Sum{}, err
	}
	return hash(f, size)
}

// Size is the length of a sealed file.
func Size(samples int64) int64 { return media.WAVHeaderSize + samples + samples%2 }

// hash is the Sum of the file's first size bytes; fewer are an error.
func hash(f io.ReaderAt, size int64) (Sum, error) {
	h := sha256.New()
	n, err := io.CopyBuffer(h, io.NewSectionReader(f, 0, size), make([]byte, 256<<10))
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	return Sum{n, hex.EncodeToString(h.Sum(nil))}, err
}

// Sync makes everything written under the media directory survive a power cut:
// one system call for any number of segments.
func Sync(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync media: %w", err)
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("sync media: %w", err)
	}
	return nil
}

// A File is a segment's file opened for reading.
type File struct {
	f *os.File
}

// Open opens a segment's file for reading; it may still be written.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	return &File{f}, nil
}

// Close lets go of the file.
func (f *File) Close() error { return f.f.Close() }

// ReadAt fills p with the samples from position at, or fails.
func (f *File) ReadAt(p []byte, at int64) error {
	if _, err := io.ReadFull(io.NewSectionReader(f.f, media.WAVHeaderSize+at, int64(len(p))), p); err != nil {
		return fmt.Errorf("read segment %s: samples %d to %d: %w", f.f.Name(), at, at+int64(len(p)), err)
	}
	return nil
}

// Size is the file's length now.
func (f *File) Size() (int64, error) {
	info, err := f.f.Stat()
	if err != nil {
		return 0, fmt.Errorf("read segment: %w", err)
	}
	return info.Size(), nil
}

// Hash reads the whole file.
func (f *File) Hash() (Sum, error) {
	size, err := f.Size()
	if err != nil {
		return Sum{}, err
	}
	sum, err := hash(f.f, size)
	if err != nil {
		return Sum{}, fmt.Errorf("hash segment %s: %w", f.f.Name(), err)
	}
	return sum, nil
}

// CheckHeader says what is wrong with the header of a file of the given codec
// and number of samples; nil when it is exactly what Seal writes.
func (f *File) CheckHeader(codec media.Codec, samples int64) error {
	var got [media.WAVHeaderSize]byte
	if _, err := f.f.ReadAt(got[:], 0); err != nil {
		return fmt.Errorf("read segment header: %w", err)
	}
	want := media.WAVHeader(media.WAVFormat{Codec: codec, SampleRate: codec.ClockRate()}, samples)
	if !bytes.Equal(got[:], want[:]) {
		return fmt.Errorf("segment %s: header is not that of %d samples of %s", f.f.Name(), samples, codec)
	}
	return nil
}
