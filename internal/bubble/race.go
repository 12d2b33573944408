//go:build race

package bubble

import (
	"runtime"
	"sync"
)

// narrowed counts the bubbles there are, and knows how many processors there were
// before the first.
var narrowed struct {
	sync.Mutex
	bubbles, processors int
}

func narrow() (widen func()) {
	narrowed.Lock()
	defer narrowed.Unlock()
	if narrowed.bubbles++; narrowed.bubbles == 1 {
		narrowed.processors = runtime.GOMAXPROCS(1)
	}
	return func() {
		narrowed.Lock()
		defer narrowed.Unlock()
		if narrowed.bubbles--; narrowed.bubbles == 0 {
			runtime.GOMAXPROCS(narrowed.processors)
		}
	}
}
