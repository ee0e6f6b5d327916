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
	Catalog   string // what the stream was opened with, by OID: see outbox.checkpoint
	// RecordedXID is the id of the oldest transaction that may be unrecorded: all with smaller ids have ended, and what
	// they published is recorded.
	RecordedXID uint64
}

const checkpointColumns = `lsn::text, index, confirmed_lsn::text, epoch, batch, system_identifier, timeline, catalog, recorded_xid::text`

func scanCheckpoint(row pgx.Row) (Checkpoint, error) {
	var c Checkpoint
	var lsn, confirmed, xid string
	var index int64
	err := row.Scan(&lsn, &index, &confirmed, &c.Epoch, &c.Batch, &c.System, &c.Timeline, &c.Catalog, &xid)
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
	if c.RecordedXID, err = strconv.ParseUint(xid, 10, 64); err != nil {
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

// lockNotAvailable is the SQLSTATE of a wait for a lock that took longer than patience.
const lockNotAvailable = "55P03"

const noteEpoch = "INSERT INTO outbox.epochs (slot_name, epoch, version, host, pid) VALUES ($1, $2, $3, $4, $5)"

// wakeAll makes the first row of each sequence due, if it is held.
const wakeAll = `UPDATE outbox.deliveries SET next_attempt_at = now() WHERE next_attempt_at = 'infinity' AND id IN (
	SELECT DISTINCT ON (subscription_id, sequence) id FROM outbox.deliveries WHERE sequence IS NOT NULL
	ORDER BY subscription_id, sequence, commit_lsn, commit_index)`

// TakeOver begins a new epoch, in one transaction: from now on no earlier relay of the slot can record or
// claim. It returns the checkpoint and the routing view that belongs to it, and frees what earlier epochs
// had claimed. Call it only while holding the slot. An earlier owner that froze in the midst of a record transaction
// still holds the checkpoint's row: its session is ended. timeline is the server's present one, which the checkpoint
// keeps: a new one of the same cluster is continued, and whether it may be the caller has judged.
func TakeOver(ctx context.Context, conn *pgx.Conn, slot string, r Relay, timeline int) (Checkpoint, []delivery.Rule, error) {
	for {
		c, rules, err := beginEpoch(ctx, conn, slot, r, timeline)
		var pg *pgconn.PgError
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

func beginEpoch(ctx context.Context, conn *pgx.Conn, slot string, r Relay, timeline int) (c Checkpoint, rules []delivery.Rule, err error) {
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL lock_timeout = %d", patience.Milliseconds()))
		if err != nil {
			return fmt.Errorf("bound the wait: %w", err)
		}
		c, err = scanCheckpoint(tx.QueryRow(ctx, `UPDATE outbox.checkpoint SET epoch = epoch + 1, batch = 0, timeline = $2, updated_at = now()
			WHERE slot_name = $1 RETURNING `+checkpointColumns, slot, timeline))
		if err != nil {
			return err
		}
		if _, err = tx.Exec(ctx, noteEpoch, slot, c.Epoch, r.Version, r.Host, r.PID); err != nil {
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
		if _, err = tx.Exec(ctx, wakeAll); err != nil {
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

// The rules as of a transaction's snapshot become the routing view.
const (
	clearRouting = "DELETE FROM outbox.routing"
	copyRouting  = `INSERT INTO outbox.routing (subscription_id, tenant, event_types, filters, ordering, is_active, revision)
		SELECT id, tenant, event_types, filters, ordering, is_active, revision FROM outbox.subscriptions`
)

// Begin writes a new slot's first checkpoint and its routing view, as of the snapshot that the slot was
// created with, so that the view and the stream meet exactly. What committed before the snapshot is none of the slot's,
// so every transaction that had ended by then counts as recorded. catalog is what the stream is opened with.
func Begin(ctx context.Context, conn *pgx.Conn, slot, snapshot string, from delivery.LSN, system string, timeline int, catalog string) error {
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
		{"clear the routing view", clearRouting, nil},
		{"write the routing view", copyRouting, nil},
		// Epochs go on counting where an earlier checkpoint of the slot was deleted: its relay may still be awake, with a
		// routing view from before.
		{"write the checkpoint", `INSERT INTO outbox.checkpoint (slot_name, lsn, confirmed_lsn, recorded_through, system_identifier, timeline, catalog, recorded_xid, epoch)
			VALUES ($1, $2::text::pg_lsn, $2::text::pg_lsn, $3, $4, $5, $6, pg_snapshot_xmin(pg_current_snapshot()),
				coalesce((SELECT max(epoch) + 1 FROM outbox.epochs WHERE slot_name = $1 AND epoch > 0), 0))`,
			[]any{slot, from.String(), time.Now(), system, timeline, catalog}},
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
