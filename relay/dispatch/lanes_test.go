package dispatch_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/dispatch"
)

// What is withdrawn is about to become a queue row: it is not attempted from memory as well, and newer
// deliveries of its lane follow it through the queue until that is drained.
func TestWithdrawnDeliveryIsNotAttempted(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(takes(time.Second, ""), func(s *delivery.Settings) { s.MaxInFlight = 1 })
		all := fresh(s, "a", 3)
		w.offer(all)
		synctest.Wait()
		require.True(t, w.Withdraw(all[0]), "its attempt is under way")
		require.Equal(t, 1, w.offer(fresh(s, "b", 1)), "one that is under way does not hold others back")
		require.False(t, w.Withdraw(all[1]))
		require.Zero(t, w.offer(fresh(s, "c", 1)))
		pass(time.Minute)
		require.Equal(t, []string{"a0", "a2", "b0"}, w.keys())

		w.Drained(func(id uuid.UUID) bool { return id == s.SubscriptionID })
		require.Zero(t, w.offer(fresh(s, "c", 1)), "rows are still due")
		w.Drained(func(uuid.UUID) bool { return false })
		require.Equal(t, 1, w.offer(fresh(s, "d", 1)))
	})
}

// In whatever order deliveries are withdrawn, the others are attempted once each, in their order.
func TestAnyOfManyMayBeWithdrawn(t *testing.T) {
	in(t, 100, func(w *world) {
		random := rand.New(rand.NewPCG(1, 2))
		s := w.lane(takes(time.Second, ""), func(s *delivery.Settings) { s.MaxInFlight = 1 })
		all := fresh(s, "a", 500)
		w.offer(all[:400])
		synctest.Wait()
		withdrawn := map[string]bool{}
		w.offer(all[400:])
		for range 5 {
			pass(50 * time.Second)
			for _, i := range random.Perm(500)[:80] {
				if d := all[i]; !withdrawn[d.Event.Key] && !slices.Contains(w.keys(), d.Event.Key) {
					require.False(t, w.Withdraw(d))
					withdrawn[d.Event.Key] = true
				}
			}
		}
		pass(10 * time.Minute)
		want := []string{}
		for _, d := range all {
			if !withdrawn[d.Event.Key] {
				want = append(want, d.Event.Key)
			}
		}
		require.Greater(t, len(withdrawn), 50)
		require.Equal(t, want, w.keys())
	})
}

// How is decided at the moment of sending: a deactivated or invalid subscription stops at once, what was
// claimed goes back, and what waits in memory goes on when it may.
func TestUnusableLane(t *testing.T) {
	for name, change := range map[string]func(*delivery.Settings){
		"inactive": func(s *delivery.Settings) { s.Active = false },
		"invalid":  func(s *delivery.Settings) { s.Invalid = "the filter does not compile" },
	} {
		t.Run(name, func(t *testing.T) {
			in(t, 100, func(w *world) {
				s := w.lane(takes(time.Second, ""), func(s *delivery.Settings) { s.MaxInFlight = 1 })
				w.offer(fresh(s, "a", 2))
				synctest.Wait()
				claimed := fresh(s, "q", 2)
				w.claimed(claimed)
				synctest.Wait()
				require.Equal(t, []string{"a0"}, w.keys())
				off := w.changed(s, change)
				require.Equal(t, claimed, w.givenBack())
				require.Zero(t, w.offer(fresh(s, "b", 1)))
				require.Zero(t, w.claimed(fresh(s, "r", 1)))
				require.Zero(t, w.appetite(s))
				pass(time.Minute)
				require.Equal(t, []string{"a0"}, w.keys())
				asked := w.asked()
				w.changed(off, func(s *delivery.Settings) { s.Active, s.Invalid, s.URL = true, "", "two" })
				require.Greater(t, w.asked(), asked, "rows may be waiting for it")
				pass(time.Minute)
				require.Equal(t, []string{"a0", "a1"}, w.keys())
				require.Equal(t, "two", w.attempts[1].url, "the newest settings")
			})
		})
	}
}

// Settings are read by several at once and may arrive in any order: the newest revision stands.
func TestOlderSettingsArePassedOver(t *testing.T) {
	in(t, 1, func(w *world) {
		s := w.lane(takes(0, ""), nil)
		newer := w.changed(s, func(s *delivery.Settings) { s.URL = "two" })
		w.Set(s)
		require.Same(t, newer, w.Settings(s.SubscriptionID))
		found := w.changed(newer, func(s *delivery.Settings) { s.Revision--; s.Invalid = "found later" })
		require.Same(t, found, w.Settings(s.SubscriptionID), "a finding is no new revision")
	})
}

// A lane that is told of newer settings starts nothing until it has them, neither from memory nor from the queue.
func TestLaneWaitsForTheSettingsItExpects(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(takes(0, ""), nil)
		require.True(t, w.Expect(uuid.New(), 9), "a lane that is made later has the newest settings anyway")
		require.True(t, w.Expect(s.SubscriptionID, s.Revision))
		require.False(t, w.Expect(s.SubscriptionID, s.Revision+2))
		require.Equal(t, 1, w.offer(fresh(s, "a", 1)))
		require.Zero(t, w.appetite(s))
		between := w.changed(s, func(s *delivery.Settings) { s.URL = "between" })
		pass(time.Second)
		require.Empty(t, w.keys())
		w.changed(between, func(s *delivery.Settings) { s.URL = "two" })
		pass(time.Second)
		require.Len(t, w.keys(), 1)
		require.NotZero(t, w.appetite(s))
	})
}

// Nothing is attempted for a subscription that is gone but what is under way; what waited is given back.
func TestRemovedLane(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(takes(time.Second, ""), func(s *delivery.Settings) { s.MaxInFlight = 1 })
		all, claimed := fresh(s, "a", 3), fresh(s, "q", 2)
		w.offer(all)
		synctest.Wait()
		w.claimed(claimed)
		w.Remove(s.SubscriptionID)
		w.Remove(s.SubscriptionID)
		require.ElementsMatch(t, append(claimed, all[1:]...), w.givenBack())
		require.True(t, w.Withdraw(all[0]), "its attempt is under way")
		require.Nil(t, w.Settings(s.SubscriptionID))
		require.Empty(t, w.Known())
		require.Zero(t, w.offer(fresh(s, "b", 1)))
		require.Zero(t, w.claimed(fresh(s, "r", 1)))
		_, known := w.Appetite(s.SubscriptionID, time.Now())
		require.False(t, known)
		pass(time.Minute)
		require.Equal(t, []string{"a0"}, w.keys())
		require.Equal(t, all[:1], w.finished)
	})
}

// Stop lets attempts end, gives back what was claimed and starts nothing more.
func TestStop(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(takes(10*time.Second, ""), func(s *delivery.Settings) { s.MaxInFlight = 2 })
		limited := w.lane(takes(0, ""), func(s *delivery.Settings) { s.RateLimit = 1 })
		memory, claimed := fresh(s, "a", 4), fresh(s, "q", 2)
		w.offer(memory)
		synctest.Wait()
		w.claimed(claimed)
		w.offer(fresh(limited, "l", 5))
		synctest.Wait()
		began := time.Now()
		w.Stop()
		require.Equal(t, 10*time.Second, time.Since(began))
		require.ElementsMatch(t, []string{"a0", "a1", "l0"}, w.keys())
		require.Equal(t, 3, w.ended())
		require.Equal(t, claimed, w.givenBack())
		require.False(t, w.Withdraw(memory[2]), "it waits in memory still")
		require.Zero(t, w.offer(fresh(s, "b", 1)))
		require.Zero(t, w.claimed(fresh(s, "r", 1)))
		require.Zero(t, w.appetite(s))
		w.Stop()
		pass(time.Minute)
		require.Len(t, w.keys(), 3)
	})
}

// After the grace period attempts are broken off.
func TestBrokenOffAttemptsEnd(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(takes(time.Hour, ""), nil)
		w.offer(fresh(s, "a", 3))
		synctest.Wait()
		time.AfterFunc(5*time.Second, w.breakOff)
		began := time.Now()
		w.Stop()
		require.Equal(t, 5*time.Second, time.Since(began))
		require.Equal(t, 3, w.ended())
	})
}

func TestCounts(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(takes(time.Second, ""), nil)
		w.lane(nil, nil)
		w.lane(nil, func(s *delivery.Settings) { s.Active = false })
		w.lane(nil, func(s *delivery.Settings) { s.Invalid = "no" })
		w.lane(nil, func(s *delivery.Settings) { s.Active, s.Invalid = false, "no" })
		w.offer(fresh(s, "a", 3))
		synctest.Wait()
		require.Equal(t, dispatch.Counts{InFlight: 3, Active: 2, Inactive: 1, Invalid: 2}, w.Counts())
		require.Len(t, w.Known(), 5)
		pass(time.Second)
		require.Zero(t, w.Counts().InFlight)
	})
}

// Lanes are objects, not goroutines; senders come when there is work.
func TestIdleLanesHaveNoGoroutines(t *testing.T) {
	in(t, 100, func(w *world) {
		// No timers here: the race detector cannot stand many at a time in a bubble (golang/go#78156).
		answers := func(context.Context, *delivery.Delivery, *delivery.Settings) delivery.Outcome {
			return delivery.Outcome{}
		}
		before := runtime.NumGoroutine()
		lanes := make([]*delivery.Settings, 1000)
		for i := range lanes {
			lanes[i] = w.lane(answers, nil)
		}
		require.LessOrEqual(t, runtime.NumGoroutine(), before)
		for _, s := range lanes {
			w.offer(fresh(s, "a", 2))
		}
		synctest.Wait()
		require.Equal(t, 2000, w.ended())
		require.LessOrEqual(t, runtime.NumGoroutine(), before+100)
	})
}

// When a burst is over, only a few senders wait for the next one.
func TestBurstLeavesFewSendersBehind(t *testing.T) {
	in(t, 100, func(w *world) {
		before := runtime.NumGoroutine()
		for range 5 {
			w.offer(fresh(w.lane(takes(time.Second, ""), nil), "", 40))
		}
		pass(10 * time.Second)
		require.Equal(t, 200, w.ended())
		require.LessOrEqual(t, runtime.NumGoroutine(), before+20)
	})
}
