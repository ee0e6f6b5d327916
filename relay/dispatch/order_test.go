package dispatch_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
)

func keyed(s *delivery.Settings)  { s.Ordering = delivery.OrderKey }
func strict(s *delivery.Settings) { s.Ordering = delivery.OrderStrict }

// fails is a receiver that takes everything but what is named, after a second each.
func fails(keys ...string) receiver {
	return func(ctx context.Context, d *delivery.Delivery, s *delivery.Settings) delivery.Outcome {
		for _, k := range keys {
			if d.Event.Key == k {
				return takes(time.Second, delivery.ReasonStatus)(ctx, d, s)
			}
		}
		return takes(time.Second, delivery.ReasonNone)(ctx, d, s)
	}
}

// seconds are the names of the deliveries that started, by the second in which they did.
func (w *world) seconds() map[int][]string {
	all := map[int][]string{}
	carried, at := w.sent()
	for i, keys := range carried {
		second := int(at[i] / time.Second)
		all[second] = append(all[second], keys...)
	}
	return all
}

// again is what the queue hands out after a failure.
func again(d *delivery.Delivery) *delivery.Delivery {
	c := *d
	c.Attempts, c.Round = c.Attempts+1, c.Round+1
	return &c
}

// Deliveries with the same key go one after the other, beside those of other keys; those without one overtake.
func TestKeysGoSideBySide(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(takes(time.Second, ""), keyed)
		w.offer(w.ordered(s, "key a", "a", 3))
		w.offer(w.ordered(s, "key b", "b", 2))
		w.offer(w.ordered(s, "", "u", 3))
		pass(10 * time.Second)
		got := w.seconds()
		require.ElementsMatch(t, []string{"a0", "b0", "u0", "u1", "u2"}, got[0])
		require.ElementsMatch(t, []string{"a1", "b1"}, got[1])
		require.ElementsMatch(t, []string{"a2"}, got[2])
	})
}

func TestStrictOrder(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(takes(time.Second, ""), strict)
		w.offer(w.ordered(s, "strict", "a", 5))
		pass(10 * time.Second)
		require.Equal(t, []string{"a0", "a1", "a2", "a3", "a4"}, w.keys())
		require.Equal(t, 1, w.peak[s.SubscriptionID])
	})
}

// What fails holds up what has its key, wherever that is, and nothing else.
func TestFailureHoldsItsKey(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(fails("a0"), keyed)
		a := w.ordered(s, "key a", "a", 3)
		require.Equal(t, 3, w.offer(a))
		pass(time.Second)
		late := w.ordered(s, "key a", "late", 1)
		require.Zero(t, w.offer(late), "it goes to the queue, behind a0")
		require.Equal(t, 3, w.offer(w.ordered(s, "key b", "b", 3)))
		require.Equal(t, 1, w.offer(w.ordered(s, "", "u", 1)))
		pass(time.Minute)
		require.ElementsMatch(t, []string{"a0", "b0", "b1", "b2", "u0"}, w.keys())

		w.mu.Lock()
		w.receiver[s.SubscriptionID] = takes(time.Second, "")
		w.mu.Unlock()
		w.claimed([]*delivery.Delivery{again(a[0])})
		pass(time.Minute)
		require.Equal(t, "a0", w.keys()[5])
		require.Len(t, w.keys(), 6, "the last one in the queue comes behind those in memory, which have to go there first")
		require.False(t, w.Withdraw(a[1]))
		require.False(t, w.Withdraw(a[2]))
		w.claimed([]*delivery.Delivery{a[1], a[2], late[0]})
		pass(time.Minute)
		require.Equal(t, []string{"a1", "a2", "late0"}, w.keys()[6:])
		require.Equal(t, 1, w.offer(w.ordered(s, "key a", "new", 1)), "nothing of it is in the queue any more")
		pass(time.Second)
		require.Equal(t, "new0", w.keys()[9])
	})
}

// What waits in memory goes on by itself when what failed before it is done, if nothing newer is in the queue.
func TestMemoryGoesOnAfterARetry(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(fails("a0"), keyed)
		a := w.ordered(s, "key a", "a", 3)
		w.offer(a)
		pass(time.Minute)
		require.Equal(t, []string{"a0"}, w.keys())
		w.mu.Lock()
		w.receiver[s.SubscriptionID] = takes(time.Second, "")
		w.mu.Unlock()
		w.claimed([]*delivery.Delivery{again(a[0])})
		pass(time.Minute)
		require.Equal(t, []string{"a0", "a0", "a1", "a2"}, w.keys())
	})
}

// A spill in the midst of a sequence: what is under way ends, what waits comes through the queue, and newer ones
// follow it there until the last row is done.
func TestSpilledSequenceGoesThroughTheQueue(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(takes(time.Second, ""), keyed)
		a := w.ordered(s, "key a", "a", 3)
		w.offer(a)
		synctest.Wait()
		require.True(t, w.Withdraw(a[0]))
		require.False(t, w.Withdraw(a[1]))
		pass(10 * time.Second)
		require.Equal(t, []string{"a0"}, w.keys(), "the next one is in the queue")
		newer := w.ordered(s, "key a", "n", 1)
		require.Zero(t, w.offer(newer))
		require.False(t, w.Withdraw(a[2]))
		w.claimed(a[1:])
		pass(10 * time.Second)
		require.Equal(t, []string{"a0", "a1", "a2"}, w.keys())
		require.Zero(t, w.offer(w.ordered(s, "key a", "n", 1)))
		require.Equal(t, 1, w.offer(w.ordered(s, "key b", "b", 1)))
	})
}

// Behind a claimed delivery that fails nothing of its sequence stays claimed: its turn comes behind the retry.
func TestWhatFollowsAFailureIsGivenBack(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(fails("a1"), keyed)
		a, b := w.ordered(s, "key a", "a", 4), w.ordered(s, "key b", "b", 3)
		w.claimed(append(a, b...))
		pass(10 * time.Second)
		require.Equal(t, a[2:], w.givenBack())
		require.ElementsMatch(t, []string{"a0", "a1", "b0", "b1", "b2"}, w.keys())
		room, _ := w.Room()
		require.Equal(t, 400, room, "nothing is held any more")
	})
}

// Of a sequence nothing is taken behind what was not, nor started whose lease could end under the attempt.
func TestLateSequencesAreGivenBackWhole(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(takes(10*time.Second, ""), func(s *delivery.Settings) { keyed(s); s.MaxInFlight, s.BatchSize = 1, 10 })
		w.offer(w.ordered(s, "key x", "x", 1))
		synctest.Wait()
		late := append(w.ordered(s, "key a", "a", 2), w.ordered(s, "key b", "b", 2)...)
		for _, d := range late {
			d.Queued, d.Lease = true, time.Now().Add(39*time.Second)
		}
		memory := w.ordered(s, "key m", "m", 2)
		w.offer(memory[:1])
		require.Empty(t, w.Claimed(late))
		pass(time.Minute)
		require.Equal(t, []string{"x0", "m0"}, w.keys(), "after ten seconds an attempt of half a minute would outlast the lease")
		require.ElementsMatch(t, late, w.givenBack())
		room, _ := w.Room()
		require.Equal(t, 400, room)
	})
}

// While the settings cannot be used everything new goes to the queue, and comes from there in order.
func TestOrderThroughUnusableSettings(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(takes(time.Second, ""), keyed)
		a := w.ordered(s, "key a", "a", 6)
		w.offer(a[:2])
		synctest.Wait()
		off := w.changed(s, func(s *delivery.Settings) { s.Active = false })
		require.Zero(t, w.offer(a[2:3]))
		pass(time.Second)
		on := w.changed(off, func(s *delivery.Settings) { s.Active = true })
		require.Zero(t, w.offer(a[3:4]), "behind what is in the queue")
		pass(time.Minute)
		require.Equal(t, []string{"a0"}, w.keys(), "a1 would go, were it not for newer ones in the queue")
		require.False(t, w.Withdraw(a[1]))
		w.claimed(a[1:4])
		synctest.Wait()
		off = w.changed(on, func(s *delivery.Settings) { s.Invalid = "no" })
		require.Equal(t, a[2:4], w.givenBack())
		w.changed(off, func(s *delivery.Settings) { s.Invalid = "" })
		pass(time.Minute)
		require.Zero(t, w.offer(a[4:5]))
		w.claimed(a[2:5])
		pass(time.Minute)
		require.Equal(t, 1, w.offer(a[5:]))
		pass(time.Minute)
		require.Equal(t, []string{"a0", "a1", "a2", "a3", "a4", "a5"}, w.keys())
	})
}

// A circuit that opens and closes again leaves the order as it was.
func TestOrderThroughAnOpenCircuit(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(takes(time.Second, delivery.ReasonConnect), keyed)
		var all []*delivery.Delivery
		for i := range 25 {
			all = append(all, w.ordered(s, fmt.Sprint("key ", i), fmt.Sprint("k", i, "-"), 2)...)
		}
		w.claimed(all)
		pass(6 * time.Second)
		w.Claimed(nil)
		require.Zero(t, w.Counts().Circuits, "the second ones were given back behind the first ones")
		require.Len(t, w.takeBack(), 25)
		for i := 0; i < len(all); i += 2 {
			w.claimed([]*delivery.Delivery{again(all[i]), all[i+1]})
			pass(300 * time.Millisecond)
		}
		pass(time.Second)
		require.Equal(t, 1, w.Counts().Circuits)
		w.takeBack()
		fresh := w.ordered(s, "key 0", "new", 1)
		require.Zero(t, w.offer(fresh))

		w.mu.Lock()
		w.receiver[s.SubscriptionID] = takes(time.Second, "")
		w.mu.Unlock()
		before := len(w.keys())
		pass(time.Minute)
		require.Equal(t, 1, w.appetite(s))
		require.Equal(t, 1, w.claimed([]*delivery.Delivery{again(all[0]), all[1]}), "one probe")
		pass(2 * time.Second)
		require.Equal(t, []string{"k0-0"}, w.keys()[before:])
		require.Zero(t, w.Counts().Circuits)
		w.claimed([]*delivery.Delivery{all[1], fresh[0]})
		pass(3 * time.Second)
		require.Equal(t, []string{"k0-0", "k0-1", "new0"}, w.keys()[before:])
	})
}

// A stop in the midst gives back what was claimed and starts nothing more.
func TestStopInTheMidstOfSequences(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(fails("b0"), keyed)
		a, b := w.ordered(s, "key a", "a", 3), w.ordered(s, "key b", "b", 3)
		w.offer(a)
		w.claimed(b)
		synctest.Wait()
		w.Stop()
		require.ElementsMatch(t, []string{"a0", "b0"}, w.keys())
		require.ElementsMatch(t, b[1:], w.givenBack())
		require.False(t, w.Withdraw(a[1]))
		require.False(t, w.Withdraw(a[2]))
	})
}

// A lane whose sequences in the queue are too many to be remembered sends all of them through the queue, until nothing
// of the lane is there and everything that it declined is recorded.
func TestManySequencesInTheQueue(t *testing.T) {
	const many = 5000
	in(t, 100, func(w *world) {
		s := w.lane(takes(time.Second, ""), keyed)
		w.changed(s, func(s *delivery.Settings) { s.Active = false })
		for i := range many {
			require.Zero(t, w.offer(w.ordered(s, fmt.Sprint("key ", i), "a", 1)))
		}
		w.changed(s, func(s *delivery.Settings) { s.Revision += 2 })
		require.Zero(t, w.offer(w.ordered(s, "key 1", "b", 1)))
		last := w.ordered(s, "key of its own", "b", 1)
		require.Zero(t, w.offer(last))
		require.Equal(t, 1, w.offer(w.ordered(s, "", "u", 1)), "it may overtake")

		waits := map[uuid.UUID]bool{s.SubscriptionID: true}
		recorded := last[0].Event.Position
		w.CaughtUp(delivery.Position{LSN: recorded.LSN - 1, Index: 1}, func(uuid.UUID) bool { return false })
		require.Zero(t, w.offer(w.ordered(s, "key z", "c", 1)), "the last one may be on its way to the queue")
		recorded = delivery.Position{LSN: w.placed, Index: 1}
		w.CaughtUp(recorded, func(id uuid.UUID) bool { return waits[id] })
		require.Zero(t, w.offer(w.ordered(s, "key z", "d", 1)), "the queue holds some")
		w.CaughtUp(delivery.Position{LSN: w.placed, Index: 1}, func(uuid.UUID) bool { return false })
		require.Equal(t, 1, w.offer(w.ordered(s, "key z", "e", 1)))
		pass(time.Second)
		require.ElementsMatch(t, []string{"u0", "e0"}, w.keys())
	})
}

// What a lane has in memory when it falls behind waits, and goes on when it has caught up.
func TestMemoryWaitsForTheBacklog(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(takes(time.Second, ""), keyed)
		a := w.ordered(s, "key a", "a", 3)
		w.offer(a)
		synctest.Wait()
		w.Behind(s.SubscriptionID)
		queued := w.ordered(s, "key q", "q", 2)
		w.claimed(queued)
		pass(10 * time.Second)
		require.ElementsMatch(t, []string{"a0", "q0", "q1"}, w.keys())
		w.CaughtUp(delivery.Position{}, func(uuid.UUID) bool { return false })
		pass(10 * time.Second)
		require.Equal(t, []string{"a1", "a2"}, w.keys()[3:])
	})
}

// What came before its lane was known went to the queue: what comes after waits for it.
func TestStrays(t *testing.T) {
	in(t, 100, func(w *world) {
		s := &delivery.Settings{SubscriptionID: uuid.New(), Revision: 1, Active: true, MaxInFlight: 16, Timeout: time.Second, Ordering: delivery.OrderKey}
		w.receiver[s.SubscriptionID] = takes(time.Second, "")
		a := w.ordered(s, "key a", "a", 3)
		require.Zero(t, w.offer(a[:1]))
		w.Set(s)
		require.Zero(t, w.offer(a[1:2]))
		w.CaughtUp(a[0].Event.Position, func(uuid.UUID) bool { return false })
		require.Zero(t, w.offer(a[2:]), "a1 is not recorded yet")
		w.claimed(a)
		pass(10 * time.Second)
		require.Equal(t, []string{"a0", "a1", "a2"}, w.keys())
		w.CaughtUp(a[2].Event.Position, func(uuid.UUID) bool { return false })
		require.Equal(t, 1, w.offer(w.ordered(s, "key a", "b", 1)))
	})
}

// The queue held some of a subscription before its lane was known: what comes after waits for them.
func TestBehindBeforeItsLane(t *testing.T) {
	in(t, 100, func(w *world) {
		s := &delivery.Settings{SubscriptionID: uuid.New(), Revision: 1, Active: true, MaxInFlight: 16, Timeout: time.Second, Ordering: delivery.OrderKey}
		w.receiver[s.SubscriptionID] = takes(time.Second, "")
		w.Behind(s.SubscriptionID)
		w.Set(s)
		queued, fresh := w.ordered(s, "key a", "q", 1), w.ordered(s, "key a", "f", 1)
		require.Zero(t, w.offer(fresh), "an earlier one is in the queue")
		w.claimed(append(queued, fresh...))
		pass(10 * time.Second)
		require.Equal(t, []string{"q0", "f0"}, w.keys())
		w.CaughtUp(fresh[0].Event.Position, func(uuid.UUID) bool { return false })
		require.Equal(t, 1, w.offer(w.ordered(s, "key a", "b", 1)))
	})
}

// Offering, failing and giving back many deliveries of many keys takes the same time for each, however many there are.
func BenchmarkKeyLane(b *testing.B) {
	for _, c := range []struct{ deliveries, keys, batch int }{{2_000, 100, 1}, {20_000, 1000, 1}, {20_000, 20_000, 1}, {20_000, 1000, 100}} {
		for _, reason := range []delivery.Reason{delivery.ReasonNone, delivery.ReasonConnect} {
			b.Run(fmt.Sprintf("%d of %d keys in batches of %d %s", c.deliveries, c.keys, c.batch, reason), func(b *testing.B) {
				for range b.N {
					manyKeys(b, c.deliveries, c.keys, c.batch, reason)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(c.deliveries), "ns/delivery")
			})
		}
	}
}
