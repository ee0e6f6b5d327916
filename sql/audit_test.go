package sql_test

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// accounts is a database in which rows are written as applications and the relay would. Its relay was set up long ago.
type accounts struct {
	*pgxpool.Pool
	t    testing.TB
	slot string
}

// noon is the minute in which events are made.
var noon = time.Now().UTC().Truncate(time.Minute).Add(-2 * time.Hour)

func newAccounts(t testing.TB) *accounts {
	t.Helper()
	a := &accounts{harness.Connect(t, harness.Database(t)), t, "audit_" + uuid.NewString()[:8]}
	a.exec("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", a.slot)
	a.exec(checkpoint, a.slot, "now")
	a.exec("UPDATE outbox.checkpoint SET begun_at = '2020-01-01'")
	a.read()
	return a
}

func (a *accounts) exec(query string, args ...any) {
	a.t.Helper()
	_, err := a.Exec(a.t.Context(), query, args...)
	require.NoError(a.t, err, query)
}

// read says that the stream has been read up to here.
func (a *accounts) read() {
	a.t.Helper()
	a.exec("UPDATE outbox.checkpoint SET recorded_xid = pg_snapshot_xmax(pg_current_snapshot())")
}

// publish commits events of a minute.
func (a *accounts) publish(minute time.Time, n int) []uuid.UUID {
	a.t.Helper()
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = uuid.Must(uuid.NewV7())
	}
	a.exec("INSERT INTO outbox.events (id, type, created_at) SELECT id, 'x', $2 FROM unnest($1::uuid[]) AS id", ids, minute.Add(time.Second))
	return ids
}

// record counts events as recorded, with a delivery to each of so many subscriptions.
func (a *accounts) record(minute time.Time, ids []uuid.UUID, subscriptions int) []uuid.UUID {
	a.t.Helper()
	var deliveries []uuid.UUID
	a.exec(`INSERT INTO outbox.recorded AS r (minute, events, digest, matched)
		SELECT $1, count(*), sum(('x' || right(id::text, 12))::bit(48)::bigint), $3 * count(*) FROM unnest($2::uuid[]) AS id
		ON CONFLICT (minute) DO UPDATE SET events = r.events + excluded.events, digest = r.digest + excluded.digest, matched = r.matched + excluded.matched`,
		minute, ids, subscriptions)
	for range len(ids) * subscriptions {
		deliveries = append(deliveries, uuid.New())
	}
	return deliveries
}

// attempt writes attempts of deliveries of an event: those without an error delivered.
func (a *accounts) attempt(event uuid.UUID, failure *string, deliveries ...uuid.UUID) {
	a.t.Helper()
	a.exec(`INSERT INTO outbox.attempts (attempted_at, committed_at, delivery_id, event_id, subscription_id, revision, epoch, duration_us, attempt, error)
		SELECT now(), now(), id, $1, gen_random_uuid(), 1, 1, 1, 1, $2 FROM unnest($3::uuid[]) AS id`, event, failure, deliveries)
}

// waits puts a delivery into the queue, dies into the dead letters.
func (a *accounts) waits(event, id uuid.UUID) {
	a.exec(`INSERT INTO outbox.deliveries (id, subscription_id, event_id, type, payload, tenant, emitted, created_at, committed_at, commit_lsn, commit_index,
		next_attempt_at) VALUES ($1, gen_random_uuid(), $2, 'x', '{}', '', false, now(), now(), '0/1', 1, now())`, id, event)
}

func (a *accounts) dies(event, id uuid.UUID) {
	a.exec(`INSERT INTO outbox.dead_letters (id, subscription_id, event_id, type, payload, tenant, emitted, created_at, committed_at, commit_lsn, commit_index,
		attempts) VALUES ($1, gen_random_uuid(), $2, 'x', '{}', '', false, now(), now(), '0/1', 1, 1)`, id, event)
}

// delivered publishes n events, each to one subscription that gets it.
func (a *accounts) delivered(minute time.Time, n int) []uuid.UUID {
	a.t.Helper()
	ids := a.publish(minute, n)
	for i, d := range a.record(minute, ids, 1) {
		a.attempt(ids[i], nil, d)
	}
	a.read()
	return ids
}

// audit is what the function returns, without the range.
type audit struct{ Events, Matched, Delivered, Pending, Dead, Unread, Unaccounted int64 }

func (a *accounts) audit() audit { return a.between(noon, noon.Add(time.Hour)) }

func (a *accounts) between(since, until time.Time) (found audit) {
	a.t.Helper()
	require.NoError(a.t, a.QueryRow(a.t.Context(), "SELECT events, matched, delivered, pending, dead, unread, unaccounted FROM outbox.audit($1, $2)", since, until).
		Scan(&found.Events, &found.Matched, &found.Delivered, &found.Pending, &found.Dead, &found.Unread, &found.Unaccounted))
	return found
}

var failure = "HTTP 500"

// Everything that can become of an event is an outcome.
func TestAuditFindsEveryOutcome(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	require.Equal(t, audit{}, a.audit(), "nothing was published")
	a.delivered(noon, 3)
	a.record(noon, a.publish(noon, 2), 0) // nobody wanted them
	tx, err := a.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "INSERT INTO outbox.events (type, created_at) VALUES ('x', $1)", noon)
	require.NoError(t, err)
	require.NoError(t, tx.Rollback(t.Context()))
	require.Equal(t, audit{Events: 5, Matched: 3, Delivered: 3}, a.audit())

	ids := a.publish(noon.Add(time.Minute), 6)
	d := a.record(noon.Add(time.Minute), ids, 1)
	a.attempt(ids[0], &failure, d[0], d[0])
	a.attempt(ids[0], nil, d[0]) // got through at last
	a.attempt(ids[1], nil, d[1], d[1])
	a.attempt(ids[2], &failure, d[2])
	a.waits(ids[2], d[2])
	a.dies(ids[3], d[3])
	a.attempt(ids[4], nil, d[4])
	a.waits(ids[4], d[4]) // redelivered
	a.attempt(ids[5], nil, d[5])
	a.attempt(ids[5], &failure, d[5])
	a.dies(ids[5], d[5]) // redelivered in vain
	a.read()
	require.Equal(t, audit{Events: 11, Matched: 9, Delivered: 5, Pending: 2, Dead: 2}, a.audit())
}

// Emitted events count as others do, test events not at all.
func TestAuditOfEmittedEvents(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	emitted, test := uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7())
	a.exec("INSERT INTO outbox.emitted_events (id, type, created_at, only_for) VALUES ($1, 'x', $3, NULL), ($2, 'x', $3, gen_random_uuid())", emitted, test, noon)
	d := a.record(noon, []uuid.UUID{emitted}, 1)
	a.attempt(emitted, nil, d[0])
	a.attempt(test, nil, uuid.New())
	a.waits(test, uuid.New())
	a.dies(test, uuid.New())
	a.read()
	require.Equal(t, audit{Events: 1, Matched: 1, Delivered: 1}, a.audit())
}

// What may still be in the slot is unread, as long as there is one. What was published by whoever asks as well.
func TestAuditOfWhatIsNotRead(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	a.delivered(noon, 2)
	a.publish(noon, 3)
	require.Equal(t, audit{Events: 5, Matched: 2, Delivered: 2, Unread: 3}, a.audit())
	var unread, unaccounted int64
	tx, err := a.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "INSERT INTO outbox.events (type, created_at) VALUES ('x', $1)", noon)
	require.NoError(t, err)
	require.NoError(t, tx.QueryRow(t.Context(), "SELECT unread, unaccounted FROM outbox.audit($1, $2)", noon, noon.Add(time.Hour)).Scan(&unread, &unaccounted))
	require.NoError(t, tx.Rollback(t.Context()))
	require.EqualValues(t, []int64{4, 0}, []int64{unread, unaccounted})

	a.exec("SELECT pg_drop_replication_slot($1)", a.slot)
	require.Equal(t, audit{Events: 5, Matched: 2, Delivered: 2, Unaccounted: 3}, a.audit(), "without the slot nobody will ever read them")
}

// What is lost is found, one by one.
func TestAuditFindsLosses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		lose func(*accounts)
		want audit
	}{
		"an event that was skipped": {func(a *accounts) {
			a.publish(noon, 1)
			a.read()
		}, audit{Events: 4, Matched: 3, Delivered: 3, Unaccounted: 1}},
		"an event of a minute of its own": {func(a *accounts) {
			a.publish(noon.Add(5*time.Minute), 1)
			a.read()
		}, audit{Events: 4, Matched: 3, Delivered: 3, Unaccounted: 1}},
		"an event beside one that is not read yet": {func(a *accounts) {
			a.publish(noon, 1)
			a.read()
			a.publish(noon, 1)
		}, audit{Events: 5, Matched: 3, Delivered: 3, Unread: 1, Unaccounted: 1}},
		"another event was recorded than is there": {func(a *accounts) {
			a.publish(noon, 1)
			a.record(noon, []uuid.UUID{uuid.New()}, 0)
			a.read()
		}, audit{Events: 4, Matched: 3, Delivered: 3, Unaccounted: 1}},
		"a delivery without an outcome": {func(a *accounts) {
			a.record(noon, a.publish(noon, 1), 1)
			a.read()
		}, audit{Events: 4, Matched: 4, Delivered: 3, Unaccounted: 1}},
		"a delivery that failed and does not wait": {func(a *accounts) {
			ids := a.publish(noon, 1)
			a.attempt(ids[0], &failure, a.record(noon, ids, 1)...)
			a.read()
		}, audit{Events: 4, Matched: 4, Delivered: 3, Unaccounted: 1}},
		"a delivery without an outcome beside others that a replay added": {func(a *accounts) {
			a.record(noon, a.publish(noon, 1), 1)
			ids := a.publish(noon.Add(time.Minute), 1)
			a.record(noon.Add(time.Minute), ids, 0)
			a.waits(ids[0], uuid.New())
			a.read()
		}, audit{Events: 5, Matched: 4, Delivered: 3, Pending: 1, Unaccounted: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAccounts(t)
			a.delivered(noon, 3)
			require.Zero(t, a.audit().Unaccounted)
			tt.lose(a)
			require.Equal(t, tt.want, a.audit())
		})
	}
}

// A range is made of whole minutes, and says so.
func TestAuditRange(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	for i := range 3 {
		a.delivered(noon.Add(time.Duration(i)*time.Minute), i+1)
	}
	used := func(since, until any) (from, to time.Time, events int64) {
		t.Helper()
		require.NoError(t, a.QueryRow(t.Context(), "SELECT since, until, events FROM outbox.audit($1, $2)", since, until).Scan(&from, &to, &events))
		return from.UTC(), to.UTC(), events
	}
	from, to, events := used(noon.Add(90*time.Second), noon.Add(121*time.Second))
	require.Equal(t, []any{noon.Add(time.Minute), noon.Add(3 * time.Minute), int64(5)}, []any{from, to, events})
	from, to, events = used(noon.Add(time.Minute), noon.Add(2*time.Minute))
	require.Equal(t, []any{noon.Add(time.Minute), noon.Add(2 * time.Minute), int64(2)}, []any{from, to, events})
	_, _, events = used(noon.Add(time.Minute), noon)
	require.Zero(t, events, "nothing lies in a range that ends before it begins")
	from, _, events = used(nil, nil)
	require.Equal(t, []any{"2020-01-01", int64(6)}, []any{from.Format(time.DateOnly), events}, "everything")
	require.EqualValues(t, 6, value[int64](t, a.Pool, "SELECT events FROM outbox.audit(since => $1)", noon))
	require.EqualValues(t, 6, value[int64](t, a.Pool, "SELECT events FROM outbox.audit('-infinity', 'infinity')"))
}

// What had been published before the relay was set up is not its own; what is no longer kept cannot be proven.
func TestAuditBeginsWhereItCan(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	a.publish(noon, 2)
	a.read()
	require.EqualValues(t, 2, a.audit().Unaccounted)
	a.exec("UPDATE outbox.checkpoint SET begun_at = $1", noon.Add(30*time.Second))
	require.Equal(t, audit{}, a.audit())
	a.exec("UPDATE outbox.checkpoint SET begun_at = $1", noon.Add(-time.Hour))
	for kind, want := range map[string]time.Time{"events": noon, "attempts": noon.Add(5 * time.Minute), "dead_letters": noon} {
		a.exec("DELETE FROM outbox.retained")
		a.exec("INSERT INTO outbox.retained VALUES ($1, $2)", kind, noon)
		require.True(t, want.Equal(value[time.Time](t, a.Pool, "SELECT since FROM outbox.audit('2021-01-01')")), kind)
	}
	require.Equal(t, 1, value[int](t, a.Pool, "SELECT count(*) FROM outbox.retained"))
}

// Retention says what it may have removed, and never takes it back.
func TestRetentionTellsTheAudit(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	const days = `SELECT string_agg(kind || ' ' || extract(day FROM date_trunc('day', now(), 'UTC') - since), ', ' ORDER BY kind) FROM outbox.retained`
	a.exec("SELECT outbox.remove_old('3 days', '10 days', '30 days')")
	require.Equal(t, "attempts 10, dead_letters 30, emitted_events 3, events 3", value[string](t, a.Pool, days))
	a.exec(drop, "5 days", "9 days", "30 days")
	require.Equal(t, "attempts 9, dead_letters 30, emitted_events 3, events 3", value[string](t, a.Pool, days))
	require.Equal(t, 3, value[int](t, a.Pool, "SELECT extract(day FROM date_trunc('day', now(), 'UTC') - since)::int FROM outbox.audit('2021-01-01')"))
}

// The audit of a day with many events: its time is reported, not judged. WALHOOK_AUDIT_EVENTS says how many.
func BenchmarkAudit(b *testing.B) {
	n := 100_000
	if given := os.Getenv("WALHOOK_AUDIT_EVENTS"); given != "" {
		var err error
		n, err = strconv.Atoi(given)
		require.NoError(b, err)
	}
	a := newAccounts(b)
	a.exec(`INSERT INTO outbox.events (type, payload, created_at) SELECT 'x', '{"patient": {"id": 4711, "name": "somebody"}}',
		$1::timestamptz + g * interval '1 hour' / $2 FROM generate_series(0, $2::int - 1) AS g`, noon, n)
	a.exec(`INSERT INTO outbox.recorded (minute, events, digest, matched)
		SELECT date_trunc('minute', created_at), count(*), sum(('x' || right(id::text, 12))::bit(48)::bigint), count(*) FROM outbox.events GROUP BY 1`)
	a.exec(`INSERT INTO outbox.attempts (attempted_at, committed_at, delivery_id, event_id, subscription_id, revision, epoch, duration_us, attempt)
		SELECT now(), now(), outbox.delivery_id(id, id), id, id, 1, 1, 1, 1 FROM outbox.events`)
	a.read()
	for b.Loop() {
		require.Equal(b, audit{Events: int64(n), Matched: int64(n), Delivered: int64(n)}, a.audit())
	}
	b.ReportMetric(float64(n), "events")
}
