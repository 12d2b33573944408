package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"tandem/internal/pki"
)

const (
	// handshakeWait bounds a handshake: a peer that is frozen takes connections,
	// since its kernel does, and says nothing.
	handshakeWait = time.Second
	// helloWait is the same for callers, who may be far away or slow.
	helloWait = 5 * time.Second
	// parting is how long a caller that is refused has to read why.
	parting = time.Second
)

// secureListener hands on connections whose handshake is done; one that fails
// is explained, and costs nobody else time. Close ends those that are under way.
type secureListener struct {
	net.Listener
	config      *tls.Config
	credentials *pki.Credentials
	ctx         context.Context
	end         context.CancelFunc
	ready       chan net.Conn
	failed      chan error // from the listener below, once
	shaking     sync.WaitGroup
}

func newSecureListener(ln net.Listener, credentials *pki.Credentials) *secureListener {
	l := &secureListener{
		Listener: ln, config: credentials.Server(), credentials: credentials,
		ready: make(chan net.Conn), failed: make(chan error, 1),
	}
	l.ctx, l.end = context.WithCancel(context.Background())
	l.shaking.Go(l.accept)
	return l
}

func (l *secureListener) accept() {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			l.failed <- err
			return
		}
		l.shaking.Go(func() { l.shake(conn) })
	}
}

// shake does one handshake.
func (l *secureListener) shake(raw net.Conn) {
	ctx, cancel := context.WithTimeout(l.ctx, helloWait)
	defer cancel()
	conn := tls.Server(raw, l.config)
	if err := conn.HandshakeContext(ctx); err != nil {
		l.refuse(raw, err)
		return
	}
	select {
	case l.ready <- conn:
	case <-l.ctx.Done():
		conn.Close()
	}
}

// refuse ends a connection so that the other end can read why: closed with
// something unread, the kernel would take back what was sent last (RFC 1122
// 4.2.2.13).
func (l *secureListener) refuse(raw net.Conn, err error) {
	defer raw.Close()
	if l.ctx.Err() != nil {
		return
	}
	l.credentials.Failed(pki.AsServer, raw.RemoteAddr().String(), err)
	raw.SetDeadline(time.Now().Add(parting))
	var record tls.RecordHeaderError
	if errors.As(err, &record) && record.Conn != nil && looksLikeHTTP(record.RecordHeader) {
		io.WriteString(raw, "HTTP/1.0 400 Bad Request\r\n\r\nThis port of Tandem speaks TLS.\n")
	}
	if half, ok := raw.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		stop := context.AfterFunc(l.ctx, func() { raw.Close() })
		defer stop()
		io.Copy(io.Discard, io.LimitReader(raw, 64<<10))
	}
}

// looksLikeHTTP reports whether a connection begins with a request of HTTP/1
// or the preface of HTTP/2.
func looksLikeHTTP(first [5]byte) bool {
	switch string(first[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "PRI *":
		return true
	}
	return false
}

// Accept implements net.Listener.
func (l *secureListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.ready:
		return conn, nil
	case err := <-l.failed:
		l.failed <- err
		return nil, err
	}
}

// Close implements net.Listener. It waits for what it ends.
func (l *secureListener) Close() error {
	err := l.Listener.Close()
	l.end()
	l.shaking.Wait()
	return err
}

// dialSecure is dial, and then TLS with a daemon that has one of the roles. In
// TLS 1.3 a server judges the caller's certificate after the caller's handshake
// has ended; an HTTP/2 server speaks first (RFC 9113 3.4), so its first word, or
// the alert in place of it, is waited for. So a connection is one that both
// sides agree to, and what keeps it from being one is known here.
func dialSecure(credentials *pki.Credentials, dial Dial, roles []pki.Role) Dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		config, err := credentials.Client(address, roles)
		if err != nil {
			return nil, err
		}
		raw, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, handshakeWait)
		defer cancel()
		conn, err := greet(ctx, tls.Client(raw, config))
		if err != nil {
			raw.Close()
			return nil, credentials.Failed(pki.AsClient, address, err)
		}
		return conn, nil
	}
}

// greet does the handshake and waits for the first word.
func greet(ctx context.Context, conn *tls.Conn) (net.Conn, error) {
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	word := make([]byte, 512)
	n, err := conn.Read(word)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	return &greetedConn{conn, word[:n]}, nil
}

// greetedConn is a connection of which something has been read already.
type greetedConn struct {
	*tls.Conn
	word []byte
}

// Read is for one goroutine, as http.Transport has it.
func (c *greetedConn) Read(p []byte) (int, error) {
	if len(c.word) > 0 {
		n := copy(p, c.word)
		c.word = c.word[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// callers is the transport of a process with certificates: connections to
// daemons of different roles are kept apart, so that each is made only to a
// daemon that has one of the roles which the call is for.
type callers struct {
	byService map[string]*http.Transport
}

func newCallers(credentials *pki.Credentials, dial Dial) callers {
	c := callers{make(map[string]*http.Transport)}
	shared := make(map[string]*http.Transport)
	for service, roles := range servedBy {
		key := fmt.Sprint(roles)
		if shared[key] == nil {
			shared[key] = newTransport(dialSecure(credentials, dial, roles))
		}
		c.byService[service] = shared[key]
	}
	return c
}

// RoundTrip implements http.RoundTripper.
func (c callers) RoundTrip(r *http.Request) (*http.Response, error) {
	service, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if t := c.byService[service]; t != nil {
		return t.RoundTrip(r)
	}
	if r.Body != nil {
		r.Body.Close() // as RoundTripper promises
	}
	return nil, fmt.Errorf("call %s: no daemon serves it", r.URL.Path)
}

// CloseIdleConnections is what http.Client's calls.
func (c callers) CloseIdleConnections() {
	for _, t := range c.byService {
		t.CloseIdleConnections()
	}
}
