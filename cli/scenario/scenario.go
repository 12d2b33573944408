// Package scenario breaks a floor in named ways and measures what that cost:
// what is done, how the director sees it, and, by the recorded audio itself,
// how much of each call nobody has.
//
// A scenario is a value. What carries it out is a Floor: the lab's namespaces,
// or a site whose switch is simulated.
package scenario

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Action is something done to one daemon or its host.
type Action string

// What can be done, and undone.
const (
	Kill       Action = "kill"        // SIGKILL
	Start      Action = "start"       // as its supervisor would
	Freeze     Action = "freeze"      // SIGSTOP
	Thaw       Action = "thaw"        // SIGCONT
	CutMedia   Action = "cut_media"   // its cable to the media network is pulled
	JoinMedia  Action = "join_media"  // and put back
	CutControl Action = "cut_control" // its cable to the management network
	JoinCtl    Action = "join_control"
	FillDisk   Action = "fill_disk" // not a byte is left
	FreeDisk   Action = "free_disk"
	SlowDisk   Action = "slow_disk" // every sync takes as long as on a dying disk
	QuickDisk  Action = "quick_disk"
	BlackHole  Action = "black_hole" // what is sent to its ports vanishes, no cable is pulled
	Deliver    Action = "deliver"
	Drain      Action = "drain" // planned: nothing may be lost
	Undrain    Action = "undrain"
	Mute       Action = "mute" // what it sends to another one vanishes
	Unmute     Action = "unmute"
	Promote    Action = "promote" // a director is put in charge, as planned
	Lose       Action = "lose"    // the switch loses packets of every copy, each by chance
	Spare      Action = "spare"
)

// Scenario is one way to break a floor. The victims carry all of it, so that
// everybody's audio is at stake.
type Scenario struct {
	Name    string
	Text    string   // what is done, in a few words
	Harm    []Action // to each victim, all at once
	Heal    []Action
	Victims int // so many recorders; everybody is all of them
	// HealAfter is when the fault ends, however the floor is by then; 0 waits
	// until the floor is steady without the victims.
	HealAfter time.Duration
	Quality   Quality // of the media network
	Tight     bool    // the survivors have not room for all
	Planned   bool    // nothing may be missing
	// Targets for the live legs' gaps; 0 promises nothing.
	MedianGap, WorstGap time.Duration // p50 and p99
	// Twin has a second group on the floor, which takes the other copy of every
	// mix and shall notice nothing.
	Twin bool
	// Pair is a scenario about directors, which needs two of them; Harm and
	// Heal are empty then, and a victim is a recorder that suffers with them.
	Pair *Pair
}

// Quality is how a network treats packets, each with a probability.
type Quality struct {
	Loss, Duplicate, Reorder float64
	Delay, Jitter            time.Duration
}

// Perfect tells whether packets go through as they came.
func (q Quality) Perfect() bool { return q == Quality{} }

const (
	dead   = 300 * time.Millisecond  // a process that died: p50
	silent = 800 * time.Millisecond  // one that does not say so
	worst  = time.Second             // p99 of the first
	worse  = 1500 * time.Millisecond // and of the second
)

// All are the scenarios, in the order of the table.
var All = slices.Concat(losses, pairs, twins)

// losses are those about recorders.
var losses = []Scenario{
	{Name: "sigkill", Text: "recorder killed with SIGKILL", Harm: []Action{Kill}, Heal: []Action{Start}, Victims: 1, MedianGap: dead, WorstGap: worst},
	{Name: "sigstop", Text: "recorder frozen with SIGSTOP", Harm: []Action{Freeze}, Heal: []Action{Thaw}, Victims: 1, MedianGap: silent, WorstGap: worse},
	{Name: "media_cut", Text: "media cable pulled", Harm: []Action{CutMedia}, Heal: []Action{JoinMedia}, Victims: 1, MedianGap: silent, WorstGap: worse},
	{Name: "control_cut", Text: "management cable pulled", Harm: []Action{CutControl}, Heal: []Action{JoinCtl}, Victims: 1, MedianGap: silent, WorstGap: worse},
	{Name: "both_cut", Text: "both cables pulled", Harm: []Action{CutMedia, CutControl}, Heal: []Action{JoinMedia, JoinCtl}, Victims: 1, MedianGap: silent, WorstGap: worse},
	{Name: "disk_full", Text: "disk filled to the last byte", Harm: []Action{FillDisk}, Heal: []Action{FreeDisk}, Victims: 1},
	{Name: "slow_disk", Text: "disk that takes a second a write", Harm: []Action{SlowDisk}, Heal: []Action{QuickDisk}, Victims: 1},
	{Name: "black_hole", Text: "packets to the recorder vanish", Harm: []Action{BlackHole}, Heal: []Action{Deliver}, Victims: 1},
	{Name: "restart", Text: "recorder killed, back after 300 ms", Harm: []Action{Kill}, Heal: []Action{Start}, Victims: 1, HealAfter: 300 * time.Millisecond, MedianGap: silent, WorstGap: worse},
	{Name: "two_at_once", Text: "two of three recorders killed", Harm: []Action{Kill}, Heal: []Action{Start}, Victims: 2, MedianGap: dead, WorstGap: worst},
	{Name: "no_room", Text: "recorder killed, the others too small", Harm: []Action{Kill}, Heal: []Action{Start}, Victims: 1, Tight: true},
	{Name: "bad_network", Text: "recorder killed on a network that loses, doubles and delays", Harm: []Action{Kill}, Heal: []Action{Start}, Victims: 1,
		Quality: Quality{Loss: 0.01, Duplicate: 0.01, Reorder: 0.01, Delay: 5 * time.Millisecond, Jitter: 5 * time.Millisecond}},
	{Name: "drain", Text: "recorder drained as planned", Harm: []Action{Drain}, Heal: []Action{Undrain}, Victims: 1, Planned: true},
}

// Names are those of all scenarios.
func Names() []string {
	names := make([]string, len(All))
	for n, s := range All {
		names[n] = s.Name
	}
	return names
}

// Find looks scenarios up by their names; none means all.
func Find(names ...string) ([]Scenario, error) {
	if len(names) == 0 {
		return All, nil
	}
	var found []Scenario
	for _, name := range names {
		n := slices.IndexFunc(All, func(s Scenario) bool { return s.Name == name })
		if n < 0 {
			return nil, fmt.Errorf("no scenario %q: want one of %s", name, strings.Join(Names(), ", "))
		}
		found = append(found, All[n])
	}
	return found, nil
}

// Anywhere tells whether a scenario can be played on a floor that was not
// built for it: processes can be reached there, cables and disks cannot.
func (s Scenario) Anywhere() bool {
	reachable := []Action{Kill, Start, Freeze, Thaw, Drain, Undrain}
	for _, a := range slices.Concat(s.Harm, s.Heal) {
		if !slices.Contains(reachable, a) {
			return false
		}
	}
	return s.Pair == nil && s.Quality.Perfect() && !s.Tight && !s.Twin
}
