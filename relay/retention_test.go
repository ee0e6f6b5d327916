package relay_test

import (
	"net/http"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// TestPendingDeliveryOutlivesItsEvent: the event's partition goes once the event is recorded, and what waits is still
// delivered as it would have been.
func TestPendingDeliveryOutlivesItsEvent(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	r.Script(harness.Response{Status: http.StatusServiceUnavailable})
	subscribe(t, db, r.URL(), "retry_delay", "'1 hour'")
	day := value[string](t, db, "SELECT to_char((now() - interval '20 days') AT TIME ZONE 'UTC', 'YYYYMMDD')")
	_, err := db.Exec(t.Context(), value[string](t, db, `SELECT format('CREATE TABLE outbox.events_p%s PARTITION OF outbox.events FOR VALUES FROM (%L) TO (%L)',
		$1::text, outbox.uuid_floor(at), outbox.uuid_floor(at + interval '1 day'))
		FROM (SELECT to_timestamp($1 || ' 00', 'YYYYMMDD TZH')) AS d(at)`, day), pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
	start(t, options(url))
	exec(t, db, `INSERT INTO outbox.events (id, type, payload, created_at)
		SELECT outbox.uuid_floor(now() - interval '20 days'), 'old', '{"n": 1.10}', now() - interval '20 days'`)
	require.Equal(t, 1, value[int](t, db, "SELECT count(*) FROM outbox.events_p"+day))
	r.Wait(1, soon)
	harness.Eventually(t, soon, "it waits", func() bool { return value[int](t, db, "SELECT count(*) FROM outbox.deliveries") == 1 })

	harness.Eventually(t, soon, "the event is certainly recorded, and its partition goes", func() bool {
		return value[bool](t, db, "SELECT $1 IN (SELECT outbox.drop_partitions('3 days', '3 days', '3 days'))", "events_p"+day)
	})
	exec(t, db, "SELECT outbox.redeliver(id) FROM outbox.deliveries")
	again := r.Wait(2, soon)[1]
	require.Contains(t, string(again.Body), `"event_data":{"n": 1.10}`)
	require.Equal(t, "2", again.Header.Get("X-Webhook-Attempt"))
	settled(t, db)
}
