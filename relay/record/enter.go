package record

import (
	"time"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/delivery"
)

// Event enters an event with the deliveries made of it; they get their places. An event that nobody
// subscribes to has none.
func (w *Window) Event(e *delivery.Event, deliveries []*delivery.Delivery) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	if e.Emitted {
		w.push(item{event: e})
	}
	for _, d := range deliveries {
		d.Seq = w.first + uint64(len(w.items))
		w.push(item{delivery: d, added: now})
		w.deliveries++
		w.bytes += d.Event.Size()
	}
	w.reach(item{upto: e.Position, minute: minuteOf(e.CreatedAt), tally: tallyOf(e, len(deliveries))})
}

// Change enters a change of the routing view, already applied by the router.
func (w *Window) Change(at delivery.Position, c *delivery.Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.push(item{change: c, upto: at})
}

// End enters the end of a transaction.
func (w *Window) End(at delivery.Position, committed time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	confirm := at.LSN
	if fault.Bug(fault.ConfirmPlusOne) {
		confirm++
	}
	w.reach(item{upto: at, confirm: confirm, through: committed})
}

// Mark enters the knowledge that every transaction with a smaller id than xid has ended, which was true when the WAL
// ended at the given position. It is called in the order of the stream, once the stream has come that far: whatever
// those transactions published has entered then, and the mark is recorded with the last of it, or after it. A mark says
// something only if it is higher than those before it.
func (w *Window) Mark(_ delivery.LSN, xid uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if xid > w.marked {
		w.marked = xid
		w.reach(item{xid: xid})
	}
}

// push appends an item and says so.
func (w *Window) push(i item) {
	w.items = append(w.items, i)
	signal(w.due)
}

// reach notes a position or a mark that stands behind all items: on the last one, or on an item of its own if there is
// none, or if both end events and these are of different minutes.
func (w *Window) reach(i item) {
	n := len(w.items)
	if n == 0 {
		w.push(i)
		return
	}
	last := &w.items[n-1]
	if last.tally.Events > 0 && i.tally.Events > 0 && last.minute != i.minute {
		w.push(i)
		return
	}
	if i.tally.Events > 0 {
		last.minute = i.minute
		last.tally.add(&i.tally)
	}
	if i.upto != (delivery.Position{}) {
		last.upto = i.upto
	}
	if i.confirm != 0 {
		last.confirm, last.through = i.confirm, i.through
	}
	last.xid = max(last.xid, i.xid)
}
