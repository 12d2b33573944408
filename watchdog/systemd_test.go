package watchdog

import (
	"bufio"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/godbus/dbus/v5"
)

const unitPath = "/org/freedesktop/systemd1/unit/tandem_2ddirector_2eservice"

// manager is as much of systemd as a watchdog asks for, on a real bus.
type manager struct {
	conn     *dbus.Conn
	state    atomic.Value // of the unit
	result   atomic.Value // of the next job
	restarts atomic.Int64
}

// Subscribe is org.freedesktop.systemd1.Manager's.
func (m *manager) Subscribe() *dbus.Error { return nil }

// RestartUnit is org.freedesktop.systemd1.Manager's: the job ends at once.
func (m *manager) RestartUnit(name, mode string) (dbus.ObjectPath, *dbus.Error) {
	if name != "tandem-director.service" || mode != "replace" {
		return "/", dbus.MakeFailedError(dbus.ErrMsgInvalidArg)
	}
	m.restarts.Add(1)
	const job = dbus.ObjectPath("/org/freedesktop/systemd1/job/1")
	go m.conn.Emit("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager.JobRemoved", uint32(1), job, name, m.result.Load())
	return job, nil
}

// properties are the unit's.
type properties struct{ m *manager }

// Get is org.freedesktop.DBus.Properties'.
func (p properties) Get(_, name string) (dbus.Variant, *dbus.Error) {
	if name != "ActiveState" {
		return dbus.Variant{}, dbus.MakeFailedError(dbus.ErrMsgInvalidArg)
	}
	return dbus.MakeVariant(p.m.state.Load()), nil
}

// bus starts a bus of its own with a manager on it, and makes it the system's
// for this test.
func bus(t *testing.T) *manager {
	t.Helper()
	program, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("no dbus-daemon on this machine")
	}
	daemon := exec.Command(program, "--session", "--nofork", "--print-address")
	out, err := daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	})
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", strings.TrimSpace(address))
	conn, err := dbus.ConnectSystemBus()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	m := &manager{conn: conn}
	m.state.Store("active")
	m.result.Store("done")
	for _, err := range []error{
		conn.Export(m, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"),
		conn.Export(properties{m}, unitPath, "org.freedesktop.DBus.Properties"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if reply, err := conn.RequestName("org.freedesktop.systemd1", dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("name on the bus: %v, %v", reply, err)
	}
	return m
}

func TestUnitIsRestarted(t *testing.T) {
	m := bus(t)
	unit, err := openSystemd(t.Context(), "tandem-director.service")
	if err != nil {
		t.Fatal(err)
	}
	for state, want := range map[string]bool{"active": true, "inactive": false, "failed": false} {
		m.state.Store(state)
		if got, err := unit.Active(t.Context()); err != nil || got != want {
			t.Errorf("%s: %v, %v", state, got, err)
		}
	}
	if err := unit.Restart(t.Context()); err != nil || m.restarts.Load() != 1 {
		t.Errorf("%d restarts, %v", m.restarts.Load(), err)
	}
	m.result.Store("timeout")
	if err := unit.Restart(t.Context()); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("a job that failed: %v", err)
	}
}

func TestNoSystemBus(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+t.TempDir()+"/none")
	if _, err := openSystemd(t.Context(), "tandem-director.service"); err == nil {
		t.Error("found one")
	}
}
