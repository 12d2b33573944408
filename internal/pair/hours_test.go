package pair

import (
	"testing"
	"time"
)

func TestHours(t *testing.T) {
	at := func(day int, clock string) time.Time {
		c, err := time.Parse("15:04:05", clock)
		if err != nil {
			t.Fatal(err)
		}
		return time.Date(2030, 1, day, c.Hour(), c.Minute(), c.Second(), 0, time.UTC)
	}
	for _, c := range []struct{ hours, asked, next string }{
		{"20:00-06:00", "19:59:59", "20:00:00"},
		{"20:00-06:00", "20:00:00", "20:00:00"},
		{"20:00-06:00", "00:00:00", "00:00:00"},
		{"20:00-06:00", "05:59:59", "05:59:59"},
		{"20:00-06:00", "06:00:00", "20:00:00"},
		{"12:15-12:30", "12:14:00", "12:15:00"},
		{"12:15-12:30", "12:29:59", "12:29:59"},
		{"12:15-12:30", "12:30:00", "tomorrow"},
		{"00:00-01:00", "23:00:00", "tomorrow"},
	} {
		h, err := ParseHours(c.hours)
		if err != nil {
			t.Fatal(err)
		}
		want := at(2, c.hours[:5]+":00").AddDate(0, 0, 1)
		if c.next != "tomorrow" {
			want = at(2, c.next)
		}
		if got := h.Next(at(2, c.asked)); !got.Equal(want) {
			t.Errorf("%s, asked at %s: %v, want %v", c.hours, c.asked, got, want)
		}
	}
	if now := at(2, "03:04:05"); !(Hours{}).Next(now).Equal(now) {
		t.Error("the zero hours are not the whole day")
	}
}

// On the day on which clocks go forward hours that begin while there is no clock
// begin after it, and come again the day after.
func TestHoursThatAreNot(t *testing.T) {
	london, err := time.LoadLocation("Europe/London")
	if err != nil {
		t.Skip("no time zones here: ", err)
	}
	h := Hours{from: 90, to: 105} // 01:30-01:45; on 31 March 2030 02:00 follows 00:59
	now, end := time.Date(2030, 3, 31, 0, 0, 0, 0, london), time.Date(2030, 4, 2, 0, 0, 0, 0, london)
	minutes := 0
	for ; now.Before(end); now = now.Add(time.Minute) {
		next := h.Next(now)
		if next.Before(now) || next.Sub(now) > 25*time.Hour+45*time.Minute {
			t.Fatalf("asked at %v: %v", now, next)
		}
		if next.Equal(now) {
			minutes++
		}
	}
	if minutes != 15 {
		t.Errorf("%d minutes in two days, want those of the second", minutes)
	}
}

func TestParseHours(t *testing.T) {
	for _, bad := range []string{"", "20:00", "20:00-", "-06:00", "20:00-20:00", "24:00-06:00", "20:60-06:00", "8pm-6am", "20:00-06:00-07:00", "20:00–06:00"} {
		if h, err := ParseHours(bad); err == nil {
			t.Errorf("%q: %v", bad, h)
		}
	}
}
