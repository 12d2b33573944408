package cli

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	tandemv1 "tandem/api/tandem/v1"
)

// on is a channel of Ann's on a recorder that is still leaving others.
func on(mix, recorder string, leaving ...string) *tandemv1.FloorChannel {
	return &tandemv1.FloorChannel{Channel: channel(ann, mix), Recorder: recorder, State: "attached", Leaving: leaving}
}

type floorSteps [][]*tandemv1.FloorChannel

// moving is two channels on their way from rec-1 to rec-2.
var moving = floorSteps{
	{on("m1", "rec-2", "rec-1"), on("m2", "rec-2", "rec-1")},
	{on("m1", "rec-2"), on("m2", "rec-2", "rec-1")},
	{on("m1", "rec-2"), on("m2", "rec-2")},
}

// Commands ask what they are told to, wait until it is done, and say so.
func TestCommands(t *testing.T) {
	for _, c := range []struct {
		args  string
		steps floorSteps
		want  proto.Message
		out   string
	}{
		{"drain rec-1", moving, &tandemv1.DirectorServiceDrainRequest{Recorder: "rec-1"}, "rec-1 is empty: 2 channels moved in 0 ms; recctl drain rec-1 --undo puts it into use again\n"},
		{"drain rec-1 --json", moving, &tandemv1.DirectorServiceDrainRequest{Recorder: "rec-1"}, `{"recorder":"rec-1","undo":false,"channels":2,"duration_ms":0}` + "\n"},
		{"drain rec-1 --undo", nil, &tandemv1.DirectorServiceDrainRequest{Recorder: "rec-1", Undo: true}, "rec-1 is in use again, with 2 channels on it; recctl rebalance fills it\n"},
		{"move t2 --to rec-2", moving, &tandemv1.MoveRequest{Turret: "t2", To: "rec-2"}, "t2 is on rec-2: 2 channels moved in 0 ms\n"},
		{"move ann --to rec-2 --json", moving, &tandemv1.MoveRequest{Turret: "ann", To: "rec-2"}, `{"turret":"ann","channel":"","to":"rec-2","channels":2,"duration_ms":0}` + "\n"},
		{"move --to rec-2 s2.m1.A", moving[:2], &tandemv1.MoveRequest{Channel: "s2.m1.A", To: "rec-2"}, "s2.m1.A is on rec-2: 2 channels moved in 0 ms\n"},
		{"rebalance", moving, &tandemv1.RebalanceRequest{}, "TURRET  SESSION  FROM   TO     CHANNELS\nt2      s2       rec-1  rec-2         2\n1 turret moved in 0 ms\n"},
		{"rebalance --dry-run", nil, &tandemv1.RebalanceRequest{DryRun: true}, "TURRET  SESSION  FROM   TO     CHANNELS\nt2      s2       rec-1  rec-2         2\n1 turret would move; recctl rebalance moves them\n"},
		{"rebalance --json", moving, &tandemv1.RebalanceRequest{}, `{"turret":"t2","session":"s2","from":"rec-1","to":"rec-2","channels":2}` + "\n"},
	} {
		t.Run(c.args, func(t *testing.T) {
			site := newFakeSite(t)
			site.director.steps, site.director.moves = c.steps, []*tandemv1.TurretMove{{Turret: "t2", Session: "s2", From: "rec-1", To: "rec-2", Channels: 2}}
			for _, r := range site.director.status.Recorders {
				r.State = "ready"
			}
			r := recctl(t, site.config, strings.Fields(c.args)...)
			if r.status != ExitDone || r.out != c.out || r.errs != "" || !proto.Equal(site.director.ordered, c.want) {
				t.Errorf("%+v, asked %v", r, site.director.ordered)
			}
			if len(site.director.steps) > 0 {
				t.Errorf("it did not wait: %d steps left", len(site.director.steps))
			}
		})
	}
}

// What cannot be done, or is not done, says why and with which status.
func TestCommandsFail(t *testing.T) {
	refused := connect.NewError(connect.CodeFailedPrecondition, errors.New("recorder rec-2 cannot take 2 channels more: max_channels"))
	unknown := connect.NewError(connect.CodeNotFound, errors.New(`no recorder "rec-9" in group primary`))
	back := floorSteps{moving[0], {on("m1", "rec-1"), on("m2", "rec-2")}}
	back[1][0].Text = "488 Not Acceptable Here"
	for _, c := range []struct {
		args    string
		refusal error
		steps   floorSteps
		status  int
		text    string
	}{
		{"move t2 --to rec-2", refused, nil, ExitRefused, "recctl: recorder rec-2 cannot take 2 channels more: max_channels\n"},
		{"drain rec-9", unknown, nil, ExitFailed, `recctl: no recorder "rec-9" in group primary` + "\n"},
		{"move t2", nil, nil, ExitUsage, "recctl move wants --to RECORDER"},
		{"move", nil, nil, ExitUsage, "wants TURRET|CHANNEL"},
		{"drain", nil, nil, ExitUsage, "wants RECORDER"},
		{"move t2 --to rec-2", nil, back, ExitFailed, "move t2: channel s2.m1.A is on rec-1 and not on rec-2: 488 Not Acceptable Here"},
		{"rebalance", nil, back, ExitFailed, "rebalance: channel s2.m1.A is on rec-1 and not on rec-2"},
		{"drain rec-1 --timeout 300ms", nil, moving[:2], ExitFailed, "drain rec-1: not done after 300ms: 1 channel left; recctl channels --recorder rec-1 says what is on it, recctl drain rec-1 --undo takes it back"},
	} {
		t.Run(c.args, func(t *testing.T) {
			site := newFakeSite(t)
			site.director.refusal, site.director.steps = c.refusal, c.steps
			site.director.moves = []*tandemv1.TurretMove{{Turret: "t2", Session: "s2", From: "rec-1", To: "rec-2", Channels: 2}}
			if r := recctl(t, site.config, strings.Fields(c.args)...); r.status != c.status || !strings.Contains(r.errs, c.text) {
				t.Errorf("%+v", r)
			}
		})
	}
}

// Nobody of several groups knows it: each says what it has.
func TestUnknownToEveryGroup(t *testing.T) {
	one, two := newFakeSite(t), newFakeSite(t)
	two.director.status.Directors[0].Group = "secondary"
	one.director.refusal = connect.NewError(connect.CodeNotFound, errors.New(`no recorder "rec-9" in group primary`))
	two.director.refusal = connect.NewError(connect.CodeNotFound, errors.New(`no recorder "rec-9" in group secondary`))
	config := `directors = ["` + one.directorAt + `", "` + two.directorAt + `"]`
	if r := recctl(t, config, "drain", "rec-9"); r.status != ExitFailed || !strings.HasSuffix(r.errs, `recctl: no recorder "rec-9" in group primary; no recorder "rec-9" in group secondary`+"\n") {
		t.Errorf("%+v", r)
	}
	one.director.refusal = connect.NewError(connect.CodeFailedPrecondition, errors.New("rec-9 is full"))
	if r := recctl(t, config, "drain", "rec-9"); r.status != ExitRefused || !strings.HasSuffix(r.errs, "recctl: rec-9 is full\n") {
		t.Errorf("%+v", r)
	}
}

// Each group is rebalanced, and one that refuses keeps no other from it.
func TestRebalanceEveryGroup(t *testing.T) {
	one, two := newFakeSite(t), newFakeSite(t)
	two.director.status.Directors[0].Group = "secondary"
	one.director.moves = []*tandemv1.TurretMove{{Turret: "t2", Session: "s2", From: "rec-1", To: "rec-2", Channels: 2}}
	two.director.moves = []*tandemv1.TurretMove{{Turret: "t2", Session: "s2", From: "rec-4", To: "rec-5", Channels: 2}}
	config := `directors = ["` + one.directorAt + `", "` + two.directorAt + `"]`
	const tables = "TURRET  SESSION  FROM   TO     CHANNELS\nt2      s2       rec-1  rec-2         2\nt2      s2       rec-4  rec-5         2\n"
	if r := recctl(t, config, "rebalance", "--dry-run"); r.status != ExitDone || r.out != tables+"2 turrets would move; recctl rebalance moves them\n" {
		t.Errorf("%+v", r)
	}
	one.director.refusal = connect.NewError(connect.CodeFailedPrecondition, errors.New("a takeover is under way"))
	if r := recctl(t, config, "rebalance", "--dry-run"); r.status != ExitRefused || !strings.Contains(r.out, "rec-4  rec-5") || !strings.HasSuffix(r.errs, "recctl: group primary: a takeover is under way\n") {
		t.Errorf("%+v", r)
	}
}

// Where channels can go nowhere, a drain that waits says why.
func TestDrainOfTheLast(t *testing.T) {
	site := newFakeSite(t)
	site.director.steps = moving[:1]
	for _, r := range site.director.status.Recorders {
		r.State = map[bool]string{true: "ready", false: "draining"}[r.Name == "rec-1"]
	}
	const want = "recctl: no other recorder of group primary is ready: channels stay on rec-1 until one is\n"
	if r := recctl(t, site.config, "drain", "rec-1", "--timeout", "300ms"); r.status != ExitFailed || !strings.HasPrefix(r.errs, want) {
		t.Errorf("%+v", r)
	}
}

// A recorder that was empty before is not said to have been emptied.
func TestDrainEmpty(t *testing.T) {
	site := newFakeSite(t)
	site.director.drained, site.director.steps = new(uint32), floorSteps{{}}
	if r := recctl(t, site.config, "drain", "rec-1"); r.status != ExitDone || r.out != "rec-1 is empty: nothing was on it; recctl drain rec-1 --undo puts it into use again\n" {
		t.Errorf("%+v", r)
	}
}

// Only a director in charge is commanded, and of several the one that knows
// what is meant.
func TestCommandedDirector(t *testing.T) {
	passive, other, mine := newFakeSite(t), newFakeSite(t), newFakeSite(t)
	passive.director.status.Directors[0].Role = "passive"
	other.director.status.Directors[0].Group, mine.director.status.Directors[0].Group = "other", "third"
	r := recctl(t, passive.config, "drain", "rec-1")
	if r.status != ExitRefused || !strings.Contains(r.errs, "no director that answers is in charge (dir-a is passive)") {
		t.Errorf("%+v", r)
	}
	other.director.refusal = connect.NewError(connect.CodeNotFound, errors.New("not mine"))
	mine.director.steps = floorSteps{{}}
	config := `directors = ["` + passive.directorAt + `", "` + other.directorAt + `", "` + mine.directorAt + `"]`
	if r := recctl(t, config, "drain", "rec-1"); !strings.Contains(r.errs, "group primary left out: no director that answers is in charge (dir-a is passive)") || r.status != ExitDone || passive.director.ordered != nil || mine.director.ordered == nil {
		t.Errorf("%+v", r)
	}
}

// A drain that somebody takes back ends, and so does one that is interrupted.
func TestDrainEnds(t *testing.T) {
	site := newFakeSite(t)
	s := newSite(Config{Directors: []string{site.directorAt}, Timeout: DefaultConfig().Timeout}, nil)
	left := s.stillOn(t.Context(), "primary", "rec-1")
	site.director.status.Recorders[1].State = "draining"
	if n, err := left(moving[1]); n != 1 || err != nil {
		t.Error(n, err)
	}
	site.director.status.Recorders[1].State = "ready"
	if _, err := left(moving[1]); err == nil || !strings.Contains(err.Error(), "somebody took it back; 1 channel left") {
		t.Error(err)
	}
	var errs bytes.Buffer
	i := &invocation{errs: &errs, progress: true}
	ctx, cancel := context.WithCancel(t.Context())
	c := commanded[tandemv1.DirectorServiceDrainResponse]{site: s, group: "primary"}
	err := c.wait(ctx, i, time.Minute, func([]*tandemv1.FloorChannel) (int, error) { cancel(); return 3, nil })
	if err == nil || err.Error() != "interrupted, 3 channels left; what was asked for goes on" || !strings.Contains(errs.String(), "  0%") {
		t.Error(err, errs.String())
	}
}
