package monitor

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// floor is a director's monitoring port on a real socket.
type floor struct {
	address  string
	registry *prometheus.Registry
	asked    atomic.Int64 // calls of answer
	stuck    atomic.Pointer[chan struct{}]
}

func serve(t *testing.T) *floor {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &floor{address: conn.LocalAddr().String(), registry: prometheus.NewRegistry()}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	metrics := NewMetrics(f.registry)
	go func() { done <- Serve(ctx, conn, key, f.answer, metrics) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return f
}

func (f *floor) answer() (Reply, bool) {
	f.asked.Add(1)
	if wait := f.stuck.Load(); wait != nil {
		<-*wait
		return Reply{}, false
	}
	return full(), true
}

// until polls; the kernel moves datagrams when it likes.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

func (f *floor) until(t *testing.T, result string, n int) {
	t.Helper()
	until(t, result, func() bool { return counted(t, f.registry)[result] >= n })
}

func round(t *testing.T, p *Prober, patience time.Duration) Round {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return p.Probe(ctx)
}

func TestEveryPathIsProbed(t *testing.T) {
	f := serve(t)
	nobody, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer nobody.Close()
	p := NewProber("wd-b", key, []string{f.address, nobody.LocalAddr().String(), f.address})
	defer p.Close()
	for range 3 {
		r := round(t, p, 100*time.Millisecond)
		best, ok := r.Reply()
		if !ok || best.Reply.Director != "dir-a" || best.RTT <= 0 {
			t.Fatalf("%+v", r)
		}
		if r.Heard() != 2 || r.Paths[1].Heard || r.Paths[1].Err == nil {
			t.Fatalf("%+v", r)
		}
	}
	f.until(t, answered, 6)
}

// When all answer, nobody waits for the end of the round.
func TestRoundEndsWithItsLastAnswer(t *testing.T) {
	p := NewProber("wd-b", key, []string{serve(t).address})
	defer p.Close()
	began := time.Now()
	if round(t, p, time.Minute).Heard() != 1 || time.Since(began) > 10*time.Second {
		t.Fatalf("took %v", time.Since(began))
	}
}

func TestStrangersAndReplaysGetNothing(t *testing.T) {
	f := serve(t)
	conn, err := net.Dial("udp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	send := func(datagram []byte) {
		if _, err := conn.Write(datagram); err != nil {
			t.Fatal(err)
		}
	}
	good := signed(t, probe(7))
	send(good)
	f.until(t, answered, 1)
	buffer := make([]byte, MaxSize+1)
	if n, err := conn.Read(buffer); err != nil || n > MaxSize {
		t.Fatalf("answer of %d bytes, %v", n, err)
	}
	send(good)
	f.until(t, replay, 1)
	send([]byte("who are you, and what do you do here, if I may ask?"))
	f.until(t, stranger, 1)
	send(make([]byte, 1200))
	f.until(t, oversize, 1)
	send([]byte("x"))
	f.until(t, malformed, 1)
	send(signed(t, probe(8))) // whatever was sent before this answer is here before it
	if n, err := conn.Read(buffer); err != nil {
		t.Fatal(err)
	} else if _, err := parseReply(key, buffer[:n], "n"); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(buffer); err == nil {
		t.Fatalf("a third answer of %d bytes", n)
	}
}

// A director whose loop does not turn answers nobody, and a flood of signed
// probes asks it no more than once at a time.
func TestStuckLoopLooksDead(t *testing.T) {
	f := serve(t)
	stuck := make(chan struct{})
	release := sync.OnceFunc(func() { close(stuck) })
	defer release() // or the server never ends
	f.stuck.Store(&stuck)
	conn, err := net.Dial("udp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const flood = 100
	for i := range flood {
		if _, err := conn.Write(signed(t, probe(uint64(i+1)))); err != nil {
			t.Fatal(err)
		}
	}
	f.until(t, busy, flood-2*maxWaiting-1) // so many are in the loop's hands, and so many wait for it
	if n := f.asked.Load(); n != 1 {
		t.Errorf("asked %d times at once", n)
	}
	p := NewProber("wd-a", key, []string{f.address})
	defer p.Close()
	if r := round(t, p, 20*time.Millisecond); r.Heard() != 0 {
		t.Errorf("a stuck loop answered: %+v", r)
	}
	f.stuck.Store(nil)
	release()
	rounds := int64(0)
	until(t, "an answer", func() bool {
		rounds++
		return round(t, p, 100*time.Millisecond).Heard() == 1
	})
	if n := f.asked.Load(); n > 3+rounds { // the first one, all that waited, and the prober
		t.Errorf("%d probes made the loop be asked %d times", flood, n)
	}
}

// A prober that starts again after its clock was set back is heard again
// within seconds.
func TestClockSetBackIsOvertaken(t *testing.T) {
	f := serve(t)
	first := NewProber("wd-b", key, []string{f.address})
	defer first.Close()
	first.paths[0].sequence += uint64(24 * time.Hour)
	if round(t, first, time.Second).Heard() != 1 {
		t.Fatal("not heard at all")
	}
	second := NewProber("wd-b", key, []string{f.address})
	defer second.Close()
	rounds := 0
	until(t, "heard", func() bool {
		rounds++
		return round(t, second, 5*time.Millisecond).Heard() == 1
	})
	if rounds == 1 || rounds > maxJump+2 {
		t.Errorf("heard after %d rounds", rounds)
	}
}

// A path on which nobody listens is heard as soon as somebody does.
func TestSilentPathComesBack(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := conn.LocalAddr().String()
	conn.Close()
	p := NewProber("wd-b", key, []string{address})
	defer p.Close()
	if round(t, p, 20*time.Millisecond).Heard() != 0 {
		t.Fatal("heard a closed port")
	}
	if conn, err = net.ListenPacket("udp", address); err != nil {
		t.Skip("the port was taken meanwhile")
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	metrics := NewMetrics(prometheus.NewRegistry())
	go Serve(ctx, conn, key, func() (Reply, bool) { return full(), true }, metrics)
	until(t, "heard", func() bool { return round(t, p, 100*time.Millisecond).Heard() == 1 })
}
