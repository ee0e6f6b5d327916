package record

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walhook/walhook/relay/delivery"
)

// Restart says where a slot's relay goes on after a gap in the stream, and why.
type Restart struct {
	Slot         string // the checkpoint's
	Snapshot     string // that the new slot was created with; its session must still be open
	From         delivery.LSN
	System       string
	Timeline     int
	Catalog      string
	Code, Reason string // of the gap, for outbox.recoveries
	Relay        Relay
}

// Recovery is the one transaction in which the relay goes on from a new slot, or from a new point in the old one. What that
// will never yield, because it committed before the snapshot, and what the old one never did, because it is not recorded, lies
// in the gap: its events are read from outbox.events, those that were emitted come from the caller if they can be had, and
// their deliveries are queued. The transaction begins the epoch in which nobody
// else records, sees the tables as of the snapshot, and moves the checkpoint, so that either all of it happened or
// nothing.
//
// An error with SQLSTATE 40001 (a former owner recorded meanwhile), 23505 (something was queued meanwhile) or 55P03
// (somebody holds a row that is needed) leaves nothing behind: the caller begins again, with a new snapshot. Of any
// other error it must know the reason first.
type Recovery struct {
	tx      pgx.Tx
	restart Restart
	store   *Store     // writes rows, over the transaction's connection
	before  Checkpoint // the old one
	routing []delivery.Rule

	now       time.Time    // of the transaction, by the database's clock
	recorded  time.Time    // what had committed until then was recorded
	next      int64        // every transaction that the snapshot sees has a smaller id
	floor     int64        // events of transactions with smaller ids are recorded
	committed string       // SQL: when an event's transaction committed
	behind    delivery.LSN // where recovered deliveries stand,
	index     uint64       // and the last place there that was given away
	first     uint64       // the last one before the recovery's own

	began              bool            // Events was called
	minutes            map[int64]int64 // deliveries queued, by the minute of their events, of all minutes with events
	events, deliveries int64
	emitted            int64 // of events
}

// BeginRecovery opens the transaction and moves the checkpoint to where the new slot begins. It returns ErrNoCheckpoint if
// there is none, and errors as Recovery says. An earlier owner that froze in the midst of a record transaction is ended,
// as in TakeOver. The connection serves nothing else until Commit or Rollback.
func BeginRecovery(ctx context.Context, conn *pgx.Conn, r Restart) (*Recovery, error) {
	for {
		recovery, err := beginRecovery(ctx, conn, r)
		var pg *pgconn.PgError
		if errors.As(err, &pg) && pg.Code == lockNotAvailable {
			if err = endHolder(ctx, conn, r.Slot); err == nil {
				continue
			}
		}
		if err != nil {
			return nil, fmt.Errorf("recover slot %s: %w", r.Slot, err)
		}
		return recovery, nil
	}
}

func beginRecovery(ctx context.Context, conn *pgx.Conn, restart Restart) (_ *Recovery, err error) {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	r := &Recovery{tx: tx, restart: restart, store: &Store{conn: conn}, minutes: map[int64]int64{}}
	defer func() {
		if err != nil {
			r.Rollback()
		}
	}()
	for _, sql := range []string{"SET TRANSACTION SNAPSHOT '" + restart.Snapshot + "'",
		fmt.Sprintf("SET LOCAL lock_timeout = %d", patience.Milliseconds())} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return nil, fmt.Errorf("use the slot's snapshot: %w", err)
		}
	}
	if err := r.look(ctx); err != nil {
		return nil, err
	}
	return r, r.move(ctx)
}

// look reads what was before.
func (r *Recovery) look(ctx context.Context) (err error) {
	slot := r.restart.Slot
	r.before, err = scanCheckpoint(r.tx.QueryRow(ctx, "SELECT "+checkpointColumns+" FROM outbox.checkpoint WHERE slot_name = $1", slot))
	if err != nil {
		return err
	}
	if r.routing, err = routing(ctx, r.tx); err != nil {
		return err
	}
	var timestamps bool
	err = r.tx.QueryRow(ctx, `SELECT now(), recorded_through, pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
		current_setting('track_commit_timestamp')::bool FROM outbox.checkpoint WHERE slot_name = $1`, slot).
		Scan(&r.now, &r.recorded, &r.next, &timestamps)
	if err != nil {
		return fmt.Errorf("look at the snapshot: %w", err)
	}
	var written int64
	if err = r.tx.QueryRow(ctx, "SELECT "+fullXID+" FROM outbox.checkpoint AS e WHERE slot_name = $2", r.next, slot).Scan(&written); err != nil {
		return fmt.Errorf("look at the checkpoint's age: %w", err)
	}
	// The checkpoint's row is younger than the mark that it bears. Where it is not, it was copied from another cluster
	// with other transaction ids, and the mark says nothing.
	if r.floor = int64(r.before.RecordedXID); written < r.floor {
		r.floor = 0
	}
	r.committed = "e.created_at"
	if timestamps {
		r.committed = "coalesce(pg_xact_commit_timestamp(e.xmin), e.created_at)"
	}
	return nil
}

// move begins the epoch, and puts the checkpoint where the new slot begins, with the rules that stand there.
func (r *Recovery) move(ctx context.Context) error {
	to := &r.restart
	var epoch int
	err := r.tx.QueryRow(ctx, `UPDATE outbox.checkpoint SET epoch = epoch + 1, batch = 0, lsn = $2::text::pg_lsn, index = 0, confirmed_lsn = $2::text::pg_lsn,
		system_identifier = $3, timeline = $4, catalog = $5, updated_at = now() WHERE slot_name = $1 RETURNING epoch`,
		to.Slot, to.From.String(), to.System, to.Timeline, to.Catalog).Scan(&epoch)
	if err != nil {
		return fmt.Errorf("move checkpoint: %w", err)
	}
	if _, err = r.tx.Exec(ctx, noteEpoch, to.Slot, epoch, to.Relay.Version, to.Relay.Host, to.Relay.PID); err != nil {
		return fmt.Errorf("note the epoch: %w", err)
	}
	for _, sql := range []string{clearRouting, copyRouting} {
		if _, err := r.tx.Exec(ctx, sql); err != nil {
			return fmt.Errorf("write the routing view: %w", err)
		}
	}
	return r.place(ctx)
}

// place finds where recovered deliveries stand: behind everything that waits, and before all that the new slot will
// yield. Behind the old checkpoint is such a place, unless the server's WAL lies behind it: then what waits is counted
// anew, in its order, just before the new slot's beginning.
func (r *Recovery) place(ctx context.Context) error {
	r.behind, r.index = r.before.Position.LSN, r.before.Position.Index
	r.first = r.index
	if r.behind < r.restart.From {
		return nil
	}
	r.behind = r.restart.From - 1
	tag, err := r.tx.Exec(ctx, `UPDATE outbox.deliveries d SET commit_lsn = $1::text::pg_lsn, commit_index = o.place
		FROM (SELECT id, row_number() OVER (ORDER BY commit_lsn, commit_index, id) AS place
			FROM outbox.deliveries WHERE commit_lsn >= $1::text::pg_lsn) AS o
		WHERE d.id = o.id`, r.behind.String())
	if err != nil {
		return fmt.Errorf("place what waits before the new slot's beginning: %w", err)
	}
	r.index = uint64(tag.RowsAffected())
	r.first = r.index
	return nil
}

// Checkpoint returns the one from before the recovery.
func (r *Recovery) Checkpoint() Checkpoint { return r.before }

// Commit makes what is queued due, counts the events of the gap as recorded, notes the recovery in outbox.recoveries,
// and commits. Whether a COMMIT without a reply happened, the checkpoint's epoch tells.
func (r *Recovery) Commit(ctx context.Context) error {
	if err := r.recount(ctx); err != nil {
		return err
	}
	if err := r.inOrder(ctx); err != nil {
		return err
	}
	to := &r.restart
	for _, step := range []struct {
		what, sql string
		args      []any
	}{
		{"wake the first delivery of each sequence", wakeAll, nil},
		{"move checkpoint", `UPDATE outbox.checkpoint SET recorded_xid = pg_snapshot_xmin(pg_current_snapshot()),
			recorded_through = greatest(recorded_through, now()) WHERE slot_name = $1`, []any{to.Slot}},
		{"note the recovery", `INSERT INTO outbox.recoveries (slot_name, code, reason, from_lsn, to_lsn, events, deliveries)
			VALUES ($1, $2, $3, $4::text::pg_lsn, $5::text::pg_lsn, $6, $7)`,
			[]any{to.Slot, to.Code, to.Reason, r.before.Position.LSN.String(), to.From.String(), r.events, r.deliveries}},
		{"wake the claimer", "SELECT pg_notify('walhook', 'queue')", nil},
	} {
		if _, err := r.tx.Exec(ctx, step.sql, step.args...); err != nil {
			return fmt.Errorf("recover slot %s: %s: %w", to.Slot, step.what, err)
		}
	}
	if err := r.tx.Commit(ctx); err != nil {
		return fmt.Errorf("recover slot %s: commit: %w", to.Slot, err)
	}
	return nil
}

// Rollback gives the recovery up. After Commit it does nothing.
func (r *Recovery) Rollback() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = r.tx.Rollback(ctx)
}
