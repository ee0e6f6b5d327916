package admin

import (
	"context"
	"fmt"
)

// WebhookCounts are how many webhooks there are, by what they are. An invalid one counts as active or inactive as well.
type WebhookCounts struct{ Active, Inactive, Invalid int64 }

// CountWebhooks counts the webhooks (of the principal's tenant) in one pass over them, without their statistics.
func (d *Desk) CountWebhooks(ctx context.Context) (c WebhookCounts, err error) {
	err = d.db.QueryRow(ctx, `
SELECT count(*) FILTER (WHERE s.is_active), count(*) FILTER (WHERE NOT s.is_active), count(*) FILTER (WHERE s.status = 'invalid')
FROM outbox.subscriptions s WHERE $1::text IS NULL OR s.tenant = $1::text`, d.who.Tenant).Scan(&c.Active, &c.Inactive, &c.Invalid)
	if err != nil {
		return c, fmt.Errorf("count webhooks: %w", err)
	}
	return c, nil
}
