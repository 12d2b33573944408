package cli

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"time"

	"tandem/internal/media"
)

// track is the samples of one leg from an instant on.
type track struct {
	start   time.Time
	samples []int16
}

// mix fetches every source of a take and adds them up, each at its time.
func (s *site) mix(ctx context.Context, t take) (*audio, error) {
	var tracks []track
	mixed := &audio{close: func() {}}
	for _, src := range t.sources {
		a, err := s.openSource(ctx, src)
		if err != nil {
			return nil, err
		}
		format, samples, err := media.ReadWAV(a)
		if err == nil {
			_, err = io.Copy(io.Discard, a) // to the trailer, which says what is missing
		}
		a.Close()
		if err != nil {
			return nil, failed("read leg %s: %w", src.request.Leg, err)
		}
		if mixed.rate != 0 && mixed.rate != uint32(format.SampleRate) {
			return nil, failed("the legs of %s differ in sample rate; -o DIR/ writes a file for each", t.call)
		}
		mixed.rate = uint32(format.SampleRate)
		mixed.channels = append(mixed.channels, a.channels...)
		mixed.recorders = append(mixed.recorders, a.recorders...)
		mixed.gaps = append(mixed.gaps, a.gaps...)
		tracks = append(tracks, track{a.start, format.Linear(samples)})
	}
	mixed.recorders = distinct(mixed.recorders, func(name string) string { return name })
	sum := addTracks(tracks, int(mixed.rate))
	mixed.start = sum.start
	mixed.duration = time.Duration(len(sum.samples)) * time.Second / time.Duration(mixed.rate)
	header := media.WAVHeader(media.WAVFormat{SampleRate: int(mixed.rate)}, int64(len(sum.samples)))
	body, err := binary.Append(header[:], binary.LittleEndian, sum.samples)
	if err != nil {
		return nil, failed("write mix: %w", err)
	}
	mixed.size = int64(len(body))
	mixed.Reader = bytes.NewReader(body)
	return mixed, nil
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
