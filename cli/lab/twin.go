package lab

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/cli/audit"
	"tandem/internal/call"
)

// The groups of a floor. The primary is the one that is broken.
const (
	primary   = "primary"
	secondary = "secondary"
)

// twinRecorders are those of the second group: two, so that it spreads, too.
const twinRecorders = 2

// twin is the second group of a floor: a director that stands alone and its
// recorders, for copy B of every mix.
type twin struct {
	director  *machine
	recorders []*machine
}

// addTwin builds its hosts.
func (f *floor) addTwin() (err error) {
	f.twin = &twin{}
	if f.twin.director, err = f.machine("director", "dir-c", twinPlace); err != nil {
		return err
	}
	for n := range twinRecorders {
		m, err := f.machine("recorder", "rec-"+strconv.Itoa(f.options.Recorders+n+1), firstTwin+place(n))
		if err != nil {
			return err
		}
		f.twin.recorders = append(f.twin.recorders, m)
		if m.disk, err = openDisk(m.host, f.recorderDir(m), nil); err != nil {
			return err
		}
	}
	return nil
}

// machines are the twin's, what commands before what is commanded.
func (t *twin) machines() []*machine {
	if t == nil {
		return nil
	}
	return append([]*machine{t.director}, t.recorders...)
}

// copies are those that the switch offers of each mix.
func (f *floor) copies() []call.Copy {
	if f.twin == nil {
		return []call.Copy{call.CopyA}
	}
	return []call.Copy{call.CopyA, call.CopyB}
}

func (f *floor) configureTwin(cti, password string) error {
	if f.twin == nil {
		return nil
	}
	var known []map[string]any
	for _, m := range f.twin.recorders {
		known = append(known, map[string]any{"name": m.name, "address": address(m.place, recorderPort)})
		if err := m.daemon.Configure(f.recorderConfig(m, secondary, f.options.Turrets*f.options.Mixes+spare)); err != nil {
			return err
		}
	}
	m := f.twin.director
	config := f.directorConfig(m, cti, password, known)
	config["group"], config["secondary"] = secondary, true
	return m.daemon.Configure(config)
}

// startTwin brings the second group up, its recorders first.
func (f *floor) startTwin(ctx context.Context) error {
	if f.twin == nil {
		return nil
	}
	for _, m := range append(slices.Clone(f.twin.recorders), f.twin.director) {
		if err := m.do(m.daemon.Start); err != nil {
			return err
		}
	}
	return f.await(ctx, "the second group's recorders to be ready", func() bool { return allReady(f.statusOf(ctx, f.twin.director)) })
}

// allReady tells whether a director sees all its recorders ready.
func allReady(s *tandemv1.StatusResponse) bool {
	return s != nil && !slices.ContainsFunc(s.Recorders, func(r *tandemv1.RecorderStatus) bool { return r.State != "ready" })
}

// TwinStatus implements scenario.TwinFloor.
func (f *floor) TwinStatus(ctx context.Context) (*tandemv1.StatusResponse, error) {
	if f.twin == nil {
		return nil, errNoDirector
	}
	ctx, cancel := context.WithTimeout(ctx, brief)
	defer cancel()
	r, err := f.directorAPI(f.twin.director).Status(ctx, connect.NewRequest(&tandemv1.StatusRequest{}))
	if err != nil {
		return nil, fmt.Errorf("ask the second group: %w", err)
	}
	return r.Msg, nil
}

// mediaOf are recorders, for what they hold.
func mediaOf(recorders []*machine) (all []audit.Media) {
	for _, m := range recorders {
		all = append(all, tandemv1connect.NewMediaServiceClient(m.http, "http://"+address(m.place, recorderPort)))
	}
	return all
}
