package unigy

import (
	"bytes"
	"net"
)

// gated lets a request out only while there is authority for it. The SIP stack
// repeats what went unanswered by itself (RFC 3261 17.1.1.2), for half a
// minute, and asks nobody: a repetition may be the first one that the switch
// hears. Answers and ACKs begin nothing, and always pass.
type gated struct {
	net.PacketConn
	gate func() error
}

func (g gated) WriteTo(b []byte, to net.Addr) (int, error) {
	if begins(b) && g.gate() != nil {
		return len(b), nil // as lost on the way
	}
	return g.PacketConn.WriteTo(b, to)
}

// begins reports whether a message asks the switch to do something.
func begins(message []byte) bool {
	return !bytes.HasPrefix(message, []byte("SIP/2.0 ")) && !bytes.HasPrefix(message, []byte("ACK "))
}
