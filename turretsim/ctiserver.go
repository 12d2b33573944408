package turretsim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tandem/internal/call"
	"tandem/internal/cti"
)

const (
	loginTime    = 10 * time.Second // to say login
	writeTime    = 10 * time.Second // to take what we send
	missedBeats  = 3                // of silence make a dead link
	partialShare = 0.5              // of the sessions are missing from a partial snapshot
)

// subscriptions is what the CTI server asks of the floor. Both are carried
// out by the floor's own loop.
type subscriptions interface {
	subscribe(l *link, copy call.Copy)
	unsubscribe(l *link)
}

// ctiServer takes logins of directors and hands their links to the floor.
type ctiServer struct {
	cfg      CTIConfig
	seed     uint64
	password string
	listener net.Listener
	floor    subscriptions
	faults   *atomic.Pointer[Faults]
	log      *slog.Logger

	mu     sync.Mutex
	server string // incarnation id
	links  map[*link]struct{}
	logins int // since the start
}

func newCTIServer(cfg CTIConfig, seed uint64, faults *atomic.Pointer[Faults], log *slog.Logger) (*ctiServer, error) {
	password, err := secret(cfg.PasswordFile)
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for CTI: %w", err)
	}
	return &ctiServer{cfg: cfg, seed: seed, password: password, listener: ln, faults: faults, log: log, links: map[*link]struct{}{}}, nil
}

// run serves until ctx ends and every link is closed.
func (s *ctiServer) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { s.listener.Close(); s.drop() })
	defer stop()
	for {
		conn, err := s.listener.Accept()
		if ctx.Err() != nil {
			return g.Wait()
		}
		if err != nil {
			s.drop()
			return errors.Join(fmt.Errorf("accept CTI: %w", err), g.Wait())
		}
		g.Go(func() error { s.serve(ctx, conn); return nil })
	}
}

// drop closes every link.
func (s *ctiServer) drop() {
	for _, l := range s.all() {
		l.close()
	}
}

func (s *ctiServer) all() (links []*link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.links {
		links = append(links, l)
	}
	return links
}

// restart makes the next login see another server.
func (s *ctiServer) restart(server string) {
	s.mu.Lock()
	s.server = server
	s.mu.Unlock()
	s.drop()
}

// serve is one link from accept to close.
func (s *ctiServer) serve(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	log := s.log.With("peer", conn.RemoteAddr().String())
	in := cti.NewReader(conn)
	l, err := s.login(conn, in)
	if err != nil {
		log.Info("CTI login refused", "err", err)
		return
	}
	log.Info("CTI login", "client", l.client)
	done := make(chan struct{})
	go func() { defer close(done); l.write(s.cfg.Heartbeat.Std()) }()
	err = s.read(l, in)
	s.floor.unsubscribe(l)
	l.close()
	<-done
	s.mu.Lock()
	delete(s.links, l)
	s.mu.Unlock()
	log.Info("CTI link closed", "client", l.client, "err", err)
}

// login reads the first line and answers it.
func (s *ctiServer) login(conn net.Conn, in *cti.Reader) (*link, error) {
	if err := conn.SetDeadline(time.Now().Add(loginTime)); err != nil {
		return nil, err
	}
	m, err := in.Read()
	if err != nil {
		return nil, err
	}
	l, server, reason := s.admit(conn, m)
	reply := cti.Message{Type: cti.TypeLoginError, Reason: reason}
	if reason == "" {
		reply = cti.Message{Type: cti.TypeLoginOK, Server: server, HeartbeatMS: int(s.cfg.Heartbeat.Std() / time.Millisecond)}
	}
	line, err := cti.Append(nil, reply)
	if err == nil {
		_, err = conn.Write(line)
	}
	if reason != "" {
		return nil, errors.Join(fmt.Errorf("%s: %s", m.Type, reason), err)
	}
	return l, err
}

// admit decides on a login; reason "" lets it in.
func (s *ctiServer) admit(conn net.Conn, m cti.Message) (l *link, server, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch refuse := s.faults.Load().CTI.RefuseLogin; {
	case refuse != "":
		return nil, "", refuse
	case m.Type != cti.TypeLogin || m.V != cti.Version || m.User != s.cfg.User || s.password != "" && m.Password != s.password:
		return nil, "", "credentials"
	case s.cfg.Logins > 0 && len(s.links) >= s.cfg.Logins:
		return nil, "", "limit"
	}
	l = &link{conn: conn, client: m.Client, max: s.cfg.Queue, wake: make(chan struct{}, 1)}
	s.logins++
	l.rng = rand.New(rand.NewPCG(s.seed, seedCTI+uint64(s.logins)))
	s.links[l] = struct{}{}
	return l, s.server, ""
}

// read takes what the director says until it goes or falls silent.
func (s *ctiServer) read(l *link, in *cti.Reader) error {
	silence := missedBeats * s.cfg.Heartbeat.Std()
	for {
		if err := l.conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
			return err
		}
		m, err := in.Read()
		var syntax *cti.SyntaxError
		switch {
		case errors.As(err, &syntax):
			s.log.Warn("CTI line ignored", "peer", l.conn.RemoteAddr().String(), "err", err)
		case err != nil:
			return err
		case m.Type == cti.TypeSubscribe:
			copy, err := call.ParseCopy(m.Copy)
			if err != nil {
				return err
			}
			s.floor.subscribe(l, copy)
		}
	}
}

// link is one director's connection. Seq, copy and the line held back are the
// floor loop's; the queue is shared with the writer under the lock.
type link struct {
	conn   net.Conn
	client string
	max    int // bytes that may wait

	copy call.Copy
	seq  uint64
	held []byte     // a line that the next one overtakes
	rng  *rand.Rand // decides the faults of this link

	mu      sync.Mutex
	queue   []byte
	closed  bool
	last    bool      // close when the queue is empty
	stalled time.Time // nothing is written before
	wake    chan struct{}
}

// emit numbers a message and queues it, as whole as the faults leave it.
func (l *link) emit(m cti.Message, f CTIFaults) {
	l.seq++
	m.Seq = l.seq
	if chance(l.rng, f.Lose) {
		return
	}
	line, err := cti.Append(nil, m)
	if err != nil {
		slog.Error("CTI event not sent", "type", m.Type, "err", err)
		return
	}
	if chance(l.rng, f.Duplicate) {
		line = append(line, line...)
	}
	if l.held == nil && chance(l.rng, f.Reorder) {
		l.held = line
		return
	}
	l.put(append(line, l.held...))
	l.held = nil
}

// put queues bytes. A director that does not read fast enough is cut off: it
// will come back for a snapshot.
func (l *link) put(lines []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if len(l.queue)+len(lines) > l.max {
		slog.Warn("CTI client too slow", "client", l.client, "queued", len(l.queue))
		l.closeLocked()
		return
	}
	l.queue = append(l.queue, lines...)
	l.signal()
}

func (l *link) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closeLocked()
}

func (l *link) closeLocked() {
	if !l.closed {
		l.closed = true
		l.conn.Close()
		l.signal()
	}
}

// finish closes the link once what is queued has been written.
func (l *link) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = true
	l.signal()
}

// stall writes nothing, not even a heartbeat, for that long.
func (l *link) stall(length time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stalled = time.Now().Add(length)
}

// write sends the queue and a heartbeat on its own timer until the link closes.
func (l *link) write(heartbeat time.Duration) {
	beat, err := cti.Append(nil, cti.Message{Type: cti.TypeHeartbeat})
	if err != nil {
		slog.Error("CTI heartbeat not made", "err", err)
	}
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	var spare []byte
	for {
		select {
		case <-l.wake:
		case <-ticker.C:
			l.put(beat)
		}
		batch, wait, ok := l.take(spare)
		if !ok {
			return
		}
		if wait > 0 {
			time.AfterFunc(wait, l.signal)
			continue
		}
		if len(batch) > 0 && !l.send(batch) {
			return
		}
		if l.finished() {
			l.close()
			return
		}
		spare = batch[:0]
	}
}

// take swaps the queue for an empty one, or says how long to wait.
func (l *link) take(spare []byte) (batch []byte, wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, 0, false
	}
	if wait = time.Until(l.stalled); wait > 0 {
		return nil, wait, true
	}
	batch, l.queue = l.queue, spare
	return batch, 0, true
}

func (l *link) finished() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last && len(l.queue) == 0
}

func (l *link) send(batch []byte) bool {
	err := l.conn.SetWriteDeadline(time.Now().Add(writeTime))
	if err == nil {
		_, err = l.conn.Write(batch)
	}
	if err != nil {
		l.close()
	}
	return err == nil
}
