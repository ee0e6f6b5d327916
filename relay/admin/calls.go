package admin

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// maxLooked is how many attempts one page of calls looks at when a filter chooses among them: what is rare among millions is
// found page by page, each of which costs as much as any other.
const maxLooked = 20_000

// selectCallKeys chooses the attempts of a page by the index on (subscription_id, attempted_at): those of webhook $1, from
// $2 to before $3, behind the attempt ($4, $5, $6), with status $7 (null: any) and success $8 (null: either). It looks at $9
// of them, of which the last is returned in any case, with its number, and returns $10.
const selectCallKeys = `
SELECT n.attempted_at, n.delivery_id, n.attempt, n.chosen, n.number FROM (
  SELECT l.*, row_number() OVER (ORDER BY l.attempted_at DESC, l.delivery_id, l.attempt) AS number FROM (
    SELECT a.attempted_at, a.delivery_id, a.attempt,
           ($7::int IS NULL OR a.status IS NOT DISTINCT FROM $7::int) AND ($8::boolean IS NULL OR (a.error IS NULL) = $8::boolean) AS chosen
    FROM outbox.attempts a
    WHERE a.subscription_id = $1::uuid AND a.attempted_at >= $2::timestamptz AND a.attempted_at < $3::timestamptz
      AND a.attempted_at <= $4::timestamptz
      AND (a.attempted_at < $4::timestamptz OR (a.delivery_id, a.attempt) > ($5::uuid, $6::int))
    ORDER BY a.attempted_at DESC, a.delivery_id, a.attempt LIMIT $9) AS l) AS n
WHERE n.chosen OR n.number = $9
ORDER BY n.attempted_at DESC, n.delivery_id, n.attempt LIMIT $10`

// selectCalls puts the chosen attempts together, one look at the index for each: LIMIT keeps the planner from anything else.
const selectCalls = `
SELECT c.delivery_id, c.event_id, c.subscription_id, c.attempt, coalesce(c.url, ''), c.method, coalesce(c.request_headers, '{}'),
       coalesce(left(c.body, $5::int), ''), coalesce(octet_length(c.body) > $5::int, false),
       c.status, c.response_body, c.duration_ms, c.error, c.attempted_at
FROM unnest($2::timestamptz[], $3::uuid[], $4::int[]) WITH ORDINALITY AS k(attempted_at, delivery_id, attempt, number)
CROSS JOIN LATERAL (
  SELECT v.*, v.payload::text AS body FROM outbox.calls v
  WHERE v.subscription_id = $1::uuid AND v.attempted_at = k.attempted_at AND v.delivery_id = k.delivery_id AND v.attempt = k.attempt
  LIMIT 1) AS c
ORDER BY k.number`

// callKey is what calls are sorted by: the newest first, and then by delivery and attempt.
type callKey struct {
	at       time.Time
	delivery uuid.UUID
	attempt  int
}

// cursor continues behind the attempt.
func (k callKey) cursor() string { return encodeCursor(k.at, k.delivery, k.attempt) }

// Calls lists attempts of a webhook, the newest first, each with 64 KB of its payload. With a filter by outcome or status
// it looks at a bounded number of attempts; a page may be short, or empty, and have a cursor all the same.
func (d *Desk) Calls(ctx context.Context, id uuid.UUID, f CallFilter) (Page[Call], error) {
	limit, err := pageLimit(f.Limit)
	if err != nil {
		return Page[Call]{}, err
	}
	args, err := f.args()
	if err != nil {
		return Page[Call]{}, err
	}
	if err := d.owns(ctx, id); err != nil {
		return Page[Call]{}, err
	}
	keys, next, err := d.callKeys(ctx, id, args, limit, maxLooked)
	if err != nil {
		return Page[Call]{}, fmt.Errorf("choose calls of webhook %s: %w", id, err)
	}
	page, err := d.readCalls(ctx, id, keys)
	if err != nil {
		return Page[Call]{}, fmt.Errorf("list calls of webhook %s: %w", id, err)
	}
	if page.Next == "" { // else it was full before the last key
		page.Next = next
	}
	return page, nil
}

// owns is NotFound for a webhook that is not the principal's.
func (d *Desk) owns(ctx context.Context, id uuid.UUID) error {
	var there bool
	err := d.db.QueryRow(ctx, "SELECT EXISTS (SELECT FROM outbox.subscriptions WHERE id = $1 AND ($2::text IS NULL OR tenant = $2))",
		id, d.who.Tenant).Scan(&there)
	switch {
	case err != nil:
		return fmt.Errorf("find webhook %s: %w", id, err)
	case !there:
		return noWebhook(id)
	}
	return nil
}

// args are the parameters $2 to $8 of selectCallKeys.
func (f *CallFilter) args() ([]any, error) {
	since := pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true}
	until := pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}
	behind, key := until, callKey{}
	if !f.Since.IsZero() {
		since = pgtype.Timestamptz{Time: f.Since, Valid: true}
	}
	if !f.Until.IsZero() {
		until = pgtype.Timestamptz{Time: f.Until, Valid: true}
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until) {
		return nil, invalid("since", "%s is refused: give a moment before until, which is %s", f.Since.Format(time.RFC3339Nano), f.Until.Format(time.RFC3339Nano))
	}
	if f.Cursor != "" {
		if err := decodeCursor(f.Cursor, &key.at, &key.delivery, &key.attempt); err != nil {
			return nil, err
		}
		if key.attempt < 0 || key.attempt > 1<<15 { // attempts are numbers of 16 bits
			return nil, badCursor()
		}
		behind = pgtype.Timestamptz{Time: key.at, Valid: true}
	}
	status, success, err := f.outcome()
	return []any{since, until, behind, key.delivery, key.attempt, status, success}, err
}

func (f *CallFilter) outcome() (status *int, success *bool, err error) {
	if f.Status != 0 {
		if f.Status < 100 || f.Status > 599 {
			return nil, nil, invalid("status", "%d is refused: give an HTTP status, 100 to 599", f.Status)
		}
		status = &f.Status
	}
	if f.Outcome != "" {
		succeeded := f.Outcome == "success"
		if !succeeded && f.Outcome != "failed" {
			return nil, nil, invalid("outcome", "%q is refused: give success or failed", excerpt(f.Outcome))
		}
		success = &succeeded
	}
	return status, success, nil
}

// callKeys chooses at most limit attempts out of the first look, and returns the cursor behind them, empty at the end. The
// statement is planned for its values: it depends on them which partitions have anything.
func (d *Desk) callKeys(ctx context.Context, id uuid.UUID, filter []any, limit, look int) (keys []callKey, next string, err error) {
	args := append([]any{pgx.QueryExecModeCacheDescribe, id}, filter...)
	rows, err := d.db.Query(ctx, selectCallKeys, append(args, look, limit+1)...)
	if err != nil {
		return nil, "", err
	}
	var key callKey
	var chosen bool
	var number int
	_, err = pgx.ForEachRow(rows, []any{&key.at, &key.delivery, &key.attempt, &chosen, &number}, func() error {
		switch {
		case len(keys) == limit: // there are more
			next = keys[limit-1].cursor()
			return nil
		case chosen:
			keys = append(keys, key)
		}
		if number == look { // whether there are more, nobody has looked
			next = key.cursor()
		}
		return nil
	})
	return keys, next, err
}

func (d *Desk) readCalls(ctx context.Context, id uuid.UUID, keys []callKey) (Page[Call], error) {
	if len(keys) == 0 {
		return Page[Call]{Items: []Call{}}, nil
	}
	times, deliveries, attempts := make([]time.Time, len(keys)), make([]uuid.UUID, len(keys)), make([]int, len(keys))
	for i, k := range keys {
		times[i], deliveries[i], attempts[i] = k.at, k.delivery, k.attempt
	}
	rows, err := d.db.Query(ctx, selectCalls, pgx.QueryExecModeCacheDescribe, id, times, deliveries, attempts, listedPayload)
	if err != nil {
		return Page[Call]{}, err
	}
	return collectPage(rows, len(keys), scanCall, (*Call).size, func(c *Call) string {
		return callKey{c.AttemptedAt, c.DeliveryID, c.Attempt}.cursor()
	})
}

func scanCall(row pgx.CollectableRow) (c Call, err error) {
	err = row.Scan(&c.DeliveryID, &c.EventID, &c.WebhookID, &c.Attempt, &c.URL, &c.Method, &c.RequestHeaders, &c.Payload,
		&c.PayloadTruncated, &c.Status, &c.ResponseBody, &c.DurationMS, &c.Error, &c.AttemptedAt)
	if c.PayloadTruncated {
		c.Payload = cut(c.Payload, listedPayload) // Postgres counts characters
	}
	c.Succeeded, c.AttemptedAt = c.Error == nil, c.AttemptedAt.UTC()
	return c, err
}
