package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tandem/internal/pki"
)

// A site's certificates from the first to a renewal, as the manual has it: what
// is printed is what a daemon's configuration takes.
func TestPKI(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	at := func(name string) string { return filepath.Join(dir, name) }
	run := func(status int, want string, args ...string) result {
		t.Helper()
		r := recctl(t, "", append(append([]string{"pki"}, args...), "--dir", dir)...)
		if r.status != status || !strings.Contains(r.out+r.errs, want) {
			t.Fatalf("%v: %+v, want %d and %q", args, r, status, want)
		}
		return r
	}
	run(ExitFailed, "recctl pki init makes an authority", "issue", "rec-1", "--role", "recorder", "--host", "10.0.1.1")
	run(ExitUsage, `site "a/b": want`, "init", "--site", "a/b")
	run(ExitDone, "authority of site ldn, valid until 2036-02-28 13:00", "init", "--site", "ldn")
	run(ExitRefused, "ca.crt is there already", "init", "--site", "ldn")
	for _, file := range []string{pki.AuthorityKeyFile} {
		if info, err := os.Stat(at(file)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info, err)
		}
	}

	for _, c := range []struct {
		want string
		args []string
	}{
		{`role "": want director or`, []string{"issue", "rec-1", "--host", "10.0.1.1"}},
		{"name the addresses at which it is", []string{"issue", "rec-1", "--role", "recorder"}},
		{"nobody calls a viewer", []string{"issue", "ann", "--role", "viewer", "--host", "10.0.1.1"}},
		{`name "../x": want`, []string{"issue", "../x", "--role", "viewer"}},
		{"--days 0: want 1 to 3650", []string{"issue", "ann", "--role", "viewer", "--days", "0"}},
		{"wants NAME", []string{"issue"}},
	} {
		run(ExitUsage, c.want, c.args...)
	}

	issued := run(ExitDone, "certificate of recorder rec-1 at 10.0.1.1, rec-1.ldn, valid until 2028-06-04", "issue", "rec-1", "--role", "recorder", "--host", "10.0.1.1", "--host", "rec-1.ldn")
	if want := "[tls]\ncert = \"/etc/tandem/tls/rec-1.crt\"\nkey = \"/etc/tandem/tls/rec-1.key\"\nca = \"/etc/tandem/tls/ca.crt\"\n"; !strings.HasSuffix(issued.out, want) || !strings.Contains(issued.out, "/etc/tandem/recorder.toml") {
		t.Errorf("%s", issued.out)
	}
	run(ExitRefused, "rec-1.crt is there already; --renew issues it again", "issue", "rec-1", "--role", "recorder", "--host", "10.0.1.1")
	run(ExitFailed, "no such file", "issue", "rec-9", "--renew")
	before, err := os.ReadFile(at("rec-1.key"))
	if err != nil {
		t.Fatal(err)
	}
	run(ExitDone, "at rec-1.ldn, 10.0.1.1, valid until 2026-04-01", "issue", "rec-1", "--renew", "--days", "30")
	if after, err := os.ReadFile(at("rec-1.key")); err != nil || string(after) == string(before) {
		t.Errorf("renewed with the same key, %v", err)
	}
	run(ExitDone, "into its /etc/tandem/recctl.toml", "issue", "ann", "--role", "viewer")
	var j struct {
		Site, Role, Name, Key string
		Hosts                 []string
	}
	r := run(ExitDone, "", "issue", "dir-a", "--role", "director", "--host", "10.0.0.1", "--json")
	if err := json.Unmarshal([]byte(r.out), &j); err != nil || j.Site != "ldn" || j.Role != "director" || j.Key != at("dir-a.key") || len(j.Hosts) != 1 {
		t.Errorf("%s, %v", r.out, err)
	}
}

// What a file holds is shown, and nothing is: whose it is not.
func TestPKIShow(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{
		{"pki", "init", "--site", "ldn", "--dir", dir}, {"pki", "issue", "rec-1", "--role", "recorder", "--host", "10.0.1.1", "--dir", dir},
	} {
		if r := recctl(t, "", args...); r.status != ExitDone {
			t.Fatal(r)
		}
	}
	r := recctl(t, "", "pki", "show", filepath.Join(dir, "rec-1.crt"))
	want := "recorder rec-1 of site ldn\n  hosts   10.0.1.1\n  valid   2026-03-02 12:00 until 2028-06-04 13:00, 825 days left\n  issuer  CN=Tandem authority of ldn,O=ldn\n  serial  "
	if r.status != ExitDone || !strings.HasPrefix(r.out, want) {
		t.Errorf("%+v\nwant %s", r, want)
	}
	if r = recctl(t, "", "pki", "show", filepath.Join(dir, "ca.crt"), "--json"); r.status != ExitDone || !strings.Contains(r.out, `"authority":true,"hosts":[],`) {
		t.Errorf("%+v", r)
	}
	if r = recctl(t, "", "pki", "show", filepath.Join(dir, "rec-1.key")); r.status != ExitFailed || !strings.Contains(r.errs, "holds a private key: want certificates only") {
		t.Errorf("%+v", r)
	}
}

// The check of a configuration looks into the files of [tls].
func TestConfigCheckTLS(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{
		{"pki", "init", "--dir", dir}, {"pki", "issue", "rec-2", "--role", "recorder", "--host", "10.0.1.2", "--dir", dir, "--days", "3650"},
	} {
		if r := recctl(t, "", args...); r.status != ExitDone {
			t.Fatal(r)
		}
	}
	file := filepath.Join(dir, "recorder.toml")
	text := "name = \"rec-1\"\ncontrol = \"10.0.1.1:7402\"\n[tls]\ncert = \"" + dir + "/rec-2.crt\"\nkey = \"" + dir + "/none.key\"\nca = \"" + dir + "/ca.crt\"\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := recctl(t, "", "config", "check", file); r.status != ExitUsage || !strings.Contains(r.errs, "tls.key: open "+dir+"/none.key: no such file") {
		t.Errorf("%+v", r)
	}
	text = strings.Replace(text, "none.key", "rec-2.key", 1)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := recctl(t, "", "config", "check", file); r.status != ExitUsage || !strings.Contains(r.errs, "rec-2.crt is the certificate of recorder rec-2, and this is recorder rec-1") {
		t.Errorf("%+v", r)
	}
}
