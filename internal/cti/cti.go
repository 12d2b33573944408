// Package cti is the line protocol between a turret switch and a director:
// one JSON object a line over TCP. It holds the messages and their framing and
// nothing of what either side does with them.
package cti

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// MaxLine is the longest line either side may send, newline included.
const MaxLine = 1 << 20

// Version is the protocol version a login names.
const Version = 1

// Message types.
const (
	TypeLogin         = "login"
	TypeLoginOK       = "login.ok"
	TypeLoginError    = "login.error"
	TypeSubscribe     = "subscribe"
	TypeSnapshotBegin = "snapshot.begin"
	TypeSnapshotEnd   = "snapshot.end"
	TypeHeartbeat     = "hb"

	TypeAgentLoggedOn      = "agent.logged_on"
	TypeAgentLoggedOff     = "agent.logged_off"
	TypeChannelAvailable   = "channel.available"
	TypeChannelUnavailable = "channel.unavailable"
	TypeCallOffered        = "call.offered"
	TypeCallEstablished    = "call.established"
	TypeCallHeld           = "call.held"
	TypeCallRetrieved      = "call.retrieved"
	TypeCallReleased       = "call.released"
	TypeLegJoined          = "leg.joined"
	TypeLegMoved           = "leg.moved"
	TypeLegLeft            = "leg.left"
	TypeTalkOn             = "talk.on"
	TypeTalkOff            = "talk.off"
)

// Message is any line of the link. Which fields are set depends on Type;
// unknown fields are ignored when read.
type Message struct {
	Type string `json:"type"`

	// Login and its answer.
	V           int    `json:"v,omitempty"`
	User        string `json:"user,omitempty"`
	Password    string `json:"password,omitempty"`
	Client      string `json:"client,omitempty"`
	Server      string `json:"server,omitempty"`
	HeartbeatMS int    `json:"heartbeat_ms,omitempty"`
	Reason      string `json:"reason,omitempty"` // of login.error: credentials standby limit
	Copy        string `json:"copy,omitempty"`   // of subscribe

	// Events: Seq counts everything the switch sends after login.ok but hb; T is when it happened.
	Seq uint64    `json:"seq,omitempty"`
	T   time.Time `json:"t,omitzero"`

	Session  *Session `json:"session,omitempty"`
	Channel  *Channel `json:"channel,omitempty"`
	Call     *Call    `json:"call,omitempty"`
	Leg      *Leg     `json:"leg,omitempty"`
	Channels []string `json:"channels,omitempty"` // of leg.joined, leg.moved
	Cause    string   `json:"cause,omitempty"`
}

// Session is a user logged on at a turret.
type Session struct {
	ID       string `json:"id"`
	User     string `json:"user,omitempty"`
	UserName string `json:"user_name,omitempty"`
	Device   string `json:"device,omitempty"`
	Profile  string `json:"profile,omitempty"`
}

// Channel is a mix of a session that the director may dial.
type Channel struct {
	ID      string   `json:"id"`
	Session string   `json:"session,omitempty"`
	Mix     string   `json:"mix,omitempty"`
	Copy    string   `json:"copy,omitempty"`
	URI     string   `json:"uri,omitempty"`
	Codecs  []string `json:"codecs,omitempty"` // "PCMU/8000", in the switch's preference
	Sources []string `json:"sources,omitempty"`
}

// Call is one conversation.
type Call struct {
	ID        string `json:"id"`
	Line      string `json:"line,omitempty"`
	Direction string `json:"direction,omitempty"`
	Party     string `json:"party,omitempty"`
	PartyName string `json:"party_name,omitempty"`
	Kind      string `json:"kind,omitempty"`
}

// Leg is one source of one turret in a call.
type Leg struct {
	ID      string `json:"id"`
	Call    string `json:"call,omitempty"`
	Session string `json:"session,omitempty"`
	User    string `json:"user,omitempty"`
	Device  string `json:"device,omitempty"`
	Source  string `json:"source,omitempty"`
}

// TimeFormat is RFC 3339 with milliseconds and zone; times are cut to it when written.
const TimeFormat = "2006-01-02T15:04:05.000Z07:00"

// A SyntaxError is a line that is not a message. The link can go on after it.
type SyntaxError struct {
	Line int    // counted from 1 since the reader was made
	Text string // the line's beginning
	Err  error
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("cti line %d: %v: %q", e.Line, e.Err, e.Text)
}
func (e *SyntaxError) Unwrap() error { return e.Err }

// ErrTooLong is a line over MaxLine. The link cannot go on after it: where
// the next message begins is not known until a newline comes.
var ErrTooLong = errors.New("line longer than 1 MiB")

// Reader reads messages. It is not safe for concurrent use.
type Reader struct {
	buf  *bufio.Reader
	line int
}

// NewReader reads messages from r.
func NewReader(r io.Reader) *Reader { return &Reader{buf: bufio.NewReaderSize(r, 64<<10)} }

// Read returns the next message. A *SyntaxError leaves the reader at the
// next line; any other error is final. Empty lines are skipped.
func (r *Reader) Read() (Message, error) {
	for {
		line, err := r.readLine()
		if err != nil {
			return Message{}, err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var m Message
		if err := json.Unmarshal(line, &m); err != nil {
			return Message{}, &SyntaxError{Line: r.line, Text: head(line), Err: err}
		}
		if m.Type == "" {
			return Message{}, &SyntaxError{Line: r.line, Text: head(line), Err: errors.New("no type")}
		}
		return m, nil
	}
}

func (r *Reader) readLine() ([]byte, error) {
	r.line++
	var long []byte
	for {
		part, err := r.buf.ReadSlice('\n')
		switch {
		case len(long)+len(part) > MaxLine:
			return nil, fmt.Errorf("cti line %d: %w", r.line, ErrTooLong)
		case err == nil && long == nil:
			return part, nil
		case err == nil:
			return append(long, part...), nil
		case errors.Is(err, bufio.ErrBufferFull):
			long = append(long, part...)
		case errors.Is(err, io.EOF) && len(long)+len(part) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

func head(line []byte) string { return string(line[:min(len(line), 80)]) }

// Append adds m as one line to dst and returns the longer slice.
func Append(dst []byte, m Message) ([]byte, error) {
	if !m.T.IsZero() {
		m.T = m.T.Truncate(time.Millisecond)
	}
	line, err := json.Marshal(m)
	if err != nil {
		return dst, fmt.Errorf("encode cti %s: %w", m.Type, err)
	}
	if len(line)+1 > MaxLine {
		return dst, fmt.Errorf("encode cti %s: %w", m.Type, ErrTooLong)
	}
	return append(append(dst, line...), '\n'), nil
}
