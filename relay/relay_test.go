package relay_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

func TestCommittedEventIsDeliveredAndRecorded(t *testing.T) {
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	id := subscribe(t, db, r.URL(), "secret", "'s3cret'", "event_types", "'{patient.*}'")
	start(t, options(url))

	exec(t, db, `SELECT outbox.publish('patient.created', '{"n": 123456789012345678901234567890.10}', key => 'p1'), outbox.publish('payment.made', '{}')`)
	got := r.Wait(1, 10*time.Second)[0]
	require.Equal(t, "patient.created", got.Header.Get("X-Webhook-Event"))
	require.Contains(t, string(got.Body), `"event_data":{"n": 123456789012345678901234567890.10}`)

	harness.Eventually(t, 5*time.Second, "the attempt is logged", func() bool {
		return value[int](t, db, "SELECT count(*) FROM outbox.calls WHERE subscription_id = $1 AND status = 200", id) == 1
	})
	require.Zero(t, value[int](t, db, "SELECT count(*) FROM outbox.deliveries"))
	harness.Eventually(t, 5*time.Second, "the slot is confirmed", func() bool {
		return value[bool](t, db, "SELECT confirmed_lsn >= checkpoint_lsn AND lag_seconds = 0 FROM outbox.replication_lag")
	})
	r.Quiet(100 * time.Millisecond)
}
