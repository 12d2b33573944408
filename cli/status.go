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
		Usage: "the whole floor: directors, watchdogs, recorders, alarms",
		Description: `Recorders, channels and headroom are as the director in charge knows them. BASIS is
what its authority rests on: quorum, the voters' leases; consent, the promise of
the other director to stay out; assumed or forced, nothing but the absence of the
other one; alone, that there is no other. AUTHORITY is how long it lasts unless it
is renewed, as it is ten times a second. Of a site with two groups each has a block
of its own.

With --json one object: site, generated, directors[], watchdogs[], recorders[],
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
			f, err := s.status(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return i.json(statusOfFloor(f))
			}
			for _, l := range i.statusLines(f) {
				fmt.Fprintln(i.out, l)
			}
			return nil
		},
	}
}

// watchStatus goes on when the site does not answer: it says so and asks again.
// What a look warns of is shown with what it found, so that the screen stays whole.
func (i *invocation) watchStatus(ctx context.Context, s *site, asJSON bool) error {
	var warnings []string
	if !asJSON {
		s.warn = func(format string, args ...any) { warnings = append(warnings, clean(fmt.Sprintf(format, args...))) }
	}
	screen := &screen{out: i.out, terminal: i.terminal}
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for {
		warnings = nil
		f, err := s.status(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && asJSON:
			i.warn("%v", err)
		case err != nil:
			screen.draw(append([]string{i.paint(red, clean(err.Error()))}, warnings...))
		case asJSON:
			if err := i.json(statusOfFloor(f)); err != nil {
				return err
			}
		default:
			screen.draw(append(i.statusLines(f), warnings...))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
	}
}

func (i *invocation) statusLines(f floor) []string {
	lines := []string{i.paint(faint, clean(fmt.Sprintf("site %s, %s", f.Site, at(f.Generated).In(i.zone).Format(time.DateTime))))}
	lines = append(lines, i.pauseLines(f)...)
	if len(f.groups) < 2 {
		return append(lines, i.groupLines(f)...)
	}
	for _, g := range f.groups {
		lines = append(append(lines, "", i.paint(bold, clean("GROUP "+g.name))), i.groupLines(f.of(g))...)
	}
	t := watchdogTable(f.strays())
	if more := t.lines(i.colours()); more != nil {
		lines = append(append(lines, "", i.paint(bold, "OF NO GROUP KNOWN HERE"), ""), more...)
	}
	return lines
}

// groupLines are the floor of one group.
func (i *invocation) groupLines(f floor) []string {
	var lines []string
	for _, t := range []table{i.directorTable(f), watchdogTable(f), recorderTable(f)} {
		if more := t.lines(i.colours()); more != nil {
			lines = append(append(lines, ""), more...)
		}
	}
	lines = append(append(append(lines, ""), i.authorityLines(f)...), i.unsettledLines(f)...)
	return append(lines, i.alarmLines(f)...)
}

// pauseLines are the banner of a site that nobody guards.
func (i *invocation) pauseLines(f floor) []string {
	var lines []string
	for _, w := range f.Watchdogs {
		if w.Paused {
			lines = append(lines, i.paint(yellow, clean(fmt.Sprintf("PAUSED until %s: %s promotes nobody; recctl failover --resume ends that", i.clock(at(w.PausedUntil)), w.Name))))
		}
	}
	return lines
}

func (i *invocation) directorTable(f floor) table {
	t := table{heading: []string{"DIRECTOR", "GROUP", "ROLE", "EPOCH", "SINCE", "BASIS", "AUTHORITY", "CTI", "PREFERRED", "SESSIONS", "CHANNELS", "ATTACHED", "ADDRESS", "REASON"}}
	for _, d := range f.Directors {
		authority, sessions, channels, attached := number("-"), number("-"), number("-"), number("-")
		if d.AuthorityMs > 0 {
			authority = number("%d ms", d.AuthorityMs)
		}
		role := stateCell(d.Role)
		switch {
		case !f.answers(d):
			role.colour = yellow
		case d.Role != "passive": // that one knows of no channels, or not of all
			sessions, channels, attached = number("%d", d.Sessions), number("%d", d.Channels), number("%d", d.Attached)
		}
		t.add(text(d.Name), text(d.Group), role, number("%d", d.Epoch), text(i.clock(at(d.Since))), basisCell(d.Basis), authority,
			stateCell(d.Cti), text(yesNo(d.Preferred)), sessions, channels, attached, text(orDash(d.Address)), text(f.directorReason(d)))
	}
	return t
}

// directorReason is why a director is as it is, and where that is known from
// when it does not say so itself.
func (f floor) directorReason(d *tandemv1.DirectorStatus) string {
	if f.answers(d) {
		return d.Text
	}
	return strings.TrimPrefix(d.Text+"; ", "; ") + "it does not answer, this is what the other one knows"
}

// basisCell colours what authority rests on: less than both proofs means that
// something is broken, none at all that two may have it.
func basisCell(basis string) cell {
	c := cell{text: orDash(basis)}
	switch basis {
	case "quorum+consent", "alone":
		c.colour = green
	case "quorum", "consent":
		c.colour = yellow
	case "assumed", "forced":
		c.colour = red
	}
	return c
}

func watchdogTable(f floor) table {
	t := table{heading: []string{"WATCHDOG", "WATCHING", "STATE", "LAST PROBE", "SAYS"}}
	for _, w := range f.Watchdogs {
		state, probe := stateCell(w.State), number("%d ms", w.LastProbeMs)
		if w.Paused {
			state = cell{text: "paused", colour: yellow}
		}
		if w.Watching == "" {
			probe = number("-")
		}
		t.add(text(w.Name), text(orDash(w.Watching)), state, probe, text(w.Sentence))
	}
	return t
}

func recorderTable(f floor) table {
	t := table{heading: []string{"RECORDER", "GROUP", "STATE", "SCORE", "CHANNELS", "LEGS", "PACKETS/S", "LOST", "CPU", "DISK FREE", "DISK WRITE", "JOURNAL", "CATALOG", "REASON"}}
	for _, r := range f.Recorders {
		l := r.Load
		if l == nil || r.State == "lost" { // what it last said of itself is no longer so
			t.add(text(r.Name), text(r.Group), stateCell(r.State), number("-"), number("-"), number("-"), number("-"), number("-"),
				number("-"), number("-"), number("-"), number("-"), number("-"), text(r.Reason))
			continue
		}
		t.add(text(r.Name), text(r.Group), stateCell(r.State), number("%.2f", r.Score), number("%d", l.Channels), number("%d", l.Legs),
			number("%.0f", l.PacketsPerS), number("%d", l.LostPackets), number("%.1f%%", l.CpuPercent), number("%s", size(l.DiskFreeBytes)),
			number("%.1f ms", l.DiskWriteMs), number("%s", size(l.JournalLagBytes)), number("%d", l.CatalogLag), text(recorderReason(r)))
	}
	return t
}

func (i *invocation) alarmLines(f floor) []string {
	if len(f.Alarms) == 0 {
		return []string{"no alarms"}
	}
	var lines []string
	for _, a := range f.Alarms {
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

// asksRecorders reports whether a director knows where channels are: one that
// is not in charge has not asked the recorders.
func asksRecorders(d *tandemv1.DirectorStatus) bool {
	return d.Role != "passive" && d.Role != "candidate"
}

// unsettledLines say what is not where it should be, and whether a group could
// lose a recorder.
func (i *invocation) unsettledLines(f floor) []string {
	var lines []string
	for _, g := range f.groups {
		d := g.directors[0] // the others know less
		if !asksRecorders(d.DirectorStatus) {
			continue
		}
		if d.Unrecorded > 0 {
			lines = append(lines, i.paint(red, clean(fmt.Sprintf("group %s: %s recorded by nobody", d.Group, count(d.Unrecorded, "channel")))))
		}
		if d.Moving > 0 {
			lines = append(lines, i.paint(yellow, clean(fmt.Sprintf("group %s: %s on the move", d.Group, count(d.Moving, "channel")))))
		}
	}
	for _, h := range f.Headroom {
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
	case "ready", "active", "up", "attached", "watching", "complete":
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

	Address string      `json:"address"`
	Text    string      `json:"text"`
	Monitor string      `json:"monitor"`
	Profile string      `json:"profile"`
	Voters  []voterJSON `json:"voters"`
	Answers bool        `json:"answers"` // false: it is known from another director
}

type voterJSON struct {
	Name        string `json:"name"`
	Address     string `json:"address"`
	Epoch       uint64 `json:"epoch"`
	Holder      string `json:"holder"`
	RemainingMs int64  `json:"remaining_ms"`
	AgeMs       int64  `json:"age_ms"` // -1: never heard
}

func votersJSON(voters []*tandemv1.VoterStatus) []voterJSON {
	j := make([]voterJSON, len(voters))
	for n, v := range voters {
		j[n] = voterJSON{v.Name, v.Address, v.Epoch, v.Holder, v.RemainingMs, v.AgeMs}
	}
	return j
}

type watchdogJSON struct {
	Name        string   `json:"name"`
	Watching    string   `json:"watching"`
	State       string   `json:"state"`
	LastProbeMs int64    `json:"last_probe_ms"`
	Paused      bool     `json:"paused"`
	PausedUntil stamp    `json:"paused_until"`
	Sentence    string   `json:"sentence"`
	Address     string   `json:"address"`
	Witness     bool     `json:"witness"`
	Group       string   `json:"group"`
	Promotable  []string `json:"promotable"` // why the director beside it could not lead; empty: it could
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
	Group    string `json:"group"`
}

func statusOfFloor(f floor) floorJSON {
	j := floorJSON{Site: f.Site, Generated: stampOf(f.Generated), Directors: []directorJSON{}, Watchdogs: []watchdogJSON{}, Recorders: []recorderJSON{}, Headroom: []headroomJSON{}, Alarms: []alarmJSON{}}
	for _, d := range f.Directors {
		moving, unrecorded := d.Moving, d.Unrecorded
		if !asksRecorders(d) {
			moving, unrecorded = 0, 0 // it speaks of all channels, none of which are its own
		}
		j.Directors = append(j.Directors, directorJSON{d.Name, d.Group, d.Role, d.Epoch, stampOf(d.Since), d.Preferred, d.Basis, d.AuthorityMs, d.Cti, d.Sessions, d.Channels, d.Attached, moving, unrecorded,
			d.Address, d.Text, d.Monitor, d.Profile, votersJSON(d.Voters), f.answers(d)})
	}
	for _, w := range f.Watchdogs {
		j.Watchdogs = append(j.Watchdogs, watchdogJSON{w.Name, w.Watching, w.State, w.LastProbeMs, w.Paused, stampOf(w.PausedUntil), w.Sentence, w.Address, w.Witness, w.Group, list(w.Promotable)})
	}
	for _, r := range f.Recorders {
		l := r.GetLoad()
		j.Recorders = append(j.Recorders, recorderJSON{r.Name, r.Group, r.State, r.Priority, r.Score, l.GetChannels(), l.GetLegs(), l.GetCpuPercent(),
			l.GetDiskFreeBytes(), l.GetDiskWriteMs(), l.GetPacketsPerS(), l.GetLostPackets(), l.GetCatalogLag(), r.Reason})
	}
	for _, h := range f.Headroom {
		j.Headroom = append(j.Headroom, headroomJSON{h.Group, h.Enough, h.Busiest, h.Text})
	}
	for _, a := range f.Alarms {
		j.Alarms = append(j.Alarms, alarmJSON{a.Severity, a.What, a.Object, stampOf(a.Since), a.Text, a.Group})
	}
	return j
}
