package playback

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"tandem/internal/call"
	"tandem/recorder/catalog"
	"tandem/recorder/segment"
)

// What a finding can be.
const (
	MissingFile = "missing_file"
	WrongSize   = "size"
	WrongHash   = "hash"
	WrongLength = "length"
	Unexplained = "unexplained"
	Unreadable  = "unreadable"
)

// Finding is one thing wrong with one segment.
type Finding struct {
	Segment string
	Channel call.ChannelID
	File    string
	What    string
	Text    string
}

// Verified counts what was checked.
type Verified struct {
	Segments int
	Bytes    int64
	Recorded time.Duration // without gaps
	Gap      time.Duration
	Findings int
}

// Verify checks every segment that overlaps the window: its file is there and
// as long as header and row say, lost packets are explained by gaps, gaps lie
// inside and, deep, the hash is that of the row and gaps hold silence.
// It calls found for each finding and progress after each segment; either may
// be nil.
func (p *Player) Verify(ctx context.Context, w catalog.Window, deep bool, found func(Finding) error, progress func(done, total int) error) (Verified, error) {
	var v Verified
	segments, err := p.cat.Segments(ctx, "", w)
	if err != nil {
		return v, fmt.Errorf("verify: %w", err)
	}
	for i, s := range segments {
		if err := ctx.Err(); err != nil {
			return v, err
		}
		v.Segments++
		v.Bytes += s.Size
		gap := time.Duration(0)
		for _, g := range s.Gaps {
			gap += g.To.Sub(g.From)
		}
		v.Gap += gap
		v.Recorded += s.End.Sub(s.Start) - gap
		for _, f := range p.check(ctx, s, deep) {
			v.Findings++
			if found == nil {
				continue
			}
			if err := found(f); err != nil {
				return v, err
			}
		}
		if progress != nil {
			if err := progress(i+1, len(segments)); err != nil {
				return v, err
			}
		}
	}
	return v, nil
}

// check finds what is wrong with one segment.
func (p *Player) check(ctx context.Context, s catalog.Segment, deep bool) (all []Finding) {
	add := func(what, format string, args ...any) {
		all = append(all, Finding{s.ID, s.Channel, s.File, what, fmt.Sprintf(format, args...)})
	}
	for _, g := range s.Gaps {
		if g.From.Before(s.Start) || g.To.After(s.End) || !g.From.Before(g.To) || g.Cause == "" {
			add(Unexplained, "a gap from %v to %v (%s) does not fit the segment", g.From, g.To, g.Cause)
		}
	}
	if s.Lost > 0 && len(s.Gaps) == 0 {
		add(Unexplained, "%d packets are lost and there is no gap", s.Lost)
	}
	if s.File == "" {
		if s.Samples > 0 || len(s.Gaps) == 0 {
			add(MissingFile, "no file is named")
		}
		return all
	}
	f, err := segment.Open(filepath.Join(p.cfg.Media, filepath.FromSlash(s.File)))
	if errors.Is(err, fs.ErrNotExist) {
		add(MissingFile, "the file is not there")
		return all
	}
	if err != nil {
		add(Unreadable, "%v", err)
		return all
	}
	defer f.Close()
	if !s.Sealed {
		return append(all, p.checkOpen(ctx, s, f)...)
	}
	if size, err := f.Size(); err != nil {
		add(Unreadable, "%v", err)
	} else if want := segment.Size(s.Samples); size != s.Size || size != want {
		add(WrongSize, "%d bytes; the catalog says %d, and %d samples make %d", size, s.Size, s.Samples, want)
	}
	if err := f.CheckHeader(s.Codec, s.Samples); err != nil {
		add(WrongLength, "%v", err)
	}
	if s.SHA256 == "" {
		add(WrongHash, "sealed without a hash: its file was damaged while it was written")
	}
	if !deep {
		return all
	}
	if sum, err := f.Hash(); err != nil {
		add(Unreadable, "%v", err)
	} else if s.SHA256 != "" && sum.SHA256 != s.SHA256 {
		add(WrongHash, "SHA-256 is %s, was %s when sealed", sum.SHA256, s.SHA256)
	}
	return append(all, p.checkGaps(s, f)...)
}

// checkOpen checks a segment that is still written: at least what is
// committed must be there. It may have been sealed since its row was read.
func (p *Player) checkOpen(ctx context.Context, s catalog.Segment, f *segment.File) []Finding {
	size, err := f.Size()
	if err == nil && size >= segment.Size(s.Samples)-s.Samples%2 {
		return nil
	}
	if now, err := p.cat.SegmentByID(ctx, s.ID); err == nil && now.Sealed {
		return p.check(ctx, now, false)
	}
	return []Finding{{s.ID, s.Channel, s.File, WrongSize, fmt.Sprintf("%d bytes of an open segment with %d samples (%v)", size, s.Samples, err)}}
}

// checkGaps wants silence wherever a gap is.
func (p *Player) checkGaps(s catalog.Segment, f *segment.File) (all []Finding) {
	c := &chain{num: s.Num, ssrc: s.SSRC, codec: s.Codec}
	c.mark(0, s.Start)
	c.mark(s.Samples, s.End)
	const edge = 8 // samples of rounding to microseconds and back
	for _, g := range s.Gaps {
		from, to := max(c.timestamp(g.From)+edge, 0), min(c.timestamp(g.To)-edge, s.Samples)
		if from >= to {
			continue
		}
		samples := make([]byte, to-from)
		if err := f.ReadAt(samples, from); err != nil {
			return append(all, Finding{s.ID, s.Channel, s.File, Unreadable, err.Error()})
		}
		if i := slices.IndexFunc(samples, func(b byte) bool { return b != s.Codec.Silence() }); i >= 0 {
			all = append(all, Finding{s.ID, s.Channel, s.File, Unexplained, fmt.Sprintf("the gap from %v to %v holds audio", g.From, g.To)})
		}
	}
	return all
}
