// Package compact turns closed journal files into media segments.
//
// It reads each file once, in order, puts every packet that is kept at its
// place in a segment file, syncs them together, commits their rows and its own
// state in one catalog transaction and only then removes the journal files.
// A crash at any instant is followed by the same work from the last commit,
// with the same result.
package compact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"tandem/internal/call"
	"tandem/recorder/catalog"
	"tandem/recorder/journal"
	"tandem/recorder/rtpstream"
)

// Config says where things are and what is kept.
type Config struct {
	Journal  string        // folder
	Media    string        // folder
	Slot     time.Duration // segments are cut at its multiples; divides a day
	KeepAll  bool          // else what legs and blind windows select
	PreRoll  time.Duration // kept before a leg
	PostRoll time.Duration // kept after it
	Lateness time.Duration // how late a leg may be announced beyond PreRoll; more costs disk, less clips legs
	Interval time.Duration // between commits: what a crash makes to be done again
}

// DefaultConfig keeps calls in slots of a quarter of an hour.
func DefaultConfig() Config {
	return Config{Slot: 15 * time.Minute, PreRoll: 2 * time.Second, PostRoll: 2 * time.Second, Lateness: 3 * time.Second, Interval: 5 * time.Second}
}

// Summary says what was done, and what could not be read.
type Summary struct {
	Files       int
	Packets     int64
	Unkept      int64 // outside every leg and blind window
	Unsupported int64 // not RTP, or not G.711
	Strays      int64 // fitted no stream
	Gaps        int
	Sealed      int
	Corrupt     []*journal.CorruptError
}

// state is what the compactor knows beyond the rows it has committed.
type state struct {
	Boot     string
	Last     rtpstream.Wall // newest arrival
	Channels []*channel
	Sealing  []*piece // nothing comes for them any more
}

// Compactor is the one owner of segments. It is not safe for concurrent use,
// except for Lag.
type Compactor struct {
	cfg Config
	cat *catalog.Catalog
	now func() time.Time
	lag atomic.Int64

	loaded   bool
	number   uint64 // committed
	done     uint64 // compacted, not committed yet
	state    state
	channels map[uint32]*channel
	keeping  keeping
	rows     []catalog.Segment // of media that is not there
	absent   []absence
	heard    []catalog.Heard // since the last commit
	holes    []rtpstream.Hole
	parser   rtpstream.Parser
	sum      Summary

	crash func(step string) error // a test's way to stop anywhere
}

// New makes a compactor; nothing is read before the first Step.
func New(cfg Config, cat *catalog.Catalog) *Compactor {
	return &Compactor{cfg: cfg, cat: cat, now: time.Now, crash: func(string) error { return nil }}
}

// Lag is how many bytes of closed journal files are not compacted.
func (c *Compactor) Lag() int64 { return c.lag.Load() }

// Run compacts what is ready every Interval until ctx ends. What fails is
// logged once and tried again: nothing is removed before it is safe.
func (c *Compactor) Run(ctx context.Context) error {
	tick := time.NewTicker(c.cfg.Interval)
	defer tick.Stop()
	failed := ""
	for {
		sum, err := c.Step(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && err.Error() != failed:
			slog.Error("compaction failed, journal is kept", "err", err)
			failed = err.Error()
		case err == nil && failed != "":
			slog.Info("compaction works again")
			failed = ""
		}
		sum.log()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s Summary) log() {
	for _, e := range s.Corrupt {
		slog.Error("journal damaged", "file", e.File, "offset", e.Offset, "reason", e.Reason)
	}
	if s.Files > 0 {
		slog.Debug("compacted", "files", s.Files, "packets", s.Packets, "unkept", s.Unkept, "gaps", s.Gaps, "sealed", s.Sealed)
	}
}

// Step compacts every journal file that is closed and old enough, commits, and
// seals what is over. After an error everything since the last commit is
// forgotten and will be done again.
func (c *Compactor) Step(ctx context.Context) (Summary, error) {
	c.sum = Summary{}
	err := c.step(ctx)
	if err != nil {
		c.loaded = false
		err = fmt.Errorf("compact journal: %w", err)
	}
	return c.sum, err
}

func (c *Compactor) step(ctx context.Context) error {
	files, err := journal.Files(c.cfg.Journal)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !c.loaded {
		if err := c.load(ctx, files); err != nil {
			return err
		}
	}
	files = slices.DeleteFunc(files, func(f journal.File) bool { return f.Number <= c.number })
	ready := c.ready(files)
	c.measure(files)
	committed := time.Now()
	for i, f := range files[:ready] {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.compact(ctx, f); err != nil {
			return err
		}
		if i+1 < ready && time.Since(committed) < c.cfg.Interval {
			continue
		}
		if err := c.commit(ctx); err != nil {
			return err
		}
		c.measure(files[i+1:])
		committed = time.Now()
	}
	if err := c.expire(ctx, c.clock(files[ready:])); err != nil {
		return err
	}
	if c.idle() {
		return nil
	}
	return c.commit(ctx)
}

// ready counts the files that can be compacted: closed, and so old that every
// leg that keeps some of them has been announced.
func (c *Compactor) ready(files []journal.File) int {
	wait := c.cfg.PreRoll + c.cfg.Lateness
	if c.cfg.KeepAll {
		wait = 0
	}
	for i, f := range files {
		info, err := os.Stat(f.Path)
		if err != nil || !f.Closed || c.now().Sub(info.ModTime()) < wait {
			return i
		}
	}
	return len(files)
}

func (c *Compactor) measure(files []journal.File) {
	lag := int64(0)
	for _, f := range files {
		if info, err := os.Stat(f.Path); err == nil && f.Closed {
			lag += info.Size()
		}
	}
	c.lag.Store(lag)
}

// clock is the time before which everything that arrived has been compacted.
func (c *Compactor) clock(rest []journal.File) rtpstream.Wall {
	const unwritten = 15 * time.Second // what may wait in memory for a slow disk
	now := rtpstream.WallOf(c.now().Add(-unwritten))
	if len(rest) > 0 {
		if s, err := started(rest[0]); err == nil {
			return min(now, rtpstream.WallOf(s.At.Add(-unwritten)))
		}
		return c.state.Last
	}
	return now
}

// started is the note that opens a journal file.
func started(f journal.File) (journal.Started, error) {
	r, err := journal.OpenFile(f.Path)
	if err != nil {
		return journal.Started{}, err
	}
	defer r.Close()
	b, err := r.Next()
	if err != nil {
		return journal.Started{}, err
	}
	if len(b.Notes) == 0 || b.Notes[0].Started == nil {
		return journal.Started{}, fmt.Errorf("journal %s does not begin with a start", f.Path)
	}
	return *b.Notes[0].Started, nil
}

// read calls each for every whole block of a file. Damage is returned and
// passed over.
func read(f journal.File, each func(*journal.Block) error) (corrupt []*journal.CorruptError, err error) {
	r, err := journal.OpenFile(f.Path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	for {
		b, err := r.Next()
		var damage *journal.CorruptError
		switch {
		case err == io.EOF:
			return corrupt, nil
		case errors.As(err, &damage):
			corrupt = append(corrupt, damage)
			if _, err := r.Resync(); err == io.EOF {
				return corrupt, nil
			} else if err != nil {
				return corrupt, err
			}
		case err != nil:
			return corrupt, err
		default:
			if err := each(b); err != nil {
				return corrupt, err
			}
		}
	}
}

// compact takes one file into the segments.
func (c *Compactor) compact(ctx context.Context, f journal.File) error {
	if err := c.begin(ctx, f); err != nil {
		return err
	}
	table := false // being read: the notes that open a continued file
	var last *channel
	next := uint32(0)
	corrupt, err := read(f, func(b *journal.Block) error {
		table = table && b.Sequence == next // else part of it may be lost
		next = b.Sequence + 1
		if len(b.Notes) > 0 {
			last = nil
			return c.notes(b.Notes, &table)
		}
		if table {
			table = false
			if err := c.closeUnlisted(); err != nil {
				return err
			}
		}
		var failure error
		for p := range b.Packets {
			if last == nil || last.Channel.Num != p.Num {
				if last, failure = c.channel(ctx, p.Num); failure != nil {
					break
				}
			}
			if failure = c.take(last, p); failure != nil {
				break
			}
		}
		return failure
	})
	if err != nil {
		return err
	}
	c.sum.Corrupt = append(c.sum.Corrupt, corrupt...)
	c.sum.Files++
	c.done = f.Number
	if err := c.explain(ctx); err != nil {
		return err
	}
	return c.crash("compacted")
}

// begin learns what is kept in the time of a file.
func (c *Compactor) begin(ctx context.Context, f journal.File) error {
	if c.cfg.KeepAll {
		for _, ch := range c.state.Channels {
			for _, t := range ch.Tracks {
				t.refresh(c.cfg.Slot, nil)
			}
		}
		return nil
	}
	from, err := c.firstArrival(f)
	if err != nil {
		return err
	}
	if c.state.Last > 0 {
		from = min(from, c.state.Last)
	}
	k, err := c.loadKeeping(ctx, span{from.Add(-settleTime), rtpstream.WallOf(c.now())})
	if err != nil {
		return err
	}
	c.keeping = k
	for _, ch := range c.state.Channels {
		ch.keep = nil
		for _, t := range ch.Tracks {
			t.refresh(c.cfg.Slot, c.keep(ch))
		}
	}
	return nil
}

// firstArrival is that of the first packet in a file, or now when it has none.
func (c *Compactor) firstArrival(f journal.File) (rtpstream.Wall, error) {
	first := rtpstream.WallOf(c.now())
	found := errors.New("found")
	_, err := read(f, func(b *journal.Block) error {
		for p := range b.Packets {
			first = min(first, rtpstream.Wall(p.Arrival))
			return found
		}
		return nil
	})
	if errors.Is(err, found) {
		err = nil
	}
	return first, err
}

// notes applies what the journal says beside packets.
func (c *Compactor) notes(notes []journal.Note, table *bool) error {
	for _, n := range notes {
		switch {
		case n.Started != nil:
			*table = c.started(*n.Started)
		case n.Opened != nil:
			ch := c.open(*n.Opened)
			ch.listed = true
			c.moved(ch)
		case n.Updated != nil:
			c.moved(c.open(*n.Updated))
		case n.Closed != nil:
			if ch := c.channels[n.Closed.Num]; ch != nil {
				if ch.Channel.Continues.Cause == call.CauseUnattached && n.Closed.Cause != call.Moved {
					ch.Stream.Moved(rtpstream.WallOf(n.Closed.At)) // nothing was ever sent
				}
				if err := c.close(ch); err != nil {
					return err
				}
			}
		case n.Dropped != nil && (n.Dropped.Unseen || n.Dropped.Cause == call.CauseDisk):
			if ch := c.channels[n.Dropped.Num]; ch != nil {
				c.dropped(ch, *n.Dropped)
			}
		case n.Unheard != nil:
			if ch := c.channels[n.Unheard.Num]; ch != nil {
				ch.Stream.Unlistened(rtpstream.WallOf(n.Unheard.From), rtpstream.WallOf(n.Unheard.To))
			}
		case n.Reported != nil:
			if ch := c.channels[n.Reported.Num]; ch != nil {
				ch.Stream.Report(n.Reported.SSRC, n.Reported.RTP, rtpstream.WallOfNTP(n.Reported.NTP))
			}
		}
	}
	return nil
}

// dropped notes that datagrams of a channel are not in the journal: they may
// have been packets of a run, or all there was between two.
func (c *Compactor) dropped(ch *channel, d journal.Dropped) {
	for _, run := range ch.Stream.Drop(rtpstream.Drop{From: rtpstream.WallOf(d.From), To: rtpstream.WallOf(d.To), Cause: d.Cause}) {
		c.absent = append(c.absent, absence{ch, run, *run.Head, false})
	}
	for _, t := range ch.Tracks {
		t.saved = 0 // an open segment's row tells those who listen now
	}
}

// started notes a new boot, after which packets may be missing, and says
// whether a table of open channels follows.
func (c *Compactor) started(s journal.Started) (table bool) {
	if c.state.Boot != "" && s.Boot != c.state.Boot {
		for _, ch := range c.state.Channels {
			ch.Stream.Interrupt(c.state.Last)
		}
	}
	c.state.Boot = s.Boot
	for _, ch := range c.state.Channels {
		ch.listed = false
	}
	return s.Continued
}

// closeUnlisted closes channels that are not in the table: their end got lost.
func (c *Compactor) closeUnlisted() error {
	for _, ch := range slices.Clone(c.state.Channels) {
		if !ch.listed {
			if err := c.close(ch); err != nil {
				return err
			}
		}
	}
	return nil
}

// open makes or updates a channel's state.
func (c *Compactor) open(about journal.Channel) *channel {
	ch := c.channels[about.Num]
	if ch == nil {
		ch = &channel{}
		c.channels[about.Num] = ch
		c.state.Channels = append(c.state.Channels, ch)
	}
	news := ch.Channel.Continues.Cause == "" && about.Continues.Cause != ""
	ch.Channel = about
	if !news {
		return ch
	}
	from := rtpstream.Origin{Since: rtpstream.WallOf(about.Continues.Since), Cause: about.Continues.Cause}
	if run, h := ch.Stream.Continue(from); h != nil {
		c.absent = append(c.absent, absence{ch, run, *h, true})
		c.heard = append(c.heard, catalog.Heard{Channel: about.ID, Num: about.Num})
	}
	return ch
}

// moved notes that the media of a channel comes here now.
func (c *Compactor) moved(ch *channel) {
	if until := ch.Channel.Continues.Until; !until.IsZero() {
		ch.Stream.Moved(rtpstream.WallOf(until))
	}
}

// unheard tells of what was missed of a channel before its media came here, when
// that began with a silence.
func (c *Compactor) unheard(ch *channel, now rtpstream.Wall) {
	if h := ch.Stream.Unheard(now); h != nil {
		c.absent = append(c.absent, absence{ch, &rtpstream.Run{Codec: ch.Channel.Codec}, *h, true})
		c.heard = append(c.heard, catalog.Heard{Channel: ch.Channel.ID, Num: ch.Channel.Num})
	}
}

// channel returns a packet's channel. One whose opening is in a damaged part
// of the journal is known to the catalog, or recorded under its number.
func (c *Compactor) channel(ctx context.Context, num uint32) (*channel, error) {
	if ch := c.channels[num]; ch != nil {
		return ch, nil
	}
	attached, err := c.cat.OpenAttachments(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range attached {
		if a.Num == num {
			return c.open(journal.Channel{Num: num, ID: a.Channel, Copy: a.Copy, Codec: a.Codec, PayloadType: a.PayloadType, Opened: a.Opened, Continues: a.Continues}), nil
		}
	}
	return c.open(journal.Channel{Num: num, ID: call.ChannelID(fmt.Sprintf("unknown-%d", num))}), nil
}

// close ends a channel: whatever was waited for does not come any more.
func (c *Compactor) close(ch *channel) error {
	err := c.put(ch, ch.Stream.Finish)
	for _, h := range ch.Stream.Missed() {
		c.absent = append(c.absent, absence{ch, &rtpstream.Run{Codec: ch.Channel.Codec}, h, false})
	}
	c.unheard(ch, rtpstream.Ever)
	delete(c.channels, ch.Channel.Num)
	c.state.Channels = slices.DeleteFunc(c.state.Channels, func(o *channel) bool { return o == ch })
	return err
}

// take takes one datagram.
func (c *Compactor) take(ch *channel, d journal.Packet) error {
	c.sum.Packets++
	c.state.Last = max(c.state.Last, rtpstream.Wall(d.Arrival))
	packet, ok := c.parser.Parse(d.Data, ch.Channel.Codec, ch.Channel.PayloadType)
	if !ok {
		c.sum.Unsupported++
		return nil
	}
	strays := ch.Stream.Strays
	placed, ended := ch.Stream.Push(packet, rtpstream.Wall(d.Arrival))
	c.sum.Strays += ch.Stream.Strays - strays
	return c.apply(ch, placed, ended)
}

func (c *Compactor) put(ch *channel, step func() ([]rtpstream.Placed, []*rtpstream.Run)) error {
	placed, ended := step()
	return c.apply(ch, placed, ended)
}

func (c *Compactor) apply(ch *channel, placed []rtpstream.Placed, ended []*rtpstream.Run) error {
	for _, p := range placed {
		if err := c.place(ch, p); err != nil {
			return err
		}
	}
	for _, run := range ended {
		t := c.track(ch, run)
		c.finish(ch, t)
		if run.Tail != nil {
			c.absent = append(c.absent, absence{ch, run, *run.Tail, false})
		}
		ch.Tracks = slices.DeleteFunc(ch.Tracks, func(o *track) bool { return o == t })
	}
	// The stream keeps the list for its next packet, which on a silent channel
	// may be hours away: with it would stay the block its last one came in.
	clear(placed)
	clear(ended)
	return nil
}

// expire does what the passing of time asks for: everything that arrived
// before the clock has been compacted.
func (c *Compactor) expire(ctx context.Context, clock rtpstream.Wall) error {
	for _, ch := range c.state.Channels {
		err := c.put(ch, func() ([]rtpstream.Placed, []*rtpstream.Run) { return ch.Stream.Expire(clock) })
		if err != nil {
			return err
		}
		c.unheard(ch, clock)
		for _, t := range ch.Tracks {
			if n := len(t.Regions); n > 0 && clock.Sub(t.Regions[n-1].Hi) > settleTime && clock.Sub(t.run.Arrival) > settleTime {
				c.finish(ch, t)
			}
		}
	}
	return c.explain(ctx)
}

func (c *Compactor) idle() bool {
	return c.done == c.number && len(c.rows) == 0 && len(c.state.Sealing) == 0
}

func (c *Compactor) mediaPath(file string) string {
	return filepath.Join(c.cfg.Media, filepath.FromSlash(file))
}
