package reconcile

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Entry is a call as the platform accounts for it.
type Entry struct {
	Line  int // of the file
	Call  string
	Agent string // user id, user name or turret
	Party string
	Span
}

// Ledger is the platform's account, to be compared with what was recorded. It
// belongs to one goroutine.
type Ledger struct {
	File    string
	entries []entry // by From
	byCall  map[string][]int
	longest time.Duration
	during  Span
	slack   time.Duration
	outside int
}

type entry struct {
	Entry
	named spans // recorded under its call id
	alike spans // recorded of its agent at its time
	found [2]bool
}

// NewLedger compares the entries that lie in a span; slack is how far clocks
// may differ.
func NewLedger(file string, entries []Entry, during Span, slack time.Duration) *Ledger {
	l := &Ledger{File: file, byCall: make(map[string][]int), during: during, slack: slack}
	entries = slices.Clone(entries)
	slices.SortStableFunc(entries, func(a, b Entry) int { return a.From.Compare(b.From) })
	for _, e := range entries {
		if e.From.Before(during.From) || e.To.After(during.To) {
			l.outside++
			continue
		}
		if e.Call != "" {
			l.byCall[e.Call] = append(l.byCall[e.Call], len(l.entries))
		}
		l.longest = max(l.longest, e.Length())
		l.entries = append(l.entries, entry{Entry: e})
	}
	return l
}

// Entries is how many are compared, and how many lie outside the span.
func (l *Ledger) Entries() (compared, outside int) { return len(l.entries), l.outside }

// note tells of a record, and of what was heard of it. A nil ledger has no use for it.
func (l *Ledger) note(r Record, heard spans) {
	if l == nil {
		return
	}
	for _, n := range l.byCall[r.Call] {
		e := &l.entries[n]
		e.found[0], e.named = true, union(append(e.named, heard...)...)
	}
	from := r.From.Add(-l.longest - l.slack)
	n, _ := slices.BinarySearchFunc(l.entries, from, func(e entry, at time.Time) int { return e.From.Compare(at) })
	for ; n < len(l.entries) && !l.entries[n].From.After(r.To.Add(l.slack)); n++ {
		if e := &l.entries[n]; e.fits(r, l.slack) {
			e.found[1], e.alike = true, union(append(e.alike, heard...)...)
		}
	}
}

// fits reports whether a record may be of the entry's call, whatever its id.
func (e *entry) fits(r Record, slack time.Duration) bool {
	is := func(want string, names ...string) bool {
		return slices.ContainsFunc(names, func(s string) bool { return s != "" && strings.EqualFold(s, want) })
	}
	return e.Agent != "" && is(e.Agent, r.User, r.UserName, r.Device) && (e.Party == "" || is(e.Party, r.Party, r.PartyName)) && e.Span.widen(slack).overlaps(r.Span)
}

// Findings are the entries that were not recorded, or not all of them.
func (l *Ledger) Findings() []Finding {
	var all []Finding
	for _, e := range l.entries {
		heard, found := e.named, e.found[0]
		if !found {
			heard, found = e.alike, e.found[1]
		}
		f := Finding{Kind: Missing, By: e.Length(), Record: Record{Call: e.Call, User: e.Agent, Party: e.Party, Span: e.Span}}
		lacks := spans{e.Span}.minus(heard)
		switch {
		case !found:
			f.Text = fmt.Sprintf("%s line %d: no recorder has a record of it", l.File, e.Line)
		case len(heard) > 0 && lacks.length() > l.slack:
			f.Kind, f.By, f.Lacks = Shorter, lacks.length(), lacks
			f.Text = fmt.Sprintf("%s line %d: %v of %v were not recorded", l.File, e.Line, f.By.Round(time.Millisecond), e.Length().Round(time.Millisecond))
		default:
			continue
		}
		all = append(all, f)
	}
	return all
}

// columns are the names by which a column is known.
var columns = map[string][]string{
	"call_id":  {"call_id", "call", "callid", "id"},
	"agent":    {"agent", "user", "user_id", "user_name", "trader", "device", "turret", "extension"},
	"party":    {"party", "number", "remote_party", "party_number", "party_name"},
	"start":    {"start", "begin", "from", "start_time"},
	"end":      {"end", "to", "end_time"},
	"duration": {"duration", "duration_s", "seconds"},
}

// ColumnNames lists what columns may be called, for people.
func ColumnNames() string {
	var all []string
	for _, c := range []string{"call_id", "agent", "party", "start", "end", "duration"} {
		all = append(all, c+" ("+strings.Join(columns[c][1:], ", ")+")")
	}
	return strings.Join(all, "; ")
}

// ParseCDR reads a platform's call records, comma or semicolon separated. The
// first row names the columns; those that mean nothing here are passed over. A
// time without a zone is in the given one. Errors name file, line and column, or
// the byte of the line where that is no table.
func ParseCDR(r io.Reader, file string, zone *time.Location) ([]Entry, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	table := csv.NewReader(strings.NewReader(strings.TrimPrefix(string(text), "\ufeff")))
	table.ReuseRecord = true
	if head, _, _ := strings.Cut(string(text), "\n"); strings.Contains(head, ";") && !strings.Contains(head, ",") {
		table.Comma = ';'
	}
	p := cdrParser{file: file, zone: zone, table: table}
	return p.parse()
}

type cdrParser struct {
	file   string
	zone   *time.Location
	table  *csv.Reader
	column map[string]int // by what it means
	row    []string
}

func (p *cdrParser) parse() ([]Entry, error) {
	if err := p.header(); err != nil {
		return nil, err
	}
	var entries []Entry
	for {
		var err error
		if p.row, err = p.table.Read(); errors.Is(err, io.EOF) {
			return entries, nil
		} else if err != nil {
			return nil, p.syntax(err)
		}
		e, err := p.entry()
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
}

func (p *cdrParser) header() error {
	row, err := p.table.Read()
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s:1: empty: want a row that names the columns", p.file)
	}
	if err != nil {
		return p.syntax(err)
	}
	p.column = make(map[string]int)
	for n, name := range row {
		name = strings.NewReplacer(" ", "_", "-", "_").Replace(strings.ToLower(strings.TrimSpace(name)))
		for means, names := range columns {
			if !slices.Contains(names, name) {
				continue
			}
			if first, twice := p.column[means]; twice {
				return fmt.Errorf("%s:1: column %d %q: column %d says that already", p.file, n+1, name, first+1)
			}
			p.column[means] = n
		}
	}
	has := func(names ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { _, ok := p.column[n]; return ok })
	}
	switch {
	case !has("start"):
		return fmt.Errorf("%s:1: no column %q", p.file, "start")
	case !has("end", "duration"):
		return fmt.Errorf("%s:1: neither a column %q nor %q", p.file, "end", "duration")
	case !has("call_id", "agent"):
		return fmt.Errorf("%s:1: neither a column %q nor %q", p.file, "call_id", "agent")
	}
	return nil
}

// syntax is the error of a file that is no table.
func (p *cdrParser) syntax(err error) error {
	var at *csv.ParseError
	switch {
	case errors.As(err, &at) && errors.Is(err, csv.ErrFieldCount):
		return fmt.Errorf("%s:%d: column %d is the last, and the first row names %d", p.file, at.Line, len(p.row), p.table.FieldsPerRecord)
	case errors.As(err, &at):
		return fmt.Errorf("%s:%d: byte %d: %w", p.file, at.Line, at.Column, at.Err)
	}
	return fmt.Errorf("read %s: %w", p.file, err)
}

// cell is what a row has in a column, if there is one.
func (p *cdrParser) cell(means string) string {
	if n, ok := p.column[means]; ok {
		return strings.TrimSpace(p.row[n])
	}
	return ""
}

// bad is the error of a cell.
func (p *cdrParser) bad(means, want string) error {
	n := p.column[means]
	line, _ := p.table.FieldPos(n)
	return fmt.Errorf("%s:%d: column %d %q: %q: want %s", p.file, line, n+1, means, p.row[n], want)
}

func (p *cdrParser) entry() (Entry, error) {
	line, _ := p.table.FieldPos(0)
	e := Entry{Line: line, Call: strings.Clone(p.cell("call_id")), Agent: strings.Clone(p.cell("agent")), Party: strings.Clone(p.cell("party"))}
	if e.Call == "" && e.Agent == "" {
		_, named := p.column["call_id"]
		return e, p.bad(map[bool]string{true: "call_id", false: "agent"}[named], "a call or an agent")
	}
	const wantTime = `"2006-01-02 15:04:05" or RFC 3339`
	var ok bool
	if e.From, ok = p.instant(p.cell("start")); !ok {
		return e, p.bad("start", wantTime)
	}
	if end := p.cell("end"); end != "" {
		if e.To, ok = p.instant(end); !ok {
			return e, p.bad("end", wantTime)
		}
		if e.To.Before(e.From) {
			return e, p.bad("end", "an instant after the start")
		}
		return e, nil
	}
	length, ok := seconds(p.cell("duration"))
	if !ok {
		means := "end"
		if _, named := p.column["duration"]; named {
			means = "duration"
		}
		return e, p.bad(means, "an end, or a duration in seconds")
	}
	e.To = e.From.Add(length)
	return e, nil
}

// instant reads a time of a year that a platform can have recorded in.
func (p *cdrParser) instant(s string) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05.999999999"} {
		if t, err := time.ParseInLocation(layout, s, p.zone); err == nil {
			return t, t.Year() >= 1970 && t.Year() < 2200
		}
	}
	return time.Time{}, false
}

// seconds reads "90", "90.5", "1m30s" or "0:01:30".
func seconds(s string) (time.Duration, bool) {
	const most = 366 * 24 * time.Hour
	if d, err := time.ParseDuration(s); err == nil {
		return d, d >= 0 && d <= most
	}
	total := 0.0
	parts := strings.Split(s, ":")
	for _, part := range parts {
		v, err := strconv.ParseFloat(part, 64)
		if err != nil || !(v >= 0) || len(parts) > 3 {
			return 0, false
		}
		total = total*60 + v
	}
	return time.Duration(total * float64(time.Second)), cmp.Compare(total, most.Seconds()) <= 0
}
