package turretsim

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"

	"tandem/internal/call"
	"tandem/internal/config"
	"tandem/internal/cti"
	"tandem/turretsim/truth"
)

// attached is a switch with one channel that somebody listens to.
type attached struct {
	s        *Switch
	stop     func()
	channel  cti.Channel
	director *sipClient
	e        *ear
	d        *testDialog
}

func attach(t testing.TB, change func(*Config)) *attached {
	t.Helper()
	cfg := testConfig(t)
	if change != nil {
		change(&cfg)
	}
	a := &attached{director: newSIPClient(t, "udp"), e: newEar(t)}
	a.s, a.stop = startSwitch(t, cfg)
	a.channel = login(t, a.s, "A").channels(t, 1)[0]
	var status int
	if a.d, status = a.director.call(t, a.channel, offerOf(a.e.addr(), muxLine)); status != 200 {
		t.Fatalf("INVITE answered %d", status)
	}
	return a
}

// end hangs up and judges what was heard.
func (a *attached) end(t testing.TB) truth.Verdict {
	t.Helper()
	a.d.bye(t)
	settles(t, "media after BYE", a.e.count) // what was held back may still come
	return judge(t, a.s, a.stop, a.channel.ID, a.e, nil)
}

// withheld is how much the truth log says never reached the wire.
func (a *attached) withheld(t testing.TB) (ms int64) {
	t.Helper()
	text, err := os.ReadFile(a.s.cfg.TruthLog)
	if err != nil {
		t.Fatal(err)
	}
	return int64(strings.Count(string(text), `"type":"withheld"`)) * 20
}

func TestLossIsExactlyWhatTheTruthLogSays(t *testing.T) {
	a := attach(t, func(c *Config) { c.Faults.RTP.Loss = 0.2 })
	a.e.wait(t, 40)
	v := a.end(t)
	if lost := a.withheld(t); lost == 0 || v.UnexplainedMS != lost || v.RecordedMS != v.SentMS-lost {
		t.Errorf("%d ms withheld: %+v", lost, v)
	}
}

// What the network does to packets on their way takes nothing from the audio.
func TestHarmlessRTPFaults(t *testing.T) {
	for _, c := range []struct {
		name   string
		faults RTPFaults
		shown  func(packets []heard, bad int, ssrc uint32) bool
	}{
		{"reorder", RTPFaults{Reorder: 0.3}, func(p []heard, _ int, _ uint32) bool { return backward(p) > 0 }},
		{"jitter", RTPFaults{Jitter: config.Duration(80 * time.Millisecond)}, func(p []heard, _ int, _ uint32) bool { return backward(p) > 0 }},
		{"duplicate", RTPFaults{Duplicate: 0.5}, func(p []heard, _ int, _ uint32) bool { return repeated(p) > 0 }},
		{"wrong version", RTPFaults{WrongVersion: 0.5}, func(_ []heard, bad int, _ uint32) bool { return bad > 0 }},
		{"short", RTPFaults{Short: 0.5}, func(_ []heard, bad int, _ uint32) bool { return bad > 0 }},
		{"wrong payload type", RTPFaults{WrongType: 0.5}, func(p []heard, _ int, _ uint32) bool {
			return some(p, func(p heard) bool { return p.PayloadType >= 96 })
		}},
		{"second SSRC", RTPFaults{SecondSSRC: 0.5}, func(p []heard, _ int, ssrc uint32) bool {
			return some(p, func(p heard) bool { return p.SSRC != ssrc })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := attach(t, func(cfg *Config) { cfg.Faults.RTP = c.faults })
			a.e.wait(t, 30)
			v := a.end(t)
			packets := a.e.all()
			if !c.shown(packets, a.e.bad, a.e.firstSR(t).SSRC) {
				t.Errorf("nothing of it in %d packets", len(packets))
			}
			if v.SentMS == 0 || v.RecordedMS != v.SentMS {
				t.Errorf("%+v", v)
			}
		})
	}
}

func some(list []heard, is func(heard) bool) bool {
	for _, p := range list {
		if is(p) {
			return true
		}
	}
	return false
}

func backward(list []heard) (n int) {
	for i := 1; i < len(list); i++ {
		if int16(list[i].SequenceNumber-list[i-1].SequenceNumber) < 0 {
			n++
		}
	}
	return n
}

func repeated(list []heard) (n int) {
	seen := map[uint16]bool{}
	for _, p := range list {
		if seen[p.SequenceNumber] {
			n++
		}
		seen[p.SequenceNumber] = true
	}
	return n
}

func TestFaultsOfOneChannelLeaveOthersAlone(t *testing.T) {
	a := attach(t, func(c *Config) { c.Faults.RTP = RTPFaults{Loss: 0.5, Channel: "T0002-1.m1.A"} })
	a.e.wait(t, 25)
	if v := a.end(t); v.RecordedMS != v.SentMS || a.withheld(t) != 0 {
		t.Errorf("%+v", v)
	}
}

// The path of one copy is cut: nothing of it reaches the wire, and the other
// copy of the same mix is whole.
func TestFaultsOfOneCopyLeaveTheOtherAlone(t *testing.T) {
	a := attach(t, func(c *Config) {
		c.Floor.Copies = []string{"A", "B"}
		c.Faults.RTP = RTPFaults{Loss: 1, Copy: call.CopyB}
	})
	twin, other := newEar(t), login(t, a.s, "B").channels(t, 1)[0]
	if other.ID != strings.TrimSuffix(a.channel.ID, "A")+"B" {
		t.Fatalf("the copy of %s is %s", a.channel.ID, other.ID)
	}
	d, status := a.director.call(t, other, offerOf(twin.addr(), muxLine))
	if status != 200 {
		t.Fatalf("INVITE answered %d", status)
	}
	a.e.wait(t, 50)
	if n := twin.count(); n != 0 {
		t.Errorf("%d packets of the copy came", n)
	}
	d.bye(t)
	a.e.wait(t, a.e.count()+2) // what the copy sent last the other one has, too
	a.end(t)
	account, err := truth.Load(a.s.cfg.TruthLog)
	if err != nil {
		t.Fatal(err)
	}
	withheld := func(of *truth.Account) (n, sent int64) {
		v := of.NewJudge().Total()
		return v.WithheldMS, v.SentMS
	}
	if n, sent := withheld(account.Copy(call.CopyB)); n == 0 || n != sent {
		t.Errorf("of copy B %d of %d ms are withheld", n, sent)
	}
	if n, sent := withheld(account.Copy(call.CopyA)); n != 0 || sent == 0 {
		t.Errorf("of copy A %d of %d ms are withheld", n, sent)
	}
	if n, _ := withheld(account.Mixes()); n != 0 {
		t.Errorf("%d ms are withheld of both", n)
	}
}

// step finds where consecutive packets do not follow each other.
func step(list []heard) (seq uint16, ts uint32, ssrc, found bool) {
	for i := 1; i < len(list); i++ {
		p, q := list[i-1], list[i]
		if q.SequenceNumber-p.SequenceNumber != 1 || q.Timestamp-p.Timestamp != 160 || q.SSRC != p.SSRC {
			return q.SequenceNumber - p.SequenceNumber - 1, q.Timestamp - p.Timestamp - 160, q.SSRC != p.SSRC, true
		}
	}
	return 0, 0, false, false
}

func TestJumps(t *testing.T) {
	for _, c := range []struct {
		name string
		ok   func(seq uint16, ts uint32, ssrc bool) bool
	}{
		{"sequence_jump", func(seq uint16, ts uint32, ssrc bool) bool { return seq == 300 && ts == 0 && !ssrc }},
		{"timestamp_jump", func(seq uint16, ts uint32, ssrc bool) bool { return seq == 0 && ts == 300 && !ssrc }},
		{"ssrc_change", func(_ uint16, _ uint32, ssrc bool) bool { return ssrc }},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := attach(t, nil)
			a.e.wait(t, 5)
			if err := a.s.Inject(c.name, Shot{Channel: a.channel.ID, Amount: 300}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the jump", func() bool { _, _, _, found := step(a.e.all()); return found })
			if seq, ts, ssrc, _ := step(a.e.all()); !c.ok(seq, ts, ssrc) {
				t.Errorf("sequence +%d, timestamp +%d, new SSRC %v", seq, ts, ssrc)
			}
		})
	}
}

// A clock that runs fast sends more packets in the same time, and its SRs say so.
func TestDrift(t *testing.T) {
	a := attach(t, func(c *Config) { c.Faults.RTP.DriftPPM = 10_000 })
	packets := a.e.wait(t, 120)
	spent := packets[len(packets)-1].at.Sub(packets[0].at)
	carried := time.Duration(packets[len(packets)-1].Timestamp-packets[0].Timestamp) * sampleTime
	if ahead := carried - spent; ahead < 10*time.Millisecond {
		t.Errorf("%v of audio came in %v, want about a hundredth less", carried, spent)
	}
	// By the one SR, the recording runs ahead of the truth as it goes on.
	if v := a.end(t); v.RecordedMS != v.SentMS || v.MaxSkewMS < 10 {
		t.Errorf("%+v, want everything, ahead of its time by a hundredth", v)
	}
}

func TestEarlyLateAndLingeringMedia(t *testing.T) {
	cfg := testConfig(t)
	cfg.Faults.RTP.Early = config.Duration(100 * time.Millisecond)
	s, _ := startSwitch(t, cfg)
	channels := login(t, s, "A").channels(t, 4)
	director, early, late := newSIPClient(t, "udp"), newEar(t), newEar(t)
	director.call(t, channels[0], offerOf(early.addr(), muxLine))
	if n := len(early.all()); n == 0 {
		t.Error("nothing came before the answer")
	}
	if err := s.SetFaults(Faults{RTP: RTPFaults{Late: config.Duration(200 * time.Millisecond), Linger: config.Duration(2 * time.Second)}}); err != nil {
		t.Fatal(err)
	}
	d, _ := director.call(t, channels[1], offerOf(late.addr(), muxLine))
	answered := time.Now()
	if first := late.wait(t, 5)[0]; first.at.Sub(answered) < 150*time.Millisecond {
		t.Errorf("media came %v after the answer", first.at.Sub(answered))
	}
	d.bye(t)
	late.wait(t, late.count()+3)
}

func TestFloodIsBoundedAndStrange(t *testing.T) {
	a := attach(t, nil)
	a.e.wait(t, 5)
	const flood = 400 // all of it fits in a socket's buffer of common size: nobody may read meanwhile
	if err := a.s.Inject("flood", Shot{Channel: a.channel.ID, PPS: flood, Duration: config.Duration(time.Second)}); err != nil {
		t.Fatal(err)
	}
	a.e.wait(t, flood)
	v := a.end(t)
	if v.RecordedMS != v.SentMS {
		t.Errorf("%+v", v)
	}
	if n := len(a.e.all()); n > flood+int(v.SentMS/20) {
		t.Errorf("%d packets came", n)
	}
}

func TestSIPFaults(t *testing.T) {
	s, _ := startSwitch(t, testConfig(t))
	channels := login(t, s, "A").channels(t, 4)
	director, e := newSIPClient(t, "udp"), newEar(t)
	set := func(f SIPFaults) {
		if err := s.SetFaults(Faults{SIP: f}); err != nil {
			t.Fatal(err)
		}
	}
	for _, status := range []int{408, 486, 491, 503} {
		set(SIPFaults{Status: status, StatusRate: 1})
		if _, got := director.call(t, channels[0], offerOf(e.addr(), muxLine)); got != status {
			t.Errorf("answered %d, want %d", got, status)
		}
	}
	set(SIPFaults{NoCodec: 1})
	if _, got := director.call(t, channels[0], offerOf(e.addr(), muxLine)); got != 488 {
		t.Errorf("answered %d, want 488", got)
	}
	set(SIPFaults{NoSDP: 1})
	if d, got := director.call(t, channels[0], offerOf(e.addr(), muxLine)); got != 200 || len(d.answer.Body()) != 0 {
		t.Errorf("answered %d with %q, want 200 and nothing", got, d.answer.Body())
	}
	set(SIPFaults{Delay: config.Duration(150 * time.Millisecond)})
	began := time.Now()
	d, got := director.call(t, channels[1], offerOf(e.addr(), muxLine))
	if took := time.Since(began); got != 200 || took < 150*time.Millisecond {
		t.Errorf("answered %d after %v", got, took)
	}
	set(SIPFaults{Status: 491, StatusRate: 1})
	if got := d.reinvite(t, offerOf(e.addr(), muxLine)); got != 491 {
		t.Errorf("re-INVITE answered %d, want 491", got)
	}
}

// An ACK that is not heard brings the 200 again.
func TestLostACK(t *testing.T) {
	s, _ := startSwitch(t, testConfig(t))
	channels := login(t, s, "A").channels(t, 4)
	if err := s.SetFaults(Faults{SIP: SIPFaults{LoseACK: 1}}); err != nil {
		t.Fatal(err)
	}
	director, e := newSIPClient(t, "udp"), newEar(t)
	req := director.inviteRequest(channels[0], offerOf(e.addr(), muxLine))
	tx, err := director.client.TransactionRequest(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Terminate()
	again := make(chan struct{}, 100)
	tx.OnRetransmission(func(*sip.Response) { again <- struct{}{} })
	res := <-tx.Responses()
	d := &testDialog{c: director, invite: req, answer: res, cseq: req.CSeq().SeqNo}
	d.ack()
	select {
	case <-again:
	case <-time.After(patience):
		t.Fatal("the 200 was not sent again")
	}
	if err := s.SetFaults(Faults{}); err != nil {
		t.Fatal(err)
	}
	d.ack()
	eventually(t, "the ACK to be heard", func() bool { return s.State().SIP.ACKs == 1 })
}

// A caller that gives up while the answer is held back leaves nothing behind.
func TestCancelDuringASlowAnswer(t *testing.T) {
	cfg := testConfig(t)
	cfg.Faults.SIP.Delay = config.Duration(10 * time.Second)
	cfg.Faults.RTP.Early = config.Duration(10 * time.Millisecond)
	s, _ := startSwitch(t, cfg)
	channels := login(t, s, "A").channels(t, 4)
	director, e := newSIPClient(t, "udp"), newEar(t)
	req := director.inviteRequest(channels[0], offerOf(e.addr(), muxLine))
	tx, err := director.client.TransactionRequest(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Terminate()
	e.wait(t, 2) // early media: the switch is at it
	cancel := sip.NewRequest(sip.CANCEL, req.Recipient)
	cancel.SetTransport("UDP")
	director.from(cancel)
	for _, name := range []string{"Via", "From", "To", "Call-ID"} {
		cancel.AppendHeader(sip.HeaderClone(req.GetHeader(name)))
	}
	cancel.AppendHeader(&sip.CSeqHeader{SeqNo: req.CSeq().SeqNo, MethodName: sip.CANCEL})
	cancel.SetBody(nil)
	if res, err := director.do(cancel, func(*sipgo.Client, *sip.Request) error { return nil }); err != nil || res.StatusCode != 200 {
		t.Fatalf("CANCEL: %v %v", res, err)
	}
	for res := range tx.Responses() {
		if res.StatusCode == 487 {
			break
		}
	}
	settles(t, "media after CANCEL", e.count)
	if c := s.State(); c.Dialogs != 0 {
		t.Errorf("%+v", c)
	}
}

func TestByeUnasked(t *testing.T) {
	a := attach(t, nil)
	a.e.wait(t, 3)
	if err := a.s.Inject("bye", Shot{}); err != nil {
		t.Fatal(err)
	}
	select {
	case bye := <-a.director.byes:
		if bye.GetHeader("Reason") != nil {
			t.Errorf("%s", bye)
		}
	case <-time.After(patience):
		t.Fatal("no BYE")
	}
	if _, status := a.director.call(t, a.channel, offerOf(a.e.addr(), muxLine)); status != 200 {
		t.Errorf("dialled again: %d", status)
	}
}

func TestControlPort(t *testing.T) {
	a := attach(t, nil)
	base := "http://" + a.s.Addrs().Control.String()
	do := func(method, path, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequest(method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(text)
	}
	for _, c := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", "/state", "", 200, `"dialogs": 1`},
		{"PUT", "/faults", `{"rtp":{"loss":0.25,"jitter":"5ms"}}`, 200, `"loss": 0.25`},
		{"GET", "/faults", "", 200, `"jitter": "5ms"`},
		{"PUT", "/faults", `{"rtp":{"loss":2}}`, 400, "rtp.loss"},
		{"PUT", "/faults", `{"rtp":{"los":0.1}}`, 400, "los"},
		{"PUT", "/faults", `{}`, 200, `"loss": 0`},
		{"POST", "/fault/ssrc_change", `{"channel":"` + a.channel.ID + `"}`, 204, ""},
		{"POST", "/fault/ssrc_change", `{"channel":"nobody"}`, 409, "nobody"},
		{"POST", "/fault/log_off", `{"device":"nobody"}`, 409, "nobody"},
		{"POST", "/fault/earthquake", "", 404, "cti_drop"},
		{"POST", "/fault/stop_calls", "", 204, ""},
		{"POST", "/fault/start_calls", "", 204, ""},
		{"GET", "/nothing", "", 404, ""},
	} {
		if status, text := do(c.method, c.path, c.body); status != c.status || !strings.Contains(text, c.says) {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, status, text)
		}
	}
	var state State
	if _, text := do("GET", "/state", ""); json.Unmarshal([]byte(text), &state) != nil || state.Addrs != a.s.Addrs() || state.Sessions != 2 || state.Links != 1 {
		t.Errorf("%s", text)
	}
}

func TestFaultsAfterTheEnd(t *testing.T) {
	s, stop := startSwitch(t, testConfig(t))
	stop()
	if err := s.Inject("restart", Shot{}); !errors.Is(err, errStopped) {
		t.Errorf("got %v", err)
	}
	text, err := os.ReadFile(s.cfg.TruthLog)
	if err != nil || !bytes.Contains(text, []byte(`"type":"stop"`)) {
		t.Errorf("the truth log does not end: %v", err)
	}
}
