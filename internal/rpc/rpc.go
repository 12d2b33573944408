// Package rpc carries Connect calls between the processes of a site: HTTP/2
// (and HTTP/1.1 for curl) on one listener, clients that notice a dead peer, and
// who may call what where certificates say who calls.
package rpc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Serve answers on ln until ctx ends, then closes ln and every connection,
// streams included. It returns nil when ctx ended it. Nothing is encrypted.
func Serve(ctx context.Context, ln net.Listener, handler http.Handler) error {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return serve(ctx, ln, &http.Server{Handler: handler, Protocols: &protocols})
}

func serve(ctx context.Context, ln net.Listener, server *http.Server) error {
	server.ReadHeaderTimeout = 5 * time.Second
	server.IdleTimeout = 2 * time.Minute
	server.BaseContext = func(net.Listener) context.Context { return ctx }
	server.HTTP2 = &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	}
	return nil
}

// Dial makes a connection; it may be called concurrently.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// overTCP gives up on whoever does not take a connection within a second.
var overTCP Dial = (&net.Dialer{Timeout: time.Second}).DialContext

// NewClient speaks HTTP/2 without encryption to Tandem's daemons. Idle
// connections are pinged, so that a peer that vanished is noticed within
// two seconds. Safe for concurrent use.
func NewClient() *http.Client { return NewClientOver(overTCP) }

// NewClientOver is NewClient with connections made by dial.
func NewClientOver(dial Dial) *http.Client {
	return &http.Client{Transport: newClearTransport(dial)}
}

// newTransport speaks HTTP/2 over whatever connections dial makes. Where they
// are to be encrypted, dial does it, and net/http need not know.
func newTransport(dial Dial) *http.Transport {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	return &http.Transport{
		Protocols:       &protocols,
		DialContext:     dial,
		IdleConnTimeout: time.Minute,
		HTTP2:           &http.HTTP2Config{SendPingTimeout: time.Second, PingTimeout: time.Second},
	}
}

// NewBootID names one run of a process.
func NewBootID() string { return rand.Text() }
