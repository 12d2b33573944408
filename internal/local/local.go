// Package local is the link between a director and the watchdog beside it, on
// one host: the director says all the time how it is, and the watchdog holds
// on to the director's process, so that it knows, and does not guess, when
// that has ended.
package local

// Report is what a director says of itself, several times a second and
// whenever something of it changes.
type Report struct {
	Role        string `json:"role"`
	Epoch       uint64 `json:"epoch,omitempty"` // sought or held
	Holds       bool   `json:"holds,omitempty"` // it has authority
	AuthorityMS int64  `json:"authority_ms,omitempty"`
	// Loops are counters of loops that turn several times a second whether
	// there is work or not.
	Loops    map[string]uint64 `json:"loops,omitempty"`
	Eligible bool              `json:"eligible,omitempty"` // it could lead
	Why      string            `json:"why,omitempty"`      // it could not
}

// network keeps the limits of messages, so that a report arrives whole or not at all.
const network = "unixpacket"

// maxReport is the longest one that is read, in bytes.
const maxReport = 16 << 10
