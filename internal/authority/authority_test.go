package authority

import (
	"strings"
	"testing"
	"time"
)

func TestEpochsOfTheTwoSidesNeverMeet(t *testing.T) {
	for seen := range Epoch(50) {
		a, b := Next(seen, A), Next(seen, B)
		if a <= seen || b <= seen || a == b || a.Side() != A || b.Side() != B {
			t.Errorf("after %d: %d for A, %d for B", seen, a, b)
		}
	}
}

func TestCheck(t *testing.T) {
	broken := func(change func(*Timing)) Timing {
		t := Steady
		change(&t)
		return t
	}
	for _, c := range []struct {
		name   string
		timing Timing
		want   string // part of the error; "": none
	}{
		{"steady", Steady, ""},
		{"fast", Fast, ""},
		{"lease outlasts the voter's", broken(func(t *Timing) { t.LD = t.LV + t.G }), "order of the old one"},
		{"no guard, no margin", broken(func(t *Timing) { t.G, t.Gate, t.LD = 0, 0, t.LV-t.F }), "order of the old one"},
		{"guard shorter than the gate", broken(func(t *Timing) { t.G = t.Gate - 1 }), "written"},
		{"three rounds in a lease", broken(func(t *Timing) { t.H = t.LD / 3 }), "outlast"},
	} {
		err := c.timing.Check()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestMargin repeats the arithmetic of both profiles by hand.
func TestMargin(t *testing.T) {
	for _, c := range []struct {
		timing           Timing
		earliest, latest time.Duration
	}{
		{Steady, 1149500 * time.Microsecond, 1000400 * time.Microsecond},
		{Fast, 449800 * time.Microsecond, 420150 * time.Microsecond},
	} {
		if earliest, latest := c.timing.Margin(); earliest != c.earliest || latest != c.latest {
			t.Errorf("%v, %v, want %v, %v", earliest, latest, c.earliest, c.latest)
		}
	}
}
