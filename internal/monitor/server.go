package monitor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

const (
	maxSenders = 64 // names and paths of watchdogs that are told apart
	maxWaiting = 16 // probes that wait for one answer of the loop

	patience = 10 * time.Millisecond // with a kernel that has no room for an answer
)

// Metrics count every datagram that arrives, each under exactly one result.
type Metrics struct{ datagrams *prometheus.CounterVec }

// What becomes of a datagram.
const (
	answered   = "answered"
	unanswered = "unanswered" // the loop did not say anything in time
	stranger   = "stranger"   // not signed with the site's secret
	replay     = "replay"     // its sequence did not rise
	malformed  = "malformed"
	oversize   = "oversize"
	crowded    = "crowded" // signed, by one sender more than are told apart
	busy       = "busy"    // too many wait already
	unsent     = "unsent"  // the answer could not be sent
)

// NewMetrics registers the counters.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tandem_monitor_datagrams_total", Help: "Datagrams at the monitoring port, by what became of them.",
	}, []string{"result"})}
	for _, result := range []string{answered, unanswered, stranger, replay, malformed, oversize, crowded, busy, unsent} {
		m.datagrams.WithLabelValues(result)
	}
	r.MustRegister(m.datagrams)
	return m
}

func (m *Metrics) count(result string) { m.datagrams.WithLabelValues(result).Inc() }

// senders remembers the newest sequence of each sender, by path.
type senders map[sender]uint64

type sender struct {
	name string
	path int
}

// admit says whether a probe is the newest of its sender: "" if so, else what
// to count it as. Only signed probes come here, so nobody else fills it.
func (s senders) admit(p Probe) string {
	from := sender{p.Sender, p.Path}
	last, known := s[from]
	switch {
	case !known && len(s) == maxSenders:
		return crowded
	case p.Sequence <= last:
		return replay
	}
	s[from] = p.Sequence
	return ""
}

// judge decides on a datagram: the probe if it deserves an answer, else what
// to count it as.
func (s senders) judge(key, datagram []byte) (Probe, string) {
	p, err := parseProbe(key, datagram)
	switch {
	case errors.Is(err, errOversize):
		return p, oversize
	case errors.Is(err, errStranger):
		return p, stranger
	case err != nil:
		return p, malformed
	}
	return p, s.admit(p)
}

// question is a probe that waits for the loop.
type question struct {
	nonce string
	from  net.Addr
}

// server answers at one socket.
type server struct {
	conn    net.PacketConn
	key     []byte
	answer  func() (Reply, bool)
	metrics *Metrics
	senders senders       // the reader's
	waiting chan question // from the reader to the one who asks the loop
}

// Serve answers probes at conn until ctx ends, and closes conn. answer is
// called from one goroutine, one call at a time; it waits for the director's
// own loop for a bounded time and says false when that did not answer, and
// then nobody is answered: a stuck loop must look dead. All who asked before a
// call began share its answer, so a flood makes no queue.
func Serve(ctx context.Context, conn net.PacketConn, key []byte, answer func() (Reply, bool), metrics *Metrics) error {
	s := &server{conn: conn, key: key, answer: answer, metrics: metrics, senders: senders{}, waiting: make(chan question, maxWaiting)}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var group errgroup.Group
	group.Go(func() error {
		defer close(s.waiting)
		return s.read(ctx)
	})
	group.Go(func() error {
		s.serve()
		return nil
	})
	return group.Wait()
}

// read takes in datagrams until the socket is closed.
func (s *server) read(ctx context.Context) error {
	buffer := make([]byte, MaxSize+1) // one more, so that what is too long shows
	for {
		n, from, err := s.conn.ReadFrom(buffer)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("read probe: %w", err)
		case err != nil: // of an answer to one who is no longer there; but never spin
			time.Sleep(time.Millisecond)
			continue
		}
		s.take(buffer[:n], from)
	}
}

// take queues a datagram that deserves an answer, and counts every other one.
func (s *server) take(datagram []byte, from net.Addr) {
	p, result := s.senders.judge(s.key, datagram)
	if result == "" {
		select {
		case s.waiting <- question{p.Nonce, from}:
			return
		default:
			result = busy
		}
	}
	s.metrics.count(result)
}

// serve asks the loop on behalf of all who wait, until waiting is closed.
func (s *server) serve() {
	for first := range s.waiting {
		questions := append(make([]question, 0, maxWaiting), first)
		for range len(s.waiting) {
			questions = append(questions, <-s.waiting)
		}
		reply, ok := s.answer()
		for _, q := range questions {
			s.metrics.count(s.send(q, reply, ok))
		}
	}
}

// send answers one question, and says how that went.
func (s *server) send(q question, reply Reply, ok bool) string {
	if !ok {
		return unanswered
	}
	datagram, err := reply.encode(s.key, q.nonce)
	if err != nil {
		return unsent
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := s.conn.WriteTo(datagram, q.from); err != nil {
		return unsent
	}
	return answered
}
