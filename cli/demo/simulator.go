package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// simConfig is a floor where somebody always talks, however small it is.
func (f *floor) simConfig(ctiAt, sipAt string) map[string]any {
	return map[string]any{
		"seed": f.options.Seed, "control": f.simControl, "truth_log": f.path(truthLog),
		"cti": map[string]any{"listen": ctiAt, "user": "demo", "password_file": f.path("password")},
		"sip": map[string]any{"listen": sipAt},
		"floor": map[string]any{"turrets": f.options.Turrets, "mixes": mixes, "copies": []string{"A"},
			"calls_per_minute": max(6, 120/float64(f.options.Turrets))}, // of each turret
	}
}

// truthLog is where the switch writes what it really did.
const truthLog = "truth.jsonl"

// simState is what the demo needs to know of the switch's state.
type simState struct {
	Calls     int `json:"calls"`      // ongoing
	CallsMade int `json:"calls_made"` // since the start
}

func (f *floor) simState(ctx context.Context) (simState, error) {
	var s simState
	body, err := f.simAsk(ctx, http.MethodGet, "/state")
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	return s, err
}

// simAsk puts one question to the switch's control port.
func (f *floor) simAsk(ctx context.Context, method, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, brief)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+f.simControl+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask the switch: %w", err)
	}
	response, err := f.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the switch: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= 300 {
		err = errors.New(strings.TrimSpace(string(body)))
	}
	if err != nil {
		return nil, fmt.Errorf("ask the switch %s: %w", path, err)
	}
	return body, nil
}
