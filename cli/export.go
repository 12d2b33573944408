package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/cli/recording"
)

func exportCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:      "export",
		Usage:     "write the audio of a call or of one leg to a file",
		ArgsUsage: "CALL|LEG|CHANNEL",
		Description: `One file with all legs of the call mixed; with -o DIR (a directory that exists, or
a name that ends in /) a file for each leg. A single leg keeps the bytes that
were on the line; only a mix is converted to linear PCM. A call that still lasts
is exported as far as it has come.

Parts on several recorders are put together here, in memory: 8 kB a second and
channel. When a recorder cannot be reached, what the others hold is written, and
the exit status is 1: what it alone holds is missing.

Two groups of recorders (2N) have a copy each, and the primary one is written, or
the secondary one where there is no other. With --merge each gap of the one is
filled from the other, and what was filled is told: by RTP timestamps where both
copies know the sender (rtp: the very samples), else by what is heard in both
(audio), else by the recorders' clocks (clock). Nothing is changed on a recorder.

With --json an object a line for each file: file, call, leg, start, duration_ms,
codec, sample_rate, size, sha256, channels[], recorders[], gaps[{from,to,cause}];
with --merge also filled_ms, open_ms, filled[{channel,from,to,from_group,recorder,
alignment}], and gaps are what both copies miss.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write `FILE|DIR`, - for stdout (default: a name made of call, agent and time)"},
			&cli.StringFlag{Name: "format", Value: "wav", DefaultText: "as the file is named, else wav", Usage: "`wav|flac`"},
			mergeFlag,
			&cli.StringFlag{Name: "from", Usage: "of a CHANNEL: the audio after `TIME`"},
			&cli.StringFlag{Name: "to", Usage: "of a CHANNEL: the audio before `TIME`"},
		},
		Action: func(c *cli.Context) error {
			given, err := arguments(c, "CALL|LEG|CHANNEL")
			if err != nil {
				return err
			}
			from, to, err := i.interval(c)
			if err != nil {
				return err
			}
			output := c.String("output")
			dir := isDir(output)
			format, err := formatOf(c.String("format"), c.IsSet("format"), output, dir)
			if err != nil {
				return err
			}
			s, err := i.site(c)
			if err != nil {
				return err
			}
			if output == "-" && c.Bool("json") {
				return usage("-o - and --json both want stdout; give -o FILE")
			}
			w := choice{given[0], format, c.Bool("merge"), dir}
			var takes []take
			if from != nil || to != nil {
				takes, err = s.channelTake(c.Context, w, from, to)
			} else {
				takes, err = s.takes(c.Context, w)
			}
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
			return s.partial()
		},
	}
}

var formats = map[string]tandemv1.Format{"wav": tandemv1.Format_FORMAT_WAV, "flac": tandemv1.Format_FORMAT_FLAC}

// formatOf is the format with this name or, when nobody named one, what the
// output's name says: no file is to be called what it is not.
func formatOf(name string, named bool, output string, dir bool) (tandemv1.Format, error) {
	format, ok := formats[name]
	if !ok {
		return 0, usage("--format %q: want wav or flac", name)
	}
	extension := strings.ToLower(strings.TrimPrefix(filepath.Ext(output), "."))
	said, ok := formats[extension]
	switch {
	case !ok || dir || said == format:
		return format, nil
	case named:
		return 0, usage("-o %s is named after %s, and --format says %s: which of the two?", output, extension, name)
	}
	return said, nil
}

func isDir(output string) bool {
	if strings.HasSuffix(output, string(filepath.Separator)) {
		return true
	}
	info, err := os.Stat(output)
	return err == nil && info.IsDir()
}

// choice is what the user wants to hear.
type choice struct {
	id      string // a call's, a leg's or a channel's
	format  tandemv1.Format
	merge   bool // fill one copy from the other
	eachLeg bool // as a file of its own
}

// take is one piece of audio wanted as one file.
type take struct {
	call    string
	leg     string   // the only one in it; empty: the whole call
	legs    []legRow // in it
	sources []source // more than one are mixed
	format  tandemv1.Format
}

// source is what to ask for: a call or a leg, which the first of the peers makes,
// or a channel, which is stitched from what all of them hold.
type source struct {
	peers   []peer
	request *tandemv1.ExportRequest
	twin    *twin // not nil: the request is filled from there
}

// takes is what to ask of whom for a call or a leg.
func (s *site) takes(ctx context.Context, w choice) ([]take, error) {
	rows, leg, err := s.find(ctx, w.id)
	if err != nil {
		return nil, err
	}
	pairs := pairCopies(rows)
	plan := func() []take { return planMerged(leg, pairs, s.reached(), w) }
	if !w.merge {
		rows = oneCopy(pairs)
		if err := s.addHolders(ctx, rows); err != nil {
			return nil, err
		}
		plan = func() []take { return planTakes(leg, rows, s.reached(), w) }
	}
	if takes := plan(); len(takes) > 0 {
		return takes, nil
	}
	if _, ok := twinOf(w.id); ok {
		return nil, failed("no call or leg %q with audio; of a channel recctl export wants --from and --to", w.id)
	}
	return nil, failed("no call or leg %q with audio; recctl calls lists those there are", w.id)
}

// find is the call with this id or, when there is none, the leg, and what the
// other group has of it under whatever id.
func (s *site) find(ctx context.Context, id string) (rows []legRow, leg string, err error) {
	if rows, err = s.call(ctx, id); err != nil || len(rows) > 0 {
		return rows, "", err
	}
	for _, p := range s.reached() {
		a, err := s.openAt(ctx, p, &tandemv1.ExportRequest{Leg: id})
		if err != nil {
			continue // it has no such leg, or nothing of it
		}
		a.Close()
		if of := s.callOf(ctx, p, id, a.start); of != "" {
			rows, err = s.call(ctx, of)
			return withTwins(rows, id), id, err
		}
	}
	return nil, "", nil
}

// callOf looks up a leg's call by when its audio began: there is no other way
// from a leg's id to its call.
func (s *site) callOf(ctx context.Context, p peer, leg string, start time.Time) string {
	question := &tandemv1.SearchCallsRequest{From: timestamppb.New(start), To: timestamppb.New(start.Add(time.Second)), Limit: 10_000}
	a := ask(ctx, s, []peer{p}, func(ctx context.Context, p peer) (*connect.Response[tandemv1.SearchCallsResponse], error) {
		return s.media(p).SearchCalls(ctx, connect.NewRequest(question))
	})[0]
	if a.err != nil {
		return ""
	}
	for _, r := range a.value.Msg.Legs {
		if r.GetLeg().GetId() == leg {
			return r.GetCall().GetId()
		}
	}
	return ""
}

// addHolders adds to legs the recorders that hold media of them and know
// nothing of the leg: one may be killed before it is told.
func (s *site) addHolders(ctx context.Context, rows []legRow) error {
	peers := s.reached()
	if len(peers) < 2 {
		return nil
	}
	for n := range rows {
		channel := rows[n].channel()
		if channel == "" {
			continue
		}
		answers, err := heard(s, "recorder", ask(ctx, s, peers, func(ctx context.Context, p peer) ([]*tandemv1.Segment, error) {
			return recording.Segments(ctx, s.recorder(p), channel, rows[n].interval())
		}))
		if err != nil {
			return err
		}
		for _, a := range answers {
			if len(a.value) > 0 && !slices.Contains(rows[n].recorders, a.peer.name) {
				rows[n].recorders = append(rows[n].recorders, a.peer.name)
			}
		}
	}
	return nil
}

func (s *site) recorder(p peer) recording.Recorder {
	return recording.Recorder{Name: p.name, Media: s.media(p)}
}

// planTakes makes one file of the legs or, of each leg, one. What a single
// recorder holds it mixes itself; else each channel is fetched from all.
func planTakes(leg string, rows []legRow, peers []peer, w choice) []take {
	if w.eachLeg {
		w.eachLeg = false
		var each []take
		for _, r := range rows {
			each = append(each, planTakes(r.leg.Id, []legRow{r}, peers, w)...)
		}
		return each
	}
	if len(rows) == 0 {
		return nil
	}
	t := take{call: rows[0].call.Id, leg: leg, legs: rows, format: w.format}
	holders := map[string]bool{}
	for _, r := range rows {
		for _, name := range r.recorders {
			holders[name] = true
		}
	}
	switch {
	case len(holders) > 1:
		t.sources = channelSources(rows, peers)
	case leg != "":
		t.sources = []source{{peers: peersNamed(peers, rows[0].recorders), request: &tandemv1.ExportRequest{Leg: leg, Format: w.format}}}
	default:
		t.sources = []source{{peers: peersNamed(peers, rows[0].recorders), request: &tandemv1.ExportRequest{Call: t.call, Format: w.format}}}
	}
	if len(t.sources) == 0 {
		return nil
	}
	return []take{t}
}

// channelSources are the channels of legs, each for as long as a leg was on it:
// legs that share a channel are heard once.
func channelSources(rows []legRow, peers []peer) []source {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b legRow) int { return a.start().Compare(b.start()) })
	var sources []source
	last := map[string]*tandemv1.ExportRequest{}
	for _, r := range rows {
		channel := r.channel()
		if channel == "" {
			continue
		}
		if q := last[channel]; q != nil && (q.To == nil || !r.start().After(at(q.To))) {
			if r.leg.End == nil || q.To != nil && at(r.leg.End).After(at(q.To)) {
				q.To = r.leg.End
			}
			continue
		}
		last[channel] = &tandemv1.ExportRequest{Channel: channel, From: r.leg.Start, To: r.leg.End}
		sources = append(sources, source{peers: peers, request: last[channel]})
	}
	return sources
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
	*mergedJSON
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
		i.sayMissing(i.errs, audio)
		return nil
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
		return i.json(written{file, t.call, t.leg, stamp(audio.start), audio.duration.Milliseconds(), audio.codec, audio.rate, n, sum, list(audio.channels), list(audio.recorders), gapsJSON(audio.gaps), audio.merged.json()})
	}
	fmt.Fprintf(i.out, "%s  %s from %s, %s\n", clean(file), length(audio.duration), i.clock(audio.start), size(uint64(n)))
	i.sayMissing(i.out, audio)
	return nil
}

// sayMissing tells what the audio lacks, and before that what it would lack
// without the other copy.
func (i *invocation) sayMissing(w io.Writer, a *audio) {
	if a.merged != nil {
		i.sayFilled(w, a.merged)
	}
	for _, g := range a.gaps {
		fmt.Fprintf(w, "  missing %s from %s to %s: %s\n", length(g.length()), i.instant(g.from), i.instant(g.to), clean(strings.TrimSpace(g.cause+" "+g.between())))
	}
}

// writeFile puts all of r into the file, which appears only when it is whole.
func writeFile(file string, r io.Reader, also io.Writer) (sum string, n int64, err error) {
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return "", 0, failed("write %s: %s: %w", file, filepath.Dir(file), cause(err))
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
		return "", 0, &exitError{max(statusOf(err), ExitFailed), fmt.Errorf("write %s: %w", file, cause(err))}
	}
	return hex.EncodeToString(hash.Sum(nil)), n, nil
}

// cause is what went wrong with a file, without the name that it had meanwhile.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// fileName is made of call, agent and time, of letters any file system takes.
func fileName(t take, start time.Time) string {
	var parts []string
	switch {
	case t.leg != "":
		leg := t.legs[0].leg
		parts = []string{t.call, leg.Id, t.legs[0].agent(), leg.Device, leg.Source}
		if strings.HasPrefix(leg.Id, t.call) { // as is usual; saying it twice helps nobody
			parts = parts[1:]
		}
	case len(t.legs) > 0:
		parts = []string{t.call, t.legs[0].agent()}
	default:
		parts = []string{t.sources[0].request.Channel}
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
	gaps      []gap
	merged    *merged // nil: only one copy was wanted
	sha256    string
}

// Close ends the stream, read to its end or not.
func (a *audio) Close() { a.close() }

// open starts a take. Its caller closes the audio.
func (s *site) open(ctx context.Context, t take) (*audio, error) {
	if len(t.sources) == 1 && t.sources[0].request.Channel == "" {
		return s.openSource(ctx, t.sources[0])
	}
	return s.gather(ctx, t)
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
	return nil, noAudio(src.request.Call + src.request.Leg)
}

func noAudio(id string) error {
	return failed("nothing of %q was recorded; recctl show says which recorder had it", id)
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
			r.audio.gaps, r.audio.sha256, r.ended = gapsOf(part.Trailer.Gaps, r.peer.name), part.Trailer.Sha256, true
		}
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
