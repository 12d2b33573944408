package rtpstream

import "time"

// Wall is a wall clock time in nanoseconds since 1970: a kernel receive time,
// or what an anchor makes of an RTP timestamp.
type Wall int64

// WallOf is t as a Wall.
func WallOf(t time.Time) Wall { return Wall(t.UnixNano()) }

// WallOfNTP is the wall time of an NTP timestamp (RFC 3550 4).
func WallOfNTP(ntp uint64) Wall {
	const since1900 = 2_208_988_800
	seconds, fraction := int64(ntp>>32)-since1900, ntp&0xFFFFFFFF
	return Wall(seconds*int64(time.Second) + int64(fraction*uint64(time.Second)>>32))
}

// Time is w as a time.Time in UTC.
func (w Wall) Time() time.Time { return time.Unix(0, int64(w)).UTC() }

// Sub is the time from v to w.
func (w Wall) Sub(v Wall) time.Duration { return time.Duration(w - v) }

// Add is the wall time d after w.
func (w Wall) Add(d time.Duration) Wall { return w + Wall(d) }

const (
	anchorWindow = 10 * time.Second // a clock 200 ppm off moves 2 ms in it
	maxDrift     = 2000             // 500 ppm: no sender's clock is further off
	reportFresh  = 30 * time.Second // six sender reports
	reportSane   = time.Second      // a sender whose clock differs more is not believed
)

// Anchor ties one run's RTP timestamps to wall clock time: by the sender's
// reports (RFC 3550 6.4.1) where there are believable ones, else by the
// packets that travelled fastest, the lower envelope of arrival - timestamp.
// The envelope is renewed every ten seconds, so it follows a drifting clock.
//
// When packets come later than they used to, it may be the network or the
// sender's timestamps, and nobody can tell. The envelope believes in timestamps
// for ten seconds at least; beside it the anchor keeps the least offset, which
// rises no faster than a clock may drift.
type Anchor struct {
	Rate   int           // timestamp units a second
	Low    time.Duration // least arrival - timestamp in the window that lasts
	Prev   time.Duration // and in the one before
	Until  int64         // timestamp at which the window ends
	Report time.Duration // NTP - timestamp of the last believable report
	At     int64         // its timestamp
	Heard  bool          // there is such a report

	Least   time.Duration // least offset so far, by packets or reports
	LeastAt int64         // its timestamp
}

// span is the length of n timestamp units.
func (a *Anchor) span(n int64) time.Duration {
	rate := int64(a.Rate)
	return time.Duration(n/rate)*time.Second + time.Duration(n%rate)*time.Second/time.Duration(rate)
}

// units is the number of whole timestamp units in d, rounded to the nearest.
func (a *Anchor) units(d time.Duration) int64 {
	rate := time.Duration(a.Rate)
	seconds, rest := d/time.Second, d%time.Second
	if rest < 0 {
		seconds, rest = seconds-1, rest+time.Second
	}
	return int64(seconds*rate + (rest*rate+time.Second/2)/time.Second)
}

// drift is how far the sender's clock may have gone off between two timestamps.
func (a *Anchor) drift(from, to int64) time.Duration { return a.span(max(to-from, 0)) / maxDrift }

// start begins the envelope at a run's first packet.
func (a *Anchor) start(ts int64, arrival Wall) {
	a.Low = time.Duration(arrival) - a.span(ts)
	a.Prev, a.Until = a.Low, ts+a.units(anchorWindow)
	a.Least, a.LeastAt = a.Low, ts
}

// observe takes a packet's arrival into the envelope.
func (a *Anchor) observe(ts int64, arrival Wall) {
	offset := time.Duration(arrival) - a.span(ts)
	a.atLeast(ts, offset)
	window := a.units(anchorWindow)
	switch {
	case ts >= a.Until+window: // after a long silence the old envelope says as much as the clock may not have drifted
		a.Prev = min(a.Low, a.Prev) + a.drift(a.Until-2*window, ts)
		a.Low, a.Until = offset, ts+window
	case ts >= a.Until:
		a.Prev, a.Low, a.Until = a.Low, offset, a.Until+window
	default:
		a.Low = min(a.Low, offset)
	}
}

// atLeast takes in an offset that may be the least.
func (a *Anchor) atLeast(ts int64, offset time.Duration) {
	if offset <= a.Least+a.drift(a.LeastAt, ts) {
		a.Least, a.LeastAt = offset, ts
	}
}

// report takes a sender report: the sender's clock read ntp at timestamp ts.
// What it says cannot place the packets when it differs much, since clocks are
// wrong more often than networks are slow; but that they were sent then is
// not ruled out.
func (a *Anchor) report(ts int64, ntp Wall) {
	offset := time.Duration(ntp) - a.span(ts)
	d := offset - min(a.Low, a.Prev)
	if d >= -maxLate {
		a.atLeast(ts, offset)
	}
	if d < -reportSane || d > reportSane {
		a.Heard = false
		return
	}
	a.Report, a.At, a.Heard = offset, ts, true
}

func (a *Anchor) offset(ts int64) time.Duration {
	if a.Heard && ts-a.At < a.units(reportFresh) {
		return a.Report
	}
	return min(a.Low, a.Prev)
}

// Wall is when the sample at timestamp ts was sent, as now estimated.
func (a *Anchor) Wall(ts int64) Wall { return Wall(a.span(ts) + a.offset(ts)) }

// earliest is when the sample at timestamp ts may have been sent at the
// earliest: what came with the least offset was not late, and the clock has run
// as fast since as it may.
func (a *Anchor) earliest(ts int64) Wall {
	return Wall(a.span(ts) + a.Least - a.drift(a.LeastAt, ts))
}

// After is the number of samples in d.
func (a *Anchor) After(d time.Duration) int64 { return a.units(d) }

// Span is how long n samples last.
func (a *Anchor) Span(n int64) time.Duration { return a.span(n) }
