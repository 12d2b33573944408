package stories

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tandem/internal/pki"
	"tandem/internal/rpc"
)

// paper issues certificates with recctl, as people do.
type paper struct {
	t   testing.TB
	dir string
}

func newPaper(t testing.TB) *paper {
	t.Helper()
	p := &paper{t, filepath.Join(t.TempDir(), "pki")}
	p.recctl("init", "--site", "story")
	return p
}

func (p *paper) recctl(args ...string) {
	p.t.Helper()
	args = append(append([]string{"pki"}, args...), "--dir", p.dir)
	if out, err := exec.Command(filepath.Join(programs(p.t), "recctl"), args...).CombinedOutput(); err != nil {
		p.t.Fatalf("recctl %v: %v\n%s", args, err, out)
	}
}

func (p *paper) files(name string) pki.Config {
	at := func(file string) string { return filepath.Join(p.dir, file) }
	return pki.Config{Cert: at(name + ".crt"), Key: at(name + ".key"), CA: at("ca.crt")}
}

// section is the [tls] of somebody; no paper has none.
func (p *paper) section(role pki.Role, name string) string {
	if p == nil {
		return ""
	}
	args := []string{"issue", name, "--role", string(role)}
	if role.Serves() {
		args = append(args, "--host", "127.0.0.1")
	}
	p.recctl(args...)
	files := p.files(name)
	return fmt.Sprintf("[tls]\ncert = %q\nkey = %q\nca = %q\n", files.Cert, files.Key, files.CA)
}

func (p *paper) client(name string) *http.Client {
	return rpc.Open(p.files(name), pki.Identity{}, slog.New(slog.DiscardHandler)).NewClient()
}

// logged is how often a program's log has a line with all of the words.
func (p *program) logged(words ...string) (n int) {
	p.t.Helper()
	text, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		has := true
		for _, w := range words {
			has = has && strings.Contains(string(line), w)
		}
		if has {
			n++
		}
	}
	return n
}

// While everybody talks the certificates of all daemons are renewed, and then a
// file is damaged: nobody loses control or a packet, and whoever connects anew
// is let in.
func TestCertificatesRenewed(t *testing.T) {
	p := newPaper(t)
	f := newFloor(t, settings{turrets: 8, mixes: 2, keep: "all", floor: "calls_per_minute = 20.0\ncall_length = \"3s\"", paper: p})
	roles := f.recctl("history")
	expires := func() float64 { return f.recorderMetrics()[`tandem_certificate_expires_seconds{of="certificate"}`] }
	if left := expires(); left < 824*86400 || left > 825*86400 {
		t.Errorf("valid for %v s yet", left)
	}
	p.recctl("issue", "rec-1", "--renew", "--days", "100")
	p.recctl("issue", "dir-a", "--renew", "--days", "100")
	eventually(t, 20*time.Second, "both have taken up their new certificates", func() bool {
		return expires() < 101*86400 && f.director.logged("msg=certificate", "dir-a.crt") == 2
	})
	if err := os.WriteFile(p.files("rec-1").Cert, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the recorder says what is wrong", func() bool {
		return f.recorderMetrics()["tandem_certificate_unfit"] == 1 && f.recorder.logged("certificate cannot be used", "kept=true") == 1
	})
	if now := f.recctl("history"); !bytes.Equal(now, roles) {
		t.Errorf("history is %s, was %s", now, roles)
	}
	f.director.stop()
	f.director.start()
	eventually(t, 20*time.Second, "a new director has every channel", func() bool { return f.attached() == 16 && f.dialogs() == 16 })
	f.sim.stop()
	time.Sleep(time.Second) // the recorder sweeps what is on its way
	verdict := f.judge()
	if verdict.UnexplainedMS != 0 || verdict.DuplicatedMS != 0 || verdict.GapMS != 0 || verdict.RecordedMS != verdict.SentMS || verdict.SentMS == 0 {
		t.Errorf("%+v", verdict)
	}
	t.Logf("sent %d ms, recorded %d ms", verdict.SentMS, verdict.RecordedMS)
	f.recctl("verify", "--deep")
}
