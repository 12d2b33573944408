package stories

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/cli/audit"
	"tandem/turretsim/truth"
)

// fault tells the switch to misbehave.
func (f *floor) fault(method, path, body string) {
	f.t.Helper()
	r, err := http.NewRequestWithContext(f.t.Context(), method, "http://"+f.control+path, strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode >= 300 {
		f.t.Fatalf("%s %s: %s", method, path, answer.Status)
	}
}

// judge holds all that the recorder gives back against what the switch sent.
func (f *floor) judge() truth.Verdict {
	f.t.Helper()
	account, err := truth.Load(f.truth)
	if err != nil {
		f.t.Fatal(err)
	}
	recorders := []audit.Media{tandemv1connect.NewMediaServiceClient(f.http, "http://"+f.recorderAt)}
	channels, err := audit.Channels(f.t.Context(), recorders)
	if err != nil {
		f.t.Fatal(err)
	}
	judge := account.NewJudge()
	for channel, interval := range channels {
		interval.To = interval.To.Add(time.Minute) // the journal holds what is in no file yet
		recording, err := audit.Export(f.t.Context(), recorders, channel, interval)
		if err != nil {
			f.t.Fatal(err)
		}
		if _, err := judge.Channel(channel, recording.Stretches, recording.Gaps); err != nil {
			f.t.Fatal(err)
		}
	}
	return judge.Total()
}

// A switch and a network that do everything wrong cost what they lose and no
// more: no daemon falls, every packet that came is kept once, every one that
// did not is in a gap.
func TestFaultyFloor(t *testing.T) {
	f := newFloor(t, settings{turrets: 8, mixes: 2, keep: "all", floor: "calls_per_minute = 20.0\ncall_length = \"3s\""})
	const lasts = 1200 * time.Millisecond
	for _, faults := range []string{
		`{"rtp":{"loss":0.05}}`,
		`{"rtp":{"duplicate":0.1}}`,
		`{"rtp":{"reorder":0.1}}`,
		`{"rtp":{"jitter":"60ms"}}`,
		`{"rtp":{"wrong_version":0.1,"short":0.1,"wrong_payload_type":0.1}}`,
		`{"rtp":{"second_ssrc":0.1}}`,
		`{"rtp":{"loss":0.05,"duplicate":0.05,"reorder":0.05,"jitter":"40ms"}}`,
		`{"cti":{"lose":0.2,"duplicate":0.2,"reorder":0.2}}`,
	} {
		f.fault("PUT", "/faults", faults)
		time.Sleep(lasts)
	}
	f.fault("PUT", "/faults", `{}`)
	for _, shot := range []struct{ name, body string }{
		{"ssrc_change", `{"count":4}`},
		{"sequence_jump", `{"count":2}`},
		{"timestamp_jump", `{"count":2,"amount":160000}`},
		{"flood", `{"duration":"1s"}`},
		{"bye", `{"count":4}`},
		{"cti_garbage", ``},
		{"cti_unknown_type", ``},
		{"cti_unknown_channel", ``},
		{"cti_long_line", ``},
		{"cti_drop", ``},
		{"restart_cti", ``},
		{"log_off", `{"count":2}`},
		{"log_on", `{"count":2}`},
	} {
		f.fault("POST", "/fault/"+shot.name, shot.body)
		time.Sleep(lasts)
	}
	// Channels that fall are refused in every way before they are taken again.
	for _, faults := range []string{`{"sip":{"status":503,"status_rate":1}}`, `{"sip":{"no_sdp":1}}`, `{"sip":{"no_codec":1}}`, `{"sip":{"lose_ack":1}}`, `{"sip":{"delay":"1s"}}`} {
		f.fault("PUT", "/faults", faults)
		f.fault("POST", "/fault/bye", `{"count":2}`)
		time.Sleep(lasts)
	}
	f.fault("PUT", "/faults", `{}`)
	eventually(t, 15*time.Second, "every channel is attached again", func() bool { return f.dialogs() == 16 })
	time.Sleep(3 * lasts)
	f.sim.stop()
	time.Sleep(time.Second) // the recorder sweeps what is on its way
	verdict := f.judge()
	if verdict.UnexplainedMS != 0 || verdict.DuplicatedMS != 0 || verdict.GapMS == 0 {
		t.Errorf("%+v", verdict)
	}
	t.Logf("sent %d ms, recorded %d ms, in gaps %d ms, unexplained %d ms, twice %d ms",
		verdict.SentMS, verdict.RecordedMS, verdict.GapMS, verdict.UnexplainedMS, verdict.DuplicatedMS)
	f.recctl("verify", "--deep")
	rejected := f.recorderMetrics()
	for _, reason := range []string{"version", "short", "payload_type", "foreign_ssrc"} {
		if rejected[`tandem_recorder_rejected_datagrams_total{reason="`+reason+`"}`] == 0 {
			t.Errorf("no datagram was counted as %s", reason)
		}
	}
	for _, p := range []*program{f.recorder, f.director} {
		p.stop() // still there, and ends well
	}
}
