package turretsim

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"tandem/internal/config"
	"tandem/internal/cti"
)

func TestLoginRefusals(t *testing.T) {
	cfg := testConfig(t)
	cfg.CTI.PasswordFile = t.TempDir() + "/password"
	writeFile(t, cfg.CTI.PasswordFile, "secret\n")
	cfg.CTI.Logins = 1
	s, _ := startSwitch(t, cfg)
	good := cti.Message{Type: cti.TypeLogin, V: cti.Version, User: "recorder", Password: "secret"}
	answer := func(m cti.Message) cti.Message {
		c := dialCTI(t, s)
		c.say(t, m)
		return c.read(t)
	}
	other := func(change func(*cti.Message)) cti.Message { m := good; change(&m); return m }
	for _, c := range []struct {
		name   string
		faults CTIFaults
		login  cti.Message
		reason string
	}{
		{"password", CTIFaults{}, other(func(m *cti.Message) { m.Password = "wrong" }), "credentials"},
		{"user", CTIFaults{}, other(func(m *cti.Message) { m.User = "nobody" }), "credentials"},
		{"version", CTIFaults{}, other(func(m *cti.Message) { m.V = 9 }), "credentials"},
		{"no login at all", CTIFaults{}, cti.Message{Type: cti.TypeSubscribe, Copy: "A"}, "credentials"},
		{"standby", CTIFaults{RefuseLogin: "standby"}, good, "standby"},
		{"fine", CTIFaults{}, good, ""},
		{"one too many", CTIFaults{}, good, "limit"},
	} {
		if err := s.SetFaults(Faults{CTI: c.faults}); err != nil {
			t.Fatal(err)
		}
		m := answer(c.login)
		if (m.Type == cti.TypeLoginOK) != (c.reason == "") || m.Reason != c.reason {
			t.Errorf("%s: %+v", c.name, m)
		}
		if c.reason == "" && (m.Server == "" || m.HeartbeatMS != 200) {
			t.Errorf("%s: %+v", c.name, m)
		}
	}
}

// The switch shows that it is alive, and drops a director that does not.
func TestHeartbeats(t *testing.T) {
	cfg := testConfig(t)
	cfg.CTI.Heartbeat = config.Duration(30 * time.Millisecond)
	s, _ := startSwitch(t, cfg)
	c := dialCTI(t, s)
	c.say(t, cti.Message{Type: cti.TypeLogin, V: cti.Version, User: "recorder"})
	c.read(t)
	beats := 0
	for {
		m, err := c.in.Read()
		if err != nil {
			break
		}
		if m.Type == cti.TypeHeartbeat && m.Seq == 0 {
			beats++
		}
	}
	if beats < 2 || beats > 5 {
		t.Errorf("%d heartbeats until the silent link was dropped, want about three", beats)
	}
}

// A link that has said nothing wrong stays, whatever nonsense it sends.
func TestNonsenseFromADirectorIsIgnored(t *testing.T) {
	s, _ := startSwitch(t, testConfig(t))
	c := login(t, s, "A")
	c.until(t, cti.TypeSnapshotEnd)
	io.WriteString(c.conn, "nonsense\n{\"type\":\"dance\"}\n\n")
	if err := s.Inject("cti_unknown_type", Shot{}); err != nil {
		t.Fatal(err)
	}
	if m := c.read(t); m.Type != "turret.polished" {
		t.Errorf("%+v", m)
	}
}

// numbers reads n live events made by logging turrets on and off.
func numbers(t *testing.T, s *Switch, c *ctiClient, n int) (seqs []uint64) {
	t.Helper()
	for i := 0; len(seqs) < n; i++ {
		name := []string{"log_off", "log_on"}[i/2%2]
		if err := s.Inject(name, Shot{Device: fmt.Sprintf("T%04d", i%2+1)}); err != nil {
			t.Fatal(err)
		}
		if i < 2*n {
			continue
		}
		for len(seqs) < n {
			seqs = append(seqs, c.read(t).Seq)
		}
	}
	return seqs
}

func TestEventsLostDoubledAndReordered(t *testing.T) {
	gaps := func(seqs []uint64) (n int) {
		sorted := slices.Compact(slices.Sorted(slices.Values(seqs)))
		for i := 1; i < len(sorted); i++ {
			n += int(sorted[i] - sorted[i-1] - 1)
		}
		return n
	}
	doubles := func(seqs []uint64) int { return len(seqs) - len(slices.Compact(slices.Sorted(slices.Values(seqs)))) }
	for _, c := range []struct {
		name   string
		faults CTIFaults
		ok     func(seqs []uint64) bool
	}{
		{"healthy", CTIFaults{}, func(q []uint64) bool { return gaps(q) == 0 && doubles(q) == 0 && slices.IsSorted(q) }},
		{"lose", CTIFaults{Lose: 0.2}, func(q []uint64) bool { return gaps(q) > 0 && doubles(q) == 0 && slices.IsSorted(q) }},
		{"duplicate", CTIFaults{Duplicate: 0.2}, func(q []uint64) bool { return gaps(q) == 0 && doubles(q) > 0 && slices.IsSorted(q) }},
		{"reorder", CTIFaults{Reorder: 0.2}, func(q []uint64) bool { return gaps(q[:len(q)-1]) <= 1 && doubles(q) == 0 && !slices.IsSorted(q) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := startSwitch(t, testConfig(t))
			link := login(t, s, "A")
			link.until(t, cti.TypeSnapshotEnd)
			if err := s.SetFaults(Faults{CTI: c.faults}); err != nil {
				t.Fatal(err)
			}
			if seqs := numbers(t, s, link, 60); !c.ok(seqs) {
				t.Errorf("numbers %v", seqs)
			}
		})
	}
}

func TestBadLines(t *testing.T) {
	s, _ := startSwitch(t, testConfig(t))
	c := login(t, s, "A")
	end := c.until(t, cti.TypeSnapshotEnd)
	seq := end[len(end)-1].Seq
	for _, name := range []string{"cti_garbage", "cti_unknown_type", "cti_unknown_channel", "cti_long_line"} {
		if err := s.Inject(name, Shot{}); err != nil {
			t.Fatal(err)
		}
	}
	var syntax *cti.SyntaxError
	if _, err := c.next(); !errors.As(err, &syntax) {
		t.Errorf("got %v, want a line that is no message", err)
	}
	for _, want := range []string{"turret.polished", cti.TypeChannelUnavailable, cti.TypeLegJoined, cti.TypeLegMoved, cti.TypeLegLeft, cti.TypeCallReleased, cti.TypeAgentLoggedOff} {
		seq++
		if m := c.read(t); m.Type != want || m.Seq != seq {
			t.Errorf("got %+v, want %s with number %d", m, want, seq)
		}
	}
	if _, err := c.next(); !errors.Is(err, cti.ErrTooLong) {
		t.Errorf("got %v, want a line too long", err)
	}
}

func TestDropStallAndRestart(t *testing.T) {
	s, _ := startSwitch(t, testConfig(t))
	inject := func(name string, shot Shot) {
		t.Helper()
		if err := s.Inject(name, shot); err != nil {
			t.Fatal(err)
		}
	}
	ended := func(c *ctiClient) {
		t.Helper()
		for {
			if _, err := c.next(); err != nil {
				return
			}
		}
	}
	one := login(t, s, "A")
	one.until(t, cti.TypeSnapshotEnd)
	inject("cti_drop", Shot{})
	ended(one)

	two := login(t, s, "A")
	two.until(t, cti.TypeSnapshotEnd)
	if two.server != one.server {
		t.Errorf("server %q after a dropped link, was %q", two.server, one.server)
	}
	inject("cti_stall", Shot{Duration: config.Duration(700 * time.Millisecond)})
	began := time.Now()
	inject("cti_unknown_type", Shot{})
	if two.read(t); time.Since(began) < 600*time.Millisecond {
		t.Errorf("a stalled link spoke after %v", time.Since(began))
	}

	director, e := newSIPClient(t, "udp"), newEar(t)
	inject("restart_cti", Shot{})
	ended(two)
	three := login(t, s, "A")
	channels := three.channels(t, 4)
	if three.server == two.server {
		t.Error("the same server id after a restart")
	}
	d, _ := director.call(t, channels[0], offerOf(e.addr(), muxLine))
	e.wait(t, 3)
	inject("restart", Shot{})
	ended(three)
	settles(t, "media of a switch that restarted", e.count)
	if status := d.reinvite(t, offerOf(e.addr(), muxLine)); status != 481 {
		t.Errorf("a dialog that was forgotten answered %d", status)
	}
	if again := login(t, s, "A").channels(t, 4); again[0].ID == channels[0].ID {
		t.Errorf("channel %s came back", again[0].ID)
	}
}

// A director that does not read is cut off once the queue is full, and the
// floor does not wait for it.
func TestSlowConsumerIsCutOff(t *testing.T) {
	cfg := testConfig(t)
	cfg.CTI.Queue = 3 << 20
	cfg.CTI.Heartbeat = config.Duration(5 * time.Second)
	s, _ := startSwitch(t, cfg)
	c := login(t, s, "A")
	c.until(t, cti.TypeSnapshotEnd)
	eventually(t, "the slow link to be cut", func() bool {
		if err := s.Inject("cti_long_line", Shot{}); err != nil { // a megabyte each
			t.Fatal(err)
		}
		return s.State().Links == 0
	})
}
