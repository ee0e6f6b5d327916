package sql_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// partitioned are the tables with daily partitions.
var partitioned = []string{"attempts", "dead_letters", "emitted_events", "events", "subscription_samples", "wal_samples"}

// days names the daily partitions of all tables, from today on.
func days(n int) []string {
	var names []string
	for _, table := range partitioned {
		for i := range n {
			names = append(names, table+time.Now().UTC().AddDate(0, 0, i).Format("_p20060102"))
		}
	}
	return names
}

const partitions = `SELECT c.relname::text FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
	WHERE c.relnamespace = 'outbox'::regnamespace AND c.relkind = 'r' AND c.relname ~ '_p[0-9]{8}$' ORDER BY 1`

func TestPartitionsAreMadeAhead(t *testing.T) {
	t.Parallel()
	db := connect(t)
	require.Equal(t, days(8), texts(t, db, partitions), "today and a week")
	require.Empty(t, texts(t, db, "SELECT outbox.create_partitions('7 days')"), "they are there already")
	require.Len(t, texts(t, db, "SELECT outbox.create_partitions('9 days')"), len(partitioned)*2)
	require.Equal(t, days(10), texts(t, db, partitions))
}

func TestRowsFindTheirPartition(t *testing.T) {
	t.Parallel()
	db := connect(t)
	const insert = "INSERT INTO outbox.events (id, type) VALUES (%, 'x') RETURNING tableoid::regclass::text"
	today := "outbox.events" + time.Now().UTC().Format("_p20060102")
	for id, want := range map[string]string{
		"outbox.uuidv7()": today,
		"outbox.uuid_floor(now() - interval '2 day')":  "outbox.events_default",
		"outbox.uuid_floor(now() + interval '1 year')": "outbox.events_default",
		"gen_random_uuid()":                            "outbox.events_default", // a version 4 id lies in no partition's time, all but never
	} {
		require.Equal(t, want, value[string](t, db, strings.Replace(insert, "%", id, 1)), id)
	}
}

// A day whose rows are in the DEFAULT partition already stays there: nothing fails.
func TestPartitionThatCannotBeMade(t *testing.T) {
	t.Parallel()
	db := connect(t)
	exec(t, db, "INSERT INTO outbox.events (id, type) VALUES (outbox.uuid_floor(now() + interval '9 days'), 'x')")
	made := texts(t, db, "SELECT outbox.create_partitions('10 days')")
	require.Len(t, made, len(partitioned)*3-1)
	require.NotContains(t, made, "events"+time.Now().UTC().AddDate(0, 0, 9).Format("_p20060102"))
}

const checkpoint = `INSERT INTO outbox.checkpoint (slot_name, lsn, confirmed_lsn, recorded_through, system_identifier, timeline)
	VALUES ($1, '0/1', '0/1', $2::text::timestamptz, 'system', 1)`

// The lag is the age of the oldest row that is not recorded.
func TestReplicationLag(t *testing.T) {
	t.Parallel()
	db := connect(t)
	exec(t, db, checkpoint, "s", "now")
	lag := func() float64 { return value[float64](t, db, "SELECT lag_seconds FROM outbox.replication_lag") }
	require.Zero(t, lag())
	require.Equal(t, "lost", value[string](t, db, "SELECT wal_status FROM outbox.replication_lag"), "the slot does not exist")
	require.False(t, value[bool](t, db, "SELECT active FROM outbox.replication_lag"))
	exec(t, db, "UPDATE outbox.checkpoint SET recorded_through = now() - interval '1 hour'")
	exec(t, db, "INSERT INTO outbox.events (id, type, created_at) VALUES (outbox.uuid_floor(now() - interval '90 minutes'), 'recorded', now() - interval '90 minutes')")
	exec(t, db, "INSERT INTO outbox.events (id, type, created_at) VALUES ('ffffffff-ffff-4fff-8fff-ffffffffffff', 'recorded', now() - interval '90 minutes')") // no UUIDv7
	require.Zero(t, lag())
	exec(t, db, `INSERT INTO outbox.events (id, type, created_at) SELECT outbox.uuid_floor(at), 'waiting', at
		FROM unnest(ARRAY[now() - interval '30 minutes', now() - interval '10 minutes']) AS at`)
	require.InDelta(t, 1800, lag(), 60)
}

// Times that an event should not have are refused, and the lag stands rows that have them all the same.
func TestTimesWithoutEnd(t *testing.T) {
	t.Parallel()
	db := connect(t)
	for _, at := range []string{"infinity", "-infinity"} {
		_, err := db.Exec(t.Context(), "INSERT INTO outbox.events (type, created_at) VALUES ('x', $1::text::timestamptz)", at)
		require.ErrorContains(t, err, "events_created_at_is_finite", at)
	}
	exec(t, db, checkpoint, "s", "2020-01-01")
	exec(t, db, "ALTER TABLE outbox.events DROP CONSTRAINT events_created_at_is_finite")
	exec(t, db, "INSERT INTO outbox.events (type, created_at) VALUES ('x', 'infinity'), ('x', '-infinity')")
	require.Zero(t, value[float64](t, db, "SELECT lag_seconds FROM outbox.replication_lag"))
	exec(t, db, "INSERT INTO outbox.events (type, created_at) VALUES ('x', now() + interval '1 day')")
	require.Zero(t, value[float64](t, db, "SELECT lag_seconds FROM outbox.replication_lag"), "an event of the future is not older than nothing")
}

func TestSubscriptionTriggers(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	listener, err := db.Acquire(t.Context())
	require.NoError(t, err)
	defer listener.Release()
	_, err = listener.Exec(t.Context(), "LISTEN walhook")
	require.NoError(t, err)

	id := value[uuid.UUID](t, db, "INSERT INTO outbox.subscriptions (name, url) VALUES ('n', 'http://localhost') RETURNING id")
	revision := func() int { return value[int](t, db, "SELECT revision FROM outbox.subscriptions") }
	first := revision()
	n, err := listener.Conn().WaitForNotification(t.Context())
	require.NoError(t, err)
	require.Equal(t, "subscription "+id.String(), n.Payload)

	// What the relay finds is no change of the subscription; what the user changes clears it.
	exec(t, db, "UPDATE outbox.subscriptions SET status = 'invalid', status_reason = 'why'")
	require.Equal(t, first, revision())
	require.Equal(t, "why", value[string](t, db, "SELECT status_reason FROM outbox.subscriptions"))
	exec(t, db, "UPDATE outbox.subscriptions SET url = 'http://127.0.0.1'")
	require.Greater(t, revision(), first)
	require.Equal(t, "valid", value[string](t, db, "SELECT status || coalesce(status_reason, '') FROM outbox.subscriptions"))
	require.Equal(t, []string{"http://localhost", "http://127.0.0.1"}, texts(t, db, "SELECT url FROM outbox.subscription_revisions ORDER BY revision"))

	_, err = db.Exec(t.Context(), "UPDATE outbox.subscriptions SET id = gen_random_uuid()")
	require.ErrorContains(t, err, "cannot change")
	_, err = db.Exec(t.Context(), "TRUNCATE outbox.subscriptions")
	require.ErrorContains(t, err, "use DELETE")

	exec(t, db, "SELECT outbox.deactivate($1)", id)
	require.False(t, value[bool](t, db, "SELECT is_active FROM outbox.subscriptions"))
	exec(t, db, "SELECT outbox.activate($1)", id)
	require.True(t, value[bool](t, db, "SELECT is_active FROM outbox.subscriptions"))
	for _, function := range []string{"activate", "deactivate"} {
		_, err = db.Exec(t.Context(), "SELECT outbox."+function+"($1)", uuid.UUID{1})
		require.ErrorContains(t, err, "there is no subscription 01000000-0000-0000-0000-000000000000", function)
	}
}

// redeliver says why it cannot.
func TestRedeliverRefuses(t *testing.T) {
	t.Parallel()
	db := connect(t)
	id := uuid.New()
	_, err := db.Exec(t.Context(), "SELECT outbox.redeliver($1)", id)
	require.ErrorContains(t, err, "there is no delivery "+id.String())

	exec(t, db, `INSERT INTO outbox.attempts (attempted_at, committed_at, delivery_id, event_id, subscription_id, revision, epoch, duration_us, attempt, status)
		VALUES (now(), now(), $1, gen_random_uuid(), gen_random_uuid(), 1, 1, 1, 1, 200)`, id)
	_, err = db.Exec(t.Context(), "SELECT outbox.redeliver($1)", id)
	require.ErrorContains(t, err, "is no longer kept")

	exec(t, db, waits, id, uuid.New(), "1 hour")
	_, err = db.Exec(t.Context(), "SELECT outbox.redeliver($1)", id)
	require.ErrorContains(t, err, "is being attempted right now")

	// Somebody who may wait for ever is told.
	gone, orphan := uuid.New(), uuid.New()
	exec(t, db, waits, orphan, gone, "-1 second")
	_, err = db.Exec(t.Context(), "SELECT outbox.redeliver($1)", orphan)
	require.ErrorContains(t, err, "the subscription "+gone.String()+" of delivery "+orphan.String()+" was deleted")
	require.Equal(t, 1, value[int](t, db, "SELECT count(*) FROM outbox.deliveries WHERE id = $1 AND lease_owner IS NOT NULL", orphan), "nothing was done")
}

// What is held behind another delivery cannot overtake it.
func TestRedeliverRefusesWhatIsHeld(t *testing.T) {
	t.Parallel()
	db := connect(t)
	subscription := subscribe(t, db)
	const row = `INSERT INTO outbox.deliveries (id, subscription_id, event_id, type, payload, tenant, emitted, created_at, committed_at, commit_lsn,
			commit_index, next_attempt_at, sequence)
		VALUES ($1, $2, gen_random_uuid(), 'x', '{}', '', false, now(), now(), $3::text::pg_lsn, 1, $4::text::timestamptz, $5)`
	other, first, second, third := uuid.New(), uuid.New(), uuid.New(), uuid.New()
	exec(t, db, row, other, subscription, "0/1", "now", "key a")
	exec(t, db, row, third, subscription, "0/4", "infinity", "key b")
	exec(t, db, row, second, subscription, "0/3", "infinity", "key b")
	exec(t, db, row, first, subscription, "0/2", "tomorrow", "key b")
	for _, held := range []uuid.UUID{second, third} {
		_, err := db.Exec(t.Context(), "SELECT outbox.redeliver($1)", held)
		require.ErrorContains(t, err, "delivery "+held.String()+" is held behind delivery "+first.String()+", which must go first")
		require.Equal(t, "held", value[string](t, db, "SELECT state FROM outbox.queue WHERE delivery_id = $1 AND next_attempt_at IS NULL", held))
	}
	exec(t, db, "SELECT outbox.redeliver($1)", first)
	require.Equal(t, 1, value[int](t, db, "SELECT count(*) FROM outbox.queue WHERE delivery_id = $1 AND state = 'waiting' AND next_attempt_at <= now()", first))
}

const waits = `INSERT INTO outbox.deliveries (id, subscription_id, event_id, type, payload, tenant, emitted, created_at, committed_at, commit_lsn,
		commit_index, next_attempt_at, lease_owner)
	VALUES ($1, $2, gen_random_uuid(), 'x', '{}', '', false, now(), now(), '0/1', 1, now() + $3::text::interval, 'relay/s/1')`

// subscribe makes a subscription, with other columns than the defaults.
func subscribe(t *testing.T, db *pgxpool.Pool, set ...string) uuid.UUID {
	t.Helper()
	columns, values := "name, url", "'n', 'http://localhost'"
	for i := 0; i+1 < len(set); i += 2 {
		columns, values = columns+", "+set[i], values+", "+set[i+1]
	}
	return value[uuid.UUID](t, db, "INSERT INTO outbox.subscriptions ("+columns+") VALUES ("+values+") RETURNING id")
}

// A lease that has run out holds nothing: its row waits, and may be redelivered.
func TestExpiredLease(t *testing.T) {
	t.Parallel()
	db := connect(t)
	held, expired := uuid.New(), uuid.New()
	subscription := subscribe(t, db)
	exec(t, db, waits, held, subscription, "1 hour")
	exec(t, db, waits, expired, subscription, "-1 second")
	state := func(id uuid.UUID) string {
		return value[string](t, db, "SELECT state FROM outbox.queue WHERE delivery_id = $1", id)
	}
	require.Equal(t, "in flight", state(held))
	require.Equal(t, "waiting", state(expired))
	exec(t, db, "SELECT outbox.redeliver($1)", expired)
	require.True(t, value[bool](t, db, "SELECT lease_owner IS NULL FROM outbox.deliveries WHERE id = $1", expired))

	// What waits for a subscription that cannot be served says so; what is in flight is.
	for column, value := range map[string]string{"is_active": "false", "verification": "'slack'"} {
		exec(t, db, "UPDATE outbox.subscriptions SET is_active = true, verification = 'none'")
		require.Equal(t, "waiting", state(expired), column)
		exec(t, db, "UPDATE outbox.subscriptions SET "+column+" = "+value)
		require.Equal(t, "inactive", state(expired), column)
		require.Equal(t, "in flight", state(held), column)
	}
	exec(t, db, "UPDATE outbox.subscriptions SET is_active = true, verification = 'none'")
	exec(t, db, "UPDATE outbox.subscriptions SET status = 'invalid', status_reason = 'why'")
	require.Equal(t, "inactive", state(expired))
}

// Two who redeliver the same delivery at the same time both succeed, and it is in the queue once.
func TestRedeliverTwiceAtOnce(t *testing.T) {
	t.Parallel()
	const attempt = `INSERT INTO outbox.attempts (attempted_at, committed_at, delivery_id, event_id, subscription_id, revision, epoch, duration_us,
			attempt, status)
		SELECT now(), now(), $1, outbox.publish('x', '{}'), $2, 1, 1, 1, 1, 200`
	const dead = `INSERT INTO outbox.dead_letters (id, subscription_id, event_id, type, payload, tenant, emitted, created_at, committed_at,
			commit_lsn, commit_index, attempts)
		VALUES ($1, $2, gen_random_uuid(), 'x', '{}', '', false, now(), now(), '0/1', 1, 1)`
	for name, rows := range map[string][]string{
		"a dead letter": {dead},
		"a dead letter whose event is still kept": {dead, attempt},
		"one that succeeded":                      {attempt},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := connect(t)
			id, subscription := uuid.New(), subscribe(t, db)
			for _, insert := range rows {
				exec(t, db, insert, id, subscription)
			}
			redeliverTwice(t, db, id)
			require.Equal(t, 1, value[int](t, db, "SELECT count(*) FROM outbox.deliveries WHERE id = $1 AND lease_owner IS NULL", id))
			require.Zero(t, value[int](t, db, "SELECT count(*) FROM outbox.dead_letters"))
		})
	}
}

// redeliverTwice redelivers in a transaction, and lets it commit when a second one waits for it.
func redeliverTwice(t *testing.T, db *pgxpool.Pool, id uuid.UUID) {
	t.Helper()
	first, err := db.Begin(t.Context())
	require.NoError(t, err)
	_, err = first.Exec(t.Context(), "SELECT outbox.redeliver($1)", id)
	require.NoError(t, err)
	second := make(chan error, 1)
	go func() {
		_, err := db.Exec(t.Context(), "SELECT outbox.redeliver($1)", id)
		second <- err
	}()
	harness.Eventually(t, 30*time.Second, "the second waits for the first", func() bool {
		return value[bool](t, db, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`)
	})
	require.NoError(t, first.Commit(t.Context()))
	require.NoError(t, <-second)
}
