// Package truth is what a simulated switch really did: the log it keeps while
// it runs, and a judge that holds a recording against that log by listening
// to the recording itself.
package truth

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"
)

// Kinds of lines.
const (
	TypeStart      = "start"       // the media clock begins: server, origin, seed, voice
	TypeServer     = "server"      // a new incarnation
	TypeSession    = "session"     // a logon
	TypeSessionEnd = "session.end" // session
	TypeChannel    = "channel"     // with device and sources
	TypeChannelEnd = "channel.end"
	TypeCall       = "call"      // state is the event without "call."
	TypeLeg        = "leg"       // state joined, moved, left; media per channel
	TypePackets    = "packets"   // a contiguous range sent
	TypeWithheld   = "withheld"  // packets of such a range that never reached the wire, on purpose
	TypeUtterance  = "utterance" // a source begins to speak
	TypeHush       = "hush"      // a source ends speaking
	TypeFault      = "fault"     // a fault set off by hand
	TypeStop       = "stop"
)

// Voices: what sources say by default.
const (
	VoiceTones  = "tones"  // every source, all the time
	VoiceSpurts = "spurts" // tones, in talk spurts during legs
	VoiceFiles  = "files"  // a file per leg
)

// Line is one line of the log; which fields are set depends on Type. Samples
// count on the media clock, whose sample 0 is at Origin.
type Line struct {
	Type string    `json:"type"`
	At   time.Time `json:"at,omitzero"`

	Server string    `json:"server,omitempty"`
	Origin time.Time `json:"origin,omitzero"`
	Rate   int       `json:"rate,omitempty"`
	Seed   uint64    `json:"seed,omitempty"`
	Voice  string    `json:"voice,omitempty"`

	Session  string   `json:"session,omitempty"`
	User     string   `json:"user,omitempty"`
	Device   string   `json:"device,omitempty"`
	Channel  string   `json:"channel,omitempty"`
	Mix      string   `json:"mix,omitempty"`
	Copy     string   `json:"copy,omitempty"`
	Sources  []string `json:"sources,omitempty"`
	Call     string   `json:"call,omitempty"`
	Line     string   `json:"line,omitempty"`
	Party    string   `json:"party,omitempty"`
	CallKind string   `json:"kind,omitempty"`
	Leg      string   `json:"leg,omitempty"`
	Source   string   `json:"source,omitempty"`
	State    string   `json:"state,omitempty"`
	Cause    string   `json:"cause,omitempty"`
	Media    []Media  `json:"media,omitempty"` // of a leg: where it is heard

	Dialog  string `json:"dialog,omitempty"`
	To      string `json:"to,omitempty"`
	Codec   string `json:"codec,omitempty"`
	SSRC    uint32 `json:"ssrc,omitempty"`
	Seq     uint32 `json:"seq,omitempty"` // extended: rollovers in the upper half
	TS      uint32 `json:"ts,omitempty"`
	Sample  int64  `json:"sample,omitempty"`
	Packets int    `json:"packets,omitempty"`
	Late    int64  `json:"late_ms,omitempty"` // the most by which one of the packets left after it was due
	Stray   bool   `json:"stray,omitempty"`   // sent after the dialog's end

	Until int64  `json:"until,omitempty"` // of an utterance: its planned end; 0 is open
	Clip  string `json:"clip,omitempty"`
	Name  string `json:"name,omitempty"` // of a fault
}

// Media is a leg on one channel: the RTP timestamp there at the instant of
// the event. SSRC 0 is a channel nobody has dialled.
type Media struct {
	Channel string `json:"channel"`
	SSRC    uint32 `json:"ssrc,omitempty"`
	TS      uint32 `json:"ts,omitempty"`
}

// Range is contiguous packets sent on one channel, 160 samples each.
type Range struct {
	Channel, Dialog, To, Codec string
	SSRC, Seq, TS              uint32
	Sample                     int64
	Packets                    int
	At                         time.Time     // when the first packet was due
	Late                       time.Duration // the most by which one of them left after it was due
	Stray                      bool
}

// flushEvery bounds what a killed switch does not tell.
const flushEvery = 100 * time.Millisecond

// Log writes lines to a file from any goroutine. A nil *Log keeps nothing.
type Log struct {
	mu     sync.Mutex
	buf    []byte
	file   *os.File
	failed error
	once   sync.Once
	stop   chan struct{}
	done   chan struct{}
}

// Create begins a log, over whatever the file held.
func Create(path string) (*Log, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("create truth log: %w", err)
	}
	l := &Log{file: file, stop: make(chan struct{}), done: make(chan struct{})}
	go l.flushLoop()
	return l, nil
}

// Add adds one line.
func (l *Log) Add(line Line) {
	if l == nil {
		return
	}
	text, err := json.Marshal(line)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed = err
		return
	}
	l.buf = append(append(l.buf, text...), '\n')
}

// AddPackets is Add for a range, without allocating.
func (l *Log) AddPackets(r *Range) {
	if l == nil {
		return
	}
	l.mu.Lock()
	b := append(l.buf, `{"type":"packets","at":"`...)
	b = r.At.AppendFormat(b, time.RFC3339Nano)
	b = appendText(b, `","channel":`, r.Channel)
	b = appendText(b, `,"dialog":`, r.Dialog)
	b = appendText(b, `,"to":`, r.To)
	b = appendText(b, `,"codec":`, r.Codec)
	b = appendNumber(b, `,"ssrc":`, int64(r.SSRC))
	b = appendNumber(b, `,"seq":`, int64(r.Seq))
	b = appendNumber(b, `,"ts":`, int64(r.TS))
	b = appendNumber(b, `,"sample":`, r.Sample)
	b = appendNumber(b, `,"packets":`, int64(r.Packets))
	if late := r.Late.Milliseconds(); late > 0 {
		b = appendNumber(b, `,"late_ms":`, late)
	}
	if r.Stray {
		b = append(b, `,"stray":true`...)
	}
	l.buf = append(b, "}\n"...)
	l.mu.Unlock()
}

func appendText(b []byte, key, v string) []byte { return strconv.AppendQuote(append(b, key...), v) }

func appendNumber(b []byte, key string, v int64) []byte {
	return strconv.AppendInt(append(b, key...), v, 10)
}

func (l *Log) flushLoop() {
	defer close(l.done)
	ticker := time.NewTicker(flushEvery)
	defer ticker.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-ticker.C:
			l.Flush()
		}
	}
}

// Flush writes out what has been added.
func (l *Log) Flush() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.file.Write(l.buf); err != nil && l.failed == nil {
		l.failed = err
	}
	l.buf = l.buf[:0]
}

// Close writes the rest. Its error is the first of the log's whole life.
// Closing again changes nothing.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	l.once.Do(func() {
		close(l.stop)
		<-l.done
		l.Flush()
		if err := l.file.Close(); l.failed == nil {
			l.failed = err
		}
	})
	if l.failed != nil {
		return fmt.Errorf("write truth log: %w", l.failed)
	}
	return nil
}

// readLines calls use for every whole line. A last line without its newline
// is one the switch was killed over, and ignored.
func readLines(r io.Reader, use func(Line) error) error {
	in := bufio.NewReaderSize(r, 1<<20)
	for n := 1; ; n++ {
		text, err := in.ReadBytes('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read truth log: %w", err)
		}
		var line Line
		if err := json.Unmarshal(text, &line); err != nil {
			return fmt.Errorf("read truth log: line %d: %w", n, err)
		}
		if err := use(line); err != nil {
			return fmt.Errorf("read truth log: line %d: %w", n, err)
		}
	}
}
