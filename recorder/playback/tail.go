package playback

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"tandem/internal/call"
	"tandem/recorder/catalog"
	"tandem/recorder/journal"
	"tandem/recorder/rtpstream"
)

// tail is the part of the journal that was not compacted when it was opened.
// It stays readable when the compactor removes its files.
type tail struct {
	files   []journal.File
	readers []*journal.Reader
}

func openTail(dir string) (*tail, error) {
	files, err := journal.Files(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return &tail{}, nil
	}
	if err != nil {
		return nil, err
	}
	t := &tail{}
	for _, f := range files {
		r, err := journal.OpenFile(f.Path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // compacted since it was listed
		}
		if err != nil {
			t.close()
			return nil, err
		}
		t.files, t.readers = append(t.files, f), append(t.readers, r)
	}
	return t, nil
}

func (t *tail) close() {
	for _, r := range t.readers {
		r.Close()
	}
}

// forget closes the files that are compacted.
func (t *tail) forget(number uint64) {
	for len(t.files) > 0 && t.files[0].Number <= number {
		t.readers[0].Close()
		t.files, t.readers = t.files[1:], t.readers[1:]
	}
}

// blocks yields every whole block. Damage is the compactor's to report.
func (t *tail) blocks(yield func(*journal.Block) error) error {
	for _, r := range t.readers {
		for {
			b, err := r.Next()
			var damage *journal.CorruptError
			if errors.As(err, &damage) {
				if _, err = r.Resync(); err == nil {
					continue
				}
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
			if err := yield(b); err != nil {
				return err
			}
		}
	}
	return nil
}

// listener follows one channel through the tail, as the compactor will.
type listener struct {
	channel   call.ChannelID
	boot      string
	last      rtpstream.Wall
	parser    rtpstream.Parser
	heard     map[uint32]*attachment
	compacted []uint32 // attachments that came from another recorder, whose first packets are not in the tail
	chains    []*chain // in the order they began
	fresh     []fresh
	holes     []lost
	gaps      []catalog.Gap // between runs
	heads     []lost        // before the media came here
}

// fresh is a chain that begins in the tail.
type fresh struct {
	*chain
	run *rtpstream.Run
}

// lost is a hole in a chain.
type lost struct {
	*chain
	rtpstream.Hole
}

// attachment is one stay of the channel.
type attachment struct {
	about  journal.Channel
	stream rtpstream.Stream
	chains map[*rtpstream.Run]*chain
}

func newListener(channel call.ChannelID, chains []*chain, compacted []uint32) *listener {
	return &listener{channel: channel, compacted: compacted, heard: map[uint32]*attachment{}, chains: chains}
}

func (l *listener) attachment(num uint32) *attachment {
	a := l.heard[num]
	if a == nil {
		a = &attachment{about: journal.Channel{Num: num}, chains: map[*rtpstream.Run]*chain{}}
		l.heard[num] = a
	}
	return a
}

// resume goes on with the run of an open segment.
func (l *listener) resume(s catalog.Segment, c *chain) error {
	run := &rtpstream.Run{}
	if err := json.Unmarshal(s.State, run); err != nil {
		return fmt.Errorf("resume segment %s: %w", s.ID, err)
	}
	a := l.attachment(s.Num)
	l.last = max(l.last, run.Arrival)
	a.stream.Edge = max(a.stream.Edge, rtpstream.WallOf(s.End))
	same := func(r *rtpstream.Run) bool { return r.SSRC == run.SSRC && r.Began == run.Began }
	if i := slices.IndexFunc(a.stream.Runs, same); i >= 0 { // two segments of one run, as at the end of a slot
		a.chains[a.stream.Runs[i]] = c
		return nil
	}
	a.stream.Runs = append(a.stream.Runs, run)
	slices.SortFunc(a.stream.Runs, func(x, y *rtpstream.Run) int { return int(x.Began - y.Began) })
	a.chains[run] = c
	return nil
}

// follow takes the whole tail in and returns what is missing from it.
func (l *listener) follow(t *tail) ([]catalog.Gap, error) {
	err := t.blocks(func(b *journal.Block) error {
		for _, n := range b.Notes {
			l.note(n)
		}
		var a *attachment
		for p := range b.Packets {
			if a == nil || a.about.Num != p.Num {
				if a = l.heard[p.Num]; a == nil || a.about.ID == "" {
					a = nil
					continue
				}
			}
			l.last = max(l.last, rtpstream.Wall(p.Arrival))
			if packet, ok := l.parser.Parse(p.Data, a.about.Codec, a.about.PayloadType); ok {
				l.take(a)(a.stream.Push(packet, rtpstream.Wall(p.Arrival)))
			}
		}
		return nil
	})
	for _, a := range l.heard {
		l.finish(a)
	}
	for _, c := range l.fresh { // now the anchor has seen all there is
		if len(c.parts) > 0 {
			first, end := c.extent()
			c.marks = nil
			c.mark(first, c.run.Anchor.Wall(first).Time())
			c.mark(end, c.run.Anchor.Wall(end).Time())
		}
	}
	for _, h := range l.holes {
		l.gaps = append(l.gaps, catalog.Gap{From: h.wall(h.From), To: h.wall(h.To), Cause: h.Cause})
	}
	for _, h := range l.heads {
		if from := l.ownUntil(h); from < h.End {
			l.gaps = append(l.gaps, catalog.Gap{From: from.Time(), To: h.End.Time(), Cause: h.Cause})
		}
	}
	return l.gaps, err
}

func (l *listener) note(n journal.Note) {
	switch {
	case n.Started != nil:
		if l.boot != "" && n.Started.Boot != l.boot || l.boot == "" && !n.Started.Continued {
			for _, a := range l.heard {
				a.stream.Interrupt(l.last)
			}
		}
		l.boot = n.Started.Boot
	case n.Opened != nil && n.Opened.ID == l.channel:
		l.opened(*n.Opened)
	case n.Updated != nil && n.Updated.ID == l.channel:
		a := l.attachment(n.Updated.Num)
		news := a.about.ID != "" && a.about.Continues.Cause == ""
		a.about = *n.Updated
		if c := a.about.Continues; news && c.Cause != "" && !slices.Contains(l.compacted, a.about.Num) {
			if run, h := a.stream.Continue(rtpstream.Origin{Since: rtpstream.WallOf(c.Since), Cause: c.Cause}); h != nil {
				l.heads = append(l.heads, lost{l.chain(a, run), *h})
			}
		}
		l.moved(a)
	case n.Closed != nil:
		if a := l.heard[n.Closed.Num]; a != nil {
			l.finish(a)
		}
	case n.Dropped != nil && (n.Dropped.Unseen || n.Dropped.Cause == call.CauseDisk):
		if a := l.heard[n.Dropped.Num]; a != nil {
			for _, run := range a.stream.Drop(rtpstream.Drop{From: rtpstream.WallOf(n.Dropped.From), To: rtpstream.WallOf(n.Dropped.To), Cause: n.Dropped.Cause}) {
				l.miss(*run.Head)
			}
		}
	case n.Unheard != nil:
		if a := l.heard[n.Unheard.Num]; a != nil {
			a.stream.Unlistened(rtpstream.WallOf(n.Unheard.From), rtpstream.WallOf(n.Unheard.To))
		}
	case n.Reported != nil:
		if a := l.heard[n.Reported.Num]; a != nil {
			a.stream.Report(n.Reported.SSRC, n.Reported.RTP, rtpstream.WallOfNTP(n.Reported.NTP))
		}
	}
}

// opened takes in an attachment, or is reminded of one.
func (l *listener) opened(about journal.Channel) {
	a := l.attachment(about.Num)
	if c := about.Continues; c.Cause != "" && !slices.Contains(l.compacted, about.Num) {
		a.stream.Origin = rtpstream.Origin{Since: rtpstream.WallOf(c.Since), Cause: c.Cause}
	}
	a.about = about
	l.moved(a)
}

// moved notes that the media of a channel comes here now.
func (l *listener) moved(a *attachment) {
	if until := a.about.Continues.Until; !until.IsZero() {
		a.stream.Moved(rtpstream.WallOf(until))
	}
}

// finish ends an attachment, and tells of what was missed before its media came
// here if that did not say so.
func (l *listener) finish(a *attachment) {
	l.take(a)(a.stream.Finish())
	for _, h := range a.stream.Missed() {
		l.miss(h)
	}
	if h := a.stream.Unheard(rtpstream.Ever); h != nil {
		l.heads = append(l.heads, lost{&chain{num: a.about.Num}, *h})
	}
}

// ownUntil is where what is missing since another recorder was lost begins:
// behind what this one has of the channel from an attachment before.
func (l *listener) ownUntil(h lost) rtpstream.Wall {
	until := h.Start
	for _, c := range l.chains {
		if c.num != h.num && len(c.parts) > 0 {
			_, end := c.extent()
			until = max(until, min(rtpstream.WallOf(c.wall(end)), h.End))
		}
	}
	return until
}

// take takes what a stream says.
func (l *listener) take(a *attachment) func([]rtpstream.Placed, []*rtpstream.Run) {
	return func(placed []rtpstream.Placed, ended []*rtpstream.Run) {
		for _, p := range placed {
			c := l.chain(a, p.Run)
			if p.Verdict != rtpstream.Duplicate {
				c.hear(p.At, p.Payload)
			}
			l.book(c, p.Run, false)
		}
		for _, run := range ended {
			l.book(l.chain(a, run), run, true)
			if run.Tail != nil {
				l.miss(*run.Tail)
			}
		}
	}
}

// chain is where a run's packets go: on with its open segment, or a new one.
func (l *listener) chain(a *attachment, run *rtpstream.Run) *chain {
	c := a.chains[run]
	if c == nil {
		c = &chain{num: a.about.Num, ssrc: run.SSRC, codec: run.Codec}
		a.chains[run] = c
		l.chains, l.fresh = append(l.chains, c), append(l.fresh, fresh{c, run})
		if h := run.Head; h != nil && h.Cause == a.stream.Origin.Cause {
			l.heads = append(l.heads, lost{c, *h})
		} else if h != nil {
			l.miss(*h)
		}
	}
	return c
}

// miss notes what is missing outside of every run.
func (l *listener) miss(h rtpstream.Hole) {
	l.gaps = append(l.gaps, catalog.Gap{From: h.Start.Time(), To: h.End.Time(), Cause: h.Cause})
}

// book notes the gaps of a run.
func (l *listener) book(c *chain, run *rtpstream.Run, all bool) {
	if len(run.Pending) == 1 {
		return
	}
	for _, h := range run.Settle(nil, all) {
		if !h.Silence() {
			l.holes = append(l.holes, lost{c, h})
		}
	}
}

// since is a time before everything in the tail arrived; zero when that is
// not known.
func (t *tail) since() time.Time {
	const waited = time.Minute // in socket buffers while nobody wrote
	if len(t.readers) == 0 {
		return time.Time{}
	}
	r, err := journal.OpenFile(t.files[0].Path)
	if err != nil {
		return time.Time{}
	}
	defer r.Close()
	b, err := r.Next()
	if err != nil || len(b.Notes) == 0 || b.Notes[0].Started == nil {
		return time.Time{}
	}
	return b.Notes[0].Started.At.Add(-waited)
}
