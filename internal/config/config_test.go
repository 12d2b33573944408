package config

import (
	"errors"
	"strings"
	"testing"
	"time"
)

type sample struct {
	Name  string
	Every Duration
	Inner struct{ Listen string }
}

func (s sample) Validate() []Fault {
	var c Check
	c.Name("name", s.Name)
	c.Between("every", s.Every, Duration(time.Millisecond), Duration(time.Second))
	c.Loopback("inner.listen", s.Inner.Listen)
	return c.Faults
}

func defaults() sample {
	s := sample{Name: "a", Every: Duration(50 * time.Millisecond)}
	s.Inner.Listen = "127.0.0.1:1"
	return s
}

func TestParse(t *testing.T) {
	got, err := Parse("f", "every = \"20ms\"", defaults())
	if err != nil || got.Every.Std() != 20*time.Millisecond || got.Name != "a" {
		t.Fatalf("got %+v, %v", got, err)
	}
}

func TestEveryFaultNamesItsKey(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"naem = \"x\"", "f: naem: no such key"},
		{"every = \"20\"", "every: duration \"20\""},
		{"every = \"20h\"", "every: 20h: want 1ms to 1s"},
		{"name = \"a b\"", "name: \"a b\": want"},
		{"[inner]\nlisten = \"10.0.0.1:1\"", "inner.listen: \"10.0.0.1:1\": want a loopback"},
		{"[inner]\nlisten = \"localhost\"", "inner.listen: \"localhost\": want ADDRESS:PORT"},
		{"name = 3", "name"},
		{"name = ", "name"},
		{"x: y", "f: line 1: expected"},
	} {
		_, err := Parse("f", c.text, defaults())
		var faults *Faults
		if !errors.As(err, &faults) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %q", c.text, err, c.want)
		}
	}
	if _, err := Parse("f", "x: y", defaults()); strings.Count(err.Error(), "line 1") != 1 {
		t.Errorf("the line is not said once: %v", err)
	}
	_, err := Parse("f", "[x]\ny = 1\n[x.z]\na = 1\n[inner]\nb = 1\n[[list]]\nc = 1\n[[list]]\nc = 2", defaults())
	if want := "f: inner.b: no such key\nf: list: no such key\nf: x: no such key"; err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	_, err = Parse("f", "x = 1\ny = 2\nname = \"\"", defaults())
	if strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("want three faults, got:\n%v", err)
	}
}

// A length of time is written as people do, and read back as it was.
func TestDurationIsWrittenShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 300 * time.Millisecond: "300ms", 30 * time.Second: "30s", 90 * time.Second: "1m30s", 5 * time.Minute: "5m", 10 * time.Minute: "10m",
		time.Hour: "1h", 24 * time.Hour: "24h", 90 * time.Minute: "1h30m", time.Hour + time.Second: "1h0m1s", -time.Minute: "-1m",
	} {
		text, _ := Duration(d).MarshalText()
		var back Duration
		if err := back.UnmarshalText(text); err != nil || back.Std() != d || string(text) != want {
			t.Errorf("%v: %s, want %s; back %v, %v", d, text, want, back, err)
		}
	}
}
