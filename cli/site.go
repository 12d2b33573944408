package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/pki"
	"tandem/internal/rpc"
)

// site reaches the daemons of one site, for one command. It belongs to one
// goroutine; ask and the clients may be used from several.
type site struct {
	http      *http.Client
	directors []peer
	recorders []peer              // those configured; the directors know more
	found     []peer              // by findRecorders, once
	unreached []peer              // of those found: they gave no answer
	members   map[string][]string // addresses of the recorders of each group, as directors know them
	strangers []string            // directors that gave no answer, and that no other one knows
	watchdogs []peer              // those configured; the directors may name more
	guessed   bool                // nobody said where watchdogs are: they need not be there
	timeout   time.Duration
	warn      func(format string, args ...any)
}

// peer is one daemon to ask.
type peer struct {
	name    string // as the site calls it; its address while that is not known
	address string
}

func (p peer) String() string {
	if p.name == p.address {
		return p.address
	}
	return p.name + " (" + p.address + ")"
}

func newSite(cfg Config, warn func(string, ...any)) *site {
	return &site{
		http: wireOf(cfg).NewClient(), directors: peersAt(cfg.Directors), recorders: peersAt(cfg.Recorders), watchdogs: peersAt(cfg.Watchdogs),
		guessed: slices.Equal(cfg.Watchdogs, DefaultConfig().Watchdogs), timeout: cfg.Timeout.Std(), warn: warn,
	}
}

// wireOf shows others the user's certificate, if there is one. What is wrong with
// it the failing call says.
func wireOf(cfg Config) rpc.Wire {
	return rpc.Open(cfg.TLS, pki.Identity{}, slog.New(slog.DiscardHandler))
}

func peersAt(addresses []string) []peer {
	peers := make([]peer, len(addresses))
	for n, a := range addresses {
		peers[n] = peer{a, a}
	}
	return peers
}

func (s *site) director(p peer) tandemv1connect.DirectorServiceClient {
	return tandemv1connect.NewDirectorServiceClient(s.http, "http://"+p.address)
}

func (s *site) media(p peer) tandemv1connect.MediaServiceClient {
	return tandemv1connect.NewMediaServiceClient(s.http, "http://"+p.address)
}

// answer is what one peer said.
type answer[T any] struct {
	peer  peer
	value T
	err   error
}

// ask puts one question to all peers at once; each has the site's timeout.
// The answers stand in the order of the peers.
func ask[T any](ctx context.Context, s *site, peers []peer, question func(context.Context, peer) (T, error)) []answer[T] {
	return fetch(ctx, peers, func(ctx context.Context, p peer) (T, error) {
		ctx, cancel := context.WithTimeout(ctx, s.timeout)
		defer cancel()
		return question(ctx, p)
	})
}

// fetch is ask without a timeout, for what may take long.
func fetch[T any](ctx context.Context, peers []peer, question func(context.Context, peer) (T, error)) []answer[T] {
	answers := make([]answer[T], len(peers))
	var wg sync.WaitGroup
	for n, p := range peers {
		wg.Go(func() {
			value, err := question(ctx, p)
			answers[n] = answer[T]{p, value, err}
		})
	}
	wg.Wait()
	return answers
}

// heard keeps the answers and warns of the peers that gave none. Only when
// nobody answered is there an error: with status 3 when nobody was reached.
func heard[T any](s *site, kind string, answers []answer[T]) ([]answer[T], error) {
	var good, bad []answer[T]
	for _, a := range answers {
		if a.err == nil {
			good = append(good, a)
		} else {
			bad = append(bad, a)
		}
	}
	if len(good) == 0 {
		return nil, nobody(kind, bad)
	}
	for _, a := range bad {
		s.warn("%s %s left out: %s", kind, a.peer, s.reason(a.err))
	}
	return good, nil
}

// nobody is the error of a question that no peer answered.
func nobody[T any](kind string, bad []answer[T]) error {
	if len(bad) == 0 {
		return usage("no %ss are configured; name one in %s or with --%s ADDR", kind, DefaultFile, option(kind))
	}
	status, texts, troubles := ExitUnreached, make([]string, 0, len(bad)), 0
	for _, a := range bad {
		text := fmt.Sprintf("%s: %s", a.peer, plain(a.err))
		if tls := new(pki.Trouble); errors.As(a.err, &tls) { // says who, and what to do
			text = tls.Text
			troubles++
		}
		texts = append(texts, text)
		if is := exitStatus(a.err); status == ExitUnreached || is < status {
			status = is // an answer says more than silence
		}
	}
	next := "is tandem-" + kind + " running there?"
	if kind != "recorder" {
		next += " --" + option(kind) + " ADDR names another"
	}
	switch {
	case status == ExitUsage: // nobody was asked: it is the same with all of them
		return exit(status, "%s", plain(bad[0].err))
	case status == ExitRefused || troubles == len(bad):
		return exit(status, "%s", strings.Join(texts, "; ")) // whoever refuses says what to do, too
	case status != ExitUnreached:
		next = "see its log"
	}
	return exit(status, "no %s answered (%s); %s", kind, strings.Join(texts, "; "), next)
}

// option is the one that says where daemons of a kind are, or who knows.
func option(kind string) string {
	if kind == "recorder" {
		return "director"
	}
	return kind
}

// exitStatus tells a peer that was not reached from one that answered no.
func exitStatus(err error) int {
	var tls *pki.Trouble
	if errors.As(err, &tls) {
		return troubleStatus(tls.Reason)
	}
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded:
		return ExitUnreached
	case connect.CodeFailedPrecondition, connect.CodePermissionDenied:
		return ExitRefused
	}
	return ExitFailed
}

// troubleStatus tells certificates that one of the two does not accept from a
// configuration that has none to show.
func troubleStatus(r pki.Reason) int {
	switch r {
	case pki.Files:
		return ExitUsage
	case pki.Unencrypted, pki.Handshake:
		return ExitUnreached
	}
	return ExitRefused
}

func (s *site) reason(err error) string {
	if connect.CodeOf(err) == connect.CodeDeadlineExceeded {
		return fmt.Sprintf("no answer within %v", s.timeout)
	}
	return plain(err)
}

// plain says in a few words why a peer gave no answer.
func plain(err error) string {
	var wire *connect.Error
	var tls *pki.Trouble
	switch {
	case errors.As(err, &tls):
		return tls.Text
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, context.Canceled):
		return "interrupted"
	case connect.CodeOf(err) == connect.CodeDeadlineExceeded:
		return "no answer in time"
	case errors.As(err, &wire):
		return wire.Message()
	}
	return err.Error()
}

func (s *site) statusAnswers(ctx context.Context) []answer[*tandemv1.StatusResponse] {
	return ask(ctx, s, s.directors, func(ctx context.Context, p peer) (*tandemv1.StatusResponse, error) {
		r, err := s.director(p).Status(ctx, connect.NewRequest(&tandemv1.StatusRequest{}))
		if err != nil {
			return nil, err
		}
		return r.Msg, nil
	})
}

// distinct keeps the first of each key, sorted by key.
func distinct[T any](all []T, key func(T) string) []T {
	slices.SortStableFunc(all, func(a, b T) int { return cmp.Compare(key(a), key(b)) })
	return slices.CompactFunc(all, func(a, b T) bool { return key(a) == key(b) })
}

// findRecorders is where the media are: the recorders the directors know and
// those configured. Without a director the configured ones must do.
// What was found holds for the whole command.
func (s *site) findRecorders(ctx context.Context) ([]peer, error) {
	if s.found != nil {
		return s.found, nil
	}
	var answers []answer[*tandemv1.StatusResponse]
	if len(s.directors) > 0 {
		var err error
		all := s.statusAnswers(ctx)
		answers, err = heard(s, "director", all)
		s.members, s.strangers = membersOf(answers), strangersIn(all)
		if err != nil && len(s.recorders) == 0 {
			return nil, err
		}
		if err != nil {
			s.warn("%v", err)
		}
	}
	var found []peer
	for _, a := range answers {
		for _, r := range a.value.Recorders {
			if r.Address != "" {
				found = append(found, peer{r.Name, r.Address})
			}
		}
	}
	found = append(found, s.recorders...)
	if len(found) == 0 {
		return nil, exit(ExitUnreached, "the director knows no recorder; add a [[recorder]] to director.toml, or recorders to recctl.toml")
	}
	s.found = distinct(found, func(p peer) string { return p.address })
	slices.SortStableFunc(s.found, func(a, b peer) int { return natural(a.name, b.name) })
	return s.found, nil
}

// membersOf are the addresses of the recorders of each group.
func membersOf(answers []answer[*tandemv1.StatusResponse]) map[string][]string {
	members := map[string][]string{}
	for _, a := range answers {
		for _, r := range a.value.Recorders {
			members[r.Group] = append(members[r.Group], r.Address)
		}
	}
	return members
}

// strangersIn are the directors that gave no answer, and that no other one
// knows as its peer.
func strangersIn(answers []answer[*tandemv1.StatusResponse]) []string {
	var known, silent []string
	for _, a := range answers {
		if a.err != nil {
			silent = append(silent, a.peer.address)
			continue
		}
		for _, d := range a.value.Directors {
			known = append(known, d.Address)
		}
	}
	if len(silent) == len(answers) {
		return nil // there is nobody to know them
	}
	return slices.DeleteFunc(silent, func(a string) bool { return slices.Contains(known, a) })
}

// askRecorders puts one question to every recorder that has answered so far.
func askRecorders[T any](ctx context.Context, s *site, question func(context.Context, tandemv1connect.MediaServiceClient) (*connect.Response[T], error)) ([]answer[*T], error) {
	if _, err := s.findRecorders(ctx); err != nil {
		return nil, err
	}
	return heardRecorders(s, ask(ctx, s, s.reached(), func(ctx context.Context, p peer) (*T, error) {
		r, err := question(ctx, s.media(p))
		if err != nil {
			return nil, err
		}
		return r.Msg, nil
	}))
}

// heardRecorders is heard, and remembers who gave no answer.
func heardRecorders[T any](s *site, answers []answer[T]) ([]answer[T], error) {
	good, err := heard(s, "recorder", answers)
	for _, a := range answers {
		if a.err != nil && !slices.Contains(s.unreached, a.peer) {
			s.unreached = append(s.unreached, a.peer)
		}
	}
	return good, err
}

// reached are the recorders found that gave an answer whenever they were asked.
func (s *site) reached() []peer {
	return slices.DeleteFunc(slices.Clone(s.found), func(p peer) bool { return slices.Contains(s.unreached, p) })
}

// away are the names of the recorders that gave no answer.
func (s *site) away() []string {
	var names []string
	for _, p := range s.unreached {
		names = append(names, p.name)
	}
	return names
}

// partial is the error of audio that may lack what a recorder holds that gave
// no answer; nil when all of them did.
func (s *site) partial() error {
	names := s.away()
	if len(names) == 0 {
		return nil
	}
	for n := range names {
		names[n] += " cannot be reached: what it alone holds is missing from this audio"
	}
	return failed("%s", strings.Join(names, "\n"))
}
