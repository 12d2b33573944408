// Package pki holds the certificates of a site: one authority, a certificate
// for each daemon and each person who uses recctl, what they say of whom, and
// one sentence for whatever may be wrong with them.
package pki

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Role is what a certificate lets its owner be: a daemon, or a user of recctl.
type Role string

// The roles there are. Servers are the first three; an operator may give every
// command, a viewer may look and search, and hears nothing.
const (
	Director Role = "director"
	Recorder Role = "recorder"
	Watchdog Role = "watchdog"
	Operator Role = "operator"
	Viewer   Role = "viewer"
)

// Roles are all of them.
var Roles = []Role{Director, Recorder, Watchdog, Operator, Viewer}

// Serves reports whether the role is a daemon's: others call it.
func (r Role) Serves() bool { return r == Director || r == Recorder || r == Watchdog }

// Identity is whom a certificate names.
type Identity struct {
	Site string
	Role Role
	Name string
}

func (i Identity) String() string { return string(i.Role) + " " + i.Name }

// scheme is that of the URI by which a certificate names an identity (RFC 5280
// 4.2.1.6), as in tandem://ldn/director/dir-a.
const scheme = "tandem"

// URI is the identity as it stands in a certificate.
func (i Identity) URI() *url.URL {
	return &url.URL{Scheme: scheme, Host: i.Site, Path: "/" + string(i.Role) + "/" + i.Name}
}

// ParseIdentity is the inverse of URI.
func ParseIdentity(text string) (Identity, error) {
	rest, ok := strings.CutPrefix(text, scheme+"://")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 3 {
		return Identity{}, fmt.Errorf("%q: want %s://SITE/ROLE/NAME", text, scheme)
	}
	i := Identity{parts[0], Role(parts[1]), parts[2]}
	if err := i.check(); err != nil {
		return Identity{}, fmt.Errorf("%q: %w", text, err)
	}
	return i, nil
}

func (i Identity) check() error {
	switch {
	case !plainName(i.Site) || strings.Trim(i.Site, ".") != i.Site || strings.Contains(i.Site, ".."):
		return fmt.Errorf("site %q: want 1 to 64 letters, digits, inner dots, dashes or underscores", i.Site)
	case !slices.Contains(Roles, i.Role):
		return fmt.Errorf("role %q: want %s", i.Role, either(Roles))
	case !plainName(i.Name):
		return fmt.Errorf("name %q: want 1 to 64 letters, digits, dots, dashes or underscores", i.Name)
	}
	return nil
}

// plainName is what names of daemons are made of. Those of files are made of
// names, so none may be a way to another directory.
func plainName(s string) bool {
	bad := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
	}
	return s != "" && len(s) <= 64 && s != "." && s != ".." && !strings.ContainsFunc(s, bad)
}

// IdentityOf is whom a certificate names: exactly one.
func IdentityOf(c *x509.Certificate) (Identity, error) {
	var found []string
	for _, u := range c.URIs {
		if u.Scheme == scheme {
			found = append(found, u.String())
		}
	}
	if len(found) != 1 {
		return Identity{}, fmt.Errorf("%d names of the form %s://SITE/ROLE/NAME: want one", len(found), scheme)
	}
	return ParseIdentity(found[0])
}

// titleOf is what to call the owner of a certificate that may be anybody's.
func titleOf(c *x509.Certificate) string {
	if i, err := IdentityOf(c); err == nil {
		return i.String()
	}
	return fmt.Sprintf("%q", c.Subject.String())
}

// HostsOf are the hosts that a certificate is for.
func HostsOf(c *x509.Certificate) []string {
	hosts := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	return hosts
}
