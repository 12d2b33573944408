package turretsim

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"

	"tandem/internal/media"
)

// offer is what we need of a recorder's SDP.
type offer struct {
	rtp, rtcp netip.AddrPort
	mux       bool          // RFC 5761: RTCP may share the RTP port
	codecs    []media.Codec // the recorder's preference, of those we know
	wanted    bool          // false: the offer wants no media from us (on hold)
	streams   []string      // the media of every m-line, in order
	taken     int           // the index of the one we answer
}

var errNoAudio = errors.New("no audio over RTP/AVP offered")

// parseOffer reads the first m-line of audio that has a port.
func parseOffer(body []byte) (offer, error) {
	var d sdp.SessionDescription
	if err := d.Unmarshal(body); err != nil {
		return offer{}, fmt.Errorf("parse SDP offer: %w", err)
	}
	o := offer{taken: -1}
	for i, m := range d.MediaDescriptions {
		o.streams = append(o.streams, m.MediaName.Media)
		name := m.MediaName
		if o.taken < 0 && name.Media == "audio" && name.Port.Value > 0 && slices.Equal(name.Protos, []string{"RTP", "AVP"}) {
			o.taken = i
		}
	}
	if o.taken < 0 {
		return offer{}, errNoAudio
	}
	m := d.MediaDescriptions[o.taken]
	ip, err := connection(&d, m)
	if err != nil {
		return offer{}, err
	}
	port := m.MediaName.Port.Value
	if port > 65534 {
		return offer{}, fmt.Errorf("parse SDP offer: port %d", port)
	}
	o.rtp = netip.AddrPortFrom(ip, uint16(port))
	if o.rtcp, err = rtcpAddress(m, o.rtp); err != nil {
		return offer{}, err
	}
	_, o.mux = m.Attribute(sdp.AttrKeyRTCPMux)
	o.codecs = codecsOf(m)
	o.wanted = wantsMedia(&d, m) && !ip.IsUnspecified() // 0.0.0.0 is hold in the manner of RFC 2543
	return o, nil
}

func connection(d *sdp.SessionDescription, m *sdp.MediaDescription) (netip.Addr, error) {
	c := m.ConnectionInformation
	if c == nil {
		c = d.ConnectionInformation
	}
	if c == nil || c.Address == nil {
		return netip.Addr{}, errors.New("parse SDP offer: no c= line")
	}
	ip, err := netip.ParseAddr(c.Address.Address)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("parse SDP offer: c= wants a literal address: %w", err)
	}
	return ip.Unmap(), nil
}

// rtcpAddress is the port after RTP's unless a=rtcp names another (RFC 3605).
func rtcpAddress(m *sdp.MediaDescription, rtp netip.AddrPort) (netip.AddrPort, error) {
	value, ok := m.Attribute("rtcp")
	if !ok {
		return netip.AddrPortFrom(rtp.Addr(), rtp.Port()+1), nil
	}
	fields := strings.Fields(value)
	if len(fields) != 1 && len(fields) != 4 {
		return netip.AddrPort{}, fmt.Errorf("parse SDP offer: a=rtcp:%s", value)
	}
	port, err := strconv.ParseUint(fields[0], 10, 16)
	ip := rtp.Addr()
	if err == nil && len(fields) == 4 {
		ip, err = netip.ParseAddr(fields[3])
	}
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("parse SDP offer: a=rtcp:%s: %w", value, err)
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(port)), nil
}

// codecsOf are the static payload types we can send (RFC 3551 table 4).
func codecsOf(m *sdp.MediaDescription) (codecs []media.Codec) {
	for _, format := range m.MediaName.Formats {
		switch format {
		case "0":
			codecs = append(codecs, media.PCMU)
		case "8":
			codecs = append(codecs, media.PCMA)
		}
	}
	return codecs
}

// wantsMedia reads the direction as the offerer sees it (RFC 3264 6.1).
func wantsMedia(d *sdp.SessionDescription, m *sdp.MediaDescription) bool {
	for _, attributes := range [][]sdp.Attribute{m.Attributes, d.Attributes} {
		for _, a := range attributes {
			switch a.Key {
			case sdp.AttrKeySendOnly, sdp.AttrKeyInactive:
				return false
			case sdp.AttrKeyRecvOnly, sdp.AttrKeySendRecv:
				return true
			}
		}
	}
	return true
}

// answer is our SDP for an accepted offer: one codec, sendonly. Every other
// m-line is refused with port 0 (RFC 3264 6).
func answer(o offer, codec media.Codec, from netip.AddrPort, mux bool, session, version uint64) ([]byte, error) {
	family := "IP4"
	if from.Addr().Is6() {
		family = "IP6"
	}
	d := sdp.SessionDescription{
		Origin:                sdp.Origin{Username: "-", SessionID: session, SessionVersion: version, NetworkType: "IN", AddressType: family, UnicastAddress: from.Addr().String()},
		SessionName:           "-",
		ConnectionInformation: &sdp.ConnectionInformation{NetworkType: "IN", AddressType: family, Address: &sdp.Address{Address: from.Addr().String()}},
		TimeDescriptions:      []sdp.TimeDescription{{}},
	}
	for i, kind := range o.streams {
		if i != o.taken {
			d.MediaDescriptions = append(d.MediaDescriptions, &sdp.MediaDescription{
				MediaName: sdp.MediaName{Media: kind, Protos: []string{"RTP", "AVP"}, Formats: []string{"0"}}})
			continue
		}
		format := strconv.Itoa(int(codec.PayloadType()))
		m := &sdp.MediaDescription{
			MediaName: sdp.MediaName{Media: kind, Port: sdp.RangedPort{Value: int(from.Port())}, Protos: []string{"RTP", "AVP"}, Formats: []string{format}},
			Attributes: []sdp.Attribute{
				sdp.NewAttribute("rtpmap", fmt.Sprintf("%s %s/%d", format, codec, codec.ClockRate())),
				sdp.NewAttribute("ptime", "20"),
			}}
		direction := sdp.AttrKeySendOnly
		if !o.wanted {
			direction = sdp.AttrKeyInactive
		}
		m.Attributes = append(m.Attributes, sdp.NewPropertyAttribute(direction))
		if mux {
			m.Attributes = append(m.Attributes, sdp.NewPropertyAttribute(sdp.AttrKeyRTCPMux))
		}
		d.MediaDescriptions = append(d.MediaDescriptions, m)
	}
	body, err := d.Marshal()
	if err != nil {
		return nil, fmt.Errorf("make SDP answer: %w", err)
	}
	return body, nil
}
