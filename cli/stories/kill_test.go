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
	"strings"
	"testing"
	"time"

	"github.com/pion/rtp"
	"golang.org/x/sys/unix"

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

// speakTo has a voice speak to so many new channels of the recorder until the
// returned function is called.
func speakTo(t *testing.T, d *desk, channels int) (v *voice, hangUp func()) {
	t.Helper()
	v = &voice{seq: make([]uint16, channels)}
	for i := range channels {
		v.ids = append(v.ids, fmt.Sprintf("s%d.m1.A", i))
		v.seq[i] = uint16(65500 + i) // wraps soon
	}
	v.to = d.open(v.ids...)
	var err error
	if v.conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	silent := make(chan struct{})
	go func() { defer close(silent); v.run(ctx, t) }()
	return v, func() { cancel(); <-silent; v.conn.Close() }
}

// recorderAlone is a recorder without a director, that keeps everything below dir.
func recorderAlone(t *testing.T, dir, more string) (*program, *desk, string) {
	t.Helper()
	at := address(t)
	rec := configure(t, t.TempDir(), "recorder", fmt.Sprintf(`
control = %q
metrics = ""
dir = %q
[media]
keep = "all"
[rtp]
port_min = 30000
port_max = 31998
%s`, at, dir, more))
	rec.start()
	d := newDesk(t, at)
	eventually(t, 10*time.Second, "the recorder answers", d.answers)
	return rec, d, at
}

// finish closes the channels, waits until all is in files, verifies them and
// stops the recorder.
func finish(t *testing.T, rec *program, d *desk, at, dir string, v *voice) {
	t.Helper()
	d.close(v.ids...)
	eventually(t, 30*time.Second, "all segments are sealed", func() bool {
		for _, s := range d.segments() {
			if s.Open {
				return false
			}
		}
		files, err := journal.Files(filepath.Join(dir, "journal"))
		return err == nil && len(files) <= 1
	})
	site := filepath.Join(t.TempDir(), "recctl.toml")
	if err := os.WriteFile(site, fmt.Appendf(nil, "directors = []\nrecorders = [%q]\n", at), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(programs(t), "recctl"), "--config", site, "verify", "--deep").CombinedOutput()
	if err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
	rec.stop()
}

// A recorder killed at fifty random instants under load keeps every packet it
// had put in its journal, and explains the rest.
func TestKilledFiftyTimes(t *testing.T) {
	const channels, kills = 100, 50
	dir := filepath.Join(t.TempDir(), "rec")
	rec, d, at := recorderAlone(t, dir, "[journal]\nfile_age = \"1s\"\n[limits]\nreserve = 0\n")
	v, hangUp := speakTo(t, d, channels)
	random := rand.New(rand.NewPCG(1, 2))
	journalled := map[uint32]map[uint16]bool{} // by attachment: what was read back after a kill
	for range kills {
		time.Sleep(time.Duration(random.IntN(600)) * time.Millisecond) // the instant is the test
		rec.kill()
		readJournal(t, filepath.Join(dir, "journal"), journalled)
		rec.start()
	}
	eventually(t, 10*time.Second, "the recorder answers", d.answers)
	time.Sleep(200 * time.Millisecond) // a last unbroken stretch
	hangUp()
	finish(t, rec, d, at, dir, v)
	checkKept(t, dir, v, journalled)
}

// A full disk first refuses new channels, then keeps what it has and waits;
// when space returns recording goes on by itself, and what was lost has a reason.
func TestDiskFull(t *testing.T) {
	dir := tmpfs(t, 64<<20)
	rec, d, at := recorderAlone(t, dir, fmt.Sprintf("[journal]\nfile_age = \"1s\"\nfile_size = %d\nqueue = %d\n[limits]\nreserve = %d\n", 2<<20, 1<<20, 16<<20))
	v, hangUp := speakTo(t, d, 50)
	eventually(t, 5*time.Second, "the recorder is ready", func() bool { ready, _ := d.ready(); return ready })

	ballast := filepath.Join(dir, "ballast")
	fill(t, ballast, free(t, dir)-12<<20)
	eventually(t, 5*time.Second, "the recorder is not ready for its disk", func() bool {
		ready, reason := d.ready()
		return !ready && strings.HasPrefix(reason, "disk")
	})
	if refused := d.refused("another.m1.A"); refused != "not_ready" {
		t.Errorf("a new channel below the reserve: refused %q, want not_ready", refused)
	}
	before := d.packets()
	eventually(t, 5*time.Second, "what was open goes on", func() bool { return d.packets() > before+500 })

	fill(t, ballast, free(t, dir))
	eventually(t, 20*time.Second, "the journal fails", func() bool {
		ready, reason := d.ready()
		return !ready && strings.HasPrefix(reason, "journal")
	})
	time.Sleep(3 * time.Second) // longer than its memory lasts
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "it is ready again by itself", func() bool { ready, _ := d.ready(); return ready })
	time.Sleep(time.Second) // a last unbroken stretch
	hangUp()
	finish(t, rec, d, at, dir, v)
	checkKept(t, dir, v, nil)
}

// tmpfs is a disk of so many bytes that goes with the test.
func tmpfs(t *testing.T, size int) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount a small disk")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func free(t *testing.T, dir string) int64 {
	t.Helper()
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	return int64(s.Bavail) * s.Bsize
}

// fill adds to the file as much as there is room for, at most so much.
func fill(t *testing.T, path string, size int64) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	zeros := make([]byte, 64<<10)
	for ; size > 0; size -= int64(len(zeros)) {
		if _, err := file.Write(zeros); err != nil {
			return // full
		}
	}
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
	for num := range have {
		for seq := range journalled[num] {
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
	if len(have) != len(v.ids) {
		t.Errorf("%d attachments kept, %d channels", len(have), len(v.ids))
	}
	t.Logf("%d packets a channel sent, %.1f kept and %.1f in gaps on average", v.sent, float64(kept)/float64(len(v.ids)), float64(lost)/float64(len(v.ids)))
}
