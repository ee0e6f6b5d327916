package record

import (
	"context"
	"fmt"
	"strconv"
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
	queueWakes(&q, b.Wakes)
	for i := range b.Changes {
		queueChange(&q, &b.Changes[i])
	}
	queueTotals(&q, b.Totals)
	queueTallies(&q, b.Tallies)
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
	held, batches := make([]bool, n), make([]*uuid.UUID, n)
	lasts, statuses, texts := make([]*time.Time, n), make([]*int32, n), make([]*string, n)
	for i, m := range moves {
		ids[i], ats[i], attempts[i], rounds[i], held[i] = m.ID, m.At.Add(s.ahead), int32(m.Attempts), int32(m.Round), m.Held
		if m.Batch != uuid.Nil {
			batches[i] = &m.Batch
		}
		if o := m.Last; o != nil {
			lasts[i], texts[i] = &o.StartedAt, &o.Error
			if status := int32(o.Status); status != 0 {
				statuses[i] = &status
			}
		}
	}
	// A released delivery keeps what its last attempt left.
	q.Queue(`UPDATE outbox.deliveries d SET next_attempt_at = CASE WHEN m.held THEN 'infinity' ELSE m.at END,
		attempts = m.attempts, round = m.round, batch = m.batch, lease_owner = NULL,
		last_attempt_at = coalesce(m.last, d.last_attempt_at),
		last_status = CASE WHEN m.last IS NULL THEN d.last_status ELSE m.status END,
		last_error = coalesce(m.error, d.last_error)
		FROM unnest($1::uuid[], $2::timestamptz[], $3::int[], $4::int[], $5::timestamptz[], $6::int[], $7::text[], $9::bool[], $10::uuid[])
			AS m(id, at, attempts, round, last, status, error, held, batch)
		WHERE d.id = m.id AND d.lease_owner = $8`,
		ids, ats, attempts, rounds, lasts, statuses, texts, s.options.Owner, held, batches)
}

// queueWakes makes the first row of each sequence due, if it was held behind one that is gone now. In the queue all
// rows of a sequence but its first are held, or claimed together with it.
func queueWakes(q *pgx.Batch, wakes map[Wake]struct{}) {
	if len(wakes) == 0 || fault.Bug(fault.WakeForgotten) {
		return
	}
	subscriptions, sequences := make([]uuid.UUID, 0, len(wakes)), make([]string, 0, len(wakes))
	for w := range wakes {
		subscriptions, sequences = append(subscriptions, w.SubscriptionID), append(sequences, w.Sequence)
	}
	q.Queue(`UPDATE outbox.deliveries d SET next_attempt_at = now()
		FROM unnest($1::uuid[], $2::text[]) AS w(subscription_id, sequence)
		CROSS JOIN LATERAL (SELECT id FROM outbox.deliveries
			WHERE subscription_id = w.subscription_id AND sequence = w.sequence
			ORDER BY commit_lsn, commit_index LIMIT 1) AS first
		WHERE d.id = first.id AND d.next_attempt_at = 'infinity'`, subscriptions, sequences)
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
	q.Queue(`INSERT INTO outbox.routing (subscription_id, tenant, event_types, filters, ordering, is_active, revision)
		VALUES ($1, $2, $3, $4::text::jsonb, $5, $6, $7)
		ON CONFLICT (subscription_id) DO UPDATE SET tenant = excluded.tenant, event_types = excluded.event_types,
			filters = excluded.filters, ordering = excluded.ordering, is_active = excluded.is_active, revision = excluded.revision`,
		r.SubscriptionID, r.Tenant, types, string(r.Filters), string(r.Ordering), r.Active, r.Revision)
}

// queueTotals adds to the statistics: in one statement for the subscriptions that only failed, whose run of failures goes
// on and which have no lag, and in one for the others.
func queueTotals(q *pgx.Batch, totals map[uuid.UUID]*Total) {
	var only, broken totalRows
	for id, t := range totals {
		if t.Broken {
			broken.add(id, t)
			broken.lags = append(broken.lags, latencyText(&t.Lag))
		} else {
			only.add(id, t)
		}
	}
	if len(only.ids) > 0 {
		q.Queue(`INSERT INTO outbox.subscription_totals AS t (subscription_id, attempts, succeeded, failed, delivered, total_us,
				consecutive_failures, latency, last_attempt_at, timeouts)
			SELECT id, attempts, 0, attempts, 0, total_us, streak, latency::bigint[], last, timeouts
			FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::timestamptz[], $7::bigint[])
				AS s(id, attempts, total_us, streak, latency, last, timeouts)
			ON CONFLICT (subscription_id) DO UPDATE SET
				attempts = t.attempts + excluded.attempts, failed = t.failed + excluded.failed, timeouts = t.timeouts + excluded.timeouts,
				total_us = t.total_us + excluded.total_us, latency = outbox.add_counts(t.latency, excluded.latency),
				consecutive_failures = excluded.consecutive_failures + t.consecutive_failures,
				last_attempt_at = greatest(t.last_attempt_at, excluded.last_attempt_at)`,
			only.ids, only.attempts, only.micros, only.streaks, only.latencies, only.lasts, only.timeouts)
	}
	if len(broken.ids) > 0 {
		q.Queue(`INSERT INTO outbox.subscription_totals AS t (subscription_id, attempts, succeeded, failed, delivered, total_us,
				consecutive_failures, latency, last_attempt_at, timeouts, lag_us, lag)
			SELECT id, attempts, succeeded, attempts - succeeded, succeeded, total_us, streak, latency::bigint[], last, timeouts, lag_us, lag::bigint[]
			FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::timestamptz[], $7::bigint[], $8::bigint[], $9::bigint[], $10::text[])
				AS s(id, attempts, total_us, streak, latency, last, timeouts, succeeded, lag_us, lag)
			ON CONFLICT (subscription_id) DO UPDATE SET
				attempts = t.attempts + excluded.attempts, succeeded = t.succeeded + excluded.succeeded,
				failed = t.failed + excluded.failed, delivered = t.delivered + excluded.delivered, timeouts = t.timeouts + excluded.timeouts,
				total_us = t.total_us + excluded.total_us, latency = outbox.add_counts(t.latency, excluded.latency),
				lag_us = t.lag_us + excluded.lag_us, lag = outbox.add_counts(t.lag, excluded.lag),
				consecutive_failures = excluded.consecutive_failures,
				last_attempt_at = greatest(t.last_attempt_at, excluded.last_attempt_at)`,
			broken.ids, broken.attempts, broken.micros, broken.streaks, broken.latencies, broken.lasts, broken.timeouts,
			broken.succeeded, broken.lagMicros, broken.lags)
	}
}

// totalRows are statistics as columns.
type totalRows struct {
	ids                                                       []uuid.UUID
	attempts, succeeded, micros, streaks, timeouts, lagMicros []int64
	latencies, lags                                           []string
	lasts                                                     []time.Time
}

func (r *totalRows) add(id uuid.UUID, t *Total) {
	r.ids, r.lasts, r.latencies = append(r.ids, id), append(r.lasts, t.Last), append(r.latencies, latencyText(&t.Latency))
	r.attempts, r.succeeded = append(r.attempts, t.Attempts), append(r.succeeded, t.Succeeded)
	r.micros, r.lagMicros = append(r.micros, t.Microseconds), append(r.lagMicros, t.LagMicroseconds)
	r.streaks, r.timeouts = append(r.streaks, t.Streak), append(r.timeouts, t.Timeouts)
}

// latencyText writes counts as Postgres writes an array.
func latencyText(counts *[latencyBuckets]int64) string {
	text := []byte{'{'}
	for i, n := range counts {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, n, 10)
	}
	return string(append(text, '}'))
}
