package cli

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"tandem/internal/config"
	"tandem/internal/pki"
)

// Config is recctl.toml.
type Config struct {
	Directors []string        `toml:"directors"`
	Recorders []string        `toml:"recorders"`
	Watchdogs []string        `toml:"watchdogs"`
	Timeout   config.Duration `toml:"timeout"`
	Switch    string          `toml:"switch"`
	TruthLog  string          `toml:"truth_log"`
	TLS       pki.Config      `toml:"tls"`
}

// DefaultConfig reaches the director of this host, and its watchdog if it has one.
func DefaultConfig() Config {
	return Config{
		Directors: []string{"127.0.0.1:7401"}, Recorders: []string{}, Watchdogs: []string{"127.0.0.1:7403"},
		Timeout: config.Duration(3 * time.Second),
	}
}

// Validate implements config.Validator.
func (c Config) Validate() []config.Fault {
	var check config.Check
	check.That(len(c.Directors)+len(c.Recorders) > 0, "directors", "empty, and so is recorders: want at least one address")
	checkAddresses(&check, "directors", c.Directors)
	checkAddresses(&check, "recorders", c.Recorders)
	checkAddresses(&check, "watchdogs", c.Watchdogs)
	if c.Switch != "" {
		err := checkAddress(c.Switch)
		check.That(err == nil, "switch", "%v", err)
	}
	c.TLS.Check(&check)
	check.Between("timeout", c.Timeout, config.Duration(100*time.Millisecond), config.Duration(time.Minute))
	return check.Faults
}

// Inspect implements config.Inspector. Whoever the certificate names uses recctl.
func (c Config) Inspect() []config.Fault { return c.TLS.Inspect(pki.Identity{}, time.Now()) }

func checkAddresses(check *config.Check, key string, addresses []string) {
	for n, a := range addresses {
		err := checkAddress(a)
		check.That(err == nil, fmt.Sprintf("%s[%d]", key, n), "%v", err)
	}
}

// checkAddress wants HOST:PORT; unlike a daemon, which binds it, recctl may
// be given a host's name.
func checkAddress(a string) error {
	host, port, err := net.SplitHostPort(a)
	if err == nil && host != "" {
		if n, perr := strconv.Atoi(port); perr == nil && n > 0 && n <= 65535 {
			return nil
		}
	}
	return fmt.Errorf("%q: want HOST:PORT, as in \"127.0.0.1:7401\"", a)
}
