package placement

import (
	"cmp"
	"slices"
	"time"

	"tandem/internal/call"
)

// Turret is a turret with channels that need another recorder.
type Turret struct {
	Device   call.DeviceID
	Channels []Channel
}

// Channel is one of them; the lowest rank is the dearest.
type Channel struct {
	ID   call.ChannelID
	Rank int
}

// Given is a channel and the recorder it got.
type Given struct {
	Channel call.ChannelID
	Choice
}

// Left is a channel that nobody can take, and why.
type Left struct {
	Channel call.ChannelID
	Err     *NoneError
}

// Evacuate finds recorders for the channels of many turrets at once, the
// dearest first. Turrets stay whole while everything fits; when it does not,
// each channel is for itself, so that no idle one takes the place of one that
// is spoken on.
func Evacuate(now time.Time, group string, limits Limits, turrets []Turret, recorders []Recorder) ([]Given, []Left) {
	turrets = slices.SortedFunc(slices.Values(turrets), func(a, b Turret) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.Device, b.Device))
	})
	if given, left := place(now, group, limits, turrets, recorders); len(left) == 0 {
		return given, nil
	}
	return place(now, group, limits, single(turrets), recorders)
}

// rank is that of the turret's dearest channel.
func (t Turret) rank() int {
	rank := 0
	for i, ch := range t.Channels {
		if i == 0 || ch.Rank < rank {
			rank = ch.Rank
		}
	}
	return rank
}

// single takes turrets apart, the dearest channels first.
func single(turrets []Turret) []Turret {
	var all []Turret
	for _, t := range turrets {
		for _, ch := range t.Channels {
			all = append(all, Turret{t.Device, []Channel{ch}})
		}
	}
	slices.SortStableFunc(all, func(a, b Turret) int { return cmp.Compare(a.rank(), b.rank()) })
	return all
}

// place gives each turret, in order, as a whole.
func place(now time.Time, group string, limits Limits, turrets []Turret, recorders []Recorder) (given []Given, left []Left) {
	recorders = slices.Clone(recorders)
	for _, t := range turrets {
		choice, err := choose(now, Request{Group: group, Turret: t.Device, Channels: len(t.Channels), Limits: limits}, recorders)
		for _, ch := range t.Channels {
			if err != nil {
				left = append(left, Left{ch.ID, err})
			} else {
				given = append(given, Given{ch.ID, choice})
			}
		}
		if err == nil {
			take(recorders, choice.Recorder, len(t.Channels))
		}
	}
	return given, left
}

// take counts channels as coming to a recorder, or as leaving it.
func take(recorders []Recorder, name call.RecorderName, channels int) {
	for i := range recorders {
		if recorders[i].Name == name {
			recorders[i].Placed += channels
		}
	}
}
