package pki

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"os"
	"slices"
	"strings"
	"time"
)

// material is what the three files held, checked. It does not change.
type material struct {
	files       Config
	self        Identity
	certificate tls.Certificate // with its Leaf
	authorities []*x509.Certificate
	roots       *x509.CertPool
}

func (m *material) leaf() *x509.Certificate { return m.certificate.Leaf }

// read takes the files in, and says what is wrong with them for their owner, by
// key. Without material they cannot be used at all; with material and faults
// the certificate is not valid at this time.
func read(files Config, owner Identity, now time.Time) (*material, []fault) {
	m := &material{files: files, roots: x509.NewCertPool()}
	var faults []fault
	chain, err := readCertificates(files.Cert)
	if err != nil {
		faults = append(faults, unreadable("tls.cert", files.Cert, err))
	}
	if m.authorities, err = readCertificates(files.CA); err != nil {
		faults = append(faults, unreadable("tls.ca", files.CA, err))
	}
	key, err := readKey(files.Key)
	if err != nil {
		faults = append(faults, unreadable("tls.key", files.Key, err))
	}
	if len(faults) > 0 {
		return nil, faults
	}
	m.certificate = tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		m.certificate.Certificate = append(m.certificate.Certificate, c.Raw)
	}
	for _, c := range m.authorities {
		m.roots.AddCert(c)
	}
	if f := m.owned(owner, key); len(f) > 0 {
		return nil, f
	}
	t := m.verify(chain, now)
	switch {
	case t == nil:
		return m, nil
	case t.Reason == Expired || t.Reason == NotYetValid:
		return m, []fault{{"tls.cert", t}}
	}
	return nil, []fault{{"tls.cert", t}}
}

// owned says whose the certificate is, and what is wrong if it is not the owner's.
func (m *material) owned(owner Identity, key crypto.Signer) (faults []fault) {
	public, ok := m.leaf().PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(key.Public()) {
		faults = append(faults, fault{"tls.key", trouble(Files, "%s is not the key of the certificate in %s: take both from the same issue", m.files.Key, m.files.Cert)})
	}
	self, err := IdentityOf(m.leaf())
	if err != nil {
		return append(faults, fault{"tls.cert", trouble(WrongName, "%s: certificate of %s: %v", m.files.Cert, titleOf(m.leaf()), err)})
	}
	if m.self = self; owner.Role != "" && (self.Role != owner.Role || self.Name != owner.Name) {
		faults = append(faults, fault{"tls.cert", trouble(WrongName, "%s is the certificate of %s, and this is %s", m.files.Cert, self, owner)})
	}
	return faults
}

// verify finds the way from the certificate to an authority, for all it is
// needed for: a daemon calls and is called.
func (m *material) verify(chain []*x509.Certificate, now time.Time) *Trouble {
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	uses := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if m.self.Role.Serves() {
		uses = append(uses, x509.ExtKeyUsageServerAuth)
	}
	for _, use := range uses {
		_, err := m.leaf().Verify(x509.VerifyOptions{Roots: m.roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use}})
		if err != nil {
			return unfit(err, m.leaf(), "in "+m.files.Cert, m.files.CA, now)
		}
	}
	return nil
}

// accept judges a peer whose certificate is of the authority: it must name
// somebody of this site, with one of the roles if any are given.
func (m *material) accept(leaf *x509.Certificate, peer string, roles []Role) *Trouble {
	i, err := IdentityOf(leaf)
	switch {
	case err != nil:
		return trouble(WrongName, "certificate of %s at %s: %v", titleOf(leaf), peer, err)
	case i.Site != m.self.Site:
		return trouble(WrongSite, "%s at %s is of site %s, and this is site %s", i, peer, i.Site, m.self.Site)
	case len(roles) > 0 && !slices.Contains(roles, i.Role):
		return trouble(WrongRole, "%s answers at %s, where a %s should: correct the address", i, peer, either(roles))
	}
	return nil
}

func either(roles []Role) string {
	texts := make([]string, len(roles))
	for n, r := range roles {
		texts[n] = string(r)
	}
	return strings.Join(texts, " or ")
}

func readCertificates(file string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return ParseCertificates(text)
}

func readKey(file string) (crypto.Signer, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseKey(text)
}
