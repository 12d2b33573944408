package recorder

import (
	"context"
	"errors"
	"log/slog"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/recorder/catalog"
	"tandem/recorder/shared"
	"tandem/recorder/ship"
)

// sharing is this recorder's part in the catalog that it shares with others. A
// nil one is that of a recorder with a catalog of its own alone.
type sharing struct {
	shipper *ship.Shipper
	reader  *shared.Reader
}

// farBehind is how many rows may wait to be shipped before a search is told to
// take them all from here: a list of those that are out of date would be as long.
const farBehind = 5000

// maxPage bounds what one search of the shared catalog holds in memory.
const maxPage = 1000

// openSharing is ready to ship and to search; it reaches for nothing yet.
func openSharing(cfg Config, c *catalog.Catalog) (*sharing, error) {
	at := cfg.shared()
	if at.URL == "" {
		return nil, nil
	}
	if at.Exposed() {
		slog.Warn("connection to the shared catalog is not protected: want sslmode=verify-full and sslrootcert in catalog.url")
	}
	reader, err := shared.Open(at)
	if err != nil {
		return nil, err
	}
	return &sharing{ship.New(at, shared.Source{Catalog: c.ID(), Recorder: cfg.Name, Group: cfg.Group}, c), reader}, nil
}

// Run ships until ctx ends. Nothing waits for it.
func (s *sharing) Run(ctx context.Context) error {
	if s == nil {
		return nil
	}
	defer s.reader.Close()
	return s.shipper.Run(ctx)
}

// state is how far shipping has come; of nothing, without a shared catalog.
func (s *sharing) state() ship.State {
	if s == nil {
		return ship.State{}
	}
	return s.shipper.State()
}

// searchOwn searches this recorder's catalog: all of it, or what of it is not in
// the shared one while that has nearly everything.
func (m *mediaAPI) searchOwn(ctx context.Context, q catalog.Query, where tandemv1.Where, response *tandemv1.SearchCallsResponse) (records []catalog.Record, err error) {
	state := m.sharing.state()
	if where != tandemv1.Where_WHERE_UNSHIPPED || !state.Connected || state.Lag > farBehind {
		records, response.More, err = m.catalog.Search(ctx, q)
		return records, err
	}
	records, more, changed, err := m.catalog.SearchChanged(ctx, q, state.Shipped)
	response.More, response.Shared = more, state.Database
	for _, leg := range changed {
		response.Changed = append(response.Changed, string(leg))
	}
	return records, err
}

var errNotShared = errors.New("this recorder shares no catalog: [catalog] has no url")

// searchShared is a page of what the shared catalog finds.
func (m *mediaAPI) searchShared(ctx context.Context, q catalog.Query, after string) (*connect.Response[tandemv1.SearchCallsResponse], error) {
	if m.sharing == nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errNotShared)
	}
	q.Limit = min(q.Limit, maxPage)
	page, err := m.sharing.reader.Search(ctx, shared.Query{Query: q, After: after})
	if errors.Is(err, shared.ErrPlace) {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	if err != nil {
		return nil, unavailable(err)
	}
	response := &tandemv1.SearchCallsResponse{More: page.Next != "", Next: page.Next}
	for _, rec := range page.Records {
		leg := recordProto(rec.Record, rec.Recorder, rec.Catalog)
		leg.Told = timeProto(rec.Told)
		response.Legs = append(response.Legs, leg)
	}
	return connect.NewResponse(response), nil
}
