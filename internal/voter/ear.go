package voter

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/authority"
)

// earSize bounds the names that are remembered: a pair has two, and whoever
// calls itself something else must not fill the memory.
const earSize = 4

// ear remembers when each director was last heard. The zero value has heard
// nobody. Safe for concurrent use.
type ear struct {
	mu   sync.Mutex
	last map[string]authority.Instant
}

func (e *ear) hear(director string, now authority.Instant) {
	if director == "" { // a watchdog that asks
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.last == nil {
		e.last = make(map[string]authority.Instant, earSize)
	}
	if _, known := e.last[director]; !known && len(e.last) == earSize {
		oldest := slices.MinFunc(slices.Collect(maps.Keys(e.last)), func(a, b string) int { return cmp.Compare(e.last[a], e.last[b]) })
		delete(e.last, oldest)
	}
	e.last[director] = now
}

// heard lists the directors by name.
func (e *ear) heard(now authority.Instant) []*tandemv1.DirectorHeard {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []*tandemv1.DirectorHeard
	for _, name := range slices.Sorted(maps.Keys(e.last)) {
		list = append(list, &tandemv1.DirectorHeard{Director: name, AgeMs: max(0, now.Sub(e.last[name])).Milliseconds()})
	}
	return list
}
