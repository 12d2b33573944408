package turretsim

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"tandem/internal/call"
	"tandem/internal/cti"
	"tandem/internal/tone"
	"tandem/turretsim/truth"
	"tandem/turretsim/voice"
)

// Streams of random numbers that one seed gives.
const (
	seedFloor = 0xF1 + iota
	seedSIP
	seedCTI
)

// turret is one device and whoever works at it.
type turret struct {
	device   string
	user     string
	userName string
	shard    *shard
	session  *session
	logons   int
	busy     map[string]*leg // by source
}

// session is a user logged on at a turret.
type session struct {
	cti.Session
	at       time.Duration
	turret   *turret
	channels []cti.Channel
}

// conversation is one call and its legs, in the order they joined.
type conversation struct {
	cti.Call
	offered     time.Duration
	established time.Duration // 0: not yet
	held        time.Duration // 0: not held
	legs        []*leg
	pending     int // legs that have yet to join
}

// leg is one source of one turret in a call.
type leg struct {
	cti.Leg
	turret *turret
	call   *conversation
	joined time.Duration
	origin string        // the source it joined on
	moved  time.Duration // 0: never
	over   bool
}

// action is something the floor does at a planned time.
type action struct {
	at    time.Duration // since the clock's origin
	order uint64
	do    func()
}

type agenda []action

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(a[i].at, a[j].at), cmp.Compare(a[i].order, a[j].order)) < 0
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(action)) }
func (a *agenda) Pop() any {
	last := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return last
}

// floor is the trading floor: who is logged on, who talks to whom. One
// goroutine, in run, owns all of it; others hand it functions through do.
//
// It plans in whole milliseconds of the media clock and draws every random
// number at a planned instant, so that equal seeds give equal floors however
// late the machine is.
type floor struct {
	cfg    Config
	clock  clock
	rng    *rand.Rand
	log    *truth.Log
	phone  *phone
	sender *sender
	faults *atomic.Pointer[Faults]
	clips  []*voice.Clip

	requests chan func()
	done     chan struct{}

	now      time.Duration // planned time of what is being done
	agenda   agenda
	order    uint64
	server   string
	servers  int
	turrets  []*turret
	calls    map[string]*conversation
	made     int // calls
	quiet    bool
	links    map[*link]struct{}
	picture  []cti.Message
	pictured bool // picture is what stale snapshots show
}

func newFloor(cfg Config, c clock, log *truth.Log, p *phone, s *sender, faults *atomic.Pointer[Faults], clips []*voice.Clip) *floor {
	f := &floor{
		cfg: cfg, clock: c, log: log, phone: p, sender: s, faults: faults, clips: clips,
		rng:      rand.New(rand.NewPCG(cfg.Seed, seedFloor)),
		requests: make(chan func()), done: make(chan struct{}),
		calls: map[string]*conversation{}, links: map[*link]struct{}{},
	}
	for i := range cfg.Floor.Turrets {
		device := fmt.Sprintf("T%04d", i+1)
		first, last := firstNames[i%len(firstNames)], lastNames[(i+i/len(firstNames))%len(lastNames)]
		f.turrets = append(f.turrets, &turret{
			device: device, user: fmt.Sprintf("u%04d", i+1), userName: first + " " + last,
			shard: s.of(device), busy: map[string]*leg{},
		})
	}
	return f
}

// do runs f in the floor's loop and waits for it; false when the loop is over.
func (f *floor) do(fn func()) bool {
	ran := make(chan struct{})
	select {
	case f.requests <- func() { fn(); close(ran) }:
		<-ran
		return true
	case <-f.done:
		return false
	}
}

// run lives the floor's life until ctx ends. While it is behind its plan it does
// what is asked between two planned things, at the instant that it has reached.
func (f *floor) run(ctx context.Context) error {
	defer close(f.done)
	f.open()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait := time.Hour
		if len(f.agenda) > 0 {
			wait = f.agenda[0].at - f.clock.since(time.Now())
		}
		if wait <= 0 && ctx.Err() == nil {
			next := heap.Pop(&f.agenda).(action)
			f.now = next.at
			next.do()
			select {
			case request := <-f.requests:
				request()
			default:
			}
			continue
		}
		timer.Reset(max(0, wait))
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case request := <-f.requests:
			f.now = max(f.now, f.clock.since(time.Now()).Truncate(time.Millisecond))
			request()
		}
	}
}

// open starts an incarnation: everybody logs on, calls begin.
func (f *floor) open() {
	for i, t := range f.turrets {
		f.plan(time.Duration(i)*f.cfg.Floor.LogonInterval.Std(), func() { f.logOn(t) })
	}
	f.planCall()
}

// plan puts something on the agenda, in whole milliseconds from now on.
func (f *floor) plan(in time.Duration, do func()) {
	f.order++
	heap.Push(&f.agenda, action{at: (f.now + in).Truncate(time.Millisecond), order: f.order, do: do})
}

// exponential draws a time around mean, no longer than ten times it.
func (f *floor) exponential(mean time.Duration) time.Duration {
	return min(10*mean, time.Duration(f.rng.ExpFloat64()*float64(mean)))
}

// between draws a time from lo to hi.
func (f *floor) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(f.rng.Int64N(int64(hi-lo)))
}

func (f *floor) wall(at time.Duration) time.Time { return f.clock.origin.Add(at) }

// logOn makes a session and its channels.
func (f *floor) logOn(t *turret) {
	if t.session != nil {
		return
	}
	t.logons++
	id := fmt.Sprintf("%s-%d", t.device, t.logons)
	s := &session{
		Session: cti.Session{ID: id, User: t.user, UserName: t.userName, Device: t.device, Profile: fmt.Sprintf("mixes-%d", f.cfg.Floor.Mixes)},
		at:      f.now, turret: t,
	}
	t.session = s
	f.log.Add(truth.Line{Type: truth.TypeSession, At: f.wall(f.now), Session: id, User: t.user, Device: t.device})
	f.emit(cti.Message{Type: cti.TypeAgentLoggedOn, Session: &s.Session})
	for mix, sources := range profile(f.cfg.Floor.Mixes) {
		for _, copy := range f.cfg.Floor.Copies {
			f.makeChannel(s, fmt.Sprintf("m%d", mix+1), copy, sources)
		}
	}
	if mean := f.cfg.Floor.LogonTime.Std(); mean > 0 {
		f.plan(f.exponential(mean), func() {
			if t.session == s {
				f.logOff(t, "user")
				f.plan(f.between(2*time.Second, 10*time.Second), func() { f.logOn(t) })
			}
		})
	}
}

// profile is the sources of each mix: the handsets, then speakers by fours.
func profile(mixes int) [][]string {
	p := [][]string{{"HS.L", "HS.R"}}
	for speaker := 1; len(p) < mixes; speaker += 4 {
		var sources []string
		for i := range 4 {
			sources = append(sources, fmt.Sprintf("SPK.%d", speaker+i))
		}
		p = append(p, sources)
	}
	return p
}

func (f *floor) makeChannel(s *session, mix, copy string, sources []string) {
	c := cti.Channel{
		ID: fmt.Sprintf("%s.%s.%s", s.ID, mix, copy), Session: s.ID, Mix: mix, Copy: copy, Sources: sources,
	}
	c.URI = fmt.Sprintf("sip:%s@%s", c.ID, f.phone.addr)
	for _, codec := range f.cfg.RTP.Codecs {
		c.Codecs = append(c.Codecs, codec+"/8000")
	}
	s.channels = append(s.channels, c)
	dialable := &channel{id: c.ID, device: s.Device}
	for _, source := range sources {
		named, err := tone.NewSource(s.Device, source)
		if err != nil {
			panic(err) // profile makes only names that have a band
		}
		if f.voice() == truth.VoiceTones {
			dialable.steady = append(dialable.steady, named)
		} else {
			dialable.speakers = append(dialable.speakers, s.turret.shard.speaker(speakerKey{s.Device, source}, named))
		}
	}
	f.log.Add(truth.Line{Type: truth.TypeChannel, At: f.wall(f.now), Channel: c.ID, Session: s.ID, Device: s.Device, Mix: mix, Copy: copy, Sources: sources})
	f.phone.offerChannel(dialable)
	f.emit(cti.Message{Type: cti.TypeChannelAvailable, Channel: &c})
}

// voice is how sources speak on this floor.
func (f *floor) voice() string {
	switch {
	case len(f.clips) > 0:
		return truth.VoiceFiles
	case f.cfg.RTP.VAD:
		return truth.VoiceSpurts
	}
	return truth.VoiceTones
}

// logOff ends a session: its legs, its channels, then itself.
func (f *floor) logOff(t *turret, cause string) {
	s := t.session
	if s == nil {
		return
	}
	for _, source := range slices.Sorted(maps.Keys(t.busy)) {
		f.leave(t.busy[source])
	}
	for i := range s.channels {
		c := s.channels[i]
		f.log.Add(truth.Line{Type: truth.TypeChannelEnd, At: f.wall(f.now), Channel: c.ID})
		f.emit(cti.Message{Type: cti.TypeChannelUnavailable, Channel: &c, Cause: "logged_off"})
		f.phone.withdraw(c.ID)
	}
	t.session = nil
	f.log.Add(truth.Line{Type: truth.TypeSessionEnd, At: f.wall(f.now), Session: s.ID, Cause: cause})
	f.emit(cti.Message{Type: cti.TypeAgentLoggedOff, Session: &cti.Session{ID: s.ID}, Cause: cause})
}

// emit tells every subscriber what concerns its copy, as of now.
func (f *floor) emit(m cti.Message) {
	m.T = f.wall(f.now)
	faults := f.faults.Load().CTI
	for l := range f.links {
		if line, ok := forCopy(m, l.copy); ok {
			l.emit(line, faults)
		}
	}
}

// forCopy leaves of a message what a subscriber of that copy may see.
func forCopy(m cti.Message, copy call.Copy) (cti.Message, bool) {
	if c := m.Channel; c != nil {
		if call.Copy(c.Copy) != copy && c.Copy != "" {
			return m, false
		}
		if m.Type == cti.TypeChannelUnavailable {
			m.Channel = &cti.Channel{ID: c.ID}
		}
	}
	if m.Channels != nil {
		m.Channels = slices.DeleteFunc(slices.Clone(m.Channels), func(id string) bool { return !ofCopy(id, copy) })
	}
	return m, true
}

// subscribe sends a link the picture of the floor and every event after it.
// ofCopy says that a channel, by its id, is of a copy.
func ofCopy(channel string, copy call.Copy) bool {
	return strings.HasSuffix(channel, "."+string(copy))
}

func (f *floor) subscribe(l *link, copy call.Copy) {
	f.do(func() {
		l.copy = copy
		f.links[l] = struct{}{}
		f.sendSnapshot(l)
	})
}

func (f *floor) unsubscribe(l *link) {
	f.do(func() { delete(f.links, l) })
}

func (f *floor) sendSnapshot(l *link) {
	faults := f.faults.Load().CTI
	picture := f.snapshot()
	switch faults.Snapshot {
	case "stale":
		if f.pictured {
			picture = f.picture
		}
	case "partial":
		picture = withoutSome(picture, l.rng)
	}
	whole := CTIFaults{} // a snapshot has faults of its own
	l.emit(cti.Message{Type: cti.TypeSnapshotBegin, T: f.wall(f.now)}, whole)
	for i, m := range picture {
		if faults.Snapshot == "cut" && i >= len(picture)/2 {
			l.finish()
			return
		}
		if m, ok := forCopy(m, l.copy); ok {
			l.emit(m, whole)
		}
	}
	l.emit(cti.Message{Type: cti.TypeSnapshotEnd, T: f.wall(f.now)}, whole)
}

// withoutSome leaves out some sessions and all that is theirs.
func withoutSome(picture []cti.Message, rng *rand.Rand) (rest []cti.Message) {
	missing := map[string]bool{}
	for _, m := range picture {
		switch {
		case m.Session != nil && rng.Float64() < partialShare:
			missing[m.Session.ID] = true
			continue
		case m.Channel != nil && missing[m.Channel.Session], m.Leg != nil && missing[m.Leg.Session]:
			continue
		}
		rest = append(rest, m)
	}
	return rest
}

// snapshot is the floor as it is now, in the words of the events that made it:
// sessions, their channels, calls, legs.
func (f *floor) snapshot() (picture []cti.Message) {
	for _, t := range f.turrets {
		if s := t.session; s != nil {
			picture = append(picture, cti.Message{Type: cti.TypeAgentLoggedOn, T: f.wall(s.at), Session: &s.Session})
		}
	}
	for _, t := range f.turrets {
		if s := t.session; s != nil {
			for i := range s.channels {
				picture = append(picture, cti.Message{Type: cti.TypeChannelAvailable, T: f.wall(s.at), Channel: &s.channels[i]})
			}
		}
	}
	var legs []cti.Message
	for _, id := range slices.Sorted(maps.Keys(f.calls)) {
		c := f.calls[id]
		if c.established == 0 {
			picture = append(picture, cti.Message{Type: cti.TypeCallOffered, T: f.wall(c.offered), Call: &c.Call})
			continue
		}
		picture = append(picture, cti.Message{Type: cti.TypeCallEstablished, T: f.wall(c.established), Call: &c.Call})
		if c.held != 0 {
			picture = append(picture, cti.Message{Type: cti.TypeCallHeld, T: f.wall(c.held), Call: &c.Call})
		}
		for _, l := range c.legs {
			legs = append(legs, l.history(f)...)
		}
	}
	return append(picture, legs...)
}

// history is a leg as it joined and, when it moved since, where it is.
func (l *leg) history(f *floor) (events []cti.Message) {
	if l.over {
		return nil
	}
	joined := l.Leg
	joined.Source = l.origin
	events = append(events, cti.Message{Type: cti.TypeLegJoined, T: f.wall(l.joined), Leg: &joined, Channels: l.turret.holding(l.origin)})
	if l.moved != 0 {
		now := l.Leg
		events = append(events, cti.Message{Type: cti.TypeLegMoved, T: f.wall(l.moved), Leg: &now, Channels: l.turret.holding(l.Source)})
	}
	return events
}

// holding is the channels, of every copy, whose mix holds a source.
func (t *turret) holding(source string) (ids []string) {
	ids = []string{}
	if t.session != nil {
		for _, c := range t.session.channels {
			if slices.Contains(c.Sources, source) {
				ids = append(ids, c.ID)
			}
		}
	}
	return ids
}

// restart is a switch that crashed and came back: links cut, dialogs
// forgotten, calls gone, and everybody logs on again under a new server id.
func (f *floor) restart(server *ctiServer) {
	f.rename(server)
	f.phone.forget()
	for _, t := range f.turrets {
		for source := range t.busy {
			f.silence(t, source)
		}
		t.session, t.busy = nil, map[string]*leg{}
	}
	f.agenda, f.calls = nil, map[string]*conversation{}
	f.open()
}

// rename gives the CTI server a new incarnation and cuts its links.
func (f *floor) rename(server *ctiServer) {
	f.servers++
	f.server = fmt.Sprintf("turretsim-%d-%d", f.clock.origin.UnixMilli(), f.servers)
	clear(f.links)
	f.log.Add(truth.Line{Type: truth.TypeServer, At: f.wall(f.now), Server: f.server})
	server.restart(f.server)
	slog.Info("CTI server began", "server", f.server)
}
