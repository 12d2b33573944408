package lab

import (
	"context"
	"fmt"
	"slices"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/cli/scenario"
)

// nowhere is the address of no network card.
const nowhere = "02:00:00:00:00:00"

// Act implements scenario.Floor.
func (f *floor) Act(ctx context.Context, a scenario.Action, recorder string) error {
	n := slices.IndexFunc(f.recorders, func(m *machine) bool { return m.name == recorder })
	if n < 0 {
		return fmt.Errorf("no recorder %q", recorder)
	}
	m := f.recorders[n]
	switch a {
	case scenario.Kill:
		m.daemon.Kill()
	case scenario.Start:
		return m.do(m.daemon.Start)
	case scenario.Freeze:
		m.daemon.Freeze()
	case scenario.Thaw:
		m.daemon.Thaw()
	case scenario.CutMedia:
		return f.wires.pull(m.host, media)
	case scenario.JoinMedia:
		return f.wires.put(m.host, media)
	case scenario.CutControl:
		return f.wires.pull(m.host, control)
	case scenario.JoinCtl:
		return f.wires.put(m.host, control)
	case scenario.FillDisk:
		return m.do(m.disk.fill)
	case scenario.FreeDisk:
		return m.do(m.disk.free)
	case scenario.SlowDisk:
		return m.disk.stall(m.host)
	case scenario.QuickDisk:
		return m.disk.flow()
	case scenario.BlackHole:
		// The switch believes that this is the recorder's card; its frames go out and nobody takes them.
		return f.sim.run("ip", "neigh", "replace", m.place.at(media), "lladdr", nowhere, "dev", media, "nud", "permanent")
	case scenario.Deliver:
		return f.sim.run("ip", "neigh", "del", m.place.at(media), "dev", media)
	case scenario.Drain, scenario.Undrain:
		_, err := f.directorAPI().Drain(ctx, connect.NewRequest(&tandemv1.DirectorServiceDrainRequest{Recorder: m.name, Undo: a == scenario.Undrain}))
		return err
	default:
		return fmt.Errorf("the lab cannot %s", a)
	}
	return nil
}
