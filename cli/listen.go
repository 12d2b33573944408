package cli

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/call"
	"tandem/internal/media"
)

func listenCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:      "listen",
		Usage:     "hear a channel, or a turret's handset, as it is being recorded",
		ArgsUsage: "CHANNEL|TURRET",
		Description: `Plays until interrupted, or writes a WAV file with -o. What was lost on the way is
silence. A channel that moves to another recorder is followed there.`,
		Flags: []cli.Flag{&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write `FILE` instead of playing, - for stdout"}},
		Action: func(c *cli.Context) error {
			given, err := arguments(c, "CHANNEL|TURRET")
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return usage("listen makes sound, not JSON; recctl channels --json lists what can be heard")
			}
			s, err := i.site(c)
			if err != nil {
				return err
			}
			output := c.String("output")
			instead := "recctl listen " + given[0] + " -o FILE writes a file"
			var player []string
			if output == "" {
				if player, err = findPlayer(exec.LookPath, instead); err != nil {
					return err
				}
			}
			held, err := s.heldChannels(c.Context)
			if err != nil {
				return err
			}
			line, err := chooseChannel(given[0], held)
			if err != nil {
				return err
			}
			i.warn("listening to %s (%s of %s) at recorder %s; Ctrl-C ends", line.Channel.GetId(), strings.Join(line.Channel.GetSources(), " "), line.Channel.GetSession().GetDevice(), line.peer)
			if player != nil {
				return i.pipe(c.Context, player, instead, func(w io.Writer) error { return s.listen(c.Context, line, w) })
			}
			return i.listenTo(c.Context, s, line, output)
		},
	}
}

// tapped is a channel and the recorder that holds it.
type tapped struct {
	peer peer
	*tandemv1.HeldChannel
}

// latest is when the recorder last showed that it has the channel: one that
// moves is on two recorders for a moment.
func (t tapped) latest() time.Time {
	if t.LastPacket == nil {
		return at(t.Opened)
	}
	return at(t.LastPacket)
}

// chooseChannel finds a channel by its id or, by the name of a turret or its
// user, the dearest one there: the handset.
func chooseChannel(name string, held []answer[*tandemv1.ListChannelsResponse]) (tapped, error) {
	var all []tapped
	for _, a := range held {
		for _, h := range a.value.GetChannels() {
			session := h.Channel.GetSession()
			if h.Channel.GetId() == name || session.GetDevice() == name || session.GetUser() == name {
				all = append(all, tapped{a.peer, h})
			}
		}
	}
	if len(all) == 0 {
		return tapped{}, failed("no channel or turret %q is being recorded; recctl channels lists those that are", name)
	}
	return slices.MinFunc(all, func(a, b tapped) int {
		if c := call.Rank(a.Channel.Sources) - call.Rank(b.Channel.Sources); c != 0 {
			return c
		}
		if c := natural(a.Channel.Id, b.Channel.Id); c != 0 {
			return c
		}
		return b.latest().Compare(a.latest())
	}), nil
}

// listenTo writes a WAV file, or to stdout, until interrupted. A file gets its
// true length in the end.
func (i *invocation) listenTo(ctx context.Context, s *site, line tapped, output string) error {
	if output == "-" {
		return s.listen(ctx, line, i.out)
	}
	file, err := os.Create(output)
	if err != nil {
		return failed("write %s: %w", output, err)
	}
	defer file.Close()
	if err := s.listen(ctx, line, file); err != nil {
		return err
	}
	end, err := file.Seek(0, io.SeekEnd)
	if err == nil && end >= media.WAVHeaderSize {
		header := media.WAVHeader(liveFormat, (end-media.WAVHeaderSize)/2)
		_, err = file.WriteAt(header[:], 0)
	}
	if err == nil {
		err = file.Close()
	}
	if err != nil {
		return failed("write %s: %w", output, err)
	}
	fmt.Fprintf(i.errs, "%s  %s\n", output, size(uint64(end)))
	return nil
}

var liveFormat = media.WAVFormat{SampleRate: 8000}

// endless is a length that players take for "until the stream ends".
const endless = 1 << 40

// maxSilence bounds what a hole is filled with: after a longer one the
// listener is better served by what is said now.
const maxSilence = 50 // packets

// patience is how long a listener waits for a channel that is nowhere to be
// heard: the time in which it moves off a recorder that was lost, and some.
const patience = 5 * time.Second

// listen writes a channel's audio as a WAV stream of linear PCM until the
// channel closes or ctx ends, which is no error. It follows the channel to
// other recorders.
func (s *site) listen(ctx context.Context, line tapped, w io.Writer) error {
	header := media.WAVHeader(liveFormat, endless)
	if _, err := w.Write(header[:]); err != nil {
		return failed("write audio: %w", err)
	}
	heard := time.Now()
	for {
		some, err := s.listenAt(ctx, line, w)
		if some {
			heard = time.Now()
		}
		if ctx.Err() != nil {
			return nil
		}
		next, ok := s.follow(ctx, line, err, heard.Add(patience))
		if !ok {
			return err
		}
		if next.peer != line.peer {
			s.warn("%s is at recorder %s now", next.Channel.GetId(), next.peer)
		}
		line = next
	}
}

// listenAt writes what comes of a channel at one recorder until that ends, and
// tells whether there was any.
func (s *site) listenAt(ctx context.Context, line tapped, w io.Writer) (some bool, err error) {
	stream, err := s.media(line.peer).Listen(ctx, connect.NewRequest(&tandemv1.ListenRequest{Channel: line.Channel.GetId()}))
	if err != nil {
		return false, exit(exitStatus(err), "listen at recorder %s: %s", line.peer, plain(err))
	}
	defer stream.Close()
	for ; stream.Receive(); some = true {
		m := stream.Msg()
		codec, err := media.ParseCodec(codecName(m.Codec))
		if err != nil || codec == media.G722 {
			return some, failed("channel %s sends %s, which cannot be heard here; recctl export does", line.Channel.GetId(), orDash(codecName(m.Codec)))
		}
		const packet = 160 // samples of 20 ms
		pcm := make([]byte, 2*packet*min(m.Lost, maxSilence), 2*packet*maxSilence+2*len(m.Payload))
		for _, b := range m.Payload {
			pcm = binary.LittleEndian.AppendUint16(pcm, uint16(codec.ToLinear(b)))
		}
		if _, err := w.Write(pcm); err != nil {
			return some, failed("write audio: %w", err)
		}
	}
	err = stream.Err()
	switch {
	case err == nil:
		return some, nil
	case !connect.IsWireError(err): // not the recorder's words: the connection broke
		return some, exit(ExitUnreached, "recorder %s is gone: %s", line.peer, plain(err))
	}
	return some, exit(exitStatus(err), "recorder %s ended the stream: %s", line.peer, plain(err))
}

// follow finds who holds a channel after a recorder ended its stream: without
// error it closed the channel, and who holds it too has it now. A recorder that
// cannot be reached is waited for, itself or its successor, until patience ends.
func (s *site) follow(ctx context.Context, line tapped, ended error, until time.Time) (tapped, bool) {
	if ended != nil && statusOf(ended) != ExitUnreached {
		return tapped{}, false
	}
	every := time.NewTicker(glance)
	defer every.Stop()
	for {
		if ended != nil {
			select {
			case <-every.C:
			case <-ctx.Done():
				return tapped{}, false
			}
		}
		next, err := chooseChannel(line.Channel.GetId(), s.holders(ctx))
		switch {
		case ended == nil:
			return next, err == nil && next.peer != line.peer
		case !time.Now().Before(until):
			return tapped{}, false
		case err == nil:
			return next, true
		}
	}
}

// holders asks the recorders what they hold; who does not answer is left out
// without a word.
func (s *site) holders(ctx context.Context) []answer[*tandemv1.ListChannelsResponse] {
	return ask(ctx, s, s.found, func(ctx context.Context, p peer) (*tandemv1.ListChannelsResponse, error) {
		r, err := s.media(p).ListChannels(ctx, connect.NewRequest(&tandemv1.ListChannelsRequest{}))
		if err != nil {
			return nil, err
		}
		return r.Msg, nil
	})
}
