package recorder

import (
	"errors"
	"os"
	"strings"
	"testing"

	"tandem/internal/config"
)

// The file in etc/ names every key and gives it its default.
func TestShippedFileIsTheDefaults(t *testing.T) {
	const file = "../etc/recorder.toml"
	got, err := config.Load(file, Config{})
	if err != nil {
		t.Fatal(err)
	}
	if want := DefaultConfig(); got != want {
		t.Errorf("%s: %+v\nwant %+v", file, got, want)
	}
	if _, err := os.Stat(file); err != nil {
		t.Fatal(err)
	}
}

func TestConfigFaults(t *testing.T) {
	for _, c := range []struct{ text, key string }{
		{`control = "10.0.0.1:7402"`, "control"},
		{"insecure_control = true\ncontrol = \"everywhere\"", "control"},
		{`nice = -21`, "nice"},
		{`profile = "slow"`, "profile"},
		{"[media]\nkeep = \"some\"", "media.keep"},
		{"[media]\nslot = \"7m\"", "media.slot"},
		{"[rtp]\nhost = \"0.0.0.0\"", "rtp.host"},
		{"[rtp]\nport_min = 20001", "rtp.port_min"},
		{"[rtp]\nport_max = 19998", "rtp.port_max"},
		{"[rtp]\ntick = \"1ms\"", "rtp.tick"},
		{"[rtp]\nmedia_dead = \"0s\"", "rtp.media_dead"},
		{"[journal]\nqueue = 1", "journal.queue"},
		{"[limits]\nreserve = -1", "limits.reserve"},
		{"[catalog]\nurl = \"postgres://tandem:s3cret@db/site\"", "catalog.url"},
		{"[catalog]\npassword_file = \"/etc/tandem/db\"", "catalog.password_file"},
	} {
		_, err := config.Parse("recorder.toml", c.text, DefaultConfig())
		var faults *config.Faults
		if !errors.As(err, &faults) || len(faults.Faults) != 1 || faults.Faults[0].Key != c.key {
			t.Errorf("%s: got %v, want one fault of %s", strings.ReplaceAll(c.text, "\n", " "), err, c.key)
		}
	}
}

// What only keeps the catalog from being shipped keeps no recorder from starting.
func TestInspect(t *testing.T) {
	cfg, err := config.Parse("recorder.toml", "[catalog]\nurl = \"postgres://tandem@db/site\"\npassword_file = \"/none\"", DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	if faults := cfg.Inspect(); len(faults) != 1 || faults[0].Key != "catalog.password_file" {
		t.Errorf("got %v, want one fault of catalog.password_file", faults)
	}
	if faults := DefaultConfig().Inspect(); len(faults) != 0 {
		t.Errorf("the defaults: %v", faults)
	}
}
