package monitor

import (
	"bytes"
	"errors"
	"maps"
	"net"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"
)

var key = []byte("the secret of the site")

func probe(sequence uint64) Probe {
	return Probe{Version: Version, Sender: "wd-b", Sequence: sequence, Nonce: "n"}
}

func signed(t testing.TB, p Probe) []byte {
	t.Helper()
	datagram, err := p.encode(key)
	if err != nil {
		t.Fatal(err)
	}
	return datagram
}

func full() Reply {
	return Reply{
		Director: "dir-a", Group: "primary", Role: "active", Epoch: 1 << 60, Basis: "quorum+consent", AuthorityMS: 640, Preferred: true, Eligible: true,
		CTI: "up", Peer: "passive", Loops: map[string]uint64{"floor": 1 << 50, "authority": 12}, Sessions: 40, Channels: 160, Recorders: 3,
	}
}

func TestReplyArrivesWhole(t *testing.T) {
	datagram, err := full().encode(key, "n")
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseReply(key, datagram, "n")
	if err != nil || !reflect.DeepEqual(got, full()) {
		t.Fatalf("got %+v, %v", got, err)
	}
	if _, err := parseReply(key, datagram, "another"); err == nil {
		t.Error("the answer to another question was taken")
	}
}

// What goes one way does not pass for what goes the other way.
func TestQuestionIsNoAnswer(t *testing.T) {
	if _, err := parseReply(key, signed(t, probe(1)), "n"); !errors.Is(err, errStranger) {
		t.Errorf("a probe sent back: %v", err)
	}
	datagram, err := full().encode(key, "n")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseProbe(key, datagram); !errors.Is(err, errStranger) {
		t.Errorf("a reply sent back: %v", err)
	}
}

// However much there is to say, an answer fits, says who is in charge, and
// cuts no character in two.
func TestReplyFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := full()
		name := rapid.StringMatching("[a-z]{1,64}")
		r.Director, r.Group, r.Peer = name.Draw(t, "director"), name.Draw(t, "group"), name.Draw(t, "peer")
		r.Why = rapid.StringN(0, 600, -1).Draw(t, "why")
		r.Loops = rapid.MapOfN(rapid.StringMatching("[a-z]{1,12}"), rapid.Uint64(), 0, 20).Draw(t, "loops")
		datagram, err := r.encode(key, strings.Repeat("n", 26))
		if err != nil || len(datagram) > MaxSize {
			t.Fatalf("%d bytes, %v", len(datagram), err)
		}
		got, err := parseReply(key, datagram, strings.Repeat("n", 26))
		if err != nil || got.Role != r.Role || got.Epoch != r.Epoch || !strings.HasPrefix(strings.ToValidUTF8(r.Why, "�"), got.Why) || !utf8.ValidString(got.Why) {
			t.Fatalf("said %+v, heard %+v, %v", r, got, err)
		}
		if len(got.Loops) > 0 && !maps.Equal(got.Loops, r.Loops) {
			t.Fatalf("loops %v, heard %v", r.Loops, got.Loops)
		}
	})
}

func TestReplyTooLongIsAnError(t *testing.T) {
	r := full()
	r.Director = strings.Repeat("d", MaxSize)
	if _, err := r.encode(key, "n"); !errors.Is(err, errOversize) {
		t.Errorf("got %v", err)
	}
}

func TestJudge(t *testing.T) {
	sign := func(body string) []byte { return sign(key, probeLabel, []byte(body)) }
	forged := signed(t, probe(9))
	forged[len(forged)-3] ^= 1
	for name, c := range map[string]struct {
		datagram []byte
		want     string
	}{
		"good":                {signed(t, probe(9)), ""},
		"empty":               {nil, malformed},
		"only a signature":    {sign("")[:32], malformed},
		"too long":            {sign(strings.Repeat(" ", MaxSize)), oversize},
		"one bit differs":     {forged, stranger},
		"another secret":      {func() []byte { d, _ := probe(9).encode([]byte("another secret here")); return d }(), stranger},
		"no JSON":             {sign("hello"), malformed},
		"more after it":       {sign(`{"v":1,"sender":"w","seq":1,"nonce":"n"} {}`), malformed},
		"another version":     {sign(`{"v":2,"sender":"w","seq":1,"nonce":"n"}`), malformed},
		"no sender":           {sign(`{"v":1,"seq":1,"nonce":"n"}`), malformed},
		"no sequence":         {sign(`{"v":1,"sender":"w","nonce":"n"}`), malformed},
		"sequence below zero": {sign(`{"v":1,"sender":"w","seq":-1,"nonce":"n"}`), malformed},
		"no nonce":            {sign(`{"v":1,"sender":"w","seq":1}`), malformed},
		"path out of range":   {sign(`{"v":1,"sender":"w","seq":1,"nonce":"n","path":16}`), malformed},
		"name too long":       {sign(`{"v":1,"sender":"` + strings.Repeat("w", maxName+1) + `","seq":1,"nonce":"n"}`), malformed},
	} {
		if _, got := (senders{}).judge(key, c.datagram); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestSequencesRiseOnEachPath(t *testing.T) {
	s := senders{}
	for i, step := range []struct {
		sender   string
		path     int
		sequence uint64
		want     string
	}{
		{"wd-a", 0, 5, ""},
		{"wd-a", 0, 5, replay},
		{"wd-a", 0, 4, replay},
		{"wd-a", 1, 5, ""},
		{"wd-b", 0, 1, ""},
		{"wd-a", 0, 6, ""},
		{"wd-b", 0, 1, replay},
	} {
		if got := s.admit(Probe{Sender: step.sender, Path: step.path, Sequence: step.sequence}); got != step.want {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
}

func TestSendersAreBounded(t *testing.T) {
	s := senders{}
	for i := range maxSenders {
		if got := s.admit(Probe{Sender: strings.Repeat("w", i+1), Sequence: 1}); got != "" {
			t.Fatalf("sender %d: %q", i, got)
		}
	}
	if got := s.admit(Probe{Sender: "one more", Sequence: 1}); got != crowded || len(s) != maxSenders {
		t.Errorf("%q, %d senders", got, len(s))
	}
	if got := s.admit(Probe{Sender: "w", Sequence: 2}); got != "" {
		t.Errorf("a known one: %q", got)
	}
}

// An input that is accepted says the same when it is written again; one that
// is not says nothing.
func FuzzParseProbe(f *testing.F) {
	f.Add([]byte(`{"v":1,"sender":"wd-b","path":1,"seq":9,"nonce":"n"}`))
	f.Add([]byte(`{"v":1,"sender":"wd-b","seq":18446744073709551615,"nonce":"n"}`))
	f.Add([]byte(`{"v":1,"v":2}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := parseProbe(key, body); err == nil {
			t.Fatal("taken without a signature")
		}
		p, err := parseProbe(key, sign(key, probeLabel, body))
		if err != nil {
			if p != (Probe{}) {
				t.Fatalf("refused, and yet %+v", p)
			}
			return
		}
		if !utf8.ValidString(p.Sender) || !utf8.ValidString(p.Nonce) {
			t.Fatalf("no text: %+v", p)
		}
		again, err := parseProbe(key, signed(t, p))
		if err != nil && !errors.Is(err, errOversize) || err == nil && again != p {
			t.Fatalf("%+v became %+v, %v", p, again, err)
		}
	})
}

// sink is a socket that keeps what is sent.
type sink struct {
	net.PacketConn
	sent [][]byte
}

func (s *sink) WriteTo(datagram []byte, _ net.Addr) (int, error) {
	s.sent = append(s.sent, bytes.Clone(datagram))
	return len(datagram), nil
}

// Whatever arrives, every datagram is counted once, answers are as many as
// are counted so, none is longer than allowed, and no sequence is answered twice.
func FuzzServer(f *testing.F) {
	f.Add([]byte{1, 2, 3}, true)
	f.Add([]byte{0, 5, 5, 5, 1, 130, 131, 130, 7, 255, 255}, true)
	f.Add([]byte{9, 8, 7}, false)
	f.Fuzz(func(t *testing.T, script []byte, alive bool) {
		conn, errPipe := net.ListenPacket("udp", "127.0.0.1:0")
		if errPipe != nil {
			t.Skip(errPipe)
		}
		defer conn.Close()
		out := &sink{PacketConn: conn}
		registry := prometheus.NewRegistry()
		s := &server{conn: out, key: key, answer: func() (Reply, bool) { return full(), alive }, metrics: NewMetrics(registry), senders: senders{}, waiting: make(chan question, maxWaiting)}
		highest := map[int]uint64{}
		wanted := 0
		for _, b := range script {
			p := probe(uint64(b & 0x3f))
			p.Path = int(b >> 7)
			datagram := signed(t, p)
			if broken := b&0x40 != 0; broken {
				datagram[int(b)%len(datagram)] ^= b | 1
			} else if p.Sequence > highest[p.Path] {
				highest[p.Path] = p.Sequence
				wanted++
			}
			s.take(datagram, conn.LocalAddr())
		}
		close(s.waiting)
		s.serve()
		counts := counted(t, registry)
		total := 0
		for _, n := range counts {
			total += n
		}
		if total != len(script) {
			t.Fatalf("%d datagrams, counted %v", len(script), counts)
		}
		if counts[answered] != len(out.sent) || !alive && len(out.sent) > 0 {
			t.Fatalf("%d answers, alive %v, counted %v", len(out.sent), alive, counts)
		}
		if counts[answered]+counts[unanswered]+counts[busy] != wanted {
			t.Fatalf("%d deserved an answer, counted %v", wanted, counts)
		}
		for _, datagram := range out.sent {
			if _, err := parseReply(key, datagram, "n"); err != nil || len(datagram) > MaxSize {
				t.Fatalf("answer of %d bytes: %v", len(datagram), err)
			}
		}
	})
}

// counted are the results so far.
func counted(t testing.TB, registry *prometheus.Registry) map[string]int {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			counts[metric.GetLabel()[0].GetValue()] += int(metric.GetCounter().GetValue())
		}
	}
	return counts
}
