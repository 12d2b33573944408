package journal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A file is a row of blocks and then either its end or zeros (space reserved
// and not used). All numbers are little endian. A block begins with
//
//	 0  magic     4  "TJb1"
//	 4  crc       4  CRC-32C of everything from offset 8 on
//	 8  length    4  of the block, header included
//	12  kind      1
//	13  -         1  zero
//	14  shard     2
//	16  nonce     8  random, one for each file: neither a block left over on the
//	                 disk nor one that a sender hid in a payload can pass
//	24  sequence  4  0, 1, 2 ... within the file
//	28  packets   4
//	32  base      8  arrival of the first packet, Unix nanoseconds
//
// and holds, by kind:
//
//	packets  runs of {channel number 4, count 4} and count packets
//	         {arrival - base in microseconds 4, signed; length 2; bytes}
//	notes    a JSON list of Note
//	seal     nothing: the file was closed in order, no block is missing
const (
	magic        = 0x31624a54
	headerSize   = 40
	runHeader    = 8
	packetHeader = 6

	// maxBlock bounds what a reader believes a length field.
	maxBlock = 16 << 20
)

// Kind says what a block holds.
type Kind uint8

const (
	KindPackets Kind = 1
	KindNotes   Kind = 2
	kindSeal    Kind = 3 // never leaves the reader
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type header struct {
	length   uint32
	crc      uint32
	kind     Kind
	shard    uint16
	nonce    uint64
	sequence uint32
	packets  uint32
	base     int64
}

// finish writes the header into the first bytes of a whole block and makes
// its checksum.
func (h header) finish(block []byte) {
	binary.LittleEndian.PutUint32(block[0:], magic)
	binary.LittleEndian.PutUint32(block[8:], uint32(len(block)))
	block[12] = byte(h.kind)
	block[13] = 0
	binary.LittleEndian.PutUint16(block[14:], h.shard)
	binary.LittleEndian.PutUint64(block[16:], h.nonce)
	binary.LittleEndian.PutUint32(block[24:], h.sequence)
	binary.LittleEndian.PutUint32(block[28:], h.packets)
	binary.LittleEndian.PutUint64(block[32:], uint64(h.base))
	binary.LittleEndian.PutUint32(block[4:], crc32.Checksum(block[8:], castagnoli))
}

// parseHeader reads a header without its checksum. The reason is empty when
// the header can be one.
func parseHeader(b []byte) (h header, reason string) {
	if binary.LittleEndian.Uint32(b) != magic {
		return header{}, "no block begins here"
	}
	h = header{
		crc:      binary.LittleEndian.Uint32(b[4:]),
		length:   binary.LittleEndian.Uint32(b[8:]),
		kind:     Kind(b[12]),
		shard:    binary.LittleEndian.Uint16(b[14:]),
		nonce:    binary.LittleEndian.Uint64(b[16:]),
		sequence: binary.LittleEndian.Uint32(b[24:]),
		packets:  binary.LittleEndian.Uint32(b[28:]),
		base:     int64(binary.LittleEndian.Uint64(b[32:])),
	}
	if h.length < headerSize || h.length > maxBlock {
		return h, fmt.Sprintf("a block cannot be %d bytes long", h.length)
	}
	return h, ""
}

// checkRuns walks the content of a packets block and wants it to end exactly
// where it ends, with as many packets as the header says.
func checkRuns(content []byte, packets uint32) error {
	var seen uint32
	for len(content) > 0 {
		if len(content) < runHeader {
			return fmt.Errorf("a run header is cut short")
		}
		count := binary.LittleEndian.Uint32(content[4:])
		content = content[runHeader:]
		for range count {
			if len(content) < packetHeader {
				return fmt.Errorf("a packet header is cut short")
			}
			size := packetHeader + int(binary.LittleEndian.Uint16(content[4:]))
			if len(content) < size {
				return fmt.Errorf("a packet is cut short")
			}
			content = content[size:]
			seen++
		}
	}
	if seen != packets {
		return fmt.Errorf("%d packets where the header says %d", seen, packets)
	}
	return nil
}

// eachPacket walks content that checkRuns has accepted.
func eachPacket(content []byte, base int64, yield func(Packet) bool) {
	for len(content) > 0 {
		num := binary.LittleEndian.Uint32(content)
		count := binary.LittleEndian.Uint32(content[4:])
		content = content[runHeader:]
		for range count {
			delta := int32(binary.LittleEndian.Uint32(content))
			end := packetHeader + int(binary.LittleEndian.Uint16(content[4:]))
			p := Packet{Num: num, Arrival: base + int64(delta)*1000, Data: content[packetHeader:end:end]}
			content = content[end:]
			if !yield(p) {
				return
			}
		}
	}
}
