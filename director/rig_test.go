package director

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/director/provider"
	"tandem/internal/call"
	"tandem/internal/media"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// fataler is what *testing.T and *rapid.T have in common here.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// rig is a floor in a made-up world: recorders that hold what they are told,
// and a switch that keeps dialogs. Time passes only when told to.
type rig struct {
	t         fataler
	f         *floor
	now       time.Time
	recorders map[call.RecorderName]*fakeRecorder
	dialogs   map[call.ChannelID]provider.Endpoint // what the switch has attached, and where it sends
	asked     map[call.ChannelID]provider.Attach   // attempts not answered yet
	detached  []call.ChannelID
	attempts  int
}

// fakeRecorder holds channels, and records as they were last told.
type fakeRecorder struct {
	name        call.RecorderName
	up          bool
	epoch       uint64
	holder      string
	boot        int
	port        int
	refuse      string // what it answers to opens
	unready     string // why it says it is not ready
	draining    bool
	most        int // channels it takes; 0: 1,000
	channels    map[string]*tandemv1.HeldChannel
	legs        map[string]*tandemv1.Leg
	calls       map[string]*tandemv1.Call
	blind       []*tandemv1.Window
	closed      map[string]string
	continued   map[string]*tandemv1.Continuation // by channel, as it was opened
	missed      map[string]*tandemv1.Continuation // by channel, as it was told once the switch had answered
	listened    map[provider.Endpoint]call.ChannelID
	closedWhile map[call.ChannelID]provider.Endpoint // where it was told to close it while the switch sent there
	dialogs     map[call.ChannelID]provider.Endpoint // the switch's
}

func newRig(t fataler, names ...string) *rig {
	var recorders []RecorderConfig
	r := &rig{
		t: t, now: noon, recorders: make(map[call.RecorderName]*fakeRecorder),
		dialogs: make(map[call.ChannelID]provider.Endpoint), asked: make(map[call.ChannelID]provider.Attach),
	}
	for i, name := range names {
		recorders = append(recorders, RecorderConfig{Name: name, Address: fmt.Sprint("127.0.0.1:", 7402+i)})
		r.recorders[call.RecorderName(name)] = &fakeRecorder{
			name: call.RecorderName(name), port: 20_000 + 2000*i, channels: make(map[string]*tandemv1.HeldChannel),
			legs: make(map[string]*tandemv1.Leg), calls: make(map[string]*tandemv1.Call), closed: make(map[string]string),
			continued: make(map[string]*tandemv1.Continuation), missed: make(map[string]*tandemv1.Continuation), listened: make(map[provider.Endpoint]call.ChannelID),
			closedWhile: make(map[call.ChannelID]provider.Endpoint), dialogs: r.dialogs,
		}
	}
	r.f = newFloor(testConfig(recorders...), noon, slog.New(slog.DiscardHandler))
	return r
}

// restartDirector forgets everything a director knows; the world goes on.
func (r *rig) restartDirector() {
	var recorders []RecorderConfig
	for _, name := range r.names() {
		recorders = append(recorders, r.f.recorders[name].RecorderConfig)
	}
	r.f = newFloor(testConfig(recorders...), r.now, slog.New(slog.DiscardHandler))
	clear(r.asked)
	for _, name := range r.names() {
		if rec := r.recorders[name]; rec.up {
			r.connect(name)
		} else {
			r.f.recorderDown(r.now, name, "refused", r.now)
		}
	}
	r.settle()
}

func (r *rig) names() []call.RecorderName { return slices.Sorted(maps.Keys(r.recorders)) }

// connect lets the floor reach a recorder.
func (r *rig) connect(name call.RecorderName) {
	rec := r.recorders[name]
	rec.up = true
	r.f.recorderHeard(r.now, name, rec.inventory())
	r.act()
}

// start connects every recorder and the link, with an empty snapshot.
func (r *rig) start() {
	for _, name := range r.names() {
		r.connect(name)
	}
	r.tell(provider.LinkUp{Peer: "switch"}, provider.SnapshotBegin{}, provider.SnapshotEnd{})
	r.settle()
}

// lose takes a recorder away; killed, it comes back as another process.
func (r *rig) lose(name call.RecorderName, killed bool) {
	rec := r.recorders[name]
	rec.up = false
	if killed {
		rec.boot++
	}
	if b := r.f.recorders[name].sent; b != nil {
		r.f.batchDone(r.now, r.f.recorders[name], fmt.Errorf("lost"))
	}
	r.f.recorderDown(r.now, name, "refused", r.now)
}

func (r *rig) tell(events ...provider.Event) {
	for _, e := range events {
		r.f.apply(r.now, e)
		r.act()
	}
}

// pass lets time go by, with the floor looking around as often as it does.
func (r *rig) pass(d time.Duration) {
	for end := r.now.Add(d); r.now.Before(end); {
		r.now = r.now.Add(beat)
		r.f.tick(r.now)
		r.act()
		r.deliver()
	}
}

// settle answers every attempt well until nothing more happens.
func (r *rig) settle() {
	for range 50 {
		r.pass(beat)
		r.answerAll()
	}
}

// act carries out what the floor wants of switch and links.
func (r *rig) act() {
	for _, a := range r.f.take() {
		switch a := a.(type) {
		case attach:
			if _, twice := r.asked[a.Channel]; twice {
				r.t.Fatalf("asked twice for %s", a.Channel)
			}
			r.attempts++
			r.asked[a.Channel] = a.Attach
		case detach:
			delete(r.asked, a.channel)
			delete(r.dialogs, a.channel)
			r.detached = append(r.detached, a.channel)
		case adopt:
			e := provider.Adopted{Channel: a.channel, Endpoint: r.dialogs[a.channel]}
			if e.Endpoint.Port == 0 {
				e.Err = fmt.Errorf("no such dialog")
			}
			r.tell(e)
		case fence:
			r.fenced(a.recorder)
		}
	}
}

func (r *rig) fenced(name call.RecorderName) {
	rec := r.recorders[name]
	if !rec.up {
		return
	}
	if r.f.epoch < rec.epoch {
		rec.up = false
		r.f.recorderRefuses(r.now, name, "stale epoch")
		return
	}
	rec.epoch, rec.holder = r.f.epoch, r.f.name
	r.f.recorderFenced(r.now, name, r.f.epoch, rec.inventory())
	r.f.recorderReports(r.now, name, rec.load())
	r.act()
}

// deliver carries one batch to each recorder that is up.
func (r *rig) deliver() {
	for _, name := range r.names() {
		book := r.f.recorders[name]
		b := r.f.nextBatch(r.now, book, true)
		if b == nil {
			continue
		}
		rec := r.recorders[name]
		if !rec.up {
			r.t.Fatalf("order to %s, which is not up", name)
		}
		opened := rec.obey(b)
		if b.opening != nil {
			r.f.batchOpened(r.now, book, opened)
		}
		r.f.batchDone(r.now, book, nil)
		r.f.recorderReports(r.now, name, rec.load())
		r.act()
	}
}

// answerAll lets every attempt succeed.
func (r *rig) answerAll() {
	for _, id := range slices.Sorted(maps.Keys(r.asked)) {
		r.answer(id, nil, false)
	}
}

// answer ends one attempt.
func (r *rig) answer(id call.ChannelID, err error, gone bool) {
	req, ok := r.asked[id]
	if !ok {
		return
	}
	delete(r.asked, id)
	if err != nil {
		if gone {
			delete(r.dialogs, id)
		}
		r.tell(provider.AttachFailed{Channel: id, Peer: "switch", Err: err, Gone: gone})
		return
	}
	r.dialogs[id] = req.Endpoint
	r.tell(provider.Attached{Channel: id, Endpoint: req.Endpoint, Codec: media.PCMU, Mux: true, Dialog: []byte(fmt.Sprint(id, req.Endpoint))})
}

func (rec *fakeRecorder) inventory() *tandemv1.Inventory {
	inv := &tandemv1.Inventory{Recorder: string(rec.name), Epoch: rec.epoch, Holder: rec.holder, BootId: fmt.Sprint("boot-", rec.boot)}
	for _, id := range slices.Sorted(maps.Keys(rec.channels)) {
		inv.Channels = append(inv.Channels, rec.channels[id])
	}
	for _, id := range slices.Sorted(maps.Keys(rec.legs)) {
		if l := rec.legs[id]; l.GetEnd() == nil {
			inv.Legs = append(inv.Legs, l)
			if c := rec.calls[l.GetCall()]; c != nil {
				inv.Calls = append(inv.Calls, c)
			}
		}
	}
	return inv
}

func (rec *fakeRecorder) load() *tandemv1.Load {
	l := &tandemv1.Load{Ready: true, Channels: uint32(len(rec.channels)), MaxChannels: uint32(cmp.Or(rec.most, 1000))}
	switch {
	case rec.draining:
		l.Ready, l.Reason = false, reasonDraining
	case rec.unready != "":
		l.Ready, l.Reason = false, rec.unready
	}
	return l
}

func (rec *fakeRecorder) obey(b *batch) []*tandemv1.OpenedChannel {
	if b.drain != nil {
		rec.draining = !b.drain.GetUndo()
	}
	for _, c := range b.closing.GetChannels() {
		if held := rec.channels[c.GetChannel()]; held != nil && c.GetCause() == causeMoved {
			if at := endpointOf(held.GetEndpoint()); rec.dialogs[call.ChannelID(c.GetChannel())] == at {
				rec.closedWhile[call.ChannelID(c.GetChannel())] = at
			}
		}
		delete(rec.channels, c.GetChannel())
		rec.closed[c.GetChannel()] = c.GetCause()
	}
	var opened []*tandemv1.OpenedChannel
	for _, o := range b.opening.GetChannels() {
		id := o.GetChannel().GetId()
		if rec.refuse != "" {
			opened = append(opened, &tandemv1.OpenedChannel{Channel: id, Refused: rec.refuse})
			continue
		}
		held := rec.channels[id]
		if held == nil {
			rec.port += 2
			held = &tandemv1.HeldChannel{Channel: o.GetChannel(), Reason: o.GetReason(), Endpoint: &tandemv1.Endpoint{Host: "127.0.0.1", RtpPort: uint32(rec.port)}}
			rec.channels[id] = held
			rec.continued[id] = o.GetContinues()
			rec.listened[endpointOf(held.GetEndpoint())] = call.ChannelID(id)
		}
		opened = append(opened, &tandemv1.OpenedChannel{Channel: id, Endpoint: held.GetEndpoint()})
	}
	for _, u := range b.updating.GetChannels() {
		if held := rec.channels[u.GetChannel()]; held != nil {
			if u.GetCodec() != tandemv1.Codec_CODEC_UNSPECIFIED {
				held.Dialog, held.Codec, held.RtcpMux = u.GetDialog(), u.GetCodec(), u.GetRtcpMux()
			}
			if c := u.GetContinues(); c != nil {
				rec.missed[u.GetChannel()] = c
			}
		}
	}
	for _, c := range b.records.GetCalls() {
		rec.calls[c.GetId()] = c
	}
	for _, l := range b.records.GetLegs() {
		rec.legs[l.GetId()] = l
	}
	rec.blind = append(rec.blind, b.records.GetBlind()...)
	return opened
}

// logOn is what a switch says when an agent logs on with two mixes.
func logOn(session string, at time.Time) []provider.Event {
	s := provider.Session{ID: call.SessionID(session), User: call.UserID("u-" + session), UserName: "User " + session, Device: call.DeviceID("t-" + session)}
	return []provider.Event{
		provider.LoggedOn{Session: s, At: at},
		provider.ChannelAvailable{Channel: mix(session, 1, "HS.L")},
		provider.ChannelAvailable{Channel: mix(session, 2, "SPK.1")},
	}
}

func mix(session string, n int, source string) provider.Channel {
	id := mixID(session, n)
	return provider.Channel{ID: id, Session: call.SessionID(session), Mix: fmt.Sprint("m", n), Copy: call.CopyA, Address: fmt.Sprintf("sip:%s@switch", id), Sources: []string{source}}
}

func mixID(session string, n int) call.ChannelID {
	return call.ChannelID(fmt.Sprintf("%s.m%d.A", session, n))
}

func callState(id, state string, at time.Time) provider.CallChanged {
	return provider.CallChanged{Call: provider.Call{ID: call.CallID(id), Line: "line-1", Kind: "hoot", Party: "100"}, State: state, At: at}
}

func join(leg, callID, session string, at time.Time) provider.LegJoined {
	return provider.LegJoined{Leg: legOn(leg, callID, session, "HS.L"), Channels: []call.ChannelID{mixID(session, 1)}, At: at}
}

func legOn(leg, callID, session, source string) provider.Leg {
	return provider.Leg{ID: call.LegID(leg), Call: call.CallID(callID), Session: call.SessionID(session), User: call.UserID("u-" + session), Device: call.DeviceID("t-" + session), Source: source}
}

// holder finds the recorder that holds a channel, which must be one.
func (r *rig) holder(id call.ChannelID) *fakeRecorder {
	r.t.Helper()
	var found *fakeRecorder
	for _, rec := range r.recorders {
		if rec.channels[string(id)] != nil {
			if found != nil {
				r.t.Fatalf("%s is held by %s and by %s", id, found.name, rec.name)
			}
			found = rec
		}
	}
	return found
}

// wantAttached holds that the switch sends a channel to where a recorder
// expects it, and that the recorder keeps the dialog.
func (r *rig) wantAttached(ids ...call.ChannelID) {
	r.t.Helper()
	for _, id := range ids {
		rec := r.holder(id)
		if rec == nil {
			r.t.Fatalf("%s: no recorder holds it (state %s)", id, r.state(id))
		}
		held := rec.channels[string(id)]
		if at := endpointOf(held.GetEndpoint()); r.dialogs[id] != at {
			r.t.Fatalf("%s: switch sends to %v, %s expects it at %v", id, r.dialogs[id], rec.name, at)
		}
		if len(held.GetDialog()) == 0 {
			r.t.Fatalf("%s: %s does not keep the dialog", id, rec.name)
		}
		if s := r.state(id); s != "attached" {
			r.t.Fatalf("%s is %s", id, s)
		}
	}
}

func (r *rig) state(id call.ChannelID) string {
	if ch := r.f.channels[id]; ch != nil {
		return ch.state()
	}
	return "unknown"
}

// alarmed lists what alarms there are.
func (r *rig) alarmed() []string {
	r.f.raise(r.now)
	var what []string
	for key := range r.f.alarms {
		what = append(what, key.what)
	}
	slices.Sort(what)
	return slices.Compact(what)
}

func wantEqual[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}
