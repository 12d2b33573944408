package demo

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/cli/process"
	"tandem/cli/scenario"
	"tandem/internal/rpc"
)

// forever is a patience that does not end.
const forever = time.Duration(math.MaxInt64)

// floor is the running demo. All its methods belong to one goroutine.
type floor struct {
	options Options
	view    View
	began   time.Time
	dir     string

	sim        *process.Process
	directors  []*director // the preferred one first
	recorders  []*recorder
	twin       *twin  // the second group; nil: none
	simControl string // address of the switch's fault and state port
	http       *http.Client

	live  []*tandemv1.LegRecord // on the recorder that was killed, then
	calls int                   // made by the switch, until they were stopped

	samples     <-chan Sample
	stopSamples func()
}

// recorder is one of the floor's recorders.
type recorder struct {
	*process.Process
	at   string // its control and media API
	host string // where its media arrive
}

// Sample is how the floor is at an instant.
type Sample struct {
	Elapsed    time.Duration
	Turrets    int
	Channels   int
	Attached   int
	Calls      int // ongoing
	Legs       int // ongoing
	PacketsPS  float64
	JournalLag uint64 // bytes
	Leads      string // the director in charge
	Recorders  string // their states, as the director sees them
	Twin       string // the second group's, as its own director does; empty: there is none
	Alarms     []string
}

func newFloor(o Options, view View) (*floor, error) {
	dir, err := makeDir(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	f := &floor{options: o, view: view, began: time.Now(), dir: dir, http: rpc.NewClient(), stopSamples: func() {}}
	if f.sim, err = process.New("turretsim", "turretsim", dir); err != nil {
		return nil, err
	}
	for _, side := range []string{"a", "b"} {
		d, err := newDirector("dir-"+side, "wd-"+side, dir)
		if err != nil {
			return nil, err
		}
		f.directors = append(f.directors, d)
	}
	for n := range recorders {
		r, err := newRecorder(n, dir)
		if err != nil {
			return nil, err
		}
		f.recorders = append(f.recorders, r)
	}
	if o.Twin {
		f.twin, err = newTwin(dir, recorders)
	}
	return f, err
}

// newRecorder is the floor's nth, from 0 on.
func newRecorder(n int, dir string) (*recorder, error) {
	p, err := process.New("recorder", fmt.Sprintf("rec-%d", n+1), dir)
	return &recorder{Process: p, host: fmt.Sprintf("127.0.0.%d", n+1)}, err
}

// allRecorders are those of both groups.
func (f *floor) allRecorders() []*recorder {
	if f.twin == nil {
		return f.recorders
	}
	return slices.Concat(f.recorders, f.twin.recorders)
}

func (f *floor) path(name string) string { return filepath.Join(f.dir, name) }

func (f *floor) elapsed() time.Duration { return time.Since(f.began) }

func (f *floor) say(format string, args ...any) {
	f.view.Event(f.elapsed(), fmt.Sprintf(format, args...))
}

// processes are all daemons, those that feed others first, and watchdogs
// before what they watch: an orderly end is nothing to act upon.
func (f *floor) processes() []*process.Process {
	var all []*process.Process
	for _, d := range f.directors {
		all = append(all, d.watchdog)
	}
	for _, d := range f.directors {
		all = append(all, d.Process)
	}
	all = append(all, f.sim)
	for _, r := range f.recorders {
		all = append(all, r.Process)
	}
	return append(all, f.twin.processes()...)
}

// close ends every process.
func (f *floor) close() {
	f.stopSamples()
	for _, p := range f.processes() {
		p.Stop(stopPatience)
	}
}

// open brings the floor up until every channel of every turret is attached.
func (f *floor) open(ctx context.Context) error {
	if err := f.configure(); err != nil {
		return err
	}
	f.say("everything is in %s", f.dir)
	for _, r := range f.recorders {
		if err := f.begin(ctx, r.Process, func() bool { return f.inventory(ctx, r) != nil }); err != nil {
			return err
		}
	}
	f.say("%d recorders up, they keep everything", len(f.recorders))
	if err := f.begin(ctx, f.sim, func() bool { _, err := f.simulator().State(ctx); return err == nil }); err != nil {
		return err
	}
	f.say("switch up: %d turrets of %d channels", f.options.Turrets, mixes)
	if err := f.openDirectors(ctx); err != nil {
		return err
	}
	f.sample(ctx)
	channels := f.options.Turrets * mixes
	if err := f.wait(ctx, floorPatience, fmt.Sprintf("%d channels to be attached", channels), func() bool {
		return int(itself(f.status(ctx)).GetAttached()) >= channels
	}); err != nil {
		return err
	}
	f.say("all %d channels attached, spread over the recorders", channels)
	return f.openTwin(ctx, channels)
}

// begin starts a daemon and waits for it.
func (f *floor) begin(ctx context.Context, p *process.Process, answered func() bool) error {
	if err := p.Start(); err != nil {
		return err
	}
	return f.wait(ctx, upPatience, p.Name+" to answer", answered)
}

// allReady tells whether the director sees all its recorders ready: agents
// that log on now have the choice.
func allReady(s *tandemv1.StatusResponse) bool {
	for _, r := range s.GetRecorders() {
		if r.GetState() != "ready" {
			return false
		}
	}
	return len(s.GetRecorders()) > 0
}

// spare is how many ports a recorder has beyond one for each channel.
const spare = 100

// configure chooses free ports and writes a file for each daemon. Every
// recorder has room for the whole floor, on a loopback address of its own.
func (f *floor) configure() error {
	const others = 3 // CTI, SIP, the switch's control
	all := f.allRecorders()
	free, err := freePorts(others + 2*len(all) + portsEach*len(f.directors) + twinPorts)
	if err != nil {
		return err
	}
	ctiAt, sipAt := free[0], free[1]
	f.simControl, free = free[2], free[others:]
	if err := os.WriteFile(f.path("password"), []byte("demo\n"), 0o600); err != nil {
		return fmt.Errorf("write password: %w", err)
	}
	if err := f.configureRecorders(free); err != nil {
		return err
	}
	if err := f.sim.Configure(f.simConfig(ctiAt, sipAt)); err != nil {
		return err
	}
	free = free[2*len(all):]
	if err := f.configureTwin(free[portsEach*len(f.directors):], ctiAt); err != nil {
		return err
	}
	if err := f.configureDirectors(free, ctiAt); err != nil {
		return err
	}
	return f.configureRecctl()
}

// recctlFile is how people find this floor and no other one of the machine.
const recctlFile = "recctl.toml"

// configureRecctl writes where the floor is. Watchdogs the directors name.
func (f *floor) configureRecctl() error {
	return process.WriteConfig(f.path(recctlFile), map[string]any{
		"directors": f.addresses(), "watchdogs": []string{}, "switch": f.simControl, "truth_log": f.path(truthLog),
	})
}

func (f *floor) configureRecorders(free []string) error {
	ports := f.options.Turrets*mixes + spare
	all := f.allRecorders()
	rtp, err := freeRange(ports, len(all))
	if err != nil {
		return err
	}
	for n, r := range all {
		r.at = free[2*n]
		group := primary
		if n >= len(f.recorders) {
			group = secondary
		}
		if err := r.Configure(map[string]any{
			"name": r.Name, "group": group, "control": r.at, "metrics": free[2*n+1], "dir": f.path(r.Name),
			"media":   map[string]any{"keep": "all"},
			"rtp":     map[string]any{"host": r.host, "port_min": rtp, "port_max": rtp + 2*(ports-1)},
			"journal": map[string]any{"file_age": "1s"}, // the report waits for the last file's end
			"limits":  map[string]any{"reserve": 0},
		}); err != nil {
			return err
		}
	}
	return nil
}

// freePorts are loopback addresses whose port was free for TCP and UDP a
// moment ago, all different.
func freePorts(n int) ([]string, error) {
	var addresses []string
	for tries := 0; len(addresses) < n; tries++ {
		if tries > 10*n {
			return nil, fmt.Errorf("find free ports: %d of %d", len(addresses), n)
		}
		tcp, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer tcp.Close() // held until all are found, so that they differ
		udp, err := net.ListenPacket("udp4", tcp.Addr().String())
		if err != nil {
			continue
		}
		defer udp.Close()
		addresses = append(addresses, tcp.Addr().String())
	}
	return addresses, nil
}

// freeRange is the first of n even UDP ports in a row that were free a moment
// ago on the address of every recorder. They are neither among the recorder's default ports nor among those the
// kernel gives away, so that nobody takes one while a recorder is dead.
func freeRange(n, hosts int) (first int, err error) {
	const lowest, highest = 10_000, 20_000
	if lowest+2*n > highest {
		return 0, fmt.Errorf("find free ports: %d turrets want more than there are", n/mixes)
	}
	for range 100 {
		first := lowest + 2*rand.IntN((highest-lowest-2*n)/2+1)
		if allFree(first, n, hosts) {
			return first, nil
		}
	}
	return 0, fmt.Errorf("find free ports: %d in a row from %d to %d are not free", n, lowest, highest)
}

func allFree(first, n, hosts int) bool {
	for port := first; port < first+2*n; port += 2 {
		for host := range hosts {
			c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, byte(host+1)), Port: port})
			if err != nil {
				return false
			}
			c.Close()
		}
	}
	return true
}

// wait goes on showing the floor until done says so. It ends early with an
// error when the context ends, a process dies, or patience does.
func (f *floor) wait(ctx context.Context, patience time.Duration, what string, done func() bool) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		// A death explains why nothing answers, so it is looked at first.
		for _, p := range f.processes() {
			if p.Died() {
				return p.Obituary()
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if done() {
			return nil
		}
		select {
		case <-ctx.Done():
		case s := <-f.samples:
			f.view.Sample(s)
		case <-deadline.C:
			return fmt.Errorf("waited %v for %s; the logs are in %s", patience, what, f.dir)
		case <-poll.C:
		}
	}
}

// until waits for an instant of the story.
func (f *floor) until(ctx context.Context, at time.Duration) error {
	return f.wait(ctx, forever, "", func() bool { return f.elapsed() >= at })
}

// during shows the floor while something long is done elsewhere.
func (f *floor) during(ctx context.Context, work func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- work() }()
	var err error
	if werr := f.wait(ctx, forever, "", func() bool {
		select {
		case err = <-ended:
			return true
		default:
			return false
		}
	}); werr != nil {
		return werr
	}
	return err
}

// brief is how long one question to a daemon of the demo may take: a dead one
// must not hold up the story.
const brief = 500 * time.Millisecond

// long is the same for what reads much.
const long = 10 * time.Second

func (f *floor) media(r *recorder) tandemv1connect.MediaServiceClient {
	return tandemv1connect.NewMediaServiceClient(f.http, "http://"+r.at)
}

// inventory is what a recorder holds; nil when it does not answer.
func (f *floor) inventory(ctx context.Context, r *recorder) *tandemv1.Inventory {
	ctx, cancel := context.WithTimeout(ctx, brief)
	defer cancel()
	answer, err := tandemv1connect.NewRecorderServiceClient(f.http, "http://"+r.at).Inventory(ctx, connect.NewRequest(&tandemv1.InventoryRequest{}))
	if err != nil {
		return nil
	}
	return answer.Msg.Inventory
}

// ongoing are the legs that last, as a recorder has them.
func (f *floor) ongoing(ctx context.Context, r *recorder) ([]*tandemv1.LegRecord, error) {
	ctx, cancel := context.WithTimeout(ctx, brief)
	defer cancel()
	answer, err := f.media(r).SearchCalls(ctx, connect.NewRequest(&tandemv1.SearchCallsRequest{Ongoing: true, Limit: 10_000}))
	if err != nil {
		return nil, err
	}
	return answer.Msg.Legs, nil
}

// sample begins to look at the floor several times a second.
func (f *floor) sample(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	samples, ended := make(chan Sample), make(chan struct{})
	f.samples = samples
	f.stopSamples = func() { cancel(); <-ended }
	go func() {
		defer close(ended)
		every := time.NewTicker(250 * time.Millisecond)
		defer every.Stop()
		for {
			state, _ := f.simulator().State(ctx)
			s := sampleOf(f.elapsed(), f.status(ctx), state)
			if f.twin != nil {
				s.Twin = states(f.statusOf(ctx, f.twin.director))
			}
			select {
			case <-ctx.Done():
				return
			case samples <- s:
			}
			select {
			case <-ctx.Done():
				return
			case <-every.C:
			}
		}
	}()
}

// sampleOf is what the director and the switch say of the floor.
func sampleOf(elapsed time.Duration, s *tandemv1.StatusResponse, sim scenario.SwitchState) Sample {
	d := itself(s)
	sample := Sample{
		Elapsed: elapsed, Turrets: int(d.GetSessions()), Channels: int(d.GetChannels()), Attached: int(d.GetAttached()),
		Calls: sim.Calls, Legs: sim.Legs, Leads: leads(s), Recorders: states(s),
	}
	for _, r := range s.GetRecorders() {
		l := r.GetLoad()
		sample.PacketsPS, sample.JournalLag = sample.PacketsPS+l.GetPacketsPerS(), sample.JournalLag+l.GetJournalLagBytes()
	}
	for _, a := range s.GetAlarms() {
		sample.Alarms = append(sample.Alarms, strings.TrimSpace(a.What+" "+a.Object))
	}
	return sample
}

// states are the recorders' in short: "3 ready", or those that are not.
func states(s *tandemv1.StatusResponse) string {
	if s == nil {
		return "unknown"
	}
	var others []string
	ready := 0
	for _, r := range s.Recorders {
		if r.State == "ready" {
			ready++
			continue
		}
		others = append(others, r.Name+" "+r.State)
	}
	return strings.Join(append([]string{fmt.Sprintf("%d ready", ready)}, others...), ", ")
}
