package compact

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tandem/internal/call"
	"tandem/internal/media"
	"tandem/recorder/catalog"
	"tandem/recorder/journaltest"
)

// post is a line whose packets are some time on their way, so that they come
// in another order than they were sent, and in bursts.
type post struct {
	*line
	way  []letter
	came map[uint16]time.Time // packets by number
}

// letter is a packet on its way; its own at is when it was sent.
type letter struct {
	sent
	comes time.Time
}

// post is the first line of a floor, begun far from the end of a slot.
func (f *floor) post() *post {
	f.now = f.now.Truncate(time.Hour).Add(10 * time.Minute)
	return &post{line: f.line(media.PCMU), came: map[uint16]time.Time{}}
}

// send sends n packets from the floor's now on, 20 ms apart; delay says how
// long each is on its way.
func (f *floor) send(p *post, n int, delay func(i int) time.Duration) {
	for i := range n {
		s := p.next(f.now, "")
		p.way = append(p.way, letter{s, s.at.Add(delay(i))})
		f.now = f.now.Add(20 * time.Millisecond)
	}
}

// deliver journals what has come by now in the order in which it came.
func (f *floor) deliver(p *post) {
	slices.SortStableFunc(p.way, func(a, b letter) int { return a.comes.Compare(b.comes) })
	n, _ := slices.BinarySearchFunc(p.way, f.now, func(l letter, now time.Time) int { return cmp.Compare(l.comes.UnixNano(), now.UnixNano()+1) })
	var packets []sent
	for _, l := range p.way[:n] {
		p.came[l.seq], l.at = l.comes, l.comes
		packets = append(packets, l.sent)
	}
	f.arrive(p.line, packets...)
	p.way = slices.Delete(p.way, 0, n)
}

// compact closes the journal's file and waits until that may be compacted.
func (f *floor) compact(p *post) {
	f.deliver(p)
	f.rotate()
	f.now = f.now.Add(f.cfg.PreRoll + f.cfg.Lateness)
	f.deliver(p)
	f.step()
}

func onTime(int) time.Duration { return 0 }

// stalled is a sender that did nothing for a time and then sends all at once.
func stalled(d time.Duration) func(int) time.Duration {
	return func(i int) time.Duration { return max(d-time.Duration(i)*20*time.Millisecond, 0) }
}

// overtakes is for how long packets may be on their way while others overtake
// them: those of 2.5 s are remembered.
const overtakes = 2400 * time.Millisecond

// slow is a network that keeps everything for the same time.
func slow(d time.Duration) func(int) time.Duration { return func(int) time.Duration { return d } }

// Audio that comes seconds after it was sent, for whatever reason, and belongs to a call by when it was sent or by when it came, is kept.
func TestLateAudioOfACall(t *testing.T) {
	const second, d = 50, 4900 * time.Millisecond
	for _, c := range []struct {
		name     string
		from, to float64 // of the call, in seconds
		talk     func(f *floor, p *post)
	}{
		{"a new stream that begins late, behind the call", -5, 1, func(f *floor, p *post) { f.send(p, 8*second, stalled(d)) }},
		{"a new stream that begins late, in the call", 1, 8, func(f *floor, p *post) { f.send(p, 8*second, stalled(d)) }},
		{"a new stream that begins late, a call after it", 4, 6, func(f *floor, p *post) { f.send(p, 8*second, stalled(d)) }},
		{"late after a long silence", 60, 61, func(f *floor, p *post) {
			f.send(p, second, onTime)
			f.silence(60 * time.Second)
			f.send(p, 8*second, stalled(d))
		}},
		{"a word after a long silence", 58, 60.5, func(f *floor, p *post) {
			f.send(p, second, onTime)
			f.silence(59 * time.Second)
			f.send(p, second/2, slow(d))
			f.silence(30 * time.Second)
			f.send(p, second, onTime)
		}},
		{"late at the end of a call", 5, 9, func(f *floor, p *post) {
			f.send(p, 7*second, onTime)
			f.send(p, 8*second, stalled(d))
		}},
		{"late at the begin of a call", 11, 15, func(f *floor, p *post) {
			f.send(p, 6*second, onTime)
			f.send(p, 8*second, stalled(d))
		}},
		{"overtaken", 5, 7, func(f *floor, p *post) {
			f.send(p, 6*second, onTime)
			f.send(p, 2*second, slow(overtakes))
			f.send(p, 8*second, onTime)
		}},
		{"every other one overtaken", 5, 8, func(f *floor, p *post) {
			f.send(p, 15*second, func(i int) time.Duration { return time.Duration(i%2) * overtakes })
		}},
		{"late for long", 25, 27, func(f *floor, p *post) {
			f.send(p, second, onTime)
			f.send(p, 35*second, slow(d))
		}},
		{"its end is lost, and all that follows is late", 4.1, 4.15, func(f *floor, p *post) {
			f.send(p, 6*second, onTime)
			f.lose(p.line, 4*second, call.CauseLoss)
			for range 3 {
				f.send(p, second/2, slow(overtakes))
				f.compact(p)
			}
		}},
		{"late from the begin, as the sender's reports say", 12, 14, func(f *floor, p *post) {
			for range 4 {
				f.send(p, 5*second, slow(d))
				f.deliver(p)
				f.report(p.line, 0)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFloor(t, t.TempDir(), func(c *Config) { c.KeepAll, c.Slot = false, time.Hour })
			defer f.close()
			p := f.post()
			base := f.now
			sec := func(n float64) time.Time { return base.Add(time.Duration(n * float64(time.Second))) }
			leg := catalog.Leg{ID: "l", Channels: []string{string(p.ID)}, Start: sec(c.from), End: sec(c.to)}
			if err := f.cat.PutRecords(t.Context(), nil, []catalog.Leg{leg}, nil); err != nil {
				t.Fatal(err)
			}
			c.talk(f, p)
			f.silence(d)
			f.deliver(p)
			f.check(f.end(), p.kept(f.cfg, []catalog.Window{{From: leg.Start, To: leg.End}}))
		})
	}
}

// Whatever keeps packets, a sender for up to five seconds or a network in which
// others overtake them, and wherever calls are: all that was sent or came in one
// is kept where it was sent, and nothing but what was lost is missing.
func TestLateAudioAgainstModel(t *testing.T) {
	dir, n := journaltest.Memory(t), 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		own := filepath.Join(dir, fmt.Sprint(n))
		if err := os.Mkdir(own, 0o750); err != nil {
			t.Fatal(err)
		}
		f := newFloor(t, own, func(c *Config) { c.KeepAll, c.Slot = false, time.Hour })
		defer os.RemoveAll(own)
		defer f.close()
		p := f.post()
		var calls []catalog.Window
		var legs []catalog.Leg
		at := f.now
		for i := range rapid.IntRange(1, 3).Draw(t, "calls") {
			at = at.Add(time.Duration(rapid.IntRange(0, 10_000).Draw(t, "pause")) * time.Millisecond)
			w := catalog.Window{From: at, To: at.Add(time.Duration(rapid.IntRange(0, 10_000).Draw(t, "length")) * time.Millisecond)}
			legs = append(legs, catalog.Leg{ID: call.LegID(fmt.Sprint(i)), Channels: []string{string(p.ID)}, Start: w.From, End: w.To})
			calls, at = append(calls, w), w.To
		}
		if err := f.cat.PutRecords(context.Background(), nil, legs, nil); err != nil {
			t.Fatal(err)
		}
		// How late a stream has been ever since it began nobody can know: this one soon is not.
		f.send(p, 300, stalled(time.Duration(rapid.IntRange(0, 4_900).Draw(t, "late at first"))*time.Millisecond))
		for range rapid.IntRange(1, 4).Draw(t, "stretches") {
			d := time.Duration(rapid.IntRange(0, int(overtakes.Milliseconds())).Draw(t, "late")) * time.Millisecond
			packets := rapid.IntRange(2, 400).Draw(t, "packets")
			switch rapid.IntRange(0, 5).Draw(t, "way") {
			case 0:
				f.send(p, packets, onTime)
			case 1:
				f.send(p, packets, stalled(d))
			case 2:
				f.send(p, packets, slow(d))
			case 3:
				every := rapid.IntRange(2, 100).Draw(t, "every")
				f.send(p, packets, func(i int) time.Duration { return time.Duration(i%every/(every-1)) * d })
			case 4:
				f.silence(time.Duration(rapid.IntRange(1, 60_000).Draw(t, "silence")) * time.Millisecond)
				f.send(p, 2, onTime)
			case 5:
				f.send(p, 1, onTime) // what is lost beside a silence may have been anywhere in it
				f.lose(p.line, packets, call.CauseLoss)
				f.send(p, 2, slow(d))
			}
			if rapid.Bool().Draw(t, "compact") {
				f.compact(p)
			}
		}
		f.silence(5 * time.Second)
		f.deliver(p)
		f.check(f.end(), p.kept(f.cfg, calls))
	})
}

// kept says what must become of a sample by when its packet was sent and when it
// came: what either has in a call or its rolls is kept; and what cannot have
// been sent in one, however late it was, is not.
func (p *post) kept(cfg Config, calls []catalog.Window) keptAt {
	in := func(from, to time.Time, slack time.Duration) bool {
		return slices.ContainsFunc(calls, func(w catalog.Window) bool {
			return from.Before(w.To.Add(cfg.PostRoll+slack)) && to.After(w.From.Add(-cfg.PreRoll-slack))
		})
	}
	return func(l *line, at time.Time) (kept, sure bool) {
		const packet, longest = 20 * time.Millisecond, 5 * time.Second
		i, exact := slices.BinarySearchFunc(l.sent, at, func(s sent, at time.Time) int { return s.at.Compare(at) })
		if !exact {
			i--
		}
		came := p.came[l.sent[i].seq].Add(at.Sub(l.sent[i].at))
		if in(at, at, -packet) || in(came, came, -packet) {
			return true, true
		}
		return false, !in(at.Add(-longest), came, packet)
	}
}
