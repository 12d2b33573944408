// Package monitor is how watchdogs ask a director how it is: one UDP datagram
// each way, with the site's secret over it. Whoever has no secret, or repeats
// what was said before, gets no answer.
//
// A datagram is an HMAC-SHA256 of 32 bytes, then JSON, at most MaxSize
// together. The HMAC covers a label, too, one for questions and one for
// answers, so that neither passes for the other.
package monitor

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// MaxSize of a datagram, in bytes: it fits any path unfragmented.
const MaxSize = 512

// Version of the protocol. Another one is not answered.
const Version = 1

const (
	probeLabel = "tandem monitor probe\n"
	replyLabel = "tandem monitor reply\n"
	maxName    = 130 // bytes: two names and what joins them
	maxPaths   = 16
)

// Probe is a watchdog's question.
type Probe struct {
	Version int    `json:"v"`
	Sender  string `json:"sender"`
	Path    int    `json:"path"` // which of the sender's paths this is: each counts by itself
	// Sequence rises with every probe on a path, over restarts of the sender,
	// too: what does not rise has been sent before.
	Sequence uint64 `json:"seq"`
	Nonce    string `json:"nonce"` // repeated in the answer
}

// Reply is what a director says of itself.
type Reply struct {
	Director    string `json:"director"`
	Group       string `json:"group"`
	Role        string `json:"role"`
	Epoch       uint64 `json:"epoch,omitempty"`
	Basis       string `json:"basis,omitempty"`
	AuthorityMS int64  `json:"authority_ms,omitempty"` // left, unless it is renewed
	Preferred   bool   `json:"preferred,omitempty"`
	Eligible    bool   `json:"eligible,omitempty"` // whether it could lead
	Why         string `json:"why,omitempty"`      // it could not; cut when there is no room
	CTI         string `json:"cti,omitempty"`      // up, connecting, down
	Peer        string `json:"peer,omitempty"`     // the other director, as this one hears it
	// Loops are counters of loops that turn several times a second whether
	// there is work or not. One that stands still is stuck. Left out when
	// there is no room.
	Loops     map[string]uint64 `json:"loops,omitempty"`
	Sessions  uint32            `json:"sessions,omitempty"`
	Channels  uint32            `json:"channels,omitempty"`
	Recorders uint32            `json:"recorders,omitempty"` // that obey it, or would
}

// envelope is a reply on the wire.
type envelope struct {
	Version int    `json:"v"`
	Nonce   string `json:"nonce"`
	Reply
}

var (
	errOversize  = fmt.Errorf("more than %d bytes", MaxSize)
	errStranger  = errors.New("not signed with the site's secret")
	errMalformed = errors.New("malformed")
)

// sign puts the HMAC before a body.
func sign(key []byte, label string, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(label))
	mac.Write(body)
	return append(mac.Sum(nil), body...)
}

// open checks the HMAC, in a time that does not depend on where it differs,
// and returns the body, which shares the datagram's memory.
func open(key []byte, label string, datagram []byte) ([]byte, error) {
	switch {
	case len(datagram) > MaxSize:
		return nil, errOversize
	case len(datagram) <= sha256.Size:
		return nil, errMalformed
	}
	body := datagram[sha256.Size:]
	if !hmac.Equal(datagram[:sha256.Size], sign(key, label, body)[:sha256.Size]) {
		return nil, errStranger
	}
	return body, nil
}

// encode makes the datagram of a probe.
func (p Probe) encode(key []byte) ([]byte, error) {
	body, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode probe: %w", err)
	}
	return sign(key, probeLabel, body), nil
}

// parseProbe reads a question. The error is one of the three above.
func parseProbe(key, datagram []byte) (Probe, error) {
	body, err := open(key, probeLabel, datagram)
	if err != nil {
		return Probe{}, err
	}
	var p Probe
	if json.Unmarshal(body, &p) != nil || !p.valid() {
		return Probe{}, errMalformed
	}
	return p, nil
}

func (p Probe) valid() bool {
	return p.Version == Version && p.Sender != "" && len(p.Sender) <= maxName && p.Path >= 0 && p.Path < maxPaths &&
		p.Sequence != 0 && p.Nonce != "" && len(p.Nonce) <= maxName
}

// encode makes the datagram of an answer. What is for people goes first when
// there is no room: Why is cut, then the loops are left out.
func (r Reply) encode(key []byte, nonce string) ([]byte, error) {
	fit := func() (body []byte, excess int, err error) {
		body, err = json.Marshal(envelope{Version, nonce, r})
		return body, len(body) + sha256.Size - MaxSize, err
	}
	body, excess, err := fit()
	for err == nil && excess > 0 && r.Why != "" {
		r.Why = shorten(r.Why, len(r.Why)-excess)
		body, excess, err = fit()
	}
	if err == nil && excess > 0 {
		r.Loops = nil
		body, excess, err = fit()
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("encode reply: %w", err)
	case excess > 0:
		return nil, fmt.Errorf("encode reply: %w", errOversize)
	}
	return sign(key, replyLabel, body), nil
}

// shorten cuts text to at most n bytes, between two characters.
func shorten(text string, n int) string {
	n = max(0, n)
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

// parseReply reads the answer to the question with the given nonce.
func parseReply(key, datagram []byte, nonce string) (Reply, error) {
	body, err := open(key, replyLabel, datagram)
	if err != nil {
		return Reply{}, err
	}
	var e envelope
	if json.Unmarshal(body, &e) != nil || e.Version != Version || e.Nonce != nonce {
		return Reply{}, errMalformed
	}
	return e.Reply, nil
}
