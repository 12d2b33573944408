// Package journal is where every packet goes first: one append-only sequence
// of files, written a block at a time and readable by itself.
//
// A Writer takes blocks from several intake shards, writes each with one
// system call and syncs them in groups. A Reader gives them back after a
// crash, a power cut or damage: everything that is whole, and a CorruptError
// for everything that is not.
package journal

import (
	"errors"
	"fmt"
	"time"

	"tandem/internal/call"
	"tandem/internal/media"
)

// Channel is one attachment of a channel: what a journal needs to know to be
// readable without any other file.
type Channel struct {
	Num         uint32         `json:"num"` // the recorder's own number of this attachment, never reused
	ID          call.ChannelID `json:"id"`
	Copy        call.Copy      `json:"copy"`
	Codec       media.Codec    `json:"codec,omitempty"`        // empty until the far end has chosen
	PayloadType uint8          `json:"payload_type,omitempty"` // of Codec
	Opened      time.Time      `json:"opened"`

	Continues call.Continuation `json:"continues,omitzero"`
}

// Note is what a journal says beside packets; exactly one field is set.
//
// Every file begins with Started and an Opened for each channel open by then,
// so Opened for a known number is a reminder and not a second opening.
type Note struct {
	Started  *Started  `json:"started,omitempty"`
	Opened   *Channel  `json:"opened,omitempty"`
	Updated  *Channel  `json:"updated,omitempty"`
	Closed   *Closed   `json:"closed,omitempty"`
	Dropped  *Dropped  `json:"dropped,omitempty"`
	Reported *Reported `json:"reported,omitempty"`
	Unheard  *Unheard  `json:"unheard,omitempty"`
}

// Started opens every file.
type Started struct {
	Boot      string    `json:"boot"` // new at each start of the recorder
	At        time.Time `json:"at"`
	File      uint64    `json:"file"`                // the file's own number
	Continued bool      `json:"continued,omitempty"` // the same boot wrote the file before
}

// Closed ends an attachment; no packet of it follows.
type Closed struct {
	Num   uint32    `json:"num"`
	At    time.Time `json:"at"`
	Cause string    `json:"cause"`
}

// Dropped says that datagrams reached this machine and are not in the
// journal. They arrived in [From, To].
type Dropped struct {
	Num     uint32     `json:"num"`
	From    time.Time  `json:"from"`
	To      time.Time  `json:"to"`
	Packets uint64     `json:"packets"`
	Cause   call.Cause `json:"cause"`            // disk or loss
	Why     string     `json:"why"`              // for people
	Unseen  bool       `json:"unseen,omitempty"` // the kernel dropped them: whose they were nobody knows
}

// Unheard says that nobody listened on a channel's port from From to To: what
// was sent there is lost, and how much that was nobody knows.
type Unheard struct {
	Num  uint32    `json:"num"`
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Reported is an RTCP sender report (RFC 3550 6.4.1): at wall time NTP the
// stream's RTP timestamp was RTP. It takes its own way to the journal, so it
// may stand a little before or behind the packets that arrived with it, even
// behind Closed.
type Reported struct {
	Num     uint32 `json:"num"`
	SSRC    uint32 `json:"ssrc"`
	NTP     uint64 `json:"ntp"` // RFC 3550 4: seconds since 1900 in the upper half
	RTP     uint32 `json:"rtp"`
	Arrival int64  `json:"arrival"` // kernel receive time, Unix nanoseconds
}

// Packet is one datagram as it arrived.
type Packet struct {
	Num     uint32 // the attachment it belongs to
	Arrival int64  // kernel receive time in Unix nanoseconds, exact to a microsecond
	Data    []byte // the whole datagram; valid as long as what it was read from
}

// At is Arrival as a time.
func (p Packet) At() time.Time { return time.Unix(0, p.Arrival) }

// ErrFull is returned while the queue of blocks is full: the disk is behind.
var ErrFull = errors.New("journal queue is full")

// CorruptError is a place where a file does not hold what was written. The
// blocks before Offset are whole; Reader.Resync finds those behind it.
type CorruptError struct {
	File   string
	Offset int64
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("journal %s: offset %d: %s", e.File, e.Offset, e.Reason)
}
