package pki

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// look is how often the files are looked at; what has not changed for so
	// long is complete.
	look = 5 * time.Second
	// Warning is how long before its end a certificate is warned of.
	Warning = 14 * 24 * time.Hour
	// again is how often files are read again that could not be used: a
	// certificate of the future becomes valid by itself.
	again = time.Minute
	// reminder is how often it is warned of again.
	reminder = 24 * time.Hour
)

// Credentials are what a process shows others, and judges them by: the files of
// [tls], taken in again when they change. Files that cannot be used keep what
// was in use; when there was nothing yet, every handshake fails and says why,
// until they are mended. Safe for concurrent use.
type Credentials struct {
	files  Config
	owner  Identity
	log    *slog.Logger
	held   atomic.Pointer[holding]
	ledger *Ledger
}

// holding is what is in use, and what was in the files when they were last read.
type holding struct {
	*material       // nil: nothing was fit to be used yet
	unfit     error // why what is in the files is not in use, or no use; nil: it is
	read      digest
	at        time.Time
}

func (h *holding) valid(now time.Time) bool {
	return h.material != nil && !now.Before(h.leaf().NotBefore) && !now.After(h.leaf().NotAfter)
}

// Open reads the files for their owner; nil where nothing is named. Role and
// name of the owner may be left open: whoever the certificate names it is, then.
// Troubles with others go into the ledger.
func Open(files Config, owner Identity, ledger *Ledger, log *slog.Logger) *Credentials {
	if !files.Enabled() {
		return nil
	}
	c := &Credentials{files: files, owner: owner, log: log, ledger: ledger}
	c.held.Store(&holding{})
	c.reload(digestOf(files), time.Now())
	return c
}

// Run looks after the files until ctx ends. Nil credentials have none.
func (c *Credentials) Run(ctx context.Context) error {
	if c == nil {
		return nil
	}
	tick := time.NewTicker(look)
	defer tick.Stop()
	var seen digest
	var reminded time.Time
	for {
		now := time.Now()
		is, h := digestOf(c.files), c.held.Load()
		if changed := is != h.read; changed && is == seen || !changed && h.unfit != nil && now.Sub(h.at) >= again {
			c.reload(is, now)
			reminded = time.Time{}
		}
		seen = is
		if w, ok := c.Worry(now); ok && now.Sub(reminded) >= reminder {
			reminded = now
			c.log.Warn("certificate", "err", w)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// reload takes the files in, or keeps what is in use and says why. What is not
// valid at this time replaces nothing that is.
func (c *Credentials) reload(is digest, now time.Time) {
	before := c.held.Load()
	m, faults := read(c.files, c.owner, now)
	h := &holding{material: m, read: is, at: now}
	if len(faults) > 0 {
		h.unfit = joined(faults)
	}
	if h.unfit != nil && (m == nil || before.valid(now)) {
		h.material = before.material
	}
	c.held.Store(h)
	switch {
	case h.unfit == nil:
		c.log.Info("certificate", "of", m.self.String(), "site", m.self.Site, "until", m.leaf().NotAfter, "file", c.files.Cert)
	case is != before.read:
		c.log.Error("certificate cannot be used", "err", h.unfit, "kept", before.material != nil && h.material == before.material)
	}
}

func joined(faults []fault) error {
	texts := make([]string, len(faults))
	for n, f := range faults {
		texts[n] = f.Text
	}
	return errors.New(strings.Join(texts, "; "))
}

// use is what is in use.
func (c *Credentials) use() (*material, error) {
	h := c.held.Load()
	if h.material == nil {
		return nil, trouble(Files, "no certificate to speak TLS with: %v", h.unfit)
	}
	return h.material, nil
}

// Identity is whom the certificate in use names; none without one.
func (c *Credentials) Identity() Identity {
	if c == nil {
		return Identity{}
	}
	if m, err := c.use(); err == nil {
		return m.self
	}
	return c.owner
}

// Worry is what is wrong with the files, or will be soon.
func (c *Credentials) Worry(now time.Time) (text string, worried bool) {
	if c == nil {
		return "", false
	}
	switch h := c.held.Load(); {
	case h.unfit != nil && h.valid(now):
		return fmt.Sprintf("the certificate of before is in use, until %s: %v", day(h.leaf().NotAfter), h.unfit), true
	case h.unfit != nil:
		return fmt.Sprintf("no new connection comes about: %v", h.unfit), true
	case !h.valid(now):
		return outdated(nil, h.leaf(), "in "+c.files.Cert, now).Text, true
	case h.leaf().NotAfter.Sub(now) < Warning:
		return fmt.Sprintf("the certificate of %s in %s is valid until %s: recctl pki issue %s --renew", h.self, c.files.Cert, day(h.leaf().NotAfter), h.self.Name), true
	}
	return "", false
}

// Server is how connections are taken. Each is judged by what is in use then.
// None is resumed: that would be judged by what was in use before.
func (c *Credentials) Server() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			m, err := c.use()
			if err != nil {
				return nil, err
			}
			peer := hello.Conn.RemoteAddr().String()
			return &tls.Config{
				MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{m.certificate}, NextProtos: []string{"h2", "http/1.1"},
				ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: m.roots, SessionTicketsDisabled: true,
				VerifyConnection: func(s tls.ConnectionState) error { return orNil(m.accept(s.PeerCertificates[0], peer, nil)) },
			}, nil
		},
	}
}

// Client is how a daemon at an address, HOST:PORT, is called that must have one
// of the roles. It is for one connection.
func (c *Credentials) Client(address string, roles []Role) (*tls.Config, error) {
	m, err := c.use()
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", address, err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: host, RootCAs: m.roots, Certificates: []tls.Certificate{m.certificate}, NextProtos: []string{"h2"},
		VerifyConnection: func(s tls.ConnectionState) error { return orNil(m.accept(s.PeerCertificates[0], address, roles)) },
	}, nil
}

// orNil keeps a nil trouble from becoming an error that is not nil.
func orNil(t *Trouble) error {
	if t == nil {
		return nil
	}
	return t
}

// Failed explains, counts and logs the error of a handshake with peer. An error
// that has nothing to do with certificates stays as it is.
func (c *Credentials) Failed(side Side, peer string, err error) error {
	t := c.explain(side, peer, err)
	if t == nil {
		return err
	}
	c.ledger.Note(side, peer, t)
	return t
}

func (c *Credentials) explain(side Side, peer string, err error) *Trouble {
	var known *Trouble
	if errors.As(err, &known) {
		return known
	}
	m := c.held.Load().material
	if m == nil {
		return trouble(Handshake, "TLS handshake with %s: %v", peer, err)
	}
	var record tls.RecordHeaderError
	if errors.As(err, &record) && side == AsServer {
		return CalledInClear(peer)
	}
	return m.explain(err, peer, time.Now())
}

// digest tells whether the files hold something else than before.
type digest [sha256.Size]byte

func digestOf(files Config) digest {
	hash := sha256.New()
	for _, file := range []string{files.Cert, files.Key, files.CA} {
		text, err := os.ReadFile(file)
		fmt.Fprintf(hash, "%d %v\n", len(text), err)
		hash.Write(text)
	}
	return digest(hash.Sum(nil))
}

var (
	metricExpires = prometheus.NewDesc("tandem_certificate_expires_seconds",
		"How long the certificate in use, and the authority that lasts longest, are valid yet; below 0: how long they have not been.", []string{"of"}, nil)
	metricUnfit = prometheus.NewDesc("tandem_certificate_unfit", "1 while the files of [tls] hold something that cannot be used.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c *Credentials) Describe(ch chan<- *prometheus.Desc) {
	ch <- metricExpires
	ch <- metricUnfit
}

// Collect implements prometheus.Collector.
func (c *Credentials) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	h := c.held.Load()
	unfit := 0.0
	if h.unfit != nil {
		unfit = 1
	}
	gauge(metricUnfit, unfit)
	if h.material != nil {
		gauge(metricExpires, time.Until(h.leaf().NotAfter).Seconds(), "certificate")
		gauge(metricExpires, time.Until(last(h.authorities)).Seconds(), "authority")
	}
}

// last is when the last of the certificates ends.
func last(all []*x509.Certificate) (end time.Time) {
	for _, c := range all {
		if c.NotAfter.After(end) {
			end = c.NotAfter
		}
	}
	return end
}
