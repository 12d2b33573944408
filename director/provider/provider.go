// Package provider holds the words between a director and the telephony
// platforms it records: what a platform announces, and what attaching a
// channel came to. Everything platform-specific stays behind these values.
package provider

import (
	"time"

	"tandem/internal/call"
	"tandem/internal/media"
)

// Session is a user logged on at a turret.
type Session struct {
	ID       call.SessionID
	User     call.UserID
	UserName string
	Device   call.DeviceID
	Profile  string
}

// Channel is a mix that may be recorded.
type Channel struct {
	ID      call.ChannelID
	Session call.SessionID
	Mix     string
	Copy    call.Copy
	Address string // where the provider asks for it; opaque to the director
	Sources []string
}

// Call is one conversation, as the platform names it.
type Call struct {
	ID        call.CallID
	Line      string
	Direction string
	Kind      string
	Party     string
	PartyName string
}

// Leg is one source of one turret in a call.
type Leg struct {
	ID      call.LegID
	Call    call.CallID
	Session call.SessionID
	User    call.UserID
	Device  call.DeviceID
	Source  string
}

// Endpoint is where media goes: an IP address and an RTP port.
type Endpoint struct {
	Host string
	Port int
}

// Event is anything a provider tells the director. Events of one provider
// come in order. Times named At are the platform's own; all others are the director's.
type Event interface{ event() }

type (
	// LinkUp says that the platform answered and a snapshot follows.
	LinkUp struct{ Peer, Incarnation string }
	// LinkDown says that nothing is heard any more; Heard is when all was
	// still heard. It is zero if this attempt at a link never came up.
	LinkDown struct {
		Peer  string
		Heard time.Time
		Err   error
	}
	// SnapshotBegin and SnapshotEnd enclose the events that say what is so now.
	SnapshotBegin struct{}
	SnapshotEnd   struct{}

	// LoggedOn and LoggedOff are a session's life.
	LoggedOn struct {
		Session Session
		At      time.Time
	}
	LoggedOff struct {
		Session call.SessionID
		Cause   string
		At      time.Time
	}
	// ChannelAvailable says that a channel may be attached, ChannelUnavailable that it is gone.
	ChannelAvailable   struct{ Channel Channel }
	ChannelUnavailable struct {
		Channel call.ChannelID
		Cause   string
	}
	// CallChanged carries a call's newest state: offered established held released.
	CallChanged struct {
		Call  Call
		State string
		Cause string // of released
		At    time.Time
	}
	// LegJoined and LegMoved carry the channels whose mix holds the leg's source.
	LegJoined struct {
		Leg      Leg
		Channels []call.ChannelID
		At       time.Time
	}
	LegMoved struct {
		Leg      Leg
		Channels []call.ChannelID
		At       time.Time
	}
	LegLeft struct {
		Leg call.LegID
		At  time.Time
	}

	// Attached says that the platform sends a channel's media to Endpoint.
	// Dialog is what a later director needs to go on with it.
	Attached struct {
		Channel     call.ChannelID
		Endpoint    Endpoint
		Remote      Endpoint
		Codec       media.Codec
		PayloadType uint8
		Mux         bool
		Dialog      []byte
	}
	// AttachFailed says that it does not. Gone means that the channel's
	// dialog does not exist any more; otherwise it is as it was.
	AttachFailed struct {
		Channel call.ChannelID
		Peer    string
		Err     error
		Gone    bool
	}
	// Adopted answers an adoption: Endpoint is where the dialog sends media.
	Adopted struct {
		Channel  call.ChannelID
		Endpoint Endpoint
		Err      error // the dialog is of no use
	}
	// Dropped says that the platform ended the channel's dialog. Taken means
	// that another director attached the channel.
	Dropped struct {
		Channel call.ChannelID
		Taken   bool
		Cause   string
	}
)

func (LinkUp) event()             {}
func (LinkDown) event()           {}
func (SnapshotBegin) event()      {}
func (SnapshotEnd) event()        {}
func (LoggedOn) event()           {}
func (LoggedOff) event()          {}
func (ChannelAvailable) event()   {}
func (ChannelUnavailable) event() {}
func (CallChanged) event()        {}
func (LegJoined) event()          {}
func (LegMoved) event()           {}
func (LegLeft) event()            {}
func (Attached) event()           {}
func (AttachFailed) event()       {}
func (Adopted) event()            {}
func (Dropped) event()            {}

// Attach asks for a channel's media at an endpoint: in the channel's present
// dialog when there is one, in a new one otherwise.
type Attach struct {
	Channel  call.ChannelID
	Address  string
	Endpoint Endpoint
	Rank     int // the lowest is dialled first
}
