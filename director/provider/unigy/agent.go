package unigy

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"tandem/director/provider"
	"tandem/internal/call"
)

const (
	// movesAtOnce is how many re-INVITEs wait for their answers at a time: as
	// many as the switch answers, without more of them being lost on the way
	// than its socket holds.
	movesAtOnce = 64
	// glareTries is how often a re-INVITE is repeated after 491.
	glareTries = 4
)

// agent is the SIP side: a user agent that dials channels and keeps their dialogs.
type agent struct {
	user, password string
	gate           func() error
	metrics        *Metrics
	log            *slog.Logger

	local  netip.AddrPort
	udp    net.PacketConn
	tcp    net.Listener
	ua     *sipgo.UserAgent
	client *sipgo.Client
	server *sipgo.Server

	dials *queue // new dialogs, paced: a floor that logs on must not drown the switch
	moves *queue // re-INVITEs, of which movesAtOnce are under way at a time
	pace  *rate.Limiter
	tasks sync.WaitGroup

	// mu guards what follows. It is held while an event of a channel is
	// emitted, so that events of one channel come in the order in which its
	// state changed; the receiver must not wait for this package.
	mu       sync.Mutex
	emit     func(provider.Event)
	stopping bool
	channels map[call.ChannelID]*attachment
	byCallID map[string]*attachment
}

// attachment is what the agent knows of one channel.
type attachment struct {
	channel call.ChannelID
	dialog  *dialog            // nil: not attached
	attempt context.CancelFunc // nil: none running
	run     uint64             // counts attempts, so that an abandoned one knows itself
}

// newAgent binds the SIP sockets, UDP and TCP on one port.
func newAgent(cfg Config, emit func(provider.Event)) (*agent, error) {
	udp, tcp, err := listen(cfg.SIPListen)
	if err != nil {
		return nil, err
	}
	a := &agent{
		user: cfg.User, password: cfg.Password, gate: cfg.Gate, metrics: cfg.Metrics, log: cfg.Log,
		local: udp.LocalAddr().(*net.UDPAddr).AddrPort(), udp: udp, tcp: tcp,
		emit: emit, dials: newQueue(), moves: newQueue(), pace: rate.NewLimiter(rate.Limit(cfg.AttachRate), max(1, cfg.AttachRate/10)),
		channels: make(map[call.ChannelID]*attachment), byCallID: make(map[string]*attachment),
	}
	a.local = netip.AddrPortFrom(a.local.Addr().Unmap(), a.local.Port())
	if err := a.build(); err != nil {
		udp.Close()
		tcp.Close()
		return nil, fmt.Errorf("make sip user agent: %w", err)
	}
	return a, nil
}

// listen binds both transports; with port 0 it looks for a port free in both.
func listen(at netip.AddrPort) (net.PacketConn, net.Listener, error) {
	for try := 0; ; try++ {
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err != nil {
			return nil, nil, fmt.Errorf("listen for sip: %w", err)
		}
		tcp, err := net.Listen("tcp", udp.LocalAddr().String())
		if err == nil {
			return udp, tcp, nil
		}
		udp.Close()
		if at.Port() != 0 || try == 10 {
			return nil, nil, fmt.Errorf("listen for sip: %w", err)
		}
	}
}

func (a *agent) build() (err error) {
	quiet := slog.New(&oncePerMinute{next: a.log.Handler()})
	a.ua, err = sipgo.NewUA(
		sipgo.WithUserAgent("tandem"),
		sipgo.WithUserAgentTransportLayerOptions(sip.WithTransportLayerLogger(quiet)),
		sipgo.WithUserAgentTransactionLayerOptions(
			sip.WithTransactionLayerLogger(quiet),
			sip.WithTransactionLayerUnhandledResponseHandler(a.stray),
			sip.WithTransactionLayerTerminateOnConnClose(),
		),
	)
	if err != nil {
		return err
	}
	a.client, err = sipgo.NewClient(a.ua, sipgo.WithClientHostname(a.local.Addr().String()), sipgo.WithClientPort(int(a.local.Port())), sipgo.WithClientLogger(quiet))
	if err != nil {
		return err
	}
	a.server, err = sipgo.NewServer(a.ua, sipgo.WithServerLogger(quiet))
	if err != nil {
		return err
	}
	a.server.OnBye(a.onBye)
	a.server.OnOptions(a.onOptions)
	a.server.OnInvite(a.onInvite)
	a.server.OnAck(func(*sip.Request, sip.ServerTransaction) {})
	a.server.OnNoRoute(a.onOther)
	return nil
}

// run serves SIP and dials what is queued until ctx ends. Dialogs stay: a
// director that stops hangs nothing up.
func (a *agent) run(ctx context.Context) error {
	var serving sync.WaitGroup
	serving.Go(func() { a.server.ServeUDP(gated{a.udp, a.gate}) })
	serving.Go(func() { a.server.ServeTCP(a.tcp) })
	defer serving.Wait()
	defer a.ua.Close()
	defer a.udp.Close()
	defer a.tcp.Close()
	defer a.stop()
	if err := a.listening(ctx); err != nil {
		return err
	}
	return a.dispatch(ctx)
}

// stop waits for what is being said to the switch, and begins nothing new.
func (a *agent) stop() {
	a.mu.Lock()
	a.stopping = true
	a.mu.Unlock()
	a.tasks.Wait()
}

// listening waits until the transport knows its socket: a request sent
// before would open another one and fail on the port.
func (a *agent) listening(ctx context.Context) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := a.ua.TransportLayer().GetConnection("udp", a.udp.LocalAddr().String()); err == nil && c != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// enqueue notes an attempt: a re-INVITE when there is a dialog, a dial otherwise.
func (a *agent) enqueue(req provider.Attach) {
	a.mu.Lock()
	at := a.channels[req.Channel]
	moving := at != nil && at.dialog != nil
	a.mu.Unlock()
	if moving {
		a.moves.push(req)
	} else {
		a.dials.push(req)
	}
}

// dispatch makes the queued attempts until ctx ends.
func (a *agent) dispatch(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { return a.dialAll(ctx) })
	g.Go(func() error { return a.moveAll(ctx) })
	return g.Wait()
}

// dialAll dials one queued channel for each token of the pace.
func (a *agent) dialAll(ctx context.Context) error {
	for a.dials.wait(ctx) {
		if a.pace.Wait(ctx) != nil {
			return nil
		}
		req, ok := a.dials.pop() // after the token: what came meanwhile may be dearer
		if !ok {
			continue
		}
		a.tasks.Go(func() { a.attach(ctx, req) })
	}
	return nil
}

// moveAll moves queued channels, the dearest first: nobody records many of
// them until they have moved.
func (a *agent) moveAll(ctx context.Context) error {
	places := make(chan struct{}, movesAtOnce)
	for a.moves.wait(ctx) {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		req, ok := a.moves.pop()
		if !ok {
			<-places
			continue
		}
		a.tasks.Go(func() {
			defer func() { <-places }()
			a.attach(ctx, req)
		})
	}
	return nil
}

// adopt goes on with a dialog that another process made.
func (a *agent) adopt(channel call.ChannelID, blob []byte) {
	d, err := decodeDialog(blob)
	if err == nil && d.Channel != channel {
		err = fmt.Errorf("decode dialog: it is of channel %s", d.Channel)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.emit(provider.Adopted{Channel: channel, Err: err})
		return
	}
	d.CSeq += adoptedSkip
	a.keep(a.attachment(channel), d)
	a.emit(provider.Adopted{Channel: channel, Endpoint: d.endpoint()})
}

// detach ends whatever there is of a channel, a running attempt included.
func (a *agent) detach(channel call.ChannelID) {
	a.dials.remove(channel)
	a.moves.remove(channel)
	a.mu.Lock()
	at := a.channels[channel]
	if at == nil {
		a.mu.Unlock()
		return
	}
	delete(a.channels, channel)
	d := a.release(at)
	if at.attempt != nil {
		at.attempt()
	}
	if d != nil && !a.stopping {
		a.tasks.Go(func() { a.bye(*d) })
	}
	a.mu.Unlock()
}

// attach makes or moves a channel's dialog and tells what came of it.
func (a *agent) attach(ctx context.Context, req provider.Attach) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.mu.Lock()
	at := a.attachment(req.Channel)
	at.attempt = cancel
	at.run++
	run := at.run
	var d *dialog
	if at.dialog != nil {
		copied := *at.dialog
		d = &copied
	}
	a.mu.Unlock()
	if d == nil {
		a.dial(ctx, req, at, run)
		return
	}
	a.move(ctx, req, at, run, *d)
}

// dial makes a new dialog.
func (a *agent) dial(ctx context.Context, req provider.Attach, at *attachment, run uint64) {
	d, err := a.newDialog(req)
	var res *sip.Response
	var tx sip.ClientTransaction
	if err == nil {
		res, tx, err = a.invite(ctx, &d)
	}
	if err == nil {
		err = d.learn(res)
	}
	if err != nil {
		a.fail(req, at, run, err, false)
		return
	}
	if !a.confirm(at, run, d) { // detached while it rang
		a.ack(d, tx)
		a.bye(d)
		return
	}
	a.ack(d, tx)
	agreed, err := parseAnswer(res.Body())
	if err != nil {
		a.drop(at, d.CallID)
		a.bye(d)
		a.fail(req, at, run, err, false)
		return
	}
	a.succeed(req, at, run, d, agreed, "attached")
}

// move sends the media of a dialog elsewhere by re-INVITE.
func (a *agent) move(ctx context.Context, req provider.Attach, at *attachment, run uint64, d dialog) {
	d.Version++
	d.Host, d.Port = req.Endpoint.Host, req.Endpoint.Port
	var res *sip.Response
	var tx sip.ClientTransaction
	var err error
	for try := 0; ; try++ {
		d.CSeq++
		res, tx, err = a.invite(ctx, &d)
		if !isStatus(err, sip.StatusRequestPending) || try == glareTries || !sleep(ctx, glareWait()) {
			break
		}
	}
	a.count(at, d) // CSeq and version are used up even if the move failed
	switch {
	case isStatus(err, sip.StatusCallTransactionDoesNotExists), isStatus(err, sip.StatusRequestTimeout), errors.Is(err, errSilent):
		a.drop(at, d.CallID) // RFC 3261 12.2.1.2: the dialog is gone
		a.fail(req, at, run, err, true)
		return
	case err != nil:
		a.fail(req, at, run, err, false)
		return
	}
	d.refresh(res)
	a.ack(d, tx)
	agreed, err := parseAnswer(res.Body())
	if err != nil {
		a.fail(req, at, run, err, false)
		return
	}
	if !a.confirm(at, run, d) {
		a.fail(req, at, run, errHungUp, true)
		return
	}
	a.succeed(req, at, run, d, agreed, "moved")
}

func (a *agent) newDialog(req provider.Attach) (dialog, error) {
	uri, err := parseURI(req.Address)
	if err != nil {
		return dialog{}, err
	}
	transport, err := transportOf(uri)
	if err != nil {
		return dialog{}, err
	}
	remote := uri
	remote.UriParams = nil // To is a name, not a route (RFC 3261 8.1.1.2)
	return dialog{
		Channel: req.Channel, CallID: rand.Text(), LocalTag: rand.Text(),
		LocalURI:  (&sip.Uri{Scheme: "sip", User: "tandem", Host: a.local.Addr().String(), Port: int(a.local.Port())}).String(),
		RemoteURI: remote.String(), Target: req.Address, Transport: transport, CSeq: 1,
		Session: uint64(randomUint32()), Version: 1, Host: req.Endpoint.Host, Port: req.Endpoint.Port,
	}, nil
}

// glareWait is the pause after 491 for the owner of the Call-ID, which we
// always are: 2.1 to 4 s in steps of 10 ms (RFC 3261 14.1).
func glareWait() time.Duration {
	return 2100*time.Millisecond + time.Duration(randomUint32()%191)*10*time.Millisecond
}

// The functions below change state under mu.

// attachment finds or makes a channel's.
func (a *agent) attachment(channel call.ChannelID) *attachment {
	at := a.channels[channel]
	if at == nil {
		at = &attachment{channel: channel}
		a.channels[channel] = at
	}
	return at
}

func (a *agent) keep(at *attachment, d dialog) {
	a.release(at)
	at.dialog = &d
	a.byCallID[d.CallID] = at
}

func (a *agent) release(at *attachment) *dialog {
	d := at.dialog
	if d != nil {
		delete(a.byCallID, d.CallID)
		at.dialog = nil
	}
	return d
}

// confirm makes d the channel's dialog, unless the attempt was abandoned or
// the dialog it moved has ended meanwhile.
func (a *agent) confirm(at *attachment, run uint64, d dialog) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	moved := d.Version > 1
	if a.channels[at.channel] != at || at.run != run || moved && (at.dialog == nil || at.dialog.CallID != d.CallID) {
		return false
	}
	a.keep(at, d)
	return true
}

// count stores how far a dialog's sequence numbers have come.
func (a *agent) count(at *attachment, d dialog) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if at.dialog != nil && at.dialog.CallID == d.CallID {
		at.dialog.CSeq, at.dialog.Version = d.CSeq, d.Version
	}
}

func (a *agent) drop(at *attachment, callID string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if at.dialog != nil && at.dialog.CallID == callID {
		a.release(at)
	}
}

func (a *agent) succeed(req provider.Attach, at *attachment, run uint64, d dialog, agreed answer, outcome string) {
	a.metrics.invites.WithLabelValues(outcome).Inc()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.channels[at.channel] != at || at.run != run {
		return // detached
	}
	at.attempt = nil
	if at.dialog == nil || at.dialog.CallID != d.CallID {
		a.emit(provider.AttachFailed{Channel: req.Channel, Peer: hostOfURI(d.Target), Err: errHungUp, Gone: true})
		return
	}
	a.emit(provider.Attached{
		Channel: req.Channel, Endpoint: d.endpoint(), Remote: agreed.Remote,
		Codec: agreed.Codec, PayloadType: agreed.PayloadType, Mux: agreed.Mux, Dialog: d.encode(),
	})
}

func (a *agent) fail(req provider.Attach, at *attachment, run uint64, err error, gone bool) {
	a.metrics.invites.WithLabelValues(outcomeOf(err)).Inc()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.channels[at.channel] != at || at.run != run {
		return
	}
	at.attempt = nil
	if errors.Is(err, context.Canceled) {
		return // this agent stops: it is not the switch that failed
	}
	a.emit(provider.AttachFailed{Channel: req.Channel, Peer: hostOfURI(req.Address), Err: err, Gone: gone})
}

func outcomeOf(err error) string {
	var status *statusError
	switch {
	case errors.As(err, &status):
		return strconv.Itoa(status.code)
	case errors.Is(err, errSilent):
		return "silent"
	case errors.Is(err, errNoSDP), errors.Is(err, errNoCodec), errors.Is(err, errNoMedia):
		return "bad_answer"
	}
	return "error"
}

func hostOfURI(text string) string {
	uri, err := parseURI(text)
	if err != nil {
		return text
	}
	return net.JoinHostPort(uri.Host, strconv.Itoa(uri.Port))
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func randomUint32() uint32 {
	var b [4]byte
	rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint32(b[:])
}
