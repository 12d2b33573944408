package director

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"tandem/director/provider"
	"tandem/director/provider/unigy"
	"tandem/internal/call"
	"tandem/internal/media"
)

// exchange is the switch: agents log on and off, and it keeps a dialog for
// each channel that is attached. Everything in it is guarded by the
// simulation's mutex.
type exchange struct {
	sim     *sim
	place   *place
	agents  []*agentAt
	dialogs map[call.ChannelID]*leased
	news    []provider.Event // since the start
	heard   map[chan struct{}]bool
	invites int
	moves   int
	stolen  int
	byes    int
}

type agentAt struct {
	session  provider.Session
	channels []provider.Channel
	on       bool
}

// leased is a dialog as the switch has it.
type leased struct {
	id string
	to provider.Endpoint
	by *outlet // who made or adopted it, and hears when it ends
}

func newExchange(s *sim, agents int) *exchange {
	x := &exchange{sim: s, dialogs: make(map[call.ChannelID]*leased), heard: make(map[chan struct{}]bool)}
	x.place = s.addPlace("switch", "switch", "switch:6500", nil)
	for n := range agents {
		name := fmt.Sprint("s", n+1)
		events := logOn(name, time.Time{})
		a := &agentAt{session: events[0].(provider.LoggedOn).Session, on: n < agents-1}
		for _, e := range events[1:] {
			a.channels = append(a.channels, e.(provider.ChannelAvailable).Channel)
		}
		x.agents = append(x.agents, a)
	}
	return x
}

func (a *agentAt) events() []provider.Event {
	all := []provider.Event{provider.LoggedOn{Session: a.session, At: time.Now()}}
	for _, ch := range a.channels {
		all = append(all, provider.ChannelAvailable{Channel: ch})
	}
	return all
}

// toggle has one agent log on or off.
func (x *exchange) toggle(n int) {
	x.sim.mu.Lock()
	defer x.sim.mu.Unlock()
	a := x.agents[n%len(x.agents)]
	a.on = !a.on
	if a.on {
		x.news = append(x.news, a.events()...)
		x.sim.noteLocked("switch", "%s logs on", a.session.ID)
	} else {
		x.news = append(x.news, provider.LoggedOff{Session: a.session.ID, At: time.Now()})
		x.sim.noteLocked("switch", "%s logs off", a.session.ID)
		for _, ch := range a.channels {
			if d := x.dialogs[ch.ID]; d != nil {
				delete(x.dialogs, ch.ID)
				x.tellLocked(d, provider.Dropped{Channel: ch.ID, Cause: "logged off"})
			}
		}
	}
	for c := range x.heard {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// hangUp ends every dialog, for no reason.
func (x *exchange) hangUp() {
	x.sim.mu.Lock()
	defer x.sim.mu.Unlock()
	for id, d := range x.dialogs {
		delete(x.dialogs, id)
		x.tellLocked(d, provider.Dropped{Channel: id, Cause: "whim"})
	}
}

func (x *exchange) logged(id call.ChannelID) bool {
	for _, a := range x.agents {
		if slices.ContainsFunc(a.channels, func(ch provider.Channel) bool { return ch.ID == id }) {
			return a.on
		}
	}
	return false
}

// tellLocked sends the end of a dialog to whoever has it.
func (x *exchange) tellLocked(d *leased, e provider.Dropped) {
	o := d.by
	go func() {
		if x.sim.carry(x.place, o.process.place, x.sim.fate(x.place, o.process.place, "BYE "+string(e.Channel))) && o.process.hold(context.Background()) {
			o.dropped(d.id, e)
		}
	}()
}

var (
	errGone     = errors.New("481 no such dialog")
	errLeft     = errors.New("486 nobody is logged on")
	errNoAnswer = errors.New("no answer to INVITE")
)

// invite is what the switch does about an INVITE.
func (x *exchange) invite(o *outlet, channel call.ChannelID, id string, to provider.Endpoint, again bool) error {
	x.sim.mu.Lock()
	defer x.sim.mu.Unlock()
	d := x.dialogs[channel]
	switch {
	case !x.logged(channel):
		return errLeft
	case d != nil && d.id == id: // a re-INVITE, or a repeated INVITE
		if again {
			x.moves++
		}
		d.to, d.by = to, o
		return nil
	case again:
		return errGone
	case d != nil:
		x.stolen++
		x.tellLocked(d, provider.Dropped{Channel: channel, Taken: true})
	}
	x.invites++
	x.dialogs[channel] = &leased{id: id, to: to, by: o}
	x.sim.noteLocked("switch", "%s dials %s to %s:%d", o.process.place.name, channel, to.Host, to.Port)
	return nil
}

// bye ends a dialog. One that is ended while its agent is logged on is a
// recording ended: no change of role may do that (I6).
func (x *exchange) bye(o *outlet, channel call.ChannelID, id string) {
	x.sim.mu.Lock()
	defer x.sim.mu.Unlock()
	d := x.dialogs[channel]
	if d == nil || d.id != id {
		return
	}
	x.byes++
	delete(x.dialogs, channel)
	if x.logged(channel) {
		x.sim.violatedLocked("I6", "%s hangs %s up", o.process.place.name, channel)
	}
}

// outlet is one director's way to the switch, for one reign. It satisfies platform.
type outlet struct {
	sim     *sim
	process *process
	cfg     unigy.Config
	emit    func(provider.Event)
	tasks   sync.WaitGroup
	ending  chan struct{} // closed when Run is to end

	// Guarded by the simulation's mutex.
	mine    map[call.ChannelID]note1
	run     map[call.ChannelID]int // attempts; a detached one knows itself by it
	stopped bool
}

// note1 is a dialog as a recorder keeps it for the next director.
type note1 struct {
	Channel call.ChannelID
	ID      string
	To      provider.Endpoint
}

func (n note1) blob() []byte {
	b, _ := json.Marshal(n)
	return b
}

func (s *sim) newOutlet(p *process, cfg unigy.Config, emit func(provider.Event)) *outlet {
	return &outlet{sim: s, process: p, cfg: cfg, emit: emit, ending: make(chan struct{}), mine: make(map[call.ChannelID]note1), run: make(map[call.ChannelID]int)}
}

func (o *outlet) SIPAddr() netip.AddrPort { return netip.MustParseAddrPort("127.0.0.1:5070") }

func (o *outlet) Attach(req provider.Attach) {
	o.sim.mu.Lock()
	defer o.sim.mu.Unlock()
	if o.stopped {
		return
	}
	o.run[req.Channel]++
	run := o.run[req.Channel]
	o.tasks.Go(func() { o.attach(req, run) })
}

// attach asks, again and again as SIP over UDP does (RFC 3261 17.1.1.2), until
// there is an answer or patience ends.
func (o *outlet) attach(req provider.Attach, run int) {
	o.sim.mu.Lock()
	d, again := o.mine[req.Channel]
	o.sim.mu.Unlock()
	if !again {
		d = note1{Channel: req.Channel, ID: fmt.Sprintf("%s-%d-%s-%d", o.process.place.name, o.process.pid, req.Channel, run)}
	}
	d.To = req.Endpoint
	err := o.ask(d, again)
	o.sim.mu.Lock()
	current := o.run[req.Channel] == run && !o.stopped
	gone := again && (errors.Is(err, errGone) || errors.Is(err, errNoAnswer))
	switch {
	case !current:
	case err == nil:
		o.mine[req.Channel] = d
	case gone:
		delete(o.mine, req.Channel)
	}
	o.sim.mu.Unlock()
	switch {
	case !current && err == nil && !again && !o.ended():
		o.hangUp(d)
	case !current:
	case err != nil:
		o.emit(provider.AttachFailed{Channel: req.Channel, Peer: "switch", Err: err, Gone: gone})
	default:
		o.emit(provider.Attached{Channel: req.Channel, Endpoint: d.To, Codec: media.PCMU, Mux: true, Dialog: d.blob()})
	}
}

func (o *outlet) ended() bool {
	o.sim.mu.Lock()
	defer o.sim.mu.Unlock()
	return o.stopped
}

const silentSwitch = 4 * time.Second

func (o *outlet) ask(d note1, again bool) error {
	if err := o.allowed(); err != nil {
		return err
	}
	answer := make(chan error, 8)
	give := time.NewTimer(silentSwitch)
	defer give.Stop()
	go o.say(d, again, o.sim.checked(o.process), answer)
	for pause := 500 * time.Millisecond; ; pause *= 2 {
		repeat := time.NewTimer(pause)
		defer repeat.Stop()
		select {
		case err := <-answer:
			return err
		case <-give.C:
			return errNoAnswer
		case <-o.process.dead:
			return errDead
		case <-o.ending:
			return errDead
		case <-repeat.C:
			if o.allowed() == nil {
				go o.say(d, again, o.sim.checked(o.process), answer)
			}
		}
	}
}

// say sends one INVITE and brings the answer back.
func (o *outlet) say(d note1, again bool, w writing, answer chan<- error) {
	x, here := o.sim.exchange, o.process.place
	o.sim.sends(o.process, "INVITE", nil)
	if !o.process.hold(context.Background()) {
		return
	}
	f := o.sim.fate(here, x.place, fmt.Sprint("INVITE ", d.Channel))
	if o.sim.isCut(way{here.host, x.place.host}) != nil || !o.sim.carry(here, x.place, f) {
		return
	}
	o.sim.switched(w)
	err := x.invite(o, d.Channel, d.ID, d.To, again)
	if !o.sim.carry(x.place, here, o.sim.fate(x.place, here, fmt.Sprint("answer ", d.Channel))) || !o.process.hold(context.Background()) {
		return
	}
	select {
	case answer <- err:
	default:
	}
}

// allowed is the gate that every request to the switch passes.
func (o *outlet) allowed() error {
	if o.sim.sabotage.is(noGate) {
		return nil
	}
	return o.cfg.Gate()
}

func (o *outlet) hangUp(d note1) {
	if !o.sim.sabotage.is(hangsUp) && o.allowed() != nil {
		return
	}
	w := o.sim.checked(o.process)
	x, here := o.sim.exchange, o.process.place
	if o.sim.carry(here, x.place, o.sim.fate(here, x.place, fmt.Sprint("BYE ", d.Channel))) {
		o.sim.switched(w)
		x.bye(o, d.Channel, d.ID)
	}
}

func (o *outlet) Detach(channel call.ChannelID) {
	o.sim.mu.Lock()
	defer o.sim.mu.Unlock()
	o.run[channel]++
	d, has := o.mine[channel]
	delete(o.mine, channel)
	if has && !o.stopped {
		o.tasks.Go(func() { o.hangUp(d) })
	}
}

func (o *outlet) Adopt(channel call.ChannelID, dialog []byte) {
	go func() {
		var d note1
		err := json.Unmarshal(dialog, &d)
		if err == nil {
			o.sim.mu.Lock()
			o.mine[channel] = d
			if at := o.sim.exchange.dialogs[channel]; at != nil && at.id == d.ID {
				at.by = o
			}
			o.sim.mu.Unlock()
		}
		o.emit(provider.Adopted{Channel: channel, Endpoint: d.To, Err: err})
	}()
}

// dropped takes in the end of a dialog.
func (o *outlet) dropped(id string, e provider.Dropped) {
	o.sim.mu.Lock()
	known := o.mine[e.Channel].ID == id && !o.stopped
	if known {
		delete(o.mine, e.Channel)
	}
	o.sim.mu.Unlock()
	if known {
		o.emit(e)
	}
}

// ctiSilence is after how long without heartbeats a link is dead.
const ctiSilence = 300 * time.Millisecond

// Run keeps the link on which the switch tells what happens.
func (o *outlet) Run(ctx context.Context) error {
	for wait := time.Duration(0); ctx.Err() == nil; wait = 200 * time.Millisecond {
		if !pauseFor(ctx, wait) {
			break
		}
		o.link(ctx)
	}
	o.sim.mu.Lock()
	o.stopped = true
	o.sim.mu.Unlock()
	close(o.ending)
	o.tasks.Wait()
	return nil
}

func pauseFor(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return ctx.Err() == nil
	}
}

func (o *outlet) reached() bool {
	a, b := o.process.place.host, o.sim.exchange.place.host
	return o.sim.isCut(way{a, b}) == nil && o.sim.isCut(way{b, a}) == nil
}

func (o *outlet) link(ctx context.Context) {
	x := o.sim.exchange
	if !o.reached() || !o.process.hold(ctx) || !pauseFor(ctx, 2*time.Millisecond) {
		return
	}
	news := make(chan struct{}, 1)
	o.sim.mu.Lock()
	x.heard[news] = true
	read := len(x.news)
	var snapshot []provider.Event
	for _, a := range x.agents {
		if a.on {
			snapshot = append(snapshot, a.events()...)
		}
	}
	o.sim.mu.Unlock()
	defer func() {
		o.sim.mu.Lock()
		delete(x.heard, news)
		o.sim.mu.Unlock()
	}()
	o.emit(provider.LinkUp{Peer: "switch", Incarnation: "1"})
	o.emit(provider.SnapshotBegin{})
	for _, e := range snapshot {
		o.emit(e)
	}
	o.emit(provider.SnapshotEnd{})
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	heard := time.Now()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-news:
			time.Sleep(time.Millisecond)
		case <-tick.C:
		}
		switch reached := o.reached(); {
		case !o.process.hold(ctx):
			return
		case reached:
			heard = time.Now()
			o.sim.mu.Lock()
			fresh := slices.Clone(x.news[read:])
			read = len(x.news)
			o.sim.mu.Unlock()
			for _, e := range fresh {
				o.emit(e)
			}
		case time.Since(heard) > ctiSilence:
			o.emit(provider.LinkDown{Peer: "switch", Heard: heard, Err: errors.New("no heartbeat")})
			return
		}
	}
}
