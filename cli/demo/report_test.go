package demo

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"tandem/cli/scenario"
	"tandem/turretsim/truth"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func TestReport(t *testing.T) {
	killed := &RecorderFault{At: ms(12_345), Object: "rec-1", LiveLegs: 14, Detect: ms(9), Outage: ms(335), Steady: ms(420), MissingMs: []int64{340, 380}}
	for _, c := range []struct {
		name   string
		facts  Facts
		passed bool
		want   Report
	}{
		{
			name: "one kill, two channels",
			facts: Facts{Seed: 7, Duration: ms(40_000), Turrets: 1, Channels: 2, Calls: 3, Directory: "d", Faults: []Fault{killed},
				Verdict: truth.Verdict{SentMS: 1000, RecordedMS: 280, GapMS: 720, GapsMS: map[string]int64{"interrupted": 720}}},
			passed: true,
			want: Report{Seed: 7, DurationMs: 40_000, Turrets: 1, Channels: 2, Calls: 3, Directory: "d", SentMs: 1000, RecordedMs: 280, GapMs: 720, GapsMs: map[string]int64{"interrupted": 720},
				Faults: []FaultReport{RecorderFaultReport{AtMs: 12_345, What: "recorder_killed", Object: "rec-1", LiveLegs: 14, DetectMs: 9, OutageMs: 335, SteadyMs: 420, GapMs: scenario.Spread{P50: 340, P99: 380, Max: 380}}}},
		},
		{
			name:   "not noticed by the director",
			facts:  Facts{Faults: []Fault{&RecorderFault{Detect: -1}}, Verdict: truth.Verdict{SentMS: 9, RecordedMS: 9}},
			passed: true,
			want:   Report{SentMs: 9, RecordedMs: 9, GapsMs: map[string]int64{}, Faults: []FaultReport{RecorderFaultReport{What: "recorder_killed", DetectMs: -1}}},
		},
		{
			name:   "a director's death that cost nothing",
			facts:  Facts{Faults: []Fault{&DirectorFault{At: ms(20_000), Object: "dir-a", Takeover: ms(320), Back: ms(6700)}}, Verdict: truth.Verdict{SentMS: 9, RecordedMS: 9}},
			passed: true,
			want: Report{SentMs: 9, RecordedMs: 9, GapsMs: map[string]int64{},
				Faults: []FaultReport{DirectorFaultReport{AtMs: 20_000, What: "director_killed", Object: "dir-a", TakeoverMs: 320, BackMs: 6700}}},
		},
		{
			name:  "audio lost with a director does not pass, gap or not",
			facts: Facts{Faults: []Fault{&DirectorFault{LostMs: 1}}, Verdict: truth.Verdict{SentMS: 9, RecordedMS: 8, GapMS: 1}},
			want:  Report{SentMs: 9, RecordedMs: 8, GapMs: 1, GapsMs: map[string]int64{}, Faults: []FaultReport{DirectorFaultReport{What: "director_killed", AudioLostMs: 1}}},
		},
		{
			name:  "a stale command does not pass",
			facts: Facts{Faults: []Fault{&DirectorFault{Stale: 1}}, Verdict: truth.Verdict{SentMS: 9, RecordedMS: 9}},
			want:  Report{SentMs: 9, RecordedMs: 9, GapsMs: map[string]int64{}, Faults: []FaultReport{DirectorFaultReport{What: "director_killed", StaleCommandsAccepted: 1}}},
		},
		{
			name:  "unexplained does not pass",
			facts: Facts{Verdict: truth.Verdict{SentMS: 9, RecordedMS: 9, UnexplainedMS: 1}},
			want:  Report{SentMs: 9, RecordedMs: 9, UnexplainedMs: 1, GapsMs: map[string]int64{}, Faults: []FaultReport{}},
		},
		{
			name:  "twice does not pass",
			facts: Facts{Verdict: truth.Verdict{SentMS: 9, RecordedMS: 9, DuplicatedMS: 1}},
			want:  Report{SentMs: 9, RecordedMs: 9, DuplicatedMs: 1, GapsMs: map[string]int64{}, Faults: []FaultReport{}},
		},
		{
			name:  "foreign sound does not pass",
			facts: Facts{Verdict: truth.Verdict{SentMS: 9, RecordedMS: 9, ForeignMS: 1}},
			want:  Report{SentMs: 9, RecordedMs: 9, ForeignMs: 1, GapsMs: map[string]int64{}, Faults: []FaultReport{}},
		},
		{
			name:  "a finding too short for a millisecond does not pass",
			facts: Facts{Verdict: truth.Verdict{SentMS: 9, RecordedMS: 9, Findings: []string{"a sample"}}},
			want:  Report{SentMs: 9, RecordedMs: 9, Findings: []string{"a sample"}, GapsMs: map[string]int64{}, Faults: []FaultReport{}},
		},
		{
			name: "the death of a group that cost nothing",
			facts: Facts{Faults: []Fault{&GroupFault{At: ms(28_000), LiveLegs: 7, Back: ms(7500), LostMs: 900_000, Twin: &scenario.Twin{
				Secondary: truth.Verdict{SentMS: 9, RecordedMS: 9}, Merged: truth.Verdict{SentMS: 9, RecordedMS: 9}}}}, Verdict: truth.Verdict{SentMS: 9, RecordedMS: 9}},
			passed: true,
			want: Report{SentMs: 9, RecordedMs: 9, GapsMs: map[string]int64{}, MissingAfterMergeMs: new(int64),
				Faults: []FaultReport{GroupFaultReport{AtMs: 28_000, What: "primary_group_killed", Object: "primary", LiveLegs: 7, BackMs: 7500, PrimaryMissingMs: 900_000}}},
		},
		{
			name: "what is missing after merging does not pass, said or not",
			facts: Facts{Faults: []Fault{&GroupFault{Twin: &scenario.Twin{Merged: truth.Verdict{SentMS: 49, RecordedMS: 29, GapMS: 20, WithheldMS: 20}}}},
				Verdict: truth.Verdict{SentMS: 9, RecordedMS: 9}},
			want: Report{SentMs: 9, RecordedMs: 9, GapsMs: map[string]int64{}, MissingAfterMergeMs: ptr(20),
				Faults: []FaultReport{GroupFaultReport{What: "primary_group_killed", Object: "primary", MissingAfterMergeMs: 20}}},
		},
		{
			name: "a second group that noticed does not pass",
			facts: Facts{Faults: []Fault{&GroupFault{Twin: &scenario.Twin{Turns: 2, Merged: truth.Verdict{SentMS: 9, RecordedMS: 9}}}},
				Verdict: truth.Verdict{SentMS: 9, RecordedMS: 9}},
			want: Report{SentMs: 9, RecordedMs: 9, GapsMs: map[string]int64{}, MissingAfterMergeMs: new(int64),
				Faults: []FaultReport{GroupFaultReport{What: "primary_group_killed", Object: "primary", Findings: []string{"2 channels of the secondary group were sent elsewhere"}}}},
		},
		{
			name: "nothing sent proves nothing",
			want: Report{GapsMs: map[string]int64{}, Faults: []FaultReport{}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := NewReport(c.facts)
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("%+v\nwant %+v", got, c.want)
			}
			if got.Passed() != c.passed {
				t.Errorf("passed %v", got.Passed())
			}
		})
	}
}

func ptr(n int64) *int64 { return &n }

// The names that programs rely on where there are two groups.
func TestGroupReportJSON(t *testing.T) {
	text, err := json.Marshal(NewReport(Facts{Faults: []Fault{&GroupFault{Twin: &scenario.Twin{Merged: truth.Verdict{SentMS: 9, RecordedMS: 9}}}}}))
	if err != nil {
		t.Fatal(err)
	}
	const want = `"missing_after_merge_ms":0,"faults":[{"at_ms":0,"what":"primary_group_killed","object":"primary","live_legs":0,"back_ms":0,"primary_missing_ms":0,"missing_after_merge_ms":0}]`
	if !strings.Contains(string(text), want) {
		t.Errorf("%s\nwant %s", text, want)
	}
}

// On a machine that is too busy the switch itself is late: where anything is wrong
// the findings say so first.
func TestReportTooBusy(t *testing.T) {
	facts := Facts{Verdict: truth.Verdict{SentMS: 100, RecordedMS: 100}, Late: 2 * time.Second}
	if r := NewReport(facts); !r.Passed() {
		t.Errorf("%+v", r)
	}
	facts.Verdict.Findings = []string{"another"}
	if r := NewReport(facts); r.Passed() || len(r.Findings) != 2 || !strings.Contains(r.Findings[0], "2000 ms late") {
		t.Errorf("%+v", r)
	}
}

// The names that programs rely on.
func TestReportJSON(t *testing.T) {
	text, err := json.Marshal(NewReport(Facts{Faults: []Fault{&RecorderFault{}, &DirectorFault{}}}))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"seed":0,"duration_ms":0,"turrets":0,"channels":0,"calls":0,"sent_ms":0,"recorded_ms":0,"gap_ms":0,"unexplained_ms":0,"duplicated_ms":0,"foreign_ms":0,"gaps_ms":{},"late_ms":0,` +
		`"faults":[{"at_ms":0,"what":"recorder_killed","object":"","live_legs":0,"detect_ms":0,"gap_ms":{"p50":0,"p99":0,"max":0},"steady_ms":0,"outage_ms":0},` +
		`{"at_ms":0,"what":"director_killed","object":"","takeover_ms":0,"audio_lost_ms":0,"stale_commands_accepted":0,"back_ms":0}],"directory":""}`
	if string(text) != want {
		t.Errorf("%s\nwant %s", text, want)
	}
}

func TestReportLines(t *testing.T) {
	r := Report{Channels: 160, SentMs: 5820000, RecordedMs: 5819930, GapMs: 70, GapsMs: map[string]int64{"loss": 20, "interrupted": 50},
		Faults: []FaultReport{
			RecorderFaultReport{AtMs: 12040, What: "recorder_killed", Object: "rec-1", LiveLegs: 14, DetectMs: 9, OutageMs: 320, GapMs: scenario.Spread{P50: 48, P99: 90, Max: 95}, SteadyMs: 400},
			DirectorFaultReport{AtMs: 20100, Object: "dir-a", TakeoverMs: 310, BackMs: 6700},
			GroupFaultReport{AtMs: 28000, LiveLegs: 7, BackMs: 7500, PrimaryMissingMs: 900_000, Findings: []string{"rain"}},
		}}
	const want = `rec-1 killed (SIGKILL) 12.0 s into the demo, 14 of its legs live
  the director knew after            9 ms
  the others kept all after        400 ms
  it was back after                320 ms
  missing_ms of each live leg       48 at the median, 95 at most
dir-a killed (SIGKILL) 20.1 s into the demo, while it led
  the other one was obeyed after   310 ms
  it got control back after       6700 ms
  audio lost until then              0 ms
  stale commands obeyed              0
the whole primary group killed (SIGKILL) 28.0 s into the demo, 7 legs live
  it kept every channel after     7500 ms
  it misses until then          900000 ms of all channels
  missing after merging              0 ms of everything in the demo
  ! rain

of 160 channels' audio, by the tones in it:
  sent           5820000 ms
  recorded       5819930 ms
  in gaps             70 ms
    interrupted       50 ms  the recorder was not running
    loss              20 ms  sent and never arrived
  unexplained          0 ms
  twice                0 ms`
	if got := strings.Join(r.Lines(), "\n"); got != want {
		t.Errorf("%s\nwant:\n%s", got, want)
	}
}
