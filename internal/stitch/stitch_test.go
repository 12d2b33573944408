package stitch

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tandem/internal/call"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func ms(n int) time.Time { return noon.Add(time.Duration(n) * time.Millisecond) }

func number(n int) Sequence { return Sequence{uint16(n), true} }

// media is a stretch of 20 ms packets: from and to in milliseconds after noon
// by the recorder's clock, sequence numbers and timestamps as one sender would
// send them from noon on without a pause.
func media(ssrc uint32, from, to int) Stretch {
	return Stretch{SSRC: ssrc, TS: uint32(from * 8), From: ms(from), To: ms(to), Samples: int64(to-from) * 8, First: number(from / 20), Last: number(to/20 - 1)}
}

// later is the stretch by a clock that is ahead.
func later(s Stretch, by int) Stretch {
	s.From, s.To = s.From.Add(time.Duration(by)*time.Millisecond), s.To.Add(time.Duration(by)*time.Millisecond)
	return s
}

// unnumbered is a stretch of which no sequence number is known.
func unnumbered(s Stretch) Stretch {
	s.First, s.Last = Sequence{}, Sequence{}
	return s
}

// silent is the stretch as it is when the sender was silent for so many packets
// before it: no sequence number was used for them.
func silent(s Stretch, packets int) Stretch {
	s.First.Number -= uint16(packets)
	s.Last.Number -= uint16(packets)
	return s
}

func gap(from, to int, cause call.Cause) Gap { return Gap{ms(from), ms(to), cause} }

func (tl Timeline) String() string {
	text := ""
	for _, p := range tl.Pieces {
		text += fmt.Sprintf("%d-%d:%d ", p.At/8, p.End()/8, p.Part+1)
	}
	for _, h := range tl.Holes {
		text += fmt.Sprintf("| %s %d-%d %q-%q ", h.Cause, h.From.Sub(noon).Milliseconds(), h.To.Sub(noon).Milliseconds(), h.Before, h.After)
	}
	return text
}

func TestJoin(t *testing.T) {
	const failover, loss, interrupted, unattached = call.CauseFailover, call.CauseLoss, call.CauseInterrupted, call.CauseUnattached
	for name, c := range map[string]struct {
		parts []Part
		want  string
	}{
		"nothing": {nil, ""},
		"one recorder's word stands": {
			[]Part{{"r1", []Stretch{media(7, 0, 100), media(7, 140, 200)}, []Gap{gap(100, 140, loss), gap(200, 300, interrupted)}}},
			`0-100:1 140-200:1 | loss 100-140 "r1"-"r1" | interrupted 200-300 "r1"-"" `},
		"a failover, measured": {
			[]Part{{"r1", []Stretch{media(7, 0, 1000)}, nil}, {"r2", []Stretch{media(7, 1240, 2000)}, []Gap{gap(600, 1240, failover)}}},
			`0-1000:1 1240-2000:2 | failover 1000-1240 "r1"-"r2" `},
		"a failover that no row tells of": {
			[]Part{{"r1", []Stretch{media(7, 0, 1000)}, nil}, {"r2", []Stretch{media(7, 1240, 2000)}, nil}},
			`0-1000:1 1240-2000:2 | failover 1000-1240 "r1"-"r2" `},
		"a failover in a silence": {
			[]Part{{"r1", []Stretch{media(7, 0, 1000)}, nil}, {"r2", []Stretch{silent(media(7, 1240, 2000), 12)}, []Gap{gap(600, 1240, failover)}}},
			`0-1000:1 1240-2000:2 `},
		"the lost recorder cannot be reached": {
			[]Part{{"r2", []Stretch{media(7, 1240, 2000)}, []Gap{gap(600, 1240, failover)}}},
			`1240-2000:1 | failover 600-1240 ""-"r2" `},
		"numbers not known: the row stands, less what is there": {
			[]Part{{"r1", []Stretch{unnumbered(media(7, 0, 1000))}, nil}, {"r2", []Stretch{media(7, 1240, 2000)}, []Gap{gap(600, 1240, failover)}}},
			`0-1000:1 1240-2000:2 | failover 1000-1240 "r1"-"r2" `},
		"make before break": {
			[]Part{{"r1", []Stretch{media(7, 0, 1000)}, nil}, {"r2", []Stretch{media(7, 800, 2000)}, nil}},
			`0-1000:1 1000-2000:2 `},
		"clocks apart": {
			[]Part{{"r1", []Stretch{media(7, 0, 1000)}, nil}, {"r2", []Stretch{later(media(7, 1240, 2000), 30)}, []Gap{gap(630, 1270, failover)}}},
			`0-1000:1 1240-2000:2 | failover 1000-1240 "r1"-"r2" `},
		"back after a crash: its gap is filled": {
			[]Part{
				{"r1", []Stretch{media(7, 0, 1000), media(7, 1300, 1400)}, []Gap{gap(1000, 1300, interrupted)}},
				{"r2", []Stretch{media(7, 1200, 2000)}, []Gap{gap(900, 1200, failover)}}},
			`0-1000:1 1200-2000:2 | failover 1000-1200 "r1"-"r2" `},
		"each fills the other's loss": {
			[]Part{
				{"r1", []Stretch{media(7, 0, 100), media(7, 200, 300)}, []Gap{gap(100, 200, loss)}},
				{"r2", []Stretch{media(7, 0, 40), media(7, 140, 300)}, []Gap{gap(40, 140, loss)}}},
			`0-100:1 140-300:2 | loss 100-140 "r1"-"r2" `},
		"a silence that one recorder knows is none for another": {
			[]Part{
				{"r1", []Stretch{media(7, 0, 500), silent(media(7, 800, 1000), 15)}, nil},
				{"r2", []Stretch{silent(media(7, 1100, 2000), 15)}, []Gap{gap(600, 1100, failover)}}},
			`0-500:1 800-1000:1 1100-2000:2 | failover 1000-1100 "r1"-"r2" `},
		"another SSRC, by the wall clock": {
			[]Part{{"r1", []Stretch{media(7, 0, 1000)}, nil}, {"r2", []Stretch{media(8, 1240, 2000)}, []Gap{gap(900, 1240, failover)}}},
			`0-1000:1 1240-2000:2 | failover 1000-1240 "r1"-"r2" `},
		"another SSRC gives way to what began before it": {
			[]Part{{"r2", []Stretch{media(8, 900, 2000)}, nil}, {"r1", []Stretch{media(7, 0, 500), media(7, 600, 1000)}, []Gap{gap(500, 600, loss)}}},
			`0-500:2 600-1000:2 1000-2000:1 | loss 500-600 "r1"-"r1" `},
		"one SSRC whose timestamps began anew": {
			[]Part{{"r1", []Stretch{media(7, 0, 1000)}, nil}, {"r2", []Stretch{{SSRC: 7, TS: 1 << 31, From: ms(1300), To: ms(1400), Samples: 800}}, nil}},
			`0-1000:1 1300-1400:2 `},
		"gaps without any media": {
			[]Part{{"r1", nil, []Gap{gap(0, 500, interrupted)}}, {"r2", nil, []Gap{gap(300, 800, failover)}}},
			`| interrupted 0-500 ""-"" | failover 500-800 ""-"" `},
		"nobody had the channel": {
			[]Part{{"r2", []Stretch{media(8, 1240, 2000)}, []Gap{gap(0, 1240, unattached)}}},
			`1240-2000:1 | unattached 0-1240 ""-"r2" `},
		"nobody was known to have the channel, and one had it": {
			[]Part{{"r2", []Stretch{media(8, 1240, 2000)}, []Gap{gap(0, 1240, unattached)}}, {"r1", []Stretch{media(7, 400, 1000)}, nil}},
			`400-1000:2 1240-2000:1 | unattached 1000-1240 "r1"-"r2" `},
		"who had it says what it missed": {
			[]Part{
				{"r1", []Stretch{media(7, 400, 500), media(7, 600, 700)}, []Gap{gap(500, 600, loss), gap(700, 1100, interrupted)}},
				{"r2", []Stretch{media(8, 1240, 2000)}, []Gap{gap(0, 1240, unattached)}}},
			`400-500:1 600-700:1 1240-2000:2 | loss 500-600 "r1"-"r1" | interrupted 700-1100 "r1"-"r2" | unattached 1100-1240 "r1"-"r2" `},
		"who was down, and who took over and heard a silence": {
			[]Part{
				{"r1", []Stretch{media(7, 0, 500)}, []Gap{gap(500, 4000, interrupted)}},
				{"r2", nil, []Gap{gap(400, 1100, failover)}}},
			`0-500:1 | failover 500-1100 "r1"-"" `},
		"who was down, and moved when it was back": {
			[]Part{
				{"r1", []Stretch{media(7, 0, 500)}, []Gap{gap(500, 900, interrupted)}},
				{"r2", []Stretch{media(8, 2000, 3000)}, nil}},
			`0-500:1 2000-3000:2 | interrupted 500-900 "r1"-"r2" `},
		"who was down, and went on": {
			[]Part{
				{"r1", []Stretch{media(7, 0, 500), media(7, 1500, 2000)}, []Gap{gap(500, 1500, interrupted)}},
				{"r2", nil, []Gap{gap(400, 1100, failover)}}},
			`0-500:1 1500-2000:1 | interrupted 500-1500 "r1"-"r1" `},
		"who had it later had it later": {
			[]Part{{"r1", []Stretch{media(7, 3000, 4000)}, nil}, {"r2", []Stretch{media(8, 1240, 2000)}, []Gap{gap(0, 1240, unattached)}}},
			`1240-2000:2 3000-4000:1 | unattached 0-1240 ""-"r2" `},
		"two of whom neither was known to have it": {
			[]Part{{"r1", nil, []Gap{gap(0, 500, unattached)}}, {"r2", []Stretch{media(8, 1240, 2000)}, []Gap{gap(200, 1240, unattached)}}},
			`1240-2000:2 | unattached 0-500 ""-"r2" | unattached 500-1240 ""-"r2" `},
		"a clock's sliver is no gap": {
			[]Part{{"r1", []Stretch{media(7, 0, 1000)}, nil}, {"r2", []Stretch{media(8, 2000, 3000)}, []Gap{gap(990, 1005, call.CauseOutage)}}},
			`0-1000:1 2000-3000:2 `},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Join(noon, c.parts).String(); got != c.want {
				t.Errorf("%s\nwant: %s", got, c.want)
			}
		})
	}
}

// A day of a clock that runs 50 millionths fast does not tear a timeline, and
// a hole is told by the clock of the media beside it.
func TestDrift(t *testing.T) {
	day := Part{Recorder: "r1"}
	const quarter = 15 * 60 * Rate
	for n := range int64(96) {
		real := func(at int64) time.Time { return noon.Add(length(at) + length(at)/20_000) }
		lost := n / 95 * 800 // in the last one's first tenth
		day.Stretches = append(day.Stretches, Stretch{SSRC: 7, TS: uint32(n*quarter + lost), From: real(n*quarter + lost), To: real((n + 1) * quarter), Samples: quarter - lost})
		if lost > 0 {
			day.Gaps = append(day.Gaps, Gap{real(n * quarter), real(n*quarter + lost), call.CauseLoss})
		}
	}
	tl := Join(noon, []Part{day})
	if last := tl.Pieces[95]; last.End() != 96*quarter || len(tl.Holes) != 1 {
		t.Fatalf("%+v, %v", last, tl.Holes)
	}
	if h := tl.Holes[0]; h.At != 95*quarter || h.Samples != 800 || !h.From.Equal(day.Stretches[94].To) {
		t.Errorf("%+v", h)
	}
}

// packet is one that was sent.
type packet struct {
	seq         uint16
	at, samples int64 // since the first
}

// stream is what a sender sent: packets, and silences between them in which
// no sequence number is used.
type stream struct {
	ssrc, ts uint32
	packets  []packet
}

func drawStream(t *rapid.T) stream {
	s := stream{ssrc: rapid.Uint32().Draw(t, "ssrc"), ts: rapid.SampledFrom([]uint32{0, 1 << 31, 0xFFFFF000}).Draw(t, "ts")}
	seq := rapid.SampledFrom([]uint16{0, 65520, 32760}).Draw(t, "seq")
	size := rapid.SampledFrom([]int64{80, 160, 240}).Draw(t, "samples")
	at := int64(0)
	for n := range rapid.IntRange(1, 60).Draw(t, "packets") {
		if n > 0 && rapid.IntRange(0, 9).Draw(t, "silent") == 0 {
			at += size * rapid.Int64Range(1, 100).Draw(t, "silence")
		}
		s.packets = append(s.packets, packet{seq + uint16(n), at, size})
		at += size
	}
	return s
}

// held is which packets each recorder got: some intervals, with losses.
func drawHeld(t *rapid.T, packets int) [][]bool {
	held := make([][]bool, rapid.IntRange(1, 3).Draw(t, "recorders"))
	for r := range held {
		held[r] = make([]bool, packets)
		for range rapid.IntRange(1, 2).Draw(t, "times") {
			from := rapid.IntRange(0, packets-1).Draw(t, "from")
			to := rapid.IntRange(from, packets-1).Draw(t, "to")
			for n := from; n <= to; n++ {
				held[r][n] = rapid.IntRange(0, 9).Draw(t, "lost") > 0
			}
		}
	}
	return held
}

// part is what a recorder tells of the packets it got, by a clock that is off.
func (s stream) part(name string, held []bool, off time.Duration) Part {
	p := Part{Recorder: name}
	begin := noon.Add(off)
	last := -1
	for n, k := range s.packets {
		if !held[n] {
			continue
		}
		from := begin.Add(length(k.at))
		if last >= 0 {
			before := s.packets[last]
			if end := begin.Add(length(before.at + before.samples)); n-last > 1 {
				p.Gaps = append(p.Gaps, Gap{end, from, call.CauseLoss})
			}
		}
		if last < 0 || s.packets[last].at+s.packets[last].samples != k.at {
			p.Stretches = append(p.Stretches, Stretch{SSRC: s.ssrc, TS: s.ts + uint32(k.at), From: from, First: Sequence{k.seq, true}})
		}
		now := &p.Stretches[len(p.Stretches)-1]
		now.Samples += k.samples
		now.To, now.Last = begin.Add(length(k.at+k.samples)), Sequence{k.seq, true}
		last = n
	}
	return p
}

// cut draws a stream and what several recorders tell of it. Who began late
// says that it goes on for another.
func cut(t *rapid.T) (stream, []Part, []bool) {
	s := drawStream(t)
	held := drawHeld(t, len(s.packets))
	somebody := make([]bool, len(s.packets))
	for _, h := range held {
		for n, got := range h {
			somebody[n] = somebody[n] || got
		}
	}
	first := slices.Index(somebody, true)
	var parts []Part
	for r, h := range held {
		off := time.Duration(rapid.Int64Range(-2e8, 2e8).Draw(t, "clock"))
		p := s.part(fmt.Sprint("rec-", r+1), h, off)
		if mine := slices.Index(h, true); mine > first {
			since := rapid.Int64Range(s.packets[first].at, s.packets[mine].at).Draw(t, "since")
			p.Gaps = append([]Gap{{noon.Add(off + length(since)), p.Stretches[0].From, call.CauseFailover}}, p.Gaps...)
		}
		parts = append(parts, p)
	}
	return s, parts, somebody
}

// missing are the holes between the packets that somebody has.
func (s stream) missing(somebody []bool) []span {
	var holes []span
	last := -1
	for n, k := range s.packets {
		if !somebody[n] {
			continue
		}
		if last >= 0 && n-last > 1 {
			holes = append(holes, span{s.packets[last].at + s.packets[last].samples, k.at})
		}
		last = n
	}
	return holes
}

// checkMedia holds a timeline's pieces against what somebody has: all of it,
// once, each sample at its place. It returns where the stream's begin is.
func checkMedia(t *rapid.T, s stream, parts []Part, somebody []bool, tl Timeline) (origin int64) {
	if len(tl.Pieces) == 0 {
		if slices.Contains(somebody, true) {
			t.Fatal("no piece")
		}
		return 0
	}
	begin := func(p Piece) int64 { return int64(parts[p.Part].Stretches[p.Stretch].TS-s.ts) + p.Skip }
	origin = tl.Pieces[0].At - begin(tl.Pieces[0])
	there := map[int64]bool{}
	for _, p := range tl.Pieces {
		if p.At-begin(p) != origin || p.Skip < 0 || p.Samples <= 0 || p.Skip+p.Samples > parts[p.Part].Stretches[p.Stretch].Samples {
			t.Fatalf("piece %+v holds the samples from %d on, origin %d", p, begin(p), origin)
		}
		for at := p.At; at < p.End(); at += 16 {
			if there[at-origin] {
				t.Fatalf("sample %d is there twice", at-origin)
			}
			there[at-origin] = true
		}
	}
	want := 0
	for n, k := range s.packets {
		for at := k.at; somebody[n] && at < k.at+k.samples; at += 16 {
			if want++; !there[at] {
				t.Fatalf("sample %d is not there", at)
			}
		}
	}
	if len(there) != want {
		t.Fatalf("%d samples, want %d", len(there), want)
	}
	return origin
}

// However a stream was cut: stitched it is the original, sample for sample,
// and its holes are exactly what nobody has.
func TestCutAndJoin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, parts, somebody := cut(t)
		tl := Join(noon, parts)
		origin := checkMedia(t, s, parts, somebody, tl)
		var got []span
		for _, h := range tl.Holes {
			got = append(got, span{h.At - origin, h.End() - origin})
			if h.Before == "" || h.After == "" || h.To.Sub(h.From) != length(h.Samples) {
				t.Errorf("hole %+v", h)
			}
		}
		if want := s.missing(somebody); !slices.Equal(got, want) {
			t.Errorf("holes %v, want %v\n%+v", got, want, parts)
		}
	})
}

// When sequence numbers are not known, nothing is missing without a hole, and
// no hole lies over media.
func TestCutAndJoinUnnumbered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, parts, somebody := cut(t)
		for p := range parts {
			for n := range parts[p].Stretches {
				parts[p].Stretches[n].First, parts[p].Stretches[n].Last = Sequence{}, Sequence{}
			}
			for n, g := range parts[p].Gaps {
				if g.Cause == call.CauseFailover { // the bound reaches back to the last that anybody knew
					parts[p].Gaps[n].From = parts[p].Stretches[0].From.Add(-time.Minute)
				}
			}
		}
		tl := Join(noon, parts)
		origin := checkMedia(t, s, parts, somebody, tl)
		var rows []row
		for _, h := range tl.Holes {
			rows = append(rows, row{span: span{h.At - origin, h.End() - origin}})
			for _, p := range tl.Pieces {
				if h.At < p.End() && p.At < h.End() {
					t.Errorf("hole %+v over piece %+v", h, p)
				}
			}
		}
		for _, m := range s.missing(somebody) {
			if left := m.minus(rows); len(left) > 0 {
				t.Errorf("%v is missing and in no hole\n%+v\n%v", left, parts, tl)
			}
		}
	})
}
