package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"tandem/internal/call"
	"tandem/internal/media"
)

// Gap is media time known to be missing.
type Gap struct {
	From, To time.Time
	Cause    call.Cause
}

// Segment is one media file: a stretch of one SSRC of one channel inside one
// absolute time slot.
type Segment struct {
	ID         string
	Num        uint32 // of the attachment
	Channel    call.ChannelID
	Copy       call.Copy
	Start, End time.Time // wall time of the first sample, and after the last
	Codec      media.Codec
	SSRC       uint32
	FirstTS    int64 // extended RTP timestamp of the first sample
	Samples    int64
	FirstSeq   int64  // extended RTP sequence number of the first packet
	LastSeq    int64  // and of the last
	Holes      Holes  // where no media is; what may still be filled included
	File       string // under the media directory
	Size       int64
	SHA256     string // hex; empty until sealed
	Packets    int64
	Lost       int64
	Reordered  int64
	Duplicates int64
	MaxJitter  time.Duration
	Gaps       []Gap
	Sealed     bool
	State      []byte // opaque; what the compactor needs to go on with an open segment
}

const segmentColumns = `id, num, channel, copy, start_us, end_us, codec, ssrc, first_ts, samples, file, size, sha256,
 packets, lost, reordered, duplicates, max_jitter_us, sealed, state, first_seq, last_seq, holes`

// Compaction is one step of the compactor, stored whole or not at all.
type Compaction struct {
	Segments []Segment // stored by ID, whole, with their gaps
	Heard    []Heard
	Number   uint64 // every journal file up to this one is in segments
	State    []byte // opaque; what the compactor knows beyond its segments
}

// Heard says that the first packets of an attachment that came from another
// recorder are compacted: what was missing before them is in gaps.
type Heard struct {
	Channel call.ChannelID
	Num     uint32
}

// Commit stores a step. When it returns, the journal files it covers are not needed any more.
func (c *Catalog) Commit(ctx context.Context, step Compaction) error {
	return c.update(ctx, "commit compaction", func(tx *sql.Tx) error {
		err := each(ctx, tx, `INSERT OR REPLACE INTO segments (revision, `+segmentColumns+`)
			VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`, step.Segments, func(s Segment) []any {
			return []any{c.next(), s.ID, s.Num, s.Channel, s.Copy, micros(s.Start), micros(s.End), s.Codec, s.SSRC, s.FirstTS, s.Samples, s.File, s.Size, s.SHA256,
				s.Packets, s.Lost, s.Reordered, s.Duplicates, s.MaxJitter.Microseconds(), s.Sealed, s.State, s.FirstSeq, s.LastSeq, s.Holes}
		})
		if err != nil {
			return err
		}
		if err := putGaps(ctx, tx, step.Segments); err != nil {
			return err
		}
		err = each(ctx, tx, `INSERT OR IGNORE INTO heard (channel, num) VALUES (?,?)`, step.Heard, func(h Heard) []any { return []any{h.Channel, h.Num} })
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE compacted SET number = ?, state = ?`, int64(step.Number), step.State)
		return err
	})
}

func putGaps(ctx context.Context, tx *sql.Tx, segments []Segment) error {
	err := each(ctx, tx, `DELETE FROM gaps WHERE segment = ?`, segments, func(s Segment) []any { return []any{s.ID} })
	if err != nil {
		return err
	}
	type row struct {
		segment *Segment
		gap     Gap
	}
	var all []row
	for i := range segments {
		for _, g := range segments[i].Gaps {
			all = append(all, row{&segments[i], g})
		}
	}
	return each(ctx, tx, `INSERT OR REPLACE INTO gaps VALUES (?,?,?,?,?)`, all, func(r row) []any {
		return []any{r.segment.ID, r.segment.Channel, micros(r.gap.From), micros(r.gap.To), r.gap.Cause}
	})
}

// Compacted is the last committed step's Number and State.
func (c *Catalog) Compacted(ctx context.Context) (number uint64, state []byte, err error) {
	var n int64
	if err := c.read.QueryRowContext(ctx, `SELECT number, state FROM compacted`).Scan(&n, &state); err != nil {
		return 0, nil, fmt.Errorf("read compactor's place: %w", err)
	}
	return uint64(n), state, nil
}

// CompactedTo is Compacted without the state, which is large.
func (c *Catalog) CompactedTo(ctx context.Context) (number uint64, err error) {
	var n int64
	if err := c.read.QueryRowContext(ctx, `SELECT number FROM compacted`).Scan(&n); err != nil {
		return 0, fmt.Errorf("read compactor's place: %w", err)
	}
	return uint64(n), nil
}

// Heard are the attachments of a channel that Compaction.Heard named.
func (c *Catalog) Heard(ctx context.Context, channel call.ChannelID) ([]uint32, error) {
	return rows(ctx, c.read, "read heard attachments", func(r *sql.Rows) (num uint32, err error) {
		err = r.Scan(&num)
		return num, err
	}, `SELECT num FROM heard WHERE channel = ? ORDER BY num`, channel)
}

// OpenSegments are those not sealed, with their State.
func (c *Catalog) OpenSegments(ctx context.Context) ([]Segment, error) {
	return c.segments(ctx, `sealed = 0`)
}

// SegmentByID returns one segment, or ErrNotFound.
func (c *Catalog) SegmentByID(ctx context.Context, id string) (Segment, error) {
	all, err := c.segments(ctx, `id = ?`, id)
	if err != nil {
		return Segment{}, err
	}
	if len(all) == 0 {
		return Segment{}, fmt.Errorf("segment %s: %w", id, ErrNotFound)
	}
	return all[0], nil
}

// Segments are those that overlap the window, by channel and start; an empty
// channel means all channels.
func (c *Catalog) Segments(ctx context.Context, channel call.ChannelID, w Window) ([]Segment, error) {
	terms, args := []string{"start_us < ?", "end_us > ?"}, []any{endOf(w), int64(-1 << 62)}
	if !w.From.IsZero() {
		args[1] = w.From.UnixMicro()
	}
	if channel != "" {
		terms, args = append(terms, "channel = ?"), append(args, channel)
	}
	return c.segments(ctx, strings.Join(terms, " AND "), args...)
}

func (c *Catalog) segments(ctx context.Context, where string, args ...any) ([]Segment, error) {
	segments, err := rows(ctx, c.read, "read segments", func(r *sql.Rows) (Segment, error) {
		var s Segment
		var jitter int64
		err := r.Scan(&s.ID, &s.Num, &s.Channel, &s.Copy, at(&s.Start), at(&s.End), &s.Codec, &s.SSRC, &s.FirstTS, &s.Samples, &s.File, &s.Size, &s.SHA256,
			&s.Packets, &s.Lost, &s.Reordered, &s.Duplicates, &jitter, &s.Sealed, &s.State, &s.FirstSeq, &s.LastSeq, &s.Holes)
		s.MaxJitter = time.Duration(jitter) * time.Microsecond
		return s, err
	}, `SELECT `+segmentColumns+` FROM segments WHERE `+where+` ORDER BY channel, start_us, id`, args...)
	if err != nil {
		return nil, err
	}
	return segments, c.addGaps(ctx, segments, where, args)
}

func (c *Catalog) addGaps(ctx context.Context, segments []Segment, where string, args []any) error {
	if len(segments) == 0 {
		return nil
	}
	type row struct {
		segment string
		gap     Gap
	}
	gaps, err := rows(ctx, c.read, "read gaps", func(r *sql.Rows) (row, error) {
		var g row
		err := r.Scan(&g.segment, at(&g.gap.From), at(&g.gap.To), &g.gap.Cause)
		return g, err
	}, `SELECT segment, from_us, to_us, cause FROM gaps WHERE segment IN (SELECT id FROM segments WHERE `+where+`) ORDER BY segment, from_us`, args...)
	if err != nil {
		return err
	}
	bySegment := map[string][]Gap{}
	for _, g := range gaps {
		bySegment[g.segment] = append(bySegment[g.segment], g.gap)
	}
	for i := range segments {
		segments[i].Gaps = bySegment[segments[i].ID]
	}
	return nil
}
