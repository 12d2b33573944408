package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/cli/process"
	"tandem/cli/scenario"
)

// Where daemons listen; each has its host for itself.
const (
	ctiPort      = 6500
	sipPort      = 5060
	simControl   = "127.0.0.1:6580"
	dialPort     = 5070
	directorPort = 7401
	recorderPort = 7402
)

// How long daemons may take.
const (
	upPatience   = 10 * time.Second
	stopPatience = 3 * time.Second
	brief        = 500 * time.Millisecond
	settle       = time.Second // after the switch's end: what it sent is kept by then
	filing       = 20 * time.Second
	little       = 1 << 20 // bytes
)

// machine is a host with the daemon on it.
type machine struct {
	*host
	place    place
	daemon   *process.Process
	watchdog *process.Process // of a director that is one of two
	disk     *disk            // of a recorder
}

// processes are the daemons on the host, what watches before what is watched:
// an orderly end is nothing to act upon.
func (m *machine) processes() []*process.Process {
	if m.watchdog == nil {
		return []*process.Process{m.daemon}
	}
	return []*process.Process{m.watchdog, m.daemon}
}

// floor is the running lab. It is the scenario's Floor; its methods belong to
// one goroutine.
type floor struct {
	options   Options
	scenario  scenario.Scenario
	seed      uint64
	dir       string
	wires     *wires
	relay     *relay // of the switch's media; nil: a good cable
	sim       *machine
	directors []*machine // one, or a pair, the preferred one first
	witness   *machine   // nil: none
	recorders []*machine
	twin      *twin // the second group; nil: none
}

// newFloor builds the hosts and their cables, and writes the daemons' files.
func newFloor(o Options, s scenario.Scenario, seed uint64, dir string) (*floor, error) {
	f := &floor{options: o, scenario: s, seed: seed, dir: dir}
	if err := f.build(); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *floor) build() (err error) {
	if f.wires, err = newWires(); err != nil {
		return err
	}
	if f.sim, err = f.machine("turretsim", "switch", switchPlace); err != nil {
		return err
	}
	if !f.scenario.Quality.Perfect() {
		if f.relay, err = f.wires.spoil(f.sim.host, media, f.scenario.Quality, f.seed); err != nil {
			return err
		}
	}
	if err := f.addDirectors(); err != nil {
		return err
	}
	for n := range f.options.Recorders {
		m, err := f.machine("recorder", "rec-"+strconv.Itoa(n+1), firstRecorder+place(n))
		if err != nil {
			return err
		}
		f.recorders = append(f.recorders, m)
		if m.disk, err = openDisk(m.host, f.recorderDir(m), f.scenario.Harm); err != nil {
			return err
		}
	}
	if f.scenario.Twin {
		if err := f.addTwin(); err != nil {
			return err
		}
	}
	return f.configure()
}

func (f *floor) machine(kind, name string, p place) (*machine, error) {
	h, err := newHost(name)
	if err != nil {
		return nil, err
	}
	m := &machine{host: h, place: p}
	for _, network := range []string{media, control} {
		if err == nil {
			err = f.wires.plug(h, network, p)
		}
	}
	if err == nil {
		m.daemon, err = process.New(kind, name, f.dir)
	}
	if err != nil {
		h.close()
		return nil, err
	}
	return m, nil
}

// machines are all there are so far, those that feed others first.
func (f *floor) machines() []*machine {
	all := slices.Concat(f.directors, []*machine{f.sim, f.witness}, f.recorders, f.twin.machines())
	return slices.DeleteFunc(all, func(m *machine) bool { return m == nil })
}

// close ends every daemon and every host.
func (f *floor) close() {
	for _, m := range f.machines() {
		if m.disk != nil {
			m.disk.flow() // a frozen one would not let its daemon end
		}
		for _, p := range m.processes() {
			p.Stop(stopPatience)
		}
		m.host.close()
	}
	if f.relay != nil {
		f.relay.close()
	}
	if f.wires != nil {
		f.wires.close()
	}
}

func (f *floor) truthLog() string { return filepath.Join(f.dir, "truth.jsonl") }

func (f *floor) recorderDir(m *machine) string { return filepath.Join(f.dir, m.name) }

func (f *floor) configure() error {
	password := filepath.Join(f.dir, "password")
	if err := os.WriteFile(password, []byte("lab\n"), 0o600); err != nil {
		return fmt.Errorf("write password: %w", err)
	}
	cti := address(switchPlace, ctiPort)
	var known []map[string]any
	for n, m := range f.recorders {
		known = append(known, map[string]any{"name": m.name, "address": address(m.place, recorderPort), "priority": f.priority(n)})
		if err := m.daemon.Configure(f.recorderConfig(m, primary, f.room(n))); err != nil {
			return err
		}
	}
	if err := f.sim.daemon.Configure(map[string]any{
		"seed": f.seed, "control": simControl, "truth_log": f.truthLog(),
		"cti": map[string]any{"listen": cti, "user": "lab", "password_file": password},
		"sip": map[string]any{"listen": address(switchPlace, sipPort)},
		"rtp": map[string]any{"address": switchPlace.at(media), "vad": f.options.Turrets*f.options.Mixes*len(f.copies()) > talkative},
		"floor": map[string]any{"turrets": f.options.Turrets, "mixes": f.options.Mixes, "copies": f.copies(), "logon_interval": "2ms",
			"calls_per_minute": callsPerMinute, "call_length": callLength, "max_calls": f.calls()},
	}); err != nil {
		return err
	}
	for n, m := range f.directors {
		config := f.directorConfig(m, cti, password, known)
		if f.scenario.Pair != nil {
			failover, err := f.pairConfig(n)
			if err != nil {
				return err
			}
			config["failover"] = failover
		}
		if err := m.daemon.Configure(config); err != nil {
			return err
		}
	}
	if err := f.configureWitness(); err != nil {
		return err
	}
	return f.configureTwin(cti, password)
}

// directorConfig is what every director has to know.
func (f *floor) directorConfig(m *machine, cti, password string, recorders []map[string]any) map[string]any {
	return map[string]any{
		"name": m.name, "site": "lab", "control": address(m.place, directorPort), "monitor": address(m.place, monitorPort), "insecure_control": true, "recorder": recorders,
		"provider": map[string]any{"unigy": map[string]any{
			"servers": []string{cti}, "user": "lab", "password_file": password, "sip_listen": address(m.place, dialPort),
		}},
	}
}

// talkative is how many channels may send all the time. More of them send only
// while somebody speaks, as turrets with silence suppression do: 50,000 packets a
// second through the lab's cables take more than a small machine has.
const talkative = 400

// Calls come fast, up to a bound, and last: so the floor is soon as busy as
// it shall be, and stays so.
const (
	callsPerMinute = 60.0 // of each turret
	callLength     = "20s"
	legsPerCall    = 1.1 // about: some calls have several, some none yet
)

// calls is how many calls make so many legs; 0 is no bound.
func (f *floor) calls() int { return int(float64(f.options.Legs) * 1.15 / legsPerCall) }

// spare is how many channels a recorder has room for beyond all there are.
const spare = 100

// room is how many channels a recorder takes.
func (f *floor) room(n int) int {
	if f.scenario.Tight && n >= f.scenario.Victims {
		// All survivors together have room for half of the floor.
		return f.options.Turrets * f.options.Mixes / 2 / (f.options.Recorders - f.scenario.Victims)
	}
	return f.options.Turrets*f.options.Mixes + spare
}

func (f *floor) recorderConfig(m *machine, group string, room int) map[string]any {
	return map[string]any{
		"name": m.name, "group": group, "control": address(m.place, recorderPort), "insecure_control": true, "dir": f.recorderDir(m),
		"media":   map[string]any{"keep": "all"},
		"rtp":     map[string]any{"host": m.place.at(media)},
		"journal": map[string]any{"file_age": "2s"}, // read sooner in the end
		"limits":  map[string]any{"max_channels": room, "reserve": 32 << 20},
	}
}

// priority has the victims carry the whole floor, so that all of it is at
// stake.
func (f *floor) priority(n int) int {
	if n < f.scenario.Victims {
		return 0
	}
	return 1
}

func address(p place, port int) string {
	return p.at(control) + ":" + strconv.Itoa(port)
}

// niceness is the recorders' own. On machines of their own the switch and the
// director would not wait for recorders either.
const niceness = -10

func favour() error {
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, niceness); err != nil {
		return fmt.Errorf("set priority: %w", err)
	}
	return nil
}

// start brings every daemon up, the switch after the director that leads:
// agents log on when there is a choice of recorders. Of a pair none leads as
// soon as it is up.
func (f *floor) start(ctx context.Context) error {
	if err := f.startPrimary(ctx); err != nil {
		return err
	}
	return f.startTwin(ctx)
}

func (f *floor) startPrimary(ctx context.Context) error {
	for _, m := range append(slices.Clone(f.directors), f.sim) {
		if err := m.do(favour); err != nil { // the host's thread, and what it starts
			return err
		}
	}
	for _, m := range f.recorders {
		if err := m.do(m.daemon.Start); err != nil {
			return err
		}
	}
	if f.scenario.Pair != nil {
		// The switch comes first: directors that do not find it wait before they try again.
		if err := f.startSwitch(ctx); err != nil {
			return err
		}
		return f.startPair(ctx)
	}
	if err := f.directors[0].do(f.directors[0].daemon.Start); err != nil {
		return err
	}
	if err := f.await(ctx, "all recorders to be ready", func() bool {
		s, err := f.Status(ctx)
		return err == nil && allReady(s)
	}); err != nil {
		return err
	}
	return f.startSwitch(ctx)
}

func (f *floor) startSwitch(ctx context.Context) error {
	if err := f.sim.do(f.sim.daemon.Start); err != nil {
		return err
	}
	return f.await(ctx, "the switch to answer", func() bool { _, err := f.Legs(ctx); return err == nil })
}

// await waits until done says so. A daemon that died meanwhile explains why
// it does not.
func (f *floor) await(ctx context.Context, what string, done func() bool) error {
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(upPatience); !done(); {
		for _, m := range f.machines() {
			for _, p := range m.processes() {
				if p.Died() {
					return p.Obituary()
				}
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v for %s; the logs are in %s", upPatience, what, f.dir)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-poll.C:
		}
	}
	return nil
}

// fallSilent stops the switch, so that its truth log is complete, waits until
// the recorders have made files of most they have, which are read sooner than
// journals, and returns the switch's last words.
func (f *floor) fallSilent(ctx context.Context) (scenario.SwitchState, error) {
	state, err := f.simulator().State(ctx)
	if err != nil {
		return state, err
	}
	f.sim.daemon.Stop(stopPatience)
	poll := time.NewTicker(settle)
	defer poll.Stop()
	for deadline := time.Now().Add(filing); ; {
		select {
		case <-ctx.Done():
			return state, ctx.Err()
		case <-poll.C:
		}
		if f.filed(ctx) || time.Now().After(deadline) {
			return state, nil
		}
	}
}

// filed tells whether little is only in journals.
func (f *floor) filed(ctx context.Context) bool {
	s, err := f.Status(ctx)
	if err != nil {
		return false
	}
	all := s.Recorders
	if f.twin != nil {
		t, err := f.TwinStatus(ctx)
		if err != nil {
			return false
		}
		all = append(all, t.Recorders...)
	}
	return !slices.ContainsFunc(all, func(r *tandemv1.RecorderStatus) bool { return r.GetLoad().GetJournalLagBytes() > little })
}

func (f *floor) simulator() scenario.Simulator {
	return scenario.Simulator{Client: f.sim.http, URL: "http://" + simControl}
}

// Legs implements scenario.Floor.
func (f *floor) Legs(ctx context.Context) (int, error) {
	state, err := f.simulator().State(ctx)
	return state.Legs, err
}

var errNoDirector = errors.New("no director answers")

// Status implements scenario.Floor.
func (f *floor) Status(ctx context.Context) (*tandemv1.StatusResponse, error) {
	_, s := f.best(ctx)
	if s == nil {
		return nil, errNoDirector
	}
	return s, nil
}

// Channels implements scenario.Floor.
func (f *floor) Channels(ctx context.Context, recorder string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, upPatience)
	defer cancel()
	m, _ := f.best(ctx)
	if m == nil {
		return nil, errNoDirector
	}
	r, err := f.directorAPI(m).ListFloorChannels(ctx, connect.NewRequest(&tandemv1.ListFloorChannelsRequest{Recorder: recorder}))
	if err != nil {
		return nil, fmt.Errorf("list channels: %w", err)
	}
	var ids []string
	for _, c := range r.Msg.Channels {
		ids = append(ids, c.GetChannel().GetId())
	}
	return ids, nil
}
