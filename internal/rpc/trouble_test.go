package rpc

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/internal/bubble"
	"tandem/internal/pki"
)

// Two daemons of a site talk, and the one that answers knows who asked.
func TestSecure(t *testing.T) {
	ldn := newSite(t, "ldn")
	port := serving(t, as(t, ldn.issue(t, pki.Recorder, "rec-1", time.Now(), "127.0.0.1", "localhost"), new(logbook).log()))
	c := client(t, ldn.issue(t, pki.Director, "dir-a", time.Now(), "127.0.0.1"), new(logbook).log())
	for _, host := range []string{"127.0.0.1", "localhost"} {
		if who, err := query(t.Context(), c, "http://"+host+":"+port, ""); err != nil || who != "director dir-a" {
			t.Errorf("%s: %q, %v", host, who, err)
		}
	}
}

// paths and ports differ from run to run.
var (
	paths = regexp.MustCompile(`/\S*/([a-z0-9-]+\.(crt|key))`)
	ports = regexp.MustCompile(`127\.0\.0\.1:\d+`)
	dates = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d UTC`)
)

func plainly(s string) string {
	s = dates.ReplaceAllString(ports.ReplaceAllString(paths.ReplaceAllString(s, "$1"), "PEER"), "DATE")
	return strings.ReplaceAll(s, `\"`, `"`)
}

// Whatever is wrong is said in one sentence, to the one who called and in the
// log of the one who was called, and counted by both.
func TestTroubles(t *testing.T) {
	ldn, nyc, namesake := newSite(t, "ldn"), newSite(t, "nyc"), newSite(t, "ldn")
	now, gone, ahead := time.Now(), time.Now().Add(-48*time.Hour), time.Now().Add(48*time.Hour)
	both := *ldn // trusts several authorities, as while one replaces another
	both.ca = t.TempDir() + "/both.crt"
	write(t, both.ca, slices.Concat(read(t, ldn.ca), read(t, nyc.ca), read(t, namesake.ca)))
	stranger := nyc.issue(t, pki.Director, "dir-a", now, "127.0.0.1")
	stranger.CA = both.ca
	outsider := namesake.issue(t, pki.Director, "dir-a", now, "127.0.0.1")
	outsider.CA = both.ca
	well, here := ldn.issue(t, pki.Recorder, "rec-1", now, "127.0.0.1"), ldn.issue(t, pki.Director, "dir-a", now, "127.0.0.1")
	open := both.issue(t, pki.Recorder, "rec-1", now, "127.0.0.1")
	lost := pki.Config{Cert: "/none/rec-1.crt", Key: "/none/rec-1.key", CA: "/none/ca.crt"}
	for _, c := range []struct {
		name           string
		server, client pki.Config
		told           string // to the caller
		reason         pki.Reason
		logged         string // by the server
		serverReason   pki.Reason
	}{
		{
			"expired server", ldn.issue(t, pki.Recorder, "rec-1", gone, "127.0.0.1"), here,
			"certificate of recorder rec-1 at PEER was valid until DATE, and the clock here says DATE: issue a new one (recctl pki issue rec-1 --renew) and put it there", pki.Expired,
			"PEER refuses the certificate of recorder rec-1 in rec-1.crt (valid from DATE until DATE): bad certificate; its own log says why", pki.Refused,
		},
		{
			"server of the future", ldn.issue(t, pki.Recorder, "rec-1", ahead, "127.0.0.1"), here,
			"certificate of recorder rec-1 at PEER is valid from DATE on only, and the clock here says DATE: set the clock that is wrong", pki.NotYetValid,
			"PEER refuses the certificate of recorder rec-1", pki.Refused,
		},
		{
			"server of another name", ldn.issue(t, pki.Recorder, "rec-1", now, "10.9.8.7", "rec-1.ldn"), here,
			"certificate of recorder rec-1 at PEER is for rec-1.ldn, 10.9.8.7, and it was called as 127.0.0.1: correct the address, or issue it with --host 127.0.0.1", pki.WrongName,
			"PEER refuses the certificate of recorder rec-1 in rec-1.crt (valid from DATE until DATE): bad certificate; its own log says why", pki.Refused,
		},
		{
			"server of another authority", namesake.issue(t, pki.Recorder, "rec-1", now, "127.0.0.1"), here,
			`certificate of recorder rec-1 at PEER is signed by "CN=Tandem authority of ldn,O=ldn", whose certificate is not in ca.crt: it is of another site, or ca.crt is out of date`, pki.WrongAuthority,
			"bad certificate; its own log says why", pki.Refused,
		},
		{
			"server of another role", ldn.issue(t, pki.Director, "dir-b", now, "127.0.0.1"), here,
			"director dir-b answers at PEER, where a recorder or watchdog should: correct the address", pki.WrongRole,
			"bad certificate; its own log says why", pki.Refused,
		},
		{
			"person as a server", ldn.issue(t, pki.Operator, "ann", now), here,
			"certificate of operator ann at PEER is for nothing, and it was called as 127.0.0.1: correct the address, or issue it with --host 127.0.0.1", pki.WrongName,
			"bad certificate; its own log says why", pki.Refused,
		},
		{
			"server of another site", both.issue(t, pki.Recorder, "rec-1", now, "127.0.0.1"), stranger,
			"recorder rec-1 at PEER is of site ldn, and this is site nyc", pki.WrongSite,
			"bad certificate; its own log says why", pki.Refused,
		},
		{
			"server in the clear", pki.Config{}, here,
			"PEER speaks no TLS: [tls] is missing in its configuration, or the port is another program's", pki.Unencrypted,
			"PEER called with TLS, and the configuration here has no [tls]", pki.Unencrypted,
		},
		{
			"server without its files", lost, here,
			"PEER has no certificate that it could use; its own log says why", pki.Refused,
			"no certificate to speak TLS with: open rec-1.crt: no such file or directory; open ca.crt: no such file or directory; open rec-1.key: no such file or directory", pki.Files,
		},
		{
			"expired client", well, ldn.issue(t, pki.Director, "dir-a", gone, "127.0.0.1"),
			"PEER refuses the certificate of director dir-a in dir-a.crt (valid from DATE until DATE): by its clock that is not valid now", pki.Refused,
			"certificate of director dir-a at PEER was valid until DATE, and the clock here says DATE: issue a new one (recctl pki issue dir-a --renew) and put it there", pki.Expired,
		},
		{
			"client of the future", well, ldn.issue(t, pki.Director, "dir-a", ahead, "127.0.0.1"),
			"PEER refuses the certificate of director dir-a", pki.Refused,
			"certificate of director dir-a at PEER is valid from DATE on only, and the clock here says DATE: set the clock that is wrong", pki.NotYetValid,
		},
		{
			"client of another authority", well, outsider,
			`it does not know the authority "CN=Tandem authority of ldn,O=ldn" that signed it; both need the same site's ca`, pki.Refused,
			`certificate of director dir-a at PEER is signed by "CN=Tandem authority of ldn,O=ldn", whose certificate is not in ca.crt`, pki.WrongAuthority,
		},
		{
			"client in the clear", well, pki.Config{},
			"PEER wants TLS: name a certificate, its key and the site's authority under [tls] of the configuration used here", pki.Unencrypted,
			"PEER called without TLS: its configuration needs [tls]", pki.Unencrypted,
		},
		{
			"client without its files", well, lost,
			"no certificate to speak TLS with: open rec-1.crt: no such file or directory", pki.Files, "", "",
		},
		{"nothing wrong", open, here, "", "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var book logbook
			server := as(t, c.server, book.log())
			_, err := query(t.Context(), client(t, c.client, new(logbook).log()), "http://127.0.0.1:"+serving(t, server), "")
			var trouble *pki.Trouble
			if errors.As(err, &trouble) != (c.told != "") {
				t.Fatalf("got %v, want %s", err, c.told)
			}
			if trouble != nil && (!strings.Contains(plainly(trouble.Text), c.told) || trouble.Reason != c.reason || strings.Contains(trouble.Text, "\n")) {
				t.Errorf("told %s: %s\nwant %s: %s", trouble.Reason, plainly(trouble.Text), c.reason, c.told)
			}
			for deadline := time.Now().Add(30 * time.Second); !strings.Contains(plainly(book.String()), c.logged); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("logged %s\nwant %s", plainly(book.String()), c.logged)
				}
			}
			if want := "reason=" + string(c.serverReason); c.serverReason != "" && !strings.Contains(book.String(), want) {
				t.Errorf("logged %s, want %s", book.String(), want)
			}
			if n := counted(t, server); (n == 1) != (c.serverReason != "") {
				t.Errorf("%v troubles counted", n)
			}
		})
	}
}

func counted(t *testing.T, w Wire) float64 {
	t.Helper()
	families, err := registryOf(w).Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != "tandem_tls_failures_total" {
			continue
		}
		for _, m := range f.Metric {
			sum += m.Counter.GetValue()
		}
	}
	return sum
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Whoever takes connections and says nothing is given up within a second: a
// frozen daemon's kernel does that.
func TestFrozen(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		go io.Copy(io.Discard, far)
		director := as(t, newSite(t, "ldn").issue(t, pki.Director, "dir-a", time.Now(), "127.0.0.1"), new(logbook).log())
		dial := func(context.Context, string, string) (net.Conn, error) { return near, nil }
		c := &http.Client{Transport: newCallers(director.credentials, dial)}
		began := time.Now()
		_, err := query(t.Context(), c, "http://127.0.0.1:1", "")
		var trouble *pki.Trouble
		if !errors.As(err, &trouble) || trouble.Reason != pki.Handshake || !strings.Contains(trouble.Text, "did not end it in time") || time.Since(began) != handshakeWait {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

// curl without a certificate, and without TLS, gets a word, too; a port scanner
// costs no line in the log.
func TestPlainCallers(t *testing.T) {
	ldn := newSite(t, "ldn")
	var book logbook
	server := as(t, ldn.issue(t, pki.Recorder, "rec-1", time.Now(), "127.0.0.1"), book.log())
	address := "127.0.0.1:" + serving(t, server)
	r, err := http.Get("http://" + address + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if text, err := io.ReadAll(r.Body); err != nil || r.StatusCode != http.StatusBadRequest || !strings.Contains(string(text), "speaks TLS") {
		t.Errorf("%d %s, %v", r.StatusCode, text, err)
	}
	said := book.String()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	conn.(*net.TCPConn).CloseWrite()
	if _, err := io.ReadAll(conn); err != nil {
		t.Error(err)
	}
	if book.String() != said {
		t.Errorf("logged %s", book.String())
	}
}
