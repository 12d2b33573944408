package demo

import (
	"fmt"
	"time"

	"tandem/cli/audit"
	"tandem/cli/scenario"
)

// GroupFault is the death of the whole primary group.
type GroupFault struct {
	At       time.Duration // since the demo began
	When     time.Time
	LiveLegs int
	Back     time.Duration  // until it kept every channel again
	LostMs   int64          // what it has not of all its channels, until then
	Twin     *scenario.Twin // what the secondary has, and both together
}

func (f *GroupFault) window() audit.Interval {
	return audit.Interval{From: f.When.Add(-around), To: f.When.Add(f.Back + around)}
}

func (f *GroupFault) report() FaultReport {
	m := f.Twin.Merged
	return GroupFaultReport{
		AtMs: f.At.Milliseconds(), What: "primary_group_killed", Object: primary, LiveLegs: f.LiveLegs, BackMs: f.Back.Milliseconds(), PrimaryMissingMs: f.LostMs,
		MissingAfterMergeMs: m.SentMS - m.RecordedMS, Findings: f.Twin.Findings(),
	}
}

// GroupFaultReport is what it cost.
type GroupFaultReport struct {
	AtMs                int64    `json:"at_ms"`
	What                string   `json:"what"`
	Object              string   `json:"object"`
	LiveLegs            int      `json:"live_legs"`
	BackMs              int64    `json:"back_ms"`                // until the group kept every channel again
	PrimaryMissingMs    int64    `json:"primary_missing_ms"`     // of its copy on all channels, until then
	MissingAfterMergeMs int64    `json:"missing_after_merge_ms"` // from when both groups were up to the end of all calls
	Findings            []string `json:"findings,omitempty"`     // what the secondary noticed, and what is wrong with what both have
}

// passed: both groups together miss nothing, and one does not notice the other.
func (r GroupFaultReport) passed() bool { return r.MissingAfterMergeMs == 0 && len(r.Findings) == 0 }

func (r GroupFaultReport) lines() []string {
	lines := []string{
		fmt.Sprintf("the whole primary group killed (SIGKILL) %s into the demo, %d legs live", seconds(r.AtMs), r.LiveLegs),
		fmt.Sprintf("  it kept every channel after   %6d ms", r.BackMs),
		fmt.Sprintf("  it misses until then          %6d ms of all channels", r.PrimaryMissingMs),
		fmt.Sprintf("  missing after merging         %6d ms of everything in the demo", r.MissingAfterMergeMs),
	}
	for _, what := range r.Findings {
		lines = append(lines, "  ! "+what)
	}
	return lines
}
