package turretsim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"tandem/internal/cti"
)

// testConfig is a small floor on ephemeral ports with its truth log in a
// directory of the test's own.
func testConfig(t testing.TB) Config {
	if t, ok := t.(*testing.T); ok {
		t.Parallel() // these tests wait far more than they work
	}
	cfg := DefaultConfig()
	cfg.Control, cfg.CTI.Listen, cfg.SIP.Listen = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.TruthLog = filepath.Join(t.TempDir(), "truth.jsonl")
	cfg.CTI.Heartbeat.UnmarshalText([]byte("200ms"))
	cfg.Floor.Turrets, cfg.Floor.Mixes, cfg.Floor.CallsPerMinute = 2, 2, 0
	cfg.Floor.LogonInterval = 0
	return cfg
}

// startSwitch runs a switch until the returned function, or the test's end.
// Whoever logs on at its start has when it returns.
func startSwitch(t testing.TB, cfg Config) (*Switch, func()) {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.log = slog.New(slog.DiscardHandler)
	s.phone.log, s.cti.log = s.log, s.log
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(patience):
			t.Error("the switch did not stop")
		}
	})
	t.Cleanup(stop)
	if cfg.Floor.LogonInterval == 0 && cfg.Floor.LogonTime == 0 {
		eventually(t, "everybody to log on", func() bool { return s.State().Sessions == cfg.Floor.Turrets })
	}
	return s, stop
}

// ctiClient is a director's CTI link that keeps all it hears.
type ctiClient struct {
	conn   net.Conn
	in     *cti.Reader
	server string
}

func dialCTI(t testing.TB, s *Switch) *ctiClient {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addrs().CTI.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &ctiClient{conn: conn, in: cti.NewReader(conn)}
}

func (c *ctiClient) say(t testing.TB, m cti.Message) {
	t.Helper()
	line, err := cti.Append(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.conn.Write(line); err != nil {
		t.Fatal(err)
	}
}

// login logs in, subscribes, and keeps the link alive with heartbeats.
func login(t testing.TB, s *Switch, copy string) *ctiClient {
	t.Helper()
	c := dialCTI(t, s)
	c.say(t, cti.Message{Type: cti.TypeLogin, V: cti.Version, User: "recorder", Client: "test"})
	m := c.read(t)
	if m.Type != cti.TypeLoginOK {
		t.Fatalf("login answered %+v", m)
	}
	c.server = m.Server
	c.say(t, cti.Message{Type: cti.TypeSubscribe, Copy: copy})
	go func() {
		ticker := time.NewTicker(time.Duration(m.HeartbeatMS) * time.Millisecond)
		defer ticker.Stop()
		for range ticker.C {
			if _, err := io.WriteString(c.conn, "{\"type\":\"hb\"}\n"); err != nil {
				return
			}
		}
	}()
	return c
}

// read is the next message but heartbeats; bad lines fail the test.
func (c *ctiClient) read(t testing.TB) cti.Message {
	t.Helper()
	m, err := c.next()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (c *ctiClient) next() (cti.Message, error) {
	for {
		c.conn.SetReadDeadline(time.Now().Add(patience))
		m, err := c.in.Read()
		if err != nil || m.Type != cti.TypeHeartbeat {
			return m, err
		}
	}
}

// until reads to the first message of that type and returns all, it included.
func (c *ctiClient) until(t testing.TB, kind string) (all []cti.Message) {
	t.Helper()
	for {
		m := c.read(t)
		if all = append(all, m); m.Type == kind {
			return all
		}
	}
}

// channels waits until n channels are known, from snapshot or live.
func (c *ctiClient) channels(t testing.TB, n int) (channels []cti.Channel) {
	t.Helper()
	for len(channels) < n {
		if m := c.read(t); m.Type == cti.TypeChannelAvailable {
			channels = append(channels, *m.Channel)
		}
	}
	return channels
}

// sipClient is a director's SIP side.
type sipClient struct {
	ua      *sipgo.UserAgent
	client  *sipgo.Client
	addr    netip.AddrPort
	network string
	byes    chan *sip.Request
}

func newSIPClient(t testing.TB, network string) *sipClient {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	ua, err := sipgo.NewUA(sipgo.WithUserAgent("director"),
		sipgo.WithUserAgentTransactionLayerOptions(sip.WithTransactionLayerLogger(quiet)),
		sipgo.WithUserAgentTransportLayerOptions(sip.WithTransportLayerLogger(quiet)))
	if err != nil {
		t.Fatal(err)
	}
	server, err := sipgo.NewServer(ua, sipgo.WithServerLogger(quiet))
	if err != nil {
		t.Fatal(err)
	}
	c := &sipClient{ua: ua, network: strings.ToUpper(network), byes: make(chan *sip.Request, 8192)}
	server.OnBye(func(req *sip.Request, tx sip.ServerTransaction) {
		c.byes <- req
		tx.Respond(sip.NewResponseFromRequest(req, 200, "OK", nil))
	})
	if network == "udp" {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		conn.(*net.UDPConn).SetReadBuffer(4 << 20)
		c.addr = conn.LocalAddr().(*net.UDPAddr).AddrPort()
		go server.ServeUDP(conn)
		eventually(t, "the SIP socket to be served", func() bool {
			conn, err := ua.TransportLayer().GetConnection("udp", c.addr.String())
			return err == nil && conn != nil
		})
		t.Cleanup(func() { conn.Close(); ua.Close() })
	} else {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c.addr = tcpAddr(ln)
		go server.ServeTCP(ln)
		t.Cleanup(func() { ln.Close(); ua.Close() })
	}
	if c.client, err = sipgo.NewClient(ua, sipgo.WithClientAddr(c.addr.String())); err != nil {
		t.Fatal(err)
	}
	return c
}

// testDialog is the director's end of a dialog.
type testDialog struct {
	c      *sipClient
	invite *sip.Request
	answer *sip.Response
	cseq   uint32
}

func offerOf(rtp netip.AddrPort, extra string) []byte {
	return fmt.Appendf(nil, "v=0\r\no=- 1 1 IN IP4 %[1]s\r\ns=-\r\nc=IN IP4 %[1]s\r\nt=0 0\r\nm=audio %[2]d RTP/AVP 0 8\r\na=recvonly\r\na=ptime:20\r\n%[3]s", rtp.Addr(), rtp.Port(), extra)
}

const muxLine = "a=rtcp-mux\r\n"

// inviteRequest is an INVITE to a channel with that body.
func (c *sipClient) inviteRequest(ch cti.Channel, body []byte) *sip.Request {
	var target sip.Uri
	if err := sip.ParseUri(ch.URI, &target); err != nil {
		panic(err) // the switch offered it
	}
	req := sip.NewRequest(sip.INVITE, target)
	req.SetTransport(c.network)
	c.from(req)
	req.AppendHeader(&sip.ContactHeader{Address: sip.Uri{Scheme: "sip", User: "director", Host: c.addr.Addr().String(), Port: int(c.addr.Port())}})
	req.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
	req.SetBody(body)
	return req
}

// from sends a UDP request from the port that BYEs come to.
func (c *sipClient) from(req *sip.Request) {
	if c.network == "UDP" {
		req.Laddr = sip.Addr{IP: c.addr.Addr().AsSlice(), Port: int(c.addr.Port())}
	}
}

func (c *sipClient) do(req *sip.Request, opts ...sipgo.ClientRequestOption) (*sip.Response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return c.client.Do(ctx, req, opts...)
}

// call dials a channel and acknowledges; a refusal is returned as its status.
func (c *sipClient) call(t testing.TB, ch cti.Channel, body []byte) (*testDialog, int) {
	t.Helper()
	d, err := c.dial(ch, body)
	if err != nil {
		t.Fatalf("INVITE %s: %v", ch.ID, err)
	}
	return d, d.answer.StatusCode
}

// dial is call from any goroutine.
func (c *sipClient) dial(ch cti.Channel, body []byte) (*testDialog, error) {
	req := c.inviteRequest(ch, body)
	res, err := c.do(req)
	if err != nil {
		return nil, err
	}
	d := &testDialog{c: c, invite: req, answer: res, cseq: req.CSeq().SeqNo}
	if res.StatusCode == 200 {
		err = d.ack()
	}
	return d, err
}

// within is a request of the dialog.
func (d *testDialog) within(method sip.RequestMethod) *sip.Request {
	target := d.answer.Contact().Address
	req := sip.NewRequest(method, target)
	req.SetTransport(d.c.network)
	d.c.from(req)
	from, to, callID := *d.invite.From(), *d.answer.To(), *d.invite.CallID()
	forwards := sip.MaxForwardsHeader(70)
	req.AppendHeader(&from)
	req.AppendHeader(&to)
	req.AppendHeader(&callID)
	req.AppendHeader(&forwards)
	if method != sip.ACK {
		d.cseq++
	}
	req.AppendHeader(&sip.CSeqHeader{SeqNo: d.cseq, MethodName: method})
	req.AppendHeader(&sip.ContactHeader{Address: sip.Uri{Scheme: "sip", User: "director", Host: d.c.addr.Addr().String(), Port: int(d.c.addr.Port())}})
	req.SetBody(nil)
	return req
}

func (d *testDialog) ack() error {
	return d.c.client.WriteRequest(d.within(sip.ACK), sipgo.ClientRequestAddVia)
}

func (d *testDialog) bye(t testing.TB) int {
	t.Helper()
	res, err := d.c.do(d.within(sip.BYE), sipgo.ClientRequestAddVia)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode
}

// reinvite offers another address and returns the status.
func (d *testDialog) reinvite(t testing.TB, body []byte) int {
	t.Helper()
	req := d.within(sip.INVITE)
	req.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
	req.SetBody(body)
	res, err := d.c.do(req, sipgo.ClientRequestAddVia)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode == 200 {
		d.answer = res
		if err := d.ack(); err != nil {
			t.Fatal(err)
		}
	}
	return res.StatusCode
}

// ear receives the RTP of one channel.
type ear struct {
	conn *net.UDPConn
	done chan struct{}

	mu      sync.Mutex
	packets []heard
	reports []rtcp.Packet
	bad     int // datagrams that are neither RTP nor RTCP
}

type heard struct {
	rtp.Packet
	at   time.Time
	from netip.AddrPort
}

func newEar(t testing.TB) *ear {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	e := &ear{conn: conn, done: make(chan struct{})}
	conn.SetReadBuffer(1 << 20)
	go e.listen()
	t.Cleanup(e.close)
	return e
}

func (e *ear) close() {
	e.conn.Close()
	<-e.done
}

func (e *ear) addr() netip.AddrPort { return addrOf(e.conn) }

func (e *ear) listen() {
	defer close(e.done)
	buf := make([]byte, 2048)
	for {
		n, from, err := e.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		e.take(append([]byte(nil), buf[:n]...), from)
	}
}

func (e *ear) take(data []byte, from netip.AddrPort) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(data) > 1 && data[1] >= 192 && data[1] <= 223 { // RFC 5761 4
		if reports, err := rtcp.Unmarshal(data); err == nil {
			e.reports = append(e.reports, reports...)
			return
		}
	}
	var p rtp.Packet
	if err := p.Unmarshal(data); err != nil || p.Version != 2 {
		e.bad++
		return
	}
	e.packets = append(e.packets, heard{p, time.Now(), from})
}

func (e *ear) all() []heard {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]heard(nil), e.packets...)
}

func (e *ear) count() int { return len(e.all()) }

// wait polls until n packets have come.
func (e *ear) wait(t testing.TB, n int) []heard {
	t.Helper()
	eventually(t, fmt.Sprintf("%d packets", n), func() bool { return len(e.all()) >= n })
	return e.all()
}

var errNotYet = errors.New("not yet")

// settles waits until a count has not changed for a tenth of a second.
func settles(t testing.TB, what string, count func() int) int {
	t.Helper()
	n, since := count(), time.Now()
	eventually(t, what+" to settle", func() bool {
		if m := count(); m != n {
			n, since = m, time.Now()
		}
		return time.Since(since) > 100*time.Millisecond
	})
	return n
}

// eventually polls until it is so, or patience is at an end.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, errNotYet)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
