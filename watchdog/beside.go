package watchdog

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"

	"github.com/BurntSushi/toml"

	"tandem/internal/config"
	"tandem/internal/pair"
)

// beside is what a watchdog has to know of the director on its host. It is
// read from that one's own file, so that it stands in one place.
type beside struct {
	Name     string      `toml:"name"`
	Group    string      `toml:"group"`
	Control  string      `toml:"control"`
	Monitor  string      `toml:"monitor"`
	Failover pair.Config `toml:"failover"`
}

// defaultBeside are the defaults of director.toml.
func defaultBeside() beside {
	return beside{Name: "dir-a", Group: "primary", Control: "127.0.0.1:7401", Monitor: "127.0.0.1:10031", Failover: pair.DefaultConfig()}
}

// errAlone means that there is nothing to watch.
var errAlone = errors.New("the director stands alone: it has no [failover] peer to watch")

// readBeside reads the director's file, and only what concerns a watchdog: the
// rest of it is the director's to judge. errAlone and fs.ErrNotExist are told
// apart from faults.
func readBeside(file string) (beside, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return beside{}, fmt.Errorf("read director's configuration: %w", err)
	}
	b := defaultBeside()
	if _, err := toml.Decode(string(text), &b); err != nil {
		return beside{}, fmt.Errorf("read director's configuration %s: %w", file, err)
	}
	if b.Failover.Alone() {
		return beside{}, fmt.Errorf("%s: %w", file, errAlone)
	}
	var check config.Check
	check.Name("name", b.Name)
	check.Name("group", b.Group)
	check.Addr("control", b.Control)
	check.Addr("monitor", b.Monitor)
	b.Failover.Check(&check, "failover")
	if len(check.Faults) > 0 {
		return beside{}, &config.Faults{File: file, Faults: check.Faults}
	}
	return b, nil
}

// nothingBeside reports whether there is simply no director to watch here.
func nothingBeside(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errAlone) }

// reachable is where a listener is reached from its own host.
func reachable(listen string) string {
	a, err := netip.ParseAddrPort(listen)
	if err != nil || !a.Addr().IsUnspecified() {
		return listen
	}
	loopback := netip.IPv6Loopback()
	if a.Addr().Is4() {
		loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.AddrPortFrom(loopback, a.Port()).String()
}

// holds reports whether a director says by its role that it has authority.
func holds(role string) bool {
	return slices.Contains([]string{"active", "activating", "draining"}, role)
}

// seeks reports whether a director says by its role that it wants authority.
func seeks(role string) bool { return role == "candidate" }
