package compact

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"tandem/internal/call"
	"tandem/internal/media"
	"tandem/recorder/catalog"
	"tandem/recorder/journal"
	"tandem/recorder/journaltest"
	"tandem/recorder/segment"
)

func TestSlotsAreCutAtTheSample(t *testing.T) {
	f := newFloor(t, t.TempDir(), nil)
	defer f.close()
	l := f.line(media.PCMU)
	f.now = f.now.Add(7 * time.Millisecond) // no packet begins on a slot
	f.talk(l, 1000)
	segments := f.end()
	f.check(segments, always)
	if len(segments) != 3 {
		t.Fatalf("%d segments", len(segments))
	}
	for i, s := range segments {
		if i > 0 {
			before := segments[i-1]
			if before.FirstTS+before.Samples != s.FirstTS || !before.End.Equal(s.Start) {
				t.Errorf("%s does not go on where %s ends", s.ID, before.ID)
			}
			if d := s.Start.Sub(s.Start.Truncate(f.cfg.Slot)); d > 125*time.Microsecond {
				t.Errorf("%s begins %v after its slot", s.ID, d)
			}
		}
	}
	if s := segments[1]; s.Samples != 80000 || s.Packets == 0 || s.Lost != 0 || s.MaxJitter != 0 {
		t.Errorf("%+v", s)
	}
}

func TestHolesAndTheirCauses(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps func(f *floor, l *line)
	}{
		{"loss", func(f *floor, l *line) { f.lose(l, 5, call.CauseLoss) }},
		{"loss over a slot boundary", func(f *floor, l *line) { f.talk(l, 90); f.lose(l, 20, call.CauseLoss) }},
		{"outage over several slots", func(f *floor, l *line) { f.lose(l, 2000, call.CauseOutage) }},
		{"silence", func(f *floor, l *line) { f.silence(3 * time.Second) }},
		{"silence over several slots", func(f *floor, l *line) { f.silence(time.Hour) }},
		{"killed", func(f *floor, l *line) { f.reboot(l, 100) }},
		{"killed over a slot boundary", func(f *floor, l *line) { f.reboot(l, 600) }},
		{"killed twice", func(f *floor, l *line) { f.reboot(l, 50); f.reboot(l, 60) }},
		{"killed in silence", func(f *floor, l *line) { f.silence(time.Second); f.reboot(l, 0); f.silence(time.Second) }},
		{"another source", func(f *floor, l *line) { l.ssrc++; l.seq, l.ts = 7, 7 }},
		{"another source after a kill", func(f *floor, l *line) { f.reboot(l, 50); l.ssrc++; l.seq, l.ts = 7, 7 }},
		{"timestamps jump", func(f *floor, l *line) { l.ts += 1 << 20 }},
		{"another codec", func(f *floor, l *line) { l.Codec = media.PCMA }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFloor(t, t.TempDir(), nil)
			defer f.close()
			l := f.line(media.PCMU)
			f.talk(l, 100)
			c.steps(f, l)
			f.talk(l, 300)
			f.check(f.end(), always)
		})
	}
}

func TestKeepCalls(t *testing.T) {
	f := newFloor(t, t.TempDir(), func(c *Config) { c.KeepAll = false })
	defer f.close()
	l := f.line(media.PCMU)
	base := f.now
	sec := func(n float64) time.Time { return base.Add(time.Duration(n * float64(time.Second))) }
	put := func(legs []catalog.Leg, blind ...catalog.Window) {
		t.Helper()
		if err := f.cat.PutRecords(t.Context(), nil, legs, blind); err != nil {
			t.Fatal(err)
		}
	}
	leg := func(id call.LegID, from, to float64) catalog.Leg {
		l := catalog.Leg{ID: id, Channels: []string{string(l.ID)}, Start: sec(from)}
		if to > 0 {
			l.End = sec(to)
		}
		return l
	}
	put([]catalog.Leg{leg("l1", 10, 14.321), leg("l2", 30, 0)}, catalog.Window{From: sec(60), To: sec(62)})
	f.talk(l, 50*35)
	f.rotate()
	f.now = f.now.Add(f.cfg.PreRoll + f.cfg.Lateness)
	f.step() // the second leg still lasts
	f.now = sec(35)
	put([]catalog.Leg{leg("l2", 30, 40)})
	f.talk(l, 50*40)
	segments := f.end()
	kept := [][2]float64{{8, 16.321}, {28, 42}, {58, 64}}
	f.check(segments, func(_ *line, at time.Time) (bool, bool) {
		for _, k := range kept {
			from, to := at.Sub(sec(k[0])), at.Sub(sec(k[1]))
			if from.Abs() < time.Millisecond || to.Abs() < time.Millisecond {
				return false, false
			}
			if from > 0 && to < 0 {
				return true, true
			}
		}
		return false, true
	})
	if len(segments) == 0 {
		t.Error("nothing kept")
	}
}

// A channel that the switch never answered was missed until it was closed: as far
// as there were calls, and unless another recorder goes on with it.
func TestNeverAnswered(t *testing.T) {
	for closed, want := range map[string][]string{
		"logged_off": {"8s to 22s unattached", "58s to 1m0.02s unattached"}, // with pre-roll and post-roll
		call.Moved:   nil,
	} {
		f := newFloor(t, t.TempDir(), func(cfg *Config) { cfg.KeepAll = false })
		defer f.close()
		base := f.now
		l := journal.Channel{Num: 9, ID: "s1.m1.A", Copy: call.CopyA, Opened: base}
		for n, at := range []time.Duration{10, 60} {
			leg := catalog.Leg{ID: call.LegID(fmt.Sprint("l", n)), Channels: []string{"s1.m1.A"}, Start: base.Add(at * time.Second), End: base.Add((at + 10) * time.Second)}
			if err := f.cat.PutRecords(t.Context(), nil, []catalog.Leg{leg}, nil); err != nil {
				t.Fatal(err)
			}
		}
		f.w.Put(journaltest.Opened(l))
		l.Continues = call.Continuation{Cause: call.CauseUnattached, Since: base.Add(8 * time.Second)}
		f.w.Put(journal.Note{Updated: &l})
		f.silence(time.Minute)
		f.w.Put(journal.Note{Closed: &journal.Closed{Num: l.Num, At: f.now, Cause: closed}})
		f.rotate()
		f.silence(time.Minute)
		f.step()
		segments, err := f.cat.Segments(t.Context(), l.ID, catalog.Window{From: base, To: base.Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		var gaps []string
		for _, s := range segments {
			for _, g := range s.Gaps {
				gaps = append(gaps, fmt.Sprint(g.From.Sub(base), " to ", g.To.Sub(base), " ", g.Cause))
			}
		}
		if !slices.Equal(gaps, want) {
			t.Errorf("%s: gaps %q, want %q", closed, gaps, want)
		}
	}
}

// A channel that came from a lost recorder has a gap before its first packet
// here, and only there; what this recorder has of it from before is no gap.
func TestContinuation(t *testing.T) {
	for _, c := range []struct {
		name   string
		keep   []catalog.Window // nil: all
		before func(f *floor, l *line)
		want   func(base time.Time) catalog.Gap
		moved  time.Duration // when its media had come here, as far as that was told
		mute   bool          // and nothing was said after it
	}{
		{"new here", nil, nil, func(base time.Time) catalog.Gap { return catalog.Gap{From: base, To: base.Add(3 * time.Second)} }, 0, false},
		{"heard here before", nil, func(f *floor, l *line) { f.talk(l, 50) }, func(base time.Time) catalog.Gap {
			return catalog.Gap{From: base.Add(time.Second), To: base.Add(3 * time.Second)}
		}, 0, false},
		{"heard here before and compacted", nil, func(f *floor, l *line) {
			f.talk(l, 50)
			f.w.Put(journal.Note{Closed: &journal.Closed{Num: l.Num, At: f.now, Cause: "moved"}})
			f.rotate()
			f.step()
		}, func(base time.Time) catalog.Gap {
			return catalog.Gap{From: base.Add(time.Second), To: base.Add(3 * time.Second)}
		}, 0, false},
		{"in a call that began meanwhile", []catalog.Window{{From: time.Unix(0, 0).Add(4 * time.Second)}}, nil, func(base time.Time) catalog.Gap {
			return catalog.Gap{From: base.Add(2 * time.Second), To: base.Add(3 * time.Second)}
		}, 0, false},
		{"silent when its media came", nil, nil, func(base time.Time) catalog.Gap {
			return catalog.Gap{From: base, To: base.Add(time.Second + 20*time.Millisecond)}
		}, time.Second, false},
		{"silent ever since", nil, nil, func(base time.Time) catalog.Gap {
			return catalog.Gap{From: base, To: base.Add(time.Second + 20*time.Millisecond)}
		}, time.Second, true},
		{"a moment after it was to come", nil, nil, func(base time.Time) catalog.Gap { return catalog.Gap{From: base, To: base.Add(3 * time.Second)} }, 2850 * time.Millisecond, false},
		{"heard before it was told", nil, nil, func(base time.Time) catalog.Gap { return catalog.Gap{From: base, To: base.Add(3 * time.Second)} }, 3*time.Second + 50*time.Millisecond, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFloor(t, t.TempDir(), func(cfg *Config) { cfg.KeepAll = c.keep == nil })
			defer f.close()
			base := f.now
			before := f.line(media.PCMU)
			if c.before != nil {
				c.before(f, before)
			}
			f.now = base.Add(3 * time.Second)
			l := &line{Channel: journal.Channel{Num: 9, ID: before.ID, Copy: call.CopyA, Codec: media.PCMU, Opened: f.now,
				Continues: call.Continuation{Recorder: "rec-2", Cause: call.CauseFailover, Since: base}}, ssrc: 9, ts: 1 << 20, clock: f.now, rnd: before.rnd}
			for _, k := range c.keep {
				leg := catalog.Leg{ID: "l", Channels: []string{string(l.ID)}, Start: base.Add(k.From.Sub(time.Unix(0, 0)))}
				if err := f.cat.PutRecords(t.Context(), nil, []catalog.Leg{leg}, nil); err != nil {
					t.Fatal(err)
				}
			}
			f.w.Put(journal.Note{Closed: &journal.Closed{Num: before.Num, At: f.now, Cause: "moved"}})
			f.lines = []*line{l}
			f.w.Put(journaltest.Opened(l.Channel))
			tell := func() {
				moved := l.Channel
				moved.Continues.Until = base.Add(c.moved)
				f.w.Put(journal.Note{Updated: &moved})
			}
			if c.moved > 0 && c.moved < 3*time.Second {
				tell()
			}
			if c.mute {
				f.silence(time.Minute)
			} else {
				first := l.next(f.now, "")
				first.marker = true // says nothing of another recorder's silence
				f.arrive(l, first)
				f.now = f.now.Add(20 * time.Millisecond)
				f.talk(l, 50)
			}
			if c.moved > 3*time.Second {
				tell()
			}
			f.reboot(l, 0)
			f.silence(time.Second)
			l.ssrc++ // not the first run any more
			f.talk(l, 50)
			var gaps []catalog.Gap
			for _, s := range f.end() {
				for _, g := range s.Gaps {
					if g.Cause == call.CauseFailover {
						gaps = append(gaps, g)
					}
				}
			}
			want := c.want(base)
			if len(gaps) != 1 || gaps[0].From.Sub(want.From).Abs() > time.Millisecond || gaps[0].To.Sub(want.To).Abs() > time.Millisecond {
				t.Errorf("gaps %v, want one from %v to %v", gaps, want.From, want.To)
			}
		})
	}
}

// What a socket's buffer had no room for at the end of a dialog is a gap,
// though the next one begins with a marker, or none comes; what nobody spoke
// of long before it is none.
func TestDrownedEnd(t *testing.T) {
	const second, packet = 50, 20 * time.Millisecond
	for _, c := range []struct {
		name     string
		then     func(f *floor, l *line, drowned journal.Note)
		from, to time.Duration // of the only gap, after the last packet
	}{
		{"then another dialog", func(f *floor, l *line, drowned journal.Note) { f.w.Put(drowned); redial(f, l) }, 0, 2 * time.Second},
		{"noted when the next dialog has begun", func(f *floor, l *line, drowned journal.Note) {
			redial(f, l)
			f.rotate()
			f.step()
			f.w.Put(drowned)
		}, 0, 2 * time.Second},
		{"then the end", func(f *floor, l *line, drowned journal.Note) { f.w.Put(drowned); f.silence(time.Minute) }, 0, time.Second + packet},
		{"then the end, noted over a restart", func(f *floor, l *line, drowned journal.Note) {
			f.w.Put(drowned)
			f.rotate()
			f.step()
			f.restartCompactor()
		}, 0, time.Second + packet},
		{"drowned in vain, then another dialog", func(f *floor, l *line, _ journal.Note) {
			f.silence(time.Minute)
			f.w.Put(f.drown(l, second))
			redial(f, l)
		}, time.Minute + time.Second - 5*time.Second, time.Minute + 3*time.Second},
		{"not noted", func(f *floor, l *line, _ journal.Note) { redial(f, l) }, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFloor(t, t.TempDir(), nil)
			defer f.close()
			l := f.line(media.PCMU)
			f.talk(l, 2*second)
			last := f.now
			c.then(f, l, f.drown(l, second))
			var gaps []catalog.Gap
			for _, s := range f.end() {
				gaps = append(gaps, s.Gaps...)
			}
			if c.to == 0 {
				if len(gaps) != 0 {
					t.Errorf("gaps %v", gaps)
				}
				return
			}
			if len(gaps) != 1 || gaps[0].Cause != call.CauseLoss || gaps[0].From.Sub(last.Add(c.from)).Abs() > time.Millisecond || gaps[0].To.Sub(last.Add(c.to)).Abs() > time.Millisecond {
				t.Errorf("gaps %v, want one from %v to %v after %v", gaps, c.from, c.to, last)
			}
		})
	}
}

// A channel that begins here, but late in a call, is missing since the call
// began, whether the word of it or the first packet comes first.
func TestToldLateOfACall(t *testing.T) {
	for _, c := range []struct {
		name  string
		early int           // packets before the word
		talk  bool          // ever
		to    time.Duration // where the gap ends
	}{
		{"the word comes first", 0, true, 3 * time.Second},
		{"a packet comes first", 1, true, 3 * time.Second},
		{"packets come first", 5, true, 3 * time.Second},
		{"silent when it was answered", 0, false, 3*time.Second + 20*time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFloor(t, t.TempDir(), nil)
			defer f.close()
			l, base := f.line(media.PCMU), f.now
			f.silence(3 * time.Second)
			f.talk(l, c.early)
			told := l.Channel
			told.Continues = call.Continuation{Cause: call.CauseUnattached, Since: base.Add(time.Second), Until: base.Add(3 * time.Second)}
			f.w.Put(journal.Note{Updated: &told})
			l.Channel = told
			if c.talk {
				f.talk(l, 50)
			}
			f.rotate() // the next file reminds of the channel
			f.step()
			f.silence(time.Minute)
			f.step()
			var gaps []catalog.Gap
			for _, s := range f.end() {
				gaps = append(gaps, s.Gaps...)
			}
			if want := (catalog.Gap{From: base.Add(time.Second), To: base.Add(c.to), Cause: call.CauseUnattached}); len(gaps) != 1 || gaps[0] != want {
				t.Errorf("gaps %v, want %v", gaps, want)
			}
		})
	}
}

// While a recorder without a keeper of its sockets was down, nobody listened: of
// a channel on which nothing follows, that is missing where a call was.
func TestNobodyListened(t *testing.T) {
	f := newFloor(t, t.TempDir(), func(c *Config) { c.KeepAll = false })
	defer f.close()
	busy, idle, told := f.line(media.PCMU), f.line(media.PCMU), f.line(media.PCMU)
	base := f.now
	var legs []catalog.Leg
	for _, l := range []*line{busy, told} {
		legs = append(legs, catalog.Leg{ID: call.LegID(l.ID), Channels: []string{string(l.ID)}, Start: base, End: base.Add(3 * time.Second)})
	}
	if err := f.cat.PutRecords(t.Context(), nil, legs, nil); err != nil {
		t.Fatal(err)
	}
	f.talk(busy, 50)
	f.now = base
	f.talk(told, 50)
	f.reboot(busy, 0)
	f.now = base.Add(10 * time.Second)
	for _, l := range f.lines {
		f.w.Put(journal.Note{Unheard: &journal.Unheard{Num: l.Num, From: base.Add(500 * time.Millisecond), To: f.now}})
	}
	f.rotate()
	f.now = f.now.Add(f.cfg.PreRoll + f.cfg.Lateness)
	f.step()
	f.restartCompactor()
	f.silence(time.Minute)
	f.talk(told, 50)
	var gaps []catalog.Gap
	for _, s := range f.end() {
		if gaps = append(gaps, s.Gaps...); len(s.Gaps) > 0 && s.Num != busy.Num {
			t.Errorf("channel %s misses %v", s.Channel, s.Gaps)
		}
	}
	if want := (catalog.Gap{From: base.Add(time.Second), To: base.Add(5 * time.Second), Cause: call.CauseInterrupted}); len(gaps) != 1 || gaps[0] != want {
		t.Errorf("gaps %v, want %v; %s was idle", gaps, want, idle.ID)
	}
}

// redial goes on with another dialog after a second of silence.
func redial(f *floor, l *line) {
	f.silence(time.Second)
	l.ssrc += 10_000
	l.seq, l.ts, l.fresh = 7, 7, true
	f.talk(l, 100)
}

// Whatever senders, networks, kills and crashes do: every journalled packet is
// in one segment at its place, and every hole is silence or a gap with its cause.
func TestCompactAgainstModel(t *testing.T) {
	dir, n := journaltest.Memory(t), 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		own := filepath.Join(dir, fmt.Sprint(n))
		if err := os.Mkdir(own, 0o750); err != nil {
			t.Fatal(err)
		}
		f := newFloor(t, own, nil)
		defer os.RemoveAll(own)
		defer f.close()
		lines := []*line{f.line(media.PCMU), f.line(media.PCMA)}
		pick := func(t *rapid.T) *line { return rapid.SampledFrom(lines).Draw(t, "line") }
		for _, l := range lines {
			f.talk(l, 3)
		}
		t.Repeat(map[string]func(*rapid.T){
			"talk": func(t *rapid.T) { f.talk(pick(t), rapid.IntRange(1, 300).Draw(t, "packets")) },
			"disorder": func(t *rapid.T) {
				l := pick(t)
				var packets []sent
				for range rapid.IntRange(2, 60).Draw(t, "packets") {
					packets = append(packets, l.next(f.now, ""))
					f.now = f.now.Add(20 * time.Millisecond)
				}
				type arrival struct {
					sent
					late time.Duration
				}
				var arrivals []arrival
				for _, p := range packets {
					for range rapid.SampledFrom([]int{1, 1, 2}).Draw(t, "copies") {
						arrivals = append(arrivals, arrival{p, time.Duration(rapid.SampledFrom([]int{0, 0, 0, 30, 400}).Draw(t, "late")) * time.Millisecond})
					}
				}
				slices.SortStableFunc(arrivals, func(a, b arrival) int { return a.at.Add(a.late).Compare(b.at.Add(b.late)) })
				for _, a := range arrivals {
					a.at = a.at.Add(a.late)
					f.arrive(l, a.sent)
				}
				f.silence(400 * time.Millisecond)
				f.talk(l, 2)
			},
			"lose": func(t *rapid.T) {
				l := pick(t)
				f.lose(l, rapid.IntRange(1, 500).Draw(t, "packets"), call.CauseLoss)
				f.talk(l, 2)
			},
			"disk": func(t *rapid.T) {
				l, from := pick(t), f.now
				f.lose(l, rapid.IntRange(2, 500).Draw(t, "packets"), call.CauseDisk)
				f.w.Put(journal.Note{Dropped: &journal.Dropped{Num: l.Num, From: from, To: f.now, Packets: 1, Cause: call.CauseDisk}})
				f.talk(l, 2)
			},
			"drown": func(t *rapid.T) {
				l := pick(t)
				note := f.drown(l, rapid.IntRange(1, 100).Draw(t, "packets"))
				early := rapid.Bool().Draw(t, "note before packets")
				if early {
					f.w.Put(note)
				}
				if rapid.Bool().Draw(t, "redial") {
					l.ssrc += 10_000
					l.seq, l.ts, l.fresh = rapid.Uint16().Draw(t, "seq"), rapid.Uint32().Draw(t, "ts"), true
				}
				f.talk(l, 3)
				if !early {
					f.w.Put(note)
					f.talk(l, 2)
				}
			},
			"silence": func(t *rapid.T) {
				l := pick(t)
				f.silence(time.Duration(rapid.IntRange(1, 60_000).Draw(t, "ms")) * time.Millisecond)
				f.talk(l, 2)
			},
			"reboot": func(t *rapid.T) {
				l := pick(t)
				f.reboot(l, rapid.IntRange(0, 700).Draw(t, "packets"))
				for _, l := range lines { // else a later loss cannot be told from this
					f.talk(l, 2)
				}
			},
			"restart": func(t *rapid.T) {
				l := pick(t)
				l.ssrc += 10_000
				l.seq, l.ts = rapid.Uint16().Draw(t, "seq"), rapid.Uint32().Draw(t, "ts")
				f.talk(l, 3)
			},
			"compact": func(t *rapid.T) {
				f.rotate()
				f.crashAt = rapid.SampledFrom([]string{"", "", "compacted", "flushed", "synced", "committed"}).Draw(t, "crash")
				f.step()
			},
		})
		f.check(f.end(), always)
	})
}

// The first packet of a run may come second, even after the other has reached
// its file.
func TestLateFirstPacket(t *testing.T) {
	for _, compactBetween := range []bool{false, true} {
		f := newFloor(t, t.TempDir(), nil)
		l := f.line(media.PCMU)
		first := l.next(f.now, "")
		f.now = f.now.Add(20 * time.Millisecond)
		f.talk(l, 10)
		if compactBetween {
			f.rotate()
			f.step()
		}
		late := first
		late.at = f.now
		f.arrive(l, late)
		f.talk(l, 10)
		segments := f.end()
		f.check(segments, always)
		want := 1
		if compactBetween {
			want = 2
		}
		if len(segments) != want || segments[0].FirstTS != int64(first.ts) || segments[0].Reordered != 1 {
			t.Errorf("%d segments: %+v", len(segments), segments)
		}
		f.close()
	}
}

// A sender's clock that drifts, seen through a jittering network, moves no
// segment further than a packet, cuts no crumbs, and leaves no seams.
func TestDriftStaysWithinAPacket(t *testing.T) {
	for _, ppm := range []float64{-200, 200} {
		f := newFloor(t, t.TempDir(), func(c *Config) { c.Slot = time.Minute })
		l := f.line(media.PCMU)
		began, first := f.now, l.ts
		const packets = 50 * 60 * 8
		sentAt := func(samples int64) time.Time {
			return began.Add(time.Duration(float64(samples) * 125e3 * (1 + ppm/1e6)))
		}
		for i := range packets {
			s := l.next(f.now, "")
			s.at = sentAt(int64(i * 160)).Add(time.Duration(i*7919%30) * time.Millisecond)
			f.arrive(l, s)
			f.now = f.now.Add(20 * time.Millisecond)
			if i%3000 == 2999 {
				f.rotate()
				f.step()
			}
		}
		segments := f.end()
		if len(segments) != 9 { // the floor begins seven seconds into a minute
			t.Errorf("%v ppm: %d segments", ppm, len(segments))
		}
		for i, s := range segments {
			at := s.FirstTS - int64(first)
			if a, b := s.Start.Sub(sentAt(at)), s.End.Sub(sentAt(at+s.Samples)); max(a.Abs(), b.Abs()) > 20*time.Millisecond {
				t.Errorf("%v ppm: segment %d begins %v and ends %v off", ppm, i, a, b)
			}
			if i > 0 && (segments[i-1].FirstTS+segments[i-1].Samples != s.FirstTS || !segments[i-1].End.Equal(s.Start)) {
				t.Errorf("%v ppm: a seam before segment %d", ppm, i)
			}
		}
		f.close()
	}
}

// Files begun in a step that was not committed go; everything else stays.
func TestOrphansAreRemoved(t *testing.T) {
	f := newFloor(t, t.TempDir(), nil)
	defer f.close()
	l := f.line(media.PCMU)
	f.talk(l, 100)
	f.rotate()
	f.step()
	hour := filepath.Join(f.cfg.Media, segment.Folder(time.Now()))
	old := filepath.Join(f.cfg.Media, segment.Folder(f.now.Add(-48*time.Hour)))
	for _, dir := range []string{hour, old} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"begun.wav", "notes.txt"} {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o640); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.talk(l, 100)
	f.rotate()
	f.restartCompactor()
	f.step()
	for path, want := range map[string]bool{hour + "/begun.wav": false, hour + "/notes.txt": true, old + "/begun.wav": true, old + "/notes.txt": true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
		os.Remove(path)
	}
	f.check(f.end(), always)
}

// A file waits until every leg that keeps some of it has been announced; a leg
// announced later still keeps all that was not decided yet.
func TestLegsAnnouncedLate(t *testing.T) {
	f := newFloor(t, t.TempDir(), func(c *Config) { c.KeepAll, c.Slot = false, time.Hour })
	defer f.close()
	l := f.line(media.PCMU)
	f.talk(l, 500)
	f.rotate()
	f.now = f.now.Add(f.cfg.PreRoll + f.cfg.Lateness - time.Millisecond)
	if sum := f.step(); sum.Files != 0 || f.c.Lag() == 0 {
		t.Fatalf("a young file was compacted: %+v, %d bytes wait", sum, f.c.Lag())
	}
	f.now = f.now.Add(time.Millisecond)
	if sum := f.step(); sum.Files != 1 || sum.Unkept != 500 {
		t.Fatalf("%+v", sum)
	}
	decided := l.clock
	f.now = decided
	if err := f.cat.PutRecords(t.Context(), nil, []catalog.Leg{{ID: "l", Channels: []string{string(l.ID)}, Start: decided.Add(-time.Second)}}, nil); err != nil {
		t.Fatal(err)
	}
	f.talk(l, 500)
	f.check(f.end(), func(_ *line, at time.Time) (bool, bool) { return !at.Before(decided), true })
}

// What has been compacted is removed, even by a compactor that comes after the
// one that died before removing it, and is not compacted again.
func TestCompactedFilesGo(t *testing.T) {
	f := newFloor(t, t.TempDir(), nil)
	defer f.close()
	l := f.line(media.PCMU)
	for range 3 {
		f.talk(l, 10)
		f.rotate()
	}
	f.crashAt = "committed"
	f.step()
	if files, err := journal.Files(f.cfg.Journal); err != nil || len(files) != 0 {
		t.Fatalf("%v, %v", files, err)
	}
	f.reboot(l, 0)
	f.talk(l, 10)
	f.rotate()
	if sum := f.step(); sum.Files != 1 || sum.Packets != 10 {
		t.Errorf("%+v", sum)
	}
	f.check(f.end(), always)
}

// A channel whose end is lost with a piece of the journal ends with the next
// file, which does not list it.
func TestUnlistedChannelEnds(t *testing.T) {
	f := newFloor(t, t.TempDir(), nil)
	defer f.close()
	gone, stays := f.line(media.PCMU), f.line(media.PCMU)
	f.talk(gone, 50)
	f.rotate()
	f.w.Put(journal.Note{Closed: &journal.Closed{Num: gone.Num, At: f.now, Cause: "logged_off"}})
	f.rotate() // this file will be lost
	f.talk(stays, 50)
	f.rotate()
	files, err := journal.Files(f.cfg.Journal)
	if err != nil || len(files) != 3 {
		t.Fatalf("%v, %v", files, err)
	}
	if err := os.Remove(files[1].Path); err != nil {
		t.Fatal(err)
	}
	f.step()
	open, err := f.cat.OpenSegments(t.Context())
	if err != nil || len(open) != 1 || open[0].Num != stays.Num {
		t.Errorf("%+v, %v", open, err)
	}
}

// Damage in the journal costs what it touches, is reported, and is a gap.
func TestDamagedJournal(t *testing.T) {
	f := newFloor(t, t.TempDir(), nil)
	defer f.close()
	l := f.line(media.PCMU)
	f.talk(l, 100)
	broken := len(l.sent)
	f.talk(l, 50)
	for i := range l.sent[broken:] {
		l.sent[broken+i].kept, l.sent[broken+i].cause = false, call.CauseLoss
	}
	f.talk(l, 100)
	f.rotate()
	files, err := journal.Files(f.cfg.Journal)
	if err != nil {
		t.Fatal(err)
	}
	r, err := journal.OpenFile(files[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	packets, at := 0, int64(0)
	for packets <= broken {
		b, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		packets, at = packets+b.Count, b.Offset
	}
	whole, err := os.ReadFile(files[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	whole[at+100] ^= 1
	if err := os.WriteFile(files[0].Path, whole, 0o640); err != nil {
		t.Fatal(err)
	}
	f.age()
	sum := f.step()
	if len(sum.Corrupt) != 1 || sum.Corrupt[0].Offset != at || sum.Packets != 200 {
		t.Errorf("%d packets, damage %v, want 200 and offset %d", sum.Packets, sum.Corrupt, at)
	}
	f.check(f.end(), always)
}

// A full disk stops compaction and nothing else: the journal is kept, and when
// there is space again all of it becomes segments.
func TestDiskFullRecovers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	dir := t.TempDir()
	small := filepath.Join(dir, "media")
	if err := os.Mkdir(small, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=128k"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	defer unix.Unmount(small, unix.MNT_DETACH)
	f := newFloor(t, dir, nil)
	defer f.close()
	l := f.line(media.PCMU)
	f.talk(l, 500)
	f.rotate()
	f.step()
	f.talk(l, 2000)
	f.rotate()
	for range 3 {
		if _, err := f.c.Step(t.Context()); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("on a full disk: %v", err)
		}
	}
	if f.c.Lag() == 0 {
		t.Error("nothing waits")
	}
	if err := unix.Mount("tmpfs", small, "tmpfs", unix.MS_REMOUNT, "size=4m"); err != nil {
		t.Fatal(err)
	}
	f.step()
	if f.c.Lag() != 0 {
		t.Errorf("%d bytes still wait", f.c.Lag())
	}
	f.check(f.end(), always)
}

// A segment whose file is destroyed while it is written is given up visibly.
func TestLostFileIsGivenUp(t *testing.T) {
	f := newFloor(t, t.TempDir(), nil)
	defer f.close()
	l := f.line(media.PCMU)
	f.talk(l, 50)
	f.rotate()
	f.step()
	open, err := f.cat.OpenSegments(t.Context())
	if err != nil || len(open) != 1 {
		t.Fatalf("%d open, %v", len(open), err)
	}
	if err := os.Remove(filepath.Join(f.cfg.Media, open[0].File)); err != nil {
		t.Fatal(err)
	}
	f.talk(l, 50)
	f.rotate()
	if _, err := f.c.Step(t.Context()); err == nil {
		t.Fatal("wrote a file that is not there")
	}
	f.step()
	segments := f.end()
	if len(segments) != 2 || segments[0].SHA256 != "" || segments[1].SHA256 == "" || segments[1].Packets != 50 {
		t.Errorf("%+v", segments)
	}
}

// Sender reports place a run by the sender's clock, when that can be believed.
func TestReportsAnchor(t *testing.T) {
	for _, c := range []struct{ skew, want time.Duration }{{-300 * time.Millisecond, -300 * time.Millisecond}, {time.Hour, 0}} {
		f := newFloor(t, t.TempDir(), func(c *Config) { c.Slot = time.Hour })
		l := f.line(media.PCMU)
		began := f.now
		f.talk(l, 100)
		f.report(l, c.skew)
		f.talk(l, 100)
		s := f.end()
		if d := s[0].Start.Sub(began.Add(c.want)).Abs(); len(s) != 1 || d > time.Millisecond {
			t.Errorf("skew %v: segment begins %v off", c.skew, d)
		}
		f.close()
	}
}

// Until a channel is closed its segment is open, readable, and named in the
// catalog with what is needed to go on.
func TestOpenSegment(t *testing.T) {
	f := newFloor(t, t.TempDir(), nil)
	defer f.close()
	l := f.line(media.PCMU)
	f.talk(l, 10)
	f.rotate()
	f.step()
	open, err := f.cat.OpenSegments(t.Context())
	if err != nil || len(open) != 1 || open[0].Samples != 1600 || len(open[0].State) == 0 || open[0].Size != segment.Size(1600) {
		t.Fatalf("%+v, %v", open, err)
	}
}

// The cost of a packet, from closed journal files to committed segments, with
// as many channels as one recorder carries: CPU of all threads, in the steady
// state when every segment's file is there.
func BenchmarkCompact(b *testing.B) {
	const channels, seconds = 4000, 5
	f := newFloor(b, b.TempDir(), func(c *Config) { c.Slot = 24 * time.Hour })
	defer f.close()
	f.w.Stop()
	f.w = journaltest.Start(b, f.cfg.Journal, 64<<20)
	for range channels {
		f.line(media.PCMU)
	}
	say := func(n int) {
		for range n {
			now := f.now
			for _, l := range f.lines {
				f.now = now
				f.talk(l, 50)
				l.sent = l.sent[:0]
			}
		}
		f.rotate()
	}
	say(1)
	f.step()
	packets := int64(0)
	var spent time.Duration
	for b.Loop() {
		b.StopTimer()
		say(seconds)
		before := cpu(b)
		b.StartTimer()
		packets += f.step().Packets
		spent += cpu(b) - before
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(packets), "cpu-ns/packet")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(packets), "ns/packet")
}

func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
