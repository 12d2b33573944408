package demo

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"tandem/cli/audit"
	"tandem/cli/scenario"
	"tandem/turretsim/truth"
)

// Report is what a demo ends with; its JSON is a promise to programs.
type Report struct {
	Seed          uint64           `json:"seed"`
	DurationMs    int64            `json:"duration_ms"`
	Turrets       int              `json:"turrets"`
	Channels      int              `json:"channels"`
	Calls         int              `json:"calls"`
	SentMs        int64            `json:"sent_ms"`
	RecordedMs    int64            `json:"recorded_ms"`
	GapMs         int64            `json:"gap_ms"`
	UnexplainedMs int64            `json:"unexplained_ms"`
	DuplicatedMs  int64            `json:"duplicated_ms"`
	ForeignMs     int64            `json:"foreign_ms"` // recorded, and never sent on the channel
	GapsMs        map[string]int64 `json:"gaps_ms"`    // gap_ms by cause
	LateMs        int64            `json:"late_ms"`    // of the switch's own sender, at worst
	// MissingAfterMergeMs is what neither of two groups has; absent where there is one.
	MissingAfterMergeMs *int64        `json:"missing_after_merge_ms,omitempty"`
	Faults              []FaultReport `json:"faults"`
	Directory           string        `json:"directory"`
	Findings            []string      `json:"findings,omitempty"` // the first of what is wrong
}

// Fault is one failure brought about on purpose, as it was seen to happen.
type Fault interface {
	report() FaultReport
}

// FaultReport is what one fault cost; its JSON is a promise to programs.
type FaultReport interface {
	lines() []string
	passed() bool
}

// RecorderFault is a recorder's death.
type RecorderFault struct {
	At       time.Duration // since the demo began
	Object   string
	LiveLegs int
	Detect   time.Duration // negative: not noticed
	Outage   time.Duration
	Steady   time.Duration
	When     time.Time
	Channels map[string]bool // the object's, until then
	// MissingMs is what it cost each leg that was live on those.
	MissingMs []int64
}

// RecorderFaultReport is what a recorder's death cost.
type RecorderFaultReport struct {
	AtMs     int64  `json:"at_ms"`
	What     string `json:"what"`
	Object   string `json:"object"`
	LiveLegs int    `json:"live_legs"`
	DetectMs int64  `json:"detect_ms"` // until the director said so; -1 when it did not notice
	// GapMs is what nobody has of each leg that was live on the object.
	GapMs    scenario.Spread `json:"gap_ms"`
	SteadyMs int64           `json:"steady_ms"` // until the others kept every channel
	OutageMs int64           `json:"outage_ms"` // until the object was taken back
}

func (f *RecorderFault) report() FaultReport {
	detect := f.Detect.Milliseconds()
	if f.Detect < 0 {
		detect = -1
	}
	return RecorderFaultReport{
		AtMs: f.At.Milliseconds(), What: "recorder_killed", Object: f.Object, LiveLegs: f.LiveLegs, DetectMs: detect,
		OutageMs: f.Outage.Milliseconds(), GapMs: scenario.SpreadOf(f.MissingMs), SteadyMs: f.Steady.Milliseconds(),
	}
}

func (r RecorderFaultReport) passed() bool { return true } // what it cost is judged as all audio is

func (r RecorderFaultReport) lines() []string {
	lines := []string{fmt.Sprintf("%s killed (SIGKILL) %s into the demo, %d of its legs live", r.Object, seconds(r.AtMs), r.LiveLegs)}
	if r.DetectMs >= 0 {
		lines = append(lines, fmt.Sprintf("  the director knew after       %6d ms", r.DetectMs))
	}
	return append(lines,
		fmt.Sprintf("  the others kept all after     %6d ms", r.SteadyMs),
		fmt.Sprintf("  it was back after             %6d ms", r.OutageMs),
		fmt.Sprintf("  missing_ms of each live leg   %6d at the median, %d at most", r.GapMs.P50, r.GapMs.Max))
}

// DirectorFault is the death of the director in charge.
type DirectorFault struct {
	At       time.Duration // since the demo began
	Object   string
	When     time.Time
	Takeover time.Duration // until a recorder carried out an order of the other one
	Back     time.Duration // until control was handed back
	LostMs   int64         // audio that nobody has, of all channels, until then
	Stale    int           // times that a recorder obeyed whom it must not any more
}

// around is how much before a director's death, and after control was handed
// back, audio that is missing is put down to it.
const around = time.Second

func (f *DirectorFault) window() audit.Interval {
	return audit.Interval{From: f.When.Add(-around), To: f.When.Add(f.Back + around)}
}

// DirectorFaultReport is what it cost.
type DirectorFaultReport struct {
	AtMs                  int64  `json:"at_ms"`
	What                  string `json:"what"`
	Object                string `json:"object"`
	TakeoverMs            int64  `json:"takeover_ms"`             // until a recorder carried out the other one's first order
	AudioLostMs           int64  `json:"audio_lost_ms"`           // on all channels, until control was handed back
	StaleCommandsAccepted int    `json:"stale_commands_accepted"` // by the recorders' own account
	BackMs                int64  `json:"back_ms"`                 // until control was handed back
}

func (f *DirectorFault) report() FaultReport {
	return DirectorFaultReport{
		AtMs: f.At.Milliseconds(), What: "director_killed", Object: f.Object, TakeoverMs: f.Takeover.Milliseconds(),
		AudioLostMs: f.LostMs, StaleCommandsAccepted: f.Stale, BackMs: f.Back.Milliseconds(),
	}
}

// passed: with a director nothing recorded is lost, and nobody obeys two.
func (r DirectorFaultReport) passed() bool {
	return r.AudioLostMs == 0 && r.StaleCommandsAccepted == 0
}

func (r DirectorFaultReport) lines() []string {
	return []string{
		fmt.Sprintf("%s killed (SIGKILL) %s into the demo, while it led", r.Object, seconds(r.AtMs)),
		fmt.Sprintf("  the other one was obeyed after%6d ms", r.TakeoverMs),
		fmt.Sprintf("  it got control back after     %6d ms", r.BackMs),
		fmt.Sprintf("  audio lost until then         %6d ms", r.AudioLostMs),
		fmt.Sprintf("  stale commands obeyed         %6d", r.StaleCommandsAccepted),
	}
}

// Facts is all that a report is made of.
type Facts struct {
	Seed      uint64
	Duration  time.Duration
	Turrets   int
	Channels  int
	Calls     int
	Late      time.Duration // of the switch's own sender, at worst
	Faults    []Fault
	Verdict   truth.Verdict
	Directory string
}

// tooBusy is how late the switch's sender must have been to explain what is
// wrong: recorders hear all that it sends, but not when it says.
const tooBusy = time.Second

// NewReport computes the report.
func NewReport(f Facts) Report {
	v := f.Verdict
	r := Report{
		Seed: f.Seed, DurationMs: f.Duration.Milliseconds(), Turrets: f.Turrets, Channels: f.Channels, Calls: f.Calls,
		SentMs: v.SentMS, RecordedMs: v.RecordedMS, GapMs: v.GapMS, UnexplainedMs: v.UnexplainedMS, DuplicatedMs: v.DuplicatedMS, ForeignMs: v.ForeignMS,
		GapsMs: map[string]int64{}, Faults: []FaultReport{}, Directory: f.Directory, Findings: v.Findings, LateMs: f.Late.Milliseconds(),
	}
	maps.Copy(r.GapsMs, v.GapsMS)
	for _, fault := range f.Faults {
		one := fault.report()
		r.Faults = append(r.Faults, one)
		if group, ok := one.(GroupFaultReport); ok {
			r.MissingAfterMergeMs = &group.MissingAfterMergeMs
		}
	}
	if f.Late >= tooBusy && !r.Passed() {
		r.Findings = append([]string{fmt.Sprintf("the switch's own sender was %d ms late: this machine is too busy to be judged", r.LateMs)}, r.Findings...)
	}
	return r
}

// Passed tells whether everything sent was recorded once, or is in a gap that
// says why, and a director's death cost nothing. A floor that sent nothing
// proves nothing. A finding of less than a millisecond is one.
func (r Report) Passed() bool {
	if slices.ContainsFunc(r.Faults, func(f FaultReport) bool { return !f.passed() }) {
		return false
	}
	return len(r.Findings) == 0 && r.UnexplainedMs == 0 && r.DuplicatedMs == 0 && r.ForeignMs == 0 && r.SentMs > 0 && r.RecordedMs > 0
}

// whyCause says what a cause means, for those who read the report.
var whyCause = map[string]string{
	"interrupted": "the recorder was not running",
	"loss":        "sent and never arrived",
	"outage":      "the channel was attached and nothing came",
	"disk":        "arrived, and could not be written in time",
	"failover":    "between the recorder that died and the one that went on",
}

// Lines are the report for people.
func (r Report) Lines() []string {
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, f := range r.Faults {
		lines = append(lines, f.lines()...)
	}
	say("")
	say("of %d channels' audio, by the tones in it:", r.Channels)
	say("  sent         %9d ms", r.SentMs)
	say("  recorded     %9d ms", r.RecordedMs)
	say("  in gaps      %9d ms", r.GapMs)
	for _, cause := range slices.SortedFunc(maps.Keys(r.GapsMs), func(a, b string) int { return cmp.Or(cmp.Compare(r.GapsMs[b], r.GapsMs[a]), cmp.Compare(a, b)) }) {
		say("    %-12s %7d ms  %s", cause, r.GapsMs[cause], whyCause[cause])
	}
	say("  unexplained  %9d ms", r.UnexplainedMs)
	say("  twice        %9d ms", r.DuplicatedMs)
	if r.ForeignMs > 0 {
		say("  never sent   %9d ms", r.ForeignMs)
	}
	for _, f := range r.Findings {
		say("  ! %s", f)
	}
	return lines
}

func seconds(ms int64) string { return fmt.Sprintf("%d.%d s", ms/1000, ms%1000/100) }
