package admin

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// selectHealths reads the numbers of the webhooks $1, each table once for all of them: counted for each by itself, a plan
// made while one webhook has nearly all of the queue would read the table for everybody.
var selectHealths = `
SELECT h.subscription_id, ` + fmt.Sprintf(numberColumns, "h") + `, coalesce(q.waiting, 0), coalesce(l.dead, 0),
	coalesce(t.consecutive_failures, 0), t.last_attempt_at, coalesce(a.messages, '{}')
FROM outbox.subscription_activity('1 hour') AS h
LEFT JOIN outbox.subscription_totals t ON t.subscription_id = h.subscription_id
LEFT JOIN (SELECT d.subscription_id, count(*) FROM outbox.deliveries d WHERE d.subscription_id = ANY($1) GROUP BY d.subscription_id)
	AS q(id, waiting) ON q.id = h.subscription_id
LEFT JOIN (SELECT d.subscription_id, count(*) FROM outbox.dead_letters d WHERE d.subscription_id = ANY($1) GROUP BY d.subscription_id)
	AS l(id, dead) ON l.id = h.subscription_id
LEFT JOIN (SELECT s.subscription_id, array_agg(s.message ORDER BY s.raised_at, s.alert) FROM outbox.alerts s
	WHERE s.resolved_at IS NULL AND s.subscription_id = ANY($1) GROUP BY s.subscription_id) AS a(id, messages) ON a.id = h.subscription_id
WHERE h.subscription_id = ANY($1)`

// Healths lists webhooks with how they do, the newest first.
func (d *Desk) Healths(ctx context.Context, active *bool, limit int, cursor string) (Page[Health], error) {
	webhooks, err := d.Webhooks(ctx, active, limit, cursor)
	if err != nil {
		return Page[Health]{}, err
	}
	page := Page[Health]{Items: make([]Health, len(webhooks.Items)), Next: webhooks.Next}
	ids, places := make([]uuid.UUID, len(webhooks.Items)), make(map[uuid.UUID]*Health, len(webhooks.Items))
	for i, w := range webhooks.Items {
		page.Items[i] = Health{Webhook: w, Alerts: []string{}}
		ids[i], places[w.ID] = w.ID, &page.Items[i]
	}
	if len(ids) == 0 {
		return page, nil
	}
	return page, explained("read how webhooks do", d.addNumbers(ctx, ids, places))
}

func (d *Desk) addNumbers(ctx context.Context, ids []uuid.UUID, places map[uuid.UUID]*Health) error {
	rows, err := d.db.Query(ctx, selectHealths, ids)
	if err != nil {
		return err
	}
	var id uuid.UUID
	var h Health
	targets := append(append([]any{&id}, h.Hour.targets()...), &h.Pending, &h.Dead, &h.ConsecutiveFailures, &h.LastAttemptAt, &h.Alerts)
	_, err = pgx.ForEachRow(rows, targets, func() error {
		if place := places[id]; place != nil {
			h.Webhook, h.LastAttemptAt = place.Webhook, inUTC(h.LastAttemptAt)
			*place = h
		}
		h = Health{} // pointers of this row stay its own
		return nil
	})
	return err
}
