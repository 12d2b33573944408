package director

import (
	"os"
	"testing"
	"time"
)

// What a site must shrug off: nobody else is in charge after it, however long
// it lasts and whatever lease it ends with. A cut between the directors alone
// is the watchdogs' temptation (I19), a minority of the voters the holder's (I20).
func TestNobodyTakesOverForNothing(t *testing.T) {
	if !simulating() || os.Getenv("TANDEM_SIM_SEED") != "" {
		t.Skip("make sim does it")
	}
	t.Parallel()
	for _, deed := range []string{
		"cut peers", "cut peers one way", "kill standby", "freeze standby", "isolate standby", "cut standby from switch", "cut standby from a recorder",
		"kill a watchdog", "kill a recorder", "freeze a recorder", "isolate a recorder", "cut active from a recorder", "switch hangs up", "slow active",
	} {
		t.Run(deed, func(t *testing.T) {
			t.Parallel()
			for _, profile := range []string{"steady", "fast"} {
				for n, lasts := range []time.Duration{100 * time.Millisecond, 900 * time.Millisecond, 3 * time.Second} {
					const begin = 3500 * time.Millisecond // the preferred one leads by then, whoever came first
					p := plan{profile: profile, isolated: "wait", voters: 3, recorders: 3, agents: 2, noise: noise{spread: 2 * time.Millisecond}}
					p.strikes = []strike{{at: begin, moment: "lease", nth: 1 + n, deed: deed, lasts: lasts, pick: n}}
					p.strikes = append(p.strikes, strike{at: begin + lasts, deed: deed, lasts: lasts, pick: n})
					seed := uint64(n + 1)
					if v := play(t, seed, p, ""); v.broken != "" || v.epochs != 0 {
						t.Errorf("%d changes of who is in charge", v.epochs)
						report(t, seed, v)
					}
				}
			}
		})
	}
}
