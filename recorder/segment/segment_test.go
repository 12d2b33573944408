package segment

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tandem/internal/call"
	"tandem/internal/media"
)

func read(t interface{ Fatal(...any) }, path string) (media.WAVFormat, []byte) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, data, err := media.ReadWAV(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return f, data
}

// Whatever the order, size and overlap of writes, with flushes and restarts
// between them, the file holds what was written last, silence elsewhere, and
// is a whole WAV file after every flush.
func TestWriterAgainstModel(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		codec := rapid.SampledFrom([]media.Codec{media.PCMU, media.PCMA}).Draw(t, "codec")
		n++
		path := filepath.Join(dir, "day", string(rune('a'+n%20)), "x.wav")
		w := Create(path, codec)
		var model []byte
		next := int64(0)
		write := func(at int64, p []byte) {
			for int64(len(model)) < at+int64(len(p)) {
				model = append(model, codec.Silence())
			}
			copy(model[at:], p)
			if err := w.WriteAt(p, at); err != nil {
				t.Fatal(err)
			}
			next = max(next, at+int64(len(p)))
		}
		payload := func(t *rapid.T) []byte {
			return bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, rapid.SampledFrom([]int{1, 80, 160, 161, BufferSize + 3}).Draw(t, "size"))
		}
		t.Repeat(map[string]func(*rapid.T){
			"next": func(t *rapid.T) { write(next, payload(t)) },
			"hole": func(t *rapid.T) {
				write(next+rapid.SampledFrom([]int64{1, 160, BufferSize, 5*BufferSize + 7}).Draw(t, "hole"), payload(t))
			},
			"anywhere": func(t *rapid.T) { write(rapid.Int64Range(0, next).Draw(t, "at"), payload(t)) },
			"prepend": func(t *rapid.T) {
				k := rapid.IntRange(1, 400).Draw(t, "samples")
				if !w.Roomy(k) {
					if err := w.Prepend(k); err == nil {
						t.Fatal("prepended where there was no room")
					}
					return
				}
				if err := w.Prepend(k); err != nil {
					t.Fatal(err)
				}
				model = append(bytes.Repeat([]byte{codec.Silence()}, k), model...)
				next += int64(k)
			},
			"flush": func(t *rapid.T) {
				if err := w.Flush(); err != nil {
					t.Fatal(err)
				}
				if rapid.Bool().Draw(t, "release") {
					w.Release()
				}
				f, data := read(t, path)
				if f.Codec != codec || !bytes.Equal(data, model) {
					t.Fatalf("%s with %d samples, want %d", f.Codec, len(data), len(model))
				}
			},
			"restart": func(t *rapid.T) {
				if err := w.Flush(); err != nil {
					t.Fatal(err)
				}
				var err error
				if w, err = Resume(path, codec, w.Len()); err != nil {
					t.Fatal(err)
				}
			},
		})
		first, err := w.Seal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := w.Seal()
		if err != nil || again != first {
			t.Fatalf("sealed twice: %v then %v, %v", first, again, err)
		}
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(whole)
		if first != (Sum{int64(len(whole)), hex.EncodeToString(sum[:])}) || first.Size != Size(int64(len(model))) {
			t.Fatalf("sum %v of %d bytes and %d samples", first, len(whole), len(model))
		}
		if _, data := read(t, path); !bytes.Equal(data, model) {
			t.Fatal("sealed file differs")
		}
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.CheckHeader(codec, int64(len(model))); err != nil {
			t.Fatal(err)
		}
		if err := f.CheckHeader(codec, int64(len(model))+1); err == nil {
			t.Fatal("a wrong length passed")
		}
		if got, err := f.Hash(); err != nil || got != first {
			t.Fatalf("hash %v, %v", got, err)
		}
		if len(model) > 0 {
			from := rapid.IntRange(0, len(model)-1).Draw(t, "from")
			part := make([]byte, rapid.IntRange(1, len(model)-from).Draw(t, "length"))
			if err := f.ReadAt(part, int64(from)); err != nil || !bytes.Equal(part, model[from:from+len(part)]) {
				t.Fatalf("part of %d at %d differs, %v", len(part), from, err)
			}
		}
		if err := f.ReadAt(make([]byte, 3), int64(len(model))-1); err == nil {
			t.Fatal("read past the end")
		}
	})
}

// What a crash left behind what was committed is overwritten, and cut off.
func TestResumeForgetsWhatWasNotCommitted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.wav")
	w := Create(path, media.PCMU)
	if err := w.WriteAt(bytes.Repeat([]byte{1}, 160), 0); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteAt(bytes.Repeat([]byte{2}, 320), 160); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	w, err := Resume(path, media.PCMU, 160)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteAt(bytes.Repeat([]byte{3}, 10), 170); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Seal(); err != nil {
		t.Fatal(err)
	}
	want := append(append(bytes.Repeat([]byte{1}, 160), bytes.Repeat([]byte{0xFF}, 10)...), bytes.Repeat([]byte{3}, 10)...)
	if _, data := read(t, path); !bytes.Equal(data, want) {
		t.Errorf("got %v", data)
	}
	if _, err := Resume(path, media.PCMU, 181); err == nil {
		t.Error("resumed a file that is too short")
	}
	if _, err := Resume(path+"x", media.PCMU, 0); err == nil {
		t.Error("resumed a file that is not there")
	}
}

func TestPath(t *testing.T) {
	at := time.Date(2026, 3, 2, 9, 45, 0, 20_000_000, time.FixedZone("", 3600))
	if got, want := Path("s1.m1.A", at, 0xBEEF), "2026-03-02/08/s1.m1.A_084500.020000_0000beef.wav"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	safe := regexp.MustCompile(`^2026-03-02/08/[A-Za-z0-9%-][A-Za-z0-9%.~-]*_084500\.020000_0000beef\.wav$`)
	seen := map[string]string{}
	for _, id := range []string{"", ".", "..", "../../etc/passwd", "a/b", "a%2Fb", "a b", "a\x00b", "ä", "Ä", "\xff", "con\n",
		strings.Repeat("x", 300), strings.Repeat("x", 301), strings.Repeat("/", 300)} {
		p := Path(call.ChannelID(id), at, 0xBEEF)
		if id != "" && !safe.MatchString(p) || len(filepath.Base(p)) > 255 {
			t.Errorf("%q: %s", id, p)
		}
		if other, ok := seen[p]; ok {
			t.Errorf("%q and %q share %s", id, other, p)
		}
		seen[p] = id
	}
}

func BenchmarkWrite(b *testing.B) {
	path := filepath.Join(b.TempDir(), "x.wav")
	w := Create(path, media.PCMU)
	payload := make([]byte, 160)
	at := int64(0)
	b.ReportAllocs()
	b.SetBytes(160)
	for b.Loop() {
		if at == 15*60*8000 {
			w, at = Create(path, media.PCMU), 0
		}
		if err := w.WriteAt(payload, at); err != nil {
			b.Fatal(err)
		}
		at += 160
	}
}
