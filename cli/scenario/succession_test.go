package scenario

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"tandem/cli/process"
)

func TestObedience(t *testing.T) {
	p := &process.Process{Name: "rec-1", Log: filepath.Join(t.TempDir(), "log")}
	text := `time=2026-03-02T12:00:01.000Z level=INFO msg=obeys voter=rec-1 epoch=2 director=dir-a fence=true last=0001-01-01T00:00:00.000Z
time=2026-03-02T12:00:09.250Z level=INFO msg=obeys voter=rec-1 epoch=3 director=dir-b fence=false last=2026-03-02T12:00:08.500Z
`
	if err := os.WriteFile(p.Log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Obedience([]*process.Process{p})
	want := []Obeys{
		{"rec-1", "dir-a", 2, true, noon.Add(time.Second), time.Time{}},
		{"rec-1", "dir-b", 3, false, noon.Add(9250 * time.Millisecond), noon.Add(8500 * time.Millisecond)},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v\nwant %v", got, err, want)
	}
	if err := os.WriteFile(p.Log, []byte("msg=obeys epoch=many\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Obedience([]*process.Process{p}); err == nil {
		t.Error("an epoch that is no number was read")
	}
}

func TestSuccession(t *testing.T) {
	at := func(s int) time.Time { return noon.Add(time.Duration(s) * time.Second) }
	never := time.Time{}
	fence, order := true, false
	clean := []Obeys{
		{"rec-1", "dir-a", 2, fence, at(0), never}, {"rec-1", "dir-a", 2, order, at(1), at(0)},
		{"rec-1", "dir-b", 3, fence, at(10), at(9)}, {"rec-1", "dir-b", 3, order, at(13), at(10)},
		{"rec-2", "dir-a", 2, fence, at(0), never}, {"rec-2", "dir-a", 2, order, at(1), at(0)},
		{"rec-2", "dir-b", 3, fence, at(11), at(9)}, {"rec-2", "dir-b", 3, order, at(12), at(11)},
	}
	if first, ok := Succession(clean, 2); !ok || first.Recorder != "rec-2" || first.At != at(12) {
		t.Errorf("%+v, %v", first, ok)
	}
	if first, ok := Succession(clean, 3); ok {
		t.Errorf("nobody followed on %+v", first)
	}
	for _, c := range []struct {
		name string
		more []Obeys
		want int
	}{
		{"clean", nil, 0},
		{"back to the old one", []Obeys{{"rec-1", "dir-a", 2, order, at(14), at(13)}}, 1},
		{"back and forth", []Obeys{{"rec-1", "dir-a", 2, order, at(14), at(13)}, {"rec-1", "dir-b", 3, order, at(15), at(14)}}, 1},
		{"one recorder longer than another obeyed the new one", []Obeys{{"rec-3", "dir-a", 2, order, at(1), never}, {"rec-3", "dir-b", 3, fence, at(15), at(14)}}, 1},
		{"as long as it might", []Obeys{{"rec-3", "dir-a", 2, order, at(1), never}, {"rec-3", "dir-b", 3, fence, at(15), at(12)}}, 0},
		{"one that has started again", []Obeys{{"rec-3", "dir-a", 2, order, at(1), never}, {"rec-3", "dir-b", 3, fence, at(15), never}}, 0},
	} {
		if got := Stale(append(slices.Clone(clean), c.more...)); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
