package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/cli/demo"
	"tandem/internal/config"
	"tandem/internal/media"
)

// Every read-only command, as people and as programs see it.
func TestGolden(t *testing.T) {
	site := newFakeSite(t)
	for _, c := range []struct {
		name   string
		args   []string
		status int
	}{
		{"status", []string{"status"}, ExitDone},
		{"status_json", []string{"status", "--json"}, ExitDone},
		{"turrets", []string{"turrets"}, ExitDone},
		{"turrets_json", []string{"--json", "turrets"}, ExitDone},
		{"channels", []string{"channels"}, ExitDone},
		{"channels_json", []string{"channels", "--json"}, ExitDone},
		{"channels_recorder", []string{"channels", "--recorder", "rec-2"}, ExitDone},
		{"calls", []string{"calls"}, ExitDone},
		{"calls_json", []string{"calls", "--json"}, ExitDone},
		{"calls_limit", []string{"calls", "--limit", "1"}, ExitDone},
		{"show", []string{"show", "c7"}, ExitDone},
		{"show_json", []string{"show", "c7", "--json"}, ExitDone},
		{"show_lasting", []string{"show", "c9"}, ExitDone},
		{"show_unknown", []string{"show", "c8"}, ExitFailed},
		{"verify", []string{"verify", "--deep", "--from", "-1h"}, ExitDone},
		{"verify_json", []string{"verify", "--json"}, ExitDone},
		{"help", []string{"--help"}, ExitDone},
		{"help_calls", []string{"help", "calls"}, ExitDone},
		{"help_drain", []string{"help", "drain"}, ExitDone},
		{"help_failover", []string{"help", "failover"}, ExitDone},
		{"help_config", []string{"config", "--help"}, ExitDone},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := recctl(t, site.config, c.args...)
			if r.status != c.status {
				t.Errorf("status %d, want %d", r.status, c.status)
			}
			got := r.out
			if r.errs != "" {
				got += "-- stderr --\n" + r.errs
			}
			golden(t, c.name, site.anonymous(got))
		})
	}
}

// What cannot work ends with the right status and one line that says what to
// do next.
func TestErrors(t *testing.T) {
	site := newFakeSite(t)
	nowhere := `directors = ["` + closedPort(t) + `"]` + "\nwatchdogs = []\n"
	for _, c := range []struct {
		config string
		args   string
		status int
		text   string
	}{
		{nowhere, "status", ExitUnreached, "connection refused); is tandem-director running there? --director ADDR names another"},
		{nowhere, "turrets", ExitUnreached, "no director answered"},
		{nowhere, "channels", ExitUnreached, "no director answered"},
		{nowhere, "calls", ExitUnreached, "no director answered"},
		{nowhere, "show c7", ExitUnreached, "no director answered"},
		{nowhere, "export c7", ExitUnreached, "no director answered"},
		{nowhere, "listen t2 -o -", ExitUnreached, "no director answered"},
		{nowhere, "verify", ExitUnreached, "no director answered"},
		{`directors = []` + "\n" + `recorders = ["` + closedPort(t) + `"]`, "calls", ExitUnreached, "no recorder answered"},
		{"directors = []\nrecorders = [\"" + site.recorderAt[0] + "\"]", "drain rec-1", ExitUsage, "no directors are configured; name one in /etc/tandem/recctl.toml or with --director ADDR"},
		{site.config, "stauts", ExitUsage, `no command "stauts"; did you mean "status"?`},
		{site.config, "config chek", ExitUsage, `did you mean "check"?`},
		{site.config, "config", ExitUsage, "wants a command"},
		{site.config, "status --bogus", ExitUsage, "no option --bogus; see recctl status --help"},
		{site.config, "--bogus", ExitUsage, "no option --bogus; see recctl --help"},
		{site.config, "status --json=perhaps", ExitUsage, `--json "perhaps": it takes no value; see recctl`},
		{site.config, "status --director", ExitUsage, "--director wants a value; see recctl status --help"}, // and not the command's name for one
		{site.config, "move t1 --to", ExitUsage, "--to wants a value; see recctl move --help"},
		{site.config, "export c7 -o", ExitUsage, "-o wants a value; see recctl export --help"},
		{site.config, "--config", ExitUsage, "--config wants a value; see recctl --help"},
		{site.config, "config sing", ExitUsage, `no command "sing"; recctl config --help lists them`},
		{site.config, "drain rec-1 --timeout 5", ExitUsage, `--timeout "5": want a length of time, as in "500ms", "90s" or "5m"; see recctl drain --help`},
		{site.config, "drain rec-1 --timeout -5s", ExitUsage, "--timeout -5s: want more than 0s"},
		{site.config, "failback --timeout 0s", ExitUsage, "--timeout 0s: want more than 0s"},
		{site.config, "status extra", ExitUsage, `unexpected argument "extra"; see recctl status --help`},
		{site.config, "show", ExitUsage, "recctl show wants CALL; see recctl show --help"},
		{site.config, "calls --from tomorrow", ExitUsage, `--from: time "tomorrow": want`},
		{site.config, "calls --from -1h --to -2h", ExitUsage, "--from 2026-03-02 12:00:00 is not before --to 2026-03-02 11:00:00"},
		{site.config, "calls --limit 0", ExitUsage, "--limit 0: want 1 to 100000"},
		{site.config, "calls --limit some", ExitUsage, `--limit "some": want a whole number; see recctl calls --help`},
		{site.config, "demo --seed -1", ExitUsage, `--seed "-1": want a whole number; see recctl demo --help`},
		{site.config, "calls --secondary perhaps", ExitUsage, "want hide, fill or show"},
		{site.config, "export c7 --format mp3", ExitUsage, "want wav or flac"},
		{site.config, "export c7 -o - --json", ExitUsage, "both want stdout"},
		{site.config, "export nothing", ExitFailed, `no call or leg "nothing" with audio; recctl calls lists`},
		{site.config, "export c9 -o no/such/dir/x.wav", ExitFailed, "write no/such/dir/x.wav: no/such/dir: no such file or directory" + "\n"},
		{site.config, "listen nobody -o -", ExitFailed, `no channel or turret "nobody" is being recorded; recctl channels lists`},
		{site.config, "play c7 --json", ExitUsage, "play makes sound, not JSON"},
		{site.config, "--director nonsense status", ExitUsage, `--director "nonsense": want HOST:PORT`},
		{"directors = [\"x\"]\ntimeout = \"0s\"\nbogus = 1", "status", ExitUsage, `recctl.toml: directors[0]: "x": want HOST:PORT`},
		{"directors = [\"x\"]\ntimeout = \"0s\"\nbogus = 1", "status", ExitUsage, "recctl.toml: bogus: no such key"},
		{site.config, "config check no-such-director.toml --kind recctl", ExitUsage, "no such file"},
		{site.config, "config check no-such.toml", ExitUsage, "read configuration: stat no-such.toml: no such file"},
		{site.config, "config check cli_test.go", ExitUsage, "cannot tell whose file this is; --kind says it"},
		{site.config, "config check cli_test.go --kind x", ExitUsage, `--kind "x": want one of`},
		{site.config, "channels --recorder rec-9", ExitFailed, `no recorder "rec-9"; there are rec-1, rec-2`},
		{site.config, "export s2.m1.A", ExitFailed, "of a channel recctl export wants --from and --to"},
		{site.config, "export c7 --format wav -o c7.flac", ExitUsage, "-o c7.flac is named after flac, and --format says wav: which of the two?"},
		{site.config, "drill flood", ExitUsage, `no scenario "flood": want one of sigkill, sigstop, restart, two_at_once, drain` + "\n"},
		{site.config, "drill disk_full", ExitUsage, "disk_full needs hosts of its own, as the lab has; a drill can be one of sigkill"},
		{nowhere, "failover --pause", ExitUnreached, "--director ADDR names another, or --watchdog ADDR a watchdog"},
	} {
		t.Run(c.args, func(t *testing.T) {
			r := recctl(t, c.config, strings.Fields(c.args)...)
			if r.status != c.status || !strings.Contains(r.errs, c.text) || r.out != "" {
				t.Errorf("status %d, want %d\nstdout: %s\nstderr: %s\nwant:   %s", r.status, c.status, r.out, r.errs, c.text)
			}
			for line := range strings.Lines(r.errs) {
				if !strings.HasPrefix(line, "recctl: ") {
					t.Errorf("stderr line %q", line)
				}
			}
		})
	}
}

// A recorder that is away is named, and the rest is shown.
func TestOneRecorderAway(t *testing.T) {
	site := newFakeSite(t)
	site.director.status.Recorders[0].Address = closedPort(t)
	r := recctl(t, site.config, "calls", "--json")
	if r.status != ExitDone || strings.Count(r.out, "\n") != 2 || !strings.Contains(r.errs, "recorder rec-2 (127.0.0.1:") || !strings.Contains(r.errs, "left out: connection refused") {
		t.Errorf("%+v", r)
	}
	if r = recctl(t, site.config, "verify"); r.status != ExitFailed || !strings.Contains(r.errs, "1 of 2 recorders could not be checked") {
		t.Errorf("%+v", r)
	}
}

// During a failover and a drain status and channels say where things are.
func TestOnTheMove(t *testing.T) {
	site := newFakeSite(t)
	status := site.director.status
	status.Directors[0].Moving, status.Directors[0].Unrecorded = 12, 3
	status.Recorders[1].State, status.Recorders[1].Reason = "draining", "draining"
	status.Headroom[0].Enough, status.Headroom[0].Text = true, "could lose rec-1 and go on"
	site.director.channels[2].Recorder, site.director.channels[2].Leaving = "rec-2", []string{"rec-1"}
	golden(t, "status_moving", site.anonymous(recctl(t, site.config, "status").out))
	golden(t, "channels_moving", site.anonymous(recctl(t, site.config, "channels").out))
}

// Recorders named in the configuration are found while no director answers.
func TestWithoutDirector(t *testing.T) {
	site := newFakeSite(t)
	recorders := fmt.Sprintf("recorders = [%q, %q]\n", site.recorderAt[0], site.recorderAt[1])
	if r := recctl(t, "directors = []\n"+recorders, "calls"); r.status != ExitDone || r.errs != "" {
		t.Errorf("%+v", r)
	}
	if r := recctl(t, "directors = []\n"+recorders, "turrets"); r.status != ExitUsage || !strings.Contains(r.errs, "no directors are configured") {
		t.Errorf("%+v", r)
	}
	config := fmt.Sprintf("directors = [%q]\n", closedPort(t)) + recorders
	with, without := recctl(t, site.config, "calls", "--json"), recctl(t, config, "calls", "--json")
	if without.status != ExitDone || without.out != with.out || !strings.Contains(without.errs, "no director answered") {
		t.Errorf("%+v\nwith a director: %+v", without, with)
	}
	file := filepath.Join(t.TempDir(), "call.wav")
	if r := recctl(t, config, "export", "c9", "-o", file); r.status != ExitDone || strings.Count(r.errs, "no director answered") != 1 {
		t.Errorf("%+v", r)
	}
	if r := recctl(t, config, "channels"); r.status != ExitDone || strings.Count(r.out, "held") != 2 {
		t.Errorf("%+v", r)
	}
}

// A daemon that answers with an error was reached.
func TestRecorderFails(t *testing.T) {
	site := newFakeSite(t)
	for _, r := range site.recorders {
		r.broken = fmt.Errorf("catalog is locked")
	}
	if r := recctl(t, site.config, "calls"); r.status != ExitFailed || !strings.Contains(r.errs, "catalog is locked") {
		t.Errorf("%+v", r)
	}
}

// What is searched for is what the recorder is asked.
func TestSearchRequest(t *testing.T) {
	site := newFakeSite(t)
	site.recorders[0].searched = make(chan *tandemv1.SearchCallsRequest, 1)
	recctl(t, site.config, "calls", "--from", "10:30", "--to", "10m ago", "--agent", "Ann", "--party", "Barc", "--line", "L12", "--device", "t2", "--ongoing", "--limit", "7")
	got := <-site.recorders[0].searched
	want := &tandemv1.SearchCallsRequest{From: after(-150 * time.Minute), To: after(-10 * time.Minute), Agent: "Ann", Party: "Barc", Line: "L12", Device: "t2", Ongoing: true, Limit: 7, Where: tandemv1.Where_WHERE_UNSHIPPED}
	if got.String() != want.String() {
		t.Errorf("asked %v\nwant  %v", got, want)
	}
}

// The fields that others rely on are there, and no others.
func TestJSONFields(t *testing.T) {
	site := newFakeSite(t)
	fields := func(v any) string {
		return strings.Join(slices.Sorted(maps.Keys(v.(map[string]any))), " ")
	}
	decode := func(args ...string) map[string]any {
		r := recctl(t, site.config, append(args, "--json")...)
		var v map[string]any
		if err := json.NewDecoder(strings.NewReader(r.out)).Decode(&v); err != nil {
			t.Fatalf("%v: %v in %+v", args, err, r)
		}
		return v
	}
	first := func(v any) any { return v.([]any)[0] }
	status, leg := decode("status"), decode("show", "c7")
	for _, c := range []struct {
		of   any
		want string
	}{
		{status, "alarms directors generated headroom recorders site watchdogs"},
		{first(status["directors"]), "address answers attached authority_ms basis channels cti epoch group monitor moving name preferred profile role sessions since text unrecorded voters"},
		{first(status["headroom"]), "busiest enough group text"},
		{first(status["recorders"]), "catalog_lag channels cpu_percent disk_free_bytes disk_write_ms group legs lost_packets name packets_per_s priority reason score state"},
		{first(status["alarms"]), "group object severity since text what"},
		{decode("calls"), "accuracy call device direction duration_ms end gap_ms group kind leg line parts party party_name recorders secondary source start state user"},
		{leg, "accuracy call device direction duration_ms end gap_ms gaps group kind leg line parts party party_name recorders secondary source start state user"},
		{first(leg["parts"]), "channel from recorder segments to"},
		{first(leg["gaps"]), "cause from to"},
	} {
		if got := fields(c.of); got != c.want {
			t.Errorf("fields %s\nwant   %s", got, c.want)
		}
	}
}

// Findings are told and end with status 5.
func TestVerifyFinds(t *testing.T) {
	site := newFakeSite(t)
	site.recorders[1].findings = []*tandemv1.Finding{{Segment: "17", Channel: "s2.m1.A", File: "a.wav", What: "hash", Text: "sha256 differs"}}
	r := recctl(t, site.config, "verify")
	golden(t, "verify_finds", r.out)
	if r.status != ExitFound || r.errs != "" {
		t.Errorf("%+v", r)
	}
	if r = recctl(t, site.config, "verify", "--json"); r.status != ExitFound || strings.Count(r.out, "\n") != 3 {
		t.Errorf("%+v", r)
	}
	site.recorders[0].cut = true
	if r = recctl(t, site.config, "verify"); r.status != ExitFound || !strings.Contains(r.errs, "ended before the summary") {
		t.Errorf("%+v", r)
	}
}

// One recorder's call arrives byte for byte and is named after call and agent.
func TestExportCall(t *testing.T) {
	site := newFakeSite(t)
	t.Chdir(t.TempDir())
	r := recctl(t, site.config, "export", "c9")
	const name = "c9_Ann_Lee_20260302-125910.wav"
	if want := name + "  500 ms from 12:59:10, 4.0 KiB\n"; r.status != ExitDone || r.out != want {
		t.Errorf("%+v, want %q", r, want)
	}
	format, samples := readWAV(t, name)
	if format.Codec != media.PCMU || !bytes.Equal(samples, site.recorders[0].exports["c9"].samples) {
		t.Errorf("%v, %d samples", format, len(samples))
	}
	if r = recctl(t, site.config, "export", "c9", "-o", "-"); r.status != ExitDone || len(r.out) != 4058 {
		t.Errorf("%d bytes, status %d, %s", len(r.out), r.status, r.errs)
	}
}

// A file is never called what it is not.
func TestFormatOf(t *testing.T) {
	for _, c := range []struct {
		name   string
		named  bool
		output string
		dir    bool
		want   tandemv1.Format // 0: refused
	}{
		{"wav", false, "", false, tandemv1.Format_FORMAT_WAV},
		{"wav", false, "-", false, tandemv1.Format_FORMAT_WAV},
		{"wav", false, "c7.flac", false, tandemv1.Format_FORMAT_FLAC},
		{"wav", false, "C7.FLAC", false, tandemv1.Format_FORMAT_FLAC},
		{"wav", false, "c7.20260302", false, tandemv1.Format_FORMAT_WAV},
		{"wav", false, "calls.flac", true, tandemv1.Format_FORMAT_WAV},
		{"wav", true, "c7.flac", false, 0},
		{"flac", true, "c7.wav", false, 0},
		{"flac", true, "c7.flac", false, tandemv1.Format_FORMAT_FLAC},
		{"flac", true, "c7", false, tandemv1.Format_FORMAT_FLAC},
		{"mp3", true, "c7.mp3", false, 0},
	} {
		got, err := formatOf(c.name, c.named, c.output, c.dir)
		if got != c.want || err == nil != (c.want != 0) {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
}

// A leg alone is found wherever it is, and named after its agent all the same.
func TestExportLeg(t *testing.T) {
	site := newFakeSite(t)
	t.Chdir(t.TempDir())
	r := recctl(t, site.config, "export", "c7.2", "--json")
	var got struct{ File, Call, Leg string }
	if err := json.Unmarshal([]byte(r.out), &got); err != nil {
		t.Fatal(err, r)
	}
	if got.File != "c7.2_Bob_Stone_t10_HS.R_20260302-125002.wav" || got.Call != "c7" || got.Leg != "c7.2" {
		t.Errorf("%+v", got)
	}
	if _, samples := readWAV(t, got.File); len(samples) != 8000 {
		t.Errorf("%d samples", len(samples))
	}
}

// Legs on two recorders are mixed, each at its time, and the gap is told.
func TestExportMix(t *testing.T) {
	site := newFakeSite(t)
	file := filepath.Join(t.TempDir(), "mix.wav")
	r := recctl(t, site.config, "export", "-o", file, "c7")
	if r.status != ExitDone || !strings.Contains(r.out, "missing 340 ms from 12:51:00.000 to 12:51:00.340: interrupted") {
		t.Errorf("%+v", r)
	}
	format, data := readWAV(t, file)
	got := format.Linear(data)
	one := media.MuLawToLinear(0x90)
	want := slices.Concat(slices.Repeat([]int16{one}, 4000), slices.Repeat([]int16{int16(min(2*int(one), 32767))}, 4000), slices.Repeat([]int16{one}, 4000))
	if !slices.Equal(got, want) {
		t.Errorf("%d samples, want %d", len(got), len(want))
	}
}

func TestExportDirectory(t *testing.T) {
	site := newFakeSite(t)
	dir := filepath.Join(t.TempDir(), "new") + "/"
	r := recctl(t, site.config, "export", "c7", "--json", "-o", dir)
	var files []written
	for line := range strings.Lines(r.out) {
		var w struct {
			written
			Start string `json:"start"` // stamp only writes
			Gaps  []any  `json:"gaps"`
		}
		if err := json.Unmarshal([]byte(line), &w); err != nil {
			t.Fatal(err)
		}
		files = append(files, w.written)
	}
	if len(files) != 2 || files[0].Leg != "c7.1" || files[0].Codec != "PCMU" || files[1].Leg != "c7.2" || !reflect.DeepEqual(files[1].Recorders, []string{"rec-2"}) {
		t.Fatalf("%+v from %+v", files, r)
	}
	for _, f := range files {
		if _, samples := readWAV(t, f.File); len(samples) != 8000 || filepath.Dir(f.File)+"/" != dir {
			t.Errorf("%s: %d samples", f.File, len(samples))
		}
	}
}

// An export that was cut or damaged on its way leaves no file.
func TestExportBroken(t *testing.T) {
	for name, breakIt := range map[string]func(*fakeRecorder){
		"early":   func(r *fakeRecorder) { r.cut = true },
		"damaged": func(r *fakeRecorder) { e := r.exports["c9"]; e.damaged = true; r.exports["c9"] = e },
	} {
		site := newFakeSite(t)
		breakIt(site.recorders[0])
		dir := t.TempDir()
		r := recctl(t, site.config, "export", "c9", "-o", filepath.Join(dir, "call.wav"))
		left, err := os.ReadDir(dir)
		if r.status != ExitFailed || !strings.Contains(r.errs, name) || !strings.Contains(r.errs, "try again") || err != nil || len(left) > 0 {
			t.Errorf("%s: %+v, left %v", name, r, left)
		}
	}
}

func readWAV(t *testing.T, file string) (media.WAVFormat, []byte) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	format, samples, err := media.ReadWAV(f)
	if err != nil {
		t.Fatal(err)
	}
	return format, samples
}

// A turret means its handset; lost packets are silence of their length, up to
// a second; the file's header tells its true length.
func TestListen(t *testing.T) {
	site := newFakeSite(t)
	site.recorders[0].heard = []*tandemv1.ListenResponse{
		{Codec: tandemv1.Codec_CODEC_PCMU, Payload: bytes.Repeat([]byte{0x90}, 160)},
		{Codec: tandemv1.Codec_CODEC_PCMU, Payload: bytes.Repeat([]byte{0x90}, 160), Lost: 3},
		{Codec: tandemv1.Codec_CODEC_PCMU, Payload: bytes.Repeat([]byte{0x90}, 160), Lost: 1 << 31},
	}
	file := filepath.Join(t.TempDir(), "live.wav")
	r := recctl(t, site.config, "listen", "t2", "-o", file)
	if r.status != ExitDone || !strings.Contains(r.errs, "listening to s2.m1.A (HS.L HS.R of t2) at recorder rec-1") {
		t.Errorf("%+v", r)
	}
	format, samples := readWAV(t, file)
	if want := 2 * 160 * (1 + 3 + 1 + maxSilence + 1); len(samples) != want || format.Codec != "" {
		t.Errorf("%v, %d bytes, want %d", format, len(samples), want)
	}
	site.recorders[0].broken = fmt.Errorf("channel closed for cause")
	if r = recctl(t, site.config, "listen", "s2.m2.A", "-o", "-"); r.status != ExitFailed || !strings.Contains(r.errs, "closed for cause") {
		t.Errorf("status %d, %s", r.status, r.errs)
	}
}

// A channel that moves is followed to the recorder that has it then: when the
// first one closes it, and when that one dies.
func TestListenFollows(t *testing.T) {
	packet := &tandemv1.ListenResponse{Codec: tandemv1.Codec_CODEC_PCMU, Payload: bytes.Repeat([]byte{0x90}, 160)}
	for name, first := range map[string]*fakeRecorder{
		"closed": {heard: []*tandemv1.ListenResponse{packet}, leaves: true},
		"died":   {heard: []*tandemv1.ListenResponse{packet}, died: make(chan struct{})},
	} {
		site := newFakeSite(t)
		first.channels = []*tandemv1.HeldChannel{{Channel: channel(ann, "m1", "HS.L"), Opened: after(-time.Hour), LastPacket: after(0)}}
		site.director.status.Recorders[1].Address = first.serve(t)
		site.recorders[1].channels = []*tandemv1.HeldChannel{{Channel: channel(ann, "m1", "HS.L"), Opened: after(-time.Second)}}
		site.recorders[1].heard = []*tandemv1.ListenResponse{packet, packet}
		site.recorders[1].leaves = true
		r := recctl(t, site.config, "listen", "t2", "-o", "-")
		if want := media.WAVHeaderSize + 3*320; r.status != ExitDone || len(r.out) != want || !strings.Contains(r.errs, "s2.m1.A is at recorder rec-2") {
			t.Errorf("%s: status %d, %d bytes, want %d, %s", name, r.status, len(r.out), want, r.errs)
		}
	}
}

// Who cannot be reached any more, and has no successor, is not waited for
// longer than patience.
func TestFollowEnds(t *testing.T) {
	site := newFakeSite(t)
	s := newSite(Config{Directors: []string{site.directorAt}, Timeout: DefaultConfig().Timeout}, nil)
	line := tapped{peer{"rec-1", closedPort(t)}, site.recorders[0].channels[0]}
	gone := exit(ExitUnreached, "connection refused")
	if _, ok := s.follow(t.Context(), line, gone, time.Now().Add(glance/2)); ok {
		t.Error("nobody holds it")
	}
	s.found = []peer{{"rec-1", site.recorderAt[0]}}
	if next, ok := s.follow(t.Context(), line, gone, time.Now().Add(time.Minute)); !ok || next.peer.address != site.recorderAt[0] {
		t.Error(next, ok)
	}
	if _, ok := s.follow(t.Context(), line, failed("broken"), time.Now().Add(time.Minute)); ok {
		t.Error("followed after an error of the recorder's own")
	}
}

func TestFindPlayer(t *testing.T) {
	only := func(name string) func(string) (string, error) {
		return func(s string) (string, error) {
			if s == name {
				return "/usr/bin/" + s, nil
			}
			return "", os.ErrNotExist
		}
	}
	for _, p := range players {
		if got, err := findPlayer(only(p[0]), ""); err != nil || got[0] != p[0] {
			t.Errorf("%s: %v %v", p[0], got, err)
		}
	}
	if _, err := findPlayer(only("none"), "write a file"); err == nil || !strings.Contains(err.Error(), "or: write a file") {
		t.Error(err)
	}
}

// A real player gets all bytes; one that leaves early is no error, one that
// fails is.
func TestPipe(t *testing.T) {
	var errs bytes.Buffer
	i := &invocation{errs: &errs}
	file := filepath.Join(t.TempDir(), "heard")
	feed := func(w io.Writer) error {
		_, err := io.Copy(w, iotest.HalfReader(strings.NewReader("audio")))
		return err
	}
	if err := i.pipe(t.Context(), []string{"sh", "-c", `cat > "$0"`, file}, "", feed); err != nil {
		t.Error(err)
	}
	if got, _ := os.ReadFile(file); string(got) != "audio" {
		t.Errorf("heard %q", got)
	}
	endless := func(w io.Writer) error {
		for {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return err
			}
		}
	}
	if err := i.pipe(t.Context(), []string{"true"}, "", endless); err != nil {
		t.Error(err)
	}
	if err := i.pipe(t.Context(), []string{"sh", "-c", "echo no device >&2; exit 1"}, "write a file", feed); statusOf(err) != ExitFailed || err.Error() != "sh failed (exit status 1); write a file" || errs.String() != "no device\n" {
		t.Error(err, errs.String())
	}
}

func TestConfigCheck(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "recctl-site.toml")
	if err := os.WriteFile(file, []byte("directors = []\nrecorders = [\"nowhere\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := "recctl: " + file + `: recorders[0]: "nowhere": want HOST:PORT, as in "127.0.0.1:7401"` + "\n"
	if r := recctl(t, "", "config", "check", file); r.status != ExitUsage || r.errs != want {
		t.Errorf("%+v, want %s", r, want)
	}
	if r := recctl(t, "", "config", "check", file, "--json"); r.status != ExitUsage || !strings.Contains(r.out, `"kind":"recctl","faults":[{"key":"recorders[0]",`) {
		t.Errorf("%+v", r)
	}
}

// Every file we ship is recognised and without fault.
func TestConfigCheckShipped(t *testing.T) {
	files, err := filepath.Glob("../etc/*.toml")
	if err != nil || len(files) != len(kinds) {
		t.Errorf("%d files for %d kinds, %v", len(files), len(kinds), err)
	}
	for _, f := range files {
		kind := strings.TrimSuffix(filepath.Base(f), ".toml")
		if r := recctl(t, "", "config", "check", f); r.status != ExitDone || r.out != f+": ok ("+kind+")\n" {
			t.Errorf("%s: %+v", f, r)
		}
	}
}

// The file we ship names every key with its default.
func TestShippedConfig(t *testing.T) {
	const file = "../etc/recctl.toml"
	got, err := config.Load(file, Config{})
	if err != nil || !reflect.DeepEqual(got, DefaultConfig()) {
		t.Errorf("%+v, %v", got, err)
	}
}

// A watch goes on over a site that does not answer, until interrupted.
func TestWatch(t *testing.T) {
	fake := newFakeSite(t)
	for _, c := range []struct {
		site *site
		want string
	}{
		{newSite(Config{Directors: []string{fake.directorAt}, Timeout: DefaultConfig().Timeout}, nil), "rec-1"},
		{newSite(Config{Directors: []string{closedPort(t)}, Timeout: DefaultConfig().Timeout}, nil), "no director answered"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		out := &watcher{until: 2, then: cancel}
		i := &invocation{out: out, errs: io.Discard, zone: time.UTC, now: func() time.Time { return noon }}
		if err := i.watchStatus(ctx, c.site, false); err != nil || strings.Count(out.String(), c.want) < 2 {
			t.Errorf("%v, %s", err, out)
		}
	}
}

// watcher counts writes and calls then after so many.
type watcher struct {
	bytes.Buffer
	until int
	then  func()
}

func (w *watcher) Write(p []byte) (int, error) {
	if w.until--; w.until == 0 {
		w.then()
	}
	return w.Buffer.Write(p)
}

// The demo's steps stay; where nothing can be redrawn, the floor is a line
// every two seconds.
func TestDemoView(t *testing.T) {
	play := func(terminal bool) string {
		var out bytes.Buffer
		i := &invocation{out: &out, terminal: terminal, zone: time.UTC}
		v := &demoView{invocation: i, out: &out, screen: screen{out: &out, terminal: terminal}}
		v.Event(900*time.Millisecond, "switch up")
		for n := range 8 {
			v.Sample(demo.Sample{Elapsed: time.Duration(n+1) * 600 * time.Millisecond, Turrets: 40, Channels: 160, Attached: 100 + n, Calls: 2, Legs: 3, PacketsPS: 5012.4, JournalLag: 3 << 19, Leads: "dir-a", Recorders: "3 ready"})
		}
		v.Event(5*time.Second, "SIGKILL")
		return out.String()
	}
	const plain = `   0.9 s  switch up
   2.4 s  40 turrets, 103 of 160 channels attached, 2 calls, 3 legs, 5012 packets/s, journal 1.5 MiB, dir-a leads, recorders: 3 ready, no alarms
   4.8 s  40 turrets, 107 of 160 channels attached, 2 calls, 3 legs, 5012 packets/s, journal 1.5 MiB, dir-a leads, recorders: 3 ready, no alarms
   5.0 s  SIGKILL
`
	if got := play(false); got != plain {
		t.Errorf("%s\nwant:\n%s", got, plain)
	}
	if got := play(true); strings.Count(got, "ELAPSED") != 9 || !strings.Contains(got, "\x1b[3A\r\x1b[J   5.0 s  SIGKILL\n") {
		t.Errorf("%q", got)
	}
}

func TestDemoErrors(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir())
	for _, c := range []struct {
		args   []string
		status int
		text   string
	}{
		{[]string{"demo", "--turrets", "0"}, ExitUsage, "--turrets 0: want 1 to 1000"},
		{[]string{"demo", "--dir", full}, ExitFailed, "is not empty; give --dir a new directory"},
		{[]string{"demo", "--dir", filepath.Join(full, "new")}, ExitFailed, "find tandem-turretsim: it is neither beside"},
	} {
		if r := recctl(t, "", c.args...); r.status != c.status || !strings.Contains(r.errs, c.text) || r.out != "" {
			t.Errorf("%v: %+v", c.args, r)
		}
	}
}

// Of a pair of directors a check says how far the one's orders and the other's are apart.
func TestConfigCheckTiming(t *testing.T) {
	dir := t.TempDir()
	file, key := filepath.Join(dir, "director.toml"), filepath.Join(dir, "monitor.key")
	if err := os.WriteFile(key, []byte("sixteen characters"), 0o600); err != nil {
		t.Fatal(err)
	}
	shipped, err := os.ReadFile("../etc/director.toml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(`peer = ""`, `peer = "127.0.0.1:7411"`, `peer_monitor = []`, `peer_monitor = ["127.0.0.1:10032"]`, `voters = []`, `voters = ["127.0.0.1:7402"]`,
		`monitor_key_file = ""`, fmt.Sprintf("monitor_key_file = %q", key), `profile = "steady"`, `profile = "fast"`).Replace(string(shipped))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	want := file + ": ok (director)\nprofile fast: after the last lease its successor acts 449.80 ms later at the earliest, and no order of its own is obeyed after 420.15 ms\n"
	if r := recctl(t, "", "config", "check", file); r.status != ExitDone || r.out != want {
		t.Errorf("%+v\nwant %s", r, want)
	}
}

// What a demo prints in the end can be pasted into a shell.
func TestDemoReportCommands(t *testing.T) {
	var out bytes.Buffer
	i := &invocation{out: &out, zone: time.UTC}
	i.demoReport(demo.Result{Config: "/tmp/Ann's floor/recctl.toml", Media: "/tmp/Ann's floor", Example: "c1", Twin: true}, true)
	for _, want := range []string{`--config '/tmp/Ann'\''s floor/recctl.toml' status --watch` + "\n", "export --merge c1\n", "drill sigkill\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s\nwant %s", out.String(), want)
		}
	}
	if got := quoted("/tmp/tandem-demo-12/recctl.toml"); got != "/tmp/tandem-demo-12/recctl.toml" {
		t.Error(got)
	}
}
