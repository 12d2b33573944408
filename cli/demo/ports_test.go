package demo

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"tandem/cli/process"
	"testing"
	"time"
)

func TestWaitEnds(t *testing.T) {
	f := &floor{dir: "logs", sim: &process.Process{}}
	if err := f.wait(t.Context(), 10*time.Millisecond, "rain", func() bool { return false }); err == nil || err.Error() != "waited 10ms for rain; the logs are in logs" {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.wait(ctx, forever, "", func() bool { return false }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := f.during(t.Context(), func() error { return errors.New("tried") }); err == nil || err.Error() != "tried" {
		t.Error(err)
	}
}

func TestFreePorts(t *testing.T) {
	ports, err := freePorts(8)
	seen := map[string]bool{}
	for _, p := range ports {
		seen[p] = true
	}
	if err != nil || len(seen) != 8 {
		t.Error(ports, err)
	}
}

func TestFreeRange(t *testing.T) {
	first, err := freeRange(50, recorders)
	if err != nil || first%2 != 0 || first < 10_000 || first+100 > 20_000 {
		t.Fatal(first, err)
	}
	taken, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: first + 98})
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if allFree(first, 50, recorders) || !allFree(first, 49, recorders) {
		t.Error("a taken port counts as free, or a free one as taken")
	}
	if _, err := freeRange(5001, recorders); err == nil {
		t.Error("more ports than there are")
	}
}

func TestMakeDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	if got, err := makeDir(dir); got != dir || err != nil {
		t.Error(got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := makeDir(dir); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Error(err)
	}
}
