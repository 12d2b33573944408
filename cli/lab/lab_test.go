package lab

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tandem/cli/scenario"
)

// The short form of the lab: real processes on hosts of their own, broken.
// Whatever happens nothing is missing without a gap, nothing is there twice,
// and a gap is a moment; make lab measures how long. Of two copies, each of which
// loses a twentieth, exactly what both lost is missing.
func TestLab(t *testing.T) {
	bin := os.Getenv("TANDEM_BIN")
	if bin == "" {
		t.Skip("TANDEM_BIN names no directory of programs: run make stories")
	}
	if err := Missing(); err != nil {
		t.Skip(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	scenarios, err := scenario.Find("sigkill", "sigstop", "media_cut", "restart", "drain", "director_killed", "director_cut_from_all", "promote", "loss_both")
	if err != nil {
		t.Fatal(err)
	}
	pace := scenario.DefaultPace()
	pace.Linger, pace.Instant, pace.Pause = time.Second, time.Second, 5*time.Second
	options := Options{Scenarios: scenarios, Seeds: 1, Seed: 1, Turrets: 20, Mixes: 4, Legs: 15, Recorders: 3, Dir: t.TempDir(), Pace: pace}
	const generous = 3000 // milliseconds: other tests run, too
	played := 0
	if err := Run(t.Context(), options, t.Logf, func(r scenario.Result) {
		played++
		for _, f := range r.Findings(false) {
			t.Errorf("%s: %s", r.Fault.Scenario.Name, f)
		}
		for _, gap := range r.Judgement.GapMs {
			if gap > generous {
				t.Errorf("%s: %d ms are missing of a leg", r.Fault.Scenario.Name, gap)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	if played != len(scenarios) {
		t.Errorf("%d of %d played", played, len(scenarios))
	}
}

// A host is never the process's first thread, which is what /proc/self shows
// and which does not end.
func TestHostsLeaveTheFirstThread(t *testing.T) {
	first := func() string {
		netns, err := os.Readlink("/proc/self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		return netns
	}
	before := first()
	for range 20 {
		h, err := newHost("any")
		if err != nil {
			t.Fatal(err)
		}
		if after := first(); after != before {
			t.Fatalf("the process moved from %s to %s", before, after)
		}
		h.close()
	}
}

// Nothing of a lab is seen outside its hosts, and names and addresses are free
// again at once.
func TestHostsAreNameless(t *testing.T) {
	for range 2 {
		_, one, _ := hosts(t)
		d := &disk{dir: t.TempDir()}
		if err := one.do(d.mountSmall); err != nil {
			t.Fatal(err)
		}
		mounts, err := os.ReadFile("/proc/self/mounts")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(mounts), d.dir) {
			t.Errorf("the host's disk is seen from outside:\n%s", mounts)
		}
		for _, device := range []string{media, farEnd(one, media)} {
			if link, err := net.InterfaceByName(device); err == nil {
				t.Errorf("device %v is seen from outside", link)
			}
		}
	}
}

func TestDiskFillsAndStalls(t *testing.T) {
	_, one, _ := hosts(t)
	full, err := openDisk(one, t.TempDir()+"/full", []scenario.Action{scenario.FillDisk})
	if err != nil {
		t.Fatal(err)
	}
	write := func(d *disk) error {
		return one.do(func() error { return os.WriteFile(d.dir+"/file", make([]byte, 64<<10), 0o600) })
	}
	if err := write(full); err != nil {
		t.Fatal(err)
	}
	if err := one.do(full.fill); err != nil {
		t.Fatal(err)
	}
	if err := one.do(func() error { return os.WriteFile(full.dir+"/more", make([]byte, 64<<10), 0o600) }); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a full disk: %v", err)
	}
	if err := one.do(full.free); err != nil {
		t.Fatal(err)
	}
	if err := write(full); err != nil {
		t.Errorf("an emptied disk: %v", err)
	}
	slow, err := openDisk(one, t.TempDir()+"/slow", []scenario.Action{scenario.SlowDisk})
	if errors.Is(err, errNoDisk) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := slow.stall(one); err != nil {
		t.Fatal(err)
	}
	longest := time.Duration(0)
	for end := time.Now().Add(2 * (stalled + flowing)); longest < stalled/2 && time.Now().Before(end); {
		began := time.Now()
		if err := write(slow); err != nil {
			t.Fatal(err)
		}
		longest = max(longest, time.Since(began))
	}
	if longest < stalled/2 {
		t.Errorf("no write took longer than %v", longest)
	}
	if err := slow.flow(); err != nil {
		t.Error(err)
	}
	if err := write(slow); err != nil {
		t.Error(err)
	}
}
