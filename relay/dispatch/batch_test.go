package dispatch_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
)

// batches makes settings with so many deliveries a request.
func batches(size int, wait time.Duration) func(*delivery.Settings) {
	return func(s *delivery.Settings) { s.BatchSize, s.BatchWait, s.MaxInFlight = size, wait, 1 }
}

// busy makes a lane whose only request is under way for a second, so that what comes meanwhile waits.
func (w *world) busy(change ...func(*delivery.Settings)) *delivery.Settings {
	s := w.lane(takes(time.Second, ""), func(s *delivery.Settings) {
		for _, c := range change {
			c(s)
		}
	})
	wait := s.BatchWait
	s = w.changed(s, func(s *delivery.Settings) { s.BatchWait = 0 })
	w.offer(w.ordered(s, "", "busy", 1))
	synctest.Wait()
	return w.changed(s, func(s *delivery.Settings) { s.BatchWait = wait })
}

// failed makes deliveries what a request that failed leaves in the queue.
func failed(round int, all ...*delivery.Delivery) []*delivery.Delivery {
	slices.SortFunc(all, func(a, b *delivery.Delivery) int { return a.Event.Position.Compare(b.Event.Position) })
	for _, d := range all {
		d.Round, d.Attempts = round, round
		if len(all) > 1 {
			d.Batch = delivery.BatchID(ids(all))
		}
	}
	return all
}

// inCommitOrder is how a claim hands deliveries over.
func inCommitOrder(parts ...[]*delivery.Delivery) []*delivery.Delivery {
	all := slices.Concat(parts...)
	slices.SortFunc(all, func(a, b *delivery.Delivery) int { return a.Event.Position.Compare(b.Event.Position) })
	return all
}

func TestBatchSize(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.busy(batches(10, 0))
		w.offer(w.ordered(s, "", "a", 25))
		pass(10 * time.Second)
		carried, _ := w.sent()
		require.Len(t, carried, 4)
		require.Equal(t, []string{"a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9"}, carried[1])
		require.Equal(t, []string{"a20", "a21", "a22", "a23", "a24"}, carried[3], "what is there, without waiting")
	})
}

// A request goes when it has waited long enough, or is full; the wait begins with its first delivery.
func TestBatchWait(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(takes(0, ""), batches(5, 4*time.Second))
		w.offer(w.ordered(s, "", "a", 1))
		pass(3 * time.Second)
		w.offer(w.ordered(s, "", "b", 1))
		pass(7 * time.Second)
		w.offer(w.ordered(s, "", "c", 3))
		pass(time.Second)
		w.offer(w.ordered(s, "", "d", 4))
		pass(10 * time.Second)
		w.offer(w.ordered(s, "", "e", 1))
		pass(10 * time.Second)
		carried, at := w.sent()
		require.Equal(t, [][]string{{"a0", "b0"}, {"c0", "c1", "c2", "d0", "d1"}, {"d2", "d3"}, {"e0"}}, carried)
		require.Equal(t, []time.Duration{4 * time.Second, 11 * time.Second, 15 * time.Second, 25 * time.Second}, at)
	})
}

// The delivery that reaches the most that a request may carry is its last.
func TestBatchBytes(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.busy(batches(10, time.Minute))
		all := w.ordered(s, "", "a", 5)
		for _, d := range all {
			d.Event.Payload = make([]byte, 1_500_000)
		}
		w.offer(all)
		pass(10 * time.Minute)
		carried, at := w.sent()
		require.Equal(t, [][]string{{"busy0"}, {"a0", "a1", "a2"}, {"a3", "a4"}}, carried)
		require.Equal(t, time.Minute+time.Second, at[2]-at[1], "the rest waits for more, from when it could start")
	})
}

// What failed in one request goes again as it was, in the same order, by itself and at once: whatever stands between,
// with keys and without, claimed in one piece with others.
func TestFailedBatchGoesAgainAsItWas(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.busy(keyed, batches(10, 10*time.Minute))
		a, b, c, u := w.ordered(s, "key a", "a", 4), w.ordered(s, "key b", "b", 2), w.ordered(s, "key c", "c", 2), w.ordered(s, "", "u", 4)
		first := failed(1, a[0], a[1], b[0], u[1], u[3])
		second := failed(2, c[0], u[0])
		rest := []*delivery.Delivery{a[2], a[3], b[1], c[1], u[2]}
		require.Len(t, slices.Concat(first, second, rest), 12)
		require.Equal(t, 12, w.claimed(inCommitOrder(first, second, rest)))
		pass(10 * time.Second)
		carried, _ := w.sent()
		require.ElementsMatch(t, [][]string{{"busy0"}, names(first), names(second)}, carried)
		pass(15 * time.Minute)
		carried, _ = w.sent()
		require.Equal(t, names(inCommitOrder(rest)), carried[3])
		room, _ := w.Room()
		require.Equal(t, 400, room)
	})
}

// Requests of the same deliveries carry them in the same order, whichever of them came first.
func TestBatchIsInCommitOrder(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.busy(keyed, batches(10, 0))
		a, u, b := w.ordered(s, "key a", "a", 2), w.ordered(s, "", "u", 2), w.ordered(s, "key b", "b", 2)
		w.offer(b)
		w.offer(u)
		w.claimed(a)
		pass(10 * time.Second)
		carried, _ := w.sent()
		require.Equal(t, []string{"a0", "a1", "u0", "u1", "b0", "b1"}, carried[1])
	})
}

// What failed alone is not mixed with others: it may be the last retry, and they would die with it.
func TestWhatFailedAloneGoesAlone(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.busy(keyed, batches(10, 0))
		a, u := w.ordered(s, "key a", "a", 3), w.ordered(s, "", "u", 3)
		failed(3, a[0])
		failed(3, u[0])
		w.claimed(inCommitOrder(a, u))
		w.offer(w.ordered(s, "key b", "b", 2))
		pass(10 * time.Second)
		carried, _ := w.sent()
		require.Contains(t, carried, []string{"a0"})
		require.Contains(t, carried, []string{"u0"})
		require.Len(t, w.finished, 1+3+3+2)
	})
}

// Smaller batches don't tear apart what failed together; no batches at all do, for a receiver that cannot read them,
// and leave nothing behind.
func TestFailedBatchUnderOtherSettings(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.busy(keyed, batches(10, 0))
		s = w.changed(s, func(s *delivery.Settings) { s.BatchSize = 2 })
		a, u := w.ordered(s, "key a", "a", 3), w.ordered(s, "", "u", 2)
		first := failed(1, a[0], a[1], a[2], u[0], u[1])
		w.claimed(inCommitOrder(first))
		pass(10 * time.Second)
		carried, _ := w.sent()
		require.Equal(t, names(first), carried[1])

		w.offer(w.ordered(s, "", "busy", 1))
		synctest.Wait()
		single := w.changed(s, func(s *delivery.Settings) { s.BatchSize = 1 })
		b, v := w.ordered(s, "key b", "b", 2), w.ordered(s, "", "v", 1)
		w.claimed(failed(1, b[0], b[1], v[0]))
		pass(10 * time.Second)
		carried, _ = w.sent()
		require.ElementsMatch(t, [][]string{{"b0"}, {"b1"}, {"v0"}}, carried[3:])
		keys := w.keys()
		require.Less(t, slices.Index(keys, "b0"), slices.Index(keys, "b1"))

		w.changed(single, batches(10, time.Minute))
		w.offer(w.ordered(s, "", "new", 1))
		pass(59 * time.Second)
		require.Len(t, w.keys(), 6, "it waits for others again")
		pass(time.Second)
		require.Len(t, w.keys(), 7)
	})
}

// While a request with some of a key is under way nothing more of that key starts; when it fails, what was claimed
// behind any of its deliveries is given back.
func TestBatchesKeepTheOrder(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(fails("a0"), func(s *delivery.Settings) { keyed(s); s.BatchSize, s.MaxInFlight = 3, 4 })
		a, b := w.ordered(s, "key a", "a", 5), w.ordered(s, "key b", "b", 5)
		w.claimed(slices.Concat(a, b))
		pass(10 * time.Second)
		carried, _ := w.sent()
		require.ElementsMatch(t, [][]string{{"a0", "a1", "a2"}, {"b0", "b1", "b2"}, {"b3", "b4"}}, carried)
		require.Equal(t, a[3:], w.givenBack())
		require.Zero(t, w.offer(w.ordered(s, "key a", "new", 1)))
		w.claimed(failed(1, a[0], a[1], a[2]))
		w.claimed(a[3:])
		pass(time.Second)
		carried, _ = w.sent()
		require.Equal(t, []string{"a0", "a1", "a2"}, carried[3])
	})
}

// Leases differ where settings changed between claims: none that is too short goes along with others.
func TestBatchLeavesOutWhatIsLate(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.busy(batches(10, 0))
		all := w.ordered(s, "", "a", 3)
		for _, d := range all {
			d.Queued, d.Lease = true, time.Now().Add(time.Hour)
		}
		all[1].Lease = time.Now().Add(s.Timeout + time.Second/2)
		require.Empty(t, w.Claimed(all))
		pass(10 * time.Second)
		carried, _ := w.sent()
		require.Equal(t, []string{"a0", "a2"}, carried[1])
		require.Equal(t, all[1:2], w.givenBack())
	})
}

// A shorter wait counts from the moment that it is set, a lane that waits for something else does not ask for the
// time again and again, and one that was given its settings goes on.
func TestBatchWaitChangesLive(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(takes(time.Second, ""), batches(10, time.Hour))
		w.offer(w.ordered(s, "", "a", 1))
		pass(time.Minute)
		s = w.changed(s, func(s *delivery.Settings) { s.BatchWait = 2 * time.Minute })
		pass(time.Minute)
		require.Equal(t, []string{"a0"}, w.keys())

		w.offer(w.ordered(s, "", "b", 1))
		pass(time.Second)
		require.False(t, w.Expect(s.SubscriptionID, s.Revision+1))
		pass(10 * time.Minute) // for ever, were the timer set to a moment that is over
		require.Len(t, w.keys(), 1)
		w.changed(s, func(s *delivery.Settings) {})
		synctest.Wait()
		require.Equal(t, []string{"a0", "b0"}, w.keys())
	})
}

// A rate is in requests, however many deliveries they carry.
func TestRateLimitOfBatches(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(takes(0, ""), func(s *delivery.Settings) { s.RateLimit, s.BatchSize = 2, 10 })
		w.offer(w.ordered(s, "", "a", 1))
		synctest.Wait()
		w.offer(w.ordered(s, "", "b", 25))
		pass(10 * time.Second)
		carried, at := w.sent()
		require.Len(t, carried, 4)
		require.Len(t, carried[1], 10)
		for i, at := range at {
			require.Equal(t, time.Duration(i)*500*time.Millisecond, at.Round(time.Millisecond))
		}
	})
}

// What a receiver allows a minute holds like a rate limit; the lower of the two counts, and claims keep to it.
func TestAllowedPerMinute(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(takes(0, ""), func(s *delivery.Settings) { s.AllowedPerMinute, s.RateLimit = 6, 50 })
		w.offer(w.ordered(s, "", "a", 7))
		pass(time.Minute)
		times := w.times()
		require.Len(t, times, 7)
		for i, at := range times {
			require.Equal(t, time.Duration(i)*10*time.Second, at.Round(time.Millisecond))
		}
		require.Equal(t, 1, w.appetite(s), "what it lets go in ten seconds")
		w.changed(s, func(s *delivery.Settings) { s.AllowedPerMinute, s.RateLimit = 6000, 2 })
		require.Equal(t, 20, w.appetite(s))
	})
}
