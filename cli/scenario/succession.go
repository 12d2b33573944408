package scenario

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"tandem/cli/process"
)

// Obeys is a time from which on a recorder obeyed somebody else than before,
// as it says itself in its log.
type Obeys struct {
	Recorder, Director string
	Epoch              uint64
	Fence              bool      // this was a fence, which changes nothing; orders came later
	At                 time.Time // of the first order
	Last               time.Time // of the newest order obeyed before, of whatever epoch; zero: since it started there was none
}

// Obedience is whom recorders obeyed in all their lives, each in its order.
func Obedience(recorders []*process.Process) ([]Obeys, error) {
	var all []Obeys
	for _, p := range recorders {
		said, err := p.Said("obeys")
		if err != nil {
			return nil, err
		}
		for _, line := range said {
			o, err := parseObeys(p.Name, line)
			if err != nil {
				return nil, fmt.Errorf("read log of %s: %w", p.Name, err)
			}
			all = append(all, o)
		}
	}
	return all, nil
}

func parseObeys(recorder string, line map[string]string) (o Obeys, err error) {
	o.Recorder, o.Director, o.Fence = recorder, line["director"], line["fence"] == "true"
	if o.Epoch, err = strconv.ParseUint(line["epoch"], 10, 64); err != nil {
		return o, err
	}
	if o.At, err = time.Parse(time.RFC3339, line["time"]); err != nil {
		return o, err
	}
	last, err := time.Parse(time.RFC3339, line["last"])
	if err == nil && last.Year() > 1 {
		o.Last = last
	}
	return o, err
}

// Succession is the first order, not only a fence, that any recorder obeyed
// under an epoch after the given one.
func Succession(all []Obeys, epoch uint64) (first Obeys, ok bool) {
	for _, o := range all {
		if o.Epoch > epoch && !o.Fence && (!ok || o.At.Before(first.At)) {
			first, ok = o, true
		}
	}
	return first, ok
}

// Stale is how often a recorder obeyed whom it must not any more: it went back
// to an older epoch, or still obeyed one when orders of a newer one were being
// carried out anywhere.
func Stale(all []Obeys) int {
	acted := func(after uint64, before time.Time) bool {
		return slices.ContainsFunc(all, func(o Obeys) bool { return o.Epoch > after && !o.Fence && o.At.Before(before) })
	}
	stale := 0
	was := map[string]uint64{}
	for _, o := range all {
		if o.Epoch < was[o.Recorder] || !o.Last.IsZero() && acted(was[o.Recorder], o.Last) {
			stale++
		}
		was[o.Recorder] = max(was[o.Recorder], o.Epoch)
	}
	return stale
}
