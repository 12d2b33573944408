package director

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"tandem/internal/authority"
)

// place is where a process runs, one after the other. Its clock goes on
// whatever becomes of the process.
type place struct {
	name, host, address string
	base                authority.Instant
	rate                float64 // of its clock, about 1
	boot                func(p *process) http.Handler

	// Guarded by the simulation's mutex.
	now      *process // nil: none runs
	runs     int
	starting bool
}

// process is one run of a program. What is frozen reads no clock, sends
// nothing and takes nothing in; what is dead does so for good.
type process struct {
	sim      *sim
	place    *place
	pid      int
	ctx      context.Context
	end      context.CancelFunc
	dead     chan struct{}
	handler  http.Handler
	director *director // nil for other programs
	orders   *ledger   // of a director, what it has begun

	frozen chan struct{} // guarded by the simulation's mutex; nil: it runs
}

// instant is what the clock shows, whether anybody may read it or not.
func (p *place) instant() authority.Instant {
	return p.base + authority.Instant(float64(time.Since(p.epochTime()))*p.rate)
}

// epochTime is when every bubble's clock begins.
func (p *place) epochTime() time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) }

// at is when, by the simulation's own clock, that of p shows an instant.
func (p *place) at(i authority.Instant) time.Time {
	return p.epochTime().Add(time.Duration(float64(i-p.base) / p.rate))
}

// never is what a dead process's clock shows: whatever it had has lapsed.
const never = authority.Instant(math.MaxInt64 / 2)

func (p *process) clock() authority.Instant {
	if !p.hold(context.Background()) {
		return never
	}
	return p.place.instant()
}

// hold waits while the process is frozen; false: it has died, or ctx ended.
func (p *process) hold(ctx context.Context) bool {
	for {
		p.sim.mu.Lock()
		frozen := p.frozen
		p.sim.mu.Unlock()
		if frozen == nil {
			break
		}
		select {
		case <-frozen:
		case <-p.dead:
			return false
		case <-ctx.Done():
			return false
		}
	}
	select {
	case <-p.dead:
		return false
	default:
		return ctx.Err() == nil
	}
}

func (p *process) alive() bool {
	select {
	case <-p.dead:
		return false
	default:
		return true
	}
}

// start runs a process at a place.
func (s *sim) start(at *place) {
	ctx, end := context.WithCancel(context.Background())
	p := &process{sim: s, place: at, ctx: ctx, end: end, dead: make(chan struct{})}
	s.mu.Lock()
	s.pids++
	p.pid = s.pids
	at.runs++
	s.mu.Unlock()
	handler := at.boot(p)
	s.mu.Lock()
	p.handler, at.now = handler, p
	s.mu.Unlock()
	s.note(at.name, "starts as process %d", p.pid)
}

// kill ends a process at once: memory is lost, connections are reset.
func (s *sim) kill(p *process) {
	s.mu.Lock()
	if !p.alive() {
		s.mu.Unlock()
		return
	}
	close(p.dead)
	if p.place.now == p {
		p.place.now = nil
	}
	s.mu.Unlock()
	p.end()
	s.note(p.place.name, "process %d has ended", p.pid)
}

// freeze stops a process as SIGSTOP does.
func (s *sim) freeze(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.frozen == nil {
		p.frozen = make(chan struct{})
		s.noteLocked(p.place.name, "is frozen")
		s.sabotage.froze(s, p)
	}
}

func (s *sim) thaw(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.frozen != nil {
		close(p.frozen)
		p.frozen = nil
		s.noteLocked(p.place.name, "thaws")
	}
}

// running is the process at a place, nil if there is none.
func (s *sim) running(at *place) *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return at.now
}

// way is a direction between two hosts.
type way struct{ from, to string }

// cut lets nothing pass any more; what is sent arrives after it is healed, or never.
func (s *sim) cut(ways ...way) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range ways {
		if s.cuts[w] == nil && w.from != w.to {
			s.cuts[w] = make(chan struct{})
			s.noteLocked("network", "%s > %s is cut", w.from, w.to)
		}
	}
}

func (s *sim) heal(ways ...way) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range ways {
		if healed := s.cuts[w]; healed != nil {
			close(healed)
			delete(s.cuts, w)
			s.noteLocked("network", "%s > %s is whole again", w.from, w.to)
		}
	}
}

// isCut is closed when a way is whole again; nil: it is.
func (s *sim) isCut(w way) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if healed := s.cuts[w]; healed != nil {
		return healed
	}
	return nil
}

// fate is what becomes of one message. It depends on the seed, on who sends
// what to whom and when, and on nothing else: two runs in which goroutines
// took turns in another order treat their messages alike.
type fate struct {
	delay    time.Duration
	lost     bool // and nobody repeats it
	stubborn bool // it waits for a cut to be healed
	twice    time.Duration
}

// chance is a source of randomness for one thing.
func (s *sim) chance(what ...string) *rand.Rand {
	h := fnv.New64a()
	for _, w := range what {
		io.WriteString(h, w)
		h.Write([]byte{0})
	}
	return rand.New(rand.NewPCG(s.seed, h.Sum64()^uint64(time.Since(s.began))*0x9e3779b97f4a7c15))
}

func (s *sim) fate(from, to *place, what string) fate {
	if from.host == to.host {
		return fate{delay: 20 * time.Microsecond}
	}
	r := s.chance(from.name, to.name, what)
	n := s.plan.noise
	f := fate{delay: 100*time.Microsecond + time.Duration(r.Int64N(int64(n.spread)))}
	if r.Float64() < n.tail {
		f.delay += time.Duration(r.Int64N(int64(300 * time.Millisecond)))
	}
	if s.isSlow(from.host) {
		f.delay += time.Duration(r.Int64N(int64(s.timing.F)))
	}
	f.lost = r.Float64() < n.loss
	f.stubborn = r.IntN(2) == 0
	if r.Float64() < n.twice {
		f.twice = time.Duration(1 + r.Int64N(int64(400*time.Millisecond)))
	}
	return f
}

func (s *sim) isSlow(host string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slow[host] > 0
}

// carry brings something to another host; false: it never arrives.
func (s *sim) carry(from, to *place, f fate) bool {
	time.Sleep(f.delay)
	for {
		healed := s.isCut(way{from.host, to.host})
		if healed == nil {
			return !f.lost
		}
		if f.lost || !f.stubborn {
			return false
		}
		<-healed
		time.Sleep(f.delay)
	}
}

// wire is a process's HTTP client. It satisfies client.
type wire struct{ from *process }

func (w *wire) CloseIdleConnections() {}

var (
	errDead    = errors.New("this process has ended")
	errReset   = errors.New("connection reset by peer")
	errRefused = errors.New("connection refused")
	errGivenUp = errors.New("connection lost: no answer to a ping")
)

// pinged is how long a connection is dead before that is noticed.
const pinged = 2 * time.Second

// Do sends a request, and waits for the answer as long as its context allows.
func (w *wire) Do(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	s, ctx := w.from.sim, req.Context()
	s.sends(w.from, req.URL.Path, body)
	if !w.from.hold(ctx) { // what was sent after a look at the clock leaves when it thaws
		return nil, cause1(ctx.Err(), errDead)
	}
	for _, header := range []string{"Accept-Encoding", "Grpc-Accept-Encoding"} { // nothing is gained here by compressing
		req.Header.Del(header)
	}
	to := s.places[req.URL.Host]
	if to == nil {
		return nil, fmt.Errorf("no host %s", req.URL.Host)
	}
	m := &message{sim: s, from: w.from, to: to, path: req.URL.Path, header: req.Header.Clone(), body: body, caller: ctx, answer: make(chan answer1, 1)}
	go m.travel()
	select {
	case a := <-m.answer:
		if !w.from.hold(ctx) {
			return nil, cause1(ctx.Err(), errDead)
		}
		return a.response, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-w.from.dead:
		return nil, errDead
	}
}

func cause1(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

type answer1 struct {
	response *http.Response
	err      error
}

// message is a request on its way, and its answer.
type message struct {
	sim    *sim
	from   *process
	to     *place
	path   string
	header http.Header
	body   []byte
	caller context.Context
	answer chan answer1
}

func (m *message) fail(err error) { m.answer <- answer1{err: err} }

// travel brings the message there, has it served and brings the answer back.
// Whether the caller still waits makes no difference: what is in a kernel's
// buffer arrives.
func (m *message) travel() {
	s := m.sim
	f := s.fate(m.from.place, m.to, m.path)
	if !s.carry(m.from.place, m.to, f) {
		time.Sleep(pinged)
		m.fail(errGivenUp)
		return
	}
	p := s.running(m.to)
	if p == nil || !p.hold(context.Background()) {
		s.back(m, errRefused)
		return
	}
	if strings.HasSuffix(m.path, "/Watch") {
		m.stream(p)
		return
	}
	if f.twice > 0 {
		go func() {
			time.Sleep(f.twice)
			if p.hold(context.Background()) {
				m.serve(p)
			}
		}()
	}
	res := m.serve(p)
	if !p.alive() {
		s.back(m, errReset)
		return
	}
	if !s.carry(m.to, m.from.place, s.fate(m.to, m.from.place, m.path)) {
		time.Sleep(pinged)
		m.fail(errGivenUp)
		return
	}
	m.answer <- answer1{response: res}
}

// back brings a refusal of the kernel's back.
func (s *sim) back(m *message, err error) {
	if !s.carry(m.to, m.from.place, s.fate(m.to, m.from.place, "reset")) {
		time.Sleep(pinged)
		err = errGivenUp
	}
	m.fail(err)
}

func (m *message) request(ctx context.Context) *http.Request {
	return (&http.Request{
		Method: http.MethodPost, URL: mustURL(m.to.address, m.path), Host: m.to.address, Header: m.header.Clone(), Proto: "HTTP/2.0", ProtoMajor: 2,
		Body: io.NopCloser(bytes.NewReader(m.body)), ContentLength: int64(len(m.body)), RemoteAddr: m.from.place.address,
	}).WithContext(ctx)
}

func (m *message) serve(p *process) *http.Response {
	page := &page{header: make(http.Header), status: http.StatusOK}
	p.handler.ServeHTTP(page, m.request(p.ctx))
	res := page.response()
	res.Body = io.NopCloser(&page.body)
	res.ContentLength = int64(page.body.Len())
	return res
}

// page is a whole answer.
type page struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (p *page) Header() http.Header         { return p.header }
func (p *page) WriteHeader(status int)      { p.status = status }
func (p *page) Write(b []byte) (int, error) { return p.body.Write(b) }
func (p *page) Flush()                      {}
func (p *page) response() *http.Response {
	header, trailer := split(p.header)
	return &http.Response{StatusCode: p.status, Status: http.StatusText(p.status), Proto: "HTTP/2.0", ProtoMajor: 2, Header: header, Trailer: trailer}
}

// split takes the trailers out of what a handler has set.
func split(all http.Header) (header, trailer http.Header) {
	header, trailer = make(http.Header), make(http.Header)
	declared := all.Values("Trailer")
	for key, values := range all {
		if name, is := strings.CutPrefix(key, http.TrailerPrefix); is {
			trailer[name] = values
			continue
		}
		at := header
		for _, d := range declared {
			for _, name := range strings.Split(d, ",") {
				if http.CanonicalHeaderKey(strings.TrimSpace(name)) == key {
					at = trailer
				}
			}
		}
		at[key] = values
	}
	return header, trailer
}

// stream serves a request whose answer goes on.
func (m *message) stream(p *process) {
	ctx, cancel := context.WithCancel(p.ctx)
	f := &feed{message: m, server: p, header: make(http.Header), trailer: make(http.Header), more: make(chan struct{}, 1), closed: make(chan struct{}), cancel: cancel}
	m.answer <- answer1{response: &http.Response{StatusCode: http.StatusOK, Status: "OK", Proto: "HTTP/2.0", ProtoMajor: 2, Header: http.Header{"Content-Type": {"application/grpc+proto"}}, Trailer: f.trailer, Body: f}}
	p.handler.ServeHTTP(f, m.request(ctx))
	cancel()
	f.finish()
}

// feed is an answer that goes on: its writer is the server's handler, its
// reader the client.
type feed struct {
	*message
	server *process
	header http.Header
	cancel context.CancelFunc
	more   chan struct{}
	closed chan struct{}
	once   sync.Once

	trailer http.Header // the reader's, complete when it has read to the end
	queue   []piece     // these are guarded by the simulation's mutex
	over    bool
	words   http.Header // the last ones; once over is set nobody writes them
	last    time.Time
}

type piece struct {
	at   time.Time
	data []byte
}

func (f *feed) Header() http.Header { return f.header }
func (f *feed) WriteHeader(int)     {}
func (f *feed) Flush()              {}

func (f *feed) Write(b []byte) (int, error) {
	select {
	case <-f.closed:
		return 0, errReset
	default:
	}
	at := time.Now().Add(f.sim.fate(f.to, f.from.place, "stream").delay)
	f.sim.mu.Lock()
	if at.Before(f.last) {
		at = f.last
	}
	f.last = at
	f.queue = append(f.queue, piece{at, bytes.Clone(b)})
	f.sim.mu.Unlock()
	f.wake()
	return len(b), nil
}

func (f *feed) wake() {
	select {
	case f.more <- struct{}{}:
	default:
	}
}

func (f *feed) finish() {
	header, last := split(f.header)
	for key, values := range header {
		if strings.HasPrefix(key, "Grpc-") {
			last[key] = values
		}
	}
	f.sim.mu.Lock()
	f.over, f.words = true, last
	f.sim.mu.Unlock()
	f.wake()
}

// Read implements the response's body.
func (f *feed) Read(b []byte) (int, error) {
	for {
		f.sim.mu.Lock()
		var next *piece
		if len(f.queue) > 0 {
			next = &f.queue[0]
		}
		over := f.over
		f.sim.mu.Unlock()
		switch {
		case next != nil:
			if err := f.arrive(next.at); err != nil {
				return 0, err
			}
			f.sim.mu.Lock()
			n := copy(b, f.queue[0].data)
			if f.queue[0].data = f.queue[0].data[n:]; len(f.queue[0].data) == 0 {
				f.queue = f.queue[1:]
			}
			f.sim.mu.Unlock()
			return n, nil
		case over:
			if err := f.arrive(time.Now()); err != nil {
				return 0, err
			}
			if !f.server.alive() {
				return 0, errReset
			}
			maps.Copy(f.trailer, f.words)
			return 0, io.EOF
		}
		select {
		case <-f.more:
		case <-f.closed:
			return 0, errReset
		case <-f.caller.Done():
			return 0, f.caller.Err()
		case <-f.from.dead:
			return 0, errDead
		}
	}
}

// arrive waits until something sent is here.
func (f *feed) arrive(at time.Time) error {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	if err := f.wait(timer.C); err != nil {
		return err
	}
	for healed := f.sim.isCut(way{f.to.host, f.from.place.host}); healed != nil; healed = f.sim.isCut(way{f.to.host, f.from.place.host}) {
		select {
		case <-healed:
		case <-f.closed:
			return errReset
		case <-f.caller.Done():
			return f.caller.Err()
		case <-f.from.dead:
			return errDead
		}
	}
	if !f.from.hold(f.caller) {
		return cause1(f.caller.Err(), errDead)
	}
	return nil
}

func (f *feed) wait(c <-chan time.Time) error {
	select {
	case <-c:
		return nil
	case <-f.closed:
		return errReset
	case <-f.caller.Done():
		return f.caller.Err()
	case <-f.from.dead:
		return errDead
	}
}

// Close implements the response's body.
func (f *feed) Close() error {
	f.once.Do(func() {
		close(f.closed)
		f.cancel()
	})
	return nil
}

// line is one event of the timeline.
type line struct {
	at   time.Duration
	who  string
	text func() string
}

func (s *sim) note(who, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noteLocked(who, format, args...)
}

func (s *sim) noteLocked(who, format string, args ...any) {
	s.timeline = append(s.timeline, line{time.Since(s.began), who, func() string { return fmt.Sprintf(format, args...) }})
}

// diary puts what a process logs into the timeline.
type diary struct {
	sim *sim
	who string
}

func (s *sim) logger(who string) *slog.Logger { return slog.New(diary{s, who}) }

func (d diary) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }
func (d diary) WithAttrs([]slog.Attr) slog.Handler               { return d }
func (d diary) WithGroup(string) slog.Handler                    { return d }

func (d diary) Handle(_ context.Context, r slog.Record) error {
	d.sim.mu.Lock()
	defer d.sim.mu.Unlock()
	d.sim.timeline = append(d.sim.timeline, line{time.Since(d.sim.began), d.who, func() string {
		var text strings.Builder
		text.WriteString(r.Message)
		r.Attrs(func(a slog.Attr) bool {
			fmt.Fprintf(&text, " %s=%v", a.Key, a.Value)
			return true
		})
		return text.String()
	}})
	return nil
}
