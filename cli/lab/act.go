package lab

import (
	"context"
	"fmt"
	"slices"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/cli/process"
	"tandem/cli/scenario"
)

// Act implements scenario.Floor.
func (f *floor) Act(ctx context.Context, a scenario.Action, name string) error {
	switch a { // what is done to the switch
	case scenario.Lose:
		return f.simulator().SetFaults(ctx, fmt.Sprintf(`{"rtp":{"loss":%v}}`, lossRate))
	case scenario.Spare:
		return f.simulator().SetFaults(ctx, `{}`)
	}
	m := f.find(name)
	if m == nil {
		return fmt.Errorf("no host %q", name)
	}
	p := m.daemon
	if m.watchdog != nil && m.watchdog.Name == name {
		p = m.watchdog
	}
	switch a {
	case scenario.Kill:
		p.Kill()
	case scenario.Start:
		p.Kill() // what is left of it, should it be frozen still
		return m.do(p.Start)
	case scenario.Freeze:
		p.Freeze()
	case scenario.Thaw:
		p.Thaw()
	case scenario.Promote:
		return f.promote(ctx, name)
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
		return vanish(f.sim, m, media, false)
	case scenario.Deliver:
		return vanish(f.sim, m, media, true)
	case scenario.Drain, scenario.Undrain:
		_, err := f.directorAPI(f.directors[0]).Drain(ctx, connect.NewRequest(&tandemv1.DirectorServiceDrainRequest{Recorder: m.name, Undo: a == scenario.Undrain}))
		return err
	default:
		return fmt.Errorf("the lab cannot %s", a)
	}
	return nil
}

// lossRate is how many packets of each copy are lost, each by a draw of its own:
// a four-hundredth is then lost of both.
const lossRate = 0.05

// find is the host of a name, or the one that a watchdog of that name is on;
// nil for none.
func (f *floor) find(name string) *machine {
	all := f.machines()
	n := slices.IndexFunc(all, func(m *machine) bool {
		return slices.ContainsFunc(m.processes(), func(p *process.Process) bool { return p.Name == name })
	})
	if n < 0 {
		return nil
	}
	return all[n]
}
