package recorder

import (
	"log/slog"
	"net/netip"
	"path/filepath"
	"time"

	"tandem/internal/config"
	"tandem/internal/daemon"
	"tandem/internal/pair"
	"tandem/internal/pki"
	"tandem/internal/voter"
	"tandem/recorder/compact"
	"tandem/recorder/intake"
	"tandem/recorder/journal"
	"tandem/recorder/shared"
)

// Config is recorder.toml.
type Config struct {
	Name    string `toml:"name"`
	Group   string `toml:"group"`
	Profile string `toml:"profile"`
	Control string `toml:"control"`
	// InsecureControl lets Control be an address that other machines reach.
	InsecureControl bool   `toml:"insecure_control"`
	Metrics         string `toml:"metrics"`
	Dir             string `toml:"dir"`
	Nice            int    `toml:"nice"`

	Media   MediaConfig   `toml:"media"`
	RTP     RTPConfig     `toml:"rtp"`
	Journal JournalConfig `toml:"journal"`
	Limits  LimitsConfig  `toml:"limits"`
	Catalog CatalogConfig `toml:"catalog"`
	TLS     pki.Config    `toml:"tls"`
}

// MediaConfig says what is kept.
type MediaConfig struct {
	Keep     string          `toml:"keep"`
	PreRoll  config.Duration `toml:"pre_roll"`
	PostRoll config.Duration `toml:"post_roll"`
	Slot     config.Duration `toml:"slot"`
}

// RTPConfig says where audio arrives.
type RTPConfig struct {
	Host          string          `toml:"host"`
	PortMin       int             `toml:"port_min"`
	PortMax       int             `toml:"port_max"`
	Tick          config.Duration `toml:"tick"`
	Shards        int             `toml:"shards"`
	ReceiveBuffer int             `toml:"receive_buffer"`
	MediaDead     config.Duration `toml:"media_dead"`
}

// JournalConfig says how packets reach the disk.
type JournalConfig struct {
	SyncInterval config.Duration `toml:"sync_interval"`
	FileSize     int64           `toml:"file_size"`
	FileAge      config.Duration `toml:"file_age"`
	Queue        int             `toml:"queue"` // bytes
}

// LimitsConfig bounds what placement may give this recorder.
type LimitsConfig struct {
	MaxChannels   int     `toml:"max_channels"`
	MaxPacketsPer float64 `toml:"max_packets_per_s"`
	Reserve       int64   `toml:"reserve"`
}

// CatalogConfig says which catalog is shared with other recorders.
type CatalogConfig struct {
	URL          string `toml:"url"`
	PasswordFile string `toml:"password_file"`
}

// What Keep may be.
const (
	keepCalls = "calls"
	keepAll   = "all"
)

// DefaultConfig is what every key is when the file does not name it;
// etc/recorder.toml spells it out.
func DefaultConfig() Config {
	j := journal.DefaultConfig()
	return Config{
		Name: "rec-1", Group: "primary", Profile: "steady", Control: "127.0.0.1:7402", Metrics: "127.0.0.1:9402", Dir: "/var/lib/tandem/recorder", Nice: -10,
		Media: MediaConfig{Keep: keepCalls, PreRoll: config.Duration(2 * time.Second), PostRoll: config.Duration(2 * time.Second), Slot: config.Duration(15 * time.Minute)},
		RTP: RTPConfig{Host: "127.0.0.1", PortMin: 20000, PortMax: 39998, Tick: config.Duration(50 * time.Millisecond), ReceiveBuffer: 512 << 10,
			MediaDead: config.Duration(15 * time.Second)},
		Journal: JournalConfig{SyncInterval: config.Duration(j.SyncInterval), FileSize: j.FileSize,
			FileAge: config.Duration(j.FileAge), Queue: j.QueueSize},
		Limits: LimitsConfig{MaxChannels: 5000, MaxPacketsPer: 250_000, Reserve: 1 << 30},
	}
}

// Validate implements config.Validator.
func (c Config) Validate() []config.Fault {
	var check config.Check
	check.Name("name", c.Name)
	check.Name("group", c.Group)
	_, known := pair.Profiles[c.Profile]
	check.That(known, "profile", "%q: want steady or fast", c.Profile)
	c.TLS.Check(&check)
	c.TLS.CheckListen(&check, "control", c.Control, c.InsecureControl)
	if c.Metrics != "" {
		check.Addr("metrics", c.Metrics)
	}
	check.That(c.Dir != "", "dir", "want a directory")
	check.That(c.Nice >= -20 && c.Nice <= 19, "nice", "%d: want -20 to 19", c.Nice)
	check.That(c.Media.Keep == keepCalls || c.Media.Keep == keepAll, "media.keep", "%q: want %q or %q", c.Media.Keep, keepCalls, keepAll)
	check.Between("media.pre_roll", c.Media.PreRoll, 0, config.Duration(time.Minute))
	check.Between("media.post_roll", c.Media.PostRoll, 0, config.Duration(time.Minute))
	slot := c.Media.Slot.Std()
	check.That(slot >= 10*time.Second && slot <= 24*time.Hour && 24*time.Hour%slot == 0, "media.slot", "%v: want 10s to 24h that divides a day", c.Media.Slot)
	host, err := netip.ParseAddr(c.RTP.Host)
	check.That(err == nil && !host.IsUnspecified(), "rtp.host", "%q: want an address of this machine that the switch can reach", c.RTP.Host)
	check.That(c.RTP.PortMin >= 1024 && c.RTP.PortMin%2 == 0, "rtp.port_min", "%d: want an even port from 1024", c.RTP.PortMin)
	check.That(c.RTP.PortMax <= 65534 && c.RTP.PortMax%2 == 0 && c.RTP.PortMax >= c.RTP.PortMin, "rtp.port_max", "%d: want an even port from rtp.port_min to 65534", c.RTP.PortMax)
	check.Between("rtp.tick", c.RTP.Tick, config.Duration(5*time.Millisecond), config.Duration(500*time.Millisecond))
	check.That(c.RTP.Shards >= 0 && c.RTP.Shards <= 64, "rtp.shards", "%d: want 0 (by channels and cores) to 64", c.RTP.Shards)
	check.That(c.RTP.ReceiveBuffer >= 64<<10 && c.RTP.ReceiveBuffer <= 64<<20, "rtp.receive_buffer", "%d: want 65536 to 67108864 bytes", c.RTP.ReceiveBuffer)
	check.Between("rtp.media_dead", c.RTP.MediaDead, config.Duration(time.Second), config.Duration(time.Hour))
	check.Between("journal.sync_interval", c.Journal.SyncInterval, config.Duration(10*time.Millisecond), config.Duration(10*time.Second))
	check.That(c.Journal.FileSize >= 1<<20 && c.Journal.FileSize <= 4<<30, "journal.file_size", "%d: want 1048576 to 4294967296 bytes", c.Journal.FileSize)
	check.Between("journal.file_age", c.Journal.FileAge, config.Duration(time.Second), config.Duration(time.Hour))
	check.That(c.Journal.Queue >= 1<<20 && c.Journal.Queue <= 4<<30, "journal.queue", "%d: want 1048576 to 4294967296 bytes", c.Journal.Queue)
	check.That(c.Limits.MaxChannels >= 1 && c.Limits.MaxChannels <= 20000, "limits.max_channels", "%d: want 1 to 20000", c.Limits.MaxChannels)
	check.That(c.Limits.MaxPacketsPer > 0, "limits.max_packets_per_s", "%v: want more than 0", c.Limits.MaxPacketsPer)
	check.That(c.Limits.Reserve >= 0, "limits.reserve", "%d: want 0 bytes or more", c.Limits.Reserve)
	if c.Catalog.URL != "" {
		err := c.shared().Check()
		check.That(err == nil, "catalog.url", "%v", err)
	}
	check.That(c.Catalog.PasswordFile == "" || c.Catalog.URL != "", "catalog.password_file", "of no use without catalog.url")
	return check.Faults
}

// Inspect implements config.Inspector.
func (c Config) Inspect() []config.Fault {
	check := config.Check{Faults: c.TLS.Inspect(c.identity(), time.Now())}
	err := c.shared().Readable()
	check.That(err == nil, "catalog.password_file", "%v", err)
	return check.Faults
}

// What each part is told of it; the configuration has been validated.

// identity is whom its certificate must name.
func (c Config) identity() pki.Identity { return pki.Identity{Role: pki.Recorder, Name: c.Name} }

func (c Config) voter(boot string) voter.Config {
	return voter.Config{
		Name: c.Name, Group: c.Group, Path: filepath.Join(c.Dir, authorityFile), Profile: c.Profile, Boot: boot,
		Clock: daemon.Boottime, Log: slog.Default(),
	}
}

func (c Config) journal(boot string) journal.Config {
	j := journal.DefaultConfig()
	j.Boot, j.SyncInterval, j.FileSize = boot, c.Journal.SyncInterval.Std(), c.Journal.FileSize
	j.FileAge, j.QueueSize = c.Journal.FileAge.Std(), c.Journal.Queue
	return j
}

func (c Config) intake() intake.Config {
	i := intake.DefaultConfig()
	i.Host = netip.MustParseAddr(c.RTP.Host)
	i.PortMin, i.PortMax, i.Tick, i.Shards = c.RTP.PortMin, c.RTP.PortMax, c.RTP.Tick.Std(), c.RTP.Shards
	i.MaxChannels, i.ReceiveBuffer = c.Limits.MaxChannels, c.RTP.ReceiveBuffer
	return i
}

func (c Config) shared() shared.Config {
	return shared.Config{URL: c.Catalog.URL, PasswordFile: c.Catalog.PasswordFile, Name: "tandem-recorder " + c.Name}
}

func (c Config) compactor(journalDir, mediaDir string) compact.Config {
	k := compact.DefaultConfig()
	k.Journal, k.Media, k.Slot = journalDir, mediaDir, c.Media.Slot.Std()
	k.KeepAll, k.PreRoll, k.PostRoll = c.Media.Keep == keepAll, c.Media.PreRoll.Std(), c.Media.PostRoll.Std()
	return k
}
