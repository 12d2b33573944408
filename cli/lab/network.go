package lab

import (
	"fmt"
	"os"

	"tandem/cli/scenario"
)

// The lab's two networks. Nobody else sees the addresses.
const (
	media   = "media"
	control = "control"
)

// place is a host's number on both networks.
type place int

// The places of the lab; recorders follow from firstRecorder on, those of a
// second group from firstTwin on.
const (
	switchPlace   place = 1
	directorPlace place = 2
	peerPlace     place = 3
	witnessPlace  place = 4
	twinPlace     place = 5
	firstRecorder place = 11
	firstTwin     place = 101
)

// at is the address of a place on a network.
func (p place) at(network string) string {
	if network == media {
		return fmt.Sprintf("10.78.0.%d", p)
	}
	return fmt.Sprintf("10.77.0.%d", p)
}

// wires is the host that stands for everything between hosts: a bridge for
// each network, and the far end of every cable.
type wires struct{ *host }

func newWires() (*wires, error) {
	h, err := newHost("wires")
	if err != nil {
		return nil, err
	}
	for _, network := range []string{media, control} {
		for _, args := range [][]string{{"link", "add", network, "type", "bridge", "forward_delay", "0"}, {"link", "set", network, "up"}} {
			if err := h.run("ip", args...); err != nil {
				h.close()
				return nil, err
			}
		}
	}
	return &wires{h}, nil
}

// plug connects a host to a network. On the host the device is called like
// the network, here the far end like both.
func (w *wires) plug(h *host, network string, p place) error {
	far := farEnd(h, network)
	here := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.net.Fd())
	for _, args := range [][]string{
		{"link", "add", far, "type", "veth", "peer", "name", network, "netns", here},
		{"link", "set", far, "master", network, "up"},
	} {
		if err := w.run("ip", args...); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"addr", "add", p.at(network) + "/24", "dev", network},
		{"link", "set", network, "up"},
	} {
		if err := h.run("ip", args...); err != nil {
			return err
		}
	}
	return nil
}

// farEnd fits the 15 characters a device's name may have.
func farEnd(h *host, network string) string { return h.name + "-" + network[:1] }

// pull takes a host's cable out of the network: the host sees its carrier go.
func (w *wires) pull(h *host, network string) error {
	return w.run("ip", "link", "set", farEnd(h, network), "down")
}

// put is the inverse of pull.
func (w *wires) put(h *host, network string) error {
	return w.run("ip", "link", "set", farEnd(h, network), "up")
}

// nowhere is the address of no network card.
const nowhere = "02:00:00:00:00:00"

// vanish has what one host sends to another's address vanish on the way, with
// no cable pulled and nobody told, or no more.
func vanish(from, to *machine, network string, undo bool) error {
	if undo {
		return from.run("ip", "neigh", "del", to.place.at(network), "dev", network)
	}
	return from.run("ip", "neigh", "replace", to.place.at(network), "lladdr", nowhere, "dev", network, "nud", "permanent")
}

// spoil puts a relay into a host's cable to a network: its far end leaves the
// bridge, and what comes out of it goes through the relay to the bridge.
func (w *wires) spoil(h *host, network string, q scenario.Quality, seed uint64) (*relay, error) {
	far, in, out := farEnd(h, network), "relay-in", "relay-out"
	for _, args := range [][]string{
		{"link", "set", far, "nomaster"},
		{"link", "add", in, "type", "veth", "peer", "name", out},
		{"link", "set", in, "up"},
		{"link", "set", out, "master", network, "up"},
	} {
		if err := w.run("ip", args...); err != nil {
			return nil, err
		}
	}
	return newRelay(w, far, in, q, seed)
}
