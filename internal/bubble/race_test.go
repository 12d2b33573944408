//go:build race

package bubble

import (
	"runtime"
	"testing"
)

// However many bubbles there are, there is one processor until the last has ended.
func TestOneProcessor(t *testing.T) {
	before := runtime.GOMAXPROCS(max(2, runtime.GOMAXPROCS(0)))
	defer runtime.GOMAXPROCS(before)
	want := func(want int) {
		t.Helper()
		if n := runtime.GOMAXPROCS(0); n != want {
			t.Errorf("%d processors, want %d", n, want)
		}
	}
	processors := runtime.GOMAXPROCS(0)
	Test(t, func(*testing.T) { want(1) })
	want(processors)
	one, other := narrow(), narrow()
	one()
	want(1)
	other()
	want(processors)
}
