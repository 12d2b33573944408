package turretsim

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"tandem/internal/call"
	"tandem/internal/config"
	"tandem/internal/media"
)

// Config is turretsim.toml. Every key is explained in etc/turretsim.toml.
type Config struct {
	Seed     uint64      `toml:"seed"`
	Control  string      `toml:"control"`
	TruthLog string      `toml:"truth_log"`
	Nice     int         `toml:"nice"`
	CTI      CTIConfig   `toml:"cti"`
	SIP      SIPConfig   `toml:"sip"`
	RTP      RTPConfig   `toml:"rtp"`
	Floor    FloorConfig `toml:"floor"`
	Faults   Faults      `toml:"faults"`
}

// CTIConfig is the CTI server.
type CTIConfig struct {
	Listen       string          `toml:"listen"`
	User         string          `toml:"user"`
	PasswordFile string          `toml:"password_file"`
	Heartbeat    config.Duration `toml:"heartbeat"`
	Logins       int             `toml:"logins"`
	Queue        int             `toml:"queue"`
}

// SIPConfig is the SIP user agent.
type SIPConfig struct {
	Listen       string `toml:"listen"`
	User         string `toml:"user"`
	PasswordFile string `toml:"password_file"`
}

// RTPConfig is the media.
type RTPConfig struct {
	Address string   `toml:"address"`
	Port    int      `toml:"port"`
	Shards  int      `toml:"shards"`
	Codecs  []string `toml:"codecs"`
	RTCPMux bool     `toml:"rtcp_mux"`
	VAD     bool     `toml:"vad"`
	Voice   []string `toml:"voice"`
}

// FloorConfig is the traders and what they do.
type FloorConfig struct {
	Turrets        int             `toml:"turrets"`
	Mixes          int             `toml:"mixes"`
	Copies         []string        `toml:"copies"`
	LogonInterval  config.Duration `toml:"logon_interval"`
	LogonTime      config.Duration `toml:"logon_time"`
	CallsPerMinute float64         `toml:"calls_per_minute"`
	CallLength     config.Duration `toml:"call_length"`
	MaxCalls       int             `toml:"max_calls"`
}

// Faults are what goes wrong all the time, each with its own probability from
// 0 to 1 or its own amount; zero is health.
type Faults struct {
	CTI CTIFaults `toml:"cti" json:"cti"`
	SIP SIPFaults `toml:"sip" json:"sip"`
	RTP RTPFaults `toml:"rtp" json:"rtp"`
}

// CTIFaults go wrong on the CTI link.
type CTIFaults struct {
	RefuseLogin string  `toml:"refuse_login" json:"refuse_login"`
	Lose        float64 `toml:"lose" json:"lose"`
	Duplicate   float64 `toml:"duplicate" json:"duplicate"`
	Reorder     float64 `toml:"reorder" json:"reorder"`
	Snapshot    string  `toml:"snapshot" json:"snapshot"`
}

// SIPFaults go wrong in answers to INVITE.
type SIPFaults struct {
	Status     int             `toml:"status" json:"status"`
	StatusRate float64         `toml:"status_rate" json:"status_rate"`
	NoSDP      float64         `toml:"no_sdp" json:"no_sdp"`
	NoCodec    float64         `toml:"no_codec" json:"no_codec"`
	LoseACK    float64         `toml:"lose_ack" json:"lose_ack"`
	Delay      config.Duration `toml:"delay" json:"delay"`
}

// RTPFaults go wrong in the media of Channel, or of every channel if it is
// empty; of one copy of each mix, or of both.
type RTPFaults struct {
	Channel      string          `toml:"channel" json:"channel"`
	Copy         call.Copy       `toml:"copy" json:"copy"`
	Loss         float64         `toml:"loss" json:"loss"`
	Reorder      float64         `toml:"reorder" json:"reorder"`
	Duplicate    float64         `toml:"duplicate" json:"duplicate"`
	Jitter       config.Duration `toml:"jitter" json:"jitter"`
	DriftPPM     float64         `toml:"drift_ppm" json:"drift_ppm"`
	Early        config.Duration `toml:"early" json:"early"`
	Late         config.Duration `toml:"late" json:"late"`
	Linger       config.Duration `toml:"linger" json:"linger"`
	WrongVersion float64         `toml:"wrong_version" json:"wrong_version"`
	Short        float64         `toml:"short" json:"short"`
	WrongType    float64         `toml:"wrong_payload_type" json:"wrong_payload_type"`
	SecondSSRC   float64         `toml:"second_ssrc" json:"second_ssrc"`
}

// DefaultConfig is a healthy floor of 40 turrets on loopback.
func DefaultConfig() Config {
	return Config{
		Seed:    1,
		Control: "127.0.0.1:6580",
		Nice:    -10,
		CTI: CTIConfig{
			Listen: "127.0.0.1:6500", User: "recorder",
			Heartbeat: config.Duration(time.Second), Queue: 16 << 20,
		},
		SIP: SIPConfig{Listen: "127.0.0.1:5060"},
		RTP: RTPConfig{Address: "127.0.0.1", Shards: 1, Codecs: []string{"PCMU", "PCMA"}, RTCPMux: true, Voice: []string{}},
		Floor: FloorConfig{
			Turrets: 40, Mixes: 4, Copies: []string{"A"},
			LogonInterval:  config.Duration(20 * time.Millisecond),
			CallsPerMinute: 6, CallLength: config.Duration(12 * time.Second),
		},
	}
}

// maxMixes is one mix of handsets and four of four speakers.
const maxMixes = 5

// Validate reports every fault with its key.
func (c Config) Validate() []config.Fault {
	var check config.Check
	if c.Control != "" {
		check.Loopback("control", c.Control)
	}
	check.That(c.Nice >= -20 && c.Nice <= 19, "nice", "%d: want -20 to 19", c.Nice)
	check.Addr("cti.listen", c.CTI.Listen)
	check.Between("cti.heartbeat", c.CTI.Heartbeat, config.Duration(10*time.Millisecond), config.Duration(time.Minute))
	check.That(c.CTI.Logins >= 0, "cti.logins", "%d: want 0 (no limit) or more", c.CTI.Logins)
	check.That(c.CTI.Queue >= 64<<10, "cti.queue", "%d: want 65536 bytes or more", c.CTI.Queue)
	a := check.Addr("sip.listen", c.SIP.Listen)
	check.That(!a.IsValid() || !a.Addr().IsUnspecified(), "sip.listen", "%q: want the address that directors dial", c.SIP.Listen)
	c.RTP.validate(&check)
	c.Floor.validate(&check)
	c.Faults.validate(&check, "faults.")
	return check.Faults
}

func (c RTPConfig) validate(check *config.Check) {
	a, err := netip.ParseAddr(c.Address)
	check.That(err == nil && !a.IsUnspecified(), "rtp.address", "%q: want a literal address that recorders can answer to", c.Address)
	check.That(c.Port == 0 || c.Port >= 1024 && c.Port%2 == 0 && c.Port+2*c.Shards <= 65536, "rtp.port", "%d: want 0, or an even port with two for each shard", c.Port)
	check.That(c.Shards >= 1 && c.Shards <= 64, "rtp.shards", "%d: want 1 to 64", c.Shards)
	check.That(len(c.Codecs) > 0, "rtp.codecs", "want at least one")
	for _, name := range c.Codecs {
		codec, err := media.ParseCodec(name)
		check.That(err == nil && codec != media.G722, "rtp.codecs", "%q: want PCMU or PCMA", name)
	}
}

func (c FloorConfig) validate(check *config.Check) {
	check.That(c.Turrets >= 0 && c.Turrets <= 100_000, "floor.turrets", "%d: want 0 to 100000", c.Turrets)
	check.That(c.Mixes >= 1 && c.Mixes <= maxMixes, "floor.mixes", "%d: want 1 to %d", c.Mixes, maxMixes)
	copies := slices.Compact(slices.Sorted(slices.Values(c.Copies)))
	check.That(slices.Equal(copies, []string{"A"}) || slices.Equal(copies, []string{"A", "B"}), "floor.copies", "%q: want [\"A\"] or [\"A\", \"B\"]", c.Copies)
	check.Between("floor.logon_interval", c.LogonInterval, 0, config.Duration(time.Minute))
	check.That(c.LogonTime == 0 || c.LogonTime >= config.Duration(time.Second), "floor.logon_time", "%v: want 0 (for good) or 1s or more", c.LogonTime)
	check.That(c.CallsPerMinute >= 0 && c.CallsPerMinute <= 600, "floor.calls_per_minute", "%v: want 0 to 600", c.CallsPerMinute)
	check.That(c.MaxCalls >= 0, "floor.max_calls", "%d: want 0 (no limit) or more", c.MaxCalls)
	check.Between("floor.call_length", c.CallLength, config.Duration(100*time.Millisecond), config.Duration(24*time.Hour))
}

func (f Faults) validate(check *config.Check, prefix string) {
	oneOf := func(key, v string, choices ...string) {
		check.That(slices.Contains(choices, v), prefix+key, "%q: want one of %q", v, choices)
	}
	oneOf("cti.refuse_login", f.CTI.RefuseLogin, "", "credentials", "standby", "limit")
	oneOf("cti.snapshot", f.CTI.Snapshot, "", "stale", "partial", "cut")
	oneOf("rtp.copy", string(f.RTP.Copy), "", string(call.CopyA), string(call.CopyB))
	check.That(f.SIP.Status == 0 || f.SIP.Status >= 400 && f.SIP.Status < 700, prefix+"sip.status", "%d: want 0 or a failure such as 408, 486, 491, 503", f.SIP.Status)
	for key, p := range map[string]float64{
		"cti.lose": f.CTI.Lose, "cti.duplicate": f.CTI.Duplicate, "cti.reorder": f.CTI.Reorder,
		"sip.status_rate": f.SIP.StatusRate, "sip.no_sdp": f.SIP.NoSDP, "sip.no_codec": f.SIP.NoCodec, "sip.lose_ack": f.SIP.LoseACK,
		"rtp.loss": f.RTP.Loss, "rtp.reorder": f.RTP.Reorder, "rtp.duplicate": f.RTP.Duplicate,
		"rtp.wrong_version": f.RTP.WrongVersion, "rtp.short": f.RTP.Short,
		"rtp.wrong_payload_type": f.RTP.WrongType, "rtp.second_ssrc": f.RTP.SecondSSRC,
	} {
		check.That(p >= 0 && p <= 1, prefix+key, "%v: want a probability, 0 to 1", p)
	}
	check.That(f.RTP.DriftPPM >= -10_000 && f.RTP.DriftPPM <= 10_000, prefix+"rtp.drift_ppm", "%v: want -10000 to 10000", f.RTP.DriftPPM)
	for key, d := range map[string]config.Duration{
		"sip.delay": f.SIP.Delay, "rtp.jitter": f.RTP.Jitter, "rtp.early": f.RTP.Early, "rtp.late": f.RTP.Late, "rtp.linger": f.RTP.Linger,
	} {
		check.Between(prefix+key, d, 0, config.Duration(time.Minute))
	}
}

// Validate reports every fault with its key.
func (f Faults) Validate() error {
	var check config.Check
	f.validate(&check, "")
	if len(check.Faults) > 0 {
		slices.SortFunc(check.Faults, func(a, b config.Fault) int { return strings.Compare(a.Key, b.Key) })
		return &config.Faults{File: "faults", Faults: check.Faults}
	}
	return nil
}
