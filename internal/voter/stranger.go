package voter

import (
	"maps"
	"sync"
	"time"

	"tandem/internal/authority"
)

// stranger is a director of another group, whose configuration names this
// voter by mistake. It asks again and again until somebody corrects that.
type stranger struct{ director, group string }

// strangers are those that were written to the log lately. Safe for
// concurrent use; the zero value has met nobody.
type strangers struct {
	mu   sync.Mutex
	told map[stranger]authority.Instant
}

const (
	tellAgain     = time.Hour // after which a mistake that nobody corrected is news again
	mostStrangers = 32        // told at once: names come over the network, and anybody may invent them
)

// isNews reports whether a stranger is to be told of, and notes that it was.
func (s *strangers) isNews(who stranger, now authority.Instant) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.told, func(_ stranger, at authority.Instant) bool { return now.Sub(at) >= tellAgain })
	if _, told := s.told[who]; told || len(s.told) >= mostStrangers {
		return false
	}
	if s.told == nil {
		s.told = map[stranger]authority.Instant{}
	}
	s.told[who] = now
	return true
}
