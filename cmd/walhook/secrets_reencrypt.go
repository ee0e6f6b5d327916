package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/spf13/cobra"

	"github.com/walhook/walhook/config"
	"github.com/walhook/walhook/relay/secret"
)

const (
	// reencryptPage is how many rows are read at a time.
	reencryptPage = 500
	// reencryptTries is how often a row that others change meanwhile is read again.
	reencryptTries = 5
)

// reencrypted counts what the command did.
type reencrypted struct {
	Encrypted int `json:"encrypted"` // rows written
	Unchanged int `json:"unchanged"` // rows whose secrets are under the primary key already, or are left alone
	Failed    int `json:"failed"`
}

type reencryptOptions struct{ plain, json bool }

func (a *app) reencryptCommand() *cobra.Command {
	var o reencryptOptions
	c := &cobra.Command{
		Use:   "reencrypt",
		Short: "Encrypt all stored secrets with the keyset's primary key",
		Long: "Encrypt all stored secrets with the keyset's primary key, row by row; it may be repeated. Secrets that are stored as they\n" +
			"were given are left alone without --plain; env:NAME and file:/path always are.",
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.onDatabase(c, 0, func(ctx context.Context, cfg config.Config, conn *pgx.Conn) error {
				resolver, err := openSecrets(cfg)
				if err != nil {
					return err
				}
				if !resolver.Encrypts() {
					return fmt.Errorf("%w: there is no keyset: give secrets.keyset_file or WALHOOK_SECRETS_KEYSET; "+
						"walhook secrets generate-keyset makes one", errUsage)
				}
				r := reencryption{conn: conn, resolver: resolver, plain: o.plain}
				return errors.Join(r.all(ctx, a), a.showReencrypted(r.done, o.json))
			})
		},
	}
	configFlags(c, "database_url", "secrets.keyset_file", "secrets.keyset")
	c.Flags().BoolVar(&o.plain, "plain", false, "encrypt secrets that are stored as they were given, too")
	c.Flags().BoolVar(&o.json, "json", false, "print one JSON object: encrypted, unchanged, failed")
	return c
}

func (a *app) showReencrypted(done reencrypted, asJSON bool) error {
	if asJSON {
		return a.printJSON(done)
	}
	_, err := fmt.Fprintf(a.stdout, "encrypted %d, left %d as they are, failed %d\n", done.Encrypted, done.Unchanged, done.Failed)
	return err
}

// reencryption goes through the table.
type reencryption struct {
	conn     *pgx.Conn
	resolver *secret.Resolver
	plain    bool
	done     reencrypted
}

// secretRow is what stands in a row; nil is nothing.
type secretRow struct {
	ID       uuid.UUID
	Secret   *string
	Previous *string
	found    // what the relay has found out
}

// found is what a new secret makes the database forget: a receiver that has agreed would be asked again. The secret
// itself is the same here.
type found struct {
	VerifiedAt        pgtype.Timestamptz
	VerificationError *string
	AllowedRate       *int
	Reason            *string // nil when the row is invalid: the relay finds out anew
}

// secretColumns are those of a secretRow, without the id.
const secretColumns = `secret, previous_secret, verified_at, verification_error, allowed_rate, CASE WHEN status = 'valid' THEN status_reason END`

func (r *secretRow) fields() []any {
	return []any{&r.Secret, &r.Previous, &r.VerifiedAt, &r.VerificationError, &r.AllowedRate, &r.Reason}
}

// all goes on behind a row that fails, and fails in the end.
func (r *reencryption) all(ctx context.Context, a *app) error {
	for after := (uuid.UUID{}); ; {
		rows, err := r.page(ctx, after)
		if err != nil {
			return err
		}
		for _, row := range rows {
			after = row.ID
			changed, err := r.row(ctx, row)
			switch {
			case ctx.Err() != nil || sqlState(err) != "":
				return fmt.Errorf("encrypt subscription %s: %w", row.ID, err)
			case err != nil:
				r.done.Failed++
				_, _ = fmt.Fprintf(a.stderr, "walhook: subscription %s: %v\n", row.ID, err)
			case changed:
				r.done.Encrypted++
			default:
				r.done.Unchanged++
			}
		}
		if len(rows) < reencryptPage {
			break
		}
	}
	if r.done.Failed > 0 {
		return fmt.Errorf("the secrets of %d subscriptions could not be encrypted", r.done.Failed)
	}
	return nil
}

func (r *reencryption) page(ctx context.Context, after uuid.UUID) ([]secretRow, error) {
	rows, err := r.conn.Query(ctx, "SELECT id, "+secretColumns+` FROM outbox.subscriptions
		WHERE id > $1 AND (secret IS NOT NULL OR previous_secret IS NOT NULL) ORDER BY id LIMIT $2`, after, reencryptPage)
	if err != nil {
		return nil, fmt.Errorf("read secrets: %w", err)
	}
	page, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r secretRow, err error) {
		err = row.Scan(append([]any{&r.ID}, r.fields()...)...)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("read secrets: %w", err)
	}
	return page, nil
}

// row writes a row only as long as it is as it was read: whoever changes it meanwhile wins, and it is read again.
func (r *reencryption) row(ctx context.Context, row secretRow) (changed bool, err error) {
	for range reencryptTries {
		current, changedOne, err := r.encrypt(row.Secret, row.ID)
		if err != nil {
			return false, err
		}
		previous, changedOther, err := r.encrypt(row.Previous, row.ID)
		if err != nil || !changedOne && !changedOther {
			return false, err
		}
		written, err := r.write(ctx, row, current, previous)
		if err != nil || written {
			return err == nil, err
		}
		err = r.conn.QueryRow(ctx, "SELECT "+secretColumns+" FROM outbox.subscriptions WHERE id = $1", row.ID).Scan(row.fields()...)
		if errors.Is(err, pgx.ErrNoRows) {
			return false, nil // removed
		}
		if err != nil {
			return false, err
		}
	}
	return false, errors.New("others change it all the time: repeat the command")
}

// write reports false when the row is no more as it was read.
func (r *reencryption) write(ctx context.Context, row secretRow, current, previous *string) (written bool, err error) {
	err = pgx.BeginFunc(ctx, r.conn, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `UPDATE outbox.subscriptions SET secret = $4, previous_secret = $5
			WHERE id = $1 AND secret IS NOT DISTINCT FROM $2 AND previous_secret IS NOT DISTINCT FROM $3
			AND verified_at IS NOT DISTINCT FROM $6 AND status_reason IS NOT DISTINCT FROM CASE WHEN status = 'valid' THEN $7 ELSE status_reason END`,
			row.ID, row.Secret, row.Previous, current, previous, row.VerifiedAt, row.Reason)
		if written = err == nil && tag.RowsAffected() == 1; !written {
			return err
		}
		// By itself, or else it would be taken back as what an earlier secret had.
		_, err = tx.Exec(ctx, `UPDATE outbox.subscriptions SET verified_at = $2, verification_error = $3, allowed_rate = $4, status_reason = $5
			WHERE id = $1`, row.ID, row.VerifiedAt, row.VerificationError, row.AllowedRate, row.Reason)
		return err
	})
	return written && err == nil, err
}

// encrypt returns what to store instead of a secret.
func (r *reencryption) encrypt(stored *string, id uuid.UUID) (*string, bool, error) {
	if stored == nil || r.resolver.Current(*stored) || !secret.IsEncrypted(*stored) && (secret.IsReference(*stored) || !r.plain) {
		return stored, false, nil
	}
	plain, err := r.resolver.Resolve(*stored, id)
	if err != nil {
		return nil, false, err
	}
	fresh, err := r.resolver.Encrypt(plain.Reveal(), id)
	return &fresh, true, err
}
