package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/cli/process"
	"tandem/cli/scenario"
)

// Where the daemons of a pair listen besides.
const (
	monitorPort  = 10031
	watchdogPort = 7403
)

// leave is how long a planned change of directors may take.
const leave = 10 * time.Second

// glance is how long one director's view of itself may take: one that is
// frozen must not keep the others' waiting.
const glance = 200 * time.Millisecond

// addDirectors builds the hosts of directors: one, or a pair with a watchdog
// beside each and, where the scenario wants one, a witness.
func (f *floor) addDirectors() error {
	places := []place{directorPlace}
	if f.scenario.Pair != nil {
		places = append(places, peerPlace)
	}
	for n, p := range places {
		m, err := f.machine("director", "dir-"+side(n), p)
		if err != nil {
			return err
		}
		f.directors = append(f.directors, m)
		if f.scenario.Pair == nil {
			continue
		}
		if m.watchdog, err = process.New("watchdog", "wd-"+side(n), f.dir); err != nil {
			return err
		}
	}
	if f.scenario.Pair == nil || f.scenario.Pair.Electorate != scenario.WitnessVote {
		return nil
	}
	var err error
	f.witness, err = f.machine("watchdog", "witness", witnessPlace)
	return err
}

func side(n int) string { return string(rune('a' + n)) }

// voters are where those listen whose vote counts.
func (f *floor) voters() []string {
	var all []string
	for _, m := range f.recorders {
		all = append(all, address(m.place, recorderPort))
	}
	switch f.scenario.Pair.Electorate {
	case scenario.OneVotes:
		return all[:1]
	case scenario.WitnessVote:
		return append(all[:2], address(witnessPlace, watchdogPort))
	}
	return all
}

// pairConfig is what the director and its watchdog have to know of the other
// ones.
func (f *floor) pairConfig(n int) (map[string]any, error) {
	key := filepath.Join(f.dir, "monitor.key")
	if err := os.WriteFile(key, []byte("a key of the lab\n"), 0o600); err != nil {
		return nil, fmt.Errorf("write monitor key: %w", err)
	}
	m, peer := f.directors[n], f.directors[1-n]
	if err := m.watchdog.Configure(map[string]any{
		"name": m.watchdog.Name, "control": address(m.place, watchdogPort), "insecure_control": true, "director_config": m.daemon.Config,
		"failback_file": "", // every fault begins anew
		"unit":          "", // the lab's supervisor is the lab
	}); err != nil {
		return nil, err
	}
	return map[string]any{
		"preferred": n == 0, "failback": "manual", "voters": f.voters(), "monitor_key_file": key, "socket": filepath.Join(f.dir, m.name+".sock"),
		"peer": address(peer.place, directorPort), "peer_monitor": []string{address(peer.place, monitorPort)}, "peer_watchdog": address(peer.place, watchdogPort),
	}, nil
}

func (f *floor) configureWitness() error {
	if f.witness == nil {
		return nil
	}
	return f.witness.daemon.Configure(map[string]any{
		"name": f.witness.name, "control": address(witnessPlace, watchdogPort), "insecure_control": true, "director_config": "",
		"witness": map[string]any{"enabled": true, "dir": filepath.Join(f.dir, f.witness.name)},
	})
}

// startPair starts the preferred director first, so that it leads, and the
// other one when the voters are behind that.
func (f *floor) startPair(ctx context.Context) error {
	if f.witness != nil {
		if err := f.witness.do(f.witness.daemon.Start); err != nil {
			return err
		}
	}
	for n, basis := range []string{"quorum", "quorum+consent"} {
		m := f.directors[n]
		for _, p := range []*process.Process{m.daemon, m.watchdog} {
			if err := m.do(p.Start); err != nil {
				return err
			}
		}
		if err := f.await(ctx, "dir-a to lead with "+basis, func() bool {
			d := itself(f.statusOf(ctx, f.directors[0]))
			return d.GetRole() == "active" && d.GetBasis() == basis
		}); err != nil {
			return err
		}
	}
	return nil
}

// itself is what a director that answered says of itself.
func itself(s *tandemv1.StatusResponse) *tandemv1.DirectorStatus {
	if len(s.GetDirectors()) == 0 {
		return nil
	}
	return s.Directors[0]
}

// byWord are roles by how much whoever has one knows of the floor.
var byWord = []string{"active", "draining", "activating", "linger", "candidate", "passive", "boot"}

// best is the director that knows most of the floor, and what it says; nil
// when none answers.
func (f *floor) best(ctx context.Context) (best *machine, said *tandemv1.StatusResponse) {
	rank := func(s *tandemv1.StatusResponse) int {
		if n := slices.Index(byWord, itself(s).GetRole()); n >= 0 {
			return n
		}
		return len(byWord)
	}
	for n, s := range f.Directors(ctx) {
		if s == nil {
			continue
		}
		if said == nil || rank(s) < rank(said) || rank(s) == rank(said) && itself(s).GetEpoch() > itself(said).GetEpoch() {
			best, said = f.directors[n], s
		}
	}
	return best, said
}

// Directors implements scenario.PairFloor.
func (f *floor) Directors(ctx context.Context) []*tandemv1.StatusResponse {
	all := make([]*tandemv1.StatusResponse, len(f.directors))
	var asked sync.WaitGroup
	for n, m := range f.directors {
		asked.Go(func() { all[n] = f.statusOf(ctx, m) })
	}
	asked.Wait()
	return all
}

func (f *floor) statusOf(ctx context.Context, m *machine) *tandemv1.StatusResponse {
	patience := glance
	if len(f.directors) == 1 {
		patience = brief
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := f.directorAPI(m).Status(ctx, connect.NewRequest(&tandemv1.StatusRequest{}))
	if err != nil {
		return nil
	}
	return r.Msg
}

// Members implements scenario.PairFloor.
func (f *floor) Members() scenario.Members {
	m := scenario.Members{Switch: f.sim.name}
	for n, d := range f.directors {
		m.Directors[n], m.Watchdogs[n] = d.name, d.watchdog.Name
	}
	for _, r := range f.recorders {
		m.Recorders = append(m.Recorders, r.name)
	}
	return m
}

// Mute implements scenario.PairFloor: who is muted believes that the other
// one's card is one that nobody has.
func (f *floor) Mute(_ context.Context, from, to string, undo bool) error {
	a, b := f.find(from), f.find(to)
	if a == nil || b == nil {
		return fmt.Errorf("no hosts %q and %q", from, to)
	}
	return vanish(a, b, control, undo)
}

// Obedience implements scenario.PairFloor.
func (f *floor) Obedience() ([]scenario.Obeys, error) {
	var all []*process.Process
	for _, m := range f.recorders {
		all = append(all, m.daemon)
	}
	return scenario.Obedience(all)
}

// Reigns implements scenario.PairFloor.
func (f *floor) Reigns() ([]time.Time, error) {
	var all []time.Time
	for _, m := range f.directors {
		said, err := m.daemon.Said("role")
		if err != nil {
			return nil, err
		}
		for _, line := range said {
			if line["to"] != "active" || line["from"] != "activating" {
				continue
			}
			at, err := time.Parse(time.RFC3339, line["time"])
			if err != nil {
				return nil, fmt.Errorf("read log of %s: %w", m.name, err)
			}
			all = append(all, at)
		}
	}
	return all, nil
}

// Dialled implements scenario.PairFloor.
func (f *floor) Dialled(ctx context.Context) (invites, byes int, err error) {
	state, err := f.simulator().State(ctx)
	return state.SIP.Invites + state.SIP.Reinvites, state.SIP.ByesIn + state.SIP.ByesOut, err
}

// promote has the director in charge hand over to another one.
func (f *floor) promote(ctx context.Context, to string) error {
	ctx, cancel := context.WithTimeout(ctx, leave)
	defer cancel()
	m, _ := f.best(ctx)
	if m == nil {
		return errNoDirector
	}
	_, err := f.directorAPI(m).Failover(ctx, connect.NewRequest(&tandemv1.FailoverRequest{To: to, Actor: "lab", Reason: f.scenario.Name + " " + strconv.FormatUint(f.seed, 10)}))
	return err
}

func (f *floor) directorAPI(m *machine) tandemv1connect.DirectorServiceClient {
	return tandemv1connect.NewDirectorServiceClient(m.http, "http://"+address(m.place, directorPort))
}
