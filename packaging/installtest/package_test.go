package installtest

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// units are what the package brings, each for one role.
var units = []string{"tandem-director.service", "tandem-recorder.service", "tandem-turretsim.service", "tandem-watchdog.service"}

// Equal sources give equal packages, wherever they lie, whoever's umask it is,
// and whatever the time.
func TestReproducible(t *testing.T) {
	needs(t, "git")
	elsewhere := filepath.Join(t.TempDir(), "another place")
	tree := copyTree(t, "../..", elsewhere)
	version, epoch := builtAs(t)
	out := build(t, tree, filepath.Join(elsewhere, "out"), version, "SOURCE_DATE_EPOCH="+epoch, "TZ=Asia/Tokyo", "LANG=C.UTF-8")
	for _, pattern := range []string{"*.deb", "*.rpm"} {
		first := built(t, pattern)
		again := filepath.Join(out, filepath.Base(first))
		a, errA := os.ReadFile(first)
		b, errB := os.ReadFile(again)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s is another one when it is built elsewhere", filepath.Base(first))
		}
		t.Logf("%s: %.1f MB, %d files", filepath.Base(first), float64(len(a))/1e6, strings.Count(contents(t, first), "\n"))
	}
}

// copyTree copies what git knows or would take, with other times and modes.
func copyTree(t *testing.T, from, to string) string {
	t.Helper()
	list := command(t, "git", "-C", from, "ls-files", "--cached", "--others", "--exclude-standard")
	for name := range strings.Lines(list) {
		name = strings.TrimSpace(name)
		info, err := os.Stat(filepath.Join(from, name))
		if err != nil {
			continue // deleted, and not yet so for git
		}
		text, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(to, name), info.Mode().Perm()&0o700, string(text))
	}
	return to
}

// builtAs is the version of the packages, and the time in them.
func builtAs(t *testing.T) (version, epoch string) {
	t.Helper()
	version = strings.TrimSpace(command(t, "dpkg-deb", "--field", built(t, "*.deb"), "Version"))
	info, err := os.Stat(filepath.Join(os.Getenv(packages), "root/doc/LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	return version, fmt.Sprint(info.ModTime().Unix())
}

// contents lists what is in a package, a line a file.
func contents(t *testing.T, file string) string {
	t.Helper()
	if strings.HasSuffix(file, ".rpm") {
		return command(t, "rpm", "--query", "--list", "--package", "--nosignature", file)
	}
	return command(t, "dpkg-deb", "--contents", file)
}

// build builds packages of a tree, and returns where they are.
func build(t *testing.T, tree, to, version string, env ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(tree, "packaging/build"), to)
	cmd.Env = append(append(os.Environ(), "VERSION="+version), env...)
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build packages: %v\n%s", err, out)
	}
	t.Logf("built %s in %v", version, time.Since(began).Round(100*time.Millisecond))
	return to
}

// directories are what the packages own themselves.
var directories = map[string]bool{"/etc/tandem": true, "/usr/share/doc/tandem": true, "/usr/share/tandem": true, "/usr/share/doc/tandem/examples": true}

// Both packages hold the same files, and every file in them is the package's
// business: nothing is writable by others, nothing belongs to anybody but root.
func TestContents(t *testing.T) {
	needs(t, "dpkg-deb", "rpm")
	var deb []string
	for line := range strings.Lines(contents(t, built(t, "*.deb"))) {
		f := strings.Fields(line)
		if mode, owner := f[0], f[1]; owner != "root/root" || mode[8] == 'w' || mode[5] == 'w' {
			t.Errorf("in the deb: %s", line)
		}
		if f[0][0] != 'd' {
			deb = append(deb, strings.TrimPrefix(f[5], "."))
		}
	}
	rpm := slices.DeleteFunc(strings.Fields(contents(t, built(t, "*.rpm"))), func(f string) bool { return directories[f] })
	slices.Sort(deb)
	slices.Sort(rpm)
	if !slices.Equal(deb, rpm) {
		t.Errorf("the deb has %q\nthe rpm has %q", deb, rpm)
	}
	for _, want := range append(slices.Clone(units), "recctl.1.gz", "completions/recctl", "/etc/tandem/recorder.toml", "copyright", "install.md") {
		if !slices.ContainsFunc(deb, func(f string) bool { return strings.HasSuffix(f, want) }) {
			t.Errorf("%s is missing", want)
		}
	}
}

// The rpm is installed into a root, its units are sound there, an upgrade keeps
// what was configured, and removal keeps recordings.
func TestRPM(t *testing.T) {
	needs(t, "rpm", "systemd-analyze")
	if !own(t) {
		return
	}
	unpack(t)
	root := newDisk(t, "rpm")
	rpm := func(args ...string) string {
		return command(t, "rpm", append([]string{"--root=" + root, "--nosignature", "--nodeps"}, args...)...)
	}
	rpm("--install", built(t, "*.rpm"))
	verifyUnits(t, root)
	if passwd, _ := os.ReadFile(filepath.Join(root, "etc/passwd")); !strings.Contains(string(passwd), "\ntandem:") {
		t.Error("there is no user tandem")
	}
	if links := enabled(t, root); len(links) > 0 {
		t.Errorf("installing has enabled %v", links)
	}

	config, kept := filepath.Join(root, "etc/tandem/recorder.toml"), filepath.Join(root, "var/lib/tandem/recorder/media/kept.wav")
	write(t, config, 0o644, "name = \"mine\"\n")
	write(t, kept, 0o640, "audio")
	rpm("--upgrade", "--force", built(t, "*.rpm"))
	if text, _ := os.ReadFile(config); string(text) != "name = \"mine\"\n" {
		t.Errorf("the upgrade wrote over the configuration: %s", text)
	}
	rpm("--erase", "tandem")
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("removal took a recording: %v", err)
	}
	if _, err := os.Stat(filepath.Join(root, "usr/bin/recctl")); err == nil {
		t.Error("removal left the programs")
	}
}

// verifyUnits has systemd judge the units in a root.
func verifyUnits(t *testing.T, root string) {
	t.Helper()
	for _, unit := range units {
		out := command(t, "systemd-analyze", "verify", "--man=no", "--root="+root, filepath.Join(root, "usr/lib/systemd/system", unit))
		if strings.Contains(out, unit) {
			t.Errorf("%s", out)
		}
		out = command(t, "systemd-analyze", "security", "--no-pager", "--offline=yes", "--threshold=25", "--root="+root, filepath.Join(root, "usr/lib/systemd/system", unit))
		t.Log(lastLine(out))
	}
}

func enabled(t *testing.T, root string) (links []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(root, "etc/systemd"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), "tandem-") {
			links = append(links, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return links
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
