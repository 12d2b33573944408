package scenario

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/cli/audit"
	"tandem/internal/call"
	"tandem/turretsim/truth"
)

// TwinFloor is a floor with two groups on one switch: the primary is broken,
// and the secondary, its twin, takes the other copy of every mix.
type TwinFloor interface {
	Floor
	// TwinStatus is how the secondary's director sees its group.
	TwinStatus(ctx context.Context) (*tandemv1.StatusResponse, error)
}

// Twin is what a scenario with two groups left in the other one, and in both together.
type Twin struct {
	Noticed   []string      // what the secondary noticed of it, and should not have
	Turns     int           // times that the switch was asked to send one of its channels elsewhere meanwhile
	Secondary truth.Verdict // of what it has
	Merged    truth.Verdict // of what both have, one's holes filled by the other
}

// everybody is the number of victims that is all of them.
const everybody = -1

// outage is how long a group, or a path to it, is away.
const outage = 10 * time.Second

// silence is everything of the primary group at once: its watchdogs, who might
// help, first. Its return is as after a power cut.
var (
	silence = []Step{
		{Do: Kill, To: LeaderWatchdog}, {Do: Kill, To: StandbyWatchdog}, {Do: Kill, To: Leader}, {Do: Kill, To: Standby}, {Do: Kill, To: Recorders, Then: time.Minute},
		{Do: Start, To: Recorders}, {Do: Start, To: Leader}, {Do: Start, To: Standby}, {Do: Start, To: LeaderWatchdog}, {Do: Start, To: StandbyWatchdog},
	}
)

// twins are the scenarios with two groups, in the order of the table. Whatever
// the primary loses, both together miss nothing but what neither was sent.
var twins = []Scenario{
	{Name: "2n_recorder_killed", Text: "recorder of the primary group killed with SIGKILL", Harm: []Action{Kill}, Heal: []Action{Start}, Victims: 1, Twin: true},
	{Name: "2n_director_killed", Text: "director of the primary group in charge killed with SIGKILL", Twin: true, Pair: &Pair{
		Fault: []Step{{Do: Kill, To: Leader}}, Heal: []Step{{Do: Start, To: Leader}}, Leads: Standby, Within: quick}},
	{Name: "2n_group_killed", Text: "both directors and all recorders of the primary group killed, back after a minute", Victims: everybody, Twin: true, Pair: &Pair{Fault: silence}},
	{Name: "2n_path_cut", Text: "all media to the primary group vanish, for 10 s", Harm: []Action{BlackHole}, Heal: []Action{Deliver}, Victims: everybody, HealAfter: outage, Twin: true},
	{Name: "2n_disk_full", Text: "disk of a recorder of the primary group filled to the last byte", Harm: []Action{FillDisk}, Heal: []Action{FreeDisk}, Victims: 1, Twin: true},
	{Name: "loss_both", Text: "a twentieth of all packets of each copy lost, for 10 s", Harm: []Action{Lose}, Heal: []Action{Spare}, Victims: everybody, HealAfter: outage, Twin: true},
}

// twinStatus is how the secondary sees itself; nil when it does not answer.
func (p *player) twinStatus() *tandemv1.StatusResponse {
	s, _ := p.floor.(TwinFloor).TwinStatus(p.ctx)
	return s
}

// meetTwin waits until the secondary is whole, and notes how it is.
func (p *player) meetTwin() error {
	if _, ok := p.floor.(TwinFloor); !ok {
		return fmt.Errorf("this floor has one group")
	}
	if !p.until(p.pace.Attach, func() bool {
		p.twin = p.twinStatus()
		return whole(p.twin) && reported(p.twin) == int(director(p.twin).GetChannels())
	}) {
		return fmt.Errorf("within %v, the secondary group: %s", p.pace.Attach, summary(p.twin))
	}
	return nil
}

// reported is how many channels recorders say that they have. They say so once a second.
func reported(s *tandemv1.StatusResponse) (channels int) {
	for _, r := range s.GetRecorders() {
		channels += int(r.GetLoad().GetChannels())
	}
	return channels
}

// partTwin notes what the secondary noticed. What was lost of both copies it must.
func (p *player) partTwin() {
	if p.twin == nil {
		return
	}
	p.fault.Twin = &Twin{Noticed: Noticed(p.twin, p.twinStatus(), !slices.Contains(p.fault.Scenario.Harm, Lose))}
	for _, what := range p.fault.Twin.Noticed {
		p.say("the secondary group noticed: %s", what)
	}
}

// Noticed compares how a group was with how it is: in every respect in which
// only something that happened to it would show. Lost says that a lost packet counts.
func Noticed(before, after *tandemv1.StatusResponse, lost bool) (found []string) {
	say := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	was, is := director(before), director(after)
	if is == nil {
		return []string{"its director does not answer"}
	}
	if is.GetRole() != was.GetRole() || is.GetEpoch() != was.GetEpoch() {
		say("%s was %s in epoch %d and is %s in epoch %d", is.GetName(), was.GetRole(), was.GetEpoch(), is.GetRole(), is.GetEpoch())
	}
	if whole(before) && !whole(after) {
		say("it is not whole: %s", summary(after))
	}
	for _, a := range after.GetAlarms() {
		if !slices.ContainsFunc(before.GetAlarms(), func(b *tandemv1.Alarm) bool { return b.GetWhat() == a.GetWhat() && b.GetObject() == a.GetObject() }) {
			say("alarm %s: %s", a.GetWhat(), a.GetText())
		}
	}
	for _, r := range after.GetRecorders() {
		n := slices.IndexFunc(before.GetRecorders(), func(b *tandemv1.RecorderStatus) bool { return b.GetName() == r.GetName() })
		if n < 0 {
			continue
		}
		old := before.Recorders[n].GetLoad()
		if r.GetLoad().GetChannels() != old.GetChannels() {
			say("%s had %d channels and has %d", r.GetName(), old.GetChannels(), r.GetLoad().GetChannels())
		}
		if more := r.GetLoad().GetLostPackets() - old.GetLostPackets(); lost && more != 0 {
			say("%s lost %d packets", r.GetName(), more)
		}
	}
	return found
}

// JudgeTwins judges what the secondary has, and what both groups have
// together, each against the switch's account of that.
func JudgeTwins(ctx context.Context, account *truth.Account, primary, secondary []audit.Media, fault Fault) (secondaryHas, bothHave truth.Verdict, err error) {
	fault.Channels, fault.Windows = nil, nil // counted for the primary
	of, err := Judge(ctx, account.Copy(call.CopyB), audit.From(secondary), fault, Everything)
	if err != nil {
		return truth.Verdict{}, truth.Verdict{}, fmt.Errorf("judge the secondary group: %w", err)
	}
	all, err := Judge(ctx, account.Mixes(), audit.Merged(primary, secondary), fault, Around)
	if err != nil {
		return truth.Verdict{}, truth.Verdict{}, fmt.Errorf("judge both groups together: %w", err)
	}
	return of.Verdict, all.Verdict, nil
}

// Findings are what is wrong with it.
func (t *Twin) Findings() (found []string) {
	t.judge(func(wrong bool, format string, args ...any) {
		if wrong {
			found = append(found, fmt.Sprintf(format, args...))
		}
	})
	return found
}

// judge says what is wrong: the other group did not notice, and what both
// have together is all that any of them was sent, once.
func (t *Twin) judge(say func(wrong bool, format string, args ...any)) {
	m, missing := t.Merged, t.Merged.SentMS-t.Merged.RecordedMS
	off := max(missing-m.WithheldMS, m.WithheldMS-missing)
	say(len(t.Noticed) > 0, "the secondary group noticed: %s", strings.Join(t.Noticed, "; "))
	say(t.Turns > 0, "%d channels of the secondary group were sent elsewhere", t.Turns)
	say(m.SentMS == 0 || m.RecordedMS == 0, "nothing was sent or nothing merged: this proves nothing")
	say(off >= packetMs || off > 0 && m.WithheldMS == 0, "%d ms are missing after merging, and %d were lost of both copies", missing, m.WithheldMS)
	say(m.UnexplainedMS > 0, "%d ms are missing after merging and no gap says so", m.UnexplainedMS)
	say(m.DuplicatedMS > 0, "%d ms are there twice after merging", m.DuplicatedMS)
	say(m.ForeignMS > 0, "%d ms after merging were never sent", m.ForeignMS)
	say(t.Secondary.UnexplainedMS > 0, "%d ms are missing of the secondary group and no gap says so", t.Secondary.UnexplainedMS)
	for _, f := range append(slices.Clone(t.Secondary.Findings), m.Findings...) {
		say(true, "%s", f)
	}
}

// packetMs is how exactly a loss can be told by ear: of a tone that crosses zero
// where a packet was lost, a sample of silence is no loss.
const packetMs = 20

// TwinReport is what two groups had of what was sent.
type TwinReport struct {
	PrimaryMissingMs   int64 `json:"primary_missing_ms"`   // of its copy
	SecondaryMissingMs int64 `json:"secondary_missing_ms"` // of its own
	BothLostMs         int64 `json:"both_lost_ms"`         // by the switch's account of what it withheld of both copies
	MissingAfterMerge  int64 `json:"missing_after_merge_ms"`
	Noticed            int   `json:"noticed"` // by the secondary: changes of role, moved channels, lost packets, alarms
}

func (t *Twin) report(primary truth.Verdict) *TwinReport {
	return &TwinReport{
		PrimaryMissingMs: primary.SentMS - primary.RecordedMS, SecondaryMissingMs: t.Secondary.SentMS - t.Secondary.RecordedMS,
		BothLostMs: t.Merged.WithheldMS, MissingAfterMerge: t.Merged.SentMS - t.Merged.RecordedMS, Noticed: len(t.Noticed) + t.Turns,
	}
}

// newTwinReport is the same over all seeds.
func newTwinReport(results []Result) *TwinReport {
	all := &TwinReport{}
	for _, r := range results {
		one := r.Fault.Twin.report(r.Judgement.Verdict)
		all.PrimaryMissingMs, all.SecondaryMissingMs = all.PrimaryMissingMs+one.PrimaryMissingMs, all.SecondaryMissingMs+one.SecondaryMissingMs
		all.BothLostMs, all.MissingAfterMerge, all.Noticed = all.BothLostMs+one.BothLostMs, all.MissingAfterMerge+one.MissingAfterMerge, all.Noticed+one.Noticed
	}
	return all
}
