package lab

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"tandem/cli/process"
	"tandem/cli/scenario"
	"tandem/director"
	"tandem/internal/config"
	"tandem/watchdog"
)

// What a host sends another one vanishes on the way, without an error, and
// what it is sent arrives.
func TestHostIsMuted(t *testing.T) {
	_, one, other := hosts(t)
	a, b := &machine{host: one, place: 1}, &machine{host: other, place: 2}
	there, back := mouth(t, one, 2), mouth(t, other, 1)
	ears := map[*machine]func() bool{}
	for _, m := range []*machine{a, b} {
		ear := ear(t, m.host, m.place)
		ears[m] = func() bool { _, ok := hear(t, ear); return ok }
	}
	reach := func(want bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
			_, err := there.Write([]byte{1, 0})
			if err != nil {
				t.Fatalf("whoever is muted is told: %v", err)
			}
			if heard := ears[b](); heard == want {
				back.Write([]byte{2, 0})
				if !ears[a]() {
					t.Fatal("the other way is cut, too")
				}
				return
			}
		}
		t.Fatalf("reached is not %v", want)
	}
	reach(true)
	if err := vanish(a, b, media, false); err != nil {
		t.Fatal(err)
	}
	reach(false)
	if err := vanish(a, b, media, true); err != nil {
		t.Fatal(err)
	}
	reach(true)
}

// The directors of a pair and their watchdogs read without fault what the lab
// writes for them, and mean the same floor.
func TestPairIsConfigured(t *testing.T) {
	for name, want := range map[string][]string{
		"director_killed":            {"10.77.0.11:7402", "10.77.0.12:7402", "10.77.0.13:7402"},
		"director_and_voter_lost":    {"10.77.0.11:7402"},
		"director_and_recorder_lost": {"10.77.0.11:7402", "10.77.0.12:7402", "10.77.0.4:7403"},
	} {
		s, err := scenario.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		f := &floor{options: Options{Turrets: 1, Mixes: 4, Recorders: 3}, scenario: s[0], dir: t.TempDir()}
		on := func(name string, p place) *machine {
			daemon := func(name string) *process.Process {
				return &process.Process{Name: name, Config: filepath.Join(f.dir, name+".toml")}
			}
			return &machine{host: &host{name: name}, place: p, daemon: daemon(name), watchdog: daemon("watchdog-" + name)}
		}
		f.sim, f.directors = on("switch", switchPlace), []*machine{on("dir-a", directorPlace), on("dir-b", peerPlace)}
		for n, name := range []string{"rec-1", "rec-2", "rec-3"} {
			f.recorders = append(f.recorders, on(name, firstRecorder+place(n)))
		}
		if len(want) == 3 && want[2] != "10.77.0.13:7402" {
			f.witness = on("witness", witnessPlace)
		}
		if err := f.configure(); err != nil {
			t.Fatal(err)
		}
		var pair []director.Config
		for _, m := range f.directors {
			dir, err := config.Load(m.daemon.Config, director.DefaultConfig())
			if err != nil {
				t.Error(err)
			}
			dog, err := config.Load(m.watchdog.Config, watchdog.DefaultConfig())
			if err != nil || dog.DirectorConfig != m.daemon.Config || dir.Failover.PeerWatchdog == dog.Control {
				t.Errorf("%+v, %v", dog, err)
			}
			pair = append(pair, dir)
		}
		for n, dir := range pair {
			peer := pair[1-n]
			if !slices.Equal(dir.Failover.Voters, want) || dir.Failover.Peer != peer.Control || dir.Failover.PeerMonitor[0] != peer.Monitor || dir.Failover.Preferred != (n == 0) {
				t.Errorf("%s: %+v", name, dir.Failover)
			}
		}
		if f.witness == nil {
			continue
		}
		witness, err := config.Load(f.witness.daemon.Config, watchdog.DefaultConfig())
		if err != nil || !witness.Witness.Enabled || witness.Control != want[2] {
			t.Errorf("%+v, %v", witness, err)
		}
	}
}

// A director that began to lead is told by its log, in each of its lives.
func TestReigns(t *testing.T) {
	m := &machine{host: &host{name: "dir-a"}, daemon: &process.Process{Name: "dir-a", Log: filepath.Join(t.TempDir(), "log")}}
	text := "time=2026-03-02T12:00:01.500Z msg=role from=activating to=active epoch=2\n" +
		"time=2026-03-02T12:00:02.000Z msg=role from=active to=linger epoch=2\n" +
		"time=2026-03-02T12:00:03.000Z msg=role from=draining to=active epoch=2\n" +
		"time=2026-03-02T12:00:04.000Z msg=role from=activating to=active epoch=4\n"
	if err := os.WriteFile(m.daemon.Log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &floor{directors: []*machine{m}}
	reigns, err := f.Reigns()
	noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	if want := []time.Time{noon.Add(1500 * time.Millisecond), noon.Add(4 * time.Second)}; err != nil || !slices.EqualFunc(reigns, want, time.Time.Equal) {
		t.Errorf("%v, %v", reigns, err)
	}
}
