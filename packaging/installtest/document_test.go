package installtest

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// step is a command block of a document, and where it is to be run.
type step struct {
	line    int // of the document
	hosts   []string
	purpose string // "" for what everybody does; else the "to ..." of "# on ldn-3, to upgrade"
	script  string
}

// parseSteps finds the blocks that begin with "# on HOST, HOST" or "# on HOST,
// to DO SOMETHING". One that says no host is for reading only.
func parseSteps(document string) (steps []step, err error) {
	var block *step
	for n, line := range strings.Split(document, "\n") {
		switch {
		case block == nil && line == "```sh":
			block = &step{line: n + 1}
		case block != nil && line == "```":
			if len(block.hosts) == 0 {
				return nil, fmt.Errorf("line %d: a block of commands does not say on which hosts", block.line)
			}
			steps, block = append(steps, *block), nil
		case block != nil && block.script == "" && strings.HasPrefix(line, "# on "):
			block.hosts, block.purpose = parseHosts(strings.TrimPrefix(line, "# on "))
			block.script = line + "\n"
		case block != nil:
			block.script += line + "\n"
		}
	}
	if block != nil {
		return nil, fmt.Errorf("line %d: a block of commands does not end", block.line)
	}
	return steps, nil
}

func parseHosts(list string) (hosts []string, purpose string) {
	for _, word := range strings.Split(list, ", ") {
		if what, ok := strings.CutPrefix(word, "to "); ok {
			return hosts, what
		}
		hosts = append(hosts, word)
	}
	return hosts, ""
}

func TestParseSteps(t *testing.T) {
	steps, err := parseSteps("# T\n```sh\n# on a, b\none\ntwo\n```\n```toml\nx = 1\n```\n```sh\n# on c, to mend it\nthree\n```\n")
	if err != nil || len(steps) != 2 {
		t.Fatal(steps, err)
	}
	if s := steps[0]; !slices.Equal(s.hosts, []string{"a", "b"}) || s.purpose != "" || s.script != "# on a, b\none\ntwo\n" {
		t.Errorf("%+v", s)
	}
	if s := steps[1]; !slices.Equal(s.hosts, []string{"c"}) || s.purpose != "mend it" {
		t.Errorf("%+v", s)
	}
	for _, bad := range []string{"```sh\nls\n```", "```sh\n# on a\nls"} {
		if _, err := parseSteps(bad); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
}

// The document itself names no host that it does not introduce.
func TestDocument(t *testing.T) {
	steps := readSteps(t)
	purposes := map[string]bool{}
	for _, s := range steps {
		purposes[s.purpose] = true
		for _, h := range s.hosts {
			if _, known := addresses[h]; !known {
				t.Errorf("line %d: host %q is none of the table's", s.line, h)
			}
		}
	}
	for _, p := range []string{"", "upgrade", "save rec-3", "restore rec-3"} {
		if !purposes[p] {
			t.Errorf("the document does not say how to: %s", p)
		}
	}
}

func readSteps(t *testing.T) []step {
	t.Helper()
	text, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	steps, err := parseSteps(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return steps
}
