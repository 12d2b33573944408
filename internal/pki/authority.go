package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tandem/internal/durable"
)

const (
	// AuthorityFile and AuthorityKeyFile are what an authority's directory holds.
	AuthorityFile    = "ca.crt"
	AuthorityKeyFile = "ca.key"

	// AuthorityLife is how long a new authority lasts.
	AuthorityLife = 10 * 365 * 24 * time.Hour

	// early is how long before its issue a certificate is valid already: a
	// host's clock may be behind that of the host that issues.
	early = time.Hour
)

// Authority signs the certificates of one site.
type Authority struct {
	Site        string
	Certificate *x509.Certificate
	key         crypto.Signer
}

// Pair is a certificate and its private key, PEM.
type Pair struct{ Certificate, Key []byte }

// NewAuthority makes one, with a key of its own.
func NewAuthority(site string, now time.Time) (*Authority, Pair, error) {
	if err := (Identity{site, Operator, "any"}).check(); err != nil {
		return nil, Pair{}, err
	}
	key, err := newKey()
	if err != nil {
		return nil, Pair{}, err
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{Organization: []string{site}, CommonName: "Tandem authority of " + site},
		NotBefore: now.Add(-early), NotAfter: now.Add(AuthorityLife),
		IsCA: true, MaxPathLenZero: true, BasicConstraintsValid: true, // it signs no other authority
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	pair, err := sign(template, template, key, key)
	if err != nil {
		return nil, Pair{}, fmt.Errorf("make authority: %w", err)
	}
	a, err := ParseAuthority(pair)
	return a, pair, err
}

// ParseAuthority reads one that NewAuthority made.
func ParseAuthority(pair Pair) (*Authority, error) {
	certs, err := ParseCertificates(pair.Certificate)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(pair.Key)
	if err != nil {
		return nil, err
	}
	c := certs[0]
	switch public, ok := c.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); {
	case !c.IsCA:
		return nil, fmt.Errorf("certificate of %s is no authority's", titleOf(c))
	case len(c.Subject.Organization) != 1:
		return nil, fmt.Errorf("authority %s names no site", c.Subject)
	case !ok || !public.Equal(key.Public()):
		return nil, errors.New("the key is another certificate's")
	}
	return &Authority{c.Subject.Organization[0], c, key}, nil
}

// OpenAuthority reads the one in a directory.
func OpenAuthority(dir string) (*Authority, error) {
	certificate, err := os.ReadFile(filepath.Join(dir, AuthorityFile))
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	key, err := os.ReadFile(filepath.Join(dir, AuthorityKeyFile))
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	a, err := ParseAuthority(Pair{certificate, key})
	if err != nil {
		return nil, fmt.Errorf("open authority in %s: %w", dir, err)
	}
	return a, nil
}

// Order is what a certificate is to say.
type Order struct {
	Role  Role
	Name  string
	Hosts []string // IP addresses and DNS names by which a daemon is called
	Life  time.Duration
}

func (o Order) check(site string) error {
	if err := (Identity{site, o.Role, o.Name}).check(); err != nil {
		return err
	}
	if o.Role.Serves() && len(o.Hosts) == 0 {
		return fmt.Errorf("a %s is called by others: name the addresses at which it is", o.Role)
	}
	if !o.Role.Serves() && len(o.Hosts) > 0 {
		return fmt.Errorf("nobody calls %s: its certificate is for no host", an(o.Role))
	}
	for _, h := range o.Hosts {
		if net.ParseIP(h) == nil && !hostName(h) {
			return fmt.Errorf("host %q: want an IP address or a DNS name, without a port", h)
		}
	}
	if o.Life <= 0 {
		return errors.New("want a certificate that lasts")
	}
	return nil
}

// hostName reports whether h is a name that resolvers take (RFC 1123 2.1).
func hostName(h string) bool {
	if len(h) > 253 {
		return false
	}
	for label := range strings.SplitSeq(h, ".") {
		bad := func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-')
		}
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || strings.ContainsFunc(label, bad) {
			return false
		}
	}
	return true
}

func an(r Role) string {
	if r == Operator {
		return "an " + string(r)
	}
	return "a " + string(r)
}

// Issue signs a certificate with a key of its own. It lasts no longer than the
// authority does.
func (a *Authority) Issue(o Order, now time.Time) (Pair, error) {
	if err := o.check(a.Site); err != nil {
		return Pair{}, err
	}
	if now.After(a.Certificate.NotAfter) {
		return Pair{}, fmt.Errorf("the authority itself was valid until %s: make a new one", day(a.Certificate.NotAfter))
	}
	key, err := newKey()
	if err != nil {
		return Pair{}, err
	}
	identity := Identity{a.Site, o.Role, o.Name}
	template := &x509.Certificate{
		Subject:   pkix.Name{Organization: []string{a.Site}, OrganizationalUnit: []string{string(o.Role)}, CommonName: o.Name},
		NotBefore: now.Add(-early), NotAfter: now.Add(o.Life), URIs: []*url.URL{identity.URI()},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	if template.NotAfter.After(a.Certificate.NotAfter) {
		template.NotAfter = a.Certificate.NotAfter
	}
	if o.Role.Serves() {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, h := range o.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	pair, err := sign(template, a.Certificate, key, a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("issue certificate of %s: %w", identity, err)
	}
	return pair, nil
}

// Again is the order of a certificate that was issued before.
func Again(c *x509.Certificate, life time.Duration) (Order, error) {
	i, err := IdentityOf(c)
	if err != nil {
		return Order{}, err
	}
	return Order{i.Role, i.Name, HostsOf(c), life}, nil
}

// Save writes the two files, the key readable by its owner alone. The key comes
// first: whoever looks between the two finds the old certificate's key gone,
// and looks again.
func (p Pair) Save(certificate, key string) error {
	if err := durable.WriteFile(key, p.Key, 0o600); err != nil {
		return err
	}
	return durable.WriteFile(certificate, p.Certificate, 0o644)
}

// Exists reports whether any of the files is there.
func Exists(files ...string) (string, bool) {
	for _, f := range files {
		if _, err := os.Lstat(f); !errors.Is(err, fs.ErrNotExist) {
			return f, true
		}
	}
	return "", false
}

func newKey() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return key, nil
}

// sign makes the certificate of a template for key, with the parent's key.
func sign(template, parent *x509.Certificate, key, with crypto.Signer) (Pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), with)
	if err != nil {
		return Pair{}, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
	}, nil
}

// ParseCertificates reads all certificates of a PEM text; there must be one,
// and nothing else.
func ParseCertificates(text []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		text = rest
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a %s: want certificates only", strings.ToLower(block.Type))
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(all)+1, err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("holds no certificate in PEM")
	}
	if len(bytes.TrimSpace(text)) > 0 {
		return nil, fmt.Errorf("holds something else after certificate %d", len(all))
	}
	return all, nil
}

// parseKey reads a private key: PKCS #8, or what openssl wrote before that.
func parseKey(text []byte) (crypto.Signer, error) {
	block, rest := pem.Decode(text)
	for block != nil && !strings.HasSuffix(block.Type, "PRIVATE KEY") { // openssl puts the curve before it
		block, rest = pem.Decode(rest)
	}
	if block == nil {
		return nil, errors.New("holds no private key in PEM")
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("holds a %s: want a private key that is not encrypted", strings.ToLower(block.Type))
	}
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("holds a key that cannot sign (%T)", key)
	}
	return signer, nil
}
