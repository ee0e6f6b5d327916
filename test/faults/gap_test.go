package faults_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// Subscriptions change in the gap. Each event goes to those that wanted it when it was made, as it would have through
// the stream.
func TestSubscriptionsOfTheGap(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.publish(2)
	r := db.running()
	db.everythingArrives()
	r.terminate()
	db.released()
	db.do("SELECT pg_drop_replication_slot('" + db.slot + "')")

	db.publish(2) // 3 and 4: for the first subscription alone
	later := harness.NewCollector(t)
	db.subscribe(later)
	db.publish(2) // 5 and 6: for both
	first := db.committed
	db.committed = map[int]bool{}
	db.do("UPDATE outbox.subscriptions SET is_active = false WHERE id = '" + db.subscription.String() + "'")
	db.publish(2) // 7 and 8: for the second one alone
	db.do("UPDATE outbox.subscriptions SET is_active = true WHERE id = '" + db.subscription.String() + "'")
	db.committed = first
	r = db.running()
	db.publish(1)
	db.everythingArrives()
	harness.Eventually(t, soon, "the second subscription has got what is its own", func() bool { return len(db.received(later)) >= 5 })
	got := db.received(later)
	for _, n := range []int{5, 6, 7, 8, 9} {
		require.True(t, got[n], "event %d", n)
	}
	require.Len(t, got, 5)
	r.terminate()
}

// The events of an ordered subscription keep their order over a gap, also those that were waiting in the queue.
func TestOrderOverAGap(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.do("UPDATE outbox.subscriptions SET ordering = 'strict', max_retries = 10, retry_delay = '1 s' WHERE id = '" + db.subscription.String() + "'")
	db.receiver.Answer(func(harness.Request) harness.Response { return harness.Response{Status: 500} })
	r := db.running()
	db.publish(3)
	db.receiver.Wait(1, soon)
	db.inflict(harm{ofSlot: true, waits: true, first: "SELECT pg_drop_replication_slot('SLOT')"})
	db.publish(3)
	harness.Eventually(t, soon, "a recovery is in outbox.recoveries", func() bool {
		return db.answers("SELECT count(*) > 0 FROM outbox.recoveries")
	})
	db.publish(3)
	db.receiver.Answer(nil)
	db.everythingArrives()
	var succeeded []int
	for _, request := range db.receiver.Requests() {
		if n := number(t, request); !slices.Contains(succeeded, n) {
			succeeded = append(succeeded, n)
		}
	}
	require.True(t, slices.IsSorted(succeeded), "order of the first attempts: %v", succeeded)
	r.terminate()
}
