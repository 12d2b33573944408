package recorder

import (
	"testing"
	"time"
)

func TestStanding(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name    string
		was     beat
		unswept time.Duration
		want    time.Duration
	}{
		{"the first beat", beat{}, time.Hour, 0},
		{"swept since the last beat", beat{at: now.Add(-heartbeat), standing: time.Second}, 40 * time.Millisecond, 0},
		{"stands still", beat{at: now.Add(-heartbeat), standing: 200 * time.Millisecond}, 290 * time.Millisecond, 300 * time.Millisecond},
		{"neither of us ran", beat{at: now.Add(-2 * time.Second)}, 2040 * time.Millisecond, 150 * time.Millisecond},
		{"woken early", beat{at: now.Add(-time.Millisecond)}, 45 * time.Millisecond, time.Millisecond},
	} {
		if got := standing(c.was, now, c.unswept); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
