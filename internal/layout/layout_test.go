// Package layout holds the floors of the module: values carry tools, tools
// carry jobs, jobs carry daemons, daemons carry commands. Nobody imports
// upward, nobody imports sideways between jobs or between daemons.
package layout

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const (
	values = iota
	tools
	jobs
	daemons
	commands
)

var floorNames = [...]string{"value", "tool", "job", "daemon", "command"}

// floors says where each package stands; a package must be named here.
var floors = map[string]int{
	"api/tandem/v1":                 values,
	"api/tandem/v1/tandemv1connect": values,
	"internal/authority":            values,
	"internal/call":                 values,
	"internal/cti":                  values,
	"internal/media":                values,
	"internal/merge":                values,
	"internal/stitch":               values,
	"internal/tone":                 values,
	"recorder/rtpstream":            values,
	"director/placement":            values,
	"director/provider":             values,

	"internal/bubble":      tools,
	"internal/config":      tools,
	"internal/daemon":      tools,
	"internal/durable":     tools,
	"internal/monitor":     tools,
	"internal/pair":        tools,
	"internal/pki":         tools,
	"internal/reconcile":   tools,
	"internal/voter":       tools,
	"internal/local":       tools,
	"internal/rpc":         tools,
	"recorder/catalog":     tools,
	"recorder/journal":     tools,
	"recorder/journaltest": tools,
	"recorder/load":        tools,
	"recorder/pgtest":      tools,
	"recorder/segment":     tools,
	"recorder/shared":      tools,
	"turretsim/truth":      tools,
	"turretsim/voice":      values,

	"director/provider/unigy": jobs,
	"recorder/compact":        jobs,
	"recorder/intake":         jobs,
	"recorder/playback":       jobs,
	"recorder/ship":           jobs,

	"director":  daemons,
	"recorder":  daemons,
	"turretsim": daemons,
	"watchdog":  daemons,

	"cli":           commands,
	"cli/audit":     commands,
	"cli/demo":      commands,
	"cli/drill":     commands,
	"cli/lab":       commands,
	"cli/process":   commands,
	"cli/scenario":  commands,
	"cli/recording": commands,
	"cli/stories":   commands,
	"cmd/director":  commands,
	"cmd/recctl":    commands,
	"cmd/recorder":  commands,
	"cmd/turretsim": commands,
	"cmd/watchdog":  commands,

	"packaging/manual": commands,
}

// mayCrossSideways are floors on which one package may use another.
func mayCrossSideways(floor int) bool { return floor == values || floor == tools || floor == commands }

func TestFloors(t *testing.T) {
	root := filepath.Join("..", "..")
	seen := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && name != "." || name == "tools" || name == "bin" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		pkg := filepath.ToSlash(filepath.Dir(name))
		seen[pkg] = true
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			if imported, err := strconv.Unquote(spec.Path.Value); err == nil && strings.HasPrefix(imported, "tandem/") {
				checkImport(t, name, pkg, strings.TrimPrefix(imported, "tandem/"))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range floors {
		if !seen[pkg] && pkg != "cli/stories" {
			t.Errorf("%s stands on a floor and does not exist", pkg)
		}
	}
	for pkg := range seen {
		if _, ok := floors[pkg]; !ok {
			t.Errorf("%s stands on no floor: name it in this test", pkg)
		}
	}
}

func checkImport(t *testing.T, file, pkg, imported string) {
	from, to := floors[pkg], floors[imported]
	switch {
	case to > from:
		t.Errorf("%s: a %s imports upward, the %s %s", file, floorNames[from], floorNames[to], imported)
	case to == from && pkg != imported && !mayCrossSideways(from):
		t.Errorf("%s: a %s imports sideways, %s", file, floorNames[from], imported)
	case ownerOf(imported) != "" && from < commands && ownerOf(pkg) != ownerOf(imported):
		t.Errorf("%s: %s belongs to the %s alone", file, imported, ownerOf(imported))
	}
}

// ownerOf is the daemon a package belongs to; others share only api and internal.
func ownerOf(pkg string) string {
	top, _, _ := strings.Cut(pkg, "/")
	switch top {
	case "director", "recorder", "turretsim":
		return top
	}
	return ""
}
