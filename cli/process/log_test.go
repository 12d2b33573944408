package process

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestSaid(t *testing.T) {
	p := &Process{Name: "any", Log: filepath.Join(t.TempDir(), "any.log")}
	if _, err := p.Said("role"); err == nil {
		t.Error("a log that is not there was read")
	}
	text := "not a line of ours\n" +
		"time=2026-03-02T12:00:00.000Z level=INFO msg=role from=boot to=passive reason=\"\"\n" +
		"level=INFO msg=\"role model\" from=nobody\n" +
		"level=INFO msg=role reason=\"says \\\"no\\\", a=b\" to=active\n" +
		"level=INFO msg=role from=act"
	if err := os.WriteFile(p.Log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	said, err := p.Said("role")
	if err != nil {
		t.Fatal(err)
	}
	want := []map[string]string{
		{"time": "2026-03-02T12:00:00.000Z", "level": "INFO", "msg": "role", "from": "boot", "to": "passive", "reason": ""},
		{"level": "INFO", "msg": "role", "reason": `says "no", a=b`, "to": "active"},
	}
	if !slices.EqualFunc(said, want, func(a, b map[string]string) bool { return maps.Equal(a, b) }) {
		t.Errorf("%v\nwant %v", said, want)
	}
}
