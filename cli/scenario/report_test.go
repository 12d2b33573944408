package scenario

import (
	"strings"
	"testing"
	"time"

	"tandem/turretsim/truth"
)

func TestSpread(t *testing.T) {
	var lengths []int64
	for n := range int64(100) {
		lengths = append(lengths, 100-n)
	}
	if got := SpreadOf(lengths); got != (Spread{50, 99, 100}) {
		t.Errorf("%+v", got)
	}
	if got := SpreadOf(lengths[:1]); got != (Spread{100, 100, 100}) {
		t.Errorf("%+v", got)
	}
}

// That the switch was late is no fault of whom it sent to. It is said where
// something is wrong, which it may explain, and where its pace is promised.
func TestFindingsOfALateSwitch(t *testing.T) {
	good, bad := truth.Verdict{SentMS: 1000, RecordedMS: 1000}, truth.Verdict{SentMS: 1000, RecordedMS: 980, UnexplainedMS: 20}
	for _, c := range []struct {
		name    string
		verdict truth.Verdict
		late    time.Duration
		targets bool
		want    int
		first   string
	}{
		{"on time", good, 0, true, 0, ""},
		{"late", good, 3 * time.Second, false, 0, ""},
		{"late for a promise", good, 3 * time.Second, true, 1, "3000 ms late"},
		{"late, and something is wrong", bad, 3 * time.Second, false, 2, "3000 ms late"},
		{"a little late, and something is wrong", bad, tooBusy - time.Millisecond, true, 1, "20 ms are missing"},
	} {
		r := Result{Fault: Fault{Late: c.late, Recovered: true}, Judgement: Judgement{LiveLegs: 1, Verdict: c.verdict}}
		if got := r.Findings(c.targets); len(got) != c.want || c.want > 0 && !strings.Contains(got[0], c.first) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}
