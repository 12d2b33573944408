package voice

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tandem/internal/media"
	"tandem/internal/tone"
)

// wav writes a file of 16-bit PCM.
func wav(t *testing.T, rate int, samples []int16) string {
	t.Helper()
	header := media.WAVHeader(media.WAVFormat{SampleRate: rate}, int64(len(samples)))
	content := header[:]
	for _, s := range samples {
		content = binary.LittleEndian.AppendUint16(content, uint16(s))
	}
	path := filepath.Join(t.TempDir(), "voice.wav")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func sines(rate, n int, hz ...float64) []int16 {
	s := make([]int16, n)
	for i := range s {
		for _, f := range hz {
			s[i] += int16(8000 * math.Sin(2*math.Pi*f*float64(i)/float64(rate)))
		}
	}
	return s
}

func TestClipAt8kHzIsUntouched(t *testing.T) {
	want := sines(8000, 1000, 440)
	got, err := LoadClip(wav(t, 8000, want))
	if err != nil || len(got.Samples) != len(want) {
		t.Fatalf("%v", err)
	}
	for i := range want {
		if got.Samples[i] != want[i] {
			t.Fatalf("sample %d is %d, want %d", i, got.Samples[i], want[i])
		}
	}
}

// From 48 kHz what is below the edge stays as it was, and what is above 4 kHz
// is gone rather than folded back.
func TestClipIsDecimatedCleanly(t *testing.T) {
	for _, rate := range []int{16000, 24000, 48000} {
		factor := rate / 8000
		got, err := LoadClip(wav(t, rate, sines(rate, rate, 1000, 4700)))
		if err != nil || len(got.Samples) != 8000 {
			t.Fatalf("%d Hz: %d samples, %v", rate, len(got.Samples), err)
		}
		want := sines(8000, 8000, 1000)
		for i := 100; i < 7900; i++ {
			if d := int(got.Samples[i]) - int(want[i]); d > 40 || d < -40 { // 46 dB down
				t.Fatalf("%d Hz (by %d): sample %d is %d, want %d", rate, factor, i, got.Samples[i], want[i])
			}
		}
	}
}

func TestClipsThatCannotBeUsedAreNamed(t *testing.T) {
	odd := wav(t, 44100, make([]int16, 10))
	for _, path := range []string{odd, filepath.Join(t.TempDir(), "absent.wav"), "clip.go"} {
		if _, err := LoadClip(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want an error with its name", path, err)
		}
	}
	if _, err := LoadClip(odd); !strings.Contains(err.Error(), "44100") {
		t.Errorf("got %v, want the rate", err)
	}
}

func speaker(t testing.TB, name string) *Speaker {
	t.Helper()
	source, err := tone.NewSource("t1", name)
	if err != nil {
		t.Fatal(err)
	}
	return &Speaker{Source: source}
}

func TestSpeakerTakesTurns(t *testing.T) {
	s := speaker(t, "HS.L")
	if s.Speaks(0, 1000) {
		t.Error("spoke before it was told to")
	}
	s.Say(Utterance{From: 100, To: 200})
	s.Say(Utterance{From: 300, To: Forever})
	s.Hush(400)
	for _, c := range []struct {
		from, to int64
		want     bool
	}{{0, 100, false}, {0, 101, true}, {199, 300, true}, {200, 300, false}, {300, 301, true}, {399, 500, true}, {400, 1 << 40, false}} {
		if got := s.Speaks(c.from, c.to); got != c.want {
			t.Errorf("[%d, %d): %v", c.from, c.to, got)
		}
	}
	s.Hush(50)
	if s.Speaks(0, 1<<40) {
		t.Error("spoke after it was silenced")
	}
	s.Say(Utterance{From: 500, To: 600})
	s.Forget(550)
	if !s.Speaks(550, 560) {
		t.Error("forgot what is still said")
	}
	s.Forget(600)
	if len(s.utterances) != 0 {
		t.Error("remembers what was said")
	}
}

// A mix begins and ends a voice at the very sample, wherever packets are cut.
func TestMixIsSampleExact(t *testing.T) {
	clip := &Clip{Samples: sines(8000, 500, 700)}
	m := Mix{Speakers: []*Speaker{speaker(t, "HS.L"), speaker(t, "SPK.1")}}
	m.Speakers[0].Say(Utterance{From: 1000, To: 1500, Clip: clip})
	m.Speakers[1].Say(Utterance{From: 1300, To: 2000})
	want := make([]int32, 3000)
	for i, v := range clip.Samples {
		want[1000+i] += int32(v)
	}
	m.Speakers[1].Source.Add(want[1300:2000], 1300)
	for _, codec := range []media.Codec{media.PCMU, media.PCMA} {
		coded := make([]byte, len(want))
		tone.Compress(coded, codec, want)
		for _, size := range []int{160, 77, 3000} {
			for at := 0; at < len(want); at += size {
				got := make([]byte, min(size, len(want)-at))
				m.Fill(got, codec, int64(at))
				if string(got) != string(coded[at:at+len(got)]) {
					t.Fatalf("%s by %d: differs in the packet at %d", codec, size, at)
				}
			}
		}
	}
}

// Sources that never stop mix with those that do.
func TestSteadyAndSpeaking(t *testing.T) {
	steady, now := speaker(t, "HS.L"), speaker(t, "HS.R")
	now.Say(Utterance{From: 100, To: 200})
	m := Mix{Steady: []tone.Source{steady.Source}, Speakers: []*Speaker{now}}
	want := make([]int32, 300)
	steady.Source.Add(want, 0)
	now.Source.Add(want[100:200], 100)
	got, coded := make([]byte, 300), make([]byte, 300)
	m.Fill(got, media.PCMA, 0)
	tone.Compress(coded, media.PCMA, want)
	if string(got) != string(coded) {
		t.Error("the mix differs from its sum")
	}
	if !m.Speaks(500, 600) {
		t.Error("a steady source was silent")
	}
}

// A clip longer or shorter than its utterance ends with whichever ends first.
func TestClipAndUtteranceOfDifferentLength(t *testing.T) {
	for _, to := range []int64{20, 200} {
		m := Mix{Speakers: []*Speaker{speaker(t, "HS.L")}}
		m.Speakers[0].Say(Utterance{From: 0, To: to, Clip: &Clip{Samples: sines(8000, 100, 700)}})
		got := make([]byte, 300)
		m.Fill(got, media.PCMU, 0)
		for i := int(min(to, 100)); i < len(got); i++ {
			if got[i] != media.MuLawSilence {
				t.Fatalf("utterance to %d: sample %d sounds", to, i)
			}
		}
	}
}
