package stories

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/rpc"
)

// program is one daemon of a story. It dies with the test.
type program struct {
	t      testing.TB
	path   string
	config string
	log    string
	cmd    *exec.Cmd
}

// configure writes the program's file and returns it, not started.
func configure(t testing.TB, dir, name, text string) *program {
	t.Helper()
	p := &program{t: t, path: filepath.Join(programs(t), "tandem-"+name), config: filepath.Join(dir, name+".toml"), log: filepath.Join(dir, name+".log")}
	if err := os.WriteFile(p.config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			text, _ := os.ReadFile(p.log)
			for line := range bytes.Lines(text) {
				if bytes.Contains(line, []byte("level=ERROR")) || bytes.Contains(line, []byte("level=WARN")) {
					t.Logf("%s: %s", filepath.Base(p.log), line)
				}
			}
			t.Logf("%s ends:\n%s", p.log, text[max(0, len(text)-4000):])
		}
	})
	return p
}

func (p *program) start() {
	p.t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(p.path, "--config", p.config)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
}

// kill is SIGKILL, and waits until the process is gone.
func (p *program) kill() {
	if p.cmd != nil {
		p.cmd.Process.Kill()
		p.cmd.Wait()
		p.cmd = nil
	}
}

// stop is SIGTERM; the program must end well.
func (p *program) stop() {
	p.t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("%s: %v", p.path, err)
	}
	p.cmd = nil
}

// resident is the process's memory in bytes.
func (p *program) resident() int64 {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	var total, resident int64
	if err == nil {
		_, err = fmt.Fscan(bytes.NewReader(text), &total, &resident)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return resident * int64(os.Getpagesize())
}

func address(t testing.TB) string {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// eventually polls until done, or fails the test.
func eventually(t testing.TB, patience time.Duration, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%v passed without: %s", patience, what)
		}
	}
}

// desk is a recorder as its director sees it.
type desk struct {
	t     testing.TB
	api   tandemv1connect.RecorderServiceClient
	media tandemv1connect.MediaServiceClient
	order *tandemv1.Order
}

func newDesk(t testing.TB, address string) *desk {
	client := rpc.NewClient()
	return &desk{t, tandemv1connect.NewRecorderServiceClient(client, "http://"+address), tandemv1connect.NewMediaServiceClient(client, "http://"+address),
		&tandemv1.Order{Epoch: 2, Director: "story", Group: "primary"}}
}

func (d *desk) answers() bool {
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Second)
	defer cancel()
	_, err := d.api.Inventory(ctx, connect.NewRequest(&tandemv1.InventoryRequest{}))
	return err == nil
}

// open opens PCMU channels and returns where their RTP goes.
func (d *desk) open(ids ...string) []*net.UDPAddr {
	d.t.Helper()
	open := &tandemv1.OpenChannelsRequest{Order: d.order}
	settle := &tandemv1.UpdateChannelsRequest{Order: d.order}
	for _, id := range ids {
		open.Channels = append(open.Channels, &tandemv1.OpenChannel{Channel: &tandemv1.Channel{Id: id, Copy: "A"}})
		settle.Channels = append(settle.Channels, &tandemv1.ChannelUpdate{Channel: id, Codec: tandemv1.Codec_CODEC_PCMU, RtcpMux: true})
	}
	opened, err := d.api.OpenChannels(d.t.Context(), connect.NewRequest(open))
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := d.api.UpdateChannels(d.t.Context(), connect.NewRequest(settle)); err != nil {
		d.t.Fatal(err)
	}
	var to []*net.UDPAddr
	for _, c := range opened.Msg.Channels {
		if c.Refused != "" {
			d.t.Fatalf("%s refused: %s", c.Channel, c.Refused)
		}
		to = append(to, &net.UDPAddr{IP: net.ParseIP(c.Endpoint.Host), Port: int(c.Endpoint.RtpPort)})
	}
	return to
}

func (d *desk) close(ids ...string) {
	d.t.Helper()
	r := &tandemv1.CloseChannelsRequest{Order: d.order}
	for _, id := range ids {
		r.Channels = append(r.Channels, &tandemv1.CloseChannel{Channel: id, Cause: "logged_off"})
	}
	if _, err := d.api.CloseChannels(d.t.Context(), connect.NewRequest(r)); err != nil {
		d.t.Fatal(err)
	}
}

// segments are all media files the recorder knows.
func (d *desk) segments() []*tandemv1.Segment {
	stream, err := d.media.ListSegments(d.t.Context(), connect.NewRequest(&tandemv1.ListSegmentsRequest{}))
	if err != nil {
		d.t.Fatal(err)
	}
	defer stream.Close()
	var all []*tandemv1.Segment
	for stream.Receive() {
		all = append(all, stream.Msg().Segment)
	}
	if err := stream.Err(); err != nil {
		d.t.Fatal(err)
	}
	return all
}

// refused is why the recorder does not open the channel; empty when it does.
func (d *desk) refused(id string) string {
	d.t.Helper()
	r, err := d.api.OpenChannels(d.t.Context(), connect.NewRequest(&tandemv1.OpenChannelsRequest{
		Order: d.order, Channels: []*tandemv1.OpenChannel{{Channel: &tandemv1.Channel{Id: id, Copy: "A"}}},
	}))
	if err != nil {
		d.t.Fatal(err)
	}
	return r.Msg.Channels[0].Refused
}

// ready is what the recorder reports of itself.
func (d *desk) ready() (bool, string) {
	d.t.Helper()
	ctx, cancel := context.WithCancel(d.t.Context())
	defer cancel()
	stream, err := d.api.Watch(ctx, connect.NewRequest(&tandemv1.WatchRequest{Director: "story", Group: "primary"}))
	if err != nil {
		d.t.Fatal(err)
	}
	if !stream.Receive() {
		d.t.Fatal(stream.Err())
	}
	load := stream.Msg().Load
	return load.GetReady(), load.GetReason()
}

// packets is how many are in the journal, of all channels.
func (d *desk) packets() (n uint64) {
	d.t.Helper()
	r, err := d.media.ListChannels(d.t.Context(), connect.NewRequest(&tandemv1.ListChannelsRequest{}))
	if err != nil {
		d.t.Fatal(err)
	}
	for _, c := range r.Msg.Channels {
		n += c.Packets
	}
	return n
}
