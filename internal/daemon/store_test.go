package daemon

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const handedEnv = "TANDEM_DAEMON_HANDED"

func TestMain(m *testing.M) {
	if os.Getenv(handedEnv) != "" {
		for _, d := range append(Handed(), Handed()...) {
			text := make([]byte, 100)
			n, err := unix.Pread(d.FD, text, 0)
			flags, _ := unix.FcntlInt(uintptr(d.FD), unix.F_GETFD, 0)
			fmt.Println(d.Name, d.FD, string(text[:max(n, 0)]), err, flags&unix.FD_CLOEXEC != 0)
		}
		fmt.Println("left", os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES"))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// memory is a descriptor with something in it.
func memory(t *testing.T, text string) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), text)
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestHanded(t *testing.T) {
	for _, c := range []struct{ pid, fds, names, want string }{
		{"$$", "2", "a:b", "a 3 one <nil> true\nb 4 two <nil> true\nleft  \n"},
		{"$$", "2", "a", "a 3 one <nil> true\n 4 two <nil> true\nleft  \n"}, // some names are missing
		{"1", "2", "a:b", "left  \n"},                                       // for somebody else
		{"$$", "many", "a:b", "left  \n"},
	} {
		child := exec.Command("sh", "-c", "LISTEN_PID="+c.pid+` exec "$0"`, os.Args[0])
		child.Env = append(os.Environ(), handedEnv+"=1", "LISTEN_FDS="+c.fds, "LISTEN_FDNAMES="+c.names)
		child.ExtraFiles = []*os.File{memory(t, "one"), memory(t, "two")}
		got, err := child.Output()
		if err != nil || string(got) != c.want {
			t.Errorf("%+v: %v, got\n%s", c, err, got)
		}
	}
}

// receive reads one message and the text in the descriptor that came with it.
func receive(t *testing.T, conn *net.UnixConn) (message, held string) {
	t.Helper()
	b, control := make([]byte, 4096), make([]byte, 4096)
	n, controlled, _, _, err := conn.ReadMsgUnix(b, control)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:controlled])
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil || len(fds) != 1 {
			t.Fatalf("%d descriptors, %v", len(fds), err)
		}
		text := make([]byte, 100)
		n, err := unix.Pread(fds[0], text, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fds[0])
		held += string(text[:n])
	}
	return string(b[:n]), held
}

func TestStore(t *testing.T) {
	conn := asManager(t)
	s, err := OpenStore([]Descriptor{{"old", 100}})
	if err != nil {
		t.Fatal(err)
	}
	one, two := memory(t, "one"), memory(t, "two")
	s.Keep("a", int(one.Fd()))
	s.Keep("b", int(two.Fd()))
	s.Keep("b", int(one.Fd())) // has been
	s.Keep("c", int(two.Fd()))
	s.Forget("c") // before it was sent: nobody need hear of it
	s.Forget("old")
	s.Forget("never")
	one.Close() // the store has its own
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	for _, want := range [][2]string{
		{"FDSTORE=1\nFDPOLL=0\nFDNAME=a", "one"}, {"FDSTORE=1\nFDPOLL=0\nFDNAME=b", "two"}, {"FDSTOREREMOVE=1\nFDNAME=old", ""},
	} {
		if message, held := receive(t, conn); message != want[0] || held != want[1] {
			t.Errorf("got %q with %q, want %q", message, held, want)
		}
	}
	s.Forget("b")
	if message, _ := receive(t, conn); message != "FDSTOREREMOVE=1\nFDNAME=b" {
		t.Errorf("got %q", message)
	}
	s.Keep("last", int(two.Fd()))
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if message, held := receive(t, conn); message != "FDSTORE=1\nFDPOLL=0\nFDNAME=last" || held != "two" {
		t.Errorf("at the end: %q with %q", message, held)
	}
}

// A unit whose store has more names than an environment may hold cannot start.
func TestStoreStaysStartable(t *testing.T) {
	asManager(t)
	handed := []Descriptor{{strings.Repeat("h", 200), 100}}
	s, err := OpenStore(handed)
	if err != nil {
		t.Fatal(err)
	}
	defer s.manager.Close()
	f := memory(t, "x")
	const length = 200
	for i := range 2 * namesMost / length {
		s.Keep(fmt.Sprintf("%0*d", length, i), int(f.Fd()))
		if e, ok := s.next(); ok {
			unix.Close(e.fd)
		}
	}
	names := make([]string, 0, len(s.names))
	for name := range s.names {
		names = append(names, name)
	}
	if len(names) != namesMost/(length+1) {
		t.Errorf("%d names kept", len(names))
	}
	child := exec.Command("true")
	child.Env = []string{"LISTEN_FDNAMES=" + strings.Join(names, ":")}
	if err := child.Run(); err != nil {
		t.Errorf("a process with these names: %v", err)
	}
	s.Forget(names[0])
	s.next()
	if s.Keep("again", int(f.Fd())); !s.names["again"] {
		t.Error("there was room again")
	}
}

func TestStoreKnowsItsLimit(t *testing.T) {
	asManager(t)
	t.Setenv("FDSTORE", "2")
	s, err := OpenStore(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.manager.Close()
	f := memory(t, "x")
	for _, name := range []string{"a", "b", "c"} {
		s.Keep(name, int(f.Fd()))
	}
	if len(s.names) != 2 || len(s.queue) != 2 {
		t.Errorf("kept %v", s.names)
	}
	for e, ok := s.next(); ok; e, ok = s.next() {
		unix.Close(e.fd)
	}
}

func TestNoStore(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	s, err := OpenStore(nil)
	if s != nil || err != nil {
		t.Fatalf("%v, %v", s, err)
	}
	s.Keep("a", 0)
	s.Forget("a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Error(err)
	}
}
