package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

const (
	// statusEvery is how often systemd is told how a daemon is, at least.
	statusEvery = 5 * time.Second
	// firstLook is how often the loops of a daemon that starts are looked at.
	firstLook = 50 * time.Millisecond
	// answerWithin is how long one loop has for a sign of life.
	answerWithin = time.Second
	// notifyWithin bounds how long a manager that reads nothing is waited for.
	notifyWithin = time.Second
)

// Loop is one that must go on for its daemon to be of any use.
type Loop struct {
	Name string
	// Alive returns nil when the loop gets on, and else why not; it returns
	// when ctx ends at the latest.
	Alive func(ctx context.Context) error
}

// Healthy asks every loop for a sign of life, and returns why the first of them
// gives none.
func Healthy(loops ...Loop) error {
	for _, l := range loops {
		ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
		err := l.Alive(ctx)
		cancel()
		if err != nil {
			return fmt.Errorf("loop %s does not get on: %w", l.Name, err)
		}
	}
	return nil
}

// Starting tells systemd what a start is at when that may take a while, and
// to wait for the next word for so long. Anywhere else it does nothing.
func Starting(step string, most time.Duration) {
	m, err := dialManager()
	if m == nil || err != nil {
		return // Supervise says so
	}
	defer m.Close()
	m.say("STATUS="+step, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", most.Microseconds()))
}

// Supervise speaks for a daemon that serves to the service manager that started it
// (sd_notify(3)), until ctx ends: READY=1 once every loop has given a sign of
// life, then the status, one sentence, when it is another one, and WATCHDOG=1
// in every third of WatchdogSec in which every loop gets on. A loop that does
// not is named in the log, and has the daemon restarted. Without a manager
// Supervise only waits.
func Supervise(ctx context.Context, status func(context.Context) string, loops ...Loop) error {
	m, err := dialManager()
	if err != nil {
		slog.Warn("service manager not reached", "err", err)
	}
	if m == nil {
		<-ctx.Done()
		return nil
	}
	defer m.Close()
	limit, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		slog.Warn("service manager's watchdog is not fed", "err", err)
	}
	s := &supervision{tell: m.say, status: status, loops: loops, every: statusEvery, fed: limit > 0, still: map[string]bool{}}
	if s.fed {
		s.every = min(statusEvery, limit/3)
	}
	s.run(ctx)
	return nil
}

// supervision is Supervise at work.
type supervision struct {
	tell   func(lines ...string)
	status func(context.Context) string
	loops  []Loop
	every  time.Duration
	fed    bool // the manager waits for WATCHDOG=1

	ready bool
	told  string          // the last status
	still map[string]bool // loops that did not get on when last looked at
}

func (s *supervision) run(ctx context.Context) {
	for s.look(ctx); pause(ctx, s.pace()); {
		s.look(ctx)
	}
	s.tell(systemd.SdNotifyStopping, "STATUS=stopping")
}

// pace is the time to the next look.
func (s *supervision) pace() time.Duration {
	if !s.ready {
		return firstLook
	}
	return s.every
}

// look asks every loop once, and tells what follows.
func (s *supervision) look(ctx context.Context) {
	stuck := s.stuck(ctx)
	if ctx.Err() != nil {
		return
	}
	var lines []string
	if len(stuck) == 0 && !s.ready {
		s.ready = true
		lines = append(lines, systemd.SdNotifyReady)
	}
	if len(stuck) == 0 && s.fed {
		lines = append(lines, systemd.SdNotifyWatchdog)
	}
	if status := s.sentence(ctx, stuck); status != s.told {
		s.told = status
		lines = append(lines, "STATUS="+status)
	}
	if len(lines) > 0 {
		s.tell(lines...)
	}
}

// sentence is the status, in one line.
func (s *supervision) sentence(ctx context.Context, stuck []string) string {
	switch {
	case len(stuck) > 0 && s.ready:
		return "does not get on: " + strings.Join(stuck, ", ")
	case len(stuck) > 0:
		return "starting: waits for " + strings.Join(stuck, ", ")
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	return strings.ReplaceAll(s.status(ctx), "\n", " ") // a line feed would begin another assignment
}

// stuck names the loops that do not get on, and logs each change of that.
func (s *supervision) stuck(ctx context.Context) (names []string) {
	for _, l := range s.loops {
		answer, cancel := context.WithTimeout(ctx, answerWithin)
		err := l.Alive(answer)
		cancel()
		if ctx.Err() != nil {
			return nil // the end is nobody's fault
		}
		if err != nil {
			names = append(names, l.Name)
		}
		if !s.ready || s.still[l.Name] == (err != nil) {
			continue
		}
		s.still[l.Name] = err != nil
		if err != nil {
			slog.Error("loop does not get on", "loop", l.Name, "restart", s.fed, "err", err)
		} else {
			slog.Info("loop gets on again", "loop", l.Name)
		}
	}
	return names
}

// pause waits, and reports whether to go on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// manager is the socket of the service manager that started this process.
type manager struct{ *net.UnixConn }

// dialManager returns nil where there is none.
func dialManager() (*manager, error) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil, nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("reach service manager: %w", err)
	}
	return &manager{conn}, nil
}

// say sends assignments in one message. A manager that does not read is not
// waited for: what it does not hear in time it acts upon itself.
func (m *manager) say(lines ...string) {
	err := m.SetWriteDeadline(time.Now().Add(notifyWithin))
	if err = cmp.Or(err, m.sayWith(nil, lines...)); err != nil {
		slog.Warn("service manager not told", "err", err)
	}
}

// sayWith sends assignments with control data, and waits while the manager's
// queue is full.
func (m *manager) sayWith(control []byte, lines ...string) error {
	raw, err := m.SyscallConn()
	if err != nil {
		return err
	}
	text := []byte(strings.Join(lines, "\n"))
	var sent error
	err = raw.Write(func(fd uintptr) (done bool) {
		sent = unix.Sendmsg(int(fd), text, control, nil, unix.MSG_NOSIGNAL)
		return !errors.Is(sent, unix.EAGAIN)
	})
	return cmp.Or(err, sent)
}
