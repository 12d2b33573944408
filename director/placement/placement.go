// Package placement decides which recorder takes a turret's channels. It is
// pure: equal input gives equal output, whatever the order of the recorders.
package placement

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strings"
	"time"

	"tandem/internal/call"
)

// PacketsPerChannel is what one channel is expected to bring: 20 ms of audio a packet.
const PacketsPerChannel = 50

// cpuPerChannel is the share of a host's processor, in percent, that one
// channel is expected to cost: 50 packets of about two microseconds.
const cpuPerChannel = 0.01

// usualChannels is what a recorder is taken to bear that tells no limit: the
// default of one that does.
const usualChannels = 5000

// resolution is the difference of scores that counts; within it the turret's
// own preference decides, so that measuring noise moves nobody.
const resolution = 0.01

// firstWeight is the share of its strength a recorder that just returned is trusted with.
const firstWeight = 0.1

// Load is what a recorder last said of itself.
type Load struct {
	CPU          float64 // of the whole host, 0-100
	Channels     int
	MaxChannels  int     // 0: not limited
	Packets      float64 // a second
	MaxPackets   float64 // 0: not limited
	JournalQueue float64 // 0-1
	DiskWrite    time.Duration
	DiskFree     uint64
	DiskTotal    uint64 // 0: not known
}

// Recorder is one candidate.
type Recorder struct {
	Name     call.RecorderName
	Group    string
	Priority int // the lowest number is filled first
	Ready    bool
	Reason   string    // why not ready
	Since    time.Time // when it became ready
	Placed   int       // channels placed here that Load does not show yet
	Load     Load
}

// Limits are the values at which a recorder counts as full.
type Limits struct {
	CPU          float64 // percent of the host
	JournalQueue float64 // 0-1
	DiskWrite    time.Duration
	DiskReserve  float64 // percent of the disk that is never given away
	SlowStart    time.Duration
}

// Request asks for a place for all the channels of one turret.
type Request struct {
	Group    string
	Turret   call.DeviceID
	Channels int
	Limits   Limits
}

// Choice is the answer, with the sentence people read.
type Choice struct {
	Recorder call.RecorderName
	Reason   string
}

// Refusal is why one recorder cannot take a request.
type Refusal struct {
	Recorder call.RecorderName
	Reason   string
}

// NoneError says of every recorder why it is not the one.
type NoneError struct {
	Turret   call.DeviceID
	Refusals []Refusal
}

func (e *NoneError) Error() string {
	if len(e.Refusals) == 0 {
		return fmt.Sprintf("place turret %s: no recorder configured", e.Turret)
	}
	parts := make([]string, len(e.Refusals))
	for i, r := range e.Refusals {
		parts[i] = fmt.Sprintf("%s: %s", r.Recorder, r.Reason)
	}
	return fmt.Sprintf("place turret %s: %s", e.Turret, strings.Join(parts, ", "))
}

// Choose picks the recorder for a request: of its own group, ready, under
// every hard limit, lowest priority number first, then lowest score; equal
// scores are told apart by the turret's own stable order of recorders. The
// error is a *NoneError.
func Choose(now time.Time, req Request, recorders []Recorder) (Choice, error) {
	choice, none := choose(now, req, recorders)
	if none != nil {
		return Choice{}, none
	}
	return choice, nil
}

func choose(now time.Time, req Request, recorders []Recorder) (Choice, *NoneError) {
	sorted := slices.SortedFunc(slices.Values(recorders), func(a, b Recorder) int { return cmp.Compare(a.Name, b.Name) })
	none := &NoneError{Turret: req.Turret}
	var fit []candidate
	for _, r := range sorted {
		if why := refuse(req, r); why != "" {
			none.Refusals = append(none.Refusals, Refusal{r.Name, why})
			continue
		}
		s, by := Score(now, req.Limits, r, req.Channels)
		fit = append(fit, candidate{r, math.Round(s / resolution), s, by, affinity(req.Turret, r.Name)})
	}
	if len(fit) == 0 {
		return Choice{}, none
	}
	best := slices.MinFunc(fit, candidate.compare)
	return Choice{Recorder: best.Name, Reason: best.reason(fit)}, nil
}

// refuse names the hard limit that keeps r from taking the request, or "".
func refuse(req Request, r Recorder) string {
	channels := r.Load.Channels + r.Placed + req.Channels
	packets := r.Load.Packets + float64(r.Placed+req.Channels)*PacketsPerChannel
	switch {
	case r.Group != req.Group:
		return fmt.Sprintf("wrong group %q", r.Group)
	case !r.Ready && r.Reason != "":
		return r.Reason
	case !r.Ready:
		return "not ready"
	case r.Load.MaxChannels > 0 && channels > r.Load.MaxChannels:
		return fmt.Sprintf("%d of %d channels", r.Load.Channels+r.Placed, r.Load.MaxChannels)
	case r.Load.MaxPackets > 0 && packets > r.Load.MaxPackets:
		return fmt.Sprintf("%.0f of %.0f packets/s", packets-float64(req.Channels)*PacketsPerChannel, r.Load.MaxPackets)
	case r.Load.DiskTotal > 0 && freePercent(r.Load) < req.Limits.DiskReserve:
		return fmt.Sprintf("disk %.1f%% free", freePercent(r.Load))
	}
	return ""
}

// Score says how full r would be with more channels, 1 and more meaning full, and
// which measure says so. What was placed since the last report is added to
// it at its expected cost, so that a burst of logons does not all land on
// the recorder that looked emptiest a second ago. A recorder that just
// returned counts with a part of its strength only and is filled gradually.
//
// What it carries is compared as it is; what its host suffers comes on top. That
// too is at most 1, so that where all hosts are at their limit, or several
// recorders share one, what they carry still decides.
func Score(now time.Time, limits Limits, r Recorder, more int) (score float64, by string) {
	coming := float64(r.Placed + more)
	score, by = (float64(r.Load.Channels)+coming)/float64(cmp.Or(r.Load.MaxChannels, usualChannels)), "channels"
	if r.Load.MaxPackets > 0 {
		if packets := (r.Load.Packets + coming*PacketsPerChannel) / r.Load.MaxPackets; packets > score {
			score, by = packets, "packets"
		}
	}
	score /= weight(now, limits.SlowStart, r.Since)
	worst, of := 0.0, ""
	for _, m := range []struct {
		name   string
		strain float64
	}{
		{"cpu", strain(r.Load.CPU+coming*cpuPerChannel, limits.CPU)},
		{"journal", strain(r.Load.JournalQueue, limits.JournalQueue)},
		{"disk write", strain(float64(r.Load.DiskWrite), float64(limits.DiskWrite))},
		{"disk space", diskPenalty(r.Load, limits.DiskReserve)},
	} {
		if m.strain > worst {
			worst, of = m.strain, m.name
		}
	}
	if worst > score {
		by = of
	}
	return score + worst, by
}

// strain is how near a measure is to its limit, 0 to 1, that says little of how many
// more channels a recorder bears: an idle disk may take a tenth or a third of the
// limit for a write, and a host a third of its processors for something else, or
// for the instant in which it was measured. Cubed, it counts for little until it is near.
func strain(value, limit float64) float64 {
	if limit <= 0 {
		return 0
	}
	share := value / limit
	return min(1, share*share*share)
}

// weight grows from firstWeight to 1 while a recorder that returned at since warms up.
func weight(now time.Time, slowStart time.Duration, since time.Time) float64 {
	up := now.Sub(since)
	if slowStart <= 0 || up >= slowStart {
		return 1
	}
	return firstWeight + (1-firstWeight)*max(0, up.Seconds()/slowStart.Seconds())
}

// diskPenalty rises from 0 at three times the reserve to 1 at the reserve.
func diskPenalty(l Load, reserve float64) float64 {
	if l.DiskTotal == 0 || reserve <= 0 {
		return 0
	}
	return min(1, max(0, (3*reserve-freePercent(l))/(2*reserve)))
}

func freePercent(l Load) float64 { return 100 * float64(l.DiskFree) / float64(l.DiskTotal) }

// affinity is the rendezvous hash of a turret and a recorder: each turret has
// its own order of recorders, and losing one moves only that one's turrets.
func affinity(turret call.DeviceID, name call.RecorderName) uint64 {
	h := fnv.New64a()
	h.Write([]byte(turret))
	h.Write([]byte{0})
	h.Write([]byte(name))
	// FNV alone spreads the last bytes, where recorder names differ, badly over the high bits.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}

type candidate struct {
	Recorder
	rounded  float64
	score    float64
	by       string
	affinity uint64
}

func (c candidate) compare(d candidate) int {
	return cmp.Or(
		cmp.Compare(c.Priority, d.Priority),
		cmp.Compare(c.rounded, d.rounded),
		cmp.Compare(d.affinity, c.affinity),
		cmp.Compare(c.Name, d.Name),
	)
}

func (c candidate) reason(fit []candidate) string {
	same := 0
	for _, f := range fit {
		if f.Priority == c.Priority {
			same++
		}
	}
	if same == 1 {
		return fmt.Sprintf("only one ready at priority %d, score %.2f (%s)", c.Priority, c.score, c.by)
	}
	return fmt.Sprintf("lowest score %.2f (%s) of %d ready at priority %d", c.score, c.by, same, c.Priority)
}
