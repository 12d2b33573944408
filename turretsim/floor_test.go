package turretsim

import (
	"bytes"
	"container/heap"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/internal/call"
	"tandem/internal/cti"
	"tandem/turretsim/truth"
)

// stillFloor is a floor whose time passes only when the test says so.
func stillFloor(t testing.TB, change func(*Config)) *Switch {
	t.Helper()
	cfg := testConfig(t)
	cfg.Floor.Turrets, cfg.Floor.Mixes, cfg.Floor.CallsPerMinute = 8, 4, 20
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// pass lets the floor live to that instant.
func (f *floor) pass(to time.Duration) {
	if len(f.agenda) == 0 && f.now == 0 {
		f.open()
	}
	for len(f.agenda) > 0 && f.agenda[0].at <= to {
		next := heap.Pop(&f.agenda).(action)
		f.now = next.at
		next.do()
	}
	f.now = to
}

// listen subscribes a link that nobody writes to the network.
func (f *floor) listen(copy call.Copy) *link {
	l := &link{max: 1 << 30, copy: copy, wake: make(chan struct{}, 1), rng: rand.New(rand.NewPCG(1, 2))}
	f.links[l] = struct{}{}
	f.sendSnapshot(l)
	return l
}

// lines takes what a link has queued.
func (l *link) lines(t testing.TB) (messages []cti.Message) {
	t.Helper()
	in := cti.NewReader(bytes.NewReader(l.queue))
	l.queue = nil
	for {
		m, err := in.Read()
		if err != nil {
			return messages
		}
		messages = append(messages, m)
	}
}

// Eight minutes of the floor obey the order that directors rely on.
func TestEventsComeInOrder(t *testing.T) {
	s := stillFloor(t, func(c *Config) { c.Floor.LogonTime.UnmarshalText([]byte("1m")); c.Floor.Copies = []string{"A", "B"} })
	l := s.floor.listen(call.CopyA)
	s.floor.pass(8 * time.Minute)
	sessions, channels, calls, legs := map[string]bool{}, map[string]string{}, map[string]string{}, map[string]cti.Leg{}
	counts := map[string]int{}
	last, seq := time.Time{}, uint64(0)
	for _, m := range l.lines(t) {
		counts[m.Type]++
		if seq++; m.Seq != seq {
			t.Fatalf("%+v has number %d, want %d", m, m.Seq, seq)
		}
		if m.T.Before(last) {
			t.Fatalf("%+v is older than the one before", m)
		}
		last = m.T
		switch m.Type {
		case cti.TypeAgentLoggedOn:
			sessions[m.Session.ID] = true
		case cti.TypeAgentLoggedOff:
			for _, owner := range channels {
				if owner == m.Session.ID {
					t.Fatalf("%s logged off with channels", owner)
				}
			}
			delete(sessions, m.Session.ID)
		case cti.TypeChannelAvailable:
			if !sessions[m.Channel.Session] || m.Channel.Copy != "A" || len(m.Channel.Sources) == 0 || m.Channel.ID != m.Channel.Session+"."+m.Channel.Mix+".A" {
				t.Fatalf("%+v", m.Channel)
			}
			channels[m.Channel.ID] = m.Channel.Session
		case cti.TypeChannelUnavailable:
			delete(channels, m.Channel.ID)
		case cti.TypeCallOffered, cti.TypeCallEstablished, cti.TypeCallHeld, cti.TypeCallRetrieved, cti.TypeCallReleased:
			if !callMay(calls[m.Call.ID], m.Type) {
				t.Fatalf("%s after %q: %+v", m.Type, calls[m.Call.ID], m.Call)
			}
			calls[m.Call.ID] = m.Type
			if m.Type == cti.TypeCallReleased && m.Cause == "" || m.Call.Kind == "" || m.Call.Line == "" || m.Call.PartyName == "" {
				t.Fatalf("%+v %q", m.Call, m.Cause)
			}
		case cti.TypeLegJoined, cti.TypeLegMoved:
			if state := calls[m.Leg.Call]; state == "" || state == cti.TypeCallReleased || !sessions[m.Leg.Session] || len(m.Channels) != 1 || channels[m.Channels[0]] != m.Leg.Session {
				t.Fatalf("%+v on %q in call %q", m.Leg, m.Channels, state)
			}
			legs[m.Leg.ID] = *m.Leg
		case cti.TypeLegLeft:
			if legs[m.Leg.ID].Source != m.Leg.Source {
				t.Fatalf("%+v left another source than it was on", m.Leg)
			}
			delete(legs, m.Leg.ID)
		}
		if m.Type == cti.TypeCallReleased {
			for _, leg := range legs {
				if leg.Call == m.Call.ID {
					t.Fatalf("call %s released with leg %s", leg.Call, leg.ID)
				}
			}
		}
	}
	for _, kind := range []string{cti.TypeAgentLoggedOff, cti.TypeCallHeld, cti.TypeCallRetrieved, cti.TypeLegMoved, cti.TypeCallReleased} {
		if counts[kind] < 10 {
			t.Errorf("%s came %d times in 8 minutes", kind, counts[kind])
		}
	}
	if offered := counts[cti.TypeCallOffered]; offered < 500 || offered > 1500 {
		t.Errorf("%d calls in 8 minutes, want under 8 turrets x 20 a minute", offered)
	}
}

func callMay(from, event string) bool {
	return slices.Contains(map[string][]string{
		"":                      {cti.TypeCallOffered},
		cti.TypeCallOffered:     {cti.TypeCallEstablished, cti.TypeCallReleased},
		cti.TypeCallEstablished: {cti.TypeCallHeld, cti.TypeCallReleased},
		cti.TypeCallHeld:        {cti.TypeCallRetrieved, cti.TypeCallReleased},
		cti.TypeCallRetrieved:   {cti.TypeCallReleased},
	}[from], event)
}

// Two subscribers see the same floor, each with its own copy's channels.
func TestTwoSubscribers(t *testing.T) {
	s := stillFloor(t, func(c *Config) { c.Floor.Copies = []string{"A", "B"} })
	a, b := s.floor.listen(call.CopyA), s.floor.listen(call.CopyB)
	s.floor.pass(2 * time.Minute)
	left, right := a.lines(t), b.lines(t)
	if len(left) != len(right) || len(left) < 300 {
		t.Fatalf("%d and %d events", len(left), len(right))
	}
	for i := range left {
		text, err := json.Marshal(right[i])
		if err != nil {
			t.Fatal(err)
		}
		same := strings.NewReplacer(`.B"`, `.A"`, `.B@`, `.A@`, `"copy":"B"`, `"copy":"A"`).Replace(string(text))
		if want, _ := json.Marshal(left[i]); string(want) != same {
			t.Fatalf("event %d: %s and %s", i, want, text)
		}
	}
}

// The same seed is the same floor; another seed is another.
func TestEqualSeedsGiveEqualFloors(t *testing.T) {
	story := func(seed uint64) string {
		s := stillFloor(sequential{t}, func(c *Config) { c.Seed = seed; c.Floor.LogonTime.UnmarshalText([]byte("2m")) })
		l := s.floor.listen(call.CopyA)
		s.floor.pass(4 * time.Minute)
		var b strings.Builder
		for _, m := range l.lines(t) {
			if m.Channel != nil {
				m.Channel.URI = "" // the port is the machine's
			}
			at := m.T.Sub(s.clock.origin).Round(time.Millisecond)
			m.T = time.Time{}
			text, _ := json.Marshal(m)
			b.WriteString(at.String() + string(text) + "\n")
		}
		return b.String()
	}
	one := story(7)
	if one != story(7) {
		t.Error("seed 7 gave two floors")
	}
	if one == story(8) {
		t.Error("seeds 7 and 8 gave one floor")
	}
}

// sequential hides from testConfig that it may run a test beside others,
// which a test that makes several switches can be told only once.
type sequential struct{ testing.TB }

// A snapshot at any moment tells a director what it would know had it listened.
func TestSnapshotEqualsHistory(t *testing.T) {
	s := stillFloor(t, func(c *Config) { c.Floor.LogonTime.UnmarshalText([]byte("2m")) })
	listener := s.floor.listen(call.CopyA)
	known := newPicture()
	for minute := range 12 {
		s.floor.pass(time.Duration(minute) * 20 * time.Second)
		known.apply(listener.lines(t))
		fresh := newPicture()
		messages := s.floor.listen(call.CopyA).lines(t)
		if messages[0].Type != cti.TypeSnapshotBegin || messages[len(messages)-1].Type != cti.TypeSnapshotEnd {
			t.Fatalf("snapshot from %s to %s", messages[0].Type, messages[len(messages)-1].Type)
		}
		fresh.apply(messages)
		clear(s.floor.links)
		s.floor.links[listener] = struct{}{}
		if got, want := fresh.String(), known.String(); got != want {
			t.Fatalf("after %d steps the snapshot says\n%s\nand history\n%s", minute, got, want)
		}
	}
}

// picture is what a director knows of the floor.
type picture struct {
	Sessions, Channels map[string]bool
	Calls              map[string]string
	Legs               map[string]cti.Message
}

func newPicture() *picture {
	return &picture{map[string]bool{}, map[string]bool{}, map[string]string{}, map[string]cti.Message{}}
}

func (p *picture) apply(messages []cti.Message) {
	for _, m := range messages {
		m.Seq = 0
		switch m.Type {
		case cti.TypeAgentLoggedOn:
			p.Sessions[m.Session.ID] = true
		case cti.TypeAgentLoggedOff:
			delete(p.Sessions, m.Session.ID)
		case cti.TypeChannelAvailable:
			p.Channels[m.Channel.ID] = true
		case cti.TypeChannelUnavailable:
			delete(p.Channels, m.Channel.ID)
		case cti.TypeCallReleased:
			delete(p.Calls, m.Call.ID)
		case cti.TypeCallRetrieved:
			p.Calls[m.Call.ID] = cti.TypeCallEstablished
		case cti.TypeCallOffered, cti.TypeCallEstablished, cti.TypeCallHeld:
			p.Calls[m.Call.ID] = m.Type
		case cti.TypeLegJoined, cti.TypeLegMoved:
			p.Legs[m.Leg.ID] = m
		case cti.TypeLegLeft:
			delete(p.Legs, m.Leg.ID)
		}
	}
}

func (p *picture) String() string {
	text, _ := json.MarshalIndent(p, "", " ")
	return string(text)
}

func TestSnapshotFaults(t *testing.T) {
	s := stillFloor(t, nil)
	s.floor.pass(time.Minute)
	count := func(kind string) (n, of int) {
		s.faults.Store(&Faults{CTI: CTIFaults{Snapshot: kind}})
		l := s.floor.listen(call.CopyA)
		for _, m := range l.lines(t) {
			if of++; m.Type == cti.TypeAgentLoggedOn {
				n++
			}
		}
		return n, of
	}
	sessions, whole := count("")
	s.floor.freeze()
	s.floor.logOff(s.floor.turrets[0], "forced")
	if n, _ := count(""); n != sessions-1 {
		t.Errorf("%d sessions after one logged off, want %d", n, sessions-1)
	}
	if n, of := count("stale"); n != sessions || of != whole {
		t.Errorf("a stale snapshot of %d sessions in %d lines, want %d in %d", n, of, sessions, whole)
	}
	if n, of := count("partial"); n == 0 || n >= sessions-1 || of >= whole {
		t.Errorf("a partial snapshot of %d sessions in %d lines", n, of)
	}
	if n, _ := count("cut"); n == 0 {
		t.Error("a snapshot cut off before it said anything")
	}
}

func TestStopCallsEndsEverything(t *testing.T) {
	s := stillFloor(t, nil)
	l := s.floor.listen(call.CopyA)
	s.floor.pass(time.Minute)
	if len(s.floor.calls) == 0 {
		t.Fatal("no calls after a minute")
	}
	s.floor.stopCalls()
	s.floor.pass(2 * time.Minute)
	p := newPicture()
	p.apply(l.lines(t))
	if len(s.floor.calls) != 0 || len(p.Calls) != 0 || len(p.Legs) != 0 {
		t.Errorf("%d calls; a director knows %v", len(s.floor.calls), p)
	}
	s.floor.quiet = false
	s.floor.pass(3 * time.Minute)
	if len(s.floor.calls) == 0 {
		t.Error("no calls after they may begin again")
	}
}

// A floor with a bound is full soon and never beyond it.
func TestCallsAreBounded(t *testing.T) {
	const most = 5
	s := stillFloor(t, func(c *Config) { c.Floor.CallsPerMinute, c.Floor.MaxCalls = 300, most })
	full := 0
	for at := time.Second; at <= 30*time.Second; at += 100 * time.Millisecond {
		s.floor.pass(at)
		switch n := len(s.floor.calls); {
		case n > most:
			t.Fatalf("%d calls after %v", n, at)
		case n == most:
			full++
		}
	}
	if full < 200 {
		t.Errorf("full at %d instants of 290", full)
	}
}

func TestRestartBeginsANewFloor(t *testing.T) {
	s := stillFloor(t, nil)
	s.floor.pass(time.Minute)
	server := s.floor.server
	s.floor.restart(s.cti)
	s.floor.pass(2 * time.Minute)
	if s.floor.server == server || s.cti.server != s.floor.server {
		t.Errorf("server %s after %s", s.floor.server, server)
	}
	p := newPicture()
	p.apply(s.floor.listen(call.CopyA).lines(t))
	if len(p.Sessions) != 8 || p.Sessions["T0001-1"] || !p.Sessions["T0001-2"] {
		t.Errorf("sessions %v", p.Sessions)
	}
}

// The truth log tells every leg from joined to left.
func TestTruthLogHasEveryLeg(t *testing.T) {
	s := stillFloor(t, nil)
	l := s.floor.listen(call.CopyA)
	s.floor.pass(2 * time.Minute)
	s.floor.stopCalls()
	joined := 0
	for _, m := range l.lines(t) {
		if m.Type == cti.TypeLegJoined {
			joined++
		}
	}
	s.truth.Flush()
	account, err := truth.Load(s.cfg.TruthLog)
	if err != nil {
		t.Fatal(err)
	}
	legs := account.Legs()
	if len(legs) != joined {
		t.Errorf("%d legs in the log, %d joined", len(legs), joined)
	}
	for _, leg := range legs {
		for _, part := range leg.Parts {
			if part.To <= part.From || len(part.Channels) != 1 {
				t.Fatalf("%+v", leg)
			}
		}
	}
}

// A floor that is behind its plan, however long, still does what it is asked.
func TestFloorBehindItsPlanAnswers(t *testing.T) {
	s, _ := startSwitch(t, testConfig(t))
	var again func()
	again = func() { s.floor.plan(0, again) }
	s.floor.do(again)
	answered := make(chan State, 1)
	go func() { answered <- s.State() }()
	select {
	case state := <-answered:
		if state.Sessions != 2 {
			t.Errorf("%+v", state)
		}
	case <-time.After(patience):
		t.Error("no answer while something is due")
	}
}
