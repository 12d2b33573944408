package watchdog

import (
	"maps"
	"slices"
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/authority"
	"tandem/internal/local"
	"tandem/internal/monitor"
	"tandem/internal/pair"
)

// View is all that a watchdog sees, as one value. Whatever happens makes a new
// one of it; nothing here asks a clock.
type View struct {
	Rules  Rules
	Local  Local
	Peer   Peer
	Votes  []Vote // of each voter, in the order of the configuration
	Doubt  doubt
	Damper damper
	Pause  Pause

	Leaderless time.Time // since when both answer and neither leads; zero: it is not so
	Well       time.Time // since when the local director could lead and does not; zero: it is not so
	led        led
}

// Rules are what the view is judged by.
type Rules struct {
	authority.Timing
	Preferred    bool       // the local director is the one that gets control back
	Auto         bool       // without being asked
	Hours        pair.Hours // and then
	FailbackHold time.Duration
	Interval     time.Duration // between two probes
	Misses       int
	CTIGrace     time.Duration
	RestartAfter time.Duration
}

// Local is the director on this host.
type Local struct {
	Name     string
	PID      int // 0: no process is known
	Report   local.Report
	Beat     time.Time // of Report
	Reply    monitor.Reply
	Answered time.Time // of Reply
	Dead     uint64    // the epoch of a process that is proved to have ended, until it is released
	Unit     bool      // systemd says that it runs
}

// Peer is the other director.
type Peer struct {
	Name    string // its address, until it has said its name
	Paths   int
	Heard   int // on how many paths the last answer came
	RTT     time.Duration
	Reply   monitor.Reply
	At      time.Time // the last answer
	Misses  int       // rounds in a row without one
	Lost    time.Time // the second of them was sent
	CTIDown time.Time // since when it says that it cannot see the switch; zero: it does
	Noticed time.Time // its watchdog said that its process has ended; zero: not since it was heard
	loops   map[string]turned
}

// turned is when a loop's counter was last seen to move.
type turned struct {
	count uint64
	at    time.Time
}

// Vote is what a voter said last.
type Vote struct {
	Holder  string
	Epoch   uint64
	Renewed time.Time // the holder's lease; zero: there is none
	At      time.Time // this was said; zero: nothing was
	RTT     time.Duration
}

// Pause is a time in which nothing is done.
type Pause struct {
	Until         time.Time
	Actor, Reason string
}

// role is what the local director is, as it says itself; "" when it says nothing.
func (v View) role(now time.Time) string {
	switch {
	case v.Local.PID != 0 && now.Sub(v.Local.Beat) <= v.Rules.LD:
		return v.Local.Report.Role
	case now.Sub(v.Local.Answered) <= time.Duration(v.Rules.Misses)*v.Rules.Interval:
		return v.Local.Reply.Role
	}
	return ""
}

// able reports whether the local director could lead, or why not.
func (v View) able(now time.Time) (bool, string) {
	if v.Local.PID != 0 && now.Sub(v.Local.Beat) <= v.Rules.LD {
		return v.Local.Report.Eligible, v.Local.Report.Why
	}
	return v.Local.Reply.Eligible, v.Local.Reply.Why
}

// patience is after how many misses the peer counts as silent.
func (v View) patience() int { return v.Rules.Misses * v.Doubt.factor() }

// silent reports whether the peer counts as silent.
func (v View) silent() bool { return v.Peer.Misses >= v.patience() || !v.Peer.Noticed.IsZero() }

// probed takes in a round of probes of the peer. One that this host was too
// slow for is not measured: it is no miss.
func (v View) probed(now time.Time, r monitor.Round, lateness time.Duration) View {
	late := lateness > v.Rules.Interval/2
	v.Doubt = v.Doubt.after(late || v.sluggish(now))
	best, heard := r.Reply()
	switch {
	case heard:
		v.Peer = v.Peer.heard(now, r, best)
	case late:
	default:
		if v.Peer.Misses++; v.Peer.Misses == 2 {
			v.Peer.Lost = r.At
		}
		v.Peer.Heard = 0
	}
	if late { // what was silent meanwhile may have spoken
		if v.Local.Beat = v.Local.Beat.Add(lateness); v.Local.Beat.After(now) {
			v.Local.Beat = now
		}
	}
	return v
}

// heard takes in an answer.
func (p Peer) heard(now time.Time, r monitor.Round, best monitor.PathResult) Peer {
	silence := p.Misses
	p.Name, p.Reply, p.RTT, p.At = best.Reply.Director, best.Reply, best.RTT, now
	p.Paths, p.Heard, p.Misses, p.Lost = len(r.Paths), r.Heard(), 0, time.Time{}
	if r.At.After(p.Noticed) {
		p.Noticed = time.Time{}
	}
	switch {
	case best.Reply.CTI == "up":
		p.CTIDown = time.Time{}
	case p.CTIDown.IsZero():
		p.CTIDown = now
	}
	loops := make(map[string]turned, len(best.Reply.Loops))
	for name, count := range best.Reply.Loops {
		loops[name] = turned{count, now}
		if was, known := p.loops[name]; known && was.count == count && silence == 0 {
			loops[name] = was
		}
	}
	p.loops = loops
	return p
}

// stuck names a loop of the peer that has not moved for so long, "" for none.
func (p Peer) stuck(now time.Time, limit time.Duration) string {
	for _, name := range slices.Sorted(maps.Keys(p.loops)) {
		if now.Sub(p.loops[name].at) >= limit {
			return name
		}
	}
	return ""
}

// answered takes in an answer of the local director's monitoring port.
func (v View) answered(now time.Time, r monitor.Round) View {
	if best, ok := r.Reply(); ok {
		v.Local.Reply, v.Local.Answered = best.Reply, now
	}
	return v
}

// followed takes in what the link to the local director tells.
func (v View) followed(now time.Time, e local.Event) View {
	switch e := e.(type) {
	case local.Connected:
		v.Local.PID, v.Local.Report, v.Local.Beat = e.Process.PID, local.Report{}, now
	case local.Heard:
		v.Local.Report, v.Local.Beat = e.Report, now
	case local.Gone:
		if e.PID == v.Local.PID {
			v.Local.PID, v.Local.Dead, v.Local.Report = 0, v.Local.Report.Epoch, local.Report{}
			v.Local.Reply, v.Local.Answered = monitor.Reply{}, time.Time{}
		}
	}
	return v
}

// voted takes in a voter's answer.
func (v View) voted(now time.Time, voter int, b *tandemv1.Ballot, rtt time.Duration) View {
	vote := Vote{Holder: b.GetHolder(), Epoch: b.GetEpoch(), At: now, RTT: rtt}
	if left := time.Duration(b.GetRemainingUs()) * time.Microsecond; left > 0 {
		vote.Renewed = now.Add(left - v.Rules.LV - rtt) // never later than it was
	}
	v.Votes = slices.Clone(v.Votes)
	v.Votes[voter] = vote
	return v
}

// sluggish reports whether a voter answered lately, and slowly: this host, or
// its network, is not to be relied on.
func (v View) sluggish(now time.Time) bool {
	return slices.ContainsFunc(v.Votes, func(vote Vote) bool { return vote.RTT > v.Rules.Interval && now.Sub(vote.At) < 2*calm })
}

// noticed takes in that the peer's process has ended.
func (v View) noticed(now time.Time) View {
	v.Peer.Noticed = now
	return v
}

// led remembers whether the local director was in charge.
type led struct {
	since  time.Time     // zero: it is not in charge
	lost   bool          // it lost that without giving it back, and nobody has followed yet
	lasted time.Duration // for how long it had it, if it lost it
}

// settle notes what follows from a new view, and what lasts how long.
func (v View) settle(now time.Time) View {
	role := v.role(now)
	able, _ := v.able(now)
	peerLeads := !v.silent() && holds(v.Peer.Reply.Role)
	v.Leaderless = since(v.Leaderless, now, !v.Peer.At.IsZero() && v.Peer.Misses == 0 && !v.silent() && role != "" &&
		!holds(role) && !holds(v.Peer.Reply.Role) && !seeks(v.Peer.Reply.Role))
	v.Well = since(v.Well, now, able && role == "passive" && v.Local.Reply.CTI == "up")
	was := v.led.since
	v.led.since = since(v.led.since, now, holds(role))
	switch {
	case holds(role):
		v.led.lost = false
	case !was.IsZero() && role != "passive": // whoever gives it back goes from one to the other
		v.led.lost, v.led.lasted = true, now.Sub(was)
	case v.led.lost && peerLeads:
		v.Damper = v.Damper.takeover(now, v.led.lasted, v.Rules.FailbackHold)
		v.led.lost = false
	}
	return v
}

// since is since when something has been so.
func since(was, now time.Time, is bool) time.Time {
	switch {
	case !is:
		return time.Time{}
	case was.IsZero():
		return now
	}
	return was
}
