package director

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"tandem/internal/config"
)

const exampleFile = "../etc/director.toml"

func TestExampleHoldsTheDefaults(t *testing.T) {
	var blank Config // so that a key missing in the file shows
	got, err := config.Load(exampleFile, blank)
	if err != nil {
		t.Fatal(err)
	}
	if want := DefaultConfig(); !reflect.DeepEqual(got, want) {
		t.Fatalf("etc/director.toml says\n%+v, the defaults are\n%+v", got, want)
	}
	if faults := DefaultConfig().Validate(); len(faults) > 0 {
		t.Fatalf("defaults are faulty: %v", faults)
	}
}

// Every key of the configuration stands in the example, with a comment above it.
func TestExampleExplainsEveryKey(t *testing.T) {
	text, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for _, key := range keysOf(reflect.TypeFor[Config]()) {
		found := false
		for i, line := range lines {
			if !regexp.MustCompile(`^` + key + ` = `).MatchString(line) {
				continue
			}
			found = true
			above := lines[i-1]
			inRecorder := key == "name" || key == "address" || key == "priority"
			if !strings.HasPrefix(above, "#") && !inRecorder {
				t.Errorf("%s: no comment above", key)
			}
		}
		if !found {
			t.Errorf("%s: not in the example", key)
		}
	}
}

func keysOf(t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		field := t.Field(i)
		inner := field.Type
		if inner.Kind() == reflect.Slice && inner.Elem().Kind() == reflect.Struct {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct {
			keys = append(keys, keysOf(inner)...)
			continue
		}
		keys = append(keys, field.Tag.Get("toml"))
	}
	return keys
}

func TestFaultsNameTheirKeys(t *testing.T) {
	for text, want := range map[string]string{
		`name = "a b"`:                                       "name: ",
		`control = "0.0.0.0:7401"`:                           "control: ",
		`group = "secondary"`:                                "secondary: false: ",
		`recorder_timeout = "1ms"`:                           "recorder_timeout: ",
		`recorder = []`:                                      "recorder: want at least one",
		"[[recorder]]\nname=\"\"":                            "recorder[0].name: ",
		"[[recorder]]\naddress=\"rec:7402\"":                 "recorder[0].address: ",
		"[[recorder]]\npriority=-1":                          "recorder[0].priority: ",
		"[[recorder]]\nname=\"r\"\n[[recorder]]\nname=\"r\"": `recorder[1].name: "r": another`,
		"[placement]\ncpu_limit = 0":                         "placement.cpu_limit: ",
		"[placement]\njournal_queue_limit = 2":               "placement.journal_queue_limit: ",
		"[placement]\ndisk_reserve = 50":                     "placement.disk_reserve: ",
		"[placement]\nslow_start = \"2h\"":                   "placement.slow_start: ",
		"[placement]\ndisk_write_limit = \"0s\"":             "placement.disk_write_limit: ",
		"[provider.unigy]\nservers = []":                     "provider.unigy.servers: ",
		"[provider.unigy]\nservers = [\"switch\"]":           "provider.unigy.servers: ",
		"[provider.unigy]\nuser = \"\"":                      "provider.unigy.user: ",
		"[provider.unigy]\npassword_file = \"/none\"":        "provider.unigy.password_file: ",
		"[provider.unigy]\nsip_listen = \"[::]:5070\"":       "provider.unigy.sip_listen: ",
		"[provider.unigy]\norphan_grace = \"2h\"":            "provider.unigy.orphan_grace: ",
		"[provider.unigy]\nattach_rate = 0":                  "provider.unigy.attach_rate: ",
		"monitor = \"dir-b\"":                                "monitor: ",
		"[failover]\npreferred = true":                       "failover.preferred: means something only with a peer",
		"[failover]\nvoters = [\"127.0.0.1:7402\"]":          "failover.voters: means something only with a peer",
		"[failover]\nprofile = \"brisk\"":                    "failover.profile: ",
		"[failover]\nisolated = \"panic\"":                   "failover.isolated: ",
		"[failover]\nfailback = \"sometimes\"":               "failover.failback: ",
		"[failover]\nfailback_hold = \"0s\"":                 "failover.failback_hold: ",
		"[failover]\npeer = \"dir-b\"":                       "failover.peer: ",
		"[failover]\npeer = \"127.0.0.1:1\"":                 "failover.peer_monitor: ",
		"[failover]\npeer = \"127.0.0.1:1\"\nvoters = [\"10.0.0.1:1\", \"10.0.0.2:1\"]":                 "failover.voters: 2 voters",
		"[failover]\npeer = \"127.0.0.1:1\"\nvoters = [\"10.0.0.1:1\", \"10.0.0.1:2\", \"10.0.0.2:1\"]": "failover.voters[1]: 10.0.0.1:2: another voter is on that host",
		"[failover]\npeer = \"127.0.0.1:1\"\nmonitor_key_file = \"/none\"":                              "failover.monitor_key_file: ",
		"[provider.siprec]\nsip_listen = \"127.0.0.1\"":                                                 "provider.siprec: no such key",
	} {
		_, err := config.Parse("f", text, DefaultConfig())
		if err == nil || !strings.Contains(err.Error(), "f: "+want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func TestPassword(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := (UnigyConfig{PasswordFile: file}).password(); err != nil || got != "s3cret" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := (UnigyConfig{}).password(); err != nil || got != "" {
		t.Errorf("got %q, %v", got, err)
	}
}

// testConfig is a floor's configuration with short waits.
func testConfig(recorders ...RecorderConfig) Config {
	cfg := DefaultConfig()
	cfg.Recorders = recorders
	cfg.Placement.SlowStart = 0
	cfg.Provider.Unigy.OrphanGrace = config.Duration(30 * time.Second)
	return cfg
}
