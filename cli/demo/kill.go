package demo

import (
	"context"
	"fmt"
	"time"

	tandemv1 "tandem/api/tandem/v1"
)

// killRecorder picks an instant with live legs, kills the recorder with
// SIGKILL, starts it again as systemd would, and measures until every channel
// is kept again.
func (f *floor) killRecorder(ctx context.Context) (Fault, error) {
	if err := f.until(ctx, killAfter); err != nil {
		return Fault{}, err
	}
	var legs []*tandemv1.LegRecord
	if err := f.wait(ctx, legsPatience, "somebody to talk", func() bool {
		legs, _ = f.ongoing(ctx)
		return len(legs) > 0
	}); err != nil {
		return Fault{}, err
	}
	f.live = legs
	channels := f.options.Turrets * mixes

	died := time.Now()
	f.recorder.Kill()
	fault := Fault{At: died.Sub(f.began), What: "recorder_killed", Object: "rec-1", LiveLegs: len(legs), Detect: -1, From: died.Add(-time.Second)}
	f.say("SIGKILL to the recorder, %d legs live", len(legs))
	noticed := func() {
		if state := recorderState(f.status(ctx)); fault.Detect < 0 && state != "" && state != "ready" {
			fault.Detect = time.Since(died)
		}
	}
	if err := f.wait(ctx, forever, "", func() bool { noticed(); return time.Since(died) >= restartAfter }); err != nil {
		return Fault{}, err
	}
	if err := f.recorder.Start(); err != nil {
		return Fault{}, err
	}
	if err := f.wait(ctx, upPatience, "the recorder to answer again", func() bool { noticed(); return f.inventory(ctx) != nil }); err != nil {
		return Fault{}, err
	}
	back := time.Now()
	fault.Outage = back.Sub(died)
	f.say("the recorder answers again after %d ms", fault.Outage.Milliseconds())
	if err := f.wait(ctx, upPatience, fmt.Sprintf("packets on all %d channels", channels), func() bool { return heardSince(f.inventory(ctx), died) >= channels }); err != nil {
		return Fault{}, err
	}
	fault.Steady, fault.To = time.Since(died), time.Now().Add(time.Second)
	f.say("all %d channels are kept again after %d ms", channels, fault.Steady.Milliseconds())
	return fault, nil
}

// recorderState is what the director thinks of its recorder; empty when it
// does not answer or knows none.
func recorderState(s *tandemv1.StatusResponse) string {
	if r := s.GetRecorders(); len(r) > 0 {
		return r[0].State
	}
	return ""
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
