package ops_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/ops"
	"github.com/walhook/walhook/sql"
	"github.com/walhook/walhook/test/harness"
)

const day = 24 * time.Hour

// retention keeps events for 3 days, attempts for 10 and dead letters for 30.
var retention = ops.Retention{Events: 3 * day, Attempts: 10 * day, DeadLetters: 30 * day, Ahead: 7 * day}

func migrated(t *testing.T, url string) string {
	t.Helper()
	_, err := sql.Migrate(t.Context(), url)
	require.NoError(t, err)
	return url
}

func connect(t *testing.T, db database) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// alone keeps upkeep away for as long as a statement's transaction: it takes partitions before their parents, and who makes
// them does it the other way round.
const alone = "SELECT pg_advisory_xact_lock(hashtext('outbox.partitions')); "

// partition makes the daily partitions of a day that many days ago, and returns the end of their names.
func (db database) partition(t *testing.T, daysAgo int) string {
	t.Helper()
	at := time.Now().UTC().Truncate(day).AddDate(0, 0, -daysAgo)
	name := at.Format("_p20060102")
	var from, to uuid.UUID
	require.NoError(t, db.QueryRow(t.Context(), "SELECT outbox.uuid_floor($1), outbox.uuid_floor($2)", at, at.Add(day)).Scan(&from, &to))
	for _, parent := range []string{"events", "emitted_events", "dead_letters"} {
		db.exec(t, alone+"CREATE TABLE outbox."+parent+name+" PARTITION OF outbox."+parent+" FOR VALUES FROM ('"+from.String()+"') TO ('"+to.String()+"')")
	}
	for _, parent := range []string{"attempts", "subscription_samples", "wal_samples"} {
		db.exec(t, alone+"CREATE TABLE outbox."+parent+name+" PARTITION OF outbox."+parent+" FOR VALUES FROM ('"+at.Format(time.RFC3339)+"') TO ('"+at.Add(day).Format(time.RFC3339)+"')")
	}
	return name
}

// expected are the names of the partitions of the days from today on.
func expected(days ...int) (names []string) {
	for _, n := range days {
		suffix := time.Now().UTC().AddDate(0, 0, n).Format("_p20060102")
		for _, parent := range []string{"events", "emitted_events", "dead_letters", "attempts", "subscription_samples", "wal_samples"} {
			names = append(names, parent+suffix)
		}
	}
	return names
}

func TestPartitionsAreMadeAhead(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	conn := connect(t, db)
	r := retention
	u, err := ops.Keep(t.Context(), conn, r)
	require.NoError(t, err)
	require.Equal(t, ops.Upkeep{Created: []string{}, Removed: map[string]int64{}}, u, "the schema came with a week of them")

	r.Ahead = 9 * day
	u, err = ops.Keep(t.Context(), conn, r)
	require.NoError(t, err)
	require.Equal(t, expected(8, 9), u.Created)
	u, err = ops.Keep(t.Context(), conn, r)
	require.NoError(t, err)
	require.Empty(t, u.Created, "again, it has nothing to do")

	db.exec(t, "SELECT outbox.publish('x', '{}')")
	var in string
	require.NoError(t, db.QueryRow(t.Context(), "SELECT tableoid::regclass::text FROM outbox.events").Scan(&in))
	require.Equal(t, "outbox."+expected(0)[0], in)
}

// A day whose rows lie in the DEFAULT partition already stays there: upkeep goes on with the others.
func TestRowsInTheDefaultPartitionStayThere(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec(t, "INSERT INTO outbox.events (id, type) VALUES (outbox.uuid_floor(now() + interval '8 days'), 'x')")
	r := retention
	r.Ahead = 9 * day
	u, err := ops.Keep(t.Context(), connect(t, db), r)
	require.NoError(t, err)
	require.Equal(t, append(expected(8)[1:], expected(9)...), u.Created)
}

// What is older than its time goes, a partition at once. Events that are not recorded yet stay, however old.
func TestOldPartitionsAreDropped(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	conn := connect(t, db)
	three, four, eleven, twelve, forty := db.partition(t, 3), db.partition(t, 4), db.partition(t, 11), db.partition(t, 12), db.partition(t, 40)

	u, err := ops.Keep(t.Context(), conn, retention)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"attempts" + eleven, "attempts" + twelve, "attempts" + forty, "dead_letters" + forty,
		"subscription_samples" + eleven, "subscription_samples" + twelve, "subscription_samples" + forty,
		"wal_samples" + eleven, "wal_samples" + twelve, "wal_samples" + forty}, u.Dropped, "without a checkpoint, no event is known to be recorded")

	db.slot(t)
	db.exec(t, "UPDATE outbox.checkpoint SET recorded_through = date_trunc('day', now(), 'UTC') - interval '10 days 12 hours'")
	u, err = ops.Keep(t.Context(), conn, retention)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"events" + twelve, "emitted_events" + twelve, "events" + forty, "emitted_events" + forty}, u.Dropped)

	db.exec(t, "UPDATE outbox.checkpoint SET recorded_through = now()")
	u, err = ops.Keep(t.Context(), conn, retention)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"events" + eleven, "emitted_events" + eleven, "events" + four, "emitted_events" + four}, u.Dropped)
	require.Empty(t, u.Created)
	require.Empty(t, u.Left)
	require.NotContains(t, u.Dropped, "events"+three, "its end is less than three days ago")
}

// A partition with a transaction in it that may not be recorded is left, and named.
func TestPartitionsThatAreNeededAreLeft(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	old := db.partition(t, 20)
	db.slot(t)
	db.exec(t, "INSERT INTO outbox.events (id, type, created_at) SELECT outbox.uuid_floor(at), 'x', at FROM (SELECT date_trunc('day', now(), 'UTC') - interval '20 days') AS t(at)")
	u, err := ops.Keep(t.Context(), connect(t, db), retention)
	require.NoError(t, err)
	require.Equal(t, []string{"events" + old}, u.Left)
	db.exec(t, "UPDATE outbox.checkpoint SET recorded_xid = pg_snapshot_xmax(pg_current_snapshot())")
	u, err = ops.Keep(t.Context(), connect(t, db), retention)
	require.NoError(t, err)
	require.Equal(t, []string{"events" + old}, u.Dropped)
}

// Dead letters in no partition of their own are removed by rows, however many there are.
func TestOldDeadLettersAreRemoved(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	s := db.subscription(t, "s")
	db.waiting(t, "dead_letters", s, 10_001, "32 days")
	db.waiting(t, "dead_letters", s, 2, "29 days")
	u, err := ops.Keep(t.Context(), connect(t, db), retention)
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"dead_letters": 10_001}, u.Removed)
	var left int
	require.NoError(t, db.QueryRow(t.Context(), "SELECT count(*) FROM outbox.dead_letters").Scan(&left))
	require.Equal(t, 2, left)
}

func TestOldReplaysAreRemoved(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	s := db.subscription(t, "s")
	for _, ended := range []string{"now() - interval '31 days'", "now() - interval '29 days'", "NULL"} {
		db.exec(t, `INSERT INTO outbox.replays (subscription_id, since, until, finished_at) VALUES ($1, now() - interval '1 day', now(), `+ended+`)`, s)
	}
	u, err := ops.Keep(t.Context(), connect(t, db), retention)
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"replays": 1}, u.Removed)
	var left int
	require.NoError(t, db.QueryRow(t.Context(), "SELECT count(*) FROM outbox.replays").Scan(&left))
	require.Equal(t, 2, left)
}

// Whoever uses a partition that is to be dropped is not waited for, so that nobody queues up behind us; the others go.
func TestUpkeepLeavesPartitionsInUse(t *testing.T) {
	t.Parallel()
	for _, lock := range []string{"ACCESS SHARE", "ROW EXCLUSIVE"} { // a reader, a writer
		t.Run(lock, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			old, older := db.partition(t, 20), db.partition(t, 21)
			db.slot(t)
			user, err := db.Begin(t.Context())
			require.NoError(t, err)
			_, err = user.Exec(t.Context(), "LOCK TABLE outbox.attempts"+older+", outbox.events"+old+" IN "+lock+" MODE")
			require.NoError(t, err)
			u, err := ops.Keep(t.Context(), connect(t, db), retention)
			require.NoError(t, err)
			require.Equal(t, []string{"attempts" + older, "events" + old}, u.Left)
			require.Subset(t, u.Dropped, []string{"attempts" + old, "events" + older})
			require.NoError(t, user.Rollback(t.Context()))
			u, err = ops.Keep(t.Context(), connect(t, db), retention)
			require.NoError(t, err)
			require.Equal(t, []string{"attempts" + older, "events" + old}, u.Dropped)
			require.Empty(t, u.Left)
		})
	}
}

// While another relay is at it, nothing is dropped twice and nothing fails.
func TestUpkeepByTwo(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	for n := range 5 {
		db.partition(t, 20+n)
	}
	db.slot(t)
	ctx := t.Context()
	type result struct {
		ops.Upkeep
		err error
	}
	done := make(chan result)
	for range 2 {
		conn := connect(t, db)
		go func() {
			u, err := ops.Keep(ctx, conn, retention)
			done <- result{u, err}
		}()
	}
	one, two := <-done, <-done
	require.NoError(t, one.err)
	require.NoError(t, two.err)
	rest, err := ops.Keep(ctx, connect(t, db), retention)
	require.NoError(t, err)
	require.Empty(t, rest.Left, "what both left to each other goes the next time")
	once := map[string]int{}
	for _, name := range slices.Concat(one.Dropped, two.Dropped, rest.Dropped) {
		once[name]++
		require.Equal(t, 1, once[name], name)
	}
	require.Len(t, once, 5*5, "all but the dead letters, which are kept for longer")
}

// Applications go on publishing while old partitions go, and lose nothing; what waits keeps all that it needs.
func TestUpkeepWhileApplicationsPublish(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	old := db.partition(t, 20)
	s := db.subscription(t, "s")
	db.exec(t, `INSERT INTO outbox.events (id, type, created_at) SELECT outbox.uuid_floor(at), 'x', at FROM (SELECT date_trunc('day', now(), 'UTC') - interval '20 days') AS t(at)`)
	db.exec(t, `INSERT INTO outbox.deliveries (id, subscription_id, event_id, type, payload, tenant, emitted, created_at, committed_at, commit_lsn, commit_index,
			next_attempt_at)
		SELECT outbox.delivery_id(id, $1), $1, id, type, '{"kept": true}', '', false, created_at, created_at, '0/1', 1, now() FROM outbox.events`, s)
	db.slot(t) // everything so far is recorded
	var published atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	writers := make(chan error)
	for range 4 {
		go func() {
			var err error
			for err == nil && ctx.Err() == nil {
				if _, err = db.Exec(t.Context(), "SELECT outbox.publish('y', '{}')"); err == nil {
					published.Add(1)
				}
			}
			writers <- err
		}()
	}
	conn := connect(t, db)
	harness.Eventually(t, 30*time.Second, "the partition is dropped between two inserts", func() bool {
		u, err := ops.Keep(t.Context(), conn, retention)
		require.NoError(t, err)
		return slices.Contains(u.Dropped, "events"+old)
	})
	cancel()
	for range 4 {
		require.NoError(t, <-writers)
	}
	require.Positive(t, published.Load())
	var events int64
	var payload string
	require.NoError(t, db.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM outbox.events), payload FROM outbox.deliveries").Scan(&events, &payload))
	require.Equal(t, published.Load(), events)
	require.JSONEq(t, `{"kept": true}`, payload)
}

// Upkeep survives a Postgres that is away, goes on every interval, and ends with its context.
func TestUpkeepIsRepeated(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.slot(t)
	var calls atomic.Int64
	connect := func(ctx context.Context) (*pgx.Conn, error) {
		if calls.Add(1) == 1 {
			return nil, errors.New("connection refused")
		}
		return pgx.Connect(ctx, db.url)
	}
	exists := func(name string) bool {
		var is bool
		require.NoError(t, db.QueryRow(t.Context(), "SELECT to_regclass('outbox.' || $1) IS NOT NULL", name).Scan(&is))
		return is
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ops.KeepRegularly(ctx, connect, retention, 20*time.Millisecond, zerolog.New(zerolog.NewTestWriter(t)))
	}()
	for n := range 2 {
		old := db.partition(t, 20+n)
		harness.Eventually(t, 10*time.Second, "the old partition is dropped", func() bool { return !exists("events" + old) })
	}
	cancel()
	<-done
	require.Greater(t, calls.Load(), int64(2))
}

func TestUpkeepNamesWhatFailed(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), harness.EmptyDatabase(t))
	require.NoError(t, err)
	_, err = ops.Keep(t.Context(), conn, retention)
	require.ErrorContains(t, err, "create partitions")
	require.NoError(t, conn.Close(t.Context()))
	_, err = ops.Keep(t.Context(), conn, retention)
	require.ErrorContains(t, err, "limit the wait for locks")
}
