package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/dispatch"
	"github.com/walhook/walhook/relay/queue"
	"github.com/walhook/walhook/relay/record"
	"github.com/walhook/walhook/relay/route"
	"github.com/walhook/walhook/relay/stream"
)

// ownership is one epoch of the slot: everything from taking it over to losing it or stopping. What it
// holds in memory is worth nothing to the next one, which derives it again from the database.
type ownership struct {
	relay   *Relay
	options *Options
	log     zerolog.Logger
	epoch   int

	system   string // what the epoch began on
	timeline int
	catalog  atomic.Pointer[string] // the tables and publications that the stream was opened with

	conn      *stream.Conn      // the pump's; nil while there is none
	table     *route.Table      // the pump's
	stuck     *Problem          // the pump's: what the stream cannot get past, if it broke for that
	position  delivery.Position // the pump's: behind the last item that entered the window
	progress  delivery.LSN      // the pump's: the last idle position that entered the window
	progressT time.Time
	held      time.Time       // the pump's: since when the stream is held back by a full window
	late      []delivery.Item // the pump's: changes that fault.ConfigLate holds back
	unmarked  bool            // the pump's: something entered the window since the last mark
	halted    haltLock        // the pump's: held while the stream cannot be opened and only somebody else can mend it
	notBefore time.Time       // until then the queue is served, whatever a recovery could do

	window  *record.Window
	lanes   *dispatch.Dispatcher
	store   *record.Store
	queue   *queue.Queue
	served  uuid.UUID // the claimer's: the last lane that the last claim had something for
	deleted uuid.UUID // the claimer's: the last subscription whose deliveries it cancelled

	mark  atomic.Pointer[mark] // the claimer's for the pump
	hasty atomic.Bool          // the end of this epoch does not wait for the grace period

	confirmed  atomic.Uint64 // what is recorded and may be told to Postgres
	lost       chan struct{} // a connection to Postgres broke: the stream's should be tried as well
	waker      waker         // wakes the claimer
	changed    changedIDs    // subscriptions whose lanes wait for new settings, for the claimer to read
	invalid    findings      // rules that do not compile, for the claimer to write down
	handshakes *handshakes   // for the verifier to perform
	gone       findings      // subscriptions whose receivers want nothing more, likewise
	shed       atomic.Bool   // the next record step turns everything unfinished into queue rows
}

// own takes the slot over and works until ctx ends or the epoch is over. With a problem it begins without the slot,
// which cannot go on, and serves the queue until somebody mends it.
func (r *Relay) own(ctx context.Context, without *Problem) error {
	var o *ownership
	var err error
	if without == nil {
		o, err = r.takeOver(ctx)
	} else {
		o, err = r.takeQueueOver(ctx, without)
	}
	if err != nil && ctx.Err() != nil {
		return nil // stopped before it had anything to lose
	}
	if err != nil {
		return err
	}
	defer o.closeStream() // the pump may have opened another one by then
	defer o.halted.release()
	defer o.store.Close()
	defer r.recording.note(nil) // the next epoch begins without it
	attempts, breakOff := context.WithCancelCause(context.WithoutCancel(ctx))
	defer breakOff(nil)
	o.lanes = dispatch.New(attempts, dispatch.Options{MaxSenders: r.options.MaxSenders,
		MaxClaimedBytes: r.options.MaxUnrecordedBytes, Hungry: o.waker.wake}, r.sender, o)
	o.window.Connect(o.lanes)
	r.lanes.Store(o.lanes)
	if without == nil {
		r.become(Running, nil)
	} else {
		r.become(Halted, without)
	}
	fault.Point(fault.TakeoverReady)

	work, stop := context.WithCancel(ctx)
	defer stop()
	recording, endRecording := context.WithCancelCause(context.WithoutCancel(ctx))
	defer endRecording(nil)
	recorded := make(chan struct{}) // closed when the last batch is durable

	var g errgroup.Group
	run := func(name string, f func() error) {
		g.Go(func() error {
			defer stop() // one ends, all end
			if err := f(); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	settings := make(chan struct{}) // closed when the lanes are known
	run("claim", func() error { return o.claim(work, settings) })
	run("verify", func() error { o.handshakes.run(work); return nil })
	run("replay", func() error { return o.replay(work) })
	run("stream", func() error {
		select {
		case <-settings:
		case <-work.Done():
		}
		return o.pump(work, recorded)
	})
	run("record", func() error {
		defer close(recorded)
		return o.record(work, recording, breakOff)
	})
	// A Postgres that stays away must not keep the relay from stopping: what is not recorded comes again.
	defer context.AfterFunc(work, func() {
		time.AfterFunc(2*r.options.GracePeriod+2*time.Second, func() { endRecording(errors.New("the relay stopped and Postgres did not answer")) })
	})()
	return g.Wait()
}

// closeStream ends the stream, if there is one.
func (o *ownership) closeStream() {
	if o.conn != nil {
		o.conn.Close()
		o.conn = nil
	}
}

// drain ends the lanes: attempts under way have the grace period, then they are broken off. Where the stream has to
// begin anew nobody waits longer than a delivery may grow old.
func (o *ownership) drain(breakOff context.CancelCauseFunc) {
	grace := o.options.GracePeriod
	if o.hasty.Load() {
		grace = min(grace, o.options.SpillAfter)
	}
	t := time.AfterFunc(grace, func() { breakOff(errors.New("the relay stopped and the grace period is over")) })
	defer t.Stop()
	o.lanes.Stop()
}

// ownership makes everything that an epoch needs. Without conn it begins without a stream.
func (r *Relay) ownership(conn *stream.Conn, c record.Checkpoint, rules []delivery.Rule) *ownership {
	owner := record.Owner(r.options.Slot, c.Epoch)
	o := &ownership{
		relay: r, options: &r.options, epoch: c.Epoch, conn: conn, table: route.New(), position: c.Position, progress: c.Confirmed,
		system: c.System, timeline: c.Timeline, unmarked: true,
		log:   r.log.With().Int("epoch", c.Epoch).Logger(),
		queue: &queue.Queue{Slot: r.options.Slot, Epoch: c.Epoch, Owner: owner},
		lost:  make(chan struct{}, 1),
	}
	o.handshakes = newHandshakes(r.sender.Verify, o.waker.wake)
	o.confirmed.Store(uint64(c.Confirmed))
	for _, rule := range rules {
		o.put(rule)
	}
	o.window = record.NewWindow(record.Limits{Deliveries: r.options.MaxUnrecorded, Bytes: r.options.MaxUnrecordedBytes,
		SpillAfter: r.options.SpillAfter, Urgent: r.options.MaxUnrecorded / 4}, time.Now)
	o.store = record.NewStore(record.Options{Slot: r.options.Slot, Owner: owner, Epoch: c.Epoch, Batch: c.Batch, System: c.System, Timeline: c.Timeline, Trouble: o.recording,
		Log: o.log.With().Str("part", "record").Logger()}, func(ctx context.Context) (*pgx.Conn, error) { return connect(ctx, r.options.URL) })
	r.pulse.reset(time.Now())
	o.log.Info().Stringer("position", c.Position).Int("subscriptions", len(rules)).Bool("stream", conn != nil).Msg("slot taken over")
	return o
}

// Finished takes the outcome of an attempt.
func (o *ownership) Finished(batch []*delivery.Delivery, s *delivery.Settings, outcome delivery.Outcome) (over bool) {
	next := o.window.Finished(batch, s, outcome)
	if outcome.Counts() {
		for _, d := range batch {
			o.relay.observer.Attempt(s, &outcome, next.State, time.Since(d.Event.CommittedAt))
		}
	}
	if outcome.Gone {
		o.retire(s)
		o.changed.add(s.SubscriptionID) // it may be deleted by now, and then it has no lane: what waits for it is cancelled
		o.waker.wake()
	}
	return next.State != delivery.Waiting
}

// Released takes back deliveries that were not attempted.
func (o *ownership) Released(all []*delivery.Delivery) { o.window.Released(all) }

// put brings a rule into the routing view. One that does not compile disables its subscription, visibly.
func (o *ownership) put(rule delivery.Rule) {
	if err := o.table.Put(rule); err != nil {
		o.found(finding{id: rule.SubscriptionID, revision: rule.Revision, reason: o.table.Invalid()[rule.SubscriptionID], streamed: true})
	}
}

// found says once that a subscription is invalid, and has the claimer write it down.
func (o *ownership) found(f finding) {
	if !o.invalid.add(f) {
		return
	}
	if f.reason == "" {
		o.log.Info().Stringer("subscription", f.id).Msg("subscription is valid again")
	} else {
		o.log.Error().Str("reason", f.reason).Stringer("subscription", f.id).Msg("subscription is invalid and disabled")
	}
	o.waker.wake()
}

// reset asks the pump to try its connection anew: another connection broke, and a Postgres that is shutting
// down waits for its last walsender.
func (o *ownership) reset() {
	select {
	case o.lost <- struct{}{}:
	default:
	}
}

// finding is a rule that does not compile, or settings that cannot be used.
type finding struct {
	id       uuid.UUID
	revision int64
	reason   string
	streamed bool // found in a rule from the stream, which may be ahead of the row that others see
}

// changedIDs collects subscriptions.
type changedIDs struct {
	mu  sync.Mutex
	all []uuid.UUID
}

func (c *changedIDs) add(id uuid.UUID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, id)
}

func (c *changedIDs) take() []uuid.UUID {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.all
	c.all = nil
	return all
}

type findings struct {
	mu    sync.Mutex
	all   []finding
	known map[uuid.UUID]finding // reported: writing a finding down comes back as a change
}

// add reports whether the finding is news.
func (f *findings) add(n finding) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if known := f.known[n.id]; known.revision == n.revision && (n.reason == "") == (known.reason == "") {
		return false
	}
	if f.known == nil {
		f.known = map[uuid.UUID]finding{}
	}
	f.known[n.id] = n
	f.all = append(f.all, n)
	return true
}

// back keeps what could not be written down for the next try, unless it has been superseded or forgotten.
func (f *findings) back(rest []finding) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range rest {
		if known, ok := f.known[n.id]; ok && known.revision <= n.revision {
			f.all = append(f.all, n)
		}
	}
}

// forget drops what was found of a subscription that is gone.
func (f *findings) forget(id uuid.UUID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.known, id)
	f.all = slices.DeleteFunc(f.all, func(n finding) bool { return n.id == id })
}

func (f *findings) take() []finding {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.all
	f.all = nil
	return all
}

// waker breaks a wait off. A wake before the wait counts.
type waker struct {
	mu     sync.Mutex
	woken  bool
	cancel context.CancelFunc
}

func (w *waker) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.woken = true
	if w.cancel != nil {
		w.cancel()
	}
}

// until returns a context that ends at the given time or when somebody wakes.
func (w *waker) until(ctx context.Context, at time.Time) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithDeadline(ctx, at)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.woken {
		cancel()
	}
	w.woken, w.cancel = false, cancel
	return ctx, cancel
}
