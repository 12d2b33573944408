package watchdog

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// restarted is the view of a watchdog that starts again with what one had kept.
func restarted(t *testing.T, v View, at, again time.Time) View {
	t.Helper()
	text, err := json.Marshal(v.memory(at))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "failback.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := readMemory(file)
	if err != nil {
		t.Fatal(err)
	}
	return steady().recalling(m, again)
}

// A watchdog that starts again damps failback as if it had gone on; one whose host
// was lost while its director was in charge counts that as a takeover.
func TestRemembers(t *testing.T) {
	const hold = 30 * time.Second
	charge := func(v View, at time.Time, role string) View {
		v.Local.Report.Role, v.Local.Beat, v.Local.Answered, v.Peer.Reply.Role = role, at, at, "passive"
		return v.settle(at)
	}
	follows := func(v View, at time.Time) View {
		v.Local.Report.Role, v.Local.Beat, v.Local.Answered, v.Peer.Reply.Role = "passive", at, at, "active"
		return v.settle(at)
	}
	began, later := noon, noon.Add(time.Minute)
	for name, c := range map[string]struct {
		before func() View
		at     time.Time // it ends
		flaps  int
		blame  float64 // at noon + 1 minute
	}{
		"nothing has happened":        {func() View { return steady().settle(noon) }, noon, 0, 0},
		"in charge for ten seconds":   {func() View { return charge(steady(), began, "active") }, noon.Add(10 * time.Second), 1, penaltyEach},
		"in charge for half a minute": {func() View { return charge(steady(), began, "active") }, noon.Add(hold), 0, penaltyEach},
		"lost, and nobody followed yet": {func() View {
			return charge(charge(steady(), began, "active"), noon.Add(5*time.Second), "boot")
		}, noon.Add(6 * time.Second), 1, penaltyEach},
		"given back": {func() View {
			return charge(charge(steady(), began, "active"), noon.Add(5*time.Second), "passive")
		}, noon.Add(6 * time.Second), 0, 0},
		"lost twice before": {func() View {
			v := steady()
			v.Damper = v.Damper.takeover(noon, 0, hold).takeover(noon, 0, hold)
			return v
		}, noon, 2, 2 * penaltyEach / 1.0717734625}, // a minute's share of ten
	} {
		v := follows(restarted(t, c.before(), c.at, later), later)
		if got := v.Damper.decayed(later); got.flaps != c.flaps || got.penalty < c.blame-1 || got.penalty > c.blame+1 {
			t.Errorf("%s: %+v, want %d flaps and a penalty of %v", name, got, c.flaps, c.blame)
		}
		if v.memory(later).InCharge {
			t.Errorf("%s: still believes its director in charge", name)
		}
	}
	if v := charge(restarted(t, charge(steady(), began, "active"), noon.Add(time.Second), later), later, "active"); v.led.lost {
		t.Error("only the watchdog started again, and its director counts as lost")
	}
}

// Whatever is in the file, failback is not put off for longer than an hour, be the
// clock set back or forward meanwhile.
func TestMemoryIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := memory{
			Penalty: rapid.Float64().Draw(t, "penalty"), At: noon.Add(time.Duration(rapid.Int64Range(-int64(48*time.Hour), int64(48*time.Hour)).Draw(t, "at"))),
			Suppressed: rapid.Bool().Draw(t, "suppressed"), Flaps: rapid.Int().Draw(t, "flaps"), InCharge: rapid.Bool().Draw(t, "in charge"), Long: rapid.Bool().Draw(t, "long"),
		}
		v := steady().recalling(m, noon).settle(noon) // dir-a leads
		if v.led.lost {
			t.Fatalf("a takeover is still to be counted: %+v", v.led)
		}
		if wait := v.Damper.wait(noon, 0, 30*time.Second); wait < 30*time.Second || wait > longest {
			t.Fatalf("waits %v: %+v", wait, v.Damper)
		}
		end := noon.Add(longest + time.Second)
		if wait := v.Damper.wait(end, longest, 30*time.Second); wait != 0 {
			t.Fatalf("waits %v an hour later: %+v", wait, v.Damper)
		}
	})
}

// A watchdog that is lost with its director and its host does not hand control back
// as soon as the first time: it knows from its file that it faltered.
func TestHostFalters(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state", "failback.json")
	watchedWith(t, true, file, func(t *testing.T, s *site, w *watch, _ *service) {
		s.change(func() { s.peer.Role, s.local.Role = "passive", "active" })
		time.Sleep(10 * time.Second)
		m, err := readMemory(file) // what a loss of power would leave
		if err != nil || !m.InCharge || m.Long {
			t.Errorf("remembers %+v, %v", m, err)
		}
	})
	watchedWith(t, true, file, func(t *testing.T, s *site, w *watch, _ *service) { // dir-a leads
		time.Sleep(40 * time.Second) // longer than failback_hold
		if n := s.count("failover"); n > 0 {
			t.Errorf("asked for control back after %v", s.first("failover"))
		}
		time.Sleep(25 * time.Second)
		if s.count("failover") == 0 {
			t.Errorf("has not asked for control back: %s", w.status.Load().sentence)
		}
	})
	if m, err := readMemory(file); err != nil || m.InCharge || m.Flaps != 1 || m.Penalty != penaltyEach {
		t.Errorf("remembers %+v, %v", m, err)
	}
}

// A file that cannot be read or written costs the memory, and nothing else.
func TestMemoryLost(t *testing.T) {
	file := filepath.Join(t.TempDir(), "failback.json")
	if err := os.WriteFile(file, []byte("{\"flaps\": \"many\"}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{file, filepath.Join(file, "beneath", "a.json")} {
		watchedWith(t, true, file, func(t *testing.T, s *site, w *watch, _ *service) {
			time.Sleep(35 * time.Second)
			if s.count("failover") == 0 {
				t.Errorf("has not asked for control back: %s", w.status.Load().sentence)
			}
		})
	}
}
