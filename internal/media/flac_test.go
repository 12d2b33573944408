package media

import (
	"bytes"
	"io"
	"slices"
	"testing"

	"github.com/mewkiz/flac"
)

// What is written is read again by another's decoder, sample for sample.
func TestFLACRoundTrip(t *testing.T) {
	var want []int32
	for n := range 2*FLACBlock + 100 {
		want = append(want, int32(int16(n*n)))
	}
	var file bytes.Buffer
	w, err := NewFLACWriter(&file, 8000, int64(len(want)))
	if err != nil {
		t.Fatal(err)
	}
	for block := range slices.Chunk(want, FLACBlock) {
		if err := w.WriteBlock(block); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	stream, err := flac.New(&file)
	if err != nil || stream.Info.NSamples != uint64(len(want)) || stream.Info.SampleRate != 8000 || stream.Info.NChannels != 1 {
		t.Fatal(stream.Info, err)
	}
	var got []int32
	for {
		f, err := stream.ParseNext()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, f.Subframes[0].Samples...)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d samples, want %d", len(got), len(want))
	}
}
