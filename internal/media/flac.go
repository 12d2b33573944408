package media

import (
	"fmt"
	"io"
	"slices"

	"github.com/mewkiz/flac"
	"github.com/mewkiz/flac/frame"
	"github.com/mewkiz/flac/meta"
)

// FLACBlock is the number of samples that every block but the last must have.
const FLACBlock = 4096

// FLACWriter makes a mono FLAC file of 16 bits. It is not safe for concurrent
// use.
type FLACWriter struct {
	encoder *flac.Encoder
	rate    int
}

// NewFLACWriter begins a file of so many samples on w, which it neither seeks in
// nor closes.
func NewFLACWriter(w io.Writer, rate int, samples int64) (*FLACWriter, error) {
	encoder, err := flac.NewEncoder(struct{ io.Writer }{w}, &meta.StreamInfo{
		BlockSizeMin: FLACBlock, BlockSizeMax: FLACBlock, SampleRate: uint32(rate), NChannels: 1, BitsPerSample: 16, NSamples: uint64(samples),
	})
	if err != nil {
		return nil, fmt.Errorf("begin FLAC file: %w", err)
	}
	return &FLACWriter{encoder, rate}, nil
}

// WriteBlock adds a block; the samples remain the caller's.
func (f *FLACWriter) WriteBlock(samples []int32) error {
	err := f.encoder.WriteFrame(&frame.Frame{
		Header: frame.Header{HasFixedBlockSize: true, BlockSize: uint16(len(samples)), SampleRate: uint32(f.rate), Channels: frame.ChannelsMono, BitsPerSample: 16},
		Subframes: []*frame.Subframe{{SubHeader: frame.SubHeader{Pred: frame.PredVerbatim},
			Samples: slices.Clone(samples), NSamples: len(samples)}},
	})
	if err != nil {
		return fmt.Errorf("write FLAC block: %w", err)
	}
	return nil
}

// Close ends the file.
func (f *FLACWriter) Close() error {
	if err := f.encoder.Close(); err != nil {
		return fmt.Errorf("end FLAC file: %w", err)
	}
	return nil
}
