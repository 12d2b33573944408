package turretsim

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"
	"github.com/pion/rtcp"
	"golang.org/x/sync/errgroup"

	"tandem/internal/cti"
	"tandem/internal/media"
	"tandem/turretsim/truth"
)

// stretches is what a good recorder would have kept of the packets: in order
// of their numbers, on the timeline of the first SR.
func (e *ear) stretches(t testing.TB) (list []truth.Stretch) {
	t.Helper()
	packets := e.all()
	sr := e.firstSR(t)
	slices.SortStableFunc(packets, func(a, b heard) int { return int(int16(a.SequenceNumber - b.SequenceNumber)) })
	next := uint32(0)
	for i, p := range packets {
		if i > 0 && p.Timestamp == packets[i-1].Timestamp || p.SSRC != sr.SSRC {
			continue // a duplicate, or a stranger
		}
		if len(list) == 0 || p.Timestamp != next {
			codec := media.PCMU
			if p.PayloadType == 8 {
				codec = media.PCMA
			}
			list = append(list, truth.Stretch{From: wallOf(sr, p.Timestamp), Codec: codec})
		}
		last := &list[len(list)-1]
		last.Samples = append(last.Samples, p.Payload...)
		next = p.Timestamp + uint32(len(p.Payload))
	}
	return list
}

func (e *ear) firstSR(t testing.TB) (sr *rtcp.SenderReport) {
	t.Helper()
	eventually(t, "an SR", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, p := range e.reports {
			if r, ok := p.(*rtcp.SenderReport); ok {
				sr = r
				return true
			}
		}
		return false
	})
	return sr
}

func wallOf(sr *rtcp.SenderReport, ts uint32) time.Time {
	at := time.Unix(int64(sr.NTPTime>>32)-ntpEpoch, int64(sr.NTPTime&0xFFFFFFFF*1e9>>32)).Round(time.Microsecond)
	return at.Add(time.Duration(int32(ts-sr.RTPTime)) * sampleTime)
}

// judge stops the switch and judges what the ear heard of a channel.
func judge(t testing.TB, s *Switch, stop func(), channel string, e *ear, gaps []truth.Gap) truth.Verdict {
	t.Helper()
	list := e.stretches(t)
	stop()
	account, err := truth.Load(s.cfg.TruthLog)
	if err != nil {
		t.Fatal(err)
	}
	v, err := account.NewJudge().Channel(channel, list, gaps)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// One channel over each transport, from log-on to BYE: nothing is missing.
func TestDialHearAndJudge(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			s, stop := startSwitch(t, testConfig(t))
			channels := login(t, s, "A").channels(t, 4)
			director, e := newSIPClient(t, network), newEar(t)
			d, status := director.call(t, channels[0], offerOf(e.addr(), muxLine))
			if status != 200 {
				t.Fatalf("INVITE answered %d", status)
			}
			for i, p := range e.wait(t, 25)[1:] {
				last := e.all()[i]
				if p.SequenceNumber != last.SequenceNumber+1 || p.Timestamp != last.Timestamp+160 || p.SSRC != last.SSRC || p.Marker || len(p.Payload) != 160 {
					t.Fatalf("packet %d: %+v after %+v", i+1, p.Header, last.Header)
				}
			}
			if !e.all()[0].Marker {
				t.Error("the first packet has no marker")
			}
			if status := d.bye(t); status != 200 {
				t.Errorf("BYE answered %d", status)
			}
			if status := d.bye(t); status != 481 {
				t.Errorf("a second BYE answered %d", status)
			}
			settles(t, "media after BYE", e.count)
			v := judge(t, s, stop, channels[0].ID, e, nil)
			if v.SentMS < 500 || v.RecordedMS != v.SentMS || v.UnexplainedMS+v.DuplicatedMS+v.ForeignMS != 0 || v.MaxSkewMS > 0.2 {
				t.Errorf("%+v", v)
			}
		})
	}
}

// RTCP goes to the port next to RTP's when it is not muxed, or where a=rtcp
// says, and the switch counts the reports it gets.
func TestRTCP(t *testing.T) {
	s, _ := startSwitch(t, testConfig(t))
	channels := login(t, s, "A").channels(t, 4)
	director, media, control := newSIPClient(t, "udp"), newEar(t), newEar(t)
	d, _ := director.call(t, channels[0], offerOf(media.addr(), fmt.Sprintf("a=rtcp:%d\r\n", control.addr().Port())))
	sr := control.firstSR(t)
	packets := media.wait(t, 2)
	if sr.SSRC != packets[0].SSRC || sr.RTPTime != packets[0].Timestamp || sr.PacketCount != 1 || sr.OctetCount != 160 {
		t.Errorf("SR %+v of %+v", sr, packets[0].Header)
	}
	if off := packets[0].at.Sub(wallOf(sr, packets[0].Timestamp)); off < 0 || off > time.Second {
		t.Errorf("the packet arrived %v after its instant by NTP", off)
	}
	if len(media.reports) > 0 {
		t.Error("RTCP came to the RTP port uninvited")
	}
	if sdes, ok := control.reports[1].(*rtcp.SourceDescription); !ok || sdes.Chunks[0].Source != sr.SSRC || sdes.Chunks[0].Items[0].Text != channels[0].ID {
		t.Errorf("after the SR came %+v, want its SDES", control.reports[1])
	}
	answer, err := parseOffer(d.answer.Body())
	if err != nil || answer.mux {
		t.Fatalf("answer %s %v", d.answer.Body(), err)
	}
	rr, err := (&rtcp.ReceiverReport{SSRC: 1, Reports: []rtcp.ReceptionReport{{SSRC: sr.SSRC}}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	control.conn.WriteToUDPAddrPort(rr, netip.AddrPortFrom(answer.rtp.Addr(), answer.rtp.Port()+1))
	control.conn.WriteToUDPAddrPort([]byte("noise"), answer.rtp)
	eventually(t, "the report to be counted", func() bool { c := s.State().RTP; return c.Reports == 1 && c.Malformed == 1 })
}

func TestMuxIsRefusedWhenConfigured(t *testing.T) {
	cfg := testConfig(t)
	cfg.RTP.RTCPMux = false
	s, _ := startSwitch(t, cfg)
	channels := login(t, s, "A").channels(t, 4)
	d, _ := newSIPClient(t, "udp").call(t, channels[0], offerOf(newEar(t).addr(), muxLine))
	if answer, err := parseOffer(d.answer.Body()); err != nil || answer.mux {
		t.Errorf("answer %s %v", d.answer.Body(), err)
	}
}

// A re-INVITE moves the very same stream: no number is skipped, none is sent twice.
func TestReinviteMovesMedia(t *testing.T) {
	s, stop := startSwitch(t, testConfig(t))
	channels := login(t, s, "A").channels(t, 4)
	director, a, b := newSIPClient(t, "udp"), newEar(t), newEar(t)
	d, _ := director.call(t, channels[1], offerOf(a.addr(), muxLine))
	a.wait(t, 10)
	if status := d.reinvite(t, offerOf(b.addr(), muxLine)); status != 200 {
		t.Fatalf("re-INVITE answered %d", status)
	}
	second := b.wait(t, 10)
	first := a.all()
	last := first[len(first)-1]
	if second[0].SSRC != last.SSRC || second[0].SequenceNumber != last.SequenceNumber+1 || second[0].Timestamp != last.Timestamp+160 {
		t.Errorf("%+v follows %+v", second[0].Header, last.Header)
	}
	d.bye(t)
	a.packets = append(a.packets, b.all()...)
	if v := judge(t, s, stop, channels[1].ID, a, nil); v.RecordedMS != v.SentMS || v.SentMS == 0 {
		t.Errorf("%+v", v)
	}
}

func TestHoldStopsMediaAndRetrieveGoesOn(t *testing.T) {
	s, _ := startSwitch(t, testConfig(t))
	channels := login(t, s, "A").channels(t, 4)
	e := newEar(t)
	d, _ := newSIPClient(t, "udp").call(t, channels[0], offerOf(e.addr(), muxLine))
	e.wait(t, 5)
	hold := []byte(replace(string(offerOf(e.addr(), muxLine)), "recvonly", "inactive"))
	if status := d.reinvite(t, hold); status != 200 {
		t.Fatal(status)
	}
	n := settles(t, "media on hold", e.count)
	d.reinvite(t, offerOf(e.addr(), muxLine))
	e.wait(t, n+5)
}

// The second INVITE gets the channel; the first dialog is told that it was taken.
func TestSteal(t *testing.T) {
	s, _ := startSwitch(t, testConfig(t))
	channels := login(t, s, "A").channels(t, 4)
	first, second, a, b := newSIPClient(t, "udp"), newSIPClient(t, "udp"), newEar(t), newEar(t)
	one, _ := first.call(t, channels[0], offerOf(a.addr(), muxLine))
	a.wait(t, 3)
	if _, status := second.call(t, channels[0], offerOf(b.addr(), muxLine)); status != 200 {
		t.Fatalf("second INVITE answered %d", status)
	}
	select {
	case bye := <-first.byes:
		if h := bye.GetHeader("Reason"); h == nil || h.Value() != `SIP;cause=200;text="taken"` {
			t.Errorf("BYE without its reason: %s", bye)
		}
		if tag(bye.To().Params) != tag(one.invite.From().Params) || tag(bye.From().Params) != tag(one.answer.To().Params) || bye.CallID().Value() != one.invite.CallID().Value() {
			t.Errorf("BYE of another dialog: %s", bye)
		}
	case <-time.After(patience):
		t.Fatal("the first director heard nothing")
	}
	b.wait(t, 3)
	if a.all()[0].SSRC == b.all()[0].SSRC {
		t.Error("two dialogs with one SSRC")
	}
	if c := s.State(); c.Dialogs != 1 || c.SIP.Taken != 1 {
		t.Errorf("%+v", c)
	}
}

func TestRefusals(t *testing.T) {
	s, _ := startSwitch(t, testConfig(t))
	channels := login(t, s, "A").channels(t, 4)
	director, e := newSIPClient(t, "udp"), newEar(t)
	gone := channels[0]
	gone.URI = fmt.Sprintf("sip:T9999-1.m1.A@%s", s.Addrs().SIP)
	opus := []byte(replace(string(offerOf(e.addr(), "")), "RTP/AVP 0 8", "RTP/AVP 111"))
	for _, c := range []struct {
		name    string
		channel cti.Channel
		body    []byte
		status  int
	}{
		{"no such channel", gone, offerOf(e.addr(), ""), 486},
		{"no codec fits", channels[0], opus, 488},
		{"no SDP", channels[0], nil, 488},
		{"nonsense", channels[0], []byte("nonsense"), 488},
		{"only video", channels[0], []byte(replace(string(offerOf(e.addr(), "")), "m=audio", "m=video")), 488},
	} {
		if _, status := director.call(t, c.channel, c.body); status != c.status {
			t.Errorf("%s: answered %d, want %d", c.name, status, c.status)
		}
	}
	d, _ := director.call(t, channels[0], offerOf(e.addr(), muxLine))
	if status := d.reinvite(t, opus); status != 488 {
		t.Errorf("re-INVITE without a codec answered %d", status)
	}
	n := len(e.all())
	e.wait(t, n+3) // the session goes on as it was
	options := sip.NewRequest(sip.OPTIONS, d.answer.Contact().Address)
	if res, err := director.do(options); err != nil || res.StatusCode != 200 || res.GetHeader("Allow") == nil {
		t.Errorf("OPTIONS: %v %v", res, err)
	}
	info := d.within(sip.INFO)
	if res, err := director.do(info, sipgo.ClientRequestAddVia); err != nil || res.StatusCode != 405 {
		t.Errorf("INFO: %v %v", res, err)
	}
}

// The recorder's order of codecs decides.
func TestCodecPreference(t *testing.T) {
	s, stop := startSwitch(t, testConfig(t))
	channels := login(t, s, "A").channels(t, 4)
	e := newEar(t)
	d, _ := newSIPClient(t, "udp").call(t, channels[0], []byte(replace(string(offerOf(e.addr(), muxLine)), "AVP 0 8", "AVP 8 0")))
	if p := e.wait(t, 5)[0]; p.PayloadType != 8 {
		t.Errorf("payload type %d, want A-law", p.PayloadType)
	}
	d.bye(t)
	if v := judge(t, s, stop, channels[0].ID, e, nil); v.RecordedMS != v.SentMS || v.SentMS == 0 {
		t.Errorf("%+v", v)
	}
}

// The same INVITE again, without a transaction to absorb it, makes no second dialog.
func TestRepeatedInviteIsHarmless(t *testing.T) {
	s, _ := startSwitch(t, testConfig(t))
	channels := login(t, s, "A").channels(t, 4)
	e := newEar(t)
	for _, network := range []string{"udp", "tcp"} {
		director := newSIPClient(t, network)
		req := director.inviteRequest(channels[0], offerOf(e.addr(), muxLine))
		var tags []string
		for range 3 {
			res, err := director.do(req, func(*sipgo.Client, *sip.Request) error {
				if req.Via() == nil {
					return sipgo.ClientRequestBuild(director.client, req)
				}
				return nil
			})
			if err != nil || res.StatusCode != 200 {
				t.Fatalf("%s: %v %v", network, res, err)
			}
			tags = append(tags, tag(res.To().Params))
		}
		if len(slices.Compact(tags)) != 1 {
			t.Errorf("%s: tags %v", network, tags)
		}
		merged := req.Clone()
		merged.RemoveHeader("Via")
		if res, err := director.do(merged, sipgo.ClientRequestAddVia); err != nil || res.StatusCode != 482 {
			t.Errorf("%s: a merged INVITE answered %v %v", network, res, err)
		}
	}
	if c := s.State(); c.Dialogs != 1 || c.SIP.Invites != 2 || c.SIP.Taken != 1 {
		t.Errorf("%+v", c)
	}
}

func TestDigest(t *testing.T) {
	cfg := testConfig(t)
	cfg.SIP.User, cfg.SIP.PasswordFile = "tandem", t.TempDir()+"/password"
	writeFile(t, cfg.SIP.PasswordFile, "secret\n")
	s, _ := startSwitch(t, cfg)
	channels := login(t, s, "A").channels(t, 4)
	director, e := newSIPClient(t, "udp"), newEar(t)
	for _, c := range []struct {
		password string
		status   int
	}{{"wrong", 401}, {"secret", 200}} {
		req := director.inviteRequest(channels[0], offerOf(e.addr(), muxLine))
		res, err := director.do(req)
		if err != nil || res.StatusCode != 401 {
			t.Fatalf("unauthenticated: %v %v", res, err)
		}
		if headers := res.GetHeaders("WWW-Authenticate"); len(headers) != 2 {
			t.Errorf("challenges %v, want SHA-256 and MD5", headers)
		}
		res, err = director.client.DoDigestAuth(t.Context(), req, res, sipgo.DigestAuth{Username: "tandem", Password: c.password})
		if err != nil || res.StatusCode != c.status {
			t.Errorf("password %q: %v %v, want %d", c.password, res, err, c.status)
		}
	}
}

// An agent who logs off ends his channels: events, then BYE.
func TestLogOffHangsUp(t *testing.T) {
	s, _ := startSwitch(t, testConfig(t))
	link := login(t, s, "A")
	channels := link.channels(t, 4)
	director, e := newSIPClient(t, "udp"), newEar(t)
	director.call(t, channels[0], offerOf(e.addr(), muxLine))
	e.wait(t, 3)
	if err := s.Inject("log_off", Shot{Device: "T0001"}); err != nil {
		t.Fatal(err)
	}
	events := link.until(t, cti.TypeAgentLoggedOff)
	last := events[len(events)-3:]
	if last[0].Type != cti.TypeChannelUnavailable || last[1].Type != cti.TypeChannelUnavailable || last[2].Session.ID != "T0001-1" || last[2].Cause != "forced" {
		t.Errorf("%+v", last)
	}
	select {
	case <-director.byes:
	case <-time.After(patience):
		t.Fatal("no BYE")
	}
	if _, status := director.call(t, channels[0], offerOf(e.addr(), muxLine)); status != 486 {
		t.Errorf("a channel that is gone answered %d", status)
	}
	if err := s.Inject("log_on", Shot{Device: "T0001"}); err != nil {
		t.Fatal(err)
	}
	if m := link.until(t, cti.TypeAgentLoggedOn); m[len(m)-1].Session.ID != "T0001-2" {
		t.Errorf("%+v", m)
	}
}

// Hundreds of channels at once, as after a failover.
func TestMassAttach(t *testing.T) {
	cfg := testConfig(t)
	cfg.Floor.Turrets, cfg.Floor.Mixes = 50, 4
	s, stop := startSwitch(t, cfg)
	channels := login(t, s, "A").channels(t, 200)
	director, e := newSIPClient(t, "udp"), newEar(t)
	var g errgroup.Group
	for _, c := range channels {
		g.Go(func() error {
			d, err := director.dial(c, offerOf(e.addr(), muxLine))
			if err == nil && d.answer.StatusCode != 200 {
				err = fmt.Errorf("INVITE %s answered %d", c.ID, d.answer.StatusCode)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "every channel to be heard", func() bool {
		seen := map[uint32]bool{}
		for _, p := range e.all() {
			seen[p.SSRC] = true
		}
		return len(seen) == len(channels)
	})
	eventually(t, "every ACK", func() bool { return s.State().SIP.ACKs == len(channels) })
	stop()
}
