package admin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

const (
	// maxCalls is how many attempts of one delivery are shown; wholeCalls of them, the newest, with a payload of up to
	// maxPayload bytes, the others with listedPayload, so that one page stays within some megabytes.
	maxCalls      = 100
	wholeCalls    = 10
	maxPayload    = 1 << 20
	listedPayload = 64 << 10
	// clockSkew is how far the clocks of those who make ids and of those who attempt may differ.
	clockSkew = time.Hour
)

// attemptedSince is a time before all attempts of an event or a delivery: their ids begin with the event's time (48 bits of
// milliseconds), and no attempt is before that. With it the partitions of earlier days are not looked at. An id that somebody
// chose and that holds no time of the past bounds nothing.
func attemptedSince(id uuid.UUID, now time.Time) time.Time {
	made := time.UnixMilli(int64(binary.BigEndian.Uint64(id[:8]) >> 16)).UTC()
	if made.After(now.Add(clockSkew)) {
		return time.Unix(0, 0).UTC()
	}
	return made.Add(-clockSkew)
}

// selectDelivery finds where a delivery ($1) stands: in the queue, among the dead letters, or else by its last attempt since
// $2. Webhook and event both must be of the tenant ($3, null: any); the event's own counts where the webhook is gone.
const selectDelivery = `
WITH found AS (
  SELECT q.event_id, q.subscription_id, q.type, q.tenant, q.state, q.next_attempt_at, q.last_error, 1 AS place
  FROM outbox.queue q WHERE q.delivery_id = $1::uuid
  UNION ALL
  SELECT l.event_id, l.subscription_id, l.type, l.tenant, 'dead', NULL, l.last_error, 2
  FROM outbox.dead_letters l WHERE l.id = $1::uuid
  UNION ALL
  (SELECT a.event_id, a.subscription_id, NULL, NULL, CASE WHEN a.error IS NULL THEN 'delivered' ELSE 'failed' END, NULL, a.error, 3
   FROM outbox.attempts a WHERE a.delivery_id = $1::uuid AND a.attempted_at >= $2::timestamptz ORDER BY a.attempt DESC LIMIT 1)
)
SELECT f.event_id, f.subscription_id, coalesce(s.name, ''), coalesce(f.type, e.type, ''), f.state, f.next_attempt_at, coalesce(f.last_error, '')
FROM found f
LEFT JOIN outbox.subscriptions s ON s.id = f.subscription_id
LEFT JOIN LATERAL (
  SELECT v.type, v.tenant FROM outbox.events v WHERE v.id = f.event_id
  UNION ALL
  SELECT v.type, v.tenant FROM outbox.emitted_events v WHERE v.id = f.event_id
  LIMIT 1) e ON true
WHERE $3::text IS NULL
   OR coalesce(f.tenant, e.tenant, s.tenant) = $3::text AND coalesce(s.tenant, $3::text) = $3::text
ORDER BY f.place LIMIT 1`

// Delivery returns one delivery with its attempts, the newest first and at most 100.
func (d *Desk) Delivery(ctx context.Context, id uuid.UUID) (Delivery, error) {
	since := attemptedSince(id, time.Now())
	delivery, err := d.findDelivery(ctx, d.db, id, since)
	if err != nil {
		return Delivery{}, err
	}
	if delivery.Calls, err = d.callsOf(ctx, id, since); err != nil {
		return Delivery{}, fmt.Errorf("list the calls of delivery %s: %w", id, err)
	}
	return delivery, nil
}

// findDelivery returns a delivery without its calls; NotFound when it is not the principal's.
func (d *Desk) findDelivery(ctx context.Context, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, id uuid.UUID, since time.Time,
) (Delivery, error) {
	found := Delivery{ID: id}
	err := db.QueryRow(ctx, selectDelivery, id, since, d.who.Tenant).Scan(&found.EventID, &found.WebhookID, &found.Webhook,
		&found.Type, &found.State, &found.NextAttemptAt, &found.LastError)
	if errors.Is(err, pgx.ErrNoRows) {
		return Delivery{}, notFound("there is no delivery %s: the calls of a webhook and the dead letters list what there is", id)
	}
	if err != nil {
		return Delivery{}, fmt.Errorf("find delivery %s: %w", id, err)
	}
	return found, nil
}

// callsOf lists the attempts of a delivery. Its caller has checked whose it is.
func (d *Desk) callsOf(ctx context.Context, id uuid.UUID, since time.Time) ([]Call, error) {
	rows, err := d.db.Query(ctx, `
SELECT c.delivery_id, c.event_id, c.subscription_id, c.attempt, coalesce(c.url, ''), c.method, coalesce(c.request_headers, '{}'),
       CASE WHEN octet_length(c.body) > c.most THEN left(c.body, c.most) ELSE coalesce(c.body, '') END,
       coalesce(octet_length(c.body) > c.most, false),
       c.status, c.response_body, c.duration_ms, c.error, c.attempted_at
FROM (SELECT v.*, v.payload::text AS body,
             CASE WHEN row_number() OVER (ORDER BY v.attempt DESC) <= $4 THEN $5::int ELSE $6::int END AS most
      FROM outbox.calls v WHERE v.delivery_id = $1::uuid AND v.attempted_at >= $2::timestamptz
      ORDER BY v.attempt DESC LIMIT $3) c
ORDER BY c.attempt DESC`, id, since, maxCalls, wholeCalls, maxPayload, listedPayload)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (c Call, err error) {
		err = row.Scan(&c.DeliveryID, &c.EventID, &c.WebhookID, &c.Attempt, &c.URL, &c.Method, &c.RequestHeaders, &c.Payload,
			&c.PayloadTruncated, &c.Status, &c.ResponseBody, &c.DurationMS, &c.Error, &c.AttemptedAt)
		if c.PayloadTruncated {
			c.Payload = cut(c.Payload, maxPayload)
		}
		c.Succeeded = c.Error == nil
		return c, err
	})
}

// cut shortens a text to so many bytes, at the end of a character.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return strings.Clone(text[:most]) // the rest is not kept in memory for it
}

// Redeliver sends a delivery again, under the same id: Conflict when it cannot go now (it is being attempted, or held behind
// another), NotFound when there is none, when its webhook was deleted or its event is no longer kept.
func (d *Desk) Redeliver(ctx context.Context, id uuid.UUID) error {
	err := pgx.BeginFunc(ctx, d.db, func(tx pgx.Tx) error {
		if _, err := d.findDelivery(ctx, tx, id, attemptedSince(id, time.Now())); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `SELECT outbox.redeliver($1::uuid)`, id)
		return err
	})
	return explained("redeliver "+id.String(), err)
}
