package placement

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tandem/internal/call"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

var limits = Limits{CPU: 75, JournalQueue: 0.5, DiskWrite: 50 * time.Millisecond, DiskReserve: 5, SlowStart: time.Minute}

func ready(name string) Recorder {
	return Recorder{
		Name: call.RecorderName(name), Group: "primary", Ready: true, Since: noon.Add(-time.Hour),
		Load: Load{MaxChannels: 1000, MaxPackets: 50_000, DiskFree: 80, DiskTotal: 100},
	}
}

func with(r Recorder, change func(*Recorder)) Recorder {
	change(&r)
	return r
}

func request(turret string) Request {
	return Request{Group: "primary", Turret: call.DeviceID(turret), Channels: 4, Limits: limits}
}

func TestChoose(t *testing.T) {
	a, b := ready("a"), ready("b")
	for name, c := range map[string]struct {
		recorders []Recorder
		want      string // recorder, or "" and
		reason    string // part of the reason or the error
	}{
		"nobody":           {nil, "", "no recorder configured"},
		"only one":         {[]Recorder{a}, "a", "only one ready at priority 0"},
		"lower score":      {[]Recorder{with(a, func(r *Recorder) { r.Load.Channels = 500 }), b}, "b", "lowest score 0.00"},
		"priority first":   {[]Recorder{with(a, func(r *Recorder) { r.Load.Channels = 900 }), with(b, func(r *Recorder) { r.Priority = 1 })}, "a", "priority 0"},
		"next priority":    {[]Recorder{with(a, func(r *Recorder) { r.Load.Channels = 1000 }), with(b, func(r *Recorder) { r.Priority = 1 })}, "b", "priority 1"},
		"other group":      {[]Recorder{with(a, func(r *Recorder) { r.Group = "secondary" })}, "", `a: wrong group "secondary"`},
		"not ready":        {[]Recorder{with(a, func(r *Recorder) { r.Ready, r.Reason = false, "journal behind" })}, "", "a: journal behind"},
		"full of channels": {[]Recorder{with(a, func(r *Recorder) { r.Load.Channels = 997 })}, "", "a: 997 of 1000 channels"},
		"full with placed": {[]Recorder{with(a, func(r *Recorder) { r.Load.Channels, r.Placed = 900, 97 })}, "", "a: 997 of 1000 channels"},
		"full of packets":  {[]Recorder{with(a, func(r *Recorder) { r.Load.Packets = 49_900 })}, "", "a: 49900 of 50000 packets/s"},
		"disk at reserve":  {[]Recorder{with(a, func(r *Recorder) { r.Load.DiskFree = 4 })}, "", "a: disk 4.0% free"},
		"busy, not full":   {[]Recorder{with(a, func(r *Recorder) { r.Load.CPU = 99 })}, "a", "(cpu)"},
		"slow disk":        {[]Recorder{with(a, func(r *Recorder) { r.Load.DiskWrite = 40 * time.Millisecond }), with(b, func(r *Recorder) { r.Load.CPU = 30 })}, "b", "(cpu)"},
		"disk nearly full": {[]Recorder{with(a, func(r *Recorder) { r.Load.DiskFree = 6 }), with(b, func(r *Recorder) { r.Load.CPU = 60 })}, "b", "(cpu)"},
		"just returned":    {[]Recorder{with(a, func(r *Recorder) { r.Since, r.Load.Channels = noon, 100 }), with(b, func(r *Recorder) { r.Load.Channels = 500 })}, "b", "lowest"},
		"returned, empty":  {[]Recorder{with(a, func(r *Recorder) { r.Since = noon }), with(b, func(r *Recorder) { r.Load.Channels = 500 })}, "a", "lowest"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Choose(noon, request("t1"), c.recorders)
			if string(got.Recorder) != c.want {
				t.Fatalf("chose %q (%v), want %q", got.Recorder, err, c.want)
			}
			text := got.Reason
			if err != nil {
				var none *NoneError
				if !errors.As(err, &none) || len(none.Refusals) != len(c.recorders) {
					t.Fatalf("error %#v", err)
				}
				text = err.Error()
			}
			if !strings.Contains(text, c.reason) {
				t.Fatalf("said %q, want %q in it", text, c.reason)
			}
		})
	}
}

// A burst of logons between two load reports spreads, because each placement counts at once.
func TestBurstSpreads(t *testing.T) {
	recorders := []Recorder{ready("a"), ready("b"), ready("c")}
	for i := range 150 {
		choice, err := Choose(noon, request(fmt.Sprint("turret-", i)), recorders)
		if err != nil {
			t.Fatal(err)
		}
		for j := range recorders {
			if recorders[j].Name == choice.Recorder {
				recorders[j].Placed += 4
			}
		}
	}
	for _, r := range recorders {
		if r.Placed < 180 || r.Placed > 220 {
			t.Errorf("recorder %s got %d of 600 channels", r.Name, r.Placed)
		}
	}
}

// Recorders that measure their processors at different instants, or on different
// hosts with other work, get equal shares as long as none of them is near its limit,
// and when all of them are; one that is near gets less.
func TestProcessorsAreAGate(t *testing.T) {
	for name, c := range map[string]struct {
		cpu  [3]float64
		warm time.Duration // since they became ready
		want [3]int        // of 240 channels, within a tenth
	}{
		"idle hosts":                   {[3]float64{1, 5, 2}, time.Hour, [3]int{80, 80, 80}},
		"idle hosts, all just ready":   {[3]float64{1, 5, 2}, 0, [3]int{80, 80, 80}},
		"some work":                    {[3]float64{10, 16, 13}, time.Second, [3]int{80, 80, 80}},
		"saturated":                    {[3]float64{93, 99, 85}, 0, [3]int{80, 80, 80}},
		"one is near the limit":        {[3]float64{10, 70, 10}, time.Hour, [3]int{120, 0, 120}},
		"all but one are at the limit": {[3]float64{100, 100, 10}, time.Hour, [3]int{0, 0, 240}},
	} {
		recorders := []Recorder{ready("a"), ready("b"), ready("c")}
		for i := range recorders {
			recorders[i].Load.CPU, recorders[i].Since = c.cpu[i], noon.Add(-c.warm)
			recorders[i].Load.MaxChannels, recorders[i].Load.MaxPackets = 5000, 250_000
		}
		for i := range 60 {
			choice, err := Choose(noon, request(fmt.Sprint("turret-", i)), recorders)
			if err != nil {
				t.Fatal(err)
			}
			take(recorders, choice.Recorder, 4)
		}
		for i, r := range recorders {
			if math.Abs(float64(r.Placed-c.want[i])) > 24 {
				t.Errorf("%s: %s got %d of 240 channels, want %d", name, r.Name, r.Placed, c.want[i])
			}
		}
	}
}

// Without a limit of its own a recorder is filled like one with the usual limit.
func TestNoLimitIsNoLure(t *testing.T) {
	recorders := []Recorder{with(ready("a"), func(r *Recorder) { r.Load.MaxChannels, r.Load.MaxPackets = 0, 0 }), with(ready("b"), func(r *Recorder) {
		r.Load.MaxChannels, r.Load.MaxPackets = usualChannels, usualChannels*PacketsPerChannel
	})}
	for i := range 500 {
		choice, _ := Choose(noon, request(fmt.Sprint("turret-", i)), recorders)
		take(recorders, choice.Recorder, 4)
	}
	if n := recorders[0].Placed; n < 900 || n > 1100 {
		t.Errorf("one without a limit got %d of 2000 channels", n)
	}
}

// Turrets with equal choices spread by their own preference, and losing one
// recorder moves only the turrets that preferred it.
func TestAffinityIsStable(t *testing.T) {
	all := []Recorder{ready("rec-1"), ready("rec-2"), ready("rec-3")}
	count := make(map[call.RecorderName]int)
	for i := range 300 {
		req := request(fmt.Sprint("turret-", i))
		before, _ := Choose(noon, req, all)
		after, _ := Choose(noon, req, all[:2])
		count[before.Recorder]++
		if before.Recorder != "rec-3" && after.Recorder != before.Recorder {
			t.Fatalf("turret %s moved from %s to %s when rec-3 left", req.Turret, before.Recorder, after.Recorder)
		}
	}
	for name, n := range count {
		if n < 60 || n > 140 {
			t.Errorf("%s is preferred by %d of 300 turrets", name, n)
		}
	}
}

func TestGradualReturn(t *testing.T) {
	r := ready("a")
	r.Load.Channels = 100
	r.Since = noon
	last := 1e9
	for s := range 61 {
		score, _ := Score(noon.Add(time.Duration(s)*time.Second), limits, r, 0)
		if score >= last {
			t.Fatalf("score rose from %v to %v after %d s", last, score, s)
		}
		last = score
	}
	if last != 0.1 {
		t.Fatalf("score %v once warm, want 0.1", last)
	}
}

func drawRecorder(t *rapid.T, i int) Recorder {
	r := Recorder{
		Name:     call.RecorderName(fmt.Sprint("rec-", i)),
		Group:    rapid.SampledFrom([]string{"primary", "primary", "primary", "secondary"}).Draw(t, "group"),
		Priority: rapid.IntRange(0, 2).Draw(t, "priority"),
		Ready:    rapid.IntRange(0, 4).Draw(t, "ready") > 0,
		Since:    noon.Add(-time.Duration(rapid.IntRange(0, 120).Draw(t, "since")) * time.Second),
		Placed:   rapid.IntRange(0, 50).Draw(t, "placed"),
	}
	r.Load = Load{
		CPU: rapid.Float64Range(0, 100).Draw(t, "cpu"), Channels: rapid.IntRange(0, 120).Draw(t, "channels"), MaxChannels: rapid.IntRange(0, 120).Draw(t, "max"),
		Packets: rapid.Float64Range(0, 6000).Draw(t, "packets"), MaxPackets: rapid.Float64Range(0, 6000).Draw(t, "max packets"),
		JournalQueue: rapid.Float64Range(0, 1).Draw(t, "queue"), DiskWrite: time.Duration(rapid.IntRange(0, 100).Draw(t, "write")) * time.Millisecond,
		DiskFree: uint64(rapid.IntRange(0, 100).Draw(t, "free")), DiskTotal: 100,
	}
	return r
}

func TestChooseProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		recorders := make([]Recorder, rapid.IntRange(0, 6).Draw(t, "n"))
		for i := range recorders {
			recorders[i] = drawRecorder(t, i)
		}
		req := Request{Group: "primary", Turret: call.DeviceID(rapid.StringN(1, 8, -1).Draw(t, "turret")), Channels: rapid.IntRange(1, 18).Draw(t, "want"), Limits: limits}
		choice, err := Choose(noon, req, recorders)
		shuffled := append([]Recorder(nil), recorders...)
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		again, errAgain := Choose(noon, req, shuffled)
		if choice != again || (err == nil) != (errAgain == nil) {
			t.Fatalf("order matters: %v %v, %v %v", choice, err, again, errAgain)
		}
		var chosen *Recorder
		fits := 0
		for i, r := range recorders {
			if r.Name == choice.Recorder {
				chosen = &recorders[i]
			}
			if refuse(req, r) == "" {
				fits++
			}
		}
		if err != nil {
			if fits > 0 || chosen != nil {
				t.Fatalf("refused (%v) while %d fit", err, fits)
			}
			return
		}
		if chosen == nil || choice.Reason == "" {
			t.Fatalf("choice %+v of nobody", choice)
		}
		if chosen.Group != "primary" || !chosen.Ready {
			t.Fatalf("chose %+v", *chosen)
		}
		if m := chosen.Load.MaxChannels; m > 0 && chosen.Load.Channels+chosen.Placed+req.Channels > m {
			t.Fatalf("over its channels: %+v", *chosen)
		}
		best, _ := Score(noon, limits, *chosen, req.Channels)
		for _, r := range recorders {
			if refuse(req, r) != "" {
				continue
			}
			score, _ := Score(noon, limits, r, req.Channels)
			if r.Priority < chosen.Priority || r.Priority == chosen.Priority && score < best-resolution {
				t.Fatalf("chose %+v (%v) before %+v (%v)", *chosen, best, r, score)
			}
		}
	})
}

// More load never lowers a score, and what is placed counts like load.
func TestScoreIsMonotonic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRecorder(t, 0)
		more := rapid.IntRange(0, 20).Draw(t, "more")
		low, _ := Score(noon, limits, r, more)
		heavier := r
		switch rapid.IntRange(0, 5).Draw(t, "what") {
		case 0:
			heavier.Load.CPU += 10
		case 1:
			heavier.Load.Channels += 10
		case 2:
			heavier.Load.Packets += 500
		case 3:
			heavier.Placed += 10
		case 4:
			heavier.Load.DiskFree /= 2
		case 5:
			heavier.Since = heavier.Since.Add(time.Second)
		}
		if high, _ := Score(noon, limits, heavier, more); high < low {
			t.Fatalf("%+v scores %v, heavier %+v scores %v", r, low, heavier, high)
		}
	})
}

// A floor that logs on at once, told of load once a second by machines that
// measure with noise, is spread within 15 % of even.
func TestLoginStormSpreads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		recorders := make([]Recorder, rapid.IntRange(2, 6).Draw(t, "recorders"))
		for i := range recorders {
			recorders[i] = with(ready(fmt.Sprint("rec-", i)), func(r *Recorder) { r.Load.MaxChannels, r.Load.MaxPackets = 4000, 200_000 })
		}
		noise := rapid.Float64Range(-0.1, 0.1)
		write := rapid.IntRange(200, 10_000) // microseconds: flash to a slow array
		const turrets, storm, report = 500, 10 * time.Second, time.Second
		reported, placed := noon, 0
		for i := range turrets {
			now := noon.Add(storm * time.Duration(i) / turrets)
			if now.Sub(reported) >= report {
				reported = now
				for j := range recorders {
					r := &recorders[j]
					r.Load.Channels += r.Placed
					r.Placed = 0
					r.Load.Packets = float64(r.Load.Channels) * PacketsPerChannel * 0.4 * (1 + noise.Draw(t, "speech"))
					r.Load.CPU = 2 + float64(r.Load.Channels)*cpuPerChannel*(1+noise.Draw(t, "cpu"))
					r.Load.DiskWrite = time.Duration(write.Draw(t, "write")) * time.Microsecond
				}
			}
			req := request(fmt.Sprint("turret-", i))
			req.Channels = rapid.IntRange(2, 6).Draw(t, "channels")
			choice, err := Choose(now, req, recorders)
			if err != nil {
				t.Fatal(err)
			}
			take(recorders, choice.Recorder, req.Channels)
			placed += req.Channels
		}
		even := float64(placed) / float64(len(recorders))
		for _, r := range recorders {
			if got := float64(r.channels()); math.Abs(got-even) > 0.15*even {
				t.Fatalf("%s has %.0f channels, even is %.0f: %+v", r.Name, got, even, recorders)
			}
		}
	})
}
