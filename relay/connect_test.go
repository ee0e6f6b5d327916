package relay_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay"
	"github.com/walhook/walhook/relay/queue"
	"github.com/walhook/walhook/test/harness"
)

// TestQueueIsNeverReadWhole: the plans of a session that found the queue empty often enough serve as well when a
// receiver's outage has filled it: a claim finds its rows by an index, however many rows there are.
func TestQueueIsNeverReadWhole(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	conn, err := relay.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	run(t, conn, `INSERT INTO outbox.checkpoint (slot_name, lsn, confirmed_lsn, recorded_through, epoch, system_identifier, timeline)
			VALUES ('s', '0/1', '0/1', now(), 1, 'system', 1)`,
		"ALTER TABLE outbox.deliveries SET (autovacuum_enabled = off)", "VACUUM ANALYZE outbox.deliveries")
	q, lane := &queue.Queue{Slot: "s", Epoch: 1, Owner: "relay/s/1"}, uuid.New()
	claim := func() int {
		claimed, err := q.Claim(t.Context(), conn, []queue.Want{{SubscriptionID: lane, N: 64, Bytes: 1 << 20, Lease: time.Minute}}, 1<<20)
		require.NoError(t, err)
		return len(claimed)
	}
	for range 8 { // from the sixth time on Postgres may keep the plan (PREPARE, "Notes")
		require.Zero(t, claim())
	}
	_, err = conn.Exec(t.Context(), `INSERT INTO outbox.deliveries (id, subscription_id, event_id, type, payload, tenant, emitted, created_at,
			committed_at, commit_lsn, commit_index, sequence, next_attempt_at)
		SELECT gen_random_uuid(), $1, gen_random_uuid(), 'a', '{}', '', false, now(), now(), '0/10', n, 'key ' || n % 100,
			CASE WHEN n <= 100 THEN now() ELSE 'infinity' END
		FROM generate_series(1, 2000) AS n`, lane)
	require.NoError(t, err)
	run(t, conn, "BEGIN")
	require.Equal(t, 64, claim())
	var scans int
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relid = 'outbox.deliveries'::regclass").Scan(&scans))
	require.Zero(t, scans)
	run(t, conn, "COMMIT")
}
