package unigy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"
)

const (
	// silentSwitch is how long an INVITE without any answer is waited for.
	// Long before RFC 3261's timer B (32 s) a new one, with all its
	// retransmissions still to come, has the better chance.
	silentSwitch = 4 * time.Second
	// slowSwitch is how long one is waited for that the switch has heard of.
	slowSwitch = 32 * time.Second
	// byeWait is how long the answer to a BYE or a CANCEL matters to us.
	byeWait = 4 * time.Second
)

// What we ask of the switch, one transaction each: INVITE with its ACK and
// CANCEL, and BYE.

// contact is where the switch reaches us within a dialog.
func (a *agent) contact(transport string) sip.Uri {
	uri := sip.Uri{Scheme: "sip", User: "tandem", Host: a.local.Addr().String(), Port: int(a.local.Port())}
	if transport != "udp" {
		uri.UriParams.Add("transport", transport)
	}
	return uri
}

var (
	errSilent = errors.New("no answer to INVITE")
	errHungUp = errors.New("hung up as soon as it was answered")
)

// statusError is a final answer that is not a 200.
type statusError struct {
	code   int
	reason string
}

func (e *statusError) Error() string { return fmt.Sprintf("%d %s", e.code, e.reason) }

func isStatus(err error, code int) bool {
	var status *statusError
	return errors.As(err, &status) && status.code == code
}

// invite sends an offer for d's endpoint and waits for the 2xx, answering one
// challenge on the way. An INVITE that is given up stays watched: a late 2xx
// is acknowledged and hung up, so that the switch keeps no dialog nobody has.
func (a *agent) invite(ctx context.Context, d *dialog) (*sip.Response, sip.ClientTransaction, error) {
	body, err := offer(d.Session, d.Version, d.endpoint())
	if err != nil {
		return nil, nil, err
	}
	req, err := d.request(sip.INVITE, a.contact(d.Transport))
	if err != nil {
		return nil, nil, err
	}
	kind := sip.ContentTypeHeader("application/sdp")
	req.AppendHeader(&kind)
	req.SetBody(body)
	tx, err := a.send(ctx, req, *d)
	if err != nil {
		return nil, nil, err
	}
	for challenged := false; ; challenged = true {
		res, err := a.final(ctx, tx, req, *d)
		if err != nil {
			return nil, nil, err
		}
		if res.IsSuccess() {
			return res, tx, nil
		}
		if challenged || a.password == "" || res.StatusCode != sip.StatusUnauthorized && res.StatusCode != sip.StatusProxyAuthRequired {
			return nil, nil, &statusError{res.StatusCode, res.Reason}
		}
		if err := a.gate(); err != nil {
			return nil, nil, err
		}
		req = req.Clone() // the first transaction still needs its own to acknowledge repeated answers
		tx, err = a.client.TransactionDigestAuth(ctx, req, res, sipgo.DigestAuth{Username: a.user, Password: a.password})
		if err != nil {
			return nil, nil, fmt.Errorf("answer challenge: %w", err)
		}
		d.CSeq = req.CSeq().SeqNo
	}
}

// send starts a transaction, if there is authority for it.
func (a *agent) send(ctx context.Context, req *sip.Request, d dialog) (sip.ClientTransaction, error) {
	a.route(req, d)
	if err := a.gate(); err != nil {
		return nil, err
	}
	tx, err := a.client.TransactionRequest(ctx, req, sipgo.ClientRequestAddVia)
	if err != nil {
		return nil, fmt.Errorf("send %s: %w", req.Method, err)
	}
	return tx, nil
}

// route makes UDP requests leave through the listening socket, where their answers are expected.
func (a *agent) route(req *sip.Request, d dialog) {
	if d.Transport == "udp" {
		req.Laddr = sip.Addr{IP: a.local.Addr().AsSlice(), Port: int(a.local.Port())}
	}
	if req.ContentLength() == nil {
		req.SetBody(nil)
	}
}

// final waits for the final answer to an INVITE.
func (a *agent) final(ctx context.Context, tx sip.ClientTransaction, req *sip.Request, d dialog) (*sip.Response, error) {
	wait := time.NewTimer(silentSwitch)
	defer wait.Stop()
	heard := false
	for {
		select {
		case res := <-tx.Responses():
			if !res.IsProvisional() {
				return res, nil
			}
			if !heard {
				heard = true
				wait.Reset(slowSwitch)
			}
		case <-tx.Done():
			return nil, fmt.Errorf("%w: %w", errSilent, tx.Err())
		case <-wait.C:
			a.abandon(tx, req, d, heard)
			return nil, errSilent
		case <-ctx.Done():
			a.abandon(tx, req, d, heard)
			return nil, ctx.Err()
		}
	}
}

// abandon cancels an INVITE (RFC 3261 9.1: only once it was heard of) and
// hangs up should it be answered all the same. A re-INVITE is not cancelled,
// and its answer only acknowledged: its dialog lives or dies by itself.
func (a *agent) abandon(tx sip.ClientTransaction, req *sip.Request, d dialog, heard bool) {
	moving := d.RemoteTag != ""
	if heard && !moving {
		if cancelled, err := a.send(context.Background(), cancelOf(req), d); err == nil {
			time.AfterFunc(byeWait, cancelled.Terminate)
			go drain(cancelled)
		}
	}
	late := time.AfterFunc(slowSwitch, tx.Terminate)
	go func() {
		defer late.Stop()
		for {
			select {
			case res := <-tx.Responses():
				switch {
				case res.IsSuccess() && moving:
					a.ack(d, tx)
				case res.IsSuccess():
					a.hangUpLate(res, d, tx)
				}
				if !res.IsProvisional() {
					return
				}
			case <-tx.Done():
				return
			}
		}
	}()
}

// drain reads a transaction to its end: one that nobody reads blocks its timers.
func drain(tx sip.ClientTransaction) {
	for {
		select {
		case <-tx.Responses():
		case <-tx.Done():
			return
		}
	}
}

// cancelOf builds the CANCEL of an INVITE: the same request line, identity
// and branch (RFC 3261 9.1).
func cancelOf(invite *sip.Request) *sip.Request {
	req := sip.NewRequest(sip.CANCEL, *invite.Recipient.Clone())
	sip.CopyHeaders("Route", invite, req)
	for _, h := range []sip.Header{invite.Via(), invite.From(), invite.To(), invite.CallID()} {
		req.AppendHeader(sip.HeaderClone(h))
	}
	hops := sip.MaxForwardsHeader(70)
	req.AppendHeader(&hops)
	req.AppendHeader(&sip.CSeqHeader{SeqNo: invite.CSeq().SeqNo, MethodName: sip.CANCEL})
	req.SetTransport(invite.Transport())
	return req
}

func (a *agent) hangUpLate(res *sip.Response, d dialog, tx sip.ClientTransaction) {
	if err := d.learn(res); err != nil {
		return
	}
	a.log.Info("hung up a channel answered too late", "peer", d.Target, "channel", d.Channel)
	a.ack(d, tx)
	a.bye(d)
}

// stray is an answer to no transaction of ours: a 2xx repeated because its
// ACK was lost, or one to an INVITE of the process before us.
func (a *agent) stray(res *sip.Response) {
	cseq, from, to, id := res.CSeq(), res.From(), res.To(), res.CallID()
	if !res.IsSuccess() || cseq == nil || cseq.MethodName != sip.INVITE || from == nil || to == nil || id == nil {
		return
	}
	a.mu.Lock()
	at := a.byCallID[id.Value()]
	var d dialog
	if at != nil && at.dialog != nil {
		d = *at.dialog
	}
	a.mu.Unlock()
	if d.CallID != "" {
		d.CSeq = cseq.SeqNo
		a.ack(d, nil)
		return
	}
	tag, _ := from.Params.Get("tag")
	d = dialog{
		Channel: "stray", CallID: id.Value(), LocalTag: tag, LocalURI: from.Address.String(), RemoteURI: to.Address.String(),
		Target: to.Address.String(), Transport: sip.NetworkToLower(res.Transport()), CSeq: cseq.SeqNo,
		Host: a.local.Addr().String(), Port: int(a.local.Port()),
	}
	a.hangUpLate(res, d, nil)
}

// ack acknowledges the 2xx of the transaction with d's CSeq, now and
// whenever the 2xx is repeated (RFC 3261 13.2.2.4).
func (a *agent) ack(d dialog, tx sip.ClientTransaction) {
	write := func() {
		req, err := d.request(sip.ACK, a.contact(d.Transport))
		if err != nil {
			return // learn has checked all of it
		}
		a.route(req, d)
		if err := a.client.WriteRequest(req, sipgo.ClientRequestAddVia); err != nil {
			a.log.Warn("acknowledge answer", "peer", d.Target, "channel", d.Channel, "err", err)
		}
	}
	if tx != nil {
		tx.OnRetransmission(func(res *sip.Response) { write() })
	}
	write()
}

// bye ends a dialog. Its answer changes nothing: either way it is over for us.
func (a *agent) bye(d dialog) {
	ctx, cancel := context.WithTimeout(context.Background(), byeWait)
	defer cancel()
	d.CSeq++
	req, err := d.request(sip.BYE, a.contact(d.Transport))
	if err != nil {
		return // learn has checked all of it
	}
	tx, err := a.send(ctx, req, d)
	if err != nil {
		a.log.Warn("hang up", "peer", d.Target, "channel", d.Channel, "err", err)
		return
	}
	defer tx.Terminate()
	for {
		select {
		case res := <-tx.Responses():
			if res.StatusCode == sip.StatusUnauthorized && a.password != "" {
				a.client.DoDigestAuth(ctx, req.Clone(), res, sipgo.DigestAuth{Username: a.user, Password: a.password})
			}
			if !res.IsProvisional() {
				return
			}
		case <-tx.Done():
			return
		case <-ctx.Done():
			return
		}
	}
}
