package relay_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// webhookIDs are the ids of the deliveries that a batch carries.
func webhookIDs(t *testing.T, r harness.Request) []string {
	t.Helper()
	var all []envelope
	require.NoError(t, json.Unmarshal(r.Body, &all), "%.300s", r.Body)
	ids := []string{}
	for _, e := range all {
		ids = append(ids, e.WebhookID)
	}
	return ids
}

// TestFailedBatchIsSentAgain: the same deliveries in the same order under the same X-Webhook-ID, whatever has come
// meanwhile, from memory and through a restart; the attempt counts on.
func TestFailedBatchIsSentAgain(t *testing.T) {
	t.Parallel()
	for _, ordering := range []string{"none", "key", "strict"} {
		t.Run(ordering, func(t *testing.T) {
			t.Parallel()
			url := harness.Database(t)
			db := harness.Connect(t, url)
			r := harness.NewCollector(t)
			r.Script(answer(http.StatusInternalServerError), answer(http.StatusInternalServerError))
			running := start(t, options(url))
			subscribe(t, db, r.URL(), "ordering", "'"+ordering+"'", "batch_size", "6", "batch_wait", "'300 ms'", "max_in_flight", "1", "retry_delay", "'2 s'")
			exec(t, db, `SELECT outbox.publish('x', jsonb_build_object('number', i), key => (ARRAY['a', 'b', 'a', NULL, 'c', 'b'])[i]) FROM generate_series(1, 6) AS i`)
			r.Wait(1, soon)
			exec(t, db, `SELECT outbox.publish('y', jsonb_build_object('number', i), key => 'k' || i) FROM generate_series(7, 9) AS i`)
			recorded(t, db)
			running.stop(t)
			launch(t, running.options)
			settled(t, db)

			first := r.Requests()[0]
			ids := webhookIDs(t, first)
			require.Len(t, ids, 6)
			var again []harness.Request
			for _, q := range r.Requests() {
				if q.Header.Get("X-Webhook-Event") == "x" {
					again = append(again, q)
				}
			}
			// With strict order the second failure may be of the same batch.
			require.GreaterOrEqual(t, len(again), 2)
			for i, q := range again {
				require.Equal(t, ids, webhookIDs(t, q))
				require.Equal(t, first.ID(), q.ID())
				require.Equal(t, fmt.Sprint(i+1), q.Header.Get("X-Webhook-Attempt"))
			}
		})
	}
}

// TestBatchWaitsAndFills: one that is full goes at once, another one when it has waited.
func TestBatchWaitsAndFills(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	start(t, options(url))
	subscribe(t, db, r.URL(), "batch_size", "10", "batch_wait", "'2 s'")
	recorded(t, db)
	exec(t, db, "SELECT outbox.publish('x', '{}') FROM generate_series(1, 23)")
	settled(t, db)
	var sizes []int
	for _, q := range r.Requests() {
		sizes = append(sizes, len(webhookIDs(t, q)))
	}
	require.ElementsMatch(t, []int{10, 10, 3}, sizes)
	require.Equal(t, 23, value[int](t, db, "SELECT count(DISTINCT delivery_id) FROM outbox.attempts WHERE status = 200 AND attempt = 1"))
}

// TestBatchesTurnedOff while one waits for its retry: its deliveries go out one by one, in order.
func TestBatchesTurnedOff(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	r.Script(answer(http.StatusInternalServerError))
	start(t, options(url))
	id := subscribe(t, db, r.URL(), "ordering", "'strict'", "batch_size", "5", "batch_wait", "'300 ms'", "retry_delay", "'1 s'")
	exec(t, db, "SELECT outbox.publish('x', jsonb_build_object('number', i)) FROM generate_series(1, 5) AS i")
	r.Wait(1, soon)
	ids := webhookIDs(t, r.Requests()[0])
	require.Len(t, ids, 5)
	exec(t, db, "UPDATE outbox.subscriptions SET batch_size = 1 WHERE id = $1", id)
	settled(t, db)
	var singly []string
	for _, q := range r.Requests()[1:] {
		require.Equal(t, q.ID(), read(t, q).WebhookID)
		singly = append(singly, q.ID())
	}
	require.Equal(t, ids, singly)
}

// TestHangingTenantLeavesTheQueueToOthers: one tenant's receivers hang over all that they are given from the queue, and
// another one's backlog goes out all the same, without waiting for the claimer to look by itself.
func TestHangingTenantLeavesTheQueueToOthers(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	o := options(url)
	o.MaxSenders = 16
	hangs, r := harness.NewCollector(t), harness.NewCollector(t)
	hold := make(chan struct{})
	hangs.Answer(always(harness.Response{Delay: hold}))
	waiting := 0
	for range 20 {
		waiting += queued(t, db, subscribe(t, db, hangs.URL(), "tenant", "'hangs'"), 40, 10)
	}
	other := subscribe(t, db, r.URL(), "tenant", "'other'")
	started := start(t, o)
	harness.Eventually(t, soon, "the hanging tenant has all it gets", func() bool { return started.Lanes().Claimed >= 48 })
	queued(t, db, other, 1000, 10)
	exec(t, db, "SELECT pg_notify('walhook', 'queue')")
	r.Wait(1000, soon) // the claimer would look by itself after a minute only
	close(hold)
	hangs.Wait(waiting, soon)
	settled(t, db)
}
