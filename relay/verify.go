package relay

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/webhook"
)

// Verifier performs the handshake that a subscription asks for.
type Verifier interface {
	Verify(ctx context.Context, s *delivery.Settings) (webhook.Verified, error)
}

// writeAgreements writes down what came of handshakes, unless the subscription has been changed since. The change
// of its row then brings the lane its new settings.
func (o *ownership) writeAgreements(ctx context.Context, conn *pgx.Conn) error {
	results := o.handshakes.take()
	for i, a := range results {
		query, args := `UPDATE outbox.subscriptions SET verified_at = now(), verification_error = NULL, allowed_rate = $3
			WHERE id = $1 AND revision = $2`, []any{a.id, a.revision, a.verified.AllowedRate}
		if a.err != nil {
			o.log.Warn().Err(a.err).Stringer("subscription", a.id).Msg("the receiver did not agree: nothing is sent to it")
			query, args[2] = `UPDATE outbox.subscriptions SET verification_error = $3
				WHERE id = $1 AND revision = $2 AND verification_error IS DISTINCT FROM $3`, a.err.Error()
		} else {
			o.log.Info().Stringer("subscription", a.id).Msg("the receiver agreed to get deliveries")
		}
		if _, err := conn.Exec(ctx, query, args...); err != nil {
			o.handshakes.back(results[i:])
			return fmt.Errorf("write down the handshake of subscription %s: %w", a.id, err)
		}
		fault.Point(fault.AgreementNoted)
	}
	return nil
}
