package turretsim

import "time"

const (
	rate          = 8000              // samples a second
	packetSamples = 160               // 20 ms (RFC 3551 4.2)
	tickSamples   = rate / 1000       // the sender's tick is a millisecond
	packetTicks   = packetSamples / 8 // ticks between two packets of a channel
	sampleTime    = time.Second / rate
)

// clock is the media clock all sources share: sample 0 is at origin, a whole
// millisecond that remembers the monotonic clock.
type clock struct{ origin time.Time }

func newClock(now time.Time) clock {
	return clock{now.Add(time.Millisecond - time.Duration(now.Nanosecond())%time.Millisecond)}
}

// since is the time from the origin to t.
func (c clock) since(t time.Time) time.Duration { return t.Sub(c.origin) }

// wall is when a sample is due.
func (c clock) wall(sample int64) time.Time {
	return c.origin.Add(time.Duration(sample) * sampleTime)
}

// samples is the same length of time in samples.
func samples(d time.Duration) int64 { return int64(d / sampleTime) }
