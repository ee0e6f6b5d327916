package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// maxDeliveries is how many deliveries of an event are shown.
const maxDeliveries = 1000

// Events lists events, the newest first. It looks at a bounded number of rows; a page may be short and have a cursor all the same.
func (d *Desk) Events(ctx context.Context, f EventFilter) (Page[Event], error) {
	err := errors.Join(checkFilter("type", f.Type), checkFilter("key", f.Key), checkFilter("correlation_id", f.CorrelationID))
	if err != nil {
		return Page[Event]{}, err
	}
	s, err := newSearch(f.Limit, f.Cursor)
	if err != nil {
		return Page[Event]{}, err
	}
	exact, prefix := f.types()
	if exact != "" || prefix != "" || f.Key != "" || f.CorrelationID != "" || !d.who.Everywhere() {
		s.look = examined
	}
	err = s.run(ctx, d.db, `
WITH looked AS MATERIALIZED (
  (SELECT id, type, key, correlation_id, tenant FROM outbox.events WHERE id < $1::uuid ORDER BY id DESC LIMIT $2::int)
  UNION ALL
  (SELECT id, type, key, correlation_id, tenant FROM outbox.emitted_events WHERE id < $1::uuid ORDER BY id DESC LIMIT $2::int)
  ORDER BY id DESC LIMIT $2::int
)
SELECT ARRAY(
    SELECT id FROM looked
    WHERE ($4::text = '' OR type = $4::text) AND starts_with(type, $5::text) AND ($6::text = '' OR key = $6::text)
      AND ($7::text = '' OR correlation_id = $7::text) AND ($8::text IS NULL OR tenant = $8::text)
    ORDER BY id DESC LIMIT $3::int),
  (SELECT id FROM looked ORDER BY id LIMIT 1), (SELECT count(*) FROM looked)`, exact, prefix, f.Key, f.CorrelationID, d.who.Tenant)
	if err != nil {
		return Page[Event]{}, fmt.Errorf("search the events: %w", err)
	}
	events, err := d.events(ctx, s.found, listedPayload)
	if err != nil {
		return Page[Event]{}, fmt.Errorf("list events: %w", err)
	}
	return Page[Event]{Items: events, Next: s.next}, nil
}

// types returns the type that is asked for, or the prefix of those that are; both empty: all.
func (f EventFilter) types() (exact, prefix string) {
	if f.Type == "*" {
		return "", ""
	}
	if prefix, is := strings.CutSuffix(f.Type, "*"); is && strings.HasSuffix(prefix, ".") {
		return "", prefix
	}
	return f.Type, ""
}

// events reads events, with so many bytes of their payloads; "…" stands for the rest. Its caller has checked, or checks,
// whose they are.
func (d *Desk) events(ctx context.Context, ids []uuid.UUID, payload int) ([]Event, error) {
	events := []Event{}
	if len(ids) == 0 {
		return events, nil
	}
	rows, err := d.db.Query(ctx, `
SELECT e.id, e.type, left(e.payload::text, $2::int + 1), e.key, e.tenant, e.source, e.correlation_id, left(e.headers::text, $2::int + 1),
       e.created_at, e.emitted
FROM (
  SELECT id, type, payload, key, tenant, source, correlation_id, headers, created_at, false AS emitted FROM outbox.events WHERE id = ANY ($1::uuid[])
  UNION ALL
  SELECT id, type, payload, key, tenant, source, correlation_id, headers, created_at, true FROM outbox.emitted_events WHERE id = ANY ($1::uuid[])
) e ORDER BY e.id DESC`, ids, payload)
	if err != nil {
		return nil, err
	}
	return pgx.AppendRows(events, rows, func(row pgx.CollectableRow) (e Event, err error) {
		err = row.Scan(&e.ID, &e.Type, &e.Payload, &e.Key, &e.Tenant, &e.Source, &e.CorrelationID, &e.Headers, &e.CreatedAt, &e.Emitted)
		e.Payload, e.Headers = shortened(e.Payload, payload), shortened(e.Headers, payload)
		return e, err
	})
}

// shortened cuts a text where it is longer, and shows that it did.
func shortened(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return cut(text, most) + "…"
}

// Event returns one event with up to 1 MB of its payload, and its deliveries without their calls.
func (d *Desk) Event(ctx context.Context, id uuid.UUID) (Event, []Delivery, error) {
	events, err := d.events(ctx, []uuid.UUID{id}, maxPayload)
	if err != nil {
		return Event{}, nil, fmt.Errorf("read event %s: %w", id, err)
	}
	if len(events) == 0 || !d.who.Everywhere() && events[0].Tenant != *d.who.Tenant {
		return Event{}, nil, notFound("there is no event %s, or it is no longer kept", id)
	}
	deliveries, err := d.deliveriesOf(ctx, &events[0])
	if err != nil {
		return Event{}, nil, fmt.Errorf("list the deliveries of event %s: %w", id, err)
	}
	return events[0], deliveries, nil
}

// deliveriesOf lists the deliveries of an event. Their ids share its first 48 bits, so that a small range of the primary keys
// has them all.
func (d *Desk) deliveriesOf(ctx context.Context, e *Event) ([]Delivery, error) {
	low, high := idRange(e.ID)
	deliveries := []Delivery{}
	rows, err := d.db.Query(ctx, `
WITH found AS (
  SELECT q.delivery_id, q.subscription_id, q.state, q.next_attempt_at, q.last_error, 1 AS place, 0 AS attempt
  FROM outbox.queue q WHERE q.delivery_id BETWEEN $2::uuid AND $3::uuid AND q.event_id = $1::uuid
  UNION ALL
  SELECT l.id, l.subscription_id, 'dead', NULL, l.last_error, 2, 0
  FROM outbox.dead_letters l WHERE l.id BETWEEN $2::uuid AND $3::uuid AND l.event_id = $1::uuid
  UNION ALL
  SELECT a.delivery_id, a.subscription_id, CASE WHEN a.error IS NULL THEN 'delivered' ELSE 'failed' END, NULL, a.error, 3, a.attempt
  FROM outbox.attempts a
  WHERE a.delivery_id BETWEEN $2::uuid AND $3::uuid AND a.event_id = $1::uuid AND a.attempted_at >= $4::timestamptz
), stands AS (
  SELECT DISTINCT ON (f.delivery_id) f.* FROM found f ORDER BY f.delivery_id, f.place, f.attempt DESC
)
SELECT f.delivery_id, f.subscription_id, coalesce(s.name, ''), f.state, f.next_attempt_at, coalesce(f.last_error, '')
FROM stands f LEFT JOIN outbox.subscriptions s ON s.id = f.subscription_id
WHERE $5::text IS NULL OR coalesce(s.tenant, $5::text) = $5::text
ORDER BY s.name NULLS LAST, f.delivery_id LIMIT $6::int`, e.ID, low, high, attemptedSince(e.ID, time.Now()), d.who.Tenant, maxDeliveries)
	if err != nil {
		return nil, err
	}
	return pgx.AppendRows(deliveries, rows, func(row pgx.CollectableRow) (Delivery, error) {
		one := Delivery{EventID: e.ID, Type: e.Type}
		err := row.Scan(&one.ID, &one.WebhookID, &one.Webhook, &one.State, &one.NextAttemptAt, &one.LastError)
		return one, err
	})
}

// idRange are the lowest and the highest id with the first 48 bits of an event's.
func idRange(id uuid.UUID) (low, high uuid.UUID) {
	high = uuid.Max
	copy(low[:6], id[:6])
	copy(high[:6], id[:6])
	return low, high
}
