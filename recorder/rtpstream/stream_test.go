package rtpstream

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tandem/internal/call"
	"tandem/internal/media"
)

const t0 = Wall(1_772_442_000_000_000_000)

func ms(n float64) time.Duration { return time.Duration(n * float64(time.Millisecond)) }

// talker sends 20 ms packets; its fields say what the next one is.
type talker struct {
	ssrc uint32
	seq  uint16
	ts   uint32
	at   Wall
}

func (k *talker) packet() (Packet, Wall) {
	p := Packet{SSRC: k.ssrc, Seq: k.seq, TS: k.ts, Codec: media.PCMU, Payload: make([]byte, 160)}
	at := k.at
	k.lose(1)
	return p, at
}

func (k *talker) lose(n int) {
	k.seq += uint16(n)
	k.ts += uint32(160 * n)
	k.at = k.at.Add(ms(20) * time.Duration(n))
}

func (k *talker) silent(d time.Duration) {
	k.ts += uint32(d.Milliseconds() * 8)
	k.at = k.at.Add(d)
}

// heard is all that came out of a stream.
type heard struct {
	placed []Placed
	holes  []Hole
	heads  []Hole // and tails
	runs   int
}

func (h *heard) take(placed []Placed, ended []*Run) {
	for _, p := range placed {
		p.Payload = nil
		h.placed = append(h.placed, p)
		h.holes = p.Run.Settle(h.holes, false)
	}
	for _, r := range ended {
		h.holes = r.Settle(h.holes, true)
		h.runs++
		for _, missing := range []*Hole{r.Head, r.Tail} {
			if missing != nil {
				h.heads = append(h.heads, *missing)
			}
		}
	}
}

func TestHoles(t *testing.T) {
	type steps func(k *talker, s *Stream, send func(n int))
	for _, c := range []struct {
		name   string
		steps  steps
		runs   int
		causes []call.Cause // of holes then heads, "" for silence
	}{
		{"nothing missing", func(k *talker, s *Stream, send func(int)) { send(100) }, 1, nil},
		{"silence", func(k *talker, s *Stream, send func(int)) { send(9); k.silent(time.Hour); send(9) }, 1, []call.Cause{""}},
		{"a silence longer than the timestamp's half", func(k *talker, s *Stream, send func(int)) { send(9); k.silent(100 * time.Hour); send(9) }, 1, []call.Cause{""}},
		{"loss", func(k *talker, s *Stream, send func(int)) { send(9); k.lose(3); send(9) }, 1, []call.Cause{call.CauseLoss}},
		{"outage", func(k *talker, s *Stream, send func(int)) { send(9); k.lose(1000); send(9) }, 1, []call.Cause{call.CauseOutage}},
		{"outage past the sequence's misjudged half", func(k *talker, s *Stream, send func(int)) { send(9); k.lose(0x8000); send(9) }, 2, []call.Cause{call.CauseOutage}},
		{"loss in a long silence", func(k *talker, s *Stream, send func(int)) { send(9); k.silent(time.Hour); k.lose(2); send(9) }, 1, []call.Cause{call.CauseLoss}},
		{"interrupted", func(k *talker, s *Stream, send func(int)) {
			send(9)
			s.Interrupt(k.at)
			k.lose(100)
			send(9)
		}, 1, []call.Cause{call.CauseInterrupted}},
		{"silent while we were away", func(k *talker, s *Stream, send func(int)) {
			send(9)
			s.Interrupt(k.at)
			k.silent(time.Second)
			send(9)
		}, 1, []call.Cause{""}},
		{"loss after we were back", func(k *talker, s *Stream, send func(int)) {
			send(9)
			s.Interrupt(k.at)
			send(9)
			k.lose(2)
			send(9)
		}, 1, []call.Cause{call.CauseLoss}},
		{"disk", func(k *talker, s *Stream, send func(int)) {
			send(9)
			from := k.at
			k.lose(100)
			s.Drop(Drop{from, k.at, call.CauseDisk})
			send(9)
		}, 1, []call.Cause{call.CauseDisk}},
		{"another source while we were away", func(k *talker, s *Stream, send func(int)) {
			send(9)
			s.Interrupt(k.at)
			k.lose(100)
			k.ssrc++
			send(9)
		}, 2, []call.Cause{call.CauseInterrupted}},
		{"away before the first packet", func(k *talker, s *Stream, send func(int)) {
			s.Interrupt(k.at)
			k.lose(100)
			send(9)
		}, 1, []call.Cause{call.CauseInterrupted}},
		{"after another recorder", func(k *talker, s *Stream, send func(int)) {
			s.Origin = Origin{Since: k.at, Cause: call.CauseFailover}
			k.lose(100)
			send(9)
			k.ssrc++
			send(9)
		}, 2, []call.Cause{call.CauseFailover}},
		{"stopped before the first packet, after another recorder", func(k *talker, s *Stream, send func(int)) {
			s.Origin = Origin{Since: k.at, Cause: call.CauseFailover}
			s.Interrupt(k.at)
			k.silent(time.Second)
			send(9)
		}, 1, []call.Cause{call.CauseFailover}},
		{"as soon as another recorder was lost", func(k *talker, s *Stream, send func(int)) {
			s.Origin = Origin{Since: k.at, Cause: call.CauseFailover}
			k.lose(1)
			send(9)
		}, 1, nil},
		{"late from the begin, then overtaken", func(k *talker, s *Stream, send func(int)) {
			k.at = k.at.Add(4 * time.Second)
			send(9)
			k.lose(200)
			k.at = k.at.Add(-4 * time.Second)
			send(9)
		}, 1, []call.Cause{call.CauseLoss}},
		{"another source at once", func(k *talker, s *Stream, send func(int)) { send(9); k.ssrc++; send(9) }, 2, nil},
		{"timestamps jump", func(k *talker, s *Stream, send func(int)) { send(9); k.ts += 1 << 20; send(9) }, 2, nil},
		{"timestamps jump back", func(k *talker, s *Stream, send func(int)) { send(9); k.ts -= 1 << 20; send(9) }, 2, nil},
		{"sequence jumps by its half", func(k *talker, s *Stream, send func(int)) { send(9); k.seq += 0x8000; send(9) }, 2, nil},
		{"sequence jumps in no time", func(k *talker, s *Stream, send func(int)) { send(9); k.seq += 10; send(9) }, 1, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, s, h := &talker{7, 65530, 1<<32 - 500, t0}, &Stream{}, &heard{}
			sent := 0
			c.steps(k, s, func(n int) {
				for range n {
					h.take(s.Push(k.packet()))
					sent++
				}
			})
			h.take(s.Finish())
			var causes []call.Cause
			for _, hole := range append(h.holes, h.heads...) {
				causes = append(causes, hole.Cause)
			}
			if h.runs != c.runs || !slices.Equal(causes, c.causes) {
				t.Errorf("%d runs and holes %q, want %d and %q", h.runs, causes, c.runs, c.causes)
			}
			if len(h.placed) != sent || s.Strays != 0 {
				t.Errorf("%d of %d packets placed, %d strays", len(h.placed), sent, s.Strays)
			}
		})
	}
}

// A dialog follows another, each begun with a marker, and packets are dropped
// anywhere, with the note of it before or behind what follows: every one that
// was dropped is in a hole that says so, none that came is, and where nothing
// was dropped nothing is missing.
func TestDroppedIsMissing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k, s, h := &talker{7, 65530, 1<<32 - 500, t0}, &Stream{}, &heard{}
		var came, dropped []Wall
		var late []Drop
		note := func() {
			for _, d := range late {
				s.Drop(d)
			}
			late = nil
		}
		marker := true
		talk := func(n int) {
			for i := range n {
				p, at := k.packet()
				p.Marker, marker = marker, false
				came = append(came, at)
				h.take(s.Push(p, at))
				if i == 1 && rapid.Bool().Draw(t, "note now") {
					note()
				}
			}
			note()
		}
		drown := func(n int) {
			from := k.at
			for range n {
				dropped = append(dropped, k.at)
				k.lose(1)
			}
			late = append(late, Drop{from, k.at, call.CauseLoss})
			if rapid.Bool().Draw(t, "note at once") {
				note()
			}
		}
		talk(2)
		t.Repeat(map[string]func(*rapid.T){
			"talk":    func(t *rapid.T) { talk(rapid.IntRange(2, 50).Draw(t, "packets")) },
			"silence": func(t *rapid.T) { k.silent(ms(float64(rapid.IntRange(1, 20_000).Draw(t, "ms")))); marker = true },
			"drown":   func(t *rapid.T) { drown(rapid.IntRange(1, 100).Draw(t, "packets")) },
			"redial": func(t *rapid.T) {
				k.ssrc++
				k.seq, k.ts, marker = rapid.Uint16().Draw(t, "seq"), rapid.Uint32().Draw(t, "ts"), true
				talk(2)
			},
		})
		note()
		h.take(s.Finish())
		missing := func(at Wall) bool {
			middle := at.Add(ms(10))
			return slices.ContainsFunc(append(h.holes, h.heads...), func(o Hole) bool {
				return o.Cause == call.CauseLoss && o.Start <= middle && middle < o.End
			})
		}
		for _, at := range dropped {
			if !missing(at) {
				t.Fatalf("dropped at %v and in no hole: %+v %+v", at.Sub(t0), h.holes, h.heads)
			}
		}
		for _, at := range came {
			if missing(at) {
				t.Fatalf("came at %v and is in a hole: %+v %+v", at.Sub(t0), h.holes, h.heads)
			}
		}
		if len(dropped) == 0 && len(h.heads) > 0 {
			t.Fatalf("nothing was dropped, missing %+v", h.heads)
		}
	})
}

// What a flood sends first, over the stream, and once a second between two
// dialogs does not cut what is missing there, whenever the journal that holds
// it goes.
func TestFloodIsNotHeardInAGap(t *testing.T) {
	for name, drowned := range map[string]bool{"the stream goes on under it": false, "the stream is drowned at once": true} {
		k, s, h := &talker{7, 1, 1000, t0}, &Stream{}, &heard{}
		flood := &talker{ssrc: 66}
		burst := func() {
			for i := range 20 {
				p, _ := flood.packet()
				h.take(s.Push(p, k.at.Add(ms(-5+float64(i)/10)))) // behind the last packet
			}
		}
		for i := range 50 {
			if i == 25 && !drowned {
				burst()
			}
			h.take(s.Push(k.packet()))
		}
		if drowned {
			burst()
		}
		s.Drop(Drop{k.at, k.at.Add(time.Second), call.CauseLoss})
		h.take(s.Hear(k.at))
		flood.seq, flood.ts = 34_000, 34_000*160
		p, _ := flood.packet()
		h.take(s.Push(p, t0.Add(ms(1500))))
		h.take(s.Hear(t0.Add(ms(2500))))
		k.lose(50)
		k.ssrc++
		for i := range 50 {
			p, at := k.packet()
			p.Marker = i == 0
			h.take(s.Push(p, at))
		}
		h.take(s.Finish())
		want := []Hole{{Start: t0.Add(time.Second), End: t0.Add(2 * time.Second), Cause: call.CauseLoss}}
		if !reflect.DeepEqual(h.heads, want) {
			t.Errorf("%s: missing %+v, want %+v", name, h.heads, want)
		}
	}
}

// Packets that others overtook are placed where their sender meant them, one or
// many in a row.
func TestOvertaken(t *testing.T) {
	for _, frame := range []int{80, 160} {
		for _, kept := range []int{1, 2, 40} {
			for _, behind := range []int{window / 2, window - 1} {
				s, h := &Stream{}, &heard{}
				length := time.Duration(frame) * 125 * time.Microsecond
				seq := uint16(65000)
				packet := func(i int) (Packet, Wall) {
					return Packet{SSRC: 7, Seq: seq + uint16(i), TS: uint32(i * frame), Codec: media.PCMU, Payload: make([]byte, frame)}, t0.Add(time.Duration(i) * length)
				}
				const first, total = 100, 1000
				for i := range total {
					if i < first || i >= first+kept {
						h.take(s.Push(packet(i)))
					}
					if j := i - behind; j >= first && j < first+kept {
						p, _ := packet(j)
						_, at := packet(i)
						h.take(s.Push(p, at))
					}
				}
				h.take(s.Finish())
				if len(h.placed) != total || h.runs != 1 || len(h.holes) != 0 || s.Strays != 0 {
					t.Errorf("%d of %d samples %d behind: %d placed in %d runs, holes %+v, %d strays", kept, frame, behind, len(h.placed), h.runs, h.holes, s.Strays)
				}
			}
		}
	}
}

// What was sent while nobody listened is missing, unless a packet follows whose
// number tells what was.
func TestNobodyListened(t *testing.T) {
	second := func(n int) Wall { return t0.Add(time.Duration(n) * time.Second) }
	missing := func(from, to Wall) []Hole { return []Hole{{Start: from, End: to, Cause: call.CauseInterrupted}} }
	unheard := Origin{Since: second(-1), Cause: call.CauseUnattached, Until: second(3)}
	for _, c := range []struct {
		name  string
		steps func(k *talker, s *Stream, send func(n int))
		want  []Hole
	}{
		{"nothing follows", func(k *talker, s *Stream, send func(int)) { send(9); s.Unlistened(second(1), second(2)) }, missing(second(1), second(2))},
		{"nothing ever came", func(k *talker, s *Stream, send func(int)) { s.Unlistened(second(1), second(2)) }, missing(second(1), second(2))},
		{"some of it is here", func(k *talker, s *Stream, send func(int)) { send(75); s.Unlistened(second(1), second(2)) }, missing(t0.Add(ms(1500)), second(2))},
		{"the next packet tells", func(k *talker, s *Stream, send func(int)) {
			send(9)
			s.Unlistened(second(1), second(2))
			k.silent(time.Minute)
			send(2)
		}, nil},
		{"twice", func(k *talker, s *Stream, send func(int)) {
			send(9)
			s.Unlistened(second(1), second(2))
			s.Unlistened(second(4), second(5))
		}, append(missing(second(1), second(2)), missing(second(4), second(5))...)},
		{"twice, and the first time not known exactly", func(k *talker, s *Stream, send func(int)) {
			send(9)
			s.Unlistened(second(1), second(2))
			s.Unlistened(second(1), second(5))
		}, missing(second(1), second(5))},
		{"before its media came here", func(k *talker, s *Stream, send func(int)) {
			s.Origin = unheard
			s.Unlistened(second(1), second(2))
			s.Unheard(second(9))
		}, nil},
		{"its media never came here", func(k *talker, s *Stream, send func(int)) {
			s.Origin = Origin{Since: second(-1), Cause: call.CauseFailover}
			s.Unlistened(second(1), second(2))
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, s := &talker{7, 1, 1000, t0}, &Stream{}
			c.steps(k, s, func(n int) {
				for range n {
					s.Push(k.packet())
				}
			})
			s.Finish()
			if got := s.Missed(); !slices.Equal(got, c.want) {
				t.Errorf("missed %+v, want %+v", got, c.want)
			}
		})
	}
}

// A hole's ends are known to the sample and, on the wall, to the millisecond.
func TestHoleExtent(t *testing.T) {
	k, s, h := &talker{7, 1, 1000, t0}, &Stream{}, &heard{}
	for range 10 {
		h.take(s.Push(k.packet()))
	}
	k.lose(5)
	for range 10 {
		h.take(s.Push(k.packet()))
	}
	h.take(s.Finish())
	want := []Hole{{From: 2600, To: 3400, Start: t0.Add(ms(200)), End: t0.Add(ms(300)), Lost: 5, Cause: call.CauseLoss, after: 10}}
	if !reflect.DeepEqual(h.holes, want) {
		t.Errorf("got %+v\nwant %+v", h.holes, want)
	}
}

// Any order, duplicates and losses, over the wrap of both counters: every
// packet is placed once, where its sender meant it, and the holes are exactly
// the packets that did not come and the silences between those that did.
func TestStreamAgainstModel(t *testing.T) {
	type sent struct {
		Packet
		from, to int64 // extended
		at       Wall
	}
	rapid.Check(t, func(t *rapid.T) {
		seq, ts := rapid.Uint16().Draw(t, "seq"), rapid.Uint32().Draw(t, "ts")
		if rapid.Bool().Draw(t, "near the wrap") {
			seq, ts = -seq%50, -ts%9000
		}
		var all []sent
		ext, at := int64(0), t0
		for range rapid.IntRange(2, 300).Draw(t, "packets") {
			size := rapid.SampledFrom([]int{80, 160, 160, 160, 240}).Draw(t, "size")
			if rapid.IntRange(0, 9).Draw(t, "silence") == 0 {
				gap := rapid.Int64Range(1, 8*3600_000).Draw(t, "length")
				ext, at = ext+gap, at.Add(time.Duration(gap)*125*time.Microsecond)
			}
			all = append(all, sent{Packet{SSRC: 1, Seq: seq + uint16(len(all)), TS: ts + uint32(ext), Codec: media.PCMU, Payload: make([]byte, size)}, ext, ext + int64(size), at})
			ext, at = ext+int64(size), at.Add(time.Duration(size)*125*time.Microsecond)
		}
		var arrivals []sent
		got := make([]bool, len(all))
		for i, p := range all {
			copies := rapid.SampledFrom([]int{1, 1, 1, 1, 0, 2}).Draw(t, "copies")
			for range copies {
				q := p
				q.at = q.at.Add(ms(float64(rapid.IntRange(0, 900).Draw(t, "delay"))))
				arrivals = append(arrivals, q)
			}
			got[i] = copies > 0
		}
		slices.SortStableFunc(arrivals, func(a, b sent) int { return int(a.at - b.at) })

		s, h := &Stream{}, &heard{}
		for i, p := range arrivals {
			if i == len(arrivals)/2 { // what is stored goes on as if it never had been
				text, err := json.Marshal(s)
				if err != nil {
					t.Fatal(err)
				}
				s = &Stream{}
				if err := json.Unmarshal(text, s); err != nil {
					t.Fatal(err)
				}
			}
			h.take(s.Push(p.Packet, p.at))
		}
		h.take(s.Finish())
		if len(arrivals) == 0 {
			return
		}
		if h.runs != 1 || s.Strays != 0 {
			t.Fatalf("%d runs, %d strays", h.runs, s.Strays)
		}
		byTS := map[int64]int{}
		for _, p := range h.placed {
			if p.Verdict != Duplicate {
				byTS[p.At]++
			}
		}
		var holes []Hole
		last, shift, first := -1, int64(0), true
		for i, p := range all {
			if !got[i] {
				continue
			}
			if first { // extended numbers begin where the run began; align the model to it
				shift, first = alignment(byTS, p.TS, p.from), false
			}
			if byTS[p.from+shift] != 1 {
				t.Fatalf("packet %d placed %d times at %d", i, byTS[p.from+shift], p.from+shift)
			}
			delete(byTS, p.from+shift)
			if last >= 0 && p.from > all[last].to {
				holes = append(holes, Hole{From: all[last].to + shift, To: p.from + shift, Lost: int64(i - last - 1)})
			}
			last = i
		}
		if len(byTS) != 0 {
			t.Fatalf("placed where nothing was sent: %v", byTS)
		}
		for i := range h.holes {
			h.holes[i] = Hole{From: h.holes[i].From, To: h.holes[i].To, Lost: h.holes[i].Lost}
		}
		if !slices.Equal(h.holes, holes) {
			t.Fatalf("holes %+v\nwant %+v", h.holes, holes)
		}
	})
}

// alignment is what to add to the model's timestamps to get the run's: the
// run's first in time is the model's first.
func alignment(placed map[int64]int, ts uint32, from int64) int64 {
	least := int64(1<<63 - 1)
	for at := range placed {
		least = min(least, at)
	}
	if uint32(least) != ts {
		return 1 << 62 // the low bits must be those on the wire
	}
	return least - from
}

// A clock 200 ppm off, either way, stays within a packet of the wall; and the
// anchor follows reports that can be believed and no others.
func TestAnchorFollowsDrift(t *testing.T) {
	for _, ppm := range []float64{-200, 0, 200} {
		s := &Stream{}
		var r *Run
		worst := time.Duration(0)
		for i := range 50 * 900 {
			at := t0.Add(time.Duration(float64(i) * 20e6 * (1 + ppm/1e6)))
			late := ms(float64(i * 7919 % 40)) // jitter
			placed, _ := s.Push(Packet{SSRC: 1, Seq: uint16(i), TS: uint32(i * 160), Codec: media.PCMA, Payload: make([]byte, 160)}, at.Add(late))
			for _, p := range placed {
				r = p.Run
			}
			if r != nil && i > 500 {
				worst = max(worst, r.Anchor.Wall(int64(i*160)).Sub(at).Abs())
			}
		}
		if worst > ms(10) {
			t.Errorf("%v ppm: anchor off by %v", ppm, worst)
		}
		end := r.End()
		s.Report(1, uint32(end), r.Anchor.Wall(end).Add(-ms(300)))
		if got, want := r.Anchor.Wall(end), WallOf(t0.Add(time.Duration(900e9*(1+ppm/1e6))).Time()).Add(-ms(300)); got.Sub(want).Abs() > ms(10) {
			t.Errorf("%v ppm: report not followed: off by %v", ppm, got.Sub(want))
		}
		before := r.Anchor.Wall(end).Add(ms(300))
		s.Report(1, uint32(end), r.Anchor.Wall(end).Add(time.Hour))
		if d := r.Anchor.Wall(end).Sub(before).Abs(); d > ms(1) {
			t.Errorf("%v ppm: an unset clock was believed: off by %v", ppm, d)
		}
	}
}

// RFC 3550 6.4.1: packets alternately on time and 16 ms late have a mean
// deviation of 16 ms, which the estimate approaches.
func TestJitter(t *testing.T) {
	s := &Stream{}
	k := &talker{1, 1, 1, t0}
	for i := range 200 {
		p, at := k.packet()
		s.Push(p, at.Add(ms(16)*time.Duration(i%2)))
	}
	if j := s.Runs[0].JitterTime(); j < ms(15) || j > ms(16) {
		t.Errorf("jitter %v", j)
	}
}

// Forged packets make no runs, and the true stream is not disturbed.
func TestForgedPackets(t *testing.T) {
	s, h := &Stream{}, &heard{}
	k := &talker{1, 1, 1, t0}
	forged := 0
	for i := range 1000 {
		h.take(s.Push(k.packet()))
		for j := range 3 {
			forged++
			h.take(s.Push(Packet{SSRC: uint32(100 + i*3 + j), Seq: uint16(i * 77), TS: uint32(i * 99991), Codec: media.PCMU, Payload: []byte{1}}, k.at))
		}
	}
	if len(s.Runs) != 1 || len(s.Candidates) != maxCandidates || s.Strays != int64(forged-maxCandidates) || len(h.placed) != 1000 {
		t.Errorf("%d runs, %d candidates, %d strays, %d placed", len(s.Runs), len(s.Candidates), s.Strays, len(h.placed))
	}
}

// One packet in the middle of a run is never heard, whatever comes after it.
func TestStrayInsideARun(t *testing.T) {
	for name, decide := range map[string]func(*Stream) ([]Placed, []*Run){
		"finish": (*Stream).Finish,
		"expire": func(s *Stream) ([]Placed, []*Run) { return s.Expire(t0.Add(time.Minute)) },
	} {
		s, h := &Stream{}, &heard{}
		k := &talker{1, 1, 1, t0}
		for i := range 100 {
			h.take(s.Push(k.packet()))
			if i == 50 {
				h.take(s.Push(Packet{SSRC: 9, Seq: 1, TS: 5, Codec: media.PCMU, Payload: []byte{1}}, k.at))
				h.take(s.Hear(k.at))
			}
		}
		h.take(decide(s))
		if len(h.placed) != 100 || s.Strays != 1 {
			t.Errorf("%s: %d placed, %d strays", name, len(h.placed), s.Strays)
		}
	}
}

// A packet that stands alone is heard when it is let go of, and what fits it
// later goes on with it.
func TestHearALonePacket(t *testing.T) {
	s, h := &Stream{}, &heard{}
	k := &talker{1, 1, 1, t0}
	h.take(s.Push(k.packet()))
	if len(h.placed) != 0 {
		t.Fatal("heard before it is clear that it is alone")
	}
	h.take(s.Hear(k.at))
	for range 10 {
		h.take(s.Push(k.packet()))
	}
	if len(h.placed) != 11 || len(s.Runs) != 1 || len(s.Candidates) != 0 {
		t.Errorf("%d placed, %d runs, %d candidates", len(h.placed), len(s.Runs), len(s.Candidates))
	}
	// Another dialog begins and ends with one packet.
	k2 := &talker{2, 7, 7, k.at.Add(time.Second)}
	h.take(s.Push(k2.packet()))
	h.take(s.Hear(k2.at))
	if len(h.placed) != 12 {
		t.Errorf("%d placed", len(h.placed))
	}
	// And one more, so soon that the one before might go on; it does not.
	k3 := &talker{3, 7, 7, k2.at}
	h.take(s.Push(k3.packet()))
	h.take(s.Hear(k3.at))
	if len(h.placed) != 12 {
		t.Error("heard before it is clear that it is alone")
	}
	h.take(s.Hear(k3.at.Add(time.Second)))
	if len(h.placed) != 13 {
		t.Errorf("%d placed", len(h.placed))
	}
}

// A packet that nothing follows is kept all the same.
func TestLonePacketIsKept(t *testing.T) {
	s, h := &Stream{}, &heard{}
	k := &talker{1, 1, 1, t0}
	h.take(s.Push(k.packet()))
	h.take(s.Expire(k.at.Add(time.Second)))
	if len(h.placed) != 0 {
		t.Fatal("heard too early")
	}
	h.take(s.Expire(k.at.Add(time.Minute)))
	if len(h.placed) != 1 || len(s.Runs) != 1 {
		t.Errorf("%d placed in %d runs", len(h.placed), len(s.Runs))
	}
}

// An old source's late packets still find their run after a new one began.
func TestLateAfterRestart(t *testing.T) {
	s, h := &Stream{}, &heard{}
	k := &talker{1, 1, 1, t0}
	h.take(s.Push(k.packet()))
	h.take(s.Push(k.packet()))
	late, _ := k.packet()
	h.take(s.Push(k.packet()))
	k.ssrc = 2
	h.take(s.Push(k.packet()))
	h.take(s.Push(k.packet()))
	h.take(s.Push(late, k.at))
	h.take(s.Expire(k.at.Add(runIdle)))
	h.take(s.Finish())
	if len(h.placed) != 6 || h.placed[5].Verdict != Late || h.placed[5].Run.SSRC != 1 || h.runs != 2 || h.holes != nil {
		t.Errorf("%+v", h)
	}
}

func BenchmarkPush(b *testing.B) {
	s := &Stream{}
	payload := make([]byte, 160)
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		s.Push(Packet{SSRC: 1, Seq: uint16(i), TS: uint32(i * 160), Codec: media.PCMU, Payload: payload}, t0.Add(time.Duration(i)*20*time.Millisecond))
		i++
	}
}

func TestParse(t *testing.T) {
	datagram := func(first, second byte, more ...byte) []byte {
		return append([]byte{first, second, 0xAB, 0xCD, 0, 0, 0, 9, 0, 0, 0, 7}, more...)
	}
	p := Packet{SSRC: 7, Seq: 0xABCD, TS: 9}
	with := func(codec media.Codec, payload ...byte) Packet {
		q := p
		q.Codec, q.Payload = codec, payload
		return q
	}
	for _, c := range []struct {
		name     string
		datagram []byte
		want     Packet
		ok       bool
	}{
		{"PCMU", datagram(0x80, 0, 1, 2), with(media.PCMU, 1, 2), true},
		{"PCMA by its static type", datagram(0x80, 8, 1, 2), with(media.PCMA, 1, 2), true},
		{"the negotiated type", datagram(0x80, 101, 1, 2), with(media.PCMA, 1, 2), true},
		{"padding", datagram(0xA0, 0, 1, 2, 0, 2), with(media.PCMU, 1, 2), true},
		{"a source list and an extension", datagram(0x91, 0, 0, 0, 0, 1, 0xBE, 0xDE, 0, 1, 0, 0, 0, 0, 5), with(media.PCMU, 5), true},
		{"comfort noise", datagram(0x80, 13, 60), p, true},
		{"another type", datagram(0x80, 96, 1), Packet{}, false},
		{"another version", datagram(0x40, 0, 1), Packet{}, false},
		{"short", []byte{0x80, 0, 1}, Packet{}, false},
		{"padding longer than the packet", datagram(0xA0, 0, 200), Packet{}, false},
	} {
		var r Parser
		got, ok := r.Parse(c.datagram, media.PCMA, 101)
		if ok != c.ok || ok && !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v %v", c.name, got, ok)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{0x80, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 7, 1, 2}, uint8(0))
	f.Fuzz(func(t *testing.T, datagram []byte, negotiated uint8) {
		var r Parser
		p, ok := r.Parse(datagram, media.PCMU, negotiated)
		if ok && (len(datagram) < 12+len(p.Payload) || datagram[0]>>6 != 2 || p.Codec == "" && p.Payload != nil) {
			t.Fatalf("%x: %+v", datagram, p)
		}
	})
}
