package relay_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// lag reads how many bytes of WAL the slot holds back.
func lag(t *testing.T, db *pgxpool.Pool) int64 {
	t.Helper()
	return value[int64](t, db, "SELECT lag_bytes FROM outbox.replication_lag")
}

// TestIdleOutboxInABusyDatabase: other tables write, the outbox does not, and the slot keeps up all the same.
// Then nobody writes, and neither does the relay: the WAL of its own records must not feed it.
func TestIdleOutboxInABusyDatabase(t *testing.T) {
	t.Parallel()
	_, url, db := ownServer(t, map[string]string{"autovacuum": "off"})
	start(t, options(url))
	exec(t, db, "CREATE TABLE unrelated (text text)")
	before := value[string](t, db, "SELECT confirmed_lsn::text FROM outbox.replication_lag")
	for range 4 {
		exec(t, db, "INSERT INTO unrelated SELECT repeat('x', 1000) FROM generate_series(1, 4000)")
	}
	require.Greater(t, value[int64](t, db, "SELECT (pg_current_wal_lsn() - $1::text::pg_lsn)::bigint", before), int64(15<<20))
	harness.Eventually(t, 20*time.Second, "the slot has followed", func() bool { return lag(t, db) < 64<<10 })
	require.Zero(t, value[float64](t, db, "SELECT lag_seconds FROM outbox.replication_lag"))

	// Postgres itself notes running transactions now and then, in some hundred bytes.
	const quiet = 6 * time.Second
	from := value[string](t, db, "SELECT pg_current_wal_lsn()::text")
	<-time.After(quiet)
	require.Less(t, value[int64](t, db, "SELECT (pg_current_wal_lsn() - $1::text::pg_lsn)::bigint", from), int64(2<<10), "bytes of WAL in %s of silence", quiet)
}

// TestDeadReceiversDoNotHoldBackTheLog has nobody who listens: deliveries pile up in the queue, the WAL
// doesn't. Then the receiver comes up and gets them all.
func TestDeadReceiversDoNotHoldBackTheLog(t *testing.T) {
	t.Parallel()
	_, url, db := ownServer(t, nil)
	address := refusing(t)
	subscribe(t, db, "http://"+address, "max_in_flight", "500", "max_retries", "10", "retry_delay", "'1 s'")
	start(t, options(url))
	const batches, size, bound = 40, 500, 1 << 20
	for range batches {
		exec(t, db, "SELECT outbox.publish('a', jsonb_build_object('n', n)) FROM generate_series(1, $1::int) AS n", size)
		// The writer outruns a relay that the machine has no time for, so it waits, but not for receivers.
		harness.Eventually(t, soon, "the slot follows although nobody listens", func() bool { return lag(t, db) < bound })
	}
	recorded(t, db)
	require.Equal(t, batches*size, value[int](t, db, "SELECT count(*) FROM outbox.deliveries"))
	require.Zero(t, value[int](t, db, "SELECT count(*) FROM outbox.attempts WHERE error IS NULL"))

	r := harness.NewCollector(t, harness.ListenOn(address), harness.DiscardBodies())
	r.Wait(batches*size, 5*time.Minute) // there is work to do
	settled(t, db)
	require.Len(t, r.ByID(), batches*size)
	require.Equal(t, batches*size, r.Count(), "each once")
}
