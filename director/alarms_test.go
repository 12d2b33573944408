package director

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every alarm that the code raises has a severity, and a row among the symptoms
// that says what to do; nothing else has.
func TestEveryAlarmIsExplained(t *testing.T) {
	raised := map[string]bool{}
	literal := regexp.MustCompile(`(?:\badd\(|alarmKey\{|map\[alarmKey\]\*alarm\{\{)"(\w+)"`)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, m := range literal.FindAllStringSubmatch(read(t, file), -1) {
			raised[m[1]] = true
		}
	}
	explained := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| alarm `(\\w+)`").FindAllStringSubmatch(read(t, "../docs/running.md"), -1) {
		explained[m[1]] = true
	}
	if !maps.Equal(raised, explained) {
		t.Errorf("raised: %v\nexplained in docs/running.md: %v", slices.Sorted(maps.Keys(raised)), slices.Sorted(maps.Keys(explained)))
	}
	if known := slices.Sorted(maps.Keys(severities)); !slices.Equal(known, slices.Sorted(maps.Keys(raised))) {
		t.Errorf("raised: %v\nwith a severity: %v", slices.Sorted(maps.Keys(raised)), known)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
