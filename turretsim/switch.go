// Package turretsim is a turret switch for tests, demonstrations and failover
// drills: a trading floor that speaks the turret interface with a CTI link,
// real SIP and real RTP, whose voice names itself, and which fails in every
// way it is asked to. What it really did it writes into a truth log.
package turretsim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tandem/internal/daemon"
	"tandem/turretsim/truth"
	"tandem/turretsim/voice"
)

// Switch is one simulated turret switch. Its methods are safe for concurrent use.
type Switch struct {
	cfg     Config
	log     *slog.Logger
	clock   clock
	truth   *truth.Log
	faults  atomic.Pointer[Faults]
	sender  *sender
	phone   *phone
	cti     *ctiServer
	floor   *floor
	control net.Listener // nil: none wanted
}

// Addrs is where a switch listens.
type Addrs struct {
	CTI     netip.AddrPort `json:"cti"`
	SIP     netip.AddrPort `json:"sip"` // UDP and TCP
	RTP     netip.AddrPort `json:"rtp"` // of the first shard
	Control netip.AddrPort `json:"control,omitzero"`
}

// New binds every listener; ports may be 0. The media clock starts here, the
// floor with Run. A Switch that is never run must be closed.
func New(cfg Config) (*Switch, error) {
	if faults := cfg.Validate(); len(faults) > 0 {
		return nil, fmt.Errorf("configure turretsim: %s", faults[0])
	}
	clips, err := loadClips(cfg.RTP.Voice)
	if err != nil {
		return nil, err
	}
	s := &Switch{cfg: cfg, log: slog.Default(), clock: newClock(time.Now())}
	s.faults.Store(&cfg.Faults)
	if err := s.open(clips); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func loadClips(paths []string) (clips []*voice.Clip, err error) {
	for _, path := range paths {
		clip, err := voice.LoadClip(path)
		if err != nil {
			return nil, err
		}
		clips = append(clips, clip)
	}
	return clips, nil
}

func (s *Switch) open(clips []*voice.Clip) (err error) {
	if s.cfg.TruthLog != "" {
		if s.truth, err = truth.Create(s.cfg.TruthLog); err != nil {
			return err
		}
	}
	if s.sender, err = newSender(s.cfg, s.clock, s.truth, &s.faults); err != nil {
		return err
	}
	if s.phone, err = newPhone(s.cfg, s.sender, &s.faults, s.log); err != nil {
		return err
	}
	if s.cti, err = newCTIServer(s.cfg.CTI, s.cfg.Seed, &s.faults, s.log); err != nil {
		return err
	}
	s.floor = newFloor(s.cfg, s.clock, s.truth, s.phone, s.sender, &s.faults, clips)
	s.cti.floor = s.floor
	if s.cfg.Control != "" {
		if s.control, err = net.Listen("tcp", s.cfg.Control); err != nil {
			return fmt.Errorf("listen for control: %w", err)
		}
	}
	s.truth.Add(truth.Line{Type: truth.TypeStart, At: s.clock.origin, Origin: s.clock.origin, Rate: rate, Seed: s.cfg.Seed, Voice: s.floor.voice()})
	s.floor.rename(s.cti)
	return nil
}

// Close lets go of what New bound. After Run it has nothing left to do.
func (s *Switch) Close() error {
	if s.control != nil {
		s.control.Close()
	}
	if s.cti != nil {
		s.cti.listener.Close()
	}
	if s.phone != nil {
		s.phone.udp.Close()
		s.phone.tcp.Close()
	}
	if s.sender != nil {
		s.sender.close()
	}
	return s.truth.Close()
}

// Run is the switch's life: it returns nil when ctx ends, after the truth log
// is complete. Dialogs are not hung up. It may be called once.
func (s *Switch) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.sender.run(ctx) })
	g.Go(func() error { return s.phone.run(ctx) })
	g.Go(func() error { return s.floor.run(ctx) })
	g.Go(func() error { return s.cti.run(ctx) })
	if s.control != nil {
		g.Go(func() error { return s.serveControl(ctx) })
	}
	a := s.Addrs()
	s.log.Info("turret switch began", "cti", a.CTI, "sip", a.SIP, "rtp", a.RTP, "control", a.Control,
		"turrets", s.cfg.Floor.Turrets, "mixes", s.cfg.Floor.Mixes, "copies", strings.Join(s.cfg.Floor.Copies, ","), "seed", s.cfg.Seed)
	err := g.Wait()
	s.truth.Add(truth.Line{Type: truth.TypeStop, At: time.Now()})
	return errors.Join(err, s.Close())
}

// Addrs is where the switch listens.
func (s *Switch) Addrs() Addrs {
	a := Addrs{CTI: tcpAddr(s.cti.listener), SIP: s.phone.addr, RTP: s.sender.shards[0].local()}
	if s.control != nil {
		a.Control = tcpAddr(s.control)
	}
	return a
}

func tcpAddr(l net.Listener) netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() }

// secret reads a password from its file; no file is no password.
func secret(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}

// Run is a whole turretsim process: it builds the switch and runs it.
func Run(ctx context.Context, cfg Config) error {
	daemon.Hurry(cfg.Nice)
	s, err := New(cfg)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.Run(ctx) })
	g.Go(func() error {
		return daemon.Supervise(ctx, func(context.Context) string { return fmt.Sprintf("a floor of %d turrets", cfg.Floor.Turrets) })
	})
	return g.Wait()
}
