package director

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"tandem/director/placement"
	"tandem/internal/call"
	"tandem/internal/config"
	"tandem/internal/pair"
	"tandem/internal/pki"
)

// Config is director.toml; etc/director.toml says what each key means.
type Config struct {
	Name            string           `toml:"name"`
	Group           string           `toml:"group"`
	Secondary       bool             `toml:"secondary"`
	Site            string           `toml:"site"`
	Control         string           `toml:"control"`
	Monitor         string           `toml:"monitor"`
	InsecureControl bool             `toml:"insecure_control"` // Control may be an address that other machines reach
	Metrics         string           `toml:"metrics"`
	Nice            int              `toml:"nice"`
	RecorderTimeout config.Duration  `toml:"recorder_timeout"`
	Recorders       []RecorderConfig `toml:"recorder"`
	Placement       PlacementConfig  `toml:"placement"`
	TLS             pki.Config       `toml:"tls"`
	Failover        pair.Config      `toml:"failover"`
	Reconcile       ReconcileConfig  `toml:"reconcile"`
	Provider        ProviderConfig   `toml:"provider"`
}

// RecorderConfig is one [[recorder]].
type RecorderConfig struct {
	Name     string `toml:"name"`
	Address  string `toml:"address"`
	Priority int    `toml:"priority"`
}

// PlacementConfig is [placement].
type PlacementConfig struct {
	CPULimit          float64         `toml:"cpu_limit"`
	JournalQueueLimit float64         `toml:"journal_queue_limit"`
	DiskWriteLimit    config.Duration `toml:"disk_write_limit"`
	DiskReserve       float64         `toml:"disk_reserve"`
	SlowStart         config.Duration `toml:"slow_start"`
}

// ProviderConfig is [provider].
type ProviderConfig struct {
	Unigy UnigyConfig `toml:"unigy"`
}

// UnigyConfig is [provider.unigy].
type UnigyConfig struct {
	Servers      []string        `toml:"servers"`
	User         string          `toml:"user"`
	PasswordFile string          `toml:"password_file"`
	SIPListen    string          `toml:"sip_listen"`
	OrphanGrace  config.Duration `toml:"orphan_grace"`
	AttachRate   int             `toml:"attach_rate"`
}

// DefaultConfig is a director alone on one host with its recorder and switch.
func DefaultConfig() Config {
	return Config{
		Name:            "dir-a",
		Group:           "primary",
		Site:            "site",
		Control:         "127.0.0.1:7401",
		Monitor:         "127.0.0.1:10031",
		Metrics:         "127.0.0.1:9401",
		Nice:            -10,
		RecorderTimeout: config.Duration(500 * time.Millisecond),
		Recorders:       []RecorderConfig{{Name: "rec-1", Address: "127.0.0.1:7402"}},
		Placement: PlacementConfig{
			CPULimit:          75,
			JournalQueueLimit: 0.5,
			DiskWriteLimit:    config.Duration(50 * time.Millisecond),
			DiskReserve:       5,
			SlowStart:         config.Duration(time.Minute),
		},
		Failover:  pair.DefaultConfig(),
		Reconcile: defaultReconcile(),
		Provider: ProviderConfig{Unigy: UnigyConfig{
			Servers:     []string{"127.0.0.1:6500"},
			User:        "recorder",
			SIPListen:   "127.0.0.1:5070",
			OrphanGrace: config.Duration(30 * time.Second),
			AttachRate:  500,
		}},
	}
}

// Validate reports every fault with its key.
func (c Config) Validate() []config.Fault {
	var check config.Check
	check.Name("name", c.Name)
	check.Name("group", c.Group)
	check.That(c.Secondary || c.Group != "secondary", "secondary", "false: two groups that take the same copy take its channels from each other; want true in group %q", c.Group)
	check.Name("site", c.Site)
	c.TLS.Check(&check)
	c.TLS.CheckListen(&check, "control", c.Control, c.InsecureControl)
	if c.Metrics != "" {
		check.Addr("metrics", c.Metrics)
	}
	check.That(c.Nice >= -20 && c.Nice <= 19, "nice", "%d: want -20 to 19", c.Nice)
	check.Between("recorder_timeout", c.RecorderTimeout, config.Duration(200*time.Millisecond), config.Duration(time.Minute))
	c.checkRecorders(&check)
	p := c.Placement
	check.That(p.CPULimit > 0 && p.CPULimit <= 100, "placement.cpu_limit", "%v: want more than 0, at most 100", p.CPULimit)
	check.That(p.JournalQueueLimit > 0 && p.JournalQueueLimit <= 1, "placement.journal_queue_limit", "%v: want more than 0, at most 1", p.JournalQueueLimit)
	check.Between("placement.disk_write_limit", p.DiskWriteLimit, config.Duration(time.Millisecond), config.Duration(10*time.Second))
	check.That(p.DiskReserve >= 0 && p.DiskReserve < 50, "placement.disk_reserve", "%v: want 0 to 50", p.DiskReserve)
	check.Between("placement.slow_start", p.SlowStart, 0, config.Duration(time.Hour))
	check.Addr("monitor", c.Monitor)
	c.Failover.Check(&check, "failover")
	c.Reconcile.check(&check, c.Recorders)
	c.Provider.Unigy.check(&check)
	return check.Faults
}

// Inspect implements config.Inspector.
func (c Config) Inspect() []config.Fault {
	return c.TLS.Inspect(pki.Identity{Role: pki.Director, Name: c.Name}, time.Now())
}

func (c Config) checkRecorders(check *config.Check) {
	check.That(len(c.Recorders) > 0, "recorder", "want at least one [[recorder]]")
	seen := make(map[string]bool)
	for i, r := range c.Recorders {
		key := "recorder[" + strconv.Itoa(i) + "]"
		check.Name(key+".name", r.Name)
		check.Addr(key+".address", r.Address)
		check.That(r.Priority >= 0, key+".priority", "%d: want 0 or more", r.Priority)
		check.That(!seen[r.Name], key+".name", "%q: another recorder has this name", r.Name)
		check.That(!seen[r.Address], key+".address", "%q: another recorder has this address", r.Address)
		seen[r.Name], seen[r.Address] = true, true
	}
}

func (u UnigyConfig) check(check *config.Check) {
	const at = "provider.unigy."
	check.That(len(u.Servers) > 0, at+"servers", "want at least one HOST:PORT")
	for _, s := range u.Servers {
		host, port, err := net.SplitHostPort(s)
		check.That(err == nil && host != "" && port != "", at+"servers", "%q: want HOST:PORT", s)
	}
	check.That(u.User != "", at+"user", "want the name the switch knows this director by")
	if u.PasswordFile != "" {
		_, err := os.Stat(u.PasswordFile)
		check.That(err == nil, at+"password_file", "%v", err)
	}
	if a := check.Addr(at+"sip_listen", u.SIPListen); a.IsValid() {
		check.That(!a.Addr().IsUnspecified(), at+"sip_listen", "%q: want the address that the switch is to answer to", u.SIPListen)
	}
	check.Between(at+"orphan_grace", u.OrphanGrace, 0, config.Duration(time.Hour))
	check.That(u.AttachRate >= 1 && u.AttachRate <= 100_000, at+"attach_rate", "%d: want 1 to 100000", u.AttachRate)
}

// pair is the configuration of a director that has a peer, else nil.
func (c Config) pair() *pair.Config {
	if c.Failover.Alone() {
		return nil
	}
	return &c.Failover
}

// copy is the duplicate of each mix that this director's group records.
func (c Config) copy() call.Copy {
	if c.Secondary {
		return call.CopyB
	}
	return call.CopyA
}

func (c Config) limits() placement.Limits {
	p := c.Placement
	return placement.Limits{
		CPU: p.CPULimit, JournalQueue: p.JournalQueueLimit, DiskWrite: p.DiskWriteLimit.Std(),
		DiskReserve: p.DiskReserve, SlowStart: p.SlowStart.Std(),
	}
}

// password reads the secret; no file means no secret.
func (u UnigyConfig) password() (string, error) {
	if u.PasswordFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(u.PasswordFile)
	return strings.TrimRight(string(text), "\r\n"), err
}

// sipListen is the parsed address; Validate has seen to it.
func (u UnigyConfig) sipListen() netip.AddrPort {
	a, _ := netip.ParseAddrPort(u.SIPListen)
	return a
}
