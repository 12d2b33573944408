package media

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// WAV format tags (RFC 2361).
const (
	wavPCM   = 1
	wavALaw  = 6
	wavMuLaw = 7
)

// WAVHeaderSize is the length of every header that WAVHeader makes.
const WAVHeaderSize = 58

// WAVFormat says how the samples of a mono WAV file are kept.
type WAVFormat struct {
	Codec      Codec // PCMU or PCMA; empty: linear PCM, 16 bits
	SampleRate int
}

// SampleSize is the number of bytes of one sample.
func (f WAVFormat) SampleSize() int {
	if f.Codec == "" {
		return 2
	}
	return 1
}

// Linear is the samples of such a file as 16-bit numbers.
func (f WAVFormat) Linear(data []byte) []int16 {
	samples := make([]int16, len(data)/f.SampleSize())
	for n := range samples {
		if f.Codec == "" {
			samples[n] = int16(binary.LittleEndian.Uint16(data[2*n:]))
		} else {
			samples[n] = f.Codec.ToLinear(data[n])
		}
	}
	return samples
}

// WAVHeader is the header of a file with the given number of samples:
// RIFF, fmt with its extension size, fact (which non-PCM formats need), data.
// Lengths past 4 GiB saturate, as most readers expect.
func WAVHeader(f WAVFormat, samples int64) [WAVHeaderSize]byte {
	var h [WAVHeaderSize]byte
	tag := uint16(wavPCM)
	switch f.Codec {
	case PCMA:
		tag = wavALaw
	case PCMU:
		tag = wavMuLaw
	}
	size := f.SampleSize()
	data := samples * int64(size)
	padded := data + data&1
	le := binary.LittleEndian
	copy(h[0:], "RIFF")
	le.PutUint32(h[4:], saturate(WAVHeaderSize-8+padded))
	copy(h[8:], "WAVEfmt ")
	le.PutUint32(h[16:], 18)
	le.PutUint16(h[20:], tag)
	le.PutUint16(h[22:], 1)
	le.PutUint32(h[24:], uint32(f.SampleRate))
	le.PutUint32(h[28:], uint32(f.SampleRate*size))
	le.PutUint16(h[32:], uint16(size))
	le.PutUint16(h[34:], uint16(size*8))
	copy(h[38:], "fact")
	le.PutUint32(h[42:], 4)
	le.PutUint32(h[46:], saturate(samples))
	copy(h[50:], "data")
	le.PutUint32(h[54:], saturate(data))
	return h
}

func saturate(n int64) uint32 { return uint32(min(n, 0xFFFFFFFF)) }

// ErrNotWAV is a file that is not a mono WAV file of a kind we read.
var ErrNotWAV = errors.New("not a mono WAV file of PCM 16 bit, A-law or µ-law")

// ReadWAV reads a whole mono file: its format and the bytes of its samples.
// Chunks it does not know are skipped.
func ReadWAV(r io.Reader) (WAVFormat, []byte, error) {
	var f WAVFormat
	var riff [12]byte
	if _, err := io.ReadFull(r, riff[:]); err != nil {
		return f, nil, fmt.Errorf("read RIFF header: %w", err)
	}
	if string(riff[:4]) != "RIFF" || string(riff[8:]) != "WAVE" {
		return f, nil, ErrNotWAV
	}
	for seen := false; ; {
		var chunk [8]byte
		if _, err := io.ReadFull(r, chunk[:]); err != nil {
			return f, nil, fmt.Errorf("read WAV chunk: %w", err)
		}
		length := int64(binary.LittleEndian.Uint32(chunk[4:]))
		switch string(chunk[:4]) {
		case "fmt ":
			body := make([]byte, min(length, 64))
			if _, err := io.ReadFull(r, body); err != nil || len(body) < 16 {
				return f, nil, fmt.Errorf("read WAV format: %w", errors.Join(err, ErrNotWAV))
			}
			var err error
			if f, err = parseWAVFormat(body); err != nil {
				return f, nil, err
			}
			seen = true
			length -= int64(len(body))
		case "data":
			if !seen {
				return f, nil, ErrNotWAV
			}
			data, err := io.ReadAll(io.LimitReader(r, length))
			if err != nil {
				return f, nil, fmt.Errorf("read WAV data: %w", err)
			}
			return f, data[:len(data)/f.SampleSize()*f.SampleSize()], nil
		}
		if _, err := io.CopyN(io.Discard, r, length+length&1); err != nil {
			return f, nil, fmt.Errorf("skip WAV chunk: %w", err)
		}
	}
}

func parseWAVFormat(body []byte) (WAVFormat, error) {
	le := binary.LittleEndian
	f := WAVFormat{SampleRate: int(le.Uint32(body[4:]))}
	bits := le.Uint16(body[14:])
	switch tag := le.Uint16(body); {
	case le.Uint16(body[2:]) != 1 || f.SampleRate <= 0:
		return f, ErrNotWAV
	case tag == wavPCM && bits == 16:
	case tag == wavALaw && bits == 8:
		f.Codec = PCMA
	case tag == wavMuLaw && bits == 8:
		f.Codec = PCMU
	default:
		return f, ErrNotWAV
	}
	return f, nil
}
