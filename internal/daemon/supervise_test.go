package daemon

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/internal/bubble"
)

// told is what a supervision said, each line with the time since it began.
type told struct {
	began time.Time
	lines []string
}

func (s *told) say(lines ...string) {
	for _, l := range lines {
		s.lines = append(s.lines, time.Since(s.began).String()+" "+l)
	}
}

// A day of a daemon with a loop that comes late, hangs for a while, and comes back.
func TestSupervision(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		said := &told{began: time.Now()}
		late := func(context.Context) error {
			switch since := time.Since(said.began); {
			case since < 120*time.Millisecond:
				return errors.New("not yet")
			case since > 5*time.Second && since < 12*time.Second:
				return errors.New("blocks unwritten")
			}
			return nil
		}
		hangs := func(ctx context.Context) error {
			if since := time.Since(said.began); since > 9*time.Second && since < 10*time.Second {
				<-ctx.Done()
			}
			return ctx.Err()
		}
		status := "2 channels"
		s := &supervision{
			tell: said.say, every: 3 * time.Second, fed: true, still: map[string]bool{},
			status: func(context.Context) string { return status },
			loops:  []Loop{{"journal", late}, {"control", hangs}},
		}
		ctx, cancel := context.WithTimeout(t.Context(), 17*time.Second)
		defer cancel()
		s.run(ctx)
		want := []string{
			"0s STATUS=starting: waits for journal",
			"150ms READY=1", "150ms WATCHDOG=1", "150ms STATUS=2 channels",
			"3.15s WATCHDOG=1",
			"6.15s STATUS=does not get on: journal",
			"10.15s STATUS=does not get on: journal, control", // it was waited for
			"13.15s WATCHDOG=1", "13.15s STATUS=2 channels",
			"16.15s WATCHDOG=1",
			"17s STOPPING=1", "17s STATUS=stopping",
		}
		if !slices.Equal(said.lines, want) {
			t.Errorf("said\n%s\nwant\n%s", strings.Join(said.lines, "\n"), strings.Join(want, "\n"))
		}
	})
}

// asManager makes a notify socket as a service manager has it.
func asManager(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	return conn
}

func read(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	b := make([]byte, 4096)
	n, err := conn.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestSupervise(t *testing.T) {
	conn := asManager(t)
	t.Setenv("WATCHDOG_USEC", "30000") // a look every ten milliseconds
	Starting("opening the catalog", time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Supervise(ctx, func(context.Context) string { return "well" }) }()
	for _, want := range []string{"STATUS=opening the catalog\nEXTEND_TIMEOUT_USEC=60000000", "READY=1\nWATCHDOG=1\nSTATUS=well", "WATCHDOG=1", "WATCHDOG=1"} {
		if got := read(t, conn); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	last := read(t, conn)
	for last == "WATCHDOG=1" {
		last = read(t, conn)
	}
	if last != "STOPPING=1\nSTATUS=stopping" {
		t.Errorf("at the end: %q", last)
	}
}

// A manager that reads nothing holds nobody up for longer than it is worth.
func TestSuperviseDeafManager(t *testing.T) {
	asManager(t)
	m, err := dialManager()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	began := time.Now()
	for time.Since(began) < notifyWithin/2 { // until its queue is full
		m.say("STATUS=" + strings.Repeat("x", 1000))
	}
	if took := time.Since(began); took > 3*notifyWithin {
		t.Errorf("waited %v", took)
	}
}

func TestNobodySupervises(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	Starting("nothing", time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	asked := false
	err := Supervise(ctx, func(context.Context) string { asked = true; return "" }, Loop{"one", func(context.Context) error { asked = true; return nil }})
	if err != nil || asked {
		t.Errorf("%v, asked %v", err, asked)
	}
}

func TestHealthy(t *testing.T) {
	well := Loop{"sweep", func(context.Context) error { return nil }}
	stuck := Loop{"journal", func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}}
	bubble.Test(t, func(t *testing.T) {
		if err := Healthy(well, well); err != nil {
			t.Error(err)
		}
		if err := Healthy(well, stuck); err == nil || !strings.Contains(err.Error(), "loop journal does not get on") || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a loop that stands still: %v", err)
		}
	})
}
