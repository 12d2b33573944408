package daemon

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// The kernel says in /proc/uptime what the same clock reads (proc(5)).
func TestBoottime(t *testing.T) {
	before := Boottime()
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	after := Boottime()
	var up float64
	if _, err := fmt.Sscan(string(text), &up); err != nil {
		t.Fatal(err)
	}
	const digit = 10 * time.Millisecond // what it is rounded to
	if at := time.Duration(up * float64(time.Second)); at < before.Sub(0)-digit || at > after.Sub(0)+digit {
		t.Errorf("up for %v, read %v to %v", at, before.Sub(0), after.Sub(0))
	}
}
