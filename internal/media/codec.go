package media

import "fmt"

// Codec is a voice codec of RFC 3551, by its static payload type's name.
type Codec string

const (
	PCMU Codec = "PCMU"
	PCMA Codec = "PCMA"
	G722 Codec = "G722"
)

// PayloadType is the static payload type of RFC 3551 table 4.
func (c Codec) PayloadType() uint8 {
	switch c {
	case PCMA:
		return 8
	case G722:
		return 9
	}
	return 0
}

// ClockRate is the RTP timestamp rate: 8000 for all three, G.722 included
// (RFC 3551 4.5.2 keeps a historical error).
func (c Codec) ClockRate() int { return 8000 }

// Silence is the byte a silent line repeats; one byte is one sample of G.711.
func (c Codec) Silence() byte {
	if c == PCMA {
		return ALawSilence
	}
	return MuLawSilence
}

// ToLinear expands one byte of G.711.
func (c Codec) ToLinear(b byte) int16 {
	if c == PCMA {
		return aLawToLinear[b]
	}
	return muLawToLinear[b]
}

// FromLinear compresses one sample to G.711.
func (c Codec) FromLinear(s int16) byte {
	if c == PCMA {
		return LinearToALaw(s)
	}
	return LinearToMuLaw(s)
}

// ParseCodec reads an RTP map, "PCMU/8000" or just "PCMU".
func ParseCodec(s string) (Codec, error) {
	switch s {
	case "PCMU", "PCMU/8000":
		return PCMU, nil
	case "PCMA", "PCMA/8000":
		return PCMA, nil
	case "G722", "G722/8000":
		return G722, nil
	}
	return "", fmt.Errorf("codec %q: want PCMU, PCMA or G722", s)
}
