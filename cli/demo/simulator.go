package demo

import "tandem/cli/scenario"

// simConfig is a floor where somebody always talks, however small it is.
func (f *floor) simConfig(ctiAt, sipAt string) map[string]any {
	return map[string]any{
		"seed": f.options.Seed, "control": f.simControl, "truth_log": f.path(truthLog),
		"cti": map[string]any{"listen": ctiAt, "user": "demo", "password_file": f.path("password")},
		"sip": map[string]any{"listen": sipAt},
		"floor": map[string]any{"turrets": f.options.Turrets, "mixes": mixes, "copies": f.copies(),
			"calls_per_minute": max(6, 120/float64(f.options.Turrets))}, // of each turret
	}
}

// truthLog is where the switch writes what it really did.
const truthLog = "truth.jsonl"

// simulator is the switch's control port.
func (f *floor) simulator() scenario.Simulator {
	return scenario.Simulator{Client: f.http, URL: "http://" + f.simControl}
}
