package turretsim

import (
	"os"
	"strings"
	"testing"
	"time"
)

// patience is how long what must come may take where others run first.
const patience = 30 * time.Second

// replace is strings.ReplaceAll that insists on something to replace.
func replace(text, old, new string) string {
	if !strings.Contains(text, old) {
		panic("no " + old)
	}
	return strings.ReplaceAll(text, old, new)
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
