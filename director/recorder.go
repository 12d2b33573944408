package director

import (
	"bytes"
	"cmp"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/director/placement"
	"tandem/director/provider"
	"tandem/internal/call"
)

// recorder is one recorder as the floor sees it, and its order book: what it
// is still to be told. The book names things; what they are is looked up
// when a batch is made, so that the newest state goes out, once.
type recorder struct {
	RecorderConfig
	name      call.RecorderName
	state     recorderState
	since     time.Time // of state
	text      string    // why it is lost or refuses
	foreign   bool      // it refuses because it is of another group
	heard     bool      // answered, or failed to, since the start
	reachable bool      // connected, whether it obeys or not
	seen      uint64    // the highest epoch it told of
	bootID    string
	beaten    time.Time              // its last heartbeat
	lost      *tandemv1.Continuation // what others continue while it is down; nil: it had nothing
	pulse     pulse

	load    *tandemv1.Load // the last one heard; nil: none yet
	ready   time.Time      // since when the load says so; zero while it does not
	unready time.Time      // and since when it does not
	coming  int            // channels given to it that its load does not show yet
	opens   map[call.ChannelID]bool
	updates map[call.ChannelID]bool
	closes  map[call.ChannelID]string // with their cause
	calls   map[call.CallID]bool
	legs    map[string]bool
	blind   []*tandemv1.Window
	drain   *tandemv1.DrainRequest

	sent    *batch    // under way; at most one
	retryAt time.Time // not before: the last batch failed
}

type recorderState int

const (
	recorderDown    recorderState = iota // not connected
	recorderUp                           // fenced with our epoch and heard
	recorderRefused                      // obeys another director or belongs to another group
)

// unwritten is a margin for what a recorder that dies had heard and not yet
// written, and for clocks that differ. What is said to be missing begins so much
// before the instant up to which it said that it had written; what it has is
// taken out again.
const unwritten = 300 * time.Millisecond

// Reasons of a recorder for not being ready that mean something to us.
const (
	reasonStarting = "starting"
	reasonDraining = "draining"
	reasonNoMedia  = "media network down" // and which
)

func newRecorder(cfg RecorderConfig, now time.Time) *recorder {
	return &recorder{
		RecorderConfig: cfg, name: call.RecorderName(cfg.Name), since: now, text: "not reached yet",
		opens: make(map[call.ChannelID]bool), updates: make(map[call.ChannelID]bool), closes: make(map[call.ChannelID]string),
		calls: make(map[call.CallID]bool), legs: make(map[string]bool),
	}
}

func (r *recorder) up() bool { return r.state == recorderUp }

func (r *recorder) open(id call.ChannelID)                { r.opens[id] = true }
func (r *recorder) update(id call.ChannelID)              { r.updates[id] = true }
func (r *recorder) close(id call.ChannelID, cause string) { r.closes[id] = cause }

// owes reports whether the recorder is still to hear of a leg.
func (r *recorder) owes(record string) bool {
	return r.legs[record] || r.sent != nil && slices.Contains(r.sent.legs, record)
}

func (r *recorder) owesCall(id call.CallID) bool {
	return r.calls[id] || r.sent != nil && slices.Contains(r.sent.calls, id)
}

// host is where the recorder answers, without the port.
func (r *recorder) host() string {
	host, _, _ := net.SplitHostPort(r.Address) // Validate has seen to it
	return host
}

// candidate is the recorder by itself as placement sees it, see floor.candidate. Its
// group is ours: one that is not refuses the fence.
func (r *recorder) candidate(group string) placement.Recorder {
	c := placement.Recorder{Name: r.name, Group: group, Priority: r.Priority, Since: r.ready, Placed: r.coming}
	switch l := r.load; {
	case r.state == recorderRefused:
		c.Reason = "refused: " + r.text
	case r.state == recorderDown:
		c.Reason = "lost: " + r.text
	case l == nil:
		c.Reason = "no load report yet"
	default:
		c.Ready, c.Reason = l.GetReady() && r.pulse.reason == "", cmp.Or(l.GetReason(), r.pulse.reason)
		c.Load = placement.Load{
			CPU: l.GetHostCpuPercent(), Channels: int(l.GetChannels()), MaxChannels: int(l.GetMaxChannels()),
			Packets: l.GetPacketsPerS(), MaxPackets: l.GetMaxPacketsPerS(), JournalQueue: l.GetJournalQueue(),
			DiskWrite: time.Duration(l.GetDiskWriteMs() * float64(time.Millisecond)),
			DiskFree:  l.GetDiskFreeBytes(), DiskTotal: l.GetDiskTotalBytes(),
		}
	}
	return c
}

// recorderHeard notes what a recorder says of its epoch when it is
// connected, before it is told ours.
func (f *floor) recorderHeard(now time.Time, name call.RecorderName, inv *tandemv1.Inventory) {
	r := f.recorders[name]
	r.heard, r.reachable, r.seen, r.beaten = true, true, inv.GetEpoch(), now
	if f.stance == listening {
		r.lost = nil
	}
	switch {
	case f.epoch == 0:
		f.activate()
	case f.pair != nil:
		f.do(fence{name})
	case inv.GetEpoch() >= f.epoch && f.mayGoAbove(r, inv.GetHolder()):
		f.epoch = nextEpoch(inv.GetEpoch())
		f.log.Warn("epoch raised above that of an earlier run", "epoch", f.epoch, "recorder", name)
		f.fenceAll()
	default:
		f.do(fence{name})
	}
}

// mayGoAbove tells an earlier run of this director, whose epoch a recorder
// kept while we could not reach it, from another director that is alive: we
// have never commanded the recorder, and no other one refuses us.
func (f *floor) mayGoAbove(r *recorder, holder string) bool {
	for _, other := range f.recorders {
		if other.state == recorderRefused && !other.foreign {
			return false
		}
	}
	return holder == f.name && r.bootID == ""
}

// activate takes an epoch above every one that a recorder has seen, as soon
// as each has answered or was found not to.
func (f *floor) activate() {
	if f.epoch != 0 || f.pair != nil {
		return
	}
	highest := uint64(0)
	for _, r := range f.recorders {
		if !r.heard {
			return
		}
		highest = max(highest, r.seen)
	}
	f.epoch, f.stance = nextEpoch(highest), leading
	f.log.Info("director active", "epoch", f.epoch, "basis", basisAlone, "highest_seen", highest)
	f.fenceAll()
}

// fenceAll makes every recorder that can be reached obey the present epoch.
func (f *floor) fenceAll() {
	for _, name := range f.sortedNames() {
		if f.recorders[name].reachable {
			f.do(fence{name})
		}
	}
}

// inventoried reports whether all that recorders hold is known, as far as
// they can be reached: only then may the switch's story be compared with it.
func (f *floor) inventoried() bool {
	if f.epoch == 0 {
		return false
	}
	for _, r := range f.recorders {
		if r.reachable && (r.state != recorderUp || r.seen != f.epoch) {
			return false
		}
	}
	return true
}

// basisAlone is the authority of the only director of its group.
const basisAlone = "alone"

// nextEpoch counts on from the highest epoch seen. The lowest bit tells the
// two directors of a pair apart; one that stands alone has 0.
func nextEpoch(highest uint64) uint64 { return (highest>>1 + 1) << 1 }

// recorderFenced takes in what a recorder holds, right after it accepted our
// epoch: channels of a director before us are adopted, channels it lost in a
// restart are opened again, and all that it may not know is told again.
func (f *floor) recorderFenced(now time.Time, name call.RecorderName, epoch uint64, inv *tandemv1.Inventory) {
	if epoch != f.epoch {
		return // of an authority that is over
	}
	r := f.recorders[name]
	restarted := r.bootID != "" && r.bootID != inv.GetBootId()
	f.log.Info("recorder up", "recorder", name, "epoch", f.epoch, "channels", len(inv.GetChannels()), "legs", len(inv.GetLegs()), "restarted", restarted)
	r.state, r.since, r.text, r.bootID, r.seen, r.retryAt = recorderUp, now, "", inv.GetBootId(), f.epoch, time.Time{}
	held := make(map[call.ChannelID]provider.Endpoint)
	for _, h := range inv.GetChannels() {
		held[call.ChannelID(h.GetChannel().GetId())] = endpointOf(h.GetEndpoint())
		f.reconcile(now, r, h)
	}
	has := func(id call.ChannelID) bool { _, has := held[id]; return has }
	for id := range r.closes {
		if !has(id) {
			delete(r.closes, id)
		}
	}
	for _, ch := range f.channels {
		if ch.recorder == name && !has(ch.ID) {
			ch.endpoint = provider.Endpoint{} // pursue opens it again; the same port needs no re-INVITE
		}
		ch.leaves(name, held[ch.ID])
	}
	f.adoptRecords(r, inv, now)
	f.tellAgain(r)
	f.lead(now)
	for _, ch := range f.channels {
		f.pursue(now, ch)
	}
}

// reconcile compares one channel that a recorder holds with what is wanted of it.
func (f *floor) reconcile(now time.Time, r *recorder, h *tandemv1.HeldChannel) {
	id := call.ChannelID(h.GetChannel().GetId())
	if _, closing := r.closes[id]; closing {
		return
	}
	ch := f.channels[id]
	switch {
	case ch == nil:
		ch = f.adoptChannel(now, h)
		fallthrough
	case ch.recorder == "":
		ch.recorder, ch.reason = r.name, h.GetReason()
		ch.notLeaving(r.name)
		if ch.attached.IsZero() {
			f.takeDialog(ch, h)
		} else {
			r.update(id) // it may have been answered while another recorder was to take it
		}
	case ch.recorder != r.name:
		f.heldTwice(now, ch, r, h)
		return
	case ch.attached.IsZero() && !ch.dialing:
		f.takeDialog(ch, h)
	case !bytes.Equal(h.GetDialog(), ch.terms.Dialog):
		r.update(id)
	}
	ch.endpoint = endpointOf(h.GetEndpoint())
	if s := f.sessions[ch.Channel.Session]; s != nil && s.recorder == "" {
		s.recorder, s.reason = r.name, h.GetReason()
	}
}

// heldTwice meets a channel that another recorder has. If we know that its
// media goes there, this one may let go. If not, a director before us was
// moving it and may have died before or after the switch was told: it is told
// again, and until it has answered both keep their ports.
func (f *floor) heldTwice(now time.Time, ch *channel, r *recorder, h *tandemv1.HeldChannel) {
	switch {
	case slices.ContainsFunc(ch.leaving, func(p port) bool { return p.recorder == r.name }):
		return
	case ch.moved() && !ch.hearsay:
		r.close(ch.ID, causeMoved)
		return
	}
	ch.leaving = append(ch.leaving, port{r.name, endpointOf(h.GetEndpoint())})
	ch.mediaAt = provider.Endpoint{}
	if ch.attached.IsZero() && !ch.dialing && len(ch.terms.Dialog) == 0 {
		f.takeDialog(ch, h)
	}
	f.pursue(now, ch)
}

// adoptChannel takes up a channel that only a recorder knows. The switch's
// snapshot confirms it; what has been heard of the switch already did not.
func (f *floor) adoptChannel(now time.Time, h *tandemv1.HeldChannel) *channel {
	p := h.GetChannel()
	id := call.SessionID(p.GetSession().GetId())
	s := f.sessions[id]
	if s == nil {
		s = f.newSession(provider.Session{
			ID: id, User: call.UserID(p.GetSession().GetUser()), UserName: p.GetSession().GetUserName(),
			Device: call.DeviceID(p.GetSession().GetDevice()), Profile: p.GetSession().GetProfile(),
		}, h.GetOpened().AsTime())
		if f.link.synced {
			s.orphaned = now
		}
	}
	ch := f.newChannel(s, provider.Channel{ID: call.ChannelID(p.GetId()), Session: id, Mix: p.GetMix(), Copy: call.Copy(p.GetCopy()), Sources: p.GetSources()})
	if f.link.synced {
		ch.orphaned = now
	}
	return ch
}

// takeDialog has the provider go on with the dialog a recorder keeps for a channel.
func (f *floor) takeDialog(ch *channel, h *tandemv1.HeldChannel) {
	if len(h.GetDialog()) == 0 || ch.adopting {
		return
	}
	ch.adopting = true
	ch.terms = provider.Attached{Channel: ch.ID, Codec: codecOf(h.GetCodec()), Mux: h.GetRtcpMux(), Dialog: h.GetDialog()}
	ch.terms.PayloadType = ch.terms.Codec.PayloadType()
	f.do(adopt{ch.ID, h.GetDialog()})
}

// tellAgain marks for r every record that concerns it: it may have forgotten
// what it had not acknowledged, and repeating is harmless.
func (f *floor) tellAgain(r *recorder) {
	for _, l := range f.legs {
		if slices.Contains(f.recordersOf(l), r.name) {
			f.tell(r, l)
		}
	}
	if !f.link.blindFrom.IsZero() {
		r.blind = append(r.blind, &tandemv1.Window{From: stamp(f.link.blindFrom)})
	}
}

// tellBlind has every recorder keep what it hears in a window without CTI.
func (f *floor) tellBlind(w *tandemv1.Window) {
	for _, r := range f.recorders {
		r.blind = slices.DeleteFunc(r.blind, func(old *tandemv1.Window) bool { return old.GetFrom().AsTime().Equal(w.GetFrom().AsTime()) })
		r.blind = append(r.blind, w)
	}
}

// recorderDown decides what becomes of a lost recorder's channels: others
// take them. Those that nobody can take stay where they are: the switch goes
// on sending to the same ports, and the recorder finds them again when it
// returns. What it heard before heard it has written, as it last said.
func (f *floor) recorderDown(now time.Time, name call.RecorderName, why string, heard time.Time) {
	r := f.recorders[name]
	r.heard = true
	was := r.state
	if was != recorderDown {
		r.since = now
	}
	if was == recorderDown && r.reachable && f.pair != nil { // somebody else led, and may be gone, too
		r.lose(heard)
	}
	r.state, r.text, r.load, r.ready, r.reachable, r.drain = recorderDown, why, nil, time.Time{}, false, nil
	r.pulse = pulse{}
	if was == recorderUp {
		f.log.Warn("recorder lost", "recorder", name, "why", why, "silent", now.Sub(heard))
		r.lose(heard)
		f.evacuate(now, r, r.lost)
	}
	f.activate()
}

// lose notes since when nothing is known to be recorded there.
func (r *recorder) lose(heard time.Time) {
	r.lost = &tandemv1.Continuation{Recorder: r.Name, Cause: causeFailover, Since: stamp(heard.Add(-unwritten))}
}

// recorderRefuses notes that a recorder does not obey, and says so once.
func (f *floor) recorderRefuses(now time.Time, name call.RecorderName, why string) {
	r := f.recorders[name]
	r.heard = true
	if r.state != recorderRefused || r.text != why {
		f.log.Error("recorder refused our order", "recorder", name, "address", r.Address, "why", why, "epoch", f.epoch)
		r.since = now
	}
	r.state, r.text, r.foreign, r.load, r.ready, r.reachable = recorderRefused, why, false, nil, time.Time{}, false
	f.activate()
}

// recorderForeign notes that a recorder serves another group: somebody wrote
// a wrong address. Nothing that it says concerns us; what it had of ours, if it
// was of our group until its last start, others take.
func (f *floor) recorderForeign(now time.Time, name call.RecorderName, group string, heard time.Time) {
	why := fmt.Sprintf("wrong_group: it serves %q, this director leads %q; correct its address in this director's configuration, or the group in one of both", group, f.group)
	r := f.recorders[name]
	if r.up() {
		f.recorderDown(now, name, why, heard)
	}
	f.recorderRefuses(now, name, why)
	r.foreign = true
}

// recorderReports takes in a load report.
func (f *floor) recorderReports(now time.Time, name call.RecorderName, l *tandemv1.Load) {
	r := f.recorders[name]
	if was := r.load; was.GetReady() != l.GetReady() || was == nil {
		f.log.Info("recorder readiness", "recorder", name, "ready", l.GetReady(), "reason", l.GetReason())
	}
	r.load = l
	switch {
	case l.GetReady() && r.ready.IsZero():
		r.ready = now
	case !l.GetReady() && (r.unready.IsZero() || !r.ready.IsZero()):
		r.ready, r.unready = time.Time{}, now
	}
	r.coming = 0 // what is open is in the report; what is not is yet to come
	for id := range r.opens {
		if f.channels[id] != nil {
			r.coming++
		}
	}
	if r.sent != nil {
		r.coming += len(r.sent.opens)
	}
	for id := range f.unplaced {
		if s := f.sessions[id]; s != nil {
			s.placeAt = now // someone may have room now
		}
	}
	f.probe(now, r, l.GetDeadChannels())
	f.unready(now, r)
}

// unready moves channels off a recorder that says it cannot keep them. It is
// up, and records what still reaches it; what lets nothing reach it, it says.
func (f *floor) unready(now time.Time, r *recorder) {
	reason := r.load.GetReason()
	switch {
	case r.state != recorderUp || r.load.GetReady() || reason == reasonStarting:
	case strings.HasPrefix(reason, reasonNoMedia):
		f.evacuate(now, r, &tandemv1.Continuation{Recorder: r.Name, Cause: causeFailover, Since: stamp(now.Add(-time.Second))})
	default:
		f.evacuate(now, r, nil)
	}
}

// recorderBeats takes in a heartbeat.
func (f *floor) recorderBeats(now time.Time, name call.RecorderName, talking int) {
	r := f.recorders[name]
	r.beaten = now
	if r.state != recorderUp {
		return
	}
	if heard := r.pulse.talked; r.pulse.beat(now, talking) {
		f.hushed(now, r, heard)
	}
}

// hushed judges a crowd's silence: it means something for the recorder only if
// the crowd is still sent to it, and the switch is there and heard elsewhere.
func (f *floor) hushed(now time.Time, r *recorder, heard time.Time) {
	crowded := f.sentTo(r.name) >= crowd
	for _, other := range f.recorders {
		if other != r && other.up() && f.sentTo(other.name) > 0 && now.Sub(other.pulse.talked) >= hush {
			crowded = false // the switch's silence, or its network's
		}
	}
	if !crowded || !f.link.up {
		r.pulse.forget()
		return
	}
	r.pulse.deaf(now)
	f.deaf(now, r, heard.Add(-talkedWithin))
}

// sentTo counts the channels whose media the switch sends to a recorder.
func (f *floor) sentTo(name call.RecorderName) int {
	n := 0
	for _, ch := range f.channels {
		if ch.mediaOn() == name {
			n++
		}
	}
	return n
}

// batch is one round of orders to one recorder, in the order in which they
// are given: drain, close, open, update, records.
type batch struct {
	drain    *tandemv1.DrainRequest
	closing  *tandemv1.CloseChannelsRequest
	opening  *tandemv1.OpenChannelsRequest
	updating *tandemv1.UpdateChannelsRequest
	records  *tandemv1.PutRecordsRequest

	closes  map[call.ChannelID]string
	opens   []call.ChannelID
	updates []call.ChannelID
	calls   []call.CallID
	legs    []string
}

// maxBatch bounds each list of a batch, and so the size of a message.
const maxBatch = 2000

// nextBatch empties a recorder's order book into a batch, or returns nil if
// there is nothing to say or one is still under way. Records may wait for the
// next beat, since each batch of them costs the recorder a write to its
// disk; channels may not. The caller adds the order's authority.
func (f *floor) nextBatch(now time.Time, r *recorder, records bool) *batch {
	if !r.up() || r.sent != nil || now.Before(r.retryAt) || f.stance < leading {
		return nil
	}
	b := &batch{closes: make(map[call.ChannelID]string), drain: r.drain}
	r.drain = nil
	f.batchCloses(r, b)
	f.batchOpens(now, r, b)
	f.batchUpdates(r, b)
	if records {
		f.batchRecords(r, b)
	}
	if b.drain == nil && b.closing == nil && b.opening == nil && b.updating == nil && b.records == nil {
		return nil
	}
	r.sent = b
	return b
}

func (f *floor) batchCloses(r *recorder, b *batch) {
	for id, cause := range r.closes {
		if len(b.closes) == maxBatch {
			break
		}
		if b.closing == nil {
			b.closing = &tandemv1.CloseChannelsRequest{}
		}
		b.closes[id] = cause
		b.closing.Channels = append(b.closing.Channels, &tandemv1.CloseChannel{Channel: string(id), Cause: cause})
		delete(r.closes, id)
	}
}

func (f *floor) batchOpens(now time.Time, r *recorder, b *batch) {
	var wanted []*channel
	for id := range r.opens {
		if ch := f.channels[id]; ch != nil && ch.recorder == r.name {
			wanted = append(wanted, ch)
		} else {
			delete(r.opens, id)
		}
	}
	slices.SortFunc(wanted, dearest)
	for _, ch := range wanted[:min(len(wanted), maxBatch)] {
		if b.opening == nil {
			b.opening = &tandemv1.OpenChannelsRequest{}
		}
		b.opens = append(b.opens, ch.ID)
		ch.continues = cmp.Or(ch.continues, f.unheard(now, ch))
		b.opening.Channels = append(b.opening.Channels, &tandemv1.OpenChannel{Channel: ch.proto(f.sessions[ch.Channel.Session]), Reason: ch.reason, Continues: ch.continues})
		delete(r.opens, ch.ID)
	}
}

func (f *floor) batchUpdates(r *recorder, b *batch) {
	for id := range r.updates {
		if len(b.updates) == maxBatch {
			break
		}
		ch := f.channels[id]
		if ch == nil || ch.recorder != r.name || len(ch.terms.Dialog) == 0 && ch.missed == nil {
			delete(r.updates, id)
			continue
		}
		if ch.endpoint == (provider.Endpoint{}) {
			continue // not open there: first things first
		}
		if b.updating == nil {
			b.updating = &tandemv1.UpdateChannelsRequest{}
		}
		b.updates = append(b.updates, id)
		b.updating.Channels = append(b.updating.Channels, &tandemv1.ChannelUpdate{
			Channel: string(id), Codec: codecs[ch.terms.Codec], PayloadType: uint32(ch.terms.PayloadType), RtcpMux: ch.terms.Mux,
			Dialog: ch.terms.Dialog, Remote: endpointProto(ch.terms.Remote), Receiving: ch.moved(), Continues: ch.missed,
		})
		delete(r.updates, id)
	}
}

func (f *floor) batchRecords(r *recorder, b *batch) {
	req := &tandemv1.PutRecordsRequest{Blind: r.blind}
	r.blind = nil
	for id := range r.calls {
		if len(b.calls) == maxBatch {
			break
		}
		if c := f.calls[id]; c != nil {
			b.calls = append(b.calls, id)
			req.Calls = append(req.Calls, c.proto())
		}
		delete(r.calls, id)
	}
	for record := range r.legs {
		if len(b.legs) == maxBatch {
			break
		}
		if l := f.legs[record]; l != nil {
			b.legs = append(b.legs, record)
			req.Legs = append(req.Legs, f.legProto(l))
		}
		delete(r.legs, record)
	}
	if len(req.Calls)+len(req.Legs)+len(req.Blind) > 0 {
		b.records = req
	}
}

// batchOpened takes in a recorder's answers to the opens of the batch under way.
func (f *floor) batchOpened(now time.Time, r *recorder, opened []*tandemv1.OpenedChannel) {
	for _, o := range opened {
		ch := f.channels[call.ChannelID(o.GetChannel())]
		if ch == nil || ch.recorder != r.name {
			continue // gone meanwhile: remove has put its close into the book
		}
		if refused := o.GetRefused(); refused != "" || o.GetEndpoint().GetRtpPort() == 0 {
			f.openRefused(now, ch, refused)
			continue
		}
		ch.endpoint = endpointOf(o.GetEndpoint())
		if !ch.attached.IsZero() {
			r.update(ch.ID)
		}
		f.pursue(now, ch)
	}
}

// openRefused frees a channel to be placed anew; the rest of its turret that
// is already open keeps it where it is.
func (f *floor) openRefused(now time.Time, ch *channel, why string) {
	text := fmt.Sprintf("%s refused to open it: %s", ch.recorder, why)
	if ch.text != text {
		f.log.Warn("open channel", "channel", ch.ID, "recorder", ch.recorder, "refused", why)
	}
	ch.text, ch.openAt = text, now.Add(refusedRetry)
	if ch.mediaOn() != ch.recorder { // it may hold the channel from before
		f.recorders[ch.recorder].close(ch.ID, causeMoved)
	}
	if f.stay(ch) {
		return
	}
	if !ch.moved() {
		ch.recorder, ch.reason = "", ""
		if s := f.sessions[ch.Channel.Session]; s != nil {
			f.unplaced[s.ID] = true
			s.placeAt = ch.openAt
		}
	}
}

// batchDone ends the batch under way. What failed goes back into the book.
func (f *floor) batchDone(now time.Time, r *recorder, err error) {
	b := r.sent
	r.sent = nil
	if err == nil {
		for _, u := range b.updating.GetChannels() {
			if ch := f.channels[call.ChannelID(u.GetChannel())]; ch != nil && ch.missed == u.GetContinues() {
				ch.missed = nil
			}
		}
		for _, record := range b.legs {
			f.forget(record)
		}
		for _, id := range b.calls {
			if c := f.calls[id]; c != nil {
				f.forgetCall(c)
			}
		}
		return
	}
	r.retryAt = now.Add(refusedRetry)
	if r.drain == nil {
		r.drain = b.drain
	}
	for id, cause := range b.closes {
		if _, again := r.closes[id]; !again && !f.belongs(id, r) {
			r.closes[id] = cause
		}
	}
	for _, id := range b.opens {
		if ch := f.channels[id]; ch != nil && ch.recorder == r.name && ch.endpoint == (provider.Endpoint{}) {
			r.open(id)
		} else if ch == nil {
			r.close(id, "logged_off") // it may have been opened all the same
		}
	}
	for _, id := range b.updates {
		r.update(id)
	}
	for _, id := range b.calls {
		r.calls[id] = true
	}
	for _, record := range b.legs {
		r.legs[record] = true
	}
	for _, w := range b.records.GetBlind() {
		if !slices.ContainsFunc(r.blind, func(newer *tandemv1.Window) bool { return newer.GetFrom().AsTime().Equal(w.GetFrom().AsTime()) }) {
			r.blind = append(r.blind, w)
		}
	}
}

// belongs reports whether a recorder is to hold a channel, or not to let go of
// it yet.
func (f *floor) belongs(id call.ChannelID, r *recorder) bool {
	ch := f.channels[id]
	return ch != nil && (ch.recorder == r.name || slices.ContainsFunc(ch.leaving, func(p port) bool { return p.recorder == r.name }))
}

// quiet reports whether every recorder that can be told has been told everything.
func (f *floor) quiet() bool {
	for _, r := range f.recorders {
		if r.up() && (r.sent != nil || len(r.closes)+len(r.updates)+len(r.calls)+len(r.legs)+len(r.blind) > 0) {
			return false
		}
	}
	return true
}

// stateWord is the recorder's state as people read it.
func (r *recorder) stateWord() string {
	switch {
	case r.state == recorderRefused:
		return "refused"
	case r.state == recorderDown:
		return "lost"
	case r.load.GetReason() == reasonDraining:
		return "draining"
	case !r.load.GetReady() || r.pulse.reason != "":
		return "busy"
	}
	return "ready"
}

// reason says why the recorder is not simply ready.
func (r *recorder) reason() string {
	switch {
	case r.state != recorderUp:
		return r.text
	case r.load == nil:
		return "no load report yet"
	}
	return cmp.Or(r.load.GetReason(), r.pulse.reason)
}
