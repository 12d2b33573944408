package intake

import (
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tandem/recorder/journal"
)

// shelf keeps sockets as a service manager does.
type shelf struct {
	t   testing.TB
	mu  sync.Mutex
	fds map[string]int
}

func newShelf(t testing.TB) *shelf {
	s := &shelf{t: t, fds: map[string]int{}}
	t.Cleanup(func() {
		for _, fd := range s.fds {
			unix.Close(fd)
		}
	})
	return s
}

func duplicate(t testing.TB, fd int) int {
	t.Helper()
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	return own
}

func (s *shelf) Keep(name string, fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, twice := s.fds[name]; twice {
		s.t.Errorf("%s is kept twice", name)
	}
	s.fds[name] = duplicate(s.t, fd)
}

func (s *shelf) Forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if fd, ok := s.fds[name]; ok {
		unix.Close(fd)
		delete(s.fds, name)
	}
}

func (s *shelf) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.fds))
}

// hand gives the intake duplicates of all there is.
func (s *shelf) hand(in *Intake) {
	s.t.Helper()
	for _, name := range s.names() {
		if !in.Inherit(name, duplicate(s.t, s.fds[name])) {
			s.t.Errorf("%s is not taken", name)
		}
	}
}

// What arrives while there is no intake is journaled by the next one, with the
// time of its arrival.
func TestInheritedSockets(t *testing.T) {
	s := newShelf(t)
	cfg := testConfig()
	change := func(c *Config, _ *journal.Config) { *c = cfg; c.Keeper = s }
	a := startRig(t, change)
	muxed, p1 := a.open(1)
	plain, p2 := a.open(2)
	_, p3 := a.open(3)
	for num, mux := range map[uint32]bool{1: true, 2: false} {
		if err := a.Update(settled(num), mux, ""); err != nil {
			t.Fatal(err)
		}
	}
	sendRange(t, muxed, 7, 0, 10)
	a.waitPackets(1, 10)
	a.Close(3, "logged_off")
	want := []string{nameRTCP(p2 + 1), nameRTP(p1), nameRTP(p2)}
	a.wait("the closed port is forgotten", func() bool { return slices.Equal(s.names(), want) })
	a.stop()
	if !slices.Equal(s.names(), want) {
		t.Fatalf("kept %v through the end, want %v", s.names(), want)
	}

	before := time.Now()
	sendRange(t, muxed, 7, 10, 40)
	sendRange(t, plain, 8, 0, 5)
	send(t, dial(t, p2+1), report(t, 8))
	after := time.Now()
	b := newRig(t, change)
	s.hand(b.Intake)
	for num, port := range map[uint32]int{1: p1, 2: p2} {
		if got, err := b.Open(settled(num), port); err != nil || got != port {
			t.Fatalf("channel %d: %v, port %d, want %d", num, err, got, port)
		}
		if err := b.Update(settled(num), num == 1, ""); err != nil {
			t.Fatal(err)
		}
	}
	if n, strays := b.Kept(), b.Disown(); n != 3 || strays != 0 {
		t.Errorf("%d sockets used again, %d not", n, strays)
	}
	if _, err := b.Open(settled(3), p3); err != nil { // its port is free
		t.Error(err)
	}
	b.runJournal()
	b.runIntake()
	b.waitPackets(1, 30)
	b.waitPackets(2, 5)
	b.wait("the sender report is read", func() bool { st, _ := b.Stats(2); return !st.LastReport.IsZero() })
	if st, _ := b.Stats(2); st.LastReport.Before(before) || st.LastReport.After(after) {
		t.Errorf("sender report at %v, sent between %v and %v", st.LastReport, before, after)
	}
	b.stop()
	packets, _ := b.read()
	wantNumbers(t, packets[1], 7, 10, 40)
	wantNumbers(t, packets[2], 8, 0, 5)
	for _, p := range append(packets[1], packets[2]...) {
		if at := p.At(); at.Before(before.Add(-time.Microsecond)) || at.After(after) {
			t.Errorf("arrival %v, sent between %v and %v", at, before, after)
		}
	}
}

// A descriptor that fits no channel does not stay open, here or there.
func TestInheritedAndOfNoUse(t *testing.T) {
	s := newShelf(t)
	cfg := testConfig()
	r := newRig(t, func(c *Config, _ *journal.Config) { *c = cfg; c.Keeper = s })
	local := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	udp := func(addr netip.Addr) (fd, port int) {
		fd, err := listenUDP(netip.AddrPortFrom(addr, 0), 4096)
		if err != nil {
			t.Fatal(err)
		}
		name, err := unix.Getsockname(fd)
		if err != nil {
			t.Fatal(err)
		}
		return fd, name.(*unix.SockaddrInet4).Port
	}
	tcp, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: local.AsSlice()})
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	tcpFile, err := tcp.File()
	if err != nil {
		t.Fatal(err)
	}
	defer tcpFile.Close()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	good, port := udp(local)
	other, otherPort := udp(netip.AddrFrom4([4]byte{127, 0, 0, 2}))
	for _, c := range []struct {
		name   string
		fd     int
		taken  bool
		strays int // that Disown then finds
	}{
		{"blocks", duplicate(t, good), false, 0},
		{"rtp-", duplicate(t, good), true, 0},
		{"rtp--1", duplicate(t, good), true, 0},
		{"rtcp-99999", duplicate(t, good), true, 0},
		{nameRTP(port + 1), duplicate(t, good), true, 0},
		{nameRTP(otherPort), other, true, 0},
		{nameRTP(tcp.Addr().(*net.TCPAddr).Port), duplicate(t, int(tcpFile.Fd())), true, 0},
		{nameRTP(port), duplicate(t, int(file.Fd())), true, 0},
		{nameRTP(port), good, true, 1},
	} {
		s.Keep(c.name, c.fd)
		if taken := r.Inherit(c.name, c.fd); taken != c.taken {
			t.Errorf("%s: taken %v", c.name, taken)
		}
		if n := r.Disown(); n != c.strays {
			t.Errorf("%s: %d strays", c.name, n)
		}
		if _, err := unix.FcntlInt(uintptr(c.fd), unix.F_GETFD, 0); c.taken != (err != nil) {
			t.Errorf("%s: descriptor open: %v", c.name, err == nil)
		}
		if kept := slices.Contains(s.names(), c.name); kept == c.taken {
			t.Errorf("%s: kept %v", c.name, kept)
		}
		if !c.taken {
			unix.Close(c.fd)
			s.Forget(c.name)
		}
	}
}

// A switch that first refuses to multiplex RTCP and then agrees leaves no
// socket behind; with more channels than names have room for only RTP is kept.
func TestControlSocketsAreKept(t *testing.T) {
	s := newShelf(t)
	r := startRig(t, func(c *Config, _ *journal.Config) { c.Keeper = s })
	_, port := r.open(1)
	for _, c := range []struct {
		mux  bool
		want []string
	}{
		{false, []string{nameRTCP(port + 1), nameRTP(port)}}, {true, []string{nameRTP(port)}}, {false, []string{nameRTCP(port + 1), nameRTP(port)}},
	} {
		if err := r.Update(settled(1), c.mux, ""); err != nil {
			t.Fatal(err)
		}
		r.wait("what is kept changes", func() bool { return slices.Equal(s.names(), c.want) })
	}
	r.Close(1, "")
	r.wait("nothing is kept", func() bool { return len(s.names()) == 0 })

	many := newShelf(t)
	r = startRig(t, func(c *Config, _ *journal.Config) { c.Keeper, c.MaxChannels, c.Shards = many, maxNamed+1, 1 })
	_, port = r.open(1)
	if err := r.Update(settled(1), false, ""); err != nil {
		t.Fatal(err)
	}
	if want := []string{nameRTP(port)}; !slices.Equal(many.names(), want) {
		t.Errorf("kept %v, want %v", many.names(), want)
	}
}

// Of a channel that was open before this process, and whose socket was kept by
// nobody, nobody can have heard what was sent meanwhile.
func TestUnheardWhileDown(t *testing.T) {
	began, now := time.Unix(1000, 0), time.Unix(1002, 0)
	ago := func(n time.Duration) time.Time { return began.Add(-n) }
	for _, c := range []struct {
		name           string
		unread, opened time.Time
		inherited      bool
		from           time.Time // zero: nothing is unheard
	}{
		{"down for a second", ago(time.Second), ago(time.Hour), false, ago(time.Second)},
		{"opened at the last moment", ago(time.Second), ago(time.Millisecond), false, ago(time.Millisecond)},
		{"its socket was kept", ago(time.Second), ago(time.Hour), true, time.Time{}},
		{"opened by this process", ago(time.Second), now, false, time.Time{}},
		{"the first recorder", time.Time{}, ago(time.Hour), false, time.Time{}},
	} {
		in := &Intake{cfg: Config{Unread: c.unread}, began: began}
		notes := in.unheard(journal.Channel{Num: 7, Opened: c.opened}, c.inherited, now)
		if c.from.IsZero() != (len(notes) == 0) || len(notes) > 0 && *notes[0].Unheard != (journal.Unheard{Num: 7, From: c.from, To: now}) {
			t.Errorf("%s: %+v", c.name, notes)
		}
	}
}
