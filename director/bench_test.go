package director

import (
	"fmt"
	"testing"
)

// The beat of a floor of 1,000 turrets at rest: twenty a second.
func BenchmarkTick(b *testing.B) {
	r := newRig(fatal{b}, "rec-1", "rec-2", "rec-3", "rec-4", "rec-5")
	r.start()
	for i := range 1000 {
		r.tell(logOn(fmt.Sprint("s", i), r.now)...)
	}
	r.settle()
	b.ReportAllocs()
	for b.Loop() {
		r.f.tick(r.now)
	}
}

type fatal struct{ *testing.B }
