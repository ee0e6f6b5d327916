package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// webhookColumns are what scanWebhook reads of outbox.subscriptions AS s.
const webhookColumns = `s.id, s.tenant, s.name, s.description, s.url, s.event_types, s.filters, outbox.redact_headers(s.headers),
	s.secret IS NOT NULL, s.signature, s.payload_format, s.payload_version, s.max_retries,
	extract(epoch FROM s.retry_delay)::float8, extract(epoch FROM s.timeout)::float8, s.ordering, s.max_in_flight, s.rate_limit,
	s.batch_size, extract(epoch FROM s.batch_wait)::float8, s.verification, s.is_active, s.status, coalesce(s.status_reason, ''),
	s.previous_secret_expires_at, s.verified_at, s.created_at, s.updated_at, s.revision`

func scanWebhook(row pgx.CollectableRow) (w Webhook, err error) {
	var previous, verified, created, updated pgtype.Timestamptz
	err = row.Scan(&w.ID, &w.Tenant, &w.Name, &w.Description, &w.URL, &w.Events, &w.Filters, &w.Headers,
		&w.HasSecret, &w.Signature, &w.PayloadFormat, &w.PayloadVersion, &w.MaxRetries,
		&w.RetryDelay, &w.Timeout, &w.Ordering, &w.MaxInFlight, &w.RateLimit,
		&w.BatchSize, &w.BatchWait, &w.Verification, &w.Active, &w.Status, &w.StatusReason,
		&previous, &verified, &created, &updated, &w.Revision)
	w.PreviousExpires, w.VerifiedAt, w.CreatedAt, w.UpdatedAt = momentOrNil(previous), momentOrNil(verified), moment(created), moment(updated)
	return w, err
}

// moment is a time of the database in UTC, within the years that JSON has a form for: SQL may have set infinity.
func moment(at pgtype.Timestamptz) time.Time {
	first, last := time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	switch {
	case at.InfinityModifier == pgtype.Infinity, at.Time.After(last):
		return last
	case at.InfinityModifier == pgtype.NegativeInfinity, at.Time.Before(first):
		return first
	}
	return at.Time.UTC()
}

func momentOrNil(at pgtype.Timestamptz) *time.Time {
	if !at.Valid {
		return nil
	}
	m := moment(at)
	return &m
}

// queries is a pool, a connection or a transaction.
type queries interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// oneWebhook runs a statement that returns at most one row of webhookColumns. None is NotFound, in the same words for one
// that is not there and one of another tenant.
func oneWebhook(ctx context.Context, q queries, id uuid.UUID, sql string, args ...any) (Webhook, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return Webhook{}, err
	}
	w, err := pgx.CollectOneRow(rows, scanWebhook)
	if errors.Is(err, pgx.ErrNoRows) {
		return Webhook{}, noWebhook(id)
	}
	return w, err
}

func noWebhook(id uuid.UUID) error { return notFound("there is no webhook %s", id) }

// Webhooks lists webhooks, the newest first, which is the order of ids; active nil: all.
func (d *Desk) Webhooks(ctx context.Context, active *bool, limit int, cursor string) (Page[Webhook], error) {
	limit, err := pageLimit(limit)
	if err != nil {
		return Page[Webhook]{}, err
	}
	var behind *uuid.UUID
	if cursor != "" {
		behind = new(uuid.UUID)
		if err := decodeCursor(cursor, behind); err != nil {
			return Page[Webhook]{}, err
		}
	}
	rows, err := d.db.Query(ctx, `SELECT `+webhookColumns+` FROM outbox.subscriptions s
		WHERE ($1::text IS NULL OR s.tenant = $1) AND ($2::boolean IS NULL OR s.is_active = $2) AND ($3::uuid IS NULL OR s.id < $3)
		ORDER BY s.id DESC LIMIT $4`, d.who.Tenant, active, behind, limit+1)
	if err != nil {
		return Page[Webhook]{}, fmt.Errorf("list webhooks: %w", err)
	}
	page, err := collectPage(rows, limit, scanWebhook, (*Webhook).size, func(w *Webhook) string { return encodeCursor(w.ID) })
	return page, wrapped("list webhooks", err)
}

// Webhook returns one.
func (d *Desk) Webhook(ctx context.Context, id uuid.UUID) (Webhook, error) {
	w, err := oneWebhook(ctx, d.db, id, `SELECT `+webhookColumns+` FROM outbox.subscriptions s
		WHERE s.id = $1 AND ($2::text IS NULL OR s.tenant = $2)`, id, d.who.Tenant)
	return w, explained("read webhook", err)
}

// DeleteWebhook removes one; what waits for it becomes dead letters. revision 0: whatever it is now; otherwise another one
// is Stale.
func (d *Desk) DeleteWebhook(ctx context.Context, id uuid.UUID, revision int) error {
	tag, err := d.db.Exec(ctx, `DELETE FROM outbox.subscriptions
		WHERE id = $1 AND ($2::text IS NULL OR tenant = $2) AND ($3::bigint = 0 OR revision = $3)`, id, d.who.Tenant, revision)
	if err != nil {
		return fmt.Errorf("delete webhook: %w", err)
	}
	if tag.RowsAffected() > 0 {
		return nil
	}
	w, err := d.Webhook(ctx, id)
	if err != nil {
		return err
	}
	return stale(w, revision)
}

// SetActive activates or deactivates one.
func (d *Desk) SetActive(ctx context.Context, id uuid.UUID, active bool) (Webhook, error) {
	w, err := oneWebhook(ctx, d.db, id, `UPDATE outbox.subscriptions s SET is_active = $3
		WHERE s.id = $1 AND ($2::text IS NULL OR s.tenant = $2) RETURNING `+webhookColumns, id, d.who.Tenant, active)
	return w, explained("activate or deactivate webhook", err)
}

func stale(w Webhook, revision int) error {
	return &Error{Kind: Stale, Message: fmt.Sprintf(
		"webhook %s is at revision %d by now, not %d: read it again and apply the change to that", w.ID, w.Revision, revision)}
}

// explained is an error of the caller as it is, and any other with what was being done.
func explained(doing string, err error) error {
	err = refused(err)
	var e *Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	return fmt.Errorf("%s: %w", doing, err)
}
