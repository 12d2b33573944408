package daemon

import (
	"fmt"

	"golang.org/x/sys/unix"

	"tandem/internal/authority"
)

// Boottime reads the clock that leases are counted by. Go's own monotonic
// clock stands still while the host sleeps; a lease does not. Safe for
// concurrent use.
func Boottime() authority.Instant {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		// Every Linux since 2.6.39 has it (clock_gettime(2)). Without a clock
		// no promise can be kept, so none may be given.
		panic(fmt.Sprintf("read CLOCK_BOOTTIME: %v", err))
	}
	return authority.Instant(t.Nano())
}
