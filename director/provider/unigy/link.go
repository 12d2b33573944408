package unigy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"tandem/director/provider"
	"tandem/internal/call"
	"tandem/internal/cti"
)

const (
	dialWait     = 2 * time.Second
	loginWait    = 3 * time.Second
	snapshotWait = 15 * time.Second // a switch that never ends its snapshot is asked again
	writeWait    = time.Second
	missedBeats  = 3 // heartbeats in a row whose absence means a dead link
	minHeartbeat = 10 * time.Millisecond
	maxHeartbeat = 30 * time.Second
	firstBackoff = 200 * time.Millisecond
	lastBackoff  = 5 * time.Second
	// steady is how long a link must have lasted for the next one to be tried at once.
	steady = 5 * time.Second
)

// link is the CTI side: it logs in, keeps the link alive, and turns lines
// into events. It holds no picture of the floor; the snapshot that begins
// each connection and strictly counted events after it are all it promises.
type link struct {
	cfg  Config
	emit func(provider.Event)
	dial func(ctx context.Context, address string) (net.Conn, error)
	said recent // complaints about the peer, each told once
}

func newLink(cfg Config, emit func(provider.Event)) *link {
	d := &net.Dialer{Timeout: dialWait}
	return &link{cfg: cfg, emit: emit, dial: func(ctx context.Context, address string) (net.Conn, error) {
		return d.DialContext(ctx, "tcp", address)
	}}
}

// run connects, and connects again, until ctx ends: at once after a link
// that had lasted, then backing off, each server in its turn.
func (l *link) run(ctx context.Context) error {
	failures := 0
	for n := 0; ctx.Err() == nil; n++ {
		if n > 0 {
			l.cfg.Metrics.reconnects.Inc()
		}
		server := l.cfg.Servers[n%len(l.cfg.Servers)]
		began := time.Now()
		err := l.connect(ctx, server)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) >= steady {
			failures = 0
		}
		l.complain(server, "cti link ended", err)
		if !sleep(ctx, backoff(failures, rand.Float64())) {
			return nil
		}
		failures++
	}
	return nil
}

// backoff is the pause before the next connection: none after the first
// failure, then 0.2 to 5 s, doubling, spread by r (0 to 1) over its upper half.
func backoff(failures int, r float64) time.Duration {
	if failures == 0 {
		return 0
	}
	pause := min(lastBackoff, firstBackoff<<min(failures-1, 10))
	return max(firstBackoff, pause/2+time.Duration(r*float64(pause)/2))
}

// connect carries one connection from dial to end.
func (l *link) connect(ctx context.Context, server string) error {
	conn, err := l.dial(ctx, server)
	if err != nil {
		err = fmt.Errorf("dial: %w", err)
		l.emit(provider.LinkDown{Peer: server, Err: err})
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	c := &connection{link: l, conn: conn, server: server, in: cti.NewReader(conn)}
	if err := c.login(); err != nil {
		l.emit(provider.LinkDown{Peer: server, Err: err})
		return err
	}
	return c.follow(ctx)
}

// complain logs a fault of the peer once, until it has been quiet for a while.
func (l *link) complain(server, what string, err error) {
	if l.said.first(fmt.Sprint(server, what, err), time.Now()) {
		l.cfg.Log.Warn(what, "peer", server, "err", err)
	}
}

// connection is one CTI connection. One goroutine reads, one sends heartbeats.
type connection struct {
	*link
	conn        net.Conn
	server      string
	in          *cti.Reader
	incarnation string
	heartbeat   time.Duration
	seq         uint64    // of the last event
	heard       time.Time // of the last line in order
	inSnapshot  bool
	snapshotBy  time.Time // when the snapshot must have ended; zero once it has
}

var errRefused = errors.New("login refused")

// login says who we are and learns the heartbeat.
func (c *connection) login() error {
	c.conn.SetReadDeadline(time.Now().Add(loginWait))
	err := c.write(cti.Message{Type: cti.TypeLogin, V: cti.Version, User: c.cfg.User, Password: c.cfg.Password, Client: c.cfg.Client})
	if err != nil {
		return err
	}
	for {
		m, err := c.read()
		if err != nil {
			return fmt.Errorf("log in: %w", err)
		}
		switch m.Type {
		case cti.TypeLoginOK:
			c.incarnation = m.Server
			c.heartbeat = min(max(time.Duration(m.HeartbeatMS)*time.Millisecond, minHeartbeat), maxHeartbeat)
			return c.write(cti.Message{Type: cti.TypeSubscribe, Copy: string(c.cfg.Copy)})
		case cti.TypeLoginError:
			return fmt.Errorf("%w: %s", errRefused, m.Reason)
		}
	}
}

// follow turns lines into events until the link fails.
func (c *connection) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	beating := make(chan struct{})
	go func() {
		defer close(beating)
		c.beat(ctx)
	}()
	c.heard = time.Now()
	c.snapshotBy = c.heard.Add(snapshotWait)
	c.cfg.Log.Info("cti link up", "peer", c.server, "server", c.incarnation, "heartbeat", c.heartbeat)
	c.emit(provider.LinkUp{Peer: c.server, Incarnation: c.incarnation})
	err := c.readEvents()
	c.cfg.Metrics.up.Set(0)
	c.conn.Close()
	cancel()
	<-beating
	c.emit(provider.LinkDown{Peer: c.server, Heard: c.heard, Err: err})
	return err
}

// beat sends a heartbeat on our own timer; a write that fails ends the link.
func (c *connection) beat(ctx context.Context) {
	tick := time.NewTicker(c.heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := c.write(cti.Message{Type: cti.TypeHeartbeat}); err != nil {
				c.conn.Close()
				return
			}
		}
	}
}

func (c *connection) readEvents() error {
	for {
		now := time.Now()
		if !c.snapshotBy.IsZero() && now.After(c.snapshotBy) {
			return errors.New("snapshot did not end in time")
		}
		c.conn.SetReadDeadline(now.Add(missedBeats * c.heartbeat))
		m, err := c.read()
		if err != nil {
			return err
		}
		if err := c.event(m); err != nil {
			return err
		}
		c.heard = time.Now()
	}
}

// read returns the next message; lines that are none are counted and passed over.
func (c *connection) read() (cti.Message, error) {
	for {
		m, err := c.in.Read()
		var syntax *cti.SyntaxError
		if !errors.As(err, &syntax) {
			return m, err
		}
		c.cfg.Metrics.badLines.Inc()
		// The line number differs each time; the peer is told about once.
		if c.said.first("bad line "+c.server, time.Now()) {
			c.cfg.Log.Warn("bad cti line", "peer", c.server, "err", err)
		}
	}
}

func (c *connection) write(m cti.Message) error {
	line, err := cti.Append(nil, m)
	if err != nil {
		return err
	}
	c.conn.SetWriteDeadline(time.Now().Add(writeWait))
	if _, err := c.conn.Write(line); err != nil {
		return fmt.Errorf("send %s: %w", m.Type, err)
	}
	return nil
}

// event checks the count of one message and emits what it says. An error
// means that something was missed and only a snapshot helps.
func (c *connection) event(m cti.Message) error {
	switch m.Type {
	case cti.TypeHeartbeat:
		return nil
	case cti.TypeLoginOK:
		if m.Server != c.incarnation {
			return fmt.Errorf("switch restarted: server %q became %q", c.incarnation, m.Server)
		}
		return nil
	}
	switch {
	case m.Seq == c.seq+1:
		c.seq = m.Seq
	case m.Seq <= c.seq:
		c.complain(c.server, "cti event repeated", nil)
		return nil
	default:
		return fmt.Errorf("events lost: sequence %d after %d", m.Seq, c.seq)
	}
	switch m.Type {
	case cti.TypeSnapshotBegin:
		c.inSnapshot = true
		c.emit(provider.SnapshotBegin{})
	case cti.TypeSnapshotEnd:
		if !c.inSnapshot {
			return nil
		}
		c.inSnapshot = false
		c.snapshotBy = time.Time{}
		c.cfg.Metrics.up.Set(1)
		c.emit(provider.SnapshotEnd{})
	default:
		if e := translate(m, c.cfg.Copy); e != nil {
			c.emit(e)
		}
	}
	return nil
}

// translate says in the director's words what a message means, or nil for
// what does not concern it: unknown types, other copies, and messages
// without what their type promises.
func translate(m cti.Message, copy call.Copy) provider.Event {
	at := m.T
	if at.IsZero() {
		at = time.Now()
	}
	switch m.Type {
	case cti.TypeAgentLoggedOn, cti.TypeAgentLoggedOff:
		return sessionEvent(m, at)
	case cti.TypeChannelAvailable, cti.TypeChannelUnavailable:
		return channelEvent(m, copy)
	case cti.TypeCallOffered, cti.TypeCallEstablished, cti.TypeCallHeld, cti.TypeCallRetrieved, cti.TypeCallReleased:
		return callEvent(m, at)
	case cti.TypeLegJoined, cti.TypeLegMoved, cti.TypeLegLeft:
		return legEvent(m, at)
	}
	return nil
}

func sessionEvent(m cti.Message, at time.Time) provider.Event {
	s := m.Session
	switch {
	case s == nil || s.ID == "":
		return nil
	case m.Type == cti.TypeAgentLoggedOff:
		return provider.LoggedOff{Session: call.SessionID(s.ID), Cause: m.Cause, At: at}
	}
	return provider.LoggedOn{At: at, Session: provider.Session{
		ID: call.SessionID(s.ID), User: call.UserID(s.User), UserName: s.UserName, Device: call.DeviceID(s.Device), Profile: s.Profile,
	}}
}

func channelEvent(m cti.Message, copy call.Copy) provider.Event {
	ch := m.Channel
	switch {
	case ch == nil || ch.ID == "":
		return nil
	case m.Type == cti.TypeChannelUnavailable:
		return provider.ChannelUnavailable{Channel: call.ChannelID(ch.ID), Cause: m.Cause}
	case ch.Copy != string(copy) || ch.Session == "":
		return nil
	}
	return provider.ChannelAvailable{Channel: provider.Channel{
		ID: call.ChannelID(ch.ID), Session: call.SessionID(ch.Session), Mix: ch.Mix, Copy: copy, Address: ch.URI, Sources: ch.Sources,
	}}
}

// callStates names the state each event leaves a call in.
var callStates = map[string]string{
	cti.TypeCallOffered:     "offered",
	cti.TypeCallEstablished: "established",
	cti.TypeCallHeld:        "held",
	cti.TypeCallRetrieved:   "established",
	cti.TypeCallReleased:    "released",
}

func callEvent(m cti.Message, at time.Time) provider.Event {
	c := m.Call
	if c == nil || c.ID == "" {
		return nil
	}
	return provider.CallChanged{State: callStates[m.Type], Cause: m.Cause, At: at, Call: provider.Call{
		ID: call.CallID(c.ID), Line: c.Line, Direction: c.Direction, Kind: c.Kind, Party: c.Party, PartyName: c.PartyName,
	}}
}

func legEvent(m cti.Message, at time.Time) provider.Event {
	if m.Leg == nil || m.Leg.ID == "" {
		return nil
	}
	if m.Type == cti.TypeLegLeft {
		return provider.LegLeft{Leg: call.LegID(m.Leg.ID), At: at}
	}
	leg := provider.Leg{
		ID: call.LegID(m.Leg.ID), Call: call.CallID(m.Leg.Call), Session: call.SessionID(m.Leg.Session),
		User: call.UserID(m.Leg.User), Device: call.DeviceID(m.Leg.Device), Source: m.Leg.Source,
	}
	channels := make([]call.ChannelID, len(m.Channels))
	for i, id := range m.Channels {
		channels[i] = call.ChannelID(id)
	}
	if m.Type == cti.TypeLegMoved {
		return provider.LegMoved{Leg: leg, Channels: channels, At: at}
	}
	return provider.LegJoined{Leg: leg, Channels: channels, At: at}
}
