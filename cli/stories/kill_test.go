package stories

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/pion/rtp"

	"tandem/internal/media"
	"tandem/recorder/catalog"
	"tandem/recorder/journal"
)

// voice sends packets whose payload says which they are.
type voice struct {
	ids  []string
	to   []*net.UDPAddr
	conn *net.UDPConn
	seq  []uint16
	sent int
}

const samplesPerPacket = 160

func (v *voice) payload(channel int, seq uint16) []byte {
	text := make([]byte, samplesPerPacket)
	for i := 0; i+8 <= len(text); i += 8 {
		binary.BigEndian.PutUint64(text[i:], uint64(channel)<<48|uint64(seq)<<32|uint64(i)*0x9E3779B1)
	}
	return text
}

// round sends one packet of each channel.
func (v *voice) round(t testing.TB) {
	for i, to := range v.to {
		p := rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: v.seq[i], Timestamp: uint32(v.sent) * samplesPerPacket, SSRC: uint32(1000 + i)},
			Payload: v.payload(i, v.seq[i])}
		data, err := p.Marshal()
		if err != nil {
			t.Error(err)
			return
		}
		v.conn.WriteToUDP(data, to) // refused while the recorder is dead
		v.seq[i]++
	}
	v.sent++
}

// run sends at the pace of a line until ctx ends.
func (v *voice) run(ctx context.Context, t testing.TB) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for ctx.Err() == nil {
		v.round(t)
		<-ticker.C
	}
}

// A recorder killed at fifty random instants under load keeps every packet it
// had put in its journal, and explains the rest.
func TestKilledFiftyTimes(t *testing.T) {
	const channels, kills = 100, 50
	dir := t.TempDir()
	at := address(t)
	rec := configure(t, dir, "recorder", fmt.Sprintf(`
control = %q
metrics = ""
dir = %q
[media]
keep = "all"
[rtp]
port_min = 40000
port_max = 41998
[journal]
file_age = "1s"
[limits]
reserve = 0
`, at, filepath.Join(dir, "rec")))
	rec.start()
	d := newDesk(t, at)
	eventually(t, 10*time.Second, "the recorder answers", d.answers)
	v := &voice{seq: make([]uint16, channels)}
	for i := range channels {
		v.ids = append(v.ids, fmt.Sprintf("s%d.m1.A", i))
		v.seq[i] = uint16(65500 + i) // wraps soon
	}
	v.to = d.open(v.ids...)
	var err error
	if v.conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	defer v.conn.Close()
	ctx, hangUp := context.WithCancel(t.Context())
	silent := make(chan struct{})
	go func() { defer close(silent); v.run(ctx, t) }()

	random := rand.New(rand.NewPCG(1, 2))
	journalled := map[uint32]map[uint16]bool{} // by attachment: what was read back after a kill
	for range kills {
		time.Sleep(time.Duration(random.IntN(600)) * time.Millisecond) // the instant is the test
		rec.kill()
		readJournal(t, filepath.Join(dir, "rec", "journal"), journalled)
		rec.start()
	}
	eventually(t, 10*time.Second, "the recorder answers", d.answers)
	time.Sleep(200 * time.Millisecond) // a last unbroken stretch
	hangUp()
	<-silent
	d.close(v.ids...)
	eventually(t, 30*time.Second, "all segments are sealed", func() bool {
		for _, s := range d.segments() {
			if s.Open {
				return false
			}
		}
		files, err := journal.Files(filepath.Join(dir, "rec", "journal"))
		return err == nil && len(files) <= 1
	})
	site := filepath.Join(dir, "recctl.toml")
	if err := os.WriteFile(site, fmt.Appendf(nil, "directors = []\nrecorders = [%q]\n", at), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(programs(t), "recctl"), "--config", site, "verify", "--deep").CombinedOutput()
	if err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
	rec.stop()
	checkKept(t, filepath.Join(dir, "rec"), v, journalled)
}

func readJournal(t *testing.T, dir string, into map[uint32]map[uint16]bool) {
	t.Helper()
	files, err := journal.Files(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		r, err := journal.OpenFile(f.Path)
		if err != nil {
			t.Fatal(err)
		}
		for {
			b, err := r.Next()
			if err != nil {
				break // its end, or a block cut short by the kill
			}
			for p := range b.Packets {
				if into[p.Num] == nil {
					into[p.Num] = map[uint16]bool{}
				}
				into[p.Num][binary.BigEndian.Uint16(p.Data[2:])] = true
			}
		}
		r.Close()
	}
}

// checkKept holds the media files against what was sent: each packet is at its
// place or inside a gap, and none that was journalled is missing.
func checkKept(t *testing.T, dir string, v *voice, journalled map[uint32]map[uint16]bool) {
	t.Helper()
	cat, err := catalog.Open(t.Context(), filepath.Join(dir, "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer cat.Close()
	segments, err := cat.Segments(t.Context(), "", catalog.Window{})
	if err != nil {
		t.Fatal(err)
	}
	have := map[uint32]map[uint16]bool{}
	gaps := map[uint32]time.Duration{}
	for _, s := range segments {
		for _, g := range s.Gaps {
			gaps[s.Num] += g.To.Sub(g.From)
		}
		if s.File == "" {
			continue // nothing came; the row only says why
		}
		file, err := os.Open(filepath.Join(dir, "media", s.File))
		if err != nil {
			t.Fatal(err)
		}
		_, audio, err := media.ReadWAV(file)
		file.Close()
		if err != nil || int64(len(audio)) != s.Samples {
			t.Fatalf("%s: %d samples of %d, %v", s.File, len(audio), s.Samples, err)
		}
		if have[s.Num] == nil {
			have[s.Num] = map[uint16]bool{}
		}
		channel := int(s.SSRC) - 1000
		for at := int64(0); at+samplesPerPacket <= s.Samples; at += samplesPerPacket {
			seq := v.seq[channel] - uint16(v.sent) + uint16((s.FirstTS+at)/samplesPerPacket)
			if string(audio[at:at+samplesPerPacket]) == string(v.payload(channel, seq)) {
				if have[s.Num][seq] {
					t.Errorf("%s: packet %d is kept twice", s.Channel, seq)
				}
				have[s.Num][seq] = true
			}
		}
	}
	var kept, lost int
	for num, packets := range journalled {
		for seq := range packets {
			if !have[num][seq] {
				t.Errorf("attachment %d: packet %d was in the journal and is in no file", num, seq)
			}
		}
		missing := v.sent - len(have[num])
		kept, lost = kept+len(have[num]), lost+missing
		// What is missing must be what the gaps say, to a packet at each end.
		if stated := gaps[num].Milliseconds() / 20; stated < int64(missing)-2 || stated > int64(missing)+2 {
			t.Errorf("attachment %d: %d packets missing, gaps say %d", num, missing, stated)
		}
	}
	if len(journalled) != len(v.ids) {
		t.Errorf("%d attachments in the journal, %d channels", len(journalled), len(v.ids))
	}
	t.Logf("%d packets a channel sent, %.1f kept and %.1f in gaps on average", v.sent, float64(kept)/float64(len(v.ids)), float64(lost)/float64(len(v.ids)))
}
