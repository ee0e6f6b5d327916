package relay

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/delivery"
)

// retire deactivates a subscription whose receiver answered 410 Gone: its lane at once, its row as soon as the claimer
// gets to it. What waits is kept, and goes out if somebody activates the subscription again.
func (o *ownership) retire(s *delivery.Settings) {
	reason := fmt.Sprintf("deactivated at %s: the receiver answered 410 Gone", time.Now().UTC().Format(time.RFC3339))
	if !o.gone.add(finding{id: s.SubscriptionID, revision: s.Revision, reason: reason}) {
		return
	}
	o.log.Warn().Stringer("subscription", s.SubscriptionID).Str("name", s.Name).Msg("the receiver answered 410 Gone: its subscription is deactivated")
	inactive := *s
	inactive.Active = false
	o.lanes.Set(&inactive)
	o.waker.wake()
}

// writeRetired deactivates the rows, unless they have been changed since.
func (o *ownership) writeRetired(ctx context.Context, conn *pgx.Conn) error {
	findings := o.gone.take()
	for i, f := range findings {
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, "UPDATE outbox.subscriptions SET is_active = false WHERE id = $1 AND revision = $2", f.id, f.revision)
			if err != nil || tag.RowsAffected() == 0 {
				return err
			}
			// By itself, or else it would be taken back as what an earlier revision had.
			_, err = tx.Exec(ctx, "UPDATE outbox.subscriptions SET status_reason = $2 WHERE id = $1", f.id, f.reason)
			fault.Point(fault.RetireWritten)
			return err
		})
		if err != nil {
			o.gone.back(findings[i:])
			return fmt.Errorf("deactivate subscription %s: %w", f.id, err)
		}
		fault.Point(fault.RetireNoted)
	}
	return nil
}
