// Package monitoring tries the alert rules and the dashboard that go into the
// packages. That their metrics are those which daemons expose is a story of
// cli/stories.
package monitoring

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// promtool runs it in this directory, or skips the test.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed: tools/setup installs it")
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %v: %v\n%s", args, err, out)
	}
}

// Each rule fires for what it is for, alone, and none for a site that is well.
func TestRules(t *testing.T) {
	promtool(t, "check", "rules", "--lint=all", "--lint-fatal", "alerts.yml")
	promtool(t, "test", "rules", "alerts.test.yml")
}

// Whoever is called learns what it is and what to do, and every rule is tried.
func TestEveryRuleIsTriedAndExplained(t *testing.T) {
	rules, tests := read(t, "alerts.yml"), read(t, "alerts.test.yml")
	parts := strings.Split(rules, "      - alert: ")[1:]
	for _, rule := range parts {
		name, _, _ := strings.Cut(rule, "\n")
		for _, want := range []string{"\n        expr: ", "\n        labels: {severity: ", "\n          summary: ", "\n          description: "} {
			if !strings.Contains(rule, want) {
				t.Errorf("%s has no %s", name, strings.TrimSpace(want))
			}
		}
		if !strings.Contains(tests, `{alertname="`+name+`"}`) {
			t.Errorf("%s is not tried in alerts.test.yml", name)
		}
	}
	if len(parts) < 20 {
		t.Errorf("%d rules found", len(parts))
	}
}

// The example for prometheus.yml is one, for rules where the package puts them.
func TestScrapeExample(t *testing.T) {
	const installed = "/usr/share/tandem/alerts.yml"
	text := read(t, "prometheus.yml")
	if !strings.Contains(text, installed) || !strings.Contains(read(t, "../nfpm.yaml"), "dst: "+filepath.Dir(installed)) {
		t.Errorf("the rules are not at %s", installed)
	}
	here, err := filepath.Abs("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "prometheus.yml")
	if err := os.WriteFile(file, []byte(strings.Replace(text, installed, here, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "config", file)
}

// dashboard is as much of Grafana's format as is looked at.
type dashboard struct {
	Title, UID    string
	SchemaVersion int
	Panels        []panel
	Templating    struct{ List []struct{ Name string } }
	Annotations   struct{ List []struct{ Expr string } }
}

type panel struct {
	ID          int
	Type, Title string
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct{ RefID, Expr string }
}

// Grafana shows every panel, in a place of its own, and Prometheus understands
// every query.
func TestDashboard(t *testing.T) {
	decoder := json.NewDecoder(bytes.NewReader([]byte(read(t, "dashboard.json"))))
	var d dashboard
	if err := decoder.Decode(&d); err != nil {
		t.Fatal(err)
	}
	if d.Title == "" || d.UID == "" || d.SchemaVersion == 0 || len(d.Panels) < 20 {
		t.Errorf("%q %q, version %d, %d panels", d.Title, d.UID, d.SchemaVersion, len(d.Panels))
	}
	taken, ids := map[[2]int]string{}, map[int]bool{}
	var queries []string
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || p.GridPos.W == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d %q at %+v", p.ID, p.Title, p.GridPos)
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other := taken[at]; other != "" {
					t.Fatalf("%q lies on %q", p.Title, other)
				}
				taken[at] = p.Title
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%q shows nothing", p.Title)
		}
		for _, q := range p.Targets {
			queries = append(queries, q.Expr)
		}
	}
	for _, a := range d.Annotations.List {
		queries = append(queries, a.Expr)
	}
	asked := regexp.MustCompile(`\$\w+`)
	known := []string{"$__rate_interval"}
	for _, v := range d.Templating.List {
		known = append(known, "$"+v.Name)
	}
	for n, q := range queries {
		for _, name := range asked.FindAllString(q, -1) {
			if !slices.Contains(known, name) {
				t.Errorf("nobody sets %s in %s", name, q)
			}
		}
		queries[n] = strings.ReplaceAll(q, "$__rate_interval", "1m")
	}
	checkQueries(t, queries)
}

// checkQueries has promtool read the queries, as rules, which are YAML and so may
// be JSON.
func checkQueries(t *testing.T, queries []string) {
	t.Helper()
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	type group struct {
		Name  string `json:"name"`
		Rules []rule `json:"rules"`
	}
	all := group{Name: "dashboard"}
	for _, q := range queries {
		all.Rules = append(all.Rules, rule{"tandem:query", q})
	}
	text, err := json.Marshal(map[string][]group{"groups": {all}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "queries.yml")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", "--lint=none", file)
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
