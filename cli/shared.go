package cli

import (
	"context"
	"maps"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/call"
)

type searchAnswer = answer[*tandemv1.SearchCallsResponse]

// searchEverywhere asks every recorder for what no shared catalog has, and then
// each shared catalog, through a recorder that ships to it, for the rest. In this
// order nothing is missed that is being shipped at the moment. A recorder that
// ships nowhere answers with all it holds, and so does every one of them when a
// shared catalog does not answer.
func (s *site) searchEverywhere(ctx context.Context, question *tandemv1.SearchCallsRequest) ([]searchAnswer, error) {
	own, err := s.searchRecorders(ctx, question, tandemv1.Where_WHERE_UNSHIPPED)
	if err != nil {
		return nil, err
	}
	holders := map[string][]peer{}
	for _, a := range own {
		if id := a.value.Shared; id != "" {
			holders[id] = append(holders[id], a.peer)
		}
	}
	all, told := own, tell(own)
	for _, id := range slices.Sorted(maps.Keys(holders)) {
		a, err := s.searchShared(ctx, question, holders[id], told)
		if err != nil {
			s.warn("shared catalog left out: %s; what recorders hold that cannot be reached is missing", s.reason(err))
			return s.searchRecorders(ctx, question, tandemv1.Where_WHERE_UNSPECIFIED)
		}
		all = append(all, a)
	}
	for _, name := range slices.Sorted(maps.Keys(told.silent)) {
		s.warn("%s does not answer: what it had told the shared catalog by %s is shown", name, told.silent[name].Format(time.RFC3339))
	}
	return all, nil
}

func (s *site) searchRecorders(ctx context.Context, question *tandemv1.SearchCallsRequest, where tandemv1.Where) ([]searchAnswer, error) {
	asked := proto.CloneOf(question)
	asked.Where = where
	return askRecorders(ctx, s, func(ctx context.Context, m tandemv1connect.MediaServiceClient) (*connect.Response[tandemv1.SearchCallsResponse], error) {
		return m.SearchCalls(ctx, connect.NewRequest(asked))
	})
}

// searchShared is what a shared catalog has, by whichever of the recorders
// reaches it first.
func (s *site) searchShared(ctx context.Context, question *tandemv1.SearchCallsRequest, through []peer, told *telling) (a searchAnswer, err error) {
	for _, p := range through {
		if a = s.searchPages(ctx, question, p, told); a.err == nil || ctx.Err() != nil {
			break
		}
	}
	return a, a.err
}

// searchPages reads pages until more legs are found than were asked for: one leg
// has a record of each recorder that heard it.
func (s *site) searchPages(ctx context.Context, question *tandemv1.SearchCallsRequest, p peer, told *telling) searchAnswer {
	asked := proto.CloneOf(question)
	asked.Where = tandemv1.Where_WHERE_SHARED
	found, guessed, legs := &tandemv1.SearchCallsResponse{}, []*tandemv1.LegRecord{}, map[string]bool{}
	for {
		a := ask(ctx, s, []peer{p}, func(ctx context.Context, p peer) (*connect.Response[tandemv1.SearchCallsResponse], error) {
			return s.media(p).SearchCalls(ctx, connect.NewRequest(asked))
		})[0]
		if a.err != nil {
			return searchAnswer{peer: p, err: a.err}
		}
		page := a.value.Msg
		for _, r := range page.Legs {
			switch {
			case told.better(r):
				continue
			case told.answers(r):
				found.Legs = append(found.Legs, r)
			case question.Ongoing:
				continue // nobody records it there
			default:
				guessed = append(guessed, cutShort(r))
			}
			legs[r.GetLeg().GetId()] = true
		}
		found.More = page.Next != ""
		if asked.After = page.Next; !found.More || len(legs) > int(question.Limit) {
			found.Legs = append(found.Legs, guessed...) // whoever merges believes the first
			return searchAnswer{peer: p, value: found}
		}
	}
}

// telling is what recorders told themselves, and so what of a shared catalog is
// out of date.
type telling struct {
	whole   map[string]bool      // by catalog that answered: that it told all it has
	changed map[record]bool      // what the shared one has of these is not so any more
	silent  map[string]time.Time // recorders that did not answer, and when they were last heard of
}

// record is a leg's in one catalog.
type record struct{ catalog, leg string }

func tell(own []searchAnswer) *telling {
	t := &telling{map[string]bool{}, map[record]bool{}, map[string]time.Time{}}
	for _, a := range own {
		t.whole[a.value.Catalog] = a.value.Shared == ""
		for _, leg := range a.value.Changed {
			t.changed[record{a.value.Catalog, leg}] = true
		}
	}
	return t
}

// better reports whether the recorder's own word stands in place of a record.
func (t *telling) better(r *tandemv1.LegRecord) bool {
	return t.whole[r.Catalog] || t.changed[record{r.Catalog, r.GetLeg().GetId()}]
}

// answers reports whether the record's recorder does, and remembers who does not.
func (t *telling) answers(r *tandemv1.LegRecord) bool {
	if _, ok := t.whole[r.Catalog]; ok {
		return true
	}
	t.silent[r.Recorder] = maxTime(t.silent[r.Recorder], at(r.Told))
	return false
}

// cutShort is the record of a recorder that does not answer: as far as anybody
// knows a leg that lasted was recorded until the recorder was last heard of.
func cutShort(r *tandemv1.LegRecord) *tandemv1.LegRecord {
	if r.State != string(call.StateRecording) {
		return r
	}
	cut := proto.CloneOf(r)
	cut.State = string(call.StateInterrupted)
	if cut.Leg.End = cut.Told; at(cut.Told).Before(at(cut.Leg.Start)) {
		cut.Leg.End = cut.Leg.Start
	}
	return cut
}
