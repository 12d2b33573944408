package playback

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"slices"
	"time"

	"tandem/internal/call"
	"tandem/internal/media"
	"tandem/recorder/catalog"
)

// Format is that of an exported file.
type Format string

const (
	WAV  Format = "wav"
	FLAC Format = "flac"
)

// Request says what to export: exactly one of Call, Leg and Channel.
type Request struct {
	Call    call.CallID
	Leg     call.LegID
	Channel call.ChannelID
	Window  catalog.Window // of Channel
	Format  Format         // empty: WAV
}

// Header says what a file will be.
type Header struct {
	Start      time.Time // of the first sample
	Size       int64     // bytes; 0 when not known ahead
	Duration   time.Duration
	Codec      media.Codec // empty: linear PCM
	SampleRate int
	Channels   []call.ChannelID // it is taken from
}

// Trailer says what a file was.
type Trailer struct {
	Gaps   []catalog.Gap // silence in the file that was not silence on the line
	SHA256 string        // hex

	Stretches []Stretch // of a file from one timeline: which samples are media
}

// Export is a file ready to be written. Close it.
type Export struct {
	Header Header

	format  Format
	samples int64
	voices  []voice
	gaps    []catalog.Gap
}

// voice is a timeline and where in the file it begins.
type voice struct {
	*Timeline
	at int64
}

// ErrRequest is a request for nothing, or for several things at a time.
var ErrRequest = errors.New("want exactly one of call, leg and channel, and format wav or flac")

// sampleRate is that of every G.711 channel.
const sampleRate = 8000

// Export finds what is asked for and opens it. Errors wrap catalog.ErrNotFound,
// ErrNoMedia or ErrRequest where they apply.
func (p *Player) Export(ctx context.Context, r Request) (*Export, error) {
	timelines, err := p.open(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	return newExport(cmp.Or(r.Format, WAV), timelines), nil
}

func (p *Player) open(ctx context.Context, r Request) ([]*Timeline, error) {
	asked := 0
	for _, set := range []bool{r.Call != "", r.Leg != "", r.Channel != ""} {
		if set {
			asked++
		}
	}
	if f := cmp.Or(r.Format, WAV); asked != 1 || f != WAV && f != FLAC {
		return nil, ErrRequest
	}
	if r.Channel != "" {
		t, err := p.Timeline(ctx, r.Channel, r.Window)
		return []*Timeline{t}, err
	}
	records, _, err := p.cat.Search(ctx, catalog.Query{Call: r.Call, Leg: r.Leg})
	if err != nil {
		return nil, err
	}
	if len(records) == 0 {
		return nil, fmt.Errorf("call %q leg %q: %w", r.Call, r.Leg, catalog.ErrNotFound)
	}
	legs := make([]catalog.Leg, len(records))
	for i, rec := range records {
		legs[i] = rec.Leg
	}
	return p.legs(ctx, legs)
}

// legs opens the timelines of legs, one for each stretch of each channel: legs
// that share a channel are heard once.
func (p *Player) legs(ctx context.Context, legs []catalog.Leg) (all []*Timeline, err error) {
	defer func() {
		if err != nil {
			closeAll(all)
		}
	}()
	windows := map[call.ChannelID][]catalog.Window{}
	for _, leg := range legs {
		t, err := p.best(ctx, leg)
		if errors.Is(err, ErrNoMedia) {
			continue
		}
		if err != nil {
			return all, err
		}
		t.Close()
		windows[t.Channel] = append(windows[t.Channel], windowOf(leg))
	}
	for channel, ws := range windows {
		for _, w := range union(ws) {
			t, err := p.Timeline(ctx, channel, w)
			if err != nil {
				return all, err
			}
			all = append(all, t)
		}
	}
	if len(all) == 0 {
		return nil, ErrNoMedia
	}
	slices.SortFunc(all, func(a, b *Timeline) int {
		return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(a.Channel, b.Channel))
	})
	return all, nil
}

// windowOf is the interval of a leg; one that lasts has no end.
func windowOf(leg catalog.Leg) catalog.Window {
	return catalog.Window{From: leg.Start, To: leg.Until(time.Time{})}
}

// union joins windows that overlap.
func union(ws []catalog.Window) []catalog.Window {
	slices.SortFunc(ws, func(a, b catalog.Window) int { return a.From.Compare(b.From) })
	out := ws[:1]
	for _, w := range ws[1:] {
		last := &out[len(out)-1]
		switch {
		case last.To.IsZero():
		case w.From.After(last.To):
			out = append(out, w)
		case w.To.IsZero():
			last.To = w.To
		default:
			last.To = later(last.To, w.To)
		}
	}
	return out
}

// best opens the channel that holds most of a leg; among equals the one with
// fewest sources, on which the leg is least mixed with others.
func (p *Player) best(ctx context.Context, leg catalog.Leg) (*Timeline, error) {
	var best *Timeline
	fewest := 0
	for _, id := range leg.Channels {
		t, err := p.Timeline(ctx, call.ChannelID(id), windowOf(leg))
		if errors.Is(err, ErrNoMedia) {
			continue
		}
		if err != nil {
			if best != nil {
				best.Close()
			}
			return nil, err
		}
		attached, err := p.cat.Attachments(ctx, t.Channel, windowOf(leg))
		if err != nil {
			t.Close()
			return nil, err
		}
		sources := math.MaxInt
		if len(attached) > 0 {
			sources = len(attached[len(attached)-1].Sources)
		}
		const frame = 20 * time.Millisecond // less is no difference
		if best == nil || t.Covered > best.Covered+frame || t.Covered > best.Covered-frame && sources < fewest {
			if best != nil {
				best.Close()
			}
			best, fewest = t, sources
		} else {
			t.Close()
		}
	}
	if best == nil {
		return nil, fmt.Errorf("leg %s: %w", leg.ID, ErrNoMedia)
	}
	return best, nil
}

func newExport(format Format, timelines []*Timeline) *Export {
	e := &Export{format: format}
	e.Header.Start, e.Header.SampleRate = timelines[0].Start, sampleRate
	for _, t := range timelines {
		at := int64(t.Start.Sub(e.Header.Start) / (time.Second / sampleRate))
		e.voices = append(e.voices, voice{t, at})
		e.samples = max(e.samples, at+t.Samples)
		e.gaps = append(e.gaps, t.Gaps...)
		if !slices.Contains(e.Header.Channels, t.Channel) {
			e.Header.Channels = append(e.Header.Channels, t.Channel)
		}
	}
	slices.SortFunc(e.gaps, func(a, b catalog.Gap) int { return a.From.Compare(b.From) })
	e.Header.Duration = time.Duration(e.samples) * (time.Second / sampleRate)
	if len(timelines) == 1 && format == WAV {
		e.Header.Codec = timelines[0].Codec
	}
	if format == WAV {
		data := e.samples * int64(e.wavFormat().SampleSize())
		e.Header.Size = media.WAVHeaderSize + data + data%2
	}
	return e
}

func (e *Export) wavFormat() media.WAVFormat {
	return media.WAVFormat{Codec: e.Header.Codec, SampleRate: sampleRate}
}

// Close lets go of the files.
func (e *Export) Close() {
	for _, v := range e.voices {
		v.Close()
	}
}

func closeAll(all []*Timeline) {
	for _, t := range all {
		t.Close()
	}
}

// Write writes the whole file to w, a second of audio at a time.
func (e *Export) Write(ctx context.Context, w io.Writer) (Trailer, error) {
	out := &hashing{w, sha256.New()}
	var err error
	switch {
	case e.format == FLAC:
		err = e.writeFLAC(ctx, out)
	case e.Header.Codec != "":
		err = e.writeNative(ctx, out)
	default:
		err = e.writeLinear(ctx, out)
	}
	if err != nil {
		return Trailer{}, fmt.Errorf("write export: %w", err)
	}
	return Trailer{e.gaps, hex.EncodeToString(out.sum.Sum(nil)), e.stretches()}, nil
}

// stretches are those of the only timeline there is; in a mix a sample belongs
// to several streams.
func (e *Export) stretches() []Stretch {
	if len(e.voices) != 1 {
		return nil
	}
	return e.voices[0].Stretches
}

// hashing is a writer that knows the hash of what it wrote. It hides what else
// the writer can do: an encoder must not seek in a stream.
type hashing struct {
	w   io.Writer
	sum hash.Hash
}

func (h *hashing) Write(p []byte) (int, error) {
	n, err := h.w.Write(p)
	h.sum.Write(p[:n])
	return n, err
}

// writeNative writes G.711 as it was received.
func (e *Export) writeNative(ctx context.Context, w io.Writer) error {
	header := media.WAVHeader(e.wavFormat(), e.samples)
	if _, err := w.Write(header[:]); err != nil {
		return err
	}
	buf := make([]byte, sampleRate)
	for at := int64(0); at < e.samples; {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := buf[:min(int64(len(buf)), e.samples-at)]
		if err := e.voices[0].ReadAt(p, at); err != nil {
			return err
		}
		if _, err := w.Write(p); err != nil {
			return err
		}
		at += int64(len(p))
	}
	if e.samples%2 == 1 {
		if _, err := w.Write([]byte{0}); err != nil {
			return err
		}
	}
	return nil
}

func (e *Export) writeLinear(ctx context.Context, w io.Writer) error {
	header := media.WAVHeader(e.wavFormat(), e.samples)
	if _, err := w.Write(header[:]); err != nil {
		return err
	}
	var buf []byte
	return e.mix(ctx, sampleRate, func(mixed []int32) error {
		buf = buf[:0]
		for _, v := range mixed {
			buf = binary.LittleEndian.AppendUint16(buf, uint16(v))
		}
		_, err := w.Write(buf)
		return err
	})
}

// mix calls each with block after block of the voices' sum, limited to 16 bits.
func (e *Export) mix(ctx context.Context, block int, each func([]int32) error) error {
	buf := make([]int32, block)
	for at := int64(0); at < e.samples; {
		if err := ctx.Err(); err != nil {
			return err
		}
		mixed := buf[:min(int64(block), e.samples-at)]
		clear(mixed)
		for _, v := range e.voices {
			if err := v.mixInto(mixed, at-v.at); err != nil {
				return err
			}
		}
		for i, v := range mixed {
			mixed[i] = min(max(v, math.MinInt16), math.MaxInt16)
		}
		if err := each(mixed); err != nil {
			return err
		}
		at += int64(len(mixed))
	}
	return nil
}

// mixInto adds the voice from its own position at, which may lie before its
// beginning.
func (v voice) mixInto(dst []int32, at int64) error {
	if at < 0 {
		skip := min(-at, int64(len(dst)))
		dst, at = dst[skip:], 0
	}
	if n := v.Samples - at; int64(len(dst)) > n {
		dst = dst[:max(n, 0)]
	}
	return v.Mix(dst, at)
}

func (e *Export) writeFLAC(ctx context.Context, w io.Writer) error {
	encoder, err := media.NewFLACWriter(w, sampleRate, e.samples)
	if err != nil {
		return err
	}
	return errors.Join(e.mix(ctx, media.FLACBlock, encoder.WriteBlock), encoder.Close())
}

// Part is the piece of a leg kept by this recorder on one channel.
type Part struct {
	Channel  call.ChannelID
	From, To time.Time
	Segments []catalog.Segment
	Gaps     []catalog.Gap
}

// Parts are where a leg is: on the channel that Export takes it from. Where nothing
// was recorded it is what is known to be missing, and there is none without that.
func (p *Player) Parts(ctx context.Context, leg catalog.Leg) ([]Part, error) {
	t, err := p.best(ctx, leg)
	if errors.Is(err, ErrNoMedia) {
		return p.missingParts(ctx, leg)
	}
	if err != nil {
		return nil, fmt.Errorf("find parts: %w", err)
	}
	defer t.Close()
	segments, err := p.cat.Segments(ctx, t.Channel, catalog.Window{From: t.Start, To: t.End})
	if err != nil {
		return nil, fmt.Errorf("find parts: %w", err)
	}
	return []Part{{t.Channel, t.Start, t.End, segments, t.Gaps}}, nil
}

// missingParts is the gap that a leg is, on the first of its channels that has one.
func (p *Player) missingParts(ctx context.Context, leg catalog.Leg) ([]Part, error) {
	w := windowOf(leg)
	for _, id := range leg.Channels {
		part := Part{Channel: call.ChannelID(id)}
		var err error
		if part.Segments, err = p.cat.Segments(ctx, part.Channel, w); err != nil {
			return nil, fmt.Errorf("find parts: %w", err)
		}
		end := w.To
		for _, s := range part.Segments {
			part.Gaps = append(part.Gaps, s.Gaps...)
			if w.To.IsZero() {
				end = later(end, s.End)
			}
		}
		if part.Gaps = clip(part.Gaps, w.From, end); len(part.Gaps) > 0 {
			part.From, part.To = part.Gaps[0].From, part.Gaps[len(part.Gaps)-1].To
			return []Part{part}, nil
		}
	}
	return nil, nil
}
