package pki

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"tandem/internal/config"
)

// Config is [tls], the same in every daemon's file and in recctl's. Without it
// a process speaks in the clear.
type Config struct {
	Cert string `toml:"cert"` // PEM: the process's own certificate, with intermediate authorities if there are any
	Key  string `toml:"key"`  // PEM: its private key
	CA   string `toml:"ca"`   // PEM: the site's authority, or several while it is being replaced
}

// Enabled reports whether anything is named.
func (c Config) Enabled() bool { return c != Config{} }

// Check adds the faults of the section to those of a file: all keys or none.
// What is in the files named is for Inspect: one that is damaged keeps nobody
// from recording.
func (c Config) Check(check *config.Check) {
	if !c.Enabled() {
		return
	}
	check.That(c.Cert != "", "tls.cert", "want the file of the certificate: cert, key and ca go together")
	check.That(c.Key != "", "tls.key", "want the file of the private key: cert, key and ca go together")
	check.That(c.CA != "", "tls.ca", "want the file of the site's authority: cert, key and ca go together")
}

// CheckListen adds the faults of the address of a control API: without TLS no
// other machine may reach it, unless somebody says that this is meant.
func (c Config) CheckListen(check *config.Check, key, address string, insecure bool) {
	switch {
	case c.Enabled():
		check.That(!insecure, "insecure_control", "true: means nothing with [tls]")
		check.Addr(key, address)
	case insecure:
		check.Addr(key, address)
	default:
		if a := check.Addr(key, address); a.IsValid() {
			check.That(a.Addr().IsLoopback(), key, "%q: want a loopback address: without [tls] this link is not encrypted", address)
		}
	}
}

// Inspect reads the files for the owner, whose site may be left open, and so may
// be role and name, and lists what is wrong with them.
func (c Config) Inspect(owner Identity, now time.Time) []config.Fault {
	if !c.Enabled() {
		return nil
	}
	_, faults := read(c, owner, now)
	if info, err := os.Stat(c.Key); err == nil && info.Mode().Perm()&0o137 != 0 {
		faults = append(faults, fault{"tls.key", trouble(Files, "%s can be used by others (mode %04o): chmod 600 %s", c.Key, info.Mode().Perm(), c.Key)})
	}
	var all []config.Fault
	for _, f := range faults {
		all = append(all, config.Fault{Key: f.key, Text: f.Text})
	}
	return all
}

// fault is something wrong with what a key names.
type fault struct {
	key string
	*Trouble
}

func unreadable(key, file string, err error) fault {
	var path *fs.PathError
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fault{key, trouble(Files, "%v: let the user that this runs as read it", err)}
	case errors.As(err, &path): // names the file
		return fault{key, trouble(Files, "%v", err)}
	}
	return fault{key, trouble(Files, "%s: %v", file, err)}
}
