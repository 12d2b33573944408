package director

import (
	"slices"
	"strings"
	"testing"

	tandemv1 "tandem/api/tandem/v1"
)

// A director whose configuration names a recorder of another group by mistake
// says so and does nothing else: not even the epoch seen there is taken up. Its
// own recorder has everything, and the other group's knows as much as before.
func TestRecorderOfAnotherGroup(t *testing.T) {
	t.Parallel()
	s := newEmptySite(t, 2)
	theirs := s.stations[1]
	theirs.join("secondary")
	const far = 1001
	if err := theirs.obey(t.Context(), &tandemv1.Order{Epoch: far, Director: "dir-c", Group: "secondary"}, true, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	s.direct()
	t.Cleanup(func() { s.stop() })
	s.recorded(24)
	s.until("the mistake to be shown", func() bool {
		alarms := s.status().GetAlarms()
		return slices.ContainsFunc(alarms, func(a *tandemv1.Alarm) bool { return a.GetWhat() == "wrong_group" })
	})
	for _, a := range s.status().GetAlarms() {
		for _, want := range []string{"rec-2", theirs.address, `"secondary"`, `"primary"`, "correct its address"} {
			if a.GetWhat() == "wrong_group" && !strings.Contains(a.GetText(), want) {
				t.Errorf("%q does not name %s", a.GetText(), want)
			}
		}
	}
	if epoch := s.status().GetDirectors()[0].GetEpoch(); epoch >= far {
		t.Errorf("the epoch %d of another group was taken up", epoch)
	}
	if epoch, holder := theirs.fence.Seen(); epoch != far || holder != "dir-c" || len(theirs.heard()) != 0 {
		t.Errorf("the other group's recorder follows %q in epoch %d and holds %d channels", holder, epoch, len(theirs.heard()))
	}
}

// What a recorder had that comes back in another group others take, and its
// refusal is no reason to think that another director commands ours.
func TestForeignRecorderIsNobodysRival(t *testing.T) {
	r := started(t, "rec-1", "rec-2")
	r.tell(logOn("s1", r.now)...)
	r.settle()
	r.f.recorderForeign(r.now, "rec-2", "secondary", r.now)
	r.settle()
	r.wantAttached("s1.m1.A", "s1.m2.A")
	wantEqual(t, "holder", r.holder("s1.m1.A").name, "rec-1")
	wantEqual(t, "alarms", slices.Contains(r.alarmed(), "wrong_group"), true)
	wantEqual(t, "may go above an earlier run of ours", r.f.mayGoAbove(&recorder{}, r.f.name), true)

	wantEqual(t, "state", r.f.recorders["rec-2"].stateWord(), "refused")
	r.f.recorderRefuses(r.now, "rec-2", "stale epoch")
	wantEqual(t, "may go above another's", r.f.mayGoAbove(&recorder{}, r.f.name), false)
	wantEqual(t, "alarms", slices.Contains(r.alarmed(), "wrong_group"), false)
}
