package scenario

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/bubble"
)

// duo is a floor of two directors. Whoever is struck is followed after a
// while; a voter's recorder obeys whom the duo says.
type duo struct {
	fake
	did      []string
	leads    int           // index
	heirs    time.Duration // after the fault the other one is obeyed; 0: never
	struck   time.Time
	epoch    uint64
	obeyed   []Obeys
	reigns   []time.Time
	invites  int
	alarm    string
	restless bool // control goes to and fro
	stale    bool // an order of the old one comes after one of the next
	both     bool // neither ever gives way
}

func newDuo() *duo {
	return &duo{epoch: 2, obeyed: []Obeys{{"rec-1", "dir-a", 2, false, time.Now(), time.Time{}}}}
}

// change has the other director lead from now on.
func (d *duo) change() {
	d.leads, d.epoch = 1-d.leads, d.epoch+1
	now := time.Now()
	d.reigns = append(d.reigns, now)
	d.obeyed = append(d.obeyed, Obeys{"rec-1", d.name(d.leads), d.epoch, true, now, now}, Obeys{"rec-1", d.name(d.leads), d.epoch, false, now, now})
	if d.stale {
		d.obeyed = append(d.obeyed, Obeys{"rec-1", d.name(1 - d.leads), d.epoch - 1, false, now, now})
	}
}

func (d *duo) name(n int) string { return d.Members().Directors[n] }

func (d *duo) later() {
	if d.heirs > 0 && !d.struck.IsZero() && time.Since(d.struck) >= d.heirs {
		d.struck = time.Time{}
		d.change()
		if d.restless {
			d.change()
			d.change()
		}
	}
}

func (d *duo) Act(_ context.Context, a Action, name string) error {
	d.did = append(d.did, fmt.Sprint(a, " ", name))
	switch {
	case a == Promote:
		d.change()
	case a != Start && name == d.name(d.leads):
		d.struck = time.Now()
	}
	return nil
}

func (d *duo) Mute(_ context.Context, from, to string, undo bool) error {
	did := fmt.Sprintf("mute %s %s", from, to)
	if undo {
		did = "un" + did
	}
	d.did = append(d.did, did)
	return nil
}

func (d *duo) Members() Members {
	return Members{Directors: [2]string{"dir-a", "dir-b"}, Watchdogs: [2]string{"wd-a", "wd-b"}, Recorders: []string{"rec-1", "rec-2"}, Switch: "switch"}
}

func (d *duo) Status(ctx context.Context) (*tandemv1.StatusResponse, error) {
	s, err := d.fake.Status(ctx)
	if d.alarm != "" {
		s.Alarms = append(s.Alarms, &tandemv1.Alarm{What: d.alarm})
	}
	return s, err
}

func (d *duo) Directors(context.Context) []*tandemv1.StatusResponse {
	d.later()
	var all []*tandemv1.StatusResponse
	for n := range 2 {
		own := &tandemv1.DirectorStatus{Name: d.name(n), Role: "passive", Epoch: d.epoch}
		if n == d.leads || d.both {
			own.Role, own.Basis = "active", "quorum+consent"
		}
		all = append(all, &tandemv1.StatusResponse{Directors: []*tandemv1.DirectorStatus{own}})
	}
	return all
}

func (d *duo) Obedience() ([]Obeys, error)                        { d.later(); return d.obeyed, nil }
func (d *duo) Reigns() ([]time.Time, error)                       { return d.reigns, nil }
func (d *duo) Dialled(context.Context) (int, int, error)          { return d.invites, 0, nil }
func (d *duo) Channels(context.Context, string) ([]string, error) { return []string{"T1"}, nil }

func TestPlayPair(t *testing.T) {
	for _, c := range []struct {
		name, scenario string
		floor          func(*duo)
		takeover       time.Duration
		did            []string
		findings       []string
	}{
		{"taken over", "director_killed", func(d *duo) { d.heirs = 300 * time.Millisecond }, 300 * time.Millisecond, []string{"kill dir-a", "start dir-a"}, nil},
		{"too late", "director_killed", func(d *duo) { d.heirs = 700 * time.Millisecond }, 700 * time.Millisecond, nil, []string{"the next director was obeyed after"}},
		{"nobody took over", "director_killed", nil, -1, nil, []string{"dir-a led in the end, not dir-b", "nobody took over"}},
		{"to and fro", "director_killed", func(d *duo) { d.heirs, d.restless = 300*time.Millisecond, true }, 300 * time.Millisecond, nil, []string{"control changed hands 3 times"}},
		{"an order of the old one", "director_killed", func(d *duo) { d.heirs, d.stale = 300*time.Millisecond, true }, 300 * time.Millisecond, nil, []string{"obeyed a director that was succeeded, 1 times"}},
		{"left alone", "director_cut_from_peer", func(d *duo) { d.alarm = "peer_link_down" }, -1, []string{"mute dir-a dir-b", "mute dir-b dir-a", "unmute dir-a dir-b", "unmute dir-b dir-a"}, nil},
		{"nobody told", "director_cut_from_peer", nil, -1, nil, []string{"no alarm peer_link_down"}},
		{"as planned", "promote", nil, 0, []string{"promote dir-b"}, nil},
		{"and back", "failback", nil, 0, []string{"promote dir-b", "promote dir-a"}, nil},
		{"one way", "one_way_cut_in", nil, -1, []string{
			"mute rec-1 dir-a", "mute rec-2 dir-a", "mute switch dir-a", "mute dir-b dir-a", "unmute rec-1 dir-a", "unmute rec-2 dir-a", "unmute switch dir-a", "unmute dir-b dir-a",
		}, []string{"dir-a led in the end, not dir-b", "nobody took over"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				d := newDuo()
				d.began = time.Now()
				if c.floor != nil {
					c.floor(d)
				}
				fault, err := Play(t.Context(), d, named(t, c.scenario), 1, DefaultPace(), func(string, ...any) {})
				if err != nil {
					t.Fatal(err)
				}
				if got := fault.Rule.Takeover; got != c.takeover && (got < c.takeover || got > c.takeover+3*look) {
					t.Errorf("taken over after %v, want %v", got, c.takeover)
				}
				if c.did != nil && !slices.Equal(d.did, c.did) {
					t.Errorf("did %q, want %q", d.did, c.did)
				}
				var found []string
				fault.Rule.judge(fault.Scenario, true, func(wrong bool, format string, args ...any) {
					if wrong {
						found = append(found, fmt.Sprintf(format, args...))
					}
				})
				if !slices.EqualFunc(found, c.findings, strings.Contains) {
					t.Errorf("found %q, want %q", found, c.findings)
				}
			})
		})
	}
}

// Whatever is begun or ended at the switch is a finding of a planned change.
func TestPlannedChangeDialsNothing(t *testing.T) {
	rule := &Rule{Leads: "dir-b", Wanted: "dir-b", Changes: 1, Invites: 3, Byes: 1}
	var found []string
	rule.judge(named(t, "promote"), true, func(wrong bool, format string, args ...any) {
		if wrong {
			found = append(found, fmt.Sprintf(format, args...))
		}
	})
	if len(found) != 1 || !strings.Contains(found[0], "3 dialogs were begun and 1 ended") {
		t.Errorf("%q", found)
	}
}

// Neither a floor of one director nor one of two that both lead is played on.
func TestPlayPairRefuses(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		if _, err := play(t, &fake{}, named(t, "director_killed"), DefaultPace()); err == nil || !strings.Contains(err.Error(), "one director") {
			t.Error(err)
		}
		d := newDuo()
		d.both = true
		if _, err := Play(t.Context(), d, named(t, "director_killed"), 1, DefaultPace(), func(string, ...any) {}); err == nil || !strings.Contains(err.Error(), "no director leads") {
			t.Error(err)
		}
	})
}

func TestPairsAreWhole(t *testing.T) {
	for _, s := range pairs {
		p := s.Pair
		if p == nil || len(p.Fault) == 0 || len(s.Harm)+len(s.Heal) > 0 || s.Anywhere() {
			t.Errorf("%+v", s)
		}
		for _, step := range slices.Concat(p.Before, p.Fault, p.Heal) {
			if (step.From != "") != (step.Do == Mute || step.Do == Unmute) || step.To == "" || step.To == Voter && s.Victims != 1 {
				t.Errorf("%s: %+v", s.Name, step)
			}
		}
	}
}

func TestReigns(t *testing.T) {
	result := func(takeover time.Duration, leads string) Result {
		return Result{Fault: Fault{Scenario: named(t, "director_killed"), Detect: -1, Rule: &Rule{Takeover: takeover, Leads: leads, Changes: 1}}}
	}
	r := NewReport([]Result{result(300*time.Millisecond, "dir-b"), result(400*time.Millisecond, "dir-b"), result(-1, "dir-a")}, 1, 0, false)
	d := r.Rows[0].Directors
	if d.Takeovers != 3-1 || d.TakeoverMs != (Spread{300, 400, 400}) || d.RoleChanges != 3 || !slices.Equal(d.Leads, []string{"dir-a", "dir-b"}) {
		t.Errorf("%+v", d)
	}
	if r.Faults[2].Directors.TakeoverMs != -1 || r.Passed {
		t.Errorf("%+v", r.Faults[2].Directors)
	}
}
