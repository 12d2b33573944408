package drill

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"tandem/cli/scenario"
)

// Only a simulated switch is drilled.
func TestOpenRefuses(t *testing.T) {
	for _, c := range []struct{ name, answer, text string }{
		{"another switch", `{"server":"unigy-1"}`, `calls itself "unigy-1"`},
		{"no switch", `<html>`, "is no turretsim"},
		{"nobody's state", `{}`, "names no incarnation"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(c.answer)) }))
		f := &Floor{Switch: scenario.Simulator{Client: server.Client(), URL: server.URL}}
		if err := f.Open(t.Context()); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.name, err)
		}
		server.Close()
	}
}

// Only a recorder is killed.
func TestFindRefuses(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := find(ln.Addr().String()); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "not tandem-recorder") {
		t.Errorf("this test: %v", err)
	}
	ln.Close()
	if _, err := find(ln.Addr().String()); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "no process") {
		t.Errorf("nobody: %v", err)
	}
	if _, err := find("somewhere"); err == nil {
		t.Error("an address that is none")
	}
	if err := (&Floor{}).Act(t.Context(), scenario.CutMedia, "rec-1"); !errors.Is(err, ErrRefused) {
		t.Errorf("a cable: %v", err)
	}
}
