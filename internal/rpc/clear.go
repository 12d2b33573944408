package rpc

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"tandem/internal/pki"
)

// What begins a connection of the other kind (RFC 8446 5.1, RFC 9113 3.4).
var (
	tlsHandshake = []byte{22, 3}  // a client hello
	tlsAlert     = []byte{21, 3}  // the answer to whoever sent none
	http1        = []byte("HTTP") // ours, see refuseClear; an HTTP/2 server begins with a frame
)

// firstWord is a connection whose first bytes tell whether the other end
// believes that it is of the same kind.
type firstWord struct {
	net.Conn
	begun atomic.Bool
	judge func(first []byte) error
}

// Read looks at what comes first.
func (c *firstWord) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.begun.CompareAndSwap(false, true) {
		if wrong := c.judge(p[:n]); wrong != nil {
			return 0, wrong
		}
	}
	return n, err
}

// clearTransport speaks without encryption to servers that may want TLS. Which
// they do is in their first bytes; net/http forgets them where they come before
// its first request has gone out.
type clearTransport struct {
	*http.Transport
	wrong sync.Map // by address: the error of a server that last began in the wrong way
}

func newClearTransport(dial Dial) *clearTransport {
	t := &clearTransport{}
	t.Transport = newTransport(func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &firstWord{Conn: conn, judge: func(first []byte) error { return t.judge(address, first) }}, nil
	})
	return t
}

func (t *clearTransport) judge(address string, first []byte) error {
	if !bytes.HasPrefix(first, tlsAlert) && !bytes.HasPrefix(first, http1) {
		t.wrong.Delete(address)
		return nil
	}
	err := pki.WantsTLS(address)
	t.wrong.Store(address, err)
	return err
}

// RoundTrip implements http.RoundTripper.
func (t *clearTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	t.wrong.Delete(r.URL.Host)
	res, err := t.Transport.RoundTrip(r)
	if wrong, known := t.wrong.Load(r.URL.Host); err != nil && known {
		err = wrong.(error)
	}
	return res, err
}

// clearListener tells of callers that speak TLS. What answers them is net/http:
// it takes their first bytes for a bad request.
type clearListener struct {
	net.Listener
	ledger *pki.Ledger
}

// Accept implements net.Listener.
func (l clearListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &firstWord{Conn: conn, judge: func(first []byte) error {
		if bytes.HasPrefix(first, tlsHandshake) {
			peer := conn.RemoteAddr().String()
			l.ledger.Note(pki.AsServer, peer, pki.CalledWithTLS(peer))
		}
		return nil
	}}, nil
}
