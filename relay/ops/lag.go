// Package ops is for operators: how far the relay is behind, metrics, health, and the upkeep of partitions.
package ops

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// ErrNoSlot means that outbox.replication_lag has no row for the slot.
var ErrNoSlot = errors.New("outbox.replication_lag has no row for the slot: run walhook init")

// DB is what a query needs: a connection, a pool or a transaction.
type DB interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Lag is a row of outbox.replication_lag. Sizes are bytes of WAL; a null
// size (the slot is gone) is nil.
type Lag struct {
	SlotName             string  `json:"slot_name" db:"slot_name"`
	Active               bool    `json:"active" db:"active"`
	WALStatus            string  `json:"wal_status" db:"wal_status"`
	LagBytes             *int64  `json:"lag_bytes" db:"lag_bytes"`
	RetainedBytes        *int64  `json:"retained_bytes" db:"retained_bytes"`
	SafeBytes            *int64  `json:"safe_bytes" db:"safe_bytes"` // nil: no limit is set
	LagSeconds           float64 `json:"lag_seconds" db:"lag_seconds"`
	CheckpointLSN        string  `json:"checkpoint_lsn" db:"checkpoint_lsn"`
	CheckpointBytes      int64   `json:"-" db:"checkpoint_bytes"`
	ConfirmedLSN         *string `json:"confirmed_lsn" db:"confirmed_lsn"`
	QueueDepth           int64   `json:"queue_depth" db:"queue_depth"`
	OldestPendingSeconds float64 `json:"oldest_pending_seconds" db:"oldest_pending_seconds"`
	DeadLetters          int64   `json:"dead_letters" db:"dead_letters"`
}

// ReadLag reads how far the slot's relay is behind.
func ReadLag(ctx context.Context, db DB, slot string) (Lag, error) {
	rows, err := db.Query(ctx, `SELECT slot_name, active, wal_status, lag_bytes, retained_bytes, safe_bytes, lag_seconds,
			checkpoint_lsn::text, (checkpoint_lsn - '0/0')::bigint AS checkpoint_bytes, confirmed_lsn::text, queue_depth,
			oldest_pending_seconds, dead_letters
		FROM outbox.replication_lag WHERE slot_name = $1`, slot)
	if err != nil {
		return Lag{}, fmt.Errorf("read replication lag: %w", err)
	}
	lag, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Lag])
	if errors.Is(err, pgx.ErrNoRows) {
		return Lag{}, ErrNoSlot
	}
	if err != nil {
		return Lag{}, fmt.Errorf("read replication lag: %w", err)
	}
	return lag, nil
}

// LaneStatus is how one subscription does: a row of outbox.subscription_stats. Of failed attempts, Timeouts had no answer
// in time. MeanMS and P95MS are of attempts, those from commit to delivery of deliveries that succeeded.
type LaneStatus struct {
	SubscriptionID         string   `json:"subscription_id" db:"subscription_id"`
	Name                   string   `json:"name" db:"name"`
	Active                 bool     `json:"is_active" db:"is_active"`
	Status                 string   `json:"status" db:"status"`
	Reason                 *string  `json:"status_reason,omitempty" db:"status_reason"`
	Deliveries             int64    `json:"deliveries" db:"deliveries"`
	Succeeded              int64    `json:"succeeded" db:"succeeded"`
	Failed                 int64    `json:"failed" db:"failed"`
	Timeouts               int64    `json:"timeouts" db:"timeouts"`
	Pending                int64    `json:"pending" db:"pending"`
	OldestPendingSeconds   float64  `json:"oldest_pending_seconds" db:"oldest_pending_seconds"`
	Dead                   int64    `json:"dead" db:"dead"`
	SuccessRate            *float64 `json:"success_rate" db:"success_rate"`
	MeanMS                 *float64 `json:"mean_ms" db:"mean_ms"`
	P95MS                  *float64 `json:"p95_ms" db:"p95_ms"`
	CommitToDeliveryMeanMS *float64 `json:"commit_to_delivery_mean_ms" db:"commit_to_delivery_mean_ms"`
	CommitToDeliveryP95MS  *float64 `json:"commit_to_delivery_p95_ms" db:"commit_to_delivery_p95_ms"`
	ConsecutiveFailures    int64    `json:"consecutive_failures" db:"consecutive_failures"`
}

// ReadLanes reads how subscriptions do, those with most waiting first, at most limit of them.
func ReadLanes(ctx context.Context, db DB, limit int) ([]LaneStatus, error) {
	rows, err := db.Query(ctx, `SELECT subscription_id::text, name, is_active, status, status_reason, deliveries, succeeded, failed, timeouts,
			pending, oldest_pending_seconds, dead, success_rate, mean_ms, p95_ms, commit_to_delivery_mean_ms, commit_to_delivery_p95_ms,
			consecutive_failures
		FROM outbox.subscription_stats ORDER BY pending DESC, dead DESC, name, subscription_id LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("read subscription statistics: %w", err)
	}
	lanes, err := pgx.CollectRows(rows, pgx.RowToStructByName[LaneStatus])
	if err != nil {
		return nil, fmt.Errorf("read subscription statistics: %w", err)
	}
	return lanes, nil
}
