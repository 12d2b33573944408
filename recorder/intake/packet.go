package intake

import "encoding/binary"

// Reason says why a datagram was counted and not kept.
type Reason uint8

const (
	accepted    Reason = iota
	Short              // shorter than its RTP header says
	Version            // not RTP version 2
	Truncated          // longer than any datagram of a voice stream
	PayloadType        // not what the SIP answer settled
	ForeignSSRC        // a second sender, beyond what a restart may need
	Flood              // more packets than the stream can have
	Control            // RTCP that cannot be read, or more than a stream can have
	reasons
)

var reasonNames = [reasons]string{
	"accepted", "short", "version", "truncated", "payload_type", "foreign_ssrc", "flood", "control",
}

func (r Reason) String() string { return reasonNames[r] }

// Rejected counts datagrams that were not kept, by Reason.
type Rejected [reasons]uint64

// Total is how many were not kept.
func (r Rejected) Total() (n uint64) {
	for _, v := range r[accepted+1:] {
		n += v
	}
	return n
}

// ByReason is the same with each reason's name.
func (r Rejected) ByReason() map[string]uint64 {
	m := make(map[string]uint64, len(r))
	for reason, v := range r {
		if Reason(reason) != accepted {
			m[Reason(reason).String()] = v
		}
	}
	return m
}

// Lengths of RFC 3550 5.1.
const (
	headerSize    = 12
	csrcSize      = 4
	extensionSize = 4
)

// comfortNoise may come beside any codec (RFC 3389 4).
const comfortNoise = 13

type header struct {
	payloadType uint8
	sequence    uint16
	timestamp   uint32
	ssrc        uint32
}

// parseHeader reads the fixed header and wants everything it announces to be
// there: CSRCs, extension, padding.
func parseHeader(b []byte) (header, Reason) {
	if len(b) < headerSize {
		return header{}, Short
	}
	if b[0]>>6 != 2 {
		return header{}, Version
	}
	if b[0]&0x3f != 0 && !roomy(b) {
		return header{}, Short
	}
	return header{
		payloadType: b[1] & 0x7f,
		sequence:    binary.BigEndian.Uint16(b[2:]),
		timestamp:   binary.BigEndian.Uint32(b[4:]),
		ssrc:        binary.BigEndian.Uint32(b[8:]),
	}, accepted
}

// roomy says whether a header with more than its fixed part fits its datagram.
func roomy(b []byte) bool {
	end := headerSize + csrcSize*int(b[0]&0x0f)
	if b[0]&0x10 != 0 {
		if len(b) < end+extensionSize {
			return false
		}
		end += extensionSize + 4*int(binary.BigEndian.Uint16(b[end+2:]))
	}
	if b[0]&0x20 != 0 && len(b) > end {
		padding := int(b[len(b)-1])
		return padding > 0 && end+padding <= len(b)
	}
	return len(b) >= end && b[0]&0x20 == 0
}

// isControl tells RTCP from RTP on a port that carries both (RFC 5761 4).
func isControl(b []byte) bool { return len(b) >= 2 && b[1] >= 192 && b[1] <= 223 }
