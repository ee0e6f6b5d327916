package relay_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// TestSlotWaitsForTheCheckpoint: as long as one delivery is neither finished nor in the queue, Postgres is not
// told that its position is no longer needed, however much comes after it and however often it is told something.
func TestSlotWaitsForTheCheckpoint(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	hold := make(chan struct{})
	r.Script(harness.Response{Delay: hold})
	subscribe(t, db, r.URL())
	o := options(url)
	o.SpillAfter, o.StatusInterval = time.Hour, 20*time.Millisecond
	start(t, o)
	before := value[string](t, db, "SELECT pg_current_wal_lsn()::text")
	exec(t, db, "SELECT outbox.publish('held', '{}')")
	r.Wait(1, soon)
	for range 10 {
		exec(t, db, "SELECT outbox.publish('next', '{}'), outbox.publish('nobody', '{}', tenant => 'nobody')")
	}
	r.Wait(11, soon)
	reported(t, db, o.Slot)
	require.True(t, value[bool](t, db, `SELECT s.confirmed_flush_lsn <= c.confirmed_lsn AND c.lsn <= $1::text::pg_lsn
		FROM pg_replication_slots s JOIN outbox.checkpoint c USING (slot_name)`, before), "slot and checkpoint stand before the event that is held")
	require.Zero(t, value[int](t, db, "SELECT count(*) FROM outbox.attempts"), "nothing behind it is recorded either")

	close(hold)
	settled(t, db)
	harness.Eventually(t, soon, "the slot follows", func() bool {
		return value[bool](t, db, "SELECT confirmed_lsn > $1::text::pg_lsn FROM outbox.replication_lag", before)
	})
	require.Equal(t, 11, r.Count())
}

// TestSlotWaitsForTheRecordTransaction: a delivery that has ended is not recorded before its transaction has
// committed, which somebody here delays.
func TestSlotWaitsForTheRecordTransaction(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	subscribe(t, db, r.URL())
	o := options(url)
	o.StatusInterval = 20 * time.Millisecond
	start(t, o)
	recorded(t, db)
	conn := session(t, url)
	run(t, conn, "BEGIN", "LOCK TABLE outbox.attempts IN EXCLUSIVE MODE")
	before := value[string](t, db, "SELECT pg_current_wal_lsn()::text")
	exec(t, db, "SELECT outbox.publish('a', '{}')")
	r.Wait(1, soon)
	harness.Eventually(t, soon, "the record transaction waits", func() bool {
		return value[bool](t, db, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'outbox.attempts'::regclass)")
	})
	reported(t, db, o.Slot)
	require.True(t, value[bool](t, db, "SELECT confirmed_lsn <= $1::text::pg_lsn FROM outbox.replication_lag", before))

	run(t, conn, "COMMIT")
	harness.Eventually(t, soon, "the slot follows", func() bool {
		return value[bool](t, db, "SELECT confirmed_lsn > $1::text::pg_lsn FROM outbox.replication_lag", before)
	})
}

// reported waits until the relay has told Postgres several times where it stands.
func reported(t *testing.T, db *pgxpool.Pool, slot string) {
	t.Helper()
	const reply = "SELECT coalesce(max(reply_time), to_timestamp(0)) FROM pg_stat_replication WHERE pid = (SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1)"
	for range 5 {
		last := value[time.Time](t, db, reply, slot)
		harness.Eventually(t, soon, "another status has come", func() bool { return value[time.Time](t, db, reply, slot).After(last) })
	}
}

// TestStopInTheMiddleOfATransaction: a transaction that is larger than what memory may hold is recorded in
// pieces, and the next relay goes on inside of it.
func TestStopInTheMiddleOfATransaction(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	r.Answer(after(10 * time.Millisecond)) // slow enough for every stop to come before the transaction's end
	subscribe(t, db, r.URL(), "max_in_flight", "4")
	o := options(url)
	o.MaxUnrecorded = 50
	first := start(t, o)
	const size = 2000
	conn := session(t, url)
	run(t, conn, "BEGIN",
		"SELECT outbox.publish('a', '{}') FROM generate_series(1, 1000)",
		"SELECT outbox.emit('a', '{}') FROM generate_series(1, 1000)",
		"UPDATE outbox.subscriptions SET event_types = '{b}'", // the last row: after the restart it still follows
		"SELECT outbox.publish('a', '{}')",
		"SELECT outbox.publish('b', '{}')", "COMMIT")
	for at := 1; at < 1600; at += 400 {
		r.Wait(at, soon)
		first.stop(t)
		index := value[int](t, db, "SELECT index FROM outbox.checkpoint")
		require.Greater(t, index, at-1, "the checkpoint stands inside of the transaction")
		require.Less(t, index, size)
		require.True(t, value[bool](t, db, "SELECT confirmed_lsn < lsn FROM outbox.checkpoint"), "and Postgres still needs all of it")
		first = start(t, o)
	}
	settled(t, db)
	require.Equal(t, size+1, r.Count(), "each once, and only the last of the two after the change")
	require.Len(t, r.ByID(), size+1)
	require.Equal(t, 1, value[int](t, db, "SELECT count(*) FROM outbox.calls WHERE payload ->> 'event_type' = 'b'"))
}
