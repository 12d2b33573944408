package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/call"
)

// Source is a recorder to be asked.
type Source struct {
	Name  string
	Media tandemv1connect.MediaServiceClient
}

// Reader compares what recorders hold, an hour at a time: memory does not grow
// with the time compared. It belongs to one goroutine.
type Reader struct {
	Sources []Source
	During  Span
	Options Options
	Timeout time.Duration         // of one question
	Left    func(Source, error)   // told of a source that gave no answer, and is asked no more
	Each    func(Verdict) error   // told of what was found, in order of time
	Now     func(until time.Time) // told how far it has come; nil: nobody wants to know

	left map[string]bool // sources asked no more
}

const (
	chunk      = time.Hour
	page       = 5000
	maxDoubts  = 500 // calls looked up one by one in a chunk
	atOnce     = 4   // of which so many at a time
	maxRecords = 200_000
)

// ErrNobody is that no source answered.
var ErrNobody = errors.New("no recorder answered")

// errTooMany is a chunk that does not fit into memory.
var errTooMany = fmt.Errorf("more than %d records in %v", maxRecords, chunk)

// Read compares until all is told, or ctx ends.
func (r *Reader) Read(ctx context.Context) (Count, error) {
	s := NewSurvey(r.During, r.Options)
	r.left = make(map[string]bool)
	for from := r.During.From; from.Before(r.During.To); from = from.Add(chunk) {
		part := Span{from, earlier(from.Add(chunk), r.During.To)}
		if err := r.chunk(ctx, s, part); err != nil {
			return s.Count(), err
		}
		until := part.To
		if until.Equal(r.During.To) {
			until = until.Add(24 * time.Hour) // nothing more comes
		}
		if err := r.settle(ctx, s, part, until); err != nil {
			return s.Count(), err
		}
		if r.Now != nil {
			r.Now(part.To)
		}
	}
	if l := r.Options.Against; l != nil {
		v := Verdict{Findings: l.Findings()}
		s.tally(v.Findings)
		return s.Count(), r.Each(v)
	}
	return s.Count(), nil
}

// settle judges what is over, after a second look at what seems wrong: what was
// recorded last is in no media file yet.
func (r *Reader) settle(ctx context.Context, s *Survey, part Span, until time.Time) error {
	var calls []string
	for _, d := range s.Doubts(until) {
		if s.unwritten(d) {
			s.count.Unwritten++
		}
		if !slices.Contains(calls, d.Call) && len(calls) < maxDoubts {
			calls = append(calls, d.Call)
		}
	}
	details, err := askAll(ctx, r, func(ctx context.Context, src Source) ([]*tandemv1.LegDetail, error) {
		return r.details(ctx, src, calls)
	})
	if err != nil {
		return err
	}
	for _, legs := range details {
		for _, l := range legs {
			for _, p := range l.GetParts() {
				s.AddPart(p)
			}
		}
	}
	return r.Each(s.Settle(until))
}

// answer is what a source says of a chunk.
type answer struct {
	legs     []*tandemv1.LegRecord
	blind    []*tandemv1.Window
	segments []*tandemv1.Segment
}

func (r *Reader) chunk(ctx context.Context, s *Survey, part Span) error {
	answers, err := askAll(ctx, r, func(ctx context.Context, src Source) (a answer, err error) {
		if a.legs, a.blind, err = r.search(ctx, src, part); err != nil {
			return a, err
		}
		a.segments, err = r.segments(ctx, src, part)
		return a, err
	})
	if err != nil {
		return err
	}
	for _, a := range answers {
		copies := map[call.Copy]bool{}
		for _, l := range a.legs {
			record := recordOf(l, r.During)
			s.Add(record)
			copies[record.Copy] = true
		}
		for _, m := range a.segments {
			s.AddMedia(mediaOf(m))
			copies[CopyOf(m.GetChannel())] = true
		}
		var blind []Span
		for _, w := range a.blind {
			blind = append(blind, spanOf(w.GetFrom(), w.GetTo(), r.During.To))
		}
		for c := range copies {
			for _, w := range blind {
				s.AddBlind(c, w)
			}
			for _, w := range (spans{part}).minus(union(blind...)) {
				s.AddTold(c, w)
			}
		}
	}
	return nil
}

// askAll puts one question to every source that has answered so far.
func askAll[T any](ctx context.Context, r *Reader, question func(context.Context, Source) (T, error)) ([]T, error) {
	type result struct {
		source Source
		value  T
		err    error
	}
	var results []*result
	var g errgroup.Group
	for _, src := range r.Sources {
		if r.left[src.Name] {
			continue
		}
		res := &result{source: src}
		results = append(results, res)
		g.Go(func() error {
			res.value, res.err = question(ctx, src)
			return nil
		})
	}
	g.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var values []T
	for _, res := range results {
		switch {
		case errors.Is(res.err, errTooMany):
			return nil, fmt.Errorf("%s: %w", res.source.Name, res.err)
		case res.err != nil:
			r.left[res.source.Name] = true
			r.Left(res.source, res.err)
		default:
			values = append(values, res.value)
		}
	}
	if len(values) == 0 {
		return nil, ErrNobody
	}
	return values, nil
}

// search pages through the legs that begin in a chunk and, in the first one,
// those that last already.
func (r *Reader) search(ctx context.Context, src Source, part Span) (legs []*tandemv1.LegRecord, blind []*tandemv1.Window, err error) {
	first := part.From.Equal(r.During.From)
	seen := map[string]bool{}
	to, limit := part.To, uint32(page)
	for {
		res, err := r.ask(ctx, src, &tandemv1.SearchCallsRequest{From: timestamppb.New(part.From), To: timestamppb.New(to), Limit: limit})
		if err != nil {
			return nil, nil, err
		}
		if to.Equal(part.To) {
			blind = res.GetBlind()
		}
		oldest, fresh := to, 0
		for _, l := range res.GetLegs() {
			start := l.GetLeg().GetStart().AsTime()
			oldest = earlier(oldest, start)
			if id := l.GetLeg().GetId(); l.GetLeg() == nil || seen[id] || start.Before(part.From) && !first {
				continue
			} else {
				seen[id] = true
			}
			fresh++
			legs = append(legs, l)
		}
		switch {
		case !res.GetMore() || oldest.Before(part.From) && !first:
			return legs, blind, nil
		case len(legs) > maxRecords:
			return nil, nil, errTooMany
		case fresh == 0:
			limit *= 2 // so many begin in one instant
		}
		to = oldest.Add(time.Microsecond) // others may have begun in that instant
	}
}

func (r *Reader) ask(ctx context.Context, src Source, q *tandemv1.SearchCallsRequest) (*tandemv1.SearchCallsResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	res, err := src.Media.SearchCalls(ctx, connect.NewRequest(q))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

// segments are those of a chunk, without what is not needed of them.
func (r *Reader) segments(ctx context.Context, src Source, part Span) ([]*tandemv1.Segment, error) {
	around := part.widen(roll + r.Options.Tolerance)
	ctx, cancel := context.WithTimeout(ctx, 10*r.Timeout) // a stream
	defer cancel()
	stream, err := src.Media.ListSegments(ctx, connect.NewRequest(&tandemv1.ListSegmentsRequest{From: timestamppb.New(around.From), To: timestamppb.New(around.To)}))
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	var all []*tandemv1.Segment
	for stream.Receive() {
		m := stream.Msg().GetSegment()
		all = append(all, &tandemv1.Segment{Channel: m.GetChannel(), Start: m.GetStart(), End: m.GetEnd(), Gaps: m.GetGaps(), Samples: m.GetSamples()})
		if len(all) > maxRecords {
			return nil, errTooMany
		}
	}
	return all, stream.Err()
}

// details looks calls up one by one.
func (r *Reader) details(ctx context.Context, src Source, calls []string) ([]*tandemv1.LegDetail, error) {
	found := make([][]*tandemv1.LegDetail, len(calls))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for n, id := range calls {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, r.Timeout)
			defer cancel()
			res, err := src.Media.GetCall(ctx, connect.NewRequest(&tandemv1.GetCallRequest{Call: id}))
			if connect.CodeOf(err) == connect.CodeNotFound {
				return nil
			}
			if err == nil {
				found[n] = res.Msg.GetLegs()
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.Concat(found...), nil
}

// recordOf is a leg as its recorder tells of it, as far as it is in the span.
func recordOf(l *tandemv1.LegRecord, during Span) Record {
	c, leg := l.GetCall(), l.GetLeg()
	r := Record{
		Copy: call.CopyA, Group: l.GetGroup(), Call: cmp.Or(c.GetId(), leg.GetCall()), Leg: leg.GetId(), Line: c.GetLine(), Party: c.GetParty(), PartyName: c.GetPartyName(),
		Session: leg.GetSession(), User: leg.GetUser(), UserName: leg.GetUserName(), Device: leg.GetDevice(), Source: leg.GetSource(),
		State: call.State(l.GetState()), Span: spanOf(leg.GetStart(), leg.GetEnd(), during.To).within(during),
	}
	if l.GetSecondary() {
		r.Copy = call.CopyB
	}
	for _, id := range leg.GetChannels() {
		r.Channels = append(r.Channels, Channel(id))
	}
	return r
}

func mediaOf(m *tandemv1.Segment) Media {
	return Media{
		Channel: Channel(m.GetChannel()), Copy: CopyOf(m.GetChannel()), Span: spanOf(m.GetStart(), m.GetEnd(), time.Time{}),
		Gaps: gapsOf(m.GetGaps()), None: m.GetSamples() == 0,
	}
}

// AddPart tells of a leg's part: of its segments, and of what lies behind them
// in the recorder's journal.
func (s *Survey) AddPart(p *tandemv1.Part) {
	whole := spanOf(p.GetFrom(), p.GetTo(), time.Time{})
	rest := Media{Channel: Channel(p.GetChannel()), Copy: CopyOf(p.GetChannel()), Span: whole, Gaps: gapsOf(p.GetGaps())}
	for _, m := range p.GetSegments() {
		if m.GetSamples() == 0 {
			continue
		}
		s.AddMedia(mediaOf(m))
		rest.From, rest.None = later(rest.From, m.GetEnd().AsTime()), !m.GetOpen()
	}
	if rest.empty() {
		rest.Span, rest.None = whole, true // its gaps count all the same
	}
	s.AddMedia(rest)
}

func gapsOf(gaps []*tandemv1.Gap) []Span {
	all := make([]Span, len(gaps))
	for n, g := range gaps {
		all[n] = spanOf(g.GetFrom(), g.GetTo(), time.Time{})
	}
	return all
}

// spanOf is a span off the wire; one that is open ends at the given instant.
func spanOf(from, to *timestamppb.Timestamp, open time.Time) Span {
	if to == nil {
		return Span{from.AsTime(), open}
	}
	return Span{from.AsTime(), to.AsTime()}
}
