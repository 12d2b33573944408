package turretsim

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// niceVariable has the test run itself again, as a switch of that nice value.
const niceVariable = "TANDEM_TEST_NICE"

func TestMain(m *testing.M) {
	if text := os.Getenv(niceVariable); text != "" {
		os.Exit(runNice(text))
	}
	os.Exit(m.Run())
}

// runNice is a short life of a switch; it writes what nice value it had in the end.
func runNice(text string) int {
	cfg := DefaultConfig()
	cfg.Control, cfg.CTI.Listen, cfg.SIP.Listen = "", "127.0.0.1:0", "127.0.0.1:0"
	var err error
	if cfg.Nice, err = strconv.Atoi(text); err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		err = Run(ctx, cfg)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	raw, _ := unix.Getpriority(unix.PRIO_PROCESS, 0)
	fmt.Println("nice", 20-raw) // as getpriority(2) returns it
	return 0
}

// A switch has the priority that its file asks for, as recorders have theirs.
func TestNice(t *testing.T) {
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := 20 - raw + 1 // anybody may be nicer than before
	if want > 19 {
		want = 18
		if os.Getuid() != 0 {
			t.Skip("wants a priority above the lowest: nobody but root gets that")
		}
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", niceVariable, want))
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, fmt.Appendf(nil, "nice %d\n", want)) {
		t.Errorf("want nice %d: %v\n%s", want, err, out)
	}
}
