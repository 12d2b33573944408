package unigy

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/pion/sdp/v3"

	"tandem/director/provider"
	"tandem/internal/media"
)

func TestOffer(t *testing.T) {
	body, err := offer(7, 3, provider.Endpoint{Host: "10.0.1.1", Port: 20_000})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"o=tandem 7 3 IN IP4 10.0.1.1", "c=IN IP4 10.0.1.1", "m=audio 20000 RTP/AVP 0 8",
		"a=rtpmap:0 PCMU/8000", "a=rtpmap:8 PCMA/8000", "a=ptime:20", "a=recvonly", "a=rtcp-mux",
	} {
		if !strings.Contains(string(body), line+"\r\n") {
			t.Errorf("offer lacks %q:\n%s", line, body)
		}
	}
	if _, err := offer(1, 1, provider.Endpoint{Host: "recorder", Port: 1}); err == nil {
		t.Error("offered a name as address")
	}
}

// sdpAnswer is a good answer with some lines replaced.
func sdpAnswer(replace ...string) []byte {
	text := "v=0\r\no=- 1 1 IN IP4 10.0.9.1\r\ns=-\r\nc=IN IP4 10.0.9.1\r\nt=0 0\r\nm=audio 30000 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\na=sendonly\r\na=rtcp-mux\r\n"
	return []byte(strings.NewReplacer(replace...).Replace(text))
}

func TestParseAnswer(t *testing.T) {
	good := answer{Codec: media.PCMA, PayloadType: 8, Mux: true, Remote: provider.Endpoint{Host: "10.0.9.1", Port: 30_000}}
	for name, c := range map[string]struct {
		body []byte
		want func(answer) answer
		err  error // nil and want nil: any error
	}{
		"as it should be":      {sdpAnswer(), func(a answer) answer { return a }, nil},
		"no rtpmap":            {sdpAnswer("a=rtpmap:8 PCMA/8000\r\n", ""), func(a answer) answer { return a }, nil},
		"no mux":               {sdpAnswer("a=rtcp-mux\r\n", ""), func(a answer) answer { a.Mux = false; return a }, nil},
		"no direction":         {sdpAnswer("a=sendonly\r\n", ""), func(a answer) answer { return a }, nil},
		"first of two":         {sdpAnswer("AVP 8", "AVP 0 8"), func(a answer) answer { a.Codec, a.PayloadType = media.PCMU, 0; return a }, nil},
		"unknown before known": {sdpAnswer("AVP 8", "AVP 96 8"), func(a answer) answer { return a }, nil},
		"address of the media": {sdpAnswer("AVP 8\r\n", "AVP 8\r\nc=IN IP4 10.0.9.2\r\n"), func(a answer) answer { a.Remote.Host = "10.0.9.2"; return a }, nil},
		"empty":                {nil, nil, errNoSDP},
		"blank":                {[]byte("\r\n"), nil, errNoSDP},
		"not sdp":              {[]byte("hello"), nil, nil},
		"no audio":             {sdpAnswer("m=audio", "m=video"), nil, errNoMedia},
		"port zero":            {sdpAnswer("audio 30000", "audio 0"), nil, errNoMedia},
		"inactive":             {sdpAnswer("sendonly", "inactive"), nil, errNoMedia},
		"receives only":        {sdpAnswer("sendonly", "recvonly"), nil, errNoMedia},
		"other codec":          {sdpAnswer("AVP 8", "AVP 9", "rtpmap:8 PCMA", "rtpmap:9 G722"), nil, errNoCodec},
		"number renamed":       {sdpAnswer("8 PCMA/8000", "8 OPUS/48000"), nil, errNoCodec},
		"no address":           {sdpAnswer("c=IN IP4 10.0.9.1\r\n", ""), nil, nil},
		"address is a name":    {sdpAnswer("c=IN IP4 10.0.9.1", "c=IN IP4 switch"), nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseAnswer(c.body)
			switch {
			case c.want != nil && (err != nil || got != c.want(good)):
				t.Fatalf("got %+v, %v, want %+v", got, err, c.want(good))
			case c.want == nil && err == nil:
				t.Fatalf("accepted as %+v", got)
			case c.err != nil && !errors.Is(err, c.err):
				t.Fatalf("got %v, want %v", err, c.err)
			}
		})
	}
}

// FuzzParseAnswer holds that whatever is accepted is something a recorder
// can be told: a codec we offered, under its static number, and a real
// address, all of them to be found in the body.
func FuzzParseAnswer(f *testing.F) {
	f.Add(sdpAnswer())
	f.Add(sdpAnswer("AVP 8", "AVP 0 8 13"))
	f.Add(sdpAnswer("a=rtcp-mux", "a=ptime:20"))
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := parseAnswer(body)
		if err != nil {
			if a != (answer{}) {
				t.Fatalf("an error and an answer: %+v", a)
			}
			return
		}
		if a.Codec != media.PCMU && a.Codec != media.PCMA || a.PayloadType != a.Codec.PayloadType() {
			t.Fatalf("codec %+v", a)
		}
		if _, err := netip.ParseAddr(a.Remote.Host); err != nil || a.Remote.Port < 1 || a.Remote.Port > 65535 {
			t.Fatalf("remote %+v", a.Remote)
		}
		var s sdp.SessionDescription
		if s.Unmarshal(body) != nil || a.Mux && !strings.Contains(string(body), "a=rtcp-mux") {
			t.Fatalf("accepted %q as %+v", body, a)
		}
	})
}
