package watchdog

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// systemd is a unit as the system bus shows it. Each question has a connection
// of its own: they are rare, and none outlives a restart of the bus.
type systemd struct{ name string }

// openSystemd fails where there is no system bus, or nobody on it who knows
// units.
func openSystemd(ctx context.Context, name string) (*systemd, error) {
	s := &systemd{name}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := s.Active(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Active reports whether systemd has the unit running.
func (s *systemd) Active(ctx context.Context) (bool, error) {
	conn, err := dbus.NewSystemConnectionContext(ctx)
	if err != nil {
		return false, fmt.Errorf("ask systemd: %w", err)
	}
	defer conn.Close()
	property, err := conn.GetUnitPropertyContext(ctx, s.name, "ActiveState")
	if err != nil {
		return false, fmt.Errorf("ask systemd about %s: %w", s.name, err)
	}
	return property.Value.Value() == "active", nil
}

// Restart has systemd restart the unit, and waits until that is done.
func (s *systemd) Restart(ctx context.Context) error {
	conn, err := dbus.NewSystemConnectionContext(ctx)
	if err != nil {
		return fmt.Errorf("ask systemd: %w", err)
	}
	defer conn.Close()
	result := make(chan string, 1)
	if _, err := conn.RestartUnitContext(ctx, s.name, "replace", result); err != nil {
		return fmt.Errorf("restart %s: %w", s.name, err)
	}
	select {
	case r := <-result:
		if r != "done" {
			return fmt.Errorf("restart %s: systemd says %s", s.name, r)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("restart %s: %w", s.name, ctx.Err())
	}
}
