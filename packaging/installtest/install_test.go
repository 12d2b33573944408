package installtest

import (
	"fmt"
	"path/filepath"
	"slices"
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
	s.hurried()

	for _, part := range []struct {
		name string
		do   func()
	}{
		{"exposure", s.exposure},
		{"recorder killed", s.killed},
		{"leave to restart", s.polkit},
		{"host without power", s.powerless},
		{"package upgraded", s.upgraded},
		{"saved and restored", s.saved},
		{"removed", s.removed},
	} {
		if !t.Run(part.name, func(t *testing.T) { s.use(t); part.do() }) {
			return // the floor is not what the next one begins with
		}
	}
	s.use(t)
}

// hurried is that every daemon has its priority, though several started at
// once and the kernel takes one in a tenth of a second.
func (s *site) hurried() {
	s.t.Helper()
	for name, h := range s.hosts {
		if said := h.run("journalctl --no-pager -o cat -u 'tandem-*'"); strings.Contains(said, "no priority") || !strings.Contains(said, "priority raised") {
			s.t.Errorf("%s: a daemon did not get its priority: %s", name, said)
		}
	}
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
	st := s.whenLive(status.busiest)
	victim := s.hosts[st.busiest()]
	before := strings.TrimSpace(victim.run("systemctl show --value -p MainPID tandem-recorder"))
	at := time.Now()
	victim.run("systemctl kill -s KILL tandem-recorder")
	await(s.t, 20*time.Second, "the recorder to be back", func() error {
		out, err := victim.try("systemctl show --value -p MainPID -p ActiveState tandem-recorder")
		if fields := strings.Fields(out); err != nil || len(fields) != 2 || fields[1] != "active" || fields[0] == before || fields[0] == "0" {
			return fmt.Errorf("%v, %s", err, out)
		}
		return nil
	})
	s.t.Logf("the recorder of %s, with %.0f packets a second, served again after %v", victim.name, st.packets(victim.name), time.Since(at).Round(time.Millisecond))
	s.t.Log(victim.handedOver())
	await(s.t, 20*time.Second, "the floor to be recorded", func() error { return s.recorded("ldn-1", "quorum+consent", 3) })
	s.nothingMissing(at)
}

// handedOver is what the recorder that runs says of the sockets that it began
// with.
func (h *host) handedOver() string {
	h.t.Helper()
	said := h.run("journalctl --no-pager -o cat -u tandem-recorder _PID=$(systemctl show --value -p MainPID tandem-recorder)")
	for line := range strings.Lines(said) {
		if strings.Contains(line, "sockets_kept=") && !strings.Contains(line, "sockets_kept=0") {
			return h.name + ": " + strings.TrimSpace(line)
		}
	}
	h.t.Errorf("%s: no sockets were kept for the recorder: %s", h.name, said)
	return ""
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

// The host of the director in charge, with a recorder that is at work, loses its
// power, and gets it back.
func (s *site) powerless() {
	st, err := s.status("ldn-1")
	victim, other, found := st.leader()
	if err != nil || !found {
		s.t.Fatalf("nobody leads: %+v, %v", st, err)
	}
	st = s.gather(victim, other)
	at := time.Now()
	s.hosts[victim].pullPlug()
	await(s.t, 30*time.Second, "the others to record the floor", func() error { return s.recorded(other, "quorum", 2) })
	s.t.Logf("%s, with %.0f packets a second, lost its power; the floor was whole again after %v", victim, st.packets(victim), time.Since(at).Round(time.Millisecond))
	s.hosts[victim].turnOn()
	await(s.t, time.Minute, victim+" to be back", func() error { return s.recorded(other, "quorum+consent", 3) })
	if worst := slices.Max(s.judge(at).GapMs); worst == 0 || worst > 10_000 {
		s.t.Errorf("of a leg %d ms are missing: want some, since its recorder was gone, and no more than until another one had it", worst)
	}
}

// gather has the recorder of one host take all channels, and returns when people
// talk to it and the others might take them back.
func (s *site) gather(host, operator string) status {
	s.t.Helper()
	drain := func(flags string) {
		for _, recorder := range []string{"rec-1", "rec-2", "rec-3"} {
			if homes[recorder] != host {
				s.hosts[operator].run("recctl drain " + flags + recorder)
			}
		}
	}
	drain("")
	st := s.whenLive(func(status) string { return host })
	drain("--undo ")
	return st
}

// A newer package on one host after the other, while people talk.
func (s *site) upgraded() {
	newer := build(s.t, "../..", s.t.TempDir(), "9.9.9", "FORMATS=deb")
	for name := range s.hosts {
		s.deliver(name, filepath.Join(newer, "tandem_9.9.9_amd64.deb"))
	}
	config := s.hosts["ldn-1"].run("cat /etc/tandem/*.toml")
	s.whenLive(status.busiest)
	at := time.Now()
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

// A recorder is emptied, copied, destroyed and brought back from the copy.
func (s *site) saved() {
	s.follow("save rec-3")
	saved := strings.Fields(s.hosts["ldn-3"].run("tar -tf /root/rec-3.tar | grep wav$"))
	s.follow("restore rec-3")
	restored := strings.Fields(s.hosts["ldn-3"].run("cd /var/lib/tandem && find recorder -name '*.wav'"))
	for _, recording := range saved {
		if !slices.Contains(restored, recording) {
			s.t.Errorf("%s was saved and is not restored", recording)
		}
	}
	s.t.Logf("%d recordings saved and restored", len(saved))
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

// whenLive waits until people talk, and have for a while: at half the turrets,
// and some of them to the recorder of the host that is chosen.
func (s *site) whenLive(choose func(status) string) (st status) {
	s.t.Helper()
	await(s.t, time.Minute, "people to talk", func() error {
		state, err := s.sim.State(s.t.Context())
		if err != nil {
			return err
		}
		if st, err = s.status("ldn-1"); err != nil {
			return err
		}
		if host := choose(st); state.Legs < turrets/2 || st.packets(host) < 100 {
			return fmt.Errorf("%d legs, %.0f packets a second on %s", state.Legs, st.packets(host), host)
		}
		return nil
	})
	pause(s.t, time.Second)
	return st
}
