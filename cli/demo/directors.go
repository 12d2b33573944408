package demo

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/cli/process"
	"tandem/cli/scenario"
)

// director is one of the two, and the watchdog beside it.
type director struct {
	*process.Process
	watchdog *process.Process
	at       string // its control API
}

func newDirector(name, watchdog, dir string) (d *director, err error) {
	d = &director{}
	if d.Process, err = process.New("director", name, dir); err != nil {
		return nil, err
	}
	d.watchdog, err = process.New("watchdog", watchdog, dir)
	return d, err
}

// portsEach is how many ports a director and its watchdog listen at.
const portsEach = 6

// configureDirectors writes the files of both and of their watchdogs. The
// first one is preferred; all recorders vote.
func (f *floor) configureDirectors(free []string, ctiAt string) error {
	if err := os.WriteFile(f.path("monitor.key"), []byte("everybody may know what a demo knows\n"), 0o600); err != nil {
		return fmt.Errorf("write monitor key: %w", err)
	}
	var voters []string
	for _, r := range f.recorders {
		voters = append(voters, r.at)
	}
	ports := func(n int) []string { return free[n*portsEach : (n+1)*portsEach] } // control, monitor, metrics, sip, the watchdog's control and metrics
	for n, d := range f.directors {
		own, peer := ports(n), ports(1-n)
		d.at = own[0]
		keys := f.directorKeys(d, f.recorders, ctiAt, own[3])
		keys["monitor"], keys["metrics"] = own[1], own[2]
		keys["failover"] = map[string]any{
			"preferred": n == 0, "failback_hold": failbackHold.String(), "voters": voters, "monitor_key_file": f.path("monitor.key"), "socket": f.path(d.Name + ".sock"),
			"peer": peer[0], "peer_monitor": []string{peer[1]}, "peer_watchdog": peer[4],
		}
		if err := d.Configure(keys); err != nil {
			return err
		}
		if err := d.watchdog.Configure(map[string]any{
			"name": d.watchdog.Name, "control": own[4], "metrics": own[5], "director_config": d.Config, "failback_file": f.path(d.watchdog.Name + ".json"),
			"unit": "", // systemd knows nothing of a demo
		}); err != nil {
			return err
		}
	}
	return nil
}

// directorKeys is what every director has to know.
func (f *floor) directorKeys(d *director, recorders []*recorder, ctiAt, sipAt string) map[string]any {
	var known []map[string]any
	for _, r := range recorders {
		known = append(known, map[string]any{"name": r.Name, "address": r.at})
	}
	return map[string]any{
		"name": d.Name, "site": "demo", "control": d.at, "recorder": known,
		"provider": map[string]any{"unigy": map[string]any{
			"servers": []string{ctiAt}, "user": "demo", "password_file": f.path("password"), "sip_listen": sipAt,
		}},
	}
}

// openDirectors starts the preferred director, and the other one when the
// voters are behind it, and waits until the other one is, too.
func (f *floor) openDirectors(ctx context.Context) error {
	first := f.directors[0]
	for n, basis := range []string{"quorum", "quorum+consent"} {
		d := f.directors[n]
		if err := d.Start(); err != nil {
			return err
		}
		if err := d.watchdog.Start(); err != nil {
			return err
		}
		if err := f.wait(ctx, upPatience, first.Name+" to lead with "+basis, func() bool {
			s := f.statusOf(ctx, first)
			return itself(s).GetRole() == active && itself(s).GetBasis() == basis && allReady(s)
		}); err != nil {
			return err
		}
	}
	f.say("directors dir-a and dir-b up, each with its watchdog; %s leads, the recorders vote", first.Name)
	return nil
}

// active is the role of a director in charge.
const active = "active"

// itself is what the director that answered says of itself.
func itself(s *tandemv1.StatusResponse) *tandemv1.DirectorStatus {
	if len(s.GetDirectors()) == 0 {
		return nil
	}
	return s.Directors[0]
}

// byWord are roles by how much whoever has one knows of the floor.
var byWord = []string{active, "draining", "activating", "linger", "candidate", "passive", "boot"}

// status is how the director in charge sees the floor; when neither is, how
// the one does that knows more; nil when neither answers.
func (f *floor) status(ctx context.Context) (best *tandemv1.StatusResponse) {
	least := len(byWord)
	for _, d := range f.directors {
		s := f.statusOf(ctx, d)
		if rank := slices.Index(byWord, itself(s).GetRole()); rank >= 0 && rank < least {
			best, least = s, rank
		}
	}
	return best
}

func (f *floor) statusOf(ctx context.Context, d *director) *tandemv1.StatusResponse {
	ctx, cancel := context.WithTimeout(ctx, brief)
	defer cancel()
	r, err := tandemv1connect.NewDirectorServiceClient(f.http, "http://"+d.at).Status(ctx, connect.NewRequest(&tandemv1.StatusRequest{}))
	if err != nil {
		return nil
	}
	return r.Msg
}

// addresses are where the directors answer.
func (f *floor) addresses() []string {
	var all []string
	for _, d := range f.directors {
		all = append(all, d.at)
	}
	if f.twin != nil {
		all = append(all, f.twin.director.at)
	}
	return all
}

// killDirector kills the director in charge with SIGKILL, measures until
// recorders obey the other one, starts it again and waits until it is back in
// charge.
func (f *floor) killDirector(ctx context.Context) (*DirectorFault, error) {
	if err := f.until(ctx, directorKillAfter); err != nil {
		return nil, err
	}
	victim, other, epoch := f.inCharge(ctx)
	if victim == nil {
		return nil, fmt.Errorf("kill director: none is in charge")
	}
	fault := &DirectorFault{Object: victim.Name, When: time.Now()}
	fault.At = fault.When.Sub(f.began)
	victim.Kill()
	f.say("SIGKILL to %s, which leads", victim.Name)
	if err := f.wait(ctx, upPatience, other.Name+" to take over", func() bool {
		all, err := f.obedience()
		first, ok := scenario.Succession(all, epoch)
		fault.Takeover = first.At.Sub(fault.When)
		return err == nil && ok
	}); err != nil {
		return nil, err
	}
	f.say("a recorder obeys %s after %d ms", other.Name, fault.Takeover.Milliseconds())
	if err := f.until(ctx, fault.At+directorReturnAfter); err != nil {
		return nil, err
	}
	if err := f.begin(ctx, victim.Process, func() bool { return f.statusOf(ctx, victim) != nil }); err != nil {
		return nil, err
	}
	f.say("%s is started again; when it has been well for %v it gets control back", victim.Name, failbackHold)
	if err := f.wait(ctx, failbackPatience, "control to go back to "+victim.Name, func() bool {
		return itself(f.statusOf(ctx, victim)).GetRole() == active
	}); err != nil {
		return nil, err
	}
	fault.Back = time.Since(fault.When)
	f.say("%s has handed control back", other.Name)
	return fault, nil
}

// inCharge is the director that leads, the other one, and the epoch.
func (f *floor) inCharge(ctx context.Context) (leads, other *director, epoch uint64) {
	own := itself(f.status(ctx))
	n := slices.IndexFunc(f.directors, func(d *director) bool { return d.Name == own.GetName() })
	if n < 0 || own.GetRole() != active {
		return nil, nil, 0
	}
	return f.directors[n], f.directors[1-n], own.GetEpoch()
}

// obedience is whom the recorders have obeyed.
func (f *floor) obedience() ([]scenario.Obeys, error) {
	var all []*process.Process
	for _, r := range f.recorders {
		all = append(all, r.Process)
	}
	return scenario.Obedience(all)
}

// leads says who is in charge, for those who watch.
func leads(s *tandemv1.StatusResponse) string {
	var names []string
	for _, d := range s.GetDirectors() {
		if d.GetRole() == active {
			names = append(names, d.GetName())
		}
	}
	if len(names) == 0 {
		return "nobody"
	}
	return strings.Join(names, ", ")
}
