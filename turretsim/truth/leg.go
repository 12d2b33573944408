package truth

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"tandem/internal/media"
)

// LegCheck is how an exported leg compares with what was spoken.
type LegCheck struct {
	// Begins and Ends say how many samples after the leg's own begin and end
	// the export's are; negative is before.
	Begins, Ends int64
	// Differences are stretches of the export that are not what was spoken.
	Differences []Difference
}

// Difference is part of an export, from its beginning.
type Difference struct {
	At, Length time.Duration
	Silent     bool // nothing is there, rather than something else
}

// OK says that the export is exact, and within one packet at both ends.
func (c LegCheck) OK() bool {
	return max(c.Begins, -c.Begins) <= PacketSamples && max(c.Ends, -c.Ends) <= PacketSamples && len(c.Differences) == 0
}

func (c LegCheck) String() string {
	if c.OK() {
		return fmt.Sprintf("exact, begins %+d and ends %+d samples off", c.Begins, c.Ends)
	}
	return fmt.Sprintf("begins %+d and ends %+d samples off, differs at %v", c.Begins, c.Ends, c.Differences)
}

// CheckLeg compares an exported leg, one byte of G.711 a sample, with what was
// spoken on the leg's channels from its begin to its end. A leg that moved is
// heard on one channel after another. The leg must be over.
func (a *Account) CheckLeg(leg string, codec media.Codec, export []byte) (LegCheck, error) {
	l := a.legs[leg]
	if l == nil {
		return LegCheck{}, fmt.Errorf("check leg %q: the switch knew no such leg", leg)
	}
	first, last := l.Parts[0], l.Parts[len(l.Parts)-1]
	if last.To == 0 {
		return LegCheck{}, fmt.Errorf("check leg %q: it is not over", leg)
	}
	// Room at both ends for an export that begins too early or ends too late.
	const room = 4 * PacketSamples
	want, err := a.hear(l, codec, first.From-room, last.To+room)
	if err != nil {
		return LegCheck{}, err
	}
	at, ok := placeOf(export, want, codec)
	if !ok {
		return LegCheck{}, fmt.Errorf("check leg %q: nothing in the export was spoken on it", leg)
	}
	check := LegCheck{Begins: at - room, Ends: at + int64(len(export)) - room - (last.To - first.From)}
	check.Differences = differences(export, want, at, codec)
	return check, nil
}

// hear is all that was spoken on a leg's channels in [from, to).
func (a *Account) hear(l *Leg, codec media.Codec, from, to int64) ([]byte, error) {
	want := make([]byte, to-from)
	for i, part := range l.Parts {
		if len(part.Channels) == 0 {
			return nil, fmt.Errorf("check leg %q: no channel held %s", l.ID, part.Source)
		}
		c := a.channels[part.Channels[0]] // its copies hold the same
		if c == nil {
			return nil, fmt.Errorf("check leg %q: unknown channel %q", l.ID, part.Channels[0])
		}
		begin, end := part.From, part.To
		if i == 0 {
			begin = from
		}
		if i == len(l.Parts)-1 {
			end = to
		}
		mix := c.mix
		mix.Fill(want[begin-from:end-from], codec, begin)
	}
	return want, nil
}

// placeOf finds where in want the export begins, by its first block that
// sounds and is found.
func placeOf(export, want []byte, codec media.Codec) (int64, bool) {
	blocks := slices.Collect(slices.Chunk(export, PacketSamples))
	for i, block := range blocks {
		if len(block) < shortest || silent(block, codec) {
			continue
		}
		if at := bytes.Index(want, block); at >= 0 {
			return int64(at) - int64(i*PacketSamples), true
		}
	}
	return 0, false
}

// differences compares the export, laid at that place, by 10 ms.
func differences(export, want []byte, at int64, codec media.Codec) (found []Difference) {
	const step = PacketSamples / 2
	for from := int64(0); from < int64(len(export)); from += step {
		got := export[from:min(int64(len(export)), from+step)]
		begin, end := at+from, at+from+int64(len(got))
		if begin >= 0 && end <= int64(len(want)) && bytes.Equal(got, want[begin:end]) {
			continue
		}
		d := Difference{At: time.Duration(from) * sampleTime, Length: time.Duration(len(got)) * sampleTime, Silent: silent(got, codec)}
		if n := len(found) - 1; n >= 0 && found[n].At+found[n].Length == d.At && found[n].Silent == d.Silent {
			found[n].Length += d.Length
			continue
		}
		found = append(found, d)
	}
	return found
}
