package monitor

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"sync"
	"time"
)

// Round is what became of one probe on each path.
type Round struct {
	At    time.Time // it was sent
	Paths []PathResult
}

// PathResult is what became of it on one path.
type PathResult struct {
	Path  string // address
	Heard bool
	RTT   time.Duration
	Reply Reply
	Err   error // why not
}

// Reply is the quickest answer, and whether there was any.
func (r Round) Reply() (PathResult, bool) {
	best, heard := PathResult{}, false
	for _, p := range r.Paths {
		if p.Heard && (!heard || p.RTT < best.RTT) {
			best, heard = p, true
		}
	}
	return best, heard
}

// Heard is on how many paths there was an answer.
func (r Round) Heard() int {
	n := 0
	for _, p := range r.Paths {
		if p.Heard {
			n++
		}
	}
	return n
}

// Prober asks one director on all paths to it.
type Prober struct {
	key   []byte
	paths []*path
}

// path is a way to the director. Only one round at a time uses it.
type path struct {
	index    int
	sender   string
	address  string
	sequence uint64
	silent   int      // rounds in a row
	conn     net.Conn // nil after a silent round
}

// NewProber asks as sender at the given addresses, at most 16. One sender's
// name belongs to one process at a time.
func NewProber(sender string, key []byte, addresses []string) *Prober {
	p := &Prober{key: key}
	for i, a := range addresses[:min(len(addresses), maxPaths)] {
		p.paths = append(p.paths, &path{index: i, sender: sender, address: a, sequence: uint64(time.Now().UnixNano())})
	}
	return p
}

// Close lets go of the sockets. No round may be under way.
func (p *Prober) Close() {
	for _, path := range p.paths {
		path.hangUp()
	}
}

// Probe asks once on each path, and returns when all have answered or ctx has
// ended. One round at a time.
func (p *Prober) Probe(ctx context.Context) Round {
	round := Round{At: time.Now(), Paths: make([]PathResult, len(p.paths))}
	var all sync.WaitGroup
	for i, path := range p.paths {
		all.Go(func() { round.Paths[i] = path.probe(ctx, p.key) })
	}
	all.Wait()
	return round
}

// maxJump is the exponent of the last leap of a sequence in one silence: 13 days.
const maxJump = 50

// next is the next sequence. It leaps further with every silent round: whoever
// starts again after its clock was set back begins with a sequence that was
// there before, and would not be heard until the clock has caught up.
func (p *path) next() uint64 {
	step := uint64(1)
	if p.silent <= maxJump {
		step <<= p.silent
	}
	p.sequence += step
	return p.sequence
}

// probe asks once and waits. A silent round gives up its socket: late answers
// and ICMP errors go with it, and the next round takes the route that is
// there then.
func (p *path) probe(ctx context.Context, key []byte) PathResult {
	result := PathResult{Path: p.address}
	result.Reply, result.RTT, result.Err = p.ask(ctx, key)
	if result.Heard = result.Err == nil; result.Heard {
		p.silent = 0
		return result
	}
	p.silent++
	p.hangUp()
	return result
}

func (p *path) hangUp() {
	if p.conn != nil {
		p.conn.Close()
		p.conn = nil
	}
}

func (p *path) ask(ctx context.Context, key []byte) (Reply, time.Duration, error) {
	if p.conn == nil {
		conn, err := (&net.Dialer{}).DialContext(ctx, "udp", p.address)
		if err != nil {
			return Reply{}, 0, err
		}
		p.conn = conn
	}
	conn := p.conn
	_ = conn.SetDeadline(time.Time{}) // an old one must not outlast its round
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() { // it may yet end the next round
			p.hangUp()
		}
	}()
	nonce := rand.Text()
	datagram, err := Probe{Version, p.sender, p.index, p.next(), nonce}.encode(key)
	if err != nil {
		return Reply{}, 0, err
	}
	sent := time.Now()
	if _, err := conn.Write(datagram); err != nil {
		return Reply{}, 0, fmt.Errorf("send probe: %w", err)
	}
	buffer := make([]byte, MaxSize+1)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return Reply{}, 0, fmt.Errorf("wait for reply: %w", err)
		}
		if reply, err := parseReply(key, buffer[:n], nonce); err == nil {
			return reply, time.Since(sent), nil
		}
	}
}
