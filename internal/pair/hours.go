package pair

import (
	"fmt"
	"strings"
	"time"
)

// Hours are a part of each day, by the clock on the wall of whoever asks. They may
// pass midnight. The zero Hours are the whole day.
type Hours struct{ from, to int } // minutes of the day; to is not in them

const clock = "15:04"

// ParseHours reads hours as 20:00-06:00.
func ParseHours(text string) (Hours, error) {
	begin, end, _ := strings.Cut(text, "-")
	from, err := time.Parse(clock, begin)
	if err != nil {
		return Hours{}, fmt.Errorf("%q is no time of day", begin)
	}
	to, err := time.Parse(clock, end)
	if err != nil {
		return Hours{}, fmt.Errorf("%q is no time of day", end)
	}
	if from.Equal(to) {
		return Hours{}, fmt.Errorf("it ends when it begins")
	}
	return Hours{minute(from), minute(to)}, nil
}

func minute(t time.Time) int { return t.Hour()*60 + t.Minute() }

// hold reports whether an instant is in the hours.
func (h Hours) hold(t time.Time) bool {
	m := minute(t)
	switch {
	case h.from < h.to:
		return h.from <= m && m < h.to
	case h.from > h.to:
		return h.from <= m || m < h.to
	}
	return true
}

// Next is t when it is in the hours, and else when they begin after it. Where a
// clock is put forward over that, they begin later, or the day after.
func (h Hours) Next(t time.Time) time.Time {
	if h.hold(t) {
		return t
	}
	year, month, day := t.Date()
	begin := func(day int) time.Time { return time.Date(year, month, day, h.from/60, h.from%60, 0, 0, t.Location()) }
	if next := begin(day); next.After(t) {
		return next
	}
	return begin(day + 1)
}
