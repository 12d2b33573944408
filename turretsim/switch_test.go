package turretsim

import (
	"testing"
)

func TestDialAndHear(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			s, stop := startSwitch(t, testConfig(t))
			channels := login(t, s, "A").channels(t, 4)
			director := newSIPClient(t, network)
			e := newEar(t)
			d, status := director.call(t, channels[0], offerOf(e.addr(), muxLine))
			if status != 200 {
				t.Fatalf("INVITE answered %d", status)
			}
			packets := e.wait(t, 20)
			for i, p := range packets[1:] {
				if p.SequenceNumber != packets[i].SequenceNumber+1 || p.Timestamp != packets[i].Timestamp+160 || p.SSRC != packets[i].SSRC {
					t.Fatalf("packet %d: %+v after %+v", i+1, p.Header, packets[i].Header)
				}
			}
			if status := d.bye(t); status != 200 {
				t.Errorf("BYE answered %d", status)
			}
			stop()
		})
	}
}
