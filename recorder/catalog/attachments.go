package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"tandem/internal/call"
	"tandem/internal/media"
)

// Attachment is one stay of a channel at this recorder, from OpenChannels to
// CloseChannels. It outlives the process: a restarted recorder listens on the
// same port again.
type Attachment struct {
	Num         uint32 // the recorder's own number, never reused
	Channel     call.ChannelID
	Session     call.SessionID
	User        call.UserID
	UserName    string
	Device      call.DeviceID
	Profile     string
	Mix         string
	Copy        call.Copy
	Sources     []string
	Host        string // where RTP is expected
	Port        int
	Codec       media.Codec // empty until the answer settled it
	PayloadType uint8
	RTCPMux     bool
	Remote      string // where the switch says it sends from
	Dialog      []byte // opaque
	Reason      string // why this recorder was chosen
	Continues   call.Continuation
	Opened      time.Time
	Closed      time.Time // zero while open
	Cause       string    // of the closing
}

const attachmentColumns = `num, channel, session, user, user_name, device, profile, mix, copy, sources,
 host, port, codec, payload_type, rtcp_mux, remote, dialog, reason, opened_us, closed_us, cause,
 continues, continues_cause, continues_us`

// causeReplaced closes an attachment of a channel that is attached again.
const causeReplaced = "replaced"

// PutAttachments stores attachments by their number, whole. A channel has one
// open attachment: another one of it is closed.
func (c *Catalog) PutAttachments(ctx context.Context, attachments []Attachment) error {
	return c.update(ctx, "put attachments", func(tx *sql.Tx) error {
		err := each(ctx, tx, `UPDATE attachments SET closed_us = max(opened_us, ?), cause = ?, revision = ?
			WHERE channel = ? AND num <> ? AND closed_us IS NULL AND ? IS NULL`, attachments, func(a Attachment) []any {
			return []any{micros(a.Opened), causeReplaced, c.next(), a.Channel, a.Num, micros(a.Closed)}
		})
		if err != nil {
			return err
		}
		return each(ctx, tx, `INSERT OR REPLACE INTO attachments (revision, `+attachmentColumns+`)
			VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`, attachments, func(a Attachment) []any {
			return []any{c.next(), a.Num, a.Channel, a.Session, a.User, a.UserName, a.Device, a.Profile, a.Mix, a.Copy, listText(a.Sources),
				a.Host, a.Port, a.Codec, a.PayloadType, a.RTCPMux, a.Remote, a.Dialog, a.Reason, micros(a.Opened), micros(a.Closed), a.Cause,
				a.Continues.Recorder, a.Continues.Cause, micros(a.Continues.Since)}
		})
	})
}

func scanAttachment(r *sql.Rows) (Attachment, error) {
	var a Attachment
	err := r.Scan(&a.Num, &a.Channel, &a.Session, &a.User, &a.UserName, &a.Device, &a.Profile, &a.Mix, &a.Copy, (*list)(&a.Sources),
		&a.Host, &a.Port, &a.Codec, &a.PayloadType, &a.RTCPMux, &a.Remote, &a.Dialog, &a.Reason, at(&a.Opened), at(&a.Closed), &a.Cause,
		&a.Continues.Recorder, &a.Continues.Cause, at(&a.Continues.Since))
	return a, err
}

// OpenAttachments are those not closed, by number.
func (c *Catalog) OpenAttachments(ctx context.Context) ([]Attachment, error) {
	return rows(ctx, c.read, "read open attachments", scanAttachment,
		`SELECT `+attachmentColumns+` FROM attachments WHERE closed_us IS NULL ORDER BY num`)
}

// Attachments are all stays of one channel that overlap the window, oldest first.
func (c *Catalog) Attachments(ctx context.Context, channel call.ChannelID, w Window) ([]Attachment, error) {
	return rows(ctx, c.read, "read attachments", scanAttachment,
		`SELECT `+attachmentColumns+` FROM attachments
		 WHERE channel = ? AND opened_us < ? AND (closed_us IS NULL OR closed_us > ?) ORDER BY num`,
		channel, endOf(w), w.From.UnixMicro())
}

// LastNum is the highest attachment number ever given.
func (c *Catalog) LastNum(ctx context.Context) (uint32, error) {
	var num uint32
	if err := c.read.QueryRowContext(ctx, `SELECT coalesce(max(num), 0) FROM attachments`).Scan(&num); err != nil {
		return 0, fmt.Errorf("read last attachment number: %w", err)
	}
	return num, nil
}

// endOf is the window's end for comparisons; an open window never ends.
func endOf(w Window) int64 {
	if w.To.IsZero() {
		return 1<<63 - 1
	}
	return w.To.UnixMicro()
}
