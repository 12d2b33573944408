package scenario

import (
	"fmt"
	"slices"
	"time"
)

// Rule is what became of the floor's directors.
type Rule struct {
	Takeover time.Duration // until a recorder carried out an order of the next epoch; negative: none came
	Wanted   string        // who was to lead in the end of the fault; empty: either
	Leads    string        // who did; empty: nobody, or more than one
	Stays    bool          // nobody was to take over
	Changes  int           // times that a director began to lead, until the floor was mended
	Stale    int           // times that a recorder obeyed whom it must not any more
	Alarmed  bool          // the alarm that was expected was raised
	Invites  int           // dialogs that the switch was asked for meanwhile
	Byes     int           // and asked to end
}

func (r *Rule) String() string {
	if r.Takeover < 0 {
		return "nobody has taken over"
	}
	return fmt.Sprintf("the next one obeyed after %d ms", r.Takeover.Milliseconds())
}

// judge says what is wrong.
func (r *Rule) judge(s Scenario, targets bool, say func(wrong bool, format string, args ...any)) {
	p := s.Pair
	say(r.Stale > 0, "a recorder obeyed a director that was succeeded, %d times", r.Stale)
	say(r.Leads == "", "not exactly one director led in the end")
	say(r.Wanted != "" && r.Leads != "" && r.Leads != r.Wanted, "%s led in the end, not %s", r.Leads, r.Wanted)
	say(!r.Stays && r.Takeover < 0, "nobody took over")
	say(r.Stays && (r.Takeover >= 0 || r.Changes > 0), "somebody took over from a director that was well")
	say(!r.Stays && r.Changes > 1, "control changed hands %d times", r.Changes)
	say(p.Alarm != "" && !r.Alarmed, "no alarm %s", p.Alarm)
	say(p.Planned && r.Invites+r.Byes > 0, "%d dialogs were begun and %d ended, of a planned change", r.Invites, r.Byes)
	say(targets && p.Within > 0 && r.Takeover > p.Within, "the next director was obeyed after %d ms, over %d", r.Takeover.Milliseconds(), p.Within.Milliseconds())
}

func (r *Rule) report() *Reign {
	return &Reign{TakeoverMs: wholeMs(r.Takeover), Leads: r.Leads, RoleChanges: r.Changes, StaleOrders: r.Stale, Invites: r.Invites, Byes: r.Byes}
}

func newReigns(results []Result) *Reigns {
	all := &Reigns{}
	var takeovers []int64
	for _, r := range results {
		rule, v := r.Fault.Rule, r.Judgement.Verdict
		if rule.Takeover >= 0 {
			takeovers = append(takeovers, wholeMs(rule.Takeover))
		}
		all.Leads = append(all.Leads, rule.Leads)
		all.RoleChanges, all.StaleOrders, all.MissingMs = all.RoleChanges+rule.Changes, all.StaleOrders+rule.Stale, all.MissingMs+v.SentMS-v.RecordedMS
	}
	slices.Sort(all.Leads)
	all.Leads = slices.Compact(all.Leads)
	all.Takeovers, all.TakeoverMs = len(takeovers), SpreadOf(takeovers)
	return all
}
