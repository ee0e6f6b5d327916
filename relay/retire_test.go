package relay_test

import (
	"net/http"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// TestGone: a receiver that answers 410 gets nothing more. Its subscription is inactive and says why; what waits is
// kept, and goes out in order when somebody activates it.
func TestGone(t *testing.T) {
	t.Parallel()
	for _, ordering := range []string{"none", "strict"} {
		t.Run(ordering, func(t *testing.T) {
			t.Parallel()
			url := harness.Database(t)
			db := harness.Connect(t, url)
			r := harness.NewCollector(t)
			r.Script(answer(http.StatusOK), answer(http.StatusGone))
			start(t, options(url))
			id := subscribe(t, db, r.URL(), "ordering", "'"+ordering+"'", "max_in_flight", "1", "retry_delay", "'10 ms'")
			exec(t, db, "SELECT outbox.publish('x', jsonb_build_object('number', i)) FROM generate_series(1, 10) AS i")
			harness.Eventually(t, soon, "it is inactive", func() bool {
				return value[bool](t, db, "SELECT NOT is_active AND status_reason IS NOT NULL FROM outbox.subscriptions WHERE id = $1", id)
			})
			require.Regexp(t, `^deactivated at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ: the receiver answered 410 Gone$`,
				value[string](t, db, "SELECT status_reason FROM outbox.subscriptions WHERE id = $1", id))
			require.Equal(t, "valid", value[string](t, db, "SELECT status FROM outbox.subscriptions WHERE id = $1", id))
			recorded(t, db)
			exec(t, db, "SELECT outbox.publish('late', '{}')") // nobody gets it: the subscription is not active any more
			recorded(t, db)
			require.Equal(t, 2, r.Count())
			require.Equal(t, 9, value[int](t, db, "SELECT count(*) FROM outbox.deliveries WHERE subscription_id = $1", id))

			exec(t, db, "SELECT outbox.activate($1)", id)
			settled(t, db)
			require.Empty(t, value[string](t, db, "SELECT coalesce(status_reason, '') FROM outbox.subscriptions WHERE id = $1", id))
			require.Equal(t, 11, r.Count())
			var numbers []int
			for _, q := range r.Requests()[1:] {
				numbers = append(numbers, places(t, q)[0].Number)
			}
			if ordering == "strict" {
				require.Equal(t, []int{2, 2, 3, 4, 5, 6, 7, 8, 9, 10}, numbers)
			}
			require.ElementsMatch(t, []int{2, 2, 3, 4, 5, 6, 7, 8, 9, 10}, numbers)
		})
	}
}

// TestGoneTwice: whoever activates a subscription whose receiver is still gone sees it deactivated again.
func TestGoneTwice(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	r.Answer(always(answer(http.StatusGone)))
	start(t, options(url))
	id := subscribe(t, db, r.URL(), "retry_delay", "'10 ms'")
	exec(t, db, "SELECT outbox.publish('x', '{}')")
	inactive := func() bool {
		return value[bool](t, db, "SELECT NOT is_active AND status_reason IS NOT NULL FROM outbox.subscriptions WHERE id = $1", id)
	}
	harness.Eventually(t, soon, "it is inactive", inactive)
	recorded(t, db)
	require.Equal(t, 1, r.Count())
	exec(t, db, "SELECT outbox.activate($1)", id)
	harness.Eventually(t, soon, "it is inactive again", func() bool { return r.Count() == 2 && inactive() })
}

// TestGoneBesideAChange: a subscription that was changed while its receiver said 410 is another one: it stays active.
func TestGoneBesideAChange(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	gone, moved := harness.NewCollector(t), harness.NewCollector(t)
	hold := make(chan struct{})
	gone.Answer(always(harness.Response{Status: http.StatusGone, Delay: hold}))
	start(t, options(url))
	id := subscribe(t, db, gone.URL(), "retry_delay", "'10 ms'")
	exec(t, db, "SELECT outbox.publish('x', '{}')")
	gone.Wait(1, soon)
	exec(t, db, "UPDATE outbox.subscriptions SET url = $2 WHERE id = $1", id, moved.URL())
	recorded(t, db)
	close(hold)
	moved.Wait(1, soon)
	settled(t, db)
	require.True(t, value[bool](t, db, "SELECT is_active FROM outbox.subscriptions WHERE id = $1", id))
	require.Equal(t, 1, gone.Count())
}

// TestOrderFromTheFirstEventOn: a subscription made in the transaction whose events it gets keeps their order, with the
// first of them failing.
func TestOrderFromTheFirstEventOn(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	var m moody
	r.Answer(m.answer)
	start(t, options(url))
	conn := session(t, url)
	run(t, conn, "BEGIN", "SELECT outbox.publish('before', '{}')")
	_, err := conn.Exec(t.Context(), "INSERT INTO outbox.subscriptions (id, name, url, ordering, retry_delay, max_retries) VALUES ($1, 'n', $2, 'strict', '20 ms', 10)",
		uuid.New(), r.URL())
	require.NoError(t, err)
	run(t, conn, "SELECT outbox.publish('x', jsonb_build_object('number', i)) FROM generate_series(1, 60) AS i", "COMMIT")
	exec(t, db, "SELECT outbox.publish('x', jsonb_build_object('number', i)) FROM generate_series(61, 90) AS i")
	settled(t, db)
	require.Len(t, arrived(t, r, m), 90)
	requireOrder(t, r.Requests(), m.taken, func(place) string { return "" })
}
