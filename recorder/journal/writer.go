package journal

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Config says how a journal is cut and how much may wait for the disk.
type Config struct {
	Boot         string        // written into every file; new at each start of the recorder
	FileSize     int64         // bytes reserved for a file, and where it is closed
	FileAge      time.Duration // a file with anything in it is closed when this old
	SyncInterval time.Duration // at most so much is lost to a power cut
	BlockSize    int           // bytes of one block
	QueueSize    int           // bytes of blocks that may wait for the disk in memory
	Memory       *os.File      // where they wait, see memory.go; nil: where they end with the process
}

// DefaultConfig is a journal for 4,000 channels and more.
func DefaultConfig() Config {
	return Config{
		FileSize:     64 << 20,
		FileAge:      time.Minute,
		SyncInterval: 100 * time.Millisecond,
		BlockSize:    256 << 10,
		QueueSize:    32 << 20,
	}
}

const (
	minBlock = headerSize + runHeader + packetHeader + MaxPacket
	// retryInterval is between two attempts of a write that fails.
	retryInterval = 100 * time.Millisecond
	// endPatience is how long a failing disk is waited for at the end of Run.
	endPatience = time.Second
	// lockFile keeps a second recorder off the folder, and holds the number of
	// the newest file: a number must not come again when its file is gone.
	lockFile = "lock"
	// unseenFile is the next file before it has a name; what a crash leaves of
	// it is used again.
	unseenFile = "next"
)

func (c Config) validate() error {
	switch {
	case c.BlockSize < minBlock || c.BlockSize > maxBlock:
		return fmt.Errorf("block size %d: want %d to %d", c.BlockSize, minBlock, maxBlock)
	case c.QueueSize < 2*c.BlockSize:
		return fmt.Errorf("queue size %d: want two blocks at least", c.QueueSize)
	case c.FileSize <= 0 || c.FileAge <= 0 || c.SyncInterval <= 0:
		return errors.New("file size, file age and sync interval: want more than nothing")
	}
	return nil
}

// Writer writes a journal. Its methods are safe for concurrent use; the
// writing itself happens inside Run.
type Writer struct {
	cfg    Config
	dir    string
	opened time.Time
	lock   *os.File

	free  chan *Draft
	queue chan entry
	made  atomic.Int64  // drafts in the world, at most cap(free)
	slots [][]byte      // of the memory: the n-th draft's is slots[n-1]; nil: there is no memory
	found []*Draft      // of the writer before, nil once Run begins
	turn  chan struct{} // one Rotate at a time: queue has a place for it beside all drafts

	waiting atomic.Int64 // blocks appended and not written
	reached atomic.Int64 // Unix nanoseconds: the newest block written was begun
	blocks  atomic.Uint64
	bytes   atomic.Uint64
	broken  atomic.Pointer[error]
	began   atomic.Int64 // the write in progress, since opened; 0: none
	turned  atomic.Int64 // when the writing loop last got on, since opened; 0: it does not run yet
	filled  atomic.Int64 // of the current file

	taps  taps
	syncs syncer

	// Owned by the writing goroutine.
	number     uint64
	begun      bool // a file, since Open
	open       map[uint32]Channel
	current    *file
	end        time.Time // when patience ends; zero: ctx has not
	lost       error     // why blocks were given up at the end, nil: none were
	lostBlocks int

	writeAt func(f *os.File, b []byte, offset int64) (int, error) // a test may put a bad disk here
}

// entry is one thing in the queue: a block, or a request to close the file.
type entry struct {
	draft  *Draft
	rotate chan<- struct{} // closed when everything before is in closed files
}

// file is the file being written, or one on its way to be closed.
type file struct {
	*os.File
	path     string
	number   uint64
	nonce    uint64
	opened   time.Time
	offset   int64 // of the next block
	start    int64 // offset behind the opening notes
	sequence uint32
	dirty    atomic.Bool       // written since the last sync
	suspect  atomic.Bool       // a sync failed: what the kernel still holds is unknown
	retired  atomic.Bool       // nothing more is written
	whenGone []chan<- struct{} // closed with the file; guarded by syncer.mu
}

// Open makes dir a journal that nobody else writes. Files already there are
// left alone; numbering goes on behind
// the newest there ever was.
func Open(dir string, cfg Config) (*Writer, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("open journal: another recorder writes %s: %w", dir, err)
	}
	files, err := Files(dir)
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("open journal: %w", err)
	}
	number, err := lastNumber(lock, files, time.Now())
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("open journal: %w", err)
	}
	w := &Writer{
		cfg:     cfg,
		dir:     dir,
		opened:  time.Now(),
		lock:    lock,
		turn:    make(chan struct{}, 1),
		number:  number,
		open:    map[uint32]Channel{},
		writeAt: (*os.File).WriteAt,
	}
	if err := w.makeQueue(files); err != nil {
		lock.Close()
		return nil, fmt.Errorf("open journal: %w", err)
	}
	w.syncs.init(cfg.SyncInterval, dir, lock)
	return w, nil
}

// makeQueue makes room for blocks. What the writer before left in memory is
// the first to be written.
func (w *Writer) makeQueue(files []File) error {
	n := w.cfg.QueueSize / w.cfg.BlockSize
	if w.cfg.Memory != nil {
		m, err := openMemory(w.cfg.Memory, w.cfg.BlockSize, n)
		if err != nil {
			return err
		}
		var empty [][]byte
		if w.found, empty, err = m.left(files); err != nil {
			return err
		}
		n = m.slots()
		for _, d := range w.found {
			w.slots = append(w.slots, d.buf[:cap(d.buf)])
		}
		w.slots = append(w.slots, empty...)
	}
	w.free, w.queue = make(chan *Draft, n), make(chan entry, n+1)
	w.made.Store(int64(len(w.found)))
	for _, d := range w.found {
		w.Append(d)
	}
	if len(w.found) > 0 {
		w.reached.Store(w.found[0].begun.UnixNano())
		slog.Info("blocks found in memory that were not written yet", "dir", w.dir, "blocks", len(w.found))
	}
	return nil
}

// Found says whether the packet is in a block that the writer before had not
// written. Ask before Run.
func (w *Writer) Found(p Packet) bool {
	for _, d := range w.found {
		for q := range d.eachPacket {
			if q.Num == p.Num && q.At().Sub(p.At()).Abs() < time.Microsecond && bytes.Equal(q.Data, p.Data) {
				return true
			}
		}
	}
	return false
}

// lastNumber is one that no file has ever passed. When the folder was emptied
// or its counter damaged, it is the time in seconds: counting never got there.
func lastNumber(lock *os.File, files []File, now time.Time) (uint64, error) {
	text, err := io.ReadAll(lock)
	if err != nil {
		return 0, err
	}
	number, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		number = uint64(now.Unix())
	}
	if len(files) > 0 {
		number = max(number, files[len(files)-1].Number)
	}
	return number, nil
}

// Draft returns an empty block to fill, or nil while the queue is full. Give
// it back with Append, even when nothing was added.
func (w *Writer) Draft(shard uint16) *Draft {
	select {
	case d := <-w.free:
		d.reset(shard)
		return d
	default:
	}
	n := w.made.Add(1)
	if n > int64(cap(w.free)) {
		w.made.Add(-1)
		return nil
	}
	d := w.newDraft(n)
	d.reset(shard)
	return d
}

// newDraft makes the n-th draft in the world.
func (w *Writer) newDraft(n int64) *Draft {
	if w.slots == nil {
		return newDraft(w.cfg.BlockSize)
	}
	return draftOver(w.slots[n-1])
}

// Append queues the block; it never waits. Blocks are written in the order of
// their Append.
func (w *Writer) Append(d *Draft) {
	if d.Empty() {
		w.free <- d
		return
	}
	w.waiting.Add(1)
	w.queue <- entry{draft: d} // as many places as drafts
}

// WrittenUntil is an instant before which everything that was appended is
// written, and so outlives this process. now is when nothing waits.
func (w *Writer) WrittenUntil(now time.Time) time.Time {
	reached := w.reached.Load() // first: what is written meanwhile counts later
	if w.waiting.Load() == 0 {
		return now
	}
	return time.Unix(0, reached)
}

// Note queues notes in their order, all or none: it returns ErrFull while the
// queue is full.
func (w *Writer) Note(notes ...Note) error {
	var drafts []*Draft
	take := func() bool {
		d := w.Draft(0)
		if d == nil {
			return false
		}
		drafts = append(drafts, d)
		return true
	}
	back := func(err error) error {
		for _, d := range drafts {
			d.forget()
			w.free <- d
		}
		return err
	}
	for _, n := range notes {
		b, err := encode(n)
		if err != nil {
			return back(err)
		}
		for len(drafts) == 0 || !drafts[len(drafts)-1].addNote(n, b) {
			if !take() {
				return back(ErrFull)
			}
		}
	}
	for _, d := range drafts {
		w.Append(d)
	}
	return nil
}

// Queue is how full the queue is: 0 empty, 1 no block to be had.
func (w *Writer) Queue() float64 {
	used := w.made.Load() - int64(len(w.free))
	return min(1, float64(max(0, used))/float64(cap(w.free)))
}

// Bytes and Blocks written to files since Open, headers and all.
func (w *Writer) Bytes() uint64  { return w.bytes.Load() }
func (w *Writer) Blocks() uint64 { return w.blocks.Load() }

// Unclosed is how many bytes are in the file being written.
func (w *Writer) Unclosed() int64 { return w.filled.Load() }

// Sync is a percentile of how long a sync took over the last ten seconds. See
// Hangs for the one in progress.
func (w *Writer) Sync(percent int) time.Duration { return w.syncs.percentile(time.Now(), percent) }

// Hangs is how long the write or the sync in progress has not come back; it
// waits for neither.
func (w *Writer) Hangs() time.Duration {
	hangs := w.syncs.hangs(time.Now())
	if began := w.began.Load(); began != 0 {
		hangs = max(hangs, time.Since(w.opened)-time.Duration(began))
	}
	return hangs
}

// Stands is how long the writing loop has not got on though no disk holds it
// up: what Hangs and Err tell of is not its fault. 0 before Run.
func (w *Writer) Stands() time.Duration {
	turned := w.turned.Load()
	if turned == 0 || w.began.Load() != 0 {
		return 0
	}
	return time.Since(w.opened) - time.Duration(turned)
}

// mark leaves word that the writing loop gets on.
func (w *Writer) mark() { w.turned.Store(int64(time.Since(w.opened))) }

// Err is why the journal cannot be written now, nil when it can.
func (w *Writer) Err() error {
	if err := w.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// Rotate closes the current file and returns when everything appended before
// is in closed files, synced.
func (w *Writer) Rotate(ctx context.Context) error {
	select {
	case w.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	done := make(chan struct{})
	w.queue <- entry{rotate: done}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run writes what is appended until ctx ends, then what is still queued,
// seals the file and syncs everything. End the appending first. A disk that
// fails is waited for; only Run's end cuts that short, and then it returns an
// error that says how much was lost.
func (w *Writer) Run(ctx context.Context) error {
	defer w.lock.Close()
	w.found = nil
	var g errgroup.Group
	written := make(chan struct{})
	g.Go(func() error {
		defer close(written)
		return w.write(ctx)
	})
	g.Go(func() error { return w.syncs.run(written) })
	return g.Wait()
}

func (w *Writer) write(ctx context.Context) error {
	age := time.NewTicker(min(time.Second, w.cfg.FileAge))
	defer age.Stop()
	for {
		w.mark()
		select {
		case e := <-w.queue:
			w.take(ctx, e)
		case now := <-age.C:
			if f := w.current; f != nil && f.offset > f.start && now.Sub(f.opened) >= w.cfg.FileAge {
				w.retire()
			}
		case <-ctx.Done():
			for len(w.queue) > 0 {
				w.take(ctx, <-w.queue)
			}
			w.retire()
			w.taps.end()
			if w.lost != nil {
				return fmt.Errorf("write journal: at the end %d blocks were lost: %w", w.lostBlocks, w.lost)
			}
			return nil
		}
	}
}

// take does one entry of the queue.
func (w *Writer) take(ctx context.Context, e entry) {
	if e.rotate != nil {
		<-w.turn
		w.retire()
		w.syncs.whenClosed(e.rotate)
		return
	}
	d := e.draft
	if err := w.put(ctx, d); err != nil { // and stays in the memory
		w.lost = err
		w.lostBlocks++
	} else {
		d.forget()
	}
	w.reached.Store(d.begun.UnixNano())
	w.waiting.Add(-1)
	w.taps.offer(d)
	w.follow(d.notes)
	w.free <- d
}

// follow keeps the table of open channels that begins the next file.
func (w *Writer) follow(notes []Note) {
	for _, n := range notes {
		switch {
		case n.Opened != nil:
			w.open[n.Opened.Num] = *n.Opened
		case n.Updated != nil:
			w.open[n.Updated.Num] = *n.Updated
		case n.Closed != nil:
			delete(w.open, n.Closed.Num)
			w.taps.endOf(n.Closed.Num)
		}
	}
}

// put writes a block, however long that takes; only when ctx has ended does
// it lose patience.
func (w *Writer) put(ctx context.Context, d *Draft) error {
	for {
		w.began.Store(int64(time.Since(w.opened)))
		err := w.try(d)
		w.mark()
		w.began.Store(0)
		w.say(err)
		if err == nil || w.outOfPatience(ctx) {
			return err
		}
		time.Sleep(retryInterval)
	}
}

// outOfPatience gives all blocks left at the end of ctx one endPatience together.
func (w *Writer) outOfPatience(ctx context.Context) bool {
	if ctx.Err() == nil {
		return false
	}
	if w.end.IsZero() {
		w.end = time.Now().Add(endPatience)
	}
	return time.Now().After(w.end)
}

// say keeps what Err answers and logs each change of it once.
func (w *Writer) say(err error) {
	before := w.broken.Load()
	switch {
	case err == nil && before != nil:
		w.broken.Store(nil)
		slog.Info("journal is written again", "dir", w.dir)
	case err != nil && before == nil:
		w.broken.Store(&err)
		slog.Error("journal cannot be written; packets wait", "dir", w.dir, "err", err)
	case err != nil:
		w.broken.Store(&err)
	}
}

// try writes a block to the current file, or to a new one when that is full,
// old or not to be trusted.
func (w *Writer) try(d *Draft) error {
	f := w.current
	if f != nil && (f.offset > f.start && f.offset+int64(len(d.buf))+headerSize > w.cfg.FileSize || f.suspect.Load()) {
		w.retire()
	}
	if w.current == nil {
		if err := w.begin(); err != nil {
			return err
		}
	}
	return w.writeBlock(w.current, d)
}

// writeBlock writes at the last good offset. A torn write leaves the offset
// where it was: the next attempt covers it, or, when the file itself is the
// trouble, it is cut off and another file begun.
func (w *Writer) writeBlock(f *file, d *Draft) error {
	b := d.finish(f.nonce, f.sequence)
	if _, err := w.writeAt(f.File, b, f.offset); err != nil {
		if !full(err) {
			f.suspect.Store(true)
		}
		return fmt.Errorf("write block: %w", err)
	}
	f.offset += int64(len(b))
	w.filled.Store(f.offset)
	f.sequence++
	f.dirty.Store(true)
	w.blocks.Add(1)
	w.bytes.Add(uint64(len(b)))
	return nil
}

func full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// begin creates the next file, with the notes that make it readable alone.
func (w *Writer) begin() error {
	number := w.number + 1
	if _, err := fmt.Fprintf(io.NewOffsetWriter(w.lock, 0), "%020d\n", number); err != nil {
		return fmt.Errorf("create journal file: %w", err)
	}
	f, err := w.create(number)
	if err != nil {
		return fmt.Errorf("create journal file: %w", err)
	}
	if err := w.writeOpening(f); err != nil {
		f.Close()
		os.Remove(f.path)
		return err
	}
	f.start = f.offset
	w.number, w.begun, w.current = number, true, f
	w.syncs.follow(f)
	return nil
}

// create makes a file that nobody sees before it is locked: one listed
// without its lock would pass for the leavings of a dead recorder, be
// compacted and removed while it is being written.
func (w *Writer) create(number uint64) (*file, error) {
	var random [8]byte
	rand.Read(random[:])
	nonce := binary.LittleEndian.Uint64(random[:])
	unseen := filepath.Join(w.dir, unseenFile)
	osf, err := os.OpenFile(unseen, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o640)
	if err != nil {
		return nil, err
	}
	path := fileName(w.dir, number, nonce)
	if err = w.reserve(osf); err == nil {
		err = os.Rename(unseen, path)
	}
	if err != nil {
		osf.Close()
		os.Remove(unseen)
		return nil, err
	}
	return &file{File: osf, path: path, number: number, nonce: nonce, opened: time.Now()}, nil
}

// reserve locks a new file and takes the room for it; without room for all of
// it, what there is will be used.
func (w *Writer) reserve(f *os.File) error {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	if err := unix.Fallocate(int(f.Fd()), 0, 0, w.cfg.FileSize); err != nil && !full(err) && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	return nil
}

func (w *Writer) writeOpening(f *file) error {
	notes := []Note{{Started: &Started{Boot: w.cfg.Boot, At: time.Now(), File: f.number, Continued: w.begun}}}
	for _, ch := range w.open {
		notes = append(notes, Note{Opened: &ch})
	}
	slices.SortFunc(notes[1:], func(a, b Note) int { return cmp.Compare(a.Opened.Num, b.Opened.Num) })
	d := newDraft(w.cfg.BlockSize)
	for _, n := range notes {
		b, err := encode(n)
		if err != nil {
			return err
		}
		if d.addNote(n, b) {
			continue
		}
		if err := w.writeBlock(f, d); err != nil {
			return err
		}
		d.reset(0)
		d.addNote(n, b)
	}
	return w.writeBlock(f, d)
}

// retire ends the current file; the syncer syncs and closes it.
func (w *Writer) retire() {
	f := w.current
	if f == nil {
		return
	}
	w.current = nil
	defer w.filled.Store(0)
	if !f.suspect.Load() {
		seal := newDraft(headerSize)
		seal.kind = kindSeal
		if err := w.writeBlock(f, seal); err != nil {
			slog.Warn("journal file not sealed", "file", f.path, "err", err)
		}
	}
	if err := f.Truncate(f.offset); err != nil {
		slog.Warn("journal file not cut", "file", f.path, "err", err)
	}
	f.dirty.Store(true)
	w.syncs.retire(f)
}
