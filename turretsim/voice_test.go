package turretsim

import (
	"bytes"
	"encoding/binary"
	"math"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"tandem/internal/config"
	"tandem/internal/cti"
	"tandem/internal/media"
	"tandem/turretsim/truth"
)

// busyFloor has one turret with many short calls on its handsets.
func busyFloor(c *Config) {
	c.Floor.Turrets, c.Floor.Mixes = 1, 1
	c.Floor.CallsPerMinute, c.Floor.CallLength = 600, config.Duration(time.Second)
}

// With VAD packets stop in silence: numbers go on, timestamps jump, and the
// first packet of a spurt is marked.
func TestVAD(t *testing.T) {
	a := attach(t, func(c *Config) {
		busyFloor(c)
		c.RTP.VAD, c.Floor.CallsPerMinute, c.Floor.CallLength = true, 240, config.Duration(100*time.Millisecond)
	})
	jumps := func() (n int) {
		packets := a.e.all()
		for i := 1; i < len(packets); i++ {
			p, q := packets[i-1], packets[i]
			if q.SequenceNumber != p.SequenceNumber+1 {
				t.Fatalf("%+v after %+v", q.Header, p.Header)
			}
			jumped := q.Timestamp != p.Timestamp+160
			if jumped != q.Marker {
				t.Fatalf("%+v after %+v", q.Header, p.Header)
			}
			if jumped {
				n++
			}
		}
		return n
	}
	eventually(t, "a second spurt", func() bool { return jumps() >= 1 })
	if v := a.end(t); v.SentMS == 0 || v.RecordedMS != v.SentMS {
		t.Errorf("%+v", v)
	}
}

// A leg plays its file from the beginning, within a packet of its start; the
// recording holds the file sample for sample.
func TestVoiceFromFile(t *testing.T) {
	clip := make([]int16, 2000)
	for i := range clip {
		clip[i] = int16(6000*math.Sin(2*math.Pi*500*float64(i)/8000)) + int16(i)
	}
	header := media.WAVHeader(media.WAVFormat{SampleRate: 8000}, int64(len(clip)))
	content := header[:]
	coded := make([]byte, len(clip))
	for i, v := range clip {
		content = binary.LittleEndian.AppendUint16(content, uint16(v))
		coded[i] = media.LinearToMuLaw(v)
	}
	path := filepath.Join(t.TempDir(), "speech.wav")
	writeFile(t, path, string(content))

	cfg := testConfig(t)
	busyFloor(&cfg)
	cfg.Floor.CallsPerMinute, cfg.Floor.CallLength = 120, config.Duration(100*time.Millisecond)
	cfg.RTP.Voice = []string{path}
	s, stop := startSwitch(t, cfg)
	calls := func(name string) {
		if err := s.Inject(name, Shot{}); err != nil {
			t.Fatal(err)
		}
	}
	calls("stop_calls") // until somebody listens
	link := login(t, s, "A")
	channel := link.channels(t, 1)[0]
	director, e := newSIPClient(t, "udp"), newEar(t)
	d, _ := director.call(t, channel, offerOf(e.addr(), muxLine))
	e.wait(t, 5)
	calls("start_calls")
	joined := link.until(t, cti.TypeLegJoined)
	left := link.until(t, cti.TypeLegLeft)
	e.wait(t, e.count()+5)
	d.bye(t)
	settles(t, "media after BYE", e.count)
	list := e.stretches(t)
	stop()
	if len(list) != 1 {
		t.Fatalf("%d stretches, want silence sent like speech", len(list))
	}
	begin := joined[len(joined)-1]
	offset := int(begin.T.Sub(list[0].From) / sampleTime)
	at := bytes.Index(list[0].Samples, coded[:200])
	if late := at - offset; at < 0 || late < 0 || late > 2*packetSamples+slow {
		t.Fatalf("the file begins at sample %d, the leg at %d", at, offset)
	}
	heard := list[0].Samples[at:]
	n := min(len(coded), len(heard), int(left[len(left)-1].T.Sub(begin.T)/sampleTime))
	if alone(joined, left) && !bytes.Equal(heard[:n], coded[:n]) {
		t.Error("the file does not sound as it is")
	}
	account, err := truth.Load(cfg.TruthLog)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := account.NewJudge().Channel(channel.ID, list, nil); err != nil || v.SentMS == 0 || v.RecordedMS != v.SentMS {
		t.Errorf("%+v %v", v, err)
	}
	over := left[len(left)-1].Leg.ID
	legs := account.Legs()
	part := legs[slices.IndexFunc(legs, func(l truth.Leg) bool { return l.ID == over })].Parts[0]
	first := int((account.Wall(part.From).Sub(list[0].From)) / sampleTime)
	length := int(part.To - part.From)
	if check, err := account.CheckLeg(over, media.PCMU, list[0].Samples[first:first+length]); err != nil || !check.OK() {
		t.Errorf("%v %v", check, err)
	}
}

// slow is how many samples later a voice may begin when the machine is busy
// with other tests: the switch takes back no packet that has been sent.
const slow = rate / 5

// alone says that no other leg began before the first one left.
func alone(joined, left []cti.Message) bool {
	n := 0
	for _, m := range append(joined, left...) {
		if m.Type == cti.TypeLegJoined || m.Type == cti.TypeLegMoved {
			n++
		}
	}
	return n == 1
}
