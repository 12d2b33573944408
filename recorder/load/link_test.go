package load

import (
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// inNetwork runs f on a network of its own: this thread's, which ends with it.
func inNetwork(t *testing.T, f func(ip func(command string))) {
	t.Helper()
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Skip("the ip program is not installed")
	}
	done := make(chan string)
	go func() {
		runtime.LockOSThread() // and never unlocked: nobody else gets this thread
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- "a network namespace is not permitted: " + err.Error()
			return
		}
		f(func(command string) {
			if out, err := exec.Command(ip, strings.Fields(command)...).CombinedOutput(); err != nil {
				t.Errorf("ip %s: %v: %s", command, err, out)
			}
		})
		close(done)
	}()
	if why := <-done; why != "" {
		t.Skip(why)
	}
}

func TestLink(t *testing.T) {
	inNetwork(t, func(ip func(string)) {
		ip("link set lo up")
		ip("link add media0 type veth peer name far0")
		ip("addr add 192.0.2.1/24 dev media0")
		ip("link set media0 up")
		ip("link set far0 up")
		link, err := FindLink(netip.MustParseAddr("192.0.2.1"))
		if err != nil || link == nil {
			t.Errorf("%v, %v", link, err)
			return
		}
		defer link.Close()
		for _, c := range []struct{ change, want string }{
			{"link show", ""},
			{"link set far0 down", "media0 has no carrier"},
			{"link set far0 up", ""},
			{"link set media0 down", "media0 is switched off"},
			{"link set media0 up", ""},
			{"link set far0 down", "media0 has no carrier"},
			{"link del far0", "media0 is gone"},
		} {
			ip(c.change)
			if why, err := link.Down(); why != c.want || err != nil {
				t.Errorf("after ip %s: %q, %v; want %q", c.change, why, err, c.want)
			}
		}
	})
}

func TestNoLink(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "127.0.0.2", "::1", "203.0.113.77"} {
		if link, err := FindLink(netip.MustParseAddr(addr)); link != nil || err != nil {
			t.Errorf("%s: %+v, %v", addr, link, err)
		}
	}
}

// Whatever the kernel answers: flags of a whole message, or an error.
func FuzzParseLink(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 32))
	f.Add(append([]byte{32, 0, 0, 0, unix.RTM_NEWLINK, 0}, make([]byte, 26)...))
	f.Add(append([]byte{36, 0, 0, 0, unix.NLMSG_ERROR, 0}, make([]byte, 30)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := parseLink(b); err == nil && len(b) < 32 {
			t.Errorf("%x is no answer", b)
		}
	})
}
