package catalog

import (
	"encoding/json"
	"reflect"
	"testing"
)

func TestHoles(t *testing.T) {
	var h Holes
	h.Add(160, 320)
	h.Add(200, 480) // half of it is known
	h.Add(0, 100)   // behind the others there is nothing of it
	h.Add(1<<33, 1<<33+7)
	h.Shift(5)
	if want := (Holes{{165, 160}, {325, 160}, {1<<33 + 5, 7}}); !reflect.DeepEqual(h, want) {
		t.Fatalf("got %v, want %v", h, want)
	}
	text, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	var back Holes
	if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(back, h) {
		t.Errorf("%s is read as %v, %v", text, back, err)
	}
}

// Whatever a damaged catalog holds: an error, or holes in order that are
// written again as the same bytes.
func FuzzHoles(f *testing.F) {
	f.Add([]byte{})
	f.Add(Holes{{0, 1}, {160, 160}, {1 << 40, 1}}.encode())
	f.Add([]byte{5, 0})
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		var h Holes
		if h.decode(b) != nil {
			return
		}
		end := int64(0)
		for _, hole := range h {
			if hole.At < end || hole.N <= 0 {
				t.Fatalf("%v of %x", h, b)
			}
			end = hole.At + hole.N
		}
		var again Holes
		if err := again.decode(h.encode()); err != nil || !reflect.DeepEqual(again, h) {
			t.Fatalf("%v becomes %v, %v", h, again, err)
		}
		if len(h.encode()) > len(b) {
			t.Fatalf("%d bytes of %d", len(h.encode()), len(b))
		}
	})
}
