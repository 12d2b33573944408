package turretsim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"tandem/internal/config"
	"tandem/internal/cti"
	"tandem/internal/rpc"
	"tandem/turretsim/truth"
)

// Shot is the detail of a fault set off once. Which fields count depends on
// the fault; each has a default that makes sense.
type Shot struct {
	Channel  string          `json:"channel,omitempty"`  // of SIP and RTP faults; empty: as many as Count, in the order of their ids
	Device   string          `json:"device,omitempty"`   // of log_off and log_on; empty: as many as Count
	Count    int             `json:"count,omitempty"`    // default 1
	Duration config.Duration `json:"duration,omitempty"` // default 3s
	Amount   uint32          `json:"amount,omitempty"`   // packets or samples to jump; default 1000
	PPS      int             `json:"pps,omitempty"`      // of flood; default 100000
}

// ErrNoFault is a fault that has no such name.
var ErrNoFault = errors.New("no such fault")

// shots are the faults that Inject knows.
var shots = map[string]func(*Switch, Shot) error{
	"cti_drop":  func(s *Switch, _ Shot) error { s.cti.drop(); return nil },
	"cti_stall": (*Switch).stallCTI,
	"cti_long_line": func(s *Switch, _ Shot) error {
		return s.rawLine(`{"type":"call.offered","call":{"id":"` + strings.Repeat("x", cti.MaxLine) + "\"}}\n")
	},
	"cti_garbage":         func(s *Switch, _ Shot) error { return s.rawLine("}{ \x00\xff this is no JSON\n") },
	"cti_unknown_type":    func(s *Switch, _ Shot) error { return s.strange(cti.Message{Type: "turret.polished"}) },
	"cti_unknown_channel": (*Switch).unknownChannel,
	"restart":             func(s *Switch, _ Shot) error { return s.onFloor(func() { s.floor.restart(s.cti) }) },
	"restart_cti":         func(s *Switch, _ Shot) error { return s.onFloor(func() { s.floor.rename(s.cti) }) },
	"bye":                 (*Switch).byeUnasked,
	"ssrc_change":         (*Switch).changeSSRC,
	"timestamp_jump":      func(s *Switch, shot Shot) error { return s.jump(shot, 0, shot.Amount) },
	"sequence_jump":       func(s *Switch, shot Shot) error { return s.jump(shot, shot.Amount, 0) },
	"flood":               (*Switch).flood,
	"log_off":             (*Switch).logOff,
	"log_on":              (*Switch).logOn,
	"stop_calls":          func(s *Switch, _ Shot) error { return s.onFloor(s.floor.stopCalls) },
	"start_calls":         func(s *Switch, _ Shot) error { return s.onFloor(func() { s.floor.quiet = false }) },
}

// ShotNames are the faults that Inject knows, sorted.
func ShotNames() []string {
	names := make([]string, 0, len(shots))
	for name := range shots {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Inject sets one fault off and notes it in the truth log.
func (s *Switch) Inject(name string, shot Shot) error {
	run, ok := shots[name]
	if !ok {
		return fmt.Errorf("inject %q: %w: want one of %s", name, ErrNoFault, strings.Join(ShotNames(), ", "))
	}
	if shot.Count <= 0 {
		shot.Count = 1
	}
	if shot.Duration <= 0 {
		shot.Duration = config.Duration(3 * time.Second)
	}
	if shot.Amount == 0 {
		shot.Amount = 1000
	}
	if shot.PPS <= 0 {
		shot.PPS = 100_000
	}
	s.truth.Add(truth.Line{Type: truth.TypeFault, At: time.Now(), Name: name, Channel: shot.Channel, Device: shot.Device})
	if err := run(s, shot); err != nil {
		return fmt.Errorf("inject %s: %w", name, err)
	}
	s.log.Info("fault", "name", name, "channel", shot.Channel, "device", shot.Device)
	return nil
}

// SetFaults replaces the standing faults.
func (s *Switch) SetFaults(f Faults) error {
	if err := f.Validate(); err != nil {
		return err
	}
	if f.CTI.Snapshot == "stale" {
		if err := s.onFloor(s.floor.freeze); err != nil {
			return err
		}
	}
	s.faults.Store(&f)
	s.truth.Add(truth.Line{Type: truth.TypeFault, At: time.Now(), Name: "standing"})
	return nil
}

// Faults are the standing faults.
func (s *Switch) Faults() Faults { return *s.faults.Load() }

// freeze keeps the picture that stale snapshots will show.
func (f *floor) freeze() { f.picture, f.pictured = f.snapshot(), true }

var errStopped = errors.New("the switch is not running")

func (s *Switch) onFloor(do func()) error {
	if !s.floor.do(do) {
		return errStopped
	}
	return nil
}

func (s *Switch) stallCTI(shot Shot) error {
	for _, l := range s.cti.all() {
		l.stall(shot.Duration.Std())
	}
	return nil
}

// rawLine sends every subscriber a line that is no message, so without a number.
func (s *Switch) rawLine(line string) error {
	return s.onFloor(func() {
		for l := range s.floor.links {
			l.put([]byte(line))
		}
	})
}

// strange sends every subscriber a message that nothing on the floor stands for.
func (s *Switch) strange(messages ...cti.Message) error {
	return s.onFloor(func() {
		for _, m := range messages {
			s.floor.emit(m)
		}
	})
}

func (s *Switch) unknownChannel(Shot) error {
	leg := cti.Leg{ID: "c0-000000.1", Call: "c0-000000", Session: "T9999-1", User: "u9999", Device: "T9999", Source: "HS.L"}
	nowhere := []string{"T9999-1.m1.A", "T9999-1.m1.B"}
	return s.strange(
		cti.Message{Type: cti.TypeChannelUnavailable, Channel: &cti.Channel{ID: nowhere[0]}},
		cti.Message{Type: cti.TypeLegJoined, Leg: &leg, Channels: nowhere},
		cti.Message{Type: cti.TypeLegMoved, Leg: &leg, Channels: nowhere},
		cti.Message{Type: cti.TypeLegLeft, Leg: &leg},
		cti.Message{Type: cti.TypeCallReleased, Call: &cti.Call{ID: leg.Call}, Cause: "normal"},
		cti.Message{Type: cti.TypeAgentLoggedOff, Session: &cti.Session{ID: leg.Session}, Cause: "user"},
	)
}

// dialogs are those a shot means; none is an error.
func (s *Switch) dialogs(shot Shot) ([]*dialog, error) {
	found := s.phone.held(shot.Channel, shot.Count)
	if len(found) == 0 {
		return nil, fmt.Errorf("no dialog on channel %q", shot.Channel)
	}
	return found, nil
}

func (s *Switch) byeUnasked(shot Shot) error {
	dialogs, err := s.dialogs(shot)
	s.phone.mu.Lock()
	defer s.phone.mu.Unlock()
	for _, d := range dialogs {
		s.phone.hangUp(d, "")
	}
	return err
}

func (s *Switch) changeSSRC(shot Shot) error {
	dialogs, err := s.dialogs(shot)
	for _, d := range dialogs {
		d.shard.newSSRC(d.stream)
	}
	return err
}

func (s *Switch) jump(shot Shot, seq, ts uint32) error {
	dialogs, err := s.dialogs(shot)
	for _, d := range dialogs {
		d.shard.jump(d.stream, seq, ts)
	}
	return err
}

func (s *Switch) flood(shot Shot) error {
	dialogs, err := s.dialogs(shot)
	for _, d := range dialogs {
		d.shard.flood(d.stream, shot.PPS, shot.Duration.Std())
	}
	return err
}

func (s *Switch) logOff(shot Shot) error {
	return s.eachTurret(shot, func(t *turret) bool { return t.session != nil }, func(t *turret) { s.floor.logOff(t, "forced") })
}

func (s *Switch) logOn(shot Shot) error {
	return s.eachTurret(shot, func(t *turret) bool { return t.session == nil }, s.floor.logOn)
}

// eachTurret acts on the turrets a shot means, of those that fit.
func (s *Switch) eachTurret(shot Shot, fits func(*turret) bool, act func(*turret)) error {
	n := 0
	err := s.onFloor(func() {
		for _, t := range s.floor.turrets {
			if fits(t) && (shot.Device == t.device || shot.Device == "" && n < shot.Count) {
				act(t)
				n++
			}
		}
	})
	if err == nil && n == 0 {
		return fmt.Errorf("no turret %q to do that", shot.Device)
	}
	return err
}

// State is what goes on in a switch.
type State struct {
	Server    string    `json:"server"`
	Origin    time.Time `json:"origin"` // of the media clock
	Addrs     Addrs     `json:"addresses"`
	Links     int       `json:"links"` // CTI subscribers
	Sessions  int       `json:"sessions"`
	Channels  int       `json:"channels"`
	Dialogs   int       `json:"dialogs"`
	Calls     int       `json:"calls"`      // ongoing
	CallsMade int       `json:"calls_made"` // since the start
	Legs      int       `json:"legs"`
	SIP       SIPCounts `json:"sip"`
	RTP       RTPCounts `json:"rtp"`
	Faults    Faults    `json:"faults"`
}

// RTPCounts is what the sender has done.
type RTPCounts struct {
	Datagrams uint64 `json:"datagrams"` // RTP and RTCP, extras included
	Failed    uint64 `json:"failed"`    // refused by the kernel
	Reports   uint64 `json:"reports"`   // receiver report blocks heard
	Malformed uint64 `json:"malformed"` // heard, and no RTCP
	LateMS    int64  `json:"late_ms"`   // the worst lateness of a tick
}

// State asks the floor; after Run it is what can still be known.
func (s *Switch) State() State {
	state := State{Origin: s.clock.origin, Addrs: s.Addrs(), Faults: s.Faults()}
	s.floor.do(func() {
		state.Server, state.Links, state.Calls, state.CallsMade = s.floor.server, len(s.floor.links), len(s.floor.calls), s.floor.made
		for _, t := range s.floor.turrets {
			if t.session != nil {
				state.Sessions++
				state.Channels += len(t.session.channels)
			}
			state.Legs += len(t.busy)
		}
	})
	s.phone.mu.Lock()
	state.Dialogs, state.SIP = len(s.phone.dialogs), s.phone.counts
	s.phone.mu.Unlock()
	for _, sh := range s.sender.shards {
		sh.mu.Lock()
		state.RTP.Datagrams += sh.media.datagrams + sh.control.datagrams
		state.RTP.Failed += sh.media.failed + sh.control.failed
		state.RTP.LateMS = max(state.RTP.LateMS, sh.late.Milliseconds())
		sh.mu.Unlock()
		state.RTP.Reports += sh.reports.Load()
		state.RTP.Malformed += sh.malformed.Load()
	}
	return state
}

// serveControl answers the control port until ctx ends.
func (s *Switch) serveControl(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.State()) })
	mux.HandleFunc("GET /faults", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.Faults()) })
	mux.HandleFunc("PUT /faults", s.putFaults)
	mux.HandleFunc("POST /fault/{name}", s.postFault)
	return rpc.Serve(ctx, s.control, mux)
}

// maxBody is more than any fault needs.
const maxBody = 64 << 10

func (s *Switch) putFaults(w http.ResponseWriter, r *http.Request) {
	var f Faults
	err := readJSON(r.Body, &f)
	if err == nil {
		err = s.SetFaults(f)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	writeJSON(w, s.Faults())
}

func (s *Switch) postFault(w http.ResponseWriter, r *http.Request) {
	var shot Shot
	if err := readJSON(r.Body, &shot); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	switch err := s.Inject(r.PathValue("name"), shot); {
	case errors.Is(err, ErrNoFault):
		http.Error(w, err.Error(), http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusConflict)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// readJSON reads one object with no keys of its own invention; an empty body
// is the zero value.
func readJSON(body io.Reader, into any) error {
	d := json.NewDecoder(io.LimitReader(body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read JSON: %w", err)
	}
	return nil
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // the client went away
}
