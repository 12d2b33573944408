package authority

import "time"

// Kind is what a message is.
type Kind uint8

// What is said. Questions go from a director to a voter or its rival, answers back.
const (
	Query     Kind = iota // to a voter: who has your lease?
	Lease                 // to a voter: lease me your vote for Epoch
	Release               // to a voter and the rival: what you gave for Epoch is needed only F longer
	Ballot                // a voter's answer to Query, Lease and Release
	Consent               // to the rival: this is who I am; and, if Asked is not 0, promise to stay out for Asked
	Reply                 // the rival's answer to Consent
	kindCount = iota
)

// Message is anything that directors and voters say to each other. Which
// fields mean something depends on the kind; the others are zero.
type Message struct {
	Kind  Kind
	Epoch Epoch // Query, Consent, Reply: the highest the speaker has seen; Lease, Release: the one meant; Ballot: the voter's
	Asked Epoch // Consent: the one to promise for; Ballot, Reply: the one that was asked for
	// Round is the instant at which the question was sent, by the asker's
	// clock; answers repeat it. So an answer says by itself how old it may be.
	// Of a release for a process that is gone it is when that was noticed.
	Round Instant
	// Nonce is the voter's: a ballot says the newest one, a lease repeats it.
	// A lease with an old one has wandered about for too long.
	Nonce     uint64
	Yes       bool          // Ballot: granted; Reply: promised
	Remaining time.Duration // Ballot: of the lease on Epoch
	Role      Phase         // Consent, Reply: the speaker's
}
