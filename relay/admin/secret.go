package admin

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

const maxSecret = 1024 // bytes

// isReference reports whether a secret says where it is, or is encrypted, rather than being the secret.
func isReference(secret string) bool {
	for _, prefix := range []string{"env:", "file:", "enc:"} {
		if strings.HasPrefix(secret, prefix) {
			return true
		}
	}
	return false
}

// storedSecret checks a secret for a signature and returns what to store of it: references as they are, everything else
// sealed. What is sealed, the table's constraints cannot look into, so their rules are asked before.
func (d *Desk) storedSecret(ctx context.Context, q queries, id uuid.UUID, secret, signature string) (string, error) {
	switch {
	case checkText("secret", secret) != nil:
		return "", checkText("secret", secret)
	case isReference(secret) && !d.who.Everywhere():
		// They lead to what is the operator's: environment, files and what was encrypted.
		return "", invalid("secret", "it begins with env:, file: or enc:, and what these lead to belongs to the operator, not to a tenant: give the secret itself")
	case isReference(secret):
		return secret, nil
	case len(secret) > maxSecret:
		return "", invalid("secret", "it is refused: %s", refusals["subscriptions_secret_is_1_to_1024_bytes"].Remedy)
	}
	if err := checkKey(ctx, q, secret, signature); err != nil {
		return "", err
	}
	if d.Seal == nil {
		return secret, nil
	}
	stored, err := d.Seal(secret, id)
	if err != nil {
		return "", fmt.Errorf("encrypt the secret of webhook %s: %w", id, err)
	}
	return stored, nil
}

// checkKey asks whether a secret can be the key of a signature.
func checkKey(ctx context.Context, q queries, secret, signature string) error {
	rows, err := q.Query(ctx, "SELECT coalesce(outbox.valid_key($1, $2), true)", secret, signature)
	if err != nil {
		return fmt.Errorf("check the secret: %w", err)
	}
	valid, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
	switch {
	case err != nil:
		return fmt.Errorf("check the secret: %w", err)
	case valid:
		return nil
	case signature == "standard":
		return invalid("secret", "it is refused: %s", refusals["subscriptions_standard_secret_is_whsec_and_base64"].Remedy)
	}
	return invalid("secret", "it is refused: %s", refusals["subscriptions_ed25519_secret_is_whsk_and_base64_of_32_or_64"].Remedy)
}

// RotateSecret gives it a new secret; the old one signs as well for the overlap. That the new one is the present one is
// noticed unless that is sealed.
func (d *Desk) RotateSecret(ctx context.Context, id uuid.UUID, secret string, overlap time.Duration) (w Webhook, err error) {
	switch {
	case secret == "":
		return Webhook{}, invalid("secret", "it is empty: give the new one; to sign no more, change the webhook's secret to nothing")
	case overlap < 0 || overlap.Seconds() > maxSeconds:
		return Webhook{}, invalid("overlap", "%v seconds are refused: give 0, which ends the old secret at once, or more", overlap.Seconds())
	}
	err = d.changing(ctx, id, func(tx pgx.Tx, p present) error {
		w, err = d.rotate(ctx, tx, id, secret, p.signature, overlap)
		return err
	})
	return w, explained("rotate secret", err)
}

func (d *Desk) rotate(ctx context.Context, tx pgx.Tx, id uuid.UUID, secret, signature string, overlap time.Duration) (Webhook, error) {
	stored, err := d.storedSecret(ctx, tx, id, secret, signature)
	if err != nil {
		return Webhook{}, err
	}
	var same bool
	if err := tx.QueryRow(ctx, "SELECT coalesce(secret IN ($2, $3), false) FROM outbox.subscriptions WHERE id = $1", id, secret, stored).Scan(&same); err != nil {
		return Webhook{}, err
	}
	if same {
		return Webhook{}, invalid("secret", "it is the secret that the webhook already has: give a new one")
	}
	if _, err := tx.Exec(ctx, "SELECT outbox.rotate_secret($1, $2, make_interval(secs => $3))", id, stored, overlap.Seconds()); err != nil {
		return Webhook{}, about("secret", refused(err))
	}
	return oneWebhook(ctx, tx, id, `SELECT `+webhookColumns+` FROM outbox.subscriptions s WHERE s.id = $1`, id)
}
