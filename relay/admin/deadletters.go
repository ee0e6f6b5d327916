package admin

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// maxRedeliver is how many dead letters one request sends again.
const maxRedeliver = 1000

// DeadLetters lists what was given up, the newest event first. Without a webhook it looks at a bounded number of rows, as
// Events does: a page may be short and have a cursor all the same.
func (d *Desk) DeadLetters(ctx context.Context, f DeadFilter) (Page[DeadLetter], error) {
	if err := checkFilter("type", f.Type); err != nil {
		return Page[DeadLetter]{}, err
	}
	s, err := newSearch(f.Limit, f.Cursor)
	if err != nil {
		return Page[DeadLetter]{}, err
	}
	if f.Webhook != nil {
		s.look = 0 // found by index
	} else if f.Type != "" || !d.who.Everywhere() {
		s.look = examined
	}
	err = s.run(ctx, d.db, `
WITH looked AS MATERIALIZED (
  SELECT l.id, l.subscription_id, l.type, l.tenant FROM outbox.dead_letters l
  WHERE l.id < $1::uuid AND ($4::uuid IS NULL OR l.subscription_id = $4::uuid)
  ORDER BY l.id DESC LIMIT nullif($2::int, 0)
)
SELECT ARRAY(
    SELECT l.id FROM looked l LEFT JOIN outbox.subscriptions s ON s.id = l.subscription_id
    WHERE ($5::text = '' OR l.type = $5::text) AND ($6::text IS NULL OR l.tenant = $6::text AND coalesce(s.tenant, $6::text) = $6::text)
    ORDER BY l.id DESC LIMIT $3::int),
  (SELECT l.id FROM looked l ORDER BY l.id LIMIT 1), (SELECT count(*) FROM looked)`, f.Webhook, f.Type, d.who.Tenant)
	if err != nil {
		return Page[DeadLetter]{}, fmt.Errorf("search the dead letters: %w", err)
	}
	letters, err := d.deadLetters(ctx, s.found)
	if err != nil {
		return Page[DeadLetter]{}, fmt.Errorf("list dead letters: %w", err)
	}
	return Page[DeadLetter]{Items: letters, Next: s.next}, nil
}

// deadLetters reads dead letters. Its caller has checked whose they are.
func (d *Desk) deadLetters(ctx context.Context, ids []uuid.UUID) ([]DeadLetter, error) {
	letters := []DeadLetter{}
	if len(ids) == 0 {
		return letters, nil
	}
	rows, err := d.db.Query(ctx, `
SELECT l.id, l.subscription_id, coalesce(s.name, ''), l.event_id, l.type, coalesce(l.key, ''), l.tenant, l.attempts, l.last_attempt_at,
       l.last_status, coalesce(l.last_error, ''), l.died_at
FROM outbox.dead_letters l LEFT JOIN outbox.subscriptions s ON s.id = l.subscription_id
WHERE l.id = ANY ($1::uuid[]) ORDER BY l.id DESC`, ids)
	if err != nil {
		return nil, err
	}
	return pgx.AppendRows(letters, rows, func(row pgx.CollectableRow) (l DeadLetter, err error) {
		err = row.Scan(&l.ID, &l.WebhookID, &l.Webhook, &l.EventID, &l.Type, &l.Key, &l.Tenant, &l.Attempts, &l.LastAttemptAt,
			&l.LastStatus, &l.LastError, &l.DiedAt)
		return l, err
	})
}

// RedeliverDead sends dead letters that the filter chooses again, at most max of them (the oldest first; 0: 1000, which is the
// most), and returns how many. Those whose webhook was deleted stay where they are, as do those that somebody else is at.
func (d *Desk) RedeliverDead(ctx context.Context, f DeadFilter, max int) (int, error) {
	if err := checkFilter("type", f.Type); err != nil {
		return 0, err
	}
	if max < 0 || max > maxRedeliver {
		return 0, invalid("limit", "%d is refused: give 1 to %d, and ask again for more", max, maxRedeliver)
	}
	if max == 0 {
		max = maxRedeliver
	}
	sent := 0
	err := pgx.BeginFunc(ctx, d.db, func(tx pgx.Tx) error {
		ids, err := d.lockDead(ctx, tx, f, max)
		if err != nil {
			return fmt.Errorf("choose dead letters: %w", err)
		}
		sent, err = redeliverEach(ctx, tx, ids)
		return err
	})
	if err != nil {
		return 0, explained("redeliver dead letters", err)
	}
	return sent, nil
}

// lockDead chooses dead letters and keeps others off them until the transaction ends.
func (d *Desk) lockDead(ctx context.Context, tx pgx.Tx, f DeadFilter, max int) ([]uuid.UUID, error) {
	rows, err := tx.Query(ctx, `
SELECT l.id FROM outbox.dead_letters l JOIN outbox.subscriptions s ON s.id = l.subscription_id
WHERE ($1::uuid IS NULL OR l.subscription_id = $1::uuid) AND ($2::text = '' OR l.type = $2::text)
  AND ($3::text IS NULL OR l.tenant = $3::text AND s.tenant = $3::text)
ORDER BY l.id LIMIT $4::int FOR UPDATE OF l SKIP LOCKED`, f.Webhook, f.Type, d.who.Tenant, max)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
}

// redeliverEach redelivers all at once, which works unless one of them cannot be; then it tries them one by one and skips
// those.
func redeliverEach(ctx context.Context, tx pgx.Tx, ids []uuid.UUID) (sent int, err error) {
	if len(ids) == 0 {
		return 0, nil
	}
	if err := redeliverAll(ctx, tx, ids); err == nil {
		return len(ids), nil
	} else if !isRefusal(err) {
		return 0, err
	}
	for _, id := range ids {
		switch err := redeliverAll(ctx, tx, []uuid.UUID{id}); {
		case err == nil:
			sent++
		case !isRefusal(err):
			return 0, err
		}
	}
	return sent, nil
}

// redeliverAll redelivers all or none of them, and leaves the transaction usable.
func redeliverAll(ctx context.Context, tx pgx.Tx, ids []uuid.UUID) error {
	return pgx.BeginFunc(ctx, tx, func(savepoint pgx.Tx) error {
		_, err := savepoint.Exec(ctx, `SELECT outbox.redeliver(id) FROM unnest($1::uuid[]) WITH ORDINALITY AS t(id, n) ORDER BY n`, ids)
		return refused(err)
	})
}

// isRefusal reports whether an error is about what was asked for.
func isRefusal(err error) bool {
	var refusal *Error
	return errors.As(err, &refusal)
}
