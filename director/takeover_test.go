package director

import (
	"testing"
	"time"

	"tandem/director/provider"
	"tandem/internal/pair"
)

// successor is a rig whose director only listens, on a floor that another one
// leads: it has heard the switch and both recorders.
func successor(t *testing.T) *rig {
	r := newRig(t, "rec-1", "rec-2")
	r.start()
	r.tell(logOn("s1", r.now)...)
	r.settle()
	peer := pair.DefaultConfig()
	peer.Peer = "127.0.0.1:1"
	listening := newFloor(withPeer(testConfig(r.f.recorders["rec-1"].RecorderConfig, r.f.recorders["rec-2"].RecorderConfig), peer), r.now, r.f.log)
	r.f = listening
	clear(r.asked)
	for _, name := range r.names() {
		r.f.recorderHeard(r.now, name, r.recorders[name].inventory())
		r.f.recorderBeats(r.now, name, 0)
	}
	r.tell(provider.LinkUp{Peer: "switch"}, provider.SnapshotBegin{})
	r.tell(logOn("s1", noon)...)
	r.tell(provider.SnapshotEnd{})
	r.pass(time.Second)
	return r
}

func withPeer(cfg Config, peer pair.Config) Config {
	cfg.Failover = peer
	return cfg
}

// A recorder that is lost together with the director that led takes its
// channels' audio with it: whoever goes on with them says since when.
func TestRecorderLostWithItsDirector(t *testing.T) {
	r := successor(t)
	if len(r.f.out) != 0 || r.f.stance != listening {
		t.Fatalf("a director that only listens wants %v", r.f.out)
	}
	holder := r.names()[0]
	if len(r.recorders[holder].channels) == 0 {
		holder = r.names()[1]
	}
	heard := r.now
	r.f.recorderBeats(heard, holder, 0)
	r.recorders[holder].up = false
	r.pass(500 * time.Millisecond)
	r.f.recorderDown(r.now, holder, "silent", heard)
	r.pass(500 * time.Millisecond)
	r.f.enthrone(r.now, 5)
	r.act()
	r.f.guarded(r.now, 5)
	r.settle()
	for name, rec := range r.recorders {
		if name == holder {
			continue
		}
		if len(rec.channels) == 0 {
			t.Fatal("nobody went on with the channels")
		}
		for id := range rec.channels {
			c := rec.continued[id]
			if c == nil || c.GetRecorder() != string(holder) || c.GetSince().AsTime().After(heard) {
				t.Errorf("%s continues %v; %s was last heard at %v", id, c, holder, heard)
			}
		}
	}
	// Who logs on afterwards continues nobody.
	r.tell(logOn("s2", r.now)...)
	r.settle()
	for name, rec := range r.recorders {
		if _, there := rec.channels["s2.m1.A"]; there && rec.continued["s2.m1.A"] != nil {
			t.Errorf("a new session's channel on %s continues %v", name, rec.continued["s2.m1.A"])
		}
	}
}
