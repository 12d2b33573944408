package turretsim

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"
	"golang.org/x/sync/errgroup"

	"tandem/internal/media"
	"tandem/internal/tone"
	"tandem/turretsim/voice"
)

const (
	realm = "turret"
	allow = "INVITE, ACK, CANCEL, BYE, OPTIONS"
)

// channel is one thing a director may dial.
type channel struct {
	id, device string
	steady     []tone.Source    // what it mixes: voices that never stop,
	speakers   []*voice.Speaker // or those that do
	dialog     *dialog          // who holds it; nil: nobody
}

// phone is the switch's SIP user agent. Its lock guards channels and dialogs.
type phone struct {
	cfg      SIPConfig
	mux      bool
	codecs   []media.Codec
	password string
	nonce    string
	addr     netip.AddrPort // where we listen
	udp      net.PacketConn
	tcp      net.Listener
	ua       *sipgo.UserAgent
	server   *sipgo.Server
	client   *sipgo.Client
	sender   *sender
	faults   *atomic.Pointer[Faults]
	log      *slog.Logger

	mu       sync.Mutex
	rng      *mathrand.Rand
	channels map[string]*channel
	dialogs  map[string]*dialog // by local tag
	invited  map[invitation]*dialog
	counts   SIPCounts
	closing  chan struct{} // closed when run ends
	byes     sync.WaitGroup
}

// SIPCounts is what the user agent has done since it began.
type SIPCounts struct {
	Invites   int `json:"invites"` // new dialogs asked for, retransmissions aside
	Reinvites int `json:"reinvites"`
	Refused   int `json:"refused"`
	ACKs      int `json:"acks"`
	ByesIn    int `json:"byes_in"`
	ByesOut   int `json:"byes_out"`
	Taken     int `json:"taken"` // dialogs that lost their channel to another
}

func newPhone(cfg Config, s *sender, faults *atomic.Pointer[Faults], log *slog.Logger) (*phone, error) {
	password, err := secret(cfg.SIP.PasswordFile)
	if err != nil {
		return nil, err
	}
	p := &phone{
		cfg: cfg.SIP, mux: cfg.RTP.RTCPMux, password: password, nonce: rand.Text(),
		sender: s, faults: faults, log: log, rng: mathrand.New(mathrand.NewPCG(cfg.Seed, seedSIP)),
		channels: map[string]*channel{}, dialogs: map[string]*dialog{}, invited: map[invitation]*dialog{}, closing: make(chan struct{}),
	}
	for _, name := range cfg.RTP.Codecs {
		codec, err := media.ParseCodec(name)
		if err != nil {
			return nil, err
		}
		p.codecs = append(p.codecs, codec)
	}
	if p.udp, p.tcp, err = listenSIP(cfg.SIP.Listen); err != nil {
		return nil, err
	}
	p.addr = p.udp.LocalAddr().(*net.UDPAddr).AddrPort()
	if err := p.open(); err != nil {
		p.udp.Close()
		p.tcp.Close()
		return nil, err
	}
	return p, nil
}

// listenSIP binds the same port over UDP and TCP. Port 0 looks for one.
func listenSIP(addr string) (net.PacketConn, net.Listener, error) {
	want, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, nil, fmt.Errorf("parse sip.listen: %w", err)
	}
	const tries = 20
	for try := 1; ; try++ {
		udp, err := net.ListenPacket("udp", addr)
		if err != nil {
			return nil, nil, fmt.Errorf("listen for SIP: %w", err)
		}
		// Thousands of INVITEs come at once after a failover. Best effort: the
		// kernel caps it at net.core.rmem_max.
		_ = udp.(*net.UDPConn).SetReadBuffer(4 << 20)
		tcp, err := net.Listen("tcp", udp.LocalAddr().String())
		if err == nil {
			return udp, tcp, nil
		}
		udp.Close()
		if want.Port() != 0 || try == tries {
			return nil, nil, fmt.Errorf("listen for SIP: %w", err)
		}
	}
}

func (p *phone) open() error {
	quiet := slog.New(atLeast{p.log.Handler(), slog.LevelError})
	var err error
	p.ua, err = sipgo.NewUA(sipgo.WithUserAgent("turretsim"), sipgo.WithUserAgentHostname(p.addr.Addr().String()),
		sipgo.WithUserAgentTransactionLayerOptions(sip.WithTransactionLayerLogger(quiet), sip.WithTransactionLayerUnhandledResponseHandler(func(*sip.Response) {})),
		sipgo.WithUserAgentTransportLayerOptions(sip.WithTransportLayerLogger(quiet)))
	if err != nil {
		return fmt.Errorf("open SIP: %w", err)
	}
	if p.server, err = sipgo.NewServer(p.ua, sipgo.WithServerLogger(quiet)); err != nil {
		return fmt.Errorf("open SIP: %w", err)
	}
	if p.client, err = sipgo.NewClient(p.ua, sipgo.WithClientAddr(p.addr.String())); err != nil {
		return fmt.Errorf("open SIP: %w", err)
	}
	p.server.OnInvite(p.onInvite)
	p.server.OnAck(p.onACK)
	p.server.OnBye(p.onBye)
	p.server.OnOptions(func(req *sip.Request, tx sip.ServerTransaction) { p.respond(req, tx, 200, "OK") })
	p.server.OnCancel(func(req *sip.Request, tx sip.ServerTransaction) {
		p.respond(req, tx, 481, "Call/Transaction Does Not Exist")
	})
	p.server.OnNoRoute(func(req *sip.Request, tx sip.ServerTransaction) { p.respond(req, tx, 405, "Method Not Allowed") })
	return nil
}

// atLeast passes only records of a level and above: the SIP stack reports
// every retransmission as noteworthy.
type atLeast struct {
	slog.Handler
	level slog.Level
}

func (h atLeast) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= h.level && h.Handler.Enabled(ctx, level)
}

// run answers until ctx ends. Dialogs are not hung up: the process is gone.
func (p *phone) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	closed := func(err error) error {
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return nil
		}
		return fmt.Errorf("serve SIP: %w", err)
	}
	g.Go(func() error { return closed(p.server.ServeUDP(p.udp)) })
	g.Go(func() error { return closed(p.server.ServeTCP(p.tcp)) })
	g.Go(func() error {
		<-ctx.Done()
		p.mu.Lock()
		close(p.closing)
		p.mu.Unlock()
		p.byes.Wait()
		p.udp.Close()
		p.tcp.Close()
		return p.ua.Close()
	})
	return g.Wait()
}

func (p *phone) respond(req *sip.Request, tx sip.ServerTransaction, status int, reason string, headers ...sip.Header) {
	res := sip.NewResponseFromRequest(req, status, reason, nil)
	if req.IsInvite() || status == 405 || req.Method == sip.OPTIONS {
		res.AppendHeader(sip.NewHeader("Allow", allow))
	}
	for _, h := range headers {
		res.AppendHeader(h)
	}
	p.reply(tx, res)
}

func (p *phone) reply(tx sip.ServerTransaction, res *sip.Response) {
	if err := tx.Respond(res); err != nil {
		p.log.Debug("answer lost", "status", res.StatusCode, "err", err)
	}
}

// offerChannel makes a channel dialable.
func (p *phone) offerChannel(c *channel) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.channels[c.id] = c
}

// withdraw takes a channel away and hangs up on whoever holds it.
func (p *phone) withdraw(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.channels[id]; c != nil {
		delete(p.channels, id)
		if c.dialog != nil {
			p.hangUp(c.dialog, "")
		}
	}
}

func (p *phone) onInvite(req *sip.Request, tx sip.ServerTransaction) {
	if err := usable(req); err != nil {
		p.respond(req, tx, 400, "Bad Request")
		return
	}
	if tag(req.To().Params) != "" {
		p.reinvite(req, tx)
		return
	}
	if res := p.seenBefore(req); res != nil {
		p.reply(tx, res)
		return
	}
	p.count(func(c *SIPCounts) { c.Invites++ })
	if status, reason, headers := p.refusal(req); status != 0 {
		p.count(func(c *SIPCounts) { c.Refused++ })
		p.respond(req, tx, status, reason, headers...)
		return
	}
	p.accept(req, tx)
}

// usable checks what RFC 3261 12.1.1 needs of a request that makes a dialog.
func usable(req *sip.Request) error {
	if req.CallID() == nil || req.CSeq() == nil || req.Contact() == nil || req.Via() == nil ||
		req.To() == nil || req.From() == nil || tag(req.From().Params) == "" {
		return errors.New("header missing")
	}
	return nil
}

func tag(params sip.HeaderParams) string { v, _ := params.Get("tag"); return v }

func branch(req *sip.Request) string { v, _ := req.Via().Params.Get("branch"); return v }

// seenBefore answers an INVITE whose dialog exists: a retransmission that no
// transaction remembers gets the same 200 again, another path's copy of it
// is a merged request (RFC 3261 8.2.2.2).
func (p *phone) seenBefore(req *sip.Request) *sip.Response {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.invited[invitationOf(req)]
	switch {
	case d == nil || d.seqIn != req.CSeq().SeqNo:
		return nil
	case d.invite == branch(req):
		return d.last
	}
	return sip.NewResponseFromRequest(req, 482, "Loop Detected", nil)
}

// refusal says why a new INVITE is refused; status 0 is not at all.
func (p *phone) refusal(req *sip.Request) (status int, reason string, headers []sip.Header) {
	f := p.faults.Load().SIP
	switch {
	case f.Status != 0 && p.dice(f.StatusRate):
		status, reason = f.Status, reasonOf(f.Status)
		if status == 503 {
			headers = append(headers, sip.NewHeader("Retry-After", "1"))
		}
	case p.cfg.User != "" && !p.authorised(req):
		status, reason, headers = 401, "Unauthorized", p.challenges()
	case p.channel(req.Recipient.User) == nil:
		status, reason = 486, "Busy Here"
	case p.dice(f.NoCodec):
		status, reason = 488, "Not Acceptable Here"
	}
	return status, reason, headers
}

func reasonOf(status int) string {
	switch status {
	case 408:
		return "Request Timeout"
	case 481:
		return "Call/Transaction Does Not Exist"
	case 486:
		return "Busy Here"
	case 491:
		return "Request Pending"
	case 503:
		return "Service Unavailable"
	}
	return "Refused"
}

// accept answers 200 when the offer fits, perhaps late, and steals the channel
// from whoever held it.
func (p *phone) accept(req *sip.Request, tx sip.ServerTransaction) {
	o, codec, ok := p.negotiate(req)
	if !ok {
		p.count(func(c *SIPCounts) { c.Refused++ })
		p.respond(req, tx, 488, "Not Acceptable Here")
		return
	}
	f := p.faults.Load()
	d, err := p.newDialog(req, o, codec)
	if err != nil {
		p.log.Warn("INVITE refused", "peer", req.Source(), "err", err)
		p.respond(req, tx, 486, "Busy Here")
		return
	}
	early := f.RTP.Early.Std() > 0
	if early {
		d.shard.start(d.stream, 0)
	}
	if !p.wait(tx, f.SIP.Delay.Std()+f.RTP.Early.Std()) {
		if early {
			d.shard.stop(d.stream, 0)
		}
		return
	}
	res := p.attach(d, req, o)
	if res == nil { // the channel went while we waited
		if early {
			d.shard.stop(d.stream, 0)
		}
		p.respond(req, tx, 486, "Busy Here")
		return
	}
	if !early {
		d.shard.start(d.stream, f.RTP.Late.Std())
	}
	p.reply(tx, res)
	p.awaitACK(d)
}

// negotiate picks the first offered codec that we send.
func (p *phone) negotiate(req *sip.Request) (offer, media.Codec, bool) {
	o, err := parseOffer(req.Body())
	if err != nil {
		p.log.Warn("offer refused", "peer", req.Source(), "err", err)
		return o, "", false
	}
	if o.rtp.Addr().Is4() != p.sender.shards[0].local().Addr().Is4() {
		return o, "", false
	}
	for _, codec := range o.codecs {
		if slices.Contains(p.codecs, codec) {
			return o, codec, true
		}
	}
	return o, "", false
}

// wait holds an answer back; false when the caller gave up meanwhile.
func (p *phone) wait(tx sip.ServerTransaction, delay time.Duration) bool {
	if delay == 0 {
		return true
	}
	cancelled := make(chan struct{})
	if !tx.OnCancel(func(*sip.Request) { close(cancelled) }) {
		return false
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-cancelled:
	case <-tx.Done():
	case <-p.closing:
	}
	return false
}

func (p *phone) onACK(req *sip.Request, _ sip.ServerTransaction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.find(req)
	if d == nil || req.CSeq() == nil || req.CSeq().SeqNo != d.seqIn || chance(p.rng, p.faults.Load().SIP.LoseACK) {
		return
	}
	p.counts.ACKs++
	closeOnce(d.acked)
}

// reinvite moves a dialog's media (RFC 3261 14.2).
func (p *phone) reinvite(req *sip.Request, tx sip.ServerTransaction) {
	p.mu.Lock()
	d := p.find(req)
	var again *sip.Response
	old := false
	if d != nil {
		if old = req.CSeq().SeqNo <= d.seqIn; old && d.seqIn == req.CSeq().SeqNo && d.invite == branch(req) {
			again = d.last
		}
	}
	p.mu.Unlock()
	switch {
	case d == nil:
		p.respond(req, tx, 481, "Call/Transaction Does Not Exist")
		return
	case again != nil:
		p.reply(tx, again)
		return
	case old: // RFC 3261 12.2.2
		p.respond(req, tx, 500, "Server Internal Error")
		return
	}
	p.count(func(c *SIPCounts) { c.Reinvites++ })
	f := p.faults.Load()
	if f.SIP.Status != 0 && p.dice(f.SIP.StatusRate) {
		p.respond(req, tx, f.SIP.Status, reasonOf(f.SIP.Status))
		return
	}
	o, codec, ok := p.negotiate(req)
	if !ok || codec != d.codec && !slices.Contains(o.codecs, d.codec) {
		p.respond(req, tx, 488, "Not Acceptable Here") // the session goes on as it was
		return
	}
	if !p.wait(tx, f.SIP.Delay.Std()) {
		return
	}
	res := p.update(d, req, o)
	if res == nil {
		p.respond(req, tx, 481, "Call/Transaction Does Not Exist")
		return
	}
	p.reply(tx, res)
	p.awaitACK(d)
}

func (p *phone) onBye(req *sip.Request, tx sip.ServerTransaction) {
	p.mu.Lock()
	d := p.find(req)
	if d != nil {
		p.counts.ByesIn++
		p.end(d)
	}
	p.mu.Unlock()
	if d == nil {
		p.respond(req, tx, 481, "Call/Transaction Does Not Exist")
		return
	}
	p.respond(req, tx, 200, "OK")
}

func (p *phone) channel(id string) *channel {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.channels[id]
}

func (p *phone) dice(probability float64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return chance(p.rng, probability)
}

func (p *phone) count(f func(*SIPCounts)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.counts)
}
