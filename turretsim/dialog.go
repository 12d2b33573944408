package turretsim

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"

	"tandem/internal/media"
	"tandem/turretsim/truth"
	"tandem/turretsim/voice"
)

// dialog is one call to a channel, seen from its far end (RFC 3261 12.1.1).
type dialog struct {
	id      string // local tag
	callID  string
	remote  sip.ToHeader   // their From
	local   sip.FromHeader // our To
	target  sip.Uri        // their Contact
	route   []string       // their Record-Route, in order
	flow    string         // transport
	seqIn   uint32         // CSeq of the last request taken
	invite  string         // branch of the INVITE that seqIn belongs to
	channel *channel
	stream  *stream
	shard   *shard
	codec   media.Codec
	session uint64 // of the SDP
	version uint64
	acked   chan struct{} // closed by the ACK of the last INVITE
	last    *sip.Response // that INVITE's 200
	over    bool
}

// invitation is what two copies of one INVITE have in common, besides CSeq.
type invitation struct{ callID, fromTag string }

func invitationOf(req *sip.Request) invitation {
	return invitation{req.CallID().Value(), tag(req.From().Params)}
}

func (d *dialog) invitation() invitation { return invitation{d.callID, tag(d.remote.Params)} }

func (p *phone) newDialog(req *sip.Request, o offer, codec media.Codec) (*dialog, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.channels[req.Recipient.User]
	if c == nil {
		return nil, errors.New("channel gone")
	}
	d := &dialog{
		id: fmt.Sprintf("%016x", p.rng.Uint64()), callID: req.CallID().Value(),
		remote: req.From().AsTo(), local: req.To().AsFrom(), target: *req.Contact().Address.Clone(),
		flow: req.Transport(), channel: c, shard: p.sender.of(c.device), codec: codec, session: uint64(p.rng.Uint32()),
	}
	d.local.Params = d.local.Params.Clone()
	d.local.Params.Add("tag", d.id)
	for _, h := range req.GetHeaders("Record-Route") {
		d.route = append(d.route, h.Value())
	}
	sdes, err := sdesOf(c.id)
	if err != nil {
		return nil, fmt.Errorf("name source %s: %w", c.id, err)
	}
	d.stream = &stream{
		channel: c.id, dialog: d.id, codec: codec, mix: voice.Mix{Steady: c.steady, Speakers: c.speakers}, sdes: sdes,
		rtp: newPeer(o.rtp), rtcp: newPeer(o.rtcp), muxed: o.mux && p.mux, held: !o.wanted,
	}
	d.stream.randomise(p.rng)
	return d, nil
}

// attach gives the channel to the dialog and returns the 200 for it.
func (p *phone) attach(d *dialog, req *sip.Request, o offer) *sip.Response {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.channels[d.channel.id] != d.channel {
		return nil
	}
	if old := d.channel.dialog; old != nil {
		p.counts.Taken++
		p.hangUp(old, `SIP;cause=200;text="taken"`)
	}
	d.channel.dialog = d
	p.dialogs[d.id], p.invited[d.invitation()] = d, d
	return p.ok(d, req, o)
}

// ok is the 200 to an INVITE of this dialog. The lock is held.
func (p *phone) ok(d *dialog, req *sip.Request, o offer) *sip.Response {
	d.seqIn, d.invite, d.acked = req.CSeq().SeqNo, branch(req), make(chan struct{})
	body, err := answer(o, d.codec, d.shard.local(), o.mux && p.mux, d.session, d.version)
	if err != nil {
		p.log.Error("no answer", "channel", d.channel.id, "err", err)
	}
	if chance(p.rng, p.faults.Load().SIP.NoSDP) {
		body = nil
	}
	res := sip.NewResponseFromRequest(req, 200, "OK", body)
	if h := res.To(); h != nil {
		h.Params.Add("tag", d.id)
	}
	res.AppendHeader(&sip.ContactHeader{Address: sip.Uri{Scheme: "sip", User: d.channel.id, Host: hostOf(p.addr), Port: int(p.addr.Port()), UriParams: transportParam(d.flow)}})
	res.AppendHeader(sip.NewHeader("Allow", allow))
	if body != nil {
		res.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
	}
	d.last = res
	return res
}

func hostOf(a netip.AddrPort) string {
	if a.Addr().Is6() {
		return "[" + a.Addr().String() + "]"
	}
	return a.Addr().String()
}

func transportParam(flow string) sip.HeaderParams {
	if flow == "TCP" {
		return sip.HeaderParams{{K: "transport", V: "tcp"}}
	}
	return nil
}

// awaitACK sends the 200 again until its ACK comes, over TCP too, and hangs
// up when none does (RFC 3261 13.3.1.4).
func (p *phone) awaitACK(d *dialog) {
	p.mu.Lock()
	acked, res := d.acked, d.last
	p.mu.Unlock()
	interval, deadline := sip.T1, time.Now().Add(64*sip.T1)
	var again func()
	again = func() {
		select {
		case <-acked:
			return
		case <-p.closing:
			return
		default:
		}
		if time.Now().After(deadline) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.hangUp(d, "")
			return
		}
		if err := p.server.WriteResponse(res); err != nil {
			p.log.Debug("answer lost", "status", res.StatusCode, "err", err)
		}
		interval = min(2*interval, sip.T2)
		time.AfterFunc(interval, again)
	}
	time.AfterFunc(interval, again)
}

func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// find is the dialog a request belongs to (RFC 3261 12.2.2). The lock is held.
func (p *phone) find(req *sip.Request) *dialog {
	if req.To() == nil || req.From() == nil || req.CallID() == nil {
		return nil
	}
	d := p.dialogs[tag(req.To().Params)]
	if d == nil || d.callID != req.CallID().Value() || tag(d.remote.Params) != tag(req.From().Params) {
		return nil
	}
	return d
}

// update points the dialog to the offer's address and returns the 200.
func (p *phone) update(d *dialog, req *sip.Request, o offer) *sip.Response {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d.over {
		return nil
	}
	d.target = *req.Contact().Address.Clone()
	d.version++
	d.shard.move(d.stream, o.rtp, o.rtcp, o.mux && p.mux, !o.wanted)
	return p.ok(d, req, o)
}

// end forgets a dialog and stops its media. The lock is held.
func (p *phone) end(d *dialog) {
	if d.over {
		return
	}
	d.over = true
	delete(p.dialogs, d.id)
	delete(p.invited, d.invitation())
	if d.channel.dialog == d {
		d.channel.dialog = nil
	}
	d.shard.stop(d.stream, p.faults.Load().RTP.Linger.Std())
}

// hangUp ends a dialog with BYE. The lock is held.
func (p *phone) hangUp(d *dialog, reason string) {
	if d.over {
		return
	}
	p.end(d)
	p.counts.ByesOut++
	select {
	case <-p.closing: // too late for words
		return
	default:
	}
	acked := d.acked
	p.byes.Go(func() { p.bye(d, acked, reason) })
}

// bye waits for the ACK first: RFC 3261 15 forbids the callee a BYE before it,
// or before the 200 has been given up.
func (p *phone) bye(d *dialog, acked chan struct{}, reason string) {
	ctx, cancel := context.WithTimeout(context.Background(), 64*sip.T1)
	defer cancel()
	go func() {
		select {
		case <-p.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	select {
	case <-acked:
	case <-ctx.Done():
		return
	}
	req := p.byeRequest(d, reason)
	res, err := p.client.Do(ctx, req, sipgo.ClientRequestAddVia)
	if err != nil && ctx.Err() == nil {
		p.log.Debug("bye unanswered", "channel", d.channel.id, "err", err)
	} else if err == nil {
		p.log.Debug("bye", "channel", d.channel.id, "status", res.StatusCode)
	}
}

// byeRequest is a request within the dialog (RFC 3261 12.2.1.1).
func (p *phone) byeRequest(d *dialog, reason string) *sip.Request {
	req := sip.NewRequest(sip.BYE, d.target)
	req.SetTransport(d.flow)
	if d.flow == "UDP" { // from the port we are known by
		req.Laddr = sip.Addr{IP: p.addr.Addr().AsSlice(), Port: int(p.addr.Port())}
	}
	from, to, callID, forwards := d.local, d.remote, sip.CallIDHeader(d.callID), sip.MaxForwardsHeader(70)
	req.AppendHeader(&from)
	req.AppendHeader(&to)
	req.AppendHeader(&callID)
	req.AppendHeader(&sip.CSeqHeader{SeqNo: 1, MethodName: sip.BYE})
	req.AppendHeader(&forwards)
	for _, r := range d.route {
		req.AppendHeader(sip.NewHeader("Route", r))
	}
	if r := req.Route(); r != nil {
		req.SetDestination(r.Address.HostPort())
	}
	if reason != "" {
		req.AppendHeader(sip.NewHeader("Reason", reason))
	}
	req.SetBody(nil)
	return req
}

// forget drops every dialog and channel without a word, as a crash would.
func (p *phone) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.dialogs {
		p.end(d)
	}
	clear(p.channels)
}

// held are the dialogs on the named channel, or up to n of all when it is empty.
func (p *phone) held(id string, n int) (found []*dialog) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.dialogs {
		if id == "" || d.channel.id == id {
			found = append(found, d)
		}
	}
	slices.SortFunc(found, func(a, b *dialog) int { return strings.Compare(a.channel.id, b.channel.id) })
	if id == "" {
		found = found[:min(len(found), n)]
	}
	return found
}

// position is where a channel's stream stands at a sample, if it is held.
func (p *phone) position(id string, sample int64) truth.Media {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.channels[id]; c != nil && c.dialog != nil {
		return c.dialog.shard.position(c.dialog.stream, sample)
	}
	return truth.Media{Channel: id}
}
