// Package reconcile compares what the two groups of a site hold of the same
// calls. Records are paired by channel, source and absolute time: that both
// copies of a call carry the same id is the platform's luck, not a promise.
//
// A Survey is pure: it is told of records and media, in order of time, and says
// what differs. Reader tells it what recorders hold; ParseCDR reads what the
// platform says there was.
package reconcile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"tandem/internal/call"
)

// Kind is what is wrong.
type Kind string

const (
	Missing      Kind = "missing"      // a copy has no record of the call
	Shorter      Kind = "shorter"      // a copy lacks time that the other one has
	Different    Kind = "different"    // both have it, and it does not sound the same
	Unattributed Kind = "unattributed" // audio that no call explains
	CTIMissing   Kind = "cti_missing"  // a call that was told of, and no audio of it anywhere
)

// Kinds are all of them, the worst first.
var Kinds = []Kind{CTIMissing, Missing, Shorter, Different, Unattributed}

// Finding is one thing that is wrong.
type Finding struct {
	Kind   Kind
	Group  string // that lacks it; empty: both, or neither
	Holder string // the group that has it; empty: none
	Record        // what the holder knows of it
	Lacks  []Span // of a shorter or different one
	By     time.Duration
	Text   string
}

// Record is a leg as one group has it.
type Record struct {
	Copy      call.Copy
	Group     string
	Call, Leg string
	Line      string
	Party     string
	PartyName string
	Session   string
	User      string
	UserName  string
	Device    string
	Source    string
	Channels  []string // by Channel
	State     call.State
	Span      // a leg that lasts ends with the survey
}

// Channel is a channel's id without its copy: the same one for both groups.
func Channel(id string) string {
	if n := strings.LastIndexByte(id, '.'); n >= 0 {
		return id[:n]
	}
	return id
}

// CopyOf is the copy that a channel's id ends in, A for one that names none.
func CopyOf(id string) call.Copy {
	if c, err := call.ParseCopy(id[strings.LastIndexByte(id, '.')+1:]); err == nil {
		return c
	}
	return call.CopyA
}

// Media is a stretch of a channel that one recorder has, its gaps apart.
type Media struct {
	Channel string // by Channel
	Copy    call.Copy
	Span
	Gaps []Span
	None bool // no media at all: it only says what is missing
}

// Options say how exactly copies are to agree.
type Options struct {
	Tolerance time.Duration // of the begins and ends of records: clocks differ
	Least     time.Duration // less than this missing is not told
	Both      bool          // there are two groups; otherwise nothing is missing in the other one
	Against   *Ledger       // what the platform says there was; nil: nothing
	Fresh     time.Time     // what ended later may be in no media file yet; zero: all is
}

// Count is how much was compared.
type Count struct {
	Records   int // of both groups
	Pairs     int // calls' legs that both groups have
	Whole     int // of these, how many agree
	Unwritten int // records of which not all is in media files yet: gaps in the rest are not known
	Findings  map[Kind]int
}

// roll is how much audio is kept around a call, at most: it is the call's.
const roll = 5 * time.Second

// Survey compares records as they come. It keeps those of which more may come,
// and belongs to one goroutine.
type Survey struct {
	opts    Options
	lanes   map[lane][]Record
	tracks  map[track]*held
	blind   map[call.Copy][]Span // when a recorder of a copy could not hear of calls
	told    map[call.Copy][]Span // and when one could
	known   map[string][]Span    // when there were calls on a channel, those judged included
	groups  map[call.Copy]string
	during  Span
	settled time.Time
	count   Count
}

// lane is where at most one leg is at a time: a session's source.
type lane struct{ session, source string }

// track is a channel as one group has it.
type track struct {
	channel string
	copy    call.Copy
}

// held is a track's media, in any order.
type held struct{ stretches, gaps []Span }

// NewSurvey compares what lies in a span.
func NewSurvey(during Span, opts Options) *Survey {
	return &Survey{
		opts: opts, lanes: make(map[lane][]Record), tracks: make(map[track]*held), blind: make(map[call.Copy][]Span), told: make(map[call.Copy][]Span), known: make(map[string][]Span),
		groups: map[call.Copy]string{call.CopyA: "primary", call.CopyB: "secondary"}, settled: during.From, during: during, count: Count{Findings: make(map[Kind]int)},
	}
}

// Count is how much was compared by now.
func (s *Survey) Count() Count { return s.count }

// Add tells of a record. Of several of one leg in one group, as its recorders
// have it, the best known counts.
func (s *Survey) Add(r Record) {
	s.groups[r.Copy] = cmp.Or(r.Group, s.groups[r.Copy])
	for _, c := range r.Channels {
		s.known[c] = append(s.known[c], r.Span.widen(roll+s.opts.Tolerance))
	}
	l := lane{r.Session, r.Source}
	for n, old := range s.lanes[l] {
		if old.Copy == r.Copy && old.Leg == r.Leg {
			s.lanes[l][n] = better(old, r)
			return
		}
	}
	s.count.Records++
	s.lanes[l] = append(s.lanes[l], r)
}

// better is of two records of one leg the one whose recorder heard more: one
// that was stopped, or did not hear of the end, knows less.
func better(a, b Record) Record {
	rank := func(r Record) int {
		switch r.State {
		case call.StateInterrupted:
			return 0
		case call.StateRecording:
			return 1
		}
		return 2
	}
	if cmp.Or(cmp.Compare(rank(a), rank(b)), a.To.Compare(b.To)) < 0 {
		return b
	}
	return a
}

// AddMedia tells of media; what was told of before is no less true.
func (s *Survey) AddMedia(m Media) {
	t := track{m.Channel, m.Copy}
	h := s.tracks[t]
	if h == nil {
		h = &held{}
		s.tracks[t] = h
	}
	gaps := union(m.Gaps...)
	h.gaps = append(h.gaps, gaps...)
	if !m.None {
		h.stretches = append(h.stretches, spans{m.Span}.minus(gaps)...)
	}
}

// AddBlind says when a recorder of a copy could not hear of calls, be it that
// nobody heard of them, or that it alone was away.
func (s *Survey) AddBlind(c call.Copy, w Span) { s.blind[c] = append(s.blind[c], w) }

// AddTold says when a recorder of a copy was told of all calls: whatever another
// one did not hear of then, somebody did.
func (s *Survey) AddTold(c call.Copy, w Span) { s.told[c] = append(s.told[c], w) }

// Verdict is what a survey knows of the time up to an instant.
type Verdict struct {
	Findings []Finding
	Pairs    []Pair // that agree as far as records tell
}

// Pair is a leg as both groups have it.
type Pair struct{ A, B Record }

// Doubts are the records of whose media more may be known: those that Settle
// would find fault with, and those that are not written to their end.
func (s *Survey) Doubts(until time.Time) []Record {
	var doubts []Record
	for _, c := range s.over(until) {
		if len(s.judge(c).findings) > 0 || slices.ContainsFunc(c, s.unwritten) {
			doubts = append(doubts, c...)
		}
	}
	return doubts
}

// unwritten reports whether the media files of a fresh record do not reach its
// end: a copy of which half is written must not pass for one that is as short as
// its twin.
func (s *Survey) unwritten(r Record) bool {
	reaches := func(o Span) bool { return !o.To.Add(s.opts.Least).Before(r.To) }
	return !s.opts.Fresh.IsZero() && r.To.After(s.opts.Fresh) && !slices.ContainsFunc(r.Channels, func(channel string) bool {
		h := s.tracks[track{channel, r.Copy}]
		return h != nil && (slices.ContainsFunc(h.stretches, reaches) || slices.ContainsFunc(h.gaps, reaches))
	})
}

// Settle judges, and forgets, all that is over before an instant. Records that
// begin before it must not come any more.
func (s *Survey) Settle(until time.Time) Verdict {
	v := Verdict{Findings: s.unattributed(Span{s.settled, until})}
	for _, c := range s.over(until) {
		j := s.judge(c)
		v.Findings, v.Pairs = append(v.Findings, j.findings...), append(v.Pairs, j.pairs...)
		s.count.Pairs, s.count.Whole = s.count.Pairs+j.linked, s.count.Whole+j.whole
		for _, r := range c {
			s.opts.Against.note(r, union(append(s.heard(call.CopyA, r), s.heard(call.CopyB, r)...)...))
		}
	}
	s.tally(v.Findings)
	slices.SortStableFunc(v.Findings, func(a, b Finding) int {
		return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.Session, b.Session), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Group, b.Group))
	})
	s.forget(until)
	s.settled = later(s.settled, until)
	return v
}

func (s *Survey) tally(findings []Finding) {
	for _, f := range findings {
		s.count.Findings[f.Kind]++
	}
}

// over are the clusters of records to which nothing that begins at an instant
// or later can belong.
func (s *Survey) over(until time.Time) [][]Record {
	var all [][]Record
	for _, records := range s.lanes {
		for _, c := range clusters(records, s.opts.Tolerance) {
			if end := endOf(c); end.Add(s.opts.Tolerance).Before(until) {
				all = append(all, c)
			}
		}
	}
	slices.SortFunc(all, func(a, b []Record) int {
		return cmp.Or(a[0].From.Compare(b[0].From), cmp.Compare(a[0].Session, b[0].Session), cmp.Compare(a[0].Source, b[0].Source))
	})
	return all
}

// clusters are records of a lane that may be of the same time, together.
func clusters(records []Record, tolerance time.Duration) [][]Record {
	records = slices.Clone(records)
	slices.SortFunc(records, func(a, b Record) int {
		return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.Copy, b.Copy), cmp.Compare(a.Leg, b.Leg))
	})
	var all [][]Record
	var end time.Time
	for _, r := range records {
		if n := len(all); n == 0 || r.From.After(end.Add(tolerance)) {
			all = append(all, []Record{r})
			end = r.To
			continue
		}
		all[len(all)-1] = append(all[len(all)-1], r)
		end = later(end, r.To)
	}
	return all
}

func endOf(c []Record) (end time.Time) {
	for _, r := range c {
		end = later(end, r.To)
	}
	return end
}

// forget drops what the judgement of later records does not need.
func (s *Survey) forget(until time.Time) {
	keep := until
	for l, records := range s.lanes {
		var left []Record
		for _, c := range clusters(records, s.opts.Tolerance) {
			if !endOf(c).Add(s.opts.Tolerance).Before(until) {
				left = append(left, c...)
				keep = earlier(keep, c[0].From)
			}
		}
		if s.lanes[l] = left; left == nil {
			delete(s.lanes, l)
		}
	}
	keep = keep.Add(-2 * (roll + s.opts.Tolerance))
	past := func(o Span) bool { return o.To.Before(keep) }
	for t, h := range s.tracks {
		h.stretches, h.gaps = slices.DeleteFunc(h.stretches, past), slices.DeleteFunc(h.gaps, past)
		if len(h.stretches)+len(h.gaps) == 0 {
			delete(s.tracks, t)
		}
	}
	for c := range s.known {
		if s.known[c] = slices.DeleteFunc(s.known[c], past); len(s.known[c]) == 0 {
			delete(s.known, c)
		}
	}
	for _, windows := range []map[call.Copy][]Span{s.blind, s.told} {
		for c := range windows {
			windows[c] = slices.DeleteFunc(windows[c], past)
		}
	}
}

// Summary says in one line what a count amounts to.
func (c Count) Summary() string {
	var kinds []string
	total := 0
	for _, k := range Kinds {
		if n := c.Findings[k]; n > 0 {
			kinds = append(kinds, fmt.Sprintf("%d %s", n, k))
			total += n
		}
	}
	text := fmt.Sprintf("%d records, %d in both groups, %d of these whole", c.Records, c.Pairs, c.Whole)
	if total == 0 {
		return text + ": nothing found"
	}
	return text + ": " + strings.Join(kinds, ", ")
}

// Total is the number of findings.
func (c Count) Total() (n int) {
	for _, of := range c.Findings {
		n += of
	}
	return n
}
