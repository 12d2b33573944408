package rtpstream

import (
	"github.com/pion/rtp"

	"tandem/internal/media"
)

// Parser makes packets of datagrams. It keeps what it needs to do so without
// allocating.
type Parser struct{ packet rtp.Packet }

// Parse reads one datagram of a channel on which negotiated is the payload
// type of codec; an empty codec is not negotiated yet. ok is false for what is
// not RTP or not G.711. The payload is part of the datagram.
func (r *Parser) Parse(datagram []byte, codec media.Codec, negotiated uint8) (p Packet, ok bool) {
	if err := r.packet.Unmarshal(datagram); err != nil || r.packet.Version != 2 {
		return Packet{}, false
	}
	h := &r.packet.Header
	p = Packet{SSRC: h.SSRC, Seq: h.SequenceNumber, TS: h.Timestamp, Marker: h.Marker}
	const comfortNoise = 13 // RFC 3389
	switch {
	case h.PayloadType == comfortNoise:
		return p, true
	case codec != "" && h.PayloadType == negotiated:
		p.Codec = codec
	case h.PayloadType == media.PCMU.PayloadType():
		p.Codec = media.PCMU
	case h.PayloadType == media.PCMA.PayloadType():
		p.Codec = media.PCMA
	}
	p.Payload = r.packet.Payload
	return p, p.Codec == media.PCMU || p.Codec == media.PCMA
}
