package unigy

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
)

func sampleDialog() dialog {
	return dialog{
		Format: dialogFormat, Channel: "s1.m1.A", CallID: "ID-1", LocalTag: "ours", RemoteTag: "theirs",
		LocalURI: "sip:tandem@10.0.0.1:5070", RemoteURI: "sip:s1.m1.A@10.0.9.1:5060", Target: "sip:s1.m1.A@10.0.9.1:5061",
		Routes: []string{"sip:proxy-a;lr", "sip:proxy-b;lr"}, Transport: "udp", CSeq: 12, Session: 99, Version: 3, Host: "10.0.1.1", Port: 20_002,
	}
}

func TestDialogSurvivesItsProcess(t *testing.T) {
	d := sampleDialog()
	got, err := decodeDialog(d.encode())
	if err != nil || !reflect.DeepEqual(got, d) {
		t.Fatalf("got %+v, %v, want %+v", got, err, d)
	}
	if len(d.encode()) > 1000 {
		t.Errorf("%d bytes to keep for each channel", len(d.encode()))
	}
}

func TestDecodeDialogRefuses(t *testing.T) {
	for name, change := range map[string]func(*dialog){
		"no channel":       func(d *dialog) { d.Channel = "" },
		"no call id":       func(d *dialog) { d.CallID = "" },
		"no remote tag":    func(d *dialog) { d.RemoteTag = "" },
		"header injection": func(d *dialog) { d.LocalTag = "x\r\nEvil: 1" },
		"uri injection":    func(d *dialog) { d.Target = "sip:a@b\r\nEvil: 1" },
		"uri of mail":      func(d *dialog) { d.RemoteURI = "mailto:a@b" },
		"route":            func(d *dialog) { d.Routes[1] = "" },
		"transport":        func(d *dialog) { d.Transport = "sctp" },
		"cseq at its end":  func(d *dialog) { d.CSeq = 1<<31 - 1 },
		"host":             func(d *dialog) { d.Host = "recorder" },
		"port":             func(d *dialog) { d.Port = 0 },
	} {
		d := sampleDialog()
		change(&d)
		if got, err := decodeDialog(d.encode()); err == nil {
			t.Errorf("%s: accepted %+v", name, got)
		}
	}
	later := bytes.Replace(sampleDialog().encode(), []byte(`"format":1`), []byte(`"format":2`), 1)
	if _, err := decodeDialog(later); err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("another format: %v", err)
	}
	if _, err := decodeDialog(nil); err == nil {
		t.Error("accepted nothing")
	}
}

// RFC 3261 12.2.1.1: target as request URI, routes in order, both tags.
func TestRequestInDialog(t *testing.T) {
	req, err := sampleDialog().request(sip.BYE, sip.Uri{Scheme: "sip", User: "tandem", Host: "10.0.0.1", Port: 5070})
	if err != nil {
		t.Fatal(err)
	}
	text := req.String()
	for _, want := range []string{
		"BYE sip:s1.m1.A@10.0.9.1:5061 SIP/2.0\r\n", "Route: <sip:proxy-a;lr>\r\nRoute: <sip:proxy-b;lr>\r\n",
		"From: <sip:tandem@10.0.0.1:5070>;tag=ours\r\n", "To: <sip:s1.m1.A@10.0.9.1:5060>;tag=theirs\r\n",
		"Call-ID: ID-1\r\n", "CSeq: 12 BYE\r\n", "Max-Forwards: 70\r\n", "Contact: <sip:tandem@10.0.0.1:5070>\r\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("lacks %q:\n%s", want, text)
		}
	}
}

// FuzzDecodeDialog holds that a dialog is refused whole or can be used:
// encoding gives it back, and its requests carry its identity and no line that it brought along.
func FuzzDecodeDialog(f *testing.F) {
	f.Add(sampleDialog().encode())
	f.Add([]byte(`{"format":1,"channel":"x","call_id":"a","local_tag":"b","remote_tag":"c","local_uri":"sip:a@b","remote_uri":"sip:c@d","target":"sip:c@d;transport=tcp","transport":"tcp","cseq":1,"host":"::1","port":1}`))
	f.Fuzz(func(t *testing.T, blob []byte) {
		d, err := decodeDialog(blob)
		if err != nil {
			return
		}
		again, err := decodeDialog(d.encode())
		if err != nil || !bytes.Equal(again.encode(), d.encode()) {
			t.Fatalf("%+v came back as %+v, %v", d, again, err)
		}
		req, err := d.request(sip.BYE, sip.Uri{Scheme: "sip", Host: "127.0.0.1"})
		if err != nil {
			t.Fatalf("no request in %+v: %v", d, err)
		}
		head, _, _ := strings.Cut(req.String(), "\r\n\r\n")
		if lines := strings.Count(head, "\r\n"); lines != 6+len(d.Routes) {
			t.Fatalf("%d header lines:\n%s", lines, head)
		}
		if req.CallID().Value() != d.CallID {
			t.Fatalf("call id %q became %q", d.CallID, req.CallID().Value())
		}
	})
}
