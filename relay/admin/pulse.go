package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// maxHistory is how far samples reach back: outbox.sample_system forgets older ones.
const maxHistory = 8 * 24 * time.Hour

// Pulse returns the numbers of now, in one small query. Of the relay's slot the lag is known as soon as there is a checkpoint.
func (d *Desk) Pulse(ctx context.Context) (Pulse, error) {
	if d.who.Everywhere() {
		rows, err := d.db.Query(ctx, `
SELECT sampled_at, events, attempts, succeeded, failed, queue_depth, dead_letters, lag_bytes, lag_seconds
FROM outbox.system_now WHERE slot_name = $1::text`, d.Slot)
		if err != nil {
			return Pulse{}, fmt.Errorf("take the pulse: %w", err)
		}
		pulse, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Pulse])
		if err == nil || !errors.Is(err, pgx.ErrNoRows) {
			return pulse, wrapped("take the pulse", err)
		}
	}
	rows, err := d.db.Query(ctx, `
SELECT clock_timestamp(), NULL::bigint, t.attempts, t.succeeded, t.failed,
       (SELECT count(*) FROM outbox.deliveries q WHERE $1::text IS NULL OR q.tenant = $1::text),
       (SELECT count(*) FROM outbox.dead_letters l WHERE $1::text IS NULL OR l.tenant = $1::text),
       NULL::bigint, NULL::double precision
FROM (SELECT coalesce(sum(t.attempts), 0)::bigint, coalesce(sum(t.succeeded), 0)::bigint, coalesce(sum(t.failed), 0)::bigint
      FROM outbox.subscription_totals t
      WHERE $1::text IS NULL OR t.subscription_id IN (SELECT s.id FROM outbox.subscriptions s WHERE s.tenant = $1::text)
     ) AS t(attempts, succeeded, failed)`, d.who.Tenant)
	if err != nil {
		return Pulse{}, fmt.Errorf("take the pulse: %w", err)
	}
	pulse, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Pulse])
	return pulse, wrapped("take the pulse", err)
}

// wrapped says what was being done, of an error if there is one.
func wrapped(doing string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// History returns one pulse a minute since so long ago (8 days at most), the oldest first; none for one tenant.
func (d *Desk) History(ctx context.Context, since time.Duration) ([]Pulse, error) {
	if !d.who.Everywhere() {
		return []Pulse{}, nil
	}
	rows, err := d.db.Query(ctx, `
SELECT sampled_at, events, attempts, succeeded, failed, queue_depth, dead_letters, lag_bytes, lag_seconds
FROM outbox.system_samples WHERE sampled_at >= now() - make_interval(secs => $1::float8) ORDER BY sampled_at`, min(since, maxHistory).Seconds())
	if err != nil {
		return nil, fmt.Errorf("read the history: %w", err)
	}
	pulses, err := pgx.AppendRows([]Pulse{}, rows, pgx.RowToStructByPos[Pulse])
	return pulses, wrapped("read the history", err)
}
