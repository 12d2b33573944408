package cli

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	tandemv1 "tandem/api/tandem/v1"
)

func verifyCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:  "verify",
		Usage: "check every media file: there, whole, every hole explained",
		Description: `With --json an object a line for each finding: recorder, segment, channel, file,
what (missing_file, size, hash, length, unexplained, unreadable), text; and in the
end one summary for each recorder: recorder, segments, bytes, recorded_ms, gap_ms,
findings. Exit status 5 when something was found.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "only what was recorded after `TIME`"},
			&cli.StringFlag{Name: "to", Usage: "only what was recorded before `TIME`"},
			&cli.BoolFlag{DisableDefaultText: true, Name: "deep", Usage: "read every file and compare its hash"},
		},
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			from, to, err := i.interval(c)
			if err != nil {
				return err
			}
			s, err := i.site(c)
			if err != nil {
				return err
			}
			return i.verify(c.Context, s, &tandemv1.VerifyRequest{From: from, To: to, Deep: c.Bool("deep")}, c.Bool("json"))
		},
	}
}

// checked is what verifying one recorder brought.
type checked struct {
	findings []*tandemv1.Finding
	summary  *tandemv1.VerifySummary
}

// verify checks all recorders at once. A recorder that could not be checked to
// the end is no pass, even when nothing was found.
func (i *invocation) verify(ctx context.Context, s *site, request *tandemv1.VerifyRequest, asJSON bool) error {
	peers, err := s.findRecorders(ctx)
	if err != nil {
		return err
	}
	answers := i.verifyAll(ctx, s, peers, request)
	good, err := heard(s, "recorder", answers)
	if err != nil {
		return err
	}
	found, err := i.sayVerified(good, asJSON)
	switch {
	case err != nil:
		return err
	case found:
		return errFound
	case len(good) < len(answers):
		return failed("%d of %d recorders could not be checked", len(answers)-len(good), len(answers))
	}
	return nil
}

func (i *invocation) verifyAll(ctx context.Context, s *site, peers []peer, request *tandemv1.VerifyRequest) []answer[checked] {
	bar := i.bar(0)
	defer bar.clear()
	progress := make([]*tandemv1.VerifyProgress, len(peers))
	answers := make([]answer[checked], len(peers))
	var wg sync.WaitGroup
	var mu sync.Mutex // progress, bar
	for n, p := range peers {
		wg.Go(func() {
			value, err := s.verifyOne(ctx, p, request, func(now *tandemv1.VerifyProgress) {
				mu.Lock()
				defer mu.Unlock()
				progress[n] = now
				var done, total int64
				for _, p := range progress {
					done, total = done+int64(p.GetDone()), total+int64(p.GetTotal())
				}
				bar.set(done, total)
			})
			answers[n] = answer[checked]{p, value, err}
		})
	}
	wg.Wait()
	return answers
}

func (s *site) verifyOne(ctx context.Context, p peer, request *tandemv1.VerifyRequest, progress func(*tandemv1.VerifyProgress)) (checked, error) {
	var c checked
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.media(p).Verify(ctx, connect.NewRequest(request))
	if err != nil {
		return c, err
	}
	defer stream.Close()
	for stream.Receive() {
		switch r := stream.Msg().Result.(type) {
		case *tandemv1.VerifyResponse_Finding:
			c.findings = append(c.findings, r.Finding)
		case *tandemv1.VerifyResponse_Progress:
			progress(r.Progress)
		case *tandemv1.VerifyResponse_Summary:
			c.summary = r.Summary
		}
	}
	if err := stream.Err(); err != nil {
		return c, err
	}
	if c.summary == nil {
		return c, connect.NewError(connect.CodeDataLoss, fmt.Errorf("ended before the summary"))
	}
	return c, nil
}

func (i *invocation) sayVerified(answers []answer[checked], asJSON bool) (found bool, err error) {
	t := table{heading: []string{"RECORDER", "WHAT", "CHANNEL", "SEGMENT", "FILE", "TEXT"}}
	var rows, sums []any
	var lines []string
	for _, a := range answers {
		for _, f := range a.value.findings {
			found = true
			t.add(text(a.peer.name), cell{text: f.What, colour: red}, text(f.Channel), text(f.Segment), text(f.File), text(f.Text))
			rows = append(rows, findingJSON{a.peer.name, f.Segment, f.Channel, f.File, f.What, f.Text})
		}
		sum := a.value.summary
		found = found || sum.Findings > 0
		sums = append(sums, summaryJSON{a.peer.name, sum.Segments, sum.Bytes, sum.RecordedMs, sum.GapMs, sum.Findings})
		verdict := i.paint(green, "nothing found")
		if sum.Findings > 0 {
			verdict = i.paint(red, fmt.Sprintf("%d findings", sum.Findings))
		}
		lines = append(lines, fmt.Sprintf("%s: %d segments, %s, %s recorded, %s in gaps: %s", clean(a.peer.name), sum.Segments, size(sum.Bytes),
			length(time.Duration(sum.RecordedMs)*time.Millisecond), length(time.Duration(sum.GapMs)*time.Millisecond), verdict))
	}
	if asJSON {
		for _, v := range append(rows, sums...) {
			if err := i.json(v); err != nil {
				return found, err
			}
		}
		return found, nil
	}
	i.print(&t)
	fmt.Fprintln(i.out, strings.Join(lines, "\n"))
	return found, nil
}

type findingJSON struct {
	Recorder string `json:"recorder"`
	Segment  string `json:"segment"`
	Channel  string `json:"channel"`
	File     string `json:"file"`
	What     string `json:"what"`
	Text     string `json:"text"`
}

type summaryJSON struct {
	Recorder   string `json:"recorder"`
	Segments   uint64 `json:"segments"`
	Bytes      uint64 `json:"bytes"`
	RecordedMs int64  `json:"recorded_ms"`
	GapMs      int64  `json:"gap_ms"`
	Findings   uint64 `json:"findings"`
}
