// Package load measures how hard a recorder and its machine work, and decides
// from that whether it may be given more.
package load

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/shirou/gopsutil/v3/cpu"
	"github.com/shirou/gopsutil/v3/disk"
	sysload "github.com/shirou/gopsutil/v3/load"
	"github.com/shirou/gopsutil/v3/process"
)

// Usage is one measurement of the process and its machine.
type Usage struct {
	At        time.Time
	CPU       float64 // percent of one core, since the measurement before
	HostCPU   float64 // percent of all cores, since the measurement before
	Memory    uint64  // resident bytes of the process
	Load1     float64
	DiskFree  uint64 // bytes that this process may still write
	DiskTotal uint64
}

// Meter takes measurements. The shares of CPU are differences between two of
// them, so a Meter has one user.
type Meter struct {
	dir     string
	process *process.Process
	last    sample
}

type sample struct {
	at         time.Time
	process    float64 // seconds of CPU used so far
	busy, host float64
}

// NewMeter measures this process and the disk that holds dir.
func NewMeter(dir string) (*Meter, error) {
	p, err := process.NewProcess(int32(os.Getpid()))
	if err != nil {
		return nil, fmt.Errorf("measure own process: %w", err)
	}
	m := &Meter{dir: dir, process: p}
	m.last, err = m.sample(context.Background(), time.Now())
	return m, err
}

// Measure takes a measurement. What the system does not tell stays zero and
// is named in the error; the rest is valid all the same.
func (m *Meter) Measure(ctx context.Context, now time.Time) (Usage, error) {
	u := Usage{At: now}
	next, err := m.sample(ctx, now)
	if err == nil {
		u.CPU, u.HostCPU = shares(m.last, next)
		m.last = next
	}
	if memory, merr := m.process.MemoryInfoWithContext(ctx); merr == nil {
		u.Memory = memory.RSS
	} else {
		err = fmt.Errorf("measure memory: %w", merr)
	}
	if avg, lerr := sysload.AvgWithContext(ctx); lerr == nil {
		u.Load1 = avg.Load1
	} else {
		err = fmt.Errorf("measure load: %w", lerr)
	}
	if usage, derr := disk.UsageWithContext(ctx, m.dir); derr == nil {
		u.DiskFree, u.DiskTotal = usage.Free, usage.Total
	} else {
		err = fmt.Errorf("measure disk: %w", derr)
	}
	return u, err
}

func (m *Meter) sample(ctx context.Context, now time.Time) (sample, error) {
	own, err := m.process.TimesWithContext(ctx)
	if err != nil {
		return sample{}, fmt.Errorf("measure own CPU: %w", err)
	}
	hosts, err := cpu.TimesWithContext(ctx, false)
	if err != nil || len(hosts) != 1 {
		return sample{}, fmt.Errorf("measure host CPU: %d rows, %w", len(hosts), err)
	}
	h := hosts[0]
	idle := h.Idle + h.Iowait
	busy := h.User + h.System + h.Nice + h.Irq + h.Softirq + h.Steal
	return sample{at: now, process: own.User + own.System, busy: busy, host: busy + idle}, nil
}

func shares(a, b sample) (own, host float64) {
	if wall := b.at.Sub(a.at).Seconds(); wall > 0 {
		own = 100 * max(0, b.process-a.process) / wall
	}
	if total := b.host - a.host; total > 0 {
		host = 100 * max(0, b.busy-a.busy) / total
	}
	return own, host
}

// Facts is what readiness depends on.
type Facts struct {
	Draining     bool
	MediaDown    string        // why the media network brings nothing; empty: it can
	Unswept      time.Duration // since the intake last got on with its sockets
	JournalHangs time.Duration // for which one write or sync has not come back
	Unmeasured   time.Duration // since DiskFree was known
	DiskFree     uint64
	Reserve      uint64  // bytes that must stay free for what is already being recorded
	JournalQueue float64 // 0-1
	JournalErr   error   // the journal's last write failed
}

const (
	// sweptWithin is six sweeps: an intake that takes longer takes nothing.
	sweptWithin = 300 * time.Millisecond
	// journalWithin is more than a write takes on a disk that is merely slow.
	journalWithin = 2 * time.Second
	// measuredWithin is for a disk that does not even say how full it is.
	measuredWithin = 10 * time.Second
)

// Ready decides whether the recorder may be given new channels, and why not.
// was is the decision before: a recorder that ran out of disk takes new
// channels again only with a tenth more than its reserve, so that it does not
// flap at the edge.
func Ready(was bool, f Facts) (ready bool, reason string) {
	reserve := f.Reserve
	if !was {
		reserve += reserve / 10
	}
	switch {
	case f.JournalErr != nil:
		return false, fmt.Sprintf("journal: %v", f.JournalErr)
	case f.JournalHangs > journalWithin:
		return false, fmt.Sprintf("journal: the disk has not answered for %v", f.JournalHangs.Round(time.Second))
	case f.MediaDown != "":
		return false, "media network down: " + f.MediaDown
	case f.Unswept > sweptWithin:
		return false, fmt.Sprintf("intake: sockets not read for %v", f.Unswept.Round(100*time.Millisecond))
	case f.Unmeasured > measuredWithin:
		return false, fmt.Sprintf("disk: not measured for %v", f.Unmeasured.Round(time.Second))
	case f.Draining:
		return false, "draining"
	case f.DiskFree < reserve:
		return false, fmt.Sprintf("disk: %s free, %s reserved", bytes(f.DiskFree), bytes(f.Reserve))
	case f.JournalQueue >= 0.5:
		return false, fmt.Sprintf("journal: %.0f %% of its queue waits for the disk", 100*f.JournalQueue)
	}
	return true, ""
}

func bytes(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/unit, 0
	for v >= unit && i < 4 {
		v, i = v/unit, i+1
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTP"[i])
}
