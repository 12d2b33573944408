package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tandem/internal/call"
	"tandem/internal/media"
)

// start runs a writer in a new folder; stop ends it and is called by the
// test's cleanup at the latest.
func start(t testing.TB, dir string, change func(*Config), more ...func(*Writer)) (w *Writer, stop func() error) {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Boot = "boot"
	cfg.SyncInterval = 5 * time.Millisecond
	if change != nil {
		change(&cfg)
	}
	w, err := Open(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range more {
		m(w)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	var result error
	var once atomic.Bool
	stop = func() error {
		if once.CompareAndSwap(false, true) {
			cancel()
			result = <-done
		}
		return result
	}
	t.Cleanup(func() { stop() })
	return w, stop
}

func channel(num uint32) Channel {
	return Channel{
		Num: num, ID: call.ChannelID(fmt.Sprintf("s1.m%d.A", num)), Copy: call.CopyA,
		Codec: media.PCMU, Opened: time.Unix(1700000000, 0).UTC(),
	}
}

// packet makes bytes that name their channel and number.
func packet(num uint32, n int) []byte {
	return fmt.Appendf(make([]byte, 0, 172), "%d/%d/%0*d", num, n, n%150, 0)
}

// add appends one block of count packets of each channel.
func add(t testing.TB, w *Writer, shard uint16, first, count int, nums ...uint32) {
	t.Helper()
	d := w.Draft(shard)
	if d == nil {
		t.Fatal("queue full")
	}
	for _, num := range nums {
		for n := first; n < first+count; n++ {
			if !d.Add(num, arrival(n), packet(num, n)) {
				t.Fatal("does not fit")
			}
		}
	}
	w.Append(d)
}

func arrival(n int) int64 { return 1700000000_000000000 + int64(n)*20_000_000 }

type content struct {
	packets map[uint32][]string // "number of packet" as written, by channel
	notes   []Note
	blocks  int
	sealed  bool
	damage  []*CorruptError
}

// readFile reads all that is whole in one file.
func readFile(t testing.TB, path string) content {
	t.Helper()
	r, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return drain(t, r)
}

func drain(t testing.TB, r *Reader) content {
	t.Helper()
	c := content{packets: map[uint32][]string{}}
	for {
		b, err := r.Next()
		var corrupt *CorruptError
		switch {
		case err == io.EOF:
			c.sealed = r.Sealed()
			return c
		case errors.As(err, &corrupt):
			c.damage = append(c.damage, corrupt)
			if _, err := r.Resync(); err == io.EOF {
				return c
			} else if err != nil {
				t.Fatal(err)
			}
		case err != nil:
			t.Fatal(err)
		default:
			c.blocks++
			c.notes = append(c.notes, b.Notes...)
			for p := range b.Packets {
				c.packets[p.Num] = append(c.packets[p.Num], string(p.Data))
			}
		}
	}
}

func readAll(t testing.TB, dir string) content {
	t.Helper()
	files, err := Files(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := content{packets: map[uint32][]string{}, sealed: true}
	for _, f := range files {
		c := readFile(t, f.Path)
		for num, ps := range c.packets {
			all.packets[num] = append(all.packets[num], ps...)
		}
		all.notes = append(all.notes, c.notes...)
		all.damage = append(all.damage, c.damage...)
		all.blocks += c.blocks
		all.sealed = all.sealed && c.sealed
	}
	return all
}

func wantPackets(t testing.TB, c content, num uint32, first, count int) {
	t.Helper()
	var want []string
	for n := first; n < first+count; n++ {
		want = append(want, string(packet(num, n)))
	}
	if !slices.Equal(c.packets[num], want) {
		t.Errorf("channel %d: read %d packets %.60q..., want %d", num, len(c.packets[num]), c.packets[num], len(want))
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("not within half a minute: " + what)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	w, stop := start(t, dir, nil)
	at := time.Unix(1700000100, 0).UTC()
	notes := []Note{
		{Opened: &Channel{Num: 7, ID: "s1.m1.A", Copy: "A", Opened: at}},
		{Updated: &Channel{Num: 7, ID: "s1.m1.A", Copy: "A", Codec: media.PCMA, PayloadType: 8, Opened: at}},
		{Dropped: &Dropped{Num: 7, From: at, To: at.Add(time.Second), Packets: 50, Cause: call.CauseDisk, Why: "full"}},
		{Reported: &Reported{Num: 7, SSRC: 9, NTP: 1 << 63, RTP: 160, Arrival: 5}},
	}
	if err := w.Note(notes...); err != nil {
		t.Fatal(err)
	}
	add(t, w, 3, 0, 100, 7, 8)
	add(t, w, 3, 100, 1, 7)
	if err := w.Note(Note{Closed: &Closed{Num: 7, At: at, Cause: "logged_off"}}); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	c := readAll(t, dir)
	wantPackets(t, c, 7, 0, 101)
	wantPackets(t, c, 8, 0, 100)
	if len(c.damage) > 0 || !c.sealed {
		t.Errorf("sealed %v, damage %v", c.sealed, c.damage)
	}
	if s := c.notes[0].Started; s == nil || s.Boot != "boot" || s.File == 0 || s.Continued {
		t.Errorf("first note %+v", c.notes[0])
	}
	want := append(notes, Note{Closed: &Closed{Num: 7, At: at, Cause: "logged_off"}})
	if got := fmt.Sprint(flat(c.notes[1:])); got != fmt.Sprint(flat(want)) {
		t.Errorf("notes\n%v\nwant\n%v", got, flat(want))
	}
}

// flat prints notes by value.
func flat(notes []Note) []string {
	var s []string
	for _, n := range notes {
		b, _ := encode(n)
		s = append(s, string(b))
	}
	return s
}

func TestArrivalKeptToTheMicrosecond(t *testing.T) {
	dir := t.TempDir()
	w, stop := start(t, dir, nil)
	base := time.Date(2026, 3, 1, 9, 0, 0, 123456789, time.UTC).UnixNano()
	arrivals := []int64{base, base + 20_000_000, base - 3_000_000_000, base + 999}
	d := w.Draft(0)
	for _, a := range arrivals {
		d.Add(1, a, []byte("x"))
	}
	if d.Add(1, base+int64(time.Hour), []byte("x")) {
		t.Error("an hour fits the delta of a block")
	}
	w.Append(d)
	stop()
	files, _ := Files(dir)
	r, err := OpenFile(files[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got []int64
	for {
		b, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for p := range b.Packets {
			got = append(got, p.Arrival)
		}
	}
	for i, a := range arrivals {
		if d := a - got[i]; d < 0 || d >= 1000 {
			t.Errorf("arrival %d came back %d ns early", i, d)
		}
	}
	if got[0] != base {
		t.Errorf("the first arrival of a block is exact: %d, want %d", got[0], base)
	}
}

func TestEveryFileBeginsWithTheOpenChannels(t *testing.T) {
	dir := t.TempDir()
	w, stop := start(t, dir, func(c *Config) { c.FileSize = 300 << 10; c.BlockSize = minBlock })
	const channels = 2000 // their table takes more than one block
	for num := range uint32(channels) {
		if err := w.Note(Note{Opened: new(channel(num))}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "room in the queue", func() bool { return w.Queue() < 0.9 })
	}
	closed := uint32(1234)
	if err := w.Note(Note{Closed: &Closed{Num: closed}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	add(t, w, 0, 0, 10, 1)
	stop()
	files, err := Files(dir)
	if err != nil {
		t.Fatal(err)
	}
	last := readFile(t, files[len(files)-1].Path)
	if s := last.notes[0].Started; s == nil || !s.Continued || s.File != files[len(files)-1].Number {
		t.Errorf("first note %+v", last.notes[0])
	}
	seen := map[uint32]bool{}
	for _, n := range last.notes[1:] {
		seen[n.Opened.Num] = true
	}
	if len(seen) != channels-1 || seen[closed] {
		t.Errorf("table of %d channels (closed one in it: %v), want %d", len(seen), seen[closed], channels-1)
	}
	wantPackets(t, last, 1, 0, 10)
}

func TestFilesAreCutBySizeAndAge(t *testing.T) {
	t.Run("size", func(t *testing.T) {
		dir := t.TempDir()
		w, stop := start(t, dir, func(c *Config) { c.FileSize = 100 << 10 })
		for n := range 40 {
			add(t, w, 0, n*100, 100, 1)
		}
		stop()
		files, _ := Files(dir)
		if len(files) < 3 {
			t.Fatalf("%d files", len(files))
		}
		for i, f := range files {
			info, err := os.Stat(f.Path)
			if err != nil {
				t.Fatal(err)
			}
			if f.Number != files[0].Number+uint64(i) || !f.Closed || info.Size() > 100<<10 {
				t.Errorf("file %+v, %d bytes", f, info.Size())
			}
		}
		c := readAll(t, dir)
		wantPackets(t, c, 1, 0, 4000)
		if !c.sealed {
			t.Error("not sealed")
		}
	})
	t.Run("age", func(t *testing.T) {
		dir := t.TempDir()
		w, _ := start(t, dir, func(c *Config) { c.FileAge = 20 * time.Millisecond })
		add(t, w, 0, 0, 1, 1)
		eventually(t, "a closed file", func() bool {
			files, err := Files(dir)
			return err == nil && len(files) > 0 && files[0].Closed
		})
	})
}

func TestReadWhileWritten(t *testing.T) {
	dir := t.TempDir()
	w, stop := start(t, dir, nil)
	add(t, w, 0, 0, 10, 1)
	eventually(t, "the first blocks", func() bool { return w.Blocks() == 2 })
	files, err := Files(dir)
	if err != nil || len(files) != 1 || files[0].Closed {
		t.Fatalf("files %v, %v: want one that is being written", files, err)
	}
	r, err := OpenFile(files[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := 0
	read := func() {
		for {
			b, err := r.Next()
			if err == io.EOF {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got += b.Count
		}
	}
	read()
	if got != 10 {
		t.Fatalf("%d packets, want 10", got)
	}
	for n := 1; n <= 100; n++ {
		add(t, w, 0, 10*n, 10, 1)
		eventually(t, "the block", func() bool { read(); return got == 10+10*n })
	}
	if r.Sealed() {
		t.Error("sealed while being written")
	}
	stop()
	read()
	if !r.Sealed() {
		t.Error("not sealed at the end")
	}
}

func TestHalfWrittenBlockIsNotDamageWhileWritten(t *testing.T) {
	dir := t.TempDir()
	half := make(chan struct{})
	release := make(chan struct{})
	w, _ := start(t, dir, nil, func(w *Writer) {
		w.writeAt = func(f *os.File, b []byte, offset int64) (int, error) {
			if len(b) < 1000 {
				return f.WriteAt(b, offset)
			}
			f.WriteAt(b[:500], offset)
			half <- struct{}{}
			<-release
			return f.WriteAt(b, offset)
		}
	})
	add(t, w, 0, 0, 100, 1)
	<-half
	opening := w.Unclosed()
	files, err := Files(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := OpenFile(files[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if c := drain(t, r); c.blocks != 1 || len(c.damage) > 0 {
		t.Errorf("half-way: %d blocks, damage %v; want the opening block alone", c.blocks, c.damage)
	}
	close(release)
	eventually(t, "the whole block", func() bool { return w.Blocks() == 2 })
	if got := w.Unclosed(); opening == 0 || got <= opening || uint64(got) != w.Bytes() {
		t.Errorf("%d bytes in the open file, %d before the block", got, opening)
	}
	c := drain(t, r)
	wantPackets(t, c, 1, 0, 100)
}

// A listing at any instant never calls closed what is not: whoever compacts
// would remove a file that has just been begun.
func TestAFileIsLockedBeforeItIsSeen(t *testing.T) {
	dir := t.TempDir()
	w, stop := start(t, dir, func(c *Config) { c.FileSize = 64 << 10 })
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range 300 {
			add(t, w, 0, n, 1, 1)
			if err := w.Rotate(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}()
	checked := map[string]bool{}
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		default:
		}
		files, err := Files(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if !f.Closed || checked[f.Path] {
				continue
			}
			checked[f.Path] = true
			r, err := OpenFile(f.Path)
			if err != nil {
				t.Fatal(err)
			}
			for err == nil {
				_, err = r.Next()
			}
			if err != io.EOF || !r.Sealed() {
				t.Errorf("%s is listed as closed and is not: %v", filepath.Base(f.Path), err)
			}
			r.Close()
		}
	}
	stop()
	if len(checked) < 300 {
		t.Errorf("%d files seen closed, want all 300", len(checked))
	}
}

func TestOneWriterAFolder(t *testing.T) {
	dir := t.TempDir()
	_, stop := start(t, dir, nil)
	if _, err := Open(dir, DefaultConfig()); err == nil {
		t.Fatal("a second writer was let in")
	}
	stop()
	w, err := Open(dir, DefaultConfig())
	if err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	w.lock.Close()
}

func TestNumbersGoOnAfterARestart(t *testing.T) {
	dir := t.TempDir()
	for n := range 3 {
		w, stop := start(t, dir, nil)
		add(t, w, 0, n, 1, 1)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
	files, _ := Files(dir)
	for i, f := range files {
		if f.Number != files[0].Number+uint64(i) {
			t.Errorf("file %d has number %d, the first %d", i, f.Number, files[0].Number)
		}
	}
	wantPackets(t, readAll(t, dir), 1, 0, 3)
}

// Whoever has compacted file 7 passes over every file up to 7.
func TestNumbersDoNotComeAgain(t *testing.T) {
	dir := t.TempDir()
	var last uint64
	run := func() {
		t.Helper()
		w, stop := start(t, dir, nil)
		add(t, w, 0, 0, 1, 1)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		files, err := Files(dir)
		if err != nil || len(files) != 1 || files[0].Number <= last {
			t.Fatalf("files %v, %v: want one above %d", files, err, last)
		}
		last = files[0].Number
		if err := os.Remove(files[0].Path); err != nil { // as when it is compacted
			t.Fatal(err)
		}
	}
	run()
	first := last
	run()
	if last != first+1 {
		t.Errorf("number %d follows %d", last, first)
	}
	// The counter is lost, later than it takes to count so far.
	for _, text := range []string{"", "\x00\x00\x00", "nonsense"} {
		if err := os.WriteFile(filepath.Join(dir, lockFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(filepath.Join(dir, lockFile))
		if err != nil {
			t.Fatal(err)
		}
		got, err := lastNumber(f, nil, time.Now().Add(time.Minute))
		f.Close()
		if err != nil || got <= last {
			t.Errorf("counter %q: %d, %v; want above %d", text, got, err, last)
		}
	}
}

func TestSlowDiskPushesBack(t *testing.T) {
	dir := t.TempDir()
	release := make(chan struct{})
	w, stop := start(t, dir, func(c *Config) { c.QueueSize = 8 * c.BlockSize }, func(w *Writer) {
		w.writeAt = func(f *os.File, b []byte, offset int64) (int, error) {
			<-release
			return f.WriteAt(b, offset)
		}
	})
	appended := 0
	for {
		d := w.Draft(0)
		if d == nil {
			break
		}
		d.Add(1, arrival(appended), packet(1, appended))
		w.Append(d)
		appended++
	}
	if appended != 8 || w.Queue() != 1 {
		t.Errorf("%d blocks queued, queue %v; want 8 and 1", appended, w.Queue())
	}
	if err := w.Note(Note{Opened: new(channel(2))}); !errors.Is(err, ErrFull) {
		t.Errorf("note into a full queue: %v", err)
	}
	if until, now := w.WrittenUntil(time.Now()), time.Now(); now.Sub(until) < time.Second {
		t.Errorf("nothing has been written, said to be until %v ago", now.Sub(until))
	}
	eventually(t, "word of the hanging disk", func() bool { return w.Hangs() > 20*time.Millisecond })
	close(release)
	eventually(t, "an empty queue", func() bool { return w.Queue() == 0 })
	if now := time.Now(); !w.WrittenUntil(now).Equal(now) {
		t.Error("all is written, and not said to be")
	}
	eventually(t, "word of the disk being back", func() bool { return w.Hangs() < 20*time.Millisecond })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	wantPackets(t, readAll(t, dir), 1, 0, appended)
}

// A disk that tears writes and fails for reasons of its own costs files, not
// blocks.
func TestTornWritesLoseNothing(t *testing.T) {
	for _, failure := range []error{unix.ENOSPC, unix.EIO} {
		t.Run(failure.Error(), func(t *testing.T) {
			dir := t.TempDir()
			var writes int
			w, stop := start(t, dir, nil, func(w *Writer) {
				w.writeAt = func(f *os.File, b []byte, offset int64) (int, error) {
					if writes++; writes%5 == 3 {
						n, _ := f.WriteAt(b[:len(b)/2], offset)
						return n, &os.PathError{Op: "write", Path: f.Name(), Err: failure}
					}
					return f.WriteAt(b, offset)
				}
			})
			for n := range 10 {
				add(t, w, 0, 10*n, 10, 1)
			}
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			c := readAll(t, dir)
			wantPackets(t, c, 1, 0, 100)
			if len(c.damage) > 0 {
				t.Errorf("damage %v", c.damage)
			}
		})
	}
}

func TestEndWithABrokenDiskSaysWhatIsLost(t *testing.T) {
	w, stop := start(t, t.TempDir(), nil, func(w *Writer) {
		w.writeAt = func(*os.File, []byte, int64) (int, error) { return 0, unix.EIO }
	})
	add(t, w, 0, 0, 10, 1)
	eventually(t, "a failure", func() bool { return w.Err() != nil })
	if err := stop(); !errors.Is(err, unix.EIO) {
		t.Errorf("run ended with %v", err)
	}
}

func TestDiskFullRecoversByItself(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tandem-test", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	journalDir := filepath.Join(dir, "journal")
	w, stop := start(t, journalDir, func(c *Config) { c.QueueSize = 4 * c.BlockSize; c.FileSize = 8 << 20 })
	appended := 0
	fill := func() bool {
		d := w.Draft(0)
		if d == nil {
			return false
		}
		for range 500 {
			d.Add(1, arrival(appended), packet(1, appended))
			appended++
		}
		w.Append(d)
		return true
	}
	eventually(t, "back-pressure", func() bool { fill(); return w.Err() != nil && w.Queue() == 1 })
	if !errors.Is(w.Err(), unix.ENOSPC) {
		t.Errorf("journal says %v", w.Err())
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an empty queue", func() bool { return w.Queue() == 0 && w.Err() == nil })
	fill()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	c := readAll(t, journalDir)
	wantPackets(t, c, 1, 0, appended)
	if len(c.damage) > 0 {
		t.Errorf("damage %v", c.damage)
	}
}

func TestSyncLatencyIsMeasured(t *testing.T) {
	w, _ := start(t, t.TempDir(), nil)
	add(t, w, 0, 0, 1, 1)
	eventually(t, "a measured sync", func() bool { return w.Sync(99) > 0 && w.Sync(50) <= w.Sync(99) })

	var l latencies
	now := time.Now()
	l.add(now.Add(-11*time.Second), time.Hour) // too old to count
	for i := range 100 {
		l.add(now, time.Duration(i+1)*time.Millisecond)
	}
	s := syncer{began: now.Add(-3 * time.Second), took: l}
	for percent, want := range map[int]time.Duration{50: 50 * time.Millisecond, 99: 99 * time.Millisecond, 100: 100 * time.Millisecond} {
		if got := s.percentile(now, percent); got != want {
			t.Errorf("p%d %v, want %v", percent, got, want)
		}
	}
	if got := s.hangs(now); got != 3*time.Second {
		t.Errorf("hangs %v, want 3s", got)
	}
	s.took = latencies{}
	if got := s.percentile(now, 50); got != 3*time.Second {
		t.Errorf("nothing but a sync that hangs: %v, want 3s", got)
	}
}

func TestListen(t *testing.T) {
	w, stop := start(t, t.TempDir(), nil)
	l := w.Listen(2)
	left := w.Listen(2)
	left.Close()
	add(t, w, 0, 0, 3, 1, 2)
	for n := range 3 {
		p := <-l.Packets()
		if p.Num != 2 || string(p.Data) != string(packet(2, n)) || p.Arrival != arrival(n) {
			t.Errorf("heard %d %q", p.Num, p.Data)
		}
	}
	if err := w.Note(Note{Closed: &Closed{Num: 2}}); err != nil {
		t.Fatal(err)
	}
	if p, more := <-l.Packets(); more {
		t.Errorf("after the channel closed: %q", p.Data)
	}
	slow := w.Listen(1)
	add(t, w, 0, 0, 100, 1)
	add(t, w, 0, 100, 300, 1)
	eventually(t, "a counted drop", func() bool { return slow.Dropped() == 400-listenRing })
	stop()
	heard := 0
	for range slow.Packets() {
		heard++
	}
	if heard != listenRing {
		t.Errorf("heard %d, want %d", heard, listenRing)
	}
	if len(left.Packets()) > 0 {
		t.Error("a listener that left still hears")
	}
	if _, more := <-w.Listen(1).Packets(); more {
		t.Error("a writer that has ended is heard")
	}
}

func TestReadingAndFillingDoNotAllocate(t *testing.T) {
	d := newDraft(256 << 10)
	p := make([]byte, 172)
	d.reset(0)
	d.Add(1, arrival(0), p)
	fill := testing.AllocsPerRun(100, func() {
		d.reset(0)
		for n := range 1000 {
			d.Add(uint32(n/3), arrival(n), p)
		}
	})
	if fill != 0 {
		t.Errorf("filling a block: %v allocations", fill)
	}
	b := Block{Kind: KindPackets, base: d.base, content: d.buf[headerSize:]}
	var seen int
	read := testing.AllocsPerRun(100, func() {
		for p := range b.Packets {
			seen += len(p.Data)
		}
	})
	if read != 0 || seen != 101*1000*172 {
		t.Errorf("reading a block: %v allocations, %d bytes", read, seen)
	}
}
