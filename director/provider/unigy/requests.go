package unigy

import (
	"strings"

	"github.com/emiago/sipgo/sip"

	"tandem/director/provider"
)

// What the switch asks of us. Nobody but it calls a recorder, and all that it
// has to say is that a dialog is over.

// onBye ends a dialog at the switch's wish.
func (a *agent) onBye(req *sip.Request, tx sip.ServerTransaction) {
	at := a.within(req, tx)
	if at == nil {
		return
	}
	respond(req, tx, sip.StatusOK, "OK")
	reason := ""
	if h := req.GetHeader("Reason"); h != nil {
		reason = h.Value()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.matching(req) != at { // moved on meanwhile
		return
	}
	a.release(at)
	a.emit(provider.Dropped{Channel: at.channel, Taken: isTaken(reason), Cause: reason})
}

// isTaken reads a Reason header (RFC 3326) that says another director has the channel.
func isTaken(reason string) bool {
	for param := range strings.SplitSeq(reason, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(param), "=")
		if strings.EqualFold(name, "text") && strings.EqualFold(strings.Trim(value, `"`), "taken") {
			return true
		}
	}
	return false
}

// within is the attachment whose dialog a request is in; one in none is
// answered 481 (RFC 3261 12.2.2).
func (a *agent) within(req *sip.Request, tx sip.ServerTransaction) *attachment {
	a.mu.Lock()
	at := a.matching(req)
	a.mu.Unlock()
	if at == nil {
		respond(req, tx, sip.StatusCallTransactionDoesNotExists, "Call/Transaction Does Not Exist")
	}
	return at
}

// matching finds the attachment whose dialog a request of the switch is in (RFC 3261 12.2.2).
func (a *agent) matching(req *sip.Request) *attachment {
	id, from, to := req.CallID(), req.From(), req.To()
	if id == nil || from == nil || to == nil {
		return nil
	}
	at := a.byCallID[id.Value()]
	if at == nil || at.dialog == nil {
		return nil
	}
	theirs, _ := from.Params.Get("tag")
	ours, _ := to.Params.Get("tag")
	if theirs != at.dialog.RemoteTag || ours != at.dialog.LocalTag {
		return nil
	}
	return at
}

func (a *agent) onOptions(req *sip.Request, tx sip.ServerTransaction) {
	res := sip.NewResponseFromRequest(req, sip.StatusOK, "OK", nil)
	res.AppendHeader(sip.NewHeader("Allow", "ACK, BYE, OPTIONS"))
	res.AppendHeader(sip.NewHeader("Accept", "application/sdp"))
	tx.Respond(res)
}

// onInvite refuses: nobody calls a recorder, and who is recorded is decided
// here. A refused re-INVITE leaves its dialog as it is (RFC 3261 14.2).
func (a *agent) onInvite(req *sip.Request, tx sip.ServerTransaction) {
	if a.within(req, tx) != nil {
		respond(req, tx, sip.StatusNotAcceptableHere, "Not Acceptable Here")
	}
}

func (a *agent) onOther(req *sip.Request, tx sip.ServerTransaction) {
	res := sip.NewResponseFromRequest(req, sip.StatusMethodNotAllowed, "Method Not Allowed", nil)
	res.AppendHeader(sip.NewHeader("Allow", "ACK, BYE, OPTIONS"))
	tx.Respond(res)
}

// respond answers; a transport that cannot is the far end's to notice, by repeating.
func respond(req *sip.Request, tx sip.ServerTransaction, code int, reason string) {
	tx.Respond(sip.NewResponseFromRequest(req, code, reason, nil))
}
