package pki

import (
	"net/url"
	"strings"
	"testing"
)

func TestParseIdentity(t *testing.T) {
	for text, want := range map[string]Identity{
		"tandem://ldn/director/dir-a":     {"ldn", Director, "dir-a"},
		"tandem://ldn.bank_1/viewer/a.B-": {"ldn.bank_1", Viewer, "a.B-"},
		"tandem://ldn/director":           {},
		"tandem://ldn/director/a/b":       {},
		"tandem://ldn/director/":          {},
		"tandem://ldn/director/..":        {},
		"tandem://ldn/king/dir-a":         {},
		"tandem:///director/dir-a":        {},
		"tandem://.ldn/director/dir-a":    {},
		"tandem://l..n/director/dir-a":    {},
		"tandem://ldn:1/director/dir-a":   {},
		"tandem://u@ldn/director/dir-a":   {},
		"tandem://ldn/director/dir%2Da":   {},
		"https://ldn/director/dir-a":      {},
		"":                                {},
	} {
		got, err := ParseIdentity(text)
		if got != want || (err == nil) != (want != Identity{}) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

// What is understood is exactly what would be written.
func FuzzParseIdentity(f *testing.F) {
	for _, seed := range []string{"tandem://ldn/director/dir-a", "tandem://ldn.1/operator/x", "tandem://a/b", "tandem://ldn/viewer/%2e%2e", "x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		i, err := ParseIdentity(text)
		if err != nil {
			if i != (Identity{}) {
				t.Errorf("%q: %+v with %v", text, i, err)
			}
			return
		}
		if i.URI().String() != text || strings.ContainsAny(i.Name+i.Site, "/\\ \n") || i.Name == ".." {
			t.Errorf("%q is taken for %q", text, i.URI())
		}
		if u, err := url.Parse(text); err != nil || *u != *i.URI() {
			t.Errorf("%q: %#v, want %#v, %v", text, u, i.URI(), err)
		}
	})
}
