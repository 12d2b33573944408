package installtest

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/cli/audit"
	"tandem/cli/scenario"
	"tandem/internal/rpc"
	"tandem/turretsim/truth"
)

// floor is how large the simulated floor is.
const (
	turrets  = 12
	mixes    = 3
	channels = turrets * mixes
)

// site is the hosts of the document, and the switch.
type site struct {
	t     *testing.T
	hosts map[string]*host
	steps []step
	truth string // the switch's log
	sim   scenario.Simulator
}

// newSite has fresh hosts that are on, each with the package in root's home.
func newSite(t *testing.T) *site {
	t.Helper()
	unpack(t)
	needsHosts(t)
	s := &site{t: t, hosts: map[string]*host{}, steps: readSteps(t), truth: filepath.Join(os.Getenv(inside), "truth.jsonl")}
	for _, name := range slices.Sorted(maps.Keys(addresses)) {
		s.hosts[name] = newHost(t, name)
		s.deliver(name, built(t, "*.deb"))
	}
	s.everywhere((*host).turnOn)
	return s
}

// use has what follows fail another test: a part of the one that made the site.
func (s *site) use(t *testing.T) {
	s.t = t
	for _, h := range s.hosts {
		h.t = t
	}
}

// everywhere does something to all hosts at the same time.
func (s *site) everywhere(do func(*host)) {
	var all sync.WaitGroup
	for _, h := range s.hosts {
		all.Go(func() { do(h) })
	}
	all.Wait()
	if s.t.Failed() {
		s.t.FailNow()
	}
}

// built is the one file of the packages that a pattern names.
func built(t *testing.T, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(os.Getenv(packages), pattern))
	if err != nil || len(files) != 1 {
		t.Fatalf("want one %s: %v, %v", pattern, files, err)
	}
	return files[0]
}

// deliver puts a package where the document has it, in place of an older one.
func (s *site) deliver(name, file string) {
	s.t.Helper()
	home := filepath.Join(s.hosts[name].disk, "root")
	old, _ := filepath.Glob(filepath.Join(home, "tandem_*.deb"))
	for _, f := range old {
		if err := os.Remove(f); err != nil {
			s.t.Fatal(err)
		}
	}
	command(s.t, "cp", file, home)
}

// follow runs the document's steps of one purpose, in its order: on several
// hosts at once where it is the beginning, else on one after the other.
func (s *site) follow(purpose string) {
	s.t.Helper()
	for _, step := range s.steps {
		if step.purpose != purpose {
			continue
		}
		began := time.Now()
		var all sync.WaitGroup
		for _, name := range step.hosts {
			h := s.hosts[name]
			work := func() {
				if out, err := h.try(step.script); err != nil {
					s.t.Errorf("docs/install.md:%d on %s: %v\n%s\n%s", step.line, name, err, step.script, out)
				}
			}
			if all.Go(work); purpose != "" {
				all.Wait()
			}
		}
		all.Wait()
		if s.t.Failed() {
			s.t.FailNow()
		}
		s.t.Logf("docs/install.md:%d on %v: %v", step.line, step.hosts, time.Since(began).Round(10*time.Millisecond))
	}
}

// startSwitch starts the simulated switch at the site's network.
func (s *site) startSwitch() {
	s.t.Helper()
	dir := os.Getenv(inside)
	config := filepath.Join(dir, "turretsim.toml")
	write(s.t, config, 0o644, fmt.Sprintf(`
control = "127.0.0.1:6580"
truth_log = %q
[cti]
listen = "%[2]s:6500"
[sip]
listen = "%[2]s:5060"
[rtp]
address = "%[2]s"
[floor]
turrets = %[3]d
mixes = %[4]d
calls_per_minute = 8.0
`, s.truth, switchAddress, turrets, mixes))
	log, err := os.Create(filepath.Join(dir, "turretsim.log"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(os.Getenv(packages), "root/bin/tandem-turretsim"), "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := startFirst(cmd); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	s.sim = scenario.Simulator{Client: rpc.NewClient(), URL: "http://127.0.0.1:6580"}
}

// startFirst starts a program that goes before those of the hosts when the CPU
// is short, as on a machine of its own.
func startFirst(cmd *exec.Cmd) error {
	runtime.LockOSThread() // a priority is a thread's, and what it starts inherits it
	defer runtime.UnlockOSThread()
	before, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return err
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, -10); err != nil {
		return err
	}
	return errors.Join(cmd.Start(), unix.Setpriority(unix.PRIO_PROCESS, 0, 20-before)) // as getpriority(2) returns it
}

// status is what matters of recctl status --json.
type status struct {
	Directors []struct {
		Name, Role, Basis string
		Epoch             uint64
		Channels          int
		Attached          int
	}
	Recorders []struct {
		Name, State string
		Channels    int
		PacketsPerS float64 `json:"packets_per_s"`
	}
}

// hosts of the document's daemons.
var homes = map[string]string{"dir-a": "ldn-1", "dir-b": "ldn-2", "rec-1": "ldn-1", "rec-2": "ldn-2", "rec-3": "ldn-3"}

// leader is the host of the director in charge, and another host that has one.
func (st status) leader() (host, other string, found bool) {
	for _, d := range st.Directors {
		if d.Role != "active" {
			continue
		}
		if homes[d.Name] == "ldn-1" {
			return "ldn-1", "ldn-2", true
		}
		return homes[d.Name], "ldn-1", true
	}
	return "", "", false
}

// packets is how many packets a second the recorder of a host takes.
func (st status) packets(host string) float64 {
	for _, r := range st.Recorders {
		if homes[r.Name] == host {
			return r.PacketsPerS
		}
	}
	return 0
}

// busiest is the host whose recorder has the most to do.
func (st status) busiest() string {
	return slices.MaxFunc(slices.Sorted(maps.Keys(addresses)), func(a, b string) int { return cmp.Compare(st.packets(a), st.packets(b)) })
}

// status asks as an operator on a host does.
func (s *site) status(on string) (st status, err error) {
	out, failed := s.hosts[on].ask("recctl --json status")
	if err := json.Unmarshal(out, &st); err != nil {
		return st, errors.Join(failed, err)
	}
	return st, nil // recctl fails as well when it shows a host that is gone
}

// recorded is nil when a director is in charge with the basis wanted, so many
// recorders are ready, and every channel of the switch is attached.
func (s *site) recorded(on, basis string, recorders int) error {
	st, err := s.status(on)
	if err != nil {
		return err
	}
	ready := 0
	for _, r := range st.Recorders {
		if r.State == "ready" {
			ready++
		}
	}
	for _, d := range st.Directors {
		if d.Role == "active" && d.Basis == basis && d.Attached == channels && ready == recorders {
			return nil
		}
	}
	return fmt.Errorf("%+v", st)
}

// media are the recorders' APIs, as whoever has the operator's certificate sees them.
func (s *site) media() (all []audit.Media) {
	s.t.Helper()
	etc := filepath.Join(s.hosts["ldn-1"].disk, "etc/tandem")
	own, err := tls.LoadX509KeyPair(filepath.Join(etc, "desk.crt"), filepath.Join(etc, "desk.key"))
	if err != nil {
		s.t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(etc, "ca.crt"))
	if err != nil {
		s.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{own}, RootCAs: roots}}}
	s.t.Cleanup(client.CloseIdleConnections)
	for _, name := range slices.Sorted(maps.Keys(addresses)) {
		all = append(all, tandemv1connect.NewMediaServiceClient(client, "https://"+addresses[name]+":7402"))
	}
	return all
}

// settle is how long after an instant the switch's log and the recorders have
// all of it.
const settle = 2 * time.Second

// judge holds the audio that all recorders have of the legs that were live at
// an instant against what the switch sent until now, by the tones in it.
func (s *site) judge(at time.Time) scenario.Judgement {
	s.t.Helper()
	ended := time.Now()
	pause(s.t, settle)
	account, err := truth.Load(s.truth)
	if err != nil {
		s.t.Fatal(err)
	}
	fault := scenario.Fault{At: at, Channels: map[string]bool{}, Ended: ended}
	for _, id := range account.Channels() {
		fault.Channels[id] = true
	}
	judged, err := scenario.Judge(s.t.Context(), account, audit.From(s.media()), fault, scenario.LegsOnly)
	if err != nil {
		s.t.Fatal(err)
	}
	slices.Sort(judged.GapMs)
	v := judged.Verdict
	s.t.Logf("%d live legs, %d ms sent, %d ms recorded, gaps %v ms, unexplained %d ms", judged.LiveLegs, v.SentMS, v.RecordedMS, judged.GapMs, v.UnexplainedMS)
	if judged.LiveLegs == 0 {
		s.t.Fatal("nobody talked: nothing is shown")
	}
	if late := account.Late(); v.SentMS != v.RecordedMS && late >= time.Second {
		s.t.Logf("the switch's own sender was %v late: this machine may be too busy to be judged", late)
	}
	if v.UnexplainedMS > 0 {
		s.t.Errorf("%d ms are missing without a gap: %q", v.UnexplainedMS, v.Findings)
	}
	return judged
}

// nothingMissing judges that of live legs not a packet is missing.
func (s *site) nothingMissing(at time.Time) {
	s.t.Helper()
	if judged := s.judge(at); judged.Verdict.SentMS != judged.Verdict.RecordedMS {
		s.t.Errorf("%d of %d ms are missing: %q", judged.Verdict.SentMS-judged.Verdict.RecordedMS, judged.Verdict.SentMS, judged.Verdict.Findings)
	}
}
