package relay_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/dispatch"
	"github.com/walhook/walhook/test/harness"
)

// TestBacklogMeetsTheRulesOfItsTime stops the relay, lets events and changes of subscriptions pile up, and
// starts it again: what was committed under the old rules follows the old rules.
func TestBacklogMeetsTheRulesOfItsTime(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	byType, byFilter, created, deactivated := harness.NewCollector(t), harness.NewCollector(t), harness.NewCollector(t), harness.NewCollector(t)
	typed := subscribe(t, db, byType.URL(), "event_types", "'{old}'")
	filtered := subscribe(t, db, byFilter.URL(), "filters", `'{"v": 1}'`)
	stopped := subscribe(t, db, deactivated.URL(), "event_types", "'{old}'")
	first := start(t, options(url))
	exec(t, db, `SELECT outbox.publish('old', '{"v": 1, "n": 1}')`)
	settled(t, db)
	first.stop(t)

	exec(t, db, `SELECT outbox.publish('old', '{"v": 1, "n": 2}')`)
	exec(t, db, "UPDATE outbox.subscriptions SET event_types = '{new}' WHERE id = $1", typed)
	exec(t, db, `UPDATE outbox.subscriptions SET filters = '{"v": 2}' WHERE id = $1`, filtered)
	exec(t, db, "SELECT outbox.deactivate($1)", stopped)
	subscribe(t, db, created.URL())
	exec(t, db, `SELECT outbox.publish('old', '{"v": 1, "n": 3}')`)
	exec(t, db, `SELECT outbox.publish('new', '{"v": 2, "n": 4}')`)

	start(t, first.options)
	recorded(t, db)
	exec(t, db, "SELECT outbox.activate($1)", stopped)
	settled(t, db)
	for _, c := range []struct {
		name string
		r    *harness.Collector
		want []string
	}{
		{"other types", byType, []string{"1", "2", "4"}},
		{"other filters", byFilter, []string{"1", "2", "4"}},
		{"created after the first two", created, []string{"3", "4"}},
		{"deactivated after the first two", deactivated, []string{"1", "2"}},
	} {
		got := []string{}
		for _, request := range c.r.Requests() {
			got = append(got, number(t, request))
		}
		require.ElementsMatch(t, c.want, got, c.name)
	}
}

// TestFilterThatDoesNotCompile disables its subscription, says why, and leaves everybody else alone.
func TestFilterThatDoesNotCompile(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	broken, healthy := harness.NewCollector(t), harness.NewCollector(t)
	id := subscribe(t, db, broken.URL())
	subscribe(t, db, healthy.URL())
	r := start(t, options(url))
	status := func(want string) {
		t.Helper()
		harness.Eventually(t, soon, "the subscription is "+want, func() bool {
			return value[string](t, db, "SELECT concat_ws(' ', status, substring(status_reason FROM 'lessthan')) FROM outbox.subscriptions WHERE id = $1", id) == want
		})
	}

	exec(t, db, `UPDATE outbox.subscriptions SET filters = '{"amount": {"lessthan": 3}}' WHERE id = $1`, id)
	exec(t, db, "SELECT outbox.publish('while.broken', '{}')")
	status("invalid lessthan")
	settled(t, db)
	require.Equal(t, []string{"while.broken"}, types(healthy.Requests()))
	require.Zero(t, broken.Count())
	harness.Eventually(t, soon, "one lane is invalid", func() bool { return r.Lanes().Invalid == 1 })

	// A restart changes nothing of that.
	r.stop(t)
	r = start(t, r.options)
	exec(t, db, "SELECT outbox.publish('still.broken', '{}')")
	settled(t, db)
	require.Zero(t, broken.Count())
	require.Equal(t, dispatch.Counts{Active: 1, Invalid: 1}, r.Lanes())

	exec(t, db, `UPDATE outbox.subscriptions SET filters = '{"amount": {"lt": 3}}' WHERE id = $1`, id)
	status("valid")
	exec(t, db, `SELECT outbox.publish('repaired', '{"amount": 2}'), outbox.publish('no.match', '{"amount": 3}')`)
	settled(t, db)
	require.Equal(t, []string{"repaired"}, types(broken.Requests()))
	require.Equal(t, 4, healthy.Count())
	status("valid")
}

// TestSubscriptionThatIsCreatedInvalid is repaired like any other.
func TestSubscriptionThatIsCreatedInvalid(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	start(t, options(url))
	id := subscribe(t, db, r.URL(), "filters", `'{"a_min": "x"}'`)
	harness.Eventually(t, soon, "it is invalid", func() bool {
		return value[bool](t, db, "SELECT status = 'invalid' AND status_reason LIKE '%a_min%' FROM outbox.subscriptions WHERE id = $1", id)
	})
	exec(t, db, "UPDATE outbox.subscriptions SET filters = '{}' WHERE id = $1", id)
	exec(t, db, "SELECT outbox.publish('a', '{}')")
	settled(t, db)
	require.Equal(t, 1, r.Count())
}

// TestInvalidSubscriptionHoldsWhatWaits until it is repaired.
func TestInvalidSubscriptionHoldsWhatWaits(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	c := harness.NewCollector(t)
	c.Script(answer(500))
	id := subscribe(t, db, c.URL(), "retry_delay", "'1 s'")
	r := start(t, options(url))
	exec(t, db, "SELECT outbox.publish('a', '{}')")
	c.Wait(1, soon)
	exec(t, db, `UPDATE outbox.subscriptions SET filters = '{"a": {}}' WHERE id = $1`, id)
	harness.Eventually(t, soon, "the lane is invalid", func() bool { return r.Lanes().Invalid == 1 })
	harness.Eventually(t, soon, "the retry has been due for a while", func() bool {
		return value[int](t, db, "SELECT count(*) FROM outbox.queue WHERE state = 'inactive' AND next_attempt_at < now() - interval '300 ms'") == 1
	})
	require.Equal(t, 1, c.Count())
	exec(t, db, "UPDATE outbox.subscriptions SET filters = '{}' WHERE id = $1", id)
	c.Wait(2, soon)
	settled(t, db)
}

// TestDeactivatedSubscriptionHoldsWhatWaits until it is activated: what waits for a retry, what was claimed
// and what is still in memory.
func TestDeactivatedSubscriptionHoldsWhatWaits(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	c := harness.NewCollector(t)
	hold := make(chan struct{})
	c.Script(harness.Response{Status: 500, Delay: hold})
	id := subscribe(t, db, c.URL(), "retry_delay", "'1 ms'", "max_in_flight", "1")
	r := start(t, options(url))
	exec(t, db, "SELECT outbox.publish('a', '{}') FROM generate_series(1, 50)")
	c.Wait(1, soon) // the others stand behind it
	exec(t, db, "SELECT outbox.deactivate($1)", id)
	harness.Eventually(t, soon, "the lane is inactive", func() bool { return r.Lanes().Inactive == 1 })
	close(hold)
	exec(t, db, "SELECT outbox.publish('missed', '{}')") // nobody subscribes to it now
	recorded(t, db)
	harness.Eventually(t, soon, "all of them have been due for a while", func() bool {
		return value[int](t, db, "SELECT count(*) FROM outbox.queue WHERE state = 'inactive' AND next_attempt_at < now() - interval '300 ms'") == 50
	})
	require.Equal(t, 1, c.Count())

	// A restart holds them as well.
	r.stop(t)
	r = start(t, r.options)
	recorded(t, db)
	require.Equal(t, 1, r.Lanes().Inactive)
	require.Equal(t, 1, c.Count())

	exec(t, db, "SELECT outbox.activate($1)", id)
	settled(t, db)
	require.Equal(t, 51, c.Count())
	require.Len(t, c.ByID(), 50)
	require.NotContains(t, types(c.Requests()), "missed")
}

// TestNewSettingsApplyToWhatWaits: the address, the headers and the secret are those of the moment of sending.
func TestNewSettingsApplyToWhatWaits(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	before, after := harness.NewCollector(t), harness.NewCollector(t)
	before.Answer(always(answer(500)))
	id := subscribe(t, db, before.URL(), "retry_delay", "'300 ms'", "max_retries", "10")
	start(t, options(url))
	exec(t, db, "SELECT outbox.publish('a', '{}')")
	before.Wait(2, soon)
	exec(t, db, `UPDATE outbox.subscriptions SET url = $2, headers = '{"X-New": "yes"}', secret = 's' WHERE id = $1`, id, after.URL()+"/new")
	got := after.Wait(1, soon)[0]
	settled(t, db)
	require.Equal(t, "yes", got.Header.Get("X-New"))
	require.NotEmpty(t, got.Header.Get("X-Webhook-Signature"))
	require.Equal(t, "/new", got.Path)
	sameDelivery(t, append(before.Requests(), got))
	require.Equal(t, 1, value[int](t, db, "SELECT count(*) FROM outbox.calls WHERE url = $1 AND request_headers ? 'X-Webhook-Signature'", after.URL()+"/new"))
	require.Equal(t, before.Count(), value[int](t, db, "SELECT count(*) FROM outbox.calls WHERE url = $1 AND status = 500", before.URL()))
}

// TestDeletedSubscription makes dead letters of what waits, with what happened to it before.
func TestDeletedSubscription(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	c := harness.NewCollector(t)
	c.Answer(always(answer(500)))
	id := subscribe(t, db, c.URL(), "retry_delay", "'1 hour'")
	start(t, options(url))
	exec(t, db, "SELECT outbox.publish('a', '{}') FROM generate_series(1, 5)")
	c.Wait(5, soon)
	recorded(t, db)
	require.Equal(t, 5, value[int](t, db, "SELECT count(*) FROM outbox.deliveries"))
	exec(t, db, "DELETE FROM outbox.subscriptions WHERE id = $1", id)
	settled(t, db)
	require.Equal(t, 5, value[int](t, db, `SELECT count(*) FROM outbox.dead_letters WHERE subscription_id = $1 AND attempts = 1
		AND last_status = 500 AND last_error LIKE 'the subscription was deleted; before that: %500%'`, id))
	require.Equal(t, 5, c.Count())
}

// TestSubscriptionThatIsDeletedUnderAnAttempt: the attempt ends, and what it achieved counts. Deliveries that
// stood behind it in memory were never attempted and become dead letters.
func TestSubscriptionThatIsDeletedUnderAnAttempt(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	c := harness.NewCollector(t)
	hold := make(chan struct{})
	c.Answer(always(harness.Response{Delay: hold}))
	id := subscribe(t, db, c.URL(), "max_in_flight", "2")
	o := options(url)
	o.SpillAfter = 200 * time.Millisecond
	r := start(t, o)
	exec(t, db, "SELECT outbox.publish('a', '{}') FROM generate_series(1, 10)")
	c.Wait(2, soon)
	exec(t, db, "DELETE FROM outbox.subscriptions WHERE id = $1", id)
	harness.Eventually(t, soon, "the lane is gone", func() bool { return r.Lanes().Active == 0 })
	recorded(t, db) // all ten are old enough to become rows of the queue
	harness.Eventually(t, soon, "eight are dead letters", func() bool {
		return value[int](t, db, "SELECT count(*) FROM outbox.dead_letters WHERE attempts = 0") >= 8
	})
	close(hold)
	settled(t, db)
	harness.Eventually(t, soon, "two attempts are in the log", func() bool { return len(calls(t, db, id)) == 2 })
	require.Equal(t, []int{200, 200}, statuses(calls(t, db, id)))
	require.Equal(t, 8, value[int](t, db, "SELECT count(*) FROM outbox.dead_letters"), "what was delivered is no dead letter")
	require.Equal(t, 2, c.Count())
}

// TestTenantsAreSeparate: the empty tenant is one as well, not all of them.
func TestTenantsAreSeparate(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	start(t, options(url))
	collectors := map[string]*harness.Collector{}
	for _, tenant := range []string{"", "a", "b"} {
		collectors[tenant] = harness.NewCollector(t)
		subscribe(t, db, collectors[tenant].URL(), "tenant", "'"+tenant+"'")
	}
	for _, function := range []string{"publish", "emit"} {
		for _, tenant := range []string{"", "a", "b", "c"} {
			exec(t, db, "SELECT outbox."+function+"($1, '{}', tenant => $2)", function+".for."+tenant+"!", tenant)
		}
	}
	settled(t, db)
	for tenant, r := range collectors {
		require.ElementsMatch(t, []string{"publish.for." + tenant + "!", "emit.for." + tenant + "!"}, types(r.Requests()))
	}
}
