package record_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/record"
)

var (
	noon     = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	settings = &delivery.Settings{MaxRetries: 1, RetryDelay: time.Minute, Revision: 5}

	delivered = delivery.Outcome{Status: 200, StartedAt: noon, Duration: 30 * time.Millisecond}
	failed    = delivery.Outcome{Reason: delivery.ReasonStatus, Status: 500, Error: "HTTP 500", StartedAt: noon, Duration: 30 * time.Millisecond}
	stopped   = delivery.Outcome{Reason: delivery.ReasonStopped, StartedAt: noon}
)

// lanes withdraws what it is asked to; those in underWay are being attempted.
type lanes struct{ underWay map[*delivery.Delivery]bool }

func (l *lanes) Withdraw(d *delivery.Delivery) bool { return l.underWay[d] }

// fixture is a window with a clock that stands until it is moved.
type fixture struct {
	*record.Window
	t     *testing.T
	now   time.Time
	lanes lanes
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{t: t, now: noon, lanes: lanes{map[*delivery.Delivery]bool{}}}
	f.Window = record.NewWindow(record.Limits{Deliveries: 10, Bytes: 100_000, SpillAfter: time.Second, Urgent: 3}, func() time.Time { return f.now })
	f.Connect(&f.lanes)
	return f
}

// at is the place of an event or a change in the transaction whose commit record begins at lsn.
func at(lsn delivery.LSN, index uint64) delivery.Position {
	return delivery.Position{LSN: lsn, Index: index}
}

// event enters an event for n subscriptions and returns its deliveries.
func (f *fixture) event(p delivery.Position, n int) []*delivery.Delivery {
	return f.enter(&delivery.Event{ID: uuid.New(), Position: p}, n)
}

func (f *fixture) enter(e *delivery.Event, n int) []*delivery.Delivery {
	all := make([]*delivery.Delivery, n)
	for i := range all {
		s := uuid.New()
		all[i] = &delivery.Delivery{ID: delivery.ID(e.ID, s), SubscriptionID: s, Event: e}
	}
	f.Event(e, all)
	return all
}

// end ends the transaction that began its commit record at lsn.
func (f *fixture) end(lsn delivery.LSN) { f.End(delivery.Position{LSN: lsn + 0x30}, noon) }

func (f *fixture) finish(o delivery.Outcome, all ...*delivery.Delivery) {
	for _, d := range all {
		f.Finished([]*delivery.Delivery{d}, settings, o)
	}
}

// cut records: it returns the batch after it became durable.
func (f *fixture) cut(all bool) *record.Batch {
	b := f.Cut(all)
	f.Recorded(b)
	return b
}

// The one rule: the checkpoint is the end of the longest prefix in which nothing is unfinished.
func TestCheckpointStandsBeforeTheFirstUnfinishedDelivery(t *testing.T) {
	f := newFixture(t)
	a, b := f.event(at(0x100, 1), 1), f.event(at(0x100, 2), 2)
	f.end(0x100)
	c := f.event(at(0x200, 1), 1)
	f.end(0x200)

	require.True(t, f.cut(false).Empty(), "nothing is finished")
	f.finish(delivered, c[0], a[0])
	first := f.cut(false)
	require.Equal(t, at(0x100, 1), first.Position)
	require.Zero(t, first.Confirm, "in the middle of a transaction")
	require.Len(t, first.Attempts, 1, "what lies behind the checkpoint is not recorded either")

	f.finish(delivered, b[1])
	require.True(t, f.cut(false).Empty(), "one of the event's two deliveries is unfinished")
	f.finish(delivered, b[0])
	second := f.cut(false)
	require.Equal(t, delivery.Position{LSN: 0x230}, second.Position)
	require.Equal(t, delivery.LSN(0x230), second.Confirm)
	require.Equal(t, noon, second.Through)
	require.Len(t, second.Attempts, 3)
	require.True(t, f.Empty())
}

// Only whole transactions are confirmed to Postgres; a piece of the next one moves the checkpoint alone.
func TestConfirmIsTheEndOfTheLastWholeTransaction(t *testing.T) {
	f := newFixture(t)
	f.event(at(0x100, 1), 0)
	f.end(0x100)
	f.event(at(0x200, 1), 0)
	b := f.cut(false)
	require.Equal(t, at(0x200, 1), b.Position)
	require.Equal(t, delivery.LSN(0x130), b.Confirm)
	f.end(0x200)
	b = f.cut(false)
	require.Equal(t, delivery.Position{LSN: 0x230}, b.Position)
	require.Equal(t, delivery.LSN(0x230), b.Confirm)
}

// The routing view is stored as of the checkpoint: a change is recorded with what lies before it, not sooner.
func TestChangesAreRecordedInTheirPlace(t *testing.T) {
	f := newFixture(t)
	d := f.event(at(0x100, 1), 1)
	change := delivery.Change{Rule: delivery.Rule{SubscriptionID: uuid.New(), Revision: 9}}
	f.Change(at(0x100, 2), &change)
	f.event(at(0x100, 3), 0)
	require.True(t, f.cut(false).Empty())
	f.finish(delivered, d...)
	b := f.cut(false)
	require.Equal(t, []delivery.Change{change}, b.Changes)
	require.Equal(t, at(0x100, 3), b.Position)
}

// An emitted event has no row of its own: it is kept in the transaction that passes its position.
func TestEmittedEventsAreRecordedInTheirPlace(t *testing.T) {
	f := newFixture(t)
	e, lonely := &delivery.Event{Emitted: true, Position: at(0x100, 1)}, &delivery.Event{Emitted: true, Position: at(0x100, 2)}
	d := f.enter(e, 2)
	f.enter(lonely, 0)
	f.finish(delivered, d[1])
	require.True(t, f.cut(false).Empty())
	f.finish(delivered, d[0])
	b := f.cut(false)
	require.Equal(t, []*delivery.Event{e, lonely}, b.Events)
	require.Equal(t, at(0x100, 2), b.Position)
}

// A slow receiver costs a queue row, never WAL.
func TestWhatWaitsTooLongBecomesAQueueRow(t *testing.T) {
	f := newFixture(t)
	slow, waiting := f.event(at(0x100, 1), 1)[0], f.event(at(0x100, 2), 1)[0]
	f.end(0x100)
	f.lanes.underWay[slow] = true
	f.now = f.now.Add(999 * time.Millisecond)
	young := f.event(at(0x200, 1), 1)[0]
	require.True(t, f.cut(false).Empty(), "not a second yet")
	require.Equal(t, 3, f.Unfinished())

	f.now = f.now.Add(time.Millisecond)
	b := f.cut(false)
	require.Equal(t, delivery.Position{LSN: 0x130}, b.Position)
	require.Empty(t, b.Attempts)
	require.Len(t, b.Puts, 2)
	require.Equal(t, 2, b.Spilled)
	require.Equal(t, record.Put{Delivery: slow, At: f.now, UnderWay: true}, plain(b.Puts[0]), "leased until its attempt has ended")
	require.Equal(t, record.Put{Delivery: waiting, At: f.now}, plain(b.Puts[1]), "due at once")
	require.True(t, slow.Queued)
	require.True(t, waiting.Queued)
	require.False(t, young.Queued)
	require.Equal(t, f.now, b.NextDue(), "somebody must claim the one that waits")
}

// plain leaves out what only the store looks at.
func plain(p record.Put) record.Put {
	return record.Put{Delivery: p.Delivery, At: p.At, UnderWay: p.UnderWay, Last: p.Last}
}

// What ends after its delivery became a queue row settles that row.
func TestOutcomeAfterASpillSettlesTheRow(t *testing.T) {
	again := noon.Add(30*time.Millisecond + time.Minute)
	for _, c := range []struct {
		name   string
		before delivery.Delivery // its counters
		ends   func(f *fixture, d *delivery.Delivery)
		check  func(t *testing.T, d *delivery.Delivery, b *record.Batch)
	}{
		{"delivered", delivery.Delivery{}, func(f *fixture, d *delivery.Delivery) { f.finish(delivered, d) },
			func(t *testing.T, d *delivery.Delivery, b *record.Batch) {
				require.Equal(t, []uuid.UUID{d.ID}, b.Deletes)
				require.Equal(t, 1, b.Attempts[0].Number)
				require.EqualValues(t, 5, b.Attempts[0].Revision)
				require.Empty(t, b.Moves)
			}},
		{"failed", delivery.Delivery{}, func(f *fixture, d *delivery.Delivery) { f.finish(failed, d) },
			func(t *testing.T, d *delivery.Delivery, b *record.Batch) {
				require.Len(t, b.Attempts, 1)
				require.Empty(t, b.Deletes)
				require.Equal(t, "HTTP 500", b.Moves[0].Last.Error)
				require.WithinRange(t, b.Moves[0].At, again, again.Add(6*time.Second))
				require.Equal(t, record.Move{ID: d.ID, At: b.Moves[0].At, Attempts: 1, Round: 1, Last: b.Moves[0].Last}, b.Moves[0])
				require.Equal(t, b.Moves[0].At, b.NextDue())
			}},
		{"failed for the last time", delivery.Delivery{Attempts: 7, Round: 1}, func(f *fixture, d *delivery.Delivery) { f.finish(failed, d) },
			func(t *testing.T, d *delivery.Delivery, b *record.Batch) {
				require.Equal(t, 8, b.Attempts[0].Number)
				require.Equal(t, []uuid.UUID{d.ID}, b.Deletes)
				require.Len(t, b.Dead, 1)
				require.Same(t, d, b.Dead[0].Delivery)
			}},
		{"broken off by us", delivery.Delivery{}, func(f *fixture, d *delivery.Delivery) { f.finish(stopped, d) },
			func(t *testing.T, d *delivery.Delivery, b *record.Batch) {
				require.Empty(t, b.Attempts)
				require.Equal(t, []record.Move{{ID: d.ID, At: noon.Add(time.Second)}}, b.Moves)
			}},
		{"not taken by its lane", delivery.Delivery{}, func(f *fixture, d *delivery.Delivery) { f.Decline(d) },
			func(t *testing.T, d *delivery.Delivery, b *record.Batch) {
				require.Empty(t, b.Attempts)
				require.Equal(t, []record.Move{{ID: d.ID, At: noon.Add(time.Second)}}, b.Moves)
			}},
		{"released", delivery.Delivery{Attempts: 3, Round: 1}, func(f *fixture, d *delivery.Delivery) { f.Released([]*delivery.Delivery{d}) },
			func(t *testing.T, d *delivery.Delivery, b *record.Batch) {
				require.Empty(t, b.Attempts)
				require.Equal(t, []record.Move{{ID: d.ID, At: noon.Add(time.Second), Attempts: 3, Round: 1}}, b.Moves)
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			d := f.event(at(0x100, 1), 1)[0]
			d.Attempts, d.Round = c.before.Attempts, c.before.Round
			f.lanes.underWay[d] = true
			f.now = f.now.Add(time.Second)
			require.Len(t, f.cut(false).Puts, 1)
			require.True(t, f.Empty())
			c.ends(f, d)
			require.False(t, f.Empty())
			b := f.cut(false)
			require.Zero(t, b.Position, "the checkpoint passed it long ago")
			require.Empty(t, b.Puts)
			c.check(t, d, b)
			require.True(t, f.Empty())
		})
	}
}

// A claim that was answered late, as behind a link that hung, hands out again what has ended here: it is not
// attempted twice, also when the record transaction was done while the claim was under way.
func TestWhatHasEndedIsNotOpen(t *testing.T) {
	claimed := func() *delivery.Delivery {
		return &delivery.Delivery{ID: uuid.New(), Event: &delivery.Event{}, Queued: true, Lease: noon, Again: true}
	}
	f := newFixture(t)
	ended, back, other := claimed(), claimed(), claimed()
	open := func() []*delivery.Delivery { return f.Open([]*delivery.Delivery{ended, other, back}) }
	require.Equal(t, []*delivery.Delivery{ended, other, back}, open())

	f.Claiming()
	f.finish(delivered, ended)
	f.Released([]*delivery.Delivery{back})
	require.Equal(t, []*delivery.Delivery{other}, open())
	b := f.cut(false)
	require.Equal(t, []*delivery.Delivery{other}, open(), "being recorded")
	f.Recorded(b)
	require.Equal(t, []*delivery.Delivery{other}, open(), "recorded after the claim began")
	back.Again = false
	require.Equal(t, []*delivery.Delivery{other, back}, open(), "its row was settled when it was claimed")
	f.Claiming()
	require.Equal(t, []*delivery.Delivery{ended, other, back}, open(), "a claim that begins later knows what was recorded")
}

// What the first attempt, made from memory, leaves behind.
func TestOutcomeOfAFirstAttempt(t *testing.T) {
	again := noon.Add(30*time.Millisecond + time.Minute)
	f := newFixture(t)
	d := f.event(at(0x100, 1), 5)
	d[2].Round = 1 // redelivered once: no retry is left
	require.Equal(t, delivery.Delivered, f.Finished(d[:1], settings, delivered).State)
	require.Equal(t, delivery.Waiting, f.Finished(d[1:2], settings, failed).State)
	require.Equal(t, delivery.Dead, f.Finished(d[2:3], settings, failed).State)
	f.Finished(d[3:4], settings, stopped)
	f.Decline(d[4])
	b := f.cut(false)
	require.Equal(t, at(0x100, 1), b.Position)
	require.Len(t, b.Attempts, 3, "attempts that count")
	require.Empty(t, b.Moves)
	require.Empty(t, b.Deletes, "there were no rows")

	require.Len(t, b.Dead, 1)
	require.Same(t, d[2], b.Dead[0].Delivery)
	require.Equal(t, "HTTP 500", b.Dead[0].Last.Error)

	require.Len(t, b.Puts, 3)
	require.Equal(t, 2, b.Spilled, "an attempt that was broken off and a delivery that was declined are not finished")
	require.Same(t, d[1], b.Puts[0].Delivery)
	require.WithinRange(t, b.Puts[0].At, again, again.Add(6*time.Second))
	require.Equal(t, "HTTP 500", b.Puts[0].Last.Error)
	require.Equal(t, record.Put{Delivery: d[3], At: f.now}, plain(b.Puts[1]))
	require.Equal(t, record.Put{Delivery: d[4], At: f.now}, plain(b.Puts[2]))
	require.Equal(t, f.now, b.NextDue())
}

// A lane that ends gives back what waited in it: from memory, it becomes a row where it stands.
func TestReleasedFromMemory(t *testing.T) {
	f := newFixture(t)
	d := f.event(at(0x100, 1), 2)
	f.finish(delivered, d[1])
	f.Released(d[:1])
	b := f.cut(false)
	require.Equal(t, at(0x100, 1), b.Position)
	require.Len(t, b.Puts, 1)
	require.Equal(t, record.Put{Delivery: d[0], At: f.now}, plain(b.Puts[0]))
	require.Empty(t, b.Moves, "there was no row yet")
	require.True(t, f.Empty())
}

// A batch is written while the window goes on: nothing of it may change.
func TestBatchDoesNotChangeOnceCut(t *testing.T) {
	f := newFixture(t)
	f.finish(failed, f.event(at(0x100, 1), 1)...)
	spilled := f.event(at(0x100, 2), 1)
	f.Decline(spilled[0])
	first := f.cut(false)
	f.finish(failed, spilled...)
	second := f.cut(false)
	other := delivery.Outcome{Reason: delivery.ReasonTimeout, Error: "another one's", StartedAt: noon}
	f.finish(other, f.event(at(0x100, 3), 3)...)
	f.finish(other, spilled...)
	require.Equal(t, failed, *first.Puts[0].Last)
	require.Equal(t, failed, first.Attempts[0].Outcome)
	require.Equal(t, failed, *second.Moves[0].Last)
	require.Equal(t, failed, second.Attempts[0].Outcome)
}

// When the relay stops, everything unfinished becomes a queue row, whatever its age.
func TestCuttingAllEmptiesTheWindow(t *testing.T) {
	f := newFixture(t)
	d := f.event(at(0x100, 1), 3)
	f.end(0x100)
	f.lanes.underWay[d[2]] = true
	f.finish(delivered, d[1])
	b := f.cut(true)
	require.Equal(t, delivery.LSN(0x130), b.Confirm)
	require.Len(t, b.Attempts, 1)
	require.Len(t, b.Puts, 2)
	require.True(t, f.Empty())
	require.Zero(t, f.Unfinished())
	require.True(t, f.cut(true).Empty())
}

// Memory is bounded: by deliveries, by bytes, and by items that are no deliveries. What is being recorded
// counts until it is durable.
func TestFullWindow(t *testing.T) {
	for _, c := range []struct {
		name string
		fill func(f *fixture)
		free bool // recording frees it
	}{
		{"deliveries", func(f *fixture) { f.finish(delivered, f.event(at(0x100, 1), 10)...) }, false},
		{"bytes", func(f *fixture) {
			f.finish(delivered, f.enter(&delivery.Event{Position: at(0x100, 1), Payload: make([]byte, 100_000)}, 1)...)
		}, false},
		{"items", func(f *fixture) {
			for i := range uint64(40) {
				f.Change(at(0x100, i+1), &delivery.Change{})
			}
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			require.False(t, f.Full())
			require.True(t, f.Slack())
			require.False(t, signalled(f.Urgent()))
			c.fill(f)
			signalled(f.Urgent())
			require.True(t, f.Full())
			require.True(t, signalled(f.Urgent()), "the record step must run now")
			b := f.Cut(false)
			require.Equal(t, !c.free, f.Full(), "it is not durable yet")
			require.Equal(t, c.free, f.Empty())
			f.Recorded(b)
			require.False(t, f.Full())
			require.True(t, f.Slack())
			require.True(t, f.Empty())
			require.True(t, signalled(f.Room()))
		})
	}
	f := newFixture(t)
	f.event(at(0x100, 1), 5)
	require.False(t, f.Full())
	require.False(t, f.Slack(), "half full")
}

// Whoever waits for Due learns of everything that can be recorded sooner or later.
func TestSignals(t *testing.T) {
	f := newFixture(t)
	require.False(t, signalled(f.Due()))
	d := f.event(at(0x100, 1), 3)
	require.True(t, signalled(f.Due()))
	require.False(t, signalled(f.Due()))
	f.cut(false)
	require.True(t, signalled(f.Due()), "something is left")
	f.finish(delivered, d[0], d[1])
	require.False(t, signalled(f.Urgent()))
	f.finish(delivered, d[2])
	require.True(t, signalled(f.Urgent()), "three are finished")
	f.cut(false)
	require.False(t, signalled(f.Due()), "nothing is left")
	f.end(0x100)
	require.True(t, signalled(f.Due()))
	f.cut(false)
	f.Released([]*delivery.Delivery{{ID: uuid.New(), Queued: true}})
	require.True(t, signalled(f.Due()))
	f.cut(false)
	f.finish(delivered, &delivery.Delivery{ID: uuid.New(), Queued: true, Event: &delivery.Event{}})
	require.True(t, signalled(f.Due()))
}

func signalled(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
