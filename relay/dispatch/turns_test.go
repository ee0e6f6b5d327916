package dispatch_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
)

func TestLaneKeepsItsLimitOfAttemptsInFlight(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(takes(time.Second, ""), func(s *delivery.Settings) { s.MaxInFlight = 3 })
		require.Equal(t, 10, w.offer(fresh(s, "a", 10)))
		pass(4*time.Second - time.Millisecond)
		require.Equal(t, 9, w.ended())
		pass(time.Millisecond)
		require.Equal(t, 10, w.ended())
		require.Equal(t, 3, w.peak[s.SubscriptionID])
	})
}

// More may be allowed at any time; fewer applies to what starts from then on.
func TestLimitChangesLive(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(takes(time.Second, ""), func(s *delivery.Settings) { s.MaxInFlight = 1 })
		w.offer(fresh(s, "a", 20))
		synctest.Wait()
		require.Len(t, w.keys(), 1)
		s = w.changed(s, func(s *delivery.Settings) { s.MaxInFlight = 5 })
		synctest.Wait()
		require.Len(t, w.keys(), 5)
		w.changed(s, func(s *delivery.Settings) { s.MaxInFlight = 2 })
		pass(time.Second)
		require.Len(t, w.keys(), 7)
	})
}

func TestSendersAreBounded(t *testing.T) {
	in(t, 4, func(w *world) {
		for range 3 {
			w.offer(fresh(w.lane(takes(time.Second, ""), nil), "", 10))
		}
		pass(10 * time.Second)
		require.Equal(t, 30, w.ended())
		require.LessOrEqual(t, w.peak[uuid.Nil], 4)
	})
}

// One lane's backlog does not make another one wait: they take turns.
func TestLanesTakeTurns(t *testing.T) {
	in(t, 1, func(w *world) {
		a, b := w.lane(takes(time.Second, ""), nil), w.lane(takes(time.Second, ""), nil)
		w.offer(fresh(a, "a", 100))
		synctest.Wait()
		w.offer(fresh(b, "b", 3))
		pass(7 * time.Second)
		require.Equal(t, []string{"a0", "a1", "b0", "a2", "b1", "a3", "b2", "a4"}, w.keys())
		c := w.lane(takes(time.Second, ""), nil)
		w.offer(fresh(c, "c", 1))
		pass(2 * time.Second)
		require.Contains(t, w.keys(), "c0", "a newcomer's turn comes soon")
	})
}

// A receiver that never answers holds its own attempts in flight, nobody else's.
func TestHangingReceiverHoldsOnlyItsLane(t *testing.T) {
	in(t, 40, func(w *world) {
		hangs := w.lane(takes(time.Hour, ""), func(s *delivery.Settings) { s.MaxInFlight = 16 })
		lively := w.lane(takes(time.Millisecond, ""), nil)
		w.offer(fresh(hangs, "h", 1000))
		w.offer(fresh(lively, "l", 100))
		pass(100 * time.Millisecond)
		require.Equal(t, 100, w.ended())
		require.Equal(t, 16, w.peak[hangs.SubscriptionID])
	})
}

// New deliveries and waiting ones share the lane.
func TestMemoryAndQueueTakeTurns(t *testing.T) {
	in(t, 1, func(w *world) {
		w.offer(fresh(w.lane(takes(time.Second, ""), nil), "keeps the sender busy", 1))
		synctest.Wait()
		s := w.lane(takes(time.Second, ""), nil)
		w.offer(fresh(s, "m", 3))
		require.Equal(t, 3, w.claimed(fresh(s, "q", 3)))
		pass(7 * time.Second)
		keys := w.keys()[1:]
		require.ElementsMatch(t, []string{"m0", "m1", "m2", "q0", "q1", "q2"}, keys)
		for i := 1; i < len(keys); i++ {
			require.NotEqual(t, keys[i-1][0], keys[i][0], "%v", keys)
		}
	})
}

// A rate is in requests a second, evenly spaced, and no sender is kept waiting for it.
func TestRateLimit(t *testing.T) {
	in(t, 1, func(w *world) {
		slow := w.lane(takes(0, ""), func(s *delivery.Settings) { s.RateLimit = 10 })
		w.offer(fresh(slow, "s", 31))
		pass(3 * time.Second)
		times := w.times()
		require.Len(t, times, 31)
		for i, at := range times {
			require.Equal(t, time.Duration(i)*100*time.Millisecond, at.Round(time.Millisecond))
		}
		w.offer(fresh(slow, "t", 10))
		free := w.lane(takes(0, ""), nil)
		w.offer(fresh(free, "f", 50))
		synctest.Wait()
		require.Contains(t, w.keys(), "f49", "a lane without a limit does not wait")
	})
}

func TestRateLimitChangesLive(t *testing.T) {
	in(t, 1, func(w *world) {
		s := w.lane(takes(0, ""), func(s *delivery.Settings) { s.RateLimit = 1 })
		w.offer(fresh(s, "a", 1000))
		pass(2500 * time.Millisecond)
		require.Len(t, w.keys(), 3)
		s = w.changed(s, func(s *delivery.Settings) { s.RateLimit = 100 })
		pass(1500 * time.Millisecond)
		require.InDelta(t, 3+100, len(w.keys()), 52, "from the next second on at the latest")
		w.changed(s, func(s *delivery.Settings) { s.RateLimit = 0 })
		pass(time.Second)
		require.Len(t, w.keys(), 1000)
	})
}

// Deliveries are in memory twice at most: those in flight and as many that are ready to follow.
func TestAppetite(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(takes(time.Second, ""), func(s *delivery.Settings) { s.MaxInFlight = 4 })
		_, known := w.Appetite(uuid.New(), time.Now())
		require.False(t, known)
		require.Equal(t, 8, w.appetite(s))
		w.claimed(fresh(s, "q", 8))
		synctest.Wait()
		require.Equal(t, 0, w.appetite(s), "four in flight, four ready")
		pass(time.Second)
		require.Equal(t, 4, w.appetite(s))
		pass(time.Second)
		require.Equal(t, 8, w.appetite(s))
	})
}

// The claimer is asked again as soon as half of what was ready is used up, if there was more.
func TestHungryLaneAsksForMore(t *testing.T) {
	for _, more := range []bool{true, false} {
		in(t, 100, func(w *world) {
			n := 0
			s := w.lane(func(ctx context.Context, d *delivery.Delivery, s *delivery.Settings) delivery.Outcome {
				w.mu.Lock()
				n++
				while := time.Duration(n) * time.Second
				w.mu.Unlock()
				return takes(while, "")(ctx, d, s)
			}, func(s *delivery.Settings) { s.MaxInFlight = 4 })
			w.claimed(fresh(s, "q", 8))
			w.Ate(s.SubscriptionID, more)
			pass(3*time.Second - time.Millisecond)
			require.Zero(t, w.asked(), "two have ended, and two took their place: two are ready")
			pass(time.Second)
			if more {
				require.Equal(t, 1, w.asked(), "once")
			} else {
				require.Zero(t, w.asked(), "nothing more is known of")
			}
		})
	}
}

// A lane with a rate limit takes what it can send in ten seconds.
func TestAppetiteOfALaneWithARateLimit(t *testing.T) {
	in(t, 100, func(w *world) {
		rate := func(perSecond, inFlight int) *delivery.Settings {
			return w.lane(takes(time.Second, ""), func(s *delivery.Settings) { s.RateLimit, s.MaxInFlight = perSecond, inFlight })
		}
		require.Equal(t, 20, w.appetite(rate(2, 64)))
		require.Equal(t, 10, w.appetite(rate(1, 64)))
		require.Equal(t, 8, w.appetite(rate(100, 4)))
	})
}

// The rate is kept however large the backlog is, also where a lease leaves less time than the lane takes
// deliveries for: what is late is given back, and costs nothing of the rate.
func TestRateIsKeptThroughABacklog(t *testing.T) {
	for _, margin := range []time.Duration{30 * time.Second, 5 * time.Second} {
		in(t, 10, func(w *world) {
			s := w.lane(takes(time.Second, ""), func(s *delivery.Settings) { s.RateLimit, s.MaxInFlight = 2, 64 })
			waiting := fresh(s, "q", 700)
			const steps = 5 * 60 * 10
			for range steps {
				waiting = append(waiting, w.takeBack()...)
				n := w.appetite(s)
				for _, d := range waiting[:min(n, len(waiting))] {
					d.Queued, d.Lease = true, time.Now().Add(s.Timeout+margin)
					require.Empty(t, w.Claimed([]*delivery.Delivery{d}))
				}
				waiting = waiting[min(n, len(waiting)):]
				pass(100 * time.Millisecond)
			}
			require.InDelta(t, 2*300, len(w.keys()), 2, "in five minutes")
		})
	}
}

// All lanes together hold a bounded number of deliveries from the queue, and of bytes. When lanes had to be left
// out, the claimer is called as soon as half of that is free.
func TestClaimedDeliveriesAreBoundedOverAllLanes(t *testing.T) {
	in(t, 2, func(w *world) {
		n, bytes := w.Room()
		require.Equal(t, []int{8, claimedBytes}, []int{n, bytes})
		w.Short()
		require.Equal(t, 1, w.asked(), "there is room now")
		s := w.lane(takes(time.Second, ""), nil)
		w.claimed(fresh(s, "q", 8))
		n, bytes = w.Room()
		require.Zero(t, n)
		require.Equal(t, claimedBytes-8*258, bytes, "of the estimate for an empty event with a key of two letters")
		w.Short()
		w.Ate(s.SubscriptionID, true)
		pass(3 * time.Second)
		require.Equal(t, 1, w.asked(), "five of eight are held")
		pass(time.Second)
		require.Greater(t, w.asked(), 1)
		pass(time.Hour)
		n, bytes = w.Room()
		require.Equal(t, []int{8, claimedBytes}, []int{n, bytes}, "all of it is free again")
	})
}

// A lane that holds a quarter of the bytes is given no more, so that others find room; and all that it holds is
// free again, whatever way it goes.
func TestLargeEventsAreBoundedPerLane(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(takes(time.Second, ""), nil)
		large := fresh(s, "q", 2)
		large[0].Event.Payload = make([]byte, claimedBytes/4)
		w.claimed(large[:1])
		synctest.Wait()
		require.Zero(t, w.appetite(s))
		pass(time.Second)
		require.Equal(t, 32, w.appetite(s))
		w.changed(s, func(s *delivery.Settings) { s.MaxInFlight = 0 })
		require.Equal(t, 1, w.claimed(large[1:]))
		w.Remove(s.SubscriptionID)
		require.Equal(t, large[1:], w.givenBack())
		_, bytes := w.Room()
		require.Equal(t, claimedBytes, bytes)
	})
}

// Between claim and attempt a lease may run down: then the delivery is given back, to be claimed again.
func TestLeaseThatEndsUnderTheAttemptIsNotUsed(t *testing.T) {
	in(t, 1, func(w *world) {
		s := w.lane(takes(20*time.Second, ""), nil)
		all := fresh(s, "q", 3)
		for _, d := range all {
			d.Queued, d.Lease = true, time.Now().Add(45*time.Second)
			require.Empty(t, w.Claimed([]*delivery.Delivery{d}))
		}
		pass(2 * time.Minute)
		require.Equal(t, []string{"q0"}, w.keys(), "20 s later, an attempt of up to 30 s would outlast the lease")
		require.Equal(t, all[1:], w.givenBack())
		require.Equal(t, 4, w.appetite(s), "all that there is room for")
		w.claimed(fresh(s, "r", 1))
		pass(time.Minute)
		require.Equal(t, []string{"q0", "r0"}, w.keys())
	})
}

// A lease that is over is not given back: the row may be somebody else's already.
func TestLeaseThatIsOverIsNotGivenBack(t *testing.T) {
	in(t, 1, func(w *world) {
		s := w.lane(takes(time.Minute, ""), nil)
		all := fresh(s, "q", 2)
		for _, d := range all {
			d.Queued, d.Lease = true, time.Now().Add(45*time.Second)
			require.Empty(t, w.Claimed([]*delivery.Delivery{d}))
		}
		pass(2 * time.Minute)
		require.Equal(t, []string{"q0"}, w.keys())
		require.Empty(t, w.givenBack())
		require.Equal(t, 4, w.appetite(s), "all that there is room for")
	})
}
