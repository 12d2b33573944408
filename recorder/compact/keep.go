package compact

import (
	"context"
	"math"
	"slices"
	"time"

	"tandem/internal/call"
	"tandem/recorder/catalog"
	"tandem/recorder/rtpstream"
)

const never = rtpstream.Wall(math.MaxInt64)

// span is [from, to) on the wall clock.
type span struct{ from, to rtpstream.Wall }

// windows are what is kept of a channel: sorted, not touching.
type windows []span

// merge makes windows of what legs and blind times say, each widened by the rolls.
func merge(all []catalog.Window, pre, post time.Duration) windows {
	var out windows
	spans := make([]span, len(all))
	for i, w := range all {
		spans[i] = span{rtpstream.WallOf(w.From.Add(-pre)), never}
		if !w.To.IsZero() {
			spans[i].to = rtpstream.WallOf(w.To.Add(post))
		}
	}
	slices.SortFunc(spans, func(a, b span) int {
		if a.from < b.from {
			return -1
		}
		return 1
	})
	for _, s := range spans {
		if n := len(out); n > 0 && s.from <= out[n-1].to {
			out[n-1].to = max(out[n-1].to, s.to)
		} else if s.from < s.to {
			out = append(out, s)
		}
	}
	return out
}

// touching is the place of the first window that has an instant in [from, to],
// and whether there is one; else of the first behind it.
func (k windows) touching(from, to rtpstream.Wall) (int, bool) {
	i, _ := slices.BinarySearchFunc(k, from, func(k span, from rtpstream.Wall) int {
		if k.to <= from {
			return -1
		}
		return 1
	})
	return i, i < len(k) && k[i].from <= to
}

// within are the parts of s inside the windows.
func (k windows) within(s span) []span {
	var out []span
	for _, w := range k {
		if from, to := max(w.from, s.from), min(w.to, s.to); from < to {
			out = append(out, span{from, to})
		}
	}
	return out
}

// keeping answers what is kept of every channel in one stretch of time.
type keeping struct {
	of        span
	byChannel map[call.ChannelID]*windows
	others    *windows // of channels without a leg
}

func (c *Compactor) loadKeeping(ctx context.Context, of span) (keeping, error) {
	legs, blind, err := c.cat.KeepWindows(ctx, of.from.Time().Add(-c.cfg.PostRoll), of.to.Time().Add(c.cfg.PreRoll))
	if err != nil {
		return keeping{}, err
	}
	k := keeping{of, make(map[call.ChannelID]*windows, len(legs)), nil}
	for id, w := range legs {
		merged := merge(append(w, blind...), c.cfg.PreRoll, c.cfg.PostRoll)
		k.byChannel[id] = &merged
	}
	others := merge(blind, c.cfg.PreRoll, c.cfg.PostRoll)
	k.others = &others
	return k, nil
}

func (k *keeping) windows(id call.ChannelID) *windows {
	if w, ok := k.byChannel[id]; ok {
		return w
	}
	return k.others
}

// keep is what is kept of the channel around the file being compacted; nil
// means everything.
func (c *Compactor) keep(ch *channel) *windows {
	if c.cfg.KeepAll {
		return nil
	}
	if ch.keep == nil {
		ch.keep = c.keeping.windows(ch.Channel.ID)
	}
	return ch.keep
}

// keptWithin is what would have been kept of a stretch, which may begin long
// before the file being compacted.
func (c *Compactor) keptWithin(ctx context.Context, ch *channel, s span) ([]span, error) {
	if c.cfg.KeepAll {
		return []span{s}, nil
	}
	if s.from >= c.keeping.of.from {
		return c.keep(ch).within(s), nil
	}
	k, err := c.loadKeeping(ctx, s)
	if err != nil {
		return nil, err
	}
	return k.windows(ch.Channel.ID).within(s), nil
}
