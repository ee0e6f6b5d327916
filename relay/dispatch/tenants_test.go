package dispatch_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
)

func of(tenant string) func(*delivery.Settings) {
	return func(s *delivery.Settings) { s.Tenant = tenant }
}

// A tenant whose receivers all hang leaves senders to others, whose deliveries start at once; and its own lanes are all
// served when theirs answer.
func TestTenantWithManyHangingReceivers(t *testing.T) {
	const senders, lanes = 64, 200
	in(t, senders, func(w *world) {
		quick := w.lane(takes(time.Millisecond, ""), of("b"))
		for range lanes {
			w.offer(fresh(w.lane(takes(30*time.Second, ""), of("a")), "a", 2))
		}
		pass(time.Second)
		require.Len(t, w.keys(), tenantPart(senders))
		w.offer(fresh(quick, "b", 1))
		synctest.Wait()
		require.Equal(t, "b0", w.keys()[len(w.keys())-1], "at once")
		w.offer(fresh(quick, "b", 100))
		pass(100 * time.Millisecond)
		require.Len(t, w.keys(), tenantPart(senders)+101)
		pass(10 * 30 * time.Second)
		require.Equal(t, 2*lanes+101, w.ended(), "none is forgotten")
	})
}

// tenantPart is how many senders a tenant gets where another one wants none: three times as many as stay free.
func tenantPart(senders int) int { return senders * 3 / 4 }

// A lane that had to wait for a sender goes on when one is free, however many others that hang wait as well.
func TestParkedLaneIsNotForgotten(t *testing.T) {
	in(t, 16, func(w *world) {
		quick := w.lane(takes(time.Second, ""), of("b"))
		for range 100 {
			w.offer(fresh(w.lane(takes(time.Hour, ""), of("a")), "a", 1))
		}
		pass(time.Second)
		require.Len(t, w.keys(), 12)
		w.offer(fresh(quick, "b", 20))
		pass(30 * time.Second)
		require.Equal(t, 20, w.ended())
		require.GreaterOrEqual(t, w.peak[quick.SubscriptionID], 2)
	})
}

// The same for a tenant's other lanes: they are served as soon as one of them ends.
func TestParkedLanesOfATenantAreNotForgotten(t *testing.T) {
	in(t, 16, func(w *world) {
		w.lane(nil, of("b"))
		for range 100 {
			w.offer(fresh(w.lane(takes(time.Hour, ""), of("a")), "a", 1))
		}
		pass(time.Second)
		for i := range 30 {
			w.offer(fresh(w.lane(takes(time.Second, ""), of("b")), fmt.Sprint("b", i, "-"), 2))
		}
		pass(60 * time.Second)
		require.Equal(t, 60, w.ended())
	})
}

// The same where many tenants have lanes that wait: whoever's attempt ends is looked at first, and its tenant's others.
func TestParkedLanesAmongManyTenants(t *testing.T) {
	for name, lanes := range map[string]int{"one lane": 1, "many lanes": 30} {
		t.Run(name, func(t *testing.T) {
			in(t, 64, func(w *world) {
				var all []*delivery.Settings
				for i := range 30 {
					s := w.lane(takes(time.Hour, ""), func(s *delivery.Settings) { s.Tenant, s.MaxInFlight = fmt.Sprint(i), 64 })
					w.offer(fresh(s, "h", 1))
					all = append(all, s)
				}
				synctest.Wait()
				for _, s := range all {
					w.offer(fresh(s, "h", 63))
				}
				synctest.Wait()
				require.GreaterOrEqual(t, len(w.keys()), 62, "of 64")
				for range lanes {
					w.offer(fresh(w.lane(takes(time.Second, ""), of("quick")), "q", 30/lanes))
				}
				pass(time.Minute)
				require.Equal(t, 30, w.ended())
			})
		})
	}
}

// A lane alone may have as many senders as stay free, and so may one beside others: the rest is for whoever comes.
func TestOneLaneLeavesSenders(t *testing.T) {
	in(t, 20, func(w *world) {
		hangs := w.lane(takes(time.Hour, ""), func(s *delivery.Settings) { s.MaxInFlight = 64 })
		w.offer(fresh(hangs, "h", 100))
		synctest.Wait()
		require.Equal(t, 10, w.peak[hangs.SubscriptionID])
		quick := w.lane(takes(time.Second, ""), nil)
		w.offer(fresh(quick, "q", 4))
		synctest.Wait()
		require.Equal(t, 4, w.peak[quick.SubscriptionID])
	})
}

// Tenants take turns, whatever the number of their subscriptions.
func TestTenantsTakeTurns(t *testing.T) {
	in(t, 1, func(w *world) {
		w.offer(fresh(w.lane(takes(time.Second, ""), of("x")), "x", 1))
		synctest.Wait()
		for i := range 5 {
			w.offer(fresh(w.lane(takes(time.Second, ""), of("a")), fmt.Sprint("a", i), 3))
		}
		w.offer(fresh(w.lane(takes(time.Second, ""), of("b")), "b", 4))
		pass(8500 * time.Millisecond)
		require.Equal(t, []string{"x0", "a00", "b0", "a10", "b1", "a20", "b2", "a30", "b3"}, w.keys())
	})
}

// A subscription that goes over to another tenant is reckoned there, with what it has under way.
func TestTenantOfALaneChanges(t *testing.T) {
	in(t, 16, func(w *world) {
		w.lane(takes(time.Hour, ""), of("b"))
		var all []*delivery.Settings
		for range 40 {
			s := w.lane(takes(time.Hour, ""), of("a"))
			w.offer(fresh(s, "a", 2))
			all = append(all, s)
		}
		synctest.Wait()
		require.Len(t, w.keys(), 12)
		for i, s := range all {
			all[i] = w.changed(s, of("c"))
		}
		w.offer(fresh(w.lane(takes(time.Second, ""), of("a")), "n", 3))
		pass(time.Minute)
		require.Len(t, w.keys(), 12+3)
		for _, s := range all {
			w.Remove(s.SubscriptionID)
		}
		w.offer(fresh(w.lane(takes(time.Hour, ""), of("d")), "d", 16))
		synctest.Wait()
		require.Len(t, w.keys(), 12+3+2, "what is under way is counted, for no tenant")
	})
}

// From the queue as well a lane is given no more than stays free, and a tenant three times as much.
func TestShareOfWhatIsClaimed(t *testing.T) {
	in(t, 16, func(w *world) { // 64 may be claimed
		hangs := func(tenant string) *delivery.Settings {
			return w.lane(takes(time.Hour, ""), func(s *delivery.Settings) { s.Tenant, s.MaxInFlight = tenant, 64 })
		}
		quick := w.lane(takes(time.Second, ""), of("b"))
		first := hangs("a")
		held := 0
		for range 20 {
			n := w.appetite(first)
			held += n
			w.claimed(fresh(first, "a", n))
		}
		require.InDelta(t, 64/2, held, 1, "one lane")
		for range 50 {
			s := hangs("a")
			n := w.appetite(s)
			held += n
			w.claimed(fresh(s, "a", n))
		}
		require.InDelta(t, 64*3/4, held, 1, "the tenant")
		require.GreaterOrEqual(t, w.appetite(quick), 8)
	})
}

// One claim for many lanes of a tenant keeps to that as well, as what is reserved counts.
func TestShareOfOneClaim(t *testing.T) {
	in(t, 16, func(w *world) { // 64 may be claimed
		quick := w.lane(nil, of("b"))
		reserved := 0
		for range 50 {
			s := w.lane(nil, func(s *delivery.Settings) { s.Tenant, s.MaxInFlight = "a", 5 })
			n := w.appetite(s)
			w.Reserve(s.SubscriptionID, n)
			reserved += n
		}
		require.Equal(t, 64*3/4, reserved)
		n, _ := w.Room()
		require.Equal(t, 64/4, n)
		w.Reserve(quick.SubscriptionID, w.appetite(quick))
		w.changed(quick, of("a"))
		w.Remove(quick.SubscriptionID)
		w.Reserve(quick.SubscriptionID, 1)
		w.Unreserve()
		n, _ = w.Room()
		require.Equal(t, 64, n)
	})
}

// Receivers that hang over most of what may be claimed do not keep the claimer from being called for others: it is,
// soon after they have used up what they had.
func TestClaimerIsCalledBesideHangingReceivers(t *testing.T) {
	in(t, 16, func(w *world) {
		quick := w.lane(takes(time.Millisecond, ""), of("b"))
		for range 50 {
			s := w.lane(takes(time.Hour, ""), func(s *delivery.Settings) { s.Tenant, s.MaxInFlight = "a", 64 })
			w.claimed(fresh(s, "a", w.appetite(s)))
			w.Ate(s.SubscriptionID, true)
			w.appetite(s)
		}
		for range 20 {
			n := w.appetite(quick)
			require.Positive(t, n)
			asked := w.asked()
			w.claimed(fresh(quick, "b", n))
			w.Ate(quick.SubscriptionID, true)
			pass(100 * time.Millisecond)
			require.Greater(t, w.asked(), asked, "it has used up what it had, and there is more")
		}
		asked := w.asked()
		n := w.appetite(quick)
		w.claimed(fresh(quick, "b", n))
		w.Ate(quick.SubscriptionID, false)
		w.Short() // lanes were left out that have nothing here
		pass(time.Second)
		require.Greater(t, w.asked(), asked)
	})
}
