package installtest

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Three hosts, from nothing to a recorded floor as the document says, then
// what hosts and administrators do to it, while people talk.
func TestThreeHosts(t *testing.T) {
	needs(t, "systemd-nspawn", "ip", "nsenter")
	if !own(t) {
		return
	}
	s := newSite(t)
	s.startSwitch()
	s.follow("")
	await(t, time.Minute, "the floor to be recorded", func() error { return s.recorded("ldn-1", "quorum+consent", 3) })
	t.Log(s.hosts["ldn-1"].run("recctl status"))

	for _, part := range []struct {
		name string
		do   func()
	}{
		{"exposure", s.exposure},
		{"recorder killed", s.killed},
		{"leave to restart", s.polkit},
		{"package upgraded", s.upgraded},
		{"host without power", s.powerless},
		{"saved and restored", s.saved},
		{"removed", s.removed},
	} {
		if !t.Run(part.name, func(t *testing.T) { s.use(t); part.do() }) {
			return // the floor is not what the next one begins with
		}
	}
	s.use(t)
}

// exposure is what systemd thinks of the units, on a host that runs them.
func (s *site) exposure() {
	for _, unit := range units {
		out := s.hosts["ldn-1"].run("systemd-analyze security --no-pager --threshold=25 " + unit)
		s.t.Log(lastLine(out))
	}
}

// Under systemd a recorder that is killed loses nothing: its sockets, and what
// arrives at them, wait.
func (s *site) killed() {
	at := s.whenLive()
	before := strings.TrimSpace(s.hosts["ldn-1"].run("systemctl show --value -p MainPID tandem-recorder"))
	s.hosts["ldn-1"].run("systemctl kill -s KILL tandem-recorder")
	await(s.t, 20*time.Second, "the recorder to be back", func() error {
		out, err := s.hosts["ldn-1"].try("systemctl show --value -p MainPID -p ActiveState tandem-recorder")
		if fields := strings.Fields(out); err != nil || len(fields) != 2 || fields[1] != "active" || fields[0] == before || fields[0] == "0" {
			return fmt.Errorf("%v, %s", err, out)
		}
		return nil
	})
	back := time.Since(at)
	await(s.t, 20*time.Second, "the floor to be recorded", func() error { return s.recorded("ldn-1", "quorum+consent", 3) })
	s.t.Logf("served again after %v", back.Round(time.Millisecond))
	s.nothingMissing(at)
}

// polkit lets the daemons' user restart the director, and nothing else.
func (s *site) polkit() {
	const restart = "runuser -u tandem -- busctl call --quiet org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager RestartUnit ss %s.service replace"
	s.hosts["ldn-2"].run(fmt.Sprintf(restart, "tandem-director"))
	if out, err := s.hosts["ldn-2"].try(fmt.Sprintf(restart, "tandem-recorder")); err == nil {
		s.t.Errorf("the daemons' user may restart the recorder: %s", out)
	}
	await(s.t, 30*time.Second, "the floor to be recorded", func() error { return s.recorded("ldn-1", "quorum+consent", 3) })
}

// A newer package on one host after the other, while people talk.
func (s *site) upgraded() {
	newer := build(s.t, "../..", s.t.TempDir(), "9.9.9", "FORMATS=deb")
	for name := range s.hosts {
		s.deliver(name, filepath.Join(newer, "tandem_9.9.9_amd64.deb"))
	}
	config := s.hosts["ldn-1"].run("cat /etc/tandem/*.toml")
	at := s.whenLive()
	s.follow("upgrade")
	await(s.t, 30*time.Second, "the floor to be recorded", func() error { return s.recorded("ldn-1", "quorum+consent", 3) })
	s.nothingMissing(at)
	for name, h := range s.hosts {
		if out := h.run("/proc/$(systemctl show --value -p MainPID tandem-recorder)/exe --version"); !strings.Contains(out, "9.9.9") {
			s.t.Errorf("%s still runs %s", name, out)
		}
	}
	if now := s.hosts["ldn-1"].run("cat /etc/tandem/*.toml"); now != config {
		s.t.Errorf("the configuration has changed: %s", now)
	}
}

// The host of the director in charge, with a recorder, loses its power, and
// gets it back.
func (s *site) powerless() {
	await(s.t, time.Minute, "dir-a to be in charge", func() error { return s.leads("dir-a") })
	at := s.whenLive()
	s.hosts["ldn-1"].pullPlug()
	await(s.t, 20*time.Second, "the others to record the floor", func() error { return s.recorded("ldn-2", "quorum", 2) })
	s.t.Logf("whole again after %v", time.Since(at).Round(time.Millisecond))
	s.hosts["ldn-1"].turnOn()
	await(s.t, time.Minute, "ldn-1 to be back", func() error { return s.recorded("ldn-2", "quorum+consent", 3) })
	judged := s.judge(at)
	for _, gap := range judged.GapMs {
		if gap > 5000 {
			s.t.Errorf("of a leg %d ms are missing", gap)
		}
	}
}

// A recorder is emptied, copied, destroyed and brought back from the copy.
func (s *site) saved() {
	s.follow("save rec-3")
	s.follow("restore rec-3")
	await(s.t, 20*time.Second, "the floor to be recorded", func() error { return s.recorded("ldn-1", "quorum+consent", 3) })
}

// The package goes, recordings stay.
func (s *site) removed() {
	h := s.hosts["ldn-3"]
	said := h.run("apt-get purge -y tandem")
	if !strings.Contains(said, "tandem: kept /var/lib/tandem/recorder") {
		s.t.Errorf("nobody was told where the recordings are: %s", said)
	}
	h.run("ls /var/lib/tandem/recorder/catalog.db && ! ls /usr/bin/recctl /etc/tandem/recorder.toml && ! systemctl is-active tandem-recorder && ! systemctl is-enabled tandem-recorder")
}

func (s *site) leads(name string) error {
	st, err := s.status("ldn-2")
	if err != nil {
		return err
	}
	for _, d := range st.Directors {
		if d.Name == name && d.Role == "active" {
			return nil
		}
	}
	return fmt.Errorf("%+v", st.Directors)
}

// whenLive is an instant at which people talk, and have for a while.
func (s *site) whenLive() time.Time {
	s.t.Helper()
	await(s.t, 30*time.Second, "people to talk", func() error {
		state, err := s.sim.State(s.t.Context())
		if err == nil && state.Legs < turrets/2 {
			err = fmt.Errorf("%d legs", state.Legs)
		}
		return err
	})
	pause(s.t, time.Second)
	return time.Now()
}
