package director

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/director/provider"
	"tandem/director/provider/unigy"
	"tandem/internal/authority"
	"tandem/internal/config"
	"tandem/internal/local"
	"tandem/internal/monitor"
	"tandem/internal/pair"
	"tandem/watchdog"
)

// respawn is how long systemd waits before it starts a program again.
const respawn = 200 * time.Millisecond

// seat is the host of a director and of the watchdog beside it.
type seat struct {
	sim      *sim
	host     string
	cfg      Config
	director *place
	watchdog *place
	reports  chan local.Event // the socket between the two
}

func (s *sim) addPlace(name, host, address string, boot func(*process) http.Handler) *place {
	r := s.chance("place", name)
	at := &place{
		name: name, host: host, address: address, boot: boot,
		base: authority.Instant(1 + r.Int64N(int64(1000*time.Hour))), rate: 1 + (2*r.Float64()-1)*rateBound,
	}
	s.places[address] = at
	s.order = append(s.order, at)
	return at
}

// rateBound is by how much a clock's rate may differ from another's, half of
// what the protocol allows for between two of them.
const rateBound = 250e-6

func (s *sim) addSeat(name string, preferred bool) *seat {
	host := "host-" + name
	seat := &seat{sim: s, host: host, reports: make(chan local.Event, 64)}
	seat.director = s.addPlace("dir-"+name, host, "dir-"+name+":7401", seat.direct)
	seat.watchdog = s.addPlace("wd-"+name, host, "wd-"+name+":7403", seat.watch)
	other := map[string]string{"a": "b", "b": "a"}[name]
	cfg := DefaultConfig()
	cfg.Name, cfg.Control, cfg.Monitor = "dir-"+name, seat.director.address, "dir-"+name+":10031"
	cfg.Recorders = nil
	for _, b := range s.recorders {
		cfg.Recorders = append(cfg.Recorders, RecorderConfig{Name: b.name, Address: b.address})
	}
	cfg.Placement.SlowStart, cfg.Provider.Unigy.OrphanGrace = 0, config.Duration(time.Second)
	cfg.Failover = pair.DefaultConfig()
	cfg.Failover.Preferred, cfg.Failover.Profile, cfg.Failover.Isolated = preferred, s.plan.profile, s.plan.isolated
	cfg.Failover.FailbackHold = config.Duration(failbackHold)
	cfg.Failover.Peer, cfg.Failover.PeerMonitor, cfg.Failover.PeerWatchdog = "dir-"+other+":7401", []string{"dir-" + other + ":10031"}, "wd-"+other+":7403"
	cfg.Failover.Voters = s.voters
	seat.cfg = cfg
	return seat
}

// failbackHold is shorter than any configuration allows, to see more of it.
const failbackHold = 600 * time.Millisecond

// direct runs a director: all of it but its sockets.
func (seat *seat) direct(p *process) http.Handler {
	s := seat.sim
	p.orders = &ledger{}
	d, err := assemble(seat.cfg, world{
		client: func() client { return &wire{p} },
		clock:  p.clock,
		spread: func(most time.Duration) time.Duration {
			return time.Duration(s.chance("spread", p.place.name).Int64N(int64(most)))
		},
		platform: func(cfg unigy.Config, emit func(provider.Event)) (platform, error) {
			return s.newOutlet(p, cfg, emit), nil
		},
	}, s.logger(p.place.name))
	if err == nil {
		var first *reign
		if first, err = d.newReign(); err == nil {
			d.reign.Store(first)
		}
	}
	if err != nil {
		s.violated("director", "%s does not start: %v", p.place.name, err)
		return http.NotFoundHandler()
	}
	p.director = d
	d.pair.beat = func(r local.Report) { seat.report(p, r) }
	s.sabotage.director(p)
	go d.pair.elector.run(p.ctx)
	go d.reigns(p.ctx)
	go d.pair.tell(p.ctx)
	go d.pair.stepAside(p.ctx)
	go seat.mourn(p)
	return s.sabotage.handler(p, d.handler())
}

// mourn tells of the end of a director's process, as its pidfd does.
func (seat *seat) mourn(p *process) {
	<-p.dead
	time.Sleep(2 * time.Millisecond)
	seat.send(local.Gone{PID: p.pid})
}

func (seat *seat) send(e local.Event) {
	select {
	case seat.reports <- e:
	default: // nobody reads
	}
}

func (seat *seat) report(p *process, r local.Report) {
	if p.alive() {
		seat.send(connectedHeard{p.pid, local.Heard{Report: r}})
	}
}

// connectedHeard is a report and the process that it is from.
type connectedHeard struct {
	pid int
	local.Heard
}

// follow is local.Follow.
func (seat *seat) follow(ctx context.Context, p *process, tell func(local.Event)) error {
	known := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-seat.reports:
			if !p.hold(ctx) {
				return nil
			}
			if r, ok := e.(connectedHeard); ok {
				if r.pid != known {
					known = r.pid
					tell(local.Connected{Process: &local.Process{PID: known}})
				}
				e = r.Heard
			}
			tell(e)
		}
	}
}

// watch runs the watchdog.
func (seat *seat) watch(p *process) http.Handler {
	s := seat.sim
	cfg := watchdog.DefaultConfig()
	cfg.Name, cfg.Control = p.place.name, p.place.address
	if s.plan.profile == "fast" {
		cfg.ProbeInterval = config.Duration(50 * time.Millisecond)
	}
	cfg.CTIGrace = config.Duration(500 * time.Millisecond)
	w := watchdog.New(cfg, watchdog.Beside{Name: seat.cfg.Name, Group: seat.cfg.Group, Control: seat.cfg.Control, Monitor: seat.cfg.Monitor, Failover: seat.cfg.Failover}, watchdog.World{
		Client: &wire{p},
		Probe:  func(addresses []string) watchdog.Prober { return &probing{p, addresses} },
		Follow: func(ctx context.Context, tell func(local.Event)) error { return seat.follow(ctx, p, tell) },
		Kill: func(victim *local.Process) error {
			if !p.hold(context.Background()) {
				return errDead
			}
			if d := s.running(seat.director); d != nil && d.pid == victim.PID {
				s.note(p.place.name, "kills process %d", d.pid)
				s.end(d, respawn)
			}
			return nil
		},
		Clock: p.clock,
	}, s.logger(p.place.name))
	go w.Run(p.ctx)
	return w.Handler()
}

// probing asks a director's monitoring port.
type probing struct {
	from  *process
	paths []string
}

var errSilence = errors.New("no answer")

// Probe implements watchdog.Prober.
func (q *probing) Probe(ctx context.Context) monitor.Round {
	s := q.from.sim
	round := monitor.Round{At: time.Now(), Paths: []monitor.PathResult{{Path: q.paths[0], Err: errSilence}}}
	if !q.from.hold(ctx) {
		return round
	}
	to := s.directorAt(q.paths[0])
	answer := make(chan monitor.Reply, 1)
	go func() {
		if !s.datagram(q.from.place, to, "probe") {
			return
		}
		p := s.running(to)
		if p == nil || !p.hold(context.Background()) {
			return
		}
		if r, ok := p.director.pair.probed(); ok && p.hold(context.Background()) && s.datagram(to, q.from.place, "reply") {
			answer <- r
		}
	}()
	select {
	case r := <-answer:
		round.Paths[0] = monitor.PathResult{Path: q.paths[0], Heard: true, RTT: time.Since(round.At), Reply: r}
	case <-ctx.Done():
	}
	return round
}

// datagram carries one, which nobody repeats.
func (s *sim) datagram(from, to *place, what string) bool {
	f := s.fate(from, to, what)
	f.stubborn = false
	return s.carry(from, to, f)
}

func (s *sim) directorAt(monitoring string) *place {
	for _, seat := range s.seats {
		if seat.cfg.Monitor == monitoring || seat.cfg.Name+":10031" == monitoring {
			return seat.director
		}
	}
	panic("no director at " + monitoring)
}

// end kills a process; systemd starts the next one after a while.
func (s *sim) end(p *process, after time.Duration) {
	s.kill(p)
	go func() {
		time.Sleep(after)
		s.restart(p.place)
	}()
}

// restart starts a program unless it runs.
func (s *sim) restart(at *place) {
	s.mu.Lock()
	starts := at.now == nil && !s.over && at.boot != nil && !at.starting
	at.starting = at.starting || starts
	s.mu.Unlock()
	if starts {
		s.start(at)
		s.mu.Lock()
		at.starting = false
		s.mu.Unlock()
	}
}

// holder is the seat of the director that has authority, or else that of the
// one that has it first.
func (s *sim) holder() (active, standby *seat) {
	s.mu.Lock()
	defer s.mu.Unlock()
	best := 0
	for i, seat := range s.seats {
		if p := seat.director.now; p != nil && p.director != nil {
			if t := p.director.right.held.Load(); t != nil && t.holds(seat.director.instant()) {
				best = i
			}
		}
	}
	return s.seats[best], s.seats[1-best]
}

// until is when, by the simulation's clock, the authority of a seat's director ends, unless it is renewed.
func (s *sim) until(seat *seat) time.Time {
	if p := s.running(seat.director); p != nil {
		if t := p.director.right.held.Load(); t != nil {
			return seat.director.at(t.until)
		}
	}
	return time.Now()
}

// command is what an operator does.
func (s *sim) handOver(to string, by *seat) {
	p := &process{sim: s, place: by.watchdog, dead: make(chan struct{})}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := tandemv1connect.NewDirectorServiceClient(&wire{p}, "http://"+by.director.address).Failover(ctx, connect.NewRequest(&tandemv1.FailoverRequest{To: to, Actor: "somebody", Reason: "wants it"}))
	s.note("operator", "asked for %s: %v", to, err)
}

// ways are all directions between a host and others.
func ways(host string, others ...string) []way {
	var all []way
	for _, o := range others {
		all = append(all, way{host, o}, way{o, host})
	}
	return all
}

func outward(host string, others ...string) []way {
	var all []way
	for _, o := range others {
		all = append(all, way{host, o})
	}
	return all
}

func inward(host string, others ...string) []way {
	var all []way
	for _, o := range others {
		all = append(all, way{o, host})
	}
	return all
}

// hosts are all but one.
func (s *sim) hosts(but string) []string {
	var all []string
	for _, at := range s.order {
		if at.host != but && !slices.Contains(all, at.host) {
			all = append(all, at.host)
		}
	}
	return all
}

func (s *sim) recorderHosts() []string {
	var all []string
	for _, b := range s.booths {
		all = append(all, b.host)
	}
	return all
}

func (p plan) String() string {
	return fmt.Sprintf("profile %s, %d voters, %d recorders, %d agents, isolated = %s, spread %v, loss %.3f, tail %.3f, twice %.3f",
		p.profile, p.voters, p.recorders, p.agents, p.isolated, p.noise.spread, p.noise.loss, p.noise.tail, p.noise.twice)
}
