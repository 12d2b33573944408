package daemon

import (
	"errors"
	"flag"
	"strings"
	"testing"
)

// A daemon takes three options and nothing else.
func TestParse(t *testing.T) {
	for _, c := range []struct {
		args string
		want options
		err  string
	}{
		{"", options{file: "/etc/tandem/recorder.toml"}, ""},
		{"--config a.toml --check", options{file: "a.toml", check: true}, ""},
		{"--version", options{file: "/etc/tandem/recorder.toml", version: true}, ""},
		{"--bogus", options{}, "no option --bogus"},
		{"--config", options{}, "--config wants a value"},
		{"a.toml", options{}, `unexpected argument "a.toml"`},
	} {
		got, err := parse("recorder", strings.Fields(c.args))
		if c.err == "" && (err != nil || got != c.want) || c.err != "" && (err == nil || err.Error() != c.err) {
			t.Errorf("%s: %+v, %v", c.args, got, err)
		}
	}
	if _, err := parse("recorder", []string{"--help"}); !errors.Is(err, flag.ErrHelp) {
		t.Error(err)
	}
	for _, option := range []string{"tandem-recorder [", "--config FILE  read FILE instead of /etc/tandem/recorder.toml\n", "--check ", "--version "} {
		if !strings.Contains(usage("recorder"), option) {
			t.Errorf("%s\nwant %s", usage("recorder"), option)
		}
	}
}
