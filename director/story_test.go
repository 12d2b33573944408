package director

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	tandemv1 "tandem/api/tandem/v1"
)

type (
	legRecord  = tandemv1.Leg
	callRecord = tandemv1.Call
)

// story tells a leg in a few words: start-end cause accuracy, in seconds after zero.
func story(l *tandemv1.Leg, zero time.Time) string {
	text := fmt.Sprintf("%.0f-", l.GetStart().AsTime().Sub(zero).Seconds())
	if l.GetEnd() != nil {
		text += fmt.Sprintf("%.0f %s", l.GetEnd().AsTime().Sub(zero).Seconds(), l.GetEndCause())
	}
	return text + " " + l.GetAccuracy()
}

// held is a copy of a held channel at another port.
func held(h *tandemv1.HeldChannel, port uint32) *tandemv1.HeldChannel {
	c := proto.CloneOf(h)
	c.Endpoint.RtpPort = port
	return c
}
