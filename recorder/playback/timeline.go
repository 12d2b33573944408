// Package playback gives recorded audio back: stitched from segments and from
// what the journal holds and no segment does yet, with what is missing named.
// It changes nothing and may run beside the recorder at any time.
package playback

import (
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
	if number, err = p.cat.CompactedTo(ctx); err != nil {
		return held{}, 0, err
	}
	if of.segments, err = p.cat.Segments(ctx, channel, w); err != nil {
		return held{}, 0, err
	}
	if of.heard, err = p.cat.Heard(ctx, channel); err != nil {
		return held{}, 0, err
	}
	again, err := p.cat.CompactedTo(ctx)
	if err == nil && again != number {
		err = errCommitted
	}
	return of, number, err
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
