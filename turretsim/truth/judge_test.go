package truth

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tandem/internal/media"
	"tandem/internal/tone"
	"tandem/turretsim/voice"
)

var origin = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

const (
	packetTime = 20 * time.Millisecond
	ms         = time.Millisecond
)

// scene is a truth log in the making and the perfect recording of it.
type scene struct {
	t   testing.TB
	log *Log
	dir string
}

func newScene(t testing.TB) *scene {
	s := &scene{t: t, dir: t.TempDir()}
	var err error
	if s.log, err = Create(s.path()); err != nil {
		t.Fatal(err)
	}
	s.log.Add(Line{Type: TypeStart, Origin: origin, Rate: 8000, Voice: VoiceTones})
	return s
}

func (s *scene) path() string { return filepath.Join(s.dir, "truth.jsonl") }

var sources = []string{"HS.L", "HS.R", "SPK.1", "SPK.2"}

// sends lets a channel send n packets from a sample on, in ranges of a second.
func (s *scene) sends(channel, device string, from int64, n int) {
	s.log.Add(Line{Type: TypeChannel, Channel: channel, Device: device, Sources: sources})
	for n > 0 {
		packets := min(n, 50)
		s.log.AddPackets(&Range{Channel: channel, Dialog: "d", To: "127.0.0.1:9", Codec: "PCMA", SSRC: 1, Sample: from, Packets: packets, At: wallOf(from)})
		from += int64(packets) * PacketSamples
		n -= packets
	}
}

func wallOf(sample int64) time.Time { return origin.Add(time.Duration(sample) * sampleTime) }

func (s *scene) account() *Account {
	s.t.Helper()
	s.log.Flush()
	a, err := Load(s.path())
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// spokenBy is a device's voice from a sample on, as all its sources mix.
func spokenBy(t testing.TB, device string, from int64, packets int) []byte {
	var mix voice.Mix
	for _, name := range sources {
		source, err := tone.NewSource(device, name)
		if err != nil {
			t.Fatal(err)
		}
		mix.Steady = append(mix.Steady, source)
	}
	b := make([]byte, packets*PacketSamples)
	mix.Fill(b, media.PCMA, from)
	return b
}

func cut(b []byte, packet, n int) []byte {
	return slices.Delete(slices.Clone(b), packet*PacketSamples, (packet+n)*PacketSamples)
}

func silence(b []byte, packet, n int) []byte {
	return quiet(b, packet*PacketSamples, (packet+n)*PacketSamples)
}

// quiet is silence for samples.
func quiet(b []byte, from, to int) []byte {
	b = slices.Clone(b)
	for i := range b[from:to] {
		b[from+i] = media.ALawSilence
	}
	return b
}

// The judge finds every planted fault, to the packet.
func TestPlantedFaults(t *testing.T) {
	const first, packets = 12345, 500 // ten seconds, beginning within a tenth
	s := newScene(t)
	s.sends("c1", "t1", first, packets)
	account := s.account()
	perfect := spokenBy(t, "t1", first, packets)
	start := wallOf(first)
	at := func(packet int) time.Time { return start.Add(time.Duration(packet) * packetTime) }
	one := func(b []byte) []Stretch { return []Stretch{{From: start, Codec: media.PCMA, Samples: b}} }
	zero := 0 // a packet that begins as its tones cross zero: it looks like more silence
	for zero < packets && perfect[zero*160] != media.ALawSilence {
		zero++
	}
	swapped := slices.Concat(perfect[:100*160], perfect[101*160:102*160], perfect[100*160:101*160], perfect[102*160:])
	doubled := slices.Concat(perfect[:105*160], perfect[100*160:])

	for _, c := range []struct {
		name      string
		stretches []Stretch
		gaps      []Gap
		tolerance time.Duration
		want      Verdict // but skew and findings
	}{
		{"perfect", one(perfect), nil, 0, Verdict{RecordedMS: 10000}},
		{"nothing", nil, nil, 0, Verdict{UnexplainedMS: 10000}},
		{"nothing, and said so", nil, []Gap{{at(0), at(500), "outage"}}, 0, Verdict{GapMS: 10000}},
		{"clock 700 ms off", []Stretch{{start.Add(700 * ms), media.PCMA, perfect}}, nil, time.Second, Verdict{RecordedMS: 10000}},
		{"clock 20 minutes off", []Stretch{{start.Add(20 * time.Minute), media.PCMA, perfect}}, nil, time.Hour, Verdict{RecordedMS: 10000}},
		{"a packet closed up", one(cut(perfect, 200, 1)), nil, 0, Verdict{RecordedMS: 9980, UnexplainedMS: 20}},
		{"a packet silent", one(silence(perfect, 200, 1)), nil, 0, Verdict{RecordedMS: 9980, UnexplainedMS: 20}},
		{"a packet silent, and said so", one(silence(perfect, 200, 1)), []Gap{{at(200), at(201), "loss"}}, 0, Verdict{RecordedMS: 9980, GapMS: 20}},
		{"a hole of which half is said", one(silence(perfect, 200, 10)), []Gap{{at(200), at(205).Add(-2 * ms), "loss"}}, 0, Verdict{RecordedMS: 9800, GapMS: 100, UnexplainedMS: 100}},
		{"the end of a packet silent, and said so", one(quiet(perfect, 200*160+40, 201*160)), []Gap{{at(200).Add(5 * ms), at(201), "loss"}}, 0, Verdict{RecordedMS: 9985, GapMS: 15}},
		{"the end of one that begins with a silent sample", one(quiet(perfect, zero*160+80, zero*160+160)), []Gap{{at(zero).Add(10 * ms), at(zero + 1), "loss"}}, 0, Verdict{RecordedMS: 9990, GapMS: 10}},
		{"the middle of one", one(quiet(perfect, 200*160+8, 200*160+88)), []Gap{{at(200).Add(ms), at(200).Add(11 * ms), "loss"}}, 0, Verdict{RecordedMS: 9990, GapMS: 10}},
		{"from one to the next", one(quiet(perfect, 200*160+120, 201*160+40)), nil, 0, Verdict{RecordedMS: 9990, UnexplainedMS: 10}},
		{"a gap elsewhere", one(silence(perfect, 200, 1)), []Gap{{at(210), at(211), "loss"}}, 0, Verdict{RecordedMS: 9980, UnexplainedMS: 20}},
		{"a hole between stretches, by the recorder's clock",
			[]Stretch{{start.Add(300 * ms), media.PCMA, perfect[:100*160]}, {at(120).Add(300 * ms), media.PCMA, perfect[120*160:]}},
			[]Gap{{at(100).Add(300 * ms), at(120).Add(300 * ms), "interrupted"}}, time.Second, Verdict{RecordedMS: 9600, GapMS: 400}},
		{"two packets swapped", one(swapped), nil, 0, Verdict{RecordedMS: 9980, UnexplainedMS: 20, MisplacedMS: 20}},
		{"100 ms doubled", one(doubled), nil, 0, Verdict{RecordedMS: 10000, DuplicatedMS: 100}},
		{"a stretch twice", append(one(perfect), one(perfect)...), nil, 0, Verdict{RecordedMS: 10000, DuplicatedMS: 10000}},
		{"overlapping stretches", []Stretch{{start, media.PCMA, perfect[:300*160]}, {at(250), media.PCMA, perfect[250*160:]}}, nil, 0, Verdict{RecordedMS: 10000, DuplicatedMS: 1000}},
		{"one packet late", []Stretch{{start.Add(packetTime), media.PCMA, perfect}}, nil, 10 * ms, Verdict{UnexplainedMS: 10000, MisplacedMS: 10000}},
		{"another channel", one(spokenBy(t, "t2", first, packets)), nil, 0, Verdict{UnexplainedMS: 10000, ForeignMS: 10000}},
		{"another channel for a second", one(slices.Concat(perfect[:200*160], spokenBy(t, "t2", first+200*160, 50), perfect[250*160:])), nil, 0,
			Verdict{RecordedMS: 9000, UnexplainedMS: 1000, ForeignMS: 1000}},
		{"cut between packets of files", []Stretch{{start, media.PCMA, perfect[:777]}, {start.Add(777 * sampleTime), media.PCMA, perfect[777:]}}, nil, 0, Verdict{RecordedMS: 10000}},
		{"silence before and after", []Stretch{{start.Add(-time.Second), media.PCMA,
			slices.Concat(bytes.Repeat([]byte{media.ALawSilence}, 8000), perfect, bytes.Repeat([]byte{media.ALawSilence}, 8000))}}, nil, 0, Verdict{RecordedMS: 10000}},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := account.NewJudge()
			if c.tolerance != 0 {
				j.Tolerance = c.tolerance
			}
			got, err := j.Channel("c1", c.stretches, c.gaps)
			if err != nil {
				t.Fatal(err)
			}
			clean := c.want.UnexplainedMS+c.want.DuplicatedMS+c.want.ForeignMS == 0
			if clean != (len(got.Findings) == 0) {
				t.Errorf("findings %q", got.Findings)
			}
			c.want.SentMS = 10000
			got.MaxSkewMS, got.Findings, got.GapsMS = 0, nil, nil
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestSkewIsMeasured(t *testing.T) {
	s := newScene(t)
	s.sends("c1", "t1", 0, 100)
	v, err := s.account().NewJudge().Channel("c1", []Stretch{{wallOf(0).Add(packetTime), media.PCMA, spokenBy(t, "t1", 0, 100)}}, nil)
	if err != nil || v.MaxSkewMS != 20 || v.RecordedMS != 2000 {
		t.Errorf("got %+v %v, want all recorded with a skew of 20 ms", v, err)
	}
}

// The one packet before the switch fell silent, or went away: speech began
// inside it, and the recording goes on with silence where the voice did not.
func TestOnePacketThatSpeechBeganIn(t *testing.T) {
	const first = 108_920
	for _, began := range []int64{first + 18, first + 136, first + 152} {
		testSpeechBegan(t, first, began)
	}
}

func testSpeechBegan(t *testing.T, first, began int64) {
	s := newScene(t)
	s.log.Add(Line{Type: TypeStart, Origin: origin, Rate: 8000, Voice: VoiceSpurts})
	s.log.Add(Line{Type: TypeUtterance, Device: "T1", Source: "HS.L", Sample: began})
	s.sends("c", "T1", first, 1)
	a := s.account()
	speaker := voice.Mix{Speakers: a.channels["c"].mix.Speakers}
	said := make([]byte, PacketSamples)
	speaker.Fill(said, media.PCMA, first)
	if quietAhead(said, media.PCMA) < began-first {
		t.Fatal("speech begins with the packet")
	}
	said = append(said, bytes.Repeat([]byte{media.PCMA.Silence()}, 2*PacketSamples)...)
	const offset = 3 // samples that the recorder's clock is off
	v, err := a.NewJudge().Channel("c", []Stretch{{wallOf(first + offset), media.PCMA, said}}, nil)
	if err != nil || v.RecordedMS != 20 || v.UnexplainedMS != 0 || v.ForeignMS != 0 {
		t.Errorf("speech %d samples into the packet: %+v, %v", began-first, v, err)
	}
}

// A word of three milliseconds is found by the silence around it.
func TestShortestWord(t *testing.T) {
	const first, began = 29_992, 30_088
	s := newScene(t)
	s.log.Add(Line{Type: TypeStart, Origin: origin, Rate: 8000, Voice: VoiceSpurts})
	s.log.Add(Line{Type: TypeUtterance, Device: "T1", Source: "SPK.1", Sample: began})
	s.log.Add(Line{Type: TypeHush, Device: "T1", Source: "SPK.1", Sample: began + 24})
	s.sends("c", "T1", first, 2)
	a := s.account()
	speaker := voice.Mix{Speakers: a.channels["c"].mix.Speakers}
	said := make([]byte, 2*PacketSamples)
	speaker.Fill(said, media.PCMA, first)
	v, err := a.NewJudge().Channel("c", []Stretch{{wallOf(first + 3), media.PCMA, said}}, nil)
	if err != nil || v.RecordedMS != 40 || v.UnexplainedMS != 0 || v.ForeignMS != 0 {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestTotalCountsChannelsNobodyJudged(t *testing.T) {
	s := newScene(t)
	s.sends("c1", "t1", 0, 100)
	s.sends("c2", "t2", 0, 50)
	j := s.account().NewJudge()
	if _, err := j.Channel("c1", []Stretch{{wallOf(0), media.PCMA, spokenBy(t, "t1", 0, 100)}}, nil); err != nil {
		t.Fatal(err)
	}
	if v := j.Total(); v.SentMS != 3000 || v.RecordedMS != 2000 || v.UnexplainedMS != 1000 {
		t.Errorf("got %+v", v)
	}
	if _, err := j.Channel("c3", nil, nil); err == nil {
		t.Error("a channel nobody offered was judged")
	}
}

func TestBounds(t *testing.T) {
	s := newScene(t)
	s.sends("c1", "t1", 0, 500)
	j := s.account().NewJudge()
	j.From, j.To = wallOf(8000), wallOf(5*8000)
	v, err := j.Channel("c1", []Stretch{{wallOf(0), media.PCMA, spokenBy(t, "t1", 0, 300)}}, nil)
	if err != nil || v.SentMS != 4000 || v.RecordedMS != 4000 {
		t.Errorf("got %+v %v, want four seconds sent and recorded", v, err)
	}
}

// What is after a BYE is owed to nobody; a range of another clock is found all the same.
// An account says how late its switch was at worst, whichever copy is asked
// for, and audio may lie that much off its instant, and no more.
func TestLate(t *testing.T) {
	s := newScene(t)
	s.sends("c1", "t1", 0, 50)
	for n, late := range []time.Duration{0, 1700 * ms, 30 * ms} {
		from := int64(n+1) * 8000
		s.log.AddPackets(&Range{Channel: "c1", Dialog: "d", To: "127.0.0.1:9", Codec: "PCMA", SSRC: 1, Sample: from, Packets: 50, At: wallOf(from), Late: late})
	}
	account := s.account()
	for name, a := range map[string]*Account{"all": account, "a copy": account.Copy(""), "mixes": account.Mixes()} {
		if a.Late() != 1700*ms {
			t.Errorf("%s: %v late", name, a.Late())
		}
	}
	for off, misplaced := range map[time.Duration]int64{0: 0, 1700 * ms: 0, 1900 * ms: 4000, -1900 * ms: 4000} {
		v, err := account.NewJudge().Channel("c1", []Stretch{{origin.Add(off), media.PCMA, spokenBy(t, "t1", 0, 200)}}, nil)
		if err != nil || v.SentMS != 4000 || v.MisplacedMS != misplaced || v.UnexplainedMS != misplaced {
			t.Errorf("%v off: %+v, %v", off, v, err)
		}
	}
}

func TestStrayAndDrift(t *testing.T) {
	s := newScene(t)
	s.sends("c1", "t1", 0, 50)
	drifted := Range{Channel: "c1", Codec: "PCMA", Sample: 8000, Packets: 50, At: wallOf(8000).Add(3 * ms)}
	s.log.AddPackets(&drifted)
	s.log.AddPackets(&Range{Channel: "c1", Codec: "PCMA", Sample: 16000, Packets: 50, At: wallOf(16000), Stray: true})
	v, err := s.account().NewJudge().Channel("c1", []Stretch{
		{wallOf(0), media.PCMA, spokenBy(t, "t1", 0, 50)}, {wallOf(8000).Add(3 * ms), media.PCMA, spokenBy(t, "t1", 8000, 50)}}, nil)
	if err != nil || v.SentMS != 2000 || v.RecordedMS != 2000 || v.MaxSkewMS != 0 {
		t.Errorf("got %+v %v", v, err)
	}
}

// Whatever packets are lost, silenced, and whichever are owned up to: the sums agree.
func TestAccountsAlwaysBalance(t *testing.T) {
	s := newScene(t)
	s.sends("c1", "t1", 4321, 200)
	account, perfect := s.account(), spokenBy(t, "t1", 4321, 200)
	rapid.Check(t, func(t *rapid.T) {
		fates := rapid.SliceOfN(rapid.IntRange(0, 12), 200, 200).Draw(t, "fates")
		recording := slices.Clone(perfect)
		var gaps []Gap
		var missing, stated int64
		for i, fate := range fates {
			if fate > 1 {
				continue
			}
			recording = silence(recording, i, 1)
			missing += 20
			if fate == 0 {
				stated += 20
				gaps = append(gaps, Gap{wallOf(4321 + int64(i)*160), wallOf(4321 + int64(i+1)*160), "loss"})
			}
		}
		v, err := account.NewJudge().Channel("c1", []Stretch{{wallOf(4321), media.PCMA, recording}}, gaps)
		if err != nil || v.RecordedMS != 4000-missing || v.GapMS < stated || v.GapMS+v.UnexplainedMS != missing || v.DuplicatedMS+v.ForeignMS+v.MisplacedMS != 0 {
			t.Fatalf("%d ms missing, %d stated: %+v %v", missing, stated, v, err)
		}
		// A gap's slack reaches 2 ms into a neighbour that says nothing.
		if v.GapMS > stated+int64(len(gaps))*4 {
			t.Fatalf("%d ms in gaps of %d ms", v.GapMS, stated)
		}
	})
}

func TestCheckLeg(t *testing.T) {
	s := newScene(t)
	s.sends("m1", "t1", 0, 1000)
	from, to := int64(5000), int64(45000)
	s.log.Add(Line{Type: TypeLeg, Leg: "l1", Call: "c1", Device: "t1", Source: "HS.L", State: "joined", Sample: from, Media: []Media{{Channel: "m1"}}})
	if _, err := s.account().CheckLeg("l1", media.PCMA, nil); err == nil {
		t.Error("a leg that is not over was checked")
	}
	s.log.Add(Line{Type: TypeLeg, Leg: "l1", Call: "c1", Device: "t1", Source: "HS.L", State: "left", Sample: to})
	account := s.account()
	all := spokenBy(t, "t1", 0, 1000)
	exact := all[from:to]
	broken := slices.Concat(exact[:16000], bytes.Repeat([]byte{media.ALawSilence}, 160), exact[16160:])
	for _, c := range []struct {
		name   string
		export []byte
		ok     bool
	}{
		{"exact", exact, true},
		{"a packet early and late", all[from-160 : to+160], true},
		{"a packet short", all[from+160 : to-160], true},
		{"too early", all[from-161 : to], false},
		{"too short", all[from : to-161], false},
		{"a packet missing", slices.Concat(exact[:16000], exact[16160:]), false},
		{"a packet silent", broken, false},
	} {
		got, err := account.CheckLeg("l1", media.PCMA, c.export)
		if err != nil || got.OK() != c.ok {
			t.Errorf("%s: %v %v", c.name, got, err)
		}
	}
	got, _ := account.CheckLeg("l1", media.PCMA, broken)
	if len(got.Differences) != 1 || got.Differences[0] != (Difference{2 * time.Second, packetTime, true}) {
		t.Errorf("a silent packet after two seconds: %v", got)
	}
	if _, err := account.CheckLeg("l1", media.PCMA, spokenBy(t, "t2", from, 100)); err == nil {
		t.Error("another turret's voice was taken for the leg")
	}
}

// A leg that moved is heard on one channel, then on another.
func TestCheckLegThatMoved(t *testing.T) {
	s := newScene(t)
	s.sends("m1", "t1", 0, 1000)
	s.log.Add(Line{Type: TypeChannel, Channel: "m2", Device: "t1", Sources: []string{"SPK.5"}})
	for _, l := range []Line{{Source: "HS.L", State: "joined", Sample: 8000, Media: []Media{{Channel: "m1"}}},
		{Source: "SPK.5", State: "moved", Sample: 16000, Media: []Media{{Channel: "m2"}}}, {Source: "SPK.5", State: "left", Sample: 24000}} {
		l.Type, l.Leg, l.Device = TypeLeg, "l1", "t1"
		s.log.Add(l)
	}
	speaker, err := tone.NewSource("t1", "SPK.5")
	if err != nil {
		t.Fatal(err)
	}
	export := append(spokenBy(t, "t1", 8000, 50), make([]byte, 8000)...)
	speaker.Code(export[8000:], media.PCMA, 16000)
	if got, err := s.account().CheckLeg("l1", media.PCMA, export); err != nil || !got.OK() || got.Begins != 0 || got.Ends != 0 {
		t.Errorf("got %v %v", got, err)
	}
}

func TestLogCutOffIsReadAsFarAsItGoes(t *testing.T) {
	whole := "{\"type\":\"start\",\"origin\":\"2026-03-02T09:00:00Z\",\"voice\":\"tones\"}\n{\"type\":\"channel\",\"channel\":\"c1\",\"device\":\"t1\",\"sources\":[\"HS.L\"]}\n"
	a, err := Read(bytes.NewReader([]byte(whole + "{\"type\":\"packets\",\"cha")))
	if err != nil || !slices.Equal(a.Channels(), []string{"c1"}) {
		t.Errorf("got %v %v", a, err)
	}
	if _, err := Read(bytes.NewReader([]byte(whole + "nonsense\n"))); err == nil {
		t.Error("a line that is no JSON was taken")
	}
	if _, err := Read(bytes.NewReader(nil)); err == nil {
		t.Error("an empty log was taken")
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("{\"type\":\"start\",\"origin\":\"2026-03-02T09:00:00Z\",\"voice\":\"tones\"}\n{\"type\":\"channel\",\"channel\":\"c\",\"device\":\"t\",\"sources\":[\"HS.L\"]}\n{\"type\":\"packets\",\"channel\":\"c\",\"codec\":\"PCMU\",\"packets\":3}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := Read(bytes.NewReader(text))
		if err != nil {
			return
		}
		if v := a.NewJudge().Total(); v.SentMS < 0 || v.RecordedMS != 0 || v.UnexplainedMS != v.SentMS {
			t.Fatalf("nothing recorded: %+v", v)
		}
	})
}

// A demonstration's floor is judged within about two seconds.
func BenchmarkJudge(b *testing.B) {
	const channels, packets = 160, 45 * 50
	s := newScene(b)
	rng := rand.New(rand.NewPCG(1, 1))
	recordings := map[string][]byte{}
	for i := range channels {
		id, device, from := fmt.Sprintf("c%03d", i), fmt.Sprintf("t%d", i/4), rng.Int64N(160)
		s.sends(id, device, from, packets)
		recordings[id] = spokenBy(b, device, from, packets)
	}
	account := s.account()
	for b.Loop() {
		j := account.NewJudge()
		for id, recording := range recordings {
			if v, err := j.Channel(id, []Stretch{{account.channels[id].ranges[0].at, media.PCMA, recording}}, nil); err != nil || v.UnexplainedMS != 0 {
				b.Fatalf("%+v %v", v, err)
			}
		}
	}
}
