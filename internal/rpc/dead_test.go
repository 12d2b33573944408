package rpc

import (
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/pki"
)

// cable carries connections to an address until it is cut: then they stay, and
// nothing comes through.
type cable struct {
	net.Listener
	to  string
	cut atomic.Bool
}

func newCable(t *testing.T, to string) *cable {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{Listener: ln, to: to}
	var carried sync.WaitGroup
	carried.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			t.Cleanup(func() { near.Close(); far.Close() })
			go c.carry(near, far)
			go c.carry(far, near)
		}
	})
	t.Cleanup(func() { ln.Close(); carried.Wait() })
	return c
}

func (c *cable) carry(to, from net.Conn) {
	part := make([]byte, 4096)
	for {
		n, err := from.Read(part)
		if err != nil {
			to.Close()
			return
		}
		if !c.cut.Load() {
			to.Write(part[:n])
		}
	}
}

// A peer that vanishes while a stream is open is noticed within two pings, with
// TLS as without.
func TestVanished(t *testing.T) {
	ldn := newSite(t, "ldn")
	here, there := ldn.issue(t, pki.Director, "dir-a", time.Now(), "127.0.0.1"), ldn.issue(t, pki.Recorder, "rec-1", time.Now(), "127.0.0.1")
	for name, files := range map[string][2]pki.Config{"clear": {}, "tls": {here, there}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cable := newCable(t, "127.0.0.1:"+serving(t, as(t, files[1], slog.New(slog.DiscardHandler))))
			c := tandemv1connect.NewRecorderServiceClient(client(t, files[0], slog.New(slog.DiscardHandler)), "http://"+cable.Addr().String(), connect.WithGRPC())
			stream, err := c.Watch(t.Context(), connect.NewRequest(&tandemv1.WatchRequest{Group: stay}))
			if err != nil || !stream.Receive() {
				t.Fatal(err, stream.Err())
			}
			defer stream.Close()
			cable.cut.Store(true)
			began := time.Now()
			for stream.Receive() {
			}
			if took := time.Since(began); stream.Err() == nil || took > 4*time.Second {
				t.Errorf("noticed after %v: %v", took, stream.Err())
			}
		})
	}
}

// What a first call costs on a new connection, and on one that is there.
func BenchmarkCall(b *testing.B) {
	ldn := newSite(b, "ldn")
	here, there := ldn.issue(b, pki.Director, "dir-a", time.Now(), "127.0.0.1"), ldn.issue(b, pki.Recorder, "rec-1", time.Now(), "127.0.0.1")
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	for _, kind := range []struct {
		name           string
		caller, called pki.Config
		fresh          bool
	}{
		{"clear/new", pki.Config{}, pki.Config{}, true}, {"clear/open", pki.Config{}, pki.Config{}, false},
		{"tls/new", here, there, true}, {"tls/open", here, there, false},
	} {
		b.Run(kind.name, func(b *testing.B) {
			url := "http://127.0.0.1:" + serving(b, as(b, kind.called, quiet))
			c := client(b, kind.caller, quiet)
			for b.Loop() {
				if kind.fresh {
					c.CloseIdleConnections()
				}
				if _, err := query(b.Context(), c, url, ""); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
