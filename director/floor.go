package director

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/director/placement"
	"tandem/director/provider"
	"tandem/internal/call"
	"tandem/internal/media"
	"tandem/internal/pair"
)

const (
	// gather is how long the channels of a logon are waited for, so that one
	// decision places them all and one order opens them.
	gather = 5 * time.Millisecond
	// refusedRetry is the pause before a channel is offered again to a recorder that refused it.
	refusedRetry = time.Second
	// placeGrace is how long a turret may be without a recorder before that is an alarm.
	placeGrace = time.Second
	// loadGrace is how long the first report of a recorder is waited for.
	loadGrace = 500 * time.Millisecond
	// snapshotGrace is how long a switch that was just reached may take to tell
	// which calls are under way, before turrets are placed without knowing them.
	snapshotGrace = time.Second
	// placeRetry is the pause between attempts to place a turret that nobody could take.
	placeRetry = 250 * time.Millisecond
	// settled is how long a dialog must have lasted for its loss to be met at once.
	settled = 2 * time.Second
)

// redial are the pauses after one, two, ... failed attempts to attach a channel; the last one repeats.
var redial = []time.Duration{200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second}

// floor is all that a director knows and wants: who is logged on, which
// recorder holds which channel, which calls go on. It belongs to the owner
// loop alone. Its methods decide, as a function of what they are told and of
// the time they are told it at; what is to be done about it is appended to
// out, and what recorders are to be told waits in their order books.
type floor struct {
	name        string
	group       string
	orphanGrace time.Duration
	company     time.Duration // that new attachments wait for recorders that start with this director
	limits      placement.Limits
	pair        *pair.Config // nil: it stands alone
	stance      stance
	epoch       uint64    // 0: none yet
	enthroned   time.Time // when this epoch began
	safe        bool      // no order of another epoch can arrive any more
	started     time.Time

	link      linkState
	snapshot  uint64 // counts snapshots; what was named since the newest began carries it
	sessions  map[call.SessionID]*session
	channels  map[call.ChannelID]*channel
	calls     map[call.CallID]*conversation
	legs      map[string]*leg     // by the id of their record
	current   map[call.LegID]*leg // the interval that each leg of the switch is in now
	homeless  map[string]bool     // records of legs that no recorder has been told of
	recorders map[call.RecorderName]*recorder
	unplaced  map[call.SessionID]bool
	manned    time.Time // since when this one leads and some recorder takes channels; zero: none does
	held      time.Time // since when new attachments wait; zero: they do not
	alarms    map[alarmKey]*alarm
	worries   map[alarmKey]*alarm // what is wrong outside the floor
	complaint map[string]bool     // told once

	out []action
	log *slog.Logger
}

// stance is what the floor does about what it knows.
type stance int

const (
	listening stance = iota // hears the switch and the recorders, and orders nothing
	fencing                 // has authority, and learns what the recorders hold
	leading                 // acts
	finishing               // ends what it has begun, and begins nothing
)

type linkState struct {
	up        bool // login done
	synced    bool // and the snapshot complete
	peer      string
	since     time.Time // of up, or of the loss
	blindFrom time.Time // from when on events may have been missed; zero while none are
	err       error
}

type session struct {
	provider.Session
	since    time.Time
	known    bool   // the switch named it; otherwise it is only held by a recorder
	seen     uint64 // the snapshot in which it was last named
	orphaned time.Time
	channels map[call.ChannelID]*channel

	recorder  call.RecorderName
	reason    string
	placeAt   time.Time // when to place it; while it is in unplaced
	refused   string    // why nobody can take it; empty: someone has
	refusedAt time.Time // since when
}

type channel struct {
	provider.Channel
	available bool // the switch offers it
	seen      uint64
	orphaned  time.Time

	recorder call.RecorderName
	reason   string
	openAt   time.Time         // not before: the recorder refused it a moment ago
	endpoint provider.Endpoint // zero until the recorder opened it

	dialing  bool
	adopting bool
	attached time.Time         // zero: no dialog
	mediaAt  provider.Endpoint // where the switch was told to send
	hearsay  bool              // that is what a dialog says that we did not make; the switch may have been told otherwise since
	terms    provider.Attached // what was agreed, with the dialog
	failures int
	dialAt   time.Time
	leaving  []port    // where it was, open until the media has moved
	leaveAt  time.Time // when those may let go; zero: the media has not moved
	planned  bool      // it moves while it is recorded
	probed   time.Time // the switch was last asked again because the channel was dead
	taken    bool      // another director has it: stand down

	// continues tells the recorder it is opened on what is missing before: another
	// one was lost with it, or nobody had it; nil once media comes.
	continues *tandemv1.Continuation
	// missed is what is missing although nothing was when the channel was opened:
	// calls began before the switch agreed to send, or it never did. nil once the
	// recorder was told.
	missed   *tandemv1.Continuation
	answered bool // the switch has agreed to send once, so that it is known since when it does

	down time.Time
	text string // the last thing that went wrong

	legs map[string]*leg
}

// action is something to be done outside the floor.
type action interface{ action() }

type (
	attach struct{ provider.Attach }
	detach struct{ channel call.ChannelID }
	adopt  struct {
		channel call.ChannelID
		dialog  []byte
	}
	// fence makes a recorder obey the floor's epoch and asks what it holds.
	fence struct{ recorder call.RecorderName }
)

func (attach) action() {}
func (detach) action() {}
func (adopt) action()  {}
func (fence) action()  {}

func newFloor(cfg Config, now time.Time, log *slog.Logger) *floor {
	f := &floor{
		name: cfg.Name, group: cfg.Group, pair: cfg.pair(), orphanGrace: cfg.Provider.Unigy.OrphanGrace.Std(), company: companyOf(cfg), limits: cfg.limits(), started: now,
		link:     linkState{since: now, blindFrom: now},
		sessions: make(map[call.SessionID]*session), channels: make(map[call.ChannelID]*channel),
		calls: make(map[call.CallID]*conversation), legs: make(map[string]*leg), current: make(map[call.LegID]*leg),
		homeless: make(map[string]bool), recorders: make(map[call.RecorderName]*recorder), unplaced: make(map[call.SessionID]bool),
		alarms: make(map[alarmKey]*alarm), complaint: make(map[string]bool), log: log,
	}
	for _, r := range cfg.Recorders {
		f.recorders[call.RecorderName(r.Name)] = newRecorder(r, now)
	}
	return f
}

func (f *floor) do(a action) { f.out = append(f.out, a) }

// take hands over what is to be done.
func (f *floor) take() []action {
	out := f.out
	f.out = nil
	return out
}

// maxComplaints bounds what is remembered as told.
const maxComplaints = 1000

// complain logs a fault of the switch's story once for each thing it is about.
func (f *floor) complain(what, object string) {
	key := what + " " + object
	if f.complaint[key] {
		return
	}
	if len(f.complaint) >= maxComplaints {
		clear(f.complaint)
	}
	f.complaint[key] = true
	f.log.Warn(what, "object", object, "peer", f.link.peer)
}

// apply takes in what the provider announced.
func (f *floor) apply(now time.Time, event provider.Event) {
	switch e := event.(type) {
	case provider.LinkUp:
		f.linkUp(now, e)
	case provider.LinkDown:
		f.linkDown(now, e)
	case provider.SnapshotBegin:
		f.snapshot++
	case provider.SnapshotEnd:
		f.snapshotEnd(now)
	case provider.LoggedOn:
		f.loggedOn(now, e)
	case provider.LoggedOff:
		f.loggedOff(now, e)
	case provider.ChannelAvailable:
		f.channelAvailable(now, e.Channel)
	case provider.ChannelUnavailable:
		f.channelUnavailable(e)
	case provider.CallChanged:
		f.callChanged(e)
	case provider.LegJoined:
		f.legJoined(e.Leg, e.Channels, e.At)
	case provider.LegMoved:
		f.legMoved(e)
	case provider.LegLeft:
		f.legLeft(e)
	case provider.Attached:
		f.attachedNow(now, e)
	case provider.AttachFailed:
		f.attachFailed(now, e)
	case provider.Adopted:
		f.adopted(now, e)
	case provider.Dropped:
		f.dropped(now, e)
	}
}

// tick does what has become due: placements, dials, orphans.
func (f *floor) tick(now time.Time) {
	f.lead(now)
	f.placeDue(now)
	for _, ch := range f.channels {
		f.pursue(now, ch)
		f.letGo(now, ch)
		f.tellUnanswered(now, ch)
	}
	f.endOrphans(now)
	f.overlook(now)
	f.houseLegs()
	f.raise(now)
}

func (f *floor) linkUp(now time.Time, e provider.LinkUp) {
	f.link.up, f.link.peer, f.link.since, f.link.err = true, e.Peer, now, nil
}

// linkDown touches no media: channels stay attached and recorded. What is
// heard from here on may belong to calls that nobody announces, so recorders
// are told to keep it.
func (f *floor) linkDown(now time.Time, e provider.LinkDown) {
	f.link.peer, f.link.err = e.Peer, e.Err
	if !f.link.up {
		return
	}
	if f.link.blindFrom.IsZero() {
		f.link.blindFrom = e.Heard
	}
	f.link.up, f.link.synced, f.link.since = false, false, now
	f.tellBlind(&tandemv1.Window{From: stamp(f.link.blindFrom)})
}

// snapshotEnd settles what the switch did not name: sessions and channels
// keep recording for the orphan grace, calls and legs are over.
func (f *floor) snapshotEnd(now time.Time) {
	heard := f.link.blindFrom
	f.link.synced = true
	for _, s := range f.sessions {
		if s.seen != f.snapshot && s.orphaned.IsZero() {
			f.complain("session not in the snapshot", string(s.ID))
			s.orphaned = now
		}
	}
	for _, ch := range f.channels {
		if ch.seen != f.snapshot && ch.orphaned.IsZero() {
			ch.orphaned = now
			ch.available = false
		}
	}
	f.closeUnseen(cmp.Or(heard, now))
	if !heard.IsZero() {
		f.tellBlind(&tandemv1.Window{From: stamp(heard), To: stamp(now)})
		f.link.blindFrom = time.Time{}
	}
	f.log.Info("floor known", "sessions", len(f.sessions), "channels", len(f.channels), "calls", len(f.calls), "peer", f.link.peer)
}

func (f *floor) endOrphans(now time.Time) {
	for _, ch := range f.channels {
		if !ch.orphaned.IsZero() && now.Sub(ch.orphaned) >= f.orphanGrace {
			f.log.Warn("channel orphaned", "channel", ch.ID, "recorder", ch.recorder)
			f.remove(ch, "orphaned")
		}
	}
	for id, s := range f.sessions {
		if !s.orphaned.IsZero() && now.Sub(s.orphaned) >= f.orphanGrace {
			f.endSession(s, now, "orphaned")
			delete(f.sessions, id)
		}
	}
}

func (f *floor) loggedOn(now time.Time, e provider.LoggedOn) {
	s := f.sessions[e.Session.ID]
	if s == nil {
		s = f.newSession(e.Session, e.At)
	} else if s.known && s.Session != e.Session {
		f.complain("session logged on again as another", string(s.ID))
	}
	s.Session, s.since, s.known, s.seen, s.orphaned = e.Session, e.At, true, f.snapshot, time.Time{}
}

func (f *floor) newSession(p provider.Session, since time.Time) *session {
	s := &session{Session: p, since: since, channels: make(map[call.ChannelID]*channel)}
	f.sessions[p.ID] = s
	return s
}

func (f *floor) loggedOff(now time.Time, e provider.LoggedOff) {
	s := f.sessions[e.Session]
	if s == nil {
		f.complain("logoff of an unknown session", string(e.Session))
		return
	}
	f.endSession(s, e.At, "logged_off")
	delete(f.sessions, s.ID)
}

// endSession ends the legs of a session and removes its channels.
func (f *floor) endSession(s *session, at time.Time, cause string) {
	for _, l := range f.legs {
		if l.Session == s.ID {
			f.endLeg(l, at, "left", true)
		}
	}
	for _, ch := range s.channels {
		f.remove(ch, cause)
	}
	delete(f.unplaced, s.ID)
}

func (f *floor) channelAvailable(now time.Time, p provider.Channel) {
	s := f.sessions[p.Session]
	if s == nil {
		f.complain("channel of an unknown session", string(p.ID))
		s = f.newSession(provider.Session{ID: p.Session}, now)
		s.seen = f.snapshot
	}
	ch := f.channels[p.ID]
	if ch == nil {
		ch = f.newChannel(s, p)
	} else if ch.Channel.Session != p.Session {
		f.complain("channel moved to another session", string(p.ID))
		if old := f.sessions[ch.Channel.Session]; old != nil {
			delete(old.channels, ch.ID)
		}
		s.channels[ch.ID] = ch
	}
	if f.link.synced { // announced anew, not merely named again
		ch.taken = false
	}
	ch.Channel, ch.available, ch.seen, ch.orphaned = p, true, f.snapshot, time.Time{}
	f.pursue(now, ch)
}

func (f *floor) newChannel(s *session, p provider.Channel) *channel {
	ch := &channel{Channel: p, legs: make(map[string]*leg)}
	f.channels[p.ID] = ch
	s.channels[p.ID] = ch
	for _, l := range f.legs { // a leg may have been announced before its channel
		if slices.Contains(l.channels, p.ID) {
			ch.legs[l.record] = l
		}
	}
	return ch
}

func (f *floor) channelUnavailable(e provider.ChannelUnavailable) {
	ch := f.channels[e.Channel]
	if ch == nil {
		return // of the other copy, or gone with its session
	}
	f.remove(ch, "logged_off")
}

// remove ends a channel: its dialog, its place, its entry.
func (f *floor) remove(ch *channel, cause string) {
	f.do(detach{ch.ID})
	for _, p := range append(slices.Clip(ch.leaving), port{recorder: ch.recorder}) {
		if r := f.recorders[p.recorder]; r != nil {
			r.close(ch.ID, cause)
		}
	}
	delete(f.channels, ch.ID)
	if s := f.sessions[ch.Channel.Session]; s != nil {
		delete(s.channels, ch.ID)
	}
}

// pursue takes the one step that a channel is due for on its way to being attached.
func (f *floor) pursue(now time.Time, ch *channel) {
	r := f.recorders[ch.recorder]
	switch {
	case f.stance != leading || ch.taken || ch.adopting || !ch.available && ch.attached.IsZero():
	case r == nil:
		f.askPlace(now, ch)
	case !r.up():
		// Nobody else can take it, so it waits for its recorder or for room elsewhere.
	case ch.endpoint == provider.Endpoint{}:
		if !now.Before(ch.openAt) {
			r.open(ch.ID)
		}
	case ch.moved():
	case ch.dialing || now.Before(ch.dialAt):
	default:
		ch.dialing = true
		rank := ch.rank()
		if ch.planned {
			rank = plannedRank
		}
		f.do(attach{provider.Attach{Channel: ch.ID, Address: ch.Address, Endpoint: ch.endpoint, Rank: rank}})
	}
}

// askPlace has a channel's turret placed, a moment later if it is a new one.
func (f *floor) askPlace(now time.Time, ch *channel) {
	s := f.sessions[ch.Channel.Session]
	if s == nil || f.unplaced[s.ID] {
		return
	}
	f.unplaced[s.ID] = true
	s.placeAt = now.Add(gather)
}

// placeDue places the turrets whose time has come, handsets first.
func (f *floor) placeDue(now time.Time) {
	var due []*session
	for id := range f.unplaced {
		if s := f.sessions[id]; s != nil && !now.Before(s.placeAt) {
			due = append(due, s)
		}
	}
	slices.SortFunc(due, func(a, b *session) int {
		return cmp.Or(a.placeAt.Compare(b.placeAt), cmp.Compare(a.ID, b.ID))
	})
	var stranded []*channel
	wait := f.muster(now)
	for _, s := range due {
		f.place(now, s, wait)
		for _, ch := range s.channels {
			if f.stranded(ch) && !ch.taken {
				stranded = append(stranded, ch)
			}
		}
	}
	f.rescue(now, stranded)
	for _, s := range due {
		f.housed(s)
	}
}

// housed ends the search for a turret whose channels all have a recorder.
func (f *floor) housed(s *session) {
	for _, ch := range s.channels {
		if !ch.taken && ch.available && ch.recorder == "" || f.stranded(ch) {
			return
		}
	}
	s.refused, s.refusedAt = "", time.Time{}
	delete(f.unplaced, s.ID)
}

// place gives a turret's channels to a recorder: to the one that has some of
// them already, or else to the one that placement chooses. If nobody can take
// them they wait, and an alarm names the agent. A turret on which nobody speaks
// also waits for wait's reason, if there is one.
func (f *floor) place(now time.Time, s *session, wait string) {
	var waiting []*channel
	for _, ch := range s.channels {
		if ch.recorder == "" && ch.available && !ch.taken {
			waiting = append(waiting, ch)
		}
	}
	if len(waiting) == 0 || f.snapshotDue(now) {
		return
	}
	if !f.placed(s) {
		if f.loadDue(now) {
			return
		}
		if wait != "" && !s.live() {
			f.hold(now, s, wait)
			return
		}
		choice, err := placement.Choose(now, placement.Request{Group: f.group, Turret: s.Device, Channels: len(waiting), Limits: f.limits}, f.candidates())
		if err != nil {
			f.refuse(now, s, err.Error())
			return
		}
		s.recorder, s.reason = choice.Recorder, choice.Reason
		f.log.Info("turret placed", "user", s.User, "device", s.Device, "recorder", s.recorder, "channels", len(waiting), "reason", s.reason)
	}
	slices.SortFunc(waiting, dearest)
	for _, ch := range waiting {
		f.reassign(now, ch, s.recorder, s.reason, f.bereft(s))
	}
}

// snapshotDue reports whether the switch is about to tell which calls are under
// way: what is missing of those is said to a recorder when it opens a channel.
func (f *floor) snapshotDue(now time.Time) bool {
	return f.link.up && !f.link.synced && now.Sub(f.link.since) < snapshotGrace
}

// loadDue reports whether a recorder that has just come up is about to tell
// its load: a floor that logs on meanwhile would all go to the others.
func (f *floor) loadDue(now time.Time) bool {
	for _, r := range f.recorders {
		if r.up() && r.load == nil && now.Sub(r.since) < loadGrace {
			return true
		}
	}
	return false
}

// placed reports whether a recorder that is there holds one of a session's channels.
func (f *floor) placed(s *session) bool {
	if r := f.recorders[s.recorder]; r == nil || r.state == recorderDown {
		return false
	}
	for _, ch := range s.channels {
		if ch.recorder == s.recorder {
			return true
		}
	}
	return false
}

// dearest orders channels by what their loss would cost.
func dearest(a, b *channel) int {
	return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.ID, b.ID))
}

// assign gives a channel its recorder, and the recorder the legs it has to hear of.
func (f *floor) assign(ch *channel, name call.RecorderName, reason string) {
	ch.recorder, ch.reason = name, reason
	ch.endpoint, ch.missed = provider.Endpoint{}, nil
	r := f.recorders[name]
	r.coming++
	for _, l := range ch.legs {
		f.tell(r, l)
	}
}

// candidates is what placement may choose from.
func (f *floor) candidates() []placement.Recorder {
	all := make([]placement.Recorder, 0, len(f.recorders))
	for _, r := range f.recorders {
		all = append(all, f.candidate(r))
	}
	return all
}

// candidate is a recorder as placement sees it. Those on one host measure the same
// processors an instant apart, and one that has just started none at all: they share
// the highest figure, lest the difference decide who gets a turret.
func (f *floor) candidate(r *recorder) placement.Recorder {
	c := r.candidate(f.group)
	for _, other := range f.recorders {
		if other.host() == r.host() {
			c.Load.CPU = max(c.Load.CPU, other.load.GetHostCpuPercent())
		}
	}
	return c
}

func (f *floor) attachedNow(now time.Time, e provider.Attached) {
	ch := f.channels[e.Channel]
	if ch == nil {
		f.do(detach{e.Channel})
		return
	}
	if ch.text != "" {
		f.log.Info("channel attached again", "channel", ch.ID, "recorder", ch.recorder)
	}
	if ch.continues == nil && !ch.answered {
		ch.missed = f.unheard(now, ch)
	}
	ch.answered = true
	ch.dialing, ch.attached, ch.mediaAt, ch.hearsay, ch.terms, ch.text, ch.down = false, now, e.Endpoint, false, e, "", time.Time{}
	if r := f.recorders[ch.recorder]; r != nil {
		r.update(ch.ID)
	}
	f.pursue(now, ch)
}

func (f *floor) attachFailed(now time.Time, e provider.AttachFailed) {
	ch := f.channels[e.Channel]
	if ch == nil {
		return
	}
	ch.dialing = false
	if e.Gone {
		f.lose(now, ch)
	}
	text := fmt.Sprintf("%s: %v", e.Peer, e.Err)
	if text != ch.text {
		f.log.Warn("attach channel", "channel", ch.ID, "peer", e.Peer, "err", e.Err, "attached", !ch.attached.IsZero())
	}
	ch.text = text
	if ch.attached.IsZero() && ch.down.IsZero() {
		ch.down = now
	}
	if e.Gone && ch.failures == 0 {
		ch.dialAt = now
	} else {
		ch.dialAt = now.Add(redial[min(ch.failures, len(redial)-1)])
	}
	ch.failures++
	f.pursue(now, ch)
}

// lose forgets a dialog that is no more.
func (f *floor) lose(now time.Time, ch *channel) {
	if !ch.attached.IsZero() && now.Sub(ch.attached) >= settled {
		ch.failures = 0
	}
	ch.attached, ch.mediaAt, ch.terms = time.Time{}, provider.Endpoint{}, provider.Attached{}
	ch.down = now
}

// dropped meets the loss of a dialog: at once, unless the last one did not
// last either; not at all if another director took the channel, for two that
// dial against each other record nothing.
func (f *floor) dropped(now time.Time, e provider.Dropped) {
	ch := f.channels[e.Channel]
	if ch == nil {
		return
	}
	f.lose(now, ch)
	ch.text = "hung up by the switch"
	if e.Cause != "" {
		ch.text += ": " + e.Cause
	}
	switch {
	case e.Taken:
		ch.taken = true
		ch.text = "taken by another director"
	case ch.failures > 0:
		ch.dialAt = now.Add(redial[min(ch.failures-1, len(redial)-1)])
	default:
		ch.dialAt = now
	}
	ch.failures++
	f.log.Warn("channel lost", "channel", ch.ID, "recorder", ch.recorder, "taken", e.Taken, "cause", e.Cause)
	f.pursue(now, ch)
}

func (f *floor) adopted(now time.Time, e provider.Adopted) {
	ch := f.channels[e.Channel]
	if ch == nil {
		f.do(detach{e.Channel})
		return
	}
	ch.adopting, ch.answered = false, true // or there were no dialog
	if e.Err != nil {
		f.log.Warn("adopt channel", "channel", ch.ID, "recorder", ch.recorder, "err", e.Err)
		ch.text = e.Err.Error()
		ch.terms.Dialog = nil
	} else {
		ch.attached, ch.mediaAt, ch.hearsay = now, e.Endpoint, true
		if len(ch.leaving) > 0 { // the dialog may be older than the switch's last answer
			ch.mediaAt = provider.Endpoint{}
		}
	}
	f.pursue(now, ch)
}

// state is the word for how far a channel has come.
func (ch *channel) state() string {
	switch {
	case !ch.orphaned.IsZero():
		return "orphaned"
	case !ch.attached.IsZero():
		return "attached"
	case ch.failures > 0 || ch.taken:
		return "lost"
	case ch.dialing:
		return "dialing"
	case ch.recorder != "":
		return "placed"
	}
	return "waiting"
}

func (ch *channel) proto(s *session) *tandemv1.Channel {
	p := &tandemv1.Channel{Id: string(ch.ID), Mix: ch.Mix, Copy: string(ch.Copy), Sources: ch.Sources, Session: &tandemv1.Session{Id: string(ch.Channel.Session)}}
	if s != nil {
		p.Session = s.proto()
	}
	return p
}

func (s *session) proto() *tandemv1.Session {
	return &tandemv1.Session{Id: string(s.ID), User: string(s.User), UserName: s.UserName, Device: string(s.Device), Profile: s.Profile}
}

// codecs maps codecs to their words on the wire between processes.
var codecs = map[media.Codec]tandemv1.Codec{
	media.PCMU: tandemv1.Codec_CODEC_PCMU,
	media.PCMA: tandemv1.Codec_CODEC_PCMA,
	media.G722: tandemv1.Codec_CODEC_G722,
}

func codecOf(c tandemv1.Codec) media.Codec {
	for codec, word := range codecs {
		if word == c {
			return codec
		}
	}
	return ""
}

func endpointProto(e provider.Endpoint) *tandemv1.Endpoint {
	if e.Port == 0 {
		return nil
	}
	return &tandemv1.Endpoint{Host: e.Host, RtpPort: uint32(e.Port)}
}

func endpointOf(e *tandemv1.Endpoint) provider.Endpoint {
	return provider.Endpoint{Host: e.GetHost(), Port: int(e.GetRtpPort())}
}

// sortedNames lists the recorders in a stable order.
func (f *floor) sortedNames() []call.RecorderName { return slices.Sorted(maps.Keys(f.recorders)) }

// joined lists names for people.
func joined(names []call.RecorderName) string {
	texts := make([]string, len(names))
	for n, name := range names {
		texts[n] = string(name)
	}
	return strings.Join(texts, ", ")
}

// baseID is the switch's name of a leg whose interval a record is.
func baseID(record string) call.LegID {
	base, _, _ := strings.Cut(record, "+")
	return call.LegID(base)
}
