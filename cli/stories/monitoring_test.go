package stories

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/internal/pki"
)

// exposed are the labels of every series of a name, by name.
type exposed map[string][]map[string]string

var (
	sampleLine = regexp.MustCompile(`(?m)^(tandem_\w+)(?:\{(.*)\})? \S+$`)
	labelValue = regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`)
)

// add reads a page of /metrics.
func (e exposed) add(page string) {
	for _, m := range sampleLine.FindAllStringSubmatch(page, -1) {
		labels := map[string]string{}
		for _, l := range labelValue.FindAllStringSubmatch(m[2], -1) {
			labels[l[1]] = l[2]
		}
		e[m[1]] = append(e[m[1]], labels)
	}
}

// has reports whether a series of the name has the label, with one of the values
// where some are asked for.
func (e exposed) has(name, label string, values ...string) bool {
	return slices.ContainsFunc(e[name], func(labels map[string]string) bool {
		value, ok := labels[label]
		return ok && (len(values) == 0 || slices.Contains(values, value))
	})
}

var (
	selector = regexp.MustCompile(`(tandem_\w+)(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`(\w+)(=~|!~|!=|=)"([^"]*)"`)
)

// check finds what a query asks for and no daemon exposes, and notes its names.
func (e exposed) check(t *testing.T, query string, asked map[string]bool) {
	t.Helper()
	for _, s := range selector.FindAllStringSubmatch(query, -1) {
		name := s[1]
		asked[name] = true
		if len(e[name]) == 0 {
			t.Errorf("no daemon exposes %s, in %s", name, query)
			continue
		}
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			label, values := m[1], strings.Split(m[3], "|")
			if label == "group" {
				continue // Prometheus adds it
			}
			if strings.HasPrefix(m[2], "!") {
				values = nil
			}
			if !e.has(name, label, values...) {
				t.Errorf("no series of %s has %s, in %s", name, m[0], query)
			}
		}
	}
}

// queries are those of the alert rules and of the dashboard.
func queries(t *testing.T) (all []string) {
	t.Helper()
	for line := range strings.Lines(readFile(t, "../../packaging/monitoring/alerts.yml")) {
		if expr, ok := strings.CutPrefix(strings.TrimSpace(line), "expr: "); ok {
			all = append(all, expr)
		}
	}
	var dashboard struct {
		Panels []struct {
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(readFile(t, "../../packaging/monitoring/dashboard.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	for _, p := range dashboard.Panels {
		for _, q := range p.Targets {
			all = append(all, q.Expr)
		}
	}
	return all
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// get is a page's status and text; 0 when nobody answers.
func get(address, page string) (int, string) {
	r, err := http.Get("http://" + address + page)
	if err != nil {
		return 0, ""
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, ""
	}
	return r.StatusCode, string(text)
}

// Everything that the alert rules and the dashboard ask for is exposed by daemons
// that run, and everything exposed is asked for. /healthz says what is so.
func TestMonitoring(t *testing.T) {
	p, dir := newPaper(t), t.TempDir()
	ctiAt, recorderAt, directorAt, watchdogAt := address(t), address(t), address(t), address(t)
	pages := map[string]string{"recorder": address(t), "director": address(t), "watchdog": address(t)}
	sim := configure(t, dir, "turretsim", fmt.Sprintf("control = %q\n[cti]\nlisten = %q\n[sip]\nlisten = %q\n[floor]\nturrets = 4\nmixes = 2\ncalls_per_minute = 20.0\n", address(t), ctiAt, address(t)))
	recorder := configure(t, dir, "recorder", fmt.Sprintf(`
control = %q
metrics = %q
dir = %q
[limits]
reserve = 0
[catalog]
url = "postgres://tandem@127.0.0.1:9/nowhere"
%s`, recorderAt, pages["recorder"], filepath.Join(dir, "rec"), p.section(pki.Recorder, "rec-1")))
	director := configure(t, dir, "director", fmt.Sprintf(`
control = %q
metrics = %q
monitor = %q
[[recorder]]
name = "rec-1"
address = %q
[failover]
preferred = true
peer = %q
peer_monitor = [%q]
voters = [%q]
monitor_key_file = %q
socket = %q
[reconcile]
twin = [%q]
[provider.unigy]
servers = [%q]
sip_listen = %q
%s`, directorAt, pages["director"], address(t), recorderAt, address(t), address(t), recorderAt, filepath.Join(dir, "monitor.key"), filepath.Join(dir, "director.sock"),
		address(t), ctiAt, address(t), p.section(pki.Director, "dir-a")))
	watchdog := configure(t, dir, "watchdog", fmt.Sprintf("control = %q\nmetrics = %q\ndirector_config = %q\nfailback_file = \"\"\nunit = \"\"\n%s", watchdogAt, pages["watchdog"], director.config, p.section(pki.Watchdog, "wd-a")))
	if err := os.WriteFile(filepath.Join(dir, "monitor.key"), []byte("everybody may know what a story knows\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &floor{t: t, dir: dir, site: filepath.Join(dir, "recctl.toml")}
	if err := os.WriteFile(f.site, fmt.Appendf(nil, "directors = [%q]\n%s", directorAt, p.section(pki.Operator, "ann")), 0o644); err != nil {
		t.Fatal(err)
	}
	director.start() // before its recorder: calls of it fail, and are counted
	eventually(t, 20*time.Second, "the director misses its recorder", func() bool {
		_, text := get(pages["director"], "/metrics")
		return strings.Contains(text, "tandem_director_rpc_errors_total{")
	})
	for _, d := range []*program{sim, recorder, watchdog} {
		d.start()
	}
	eventually(t, time.Minute, "the floor is recorded", func() bool {
		_, text := get(pages["director"], "/metrics")
		return strings.Contains(text, `tandem_director_channels{state="attached"} 8`) && strings.Contains(text, `tandem_director_role{role="active"} 1`)
	})

	all := exposed{}
	for _, daemon := range pages {
		eventually(t, 20*time.Second, daemon+" is healthy", func() bool { status, text := get(daemon, "/healthz"); return status == http.StatusOK && text == "ok\n" })
		_, text := get(daemon, "/metrics")
		all.add(text)
	}
	asked := map[string]bool{}
	for _, q := range queries(t) {
		all.check(t, q, asked)
	}
	for name := range all {
		if histogram := strings.TrimSuffix(strings.TrimSuffix(name, "_sum"), "_count"); !asked[name] && !asked[histogram+"_bucket"] {
			t.Errorf("%s is exposed, and neither the dashboard nor a rule looks at it", name)
		}
	}
	t.Logf("%d metrics exposed, %d of them asked for", len(all), len(asked))

	if _, err := f.try("drain", "--timeout", "1s", "rec-1"); err == nil {
		t.Error("a recorder is drained with nowhere to go for its channels")
	}
	if status, text := get(pages["recorder"], "/healthz"); status != http.StatusServiceUnavailable || !strings.Contains(text, "draining") {
		t.Errorf("while it is drained /healthz says %d %q", status, text)
	}
	f.recctl("drain", "rec-1", "--undo")
	eventually(t, 10*time.Second, "the recorder is healthy again", func() bool { status, _ := get(pages["recorder"], "/healthz"); return status == http.StatusOK })
}
