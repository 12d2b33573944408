package cti

import (
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestRoundTrip(t *testing.T) {
	in := Message{Type: TypeLegJoined, Seq: 7, T: time.Date(2026, 3, 1, 9, 0, 0, 123_000_000, time.UTC),
		Leg: &Leg{ID: "l1", Call: "c1", Session: "s1", Source: "HS.L"}, Channels: []string{"s1.m1.A"}}
	line, err := Append(nil, in)
	if err != nil {
		t.Fatal(err)
	}
	out, err := NewReader(strings.NewReader(string(line))).Read()
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(in, out) {
		t.Fatalf("got %+v, want %+v", out, in)
	}
}

func TestReaderGoesOnAfterABadLine(t *testing.T) {
	r := NewReader(strings.NewReader("not json\n\n{\"v\":1}\n{\"type\":\"hb\",\"later\":{}}\n"))
	for _, line := range []int{1, 3} {
		_, err := r.Read()
		var syntax *SyntaxError
		if !errors.As(err, &syntax) || syntax.Line != line {
			t.Fatalf("got %v, want a syntax error in line %d", err, line)
		}
	}
	if m, err := r.Read(); err != nil || m.Type != TypeHeartbeat {
		t.Fatalf("got %v %v, want the heartbeat", m, err)
	}
	if _, err := r.Read(); err != io.EOF {
		t.Fatalf("got %v, want EOF", err)
	}
}

func TestReaderRefusesLongLines(t *testing.T) {
	long := `{"type":"hb","x":"` + strings.Repeat("a", MaxLine) + "\"}\n"
	if _, err := NewReader(strings.NewReader(long)).Read(); !errors.Is(err, ErrTooLong) {
		t.Fatalf("got %v, want ErrTooLong", err)
	}
	fits := `{"type":"hb","x":"` + strings.Repeat("a", MaxLine-22) + "\"}\n"
	if _, err := NewReader(strings.NewReader(fits)).Read(); err != nil {
		t.Fatalf("a line of %d bytes: %v", len(fits), err)
	}
}

func TestReaderCutLine(t *testing.T) {
	if _, err := NewReader(strings.NewReader(`{"type":"hb"`)).Read(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("got %v, want an unexpected EOF", err)
	}
}

// FuzzReader holds that every newline is accounted for: a message, a syntax
// error, a blank, or the end of the link.
func FuzzReader(f *testing.F) {
	f.Add("{\"type\":\"hb\"}\n")
	f.Add("x\n\n{}\n{\"type\":1}\n")
	f.Fuzz(func(t *testing.T, in string) {
		r := NewReader(strings.NewReader(in))
		for seen := 0; ; seen++ {
			if seen > strings.Count(in, "\n") {
				t.Fatalf("%d results from %d lines", seen, strings.Count(in, "\n"))
			}
			m, err := r.Read()
			var syntax *SyntaxError
			switch {
			case err == nil:
				if m.Type == "" {
					t.Fatal("a message without a type")
				}
				if _, err := Append(nil, m); err != nil && !errors.Is(err, ErrTooLong) {
					t.Logf("not encodable: %v", err) // a time outside RFC 3339
				}
			case !errors.As(err, &syntax):
				return
			}
		}
	})
}
