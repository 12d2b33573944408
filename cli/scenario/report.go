package scenario

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Result is one scenario played once.
type Result struct {
	Fault     Fault
	Judgement Judgement
	Began     time.Time
	Calls     int
	Directory string
}

// Report is what a lab or a drill ends with; its JSON is a promise to programs.
type Report struct {
	DurationMs    int64         `json:"duration_ms"`
	Turrets       int           `json:"turrets"`
	Channels      int           `json:"channels"`
	Calls         int           `json:"calls"`
	SentMs        int64         `json:"sent_ms"`
	RecordedMs    int64         `json:"recorded_ms"`
	GapMs         int64         `json:"gap_ms"`
	UnexplainedMs int64         `json:"unexplained_ms"`
	DuplicatedMs  int64         `json:"duplicated_ms"`
	ForeignMs     int64         `json:"foreign_ms"` // recorded, and never sent on the channel
	Faults        []FaultReport `json:"faults"`     // one for each time a scenario was played
	Rows          []Row         `json:"rows"`       // one for each scenario
	Passed        bool          `json:"passed"`
}

// FaultReport is what one fault cost.
type FaultReport struct {
	Seed          uint64      `json:"seed"`
	AtMs          int64       `json:"at_ms"`
	What          string      `json:"what"`
	Object        string      `json:"object"`
	LiveLegs      int         `json:"live_legs"`
	DetectMs      int64       `json:"detect_ms"` // until the director said so; -1 when it never did
	GapMs         Spread      `json:"gap_ms"`    // what nobody has of each live leg
	SteadyMs      int64       `json:"steady_ms"` // until nothing moved and everything was recorded; -1 when never
	Stranded      int         `json:"stranded"`  // channels that found no room while it lasted
	UnexplainedMs int64       `json:"unexplained_ms"`
	DuplicatedMs  int64       `json:"duplicated_ms"`
	MissingMs     int64       `json:"missing_ms"`          // on all channels, the whole time
	LateMs        int64       `json:"late_ms"`             // of the switch's own sender, at worst: gaps may be off by this
	Directors     *Reign      `json:"directors,omitempty"` // of a scenario about them
	Twin          *TwinReport `json:"twin,omitempty"`      // of a scenario with two groups
	Findings      []string    `json:"findings,omitempty"`
	Directory     string      `json:"directory,omitempty"` // kept when there are findings
}

// Reign is what became of the directors.
type Reign struct {
	TakeoverMs  int64  `json:"takeover_ms"`  // until a recorder carried out an order of the next epoch; -1 when none came
	Leads       string `json:"leads"`        // in the end of the fault
	RoleChanges int    `json:"role_changes"` // times that a director began to lead, until the floor was mended
	StaleOrders int    `json:"stale_orders"` // times that a recorder obeyed whom it must not any more
	Invites     int    `json:"invites"`      // dialogs that the switch was asked for meanwhile
	Byes        int    `json:"byes"`
}

// Reigns is the same over all seeds.
type Reigns struct {
	TakeoverMs  Spread   `json:"takeover_ms"` // of those that took over
	Takeovers   int      `json:"takeovers"`
	Leads       []string `json:"leads"`
	RoleChanges int      `json:"role_changes"`
	StaleOrders int      `json:"stale_orders"`
	MissingMs   int64    `json:"missing_ms"`
}

// Row is one scenario over all seeds.
type Row struct {
	Fault         string      `json:"fault"`
	Text          string      `json:"text"`
	Seeds         int         `json:"seeds"`
	LiveLegs      int         `json:"live_legs"` // on average
	GapMs         Spread      `json:"gap_ms"`    // over the legs of all seeds
	UnexplainedMs int64       `json:"unexplained_ms"`
	DuplicatedMs  int64       `json:"duplicated_ms"`
	DetectMs      Spread      `json:"detect_ms"`
	SteadyMs      Spread      `json:"steady_ms"`
	Directors     *Reigns     `json:"directors,omitempty"` // of a scenario about them
	Twin          *TwinReport `json:"twin,omitempty"`      // of a scenario with two groups
	Findings      int         `json:"findings"`
}

// Spread tells how a length of time varies.
type Spread struct {
	P50 int64 `json:"p50"`
	P99 int64 `json:"p99"`
	Max int64 `json:"max"`
}

// SpreadOf is the nearest-rank percentiles; all zero for no lengths.
func SpreadOf(lengths []int64) Spread {
	if len(lengths) == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(lengths))
	at := func(percent int) int64 { return sorted[(len(sorted)*percent+99)/100-1] }
	return Spread{at(50), at(99), at(100)}
}

func wholeMs(d time.Duration) int64 {
	if d < 0 {
		return -1
	}
	return d.Milliseconds()
}

// tooBusy is how late the switch's own sender must have been to explain what is
// wrong: what it sends late is judged by when it left, but gaps are shorter
// while it sends nothing, and whoever waits for it waits longer.
const tooBusy = time.Second

// Findings are what is wrong with a result, worst first. Targets count only
// where they are asked for: a busy machine misses them without losing a word.
func (r Result) Findings(targets bool) []string {
	var found []string
	say := func(wrong bool, format string, args ...any) {
		if wrong {
			found = append(found, fmt.Sprintf(format, args...))
		}
	}
	v, s, f := r.Judgement.Verdict, r.Fault.Scenario, r.Fault
	say(v.SentMS == 0 || v.RecordedMS == 0, "nothing was sent or nothing recorded: this proves nothing")
	say(r.Judgement.LiveLegs == 0, "no leg was live on the victim: this proves little")
	say(v.UnexplainedMS > 0, "%d ms are missing and no gap says so", v.UnexplainedMS)
	say(v.DuplicatedMS > 0, "%d ms are there twice", v.DuplicatedMS)
	say(v.ForeignMS > 0, "%d ms were never sent", v.ForeignMS)
	say(!f.Recovered, "the floor was not whole in the end")
	say(f.Steady < 0, "the floor was not steady without %v", f.Victims)
	say(s.Planned && v.SentMS != v.RecordedMS, "%d ms are missing, of a planned move", v.SentMS-v.RecordedMS)
	if f.Rule != nil {
		f.Rule.judge(s, targets, say)
		say(s.Victims == 0 && v.SentMS != v.RecordedMS, "%d ms are missing, and only directors were broken", v.SentMS-v.RecordedMS)
	}
	if f.Twin != nil {
		f.Twin.judge(say)
	}
	gap := SpreadOf(r.Judgement.GapMs)
	if targets {
		say(s.MedianGap > 0 && gap.P50 > s.MedianGap.Milliseconds(), "the median gap is %d ms, over %d", gap.P50, s.MedianGap.Milliseconds())
		say(s.WorstGap > 0 && gap.P99 > s.WorstGap.Milliseconds(), "the 99th percentile of gaps is %d ms, over %d", gap.P99, s.WorstGap.Milliseconds())
	}
	found = append(found, v.Findings...)
	if f.Late >= tooBusy && (targets || len(found) > 0) {
		found = slices.Insert(found, 0, fmt.Sprintf("the switch's own sender was %d ms late: this machine is too busy to be judged", f.Late.Milliseconds()))
	}
	return found
}

// NewReport sums results up. They may come from floors of one size only.
func NewReport(results []Result, turrets int, took time.Duration, targets bool) Report {
	report := Report{DurationMs: took.Milliseconds(), Turrets: turrets, Faults: []FaultReport{}, Rows: []Row{}, Passed: len(results) > 0}
	for _, r := range results {
		v := r.Judgement.Verdict
		found := r.Findings(targets)
		report.Passed = report.Passed && len(found) == 0
		report.Channels, report.Calls = r.Judgement.Channels, report.Calls+r.Calls
		report.SentMs, report.RecordedMs, report.GapMs = report.SentMs+v.SentMS, report.RecordedMs+v.RecordedMS, report.GapMs+v.GapMS
		report.UnexplainedMs, report.DuplicatedMs, report.ForeignMs = report.UnexplainedMs+v.UnexplainedMS, report.DuplicatedMs+v.DuplicatedMS, report.ForeignMs+v.ForeignMS
		report.Faults = append(report.Faults, r.faultReport(found))
	}
	for _, s := range All {
		if of := slices.DeleteFunc(slices.Clone(results), func(r Result) bool { return r.Fault.Scenario.Name != s.Name }); len(of) > 0 {
			report.Rows = append(report.Rows, newRow(s, of, targets))
		}
	}
	return report
}

func (r Result) faultReport(found []string) FaultReport {
	v, f := r.Judgement.Verdict, r.Fault
	report := FaultReport{
		Seed: f.Seed, AtMs: f.At.Sub(r.Began).Milliseconds(), What: f.Scenario.Name, Object: strings.Join(f.Victims, ","), LiveLegs: r.Judgement.LiveLegs,
		DetectMs: wholeMs(f.Detect), GapMs: SpreadOf(r.Judgement.GapMs), SteadyMs: wholeMs(f.Steady), Stranded: f.Stranded,
		UnexplainedMs: v.UnexplainedMS, DuplicatedMs: v.DuplicatedMS, MissingMs: v.SentMS - v.RecordedMS, LateMs: f.Late.Milliseconds(), Findings: found,
	}
	if f.Rule != nil {
		report.Directors = f.Rule.report()
	}
	if f.Twin != nil {
		report.Twin = f.Twin.report(v)
	}
	if len(found) > 0 {
		report.Directory = r.Directory
	}
	return report
}

func newRow(s Scenario, results []Result, targets bool) Row {
	row := Row{Fault: s.Name, Text: s.Text, Seeds: len(results)}
	var gaps, detect, steady []int64
	for _, r := range results {
		v := r.Judgement.Verdict
		row.LiveLegs += r.Judgement.LiveLegs
		row.UnexplainedMs, row.DuplicatedMs = row.UnexplainedMs+v.UnexplainedMS, row.DuplicatedMs+v.DuplicatedMS
		row.Findings += len(r.Findings(targets))
		gaps = append(gaps, r.Judgement.GapMs...)
		detect, steady = append(detect, wholeMs(r.Fault.Detect)), append(steady, wholeMs(r.Fault.Steady))
	}
	row.LiveLegs /= len(results)
	row.GapMs, row.DetectMs, row.SteadyMs = SpreadOf(gaps), SpreadOf(detect), SpreadOf(steady)
	if s.Pair != nil {
		row.Directors = newReigns(results)
	}
	if s.Twin {
		row.Twin = newTwinReport(results)
	}
	return row
}
