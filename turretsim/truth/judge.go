package truth

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"sort"
	"time"

	"tandem/internal/media"
	"tandem/internal/tone"
	"tandem/turretsim/voice"
)

// Stretch is recorded audio of one channel without a break.
type Stretch struct {
	From    time.Time // when the recorder says its first sample was
	Codec   media.Codec
	Samples []byte // G.711
}

// Gap is time of one channel that the recorder says is missing.
type Gap struct {
	From, To time.Time
	Cause    string
}

// Verdict is what a recording holds of what was sent. Sent is recorded, in a
// stated gap, or unexplained; the rest are things that should be zero.
type Verdict struct {
	SentMS        int64            `json:"sent_ms"`
	RecordedMS    int64            `json:"recorded_ms"`
	GapMS         int64            `json:"gap_ms"`         // missing, and stated
	UnexplainedMS int64            `json:"unexplained_ms"` // missing or misplaced, and nobody says so
	DuplicatedMS  int64            `json:"duplicated_ms"`  // in the recording once more
	MisplacedMS   int64            `json:"misplaced_ms"`   // of the unexplained: there, at a wrong instant
	ForeignMS     int64            `json:"foreign_ms"`     // recorded sound that this channel never sent
	WithheldMS    int64            `json:"withheld_ms"`    // of the sent, what the switch kept from the wire on purpose
	MaxSkewMS     float64          `json:"max_skew_ms"`    // the recorder's clock against the switch's
	GapsMS        map[string]int64 `json:"gaps_ms,omitempty"`
	Findings      []string         `json:"findings,omitempty"` // the first of what is wrong
}

// Judge holds recordings against an account. One goroutine at a time.
type Judge struct {
	// From and To bound what is judged, by the time it was sent; zero is no bound.
	From, To time.Time
	// Tolerance is how far from its instant audio may lie before it counts as
	// misplaced. An arrival clock is off by as much as the network and the
	// sender are late; what the account says of the sender is in it.
	Tolerance time.Duration

	account *Account
	done    map[string]tally
}

// tolerance forgives a busy machine the lateness that no account knows of.
const tolerance = 100 * time.Millisecond

// NewJudge judges by this account.
func (a *Account) NewJudge() *Judge {
	return &Judge{Tolerance: tolerance + a.late, account: a, done: map[string]tally{}}
}

// tally is a verdict in samples.
type tally struct {
	sent, recorded, gap, unexplained, duplicated, misplaced, foreign, withheld int64
	skew                                                                       time.Duration
	gaps                                                                       map[string]int64
	findings                                                                   []string
}

const maxFindings = 20

func (t *tally) find(format string, args ...any) {
	if len(t.findings) < maxFindings {
		t.findings = append(t.findings, fmt.Sprintf(format, args...))
	}
}

func milliseconds(samples int64) int64 { return (samples + 4) / 8 }

func (t tally) verdict() Verdict {
	v := Verdict{
		SentMS: milliseconds(t.sent), RecordedMS: milliseconds(t.recorded), GapMS: milliseconds(t.gap), UnexplainedMS: milliseconds(t.unexplained),
		DuplicatedMS: milliseconds(t.duplicated), MisplacedMS: milliseconds(t.misplaced), ForeignMS: milliseconds(t.foreign),
		WithheldMS: milliseconds(t.withheld), MaxSkewMS: float64(t.skew.Microseconds()) / 1000, Findings: t.findings, GapsMS: map[string]int64{},
	}
	for cause, n := range t.gaps {
		v.GapsMS[cause] = milliseconds(n)
	}
	return v
}

// Channel judges all there is of one channel. Stretches come in any order
// and must not be judged twice.
func (j *Judge) Channel(id string, stretches []Stretch, gaps []Gap) (Verdict, error) {
	c := j.account.channels[id]
	if c == nil {
		return Verdict{}, fmt.Errorf("judge channel %q: the switch never offered it", id)
	}
	t := j.judge(c, stretches, gaps)
	j.done[id] = t
	return t.verdict(), nil
}

// Total is the sum over all channels. One that was never judged has nothing recorded.
func (j *Judge) Total() Verdict {
	sum := tally{gaps: map[string]int64{}}
	for _, id := range j.account.Channels() {
		t, ok := j.done[id]
		if !ok {
			t = j.judge(j.account.channels[id], nil, nil)
		}
		sum.sent += t.sent
		sum.recorded += t.recorded
		sum.gap += t.gap
		sum.unexplained += t.unexplained
		sum.duplicated += t.duplicated
		sum.misplaced += t.misplaced
		sum.foreign += t.foreign
		sum.withheld += t.withheld
		sum.skew = max(sum.skew, t.skew)
		for cause, n := range t.gaps {
			sum.gaps[cause] += n
		}
		for _, f := range t.findings {
			sum.find("%s", f)
		}
	}
	return sum.verdict()
}

// run is recorded audio that is exactly what was sent at [media, media+n).
type run struct {
	media, n int64
	skew     time.Duration // recorder's time less the switch's
	late     bool          // found after audio of a later instant
}

func (j *Judge) judge(c *spoken, stretches []Stretch, gaps []Gap) tally {
	t := tally{gaps: map[string]int64{}}
	sentAll := c.whole()
	owed := sentAll
	if !j.From.IsZero() || !j.To.IsZero() {
		owed = sentAll.within(j.bounds(c))
	}
	t.sent, t.withheld = total(owed), total(inside(union(c.withheld), owed))

	var runs []run
	for _, s := range stretches {
		w := walk{account: j.account, c: c, stretch: s, sent: sentAll, mix: c.mix}
		w.run()
		runs = append(runs, w.runs...)
		t.foreign += w.foreign
		if w.foreign > 0 {
			t.find("%s: %d ms from %s on hold sound it never sent", c.id, milliseconds(w.foreign), s.From.Add(time.Duration(w.firstForeign)*sampleTime).Format(timeFormat))
		}
	}
	placed := j.place(c, runs, owed, &t)
	t.recorded = total(placed)
	j.explain(c, owed.minus(placed), runs, gaps, &t)
	return t
}

const timeFormat = "15:04:05.000"

func (j *Judge) bounds(c *spoken) span {
	b := span{-1 << 62, 1 << 62}
	if !j.From.IsZero() {
		b.from = c.sample(j.account, j.From)
	}
	if !j.To.IsZero() {
		b.to = c.sample(j.account, j.To)
	}
	return b
}

// place counts every run once: first come is recorded, again is duplicated,
// at a wrong instant is misplaced.
func (j *Judge) place(c *spoken, runs []run, owed spans, t *tally) spans {
	var good, misplaced []span
	var covered spans
	for _, r := range runs {
		whole := span{r.media, r.media + r.n}
		again := total(covered.within(whole))
		t.duplicated += again
		if again > 0 {
			t.find("%s: %d ms of %s are there twice", c.id, milliseconds(again), c.wall(j.account, r.media).Format(timeFormat))
		}
		fresh := spans{whole}.minus(covered)
		covered = covered.with(whole)
		t.skew = max(t.skew, r.skew.Abs())
		if r.late || r.skew.Abs() > j.Tolerance {
			misplaced = append(misplaced, fresh...)
			t.find("%s: %d ms of %s lie %v off", c.id, milliseconds(total(fresh)), c.wall(j.account, r.media).Format(timeFormat), r.skew.Round(time.Millisecond/8))
			continue
		}
		good = append(good, fresh...)
	}
	t.misplaced = total(inside(union(misplaced), owed))
	return inside(union(good), owed)
}

// inside is what of list is in bounds.
func inside(list, bounds spans) spans { return list.minus(list.minus(bounds)) }

// slack is how far the ends of a stated gap may be off: both clocks are
// written in milliseconds.
const slack = 2 * time.Millisecond

// explain counts what is missing as stated or unexplained. The recorder's
// times are read by the recorder's clock: the skew of the audio around.
func (j *Judge) explain(c *spoken, missing spans, runs []run, gaps []Gap, t *tally) {
	byMedia := slices.Clone(runs)
	slices.SortFunc(byMedia, func(a, b run) int { return cmp.Compare(a.media, b.media) })
	for _, m := range missing {
		before, after := skewsAround(byMedia, m)
		left := spans{m}
		for _, g := range gaps {
			stated := span{
				c.sample(j.account, g.From.Add(-before-slack)),
				c.sample(j.account, g.To.Add(-after+slack)),
			}
			in := left.within(stated)
			n := total(in)
			t.gap += n
			if n > 0 {
				t.gaps[g.Cause] += n
			}
			left = left.minus(in)
		}
		t.unexplained += total(left)
		for _, l := range left {
			t.find("%s: %d ms from %s on are missing and no gap says so", c.id, milliseconds(l.length()), c.wall(j.account, l.from).Format(timeFormat))
		}
	}
}

// skewsAround are the skews of the audio just before and just after.
func skewsAround(byMedia []run, m span) (before, after time.Duration) {
	i := sort.Search(len(byMedia), func(i int) bool { return byMedia[i].media >= m.to })
	switch {
	case i > 0 && i < len(byMedia):
		return byMedia[i-1].skew, byMedia[i].skew
	case i > 0:
		return byMedia[i-1].skew, byMedia[i-1].skew
	case i < len(byMedia):
		return byMedia[i].skew, byMedia[i].skew
	}
	return 0, 0
}

// Searching for where recorded audio comes from, in samples.
const (
	near      = 5 * PacketSamples  // a few packets: reordering, duplicates
	around    = 2 * tone.Rate      // a recorder's clock that is off
	anywhere  = 1800 * tone.Rate   // by its tones
	retry     = 5 * PacketSamples  // between two searches around when one fails
	retryFar  = 50 * PacketSamples // between two searches anywhere
	shortest  = 32                 // bytes worth searching for
	syllable  = 4                  // bytes worth searching for where they should be
	listening = 7 * tone.Tenth     // samples to recognise a voice by
)

// walk goes through one stretch and says what of it was sent, and when.
type walk struct {
	account *Account
	c       *spoken
	stretch Stretch
	sent    spans
	mix     voice.Mix

	delta      int64 // media sample of an offset, less the offset
	runs       []run
	reached    int64 // the latest media sample found so far
	tryAround  int64 // offsets before which no such search is made
	tryFar     int64
	unknown    int64 // where foreign sound began; -1: not in it
	foreign    int64 // samples
	isForeign  bool
	want, wide []byte

	firstForeign int64
}

func (w *walk) run() {
	samples := w.stretch.Samples
	w.delta = w.c.sample(w.account, w.stretch.From)
	w.reached, w.unknown = -1<<62, -1
	for at := int64(0); at < int64(len(samples)); {
		piece := w.piece(at+w.delta, int64(len(samples))-at)
		got := samples[at : at+piece]
		switch {
		case bytes.Equal(got, w.voice(at+w.delta, piece)):
			w.take(at, piece)
			w.unknown = -1
			at += piece
		case w.brokenOff(got, at) > 0:
			n := w.brokenOff(got, at)
			w.take(at, n)
			w.unknown = -1
			at += n
		case quietAhead(got, w.stretch.Codec) > 0: // what sounds may begin anywhere
			at += quietAhead(got, w.stretch.Codec)
		case w.realign(at):
			if w.unknown >= 0 { // what was unknown may have been this all along
				at = w.recount(at)
			}
			at = w.quietly(at)
		default:
			w.stranger(at, piece)
			at += piece
		}
	}
}

// brokenOff is how many samples of a piece are what was spoken, when after them it
// is silent: of a packet that one copy lost another may have had a part.
func (w *walk) brokenOff(got []byte, at int64) int64 {
	want := w.voice(at+w.delta, int64(len(got)))
	n := 0
	for n < len(got) && got[n] == want[n] {
		n++
	}
	if rest := int64(len(got) - n); n < syllable || quietAhead(got[n:], w.stretch.Codec) < min(rest, syllable) {
		return 0
	}
	return int64(n)
}

// piece is how far to compare from media sample m: to the end of its packet.
func (w *walk) piece(m, left int64) int64 {
	i := sort.Search(len(w.c.ranges), func(i int) bool { return w.c.ranges[i].to > m })
	end := m + PacketSamples
	if i < len(w.c.ranges) {
		if r := w.c.ranges[i]; r.from <= m {
			end = min(r.to, r.from+((m-r.from)/PacketSamples+1)*PacketSamples)
		} else {
			end = min(end, r.from)
		}
	}
	return min(left, end-m)
}

// voice is what was spoken from media sample m on. The slice is good until the next call.
func (w *walk) voice(m, n int64) []byte {
	w.want = slices.Grow(w.want[:0], int(n))[:n]
	w.mix.Fill(w.want, w.codecAt(m), m)
	return w.want
}

func (w *walk) codecAt(m int64) media.Codec {
	i := sort.Search(len(w.c.ranges), func(i int) bool { return w.c.ranges[i].to > m })
	if i == len(w.c.ranges) {
		i--
	}
	if i < 0 {
		return w.stretch.Codec
	}
	return w.c.ranges[i].codec
}

// quietAhead is how many samples of silence are ahead.
func quietAhead(got []byte, codec media.Codec) int64 {
	quiet := codec.Silence()
	for i, b := range got {
		if b != quiet {
			return int64(i)
		}
	}
	return int64(len(got))
}

func silent(got []byte, codec media.Codec) bool { return quietAhead(got, codec) == int64(len(got)) }

// quietly goes back over silence that was part of what sounds.
func (w *walk) quietly(at int64) int64 {
	quiet := w.stretch.Codec.Silence()
	for at > 0 && w.stretch.Samples[at-1] == quiet && len(w.sent.within(span{at - 1 + w.delta, at + w.delta})) > 0 && w.voice(at-1+w.delta, 1)[0] == quiet {
		at--
	}
	return at
}

// take adds recorded audio that was sent, to the run before when it goes on.
func (w *walk) take(at, n int64) {
	m := at + w.delta
	skew := w.stretch.From.Add(time.Duration(at) * sampleTime).Sub(w.c.wall(w.account, m))
	for _, s := range w.sent.within(span{m, m + n}) {
		late := s.from < w.reached
		w.reached = max(w.reached, s.to)
		if k := len(w.runs) - 1; k >= 0 && !late && w.runs[k].media+w.runs[k].n == s.from && w.runs[k].skew == skew && !w.runs[k].late {
			w.runs[k].n += s.length()
			continue
		}
		w.runs = append(w.runs, run{s.from, s.length(), skew, late})
	}
}

// stranger counts sound that was not sent on this channel.
func (w *walk) stranger(at, n int64) {
	if w.unknown < 0 {
		w.unknown = at
	}
	if !w.isForeign {
		w.isForeign, w.firstForeign = true, at
	}
	w.foreign += n
}

// recount takes back the sound that was called foreign just before, as far as
// it fits the place found now, and returns where to go on.
func (w *walk) recount(at int64) int64 {
	for at > w.unknown {
		n := min(PacketSamples, at-w.unknown)
		if !bytes.Equal(w.stretch.Samples[at-n:at], w.voice(at-n+w.delta, n)) {
			break
		}
		at -= n
		w.foreign -= n
	}
	w.unknown = -1
	return at
}

// realign looks for where the audio at an offset was sent: near first, then
// around, then by the tones anywhere.
func (w *walk) realign(at int64) bool {
	samples := w.stretch.Samples
	block := samples[at:min(int64(len(samples)), at+PacketSamples)]
	if w.locate(block, at) {
		return true
	}
	// Where a packet is the last one the recording goes on silently, whatever
	// was spoken on.
	sounding := sounding(block, w.stretch.Codec)
	return len(sounding) < len(block) && len(sounding) >= syllable && w.search(sounding, at, at+w.delta, near)
}

func (w *walk) locate(block []byte, at int64) bool {
	if len(block) < shortest {
		return false
	}
	if w.search(block, at, at+w.delta, near) {
		return true
	}
	if at < w.tryAround {
		return false
	}
	w.tryAround = at + retry
	if w.search(block, at, at+w.c.sample(w.account, w.stretch.From), around) {
		return true
	}
	if at < w.tryFar {
		return false
	}
	w.tryFar = at + retryFar
	return w.listen(block, at)
}

// sounding is a block without the silence at its end.
func sounding(block []byte, codec media.Codec) []byte {
	n := len(block)
	for n > 0 && block[n-1] == codec.Silence() {
		n--
	}
	return block[:n]
}

// search looks for a block within reach of a media sample.
func (w *walk) search(block []byte, at, m, reach int64) bool {
	w.wide = slices.Grow(w.wide[:0], int(2*reach)+len(block))[:int(2*reach)+len(block)]
	w.mix.Fill(w.wide, w.codecAt(m), m-reach)
	best, found := int64(0), false
	for from := 0; ; { // the nearest of equals
		i := bytes.Index(w.wide[from:], block)
		if i < 0 {
			break
		}
		place := m - reach + int64(from+i)
		if !found || (place-m)*(place-m) < (best-m)*(best-m) {
			best, found = place, true
		}
		from += i + 1
	}
	if found = found && bytes.Equal(block, w.voice(best, int64(len(block)))); found {
		w.delta = best - at
	}
	return found
}

// listen recognises a source of the channel by its tones.
func (w *walk) listen(block []byte, at int64) bool {
	rest := w.stretch.Samples[at:]
	rest = rest[:min(len(rest), listening)]
	linear := make([]int16, len(rest))
	for i, b := range rest {
		linear[i] = w.stretch.Codec.ToLinear(b)
	}
	for _, s := range w.c.sources {
		if m, ok := s.Locate(linear, at+w.delta, anywhere); ok && w.search(block, at, m, near) {
			return true
		}
	}
	return false
}
