package unigy

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tandem/director/provider"
)

// An INVITE that nobody answers is repeated while there is authority, and not
// any more once there is none.
func TestNothingIsRepeatedWithoutAuthority(t *testing.T) {
	t.Parallel()
	switching, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer switching.Close()
	var deposed atomic.Bool
	d := newDialer(t, func(c *Config) {
		c.Gate = func() error {
			if deposed.Load() {
				return errors.New("not in charge")
			}
			return nil
		}
	})
	d.enqueue(provider.Attach{Channel: "c1", Address: "sip:c1@" + switching.LocalAddr().String(), Endpoint: provider.Endpoint{Host: "127.0.0.1", Port: 20_000}})
	invite := make([]byte, 65536)
	hear := func(within time.Duration) (string, error) {
		switching.SetReadDeadline(time.Now().Add(within))
		n, _, err := switching.ReadFrom(invite)
		return string(invite[:n]), err
	}
	for range 2 {
		if said, err := hear(patience); err != nil || !strings.HasPrefix(said, "INVITE ") {
			t.Fatalf("%q, %v", said, err)
		}
	}
	deposed.Store(true)
	if said, err := hear(2500 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) { // RFC 3261 17.1.1.2: after 1 s and 2 s more
		t.Errorf("without authority: %q, %v", said, err)
	}
}

// Without authority answers and ACKs leave, and nothing else does.
func TestGated(t *testing.T) {
	peer, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	g := gated{conn, func() error { return errors.New("not in charge") }}
	for _, message := range []string{"INVITE sip:a SIP/2.0\r\n", "BYE sip:a SIP/2.0\r\n", "ACK sip:a SIP/2.0\r\n", "CANCEL sip:a SIP/2.0\r\n", "SIP/2.0 200 OK\r\n"} {
		if n, err := g.WriteTo([]byte(message), peer.LocalAddr()); n != len(message) || err != nil {
			t.Fatalf("write %q: %d, %v", message, n, err)
		}
	}
	for _, want := range []string{"ACK ", "SIP/2.0 200"} {
		got := make([]byte, 100)
		peer.SetReadDeadline(time.Now().Add(patience))
		n, _, err := peer.ReadFrom(got)
		if err != nil || !strings.HasPrefix(string(got[:n]), want) {
			t.Errorf("heard %q, %v, want %s", got[:n], err, want)
		}
	}
}
