package record

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/delivery"
)

// ErrNoCheckpoint means that the slot was never set up.
var ErrNoCheckpoint = errors.New("outbox.checkpoint has no row for the slot: run walhook init")

// Checkpoint is where a slot's relay stands.
type Checkpoint struct {
	Position  delivery.Position // everything at or before it is durably recorded
	Confirmed delivery.LSN      // end of the last transaction recorded whole
	Epoch     int
	Batch     int64
	System    string
	Timeline  int
}

const checkpointColumns = `lsn::text, index, confirmed_lsn::text, epoch, batch, system_identifier, timeline`

func scanCheckpoint(row pgx.Row) (Checkpoint, error) {
	var c Checkpoint
	var lsn, confirmed string
	var index int64
	err := row.Scan(&lsn, &index, &confirmed, &c.Epoch, &c.Batch, &c.System, &c.Timeline)
	if errors.Is(err, pgx.ErrNoRows) {
		return c, ErrNoCheckpoint
	}
	if err != nil {
		return c, fmt.Errorf("read checkpoint: %w", err)
	}
	if c.Position.LSN, err = delivery.ParseLSN(lsn); err != nil {
		return c, fmt.Errorf("read checkpoint: %w", err)
	}
	c.Position.Index = uint64(index)
	if c.Confirmed, err = delivery.ParseLSN(confirmed); err != nil {
		return c, fmt.Errorf("read checkpoint: %w", err)
	}
	return c, nil
}

// Read returns the slot's checkpoint, or ErrNoCheckpoint.
func Read(ctx context.Context, conn *pgx.Conn, slot string) (Checkpoint, error) {
	return scanCheckpoint(conn.QueryRow(ctx, "SELECT "+checkpointColumns+" FROM outbox.checkpoint WHERE slot_name = $1", slot))
}

// Relay describes who takes over.
type Relay struct {
	Version, Host string
	PID           int
}

// Owner names a relay of one epoch in leases.
func Owner(slot string, epoch int) string { return ownerPrefix(slot) + strconv.Itoa(epoch) }

func ownerPrefix(slot string) string { return "relay/" + slot + "/" }

// patience is how long the record transaction of an earlier owner may hold up its successor. One that is alive
// has committed by then, or rolled back.
const patience = time.Second

// TakeOver begins a new epoch, in one transaction: from now on no earlier relay of the slot can record or
// claim. It returns the checkpoint and the routing view that belongs to it, and frees what earlier epochs
// had claimed. Call it only while holding the slot. An earlier owner that froze in the midst of a record transaction
// still holds the checkpoint's row: its session is ended.
func TakeOver(ctx context.Context, conn *pgx.Conn, slot string, r Relay) (Checkpoint, []delivery.Rule, error) {
	for {
		c, rules, err := beginEpoch(ctx, conn, slot, r)
		var pg *pgconn.PgError
		const lockNotAvailable = "55P03"
		if errors.As(err, &pg) && pg.Code == lockNotAvailable {
			if err = endHolder(ctx, conn, slot); err == nil {
				continue
			}
		}
		if err != nil {
			return Checkpoint{}, nil, fmt.Errorf("take slot %s over: %w", slot, err)
		}
		return c, rules, nil
	}
}

// endHolder ends the session whose transaction has the checkpoint's row, if there still is one and it is a relay's:
// a role may do so to its own sessions. Anybody else's is an error.
func endHolder(ctx context.Context, conn *pgx.Conn, slot string) error {
	var pid int
	var user, application string
	var relay bool
	err := conn.QueryRow(ctx, `SELECT l.pid, coalesce(a.usename, ''), a.application_name,
			a.usename = current_user AND a.application_name = current_setting('application_name')
				AND pg_terminate_backend(l.pid)
		FROM outbox.checkpoint c
		JOIN pg_locks l ON l.locktype = 'transactionid' AND l.granted AND l.transactionid = c.xmax
		JOIN pg_stat_activity a ON a.pid = l.pid
		WHERE c.slot_name = $1`, slot).Scan(&pid, &user, &application, &relay)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil // its transaction has ended
	case err != nil:
		return fmt.Errorf("end the session of the relay that had it: %w", err)
	case !relay:
		return fmt.Errorf("a transaction of role %s (process %d of Postgres, application %q) has locked its checkpoint: end it", user, pid, application)
	}
	return nil
}

func beginEpoch(ctx context.Context, conn *pgx.Conn, slot string, r Relay) (c Checkpoint, rules []delivery.Rule, err error) {
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL lock_timeout = %d", patience.Milliseconds()))
		if err != nil {
			return fmt.Errorf("bound the wait: %w", err)
		}
		c, err = scanCheckpoint(tx.QueryRow(ctx, "UPDATE outbox.checkpoint SET epoch = epoch + 1, batch = 0, updated_at = now() WHERE slot_name = $1 RETURNING "+checkpointColumns, slot))
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "INSERT INTO outbox.epochs (slot_name, epoch, version, host, pid) VALUES ($1, $2, $3, $4, $5)",
			slot, c.Epoch, r.Version, r.Host, r.PID)
		if err != nil {
			return fmt.Errorf("note the epoch: %w", err)
		}
		// Rows that somebody has locked wait for the end of their leases.
		_, err = tx.Exec(ctx, `UPDATE outbox.deliveries SET lease_owner = NULL,
			next_attempt_at = CASE WHEN sequence IS NULL THEN now() ELSE 'infinity' END WHERE id IN (
			SELECT id FROM outbox.deliveries WHERE starts_with(lease_owner, $1) AND lease_owner <> $2 FOR UPDATE SKIP LOCKED)`,
			ownerPrefix(slot), Owner(slot, c.Epoch))
		if err != nil {
			return fmt.Errorf("free the leases of earlier epochs: %w", err)
		}
		_, err = tx.Exec(ctx, `UPDATE outbox.deliveries SET next_attempt_at = now() WHERE next_attempt_at = 'infinity' AND id IN (
			SELECT DISTINCT ON (subscription_id, sequence) id FROM outbox.deliveries WHERE sequence IS NOT NULL
			ORDER BY subscription_id, sequence, commit_lsn, commit_index)`)
		if err != nil {
			return fmt.Errorf("wake the first delivery of each sequence: %w", err)
		}
		rules, err = routing(ctx, tx)
		return err
	})
	return c, rules, err
}

func routing(ctx context.Context, tx pgx.Tx) ([]delivery.Rule, error) {
	rows, err := tx.Query(ctx, "SELECT subscription_id, revision, tenant, event_types, filters::text, ordering, is_active FROM outbox.routing ORDER BY subscription_id")
	if err != nil {
		return nil, fmt.Errorf("read routing view: %w", err)
	}
	rules, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (delivery.Rule, error) {
		var r delivery.Rule
		var filters string
		err := row.Scan(&r.SubscriptionID, &r.Revision, &r.Tenant, &r.EventTypes, &filters, &r.Ordering, &r.Active)
		r.Filters = []byte(filters)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("read routing view: %w", err)
	}
	return rules, nil
}

// Begin writes a new slot's first checkpoint and its routing view, as of the snapshot that the slot was
// created with, so that the view and the stream meet exactly.
func Begin(ctx context.Context, conn *pgx.Conn, slot, snapshot string, from delivery.LSN, system string, timeline int) error {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	for _, step := range []struct {
		what, sql string
		args      []any
	}{
		{"use the slot's snapshot", "SET TRANSACTION SNAPSHOT '" + snapshot + "'", nil},
		{"clear the routing view", "DELETE FROM outbox.routing", nil},
		{"write the routing view", `INSERT INTO outbox.routing (subscription_id, tenant, event_types, filters, ordering, is_active, revision)
			SELECT id, tenant, event_types, filters, ordering, is_active, revision FROM outbox.subscriptions`, nil},
		// Epochs go on counting where an earlier checkpoint of the slot was deleted: its relay may still be awake.
		{"write the checkpoint", `INSERT INTO outbox.checkpoint (slot_name, lsn, confirmed_lsn, recorded_through, system_identifier, timeline, epoch)
			VALUES ($1, $2::text::pg_lsn, $2::text::pg_lsn, $3, $4, $5, coalesce((SELECT max(epoch) FROM outbox.epochs WHERE slot_name = $1), 0))`,
			[]any{slot, from.String(), time.Now(), system, timeline}},
	} {
		if _, err := tx.Exec(ctx, step.sql, step.args...); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	fault.Point(fault.SetupCheckpoint)
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit first checkpoint: %w", err)
	}
	return nil
}
