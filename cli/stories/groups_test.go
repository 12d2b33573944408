package stories

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/cli/scenario"
	"tandem/internal/call"
	"tandem/internal/rpc"
	"tandem/turretsim/truth"
)

// group is a director and two recorders, running.
type group struct {
	director   *program
	recorders  []*program
	directorAt string
}

func (g *group) programs() []*program { return append([]*program{g.director}, g.recorders...) }

// newGroup configures one that has a copy of every mix.
func newGroup(f *floor, name, ctiAt string, secondary bool) *group {
	f.t.Helper()
	dir := filepath.Join(f.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		f.t.Fatal(err)
	}
	g, net := &group{directorAt: address(f.t)}, 1
	if secondary {
		net = 2
	}
	known := ""
	for n := range 2 {
		own, at := filepath.Join(dir, fmt.Sprint(n+1)), address(f.t)
		if err := os.Mkdir(own, 0o755); err != nil {
			f.t.Fatal(err)
		}
		g.recorders = append(g.recorders, configure(f.t, own, "recorder", fmt.Sprintf(`
name = "%s-%d"
group = %q
control = %q
metrics = ""
dir = %q
[rtp]
host = "127.0.%d.%d" # each is a host of its own: nobody's old port is another one's new one
[media]
keep = "calls"
[journal]
file_age = "1s"
[limits]
reserve = 0
`, name, n+1, name, at, filepath.Join(own, "data"), net, n+1)))
		known += fmt.Sprintf("[[recorder]]\nname = \"%s-%d\"\naddress = %q\n", name, n+1, at)
	}
	g.director = configure(f.t, dir, "director", fmt.Sprintf(`
name = "dir-%s"
group = %q
secondary = %v
control = %q
metrics = ""
%s
[provider.unigy]
servers = [%q]
sip_listen = %q
`, name, name, secondary, g.directorAt, known, ctiAt, address(f.t)))
	return g
}

// status is how the group's director sees it; nil when it does not answer.
func (g *group) status(t testing.TB) *tandemv1.StatusResponse {
	r, err := tandemv1connect.NewDirectorServiceClient(rpc.NewClient(), "http://"+g.directorAt).Status(t.Context(), connect.NewRequest(&tandemv1.StatusRequest{}))
	if err != nil {
		return nil
	}
	return r.Msg
}

// lastFirst are the group's programs, a recorder the later the more it had.
func (g *group) lastFirst(s *tandemv1.StatusResponse) []*program {
	had := make(map[*program]uint32)
	for n, r := range g.recorders {
		had[r] = s.GetRecorders()[n].GetLoad().GetChannels()
	}
	return slices.SortedStableFunc(slices.Values(g.programs()), func(a, b *program) int { return cmp.Compare(had[a], had[b]) })
}

// keeps says that the group has so many channels, by its recorders' own word.
func (g *group) keeps(t testing.TB, channels int) bool {
	n := 0
	s := g.status(t)
	for _, r := range s.GetRecorders() {
		n += int(r.GetLoad().GetChannels())
	}
	return scenario.Steady(s) && n == channels
}

// newTwoGroups is a floor that two groups record.
func newTwoGroups(t *testing.T, turrets int) (f *floor, primary, secondary *group) {
	t.Helper()
	dir := t.TempDir()
	f = &floor{t: t, dir: dir, truth: filepath.Join(dir, "truth.jsonl"), site: filepath.Join(dir, "recctl.toml"), control: address(t)}
	ctiAt := address(t)
	f.sim = configure(t, dir, "turretsim", fmt.Sprintf(`
control = %q
truth_log = %q
[cti]
listen = %q
[sip]
listen = %q
[floor]
turrets = %d
mixes = 2
copies = ["A", "B"]
calls_per_minute = 20.0
call_length = "2s"
`, f.control, f.truth, ctiAt, address(t), turrets))
	primary, secondary = newGroup(f, "primary", ctiAt, false), newGroup(f, "secondary", ctiAt, true)
	if err := os.WriteFile(f.site, fmt.Appendf(nil, "directors = [%q, %q]\n", primary.directorAt, secondary.directorAt), 0o644); err != nil {
		t.Fatal(err)
	}
	f.sim.start()
	for _, g := range []*group{primary, secondary} {
		for _, p := range g.programs() {
			p.start()
		}
	}
	for _, g := range []*group{primary, secondary} {
		eventually(t, time.Minute, "every channel is attached", func() bool { return g.keeps(t, turrets*2) })
	}
	return f, primary, secondary
}

// The whole primary group is away for some seconds, and the recorder that had
// the channels comes back when another one has them already: what began
// meanwhile nobody had. Every call of that time is shown where the primary
// lacks it, and reconcile lists exactly those; merged, each is what was spoken,
// to the sample. The secondary notices nothing.
func TestWholeGroupKilled(t *testing.T) {
	f, primary, secondary := newTwoGroups(t, 8)
	time.Sleep(3 * time.Second) // the floor trades
	order := primary.lastFirst(primary.status(t))
	before, killed := secondary.status(t), time.Now()
	for _, p := range order {
		p.kill()
	}
	time.Sleep(4 * time.Second)
	for _, p := range order {
		p.start()
		time.Sleep(400 * time.Millisecond)
	}
	eventually(t, 20*time.Second, "the primary group has every channel again", func() bool { return primary.keeps(t, 16) })
	back := time.Now()
	after := secondary.status(t)
	time.Sleep(3 * time.Second)
	f.fault("POST", "/fault/stop_calls", "")
	eventually(t, 30*time.Second, "the last call has ended", func() bool { return len(f.recctl("--json", "calls", "--ongoing")) == 0 })
	f.sim.stop()

	account, err := truth.Load(f.truth)
	if err != nil {
		t.Fatal(err)
	}
	if noticed := scenario.Noticed(before, after, true); len(noticed) > 0 {
		t.Errorf("the secondary noticed: %v", noticed)
	}
	if n := account.Copy(call.CopyB).Turns(killed, back); n != 0 {
		t.Errorf("%d channels of the secondary were sent elsewhere", n)
	}
	within, outside := legsAround(account, killed, back)
	if len(within) < 3 || len(outside) < 3 {
		t.Fatalf("%d legs while the group was away and %d at other times: this proves little", len(within), len(outside))
	}
	listed := f.reconciled()
	filled, untold := f.filled()
	for _, leg := range within {
		if untold[leg] {
			t.Errorf("%s: the primary says that nothing is missing", leg)
		}
		if !filled[leg] || !listed[leg] {
			t.Errorf("%s: shown by fill: %v, listed by reconcile: %v", leg, filled[leg], listed[leg])
		}
	}
	for _, leg := range outside {
		if filled[leg] || listed[leg] {
			t.Errorf("%s, which the primary has: shown by fill: %v, listed by reconcile: %v", leg, filled[leg], listed[leg])
		}
	}
	for _, leg := range within {
		f.merged(account, leg)
	}
	t.Logf("%d legs while the primary group was away for %v, %d at other times", len(within), back.Sub(killed).Round(time.Millisecond), len(outside))
}

// legsAround are the ids of legs that never moved and are over: those that the
// time of an outage had much of, and those that it had nothing of. One that it
// had little of may be either's.
func legsAround(account *truth.Account, from, to time.Time) (within, outside []string) {
	const much = 500 * time.Millisecond
	for _, l := range account.Legs() {
		if len(l.Parts) != 1 || l.Parts[0].To == 0 {
			continue
		}
		began, ended := account.Wall(l.Parts[0].From), account.Wall(l.Parts[0].To)
		switch {
		case ended.After(from.Add(much)) && began.Before(to.Add(-much)) && ended.Sub(began) > much && began.Before(from.Add(3*time.Second)):
			within = append(within, l.ID)
		case ended.Before(from.Add(-much)) || began.After(to.Add(much)):
			outside = append(outside, l.ID)
		}
	}
	return within, outside
}

// filled are the legs of the secondary group that fill something, and untold
// those of which the primary group has both ends and tells of no gap.
func (f *floor) filled() (legs, untold map[string]bool) {
	f.t.Helper()
	legs, untold = map[string]bool{}, map[string]bool{}
	for line := range bytes.Lines(f.recctl("--json", "calls", "--secondary", "fill", "--limit", "100000")) {
		var r struct {
			Leg       string
			Secondary bool
			State     call.State
			GapMs     int64 `json:"gap_ms"`
		}
		if err := json.Unmarshal(line, &r); err != nil {
			f.t.Fatalf("calls --json: %v: %s", err, line)
		}
		switch {
		case r.Secondary:
			legs[r.Leg] = true
		case r.State == call.StateComplete && r.GapMs == 0:
			untold[r.Leg] = true
		}
	}
	return legs, untold
}

// reconciled are the legs that the primary group lacks, or lacks some of. That
// is the only kind of thing that may be found, once all is in media files.
func (f *floor) reconciled() map[string]bool {
	f.t.Helper()
	var out []byte
	eventually(f.t, 30*time.Second, "reconcile has everything in media files", func() bool {
		var err error
		out, err = exec.Command(filepath.Join(programs(f.t), "recctl"), "--config", f.site, "--json", "reconcile", "--to", "now").Output()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 5 {
			f.t.Fatalf("reconcile: %v, want exit status 5\n%s", err, out)
		}
		return bytes.Contains(out, []byte(`"unwritten":0`))
	})
	legs := map[string]bool{}
	kinds := map[string]int{}
	for line := range bytes.Lines(out) {
		var r struct{ Kind, Group, Leg, Text string }
		if err := json.Unmarshal(line, &r); err != nil {
			f.t.Fatalf("reconcile --json: %v: %s", err, line)
		}
		if r.Kind == "" {
			continue // the summary
		}
		kinds[r.Kind+" in "+r.Group]++
		if r.Group != "primary" || r.Kind != "missing" && r.Kind != "shorter" {
			f.t.Errorf("found: %s", line)
		}
		legs[r.Leg] = true
	}
	f.t.Logf("reconcile found %v", slices.Sorted(maps.Keys(kinds)))
	return legs
}

// merged exports a leg from both groups: it is what was spoken, to the sample,
// and something of it came from the secondary.
func (f *floor) merged(account *truth.Account, leg string) {
	f.t.Helper()
	file := filepath.Join(f.dir, strings.ReplaceAll(leg, "/", "_")+".wav")
	var said struct {
		OpenMs   int64 `json:"open_ms"`
		FilledMs int64 `json:"filled_ms"`
		Filled   []struct {
			FromGroup string `json:"from_group"`
		}
	}
	out := f.recctl("--json", "export", "--merge", "-o", file, leg)
	if err := json.Unmarshal(out, &said); err != nil {
		f.t.Fatalf("export --json: %v: %s", err, out)
	}
	if said.OpenMs != 0 || said.FilledMs == 0 || said.Filled[0].FromGroup != "secondary" {
		f.t.Errorf("%s: %s", leg, out)
	}
	format, audio := f.readWAV(file)
	if check, err := account.CheckLeg(leg, format.Codec, audio); err != nil || !check.OK() {
		f.t.Errorf("%s: %v, %v; %s", leg, check, err, out)
	}
}
