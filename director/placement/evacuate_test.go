package placement

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tandem/internal/call"
)

// turret makes one whose channels have the given ranks.
func turret(name string, ranks ...int) Turret {
	t := Turret{Device: call.DeviceID(name)}
	for i, rank := range ranks {
		t.Channels = append(t.Channels, Channel{call.ChannelID(fmt.Sprint(name, ".m", i+1)), rank})
	}
	return t
}

func TestEvacuateKeepsTurretsWhole(t *testing.T) {
	given, left := Evacuate(noon, "primary", limits, []Turret{turret("t1", 0, 10, 10), turret("t2", 1, 11)}, []Recorder{ready("a"), ready("b")})
	if len(left) > 0 || len(given) != 5 {
		t.Fatalf("given %v, left %v", given, left)
	}
	if string(given[0].Channel) != "t1.m1" {
		t.Errorf("first is %s, not the dearest", given[0].Channel)
	}
	for _, of := range [][]Given{given[:3], given[3:]} {
		for _, g := range of {
			if g.Recorder != of[0].Recorder {
				t.Errorf("turret taken apart: %v", of)
			}
		}
	}
}

// Without room for all, whoever is spoken on goes first, whatever turret it is of.
func TestEvacuateWithoutRoom(t *testing.T) {
	only := with(ready("a"), func(r *Recorder) { r.Load.Channels, r.Load.MaxChannels = 96, 100 })
	given, left := Evacuate(noon, "primary", limits, []Turret{turret("t1", 0, 10, 11), turret("t2", 1, 12), turret("t3", 10, 2)}, []Recorder{only})
	var got []string
	for _, g := range given {
		got = append(got, string(g.Channel))
	}
	slices.Sort(got)
	if want := "t1.m1 t1.m2 t2.m1 t3.m2"; strings.Join(got, " ") != want && strings.Join(got, " ") != "t1.m1 t2.m1 t3.m1 t3.m2" {
		t.Errorf("given %v, want %s", got, want)
	}
	if len(left) != 3 {
		t.Fatalf("left %v", left)
	}
	for _, l := range left {
		if !strings.Contains(l.Err.Error(), "a: 100 of 100 channels") {
			t.Errorf("%s: %v", l.Channel, l.Err)
		}
	}
}

func drawTurrets(t *rapid.T) []Turret {
	turrets := make([]Turret, rapid.IntRange(0, 30).Draw(t, "turrets"))
	for i := range turrets {
		ranks := rapid.SliceOfN(rapid.IntRange(0, 13), 1, 6).Draw(t, "ranks")
		turrets[i] = turret(fmt.Sprint("t", i), ranks...)
	}
	return turrets
}

// Every channel is given or left, once; nobody gets more than it has room
// for, or anything when it is not ready; and nothing dearer is left while
// something cheaper was given, unless only a recorder of its kind could not.
func TestEvacuateProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		recorders := make([]Recorder, rapid.IntRange(0, 4).Draw(t, "n"))
		for i := range recorders {
			recorders[i] = drawRecorder(t, i)
		}
		turrets := drawTurrets(t)
		given, left := Evacuate(noon, "primary", limits, turrets, recorders)
		again, _ := Evacuate(noon, "primary", limits, turrets, reversed(recorders))
		if fmt.Sprint(given) != fmt.Sprint(again) {
			t.Fatalf("the order of recorders decides: %v and %v", given, again)
		}
		ranks, seen := map[call.ChannelID]int{}, map[call.ChannelID]bool{}
		for _, tr := range turrets {
			for _, ch := range tr.Channels {
				ranks[ch.ID] = ch.Rank
			}
		}
		per := map[call.RecorderName]int{}
		dearestLeft, cheapestGiven := 1<<30, -1
		for _, g := range given {
			seen[g.Channel] = true
			per[g.Recorder]++
			cheapestGiven = max(cheapestGiven, ranks[g.Channel])
		}
		for _, l := range left {
			if seen[l.Channel] {
				t.Fatalf("%s given and left", l.Channel)
			}
			seen[l.Channel] = true
			dearestLeft = min(dearestLeft, ranks[l.Channel])
		}
		if len(seen) != len(ranks) || len(given)+len(left) != len(ranks) {
			t.Fatalf("%d channels, %d given, %d left", len(ranks), len(given), len(left))
		}
		if len(left) > 0 && cheapestGiven > dearestLeft {
			t.Fatalf("rank %d given while rank %d is left", cheapestGiven, dearestLeft)
		}
		for name := range maps.Keys(per) {
			r := find(recorders, name)
			if why := refuse(Request{Group: "primary", Channels: per[name], Limits: limits}, *r); why != "" {
				t.Fatalf("%s got %d channels: %s", name, per[name], why)
			}
		}
	})
}

// After a rebalance recorders of a priority differ by no more than the
// largest turret, and none moved twice.
func TestRebalanceProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		recorders := make([]Recorder, rapid.IntRange(1, 4).Draw(t, "n"))
		for i := range recorders {
			recorders[i] = with(ready(fmt.Sprint("rec-", i)), func(r *Recorder) { r.Load.MaxPackets = 0 })
		}
		turrets := make([]Held, rapid.IntRange(0, 40).Draw(t, "turrets"))
		largest := 0
		for i := range turrets {
			r := &recorders[rapid.IntRange(0, len(recorders)-1).Draw(t, "on")]
			turrets[i] = Held{Session: call.SessionID(fmt.Sprint("s", i)), Device: call.DeviceID(fmt.Sprint("t", i)), Recorder: r.Name,
				Channels: rapid.IntRange(1, 8).Draw(t, "channels"), Live: rapid.Bool().Draw(t, "live")}
			r.Load.Channels += turrets[i].Channels
			largest = max(largest, turrets[i].Channels)
		}
		moves := Rebalance("primary", limits, turrets, recorders)
		moved := map[call.SessionID]bool{}
		for _, m := range moves {
			if moved[m.Session] {
				t.Fatalf("%s moves twice", m.Session)
			}
			moved[m.Session] = true
			find(recorders, m.Recorder).Load.Channels -= m.Channels
			find(recorders, m.To).Load.Channels += m.Channels
		}
		least, most := 1<<30, 0
		for _, r := range recorders {
			least, most = min(least, r.Load.Channels), max(most, r.Load.Channels)
		}
		if most-least > largest {
			t.Fatalf("from %d to %d channels, the largest turret has %d", least, most, largest)
		}
	})
}

func TestRebalancePrefersPriorityAndIdleTurrets(t *testing.T) {
	first := with(ready("first"), func(r *Recorder) { r.Load.Channels = 4 })
	spare := with(ready("spare"), func(r *Recorder) { r.Priority, r.Load.Channels = 1, 8 })
	moves := Rebalance("primary", limits, []Held{
		{Session: "s1", Device: "t1", Recorder: "spare", Channels: 4, Live: true}, {Session: "s2", Device: "t2", Recorder: "spare", Channels: 4},
		{Session: "s3", Device: "t3", Recorder: "first", Channels: 4},
	}, []Recorder{first, spare})
	if len(moves) != 2 || moves[0].Session != "s2" || moves[1].Session != "s1" || moves[0].To != "first" {
		t.Errorf("moves %v", moves)
	}
}

func TestSpare(t *testing.T) {
	a := with(ready("a"), func(r *Recorder) { r.Load.Channels = 600 })
	b := with(ready("b"), func(r *Recorder) { r.Load.Channels = 300 })
	c := with(ready("c"), func(r *Recorder) { r.Ready, r.Reason = false, "draining" })
	for name, test := range map[string]struct {
		recorders []Recorder
		enough    bool
		text      string
	}{
		"nobody":    {nil, false, "no recorder is ready"},
		"only one":  {[]Recorder{a, c}, false, "a is the only one ready: lost with it would be 600 channels"},
		"enough":    {[]Recorder{a, b}, true, "a could be lost: the others have room for 700 channels, it has 600"},
		"not":       {[]Recorder{with(a, func(r *Recorder) { r.Load.Channels = 701 }), b}, false, "a cannot be lost: it has 701 channels, the others have room for 700"},
		"unlimited": {[]Recorder{a, with(b, func(r *Recorder) { r.Load.MaxChannels, r.Load.MaxPackets = 0, 0 })}, true, "a could be lost: the others take its 600 channels"},
		"packets":   {[]Recorder{a, with(b, func(r *Recorder) { r.Load.Packets = 30_000 })}, false, "a cannot be lost: it has 600 channels, the others have room for 400"},
	} {
		if got := Spare("primary", test.recorders); got.Enough != test.enough || got.Text != test.text {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func reversed(recorders []Recorder) []Recorder {
	recorders = slices.Clone(recorders)
	slices.Reverse(recorders)
	return recorders
}
