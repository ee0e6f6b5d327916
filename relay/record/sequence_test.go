package record_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/record"
)

// inSequence puts deliveries into a sequence of one subscription.
func inSequence(sequence string, all ...*delivery.Delivery) []*delivery.Delivery {
	for _, d := range all {
		d.Sequence, d.SubscriptionID = sequence, all[0].SubscriptionID
	}
	return all
}

func woken(d *delivery.Delivery) map[record.Wake]struct{} {
	return map[record.Wake]struct{}{{SubscriptionID: d.SubscriptionID, Sequence: d.Sequence}: {}}
}

// What goes to the queue without an attempt is held, behind what may be there of its sequence; the first one is woken.
func TestSpilledSequenceIsHeld(t *testing.T) {
	f := newFixture(t)
	all := inSequence("key a", f.event(at(0x100, 1), 1)[0], f.event(at(0x100, 2), 1)[0], f.event(at(0x100, 3), 1)[0])
	f.event(at(0x100, 4), 1)
	f.lanes.underWay[all[0]] = true
	f.now = f.now.Add(time.Second)
	b := f.cut(false)
	require.Len(t, b.Puts, 4)
	require.True(t, b.Puts[0].UnderWay)
	require.False(t, b.Puts[0].Held, "it has a lease")
	require.True(t, b.Puts[1].Held)
	require.True(t, b.Puts[2].Held)
	require.False(t, b.Puts[3].Held)
	require.Equal(t, woken(all[0]), b.Wakes)
	require.Equal(t, f.now, b.NextDue(), "one of them may be due")
}

// A failure waits for its time, and is not woken; what ends or is given back wakes its sequence.
func TestWhatWakesASequence(t *testing.T) {
	for name, c := range map[string]struct {
		ends func(f *fixture, d *delivery.Delivery)
		held bool // its row
		wake bool
	}{
		"delivered":  {func(f *fixture, d *delivery.Delivery) { f.finish(delivered, d) }, false, true},
		"failed":     {func(f *fixture, d *delivery.Delivery) { f.finish(failed, d) }, false, false},
		"dead":       {func(f *fixture, d *delivery.Delivery) { d.Round = 1; f.finish(failed, d) }, false, true},
		"broken off": {func(f *fixture, d *delivery.Delivery) { f.finish(stopped, d) }, true, true},
		"released":   {func(f *fixture, d *delivery.Delivery) { f.Released([]*delivery.Delivery{d}) }, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			d := &delivery.Delivery{ID: uuid.New(), SubscriptionID: uuid.New(), Event: &delivery.Event{}, Sequence: "strict", Queued: true}
			c.ends(f, d)
			b := f.cut(false)
			if c.wake {
				require.Equal(t, woken(d), b.Wakes)
			} else {
				require.Empty(t, b.Wakes)
			}
			for _, m := range b.Moves {
				require.Equal(t, c.held, m.Held)
			}
		})
	}
}

// A request that fails as a whole gets one time and one id, which are those of all its deliveries: from memory and
// from the queue. Alone nothing gets one, nor what is not tried again.
func TestFailedRequestIsOne(t *testing.T) {
	f := newFixture(t)
	claimed := &delivery.Delivery{ID: uuid.New(), SubscriptionID: uuid.New(), Event: &delivery.Event{}, Queued: true}
	batch := []*delivery.Delivery{f.event(at(0x100, 1), 1)[0], f.event(at(0x100, 2), 1)[0], claimed}
	require.Equal(t, delivery.Waiting, f.Finished(batch, settings, failed).State)
	alone, last, good := f.event(at(0x100, 3), 1), f.event(at(0x100, 4), 2), f.event(at(0x100, 5), 2)
	last[1].Round = 1 // together they are given up together
	f.Finished(alone, settings, failed)
	require.Equal(t, delivery.Dead, f.Finished(last, settings, failed).State)
	f.Finished(good, settings, delivered)
	b := f.cut(false)

	id := delivery.BatchID([]uuid.UUID{batch[0].ID, batch[1].ID, batch[2].ID})
	require.Len(t, b.Puts, 3)
	require.Len(t, b.Moves, 1)
	require.Equal(t, []uuid.UUID{id, id, id}, []uuid.UUID{b.Puts[0].Batch, b.Puts[1].Batch, b.Moves[0].Batch})
	require.Equal(t, b.Puts[0].At, b.Puts[1].At)
	require.Equal(t, b.Puts[0].At, b.Moves[0].At)
	require.Zero(t, b.Puts[2].Batch)
	require.Len(t, b.Dead, 2)
	require.Len(t, b.Attempts, 3+1+2+2)
}

// Given back, a delivery keeps the request that it failed in.
func TestReleasedDeliveryKeepsItsBatch(t *testing.T) {
	f := newFixture(t)
	d := &delivery.Delivery{ID: uuid.New(), Event: &delivery.Event{}, Batch: uuid.New(), Attempts: 2, Round: 2, Queued: true}
	f.Released([]*delivery.Delivery{d})
	require.Equal(t, []record.Move{{ID: d.ID, At: noon, Batch: d.Batch, Attempts: 2, Round: 2}}, f.cut(false).Moves)
}

// Everything that ended is recorded before a lane that fell behind may trust the queue to be empty.
func TestRecordedThrough(t *testing.T) {
	f := newFixture(t)
	require.Zero(t, f.RecordedThrough())
	f.finish(delivered, f.event(at(0x100, 1), 1)...)
	b := f.Cut(false)
	require.Zero(t, f.RecordedThrough(), "it is not durable yet")
	f.Recorded(b)
	require.Equal(t, at(0x100, 1), f.RecordedThrough())
	f.Released([]*delivery.Delivery{{ID: uuid.New(), Queued: true}})
	f.cut(false)
	require.Equal(t, at(0x100, 1), f.RecordedThrough(), "a batch without a position moves nothing")
}

// sequenced enters a delivery of a subscription's sequence.
func (l *ledger) sequenced(p delivery.Position, subscription uuid.UUID, sequence string) *delivery.Delivery {
	e := &delivery.Event{ID: uuid.New(), Type: "x", Payload: []byte("{}"), CreatedAt: noon, CommittedAt: noon, Position: p}
	d := &delivery.Delivery{ID: delivery.ID(e.ID, subscription), SubscriptionID: subscription, Event: e, Sequence: sequence}
	l.Event(e, []*delivery.Delivery{d})
	return d
}

// row describes a delivery's row: "due", "held", "leased", "later" or "gone".
func (l *ledger) row(d *delivery.Delivery) (state string) {
	l.t.Helper()
	require.NoError(l.t, l.db.QueryRow(l.t.Context(), `SELECT coalesce((SELECT CASE WHEN lease_owner IS NOT NULL THEN 'leased'
		WHEN next_attempt_at = 'infinity' THEN 'held' WHEN next_attempt_at <= now() THEN 'due' ELSE 'later' END
		FROM outbox.deliveries WHERE id = $1), 'gone')`, d.ID).Scan(&state))
	return state
}

func (l *ledger) rows(all []*delivery.Delivery) []string {
	l.t.Helper()
	states := make([]string, len(all))
	for i, d := range all {
		states[i] = l.row(d)
	}
	return states
}

// lease does what a claim does.
func (l *ledger) lease(all ...*delivery.Delivery) {
	l.t.Helper()
	for _, d := range all {
		d.Queued = true
		l.exec("UPDATE outbox.deliveries SET lease_owner = $2, next_attempt_at = now() + interval '1 hour' WHERE id = $1", d.ID, record.Owner("s", 0))
	}
}

// From a spill to the last delivery: in the database the first row of a sequence is due, all others are held, and each
// end makes the next one due. Other subscriptions and sequences are left alone.
func TestSequenceInTheDatabase(t *testing.T) {
	l := newLedger(t)
	one, other := uuid.New(), uuid.New()
	var a, b []*delivery.Delivery
	for i := range uint64(4) {
		a = append(a, l.sequenced(at(0x100, 3*i+1), one, "key a"))
		b = append(b, l.sequenced(at(0x100, 3*i+2), other, "key a"))
		l.Decline(a[i])
		l.Decline(b[i])
	}
	require.NoError(t, l.record())
	require.Equal(t, []string{"due", "held", "held", "held"}, l.rows(a))
	require.Equal(t, 2, l.count("deliveries WHERE next_attempt_at <= now()"))
	l.exec("UPDATE outbox.deliveries SET next_attempt_at = 'infinity' WHERE id = $1", b[0].ID) // shows who wakes what

	l.lease(a[0], a[1])
	l.finish(delivered, a[0])
	require.NoError(t, l.record())
	require.Equal(t, []string{"gone", "leased", "held", "held"}, l.rows(a))
	l.finish(failed, a[1])
	require.NoError(t, l.record())
	require.Equal(t, []string{"gone", "due", "held", "held"}, l.rows(a), "its time, a minute after noon of that day, is over")
	l.exec("UPDATE outbox.deliveries SET next_attempt_at = now() + interval '1 hour' WHERE id = $1", a[1].ID)
	l.lease(a[2])
	l.Released(a[2:3])
	require.NoError(t, l.record())
	require.Equal(t, []string{"gone", "later", "held", "held"}, l.rows(a), "behind one that waits for its time")
	l.lease(a[1])
	a[1].Round = 1
	l.finish(failed, a[1])
	require.NoError(t, l.record())
	require.Equal(t, []string{"gone", "gone", "due", "held"}, l.rows(a), "a dead letter wakes the next one as well")
	require.Equal(t, []string{"held", "held", "held", "held"}, l.rows(b))
}

// A failure from memory comes before what was declined behind it, whichever order they are recorded in.
func TestFailureFromMemoryIsTheHead(t *testing.T) {
	l := newLedger(t)
	s := uuid.New()
	a := []*delivery.Delivery{l.sequenced(at(0x100, 1), s, "key a"), l.sequenced(at(0x100, 2), s, "key a")}
	later := failed
	later.StartedAt = time.Now().Add(time.Hour)
	l.finish(later, a[0])
	l.Decline(a[1])
	require.NoError(t, l.record())
	require.Equal(t, []string{"later", "held"}, l.rows(a))
	require.Equal(t, 1, l.count("deliveries WHERE NOT isfinite(next_attempt_at)"))
}

// Rows of one request have the same id and, to the microsecond, the same time, new or not.
func TestBatchInTheDatabase(t *testing.T) {
	l := newLedger(t)
	old := l.real(at(0x100, 1), 1)
	l.Decline(old[0])
	require.NoError(t, l.record())
	l.lease(old...)
	l.Finished(slices.Concat(old, l.real(at(0x200, 1), 2)), settings, failed)
	require.NoError(t, l.record())
	var rows, requests int
	require.NoError(t, l.db.QueryRow(t.Context(), `SELECT count(*), count(DISTINCT (batch, next_attempt_at)) FROM outbox.deliveries
		WHERE lease_owner IS NULL AND batch IS NOT NULL`).Scan(&rows, &requests))
	require.Equal(t, []int{3, 1}, []int{rows, requests})
}

// Whoever takes over frees the leases of sequences behind their heads, and wakes what a predecessor did not.
func TestTakeOverOfSequences(t *testing.T) {
	l := newLedger(t)
	s := uuid.New()
	var a, b, c []*delivery.Delivery
	for i := range uint64(3) {
		a = append(a, l.sequenced(at(0x100, 3*i+1), s, "key a"))
		b = append(b, l.sequenced(at(0x100, 3*i+2), s, "key b"))
		c = append(c, l.sequenced(at(0x100, 3*i+3), s, "key c"))
		for _, d := range []*delivery.Delivery{a[i], b[i], c[i]} {
			l.Decline(d)
		}
	}
	loose := l.real(at(0x200, 1), 1)
	l.Decline(loose[0])
	require.NoError(t, l.record())
	l.lease(a[0], a[1], loose[0])
	l.exec("UPDATE outbox.deliveries SET next_attempt_at = now() + interval '1 hour' WHERE id = $1", b[0].ID)
	l.exec("DELETE FROM outbox.deliveries WHERE id = $1", c[0].ID)
	conn, err := l.db.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	_, _, err = record.TakeOver(t.Context(), conn.Conn(), "s", record.Relay{}, 1)
	require.NoError(t, err)
	require.Equal(t, []string{"due", "held", "held"}, l.rows(a))
	require.Equal(t, []string{"later", "held", "held"}, l.rows(b), "its head waits for its time")
	require.Equal(t, []string{"gone", "due", "held"}, l.rows(c))
	require.Equal(t, "due", l.row(loose[0]))
}
