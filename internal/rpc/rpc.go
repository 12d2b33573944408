// Package rpc carries Connect calls between the processes of a site: HTTP/2
// (and HTTP/1.1 for curl) on one listener, and clients that notice a dead peer.
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
// streams included. It returns nil when ctx ended it.
func Serve(ctx context.Context, ln net.Listener, handler http.Handler) error {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler:           handler,
		Protocols:         &protocols,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		HTTP2:             &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 5 * time.Second},
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	}
	return nil
}

// NewClient speaks HTTP/2 without encryption to Tandem's daemons. Idle
// connections are pinged, so that a peer that vanished is noticed within
// two seconds. Safe for concurrent use.
func NewClient() *http.Client {
	return NewClientOver((&net.Dialer{Timeout: time.Second}).DialContext)
}

// NewClientOver is NewClient with connections made by dial, which may be called
// concurrently.
func NewClientOver(dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Client {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{
		Protocols:       &protocols,
		DialContext:     dial,
		IdleConnTimeout: time.Minute,
		HTTP2:           &http.HTTP2Config{SendPingTimeout: time.Second, PingTimeout: time.Second},
	}}
}

// NewBootID names one run of a process.
func NewBootID() string { return rand.Text() }
