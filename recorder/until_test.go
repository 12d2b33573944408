package recorder

import (
	"testing"
	"time"
)

// What a power cut may take from the journal counts as not recorded.
func TestRecordedUntil(t *testing.T) {
	dir := t.TempDir()
	if got, err := recordedUntil(dir, time.Now(), time.Second); err != nil || !got.IsZero() {
		t.Fatalf("before anything was noted: %v, %v", got, err)
	}
	until := time.Date(2026, 3, 1, 12, 0, 0, 5e6, time.UTC)
	for range 2 {
		if err := noteUntil(dir, until); err != nil {
			t.Fatal(err)
		}
		if got, err := recordedUntil(dir, until, 150*time.Millisecond); err != nil || !got.Equal(until.Add(-150*time.Millisecond)) {
			t.Errorf("%v, %v", got, err)
		}
		if got, err := recordedUntil(dir, until.Add(-1), 0); err != nil || !got.IsZero() {
			t.Errorf("after the clock was set back: %v, %v", got, err)
		}
		until = until.Add(time.Hour)
	}
	if err := noteUntil(dir+"/none", until); err == nil {
		t.Error("noted in a directory that there is not")
	}
}
