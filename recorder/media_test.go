package recorder

import (
	"testing"

	"github.com/pion/rtp"
)

func TestLiveOrder(t *testing.T) {
	datagram := func(seq uint16, pt uint8, payload string) []byte {
		data, err := (&rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: pt, SequenceNumber: seq}, Payload: []byte(payload)}).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	var order liveOrder
	for _, c := range []struct {
		name string
		data []byte
		want string
		lost uint32
	}{
		{"the first", datagram(65534, 0, "a"), "a", 0},
		{"the next", datagram(65535, 0, "b"), "b", 0},
		{"again", datagram(65535, 0, "b"), "", 0},
		{"another payload type", datagram(0, 13, "x"), "", 0},
		{"too short", []byte{0x80, 0}, "", 0},
		{"over the wrap, two lost", datagram(2, 0, "c"), "c", 2},
		{"late", datagram(1, 0, "x"), "", 0},
	} {
		payload, lost := order.accept(c.data)
		if string(payload) != c.want || lost != c.lost {
			t.Errorf("%s: got %q, %d lost; want %q, %d", c.name, payload, lost, c.want, c.lost)
		}
	}
}
