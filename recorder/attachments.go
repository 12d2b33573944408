package recorder

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/call"
	"tandem/internal/media"
	"tandem/recorder/catalog"
	"tandem/recorder/intake"
	"tandem/recorder/journal"
)

// attachments owns the channels that are open here: the catalog's row, the
// listening port and the place in memory agree, and the row is on disk before
// anyone is told of the port. Changes come one at a time, from within the
// fence; reading is safe at any time.
type attachments struct {
	catalog *catalog.Catalog
	intake  *intake.Intake
	host    string
	limit   int
	began   time.Time // this process: nothing was heard before

	mu      sync.RWMutex
	open    map[call.ChannelID]catalog.Attachment
	lastNum uint32
}

// Reasons for which a channel is refused.
const (
	refusedNotReady = "not_ready"
	refusedLimit    = "max_channels"
	refusedNoPort   = "no_port"
)

// reopen listens again on every port that was open when the recorder stopped,
// with its socket where that was kept. Where another program took the port meanwhile it takes another one: the
// attachment goes on, the director sees the new endpoint in the inventory and
// moves the media there, and the sequence numbers tell what was missed.
func (a *attachments) reopen(ctx context.Context) error {
	var err error
	if a.lastNum, err = a.catalog.LastNum(ctx); err != nil {
		return err
	}
	rows, err := a.catalog.OpenAttachments(ctx)
	if err != nil {
		return err
	}
	var changed []catalog.Attachment
	for _, row := range rows {
		port := row.Port
		err := a.listen(&row)
		if err != nil {
			slog.Warn("port taken while the recorder was down", "channel", row.Channel, "port", port, "err", err)
			row.Port = 0
			err = a.listen(&row)
		}
		if err != nil {
			slog.Error("channel not reopened", "channel", row.Channel, "err", err)
			row.Closed, row.Cause = time.Now(), refusedNoPort
		} else {
			a.open[row.Channel] = row
		}
		if err != nil || row.Port != port {
			changed = append(changed, row)
		}
	}
	strays := a.intake.Disown()
	if len(rows)+strays > 0 {
		slog.Info("channels reopened", "channels", len(a.open), "not", len(rows)-len(a.open), "sockets_kept", a.intake.Kept(), "sockets_of_no_use", strays)
	}
	return a.catalog.PutAttachments(ctx, changed)
}

// listen opens the row's port, or any when it has none yet.
func (a *attachments) listen(row *catalog.Attachment) error {
	port, err := a.intake.Open(channelOf(*row), row.Port)
	if err != nil {
		return err
	}
	row.Port = port
	if row.Codec != "" {
		return a.settle(*row)
	}
	return nil
}

// settle tells the intake what the SIP answer settled.
func (a *attachments) settle(row catalog.Attachment) error {
	return a.intake.Update(channelOf(row), row.RTCPMux, row.Remote)
}

func channelOf(row catalog.Attachment) journal.Channel {
	return journal.Channel{Num: row.Num, ID: row.Channel, Copy: row.Copy, Codec: row.Codec, PayloadType: row.PayloadType, Opened: row.Opened, Continues: row.Continues}
}

// add opens channels, those already open included, and answers for each in order.
func (a *attachments) add(ctx context.Context, now time.Time, ready bool, asked []*tandemv1.OpenChannel) ([]*tandemv1.OpenedChannel, error) {
	answers := make([]*tandemv1.OpenedChannel, len(asked))
	var fresh []catalog.Attachment
	for i, want := range asked {
		id := call.ChannelID(want.GetChannel().GetId())
		answers[i] = &tandemv1.OpenedChannel{Channel: string(id)}
		if row, ok := a.find(id); ok {
			answers[i].Endpoint = endpointOf(row)
			continue
		}
		row := attachmentFrom(want)
		row.Host, row.Opened = a.host, now
		if answers[i].Refused = a.admit(ready, &row, len(fresh)); answers[i].Refused != "" {
			continue
		}
		answers[i].Endpoint = endpointOf(row)
		fresh = append(fresh, row)
	}
	if err := a.catalog.PutAttachments(ctx, fresh); err != nil {
		for _, row := range fresh {
			a.intake.Close(row.Num, "catalog")
		}
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, row := range fresh {
		a.open[row.Channel] = row
	}
	return answers, nil
}

// admit gives the row its number and port, or says why not.
func (a *attachments) admit(ready bool, row *catalog.Attachment, pending int) (refused string) {
	switch {
	case !ready:
		return refusedNotReady
	case a.count()+pending >= a.limit:
		return refusedLimit
	}
	a.lastNum++
	row.Num = a.lastNum
	if err := a.listen(row); err != nil {
		slog.Error("channel refused", "channel", row.Channel, "err", err)
		return refusedNoPort
	}
	return ""
}

// update stores what the SIP answers settled. Channels not open are ignored:
// the director learns of them from the inventory.
func (a *attachments) update(ctx context.Context, now time.Time, updates []*tandemv1.ChannelUpdate) error {
	var changed []catalog.Attachment
	for _, u := range updates {
		row, ok := a.find(call.ChannelID(u.GetChannel()))
		if !ok {
			continue
		}
		if codec := codecFrom(u.GetCodec()); codec != "" {
			row.Codec, row.PayloadType = codec, uint8(u.GetPayloadType())
			row.RTCPMux, row.Dialog = u.GetRtcpMux(), u.GetDialog()
		}
		if r := u.GetRemote(); r != nil {
			row.Remote = hostPort(r)
		}
		if c := u.GetContinues(); c != nil && row.Continues.Cause == "" {
			row.Continues = continuationFrom(c)
		}
		if u.GetReceiving() && row.Continues.Cause != "" && row.Continues.Until.IsZero() {
			row.Continues.Until = now
		}
		if err := a.settle(row); err != nil {
			slog.Warn("channel not settled", "channel", row.Channel, "err", err)
		}
		changed = append(changed, row)
	}
	if err := a.catalog.PutAttachments(ctx, changed); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, row := range changed {
		a.open[row.Channel] = row
	}
	return nil
}

// remove stops listening and seals what was heard.
func (a *attachments) remove(ctx context.Context, now time.Time, channels []*tandemv1.CloseChannel) error {
	var closed []catalog.Attachment
	for _, c := range channels {
		row, ok := a.find(call.ChannelID(c.GetChannel()))
		if !ok {
			continue
		}
		row.Closed, row.Cause = now, c.GetCause()
		closed = append(closed, row)
	}
	if err := a.catalog.PutAttachments(ctx, closed); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, row := range closed {
		a.intake.Close(row.Num, row.Cause)
		delete(a.open, row.Channel)
	}
	return nil
}

func (a *attachments) find(id call.ChannelID) (catalog.Attachment, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	row, ok := a.open[id]
	return row, ok
}

func (a *attachments) count() int {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return len(a.open)
}

// all are the open channels in the order they were opened.
func (a *attachments) all() []catalog.Attachment {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return slices.SortedFunc(maps.Values(a.open), func(x, y catalog.Attachment) int { return cmp.Compare(x.Num, y.Num) })
}

// maxDead is how many dead channels are named.
const maxDead = 1000

// dead are the channels with a dialog for which neither RTP nor RTCP came for
// the given time: a sender that suppresses silence still sends reports.
func (a *attachments) dead(now time.Time, after time.Duration) []string {
	before := now.Add(-after)
	if a.began.After(before) {
		return nil
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	var dead []string
	for id, row := range a.open {
		if len(row.Dialog) == 0 || row.Opened.After(before) {
			continue
		}
		s, _ := a.intake.Stats(row.Num)
		if !s.LastPacket.After(before) && !s.LastControl.After(before) {
			dead = append(dead, string(id))
		}
	}
	slices.Sort(dead)
	return dead[:min(len(dead), maxDead)]
}

// held is the open channels as directors and people see them.
func (a *attachments) held() []*tandemv1.HeldChannel {
	rows := a.all()
	held := make([]*tandemv1.HeldChannel, len(rows))
	for i, row := range rows {
		h := &tandemv1.HeldChannel{
			Channel: channelProto(row), Endpoint: endpointOf(row), Codec: codecProto(row.Codec), RtcpMux: row.RTCPMux,
			Dialog: row.Dialog, Reason: row.Reason, Opened: timeProto(row.Opened),
		}
		if s, ok := a.intake.Stats(row.Num); ok {
			h.LastPacket, h.Packets, h.Lost, h.Rejected, h.Ssrc = timeProto(s.LastPacket), s.Packets, s.Lost, s.Rejected.Total(), s.SSRC
		}
		held[i] = h
	}
	return held
}

func attachmentFrom(want *tandemv1.OpenChannel) catalog.Attachment {
	c, s := want.GetChannel(), want.GetChannel().GetSession()
	return catalog.Attachment{
		Channel: call.ChannelID(c.GetId()), Session: call.SessionID(s.GetId()), User: call.UserID(s.GetUser()), UserName: s.GetUserName(),
		Device: call.DeviceID(s.GetDevice()), Profile: s.GetProfile(), Mix: c.GetMix(), Copy: call.Copy(c.GetCopy()), Sources: c.GetSources(),
		Reason: want.GetReason(), Continues: continuationFrom(want.GetContinues()),
	}
}

func continuationFrom(c *tandemv1.Continuation) call.Continuation {
	return call.Continuation{Recorder: call.RecorderName(c.GetRecorder()), Cause: call.Cause(c.GetCause()), Since: timeFrom(c.GetSince())}
}

func endpointOf(row catalog.Attachment) *tandemv1.Endpoint {
	return &tandemv1.Endpoint{Host: row.Host, RtpPort: uint32(row.Port)}
}

func hostPort(e *tandemv1.Endpoint) string {
	return net.JoinHostPort(e.GetHost(), strconv.Itoa(int(e.GetRtpPort())))
}

func channelProto(row catalog.Attachment) *tandemv1.Channel {
	return &tandemv1.Channel{
		Id: string(row.Channel), Mix: row.Mix, Copy: string(row.Copy), Sources: row.Sources,
		Session: &tandemv1.Session{Id: string(row.Session), User: string(row.User), UserName: row.UserName, Device: string(row.Device), Profile: row.Profile},
	}
}

func codecFrom(c tandemv1.Codec) media.Codec {
	switch c {
	case tandemv1.Codec_CODEC_PCMU:
		return media.PCMU
	case tandemv1.Codec_CODEC_PCMA:
		return media.PCMA
	case tandemv1.Codec_CODEC_G722:
		return media.G722
	}
	return ""
}

func codecProto(c media.Codec) tandemv1.Codec {
	switch c {
	case media.PCMU:
		return tandemv1.Codec_CODEC_PCMU
	case media.PCMA:
		return tandemv1.Codec_CODEC_PCMA
	case media.G722:
		return tandemv1.Codec_CODEC_G722
	}
	return tandemv1.Codec_CODEC_UNSPECIFIED
}
