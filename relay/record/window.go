// Package record makes positions durable. Window holds what the stream has yielded and is not yet recorded;
// Store writes a prefix of it, with the checkpoint, in one transaction. Only then may Postgres be told.
package record

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/delivery"
)

// Withdrawer gives up deliveries that are about to become queue rows. It reports whether the attempt is
// under way.
type Withdrawer interface {
	Withdraw(d *delivery.Delivery) (underWay bool)
}

// Limits of a Window.
type Limits struct {
	Deliveries int           // unrecorded deliveries
	Bytes      int           // of their events
	SpillAfter time.Duration // age at which an unfinished delivery becomes a queue row
	Urgent     int           // finished deliveries that are worth recording at once
}

// Window is the one rule's keeper:
//
//	A position is confirmed to Postgres only after every delivery at or before it is durably recorded:
//	either its final attempt is in the attempts log, or the delivery is in the queue.
//
// Items enter in commit order. Cut takes the longest prefix in which nothing is unfinished, turning what
// has waited too long into queue rows, and that prefix's end becomes the checkpoint in the same transaction.
// Nothing leaves the window in any other way. Safe for concurrent use.
type Window struct {
	limits Limits
	now    func() time.Time
	lanes  Withdrawer

	mu         sync.Mutex
	items      []item
	first      uint64 // Seq of items[0]
	settled    []settlement
	answered   map[uuid.UUID]struct{} // rows of the queue with an outcome that a claim under way may not know of
	durable    []uuid.UUID            // of answered: recorded since the claim began
	deliveries int                    // unrecorded, the ones being recorded included
	bytes      int
	recorded   delivery.Position // everything through it is durable
	marked     uint64            // the highest mark that has entered
	finished   int               // finished since the last cut
	due        chan struct{}     // something is there to record
	urgent     chan struct{}     // record it now
	room       chan struct{}     // something was recorded
}

type state uint8

const (
	unfinished state = iota
	finished         // outcome and next are set
	declined         // its lane did not take it: it goes to the queue
)

// item is one step of the stream on its way to being recorded. upto is set on the last item of an event, of
// a change and of a transaction: the checkpoint may stand there. So are the events that it ends, by their minute.
type item struct {
	upto     delivery.Position
	confirm  delivery.LSN // of a transaction's end: what Postgres may be told
	through  time.Time    // of a transaction's end: its commit time
	xid      uint64       // see Mark
	minute   int64
	tally    Tally // of events of that minute
	event    *delivery.Event
	change   *delivery.Change
	delivery *delivery.Delivery
	added    time.Time
	state    state
	settlement
}

// settlement is what became of one attempt.
type settlement struct {
	of       *delivery.Delivery
	settings *delivery.Settings
	outcome  delivery.Outcome
	next     delivery.Next
	batch    uuid.UUID // the request, if it failed with several deliveries
	released bool      // a row of the queue that was not attempted
}

// NewWindow returns an empty window. now is the clock, time.Now but in tests.
func NewWindow(l Limits, now func() time.Time) *Window {
	return &Window{limits: l, now: now, first: 1, answered: map[uuid.UUID]struct{}{},
		due: make(chan struct{}, 1), urgent: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// Connect names the lanes. It is called once, before anything else.
func (w *Window) Connect(lanes Withdrawer) { w.lanes = lanes }

// Decline notes that a delivery's lane did not take it.
func (w *Window) Decline(d *delivery.Delivery) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.release(d)
}

// release notes that a delivery will not be attempted now: it goes to the queue, or back to it.
func (w *Window) release(d *delivery.Delivery) {
	if d.Queued { // claimed, or spilled in between as if it were under way
		w.settle(settlement{of: d, released: true})
		return
	}
	w.items[d.Seq-w.first].state = declined
	w.count()
}

// Finished takes the outcome of an attempt, of deliveries from memory or from the queue, and returns what
// follows it. What failed in one request is tried again, or dies, together.
func (w *Window) Finished(batch []*delivery.Delivery, s *delivery.Settings, o delivery.Outcome) delivery.Next {
	furthest := slices.MaxFunc(batch, func(a, b *delivery.Delivery) int { return a.Round - b.Round })
	next := delivery.After(furthest, s, &o, o.StartedAt.Add(o.Duration), rand.Float64())
	id := uuid.Nil
	if len(batch) > 1 && next.State == delivery.Waiting && !fault.Bug(fault.BatchForgotten) {
		ids := make([]uuid.UUID, len(batch))
		for i, d := range batch {
			ids[i] = d.ID
		}
		id = delivery.BatchID(ids)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for n, d := range batch {
		done := settlement{of: d, settings: s, outcome: o, next: next, batch: id}
		if n > 0 && fault.Bug(fault.BatchSplitLost) {
			done.next = delivery.Next{}
		}
		if d.Queued {
			w.settle(done)
		} else {
			i := &w.items[d.Seq-w.first]
			i.state, i.settlement = finished, done
		}
		w.count()
	}
	return next
}

// settle notes what became of a row of the queue.
func (w *Window) settle(s settlement) {
	w.settled = append(w.settled, s)
	w.answered[s.of.ID] = struct{}{}
	signal(w.due)
}

// Released takes deliveries that their lane gave up without an attempt: claimed ones, and others from memory.
func (w *Window) Released(all []*delivery.Delivery) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range all {
		w.release(d)
	}
}

// count notes one more thing to record.
func (w *Window) count() {
	if w.finished++; w.finished >= w.limits.Urgent {
		signal(w.urgent)
	}
}

// Full reports whether the stream must wait: the record step then runs at once.
func (w *Window) Full() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	full := w.deliveries >= w.limits.Deliveries || w.bytes >= w.limits.Bytes || len(w.items) >= 4*w.limits.Deliveries
	if full {
		signal(w.urgent)
	}
	return full
}

// Slack reports whether the window is less than half full: the stream is not being held back.
func (w *Window) Slack() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return 2*w.deliveries < w.limits.Deliveries && 2*w.bytes < w.limits.Bytes
}

// Empty reports whether nothing is unrecorded.
func (w *Window) Empty() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.items) == 0 && len(w.settled) == 0 && w.deliveries == 0
}

// Due is signalled when something is there to record, Urgent when it should be recorded now and Room when
// something has been.
func (w *Window) Due() <-chan struct{} { return w.due }

// Urgent see Due.
func (w *Window) Urgent() <-chan struct{} { return w.urgent }

// Room see Due.
func (w *Window) Room() <-chan struct{} { return w.room }

// Cut takes the longest prefix that can be recorded, together with what became of queued deliveries. With
// all set, unfinished deliveries become queue rows whatever their age, which empties the window.
func (w *Window) Cut(all bool) *Batch {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	n := w.prefix(now, all)
	if fault.Bug(fault.CheckpointMax) {
		n = max(n, w.throughFinished())
	}
	b := newBatch(now, n, len(w.settled))
	for i := range w.items[:n] {
		w.record(b, &w.items[i])
	}
	for i := range w.settled {
		b.settle(&w.settled[i])
		b.settled = append(b.settled, w.settled[i].of.ID)
	}
	rest := copy(w.items, w.items[n:])
	clear(w.items[rest:])
	w.items = w.items[:rest]
	w.first += uint64(n)
	clear(w.settled)
	w.settled = w.settled[:0]
	w.finished = 0
	if rest > 0 {
		signal(w.due)
	}
	return b
}

// prefix counts the items that can be recorded now: up to the last one that the checkpoint may stand on,
// or that bears a mark, before the first one that is neither finished nor old enough to be spilled.
func (w *Window) prefix(now time.Time, all bool) int {
	n := 0
	for i := range w.items {
		it := &w.items[i]
		if it.delivery != nil && it.state == unfinished && !all && now.Sub(it.added) < w.limits.SpillAfter {
			break
		}
		if it.upto != (delivery.Position{}) || it.xid != 0 {
			n = i + 1
		}
	}
	return n
}

// throughFinished is the mistake fault.CheckpointMax: it counts the items through the last finished delivery, up to
// where the checkpoint may stand.
func (w *Window) throughFinished() int {
	n := 0
	for i := len(w.items) - 1; i >= 0; i-- {
		if w.items[i].upto != (delivery.Position{}) {
			n = i + 1
		}
		if w.items[i].state == finished {
			return n
		}
	}
	return 0
}

// record moves one item into the batch.
func (w *Window) record(b *Batch, it *item) {
	switch d := it.delivery; {
	case it.event != nil:
		b.Events = append(b.Events, it.event)
	case it.change != nil:
		b.Changes = append(b.Changes, *it.change)
	case d == nil: // a position only
	case it.state == finished:
		b.first(&it.settlement)
	case it.state == declined:
		b.spill(d, false)
	case fault.Bug(fault.CheckpointMax):
		d.Queued = true // and there is no row
	default:
		b.spill(d, w.lanes.Withdraw(d))
	}
	if it.delivery != nil {
		b.deliveries++
		b.bytes += it.delivery.Event.Size()
	}
	if it.upto != (delivery.Position{}) {
		b.Position = it.upto
	}
	if it.confirm != 0 {
		b.Confirm, b.Through = it.confirm, it.through
	}
	if it.tally.Events > 0 {
		b.count(it.minute, &it.tally)
	}
	b.XID = max(b.XID, it.xid)
}

// Recorded frees the memory of a batch that is durable.
func (w *Window) Recorded(b *Batch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.durable = append(w.durable, b.settled...)
	if b.Position.After(w.recorded) {
		w.recorded = b.Position
	}
	w.deliveries -= b.deliveries
	w.bytes -= b.bytes
	signal(w.room)
}

// RecordedThrough is the last position that was recorded by this window.
func (w *Window) RecordedThrough() delivery.Position {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.recorded
}

// Unfinished counts the deliveries that no attempt has ended for.
func (w *Window) Unfinished() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for i := range w.items {
		if w.items[i].delivery != nil && w.items[i].state == unfinished {
			n++
		}
	}
	return n
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
