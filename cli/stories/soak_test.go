package stories

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"tandem/internal/media"
	"tandem/turretsim/truth"
)

// A large floor for long: nothing lost in the recorder, memory flat, files
// complete. make soak runs it; TANDEM_SOAK_TURRETS and TANDEM_SOAK_MINUTES say
// how large and how long.
func TestSoak(t *testing.T) {
	turrets, minutes := number("TANDEM_SOAK_TURRETS"), number("TANDEM_SOAK_MINUTES")
	if turrets == 0 || minutes == 0 {
		t.Skip("make soak runs it: it takes long")
	}
	// Files cost the switch less than tones on every source, and it shares two cores with the recorder.
	f := newFloor(t, settings{turrets: turrets, mixes: 4, keep: "calls", rtp: fmt.Sprintf("shards = 2\nvoice = [%q]", speech(t)), floor: "calls_per_minute = 1.0\ncall_length = \"20s\"\nlogon_interval = \"10ms\""})
	t.Logf("minute  packets/s  packets     lost  dropped  recorder MiB  switch MiB  director MiB  legs")
	var first, last int64
	var before uint64
	for minute := range minutes + 1 {
		s := f.recorderStatus()
		mib := func(p *program) int64 { return p.resident() >> 20 }
		t.Logf("%6d  %9.0f  %-10d  %4d  %7d  %12d  %10d  %12d  %4d", minute, float64(s.Packets-before)/60, s.Packets, s.Lost, s.Dropped, mib(f.recorder), mib(f.sim), mib(f.director), s.Legs)
		before = s.Packets
		switch {
		case s.Lost != 0 || s.Dropped != 0:
			t.Errorf("minute %d: %d packets lost, %d datagrams dropped by the kernel", minute, s.Lost, s.Dropped)
		case minute == min(2, minutes):
			first = f.recorder.resident() // calls and files have come and gone by now
		}
		last = f.recorder.resident()
		if minute < minutes {
			time.Sleep(time.Minute)
		}
	}
	if last > first+first/4+32<<20 {
		t.Errorf("memory grew from %d to %d MiB", first>>20, last>>20)
	}
	f.sim.stop()
	account, err := truth.Load(f.truth)
	if err != nil {
		t.Fatal(err)
	}
	exact := 0
	for i, leg := range f.legs() {
		if leg.State != "complete" || i%50 != 0 {
			continue
		}
		format, audio := f.exportLeg(leg.Leg)
		check, err := account.CheckLeg(leg.Leg, format.Codec, audio)
		if err != nil || !check.OK() {
			t.Errorf("%s: %v, %v", leg.Leg, check, err)
		}
		exact++
	}
	t.Logf("%d legs of all looked at, each exact", exact)
	f.recctl("verify", "--deep")
}

// speech is a file of 15 s that never repeats: a tone that climbs.
func speech(t *testing.T) string {
	t.Helper()
	const rate, samples = 8000, 15 * 8000
	file := media.WAVHeader(media.WAVFormat{SampleRate: rate}, samples)
	text := file[:]
	phase := 0.0
	for i := range samples {
		phase += 2 * math.Pi * (300 + 2500*float64(i)/samples) / rate
		text = binary.LittleEndian.AppendUint16(text, uint16(int16(8000*math.Sin(phase))))
	}
	path := filepath.Join(t.TempDir(), "speech.wav")
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func number(name string) int {
	n, _ := strconv.Atoi(os.Getenv(name)) // nothing, or no number: 0
	return n
}

type recorderStatus struct {
	Packets, Lost, Dropped uint64
	Legs                   int
}

// recorderStatus is what the recorder counts of itself.
func (f *floor) recorderStatus() recorderStatus {
	f.t.Helper()
	var status struct {
		Recorders []struct {
			Legs int
			Lost uint64 `json:"lost_packets"`
		}
	}
	if err := json.Unmarshal(f.recctl("--json", "status"), &status); err != nil || len(status.Recorders) != 1 {
		f.t.Fatalf("status: %v, %+v", err, status)
	}
	metrics := f.recorderMetrics()
	return recorderStatus{
		Packets: uint64(metrics["tandem_recorder_packets_total"]), Dropped: uint64(metrics["tandem_recorder_socket_drops_total"]),
		Lost: status.Recorders[0].Lost, Legs: status.Recorders[0].Legs,
	}
}
