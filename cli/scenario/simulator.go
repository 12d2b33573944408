package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Simulator asks a simulated switch through its control port.
type Simulator struct {
	Client *http.Client
	URL    string // http://HOST:PORT
}

// SwitchState is what matters of a switch's state.
type SwitchState struct {
	Server    string `json:"server"` // incarnation
	Sessions  int    `json:"sessions"`
	Channels  int    `json:"channels"`
	Dialogs   int    `json:"dialogs"`
	Calls     int    `json:"calls"`      // ongoing
	CallsMade int    `json:"calls_made"` // since the start
	Legs      int    `json:"legs"`       // ongoing
	SIP       struct {
		Invites   int `json:"invites"` // new dialogs
		Reinvites int `json:"reinvites"`
		ByesIn    int `json:"byes_in"`
		ByesOut   int `json:"byes_out"`
	} `json:"sip"`
}

// brief is how long one question may take: one that hangs must not hold up
// what is measured.
const brief = 500 * time.Millisecond

// State is how the switch is now.
func (s Simulator) State(ctx context.Context) (SwitchState, error) {
	var state SwitchState
	body, err := s.Ask(ctx, http.MethodGet, "/state")
	if err == nil {
		err = json.Unmarshal(body, &state)
	}
	if err == nil && state.Server == "" {
		err = errors.New("it names no incarnation")
	}
	if err != nil {
		return SwitchState{}, fmt.Errorf("read the state of the switch: %w", err)
	}
	return state, nil
}

// Ask puts one question and returns the answer's body.
func (s Simulator) Ask(ctx context.Context, method, path string) ([]byte, error) {
	return s.ask(ctx, method, path, nil)
}

// SetFaults replaces what goes wrong all the time; faults is a JSON object.
func (s Simulator) SetFaults(ctx context.Context, faults string) error {
	_, err := s.ask(ctx, http.MethodPut, "/faults", strings.NewReader(faults))
	return err
}

func (s Simulator) ask(ctx context.Context, method, path string, body io.Reader) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, brief)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, s.URL+path, body)
	if err != nil {
		return nil, fmt.Errorf("ask the switch: %w", err)
	}
	response, err := s.Client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the switch: %w", err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= 300 {
		err = errors.New(strings.TrimSpace(string(answer)))
	}
	if err != nil {
		return nil, fmt.Errorf("ask the switch %s: %w", path, err)
	}
	return answer, nil
}
