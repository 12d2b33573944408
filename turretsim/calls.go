package turretsim

import (
	"fmt"
	"slices"
	"time"

	"tandem/internal/cti"
	"tandem/turretsim/truth"
)

// Chances of a call, out of one.
const (
	chanceUnanswered = 0.08
	chanceHeld       = 0.15
	chanceMoved      = 0.10
	chanceShared     = 0.15 // more than one turret on the line
	shortestTalk     = 500 * time.Millisecond
)

// planCall plans when the next call is offered.
func (f *floor) planCall() {
	perSecond := f.cfg.Floor.CallsPerMinute / 60 * float64(len(f.turrets))
	if perSecond == 0 {
		return
	}
	f.plan(f.exponential(time.Duration(float64(time.Second)/perSecond)), func() {
		f.offer()
		f.planCall()
	})
}

// offer begins a call at a turret that has a source free for it.
func (f *floor) offer() {
	kind, handset := f.kind()
	t := f.turrets[f.rng.IntN(len(f.turrets))]
	length := shortestTalk + f.exponential(f.cfg.Floor.CallLength.Std())
	ring := f.between(300*time.Millisecond, 3*time.Second)
	unanswered, shared := chance(f.rng, chanceUnanswered), chance(f.rng, chanceShared)
	c := f.newCall(kind)
	if f.quiet || f.full() || t.session == nil || t.free(handset) == "" {
		return
	}
	f.made++
	c.ID = fmt.Sprintf("c%d-%06d", f.servers, f.made)
	c.offered = f.now
	f.calls[c.ID] = c
	f.tell(c, cti.TypeCallOffered, "")
	if unanswered {
		f.plan(ring, func() { f.release(c, []string{"no_answer", "busy", "failed"}[f.rng.IntN(3)]) })
		return
	}
	f.plan(ring, func() {
		if f.calls[c.ID] != c {
			return
		}
		c.established = f.now
		f.tell(c, cti.TypeCallEstablished, "")
		f.planLegs(c, t, handset, shared, length)
	})
}

// full tells whether as many calls last as may.
func (f *floor) full() bool {
	most := f.cfg.Floor.MaxCalls
	return most > 0 && len(f.calls) >= most
}

// kind draws what sort of call it is and whether it is taken on a handset.
func (f *floor) kind() (kind string, handset bool) {
	switch p := f.rng.Float64(); {
	case p < 0.45:
		return "dial", true
	case p < 0.70:
		return "ringdown", true
	case p < 0.80:
		return "intercom", true
	}
	return "hoot", false
}

func (f *floor) newCall(kind string) *conversation {
	firm := firms[f.rng.IntN(len(firms))]
	person := firstNames[f.rng.IntN(len(firstNames))] + " " + lastNames[f.rng.IntN(len(lastNames))]
	c := &conversation{Call: cti.Call{Kind: kind, Direction: []string{"in", "out"}[f.rng.IntN(2)]}}
	line, number := f.rng.IntN(40)+1, f.rng.IntN(900)+100
	switch kind {
	case "hoot":
		c.Line, c.PartyName = fmt.Sprintf("HOOT-%s-%d", desks[line%len(desks)], line%4+1), firm+" hoot"
	case "intercom":
		c.Line, c.Party, c.PartyName = "INTERCOM", fmt.Sprintf("%d", 7000+number), person
	case "ringdown":
		c.Line, c.Party, c.PartyName = fmt.Sprintf("PW-%s-%02d", desks[line%len(desks)], line), fmt.Sprintf("PW%03d", number), firm
	default:
		c.Line, c.Party, c.PartyName = fmt.Sprintf("LDN-%02d", line), fmt.Sprintf("+44207946%04d", number), person+", "+firm
	}
	return c
}

// free is a source of that sort that the session records and no leg uses.
func (t *turret) free(handset bool) string {
	for _, c := range t.session.channels {
		for _, source := range c.Sources {
			if (source[:3] == "HS.") == handset && t.busy[source] == nil {
				return source
			}
		}
	}
	return ""
}

// planLegs plans who joins an established call, for how long, and what
// happens meanwhile. The call is released when the last leg has left.
func (f *floor) planLegs(c *conversation, first *turret, handset, shared bool, length time.Duration) {
	members := []*turret{first}
	if shared {
		for range f.rng.IntN(2) + 1 {
			if t := f.turrets[f.rng.IntN(len(f.turrets))]; !slices.Contains(members, t) {
				members = append(members, t)
			}
		}
	}
	for i, t := range members {
		delay := f.between(5*time.Millisecond, 150*time.Millisecond)
		stay := length
		if i > 0 {
			delay += f.between(0, length/2+time.Millisecond)
			stay = length / 2
		}
		move := chance(f.rng, chanceMoved)
		c.pending++
		f.plan(delay, func() { c.pending--; f.join(c, t, handset, move, stay) })
	}
	if chance(f.rng, chanceHeld) {
		f.plan(length/3, func() { f.hold(c) })
		f.plan(length/2, func() { f.retrieve(c) })
	}
}

func (f *floor) join(c *conversation, t *turret, handset, move bool, stay time.Duration) {
	if f.calls[c.ID] != c {
		return
	}
	source := ""
	if t.session != nil && !f.quiet {
		source = t.free(handset)
	}
	if source == "" {
		f.releaseIfEmpty(c)
		return
	}
	l := &leg{
		Leg:    cti.Leg{ID: fmt.Sprintf("%s.%d", c.ID, len(c.legs)+1), Call: c.ID, Session: t.session.ID, User: t.user, Device: t.device, Source: source},
		turret: t, call: c, joined: f.now, origin: source,
	}
	c.legs = append(c.legs, l)
	t.busy[source] = l
	f.tellLeg(l, cti.TypeLegJoined)
	f.speak(l)
	if move {
		f.plan(stay/2, func() { f.move(l) })
	}
	f.plan(stay, func() { f.leave(l) })
}

// move takes a leg to another source of its turret: handset to speaker, say.
func (f *floor) move(l *leg) {
	if l.over {
		return
	}
	to := l.turret.free(l.Source[:3] != "HS.")
	if to == "" {
		return
	}
	f.silence(l.turret, l.Source)
	delete(l.turret.busy, l.Source)
	l.Source, l.moved = to, f.now
	l.turret.busy[to] = l
	f.tellLeg(l, cti.TypeLegMoved)
	f.speak(l)
}

// leave ends a leg, and the call shortly after its last.
func (f *floor) leave(l *leg) {
	if l.over {
		return
	}
	l.over = true
	f.silence(l.turret, l.Source)
	delete(l.turret.busy, l.Source)
	f.tellLeg(l, cti.TypeLegLeft)
	f.releaseIfEmpty(l.call)
}

func (f *floor) releaseIfEmpty(c *conversation) {
	if c.pending > 0 || slices.ContainsFunc(c.legs, func(l *leg) bool { return !l.over }) {
		return
	}
	f.plan(f.between(time.Millisecond, 100*time.Millisecond), func() { f.release(c, "normal") })
}

func (f *floor) release(c *conversation, cause string) {
	if f.calls[c.ID] != c || slices.ContainsFunc(c.legs, func(l *leg) bool { return !l.over }) {
		return
	}
	delete(f.calls, c.ID)
	f.tell(c, cti.TypeCallReleased, cause)
}

func (f *floor) hold(c *conversation) {
	if f.calls[c.ID] == c && c.held == 0 {
		c.held = f.now
		f.tell(c, cti.TypeCallHeld, "")
	}
}

func (f *floor) retrieve(c *conversation) {
	if f.calls[c.ID] == c && c.held != 0 {
		c.held = 0
		f.tell(c, cti.TypeCallRetrieved, "")
	}
}

// stopCalls ends every call and begins no more until startCalls.
func (f *floor) stopCalls() {
	f.quiet = true
	for _, t := range f.turrets {
		for _, l := range t.busy {
			f.leave(l)
		}
	}
	for _, c := range f.calls {
		c.pending = 0
		f.release(c, "normal")
	}
}

func (f *floor) tell(c *conversation, event, cause string) {
	said := c.Call
	f.log.Add(truth.Line{Type: truth.TypeCall, At: f.wall(f.now), Call: c.ID, Line: c.Line, Party: c.Party, CallKind: c.Kind, State: event[len("call."):], Cause: cause})
	f.emit(cti.Message{Type: event, Call: &said, Cause: cause})
}

// tellLeg says what became of a leg, and to the truth log also where in each
// channel's RTP that was.
func (f *floor) tellLeg(l *leg, event string) {
	said := l.Leg
	m := cti.Message{Type: event, Leg: &said}
	holding := l.turret.holding(l.Source)
	if event != cti.TypeLegLeft {
		m.Channels = holding
	}
	sample := samples(f.now)
	line := truth.Line{Type: truth.TypeLeg, At: f.wall(f.now), Leg: l.ID, Call: l.Leg.Call, Session: l.Session, Device: l.Device, Source: l.Source,
		State: event[len("leg."):], Sample: sample}
	for _, id := range holding {
		line.Media = append(line.Media, f.phone.position(id, sample))
	}
	f.log.Add(line)
	f.emit(m)
}

// Talk spurts, when there is VAD: how long on average.
const (
	talkTime  = 1500 * time.Millisecond
	pauseTime = 900 * time.Millisecond
)

// speak lets a leg's source be heard, in the modes where it is not always.
func (f *floor) speak(l *leg) {
	switch f.voice() {
	case truth.VoiceFiles:
		clip := f.clips[f.rng.IntN(len(f.clips))]
		key, length := speakerKey{l.Device, l.Source}, int64(len(clip.Samples))
		from := l.turret.shard.say(key, samples(f.now), length, clip)
		f.log.Add(truth.Line{Type: truth.TypeUtterance, Device: l.Device, Source: l.Source, Sample: from, Until: from + length, Clip: clip.Name})
	case truth.VoiceSpurts:
		f.talk(l, l.Source)
	}
}

// talk and pause take turns until the leg leaves the source.
func (f *floor) talk(l *leg, source string) {
	if l.over || l.Source != source {
		return
	}
	from := l.turret.shard.say(speakerKey{l.Device, source}, samples(f.now), 0, nil)
	f.log.Add(truth.Line{Type: truth.TypeUtterance, Device: l.Device, Source: source, Sample: from})
	f.tellTalk(l, cti.TypeTalkOn)
	f.plan(f.exponential(talkTime), func() { f.pause(l, source) })
}

func (f *floor) pause(l *leg, source string) {
	if l.over || l.Source != source {
		return
	}
	f.silence(l.turret, source)
	f.tellTalk(l, cti.TypeTalkOff)
	f.plan(f.exponential(pauseTime), func() { f.talk(l, source) })
}

func (f *floor) tellTalk(l *leg, event string) {
	if l.call.Kind == "hoot" {
		f.emit(cti.Message{Type: event, Leg: &cti.Leg{ID: l.ID}})
	}
}

// silence ends what a source says, in the modes where it may.
func (f *floor) silence(t *turret, source string) {
	if f.voice() == truth.VoiceTones {
		return
	}
	at := t.shard.hush(speakerKey{t.device, source}, samples(f.now))
	f.log.Add(truth.Line{Type: truth.TypeHush, Device: t.device, Source: source, Sample: at})
}
