package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/cli/recording"
	"tandem/internal/media"
)

// gather fetches every source of a take, each stitched from what all recorders
// hold, and makes one file of them: of one source, as it was on the line; of
// several, their sum.
func (s *site) gather(ctx context.Context, t take) (*audio, error) {
	whole := &audio{close: func() {}}
	var heard []recording.Recording
	for _, src := range t.sources {
		r, err := s.listenTo(ctx, src, whole)
		if err != nil {
			return nil, err
		}
		if len(r.Samples) == 0 {
			continue
		}
		heard = append(heard, r)
		whole.channels = append(whole.channels, src.request.Channel)
		whole.recorders = append(whole.recorders, r.Recorders...)
		for _, g := range r.Gaps {
			whole.gaps = append(whole.gaps, gap{g.From, g.To, string(g.Cause), g.Before, g.After})
		}
	}
	if len(heard) == 0 {
		return nil, noAudio(cmp.Or(t.call, t.sources[0].request.Channel))
	}
	whole.recorders = distinct(whole.recorders, func(name string) string { return name })
	slices.SortStableFunc(whole.gaps, func(a, b gap) int { return a.from.Compare(b.from) })
	return whole, whole.fill(heard, t.format)
}

// listenTo is the channel of a source, filled from its twin if it has one; what
// was filled is added to the audio's.
func (s *site) listenTo(ctx context.Context, src source, into *audio) (recording.Recording, error) {
	i := recording.Interval{From: at(src.request.From), To: at(src.request.To)}
	r, err := s.stitched(ctx, src.peers, src.request.Channel, i)
	if err != nil || src.twin == nil {
		return r, err
	}
	r, report, err := s.heal(ctx, src, r, i)
	into.merged = into.merged.with(report, src)
	return r, err
}

// stitched is a channel as all the peers together have it. A peer that fails now
// is one more that is left out.
func (s *site) stitched(ctx context.Context, peers []peer, channel string, i recording.Interval) (recording.Recording, error) {
	good, err := heardRecorders(s, fetch(ctx, peers, func(ctx context.Context, p peer) (*recording.Take, error) {
		return recording.Read(ctx, s.recorder(p), channel, i)
	}))
	if err != nil {
		return recording.Recording{}, err
	}
	var takes []*recording.Take
	for _, a := range good {
		takes = append(takes, a.value)
	}
	return recording.Join(takes), nil
}

// fill makes the file: the bytes that were on the line where it is one channel
// as WAV, else linear samples.
func (a *audio) fill(heard []recording.Recording, format tandemv1.Format) error {
	if len(heard) == 1 && format == tandemv1.Format_FORMAT_WAV {
		r := heard[0]
		samples := len(r.Samples) / r.Format.SampleSize()
		header := media.WAVHeader(r.Format, int64(samples))
		a.put(r.Start, samples, append(header[:], r.Samples...))
		a.codec = string(r.Format.Codec)
		return nil
	}
	tracks := make([]track, len(heard))
	for n, r := range heard {
		tracks[n] = track{r.Start, r.Format.Linear(r.Samples)}
	}
	sum := addTracks(tracks, sampleRate)
	encode := encodeWAV
	if format == tandemv1.Format_FORMAT_FLAC {
		encode = encodeFLAC
	}
	body, err := encode(sum.samples)
	if err != nil {
		return failed("write mix: %w", err)
	}
	a.put(sum.start, len(sum.samples), body)
	return nil
}

// sampleRate is that of every G.711 channel.
const sampleRate = 8000

// put makes body, a file of so many samples, the audio.
func (a *audio) put(start time.Time, samples int, body []byte) {
	a.start, a.rate, a.size = start, sampleRate, int64(len(body))
	a.duration = time.Duration(samples) * (time.Second / sampleRate)
	a.Reader = bytes.NewReader(body)
}

func encodeWAV(samples []int16) ([]byte, error) {
	header := media.WAVHeader(media.WAVFormat{SampleRate: sampleRate}, int64(len(samples)))
	return binary.Append(header[:], binary.LittleEndian, samples)
}

func encodeFLAC(samples []int16) ([]byte, error) {
	var file bytes.Buffer
	encoder, err := media.NewFLACWriter(&file, sampleRate, int64(len(samples)))
	if err != nil {
		return nil, err
	}
	for block := range slices.Chunk(samples, media.FLACBlock) {
		wide := make([]int32, len(block))
		for n, v := range block {
			wide[n] = int32(v)
		}
		if err := encoder.WriteBlock(wide); err != nil {
			return nil, err
		}
	}
	err = encoder.Close()
	return file.Bytes(), err
}

// track is the samples of one channel from an instant on.
type track struct {
	start   time.Time
	samples []int16
}

// addTracks sums tracks from the first instant of any to the last. What is too
// loud is clipped.
func addTracks(tracks []track, rate int) track {
	var sum track
	for n, t := range tracks {
		if n == 0 || t.start.Before(sum.start) {
			sum.start = t.start
		}
	}
	at := func(t track) int {
		return int((t.start.Sub(sum.start)*time.Duration(rate) + time.Second/2) / time.Second)
	}
	for _, t := range tracks {
		if need := at(t) + len(t.samples); need > len(sum.samples) {
			sum.samples = append(sum.samples, make([]int16, need-len(sum.samples))...)
		}
	}
	for _, t := range tracks {
		into := sum.samples[at(t):]
		for n, v := range t.samples {
			into[n] = int16(min(max(int(into[n])+int(v), -32768), 32767))
		}
	}
	return sum
}
