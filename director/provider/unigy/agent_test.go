package unigy

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"
	"github.com/icholy/digest"
	"github.com/prometheus/client_golang/prometheus"

	"tandem/director/provider"
	"tandem/internal/call"
	"tandem/internal/media"
)

const patience = 30 * time.Second

// answerer decides on the nth INVITE, counted from 0.
type answerer func(u *uas, n int, req *sip.Request, tx sip.ServerTransaction)

// uas is a switch's SIP side on real sockets. answer decides on each INVITE;
// requests collects everything that came, in order.
type uas struct {
	t        *testing.T
	port     int
	client   *sipgo.Client
	answer   answerer
	requests chan *sip.Request
	passed   []*sip.Request // taken from requests and not asked for yet

	mu      sync.Mutex
	invites int
}

func newUAS(t *testing.T, answer answerer) *uas {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	ua, err := sipgo.NewUA(
		sipgo.WithUserAgentTransportLayerOptions(sip.WithTransportLayerLogger(quiet)),
		sipgo.WithUserAgentTransactionLayerOptions(sip.WithTransactionLayerLogger(quiet), sip.WithTransactionLayerUnhandledResponseHandler(func(*sip.Response) {})))
	if err != nil {
		t.Fatal(err)
	}
	server, err := sipgo.NewServer(ua, sipgo.WithServerLogger(quiet))
	if err != nil {
		t.Fatal(err)
	}
	udp, tcp, err := listen(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	u := &uas{t: t, port: udp.LocalAddr().(*net.UDPAddr).Port, answer: answer, requests: make(chan *sip.Request, 100)}
	u.client, err = sipgo.NewClient(ua, sipgo.WithClientHostname("127.0.0.1"), sipgo.WithClientPort(u.port), sipgo.WithClientLogger(quiet))
	if err != nil {
		t.Fatal(err)
	}
	server.OnInvite(func(req *sip.Request, tx sip.ServerTransaction) {
		u.mu.Lock()
		n := u.invites
		u.invites++
		u.mu.Unlock()
		u.requests <- req
		u.answer(u, n, req, tx)
	})
	server.OnAck(func(req *sip.Request, _ sip.ServerTransaction) { u.requests <- req })
	for _, method := range []sip.RequestMethod{sip.BYE, sip.CANCEL} {
		server.OnRequest(method, func(req *sip.Request, tx sip.ServerTransaction) {
			u.requests <- req
			tx.Respond(sip.NewResponseFromRequest(req, 200, "OK", nil))
		})
	}
	var serving sync.WaitGroup
	serving.Go(func() { server.ServeUDP(udp) })
	serving.Go(func() { server.ServeTCP(tcp) })
	t.Cleanup(func() {
		udp.Close()
		tcp.Close()
		ua.Close()
		serving.Wait()
	})
	return u
}

// uri is where a channel is dialled.
func (u *uas) uri(channel call.ChannelID) string {
	return fmt.Sprintf("sip:%s@127.0.0.1:%d", channel, u.port)
}

// ok answers 200 with the given SDP, tagged so that the dialog is known again.
func (u *uas) ok(req *sip.Request, tx sip.ServerTransaction, body []byte) *sip.Response {
	res := sip.NewSDPResponseFromRequest(req, body)
	res.AppendHeader(&sip.ContactHeader{Address: sip.Uri{Scheme: "sip", User: req.Recipient.User, Host: "127.0.0.1", Port: u.port, UriParams: req.Recipient.UriParams}})
	tx.Respond(res)
	return res
}

// next waits for a request of one method; others wait for their turn, since
// the stack hands requests over in no particular order.
func (u *uas) next(method sip.RequestMethod) *sip.Request {
	u.t.Helper()
	for i, req := range u.passed {
		if req.Method == method {
			u.passed = slices.Delete(u.passed, i, i+1)
			return req
		}
	}
	deadline := time.After(patience)
	for {
		select {
		case req := <-u.requests:
			if req.Method == method {
				return req
			}
			u.passed = append(u.passed, req)
		case <-deadline:
			u.t.Fatalf("no %s came", method)
		}
	}
}

// bye hangs up the dialog of an INVITE that was answered with a tag.
func (u *uas) bye(invite *sip.Request, tag, reason string) int {
	u.t.Helper()
	contact := invite.Contact()
	req := sip.NewRequest(sip.BYE, *contact.Address.Clone())
	from := invite.To().AsFrom()
	from.Params.Add("tag", tag)
	to := invite.From().AsTo()
	req.AppendHeader(&from)
	req.AppendHeader(&to)
	req.AppendHeader(sip.HeaderClone(invite.CallID()))
	req.AppendHeader(&sip.CSeqHeader{SeqNo: 1, MethodName: sip.BYE})
	hops := sip.MaxForwardsHeader(70)
	req.AppendHeader(&hops)
	if reason != "" {
		req.AppendHeader(sip.NewHeader("Reason", reason))
	}
	req.SetTransport(invite.Transport())
	ctx, cancel := context.WithTimeout(u.t.Context(), patience)
	defer cancel()
	res, err := u.client.Do(ctx, req)
	if err != nil {
		u.t.Fatalf("bye: %v", err)
	}
	return res.StatusCode
}

// dialer is an agent under test with what it emits.
type dialer struct {
	*agent
	t      *testing.T
	events chan provider.Event
	stop   func()
}

func testConfig() Config {
	return Config{
		User: "tandem", Client: "dir-a", Copy: call.CopyA, SIPListen: netip.MustParseAddrPort("127.0.0.1:0"), AttachRate: 1000,
		Gate: func() error { return nil }, Metrics: NewMetrics(prometheus.NewRegistry()), Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func newDialer(t *testing.T, change func(*Config)) *dialer {
	t.Helper()
	cfg := testConfig()
	if change != nil {
		change(&cfg)
	}
	d := &dialer{t: t, events: make(chan provider.Event, 100)}
	a, err := newAgent(cfg, func(e provider.Event) { d.events <- e })
	if err != nil {
		t.Fatal(err)
	}
	d.agent = a
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.run(ctx)
	}()
	d.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(d.stop)
	return d
}

func (d *dialer) ask(u *uas, channel call.ChannelID, port int) {
	d.enqueue(provider.Attach{Channel: channel, Address: u.uri(channel), Endpoint: provider.Endpoint{Host: "127.0.0.1", Port: port}})
}

// expect returns the next event, which must be a T.
func expect[T provider.Event](d *dialer) T {
	d.t.Helper()
	select {
	case e := <-d.events:
		want, ok := e.(T)
		if !ok {
			d.t.Fatalf("got %T %+v, want %T", e, e, want)
		}
		return want
	case <-time.After(patience):
		var want T
		d.t.Fatalf("no %T came", want)
		return want
	}
}

func tagOf(res *sip.Response) string {
	tag, _ := res.To().Params.Get("tag")
	return tag
}

func TestAttachMoveDetach(t *testing.T) {
	for _, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			u := newUAS(t, func(u *uas, _ int, req *sip.Request, tx sip.ServerTransaction) { u.ok(req, tx, sdpAnswer()) })
			d := newDialer(t, nil)
			address := u.uri("s1.m1.A") + ";transport=" + transport
			d.enqueue(provider.Attach{Channel: "s1.m1.A", Address: address, Endpoint: provider.Endpoint{Host: "127.0.0.1", Port: 20_000}})
			got := expect[provider.Attached](d)
			if got.Codec != media.PCMA || got.PayloadType != 8 || !got.Mux || got.Remote.Port != 30_000 || got.Endpoint.Port != 20_000 {
				t.Fatalf("attached %+v", got)
			}
			first := u.next(sip.INVITE)
			if !strings.Contains(string(first.Body()), "m=audio 20000 ") || first.Recipient.User != "s1.m1.A" {
				t.Fatalf("first offer:\n%s", first)
			}
			if ack := u.next(sip.ACK); ack.CSeq().SeqNo != first.CSeq().SeqNo {
				t.Fatalf("acknowledged CSeq %d of INVITE %d", ack.CSeq().SeqNo, first.CSeq().SeqNo)
			}

			d.enqueue(provider.Attach{Channel: "s1.m1.A", Endpoint: provider.Endpoint{Host: "127.0.0.1", Port: 20_002}})
			moved := expect[provider.Attached](d)
			second := u.next(sip.INVITE)
			if second.CallID().Value() != first.CallID().Value() || second.CSeq().SeqNo != first.CSeq().SeqNo+1 {
				t.Fatalf("moved by another dialog:\n%s", second)
			}
			if !strings.Contains(string(second.Body()), "m=audio 20002 ") || !strings.Contains(string(second.Body()), " 2 IN IP4") {
				t.Fatalf("second offer:\n%s", second.Body())
			}
			if moved.Endpoint.Port != 20_002 {
				t.Fatalf("moved %+v", moved)
			}
			u.next(sip.ACK)

			d.detach("s1.m1.A")
			if bye := u.next(sip.BYE); bye.CSeq().SeqNo != second.CSeq().SeqNo+1 || bye.CallID().Value() != first.CallID().Value() {
				t.Fatalf("bye:\n%s", bye)
			}
		})
	}
}

// A dialog survives its process: the next one re-INVITEs and hangs up in it,
// with CSeq beyond whatever the first one may have sent unseen.
func TestAdopt(t *testing.T) {
	u := newUAS(t, func(u *uas, _ int, req *sip.Request, tx sip.ServerTransaction) { u.ok(req, tx, sdpAnswer()) })
	first := newDialer(t, nil)
	first.ask(u, "c1", 20_000)
	blob := expect[provider.Attached](first).Dialog
	invite := u.next(sip.INVITE)
	first.stop()

	second := newDialer(t, nil)
	second.adopt("c1", blob)
	if a := expect[provider.Adopted](second); a.Err != nil || a.Endpoint.Port != 20_000 {
		t.Fatalf("adopted %+v", a)
	}
	second.ask(u, "c1", 20_004)
	expect[provider.Attached](second)
	again := u.next(sip.INVITE)
	if again.CallID().Value() != invite.CallID().Value() || again.CSeq().SeqNo <= invite.CSeq().SeqNo+adoptedSkip {
		t.Fatalf("went on with:\n%s", again)
	}
	if again.Contact().Address.Port == invite.Contact().Address.Port {
		t.Fatal("the switch was not told of the new contact")
	}
	for _, bad := range [][]byte{nil, []byte("{"), sampleDialog().encode()} {
		second.adopt("c2", bad)
		if a := expect[provider.Adopted](second); a.Err == nil {
			t.Errorf("adopted %q", bad)
		}
	}
	select { // the first one left without hanging up
	case req := <-u.requests:
		if req.Method == sip.BYE {
			t.Fatal("the director that stopped hung up")
		}
	default:
	}
}

func TestSwitchHangsUp(t *testing.T) {
	for reason, taken := range map[string]bool{
		"":                               false,
		`Q.850;cause=16;text="Normal"`:   false,
		`SIP;cause=200;text="taken"`:     true,
		`SIP ;cause=200; text="Taken"`:   true,
		`SIP;cause=200;text="taken off"`: false,
	} {
		t.Run(reason, func(t *testing.T) {
			tag := make(chan string, 1)
			u := newUAS(t, func(u *uas, _ int, req *sip.Request, tx sip.ServerTransaction) {
				tag <- tagOf(u.ok(req, tx, sdpAnswer()))
			})
			d := newDialer(t, nil)
			d.ask(u, "c1", 20_000)
			expect[provider.Attached](d)
			invite := u.next(sip.INVITE)
			theirs := <-tag
			if code := u.bye(invite, "another", reason); code != 481 {
				t.Fatalf("a BYE with a wrong tag was answered %d", code)
			}
			if code := u.bye(invite, theirs, reason); code != 200 {
				t.Fatalf("BYE answered %d", code)
			}
			if got := expect[provider.Dropped](d); got.Channel != "c1" || got.Taken != taken {
				t.Fatalf("dropped %+v, want taken %v", got, taken)
			}
			if code := u.bye(invite, theirs, reason); code != 481 {
				t.Fatalf("a second BYE was answered %d", code)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	refuse := func(code int) func(*uas, *sip.Request, sip.ServerTransaction) {
		return func(_ *uas, req *sip.Request, tx sip.ServerTransaction) {
			tx.Respond(sip.NewResponseFromRequest(req, code, "No", nil))
		}
	}
	answer := func(body []byte) func(*uas, *sip.Request, sip.ServerTransaction) {
		return func(u *uas, req *sip.Request, tx sip.ServerTransaction) { u.ok(req, tx, body) }
	}
	for name, c := range map[string]struct {
		answer func(*uas, *sip.Request, sip.ServerTransaction)
		text   string
		hangUp bool
	}{
		"gone":        {refuse(486), "486", false},
		"no codec":    {refuse(488), "488", false},
		"overload":    {refuse(503), "503", false},
		"no sdp":      {answer(nil), errNoSDP.Error(), true},
		"other codec": {answer(sdpAnswer("AVP 8", "AVP 97")), errNoCodec.Error(), true},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUAS(t, func(u *uas, _ int, req *sip.Request, tx sip.ServerTransaction) { c.answer(u, req, tx) })
			d := newDialer(t, nil)
			d.ask(u, "c1", 20_000)
			got := expect[provider.AttachFailed](d)
			if !strings.Contains(got.Err.Error(), c.text) || got.Peer != "127.0.0.1:"+strconv.Itoa(u.port) || got.Gone {
				t.Fatalf("failed with %+v", got)
			}
			if c.hangUp { // acknowledged first, then ended: nothing leaks
				u.next(sip.ACK)
				u.next(sip.BYE)
			}
		})
	}
}

// What a move comes to depends on what the answer says of the dialog.
func TestMoveRefused(t *testing.T) {
	for name, c := range map[string]struct {
		code int
		gone bool
	}{"dialog unknown": {481, true}, "timeout": {408, true}, "not acceptable": {488, false}, "trouble": {500, false}} {
		t.Run(name, func(t *testing.T) {
			u := newUAS(t, func(u *uas, n int, req *sip.Request, tx sip.ServerTransaction) {
				if n == 1 {
					tx.Respond(sip.NewResponseFromRequest(req, c.code, "No", nil))
					return
				}
				u.ok(req, tx, sdpAnswer())
			})
			d := newDialer(t, nil)
			d.ask(u, "c1", 20_000)
			expect[provider.Attached](d)
			first := u.next(sip.INVITE)
			d.ask(u, "c1", 20_002)
			if got := expect[provider.AttachFailed](d); got.Gone != c.gone {
				t.Fatalf("failed with %+v", got)
			}
			u.next(sip.INVITE)
			d.ask(u, "c1", 20_002)
			expect[provider.Attached](d)
			third := u.next(sip.INVITE)
			if (third.CallID().Value() == first.CallID().Value()) == c.gone {
				t.Fatalf("dialog %s after %s", third.CallID().Value(), first.CallID().Value())
			}
			if !c.gone && third.CSeq().SeqNo <= first.CSeq().SeqNo+1 {
				t.Fatalf("CSeq %d used twice", third.CSeq().SeqNo)
			}
		})
	}
}

func TestGlare(t *testing.T) {
	u := newUAS(t, func(u *uas, n int, req *sip.Request, tx sip.ServerTransaction) {
		if n == 1 {
			tx.Respond(sip.NewResponseFromRequest(req, 491, "Request Pending", nil))
			return
		}
		u.ok(req, tx, sdpAnswer())
	})
	d := newDialer(t, nil)
	d.ask(u, "c1", 20_000)
	expect[provider.Attached](d)
	began := time.Now()
	d.ask(u, "c1", 20_002)
	expect[provider.Attached](d)
	if waited := time.Since(began); waited < 2100*time.Millisecond || waited > 6*time.Second {
		t.Fatalf("tried again after %v; RFC 3261 14.1 says 2.1 to 4 s", waited)
	}
}

func TestDigest(t *testing.T) {
	u := newUAS(t, func(u *uas, _ int, req *sip.Request, tx sip.ServerTransaction) {
		challenge := digest.Challenge{Realm: "switch", Nonce: "n1", Algorithm: "SHA-256"}
		h := req.GetHeader("Authorization")
		if h == nil {
			res := sip.NewResponseFromRequest(req, 401, "Unauthorized", nil)
			res.AppendHeader(sip.NewHeader("WWW-Authenticate", challenge.String()))
			tx.Respond(res)
			return
		}
		given, err := digest.ParseCredentials(h.Value())
		if err != nil {
			tx.Respond(sip.NewResponseFromRequest(req, 400, "Bad", nil))
			return
		}
		want, err := digest.Digest(&challenge, digest.Options{Method: "INVITE", URI: given.URI, Username: "tandem", Password: "secret"})
		if err != nil || want.Response != given.Response {
			tx.Respond(sip.NewResponseFromRequest(req, 403, "Forbidden", nil))
			return
		}
		u.ok(req, tx, sdpAnswer())
	})
	for password, good := range map[string]bool{"secret": true, "wrong": false, "": false} {
		d := newDialer(t, func(c *Config) { c.Password = password })
		d.ask(u, "c1", 20_000)
		if good {
			blob := expect[provider.Attached](d).Dialog
			kept, err := decodeDialog(blob)
			if err != nil || kept.CSeq != 2 {
				t.Fatalf("dialog after a challenge: %+v, %v", kept, err)
			}
			continue
		}
		if got := expect[provider.AttachFailed](d); !isStatus(got.Err, 403) && !isStatus(got.Err, 401) {
			t.Fatalf("with password %q: %v", password, got.Err)
		}
	}
}

// An answer that comes after the channel was given up is acknowledged and
// hung up: neither side keeps a dialog that the other does not have.
func TestLateAnswer(t *testing.T) {
	answerNow := make(chan struct{})
	u := newUAS(t, func(u *uas, _ int, req *sip.Request, tx sip.ServerTransaction) {
		tx.Respond(sip.NewResponseFromRequest(req, 180, "Ringing", nil))
		<-answerNow
		u.ok(req, tx, sdpAnswer())
	})
	d := newDialer(t, nil)
	d.ask(u, "c1", 20_000)
	u.next(sip.INVITE)
	d.detach("c1")
	close(answerNow)
	ack := u.next(sip.ACK)
	if bye := u.next(sip.BYE); bye.CallID().Value() != ack.CallID().Value() {
		t.Fatal("hung up another dialog")
	}
	select {
	case e := <-d.events:
		t.Fatalf("told of a channel nobody wants: %+v", e)
	default:
	}
}

// The switch repeats a 200 whose ACK was lost; every repetition is acknowledged.
func TestAckAgain(t *testing.T) {
	lost := make(chan struct{})
	u := newUAS(t, func(u *uas, _ int, req *sip.Request, tx sip.ServerTransaction) {
		res := u.ok(req, tx, sdpAnswer())
		<-lost
		tx.Respond(res.Clone())
	})
	d := newDialer(t, nil)
	d.ask(u, "c1", 20_000)
	expect[provider.Attached](d)
	u.next(sip.ACK)
	close(lost)
	u.next(sip.ACK)
}

func TestHandsetsFirst(t *testing.T) {
	u := newUAS(t, func(u *uas, _ int, req *sip.Request, tx sip.ServerTransaction) { u.ok(req, tx, sdpAnswer()) })
	d := newDialer(t, func(c *Config) { c.AttachRate = 10 })
	for i := range 3 {
		d.enqueue(provider.Attach{Channel: call.ChannelID(fmt.Sprint("spk", i)), Address: u.uri("spk"), Endpoint: provider.Endpoint{Host: "127.0.0.1", Port: 20_000}, Rank: 1})
	}
	d.enqueue(provider.Attach{Channel: "hs", Address: u.uri("hs"), Endpoint: provider.Endpoint{Host: "127.0.0.1", Port: 20_000}, Rank: 0})
	began := time.Now()
	var order []call.ChannelID
	for range 4 {
		order = append(order, expect[provider.Attached](d).Channel)
	}
	// The first token may already have gone to a speaker.
	if order[0] != "hs" && order[1] != "hs" {
		t.Fatalf("dialled in order %v", order)
	}
	if took := time.Since(began); took < 250*time.Millisecond {
		t.Fatalf("4 channels at 10 a second took %v", took)
	}
}

func TestGateKeepsSilence(t *testing.T) {
	u := newUAS(t, func(*uas, int, *sip.Request, sip.ServerTransaction) {})
	d := newDialer(t, func(c *Config) { c.Gate = func() error { return fmt.Errorf("not in charge") } })
	d.ask(u, "c1", 20_000)
	if got := expect[provider.AttachFailed](d); got.Err.Error() != "not in charge" {
		t.Fatalf("failed with %v", got.Err)
	}
	select {
	case req := <-u.requests:
		t.Fatalf("said %s without authority", req.Method)
	default:
	}
}

func TestOptions(t *testing.T) {
	u := newUAS(t, nil)
	d := newDialer(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for method, want := range map[sip.RequestMethod]int{sip.OPTIONS: 200, sip.INFO: 405, sip.INVITE: 481} {
		res, err := u.client.Do(ctx, sip.NewRequest(method, sip.Uri{Scheme: "sip", User: "tandem", Host: "127.0.0.1", Port: int(d.local.Port())}))
		if err != nil || res.StatusCode != want {
			t.Errorf("%s: got %v, %v, want %d", method, res, err, want)
		}
	}
}
