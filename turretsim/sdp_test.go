package turretsim

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"tandem/internal/media"
)

const plainOffer = "v=0\r\no=- 1 1 IN IP4 10.0.0.9\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 20000 RTP/AVP 8 0 101\r\na=recvonly\r\n"

func TestParseOffer(t *testing.T) {
	at := netip.MustParseAddrPort
	for _, c := range []struct {
		name      string
		body      string
		rtp, rtcp netip.AddrPort
		mux       bool
		wanted    bool
		codecs    []media.Codec
	}{
		{"plain", plainOffer, at("10.0.0.1:20000"), at("10.0.0.1:20001"), false, true, []media.Codec{media.PCMA, media.PCMU}},
		{"mux", plainOffer + "a=rtcp-mux\r\n", at("10.0.0.1:20000"), at("10.0.0.1:20001"), true, true, []media.Codec{media.PCMA, media.PCMU}},
		{"RTCP elsewhere", plainOffer + "a=rtcp:9\r\n", at("10.0.0.1:20000"), at("10.0.0.1:9"), false, true, []media.Codec{media.PCMA, media.PCMU}},
		{"RTCP far away", plainOffer + "a=rtcp:9 IN IP4 10.0.0.7\r\n", at("10.0.0.1:20000"), at("10.0.0.7:9"), false, true, []media.Codec{media.PCMA, media.PCMU}},
		{"c= of the medium", replace(plainOffer, "m=audio 20000 RTP/AVP 8 0 101\r\n", "m=audio 20000 RTP/AVP 0\r\nc=IN IP4 10.0.0.2\r\n"), at("10.0.0.2:20000"), at("10.0.0.2:20001"), false, true, []media.Codec{media.PCMU}},
		{"IPv6", replace(plainOffer, "c=IN IP4 10.0.0.1", "c=IN IP6 2001:db8::1"), at("[2001:db8::1]:20000"), at("[2001:db8::1]:20001"), false, true, []media.Codec{media.PCMA, media.PCMU}},
		{"on hold", replace(plainOffer, "recvonly", "inactive"), at("10.0.0.1:20000"), at("10.0.0.1:20001"), false, false, []media.Codec{media.PCMA, media.PCMU}},
		{"on hold, the old way", replace(plainOffer, "c=IN IP4 10.0.0.1", "c=IN IP4 0.0.0.0"), at("0.0.0.0:20000"), at("0.0.0.0:20001"), false, false, []media.Codec{media.PCMA, media.PCMU}},
		{"video first", replace(plainOffer, "m=audio", "m=video 30000 RTP/AVP 31\r\nm=audio"), at("10.0.0.1:20000"), at("10.0.0.1:20001"), false, true, []media.Codec{media.PCMA, media.PCMU}},
	} {
		o, err := parseOffer([]byte(c.body))
		if err != nil || o.rtp != c.rtp || o.rtcp != c.rtcp || o.mux != c.mux || o.wanted != c.wanted || !slices.Equal(o.codecs, c.codecs) {
			t.Errorf("%s: %+v %v", c.name, o, err)
		}
	}
}

func TestParseOfferRefuses(t *testing.T) {
	for _, body := range []string{
		"", "x", replace(plainOffer, "m=audio 20000", "m=audio 0"), replace(plainOffer, "RTP/AVP", "RTP/SAVP"),
		replace(plainOffer, "c=IN IP4 10.0.0.1\r\n", ""), replace(plainOffer, "IP4 10.0.0.1", "IP4 recorder.example"),
		plainOffer + "a=rtcp:70000\r\n", plainOffer + "a=rtcp:9 IN IP4\r\n",
	} {
		if o, err := parseOffer([]byte(body)); err == nil {
			t.Errorf("%q: taken as %+v", body, o)
		}
	}
}

func TestAnswer(t *testing.T) {
	o, err := parseOffer([]byte(replace(plainOffer, "m=audio", "m=video 30000 RTP/AVP 31\r\nm=audio") + "a=rtcp-mux\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	body, err := answer(o, media.PCMA, netip.MustParseAddrPort("10.0.0.5:4000"), true, 7, 2)
	if err != nil {
		t.Fatal(err)
	}
	want := "v=0\r\no=- 7 2 IN IP4 10.0.0.5\r\ns=-\r\nc=IN IP4 10.0.0.5\r\nt=0 0\r\nm=video 0 RTP/AVP 0\r\nm=audio 4000 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\na=ptime:20\r\na=sendonly\r\na=rtcp-mux\r\n"
	if string(body) != want {
		t.Errorf("got %q", body)
	}
	o.wanted = false
	body, _ = answer(o, media.PCMA, netip.MustParseAddrPort("10.0.0.5:4000"), false, 7, 2)
	if !strings.Contains(string(body), "a=inactive\r\n") || strings.Contains(string(body), "rtcp-mux") {
		t.Errorf("got %q", body)
	}
}

// FuzzParseOffer holds that whatever is accepted can be answered, and sent to.
func FuzzParseOffer(f *testing.F) {
	f.Add([]byte(plainOffer))
	f.Add([]byte(plainOffer + "a=rtcp:9 IN IP4 10.0.0.7\r\na=rtcp-mux\r\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		o, err := parseOffer(body)
		if err != nil {
			return
		}
		if !o.rtp.IsValid() || !o.rtcp.IsValid() || o.rtp.Port() == 0 || o.taken >= len(o.streams) || len(o.codecs) > strings.Count(string(body), " ") {
			t.Fatalf("%+v", o)
		}
		text, err := answer(o, media.PCMU, netip.MustParseAddrPort("127.0.0.1:4000"), o.mux, 1, 1)
		if err != nil || strings.Count(string(text), "m=") < len(o.streams) {
			t.Fatalf("%d streams answered by %q %v", len(o.streams), text, err)
		}
		newPeer(o.rtp)
	})
}
