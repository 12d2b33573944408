package director

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/call"
)

const (
	askWait      = 3 * time.Second        // for an inventory; a director that starts waits as long
	againWait    = 200 * time.Millisecond // for one from a recorder whose stream just broke
	orderWait    = 10 * time.Second       // for a batch: thousands of ports, a transaction
	reconnectMin = 100 * time.Millisecond
	reconnectMax = time.Second
	eager        = 3 * time.Second // from the start on it reconnects quickly: recorders may start, too
	refusedPause = 5 * time.Second
	selfDoubt    = 50 * time.Millisecond  // a timer this late says that we had no processor
	secondLook   = 150 * time.Millisecond // for what has arrived and is not read yet
)

// link is the connection to one recorder: it asks what the recorder holds,
// fences it, watches it, and carries the loop's batches to it one by one.
type link struct {
	name     call.RecorderName
	client   tandemv1connect.RecorderServiceClient
	http     client // under the one above; nobody else's, so that its connections can be given up
	right    *right
	group    string
	timeout  time.Duration // silence after which the recorder is lost
	loop     *loop
	failures *prometheus.CounterVec // by recorder and call
	log      *slog.Logger

	heard    time.Time     // the recorder last said anything; owned by run
	until    time.Time     // up to then it has written what it heard, as it last said; owned by run
	sequence atomic.Uint64 // of the last order
	nonce    atomic.Uint64 // the recorder's newest, as far as it is known

	fences  chan struct{} // holds a token while a fence is asked for
	batches chan *batch
}

func newLink(cfg RecorderConfig, director Config, client client, l *loop, failures *prometheus.CounterVec, log *slog.Logger) *link {
	return &link{
		name: call.RecorderName(cfg.Name), http: client, client: tandemv1connect.NewRecorderServiceClient(client, "http://"+cfg.Address, connect.WithGRPC()),
		right: l.right, group: director.Group, timeout: director.RecorderTimeout.Std(), loop: l, failures: failures, log: log,
		fences: make(chan struct{}, 1), batches: make(chan *batch, 1),
	}
}

// fence asks the link to claim the authority's present epoch.
func (l *link) fence() {
	select {
	case l.fences <- struct{}{}:
	default:
	}
}

// refusal is a recorder's answer to an order it does not obey.
type refusal struct {
	text string
	*tandemv1.Refusal
}

func (r *refusal) Error() string { return r.text }

// run keeps the link until ctx ends: reconnects at once, then backs off. A
// stream that broke is no loss if the recorder answers when asked again at
// once; silence is, for the recorder had its time to speak.
func (l *link) run(ctx context.Context) error {
	defer l.http.CloseIdleConnections()
	pause, patience, start := time.Duration(0), askWait, time.Now()
	for ctx.Err() == nil {
		began := time.Now()
		err := l.session(ctx, patience)
		if ctx.Err() != nil {
			return nil
		}
		l.http.CloseIdleConnections() // the next attempt must not wait for a connection that leads nowhere
		var broken *brokenError
		if errors.As(err, &broken) && time.Since(began) > reconnectMax {
			patience = againWait
			continue
		}
		patience = askWait
		l.lose(err)
		switch {
		case isRefusal(err):
			pause = refusedPause
		case time.Since(began) > reconnectMax:
			pause = 0
		default:
			pause = nextPause(pause, time.Since(start))
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

// nextPause is the one after another attempt that came to nothing, at an age of the link.
func nextPause(last, age time.Duration) time.Duration {
	if age < eager {
		return reconnectMin
	}
	return min(max(2*last, reconnectMin), reconnectMax)
}

// lose tells the loop that the recorder is lost, or obeys another.
func (l *link) lose(err error) {
	heard := l.heard
	if l.until.Before(heard) && !l.until.IsZero() {
		heard = l.until
	}
	l.loop.post(func(now time.Time, f *floor) {
		var no *refusal
		switch {
		case !errors.As(err, &no):
			f.recorderDown(now, l.name, err.Error(), heard)
		case no.GetReason() == tandemv1.Refusal_REASON_WRONG_GROUP:
			f.recorderForeign(now, l.name, no.GetGroup(), heard)
		default:
			f.recorderRefuses(now, l.name, no.text)
		}
	})
}

func isRefusal(err error) bool {
	var no *refusal
	return errors.As(err, &no)
}

// brokenError is the end of a watch that was well until then.
type brokenError struct{ cause error }

func (e *brokenError) Error() string { return e.cause.Error() }
func (e *brokenError) Unwrap() error { return e.cause }

// session is one connection, from the first question, which is answered
// within patience, to the loss.
func (l *link) session(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	inv, err := l.inventory(ctx, patience)
	if err != nil {
		return err
	}
	if inv.GetRecorder() != string(l.name) {
		l.log.Warn("recorder has another name than configured", "recorder", l.name, "own_name", inv.GetRecorder())
	}
	select { // a token from before belongs to a connection that is gone
	case <-l.fences:
	default:
	}
	l.heard, l.until = time.Now(), time.Time{}
	l.nonce.Store(inv.GetNonce())
	l.loop.post(func(now time.Time, f *floor) { f.recorderHeard(now, l.name, inv) })
	if l.loop.outranked == nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.fences:
		}
		if err := l.claim(ctx); err != nil {
			return err
		}
	}
	sending := make(chan struct{})
	go func() {
		defer close(sending)
		l.send(ctx, cancel)
	}()
	err = l.watch(ctx)
	cancel(err)
	<-sending
	return context.Cause(ctx)
}

func (l *link) inventory(ctx context.Context, patience time.Duration) (*tandemv1.Inventory, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	res, err := l.client.Inventory(ctx, connect.NewRequest(&tandemv1.InventoryRequest{Director: l.right.director, Group: l.group}))
	if err != nil {
		return nil, l.failed("inventory", err)
	}
	return res.Msg.GetInventory(), nil
}

// claim fences the recorder with our epoch.
func (l *link) claim(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	return l.ordered(ctx, "fence", true, func(order *tandemv1.Order) error {
		res, err := l.client.Fence(ctx, connect.NewRequest(&tandemv1.FenceRequest{Order: order}))
		if err != nil {
			return err
		}
		l.loop.post(func(now time.Time, f *floor) { f.recorderFenced(now, l.name, order.GetEpoch(), res.Msg.GetInventory()) })
		return nil
	})
}

// freshTries is how often an order is given that comes too late on its way: each
// time with what the recorder has just said is fresh.
const freshTries = 4

// ordered gives one order under the authority of its instant, which is looked
// at right before it is written.
func (l *link) ordered(ctx context.Context, name string, fence bool, give func(*tandemv1.Order) error) error {
	for try := 1; ; try++ {
		order, err := l.right.order(fence)
		if err != nil {
			return err
		}
		if order.GetProfile() != "" {
			order.Sequence, order.Nonce = l.sequence.Add(1), l.nonce.Load()
		}
		err = l.failed(name, give(order))
		var no *refusal
		if !errors.As(err, &no) {
			return err
		}
		switch no.GetReason() {
		case tandemv1.Refusal_REASON_NOT_FRESH, tandemv1.Refusal_REASON_REPEATED:
			l.nonce.Store(no.GetNonce())
			if try < freshTries {
				continue
			}
			return fmt.Errorf("%s: %s", name, no.text)
		case tandemv1.Refusal_REASON_STALE_EPOCH:
			l.overtaken(no.GetEpoch())
		case tandemv1.Refusal_REASON_NO_LEASE:
			if err := l.claim(ctx); err != nil || try == freshTries {
				return fmt.Errorf("%s: %s", name, no.text)
			}
			continue
		}
		return err
	}
}

// overtaken tells of a director with a newer epoch.
func (l *link) overtaken(epoch uint64) {
	if l.loop.outranked != nil {
		l.loop.outranked(epoch)
	}
}

// watch follows the recorder's heartbeats until they stop. On a busy machine
// it may be this director that does not come to read them: a timer that fires
// late says so, and gives the recorder another moment.
func (l *link) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	received := make(chan *tandemv1.WatchResponse)
	ended := make(chan error, 1)
	go func() { ended <- l.receive(ctx, received) }()
	silence := time.NewTimer(l.timeout)
	defer silence.Stop()
	due := time.Now().Add(l.timeout)
	for {
		select {
		case m := <-received:
			l.heard = time.Now()
			due = l.heard.Add(l.timeout)
			silence.Reset(l.timeout)
			if err := l.heartbeat(m); err != nil {
				return err
			}
		case <-l.fences:
			if err := l.claim(ctx); err != nil && !errors.Is(err, errNoAuthority) {
				return err
			}
		case err := <-ended:
			return err
		case now := <-silence.C:
			if late := time.Since(due); late > selfDoubt {
				l.log.Warn("this director was late to look for heartbeats", "recorder", l.name, "late", late)
				due = now.Add(secondLook)
				silence.Reset(secondLook)
				continue
			}
			return fmt.Errorf("no heartbeat for %v", time.Since(l.heard).Round(time.Millisecond))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *link) receive(ctx context.Context, received chan<- *tandemv1.WatchResponse) error {
	stream, err := l.client.Watch(ctx, connect.NewRequest(&tandemv1.WatchRequest{Director: l.right.director, Group: l.group}))
	if err != nil {
		return l.failed("watch", err)
	}
	defer stream.Close()
	for stream.Receive() {
		select {
		case received <- stream.Msg():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := stream.Err(); err != nil {
		if err := l.failed("watch", err); isRefusal(err) {
			return err
		}
		return &brokenError{fmt.Errorf("watch: %w", err)}
	}
	return &brokenError{errors.New("watch: ended by the recorder")}
}

// heartbeat takes in one message of the watch. A newer epoch than ours means
// that another director has the recorder now.
func (l *link) heartbeat(m *tandemv1.WatchResponse) error {
	l.nonce.Store(m.GetNonce())
	if ours := l.right.epoch(); m.GetEpoch() > ours && (ours != 0 || l.loop.outranked == nil) {
		l.overtaken(m.GetEpoch())
		return &refusal{text: fmt.Sprintf("it obeys epoch %d, ours is %d", m.GetEpoch(), ours)}
	}
	if m.GetRecordedUntil() != nil {
		l.until = m.GetRecordedUntil().AsTime()
	}
	l.loop.post(func(now time.Time, f *floor) {
		f.recorderBeats(now, l.name, int(m.GetTalking()))
		if m.GetLoad() != nil {
			f.recorderReports(now, l.name, m.GetLoad())
		}
	})
	return nil
}

// send carries batches; a refusal ends the session.
func (l *link) send(ctx context.Context, end context.CancelCauseFunc) {
	for {
		select {
		case <-ctx.Done():
			return
		case b := <-l.batches:
			err := l.carry(ctx, b)
			l.loop.post(func(now time.Time, f *floor) { f.batchDone(now, f.recorders[l.name], err) })
			var no *refusal
			if errors.As(err, &no) {
				end(err)
				return
			}
			if err != nil && ctx.Err() == nil {
				l.log.Warn("order recorder", "recorder", l.name, "err", err)
			}
		}
	}
}

// carry sends one batch, its parts in their order, each under the authority of its instant.
func (l *link) carry(ctx context.Context, b *batch) error {
	ctx, cancel := context.WithTimeout(ctx, orderWait)
	defer cancel()
	for _, part := range []struct {
		name string
		give func(context.Context, *batch, *tandemv1.Order) error
		has  bool
	}{
		{"drain", l.drain, b.drain != nil},
		{"close_channels", l.closeChannels, b.closing != nil},
		{"open_channels", l.openChannels, b.opening != nil},
		{"update_channels", l.updateChannels, b.updating != nil},
		{"put_records", l.putRecords, b.records != nil},
	} {
		if !part.has {
			continue
		}
		if err := l.ordered(ctx, part.name, false, func(order *tandemv1.Order) error { return part.give(ctx, b, order) }); err != nil {
			return err
		}
	}
	return nil
}

func (l *link) drain(ctx context.Context, b *batch, order *tandemv1.Order) error {
	b.drain.Order = order
	_, err := l.client.Drain(ctx, connect.NewRequest(b.drain))
	return err
}

func (l *link) closeChannels(ctx context.Context, b *batch, order *tandemv1.Order) error {
	b.closing.Order = order
	_, err := l.client.CloseChannels(ctx, connect.NewRequest(b.closing))
	return err
}

func (l *link) openChannels(ctx context.Context, b *batch, order *tandemv1.Order) error {
	b.opening.Order = order
	res, err := l.client.OpenChannels(ctx, connect.NewRequest(b.opening))
	if err != nil {
		return err
	}
	l.loop.post(func(now time.Time, f *floor) { f.batchOpened(now, f.recorders[l.name], res.Msg.GetChannels()) })
	return nil
}

func (l *link) updateChannels(ctx context.Context, b *batch, order *tandemv1.Order) error {
	b.updating.Order = order
	_, err := l.client.UpdateChannels(ctx, connect.NewRequest(b.updating))
	return err
}

func (l *link) putRecords(ctx context.Context, b *batch, order *tandemv1.Order) error {
	b.records.Order = order
	_, err := l.client.PutRecords(ctx, connect.NewRequest(b.records))
	return err
}

// failed counts a failed call and tells a refusal from a failure.
func (l *link) failed(name string, err error) error {
	if err == nil {
		return nil
	}
	l.failures.WithLabelValues(string(l.name), name).Inc()
	if connect.CodeOf(err) == connect.CodeFailedPrecondition {
		return newRefusal(err)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// newRefusal reads the Refusal detail of an error.
func newRefusal(err error) *refusal {
	var failure *connect.Error
	if !errors.As(err, &failure) {
		return &refusal{text: err.Error()}
	}
	for _, d := range failure.Details() {
		value, err := d.Value()
		if err != nil {
			continue
		}
		if r, ok := value.(*tandemv1.Refusal); ok {
			reason := strings.ToLower(strings.TrimPrefix(r.GetReason().String(), "REASON_"))
			return &refusal{fmt.Sprintf("%s: it obeys epoch %d of %q", reason, r.GetEpoch(), r.GetHolder()), r}
		}
	}
	return &refusal{text: failure.Message()}
}
