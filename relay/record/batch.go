package record

import (
	"math/bits"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/delivery"
)

// Attempt is a row of the attempts log.
type Attempt struct {
	Delivery *delivery.Delivery
	Revision int64
	Number   int // from 1
	Outcome  delivery.Outcome
}

// Put is a new queue row.
type Put struct {
	Delivery *delivery.Delivery
	At       time.Time // of the next attempt; with UnderWay, when the lease ends
	UnderWay bool
	Held     bool              // behind an earlier delivery of its sequence, if there is one: At does not count
	Batch    uuid.UUID         // the request in which it failed with others; the zero id if there is none
	Last     *delivery.Outcome // of the attempt just recorded, nil when there was none
	attempts int
	round    int
}

// Move is an existing queue row that waits on.
type Move struct {
	ID              uuid.UUID
	At              time.Time
	Held            bool      // see Put
	Batch           uuid.UUID // of Last: see Put
	Attempts, Round int
	Last            *delivery.Outcome // nil: released, nothing was attempted
}

// Wake names a sequence whose first row in the queue must not be held any more.
type Wake struct {
	SubscriptionID uuid.UUID
	Sequence       string
}

// Total is what a batch adds to a subscription's statistics.
type Total struct {
	Attempts, Succeeded, Failed, Delivered int64
	Timeouts                               int64 // of Failed
	Microseconds                           int64
	Latency                                [latencyBuckets]int64
	LagMicroseconds                        int64 // from the events' commits to the ends of the attempts, of Delivered
	Lag                                    [latencyBuckets]int64
	Streak                                 int64 // failures at the end of the batch
	Broken                                 bool  // a success came before them: the streak begins anew
	Last                                   time.Time
}

// latencyBuckets counts attempts of at most 1, 2, 4 … 2^18 ms, and the rest.
const latencyBuckets = 20

// Batch is what one record transaction writes. It does not change once cut, but that repeated ids may be
// dropped, and is written until it is durable or its epoch is over.
type Batch struct {
	Now      time.Time
	Position delivery.Position // the new checkpoint; the zero position leaves it
	Confirm  delivery.LSN      // what Postgres may be told afterwards; 0 leaves it
	Through  time.Time         // everything committed up to this moment is recorded
	XID      uint64            // every transaction with a smaller id has ended and is recorded; 0 leaves it

	Attempts []Attempt
	Puts     []Put
	Moves    []Move
	Deletes  []uuid.UUID
	Dead     []Put
	Events   []*delivery.Event
	Changes  []delivery.Change
	Totals   map[uuid.UUID]*Total
	Tallies  map[int64]*Tally // by the minute of the events' created_at, in seconds since 1970
	Wakes    map[Wake]struct{}
	Spilled  int // of Puts: deliveries that are not finished

	settled           []uuid.UUID // rows of the queue that it settles
	deliveries, bytes int
	minute            int64  // of counted
	counted           *Tally // the last one that was added to
}

func newBatch(now time.Time, items, settled int) *Batch {
	return &Batch{Now: now, Attempts: make([]Attempt, 0, items+settled), Totals: map[uuid.UUID]*Total{}, Wakes: map[Wake]struct{}{}}
}

// Empty reports whether there is nothing to write.
func (b *Batch) Empty() bool {
	return b.Position == (delivery.Position{}) && b.XID == 0 && len(b.Attempts)+len(b.Moves)+len(b.Deletes) == 0
}

// dropRepeats leaves the last of the rows that have the same id. Applications may repeat the id of an event,
// where the earlier row is gone or in logical messages of their own: then so do its deliveries, which are one
// and the same to their receivers.
func (b *Batch) dropRepeats() {
	id := func(p Put) uuid.UUID { return p.Delivery.ID }
	b.Puts, b.Dead = lastOfEach(b.Puts, id), lastOfEach(b.Dead, id)
	b.Events = lastOfEach(b.Events, func(e *delivery.Event) uuid.UUID { return e.ID })
}

func lastOfEach[T any](rows []T, id func(T) uuid.UUID) []T {
	last := make(map[uuid.UUID]int, len(rows))
	for i, r := range rows {
		last[id(r)] = i
	}
	kept := make([]T, 0, len(last))
	for i, r := range rows {
		if last[id(r)] == i {
			kept = append(kept, r)
		}
	}
	return kept
}

// NextDue is when the first of the deliveries that this batch makes wait is due; the zero time if none is.
func (b *Batch) NextDue() time.Time {
	var first time.Time
	earlier := func(t time.Time) {
		if first.IsZero() || t.Before(first) {
			first = t
		}
	}
	if len(b.Wakes) > 0 {
		return b.Now
	}
	for i := range b.Puts {
		if !b.Puts[i].UnderWay {
			earlier(b.Puts[i].At)
		}
	}
	for i := range b.Moves {
		earlier(b.Moves[i].At)
	}
	return first
}

// first records the outcome of an attempt made from memory.
func (b *Batch) first(s *settlement) {
	if !s.outcome.Counts() {
		b.spill(s.of, false)
		return
	}
	number, outcome := b.attempt(s), s.outcome // s lies in the window, which goes on while the batch is written
	put := Put{Delivery: s.of, At: s.next.At, Batch: s.batch, Last: &outcome, attempts: number, round: s.of.Round + 1}
	switch s.next.State {
	case delivery.Waiting:
		if fault.Bug(fault.RetryNewID) {
			renamed := *s.of
			renamed.ID, put.Delivery = uuid.New(), &renamed
		}
		b.Puts = append(b.Puts, put)
	case delivery.Dead:
		b.bury(put)
	}
}

// settle records what became of a delivery that has a row in the queue.
func (b *Batch) settle(s *settlement) {
	d := s.of
	if s.released || !s.outcome.Counts() {
		b.Moves = append(b.Moves, Move{ID: d.ID, At: b.Now, Held: d.Sequence != "", Batch: d.Batch, Attempts: d.Attempts, Round: d.Round})
		b.wake(d)
		return
	}
	number, round := b.attempt(s), d.Round+1
	outcome := s.outcome
	switch s.next.State {
	case delivery.Delivered:
		b.Deletes = append(b.Deletes, d.ID)
		b.wake(d)
	case delivery.Waiting:
		b.Moves = append(b.Moves, Move{ID: d.ID, At: s.next.At, Batch: s.batch, Attempts: number, Round: round, Last: &outcome})
	case delivery.Dead:
		b.Deletes = append(b.Deletes, d.ID)
		b.wake(d)
		b.bury(Put{Delivery: d, Last: &outcome, attempts: number, round: round})
	}
}

// bury makes a dead letter.
func (b *Batch) bury(p Put) {
	if fault.Bug(fault.DeadLetterForgotten) {
		return
	}
	b.Dead = append(b.Dead, p)
}

// spill makes a queue row of a delivery that is not finished. One whose attempt is under way is leased until
// the attempt must have ended; what becomes of it settles the row.
func (b *Batch) spill(d *delivery.Delivery, underWay bool) {
	d.Queued = true
	if fault.Bug(fault.SpillForgotten) {
		return
	}
	b.Spilled++
	b.Puts = append(b.Puts, Put{Delivery: d, At: b.Now, UnderWay: underWay, Held: !underWay && d.Sequence != "", attempts: d.Attempts, round: d.Round})
	if !underWay {
		b.wake(d)
	}
}

// wake notes that another row may now be the first of the delivery's sequence.
func (b *Batch) wake(d *delivery.Delivery) {
	if d.Sequence != "" {
		b.Wakes[Wake{d.SubscriptionID, d.Sequence}] = struct{}{}
	}
}

// attempt appends a row to the log and to the statistics, and returns the attempt's number.
func (b *Batch) attempt(s *settlement) int {
	number := s.of.Attempts + 1
	b.Attempts = append(b.Attempts, Attempt{Delivery: s.of, Revision: s.settings.Revision, Number: number, Outcome: s.outcome})
	t := b.Totals[s.of.SubscriptionID]
	if t == nil {
		t = &Total{}
		b.Totals[s.of.SubscriptionID] = t
	}
	t.add(&s.outcome, s.of.Event.CommittedAt)
	return number
}

// add counts an attempt, for an event that was committed at the given time.
func (t *Total) add(o *delivery.Outcome, committed time.Time) {
	t.Attempts++
	t.Microseconds += o.Duration.Microseconds()
	t.Latency[latencyBucket(o.Duration)]++
	if o.StartedAt.After(t.Last) {
		t.Last = o.StartedAt
	}
	if o.Succeeded() {
		t.Succeeded++
		t.Delivered++
		t.Streak, t.Broken = 0, true
		lag := max(o.StartedAt.Add(o.Duration).Sub(committed), 0) // the database's clock may be ahead of ours
		t.LagMicroseconds += lag.Microseconds()
		t.Lag[latencyBucket(lag)]++
		return
	}
	t.Failed++
	if o.Reason == delivery.ReasonTimeout {
		t.Timeouts++
	}
	t.Streak++
}

// latencyBucket is the index of the first bucket whose bound, 2^i ms, is not below d.
func latencyBucket(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 0))
	ms := (us + 999) / 1000
	if ms <= 1 {
		return 0
	}
	return min(bits.Len64(ms-1), latencyBuckets-1)
}
