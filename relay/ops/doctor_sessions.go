package ops

import (
	"context"
	"fmt"
	"time"
)

// lookAtSessions looks for old transactions. Walsenders, which hold a snapshot only while a slot is made, are not among them.
func (d *doctor) lookAtSessions(ctx context.Context) error {
	type row struct {
		PID                                int64
		Role, Database, Application, State string
		Began                              time.Time
		Holds                              bool
	}
	rows, err := ask[row](ctx, d, `SELECT a.pid::bigint, coalesce(a.usename::text, ''), coalesce(a.datname::text, ''), coalesce(a.application_name, ''), coalesce(a.state, ''), a.xact_start,
			coalesce(greatest(age(a.backend_xid), age(a.backend_xmin)) >= age((SELECT s.catalog_xmin FROM pg_replication_slots s WHERE s.slot_name = $2)), false)
		FROM pg_stat_activity a
		WHERE a.xact_start < clock_timestamp() - $1::interval AND a.pid <> pg_backend_pid() AND a.backend_type = 'client backend'
		ORDER BY a.xact_start LIMIT 10`, d.Old, d.Slot)
	if err != nil {
		return fmt.Errorf("look at the sessions: %w", err)
	}
	for _, r := range rows {
		held := ""
		if r.Holds {
			held = ", and is as old as what the slot holds"
		}
		d.found("long_transaction", fmt.Sprintf("process %d of Postgres (role %s, database %s, application %q, %s) has been in a transaction since %s%s",
			r.PID, r.Role, r.Database, r.Application, r.State, r.Began.UTC().Format(time.RFC3339), held), fmt.Sprintf("end it where it runs, or SELECT pg_terminate_backend(%d)", r.PID))
	}
	return nil
}

// lookAtPrepared looks for prepared transactions that nobody ended, in all databases.
func (d *doctor) lookAtPrepared(ctx context.Context) error {
	type row struct {
		GID, Owner, Database string
		Prepared             time.Time
	}
	rows, err := ask[row](ctx, d, `SELECT gid, owner::text, database::text, prepared FROM pg_prepared_xacts
		WHERE prepared < clock_timestamp() - $1::interval ORDER BY prepared LIMIT 10`, d.Old)
	if err != nil {
		return fmt.Errorf("look at prepared transactions: %w", err)
	}
	for _, r := range rows {
		d.found("prepared_transaction", fmt.Sprintf("transaction %s of role %s in database %s has been prepared since %s", literal(r.GID), r.Owner, r.Database, r.Prepared.UTC().Format(time.RFC3339)),
			fmt.Sprintf("in database %s: ROLLBACK PREPARED %s, or COMMIT PREPARED if its coordinator says so", r.Database, literal(r.GID)))
	}
	return nil
}
