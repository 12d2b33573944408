package director

import (
	"context"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/authority"
)

// planned is why a director gives back what it was given.
const planned = "planned"

// underWay bounds the questions that one peer has not answered yet: one that is
// frozen must not be owed thousands when it thaws.
const underWay = 8

// asker puts questions to one peer, several at a time, each for as long as its
// answer would be worth something.
type asker struct {
	patience time.Duration
	pending  atomic.Int32
}

// ask calls question on a goroutine of its own, unless too many wait already.
func (a *asker) ask(question func(ctx context.Context)) {
	if a.pending.Add(1) > underWay {
		a.pending.Add(-1)
		return
	}
	go func() {
		defer a.pending.Add(-1)
		ctx, cancel := context.WithTimeout(context.Background(), a.patience)
		defer cancel()
		question(ctx)
	}()
}

// ballotBox is a voter over the network.
type ballotBox struct {
	asker
	address  string
	group    string
	director string
	profile  string
	client   tandemv1connect.VoterServiceClient
	nonce    func(uint64) // takes the voter's newest one, which orders to a recorder repeat, too; nil: it is none
	last     atomic.Pointer[ballotHeard]
}

// ballotHeard is what a voter last said, and when.
type ballotHeard struct {
	ballot *tandemv1.Ballot
	at     time.Time
}

func newBallotBox(address string, cfg Config, client client, nonce func(uint64)) *ballotBox {
	return &ballotBox{
		asker: asker{patience: cfg.Failover.Authority().LD}, address: address, group: cfg.Group, director: cfg.Name, profile: cfg.Failover.Profile,
		client: tandemv1connect.NewVoterServiceClient(client, "http://"+address, connect.WithGRPC()), nonce: nonce,
	}
}

// ask implements respondent.
func (b *ballotBox) ask(m authority.Message, heard func(authority.Message)) {
	b.asker.ask(func(ctx context.Context) {
		ballot, granted, err := b.put(ctx, m)
		if err != nil || ballot == nil {
			return
		}
		b.last.Store(&ballotHeard{ballot, time.Now()})
		if b.nonce != nil {
			b.nonce(ballot.GetNonce())
		}
		heard(authority.Message{
			Kind: authority.Ballot, Epoch: authority.Epoch(ballot.GetEpoch()), Asked: m.Epoch, Round: m.Round, Nonce: ballot.GetNonce(),
			Yes: granted, Remaining: time.Duration(ballot.GetRemainingUs()) * time.Microsecond,
		})
	})
}

// put asks the one question that a message is.
func (b *ballotBox) put(ctx context.Context, m authority.Message) (*tandemv1.Ballot, bool, error) {
	switch m.Kind {
	case authority.Lease:
		res, err := b.client.Lease(ctx, connect.NewRequest(&tandemv1.LeaseRequest{
			Group: b.group, Director: b.director, Epoch: uint64(m.Epoch), Nonce: m.Nonce, Profile: b.profile, Round: int64(m.Round),
		}))
		if err != nil {
			return nil, false, err
		}
		return res.Msg.GetBallot(), res.Msg.GetGranted(), nil
	case authority.Release:
		res, err := b.client.Release(ctx, connect.NewRequest(&tandemv1.ReleaseRequest{
			Group: b.group, Epoch: uint64(m.Epoch), Reason: planned, By: b.director, Round: int64(m.Round),
		}))
		if err != nil {
			return nil, false, err
		}
		return res.Msg.GetBallot(), false, nil
	}
	res, err := b.client.Query(ctx, connect.NewRequest(&tandemv1.QueryRequest{Group: b.group, Director: b.director, Profile: b.profile}))
	if err != nil {
		return nil, false, err
	}
	return res.Msg.GetBallot(), false, nil
}

// status is the voter as people see it.
func (b *ballotBox) status(now time.Time) *tandemv1.VoterStatus {
	s := &tandemv1.VoterStatus{Address: b.address, AgeMs: -1}
	if h := b.last.Load(); h != nil {
		s.Heard = h.ballot.GetHeard()
		s.Name, s.Epoch, s.Holder = h.ballot.GetVoter(), h.ballot.GetEpoch(), h.ballot.GetHolder()
		s.AgeMs = max(0, now.Sub(h.at).Milliseconds())
		s.RemainingMs = max(0, h.ballot.GetRemainingUs()/1000-s.AgeMs)
	}
	return s
}

// peerLink is the other director over the network.
type peerLink struct {
	asker
	address  string
	group    string
	director string
	profile  string
	client   tandemv1connect.PeerServiceClient
	commands tandemv1connect.DirectorServiceClient
	cti      func() string // of this director
	reach    func() int    // and how many recorders it hears
	last     atomic.Pointer[peerHeard]
	parting  atomic.Pointer[cause] // who wanted authority to be given back, and why
}

// peerHeard is what the peer last said, and when.
type peerHeard struct {
	name, role, cti string
	reach           int // recorders that it hears
	at              time.Time
}

func newPeerLink(cfg Config, client client, cti func() string, reach func() int) *peerLink {
	return &peerLink{
		asker: asker{patience: cfg.Failover.Authority().LD}, address: cfg.Failover.Peer, group: cfg.Group, director: cfg.Name, profile: cfg.Failover.Profile,
		client:   tandemv1connect.NewPeerServiceClient(client, "http://"+cfg.Failover.Peer, connect.WithGRPC()),
		commands: tandemv1connect.NewDirectorServiceClient(client, "http://"+cfg.Failover.Peer, connect.WithGRPC()), cti: cti, reach: reach,
	}
}

// ask implements respondent.
func (p *peerLink) ask(m authority.Message, heard func(authority.Message)) {
	if m.Kind == authority.Release {
		p.asker.ask(func(ctx context.Context) {
			req := &tandemv1.YieldRequest{Group: p.group, Epoch: uint64(m.Epoch), Reason: planned, By: p.director, Succeed: true, Round: int64(m.Round)}
			if c := p.parting.Load(); c != nil {
				req.Actor, req.Text = c.actor, c.reason
			}
			p.client.Yield(ctx, connect.NewRequest(req))
		})
		return
	}
	p.asker.ask(func(ctx context.Context) {
		res, err := p.client.Meet(ctx, connect.NewRequest(&tandemv1.MeetRequest{
			Group: p.group, Director: p.director, Role: m.Role.String(), Seen: uint64(m.Epoch), Asked: uint64(m.Asked), Profile: p.profile, Cti: p.cti(), Reach: uint32(p.reach()), Round: int64(m.Round),
		}))
		if err != nil {
			return
		}
		p.met(res.Msg.GetDirector(), res.Msg.GetRole(), res.Msg.GetCti(), res.Msg.GetReach())
		heard(authority.Message{
			Kind: authority.Reply, Epoch: authority.Epoch(res.Msg.GetSeen()), Asked: m.Asked, Round: m.Round, Yes: res.Msg.GetPromised(),
		})
	})
}

func (p *peerLink) met(name, role, cti string, reach uint32) {
	p.last.Store(&peerHeard{name, role, cti, int(reach), time.Now()})
}

// heard is what the peer said within a while, or nil.
func (p *peerLink) heard(within time.Duration) *peerHeard {
	if h := p.last.Load(); h != nil && time.Since(h.at) < within {
		return h
	}
	return nil
}
