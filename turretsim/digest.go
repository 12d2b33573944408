package turretsim

import (
	"github.com/emiago/sipgo/sip"
	"github.com/icholy/digest"
)

// challenges offers the better algorithm first (RFC 8760 2.4).
func (p *phone) challenges() (headers []sip.Header) {
	for _, algorithm := range []string{"SHA-256", "MD5"} {
		headers = append(headers, sip.NewHeader("WWW-Authenticate", p.challenge(algorithm).String()))
	}
	return headers
}

func (p *phone) challenge(algorithm string) *digest.Challenge {
	return &digest.Challenge{Realm: realm, Nonce: p.nonce, Algorithm: algorithm, QOP: []string{"auth"}}
}

func (p *phone) authorised(req *sip.Request) bool {
	header := req.GetHeader("Authorization")
	if header == nil {
		return false
	}
	given, err := digest.ParseCredentials(header.Value())
	if err != nil || given.Username != p.cfg.User || given.Nonce != p.nonce || given.Realm != realm {
		return false
	}
	challenge := p.challenge(given.Algorithm)
	if given.QOP == "" {
		challenge.QOP = nil
	}
	want, err := digest.Digest(challenge, digest.Options{
		Method: string(req.Method), URI: given.URI, Username: p.cfg.User, Password: p.password, Cnonce: given.Cnonce, Count: given.Nc})
	return err == nil && want.Response == given.Response
}
