package truth

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tandem/internal/call"
)

// What is known of two copies of a mix is, sample for sample, what was sent of
// any, and withheld where no copy reached the wire.
func TestMixesAreTheUnionOfTheirCopies(t *testing.T) {
	const packets = 20
	const longest = (packets + 1) * PacketSamples
	rapid.Check(t, func(t *rapid.T) {
		account := &Account{channels: map[string]*spoken{}, legs: map[string]*Leg{}, Origin: origin}
		var sentBy, arrived [longest]bool
		for _, copy := range []call.Copy{call.CopyA, call.CopyB} {
			c := &spoken{id: "s.m." + string(copy), mixID: "s.m", copy: copy}
			account.channels[c.id] = c
			phase := int64(rapid.IntRange(0, PacketSamples-1).Draw(t, "phase")) // the switch sends copies in slots of their own
			for n := range int64(packets) {
				s := span{phase + n*PacketSamples, phase + (n+1)*PacketSamples}
				fate := rapid.SampledFrom([]string{"sent", "sent", "withheld", "none"}).Draw(t, "fate")
				if fate == "none" {
					continue
				}
				c.ranges = append(c.ranges, sent{from: s.from, to: s.to, at: wallOf(s.from)})
				if fate == "withheld" {
					c.withheld = append(c.withheld, s)
				}
				for i := s.from; i < s.to; i++ {
					sentBy[i], arrived[i] = true, arrived[i] || fate == "sent"
				}
			}
		}
		mixes := account.Mixes()
		if !slices.Equal(mixes.Channels(), []string{"s.m"}) {
			t.Fatalf("%v", mixes.Channels())
		}
		mix := mixes.channels["s.m"]
		whole, withheld := mix.whole(), union(mix.withheld)
		n := int64(0)
		for _, r := range mix.ranges {
			n += r.to - r.from
			if !r.at.Equal(wallOf(r.from)) {
				t.Fatalf("samples from %d were sent at %v", r.from, r.at)
			}
		}
		if n != total(whole) {
			t.Fatal("ranges overlap")
		}
		for i := range int64(longest) {
			at := span{i, i + 1}
			if got := len(whole.within(at)) > 0; got != sentBy[i] {
				t.Fatalf("sample %d sent: %v", i, got)
			}
			if got := len(withheld.within(at)) > 0; got != (sentBy[i] && !arrived[i]) {
				t.Fatalf("sample %d withheld: %v", i, got)
			}
		}
		if a := account.Copy(call.CopyA); !slices.Equal(a.Channels(), []string{"s.m.A"}) || len(account.Channels()) != 2 {
			t.Fatalf("%v of %v", a.Channels(), account.Channels())
		}
	})
}

const logOfCopies = `{"type":"start","origin":"2026-03-02T09:00:00Z","rate":8000,"voice":"tones"}
{"type":"channel","channel":"s.m1.A","session":"s","device":"t1","mix":"m1","copy":"A","sources":["HS.L"]}
{"type":"channel","channel":"s.m1.B","session":"s","device":"t1","mix":"m1","copy":"B","sources":["HS.L"]}
{"type":"leg","state":"joined","leg":"l","call":"c","device":"t1","source":"HS.L","media":[{"channel":"s.m1.A"},{"channel":"s.m1.B"}]}
{"type":"packets","channel":"s.m1.A","dialog":"1","to":"10.0.0.1:9","codec":"PCMU","sample":0,"packets":50,"at":"2026-03-02T09:00:00Z"}
{"type":"packets","channel":"s.m1.B","dialog":"2","to":"10.0.0.2:9","codec":"PCMU","sample":80,"packets":50,"at":"2026-03-02T09:00:00.01Z"}
{"type":"withheld","channel":"s.m1.A","sample":160,"packets":1}
{"type":"withheld","channel":"s.m1.B","sample":240,"packets":1}
{"type":"packets","channel":"s.m1.B","dialog":"2","to":"10.0.0.3:9","codec":"PCMU","sample":8080,"packets":50,"at":"2026-03-02T09:00:01.01Z"}
{"type":"packets","channel":"s.m1.B","dialog":"3","to":"10.0.0.3:9","codec":"PCMU","sample":16080,"packets":50,"at":"2026-03-02T09:00:02.01Z"}
{"type":"packets","channel":"s.m1.B","dialog":"3","to":"10.0.0.9:9","codec":"PCMU","sample":24080,"packets":1,"at":"2026-03-02T09:00:03.01Z","stray":true}
{"type":"leg","state":"left","leg":"l","sample":900}
`

// A packet of one copy and half of two of the other are withheld, at different
// samples; only what neither brought to the wire is withheld of the mix.
func TestCopiesOfALog(t *testing.T) {
	account, err := Read(strings.NewReader(logOfCopies))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		account  *Account
		channel  string
		turns    int
		withheld int64
	}{
		"A":     {account.Copy(call.CopyA), "s.m1.A", 0, 20},
		"B":     {account.Copy(call.CopyB), "s.m1.B", 2, 20},
		"mixes": {account.Mixes(), "s.m1", 0, 10},
	} {
		legs := c.account.Legs()
		if len(legs) != 1 || !slices.Equal(legs[0].Parts[0].Channels, []string{c.channel}) {
			t.Errorf("%s: legs %+v", name, legs)
		}
		if got := c.account.Turns(origin, origin.Add(time.Minute)); got != c.turns {
			t.Errorf("%s: sent elsewhere %d times, want %d", name, got, c.turns)
		}
		if v := c.account.NewJudge().Total(); v.WithheldMS != c.withheld {
			t.Errorf("%s: %d ms withheld, want %d", name, v.WithheldMS, c.withheld)
		}
	}
	b := account.Copy(call.CopyB)
	if before, after := b.Turns(origin, wallOf(8080)), b.Turns(wallOf(8080), wallOf(16080)); before != 0 || after != 1 {
		t.Errorf("sent elsewhere %d times before it was moved, %d when", before, after)
	}
	if l := account.Legs(); len(l[0].Parts[0].Channels) != 2 {
		t.Errorf("the account itself was changed: %+v", l)
	}
}
