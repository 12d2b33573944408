package director

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/director/placement"
	"tandem/director/provider"
	"tandem/internal/call"
)

// linger is how long a recorder keeps a channel open whose media has moved:
// what the switch sent before it read our re-INVITE is still on its way.
const linger = 500 * time.Millisecond

// mediaDead is the pause between two attempts to bring a dead channel back.
const mediaDead = 15 * time.Second

// Words for why a channel is closed somewhere, or another one continues it.
const (
	causeMoved      = call.Moved
	causeFailover   = "failover"
	causeUnattached = "unattached"
)

// Channels are attached in order of rank: first those that somebody speaks
// on, which nobody records at this moment, then the others, then those that
// are moved while they are recorded.
const (
	idleRank    = 10
	plannedRank = 20
)

func (ch *channel) rank() int {
	rank := call.Rank(ch.Sources)
	if !ch.live() {
		rank += idleRank
	}
	return rank
}

// live reports whether a leg in progress is on the channel.
func (ch *channel) live() bool {
	for _, l := range ch.legs {
		if l.end.IsZero() {
			return true
		}
	}
	return false
}

// port is where a recorder listens for a channel.
type port struct {
	recorder call.RecorderName
	endpoint provider.Endpoint // zero: not opened yet
}

// moved reports whether the switch sends the channel's media where it should.
func (ch *channel) moved() bool {
	return !ch.attached.IsZero() && ch.mediaAt == ch.endpoint && ch.endpoint != (provider.Endpoint{})
}

// mediaOn names the recorder that the switch sends to, "" if it is none we know.
func (ch *channel) mediaOn() call.RecorderName {
	if ch.attached.IsZero() || ch.mediaAt == (provider.Endpoint{}) {
		return ""
	}
	for _, p := range append(slices.Clip(ch.leaving), port{ch.recorder, ch.endpoint}) {
		if p.endpoint == ch.mediaAt {
			return p.recorder
		}
	}
	return ""
}

// stranded reports whether the channel's recorder is lost and records nothing.
func (f *floor) stranded(ch *channel) bool {
	r := f.recorders[ch.recorder]
	return r != nil && r.state == recorderDown
}

// evacuate moves all channels off a recorder that cannot keep them. With a
// continuation nothing is recorded there any more; without, it goes on until
// the media has moved.
func (f *floor) evacuate(now time.Time, r *recorder, continues *tandemv1.Continuation) {
	var all []*channel
	for _, ch := range f.channels {
		if ch.recorder == r.name && !ch.taken {
			all = append(all, ch)
		}
	}
	if len(all) == 0 {
		return
	}
	if given, left := f.rehouse(now, all, continues); given > 0 {
		f.log.Warn("channels move off a recorder", "recorder", r.name, "moving", given, "staying", left, "reason", r.reason())
	}
}

// deaf moves the channels of a recorder that no media reaches. What reached
// it last was at heard.
func (f *floor) deaf(now time.Time, r *recorder, heard time.Time) {
	f.log.Warn("recorder hears nothing", "recorder", r.name, "why", r.reason(), "since", heard)
	f.evacuate(now, r, &tandemv1.Continuation{Recorder: r.Name, Cause: causeFailover, Since: stamp(heard)})
}

// probe asks the switch again for channels that are attached and dead: the
// switch may have forgotten their dialogs, and an adopted one may have ended
// while nobody was there to hear it. When most of a recorder's channels are
// dead it is not the switch.
func (f *floor) probe(now time.Time, r *recorder, dead []string) {
	if !f.link.up {
		return // it is the switch that is away
	}
	attached := 0
	for _, ch := range f.channels {
		if ch.recorder == r.name && ch.moved() {
			attached++
		}
	}
	if len(dead) >= several && 2*len(dead) > attached {
		if r.pulse.reason == "" {
			r.pulse.reason = fmt.Sprintf("hears nothing: %d of %d channels are dead", len(dead), attached)
			r.pulse.avoid(now)
			f.deaf(now, r, now.Add(-mediaDead))
		}
		return
	}
	for _, id := range dead {
		ch := f.channels[call.ChannelID(id)]
		if ch == nil || ch.recorder != r.name || !ch.moved() || now.Sub(ch.probed) < mediaDead || !ch.hearsay && now.Sub(ch.attached) < mediaDead {
			continue
		}
		f.log.Warn("channel is dead, asking the switch again", "channel", ch.ID, "recorder", r.name)
		ch.probed, ch.mediaAt = now, provider.Endpoint{}
		f.pursue(now, ch)
	}
}

// rescue finds recorders for channels whose own is lost.
func (f *floor) rescue(now time.Time, all []*channel) {
	byRecorder := make(map[call.RecorderName][]*channel)
	for _, ch := range all {
		byRecorder[ch.recorder] = append(byRecorder[ch.recorder], ch)
	}
	for name, some := range byRecorder {
		f.rehouse(now, some, f.recorders[name].lost)
	}
}

// rehouse finds new recorders for channels, the dearest first, and counts
// those that got one and those that nobody can take. These stay where they
// are, and are tried again.
func (f *floor) rehouse(now time.Time, all []*channel, continues *tandemv1.Continuation) (given, left int) {
	turrets := make(map[call.SessionID]*placement.Turret)
	for _, ch := range all {
		t := turrets[ch.Channel.Session]
		if t == nil {
			t = &placement.Turret{}
			if s := f.sessions[ch.Channel.Session]; s != nil {
				t.Device = s.Device
			}
			turrets[ch.Channel.Session] = t
		}
		t.Channels = append(t.Channels, placement.Channel{ID: ch.ID, Rank: ch.rank()})
	}
	wanted := make([]placement.Turret, 0, len(turrets))
	for _, t := range turrets {
		slices.SortFunc(t.Channels, func(a, b placement.Channel) int { return cmp.Or(cmp.Compare(a.Rank, b.Rank), cmp.Compare(a.ID, b.ID)) })
		wanted = append(wanted, *t)
	}
	got, refused := placement.Evacuate(now, f.group, f.limits, wanted, f.candidates())
	for _, l := range refused {
		f.leave(now, f.channels[l.Channel], l.Err.Error())
	}
	for _, g := range got {
		f.reassign(now, f.channels[g.Channel], g.Recorder, g.Reason, continues)
	}
	return len(got), len(refused)
}

// leave has a channel that nobody can take tried again, unless its recorder
// still records it: then the next report of that recorder has it tried.
func (f *floor) leave(now time.Time, ch *channel, why string) {
	s := f.sessions[ch.Channel.Session]
	if s == nil || !f.stranded(ch) {
		return
	}
	f.refuse(now, s, why)
}

// refuse notes that nobody can take what a turret has, and when to try again.
func (f *floor) refuse(now time.Time, s *session, why string) {
	if s.refusedAt.IsZero() {
		s.refusedAt = now
	}
	s.refused, s.placeAt = why, now.Add(placeRetry)
	f.unplaced[s.ID] = true
}

// reassign gives a channel to a recorder. The one it had keeps it open
// until the media has moved: make before break, and whatever still reaches a
// recorder that was given up is kept.
func (f *floor) reassign(now time.Time, ch *channel, name call.RecorderName, reason string, continues *tandemv1.Continuation) {
	if ch.recorder == name {
		return
	}
	ch.notLeaving(name)
	if f.recorders[ch.recorder] != nil {
		ch.leaving = append(ch.leaving, port{ch.recorder, ch.endpoint})
	}
	ch.leaveAt = time.Time{}
	if ch.continues == nil {
		ch.continues = continues
	}
	ch.planned = ch.continues == nil && !ch.attached.IsZero()
	delete(f.recorders[name].closes, ch.ID)
	f.assign(ch, name, reason)
	if s := f.sessions[ch.Channel.Session]; s != nil {
		s.recorder, s.reason = name, reason
	}
	if !ch.attached.IsZero() {
		ch.dialAt, ch.failures = now, 0
	}
	f.pursue(now, ch)
}

// afterLogon is what a logon takes until the switch sends: for what is said
// before there is nobody to blame, and nothing anybody could have recorded.
const afterLogon = time.Second

// unheard is what is missing of a channel that is opened without a dialog of
// which we know: calls were under way on it, and nobody had attached it. That is
// so where there was no room for a turret, or nothing of the group ran. If a
// recorder that is still away had the channel meanwhile, we cannot know it, and
// what it has will be taken out; nil when no call began before now.
func (f *floor) unheard(now time.Time, ch *channel) *tandemv1.Continuation {
	if !ch.attached.IsZero() {
		return nil
	}
	began := now
	for _, l := range ch.legs {
		start := l.start
		if s := f.sessions[ch.Channel.Session]; s != nil && !start.Before(s.since) {
			start = later(s.since.Add(afterLogon), start)
		}
		if start.Before(began) {
			began = start
		}
	}
	if !began.Before(now) {
		return nil
	}
	return &tandemv1.Continuation{Cause: causeUnattached, Since: stamp(began)}
}

// tellUnanswered has the recorder know of calls on a channel for which the switch
// answers with nothing but refusals: should it never agree, nobody else says that
// they are missing.
func (f *floor) tellUnanswered(now time.Time, ch *channel) {
	if ch.answered || ch.taken || ch.down.IsZero() || ch.continues != nil || ch.endpoint == (provider.Endpoint{}) {
		return
	}
	if ch.continues = f.unheard(now, ch); ch.continues != nil {
		ch.missed = ch.continues
		f.recorders[ch.recorder].update(ch.ID)
	}
}

// notLeaving forgets that the channel was to leave a recorder.
func (ch *channel) notLeaving(name call.RecorderName) {
	ch.leaving = slices.DeleteFunc(ch.leaving, func(p port) bool { return p.recorder == name })
}

// leaves notes where a recorder that the channel is to leave has it open now;
// one that does not, as after a restart, is nowhere to come back to.
func (ch *channel) leaves(name call.RecorderName, at provider.Endpoint) {
	if at == (provider.Endpoint{}) {
		ch.notLeaving(name)
	}
	for n := range ch.leaving {
		if ch.leaving[n].recorder == name {
			ch.leaving[n].endpoint = at
		}
	}
}

// letGo closes a channel where its media has come from, a moment after it
// has moved.
func (f *floor) letGo(now time.Time, ch *channel) {
	if !ch.moved() {
		ch.leaveAt = time.Time{}
		return
	}
	ch.continues, ch.planned = nil, false
	switch {
	case len(ch.leaving) == 0:
	case ch.leaveAt.IsZero():
		ch.leaveAt = now.Add(linger)
	case !now.Before(ch.leaveAt):
		for _, p := range ch.leaving {
			f.recorders[p.recorder].close(ch.ID, causeMoved)
		}
		ch.leaving, ch.leaveAt = nil, time.Time{}
	}
}

// stay takes a planned move back whose target refuses: the recorder that the
// channel comes from still has it.
func (f *floor) stay(ch *channel) bool {
	on := ch.mediaOn()
	if r := f.recorders[on]; r == nil || !r.up() || on == ch.recorder {
		return false
	}
	ch.notLeaving(on)
	ch.recorder, ch.endpoint, ch.planned = on, ch.mediaAt, false
	f.recorders[on].update(ch.ID)
	if s := f.sessions[ch.Channel.Session]; s != nil {
		s.recorder = on
	}
	return true
}

// moveTo moves channels to a recorder because somebody asked for it. The
// error says why that recorder cannot take them.
func (f *floor) moveTo(now time.Time, all []*channel, device call.DeviceID, to *recorder) (int, error) {
	all = slices.DeleteFunc(all, func(ch *channel) bool { return ch.recorder == to.name })
	if len(all) == 0 {
		return 0, nil
	}
	only := []placement.Recorder{f.candidate(to)}
	choice, err := placement.Choose(now, placement.Request{Group: f.group, Turret: device, Channels: len(all), Limits: f.limits}, only)
	var none *placement.NoneError
	switch {
	case errors.As(err, &none) && len(none.Refusals) == 1: // somebody named it, and wants to know what is wrong with it
		return 0, fmt.Errorf("recorder %s cannot take turret %s: %s", to.name, device, none.Refusals[0].Reason)
	case err != nil:
		return 0, err
	}
	for _, ch := range all {
		f.reassign(now, ch, choice.Recorder, "moved by command", f.lossOf(ch))
	}
	return len(all), nil
}

// lossOf is what a move of the channel continues: nothing while its recorder records it.
func (f *floor) lossOf(ch *channel) *tandemv1.Continuation {
	if !f.stranded(ch) {
		return nil
	}
	return f.recorders[ch.recorder].lost
}

// turret finds the channels of a turret by its device, its session or its user.
func (f *floor) turret(name string) (*session, []*channel) {
	for _, s := range f.sessions {
		if string(s.ID) != name && string(s.Device) != name && string(s.User) != name {
			continue
		}
		var all []*channel
		for _, ch := range s.channels {
			all = append(all, ch)
		}
		return s, all
	}
	return nil, nil
}

// rebalance lists the moves that would level the recorders.
func (f *floor) rebalance() []placement.Move {
	var held []placement.Held
	for _, s := range f.sessions {
		h := placement.Held{Session: s.ID, Device: s.Device, Recorder: s.recorder, Channels: len(s.channels)}
		whole := len(s.channels) > 0
		for _, ch := range s.channels {
			whole = whole && ch.recorder == s.recorder && ch.moved()
			h.Live = h.Live || ch.live()
		}
		if whole {
			held = append(held, h)
		}
	}
	return placement.Rebalance(f.group, f.limits, held, f.candidates())
}

// level carries moves out.
func (f *floor) level(now time.Time, moves []placement.Move) {
	for _, m := range moves {
		for _, ch := range f.sessions[m.Session].channels {
			f.reassign(now, ch, m.To, fmt.Sprintf("rebalanced from %s", m.Recorder), nil)
		}
	}
}

// spare is the group's headroom.
func (f *floor) spare() placement.Headroom { return placement.Spare(f.group, f.candidates()) }

// unsettled counts channels whose media is not yet, or not only, where it
// should be, and those that the switch offers and nobody records now.
func (f *floor) unsettled() (moving, unrecorded int) {
	for _, ch := range f.channels {
		if !ch.available || ch.taken {
			continue
		}
		if len(ch.leaving) > 0 || !ch.attached.IsZero() && !ch.moved() {
			moving++
		}
		if r := f.recorders[ch.mediaOn()]; r == nil || !r.up() {
			unrecorded++
		}
	}
	return moving, unrecorded
}
