package unigy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tandem/director/provider"
	"tandem/internal/bubble"
	"tandem/internal/call"
	"tandem/internal/cti"
)

// script is the switch's side of one CTI connection in a test.
type script struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

// send writes lines as they are.
func (s *script) send(lines ...string) {
	s.conn.SetWriteDeadline(time.Now().Add(patience))
	for _, line := range lines {
		if _, err := s.conn.Write([]byte(line + "\n")); err != nil {
			return // the director has had enough, which is what some tests are about
		}
	}
}

// read returns the next line that is no heartbeat.
func (s *script) read() string {
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			s.t.Errorf("the director is gone: %v", err)
			return ""
		}
		if !strings.Contains(line, `"hb"`) {
			return strings.TrimSpace(line)
		}
	}
}

// login greets a director as a switch with a heartbeat of 100 ms does, and
// lets it subscribe.
func (s *script) login(server string) {
	if line := s.read(); line != `{"type":"login","v":1,"user":"tandem","password":"secret","client":"dir-a"}` {
		s.t.Errorf("login %s", line)
	}
	s.send(fmt.Sprintf(`{"type":"login.ok","server":%q,"heartbeat_ms":100}`, server))
	if line := s.read(); line != `{"type":"subscribe","copy":"A"}` {
		s.t.Errorf("subscribe %s", line)
	}
}

const emptySnapshot = `{"type":"snapshot.begin","seq":1}` + "\n" + `{"type":"snapshot.end","seq":2}`

// silent reads what comes until the connection ends.
func (s *script) silent() {
	for {
		if _, err := s.in.ReadString('\n'); err != nil {
			return
		}
	}
}

// follow runs a link against scripts, one for each connection, inside a
// synctest bubble; when the last one is over the link is stopped. It returns what was emitted.
func follow(t *testing.T, cfg Config, scripts ...func(*script)) []provider.Event {
	ctx, cancel := context.WithCancel(t.Context())
	var events []provider.Event
	l := newLink(cfg, func(e provider.Event) { events = append(events, e) })
	n := 0
	done := make(chan struct{}, len(scripts))
	l.dial = func(context.Context, string) (net.Conn, error) {
		if n == len(scripts) {
			cancel()
			return nil, errors.New("no more scripts")
		}
		ours, theirs := net.Pipe()
		s := &script{t: t, conn: theirs, in: bufio.NewReader(theirs)}
		play := scripts[n]
		go func() {
			play(s)
			theirs.Close()
			done <- struct{}{}
		}()
		n++
		return ours, nil
	}
	l.run(ctx)
	for range n {
		<-done
	}
	return events
}

func linkConfig() Config {
	cfg := testConfig()
	cfg.Servers, cfg.Password = []string{"switch:6500"}, "secret"
	return cfg
}

// kinds lists the types of events, with the ends of attempts that never came up left out.
func kinds(events []provider.Event) []string {
	var names []string
	for _, e := range events {
		if down, ok := e.(provider.LinkDown); ok && down.Heard.IsZero() {
			continue
		}
		names = append(names, strings.TrimPrefix(reflect.TypeOf(e).String(), "provider."))
	}
	return names
}

func TestLinkTellsTheFloor(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		at := time.Date(2026, 3, 2, 9, 0, 0, 250_000_000, time.UTC)
		stamp := `"t":"2026-03-02T09:00:00.250Z"`
		events := follow(t, linkConfig(), func(s *script) {
			s.login("switch-1")
			s.send(`{"type":"snapshot.begin","seq":1}`,
				`{"type":"agent.logged_on","seq":2,`+stamp+`,"session":{"id":"s1","user":"u1","user_name":"Ann","device":"t1","profile":"p"}}`,
				`{"type":"channel.available","seq":3,"channel":{"id":"s1.m1.A","session":"s1","mix":"m1","copy":"A","uri":"sip:s1.m1.A@h:1","codecs":["PCMU/8000"],"sources":["HS.L"]}}`,
				`{"type":"channel.available","seq":4,"channel":{"id":"s1.m1.B","session":"s1","mix":"m1","copy":"B","uri":"sip:s1.m1.B@h:1","sources":["HS.L"]}}`,
				`{"type":"snapshot.end","seq":5}`, `{"type":"hb"}`,
				`{"type":"call.offered","seq":6,`+stamp+`,"call":{"id":"c1","line":"L1","direction":"in","party":"100","party_name":"Bob","kind":"dial"}}`,
				`{"type":"call.retrieved","seq":7,`+stamp+`,"call":{"id":"c1"}}`,
				`{"type":"leg.joined","seq":8,`+stamp+`,"leg":{"id":"l1","call":"c1","session":"s1","user":"u1","device":"t1","source":"HS.L"},"channels":["s1.m1.A"],"colour":"red"}`,
				`{"type":"talk.on","seq":9,"leg":{"id":"l1"}}`, `{"type":"weather.changed","seq":10}`,
				`{"type":"leg.moved","seq":11,`+stamp+`,"leg":{"id":"l1","call":"c1","session":"s1","source":"SPK.1"},"channels":["s1.m2.A"]}`,
				`{"type":"leg.left","seq":12,`+stamp+`,"leg":{"id":"l1"}}`,
				`{"type":"call.released","seq":13,`+stamp+`,"call":{"id":"c1"},"cause":"busy"}`,
				`{"type":"leg.joined","seq":14}`, `{"type":"call.held","seq":15,"call":{}}`,
				`{"type":"channel.unavailable","seq":16,"channel":{"id":"s1.m1.A"},"cause":"logoff"}`,
				`{"type":"agent.logged_off","seq":17,`+stamp+`,"session":{"id":"s1"},"cause":"user"}`)
		})
		want := []provider.Event{
			provider.LinkUp{Peer: "switch:6500", Incarnation: "switch-1"}, provider.SnapshotBegin{},
			provider.LoggedOn{Session: provider.Session{ID: "s1", User: "u1", UserName: "Ann", Device: "t1", Profile: "p"}, At: at},
			provider.ChannelAvailable{Channel: provider.Channel{ID: "s1.m1.A", Session: "s1", Mix: "m1", Copy: call.CopyA, Address: "sip:s1.m1.A@h:1", Sources: []string{"HS.L"}}},
			provider.SnapshotEnd{},
			provider.CallChanged{Call: provider.Call{ID: "c1", Line: "L1", Direction: "in", Party: "100", PartyName: "Bob", Kind: "dial"}, State: "offered", At: at},
			provider.CallChanged{Call: provider.Call{ID: "c1"}, State: "established", At: at},
			provider.LegJoined{Leg: provider.Leg{ID: "l1", Call: "c1", Session: "s1", User: "u1", Device: "t1", Source: "HS.L"}, Channels: []call.ChannelID{"s1.m1.A"}, At: at},
			provider.LegMoved{Leg: provider.Leg{ID: "l1", Call: "c1", Session: "s1", Source: "SPK.1"}, Channels: []call.ChannelID{"s1.m2.A"}, At: at},
			provider.LegLeft{Leg: "l1", At: at},
			provider.CallChanged{Call: provider.Call{ID: "c1"}, State: "released", Cause: "busy", At: at},
			provider.ChannelUnavailable{Channel: "s1.m1.A", Cause: "logoff"},
			provider.LoggedOff{Session: "s1", Cause: "user", At: at},
		}
		for i, e := range want {
			if i >= len(events) || !reflect.DeepEqual(events[i], e) {
				t.Fatalf("event %d: got %+v, want %+v", i, events[i:min(i+1, len(events))], e)
			}
		}
		if down, ok := events[len(want)].(provider.LinkDown); !ok || down.Heard.IsZero() {
			t.Fatalf("after the last event: %+v", events[len(want):])
		}
	})
}

// counted reads a counter.
func counted(t *testing.T, c prometheus.Counter) float64 {
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("gathered %v, %v", families, err)
	}
	return families[0].GetMetric()[0].GetCounter().GetValue()
}

// What makes a link start over, and what does not.
func TestLinkFaults(t *testing.T) {
	long := `{"type":"hb","x":"` + strings.Repeat("a", cti.MaxLine) + `"}`
	for name, c := range map[string]struct {
		lines []string
		goes  bool    // the link goes on to the closing event
		bad   float64 // lines counted
	}{
		"nothing":           {nil, true, 0},
		"garbage":           {[]string{"garbage", "[1]", "{}", `{"type":7}`}, true, 4},
		"unknown type":      {[]string{`{"type":"lunch","seq":3}`}, false, 0}, // it counts, so what follows repeats its number
		"repeated":          {[]string{`{"type":"snapshot.end","seq":2}`}, true, 0},
		"lost":              {[]string{`{"type":"call.held","seq":4,"call":{"id":"c1"}}`}, false, 0},
		"uncounted":         {[]string{`{"type":"call.held","call":{"id":"c1"}}`}, true, 0},
		"too long":          {[]string{long}, false, 0},
		"restarted":         {[]string{`{"type":"login.ok","server":"switch-2","heartbeat_ms":100}`}, false, 0},
		"greeted again":     {[]string{`{"type":"login.ok","server":"switch-1","heartbeat_ms":100}`}, true, 0},
		"stray snapshot":    {[]string{`{"type":"snapshot.end","seq":3}`}, false, 0},
		"without a session": {[]string{`{"type":"agent.logged_on"}`}, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				cfg := linkConfig()
				events := follow(t, cfg, func(s *script) {
					s.login("switch-1")
					s.send(emptySnapshot)
					s.send(c.lines...)
					s.send(`{"type":"leg.left","seq":3,"leg":{"id":"l1"}}`)
				}, func(s *script) {
					s.login("switch-1")
					s.send(emptySnapshot)
				})
				got := strings.Join(kinds(events), " ")
				want := "LinkUp SnapshotBegin SnapshotEnd LinkDown LinkUp SnapshotBegin SnapshotEnd LinkDown"
				if c.goes {
					want = strings.Replace(want, "SnapshotEnd", "SnapshotEnd LegLeft", 1)
				}
				if got != want {
					t.Errorf("got  %s\nwant %s", got, want)
				}
				if n := counted(t, cfg.Metrics.badLines); n != c.bad {
					t.Errorf("%v bad lines counted, want %v", n, c.bad)
				}
			})
		})
	}
}

func TestLinkDiesOfSilence(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var heard time.Time
		events := follow(t, linkConfig(), func(s *script) {
			s.login("switch-1")
			s.send(emptySnapshot)
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				s.silent()
			}()
			for range 20 { // heartbeats keep it alive well beyond three of them
				time.Sleep(100 * time.Millisecond)
				s.send(`{"type":"hb"}`)
			}
			heard = time.Now()
			<-gone
			if waited := time.Since(heard); waited != 300*time.Millisecond {
				t.Errorf("given up after %v, want three heartbeats", waited)
			}
		})
		for _, e := range events {
			if down, ok := e.(provider.LinkDown); ok && !down.Heard.IsZero() && !down.Heard.Equal(heard) {
				t.Errorf("last heard %v, want %v", down.Heard, heard)
			}
		}
	})
}

func TestLinkSendsHeartbeats(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		follow(t, linkConfig(), func(s *script) {
			s.login("switch-1")
			s.send(emptySnapshot)
			began := time.Now()
			var beating sync.WaitGroup
			defer beating.Wait()
			beating.Go(func() {
				for range 9 {
					time.Sleep(100 * time.Millisecond)
					s.send(`{"type":"hb"}`)
				}
			})
			for i := range 9 {
				line, err := s.in.ReadString('\n')
				if err != nil || strings.TrimSpace(line) != `{"type":"hb"}` {
					t.Errorf("got %q, %v", line, err)
				}
				if want := time.Duration(i+1) * 100 * time.Millisecond; time.Since(began) != want {
					t.Errorf("heartbeat %d after %v, want %v", i, time.Since(began), want)
				}
			}
		})
	})
}

func TestSnapshotThatNeverEnds(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		began := time.Now()
		events := follow(t, linkConfig(), func(s *script) {
			s.login("switch-1")
			s.send(`{"type":"snapshot.begin","seq":1}`)
			go s.silent()
			for time.Since(began) < time.Minute {
				time.Sleep(100 * time.Millisecond)
				s.send(`{"type":"hb"}`)
			}
		}, func(s *script) {
			if waited := time.Since(began); waited < snapshotWait || waited > snapshotWait+time.Second {
				t.Errorf("asked again after %v", waited)
			}
			s.login("switch-1")
			s.send(emptySnapshot)
		})
		if got := strings.Join(kinds(events), " "); got != "LinkUp SnapshotBegin LinkDown LinkUp SnapshotBegin SnapshotEnd LinkDown" {
			t.Errorf("got %s", got)
		}
	})
}

func TestLoginRefused(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var times []time.Duration
		began := time.Now()
		refuse := func(s *script) {
			times = append(times, time.Since(began))
			s.read()
			s.send(`{"type":"login.error","reason":"standby"}`)
			s.silent()
		}
		scripts := make([]func(*script), 9)
		for i := range scripts {
			scripts[i] = refuse
		}
		events := follow(t, linkConfig(), scripts...)
		for _, e := range events {
			if down, ok := e.(provider.LinkDown); !ok || !down.Heard.IsZero() {
				t.Fatalf("emitted %+v", e)
			}
		}
		if times[1]-times[0] > 10*time.Millisecond {
			t.Errorf("second attempt after %v, want at once", times[1]-times[0])
		}
		for i := 2; i < len(times); i++ {
			if pause := times[i] - times[i-1]; pause < 200*time.Millisecond || pause > 5*time.Second {
				t.Errorf("pause %d was %v, want 0.2 to 5 s", i, pause)
			}
		}
		if last := times[8] - times[7]; last < 2500*time.Millisecond {
			t.Errorf("pauses do not grow: the eighth was %v", last)
		}
	})
}

func TestServersInTurn(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		cfg := linkConfig()
		cfg.Servers = []string{"a:1", "b:1", "c:1"}
		ctx, cancel := context.WithCancel(t.Context())
		var asked []string
		l := newLink(cfg, func(provider.Event) {})
		l.dial = func(_ context.Context, server string) (net.Conn, error) {
			if asked = append(asked, server); len(asked) == 4 {
				cancel()
			}
			return nil, errors.New("refused")
		}
		l.run(ctx)
		if got := strings.Join(asked, " "); got != "a:1 b:1 c:1 a:1" {
			t.Errorf("asked %s", got)
		}
	})
}

func TestBackoff(t *testing.T) {
	if backoff(0, 1) != 0 {
		t.Error("not at once after the first failure")
	}
	for n := 1; n < 100; n++ {
		pause := backoff(n, rand.Float64())
		if pause < firstBackoff || pause > lastBackoff {
			t.Fatalf("pause %d is %v", n, pause)
		}
	}
}

// The same on a real socket: the kernel's word for a peer that is gone.
func TestLinkOverTCP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cfg := linkConfig()
	cfg.Servers = []string{ln.Addr().String()}
	events := make(chan provider.Event, 100)
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		newLink(cfg, func(e provider.Event) { events <- e }).run(ctx)
	}()
	for range 2 {
		conn, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		s := &script{t: t, conn: conn, in: bufio.NewReader(conn)}
		s.login("switch-1")
		s.send(emptySnapshot)
		for _, want := range []string{"LinkUp", "SnapshotBegin", "SnapshotEnd"} {
			select {
			case e := <-events:
				if got := kinds([]provider.Event{e}); len(got) != 1 || got[0] != want {
					t.Fatalf("got %v, want %s", got, want)
				}
			case <-time.After(patience):
				t.Fatalf("no %s", want)
			}
		}
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
		if down, ok := (<-events).(provider.LinkDown); !ok || down.Heard.IsZero() {
			t.Fatalf("got %+v, want the loss", down)
		}
	}
	cancel()
	select {
	case <-stopped:
	case <-time.After(patience):
		t.Fatal("the link does not stop")
	}
}
