package turretsim

import (
	"encoding/binary"
	"net"
	"time"

	"github.com/pion/rtcp"
)

const (
	srSize   = 28         // RFC 3550 6.4.1, no report blocks
	ntpEpoch = 2208988800 // seconds from 1900 to 1970
)

// report sends an SR with its SDES (RFC 3550 6.1 wants both). The NTP time is
// the instant of the packet just sent, by the very clock that times the media.
func (sh *shard) report(st *stream, sample int64, due time.Time) {
	out, to := sh.control, &st.rtcp
	if st.muxed {
		out, to = sh.media, &st.rtp
	}
	b := out.next(to)
	b[0], b[1] = 2<<6, byte(rtcp.TypeSenderReport)
	binary.BigEndian.PutUint16(b[2:], srSize/4-1)
	binary.BigEndian.PutUint32(b[4:], st.ssrc)
	binary.BigEndian.PutUint64(b[8:], ntp(due))
	binary.BigEndian.PutUint32(b[16:], st.timestamp(sample))
	binary.BigEndian.PutUint32(b[20:], st.packets)
	binary.BigEndian.PutUint32(b[24:], st.octets)
	n := copy(b[srSize:], st.sdes)
	binary.BigEndian.PutUint32(b[srSize+4:], st.ssrc)
	out.commit(srSize + n)
}

// ntp is RFC 3550 4: seconds since 1900 and their fraction.
func ntp(t time.Time) uint64 {
	return uint64(t.Unix()+ntpEpoch)<<32 | uint64(t.Nanosecond())<<32/uint64(time.Second)
}

// sdesOf is the SDES of one source with its CNAME (RFC 3550 6.5.1); the SSRC
// is filled in at each report.
func sdesOf(cname string) ([]byte, error) {
	packet := rtcp.SourceDescription{Chunks: []rtcp.SourceDescriptionChunk{{
		Items: []rtcp.SourceDescriptionItem{{Type: rtcp.SDESCNAME, Text: cname}},
	}}}
	return packet.Marshal()
}

// hear counts the receiver reports on a socket until it is closed.
func (sh *shard) hear(conn *net.UDPConn) {
	buf := make([]byte, 2048)
	for {
		n, _, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		packets, err := rtcp.Unmarshal(buf[:n])
		if err != nil {
			sh.malformed.Add(1)
			continue
		}
		for _, p := range packets {
			if rr, ok := p.(*rtcp.ReceiverReport); ok {
				sh.reports.Add(uint64(max(1, len(rr.Reports))))
			}
		}
	}
}
