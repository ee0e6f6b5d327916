package relay_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay"
	"github.com/walhook/walhook/test/harness"
)

// TestNothingCanBeRecorded while the stream flows and receivers answer: the relay says that it isn't ready, and
// why, and claims nothing from the queue. When it can record again, it is ready again, and nothing is lost or
// sent twice.
func TestNothingCanBeRecorded(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	subscribe(t, db, r.URL(), "max_in_flight", "100")
	observed := start(t, options(url))
	exec(t, db, "SELECT outbox.publish('a', jsonb_build_object('n', n)) FROM generate_series(1, 10) AS n")
	recorded(t, db)
	require.Equal(t, relay.Health{State: relay.Running}, observed.Health())

	exec(t, db, "ALTER TABLE outbox.attempts ADD CONSTRAINT never CHECK (false) NOT VALID")
	exec(t, db, "SELECT outbox.publish('a', jsonb_build_object('n', n)) FROM generate_series(11, 20) AS n")
	r.Wait(20, soon)
	harness.Eventually(t, soon, "it is not ready", func() bool { return !observed.Health().Ready() })
	require.Equal(t, relay.Reconnecting, observed.Health().State)
	require.Contains(t, observed.Health().Error, `violates check constraint "never"`)

	waiting := queued(t, db, value[uuid.UUID](t, db, "SELECT id FROM outbox.subscriptions"), 5, 100)
	for known := range 2 { // by the second time the claimer has looked at the queue
		subscribe(t, db, r.URL(), "tenant", "'nobody'")
		harness.Eventually(t, soon, "the subscription is known", func() bool { return observed.Lanes().Active == known+2 })
	}
	require.Equal(t, waiting, value[int](t, db, "SELECT count(*) FROM outbox.deliveries WHERE lease_owner IS NULL"), "not claimed")

	exec(t, db, "ALTER TABLE outbox.attempts DROP CONSTRAINT never")
	harness.Eventually(t, soon, "it is ready again", func() bool { return observed.Health() == relay.Health{State: relay.Running} })
	settled(t, db)
	require.Equal(t, 20+waiting, r.Count(), "each once")
	require.Len(t, r.ByID(), 20+waiting)
	require.Equal(t, 20+waiting, value[int](t, db, "SELECT count(*) FROM outbox.attempts WHERE status = 200"))
}

// TestShortTroubleIsNotReported: one connection that breaks, and is opened again at once, is nothing to restart
// the relay for.
func TestShortTroubleIsNotReported(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	subscribe(t, db, r.URL())
	observed := start(t, options(url))
	recorded(t, db)
	exec(t, db, "ALTER TABLE outbox.attempts ADD CONSTRAINT never CHECK (false) NOT VALID")
	exec(t, db, "SELECT outbox.publish('a', '{}')")
	r.Wait(1, soon)
	require.True(t, observed.Health().Ready())
	exec(t, db, "ALTER TABLE outbox.attempts DROP CONSTRAINT never")
	settled(t, db)
	require.Equal(t, relay.Health{State: relay.Running}, observed.Health())
}
