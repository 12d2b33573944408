package unigy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/emiago/sipgo/sip"

	"tandem/director/provider"
	"tandem/internal/call"
)

// dialogFormat is the version of an encoded dialog.
const dialogFormat = 1

// adoptedSkip is added to the CSeq of a dialog taken over from another
// process: that process may have sent requests which it could not store any more.
const adoptedSkip = 10_000

// maxCSeq keeps CSeq under 2^31 (RFC 3261 8.1.1.5), skips of later adoptions included.
const maxCSeq = 1<<31 - 1 - 100*adoptedSkip

// dialog is one SIP dialog as its caller sees it (RFC 3261 12), with the
// offer/answer state (RFC 3264 8). It is a plain value, so that another
// process can go on where this one stopped.
type dialog struct {
	Format    int            `json:"format"`
	Channel   call.ChannelID `json:"channel"`
	CallID    string         `json:"call_id"`
	LocalTag  string         `json:"local_tag"`
	RemoteTag string         `json:"remote_tag"`
	LocalURI  string         `json:"local_uri"`
	RemoteURI string         `json:"remote_uri"`
	Target    string         `json:"target"`           // where requests go: the Contact of the 200
	Routes    []string       `json:"routes,omitempty"` // in the order to be used
	Transport string         `json:"transport"`        // udp or tcp
	CSeq      uint32         `json:"cseq"`             // of the last request sent
	Session   uint64         `json:"sdp_session"`
	Version   uint64         `json:"sdp_version"` // of the last offer sent
	Host      string         `json:"host"`        // where the switch was last told to send
	Port      int            `json:"port"`
}

// endpoint is where the dialog's media goes.
func (d dialog) endpoint() provider.Endpoint { return provider.Endpoint{Host: d.Host, Port: d.Port} }

// encode writes the dialog for safekeeping.
func (d dialog) encode() []byte {
	d.Format = dialogFormat
	blob, err := json.Marshal(d)
	if err != nil {
		panic("encode dialog: " + err.Error()) // strings and numbers only
	}
	return blob
}

// decodeDialog reads what encode wrote. Anything that could not be used as
// it is, or would not survive being put into a SIP message, is an error.
func decodeDialog(blob []byte) (dialog, error) {
	var d dialog
	if err := json.Unmarshal(blob, &d); err != nil {
		return dialog{}, fmt.Errorf("decode dialog: %w", err)
	}
	if err := d.check(); err != nil {
		return dialog{}, fmt.Errorf("decode dialog: %w", err)
	}
	return d, nil
}

func (d dialog) check() error {
	if d.Format != dialogFormat {
		return fmt.Errorf("format %d, want %d", d.Format, dialogFormat)
	}
	if d.Channel == "" {
		return errors.New("no channel")
	}
	for _, field := range []string{d.CallID, d.LocalTag, d.RemoteTag} {
		if field == "" || strings.ContainsFunc(field, outsideToken) {
			return fmt.Errorf("unusable identifier %q", field)
		}
	}
	for _, text := range append([]string{d.LocalURI, d.RemoteURI, d.Target}, d.Routes...) {
		if _, err := parseURI(text); err != nil {
			return err
		}
	}
	if d.Transport != "udp" && d.Transport != "tcp" {
		return fmt.Errorf("transport %q", d.Transport)
	}
	if d.CSeq > maxCSeq {
		return fmt.Errorf("cseq %d", d.CSeq)
	}
	if _, err := netip.ParseAddr(d.Host); err != nil {
		return err
	}
	if d.Port < 1 || d.Port > 65535 {
		return fmt.Errorf("port %d", d.Port)
	}
	return nil
}

// outsideToken tells the runes that end a header parameter (RFC 3261 25.1).
func outsideToken(r rune) bool {
	return r <= ' ' || r >= 0x7f || strings.ContainsRune(`";,<>?=\`, r)
}

// parseURI reads a SIP URI that names a host.
func parseURI(text string) (sip.Uri, error) {
	var uri sip.Uri
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"<>`, r) }) {
		return uri, fmt.Errorf("parse uri %q: control, blank or quote", text)
	}
	if err := sip.ParseUri(text, &uri); err != nil {
		return uri, fmt.Errorf("parse uri %q: %w", text, err)
	}
	if uri.Scheme != "sip" || uri.Host == "" || uri.Port < 0 || uri.Port > 65535 {
		return uri, fmt.Errorf("parse uri %q: want sip:NAME@HOST:PORT", text)
	}
	return uri, nil
}

// transportOf reads the transport parameter of a URI (RFC 3261 19.1.1); UDP unless it says TCP.
func transportOf(uri sip.Uri) (string, error) {
	switch t := strings.ToLower(uri.UriParams.GetOr("transport", "udp")); t {
	case "udp", "tcp":
		return t, nil
	default:
		return "", fmt.Errorf("transport %q: want udp or tcp", t)
	}
}

// learn takes from a 200 to a first INVITE what makes it a dialog (RFC 3261 12.1.2).
func (d *dialog) learn(res *sip.Response) error {
	to := res.To()
	if to == nil {
		return errors.New("answer without To")
	}
	d.RemoteTag, _ = to.Params.Get("tag")
	d.refresh(res)
	routes := res.GetHeaders("Record-Route")
	d.Routes = make([]string, 0, len(routes))
	for i := len(routes) - 1; i >= 0; i-- { // reversed: RFC 3261 12.1.2
		if r, ok := routes[i].(*sip.RecordRouteHeader); ok {
			d.Routes = append(d.Routes, r.Address.String())
		}
	}
	d.Format = dialogFormat
	return d.check()
}

// refresh takes the remote target of any 200 to INVITE (RFC 3261 12.2.1.2). An
// answer without one is wrong, and no reason to lose the audio: requests go on to where they went.
func (d *dialog) refresh(res *sip.Response) {
	if contact := res.Contact(); contact != nil {
		d.Target = contact.Address.String()
	}
}

// request builds a request inside the dialog (RFC 3261 12.2.1.1) with the
// dialog's present CSeq; whoever starts a transaction counts it up before.
func (d dialog) request(method sip.RequestMethod, contact sip.Uri) (*sip.Request, error) {
	target, err := parseURI(d.Target)
	if err != nil {
		return nil, err
	}
	req := sip.NewRequest(method, target)
	for _, text := range d.Routes {
		uri, err := parseURI(text)
		if err != nil {
			return nil, err
		}
		req.AppendHeader(&sip.RouteHeader{Address: uri})
	}
	if err := d.identify(req); err != nil {
		return nil, err
	}
	req.AppendHeader(&sip.ContactHeader{Address: contact})
	return req, nil
}

// identify adds From, To, Call-ID, CSeq and Max-Forwards.
func (d dialog) identify(req *sip.Request) error {
	local, err := parseURI(d.LocalURI)
	if err != nil {
		return err
	}
	remote, err := parseURI(d.RemoteURI)
	if err != nil {
		return err
	}
	from := &sip.FromHeader{Address: local}
	from.Params.Add("tag", d.LocalTag)
	to := &sip.ToHeader{Address: remote}
	if d.RemoteTag != "" {
		to.Params.Add("tag", d.RemoteTag)
	}
	id := sip.CallIDHeader(d.CallID)
	hops := sip.MaxForwardsHeader(70)
	req.AppendHeader(from)
	req.AppendHeader(to)
	req.AppendHeader(&id)
	req.AppendHeader(&sip.CSeqHeader{SeqNo: d.CSeq, MethodName: req.Method})
	req.AppendHeader(&hops)
	req.SetTransport(strings.ToUpper(d.Transport))
	return nil
}
