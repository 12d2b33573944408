// Package call names the things a trading floor is made of: who talks to whom,
// on which turret, and what of it can be recorded.
//
// Ids are types, so that swapped arguments do not compile. All of them are
// opaque strings given by the telephony platform, unique within one platform.
package call

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

type (
	// SessionID names a logon: one user at one turret.
	SessionID string
	// ChannelID names one thing that can be recorded: session x mix x copy.
	ChannelID string
	// CallID names one conversation.
	CallID string
	// LegID names one interval of one audio source in a call.
	LegID string
	// UserID names a trader.
	UserID string
	// DeviceID names a turret.
	DeviceID string
	// RecorderName names a recorder within its group.
	RecorderName string
)

// Continuation says that something is missing before a channel's first packet:
// another recorder was lost with it, or nobody had attached it while a call was
// under way. The zero value says that the channel begins here.
type Continuation struct {
	Recorder RecorderName `json:"recorder"` // that was lost; empty: nobody is known to have had the channel
	Cause    Cause        `json:"cause"`
	Since    time.Time    `json:"since"`          // the lost recorder was last known to record, or the call began
	Until    time.Time    `json:"until,omitzero"` // the media was on its way here; zero while it is not known to be
}

// Copy tells the two duplicates of a mix apart (2N recording).
type Copy string

const (
	CopyA Copy = "A"
	CopyB Copy = "B"
)

// Cause says why media time is missing.
type Cause string

const (
	CauseLoss        Cause = "loss"        // packets were sent and never arrived
	CauseOutage      Cause = "outage"      // the channel was attached and nothing came
	CauseFailover    Cause = "failover"    // between two recorders
	CauseUnattached  Cause = "unattached"  // a call was under way and nobody had attached the channel
	CauseDisk        Cause = "disk"        // arrived, and could not be written in time
	CauseInterrupted Cause = "interrupted" // the recorder was not running
)

// Moved is why an attachment of a channel ends that goes on at another recorder.
const Moved = "moved"

// State is what a call record says of its media.
type State string

const (
	StateRecording   State = "recording"
	StateComplete    State = "complete"
	StateInterrupted State = "interrupted"
	StateCTIOutage   State = "cti_outage"
)

// SourceRank orders audio sources by how dearly their loss is paid for:
// handsets first, then speakers in their order, then whatever else there is.
func SourceRank(source string) int {
	switch {
	case strings.HasPrefix(source, "HS."):
		return 0
	case strings.HasPrefix(source, "SPK."):
		return 1
	}
	return 2
}

// Rank is the best SourceRank among the sources of one channel.
func Rank(sources []string) int {
	if len(sources) == 0 {
		return 3
	}
	ranks := make([]int, len(sources))
	for i, s := range sources {
		ranks[i] = SourceRank(s)
	}
	return slices.Min(ranks)
}

// ParseCopy accepts "A" or "B".
func ParseCopy(s string) (Copy, error) {
	switch c := Copy(s); c {
	case CopyA, CopyB:
		return c, nil
	}
	return "", fmt.Errorf("copy %q: want A or B", s)
}
