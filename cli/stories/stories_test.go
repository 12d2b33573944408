// Package stories holds what a stranger would try with the real programs:
// whole floors of real processes on loopback, killed with real signals.
//
// The programs are those in the directory that TANDEM_BIN names; make stories
// builds them and sets it. Without it the stories skip.
package stories

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func programs(t testing.TB) string {
	dir := os.Getenv("TANDEM_BIN")
	if dir == "" {
		t.Skip("TANDEM_BIN names no directory of programs: run make stories")
	}
	return dir
}

func TestStories(t *testing.T) {
	bin := programs(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			return furnish(env, bin, "CTI", "SIP", "FAULTS", "DIAL", "DIRECTOR", "RECORDER", "DIRECTOR_METRICS", "RECORDER_METRICS")
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"expand": expand,
			"await":  await,
			"pick":   pick,
			"need":   need,
			"status": status,
		},
		Condition: func(cond string) (bool, error) {
			if name, ok := strings.CutPrefix(cond, "has:"); ok {
				_, err := exec.LookPath(name)
				return err == nil, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
	})
}

// furnish gives a script the programs, a home, and an address for each name.
func furnish(env *testscript.Env, bin string, names ...string) error {
	env.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	env.Setenv("TZ", "UTC")
	env.Setenv("HOME", env.WorkDir)
	for _, name := range names {
		port, err := freePort()
		if err != nil {
			return err
		}
		env.Setenv(name, fmt.Sprintf("127.0.0.1:%d", port))
	}
	return nil
}

// given are the ports that freePort has given away: a program that is not
// started yet holds none, and the kernel may name one twice.
var given sync.Map

// freePort was free for TCP and UDP a moment ago, and is given once.
func freePort() (int, error) {
	for range 100 {
		tcp, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		udp, err := net.ListenPacket("udp4", tcp.Addr().String())
		tcp.Close()
		if err != nil {
			continue
		}
		udp.Close()
		port := tcp.Addr().(*net.TCPAddr).Port
		if _, again := given.LoadOrStore(port, true); !again {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no port is free for TCP and UDP")
}

// expand FILE...: replaces $NAME in the files by the script's variables.
func expand(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		path := ts.MkAbs(name)
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(path, []byte(text), 0o644))
	}
}

// await TIME REGEXP COMMAND...: runs the command until its output matches.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: await TIME REGEXP COMMAND...")
	}
	patience, err := time.ParseDuration(args[0])
	ts.Check(err)
	want, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	var out []byte
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		out = run(ts, args[2:])
		if want.Match(out) != neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("after %v %v still prints:\n%s", patience, args[2:], out)
		}
	}
}

// pick NAME REGEXP COMMAND...: sets the variable to the first group of the
// first match in the command's output.
func pick(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: pick NAME REGEXP COMMAND...")
	}
	out := run(ts, args[2:])
	match := regexp.MustCompile("(?m)" + args[1]).FindSubmatch(out)
	if match == nil {
		ts.Fatalf("%v prints nothing that matches %s:\n%s", args[2:], args[1], out)
	}
	ts.Setenv(args[0], string(match[1]))
}

// need PROGRAM: skips the story, and says why, where the program is missing.
func need(ts *testscript.TestScript, neg bool, args []string) {
	if _, err := exec.LookPath(args[0]); err != nil {
		ts.Fatalf("%s is missing: tools/setup installs it", args[0])
	}
}

// status NUMBER COMMAND...: runs the command, which must end with that status.
func status(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: status NUMBER COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	switch {
	case err == nil && args[0] != "0":
		ts.Fatalf("%v ended with 0, want %s", args[1:], args[0])
	case err != nil && !errors.As(err, &exit):
		ts.Check(err)
	case err != nil && strconv.Itoa(exit.ExitCode()) != args[0]:
		ts.Fatalf("%v ended with %d, want %s", args[1:], exit.ExitCode(), args[0])
	}
}

func run(ts *testscript.TestScript, args []string) []byte {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	path := filepath.Join(strings.Split(ts.Getenv("PATH"), ":")[0], args[0])
	if _, err := os.Stat(path); err != nil {
		path = args[0]
	}
	cmd := exec.CommandContext(ctx, path, args[1:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(os.Environ(), "TZ=UTC", "HOME="+ts.Getenv("HOME"))
	out, _ := cmd.CombinedOutput() // a failing command prints why
	return out
}

// Two programs of a story never get one address.
func TestPortsAreGivenOnce(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		at := address(t)
		if seen[at] {
			t.Fatalf("%s is given twice", at)
		}
		seen[at] = true
	}
}
