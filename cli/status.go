package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	tandemv1 "tandem/api/tandem/v1"
)

func statusCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "the whole floor: directors, recorders, alarms",
		Description: `With --json one object: site, generated, directors[], watchdogs[], recorders[],
headroom[], alarms[]; with --watch one a line each second.`,
		Flags: []cli.Flag{&cli.BoolFlag{DisableDefaultText: true, Name: "watch", Aliases: []string{"w"}, Usage: "show it anew every second until interrupted"}},
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			s, err := i.site(c)
			if err != nil {
				return err
			}
			if c.Bool("watch") {
				return i.watchStatus(c.Context, s, c.Bool("json"))
			}
			floor, err := s.status(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return i.json(statusOfFloor(floor))
			}
			for _, l := range i.statusLines(floor) {
				fmt.Fprintln(i.out, l)
			}
			return nil
		},
	}
}

// watchStatus goes on when the site does not answer: it says so and asks again.
func (i *invocation) watchStatus(ctx context.Context, s *site, asJSON bool) error {
	screen := &screen{out: i.out, terminal: i.terminal}
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for {
		floor, err := s.status(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && asJSON:
			i.warn("%v", err)
		case err != nil:
			screen.draw([]string{i.paint(red, clean(err.Error()))})
		case asJSON:
			if err := i.json(statusOfFloor(floor)); err != nil {
				return err
			}
		default:
			screen.draw(i.statusLines(floor))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
	}
}

func (i *invocation) statusLines(floor *tandemv1.StatusResponse) []string {
	generated := at(floor.Generated)
	directors := table{heading: []string{"DIRECTOR", "GROUP", "ROLE", "EPOCH", "SINCE", "BASIS", "CTI", "SESSIONS", "CHANNELS", "ATTACHED"}}
	for _, d := range floor.Directors {
		directors.add(text(d.Name), text(d.Group), stateCell(d.Role), number("%d", d.Epoch), text(i.clock(at(d.Since))),
			text(d.Basis), stateCell(d.Cti), number("%d", d.Sessions), number("%d", d.Channels), number("%d", d.Attached))
	}
	recorders := table{heading: []string{"RECORDER", "GROUP", "STATE", "SCORE", "CHANNELS", "LEGS", "PACKETS/S", "LOST", "CPU", "DISK FREE", "DISK WRITE", "JOURNAL", "CATALOG", "REASON"}}
	for _, r := range floor.Recorders {
		l := r.Load
		if l == nil || r.State == "lost" { // what it last said of itself is no longer so
			recorders.add(text(r.Name), text(r.Group), stateCell(r.State), number("-"), number("-"), number("-"), number("-"), number("-"),
				number("-"), number("-"), number("-"), number("-"), number("-"), text(r.Reason))
			continue
		}
		recorders.add(text(r.Name), text(r.Group), stateCell(r.State), number("%.2f", r.Score), number("%d", l.Channels), number("%d", l.Legs),
			number("%.0f", l.PacketsPerS), number("%d", l.LostPackets), number("%.1f%%", l.CpuPercent), number("%s", size(l.DiskFreeBytes)),
			number("%.1f ms", l.DiskWriteMs), number("%s", size(l.JournalLagBytes)), number("%d", l.CatalogLag), text(recorderReason(r)))
	}
	watchdogs := table{heading: []string{"WATCHDOG", "WATCHING", "STATE", "LAST PROBE", "PAUSED"}}
	for _, w := range floor.Watchdogs {
		watchdogs.add(text(w.Name), text(w.Watching), stateCell(w.State), number("%d ms", w.LastProbeMs), text(yesNo(w.Paused)))
	}
	lines := []string{i.paint(faint, clean(fmt.Sprintf("site %s, %s", floor.Site, generated.In(i.zone).Format(time.DateTime))))}
	for _, t := range []table{directors, watchdogs, recorders} {
		if more := t.lines(i.colours()); more != nil {
			lines = append(append(lines, ""), more...)
		}
	}
	lines = append(append(lines, ""), i.unsettledLines(floor)...)
	if len(floor.Alarms) == 0 {
		return append(lines, "no alarms")
	}
	for _, a := range floor.Alarms {
		mark := yellow
		if a.Severity == "critical" {
			mark = red
		}
		what := fmt.Sprintf("%s: %s %s", strings.ToUpper(a.Severity), a.What, a.Object)
		lines = append(lines, i.paint(mark, clean(what))+clean(fmt.Sprintf(" since %s: %s", i.clock(at(a.Since)), a.Text)))
	}
	return lines
}

// recorderReason is why a recorder is as it is and, when it drains, how far it
// has come.
func recorderReason(r *tandemv1.RecorderStatus) string {
	switch {
	case r.State != "draining":
		return r.Reason
	case r.Load.Channels == 0:
		return "draining: it is empty"
	}
	return "draining: " + count(r.Load.Channels, "channel") + " left"
}

// unsettledLines say what is not where it should be, and whether a group could
// lose a recorder.
func (i *invocation) unsettledLines(floor *tandemv1.StatusResponse) []string {
	var lines []string
	for _, d := range floor.Directors {
		if d.Unrecorded > 0 {
			lines = append(lines, i.paint(red, clean(fmt.Sprintf("group %s: %s recorded by nobody", d.Group, count(d.Unrecorded, "channel")))))
		}
		if d.Moving > 0 {
			lines = append(lines, i.paint(yellow, clean(fmt.Sprintf("group %s: %s on the move", d.Group, count(d.Moving, "channel")))))
		}
	}
	for _, h := range floor.Headroom {
		mark := yellow
		if h.Enough {
			mark = ""
		}
		lines = append(lines, i.paint(mark, clean(fmt.Sprintf("group %s: %s", h.Group, h.Text))))
	}
	return lines
}

// stateCell colours the words the site uses for how a thing is.
func stateCell(state string) cell {
	c := cell{text: orDash(state)}
	switch state {
	case "ready", "active", "up", "attached", "watching", "complete", "alone":
		c.colour = green
	case "lost", "down", "refused", "interrupted", "cti_outage":
		c.colour = red
	case "recording":
		c.colour = bold
	case "busy", "draining", "waiting", "placed", "dialing", "connecting", "orphaned", "leaving", "candidate", "activating", "linger":
		c.colour = yellow
	}
	return c
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// json prints v on a line of its own.
func (i *invocation) json(v any) error {
	encoder := json.NewEncoder(i.out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return failed("write JSON: %w", err)
	}
	return nil
}

type floorJSON struct {
	Site      string         `json:"site"`
	Generated stamp          `json:"generated"`
	Directors []directorJSON `json:"directors"`
	Watchdogs []watchdogJSON `json:"watchdogs"`
	Recorders []recorderJSON `json:"recorders"`
	Headroom  []headroomJSON `json:"headroom"`
	Alarms    []alarmJSON    `json:"alarms"`
}

type directorJSON struct {
	Name        string `json:"name"`
	Group       string `json:"group"`
	Role        string `json:"role"`
	Epoch       uint64 `json:"epoch"`
	Since       stamp  `json:"since"`
	Preferred   bool   `json:"preferred"`
	Basis       string `json:"basis"`
	AuthorityMs int64  `json:"authority_ms"`
	CTI         string `json:"cti"`
	Sessions    uint32 `json:"sessions"`
	Channels    uint32 `json:"channels"`
	Attached    uint32 `json:"attached"`
	Moving      uint32 `json:"moving"`
	Unrecorded  uint32 `json:"unrecorded"`
}

type watchdogJSON struct {
	Name        string `json:"name"`
	Watching    string `json:"watching"`
	State       string `json:"state"`
	LastProbeMs int64  `json:"last_probe_ms"`
	Paused      bool   `json:"paused"`
}

type recorderJSON struct {
	Name          string  `json:"name"`
	Group         string  `json:"group"`
	State         string  `json:"state"`
	Priority      int32   `json:"priority"`
	Score         float64 `json:"score"`
	Channels      uint32  `json:"channels"`
	Legs          uint32  `json:"legs"`
	CPUPercent    float64 `json:"cpu_percent"`
	DiskFreeBytes uint64  `json:"disk_free_bytes"`
	DiskWriteMs   float64 `json:"disk_write_ms"`
	PacketsPerS   float64 `json:"packets_per_s"`
	LostPackets   uint64  `json:"lost_packets"`
	CatalogLag    uint64  `json:"catalog_lag"`
	Reason        string  `json:"reason"`
}

type headroomJSON struct {
	Group   string `json:"group"`
	Enough  bool   `json:"enough"`
	Busiest string `json:"busiest"`
	Text    string `json:"text"`
}

type alarmJSON struct {
	Severity string `json:"severity"`
	What     string `json:"what"`
	Object   string `json:"object"`
	Since    stamp  `json:"since"`
	Text     string `json:"text"`
}

func statusOfFloor(floor *tandemv1.StatusResponse) floorJSON {
	j := floorJSON{Site: floor.Site, Generated: stampOf(floor.Generated), Directors: []directorJSON{}, Watchdogs: []watchdogJSON{}, Recorders: []recorderJSON{}, Headroom: []headroomJSON{}, Alarms: []alarmJSON{}}
	for _, d := range floor.Directors {
		j.Directors = append(j.Directors, directorJSON{d.Name, d.Group, d.Role, d.Epoch, stampOf(d.Since), d.Preferred, d.Basis, d.AuthorityMs, d.Cti, d.Sessions, d.Channels, d.Attached, d.Moving, d.Unrecorded})
	}
	for _, w := range floor.Watchdogs {
		j.Watchdogs = append(j.Watchdogs, watchdogJSON{w.Name, w.Watching, w.State, w.LastProbeMs, w.Paused})
	}
	for _, r := range floor.Recorders {
		l := r.GetLoad()
		j.Recorders = append(j.Recorders, recorderJSON{r.Name, r.Group, r.State, r.Priority, r.Score, l.GetChannels(), l.GetLegs(), l.GetCpuPercent(),
			l.GetDiskFreeBytes(), l.GetDiskWriteMs(), l.GetPacketsPerS(), l.GetLostPackets(), l.GetCatalogLag(), r.Reason})
	}
	for _, h := range floor.Headroom {
		j.Headroom = append(j.Headroom, headroomJSON{h.Group, h.Enough, h.Busiest, h.Text})
	}
	for _, a := range floor.Alarms {
		j.Alarms = append(j.Alarms, alarmJSON{a.Severity, a.What, a.Object, stampOf(a.Since), a.Text})
	}
	return j
}
