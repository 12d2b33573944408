package stories

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tandem/internal/media"
	"tandem/internal/pki"
	"tandem/internal/rpc"
	"tandem/turretsim/truth"
)

// floor is a switch, a recorder and a director, running.
type floor struct {
	t                       testing.TB
	dir, truth, site        string
	control                 string // of the switch
	recorderAt, metricsAt   string
	sim, recorder, director *program
	http                    *http.Client // of a user of recctl
}

// settings are the parts of the files that a story cares about.
type settings struct {
	turrets, mixes int
	floor          string // more of [floor]
	rtp            string // more of the switch's [rtp]
	keep           string
	recorder       string // more of the recorder's file
	paper          *paper // nil: everybody speaks in the clear
}

func newFloor(t testing.TB, s settings) *floor {
	t.Helper()
	dir := t.TempDir()
	f := &floor{t: t, http: rpc.NewClient(), dir: dir, truth: filepath.Join(dir, "truth.jsonl"), site: filepath.Join(dir, "recctl.toml"), control: address(t), recorderAt: address(t), metricsAt: address(t)}
	ctiAt, sipAt, dialAt, directorAt := address(t), address(t), address(t), address(t)
	f.sim = configure(t, dir, "turretsim", fmt.Sprintf(`
control = %q
truth_log = %q
[cti]
listen = %q
[sip]
listen = %q
[rtp]
%s
[floor]
turrets = %d
mixes = %d
%s
`, f.control, f.truth, ctiAt, sipAt, s.rtp, s.turrets, s.mixes, s.floor))
	f.recorder = configure(t, dir, "recorder", fmt.Sprintf(`
control = %q
metrics = %q
dir = %q
[media]
keep = %q
[journal]
file_age = "1s"
[limits]
reserve = 0
%s
%s
`, f.recorderAt, f.metricsAt, filepath.Join(dir, "rec"), s.keep, s.recorder, s.paper.section(pki.Recorder, "rec-1")))
	f.director = configure(t, dir, "director", fmt.Sprintf(`
control = %q
metrics = ""
[[recorder]]
name = "rec-1"
address = %q
[provider.unigy]
servers = [%q]
sip_listen = %q
%s
`, directorAt, f.recorderAt, ctiAt, dialAt, s.paper.section(pki.Director, "dir-a")))
	if err := os.WriteFile(f.site, fmt.Appendf(nil, "directors = [%q]\nrecorders = [%q]\n%s", directorAt, f.recorderAt, s.paper.section(pki.Operator, "ann")), 0o644); err != nil {
		t.Fatal(err)
	}
	if s.paper != nil {
		f.http = s.paper.client("ann")
	}
	f.sim.start()
	f.recorder.start()
	f.director.start()
	want := s.turrets * s.mixes
	eventually(t, time.Minute, fmt.Sprintf("%d channels attached", want), func() bool { return f.attached() == want })
	return f
}

// recctl runs it on this floor and returns what it printed; a nonzero status fails the test.
func (f *floor) recctl(args ...string) []byte {
	f.t.Helper()
	out, err := f.try(args...)
	if err != nil {
		f.t.Fatalf("recctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (f *floor) try(args ...string) ([]byte, error) {
	cmd := exec.Command(filepath.Join(programs(f.t), "recctl"), append([]string{"--config", f.site}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = errors.New(err.Error() + ": " + stderr.String())
	}
	return out, err
}

func (f *floor) attached() int {
	out, err := f.try("--json", "status")
	var status struct {
		Directors []struct{ Channels int }
		Recorders []struct {
			Channels    int
			PacketsPerS float64 `json:"packets_per_s"`
		}
	}
	if err != nil || json.Unmarshal(out, &status) != nil || len(status.Recorders) == 0 || len(status.Directors) == 0 || status.Recorders[0].PacketsPerS == 0 {
		return -1
	}
	return min(status.Recorders[0].Channels, status.Directors[0].Channels)
}

// dialogs is how many channels have a live dialog, as the director counts.
func (f *floor) dialogs() (n int) {
	f.t.Helper()
	for line := range bytes.Lines(f.recctl("--json", "channels")) {
		var c struct{ State string }
		if err := json.Unmarshal(line, &c); err != nil {
			f.t.Fatalf("channels --json: %v: %s", err, line)
		}
		if c.State == "attached" {
			n++
		}
	}
	return n
}

// recorderMetrics are what Prometheus would read, by name.
func (f *floor) recorderMetrics() map[string]float64 {
	f.t.Helper()
	r, err := http.Get("http://" + f.metricsAt + "/metrics")
	if err != nil {
		f.t.Fatal(err)
	}
	defer r.Body.Close()
	values := map[string]float64{}
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), " "); ok && !strings.HasPrefix(name, "#") {
			if values[name], err = strconv.ParseFloat(value, 64); err != nil {
				f.t.Fatal(err)
			}
		}
	}
	return values
}

// row is a leg as recctl calls --json prints it.
type row struct {
	Call, Leg, Device, State string
	Start, End               time.Time
	DurationMS               int64 `json:"duration_ms"`
	GapMS                    int64 `json:"gap_ms"`
}

// name is that of the whole leg, of which a row is one stay.
func (r row) name() string {
	name, _, _ := strings.Cut(r.Leg, "+")
	return name
}

// alone says that no other leg was on the turret at the time.
func (r row) alone(rows []row) bool {
	for _, o := range rows {
		if o.Leg != r.Leg && o.Device == r.Device && o.Start.Before(r.End) && (o.End.IsZero() || o.End.After(r.Start)) {
			return false
		}
	}
	return true
}

func (f *floor) legs() []row {
	f.t.Helper()
	var rows []row
	for line := range bytes.Lines(f.recctl("--json", "calls", "--limit", "100000")) {
		var r row
		if err := json.Unmarshal(line, &r); err != nil {
			f.t.Fatalf("calls --json: %v: %s", err, line)
		}
		rows = append(rows, r)
	}
	return rows
}

// exportLeg returns the format and the bytes of a leg's audio.
func (f *floor) exportLeg(leg string) (media.WAVFormat, []byte) {
	f.t.Helper()
	file := filepath.Join(f.dir, strings.ReplaceAll(leg, "/", "_")+".wav")
	f.recctl("export", "-o", file, leg)
	return f.readWAV(file)
}

// readWAV returns the format and the bytes of a file's audio.
func (f *floor) readWAV(file string) (media.WAVFormat, []byte) {
	f.t.Helper()
	in, err := os.Open(file)
	if err != nil {
		f.t.Fatal(err)
	}
	defer in.Close()
	format, audio, err := media.ReadWAV(in)
	if err != nil {
		f.t.Fatalf("%s: %v", file, err)
	}
	return format, audio
}

// Every call of a floor comes out of the recorder as it was spoken: the tone
// sequence of the switch's log, to the sample, within one packet at both ends.
func TestEveryCallIsExact(t *testing.T) {
	f := newFloor(t, settings{turrets: 12, mixes: 4, keep: "calls", floor: "calls_per_minute = 20.0\ncall_length = \"3s\""})
	time.Sleep(12 * time.Second) // the floor trades
	done := f.legs()
	goesOn := map[string]bool{}
	for _, leg := range done {
		goesOn[leg.name()] = goesOn[leg.name()] || leg.State != "complete"
	}
	done = slices.DeleteFunc(done, func(leg row) bool { return goesOn[leg.name()] })
	if len(done) < 10 {
		t.Fatalf("only %d legs are over", len(done))
	}
	account := f.accountOf(done)
	slices.SortFunc(done, func(a, b row) int { return strings.Compare(a.Leg, b.Leg) })
	var last stay
	for _, leg := range done {
		format, audio := f.exportLeg(leg.Leg)
		if format != (media.WAVFormat{Codec: media.PCMU, SampleRate: 8000}) {
			t.Errorf("%s: exported as %v, it was PCMU on the line", leg.Leg, format)
		}
		check, err := account.CheckLeg(leg.name(), format.Codec, audio)
		if err != nil {
			t.Errorf("%s: %v", leg.Leg, err)
			continue
		}
		next := stay{leg: leg.name(), begins: check.Begins, ends: check.Begins + int64(len(audio)), of: check.Begins + int64(len(audio)) - check.Ends}
		if err := next.follows(last); err != nil || len(check.Differences) > 0 {
			t.Errorf("%s of %d ms: %v, %v", leg.Leg, leg.DurationMS, check, err)
		}
		last = next
		if leg.GapMS != 0 {
			t.Errorf("%s: a gap of %d ms where nothing was lost", leg.Leg, leg.GapMS)
		}
	}
	if err := (stay{}).follows(last); err != nil {
		t.Errorf("%s: %v", last.leg, err)
	}
	t.Logf("%d legs exact", len(done))
	f.readByOthers(done[0])
	f.recctl("verify", "--deep")
}

// accountOf is what the switch's log tells once it has the end of each leg: a
// recorder may have been told of it sooner.
func (f *floor) accountOf(done []row) (account *truth.Account) {
	f.t.Helper()
	eventually(f.t, 30*time.Second, "the switch's log has the end of every leg", func() bool {
		var err error
		if account, err = truth.Load(f.truth); err != nil {
			f.t.Fatal(err)
		}
		over := map[string]bool{}
		for _, l := range account.Legs() {
			over[l.ID] = l.Parts[len(l.Parts)-1].To != 0
		}
		return !slices.ContainsFunc(done, func(r row) bool { return !over[r.name()] })
	})
	return account
}

// stay is where an exported record lies in its leg, in samples. A leg that
// was moved has a record for each stay: LEG, LEG+2, LEG+3 ...
type stay struct {
	leg              string
	begins, ends, of int64
}

// follows wants the stays of one leg to join, and a leg to be there from its
// begin to its end, within one packet each.
func (s stay) follows(last stay) error {
	near := func(a, b int64) bool { return a-b <= truth.PacketSamples && b-a <= truth.PacketSamples }
	switch {
	case s.leg == last.leg && !near(s.begins, last.ends):
		return fmt.Errorf("begins at %d, the stay before ended at %d", s.begins, last.ends)
	case s.leg != last.leg && !near(s.begins, 0):
		return fmt.Errorf("begins at %d of its leg", s.begins)
	case s.leg != last.leg && !near(last.ends, last.of):
		return fmt.Errorf("%s ended at %d of %d", last.leg, last.ends, last.of)
	}
	return nil
}

// readByOthers holds that programs which are not ours read our files.
func (f *floor) readByOthers(leg row) {
	f.t.Helper()
	for _, c := range []struct {
		file, format string
		export       []string
	}{
		{"leg.wav", "wav", []string{"export", "-o", filepath.Join(f.dir, "leg.wav"), leg.Leg}},
		{"call.wav", "wav", []string{"export", "-o", filepath.Join(f.dir, "call.wav"), leg.Call}},
		{"leg.flac", "flac", []string{"export", "--format", "flac", "-o", filepath.Join(f.dir, "leg.flac"), leg.Leg}},
	} {
		f.recctl(c.export...)
		path := filepath.Join(f.dir, c.file)
		if _, err := exec.LookPath("ffprobe"); err != nil {
			f.t.Log("ffprobe is missing (package ffmpeg): not read by it")
		} else if out, err := exec.Command("ffprobe", "-v", "error", "-show_entries", "format=format_name,duration", "-of", "csv=p=0", path).CombinedOutput(); err != nil || !strings.HasPrefix(string(out), c.format+",") {
			f.t.Errorf("ffprobe %s: %v, %s", c.file, err, out)
		}
		if _, err := exec.LookPath("sox"); err != nil {
			f.t.Log("sox is missing (package sox): not read by it")
		} else if out, err := exec.Command("sox", path, "-n", "stat").CombinedOutput(); err != nil || strings.Contains(string(out), "WARN") {
			f.t.Errorf("sox %s: %v, %s", c.file, err, out)
		}
	}
}

// A call in recorded speech equals its source after µ-law, sample for sample.
// The µ-law that the switch is given to speak is another program's, so that our
// own encoder does not judge itself.
func TestSpeechIsExact(t *testing.T) {
	if _, err := exec.LookPath("sox"); err != nil {
		t.Skip("sox is missing: tools/setup installs it")
	}
	sources, _ := filepath.Glob("/usr/share/sounds/alsa/*_*.wav")
	if len(sources) == 0 {
		t.Skip("no recorded speech: tools/setup installs alsa-utils")
	}
	dir := t.TempDir()
	var voices []string
	want := map[string][]byte{}
	for _, source := range sources {
		name := filepath.Base(source)
		speech, mulaw := filepath.Join(dir, name), filepath.Join(dir, name+".ul")
		sox(t, source, "-r", "8000", "-c", "1", "-e", "mu-law", speech)
		sox(t, speech, "-t", "ul", mulaw)
		text, err := os.ReadFile(mulaw)
		if err != nil {
			t.Fatal(err)
		}
		voices = append(voices, fmt.Sprintf("%q", speech))
		want[name] = bytes.ReplaceAll(text, []byte{0x7F}, []byte{0xFF}) // both are zero; a mix has one of them
	}
	f := newFloor(t, settings{turrets: 20, mixes: 1, keep: "calls", rtp: "voice = [" + strings.Join(voices, ", ") + "]",
		floor: "calls_per_minute = 6.0\ncall_length = \"4s\""})
	time.Sleep(12 * time.Second) // the floor talks
	whole, heard := 0, map[string]bool{}
	legs := f.legs()
	for _, leg := range legs {
		if leg.State != "complete" || leg.DurationMS < 2500 || !leg.alone(legs) {
			continue // the files are shorter than that; two legs are mixed on one channel
		}
		_, audio := f.exportLeg(leg.Leg)
		if name := spoken(audio, want); name != "" {
			heard[name] = true
			whole++
		} else {
			t.Errorf("%s of %d ms: holds none of the files whole", leg.Leg, leg.DurationMS)
		}
	}
	if whole == 0 {
		t.Fatal("no leg was long enough")
	}
	t.Logf("%d legs equal their source to the sample; voices heard: %d of %d", whole, len(heard), len(want))
}

// spoken names the file whose µ-law stands whole in the audio, beginning
// within two packets of where the leg does.
func spoken(audio []byte, want map[string][]byte) string {
	for name, speech := range want {
		if at := bytes.Index(audio, speech); at >= 0 && at <= 2*truth.PacketSamples {
			return name
		}
	}
	return ""
}

func sox(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("sox", args...).CombinedOutput(); err != nil {
		t.Fatalf("sox %v: %v\n%s", args, err, out)
	}
}
