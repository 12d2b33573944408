package journal

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// Draft is a block being filled. It belongs to whoever took it from
// Writer.Draft until it is given to Writer.Append, and is not safe for
// concurrent use.
type Draft struct {
	buf     []byte // header space, then content
	kind    Kind
	shard   uint16
	packets uint32
	base    int64
	num     uint32 // of the run in progress
	run     int    // offset of its header; 0: none yet
	count   uint32 // packets in it
	notes   []Note // of a notes block, for the table of open channels
	begun   time.Time
}

func newDraft(size int) *Draft { return draftOver(make([]byte, size)) }

func draftOver(slot []byte) *Draft { return &Draft{buf: slot[:headerSize]} }

func (d *Draft) reset(shard uint16) {
	d.forget()
	clear(d.notes)
	*d = Draft{buf: d.buf[:headerSize], kind: KindPackets, shard: shard, notes: d.notes[:0], begun: time.Now()}
	d.describe()
}

// describe puts in the header what memory.go wants to know of a block.
func (d *Draft) describe() {
	clear(d.buf[:lengthAt])
	d.buf[kindAt] = byte(d.kind)
	binary.LittleEndian.PutUint16(d.buf[14:], d.shard)
	binary.LittleEndian.PutUint64(d.buf[baseAt:], uint64(d.base))
}

// Empty says that nothing has been added.
func (d *Draft) Empty() bool { return len(d.buf) == headerSize }

// Add copies a packet into the block; arrival is in Unix nanoseconds and kept
// to the microsecond. Packets of one channel added in a row share a run. It
// returns false when the packet does not fit: append this block and add to
// the next one. A packet of at most MaxPacket bytes fits any empty block.
func (d *Draft) Add(num uint32, arrival int64, packet []byte) bool {
	need := packetHeader + len(packet)
	fresh := d.run == 0 || num != d.num
	if fresh {
		need += runHeader
	}
	at := len(d.buf)
	if at+need > cap(d.buf) || len(packet) > MaxPacket {
		return false
	}
	if d.packets == 0 {
		d.base = arrival
		d.describe()
	}
	delta := (arrival - d.base) / 1000
	if delta != int64(int32(delta)) {
		return false // the clock was set by more than half an hour
	}
	d.buf = d.buf[:at+need]
	if fresh {
		d.num, d.run, d.count = num, at, 0
		binary.LittleEndian.PutUint32(d.buf[at:], num)
		at += runHeader
	}
	binary.LittleEndian.PutUint32(d.buf[at:], uint32(int32(delta)))
	binary.LittleEndian.PutUint16(d.buf[at+4:], uint16(len(packet)))
	copy(d.buf[at+packetHeader:], packet)
	d.packets++
	d.count++
	binary.LittleEndian.PutUint32(d.buf[d.run+4:], d.count)
	d.commit()
	return true
}

// Room is how many bytes still fit: packets of n bytes in all, one by one in
// runs of their own, need n and PacketOverhead for each.
func (d *Draft) Room() int { return cap(d.buf) - len(d.buf) }

// PacketOverhead is what a block holds at most beside each packet's bytes.
const PacketOverhead = runHeader + packetHeader

// MaxPacket is the longest datagram that Draft.Add takes.
const MaxPacket = math.MaxUint16

// addNote appends one encoded note, and says false when it does not fit.
func (d *Draft) addNote(n Note, encoded []byte) bool {
	if len(d.buf)+len(encoded)+2 > cap(d.buf) && !d.Empty() {
		return false
	}
	if d.Empty() {
		d.kind = KindNotes
		d.describe()
		d.buf = append(d.buf, '[')
	} else {
		d.buf[len(d.buf)-1] = ','
	}
	d.buf = append(append(d.buf, encoded...), ']')
	d.notes = append(d.notes, n)
	d.commit()
	return true
}

func encode(n Note) ([]byte, error) {
	b, err := json.Marshal(n)
	if err != nil {
		return nil, fmt.Errorf("encode note: %w", err)
	}
	if len(b) > maxBlock-headerSize-2 {
		return nil, fmt.Errorf("encode note: %d bytes do not fit a block", len(b))
	}
	return b, nil
}

// finish gives the block its place in a file; the result is valid until the
// draft is reset.
func (d *Draft) finish(nonce uint64, sequence uint32) []byte {
	header{kind: d.kind, shard: d.shard, nonce: nonce, sequence: sequence, packets: d.packets, base: d.base}.finish(d.buf)
	return d.buf
}

func (d *Draft) eachPacket(yield func(Packet) bool) {
	if d.kind == KindPackets {
		eachPacket(d.buf[headerSize:], d.base, yield)
	}
}
