package unigy

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"

	"tandem/director/provider"
	"tandem/internal/media"
)

// preference is the order in which a recorder likes its codecs.
var preference = []media.Codec{media.PCMU, media.PCMA}

// offer writes the SDP that asks for one channel's media at an endpoint
// (RFC 3264 5): receive only, 20 ms packets, RTCP on the RTP port if the
// switch can (RFC 5761 5.1.1).
func offer(session, version uint64, to provider.Endpoint) ([]byte, error) {
	address, err := netip.ParseAddr(to.Host)
	if err != nil {
		return nil, fmt.Errorf("offer media at %q: %w", to.Host, err)
	}
	family := "IP4"
	if address.Is6() {
		family = "IP6"
	}
	audio := &sdp.MediaDescription{
		MediaName: sdp.MediaName{Media: "audio", Port: sdp.RangedPort{Value: to.Port}, Protos: []string{"RTP", "AVP"}},
	}
	for _, c := range preference {
		audio = audio.WithCodec(c.PayloadType(), string(c), uint32(c.ClockRate()), 0, "")
	}
	audio = audio.WithValueAttribute("ptime", "20").WithPropertyAttribute("recvonly").WithPropertyAttribute("rtcp-mux")
	s := sdp.SessionDescription{
		Origin:                sdp.Origin{Username: "tandem", SessionID: session, SessionVersion: version, NetworkType: "IN", AddressType: family, UnicastAddress: to.Host},
		SessionName:           "-",
		ConnectionInformation: &sdp.ConnectionInformation{NetworkType: "IN", AddressType: family, Address: &sdp.Address{Address: to.Host}},
		TimeDescriptions:      []sdp.TimeDescription{{}},
		MediaDescriptions:     []*sdp.MediaDescription{audio},
	}
	return s.Marshal()
}

// answer is what the switch agreed to.
type answer struct {
	Codec       media.Codec
	PayloadType uint8
	Mux         bool
	Remote      provider.Endpoint // where it sends from
}

// Faults of an answer; the switch's peer name is added where they are logged.
var (
	errNoSDP   = errors.New("answer without SDP")
	errNoCodec = errors.New("answer with none of the codecs offered")
	errNoMedia = errors.New("answer that sends no audio")
)

// parseAnswer reads the SDP of a 200 to our offer (RFC 3264 6).
func parseAnswer(body []byte) (answer, error) {
	if len(strings.TrimSpace(string(body))) == 0 {
		return answer{}, errNoSDP
	}
	var s sdp.SessionDescription
	if err := s.Unmarshal(body); err != nil {
		return answer{}, fmt.Errorf("parse answer: %w", err)
	}
	audio := audioOf(&s)
	if audio == nil || audio.MediaName.Port.Value <= 0 || audio.MediaName.Port.Value > 65535 || !sends(&s, audio) {
		return answer{}, errNoMedia
	}
	codec, err := codecOf(audio)
	if err != nil {
		return answer{}, err
	}
	host, err := hostOf(&s, audio)
	if err != nil {
		return answer{}, err
	}
	_, mux := audio.Attribute("rtcp-mux")
	return answer{
		Codec: codec, PayloadType: codec.PayloadType(), Mux: mux,
		Remote: provider.Endpoint{Host: host, Port: audio.MediaName.Port.Value},
	}, nil
}

func audioOf(s *sdp.SessionDescription) *sdp.MediaDescription {
	for _, m := range s.MediaDescriptions {
		if m.MediaName.Media == "audio" {
			return m
		}
	}
	return nil
}

// sends reads the direction, the media's own before the session's; none at
// all means both ways (RFC 4566 6), which for us is as good as sendonly.
func sends(s *sdp.SessionDescription, m *sdp.MediaDescription) bool {
	for _, attributes := range [][]sdp.Attribute{m.Attributes, s.Attributes} {
		for _, a := range attributes {
			switch a.Key {
			case "sendonly", "sendrecv":
				return true
			case "recvonly", "inactive":
				return false
			}
		}
	}
	return true
}

// codecOf takes the first format that we offered. Its number is static
// (RFC 3551 6); a map that gives the number another meaning disqualifies it.
func codecOf(m *sdp.MediaDescription) (media.Codec, error) {
	maps := make(map[string]string)
	for _, a := range m.Attributes {
		if number, name, ok := strings.Cut(a.Value, " "); ok && a.Key == "rtpmap" {
			maps[number] = strings.TrimSpace(name)
		}
	}
	for _, format := range m.MediaName.Formats {
		for _, c := range preference {
			if format != strconv.Itoa(int(c.PayloadType())) {
				continue
			}
			name, mapped := maps[format]
			if !mapped || strings.EqualFold(strings.TrimSuffix(name, "/1"), fmt.Sprintf("%s/%d", c, c.ClockRate())) {
				return c, nil
			}
		}
	}
	return "", fmt.Errorf("%w: %q", errNoCodec, m.MediaName.Formats)
}

func hostOf(s *sdp.SessionDescription, m *sdp.MediaDescription) (string, error) {
	c := m.ConnectionInformation
	if c == nil {
		c = s.ConnectionInformation
	}
	if c == nil || c.Address == nil {
		return "", fmt.Errorf("parse answer: no connection address (RFC 4566 5.7)")
	}
	address, err := netip.ParseAddr(c.Address.Address)
	if err != nil {
		return "", fmt.Errorf("parse answer: connection address: %w", err)
	}
	return address.String(), nil
}
