// Package playback gives recorded audio back: stitched from segments and from
// what the journal holds and no segment does yet, with what is missing named.
// It changes nothing and may run beside the recorder at any time.
package playback

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"time"

	"tandem/internal/call"
	"tandem/internal/media"
	"tandem/recorder/catalog"
)

// Config says where a recorder keeps things.
type Config struct {
	Journal string
	Media   string
}

// Player plays what one recorder holds. It is safe for concurrent use.
type Player struct {
	cfg Config
	cat *catalog.Catalog
}

// New makes a player.
func New(cfg Config, cat *catalog.Catalog) *Player { return &Player{cfg, cat} }

// ErrNoMedia is an interval of which nothing was recorded.
var ErrNoMedia = errors.New("no media recorded")

// Timeline is the audio of one channel in an interval, sample after sample.
// It is not safe for concurrent use. Close it.
type Timeline struct {
	Channel call.ChannelID
	Start   time.Time
	End     time.Time
	Samples int64
	Codec   media.Codec // of all of it; empty when it changed on the way
	Gaps    []catalog.Gap
	Covered time.Duration // not missing: recorded, or known to be silence

	Stretches []Stretch // what of it is media that was received, in order; the rest is silence

	spans  []span // one behind the other
	beside []span // laid over their silence
	files  []*file
}

// Stretch is unbroken media in a timeline, and where it was in the RTP stream.
type Stretch struct {
	At, Samples int64
	SSRC        uint32
	FirstTS     int64 // of the first sample, extended; only the low 32 bits are the sender's

	from, to time.Time
}

// span is a stretch of a timeline taken from one chain.
type span struct {
	at, n int64 // samples of the timeline
	chain *chain
	ts    int64 // of the first

	from, to time.Time
}

// Close lets go of the files.
func (t *Timeline) Close() {
	for _, f := range t.files {
		f.close()
	}
}

// Timeline stitches an interval of a channel; a window that has not ended
// lasts as long as there is audio. It returns ErrNoMedia when there is none.
func (p *Player) Timeline(ctx context.Context, channel call.ChannelID, w catalog.Window) (*Timeline, error) {
	t, err := p.timeline(ctx, channel, w)
	if err != nil {
		return nil, fmt.Errorf("play channel %s: %w", channel, err)
	}
	return t, nil
}

func (p *Player) timeline(ctx context.Context, channel call.ChannelID, w catalog.Window) (*Timeline, error) {
	held, rest, err := p.snapshot(ctx, channel, w)
	if err != nil {
		return nil, err
	}
	defer rest.close()
	segments := held.segments
	t := &Timeline{Channel: channel}
	all, of := chainsOf(segments, func(s catalog.Segment) source {
		f := &file{path: filepath.Join(p.cfg.Media, filepath.FromSlash(s.File))}
		t.files = append(t.files, f)
		return f
	})
	l := newListener(channel, all, held.heard)
	for _, s := range segments {
		t.Gaps = append(t.Gaps, s.Gaps...)
		if c := of[s.ID]; c != nil && len(s.State) > 0 {
			if err := l.resume(s, c); err != nil {
				return nil, err
			}
		}
	}
	gaps, err := l.follow(rest)
	if err != nil {
		return nil, err
	}
	t.Gaps = append(t.Gaps, gaps...)
	if !t.stitch(l.chains, w) {
		return nil, ErrNoMedia
	}
	t.Gaps = unheard(clip(t.Gaps, t.Start, t.End), t.Stretches)
	t.cover()
	return t, nil
}

// held is what the catalog has of a channel around a window.
type held struct {
	segments []catalog.Segment
	heard    []uint32 // see catalog.Heard
}

// snapshot reads what the catalog holds and opens the journal that follows
// it. The journal is opened first, so that a commit between the two loses
// nothing; and the catalog is read again until no commit was between.
func (p *Player) snapshot(ctx context.Context, channel call.ChannelID, w catalog.Window) (held, *tail, error) {
	const around = time.Hour // what lies on both sides of a silence tells that it was one
	wide := catalog.Window{From: w.From.Add(-around)}
	if !w.To.IsZero() {
		wide.To = w.To.Add(around)
	}
	for {
		rest, err := openTail(p.cfg.Journal)
		if err != nil {
			return held{}, nil, err
		}
		of, number, err := p.held(ctx, channel, wide)
		if errors.Is(err, errCommitted) {
			rest.close()
			continue
		}
		if err != nil {
			rest.close()
			return held{}, nil, err
		}
		rest.forget(number)
		if since := rest.since(); !wide.To.IsZero() && wide.To.Before(since) {
			rest.forget(math.MaxUint64)
		}
		return of, rest, nil
	}
}

var errCommitted = errors.New("a commit was between")

// held reads the catalog, and which journal files are in what it read.
func (p *Player) held(ctx context.Context, channel call.ChannelID, w catalog.Window) (of held, number uint64, err error) {
	if number, _, err = p.cat.Compacted(ctx); err != nil {
		return held{}, 0, err
	}
	if of.segments, err = p.cat.Segments(ctx, channel, w); err != nil {
		return held{}, 0, err
	}
	if of.heard, err = p.cat.Heard(ctx, channel); err != nil {
		return held{}, 0, err
	}
	again, _, err := p.cat.Compacted(ctx)
	if err == nil && again != number {
		err = errCommitted
	}
	return of, number, err
}

// piece is a chain as far as it is in the window.
type piece struct {
	*chain
	from, to time.Time
}

// stitch lays chains one behind the other. Inside a chain RTP timestamps
// count; from one chain to the next, the wall clock. Where two have media at
// the same time the one that began first is heard: a file has room for one,
// and what came later may be anybody's.
func (t *Timeline) stitch(all []*chain, w catalog.Window) bool {
	var pieces []piece
	for _, c := range all {
		if len(c.parts) == 0 {
			continue
		}
		first, end := c.extent()
		p := piece{c, c.wall(first), c.wall(end)}
		if p.to.After(w.From) && (w.To.IsZero() || p.from.Before(w.To)) {
			pieces = append(pieces, p)
		}
	}
	if len(pieces) == 0 {
		return false
	}
	slices.SortStableFunc(pieces, func(a, b piece) int { return a.from.Compare(b.from) })
	end := w.To
	if end.IsZero() {
		for _, p := range pieces {
			if p.to.After(end) {
				end = p.to
			}
		}
	}
	t.Start, t.End, t.Codec = w.From, end, pieces[0].codec
	now := w.From // everything before it is laid
	var beside []piece
	for _, p := range pieces {
		from, to := later(p.from, now), earlier(p.to, end)
		if passed := earlier(from, to); later(p.from, w.From).Before(passed) {
			beside = append(beside, piece{p.chain, later(p.from, w.From), passed})
		}
		if !from.Before(to) {
			continue
		}
		if p.codec != t.Codec {
			t.Codec = ""
		}
		t.Samples += p.units(from.Sub(now)) // silence
		ts := p.timestamp(from)
		n := p.timestamp(to) - ts
		t.spans = append(t.spans, span{t.Samples, n, p.chain, ts, from, to})
		t.Samples += n
		now = to
	}
	t.Samples += pieces[0].units(end.Sub(now))
	for _, s := range t.spans {
		for _, v := range s.chain.media(s.ts, s.ts+s.n) {
			t.Stretches = append(t.Stretches, s.stretch(v))
		}
	}
	for _, p := range beside {
		t.lay(p)
	}
	return len(t.spans) > 0
}

// stretch is a chain's interval where the span puts it.
func (s span) stretch(v interval) Stretch {
	return Stretch{s.at + v.from - s.ts, v.to - v.from, s.chain.ssrc, v.from, s.chain.wall(v.from), s.chain.wall(v.to)}
}

// lay puts a piece over the silence of what is laid already: a sender that
// spoke while another one was silent was recorded, and is heard.
func (t *Timeline) lay(p piece) {
	for _, v := range p.media(p.timestamp(p.from), p.timestamp(p.to)) {
		at := t.position(p.wall(v.from)) - v.from
		for _, quiet := range t.quiet(interval{at + v.from, at + v.to}) {
			s := span{at: quiet.from, n: quiet.to - quiet.from, chain: p.chain, ts: quiet.from - at}
			t.beside = append(t.beside, s)
			stretch := s.stretch(interval{s.ts, s.ts + s.n})
			i, _ := slices.BinarySearchFunc(t.Stretches, stretch.At, func(o Stretch, at int64) int { return cmp.Compare(o.At, at) })
			t.Stretches = slices.Insert(t.Stretches, i, stretch)
			if p.codec != t.Codec {
				t.Codec = ""
			}
		}
	}
}

// position is the sample at an instant of what is laid.
func (t *Timeline) position(at time.Time) int64 {
	i, _ := slices.BinarySearchFunc(t.spans, at, func(s span, at time.Time) int { return s.to.Compare(at) })
	if i == len(t.spans) {
		i--
	}
	return t.spans[i].at + t.spans[i].chain.timestamp(at) - t.spans[i].ts
}

// quiet is what of an interval of samples holds no media yet.
func (t *Timeline) quiet(v interval) (free []interval) {
	v.from, v.to = max(v.from, 0), min(v.to, t.Samples)
	i, _ := slices.BinarySearchFunc(t.Stretches, v.from, func(s Stretch, from int64) int { return cmp.Compare(s.At+s.Samples, from) })
	for ; i < len(t.Stretches) && v.from < v.to; i++ {
		s := t.Stretches[i]
		if to := min(s.At, v.to); v.from < to {
			free = append(free, interval{v.from, to})
		}
		v.from = max(v.from, s.At+s.Samples)
	}
	if v.from < v.to {
		free = append(free, v)
	}
	return free
}

// unheard takes out of gaps what one sender said while another's packets were
// missing: a gap is where the file is silent and the line was not. Both are in
// order.
func unheard(gaps []catalog.Gap, heard []Stretch) (out []catalog.Gap) {
	const rounding = 250 * time.Microsecond // of two mappings between samples and clock
	for _, g := range gaps {
		for len(heard) > 0 && !g.From.Before(heard[0].to) {
			heard = heard[1:]
		}
		cut := false
		keep := func(to time.Time) {
			if d := to.Sub(g.From); d >= rounding || !cut && d > 0 {
				out = append(out, catalog.Gap{From: g.From, To: to, Cause: g.Cause})
			}
		}
		for _, s := range heard {
			if !s.from.Before(g.To) {
				break
			}
			if earlier(s.to, g.To).Sub(later(s.from, g.From)) >= rounding {
				cut = true
				keep(s.from)
				g.From = s.to
			}
		}
		keep(g.To)
	}
	return out
}

// cover measures what is there: the spans without the gaps in them.
func (t *Timeline) cover() {
	for _, s := range t.spans {
		t.Covered += s.to.Sub(s.from)
		for _, g := range t.Gaps {
			if from, to := later(g.From, s.from), earlier(g.To, s.to); from.Before(to) {
				t.Covered -= to.Sub(from)
			}
		}
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// clip returns the gaps inside [from, to), in order and joined where they touch.
func clip(gaps []catalog.Gap, from, to time.Time) []catalog.Gap {
	var out []catalog.Gap
	slices.SortFunc(gaps, func(a, b catalog.Gap) int { return a.From.Compare(b.From) })
	for _, g := range gaps {
		g.From, g.To = later(g.From, from), earlier(g.To, to)
		if n := len(out); n > 0 && g.From.Before(out[n-1].To) {
			g.From = out[n-1].To
		}
		if g.From.Before(g.To) {
			out = append(out, g)
		}
	}
	return out
}

// ReadAt fills p with samples as received from position at. Codec must not be
// empty.
func (t *Timeline) ReadAt(p []byte, at int64) error {
	fill(p, t.Codec.Silence())
	return t.each(at, int64(len(p)), func(s span, from, to int64) error {
		return s.chain.readAt(p[from-at:to-at], s.ts+from-s.at)
	})
}

// Mix adds the samples from position at, expanded to 16 bits, to dst.
func (t *Timeline) Mix(dst []int32, at int64) error {
	return t.each(at, int64(len(dst)), func(s span, from, to int64) error {
		p := make([]byte, to-from)
		if err := s.chain.readAt(p, s.ts+from-s.at); err != nil {
			return err
		}
		for i, b := range p {
			dst[from-at+int64(i)] += int32(s.chain.codec.ToLinear(b))
		}
		return nil
	})
}

// all yields the spans, each before those that are laid over it.
func (t *Timeline) all(yield func(span) bool) {
	for _, list := range [][]span{t.spans, t.beside} {
		for _, s := range list {
			if !yield(s) {
				return
			}
		}
	}
}

// each calls read for every stretch of [at, at+n) that a span covers.
func (t *Timeline) each(at, n int64, read func(s span, from, to int64) error) error {
	for s := range t.all {
		if from, to := max(at, s.at), min(at+n, s.at+s.n); from < to {
			if err := read(s, from, to); err != nil {
				return err
			}
		}
	}
	return nil
}
