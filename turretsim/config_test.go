package turretsim

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"

	"tandem/internal/config"
)

const shipped = "../etc/turretsim.toml"

// The file that is shipped spells out every key, with the default.
func TestShippedFileEqualsDefaults(t *testing.T) {
	got, err := config.Load(shipped, Config{})
	if err != nil {
		t.Fatal(err)
	}
	if want := DefaultConfig(); !reflect.DeepEqual(got, want) {
		t.Errorf("file says %+v\ncode says %+v", got, want)
	}
	text, err := os.ReadFile(shipped)
	if err != nil {
		t.Fatal(err)
	}
	var c Config
	meta, err := toml.Decode(string(text), &c)
	if err != nil {
		t.Fatal(err)
	}
	written := map[string]bool{}
	for _, key := range meta.Keys() {
		written[key.String()] = true
	}
	for _, key := range keysOf(reflect.TypeFor[Config](), "") {
		if !written[key] {
			t.Errorf("key %s is not in the file", key)
		}
	}
}

func keysOf(of reflect.Type, prefix string) (keys []string) {
	for i := range of.NumField() {
		field := of.Field(i)
		key := prefix + field.Tag.Get("toml")
		if field.Type.Kind() == reflect.Struct {
			keys = append(keys, keysOf(field.Type, key+".")...)
			continue
		}
		keys = append(keys, key)
	}
	return keys
}

func TestConfigFaults(t *testing.T) {
	for _, c := range []struct{ text, key string }{
		{`control = "0.0.0.0:1"`, "control"},
		{`sip.listen = "0.0.0.0:5060"`, "sip.listen"},
		{`cti.listen = "localhost:1"`, "cti.listen"},
		{`cti.heartbeat = "0s"`, "cti.heartbeat"},
		{`rtp.address = "::"`, "rtp.address"},
		{`rtp.codecs = ["G722"]`, "rtp.codecs"},
		{`rtp.codecs = []`, "rtp.codecs"},
		{`rtp.port = 4001`, "rtp.port"},
		{`rtp.shards = 0`, "rtp.shards"},
		{`floor.mixes = 6`, "floor.mixes"},
		{`floor.copies = ["B"]`, "floor.copies"},
		{`floor.turrets = -1`, "floor.turrets"},
		{`faults.rtp.loss = 1.1`, "faults.rtp.loss"},
		{`faults.sip.status = 200`, "faults.sip.status"},
		{`faults.cti.snapshot = "odd"`, "faults.cti.snapshot"},
		{`faults.cti.refuse_login = "odd"`, "faults.cti.refuse_login"},
		{`faults.rtp.jitter = "2m"`, "faults.rtp.jitter"},
		{`nice = -21`, "nice"},
		{`nothing = 1`, "nothing"},
	} {
		_, err := config.Parse("t.toml", c.text, DefaultConfig())
		var faults *config.Faults
		if !errors.As(err, &faults) || len(faults.Faults) != 1 || faults.Faults[0].Key != c.key {
			t.Errorf("%s: got %v, want one fault of %s", c.text, err, c.key)
		}
	}
}

func TestIPv6AddressIsFine(t *testing.T) {
	if _, err := config.Parse("t.toml", `rtp.address = "::1"`, DefaultConfig()); err != nil {
		t.Error(err)
	}
}

func TestVoiceThatIsNoWAVNamesTheFile(t *testing.T) {
	cfg := testConfig(t)
	cfg.RTP.Voice = []string{shipped}
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), shipped) {
		t.Errorf("got %v, want an error naming %s", err, shipped)
	}
}
