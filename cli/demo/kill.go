package demo

import (
	"context"
	"fmt"
	"slices"
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/cli/scenario"
)

// killRecorder picks an instant with live legs, kills the recorder that has
// most of them with SIGKILL, measures until the others keep every channel, and
// later starts it again.
func (f *floor) killRecorder(ctx context.Context) (*RecorderFault, error) {
	if err := f.until(ctx, killAfter); err != nil {
		return nil, err
	}
	var victim *recorder
	if err := f.wait(ctx, legsPatience, "somebody to talk", func() bool {
		victim, f.live = f.busiest(ctx)
		return len(f.live) > 0
	}); err != nil {
		return nil, err
	}
	fault := &RecorderFault{Object: victim.Name, LiveLegs: len(f.live), Detect: -1, Channels: channelsOf(f.inventory(ctx, victim))}
	fault.When = time.Now()
	fault.At = fault.When.Sub(f.began)
	victim.Kill()
	f.say("SIGKILL to %s, %d of its legs live", victim.Name, fault.LiveLegs)
	if err := f.failOver(ctx, victim, fault); err != nil {
		return nil, err
	}
	if err := f.until(ctx, fault.At+returnAfter); err != nil {
		return nil, err
	}
	if err := f.begin(ctx, victim.Process, func() bool { return f.inventory(ctx, victim) != nil }); err != nil {
		return nil, err
	}
	if err := f.wait(ctx, upPatience, victim.Name+" to be taken back", func() bool { return allReady(f.status(ctx)) }); err != nil {
		return nil, err
	}
	fault.Outage = time.Since(fault.When)
	f.say("%s is back, with what it had recorded until it died", victim.Name)
	return fault, nil
}

// failOver waits until the other recorders keep every channel, by the
// director's word and by the packets they got.
func (f *floor) failOver(ctx context.Context, victim *recorder, fault *RecorderFault) error {
	channels := f.options.Turrets * mixes
	if err := f.wait(ctx, upPatience, "the others to take over", func() bool {
		s := f.status(ctx)
		if fault.Detect < 0 && stateOf(s, victim.Name) == "lost" {
			fault.Detect = time.Since(fault.When)
			f.say("the director knows after %d ms", fault.Detect.Milliseconds())
		}
		return fault.Detect >= 0 && scenario.Steady(s)
	}); err != nil {
		return err
	}
	if err := f.wait(ctx, upPatience, fmt.Sprintf("packets on all %d channels", channels), func() bool {
		heard := 0
		for _, r := range f.recorders {
			if r != victim {
				heard += heardSince(f.inventory(ctx, r), fault.When)
			}
		}
		return heard >= channels
	}); err != nil {
		return err
	}
	fault.Steady = time.Since(fault.When)
	f.say("the others keep all %d channels after %d ms", channels, fault.Steady.Milliseconds())
	return nil
}

// busiest is the recorder with most live legs.
func (f *floor) busiest(ctx context.Context) (most *recorder, legs []*tandemv1.LegRecord) {
	for _, r := range f.recorders {
		if all, err := f.ongoing(ctx, r); err == nil && len(all) > len(legs) {
			most, legs = r, all
		}
	}
	return most, legs
}

// stateOf is what the director thinks of a recorder; empty when it does not
// answer or knows none of that name.
func stateOf(s *tandemv1.StatusResponse, name string) string {
	n := slices.IndexFunc(s.GetRecorders(), func(r *tandemv1.RecorderStatus) bool { return r.Name == name })
	if n < 0 {
		return ""
	}
	return s.Recorders[n].State
}

func channelsOf(i *tandemv1.Inventory) map[string]bool {
	all := map[string]bool{}
	for _, c := range i.GetChannels() {
		all[c.GetChannel().GetId()] = true
	}
	return all
}

// heardSince is how many channels got a packet after t.
func heardSince(i *tandemv1.Inventory, t time.Time) int {
	n := 0
	for _, c := range i.GetChannels() {
		if c.LastPacket != nil && c.LastPacket.AsTime().After(t) {
			n++
		}
	}
	return n
}
