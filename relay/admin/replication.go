package admin

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

func forbidden(message string) error { return &Error{Kind: Forbidden, Message: message} }

// Replication returns how far the relay is behind, by slot. It concerns the whole system: Forbidden for one tenant.
func (d *Desk) Replication(ctx context.Context) ([]Replication, error) {
	if !d.who.Everywhere() {
		return nil, forbidden("replication concerns all tenants: use a token that is bound to none")
	}
	rows, err := d.db.Query(ctx, `
SELECT slot_name, active, wal_status, lag_bytes, retained_bytes, coalesce(lag_seconds, 0), checkpoint_lsn::text, confirmed_lsn::text,
       queue_depth, coalesce(oldest_pending_seconds, 0), safe_bytes, dead_letters
FROM outbox.replication_lag ORDER BY slot_name`)
	if err != nil {
		return nil, fmt.Errorf("read the replication lag: %w", err)
	}
	slots, err := pgx.AppendRows([]Replication{}, rows, pgx.RowToStructByPos[Replication])
	if err != nil {
		return nil, fmt.Errorf("read the replication lag: %w", err)
	}
	return slots, nil
}
