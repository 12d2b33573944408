package cli

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"tandem/internal/pki"
)

const (
	authorityDir = "/etc/tandem/pki" // where the authority is kept, on one host
	tlsDir       = "/etc/tandem/tls" // where a daemon's host has its own files
)

const oneDay = 24 * time.Hour

func pkiCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:  "pki",
		Usage: "issue the certificates by which daemons and people know each other",
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return usage("recctl pki wants a command; see recctl pki --help")
			}
			return unknownCommand(c.Command.Subcommands, c.Args().First(), "recctl pki --help")
		},
		Subcommands: []*cli.Command{pkiInitCommand(i), pkiIssueCommand(i), pkiShowCommand(i)},
	}
}

func dirFlag() cli.Flag {
	return &cli.StringFlag{Name: "dir", Value: authorityDir, Usage: "keep the authority in `DIR`"}
}

func pkiInitCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:  "init",
		Usage: "make the site's certificate authority",
		Description: `Once for each site, on a host that few people use: whoever has ca.key can be any
daemon and any operator. It lasts ten years. Exit status 4 where there is one already.

With --json one object: site, certificate, key, until.`,
		Flags: []cli.Flag{dirFlag(), &cli.StringFlag{Name: "site", Value: "site", Usage: "`NAME` of the site; no other site's certificates are believed"}},
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return i.pkiInit(c.String("dir"), c.String("site"), c.Bool("json"))
		},
	}
}

func (i *invocation) pkiInit(dir, site string, asJSON bool) error {
	certificate, key := filepath.Join(dir, pki.AuthorityFile), filepath.Join(dir, pki.AuthorityKeyFile)
	if file, there := pki.Exists(certificate, key); there {
		return exit(ExitRefused, "%s is there already, and every certificate of the site hangs on it; another --dir makes another authority", file)
	}
	a, pair, err := pki.NewAuthority(site, i.now())
	if err != nil {
		return usage("%w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return failed("make directory: %w", err)
	}
	if err := pair.Save(certificate, key); err != nil {
		return failed("%w", err)
	}
	until := a.Certificate.NotAfter
	if asJSON {
		return i.json(struct {
			Site        string `json:"site"`
			Certificate string `json:"certificate"`
			Key         string `json:"key"`
			Until       stamp  `json:"until"`
		}{site, certificate, key, stamp(until)})
	}
	fmt.Fprintf(i.out, `authority of site %s, valid until %s
%s goes to every host, as %s
%s signs: keep it on this host alone, and a copy where it is safe
next: recctl pki issue NAME --role %s --host ADDRESS
`, site, i.date(until), certificate, filepath.Join(tlsDir, pki.AuthorityFile), key, roleNames("|"))
	return nil
}

func pkiIssueCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:      "issue",
		Usage:     "issue the certificate of a daemon or of a person",
		ArgsUsage: "NAME",
		Description: `NAME is that of the daemon, as in its configuration, or of the person. A daemon's
certificate says at which hosts it is: name each address and each name by which
others call it. An operator may give every command of recctl; a viewer may look
and search, and neither hear audio nor change anything.

NAME.crt and NAME.key are written beside the authority. What to copy where, and
what to put into the configuration, is printed. --renew issues a certificate again
before it ends, with a new key: the daemon takes the files up within ten seconds.
Exit status 4 where there is a certificate of that name and no --renew.

With --json one object: site, role, name, hosts[], certificate, key, ca, until.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "role", Usage: "`ROLE` of NAME: " + roleNames(", ")},
			&cli.StringSliceFlag{Name: "host", Usage: "`ADDRESS` or name by which the daemon is called; may be repeated"},
			&cli.IntFlag{Name: "days", Value: 825, Usage: "valid for `N` days"},
			&cli.BoolFlag{DisableDefaultText: true, Name: "renew", Usage: "again, as before unless options say otherwise"},
			dirFlag(),
		},
		Action: func(c *cli.Context) error {
			given, err := arguments(c, "NAME")
			if err != nil {
				return err
			}
			o := pki.Order{Role: pki.Role(c.String("role")), Name: given[0], Hosts: c.StringSlice("host"), Life: time.Duration(c.Int("days")) * oneDay}
			if n := c.Int("days"); n < 1 || n > 3650 {
				return usage("--days %d: want 1 to 3650", n)
			}
			return i.pkiIssue(c.String("dir"), o, c.Bool("renew"), c.Bool("json"))
		},
	}
}

func roleNames(between string) string {
	names := make([]string, len(pki.Roles))
	for n, r := range pki.Roles {
		names[n] = string(r)
	}
	return strings.Join(names, between)
}

func (i *invocation) pkiIssue(dir string, o pki.Order, renew, asJSON bool) error {
	a, err := pki.OpenAuthority(dir)
	if errors.Is(err, os.ErrNotExist) {
		return failed("%w; recctl pki init makes an authority, --dir says where it is", err)
	}
	if err != nil {
		return failed("%w", err)
	}
	files := pki.Config{Cert: filepath.Join(dir, o.Name+".crt"), Key: filepath.Join(dir, o.Name+".key"), CA: filepath.Join(dir, pki.AuthorityFile)}
	if renew {
		if o, err = again(files.Cert, o); err != nil {
			return err
		}
	} else if file, there := pki.Exists(files.Cert, files.Key); there {
		return exit(ExitRefused, "%s is there already; --renew issues it again", file)
	}
	pair, err := a.Issue(o, i.now())
	if err != nil {
		return usage("%w", err)
	}
	if err := pair.Save(files.Cert, files.Key); err != nil {
		return failed("%w", err)
	}
	certs, err := pki.ParseCertificates(pair.Certificate)
	if err != nil {
		return failed("read what was issued: %w", err)
	}
	return i.issued(a.Site, o, files, certs[0], asJSON)
}

// again is the order of a certificate that is to be renewed, with what is
// ordered now in place of what it says.
func again(file string, now pki.Order) (pki.Order, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return now, failed("renew: %w", err)
	}
	certs, err := pki.ParseCertificates(text)
	if err != nil {
		return now, failed("renew %s: %w", file, err)
	}
	o, err := pki.Again(certs[0], now.Life)
	if err != nil {
		return now, failed("renew %s: %w", file, err)
	}
	if o.Name != now.Name {
		return now, failed("renew: %s is the certificate of %s", file, o.Name)
	}
	if now.Role != "" {
		o.Role = now.Role
	}
	if len(now.Hosts) > 0 || !o.Role.Serves() {
		o.Hosts = now.Hosts
	}
	return o, nil
}

func (i *invocation) issued(site string, o pki.Order, files pki.Config, c *x509.Certificate, asJSON bool) error {
	if asJSON {
		return i.json(struct {
			Site        string   `json:"site"`
			Role        pki.Role `json:"role"`
			Name        string   `json:"name"`
			Hosts       []string `json:"hosts"`
			Certificate string   `json:"certificate"`
			Key         string   `json:"key"`
			CA          string   `json:"ca"`
			Until       stamp    `json:"until"`
		}{site, o.Role, o.Name, append([]string{}, o.Hosts...), files.Cert, files.Key, files.CA, stamp(c.NotAfter)})
	}
	at, whose, config := "", "the host of "+o.Name, string(o.Role)+".toml"
	if len(o.Hosts) > 0 {
		at = " at " + strings.Join(o.Hosts, ", ")
	}
	if !o.Role.Serves() {
		whose, config = "the machine on which "+o.Name+" uses recctl", "recctl.toml"
	}
	fmt.Fprintf(i.out, `certificate of %s %s%s, valid until %s
copy to %s, into %s:
   %s
   %s  (for its owner alone: chmod 600)
   %s
and put into its %s:
[tls]
cert = "%s"
key = "%s"
ca = "%s"
`, o.Role, o.Name, at, i.date(c.NotAfter), whose, tlsDir, files.Cert, files.Key, files.CA, filepath.Join("/etc/tandem", config),
		filepath.Join(tlsDir, filepath.Base(files.Cert)), filepath.Join(tlsDir, filepath.Base(files.Key)), filepath.Join(tlsDir, pki.AuthorityFile))
	return nil
}

func (i *invocation) date(t time.Time) string { return t.In(i.zone).Format("2006-01-02 15:04") }

func pkiShowCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:      "show",
		Usage:     "say what the certificates of a file are",
		ArgsUsage: "FILE",
		Description: `Whom each names, for which hosts, how long it is valid, and who signed it.

With --json an object a line: site, role, name (empty in an authority's), authority,
hosts[], from, until, issuer, serial, sha256.`,
		Action: func(c *cli.Context) error {
			given, err := arguments(c, "FILE")
			if err != nil {
				return err
			}
			return i.pkiShow(given[0], c.Bool("json"))
		},
	}
}

// certificate is one as recctl shows it.
type certificate struct {
	Site      string   `json:"site"`
	Role      pki.Role `json:"role"`
	Name      string   `json:"name"`
	Authority bool     `json:"authority"`
	Hosts     []string `json:"hosts"`
	From      stamp    `json:"from"`
	Until     stamp    `json:"until"`
	Issuer    string   `json:"issuer"`
	Serial    string   `json:"serial"`
	SHA256    string   `json:"sha256"`
}

func certificateOf(c *x509.Certificate) certificate {
	id, _ := pki.IdentityOf(c) // an authority names nobody
	sum := sha256.Sum256(c.Raw)
	return certificate{
		id.Site, id.Role, id.Name, c.IsCA, append([]string{}, pki.HostsOf(c)...), stamp(c.NotBefore), stamp(c.NotAfter),
		c.Issuer.String(), c.SerialNumber.Text(16), hex.EncodeToString(sum[:]),
	}
}

func (i *invocation) pkiShow(file string, asJSON bool) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return failed("show certificates: %w", err)
	}
	certs, err := pki.ParseCertificates(text)
	if err != nil {
		return failed("%s: %w", file, err)
	}
	for _, c := range certs {
		shown := certificateOf(c)
		if asJSON {
			if err := i.json(shown); err != nil {
				return err
			}
			continue
		}
		i.show(shown, c)
	}
	return nil
}

func (i *invocation) show(s certificate, c *x509.Certificate) {
	title := fmt.Sprintf("%s %s of site %s", s.Role, s.Name, s.Site)
	switch {
	case s.Authority:
		title = fmt.Sprintf("authority %q", clean(c.Subject.String()))
	case s.Name == "":
		title = fmt.Sprintf("%q, nobody of Tandem", clean(c.Subject.String()))
	}
	left, shade := c.NotAfter.Sub(i.now()), green
	switch {
	case left < 0 || i.now().Before(c.NotBefore):
		shade = red
	case left < pki.Warning:
		shade = yellow
	}
	fmt.Fprintln(i.out, title)
	row := func(what, is string) { fmt.Fprintf(i.out, "  %-7s %s\n", what, is) }
	if len(s.Hosts) > 0 {
		row("hosts", clean(strings.Join(s.Hosts, ", ")))
	}
	row("valid", fmt.Sprintf("%s until %s, %s", i.date(c.NotBefore), i.date(c.NotAfter), i.paint(shade, i.validity(c))))
	row("issuer", clean(s.Issuer))
	row("serial", s.Serial)
	row("sha256", s.SHA256)
}

// validity is what is left of a certificate, in words.
func (i *invocation) validity(c *x509.Certificate) string {
	now := i.now()
	switch left := c.NotAfter.Sub(now); {
	case now.Before(c.NotBefore):
		return "not valid yet"
	case left < 0:
		return "no longer valid"
	case left < 2*oneDay:
		return length(left) + " left"
	default:
		return fmt.Sprintf("%d days left", int(left/oneDay))
	}
}
