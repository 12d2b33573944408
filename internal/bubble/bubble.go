// Package bubble runs tests in bubbles of testing/synctest, where time passes when
// everybody waits.
package bubble

import (
	"testing"
	"testing/synctest"
)

// Test is synctest.Test. Under the race detector the process has one processor
// until f returns: two goroutines of a bubble whose timers end at once, on two
// of them, use one state of the detector, which crashes (golang/go#78156). It
// judges accesses by what orders them, so it sees as many races on one.
func Test(t *testing.T, f func(*testing.T)) {
	t.Helper()
	defer narrow()()
	synctest.Test(t, f)
}
