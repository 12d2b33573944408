package cli

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// bar shows on stderr, if that is a terminal, how far something has come. It
// is a writer that counts what passes.
type bar struct {
	out   io.Writer // nil: shows nothing
	total int64     // 0: not known
	done  int64
	shown time.Time
}

func (i *invocation) bar(total int64) *bar {
	if !i.progress {
		return &bar{}
	}
	return &bar{out: i.errs, total: total}
}

func (b *bar) Write(p []byte) (int, error) {
	b.set(b.done+int64(len(p)), b.total)
	return len(p), nil
}

// set shows done of total, not more often than eyes follow.
func (b *bar) set(done, total int64) {
	b.done, b.total = done, total
	if b.out == nil || time.Since(b.shown) < 50*time.Millisecond {
		return
	}
	b.shown = time.Now()
	if total <= 0 {
		fmt.Fprintf(b.out, "\r\x1b[K%s", size(uint64(done)))
		return
	}
	const wide = 40
	full := int(min(done, total) * wide / total)
	fmt.Fprintf(b.out, "\r\x1b[K[%s%s] %3d%%", strings.Repeat("=", full), strings.Repeat(" ", wide-full), min(done, total)*100/total)
}

// clear takes the bar away.
func (b *bar) clear() {
	if b.out != nil && !b.shown.IsZero() {
		fmt.Fprint(b.out, "\r\x1b[K")
		b.shown = time.Time{}
	}
}
