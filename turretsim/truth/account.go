package truth

import (
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"time"

	"tandem/internal/call"
	"tandem/internal/media"
	"tandem/internal/tone"
	"tandem/turretsim/voice"
)

// PacketSamples is the samples of one packet, 20 ms.
const PacketSamples = 160

// Account is a truth log read whole. It is safe for concurrent use.
type Account struct {
	Origin   time.Time // of the media clock's sample 0
	Voice    string
	late     time.Duration
	channels map[string]*spoken
	legs     map[string]*Leg
	speakers map[sourceKey]*voice.Speaker
}

type sourceKey struct{ device, source string }

// spoken is one channel: who is mixed on it and what of that was sent.
type spoken struct {
	id       string
	mixID    string // of the channel and its copies
	copy     call.Copy
	mix      voice.Mix // to be copied: it keeps a buffer
	sources  []tone.Source
	ranges   []sent // by first sample
	withheld []span // of them, what never reached the wire
	path     path
	turns    []time.Time // when the path was another than before
}

// path is how and where a channel is sent.
type path struct{ dialog, to string }

// sent is packets sent without a break, [from, to) on the media clock, the
// first due at that instant.
type sent struct {
	from, to int64
	at       time.Time
	codec    media.Codec
}

// Leg is one leg as the switch knew it.
type Leg struct {
	ID, Call, Device string
	Parts            []LegPart // one, and one more for each move
}

// LegPart is a leg on one source; To is 0 while it lasts.
type LegPart struct {
	Source   string
	Channels []string
	From, To int64 // samples on the media clock
}

// Load reads a truth log. It may still be written to: what is read is what
// had happened up to some moment.
func Load(path string) (*Account, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load truth log: %w", err)
	}
	defer f.Close()
	return Read(f)
}

// Read is Load for a log that is no file.
func Read(r io.Reader) (*Account, error) {
	b := builder{
		account: &Account{channels: map[string]*spoken{}, legs: map[string]*Leg{}, speakers: map[sourceKey]*voice.Speaker{}},
		clips:   map[string]*voice.Clip{},
	}
	if err := readLines(r, b.line); err != nil {
		return nil, err
	}
	if b.account.Origin.IsZero() {
		return nil, fmt.Errorf("read truth log: no line of type %q", TypeStart)
	}
	for _, c := range b.account.channels {
		slices.SortFunc(c.ranges, func(x, y sent) int { return int(x.from - y.from) })
	}
	return b.account, nil
}

// builder makes an account of lines.
type builder struct {
	account *Account
	clips   map[string]*voice.Clip
}

func (b *builder) line(l Line) error {
	a := b.account
	switch l.Type {
	case TypeStart:
		a.Origin, a.Voice = l.Origin, l.Voice
	case TypeChannel:
		return b.channel(l)
	case TypePackets:
		return b.packets(l)
	case TypeWithheld:
		if c := b.account.channels[l.Channel]; c != nil {
			c.withheld = append(c.withheld, span{l.Sample, l.Sample + int64(l.Packets)*PacketSamples})
		}
	case TypeUtterance:
		return b.utterance(l)
	case TypeHush:
		if s := a.speakers[sourceKey{l.Device, l.Source}]; s != nil {
			s.Hush(l.Sample)
		}
	case TypeLeg:
		b.leg(l)
	}
	return nil
}

func (b *builder) channel(l Line) error {
	c := &spoken{id: l.Channel, mixID: l.Session + "." + l.Mix, copy: call.Copy(l.Copy)}
	for _, name := range l.Sources {
		s, err := b.speaker(l.Device, name)
		if err != nil {
			return err
		}
		c.sources = append(c.sources, s.Source)
		if b.account.Voice != VoiceTones {
			c.mix.Speakers = append(c.mix.Speakers, s)
		}
	}
	if b.account.Voice == VoiceTones {
		c.mix.Steady = c.sources
	}
	b.account.channels[l.Channel] = c
	return nil
}

func (b *builder) speaker(device, source string) (*voice.Speaker, error) {
	key := sourceKey{device, source}
	if s := b.account.speakers[key]; s != nil {
		return s, nil
	}
	named, err := tone.NewSource(device, source)
	if err != nil {
		return nil, err
	}
	s := &voice.Speaker{Source: named}
	b.account.speakers[key] = s
	return s, nil
}

// packets adds a range, to the one before when nothing is between them.
func (b *builder) packets(l Line) error {
	c := b.account.channels[l.Channel]
	if c == nil {
		return fmt.Errorf("packets of unknown channel %q", l.Channel)
	}
	b.account.late = max(b.account.late, time.Duration(l.Late)*time.Millisecond)
	if l.Stray {
		return nil // after the BYE nobody owes us a recording
	}
	const most, far = 1 << 20, 1 << 50 // a hundred times a range, a thousand years
	if l.Packets < 1 || l.Packets > most || l.Sample < -far || l.Sample > far {
		return fmt.Errorf("%d packets from sample %d on", l.Packets, l.Sample)
	}
	codec, err := media.ParseCodec(l.Codec)
	if err != nil {
		return err
	}
	c.follow(path{l.Dialog, l.To}, l.At)
	next := sent{from: l.Sample, to: l.Sample + int64(l.Packets)*PacketSamples, at: l.At, codec: codec}
	if n := len(c.ranges); n > 0 {
		if last := &c.ranges[n-1]; last.to == next.from && last.codec == codec && last.wall(last.to).Equal(next.at) {
			last.to = next.to
			return nil
		}
	}
	c.ranges = append(c.ranges, next)
	return nil
}

// follow notes how the channel is sent from an instant on.
func (c *spoken) follow(p path, at time.Time) {
	if c.path != p && c.path != (path{}) {
		c.turns = append(c.turns, at)
	}
	c.path = p
}

func (b *builder) utterance(l Line) error {
	s, err := b.speaker(l.Device, l.Source)
	if err != nil {
		return err
	}
	u := voice.Utterance{From: l.Sample, To: voice.Forever}
	if l.Until != 0 {
		u.To = l.Until
	}
	if l.Clip != "" {
		if b.clips[l.Clip] == nil {
			if b.clips[l.Clip], err = voice.LoadClip(l.Clip); err != nil {
				return err
			}
		}
		u.Clip = b.clips[l.Clip]
	}
	s.Say(u)
	return nil
}

func (b *builder) leg(l Line) {
	leg := b.account.legs[l.Leg]
	if leg == nil {
		leg = &Leg{ID: l.Leg, Call: l.Call, Device: l.Device}
		b.account.legs[l.Leg] = leg
	}
	if n := len(leg.Parts); n > 0 {
		leg.Parts[n-1].To = l.Sample
	}
	if l.State == "left" {
		return
	}
	part := LegPart{Source: l.Source, From: l.Sample}
	for _, m := range l.Media {
		part.Channels = append(part.Channels, m.Channel)
	}
	leg.Parts = append(leg.Parts, part)
}

// Channels are the ids of all channels that were ever offered, sorted.
func (a *Account) Channels() []string {
	ids := make([]string, 0, len(a.channels))
	for id := range a.channels {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Legs are all legs in the order of their ids.
func (a *Account) Legs() []Leg {
	legs := make([]Leg, 0, len(a.legs))
	for _, l := range a.legs {
		legs = append(legs, *l)
	}
	slices.SortFunc(legs, func(x, y Leg) int {
		if x.ID < y.ID {
			return -1
		}
		return 1
	})
	return legs
}

// Late is the most by which a packet left after it was due. What is sent late
// arrives late: a recorder's clock may be off by as much.
func (a *Account) Late() time.Duration { return a.late }

// Wall is when a sample of the media clock is due.
func (a *Account) Wall(sample int64) time.Time {
	return a.Origin.Add(time.Duration(sample) * sampleTime)
}

const sampleTime = time.Second / tone.Rate

// toSamples is a length of time in samples, to the nearest.
func toSamples(d time.Duration) int64 { return int64(d.Round(sampleTime) / sampleTime) }

// wall is when a sample of the range was sent, which by a drifting clock is
// not when it was due.
func (r *sent) wall(sample int64) time.Time {
	return r.at.Add(time.Duration(sample-r.from) * sampleTime)
}

// wall is when a sample was sent, or would have been.
func (c *spoken) wall(a *Account, sample int64) time.Time {
	i := sort.Search(len(c.ranges), func(i int) bool { return c.ranges[i].from > sample })
	if i > 0 {
		return c.ranges[i-1].wall(sample)
	}
	if len(c.ranges) > 0 {
		return c.ranges[0].wall(sample)
	}
	return a.Wall(sample)
}

// sample is the inverse of wall.
func (c *spoken) sample(a *Account, at time.Time) int64 {
	i := sort.Search(len(c.ranges), func(i int) bool { return c.ranges[i].at.After(at) })
	switch {
	case i > 0:
		r := &c.ranges[i-1]
		return r.from + toSamples(at.Sub(r.at))
	case len(c.ranges) > 0:
		r := &c.ranges[0]
		return r.from + toSamples(at.Sub(r.at))
	}
	return toSamples(at.Sub(a.Origin))
}
