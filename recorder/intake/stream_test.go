package intake

import (
	"testing"
	"time"

	"github.com/pion/rtp"
	"pgregory.net/rapid"
)

const second = int64(time.Second)

const rate = 200 // of DefaultConfig

func newStream() *stream { return &stream{limit: newLimit(rate, rateBurst*rate), payload: 0} }

// at is the arrival of the n-th packet of a 20 ms stream.
func at(n int) int64 { return 1700000000*second + int64(n)*20*int64(time.Millisecond) }

func head(ssrc uint32, n int) header {
	return header{sequence: uint16(n), timestamp: uint32(n * 160), ssrc: ssrc}
}

func TestParseHeader(t *testing.T) {
	full := func(change func([]byte) []byte) []byte {
		return change(append([]byte{0x80, 0x80, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, make([]byte, 160)...))
	}
	for _, c := range []struct {
		name string
		b    []byte
		want Reason
	}{
		{"plain", full(func(b []byte) []byte { return b }), accepted},
		{"header alone", full(func(b []byte) []byte { return b[:12] }), accepted},
		{"nothing", nil, Short},
		{"eleven bytes", full(func(b []byte) []byte { return b[:11] }), Short},
		{"version 0", full(func(b []byte) []byte { b[0] = 0; return b }), Version},
		{"version 1", full(func(b []byte) []byte { b[0] = 0x40; return b }), Version},
		{"version 3", full(func(b []byte) []byte { b[0] = 0xc0; return b }), Version},
		{"15 sources", full(func(b []byte) []byte { b[0] |= 15; return b }), accepted},
		{"15 sources cut", full(func(b []byte) []byte { b[0] |= 15; return b[:71] }), Short},
		{"15 sources just", full(func(b []byte) []byte { b[0] |= 15; return b[:72] }), accepted},
		{"extension", full(func(b []byte) []byte { b[0] |= 0x10; b[15] = 2; return b[:24] }), accepted},
		{"extension cut", full(func(b []byte) []byte { b[0] |= 0x10; b[15] = 2; return b[:23] }), Short},
		{"extension header cut", full(func(b []byte) []byte { b[0] |= 0x10; return b[:15] }), Short},
		{"padding", full(func(b []byte) []byte { b[0] |= 0x20; b[len(b)-1] = 160; return b }), accepted},
		{"padding of nothing", full(func(b []byte) []byte { b[0] |= 0x20; return b }), Short},
		{"padding into the header", full(func(b []byte) []byte { b[0] |= 0x20; b[len(b)-1] = 161; return b }), Short},
		{"padding without a byte", full(func(b []byte) []byte { b[0] |= 0x20; return b[:12] }), Short},
	} {
		if _, got := parseHeader(c.b); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add([]byte{0x80, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10})
	f.Add([]byte{0xb2, 0x88, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1})
	var given, kept, refused int
	f.Fuzz(func(t *testing.T, b []byte) {
		given++
		h, why := parseHeader(b)
		if why != accepted {
			refused++
		} else {
			kept++
		}
		if kept+refused != given {
			t.Fatalf("%d given, %d kept, %d refused", given, kept, refused)
		}
		if why != accepted {
			return
		}
		var p rtp.Header
		if _, err := p.Unmarshal(b); err != nil {
			// Profiles 0xbede and 0x100x have an inner structure that is
			// nothing to us.
			if b[0]&0x10 == 0 {
				t.Fatalf("accepted what cannot be read: %v", err)
			}
			return
		}
		if p.PayloadType != h.payloadType || p.SequenceNumber != h.sequence || p.Timestamp != h.timestamp || p.SSRC != h.ssrc {
			t.Fatalf("%+v, want %+v", h, p)
		}
	})
}

func TestCounter(t *testing.T) {
	type step struct{ from, to, by int } // sequence numbers, to excluded
	for _, c := range []struct {
		name  string
		steps []step
		lost  uint64
	}{
		{"in order", []step{{0, 100, 1}}, 0},
		{"across the wrap", []step{{65500, 65600, 1}}, 0},
		{"every second missing", []step{{0, 100, 2}}, 49},
		{"a hole across the wrap", []step{{65530, 65535, 1}, {65540, 65550, 1}}, 5},
		{"reordered", []step{{0, 1, 1}, {2, 3, 1}, {1, 2, 1}, {3, 10, 1}}, 0},
		{"all twice", []step{{0, 100, 1}, {50, 100, 1}}, 0},
		{"half the sequence space", []step{{0, 10, 1}, {0x8000 + 9, 0x8000 + 20, 1}}, 0},
		{"back by more than disorder", []step{{1000, 1010, 1}, {500, 520, 1}}, 0},
		{"a minute's outage", []step{{0, 10, 1}, {3010, 3020, 1}}, 3000},
		{"two minutes' outage", []step{{0, 10, 1}, {6010, 6020, 1}}, 6000},
	} {
		var k counter
		n := 0
		for _, s := range c.steps {
			for seq := s.from; seq < s.to; seq += s.by {
				k.push(header{sequence: uint16(seq), timestamp: uint32(seq * 160)}, at(n))
				n++
			}
		}
		if k.lost() != c.lost {
			t.Errorf("%s: lost %d, want %d", c.name, k.lost(), c.lost)
		}
	}
	var jump counter
	jump.push(header{sequence: 1, timestamp: 160}, at(0))
	jump.push(header{sequence: 20001, timestamp: 320}, at(1))
	jump.push(header{sequence: 20002, timestamp: 480}, at(2))
	if jump.lost() != 0 {
		t.Errorf("a jump that the timestamps do not bear out: lost %d, want 0", jump.lost())
	}
}

// Whatever is lost, doubled or a little out of order, the count is the sum of
// the holes.
func TestCounterAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := rapid.IntRange(0, 1<<16).Draw(t, "first")
		kept := rapid.SliceOfN(rapid.Bool(), 2, 500).Draw(t, "kept")
		var sent []int
		for i, k := range kept {
			if k || i == 0 || i == len(kept)-1 {
				sent = append(sent, first+i)
			}
		}
		lost := len(kept) - len(sent)
		for i := 1; i+2 < len(sent); i++ {
			if rapid.IntRange(0, 9).Draw(t, "swap") == 0 {
				sent[i], sent[i+1] = sent[i+1], sent[i]
			}
		}
		var k counter
		for i, n := range sent {
			k.push(head(1, n), at(i))
		}
		if got := k.lost(); got != uint64(lost) {
			t.Fatalf("lost %d, want %d", got, lost)
		}
		if want := uint32(first&0xffff + len(kept) - 1); k.cycles|uint32(k.sequence) != want {
			t.Fatalf("highest %#x, want %#x", k.cycles|uint32(k.sequence), want)
		}
	})
}

func TestJitter(t *testing.T) {
	var steady, shaky counter
	for n := range 200 {
		steady.push(head(1, n), at(n))
		shaky.push(head(1, n), at(n)+int64(n%2)*10*int64(time.Millisecond))
	}
	if steady.jitter>>4 != 0 {
		t.Errorf("steady stream: jitter %d", steady.jitter>>4)
	}
	// Every transit differs from the one before by 10 ms, 80 units.
	if j := shaky.jitter >> 4; j < 75 || j > 80 {
		t.Errorf("shaky stream: jitter %d, want about 80", j)
	}
}

func TestAdmitPayloadType(t *testing.T) {
	s := newStream()
	s.payload = 8
	for _, c := range []struct {
		payload uint8
		want    Reason
	}{{8, accepted}, {0, PayloadType}, {comfortNoise, accepted}, {101, PayloadType}} {
		h := head(1, 0)
		h.payloadType = c.payload
		if got := s.admit(h, at(0)); got != c.want {
			t.Errorf("payload type %d: %v, want %v", c.payload, got, c.want)
		}
	}
	s.payload = -1
	if got := s.admit(header{ssrc: 1, payloadType: 101}, at(1)); got != accepted {
		t.Errorf("before the answer: %v, want it kept", got)
	}
}

func TestRestartIsKeptFromItsFirstPacket(t *testing.T) {
	s := newStream()
	for n := range 100 {
		s.admit(head(1, n), at(n))
	}
	for n := 100; n < 200; n++ {
		if got := s.admit(head(2, n), at(n)); got != accepted {
			t.Fatalf("packet %d of the new sender: %v", n-100, got)
		}
	}
	if s.ssrc != 2 {
		t.Error("the new sender was not latched")
	}
}

func TestSecondSenderGetsLittle(t *testing.T) {
	s := newStream()
	kept := 0
	for n := range 50 * 10 { // ten seconds
		if got := s.admit(head(1, n), at(n)); got != accepted {
			t.Fatalf("packet %d of the stream: %v", n, got)
		}
		if s.admit(head(2, n), at(n)+1000) == accepted {
			kept++
		}
	}
	if s.ssrc != 1 || kept == 0 || kept > foreignBurst+12 {
		t.Errorf("latched %d, %d packets of the second sender kept", s.ssrc, kept)
	}
}

func TestSenderThatOutnumbersIsLatched(t *testing.T) {
	s := newStream()
	for n := range 200 {
		if n%8 == 0 { // what is left of the old stream: one packet every 160 ms
			s.admit(head(1, n/8), at(n))
		}
		s.admit(head(2, n), at(n)+1000)
	}
	if s.ssrc != 2 {
		t.Error("the old sender's trickle kept the new one out")
	}
	// A flood outnumbers, too, and is no stream.
	s = newStream()
	for n := range 200 {
		s.admit(head(1, n), at(n))
		for k := range 100 {
			s.admit(head(2, k), at(n)+int64(k)*1000)
		}
	}
	if s.ssrc != 1 {
		t.Error("a flood was latched")
	}
}

func TestFloodOfTheLatchedSenderIsCapped(t *testing.T) {
	s := newStream()
	kept := 0
	const seconds, flood = 5, 10_000
	for n := range seconds * flood {
		if s.admit(head(1, n), at(0)+int64(n)*second/flood) == accepted {
			kept++
		}
	}
	if want := rate * (seconds + rateBurst); kept < want-5 || kept > want+5 {
		t.Errorf("kept %d, want about %d", kept, want)
	}
	// What waited in the kernel for long comes at once and is judged by when it arrived.
	s = newStream()
	for n := range 1000 {
		if got := s.admit(head(1, n), at(n)); got != accepted {
			t.Fatalf("packet %d of a backlog: %v", n, got)
		}
	}
}

func TestClockSetBackDoesNotShutAStreamOut(t *testing.T) {
	s := newStream()
	for n := range 100 {
		s.admit(head(1, n), at(n))
	}
	refused := 0
	for n := 100; n < 200; n++ {
		if s.admit(head(1, n), at(n)-3600*second) != accepted {
			refused++
		}
	}
	if refused > 0 {
		t.Errorf("%d packets refused after the clock was set back an hour", refused)
	}
}

// A flood that drowns the stream for seconds is never taken for it, however
// little of it comes through the socket's buffer; what comes back is the stream.
func TestDrownedStreamIsNotReplaced(t *testing.T) {
	for _, burst := range []int{12, 64, 600} { // of each sweep, what the buffer held
		s := &stream{payload: 0, limit: newLimit(200, 2*200)}
		arrival := int64(time.Hour)
		for seq := range uint16(50) {
			s.admit(header{ssrc: 1, sequence: seq, timestamp: uint32(seq) * 160}, arrival)
			arrival += int64(20 * time.Millisecond)
		}
		kept := 0
		for n := range uint16(40) { // two seconds of sweeps
			for i := range burst {
				if s.admit(header{ssrc: 2, sequence: n*1000 + uint16(i)}, arrival+int64(i)*10_000) == accepted {
					kept++
				}
			}
			arrival += int64(50 * time.Millisecond)
		}
		s.admit(header{ssrc: 1, sequence: 150, timestamp: 150 * 160}, arrival)
		if s.ssrc != 1 || kept > foreignBurst+3 {
			t.Errorf("%d a sweep: latched to %d, %d of the flood kept", burst, s.ssrc, kept)
		}
	}
}

// A switch that restarts its streams every second is recorded whole each time.
func TestRestartsLoseNothing(t *testing.T) {
	s := newStream()
	for n := range 50 * 60 {
		if got := s.admit(head(uint32(n/50), n%50), at(n)); got != accepted {
			t.Fatalf("packet %d of stream %d: %v", n%50, n/50, got)
		}
	}
}
