package lab

import (
	"container/heap"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tandem/cli/scenario"
)

// packet is an Ethernet frame with UDP in it.
func packet(payload byte) []byte {
	frame := make([]byte, ipStart+20+8+1)
	binary.BigEndian.PutUint16(frame[etherType:], unix.ETH_P_IP)
	frame[ipStart], frame[ipProtocol] = 0x45, udpInIP
	udp := ipStart + 20
	binary.BigEndian.PutUint16(frame[udp+6:], 0xBEEF)
	frame[udp+8] = payload
	return frame
}

func TestFate(t *testing.T) {
	const frames = 50_000
	bad := scenario.Quality{Loss: 0.05, Duplicate: 0.02, Reorder: 0.03, Delay: 5 * time.Millisecond, Jitter: 4 * time.Millisecond}
	draw := func(seed uint64) (all [][]time.Duration) {
		f := newFate(bad, rand.New(rand.NewPCG(seed, 0)))
		for range frames {
			all = append(all, f.of(packet(0)))
		}
		return all
	}
	fates := draw(1)
	var lost, doubled, overtook float64
	for _, delays := range fates {
		switch len(delays) {
		case 0:
			lost++
		case 2:
			doubled++
		}
		for _, d := range delays {
			if d < bad.Delay || d > bad.Delay+2*bad.Jitter+overtaken {
				t.Fatalf("held back for %v", d)
			}
		}
		if len(delays) > 0 && delays[0] >= overtaken {
			overtook++
		}
	}
	for _, c := range []struct {
		name      string
		got, want float64
	}{{"lost", lost, bad.Loss}, {"doubled", doubled, bad.Duplicate * (1 - bad.Loss)}, {"overtaken", overtook, bad.Reorder * (1 - bad.Loss)}} {
		if math.Abs(c.got/frames-c.want) > 0.005 {
			t.Errorf("%s: %v of all, want %v", c.name, c.got/frames, c.want)
		}
	}
	same := func(a, b []time.Duration) bool { return slices.Equal(a, b) }
	if !slices.EqualFunc(fates, draw(1), same) {
		t.Error("equal seeds differ")
	}
	if slices.EqualFunc(fates, draw(2), same) {
		t.Error("different seeds are equal")
	}
}

// Without ARP there is no network, and what is no UDP is not touched.
func TestFateSparesOthers(t *testing.T) {
	f := newFate(scenario.Quality{Loss: 1}, rand.New(rand.NewPCG(1, 1)))
	arp := make([]byte, 42)
	binary.BigEndian.PutUint16(arp[etherType:], unix.ETH_P_ARP)
	tcp := packet(1)
	tcp[ipProtocol] = 6
	for name, frame := range map[string][]byte{"ARP": arp, "TCP": tcp, "a runt": {1, 2, 3}, "nothing": nil} {
		before := slices.Clone(frame)
		if got := f.of(frame); len(got) != 1 || got[0] != 0 || !slices.Equal(frame, before) {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := f.of(packet(1)); got != nil {
		t.Errorf("a packet with no chance came through: %v", got)
	}
}

func FuzzFate(f *testing.F) {
	f.Add(packet(1))
	f.Add([]byte{})
	whole := packet(2)
	whole[ipStart] = 0x4F // a header longer than the frame
	f.Add(whole)
	f.Fuzz(func(t *testing.T, frame []byte) {
		before := slices.Clone(frame)
		newFate(scenario.Quality{}, rand.New(rand.NewPCG(1, 1))).of(frame)
		changed := 0
		for n := range frame {
			if frame[n] != before[n] {
				changed++
			}
		}
		if len(frame) != len(before) || changed > 2 {
			t.Errorf("%d bytes of %d changed", changed, len(before))
		}
	})
}

func TestHeldFramesInOrder(t *testing.T) {
	var f frames
	now := time.Now()
	for n, at := range []int{5, 1, 3, 1, 4} {
		heap.Push(&f, held{now.Add(time.Duration(at)), n, nil})
	}
	var got []int
	for len(f) > 0 {
		got = append(got, heap.Pop(&f).(held).number)
	}
	if want := []int{1, 3, 2, 4, 0}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Two hosts hear each other through a relay as badly as it was told to be,
// and not at all once the cable is pulled.
func TestRelayCarries(t *testing.T) {
	w, one, other := hosts(t)
	r, err := w.spoil(one, media, scenario.Quality{Loss: 0.2, Duplicate: 0.1, Reorder: 0.1, Delay: time.Millisecond, Jitter: time.Millisecond}, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	ear, mouth := ear(t, other, place(2)), mouth(t, one, place(2))
	const sent = 500
	heard := map[byte]int{}
	for n := range sent {
		mouth.Write([]byte{byte(n), byte(n >> 8)})
	}
	overtook, last := 0, -1
	for {
		n, ok := hear(t, ear)
		if !ok {
			break
		}
		if n < last {
			overtook++
		}
		last = n
		heard[byte(n)]++
	}
	total := 0
	for _, n := range heard {
		total += n
	}
	if n := favoured(t); n != len(r.ends) {
		t.Errorf("%d threads come before others, want one for each direction", n)
	}
	if want := sent * 0.8 * 1.1; math.Abs(float64(total)-want) > 60 || overtook == 0 {
		t.Errorf("%d of %d came, want about %.0f; %d were overtaken", total, sent, want, overtook)
	}
}

func TestCablesArePulled(t *testing.T) {
	w, one, other := hosts(t)
	ear, mouth := ear(t, other, place(2)), mouth(t, one, place(2))
	reach := func(want bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
			mouth.Write([]byte{1, 0}) // refused while it cannot be delivered
			if _, ok := hear(t, ear); ok == want {
				return
			}
		}
		t.Fatalf("reached is not %v", want)
	}
	reach(true)
	if err := w.pull(other, media); err != nil {
		t.Fatal(err)
	}
	reach(false)
	if err := w.put(other, media); err != nil {
		t.Fatal(err)
	}
	reach(true)
}

// hosts are two on the media network.
func hosts(t *testing.T) (w *wires, one, other *host) {
	t.Helper()
	if err := Missing(); err != nil {
		t.Skip(err)
	}
	w, err := newWires()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	var both [2]*host
	for n := range both {
		if both[n], err = newHost([]string{"one", "other"}[n]); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(both[n].close)
		if err := w.plug(both[n], media, place(n+1)); err != nil {
			t.Fatal(err)
		}
	}
	return w, both[0], both[1]
}

func ear(t *testing.T, h *host, p place) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	if err := h.do(func() (err error) {
		if conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(p.at(media)), Port: 9}); err != nil {
			return err
		}
		return conn.SetReadBuffer(1 << 20) // all that a test sends at once
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func mouth(t *testing.T, h *host, to place) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	if err := h.do(func() (err error) {
		conn, err = net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.ParseIP(to.at(media)), Port: 9})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// hear waits for one datagram and returns its number.
func hear(t *testing.T, conn *net.UDPConn) (number int, ok bool) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	datagram := make([]byte, 16)
	n, err := conn.Read(datagram)
	if err != nil || n != 2 {
		return 0, false
	}
	return int(binary.LittleEndian.Uint16(datagram)), true
}

// favoured is how many threads of this process have the recorders' priority.
func favoured(t *testing.T) (n int) {
	t.Helper()
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			t.Fatal(err)
		}
		if raw, err := unix.Getpriority(unix.PRIO_PROCESS, id); err == nil && 20-raw == niceness { // as getpriority(2) returns it
			n++
		}
	}
	return n
}
