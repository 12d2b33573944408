// Package media holds the audio formats a recorder keeps: G.711, linear PCM,
// and the WAV container around them.
package media

// MuLawSilence and ALawSilence are the bytes a silent line sends.
const (
	MuLawSilence byte = 0xFF
	ALawSilence  byte = 0xD5
)

var (
	muLawToLinear [256]int16
	aLawToLinear  [256]int16
	linearToMuLaw [65536]byte // index: the sample as uint16
	linearToALaw  [65536]byte
)

func init() {
	for i := range 256 {
		muLawToLinear[i] = decodeMuLaw(byte(i))
		aLawToLinear[i] = decodeALaw(byte(i))
	}
	for i := range 65536 {
		linearToMuLaw[i] = encodeMuLaw(int16(uint16(i)))
		linearToALaw[i] = encodeALaw(int16(uint16(i)))
	}
}

// MuLawToLinear expands one µ-law byte (ITU-T G.711 table 2) to 16 bits.
func MuLawToLinear(b byte) int16 { return muLawToLinear[b] }

// ALawToLinear expands one A-law byte (ITU-T G.711 table 1) to 16 bits.
func ALawToLinear(b byte) int16 { return aLawToLinear[b] }

// LinearToMuLaw compresses a 16-bit sample to µ-law.
func LinearToMuLaw(s int16) byte { return linearToMuLaw[uint16(s)] }

// LinearToALaw compresses a 16-bit sample to A-law.
func LinearToALaw(s int16) byte { return linearToALaw[uint16(s)] }

// decodeMuLaw: sign, three bits of segment, four of step, all inverted; the
// segments meet at a bias of 33 in the 14-bit scale (132 in ours).
func decodeMuLaw(b byte) int16 {
	b = ^b
	magnitude := (int(b&0x0F)<<3+132)<<(b>>4&7) - 132
	if b&0x80 != 0 {
		return int16(-magnitude)
	}
	return int16(magnitude)
}

func encodeMuLaw(s int16) byte {
	const clip = 32635
	magnitude, sign := int(s), byte(0)
	if magnitude < 0 {
		magnitude, sign = -magnitude, 0x80
	}
	magnitude = min(magnitude, clip) + 132
	segment := byte(0)
	for magnitude>>(segment+8) != 0 {
		segment++
	}
	return ^(sign | segment<<4 | byte(magnitude>>(segment+3))&0x0F)
}

// decodeALaw: even bits are inverted on the line (G.711 3.1).
func decodeALaw(b byte) int16 {
	b ^= 0x55
	segment, magnitude := b>>4&7, int(b&0x0F)<<4+8
	if segment > 0 {
		magnitude = (magnitude + 256) << (segment - 1)
	}
	if b&0x80 == 0 {
		return int16(-magnitude)
	}
	return int16(magnitude)
}

func encodeALaw(s int16) byte {
	magnitude, sign := int(s), byte(0x80)
	if magnitude < 0 {
		magnitude, sign = -magnitude-1, 0
	}
	segment := byte(0)
	for magnitude>>(segment+8) != 0 {
		segment++
	}
	step := byte(magnitude >> 4)
	if segment > 0 {
		step = byte(magnitude >> (segment + 3))
	}
	return (sign | segment<<4 | step&0x0F) ^ 0x55
}
