package director

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/director/provider"
	"tandem/internal/call"
)

// maxRecords bounds how many ended legs are held for recorders that do not
// acknowledge them. Beyond it the oldest are given up: audio does not hang on them.
const maxRecords = 100_000

// How exactly a leg's ends are known.
const (
	accuracyExact    = "exact"
	accuracySnapshot = "snapshot"
	accuracyCut      = "cut"
)

// conversation is a call and the records of its legs.
type conversation struct {
	provider.Call
	state    string
	start    time.Time
	end      time.Time // zero while it lasts
	endCause string
	seen     uint64
	legs     map[string]*leg
	told     []call.RecorderName // who has heard of a leg, maybe of one that is dropped by now, and must hear the rest
}

// leg is one interval of a leg: a leg that moves ends one and begins the
// next, because each has its own source and channels.
type leg struct {
	provider.Leg
	record   string // the interval's id: the leg's own, then with "+2", "+3" ...
	interval int
	channels []call.ChannelID
	start    time.Time
	end      time.Time // zero while it lasts
	endCause string
	accuracy string
	seen     uint64
	told     []call.RecorderName // who has heard of it, and must hear the rest
}

func (f *floor) callChanged(e provider.CallChanged) {
	c := f.calls[e.Call.ID]
	if c == nil {
		if e.State == "released" {
			f.complain("release of an unknown call", string(e.Call.ID))
			return
		}
		c = f.newCall(e.Call, e.At)
	}
	if !c.end.IsZero() {
		f.complain("event for a released call", string(c.ID))
		c.end, c.endCause = time.Time{}, ""
	}
	c.Call, c.state, c.seen = e.Call, e.State, f.snapshot
	if e.State == "released" {
		f.release(c, e.At, cmp.Or(e.Cause, "normal"), "released")
		return
	}
	f.tellCall(c)
}

func (f *floor) newCall(p provider.Call, start time.Time) *conversation {
	c := &conversation{Call: p, state: "established", start: start, seen: f.snapshot, legs: make(map[string]*leg)}
	f.calls[p.ID] = c
	return c
}

// release ends a call and whatever legs it still has.
func (f *floor) release(c *conversation, at time.Time, cause, legCause string) {
	c.state, c.end, c.endCause = "released", later(c.start, at), cause
	for _, l := range c.legs {
		if l.end.IsZero() {
			f.endLeg(l, at, legCause, true)
		}
	}
	f.tellCall(c)
	f.forgetCall(c)
}

func (f *floor) legJoined(p provider.Leg, channels []call.ChannelID, at time.Time) {
	if l := f.current[p.ID]; l != nil && l.end.IsZero() {
		l.seen = f.snapshot
		if l.Leg == p && slices.Equal(l.channels, channels) {
			return // named again
		}
		if f.link.synced {
			f.complain("leg joined again elsewhere", string(p.ID))
		}
		f.nextInterval(l, p, channels, at)
		return
	}
	accuracy := accuracyExact
	if !f.link.synced {
		accuracy = accuracySnapshot
	}
	f.newLeg(p, channels, at, accuracy)
}

// nextInterval ends the leg's present interval and begins another.
func (f *floor) nextInterval(l *leg, p provider.Leg, channels []call.ChannelID, at time.Time) {
	f.endLeg(l, at, "moved", false)
	f.newLeg(p, channels, at, accuracyExact)
}

func (f *floor) newLeg(p provider.Leg, channels []call.ChannelID, at time.Time, accuracy string) *leg {
	interval := 1
	if last := f.current[p.ID]; last != nil {
		interval = last.interval + 1
	}
	record := string(p.ID)
	if interval > 1 {
		record += "+" + strconv.Itoa(interval)
	}
	c := f.calls[p.Call]
	if c == nil {
		f.complain("leg of an unknown call", string(p.ID))
		c = f.newCall(provider.Call{ID: p.Call}, at)
	}
	l := &leg{Leg: p, record: record, interval: interval, channels: channels, start: at, accuracy: accuracy, seen: f.snapshot}
	f.legs[record], f.current[p.ID], c.legs[record] = l, l, l
	for _, id := range channels {
		if ch := f.channels[id]; ch != nil {
			ch.legs[record] = l
		} else {
			f.complain("leg on an unknown channel", string(id))
		}
	}
	f.tellLeg(l)
	f.tellCall(c)
	return l
}

func (f *floor) legMoved(e provider.LegMoved) {
	l := f.current[e.Leg.ID]
	if l == nil || !l.end.IsZero() {
		f.complain("move of an unknown leg", string(e.Leg.ID))
		f.legJoined(e.Leg, e.Channels, e.At)
		return
	}
	f.nextInterval(l, e.Leg, e.Channels, e.At)
}

func (f *floor) legLeft(e provider.LegLeft) {
	l := f.current[e.Leg]
	if l == nil || !l.end.IsZero() {
		f.complain("end of an unknown leg", string(e.Leg))
		return
	}
	f.endLeg(l, e.At, "left", false)
}

// endLeg ends an interval; deduced means that the switch did not say so itself.
func (f *floor) endLeg(l *leg, at time.Time, cause string, deduced bool) {
	if !l.end.IsZero() {
		return
	}
	l.end, l.endCause = later(l.start, at), cause
	if deduced {
		l.accuracy = accuracyCut
	}
	f.tellLeg(l)
	if len(f.legs) > maxRecords {
		f.shed()
	}
}

// closeUnseen ends what a snapshot did not name. at is when the switch was
// last heard: later sound is in the blind window, which is kept anyway.
func (f *floor) closeUnseen(at time.Time) {
	for _, c := range f.calls {
		if c.seen != f.snapshot && c.end.IsZero() {
			f.release(c, at, "cti_outage", "cti_outage")
		}
	}
	for _, l := range f.legs {
		if l.seen != f.snapshot && l.end.IsZero() {
			f.endLeg(l, at, "cti_outage", true)
		}
	}
}

// tellLeg has every recorder that holds one of the leg's channels hear of it.
func (f *floor) tellLeg(l *leg) {
	told := false
	for _, name := range f.recordersOf(l) {
		f.tell(f.recorders[name], l)
		told = true
	}
	if !told {
		f.homeless[l.record] = true
	}
}

// tell notes a leg, and its call, in a recorder's order book.
func (f *floor) tell(r *recorder, l *leg) {
	delete(f.homeless, l.record)
	if !slices.Contains(l.told, r.name) {
		l.told = append(l.told, r.name)
	}
	r.legs[l.record] = true
	r.calls[l.Call] = true
	if c := f.calls[l.Call]; c != nil && !slices.Contains(c.told, r.name) {
		c.told = append(c.told, r.name)
	}
}

// tellCall has every recorder that was told of one of the call's legs hear of
// the call: a call is released after its last leg, which may be dropped by then.
func (f *floor) tellCall(c *conversation) {
	for _, name := range c.told {
		f.recorders[name].calls[c.ID] = true
	}
	for _, l := range c.legs {
		for _, name := range f.recordersOf(l) {
			f.recorders[name].calls[c.ID] = true
		}
	}
}

// recordersOf names the recorders that hold a leg's channels, those included
// that the media is just leaving, and those that have heard of it before.
func (f *floor) recordersOf(l *leg) []call.RecorderName {
	names := slices.Clone(l.told)
	for _, id := range l.channels {
		ch := f.channels[id]
		if ch == nil {
			continue
		}
		for _, p := range append(slices.Clip(ch.leaving), port{recorder: ch.recorder}) {
			if f.recorders[p.recorder] != nil && !slices.Contains(names, p.recorder) {
				names = append(names, p.recorder)
			}
		}
	}
	if s := f.sessions[l.Session]; len(names) == 0 && s != nil && f.recorders[s.recorder] != nil {
		names = append(names, s.recorder)
	}
	return names
}

// houseLegs gives legs that ended before any recorder held their channels to
// a recorder that is up: the record is kept even where there is no audio.
func (f *floor) houseLegs() {
	if len(f.homeless) == 0 {
		return
	}
	for _, name := range f.sortedNames() {
		r := f.recorders[name]
		if !r.up() {
			continue
		}
		for record := range f.homeless {
			if l := f.legs[record]; l == nil {
				delete(f.homeless, record)
			} else if !l.end.IsZero() && !f.unplaced[l.Session] {
				f.tell(r, l)
			}
		}
		return
	}
}

// forget drops a leg that is over once no recorder is still to hear of it.
func (f *floor) forget(record string) {
	l := f.legs[record]
	if l == nil || l.end.IsZero() || f.homeless[record] {
		return
	}
	for _, r := range f.recorders {
		if r.owes(record) {
			return
		}
	}
	f.erase(l)
}

// erase drops a leg's record.
func (f *floor) erase(l *leg) {
	delete(f.legs, l.record)
	delete(f.homeless, l.record)
	for _, id := range l.channels {
		if ch := f.channels[id]; ch != nil {
			delete(ch.legs, l.record)
		}
	}
	c := f.calls[l.Call]
	if c != nil {
		delete(c.legs, l.record)
		f.forgetCall(c)
	}
	if f.current[l.ID] == l && (c == nil || !c.end.IsZero()) {
		delete(f.current, l.ID) // until then a rejoined leg must know its number
	}
}

// forgetCall drops a call that is over, once its legs are dropped.
func (f *floor) forgetCall(c *conversation) {
	if c.end.IsZero() || len(c.legs) > 0 {
		return
	}
	for _, r := range f.recorders {
		if r.owesCall(c.ID) {
			return
		}
	}
	delete(f.calls, c.ID)
	for id, l := range f.current {
		if l.Call == c.ID {
			delete(f.current, id)
		}
	}
}

// shed gives up the oldest tenth of the ended legs.
func (f *floor) shed() {
	var ended []*leg
	for _, l := range f.legs {
		if !l.end.IsZero() {
			ended = append(ended, l)
		}
	}
	slices.SortFunc(ended, func(a, b *leg) int { return a.end.Compare(b.end) })
	ended = ended[:len(ended)/10]
	for _, l := range ended {
		for _, r := range f.recorders {
			delete(r.legs, l.record)
		}
		f.erase(l)
	}
	f.log.Error("call records given up: no recorder takes them", "legs", len(ended))
}

// adoptRecords takes up the legs that a recorder holds unended, and their
// calls, from the director before us. The next snapshot confirms them or ends them.
func (f *floor) adoptRecords(r *recorder, inv *tandemv1.Inventory, now time.Time) {
	for _, p := range inv.GetCalls() {
		id := call.CallID(p.GetId())
		if f.calls[id] == nil && p.GetEnd() == nil {
			c := f.newCall(provider.Call{ID: id, Line: p.GetLine(), Direction: p.GetDirection(), Kind: p.GetKind(), Party: p.GetParty(), PartyName: p.GetPartyName()}, p.GetStart().AsTime())
			c.state, c.seen = p.GetState(), 0
		}
	}
	for _, p := range inv.GetLegs() {
		f.adoptLeg(r, p, now)
	}
}

func (f *floor) adoptLeg(r *recorder, p *tandemv1.Leg, now time.Time) {
	if l := f.legs[p.GetId()]; l != nil {
		f.tell(r, l)
		return
	}
	l := legOf(p)
	if mine := f.current[l.ID]; mine != nil && len(mine.told) == 0 && mine.sameAs(l) {
		f.rename(mine, l)
		f.tell(r, mine)
		return
	}
	l.told = append(l.told, r.name)
	c := f.calls[l.Call]
	if c == nil {
		c = f.newCall(provider.Call{ID: l.Call}, l.start)
		c.seen = 0
	}
	f.legs[l.record], c.legs[l.record] = l, l
	for _, id := range l.channels {
		if ch := f.channels[id]; ch != nil {
			ch.legs[l.record] = l
		}
	}
	f.tellLeg(l) // its channels may be with another recorder by now
	last := f.current[l.ID]
	switch {
	case last == nil || !last.end.IsZero():
		f.current[l.ID] = l
		if f.link.synced { // and the switch does not name it
			f.endLeg(l, now, "cti_outage", true)
		}
	case f.link.synced || !l.start.After(last.start): // the switch's own story, or the later one, counts
		f.endLeg(l, last.start, "interrupted", true)
		last.interval = max(last.interval, l.interval)
	default:
		f.endLeg(last, l.start, "interrupted", true)
		l.interval = max(last.interval, l.interval)
		f.current[l.ID] = l
	}
}

// sameAs reports whether both are one interval, whatever number it has: a
// director that began to listen when the leg had moved already counts from there.
func (l *leg) sameAs(o *leg) bool {
	return l.Session == o.Session && l.Source == o.Source && slices.Equal(l.channels, o.channels)
}

// rename gives an interval the number by which recorders know it.
func (f *floor) rename(l, known *leg) {
	c := f.calls[l.Call]
	delete(f.legs, l.record)
	delete(f.homeless, l.record)
	delete(c.legs, l.record)
	for _, id := range l.channels {
		if ch := f.channels[id]; ch != nil {
			delete(ch.legs, l.record)
			ch.legs[known.record] = l
		}
	}
	l.record, l.interval, l.start, l.accuracy = known.record, known.interval, known.start, known.accuracy
	f.legs[l.record], c.legs[l.record] = l, l
}

func legOf(p *tandemv1.Leg) *leg {
	l := &leg{
		Leg: provider.Leg{
			ID: baseID(p.GetId()), Call: call.CallID(p.GetCall()), Session: call.SessionID(p.GetSession()),
			User: call.UserID(p.GetUser()), Device: call.DeviceID(p.GetDevice()), Source: p.GetSource(),
		},
		record: p.GetId(), interval: 1, start: p.GetStart().AsTime(), accuracy: p.GetAccuracy(),
	}
	if n, err := strconv.Atoi(p.GetId()[min(len(p.GetId()), len(l.ID)+1):]); err == nil && n > 1 {
		l.interval = n
	}
	for _, id := range p.GetChannels() {
		l.channels = append(l.channels, call.ChannelID(id))
	}
	return l
}

func (f *floor) legProto(l *leg) *tandemv1.Leg {
	p := &tandemv1.Leg{
		Id: l.record, Call: string(l.Call), Session: string(l.Session), User: string(l.User), Device: string(l.Device),
		Source: l.Source, Start: stamp(l.start), End: stamp(l.end), EndCause: l.endCause, Accuracy: l.accuracy,
	}
	if s := f.sessions[l.Session]; s != nil {
		p.UserName = s.UserName
	}
	for _, id := range l.channels {
		p.Channels = append(p.Channels, string(id))
	}
	return p
}

func (c *conversation) proto() *tandemv1.Call {
	return &tandemv1.Call{
		Id: string(c.ID), Line: c.Line, Direction: c.Direction, Kind: c.Kind, Party: c.Party, PartyName: c.PartyName,
		State: c.state, Start: stamp(c.start), End: stamp(c.end), EndCause: c.endCause,
	}
}

// stamp is t on the wire; the zero time is absent.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// later keeps an interval from ending before it began, whatever the switch says.
func later(start, end time.Time) time.Time {
	if end.Before(start) {
		return start
	}
	return end
}
