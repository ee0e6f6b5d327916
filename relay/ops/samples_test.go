package ops_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/ops"
	"github.com/walhook/walhook/test/harness"
)

func (db database) count(t *testing.T, query string, args ...any) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRow(t.Context(), query, args...).Scan(&n))
	return n
}

// totals adds attempts to what a subscription did: so many succeeded and failed, each 3 ms long.
func (db database) totals(t *testing.T, id uuid.UUID, succeeded, failed int, age string) {
	t.Helper()
	db.exec(t, `INSERT INTO outbox.subscription_totals (subscription_id, attempts, succeeded, failed, delivered, total_us, latency, timeouts,
			consecutive_failures, last_attempt_at)
		VALUES ($1, $2::int + $3::int, $2, $3, $2, 3000 * ($2::int + $3::int), array_fill(0::bigint, '{2}') || ($2::int + $3::int)::bigint || array_fill(0::bigint, '{17}'),
			$3, 0, now() - $4::text::interval)
		ON CONFLICT (subscription_id) DO UPDATE SET attempts = subscription_totals.attempts + excluded.attempts,
			succeeded = subscription_totals.succeeded + excluded.succeeded, failed = subscription_totals.failed + excluded.failed,
			delivered = subscription_totals.delivered + excluded.delivered, total_us = subscription_totals.total_us + excluded.total_us,
			timeouts = subscription_totals.timeouts + excluded.timeouts,
			latency = outbox.add_counts(subscription_totals.latency, excluded.latency), last_attempt_at = excluded.last_attempt_at`, id, succeeded, failed, age)
}

// older moves all samples into the past.
func (db database) older(t *testing.T, by string) {
	t.Helper()
	db.exec(t, "UPDATE outbox.subscription_samples SET sampled_at = sampled_at - $1::text::interval", by)
	db.exec(t, "UPDATE outbox.wal_samples SET sampled_at = sampled_at - $1::text::interval", by)
}

// Two relays that sample at the same time write one sample, and each step one a minute, or five.
func TestSamplesAreTakenOnce(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	slot := db.slot(t)
	db.totals(t, db.subscription(t, "s"), 1, 0, "1 second")
	var wal, subscriptions, system atomic.Int64
	var relays sync.WaitGroup
	for range 4 {
		conn := connect(t, db)
		relays.Go(func() {
			s, err := ops.Sample(t.Context(), conn, slot)
			if err != nil {
				t.Error(err)
			}
			if s.WAL {
				wal.Add(1)
			}
			if s.System {
				system.Add(1)
			}
			subscriptions.Add(s.Subscriptions)
		})
	}
	relays.Wait()
	require.EqualValues(t, 1, wal.Load())
	require.EqualValues(t, 1, subscriptions.Load())
	require.EqualValues(t, 1, system.Load())
	require.Equal(t, 1, db.count(t, "SELECT count(*) FROM outbox.system_samples WHERE attempts = 1 AND succeeded = 1 AND failed = 0"))

	db.exec(t, "UPDATE outbox.wal_samples SET sampled_at = sampled_at - interval '51 seconds'")
	s, err := ops.Sample(t.Context(), connect(t, db), slot)
	require.NoError(t, err)
	require.True(t, s.WAL, "a minute later")
	require.Equal(t, 2, db.count(t, "SELECT count(*) FROM outbox.wal_history WHERE slot_name = $1 AND wal_lsn >= confirmed_lsn AND confirmed_lsn >= restart_lsn", slot))
}

// A clock that was set back does not end sampling until it has caught up, and a slot that is gone is noted as such.
func TestSamplesOfAnotherTime(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	conn := connect(t, db)
	_, err := ops.Sample(t.Context(), conn, "gone")
	require.NoError(t, err)
	db.older(t, "-1 hour")
	s, err := ops.Sample(t.Context(), conn, "gone")
	require.NoError(t, err)
	require.True(t, s.WAL)
	require.Equal(t, 2, db.count(t, "SELECT count(*) FROM outbox.wal_samples WHERE confirmed_lsn IS NULL AND restart_lsn IS NULL"))
}

// Totals are noted when they changed, and once a day.
func TestSubscriptionSamples(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	conn, slot := connect(t, db), db.slot(t)
	busy, quiet := db.subscription(t, "busy"), db.subscription(t, "quiet")
	db.totals(t, busy, 1, 0, "1 second")
	db.totals(t, quiet, 5, 0, "1 second")
	noted := func() int64 {
		s, err := ops.Sample(t.Context(), conn, slot)
		require.NoError(t, err)
		return s.Subscriptions
	}
	require.EqualValues(t, 2, noted())
	db.older(t, "10 minutes")
	require.Zero(t, noted(), "nothing has changed")
	db.totals(t, busy, 1, 1, "1 second")
	require.EqualValues(t, 1, noted())
	require.Equal(t, 3, db.count(t, "SELECT attempts FROM outbox.subscription_samples ORDER BY sampled_at DESC LIMIT 1"))
	db.older(t, "25 hours")
	require.EqualValues(t, 2, noted(), "after a day they are noted all the same")
}

// activity is a row of outbox.subscription_activity.
type activity struct {
	Attempts, Succeeded, Failed, Delivered, Timeouts, TotalUS int64
	SuccessRate, MeanMS, P95MS                                *float64
}

func (db database) activity(t *testing.T, id uuid.UUID, since string) activity {
	t.Helper()
	rows, err := db.Query(t.Context(), `SELECT attempts, succeeded, failed, delivered, timeouts, total_us, success_rate, mean_ms, p95_ms
		FROM outbox.subscription_activity($2::text::interval) WHERE subscription_id = $1`, id, since)
	require.NoError(t, err)
	a, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[activity])
	require.NoError(t, err)
	return a
}

func TestActivity(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	conn, slot := connect(t, db), db.slot(t)
	id, never := db.subscription(t, "s"), db.subscription(t, "never")
	sample := func() {
		_, err := ops.Sample(t.Context(), conn, slot)
		require.NoError(t, err)
	}
	require.Equal(t, activity{}, db.activity(t, never, "1 hour"))

	// Without a sample that is old enough, all of it is recent.
	db.totals(t, id, 6, 2, "1 second")
	rate, mean, p95 := .75, 3.0, 4.0
	require.Equal(t, activity{8, 6, 2, 6, 2, 24000, &rate, &mean, &p95}, db.activity(t, id, "1 hour"))
	sample()
	require.EqualValues(t, 8, db.activity(t, id, "1 hour").Attempts, "the first sample is younger")

	// What a sample of more than an hour ago had is not recent; a younger one does not count.
	db.older(t, "70 minutes")
	require.Equal(t, activity{}, db.activity(t, id, "1 hour"))
	require.EqualValues(t, 8, db.activity(t, id, "2 hours").Attempts)
	db.totals(t, id, 1, 1, "1 second")
	rate = .5
	require.Equal(t, activity{2, 1, 1, 1, 1, 6000, &rate, &mean, &p95}, db.activity(t, id, "1 hour"))
	sample()
	require.EqualValues(t, 2, db.activity(t, id, "1 hour").Attempts)

	// A relay that was away for days compares with its last sample.
	db.older(t, "3 days")
	db.totals(t, id, 3, 0, "1 second")
	require.EqualValues(t, 3, db.activity(t, id, "1 hour").Attempts)

	// Totals that began anew are not negative.
	db.exec(t, "DELETE FROM outbox.subscription_totals")
	db.totals(t, id, 4, 0, "1 second")
	require.EqualValues(t, 4, db.activity(t, id, "1 hour").Attempts)
}

// Attempts that nobody sampled before the relay went away do not seem recent for ever.
func TestActivityEnds(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	id := db.subscription(t, "s")
	db.totals(t, id, 5, 0, "2 hours")
	require.Equal(t, activity{}, db.activity(t, id, "1 hour"))
	require.EqualValues(t, 5, db.activity(t, id, "3 hours").Attempts)
}

// Sampling survives a Postgres that is away, says so once, and ends with its context.
func TestSamplingIsRepeated(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	slot := db.slot(t)
	var calls atomic.Int64
	away := func(ctx context.Context) (*pgx.Conn, error) {
		if calls.Add(1) <= 3 {
			return nil, errors.New("connection refused")
		}
		return pgx.Connect(ctx, db.url)
	}
	var log bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ops.SampleRegularly(ctx, away, slot, 10*time.Millisecond, zerolog.New(&log))
	}()
	for range 2 {
		db.exec(t, "DELETE FROM outbox.wal_samples")
		harness.Eventually(t, 10*time.Second, "a sample is taken", func() bool {
			return db.count(t, "SELECT count(*) FROM outbox.wal_samples") == 1
		})
	}
	cancel()
	<-done
	var messages []string
	for line := range bytes.Lines(log.Bytes()) {
		var entry struct{ Message string }
		require.NoError(t, json.Unmarshal(line, &entry))
		messages = append(messages, entry.Message)
	}
	require.Equal(t, []string{"no samples for the forecast, for charts and for statistics of the last hour, trying again", "samples are taken again"}, messages)
}

func TestSamplingNamesWhatFailed(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), harness.EmptyDatabase(t))
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	_, err = ops.Sample(t.Context(), conn, "s")
	require.ErrorContains(t, err, "note where WAL and slot stand")
	db := newDatabase(t)
	db.exec(t, "DROP FUNCTION outbox.sample_subscriptions")
	_, err = ops.Sample(t.Context(), connect(t, db), "s")
	require.ErrorContains(t, err, "note what subscriptions did")
	db = newDatabase(t)
	db.exec(t, "DROP FUNCTION outbox.sample_system")
	_, err = ops.Sample(t.Context(), connect(t, db), "s")
	require.ErrorContains(t, err, "note the sums over everything")
}
