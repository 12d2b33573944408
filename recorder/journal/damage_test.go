package journal

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"pgregory.net/rapid"
)

// image is a whole file in memory and where its blocks are.
type image struct {
	bytes  []byte
	blocks []extent // the seal is the last one
	tail   int      // zeros behind it
}

type extent struct{ from, to int }

func (e extent) touches(o extent) bool { return e.from < o.to && o.from < e.to }

const imageNonce = 0x1122334455667788

func makeImage(t *rapid.T) image {
	var im image
	put := func(b []byte) {
		im.blocks = append(im.blocks, extent{len(im.bytes), len(im.bytes) + len(b)})
		im.bytes = append(im.bytes, b...)
	}
	d := newDraft(64 << 10)
	for seq := range rapid.IntRange(1, 12).Draw(t, "blocks") {
		d.reset(1)
		if seq == 0 || rapid.IntRange(0, 4).Draw(t, "notes") == 0 {
			b, _ := encode(Note{Started: &Started{Boot: "boot", File: uint64(seq)}})
			d.addNote(Note{}, b)
		} else {
			for n := range rapid.IntRange(1, 8).Draw(t, "packets") {
				data := rapid.SliceOfN(rapid.Byte(), 0, 60).Draw(t, "data")
				if rapid.IntRange(0, 5).Draw(t, "hostile") == 0 {
					data = hostile(n)
				}
				d.Add(uint32(n/2), arrival(n), data)
			}
		}
		put(d.finish(imageNonce, uint32(seq)))
	}
	seal := newDraft(headerSize)
	seal.kind = kindSeal
	put(seal.finish(imageNonce, uint32(len(im.blocks))))
	im.tail = rapid.IntRange(0, 100).Draw(t, "tail")
	im.bytes = append(im.bytes, make([]byte, im.tail)...)
	return im
}

// hostile is a payload that is itself a well-formed block, of a file whose
// nonce its sender could only guess.
func hostile(n int) []byte {
	d := newDraft(1 << 10)
	d.reset(0)
	d.Add(99, arrival(n), []byte("never recorded"))
	return bytes.Clone(d.finish(1, uint32(n)))
}

func memoryReader(b []byte) *Reader {
	return &Reader{path: "memory", nonce: imageNonce, file: bytes.NewReader(b), size: func() (int64, error) { return int64(len(b)), nil }}
}

// Damage a file anywhere, in any of the ways a disk can: every block that is
// not touched comes back, nothing else does, and what was touched is reported
// at its place.
func TestDamageCostsOnlyWhatItTouches(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		im := makeImage(t)
		b := bytes.Clone(im.bytes)
		var damage []extent
		for range rapid.IntRange(0, 3).Draw(t, "damages") {
			from := rapid.IntRange(0, len(b)-1).Draw(t, "from")
			to := min(len(b), from+rapid.IntRange(1, 200).Draw(t, "length"))
			before := bytes.Clone(b[from:to])
			switch rapid.SampledFrom([]string{"flip", "zero", "noise"}).Draw(t, "kind") {
			case "flip":
				to = from + 1
				b[from] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			case "zero":
				clear(b[from:to])
			case "noise":
				copy(b[from:to], rapid.SliceOfN(rapid.Byte(), to-from, to-from).Draw(t, "noise"))
			}
			if !bytes.Equal(b[from:to], before[:to-from]) {
				damage = append(damage, extent{from, to})
			}
		}
		if rapid.Bool().Draw(t, "cut") {
			cut := rapid.IntRange(0, len(b)).Draw(t, "at")
			damage = append(damage, extent{cut, len(im.bytes)})
			b = b[:cut]
		}
		checkDamaged(t, im, b, damage)
	})
}

func checkDamaged(t rapid.TB, im image, b []byte, damage []extent) {
	whole := map[int]bool{} // offset of each block that must come back
	first := -1             // offset of the first that must not
	for _, block := range im.blocks {
		touched := block.to > len(b)
		for _, d := range damage {
			touched = touched || d.touches(block) && !bytes.Equal(im.bytes[block.from:block.to], b[block.from:block.to])
		}
		if !touched {
			whole[block.from] = true
		} else if first < 0 {
			first = block.from
		}
	}
	sealAt := im.blocks[len(im.blocks)-1].from
	r := memoryReader(b)
	var failures []*CorruptError
read:
	for {
		block, err := r.Next()
		var corrupt *CorruptError
		switch {
		case err == io.EOF:
			break read
		case errors.As(err, &corrupt):
			failures = append(failures, corrupt)
			if _, err := r.Resync(); err == io.EOF {
				break read
			}
		case err != nil:
			t.Fatal(err)
		default:
			if !whole[int(block.Offset)] || int(block.Offset) == sealAt {
				t.Fatalf("a block was invented at %d", block.Offset)
			}
			delete(whole, int(block.Offset))
		}
	}
	if r.Sealed() {
		delete(whole, sealAt)
	}
	if len(whole) > 0 {
		t.Fatalf("%d whole blocks did not come back (%v); failures %v", len(whole), whole, failures)
	}
	switch {
	case first < 0:
		// Only the reserved zeros were touched, if anything: no block is missing.
		for _, f := range failures {
			if f.Offset < int64(im.blocks[len(im.blocks)-1].to) {
				t.Fatalf("damage reported where none is: %v", f)
			}
		}
	case len(failures) > 0 && failures[0].Offset != int64(first):
		t.Fatalf("first damage at %d, reported %v", first, failures[0])
	case len(failures) == 0 && r.Sealed():
		t.Fatalf("damage at %d passed as a whole file", first)
	}
}

func TestEveryCutAndEveryFlip(t *testing.T) {
	im := rapid.Custom(makeImage).Example(1)
	for at := range im.bytes {
		checkDamaged(t, im, im.bytes[:at], []extent{{at, len(im.bytes)}})
		b := bytes.Clone(im.bytes)
		for bit := range 8 {
			b[at] = im.bytes[at] ^ 1<<bit
			checkDamaged(t, im, b, []extent{{at, at + 1}})
		}
	}
}

func FuzzReader(f *testing.F) {
	d := newDraft(64 << 10)
	d.reset(2)
	d.Add(1, arrival(0), packet(1, 0))
	d.Add(2, arrival(1), packet(2, 1))
	good := bytes.Clone(d.finish(imageNonce, 0))
	f.Add(good)
	f.Add(append(bytes.Clone(good), make([]byte, 500)...))
	f.Add(append(bytes.Repeat([]byte{0x54, 0x4a, 0x62, 0x31}, 30), good...))
	f.Add(append(make([]byte, 50), good...))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := memoryReader(b)
		at := int64(0) // everything before is accounted for
		for {
			block, err := r.Next()
			var corrupt *CorruptError
			switch {
			case err == io.EOF:
				if rest := b[at:]; !r.Sealed() && !zero(rest) {
					t.Fatalf("clean end at %d with %d bytes behind it", at, len(rest))
				}
				return
			case errors.As(err, &corrupt):
				if corrupt.Offset != at && !r.Sealed() {
					t.Fatalf("damage at %d reported at %d", at, corrupt.Offset)
				}
				skipped, err := r.Resync()
				if err == io.EOF {
					return
				}
				at = corrupt.Offset + skipped
			case err != nil:
				t.Fatal(err)
			default:
				if block.Offset != at {
					t.Fatalf("block at %d, want %d", block.Offset, at)
				}
				packets := 0
				for p := range block.Packets {
					packets++
					_ = p.Data
				}
				if packets != block.Count {
					t.Fatalf("%d packets, header says %d", packets, block.Count)
				}
				at = r.Offset()
			}
		}
	})
}
