package scenario

import "testing"

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
