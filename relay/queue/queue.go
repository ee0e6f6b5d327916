// Package queue is the Postgres queue of deliveries that wait: retries, what a slow lane spilled, what a
// crash left behind. The record transaction puts rows in and settles them; here they are claimed.
package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/delivery"
)

// ErrEpoch means that another relay has taken over: nothing may be claimed any more.
var ErrEpoch = errors.New("another relay has taken over: nothing may be claimed")

// Queue claims deliveries for one relay of one epoch.
type Queue struct {
	Slot  string
	Epoch int
	Owner string // of the leases
}

// Lane is a subscription with rows in the queue.
type Lane struct {
	SubscriptionID uuid.UUID
	Due            time.Time // of its first row, or a day from now if that is further away
	Held           bool      // all its rows are held, which happens when others than the relay change them
}

// Lanes returns the subscriptions that have rows, each with the time of its first one, and the database's
// clock. The cost grows with the number of such subscriptions, not with the rows.
func (q *Queue) Lanes(ctx context.Context, conn *pgx.Conn) ([]Lane, time.Time, error) {
	rows, err := conn.Query(ctx, `WITH RECURSIVE lanes AS (
			(SELECT subscription_id, next_attempt_at FROM outbox.deliveries ORDER BY subscription_id, next_attempt_at LIMIT 1)
			UNION ALL
			SELECT n.subscription_id, n.next_attempt_at FROM lanes CROSS JOIN LATERAL (
				SELECT d.subscription_id, d.next_attempt_at FROM outbox.deliveries d
				WHERE d.subscription_id > lanes.subscription_id
				ORDER BY d.subscription_id, d.next_attempt_at LIMIT 1) n
		) SELECT subscription_id, least(next_attempt_at, now() + '1 day'), next_attempt_at = 'infinity', clock_timestamp() FROM lanes`)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("look for due deliveries: %w", err)
	}
	now := time.Time{}
	lanes, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Lane, error) {
		var l Lane
		err := row.Scan(&l.SubscriptionID, &l.Due, &l.Held, &now)
		return l, err
	})
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("look for due deliveries: %w", err)
	}
	return lanes, now, nil
}

// Want is how many deliveries a lane may claim, and for how long.
type Want struct {
	SubscriptionID uuid.UUID
	N              int
	Bytes          int // of events, as delivery.Event.Size counts them; the delivery that reaches it is the last
	Lease          time.Duration
}

// claimQuery has these steps. head: each lane's due rows. Those of a sequence count only if they are its first, which
// others that are due are not where leases ran out, or several failed together. run: what may follow the heads, as far
// as their lane wants more rows than there are heads. Then rows are ranked within their lane, a sequence's in its order,
// so that whatever is left out for want of room stands behind what is taken. rest: what failed together with some of
// these, beyond what is wanted, unless it has to wait for others. octet_length knows the size of a large text without
// reading it.
const claimQuery = `WITH mine AS MATERIALIZED (SELECT EXISTS (
		SELECT FROM outbox.checkpoint WHERE slot_name = $4 AND epoch = $5) AS still),
	head AS MATERIALIZED (SELECT d.*, want.n, want.lease, want.most, want.place, count(*) OVER (PARTITION BY want.place) AS heads
		FROM unnest($1::uuid[], $2::int[], $3::float8[], $7::bigint[]) WITH ORDINALITY AS want(subscription_id, n, lease, most, place)
		CROSS JOIN LATERAL (SELECT id, subscription_id, sequence, batch, commit_lsn, commit_index, next_attempt_at,
				coalesce(lease_owner = $6, false) AS again, 256 + octet_length(payload) + coalesce(octet_length(headers), 0)
				+ octet_length(type) + coalesce(octet_length(key), 0) AS size
			FROM outbox.deliveries f
			WHERE subscription_id = want.subscription_id AND next_attempt_at <= now() AND (SELECT still FROM mine)
				AND (sequence IS NULL OR NOT EXISTS (SELECT FROM outbox.deliveries e
					WHERE e.subscription_id = f.subscription_id AND e.sequence = f.sequence
						AND (e.commit_lsn, e.commit_index) < (f.commit_lsn, f.commit_index)))
			ORDER BY next_attempt_at LIMIT want.n FOR UPDATE OF f SKIP LOCKED) d),
	run AS (SELECT h.place, h.most, h.lease, f.id, f.again, f.size, f.batch, f.next_attempt_at, f.depth
		FROM head h CROSS JOIN LATERAL (
			SELECT *, row_number() OVER following AS depth, bool_and(next_attempt_at = 'infinity' OR next_attempt_at <= now()) OVER following AS free FROM (
				SELECT id, commit_lsn, commit_index, next_attempt_at, batch, lease_owner IS NOT DISTINCT FROM $6 AS again,
					256 + octet_length(payload) + coalesce(octet_length(headers), 0)
					+ octet_length(type) + coalesce(octet_length(key), 0) AS size
				FROM outbox.deliveries
				WHERE subscription_id = h.subscription_id AND sequence = h.sequence
					AND (commit_lsn, commit_index) > (h.commit_lsn, h.commit_index)
				ORDER BY commit_lsn, commit_index LIMIT greatest(h.n / h.heads, 1)) AS next
			WINDOW following AS (ORDER BY commit_lsn, commit_index)) f
		WHERE h.sequence IS NOT NULL AND h.n > h.heads AND f.free),
	wanted AS (SELECT id, again, lease, most, place, size, batch, next_attempt_at, 0 AS depth FROM head
		UNION ALL SELECT id, again, lease, most, place, size, batch, next_attempt_at, depth FROM run),
	ranked AS (SELECT *, row_number() OVER lane AS rank, sum(size) OVER lane - size AS before
		FROM wanted WINDOW lane AS (PARTITION BY place ORDER BY depth, next_attempt_at, batch, id)),
	summed AS (SELECT id, again, lease, place, batch, next_attempt_at, sum(size) OVER (ORDER BY rank, place) - size AS before
		FROM ranked WHERE before < most AND rank <= ($2::int[])[place::int]),
	picked AS MATERIALIZED (SELECT id, again, lease, place, batch, next_attempt_at FROM summed WHERE before < $8::bigint),
	rest AS (SELECT b.lease, r.*, row_number() OVER (PARTITION BY b.place, r.batch, r.next_attempt_at, sequence
			ORDER BY commit_lsn, commit_index) AS nth
		FROM (SELECT DISTINCT place, batch, next_attempt_at, lease FROM picked WHERE batch IS NOT NULL AND next_attempt_at <= now()) b
		CROSS JOIN LATERAL (SELECT id, sequence, commit_lsn, commit_index, batch, next_attempt_at, coalesce(lease_owner = $6, false) AS again,
				CASE WHEN sequence IS NOT NULL THEN (SELECT count(*) FROM outbox.deliveries e
					WHERE e.subscription_id = f.subscription_id AND e.sequence = f.sequence
						AND (e.commit_lsn, e.commit_index) < (f.commit_lsn, f.commit_index)) END AS earlier
			FROM outbox.deliveries f
			WHERE subscription_id = ($1::uuid[])[b.place::int] AND next_attempt_at = b.next_attempt_at AND batch = b.batch
			LIMIT 1000 FOR UPDATE OF f SKIP LOCKED) r), -- the largest batch_size
	claimed AS (UPDATE outbox.deliveries d
		SET next_attempt_at = now() + make_interval(secs => p.lease), lease_owner = $6
		FROM (SELECT id, again, lease FROM picked
			UNION SELECT id, again, lease FROM rest WHERE sequence IS NULL OR earlier = nth - 1) p WHERE d.id = p.id
		RETURNING d.*, p.lease, p.again)
	SELECT still, c.id, c.subscription_id, c.event_id, c.type, c.payload, coalesce(c.key, ''), c.tenant,
		coalesce(c.source, ''), coalesce(c.correlation_id, ''), coalesce(c.headers, ''), c.emitted, c.created_at,
		c.committed_at, c.commit_lsn::text, c.commit_index, c.attempts, c.round, c.lease, c.again, coalesce(c.sequence, ''), c.batch
	FROM mine LEFT JOIN claimed c ON true`

// Claim takes due deliveries, of each lane at most what it wants and what failed together with these, and leases them.
// All that is wanted ends with the one that reaches so many bytes, as delivery.Event.Size counts them; the lanes' first
// ones come before their second ones, so that all have a share. Rows that another process is taking are passed over. It
// returns ErrEpoch, and claims nothing, once another relay has the slot.
func (q *Queue) Claim(ctx context.Context, conn *pgx.Conn, wants []Want, bytes int) ([]*delivery.Delivery, error) {
	n := len(wants)
	ids, counts, most, leases := make([]uuid.UUID, n), make([]int32, n), make([]int64, n), make([]float64, n)
	for i, w := range wants {
		ids[i], counts[i], most[i], leases[i] = w.SubscriptionID, int32(w.N), int64(w.Bytes), w.Lease.Seconds()
	}
	claim := claimQuery
	if fault.Bug(fault.EpochIgnored) {
		claim = strings.Replace(claim, "epoch = $5", "$5::int > 0", 1)
	}
	if fault.Bug(fault.LeaseNotRenewed) {
		claim = strings.Replace(claim, "secs => p.lease", "secs => 0", 1)
	}
	leasedAt := time.Now()
	rows, err := conn.Query(ctx, claim, ids, counts, leases, q.Slot, q.Epoch, q.Owner, most, int64(bytes))
	if err != nil {
		return nil, fmt.Errorf("claim deliveries: %w", err)
	}
	claimed, err := collect(rows, leasedAt)
	if err != nil {
		return nil, fmt.Errorf("claim deliveries: %w", err)
	}
	slices.SortFunc(claimed, func(a, b *delivery.Delivery) int {
		return cmp.Or(a.Event.Position.Compare(b.Event.Position), a.Event.CommittedAt.Compare(b.Event.CommittedAt))
	})
	return claimed, nil
}

// collect reads claimed rows; the first column says whether the epoch still stands.
func collect(rows pgx.Rows, leasedAt time.Time) ([]*delivery.Delivery, error) {
	defer rows.Close()
	var out []*delivery.Delivery
	for rows.Next() {
		var (
			still                           bool
			id, subscription, event         *uuid.UUID
			kind, payload, key, tenant      *string
			source, correlation, headers, l *string
			emitted, again                  *bool
			created, committed              *time.Time
			index                           *int64
			attempts, round                 *int
			lease                           *float64
			sequence                        *string
			batch                           *uuid.UUID
		)
		err := rows.Scan(&still, &id, &subscription, &event, &kind, &payload, &key, &tenant, &source, &correlation, &headers,
			&emitted, &created, &committed, &l, &index, &attempts, &round, &lease, &again, &sequence, &batch)
		if err != nil {
			return nil, err
		}
		if !still {
			return nil, ErrEpoch
		}
		if id == nil {
			continue // nothing was due
		}
		lsn, err := delivery.ParseLSN(*l)
		if err != nil {
			return nil, err
		}
		e := &delivery.Event{ID: *event, Type: *kind, Payload: []byte(*payload), Key: *key, Tenant: *tenant, Source: *source,
			CorrelationID: *correlation, Headers: []byte(*headers), CreatedAt: *created, CommittedAt: committed.UTC(),
			Position: delivery.Position{LSN: lsn, Index: uint64(*index)}, Emitted: *emitted}
		d := &delivery.Delivery{ID: *id, SubscriptionID: *subscription, Event: e, Sequence: *sequence, Attempts: *attempts, Round: *round,
			Queued: true, Again: *again, Lease: leasedAt.Add(time.Duration(*lease * float64(time.Second)))}
		if batch != nil {
			d.Batch = *batch
		}
		out = append(out, d)
	}
	return out, rows.Err()
}

// Wake makes the first delivery of each sequence of a subscription due, if it is held although nothing stands before
// it: its predecessor was taken away by hand. So is what was held by hand, and stands in no sequence.
func (q *Queue) Wake(ctx context.Context, conn *pgx.Conn, subscription uuid.UUID) error {
	_, err := conn.Exec(ctx, `UPDATE outbox.deliveries SET next_attempt_at = now() WHERE next_attempt_at = 'infinity' AND subscription_id = $1
		AND (sequence IS NULL OR id IN (
			SELECT DISTINCT ON (sequence) id FROM outbox.deliveries WHERE subscription_id = $1 AND sequence IS NOT NULL
			ORDER BY sequence, commit_lsn, commit_index))`, subscription)
	if err != nil {
		return fmt.Errorf("wake the held deliveries of subscription %s: %w", subscription, err)
	}
	fault.Point(fault.QueueWoken)
	return nil
}

// CancelAtATime is how many deliveries one Cancel ends: whoever claims waits for it meanwhile.
const CancelAtATime = 5000

// Cancel makes dead letters of what waits for a subscription that no longer exists, at most CancelAtATime, and returns
// how many there were. What is under a lease may be in flight, and is left alone until that is over.
//
// That nobody sees the subscription is not enough: a delivery comes from the stream, which has a new subscription before
// others see it, after a commit that waits for a standby much earlier. The routing view has it by then, with a
// revision that its own transaction noted. It was deleted if that revision can be seen, or if the view has lost it.
func (q *Queue) Cancel(ctx context.Context, conn *pgx.Conn, subscription uuid.UUID) (int64, error) {
	tag, err := conn.Exec(ctx, `WITH gone AS (
			DELETE FROM outbox.deliveries WHERE id IN (
				SELECT id FROM outbox.deliveries WHERE subscription_id = $1 AND (lease_owner IS NULL OR next_attempt_at <= now())
					AND NOT EXISTS (SELECT FROM outbox.subscriptions WHERE id = $1)
					AND NOT EXISTS (SELECT FROM outbox.routing v WHERE v.subscription_id = $1 AND NOT EXISTS (
						SELECT FROM outbox.subscription_revisions r WHERE r.revision = v.revision AND r.subscription_id = v.subscription_id))
				LIMIT $2 FOR UPDATE)
			RETURNING *)
		INSERT INTO outbox.dead_letters (id, subscription_id, event_id, type, payload, key, tenant, source, correlation_id, headers,
			emitted, created_at, committed_at, commit_lsn, commit_index, attempts, last_attempt_at, last_status, last_error)
		SELECT id, subscription_id, event_id, type, payload, key, tenant, source, correlation_id, headers,
			emitted, created_at, committed_at, commit_lsn, commit_index, attempts, last_attempt_at, last_status,
			'the subscription was deleted' || coalesce('; before that: ' || last_error, '')
		FROM gone ON CONFLICT (id) DO NOTHING`, subscription, CancelAtATime)
	if err != nil {
		return 0, fmt.Errorf("cancel deliveries of subscription %s: %w", subscription, err)
	}
	return tag.RowsAffected(), nil
}
