package stories

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/recorder/catalog"
	"tandem/recorder/pgtest"
)

// PostgreSQL stops while a floor trades, and comes back: the recorder waits for
// nothing and takes no memory for it, and in the end the database has every row
// of the recorder's own catalog, none of them twice. make outage makes it long;
// TANDEM_OUTAGE and TANDEM_OUTAGE_TURRETS say how long and how large.
func TestDatabaseOutage(t *testing.T) {
	length, turrets := 3*time.Second, cmp.Or(number("TANDEM_OUTAGE_TURRETS"), 12)
	if asked := os.Getenv("TANDEM_OUTAGE"); asked != "" {
		var err error
		if length, err = time.ParseDuration(asked); err != nil {
			t.Fatal(err)
		}
	}
	programs(t)
	server := pgtest.Start(t)
	url := server.Database()
	f := newFloor(t, settings{turrets: turrets, mixes: 2, keep: "calls", rtp: "vad = true", recorder: fmt.Sprintf("[catalog]\nurl = %q", url),
		floor: "calls_per_minute = 20.0\ncall_length = \"2s\"\nlogon_interval = \"10ms\""})
	metric := func(name string) int { return int(f.recorderMetrics()["tandem_recorder_"+name]) }
	shipped := func() bool { return metric("catalog_connected") == 1 && metric("catalog_lag_rows") == 0 }
	legs := func() string {
		return strings.TrimSpace(pgtest.Dump(t, url, `SELECT count(*) FROM legs WHERE end_us IS NOT NULL`))
	}
	eventually(t, time.Minute, "calls have ended, and are in the database", func() bool { return shipped() && legs() != "0" })

	time.Sleep(min(length, 30*time.Second)) // a recorder that has just begun to work grows anyway
	before, memory := legs(), f.recorder.resident()
	server.Stop()
	var quarters []int64 // what the recorder had at the end of each, MiB
	behind := 0
	for stopped := time.Now(); len(quarters) < 4; time.Sleep(length / 20) {
		behind = max(behind, metric("catalog_lag_rows"))
		if time.Since(stopped) >= length*time.Duration(len(quarters)+1)/4 {
			quarters = append(quarters, f.recorder.resident()>>20)
		}
	}
	away := metric("catalog_connected")
	server.Run()
	back := time.Now()
	eventually(t, time.Minute, "the database is found again", func() bool { return metric("catalog_connected") == 1 })
	reached := time.Since(back)
	eventually(t, 5*time.Minute, "the rest is shipped", shipped)
	caughtUp := time.Since(back)
	status, after := f.recorderStatus(), f.recorder.resident()

	f.sim.stop()
	f.director.stop()
	var own, shared []string
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Second) { // media files are still being made
		own, shared = held(t, filepath.Join(f.dir, "rec", "catalog.db")), arrived(t, url)
		if slices.Equal(own, shared) || time.Now().After(deadline) {
			break
		}
	}
	t.Logf("%d turrets, %s legs ended before; away for %v: up to %d rows behind; found again %v after it answered, 0 behind after %v; recorder %d MiB before, %v in each quarter of it, %d MiB afterwards; %d packets, %d lost; %d rows in both",
		turrets, before, length, behind, reached.Round(100*time.Millisecond), caughtUp.Round(100*time.Millisecond), memory>>20, quarters, after>>20, status.Packets, status.Lost+status.Dropped, len(own))
	if !slices.Equal(own, shared) {
		t.Errorf("%d rows in the recorder's own catalog, %d in the database: %s", len(own), len(shared), firstDifference(own, shared))
	}
	if away != 0 || behind == 0 || len(own) == 0 {
		t.Errorf("connected %d, %d rows behind while the database was away, %d rows", away, behind, len(own))
	}
	if most := slices.Max(quarters) << 20; most > memory+memory/4+32<<20 {
		t.Errorf("recorder grew from %d to %d MiB", memory>>20, most>>20)
	}
	if status.Lost+status.Dropped != 0 {
		t.Errorf("%+v", status)
	}
}

// held are a catalog's calls, legs, segments and gaps, a line each, in order.
func held(t *testing.T, path string) (all []string) {
	t.Helper()
	c, err := catalog.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rows, err := c.Changes(t.Context(), 0, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	micros := func(at time.Time) int64 {
		if at.IsZero() {
			return 0
		}
		return at.UnixMicro()
	}
	add := func(values ...any) { all = append(all, fmt.Sprintln(values...)) }
	for _, c := range rows.Calls {
		add("call", c.ID, micros(c.Start), micros(c.End))
	}
	for _, l := range rows.Legs {
		add("leg", l.ID, micros(l.Start), micros(l.End))
	}
	for _, s := range rows.Segments {
		add("segment", s.ID, micros(s.Start), micros(s.End))
		for _, g := range s.Gaps {
			add("gap", s.ID, micros(g.From), micros(g.To))
		}
	}
	slices.Sort(all)
	return all
}

// arrived are those of the database, in the same words; one that is there twice
// has two lines.
func arrived(t *testing.T, url string) []string {
	t.Helper()
	return slices.Sorted(strings.Lines(pgtest.Dump(t, url, `
SELECT 'call', id, start_us, coalesce(end_us, 0) FROM calls UNION ALL
SELECT 'leg', id, start_us, coalesce(end_us, 0) FROM legs UNION ALL
SELECT 'segment', id, start_us, end_us FROM segments UNION ALL
SELECT 'gap', segment, from_us, to_us FROM gaps`)))
}

func firstDifference(a, b []string) string {
	for n := range min(len(a), len(b)) {
		if a[n] != b[n] {
			return fmt.Sprintf("%q and %q", a[n], b[n])
		}
	}
	return "one is the beginning of the other"
}
