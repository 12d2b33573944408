package director

import (
	"errors"
	"log/slog"
	"slices"
	"testing"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/director/provider"
	"tandem/director/provider/unigy"
	"tandem/internal/authority"
)

// What a director reports as its epoch is released on its behalf when its
// process ends: it must be its own, or none.
func TestReportNamesNoEpochOfThePeer(t *testing.T) {
	d, clock := assembled(t)
	for _, c := range []struct {
		director authority.Director
		want     uint64
	}{
		{authority.Director{Phase: authority.Passive, Seen: 5}, 0},
		{authority.Director{Phase: authority.Candidate, Seen: 5}, 0},
		{authority.Director{Phase: authority.Candidate, Seen: 5, Epoch: 6}, 6},
		{authority.Director{Phase: authority.Active, Seen: 6, Epoch: 6}, 6},
	} {
		d.pair.elector.director = c.director
		d.pair.elector.publish(clock())
		if got := d.pair.report().Epoch; got != c.want {
			t.Errorf("%s that has seen %d: reports epoch %d, want %d", c.director.Phase, c.director.Seen, got, c.want)
		}
	}
}

// A reign that is to end, and still waits for somebody, is not put in charge:
// what another director did since is not in its picture.
func TestEndedReignIsNotEnthroned(t *testing.T) {
	d, _ := assembled(t)
	old := d.loop()
	d.pair.abdicate()
	d.pair.enthrone(4)
	d.pair.lead(4)
	if n := len(old.inbox); n != 0 {
		t.Errorf("told %d times", n)
	}
	next, err := d.newReign()
	if err != nil {
		t.Fatal(err)
	}
	d.reign.Store(next)
	d.pair.enthrone(4)
	if n := len(next.loop.inbox); n != 1 {
		t.Errorf("the next one is told %d times, want 1", n)
	}
}

// assembled is a director of a pair of which nothing runs.
func assembled(t *testing.T) (*director, func() authority.Instant) {
	cfg := testConfig(RecorderConfig{Name: "rec-1", Address: "rec-1:7402"})
	cfg.Failover.Preferred, cfg.Failover.Peer, cfg.Failover.Voters = true, "dir-b:7401", []string{"rec-1:7402"}
	clock := func() authority.Instant { return 1 }
	d, err := assemble(cfg, world{
		client: func() client { return &wire{} }, clock: clock,
		platform: func(unigy.Config, func(provider.Event)) (platform, error) { return &outlet{}, nil },
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	first, err := d.newReign()
	if err != nil {
		t.Fatal(err)
	}
	d.reign.Store(first)
	return d, clock
}

// A channel was being moved when the director died and the recorder that it
// was moved off came back: both hold it, and the dialog that is read first is
// older than what the switch was told last. Neither lets go before the switch
// has answered.
func TestStaleDialogClosesNothing(t *testing.T) {
	f := newFloor(testConfig(RecorderConfig{Name: "rec-1", Address: "rec-1:7402"}, RecorderConfig{Name: "rec-2", Address: "rec-2:7402"}), noon, slog.New(slog.DiscardHandler))
	id := mixID("s1", 1)
	was, is := provider.Endpoint{Host: "rec-1", Port: 20_000}, provider.Endpoint{Host: "rec-2", Port: 20_000}
	holds := func(recorder string, at provider.Endpoint) *tandemv1.Inventory {
		return &tandemv1.Inventory{Recorder: recorder, Group: "primary", BootId: recorder, Channels: []*tandemv1.HeldChannel{{
			Channel: &tandemv1.Channel{Id: string(id), Copy: "A", Session: &tandemv1.Session{Id: "s1", Device: "t-s1"}}, Endpoint: endpointProto(at), Dialog: []byte(at.Host),
		}}}
	}
	f.recorderHeard(noon, "rec-1", holds("rec-1", was))
	f.recorderHeard(noon, "rec-2", holds("rec-2", is))
	f.recorderFenced(noon, "rec-1", f.epoch, holds("rec-1", was))
	f.apply(noon, provider.Adopted{Channel: id, Endpoint: was})
	f.take()
	f.recorderFenced(noon, "rec-2", f.epoch, holds("rec-2", is))
	if cause, closes := f.recorders["rec-2"].closes[id]; closes {
		t.Errorf("rec-2, to which the switch sends, is to close the channel: %s", cause)
	}
	if !slices.ContainsFunc(f.take(), func(a action) bool { at, is := a.(attach); return is && at.Channel == id && at.Endpoint == was }) {
		t.Fatal("the switch is not asked")
	}
	f.apply(noon, provider.Attached{Channel: id, Endpoint: was, Dialog: []byte("newer")})
	f.tick(noon.Add(beat))
	f.tick(noon.Add(linger + 2*beat))
	if _, closes := f.recorders["rec-2"].closes[id]; !closes {
		t.Error("rec-2 may not let go although the media has moved")
	}
}

// An adopted dialog may have ended while no director was there to hear of it:
// as soon as its recorder finds the channel dead the switch is asked.
func TestDeadAdoptedDialogIsAskedForAtOnce(t *testing.T) {
	r := started(t, "rec-1")
	r.tell(logOn("s1", r.now)...)
	r.settle()
	id := mixID("s1", 1)
	stale := r.dialogs[id]
	r.restartDirector()
	r.tell(logOn("s1", r.now)...)
	r.tell(provider.LinkUp{Peer: "switch"}, provider.SnapshotBegin{})
	r.tell(logOn("s1", r.now)...)
	r.tell(provider.SnapshotEnd{})
	r.settle()
	r.wantAttached(id)
	report := &tandemv1.Load{Ready: true, Channels: 2, MaxChannels: 1000, DeadChannels: []string{string(id)}}
	r.f.recorderReports(r.now, "rec-1", report)
	r.act()
	if at := r.asked[id]; at.Endpoint != stale {
		t.Fatalf("the switch is asked for %v, want %v", at.Endpoint, stale)
	}
	r.settle()
	r.pass(beat)
	r.f.recorderReports(r.now, "rec-1", report)
	r.act()
	if _, again := r.asked[id]; again {
		t.Error("asked again although the switch has just answered")
	}
}

// A recorder that a channel has moved off is told to close it until it has
// heard that.
func TestCloseIsRepeatedUntilItIsHeard(t *testing.T) {
	r := started(t, "rec-1", "rec-2")
	r.tell(logOn("s1", r.now)...)
	r.settle()
	id := mixID("s1", 1)
	holder := r.f.recorders[r.holder(id).name]
	other := r.f.recorders["rec-1"]
	if other == holder {
		other = r.f.recorders["rec-2"]
	}
	for _, c := range []struct {
		at   *recorder
		want bool
	}{{other, true}, {holder, false}} {
		c.at.close(id, causeMoved)
		b := r.f.nextBatch(r.now, c.at, true)
		if b == nil || b.closing == nil {
			t.Fatalf("%s is told nothing", c.at.name)
		}
		r.f.batchDone(r.now, c.at, errors.New("connection lost"))
		if _, again := c.at.closes[id]; again != c.want {
			t.Errorf("%s is told again to close: %v, want %v", c.at.name, again, c.want)
		}
	}
}
