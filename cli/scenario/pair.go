package scenario

import "time"

// Part is somebody on a floor with two directors, by what it is when a
// scenario begins.
type Part string

// The parts.
const (
	Leader          Part = "leader"          // the director in charge
	Standby         Part = "standby"         // the other one
	LeaderWatchdog  Part = "leader_watchdog" // beside it
	StandbyWatchdog Part = "standby_watchdog"
	Voter           Part = "voter" // the recorder that is the victim
	Switch          Part = "switch"
	Recorders       Part = "recorders" // all of them
	Everybody       Part = "everybody" // the switch, all recorders and the other director
)

// Step is one thing done to a part of a floor.
type Step struct {
	Do   Action
	To   Part
	From Part          // of Mute and Unmute: what To sends to From is lost
	Then time.Duration // the pause before the next step
}

// Electorate is who votes.
type Electorate int

// The electorates.
const (
	AllVote     Electorate = iota // every recorder
	OneVotes                      // the first recorder alone: nobody else has a third host
	WitnessVote                   // the first two recorders and a witness on a host of its own
)

// Pair is what a scenario does to a floor with two directors, and what shall
// come of it.
type Pair struct {
	Electorate Electorate
	Before     []Step // prepares; what it costs is not measured
	Fault      []Step // measured from the first of them on
	Heal       []Step
	Leads      Part          // in the end of the fault; empty: either
	Within     time.Duration // who takes over is obeyed, as promised; 0 promises nothing
	Watch      time.Duration // how long the fault lasts at least
	Alarm      string        // that must have been raised
	Planned    bool          // nothing may be dialled anew or hung up
}

const (
	quick    = 500 * time.Millisecond  // a director whose process ended
	patient  = 1500 * time.Millisecond // a director that is out of reach
	helpless = 3 * time.Second         // one that can order nothing: two leases asked for in vain, and a hand-over
	planned  = time.Second
)

// mute is what takes a part from others, both ways, and unmute gives it back.
func mute(who, others Part) []Step {
	return []Step{{Do: Mute, To: who, From: others}, {Do: Mute, To: others, From: who}}
}

func unmute(who, others Part) []Step {
	return []Step{{Do: Unmute, To: who, From: others}, {Do: Unmute, To: others, From: who}}
}

// darken is the power of two hosts going: their cables are dead before their
// processes, so nobody is told. brighten is its return.
var (
	darken = []Step{
		{Do: CutControl, To: Leader}, {Do: CutControl, To: Voter}, {Do: CutMedia, To: Voter},
		{Do: Kill, To: Leader}, {Do: Kill, To: LeaderWatchdog}, {Do: Kill, To: Voter},
	}
	brighten = []Step{
		{Do: JoinCtl, To: Leader}, {Do: JoinCtl, To: Voter}, {Do: JoinMedia, To: Voter},
		{Do: Start, To: Voter}, {Do: Start, To: Leader}, {Do: Start, To: LeaderWatchdog},
	}
)

// pairs are the scenarios about directors, in the order of the table.
var pairs = []Scenario{
	{Name: "director_killed", Text: "director in charge killed with SIGKILL", Pair: &Pair{
		Fault: []Step{{Do: Kill, To: Leader}}, Heal: []Step{{Do: Start, To: Leader}}, Leads: Standby, Within: quick}},
	{Name: "director_frozen", Text: "director in charge frozen with SIGSTOP, and never thawed", Pair: &Pair{
		Fault: []Step{{Do: Freeze, To: Leader}}, Heal: []Step{{Do: Start, To: Leader}}, Leads: Standby, Within: patient}},
	{Name: "director_cut_from_all", Text: "cable of the director in charge pulled", Pair: &Pair{
		Fault: []Step{{Do: CutControl, To: Leader}}, Heal: []Step{{Do: JoinCtl, To: Leader}}, Leads: Standby, Within: patient}},
	{Name: "director_cut_from_peer", Text: "directors cut from each other, and from nobody else", Pair: &Pair{
		Fault: mute(Leader, Standby), Heal: unmute(Leader, Standby), Leads: Leader, Watch: 5 * time.Second, Alarm: "peer_link_down"}},
	{Name: "director_cut_from_recorders", Text: "director in charge cut from all recorders", Pair: &Pair{
		Fault: mute(Leader, Recorders), Heal: unmute(Leader, Recorders), Leads: Standby, Within: helpless}},
	{Name: "director_cut_from_switch", Text: "director in charge cut from the switch", Pair: &Pair{
		Fault: mute(Leader, Switch), Heal: unmute(Leader, Switch), Leads: Standby}}, // after cti_grace
	{Name: "director_and_recorder_lost", Text: "director in charge and a voting recorder without power, a witness left", Victims: 1, Pair: &Pair{
		Electorate: WitnessVote, Fault: darken, Heal: brighten, Leads: Standby, Within: patient}},
	{Name: "director_and_voter_lost", Text: "director in charge and the only voter without power", Victims: 1, Pair: &Pair{
		Electorate: OneVotes, Fault: darken, Heal: brighten, Leads: Standby, Within: patient}}, // who is left goes on without proof
	{Name: "director_resumed", Text: "director in charge frozen for longer than its lease, thawed in another one's time", Pair: &Pair{
		Before: []Step{{Do: Kill, To: LeaderWatchdog, Then: time.Second}}, // or it would end a frozen one
		Fault:  []Step{{Do: Freeze, To: Leader, Then: 30 * time.Second}, {Do: Thaw, To: Leader}},
		Heal:   []Step{{Do: Start, To: LeaderWatchdog}}, Leads: Standby, Within: patient}},
	{Name: "one_way_cut_in", Text: "the director in charge is heard, and hears nobody", Pair: &Pair{
		Fault: []Step{{Do: Mute, To: Everybody, From: Leader}}, Heal: []Step{{Do: Unmute, To: Everybody, From: Leader}}, Leads: Standby, Within: patient}},
	{Name: "one_way_cut_out", Text: "the director in charge hears, and nobody hears it", Pair: &Pair{
		Fault: []Step{{Do: Mute, To: Leader, From: Everybody}}, Heal: []Step{{Do: Unmute, To: Leader, From: Everybody}}, Leads: Standby, Within: patient}},
	{Name: "both_directors_restarted", Text: "both directors killed, back after 300 ms", Pair: &Pair{
		Fault: []Step{{Do: Kill, To: Leader}, {Do: Kill, To: Standby, Then: 300 * time.Millisecond}, {Do: Start, To: Leader}, {Do: Start, To: Standby}}}},
	{Name: "watchdog_killed_first", Text: "watchdog killed, then the director beside it", Pair: &Pair{
		Before: []Step{{Do: Kill, To: LeaderWatchdog, Then: time.Second}},
		Fault:  []Step{{Do: Kill, To: Leader}},
		Heal:   []Step{{Do: Start, To: Leader}, {Do: Start, To: LeaderWatchdog}}, Leads: Standby, Within: patient}},
	{Name: "voter_restarted_during_takeover", Text: "director in charge killed, a voter 100 ms later, back after 300 ms", Victims: 1, Pair: &Pair{
		Fault: []Step{{Do: Kill, To: Leader, Then: 100 * time.Millisecond}, {Do: Kill, To: Voter, Then: 300 * time.Millisecond}, {Do: Start, To: Voter}},
		Heal:  []Step{{Do: Start, To: Leader}}, Leads: Standby, Within: patient}},
	{Name: "promote", Text: "the other director put in charge as planned", Pair: &Pair{
		Fault: []Step{{Do: Promote, To: Standby}}, Leads: Standby, Within: planned, Planned: true}},
	{Name: "failback", Text: "control handed back as planned", Pair: &Pair{
		Before: []Step{{Do: Promote, To: Standby, Then: 2 * time.Second}},
		Fault:  []Step{{Do: Promote, To: Leader}}, Leads: Leader, Within: planned, Planned: true}},
}
