package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "tandem/api/tandem/v1"
)

func exportCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:      "export",
		Usage:     "write the audio of a call or of one leg to a file",
		ArgsUsage: "CALL|LEG",
		Description: `One file with all legs of the call mixed; with -o DIR (a directory that exists, or
a name that ends in /) a file for each leg. A single leg keeps the bytes that
were on the line; only a mix is converted to linear PCM. A call that still lasts
is exported as far as it has come.

With --json an object a line for each file: file, call, leg, start, duration_ms,
codec, sample_rate, size, sha256, channels[], recorders[], gaps[{from,to,cause}].`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write `FILE|DIR`, - for stdout (default: a name made of call, agent and time)"},
			&cli.StringFlag{Name: "format", Value: "wav", Usage: "`wav|flac`"},
		},
		Action: func(c *cli.Context) error {
			given, err := arguments(c, "CALL|LEG")
			if err != nil {
				return err
			}
			format, err := formatNamed(c.String("format"))
			if err != nil {
				return err
			}
			s, err := i.site(c)
			if err != nil {
				return err
			}
			output := c.String("output")
			if output == "-" && c.Bool("json") {
				return usage("-o - and --json both want stdout; give -o FILE")
			}
			dir := isDir(output)
			takes, err := s.takes(c.Context, given[0], format, dir)
			if err != nil {
				return err
			}
			if dir {
				if err := os.MkdirAll(output, 0o777); err != nil {
					return failed("make directory: %w", err)
				}
			}
			for _, t := range takes {
				if err := i.export(c.Context, s, t, output, dir, c.Bool("json")); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func formatNamed(name string) (tandemv1.Format, error) {
	switch name {
	case "wav":
		return tandemv1.Format_FORMAT_WAV, nil
	case "flac":
		return tandemv1.Format_FORMAT_FLAC, nil
	}
	return 0, usage("--format %q: want wav or flac", name)
}

func isDir(output string) bool {
	if strings.HasSuffix(output, string(filepath.Separator)) {
		return true
	}
	info, err := os.Stat(output)
	return err == nil && info.IsDir()
}

// take is one piece of audio wanted as one file.
type take struct {
	call    string
	legs    []legRow // of the call that are in it; none when only the leg's id is known
	sources []source // more than one are mixed
	format  tandemv1.Format
}

// source is a request that any of the peers may fulfil, the best first.
type source struct {
	peers   []peer
	request *tandemv1.ExportRequest
}

// takes is what to ask of whom for the call or leg with this id. A call whose
// legs one recorder holds is mixed there; legs on several are mixed here.
func (s *site) takes(ctx context.Context, id string, format tandemv1.Format, eachLeg bool) ([]take, error) {
	rows, err := s.call(ctx, id)
	if err != nil {
		return nil, err
	}
	peers, err := s.findRecorders(ctx)
	if err != nil {
		return nil, err
	}
	rows, _, _ = selectCopies(rows, "fill")
	return planTakes(id, rows, peers, format, eachLeg), nil
}

func planTakes(id string, rows []legRow, peers []peer, format tandemv1.Format, eachLeg bool) []take {
	if len(rows) == 0 { // not a call: a leg, if anything
		return []take{{sources: []source{{peers, &tandemv1.ExportRequest{Leg: id, Format: format}}}, format: format}}
	}
	holders := map[string]bool{}
	var sources []source
	var each []take
	for _, r := range rows {
		for _, name := range r.recorders {
			holders[name] = true
		}
		src := source{peersNamed(peers, r.recorders), &tandemv1.ExportRequest{Leg: r.leg.Id, Format: format}}
		sources = append(sources, src)
		each = append(each, take{call: id, legs: []legRow{r}, sources: []source{src}, format: format})
	}
	switch {
	case eachLeg:
		return each
	case len(holders) == 1:
		sources = []source{{peersNamed(peers, rows[0].recorders), &tandemv1.ExportRequest{Call: id, Format: format}}}
	}
	return []take{{call: id, legs: rows, sources: sources, format: format}}
}

// peersNamed are the peers with these names, or all of them when a name is
// not known here: then the recorders themselves say who has it.
func peersNamed(peers []peer, names []string) []peer {
	var named []peer
	for _, n := range names {
		for _, p := range peers {
			if p.name == n {
				named = append(named, p)
			}
		}
	}
	if len(named) == 0 {
		return peers
	}
	return named
}

// written is what an export made.
type written struct {
	File       string    `json:"file"`
	Call       string    `json:"call"`
	Leg        string    `json:"leg"`
	Start      stamp     `json:"start"`
	DurationMs int64     `json:"duration_ms"`
	Codec      string    `json:"codec"` // empty: linear PCM
	SampleRate uint32    `json:"sample_rate"`
	Size       int64     `json:"size"`
	SHA256     string    `json:"sha256"`
	Channels   []string  `json:"channels"`
	Recorders  []string  `json:"recorders"`
	Gaps       []gapJSON `json:"gaps"`
}

// export writes one take and says what it wrote and what is missing in it.
func (i *invocation) export(ctx context.Context, s *site, t take, output string, dir, asJSON bool) error {
	audio, err := s.open(ctx, t)
	if err != nil {
		return err
	}
	defer audio.Close()
	bar := i.bar(audio.size)
	defer bar.clear()
	if output == "-" {
		_, err := io.Copy(io.MultiWriter(i.out, bar), audio)
		if err != nil {
			return err
		}
		bar.clear()
		i.sayGaps(i.errs, audio.gaps)
		return nil
	}
	if len(t.legs) == 0 {
		t.legs = s.legAt(ctx, t.sources[0], audio.start)
	}
	if len(t.legs) > 0 {
		t.call = t.legs[0].call.Id
	}
	file := output
	if file == "" || dir {
		file = filepath.Join(output, fileName(t, audio.start.In(i.zone)))
	}
	sum, n, err := writeFile(file, audio, bar)
	if err != nil {
		return err
	}
	bar.clear()
	if audio.sha256 != "" && audio.sha256 != sum {
		os.Remove(file)
		return failed("%s arrived damaged (sha256 %s, the recorder sent %s); try again", file, sum, audio.sha256)
	}
	if asJSON {
		leg := ""
		if len(t.sources) == 1 {
			leg = t.sources[0].request.Leg
		}
		return i.json(written{file, t.call, leg, stamp(audio.start), audio.duration.Milliseconds(), audio.codec, audio.rate, n, sum, list(audio.channels), list(audio.recorders), gapsJSON(audio.gaps)})
	}
	fmt.Fprintf(i.out, "%s  %s from %s, %s\n", clean(file), length(audio.duration), i.clock(audio.start), size(uint64(n)))
	i.sayGaps(i.out, audio.gaps)
	return nil
}

func (i *invocation) sayGaps(w io.Writer, gaps []*tandemv1.Gap) {
	for _, g := range gaps {
		fmt.Fprintf(w, "  missing %s from %s to %s: %s\n", length(gapLength(g)), i.instant(g.From), i.instant(g.To), clean(g.Cause))
	}
}

// legAt looks up the leg that a source exports, by when its audio began: there
// is no other way from a leg's id to its call. It only gives the file a better
// name, so no answer is no error.
func (s *site) legAt(ctx context.Context, src source, start time.Time) []legRow {
	question := &tandemv1.SearchCallsRequest{From: timestamppb.New(start), To: timestamppb.New(start.Add(time.Second)), Limit: 10_000}
	for _, a := range ask(ctx, s, src.peers, func(ctx context.Context, p peer) (*tandemv1.SearchCallsResponse, error) {
		r, err := s.media(p).SearchCalls(ctx, connect.NewRequest(question))
		if err != nil {
			return nil, err
		}
		return r.Msg, nil
	}) {
		for _, r := range a.value.GetLegs() {
			if r.GetLeg().GetId() == src.request.Leg {
				return mergeLegs([]*tandemv1.LegDetail{{Record: r}})
			}
		}
	}
	return nil
}

// writeFile puts all of r into the file, which appears only when it is whole.
func writeFile(file string, r io.Reader, also io.Writer) (sum string, n int64, err error) {
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return "", 0, failed("write %s: %w", file, err)
	}
	defer os.Remove(tmp.Name())
	hash := sha256.New()
	n, err = io.Copy(io.MultiWriter(tmp, hash, also), r)
	if err == nil {
		err = tmp.Chmod(0o644)
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		return "", 0, &exitError{max(statusOf(err), ExitFailed), fmt.Errorf("write %s: %w", file, err)}
	}
	return hex.EncodeToString(hash.Sum(nil)), n, nil
}

// fileName is made of call, agent and time, of letters any file system takes.
func fileName(t take, start time.Time) string {
	var parts []string
	switch {
	case len(t.legs) == 0:
		parts = []string{t.sources[0].request.Leg}
	case len(t.sources) == 1 && t.sources[0].request.Leg != "":
		leg := t.legs[0].leg
		parts = []string{t.call, leg.Id, t.legs[0].agent(), leg.Device, leg.Source}
		if strings.HasPrefix(leg.Id, t.call) { // as is usual; saying it twice helps nobody
			parts = parts[1:]
		}
	default:
		parts = []string{t.call, t.legs[0].agent()}
	}
	parts = append(parts, start.Format("20060102-150405"))
	safe := func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '_'
	}
	extension := ".wav"
	if t.format == tandemv1.Format_FORMAT_FLAC {
		extension = ".flac"
	}
	return strings.TrimLeft(strings.Map(safe, strings.Join(parts, "_")), ".-") + extension
}

// audio is a file on its way from a recorder. What is missing and the hash are
// known once it has been read to its end.
type audio struct {
	io.Reader
	close     func()
	start     time.Time
	duration  time.Duration
	size      int64 // 0: not known
	codec     string
	rate      uint32
	channels  []string
	recorders []string
	gaps      []*tandemv1.Gap
	sha256    string
}

// Close ends the stream, read to its end or not.
func (a *audio) Close() { a.close() }

// open starts a take. Its caller closes the audio.
func (s *site) open(ctx context.Context, t take) (*audio, error) {
	if len(t.sources) == 1 {
		return s.openSource(ctx, t.sources[0])
	}
	if t.format == tandemv1.Format_FORMAT_FLAC {
		return nil, failed("the legs of %s are on several recorders, and only WAV can be mixed here; --format wav, or -o DIR/ for a file a leg", t.call)
	}
	return s.mix(ctx, t)
}

// openSource asks one peer after another until one has what is wanted.
func (s *site) openSource(ctx context.Context, src source) (*audio, error) {
	var errs []answer[struct{}]
	for _, p := range src.peers {
		a, err := s.openAt(ctx, p, src.request)
		if err == nil {
			return a, nil
		}
		errs = append(errs, answer[struct{}]{peer: p, err: err})
	}
	for _, e := range errs {
		if connect.CodeOf(e.err) != connect.CodeNotFound {
			return nil, nobody("recorder", errs)
		}
	}
	return nil, failed("no call or leg %q with audio; recctl calls lists those there are", src.request.Call+src.request.Leg)
}

func (s *site) openAt(ctx context.Context, p peer, request *tandemv1.ExportRequest) (*audio, error) {
	ctx, cancel := context.WithCancel(ctx)
	late := time.AfterFunc(s.timeout, cancel)
	stream, err := s.media(p).Export(ctx, connect.NewRequest(request))
	if err == nil && !stream.Receive() {
		err = errors.Join(stream.Err(), stream.Close())
		if err == nil {
			err = connect.NewError(connect.CodeDataLoss, errors.New("export ended before it began"))
		}
	}
	if !late.Stop() && err != nil {
		err = connect.NewError(connect.CodeDeadlineExceeded, err)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	header := stream.Msg().GetHeader()
	if header == nil {
		cancel()
		return nil, connect.NewError(connect.CodeDataLoss, errors.New("export began without a header"))
	}
	a := &audio{
		start: at(header.Start), duration: time.Duration(header.DurationMs) * time.Millisecond, size: int64(header.Size),
		codec: codecName(header.Codec), rate: header.SampleRate, channels: header.Channels, recorders: []string{p.name},
	}
	a.Reader = &exportReader{stream: stream, audio: a, peer: p}
	a.close = func() { cancel(); stream.Close() }
	return a, nil
}

// exportReader is the bytes of an export; it ends in io.EOF only after the
// trailer, so that a stream cut short is never taken for a whole file.
type exportReader struct {
	stream *connect.ServerStreamForClient[tandemv1.ExportResponse]
	audio  *audio
	peer   peer
	rest   []byte
	ended  bool
}

func (r *exportReader) Read(b []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.ended {
			return 0, io.EOF
		}
		if !r.stream.Receive() {
			err := r.stream.Err()
			if err == nil {
				err = io.ErrUnexpectedEOF
			}
			return 0, exit(exitStatus(err), "recorder %s ended the export early (%s); try again", r.peer, plain(err))
		}
		switch part := r.stream.Msg().Part.(type) {
		case *tandemv1.ExportResponse_Data:
			r.rest = part.Data
		case *tandemv1.ExportResponse_Trailer:
			r.audio.gaps, r.audio.sha256, r.ended = part.Trailer.Gaps, part.Trailer.Sha256, true
		}
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
