package ops

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// lookAtSubscriptions finds those that get nothing although they are active.
func (d *doctor) lookAtSubscriptions(ctx context.Context) error {
	type row struct {
		ID, Name, Reason string
		Invalid          bool
		Number           int64
	}
	rows, err := ask[row](ctx, d, `SELECT id::text, name, coalesce(CASE WHEN status <> 'valid' THEN status_reason ELSE verification_error END, ''), status <> 'valid', count(*) OVER (PARTITION BY status <> 'valid')
		FROM outbox.subscriptions
		WHERE is_active AND (status <> 'valid' OR verification <> 'none' AND verified_at IS NULL)
		ORDER BY status <> 'valid' DESC, id LIMIT 20`)
	if err != nil {
		return fmt.Errorf("look at the subscriptions: %w", err)
	}
	for _, r := range rows {
		which := fmt.Sprintf("subscription %s (%s)", r.ID, r.Name)
		if r.Number > 1 {
			which += fmt.Sprintf(", one of %d,", r.Number)
		}
		if r.Invalid {
			d.found("subscription_invalid", fmt.Sprintf("%s is invalid: %s", which, r.Reason), fmt.Sprintf("walhook subscriptions update %s …, or walhook subscriptions deactivate %s", r.ID, r.ID))
			continue
		}
		if r.Reason == "" {
			r.Reason = "it has not been asked, since no relay runs"
		}
		d.found("subscription_unverified", fmt.Sprintf("the receiver of %s has not agreed: %s", which, r.Reason),
			fmt.Sprintf("let the receiver answer the handshake, or UPDATE outbox.subscriptions SET verification = 'none' WHERE id = '%s'", r.ID))
	}
	return nil
}

// lookAtQueue looks for deliveries that have waited long, although their subscriptions are active.
func (d *doctor) lookAtQueue(ctx context.Context) error {
	type row struct {
		N      int64
		Oldest *time.Time
	}
	r, err := askOne[row](ctx, d, `SELECT count(*), min(q.committed_at) FROM outbox.deliveries q JOIN outbox.subscriptions s ON s.id = q.subscription_id
		WHERE s.is_active AND s.status = 'valid' AND q.committed_at < clock_timestamp() - $1::interval`, d.Old)
	if err != nil {
		return fmt.Errorf("look at the queue: %w", err)
	}
	if r.N > 0 {
		d.found("queue_old", fmt.Sprintf("%d deliveries wait whose events are older than %s, the oldest from %s", r.N, d.Old, r.Oldest.UTC().Format(time.RFC3339)),
			"walhook status shows the subscriptions, and SELECT * FROM outbox.queue ORDER BY committed_at LIMIT 20 the last errors")
	}
	return nil
}

// lookAtDeadLetters counts what was given up.
func (d *doctor) lookAtDeadLetters(ctx context.Context) error {
	r, err := askOne[struct{ N, Subscriptions int64 }](ctx, d, "SELECT count(*), count(DISTINCT subscription_id) FROM outbox.dead_letters")
	if err != nil {
		return fmt.Errorf("count dead letters: %w", err)
	}
	if r.N > 0 {
		d.found("dead_letters", fmt.Sprintf("%d dead letters of %d subscriptions are kept", r.N, r.Subscriptions),
			"SELECT subscription_id, last_error, count(*) FROM outbox.dead_letters GROUP BY 1, 2 tells why; when the receiver is well: walhook redeliver --dead --subscription <id>")
	}
	return nil
}

// lookAtAlerts tells what the relay has raised. That a gap was recovered is no alert to act on: recovered_gap tells it.
func (d *doctor) lookAtAlerts(ctx context.Context) error {
	type row struct {
		Alert, Message string
		Raised         time.Time
		Number         int64
	}
	rows, err := ask[row](ctx, d, `SELECT alert, message, raised_at, count(*) OVER () FROM outbox.alerts
		WHERE resolved_at IS NULL AND alert <> 'slot_recovered' ORDER BY raised_at LIMIT 10`)
	if err != nil {
		return fmt.Errorf("look at the alerts: %w", err)
	}
	for _, r := range rows {
		d.found("alerts_standing", fmt.Sprintf("alert %s, one of %d, stands since %s: %s", r.Alert, r.Number, r.Raised.UTC().Format(time.RFC3339), r.Message),
			"mend its cause; SELECT * FROM outbox.alerts WHERE resolved_at IS NULL lists all")
	}
	return nil
}

// lookAtSecrets looks for secrets that could be better kept, and for those that cannot be read.
func (d *doctor) lookAtSecrets(ctx context.Context) error {
	if d.Keyset {
		r, err := askOne[struct{ N int64 }](ctx, d, `SELECT count(*) FROM outbox.subscriptions WHERE secret !~ '^(env|file|enc):' OR previous_secret !~ '^(env|file|enc):'`)
		if err != nil {
			return fmt.Errorf("look at the secrets: %w", err)
		}
		if r.N > 0 {
			d.found("secret_in_clear", fmt.Sprintf("%d subscriptions have secrets in the clear", r.N), "walhook secrets reencrypt --plain")
		}
	}
	if d.ReadSecret == nil {
		return nil
	}
	type row struct {
		ID     uuid.UUID
		Stored string
	}
	rows, err := ask[row](ctx, d, `SELECT id, secret FROM outbox.subscriptions WHERE is_active AND secret ~ '^(env|file|enc):' ORDER BY id LIMIT 1000`)
	if err != nil {
		return fmt.Errorf("look at the secrets: %w", err)
	}
	var failed []string
	for _, r := range rows {
		if err := d.ReadSecret(r.Stored, r.ID); err != nil {
			failed = append(failed, fmt.Sprintf("%s (%v)", r.ID, err))
		}
	}
	if len(failed) > 0 {
		d.found("secret_unreadable", fmt.Sprintf("%d secrets cannot be read from here: %s", len(failed), strings.TrimSpace(someOf(failed))),
			"run walhook doctor as the relay's user, on its machine and with its environment")
	}
	return nil
}
