package ops_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/ops"
	"github.com/walhook/walhook/test/harness"
)

func TestLagOfACaughtUpSlot(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	slot := db.slot(t)
	lag, err := ops.ReadLag(t.Context(), db, slot)
	require.NoError(t, err)
	require.Equal(t, slot, lag.SlotName)
	require.False(t, lag.Active)
	require.Equal(t, "reserved", lag.WALStatus)
	require.Less(t, *lag.LagBytes, int64(1<<20))
	require.GreaterOrEqual(t, *lag.RetainedBytes, *lag.LagBytes)
	require.Nil(t, lag.SafeBytes, "without max_slot_wal_keep_size nothing is lost")
	require.Zero(t, lag.LagSeconds)
	require.Equal(t, lag.CheckpointLSN, *lag.ConfirmedLSN)
	require.Positive(t, lag.CheckpointBytes)
	require.Zero(t, lag.QueueDepth)
	require.Zero(t, lag.OldestPendingSeconds)
	require.Zero(t, lag.DeadLetters)
}

func TestLagGrows(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	slot, s := db.slot(t), db.subscription(t, "s")
	db.exec(t, "INSERT INTO outbox.events (id, type, created_at) VALUES (outbox.uuidv7(), 'recorded', now() - interval '1 hour')")
	db.exec(t, "UPDATE outbox.checkpoint SET recorded_through = now() - interval '100 seconds'")
	db.exec(t, "INSERT INTO outbox.events (type, created_at) VALUES ('a', now() - interval '90 seconds'), ('b', now())")
	db.exec(t, "CREATE TABLE elsewhere AS SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
	db.waiting(t, "deliveries", s, 3, "50 seconds")
	db.waiting(t, "deliveries", s, 2, "10 seconds")
	db.waiting(t, "dead_letters", s, 4, "1 second")
	lag, err := ops.ReadLag(t.Context(), db, slot)
	require.NoError(t, err)
	require.Greater(t, *lag.LagBytes, int64(5_000_000))
	require.InDelta(t, 90, lag.LagSeconds, 5, "the oldest event after what is recorded")
	require.EqualValues(t, 5, lag.QueueDepth)
	require.InDelta(t, 50, lag.OldestPendingSeconds, 5)
	require.EqualValues(t, 4, lag.DeadLetters)
}

func TestLagOfALostSlot(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	slot := db.slot(t)
	db.exec(t, "SELECT pg_drop_replication_slot($1)", slot)
	lag, err := ops.ReadLag(t.Context(), db, slot)
	require.NoError(t, err)
	require.Equal(t, "lost", lag.WALStatus)
	require.Nil(t, lag.LagBytes)
	require.Nil(t, lag.RetainedBytes)
	require.Nil(t, lag.ConfirmedLSN)
}

func TestLagWithALimitOnTheSlot(t *testing.T) {
	t.Parallel()
	server := harness.StartServer(t, "", map[string]string{"max_slot_wal_keep_size": "100MB"})
	db := database{harness.Connect(t, migrated(t, server.URL("postgres"))), ""}
	lag, err := ops.ReadLag(t.Context(), db, db.slot(t))
	require.NoError(t, err)
	require.NotNil(t, lag.SafeBytes)
	require.InDelta(t, 100<<20, *lag.SafeBytes, 33<<20)
}

func TestLagWithoutSetup(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	_, err := ops.ReadLag(t.Context(), db, "nobody")
	require.ErrorIs(t, err, ops.ErrNoSlot)
	require.ErrorContains(t, err, "walhook init")

	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = ops.ReadLag(canceled, db, "nobody")
	require.ErrorContains(t, err, "read replication lag")
	require.False(t, errors.Is(err, ops.ErrNoSlot))
}

// Those with most waiting come first.
func TestLanes(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	quiet, busy, dead := db.subscription(t, "quiet"), db.subscription(t, "busy"), db.subscription(t, "dead")
	db.waiting(t, "deliveries", busy, 6, "1 second")
	db.waiting(t, "deliveries", busy, 1, "30 seconds")
	db.waiting(t, "dead_letters", dead, 2, "1 second")
	db.exec(t, "UPDATE outbox.subscriptions SET status = 'invalid', status_reason = 'no such operator' WHERE id = $1", dead)
	db.exec(t, `INSERT INTO outbox.subscription_totals (subscription_id, attempts, succeeded, failed, delivered, total_us, latency, timeouts, lag_us, lag, consecutive_failures, last_attempt_at)
		VALUES ($1, 4, 3, 1, 3, 10000, '{1,0,3,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}', 1, 60000, '{0,0,0,0,2,1,0,0,0,0,0,0,0,0,0,0,0,0,0,0}', 1, now())`, busy)
	lanes, err := ops.ReadLanes(t.Context(), db, 10)
	require.NoError(t, err)
	require.Len(t, lanes, 3)
	require.Equal(t, []string{"busy", "dead", "quiet"}, []string{lanes[0].Name, lanes[1].Name, lanes[2].Name})
	require.InDelta(t, 30, lanes[0].OldestPendingSeconds, 5)
	lanes[0].OldestPendingSeconds = 0
	rate, mean, p95, lagMean, lagP95, reason := 0.75, 2.5, 4.0, 20.0, 32.0, "no such operator"
	require.Equal(t, ops.LaneStatus{SubscriptionID: busy.String(), Name: "busy", Active: true, Status: "valid", Deliveries: 10, Succeeded: 3, Failed: 1,
		Timeouts: 1, Pending: 7, SuccessRate: &rate, MeanMS: &mean, P95MS: &p95, CommitToDeliveryMeanMS: &lagMean, CommitToDeliveryP95MS: &lagP95,
		ConsecutiveFailures: 1}, lanes[0])
	require.Equal(t, ops.LaneStatus{SubscriptionID: dead.String(), Name: "dead", Active: true, Status: "invalid", Reason: &reason, Deliveries: 2, Dead: 2}, lanes[1])
	require.Equal(t, ops.LaneStatus{SubscriptionID: quiet.String(), Name: "quiet", Active: true, Status: "valid"}, lanes[2])

	lanes, err = ops.ReadLanes(t.Context(), db, 1)
	require.NoError(t, err)
	require.Len(t, lanes, 1)

	conn, err := pgx.Connect(t.Context(), db.url)
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))
	_, err = ops.ReadLanes(t.Context(), conn, 1)
	require.ErrorContains(t, err, "read subscription statistics")
}
