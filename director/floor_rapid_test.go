package director

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/director/provider"
	"tandem/internal/call"
)

// storm drives a rig with anything that may happen, in any order. truth is
// what the switch has: who is logged on, which calls and legs go on.
type storm struct {
	*rig
	sessions map[string]bool
	calls    map[string]bool
	legs     map[string]string // leg: its call
	legHome  map[string]string // leg: its session
	linked   bool
	excused  map[call.ChannelID]bool // channels that may be detached
	next     int
}

func newStorm(t *rapid.T) *storm {
	s := &storm{
		rig: newRig(t, "rec-1", "rec-2", "rec-3"), sessions: make(map[string]bool), calls: make(map[string]bool),
		legs: make(map[string]string), legHome: make(map[string]string), excused: make(map[call.ChannelID]bool),
	}
	s.start()
	s.linked = true
	return s
}

// known picks one of what there is, or something nobody heard of.
func known(t *rapid.T, from []string, what string) string {
	return rapid.SampledFrom(append(from, what+"-unknown")).Draw(t, what)
}

func keys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func (s *storm) name(prefix string) string {
	s.next++
	return fmt.Sprint(prefix, s.next)
}

// say tells the floor, if the link is there.
func (s *storm) say(events ...provider.Event) {
	if s.linked {
		s.tell(events...)
	}
}

func (s *storm) snapshot(names []string) {
	s.say(provider.LinkUp{Peer: "switch"}, provider.SnapshotBegin{})
	for _, session := range names {
		s.say(logOn(session, s.now)...)
	}
	for _, c := range keys(s.calls) {
		s.say(callState(c, "established", s.now))
	}
	for _, l := range keys(s.legs) {
		if slices.Contains(names, s.legHome[l]) {
			s.say(join(l, s.legs[l], s.legHome[l], s.now))
		}
	}
	s.say(provider.SnapshotEnd{})
}

func (s *storm) excuse(session string) {
	s.excused[mixID(session, 1)] = true
	s.excused[mixID(session, 2)] = true
}

func (s *storm) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"log on": func(t *rapid.T) {
			id := s.name("s")
			s.sessions[id] = true
			s.say(logOn(id, s.now)...)
		},
		"log on again": func(t *rapid.T) { s.say(logOn(known(t, keys(s.sessions), "session"), s.now)[:1]...) },
		"log off": func(t *rapid.T) {
			id := known(t, keys(s.sessions), "session")
			delete(s.sessions, id)
			s.excuse(id)
			for _, l := range keys(s.legs) {
				if s.legHome[l] == id {
					delete(s.legs, l)
				}
			}
			s.say(provider.LoggedOff{Session: call.SessionID(id), At: s.now})
		},
		"channel without session": func(t *rapid.T) { s.say(provider.ChannelAvailable{Channel: mix("ghost", 1, "HS.L")}) },
		"call": func(t *rapid.T) {
			id := known(t, keys(s.calls), "call")
			if rapid.Bool().Draw(t, "new") {
				id = s.name("c")
			}
			s.calls[id] = true
			s.say(callState(id, rapid.SampledFrom([]string{"offered", "established", "held"}).Draw(t, "state"), s.now))
		},
		"release": func(t *rapid.T) {
			id := known(t, keys(s.calls), "call")
			delete(s.calls, id)
			for _, l := range keys(s.legs) {
				if s.legs[l] == id {
					delete(s.legs, l)
				}
			}
			s.say(callState(id, "released", s.now))
		},
		"join": func(t *rapid.T) {
			id, c, session := s.name("l"), known(t, keys(s.calls), "call"), known(t, keys(s.sessions), "session")
			if s.calls[c] && s.sessions[session] {
				s.legs[id], s.legHome[id] = c, session
			}
			s.say(join(id, c, session, s.now))
		},
		"join again": func(t *rapid.T) {
			id := known(t, keys(s.legs), "leg")
			s.say(join(id, s.legs[id], s.legHome[id], s.now))
		},
		"leg moves": func(t *rapid.T) {
			id := known(t, keys(s.legs), "leg")
			session := s.legHome[id]
			s.say(provider.LegMoved{Leg: legOn(id, s.legs[id], session, "SPK.1"), Channels: []call.ChannelID{mixID(session, 2)}, At: s.now})
		},
		"leave": func(t *rapid.T) {
			id := known(t, keys(s.legs), "leg")
			delete(s.legs, id)
			s.say(provider.LegLeft{Leg: call.LegID(id), At: s.now.Add(time.Duration(rapid.IntRange(-5, 5).Draw(t, "skew")) * time.Second)})
		},
		"link lost": func(t *rapid.T) {
			s.say(provider.LinkDown{Peer: "switch", Heard: s.now.Add(-time.Second), Err: errors.New("reset")})
			s.linked = false
		},
		"link back": func(t *rapid.T) {
			if s.linked {
				return
			}
			s.linked = true
			named := keys(s.sessions)
			if len(named) > 0 && rapid.Bool().Draw(t, "partial") { // a snapshot that forgets someone
				named = named[:len(named)-1]
				s.excuse(keys(s.sessions)[len(named)])
			}
			s.snapshot(named)
		},
		"recorder lost": func(t *rapid.T) {
			if name := s.draw(t); s.recorders[name].up {
				s.lose(name, rapid.Bool().Draw(t, "killed"))
			}
		},
		"recorder back": func(t *rapid.T) {
			name := s.draw(t)
			rec := s.recorders[name]
			if rec.up {
				return
			}
			if rapid.Bool().Draw(t, "forgets") {
				for id := range rec.channels {
					if rapid.Bool().Draw(t, "channel") {
						delete(rec.channels, id)
					}
				}
			}
			s.connect(name)
		},
		"recorder refuses": func(t *rapid.T) {
			s.recorders[s.draw(t)].refuse = rapid.SampledFrom([]string{"", "no_port"}).Draw(t, "why")
		},
		"recorder not ready": func(t *rapid.T) {
			s.recorders[s.draw(t)].unready = rapid.SampledFrom([]string{"", "disk", reasonNoMedia + ": eth1", reasonDraining}).Draw(t, "why")
		},
		"report": func(t *rapid.T) {
			if name := s.draw(t); s.recorders[name].up {
				s.f.recorderReports(s.now, name, s.recorders[name].load())
				s.act()
			}
		},
		"deaf": func(t *rapid.T) {
			name := s.draw(t)
			if !s.recorders[name].up {
				return
			}
			r := s.f.recorders[name]
			r.pulse.deaf(s.now)
			s.f.deaf(s.now, r, s.now)
			s.act()
		},
		"drain": func(t *rapid.T) {
			if r, err := s.f.commanded(string(s.draw(t))); err == nil {
				r.drain = &tandemv1.DrainRequest{Undo: rapid.Bool().Draw(t, "undo")}
			}
		},
		"move": func(t *rapid.T) {
			to, err := s.f.commanded(string(s.draw(t)))
			if err != nil {
				return
			}
			if session, channels := s.f.turret(known(t, keys(s.sessions), "session")); session != nil {
				s.f.moveTo(s.now, channels[:rapid.IntRange(0, len(channels)).Draw(t, "channels")], session.Device, to)
				s.act()
			}
		},
		"rebalance": func(t *rapid.T) {
			s.f.level(s.now, s.f.rebalance())
			s.act()
		},
		"answer": func(t *rapid.T) { s.answerAll() },
		"refuse": func(t *rapid.T) {
			for _, id := range slices.Sorted(maps.Keys(s.asked)) {
				_, dialog := s.dialogs[id]
				s.answer(id, errors.New("488"), dialog && rapid.Bool().Draw(t, "gone"))
				return
			}
		},
		"hang up": func(t *rapid.T) {
			ids := slices.Sorted(maps.Keys(s.dialogs))
			if len(ids) == 0 {
				return
			}
			id := rapid.SampledFrom(ids).Draw(t, "channel")
			delete(s.dialogs, id)
			s.tell(provider.Dropped{Channel: id})
		},
		"stray answers": func(t *rapid.T) {
			s.tell(provider.Dropped{Channel: "nobody"}, provider.AttachFailed{Channel: "nobody", Err: errors.New("x")}, provider.Adopted{Channel: "nobody"}, provider.Attached{Channel: "nobody"})
		},
		"director restarts": func(t *rapid.T) {
			// Legs that it had not passed on are gone with it; what the switch still knows comes back.
			s.restartDirector()
			s.linked = true
			s.snapshot(keys(s.sessions))
		},
		"time": func(t *rapid.T) { s.pass(time.Duration(rapid.IntRange(1, 40).Draw(t, "ticks")) * beat) },
		"":     func(t *rapid.T) { s.check(t) },
	}
}

func (s *storm) draw(t *rapid.T) call.RecorderName {
	return rapid.SampledFrom(s.names()).Draw(t, "recorder")
}

// check holds what must be so at any time: nothing that is logged on and
// attached is hung up, whatever else goes wrong; and no recorder is told to
// close a port that the switch still sends to.
func (s *storm) check(t *rapid.T) {
	for _, id := range s.detached {
		if !s.excused[id] && id != "nobody" && id != mixID("ghost", 1) && id != mixID("session-unknown", 1) {
			t.Fatalf("%s was hung up for no reason", id)
		}
	}
	for id, at := range s.dialogs {
		for _, rec := range s.recorders {
			if rec.listened[at] == id && rec.closedWhile[id] == at {
				t.Fatalf("%s closed %s at %v while the switch sent there", rec.name, id, at)
			}
		}
	}
}

// heldOf says what each recorder holds of a leg.
func (s *storm) heldOf(leg string) []string {
	var held []string
	for _, name := range s.names() {
		for _, id := range keys(s.recorders[name].legs) {
			if string(baseID(id)) == leg {
				held = append(held, fmt.Sprint(name, ": ", id, " ", story(s.recorders[name].legs[id], noon)))
			}
		}
	}
	return held
}

// heal ends all faults and lets time pass beyond every grace and pause.
func (s *storm) heal() {
	s.settle() // what is asked for is done first
	for _, name := range s.names() {
		s.recorders[name].refuse, s.recorders[name].unready = "", ""
		s.recorders[name].draining = false
		if !s.recorders[name].up {
			s.connect(name)
		}
	}
	if s.linked {
		s.say(provider.LinkDown{Peer: "switch", Heard: s.now, Err: errors.New("sequence")})
	}
	s.linked = true
	s.snapshot(keys(s.sessions))
	for range 4 {
		s.settle()
		s.pass(10 * time.Second)
	}
	s.now = s.now.Add(deafMost) // deafness passes, too; nothing else waits for so long
	s.pass(time.Minute)
	for _, name := range s.names() {
		s.f.recorderBeats(s.now, name, 1)
		s.f.recorderReports(s.now, name, s.recorders[name].load())
	}
	s.settle()
}

// TestStorm holds that after the last fault is healed every channel of every
// agent is attached once, at a recorder that expects it there and keeps its
// dialog; nothing else is held; and the recorders know every leg as the switch does.
func TestStorm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newStorm(t)
		t.Repeat(s.actions())
		s.heal()
		s.check(t)
		wanted := make(map[string]bool)
		for _, session := range keys(s.sessions) {
			for n := range 2 {
				s.wantAttached(mixID(session, n+1))
				wanted[string(mixID(session, n+1))] = true
			}
		}
		for _, rec := range s.recorders {
			for id := range rec.channels {
				if !wanted[id] {
					t.Fatalf("%s still holds %s", rec.name, id)
				}
			}
			for id, l := range rec.legs {
				base := string(baseID(id))
				if l.GetEnd() == nil && s.legs[base] == "" {
					t.Fatalf("%s thinks that %s goes on", rec.name, id)
				}
			}
		}
		for l, session := range s.legHome {
			if s.legs[l] == "" {
				continue
			}
			going := 0
			for id, told := range s.holder(mixID(session, 1)).legs {
				if string(baseID(id)) == l && told.GetEnd() == nil {
					going++
				}
			}
			if going != 1 {
				t.Fatalf("leg %s goes on %d times at its recorder %s: %v", l, going, s.holder(mixID(session, 1)).name, s.heldOf(l))
			}
		}
		if what := s.alarmed(); len(what) > 0 {
			t.Fatalf("alarms that did not clear: %v", what)
		}
		if !s.f.quiet() || len(s.asked) > 0 {
			t.Fatal("still at work")
		}
		for record, l := range s.f.legs {
			if !l.end.IsZero() {
				t.Fatalf("holds %s, which is over and told", record)
			}
		}
	})
}
