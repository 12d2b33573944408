package placement

import (
	"cmp"
	"fmt"
	"slices"

	"tandem/internal/call"
)

// Held is a turret and the recorder that has all of it.
type Held struct {
	Session  call.SessionID
	Device   call.DeviceID
	Recorder call.RecorderName
	Channels int
	Live     bool // somebody speaks
}

// Move is a turret that had better be elsewhere.
type Move struct {
	Held
	To call.RecorderName
}

// Rebalance lists the moves after which recorders of equal priority are
// evenly filled, and none is used while one of a lower priority number has
// room. Turrets that are idle move before those that are spoken on, and none
// twice.
func Rebalance(group string, limits Limits, turrets []Held, recorders []Recorder) []Move {
	recorders = slices.Clone(recorders)
	turrets = slices.SortedFunc(slices.Values(turrets), func(a, b Held) int {
		return cmp.Or(boolCompare(a.Live, b.Live), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Session, b.Session))
	})
	var moves []Move
	move := func(i int, to call.RecorderName) {
		t := turrets[i]
		take(recorders, t.Recorder, -t.Channels)
		take(recorders, to, t.Channels)
		moves = append(moves, Move{t, to})
		turrets = slices.Delete(turrets, i, i+1)
	}
	for i := 0; i < len(turrets); {
		if to, ok := before(group, limits, turrets[i], recorders); ok {
			move(i, to)
		} else {
			i++
		}
	}
	for {
		i, to, ok := levelling(group, limits, turrets, recorders)
		if !ok {
			return moves
		}
		move(i, to)
	}
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// before finds the emptiest recorder that should be filled before the turret's own.
func before(group string, limits Limits, t Held, recorders []Recorder) (call.RecorderName, bool) {
	own := find(recorders, t.Recorder)
	if own == nil {
		return "", false
	}
	var best *Recorder
	for i := range recorders {
		r := &recorders[i]
		if r.Priority >= own.Priority || refuse(Request{Group: group, Channels: t.Channels, Limits: limits}, *r) != "" {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(r.Priority, best.Priority), cmp.Compare(r.filled(), best.filled()), cmp.Compare(r.Name, best.Name)) < 0 {
			best = r
		}
	}
	if best == nil {
		return "", false
	}
	return best.Name, true
}

// levelling finds the first turret whose move makes the fullest recorder of a
// priority less full than it was and leaves the target below that.
func levelling(group string, limits Limits, turrets []Held, recorders []Recorder) (int, call.RecorderName, bool) {
	byFill := slices.SortedFunc(slices.Values(recorders), func(a, b Recorder) int {
		return cmp.Or(cmp.Compare(b.filled(), a.filled()), cmp.Compare(a.Name, b.Name))
	})
	for _, from := range byFill {
		for j := len(byFill) - 1; j >= 0; j-- {
			to := byFill[j]
			if to.Priority != from.Priority || to.filled() >= from.filled() {
				continue
			}
			for i, t := range turrets {
				if t.Recorder != from.Name || refuse(Request{Group: group, Channels: t.Channels, Limits: limits}, to) != "" {
					continue
				}
				after := to
				after.Placed += t.Channels
				if after.filled() < from.filled() {
					return i, to.Name, true
				}
			}
		}
	}
	return 0, "", false
}

func find(recorders []Recorder, name call.RecorderName) *Recorder {
	i := slices.IndexFunc(recorders, func(r Recorder) bool { return r.Name == name })
	if i < 0 {
		return nil
	}
	return &recorders[i]
}

// filled is how full a recorder is of channels; one without a limit counts
// channels against others without.
func (r Recorder) filled() float64 {
	channels := float64(r.Load.Channels + r.Placed)
	if r.Load.MaxChannels > 0 {
		return channels / float64(r.Load.MaxChannels)
	}
	return channels / 1e6
}

// Headroom says whether the others could take all that the busiest recorder
// has.
type Headroom struct {
	Busiest call.RecorderName
	Enough  bool
	Text    string // for people
}

// Spare reads the headroom of a group off its recorders.
func Spare(group string, recorders []Recorder) Headroom {
	ready := slices.DeleteFunc(slices.Clone(recorders), func(r Recorder) bool { return r.Group != group || !r.Ready })
	if len(ready) == 0 {
		return Headroom{Text: "no recorder is ready"}
	}
	busiest := slices.MinFunc(ready, func(a, b Recorder) int {
		return cmp.Or(cmp.Compare(b.channels(), a.channels()), cmp.Compare(a.Name, b.Name))
	})
	h := Headroom{Busiest: busiest.Name}
	if len(ready) == 1 {
		h.Text = fmt.Sprintf("%s is the only one ready: lost with it would be %d channels", busiest.Name, busiest.channels())
		return h
	}
	room, unlimited := 0, false
	for _, r := range ready {
		if r.Name != busiest.Name {
			n, bounded := r.room()
			room, unlimited = room+n, unlimited || !bounded
		}
	}
	h.Enough = unlimited || room >= busiest.channels()
	switch {
	case unlimited:
		h.Text = fmt.Sprintf("%s could be lost: the others take its %d channels", busiest.Name, busiest.channels())
	case h.Enough:
		h.Text = fmt.Sprintf("%s could be lost: the others have room for %d channels, it has %d", busiest.Name, room, busiest.channels())
	default:
		h.Text = fmt.Sprintf("%s cannot be lost: it has %d channels, the others have room for %d", busiest.Name, busiest.channels(), room)
	}
	return h
}

func (r Recorder) channels() int { return r.Load.Channels + r.Placed }

// room is how many more channels a recorder takes, as far as it is bounded.
func (r Recorder) room() (channels int, bounded bool) {
	const unbounded = 1 << 30
	channels = unbounded
	if r.Load.MaxChannels > 0 {
		channels = r.Load.MaxChannels - r.channels()
	}
	if r.Load.MaxPackets > 0 {
		spare := r.Load.MaxPackets - r.Load.Packets - float64(r.Placed)*PacketsPerChannel
		channels = min(channels, int(spare/PacketsPerChannel))
	}
	return max(0, channels), channels < unbounded
}
