package daemon

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/sys/unix"
)

const (
	journaldSocket = "/run/systemd/journal/socket"
	// journaldWaiting is how many records may wait for a journald that does
	// not read.
	journaldWaiting = 1000
	// journaldRetry is how often it is tried again.
	journaldRetry = 10 * time.Millisecond
	// journaldLast is how long it has when the process ends.
	journaldLast = time.Second
	// fieldMost is what is kept of one value: a record must fit a datagram.
	fieldMost = 32 << 10
	// recordMost is what is kept of a record.
	recordMost = 128 << 10
)

// logAs makes the default logger the one for a daemon: systemd's journal
// where stderr is connected to it (systemd.exec(5), JOURNAL_STREAM), else
// lines on stderr. The returned function is for the end of the process.
func logAs(identifier string) (end func()) {
	slog.SetDefault(NewLogger(os.Stderr))
	connected, err := journal.StderrIsJournalStream()
	if err != nil {
		slog.Warn("journal not recognised", "err", err)
	}
	if !connected {
		return func() {}
	}
	line, err := dialJournald(identifier, journaldSocket)
	if err != nil {
		slog.Warn("log goes to the journal without fields", "err", err)
		return func() {}
	}
	slog.SetDefault(slog.New(&journald{line: line}))
	return line.end
}

// journald is a slog.Handler that speaks the native protocol of systemd's
// journal (https://systemd.io/JOURNAL_NATIVE_PROTOCOL): PRIORITY from the
// level, MESSAGE with all attributes for people, and each attribute as a field
// of its own, TANDEM_CHANNEL for "channel". Each With makes another one over
// the same line.
type journald struct {
	line   *journaldLine
	prefix string // of groups, "a.b."
	fields []field
}

// field is an attribute, its key with those of its groups before it.
type field struct{ key, value string }

func (*journald) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (h *journald) Handle(_ context.Context, r slog.Record) error {
	fields := slices.Clone(h.fields)
	for a := range r.Attrs {
		fields = appendField(fields, h.prefix, a)
	}
	h.line.send(h.line.record(priority(r.Level), r.Message, fields))
	return nil
}

func (h *journald) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := &journald{line: h.line, prefix: h.prefix, fields: slices.Clone(h.fields)}
	for _, a := range attrs {
		next.fields = appendField(next.fields, h.prefix, a)
	}
	return next
}

func (h *journald) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return &journald{line: h.line, prefix: h.prefix + name + ".", fields: h.fields}
}

// appendField appends an attribute, or those of a group one by one.
func appendField(fields []field, prefix string, a slog.Attr) []field {
	v := a.Value.Resolve()
	if v.Kind() != slog.KindGroup {
		if a.Equal(slog.Attr{}) {
			return fields
		}
		return append(fields, field{prefix + a.Key, text(v)})
	}
	if a.Key != "" {
		prefix += a.Key + "."
	}
	for _, in := range v.Group() {
		fields = appendField(fields, prefix, in)
	}
	return fields
}

func text(v slog.Value) string {
	s := v.String()
	if v.Kind() == slog.KindTime {
		s = v.Time().Format(time.RFC3339Nano)
	}
	return cut(s)
}

func cut(s string) string {
	if len(s) <= fieldMost {
		return s
	}
	return strings.ToValidUTF8(s[:fieldMost], "")
}

func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}

// fieldName is a key as the journal takes it: upper case, digits and
// underscores. The prefix keeps it apart from the journal's own.
func fieldName(key string) string {
	upper := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z' || r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
	const most = 64 // journald drops longer names
	name := "TANDEM_" + upper
	return name[:min(len(name), most)]
}

// journaldLine is the socket to journald. What finds its queue full waits
// here, within bounds: no loop of a daemon waits for its log. Safe for concurrent use.
type journaldLine struct {
	fd         int
	to         *unix.SockaddrUnix
	identifier string

	mu      sync.Mutex
	waiting [][]byte
	lost    int
}

func dialJournald(identifier, socket string) (*journaldLine, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open journal socket: %w", err)
	}
	return &journaldLine{fd: fd, to: &unix.SockaddrUnix{Name: socket}, identifier: identifier}, nil
}

// record encodes one record.
func (l *journaldLine) record(p journal.Priority, message string, fields []field) []byte {
	var b bytes.Buffer
	put(&b, "PRIORITY", strconv.Itoa(int(p)))
	put(&b, "SYSLOG_IDENTIFIER", l.identifier)
	readable := message
	for _, f := range fields {
		if len(readable) < fieldMost {
			readable += " " + f.key + "=" + quoted(f.value)
		}
	}
	put(&b, "MESSAGE", cut(readable))
	for _, f := range fields {
		if b.Len()+len(f.value) < recordMost {
			put(&b, fieldName(f.key), f.value)
		}
	}
	return b.Bytes()
}

// put writes one field: a value of several lines goes with its length.
func put(b *bytes.Buffer, name, value string) {
	b.WriteString(name)
	if strings.ContainsRune(value, '\n') {
		b.WriteByte('\n')
		b.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(value))))
	} else {
		b.WriteByte('=')
	}
	b.WriteString(value)
	b.WriteByte('\n')
}

// quoted is the value as log lines have it.
func quoted(s string) string {
	if s == "" || strings.ContainsAny(s, " \"=\n\t") {
		return strconv.Quote(s)
	}
	return s
}

// send sends the record, or has it wait its turn.
func (l *journaldLine) send(record []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 && l.try(record) {
		return
	}
	if len(l.waiting) >= journaldWaiting {
		l.lost++
		return
	}
	l.waiting = append(l.waiting, record)
	if len(l.waiting) == 1 {
		time.AfterFunc(journaldRetry, l.retry)
	}
}

// retry sends what waits, and behind it how much did not find room, which
// waits its turn like any record.
func (l *journaldLine) retry() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.waiting) > 0 {
		if !l.try(l.waiting[0]) {
			time.AfterFunc(journaldRetry, l.retry)
			return
		}
		l.waiting = l.waiting[1:]
		if len(l.waiting) == 0 && l.lost > 0 {
			l.waiting = [][]byte{l.record(journal.PriWarning, "log records lost: the journal did not take them", []field{{"records", strconv.Itoa(l.lost)}})}
			l.lost = 0
		}
	}
	l.waiting = nil
}

// try sends a record without waiting, and says false when it is to wait. One
// that journald can never take goes to stderr.
func (l *journaldLine) try(record []byte) bool {
	err := unix.Sendto(l.fd, record, unix.MSG_NOSIGNAL, l.to)
	for _, later := range []error{unix.EAGAIN, unix.ENOBUFS, unix.ECONNREFUSED, unix.ENOENT} { // full, or journald restarts
		if errors.Is(err, later) {
			return false
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "log record not sent: %v\n", err)
	}
	return true
}

// end gives a journald that did not read a last chance, before the process exits.
func (l *journaldLine) end() {
	for range journaldLast / journaldRetry {
		l.mu.Lock()
		done := len(l.waiting) == 0
		l.mu.Unlock()
		if done {
			return
		}
		time.Sleep(journaldRetry)
	}
}
