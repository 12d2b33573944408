package stories

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

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
	// Turrets that are silent send nothing: with all 4,000 channels sending all the time the switch,
	// which shares two cores with the recorder, would fall behind its own clock. TANDEM_SOAK_ALWAYS_ON does that.
	vad := os.Getenv("TANDEM_SOAK_ALWAYS_ON") == ""
	f := newFloor(t, settings{turrets: turrets, mixes: 4, keep: "calls", rtp: fmt.Sprintf("vad = %v", vad),
		floor: "calls_per_minute = 2.0\ncall_length = \"45s\"\nlogon_interval = \"10ms\""})
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
	legs := f.legs()
	moved := map[string]bool{} // their stays are looked at in another story
	for _, leg := range legs {
		if name, _, ok := strings.Cut(leg.Leg, "+"); ok {
			moved[name], moved[leg.Leg] = true, true
		}
	}
	for i, leg := range legs {
		if leg.State != "complete" || i%50 != 0 || moved[leg.Leg] {
			continue
		}
		format, audio := f.exportLeg(leg.Leg)
		check, err := account.CheckLeg(leg.Leg, format.Codec, audio)
		if err != nil || !check.OK() {
			t.Errorf("%s: %v, %v", leg.Leg, check, err)
		}
		exact++
	}
	t.Logf("%d of %d legs looked at", exact, len(legs))
	f.recctl("verify", "--deep")
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
