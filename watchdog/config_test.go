package watchdog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"

	"tandem/internal/config"
)

const exampleFile = "../etc/watchdog.toml"

func TestExampleHoldsTheDefaults(t *testing.T) {
	var blank Config // so that a key missing in the file shows
	got, err := config.Load(exampleFile, blank)
	if err != nil {
		t.Fatal(err)
	}
	if want := DefaultConfig(); !reflect.DeepEqual(got, want) {
		t.Fatalf("etc/watchdog.toml says\n%+v, the defaults are\n%+v", got, want)
	}
	if faults := DefaultConfig().Validate(); len(faults) > 0 {
		t.Fatalf("defaults are faulty: %v", faults)
	}
}

func TestExampleExplainsEveryKey(t *testing.T) {
	text, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []reflect.Type{reflect.TypeFor[Config](), reflect.TypeFor[WitnessConfig]()} {
		for i := range part.NumField() {
			key := part.Field(i).Tag.Get("toml")
			if !regexp.MustCompile(`(?m)^(#.*\n([a-z_]+ = .*\n)?)(` + key + ` = .*|\n?\[` + key + `\])$`).Match(text) {
				t.Errorf("%s: not in the example, or no comment above", key)
			}
		}
	}
}

func TestFaultsNameTheirKeys(t *testing.T) {
	for text, want := range map[string]string{
		`name = "a b"`:                                  "name: ",
		`control = "0.0.0.0:7403"`:                      "control: ",
		`metrics = "x"`:                                 "metrics: ",
		`nice = 20`:                                     "nice: ",
		`probe_interval = "1ms"`:                        "probe_interval: ",
		`probe_misses = 1`:                              "probe_misses: ",
		`cti_grace = "1ms"`:                             "cti_grace: ",
		`restart_after = "1s"`:                          "restart_after: ",
		`director_config = ""`:                          "director_config: ",
		`group = "primary"`:                             "group: no such key",
		"[witness]\nenabled = true\ndir = \"\"":         "witness.dir: ",
		"[witness]\nenabled = true\nprofile = \"slow\"": "witness.profile: ",
		"[witness]\nenabled = true\ngroup = \"a b\"":    "witness.group: ",
	} {
		_, err := config.Parse("f", text, DefaultConfig())
		if err == nil || !strings.Contains(err.Error(), "f: "+want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

// What is taken for the defaults of director.toml is what stands there.
func TestDirectorsDefaults(t *testing.T) {
	var got beside
	if _, err := toml.DecodeFile("../etc/director.toml", &got); err != nil {
		t.Fatal(err)
	}
	if want := defaultBeside(); !reflect.DeepEqual(got, want) {
		t.Errorf("etc/director.toml says\n%+v, the watchdog takes\n%+v", got, want)
	}
}

// write makes a director's file, and the key beside it.
func write(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte("the secret of the site\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "director.toml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "KEY", key)), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const paired = `
name = "dir-b"
site = "a key of the director's alone"
[failover]
peer = "10.0.0.1:7401"
peer_monitor = ["10.0.0.1:10031", "10.1.0.1:10031"]
voters = ["10.0.1.1:7402"]
monitor_key_file = "KEY"
[provider.unigy]
servers = ["10.0.9.1:6500"]
`

func TestDirectorIsReadFromItsOwnFile(t *testing.T) {
	b, err := readBeside(write(t, paired))
	if err != nil {
		t.Fatal(err)
	}
	if b.Name != "dir-b" || b.Group != "primary" || b.Failover.Peer != "10.0.0.1:7401" || b.Failover.FailbackHold.Std() != 30*time.Second {
		t.Errorf("got %+v", b)
	}
	if _, err := readBeside(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) || !nothingBeside(err) {
		t.Errorf("no file: %v", err)
	}
	if _, err := readBeside(write(t, `name = "dir-b"`)); !errors.Is(err, errAlone) || !nothingBeside(err) {
		t.Errorf("no peer: %v", err)
	}
	for _, fault := range []string{strings.Replace(paired, `"10.0.1.1:7402"`, `"1.1.1.1:1", "1.1.1.2:1"`, 1), strings.Replace(paired, "KEY", "/none", 1), paired + "x ="} {
		if _, err := readBeside(write(t, fault)); err == nil || nothingBeside(err) {
			t.Errorf("%s: %v", fault, err)
		}
	}
}

func TestReachable(t *testing.T) {
	for listen, want := range map[string]string{"0.0.0.0:1": "127.0.0.1:1", "[::]:1": "[::1]:1", "10.0.0.1:1": "10.0.0.1:1"} {
		if got := reachable(listen); got != want {
			t.Errorf("%s: %s", listen, got)
		}
	}
}
