package admin

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// MaxAlerts is how many alerts are listed at most: in a bad hour every webhook may have some.
const MaxAlerts = 100

// Alerts lists those that stand, the slot's first and then the latest; the slot's are for principals of all tenants.
func (d *Desk) Alerts(ctx context.Context) ([]Alert, error) { return d.alerts(ctx, nil) }

// WebhookAlerts lists those of one webhook; none of one that is not the principal's.
func (d *Desk) WebhookAlerts(ctx context.Context, id uuid.UUID) ([]Alert, error) {
	return d.alerts(ctx, &id)
}

func (d *Desk) alerts(ctx context.Context, webhook *uuid.UUID) ([]Alert, error) {
	rows, err := d.db.Query(ctx, `
SELECT a.alert, a.subscription_id, coalesce(s.name, ''), a.message, a.raised_at
FROM outbox.alerts a LEFT JOIN outbox.subscriptions s ON s.id = a.subscription_id
WHERE a.resolved_at IS NULL AND ($3::uuid IS NULL OR a.subscription_id = $3::uuid)
  AND ($1::text IS NULL OR a.subscription_id IS NOT NULL AND a.tenant = $1::text AND coalesce(s.tenant, $1::text) = $1::text)
ORDER BY a.subscription_id IS NOT NULL, a.raised_at DESC, a.id DESC LIMIT $2::int`, d.who.Tenant, MaxAlerts, webhook)
	if err != nil {
		return nil, fmt.Errorf("list alerts: %w", err)
	}
	alerts, err := pgx.AppendRows([]Alert{}, rows, pgx.RowToStructByPos[Alert])
	if err != nil {
		return nil, fmt.Errorf("list alerts: %w", err)
	}
	return alerts, nil
}
