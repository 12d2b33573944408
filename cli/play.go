package cli

import (
	"context"
	"io"
	"os/exec"
	"strings"

	"github.com/urfave/cli/v2"

	tandemv1 "tandem/api/tandem/v1"
)

func playCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:      "play",
		Usage:     "hear a call or one leg",
		ArgsUsage: "CALL|LEG",
		Description: `Pipes WAV to the first of aplay, paplay, play (of sox) and ffplay that is installed.
Parts on several recorders are heard as one; exit status 1 when one of them cannot
be reached, and what it alone holds was not to be heard. With --merge, gaps of one
copy (2N) are filled from the other, as recctl export does.`,
		Flags: []cli.Flag{mergeFlag},
		Action: func(c *cli.Context) error {
			given, err := arguments(c, "CALL|LEG")
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return usage("play makes sound, not JSON; recctl export --json says what it wrote")
			}
			s, err := i.site(c)
			if err != nil {
				return err
			}
			player, err := findPlayer(exec.LookPath, "recctl export "+given[0]+" writes a file")
			if err != nil {
				return err
			}
			takes, err := s.takes(c.Context, choice{id: given[0], format: tandemv1.Format_FORMAT_WAV, merge: c.Bool("merge")})
			if err != nil {
				return err
			}
			audio, err := s.open(c.Context, takes[0])
			if err != nil {
				return err
			}
			defer audio.Close()
			i.warn("playing %s (%s) with %s", given[0], length(audio.duration), player[0])
			err = i.pipe(c.Context, player, "recctl export "+given[0]+" writes a file", func(w io.Writer) error {
				_, err := io.Copy(w, audio)
				return err
			})
			i.sayMissing(i.errs, audio)
			if err == nil {
				err = s.partial()
			}
			return err
		},
	}
}

// players read a WAV file from stdin; the first one installed is taken.
var players = [][]string{
	{"aplay", "-q", "-"},
	{"paplay", "/dev/stdin"},
	{"play", "-q", "-t", "wav", "-"},
	{"ffplay", "-loglevel", "error", "-nodisp", "-autoexit", "-"},
}

// findPlayer is the command line of a player; instead says what to do when
// there is none.
func findPlayer(look func(string) (string, error), instead string) ([]string, error) {
	var names []string
	for _, p := range players {
		if _, err := look(p[0]); err == nil {
			return p, nil
		}
		names = append(names, p[0])
	}
	return nil, failed("no player found (%s); install alsa-utils or sox, or: %s", strings.Join(names, ", "), instead)
}

// pipe runs a player and feeds it. A player that the user closes, and an
// interrupt, end it without error; instead says what to do when it fails.
func (i *invocation) pipe(ctx context.Context, player []string, instead string, feed func(io.Writer) error) error {
	cmd := exec.CommandContext(ctx, player[0], player[1:]...)
	cmd.Stderr = i.errs
	in, err := cmd.StdinPipe()
	if err != nil {
		return failed("start %s: %w", player[0], err)
	}
	if err := cmd.Start(); err != nil {
		return failed("start %s: %w", player[0], err)
	}
	w := &pipeWriter{w: in}
	fed := feed(w)
	in.Close()
	ended := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return nil
	case ended != nil:
		return failed("%s failed (%w); %s", player[0], ended, instead)
	case w.broken:
		return nil
	}
	return fed
}

// pipeWriter remembers that its reader has gone.
type pipeWriter struct {
	w      io.Writer
	broken bool
}

func (p *pipeWriter) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	p.broken = p.broken || err != nil
	return n, err
}
