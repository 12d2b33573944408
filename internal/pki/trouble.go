package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"
)

// Reason is a trouble in one word, for counters and for programs.
type Reason string

// The reasons there are.
const (
	Expired        Reason = "expired"
	NotYetValid    Reason = "not_yet_valid"
	WrongAuthority Reason = "wrong_authority"
	WrongName      Reason = "wrong_name" // of the host that was called, or of the daemon itself
	WrongRole      Reason = "wrong_role"
	WrongSite      Reason = "wrong_site"
	NoCertificate  Reason = "no_certificate"
	Refused        Reason = "refused"     // by the other side, which knows why
	Unencrypted    Reason = "unencrypted" // one side speaks TLS, the other one does not
	Files          Reason = "files"       // what [tls] names cannot be used
	Handshake      Reason = "handshake"   // cut, too slow, or no common version
)

var reasons = []Reason{Expired, NotYetValid, WrongAuthority, WrongName, WrongRole, WrongSite, NoCertificate, Refused, Unencrypted, Files, Handshake}

// Trouble is why two processes do not come to talk: one sentence that says
// which certificate, which peer, and what to do.
type Trouble struct {
	Reason Reason
	Text   string
}

func (t *Trouble) Error() string { return t.Text }

func trouble(reason Reason, format string, args ...any) *Trouble {
	return &Trouble{reason, fmt.Sprintf(format, args...)}
}

// SpokenInClear is the trouble of whoever speaks TLS to a port that does not.
func SpokenInClear(peer string) *Trouble {
	return trouble(Unencrypted, "%s speaks no TLS: [tls] is missing in its configuration, or the port is another program's", peer)
}

// WantsTLS is the trouble of whoever speaks without TLS to a port that wants it.
func WantsTLS(peer string) *Trouble {
	return trouble(Unencrypted, "%s wants TLS: name a certificate, its key and the site's authority under [tls] of the configuration used here", peer)
}

// CalledInClear is the trouble of a port with TLS that is called without.
func CalledInClear(peer string) *Trouble {
	return trouble(Unencrypted, "%s called without TLS: its configuration needs [tls]", peer)
}

// CalledWithTLS is the trouble of a port without TLS that is called with it.
func CalledWithTLS(peer string) *Trouble {
	return trouble(Unencrypted, "%s called with TLS, and the configuration here has no [tls]", peer)
}

// day is an instant as it stands in sentences about certificates.
func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// span is how long a certificate is valid.
func span(c *x509.Certificate) string {
	return "valid from " + day(c.NotBefore) + " until " + day(c.NotAfter)
}

// unfit explains why a certificate does not verify; where is the peer that
// showed it, or the file that holds it.
func unfit(err error, leaf *x509.Certificate, where, authority string, now time.Time) *Trouble {
	title := titleOf(leaf)
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return outdated(invalid.Cert, leaf, where, now)
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return trouble(WrongRole, "certificate of %s %s is not for this use (%s): recctl pki issue makes those that daemons need", title, where, usages(leaf))
	case errors.As(err, &host):
		return trouble(WrongName, "certificate of %s %s is for %s, and it was called as %s: correct the address, or issue it with --host %s",
			title, where, orNothing(HostsOf(leaf)), host.Host, host.Host)
	case errors.As(err, &unknown):
		return trouble(WrongAuthority, "certificate of %s %s is signed by %q, whose certificate is not in %s: it is of another site, or %s is out of date",
			title, where, leaf.Issuer, authority, authority)
	}
	return trouble(Refused, "certificate of %s %s: %v", title, where, err)
}

// outdated tells a certificate that is over from one of the future, and the
// leaf from the authority above it.
func outdated(c, leaf *x509.Certificate, where string, now time.Time) *Trouble {
	what, do := "certificate of "+titleOf(leaf)+" "+where, "issue a new one (recctl pki issue NAME --renew) and put it there"
	if i, err := IdentityOf(leaf); err == nil {
		do = "issue a new one (recctl pki issue " + i.Name + " --renew) and put it there"
	}
	if c != nil && !c.Equal(leaf) {
		what, do = fmt.Sprintf("authority %q of %s %s", c.Subject, titleOf(leaf), where), "make a new one (recctl pki init) and issue all certificates again"
	}
	if c == nil {
		c = leaf
	}
	if now.Before(c.NotBefore) {
		return trouble(NotYetValid, "%s is valid from %s on only, and the clock here says %s: set the clock that is wrong", what, day(c.NotBefore), day(now))
	}
	return trouble(Expired, "%s was valid until %s, and the clock here says %s: %s", what, day(c.NotAfter), day(now), do)
}

func usages(c *x509.Certificate) string {
	var texts []string
	for _, u := range c.ExtKeyUsage {
		texts = append(texts, u.String())
	}
	return "it is for " + orNothing(texts)
}

func orNothing(all []string) string {
	if len(all) == 0 {
		return "nothing"
	}
	return strings.Join(all, ", ")
}

// Alerts by which the other side says what it has against our certificate (RFC
// 8446 6.2). crypto/tls keeps their type to itself; their texts are the same.
var (
	alertExpired  = tls.AlertError(45).Error()
	alertUnknown  = tls.AlertError(48).Error()
	alertRequired = tls.AlertError(116).Error()
	alertBad      = tls.AlertError(42).Error()
	alertInternal = tls.AlertError(80).Error()
	verdicts      = []string{alertExpired, alertUnknown, alertRequired, alertBad, alertInternal}
)

// verdictIn is the other side's on our certificate, if that is what an error is.
func verdictIn(err error) (alert string, ok bool) {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" && op.Err != nil {
		alert = op.Err.Error()
	}
	return alert, slices.Contains(verdicts, alert)
}

// refusal explains a verdict of peer.
func (m *material) refusal(alert, peer string) *Trouble {
	own := fmt.Sprintf("certificate of %s in %s (%s)", m.self, m.files.Cert, span(m.leaf()))
	switch alert {
	case alertExpired:
		return trouble(Refused, "%s refuses the %s: by its clock that is not valid now; set the clock that is wrong, or issue a new one (recctl pki issue %s --renew)", peer, own, m.self.Name)
	case alertUnknown:
		return trouble(Refused, "%s refuses the %s: it does not know the authority %q that signed it; both need the same site's ca", peer, own, m.leaf().Issuer)
	case alertRequired:
		return trouble(Refused, "%s wants a certificate and got none: name one under [tls]", peer)
	case alertInternal:
		return trouble(Refused, "%s has no certificate that it could use; its own log says why", peer)
	}
	return trouble(Refused, "%s refuses the %s: %s; its own log says why", peer, own, strings.TrimPrefix(alert, "tls: "))
}

// explain says what went wrong in a handshake with peer; nil when nothing is
// worth a word: a port scanner connects and leaves.
func (m *material) explain(err error, peer string, now time.Time) *Trouble {
	var known *Trouble
	var unverified *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var timeout net.Error
	alert, judged := verdictIn(err)
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &unverified) && len(unverified.UnverifiedCertificates) > 0:
		return unfit(unverified.Err, unverified.UnverifiedCertificates[0], "at "+peer, m.files.CA, now)
	case judged:
		return m.refusal(alert, peer)
	case errors.As(err, &record):
		return SpokenInClear(peer)
	case strings.Contains(err.Error(), "didn't provide a certificate"): // crypto/tls has no type for it
		return trouble(NoCertificate, "%s showed no certificate: its configuration needs [tls]", peer)
	case errors.Is(err, io.EOF):
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout():
		return trouble(Handshake, "%s began a TLS handshake and did not end it in time", peer)
	}
	return trouble(Handshake, "TLS handshake with %s: %v", peer, err)
}
