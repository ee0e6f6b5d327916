package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// present is what a change must know of the row that it changes.
type present struct {
	url       string
	signature string
	headers   map[string]string // as stored
	shown     map[string]string // the same, with Redacted for values that are not shown
	revision  int
}

// CreateWebhook makes one.
func (d *Desk) CreateWebhook(ctx context.Context, c Change) (Webhook, error) {
	tenant, err := d.tenantOf(c)
	if err != nil {
		return Webhook{}, err
	}
	for field, value := range map[string]*string{"name": c.Name, "url": c.URL} {
		if value == nil {
			return Webhook{}, invalid(field, nothingMayBeAbsent)
		}
	}
	id, err := uuid.NewV7() // here and not in the table, because a secret is sealed for its id
	if err != nil {
		return Webhook{}, fmt.Errorf("make an id: %w", err)
	}
	set, err := d.assignments(ctx, d.db, id, c, present{signature: "sha256"})
	if err != nil {
		return Webhook{}, err
	}
	set.add("id", id)
	set.add("tenant", tenant)
	if c.BackfillFrom != nil {
		set.add("backfill_from", *c.BackfillFrom)
	}
	w, err := oneWebhook(ctx, d.db, id, `INSERT INTO outbox.subscriptions AS s (`+strings.Join(set.columns, ", ")+`)
		VALUES (`+strings.Join(set.values, ", ")+`) RETURNING `+webhookColumns, set.args...)
	if err = refusedValue(err, c.shown); c.BackfillFrom != nil {
		err = about("backfill_from", err) // the trigger's check has no constraint
	}
	return w, explained("create webhook", c.placed(err))
}

// tenantOf is whose a new webhook is to be.
func (d *Desk) tenantOf(c Change) (string, error) {
	switch {
	case d.who.Everywhere() && c.Tenant == nil:
		return "", nil
	case d.who.Everywhere():
		return *c.Tenant, checkText("tenant", *c.Tenant)
	case c.Tenant != nil && *c.Tenant != *d.who.Tenant:
		return "", invalid("tenant", "%q is refused: this token is bound to the tenant %q: leave tenant out", *c.Tenant, *d.who.Tenant)
	}
	return *d.who.Tenant, nil
}

// UpdateWebhook sets what the change gives. revision 0: whatever it is now; otherwise another one is Stale. A change that
// gives nothing changes nothing.
func (d *Desk) UpdateWebhook(ctx context.Context, id uuid.UUID, c Change, revision int) (w Webhook, err error) {
	err = d.changing(ctx, id, func(tx pgx.Tx, p present) error {
		if revision != 0 && revision != p.revision {
			return stale(Webhook{ID: id, Revision: p.revision}, revision)
		}
		w, err = d.update(ctx, tx, id, c, p)
		return err
	})
	return w, explained("change webhook", err)
}

func (d *Desk) update(ctx context.Context, tx pgx.Tx, id uuid.UUID, c Change, p present) (Webhook, error) {
	switch {
	case c.Tenant != nil:
		return Webhook{}, invalid("tenant", "a webhook keeps its tenant: leave it out, or create another webhook")
	case c.BackfillFrom != nil:
		return Webhook{}, invalid("backfill_from", "it counts only when a webhook is created: replay past events instead")
	}
	set, err := d.assignments(ctx, tx, id, c, p)
	if err != nil {
		return Webhook{}, err
	}
	if len(set.columns) == 0 {
		return oneWebhook(ctx, tx, id, `SELECT `+webhookColumns+` FROM outbox.subscriptions s WHERE s.id = $1`, id)
	}
	pairs := make([]string, len(set.columns))
	for i, column := range set.columns {
		pairs[i] = column + " = " + set.values[i]
	}
	set.args = append(set.args, id)
	w, err := oneWebhook(ctx, tx, id, fmt.Sprintf(`UPDATE outbox.subscriptions s SET %s WHERE s.id = $%d RETURNING `+webhookColumns,
		strings.Join(pairs, ", "), len(set.args)), set.args...)
	if err != nil {
		return w, c.placed(refusedValue(err, c.shown))
	}
	return w, c.staysPut(p) // last, because what is wrong with the URL itself matters more; the transaction undoes it
}

// changing locks a webhook of the principal's and calls do within the transaction: what do has seen still stands when it
// writes, so that no change of another is lost between.
func (d *Desk) changing(ctx context.Context, id uuid.UUID, do func(pgx.Tx, present) error) error {
	return pgx.BeginFunc(ctx, d.db, func(tx pgx.Tx) error {
		var p present
		err := tx.QueryRow(ctx, `SELECT url, signature, headers, outbox.redact_headers(headers), revision FROM outbox.subscriptions
			WHERE id = $1 AND ($2::text IS NULL OR tenant = $2) FOR UPDATE`, id, d.who.Tenant).
			Scan(&p.url, &p.signature, &p.headers, &p.shown, &p.revision)
		if errors.Is(err, pgx.ErrNoRows) {
			return noWebhook(id)
		}
		if err != nil {
			return err
		}
		return do(tx, p)
	})
}
