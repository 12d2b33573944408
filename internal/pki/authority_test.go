package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func newAuthority(t testing.TB, site string, now time.Time) (*Authority, Pair) {
	t.Helper()
	a, pair, err := NewAuthority(site, now)
	if err != nil {
		t.Fatal(err)
	}
	return a, pair
}

func issue(t testing.TB, a *Authority, o Order, now time.Time) (Pair, *x509.Certificate) {
	t.Helper()
	pair, err := a.Issue(o, now)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := ParseCertificates(pair.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	return pair, certs[0]
}

func TestIssue(t *testing.T) {
	now := time.Now()
	a, _ := newAuthority(t, "ldn", now)
	_, c := issue(t, a, Order{Recorder, "rec-1", []string{"10.0.1.1", "rec-1.ldn", "fd00::1"}, 48 * time.Hour}, now)
	roots := x509.NewCertPool()
	roots.AddCert(a.Certificate)
	for _, host := range []string{"10.0.1.1", "rec-1.ldn", "fd00::1"} {
		for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
			if _, err := c.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use}}); err != nil {
				t.Errorf("%s: %v", host, err)
			}
		}
	}
	if i, err := IdentityOf(c); err != nil || i != (Identity{"ldn", Recorder, "rec-1"}) {
		t.Error(i, err)
	}
	if left := c.NotAfter.Sub(now); left < 48*time.Hour-time.Second || left > 48*time.Hour || now.Sub(c.NotBefore) < early-time.Second {
		t.Errorf("valid from %v until %v", c.NotBefore, c.NotAfter)
	}
	_, person := issue(t, a, Order{Role: Viewer, Name: "ann", Life: time.Hour}, now)
	if !slices.Equal(person.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
		t.Errorf("a person's certificate is for %v", person.ExtKeyUsage)
	}
	o, err := Again(c, time.Hour)
	if _, renewed := issue(t, a, o, now); err != nil || !slices.Equal(HostsOf(renewed), HostsOf(c)) || renewed.URIs[0].String() != c.URIs[0].String() {
		t.Errorf("renewed as %v, %v", renewed.URIs, err)
	}
}

// A certificate ends no later than the authority that signed it.
func TestIssueNearTheEnd(t *testing.T) {
	began := time.Now()
	a, _ := newAuthority(t, "ldn", began)
	_, c := issue(t, a, Order{Role: Viewer, Name: "ann", Life: 2 * AuthorityLife}, began)
	if !c.NotAfter.Equal(a.Certificate.NotAfter) {
		t.Errorf("until %v, its authority until %v", c.NotAfter, a.Certificate.NotAfter)
	}
	if _, err := a.Issue(Order{Role: Viewer, Name: "ann", Life: time.Hour}, began.Add(AuthorityLife+time.Hour)); err == nil || !strings.Contains(err.Error(), "the authority itself was valid until") {
		t.Error(err)
	}
}

func TestOrderFaults(t *testing.T) {
	a, _ := newAuthority(t, "ldn", time.Now())
	for _, c := range []struct {
		order Order
		want  string
	}{
		{Order{"king", "x", nil, time.Hour}, "role"},
		{Order{Recorder, "../../etc", []string{"10.0.0.1"}, time.Hour}, "name"},
		{Order{Recorder, "rec-1", nil, time.Hour}, "name the addresses"},
		{Order{Recorder, "rec-1", []string{"10.0.0.1:7402"}, time.Hour}, "without a port"},
		{Order{Recorder, "rec-1", []string{"-x"}, time.Hour}, "want an IP address"},
		{Order{Recorder, "rec-1", []string{"*.ldn"}, time.Hour}, "want an IP address"},
		{Order{Operator, "ann", []string{"10.0.0.1"}, time.Hour}, "nobody calls an operator"},
		{Order{Operator, "ann", nil, 0}, "lasts"},
	} {
		if _, err := a.Issue(c.order, time.Now()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %s", c.order, err, c.want)
		}
	}
}

func TestOpenAuthority(t *testing.T) {
	dir := t.TempDir()
	_, pair := newAuthority(t, "ldn", time.Now())
	if err := pair.Save(filepath.Join(dir, AuthorityFile), filepath.Join(dir, AuthorityKeyFile)); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, AuthorityKeyFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	a, err := OpenAuthority(dir)
	if err != nil || a.Site != "ldn" {
		t.Fatal(a, err)
	}
	issue(t, a, Order{Role: Viewer, Name: "ann", Life: time.Hour}, time.Now())
	_, other := newAuthority(t, "ldn", time.Now())
	if _, err := ParseAuthority(Pair{pair.Certificate, other.Key}); err == nil {
		t.Error("an authority with another's key")
	}
	leaf, _ := issue(t, a, Order{Role: Viewer, Name: "ann", Life: time.Hour}, time.Now())
	if _, err := ParseAuthority(leaf); err == nil || !strings.Contains(err.Error(), "is no authority's") {
		t.Error(err)
	}
}

// Nothing in a file is passed over: what was read makes up all that is there.
func FuzzParseCertificates(f *testing.F) {
	a, pair := newAuthority(f, "ldn", time.Now())
	leaf, _ := issue(f, a, Order{Recorder, "rec-1", []string{"10.0.0.1"}, time.Hour}, time.Now())
	f.Add(pair.Certificate)
	f.Add(slices.Concat(leaf.Certificate, pair.Certificate))
	f.Add(slices.Concat(leaf.Certificate, leaf.Key))
	f.Add(leaf.Certificate[:len(leaf.Certificate)-40])
	f.Add(slices.Concat(pair.Certificate, leaf.Certificate[:200]))
	f.Fuzz(func(t *testing.T, text []byte) {
		certs, err := ParseCertificates(text)
		if err != nil {
			if certs != nil {
				t.Errorf("%d certificates with %v", len(certs), err)
			}
			return
		}
		for n, c := range certs {
			block, rest := pem.Decode(text)
			if block == nil || !bytes.Equal(block.Bytes, c.Raw) {
				t.Fatalf("certificate %d of %d is not in the text", n+1, len(certs))
			}
			text = rest
		}
		if len(bytes.TrimSpace(text)) > 0 {
			t.Errorf("%q is passed over", text)
		}
	})
}
