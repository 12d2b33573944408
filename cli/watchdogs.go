package cli

import (
	"cmp"
	"context"
	"slices"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
)

func (s *site) watchdog(p peer) tandemv1connect.WatchdogServiceClient {
	return tandemv1connect.NewWatchdogServiceClient(s.http, "http://"+p.address)
}

// guards are the watchdogs of a floor.
type guards struct {
	answers []answer[*tandemv1.WatchdogStatus] // of those that gave one
	silent  []answer[*tandemv1.WatchdogStatus] // those that did not
}

// guards asks the watchdogs that are configured and those named.
func (s *site) guards(ctx context.Context, named []*tandemv1.WatchdogStatus) guards {
	peers := slices.Clone(s.watchdogs)
	for _, w := range named {
		if w.Address != "" {
			peers = append(peers, peer{w.Name, w.Address})
		}
	}
	peers = distinct(peers, func(p peer) string { return p.address })
	var g guards
	for _, a := range ask(ctx, s, peers, s.report) {
		if a.err != nil {
			g.silent = append(g.silent, a)
			continue
		}
		a.peer.name = a.value.Name
		g.answers = append(g.answers, a)
	}
	slices.SortStableFunc(g.answers, func(a, b answer[*tandemv1.WatchdogStatus]) int { return natural(a.peer.name, b.peer.name) })
	return g
}

func (s *site) report(ctx context.Context, p peer) (*tandemv1.WatchdogStatus, error) {
	r, err := s.watchdog(p).Report(ctx, connect.NewRequest(&tandemv1.ReportRequest{}))
	if err != nil {
		return nil, err
	}
	w := cmp.Or(r.Msg.Status, &tandemv1.WatchdogStatus{Name: p.name})
	w.Address = p.address
	return w, nil
}

// missing are the silent ones that somebody said are there. The one that every
// host may have beside a director, and one without a peer has not, is none.
func (g guards) missing(s *site) []answer[*tandemv1.WatchdogStatus] {
	var missing []answer[*tandemv1.WatchdogStatus]
	for _, a := range g.silent {
		if !s.guessed || !slices.Contains(s.watchdogs, a.peer) {
			missing = append(missing, a)
		}
	}
	return missing
}

func (g guards) statuses() []*tandemv1.WatchdogStatus {
	all := make([]*tandemv1.WatchdogStatus, len(g.answers))
	for n, a := range g.answers {
		all[n] = a.value
	}
	return distinct(all, func(w *tandemv1.WatchdogStatus) string { return w.Group + "/" + w.Name })
}

// unwatched are the directors of a pair that no watchdog watches.
func (g group) unwatched(watchdogs []*tandemv1.WatchdogStatus) []string {
	if !g.paired() {
		return nil
	}
	var names []string
	for _, d := range g.directors {
		watches := func(w *tandemv1.WatchdogStatus) bool {
			return w.Watching == d.Name && (w.Group == g.name || w.Group == "")
		}
		if !slices.ContainsFunc(watchdogs, watches) {
			names = append(names, d.Name)
		}
	}
	slices.Sort(names)
	return names
}
