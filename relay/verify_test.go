package relay_test

import (
	"net/http"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// agreeing answers CloudEvents' question as told, and everything else with 200.
func agreeing(agrees bool) func(harness.Request) harness.Response {
	return func(r harness.Request) harness.Response {
		if r.Method == http.MethodOptions && agrees {
			return harness.Response{Status: http.StatusOK, Header: http.Header{"WebHook-Allowed-Origin": {"*"}}}
		}
		return answer(http.StatusOK)
	}
}

// deliveries are the requests that are no questions.
func deliveries(r *harness.Collector) int {
	n := 0
	for _, q := range r.Requests() {
		if q.Method == http.MethodPost {
			n++
		}
	}
	return n
}

// refused waits until the subscription says that its receiver has not agreed.
func refused(t *testing.T, db *pgxpool.Pool, id uuid.UUID) {
	t.Helper()
	harness.Eventually(t, soon, "the refusal is visible", func() bool {
		return value[bool](t, db, "SELECT verified_at IS NULL AND coalesce(verification_error, '') LIKE '%WebHook-Allowed-Origin%' FROM outbox.subscriptions WHERE id = $1", id)
	})
}

// TestVerification: nothing is sent before the receiver has agreed, nor after the subscription got another one; what
// waits meanwhile goes out when it agrees, also to another relay.
func TestVerification(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	deaf, first, second := harness.NewCollector(t), harness.NewCollector(t), harness.NewCollector(t)
	deaf.Answer(agreeing(false))
	first.Answer(agreeing(true))
	second.Answer(agreeing(false))
	o := options(url)
	one := start(t, o)
	id := subscribe(t, db, deaf.URL(), "verification", "'cloudevents'")
	refused(t, db, id)
	exec(t, db, "SELECT outbox.publish('x', '{}')")
	recorded(t, db)
	require.Zero(t, deliveries(deaf))
	require.Equal(t, 1, value[int](t, db, "SELECT count(*) FROM outbox.queue WHERE state = 'inactive' AND attempts = 0"))

	exec(t, db, "UPDATE outbox.subscriptions SET url = $1", first.URL())
	settled(t, db)
	require.Equal(t, 1, deliveries(first))
	require.True(t, value[bool](t, db, "SELECT verified_at IS NOT NULL AND verification_error IS NULL FROM outbox.subscriptions"))

	exec(t, db, "UPDATE outbox.subscriptions SET url = $1", second.URL())
	exec(t, db, "SELECT outbox.publish('x', '{}')")
	refused(t, db, id)
	recorded(t, db)
	require.Zero(t, deliveries(second))
	one.stop(t)

	second.Answer(agreeing(true))
	launch(t, o)
	settled(t, db)
	require.Equal(t, 1, deliveries(second))
	require.Equal(t, 1, deliveries(first))
	require.Zero(t, deliveries(deaf))
}

// TestInactiveReceiversAreNotAsked: an inactive subscription's receiver is asked when it is activated.
func TestInactiveReceiversAreNotAsked(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	off, on := harness.NewCollector(t), harness.NewCollector(t)
	off.Answer(agreeing(true))
	on.Answer(agreeing(true))
	start(t, options(url))
	id := subscribe(t, db, off.URL(), "verification", "'cloudevents'", "is_active", "false")
	subscribe(t, db, on.URL(), "verification", "'cloudevents'")
	on.Wait(1, soon)
	require.Zero(t, off.Count())
	exec(t, db, "SELECT outbox.activate($1)", id)
	off.Wait(1, soon)
}
