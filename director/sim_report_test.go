package director

import (
	"log/slog"
	"testing"

	"tandem/director/provider"
	"tandem/director/provider/unigy"
	"tandem/internal/authority"
)

// What a director reports as its epoch is released on its behalf when its
// process ends: it must be its own, or none.
func TestReportNamesNoEpochOfThePeer(t *testing.T) {
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
