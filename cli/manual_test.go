package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Every command and every option that --help knows is in the manual, and
// nothing in it is taken for a request of roff.
func TestManual(t *testing.T) {
	var page bytes.Buffer
	if err := WriteManual(&page); err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(page.String(), `\-`, "-")
	app := (&invocation{}).app()
	words := map[string]string{}
	for _, command := range completions(words, "", app.Commands) {
		if !strings.Contains(words[command], "--") && strings.Contains(words[command], " ") {
			continue // only names others
		}
		for _, word := range append(strings.Fields(words[command]), command) {
			if !strings.Contains(text, word) {
				t.Errorf("%s: %q is not in the manual", command, word)
			}
		}
	}
	known := []string{".TH", ".SH", ".SS", ".TP", ".PP", ".B", ".BR", ".I"}
	for line := range strings.Lines(page.String()) {
		if request, _, _ := strings.Cut(strings.TrimSpace(line), " "); strings.HasPrefix(line, ".") && !slices.Contains(known, request) {
			t.Errorf("a line begins like a request: %q", line)
		}
	}
}

func TestRoff(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", ".TH x": `\&.TH x`, "'quoted'": `\&'quoted'`, `a\b`: `a\eb`, "--to -x": `\-\-to \-x`, "a\n.b": "a\n\\&.b",
	} {
		if got := roff(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// bash itself completes.
func TestCompletion(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash to complete in")
	}
	file := filepath.Join(t.TempDir(), "recctl")
	var script bytes.Buffer
	if err := WriteCompletion(&script); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, script.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		typed string // the last word is the one to complete
		want  string
	}{
		{"recctl dr", "drain drill"},
		{"recctl --json stat", "status"},
		{"recctl config ", "check --json --config --director --watchdog --help"},
		{"recctl config check --j", "--json"},
		{"recctl calls --on", "--ongoing"},
		{"recctl drain --un", "--undo"},
		{"recctl --vers", "--version"},
		{"recctl nonsense --j", "--json"},
	} {
		words := strings.Split(c.typed, " ")
		run := exec.Command(bash, append([]string{"--norc", "-c", `. "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _recctl; echo "${COMPREPLY[*]}"`, "bash", file}, words...)...)
		out, err := run.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != c.want {
			t.Errorf("%q: got %q, %v, want %q", c.typed, got, err, c.want)
		}
	}
}
