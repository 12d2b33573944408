package director

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/authority"
)

const (
	// readyWait is how long the peer may take to say whether it is ready.
	readyWait = time.Second
	// wrapUpWait bounds how long what was begun may take to end before
	// authority is given back all the same: the other one finds it out.
	wrapUpWait = 300 * time.Millisecond
	// succession is how long the successor may take.
	succession = 5 * time.Second
	// glance is the pause between two looks at how far it has come.
	glance = 10 * time.Millisecond
)

// peerService answers the other director.
type peerService struct {
	tandemv1connect.UnimplementedPeerServiceHandler
	pair *partnership
}

// checkPeer refuses whoever is not the peer.
func (s *peerService) checkPeer(group, profile string) error {
	if group != s.pair.cfg.Group {
		return connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("wrong group: %s is of %q, not of %q", s.pair.cfg.Name, s.pair.cfg.Group, group))
	}
	if mine := s.pair.cfg.Failover.Profile; profile != mine {
		return connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("wrong profile: %s has %q, not %q", s.pair.cfg.Name, mine, profile))
	}
	return nil
}

func (s *peerService) Meet(ctx context.Context, req *connect.Request[tandemv1.MeetRequest]) (*connect.Response[tandemv1.MeetResponse], error) {
	m := req.Msg
	if err := s.checkPeer(m.GetGroup(), m.GetProfile()); err != nil {
		return nil, err
	}
	if m.GetDirector() == s.pair.cfg.Name || m.GetAsked() != 0 && authority.Epoch(m.GetAsked()).Side() == s.pair.elector.cfg.Side {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("%s and %s have the same name, or both the same value of failover.preferred", m.GetDirector(), s.pair.cfg.Name))
	}
	s.pair.peer.met(m.GetDirector(), m.GetRole(), m.GetCti(), m.GetReach())
	reply, err := s.pair.elector.answer(ctx, authority.Message{Kind: authority.Consent, Epoch: authority.Epoch(m.GetSeen()), Asked: authority.Epoch(m.GetAsked()), Round: authority.Instant(m.GetRound())})
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	return connect.NewResponse(&tandemv1.MeetResponse{
		Director: s.pair.cfg.Name, Role: reply.Role.String(), Seen: uint64(reply.Epoch), Promised: reply.Yes, Cti: s.pair.director.loop().ctiWord(), Reach: uint32(s.pair.reach()),
	}), nil
}

func (s *peerService) Yield(_ context.Context, req *connect.Request[tandemv1.YieldRequest]) (*connect.Response[tandemv1.YieldResponse], error) {
	m := req.Msg
	if err := s.checkPeer(m.GetGroup(), s.pair.cfg.Failover.Profile); err != nil {
		return nil, err
	}
	s.pair.elector.hear(authority.Rival, authority.Message{Kind: authority.Release, Epoch: authority.Epoch(m.GetEpoch()), Round: authority.Instant(m.GetRound())})
	if m.GetSucceed() {
		c := cause{m.GetActor(), m.GetText()}
		if c.actor == "" {
			c = cause{m.GetBy(), m.GetReason()}
		}
		s.pair.elector.inherit(c)
	}
	return connect.NewResponse(&tandemv1.YieldResponse{}), nil
}

func (s *peerService) Ready(_ context.Context, req *connect.Request[tandemv1.ReadyRequest]) (*connect.Response[tandemv1.ReadyResponse], error) {
	if err := s.checkPeer(req.Msg.GetGroup(), s.pair.cfg.Failover.Profile); err != nil {
		return nil, err
	}
	v := s.pair.elector.view.Load()
	res := &tandemv1.ReadyResponse{Ready: v.able && v.director.Phase == authority.Passive, Text: v.why}
	if v.director.Phase != authority.Passive {
		res.Text = "it is " + v.director.Phase.String()
	}
	return connect.NewResponse(res), nil
}

// answer takes the rival's question in and gives the answer.
func (e *elector) answer(ctx context.Context, m authority.Message) (authority.Message, error) {
	var reply authority.Message
	if err := e.call(ctx, func(now authority.Instant) {
		reply = e.step(authority.Said{From: authority.Rival, Message: m}, now)
	}); err != nil {
		return authority.Message{}, err // it may be said yet, to nobody
	}
	return reply, nil
}

// Campaign implements DirectorService.
func (s *service) Campaign(ctx context.Context, req *connect.Request[tandemv1.CampaignRequest]) (*connect.Response[tandemv1.CampaignResponse], error) {
	p := s.director.pair
	if p == nil {
		return nil, refused("%s stands alone, and is in charge", s.director.cfg.Name)
	}
	if req.Msg.GetForce() {
		s.director.log.Error("authority is to be taken by force", "actor", req.Msg.GetActor(), "reason", req.Msg.GetReason())
	}
	p.elector.campaign(cause{req.Msg.GetActor(), req.Msg.GetReason()}, req.Msg.GetForce())
	if err := p.elector.call(ctx, func(authority.Instant) {}); err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	v := p.elector.view.Load()
	return connect.NewResponse(&tandemv1.CampaignResponse{Role: v.director.Phase.String(), Text: v.why}), nil
}

// History implements DirectorService.
func (s *service) History(ctx context.Context, _ *connect.Request[tandemv1.HistoryRequest]) (*connect.Response[tandemv1.HistoryResponse], error) {
	res := &tandemv1.HistoryResponse{}
	if p := s.director.pair; p != nil {
		if err := p.elector.call(ctx, func(authority.Instant) { res.Changes = append(res.Changes, p.elector.history.changes...) }); err != nil {
			return nil, connect.NewError(connect.CodeUnavailable, err)
		}
	}
	return connect.NewResponse(res), nil
}

// Failover implements DirectorService: whoever is active hands over, and when
// nobody is, the one that is asked for seeks authority.
func (s *service) Failover(ctx context.Context, req *connect.Request[tandemv1.FailoverRequest]) (*connect.Response[tandemv1.FailoverResponse], error) {
	p := s.director.pair
	if p == nil {
		return nil, refused("%s stands alone: there is nobody to hand over to", s.director.cfg.Name)
	}
	m, self := req.Msg, s.director.cfg.Name
	active := p.elector.view.Load().director.Phase == authority.Active
	peer := p.peer.heard(unheard)
	switch {
	case m.GetTo() != "" && m.GetTo() != self && (peer == nil || m.GetTo() != peer.name):
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("no director %q: there is %s, and its peer %s", m.GetTo(), self, p.peer.title()))
	case active && m.GetTo() == self:
		return nil, refused("%s is active already", self)
	case active && peer == nil:
		return nil, refused("%s does not hear its peer at %s: there is nobody to hand over to", self, p.peer.address)
	case active:
		return answered(p.handOver(ctx, m, peer.name))
	case peer != nil && peer.role == authority.Active.String() && m.GetTo() == peer.name:
		return nil, refused("%s is active already", peer.name)
	case peer != nil && (peer.role == authority.Active.String() || m.GetTo() == peer.name):
		res, err := p.forward(ctx, m, self)
		if unreached := connect.CodeOf(err) == connect.CodeUnavailable || connect.CodeOf(err) == connect.CodeDeadlineExceeded; err == nil || !unreached || m.GetTo() != self {
			return res, err
		} // it was heard a moment ago, and is gone
	}
	return answered(p.takeOver(ctx, m))
}

// forward has the peer do it, whose business it is.
func (p *partnership) forward(ctx context.Context, m *tandemv1.FailoverRequest, self string) (*connect.Response[tandemv1.FailoverResponse], error) {
	if m.GetTo() == "" {
		m.To = self
	}
	return p.peer.commands.Failover(ctx, connect.NewRequest(m))
}

// handOver gives authority to the peer: it says that it is ready, what was begun
// ends, and only then is anything given back.
func (p *partnership) handOver(ctx context.Context, m *tandemv1.FailoverRequest, to string) (*tandemv1.FailoverResponse, error) {
	self := p.cfg.Name
	res := &tandemv1.FailoverResponse{From: self, To: to, Plan: []string{
		to + " listens to the switch and the recorders already, and says that it is ready",
		self + " ends what it has begun and begins nothing new",
		self + " gives its authority back; " + to + " acquires it and fences every recorder",
		to + " goes on with the same SIP dialogs: nothing is dialled again, media goes on",
	}}
	readyCtx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	ready, err := p.peer.client.Ready(readyCtx, connect.NewRequest(&tandemv1.ReadyRequest{Group: p.cfg.Group, Director: self}))
	if err != nil {
		return nil, refused("%s does not answer: %v", to, err)
	}
	if !ready.Msg.GetReady() {
		return nil, refused("%s is not ready: %s", to, ready.Msg.GetText())
	}
	if m.GetDryRun() {
		return res, nil
	}
	p.wrapUp(ctx, cause{m.GetActor(), m.GetReason()})
	began := time.Now()
	epoch := p.resign(ctx)
	next, err := p.succeeded(ctx, epoch)
	if err != nil {
		p.elector.campaign(cause{self, to + " did not take over"}, false)
		return nil, refused("%s did not take over: %v; %s seeks authority again", to, err, self)
	}
	res.Epoch, res.TookMs = next, time.Since(began).Milliseconds()
	return res, nil
}

// succeeded waits until the peer is active in an epoch after the given one.
func (p *partnership) succeeded(ctx context.Context, after uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, succession)
	defer cancel()
	tick := time.NewTicker(glance)
	defer tick.Stop()
	role := "silent"
	for {
		res, err := p.peer.client.Meet(ctx, connect.NewRequest(&tandemv1.MeetRequest{
			Group: p.cfg.Group, Director: p.cfg.Name, Role: authority.Passive.String(), Seen: after, Profile: p.cfg.Failover.Profile, Cti: p.director.loop().ctiWord(), Reach: uint32(p.reach()),
		}))
		if err == nil {
			if role = res.Msg.GetRole(); role == authority.Active.String() && res.Msg.GetSeen() > after {
				return res.Msg.GetSeen(), nil
			}
		}
		if p.elector.view.Load().director.Phase.Holds() {
			return 0, fmt.Errorf("it is %s, and authority has come back", role)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("it is %s after %v", role, succession)
		}
	}
}

// takeOver has this director seek authority, and waits for what comes of it.
func (p *partnership) takeOver(ctx context.Context, m *tandemv1.FailoverRequest) (*tandemv1.FailoverResponse, error) {
	self := p.cfg.Name
	res := &tandemv1.FailoverResponse{To: self, Plan: []string{
		self + " asks the voters, who refuse while another director has their lease",
		"with a majority of them, or its peer's promise to stay out, it waits until no order of the other one can arrive any more",
		self + " fences every recorder, learns what it holds and goes on with the same SIP dialogs",
	}}
	if m.GetForce() {
		res.Plan = append(res.Plan, "without either it goes on all the same, because you say that the other director is off")
	}
	if v := p.elector.view.Load(); !v.able {
		return nil, refused("%s cannot lead: %s", self, v.why)
	}
	if m.GetForce() {
		if alive := p.leasedToRival(time.Now()); alive != "" {
			return nil, refused("%s: %s is not off, and no force is needed once it is", alive, p.peer.title())
		}
	}
	if m.GetDryRun() {
		return res, nil
	}
	ctx, cancel := context.WithTimeout(ctx, succession)
	defer cancel()
	began := time.Now()
	tick := time.NewTicker(p.elector.cfg.H)
	defer tick.Stop()
	for {
		v := p.elector.view.Load()
		if v.director.Phase == authority.Active {
			res.Epoch, res.TookMs = uint64(v.director.Epoch), time.Since(began).Milliseconds()
			return res, nil
		}
		p.elector.campaign(cause{m.GetActor(), m.GetReason()}, m.GetForce())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, refused("%s has not got authority: %s", self, p.obstacles(time.Now()))
		}
	}
}

// leasedToRival names a voter that says the rival still renews its lease; "" if
// none does.
func (p *partnership) leasedToRival(now time.Time) string {
	for _, v := range p.voters(now) {
		if v.AgeMs >= 0 && v.RemainingMs > 0 && v.Holder != p.cfg.Name {
			return fmt.Sprintf("%s has leased to %s for another %d ms", title(v), v.Holder, v.RemainingMs)
		}
	}
	return ""
}

func answered(res *tandemv1.FailoverResponse, err error) (*connect.Response[tandemv1.FailoverResponse], error) {
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(res), nil
}

func refused(format string, args ...any) error {
	return connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf(format, args...))
}

var errNotInCharge = errors.New("this director is not in charge")
