package pki

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tandem/internal/bubble"
	"tandem/internal/config"
)

// paper is what a log is written on, and read while others write.
type paper struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (p *paper) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *paper) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

func (p *paper) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text.Reset()
}

// desk is a site whose recorder rec-1 has files.
type desk struct {
	t         *testing.T
	authority *Authority
	files     Config
}

var owner = Identity{Role: Recorder, Name: "rec-1"}

func newDesk(t *testing.T) *desk {
	t.Helper()
	dir := t.TempDir()
	d := &desk{t: t, files: Config{filepath.Join(dir, "rec-1.crt"), filepath.Join(dir, "rec-1.key"), filepath.Join(dir, "ca.crt")}}
	var pair Pair
	d.authority, pair = newAuthority(t, "ldn", time.Now())
	d.write(d.files.CA, pair.Certificate)
	d.issue(d.order(), time.Now())
	return d
}

func (d *desk) order() Order {
	return Order{Recorder, "rec-1", []string{"10.0.1.1"}, 30 * 24 * time.Hour}
}

func (d *desk) issue(o Order, now time.Time) {
	d.t.Helper()
	pair, _ := issue(d.t, d.authority, o, now)
	if err := pair.Save(d.files.Cert, d.files.Key); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) write(file string, text []byte) {
	d.t.Helper()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// run keeps credentials until the bubble's test ends; they have begun.
func (d *desk) run(log io.Writer) *Credentials {
	l := slog.New(slog.NewTextHandler(log, nil))
	c := Open(d.files, owner, NewLedger(l), l)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- c.Run(ctx) }()
	d.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			d.t.Error(err)
		}
	})
	synctest.Wait()
	return c
}

// pass lets time go by in a bubble, and whoever it wakes come to rest.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func serial(c *Credentials) string {
	m, err := c.use()
	if err != nil {
		return ""
	}
	return m.leaf().SerialNumber.String()
}

func worry(c *Credentials) string {
	text, _ := c.Worry(time.Now())
	return text
}

// A new certificate is taken up within two seconds; one that is damaged, or cut
// off in the middle, or not valid, is not, and that is said once.
func TestReload(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d, log := newDesk(t), new(paper)
		c := d.run(log)
		first := serial(c)
		pass(time.Hour)
		if n := strings.Count(log.String(), "\n"); n != 1 || worry(c) != "" {
			t.Errorf("%d lines: %s%s", n, log, worry(c))
		}

		d.issue(d.order(), time.Now())
		pass(3 * look)
		second := serial(c)
		if second == first || strings.Count(log.String(), "msg=certificate ") != 2 {
			t.Fatalf("not taken up: %s", log)
		}

		good, _ := os.ReadFile(d.files.Cert)
		for name, text := range map[string][]byte{"empty": nil, "cut": good[:len(good)/2], "rubbish": []byte("hello")} {
			log.Reset()
			d.write(d.files.Cert, text)
			pass(10 * look)
			if serial(c) != second || strings.Count(log.String(), "level=ERROR") != 1 || !strings.Contains(log.String(), "kept=true") {
				t.Errorf("%s: %s", name, log)
			}
			if w := worry(c); !strings.Contains(w, "the certificate of before is in use, until ") || !strings.Contains(w, "rec-1.crt: holds") {
				t.Errorf("%s: %s", name, w)
			}
		}
		d.write(d.files.Cert, good)
		pass(3 * look)
		if worry(c) != "" || serial(c) != second {
			t.Error(worry(c))
		}

		expired := d.order()
		expired.Life = time.Minute
		for name, at := range map[string]time.Time{"expired": time.Now().Add(-time.Hour), "of another": time.Now()} {
			o := expired
			if name == "of another" {
				o.Name = "rec-2"
			}
			d.issue(o, at)
			pass(3 * look)
			if serial(c) != second || worry(c) == "" {
				t.Errorf("%s: %s, %q", name, log, worry(c))
			}
		}

		// One of the future is taken up when its time has come.
		future := time.Now().Add(3 * time.Hour)
		d.issue(d.order(), future)
		pass(time.Hour)
		if serial(c) != second {
			t.Error("a certificate of the future is in use")
		}
		pass(time.Until(future.Add(-early)) + 2*again)
		if serial(c) == second || worry(c) != "" {
			t.Errorf("not taken up in its time: %s", worry(c))
		}
	})
}

// A certificate and its key are replaced one after the other.
func TestReloadBetweenTwoFiles(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d, log := newDesk(t), new(paper)
		c := d.run(log)
		pass(look / 2) // between two looks
		for range 20 {
			before := serial(c)
			pair, _ := issue(t, d.authority, d.order(), time.Now())
			d.write(d.files.Key, pair.Key)
			pass(look * 9 / 10)
			d.write(d.files.Cert, pair.Certificate)
			pass(3*look + look/10)
			if serial(c) == before {
				t.Fatal("not taken up")
			}
		}
		if strings.Contains(log.String(), "ERROR") {
			t.Errorf("half of a change was looked at: %s", log)
		}
	})
}

// Files that cannot be used at the start keep nobody from starting, and are
// taken up once they are mended.
func TestStartWithoutFiles(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d, log := newDesk(t), new(paper)
		key, _ := os.ReadFile(d.files.Key)
		os.Remove(d.files.Key)
		c := d.run(log)
		if _, err := c.Client("10.0.1.1:7402", nil); err == nil || !strings.Contains(err.Error(), "rec-1.key: no such file") {
			t.Error(err)
		}
		if w := worry(c); !strings.Contains(w, "no new connection comes about: ") || !strings.Contains(log.String(), "kept=false") {
			t.Errorf("%s %s", w, log)
		}
		d.write(d.files.Key, key)
		pass(3 * look)
		if worry(c) != "" || c.Identity() != (Identity{"ldn", Recorder, "rec-1"}) {
			t.Error(worry(c), c.Identity())
		}
	})
}

// The end of a certificate is said two weeks ahead, once a day, and when it has come.
func TestExpiry(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d, log := newDesk(t), new(paper)
		o := d.order()
		o.Life = Warning + 2*time.Hour
		d.issue(o, time.Now())
		c := d.run(log)
		gauge := func() float64 {
			r := prometheus.NewPedanticRegistry()
			r.MustRegister(c)
			families, err := r.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				if f.GetName() == "tandem_certificate_expires_seconds" {
					for _, m := range f.Metric {
						if m.Label[0].GetValue() == "certificate" {
							return m.Gauge.GetValue()
						}
					}
				}
			}
			return math.NaN()
		}
		pass(time.Hour)
		if left := gauge(); worry(c) != "" || math.Abs(left-Warning.Seconds()-3600) > 60 {
			t.Errorf("%s, %v s left", worry(c), left)
		}
		pass(2 * time.Hour)
		if !strings.Contains(worry(c), "recctl pki issue rec-1 --renew") || strings.Count(log.String(), "level=WARN") != 1 {
			t.Errorf("%s, %s", worry(c), log)
		}
		pass(24 * time.Hour)
		if n := strings.Count(log.String(), "level=WARN"); n != 2 {
			t.Errorf("warned %d times in a day", n)
		}
		after := time.Now().Add(Warning)
		if text, worried := c.Worry(after); !worried || !strings.Contains(text, "was valid until") {
			t.Error(text)
		}
	})
}

// The checks of a file name the key, and what to do.
func TestInspect(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name  string
		spoil func(d *desk)
		want  string // of the only fault; empty: none
	}{
		{"well", func(*desk) {}, ""},
		{"no certificate", func(d *desk) { os.Remove(d.files.Cert) }, "tls.cert: open "},
		{"no authority", func(d *desk) { os.Remove(d.files.CA) }, "tls.ca: open "},
		{"key for the certificate", func(d *desk) { d.files.Cert = d.files.Key }, "tls.cert: rec-1.key: holds a private key: want certificates only"},
		{"certificate for the key", func(d *desk) { d.files.Key = d.files.Cert; os.Chmod(d.files.Key, 0o600) }, "tls.key: rec-1.crt: holds no private key in PEM"},
		{"another's key", func(d *desk) {
			pair, _ := issue(d.t, d.authority, d.order(), now)
			d.write(d.files.Key, pair.Key)
		}, "tls.key: rec-1.key is not the key of the certificate in rec-1.crt"},
		{"another's certificate", func(d *desk) {
			d.issue(Order{Recorder, "rec-2", []string{"10.0.1.2"}, time.Hour}, now)
		}, "tls.cert: rec-1.crt is the certificate of recorder rec-2, and this is recorder rec-1"},
		{"another authority", func(d *desk) {
			_, pair := newAuthority(d.t, "ldn", now)
			d.write(d.files.CA, pair.Certificate)
		}, "tls.cert: certificate of recorder rec-1 in rec-1.crt is signed by "},
		{"expired", func(d *desk) { d.issue(d.order(), now.Add(-40*24*time.Hour)) }, "tls.cert: certificate of recorder rec-1 in rec-1.crt was valid until "},
		{"open key", func(d *desk) { os.Chmod(d.files.Key, 0o644) }, "tls.key: rec-1.key can be used by others (mode 0644): chmod 600 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk(t)
			c.spoil(d)
			faults := d.files.Inspect(owner, now)
			var got string
			for _, f := range faults {
				got += strings.ReplaceAll(f.String(), filepath.Dir(d.files.CA)+"/", "") + "\n"
			}
			if !strings.HasPrefix(got, c.want) || len(faults) != min(1, len(c.want)) {
				t.Errorf("got  %swant %s", got, c.want)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	all := Config{"a", "b", "c"}
	for _, c := range []struct {
		files    Config
		address  string
		insecure bool
		want     string
	}{
		{Config{}, "127.0.0.1:7402", false, ""},
		{Config{}, "10.0.0.1:7402", false, "control: \"10.0.0.1:7402\": want a loopback address: without [tls] this link is not encrypted"},
		{Config{}, "10.0.0.1:7402", true, ""},
		{all, "10.0.0.1:7402", false, ""},
		{all, "nonsense", false, "control: \"nonsense\": want ADDRESS:PORT"},
		{all, "10.0.0.1:7402", true, "insecure_control: true: means nothing with [tls]"},
		{Config{Cert: "a"}, "127.0.0.1:7402", false, "tls.key: want the file"},
		{Config{Key: "a", CA: "b"}, "127.0.0.1:7402", false, "tls.cert: want the file"},
	} {
		var check config.Check
		c.files.Check(&check)
		c.files.CheckListen(&check, "control", c.address, c.insecure)
		switch {
		case c.want == "" && len(check.Faults) > 0:
			t.Errorf("%+v: %v", c, check.Faults)
		case c.want != "" && (len(check.Faults) == 0 || !strings.HasPrefix(check.Faults[0].String(), c.want)):
			t.Errorf("%+v: %v, want %s", c, check.Faults, c.want)
		}
	}
}

// The same trouble is logged once a minute, however often it comes, and
// strangers fill no memory.
func TestLedger(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		log := new(paper)
		l := NewLedger(slog.New(slog.NewTextHandler(log, nil)))
		for n := range 100 {
			l.Note(AsServer, "10.0.0.1:"+string(rune('1'+n%9))+"000", CalledInClear("10.0.0.1"))
			pass(time.Second)
		}
		if strings.Count(log.String(), "\n") != 2 || !strings.Contains(log.String(), "not_logged=59") {
			t.Errorf("%s", log)
		}
		for n := range 5 * remembered {
			l.Note(AsServer, "host"+string(rune(n))+":1", CalledInClear("x"))
		}
		if len(l.seen) > remembered {
			t.Errorf("%d hosts are remembered", len(l.seen))
		}
	})
}
