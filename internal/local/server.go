package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// slow is how long a watchdog may leave its reports unread before it is cut
// off; it connects again.
const slow = 200 * time.Millisecond

// Server is the director's end.
type Server struct {
	listener *net.UnixListener
	newest   atomic.Pointer[Report] // nil before the first one

	mu    sync.Mutex
	wakes map[chan struct{}]bool // one for each watchdog
}

// Listen makes the socket, for this user alone, and its directory when that is
// missing. A socket at which nobody listens any more is replaced; one at which
// somebody does is an error.
func Listen(path string) (*Server, error) {
	if conn, err := net.Dial(network, path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("listen at %s: another process does", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("make directory of socket: %w", err)
	}
	fresh := path + ".new" // nobody connects before it is theirs alone
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	listener, err := net.ListenUnix(network, &net.UnixAddr{Name: fresh, Net: network})
	if err != nil {
		return nil, fmt.Errorf("listen for watchdog: %w", err)
	}
	listener.SetUnlinkOnClose(false) // by then it may be a successor's
	if err = os.Chmod(fresh, 0o600); err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		listener.Close()
		return nil, fmt.Errorf("place socket: %w", err)
	}
	return &Server{listener: listener, wakes: make(map[chan struct{}]bool)}, nil
}

// Beat has the report sent to whoever listens. It never waits for them; where
// they are slow the newest report wins. The report's map is the server's from
// then on. Silence is a message, too: only the director's own loop may call it.
// Safe for concurrent use.
func (s *Server) Beat(r Report) {
	s.newest.Store(&r)
	s.mu.Lock()
	defer s.mu.Unlock()
	for wake := range s.wakes {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// Run serves until ctx ends, and closes the socket.
func (s *Server) Run(ctx context.Context) error {
	var group errgroup.Group
	stop := context.AfterFunc(ctx, func() { s.listener.Close() })
	defer stop()
	for {
		conn, err := s.listener.AcceptUnix()
		if err != nil {
			if ctx.Err() == nil {
				err = fmt.Errorf("accept watchdog: %w", err)
				s.listener.Close()
				return err
			}
			return group.Wait()
		}
		group.Go(func() error {
			s.feed(ctx, conn)
			return nil
		})
	}
}

// feed writes every report to one watchdog, until it is gone or too slow.
func (s *Server) feed(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	wake := make(chan struct{}, 1)
	s.subscribe(wake, true)
	defer s.subscribe(wake, false)
	if s.newest.Load() != nil {
		wake <- struct{}{}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		}
		text, err := json.Marshal(s.newest.Load())
		if err != nil {
			return
		}
		if err := conn.SetWriteDeadline(time.Now().Add(slow)); err != nil {
			return
		}
		if _, err := conn.Write(text); err != nil {
			return
		}
	}
}

func (s *Server) subscribe(wake chan struct{}, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if on {
		s.wakes[wake] = true
	} else {
		delete(s.wakes, wake)
	}
}
