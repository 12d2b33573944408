package media

import (
	"bytes"
	"testing"
)

// Values of ITU-T G.711 tables 1a, 2a at the ends of segments, in 16-bit scale.
func TestG711KnownValues(t *testing.T) {
	for _, c := range []struct {
		codec Codec
		b     byte
		want  int16
	}{
		{PCMU, 0xFF, 0}, {PCMU, 0x7F, 0}, {PCMU, 0x80, 32124}, {PCMU, 0x00, -32124}, {PCMU, 0xFE, 8}, {PCMU, 0x7E, -8},
		{PCMA, 0xD5, 8}, {PCMA, 0x55, -8}, {PCMA, 0xAA, 32256}, {PCMA, 0x2A, -32256},
	} {
		if got := c.codec.ToLinear(c.b); got != c.want {
			t.Errorf("%s %#x: got %d, want %d", c.codec, c.b, got, c.want)
		}
	}
}

// Every code survives a trip through linear, and compression is monotonic
// and never further off than half a step.
func TestG711RoundTrip(t *testing.T) {
	for _, codec := range []Codec{PCMU, PCMA} {
		for i := range 256 {
			b := byte(i)
			if got := codec.FromLinear(codec.ToLinear(b)); got != b && !(codec == PCMU && b == 0x7F) {
				t.Errorf("%s: %#x became %#x", codec, b, got)
			}
		}
		last := codec.ToLinear(codec.FromLinear(-32768))
		for s := -32767; s <= 32767; s++ {
			got := codec.ToLinear(codec.FromLinear(int16(s)))
			if got < last {
				t.Fatalf("%s: not monotonic at %d", codec, s)
			}
			step := max(16, abs(s)/16)
			if diff := abs(int(got) - s); diff > step/2+132 && abs(s) < 32000 {
				t.Fatalf("%s: %d became %d", codec, s, got)
			}
			last = got
		}
	}
}

func abs(i int) int { return max(i, -i) }

func TestWAVRoundTrip(t *testing.T) {
	for _, f := range []WAVFormat{{PCMU, 8000}, {PCMA, 8000}, {"", 16000}} {
		data := []byte{1, 2, 3, 4, 5, 6}
		h := WAVHeader(f, int64(len(data)/f.SampleSize()))
		got, samples, err := ReadWAV(bytes.NewReader(append(h[:], data...)))
		if err != nil || got != f || !bytes.Equal(samples, data) {
			t.Errorf("%v: got %v %v %v", f, got, samples, err)
		}
	}
}

func FuzzReadWAV(f *testing.F) {
	h := WAVHeader(WAVFormat{PCMU, 8000}, 3)
	f.Add(append(h[:], 1, 2, 3))
	f.Fuzz(func(t *testing.T, in []byte) {
		format, samples, err := ReadWAV(bytes.NewReader(in))
		if err == nil && (len(samples) > len(in) || format.SampleRate <= 0 || len(samples)%format.SampleSize() != 0) {
			t.Fatalf("%v with %d bytes from %d", format, len(samples), len(in))
		}
	})
}
