package relay

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/stream"
)

// pump owns the stream: it routes what comes, offers it to the lanes, and confirms what is recorded. It
// never waits for a receiver: when the window is full it waits for the record step, answering the server
// all the while. When ctx ends it keeps the link alive until the last batch is recorded and confirms that.
func (o *ownership) pump(ctx context.Context, recorded <-chan struct{}) error {
	for ctx.Err() == nil {
		if o.conn != nil { // an epoch may begin without a stream
			err := o.flow(ctx)
			if ctx.Err() != nil {
				break
			}
			o.relay.become(Reconnecting, err)
			o.stuck = stuckAt(err, o.options.Slot)
			o.closeStream()
		}
		if err := o.reconnect(ctx); err != nil {
			return err // there is no link left to keep alive
		}
		if ctx.Err() == nil {
			o.relay.become(Running, nil)
		}
	}
	if o.conn == nil {
		<-recorded
		return nil
	}
	for {
		select {
		case <-recorded:
			o.conn.Confirm(delivery.LSN(o.confirmed.Load()))
			return nil // Close tells the server
		case <-time.After(time.Until(o.conn.StatusDue())):
			if o.conn.Tick() != nil {
				<-recorded
				return nil // the checkpoint holds the position; the next relay starts from it
			}
		}
	}
}

// flow reads until the stream breaks or ctx ends.
func (o *ownership) flow(ctx context.Context) error {
	const wait = 200 * time.Millisecond
	for ctx.Err() == nil {
		select {
		case <-o.lost:
			return fmt.Errorf("another connection to Postgres broke")
		default:
		}
		pending := !o.window.Empty()
		o.conn.Confirm(delivery.LSN(o.confirmed.Load()))
		within := wait
		if pending {
			within = wait / 10 // to confirm soon what is being recorded
		}
		batch, err := o.conn.Receive(within)
		if err != nil {
			return err
		}
		o.felt(&batch)
		for i := range batch.Items {
			if err := o.room(ctx); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return nil // what did not enter the window comes again
			}
			o.enter(&batch.Items[i])
		}
		o.idle(&batch)
	}
	return nil
}

// heldBack is how long full lanes may hold back the stream before what they hold goes to the queue.
const heldBack = 30 * time.Second

// room waits until the window has room, keeping the link alive. Receivers that are only a little too slow
// never let a delivery grow old enough to be spilled, and yet the WAL would pile up: when the stream has
// waited at every turn for long enough, everything unfinished goes to the queue.
func (o *ownership) room(ctx context.Context) error {
	if !o.window.Full() {
		if o.window.Slack() {
			o.held = time.Time{}
		}
		return nil
	}
	if o.held.IsZero() {
		o.held = time.Now()
	}
	if time.Since(o.held) > heldBack {
		o.held = time.Time{}
		o.shed.Store(true)
	}
	for o.window.Full() {
		select {
		case <-o.window.Room():
		case <-time.After(time.Until(o.conn.StatusDue())):
		case <-ctx.Done():
			return nil
		}
		o.conn.Confirm(delivery.LSN(o.confirmed.Load()))
		if err := o.conn.Tick(); err != nil {
			return err
		}
	}
	return nil
}

// enter brings one item into the window and its deliveries to the lanes.
func (o *ownership) enter(item *delivery.Item) {
	switch {
	case item.Event != nil:
		o.route(item.Event)
	case item.Change != nil:
		if fault.Bug(fault.ConfigLate) {
			o.late = append(o.late, *item)
		} else {
			o.change(item.Change)
		}
		fault.Point(fault.RouteChanged)
		o.window.Change(item.Position, item.Change)
	default:
		if fault.Bug(fault.ConfigLate) {
			o.changeLate()
		}
		if fault.Bug(fault.ConfirmEarly) {
			o.confirmed.Store(uint64(item.Position.LSN))
		}
		o.window.End(item.Position, item.CommittedAt)
		o.progress, o.unmarked = item.Position.LSN, true
		o.pass(item.Position.LSN)
	}
	o.position = item.Position
}

// pass notes in the window that the stream has reached the claimer's mark, if it has: everything that was committed
// before it has entered.
func (o *ownership) pass(reached delivery.LSN) {
	if m := o.mark.Load(); m != nil && reached >= m.at {
		o.window.Mark(reached, m.xid)
		o.mark.Store(nil)
		o.unmarked = false
	}
}

// change applies a change of a subscription to the rules.
func (o *ownership) change(c *delivery.Change) {
	if c.Deleted {
		o.table.Delete(c.Rule.SubscriptionID)
		o.invalid.forget(c.Rule.SubscriptionID)
		return
	}
	o.put(c.Rule)
	// An event behind the change is not sent as it was before it, however fast the stream is.
	if !o.lanes.Expect(c.Rule.SubscriptionID, c.Rule.Revision) {
		o.changed.add(c.Rule.SubscriptionID)
		o.waker.wake()
	}
}

// changeLate is the mistake fault.ConfigLate: at the end of a transaction it applies what earlier ones changed.
func (o *ownership) changeLate() {
	for len(o.late) > 0 && o.late[0].Position.LSN < o.progress {
		o.change(o.late[0].Change)
		o.late = o.late[1:]
	}
}

func (o *ownership) route(e *delivery.Event) {
	o.relay.observer.Event()
	if fault.Bug(fault.EventSkipped) && e.ID[15]%32 == 0 {
		return
	}
	var few [8]uuid.UUID
	ids := o.table.Match(few[:0], e)
	deliveries := make([]delivery.Delivery, len(ids))
	pointers := make([]*delivery.Delivery, len(ids))
	for i, id := range ids {
		deliveries[i] = delivery.Delivery{ID: delivery.ID(e.ID, id), SubscriptionID: id, Event: e, Sequence: o.table.Ordering(id).Sequence(e)}
		if fault.Bug(fault.OrderIgnored) {
			deliveries[i].Sequence = ""
		}
		pointers[i] = &deliveries[i]
	}
	fault.Point(fault.RouteMatched)
	o.window.Event(e, pointers)
	fault.Point(fault.PumpEntered)
	for _, d := range pointers {
		if !o.lanes.Offer(d) {
			o.window.Decline(d)
		}
	}
	fault.Point(fault.PumpOffered)
}

// idle lets the slot move through WAL that holds nothing of ours, when everything received is recorded. It
// is recorded first, like any other position. Small steps are not worth a transaction, whose own WAL the
// slot reads past as well, unless the server waits for us.
func (o *ownership) idle(b *stream.Batch) {
	if b.Idle <= o.progress || !o.window.Empty() {
		return
	}
	moved, since := b.Idle-o.progress, time.Since(o.progressT)
	if b.Urgent || moved >= 16<<20 || moved >= 1<<20 && since >= time.Second || moved >= 16<<10 && since >= 10*time.Second {
		o.window.End(delivery.Position{LSN: b.Idle}, time.Time{})
		o.progress, o.progressT, o.position = b.Idle, time.Now(), delivery.Position{LSN: b.Idle}
		o.pass(b.Idle)
	} else if o.unmarked {
		o.pass(b.Idle) // once: a mark by itself makes a record transaction, whose own WAL must not ask for another
	}
}
