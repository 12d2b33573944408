package reconcile

import (
	"encoding/csv"
	"strings"
	"testing"
	"time"

	"tandem/internal/call"
)

func TestParseCDR(t *testing.T) {
	zone := time.FixedZone("CET", 3600)
	for _, c := range []struct {
		name, text string
		want       Entry
	}{
		{"by id", "call_id,start,end\nc7,2026-03-02T12:00:00Z,2026-03-02T12:01:00Z\n", Entry{Line: 2, Call: "c7", Span: between(0, 60)}},
		{"by agent, local time, duration", "Agent;Number;Start time;Duration;Cost\nann;100;2026-03-02 13:00:00;60;7\n", Entry{Line: 2, Agent: "ann", Party: "100", Span: between(0, 60)}},
		{"byte order mark, blanks, quotes", "\ufeffstart, user ,end\n\n2026-03-02 13:00:00,\"Lee, Ann\", 2026-03-02 13:00:30.5 \n", Entry{Line: 3, Agent: "Lee, Ann", Span: between(0, 30.5)}},
		{"clock duration", "id,begin,duration\nc7,2026-03-02 13:00:00,0:01:30\n", Entry{Line: 2, Call: "c7", Span: between(0, 90)}},
		{"no end, but a duration", "id,begin,end,duration\nc7,2026-03-02 13:00:00,,1m30s\n", Entry{Line: 2, Call: "c7", Span: between(0, 90)}},
	} {
		got, err := ParseCDR(strings.NewReader(c.text), "x.csv", zone)
		if err != nil || len(got) != 1 || got[0].Line != c.want.Line || got[0].Call != c.want.Call || got[0].Agent != c.want.Agent || got[0].Party != c.want.Party ||
			!got[0].From.Equal(c.want.From) || !got[0].To.Equal(c.want.To) {
			t.Errorf("%s: %+v, %v, want %+v", c.name, got, err, c.want)
		}
	}
}

func TestParseCDRErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                            "x.csv:1: empty",
		"call_id,end\n":               `x.csv:1: no column "start"`,
		"call_id,start\n":             `x.csv:1: neither a column "end" nor "duration"`,
		"start,end\n":                 `x.csv:1: neither a column "call_id" nor "agent"`,
		"call_id,start,end,id\n":      `x.csv:1: column 4 "id": column 1 says that already`,
		"call_id,start,end\nc7,noon,": `x.csv:2: column 2 "start": "noon": want "2006-01-02 15:04:05" or RFC 3339`,
		"call_id,start,end\nc7,2026-03-02 12:00:00,2026-03-02 11:00:00\n": `x.csv:2: column 3 "end": "2026-03-02 11:00:00": want an instant after the start`,
		"call_id,start,end\nc7,2026-03-02 12:00:00,\n":                    `x.csv:2: column 3 "end": "": want an end, or a duration in seconds`,
		"call_id,start,duration\nc7,2026-03-02 12:00:00,-5\n":             `x.csv:2: column 3 "duration": "-5": want an end, or a duration in seconds`,
		"call_id,start,end\n,2026-03-02 12:00:00,\n":                      `x.csv:2: column 1 "call_id": "": want a call or an agent`,
		"call_id,start,end\nc7,2026-03-02 12:00:00\n":                     "x.csv:2: column 2 is the last, and the first row names 3",
		"call_id,start,end\n\"c7,2026\n":                                  `x.csv:2: byte 10: extraneous or missing`,
	} {
		if got, err := ParseCDR(strings.NewReader(text), "x.csv", time.UTC); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, %v, want %s", text, got, err, want)
		}
	}
}

// Every row is an entry or the error names where it stands.
func FuzzParseCDR(f *testing.F) {
	f.Add("call_id,start,end\nc7,2026-03-02T12:00:00Z,2026-03-02T12:01:00Z\n")
	f.Add("agent;start;duration\nann;2026-03-02 13:00:00;60\nbob;2026-03-02 13:00:00;0:01\n")
	f.Add("\ufeffcall,from,to,x\n\"a\n\",2026-03-02 13:00:00,,\n")
	f.Fuzz(func(t *testing.T, text string) {
		entries, err := ParseCDR(strings.NewReader(text), "x.csv", time.UTC)
		if err != nil {
			if entries != nil || !strings.HasPrefix(err.Error(), "x.csv:") {
				t.Fatalf("%d entries and %v", len(entries), err)
			}
			return
		}
		table := csv.NewReader(strings.NewReader(strings.TrimPrefix(text, "\ufeff")))
		if head, _, _ := strings.Cut(text, "\n"); strings.Contains(head, ";") && !strings.Contains(head, ",") {
			table.Comma = ';'
		}
		rows, err := table.ReadAll()
		if err != nil || len(entries) != len(rows)-1 {
			t.Fatalf("%d entries of %d rows, %v", len(entries), len(rows), err)
		}
		last := 1
		for _, e := range entries {
			if e.To.Before(e.From) || e.Call == "" && e.Agent == "" || e.Line <= last {
				t.Fatalf("%+v after line %d", e, last)
			}
			last = e.Line
		}
	})
}

func TestLedger(t *testing.T) {
	ann := leg(call.CopyA, "x", between(0, 60))
	ann.User, ann.UserName, ann.Device, ann.Party, ann.PartyName = "ann", "Ann Lee", "t2", "100", "Barclays"
	twin := ann
	twin.Copy, twin.Call = call.CopyB, "twin"
	for _, c := range []struct {
		name  string
		entry Entry
		media []Media
		want  string
	}{
		{"by id", Entry{Call: "c-x", Span: between(0, 60)}, nil, ""},
		{"by its id in the other group", Entry{Call: "twin", Span: between(0, 60)}, nil, ""},
		{"unknown id", Entry{Call: "c-z", Span: between(0, 60)}, nil, "missing   1m0s"},
		{"unknown id, known agent", Entry{Call: "c-z", Agent: "ANN", Span: between(1, 59)}, nil, ""},
		{"by name and party", Entry{Agent: "ann lee", Party: "barclays", Span: between(0, 60)}, nil, ""},
		{"by turret", Entry{Agent: "T2", Span: between(0, 60)}, nil, ""},
		{"another party", Entry{Agent: "ann", Party: "101", Span: between(0, 60)}, nil, "missing   1m0s"},
		{"another time", Entry{Agent: "ann", Span: between(70, 80)}, nil, "missing   10s"},
		{"longer than recorded", Entry{Call: "c-x", Span: between(0, 90)}, nil, "shorter   30s"},
		{"longer by what clocks may differ", Entry{Call: "c-x", Span: between(-1, 61)}, nil, ""},
		{"a gap in both", Entry{Call: "c-x", Span: between(0, 60)}, []Media{audio(call.CopyA, between(0, 60), between(10, 20)), audio(call.CopyB, between(0, 60), between(15, 25))}, "shorter   5s"},
	} {
		during := between(-100, 100)
		l := NewLedger("x.csv", []Entry{c.entry, {Call: "c-out", Span: between(90, 110)}}, during, usual.Tolerance)
		if in, out := l.Entries(); in != 1 || out != 1 {
			t.Errorf("%s: %d entries, %d outside", c.name, in, out)
		}
		opts := usual
		opts.Against = l
		s := NewSurvey(during, opts)
		s.Add(ann)
		s.Add(twin)
		if c.media == nil {
			c.media = []Media{audio(call.CopyA, between(0, 60)), audio(call.CopyB, between(0, 60))}
		}
		for _, m := range c.media {
			s.AddMedia(m)
		}
		s.Settle(sec(200))
		if got := text(l.Findings()); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
