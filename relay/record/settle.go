package record

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/delivery"
)

// finish settles existing rows, brings the routing view and the statistics up to date, and commits.
func (s *Store) finish(ctx context.Context, b *Batch) error {
	var q pgx.Batch
	if len(b.Deletes) > 0 {
		q.Queue("DELETE FROM outbox.deliveries WHERE id = ANY($1)", b.Deletes)
	}
	s.queueMoves(&q, b.Moves)
	for i := range b.Changes {
		queueChange(&q, &b.Changes[i])
	}
	queueTotals(&q, b.Totals)
	q.Queue("COMMIT")
	fault.PointIf(len(b.Deletes)+len(b.Moves) > 0, fault.RecordSettled)
	fault.PointIf(len(b.Changes) > 0, fault.RecordRouting)
	fault.Point(fault.RecordBeforeCommit)
	results := s.conn.SendBatch(ctx, &q)
	fault.Point(fault.RecordCommitSent)
	if err := results.Close(); err != nil {
		return fmt.Errorf("commit record transaction: %w", err)
	}
	return nil
}

func (s *Store) queueMoves(q *pgx.Batch, moves []Move) {
	n := len(moves)
	if n == 0 {
		return
	}
	ids, ats := make([]uuid.UUID, n), make([]time.Time, n)
	attempts, rounds := make([]int32, n), make([]int32, n)
	lasts, statuses, texts := make([]*time.Time, n), make([]*int32, n), make([]*string, n)
	for i, m := range moves {
		ids[i], ats[i], attempts[i], rounds[i] = m.ID, m.At.Add(s.ahead), int32(m.Attempts), int32(m.Round)
		if o := m.Last; o != nil {
			lasts[i], texts[i] = &o.StartedAt, &o.Error
			if status := int32(o.Status); status != 0 {
				statuses[i] = &status
			}
		}
	}
	// A released delivery keeps what its last attempt left.
	q.Queue(`UPDATE outbox.deliveries d SET next_attempt_at = m.at, attempts = m.attempts, round = m.round, lease_owner = NULL,
		last_attempt_at = coalesce(m.last, d.last_attempt_at),
		last_status = CASE WHEN m.last IS NULL THEN d.last_status ELSE m.status END,
		last_error = coalesce(m.error, d.last_error)
		FROM unnest($1::uuid[], $2::timestamptz[], $3::int[], $4::int[], $5::timestamptz[], $6::int[], $7::text[])
			AS m(id, at, attempts, round, last, status, error)
		WHERE d.id = m.id AND d.lease_owner = $8`,
		ids, ats, attempts, rounds, lasts, statuses, texts, s.options.Owner)
}

func queueChange(q *pgx.Batch, c *delivery.Change) {
	r := &c.Rule
	if c.Deleted {
		q.Queue("DELETE FROM outbox.routing WHERE subscription_id = $1", r.SubscriptionID)
		return
	}
	types := r.EventTypes
	if types == nil {
		types = []string{}
	}
	q.Queue(`INSERT INTO outbox.routing (subscription_id, tenant, event_types, filters, is_active, revision)
		VALUES ($1, $2, $3, $4::text::jsonb, $5, $6)
		ON CONFLICT (subscription_id) DO UPDATE SET tenant = excluded.tenant, event_types = excluded.event_types,
			filters = excluded.filters, is_active = excluded.is_active, revision = excluded.revision`,
		r.SubscriptionID, r.Tenant, types, string(r.Filters), r.Active, r.Revision)
}

func queueTotals(q *pgx.Batch, totals map[uuid.UUID]*Total) {
	for id, t := range totals {
		q.Queue(`INSERT INTO outbox.subscription_totals AS t (subscription_id, attempts, succeeded, failed, delivered, total_us,
				latency, consecutive_failures, last_attempt_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $10)
			ON CONFLICT (subscription_id) DO UPDATE SET
				attempts = t.attempts + excluded.attempts, succeeded = t.succeeded + excluded.succeeded,
				failed = t.failed + excluded.failed, delivered = t.delivered + excluded.delivered,
				total_us = t.total_us + excluded.total_us, latency = outbox.add_counts(t.latency, excluded.latency),
				consecutive_failures = excluded.consecutive_failures + CASE WHEN $9 THEN 0 ELSE t.consecutive_failures END,
				last_attempt_at = greatest(t.last_attempt_at, excluded.last_attempt_at)`,
			id, t.Attempts, t.Succeeded, t.Failed, t.Delivered, t.Microseconds, t.Latency[:], t.Streak, t.Broken, t.Last)
	}
}
