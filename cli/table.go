package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// colour is an SGR sequence of ECMA-48; empty is none.
type colour string

const (
	red    colour = "\x1b[31m"
	green  colour = "\x1b[32m"
	yellow colour = "\x1b[33m"
	bold   colour = "\x1b[1m"
	faint  colour = "\x1b[2m"
)

// cell is one field of a table. Its text is shown without control characters,
// wherever it came from: a party's name must not steer the terminal.
type cell struct {
	text   string
	colour colour
	right  bool
}

func text(s string) cell                  { return cell{text: s} }
func number(format string, v ...any) cell { return cell{text: fmt.Sprintf(format, v...), right: true} }

// table is rows under a heading; a column is as wide as its widest cell.
type table struct {
	heading []string
	rows    [][]cell
}

func (t *table) add(cells ...cell) { t.rows = append(t.rows, cells) }

// lines are the table as text, with colours if wanted. A table without rows
// has no lines.
func (t *table) lines(colours bool) []string {
	if len(t.rows) == 0 {
		return nil
	}
	widths, right := make([]int, len(t.heading)), make([]bool, len(t.heading))
	for n, h := range t.heading {
		widths[n] = width(h)
	}
	for _, row := range t.rows {
		for n := range row {
			row[n].text = clean(row[n].text)
			widths[n] = max(widths[n], width(row[n].text))
			right[n] = right[n] || row[n].right
		}
	}
	heading := make([]cell, len(t.heading))
	for n, h := range t.heading {
		heading[n] = cell{h, bold, right[n]}
	}
	lines := []string{line(heading, widths, right, colours)}
	for _, row := range t.rows {
		lines = append(lines, line(row, widths, right, colours))
	}
	return lines
}

func line(cells []cell, widths []int, right []bool, colours bool) string {
	var b strings.Builder
	for n, c := range cells {
		pad := strings.Repeat(" ", widths[n]-width(c.text))
		shown := c.text
		if colours && c.colour != "" && shown != "" {
			shown = string(c.colour) + shown + "\x1b[0m"
		}
		switch {
		case right[n]:
			b.WriteString(pad + shown)
		case n < len(cells)-1:
			b.WriteString(shown + pad)
		default:
			b.WriteString(shown)
		}
		if n < len(cells)-1 {
			b.WriteString("  ")
		}
	}
	return strings.TrimRight(b.String(), " ")
}

func width(s string) int { return utf8.RuneCountInString(s) }

// clean shows what came from elsewhere: control characters become "?".
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
}

// colours tells whether tables are coloured (https://no-color.org).
func (i *invocation) colours() bool { return i.terminal && os.Getenv("NO_COLOR") == "" }

func (i *invocation) print(t *table) {
	for _, l := range t.lines(i.colours()) {
		fmt.Fprintln(i.out, l)
	}
}

// paint is s in a colour, if colours are wanted.
func (i *invocation) paint(c colour, s string) string {
	if !i.colours() || c == "" {
		return s
	}
	return string(c) + s + "\x1b[0m"
}

// screen redraws a block of lines in place on a terminal, and prints one block
// after another elsewhere.
type screen struct {
	out      io.Writer
	terminal bool
	drawn    int
}

// draw shows the lines in place of those drawn before. A line wider than the
// terminal is cut, for a wrapped one could not be found again.
func (s *screen) draw(lines []string) {
	if !s.terminal {
		fmt.Fprintln(s.out, strings.Join(lines, "\n"))
		return
	}
	columns, rows := 120, 0
	if f, ok := s.out.(*os.File); ok {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil {
			columns, rows = w, h
		}
	}
	if rows > 1 && len(lines) > rows-1 {
		lines = append(lines[:rows-2:rows-2], fmt.Sprintf("... %d more lines", len(lines)-rows+2))
	}
	var b strings.Builder
	if s.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", s.drawn)
	}
	b.WriteString("\r\x1b[J")
	for _, l := range lines {
		b.WriteString(clip(l, columns) + "\n")
	}
	io.WriteString(s.out, b.String())
	s.drawn = len(lines)
}

// clip cuts a line to so many columns, counting no colours.
func clip(s string, columns int) string {
	shown, escape, cut := 0, false, false
	var b strings.Builder
	for _, r := range s {
		switch {
		case escape:
			escape = r != 'm'
			b.WriteRune(r)
		case r == '\x1b':
			escape = true
			b.WriteRune(r)
		case shown < columns:
			shown++
			b.WriteRune(r)
		default:
			cut = true
		}
	}
	if cut && strings.Contains(s, "\x1b") {
		b.WriteString("\x1b[0m")
	}
	return b.String()
}

// stamp is a time in JSON: RFC 3339 with milliseconds, in UTC; null when there
// is none.
type stamp time.Time

func (s stamp) MarshalJSON() ([]byte, error) {
	if time.Time(s).IsZero() {
		return []byte("null"), nil
	}
	return []byte(time.Time(s).UTC().Format(`"2006-01-02T15:04:05.000Z07:00"`)), nil
}

// at is the time a message carries, zero when it carries none.
func at(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func stampOf(t *timestamppb.Timestamp) stamp { return stamp(at(t)) }

// clock is a time of day in the user's zone, with the date when it is not
// today's.
func (i *invocation) clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	t, now := t.In(i.zone), i.now().In(i.zone)
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}

// length is a duration as people say it: 48 ms, 3.2 s, 2:07, 1:02:07.
func length(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Truncate(100*time.Millisecond).Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d:%02d", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d:%02d:%02d", int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60)
}

// size is a number of bytes in binary units.
func size(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	v, u := float64(n), 0
	for v >= 1024 && u < len(units)-1 {
		v, u = v/1024, u+1
	}
	if u == 0 || v >= 100 {
		return fmt.Sprintf("%.0f %s", v, units[u])
	}
	return fmt.Sprintf("%.1f %s", v, units[u])
}

// count is a number of things whose plural ends in s.
func count[N int | int64 | uint32](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// orDash keeps empty fields visible.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
