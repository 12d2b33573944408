package watchdog

import (
	"time"

	"tandem/internal/config"
	"tandem/internal/pair"
	"tandem/internal/pki"
)

// Config is watchdog.toml.
type Config struct {
	Name            string          `toml:"name"`
	Control         string          `toml:"control"`
	InsecureControl bool            `toml:"insecure_control"`
	Metrics         string          `toml:"metrics"`
	Nice            int             `toml:"nice"`
	DirectorConfig  string          `toml:"director_config"`
	Unit            string          `toml:"unit"`
	ProbeInterval   config.Duration `toml:"probe_interval"`
	ProbeMisses     int             `toml:"probe_misses"`
	CTIGrace        config.Duration `toml:"cti_grace"`
	RestartAfter    config.Duration `toml:"restart_after"`
	FailbackFile    string          `toml:"failback_file"`
	Witness         WitnessConfig   `toml:"witness"`
	TLS             pki.Config      `toml:"tls"`
}

// WitnessConfig is [witness].
type WitnessConfig struct {
	Enabled bool   `toml:"enabled"`
	Dir     string `toml:"dir"`
	Group   string `toml:"group"`
	Profile string `toml:"profile"`
}

// DefaultConfig is a watchdog beside a director.
func DefaultConfig() Config {
	return Config{
		Name:           "wd-a",
		Control:        "127.0.0.1:7403",
		Metrics:        "127.0.0.1:9403",
		Nice:           -10,
		DirectorConfig: "/etc/tandem/director.toml",
		Unit:           "tandem-director.service",
		ProbeInterval:  config.Duration(100 * time.Millisecond),
		ProbeMisses:    3,
		CTIGrace:       config.Duration(2 * time.Second),
		RestartAfter:   config.Duration(10 * time.Second),
		FailbackFile:   "/var/lib/tandem/watchdog/failback.json",
		Witness:        WitnessConfig{Dir: "/var/lib/tandem/watchdog", Group: "primary", Profile: "steady"},
	}
}

// Validate reports every fault with its key.
func (c Config) Validate() []config.Fault {
	var check config.Check
	check.Name("name", c.Name)
	c.TLS.Check(&check)
	c.TLS.CheckListen(&check, "control", c.Control, c.InsecureControl)
	if c.Metrics != "" {
		check.Addr("metrics", c.Metrics)
	}
	check.That(c.Nice >= -20 && c.Nice <= 19, "nice", "%d: want -20 to 19", c.Nice)
	check.Between("probe_interval", c.ProbeInterval, config.Duration(20*time.Millisecond), config.Duration(10*time.Second))
	check.That(c.ProbeMisses >= 2 && c.ProbeMisses <= 100, "probe_misses", "%d: want 2 to 100", c.ProbeMisses)
	check.Between("cti_grace", c.CTIGrace, config.Duration(200*time.Millisecond), config.Duration(time.Hour))
	check.Between("restart_after", c.RestartAfter, config.Duration(2*time.Second), config.Duration(time.Hour))
	check.That(c.DirectorConfig != "" || c.Witness.Enabled, "director_config", "want a director's file: a watchdog that is no witness has nothing else to do")
	if c.Witness.Enabled {
		c.Witness.check(&check)
	}
	return check.Faults
}

// Inspect implements config.Inspector.
func (c Config) Inspect() []config.Fault { return c.TLS.Inspect(c.identity(), time.Now()) }

// identity is whom its certificate must name.
func (c Config) identity() pki.Identity { return pki.Identity{Role: pki.Watchdog, Name: c.Name} }

func (w WitnessConfig) check(check *config.Check) {
	check.That(w.Dir != "", "witness.dir", "want a directory for the epoch that it must not forget")
	check.Name("witness.group", w.Group)
	_, known := pair.Profiles[w.Profile]
	check.That(known, "witness.profile", "%q: want steady or fast", w.Profile)
}
