// Package pair is what the two directors of a group and their watchdogs must
// agree on: the [failover] section of director.toml, which both read.
package pair

import (
	"os"
	"strconv"
	"strings"
	"time"

	"tandem/internal/authority"
	"tandem/internal/config"
)

// Config is [failover]. Without a peer the director stands alone.
type Config struct {
	Preferred    bool            `toml:"preferred"`
	Profile      string          `toml:"profile"`
	Isolated     string          `toml:"isolated"`
	Failback     string          `toml:"failback"`
	FailbackHold config.Duration `toml:"failback_hold"`
	Peer         string          `toml:"peer"`
	PeerMonitor  []string        `toml:"peer_monitor"`
	PeerWatchdog string          `toml:"peer_watchdog"`
	Voters       []string        `toml:"voters"`
	KeyFile      string          `toml:"monitor_key_file"`
	Socket       string          `toml:"socket"`
}

// Words for what a survivor without any proof does, and for who hands control back.
const (
	TakeOver = "take_over"
	Wait     = "wait"
	Auto     = "auto"
	Manual   = "manual"
)

// DefaultConfig is a director without a peer.
func DefaultConfig() Config {
	return Config{
		Profile: "steady", Isolated: TakeOver, Failback: Auto, FailbackHold: config.Duration(30 * time.Second),
		PeerMonitor: []string{}, Voters: []string{}, Socket: "/run/tandem/director.sock",
	}
}

// Alone reports whether there is no peer.
func (c Config) Alone() bool { return c.Peer == "" }

// Side is which of the two it is.
func (c Config) Side() authority.Side {
	if c.Preferred {
		return authority.A
	}
	return authority.B
}

// Profiles are the timings by name.
var Profiles = map[string]authority.Timing{"steady": authority.Steady, "fast": authority.Fast}

// Return reports whether control goes back to the preferred director by itself,
// and at what time of day.
func (c Config) Return() (byItself bool, when Hours) {
	hours, err := ParseHours(c.Failback)
	return c.Failback == Auto || err == nil, hours
}

// Authority is what the protocol needs to know.
func (c Config) Authority() authority.Config {
	return authority.Config{
		Timing: Profiles[c.Profile], Side: c.Side(), Voters: len(c.Voters),
		Alone: c.Isolated == TakeOver && len(c.Voters) == 1,
	}
}

// Check adds the faults of the section at the given key to those of a file.
func (c Config) Check(check *config.Check, at string) {
	at += "."
	_, known := Profiles[c.Profile]
	check.That(known, at+"profile", "%q: want steady or fast", c.Profile)
	check.That(c.Isolated == TakeOver || c.Isolated == Wait, at+"isolated", "%q: want take_over or wait", c.Isolated)
	if c.Failback != Auto && c.Failback != Manual {
		_, err := ParseHours(c.Failback)
		check.That(err == nil, at+"failback", "%q: want auto, manual or a time of day as 20:00-06:00: %v", c.Failback, err)
	}
	check.Between(at+"failback_hold", c.FailbackHold, config.Duration(time.Second), config.Duration(24*time.Hour))
	if c.Alone() {
		for key, set := range map[string]bool{"preferred": c.Preferred, "peer_monitor": len(c.PeerMonitor) > 0, "peer_watchdog": c.PeerWatchdog != "", "voters": len(c.Voters) > 0} {
			check.That(!set, at+key, "means something only with a peer: this director stands alone")
		}
		return
	}
	check.Addr(at+"peer", c.Peer)
	check.That(len(c.PeerMonitor) > 0, at+"peer_monitor", "want at least one ADDRESS:PORT at which the peer can be probed")
	for i, a := range c.PeerMonitor {
		check.Addr(at+"peer_monitor["+strconv.Itoa(i)+"]", a)
	}
	if c.PeerWatchdog != "" {
		check.Addr(at+"peer_watchdog", c.PeerWatchdog)
	}
	c.checkVoters(check, at+"voters")
	_, err := c.Key()
	check.That(err == nil, at+"monitor_key_file", "%v", err)
	check.That(c.Socket != "" && len(c.Socket) < 108, at+"socket", "%q: want the path of a socket, at most 107 bytes", c.Socket)
}

// checkVoters wants an odd number of hosts, each once: two voters on one host
// would be lost together.
func (c Config) checkVoters(check *config.Check, key string) {
	n := len(c.Voters)
	check.That(n == 1 || n == 3 || n == authority.MaxVoters, key, "%d voters: want 1, 3 or %d", n, authority.MaxVoters)
	hosts := make(map[string]bool)
	for i, v := range c.Voters {
		a := check.Addr(key+"["+strconv.Itoa(i)+"]", v)
		host := a.Addr().String()
		if a.IsValid() && !a.Addr().IsLoopback() { // a floor on one host is for trying things out
			check.That(!hosts[host], key+"["+strconv.Itoa(i)+"]", "%s: another voter is on that host", v)
		}
		check.That(!hosts[v], key+"["+strconv.Itoa(i)+"]", "%s: named twice", v)
		hosts[host], hosts[v] = true, true
	}
}

// minKey is the shortest secret accepted, in bytes.
const minKey = 16

// Key reads the site's monitor key.
func (c Config) Key() ([]byte, error) {
	if c.KeyFile == "" {
		return nil, errNoKey
	}
	text, err := os.ReadFile(c.KeyFile)
	if err != nil {
		return nil, err
	}
	key := strings.TrimSpace(string(text))
	if len(key) < minKey {
		return nil, errShortKey
	}
	return []byte(key), nil
}
