package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/bubble"
)

// fake is a floor that breaks and recovers at planned times.
type fake struct {
	began   time.Time
	acts    []string
	killed  time.Time
	started time.Time
	notices time.Duration // after the kill
	moves   time.Duration
	returns time.Duration // after the start
	short   uint32        // channels for which there is no room meanwhile
	fails   error
}

func (f *fake) Act(_ context.Context, a Action, recorder string) error {
	f.acts = append(f.acts, fmt.Sprint(a, " ", recorder))
	switch a {
	case Kill:
		f.killed = time.Now()
	case Start:
		f.started = time.Now()
	}
	return f.fails
}

func (f *fake) Legs(context.Context) (int, error) { return int(time.Since(f.began) / time.Second), nil }

func (f *fake) Channels(_ context.Context, recorder string) ([]string, error) {
	return []string{"of " + recorder}, nil
}

func (f *fake) Status(context.Context) (*tandemv1.StatusResponse, error) {
	d := &tandemv1.DirectorStatus{Channels: 8, Attached: 8}
	r := func(name, state string, channels uint32) *tandemv1.RecorderStatus {
		return &tandemv1.RecorderStatus{Name: name, State: state, Load: &tandemv1.Load{Channels: channels}}
	}
	s := &tandemv1.StatusResponse{Directors: []*tandemv1.DirectorStatus{d}, Recorders: []*tandemv1.RecorderStatus{r("rec-1", "ready", 2), r("rec-2", "ready", 6), r("rec-3", "ready", 0)}}
	if f.killed.IsZero() {
		return s, nil
	}
	dead, away := time.Since(f.killed), f.started.IsZero() || time.Since(f.started) < f.returns
	if away && dead >= f.notices {
		s.Recorders[1].State = "lost"
	}
	if dead < f.moves {
		d.Moving = 6
	} else if away && f.short > 0 {
		d.Unrecorded = f.short
		s.Alarms = append(s.Alarms, &tandemv1.Alarm{What: "no_recorder", Object: "T1"})
	}
	return s, nil
}

func play(t *testing.T, f *fake, s Scenario, pace Pace) (Fault, error) {
	t.Helper()
	f.began = time.Now()
	return Play(t.Context(), f, s, 1, pace, func(string, ...any) {})
}

func named(t *testing.T, name string) Scenario {
	t.Helper()
	s, err := Find(name)
	if err != nil {
		t.Fatal(err)
	}
	return s[0]
}

// What is measured is what happened, to a look.
func TestPlay(t *testing.T) {
	near := func(d, want time.Duration) bool { return d >= want && d <= want+3*look }
	for _, c := range []struct {
		name           string
		scenario       string
		fake           fake
		detect, steady time.Duration
		recovered      bool
		stranded       int
	}{
		{"noticed, then moved", "sigkill", fake{notices: 30 * time.Millisecond, moves: 400 * time.Millisecond, returns: time.Second}, 30 * time.Millisecond, 400 * time.Millisecond, true, 0},
		{"noticed late", "sigkill", fake{notices: 900 * time.Millisecond, returns: time.Second}, 900 * time.Millisecond, 900 * time.Millisecond, true, 0},
		{"never noticed", "sigkill", fake{notices: time.Hour}, -1, time.Second, true, 0},
		{"never steady", "sigkill", fake{moves: time.Hour}, 0, -1, false, 0},
		{"never back", "sigkill", fake{returns: time.Hour}, 0, 0, false, 0},
		{"no room", "no_room", fake{moves: 100 * time.Millisecond, short: 3, returns: time.Second}, 0, 100 * time.Millisecond, true, 3},
		{"back at once", "restart", fake{moves: 200 * time.Millisecond, returns: 100 * time.Millisecond}, 0, 300 * time.Millisecond, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				pace := DefaultPace()
				pace.Legs = 3
				got, err := play(t, &c.fake, named(t, c.scenario), pace)
				if err != nil {
					t.Fatal(err)
				}
				if got.Detect != c.detect && !near(got.Detect, c.detect) || got.Steady != c.steady && !near(got.Steady, c.steady) || got.Recovered != c.recovered || got.Stranded != c.stranded {
					t.Errorf("%+v", got)
				}
				if !slices.Equal(got.Victims, []string{"rec-2"}) || !got.Channels["of rec-2"] {
					t.Errorf("not the fullest: %v, %v", got.Victims, got.Channels)
				}
				if want := []string{"kill rec-2", "start rec-2"}; !slices.Equal(c.fake.acts, want) {
					t.Errorf("%v, want %v", c.fake.acts, want)
				}
				if wait := got.At.Sub(c.fake.began); wait < 3*time.Second || wait > 3*time.Second+pace.Instant+time.Second {
					t.Errorf("broken after %v", wait)
				}
			})
		})
	}
}

func TestPlayFails(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		broken := errors.New("no such process")
		if _, err := play(t, &fake{fails: broken}, named(t, "sigkill"), DefaultPace()); !errors.Is(err, broken) || !strings.Contains(err.Error(), "kill rec-2") {
			t.Error(err)
		}
		pace := DefaultPace()
		pace.Legs = 1000
		if _, err := play(t, &fake{}, named(t, "sigkill"), pace); err == nil || !strings.Contains(err.Error(), "want 1000") {
			t.Error(err)
		}
		if f, err := play(t, &fake{}, Scenario{Name: "all", Harm: []Action{Kill}, Victims: 3}, DefaultPace()); err == nil {
			t.Errorf("the last recorder was broken, too: %+v", f)
		}
	})
}

func TestFind(t *testing.T) {
	if all, err := Find(); err != nil || len(all) != len(All) {
		t.Error(all, err)
	}
	if _, err := Find("sigkill", "rain"); err == nil || !strings.Contains(err.Error(), "want one of sigkill, sigstop") {
		t.Error(err)
	}
}

// Every scenario can be told apart, and undoes what it does.
func TestScenariosAreWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range All {
		if s.Name == "" || s.Text == "" || seen[s.Name] || s.Pair == nil && (len(s.Harm) == 0 || len(s.Harm) != len(s.Heal) || s.Victims == 0) {
			t.Errorf("%+v", s)
		}
		seen[s.Name] = true
	}
	if named(t, "disk_full").Anywhere() || named(t, "bad_network").Anywhere() || named(t, "no_room").Anywhere() || !named(t, "drain").Anywhere() {
		t.Error("what a running floor lets be broken is wrong")
	}
}
