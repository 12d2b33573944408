package cli

import (
	"strings"
	"time"
)

// layouts are the ways to write an instant with its date; what they leave out
// is taken to be zero, in the user's zone.
var layouts = []string{time.RFC3339Nano, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"}

// when reads an instant as people write one: "2026-01-31 09:30", "09:30" of
// today, "-10m" or "10m ago", "now".
func when(s string, now time.Time) (time.Time, error) {
	s = strings.TrimSpace(s)
	if s == "now" {
		return now, nil
	}
	ago, isAgo := strings.CutSuffix(s, "ago")
	if back, isBack := strings.CutPrefix(s, "-"); isBack {
		ago, isAgo = back, true
	}
	if isAgo {
		if d, err := time.ParseDuration(strings.ReplaceAll(ago, " ", "")); err == nil && d >= 0 {
			return now.Add(-d), nil
		}
	}
	for _, l := range layouts {
		if t, err := time.ParseInLocation(l, s, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, l := range []string{"15:04", "15:04:05"} {
		if t, err := time.Parse(l, s); err == nil {
			y, m, d := now.Date()
			return time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), 0, now.Location()), nil
		}
	}
	return time.Time{}, usage("time %q: want \"2006-01-02 15:04\", \"15:04\", \"-10m\", \"10m ago\" or RFC 3339", s)
}
