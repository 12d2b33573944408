// Package config reads the daemons' TOML files strictly: a key that nobody
// reads is an error, and every fault is reported with its key, all at once.
package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// Duration is a time.Duration written as "300ms" or "15m".
type Duration time.Duration

// UnmarshalText accepts what time.ParseDuration does.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("duration %q: want a number with a unit, as in \"300ms\"", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String is the shortest way to write it: "5m", where time.Duration says "5m0s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Std is the same length of time as the standard type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// Fault is one thing wrong with one key.
type Fault struct {
	Key  string // dotted, "provider.unigy.servers"
	Text string
}

func (f Fault) String() string { return f.Key + ": " + f.Text }

// Faults is the error of a file that could be read but not used.
type Faults struct {
	File   string
	Faults []Fault
}

func (f *Faults) Error() string {
	lines := make([]string, len(f.Faults))
	for i, fault := range f.Faults {
		lines[i] = f.File + ": " + fault.String()
	}
	return strings.Join(lines, "\n")
}

// Validator is a configuration that knows what is wrong with itself.
type Validator interface{ Validate() []Fault }

// Inspector is a configuration that names files which can be looked into. What
// is wrong with them keeps no daemon from starting: it goes on without, says so,
// and takes them up once they are mended.
type Inspector interface{ Inspect() []Fault }

// Inspect lists what is wrong with the files that c names, if it names any; file
// is its own.
func Inspect[C Validator](file string, c C) error {
	if i, ok := any(c).(Inspector); ok {
		if faults := i.Inspect(); len(faults) > 0 {
			return &Faults{File: file, Faults: faults}
		}
	}
	return nil
}

// Load reads the file over the given defaults: keys it does not name keep
// their default. Errors of content are *Faults.
func Load[C Validator](file string, defaults C) (C, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return defaults, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(file, string(text), defaults)
}

// Parse is Load for a text already in memory; file only names it in errors.
func Parse[C Validator](file, text string, defaults C) (C, error) {
	c := defaults
	meta, err := toml.Decode(text, &c)
	if err != nil {
		var syntax toml.ParseError
		if errors.As(err, &syntax) {
			fault := Fault{Key: fmt.Sprintf("line %d", syntax.Position.Line), Text: syntax.Message}
			if syntax.LastKey != "" {
				fault = Fault{Key: syntax.LastKey, Text: fmt.Sprintf("%s (%s)", syntax.Message, fault.Key)}
			}
			return defaults, &Faults{File: file, Faults: []Fault{fault}}
		}
		return defaults, &Faults{File: file, Faults: []Fault{{Key: "toml", Text: err.Error()}}}
	}
	var faults []Fault
	faults = append(faults, unknown(meta.Undecoded())...)
	faults = append(faults, c.Validate()...)
	if len(faults) > 0 {
		slices.SortStableFunc(faults, func(a, b Fault) int { return strings.Compare(a.Key, b.Key) })
		return defaults, &Faults{File: file, Faults: faults}
	}
	return c, nil
}

// unknown are the faults of keys that nobody reads: of a section that there is
// not, the section's.
func unknown(keys []toml.Key) []Fault {
	var faults []Fault
	sections := map[string]bool{}
	for _, key := range keys {
		name := key.String()
		if within := key[:len(key)-1].String(); sections[name] || sections[within] {
			sections[name] = true
			continue
		}
		sections[name] = true
		faults = append(faults, Fault{Key: name, Text: "no such key"})
	}
	return faults
}

// Check collects faults; its methods add one where a value will not do.
type Check struct{ Faults []Fault }

// That adds a fault unless ok.
func (c *Check) That(ok bool, key, format string, args ...any) {
	if !ok {
		c.Faults = append(c.Faults, Fault{Key: key, Text: fmt.Sprintf(format, args...)})
	}
}

// Name wants a short name of letters, digits, dots, dashes and underscores.
func (c *Check) Name(key, v string) {
	bad := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
	}
	c.That(v != "" && len(v) <= 64 && !strings.ContainsFunc(v, bad), key, "%q: want 1 to 64 letters, digits, dots, dashes or underscores", v)
}

// Addr wants "address:port" with a literal IP address.
func (c *Check) Addr(key, v string) netip.AddrPort {
	a, err := netip.ParseAddrPort(v)
	c.That(err == nil, key, "%q: want ADDRESS:PORT, as in \"127.0.0.1:7401\"", v)
	return a
}

// Loopback wants an Addr that no other machine can reach.
func (c *Check) Loopback(key, v string) {
	if a := c.Addr(key, v); a.IsValid() {
		c.That(a.Addr().IsLoopback(), key, "%q: want a loopback address: this link is not encrypted", v)
	}
}

// Between wants lo <= v <= hi.
func (c *Check) Between(key string, v, lo, hi Duration) {
	c.That(v >= lo && v <= hi, key, "%v: want %v to %v", v, lo, hi)
}
