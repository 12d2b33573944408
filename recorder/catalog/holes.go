package catalog

import (
	"database/sql/driver"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
)

// Hole is a stretch of a segment's samples that holds no media: what was lost,
// or what the sender was silent in.
type Hole struct {
	At, N int64 // samples, from the segment's first
}

// Holes are a segment's, in order and not overlapping. They are kept as
// varints: for each the samples of media before it, then its own. A line with
// silence suppression makes hundreds in a slot.
type Holes []Hole

// Add puts one behind the others. What overlaps them is theirs already.
func (h *Holes) Add(at, end int64) {
	if n := len(*h); n > 0 {
		at = max(at, (*h)[n-1].At+(*h)[n-1].N)
	}
	if at < end {
		*h = append(*h, Hole{at, end - at})
	}
}

// Shift moves all of them: n samples were put before the segment's first.
func (h Holes) Shift(n int64) {
	for i := range h {
		h[i].At += n
	}
}

var errHoles = errors.New("holes: not what was written")

func (h Holes) encode() []byte {
	b, end := make([]byte, 0, 6*len(h)), int64(0)
	for _, hole := range h {
		b = binary.AppendUvarint(b, uint64(hole.At-end))
		b = binary.AppendUvarint(b, uint64(hole.N))
		end = hole.At + hole.N
	}
	return b
}

func (h *Holes) decode(b []byte) error {
	*h = nil
	end := int64(0)
	next := func() int64 {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > 1<<48 {
			return -1
		}
		b = b[n:]
		return int64(v)
	}
	for len(b) > 0 {
		before, length := next(), next()
		if before < 0 || length <= 0 {
			return errHoles
		}
		*h = append(*h, Hole{end + before, length})
		end += before + length
	}
	return nil
}

// Value implements driver.Valuer.
func (h Holes) Value() (driver.Value, error) {
	if len(h) == 0 {
		return nil, nil
	}
	return h.encode(), nil
}

// Scan implements sql.Scanner.
func (h *Holes) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*h = nil
		return nil
	case []byte:
		return h.decode(v)
	}
	return fmt.Errorf("holes from %T", v)
}

// MarshalText implements encoding.TextMarshaler.
func (h Holes) MarshalText() ([]byte, error) {
	return base64.RawStdEncoding.AppendEncode(nil, h.encode()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Holes) UnmarshalText(text []byte) error {
	b, err := base64.RawStdEncoding.AppendDecode(nil, text)
	if err != nil {
		return fmt.Errorf("holes: %w", err)
	}
	return h.decode(b)
}
