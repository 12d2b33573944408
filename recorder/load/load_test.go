package load

import (
	"errors"
	"math"
	"testing"
	"time"
)

func TestReady(t *testing.T) {
	for _, c := range []struct {
		name string
		was  bool
		Facts
		want   bool
		reason string
	}{
		{"plenty", true, Facts{DiskFree: 2000, Reserve: 1000}, true, ""},
		{"at the reserve", true, Facts{DiskFree: 1000, Reserve: 1000}, true, ""},
		{"under the reserve", true, Facts{DiskFree: 999, Reserve: 1024}, false, "disk: 999 B free, 1.0 KiB reserved"},
		{"not quite back", false, Facts{DiskFree: 1099, Reserve: 1000}, false, "disk: 1.1 KiB free, 1000 B reserved"},
		{"back", false, Facts{DiskFree: 1100, Reserve: 1000}, true, ""},
		{"journal behind", true, Facts{JournalQueue: 0.5}, false, "journal: 50 % of its queue waits for the disk"},
		{"journal hangs", true, Facts{JournalHangs: 2100 * time.Millisecond, Draining: true}, false, "journal: the disk has not answered for 2s"},
		{"journal slow", true, Facts{JournalHangs: 2 * time.Second}, true, ""},
		{"cable pulled", true, Facts{MediaDown: "eth1 has no carrier", Draining: true}, false, "media network down: eth1 has no carrier"},
		{"intake stuck", true, Facts{Unswept: 310 * time.Millisecond}, false, "intake: sockets not read for 300ms"},
		{"intake late", true, Facts{Unswept: 290 * time.Millisecond}, true, ""},
		{"disk dumb", true, Facts{Unmeasured: 11 * time.Second, DiskFree: 2000, Reserve: 1000}, false, "disk: not measured for 11s"},
		{"draining", true, Facts{Draining: true}, false, "draining"},
		{"journal failing", true, Facts{JournalErr: errors.New("no space")}, false, "journal: no space"},
	} {
		if got, reason := Ready(c.was, c.Facts); got != c.want || reason != c.reason {
			t.Errorf("%s: got %v %q", c.name, got, reason)
		}
	}
}

func TestShares(t *testing.T) {
	now := time.Now()
	own, host := shares(sample{at: now, process: 1, busy: 10, host: 100}, sample{at: now.Add(2 * time.Second), process: 2, busy: 11, host: 104})
	if math.Abs(own-50) > 1e-9 || math.Abs(host-25) > 1e-9 {
		t.Errorf("own %v, host %v; want 50, 25", own, host)
	}
	if own, host := shares(sample{at: now}, sample{at: now}); own != 0 || host != 0 {
		t.Errorf("no time passed: %v %v", own, host)
	}
}

func TestMeasure(t *testing.T) {
	m, err := NewMeter(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); time.Since(start) < 50*time.Millisecond; { // be seen at work
	}
	u, err := m.Measure(t.Context(), time.Now())
	if err != nil || u.Memory == 0 || u.DiskTotal == 0 || u.CPU == 0 {
		t.Errorf("%+v, %v", u, err)
	}
}
