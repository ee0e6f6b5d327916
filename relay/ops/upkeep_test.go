package ops_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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

// partition makes the daily partitions of a day that many days ago, and returns the end of their names.
func (db database) partition(t *testing.T, daysAgo int) string {
	t.Helper()
	at := time.Now().UTC().Truncate(day).AddDate(0, 0, -daysAgo)
	name := at.Format("_p20060102")
	var from, to uuid.UUID
	require.NoError(t, db.QueryRow(t.Context(), "SELECT outbox.uuid_floor($1), outbox.uuid_floor($2)", at, at.Add(day)).Scan(&from, &to))
	for _, parent := range []string{"events", "emitted_events"} {
		db.exec(t, "CREATE TABLE outbox."+parent+name+" PARTITION OF outbox."+parent+" FOR VALUES FROM ('"+from.String()+"') TO ('"+to.String()+"')")
	}
	db.exec(t, "CREATE TABLE outbox.attempts"+name+" PARTITION OF outbox.attempts FOR VALUES FROM ('"+at.Format(time.RFC3339)+"') TO ('"+at.Add(day).Format(time.RFC3339)+"')")
	return name
}

// expected are the names of the partitions of the days from today on.
func expected(days ...int) (names []string) {
	for _, n := range days {
		suffix := time.Now().UTC().AddDate(0, 0, n).Format("_p20060102")
		names = append(names, "events"+suffix, "emitted_events"+suffix, "attempts"+suffix)
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
	require.Equal(t, ops.Upkeep{Created: []string{}, Dropped: []string{}}, u, "the schema came with a week of them")

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
	three, four, eleven, twelve := db.partition(t, 3), db.partition(t, 4), db.partition(t, 11), db.partition(t, 12)

	u, err := ops.Keep(t.Context(), conn, retention)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"attempts" + eleven, "attempts" + twelve}, u.Dropped, "without a checkpoint, no event is known to be recorded")

	db.slot(t)
	db.exec(t, "UPDATE outbox.checkpoint SET recorded_through = now() - interval '10 days 12 hours'")
	u, err = ops.Keep(t.Context(), conn, retention)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"events" + twelve, "emitted_events" + twelve}, u.Dropped)

	db.exec(t, "UPDATE outbox.checkpoint SET recorded_through = now()")
	u, err = ops.Keep(t.Context(), conn, retention)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"events" + eleven, "emitted_events" + eleven, "events" + four, "emitted_events" + four}, u.Dropped)
	require.Empty(t, u.Created)
	require.NotContains(t, u.Dropped, "events"+three, "its end is less than three days ago")
}

func TestOldDeadLettersAreRemoved(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	s := db.subscription(t, "s")
	db.waiting(t, "dead_letters", s, 3, "31 days")
	db.waiting(t, "dead_letters", s, 2, "29 days")
	u, err := ops.Keep(t.Context(), connect(t, db), retention)
	require.NoError(t, err)
	require.EqualValues(t, 3, u.DeadLetters)
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
	_, err := ops.Keep(t.Context(), connect(t, db), retention)
	require.NoError(t, err)
	var left int
	require.NoError(t, db.QueryRow(t.Context(), "SELECT count(*) FROM outbox.replays").Scan(&left))
	require.Equal(t, 2, left)
}

// Whoever reads a partition that is to be dropped is not waited for, so that nobody queues up behind us.
func TestUpkeepDoesNotWaitForReaders(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	old := db.partition(t, 20)
	db.slot(t)
	reader, err := db.Begin(t.Context())
	require.NoError(t, err)
	_, err = reader.Exec(t.Context(), "LOCK TABLE outbox.attempts"+old+" IN ACCESS SHARE MODE")
	require.NoError(t, err)
	began := time.Now()
	_, err = ops.Keep(t.Context(), connect(t, db), retention)
	var pg *pgconn.PgError
	require.ErrorAs(t, err, &pg)
	require.Equal(t, "55P03", pg.Code, "lock not available")
	require.ErrorContains(t, err, "drop partitions")
	require.Less(t, time.Since(began), 10*time.Second)
	require.NoError(t, reader.Rollback(t.Context()))
	u, err := ops.Keep(t.Context(), connect(t, db), retention)
	require.NoError(t, err)
	require.Contains(t, u.Dropped, "attempts"+old)
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
	for range 2 {
		old := db.partition(t, 20)
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
