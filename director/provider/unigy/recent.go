package unigy

import (
	"sync"
	"time"
)

// forget is how long a message is not repeated.
const forget = time.Minute

// maxRecent bounds how many different things are told apart at a time.
const maxRecent = 256

// recent remembers what was said within the last minute. The zero value is ready.
type recent struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// first reports whether what was not said within the minute before now.
func (r *recent) first(what string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, ok := r.last[what]; ok && now.Sub(at) < forget {
		return false
	}
	if r.last == nil || len(r.last) >= maxRecent {
		r.last = make(map[string]time.Time)
	}
	r.last[what] = now
	return true
}
